//! Debug information as the server keeps it: one upload for each build ID, from «should it be sent» to «done». Knows no
//! transport; the time is handed in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::Code;

use super::executable::{Executable, Quality};
use super::refusal::Refusal;

/// A build ID and the kind of file: each kind is kept for itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub build_id: String,
    pub kind: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Uploading,
    Uploaded,
}

/// One upload.
#[derive(Debug)]
struct Upload {
    id: String,
    hash: String,
    size: u64,
    state: State,
    started: Instant,
    bytes: Option<Arc<Vec<u8>>>,
    /// Known once somebody asked for symbols.
    executable: Option<Result<Arc<Executable>, String>>,
}

/// What a server is told to do with uploads.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub max_size: u64,
    /// An upload that takes longer may be started again, two minutes later.
    pub max_duration: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            max_size: 1_000_000_000,
            max_duration: Duration::from_secs(15 * 60),
        }
    }
}

/// How one build ID fared, for tests to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Uploads that were begun.
    pub initiated: u32,
    /// Uploads whose bytes came whole.
    pub received: u32,
    /// Uploads that were marked as finished.
    pub finished: u32,
}

/// All uploads.
#[derive(Debug, Default)]
pub struct Uploads {
    pub rules: Rules,
    uploads: BTreeMap<Key, Upload>,
    records: BTreeMap<String, Record>,
    next_id: u64,
    /// What the real server lets pass, and is wrong all the same.
    pub violations: Vec<String>,
}

/// An answer to «should it be sent».
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Should {
    pub upload: bool,
    pub reason: &'static str,
}

const FIRST_TIME: &str = "First time we see this build ID: please upload.";
const STALE: &str = "A previous upload was started but not finished and is stale by now.";
const IN_PROGRESS: &str = "A previous upload is still in progress and not stale yet.";
const FORCED: &str = "Accepted because it is forced.";
const EXISTS: &str = "Debuginfo already exists and is not marked as invalid.";
const INVALID: &str = "Debuginfo exists but is invalid: hash the new one and initiate the upload.";
const EQUAL: &str = "Debuginfo exists and is invalid, and the proposed hash is the same.";
const NOT_EQUAL: &str = "Debuginfo exists but is invalid, and the proposed one is another.";

fn yes(reason: &'static str) -> Should {
    Should {
        upload: true,
        reason,
    }
}

fn no(reason: &'static str) -> Should {
    Should {
        upload: false,
        reason,
    }
}

fn checked(build_id: &str) -> Result<(), Refusal> {
    if build_id.len() <= 2 {
        return Err(Refusal::invalid("unexpectedly short input"));
    }
    Ok(())
}

impl Uploads {
    /// Whether the server wants a file of this build ID.
    pub fn should(
        &self,
        key: &Key,
        hash: &str,
        force: bool,
        now: Instant,
    ) -> Result<Should, Refusal> {
        checked(&key.build_id)?;
        let Some(upload) = self.uploads.get(key) else {
            return Ok(yes(FIRST_TIME));
        };
        Ok(match upload.state {
            _ if force => yes(FORCED),
            State::Uploading => {
                let stale_after = self.rules.max_duration + Duration::from_secs(120);
                if now.duration_since(upload.started) > stale_after {
                    yes(STALE)
                } else {
                    no(IN_PROGRESS)
                }
            }
            State::Uploaded if !matches!(upload.executable, Some(Err(_))) => no(EXISTS),
            State::Uploaded if hash.is_empty() => yes(INVALID),
            State::Uploaded if hash == upload.hash => no(EQUAL),
            State::Uploaded => yes(NOT_EQUAL),
        })
    }

    /// Begins an upload; returns its ID.
    pub fn initiate(
        &mut self,
        key: &Key,
        hash: &str,
        size: i64,
        force: bool,
        now: Instant,
    ) -> Result<String, Refusal> {
        if hash.is_empty() {
            return Err(Refusal::invalid("hash must be set"));
        }
        let size = match u64::try_from(size) {
            Ok(size) if size > 0 => size,
            _ => return Err(Refusal::invalid("size must be set")),
        };
        let should = self.should(key, hash, force, now)?;
        if !should.upload {
            let code = if should.reason == EQUAL {
                Code::AlreadyExists
            } else {
                Code::FailedPrecondition
            };
            return Err(Refusal::new(code, should.reason));
        }
        if size > self.rules.max_size {
            return Err(Refusal::invalid(format!(
                "upload size {size} exceeds the maximum of {}",
                self.rules.max_size
            )));
        }
        self.next_id += 1;
        let id = format!("upload-{}", self.next_id);
        self.record(key).initiated += 1;
        self.uploads.insert(
            key.clone(),
            Upload {
                id: id.clone(),
                hash: hash.to_owned(),
                size,
                state: State::Uploading,
                started: now,
                bytes: None,
                executable: None,
            },
        );
        Ok(id)
    }

    /// Whether bytes may come under this ID.
    pub fn expected(&self, key: &Key, id: &str) -> Result<u64, Refusal> {
        checked(&key.build_id)?;
        let upload = self.uploads.get(key).ok_or_else(|| {
            Refusal::new(
                Code::FailedPrecondition,
                "metadata not found: the upload was not initiated",
            )
        })?;
        if upload.id != id {
            return Err(Refusal::invalid(
                "the upload ID is not the one that InitiateUpload returned",
            ));
        }
        Ok(upload.size)
    }

    /// Takes a whole file.
    pub fn receive(&mut self, key: &Key, id: &str, bytes: Vec<u8>) -> Result<(), Refusal> {
        let expected = self.expected(key, id)?;
        if bytes.len() as u64 != expected {
            self.violations.push(format!(
                "{}: {expected} bytes were announced and {} came",
                key.build_id,
                bytes.len()
            ));
        }
        self.record(key).received += 1;
        if let Some(upload) = self.uploads.get_mut(key) {
            upload.bytes = Some(Arc::new(bytes));
            upload.executable = None;
        }
        Ok(())
    }

    /// Marks an upload as done.
    pub fn finish(&mut self, key: &Key, id: &str) -> Result<(), Refusal> {
        checked(&key.build_id)?;
        let not_found = || Refusal::new(Code::Internal, "debuginfo metadata not found");
        let upload = self.uploads.get_mut(key).ok_or_else(not_found)?;
        if upload.id != id {
            return Err(Refusal::invalid("upload id mismatch"));
        }
        upload.state = State::Uploaded;
        let empty = upload.bytes.is_none();
        self.record(key).finished += 1;
        if empty {
            self.violations
                .push(format!("{} is finished without bytes", key.build_id));
        }
        Ok(())
    }

    /// The uploaded file that names addresses of `build_id`; parsed when first asked for.
    pub fn executable(&mut self, build_id: &str) -> Option<Arc<Executable>> {
        let key = Key {
            build_id: build_id.to_owned(),
            kind: 0,
        };
        let upload = self.uploads.get_mut(&key)?;
        if upload.state != State::Uploaded {
            return None;
        }
        let bytes = upload.bytes.clone()?;
        let fresh = upload.executable.is_none();
        let executable = upload
            .executable
            .get_or_insert_with(|| Executable::parse(&bytes).map(Arc::new));
        match executable {
            Ok(executable) if executable.quality() == Quality::default() => {
                if fresh {
                    self.violations
                        .push(format!("the file uploaded for {build_id} names nothing"));
                }
                None
            }
            Ok(executable) => {
                if fresh && !executable.has_load_segments() {
                    self.violations.push(format!(
                        "the file uploaded for {build_id} lost its PT_LOAD headers"
                    ));
                }
                Some(Arc::clone(executable))
            }
            Err(error) => {
                if fresh {
                    self.violations
                        .push(format!("the file uploaded for {build_id}: {error}"));
                }
                None
            }
        }
    }

    /// The file as it came.
    #[must_use]
    pub fn bytes(&self, build_id: &str) -> Option<Arc<Vec<u8>>> {
        let key = Key {
            build_id: build_id.to_owned(),
            kind: 0,
        };
        self.uploads.get(&key)?.bytes.clone()
    }

    /// How each build ID fared.
    #[must_use]
    pub fn records(&self) -> &BTreeMap<String, Record> {
        &self.records
    }

    fn record(&mut self, key: &Key) -> &mut Record {
        self.records.entry(key.build_id.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(build_id: &str) -> Key {
        Key {
            build_id: build_id.to_owned(),
            kind: 0,
        }
    }

    fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Code {
        result.expect_err("a refusal").code
    }

    #[test]
    fn one_upload_goes_from_first_time_to_done() {
        let now = Instant::now();
        let mut uploads = Uploads::default();
        let key = key("abcd");
        assert!(
            uploads
                .should(&key, "", false, now)
                .expect("an answer")
                .upload
        );
        let id = uploads.initiate(&key, "h", 3, false, now).expect("an id");
        // While it runs and when it is done there is no second one.
        assert_eq!(
            uploads
                .should(&key, "", false, now)
                .expect("an answer")
                .reason,
            IN_PROGRESS
        );
        assert_eq!(
            code(uploads.initiate(&key, "h", 3, false, now)),
            Code::FailedPrecondition
        );
        uploads.receive(&key, &id, vec![1, 2, 3]).expect("received");
        uploads.finish(&key, &id).expect("finished");
        assert_eq!(
            uploads
                .should(&key, "", false, now)
                .expect("an answer")
                .reason,
            EXISTS
        );
        assert_eq!(
            code(uploads.initiate(&key, "other", 3, false, now)),
            Code::FailedPrecondition
        );
        assert!(
            uploads
                .should(&key, "", true, now)
                .expect("an answer")
                .upload
        );
        assert!(uploads.violations.is_empty(), "{:?}", uploads.violations);
    }

    #[test]
    fn wrong_turns_are_refused() {
        let now = Instant::now();
        let mut uploads = Uploads::default();
        assert_eq!(
            code(uploads.should(&key("ab"), "", false, now)),
            Code::InvalidArgument
        );
        assert_eq!(
            code(uploads.initiate(&key("abc"), "", 3, false, now)),
            Code::InvalidArgument
        );
        for size in [0, -1, 1_000_000_001] {
            assert_eq!(
                code(uploads.initiate(&key("abc"), "h", size, false, now)),
                Code::InvalidArgument
            );
        }
        assert_eq!(
            code(uploads.receive(&key("abc"), "upload-1", Vec::new())),
            Code::FailedPrecondition
        );
        assert_eq!(
            code(uploads.finish(&key("abc"), "upload-1")),
            Code::Internal
        );
        uploads
            .initiate(&key("abc"), "h", 3, false, now)
            .expect("an id");
        assert_eq!(
            code(uploads.receive(&key("abc"), "other", Vec::new())),
            Code::InvalidArgument
        );
        assert_eq!(
            code(uploads.finish(&key("abc"), "other")),
            Code::InvalidArgument
        );
    }

    #[test]
    fn a_stale_upload_may_be_started_again() {
        let now = Instant::now();
        let mut uploads = Uploads::default();
        let first = uploads
            .initiate(&key("abcd"), "h", 3, false, now)
            .expect("an id");
        let later = now + uploads.rules.max_duration + Duration::from_secs(121);
        let second = uploads
            .initiate(&key("abcd"), "h", 3, false, later)
            .expect("an id");
        assert_eq!(
            code(uploads.receive(&key("abcd"), &first, vec![0; 3])),
            Code::InvalidArgument
        );
        uploads
            .receive(&key("abcd"), &second, vec![0; 3])
            .expect("received");
    }

    #[test]
    fn an_upload_that_is_no_elf_is_wanted_again_unless_it_is_the_same() {
        let now = Instant::now();
        let mut uploads = Uploads::default();
        let key = key("abcd");
        let id = uploads.initiate(&key, "h", 3, false, now).expect("an id");
        uploads.receive(&key, &id, vec![1, 2, 3]).expect("received");
        uploads.finish(&key, &id).expect("finished");
        // Only a query finds out.
        assert_eq!(
            uploads
                .should(&key, "", false, now)
                .expect("an answer")
                .reason,
            EXISTS
        );
        assert!(uploads.executable("abcd").is_none());
        assert_eq!(
            uploads
                .should(&key, "", false, now)
                .expect("an answer")
                .reason,
            INVALID
        );
        assert_eq!(
            code(uploads.initiate(&key, "h", 3, false, now)),
            Code::AlreadyExists
        );
        assert!(uploads.initiate(&key, "g", 3, false, now).is_ok());
        assert_eq!(uploads.violations.len(), 1, "{:?}", uploads.violations);
    }

    #[test]
    fn what_the_real_server_would_swallow_is_written_down() {
        let now = Instant::now();
        let mut uploads = Uploads::default();
        let id = uploads
            .initiate(&key("abcd"), "h", 3, false, now)
            .expect("an id");
        uploads.finish(&key("abcd"), &id).expect("finished");
        uploads
            .receive(&key("abcd"), &id, vec![0; 2])
            .expect("received");
        assert_eq!(uploads.violations.len(), 2, "{:?}", uploads.violations);
    }
}
