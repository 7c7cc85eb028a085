//! `leadsman run ROLE`: one process by itself, with the same options as all together. Under a service manager that made its
//! sockets and took its rights away it only becomes the role's binary; as root, in a container, it does both first.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use ipc_proto::hello::Role;

use crate::cli::{Run, Up};
use crate::error::Failure;
use crate::launch;
use crate::plan::{Plan, Process, crash_directory};
use crate::remote_options::TOKEN_VARIABLE;
use crate::roles::{self, ALL};
use crate::runtime_directory::{self, Listeners};
use crate::spawn::{self, Inheritance};
use crate::users::{self, Taken, User};
use crate::{store_directory, up};

/// Does not return when all goes well.
///
/// # Errors
/// One line on what is missing.
pub(crate) fn run(run: &Run) -> Result<ExitCode, Failure> {
    let users = users::choose(&ALL, &Taken::read()?)?;
    if rustix::process::geteuid().is_root() {
        as_root(run.role, &run.options, users)
    } else {
        confined(run.role, &run.options, users)
    }
}

/// The service manager did everything else: its sockets keep their numbers, and this process its id.
fn confined(role: Role, options: &Up, users: Vec<(Role, User)>) -> Result<ExitCode, Failure> {
    let plan = plan(options, users, options.local_store_directory.clone());
    let process = process(&plan, role)?;
    let binary = launch::binary(&roles::binary(role))?;
    let error = Command::new(&binary)
        .arg0(roles::binary(role))
        .args(&process.arguments)
        .envs(process.token.iter().map(|token| (TOKEN_VARIABLE, token)))
        .exec();
    Err(Failure::failed(format!(
        "cannot start {}: {error}",
        binary.display()
    )))
}

fn as_root(role: Role, options: &Up, users: Vec<(Role, User)>) -> Result<ExitCode, Failure> {
    let user = |role| {
        users
            .iter()
            .find(|(of, _)| *of == role)
            .map(|(_, user)| *user)
    };
    let mut store = options.local_store_directory.clone();
    let http = match role {
        Role::Viewer => Some(up::listen(options)?),
        _ => None,
    };
    match (role, user(Role::Shipper), user(Role::Symbolizer)) {
        // Whoever comes first makes it; it is the shipper's.
        (Role::Shipper | Role::Viewer, Some(shipper), _) => {
            store = store_directory::prepare(&store, shipper, "--local-store-directory")?;
            if role == Role::Shipper {
                options.remote.prepare(Some(shipper))?;
            }
        }
        (Role::Symbolizer, _, Some(symbolizer)) => {
            store_directory::prepare_cache(up::CACHE_DIRECTORY.as_ref(), symbolizer)?;
        }
        _ => {}
    }
    if let Some(user) = user(role) {
        store_directory::prepare_for_crashes(&crash_directory(role), user);
    }
    let listeners: Listeners = runtime_directory::share(&options.runtime_directory, role, user)?;
    let plan = plan(options, users, store);
    let inheritance = Inheritance {
        listeners: &listeners,
        http: http.as_ref(),
    };
    let failed = |error| Failure::failed(format!("cannot start {}: {error}", roles::binary(role)));
    let mut command = spawn::command(&process(&plan, role)?, &inheritance).map_err(failed)?;
    Err(failed(command.exec()))
}

fn plan(options: &Up, users: Vec<(Role, User)>, store: PathBuf) -> Plan {
    up::plan(
        options,
        users,
        &options.runtime_directory,
        options.http_address,
        PathBuf::from(up::CACHE_DIRECTORY),
        store,
    )
}

fn process(plan: &Plan, role: Role) -> Result<Process, Failure> {
    let found = plan.processes().into_iter().find(|one| one.role == role);
    found.ok_or_else(|| {
        Failure::usage(format!(
            "{} is no process to run: see `leadsman run --help`",
            role.name()
        ))
    })
}
