use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::proto::{Function, Label, Location, Mapping, Sample};
use crate::{encode, example, write_gzip};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn refused(profile: &Profile) -> ReadError {
    read(&encode(profile)).unwrap_err()
}

#[test]
fn gzip_and_plain_are_told_apart() {
    let profile = example::profile();
    assert_eq!(read(&write_gzip(&profile)).unwrap(), profile);
    assert_eq!(read(&encode(&profile)).unwrap(), profile);
    let plain = encode(&profile);
    let (head, tail) = plain.split_at(plain.len() / 2);
    let members = [gzip(head), gzip(tail)].concat();
    assert_eq!(read(&members).unwrap(), profile, "several gzip members");
}

#[test]
fn other_tools_profiles_are_read() {
    let profile = example::foreign(&["a", "b"]);
    assert_eq!(read(&encode(&profile)).unwrap(), profile);
    let mut loose = example::profile();
    loose.function.clear();
    loose.mapping.clear();
    assert_eq!(
        read(&encode(&loose)).unwrap(),
        loose,
        "functions and mappings are missing"
    );
}

#[test]
fn strings_that_are_not_utf8_get_replacement_characters() {
    let mut profile = example::profile();
    let index = profile
        .string_table
        .iter()
        .position(|string| string == "work.c")
        .unwrap();
    let plain = encode(&profile);
    let at = plain
        .windows(6)
        .position(|window| window == b"work.c")
        .unwrap();
    let mut broken = plain;
    broken[at] = 0xff;
    profile.string_table[index] = "\u{fffd}ork.c".to_owned();
    assert_eq!(read(&broken).unwrap(), profile);
}

#[test]
fn what_is_no_profile_is_refused() {
    assert!(matches!(read(b""), Err(ReadError::Empty)));
    assert!(matches!(read(&gzip(b"")), Err(ReadError::Empty)));
    assert!(matches!(
        read(b"\x7fELF\x02\x01\x01\0"),
        Err(ReadError::Wire { offset: 0 })
    ));
    assert!(matches!(
        read(b"main;work 12\nmain;idle 3\n"),
        Err(ReadError::Wire { .. })
    ));
    assert!(matches!(read(b"{\"a\": 1}"), Err(ReadError::Wire { .. })));
    let whole = write_gzip(&example::profile());
    for length in 1..whole.len() {
        assert!(read(&whole[..length]).is_err(), "cut after {length} bytes");
    }
    assert!(matches!(
        read(&whole[..whole.len() - 9]),
        Err(ReadError::Gzip(_))
    ));
    let mut damaged = whole.clone();
    let crc = damaged.len() - 5;
    damaged[crc] ^= 1;
    assert!(matches!(read(&damaged), Err(ReadError::Gzip(_))));
    // A string where a number belongs.
    assert!(matches!(
        read(&[0x32, 0, 0x4a, 1, b'x']),
        Err(ReadError::Message(_))
    ));
    assert!(matches!(read(&[0x48, 1]), Err(ReadError::StringTable)));
    assert!(matches!(
        read(&[0x32, 1, b'x']),
        Err(ReadError::StringTable)
    ));
}

#[test]
fn references_that_lead_nowhere_are_refused() {
    let mut profile = example::profile();
    profile.sample[1].location_id.push(99);
    let error = refused(&profile);
    assert!(
        matches!(error, ReadError::MissingLocation { sample: 1, id: 99 }),
        "{error}"
    );

    let strings = example::profile().string_table.len();
    type Break = fn(&mut Profile, i64);
    let breaks: [Break; 12] = [
        |profile, index| profile.sample_type[0].r#type = index,
        |profile, index| profile.sample_type[0].unit = index,
        |profile, index| profile.period_type.as_mut().unwrap().unit = index,
        |profile, index| profile.sample[0].label[0].key = index,
        |profile, index| profile.sample[0].label[0].str = index,
        |profile, index| profile.sample[0].label[0].num_unit = index,
        |profile, index| profile.mapping[0].filename = index,
        |profile, index| profile.mapping[0].build_id = index,
        |profile, index| profile.function[0].name = index,
        |profile, index| profile.function[0].filename = index,
        |profile, index| profile.comment[0] = index,
        |profile, index| profile.default_sample_type = index,
    ];
    for (number, break_it) in breaks.iter().enumerate() {
        for index in [-1, strings as i64, i64::MAX, i64::MIN] {
            let mut profile = example::profile();
            break_it(&mut profile, index);
            match refused(&profile) {
                ReadError::StringIndex {
                    index: found,
                    strings: count,
                    ..
                } => {
                    assert_eq!((found, count), (index, strings), "break {number}");
                }
                other => panic!("break {number}: {other}"),
            }
        }
    }
}

#[test]
fn ids_are_unique_and_not_zero() {
    let mut profile = example::profile();
    profile.function.push(Function {
        id: 2,
        ..Function::default()
    });
    assert!(matches!(
        refused(&profile),
        ReadError::DuplicateId {
            table: "function",
            id: 2
        }
    ));
    let mut profile = example::profile();
    profile.location.push(Location::default());
    assert!(matches!(
        refused(&profile),
        ReadError::ZeroId { table: "location" }
    ));
    let mut profile = example::profile();
    profile.mapping.push(Mapping {
        id: 1,
        ..Mapping::default()
    });
    assert!(matches!(
        refused(&profile),
        ReadError::DuplicateId {
            table: "mapping",
            id: 1
        }
    ));
}

#[test]
fn each_sample_has_a_value_for_each_type() {
    let mut profile = example::profile();
    profile.sample[2].value.push(1);
    let error = refused(&profile);
    assert!(
        matches!(
            error,
            ReadError::Values {
                sample: 2,
                values: 2,
                types: 1
            }
        ),
        "{error}"
    );
    let mut profile = example::profile();
    profile.sample_type.clear();
    profile
        .sample
        .iter_mut()
        .for_each(|sample| sample.value.clear());
    assert!(matches!(
        refused(&profile),
        ReadError::Values { types: 0, .. }
    ));
}

#[test]
fn what_is_too_large_is_refused_before_it_is_there() {
    let limits = Limits {
        decompressed: 1 << 20,
        memory: 1 << 20,
    };
    let bomb = gzip(&vec![0u8; 64 << 20]);
    assert!(bomb.len() < 1 << 17);
    assert!(matches!(
        read_within(&bomb, limits),
        Err(ReadError::TooLarge { limit: 1_048_576 })
    ));
    let plain = vec![0u8; (1 << 20) + 1];
    assert!(matches!(
        read_within(&plain, limits),
        Err(ReadError::TooLarge { .. })
    ));
    // Two bytes each, 72 as messages.
    let samples = [0x12, 0].repeat(1 << 18);
    match read_within(&samples, limits) {
        Err(ReadError::TooMuchMemory { needed, limit }) => {
            assert_eq!((needed, limit), ((2 * size_of::<Sample>()) << 18, 1 << 20));
        }
        other => panic!("{other:?}"),
    }
    // A byte each, 8 as numbers.
    let ids = vec![1u8; 200_000];
    let sample = [&[0x0a][..], &[0xc0, 0x9a, 0x0c], &ids].concat();
    let length = sample.len() as u32;
    let mut profile = vec![0x12];
    prost::encoding::encode_varint(length.into(), &mut profile);
    profile.extend(&sample);
    assert!(matches!(
        read_within(&profile, limits),
        Err(ReadError::TooMuchMemory { .. })
    ));
}

#[test]
fn the_survey_covers_what_decoding_allocates() {
    let profile = example::profile();
    let survey = wire::survey(&encode(&profile)).unwrap();
    let held = profile.sample.capacity() * size_of::<Sample>()
        + profile
            .sample
            .iter()
            .map(|sample| 16 * sample.location_id.len() + size_of::<Label>() * sample.label.len())
            .sum::<usize>()
        + profile.location.len() * size_of::<Location>()
        + profile.function.len() * size_of::<Function>()
        + profile.mapping.len() * size_of::<Mapping>()
        + profile
            .string_table
            .iter()
            .map(|string| 24 + string.len())
            .sum::<usize>();
    assert!(survey.memory >= held, "{} < {held}", survey.memory);
    assert!(survey.all_utf8);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes);
        let _ = read(&gzip(&bytes));
    }

    #[test]
    fn a_damaged_profile_is_read_or_refused(
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode(&example::profile());
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(profile) = read(&bytes) {
            // What was read serves every view.
            let frames = crate::Frames::new(&profile);
            let summary = crate::Summary::new(&frames);
            crate::text::write(&frames, &summary, "x", crate::text::Layout::default(), Vec::new()).unwrap();
            crate::json::write(&frames, &summary, Vec::new()).unwrap();
            crate::folded::write(&frames, Vec::new()).unwrap();
            crate::speedscope::write(&frames, "x", Vec::new()).unwrap();
            crate::svg::write(&frames, "x", Vec::new()).unwrap();
        }
        bytes.truncate(cut.index(bytes.len()));
        let _ = read(&bytes);
    }
}
