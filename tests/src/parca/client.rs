//! Asks any Parca server, the stand-in or a real one, over its public calls.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use prost::Message as _;
use prost_types::Timestamp;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Channel;

use super::ingest::{self, StoredSample};
use super::selector::ProfileType;
use crate::generated::query::query_request::{Mode, Options, ReportType};
use crate::generated::query::query_response::Report;
use crate::generated::query::query_service_client::QueryServiceClient;
use crate::generated::query::{
    LabelsRequest, MergeProfile, ProfileTypesRequest, QueryRequest, SingleProfile, ValuesRequest,
};

/// Type and unit of Leadsman's profiles, as questions name them.
pub const CPU: &str = "parca_agent_cpu:samples:count:cpu:nanoseconds:delta";

/// An answered profile.
#[derive(Debug, Clone, Default)]
pub struct Answered {
    /// What the values are and their unit.
    pub sample_type: (String, String),
    pub samples: Vec<StoredSample>,
}

impl Answered {
    /// The sum of all values.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.samples.iter().map(|sample| sample.value).sum()
    }
}

/// A connection to a server's questions.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    queries: QueryServiceClient<Channel>,
}

fn timestamp(nanos: i64) -> Timestamp {
    Timestamp {
        seconds: nanos.div_euclid(1_000_000_000),
        nanos: nanos.rem_euclid(1_000_000_000) as i32,
    }
}

/// Nanoseconds since 1970.
#[must_use]
pub fn now_nanos() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        })
}

impl Client {
    /// Connects lazily, in plaintext.
    pub fn new(address: &str) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let endpoint = Channel::from_shared(format!("http://{address}"))
            .with_context(|| format!("{address:?} is no HOST:PORT"))?
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(60));
        let channel = {
            let _inside = runtime.enter();
            endpoint.connect_lazy()
        };
        Ok(Self {
            runtime,
            queries: QueryServiceClient::new(channel.clone()).max_decoding_message_size(256 << 20),
        })
    }

    /// Types of the profiles in a span of time.
    pub fn profile_types(&mut self, start: i64, end: i64) -> Result<Vec<ProfileType>> {
        let request = ProfileTypesRequest {
            start: Some(timestamp(start)),
            end: Some(timestamp(end)),
        };
        let answer = self.runtime.block_on(self.queries.profile_types(request))?;
        let types = answer.into_inner().types;
        Ok(types
            .into_iter()
            .map(|found| ProfileType {
                name: found.name,
                sample_type: found.sample_type,
                sample_unit: found.sample_unit,
                period_type: found.period_type,
                period_unit: found.period_unit,
                delta: found.delta,
            })
            .collect())
    }

    /// Label names in a span of time.
    pub fn labels(&mut self, start: i64, end: i64) -> Result<Vec<String>> {
        let request = LabelsRequest {
            r#match: Vec::new(),
            start: Some(timestamp(start)),
            end: Some(timestamp(end)),
            profile_type: Some(CPU.to_owned()),
        };
        let answer = self.runtime.block_on(self.queries.labels(request))?;
        Ok(answer.into_inner().label_names)
    }

    /// Values of a label in a span of time.
    pub fn values(&mut self, label: &str, start: i64, end: i64) -> Result<Vec<String>> {
        let request = ValuesRequest {
            label_name: label.to_owned(),
            r#match: Vec::new(),
            start: Some(timestamp(start)),
            end: Some(timestamp(end)),
            profile_type: Some(CPU.to_owned()),
        };
        let answer = self.runtime.block_on(self.queries.values(request))?;
        Ok(answer.into_inner().label_values)
    }

    /// All profiles of a span in one.
    pub fn merge(&mut self, query: &str, start: i64, end: i64) -> Result<Answered> {
        self.ask(QueryRequest {
            mode: Mode::Merge.into(),
            options: Some(Options::Merge(MergeProfile {
                query: query.to_owned(),
                start: Some(timestamp(start)),
                end: Some(timestamp(end)),
            })),
            report_type: ReportType::Pprof.into(),
        })
    }

    /// The profile of one instant.
    pub fn single(&mut self, query: &str, time: i64) -> Result<Answered> {
        self.ask(QueryRequest {
            mode: Mode::SingleUnspecified.into(),
            options: Some(Options::Single(SingleProfile {
                time: Some(timestamp(time)),
                query: query.to_owned(),
            })),
            report_type: ReportType::Pprof.into(),
        })
    }

    fn ask(&mut self, request: QueryRequest) -> Result<Answered> {
        let answer = self.runtime.block_on(self.queries.query(request))?;
        let Some(Report::Pprof(bytes)) = answer.into_inner().report else {
            bail!("the answer is no pprof");
        };
        let profile = ingest::plain(&bytes)
            .and_then(|plain| Ok(crate::generated::pprof::Profile::decode(plain.as_slice())?))
            .context("the answer's pprof cannot be read")?;
        answered(&profile)
    }
}

fn answered(profile: &crate::generated::pprof::Profile) -> Result<Answered> {
    let sample_type = profile.sample_type.first().context("no sample type")?;
    let text = |index: i64| {
        usize::try_from(index)
            .ok()
            .and_then(|index| profile.string_table.get(index))
            .cloned()
            .unwrap_or_default()
    };
    Ok(Answered {
        sample_type: (text(sample_type.r#type), text(sample_type.unit)),
        samples: ingest::samples(profile, 0),
    })
}
