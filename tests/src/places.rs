//! Programs with debug information, built in every way that matters for naming addresses from what was uploaded, each time
//! with build IDs that no server has seen; and what the host's `addr2line` says of their addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::process::run_ok;
use crate::{public_directory, require_command};

const DEADLINE: Duration = Duration::from_secs(120);

/// A file that runs, and the file that knows its names.
#[derive(Debug, Clone)]
pub struct Code {
    /// What is mapped.
    pub mapped: PathBuf,
    /// What `addr2line` is asked about: the file before it was stripped.
    pub named: PathBuf,
    /// Functions that its samples show.
    pub functions: &'static [&'static str],
    /// Callers, and what stands in the source line that their samples show: the call.
    pub calls: &'static [(&'static str, &'static str)],
    /// Whether Go built it: binutils cannot read what today's Go writes, so Go's own tool is asked.
    pub is_go: bool,
    /// Whether it has functions' names alone, no files and lines.
    pub has_names_only: bool,
}

/// A program to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its comm.
    pub name: &'static str,
    /// Its own code first, then its library's.
    pub code: Vec<Code>,
}

/// All of them, in a directory of their own.
#[derive(Debug)]
pub struct Places {
    pub programs: Vec<Program>,
    directory: TempDir,
}

/// C variants: name and flags.
const C: [(&str, &[&str]); 7] = [
    ("places-pie", &["-pie", "-fPIE"]),
    ("places-no-pie", &["-no-pie", "-fno-pie"]),
    ("places-static", &["-static"]),
    ("places-library", &["-DWITH_LIBRARY"]),
    ("places-dwarf4", &["-gdwarf-4", "-gz=zlib"]),
    // Stripped, with their debug information in files of their own.
    ("places-by-id", &[]),
    ("places-by-link", &["-fno-omit-frame-pointer"]),
];

const C_FUNCTIONS: &[&str] = &["p_inlined", "p_leaf", "p_middle", "p_outer", "main"];
/// Those that are not inlined.
const NAMED_FUNCTIONS: &[&str] = &["p_leaf", "p_middle", "p_outer", "main"];
const C_CALLS: &[(&str, &str)] = &[
    ("main", "p_outer("),
    ("p_outer", "("),
    ("p_middle", "p_leaf("),
];

impl Places {
    /// Builds all programs; takes a few seconds.
    pub fn build() -> Result<Self> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads");
        let directory = public_directory("places-")?;
        let mut places = Self {
            programs: Vec::new(),
            directory,
        };
        for (name, flags) in C {
            places.add_c(&sources, name, flags)?;
        }
        places.add_symbols_only(&sources)?;
        places.strip_by_id("places-by-id")?;
        places.strip_by_link("places-by-link")?;
        places.add_rust(&sources)?;
        places.add_go(&sources, "places-go", &[])?;
        // No DWARF and no symbols: only Go's own table is left.
        places.add_go(&sources, "places-go-strip", &["-s", "-w"])?;
        Ok(places)
    }

    /// Where debug files are to be looked for.
    #[must_use]
    pub fn debug_directory(&self) -> PathBuf {
        self.directory.path().join("debug")
    }

    /// The executable's path.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn add_c(&mut self, sources: &Path, name: &'static str, flags: &[&str]) -> Result<()> {
        let gcc = require_command("gcc")?;
        let output = self.path(name);
        let mut code = vec![Code {
            mapped: output.clone(),
            named: output.clone(),
            functions: C_FUNCTIONS,
            calls: C_CALLS,
            is_go: false,
            has_names_only: false,
        }];
        let mut command = Command::new(&gcc);
        command
            .args(["-g", "-O2"])
            .args(flags)
            .arg(format!("-DSEED={}u", seed()?))
            .arg(build_id_flag()?)
            .arg("-o")
            .arg(&output)
            .arg(sources.join("places.c"));
        if flags.contains(&"-DWITH_LIBRARY") {
            let library = self.path("libplaces.so");
            run_ok(
                Command::new(&gcc)
                    .args(["-g", "-O2", "-shared", "-fPIC", "-Wl,-soname,libplaces.so"])
                    .arg(build_id_flag()?)
                    .arg("-o")
                    .arg(&library)
                    .arg(sources.join("places_library.c")),
                DEADLINE,
            )?;
            command.arg(&library).arg("-Wl,-rpath,$ORIGIN");
            code.push(Code {
                mapped: library.clone(),
                named: library,
                functions: &["p_library_leaf", "p_library"],
                calls: &[("p_library", "p_library_leaf(")],
                is_go: false,
                has_names_only: false,
            });
        }
        run_ok(&mut command, DEADLINE)?;
        self.programs.push(Program { name, code });
        Ok(())
    }

    /// Without DWARF: with a symbol table, and stripped to what is exported. Both call through a lazily bound PLT.
    fn add_symbols_only(&mut self, sources: &Path) -> Result<()> {
        for (name, flags) in [
            ("places-symtab", &["-g0", "-Wl,-z,lazy"][..]),
            ("places-dynsym", &["-g0", "-Wl,-z,lazy", "-rdynamic"]),
        ] {
            self.add_c(sources, name, flags)?;
            let Some(Program { code, .. }) = self.programs.last_mut() else {
                continue;
            };
            code[0].has_names_only = true;
            code[0].functions = NAMED_FUNCTIONS;
            code[0].calls = &[];
        }
        let program = self.path("places-dynsym");
        let whole = self.path("places-dynsym.whole");
        std::fs::copy(&program, &whole)?;
        run_ok(
            Command::new(require_command("strip")?).arg(&program),
            DEADLINE,
        )?;
        self.named_by("places-dynsym", &whole);
        Ok(())
    }

    fn named_by(&mut self, name: &str, file: &Path) {
        for entry in &mut self.programs {
            if entry.name == name {
                entry.code[0].named = file.to_owned();
            }
        }
    }

    fn add_rust(&mut self, sources: &Path) -> Result<()> {
        let output = self.path("places-rs");
        run_ok(
            Command::new(require_command("rustc")?)
                .args(["-g", "-O", "--edition", "2024", "-C"])
                .arg(format!("link-arg={}", build_id_flag()?))
                .arg("-o")
                .arg(&output)
                .arg(sources.join("places.rs")),
            DEADLINE,
        )?;
        self.add("places-rs", output.clone(), output, C_FUNCTIONS);
        Ok(())
    }

    fn add_go(&mut self, sources: &Path, name: &'static str, flags: &[&str]) -> Result<()> {
        let go = require_command("go")?;
        let cache = crate::binaries::target_directory()?.join("workloads/go-places");
        let build = |output: &Path, flags: &[&str], id: &str| {
            run_ok(
                Command::new(&go)
                    .arg("build")
                    .arg(format!(
                        "-ldflags=-buildid={id} -B none {}",
                        flags.join(" ")
                    ))
                    .arg("-o")
                    .arg(output)
                    .arg(sources.join("places.go"))
                    .env("GOCACHE", &cache)
                    .env("GOTOOLCHAIN", "local")
                    .env("GOFLAGS", ""),
                DEADLINE,
            )
        };
        let id = random_hex()?;
        let output = self.path(name);
        build(&output, flags, &id)?;
        let named = if flags.is_empty() {
            output.clone()
        } else {
            // The same code with its symbols.
            let named = self.path(&format!("{name}.named"));
            build(&named, &[], &id)?;
            named
        };
        self.add(
            name,
            output,
            named,
            &["main.p_leaf", "main.p_middle", "main.p_outer", "main.main"],
        );
        Ok(())
    }

    fn add(
        &mut self,
        name: &'static str,
        mapped: PathBuf,
        named: PathBuf,
        functions: &'static [&'static str],
    ) {
        self.programs.push(Program {
            name,
            code: vec![Code {
                mapped,
                named,
                functions,
                calls: &[],
                is_go: name.starts_with("places-go"),
                has_names_only: false,
            }],
        });
    }

    /// Moves the debug information to `debug/.build-id/xx/rest.debug`.
    fn strip_by_id(&mut self, name: &str) -> Result<()> {
        let id = build_id(&self.path(name))?;
        let (head, tail) = id.split_at_checked(2).context("a short build ID")?;
        let debug = self
            .debug_directory()
            .join(".build-id")
            .join(head)
            .join(format!("{tail}.debug"));
        self.split(name, &debug)
    }

    /// Moves the debug information to `.debug/NAME.debug` beside the program, named by its `.gnu_debuglink`.
    fn strip_by_link(&mut self, name: &str) -> Result<()> {
        let debug = self
            .directory
            .path()
            .join(".debug")
            .join(format!("{name}.debug"));
        self.split(name, &debug)?;
        run_ok(
            Command::new(require_command("objcopy")?)
                .arg(format!("--add-gnu-debuglink={}", debug.display()))
                .arg(self.path(name)),
            DEADLINE,
        )?;
        Ok(())
    }

    fn split(&mut self, name: &str, debug: &Path) -> Result<()> {
        let program = self.path(name);
        let whole = self.path(&format!("{name}.whole"));
        std::fs::copy(&program, &whole)?;
        std::fs::create_dir_all(debug.parent().context("no directory")?)?;
        let objcopy = require_command("objcopy")?;
        for (option, output) in [("--only-keep-debug", debug), ("--strip-all", &program)] {
            run_ok(
                Command::new(&objcopy).arg(option).arg(&whole).arg(output),
                DEADLINE,
            )?;
        }
        self.named_by(name, &whole);
        Ok(())
    }
}

fn random_hex() -> Result<String> {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(uuid.trim().replace('-', ""))
}

fn seed() -> Result<u32> {
    Ok(u32::from_str_radix(&random_hex()?[..8], 16)?)
}

fn build_id_flag() -> Result<String> {
    Ok(format!("-Wl,--build-id=0x{}", random_hex()?))
}

/// The GNU build ID, in hex.
fn build_id(file: &Path) -> Result<String> {
    let output = run_ok(
        Command::new(require_command("readelf")?)
            .arg("-n")
            .arg(file),
        DEADLINE,
    )?;
    let text = output.text();
    let id = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Build ID: "));
    Ok(id
        .with_context(|| format!("{} has no build ID", file.display()))?
        .trim()
        .to_owned())
}

/// One function at an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostLine {
    pub function: String,
    pub file: String,
    pub line: i64,
}

/// What the host's tool says of each address: the outermost function first. Of Go's inlined calls it says nothing.
pub fn host_lines(code: &Code, addresses: &BTreeSet<u64>) -> Result<BTreeMap<u64, Vec<HostLine>>> {
    if code.is_go {
        let mut go = Command::new(require_command("go")?);
        go.args(["tool", "addr2line"]).arg(&code.named);
        let text = asked(&mut go, addresses)?;
        let mut lines = text.lines();
        let mut found = BTreeMap::new();
        for address in addresses {
            let (Some(function), Some(place)) = (lines.next(), lines.next()) else {
                break;
            };
            found.insert(*address, vec![host_line(function, place)]);
        }
        return Ok(found);
    }
    let mut addr2line = Command::new(require_command("addr2line")?);
    addr2line
        .args(["-a", "-f", "-i", "-C", "-e"])
        .arg(&code.named);
    let text = asked(&mut addr2line, addresses)?;
    let mut found: BTreeMap<u64, Vec<HostLine>> = BTreeMap::new();
    let mut current = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(address) = line.strip_prefix("0x") {
            current = u64::from_str_radix(address, 16).ok();
            continue;
        }
        let (Some(address), Some(place)) = (current, lines.next()) else {
            break;
        };
        found
            .entry(address)
            .or_default()
            .insert(0, host_line(line, place));
    }
    Ok(found)
}

fn host_line(function: &str, place: &str) -> HostLine {
    let place = place.split(" (discriminator").next().unwrap_or(place);
    let (path, number) = place.rsplit_once(':').unwrap_or((place, "0"));
    HostLine {
        function: function.to_owned(),
        file: path.to_owned(),
        line: number.parse().unwrap_or(0),
    }
}

/// What a tool prints to addresses on its standard input.
fn asked(command: &mut Command, addresses: &BTreeSet<u64>) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let mut stdin = child.stdin.take().context("it has an input")?;
    let asked: Vec<u64> = addresses.iter().copied().collect();
    let writer = std::thread::spawn(move || {
        for address in asked {
            writeln!(stdin, "{address:#x}")?;
        }
        std::io::Result::Ok(())
    });
    let output = child.wait_with_output()?;
    let written = writer.join();
    ensure!(
        output.status.success() && written.is_ok_and(|written| written.is_ok()),
        "{command:?} ended with {}",
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The addresses at which functions start, by the name that [`base_name`] leaves of theirs.
pub fn function_starts(file: &Path) -> Result<BTreeMap<String, BTreeSet<u64>>> {
    let output = run_ok(
        Command::new(require_command("nm")?)
            .args(["-C", "--defined-only"])
            .arg(file),
        DEADLINE,
    )?;
    let mut starts: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for line in output.text().lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        if let (Ok(address), "t" | "T" | "w" | "W") = (u64::from_str_radix(address, 16), kind) {
            starts
                .entry(base_name(name).to_owned())
                .or_default()
                .insert(address);
        }
    }
    Ok(starts)
}

/// What two tools agree on of a function's name: its last part, without parameters of either kind.
#[must_use]
pub fn base_name(name: &str) -> &str {
    let bytes = name.as_bytes();
    let (mut depth, mut start, mut end) = (0_i32, 0, name.len());
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'<' if depth == 0 && at > start => {
                end = end.min(at);
                depth += 1;
            }
            b'<' => depth += 1,
            b'>' => depth -= 1,
            b'(' if depth == 0 => {
                end = end.min(at);
                break;
            }
            // `path::<impl>::name`: what follows is the name so far.
            b':' if depth == 0
                && bytes.get(at + 1) == Some(&b':')
                && bytes.get(at + 2).is_some_and(|next| *next != b'<') =>
            {
                start = at + 2;
                end = name.len();
            }
            _ => {}
        }
    }
    let last = name.get(start..end).unwrap_or(name).trim_end_matches("::");
    // Compilers number closures where demanglers do not.
    if last.starts_with('{') {
        "{closure"
    } else {
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_by_their_last_part() {
        for (name, base) in [
            ("p_leaf", "p_leaf"),
            ("places::p_leaf", "p_leaf"),
            ("<places::Walker as places::Step>::p_step", "p_step"),
            ("places::p_apply::<fn(u32)>", "p_apply"),
            ("p_apply<fn(u32) -> u32>", "p_apply"),
            ("ns::Class<int>::method(char const*)", "method"),
            ("places::main::{{closure}}", "{closure"),
            ("{closure#0}", "{closure"),
            ("main.p_outer", "main.p_outer"),
        ] {
            assert_eq!(base_name(name), base, "{name}");
        }
    }
}
