//! What Prometheus' own model/relabel makes of rules and label sets, case by case: `golden/*.jsonl` was written by
//! `oracle/main.go` from cases made for it.
#![expect(
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "an integration test"
)]

use relabel::{Action, Definition, LabelSet, Labels, Rule, RuleError, Verdict, apply};
use serde_json::Value;

/// A rule as its YAML is read: what is absent keeps its default, `null` is empty.
fn definition(rule: &Value) -> Result<Definition, RuleError> {
    let mut definition = Definition::default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for (key, value) in rule.as_object().unwrap() {
        match key.as_str() {
            "source_labels" => {
                let names = value
                    .as_array()
                    .map(|names| names.iter().map(text).collect());
                definition.source_labels = names;
            }
            "separator" => definition.separator = text(value),
            "regex" => definition.regex = Some(text(value)),
            "modulus" => definition.modulus = value.as_u64().unwrap_or_default(),
            "target_label" => definition.target_label = text(value),
            "replacement" => definition.replacement = text(value),
            "action" => {
                let name = value.as_str().map(Action::parse);
                definition.action = name.transpose()?;
            }
            _ => unreachable!("{key}"),
        }
    }
    Ok(definition)
}

fn run(case: &Value) -> Result<Option<Labels>, RuleError> {
    let rules = case["rules"].as_array().unwrap().iter();
    let rules: Vec<Rule> = rules
        .map(|rule| definition(rule).and_then(Rule::new))
        .collect::<Result<_, _>>()?;
    let labels = case["labels"].as_object().unwrap().iter();
    let mut set = LabelSet::new(labels.map(|(name, value)| (name, value.as_str().unwrap())));
    Ok(match apply(&rules, &mut set) {
        Verdict::Keep => Some(set.to_labels()),
        Verdict::Drop => None,
    })
}

#[test]
fn rules_do_what_they_do_in_prometheus() {
    let golden = include_str!("golden/cases.jsonl");
    let mut wrong = Vec::new();
    for line in golden.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let right = match (run(&case), case.get("error")) {
            (Err(error), Some(wanted)) => {
                // Its YAML reader says the same with more words around it.
                wanted.as_str().unwrap().contains(&error.to_string())
            }
            (Ok(labels), None) => serde_json::to_value(&labels).unwrap() == case["want"],
            _ => false,
        };
        if !right {
            wrong.push(format!("{line}\n  {:?}", run(&case)));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
