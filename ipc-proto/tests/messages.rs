//! Every message survives its encoding, and no bytes make a decoder panic or allocate beyond reason.
#![forbid(unsafe_code)]

use ipc_proto::codec::{Bytes, List, Reader, Wire};
use ipc_proto::debuginfo::{DebuginfoOffer, DebuginfoVerdict, OfferMessage, VerdictMessage};
use ipc_proto::header::{BODY_IN_MEMFD, HEADER_BYTES, Header, Message};
use ipc_proto::hello::Hello;
use ipc_proto::ids::{ExecutableId, ImageId, Pid, Tid, WindowId};
use ipc_proto::limits::MAX_CGROUPS;
use ipc_proto::opener::{
    OpenDebugFile, OpenExecutable, OpenMaps, OpenPerfMap, Opened, OpenerReply, OpenerRequest,
    Sampled,
};
use ipc_proto::sample::{
    CgroupPath, CountedStack, Drop, Executable, Frame, Image, ImageGone, Mapping, Mappings,
    NoTable, SampleBatch, SamplerMessage, Snapshot, Start, SymbolizerMessage, Table, Taken,
    WindowEnd,
};
use ipc_proto::settings::{Settings, SettingsMessage};
use ipc_proto::statistics::{Bucket, Label, Metric, Statistics, StatisticsMessage};
use ipc_proto::symbolized::{
    Line, Location, ShipperMessage, SymbolizedBatch, SymbolizedExecutable, SymbolizedMapping,
    SymbolizedMessage, SymbolizedProcess, SymbolizedSample,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn bytes<const MAX: usize>() -> impl Strategy<Value = Bytes<MAX>> {
    vec(any::<u8>(), 0..=MAX.min(40)).prop_map(Bytes)
}

fn list<T: std::fmt::Debug, const MAX: usize>(
    of: impl Strategy<Value = T>,
) -> impl Strategy<Value = List<T, MAX>> {
    vec(of, 0..=MAX.min(5)).prop_map(List)
}

/// Strategies for structs of wire types, field by field.
macro_rules! fields {
    ($name:ident { $($field:ident: $strategy:expr),* $(,)? }) => {
        ($($strategy,)*).prop_map(|($($field,)*)| $name { $($field,)* })
    };
}

fn number() -> impl Strategy<Value = u64> {
    any::<u64>()
}

fn pid() -> impl Strategy<Value = Pid> {
    any::<u32>().prop_map(Pid)
}

fn tid() -> impl Strategy<Value = Tid> {
    any::<u32>().prop_map(Tid)
}

fn image_id() -> impl Strategy<Value = ImageId> {
    number().prop_map(ImageId)
}

fn executable_id() -> impl Strategy<Value = ExecutableId> {
    any::<u32>().prop_map(ExecutableId)
}

fn window() -> impl Strategy<Value = WindowId> {
    number().prop_map(WindowId)
}

fn drops<const MAX: usize>() -> impl Strategy<Value = List<Drop, MAX>> {
    list(fields!(Drop {
        cause: bytes(),
        samples: number()
    }))
}

fn frame() -> impl Strategy<Value = Frame> {
    fields!(Frame {
        mapping: any::<u32>(),
        address: number()
    })
}

fn mapping() -> impl Strategy<Value = Mapping> {
    fields!(Mapping {
        start: number(),
        end: number(),
        file_offset: number(),
        backing: any::<u8>(),
        executable: executable_id(),
    })
}

fn stack() -> impl Strategy<Value = CountedStack> {
    fields!(CountedStack {
        image: image_id(),
        tid: tid(),
        thread_name: bytes(),
        cgroup: number(),
        count: number(),
        stop: any::<u8>(),
        kernel: list(number()),
        user: list(frame()),
    })
}

fn executable() -> impl Strategy<Value = Executable> {
    fields!(Executable {
        id: executable_id(),
        build_id: bytes(),
        device: number(),
        inode: number(),
        path: bytes(),
        pid: pid(),
        start_time: number(),
        mapping_start: number(),
        mapping_end: number(),
        table_wanted: any::<bool>(),
    })
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let place = (window(), image_id(), tid(), bytes(), number());
    let walk = (
        any::<u8>(),
        list(number()),
        list(number()),
        any::<bool>(),
        bytes(),
        number(),
        bytes(),
    );
    (place, walk).prop_map(|(place, walk)| {
        let (window, image, tid, thread_name, cgroup) = place;
        let (stop, kernel, registers, pc_is_exact, stack, further_start, further) = walk;
        Snapshot {
            window,
            image,
            tid,
            thread_name,
            cgroup,
            stop,
            kernel,
            registers,
            pc_is_exact,
            stack,
            further_start,
            further,
        }
    })
}

fn cgroups() -> impl Strategy<Value = List<CgroupPath, MAX_CGROUPS>> {
    list(fields!(CgroupPath {
        id: number(),
        path: bytes()
    }))
}

fn sampler_message() -> impl Strategy<Value = SamplerMessage> {
    let start = fields!(Start {
        frequency: any::<u32>(),
        clock_offset: any::<i64>(),
        vdso: bytes(),
        kernel_release: bytes(),
        kernel_build_id: bytes(),
    });
    let image = fields!(Image {
        id: image_id(),
        pid: pid(),
        start_time: number(),
        comm: bytes(),
        parent: pid(),
    });
    let mappings = fields!(Mappings {
        image: image_id(),
        first: any::<u32>(),
        mappings: list(mapping()),
    });
    let end = fields!(WindowEnd {
        window: window(),
        start: number(),
        duration: number(),
        frequency: any::<u32>(),
        samples: number(),
        drops: drops(),
        cgroups: cgroups(),
        last: any::<bool>(),
    });
    prop_oneof![
        start.prop_map(SamplerMessage::Start),
        image.prop_map(SamplerMessage::Image),
        mappings.prop_map(SamplerMessage::Mappings),
        executable().prop_map(SamplerMessage::Executable),
        fields!(SampleBatch {
            window: window(),
            stacks: list(stack())
        })
        .prop_map(SamplerMessage::Batch),
        snapshot().prop_map(SamplerMessage::Snapshot),
        end.prop_map(SamplerMessage::WindowEnd),
        fields!(ImageGone { image: image_id() }).prop_map(SamplerMessage::ImageGone),
    ]
}

fn taken() -> impl Strategy<Value = Taken> {
    fields!(Taken {
        window: window(),
        samples: number()
    })
}

fn symbolizer_message() -> impl Strategy<Value = SymbolizerMessage> {
    let table = fields!(Table {
        executable: executable_id(),
        bytes: number(),
        build_id: bytes(),
    });
    let none = fields!(NoTable {
        executable: executable_id(),
        retry: any::<bool>()
    });
    prop_oneof![
        table.prop_map(SymbolizerMessage::Table),
        none.prop_map(SymbolizerMessage::NoTable),
        taken().prop_map(SymbolizerMessage::Taken),
    ]
}

fn opener_request() -> impl Strategy<Value = OpenerRequest> {
    let sampled = fields!(Sampled {
        pid: pid(),
        start_time: number(),
        path: bytes()
    });
    let maps = fields!(OpenMaps {
        request: number(),
        pid: pid(),
        start_time: number()
    });
    let perf_map = fields!(OpenPerfMap {
        request: number(),
        pid: pid(),
        start_time: number()
    });
    let executable = fields!(OpenExecutable {
        request: number(),
        pid: pid(),
        start_time: number(),
        mapping_start: number(),
        mapping_end: number(),
        path: bytes(),
    });
    let debug = fields!(OpenDebugFile {
        request: number(),
        pid: pid(),
        start_time: number(),
        path: bytes(),
        build_id: bytes(),
        name: bytes(),
    });
    prop_oneof![
        sampled.prop_map(OpenerRequest::Sampled),
        maps.prop_map(OpenerRequest::OpenMaps),
        executable.prop_map(OpenerRequest::OpenExecutable),
        perf_map.prop_map(OpenerRequest::OpenPerfMap),
        debug.prop_map(OpenerRequest::OpenDebugFile),
    ]
}

fn opener_reply() -> impl Strategy<Value = OpenerReply> {
    fields!(Opened {
        request: number(),
        status: any::<u8>(),
        device: number(),
        inode: number(),
        size: number(),
        modified: number(),
    })
    .prop_map(OpenerReply::Opened)
}

fn symbolized_message() -> impl Strategy<Value = SymbolizedMessage> {
    let index = any::<u32>;
    let mapping = fields!(SymbolizedMapping {
        start: number(),
        end: number(),
        file_offset: number(),
        file: index(),
        build_id: bytes(),
    });
    let line = fields!(Line {
        function: index(),
        system_name: index(),
        file: index(),
        line: index(),
    });
    let location = fields!(Location {
        kind: any::<u8>(),
        mapping: index(),
        address: number(),
        elf_address: number(),
        lines: list(line),
        reason: index(),
    });
    let process = fields!(SymbolizedProcess {
        pid: pid(),
        start_time: number(),
        parent: pid(),
        comm: index(),
        executable: index(),
        facts: index(),
        runtime: index(),
        runtime_version: index(),
    });
    let executable = fields!(SymbolizedExecutable {
        file_id: any::<[u8; 16]>(),
        compiler: index(),
        is_static: any::<bool>(),
        is_stripped: any::<bool>(),
    });
    let sample = fields!(SymbolizedSample {
        process: index(),
        tid: tid(),
        thread_name: index(),
        cgroup: number(),
        count: number(),
        stop: any::<u8>(),
        locations: list(index()),
    });
    let head = (window(), number(), number(), index(), drops());
    let tables = (
        list(bytes()),
        list(mapping),
        list(location),
        list(executable),
        cgroups(),
        list(process),
        list(sample),
    );
    (head, tables, any::<bool>()).prop_map(|(head, tables, last)| {
        let (window, start, duration, frequency, drops) = head;
        let (strings, mappings, locations, executables, cgroups, processes, samples) = tables;
        SymbolizedMessage::Batch(SymbolizedBatch {
            window,
            start,
            duration,
            frequency,
            drops,
            strings,
            mappings,
            locations,
            executables,
            cgroups,
            processes,
            samples,
            last,
        })
    })
}

fn statistics_message() -> impl Strategy<Value = StatisticsMessage> {
    let label = fields!(Label {
        name: bytes(),
        value: bytes()
    });
    let metric = fields!(Metric {
        name: bytes(),
        help: bytes(),
        counter: any::<bool>(),
        labels: list(label),
        value: -1e300..1e300,
        buckets: list(fields!(Bucket {
            bound: -1e300..1e300,
            count: any::<u64>()
        })),
    });
    fields!(Statistics {
        metrics: list(metric),
        last: any::<bool>()
    })
    .prop_map(StatisticsMessage::Statistics)
}

fn survives<M: Message + PartialEq + std::fmt::Debug>(message: &M) -> Result<(), TestCaseError> {
    let body = message.encode_body();
    let decoded = M::decode_body(message.number(), &body);
    prop_assert_eq!(decoded.as_ref(), Ok(message));
    // Neither a byte less nor one more is the same message.
    if let Some((_, shorter)) = body.split_last() {
        prop_assert!(M::decode_body(message.number(), shorter).is_err());
    }
    let longer = [body.as_slice(), &[0]].concat();
    prop_assert!(M::decode_body(message.number(), &longer).is_err());
    Ok(())
}

proptest! {
    #[test]
    fn sampler_messages_survive(message in sampler_message()) {
        survives(&message)?;
    }

    #[test]
    fn symbolizer_messages_survive(message in symbolizer_message()) {
        survives(&message)?;
    }

    #[test]
    fn opener_messages_survive(request in opener_request(), reply in opener_reply()) {
        survives(&request)?;
        survives(&reply)?;
    }

    #[test]
    fn symbolized_messages_survive(message in symbolized_message(), taken in taken()) {
        survives(&message)?;
        survives(&ShipperMessage::Taken(taken))?;
    }

    #[test]
    fn debuginfo_messages_survive(
        offer in fields!(DebuginfoOffer { build_id: bytes(), path: bytes(), size: number(), debug_size: number() }),
        verdict in fields!(DebuginfoVerdict { build_id: bytes(), verdict: any::<u8>() }),
    ) {
        survives(&OfferMessage::Offer(offer))?;
        survives(&VerdictMessage::Verdict(verdict))?;
    }

    #[test]
    fn statistics_survive(message in statistics_message()) {
        survives(&message)?;
    }

    #[test]
    fn settings_survive(
        settings in fields!(Settings { frequency: any::<u32>(), log_level: any::<u8>() }),
    ) {
        survives(&SettingsMessage::Settings(settings))?;
    }

    #[test]
    fn hello_and_header_survive(
        hello in fields!(Hello { version: any::<u32>(), role: any::<u8>() }),
        (number, memfd, body, sequence) in any::<(u16, bool, u32, u32)>(),
    ) {
        prop_assert_eq!(Hello::from_bytes(&hello.to_bytes()), Ok(hello));
        let flags = if memfd { BODY_IN_MEMFD } else { 0 };
        let header = Header { number, flags, body, sequence };
        let bytes = header.to_bytes();
        prop_assert_eq!(bytes.len(), HEADER_BYTES);
        prop_assert_eq!(Header::from_bytes(&bytes), Ok(header));
    }

    /// Returns or refuses; never panics. What it returns, it would write the same.
    #[test]
    fn foreign_bytes_are_decoded_or_refused(number in 0..12u16, body in vec(any::<u8>(), 0..300)) {
        fn try_one<M: Message>(number: u16, body: &[u8]) {
            if let Ok(message) = M::decode_body(number, body) {
                assert_eq!(message.encode_body(), body);
            }
        }
        try_one::<SamplerMessage>(number, &body);
        try_one::<SymbolizerMessage>(number, &body);
        try_one::<OpenerRequest>(number, &body);
        try_one::<OpenerReply>(number, &body);
        try_one::<SymbolizedMessage>(number, &body);
        try_one::<ShipperMessage>(number, &body);
        try_one::<OfferMessage>(number, &body);
        try_one::<VerdictMessage>(number, &body);
        try_one::<StatisticsMessage>(number, &body);
        let _either = Header::decode(&mut Reader::new(&body));
    }

    /// A message with a byte changed is another message or none.
    #[test]
    fn damaged_messages_are_decoded_or_refused(
        message in sampler_message(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut body = message.encode_body();
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Ok(other) = SamplerMessage::decode_body(message.number(), &body) {
            prop_assert_eq!(other.encode_body(), body);
        }
    }
}

#[test]
fn announced_lengths_do_not_make_us_allocate() {
    // Two strings of 4 GiB announced in eight bytes.
    let body = [0xff; 8];
    assert!(SymbolizedMessage::decode_body(1, &body).is_err());
    let many = u32::MAX.to_le_bytes();
    assert!(List::<u64, 4>::from_bytes(&many).is_err());
    assert!(Bytes::<4>::from_bytes(&many).is_err());
}
