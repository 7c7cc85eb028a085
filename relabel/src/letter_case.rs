//! Letters to upper and lower case one by one, as Go's `strings` package does: a character never becomes two, and no
//! character looks at its neighbours (Unicode's simple case mapping).

/// `text` in lower case.
pub(crate) fn lower(text: &str) -> String {
    text.chars().map(lower_one).collect()
}

/// `text` in upper case.
pub(crate) fn upper(text: &str) -> String {
    text.chars().map(upper_one).collect()
}

fn lower_one(character: char) -> char {
    // Its full mapping is an i with a dot above.
    if character == 'İ' {
        return 'i';
    }
    only(character.to_lowercase()).unwrap_or(character)
}

fn upper_one(character: char) -> char {
    if let Some(one) = only(character.to_uppercase()) {
        return one;
    }
    // Greek with iota subscript: the simple mapping is the titlecase letter, the full one is two letters.
    let titlecase = match character {
        '\u{1F80}'..='\u{1F87}' | '\u{1F90}'..='\u{1F97}' | '\u{1FA0}'..='\u{1FA7}' => 8,
        '\u{1FB3}' | '\u{1FC3}' | '\u{1FF3}' => 9,
        _ => 0,
    };
    char::from_u32(u32::from(character) + titlecase).unwrap_or(character)
}

fn only(mut mapping: impl Iterator<Item = char>) -> Option<char> {
    let first = mapping.next()?;
    mapping.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_stays_one() {
        assert_eq!(upper("straße ŉ ᾳ ﬁ"), "STRAßE ŉ ᾼ ﬁ");
        assert_eq!(lower("İΣΑΣ"), "iσασ");
        for character in '\0'..=char::MAX {
            let text = character.to_string();
            assert_eq!(lower(&text).chars().count(), 1);
            assert_eq!(upper(&text).chars().count(), 1);
        }
    }
}
