//! A flame graph as one SVG file that needs nothing else: opened in a browser it zooms and searches, elsewhere it is a
//! picture. Callers stand above callees. Every name in it is foreign text and is escaped on its way in.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};

use crate::frames::{FrameKind, Frames};
use crate::text::printable;
use crate::tree::{Grouping, Node, NodeName, Tree};
use crate::units::{Unit, duration, percent};

/// The picture's width in pixels.
const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 10.0;
const ROW: f64 = 17.0;
/// Above the rows: title, search, what the pointer is on.
const HEAD: f64 = 54.0;
/// Below the rows: what was left out.
const FOOT: f64 = 30.0;
/// Boxes narrower than this are left out; nobody sees them, and they would be most of the file.
const NARROWEST: f64 = 0.1;
/// Width of a character of the 12 px font.
const CHARACTER: f64 = 7.2;
/// Rows drawn: below them lie recursions too deep to look at.
const MAX_DEPTH: usize = 2048;
const STYLE: &str = include_str!("svg/style.css");
const SCRIPT: &str = include_str!("svg/script.js");

/// Writes the flame graph, processes above their stacks where the profile names processes.
///
/// # Errors
/// Those of `output`.
pub fn write<W: Write>(frames: &Frames<'_>, title: &str, mut output: W) -> io::Result<()> {
    let by_process = frames
        .samples()
        .any(|sample| sample.label("comm").is_some());
    let tree = Tree::new(frames, Grouping { by_process });
    let picture = Picture::new(frames, &tree);
    picture.write(title, &mut output)?;
    output.flush()
}

struct Picture<'t, 'f, 'a> {
    tree: &'t Tree<'f, 'a>,
    unit: Unit<'a>,
    period: Option<i64>,
    /// Node and where it begins, in values from the left.
    boxes: Vec<(&'t Node<'a>, i64)>,
    depth: usize,
    left_out: usize,
}

impl<'t, 'f, 'a> Picture<'t, 'f, 'a> {
    fn new(frames: &'f Frames<'a>, tree: &'t Tree<'f, 'a>) -> Self {
        let mut picture = Self {
            tree,
            unit: Unit::new(frames.value().unit),
            period: frames
                .cpu_period()
                .filter(|_| frames.value().unit == "count"),
            boxes: Vec::new(),
            depth: 0,
            left_out: 0,
        };
        let mut open = vec![(tree.root(), 0i64)];
        while let Some((node, start)) = open.pop() {
            picture.depth = picture.depth.max(node.depth);
            picture.boxes.push((node, start));
            let mut start = start;
            for child in node.children.iter().filter_map(|child| tree.node(*child)) {
                // A negative value, as in a difference, has no width.
                if child.total <= 0
                    || picture.width(child.total) < NARROWEST
                    || child.depth > MAX_DEPTH
                {
                    picture.left_out += 1;
                    continue;
                }
                open.push((child, start));
                start = start.saturating_add(child.total);
            }
        }
        picture
    }

    fn width(&self, value: i64) -> f64 {
        (WIDTH - 2.0 * MARGIN) * value as f64 / self.tree.root().total.max(1) as f64
    }

    fn write(&self, title: &str, output: &mut impl Write) -> io::Result<()> {
        let height = HEAD + FOOT + ROW * (self.depth + 1) as f64;
        let right = WIDTH - MARGIN;
        let title = escape(title);
        let foot = height - MARGIN;
        write!(
            output,
            r##"<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<svg xmlns="http://www.w3.org/2000/svg" version="1.1" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" data-total="{total}" data-margin="{MARGIN}" data-character="{CHARACTER}">
<title>{title}</title>
<style>{STYLE}</style>
<script type="text/javascript"><![CDATA[
{SCRIPT}]]></script>
<rect class="background" x="0" y="0" width="100%" height="100%"/>
<text class="heading" x="{middle}" y="24" text-anchor="middle">{title}</text>
<text class="control" id="reset" x="{MARGIN}" y="24" visibility="hidden">Reset zoom</text>
<text class="control" id="search" x="{right}" y="24" text-anchor="end">Search</text>
<text class="note" id="details" x="{MARGIN}" y="44"> </text>
<text class="note" id="matched" x="{right}" y="44" text-anchor="end"> </text>
<text class="note" x="{MARGIN}" y="{foot}">{note}</text>
<g id="frames">
"##,
            total = self.tree.root().total,
            middle = WIDTH / 2.0,
            note = self.note(),
        )?;
        for (node, start) in &self.boxes {
            self.write_box(node, *start, output)?;
        }
        output.write_all(b"</g>\n</svg>\n")
    }

    fn note(&self) -> String {
        match self.left_out {
            0 => String::new(),
            1 => "1 box too narrow to see is left out.".to_owned(),
            count => format!("{count} boxes too narrow to see are left out, with all above them."),
        }
    }

    fn write_box(&self, node: &Node<'a>, start: i64, output: &mut impl Write) -> io::Result<()> {
        let (x, width) = (MARGIN + self.width(start), self.width(node.total));
        let y = HEAD + ROW * node.depth as f64;
        let label = self.tree.label(node);
        let mut about = format!("{}: {}", printable(label), self.unit.show(node.total));
        if let Some(period) = self.period {
            let time = duration(node.total.saturating_mul(period));
            // Writing to a String does not fail.
            let _ = write!(about, " samples, {time}");
        }
        let _ = write!(about, ", {}", percent(node.total, self.tree.root().total));
        let module = self
            .tree
            .function(node)
            .map_or("", |function| function.module());
        if !module.is_empty() {
            let _ = write!(about, " - {}", printable(module));
        }
        writeln!(
            output,
            r#"<g data-start="{start}" data-value="{value}"><title>{about}</title><rect class="{class}" x="{x:.2}" y="{y}" width="{width:.2}" height="{height}" fill-opacity="{shade:.2}"/><text x="{text_x:.2}" y="{text_y}" data-name="{name}">{shown}</text></g>"#,
            value = node.total,
            about = escape(&about),
            class = self.class(node),
            height = ROW - 1.0,
            shade = shade(label),
            text_x = x + 3.0,
            text_y = y + 12.0,
            name = escape(label),
            shown = escape(&fitting(label, width)),
        )
    }

    fn class(&self, node: &Node<'_>) -> &'static str {
        match node.name {
            NodeName::Root => "root",
            NodeName::Process(_) => "process",
            NodeName::Function(_) => self
                .tree
                .function(node)
                .map_or(FrameKind::Unnamed, |function| function.kind)
                .name(),
        }
    }
}

/// Neighbours are told apart by shades; a name has the same one everywhere.
fn shade(name: &str) -> f64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    0.65 + 0.35 * (hasher.finish() % 64) as f64 / 63.0
}

/// As much of the name as the box has room for; the script does the same after each zoom.
fn fitting(name: &str, width: f64) -> String {
    let room = ((width - 6.0) / CHARACTER).max(0.0) as usize;
    if name.chars().nth(room).is_none() {
        return name.to_owned();
    }
    if room < 3 {
        return String::new();
    }
    let kept: String = name.chars().take(room - 2).collect();
    kept + ".."
}

/// Text as XML character data or attribute value. Characters that XML 1.0 (section 2.2) has no place for become U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            character if character.is_control() => escaped.push('\u{fffd}'),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
