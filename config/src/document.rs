//! A configuration file: settings by their names, and `relabel_configs`. All of its problems are found at once.

use std::fmt;

use relabel::Rule;

use crate::kind::{Kind, join};
use crate::node::{self, Node, Place, Value};
use crate::rules;
use crate::suggest::hint;
use crate::table::{SETTINGS, Setting, find};

/// Problems that are told of one file.
const MAX_PROBLEMS: usize = 100;

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What.
    pub what: String,
}

impl Problem {
    pub(crate) fn new(place: Place, what: impl Into<String>) -> Self {
        Self {
            place,
            what: what.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.what)
    }
}

/// A file without problems.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// Settings, their canonical values, and where they stand.
    pub values: Vec<(&'static Setting, String, Place)>,
    /// The relabelling rules.
    pub rules: Vec<Rule>,
    /// Whether nothing stands in it.
    pub is_empty: bool,
}

impl Document {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Everything that is wrong with it, in order.
    pub fn read(text: &str) -> Result<Self, Vec<Problem>> {
        let root = match node::read(text) {
            Ok(Some(root)) => root,
            Ok(None) => {
                return Ok(Self {
                    is_empty: true,
                    ..Self::default()
                });
            }
            Err((place, what)) => return Err(vec![Problem::new(place, what)]),
        };
        let Value::Mapping(entries) = &root.value else {
            let what = format!(
                "the file is {}, not settings such as `log-level: debug`",
                root.what()
            );
            return Err(vec![Problem::new(root.place, what)]);
        };
        let mut document = Self::default();
        let mut problems = Vec::new();
        let mut seen: Vec<(String, Place)> = Vec::new();
        for (key, value) in entries {
            let Value::Scalar { text: name, .. } = &key.value else {
                problems.push(Problem::new(key.place, "a key that is no text"));
                continue;
            };
            let plain = name.replace('_', "-");
            if let Some((_, first)) = seen.iter().find(|(known, _)| *known == plain) {
                let what = format!("{name:?} stands already at {first}");
                problems.push(Problem::new(key.place, what));
                continue;
            }
            seen.push((plain, key.place));
            if name.replace('-', "_") == rules::KEY {
                document.rules = rules::read(value, &mut problems);
            } else {
                match setting(name, value) {
                    Ok(Some((setting, text))) => {
                        document.values.push((setting, text, value.place));
                    }
                    Ok(None) => {}
                    Err(what) => {
                        let unknown = find(name).is_none_or(|setting| !setting.in_file);
                        let place = if unknown { key.place } else { value.place };
                        problems.push(Problem::new(place, what));
                    }
                }
            }
        }
        problems.sort_by_key(|problem| problem.place);
        problems.truncate(MAX_PROBLEMS);
        if problems.is_empty() {
            Ok(document)
        } else {
            Err(problems)
        }
    }
}

/// A setting's canonical value; `None`: it is left to its default.
fn setting(name: &str, value: &Node) -> Result<Option<(&'static Setting, String)>, String> {
    let Some(setting) = find(name) else {
        let known = SETTINGS.iter().map(|setting| setting.name);
        let hint = hint(&name.replace('_', "-"), "", known.chain([rules::KEY]));
        return Err(format!("unknown setting {name:?}{hint}"));
    };
    if !setting.in_file {
        return Err(format!("{name} can't stand in a file: it is a flag"));
    }
    if value.is_null() {
        return Ok(None);
    }
    let text = text(setting, value).map_err(|error| format!("{name}: {error}"))?;
    if text.is_empty() {
        return Ok(Some((setting, text)));
    }
    let canonical = setting.kind.canonical(&text);
    let canonical = canonical.map_err(|error| match setting.secret {
        true => format!("{name}: a value that can't be one"),
        false => format!("{name}: {error}"),
    })?;
    Ok(Some((setting, canonical)))
}

fn text(setting: &Setting, value: &Node) -> Result<String, String> {
    let scalar = |node: &Node| match &node.value {
        _ if node.is_null() => Ok(String::new()),
        Value::Scalar { text, .. } => Ok(text.clone()),
        _ => Err(format!("{} where a value belongs", node.what())),
    };
    match (&value.value, setting.kind) {
        (Value::Sequence(items), Kind::List) => {
            let items: Result<Vec<String>, String> = items.iter().map(scalar).collect();
            Ok(items?.join(","))
        }
        (Value::Sequence(items), Kind::Pairs) => {
            let items: Result<Vec<String>, String> = items.iter().map(scalar).collect();
            Ok(items?.join(";"))
        }
        (Value::Mapping(entries), Kind::Pairs) => {
            let mut pairs = Vec::new();
            for (key, value) in entries {
                pairs.push((scalar(key)?, scalar(value)?));
            }
            Ok(join(&pairs))
        }
        _ => scalar(value),
    }
}
