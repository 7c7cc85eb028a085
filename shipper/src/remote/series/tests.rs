//! Windows become profiles that every Parca server reads alike.

use ipc_proto::codec::{Bytes, List};
use ipc_proto::ids::{Pid, Tid, WindowId};
use ipc_proto::symbolized::{self as wire, SymbolizedMapping, SymbolizedProcess};

use super::*;

const STRINGS: [&str; 8] = [
    "",
    "/bin/x",
    "[kernel.kallsyms]",
    "main",
    "do_syscall_64",
    "x.c",
    "nginx",
    "bash",
];

fn location(kind: LocationKind, mapping: u32, elf_address: u64, function: u32) -> Location {
    let line = wire::Line {
        function,
        system_name: function,
        file: 5,
        line: 7,
    };
    Location {
        kind: kind as u8,
        mapping,
        address: 0x7000 + elf_address,
        elf_address,
        reason: 0,
        lines: List(if function == 0 { vec![] } else { vec![line] }),
    }
}

fn batch() -> SymbolizedBatch {
    let mapping = |start: u64, file: u32, build_id: &[u8]| SymbolizedMapping {
        start,
        end: start + 0x1000,
        file_offset: 0x2000,
        file,
        build_id: Bytes(build_id.to_vec()),
    };
    let process = |comm: u32| SymbolizedProcess {
        pid: Pid(comm),
        comm,
        executable: NONE,
        ..SymbolizedProcess::default()
    };
    let sample = |process: u32, count: u64, locations: &[u32]| SymbolizedSample {
        process,
        tid: Tid(8),
        thread_name: 6,
        count,
        locations: List(locations.to_vec()),
        ..SymbolizedSample::default()
    };
    SymbolizedBatch {
        window: WindowId(3),
        start: 1_000_000_000,
        duration: 10_000_000_000,
        frequency: 19,
        strings: List(STRINGS.map(|text| Bytes(text.as_bytes().to_vec())).to_vec()),
        // The same file twice, as two processes map it.
        mappings: List(vec![
            mapping(0x40_0000, 1, &[0xab, 1]),
            mapping(0x50_0000, 1, &[0xab, 1]),
            mapping(0xffff_ffff_8000_0000, 2, &[9, 9]),
        ]),
        locations: List(vec![
            location(LocationKind::Kernel, 2, 0xffff_ffff_8000_0010, 4),
            location(LocationKind::Native, 0, 0x1010, 3),
            location(LocationKind::Native, 1, 0x1010, 3),
            location(LocationKind::Native, 0, 0, 0),
        ]),
        processes: List(vec![process(6), process(7), process(6)]),
        samples: List(vec![
            sample(0, 4, &[0, 1]),
            sample(1, 2, &[2]),
            sample(2, 1, &[2, 3]),
            // Relabelling drops it.
            sample(0, 1000, &[0]),
        ]),
        ..SymbolizedBatch::default()
    }
}

fn labelled() -> Labelled {
    let series = |comm: &str, pod: &str| {
        let labels = [
            ("comm", comm),
            ("node", "host"),
            ("zone", "b"),
            ("empty", ""),
        ];
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        crate::labels::Series {
            labels: labels.into_iter().map(pair).collect(),
            more: [("pod", pod)].into_iter().map(pair).collect(),
        }
    };
    Labelled {
        series: vec![
            series("nginx", "a"),
            series("bash", "a"),
            series("nginx", "b"),
        ],
        of_sample: vec![Some(0), Some(1), Some(2), None],
    }
}

fn built(symbolize: bool) -> Vec<(Vec<String>, pprof::Profile, u64)> {
    build(&batch(), &labelled(), Style { symbolize })
        .unwrap()
        .into_iter()
        .map(|series| {
            let text = |label: &Label| format!("{}={}", label.name, label.value);
            let labels = series.labels.iter().map(text).collect();
            let profile = pprof::read(&series.profile).unwrap();
            (labels, profile, series.samples)
        })
        .collect()
}

#[test]
fn each_label_set_has_one_series() {
    let labels: Vec<_> = built(false)
        .into_iter()
        .map(|(labels, _, samples)| (labels, samples))
        .collect();
    let set = |comm: &str| {
        vec![
            "__name__=parca_agent_cpu".to_owned(),
            format!("comm={comm}"),
            "node=host".to_owned(),
            "zone=b".to_owned(),
        ]
    };
    assert_eq!(labels, [(set("bash"), 2), (set("nginx"), 5)]);
}

#[test]
fn a_build_id_has_one_mapping_without_bounds() {
    let (_, profile, _) = built(false).remove(1);
    let text = |index: i64| profile.string_table[index as usize].as_str();
    let mappings: Vec<_> = profile
        .mapping
        .iter()
        .map(|mapping| {
            let bounds = mapping.memory_start | mapping.memory_limit | mapping.file_offset;
            (text(mapping.filename), text(mapping.build_id), bounds)
        })
        .collect();
    let expected = [
        ("[kernel.kallsyms]", "", 0),
        ("/bin/x", "ab01", 0),
        // Of an address that is none of the file's.
        ("/bin/x", "", 0),
    ];
    assert_eq!(mappings, expected);
    assert!(
        profile
            .location
            .iter()
            .all(|location| location.mapping_id != 0)
    );
}

#[test]
fn native_addresses_are_the_files_and_unnamed_unless_asked_for() {
    for symbolize in [false, true] {
        let (_, profile, _) = built(symbolize).remove(1);
        let native: Vec<_> = profile
            .location
            .iter()
            .filter(|location| location.mapping_id == 2)
            .map(|location| (location.address, location.line.len()))
            .collect();
        assert_eq!(native, [(0x1010, usize::from(symbolize))]);
        let kernel = &profile.location[0];
        assert_eq!((kernel.address, kernel.line.len()), (0, 1));
    }
}

#[test]
fn time_and_period_are_the_windows() {
    let (_, profile, _) = built(false).remove(0);
    assert_eq!(
        (profile.time_nanos, profile.duration_nanos, profile.period),
        (1_000_000_000, 10_000_000_000, 52_631_578)
    );
}

#[test]
fn a_reference_to_nothing_is_a_fault() {
    let breaks: [fn(&mut SymbolizedBatch); 4] = [
        |batch| batch.locations.0[1].mapping = 99,
        |batch| batch.locations.0[0].lines.0[0].function = 99,
        |batch| batch.samples.0[0].thread_name = 99,
        |batch| batch.samples.0[0].locations.0[0] = 99,
    ];
    for break_it in breaks {
        let mut batch = batch();
        break_it(&mut batch);
        assert!(build(&batch, &labelled(), Style { symbolize: true }).is_err());
    }
}

#[test]
fn a_sample_without_a_stack_still_has_a_place() {
    let mut batch = batch();
    batch.samples.0[1].locations.0.clear();
    let series = build(&batch, &labelled(), Style { symbolize: false }).unwrap();
    let profile = pprof::read(&series[0].profile).unwrap();
    let function = &profile.function[0];
    assert_eq!(profile.string_table[function.name as usize], NO_STACK);
    assert_eq!(profile.sample[0].location_id.len(), 1);
}

#[test]
fn what_kills_a_server_when_it_is_missing_is_always_there() {
    for (_, profile, _) in built(false) {
        assert!(profile.period_type.is_some() && profile.sample_type.len() == 1);
    }
}
