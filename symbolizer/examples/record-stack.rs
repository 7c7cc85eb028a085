//! Records one thread's stack for the tests of the step (`ebpf/src/step/recorded.rs`): what gdb sees of a stopped process,
//! and the rules of our tables at the addresses it found.
//!
//! Usage: record-stack PID THREAD-NAME > recorded/NAME.txt

use std::collections::{BTreeMap, HashMap};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ipc_proto::table_file::TableFile;
use leadsman_ebpf::rule::{Kind, Rule};
use leadsman_symbolizer::unwind_table;

/// By DWARF number.
const REGISTERS: [&str; 16] = [
    "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
/// Words of stack that are recorded of each frame.
const WORDS: usize = 48;

fn gdb(pid: &str, commands: &[String]) -> Result<String> {
    let mut gdb = Command::new("gdb");
    gdb.args(["--batch", "--nx", "--pid", pid]);
    for command in commands {
        gdb.args(["-ex", command]);
    }
    let output = gdb
        .env_remove("DEBUGINFOD_URLS")
        .output()
        .context("no gdb")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pid, thread] = arguments.as_slice() else {
        anyhow::bail!("usage: record-stack PID THREAD-NAME");
    };
    let select = format!(
        "python [t.switch() for t in gdb.selected_inferior().threads() if t.name == '{thread}']"
    );
    let mut commands = vec![select];
    commands.extend(
        REGISTERS.map(|register| format!("printf \"%s %p\\n\", \"{register}\", ${register}")),
    );
    commands.push(format!(
        "python f = gdb.newest_frame()\nwhile f:\n  if f.type() != gdb.INLINE_FRAME: print('frame', hex(f.pc()))\n  \
         gdb.execute('x/{WORDS}gx %d' % (int(f.read_register('rsp')) - 64))\n  f = f.older()"
    ));
    let text = gdb(pid, &commands)?;
    let mut values: HashMap<&str, u64> = HashMap::new();
    let (mut words, mut frames) = (BTreeMap::new(), Vec::new());
    for line in text.lines() {
        if let Some((address, row)) = line.split_once(":\t") {
            let address = address.split(' ').next().and_then(number);
            let address = address.context("a line of memory without its address")?;
            for (nth, word) in (0..).zip(row.split_whitespace().filter_map(number)) {
                words.insert(address + 8 * nth, word);
            }
        } else if let Some((name, value)) = line.split_once(' ')
            && let Some(value) = number(value)
        {
            if name == "frame" {
                frames.push(value);
            } else if REGISTERS.contains(&name) {
                values.insert(name, value);
            }
        }
    }
    ensure!(
        values.len() == REGISTERS.len() && !frames.is_empty(),
        "{text}"
    );
    println!("# {thread}");
    let shown: Vec<String> = REGISTERS
        .iter()
        .map(|name| format!("{:x}", values[name]))
        .collect();
    println!("registers {}", shown.join(" "));
    let mut end = None;
    for (address, word) in words {
        if end != Some(address) {
            print!("{}stack {address:x}", if end.is_some() { "\n" } else { "" });
        }
        print!(" {word:x}");
        end = Some(address + 8);
    }
    println!();
    let mut is_exact = true;
    for pc in frames {
        let rule = rule(pid, pc - u64::from(!is_exact))?;
        println!("frame {pc:x} {:x}", rule.0);
        is_exact = rule.kind() == Kind::SIGNAL;
    }
    Ok(())
}

/// The rule at an address of the process.
fn rule(pid: &str, address: u64) -> Result<Rule> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (start, end) = fields[0].split_once('-').context("a range")?;
        let (start, end) = (
            u64::from_str_radix(start, 16)?,
            u64::from_str_radix(end, 16)?,
        );
        if !(start..end).contains(&address) {
            continue;
        }
        let path = fields.get(5).context("no file there")?;
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
        let encoded = unwind_table::build(bytes.as_slice())?.encode();
        let offset = address - start + u64::from_str_radix(fields[2], 16)?;
        let table = TableFile::open(&encoded)?;
        return Ok(table.find(offset).unwrap_or(Rule::UNCOVERED));
    }
    anyhow::bail!("{address:#x} is mapped by nothing")
}
