//! The shipper's arguments. Reads no environment and no file.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use ipc_endpoint::arguments::Common;
use lexopt::{Parser, ValueExt};

use crate::store::Retention;

/// Bytes of profiles kept by default: about a day of ten-second windows of a busy machine.
const DEFAULT_MAX_BYTES: u64 = 1 << 30;
/// Age of profiles kept by default.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// External labels at most.
const MAX_LABELS: usize = 32;

/// What the shipper is told.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// Those of every process.
    pub common: Common,
    /// `--store-directory DIR`.
    pub store_directory: PathBuf,
    /// `--store-max-bytes BYTES`, `--store-max-age-seconds SECONDS`.
    pub retention: Retention,
    /// `--node NAME`; the host's name when absent.
    pub node: Option<String>,
    /// `--external-label NAME=VALUE`, repeated: stands on every sample.
    pub labels: Vec<(String, String)>,
}

impl Arguments {
    /// Parses the arguments behind the program's name.
    ///
    /// # Errors
    /// One line on what is wrong.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        let mut store_directory = None;
        let mut max_bytes = DEFAULT_MAX_BYTES;
        let mut max_age = DEFAULT_MAX_AGE;
        let mut node = None;
        let mut labels = Vec::new();
        let common = Common::parse(arguments, |name, parser: &mut Parser| {
            match name {
                "store-directory" => store_directory = Some(PathBuf::from(parser.value()?)),
                "store-max-bytes" => max_bytes = parser.value()?.parse()?,
                "store-max-age-seconds" => max_age = Duration::from_secs(parser.value()?.parse()?),
                "node" => node = Some(parser.value()?.string()?),
                "external-label" => labels.push(parser.value()?.parse_with(label)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if labels.len() > MAX_LABELS {
            return Err(
                format!("{} labels, at most {MAX_LABELS} are allowed", labels.len()).into(),
            );
        }
        Ok(Self {
            common,
            store_directory: store_directory
                .ok_or("--store-directory is missing: name the directory profiles go to")?,
            retention: Retention {
                max_bytes,
                max_age_millis: u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX),
            },
            node,
            labels,
        })
    }
}

/// Reads `NAME=VALUE`; names are those of Prometheus labels.
fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    let sound = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name
            .bytes()
            .next()
            .is_some_and(|byte| !byte.is_ascii_digit());
    if !sound {
        return Err(format!(
            "label name {name:?} may hold letters, digits and _ only, and no digit first"
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, lexopt::Error> {
        Arguments::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn everything_can_be_said() {
        let parsed = parse(&[
            "--store-directory=/s",
            "--store-max-bytes=5",
            "--store-max-age-seconds=3",
            "--node=n",
            "--external-label=region=eu=1",
            "--runtime-directory=/r",
        ])
        .unwrap();
        assert_eq!(parsed.store_directory, PathBuf::from("/s"));
        assert_eq!(
            parsed.retention,
            Retention {
                max_bytes: 5,
                max_age_millis: 3000
            }
        );
        assert_eq!(parsed.node.as_deref(), Some("n"));
        assert_eq!(parsed.labels, [("region".to_owned(), "eu=1".to_owned())]);
        assert_eq!(parsed.common.runtime_directory, PathBuf::from("/r"));
    }

    #[test]
    fn nonsense_is_named() {
        for bad in [
            &[][..],
            &["--store-directory=/s", "--external-label=1a=b"],
            &["--store-directory=/s", "--external-label=ab"],
            &["--store-directory=/s", "--store-max-bytes=-1"],
            &["--store-directory=/s", "--surplus"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
