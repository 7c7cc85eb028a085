//! Chains through Rust: generic functions, a boxed closure, a trait object, a panic caught half way. Names of chain
//! functions start with `w_`; the chains stand in tests/src/workloads.rs.
//!
//! Usage: chains-rs [SECONDS]

use std::hint::black_box;
use std::time::Duration;

#[inline(never)]
fn w_spin() {
    let mut x = black_box(1u64);
    for _ in 0..10_000_000 {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    }
    black_box(x);
}

trait Step {
    fn w_step(&self, left: u32) -> u32;
}

struct Walker(u32);

impl Step for Walker {
    #[inline(never)]
    fn w_step(&self, left: u32) -> u32 {
        if left == 0 {
            w_spin();
            return black_box(self.0);
        }
        let next: &dyn Step = black_box(self);
        black_box(next.w_step(left - 1)) + 1
    }
}

#[inline(never)]
fn w_trait_main() {
    loop {
        black_box(Walker(1).w_step(3));
    }
}

#[inline(never)]
fn w_apply<F: Fn(u32) -> u32>(function: F, n: u32) -> u32 {
    black_box(function(n)) + 1
}

#[inline(never)]
fn w_called(n: u32) -> u32 {
    w_spin();
    black_box(n)
}

#[inline(never)]
fn w_generic_main() {
    for n in 0.. {
        black_box(w_apply(w_called, n));
    }
}

#[inline(never)]
fn w_unwinding(n: u32) {
    w_spin();
    if black_box(n) % 2 == 0 {
        std::panic::resume_unwind(Box::new(n));
    }
}

#[inline(never)]
fn w_panic_main() {
    for n in 0.. {
        black_box(std::panic::catch_unwind(|| w_unwinding(n)).is_err());
    }
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(600);
    for (name, body) in
        [("w-trait", w_trait_main as fn()), ("w-generic", w_generic_main), ("w-panic", w_panic_main)]
    {
        std::thread::Builder::new().name(name.into()).spawn(body).expect("a thread starts");
    }
    println!("started 3 threads");
    std::thread::sleep(Duration::from_secs(seconds));
    std::process::exit(0);
}
