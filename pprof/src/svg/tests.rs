use super::*;
use crate::example;
use crate::proto::Profile;

fn picture(profile: &Profile) -> String {
    let mut bytes = Vec::new();
    write(&Frames::new(profile), "out <1> & co", &mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    check_xml(&text);
    text
}

/// Tags are closed in order, outside of the script; names are where names may be.
fn check_xml(text: &str) {
    let (head, rest) = text.split_once("<![CDATA[").unwrap();
    let (script, tail) = rest.split_once("]]>").unwrap();
    assert!(!script.contains("]]>"));
    let mut open = Vec::new();
    let markup = format!("{head}{tail}");
    let mut rest = markup
        .strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"no\"?>")
        .unwrap();
    while let Some((between, after)) = rest.split_once('<') {
        assert!(
            !between.contains('>') || open.last() == Some(&"style"),
            "{between}"
        );
        let (tag, after) = after.split_once('>').unwrap();
        assert!(tag.matches('"').count().is_multiple_of(2), "{tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap());
        }
        rest = after;
    }
    assert!(open.is_empty(), "{open:?}");
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
}

fn boxes(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| line.starts_with("<g data-start"))
        .collect()
}

#[test]
fn boxes_are_as_wide_as_their_share_and_stand_below_their_callers() {
    let text = picture(&example::profile());
    let boxes = boxes(&text);
    assert_eq!(boxes.len(), 10);
    let the = |name: &str| {
        let name = format!("data-name=\"{name}\"");
        *boxes.iter().find(|line| line.contains(&name)).unwrap()
    };
    let all = the("all");
    assert!(all.contains(r#"data-start="0" data-value="12""#), "{all}");
    assert!(
        all.contains(r#"class="root" x="10.00" y="54" width="1180.00""#),
        "{all}"
    );
    let syscall = the("do_syscall");
    assert!(
        syscall
            .contains("<title>do_syscall: 3 samples, 30.0 ms, 25.0 % - [kernel.kallsyms]</title>"),
        "{syscall}"
    );
    assert!(
        syscall.contains(r#"class="kernel" x="10.00" y="139" width="295.00""#),
        "{syscall}"
    );
    assert!(the("app").contains("class=\"process\""));
    assert!(the("[unwind stopped: no_row]").contains("class=\"stopped\""));
    assert!(the("0x7f00 [libfoo.so]").contains("class=\"unnamed\""));
    assert!(text.contains("<title>out &lt;1&gt; &amp; co</title>"));
}

#[test]
fn hostile_names_stay_text() {
    let text = picture(&example::foreign(&[
        "</title><script>alert(1)</script>",
        "\" onload=\"alert(1)",
        "]]><svg onload='alert(1)'>",
        "\x1b[2J\0\u{fffe}\n\u{202e}",
    ]));
    assert_eq!(text.matches("<script").count(), 1);
    assert!(!text.contains("<svg onload"));
    assert!(text.contains("data-name=\"&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;\""));
    assert!(text.contains("data-name=\"&quot; onload=&quot;alert(1)\""));
    assert!(!text.contains('\u{fffe}'));
}

#[test]
fn boxes_too_narrow_to_see_are_left_out_and_counted() {
    let mut profile = example::foreign(&["wide", "narrow"]);
    profile.sample[0].value[1] = 1_000_000;
    profile.sample[1].value[1] = 1;
    let text = picture(&profile);
    assert!(!text.contains("narrow\""));
    assert!(text.contains("1 box too narrow to see is left out."));
}

#[test]
fn nothing_is_a_picture_too() {
    let mut profile = example::profile();
    profile.sample.clear();
    assert_eq!(boxes(&picture(&profile)).len(), 1);
}

#[test]
fn names_are_cut_to_their_box() {
    assert_eq!(fitting("function", 100.0), "function");
    assert_eq!(fitting("function", 50.0), "func..");
    assert_eq!(fitting("function", 20.0), "");
    assert_eq!(fitting("größe_der_welt", 60.0), "größe..");
}
