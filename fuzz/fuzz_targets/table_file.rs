//! A table as the sampler receives it: what its checks let through can be looked up at any offset.
#![no_main]

use ipc_proto::table_file::TableFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(table) = TableFile::open(data) else {
        return;
    };
    for (_, region) in table.regions() {
        assert!(region.starts.is_sorted());
        for &chunk in &region.chunks[..region.count as usize] {
            assert!((chunk as usize) < table.chunk_count());
        }
    }
    for nth in 0..table.chunk_count() {
        let chunk = table.chunk(nth).expect("counted");
        if chunk.check().is_err() {
            return;
        }
        for row in 0..chunk.row_count() {
            let (address, rule) = chunk.row(row.into()).expect("a checked chunk has all its rows");
            assert!(rule.is_valid());
            assert_eq!(chunk.find(address.into()), Some(rule));
        }
    }
    for offset in (0..64).map(|bit| 1_u64 << bit).chain([0, u64::MAX]) {
        let _rule = table.find(offset);
    }
});
