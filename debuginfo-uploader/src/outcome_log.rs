//! How uploads ended, in words: one line an event. What fails for many files in one way is said of the first of them; the
//! counters have them all.

use std::collections::BTreeSet;

use ipc_proto::ids::BuildId;

use crate::outcome::Outcome;

/// Remembers what was said.
#[derive(Debug, Default)]
pub(crate) struct OutcomeLog {
    /// Step and cause of failures since the last upload that came through.
    told: BTreeSet<(&'static str, &'static str)>,
}

impl OutcomeLog {
    /// Says how the upload of the file at `path` ended.
    pub(crate) fn tell(&mut self, path: &str, build_id: &BuildId, outcome: &Outcome) {
        let build_id = hexadecimal(build_id);
        match outcome {
            Outcome::Uploaded { bytes } => {
                self.told.clear();
                log::info!("uploaded debuginfo of {path} (build ID {build_id}): {bytes} bytes");
            }
            Outcome::Exists => {
                log::info!("the store has debuginfo of {path} (build ID {build_id}) already");
            }
            Outcome::NotNeeded(reason) => {
                log::info!(
                    "the store wants no debuginfo of {path} (build ID {build_id}): {reason}"
                );
            }
            Outcome::InProgress => {
                log::info!("another agent uploads debuginfo of {path} (build ID {build_id})");
            }
            Outcome::Unfit { text, .. } => {
                log::info!("no debuginfo of {path} (build ID {build_id}): {text}");
            }
            Outcome::Failed {
                step, cause, text, ..
            } => {
                let said = format!(
                    "debuginfo of {path} (build ID {build_id}) not uploaded ({step}): {text}"
                );
                if self.told.insert((step, cause)) {
                    log::warn!("{said}; the same of other files is only counted");
                } else {
                    log::debug!("{said}");
                }
            }
        }
    }
}

/// Two digits a byte.
pub(crate) fn hexadecimal(build_id: &BuildId) -> String {
    build_id
        .0
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
