use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::example::TIME;
use crate::{example, read, write_gzip};

fn line(function: FunctionId) -> Line {
    Line { function, line: 0 }
}

#[test]
fn tables_have_ids_in_order_and_an_empty_first_string() {
    let profile = example::profile();
    let one_to_n = |ids: Vec<u64>| {
        let count = ids.len() as u64;
        assert_eq!(ids, (1..=count).collect::<Vec<_>>());
        count
    };
    let functions = profile.function.iter().map(|function| function.id);
    assert_eq!(one_to_n(functions.collect()), 5);
    let locations = profile.location.iter().map(|location| location.id);
    assert_eq!(one_to_n(locations.collect()), 5);
    let mappings = profile.mapping.iter().map(|mapping| mapping.id);
    assert_eq!(one_to_n(mappings.collect()), 3);
    assert_eq!(profile.string_table[0], "");
    let mut strings = profile.string_table.clone();
    strings.sort();
    strings.dedup();
    assert_eq!(strings.len(), profile.string_table.len());
}

#[test]
fn types_and_times_are_those_of_a_cpu_profile() {
    let profile = example::profile();
    let text = |index: i64| profile.string_table[index as usize].as_str();
    let [sample_type] = profile.sample_type[..] else {
        panic!("sample types: {:?}", profile.sample_type);
    };
    assert_eq!(
        (text(sample_type.r#type), text(sample_type.unit)),
        ("samples", "count")
    );
    let period_type = profile.period_type.unwrap();
    assert_eq!(
        (text(period_type.r#type), text(period_type.unit)),
        ("cpu", "nanoseconds")
    );
    assert_eq!(profile.period, 10_000_000);
    assert_eq!(
        (profile.time_nanos, profile.duration_nanos),
        (TIME, 10_000_000_000)
    );
    let nineteen = Builder::new(Meta {
        frequency: 19,
        ..Meta::default()
    });
    assert_eq!(nineteen.finish().period, 52_631_578);
    assert_eq!(Builder::new(Meta::default()).finish().period, 0);
}

#[test]
fn equal_stacks_under_equal_labels_are_one_sample() {
    let profile = example::profile();
    let values: Vec<_> = profile
        .sample
        .iter()
        .map(|sample| sample.value.clone())
        .collect();
    assert_eq!(values, [[6], [3], [2], [1]]);

    let mut builder = Builder::new(Meta::default());
    let function = builder.function("f", "f", "");
    let here = builder.location(None, 1, &[line(function)]);
    let there = builder.location(None, 2, &[line(function)]);
    let labels = |pid, comm| Labels {
        pid: Some(pid),
        comm,
        ..Labels::default()
    };
    for (stack, labels) in [
        ([here, there], labels(1, "a")),
        ([there, here], labels(1, "a")),
        ([here, there], labels(2, "a")),
        ([here, there], labels(1, "b")),
        ([here, there], labels(1, "a")),
    ] {
        builder.sample(&stack, &labels, 1);
    }
    assert_eq!(builder.sample_count(), 4);
    builder.sample(&[here], &labels(1, "a"), 0);
    assert_eq!(builder.sample_count(), 4, "nothing was counted");
    builder.sample(&[here], &labels(1, "a"), u64::MAX);
    builder.sample(&[here], &labels(1, "a"), 1);
    assert_eq!(builder.finish().sample[4].value, [i64::MAX]);
}

#[test]
fn equal_entries_have_one_id() {
    let mut builder = Builder::new(Meta::default());
    let mapping = Mapping {
        start: 1,
        limit: 2,
        file_offset: 3,
        filename: "f",
        build_id: "b",
    };
    let first = builder.mapping(&mapping);
    assert_eq!(builder.mapping(&mapping), first);
    let other = Mapping {
        build_id: "c",
        ..mapping
    };
    assert_ne!(builder.mapping(&other), first);
    let f = builder.function("f", "_f", "f.c");
    assert_eq!(builder.function("f", "_f", "f.c"), f);
    assert_ne!(builder.function("f", "_f", "g.c"), f);
    let here = builder.location(Some(first), 1, &[line(f)]);
    assert_eq!(builder.location(Some(first), 1, &[line(f)]), here);
    assert_ne!(builder.location(None, 1, &[line(f)]), here);
    assert_ne!(builder.location(Some(first), 1, &[line(f), line(f)]), here);
    assert_ne!(
        builder.location(
            Some(first),
            1,
            &[Line {
                function: f,
                line: 1
            }]
        ),
        here
    );
}

#[test]
fn inlined_functions_are_lines_of_one_location_innermost_first() {
    let profile = example::profile();
    let name = |id: u64| {
        let function = &profile.function[id as usize - 1];
        profile.string_table[function.name as usize].as_str()
    };
    let inlined = profile
        .location
        .iter()
        .find(|location| location.line.len() == 2)
        .unwrap();
    let names: Vec<_> = inlined
        .line
        .iter()
        .map(|line| name(line.function_id))
        .collect();
    assert_eq!(names, ["inner<T>", "work"]);
}

#[test]
fn mappings_say_what_is_known_of_their_code() {
    let flags: Vec<_> = example::profile()
        .mapping
        .iter()
        .map(|mapping| {
            [
                mapping.has_functions,
                mapping.has_filenames,
                mapping.has_line_numbers,
                mapping.has_inline_frames,
            ]
        })
        .collect();
    let app = [true; 4];
    let unnamed_library = [false; 4];
    let kernel = [true, false, false, false];
    assert_eq!(flags, [app, unnamed_library, kernel]);
}

#[test]
fn labels_without_a_value_are_left_out() {
    let mut builder = Builder::new(Meta::default());
    let labels = Labels {
        thread_id: Some(0),
        others: &[("", "x"), ("unit", ""), ("node", "n")],
        ..Labels::default()
    };
    builder.sample(&[], &labels, 1);
    let profile = builder.finish();
    let keys: Vec<_> = profile.sample[0]
        .label
        .iter()
        .map(|label| profile.string_table[label.key as usize].as_str())
        .collect();
    assert_eq!(keys, ["thread_id", "node"]);
}

/// Address, mapping and functions of each location; process; name.
type Stack = (Vec<(u64, Vec<u64>)>, u32, String);

proptest! {
    #[test]
    fn what_was_counted_is_read_back(
        samples in vec((vec((0usize..3, 0u64..6, vec(0usize..5, 0..3)), 0..8), 0u32..3, "[a-c;\n\u{1f980}]{0,2}", 1u64..9), 0..40),
    ) {
        let mut builder = Builder::new(Meta { time_nanos: 1, duration_nanos: 2, frequency: 97 });
        let mut expected: HashMap<Stack, i64> = HashMap::new();
        for (stack, pid, comm, count) in &samples {
            let mut ids = Vec::new();
            let mut key = Vec::new();
            for (mapping, address, functions) in stack {
                let mapping = builder.mapping(&Mapping { start: *mapping as u64, ..Mapping::default() });
                let lines: Vec<Line> = functions
                    .iter()
                    .map(|function| line(builder.function(&format!("f{function}"), "", "")))
                    .collect();
                ids.push(builder.location(Some(mapping), *address, &lines));
                key.push((*address + 100 * mapping.0, lines.iter().map(|line| line.function.0).collect()));
            }
            let labels = Labels { pid: Some(*pid), comm, ..Labels::default() };
            builder.sample(&ids, &labels, *count);
            *expected.entry((key, *pid, comm.clone())).or_default() += *count as i64;
        }
        let built = builder.finish();
        let profile = read(&write_gzip(&built)).unwrap();
        prop_assert_eq!(&profile, &built);
        let found: HashMap<_, _> = profile
            .sample
            .iter()
            .map(|sample| {
                let stack = sample
                    .location_id
                    .iter()
                    .map(|id| {
                        let location = &profile.location[*id as usize - 1];
                        let functions = location.line.iter().map(|line| line.function_id).collect();
                        (location.address + 100 * location.mapping_id, functions)
                    })
                    .collect();
                let comm = sample.label.get(1).map_or(0, |label| label.str);
                let comm = profile.string_table[comm as usize].clone();
                ((stack, sample.label[0].num as u32, comm), sample.value[0])
            })
            .collect();
        prop_assert_eq!(found, expected);
    }
}
