//! One upload, from the question whether the store wants it to the word that it is done.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leadsman_debuginfo_uploader::prepare::{Options, Prepared, choose};
use leadsman_debuginfo_uploader::{Checked, Fault};
use remote_store::generated::debuginfo as proto;
use remote_store::generated::debuginfo::debuginfo_service_client::DebuginfoServiceClient;
use remote_store::generated::debuginfo::upload_instructions::UploadStrategy;
use remote_store::verdict::code_name;
use remote_store::{CallError, RemoteStore, Verdict, Wire};
use tokio::sync::Semaphore;
use tonic::{Code, Request, Status};
use traces::Work;

use crate::chunks::Chunks;
use crate::outcome::{Again, Outcome};
use crate::signed_url::{self, Https};
use crate::started::{Started, StartedUploads};
use crate::tally::Tally;
use crate::temporary::Temporary;

/// How long a question to the store may take.
const QUESTION: Duration = Duration::from_secs(30);
/// MiB that extracts may take in the temporary directory together; a larger one waits until it has all of it.
const SPACE: u32 = 4096;
/// Servers say in words why they want no upload. These of Parca's stand for another agent that is at it.
const IN_PROGRESS: &str = "in progress";

/// Failures of a transfer after which the store knows the upload no more, or its URL is used up: the next try begins with
/// the question.
const LOSES_UPLOAD: [&str; 7] = [
    "invalid_argument",
    "not_found",
    "failed_precondition",
    "already_exists",
    "signed_url",
    "storage_4xx",
    "strategy",
];

/// What uploads share.
pub(crate) struct Context {
    store: RemoteStore,
    https: Https,
    options: Options,
    /// For the transfer of one file.
    timeout: Duration,
    temporary: Arc<Temporary>,
    /// Extracting takes a whole CPU and its buffers: one at a time.
    preparing: Semaphore,
    space: Arc<Semaphore>,
    started: StartedUploads,
    pub(crate) tally: Tally,
}

/// An executable to upload.
#[derive(Debug)]
pub(crate) struct Files {
    /// Its build ID, hexadecimal.
    pub(crate) build_id: String,
    pub(crate) executable: File,
    pub(crate) debug_file: Option<File>,
}

/// Why a step failed.
enum Stop {
    Call(&'static str, CallError),
    Outcome(Outcome),
}

impl Context {
    pub(crate) fn new(
        store: RemoteStore,
        https: Https,
        options: Options,
        timeout: Duration,
        temporary: Temporary,
    ) -> Self {
        Self {
            store,
            https,
            options,
            timeout,
            temporary: Arc::new(temporary),
            preparing: Semaphore::new(1),
            space: Arc::new(Semaphore::new(SPACE as usize)),
            started: StartedUploads::default(),
            tally: Tally::default(),
        }
    }

    /// The calls so far.
    pub(crate) fn store(&self) -> &RemoteStore {
        &self.store
    }

    /// Uploads an executable, or its debug file.
    pub(crate) async fn upload(&self, files: Files) -> Outcome {
        let upload = Work::begin("upload");
        upload.note("leadsman.build_id", files.build_id.clone());
        let outcome = upload.of(self.outcome(files)).await;
        match &outcome {
            Outcome::Failed { text, .. } | Outcome::Unfit { text, .. } => upload.fail(text),
            Outcome::Uploaded { .. }
            | Outcome::Exists
            | Outcome::InProgress
            | Outcome::NotNeeded(_) => {}
        }
        upload.note("leadsman.result", outcome.names().0);
        outcome
    }

    async fn outcome(&self, files: Files) -> Outcome {
        match self.steps(files).await {
            Ok(outcome) | Err(Stop::Outcome(outcome)) => outcome,
            Err(Stop::Call(step, error)) => Outcome::Failed {
                step,
                cause: code_name(error.code()),
                again: match error.verdict() {
                    Verdict::Retry => Again::Soon,
                    Verdict::Later => Again::Later,
                    Verdict::TooLarge | Verdict::Final => Again::Never,
                },
                text: error.to_string(),
            },
        }
    }

    async fn steps(&self, files: Files) -> Result<Outcome, Stop> {
        let build_id = files.build_id.clone();
        let mut started = self.started.take(&build_id);
        if started.is_none() {
            let answer = self.should_initiate(&build_id).await?;
            if !answer.should_initiate_upload {
                return Ok(match answer.reason.contains(IN_PROGRESS) {
                    true => Outcome::InProgress,
                    false => Outcome::NotNeeded(answer.reason),
                });
            }
        }
        let (prepared, _space) = self.prepare(files).await?;
        started = started.filter(|started| started.hash == prepared.hash);
        let instructions = match started {
            Some(started) => started.instructions,
            None => match self.initiate(&build_id, &prepared).await {
                // Somebody was faster.
                Err(Stop::Call(_, error))
                    if matches!(error.code(), Code::AlreadyExists | Code::FailedPrecondition) =>
                {
                    return Ok(match error.to_string().contains(IN_PROGRESS) {
                        true => Outcome::InProgress,
                        false => Outcome::Exists,
                    });
                }
                result => result?,
            },
        };
        let started = Started {
            hash: prepared.hash.clone(),
            instructions: instructions.clone(),
        };
        self.started.keep(&build_id, started);
        let bytes = prepared.size;
        let result = self.transfer_in_time(&instructions, prepared).await;
        if let Err(Stop::Outcome(Outcome::Failed { cause, .. })) = &result
            && LOSES_UPLOAD.contains(cause)
        {
            drop(self.started.take(&build_id));
        }
        result?;
        self.mark_finished(&instructions).await?;
        drop(self.started.take(&build_id));
        Ok(Outcome::Uploaded { bytes })
    }

    async fn transfer_in_time(
        &self,
        instructions: &proto::UploadInstructions,
        prepared: Prepared,
    ) -> Result<(), Stop> {
        let start = Instant::now();
        let transfer = self.transfer(instructions, prepared);
        let result = tokio::time::timeout(self.timeout, transfer).await;
        self.tally.transferred(start.elapsed());
        result.unwrap_or_else(|_elapsed| {
            let text = format!(
                "not done within {:?}: give --debuginfo-upload-timeout-duration more",
                self.timeout
            );
            Err(failed("transfer", "timeout", Again::Soon, text))
        })
    }

    async fn should_initiate(
        &self,
        build_id: &str,
    ) -> Result<proto::ShouldInitiateUploadResponse, Stop> {
        let request = proto::ShouldInitiateUploadRequest {
            build_id: build_id.to_owned(),
            ..Default::default()
        };
        let call = |wire: Wire, request: Request<proto::ShouldInitiateUploadRequest>| async move {
            DebuginfoServiceClient::new(wire)
                .should_initiate_upload(request)
                .await
        };
        let method = "ShouldInitiateUpload";
        let answer = self.store.unary_once(method, request, call, QUESTION).await;
        answer.map_err(|error| Stop::Call("ask", error))
    }

    async fn initiate(
        &self,
        build_id: &str,
        prepared: &Prepared,
    ) -> Result<proto::UploadInstructions, Stop> {
        let request = proto::InitiateUploadRequest {
            build_id: build_id.to_owned(),
            size: i64::try_from(prepared.size).unwrap_or(i64::MAX),
            hash: prepared.hash.clone(),
            ..Default::default()
        };
        let call = |wire: Wire, request: Request<proto::InitiateUploadRequest>| async move {
            DebuginfoServiceClient::new(wire)
                .initiate_upload(request)
                .await
        };
        let method = "InitiateUpload";
        let answer = self.store.unary_once(method, request, call, QUESTION).await;
        let answer = answer.map_err(|error| Stop::Call("initiate", error))?;
        answer.upload_instructions.ok_or_else(|| {
            let text = "the store says yes but not how".to_owned();
            failed("initiate", "no_instructions", Again::Later, text)
        })
    }

    /// Makes what is sent, on a thread of its own. The space that it takes is given back with the permit.
    async fn prepare(
        &self,
        files: Files,
    ) -> Result<(Prepared, Option<tokio::sync::OwnedSemaphorePermit>), Stop> {
        let chosen = match choose(files.executable, files.debug_file) {
            Ok(chosen) => chosen,
            Err(fault) => return Err(unfit(&fault)),
        };
        let options = self.options;
        let mut space = None;
        if chosen.needs_temporary(options) {
            let most = (chosen.most_bytes() >> 20).saturating_add(1);
            let most = u32::try_from(most).unwrap_or(SPACE).min(SPACE);
            let permit = Arc::clone(&self.space).acquire_many_owned(most).await;
            space = permit.ok();
        }
        // The semaphore is never closed.
        let _one_at_a_time = self.preparing.acquire().await;
        let temporary = Arc::clone(&self.temporary);
        let start = Instant::now();
        let work = Work::begin("prepare");
        let prepare = move || chosen.prepare(options, || temporary.file());
        let result = tokio::task::spawn_blocking(prepare).await;
        self.tally.prepared(start.elapsed());
        drop(work);
        let prepared = match result {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(fault)) => return Err(unfit(&fault)),
            Err(gone) => return Err(failed("prepare", "thread", Again::Later, gone.to_string())),
        };
        self.tally.checked(match prepared.checked {
            None => "whole_file",
            Some(Checked::BytesOnly) => "bytes",
            Some(Checked::Names(_)) => "names",
        });
        Ok((prepared, space))
    }

    async fn transfer(
        &self,
        instructions: &proto::UploadInstructions,
        prepared: Prepared,
    ) -> Result<(), Stop> {
        let size = prepared.size;
        let chunks = Chunks::new(prepared.file, size);
        match instructions.upload_strategy() {
            UploadStrategy::Grpc => self.stream(instructions, chunks, size).await,
            UploadStrategy::SignedUrl => {
                let work = Work::begin("PUT");
                let put = signed_url::put(&self.https, &instructions.signed_url, chunks, size);
                put.await.map_err(|error| {
                    work.fail(&error);
                    failed("transfer", error.name(), error.again(), error.to_string())
                })
            }
            UploadStrategy::Unspecified => {
                let text = "the store asks for an unknown way to upload".to_owned();
                Err(failed("transfer", "strategy", Again::Later, text))
            }
        }
    }

    async fn stream(
        &self,
        instructions: &proto::UploadInstructions,
        chunks: Chunks,
        size: u64,
    ) -> Result<(), Stop> {
        let info = proto::UploadInfo {
            build_id: instructions.build_id.clone(),
            upload_id: instructions.upload_id.clone(),
            r#type: instructions.r#type,
        };
        let broken = chunks.broken();
        let mut client = DebuginfoServiceClient::new(self.store.wire());
        let call = client.upload(Request::new(chunks.requests(info)));
        // The file ends early: the call is cancelled, so that the store does not take what it has for all of it.
        let call = async {
            tokio::select! {
                result = call => result,
                () = broken.notified() => Err(Status::data_loss("the file became shorter while it was sent")),
            }
        };
        let answer = self.store.attempt("Upload", call).await.map_err(|status| {
            // Whatever became of this upload: the next one begins with a question.
            let again = match Verdict::of(&status) {
                Verdict::Later => Again::Later,
                _ => Again::Soon,
            };
            let text = CallError::Status(Box::new(status));
            failed("transfer", code_name(text.code()), again, text.to_string())
        })?;
        let received = answer.into_inner().size;
        if received != size {
            let text = format!("the store took {received} bytes of {size}");
            return Err(failed("transfer", "size", Again::Soon, text));
        }
        Ok(())
    }

    async fn mark_finished(&self, instructions: &proto::UploadInstructions) -> Result<(), Stop> {
        let request = proto::MarkUploadFinishedRequest {
            build_id: instructions.build_id.clone(),
            upload_id: instructions.upload_id.clone(),
            r#type: instructions.r#type,
        };
        let call = |wire: Wire, request: Request<proto::MarkUploadFinishedRequest>| async move {
            DebuginfoServiceClient::new(wire)
                .mark_upload_finished(request)
                .await
        };
        let method = "MarkUploadFinished";
        let answer = self.store.unary(method, request, call).await;
        answer.map(|_done| ()).map_err(|error| {
            let again = match error.verdict() {
                Verdict::Later => Again::Later,
                _ => Again::Soon,
            };
            failed("finish", code_name(error.code()), again, error.to_string())
        })
    }
}

fn failed(step: &'static str, cause: &'static str, again: Again, text: String) -> Stop {
    Stop::Outcome(Outcome::Failed {
        step,
        cause,
        again,
        text,
    })
}

fn unfit(fault: &Fault) -> Stop {
    let (cause, text) = (fault.name(), fault.to_string());
    Stop::Outcome(if fault.may_pass() {
        Outcome::Failed {
            step: "prepare",
            cause,
            again: Again::Later,
            text,
        }
    } else {
        Outcome::Unfit { cause, text }
    })
}
