//! A YAML document as a tree that knows where each node stands. Bounded in bytes, nodes and depth, aliases counted as
//! what they stand for.

use std::collections::HashMap;
use std::fmt;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Bytes of a document.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Nodes of a document, those behind aliases included.
const MAX_NODES: usize = 100_000;
/// Nodes within nodes.
const MAX_DEPTH: usize = 32;

/// Where something stands; both count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.line, self.column)
    }
}

/// A node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Text; `plain`: without quotes, so that it may be a number or nothing.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Node>),
    /// Keys and values in their order.
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    /// Whether it is nothing.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What it is, for messages.
    pub(crate) fn what(&self) -> &'static str {
        match self.value {
            Value::Scalar { .. } => "a value",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    fn nodes(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::Sequence(items) => items.iter().map(Self::nodes).sum(),
            Value::Mapping(entries) => entries
                .iter()
                .map(|(key, value)| key.nodes() + value.nodes())
                .sum(),
        }
    }
}

/// A collection that is not finished.
struct Open {
    node: Node,
    anchor: usize,
    key: Option<Node>,
}

/// Reads the one document of `text`; `None`: it is empty.
///
/// # Errors
/// It is no YAML, or too much of it.
pub(crate) fn read(text: &str) -> Result<Option<Node>, (Place, String)> {
    if text.len() > MAX_BYTES {
        let error = format!("the file is larger than {MAX_BYTES} bytes");
        return Err((Place { line: 1, column: 1 }, error));
    }
    let mut parser = Parser::new_from_str(text);
    let mut anchors: HashMap<usize, Node> = HashMap::new();
    let mut open: Vec<Open> = Vec::new();
    let (mut root, mut documents, mut nodes) = (None, 0, 0usize);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let mark = error.marker();
            (place(mark.line(), mark.col()), error.info().to_owned())
        })?;
        let here = at(&span);
        let finished = match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err((here, "a second document: keep one".to_owned()));
                }
                continue;
            }
            Event::Scalar(text, style, anchor, _tag) => {
                let node = Node {
                    place: here,
                    value: Value::Scalar {
                        text: text.into_owned(),
                        plain: style == ScalarStyle::Plain,
                    },
                };
                nodes += 1;
                remember(&mut anchors, anchor, &node);
                Some(node)
            }
            Event::SequenceStart(anchor, _) => {
                begin(&mut open, here, Value::Sequence(Vec::new()), anchor)?;
                nodes += 1;
                None
            }
            Event::MappingStart(anchor, _) => {
                begin(&mut open, here, Value::Mapping(Vec::new()), anchor)?;
                nodes += 1;
                None
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop().map(|done| {
                let node = merged(done.node);
                remember(&mut anchors, done.anchor, &node);
                node
            }),
            Event::Alias(anchor) => {
                let Some(node) = anchors.get(&anchor) else {
                    return Err((here, "an alias of what has no end yet".to_owned()));
                };
                nodes += node.nodes();
                if nodes > MAX_NODES {
                    return Err((here, format!("more than {MAX_NODES} nodes")));
                }
                Some(Node {
                    place: here,
                    value: node.value.clone(),
                })
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => continue,
        };
        if nodes > MAX_NODES {
            return Err((here, format!("more than {MAX_NODES} nodes")));
        }
        if let Some(node) = finished {
            match open.last_mut() {
                Some(parent) => parent.take(node),
                None => root = Some(node),
            }
        }
    }
    Ok(root.filter(|root: &Node| !root.is_null()))
}

impl Open {
    fn take(&mut self, node: Node) {
        match &mut self.node.value {
            Value::Sequence(items) => items.push(node),
            Value::Mapping(entries) => match self.key.take() {
                Some(key) => entries.push((key, node)),
                None => self.key = Some(node),
            },
            Value::Scalar { .. } => {}
        }
    }
}

fn begin(
    open: &mut Vec<Open>,
    place: Place,
    value: Value,
    anchor: usize,
) -> Result<(), (Place, String)> {
    if open.len() >= MAX_DEPTH {
        return Err((place, format!("nested more than {MAX_DEPTH} deep")));
    }
    open.push(Open {
        node: Node { place, value },
        anchor,
        key: None,
    });
    Ok(())
}

fn remember(anchors: &mut HashMap<usize, Node>, anchor: usize, node: &Node) {
    // 0: no anchor.
    if anchor != 0 {
        anchors.insert(anchor, node.clone());
    }
}

/// Resolves YAML 1.1's merge key `<<`: keys of the mappings it names, unless they are set beside it.
fn merged(node: Node) -> Node {
    let Value::Mapping(entries) = node.value else {
        return node;
    };
    let is_merge =
        |key: &Node| matches!(&key.value, Value::Scalar { text, plain: true } if text == "<<");
    let (merges, mut own): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|(key, _)| is_merge(key));
    let text = |key: &Node| match &key.value {
        Value::Scalar { text, .. } => Some(text.clone()),
        _ => None,
    };
    for (key, value) in merges {
        let sources = match value.value {
            Value::Sequence(items) => items,
            other => vec![Node {
                place: value.place,
                value: other,
            }],
        };
        for source in sources {
            let Value::Mapping(inherited) = source.value else {
                // Kept, so that it is refused by its name.
                own.push((key.clone(), source));
                continue;
            };
            for (key, value) in inherited {
                if !own.iter().any(|(known, _)| text(known) == text(&key)) {
                    own.push((key, value));
                }
            }
        }
    }
    Node {
        place: node.place,
        value: Value::Mapping(own),
    }
}

fn at(span: &Span) -> Place {
    place(span.start.line(), span.start.col())
}

fn place(line: usize, column: usize) -> Place {
    Place {
        line: line.max(1),
        column: column + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_billion_laughs_end_early() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let before = level - 1;
            text += &format!(
                "a{level}: &a{level} [{}]\n",
                vec![format!("*a{before}"); 9].join(", ")
            );
        }
        let (_, error) = read(&text).unwrap_err();
        assert!(error.contains("nodes"), "{error}");
    }

    #[test]
    fn depth_and_size_are_bounded() {
        assert!(read(&"[".repeat(100)).unwrap_err().1.contains("deep"));
        assert!(
            read(&" ".repeat(MAX_BYTES + 1))
                .unwrap_err()
                .1
                .contains("larger")
        );
        assert!(read("a: 1\n---\nb: 2\n").unwrap_err().1.contains("second"));
        assert!(read("").unwrap().is_none() && read("# nothing\n").unwrap().is_none());
    }

    #[test]
    fn merges_do_not_override() {
        let root = read("base: &b {x: 1, y: 2}\nuse: {<<: *b, x: 3}\n")
            .unwrap()
            .unwrap();
        let Value::Mapping(entries) = root.value else {
            panic!()
        };
        let Value::Mapping(merged) = &entries[1].1.value else {
            panic!()
        };
        assert_eq!(merged.len(), 2);
        assert!(matches!(&merged[0].1.value, Value::Scalar { text, .. } if text == "3"));
    }
}
