//! The arguments that every process takes.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use ipc_proto::hello::Role;
use lexopt::{Arg, Parser, ValueExt};
use log::LevelFilter;

use crate::crash;
use crate::logger::{self, Format};
use crate::peers::Peers;

/// What every process is told.
#[derive(Clone, Debug)]
pub struct Common {
    /// Where the sockets are: `--runtime-directory DIR`.
    pub runtime_directory: PathBuf,
    /// Who runs as which uid: `--peer ROLE=UID`, repeated.
    pub peers: Peers,
    /// `--log-level error|warn|info|debug`.
    pub log_level: LevelFilter,
    /// `--log-format logfmt|json`.
    pub log_format: Format,
    /// `--crash-directory DIR`: where a crash leaves its report; nowhere when absent.
    pub crash_directory: Option<PathBuf>,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            runtime_directory: PathBuf::from("/run/leadsman"),
            peers: Peers::default(),
            log_level: LevelFilter::Info,
            log_format: Format::default(),
            crash_directory: None,
        }
    }
}

impl Common {
    /// Starts logging as `role`, and watches for crashes.
    pub fn begin(&self, role: Role) {
        logger::init(role, self.log_level, self.log_format);
        crash::watch(role, self.crash_directory.as_deref());
    }

    /// Parses `arguments`; those that are not common go to `own`, which takes its values from the parser and returns
    /// whether it knows them.
    ///
    /// # Errors
    /// One line on what is wrong.
    pub fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        mut own: impl FnMut(&str, &mut Parser) -> Result<bool, lexopt::Error>,
    ) -> Result<Self, lexopt::Error> {
        let mut common = Self::default();
        let mut parser = Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            let Arg::Long(name) = argument else {
                return Err(argument.unexpected());
            };
            let name = name.to_owned();
            match name.as_str() {
                "runtime-directory" => common.runtime_directory = parser.value()?.into(),
                "peer" => {
                    let (role, uid) = parser.value()?.parse_with(peer)?;
                    common.peers.insert(role, uid);
                }
                "log-level" => {
                    common.log_level = parser.value()?.parse_with(LevelFilter::from_str)?;
                }
                "log-format" => {
                    common.log_format = parser.value()?.parse_with(Format::from_str)?;
                }
                "crash-directory" => common.crash_directory = Some(parser.value()?.into()),
                other => {
                    if !own(other, &mut parser)? {
                        return Err(Arg::Long(other).unexpected());
                    }
                }
            }
        }
        Ok(common)
    }
}

fn peer(text: &str) -> Result<(Role, u32), String> {
    let wrong = || format!("{text:?} is not ROLE=UID");
    let (role, uid) = text.split_once('=').ok_or_else(wrong)?;
    let role = Role::from_name(role).ok_or_else(wrong)?;
    Ok((role, uid.parse().map_err(|_number| wrong())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<(Common, Option<u32>), lexopt::Error> {
        let mut rate = None;
        let arguments = arguments.iter().map(OsString::from);
        let common = Common::parse(arguments, |name, parser| {
            if name == "rate" {
                rate = Some(parser.value()?.parse()?);
            }
            Ok(name == "rate")
        })?;
        Ok((common, rate))
    }

    #[test]
    fn common_and_own_arguments_mix() {
        let (common, rate) =
            parse(&["--rate=7", "--peer", "opener=42", "--log-level=debug"]).expect("valid");
        assert_eq!(rate, Some(7));
        assert!(common.peers.allows(Role::Opener, 42));
        assert_eq!(common.log_level, LevelFilter::Debug);
    }

    #[test]
    fn nonsense_is_named() {
        for bad in [
            &["--peer=opener"][..],
            &["--peer=x=1"],
            &["--other"],
            &["stray"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
