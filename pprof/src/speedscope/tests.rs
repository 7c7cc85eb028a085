use serde_json::{Value, json};

use super::*;
use crate::example;
use crate::proto::Profile;

fn written(profile: &Profile) -> Value {
    let mut bytes = Vec::new();
    write(&Frames::new(profile), "a.pb.gz", &mut bytes).unwrap();
    let file = serde_json::from_slice(&bytes).unwrap();
    check(&file);
    file
}

/// The rules of the schema for sampled profiles, and those that speedscope's importer holds beyond it.
fn check(file: &Value) {
    let keys = |value: &Value, known: &[&str]| {
        for key in value.as_object().unwrap().keys() {
            assert!(known.contains(&key.as_str()), "{key} is not in the schema");
        }
    };
    keys(
        file,
        &[
            "$schema",
            "shared",
            "profiles",
            "name",
            "activeProfileIndex",
            "exporter",
        ],
    );
    assert_eq!(
        file["$schema"],
        "https://www.speedscope.app/file-format-schema.json"
    );
    let shared = file["shared"]["frames"].as_array().unwrap();
    for frame in shared {
        keys(frame, &["name", "file", "line", "col"]);
        assert!(frame["name"].is_string());
        assert!(frame.get("line").is_none_or(Value::is_u64));
        assert!(frame.get("file").is_none_or(Value::is_string));
    }
    let active = file["activeProfileIndex"].as_u64().unwrap() as usize;
    let profiles = file["profiles"].as_array().unwrap();
    assert!(active < profiles.len().max(1));
    for profile in profiles {
        keys(
            profile,
            &[
                "type",
                "name",
                "unit",
                "startValue",
                "endValue",
                "samples",
                "weights",
            ],
        );
        assert_eq!(profile["type"], "sampled");
        assert!(profile["name"].is_string());
        let units = [
            "none",
            "nanoseconds",
            "microseconds",
            "milliseconds",
            "seconds",
            "bytes",
        ];
        assert!(units.contains(&profile["unit"].as_str().unwrap()));
        let samples = profile["samples"].as_array().unwrap();
        let weights = profile["weights"].as_array().unwrap();
        assert_eq!(samples.len(), weights.len());
        for index in samples.iter().flat_map(|sample| sample.as_array().unwrap()) {
            assert!((index.as_u64().unwrap() as usize) < shared.len());
        }
        let sum: i64 = weights.iter().map(|weight| weight.as_i64().unwrap()).sum();
        assert_eq!(profile["startValue"], 0);
        assert_eq!(profile["endValue"], sum);
    }
}

#[test]
fn processes_are_profiles_the_heaviest_first() {
    let file = written(&example::profile());
    let profiles = file["profiles"].as_array().unwrap();
    let about: Vec<_> = profiles
        .iter()
        .map(|profile| {
            (
                profile["name"].as_str().unwrap(),
                profile["endValue"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        about,
        [
            ("app (10)", 90_000_000),
            ("app (12)", 20_000_000),
            ("db (20)", 10_000_000)
        ]
    );
    assert_eq!(profiles[0]["unit"], "nanoseconds");
    assert_eq!(profiles[0]["weights"], json!([60_000_000, 30_000_000]));
    let name = |index: &Value| &file["shared"]["frames"][index.as_u64().unwrap() as usize];
    let second: Vec<_> = profiles[0]["samples"][1]
        .as_array()
        .unwrap()
        .iter()
        .map(name)
        .collect();
    assert_eq!(
        second[0],
        &json!({"name": "main", "file": "main.c", "line": 5})
    );
    assert_eq!(second[3], &json!({"name": "do_syscall"}));
}

#[test]
fn the_threads_of_a_single_process_are_profiles() {
    let mut profile = example::profile();
    profile.sample.truncate(2);
    let file = written(&profile);
    let names: Vec<_> = file["profiles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|profile| &profile["name"])
        .collect();
    assert_eq!(names, ["app (10): worker (10)", "app (10): worker (11)"]);
}

#[test]
fn other_values_keep_their_unit() {
    let mut profile = example::foreign(&["a\"\\\n\u{0}</script>", "b"]);
    let file = written(&profile);
    assert_eq!(file["profiles"].as_array().unwrap().len(), 1);
    assert_eq!(file["profiles"][0]["unit"], "bytes");
    assert_eq!(file["profiles"][0]["name"], "a.pb.gz");
    assert_eq!(file["shared"]["frames"][1]["name"], "a\"\\\n\u{0}</script>");
    profile.default_sample_type = 1;
    assert_eq!(written(&profile)["profiles"][0]["unit"], "none");
}

#[test]
fn nothing_is_a_file_too() {
    let mut profile = example::profile();
    profile.sample.clear();
    assert_eq!(written(&profile)["profiles"], json!([]));
}
