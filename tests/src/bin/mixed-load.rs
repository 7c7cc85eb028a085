//! Runs the mixed load for a while: `mixed-load [SECONDS]` (default 15). Everything ends with this process, also when it is
//! killed.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use leadsman_tests::mixed_load::MixedLoad;

fn main() -> ExitCode {
    let seconds = match std::env::args().nth(1).map(|text| text.parse::<u64>()) {
        None => 15,
        Some(Ok(seconds)) => seconds,
        Some(Err(error)) => {
            eprintln!("mixed-load: SECONDS: {error}; usage: mixed-load [SECONDS]");
            return ExitCode::from(2);
        }
    };
    match MixedLoad::start() {
        Ok(load) => {
            for member in load.members() {
                println!("{:7} {}", member.id(), member.name);
            }
            std::thread::sleep(Duration::from_secs(seconds));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("mixed-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}
