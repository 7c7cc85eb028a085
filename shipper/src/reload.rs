//! The configuration file while the shipper runs: read at the start, again when it changes or at SIGHUP. A file with
//! problems changes nothing and is told of once. What a flag or the environment stated stays.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use config::environment::Environment;
use config::flags::Flags;
use config::watch::Watch;
use config::{Document, Origin, Settings};
use ipc_endpoint::signals::Hangup;
use ipc_endpoint::statistics::gauge;
use ipc_proto::settings as wire;
use ipc_proto::statistics::Metric;
use rustix::time::{ClockId, clock_gettime};

use crate::arguments::{Arguments, external_labels};
use crate::labels;

/// Bytes read of a file: one more than a document may have.
const MAX_BYTES: u64 = (1 << 20) + 1;

/// The file and what holds.
#[derive(Debug)]
pub struct Reload {
    file: Option<PathBuf>,
    /// What its user calls it.
    name: String,
    watch: Option<Watch>,
    hangup: Hangup,
    stated: Flags,
    settings: Settings,
    /// The host's name; a locked down process can't ask for it.
    host: String,
    /// What was last read, sound or not.
    seen: Result<String, String>,
    successful: bool,
    succeeded: f64,
    /// Whether the file, or a file before it, set the rate, and the log's level: then others are told.
    told: (bool, bool),
}

impl Reload {
    /// Reads the file for the first time and begins to watch it. Call before the lockdown.
    ///
    /// # Errors
    /// One line on what is wrong with the file.
    pub fn start(arguments: &Arguments) -> Result<Self, String> {
        let hangup =
            Hangup::watch().map_err(|error| format!("cannot watch for SIGHUP: {error}"))?;
        let stated = Flags {
            values: arguments.stated.clone(),
            ..Flags::default()
        };
        let file = arguments.config_path.clone();
        let name = match (&arguments.config_name, &file) {
            (Some(name), _) => name.clone(),
            (None, Some(file)) => file.display().to_string(),
            (None, None) => String::new(),
        };
        let watch = file.as_deref().and_then(|file| {
            Watch::new(file)
                .inspect_err(|error| {
                    log::warn!("cannot watch {name}: {error}: changes take effect at SIGHUP only");
                })
                .ok()
        });
        let mut reload = Self {
            file,
            name,
            watch,
            hangup,
            settings: join(&stated, "")?,
            host: host_name(),
            stated,
            seen: Ok(String::new()),
            successful: true,
            succeeded: 0.0,
            told: (false, false),
        };
        if reload.file.is_some() {
            let text = reload.read()?;
            reload.settings = join(&reload.stated, &text).map_err(|error| reload.named(&error))?;
            reload.seen = Ok(text);
            reload.succeeded = now();
        }
        reload.learn_told();
        Ok(reload)
    }

    /// What holds.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is read by path after the lockdown.
    pub fn directories(&self) -> impl Iterator<Item = PathBuf> {
        let watched = self.watch.iter().flat_map(Watch::directories).cloned();
        let parent = self.file.as_ref().and_then(|file| file.parent());
        watched.chain(parent.map(PathBuf::from))
    }

    /// Reads the file again if it may have changed; `true`: other settings hold now.
    pub fn look(&mut self) -> bool {
        let asked = self.hangup.came();
        let changed = self.watch.as_mut().is_some_and(Watch::changed);
        if self.file.is_none() || !(asked || changed) {
            return false;
        }
        let text = self.read();
        if text == self.seen {
            // The same again: nothing new to do or to say.
            return false;
        }
        self.seen = text.clone();
        let joined =
            text.and_then(|text| join(&self.stated, &text).map_err(|error| self.named(&error)));
        match joined {
            Ok(settings) => {
                self.say_late(&settings);
                self.settings = settings;
                self.learn_told();
                (self.successful, self.succeeded) = (true, now());
                log::info!("{} was read again", self.name);
                true
            }
            Err(error) => {
                self.successful = false;
                log::error!("{error}: the settings stay as they were");
                false
            }
        }
    }

    fn read(&self) -> Result<String, String> {
        let Some(path) = &self.file else {
            return Ok(String::new());
        };
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
            .map(|_length| text)
            .map_err(|error| format!("cannot read {}: {error}", self.name))
    }

    fn named(&self, error: &str) -> String {
        format!("{}:{error}", self.name)
    }

    /// Names what changed but takes a new start.
    fn say_late(&self, settings: &Settings) {
        let late: Vec<&str> = self
            .settings
            .iter()
            .zip(settings.iter())
            .filter(|(before, after)| !after.setting.reloads && before.value != after.value)
            .map(|(_, after)| after.setting.name)
            .collect();
        if !late.is_empty() {
            log::warn!(
                "{} changed: takes effect at the next start",
                late.join(", ")
            );
        }
    }

    fn learn_told(&mut self) {
        let set = |name| *self.settings.origin(name) != Origin::Default;
        let (frequency, level) = (set("profiling-cpu-sampling-frequency"), set("log-level"));
        self.told = (self.told.0 || frequency, self.told.1 || level);
    }

    /// What the other processes are told. What nobody ever set is theirs.
    #[must_use]
    pub fn published(&self) -> wire::Settings {
        let level = self.level();
        wire::Settings {
            frequency: if self.told.0 {
                self.settings.frequency()
            } else {
                0
            },
            log_level: if self.told.1 { level as u8 } else { 0 },
        }
    }

    /// The log's level, if anybody set one.
    #[must_use]
    pub fn log_level(&self) -> Option<log::LevelFilter> {
        self.told.1.then(|| self.level())
    }

    fn level(&self) -> log::LevelFilter {
        let level = self.settings.get("log-level");
        level.parse().unwrap_or(log::LevelFilter::Info)
    }

    /// What all samples are labelled with.
    #[must_use]
    pub fn labels(&self) -> labels::Settings {
        let node = match self.settings.get("node") {
            "" => self.host.clone(),
            node => node.to_owned(),
        };
        let external = self.settings.get("metadata-external-labels");
        labels::Settings {
            node,
            external: external_labels(external).unwrap_or_default(),
            ..labels::Settings::default()
        }
    }

    /// What to poll.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let watch = self.watch.iter().map(AsFd::as_fd);
        watch.chain([self.hangup.as_fd()])
    }

    /// Whether the last reading was successful, also under the names of the agent that Leadsman replaces.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        for prefix in ["leadsman", "parca_agent"] {
            metrics.push(gauge(
                &format!("{prefix}_config_last_reload_successful"),
                "Whether the configuration file was sound when it was last read.",
                &[],
                f64::from(u8::from(self.successful)),
            ));
            metrics.push(gauge(
                &format!("{prefix}_config_last_reload_success_timestamp_seconds"),
                "When a sound configuration file was last read.",
                &[],
                self.succeeded,
            ));
        }
        metrics
    }
}

fn join(stated: &Flags, text: &str) -> Result<Settings, String> {
    let document = Document::read(text).map_err(|problems| {
        let first = problems.first().map(ToString::to_string);
        let more = match problems.len() {
            0 | 1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        format!("{}{more}", first.unwrap_or_default())
    })?;
    Settings::join(stated, &Environment::default(), &document)
}

/// The host's name. Call before the lockdown.
#[must_use]
pub fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

fn now() -> f64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs;

    use super::*;

    fn start(file: &std::path::Path, stated: &str) -> Reload {
        let arguments = [
            "--local-store-directory=/s".to_owned(),
            format!("--config-path={}", file.display()),
            stated.to_owned(),
        ];
        let arguments = arguments.iter().filter(|argument| !argument.is_empty());
        let arguments = Arguments::parse(arguments.map(OsString::from)).unwrap();
        Reload::start(&arguments).unwrap()
    }

    #[test]
    fn a_changed_file_takes_effect_and_a_bad_one_does_not() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("leadsman.yaml");
        fs::write(&file, "node: one\nprofiling-cpu-sampling-frequency: 50\n").unwrap();
        let mut reload = start(&file, "--stated=node=mine");
        assert!(!reload.look());
        assert_eq!(reload.published().frequency, 50);
        assert_eq!(reload.published().log_level, 0);
        let rules =
            "log-level: debug\nnode: two\nrelabel_configs:\n- {target_label: a, replacement: b}\n";
        fs::write(&file, rules).unwrap();
        assert!(reload.look());
        assert_eq!(reload.settings().rules().len(), 1);
        assert_eq!(reload.labels().node, "mine");
        // What a file once set is told on, back to the default.
        assert_eq!(reload.published().frequency, 19);
        assert_eq!(reload.published().log_level, 4);
        fs::write(&file, "log-level: loud\n").unwrap();
        assert!(!reload.look());
        assert_eq!(reload.metrics()[0].value, 0.0);
        assert_eq!(reload.settings().rules().len(), 1);
        fs::write(&file, rules).unwrap();
        assert!(reload.look());
        assert_eq!(reload.metrics()[0].value, 1.0);
    }
}
