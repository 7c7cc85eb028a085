//! The symbolizer's arguments. Reads no environment and no file.

use std::ffi::OsString;
use std::path::PathBuf;

use ipc_endpoint::arguments::Common;

/// What the symbolizer is told.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    /// Those of every process.
    pub(crate) common: Common,
    /// `--cache-directory DIR`: where unwind tables are kept; none are when it is absent.
    pub(crate) cache_directory: Option<PathBuf>,
}

impl Arguments {
    /// Parses the arguments behind the program's name.
    ///
    /// # Errors
    /// One line on what is wrong.
    pub(crate) fn parse(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, lexopt::Error> {
        let mut cache_directory = None;
        let common = Common::parse(arguments, |name, parser| {
            if name == "cache-directory" {
                cache_directory = Some(PathBuf::from(parser.value()?));
            }
            Ok(name == "cache-directory")
        })?;
        Ok(Self {
            common,
            cache_directory,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_directory_is_optional_and_nonsense_is_named() {
        let parse = |arguments: &[&str]| Arguments::parse(arguments.iter().map(OsString::from));
        assert_eq!(parse(&[]).unwrap().cache_directory, None);
        assert_eq!(
            parse(&["--cache-directory=/c"]).unwrap().cache_directory,
            Some(PathBuf::from("/c"))
        );
        assert!(parse(&["--cache"]).is_err());
    }
}
