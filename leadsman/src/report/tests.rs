use std::path::PathBuf;

use super::*;
use pprof::{Builder, Labels, Line, Meta};

fn arguments(file: impl Into<PathBuf>) -> Arguments {
    Arguments {
        file: file.into(),
        format: Format::Text,
        rows: 20,
        sample_type: None,
    }
}

fn profile() -> Profile {
    let mut builder = Builder::new(Meta {
        frequency: 100,
        ..Meta::default()
    });
    let function = builder.function("main", "main", "");
    let line = Line { function, line: 1 };
    let location = builder.location(None, 1, &[line]);
    let labels = Labels {
        comm: "app",
        ..Labels::default()
    };
    builder.sample(&[location], &labels, 5);
    builder.finish()
}

fn written(format: Format) -> String {
    let profile = profile();
    let arguments = Arguments {
        format,
        ..arguments("out.pb.gz")
    };
    let mut output = Vec::new();
    let layout = Layout::default();
    write(
        &frames(&profile, &arguments).unwrap(),
        &arguments,
        layout,
        &mut output,
    )
    .unwrap();
    String::from_utf8(output).unwrap()
}

#[test]
fn each_format_is_written() {
    assert!(written(Format::Text).starts_with("Profile    out.pb.gz\n"));
    assert_eq!(written(Format::Folded), "app;main 5\n");
    let json: serde_json::Value = serde_json::from_str(&written(Format::Json)).unwrap();
    assert_eq!(
        (&json["total"], &json["functions"][0]["name"]),
        (&5.into(), &"main".into())
    );
}

#[test]
fn a_profile_is_read_from_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pb.gz");
    std::fs::write(&path, pprof::write_gzip(&profile())).unwrap();
    assert_eq!(read(&path).unwrap(), profile());
    std::fs::write(&path, pprof::encode(&profile())).unwrap();
    assert_eq!(read(&path).unwrap(), profile());
}

#[test]
fn a_file_that_is_no_profile_gets_one_line_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    };
    for path in [
        file("empty", b""),
        file("text", b"nothing of the kind\n"),
        file("elf", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"),
        file("cut", &pprof::write_gzip(&profile())[..30]),
        directory.path().join("missing"),
        directory.path().to_path_buf(),
    ] {
        let line = read(&path).unwrap_err().to_string();
        assert!(line.contains(&path.display().to_string()), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}

#[test]
fn a_value_can_be_chosen() {
    let profile = profile();
    let chosen = |wanted: &str| {
        let arguments = Arguments {
            sample_type: Some(wanted.to_owned()),
            ..arguments("a.pb.gz")
        };
        frames(&profile, &arguments).map(|frames| frames.value().index)
    };
    assert_eq!(chosen("samples").unwrap(), 0);
    let refused = chosen("space").unwrap_err().to_string();
    assert_eq!(refused, "a.pb.gz has no sample type space; it has samples");
}
