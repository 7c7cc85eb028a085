//! `leadsman up`: checks everything, starts all processes, watches them, stops them in order.

use std::ffi::OsString;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use config::Settings;
use ipc_endpoint::rights::{self, Machine};
use ipc_proto::hello::Role;

use crate::configuration::{self, Resolved};
use crate::configuration_copy::ConfigurationCopy;
use crate::error::Failure;
use crate::plan::{Plan, crash_directory, reports_crashes};
use crate::roles::ALL;
use crate::runtime_directory::RuntimeDirectory;
use crate::signals::Signals;
use crate::supervisor::engine::Rules;
use crate::supervisor::{Supervisor, stop_order};
use crate::users::{Taken, User};
use crate::{preconditions, store_directory, users};

/// Whoever refuses to start has said so by then.
const FIRST_LOOK: Duration = Duration::from_millis(500);
/// Longest between two looks at nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Runs until SIGINT or SIGTERM, or until a process makes it give up.
///
/// # Errors
/// Something is missing; nothing was started then.
pub(crate) fn run(flags: Vec<OsString>) -> Result<ExitCode, Failure> {
    let configuration = match configuration::resolve(flags, None, "leadsman up [FLAGS]")? {
        Resolved::Settings(configuration) => *configuration,
        Resolved::Shown => return Ok(ExitCode::SUCCESS),
    };
    preconditions::check("up")?;
    configuration.log_notices();
    let mut settings = configuration.settings;
    let users = users::choose(&ALL, &Taken::read()?)?;
    let user = |role| {
        users
            .iter()
            .find(|(of, _)| *of == role)
            .map(|(_, user)| *user)
    };
    let http = listen(settings.get("http-address"))?;
    let address = http
        .local_addr()
        .map_err(|error| Failure::failed(format!("the page's socket has no address: {error}")))?;
    settings.state("http-address", address.to_string());
    let mut signals = watch_signals()?;
    let runtime_directory = settings.get("runtime-directory");
    let mut runtime_directory = RuntimeDirectory::create(Path::new(runtime_directory))?;
    settings.state("runtime-directory", text(runtime_directory.path())?);
    if let Some(shipper) = user(Role::Shipper) {
        let store = Path::new(settings.get("local-store-directory"));
        let store = store_directory::prepare(store, shipper, "--local-store-directory")?;
        settings.state("local-store-directory", text(&store)?.to_owned());
        prepare_spool(&mut settings, shipper)?;
    }
    let lasting = Path::new(settings.get("cache-directory"));
    let cache = cache(lasting, user(Role::Symbolizer), runtime_directory.path())?;
    settings.state("cache-directory", text(&cache)?.to_owned());
    if reports_crashes(&settings) {
        for (role, user) in &users {
            store_directory::prepare_for_crashes(&crash_directory(*role), *user);
        }
    }
    runtime_directory.listen(&ALL, user)?;
    let mut copy = configuration
        .file
        .zip(user(Role::Shipper))
        .map(|(file, shipper)| ConfigurationCopy::make(file, runtime_directory.path(), shipper))
        .transpose()?;
    let mut plan = Plan::new(users.clone(), settings);
    plan.copy = copy.as_ref().map(|copy| copy.path().to_owned());
    let rules = Rules {
        // All of it within 5 s.
        stop_order: stop_order(|role| match role {
            Role::Sampler | Role::Symbolizer => Duration::from_millis(1_500),
            Role::Shipper => Duration::from_millis(900),
            _ => Duration::from_millis(500),
        }),
        essential: Vec::new(),
    };
    let mut supervisor = Supervisor::start(plan, runtime_directory, Some(http), rules);
    let started = Instant::now();
    let mut introduced = false;
    while !supervisor.is_done() {
        let longest = if introduced { LONGEST_WAIT } else { FIRST_LOOK };
        let mut fds = signals.fds().to_vec();
        fds.extend(copy.as_ref().and_then(ConfigurationCopy::fd));
        supervisor.wait(&fds, longest)?;
        let came = signals.take();
        // timeout(1) sends SIGTERM twice; who presses Ctrl-C again wants no more waiting.
        if came.interrupt || (came.terminate && !supervisor.is_stopping()) {
            supervisor.stop();
        }
        if let Some(copy) = &mut copy {
            copy.follow(came.hangup);
        }
        if !introduced && !supervisor.is_stopping() && started.elapsed() >= FIRST_LOOK {
            introduced = true;
            introduce(supervisor.plan(), &format!("http://{address}"));
        }
    }
    Ok(if supervisor.failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Makes the spool as the shipper's own directory, where there is a store.
///
/// # Errors
/// One line with the path.
pub(crate) fn prepare_spool(settings: &mut Settings, shipper: User) -> Result<(), Failure> {
    if settings.get("remote-store-address").is_empty() {
        return Ok(());
    }
    let option = "remote-store-spool-directory";
    let spool = Path::new(settings.get(option));
    let spool = store_directory::prepare(spool, shipper, &format!("--{option}"))?;
    settings.state(option, text(&spool)?.to_owned());
    Ok(())
}

/// A path as a setting's value.
///
/// # Errors
/// It is not text.
pub(crate) fn text(path: &Path) -> Result<&str, Failure> {
    path.to_str()
        .ok_or_else(|| Failure::usage(format!("{} is not text", path.display())))
}

/// From here on SIGINT and SIGTERM are ours to answer.
///
/// # Errors
/// No signal handler.
pub(crate) fn watch_signals() -> Result<Signals, Failure> {
    Signals::watch().map_err(|error| Failure::failed(format!("cannot watch for signals: {error}")))
}

/// The page's socket.
///
/// # Errors
/// Somebody else listens there.
pub(crate) fn listen(address: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).map_err(|error| {
        Failure::failed(format!(
            "cannot listen on {address}: {error}: choose another --http-address"
        ))
    })
}

/// The directory of the unwind tables: the lasting one, unless another Leadsman is using it.
///
/// # Errors
/// It can't be made.
pub(crate) fn cache(
    lasting: &Path,
    symbolizer: Option<User>,
    runtime_directory: &Path,
) -> Result<PathBuf, Failure> {
    match symbolizer {
        Some(user) if user.lasting => store_directory::prepare_cache(lasting, user),
        Some(user) => {
            let own = runtime_directory.join(crate::runtime_directory::CACHE);
            store_directory::prepare_cache(&own, user)
        }
        None => Ok(lasting.to_owned()),
    }
}

/// Says what was started with which rights, and where to look.
fn introduce(plan: &Plan, page: &str) {
    let machine = Machine::read();
    let mut text = String::new();
    for (role, user) in &plan.users {
        if let Some(rights) = rights::of(*role) {
            text += &format!("uid {}  {}\n", user.uid, rights::line(rights, &machine));
        }
    }
    text += &format!("profiles: {}\n", plan.store_directory().display());
    text += &format!("the page: {page}\n");
    // Nobody may be reading it.
    let _closed = std::io::stdout().lock().write_all(text.as_bytes());
}
