use super::*;
use crate::example;
use crate::proto::Profile;

fn report(profile: &Profile, layout: Layout) -> String {
    let frames = Frames::new(profile);
    let mut text = Vec::new();
    write(
        &frames,
        &Summary::new(&frames),
        "out.pb.gz",
        layout,
        &mut text,
    )
    .unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_report_is_totals_and_three_tables() {
    let text = "\
Profile    out.pb.gz
Values     samples/count, sampled each 10.0 ms of CPU time (100 Hz)
Taken      2026-11-24 13:52:38 UTC, for 10.0 s
Total      12 samples, 120 ms of CPU time, in 4 distinct stacks
Processes  3
Incomplete 8.3 % (no_row 8.3 %)
Unnamed    16.7 % have a leaf without a name
Dropped    ring_full 7
Comment    kernel 6.1

Processes
  TOTAL   SHARE  THREADS        PID  NAME
     11  91.7 %        3  2 of them  app
      1   8.3 %        1         20  db

Functions by self (2 of 5)
  SELF   SHARE  CUMULATIVE   SHARE  FUNCTION
     6  50.0 %           9  75.0 %  inner<T> [app]
     3  25.0 %           3  25.0 %  do_syscall [kernel]

Functions by cumulative (2 of 5)
  SELF   SHARE  CUMULATIVE    SHARE  FUNCTION
     1   8.3 %          12  100.0 %  main [app]
     6  50.0 %           9   75.0 %  inner<T> [app]
";
    let layout = Layout {
        rows: 2,
        ..Layout::default()
    };
    assert_eq!(report(&example::profile(), layout), text);
}

#[test]
fn other_tools_profiles_say_which_value_is_shown() {
    let text = report(&example::foreign(&["a"]), Layout::default());
    assert!(
        text.contains("Values     space/bytes (also there: objects/count)\n"),
        "{text}"
    );
    assert!(
        text.contains("Total      100 B in 1 distinct stacks\n"),
        "{text}"
    );
    assert!(!text.contains("Processes"), "{text}");
}

#[test]
fn lines_are_as_wide_as_the_terminal_and_no_wider() {
    let long = "x".repeat(500);
    let profile = example::foreign(&[&long]);
    let widest = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap();
    let layout = |width| Layout {
        width,
        ..Layout::default()
    };
    let cut = report(&profile, layout(Some(80)));
    assert_eq!(widest(&cut), 80);
    assert!(cut.contains("x…\n"));
    assert!(report(&profile, layout(None)).contains(&long));
    assert!(widest(&report(&example::profile(), layout(Some(80)))) <= 80);
}

#[test]
fn names_cannot_command_the_terminal() {
    let hostile = "\x1b]0;owned\x07\x1b[2J\rfake\n\u{9b}31m\u{202e}abc";
    let mut profile = example::foreign(&[hostile]);
    profile.comment = vec![6];
    let text = report(&profile, Layout::default());
    assert!(
        !text.contains(|c: char| c.is_control() && c != '\n'),
        "{text:?}"
    );
    assert!(!text.contains('\u{202e}'));
    assert!(text.contains("\\u{1b}]0;owned\\u{7}\\u{1b}[2J\\rfake\\n\\u{9b}31m\\u{202e}abc"));
    assert_eq!(printable("größe<T>"), "größe<T>");
}
