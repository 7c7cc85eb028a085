use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::example;
use crate::proto::Profile;

fn folded(profile: &Profile) -> String {
    let mut text = Vec::new();
    write(&Frames::new(profile), &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_line_is_a_process_its_stack_and_a_count() {
    let text = "\
app;main;0x7f00 [libfoo.so] 2
app;main;work;inner<T> 6
app;main;work;inner<T>;do_syscall 3
db;[unwind stopped: no_row];main 1
";
    assert_eq!(folded(&example::profile()), text);
}

#[test]
fn a_profile_without_processes_begins_at_the_root() {
    assert_eq!(
        folded(&example::foreign(&["b", "a"])),
        "root;a 100\nroot;b 100\n"
    );
}

#[test]
fn names_cannot_end_a_name_or_a_line() {
    let hostile = example::foreign(&["a;b\nroot;x 9\r\x1b[2J\u{85}"]);
    assert_eq!(folded(&hostile), "root;a:b root:x 9  [2J  100\n");
    let equal = example::foreign(&["a;b", "a:b"]);
    assert_eq!(folded(&equal), "root;a:b 200\n");
}

#[test]
fn stacks_without_a_positive_value_are_left_out() {
    let mut profile = example::foreign(&["a", "b", "c"]);
    profile.sample[0].value[1] = 0;
    profile.sample[1].value[1] = -3;
    assert_eq!(folded(&profile), "root;c 100\n");
}

proptest! {
    #[test]
    fn every_line_reads_back(names in vec("[a-c; \n1]{1,4}", 1..10)) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let text = folded(&example::foreign(&names));
        let mut counts: HashMap<String, i64> = HashMap::new();
        for name in &names {
            *counts.entry(name.replace(';', ":").replace('\n', " ")).or_default() += 100;
        }
        let read: HashMap<String, i64> = text
            .lines()
            .map(|line| {
                let (stack, count) = line.rsplit_once(' ').unwrap();
                let (root, leaf) = stack.split_once(';').unwrap();
                assert_eq!(root, "root");
                (leaf.to_owned(), count.parse().unwrap())
            })
            .collect();
        prop_assert_eq!(read, counts);
    }
}
