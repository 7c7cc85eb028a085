//! `leadsman run ROLE`: one process by itself, with the same settings as all together. Under a service manager that made its
//! sockets and took its rights away it only becomes the role's binary; as root, in a container, it does both first.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use config::Settings;
use ipc_proto::hello::Role;

use crate::cli::Run;
use crate::configuration::{self, Resolved};
use crate::error::Failure;
use crate::launch;
use crate::plan::{Plan, Process, crash_directory, reports_crashes};
use crate::roles::{self, ALL};
use crate::runtime_directory::{self, Listeners};
use crate::spawn::{self, Inheritance};
use crate::users::{self, Taken, User};
use crate::{store_directory, up};

/// The file that is read when none is named and it is there.
const FILE: &str = "/etc/leadsman/leadsman.yaml";

/// Does not return when all goes well.
///
/// # Errors
/// One line on what is missing.
pub(crate) fn run(run: Run) -> Result<ExitCode, Failure> {
    let usage = format!("leadsman run {} [FLAGS]", run.role.name());
    let configuration = match configuration::resolve(run.flags, Some(Path::new(FILE)), &usage)? {
        Resolved::Settings(configuration) => *configuration,
        Resolved::Shown => return Ok(ExitCode::SUCCESS),
    };
    if run.role == Role::Shipper {
        // Once is enough: all processes read the same, and it is the one that owns the file.
        configuration.log_notices();
    }
    let users = users::choose(&ALL, &Taken::read()?)?;
    if rustix::process::geteuid().is_root() {
        as_root(run.role, configuration.settings, users)
    } else {
        confined(run.role, configuration.settings, users)
    }
}

/// The service manager did everything else: its sockets keep their numbers, and this process its id.
fn confined(role: Role, settings: Settings, users: Vec<(Role, User)>) -> Result<ExitCode, Failure> {
    let process = process(&Plan::new(users, settings), role)?;
    let binary = launch::binary(&roles::binary(role))?;
    let mut command = Command::new(&binary);
    command.arg0(roles::binary(role)).args(&process.arguments);
    // What the process does not read it does not see.
    command.env_remove(config::environment::TOKEN);
    for setting in &config::SETTINGS {
        command.env_remove(setting.variable());
    }
    let error = command.envs(process.environment).exec();
    Err(Failure::failed(format!(
        "cannot start {}: {error}",
        binary.display()
    )))
}

fn as_root(
    role: Role,
    mut settings: Settings,
    users: Vec<(Role, User)>,
) -> Result<ExitCode, Failure> {
    let user = |role| {
        users
            .iter()
            .find(|(of, _)| *of == role)
            .map(|(_, user)| *user)
    };
    let http = match role {
        Role::Viewer => Some(up::listen(settings.get("http-address"))?),
        _ => None,
    };
    match (role, user(Role::Shipper), user(Role::Symbolizer)) {
        // Whoever comes first makes it; it is the shipper's.
        (Role::Shipper | Role::Viewer, Some(shipper), _) => {
            let store = Path::new(settings.get("local-store-directory"));
            let store = store_directory::prepare(store, shipper, "--local-store-directory")?;
            settings.state("local-store-directory", up::text(&store)?.to_owned());
            if role == Role::Shipper {
                up::prepare_spool(&mut settings, shipper)?;
            }
        }
        (Role::Symbolizer, _, Some(symbolizer)) => {
            let cache = Path::new(settings.get("cache-directory"));
            store_directory::prepare_cache(cache, symbolizer)?;
        }
        _ => {}
    }
    if let Some(user) = user(role)
        && reports_crashes(&settings)
    {
        store_directory::prepare_for_crashes(&crash_directory(role), user);
    }
    let directory = Path::new(settings.get("runtime-directory"));
    let listeners: Listeners = runtime_directory::share(directory, role, user)?;
    let plan = Plan::new(users, settings);
    let inheritance = Inheritance {
        listeners: &listeners,
        http: http.as_ref(),
    };
    let failed = |error| Failure::failed(format!("cannot start {}: {error}", roles::binary(role)));
    let mut command = spawn::command(&process(&plan, role)?, &inheritance).map_err(failed)?;
    Err(failed(command.exec()))
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
