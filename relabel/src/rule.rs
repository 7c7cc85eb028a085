//! One relabelling rule: its checks and its effect, those of Prometheus' model/relabel.

use std::fmt;

use md5::{Digest, Md5};
use thiserror::Error;

use crate::labels::LabelSet;
use crate::letter_case::{lower, upper};
use crate::pattern::{Pattern, SyntaxError, has_variable};

const DEFAULT_SEPARATOR: &str = ";";
const DEFAULT_REGEX: &str = "(.*)";
const DEFAULT_REPLACEMENT: &str = "$1";

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Sets the target to the replacement where the sources match.
    #[default]
    Replace,
    /// Drops label sets whose sources don't match.
    Keep,
    /// Drops label sets whose sources match.
    Drop,
    /// Drops label sets whose sources differ from the target.
    KeepEqual,
    /// Drops label sets whose sources equal the target.
    DropEqual,
    /// Sets the target to a hash of the sources modulo a number.
    HashMod,
    /// Copies labels whose names match to the name that the replacement yields.
    LabelMap,
    /// Removes labels whose names match.
    LabelDrop,
    /// Removes labels whose names don't match.
    LabelKeep,
    /// Sets the target to the sources in lower case.
    Lowercase,
    /// Sets the target to the sources in upper case.
    Uppercase,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 11] = [
        Self::Replace,
        Self::Keep,
        Self::Drop,
        Self::KeepEqual,
        Self::DropEqual,
        Self::HashMod,
        Self::LabelMap,
        Self::LabelDrop,
        Self::LabelKeep,
        Self::Lowercase,
        Self::Uppercase,
    ];

    /// Its name in a configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::KeepEqual => "keepequal",
            Self::DropEqual => "dropequal",
            Self::HashMod => "hashmod",
            Self::LabelMap => "labelmap",
            Self::LabelDrop => "labeldrop",
            Self::LabelKeep => "labelkeep",
            Self::Lowercase => "lowercase",
            Self::Uppercase => "uppercase",
        }
    }

    /// The action of that name, in whatever case.
    ///
    /// # Errors
    /// There is none.
    pub fn parse(name: &str) -> Result<Self, RuleError> {
        let wanted = lower(name);
        Self::ALL
            .into_iter()
            .find(|action| action.name() == wanted)
            .ok_or_else(|| RuleError::UnknownAction(name.to_owned()))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why a rule is refused, in the words of Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RuleError {
    /// An action that does not exist.
    #[error("unknown relabel action {0:?}")]
    UnknownAction(String),
    /// An empty action.
    #[error("relabel action cannot be empty")]
    NoAction,
    /// A regular expression that RE2 does not know.
    #[error(transparent)]
    Regex(#[from] SyntaxError),
    /// A source that no label can be called.
    #[error("{0:?} is not a valid label name")]
    Source(String),
    /// Modulo nothing.
    #[error("relabel configuration for hashmod requires non-zero modulus")]
    NoModulus,
    /// An action that sets a label does not say which.
    #[error("relabel configuration for {0} action requires 'target_label' value")]
    NoTarget(Action),
    /// A replacement that is no label name.
    #[error("{replacement:?} is invalid 'replacement' for {action} action")]
    InvalidReplacement {
        /// The replacement.
        replacement: String,
        /// The rule's action.
        action: Action,
    },
    /// A replacement where none is used.
    #[error("'replacement' can not be set for {0} action")]
    SurplusReplacement(Action),
    /// Fields that `keepequal` and `dropequal` do not use.
    #[error("{0} action requires only 'source_labels' and `target_label`, and no other fields")]
    OnlySourcesAndTarget(Action),
    /// Fields that `labeldrop` and `labelkeep` do not use.
    #[error("{0} action requires only 'regex', and no other fields")]
    OnlyRegex(Action),
}

/// A rule as it was written, unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Labels whose values are joined; `None`: none were named at all.
    pub source_labels: Option<Vec<String>>,
    /// What stands between the values.
    pub separator: String,
    /// What the joined values, or names, must match as a whole; `None`: none was given, `(.*)` holds.
    pub regex: Option<String>,
    /// What the hash is taken modulo.
    pub modulus: u64,
    /// The label to set.
    pub target_label: String,
    /// What it is set to.
    pub replacement: String,
    /// What to do; `None`: it was said to be nothing.
    pub action: Option<Action>,
}

impl Default for Definition {
    fn default() -> Self {
        Self {
            source_labels: None,
            separator: DEFAULT_SEPARATOR.to_owned(),
            regex: None,
            modulus: 0,
            target_label: String::new(),
            replacement: DEFAULT_REPLACEMENT.to_owned(),
            action: Some(Action::Replace),
        }
    }
}

impl Definition {
    fn check(&self) -> Result<Action, RuleError> {
        let action = self.action.ok_or(RuleError::NoAction)?;
        for name in self.source_labels.iter().flatten() {
            if !is_label_name(name) {
                return Err(RuleError::Source(name.clone()));
            }
        }
        if action == Action::HashMod && self.modulus == 0 {
            return Err(RuleError::NoModulus);
        }
        let sets_target = matches!(
            action,
            Action::Replace
                | Action::HashMod
                | Action::Lowercase
                | Action::Uppercase
                | Action::KeepEqual
                | Action::DropEqual
        );
        // Any UTF-8 but nothing is a label name, so this is all that can be wrong with a target.
        if sets_target && !is_label_name(&self.target_label) {
            return Err(RuleError::NoTarget(action));
        }
        let replaced = self.replacement != DEFAULT_REPLACEMENT;
        let whole_value = matches!(
            action,
            Action::Lowercase | Action::Uppercase | Action::KeepEqual | Action::DropEqual
        );
        if whole_value && replaced {
            return Err(RuleError::SurplusReplacement(action));
        }
        if action == Action::LabelMap && !is_label_name(&self.replacement) {
            return Err(RuleError::InvalidReplacement {
                replacement: self.replacement.clone(),
                action,
            });
        }
        let tuned = self.modulus != 0 || self.separator != DEFAULT_SEPARATOR || replaced;
        let compares = matches!(action, Action::KeepEqual | Action::DropEqual);
        if compares && (self.regex.is_some() || tuned) {
            return Err(RuleError::OnlySourcesAndTarget(action));
        }
        let by_name = matches!(action, Action::LabelDrop | Action::LabelKeep);
        if by_name && (self.source_labels.is_some() || !self.target_label.is_empty() || tuned) {
            return Err(RuleError::OnlyRegex(action));
        }
        Ok(action)
    }
}

/// Prometheus' rule since its version 3: any UTF-8 but nothing.
fn is_label_name(name: &str) -> bool {
    !name.is_empty()
}

/// Whether a label set goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Keep,
    /// It ends here.
    Drop,
}

/// A checked rule.
#[derive(Clone, Debug)]
pub struct Rule {
    source_labels: Vec<String>,
    separator: String,
    regex: Pattern,
    modulus: u64,
    target_label: String,
    replacement: String,
    action: Action,
}

impl Rule {
    /// Checks a definition.
    ///
    /// # Errors
    /// What Prometheus would refuse.
    pub fn new(definition: Definition) -> Result<Self, RuleError> {
        let regex = Pattern::new(definition.regex.as_deref().unwrap_or(DEFAULT_REGEX))?;
        let action = definition.check()?;
        Ok(Self {
            source_labels: definition.source_labels.unwrap_or_default(),
            separator: definition.separator,
            regex,
            modulus: definition.modulus,
            target_label: definition.target_label,
            replacement: definition.replacement,
            action,
        })
    }

    /// What it does.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    /// Changes `labels`.
    #[must_use]
    pub fn apply(&self, labels: &mut LabelSet) -> Verdict {
        let value = self.value(labels);
        let verdict = |keep: bool| if keep { Verdict::Keep } else { Verdict::Drop };
        match self.action {
            Action::Keep => return verdict(self.regex.is_match(&value)),
            Action::Drop => return verdict(!self.regex.is_match(&value)),
            Action::KeepEqual => return verdict(labels.get(&self.target_label) == value),
            Action::DropEqual => return verdict(labels.get(&self.target_label) != value),
            Action::Replace => self.replace(&value, labels),
            Action::Lowercase => labels.set(&self.target_label, lower(&value)),
            Action::Uppercase => labels.set(&self.target_label, upper(&value)),
            Action::HashMod => {
                let rest = hash(&value).checked_rem(self.modulus).unwrap_or_default();
                labels.set(&self.target_label, rest.to_string());
            }
            Action::LabelMap => {
                let mut mapped = Vec::new();
                for (name, value) in labels.iter().filter(|(name, _)| self.regex.is_match(name)) {
                    let name = self.regex.replace_all(name, &self.replacement);
                    mapped.push((name, value.to_owned()));
                }
                for (name, value) in mapped {
                    labels.set(&name, value);
                }
            }
            Action::LabelDrop => self.remove(labels, true),
            Action::LabelKeep => self.remove(labels, false),
        }
        Verdict::Keep
    }

    fn value(&self, labels: &LabelSet) -> String {
        let mut joined = String::new();
        for (index, name) in self.source_labels.iter().enumerate() {
            if index > 0 {
                joined += &self.separator;
            }
            joined += labels.get(name);
        }
        joined
    }

    fn replace(&self, value: &str, labels: &mut LabelSet) {
        let Some(captures) = self.regex.captures(value) else {
            return;
        };
        let expand = |template: &str| {
            let mut out = String::new();
            self.regex.expand(template, &captures, &mut out);
            out
        };
        let target = if has_variable(&self.target_label) {
            expand(&self.target_label)
        } else {
            self.target_label.clone()
        };
        if is_label_name(&target) {
            labels.set(&target, expand(&self.replacement));
        }
    }

    fn remove(&self, labels: &mut LabelSet, matching: bool) {
        let names: Vec<String> = labels
            .iter()
            .map(|(name, _)| name)
            .filter(|name| self.regex.is_match(name) == matching)
            .map(str::to_owned)
            .collect();
        for name in names {
            labels.remove(&name);
        }
    }
}

impl fmt::Display for Rule {
    /// One line that tells rules apart.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.action)?;
        if !self.source_labels.is_empty() {
            write!(
                formatter,
                " source_labels=[{}]",
                self.source_labels.join(", ")
            )?;
        }
        if self.regex.text() != DEFAULT_REGEX {
            write!(formatter, " regex={}", self.regex.text())?;
        }
        if self.modulus != 0 {
            write!(formatter, " modulus={}", self.modulus)?;
        }
        if !self.target_label.is_empty() {
            write!(formatter, " target_label={}", self.target_label)?;
        }
        if self.replacement != DEFAULT_REPLACEMENT {
            write!(formatter, " replacement={}", self.replacement)?;
        }
        Ok(())
    }
}

/// The last eight bytes of the value's MD5.
fn hash(value: &str) -> u64 {
    let digest = Md5::digest(value.as_bytes());
    digest
        .iter()
        .skip(8)
        .fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}
