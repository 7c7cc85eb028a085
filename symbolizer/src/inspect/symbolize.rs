//! Owns `symbolize --exe FILE ADDRESS...`: one JSON line for each ELF address, in the order asked. Separate debug files
//! are looked up where debuggers look, for there is no opener to ask.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};

use lexopt::prelude::*;

use super::InspectError;
use super::json::Json;
use crate::cache::ExecutableKey;
use crate::debuglink::DebugFileWanted;
use crate::executable::Resolved;
use crate::resolve::Symbolizer;

/// Where distributions install debug files.
const DEBUG_DIRECTORY: &str = "/usr/lib/debug";
/// The only executable there is.
const KEY: ExecutableKey = ExecutableKey(0);

struct Request {
    executable: PathBuf,
    addresses: Vec<u64>,
}

impl Request {
    fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, InspectError> {
        let mut parser = lexopt::Parser::from_args(arguments);
        let mut executable = None;
        let mut addresses = Vec::new();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("exe") | Short('e') => executable = Some(PathBuf::from(parser.value()?)),
                Value(address) => addresses.push(parse_address(&address)?),
                other => return Err(other.unexpected().into()),
            }
        }
        let executable =
            executable.ok_or_else(|| InspectError::Usage("--exe FILE is missing".to_owned()))?;
        if addresses.is_empty() {
            return Err(InspectError::Usage("there is no address".to_owned()));
        }
        Ok(Self {
            executable,
            addresses,
        })
    }
}

fn parse_address(text: &OsStr) -> Result<u64, InspectError> {
    let parsed = text.to_str().and_then(|text| {
        let digits = text
            .strip_prefix("0x")
            .or_else(|| text.strip_prefix("0X"))
            .unwrap_or(text);
        // from_str_radix takes a sign.
        digits
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit())
            .then(|| u64::from_str_radix(digits, 16).ok())?
    });
    parsed.ok_or_else(|| {
        InspectError::Usage(format!(
            "{text:?} is no ELF address: give hexadecimal digits, as in 0x4011a0"
        ))
    })
}

pub(super) fn run(arguments: impl Iterator<Item = OsString>) -> Result<(), InspectError> {
    let request = Request::parse(arguments)?;
    let path = &request.executable;
    let failed =
        |what: &dyn std::fmt::Display| InspectError::Failed(format!("{}: {what}", path.display()));
    let file = super::open(path).map_err(|error| failed(&error))?;
    let directories = Directories::beside(path);
    super::lock_down(directories.existing())?;
    let mut symbolizer = Symbolizer::default();
    symbolizer
        .add_executable(KEY, file)
        .map_err(|reason| failed(&reason.explanation()))?;
    attach_debug_file(&mut symbolizer, &directories);

    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for address in request.addresses {
        let resolved = symbolizer.frames(KEY, address);
        match write_answer(&mut out, address, &resolved) {
            Ok(()) => {}
            // The reader has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(failed(&error)),
        }
    }
    match out.flush() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(failed(&error)),
        _ => Ok(()),
    }
}

fn attach_debug_file(symbolizer: &mut Symbolizer, directories: &Directories) {
    for wanted in symbolizer.debug_files_wanted(KEY) {
        for path in directories.candidates(&wanted) {
            let Ok(file) = super::open(&path) else {
                continue;
            };
            if symbolizer.attach_debug_file(KEY, &wanted, file).is_ok() {
                return;
            }
        }
    }
    symbolizer.no_debug_file(KEY);
}

/// Where debug files may be (GDB manual, "Debugging Information in Separate Files").
struct Directories {
    /// Without symbolic links.
    executable: PathBuf,
    /// The executable's own.
    own: PathBuf,
}

impl Directories {
    fn beside(executable: &Path) -> Self {
        let executable = executable
            .canonicalize()
            .unwrap_or_else(|_error| executable.to_owned());
        let own = executable.parent().unwrap_or(Path::new("/")).to_owned();
        Self { executable, own }
    }

    fn existing(&self) -> Vec<PathBuf> {
        let directories = [self.own.clone(), PathBuf::from(DEBUG_DIRECTORY)];
        directories
            .into_iter()
            .filter(|path| path.is_dir())
            .collect()
    }

    fn candidates(&self, wanted: &DebugFileWanted) -> Vec<PathBuf> {
        let debug = Path::new(DEBUG_DIRECTORY);
        match wanted {
            DebugFileWanted::ByBuildId(_) => wanted
                .build_id_path()
                .map(|path| debug.join(path))
                .into_iter()
                .collect(),
            DebugFileWanted::ByName { name, .. } => {
                let below = self.own.strip_prefix("/").unwrap_or(&self.own);
                let mut paths = vec![
                    self.own.join(name),
                    self.own.join(".debug").join(name),
                    debug.join(below).join(name),
                ];
                // A debug link that names the file itself leads nowhere.
                paths.retain(|path| *path != self.executable);
                paths
            }
        }
    }
}

fn write_answer(
    out: &mut impl Write,
    address: u64,
    resolved: &Resolved<'_>,
) -> std::io::Result<()> {
    write!(out, "{{\"address\":{address},\"frames\":[")?;
    for (index, frame) in resolved.frames.iter().enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        write!(
            out,
            "{{\"function\":{}",
            Json(resolved.names.get(frame.function))
        )?;
        match frame.file {
            Some(file) => write!(out, ",\"file\":{}", Json(resolved.names.get(file)))?,
            None => out.write_all(b",\"file\":null")?,
        }
        match frame.line {
            0 => out.write_all(b",\"line\":null")?,
            line => write!(out, ",\"line\":{line}")?,
        }
        write!(out, ",\"inlined\":{}}}", frame.inlined)?;
    }
    match resolved.reason {
        Some(reason) => writeln!(out, "],\"reason\":{}}}", Json(&reason.to_string())),
        None => writeln!(out, "],\"reason\":null}}"),
    }
}
