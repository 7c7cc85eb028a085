//! Rows as `readelf --debug-dump=frames-interp` prints them, compared with the packed rules one by one: a second reader
//! of the same bytes, by other authors. Expressions it only names; those are gimli's to judge.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use ipc_proto::table_file::TableFile;
use leadsman_ebpf::registers::number;
use leadsman_ebpf::rule::{Kind, RBP_LOST, Rule, SLOT_LOST, SLOT_REGISTERS};
use leadsman_symbolizer::unwind_table::{Segment, register_name};

use super::{Comparison, GO_KINDS, SHOWN, Verdict};

/// The registers whose columns are compared: rbp, then those with the narrow slots.
const SAVED: [u8; 6] = [
    number::RBP,
    SLOT_REGISTERS[0],
    SLOT_REGISTERS[1],
    SLOT_REGISTERS[2],
    SLOT_REGISTERS[3],
    SLOT_REGISTERS[4],
];

/// A cell of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cell {
    /// `u` or `s`, or no column: readelf prints "nothing was said" and "undefined" alike.
    Unsaved,
    /// `c-16`: saved at CFA - 16.
    Saved(i64),
    /// `exp`, `vexp`: an expression.
    Expression,
    /// Anything else, such as another register.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Cfa {
    Register(u8, i64),
    Expression,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    start: u64,
    cfa: Cfa,
    saved: [Cell; SAVED.len()],
    return_address: Cell,
    /// By Go's linker, which never says where rbp is.
    go: bool,
}

#[derive(Debug)]
struct Function {
    start: u64,
    end: u64,
    rows: Vec<Row>,
}

/// Compares every row that readelf prints of a file with the table's rules at the row's first and last byte.
pub(crate) fn compare(path: &Path, table: &TableFile<'_>, segments: &[Segment]) -> Comparison {
    let mut comparison = Comparison::default();
    let functions = functions(path);
    for (nth, function) in functions.iter().enumerate() {
        let next = functions.get(nth + 1).map_or(u64::MAX, |next| next.start);
        let end = function.end.min(next);
        for (nth, row) in function.rows.iter().enumerate() {
            let row_end = function
                .rows
                .get(nth + 1)
                .map_or(end, |next| next.start)
                .min(end);
            let in_segment = |address: &u64| {
                segments
                    .iter()
                    .any(|segment| (segment.address..segment.end()).contains(address))
            };
            if row.start >= row_end || !in_segment(&row.start) {
                continue;
            }
            comparison.rows += 1;
            comparison.bytes += row_end - row.start;
            let mut verdict = Verdict::Equal;
            for address in [row.start, row_end - 1] {
                let rule = segments
                    .iter()
                    .find(|segment| (segment.address..segment.end()).contains(&address))
                    .and_then(|segment| table.find(segment.to_file_offset(address)))
                    .unwrap_or(Rule::UNCOVERED);
                verdict = verdict.worse(judge(row, rule));
            }
            match verdict {
                Verdict::Equal => comparison.equal_bytes += row_end - row.start,
                Verdict::Marked => comparison.marked_bytes += row_end - row.start,
                Verdict::Different(what) if comparison.different.len() < SHOWN => {
                    comparison.different.push(what);
                }
                Verdict::Different(_) => {}
            }
        }
    }
    comparison
}

fn judge(row: &Row, rule: Rule) -> Verdict {
    let kind = rule.kind();
    let different = |what: &str| {
        Verdict::Different(format!(
            "{:#x}: {what}: ours {kind:?} {:#x}, readelf's {row:?}",
            row.start, rule.0
        ))
    };
    if kind == Kind::UNSUPPORTED || row.go && GO_KINDS.contains(&kind) {
        return Verdict::Marked;
    }
    if kind == Kind::END || row.return_address == Cell::Unsaved {
        return match kind == Kind::END && row.return_address == Cell::Unsaved {
            true => Verdict::Equal,
            false => different("end of the stack"),
        };
    }
    let Cfa::Register(register, offset) = row.cfa else {
        // What the expression says is not printed: that there is one must be right.
        return match kind.0 >= 16 && kind != Kind::UNCOVERED {
            true => Verdict::Equal,
            false => different("an expression"),
        };
    };
    // Another register is only named.
    let in_register = kind == Kind::RETURN_IN_REGISTER;
    let expected = if in_register {
        Cell::Other
    } else {
        Cell::Saved(-8)
    };
    if row.return_address != expected {
        return different("return address");
    }
    let ours = if in_register {
        (number::RSP.into(), rule.realigning_offset() as i64)
    } else if kind == Kind::REALIGNING {
        (rule.register(), rule.realigning_offset() as i64)
    } else {
        (u64::from(kind.0), rule.offset() as i64)
    };
    if ours != (u64::from(register), offset) {
        return different("CFA");
    }
    let mut verdict = Verdict::Equal;
    for (nth, (cell, saved)) in row.saved.iter().zip(SAVED).enumerate() {
        let (slot, lost) = match nth.checked_sub(1) {
            None => (rule.rbp_slot(), u64::from(RBP_LOST)),
            Some(nth) => (rule.slot(nth as u32), u64::from(SLOT_LOST)),
        };
        if row.go && saved == number::RBP {
            continue;
        }
        let below_rsp = |at: i64| register == number::RSP && -at > offset;
        match *cell {
            Cell::Unsaved if slot == 0 => {}
            Cell::Saved(at) if slot != lost && at == -8 * slot as i64 => {}
            // Popped: its slot lies below rsp, the register holds the same.
            Cell::Saved(at) if slot == 0 && below_rsp(at) => {}
            Cell::Expression if slot != 0 && slot != lost => {}
            _ if slot == lost => verdict = verdict.worse(Verdict::Marked),
            _ => return different(register_name(saved.into()).unwrap_or("a register")),
        }
    }
    verdict
}

/// All functions, ascending; those of `.debug_frame` where `.eh_frame` says nothing.
fn functions(path: &Path) -> Vec<Function> {
    let mut child = Command::new("readelf")
        .args(["--debug-dump=no-follow-links,frames-interp", "--wide"])
        .arg(path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("readelf starts");
    let output = BufReader::new(child.stdout.take().expect("its output"));
    let mut sections = [Vec::new(), Vec::new()];
    let mut in_debug_frame = false;
    let mut common: HashMap<String, Row> = HashMap::new();
    let mut block: Vec<String> = Vec::new();
    for line in output.lines().map(|line| line.expect("text")) {
        if line.starts_with("Contents of the ") {
            in_debug_frame = line.contains("debug_frame");
            common.clear();
            block.clear();
        } else if !line.trim().is_empty() {
            block.push(line);
        } else if !block.is_empty() {
            sections[usize::from(in_debug_frame)].extend(entry(&block, &mut common));
            block.clear();
        }
    }
    sections[usize::from(in_debug_frame)].extend(entry(&block, &mut common));
    assert!(child.wait().expect("readelf ends").success());
    let [mut functions, mut more] = sections;
    for list in [&mut functions, &mut more] {
        list.retain(|function| function.start != 0 && function.start < function.end);
        list.sort_by_key(|function| function.start);
        list.dedup_by_key(|function| function.start);
    }
    more.retain(|function| {
        let behind = functions.partition_point(|other| other.start < function.end);
        behind
            .checked_sub(1)
            .is_none_or(|last| functions[last].end <= function.start)
    });
    functions.extend(more);
    functions.sort_by_key(|function| function.start);
    functions
}

/// One entry: a function, or rules that functions have in common.
fn entry(block: &[String], common: &mut HashMap<String, Row>) -> Option<Function> {
    let head: Vec<&str> = block.first()?.split_whitespace().collect();
    let kind = *head.get(3)?;
    if kind != "CIE" && kind != "FDE" {
        return None;
    }
    let columns: Vec<&str> = block
        .get(1)
        .map(|line| line.split_whitespace().collect())
        .unwrap_or_default();
    let mut rows: Vec<Row> = Vec::new();
    for line in block.iter().skip(2) {
        let row = row(line, &columns).unwrap_or_else(|| panic!("{line:?} of {head:?}"));
        // Two rows at one address: the first one holds nowhere.
        rows.pop_if(|last| last.start == row.start);
        rows.push(row);
    }
    if kind == "CIE" {
        let go = head.contains(&"df=-4");
        rows.iter_mut().for_each(|row| row.go = go);
        common.insert(head[0].to_owned(), *rows.first()?);
        return None;
    }
    let (start, end) = head.get(5)?.strip_prefix("pc=")?.split_once("..")?;
    let (start, end) = (hexadecimal(start), hexadecimal(end));
    let initial = head[4]
        .strip_prefix("cie=")
        .and_then(|cie| common.get(cie))?;
    if rows.is_empty() {
        rows.push(Row { start, ..*initial });
    }
    rows.iter_mut().for_each(|row| row.go = initial.go);
    Some(Function { start, end, rows })
}

fn row(line: &str, columns: &[&str]) -> Option<Row> {
    // Another register is named twice: `r8 (r8)`.
    let words: Vec<&str> = line
        .split_whitespace()
        .filter(|word| !word.starts_with('('))
        .collect();
    if columns.first() != Some(&"LOC") || words.len() != columns.len() {
        return None;
    }
    let cell = |name: &str| {
        columns
            .iter()
            .position(|column| *column == name)
            .map_or(Cell::Unsaved, |at| cell(words[at]))
    };
    let name = |register: u8| register_name(register.into()).unwrap_or_default();
    let cfa = match words[1] {
        "exp" => Cfa::Expression,
        text => {
            let at = text.find(['+', '-'])?;
            let (register, offset) = text.split_at(at);
            let register = (0..16).find(|&number| name(number) == register)?;
            Cfa::Register(register, offset.parse().ok()?)
        }
    };
    Some(Row {
        start: hexadecimal(words[0]),
        cfa,
        saved: SAVED.map(|register| cell(name(register))),
        return_address: cell("ra"),
        go: false,
    })
}

fn cell(text: &str) -> Cell {
    match text {
        "u" | "s" => Cell::Unsaved,
        "exp" | "vexp" => Cell::Expression,
        _ => text
            .strip_prefix('c')
            .and_then(|offset| offset.parse().ok())
            .map_or(Cell::Other, Cell::Saved),
    }
}

fn hexadecimal(text: &str) -> u64 {
    u64::from_str_radix(text, 16).expect("an address")
}
