//! Owns the writing of JSON strings. Names were cleaned of control characters, but a file name of the caller's was not.

use std::fmt::{self, Write};

/// A string as JSON has it.
pub(super) struct Json<'a>(pub &'a str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in self.0.chars() {
            match character {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                character if character.is_control() => {
                    write!(f, "\\u{:04x}", u32::from(character))?;
                }
                character => f.write_char(character)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_control_characters_are_escaped() {
        assert_eq!(Json("a\"b\\c\n").to_string(), r#""a\"b\\c\u000a""#);
    }
}
