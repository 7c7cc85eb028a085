//! Owns the entry points of the fuzz targets: each takes any bytes and must come back, without a panic, in bounded time and
//! memory.

use crate::remote::spool::record;

/// Reads the bytes as a record of the spool; what is read can be written again and reads the same.
pub fn fuzz_spool_record(data: &[u8]) {
    let Ok(parcel) = record::decode(data) else {
        return;
    };
    let Ok(again) = record::encode(&parcel) else {
        return;
    };
    assert_eq!(record::decode(&again), Ok(parcel), "a parcel reads back");
}
