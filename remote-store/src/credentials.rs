//! The bearer token: a fixed one, or a file that is read again when it changes. Never shown.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use http::HeaderValue;
use thiserror::Error;

use crate::watched::Watched;

/// Bytes of a token file at most.
const MAX_TOKEN: u64 = 64 * 1024;

/// Text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text without the white space around it; `None` when nothing is left.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

/// Why there is no token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file can't be read.
    #[error("cannot read the bearer token file {path}: {error}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// The file holds no token.
    #[error("the bearer token file {path} holds no token of printable characters", path = .0.display())]
    Nothing(PathBuf),
    /// The fixed token can't be a header.
    #[error("the bearer token holds characters that no header can")]
    Unprintable,
}

/// Where the value of the header `authorization` comes from.
#[derive(Debug)]
pub(crate) struct Token {
    header: Option<HeaderValue>,
    file: Option<(PathBuf, Watched)>,
}

impl Token {
    /// # Errors
    /// [`TokenError`].
    pub(crate) fn new(fixed: Option<&Secret>, file: Option<&Path>) -> Result<Self, TokenError> {
        if let Some(secret) = fixed {
            let header = header(secret).ok_or(TokenError::Unprintable)?;
            return Ok(Self {
                header: Some(header),
                file: None,
            });
        }
        let Some(path) = file else {
            return Ok(Self {
                header: None,
                file: None,
            });
        };
        let watched = Watched::new(vec![path.to_owned()]);
        Ok(Self {
            header: Some(read(path)?),
            file: Some((path.to_owned(), watched)),
        })
    }

    /// The header's value now. While the file can't be read the last one stands.
    pub(crate) fn header(&mut self) -> Option<HeaderValue> {
        if let Some((path, watched)) = &mut self.file
            && let Some(look) = watched.changed()
        {
            match read(path) {
                Ok(header) => {
                    watched.taken(look);
                    self.header = Some(header);
                }
                Err(error) => watched.failed(&error),
            }
        }
        self.header.clone()
    }
}

fn header(secret: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", secret.reveal())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn read(path: &Path) -> Result<HeaderValue, TokenError> {
    let failed = |error| TokenError::Read {
        path: path.to_owned(),
        error,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(MAX_TOKEN)
        .read_to_string(&mut text)
        .map_err(failed)?;
    let header = Secret::new(&text).and_then(|secret| header(&secret));
    header.ok_or_else(|| TokenError::Nothing(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn force_look(token: &mut Token) {
        let (_, watched) = token.file.as_mut().unwrap();
        watched.force_look();
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_lost_one_keeps_the_last_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "first\n").unwrap();
        let mut token = Token::new(None, Some(&path)).unwrap();
        assert_eq!(token.header().unwrap(), "Bearer first");
        // As Kubernetes and careful people do it: another file under the name.
        let next = directory.path().join("next");
        std::fs::write(&next, "second token").unwrap();
        std::fs::rename(&next, &path).unwrap();
        force_look(&mut token);
        assert_eq!(token.header().unwrap(), "Bearer second token");
        std::fs::remove_file(&path).unwrap();
        force_look(&mut token);
        assert_eq!(token.header().unwrap(), "Bearer second token");
        std::fs::write(&path, "third").unwrap();
        force_look(&mut token);
        assert_eq!(token.header().unwrap(), "Bearer third");
    }

    #[test]
    fn the_fixed_token_goes_first_and_nonsense_is_named() {
        let missing = Path::new("/nowhere/token");
        let fixed = Secret::new(" t ").unwrap();
        let mut token = Token::new(Some(&fixed), Some(missing)).unwrap();
        assert_eq!(token.header().unwrap(), "Bearer t");
        assert!(Token::new(None, None).unwrap().header().is_none());
        let error = Token::new(None, Some(missing)).unwrap_err().to_string();
        assert!(error.contains("/nowhere/token"), "{error}");
        let newline = Secret::new("a\nb").unwrap();
        assert!(Token::new(Some(&newline), None).is_err());
    }
}
