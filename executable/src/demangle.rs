//! Owns the way from names in symbol tables to names for people: Rust (legacy and v0), C++ (Itanium ABI). What it
//! can't read it leaves as it is; work, depth and length are bounded, for names come from foreign files.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::borrow::Cow;
use std::fmt::{self, Write};

use crate::names::MAX_NAME;

/// Bytes of the longest name that is demangled.
const MAX_MANGLED: usize = 16 << 10;
/// Depth of nested types; the deepest of Boost and libstdc++ stay below 60.
const RECURSION_LIMIT: u32 = 128;

/// The name for people of a symbol. Borrowed when there is nothing to demangle.
#[must_use]
pub fn demangle(raw: &str) -> Cow<'_, str> {
    if raw.len() > MAX_MANGLED {
        return Cow::Borrowed(raw);
    }
    let demangled = if raw.starts_with("_R") || is_legacy_rust(raw) {
        demangle_rust(raw)
    } else if raw.starts_with("_Z") || raw.starts_with("___Z") || raw.starts_with("_GLOBAL__") {
        demangle_cpp(raw)
    } else {
        None
    };
    demangled.map_or(Cow::Borrowed(raw), Cow::Owned)
}

/// Whether an Itanium name ends in the hash that rustc's legacy mangling appends: `17h` and 16 hexadecimal digits.
/// Without it, the name is C++.
fn is_legacy_rust(raw: &str) -> bool {
    let Some(inner) = raw.strip_prefix("_ZN") else {
        return false;
    };
    inner.match_indices("17h").any(|(at, _)| {
        at.checked_add(3)
            .and_then(|start| inner.get(start..))
            .and_then(|hash| hash.split_at_checked(16))
            .is_some_and(|(hash, rest)| {
                hash.bytes().all(|byte| byte.is_ascii_hexdigit())
                    && rest
                        .strip_prefix('E')
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
    })
}

fn demangle_rust(raw: &str) -> Option<String> {
    let name = rustc_demangle::try_demangle(raw).ok()?;
    let mut text = Bounded::default();
    // The alternate form leaves the hash out, as addr2line and perf do.
    let _cut_when_too_long = write!(text, "{name:#}");
    text.into_name()
}

fn demangle_cpp(raw: &str) -> Option<String> {
    let options = cpp_demangle::ParseOptions::default().recursion_limit(RECURSION_LIMIT);
    let symbol = cpp_demangle::Symbol::new_with_options(raw.as_bytes(), &options).ok()?;
    let options = cpp_demangle::DemangleOptions::new().recursion_limit(RECURSION_LIMIT);
    let mut text = Bounded::default();
    let result = symbol.structured_demangle(&mut text, &options);
    if result.is_err() && !text.full {
        return None;
    }
    text.into_name()
}

/// Text that stops growing at the longest name that is kept.
#[derive(Default)]
struct Bounded {
    text: String,
    full: bool,
}

impl Bounded {
    fn into_name(mut self) -> Option<String> {
        if self.full {
            self.text.push('…');
        }
        (!self.text.is_empty()).then_some(self.text)
    }
}

impl Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let left = MAX_NAME.saturating_sub(self.text.len());
        if part.len() <= left {
            self.text.push_str(part);
            return Ok(());
        }
        self.full = true;
        let mut end = left;
        while !part.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        self.text.push_str(part.get(..end).unwrap_or_default());
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_people() {
        for (raw, name) in [
            ("main", "main"),
            ("_ZN3foo3barEi", "foo::bar(int)"),
            ("_Z3addIiET_S0_S0_", "int add<int>(int, int)"),
            (
                "_ZN4core3fmt9Formatter3pad17h0123456789abcdefE",
                "core::fmt::Formatter::pad",
            ),
            (
                "_ZN4core3fmt9Formatter3pad17h0123456789abcdefE.llvm.123",
                "core::fmt::Formatter::pad",
            ),
            ("_RNvC6_123foo3bar", "123foo::bar"),
            ("_ZN12_GLOBAL__N_13runEv", "(anonymous namespace)::run()"),
            ("_Z3runv.constprop.0", "run() [clone .constprop.0]"),
            ("_Z", "_Z"),
            ("_ZNope", "_ZNope"),
            ("_R", "_R"),
            ("", ""),
        ] {
            assert_eq!(demangle(raw), name, "{raw}");
        }
    }

    #[test]
    fn a_name_that_explodes_is_cut() {
        // Each substitution doubles the type before it.
        let mut raw = "_Z1fI1aIiiE".to_owned();
        for digit in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ".chars() {
            write!(raw, "1aIS{digit}_S{digit}_E").expect("write");
        }
        raw.push_str("EvT_");
        let name = demangle(&raw);
        assert!(name.len() <= MAX_NAME + 3, "{}", name.len());
        let deep = format!("_Z1f{}i", "P".repeat(10_000));
        assert_eq!(demangle(&deep), deep);
    }

    proptest::proptest! {
        #[test]
        fn no_name_is_fatal(tail in "[_ZNKRSTIEL0-9a-zA-Z.$]{0,200}", head in "(_Z|_ZN|_R|_RNv|)") {
            let raw = head + &tail;
            proptest::prop_assert!(demangle(&raw).len() <= raw.len().max(MAX_NAME + 3));
        }
    }
}
