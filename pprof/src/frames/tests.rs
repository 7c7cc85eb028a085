use super::*;
use crate::example;

fn shown(frames: &Frames<'_>, root_first: bool) -> Vec<String> {
    frames
        .samples()
        .map(|sample| {
            let name =
                |frame: &Frame<'_>| frames.function(frame.function).unwrap().name.to_string();
            let names: Vec<String> = if root_first {
                sample.stack().rev().map(name).collect()
            } else {
                sample.stack().map(name).collect()
            };
            format!("{} {}", names.join(" "), sample.value())
        })
        .collect()
}

#[test]
fn stacks_have_inlined_frames_in_their_place() {
    let profile = example::profile();
    let frames = Frames::new(&profile);
    let root_first = [
        "main work inner<T> 6",
        "main work inner<T> do_syscall 3",
        "main 0x7f00 [libfoo.so] 2",
        "[unwind stopped: no_row] main 1",
    ];
    assert_eq!(shown(&frames, true), root_first);
    assert_eq!(shown(&frames, false)[1], "do_syscall inner<T> work main 3");
    let sample = frames.samples().next().unwrap();
    let inner = sample.stack().next().unwrap();
    assert_eq!(
        (inner.file, inner.line, inner.address, inner.inlined),
        ("work.c", 7, 0x1100, true)
    );
    let inlined: Vec<bool> = sample.stack().map(|frame| frame.inlined).collect();
    assert_eq!(inlined, [true, false, false]);
}

#[test]
fn functions_say_what_their_code_is() {
    let profile = example::profile();
    let frames = Frames::new(&profile);
    let functions: Vec<_> = frames
        .functions()
        .map(|function| (function.name.as_ref(), function.module(), function.kind))
        .collect();
    assert_eq!(
        functions,
        [
            ("main", "app", FrameKind::Native),
            ("inner<T>", "app", FrameKind::Native),
            ("work", "app", FrameKind::Native),
            ("do_syscall", "[kernel.kallsyms]", FrameKind::Kernel),
            ("0x7f00 [libfoo.so]", "libfoo.so", FrameKind::Unnamed),
            ("[unwind stopped: no_row]", "", FrameKind::Stopped),
        ]
    );
    assert_eq!(
        frames.functions().last().unwrap().stop_reason(),
        Some("no_row")
    );
    assert_eq!(kind(Some("f"), "jit", 1), FrameKind::Generated);
    assert_eq!(kind(Some("f"), "", 1 << 63), FrameKind::Kernel);
    assert_eq!(kind(None, "[kernel.kallsyms]", 1), FrameKind::Kernel);
    assert_eq!(
        kind(Some("[unwind stopped: no_row"), "", 1),
        FrameKind::Native
    );
}

#[test]
fn code_without_a_name_is_called_by_its_address() {
    assert_eq!(
        address_name(0x12, "/lib/a b.so (deleted)"),
        "0x12 [a b.so (deleted)]"
    );
    assert_eq!(address_name(0x12, "[vdso]"), "0x12 [vdso]");
    assert_eq!(address_name(0x12, ""), "0x12");
    assert_eq!(address_name(0, "libfoo.so"), "0x0 [libfoo.so]");
    assert_eq!(address_name(0, ""), "[unknown]");
}

#[test]
fn a_system_name_stands_in_for_a_missing_one() {
    let mut profile = example::profile();
    let function = profile
        .function
        .iter_mut()
        .find(|function| function.id == 3)
        .unwrap();
    assert_ne!(function.name, function.system_name);
    function.name = 0;
    let frames = Frames::new(&profile);
    assert!(
        frames
            .functions()
            .any(|function| function.name == "_Zinner")
    );
}

#[test]
fn labels_are_text_or_numbers() {
    let profile = example::profile();
    let frames = Frames::new(&profile);
    let sample = frames.samples().nth(1).unwrap();
    assert_eq!(
        sample.labels().collect::<Vec<_>>(),
        [
            ("pid", LabelValue::Number(10)),
            ("thread_id", LabelValue::Number(11)),
            ("comm", LabelValue::Text("app")),
            ("thread_name", LabelValue::Text("worker")),
            ("node", LabelValue::Text("n1")),
        ]
    );
    assert_eq!(
        (sample.number("pid"), sample.label("pid")),
        (Some(10), None)
    );
    assert_eq!(
        (sample.number("comm"), sample.label("comm")),
        (None, Some("app"))
    );
    assert_eq!(
        sample.owner(),
        Owner {
            comm: "app",
            pid: Some(10)
        }
    );
    assert_eq!(frames.cpu_period(), Some(10_000_000));
    assert_eq!(
        frames.comments().collect::<Vec<_>>(),
        ["dropped: ring_full: 7", "kernel 6.1"]
    );
}

#[test]
fn the_default_sample_type_counts_else_the_last() {
    let mut profile = example::foreign(&["a"]);
    let chosen = |profile: &Profile| {
        let frames = Frames::new(profile);
        let value = frames.samples().next().unwrap().value();
        (
            frames.value().kind.to_owned(),
            frames.value().unit.to_owned(),
            value,
        )
    };
    assert_eq!(
        chosen(&profile),
        ("space".to_owned(), "bytes".to_owned(), 100)
    );
    profile.default_sample_type = 1;
    assert_eq!(
        chosen(&profile),
        ("objects".to_owned(), "count".to_owned(), 1)
    );
    profile.default_sample_type = 5;
    assert_eq!(chosen(&profile).0, "space", "no value is called root");
    assert_eq!(Frames::new(&profile).cpu_period(), None);
}
