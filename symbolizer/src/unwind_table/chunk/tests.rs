//! Packed rows are found again where they were put, through all splits into chunks and regions.

use ipc_proto::table_file::TableFile;
use leadsman_ebpf::rule::Kind;
use proptest::prelude::*;

use super::*;

/// A rule for each number; every third has no short form.
fn rule(number: u32) -> Rule {
    let rbx = if number.is_multiple_of(3) { 9 } else { 0 };
    Rule::new(Kind::register(7), 8 * number as i32, 0, [rbx, 0, 0, 0, 0]).expect("in range")
}

fn pack(rows: &[(u64, Rule)]) -> PackedRows {
    let mut packer = Packer::new(Omissions::default());
    for &(offset, rule) in rows {
        packer.push(offset, rule);
    }
    packer.finish()
}

fn find(packed: &PackedRows, offset: u64) -> Rule {
    let bytes = packed.writer.encode();
    let table = TableFile::open(&bytes).expect("sound");
    table.check_chunks().expect("sound chunks");
    table.find(offset).unwrap_or(Rule::UNCOVERED)
}

/// Checks every row's first and last byte against the rows themselves.
fn assert_same(rows: &[(u64, Rule)], packed: &PackedRows) {
    let bytes = packed.writer.encode();
    let table = TableFile::open(&bytes).expect("sound");
    table.check_chunks().expect("sound chunks");
    for (nth, &(offset, rule)) in rows.iter().enumerate() {
        let behind = rows.get(nth + 1).map_or(offset + 1, |(next, _)| *next);
        for offset in [offset, behind - 1] {
            let found = table.find(offset).unwrap_or(Rule::UNCOVERED);
            assert_eq!(found, rule, "{offset:#x}");
        }
    }
}

#[test]
fn a_rule_in_force_is_carried_into_the_next_regions() {
    let rows = [(0x10, rule(1)), (0x40_0005, Rule::UNCOVERED)];
    let packed = pack(&rows);
    assert_eq!(packed.writer.region_count(), 5);
    assert_same(&rows, &packed);
    for offset in [0xf_ffff, 0x10_0000, 0x2f_ffff, 0x40_0000, 0x40_0004] {
        assert_eq!(find(&packed, offset), rule(1), "{offset:#x}");
    }
    assert_eq!(find(&packed, 0x40_0005), Rule::UNCOVERED);
    assert_eq!(find(&packed, 0xf), Rule::UNCOVERED);
}

#[test]
fn coverage_that_ends_with_a_region_takes_no_row() {
    let packed = pack(&[(0x10, rule(1)), (0x10_0000, Rule::UNCOVERED)]);
    assert_eq!((packed.writer.region_count(), packed.rows), (1, 1));
    assert_eq!(find(&packed, 0xf_ffff), rule(1));
    assert_eq!(find(&packed, 0x10_0000), Rule::UNCOVERED);
}

#[test]
fn a_segment_without_rows_has_regions() {
    let mut packer = Packer::new(Omissions::default());
    packer.begin_segment(0x1000);
    packer.end_segment(0x20_0001);
    packer.begin_segment(0x20_1000);
    packer.end_segment(0x20_2000);
    packer.begin_segment(0x50_0000);
    packer.end_segment(0x50_0001);
    let bytes = packer.finish().writer.encode();
    let table = TableFile::open(&bytes).expect("sound");
    let numbers: Vec<_> = table
        .regions()
        .map(|(number, region)| (number, region.count))
        .collect();
    assert_eq!(numbers, [(0, 0), (1, 0), (2, 0), (5, 0)]);
}

#[test]
fn a_region_with_too_many_rows_is_cut_and_the_next_one_goes_on() {
    // A row and a rule of its own for every third byte: 255 rows fill a chunk at most.
    let rows: Vec<_> = (0..0x16_0000_u64 / 3)
        .map(|nth| (3 * nth, rule(nth as u32 % 200_000)))
        .collect();
    let packed = pack(&rows);
    assert!(packed.omissions.count(Omission::RegionFull) > 1000);
    let bytes = packed.writer.encode();
    let table = TableFile::open(&bytes).expect("sound");
    table.check_chunks().expect("sound chunks");
    let counts: Vec<_> = table
        .regions()
        .map(|(_, region)| region.count as usize)
        .collect();
    assert_eq!(counts, [REGION_CHUNKS, REGION_CHUNKS]);
    let found = |offset| table.find(offset).unwrap_or(Rule::UNCOVERED);
    assert_eq!(found(300), rule(100));
    assert_eq!(
        found(0xf_fff0),
        Rule::UNCOVERED,
        "never a rule of an earlier row"
    );
    assert_eq!(found(0x10_0002), rule(0x10_0002 / 3 % 200_000));
}

#[test]
fn a_segment_that_ends_with_a_repeated_rule_reaches_its_last_region() {
    let rows = [(0, rule(1)), (1, rule(50)), (0x10_0000, rule(50))];
    let mut packer = Packer::new(Omissions::default());
    for &(offset, rule) in &rows {
        packer.push(offset, rule);
    }
    packer.end_segment(0x10_0001);
    let packed = packer.finish();
    assert_same(&rows, &packed);
    assert_eq!(find(&packed, 0x10_0001), Rule::UNCOVERED);
}

#[test]
fn rows_that_go_backwards_are_left() {
    let packed = pack(&[(0x100, rule(1)), (0x80, rule(2)), (0x200, rule(3))]);
    assert_eq!(packed.omissions.count(Omission::SegmentsOverlap), 1);
    assert_eq!(find(&packed, 0x1ff), rule(1));
    assert_eq!(find(&packed, 0x80), Rule::UNCOVERED);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn packed_rows_are_found_again(
        start in 0_u64..0x20_0000,
        steps in proptest::collection::vec((prop_oneof![1_u64..40, 1_u64..40, 60_000_u64..70_000, 1_u64..0x30_0000], 0_u32..300), 1..2000),
    ) {
        let mut offset = start;
        let mut rows = vec![(offset, rule(1))];
        for (step, number) in steps {
            offset += step;
            let next = if number == 0 { Rule::UNCOVERED } else { rule(number) };
            rows.push((offset, next));
        }
        // A segment's end is what gives a last row its region when it repeats the rule before.
        let mut packer = Packer::new(Omissions::default());
        for &(offset, rule) in &rows {
            packer.push(offset, rule);
        }
        packer.end_segment(offset + 1);
        let packed = packer.finish();
        prop_assert_eq!(packed.omissions.iter().count(), 0);
        assert_same(&rows, &packed);
    }
}
