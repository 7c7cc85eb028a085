//! A rule's regular expression: anchored, of RE2's syntax, with `$1`, `${1}` and `${name}` expanded as Go does it.

mod class;
mod syntax;
mod unicode_names;

use std::sync::LazyLock;

use regex::{Captures, Regex, RegexBuilder};

pub use syntax::SyntaxError;

/// Bytes that a compiled pattern may take.
const MAX_COMPILED: usize = 32 << 20;
/// Groups within groups, those of the translation included.
const MAX_NESTING: u32 = 1000;

/// What a name behind `$` is made of (Go: letters, digits of any script, and `_`).
static NAME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[\p{L}\p{Nd}_]+").ok());

/// A compiled, anchored pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    /// The names of its groups.
    names: Vec<String>,
    text: String,
}

impl Pattern {
    /// Compiles `text` between anchors.
    ///
    /// # Errors
    /// It is not of RE2's syntax, or too large.
    pub(crate) fn new(text: &str) -> Result<Self, SyntaxError> {
        let translated = syntax::translate(&format!("^(?s:{text})$"))?;
        let regex = RegexBuilder::new(&translated.pattern)
            .size_limit(MAX_COMPILED)
            .nest_limit(MAX_NESTING)
            .build()
            .map_err(|_too_large| SyntaxError {
                what: "expression too large",
                part: text.to_owned(),
            })?;
        Ok(Self {
            regex,
            names: translated.names,
            text: text.to_owned(),
        })
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_match(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }

    pub(crate) fn captures<'v>(&self, value: &'v str) -> Option<Captures<'v>> {
        self.regex.captures(value)
    }

    /// `value` with each match replaced by what `template` yields for it.
    pub(crate) fn replace_all(&self, value: &str, template: &str) -> String {
        let mut out = String::new();
        let mut copied = 0;
        for captures in self.regex.captures_iter(value) {
            let Some(whole) = captures.get(0) else {
                continue;
            };
            out += value.get(copied..whole.start()).unwrap_or_default();
            self.expand(template, &captures, &mut out);
            copied = whole.end();
        }
        out += value.get(copied..).unwrap_or_default();
        out
    }

    /// Appends `template` with its variables replaced (Go: `Regexp.Expand`). A `$` that begins no variable stays, `$$`
    /// is one `$`, a variable without a group is empty.
    pub(crate) fn expand(&self, template: &str, captures: &Captures<'_>, out: &mut String) {
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some((name, after)) = variable(after) {
                out.push_str(self.group(name, captures));
                rest = after;
            } else {
                out.push('$');
                rest = after;
            }
        }
        out.push_str(rest);
    }

    fn group<'v>(&self, name: &str, captures: &Captures<'v>) -> &'v str {
        let by_number = |number: usize| captures.get(number).map_or("", |group| group.as_str());
        let is_number = name.bytes().all(|byte| byte.is_ascii_digit())
            && (name == "0" || !name.starts_with('0'))
            && name.len() <= 9;
        if is_number {
            return name.parse().map_or("", by_number);
        }
        let named = |(number, known): (usize, &String)| {
            (known == name)
                .then(|| captures.get(number))
                .flatten()
                .map(|group| group.as_str())
        };
        self.names.iter().enumerate().find_map(named).unwrap_or("")
    }
}

/// The variable's name at the start of `text`, and what follows it.
fn variable(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix('{');
    let from = inside.unwrap_or(text);
    let name = NAME.as_ref()?.find(from)?.as_str();
    let rest = from.strip_prefix(name)?;
    if inside.is_some() {
        return Some((name, rest.strip_prefix('}')?));
    }
    Some((name, rest))
}

/// Whether a template has a variable, or looks as if it had one.
pub(crate) fn has_variable(template: &str) -> bool {
    template.contains('$')
}
