//! Builds the workloads and prints the directory they are in, for whoever takes them elsewhere.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use leadsman_tests::workloads::programs;

fn main() -> ExitCode {
    match programs() {
        Ok(programs) => {
            println!("{}", programs.path("").display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("workloads: {error:#}");
            ExitCode::FAILURE
        }
    }
}
