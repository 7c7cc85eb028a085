use super::*;
use crate::tree::TreeBuilder;
use proptest::prelude::*;

/// A window of a C program, its kernel part, a script and a library without names.
fn window(second: i64) -> proto::Profile {
    let mut builder = Builder::new(Meta {
        time_nanos: (1_795_524_300 + second) * 1_000_000_000,
        duration_nanos: 10_000_000_000,
        frequency: 19,
    });
    let mapping = |builder: &mut Builder, filename: &str| {
        builder.mapping(&Mapping {
            start: 0x1000,
            limit: 0x2000,
            filename,
            build_id: "ab12",
            ..Mapping::default()
        })
    };
    let app = mapping(&mut builder, "/usr/bin/app");
    let kernel = mapping(&mut builder, "[kernel.kallsyms]");
    let python = mapping(&mut builder, "jit");
    let library = mapping(&mut builder, "/usr/lib/libstripped.so.1");
    let line = |builder: &mut Builder, name: &str, file: &str| Line {
        function: builder.function(name, name, file),
        line: 7,
    };
    let main = line(&mut builder, "main", "app.c");
    let inlined = line(&mut builder, "inlined", "app.h");
    let read = line(&mut builder, "vfs_read", "");
    let script = line(&mut builder, "handler", "/srv/app.py");
    let stopped = line(&mut builder, "[unwind stopped: no_row]", "");
    let main = builder.location(Some(app), 0x1100, &[inlined, main]);
    let read = builder.location(Some(kernel), 0x1200, &[read]);
    let script = builder.location(Some(python), 0, &[script]);
    let nameless = builder.location(Some(library), 0x1300, &[]);
    let nameless_too = builder.location(Some(library), 0x1304, &[]);
    let stopped = builder.location(None, 0, &[stopped]);
    let labels = |pid, comm| pprof::Labels {
        pid: Some(pid),
        thread_id: Some(pid + 1),
        comm,
        thread_name: "worker",
        others: &[("node", "n1")],
    };
    builder.sample(&[read, script, main], &labels(42, "app"), 5);
    builder.sample(&[nameless, nameless_too, stopped], &labels(42, "app"), 2);
    builder.sample(&[nameless_too, stopped], &labels(42, "app"), 1);
    builder.sample(&[main], &labels(43, "db"), 3);
    builder.comment("dropped: ring_full: 3");
    builder.comment("unnamed: 4 frames: stripped: install its symbols");
    builder.comment("unnamed: many frames: malformed");
    builder.finish()
}

fn stored(second: i64) -> (Stored, Vec<u8>) {
    let file = pprof::write_gzip(&window(second));
    (Stored::decode(&file).expect("a profile"), file)
}

fn rows(profile: &Profile) -> Vec<(u64, String, u64)> {
    let mut tree = TreeBuilder::new();
    tree.add(profile, &Selector::default(), false);
    tree.finish()
        .rows()
        .map(|(depth, name, total, _)| (depth, name.to_owned(), total))
        .collect()
}

#[test]
fn a_file_becomes_stacks_root_first() {
    let window = stored(0).0.window();
    let row = |depth, name: &str, total| (depth, name.to_owned(), total);
    assert_eq!(
        rows(&window),
        [
            row(0, "all", 11),
            row(1, "app", 8),
            row(2, "main", 5),
            row(3, "inlined", 5),
            row(4, "handler", 5),
            row(5, "vfs_read", 5),
            row(2, "[unwind stopped: no_row]", 3),
            row(3, "[libstripped.so.1]", 3),
            row(1, "db", 3),
            row(2, "main", 3),
            row(3, "inlined", 3),
        ]
    );
    let summary = window.summary();
    assert_eq!(
        (
            summary.samples,
            summary.kernel,
            summary.stopped,
            summary.unnamed
        ),
        (11, 5, 3, 3)
    );
    assert_eq!(window.period, Duration::from_nanos(52_631_578));
    let reasons = [("stripped: install its symbols".into(), 4)];
    assert_eq!(window.unnamed_because, reasons);
    let labels = &window.label_sets()[0];
    assert_eq!(labels.value_of("pid").as_deref(), Some("42"));
    assert_eq!(labels.value_of("node").as_deref(), Some("n1"));
}

#[test]
fn frames_have_their_kind() {
    let window = stored(0).0.window();
    let frame = |name: &str| {
        (0..window.frame_count() as u32)
            .filter_map(|index| window.frame(index))
            .find(|frame| frame.name.as_ref() == name)
    };
    let kind = |name: &str| frame(name).map(|frame| frame.kind);
    assert_eq!(kind("main"), Some(FrameKind::Native));
    assert_eq!(kind("vfs_read"), Some(FrameKind::Kernel));
    assert_eq!(kind("handler"), Some(FrameKind::Interpreter));
    assert_eq!(kind("[libstripped.so.1]"), Some(FrameKind::Unnamed));
    let stopped = frame("[unwind stopped: no_row]").unwrap();
    assert_eq!(stopped.kind, FrameKind::Stopped);
    assert_eq!(stopped.file.as_ref(), StopReason::NoRow.explanation());
}

#[test]
fn one_whole_window_is_its_own_file() {
    let (window, file) = stored(0);
    let mut export = Export::default();
    export.add(&window, &file, &Selector::default());
    assert_eq!(export.finish(), Some(file));
}

#[test]
fn selected_and_merged_samples_keep_all_they_had() {
    let mut export = Export::default();
    for second in [0, 10] {
        let (window, file) = stored(second);
        export.add(&window, &file, &Selector::equal("comm", "app"));
    }
    let merged = pprof::read(&export.finish().expect("samples")).expect("a profile");
    assert_eq!(merged.duration_nanos, 20_000_000_000);
    assert_eq!(merged.time_nanos, 1_795_524_300_000_000_000);
    assert_eq!(merged.period, 52_631_578);
    let merged = Stored::new(merged);
    let counts: Vec<u64> = merged
        .profile
        .sample
        .iter()
        .map(|sample| merged.count(sample))
        .collect();
    assert_eq!(counts, [10, 4, 2]);
    for sample in &merged.profile.sample {
        let labels: Vec<(String, String)> = sample
            .label
            .iter()
            .map(|label| {
                (
                    merged.text(label.key).to_owned(),
                    merged.label_text(label).into_owned(),
                )
            })
            .collect();
        for expected in [
            ("pid", "42"),
            ("thread_id", "43"),
            ("comm", "app"),
            ("thread_name", "worker"),
            ("node", "n1"),
        ] {
            assert!(
                labels
                    .iter()
                    .any(|(key, value)| (key.as_str(), value.as_str()) == expected),
                "{expected:?} in {labels:?}"
            );
        }
    }
    let of_app: Vec<_> = rows(&merged.window());
    assert_eq!(of_app[0].2, 16);
    assert_eq!(merged.text(merged.profile.mapping[0].build_id), "ab12");
}

#[test]
fn nothing_selected_is_no_file() {
    let (window, file) = stored(0);
    let mut export = Export::default();
    export.add(&window, &file, &Selector::equal("comm", "other"));
    assert_eq!(export.finish(), None);
    assert_eq!(Export::default().finish(), None);
}

#[test]
fn what_is_no_profile_is_refused() {
    for bytes in [&b""[..], b"not gzip", &[0x1f, 0x8b, 8, 0, 0]] {
        let _ = Stored::decode(bytes).map(|stored| stored.window());
    }
    assert!(Stored::decode(b"not gzip").is_err());
}

proptest! {
    #[test]
    fn references_that_lead_nowhere_are_survived(
        ids in proptest::collection::vec(any::<u64>(), 0..6),
        indexes in proptest::collection::vec(any::<i64>(), 6),
        values in proptest::collection::vec(any::<i64>(), 0..3),
    ) {
        let mut profile = window(0);
        profile.time_nanos = indexes[0];
        profile.duration_nanos = indexes[1];
        profile.period = indexes[2];
        profile.sample.push(proto::Sample {
            location_id: ids.iter().copied().chain([1, 2]).collect(),
            value: values,
            label: vec![proto::Label { key: indexes[3], str: indexes[4], num: indexes[5], num_unit: 0 }],
        });
        let stored = Stored::new(profile);
        let window = stored.window();
        let _ = window.summary();
        let mut export = Export::default();
        export.add(&stored, b"", &Selector::equal("comm", "app"));
        prop_assert!(export.finish().is_some());
    }
}
