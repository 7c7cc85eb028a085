//! Random tables survive the way through bytes, and no flipped byte leads a look-up out of bounds.

use leadsman_ebpf::limits::{CHUNK_BYTES, CHUNK_SPAN, REGION_BITS};
use leadsman_ebpf::rule::{Kind, Rule};
use leadsman_ebpf::short_rule::ShortRule;
use leadsman_ebpf::table::{CHUNK_HEADER, Chunk, chunk_bytes};
use proptest::prelude::*;

use super::*;

/// A chunk of rows given as (address within the chunk, rule number); rules without a short form come first.
fn chunk(rules: &[Rule], rows: &[(u16, u8)]) -> [u8; CHUNK_BYTES] {
    let short: Vec<_> = rules.iter().copied().filter_map(ShortRule::of).collect();
    let long = &rules[..rules.len() - short.len()];
    assert!(long.iter().all(|rule| ShortRule::of(*rule).is_none()));
    let mut bytes = vec![long.len() as u8, short.len() as u8];
    bytes.extend_from_slice(&(rows.len() as u16).to_le_bytes());
    bytes.resize(CHUNK_HEADER, 0);
    bytes.extend(long.iter().flat_map(|rule| rule.0.to_le_bytes()));
    bytes.extend(short.iter().flat_map(|rule| rule.0.to_le_bytes()));
    bytes.extend(rows.iter().flat_map(|(address, _)| address.to_le_bytes()));
    bytes.extend(rows.iter().map(|(_, rule)| rule));
    assert!(bytes.len() <= CHUNK_BYTES, "too much for a chunk");
    bytes.resize(CHUNK_BYTES, 0);
    bytes.try_into().expect("padded to the size of a chunk")
}

fn rule(offset: i32) -> Rule {
    Rule::new(Kind::register(7), offset, 0, [0; 5]).expect("in range")
}

/// A rule that needs 64 bits: rbx saved apart from the return address.
fn long_rule(offset: i32) -> Rule {
    Rule::new(Kind::register(7), offset, 0, [9, 0, 0, 0, 0]).expect("in range")
}

/// Two regions with rows, one without between them.
fn example() -> Vec<u8> {
    let mut writer = TableWriter::default();
    writer.begin_region(1);
    writer.push_chunk(
        0x20,
        &chunk(&[rule(8), rule(16)], &[(0, 0), (7, 1), (9, 0)]),
    );
    writer.push_chunk(
        0x8000,
        &chunk(&[long_rule(24), Rule::UNCOVERED], &[(0, 0), (100, 1)]),
    );
    writer.begin_region(2);
    writer.begin_region(5);
    writer.push_chunk(0, &chunk(&[rule(32)], &[(0, 0)]));
    writer.encode()
}

#[test]
fn a_rule_holds_until_the_next_row() {
    let bytes = example();
    let table = TableFile::open(&bytes).expect("sound");
    table.check_chunks().expect("sound chunks");
    let region = 1 << REGION_BITS;
    for (offset, expected) in [
        (0, None),
        (region + 0x1f, None),
        (region + 0x20, Some(rule(8))),
        (region + 0x26, Some(rule(8))),
        (region + 0x27, Some(rule(16))),
        (region + 0x29, Some(rule(8))),
        (region + 0x7fff, Some(rule(8))),
        (region + 0x8000, Some(long_rule(24))),
        (region + 0x8064, Some(Rule::UNCOVERED)),
        (region + 0xf_ffff, Some(Rule::UNCOVERED)),
        (2 * region, None),
        (3 * region, None),
        (5 * region, Some(rule(32))),
        (5 * region + CHUNK_SPAN, Some(rule(32))),
        (6 * region, None),
        ((1 << 52) + 5 * region, None),
        (u64::MAX, None),
    ] {
        assert_eq!(table.find(offset), expected, "{offset:#x}");
    }
}

#[test]
fn regions_name_their_chunks() {
    let bytes = example();
    let table = TableFile::open(&bytes).expect("sound");
    let regions: Vec<_> = table.regions().collect();
    let shape: Vec<_> = regions
        .iter()
        .map(|(number, region)| {
            (
                *number,
                region.count,
                region.starts[..2].to_vec(),
                region.chunks[..2].to_vec(),
            )
        })
        .collect();
    assert_eq!(
        shape,
        [
            (1, 2, vec![0x20, 0x8000], vec![0, 1]),
            (2, 0, vec![u32::MAX; 2], vec![0, 0]),
            (5, 1, vec![0, u32::MAX], vec![2, 0]),
        ]
    );
    assert_eq!((table.region_count(), table.chunk_count()), (3, 3));
    assert!(table.chunk(3).is_none());
}

#[test]
fn what_is_no_table_is_refused_with_its_reason() {
    let sound = example();
    let with = |place: usize, value: u32| {
        let mut bytes = sound.clone();
        bytes[place..place + 4].copy_from_slice(&value.to_le_bytes());
        TableFile::open(&bytes).map(|_table| ())
    };
    assert_eq!(
        TableFile::open(&[]).map(|_table| ()),
        Err(TableFault::Magic)
    );
    assert_eq!(with(0, 0), Err(TableFault::Magic));
    assert_eq!(with(8, 99), Err(TableFault::Version(99)));
    assert_eq!(with(20, 1), Err(TableFault::Padding));
    assert!(matches!(with(12, u32::MAX), Err(TableFault::Counts { .. })));
    assert!(matches!(with(16, u32::MAX), Err(TableFault::Counts { .. })));
    assert!(matches!(with(16, 4), Err(TableFault::Length { .. })));
    // The second region's number, then the first one's last chunk.
    assert_eq!(with(32, 1), Err(TableFault::Region { nth: 1 }));
    assert_eq!(with(28, 4), Err(TableFault::Region { nth: 0 }));
    assert_eq!(with(44, 2), Err(TableFault::Region { nth: 3 }));
    // The second chunk's start: not behind the first, then outside of its region.
    assert_eq!(with(52, 0x20), Err(TableFault::Start { nth: 1 }));
    assert_eq!(
        with(52, 1 << REGION_BITS),
        Err(TableFault::Start { nth: 1 })
    );
    assert_eq!(with(60, 1), Err(TableFault::Padding));
    let mut longer = sound.clone();
    longer.push(0);
    assert!(matches!(
        TableFile::open(&longer).map(|_table| ()),
        Err(TableFault::Length { .. })
    ));
    for length in 0..sound.len() {
        assert!(TableFile::open(&sound[..length]).is_err(), "{length}");
    }
}

/// What a look-up by the kernel's steps would read: every index inside the chunk.
fn look_ups_stay_inside(chunk: &Chunk) {
    let (long, short) = (chunk.long_rule_count(), chunk.short_rule_count());
    let rows = chunk.row_count().into();
    assert!(chunk_bytes(long.into(), short.into(), rows) <= CHUNK_BYTES);
    for row in 0..rows {
        let (_, rule) = chunk.row(row).expect("a checked chunk has all its rows");
        assert!(rule.is_valid());
    }
    for distance in (0..CHUNK_SPAN)
        .step_by(4099)
        .chain([CHUNK_SPAN - 1, u64::MAX])
    {
        assert!(chunk.find(distance).is_some(), "{distance}");
    }
}

#[test]
fn each_flipped_byte_is_refused_or_harmless() {
    let sound = example();
    let mut refused = 0;
    for place in 0..sound.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = sound.clone();
            bytes[place] ^= flip;
            let Ok(table) = TableFile::open(&bytes) else {
                refused += 1;
                continue;
            };
            for (_, region) in table.regions() {
                assert!(region.starts.is_sorted());
                for &chunk in &region.chunks[..region.count as usize] {
                    assert!((chunk as usize) < table.chunk_count());
                }
            }
            for nth in 0..table.chunk_count() {
                let chunk = table.chunk(nth).expect("counted");
                match chunk.check() {
                    Ok(()) => look_ups_stay_inside(&chunk),
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused > 100, "only {refused} refused");
}

/// Rows of one chunk: ascending addresses from zero, and a rule number each.
fn rows() -> impl Strategy<Value = (Vec<Rule>, Vec<(u16, u8)>)> {
    (
        0_i32..20,
        1_i32..40,
        proptest::collection::btree_map(1_u16.., any::<u8>(), 0..400),
    )
        .prop_map(|(long, short, rows)| {
            let long = (0..long).map(|nth| long_rule(8 * nth));
            let rules: Vec<_> = long.chain((0..short).map(|nth| rule(8 * nth))).collect();
            let numbered = |number: u8| (usize::from(number) % rules.len()) as u8;
            let rows = std::iter::once((0, 0))
                .chain(
                    rows.into_iter()
                        .map(|(address, number)| (address, numbered(number))),
                )
                .collect();
            (rules, rows)
        })
}

proptest! {
    #[test]
    fn a_chunk_finds_what_a_walk_over_its_rows_finds((rules, rows) in rows(), distance in 0_u64..0x2_0000) {
        let chunk = Chunk(chunk(&rules, &rows));
        prop_assert_eq!(chunk.check(), Ok(()));
        let reference = rows.iter().rev().find(|(address, _)| u64::from(*address) <= distance);
        let expected = reference.map(|(_, rule)| rules[usize::from(*rule)]);
        prop_assert_eq!(chunk.find(distance), expected);
    }

    #[test]
    fn random_bytes_are_no_table(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        prop_assert!(TableFile::open(&bytes).is_err());
    }

    #[test]
    fn a_random_directory_is_refused_or_stays_inside(
        fields in proptest::collection::vec(0_u32..6, 10),
        offset in any::<u64>(),
    ) {
        let mut bytes = example();
        for (place, field) in bytes[24..].as_chunks_mut::<4>().0.iter_mut().zip(fields) {
            *place = field.to_le_bytes();
        }
        if let Ok(table) = TableFile::open(&bytes) {
            prop_assert!(table.regions().count() == table.region_count());
            let _rule = table.find(offset);
        }
    }

    #[test]
    fn a_random_chunk_is_refused_or_stays_inside(
        bytes in proptest::collection::vec(any::<u8>(), CHUNK_BYTES),
        long_rules in 0_u8..200,
        short_rules in 0_u8..200,
        rows in 0_u16..700,
    ) {
        let mut bytes: [u8; CHUNK_BYTES] = bytes.try_into().expect("as long as a chunk");
        bytes[0] = long_rules;
        bytes[1] = short_rules;
        bytes[2..4].copy_from_slice(&rows.to_le_bytes());
        let chunk = Chunk(bytes);
        if chunk.check().is_ok() {
            look_ups_stay_inside(&chunk);
        }
        let _rule = chunk.find(17);
    }
}
