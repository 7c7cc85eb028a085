//! The uploader's arguments: the public flags by their names.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use ipc_endpoint::arguments::Common;
use ipc_endpoint::duration;
use leadsman_debuginfo_uploader::prepare::Options;
use lexopt::ValueExt;
use remote_store::Settings;
use remote_store::settings::boolean;

/// What the uploader is told.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    /// What every process is told.
    pub(crate) common: Common,
    /// `--remote-store-*`.
    pub(crate) store: Settings,
    /// `--debuginfo-temp-dir DIR`.
    pub(crate) temporary_directory: PathBuf,
    /// `--debuginfo-strip`, `--debuginfo-compress`.
    pub(crate) options: Options,
    /// `--debuginfo-upload-disable`.
    pub(crate) disabled: bool,
    /// `--debuginfo-upload-max-parallel N`.
    pub(crate) max_parallel: usize,
    /// `--debuginfo-upload-queue-size N`: executables that may wait for their upload.
    pub(crate) queue_size: usize,
    /// `--debuginfo-upload-timeout-duration DURATION`: for the transfer of one file.
    pub(crate) timeout: Duration,
    /// `--debuginfo-upload-cache-duration DURATION`: how long a no of the store is believed.
    pub(crate) cache: Duration,
    /// `--debuginfo-disable-caching`: not at all.
    pub(crate) caching_disabled: bool,
    /// `--otlp-*`: where traces of its work go.
    pub(crate) traces: traces::Settings,
}

impl Arguments {
    /// Parses the command line; `token` is what the environment holds.
    ///
    /// # Errors
    /// One line on what is wrong.
    pub(crate) fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        token: Option<OsString>,
    ) -> Result<Self, lexopt::Error> {
        let mut own = Self {
            common: Common::default(),
            store: Settings::default(),
            temporary_directory: PathBuf::from("/tmp"),
            options: Options {
                strip: true,
                compress: false,
            },
            disabled: false,
            max_parallel: 25,
            queue_size: 4096,
            timeout: Duration::from_secs(120),
            cache: Duration::from_secs(300),
            caching_disabled: false,
            traces: traces::Settings::default(),
        };
        own.common = Common::parse(arguments, |name, parser| {
            match name {
                "debuginfo-temp-dir" => own.temporary_directory = parser.value()?.into(),
                "debuginfo-strip" => own.options.strip = boolean(parser)?,
                "debuginfo-compress" => own.options.compress = boolean(parser)?,
                "debuginfo-upload-disable" => own.disabled = boolean(parser)?,
                "debuginfo-disable-caching" => own.caching_disabled = boolean(parser)?,
                "debuginfo-upload-max-parallel" => own.max_parallel = number(name, parser)?,
                "debuginfo-upload-queue-size" => own.queue_size = number(name, parser)?,
                "debuginfo-upload-timeout-duration" => {
                    own.timeout = parser.value()?.parse_with(duration::parse_positive)?;
                }
                "debuginfo-upload-cache-duration" => {
                    own.cache = parser.value()?.parse_with(duration::parse_positive)?;
                }
                _ => {
                    return Ok(
                        own.store.argument(name, parser)? || own.traces.argument(name, parser)?
                    );
                }
            }
            Ok(true)
        })?;
        own.store.take_token(token)?;
        own.store.check()?;
        own.traces.way()?;
        Ok(own)
    }

    /// Whether anything can be uploaded.
    pub(crate) fn wants_uploads(&self) -> bool {
        self.store.address.is_some() && !self.disabled
    }
}

/// A number above 0.
fn number(name: &str, parser: &mut lexopt::Parser) -> Result<usize, lexopt::Error> {
    parser.value()?.parse_with(|text| {
        let number = text.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| format!("--{name}: {text:?} is no number above 0"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, lexopt::Error> {
        Arguments::parse(arguments.iter().map(OsString::from), None)
    }

    #[test]
    fn defaults_are_those_of_the_agent_that_is_replaced() {
        let own = parse(&[]).expect("valid");
        assert!(own.options.strip && !own.options.compress && !own.disabled);
        assert_eq!((own.max_parallel, own.timeout.as_secs()), (25, 120));
        assert_eq!((own.cache.as_secs(), own.caching_disabled), (300, false));
        assert!(!own.wants_uploads(), "there is no store");
    }

    #[test]
    fn flags_are_taken() {
        let own = parse(&[
            "--remote-store-address=parca:7070",
            "--debuginfo-strip=false",
            "--debuginfo-compress",
            "--debuginfo-upload-max-parallel=3",
            "--debuginfo-upload-timeout-duration=10m",
        ])
        .expect("valid");
        assert!(own.wants_uploads() && !own.options.strip && own.options.compress);
        assert_eq!((own.max_parallel, own.timeout.as_secs()), (3, 600));
        let disabled = parse(&["--remote-store-address=a:1", "--debuginfo-upload-disable"]);
        assert!(!disabled.expect("valid").wants_uploads());
        for wrong in [
            "--debuginfo-upload-max-parallel=0",
            "--debuginfo-strip=perhaps",
        ] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
    }
}
