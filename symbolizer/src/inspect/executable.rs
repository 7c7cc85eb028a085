//! Owns `executable FILE`: what the file says of itself, as one JSON object with the names of the labels made of it.
//! Given the other files of a process, it says which language runtime is among them.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use lexopt::prelude::*;

use super::InspectError;
use super::json::Json;
use crate::executable::Executable;
use crate::file_bytes::FileBytes;
use crate::runtime::Runtime;

/// Files besides the first.
const MAX_FILES: usize = 1024;

pub(super) fn run(arguments: impl Iterator<Item = OsString>) -> Result<(), InspectError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut paths = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(path) if paths.len() <= MAX_FILES => paths.push(PathBuf::from(path)),
            other => return Err(other.unexpected().into()),
        }
    }
    let Some(main) = paths.first() else {
        return Err(InspectError::Usage("FILE is missing".to_owned()));
    };
    let failed =
        |what: &dyn std::fmt::Display| InspectError::Failed(format!("{}: {what}", main.display()));
    let main_file = super::open(main).map_err(|error| failed(&error))?;
    let runtime = paths.iter().find_map(|path| {
        let runtime = Runtime::of_path(path.to_str()?)?;
        Some((runtime, path, super::open(path).ok()?))
    });
    super::lock_down(Vec::new())?;
    let mut executable = FileBytes::of_file(main_file)
        .and_then(Executable::read)
        .map_err(|reason| failed(&reason))?;
    let facts = executable.facts();
    let mut found = vec![
        ("file_id", hex(&facts.file_id)),
        ("static", facts.is_static.to_string()),
        ("stripped", facts.is_stripped.to_string()),
    ];
    if let Some(build_id) = executable.build_id() {
        found.push(("build_id", hex(build_id.as_bytes())));
    }
    if let Some(compiler) = &facts.compiler {
        found.push(("compiler", compiler.clone()));
    }
    let mut fields: Vec<(String, String)> = found
        .into_iter()
        .map(|(name, value)| (format!("__meta_process_executable_{name}"), value))
        .collect();
    let runtime = match runtime {
        Some((runtime, path, file)) => {
            let read = FileBytes::of_file(file).and_then(Executable::read);
            let version = read
                .ok()
                .and_then(|mut file| file.runtime_version(runtime, &path.to_string_lossy()));
            Some((runtime.name(), version))
        }
        None => facts
            .go_version
            .as_ref()
            .map(|version| ("go", Some(version.clone()))),
    };
    if let Some((name, version)) = runtime {
        fields.push(("__meta_process_runtime_name".to_owned(), name.to_owned()));
        if let Some(version) = version {
            fields.push(("__meta_process_runtime_version".to_owned(), version));
        }
    }
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{}:{}", Json(name), Json(value)))
        .collect();
    writeln!(std::io::stdout(), "{{{}}}", fields.join(",")).map_err(|error| failed(&error))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
