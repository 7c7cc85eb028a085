use super::*;
use crate::example;

#[test]
fn a_profile_is_summed_up() {
    let profile = example::profile();
    let frames = Frames::new(&profile);
    let summary = Summary::new(&frames);
    assert_eq!((summary.total, summary.stacks), (12, 4));
    let functions = |values: &[FunctionValue<'_, '_>]| -> Vec<(String, i64, i64)> {
        values
            .iter()
            .map(|value| (value.function.name.to_string(), value.own, value.total))
            .collect()
    };
    let row = |name: &str, own, total| (name.to_owned(), own, total);
    assert_eq!(
        functions(&summary.functions),
        [
            row("inner<T>", 6, 9),
            row("do_syscall", 3, 3),
            row("0x7f00 [libfoo.so]", 2, 2),
            row("main", 1, 12),
            row("work", 0, 9),
        ]
    );
    let by_total: Vec<_> = functions(&summary.functions_by_total())
        .into_iter()
        .map(|(name, _, _)| name)
        .collect();
    assert_eq!(
        by_total,
        [
            "main",
            "inner<T>",
            "work",
            "do_syscall",
            "0x7f00 [libfoo.so]"
        ]
    );
    assert_eq!(summary.stopped, [("no_row", 1)]);
    assert_eq!(summary.stopped_total(), 1);
    assert_eq!(summary.unnamed, 2);
    assert_eq!(summary.drops, BTreeMap::from([("ring_full", 7)]));
    assert_eq!(summary.comments, ["kernel 6.1"]);
}

#[test]
fn processes_are_counted_alone_and_by_name() {
    let profile = example::profile();
    let frames = Frames::new(&profile);
    let summary = Summary::new(&frames);
    let process = |pid, comm, threads, total| ProcessValue {
        owner: Owner {
            comm,
            pid: Some(pid),
        },
        threads,
        total,
    };
    assert_eq!(
        summary.processes,
        [
            process(10, "app", 2, 9),
            process(12, "app", 1, 2),
            process(20, "db", 1, 1)
        ]
    );
    let named = |comm, count, pid, threads, total| NamedProcesses {
        comm,
        count,
        pid,
        threads,
        total,
    };
    assert_eq!(
        summary.processes_by_name(),
        [named("app", 2, None, 3, 11), named("db", 1, Some(20), 1, 1)]
    );
}

#[test]
fn a_recursive_function_counts_once_for_a_stack() {
    let mut profile = example::profile();
    let stack = &mut profile.sample[0].location_id;
    let leaf = stack[0];
    stack.extend([leaf, leaf]);
    let frames = Frames::new(&profile);
    let summary = Summary::new(&frames);
    assert!(
        summary
            .functions
            .iter()
            .all(|value| value.total <= summary.total)
    );
    assert_eq!(
        (summary.functions[0].own, summary.functions[0].total),
        (6, 9)
    );
}

#[test]
fn a_profile_of_something_else_has_no_processes() {
    let profile = example::foreign(&["a", "b"]);
    let frames = Frames::new(&profile);
    let summary = Summary::new(&frames);
    assert_eq!(
        (summary.total, summary.processes.len(), summary.drops.len()),
        (200, 0, 0)
    );
}

#[test]
fn values_do_not_wrap() {
    let mut profile = example::foreign(&["a", "b"]);
    for sample in &mut profile.sample {
        sample.value[1] = i64::MAX;
    }
    let frames = Frames::new(&profile);
    assert_eq!(Summary::new(&frames).total, i64::MAX);
}

#[test]
fn drops_are_read_from_comments_of_their_form_alone() {
    assert_eq!(drop_of("dropped: ring_full: 12"), Some(("ring_full", 12)));
    assert_eq!(drop_of("dropped: a: b: 3"), Some(("a: b", 3)));
    for other in [
        "dropped: ring_full",
        "dropped: x: many",
        "dropped: x: -1",
        "ring_full: 3",
        "",
    ] {
        assert_eq!(drop_of(other), None, "{other}");
    }
}
