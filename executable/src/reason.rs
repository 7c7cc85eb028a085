//! Owns the reasons why an address has no name (or a file no debuginfo), each with what it means and what to do.
//! A missing symbol is data, not an error; a reason never holds anything of the file it speaks about.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $explanation:literal, $remedy:literal;)*) => {
        /// Why an address has no name. The numbers are stable: they go over the wire and into metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Reason {
            /// All of them, ascending by number.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name in metrics: lower case with underscores.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What happened, in one line.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$variant => $explanation,)* }
            }

            /// What to do about it, in one line.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }

            /// The reason with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    /// Not one of the profiled process's executable mappings.
    NoMapping = 1, "no_mapping",
        "the address is in no executable mapping that the kernel reported",
        "if it repeats, look at the drops of the sampler: mapping records were lost";
    /// The first bytes are not those of an ELF file.
    NotElf = 2, "not_elf",
        "this is no ELF file",
        "nothing to do unless it is generated code: then let the runtime write a perf map";
    /// ELF, but of a class, byte order or version that is not read here.
    UnsupportedElf = 3, "unsupported_elf",
        "the ELF file is of another byte order or version than this machine's",
        "nothing to do: emulated code is not symbolized";
    /// A header points behind the end of the file.
    Truncated = 4, "truncated",
        "the file ends before its own headers say it does",
        "reinstall the package it belongs to, or rebuild it";
    /// A header contradicts itself.
    Malformed = 5, "malformed",
        "the file's headers or tables contradict themselves",
        "rebuild or reinstall the file; if other tools read it well, report it";
    /// A table is larger than the bound.
    TooLarge = 6, "too_large",
        "the file's tables are larger than what is read",
        "nothing to do here: symbolize the profile elsewhere";
    /// Reading failed.
    Unreadable = 7, "unreadable",
        "reading the file failed",
        "look at the kernel log for errors of the disk or the network file system";
    /// The opener could not or would not open it.
    Refused = 8, "refused",
        "the file could not be opened",
        "look at the opener's counters: the process was gone, or the file lies on a file system that may block";
    /// The process was gone before its file could be opened.
    ProcessGone = 9, "process_gone",
        "the process ended before its file could be opened",
        "nothing to do when the file was temporary; otherwise it is found when it runs again";
    /// The file has not been opened yet.
    NotYetOpened = 10, "not_yet_opened",
        "the file was not opened before the window ended",
        "it has names from the next window on";
    /// Not in an executable segment.
    AddressOutsideText = 11, "address_outside_text",
        "the address is in no executable segment of the file",
        "the file was replaced while it ran, or the stack is damaged";
    /// No symbol table and no debuginfo.
    NoSymbols = 12, "no_symbols",
        "the file was stripped of symbols and debuginfo",
        "install its debug symbols package, or build it without -s";
    /// There are symbols, but none covers the address.
    NoSymbolCovers = 13, "no_symbol_covers",
        "no function of the file's symbol tables covers the address",
        "install its debug symbols package: the remaining symbols are the exported ones only";
    /// The file names a separate debug file that was not found.
    MissingDebugFile = 14, "missing_debug_file",
        "the file's debuginfo is in a separate file that is not installed",
        "install its debug symbols package (-dbgsym, -debuginfo)";
    /// A debug file was found that belongs to another build.
    DebugFileMismatch = 15, "debug_file_mismatch",
        "the installed debug file belongs to another build of the file",
        "install the debug symbols package of the same version";
    /// More debuginfo than is read.
    DebuginfoTooLarge = 16, "debuginfo_too_large",
        "the file's debuginfo is larger than what is read",
        "nothing to do: functions come from the symbol table, without lines";
    /// Debuginfo that can't be read.
    DebuginfoDamaged = 17, "debuginfo_damaged",
        "the file's debuginfo is damaged or of an unknown version",
        "rebuild or reinstall the file; functions come from the symbol table meanwhile";
    /// A section is compressed in an unknown way, or expands beyond the bound.
    UnsupportedCompression = 18, "unsupported_compression",
        "a section of the file is compressed in an unknown way or expands beyond all measure",
        "build it with -gz=zlib or -gz=zstd";
    /// The work granted to this file in one window is used up.
    WorkLimit = 19, "work_limit",
        "symbolizing the file took more work than a window grants",
        "it goes on with the next window; a file that always exceeds it is hostile or broken";
    /// Kernel addresses are hidden.
    KallsymsRestricted = 20, "kallsyms_restricted",
        "the kernel hides its symbols' addresses",
        "sysctl kernel.kptr_restrict=1 and start leadsman as root";
    /// No kallsyms.
    KallsymsMissing = 21, "kallsyms_missing",
        "the kernel's symbols could not be read",
        "use a kernel with CONFIG_KALLSYMS";
    /// Code without a file in a process without a perf map.
    JitWithoutPerfMap = 22, "jit_without_perf_map",
        "generated code, and its runtime writes no perf map",
        "let it write one: node --perf-basic-prof, java -XX:+DumpPerfMapAtExit or perf-map-agent, python -X perf, DOTNET_PerfMapEnabled=1";
    /// Code without a file, not in the process's perf map.
    NotInPerfMap = 23, "not_in_perf_map",
        "generated code that the process's perf map does not list",
        "it was generated or moved after the map was read; later windows have it if the runtime appends it";
    /// The executable made the symbolizer crash.
    Quarantined = 24, "quarantined",
        "the file made the symbolizer crash and is not read again",
        "report it, with the file";
    /// The vDSO's bytes are not there.
    NoVdso = 25, "no_vdso",
        "the kernel's vDSO could not be read",
        "nothing to do: its functions are short";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.explanation(), self.remedy())
    }
}

impl std::error::Error for Reason {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_come_back() {
        let mut names = std::collections::BTreeSet::new();
        for reason in Reason::ALL {
            assert_eq!(Reason::from_number(*reason as u8), Some(*reason));
            assert!(names.insert(reason.name()), "{} twice", reason.name());
            assert!(!reason.to_string().contains('\n'));
        }
        assert_eq!(Reason::from_number(0), None);
    }
}
