//! The PromQL series selector `{label="value", label=~"regex"}`: parsed from what a stranger typed, bounded, never more than
//! matching of text against text.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::borrow::Cow;
use std::fmt;

use regex_lite::{Regex, RegexBuilder};
use thiserror::Error;

/// Bytes of a selector.
const MAX_SELECTOR: usize = 4096;
/// Conditions of a selector.
const MAX_MATCHERS: usize = 32;
/// Bytes a compiled regular expression may take: matching stays linear in what this bounds.
const MAX_REGEX: usize = 64 * 1024;

/// Why a selector can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum SelectorError {
    /// Longer than [`MAX_SELECTOR`].
    #[error("selector longer than {MAX_SELECTOR} bytes")]
    TooLong,
    /// More conditions than [`MAX_MATCHERS`].
    #[error("selector has more than {MAX_MATCHERS} conditions")]
    TooManyMatchers,
    /// Something else was expected.
    #[error("selector: expected {expected} at {found:?}; example: {{comm=\"postgres\"}}")]
    Expected {
        /// What would have been right.
        expected: &'static str,
        /// The text that stands there, cut.
        found: String,
    },
    /// A regular expression doesn't compile.
    #[error("selector: regular expression {pattern:?}: {reason}")]
    Regex {
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A conjunction of conditions; without any it takes everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    matchers: Vec<Matcher>,
}

#[derive(Clone, Debug)]
struct Matcher {
    label: String,
    condition: Condition,
}

#[derive(Clone, Debug)]
enum Condition {
    Equal(String),
    NotEqual(String),
    Match(Regex),
    NoMatch(Regex),
}

impl Selector {
    /// Parses `{name op "value", ...}` with the operators `=`, `!=`, `=~`, `!~`. Values are quoted with `"`, `'` or
    /// backquotes; regular expressions match whole values, as in PromQL.
    ///
    /// # Errors
    /// [`SelectorError`], fit for the one who typed it.
    pub(crate) fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_SELECTOR {
            return Err(SelectorError::TooLong);
        }
        let mut scanner = Scanner { rest: text };
        scanner.expect('{', "'{'")?;
        let mut matchers = Vec::new();
        while !scanner.accept('}') {
            if matchers.len() >= MAX_MATCHERS {
                return Err(SelectorError::TooManyMatchers);
            }
            matchers.push(scanner.matcher()?);
            if !scanner.accept(',') {
                scanner.expect('}', "',' or '}'")?;
                break;
            }
        }
        scanner.end()?;
        Ok(Self { matchers })
    }

    /// The selector of samples whose `label` is `value`.
    pub(crate) fn equal(label: &str, value: &str) -> Self {
        Self {
            matchers: vec![Matcher {
                label: label.to_owned(),
                condition: Condition::Equal(value.to_owned()),
            }],
        }
    }

    /// What both selectors take.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.matchers.extend(other.matchers);
        self
    }

    /// Whether every sample is taken, whatever its labels.
    pub(crate) fn takes_all(&self) -> bool {
        self.matchers.is_empty()
    }

    /// Whether labels are taken; a label that isn't there counts as empty text, as in PromQL.
    pub(crate) fn takes<'a>(&self, value_of: impl Fn(&str) -> Option<Cow<'a, str>>) -> bool {
        self.matchers.iter().all(|matcher| {
            let value = value_of(&matcher.label).unwrap_or_default();
            match &matcher.condition {
                Condition::Equal(wanted) => *wanted == value,
                Condition::NotEqual(unwanted) => *unwanted != value,
                Condition::Match(regex) => regex.is_match(&value),
                Condition::NoMatch(regex) => !regex.is_match(&value),
            }
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("{")?;
        for (index, matcher) in self.matchers.iter().enumerate() {
            if index > 0 {
                formatter.write_str(",")?;
            }
            let (operator, value) = match &matcher.condition {
                Condition::Equal(value) => ("=", value.as_str()),
                Condition::NotEqual(value) => ("!=", value.as_str()),
                Condition::Match(regex) => ("=~", inner(regex)),
                Condition::NoMatch(regex) => ("!~", inner(regex)),
            };
            write!(formatter, "{}{operator}\"", matcher.label)?;
            for character in value.chars() {
                match character {
                    '"' | '\\' => write!(formatter, "\\{character}")?,
                    '\n' => formatter.write_str("\\n")?,
                    '\t' => formatter.write_str("\\t")?,
                    '\r' => formatter.write_str("\\r")?,
                    _ => write!(formatter, "{character}")?,
                }
            }
            formatter.write_str("\"")?;
        }
        formatter.write_str("}")
    }
}

const ANCHORED: (&str, &str) = ("^(?s:", ")$");

/// The expression as it was typed.
fn inner(regex: &Regex) -> &str {
    regex
        .as_str()
        .strip_prefix(ANCHORED.0)
        .and_then(|rest| rest.strip_suffix(ANCHORED.1))
        .unwrap_or_default()
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn accept(&mut self, wanted: char) -> bool {
        self.skip_blanks();
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, wanted: char, name: &'static str) -> Result<(), SelectorError> {
        if self.accept(wanted) {
            Ok(())
        } else {
            Err(self.expected(name))
        }
    }

    fn end(&mut self) -> Result<(), SelectorError> {
        self.skip_blanks();
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.expected("the end"))
        }
    }

    fn expected(&self, expected: &'static str) -> SelectorError {
        SelectorError::Expected {
            expected,
            found: self.rest.chars().take(24).collect(),
        }
    }

    fn matcher(&mut self) -> Result<Matcher, SelectorError> {
        let label = self.label()?.to_owned();
        self.skip_blanks();
        // The longer operators first: `=` is a prefix of `=~`.
        const OPERATORS: [&str; 4] = ["=~", "!~", "!=", "="];
        let operator = OPERATORS
            .into_iter()
            .find(|operator| self.rest.starts_with(operator))
            .ok_or_else(|| self.expected("one of = != =~ !~"))?;
        self.rest = self.rest.strip_prefix(operator).unwrap_or(self.rest);
        let value = self.quoted()?;
        let condition = match operator {
            "=~" => Condition::Match(regex(&value)?),
            "!~" => Condition::NoMatch(regex(&value)?),
            "!=" => Condition::NotEqual(value),
            _ => Condition::Equal(value),
        };
        Ok(Matcher { label, condition })
    }

    fn label(&mut self) -> Result<&'a str, SelectorError> {
        self.skip_blanks();
        let end = self
            .rest
            .find(|character: char| !character.is_ascii_alphanumeric() && character != '_')
            .unwrap_or(self.rest.len());
        let (label, rest) = self.rest.split_at_checked(end).unwrap_or(("", self.rest));
        if label.is_empty() || label.starts_with(|character: char| character.is_ascii_digit()) {
            return Err(self.expected("a label name"));
        }
        self.rest = rest;
        Ok(label)
    }

    fn quoted(&mut self) -> Result<String, SelectorError> {
        self.skip_blanks();
        let quote = self
            .rest
            .chars()
            .next()
            .filter(|quote| matches!(quote, '"' | '\'' | '`'))
            .ok_or_else(|| self.expected("a quoted value"))?;
        let mut characters = self.rest.chars();
        characters.next();
        let mut value = String::new();
        loop {
            match characters.next() {
                None => return Err(self.expected("a closing quote")),
                Some(end) if end == quote => break,
                Some('\\') if quote != '`' => match characters.next() {
                    Some('n') => value.push('\n'),
                    Some('t') => value.push('\t'),
                    Some('r') => value.push('\r'),
                    Some(escaped @ ('\\' | '"' | '\'')) => value.push(escaped),
                    _ => return Err(self.expected("an escape of \\n \\t \\r \\\\ \\\" \\'")),
                },
                Some(character) => value.push(character),
            }
        }
        self.rest = characters.as_str();
        Ok(value)
    }
}

fn regex(pattern: &str) -> Result<Regex, SelectorError> {
    let (open, close) = ANCHORED;
    let wrong = |reason: String| SelectorError::Regex {
        pattern: pattern.chars().take(64).collect(),
        reason,
    };
    // Alone first: an expression like `a)(b` would be whole only together with our own brackets.
    build(pattern).map_err(|error| wrong(error.to_string()))?;
    build(&format!("{open}{pattern}{close}")).map_err(|error| wrong(error.to_string()))
}

fn build(pattern: &str) -> Result<Regex, regex_lite::Error> {
    RegexBuilder::new(pattern).size_limit(MAX_REGEX).build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn takes(selector: &str, labels: &[(&str, &str)]) -> bool {
        Selector::parse(selector).expect(selector).takes(|name| {
            labels
                .iter()
                .find(|(label, _)| *label == name)
                .map(|(_, value)| Cow::Borrowed(*value))
        })
    }

    #[test]
    fn the_four_operators_match_as_in_promql() {
        let labels = [("comm", "postgres"), ("pid", "42")];
        for (selector, expected) in [
            ("{}", true),
            (" { } ", true),
            (r#"{comm="postgres"}"#, true),
            (r#"{comm="postgre"}"#, false),
            (r#"{comm!="nginx"}"#, true),
            (r#"{comm!="postgres"}"#, false),
            (r#"{comm=~"post.*"}"#, true),
            (r#"{comm=~"post"}"#, false),
            (r#"{comm=~"nginx|postgres"}"#, true),
            (r#"{comm!~"nginx|apache"}"#, true),
            (r#"{comm!~".+"}"#, false),
            (r#"{comm="postgres",pid="42",}"#, true),
            (r#"{comm="postgres", pid='43'}"#, false),
            (r#"{absent=""}"#, true),
            (r#"{absent!=""}"#, false),
            ("{comm=`postgres`}", true),
        ] {
            assert_eq!(takes(selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn quotes_and_escapes_are_read() {
        assert!(takes(r#"{comm="a\"b\\c\n"}"#, &[("comm", "a\"b\\c\n")]));
        assert!(takes(r"{comm=`a\d`}", &[("comm", r"a\d")]));
        assert!(takes("{comm='it\\'s'}", &[("comm", "it's")]));
        assert!(takes(r#"{comm=~"(?i)POST.*"}"#, &[("comm", "postgres")]));
    }

    #[test]
    fn what_is_no_selector_says_why() {
        for (selector, expected) in [
            ("", "'{'"),
            ("comm", "'{'"),
            ("{", "a label name"),
            ("{comm}", "one of"),
            ("{comm=}", "a quoted value"),
            ("{comm=x}", "a quoted value"),
            (r#"{comm="x}"#, "a closing quote"),
            (r#"{comm="x""#, "',' or '}'"),
            (r#"{comm="x"} or"#, "the end"),
            (r#"{1comm="x"}"#, "a label name"),
            (r#"{comm="\q"}"#, "an escape"),
            (r#"{,}"#, "a label name"),
        ] {
            let error = Selector::parse(selector).expect_err(selector).to_string();
            assert!(error.contains(expected), "{selector}: {error}");
        }
        for selector in [
            r#"{comm=~"("}"#,
            r#"{comm=~"a)(b"}"#,
            r#"{comm=~"(a{1000}){1000}"}"#,
        ] {
            assert!(
                matches!(Selector::parse(selector), Err(SelectorError::Regex { .. })),
                "{selector}"
            );
        }
        let many = format!("{{{}}}", r#"a="b","#.repeat(MAX_MATCHERS + 1));
        assert_eq!(
            Selector::parse(&many).unwrap_err(),
            SelectorError::TooManyMatchers
        );
        let long = format!(r#"{{a="{}"}}"#, "b".repeat(MAX_SELECTOR));
        assert_eq!(Selector::parse(&long).unwrap_err(), SelectorError::TooLong);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in any::<String>()) {
            let _ = Selector::parse(&text);
        }

        #[test]
        fn almost_selectors_are_survived(text in r#"\{([a-z]{0,3}(=|!=|=~|!~)?["'`]?[a-z(\\*]{0,4}["'`]?,?){0,4}\}?"#) {
            let _ = Selector::parse(&text);
        }

        #[test]
        fn any_value_can_be_selected(value in "[^\u{0}]{0,40}", other in "[^\u{0}]{0,40}") {
            let text = Selector::equal("comm", &value).to_string();
            prop_assert!(takes(&text, &[("comm", &value)]), "{}", text);
            prop_assert_eq!(takes(&text, &[("comm", &other)]), value == other);
        }

        #[test]
        fn printing_and_parsing_agree(values in proptest::collection::vec(("[a-z_]{1,8}", "[a-z.\"\\\\ ]{0,8}", any::<bool>()), 0..5)) {
            let selector = values.iter().fold(Selector::default(), |selector, (label, value, negate)| {
                let condition = if *negate { Condition::NotEqual(value.clone()) } else { Condition::Equal(value.clone()) };
                selector.and(Selector { matchers: vec![Matcher { label: label.clone(), condition }] })
            });
            let text = selector.to_string();
            prop_assert_eq!(Selector::parse(&text).unwrap().to_string(), text);
        }
    }
}
