//! Uploads that the store knows of and that did not arrive. A store takes the bytes under the same number again at once, but would
//! refuse a new upload of that build for a quarter of an hour. Gone when the process ends.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use remote_store::generated::debuginfo::UploadInstructions;

/// Uploads remembered; beyond it all are forgotten, and asked for anew.
const MAX_STARTED: usize = 1024;

/// An upload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Started {
    /// Of which bytes.
    pub(crate) hash: String,
    /// How the store wants them.
    pub(crate) instructions: UploadInstructions,
}

/// By build ID.
#[derive(Debug, Default)]
pub(crate) struct StartedUploads(Mutex<HashMap<String, Started>>);

impl StartedUploads {
    /// Hands an upload out, which is no longer remembered then.
    pub(crate) fn take(&self, build_id: &str) -> Option<Started> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(build_id)
    }

    /// Remembers an upload.
    pub(crate) fn keep(&self, build_id: &str, started: Started) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_STARTED {
            all.clear();
        }
        all.insert(build_id.to_owned(), started);
    }
}
