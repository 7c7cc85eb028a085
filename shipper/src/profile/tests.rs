//! Windows with names become profiles that say the same.

use ipc_proto::codec::{Bytes, List};
use ipc_proto::ids::{Pid, Tid, WindowId};
use ipc_proto::sample::Drop;
use ipc_proto::symbolized::{self as wire, SymbolizedMapping, SymbolizedProcess, SymbolizedSample};
use pprof::Profile;

use super::*;
use crate::labels::{Labeller, Settings, Sources};

const STRINGS: [&str; 11] = [
    "",
    "/usr/bin/x",
    "[kernel.kallsyms]",
    "main",
    "inlined",
    "_inlined",
    "x.c",
    "do_syscall_64",
    "comm",
    "[unwind stopped: no_row]",
    "no_symbols: stripped",
];

fn line(function: u32, system_name: u32, file: u32, line: u32) -> wire::Line {
    wire::Line {
        function,
        system_name,
        file,
        line,
    }
}

fn location(kind: LocationKind, mapping: u32, address: u64, lines: Vec<wire::Line>) -> Location {
    Location {
        kind: kind as u8,
        mapping,
        address,
        elf_address: address,
        reason: if lines.is_empty() { 10 } else { 0 },
        lines: List(lines),
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
    let sample = |count: u64, locations: &[u32]| SymbolizedSample {
        process: 0,
        tid: Tid(8),
        thread_name: 8,
        count,
        locations: List(locations.to_vec()),
        ..SymbolizedSample::default()
    };
    SymbolizedBatch {
        window: WindowId(3),
        start: 1_000_000_000,
        duration: 10_000_000_000,
        frequency: 19,
        drops: List(vec![Drop {
            cause: Bytes(b"ring_full".to_vec()),
            samples: 5,
        }]),
        strings: List(STRINGS.map(|text| Bytes(text.as_bytes().to_vec())).to_vec()),
        mappings: List(vec![
            mapping(0x40_0000, 1, &[0xab, 0x01]),
            mapping(0xffff_ffff_8000_0000, 2, &[]),
        ]),
        locations: List(vec![
            location(
                LocationKind::Kernel,
                1,
                0xffff_ffff_8000_0010,
                vec![line(7, 7, 0, 0)],
            ),
            location(
                LocationKind::Native,
                0,
                0x40_0010,
                vec![line(4, 5, 6, 12), line(3, 3, 6, 40)],
            ),
            location(LocationKind::Native, 0, 0x40_0020, Vec::new()),
            location(LocationKind::Stop, NONE, 0, vec![line(9, 9, 0, 0)]),
        ]),
        processes: List(vec![SymbolizedProcess {
            pid: Pid(7),
            comm: 8,
            executable: 0,
            ..SymbolizedProcess::default()
        }]),
        samples: List(vec![sample(4, &[0, 1]), sample(2, &[1, 2, 3])]),
        last: false,
        ..SymbolizedBatch::default()
    }
}

/// As without rules.
fn labelled(batch: &SymbolizedBatch) -> Labelled {
    let settings = Settings {
        node: "host".to_owned(),
        external: vec![("zone".to_owned(), "b".to_owned())],
        ..Settings::default()
    };
    Labeller::new(settings, Sources::default())
        .label(batch, 0)
        .unwrap()
}

fn built(batch: &SymbolizedBatch) -> Profile {
    pprof::read(&build(batch, &labelled(batch)).unwrap()).unwrap()
}

fn text(profile: &Profile, index: i64) -> &str {
    &profile.string_table[index as usize]
}

#[test]
fn a_window_keeps_its_stacks_mappings_and_times() {
    let profile = built(&batch());
    assert_eq!(
        (profile.time_nanos, profile.duration_nanos, profile.period),
        (1_000_000_000, 10_000_000_000, 52_631_578)
    );
    let mapping = &profile.mapping[0];
    assert_eq!(
        (
            mapping.memory_start,
            mapping.memory_limit,
            mapping.file_offset
        ),
        (0x40_0000, 0x40_1000, 0x2000)
    );
    assert_eq!(text(&profile, mapping.filename), "/usr/bin/x");
    assert_eq!(text(&profile, mapping.build_id), "ab01");
    let stacks: Vec<(i64, Vec<String>)> = profile
        .sample
        .iter()
        .map(|sample| {
            let names = sample.location_id.iter().flat_map(|id| {
                let location = &profile.location[*id as usize - 1];
                if location.line.is_empty() {
                    return vec![format!("{:#x}", location.address)];
                }
                let name = |line: &pprof::proto::Line| {
                    let function = &profile.function[line.function_id as usize - 1];
                    format!("{}:{}", text(&profile, function.name), line.line)
                };
                location.line.iter().map(name).collect()
            });
            (sample.value[0], names.collect())
        })
        .collect();
    let expected = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(
        stacks,
        [
            (4, expected(&["do_syscall_64:0", "inlined:12", "main:40"])),
            (
                2,
                expected(&[
                    "inlined:12",
                    "main:40",
                    "0x400020",
                    "[unwind stopped: no_row]:0"
                ])
            ),
        ]
    );
}

#[test]
fn labels_and_comments_are_there() {
    let profile = built(&batch());
    let labels: Vec<(String, String)> = profile.sample[0]
        .label
        .iter()
        .map(|label| {
            let value = if label.str == 0 {
                label.num.to_string()
            } else {
                text(&profile, label.str).to_owned()
            };
            (text(&profile, label.key).to_owned(), value)
        })
        .collect();
    for (name, value) in [
        ("pid", "7"),
        ("thread_id", "8"),
        ("comm", "comm"),
        ("thread_name", "comm"),
        ("node", "host"),
        ("zone", "b"),
    ] {
        assert!(
            labels.contains(&(name.to_owned(), value.to_owned())),
            "{name} in {labels:?}"
        );
    }
    let comments: Vec<&str> = profile
        .comment
        .iter()
        .map(|index| text(&profile, *index))
        .collect();
    assert!(comments[0].starts_with("leadsman "));
    assert!(comments.contains(&"dropped: ring_full: 5"));
    assert!(comments.contains(&"unnamed: 2 frames: no_symbols: stripped"));
}

#[test]
fn a_sample_without_a_series_is_left_out_and_said_to_be() {
    let batch = batch();
    let mut labelled = labelled(&batch);
    labelled.of_sample[0] = None;
    let profile = pprof::read(&build(&batch, &labelled).unwrap()).unwrap();
    assert_eq!(profile.sample.len(), 1);
    let comments = profile.comment.iter().map(|index| text(&profile, *index));
    assert!(
        comments
            .into_iter()
            .any(|comment| comment == "dropped: relabelling: 4")
    );
}

#[test]
fn a_reference_to_nothing_is_a_fault_whatever_it_is() {
    let breaks: [fn(&mut SymbolizedBatch); 7] = [
        |batch| batch.mappings.0[0].file = 99,
        |batch| batch.locations.0[0].mapping = 99,
        |batch| batch.locations.0[1].lines.0[0].function = 99,
        |batch| batch.locations.0[2].reason = 99,
        |batch| batch.samples.0[0].process = 99,
        |batch| batch.samples.0[0].thread_name = 99,
        |batch| batch.samples.0[0].locations.0[0] = 99,
    ];
    for (nth, break_it) in breaks.into_iter().enumerate() {
        let mut batch = batch();
        let whole = labelled(&batch);
        break_it(&mut batch);
        let fault = build(&batch, &whole).unwrap_err();
        assert!(
            matches!(fault, BatchFault::Reference { index: 99, .. }),
            "break {nth}: {fault}"
        );
    }
}
