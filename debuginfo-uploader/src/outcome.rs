//! How an upload can end.

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// The same may succeed in a moment.
    Soon,
    /// Somebody has to do something first.
    Later,
    /// Another agent uploads the same.
    WhenOthersFailed,
    /// It would fail again.
    Never,
}

/// The end of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The store has it.
    Uploaded {
        /// What was sent.
        bytes: u64,
    },
    /// The store had it already when the upload was to begin, or somebody else is at it.
    Exists,
    /// The store does not want it, for the reason that it says.
    NotNeeded(String),
    /// Another agent is uploading it.
    InProgress,
    /// The file can't be sent, for good.
    Unfit {
        /// The fault's name.
        cause: &'static str,
        /// In words.
        text: String,
    },
    /// A step failed.
    Failed {
        /// Which step.
        step: &'static str,
        /// The cause's name in metrics.
        cause: &'static str,
        /// What follows.
        again: Again,
        /// In words.
        text: String,
    },
}

impl Outcome {
    /// The files could not be handed to who uploads them.
    pub(crate) fn no_descriptor(error: &std::io::Error) -> Self {
        Self::Failed {
            step: "prepare",
            cause: "descriptors",
            again: Again::Later,
            text: error.to_string(),
        }
    }

    /// When to try again.
    pub(crate) fn again(&self) -> Again {
        match self {
            Self::InProgress => Again::WhenOthersFailed,
            Self::Failed { again, .. } => *again,
            Self::Uploaded { .. } | Self::Exists | Self::NotNeeded(_) | Self::Unfit { .. } => {
                Again::Never
            }
        }
    }

    /// Whether this process need never ask about it again.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Uploaded { .. } | Self::Exists | Self::Unfit { .. }
        )
    }

    /// Result and cause in metrics.
    pub(crate) fn names(&self) -> (&'static str, &'static str) {
        match self {
            Self::Uploaded { .. } => ("uploaded", ""),
            Self::Exists => ("exists", ""),
            Self::NotNeeded(_) => ("not_needed", ""),
            Self::InProgress => ("in_progress", ""),
            Self::Unfit { cause, .. } => ("unfit", cause),
            Self::Failed { step, cause, .. } => (step, cause),
        }
    }
}
