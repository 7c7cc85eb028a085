//! Profiles for the tests of this crate.

use crate::builder::{Builder, Labels, Line, LocationId, Mapping, Meta};
use crate::proto::{Function, Label, Location, Profile, Sample, ValueType};

/// 2026-11-24 13:52:38 UTC.
pub(crate) const TIME: i64 = 1_795_528_358_000_000_000;

/// Two processes, kernel code, inlined and unnamed code, a stopped walk:
///
/// | count | process   | thread | root to leaf                                              |
/// |-------|-----------|--------|-----------------------------------------------------------|
/// | 6     | app 10    | 10     | main, work, inner (inlined into work)                     |
/// | 3     | app 10    | 11     | main, work, inner, do_syscall                             |
/// | 2     | app 12    | 12     | main, 0x7f00 [libfoo.so]                                  |
/// | 1     | db 20     | 20     | [unwind stopped: no_row], main                            |
pub(crate) fn profile() -> Profile {
    let mut builder = Builder::new(Meta {
        time_nanos: TIME,
        duration_nanos: 10_000_000_000,
        frequency: 100,
    });
    let app = builder.mapping(&Mapping {
        start: 0x1000,
        limit: 0x3000,
        file_offset: 0x1000,
        filename: "/usr/bin/app",
        build_id: "abcdef",
    });
    let library = builder.mapping(&Mapping {
        start: 0x7000,
        limit: 0x8000,
        file_offset: 0,
        filename: "/usr/lib/libfoo.so",
        build_id: "",
    });
    let kernel = builder.mapping(&Mapping {
        start: 0xffff_ffff_8000_0000,
        limit: u64::MAX,
        file_offset: 0,
        filename: "[kernel.kallsyms]",
        build_id: "",
    });
    let main = builder.function("main", "main", "main.c");
    let work = builder.function("work", "work", "work.c");
    let inner = builder.function("inner<T>", "_Zinner", "work.c");
    let do_syscall = builder.function("do_syscall", "do_syscall", "");
    let stopped = builder.function("[unwind stopped: no_row]", "", "");
    let line = |function, line| Line { function, line };
    let at_main = builder.location(Some(app), 0x1010, &[line(main, 5)]);
    let at_inner = builder.location(Some(app), 0x1100, &[line(inner, 7), line(work, 9)]);
    let in_kernel = builder.location(Some(kernel), 0xffff_ffff_8000_1234, &[line(do_syscall, 0)]);
    let unnamed = builder.location(Some(library), 0x7f00, &[]);
    let at_stop = builder.location(None, 0, &[line(stopped, 0)]);
    let mut add = |pid, thread_id, comm, stack: &[LocationId], count| {
        let labels = Labels {
            pid: Some(pid),
            thread_id: Some(thread_id),
            comm,
            thread_name: "worker",
            others: &[("node", "n1")],
        };
        builder.sample(stack, &labels, count);
    };
    add(10, 10, "app", &[at_inner, at_main], 4);
    add(10, 11, "app", &[in_kernel, at_inner, at_main], 3);
    add(12, 12, "app", &[unnamed, at_main], 2);
    add(20, 20, "db", &[at_main, at_stop], 1);
    add(10, 10, "app", &[at_inner, at_main], 2);
    builder.comment("dropped: ring_full: 7");
    builder.comment("kernel 6.1");
    builder.finish()
}

/// As other tools write: no mapping, ids not in order, two values, no labels. `names` are called by "root", each by one
/// sample of 1 and 100.
pub(crate) fn foreign(names: &[&str]) -> Profile {
    let mut string_table: Vec<String> = ["", "objects", "count", "space", "bytes", "root"]
        .map(String::from)
        .to_vec();
    let first = string_table.len() as i64;
    string_table.extend(names.iter().map(|name| (*name).to_owned()));
    let function = |id, name| Function {
        id,
        name,
        ..Function::default()
    };
    let location = |id, function_id| Location {
        id,
        line: vec![crate::proto::Line {
            function_id,
            ..crate::proto::Line::default()
        }],
        ..Location::default()
    };
    let ids = || (0..names.len()).map(|index| 1000 - index as u64);
    Profile {
        sample_type: vec![
            ValueType { r#type: 1, unit: 2 },
            ValueType { r#type: 3, unit: 4 },
        ],
        sample: ids()
            .map(|id| Sample {
                location_id: vec![id, 2000],
                value: vec![1, 100],
                label: vec![Label {
                    key: 4,
                    num: 64,
                    num_unit: 4,
                    ..Label::default()
                }],
            })
            .collect(),
        location: ids().chain([2000]).map(|id| location(id, id)).collect(),
        function: ids()
            .zip(first..)
            .chain([(2000, 5)])
            .map(|(id, name)| function(id, name))
            .collect(),
        string_table,
        ..Profile::default()
    }
}
