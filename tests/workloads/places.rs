//! Places in Rust code whose function, file and line are known: plain, generic, inlined. See places.c.
//!
//! Usage: places-rs [SECONDS]

use std::hint::black_box;
use std::time::{Duration, Instant};

#[inline(always)]
fn p_inlined(mut x: u64) -> u64 {
    for _ in 0..20_000 {
        x = black_box(x.wrapping_mul(6364136223846793005).wrapping_add(1));
    }
    x
}

#[inline(never)]
fn p_leaf(x: u64) -> u64 {
    let x = p_inlined(x);
    black_box(x) + 1
}

#[inline(never)]
fn p_middle<F: Fn(u64) -> u64>(function: F, x: u64) -> u64 {
    let x = function(x);
    black_box(x).wrapping_add(1)
}

#[inline(never)]
fn p_outer(x: u64) -> u64 {
    let x = p_middle(p_leaf, x);
    black_box(x).wrapping_add(1)
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(600);
    println!("started 1 thread");
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut x = 1;
    while Instant::now() < end {
        x = black_box(p_outer(x));
    }
}
