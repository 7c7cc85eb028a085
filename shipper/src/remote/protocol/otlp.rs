//! OTLP profiles (`opentelemetry.proto.profiles.v1development`): a resource for each label set, tables shared by the whole
//! request.

mod dictionary;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesServiceRequest, ExportProfilesServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::profiles::v1development::{
    Profile, ResourceProfiles, Sample, ScopeProfiles,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use remote_store::{CallError, RemoteStore, Wire};
use tonic::codec::CompressionEncoding;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::{Compression, Protocol, Sending};
use crate::remote::parcel::{Label, Parcel, Series};
use dictionary::{Dictionary, Ids};

const EXPORT: &str = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";

/// Whatever takes OTLP profiles.
#[derive(Debug, Default)]
pub struct Otlp {
    compression: Compression,
}

impl Protocol for Otlp {
    fn send<'a>(
        &'a self,
        store: &'a RemoteStore,
        parcels: &'a [Arc<Parcel>],
        limit: Duration,
    ) -> Sending<'a> {
        Box::pin(async move {
            let request = request(parcels);
            let compress = self.compression.is_on();
            let answer = send(store, request.clone(), limit, compress).await;
            if compress && self.compression.refused(&answer) {
                return send(store, request, limit, false).await;
            }
            answer
        })
    }
}

async fn send(
    store: &RemoteStore,
    request: ExportProfilesServiceRequest,
    limit: Duration,
    compress: bool,
) -> Result<(), CallError> {
    let call = move |wire, request| export(wire, request, compress);
    let response = store.unary_once("Export", request, call, limit).await?;
    match response.partial_success {
        // Sending them again would not help and would double the others.
        Some(partial) if partial.rejected_profiles > 0 => {
            let text: String = partial.error_message.chars().take(200).collect();
            log::warn!(
                "{} rejected {} profiles of a request: {text:?}",
                store.address(),
                partial.rejected_profiles
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn export(
    wire: Wire,
    request: Request<ExportProfilesServiceRequest>,
    compress: bool,
) -> Result<Response<ExportProfilesServiceResponse>, Status> {
    let mut client = tonic::client::Grpc::new(wire);
    if compress {
        client = client
            .send_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Gzip);
    }
    client
        .ready()
        .await
        .map_err(|error| Status::from_error(error.into()))?;
    let codec: ProstCodec<ExportProfilesServiceRequest, ExportProfilesServiceResponse> =
        ProstCodec::default();
    let path = PathAndQuery::from_static(EXPORT);
    client.unary(request, path, codec).await
}

fn request(parcels: &[Arc<Parcel>]) -> ExportProfilesServiceRequest {
    let mut dictionary = Dictionary::default();
    let series = parcels.iter().flat_map(|parcel| &parcel.series);
    let resource_profiles = series
        .filter_map(|series| resource_profiles(series, &mut dictionary))
        .collect();
    ExportProfilesServiceRequest {
        resource_profiles,
        dictionary: Some(dictionary.finish()),
    }
}

fn resource_profiles(series: &Series, dictionary: &mut Dictionary) -> Option<ResourceProfiles> {
    let profile = pprof::read(&series.profile).ok()?;
    let resource = Resource {
        attributes: series.labels.iter().filter_map(attribute).collect(),
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "leadsman".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    Some(ResourceProfiles {
        resource: Some(resource),
        scope_profiles: vec![ScopeProfiles {
            scope: Some(scope),
            profiles: vec![self::profile(&profile, dictionary)],
            schema_url: String::new(),
        }],
        schema_url: String::new(),
    })
}

/// Labels under the names of the semantic conventions, where these have one.
fn attribute(label: &Label) -> Option<KeyValue> {
    let key = match label.name.as_str() {
        "__name__" => return None,
        "node" => "host.name",
        "comm" => "process.executable.name",
        other => other,
    };
    Some(KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(label.value.clone())),
        }),
        ..KeyValue::default()
    })
}

fn profile(from: &pprof::Profile, dictionary: &mut Dictionary) -> Profile {
    let ids = Ids::of(from, dictionary);
    let text = |index: i64| {
        let found = usize::try_from(index)
            .ok()
            .and_then(|index| from.string_table.get(index));
        found.map_or("", String::as_str)
    };
    let samples = from.sample.iter().map(|sample| {
        let labels = sample.label.iter().map(|label| match text(label.key) {
            "thread_id" => ("thread.id", number(text(label.str))),
            "thread_name" => (
                "thread.name",
                Value::StringValue(text(label.str).to_owned()),
            ),
            other => (other, Value::StringValue(text(label.str).to_owned())),
        });
        let attributes = labels.map(|(key, value)| dictionary.attribute(key, value));
        let attribute_indices = attributes.collect();
        Sample {
            stack_index: dictionary.stack(ids.stack(&sample.location_id)),
            attribute_indices,
            values: sample.value.clone(),
            ..Sample::default()
        }
    });
    let samples = samples.collect();
    let sample_type = from.sample_type.first().copied().unwrap_or_default();
    let period_type = from.period_type.unwrap_or_default();
    let sample_type = dictionary.value_type(text(sample_type.r#type), text(sample_type.unit));
    let period_type = dictionary.value_type(text(period_type.r#type), text(period_type.unit));
    Profile {
        sample_type: Some(sample_type),
        samples,
        time_unix_nano: u64::try_from(from.time_nanos).unwrap_or(0),
        duration_nano: u64::try_from(from.duration_nanos).unwrap_or(0),
        period_type: Some(period_type),
        period: from.period,
        ..Profile::default()
    }
}

fn number(text: &str) -> Value {
    match text.parse() {
        Ok(number) => Value::IntValue(number),
        Err(_no_number) => Value::StringValue(text.to_owned()),
    }
}

#[cfg(test)]
mod tests;
