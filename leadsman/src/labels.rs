//! External labels as the command line takes them: `region=eu;rack=7`.

/// Reads `KEY=VALUE;...`. Keys that start with `__` are for relabelling only: they are left out.
///
/// # Errors
/// One line on what is wrong.
pub(crate) fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    text.split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| match part.split_once('=') {
            Some((key, value)) if is_label_name(key) => Ok((key.to_owned(), value.to_owned())),
            _ => Err(format!(
                "{part:?} is no KEY=VALUE with a key of letters, digits and _"
            )),
        })
        .filter(|label| !matches!(label, Ok((key, _)) if key.starts_with("__")))
        .collect()
}

/// Names of Prometheus labels (its data model: `[a-zA-Z_][a-zA-Z0-9_]*`).
fn is_label_name(key: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    key.bytes().all(sound)
        && key
            .bytes()
            .next()
            .is_some_and(|first| !first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn labels_are_split_and_checked() {
        let labels = parse("region=eu; rack=a=b;__hidden=1;").expect("sound");
        let expected = [("region", "eu"), ("rack", "a=b")];
        assert_eq!(
            labels,
            expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
        for bad in ["a", "1a=b", "=b", "a-b=c"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
