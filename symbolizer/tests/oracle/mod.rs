//! Steps as gimli's rows and its evaluation of expressions make them, on made-up registers and memory.

pub(crate) mod readelf;

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, DebugFrame, EhFrame, Encoding, EndianSlice, EvaluationResult,
    FrameDescriptionEntry, LittleEndian, Location, Register, RegisterRule, UnwindContext,
    UnwindExpression, UnwindSection, UnwindTableRow, Value,
};
use ipc_proto::table_file::TableFile;
use leadsman_ebpf::registers::{ALL_KNOWN, Registers, number};
use leadsman_ebpf::rule::{Kind, Rule};
use leadsman_ebpf::step::{Stack, step};
use leadsman_ebpf::stop::StopReason;
use leadsman_symbolizer::unwind_table::{self, Cfa, Content, Segment, TRACKED};
use object::{Object, ObjectSection, ObjectSegment, SegmentFlags};

type Slice<'a> = EndianSlice<'a, LittleEndian>;
type Row = UnwindTableRow<usize>;

const ENCODING: Encoding = Encoding {
    address_size: 8,
    format: gimli::Format::Dwarf32,
    version: 4,
};
/// The made-up stack pointer; everything made up lies above it.
const RSP: u64 = 0x7ffe_0000_0000;
/// What Go's linker writes for x86-64, and nobody else.
const GO_DATA_ALIGNMENT: i64 = -4;
/// Kinds that no call frame information of Go's says: of functions that change stacks or have no caller.
const GO_KINDS: [Kind; 3] = [Kind::SWITCHED, Kind::END, Kind::SIGNAL];
/// Differences that are told.
const SHOWN: usize = 12;

/// What came out of a comparison.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) equal_bytes: u64,
    pub(super) marked_bytes: u64,
    pub(super) different: Vec<String>,
}

impl Comparison {
    pub(super) fn equal_share(&self) -> f64 {
        self.equal_bytes as f64 / self.bytes as f64
    }
}

/// A file's call frame information as gimli reads it.
pub(super) struct Oracle<'a> {
    sections: Sections<'a>,
    segments: Vec<Segment>,
}

struct Sections<'a> {
    eh_frame: EhFrame<Slice<'a>>,
    debug_frame: DebugFrame<Slice<'a>>,
    bases: BaseAddresses,
}

/// One function's place in one of the sections.
#[derive(Clone, Copy)]
struct Place {
    start: u64,
    end: u64,
    offset: usize,
    in_debug_frame: bool,
}

/// Memory that holds something else at every address, and never a value at or below the stack pointer.
struct MadeUp;

impl MadeUp {
    fn at(address: u64) -> u64 {
        RSP + 0x1_0000 + (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24)
    }
}

impl Stack for MadeUp {
    const UNREADABLE: StopReason = StopReason::NoMapping;

    fn word(&mut self, address: u64) -> Option<u64> {
        Some(Self::at(address))
    }
}

fn registers(pc: u64) -> Registers {
    let mut registers = Registers {
        general: [0; 16],
        pc,
        known: ALL_KNOWN,
        pc_is_exact: 1,
    };
    for (nth, register) in registers.general.iter_mut().enumerate() {
        *register = RSP + 0x4000 + 0x1010 * nth as u64;
    }
    registers.general[usize::from(number::RSP)] = RSP;
    registers
}

impl<'a> Oracle<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Self {
        let file = object::File::parse(bytes).expect("ELF");
        let segments = file
            .segments()
            .filter(|segment| {
                matches!(segment.flags(), SegmentFlags::Elf { p_flags, .. }
                    if p_flags.contains(object::elf::PF_X))
            })
            .map(|segment| Segment {
                address: segment.address(),
                file_offset: segment.file_range().0,
                length: segment.file_range().1,
            })
            .collect();
        Self {
            sections: Sections::read(&file),
            segments,
        }
    }

    /// The file's executable segments.
    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    fn file_offset(&self, address: u64) -> Option<u64> {
        let segment = self
            .segments
            .iter()
            .find(|segment| (segment.address..segment.end()).contains(&address))?;
        Some(segment.to_file_offset(address))
    }

    /// Every row that lies in executable segments: its addresses and itself.
    fn for_each_row(&self, mut visit: impl FnMut(u64, u64, &Row, Side<'_, 'a>)) {
        let mut functions = self.sections.functions();
        functions.retain(|function| self.file_offset(function.start).is_some());
        let mut context = UnwindContext::new();
        for (nth, function) in functions.iter().enumerate() {
            let next = functions.get(nth + 1).map_or(u64::MAX, |next| next.start);
            let end = function.end.min(next);
            self.sections
                .for_each_row(function, end, &mut context, &mut visit);
        }
    }

    /// Steps from both ends of every row.
    pub(super) fn compare(&self, table: &TableFile<'_>) -> Comparison {
        let mut comparison = Comparison::default();
        self.for_each_row(|start, end, row, side| {
            comparison.rows += 1;
            comparison.bytes += end - start;
            let mut verdict = Verdict::Equal;
            for address in [start, end - 1] {
                let rule = self
                    .file_offset(address)
                    .and_then(|offset| table.find(offset))
                    .unwrap_or(Rule::UNCOVERED);
                verdict = verdict.worse(side.check(row, address, rule));
            }
            match verdict {
                Verdict::Equal => comparison.equal_bytes += end - start,
                Verdict::Marked => comparison.marked_bytes += end - start,
                Verdict::Different(what) if comparison.different.len() < SHOWN => {
                    comparison.different.push(what);
                }
                Verdict::Different(_) => {}
            }
        });
        comparison
    }
}

impl<'a> Sections<'a> {
    fn read(file: &object::File<'a>) -> Self {
        let bytes = |name: &str| -> Slice<'a> {
            let data = file
                .section_by_name(name)
                .and_then(|section| {
                    let data = section.compressed_data().ok()?;
                    match data.format {
                        object::CompressionFormat::None => Some(data.data),
                        object::CompressionFormat::Zlib => {
                            let mut out = Vec::new();
                            let mut decoder = flate2::read::ZlibDecoder::new(data.data);
                            std::io::Read::read_to_end(&mut decoder, &mut out).ok()?;
                            Some(Box::leak(out.into_boxed_slice()))
                        }
                        _ => None,
                    }
                })
                .unwrap_or(&[]);
            EndianSlice::new(data, LittleEndian)
        };
        let address = |name: &str| {
            file.section_by_name(name)
                .map_or(0, |found| found.address())
        };
        let bases = BaseAddresses::default()
            .set_eh_frame(address(".eh_frame"))
            .set_text(address(".text"))
            .set_got(address(".got"));
        Self {
            eh_frame: EhFrame::from(bytes(".eh_frame")),
            debug_frame: DebugFrame::from(bytes(".debug_frame")),
            bases,
        }
    }

    /// All functions, ascending; those of `.debug_frame` where `.eh_frame` says nothing.
    fn functions(&self) -> Vec<Place> {
        let mut functions = places(&self.eh_frame, &self.bases, false);
        let more = places(&self.debug_frame, &self.bases, true);
        let covered = functions.clone();
        functions.extend(more.into_iter().filter(|function| {
            let behind = covered.partition_point(|other| other.start < function.end);
            behind
                .checked_sub(1)
                .is_none_or(|last| covered[last].end <= function.start)
        }));
        functions.sort_by_key(|function| function.start);
        functions.dedup_by_key(|function| function.start);
        functions
    }

    fn for_each_row(
        &self,
        function: &Place,
        end: u64,
        context: &mut UnwindContext<usize>,
        visit: &mut impl FnMut(u64, u64, &Row, Side<'_, 'a>),
    ) {
        if function.in_debug_frame {
            let fde = self.debug_frame.fde_from_offset(
                &self.bases,
                function.offset.into(),
                DebugFrame::cie_from_offset,
            );
            self.rows(
                &self.debug_frame,
                &fde.expect("parsed"),
                end,
                context,
                visit,
            );
        } else {
            let fde = self.eh_frame.fde_from_offset(
                &self.bases,
                function.offset.into(),
                EhFrame::cie_from_offset,
            );
            self.rows(&self.eh_frame, &fde.expect("parsed"), end, context, visit);
        }
    }

    fn rows<S: UnwindSection<Slice<'a>>>(
        &self,
        section: &S,
        fde: &FrameDescriptionEntry<Slice<'a>>,
        end: u64,
        context: &mut UnwindContext<usize>,
        visit: &mut impl FnMut(u64, u64, &Row, Side<'_, 'a>),
    ) {
        let expression =
            |expression: &UnwindExpression<usize>| expression.get(section).expect("an expression");
        let mut rows = fde.rows(section, &self.bases, context).expect("rows");
        while let Some(row) = rows.next_row().expect("a row") {
            let (start, end) = (row.start_address(), row.end_address().min(end));
            if start < end {
                let cie = fde.cie();
                let side = Side {
                    signal: fde.is_signal_trampoline(),
                    go: cie.data_alignment_factor() == GO_DATA_ALIGNMENT,
                    expression: &expression,
                };
                visit(start, end, row, side);
            }
        }
    }
}

fn places<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    bases: &BaseAddresses,
    in_debug_frame: bool,
) -> Vec<Place> {
    let mut places = Vec::new();
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else {
            continue;
        };
        let fde = partial.parse(S::cie_from_offset).expect("an FDE");
        let (start, end) = (fde.initial_address(), fde.end_address());
        if start != 0 && start < end {
            let offset = fde.offset();
            places.push(Place {
                start,
                end,
                offset,
                in_debug_frame,
            });
        }
    }
    places.sort_by_key(|place| place.start);
    places.dedup_by_key(|place| place.start);
    places
}

enum Verdict {
    Equal,
    /// The table says that it can't say.
    Marked,
    Different(String),
}

impl Verdict {
    fn worse(self, other: Self) -> Self {
        match (self, other) {
            (Self::Different(what), _) | (_, Self::Different(what)) => Self::Different(what),
            (Self::Marked, _) | (_, Self::Marked) => Self::Marked,
            _ => Self::Equal,
        }
    }
}

/// gimli's side of a comparison.
struct Side<'b, 'a> {
    signal: bool,
    /// By Go's linker, which never says where rbp is.
    go: bool,
    expression: &'b dyn Fn(&UnwindExpression<usize>) -> gimli::Expression<Slice<'a>>,
}

impl<'a> Side<'_, 'a> {
    fn evaluate(
        &self,
        expression: &UnwindExpression<usize>,
        initial: Option<u64>,
        registers: &Registers,
    ) -> u64 {
        let expression: gimli::Expression<Slice<'a>> = (self.expression)(expression);
        let mut evaluation = expression.evaluation(ENCODING);
        if let Some(initial) = initial {
            evaluation.set_initial_value(initial);
        }
        let mut result = evaluation.evaluate().expect("an expression");
        loop {
            result = match result {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = match register.0 {
                        16 => registers.pc,
                        number => registers.general[usize::from(number)],
                    };
                    evaluation.resume_with_register(Value::Generic(value))
                }
                EvaluationResult::RequiresMemory { address, .. } => {
                    evaluation.resume_with_memory(Value::Generic(MadeUp::at(address)))
                }
                other => panic!("{other:?}"),
            }
            .expect("an expression");
        }
        match evaluation.result()[..] {
            [
                gimli::Piece {
                    location: Location::Address { address },
                    ..
                },
            ] => address,
            ref other => panic!("{other:?}"),
        }
    }

    fn cfa(&self, row: &Row, registers: &Registers) -> u64 {
        match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                registers.general[usize::from(register.0)].wrapping_add(*offset as u64)
            }
            CfaRule::Expression(expression) => self.evaluate(expression, None, registers),
        }
    }

    /// A register's value in the caller, and where it is saved; `None` when it is gone.
    fn register(
        &self,
        row: &Row,
        register: u8,
        cfa: u64,
        registers: &Registers,
    ) -> Option<(u64, Option<u64>)> {
        let own = registers.general.get(usize::from(register)).copied();
        let saved = |address| Some((MadeUp::at(address), Some(address)));
        match row.register(Register(u16::from(register))) {
            Some(RegisterRule::Undefined) => None,
            None | Some(RegisterRule::SameValue) => Some((own?, None)),
            Some(RegisterRule::Offset(offset)) => saved(cfa.wrapping_add(offset as u64)),
            Some(RegisterRule::ValOffset(offset)) => Some((cfa.wrapping_add(offset as u64), None)),
            Some(RegisterRule::Register(other)) => {
                Some((registers.general[usize::from(other.0)], None))
            }
            Some(RegisterRule::Expression(expression)) => {
                saved(self.evaluate(&expression, Some(cfa), registers))
            }
            Some(RegisterRule::ValExpression(expression)) => {
                Some((self.evaluate(&expression, Some(cfa), registers), None))
            }
            other => panic!("{other:?}"),
        }
    }

    fn check(&self, row: &Row, address: u64, rule: Rule) -> Verdict {
        let before = registers(address);
        let different = |what: &str| {
            Verdict::Different(format!(
                "{address:#x}: {what}: ours {:?} {:#x}, gimli's {row:?}",
                rule.kind(),
                rule.0
            ))
        };
        if rule.kind() == Kind::UNSUPPORTED || self.go && GO_KINDS.contains(&rule.kind()) {
            return Verdict::Marked;
        }
        let end = matches!(
            row.register(Register(u16::from(number::RA))),
            Some(RegisterRule::Undefined)
        );
        if end || rule.kind() == Kind::END {
            return match end && rule.kind() == Kind::END {
                true => Verdict::Equal,
                false => different("end of the stack"),
            };
        }
        let mut after = before;
        let cfa = self.cfa(row, &before);
        match step(&mut after, rule, &mut MadeUp) {
            Ok(()) => {}
            // Where code switches stacks its rules say so; the walker refuses to follow, whatever the table.
            Err(StopReason::StackNotGrowing) if cfa <= RSP => return Verdict::Equal,
            Err(reason) => return different(reason.name()),
        }
        if self.signal != (rule.kind() == Kind::SIGNAL) {
            return different("signal frame");
        }
        let Some((return_address, _)) = self.register(row, number::RA, cfa, &before) else {
            return different("return address");
        };
        if after.pc != return_address {
            return different("return address");
        }
        let rsp = match row.register(Register(u16::from(number::RSP))) {
            None => cfa,
            Some(_) => match self.register(row, number::RSP, cfa, &before) {
                Some((rsp, _)) => rsp,
                None => return different("rsp"),
            },
        };
        if after.rsp() != rsp {
            return different("rsp");
        }
        let mut verdict = Verdict::Equal;
        for &register in &TRACKED[..unwind_table::CALLEE_SAVED] {
            let ours =
                (after.known >> register & 1 == 1).then(|| after.general[usize::from(register)]);
            let theirs = self.register(row, register, cfa, &before);
            let own = before.general[usize::from(register)];
            if self.go && register == number::RBP {
                // Pushed right behind the return address as soon as rsp has moved.
                let saved = if cfa.wrapping_sub(RSP) < 16 {
                    own
                } else {
                    MadeUp::at(cfa - 16)
                };
                if ours != Some(saved) {
                    return different("rbp of a Go function");
                }
                continue;
            }
            match (ours, theirs) {
                (Some(ours), Some((theirs, _))) if ours == theirs => {}
                // Popped: its slot lies below rsp, the register holds the same.
                (Some(ours), Some((_, Some(slot)))) if ours == own && slot < RSP => {}
                (None, None) => {}
                (None, Some(_)) => verdict = verdict.worse(Verdict::Marked),
                _ => {
                    return different(
                        unwind_table::register_name(register.into()).expect("a name"),
                    );
                }
            }
        }
        verdict
    }
}

/// Compares the rows that inspection shows with gimli's, one by one; says the first differences.
pub(super) fn compare_logical_rows(bytes: &[u8]) -> Vec<String> {
    let mut ours: Vec<(u64, Option<unwind_table::Frame>)> = Vec::new();
    unwind_table::rows(bytes, |row| {
        ours.push((
            row.start,
            match row.content {
                Content::Rules { frame, .. } => Some(*frame),
                Content::Unreadable(_) | Content::Uncovered => None,
            },
        ));
    })
    .expect("an executable");
    assert!(
        ours.is_sorted_by(|one, next| one.0 < next.0),
        "not ascending"
    );
    let mut different = Vec::new();
    let mut covered = 0;
    let mut expected_end = None;
    Oracle::read(bytes).for_each_row(|start, end, row, side| {
        if different.len() >= SHOWN {
            return;
        }
        covered += 1;
        let behind = ours.partition_point(|(address, _)| *address <= start);
        let found = behind.checked_sub(1).and_then(|nth| ours[nth].1.as_ref());
        let before = behind.checked_sub(2).and_then(|nth| ours[nth].1.as_ref());
        if expected_end.is_some_and(|end| end < start) && before.is_some() {
            different.push(format!("{start:#x}: no row ends coverage before the gap"));
        }
        expected_end = Some(end);
        match found {
            None => different.push(format!("{start:#x}: no row")),
            Some(frame) if !same_rules(frame, row, &side) => {
                different.push(format!("{start:#x}: ours {frame:?}, gimli's {row:?}"));
            }
            Some(_) => {}
        }
    });
    assert!(covered > 0, "gimli found no row");
    different
}

fn same_rules(frame: &unwind_table::Frame, row: &Row, side: &Side<'_, '_>) -> bool {
    let cfa = match (frame.cfa(), row.cfa()) {
        (
            Cfa::Register { register, offset },
            CfaRule::RegisterAndOffset {
                register: other,
                offset: theirs,
            },
        ) => register == other.0 && offset == *theirs,
        (
            Cfa::Plt { .. } | Cfa::Deref { .. } | Cfa::DerefIndexed { .. } | Cfa::Expression,
            CfaRule::Expression(_),
        ) => true,
        _ => false,
    };
    cfa && side.signal == frame.is_signal()
        && TRACKED.iter().enumerate().all(|(position, register)| {
            use unwind_table::RegisterRule as Ours;
            match (
                frame.rule(position),
                row.register(Register(u16::from(*register))),
            ) {
                (Ours::Unspecified, None) => true,
                (Ours::Same, Some(RegisterRule::SameValue)) => true,
                (Ours::Undefined, Some(RegisterRule::Undefined)) => true,
                (Ours::Offset(ours), Some(RegisterRule::Offset(theirs))) => {
                    i64::from(ours) == theirs
                }
                (Ours::ValueOffset(ours), Some(RegisterRule::ValOffset(theirs))) => {
                    i64::from(ours) == theirs
                }
                (Ours::Register(ours), Some(RegisterRule::Register(theirs))) => ours == theirs.0,
                (Ours::Based { .. } | Ours::Expression, Some(RegisterRule::Expression(_))) => true,
                (Ours::ValueExpression, Some(RegisterRule::ValExpression(_))) => true,
                _ => false,
            }
        })
}
