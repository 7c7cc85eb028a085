//! Builds the programs in tests/workloads and knows the stacks of their threads. The chains here and the functions there
//! must change together.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::binaries::target_directory;
use crate::chain::Chain;
use crate::process::run_ok;
use crate::require_command;

/// One way to compile chains.c.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    /// The executable's name, and thus its comm (at most 15 bytes).
    pub name: &'static str,
    flags: &'static [&'static str],
    /// Statically linked: no dlopen, no PLT of the program's own.
    pub is_static: bool,
}

pub const VARIANTS: [Variant; 10] = [
    Variant {
        name: "chains-O0",
        flags: &["-O0"],
        is_static: false,
    },
    Variant {
        name: "chains-O2",
        flags: &["-O2", "-fomit-frame-pointer"],
        is_static: false,
    },
    Variant {
        name: "chains-O3",
        flags: &["-O3", "-fomit-frame-pointer"],
        is_static: false,
    },
    Variant {
        name: "chains-fp",
        flags: &["-O2", "-fno-omit-frame-pointer"],
        is_static: false,
    },
    Variant {
        name: "chains-debug",
        flags: &["-O2", "-g"],
        is_static: false,
    },
    Variant {
        name: "chains-no-pie",
        flags: &["-O2", "-no-pie", "-fno-pie"],
        is_static: false,
    },
    Variant {
        name: "chains-pie",
        flags: &["-O1", "-pie", "-fPIE"],
        is_static: false,
    },
    Variant {
        name: "chains-static",
        flags: &["-O2", "-static", "-DWORKLOAD_STATIC"],
        is_static: true,
    },
    Variant {
        name: "chains-spie",
        flags: &["-O2", "-static-pie", "-DWORKLOAD_STATIC"],
        is_static: true,
    },
    // PLT entries that begin with endbr64, and relocations packed by the linker.
    Variant {
        name: "chains-ibt",
        flags: &[
            "-O2",
            "-fcf-protection=full",
            "-Wl,-z,ibtplt",
            "-Wl,-z,pack-relative-relocs",
        ],
        is_static: false,
    },
];

const SOURCES: [&str; 18] = [
    "chains.c",
    "plugin.c",
    "plt.c",
    "child.c",
    "chains.cpp",
    "chains.rs",
    "chains.go",
    "compiled.c",
    "busy.py",
    "busy.js",
    "odd.c",
    "other.c",
    "crypto.c",
    "simple.c",
    "unframed.c",
    "compat.c",
    "async.rs",
    "cgo.go",
];

/// The variant of that name.
pub fn variant(name: &str) -> Result<Variant> {
    let mut variants = VARIANTS.into_iter();
    let found = variants.find(|variant| variant.name == name);
    found.with_context(|| format!("no variant is named {name}"))
}

/// Some threads of chains.c, by their names.
#[must_use]
pub fn some_chains(variant: Variant, threads: &[&str]) -> Vec<Chain> {
    let mut chains = c_chains(variant);
    chains.retain(|chain| threads.contains(&chain.thread));
    chains
}

/// The threads of chains.c, in the order of its own table.
#[must_use]
pub fn c_chains(variant: Variant) -> Vec<Chain> {
    let mut chains = vec![
        Chain::of(
            "w-plain",
            &[
                "w_enter",
                "w_plain_main",
                "w_plain_a",
                "w_plain_b",
                "w_plain_c",
                "w_spin",
            ],
        ),
        Chain::of(
            "w-deep300",
            &["w_enter", "w_deep300_main", "w_recurse", "w_spin"],
        )
        .repeated("w_recurse", 300),
        Chain::of(
            "w-deep5000",
            &["w_enter", "w_deep5000_main", "w_recurse", "w_spin"],
        )
        .repeated("w_recurse", 5000)
        .may_be_cut(),
        Chain::of("w-signal", &["w_enter", "w_signal_main", "w_signal_victim"]).or(&[
            "w_enter",
            "w_signal_main",
            "w_signal_victim",
            "w_on_signal",
            "w_handler_burn",
        ]),
        Chain::of(
            "w-qsort",
            &["w_enter", "w_qsort_main", "w_qsort_run", "w_compare"],
        ),
        Chain::of(
            "w-alloca",
            &["w_enter", "w_alloca_main", "w_alloca_frame", "w_spin"],
        ),
        Chain::of(
            "w-realign",
            &[
                "w_enter",
                "w_realign_main",
                "w_realigned_avx",
                "w_realigned_inner",
                "w_spin",
            ],
        ),
        Chain::of(
            "w-drap",
            &["w_enter", "w_drap_main", "w_drap_frame", "w_spin"],
        ),
        Chain::of("w-memcpy", &["w_enter", "w_memcpy_main", "w_memcpy_loop"]),
        Chain::of(
            "w-syscall",
            &["w_enter", "w_syscall_main", "w_syscall_loop"],
        ),
        Chain::of("w-vdso", &["w_enter", "w_vdso_main", "w_vdso_loop"]),
        Chain::of(
            "w-coroutine",
            &[
                "w_enter",
                "w_coroutine_main",
                "w_coroutine_resume",
                "w_spin",
            ],
        )
        .or(&["w_coroutine_body", "w_coroutine_step", "w_spin"]),
        Chain::of(
            "w-tail",
            &["w_enter", "w_tail_main", "w_tail_second", "w_spin"],
        ),
        Chain::of(
            "w-noreturn",
            &[
                "w_enter",
                "w_noreturn_main",
                "w_calls_noreturn",
                "w_never_returns",
                "w_spin",
            ],
        ),
        Chain::of(
            "w-small",
            &["w_enter", "w_small_main", "w_small_inner", "w_spin"],
        ),
    ];
    if !variant.is_static {
        chains.push(Chain::of(
            "w-dlopen",
            &[
                "w_enter",
                "w_dlopen_main",
                "w_plugin_entry",
                "w_plugin_inner",
                "w_plugin_callback",
                "w_spin",
            ],
        ));
        chains.push(
            Chain::of("w-plt", &["w_enter", "w_plt_main", "w_plt_loop"]).or(&[
                "w_enter",
                "w_plt_main",
                "w_plt_loop",
                "w_plt_leaf",
            ]),
        );
    }
    chains
}

/// The short-lived processes that chains.c starts, by the name of their only thread: forks of the program itself and fresh
/// images, which live 3 to 5 ms.
#[must_use]
pub fn child_chains() -> Vec<Chain> {
    vec![
        Chain::of("w-fork", &["w_enter", "w_fork_main", "w_forked_child"]),
        Chain::of("w-child", &["w_child_spin", "w_child_turn"]).outside_too(),
        Chain::of("w-exec", &["w_child_spin", "w_child_turn"]).outside_too(),
    ]
}

/// The threads of chains.cpp.
#[must_use]
pub fn cpp_chains() -> Vec<Chain> {
    vec![
        Chain::of("w-template", &["w_template_main", "w_climb", "w_spin"]).repeated("w_climb", 5),
        Chain::of("w-virtual", &["w_virtual_main", "w_draw", "w_spin"]),
        Chain::of(
            "w-exception",
            &["w_exception_main", "w_catcher", "w_thrower", "w_spin"],
        )
        .or(&["w_exception_main", "w_catcher", "w_spin"]),
    ]
}

/// The threads of chains.rs.
#[must_use]
pub fn rust_chains() -> Vec<Chain> {
    vec![
        Chain::of("w-trait", &["w_trait_main", "w_step", "w_spin"]).repeated("w_step", 4),
        Chain::of(
            "w-generic",
            &["w_generic_main", "w_apply", "w_called", "w_spin"],
        ),
        Chain::of("w-panic", &["w_panic_main", "w_unwinding", "w_spin"]),
    ]
}

/// The goroutines of chains.go, which run on any of its threads; the runtime's own threads are right as well.
#[must_use]
pub fn go_chain() -> Chain {
    Chain::of("", &["w_go_plain", "w_go_a", "w_go_b", "w_spin"])
        .or(&["w_go_deep", "w_go_descend", "w_spin"])
        .repeated("w_go_descend", 100)
        .outside_too()
}

/// The built programs, all in one directory.
#[derive(Debug)]
pub struct Programs {
    directory: PathBuf,
}

/// Builds the programs once (again only when a source or a compiler changes) and says where they are.
pub fn programs() -> Result<&'static Programs> {
    static PROGRAMS: OnceLock<std::result::Result<Programs, String>> = OnceLock::new();
    PROGRAMS
        .get_or_init(|| Programs::build().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|text| anyhow::anyhow!(text.clone()))
}

impl Programs {
    /// The path of a built program or of a script beside them.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn build() -> Result<Self> {
        // A machine without compilers was given them.
        if let Some(directory) = std::env::var_os("LEADSMAN_WORKLOADS") {
            let directory = PathBuf::from(directory);
            ensure!(
                directory.join(VARIANTS[0].name).is_file(),
                "LEADSMAN_WORKLOADS={} holds no workloads",
                directory.display()
            );
            return Ok(Self { directory });
        }
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads");
        let root = target_directory()?.join("workloads");
        fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
        let lock = File::create(root.join("lock"))?;
        lock.lock()?;
        let directory = root.join(fingerprint(&sources)?);
        if !directory.exists() {
            let unfinished = root.join("unfinished");
            if unfinished.exists() {
                fs::remove_dir_all(&unfinished)?;
            }
            fs::create_dir(&unfinished)?;
            compile(&sources, &unfinished)?;
            fs::rename(&unfinished, &directory)?;
        }
        Ok(Self { directory })
    }
}

/// Changes with every source, with this file's recipe and with every compiler.
fn fingerprint(sources: &Path) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for name in SOURCES {
        let path = sources.join(name);
        fs::read(&path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .hash(&mut hasher);
    }
    include_str!("workloads.rs").hash(&mut hasher);
    for (compiler, argument) in [
        ("gcc", "--version"),
        ("g++", "--version"),
        ("rustc", "--version"),
        ("go", "version"),
    ] {
        run_ok(
            Command::new(require_command(compiler)?).arg(argument),
            Duration::from_secs(20),
        )?
        .stdout
        .hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn compile(sources: &Path, into: &Path) -> Result<()> {
    const DEADLINE: Duration = Duration::from_secs(300);
    let gcc = require_command("gcc")?;
    for library in ["plugin", "plt", "other"] {
        run_ok(
            Command::new(&gcc)
                .args(["-O2", "-shared", "-fPIC"])
                // Without a name of its own the program would look for it where it was built.
                .arg(format!("-Wl,-soname,libchains-{library}.so"))
                .arg("-o")
                .arg(into.join(format!("libchains-{library}.so")))
                .arg(sources.join(format!("{library}.c"))),
            DEADLINE,
        )?;
    }
    for variant in VARIANTS {
        let mut command = Command::new(&gcc);
        command
            .args(variant.flags)
            .arg("-o")
            .arg(into.join(variant.name))
            .arg(sources.join("chains.c"))
            .arg("-pthread");
        if !variant.is_static {
            // Lazy binding keeps the resolver and both kinds of PLT entry in the picture.
            command
                .arg(into.join("libchains-plt.so"))
                .args(["-Wl,-rpath,$ORIGIN", "-Wl,-z,lazy"]);
        }
        run_ok(&mut command, DEADLINE)?;
    }
    run_ok(
        Command::new(&gcc)
            .args(["-O2", "-o"])
            .arg(into.join("w-child"))
            .arg(sources.join("child.c"))
            .arg("-pthread"),
        DEADLINE,
    )?;
    for other_name in ["w-exec", "w-pinned", "w-short", "w-texec"] {
        fs::hard_link(into.join("w-child"), into.join(other_name))?;
    }
    run_ok(
        Command::new(require_command("g++")?)
            .args(["-O2", "-o"])
            .arg(into.join("chains-cpp"))
            .arg(sources.join("chains.cpp"))
            .arg("-pthread"),
        DEADLINE,
    )?;
    run_ok(
        Command::new(require_command("rustc")?)
            .args(["-O", "--edition", "2024", "-o"])
            .arg(into.join("chains-rs"))
            .arg(sources.join("chains.rs")),
        DEADLINE,
    )?;
    run_ok(
        Command::new(require_command("go")?)
            .args(["build", "-o"])
            .arg(into.join("chains-go"))
            .arg(sources.join("chains.go"))
            .env("GOCACHE", into.join("go-cache"))
            .env("GOTOOLCHAIN", "local"),
        DEADLINE,
    )?;
    fs::remove_dir_all(into.join("go-cache"))?;
    compile_odd(sources, into)?;
    for script in ["compiled.c", "busy.py", "busy.js"] {
        fs::copy(sources.join(script), into.join(script))?;
    }
    Ok(())
}

/// The programs with odd stacks, and those that are odd themselves.
fn compile_odd(sources: &Path, into: &Path) -> Result<()> {
    const DEADLINE: Duration = Duration::from_secs(300);
    const COMPAT: [&str; 7] = [
        "-m32",
        "-nostdlib",
        "-static",
        "-fno-pie",
        "-no-pie",
        "-fno-stack-protector",
        "-ffreestanding",
    ];
    const UNFRAMED: [&str; 2] = ["-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables"];
    let c_programs: [(&str, &str, &str, &[&str]); 8] = [
        ("gcc", "odd", "odd", &["-pthread"]),
        (
            "gcc",
            "crypto",
            "crypto",
            &["-pthread", "-l:libcrypto.so.3"],
        ),
        ("gcc", "simple", "simple", &["-pthread"]),
        ("gcc", "unframed", "w-unframed", &UNFRAMED),
        ("musl-gcc", "simple", "simple-musl", &["-pthread"]),
        (
            "musl-gcc",
            "simple",
            "simple-muslst",
            &["-static", "-pthread"],
        ),
        ("gcc", "compat", "w-compat", &COMPAT),
        // Without call frame information of the linker's for its PLT entries.
        (
            "gcc",
            "chains",
            "chains-bareplt",
            &["-pthread", "-Wl,--no-ld-generated-unwind-info"],
        ),
    ];
    for (compiler, source, name, flags) in c_programs {
        let mut command = Command::new(require_command(compiler)?);
        command
            .args(["-O2", "-o"])
            .arg(into.join(name))
            .arg(sources.join(format!("{source}.c")))
            .args(flags);
        if source == "chains" {
            command
                .arg(into.join("libchains-plt.so"))
                .args(["-Wl,-rpath,$ORIGIN", "-Wl,-z,lazy"]);
        }
        run_ok(&mut command, DEADLINE)?;
    }
    run_ok(
        Command::new(require_command("rustc")?)
            .args(["-O", "--edition", "2024", "-o"])
            .arg(into.join("chains-async"))
            .arg(sources.join("async.rs")),
        DEADLINE,
    )?;
    run_ok(
        Command::new(require_command("go")?)
            .args(["build", "-o"])
            .arg(into.join("chains-cgo"))
            .arg(sources.join("cgo.go"))
            .env("GOCACHE", into.join("go-cache"))
            .env("GOTOOLCHAIN", "local")
            .env("CGO_ENABLED", "1"),
        DEADLINE,
    )?;
    // The same program without debug information: Go's own tables are left.
    run_ok(
        Command::new(require_command("go")?)
            .args(["build", "-ldflags", "-s -w", "-o"])
            .arg(into.join("chains-gostrip"))
            .arg(sources.join("chains.go"))
            .env("GOCACHE", into.join("go-cache"))
            .env("GOTOOLCHAIN", "local"),
        DEADLINE,
    )?;
    fs::remove_dir_all(into.join("go-cache"))?;
    Ok(())
}

/// A started workload; the whole process group goes with the value, and with the thread that started it.
#[derive(Debug)]
pub struct Workload {
    child: Child,
    // Kept open: a workload that prints to a closed pipe would die of it.
    _stdout: BufReader<ChildStdout>,
}

impl Workload {
    /// Starts a workload program that says "started ..." on its standard output, and waits for that line.
    pub fn start(program: &str, arguments: &[&str]) -> Result<Self> {
        Self::start_at(&programs()?.path(program), arguments)
    }

    /// As [`Workload::start`], of an executable that says the same.
    pub fn start_at(path: &Path, arguments: &[&str]) -> Result<Self> {
        Self::run(Command::new(path).args(arguments))
    }

    /// As [`Workload::start`], by a command of one's own.
    pub fn run(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let stdout = child
            .stdout
            .take()
            .context("the workload's output is a pipe")?;
        let mut workload = Self {
            child,
            _stdout: BufReader::new(stdout),
        };
        let mut line = String::new();
        // The reader is bounded: a workload says one short line.
        (&mut workload._stdout).take(200).read_line(&mut line)?;
        ensure!(
            line.starts_with("started "),
            "{program} said '{}' instead of 'started ...'",
            line.trim()
        );
        Ok(workload)
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}
