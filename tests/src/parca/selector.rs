//! The questions' language: `name:sample:unit:period:unit:delta{label="value",other=~"regex"}`.

use std::collections::BTreeMap;

use regex_lite::Regex;

use super::refusal::Refusal;

/// What a profile counts and in which unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProfileType {
    pub name: String,
    pub sample_type: String,
    pub sample_unit: String,
    pub period_type: String,
    pub period_unit: String,
    /// Profiles with a duration are deltas.
    pub delta: bool,
}

impl ProfileType {
    /// Takes the five or six parts apart; fewer or more are refused, as a bare name is.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let parts: Vec<&str> = text.split(':').collect();
        let (five, delta) = match parts.as_slice() {
            [five @ .., last] if five.len() == 5 => (five, *last == "delta"),
            five if five.len() == 5 => (five, false),
            _ => {
                return Err(Refusal::invalid(format!(
                    "{text:?} is no <name>:<sample-type>:<sample-unit>:<period-type>:<period-unit>(:delta)"
                )));
            }
        };
        let part = |index: usize| five[index].to_owned();
        Ok(Self {
            name: part(0),
            sample_type: part(1),
            sample_unit: part(2),
            period_type: part(3),
            period_unit: part(4),
            delta,
        })
    }

    /// Whether the parts make a metric name that a selector can hold.
    #[must_use]
    pub fn can_be_asked_for(&self) -> bool {
        let text = format!(
            "{}:{}:{}:{}:{}",
            self.name, self.sample_type, self.sample_unit, self.period_type, self.period_unit
        );
        let mut characters = text.chars();
        characters
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || "_:".contains(first))
            && characters.all(|other| other.is_ascii_alphanumeric() || "_:".contains(other))
    }
}

#[derive(Debug, Clone)]
enum Condition {
    Equal(String),
    NotEqual(String),
    Matches(Regex),
    MatchesNot(Regex),
}

/// A parsed question.
#[derive(Debug, Clone)]
pub struct Selector {
    pub profile_type: ProfileType,
    conditions: Vec<(String, Condition)>,
}

impl Selector {
    pub fn parse(query: &str) -> Result<Self, Refusal> {
        let bad = || Refusal::invalid(format!("failed to parse query: {query}"));
        let (name, rest) = match query.split_once('{') {
            None => (query, ""),
            Some((name, rest)) => (name, rest.trim_end().strip_suffix('}').ok_or_else(bad)?),
        };
        let mut conditions = Vec::new();
        let mut rest = rest.trim_start();
        while !rest.is_empty() {
            let at = rest.find(['=', '!']).ok_or_else(bad)?;
            let (label, after) = rest.split_at(at);
            let operator = ["=~", "!~", "!=", "="]
                .into_iter()
                .find(|operator| after.starts_with(operator))
                .ok_or_else(bad)?;
            let quoted = after[operator.len()..]
                .trim_start()
                .strip_prefix('"')
                .ok_or_else(bad)?;
            let (value, after) = unquoted(quoted).ok_or_else(bad)?;
            // Anchored at both ends.
            let regex = || Regex::new(&format!("^(?:{value})$")).map_err(|_malformed| bad());
            let condition = match operator {
                "=~" => Condition::Matches(regex()?),
                "!~" => Condition::MatchesNot(regex()?),
                "!=" => Condition::NotEqual(value),
                _ => Condition::Equal(value),
            };
            conditions.push((label.trim().to_owned(), condition));
            rest = after.trim_start();
            if let Some(next) = rest.strip_prefix(',') {
                rest = next.trim_start();
            } else if !rest.is_empty() {
                return Err(bad());
            }
        }
        Ok(Self {
            profile_type: ProfileType::parse(name.trim())?,
            conditions,
        })
    }

    /// Whether a series is asked for. A label that is not there counts as empty.
    #[must_use]
    pub fn selects(&self, profile_type: &ProfileType, labels: &BTreeMap<String, String>) -> bool {
        self.profile_type == *profile_type
            && self.conditions.iter().all(|(name, condition)| {
                let value = labels.get(name).map_or("", String::as_str);
                match condition {
                    Condition::Equal(wanted) => value == wanted,
                    Condition::NotEqual(unwanted) => value != unwanted,
                    Condition::Matches(regex) => regex.is_match(value),
                    Condition::MatchesNot(regex) => !regex.is_match(value),
                }
            })
    }
}

/// The text up to the closing quote, escapes resolved, and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: &str = "parca_agent_cpu:samples:count:cpu:nanoseconds:delta";

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn series_are_selected_by_type_and_labels() {
        let cpu = ProfileType::parse(CPU).expect("a type");
        assert!(cpu.delta);
        let own = labels(&[("comm", "a\"b"), ("node", "n1")]);
        for (conditions, selected) in [
            ("", true),
            ("{}", true),
            (r#"{comm="a\"b", node="n1"}"#, true),
            (r#"{comm="a"}"#, false),
            (r#"{node!="n1"}"#, false),
            (r#"{node=~"n[0-9]"}"#, true),
            (r#"{node=~"n"}"#, false),
            (r#"{node!~"n.*"}"#, false),
            (r#"{pod=""}"#, true),
        ] {
            let selector = Selector::parse(&format!("{CPU}{conditions}")).expect("a selector");
            assert_eq!(selector.selects(&cpu, &own), selected, "{conditions}");
        }
        let instant = ProfileType {
            delta: false,
            ..cpu
        };
        assert!(
            !Selector::parse(CPU)
                .expect("a selector")
                .selects(&instant, &own)
        );
    }

    #[test]
    fn what_is_no_question_is_refused() {
        for text in [
            "parca_agent_cpu",
            "",
            "a:b:c:d",
            "a:b:c:d:e:delta:f",
            "a:b:c:d:e{x}",
            "a:b:c:d:e{x=\"y}",
            "a:b:c:d:e{x=\"y\" z=\"\"}",
            "a:b:c:d:e{x=~\"(\"}",
        ] {
            let refusal = Selector::parse(text).expect_err(text);
            assert_eq!(refusal.code, tonic::Code::InvalidArgument, "{text}");
        }
    }

    #[test]
    fn a_type_that_no_selector_can_hold_is_told() {
        let cpu = ProfileType::parse(CPU).expect("a type");
        assert!(cpu.can_be_asked_for());
        let spaced = ProfileType {
            sample_type: "CPU time".to_owned(),
            ..cpu
        };
        assert!(!spaced.can_be_asked_for());
    }
}
