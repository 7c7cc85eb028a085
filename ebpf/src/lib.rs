//! The contract between Leadsman's BPF programs and its processes, and the unwinder both run.
//!
//! Everything here is `no_std`, allocation-free and free of `unsafe`: the BPF programs (the `leadsman-bpf` binary
//! of this package) and the symbolizer compile the same [`step`](step::step), [`rule`] and [`table`] code, so a
//! stack finished in user space is walked exactly as the kernel would have walked it.
#![no_std]

pub mod abi;
pub mod code;
pub mod limits;
pub mod registers;
pub mod root;
pub mod rule;
pub mod short_rule;
pub mod step;
pub mod stop;
pub mod table;
