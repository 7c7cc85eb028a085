//! From groups of system calls to the kernel's filters.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use crate::rights::syscalls::{ABSENT, Argument, FATAL, Group};

/// Rules by system call; a call without rules always matches.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Permits the groups' calls to this thread and those it starts. The kernel obeys the strictest of its filters.
pub(super) fn install(groups: &[&Group]) -> Result<(), Error> {
    let permitted = permitted(groups)?;
    let fatal: Vec<i64> = FATAL
        .iter()
        .copied()
        .filter(|number| !permitted.contains_key(number))
        .collect();
    let fatal = only(&fatal, SeccompAction::KillProcess)?;
    let absent = only(ABSENT, SeccompAction::Errno(libc::ENOSYS as u32))?;
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let permitted = program(permitted, refuse, SeccompAction::Allow)?;
    // Last the one that permits no further filter.
    for filter in [&fatal, &absent, &permitted] {
        apply_filter(filter)?;
    }
    Ok(())
}

fn permitted(groups: &[&Group]) -> Result<Rules, Error> {
    let mut rules = Rules::new();
    let mut unconditional = Vec::new();
    for call in groups.iter().flat_map(|group| group.calls) {
        let entry = rules.entry(call.number).or_default();
        for argument in call.only {
            entry.push(rule(argument)?);
        }
        if call.only.is_empty() {
            unconditional.push(call.number);
        }
    }
    for number in unconditional {
        rules.insert(number, Vec::new());
    }
    // Passes this filter for the others' sake: they answer ENOSYS, which libraries understand.
    rules.extend(ABSENT.iter().map(|number| (*number, Vec::new())));
    Ok(rules)
}

fn rule(argument: &Argument) -> Result<SeccompRule, Error> {
    let condition = SeccompCondition::new(
        argument.index,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(argument.mask.into()),
        argument.value.into(),
    )?;
    Ok(SeccompRule::new(vec![condition])?)
}

fn only(numbers: &[i64], action: SeccompAction) -> Result<BpfProgram, Error> {
    let rules = numbers.iter().map(|number| (*number, Vec::new())).collect();
    program(rules, SeccompAction::Allow, action)
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, Error> {
    let filter = SeccompFilter::new(rules, otherwise, matching, TargetArch::x86_64)?;
    Ok(filter.try_into()?)
}
