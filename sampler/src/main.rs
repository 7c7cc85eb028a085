//! Leadsman's sampler: loads the BPF programs, drops every right, then counts stacks.
#![deny(unsafe_code)]

mod account;
mod bpf;
mod engine;
mod executables;
mod image;
mod maps_file;
mod perf_event;
mod processes;
mod raw_sample;
mod sideband;
mod startup;
mod window;

fn main() {}
