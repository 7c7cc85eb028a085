use serde_json::{Value, json};

use super::*;
use crate::example;
use crate::proto::Profile;

const DESCRIPTION: &str = include_str!("../../../docs/REPORT-JSON.md");

fn written(profile: &Profile) -> Value {
    let frames = Frames::new(profile);
    let mut bytes = Vec::new();
    write(&frames, &Summary::new(&frames), &mut bytes).unwrap();
    assert_eq!(bytes.last(), Some(&b'\n'));
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn a_summary_is_one_object() {
    let mut report = written(&example::profile());
    let functions = report["functions"].take();
    assert_eq!(
        report,
        json!({
            "version": 1,
            "value": {"type": "samples", "unit": "count"},
            "other_values": [],
            "period": {"type": "cpu", "unit": "nanoseconds", "every": 10_000_000},
            "time_nanos": example::TIME,
            "duration_nanos": 10_000_000_000i64,
            "total": 12,
            "stacks": 4,
            "incomplete": 1,
            "stop_reasons": {"no_row": 1},
            "unnamed": 2,
            "dropped": {"ring_full": 7},
            "comments": ["kernel 6.1"],
            "processes": [
                {"pid": 10, "comm": "app", "threads": 2, "total": 9},
                {"pid": 12, "comm": "app", "threads": 1, "total": 2},
                {"pid": 20, "comm": "db", "threads": 1, "total": 1},
            ],
            "functions": null,
        })
    );
    assert_eq!(functions.as_array().unwrap().len(), 5);
    assert_eq!(
        functions[0],
        json!({
            "name": "inner<T>",
            "mapping": "/usr/bin/app",
            "kind": "native",
            "self": 6,
            "cumulative": 9,
        })
    );
}

#[test]
fn other_tools_profiles_leave_out_what_they_do_not_say() {
    let report = written(&example::foreign(&["a"]));
    assert_eq!(report["value"], json!({"type": "space", "unit": "bytes"}));
    assert_eq!(
        report["other_values"],
        json!([{"type": "objects", "unit": "count"}])
    );
    assert_eq!(
        (&report["period"], &report["processes"]),
        (&Value::Null, &json!([]))
    );
}

#[test]
fn every_field_is_described() {
    let report = written(&example::profile());
    let fields = |value: &Value, prefix: &str| -> Vec<String> {
        let keys = value.as_object().unwrap().keys();
        keys.map(|key| format!("{prefix}{key}")).collect()
    };
    let mut written = fields(&report, "");
    written.extend(fields(&report["processes"][0], "processes[]."));
    written.extend(fields(&report["functions"][0], "functions[]."));
    written.sort();
    let mut described: Vec<String> = DESCRIPTION
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .collect();
    described.sort();
    assert_eq!(written, described);
}
