//! `leadsman`, the front command: starts and watches the processes, records, and shows what they made.
//!
//! Parses no foreign bytes but profiles that somebody asks it to show; holds no rights beyond what starting others takes.
#![forbid(unsafe_code)]

mod cli;
mod collector;
mod configuration;
mod configuration_copy;
mod doctor;
mod error;
mod hold;
mod http;
mod inspect;
mod invoker;
mod launch;
mod output;
mod plan;
mod preconditions;
mod progress;
mod record;
mod relabel_test;
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

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::{Cli, Command};
use crate::error::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(arguments()) {
        Ok(cli) => cli,
        Err(error) => {
            let _closed = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(2),
            };
        }
    };
    carry_out(cli.command).unwrap_or_else(|failure| {
        eprintln!("leadsman: {failure}");
        failure.exit_code()
    })
}

/// The command line. Whoever calls it as parca-agent, by name or with nothing but its flags, means `up`.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    let by_name = name.is_some_and(|name| name == "parca-agent");
    let first = arguments.get(1);
    let by_flag = first.is_some_and(|first| configuration::is_flag_of_up(first));
    if by_name || by_flag {
        arguments.insert(1, "up".into());
    }
    arguments
}

fn carry_out(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Up(raw) => up::run(raw.flags),
        Command::Run(options) => run::run(options),
        Command::Config(command) => configuration::run(command),
        Command::Relabel(cli::Relabel::Test(options)) => relabel_test::run(&options),
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
