//! Why a file is not uploaded, or could not be made ready for it.

use leadsman_executable::reason::Reason;
use thiserror::Error;

/// The fault.
#[derive(Debug, Error)]
pub enum Fault {
    /// Another format.
    #[error("it is no ELF executable or shared library of this machine's byte order")]
    Format,
    /// Headers that contradict themselves.
    #[error("its headers contradict themselves: {0}")]
    Malformed(&'static str),
    /// Nothing in it names an address: whoever uploads it keeps a better file away.
    #[error("it has no symbols: install its debug symbols package, or build it without -s")]
    NoSymbols,
    /// The extract does not say what the original says.
    #[error("the extract does not say the same as the file: {0}")]
    Differs(String),
    /// The file could not be read.
    #[error("it cannot be read: {0}")]
    Read(std::io::Error),
    /// The extract could not be written.
    #[error(
        "the temporary directory cannot be written to: {0}: see to its space or choose another --debuginfo-temp-dir"
    )]
    Write(std::io::Error),
}

impl Fault {
    /// The cause's name in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Malformed(_) => "malformed",
            Self::NoSymbols => "no_symbols",
            Self::Differs(_) => "differs",
            Self::Read(_) => "unreadable",
            Self::Write(_) => "temporary_directory",
        }
    }

    /// Whether the same file may do later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Write(_))
    }
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NotElf | Reason::UnsupportedElf => Self::Format,
            Reason::Truncated => Self::Malformed("it ends before its headers say"),
            Reason::TooLarge => Self::Malformed("a table is larger than any linker makes"),
            Reason::Unreadable => Self::Read(std::io::ErrorKind::Other.into()),
            _ => Self::Malformed("a table leads nowhere"),
        }
    }
}
