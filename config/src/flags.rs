//! Flags as parca-agent takes them: `--name=value`, `--name value`, and `--name` alone where the value is a yes or no.

use std::ffi::OsString;

use crate::suggest::hint;
use crate::table::{SETTINGS, Setting, find};

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// Settings and their canonical values, each at most once.
    pub values: Vec<(&'static Setting, String)>,
    /// `--help` or `-h`.
    pub help: bool,
    /// `--version`.
    pub version: bool,
}

/// Reads `arguments`.
///
/// # Errors
/// One line on the first thing that is wrong.
pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Flags, String> {
    let mut flags = Flags::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let argument = argument
            .into_string()
            .map_err(|argument| format!("{argument:?} is not text"))?;
        let Some(flag) = argument.strip_prefix("--") else {
            if argument == "-h" {
                flags.help = true;
                continue;
            }
            let known = SETTINGS.iter().map(|setting| setting.name);
            let hint = hint(argument.trim_start_matches('-'), "--", known);
            return Err(format!("unexpected argument {argument:?}{hint}"));
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        match name {
            "help" if value.is_none() => {
                flags.help = true;
                continue;
            }
            "version" if value.is_none() => {
                flags.version = true;
                continue;
            }
            _ => {}
        }
        let Some(setting) = find(name) else {
            let known = SETTINGS.iter().map(|setting| setting.name);
            return Err(format!("unknown flag --{name}{}", hint(name, "--", known)));
        };
        let value = match value {
            Some(value) => value,
            None if setting.kind == crate::Kind::Bool => "true".to_owned(),
            None => {
                let next = arguments.next();
                let next = next.ok_or_else(|| format!("--{name} needs a value"))?;
                next.into_string()
                    .map_err(|value| format!("--{name}: {value:?} is not text"))?
            }
        };
        flags
            .add(setting, &value)
            .map_err(|error| format!("--{name}: {error}"))?;
    }
    Ok(flags)
}

impl Flags {
    fn add(&mut self, setting: &'static Setting, value: &str) -> Result<(), String> {
        let given = self
            .values
            .iter_mut()
            .find(|(known, _)| known.name == setting.name);
        let mut whole = value.to_owned();
        if let (Some((_, before)), Some(joint)) = (&given, setting.kind.accumulates())
            && !before.is_empty()
        {
            whole = format!("{before}{joint}{value}");
        }
        // Empty is as good as not given, but it does override the file.
        let canonical = if whole.is_empty() {
            whole
        } else {
            setting.kind.canonical(&whole)?
        };
        match given {
            Some((_, before)) => *before = canonical,
            None => self.values.push((setting, canonical)),
        }
        Ok(())
    }
}
