//! Owns the kernel's functions, read from the text of /proc/kallsyms: names with modules, by address. It never opens
//! the file; whoever may see the addresses hands it over.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::io::{BufRead, Read};

use crate::reason::Reason;

/// Bytes of the text; a kernel with all modules loaded has about 30 MB.
const MAX_TEXT: u64 = 256 << 20;
/// Bytes of one line; `KSYM_NAME_LEN` is 512, module names have up to 56.
const MAX_LINE: u64 = 1024;
/// Functions that are kept.
const MAX_SYMBOLS: usize = 4 << 20;

#[derive(Clone, Copy, Debug)]
struct Row {
    address: u64,
    name: u32,
    length: u16,
    /// Index of the module, 0 for the kernel itself.
    module: u16,
}

/// The kernel's functions, ascending by address.
#[derive(Debug)]
pub struct KernelSymbols {
    rows: Vec<Row>,
    names: String,
    modules: Vec<String>,
}

/// A kernel function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFunction<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its module, `None` for the kernel itself.
    pub module: Option<&'a str>,
    /// Its first address.
    pub start: u64,
}

impl KernelSymbols {
    /// Reads kallsyms: lines of address, type, name, and `[module]` behind a tab. Only functions are kept (types t, w
    /// and i in either case: local, weak and BPF ones).
    pub fn read(text: impl Read) -> Result<Self, Reason> {
        let mut symbols = Self {
            rows: Vec::new(),
            names: String::new(),
            modules: vec![String::new()],
        };
        let mut reader = std::io::BufReader::with_capacity(64 << 10, text.take(MAX_TEXT));
        let mut line = Vec::new();
        let mut seen = false;
        loop {
            line.clear();
            let read = (&mut reader)
                .take(MAX_LINE)
                .read_until(b'\n', &mut line)
                .map_err(|_error| Reason::KallsymsMissing)?;
            if read == 0 {
                break;
            }
            seen = true;
            if symbols.rows.len() < MAX_SYMBOLS {
                symbols.push(&line);
            }
        }
        if symbols.rows.is_empty() {
            return Err(match seen {
                true => Reason::KallsymsRestricted,
                false => Reason::KallsymsMissing,
            });
        }
        // Aliases share an address: the first one in the text stays, as the kernel's own lookup has it.
        symbols.rows.sort_by_key(|row| row.address);
        symbols.rows.dedup_by_key(|row| row.address);
        symbols.rows.shrink_to_fit();
        symbols.names.shrink_to_fit();
        Ok(symbols)
    }

    fn push(&mut self, line: &[u8]) {
        let Some((address, name, module)) = function(line) else {
            return;
        };
        // Addresses are zero where kptr_restrict hides them.
        if address == 0 {
            return;
        }
        let (Ok(place), Ok(length), Some(module)) = (
            u32::try_from(self.names.len()),
            u16::try_from(name.len()),
            self.module(module),
        ) else {
            return;
        };
        self.names.push_str(name);
        self.rows.push(Row {
            address,
            name: place,
            length,
            module,
        });
    }

    /// The module's index; symbols of one module stand together.
    fn module(&mut self, name: Option<&str>) -> Option<u16> {
        let Some(name) = name else {
            return Some(0);
        };
        let known = self.modules.iter().rposition(|known| known == name);
        let index = known.unwrap_or_else(|| {
            self.modules.push(name.to_owned());
            self.modules.len().saturating_sub(1)
        });
        u16::try_from(index).ok()
    }

    /// The function at a kernel address.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<KernelFunction<'_>> {
        let behind = self.rows.partition_point(|row| row.address <= address);
        let row = self.rows.get(behind.checked_sub(1)?)?;
        let start = row.name as usize;
        let name = self
            .names
            .get(start..start.checked_add(row.length.into())?)?;
        let module = self.modules.get(usize::from(row.module))?;
        Some(KernelFunction {
            name,
            module: (row.module != 0).then_some(module),
            start: row.address,
        })
    }

    /// The first address of the kernel's own code: where its mapping starts.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.rows.first().map_or(0, |row| row.address)
    }

    /// How many functions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of memory this holds.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        size_of_val(self.rows.as_slice()).saturating_add(self.names.len())
    }
}

/// Address, name and module of a line about a function: `%px %c %s`, and a module as `\t[%s]` (kernel/kallsyms.c,
/// `s_show`).
fn function(line: &[u8]) -> Option<(u64, &str, Option<&str>)> {
    let (address, rest) = line.split_first_chunk::<ADDRESS_DIGITS>()?;
    let [b' ', b't' | b'T' | b'w' | b'W' | b'i', b' ', names @ ..] = rest else {
        return None;
    };
    let address = u64::from_str_radix(std::str::from_utf8(address).ok()?, 16).ok()?;
    let names = std::str::from_utf8(names).ok()?;
    let names = names.strip_suffix('\n').unwrap_or(names);
    let (name, module) = match names.split_once('\t') {
        Some((name, module)) => (
            name,
            module
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']')),
        ),
        None => (names, None),
    };
    (is_clean(name) && module.is_none_or(is_clean)).then_some((address, name, module))
}

/// Digits of a 64-bit kernel's `%px`.
const ADDRESS_DIGITS: usize = 16;

fn is_clean(name: &str) -> bool {
    !name.is_empty() && !name.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
ffffffff81000000 T _text
ffffffff81000000 T startup_64
ffffffff81000100 t local_function
ffffffff82000000 D data_is_no_function
ffffffffc0100000 t module_function\t[nf_tables]
ffffffffc0100080 W weak_function\t[nf_tables]
ffffffffc0200000 t bpf_prog_6deef7357e7b4530\t[bpf]
";

    #[test]
    fn finds_functions_and_their_modules() {
        let symbols = KernelSymbols::read(TEXT.as_bytes()).expect("symbols");
        assert_eq!(symbols.len(), 5);
        let find = |address| {
            let function = symbols.find(address)?;
            Some((function.name, function.module))
        };
        assert_eq!(find(0xffff_ffff_8100_0050), Some(("_text", None)));
        assert_eq!(find(0xffff_ffff_8100_0100), Some(("local_function", None)));
        assert_eq!(
            find(0xffff_ffff_c010_0090),
            Some(("weak_function", Some("nf_tables")))
        );
        assert_eq!(find(0x1000), None);
    }

    #[test]
    fn a_module_without_brackets_is_none_and_control_characters_are_no_name() {
        let text = "\
ffffffffc0100000 t first\tnf_tables
ffffffffc0100100 t second\t[nf_tables
ffffffffc0100200 t third\u{85}name
";
        let symbols = KernelSymbols::read(text.as_bytes()).expect("symbols");
        assert_eq!(symbols.len(), 2);
        for (address, name) in [
            (0xffff_ffff_c010_0000, "first"),
            (0xffff_ffff_c010_0100, "second"),
        ] {
            let function = symbols.find(address).expect("it is there");
            assert_eq!((function.name, function.module), (name, None));
        }
    }

    #[test]
    fn hidden_addresses_have_a_reason() {
        let text = "0000000000000000 T _text\n0000000000000000 t other\n";
        assert_eq!(
            KernelSymbols::read(text.as_bytes()).err(),
            Some(Reason::KallsymsRestricted)
        );
        assert_eq!(
            KernelSymbols::read(&b""[..]).err(),
            Some(Reason::KallsymsMissing)
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_fatal(text: Vec<u8>, address: u64) {
            if let Ok(symbols) = KernelSymbols::read(text.as_slice()) {
                let _function = symbols.find(address);
            }
        }
    }
}
