//! The command line, but for the flags of `up` and `run`: those follow from the settings' table.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use ipc_proto::hello::Role;

use crate::report;

/// Where a running `leadsman up` has its sockets.
pub(crate) const RUNTIME_DIRECTORY: &str = "/run/leadsman";
/// Where its page is.
pub(crate) const HTTP_ADDRESS: &str = "127.0.0.1:7071";

/// Room for the unwind table of one large executable.
const LEAST_BUDGET: u64 = 256 << 10;

/// An always-on CPU profiler for the whole machine.
#[derive(Debug, Parser)]
#[command(name = "leadsman", version, about, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start everything in the foreground and serve the page
    Up(Raw),
    /// Become one of the processes, told what it reads of the same flags, environment and file: for units and containers
    Run(Run),
    /// Show, check or describe the configuration
    #[command(subcommand)]
    Config(Config),
    /// Try relabelling rules
    #[command(subcommand)]
    Relabel(Relabel),
    /// Record one profile: of the machine, of processes, or of a command
    Record(Record),
    /// Show a profile as text
    Report(report::Arguments),
    /// Print the unwind table of an ELF file
    UnwindTable(UnwindTable),
    /// Print the functions at addresses of an ELF file
    Symbolize(Symbolize),
    /// Compare the rights of each live process with those it may have
    Security(Security),
    /// Say how a running Leadsman does
    Status(Status),
    /// Check this machine and say how to remedy what is missing
    Doctor,
    /// Confine this process, then become a role's binary
    #[command(hide = true)]
    Launch(Launch),
    /// Wait until told, then become a command
    #[command(hide = true)]
    Hold(Hold),
}

/// Flags of the settings' table (crate `config`), which parses them itself: they bear the names of the agent that
/// Leadsman replaces, in its forms.
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct Raw {
    /// See `--help`
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "FLAGS"
    )]
    pub(crate) flags: Vec<OsString>,
}

/// `leadsman run`.
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct Run {
    /// sampler, opener, symbolizer, debuginfo-uploader, shipper or viewer
    #[arg(value_parser = role)]
    pub(crate) role: Role,
    /// Flags as of `leadsman up`; behind `--`: arguments for the process itself
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "FLAGS"
    )]
    pub(crate) flags: Vec<OsString>,
}

/// `leadsman config`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print the settings in force and where each came from
    Show(Raw),
    /// Name all problems of a configuration file
    Check {
        /// The YAML file
        file: PathBuf,
    },
    /// Print the JSON Schema of a configuration file
    Schema,
}

/// `leadsman relabel`.
#[derive(Debug, Subcommand)]
pub(crate) enum Relabel {
    /// Print what the rules of a file make of label sets: those given, or one JSON object a line from standard input
    Test(RelabelTest),
}

/// `leadsman relabel test`.
#[derive(Args, Debug)]
pub(crate) struct RelabelTest {
    /// The YAML file with relabel_configs
    #[arg(long, value_name = "FILE")]
    pub(crate) config_path: PathBuf,
    /// One label set
    #[arg(long, value_name = "JSON")]
    pub(crate) labels: Option<String>,
    /// The label set of this live process
    #[arg(long, value_name = "PID", conflicts_with = "labels")]
    pub(crate) pid: Option<u32>,
    /// Show the labels after each rule
    #[arg(long)]
    pub(crate) explain: bool,
}

/// `leadsman record`.
#[derive(Args, Debug)]
#[command(
    override_usage = "leadsman record [-d DURATION] [-F HZ] [-o FILE] [-p PID]...\n       leadsman record [-F HZ] [-o FILE] -- COMMAND [ARGUMENTS]..."
)]
pub(crate) struct Record {
    /// End after this time; without it and without a command: at Ctrl-C
    #[arg(short, long, value_name = "DURATION", value_parser = ipc_endpoint::duration::parse_positive)]
    pub(crate) duration: Option<Duration>,
    /// Samples a second and CPU
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = 97, value_parser = rate(), allow_negative_numbers = true)]
    pub(crate) frequency: u32,
    /// Write to this file: .pb.gz, .pb (pprof), .folded, .json (speedscope), .svg; `-`: pprof to standard output
    #[arg(short, long, value_name = "FILE", default_value = "leadsman.pb.gz")]
    pub(crate) output: PathBuf,
    /// Record this process with all its threads; repeat for more
    #[arg(short, long = "process", value_name = "PID", value_parser = clap::value_parser!(i32).range(1..), conflicts_with = "command", allow_negative_numbers = true)]
    pub(crate) processes: Vec<i32>,
    /// Record processes that the named ones start, too
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = ArgAction::Set
    )]
    pub(crate) children: bool,
    /// Kernel memory for unwind tables, bytes
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(LEAST_BUDGET..))]
    pub(crate) bpf_memory_budget: Option<u64>,
    /// error, warn, info or debug
    #[arg(long, value_name = "LEVEL", default_value = "warn", value_parser = log_level)]
    pub(crate) log_level: log::LevelFilter,
    /// Record this command from its first instruction to its exit
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// `leadsman unwind-table`.
#[derive(Args, Debug)]
pub(crate) struct UnwindTable {
    /// The ELF file
    pub(crate) file: PathBuf,
    /// One JSON object a row, or columns
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["json", "text"])]
    pub(crate) format: String,
}

/// `leadsman symbolize`.
#[derive(Args, Debug)]
pub(crate) struct Symbolize {
    /// The ELF file
    #[arg(long, value_name = "FILE")]
    pub(crate) exe: PathBuf,
    /// Addresses as written in the file, hexadecimal
    #[arg(required = true, value_name = "ADDRESS", value_parser = hexadecimal)]
    pub(crate) addresses: Vec<Hexadecimal>,
}

/// An address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hexadecimal(pub(crate) u64);

/// `leadsman security`.
#[derive(Args, Debug)]
pub(crate) struct Security {
    /// Where the sockets of the running Leadsman are
    #[arg(long, value_name = "DIR", default_value = RUNTIME_DIRECTORY)]
    pub(crate) runtime_directory: PathBuf,
}

/// `leadsman status`.
#[derive(Args, Debug)]
pub(crate) struct Status {
    /// Where the page of the running Leadsman is
    #[arg(long, value_name = "ADDRESS:PORT", default_value = HTTP_ADDRESS, value_parser = address)]
    pub(crate) http_address: SocketAddr,
}

/// `leadsman launch`.
#[derive(Args, Debug)]
pub(crate) struct Launch {
    #[arg(value_parser = role)]
    pub(crate) role: Role,
    #[arg(long)]
    pub(crate) uid: u32,
    #[arg(long)]
    pub(crate) gid: u32,
    /// A supplementary group
    #[arg(long = "group", value_name = "GID")]
    pub(crate) groups: Vec<u32>,
    /// A remote store is configured
    #[arg(long)]
    pub(crate) store: bool,
    #[arg(last = true)]
    pub(crate) arguments: Vec<OsString>,
}

/// `leadsman hold`.
#[derive(Args, Debug)]
pub(crate) struct Hold {
    #[arg(long)]
    pub(crate) gate: PathBuf,
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

fn rate() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=1000)
}

fn role(text: &str) -> Result<Role, String> {
    Role::from_name(text).ok_or_else(|| format!("{text:?} is no role"))
}

fn log_level(text: &str) -> Result<log::LevelFilter, String> {
    text.parse()
        .map_err(|_unknown| format!("{text:?} is none of error, warn, info, debug"))
}

/// Reads `ADDRESS:PORT`, `localhost:PORT` or `:PORT`; other names aren't looked up.
fn address(text: &str) -> Result<SocketAddr, String> {
    let written_out = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None if text.starts_with(':') => format!("[::]{text}"),
        None => text.to_owned(),
    };
    written_out
        .parse()
        .map_err(|_malformed| format!("{text:?} is no ADDRESS:PORT such as {HTTP_ADDRESS}"))
}

fn hexadecimal(text: &str) -> Result<Hexadecimal, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16)
        .map(Hexadecimal)
        .map_err(|_malformed| format!("{text:?} is no hexadecimal address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_recorded_command_keeps_its_own_flags() {
        let cli = Cli::try_parse_from(["leadsman", "record", "-F", "9", "--", "ls", "-p", "x"]);
        let Ok(Cli {
            command: Command::Record(record),
        }) = cli
        else {
            panic!("{cli:?}");
        };
        assert_eq!(record.command, ["ls", "-p", "x"]);
        assert!(record.children && record.processes.is_empty());
    }

    #[test]
    fn a_command_and_processes_exclude_each_other() {
        assert!(Cli::try_parse_from(["leadsman", "record", "-p", "1", "--", "ls"]).is_err());
    }
}
