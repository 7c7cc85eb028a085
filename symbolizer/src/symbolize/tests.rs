//! This test's own executable, symbolized as a process's would be.

use ipc_proto::ids::{ImageId, Pid, Tid, WindowId};
use ipc_proto::sample::Frame;
use ipc_proto::symbolized::SymbolizedProcess;

use leadsman_symbolizer::runtime::Runtime;

use super::*;
use crate::job::JobProcess;

const KEY: ExecutableKey = ExecutableKey(9);

#[inline(never)]
fn leadsman_test_function(value: u64) -> u64 {
    std::hint::black_box(value).wrapping_mul(3)
}

/// This process's mapping with `address`.
fn own_mapping(address: u64) -> JobMapping {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next().unwrap().split_once('-').unwrap();
        let (start, end) = (hex(start), hex(end));
        if (start..end).contains(&address) {
            return JobMapping {
                start,
                end,
                file_offset: hex(fields.nth(1).unwrap()),
                backing: Backing::File,
                path: Bytes(b"/own".to_vec()),
                build_id: BuildId::default(),
                key: KEY,
                file_key: None,
                reason: None,
                image: ImageId(1),
            };
        }
    }
    panic!("{address:#x} is not mapped");
}

fn job(mappings: Vec<JobMapping>, user: Vec<Frame>, kernel: Vec<u64>) -> WindowJob {
    let stack = JobStack {
        process: 0,
        tid: Tid(2),
        thread_name: Bytes(b"thread".to_vec()),
        cgroup: 3,
        count: 4,
        stop: StopReason::EndOfStack as u8,
        kernel,
        user,
    };
    WindowJob {
        window: WindowId(1),
        processes: vec![JobProcess {
            about: SymbolizedProcess {
                pid: Pid(1),
                executable: NONE,
                ..SymbolizedProcess::default()
            },
            comm: Bytes(b"own".to_vec()),
            runtime: None,
        }],
        mappings,
        stacks: vec![stack],
        ..WindowJob::default()
    }
}

fn namer() -> Namer {
    let mut namer = Namer::new(Arc::default());
    let own = File::open("/proc/self/exe").unwrap();
    namer.symbolizer.add_executable(KEY, own).unwrap();
    namer
}

fn text(named: &NamedWindow, index: u32) -> String {
    named.batch.strings.0[index as usize].text().into_owned()
}

/// The names of a sample's locations, innermost first; unnamed ones as their reason.
fn names(named: &NamedWindow, sample: usize) -> Vec<String> {
    let locations = &named.batch.samples.0[sample].locations.0;
    let names = locations.iter().flat_map(|index| {
        let location = &named.batch.locations.0[*index as usize];
        if location.lines.0.is_empty() {
            return vec![text(named, location.reason)];
        }
        let lines = location.lines.0.iter();
        lines.map(|line| text(named, line.function)).collect()
    });
    names.collect()
}

#[test]
fn own_code_has_its_name_file_and_line() {
    let address = leadsman_test_function as fn(u64) -> u64 as usize as u64;
    assert_eq!(leadsman_test_function(2), 6);
    let frame = Frame {
        mapping: 0,
        address,
    };
    let named = namer().name(job(vec![own_mapping(address)], vec![frame], Vec::new()));
    let names = names(&named, 0);
    assert!(
        names
            .last()
            .is_some_and(|name| name.contains("leadsman_test_function")),
        "{names:?}"
    );
    let location = &named.batch.locations.0[0];
    assert_eq!(location.kind, LocationKind::Native as u8);
    let line = location.lines.0.last().unwrap();
    assert!(text(&named, line.file).ends_with("tests.rs") && line.line > 0);
    assert_eq!(named.unnamed.values().sum::<u64>(), 0);
}

#[test]
fn equal_stacks_and_places_are_told_once() {
    let address = leadsman_test_function as fn(u64) -> u64 as usize as u64;
    let frame = Frame {
        mapping: 0,
        address,
    };
    let mut job = job(
        vec![own_mapping(address)],
        vec![frame.clone(), frame],
        vec![],
    );
    let again = job.stacks[0].clone();
    job.stacks.push(again);
    let named = namer().name(job);
    assert_eq!(named.batch.samples.0.len(), 1);
    assert_eq!(named.batch.samples.0[0].count, 8);
    assert_eq!(named.batch.locations.0.len(), 1);
    assert_eq!(
        named.stops,
        BTreeMap::from([(StopReason::EndOfStack as u8, 8)])
    );
}

#[test]
fn what_has_no_name_has_its_reason() {
    let mut gone = own_mapping(leadsman_test_function as fn(u64) -> u64 as usize as u64);
    gone.reason = Some(Reason::ProcessGone);
    let mut unknown = gone.clone();
    (unknown.reason, unknown.key) = (None, ExecutableKey(10));
    let mut generated = gone.clone();
    generated.backing = Backing::Anonymous;
    let frames = [0, 1, 2, NONE].map(|mapping| Frame {
        mapping,
        address: gone.start,
    });
    let mappings = vec![gone, unknown, generated];
    let named = namer().name(job(mappings, frames.to_vec(), vec![!0 - 100]));
    assert_eq!(
        named.unnamed.keys().copied().collect::<Vec<_>>(),
        [
            Reason::NoMapping,
            Reason::ProcessGone,
            Reason::NotYetOpened,
            Reason::KallsymsMissing,
            Reason::JitWithoutPerfMap,
        ]
    );
    assert_eq!(named.forgotten, [ExecutableKey(10)]);
    let names = names(&named, 0);
    assert!(names[1].starts_with("process_gone: "), "{names:?}");
}

#[test]
fn kernel_frames_come_first_and_callers_are_looked_up_at_their_call() {
    let mut namer = namer();
    let symbols = "ffffffff80000000 T first\nffffffff80000100 T second\nffffffff80000200 T third\n";
    namer.kernel = KernelSymbols::read(symbols.as_bytes());
    // Both return addresses are the first byte of the next function.
    let kernel = vec![0xffff_ffff_8000_0100, 0xffff_ffff_8000_0200];
    let mut job = job(Vec::new(), Vec::new(), kernel);
    job.stacks[0].stop = StopReason::NoRow as u8;
    let named = namer.name(job);
    assert_eq!(
        names(&named, 0),
        ["second", "second", "[unwind stopped: no_row]"]
    );
    let mapping = &named.batch.mappings.0[0];
    assert_eq!(text(&named, mapping.file), KERNEL_MAPPING);
    assert_eq!(mapping.start, 0xffff_ffff_8000_0000);
}

#[test]
fn generated_code_is_named_by_its_processs_perf_map() {
    use std::io::{Seek, Write};

    let mut namer = namer();
    let mut map = tempfile::tempfile().unwrap();
    map.write_all(b"1000 20 jitted code\n").unwrap();
    map.rewind().unwrap();
    namer.add_perf_map(1, &map);
    let mut mapping = own_mapping(leadsman_test_function as fn(u64) -> u64 as usize as u64);
    mapping.backing = Backing::Anonymous;
    let frames = [0x1010, 0x1020].map(|address| Frame {
        mapping: 0,
        address,
    });
    let named = namer.name(job(vec![mapping], frames.to_vec(), Vec::new()));
    let names = names(&named, 0);
    assert_eq!(names[0], "jitted code");
    assert!(names[1].starts_with("not_in_perf_map: "), "{names:?}");
}

#[test]
fn a_process_is_told_with_its_executable_and_its_runtime() {
    let address = leadsman_test_function as fn(u64) -> u64 as usize as u64;
    let mut job = job(vec![own_mapping(address)], Vec::new(), Vec::new());
    job.processes[0].about.executable = 0;
    job.processes.push(job.processes[0].clone());
    job.processes[1].runtime = Some((Runtime::Python, 0));
    job.mappings[0].path = Bytes(b"/usr/bin/python3.9".to_vec());
    let named = namer().name(job);
    assert_eq!(named.batch.executables.0.len(), 1, "one file, told once");
    let facts = &named.batch.executables.0[0];
    assert!(text(&named, facts.compiler).starts_with("Rust "));
    assert!(!facts.is_static && !facts.is_stripped && facts.file_id != [0; 16]);
    let [first, second] = &named.batch.processes.0[..] else {
        panic!("two processes");
    };
    assert_eq!((first.facts, second.facts, first.runtime), (1, 1, 0));
    assert_eq!(text(&named, second.runtime), "python");
    assert_eq!(text(&named, second.runtime_version), "3.9");
}
