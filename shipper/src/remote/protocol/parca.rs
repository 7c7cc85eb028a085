//! Parca's `WriteRaw`: one series for each label set, several profiles in each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use remote_store::generated::profilestore::profile_store_service_client::ProfileStoreServiceClient;
use remote_store::generated::profilestore::{
    Label, LabelSet, RawProfileSeries, RawSample, WriteRawRequest,
};
use remote_store::{CallError, RemoteStore};
use tonic::codec::CompressionEncoding;

use super::{Compression, Protocol, Sending};
use crate::remote::parcel::{self, Parcel};

/// A Parca server.
#[derive(Debug, Default)]
pub struct Parca {
    compression: Compression,
}

impl Protocol for Parca {
    fn send<'a>(
        &'a self,
        store: &'a RemoteStore,
        parcels: &'a [Arc<Parcel>],
        limit: Duration,
    ) -> Sending<'a> {
        Box::pin(async move {
            let compress = self.compression.is_on();
            let answer = write_raw(store, parcels, limit, compress).await;
            if compress && self.compression.refused(&answer) {
                return write_raw(store, parcels, limit, false).await;
            }
            answer
        })
    }
}

async fn write_raw(
    store: &RemoteStore,
    parcels: &[Arc<Parcel>],
    limit: Duration,
    compress: bool,
) -> Result<(), CallError> {
    let request = request(parcels, !compress);
    let call = move |wire, request| async move {
        let mut client = ProfileStoreServiceClient::new(wire);
        if compress {
            client = client
                .send_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Gzip);
        }
        client.write_raw(request).await
    };
    store
        .unary_once("WriteRaw", request, call, limit)
        .await
        .map(|_nothing| ())
}

/// The request; each profile compressed by itself where the whole is not.
fn request(parcels: &[Arc<Parcel>], gzip: bool) -> WriteRawRequest {
    let mut series: BTreeMap<&[parcel::Label], Vec<RawSample>> = BTreeMap::new();
    for one in parcels.iter().flat_map(|parcel| &parcel.series) {
        let raw_profile = match gzip {
            true => pprof::gzip(&one.profile).into(),
            false => one.profile.clone(),
        };
        // No `executable_info`: the addresses are the files' own already, which `normalized` tells old servers.
        series.entry(&one.labels).or_default().push(RawSample {
            raw_profile,
            executable_info: Vec::new(),
        });
    }
    let labels = |labels: &[parcel::Label]| LabelSet {
        labels: labels
            .iter()
            .map(|label| Label {
                name: label.name.clone(),
                value: label.value.clone(),
            })
            .collect(),
    };
    let series = series.into_iter().map(|(name, samples)| RawProfileSeries {
        labels: Some(labels(name)),
        samples,
    });
    WriteRawRequest {
        series: series.collect(),
        normalized: true,
        ..WriteRawRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::parcel::Series;

    #[test]
    fn a_label_set_has_one_series_however_many_windows_there_are() {
        let series = |comm: &str| Series {
            labels: vec![parcel::Label {
                name: "comm".to_owned(),
                value: comm.to_owned(),
            }],
            profile: vec![1].into(),
            samples: 1,
        };
        let parcel = |names: &[&str]| {
            Arc::new(Parcel {
                series: names.iter().map(|name| series(name)).collect(),
            })
        };
        let request = request(&[parcel(&["a", "b"]), parcel(&["a"])], false);
        let counts: Vec<usize> = request.series.iter().map(|one| one.samples.len()).collect();
        assert_eq!(counts, [2, 1]);
        assert!(request.normalized);
    }
}
