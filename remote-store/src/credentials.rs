//! The bearer token: a fixed one, or a file that is read again when it changes. Never shown.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::HeaderValue;
use thiserror::Error;

/// Bytes of a token file at most.
const MAX_TOKEN: u64 = 64 * 1024;
/// Pause between two looks at the file.
const LOOK: Duration = Duration::from_secs(1);

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

/// What tells one content of the file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// Where the value of the header `authorization` comes from.
#[derive(Debug)]
pub(crate) struct Token {
    header: Option<HeaderValue>,
    file: Option<Watched>,
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    stamp: Option<Stamp>,
    looked: Instant,
    failing: bool,
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
        let (stamp, header) = read(path)?;
        Ok(Self {
            header: Some(header),
            file: Some(Watched {
                path: path.to_owned(),
                stamp: Some(stamp),
                looked: Instant::now(),
                failing: false,
            }),
        })
    }

    /// The header's value now. While the file can't be read the last one stands.
    pub(crate) fn header(&mut self) -> Option<HeaderValue> {
        if let Some(watched) = &mut self.file
            && watched.looked.elapsed() >= LOOK
        {
            watched.looked = Instant::now();
            if watched.stamp.is_none() || watched.stamp != stamp(&watched.path).ok() {
                match read(&watched.path) {
                    Ok((stamp, header)) => {
                        watched.stamp = Some(stamp);
                        watched.failing = false;
                        self.header = Some(header);
                        log::info!("bearer token read again from {}", watched.path.display());
                    }
                    Err(error) => {
                        if !watched.failing {
                            log::warn!("{error}; the last token stays in use");
                        }
                        watched.failing = true;
                    }
                }
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

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let metadata = std::fs::metadata(path)?;
    Ok(stamp_of(&metadata))
}

fn stamp_of(metadata: &std::fs::Metadata) -> Stamp {
    Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    }
}

fn read(path: &Path) -> Result<(Stamp, HeaderValue), TokenError> {
    let failed = |error| TokenError::Read {
        path: path.to_owned(),
        error,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mut text = String::new();
    file.take(MAX_TOKEN)
        .read_to_string(&mut text)
        .map_err(failed)?;
    let header = Secret::new(&text).and_then(|secret| header(&secret));
    let header = header.ok_or_else(|| TokenError::Nothing(path.to_owned()))?;
    Ok((stamp_of(&metadata), header))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn force_look(token: &mut Token) {
        let watched = token.file.as_mut().unwrap();
        watched.looked = Instant::now().checked_sub(LOOK).unwrap();
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
