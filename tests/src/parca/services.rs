//! The stand-in's calls: each takes the store's lock, asks it, and turns its answer into messages.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;
use tonic::{Code, Request, Response, Status, Streaming};

use super::gate::Gate;
use super::signed::SignedUrls;
use super::store::{Span, Store};
use super::uploads::Key;
use crate::generated::debuginfo::debuginfo_service_server::DebuginfoService;
use crate::generated::debuginfo::upload_instructions::UploadStrategy;
use crate::generated::debuginfo::upload_request::Data;
use crate::generated::debuginfo::{
    InitiateUploadRequest, InitiateUploadResponse, MarkUploadFinishedRequest,
    MarkUploadFinishedResponse, ShouldInitiateUploadRequest, ShouldInitiateUploadResponse,
    UploadInstructions, UploadRequest, UploadResponse,
};
use crate::generated::profilestore::profile_store_service_server::ProfileStoreService;
use crate::generated::profilestore::{WriteRawRequest, WriteRawResponse};
use crate::generated::query::query_request::{Mode, Options, ReportType};
use crate::generated::query::query_response::Report;
use crate::generated::query::query_service_server::QueryService;
use crate::generated::query::{
    LabelsRequest, LabelsResponse, ProfileType, ProfileTypesRequest, ProfileTypesResponse,
    QueryRequest, QueryResponse, ValuesRequest, ValuesResponse,
};

/// What all calls share; it outlives restarts.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    store: Arc<Mutex<Store>>,
    pub gate: Gate,
    /// Where files go when not by gRPC.
    pub signed: Option<SignedUrls>,
}

impl Shared {
    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now_nanos() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        })
}

#[tonic::async_trait]
impl ProfileStoreService for Shared {
    async fn write_raw(
        &self,
        request: Request<WriteRawRequest>,
    ) -> Result<Response<WriteRawResponse>, Status> {
        self.store().write(request.get_ref(), now_nanos())?;
        Ok(Response::new(WriteRawResponse {}))
    }
}

fn key(build_id: &str, kind: i32) -> Key {
    Key {
        build_id: build_id.to_owned(),
        kind,
    }
}

#[tonic::async_trait]
impl DebuginfoService for Shared {
    async fn should_initiate_upload(
        &self,
        request: Request<ShouldInitiateUploadRequest>,
    ) -> Result<Response<ShouldInitiateUploadResponse>, Status> {
        let request = request.get_ref();
        let should = self.store().uploads.should(
            &key(&request.build_id, request.r#type),
            &request.hash,
            request.force,
            Instant::now(),
        )?;
        Ok(Response::new(ShouldInitiateUploadResponse {
            should_initiate_upload: should.upload,
            reason: should.reason.to_owned(),
        }))
    }

    async fn initiate_upload(
        &self,
        request: Request<InitiateUploadRequest>,
    ) -> Result<Response<InitiateUploadResponse>, Status> {
        let request = request.get_ref();
        let key = key(&request.build_id, request.r#type);
        let upload_id = self.store().uploads.initiate(
            &key,
            &request.hash,
            request.size,
            request.force,
            Instant::now(),
        )?;
        let (strategy, signed_url) = match &self.signed {
            None => (UploadStrategy::Grpc, String::new()),
            Some(signed) => (
                UploadStrategy::SignedUrl,
                signed.sign(&key, &upload_id, request.size),
            ),
        };
        Ok(Response::new(InitiateUploadResponse {
            upload_instructions: Some(UploadInstructions {
                build_id: request.build_id.clone(),
                upload_id,
                upload_strategy: strategy.into(),
                signed_url,
                r#type: request.r#type,
            }),
        }))
    }

    async fn upload(
        &self,
        request: Request<Streaming<UploadRequest>>,
    ) -> Result<Response<UploadResponse>, Status> {
        if self.signed.is_some() {
            return Err(Status::new(
                Code::Unimplemented,
                "signed URLs are the only way to upload here",
            ));
        }
        let mut stream = request.into_inner();
        let Some(Data::Info(info)) = stream.message().await?.and_then(|first| first.data) else {
            return Err(Status::new(
                Code::FailedPrecondition,
                "the first message is no info",
            ));
        };
        let key = key(&info.build_id, info.r#type);
        self.store().uploads.expected(&key, &info.upload_id)?;
        let max_size = self.store().uploads.rules.max_size;
        let mut bytes = Vec::new();
        while let Some(message) = stream.message().await? {
            match message.data {
                Some(Data::ChunkData(chunk)) => bytes.extend_from_slice(&chunk),
                _ => return Err(Status::new(Code::Internal, "a message without a chunk")),
            }
            if bytes.len() as u64 > max_size {
                return Err(Status::new(Code::InvalidArgument, "too many bytes"));
            }
        }
        let size = bytes.len() as u64;
        self.store().uploads.receive(&key, &info.upload_id, bytes)?;
        Ok(Response::new(UploadResponse {
            build_id: info.build_id,
            size,
        }))
    }

    async fn mark_upload_finished(
        &self,
        request: Request<MarkUploadFinishedRequest>,
    ) -> Result<Response<MarkUploadFinishedResponse>, Status> {
        let request = request.get_ref();
        self.store()
            .uploads
            .finish(&key(&request.build_id, request.r#type), &request.upload_id)?;
        Ok(Response::new(MarkUploadFinishedResponse {}))
    }
}

fn nanos(timestamp: Option<&Timestamp>) -> Option<i64> {
    let timestamp = timestamp?;
    timestamp
        .seconds
        .checked_mul(1_000_000_000)?
        .checked_add(i64::from(timestamp.nanos))
}

fn required(timestamp: Option<&Timestamp>) -> Result<i64, Status> {
    nanos(timestamp).ok_or_else(|| Status::invalid_argument("start, end or time is missing"))
}

fn span(start: Option<&Timestamp>, end: Option<&Timestamp>) -> Span {
    match (nanos(start), nanos(end)) {
        (Some(start), Some(end)) => Span { start, end },
        _ => Span::ALL,
    }
}

#[tonic::async_trait]
impl QueryService for Shared {
    async fn query(
        &self,
        request: Request<QueryRequest>,
    ) -> Result<Response<QueryResponse>, Status> {
        let request = request.get_ref();
        if request.report_type != i32::from(ReportType::Pprof) {
            return Err(Status::unimplemented("the stand-in answers in pprof only"));
        }
        let answer = match (&request.options, request.mode) {
            (Some(Options::Merge(merge)), mode) if mode == i32::from(Mode::Merge) => {
                let (start, end) = (
                    required(merge.start.as_ref())?,
                    required(merge.end.as_ref())?,
                );
                if start >= end {
                    return Err(Status::invalid_argument("the end is not after the start"));
                }
                self.store().merge(&merge.query, Span { start, end })?
            }
            (Some(Options::Single(single)), 0) => {
                let time = required(single.time.as_ref())?;
                self.store().single(&single.query, time)?
            }
            _ => return Err(Status::invalid_argument("options do not match the mode")),
        };
        Ok(Response::new(QueryResponse {
            report: Some(Report::Pprof(answer.finish().into())),
            total: 0,
            filtered: 0,
        }))
    }

    async fn profile_types(
        &self,
        request: Request<ProfileTypesRequest>,
    ) -> Result<Response<ProfileTypesResponse>, Status> {
        let request = request.get_ref();
        let types = self
            .store()
            .profile_types(span(request.start.as_ref(), request.end.as_ref()));
        let types = types.into_iter().map(|found| ProfileType {
            name: found.name,
            sample_type: found.sample_type,
            sample_unit: found.sample_unit,
            period_type: found.period_type,
            period_unit: found.period_unit,
            delta: found.delta,
        });
        Ok(Response::new(ProfileTypesResponse {
            types: types.collect(),
        }))
    }

    async fn labels(
        &self,
        request: Request<LabelsRequest>,
    ) -> Result<Response<LabelsResponse>, Status> {
        let request = request.get_ref();
        let names = self.store().labels(
            span(request.start.as_ref(), request.end.as_ref()),
            request.profile_type(),
        )?;
        Ok(Response::new(LabelsResponse {
            label_names: names.into_iter().collect(),
            warnings: Vec::new(),
        }))
    }

    async fn values(
        &self,
        request: Request<ValuesRequest>,
    ) -> Result<Response<ValuesResponse>, Status> {
        let request = request.get_ref();
        let values = self.store().values(
            &request.label_name,
            span(request.start.as_ref(), request.end.as_ref()),
            request.profile_type(),
        )?;
        Ok(Response::new(ValuesResponse {
            label_values: values.into_iter().collect(),
            warnings: Vec::new(),
        }))
    }
}
