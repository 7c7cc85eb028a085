//! Translates a pattern of RE2's syntax, as Go's `regexp` package accepts it, into one of the `regex` crate. What Go
//! refuses is refused, with Go's words; what the `regex` crate has beyond it never reaches that crate.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::iter::Peekable;
use std::str::Chars;

use super::class::{self, Perl};

/// Largest count of a repetition, also of nested ones multiplied (regexp/syntax: `repeat`).
const MAX_REPEAT: u32 = 1000;
/// Groups within groups.
const MAX_DEPTH: usize = 200;

/// What is wrong with a pattern, in the words of Go's `regexp/syntax`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {what}: `{part}`")]
pub struct SyntaxError {
    pub(super) what: &'static str,
    pub(super) part: String,
}

pub(super) fn error<T>(what: &'static str, part: impl Into<String>) -> Result<T, SyntaxError> {
    Err(SyntaxError {
        what,
        part: part.into(),
    })
}

/// A pattern for the `regex` crate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Translated {
    /// The pattern. Its groups have numbers only: names follow other rules in Go.
    pub(super) pattern: String,
    /// The name of each group, that of the whole match first; empty: it has none.
    pub(super) names: Vec<String>,
}

/// Translates `text`.
pub(super) fn translate(text: &str) -> Result<Translated, SyntaxError> {
    let mut translator = Translator {
        text,
        rest: text,
        out: String::with_capacity(text.len() * 2),
        names: vec![String::new()],
        open: Vec::new(),
        frame: Frame::default(),
    };
    while !translator.rest.is_empty() {
        translator.step()?;
    }
    if !translator.open.is_empty() {
        return error("missing closing )", text);
    }
    Ok(Translated {
        pattern: translator.out,
        names: translator.names,
    })
}

/// What a repetition could apply to.
#[derive(Clone, Copy, Debug)]
struct Atom {
    /// Where its translation ends; flags may stand behind it.
    end: usize,
    /// The largest product of counts within it.
    weight: u32,
}

/// The state of one group.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    last: Option<Atom>,
    /// The largest weight before it.
    weight: u32,
    /// Bytes at the end of what was read that are a repetition: none may follow another.
    repetition: usize,
}

impl Frame {
    /// No repetition applies to what stands there so far; returns its weight.
    fn close(&mut self) -> u32 {
        let last = self.last.take().map_or(1, |atom| atom.weight);
        self.weight = self.weight.max(last);
        self.weight
    }
}

struct Translator<'a> {
    text: &'a str,
    rest: &'a str,
    out: String,
    names: Vec<String>,
    open: Vec<Frame>,
    frame: Frame,
}

impl<'a> Translator<'a> {
    fn step(&mut self) -> Result<(), SyntaxError> {
        let before = self.rest;
        let Some(first) = self.next() else {
            return Ok(());
        };
        let repetition = std::mem::take(&mut self.frame.repetition);
        match first {
            '(' if self.rest.starts_with('?') => return self.extended_group(before),
            '(' => {
                self.names.push(String::new());
                self.open_group("(")?;
            }
            ')' => {
                let Some(outer) = self.open.pop() else {
                    return error("unexpected )", self.text);
                };
                let weight = self.frame.close();
                self.frame = outer;
                self.out.push(')');
                self.atom(weight);
            }
            '|' => {
                self.out.push('|');
                self.frame.close();
            }
            '^' => self.piece("^"),
            '$' => self.piece("$"),
            '.' => self.piece("."),
            '[' => {
                let (class, rest) = class::bracketed(before)?;
                self.rest = rest;
                self.piece(&class);
            }
            '*' | '+' | '?' => {
                self.repeat(before, repetition, first.to_string(), 1)?;
            }
            '{' => match counts(before) {
                Some((counts, rest)) => {
                    self.rest = rest;
                    let (text, weight) = counts?;
                    self.repeat(before, repetition, text, weight)?;
                }
                None => self.literal('{'),
            },
            '\\' => self.escape(before)?,
            literal => self.literal(literal),
        }
        Ok(())
    }

    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let first = characters.next();
        self.rest = characters.as_str();
        first
    }

    fn piece(&mut self, text: &str) {
        self.out.push_str(text);
        self.atom(1);
    }

    fn atom(&mut self, weight: u32) {
        self.frame.close();
        self.frame.last = Some(Atom {
            end: self.out.len(),
            weight,
        });
    }

    fn literal(&mut self, character: impl Into<u32>) {
        let mut text = String::new();
        class::push_literal(&mut text, character.into());
        self.piece(&text);
    }

    fn open_group(&mut self, text: &str) -> Result<(), SyntaxError> {
        if self.open.len() >= MAX_DEPTH {
            return error("expression nests too deeply", self.text);
        }
        self.out.push_str(text);
        self.open.push(std::mem::take(&mut self.frame));
        Ok(())
    }

    /// A repetition that begins at `before`, `weight` times at most; `previous` bytes before it are a repetition too.
    fn repeat(
        &mut self,
        before: &'a str,
        previous: usize,
        mut text: String,
        weight: u32,
    ) -> Result<(), SyntaxError> {
        if let Some(rest) = self.rest.strip_prefix('?') {
            text.push('?');
            self.rest = rest;
        }
        let length = before.len() - self.rest.len();
        let start = self.text.len() - before.len();
        if previous > 0 {
            let stacked = self.text.get(start - previous..start + length);
            return error(
                "invalid nested repetition operator",
                stacked.unwrap_or_default(),
            );
        }
        let operator = before.get(..length).unwrap_or_default();
        let Some(atom) = self.frame.last else {
            return error("missing argument to repetition operator", operator);
        };
        // What is repeated no times counts for nothing.
        let product = if weight == 0 {
            1
        } else {
            atom.weight.saturating_mul(weight)
        };
        if weight > 1 && product > MAX_REPEAT {
            return error("invalid repeat count", operator);
        }
        // Flags may stand between: Go applies the repetition to what is before them.
        self.out.insert_str(atom.end, &text);
        self.frame.last = Some(Atom {
            end: atom.end + text.len(),
            weight: product,
        });
        self.frame.repetition = length;
        Ok(())
    }

    /// `(?`: flags, a group with flags, or a group with a name.
    fn extended_group(&mut self, before: &'a str) -> Result<(), SyntaxError> {
        let named = before
            .strip_prefix("(?P<")
            .or_else(|| before.strip_prefix("(?<"));
        if let Some(rest) = named {
            let Some((name, rest)) = rest.split_once('>') else {
                return error("invalid named capture", before);
            };
            let sound = !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !sound {
                let length = before.len() - rest.len();
                return error(
                    "invalid named capture",
                    before.get(..length).unwrap_or_default(),
                );
            }
            self.names.push(name.to_owned());
            self.rest = rest;
            return self.open_group("(");
        }
        let mut flags = String::new();
        let (mut negative, mut saw_flag) = (false, false);
        self.next();
        while let Some(character) = self.next() {
            match character {
                'i' | 'm' | 's' | 'U' => {
                    flags.push(character);
                    saw_flag = true;
                }
                '-' if !negative => {
                    negative = true;
                    saw_flag = false;
                    flags.push('-');
                }
                ':' | ')' if !negative || saw_flag => {
                    let flags = canonical(&flags);
                    if character == ':' {
                        return self.open_group(&format!("(?{flags}:"));
                    }
                    if !flags.is_empty() {
                        self.out.push_str(&format!("(?{flags})"));
                    }
                    return Ok(());
                }
                _ => break,
            }
        }
        let length = before.len() - self.rest.len();
        if self.rest.is_empty()
            && !before
                .get(..length)
                .unwrap_or_default()
                .ends_with([')', ':'])
        {
            let known = |character: char| "(?imsU-".contains(character);
            if before.chars().all(known) {
                return error("missing closing )", self.text);
            }
        }
        error(
            "invalid or unsupported Perl syntax",
            before.get(..length).unwrap_or_default(),
        )
    }

    fn escape(&mut self, before: &'a str) -> Result<(), SyntaxError> {
        let Some(kind) = self.rest.chars().next() else {
            return error("trailing backslash at end of expression", "");
        };
        let after = self.rest.get(kind.len_utf8()..).unwrap_or_default();
        let look = match kind {
            'A' => Some("\\A"),
            'b' => Some("(?-u:\\b)"),
            'B' => Some("(?-u:\\B)"),
            'z' => Some("\\z"),
            _ => None,
        };
        if let Some(look) = look {
            self.rest = after;
            self.piece(look);
            return Ok(());
        }
        if kind == 'Q' {
            let (literal, rest) = after.split_once("\\E").unwrap_or((after, ""));
            self.rest = rest;
            for character in literal.chars() {
                self.literal(character);
            }
            return Ok(());
        }
        if let Some(perl) = Perl::of(kind) {
            self.rest = after;
            self.piece(&perl.class());
            return Ok(());
        }
        if let Some((class, rest)) = class::unicode(before)? {
            self.rest = rest;
            self.piece(&class);
            return Ok(());
        }
        let (character, rest) = class::escaped(before)?;
        self.rest = rest;
        self.literal(character);
        Ok(())
    }
}

/// Flags each at most once, as the `regex` crate wants them; a flag that is set and cleared is cleared.
fn canonical(flags: &str) -> String {
    let (set, cleared) = flags.split_once('-').unwrap_or((flags, ""));
    let unique = |text: &str, but: &str| -> String {
        let known = ['i', 'm', 's', 'U'];
        known
            .into_iter()
            .filter(|flag| text.contains(*flag) && !but.contains(*flag))
            .collect()
    };
    let (set, cleared) = (unique(set, cleared), unique(cleared, ""));
    if cleared.is_empty() {
        set
    } else {
        format!("{set}-{cleared}")
    }
}

/// A repetition's text and its largest count.
type Counts = Result<(String, u32), SyntaxError>;

/// `{n}`, `{n,}` or `{n,m}` at the start of `text`, and what follows; `None`: the brace is a literal.
fn counts(text: &str) -> Option<(Counts, &str)> {
    let mut characters = text.chars().peekable();
    characters.next();
    let least = number(&mut characters)?;
    let mut most = Some(least);
    if characters.peek() == Some(&',') {
        characters.next();
        most = if characters.peek() == Some(&'}') {
            None
        } else {
            Some(number(&mut characters)?)
        };
    }
    if characters.next() != Some('}') {
        return None;
    }
    let rest_length: usize = characters.map(char::len_utf8).sum();
    let (operator, rest) = text.split_at_checked(text.len() - rest_length)?;
    let largest = most.unwrap_or(least);
    if least > MAX_REPEAT || largest > MAX_REPEAT || largest < least {
        return Some((error("invalid repeat count", operator), rest));
    }
    Some((Ok((operator.to_owned(), largest)), rest))
}

/// Digits without a leading zero.
fn number(characters: &mut Peekable<Chars<'_>>) -> Option<u32> {
    let first = characters.next_if(char::is_ascii_digit)?;
    let mut number = first.to_digit(10)?;
    while let Some(next) = characters.next_if(char::is_ascii_digit) {
        if first == '0' {
            return None;
        }
        number = number.saturating_mul(10).saturating_add(next.to_digit(10)?);
    }
    Some(number)
}
