//! Builds one executable's unwind table: from the bytes of an ELF file to rows in the kernel's format.
//!
//! ```text
//! file -> sections -> eh_frame (functions) -> cfa (logical rows) -> compact (rules) -> chunk (chunks, regions)
//! ```
//!
//! Files are other people's bytes: a bad entry costs itself and is counted as an [`Omission`], work is linear in the
//! bytes read, memory is bounded. Nothing here opens files or knows processes.

mod cfa;
mod chunk;
mod compact;
mod cursor;
mod eh_frame;
mod eh_frame_hdr;
mod expression;
mod frame;
mod go;
mod omission;
mod plt;
mod rows;
mod sections;
mod segments;
mod start_code;

use ipc_proto::table_file::TableWriter;
use leadsman_ebpf::rule::Rule;
use object::ReadRef;

use cfa::{Interpreter, RowSink};
use chunk::Packer;
use eh_frame::{Functions, Undescribed};
pub use frame::{
    CALLEE_SAVED, Cfa, Frame, GoFrame, Position, RA, RBP, RSP, RegisterRule, TRACKED, register_name,
};
pub use omission::{Omission, Omissions};
pub use rows::{Content, Row, rows};
use sections::Sections;
pub use segments::{Segment, Segments};

/// Why a file has no unwind table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Not an ELF file of 64 bits.
    #[error("not a 64-bit ELF file")]
    NotElf,
    /// An ELF file for another machine.
    #[error("not an ELF file for x86-64")]
    OtherMachine,
    /// The headers reach behind the file's end.
    #[error("the file ends within its headers")]
    Truncated,
    /// More program headers than any linker writes.
    #[error("{0} program headers")]
    ProgramHeaders(u64),
    /// Nothing of the file is mapped executable.
    #[error("no executable segment")]
    NoText,
}

/// Padding between two functions that the kernel's table gives to the latter: it saves a row for each gap.
///
/// To the latter, since a pc that a walk starts from may be a function's first byte (a stack made by `makecontext`
/// returns there), and a return address is looked up one byte before it.
const MAX_PADDING: u64 = 15;

/// An executable's unwind table in the kernel's format, keyed by file offset.
#[derive(Clone, Debug)]
pub struct UnwindTable {
    writer: TableWriter,
    rows: u64,
    functions: u64,
    omissions: Omissions,
}

impl UnwindTable {
    /// The bytes that the sampler installs and the cache keeps; see [`ipc_proto::table_file`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.writer.encode()
    }

    /// Rows in its chunks.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Functions (FDEs) it was made from.
    #[must_use]
    pub fn functions(&self) -> u64 {
        self.functions
    }

    /// Chunks, each one element of a kernel map.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.writer.chunk_count()
    }

    /// Regions, each one element of a kernel map.
    #[must_use]
    pub fn regions(&self) -> usize {
        self.writer.region_count()
    }

    /// What is not in the table, by reason.
    #[must_use]
    pub fn omissions(&self) -> &Omissions {
        &self.omissions
    }
}

/// Builds the table of a file: `&[u8]`, or `&ReadCache<File>` to read only what is needed of a large one.
///
/// A file without call frame information gets a table without rows.
///
/// # Errors
/// When the file is no executable of this machine.
pub fn build<'a, R: ReadRef<'a>>(data: R) -> Result<UnwindTable, BuildError> {
    let mut omissions = Omissions::default();
    let sections = Sections::read(data, &mut omissions)?;
    let functions = functions(data, &sections, &mut omissions);
    let mut sink = TableSink {
        packer: Packer::new(omissions),
        segment: Segment {
            address: 0,
            file_offset: 0,
            length: 0,
        },
        covered_until: None,
        row_start: None,
    };
    let mut interpreter = Interpreter::default();
    for segment in sections.segments.all() {
        sink.begin_segment(*segment);
        walk(&functions, segment, &mut interpreter, &mut sink);
        sink.end_segment();
    }
    let packed = sink.packer.finish();
    Ok(UnwindTable {
        writer: packed.writer,
        rows: packed.rows,
        functions: functions.all().len() as u64,
        omissions: packed.omissions,
    })
}

fn functions<'a, 'b, R: ReadRef<'b>>(
    data: R,
    sections: &'a Sections<'_>,
    omissions: &mut Omissions,
) -> Functions<'a> {
    let header = sections.eh_frame_hdr();
    let mut functions = Functions::find(
        sections.eh_frame(),
        sections.debug_frame(),
        header
            .as_ref()
            .and_then(|parts| parts.search_table.as_ref()),
        Undescribed {
            go: sections.go(omissions),
            plts: sections.plts(),
        },
        &sections.segments,
        omissions,
    );
    let entry = sections.entry;
    let start_code = start_code::find(data, &sections.segments, entry, functions.all());
    functions.add_start_code(start_code, omissions);
    functions
}

/// Takes the functions of a segment in order.
trait FunctionSink: RowSink {
    /// A function begins at an ELF address; what follows are its rows.
    fn begin_function(&mut self, start: u64, end: u64);
    /// The function's end was cut off, since the next one begins before it.
    fn overlap(&mut self);
}

/// Gives the rows of all functions of a segment, ascending. Where functions overlap, the one that begins last holds,
/// as it does for an unwinder that searches `.eh_frame_hdr`.
fn walk(
    functions: &Functions<'_>,
    segment: &Segment,
    interpreter: &mut Interpreter,
    sink: &mut impl FunctionSink,
) {
    let all = functions.all();
    let first = all.partition_point(|function| function.start < segment.address);
    let behind = all.partition_point(|function| function.start < segment.end());
    let Some(inside) = all.get(first..behind) else {
        return;
    };
    for (nth, function) in inside.iter().enumerate() {
        let mut end = function.end().min(segment.end());
        if let Some(next) = inside.get(nth.wrapping_add(1))
            && next.start < end
        {
            end = next.start;
            sink.overlap();
        }
        sink.begin_function(function.start, end);
        functions.rows(function, end, interpreter, sink);
    }
}

/// Packs rows into the kernel's format.
struct TableSink {
    packer: Packer,
    segment: Segment,
    /// File offset where the previous function ended.
    covered_until: Option<u64>,
    /// Where the next row begins when not at its own start: with the padding before its function.
    row_start: Option<u64>,
}

impl TableSink {
    fn begin_segment(&mut self, segment: Segment) {
        self.packer.begin_segment(segment.file_offset);
        self.segment = segment;
        self.covered_until = None;
    }

    fn end_segment(&mut self) {
        if let Some(end) = self.covered_until {
            self.packer.push(end, Rule::UNCOVERED);
        }
        self.packer.end_segment(self.segment.file_end());
    }

    #[inline(always)]
    fn push(&mut self, start: u64, rule: Rule) {
        let file_offset = match self.row_start.take() {
            Some(file_offset) => file_offset,
            None => self.segment.to_file_offset(start),
        };
        self.packer.push(file_offset, rule);
    }
}

impl FunctionSink for TableSink {
    #[inline(always)]
    fn begin_function(&mut self, start: u64, end: u64) {
        let start = self.segment.to_file_offset(start);
        if let Some(covered) = self.covered_until
            && covered < start
        {
            if start - covered <= MAX_PADDING {
                self.row_start = Some(covered);
            } else {
                self.packer.push(covered, Rule::UNCOVERED);
            }
        }
        self.covered_until = Some(self.segment.to_file_offset(end));
    }

    fn overlap(&mut self) {
        self.packer.omit(Omission::OverlapCut);
    }
}

impl RowSink for TableSink {
    #[inline(always)]
    fn row(&mut self, start: u64, _end: u64, frame: &Frame) {
        let packed = compact::pack(frame);
        if let Some(omission) = packed.omission {
            self.packer.omit(omission);
        }
        self.push(start, packed.rule);
    }

    fn unreadable(&mut self, start: u64, _end: u64, omission: Omission) {
        self.packer.omit(omission);
        self.push(start, Rule::UNSUPPORTED);
    }
}

#[cfg(test)]
mod tests;
