//! The table as text: `--help`, docs/configuration.md, JSON Schema; and the settings in force.

use std::fmt::Write as _;

use relabel::Action;
use serde_json::{Map, Value, json};

use crate::kind::Kind;
use crate::rules;
use crate::settings::{Origin, Settings};
use crate::table::{Group, SETTINGS, Setting, Use};

/// What is shown in place of a secret.
const HIDDEN: &str = "<hidden>";

fn of_group(group: Group) -> impl Iterator<Item = &'static Setting> {
    SETTINGS
        .iter()
        .filter(move |setting| setting.group == group)
}

/// `--help`: `usage`, then the flags by group, lines of at most `width` columns.
#[must_use]
pub fn help(usage: &str, width: usize) -> String {
    let mut text = format!("{usage}\n");
    for group in Group::ALL {
        if group == Group::Accepted {
            continue;
        }
        let _infallible = writeln!(text, "\n{}:", group.heading());
        for setting in of_group(group) {
            text += &flag(setting, width);
        }
    }
    let names: Vec<&str> = of_group(Group::Accepted)
        .map(|setting| setting.name)
        .collect();
    let _infallible = writeln!(
        text,
        "\n{}, with a line in the log:",
        Group::Accepted.heading()
    );
    text += &wrapped(&names.join(", "), 2, width);
    let _infallible = writeln!(
        text,
        "\nEach also as LEADSMAN_NAME in the environment and as `name: value` in the file; flags go before the\n\
         environment, the environment before the file. See docs/configuration.md."
    );
    text
}

fn flag(setting: &Setting, width: usize) -> String {
    const COLUMN: usize = 30;
    let value = match setting.kind {
        Kind::Bool => String::new(),
        kind => format!(" {}", kind.placeholder()),
    };
    let mut help = setting.help.to_owned();
    if let Kind::Choice(choices) = setting.kind {
        let _infallible = write!(help, ": {}", choices.join(", "));
    }
    if !setting.default.is_empty() && setting.default != "false" {
        let _infallible = write!(help, " [{}]", setting.default);
    }
    let left = format!("  --{}{value}", setting.name);
    let mut text = String::new();
    let body = wrapped(&help, COLUMN, width);
    if left.len() + 2 > COLUMN {
        let _infallible = writeln!(text, "{left}");
        text += &body;
    } else {
        let _infallible = write!(text, "{left:<COLUMN$}{}", body.trim_start());
    }
    text
}

/// Words in lines, each behind `indent` spaces.
fn wrapped(words: &str, indent: usize, width: usize) -> String {
    let mut text = String::new();
    let mut line = String::new();
    for word in words.split(' ') {
        if !line.is_empty() && indent + line.len() + 1 + word.len() > width {
            let _infallible = writeln!(text, "{:indent$}{line}", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    let _infallible = writeln!(text, "{:indent$}{line}", "");
    text
}

/// The tables of docs/configuration.md.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::new();
    for group in Group::ALL {
        let _infallible = writeln!(text, "## {}\n", group.heading());
        text += match group {
            Group::Accepted => "| setting | default | why it does nothing |\n|---|---|---|\n",
            _ => "| setting | value | default | what it does | at once |\n|---|---|---|---|---|\n",
        };
        for setting in of_group(group) {
            let Setting { name, help, .. } = setting;
            let default = match setting.default {
                "" => String::new(),
                default => format!("`{default}`"),
            };
            let help = help.replace('|', "\\|");
            let _infallible = match setting.effect {
                Use::Works => writeln!(
                    text,
                    "| `{name}` | {} | {default} | {help} | {} |",
                    value(setting.kind),
                    if setting.reloads { "yes" } else { "" },
                ),
                Use::Nothing(_) => writeln!(text, "| `{name}` | {default} | {help} |"),
                Use::Renamed(to) => writeln!(text, "| `{name}` | {default} | old name of `{to}` |"),
            };
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn value(kind: Kind) -> String {
    match kind {
        Kind::Choice(choices) => choices.join(", "),
        Kind::Bool => "true, false".to_owned(),
        kind => kind.placeholder().to_owned(),
    }
}

/// JSON Schema of a configuration file.
#[must_use]
pub fn schema() -> Value {
    let mut properties = Map::new();
    for setting in SETTINGS.iter().filter(|setting| setting.in_file) {
        let mut property = kind_schema(setting.kind);
        let mut describe = |key: &str, value: Value| {
            if let Value::Object(property) = &mut property {
                property.insert(key.to_owned(), value);
            }
        };
        describe("description", json!(setting.help));
        if !setting.default.is_empty() {
            describe("default", default_json(setting));
        }
        if !matches!(setting.effect, Use::Works) {
            describe("deprecated", json!(true));
        }
        properties.insert(setting.name.to_owned(), property.clone());
        let underscored = setting.name.replace('-', "_");
        if underscored != setting.name {
            properties.insert(underscored, property);
        }
    }
    let text = json!({"type": ["string", "number", "boolean", "null"]});
    let actions: Vec<&str> = Action::ALL.into_iter().map(Action::name).collect();
    properties.insert(
        rules::KEY.to_owned(),
        json!({
            "description": "Prometheus' relabelling rules, applied in order",
            "type": ["array", "null"],
            "items": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "source_labels": {"type": ["array", "null"], "items": {"type": "string", "minLength": 1}},
                    "separator": text, "regex": text, "target_label": text, "replacement": text,
                    "modulus": {"type": ["integer", "null"], "minimum": 0},
                    "action": {"enum": actions, "default": "replace"},
                },
            },
        }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Leadsman's configuration",
        "type": ["object", "null"],
        "additionalProperties": false,
        "properties": properties,
    })
}

fn default_json(setting: &Setting) -> Value {
    match setting.kind {
        Kind::Bool => json!(setting.default == "true"),
        Kind::Integer(..) | Kind::Bytes => json!(setting.default.parse::<u64>().ok()),
        _ => json!(setting.default),
    }
}

fn kind_schema(kind: Kind) -> Value {
    match kind {
        Kind::Bool => json!({"type": ["boolean", "null"]}),
        Kind::Text | Kind::Path | Kind::Listen => {
            json!({"type": ["string", "number", "boolean", "null"]})
        }
        Kind::Duration => json!({
            "type": ["string", "number", "null"],
            "pattern": r"^([0-9.]+(ns|us|µs|ms|s|m|h|d))+$|^[0-9.]+$",
        }),
        Kind::Integer(least, u64::MAX) => json!({"type": ["integer", "null"], "minimum": least}),
        Kind::Integer(least, most) => {
            json!({"type": ["integer", "null"], "minimum": least, "maximum": most})
        }
        Kind::Bytes => json!({
            "type": ["integer", "string", "null"], "minimum": 0,
            "pattern": "^[0-9]+ *(B|[KMGT]iB?)?$",
        }),
        Kind::Choice(choices) => {
            let mut values: Vec<Value> = choices.iter().map(|choice| json!(choice)).collect();
            values.push(Value::Null);
            json!({ "enum": values })
        }
        Kind::Pairs => json!({
            "type": ["string", "object", "array", "null"],
            "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
            "items": {"type": "string"},
        }),
        Kind::List => json!({"type": ["string", "array", "null"], "items": {"type": "string"}}),
    }
}

/// The settings in force as a file would say them, each with where it came from. What does nothing is left out unless it
/// was given.
#[must_use]
pub fn effective(settings: &Settings, file: Option<&str>) -> String {
    let mut text = String::new();
    for effective in settings.iter() {
        let setting = effective.setting;
        let idle = !matches!(setting.effect, Use::Works);
        if idle && effective.origin == Origin::Default {
            continue;
        }
        let value = match effective.value.as_str() {
            value if setting.secret && !value.is_empty() => HIDDEN.to_owned(),
            value => scalar(value),
        };
        let origin = match (&effective.origin, file) {
            (Origin::File(place), Some(file)) => format!("{file}:{place}"),
            (origin, _) => origin.to_string(),
        };
        let line = format!("{}: {value}", setting.name);
        let idle = if idle { ", no effect" } else { "" };
        let _infallible = writeln!(text, "{line:<52} # {origin}{idle}");
    }
    let rules = settings.rules();
    let _infallible = writeln!(text, "# {} relabelling rules", rules.len());
    for (index, rule) in rules.iter().enumerate() {
        let _infallible = writeln!(text, "#   {index}: {}", rule.to_string().escape_debug());
    }
    text
}

/// A value as YAML writes it.
fn scalar(value: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-".contains(character);
    if !value.is_empty() && value.chars().all(plain) && !value.starts_with(['-', '.']) {
        value.to_owned()
    } else {
        // JSON is YAML.
        Value::from(value).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, environment::Environment, flags};

    #[test]
    fn help_fits_a_terminal_and_names_all() {
        let help = help("usage", 100);
        for line in help.lines() {
            assert!(line.chars().count() <= 110, "{line}");
        }
        for setting in &SETTINGS {
            assert!(help.contains(setting.name), "{}", setting.name);
        }
    }

    #[test]
    fn what_is_shown_can_be_read_again_and_hides_secrets() {
        let flags = flags::read(
            [
                "--remote-store-bearer-token=s3cr3t",
                "--node=a: b",
                "--metadata-external-labels=a=b;c=d",
            ]
            .map(std::ffi::OsString::from),
        )
        .unwrap();
        let settings =
            Settings::join(&flags, &Environment::default(), &Document::default()).unwrap();
        let shown = effective(&settings, None);
        assert!(!shown.contains("s3cr3t") && shown.contains(HIDDEN));
        let without_path: String = shown
            .lines()
            .filter(|line| !line.starts_with("config-path"))
            .map(|line| format!("{line}\n"))
            .collect();
        let document = Document::read(&without_path).unwrap();
        let node = document
            .values
            .iter()
            .find(|(setting, ..)| setting.name == "node");
        assert_eq!(node.unwrap().1, "a: b");
    }

    #[test]
    fn the_schema_names_every_setting_of_a_file() {
        let schema = schema();
        let properties = schema["properties"].as_object().unwrap();
        for setting in SETTINGS.iter().filter(|setting| setting.in_file) {
            assert!(properties.contains_key(setting.name));
        }
        assert!(!properties.contains_key("config-path"));
    }
}
