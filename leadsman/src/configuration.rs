//! Finds the settings: flags, environment, file. Reads the file that it is told to, prints what is asked for.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use config::{Document, Problem, Settings, environment, flags, render};

use crate::cli;
use crate::error::Failure;

/// Bytes read of a file: one more than a document may have.
const MAX_BYTES: u64 = (1 << 20) + 1;
/// Columns of help where nobody says how many there are.
const WIDTH: usize = 100;

/// Settings and where they came from.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// The settings.
    pub(crate) settings: Settings,
    /// The file, if there is one.
    pub(crate) file: Option<PathBuf>,
    warnings: Vec<String>,
}

/// What came of the flags.
#[derive(Debug)]
pub(crate) enum Resolved {
    /// The settings.
    Settings(Box<Configuration>),
    /// Help or the version were asked for and shown.
    Shown,
}

/// Finds the settings. `fallback` is read when no file is named and it is there; `usage` is help's first line.
///
/// # Errors
/// One line on what is wrong, exit code 2.
pub(crate) fn resolve(
    arguments: Vec<OsString>,
    fallback: Option<&Path>,
    usage: &str,
) -> Result<Resolved, Failure> {
    let flags = flags::read(arguments).map_err(Failure::usage)?;
    if flags.help {
        return show(&render::help(&format!("Usage: {usage}"), width()));
    }
    if flags.version {
        return show(&format!("leadsman {}\n", env!("CARGO_PKG_VERSION")));
    }
    let environment = environment::read(std::env::vars_os()).map_err(Failure::usage)?;
    let named = Settings::join(&flags, &environment, &Document::default());
    let named = named.map_err(Failure::usage)?;
    let file = match (named.get("config-path"), fallback) {
        ("", Some(fallback)) if fallback.exists() => Some(fallback.to_owned()),
        ("", _) => None,
        (path, _) => Some(PathBuf::from(path)),
    };
    let mut warnings = environment.warnings.clone();
    let (settings, file) = match file {
        None => (named, None),
        Some(path) => {
            let document = read(&path).and_then(|text| {
                Document::read(&text).map_err(|problems| refusal(&path, &problems))
            })?;
            if document.is_empty {
                warnings.push(format!("{} is empty", path.display()));
            }
            let settings = Settings::join(&flags, &environment, &document);
            let mut settings = settings.map_err(Failure::usage)?;
            // The processes do not start where this command did.
            let absolute = std::path::absolute(&path).unwrap_or(path);
            if let Some(text) = absolute.to_str() {
                settings.state("config-path", text);
            }
            (settings, Some(absolute))
        }
    };
    let mut settings = settings;
    in_pod(&mut settings);
    Ok(Resolved::Settings(Box::new(Configuration {
        settings,
        file,
        warnings,
    })))
}

/// Where Kubernetes puts a pod's credentials.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// In a pod that was given credentials, its API is the one to ask, unless another was named.
fn in_pod(settings: &mut Settings) {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(host), Some(port)) = (
        variable("KUBERNETES_SERVICE_HOST"),
        variable("KUBERNETES_SERVICE_PORT"),
    ) else {
        return;
    };
    let token = format!("{SERVICE_ACCOUNT}/token");
    if !settings.get("kubernetes-api-server").is_empty() || !Path::new(&token).exists() {
        return;
    }
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    settings.state("kubernetes-api-server", format!("https://{host}:{port}"));
    settings.state("kubernetes-ca-file", format!("{SERVICE_ACCOUNT}/ca.crt"));
    settings.state("kubernetes-token-file", token);
}

/// The settings when nobody sets any.
///
/// # Errors
/// The table contradicts itself.
pub(crate) fn defaults() -> Result<Settings, Failure> {
    let nothing = environment::Environment::default();
    Settings::join(&flags::Flags::default(), &nothing, &Document::default())
        .map_err(Failure::failed)
}

impl Configuration {
    /// Says what of the settings is old, does nothing, or looks wrong.
    pub(crate) fn log_notices(&self) {
        let warnings = self.warnings.iter().map(|line| (true, line.as_str()));
        for (warning, line) in warnings.chain(self.settings.notices()) {
            let level = if warning { "warning" } else { "note" };
            eprintln!("leadsman: {level}: {line}");
        }
    }
}

/// `leadsman config`.
///
/// # Errors
/// One line.
pub(crate) fn run(command: cli::Config) -> Result<ExitCode, Failure> {
    match command {
        cli::Config::Show(raw) => {
            let usage = "leadsman config show [FLAGS of `leadsman up`]";
            if let Resolved::Settings(found) = resolve(raw.flags, None, usage)? {
                let file = found.file.as_ref().map(|path| path.display().to_string());
                let effective = render::effective(&found.settings, file.as_deref());
                show(&effective)?;
                found.log_notices();
            }
        }
        cli::Config::Check { file } => {
            let text = read(&file)?;
            match Document::read(&text) {
                Ok(document) => {
                    let nothing = environment::Environment::default();
                    let settings = Settings::join(&flags::Flags::default(), &nothing, &document);
                    let settings = settings
                        .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
                    show(&format!(
                        "{}: {} settings, {} relabelling rules\n",
                        file.display(),
                        document.values.len(),
                        document.rules.len()
                    ))?;
                    for (_, notice) in settings.notices() {
                        eprintln!("{}: {notice}", file.display());
                    }
                }
                Err(problems) => {
                    for problem in &problems {
                        eprintln!("{}:{problem}", file.display());
                    }
                    return Ok(ExitCode::from(2));
                }
            }
        }
        cli::Config::Schema => {
            show(&format!("{:#}\n", render::schema()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a file of settings.
///
/// # Errors
/// It can't be read, or is no text.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    let failed =
        |error: io::Error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

/// One line on a file's problems.
pub(crate) fn refusal(path: &Path, problems: &[Problem]) -> Failure {
    let path = path.display();
    let first = problems
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    Failure::usage(match problems.len() {
        0 | 1 => format!("{path}:{first}"),
        count => format!(
            "{path}:{first} (and {} more: `leadsman config check {path}` names all)",
            count - 1
        ),
    })
}

fn show(text: &str) -> Result<Resolved, Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot print: {error}")))
        }
        _ => Ok(Resolved::Shown),
    }
}

fn width() -> usize {
    let columns = rustix::termios::tcgetwinsize(io::stdout()).map(|size| usize::from(size.ws_col));
    columns.unwrap_or(WIDTH).clamp(60, WIDTH)
}

/// Whether a first argument is a flag of `up`: whoever was called as the agent that Leadsman replaces names no command.
pub(crate) fn is_flag_of_up(argument: &OsStr) -> bool {
    argument
        .to_str()
        .and_then(|text| text.strip_prefix("--"))
        .and_then(|flag| flag.split('=').next())
        .is_some_and(|name| config::find(name).is_some())
}
