//! `leadsman`, the front command: starts and watches the processes, records, and shows what they made.
//!
//! Parses no foreign bytes but profiles that somebody asks it to show; holds no rights beyond what starting others takes.
#![forbid(unsafe_code)]

mod cli;
mod collector;
mod doctor;
mod error;
mod hold;
mod http;
mod inspect;
mod invoker;
mod labels;
mod launch;
mod output;
mod plan;
mod preconditions;
mod progress;
mod record;
mod remote_options;
mod report;
mod roles;
mod run;
mod runtime_directory;
mod security;
mod signals;
mod spawn;
mod status;
mod store_directory;
mod summary;
mod supervisor;
#[cfg(test)]
mod units;
mod up;
mod users;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::{Cli, Command};
use crate::error::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _closed = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(2),
            };
        }
    };
    run(cli.command).unwrap_or_else(|failure| {
        eprintln!("leadsman: {failure}");
        failure.exit_code()
    })
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Up(options) => up::run(*options),
        Command::Run(options) => run::run(&options),
        Command::Record(options) => record::run(&options),
        Command::Report(arguments) => match report::run(&arguments) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => Err(Failure::failed(error.to_string())),
        },
        Command::UnwindTable(arguments) => inspect::unwind_table(&arguments),
        Command::Symbolize(arguments) => inspect::symbolize(&arguments),
        Command::Security(arguments) => security::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Doctor => doctor::run(),
        Command::Launch(arguments) => launch::run(&arguments),
        Command::Hold(arguments) => hold::run(&arguments),
    }
}
