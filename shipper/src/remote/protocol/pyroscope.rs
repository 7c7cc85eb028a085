//! Pyroscope's push API. It takes a profile's type and unit from the pprof, its name from the label `__name__`, and shows
//! profiles by `service_name`.

use std::sync::Arc;
use std::time::Duration;

use remote_store::generated::pyroscope::pusher_service_client::PusherServiceClient;
use remote_store::generated::pyroscope::{LabelPair, PushRequest, RawProfileSeries, RawSample};
use remote_store::{CallError, RemoteStore};
use tonic::codec::CompressionEncoding;

use super::{Compression, Protocol, Sending};
use crate::remote::parcel::{Label, Parcel};

/// The type under which Pyroscope's page lists CPU profiles.
const NAME: &str = "process_cpu";

/// A Pyroscope server.
#[derive(Debug, Default)]
pub struct Pyroscope {
    compression: Compression,
}

impl Protocol for Pyroscope {
    fn send<'a>(
        &'a self,
        store: &'a RemoteStore,
        parcels: &'a [Arc<Parcel>],
        limit: Duration,
    ) -> Sending<'a> {
        Box::pin(async move {
            let compress = self.compression.is_on();
            let answer = push(store, parcels, limit, compress).await;
            if compress && self.compression.refused(&answer) {
                return push(store, parcels, limit, false).await;
            }
            answer
        })
    }
}

async fn push(
    store: &RemoteStore,
    parcels: &[Arc<Parcel>],
    limit: Duration,
    compress: bool,
) -> Result<(), CallError> {
    let call = move |wire, request| async move {
        let mut client = PusherServiceClient::new(wire);
        if compress {
            client = client
                .send_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Gzip);
        }
        client.push(request).await
    };
    store
        .unary_once("Push", request(parcels), call, limit)
        .await
        .map(|_nothing| ())
}

fn request(parcels: &[Arc<Parcel>]) -> PushRequest {
    let all = parcels.iter().flat_map(|parcel| &parcel.series);
    let series = all.map(|one| RawProfileSeries {
        labels: labels(&one.labels),
        samples: vec![RawSample {
            // Its reader wants gzip.
            raw_profile: pprof::gzip(&one.profile).into(),
            id: String::new(),
        }],
    });
    PushRequest {
        series: series.collect(),
    }
}

fn labels(labels: &[Label]) -> Vec<LabelPair> {
    let pair = |name: &str, value: &str| LabelPair {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let mut pairs: Vec<LabelPair> = labels
        .iter()
        .map(|label| match label.name.as_str() {
            "__name__" => pair("__name__", NAME),
            name => pair(name, &label.value),
        })
        .collect();
    let comm = labels.iter().find(|label| label.name == "comm");
    if let Some(comm) = comm
        && !labels.iter().any(|label| label.name == "service_name")
    {
        pairs.push(pair("service_name", &comm.value));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_that_its_page_shows() {
        let label = |name: &str, value: &str| Label {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let own = [label("__name__", "parca_agent_cpu"), label("comm", "nginx")];
        let texts = |pairs: Vec<LabelPair>| -> Vec<String> {
            let text = |pair: LabelPair| format!("{}={}", pair.name, pair.value);
            pairs.into_iter().map(text).collect()
        };
        assert_eq!(
            texts(labels(&own)),
            ["__name__=process_cpu", "comm=nginx", "service_name=nginx"]
        );
        let named = [label("comm", "nginx"), label("service_name", "web")];
        assert_eq!(texts(labels(&named)), ["comm=nginx", "service_name=web"]);
    }
}
