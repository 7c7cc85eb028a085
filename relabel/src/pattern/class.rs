//! Character classes and escapes of RE2's syntax, and how the `regex` crate writes them.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::fmt::Write as _;

use super::syntax::{SyntaxError, error};
use super::unicode_names::{category, is_surrogate, script};

/// `\d`, `\s`, `\w` and their opposites: ASCII in RE2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Perl {
    ranges: &'static str,
    negative: bool,
}

impl Perl {
    /// The class of an escape's letter.
    pub(super) fn of(letter: char) -> Option<Self> {
        let ranges = match letter.to_ascii_lowercase() {
            'd' => "0-9",
            's' => "\\t\\n\\x0C\\r\\x20",
            'w' => "0-9A-Za-z_",
            _ => return None,
        };
        Some(Self {
            ranges,
            negative: letter.is_ascii_uppercase(),
        })
    }

    /// As a class of its own.
    pub(super) fn class(self) -> String {
        let negation = if self.negative { "^" } else { "" };
        format!("[{negation}{}]", self.ranges)
    }
}

const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// A class of every character, and one of none.
const EVERYTHING: &str = "[\\x00-\\x{10FFFF}]";
const NOTHING: &str = "[^\\x00-\\x{10FFFF}]";
/// Surrogates: Go has them as characters that no text holds.
const SURROGATES: std::ops::RangeInclusive<u32> = 0xD800..=0xDFFF;

/// Appends a character so that it stands for itself, in a class and outside.
pub(super) fn push_literal(out: &mut String, character: u32) {
    match char::from_u32(character) {
        Some(character) if character.is_ascii_alphanumeric() || !character.is_ascii() => {
            out.push(character);
        }
        Some(_) => {
            let _infallible = write!(out, "\\x{character:02X}");
        }
        None => out.push_str(NOTHING),
    }
}

/// Appends a range of a class.
fn push_range(out: &mut String, low: u32, high: u32) {
    if low == high {
        return push_literal(out, low);
    }
    let low = if SURROGATES.contains(&low) {
        SURROGATES.end() + 1
    } else {
        low
    };
    let high = if SURROGATES.contains(&high) {
        SURROGATES.start() - 1
    } else {
        high
    };
    if low > high {
        return out.push_str(NOTHING);
    }
    push_literal(out, low);
    out.push('-');
    push_literal(out, high);
}

/// The class at the start of `text`, which is a `[`, and what follows it.
pub(super) fn bracketed(text: &str) -> Result<(String, &str), SyntaxError> {
    let mut rest = text.get(1..).unwrap_or_default();
    let mut out = String::from("[");
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    let mut first = true;
    loop {
        if let Some(after) = rest.strip_prefix(']')
            && !first
        {
            out.push(']');
            return Ok((out, after));
        }
        first = false;
        if let Some((class, after)) = posix(rest)? {
            out.push_str(&class);
            rest = after;
            continue;
        }
        if let Some((class, after)) = unicode(rest)? {
            out.push_str(&class);
            rest = after;
            continue;
        }
        let mut ahead = rest.chars();
        if ahead.next() == Some('\\')
            && let Some(perl) = ahead.next().and_then(Perl::of)
        {
            out.push_str(&perl.class());
            rest = ahead.as_str();
            continue;
        }
        let range = rest;
        let (low, after) = member(rest, text)?;
        rest = after;
        let mut high = low;
        // A hyphen before the closing bracket stands for itself.
        if let Some(after) = rest.strip_prefix('-')
            && !after.is_empty()
            && !after.starts_with(']')
        {
            (high, rest) = member(after, text)?;
            if high < low {
                let length = range.len() - rest.len();
                let part = range.get(..length).unwrap_or_default();
                return error("invalid character class range", part);
            }
        }
        push_range(&mut out, low, high);
    }
}

/// One character of the class `class`.
fn member<'a>(text: &'a str, class: &str) -> Result<(u32, &'a str), SyntaxError> {
    match text.chars().next() {
        None => error("missing closing ]", class),
        Some('\\') => escaped(text),
        Some(character) => Ok((
            character.into(),
            text.get(character.len_utf8()..).unwrap_or_default(),
        )),
    }
}

/// `[:alpha:]` at the start of `text`.
fn posix(text: &str) -> Result<Option<(String, &str)>, SyntaxError> {
    let Some(inside) = text.strip_prefix("[:") else {
        return Ok(None);
    };
    let Some((name, rest)) = inside.split_once(":]") else {
        return Ok(None);
    };
    let bare = name.strip_prefix('^').unwrap_or(name);
    if POSIX.contains(&bare) {
        Ok(Some((format!("[:{name}:]"), rest)))
    } else {
        error("invalid character class range", format!("[:{name}:]"))
    }
}

/// `\pL`, `\p{Greek}`, `\P{^Greek}` at the start of `text`.
pub(super) fn unicode(text: &str) -> Result<Option<(String, &str)>, SyntaxError> {
    let (mut negative, after) = match (text.strip_prefix("\\p"), text.strip_prefix("\\P")) {
        (Some(after), _) => (false, after),
        (_, Some(after)) => (true, after),
        _ => return Ok(None),
    };
    let (name, rest) = match after.strip_prefix('{') {
        Some(inside) => match inside.split_once('}') {
            Some(parts) => parts,
            None => return error("invalid character class range", text),
        },
        None => {
            let length = after.chars().next().map_or(0, char::len_utf8);
            after.split_at_checked(length).unwrap_or_default()
        }
    };
    let bare = name.strip_prefix('^').unwrap_or(name);
    negative ^= bare.len() != name.len();
    let letter = if negative { 'P' } else { 'p' };
    if is_surrogate(bare) {
        let class = if negative { EVERYTHING } else { NOTHING };
        return Ok(Some((class.to_owned(), rest)));
    }
    if let Some(category) = category(bare) {
        return Ok(Some((format!("\\{letter}{{{category}}}"), rest)));
    }
    if let Some(script) = script(bare) {
        return Ok(Some((format!("\\{letter}{{Script={script}}}"), rest)));
    }
    let length = text.len() - rest.len();
    error(
        "invalid character class range",
        text.get(..length).unwrap_or_default(),
    )
}

/// The one character that the escape at the start of `text` stands for.
pub(super) fn escaped(text: &str) -> Result<(u32, &str), SyntaxError> {
    let mut characters = text.chars();
    characters.next();
    let Some(kind) = characters.next() else {
        return error("trailing backslash at end of expression", "");
    };
    let mut rest = characters.as_str();
    let simple = match kind {
        'a' => Some('\u{7}'),
        'f' => Some('\u{c}'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\u{b}'),
        'x' => {
            return match hexadecimal(rest) {
                Some(result) => Ok(result),
                None => error("invalid escape sequence", broken(text, rest)),
            };
        }
        _ if kind.is_ascii() && !kind.is_ascii_alphanumeric() => Some(kind),
        _ => None,
    };
    if let Some(character) = simple {
        return Ok((character.into(), rest));
    }
    let octal = |text: &str| text.chars().next().and_then(|digit| digit.to_digit(8));
    let mut value = match kind.to_digit(8) {
        // A single digit would refer back to a group: RE2 has no such thing.
        Some(digit) if kind == '0' || octal(rest).is_some() => digit,
        _ => {
            let length = text.len() - rest.len();
            return error(
                "invalid escape sequence",
                text.get(..length).unwrap_or_default(),
            );
        }
    };
    for _ in 0..2 {
        let Some(digit) = octal(rest) else { break };
        value = value * 8 + digit;
        rest = rest.get(1..).unwrap_or_default();
    }
    Ok((value, rest))
}

/// What of a `\x` escape, which has `rest` behind it, was read when it broke.
fn broken<'a>(text: &'a str, rest: &str) -> &'a str {
    let length =
        |characters: usize| -> usize { rest.chars().take(characters).map(char::len_utf8).sum() };
    let read = match rest.strip_prefix('{') {
        None => length(2),
        Some(inside) => {
            let mut value = 0u32;
            let sound = inside.chars().take_while(|digit| {
                let digit = digit.to_digit(16);
                let fits = value <= u32::from(char::MAX);
                value = value.saturating_mul(16).saturating_add(digit.unwrap_or(0));
                digit.is_some() && fits && value <= u32::from(char::MAX)
            });
            // The character that does not belong is part of it.
            length(1 + sound.count() + 1)
        }
    };
    text.get(..2 + read).unwrap_or(text)
}

/// `7F` or `{10FFFF}` at the start of `text`.
fn hexadecimal(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = match text.strip_prefix('{') {
        Some(inside) => inside.split_once('}')?,
        None => text.split_at_checked(2)?,
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0u32;
    for digit in digits.chars() {
        value = value.saturating_mul(16).saturating_add(digit.to_digit(16)?);
    }
    (value <= u32::from(char::MAX)).then_some((value, rest))
}
