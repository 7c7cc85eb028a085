//! Owns `unwind-table FILE [--format text|json]`: every row of a file's unwind table at its ELF address.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use lexopt::prelude::*;
use object::ReadCache;

use super::InspectError;
use crate::unwind_table::{
    CALLEE_SAVED, Cfa, Content, Frame, Position, RA, RBP, RSP, RegisterRule, Row, TRACKED,
    register_name, rows,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// One line a row, in columns.
    Text,
    /// One JSON object a line and row.
    Json,
}

struct Request {
    file: PathBuf,
    format: Format,
}

impl Request {
    fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, InspectError> {
        let mut parser = lexopt::Parser::from_args(arguments);
        let mut file = None;
        let mut format = Format::Text;
        while let Some(argument) = parser.next()? {
            match argument {
                Long("format") => {
                    let name = parser.value()?;
                    format = match name.to_str() {
                        Some("text") => Format::Text,
                        Some("json") => Format::Json,
                        _ => {
                            return Err(InspectError::Usage(format!(
                                "{name:?} is no format: give text or json"
                            )));
                        }
                    };
                }
                Value(path) if file.is_none() => file = Some(PathBuf::from(path)),
                other => return Err(other.unexpected().into()),
            }
        }
        let file = file.ok_or_else(|| InspectError::Usage("FILE is missing".to_owned()))?;
        Ok(Self { file, format })
    }
}

pub(super) fn run(arguments: impl Iterator<Item = OsString>) -> Result<(), InspectError> {
    let request = Request::parse(arguments)?;
    let failed = |what: &dyn fmt::Display| {
        InspectError::Failed(format!("{}: {what}", request.file.display()))
    };
    let file = super::open(&request.file).map_err(|error| failed(&error))?;
    super::lock_down(Vec::new())?;
    let data = ReadCache::new(file);
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    let omissions = rows(&data, |row| {
        if written.is_ok() {
            written = write_row(&mut out, &row, request.format);
        }
    })
    .map_err(|error| failed(&error))?;
    match written.and_then(|()| out.flush()) {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        result => result.map_err(|error| failed(&error))?,
    }
    for (omission, count) in omissions.iter() {
        eprintln!("leadsman: left of the unwind table: {omission}: {count}");
    }
    Ok(())
}

fn write_row(out: &mut impl Write, row: &Row<'_>, format: Format) -> io::Result<()> {
    match format {
        Format::Text => writeln!(out, "{}", Text(row)),
        Format::Json => writeln!(out, "{}", Json(row)),
    }
}

/// A row as a JSON object. No name in it needs escaping.
struct Json<'a>(&'a Row<'a>);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{\"start\":{}", self.0.start)?;
        let Content::Rules { frame, omission } = self.0.content else {
            f.write_str(",\"cfa\":\"undef\",\"rbp\":\"undef\",\"ra\":\"undef\",\"signal\":false")?;
            if let Content::Unreadable(omission) = self.0.content {
                write!(f, ",\"unsupported\":\"{omission}\"")?;
            }
            return f.write_str("}");
        };
        write!(f, ",\"cfa\":\"{}\"", ShownCfa(frame.cfa()))?;
        write!(f, ",\"rbp\":\"{}\"", ShownRule(frame.rule(RBP)))?;
        for (name, rule) in other_registers(frame) {
            write!(f, ",\"{name}\":\"{}\"", ShownRule(rule))?;
        }
        write!(f, ",\"ra\":\"{}\"", ShownReturnAddress(frame.rule(RA)))?;
        write!(f, ",\"signal\":{}", frame.is_signal())?;
        if let Some(omission) = omission {
            write!(f, ",\"unsupported\":\"{omission}\"")?;
        }
        f.write_str("}")
    }
}

/// A row as a line.
struct Text<'a>(&'a Row<'a>);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0.start)?;
        let (frame, omission) = match self.0.content {
            Content::Rules { frame, omission } => (frame, omission),
            Content::Uncovered => return f.write_str(" undef"),
            Content::Unreadable(omission) => return write!(f, " undef unsupported={omission}"),
        };
        write!(f, " {:<10}", ShownCfa(frame.cfa()).to_string())?;
        write!(f, " rbp={:<8}", ShownRule(frame.rule(RBP)).to_string())?;
        write!(f, " ra={}", ShownReturnAddress(frame.rule(RA)))?;
        for (name, rule) in other_registers(frame) {
            write!(f, " {name}={}", ShownRule(rule))?;
        }
        if frame.is_signal() {
            f.write_str(" signal")?;
        }
        if let Some(omission) = omission {
            write!(f, " unsupported={omission}")?;
        }
        Ok(())
    }
}

/// The registers beside rbp and the return address that a rule is given for.
fn other_registers(frame: &Frame) -> impl Iterator<Item = (&'static str, RegisterRule)> + '_ {
    let others = (RBP + 1..CALLEE_SAVED).chain([RSP]);
    others.filter_map(|position: Position| {
        let rule = frame.rule(position);
        let name = register_name(u16::from(*TRACKED.get(position)?))?;
        (rule != RegisterRule::Unspecified).then_some((name, rule))
    })
}

struct ShownCfa(Cfa);

impl fmt::Display for ShownCfa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Cfa::Undefined => f.write_str("undef"),
            Cfa::Register { register, offset } => match register_name(register) {
                Some(name) => write!(f, "{name}{offset:+}"),
                None => write!(f, "r{register}{offset:+}"),
            },
            Cfa::Plt { .. } => f.write_str("plt"),
            Cfa::Deref { .. } | Cfa::DerefIndexed { .. } | Cfa::Expression => f.write_str("expr"),
        }
    }
}

struct ShownRule(RegisterRule);

impl fmt::Display for ShownRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            RegisterRule::Unspecified | RegisterRule::Same => f.write_str("same"),
            RegisterRule::Undefined => f.write_str("undef"),
            RegisterRule::Offset(offset) => write!(f, "cfa{offset:+}"),
            RegisterRule::ValueOffset(offset) => write!(f, "value cfa{offset:+}"),
            RegisterRule::Register(register) => match register_name(register) {
                Some(name) => f.write_str(name),
                None => write!(f, "r{register}"),
            },
            RegisterRule::Based { .. }
            | RegisterRule::Expression
            | RegisterRule::ValueExpression => f.write_str("expr"),
        }
    }
}

/// Nothing said about the return address is not "still in its register": there is none.
struct ShownReturnAddress(RegisterRule);

impl fmt::Display for ShownReturnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            RegisterRule::Unspecified => f.write_str("undef"),
            rule => ShownRule(rule).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
