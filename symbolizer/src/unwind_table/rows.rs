//! Owns the table as people read it: every row of the call frame information at its ELF address, nothing merged and
//! nothing packed. The kernel's table is made from the same walk.

use object::ReadRef;

use super::cfa::{Interpreter, RowSink};
use super::compact;
use super::frame::Frame;
use super::omission::{Omission, Omissions};
use super::sections::Sections;
use super::{BuildError, FunctionSink, functions, walk};

/// One row; it holds until the next one starts.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// ELF address.
    pub start: u64,
    /// What holds from there on.
    pub content: Content<'a>,
}

/// What a row says.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// Rules, and why the kernel's table has a marker instead, or a register less.
    Rules {
        frame: &'a Frame,
        omission: Option<Omission>,
    },
    /// The call frame information can't be read from here to the function's end.
    Unreadable(Omission),
    /// Coverage ends.
    Uncovered,
}

/// Shows every row of a file, ascending by ELF address, and says what was left.
///
/// # Errors
/// When the file is no executable of this machine.
pub fn rows<'a, R: ReadRef<'a>>(
    data: R,
    show: impl FnMut(Row<'_>),
) -> Result<Omissions, BuildError> {
    let mut omissions = Omissions::default();
    let sections = Sections::read(data, &mut omissions)?;
    let functions = functions(data, &sections, &mut omissions);
    let mut sink = LogicalSink {
        show,
        covered_until: None,
        omissions,
    };
    let mut interpreter = Interpreter::default();
    let mut segments = sections.segments.all().to_vec();
    segments.sort_by_key(|segment| segment.address);
    for segment in &segments {
        walk(&functions, segment, &mut interpreter, &mut sink);
    }
    sink.end_coverage(None);
    Ok(sink.omissions)
}

struct LogicalSink<F> {
    show: F,
    /// ELF address where the previous function ended.
    covered_until: Option<u64>,
    omissions: Omissions,
}

impl<F: FnMut(Row<'_>)> LogicalSink<F> {
    /// Ends coverage where the previous function did, unless the next one starts there.
    fn end_coverage(&mut self, next: Option<u64>) {
        if let Some(start) = self.covered_until
            && next.is_none_or(|next| start < next)
        {
            (self.show)(Row {
                start,
                content: Content::Uncovered,
            });
        }
    }
}

impl<F: FnMut(Row<'_>)> FunctionSink for LogicalSink<F> {
    fn begin_function(&mut self, start: u64, end: u64) {
        self.end_coverage(Some(start));
        self.covered_until = Some(end);
    }

    fn overlap(&mut self) {
        self.omissions.add(Omission::OverlapCut);
    }
}

impl<F: FnMut(Row<'_>)> RowSink for LogicalSink<F> {
    fn row(&mut self, start: u64, _end: u64, frame: &Frame) {
        let omission = compact::pack(frame).omission;
        if let Some(omission) = omission {
            self.omissions.add(omission);
        }
        (self.show)(Row {
            start,
            content: Content::Rules { frame, omission },
        });
    }

    fn unreadable(&mut self, start: u64, _end: u64, omission: Omission) {
        self.omissions.add(omission);
        (self.show)(Row {
            start,
            content: Content::Unreadable(omission),
        });
    }
}
