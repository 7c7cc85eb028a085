//! Folded stacks, the text that flame graph scripts read: `comm;root;...;leaf count`, a line for each distinct stack.
//! Format: <https://github.com/brendangregg/FlameGraph>, "Fold stacks".

use std::borrow::Cow;
use std::io::{self, Write};

use indexmap::{IndexMap, IndexSet};

use crate::frames::Frames;

/// Writes the stacks, ordered by their text. A stack's first name is its process where the profile names processes. Names
/// have `:` for `;` and a space for each control character, since both would end a name. Stacks without a value are left
/// out: the format has only positive counts.
///
/// # Errors
/// Those of `output`.
pub fn write<W: Write>(frames: &Frames<'_>, mut output: W) -> io::Result<()> {
    let mut names: IndexSet<Cow<'_, str>> = IndexSet::new();
    let functions: Vec<usize> = frames
        .functions()
        .map(|function| names.insert_full(one_name(&function.name)).0)
        .collect();
    let mut stacks: IndexMap<Box<[usize]>, i64> = IndexMap::new();
    for sample in frames.samples() {
        let process = sample
            .label("comm")
            .map(|comm| names.insert_full(one_name(comm)).0);
        let stack = sample
            .stack()
            .rev()
            .filter_map(|frame| functions.get(frame.function.0 as usize).copied());
        let value = stacks.entry(process.into_iter().chain(stack).collect());
        let value = value.or_default();
        *value = value.saturating_add(sample.value());
    }
    let name = |index: &usize| names.get_index(*index).map_or("", |name| name.as_ref());
    stacks.retain(|stack, value| *value > 0 && !stack.is_empty());
    stacks.sort_unstable_by(|left, _, right, _| left.iter().map(name).cmp(right.iter().map(name)));
    for (stack, value) in &stacks {
        for (index, part) in stack.iter().enumerate() {
            if index > 0 {
                output.write_all(b";")?;
            }
            output.write_all(name(part).as_bytes())?;
        }
        writeln!(output, " {value}")?;
    }
    output.flush()
}

/// The name without what separates names and lines.
fn one_name(name: &str) -> Cow<'_, str> {
    if !name.contains(|character: char| character == ';' || character.is_control()) {
        return Cow::Borrowed(name);
    }
    let plain = |character: char| match character {
        ';' => ':',
        character if character.is_control() => ' ',
        character => character,
    };
    name.chars().map(plain).collect()
}

#[cfg(test)]
mod tests;
