//! The profile's functions, each once.

use foldhash::fast::RandomState;
use indexmap::IndexSet;

use super::string_table::StringTable;
use crate::proto;

/// A function of one builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionId(pub(super) u64);

#[derive(Debug, Default)]
pub(super) struct FunctionTable {
    // Their ids are 0 until the end.
    functions: IndexSet<proto::Function, RandomState>,
}

impl FunctionTable {
    pub(super) fn intern(
        &mut self,
        name: &str,
        system_name: &str,
        filename: &str,
        strings: &mut StringTable,
    ) -> FunctionId {
        let function = proto::Function {
            id: 0,
            name: strings.intern(name),
            system_name: strings.intern(system_name),
            filename: strings.intern(filename),
            start_line: 0,
        };
        FunctionId(self.functions.insert_full(function).0 as u64 + 1)
    }

    pub(super) fn finish(self) -> Vec<proto::Function> {
        (1..)
            .zip(self.functions)
            .map(|(id, function)| proto::Function { id, ..function })
            .collect()
    }
}
