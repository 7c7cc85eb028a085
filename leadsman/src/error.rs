//! How a command ends badly: one line that says what to do, and an exit code.

use std::fmt;
use std::process::ExitCode;

/// The line and the code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    line: String,
}

impl Failure {
    /// The command was asked for something that it can't do as asked: exit code 2.
    pub(crate) fn usage(line: impl Into<String>) -> Self {
        Self::with_code(2, line)
    }

    /// The command failed: exit code 1.
    pub(crate) fn failed(line: impl Into<String>) -> Self {
        Self::with_code(1, line)
    }

    /// Ends with that code.
    pub(crate) fn with_code(code: u8, line: impl Into<String>) -> Self {
        Self {
            code,
            line: line.into(),
        }
    }

    /// What to exit with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.line)
    }
}
