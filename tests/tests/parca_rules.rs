//! A server's rules, asked directly: what is refused, how an upload goes, which addresses find their names. The stand-in must
//! answer as a real server does, or what it judges means nothing: `cargo xtask test --parca-address=HOST:PORT` runs these
//! questions against one.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use leadsman_tests::generated::debuginfo::debuginfo_service_client::DebuginfoServiceClient;
use leadsman_tests::generated::debuginfo::upload_request::Data;
use leadsman_tests::generated::debuginfo::{
    InitiateUploadRequest, MarkUploadFinishedRequest, ShouldInitiateUploadRequest, UploadInfo,
    UploadRequest,
};
use leadsman_tests::generated::pprof::{
    Function, Line, Location, Mapping, Profile, Sample, ValueType,
};
use leadsman_tests::generated::profilestore::profile_store_service_client::ProfileStoreServiceClient;
use leadsman_tests::generated::profilestore::{
    ExecutableInfo, Label, LabelSet, RawProfileSeries, RawSample, WriteRawRequest,
};
use leadsman_tests::parca::client::now_nanos;
use leadsman_tests::parca::{CPU, Server};
use leadsman_tests::places::{HostLine, Places, base_name, function_starts, host_lines};
use prost::Message as _;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Channel;
use tonic::{Code, Status};

const SECOND: i64 = 1_000_000_000;

/// A server and both of its writing sides.
struct Writer {
    server: Server,
    runtime: Runtime,
    profiles: ProfileStoreServiceClient<Channel>,
    debuginfo: DebuginfoServiceClient<Channel>,
    /// A label value and build IDs that nobody else uses.
    run: String,
}

impl Writer {
    fn new() -> Result<Self> {
        let server = Server::under_test()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let channel = runtime
            .block_on(Channel::from_shared(format!("http://{}", server.address()))?.connect())?;
        Ok(Self {
            server,
            runtime,
            profiles: ProfileStoreServiceClient::new(channel.clone()),
            debuginfo: DebuginfoServiceClient::new(channel),
            run: format!("{:x}", now_nanos()),
        })
    }

    fn series(&self, profile: &Profile) -> RawProfileSeries {
        let label = |name: &str, value: &str| Label {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        RawProfileSeries {
            labels: Some(LabelSet {
                labels: vec![
                    label("__name__", "parca_agent_cpu"),
                    label("node", "rules"),
                    label("comm", &self.run),
                ],
            }),
            samples: vec![RawSample {
                raw_profile: profile.encode_to_vec().into(),
                executable_info: Vec::new(),
            }],
        }
    }

    fn write(&mut self, series: Vec<RawProfileSeries>) -> Result<(), Status> {
        let request = WriteRawRequest {
            tenant: String::new(),
            series,
            normalized: true,
        };
        self.runtime
            .block_on(self.profiles.write_raw(request))
            .map(|_| ())
    }

    fn upload(&mut self, build_id: &str, bytes: &[u8]) -> Result<(), Status> {
        let initiated = self
            .runtime
            .block_on(
                self.debuginfo
                    .initiate_upload(initiation(build_id, bytes.len())),
            )?
            .into_inner();
        let upload_id = initiated.upload_instructions.unwrap_or_default().upload_id;
        self.stream(build_id, &upload_id, bytes)?;
        self.runtime
            .block_on(
                self.debuginfo
                    .mark_upload_finished(finish(build_id, &upload_id)),
            )
            .map(|_| ())
    }

    fn stream(&mut self, build_id: &str, upload_id: &str, bytes: &[u8]) -> Result<u64, Status> {
        let info = Data::Info(UploadInfo {
            build_id: build_id.to_owned(),
            upload_id: upload_id.to_owned(),
            r#type: 0,
        });
        let chunks = bytes
            .chunks(64 * 1024)
            .map(|chunk| Data::ChunkData(Bytes::copy_from_slice(chunk)));
        let messages: Vec<UploadRequest> = std::iter::once(info)
            .chain(chunks)
            .map(|data| UploadRequest { data: Some(data) })
            .collect();
        let stream = futures_of(messages);
        let answer = self.runtime.block_on(self.debuginfo.upload(stream))?;
        Ok(answer.into_inner().size)
    }

    fn should(&mut self, build_id: &str) -> Result<bool, Status> {
        let request = ShouldInitiateUploadRequest {
            build_id: build_id.to_owned(),
            ..ShouldInitiateUploadRequest::default()
        };
        let answer = self
            .runtime
            .block_on(self.debuginfo.should_initiate_upload(request))?;
        Ok(answer.into_inner().should_initiate_upload)
    }
}

fn futures_of(
    messages: Vec<UploadRequest>,
) -> impl tonic::IntoStreamingRequest<Message = UploadRequest> {
    tokio_stream::iter(messages)
}

fn initiation(build_id: &str, size: usize) -> InitiateUploadRequest {
    InitiateUploadRequest {
        build_id: build_id.to_owned(),
        size: size as i64,
        hash: "0123456789abcdef".to_owned(),
        ..InitiateUploadRequest::default()
    }
}

fn finish(build_id: &str, upload_id: &str) -> MarkUploadFinishedRequest {
    MarkUploadFinishedRequest {
        build_id: build_id.to_owned(),
        upload_id: upload_id.to_owned(),
        r#type: 0,
    }
}

/// One sample for each address of one file, the way Leadsman sends them.
fn profile(file: &str, build_id: &str, addresses: &BTreeSet<u64>) -> Profile {
    let strings = ["", "samples", "count", "cpu", "nanoseconds", file, build_id];
    Profile {
        sample_type: vec![ValueType { r#type: 1, unit: 2 }],
        period_type: Some(ValueType { r#type: 3, unit: 4 }),
        period: SECOND / 100,
        time_nanos: now_nanos(),
        duration_nanos: SECOND,
        string_table: strings.iter().map(|text| (*text).to_owned()).collect(),
        mapping: vec![Mapping {
            id: 1,
            filename: 5,
            build_id: 6,
            ..Mapping::default()
        }],
        location: (1..)
            .zip(addresses)
            .map(|(id, address)| Location {
                id,
                mapping_id: 1,
                address: *address,
                ..Location::default()
            })
            .collect(),
        sample: (1..=addresses.len() as u64)
            .map(|id| Sample {
                location_id: vec![id],
                value: vec![1],
                label: Vec::new(),
            })
            .collect(),
        ..Profile::default()
    }
}

#[test]
fn profiles_that_break_a_rule_are_refused() -> Result<()> {
    let mut writer = Writer::new()?;
    let good = profile("/bin/x", "abcdef", &BTreeSet::from([0x1000]));
    writer.write(vec![writer.series(&good)])?;
    writer.write(Vec::new())?;
    let changed = |change: &dyn Fn(&mut Profile)| {
        let mut profile = good.clone();
        change(&mut profile);
        profile
    };
    let bad = [
        changed(&|profile| profile.string_table[0] = "x".to_owned()),
        changed(&|profile| profile.mapping[0].id = 2),
        changed(&|profile| profile.location[0].id = 7),
        changed(&|profile| profile.location[0].mapping_id = 9),
        changed(&|profile| profile.sample[0].location_id = vec![9]),
        changed(&|profile| profile.sample[0].location_id = vec![0]),
        changed(&|profile| profile.sample[0].value = vec![1, 2]),
        changed(&|profile| profile.mapping[0].build_id = 99),
        changed(&|profile| {
            profile.function.push(Function {
                id: 3,
                ..Function::default()
            });
        }),
        changed(&|profile| {
            profile.location[0].line.push(Line {
                function_id: 4,
                line: 1,
            });
        }),
        changed(&|profile| profile.sample_type.clear()),
    ];
    for profile in &bad {
        let refused = writer.write(vec![writer.series(profile)]);
        ensure!(
            code(&refused) == Some(Code::InvalidArgument),
            "{refused:?} to {profile:?}"
        );
    }
    let mut junk = writer.series(&good);
    junk.samples[0].raw_profile = Bytes::from_static(b"\xff\xff\xff\xff\xff");
    let mut nameless = writer.series(&good);
    nameless.labels.as_mut().context("labels")?.labels.remove(0);
    let mut twice = writer.series(&good);
    let labels = &mut twice.labels.as_mut().context("labels")?.labels;
    labels.push(labels[1].clone());
    let mut infos = writer.series(&good);
    infos.samples[0].executable_info = vec![ExecutableInfo::default(); 2];
    for series in [junk, nameless, twice, infos] {
        let refused = writer.write(vec![series]);
        ensure!(code(&refused) == Some(Code::InvalidArgument), "{refused:?}");
    }
    Ok(())
}

fn code<T>(result: &Result<T, Status>) -> Option<Code> {
    result.as_ref().err().map(Status::code)
}

#[test]
fn an_upload_goes_one_way_only() -> Result<()> {
    let mut writer = Writer::new()?;
    let id = format!("aa{}", writer.run);
    ensure!(code(&writer.should("ab")) == Some(Code::InvalidArgument));
    ensure!(writer.should(&id)?);
    for wrong in [
        InitiateUploadRequest {
            hash: String::new(),
            ..initiation(&id, 3)
        },
        initiation(&id, 0),
    ] {
        let refused = writer
            .runtime
            .block_on(writer.debuginfo.initiate_upload(wrong));
        ensure!(code(&refused) == Some(Code::InvalidArgument), "{refused:?}");
    }
    let early = writer.stream(&id, "none", b"abc");
    ensure!(code(&early) == Some(Code::FailedPrecondition), "{early:?}");
    let early = writer
        .runtime
        .block_on(writer.debuginfo.mark_upload_finished(finish(&id, "none")));
    ensure!(code(&early) == Some(Code::Internal), "{early:?}");
    let initiated = writer
        .runtime
        .block_on(writer.debuginfo.initiate_upload(initiation(&id, 3)))?;
    let upload_id = initiated
        .into_inner()
        .upload_instructions
        .context("instructions")?
        .upload_id;
    // Under way: nobody else may.
    ensure!(!writer.should(&id)?);
    let second = writer
        .runtime
        .block_on(writer.debuginfo.initiate_upload(initiation(&id, 3)));
    ensure!(
        code(&second) == Some(Code::FailedPrecondition),
        "{second:?}"
    );
    let other = writer.stream(&id, "other", b"abc");
    ensure!(code(&other) == Some(Code::InvalidArgument), "{other:?}");
    // An upload that broke may be sent again under its ID.
    for _ in 0..2 {
        ensure!(writer.stream(&id, &upload_id, b"abc")? == 3);
    }
    writer.runtime.block_on(
        writer
            .debuginfo
            .mark_upload_finished(finish(&id, &upload_id)),
    )?;
    ensure!(!writer.should(&id)?);
    Ok(())
}

#[test]
fn addresses_of_the_file_find_their_names() -> Result<()> {
    // First: the connection does not move while this thread waits for compilers, and servers end those that say nothing.
    let places = Places::build()?;
    let mut writer = Writer::new()?;
    for program in &places.programs {
        let code = &program.code[0];
        let starts = function_starts(&code.named)?;
        let addresses: BTreeSet<u64> = starts
            .iter()
            .filter(|(name, _)| code.functions.contains(&name.as_str()))
            .flat_map(|(_, addresses)| addresses)
            .copied()
            .collect();
        // Rust's start code has a `main` of its own, of which debug information says nothing.
        let addresses: BTreeSet<u64> = host_lines(code, &addresses)?
            .into_iter()
            .filter(|(_, lines)| {
                let has_file = |line: &HostLine| !line.file.starts_with('?');
                code.has_names_only || lines.iter().all(has_file)
            })
            .map(|(address, _)| address)
            .collect();
        ensure!(addresses.len() >= 2, "{}: {addresses:?}", program.name);
        let build_id = format!("bb{}{}", writer.run, program.name);
        // What lost its symbols is useless: the file that has them is sent.
        let bytes = std::fs::read(&code.named)?;
        let profile = profile(program.name, &build_id, &addresses);
        writer.write(vec![writer.series(&profile)])?;
        writer.upload(&build_id, &bytes)?;
        let query = format!("{CPU}{{comm=\"{}\"}}", writer.run);
        let mut client = writer.server.client()?;
        let answer = client.merge(&query, profile.time_nanos - SECOND, now_nanos())?;
        let mut named = 0;
        for place in answer.samples.iter().flat_map(|sample| &sample.stack) {
            if place
                .mapping
                .as_ref()
                .is_none_or(|mapping| mapping.build_id != build_id)
            {
                continue;
            }
            let expected = starts
                .iter()
                .find(|(_, addresses)| addresses.contains(&place.address))
                .map(|(name, _)| name.as_str());
            let outermost = place
                .lines
                .first()
                .with_context(|| format!("{}: {place:?} has no name", program.name))?;
            ensure!(
                Some(base_name(&outermost.function)) == expected,
                "{}: {place:?} is {expected:?}",
                program.name
            );
            // Parca v0.28 finds no line of what the compiler put before other functions.
            ensure!(
                outermost.line > 0
                    || code.has_names_only
                    || (expected == Some("main") && writer.server.stand_in().is_none()),
                "{place:?}"
            );
            named += 1;
        }
        ensure!(named == addresses.len(), "{}: {named} named", program.name);
    }
    Ok(())
}
