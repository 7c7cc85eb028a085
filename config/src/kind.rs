//! What values a setting takes, how they are written, and their one canonical form.

use std::net::SocketAddr;

use ipc_endpoint::duration;

/// A setting's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`; as a flag alone it means `true`.
    Bool,
    /// Any text.
    Text,
    /// A path.
    Path,
    /// `ADDRESS:PORT` to listen at.
    Listen,
    /// A duration such as `1m30s`.
    Duration,
    /// A whole number within bounds.
    Integer(u64, u64),
    /// Bytes: a number, or one with `KiB`, `MiB`, `GiB`.
    Bytes,
    /// One of these.
    Choice(&'static [&'static str]),
    /// `KEY=VALUE;...`
    Pairs,
    /// Values joined by commas; as a flag it may be repeated.
    List,
}

impl Kind {
    /// How `--help` shows the value.
    #[must_use]
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Text => "TEXT",
            Self::Path => "PATH",
            Self::Listen => "ADDRESS:PORT",
            Self::Duration => "DURATION",
            Self::Integer(..) => "NUMBER",
            Self::Bytes => "BYTES",
            Self::Choice(_) => "CHOICE",
            Self::Pairs => "KEY=VALUE;...",
            Self::List => "VALUE,...",
        }
    }

    /// Whether a value joins those given before it rather than replacing them.
    #[must_use]
    pub fn accumulates(self) -> Option<char> {
        match self {
            Self::Pairs => Some(';'),
            Self::List => Some(','),
            _ => None,
        }
    }

    /// Checks a value; returns its canonical form.
    ///
    /// # Errors
    /// One line on what is wrong, which names the value.
    pub fn canonical(self, text: &str) -> Result<String, String> {
        match self {
            Self::Bool => boolean(text)
                .map(|value| value.to_string())
                .ok_or_else(|| format!("{text:?} is neither true nor false")),
            Self::Text | Self::List => Ok(text.to_owned()),
            Self::Path if text.contains('\0') => Err(format!("{text:?} is no path")),
            Self::Path => Ok(text.to_owned()),
            Self::Listen => listen(text).map(|address| address.to_string()),
            Self::Duration => duration::parse(text).map(|_sound| text.to_owned()),
            Self::Integer(least, most) => match text.parse::<u64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(number.to_string()),
                Ok(_) if most == u64::MAX => Err(format!("{text:?} is less than {least}")),
                Ok(_) => Err(format!("{text:?} is not from {least} to {most}")),
                Err(_no_number) => Err(format!("{text:?} is no whole number")),
            },
            Self::Bytes => bytes(text).map(|bytes| bytes.to_string()),
            Self::Choice(choices) => choices
                .iter()
                .find(|choice| choice.eq_ignore_ascii_case(text))
                .map(|choice| (*choice).to_owned())
                .ok_or_else(|| format!("{text:?} is none of {}", choices.join(", "))),
            Self::Pairs => pairs(text).map(|pairs| join(&pairs)),
        }
    }
}

/// The forms in which parca-agent's flags and YAML 1.1 say yes and no.
fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Reads `ADDRESS:PORT`, `localhost:PORT` or `:PORT`; other names aren't looked up.
fn listen(text: &str) -> Result<SocketAddr, String> {
    let written_out = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None if text.starts_with(':') => format!("[::]{text}"),
        None => text.to_owned(),
    };
    written_out
        .parse()
        .map_err(|_malformed| format!("{text:?} is no ADDRESS:PORT such as 127.0.0.1:7071"))
}

fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no number of bytes such as 1073741824 or 1GiB");
    let digits = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "Ki" => 1 << 10,
        "MiB" | "Mi" => 1 << 20,
        "GiB" | "Gi" => 1 << 30,
        "TiB" | "Ti" => 1 << 40,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_malformed| wrong())?;
    number.checked_mul(unit).ok_or_else(wrong)
}

/// Reads `KEY=VALUE;...`; `\;` is a semicolon within a value.
///
/// # Errors
/// One line on what is wrong.
pub fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut part = String::new();
    let mut characters = text.chars().peekable();
    loop {
        let next = characters.next();
        match next {
            Some('\\') if characters.peek() == Some(&';') => {
                characters.next();
                part.push(';');
            }
            Some(';') | None => {
                let written = std::mem::take(&mut part);
                let trimmed = written.trim();
                if !trimmed.is_empty() {
                    let (key, value) = trimmed
                        .split_once('=')
                        .filter(|(key, _)| !key.trim().is_empty())
                        .ok_or_else(|| format!("{trimmed:?} is no KEY=VALUE"))?;
                    let key = key.trim();
                    pairs.retain(|(known, _)| known != key);
                    pairs.push((key.to_owned(), value.to_owned()));
                }
                if next.is_none() {
                    return Ok(pairs);
                }
            }
            Some(character) => part.push(character),
        }
    }
}

/// The opposite of [`pairs`].
pub(crate) fn join(pairs: &[(String, String)]) -> String {
    let written = pairs
        .iter()
        .map(|(key, value)| format!("{key}={}", value.replace(';', "\\;")));
    written.collect::<Vec<_>>().join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_one_form() {
        for (kind, text, form) in [
            (Kind::Bool, "Yes", "true"),
            (Kind::Bool, "0", "false"),
            (Kind::Listen, ":7071", "[::]:7071"),
            (Kind::Listen, "localhost:1", "127.0.0.1:1"),
            (Kind::Duration, "1m30s", "1m30s"),
            (Kind::Integer(1, 5), "05", "5"),
            (Kind::Bytes, "2GiB", "2147483648"),
            (Kind::Choice(&["info", "debug"]), "DEBUG", "debug"),
            (Kind::Pairs, " a=b ; c=d=e;;a=z", "c=d=e;a=z"),
            (Kind::Pairs, "a=b\\;c", "a=b\\;c"),
        ] {
            assert_eq!(kind.canonical(text).as_deref(), Ok(form), "{text}");
            assert_eq!(kind.canonical(form).as_deref(), Ok(form), "{form}");
        }
        assert_eq!(pairs("a=b\\;c").unwrap(), [("a".into(), "b;c".into())]);
    }

    #[test]
    fn nonsense_is_named() {
        for (kind, text) in [
            (Kind::Bool, "maybe"),
            (Kind::Listen, "node:1"),
            (Kind::Listen, "1.2.3.4"),
            (Kind::Duration, "soon"),
            (Kind::Duration, "-1s"),
            (Kind::Integer(1, 5), "6"),
            (Kind::Integer(1, 5), "-1"),
            (Kind::Bytes, "1GB?"),
            (Kind::Bytes, "99999999999TiB"),
            (Kind::Choice(&["info"]), "loud"),
            (Kind::Pairs, "a"),
            (Kind::Pairs, "=b"),
        ] {
            let error = kind.canonical(text).unwrap_err();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
