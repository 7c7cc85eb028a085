//! The Rust messages against the vendored `profile.proto`.

use std::collections::BTreeMap;

use prost::Message;

use super::{Function, Label, Line, Location, Mapping, Profile, Sample, ValueType};

const PROTO: &str = include_str!("../../proto/profile.proto");
const RUST: &str = include_str!("../proto.rs");

/// Message name -> field name -> (number, type), where a repeated field's type begins with `repeated `.
type Messages = BTreeMap<String, BTreeMap<String, (u32, String)>>;

fn from_proto() -> Messages {
    let mut messages = Messages::new();
    let mut current = String::new();
    for line in PROTO.lines() {
        let line = line.split("//").next().unwrap().trim();
        if let Some(rest) = line.strip_prefix("message ") {
            current = rest.trim_end_matches('{').trim().to_owned();
            messages.insert(current.clone(), BTreeMap::new());
        } else if let (Some((left, right)), false) = (line.split_once('='), current.is_empty()) {
            let (kind, name) = left.trim().rsplit_once(' ').unwrap();
            let number = right.trim().trim_end_matches(';').parse().unwrap();
            let fields = messages.get_mut(&current).unwrap();
            fields.insert(name.to_owned(), (number, kind.trim().to_owned()));
        }
    }
    messages
}

fn from_rust() -> Messages {
    let mut messages = Messages::new();
    let mut current = String::new();
    let mut attribute = String::new();
    for line in RUST.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            current = rest.trim_end_matches(" {").to_owned();
            messages.insert(current.clone(), BTreeMap::new());
        } else if let Some(rest) = line.strip_prefix("#[prost(") {
            attribute = rest.trim_end_matches(")]").to_owned();
        } else if let Some((name, rust)) = line
            .strip_prefix("pub ")
            .and_then(|field| field.split_once(": "))
        {
            let mut parts = attribute.split(", ");
            let mut kind = parts.next().unwrap().to_owned();
            if kind == "message" {
                kind = rust
                    .trim_end_matches([',', '>'])
                    .rsplit('<')
                    .next()
                    .unwrap()
                    .to_owned();
            }
            if attribute.contains("repeated") {
                kind = format!("repeated {kind}");
            }
            let number = attribute.split("tag = \"").nth(1).unwrap();
            let number = number.trim_end_matches('"').parse().unwrap();
            let name = name.trim_start_matches("r#").to_owned();
            messages
                .get_mut(&current)
                .unwrap()
                .insert(name, (number, kind));
        }
    }
    messages
}

#[test]
fn the_rust_messages_are_those_of_the_proto_file() {
    let proto = from_proto();
    assert_eq!(proto.len(), 8, "messages of profile.proto: {proto:?}");
    assert_eq!(proto["Profile"].len(), 15);
    assert_eq!(from_rust(), proto);
}

#[test]
fn a_field_is_encoded_under_its_number() {
    // Key byte = number << 3 | wire type: 0 a number, 2 bytes.
    let profile = Profile {
        string_table: vec![String::new()],
        doc_url: 9,
        ..Profile::default()
    };
    assert_eq!(profile.encode_to_vec(), [6 << 3 | 2, 0, 15 << 3, 9]);
    let sample = Sample {
        location_id: vec![1, 300],
        value: vec![7],
        label: vec![Label {
            key: 1,
            str: 0,
            num: 5,
            num_unit: 0,
        }],
    };
    assert_eq!(
        sample.encode_to_vec(),
        [0x0a, 3, 1, 0xac, 2, 0x12, 1, 7, 0x1a, 4, 8, 1, 0x18, 5]
    );
    let mapping = Mapping {
        has_inline_frames: true,
        ..Mapping::default()
    };
    assert_eq!(mapping.encode_to_vec(), [10 << 3, 1]);
    assert!(Function::default().encode_to_vec().is_empty());
    assert!(Location::default().encode_to_vec().is_empty());
    assert!(Line::default().encode_to_vec().is_empty());
    assert!(ValueType::default().encode_to_vec().is_empty());
}
