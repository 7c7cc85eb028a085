//! `relabel_configs`: Prometheus' rules as its YAML writes them.

use relabel::{Action, Definition, Rule};

use crate::document::Problem;
use crate::node::{Node, Place, Value};
use crate::suggest::hint;

/// The key, as Prometheus writes it.
pub(crate) const KEY: &str = "relabel_configs";

pub(crate) const FIELDS: [&str; 7] = [
    "source_labels",
    "separator",
    "regex",
    "modulus",
    "target_label",
    "replacement",
    "action",
];

/// Reads the list; what is wrong is added to `problems`.
pub(crate) fn read(node: &Node, problems: &mut Vec<Problem>) -> Vec<Rule> {
    if node.is_null() {
        return Vec::new();
    }
    let Value::Sequence(items) = &node.value else {
        let what = format!("{KEY} is {}, not a list of rules", node.what());
        problems.push(Problem::new(node.place, what));
        return Vec::new();
    };
    let mut rules = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let before = problems.len();
        let mut reader = Reader {
            index,
            problems,
            definition: Definition::default(),
            regex: item.place,
        };
        reader.read(item);
        let Reader {
            definition, regex, ..
        } = reader;
        if problems.len() > before {
            continue;
        }
        match Rule::new(definition) {
            Ok(rule) => rules.push(rule),
            Err(error) => {
                let place = match error {
                    relabel::RuleError::Regex(_) => regex,
                    _ => item.place,
                };
                problems.push(Problem::new(place, format!("{KEY}[{index}]: {error}")));
            }
        }
    }
    rules
}

struct Reader<'a> {
    index: usize,
    problems: &'a mut Vec<Problem>,
    definition: Definition,
    regex: Place,
}

impl Reader<'_> {
    fn problem(&mut self, place: Place, what: impl std::fmt::Display) {
        let index = self.index;
        self.problems
            .push(Problem::new(place, format!("{KEY}[{index}]: {what}")));
    }

    fn read(&mut self, item: &Node) {
        let Value::Mapping(entries) = &item.value else {
            return self.problem(item.place, format_args!("{}, not a rule", item.what()));
        };
        let mut seen: Vec<&str> = Vec::new();
        for (key, value) in entries {
            let Value::Scalar { text: name, .. } = &key.value else {
                self.problem(key.place, "a key that is no text");
                continue;
            };
            if seen.contains(&name.as_str()) {
                self.problem(key.place, format_args!("{name:?} is set twice"));
                continue;
            }
            seen.push(name);
            self.field(name, key.place, value);
        }
    }

    fn field(&mut self, name: &str, place: Place, value: &Node) {
        match name {
            "source_labels" => self.source_labels(value),
            "separator" => {
                let text = self.text(name, value);
                self.definition.separator = text;
            }
            "regex" => {
                self.regex = value.place;
                let text = self.text(name, value);
                self.definition.regex = Some(text);
            }
            "target_label" => {
                let text = self.text(name, value);
                self.definition.target_label = text;
            }
            "replacement" => {
                let text = self.text(name, value);
                self.definition.replacement = text;
            }
            "modulus" => self.modulus(value),
            "action" if value.is_null() => self.definition.action = None,
            "action" => {
                let text = self.text(name, value);
                match Action::parse(&text) {
                    Ok(action) => self.definition.action = Some(action),
                    Err(error) => {
                        let known = Action::ALL.into_iter().map(Action::name);
                        let hint = hint(&text, "", known);
                        self.problem(value.place, format_args!("{error}{hint}"));
                    }
                }
            }
            _ => {
                let hint = hint(name, "", FIELDS.into_iter());
                self.problem(place, format_args!("unknown field {name:?}{hint}"));
            }
        }
    }

    /// A scalar of whatever type is text here; nothing is empty.
    fn text(&mut self, name: &str, value: &Node) -> String {
        match &value.value {
            _ if value.is_null() => String::new(),
            Value::Scalar { text, .. } => text.clone(),
            _ => {
                self.problem(
                    value.place,
                    format_args!("{name} is {}, not text", value.what()),
                );
                String::new()
            }
        }
    }

    fn source_labels(&mut self, value: &Node) {
        if value.is_null() {
            self.definition.source_labels = None;
            return;
        }
        let Value::Sequence(items) = &value.value else {
            return self.problem(
                value.place,
                format_args!(
                    "source_labels is {}, not a list such as [a, b]",
                    value.what()
                ),
            );
        };
        let names = items.iter().map(|item| self.text("source_labels", item));
        self.definition.source_labels = Some(names.collect());
    }

    fn modulus(&mut self, value: &Node) {
        let modulus = match &value.value {
            _ if value.is_null() => Some(0),
            Value::Scalar { text, plain: true } => number(text),
            _ => None,
        };
        match modulus {
            Some(modulus) => self.definition.modulus = modulus,
            None => self.problem(value.place, "modulus is no whole number from 0"),
        }
    }
}

/// A whole number as YAML 1.1 writes it.
fn number(text: &str) -> Option<u64> {
    let text = text.replace('_', "");
    let digits = text.strip_prefix('+').unwrap_or(&text);
    let radix = |prefix: &str, radix: u32| {
        let digits = digits.strip_prefix(prefix)?;
        (!digits.starts_with(['+', '-'])).then(|| u64::from_str_radix(digits, radix).ok())?
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    radix("0x", 16)
        .or_else(|| radix("0o", 8))
        .or_else(|| radix("0b", 2))
        .or_else(|| {
            digits
                .strip_prefix('0')
                .and_then(|octal| u64::from_str_radix(octal, 8).ok())
        })
        .or_else(|| digits.parse().ok())
}
