//! Prometheus' relabelling: rules, checked, and their application to a label set. Reads no configuration (that is the
//! crate `config`), knows no label's meaning.
#![forbid(unsafe_code)]

mod labels;
mod letter_case;
mod pattern;
mod rule;

pub use labels::{LabelSet, Labels};
pub use pattern::SyntaxError;
pub use rule::{Action, Definition, Rule, RuleError, Verdict};

/// Applies `rules` in their order.
#[must_use]
pub fn apply(rules: &[Rule], labels: &mut LabelSet) -> Verdict {
    for rule in rules {
        if rule.apply(labels) == Verdict::Drop {
            return Verdict::Drop;
        }
    }
    Verdict::Keep
}
