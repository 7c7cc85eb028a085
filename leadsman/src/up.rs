//! `leadsman up`: checks everything, starts all processes, watches them, stops them in order.

use std::ffi::OsString;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ipc_endpoint::rights::{self, Machine};
use ipc_proto::hello::Role;

use crate::cli::Up;
use crate::error::Failure;
use crate::plan::{Plan, crash_directory};
use crate::roles::ALL;
use crate::runtime_directory::RuntimeDirectory;
use crate::signals::Signals;
use crate::supervisor::engine::Rules;
use crate::supervisor::{Supervisor, stop_order};
use crate::users::{Taken, User};
use crate::{preconditions, store_directory, users};

/// Where unwind tables are kept.
pub(crate) const CACHE_DIRECTORY: &str = "/var/cache/leadsman";
/// Whoever refuses to start has said so by then.
const FIRST_LOOK: Duration = Duration::from_millis(500);
/// Longest between two looks at nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Runs until SIGINT or SIGTERM, or until a process makes it give up.
///
/// # Errors
/// Something is missing; nothing was started then.
pub(crate) fn run(options: Up) -> Result<ExitCode, Failure> {
    preconditions::check("up")?;
    let users = users::choose(&ALL, &Taken::read()?)?;
    let user = |role| {
        users
            .iter()
            .find(|(of, _)| *of == role)
            .map(|(_, user)| *user)
    };
    let http = listen(&options)?;
    let address = http
        .local_addr()
        .map_err(|error| Failure::failed(format!("the page's socket has no address: {error}")))?;
    let mut signals = watch_signals()?;
    let mut runtime_directory = RuntimeDirectory::create(&options.runtime_directory)?;
    let store = match user(Role::Shipper) {
        Some(shipper) => store_directory::prepare(
            &options.local_store_directory,
            shipper,
            "--local-store-directory",
        )?,
        None => options.local_store_directory.clone(),
    };
    options.remote.prepare(user(Role::Shipper))?;
    let cache_directory = cache(user(Role::Symbolizer), runtime_directory.path())?;
    for (role, user) in &users {
        store_directory::prepare_for_crashes(&crash_directory(*role), *user);
    }
    runtime_directory.listen(&ALL, user)?;
    let plan = plan(
        &options,
        users,
        runtime_directory.path(),
        address,
        cache_directory,
        store,
    );
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
        supervisor.wait(&signals.fds(), longest)?;
        if signals.take().any() {
            supervisor.stop();
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

/// What to start by these options.
pub(crate) fn plan(
    options: &Up,
    users: Vec<(Role, User)>,
    runtime_directory: &Path,
    address: SocketAddr,
    cache_directory: PathBuf,
    store_directory: PathBuf,
) -> Plan {
    Plan {
        runtime_directory: runtime_directory.to_owned(),
        log_level: options.log_level,
        log_format: if options.log_format == "json" {
            "json"
        } else {
            "logfmt"
        },
        users,
        front_listens: false,
        sampler: sampler(options),
        ring_growth: 0,
        cache_directory,
        store_directory,
        shipper: shipper(options),
        viewer: vec!["--http-address".into(), address.to_string().into()],
        remote: options.remote.arguments(),
    }
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
pub(crate) fn listen(options: &Up) -> Result<TcpListener, Failure> {
    let address = options.http_address;
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
    symbolizer: Option<User>,
    runtime_directory: &Path,
) -> Result<PathBuf, Failure> {
    let lasting = Path::new(CACHE_DIRECTORY).to_owned();
    match symbolizer {
        Some(user) if user.lasting => store_directory::prepare_cache(&lasting, user),
        Some(user) => {
            let own = runtime_directory.join(crate::runtime_directory::CACHE);
            store_directory::prepare_cache(&own, user)
        }
        None => Ok(lasting),
    }
}

fn sampler(options: &Up) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        "--frequency".into(),
        options.profiling_cpu_sampling_frequency.to_string().into(),
        "--window-ms".into(),
        options.profiling_duration.as_millis().to_string().into(),
    ];
    if let Some(budget) = options.bpf_memory_budget {
        arguments.extend(["--bpf-memory-budget".into(), budget.to_string().into()]);
    }
    arguments
}

fn shipper(options: &Up) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        "--store-max-bytes".into(),
        options.local_store_max_bytes.to_string().into(),
        "--store-max-age-seconds".into(),
        options.local_store_max_age.as_secs().to_string().into(),
    ];
    if let Some(node) = &options.node {
        arguments.extend(["--node".into(), node.into()]);
    }
    for (name, value) in &options.metadata_external_labels.0 {
        arguments.extend(["--external-label".into(), format!("{name}={value}").into()]);
    }
    arguments
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
    text += &format!("profiles: {}\n", plan.store_directory.display());
    text += &format!("the page: {page}\n");
    // Nobody may be reading it.
    let _closed = std::io::stdout().lock().write_all(text.as_bytes());
}
