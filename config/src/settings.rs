//! The settings in force: flag before environment before file before default, each with where it came from.

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use ipc_endpoint::duration;
use ipc_proto::hello::Role;
use relabel::{Definition, Rule};

use crate::document::Document;
use crate::environment::Environment;
use crate::flags::Flags;
use crate::kind::{Kind, pairs};
use crate::node::Place;
use crate::table::{SETTINGS, Setting, Use, find};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The file, at that place.
    File(Place),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File(place) => write!(formatter, "file {place}"),
            Self::Environment(variable) => write!(formatter, "environment {variable}"),
            Self::Flag => formatter.write_str("flag"),
        }
    }
}

/// A setting's value.
#[derive(Clone, Debug)]
pub struct Effective {
    /// Which.
    pub setting: &'static Setting,
    /// Its canonical value.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// All settings.
#[derive(Clone, Debug)]
pub struct Settings {
    values: Vec<Effective>,
    /// What was given under an old name, or does nothing: one line each.
    notices: Vec<(bool, String)>,
    rules: Vec<Rule>,
}

impl Settings {
    /// Joins what the sources say.
    ///
    /// # Errors
    /// One line on settings that can't be as they are.
    pub fn join(
        flags: &Flags,
        environment: &Environment,
        document: &Document,
    ) -> Result<Self, String> {
        let mut settings = Self {
            values: SETTINGS
                .iter()
                .map(|setting| Effective {
                    setting,
                    value: setting.default.to_owned(),
                    origin: Origin::Default,
                })
                .collect(),
            notices: Vec::new(),
            rules: document.rules.clone(),
        };
        // What is said later holds.
        for (setting, value, place) in &document.values {
            settings.set(setting, value, Origin::File(*place));
        }
        for (setting, value, variable) in &environment.values {
            settings.set(setting, value, Origin::Environment(variable.clone()));
        }
        for (setting, value) in &flags.values {
            settings.set(setting, value, Origin::Flag);
        }
        settings.check()?;
        Ok(settings)
    }

    fn set(&mut self, setting: &'static Setting, value: &str, origin: Origin) {
        let name = setting.name;
        let mut target = setting;
        match setting.effect {
            Use::Works => {}
            Use::Nothing(why) => self
                .notices
                .push((false, format!("{name} ({origin}) has no effect: {why}"))),
            Use::Renamed(to) => {
                let line = format!("{name} ({origin}) is an old name: use {to}");
                self.notices.push((true, line));
                if let Some(found) = find(to) {
                    target = found;
                }
            }
        }
        let value = if value.is_empty()
            && !matches!(
                target.kind,
                Kind::Text | Kind::Path | Kind::List | Kind::Pairs
            ) {
            target.default
        } else {
            value
        };
        if let Some(known) = self
            .values
            .iter_mut()
            .find(|known| known.setting.name == target.name)
        {
            known.value = value.to_owned();
            known.origin = origin;
        }
    }

    fn check(&mut self) -> Result<(), String> {
        let window = self.duration("profiling-duration");
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&window) {
            return Err(self.refused("profiling-duration", "is not from 1s to 1h"));
        }
        let ring: u64 = self
            .get("bpf-events-buffer-size")
            .parse()
            .unwrap_or_default();
        if !ring.is_power_of_two() {
            return Err(self.refused("bpf-events-buffer-size", "is no power of two from 32"));
        }
        if self.get("profiling-cpu-sampling-frequency") == "0" {
            let known = self
                .values
                .iter_mut()
                .find(|known| known.setting.name == "profiling-cpu-sampling-frequency");
            if let Some(known) = known {
                known.value = known.setting.default.to_owned();
            }
        }
        if self.frequency() > 150 {
            let line = format!(
                "profiling-cpu-sampling-frequency {}: more than 150 samples a second and CPU cost more than they tell",
                self.frequency()
            );
            self.notices.push((true, line));
        }
        for (name, _) in pairs(self.get("metadata-external-labels"))? {
            if !is_label_name(&name) {
                let what =
                    format!("holds {name:?}, which is no label name (letters, digits and _)");
                return Err(self.refused("metadata-external-labels", &what));
            }
        }
        let mut rules = self.process_rule()?;
        rules.append(&mut self.rules);
        self.rules = rules;
        Ok(())
    }

    fn refused(&self, name: &str, what: &str) -> String {
        let origin = self.effective(name).map(|known| known.origin.to_string());
        format!(
            "{name} ({}): {:?} {what}",
            origin.unwrap_or_default(),
            self.get(name)
        )
    }

    /// `debug-process-names` is a rule before all others.
    fn process_rule(&self) -> Result<Vec<Rule>, String> {
        let patterns: Vec<&str> = self
            .get("debug-process-names")
            .split(',')
            .filter(|pattern| !pattern.is_empty())
            .collect();
        if patterns.is_empty() {
            return Ok(Vec::new());
        }
        let rule = Rule::new(Definition {
            source_labels: Some(vec!["comm".to_owned()]),
            // The agent's patterns are not anchored.
            regex: Some(format!(".*(?:{}).*", patterns.join("|"))),
            action: Some(relabel::Action::Keep),
            ..Definition::default()
        });
        Ok(vec![rule.map_err(|error| {
            self.refused("debug-process-names", &error.to_string())
        })?])
    }

    /// States a value that follows from what was found on the machine: a directory's absolute path, the port in use.
    pub fn state(&mut self, name: &str, value: impl Into<String>) {
        debug_assert!(find(name).is_some(), "{name} is no setting");
        let known = self
            .values
            .iter_mut()
            .find(|known| known.setting.name == name);
        if let Some(known) = known {
            known.value = value.into();
        }
    }

    /// All settings in the table's order.
    pub fn iter(&self) -> impl Iterator<Item = &Effective> {
        self.values.iter()
    }

    fn effective(&self, name: &str) -> Option<&Effective> {
        self.values.iter().find(|known| known.setting.name == name)
    }

    /// A setting's value.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        debug_assert!(find(name).is_some(), "{name} is no setting");
        self.effective(name)
            .map_or("", |known| known.value.as_str())
    }

    /// Where a setting's value came from.
    #[must_use]
    pub fn origin(&self, name: &str) -> &Origin {
        self.effective(name)
            .map_or(&Origin::Default, |known| &known.origin)
    }

    /// A duration's value.
    #[must_use]
    pub fn duration(&self, name: &str) -> Duration {
        duration::parse(self.get(name)).unwrap_or_default()
    }

    /// Samples a second and CPU.
    #[must_use]
    pub fn frequency(&self) -> u32 {
        self.get("profiling-cpu-sampling-frequency")
            .parse()
            .unwrap_or(19)
    }

    /// The relabelling rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What the user should know of what was given: whether it is a warning, and one line.
    pub fn notices(&self) -> impl Iterator<Item = (bool, &str)> {
        self.notices
            .iter()
            .map(|(warning, line)| (*warning, line.as_str()))
    }

    /// What the process `role` is told: the settings it takes, by their public names; what has neither value nor
    /// default is left to it.
    #[must_use]
    pub fn arguments(&self, role: Role) -> Vec<OsString> {
        let told = self
            .values
            .iter()
            .filter(|known| known.setting.roles.contains(&role) && !known.value.is_empty());
        told.map(|known| {
            let mut argument = OsString::from(format!("--{}=", known.setting.name));
            match known.setting.kind {
                // Processes start in another directory.
                Kind::Path => argument.push(
                    std::path::absolute(&known.value)
                        .unwrap_or_else(|_no_directory| known.value.clone().into()),
                ),
                _ => argument.push(&known.value),
            }
            argument
        })
        .collect()
    }

    /// Settings that a changed file can't change: those said by flag or environment, with their values.
    #[must_use]
    pub fn stated(&self) -> Vec<(&'static str, &str)> {
        let above = |origin: &Origin| matches!(origin, Origin::Flag | Origin::Environment(_));
        self.values
            .iter()
            .filter(|known| known.setting.reloads && above(&known.origin))
            .map(|known| (known.setting.name, known.value.as_str()))
            .collect()
    }
}

/// Names of Prometheus labels in profiles (`[a-zA-Z_][a-zA-Z0-9_]*`).
fn is_label_name(name: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(sound) && !name.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{environment, flags};

    fn join(
        arguments: &[&str],
        variables: &[(&str, &str)],
        file: &str,
    ) -> Result<Settings, String> {
        let flags = flags::read(arguments.iter().map(OsString::from))?;
        let variables = variables
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let document = Document::read(file).map_err(|problems| problems[0].to_string())?;
        Settings::join(&flags, &environment::read(variables)?, &document)
    }

    /// A value other than the default that the kind takes.
    fn other(setting: &Setting) -> String {
        match setting.kind {
            Kind::Bool => (setting.default != "true").to_string(),
            Kind::Text | Kind::Path => "/other".to_owned(),
            Kind::Listen => "127.0.0.1:1".to_owned(),
            Kind::Duration => "1m1s".to_owned(),
            Kind::Integer(..) => "64".to_owned(),
            Kind::Bytes => "4194304".to_owned(),
            Kind::Choice(choices) => choices[choices.len() - 1].to_owned(),
            Kind::Pairs => "a=b".to_owned(),
            Kind::List => "x,y".to_owned(),
        }
    }

    #[test]
    fn every_setting_comes_by_flag_environment_and_file() {
        for setting in &SETTINGS {
            let (name, value) = (setting.name, other(setting));
            let target = match setting.effect {
                Use::Renamed(to) => to,
                _ => name,
            };
            let flag = format!("--{name}={value}");
            let by_flag = join(&[&flag], &[], "").unwrap();
            assert_eq!(by_flag.get(target), value, "{name}");
            assert_eq!(by_flag.origin(target), &Origin::Flag);
            let apart = join(&[&format!("--{name}"), &value], &[], "");
            if setting.kind == Kind::Bool {
                assert!(apart.is_err(), "a value of {name} stands behind =");
            } else {
                assert_eq!(apart.unwrap().get(target), value, "{name}");
            }
            let variable = setting.variable();
            let by_variable = join(&[], &[(&variable, &value)], "").unwrap();
            assert_eq!(by_variable.get(target), value, "{name}");
            assert_eq!(
                by_variable.origin(target),
                &Origin::Environment(variable.clone())
            );
            let line = format!("{name}: {value}\n");
            if !setting.in_file {
                assert!(join(&[], &[], &line).is_err());
                continue;
            }
            let by_file = join(&[], &[], &line).unwrap();
            assert_eq!(by_file.get(target), value, "{name}");
            assert!(matches!(by_file.origin(target), Origin::File(_)));
            // And the order among them.
            let default = setting.default;
            if !default.is_empty() && matches!(setting.effect, Use::Works) {
                let flag = format!("--{name}={default}");
                let all = join(&[&flag], &[(&variable, &value)], &line).unwrap();
                assert_eq!((all.get(name), all.origin(name)), (default, &Origin::Flag));
                let two = join(&[], &[(&variable, default)], &line).unwrap();
                assert_eq!(two.get(name), default);
            }
            let notices = by_flag.notices().count();
            assert_eq!(notices, usize::from(setting.effect != Use::Works), "{name}");
        }
    }

    #[test]
    fn yes_needs_no_value() {
        let settings = join(
            &["--remote-store-insecure", "--debuginfo-strip=false"],
            &[],
            "",
        )
        .unwrap();
        assert_eq!(settings.get("remote-store-insecure"), "true");
        assert_eq!(settings.get("debuginfo-strip"), "false");
    }

    #[test]
    fn repeated_lists_add_up_and_the_rest_is_said_last() {
        let flags = [
            "--metadata-external-labels=a=1;b=2",
            "--metadata-external-labels=b=3",
            "--debuginfo-directories=/x",
            "--debuginfo-directories=/y",
            "--node=one",
            "--node=two",
        ];
        let settings = join(&flags, &[], "").unwrap();
        assert_eq!(settings.get("metadata-external-labels"), "a=1;b=3");
        assert_eq!(settings.get("debuginfo-directories"), "/x,/y");
        assert_eq!(settings.get("node"), "two");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for flag in [
            "--profiling-duration=2h",
            "--profiling-duration=10ms",
            "--bpf-events-buffer-size=100",
            "--bpf-events-buffer-size=16",
            "--profiling-cpu-sampling-frequency=1001",
            "--metadata-external-labels=a-b=c",
            "--debug-process-names=(",
            "--log-level=loud",
            "--node",
        ] {
            assert!(join(&[flag], &[], "").is_err(), "{flag}");
        }
        let error = join(&["--lgo-level=debug"], &[], "").unwrap_err();
        assert!(error.ends_with("did you mean --log-level?"), "{error}");
        let error = join(&["--metadata-external-label=a=b"], &[], "").unwrap_err();
        assert!(error.contains("--metadata-external-labels"), "{error}");
        let error = join(&["serve"], &[], "").unwrap_err();
        assert!(error.contains("unexpected"), "{error}");
    }

    #[test]
    fn nought_hertz_is_the_default() {
        let settings = join(&["--profiling-cpu-sampling-frequency=0"], &[], "").unwrap();
        assert_eq!(settings.frequency(), 19);
        assert_eq!(
            join(&["--profiling-cpu-sampling-frequency=200"], &[], "")
                .unwrap()
                .notices()
                .count(),
            1
        );
    }

    #[test]
    fn the_token_is_never_an_argument() {
        let settings = join(&[], &[("PARCA_BEARER_TOKEN", "s3cr3t")], "").unwrap();
        assert_eq!(settings.get("remote-store-bearer-token"), "s3cr3t");
        let both = [
            ("PARCA_BEARER_TOKEN", "old"),
            ("LEADSMAN_REMOTE_STORE_BEARER_TOKEN", "new"),
        ];
        assert_eq!(
            join(&[], &both, "")
                .unwrap()
                .get("remote-store-bearer-token"),
            "new"
        );
        for rights in ipc_endpoint::rights::ALL.iter() {
            let arguments = settings.arguments(rights.role);
            assert!(
                !arguments
                    .iter()
                    .any(|argument| argument.to_string_lossy().contains("s3cr3t"))
            );
        }
    }

    #[test]
    fn each_process_reads_its_own_part() {
        let settings = join(&["--node=n", "--log-level=debug"], &[], "").unwrap();
        let arguments = |role| -> Vec<String> {
            let arguments = settings.arguments(role).into_iter();
            arguments
                .map(|argument| argument.into_string().unwrap())
                .collect()
        };
        assert!(arguments(Role::Shipper).contains(&"--node=n".to_owned()));
        assert!(!arguments(Role::Sampler).contains(&"--node=n".to_owned()));
        assert!(arguments(Role::Opener).contains(&"--log-level=debug".to_owned()));
        assert_eq!(settings.stated(), [("log-level", "debug"), ("node", "n")]);
    }

    #[test]
    fn files_are_refused_with_all_their_problems_and_their_places() {
        let file = "log-level: loud\nlgo-format: json\nrelabel_configs:\n- action: keep\n  regex: '('\n- actoin: drop\n- source_labels: a\n  target_label: b\nnode: [a]\nlog_level: info\nconfig-path: /x\n";
        let problems = Document::read(file).unwrap_err();
        let places: Vec<String> = problems
            .iter()
            .map(|problem| problem.place.to_string())
            .collect();
        assert_eq!(
            places,
            ["1:12", "2:1", "5:10", "6:3", "7:18", "9:7", "10:1", "11:1"],
            "{problems:#?}"
        );
        assert!(
            problems[1].what.contains("did you mean log-format?"),
            "{:?}",
            problems[1]
        );
        assert!(
            problems[2].what.contains("missing closing )"),
            "{:?}",
            problems[2]
        );
        assert!(
            problems[3].what.contains("did you mean action?"),
            "{:?}",
            problems[3]
        );
    }

    #[test]
    fn the_old_agents_file_is_read() {
        let file = "relabel_configs:\n- source_labels: [comm]\n  regex: bash\n  action: drop\n- source_labels: [pid]\n  modulus: 8\n  target_label: __tmp\n  action: hashmod\n- regex:\n  target_label: x\n  replacement: 1\n";
        let settings = join(&[], &[], file).unwrap();
        assert_eq!(settings.rules().len(), 3);
        assert!(Document::read("").unwrap().is_empty);
        assert!(
            join(&[], &[], "relabel_configs:\n")
                .unwrap()
                .rules()
                .is_empty()
        );
    }

    #[test]
    fn a_file_may_write_lists_as_lists() {
        let file = "metadata_external_labels: {region: eu, rack: 7}\ndebuginfo-directories: [/a, /b]\ndebuginfo-strip: no\n";
        let settings = join(&[], &[], file).unwrap();
        assert_eq!(settings.get("metadata-external-labels"), "region=eu;rack=7");
        assert_eq!(settings.get("debuginfo-directories"), "/a,/b");
        assert_eq!(settings.get("debuginfo-strip"), "false");
    }
}
