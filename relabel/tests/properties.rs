//! What holds for all rules and label sets.

use proptest::prelude::*;
use relabel::{Action, Definition, LabelSet, Labels, Rule, Verdict, apply};

fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("[a-c_]{1,3}", "[a-cA-C;é]{0,4}", 0..6)
}

fn pattern() -> impl Strategy<Value = String> {
    // Pieces that often make a whole.
    let piece = prop::sample::select(vec![
        "a", "b", ".", "(", ")", "*", "+", "|", "[a-c]", "(.*)", "\\w", "_", "é", "{2}", "(?i)",
    ]);
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

fn rule() -> impl Strategy<Value = Rule> {
    let template = "[a-c$1{}_]{1,5}";
    let action = prop::sample::select(Action::ALL.to_vec());
    let names = prop::collection::vec("[a-c_]{1,2}", 0..3);
    let parts = (action, names, pattern(), template, template, 1u64..10);
    parts.prop_filter_map(
        "refused",
        |(action, names, regex, target, replacement, modulus)| {
            let by_name = matches!(action, Action::LabelDrop | Action::LabelKeep);
            let compares = matches!(action, Action::KeepEqual | Action::DropEqual);
            let replaces = matches!(action, Action::Replace | Action::LabelMap);
            let default = Definition::default();
            Rule::new(Definition {
                source_labels: (!by_name).then_some(names),
                regex: (!compares).then_some(regex),
                modulus: if by_name || compares { 0 } else { modulus },
                target_label: if by_name { String::new() } else { target },
                replacement: if replaces {
                    replacement
                } else {
                    default.replacement
                },
                action: Some(action),
                separator: default.separator,
            })
            .ok()
        },
    )
}

fn after(rule: &Rule, labels: &Labels) -> Option<Labels> {
    let mut set = LabelSet::new(labels.clone());
    (rule.apply(&mut set) == Verdict::Keep).then(|| set.to_labels())
}

fn simple(action: Action, regex: &str) -> Option<Rule> {
    Rule::new(Definition {
        regex: Some(regex.to_owned()),
        action: Some(action),
        ..Definition::default()
    })
    .ok()
}

proptest! {
    #[test]
    fn any_text_is_a_pattern_or_refused(text in "\\PC{0,20}", value in "\\PC{0,5}") {
        if let Some(rule) = simple(Action::Keep, &text) {
            let _verdict = rule.apply(&mut LabelSet::new([("a", value)]));
        }
    }

    #[test]
    fn no_label_is_ever_empty(rules in prop::collection::vec(rule(), 0..6), labels in labels()) {
        let mut set = LabelSet::new(labels);
        let _verdict = apply(&rules, &mut set);
        prop_assert!(set.to_labels().values().all(|value| !value.is_empty()));
        prop_assert!(set.into_series().keys().all(|name| !name.starts_with("__")));
    }

    #[test]
    fn rules_in_a_row_are_rules_one_by_one(rules in prop::collection::vec(rule(), 0..6), labels in labels()) {
        let mut set = LabelSet::new(labels.clone());
        let whole = (apply(&rules, &mut set) == Verdict::Keep).then(|| set.to_labels());
        // Without a `labelmap` of two labels to one name, a fresh start between rules changes nothing.
        if rules.iter().all(|rule| rule.action() != Action::LabelMap) {
            let clean: Labels = LabelSet::new(labels).to_labels();
            let single = rules.iter().try_fold(clean, |labels, rule| after(rule, &labels));
            prop_assert_eq!(whole, single);
        }
    }

    #[test]
    fn keep_and_drop_are_opposites(regex in pattern(), value in "[a-c]{0,3}") {
        let rules = [Action::Keep, Action::Drop].map(|action| {
            Rule::new(Definition {
                source_labels: Some(vec!["v".to_owned()]),
                regex: Some(regex.clone()),
                action: Some(action),
                ..Definition::default()
            })
        });
        if let [Ok(keep), Ok(drop)] = rules {
            let labels = Labels::from([("v".to_owned(), value)]);
            prop_assert_ne!(after(&keep, &labels).is_some(), after(&drop, &labels).is_some());
        }
    }

    #[test]
    fn labelkeep_and_labeldrop_share_the_labels_out(regex in pattern(), labels in labels()) {
        let rules = (simple(Action::LabelKeep, &regex), simple(Action::LabelDrop, &regex));
        if let (Some(keep), Some(drop)) = rules {
            let clean = LabelSet::new(labels.clone()).to_labels();
            let mut both = after(&keep, &labels).unwrap();
            for (name, value) in after(&drop, &labels).unwrap() {
                prop_assert!(both.insert(name, value).is_none());
            }
            prop_assert_eq!(both, clean);
        }
    }

    #[test]
    fn a_hash_is_less_than_its_modulus(labels in labels(), modulus in 1u64..) {
        let rule = Rule::new(Definition {
            source_labels: Some(labels.keys().cloned().collect()),
            target_label: "hash".to_owned(),
            modulus,
            action: Some(Action::HashMod),
            ..Definition::default()
        }).unwrap();
        let hash: u64 = after(&rule, &labels).unwrap()["hash"].parse().unwrap();
        prop_assert!(hash < modulus);
    }
}
