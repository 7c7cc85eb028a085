//! Call trees: the stacks of some windows merged by equal callers, cut to what can be seen. Never drops weight silently: what
//! isn't sent is counted.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::rc::Rc;

use serde::Serialize;

use crate::profile::{Frame, FrameKind, Profile};
use crate::selector::Selector;

/// Nodes of a tree while it is built: about 60 bytes each.
const MAX_NODES: usize = 250_000;
/// Nodes of a tree that is sent: more rectangles than a large screen can show.
const MAX_SENT: usize = 30_000;
/// Numbers for each node in [`View::nodes`].
const NUMBERS: usize = 4;

#[derive(Debug)]
struct Node {
    parent: u32,
    frame: u32,
    total: u64,
    own: u64,
}

/// Merges stacks.
#[derive(Debug)]
pub(crate) struct TreeBuilder {
    frames: Vec<Frame>,
    frame_numbers: HashMap<Frame, u32>,
    nodes: Vec<Node>,
    children: HashMap<(u32, u32), u32>,
    /// Samples whose stack ends early because [`MAX_NODES`] was reached.
    shortened: u64,
}

/// A frame as the page takes it: name, [`FrameKind`] number, module, source file.
type SentFrame = (Rc<str>, u8, Rc<str>, Rc<str>);

/// A call tree as the page takes it.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct View {
    /// All samples.
    pub(crate) total: u64,
    /// Distinct frames.
    pub(crate) frames: Vec<SentFrame>,
    /// Four numbers a node, callers before callees, siblings by falling weight: depth, frame, samples with callees, samples
    /// of its own.
    pub(crate) nodes: Vec<u64>,
    /// Nodes too small to be sent.
    pub(crate) hidden_nodes: usize,
    /// A node with fewer samples was not sent.
    pub(crate) least: u64,
    /// Samples whose stack was cut because the tree would have become too large.
    pub(crate) shortened: u64,
}

impl TreeBuilder {
    /// A tree of nothing.
    pub(crate) fn new() -> Self {
        let mut builder = Self {
            frames: Vec::new(),
            frame_numbers: HashMap::new(),
            nodes: Vec::new(),
            children: HashMap::new(),
            shortened: 0,
        };
        let root = builder.pseudo("all", FrameKind::Root);
        builder.nodes.push(Node {
            parent: 0,
            frame: root,
            total: 0,
            own: 0,
        });
        builder
    }

    /// Adds the samples of a window that the selector takes, below their process and, if asked for, thread.
    pub(crate) fn add(&mut self, profile: &Profile, selector: &Selector, threads: bool) {
        // Label sets are few, stacks are many: decide and look up once for each set.
        let tops: Vec<Option<Vec<u32>>> = profile
            .label_sets()
            .iter()
            .map(|labels| {
                selector.takes(|name| labels.value_of(name)).then(|| {
                    let name = |label: &str| labels.get(label).map_or("?", |name| name);
                    let mut top = vec![self.pseudo(name("comm"), FrameKind::Process)];
                    if threads {
                        top.push(self.pseudo(name("thread_name"), FrameKind::Thread));
                    }
                    top
                })
            })
            .collect();
        let mut numbers: Vec<Option<u32>> = vec![None; profile.frame_count()];
        for sample in profile.samples() {
            let Some(top) = tops.get(sample.label_set).and_then(Option::as_ref) else {
                continue;
            };
            let mut node = self.enter(0, sample.count);
            let mut whole = true;
            for frame in top {
                node = self.descend(node, *frame, sample.count, &mut whole);
            }
            for index in sample.stack {
                let Some(slot) = numbers.get_mut(*index as usize) else {
                    continue;
                };
                let frame = match (*slot, profile.frame(*index)) {
                    (Some(number), _) => number,
                    (None, Some(frame)) => {
                        let number = self.frame_number(frame);
                        *slot = Some(number);
                        number
                    }
                    (None, None) => continue,
                };
                node = self.descend(node, frame, sample.count, &mut whole);
            }
            if let Some(node) = self.nodes.get_mut(node as usize) {
                node.own += sample.count;
            }
            if !whole {
                self.shortened += sample.count;
            }
        }
    }

    fn enter(&mut self, node: u32, count: u64) -> u32 {
        if let Some(node) = self.nodes.get_mut(node as usize) {
            node.total += count;
        }
        node
    }

    /// The child of `node` for `frame`; `node` itself once the tree is full.
    fn descend(&mut self, node: u32, frame: u32, count: u64, whole: &mut bool) -> u32 {
        if !*whole {
            return node;
        }
        if let Some(child) = self.children.get(&(node, frame)) {
            return self.enter(*child, count);
        }
        if self.nodes.len() >= MAX_NODES {
            *whole = false;
            return node;
        }
        let child = self.nodes.len() as u32;
        self.nodes.push(Node {
            parent: node,
            frame,
            total: count,
            own: 0,
        });
        self.children.insert((node, frame), child);
        child
    }

    fn pseudo(&mut self, name: &str, kind: FrameKind) -> u32 {
        let nothing: Rc<str> = "".into();
        self.frame_number(&Frame {
            name: name.into(),
            kind,
            module: Rc::clone(&nothing),
            file: nothing,
        })
    }

    fn frame_number(&mut self, frame: &Frame) -> u32 {
        if let Some(number) = self.frame_numbers.get(frame) {
            return *number;
        }
        let number = self.frames.len() as u32;
        self.frames.push(frame.clone());
        self.frame_numbers.insert(frame.clone(), number);
        number
    }

    /// The tree, without nodes below the weight at which it would have more than a screen can show.
    pub(crate) fn finish(self) -> View {
        self.cut_to(MAX_SENT)
    }

    fn cut_to(self, most: usize) -> View {
        let least = least_weight(&self.nodes, most);
        // A callee never outweighs its caller, so what stays is a tree.
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        let mut hidden_nodes = 0;
        for (index, node) in self.nodes.iter().enumerate().skip(1) {
            if node.total < least {
                hidden_nodes += 1;
            } else {
                children.entry(node.parent).or_default().push(index as u32);
            }
        }
        let mut sent_frames = FrameTable::new(self.frames.len());
        let mut nodes = Vec::new();
        let mut path: Vec<(u32, u64)> = vec![(0, 0)];
        while let Some((index, depth)) = path.pop() {
            let Some(node) = self.nodes.get(index as usize) else {
                continue;
            };
            let frame = sent_frames.number(node.frame, &self.frames);
            nodes.extend_from_slice(&[depth, frame, node.total, node.own]);
            let Some(mut siblings) = children.remove(&index) else {
                continue;
            };
            // Pushed lightest first, so that the heaviest is taken first.
            siblings.sort_by(|left, right| {
                let key = |index: &u32| {
                    let node = self.nodes.get(*index as usize);
                    let frame = node.and_then(|node| self.frames.get(node.frame as usize));
                    (node.map_or(0, |node| node.total), Reverse(frame))
                };
                key(left).cmp(&key(right))
            });
            path.extend(siblings.into_iter().map(|child| (child, depth + 1)));
        }
        View {
            total: self.nodes.first().map_or(0, |root| root.total),
            frames: sent_frames.frames,
            nodes,
            hidden_nodes,
            least,
            shortened: self.shortened,
        }
    }
}

/// The weight from which at most `most` nodes are.
fn least_weight(nodes: &[Node], most: usize) -> u64 {
    if nodes.len() <= most {
        return 1;
    }
    let mut weights: Vec<u64> = nodes.iter().map(|node| node.total).collect();
    let (_, first_left_out, _) = weights.select_nth_unstable_by(most, |a, b| b.cmp(a));
    first_left_out.saturating_add(1)
}

/// Renumbers the frames that are sent.
struct FrameTable {
    numbers: Vec<Option<u64>>,
    frames: Vec<SentFrame>,
}

impl FrameTable {
    fn new(count: usize) -> Self {
        Self {
            numbers: vec![None; count],
            frames: Vec::new(),
        }
    }

    fn number(&mut self, frame: u32, frames: &[Frame]) -> u64 {
        let (Some(slot), Some(frame)) = (
            self.numbers.get_mut(frame as usize),
            frames.get(frame as usize),
        ) else {
            return 0;
        };
        *slot.get_or_insert_with(|| {
            self.frames.push((
                Rc::clone(&frame.name),
                frame.kind as u8,
                Rc::clone(&frame.module),
                Rc::clone(&frame.file),
            ));
            (self.frames.len() - 1) as u64
        })
    }
}

impl View {
    /// The nodes as depth, name, samples with callees, samples of their own.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (u64, &str, u64, u64)> {
        self.nodes
            .chunks_exact(NUMBERS)
            .filter_map(|node| match node {
                [depth, frame, total, own] => {
                    let name = &self.frames.get(usize::try_from(*frame).ok()?)?.0;
                    Some((*depth, name.as_ref(), *total, *own))
                }
                _ => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::tests::profile;
    use proptest::prelude::*;

    fn rows(view: &View) -> Vec<(u64, String, u64, u64)> {
        view.rows()
            .map(|(depth, name, total, own)| (depth, name.to_owned(), total, own))
            .collect()
    }

    fn row(depth: u64, name: &str, total: u64, own: u64) -> (u64, String, u64, u64) {
        (depth, name.to_owned(), total, own)
    }

    #[test]
    fn stacks_are_merged_by_equal_callers() {
        let window = profile(&[
            (1, "app", "main", &["main", "work", "k:read"], 3),
            (1, "app", "io", &["main", "work"], 4),
            (2, "app", "main", &["main", "idle"], 2),
            (3, "db", "db", &["main"], 1),
        ]);
        let mut tree = TreeBuilder::new();
        tree.add(&window, &Selector::default(), false);
        tree.add(&window, &Selector::equal("comm", "db"), false);
        let view = tree.finish();
        assert_eq!(
            rows(&view),
            [
                row(0, "all", 11, 0),
                row(1, "app", 9, 0),
                row(2, "main", 9, 0),
                row(3, "work", 7, 4),
                row(4, "read", 3, 3),
                row(3, "idle", 2, 2),
                row(1, "db", 2, 0),
                row(2, "main", 2, 2),
            ]
        );
        assert_eq!((view.total, view.hidden_nodes, view.shortened), (11, 0, 0));
    }

    #[test]
    fn threads_can_be_a_level() {
        let window = profile(&[
            (1, "app", "main", &["run"], 3),
            (1, "app", "io", &["run"], 4),
        ]);
        let mut tree = TreeBuilder::new();
        tree.add(&window, &Selector::equal("pid", "1"), true);
        assert_eq!(
            rows(&tree.finish()),
            [
                row(0, "all", 7, 0),
                row(1, "app", 7, 0),
                row(2, "io", 4, 0),
                row(3, "run", 4, 4),
                row(2, "main", 3, 0),
                row(3, "run", 3, 3),
            ]
        );
    }

    #[test]
    fn nothing_is_a_tree_too() {
        let view = TreeBuilder::new().finish();
        assert_eq!(rows(&view), [row(0, "all", 0, 0)]);
    }

    #[test]
    fn equal_weights_are_in_the_order_of_their_names() {
        let window = profile(&[(1, "b", "", &["x"], 2), (2, "a", "", &["x"], 2)]);
        let mut tree = TreeBuilder::new();
        tree.add(&window, &Selector::default(), false);
        let view = tree.finish();
        let processes: Vec<_> = view
            .rows()
            .filter(|row| row.0 == 1)
            .map(|row| row.1)
            .collect();
        assert_eq!(processes, ["a", "b"]);
    }

    proptest! {
        #[test]
        fn a_cut_tree_keeps_its_weight_and_counts_what_it_hides(
            stacks in proptest::collection::vec((proptest::collection::vec(0usize..4, 1..8), 1u64..9), 1..40),
            most in 1usize..40,
        ) {
            const NAMES: [&str; 4] = ["f", "g", "h", "i"];
            let stacks: Vec<(Vec<&str>, u64)> = stacks
                .iter()
                .map(|(stack, count)| (stack.iter().map(|name| NAMES[*name]).collect(), *count))
                .collect();
            let samples: Vec<(u32, &str, &str, &[&str], u64)> = stacks
                .iter()
                .map(|(stack, count)| (1, "app", "app", stack.as_slice(), *count))
                .collect();
            let window = profile(&samples);
            let build = || {
                let mut tree = TreeBuilder::new();
                tree.add(&window, &Selector::default(), false);
                tree
            };
            let whole = build().cut_to(usize::MAX);
            let cut = build().cut_to(most);
            let weight: u64 = stacks.iter().map(|(_, count)| count).sum();
            prop_assert_eq!(whole.total, weight);
            prop_assert_eq!(cut.total, weight);
            prop_assert_eq!(whole.rows().map(|row| row.3).sum::<u64>(), weight);
            let sent = cut.rows().count();
            prop_assert!(sent <= most.max(1));
            prop_assert_eq!(sent + cut.hidden_nodes, whole.rows().count());
            // Each node stands directly below one that is at least as heavy.
            let mut path: Vec<u64> = Vec::new();
            for (depth, _, total, own) in cut.rows() {
                let depth = usize::try_from(depth).unwrap();
                prop_assert!(depth <= path.len());
                path.truncate(depth);
                prop_assert!(path.last().is_none_or(|caller| *caller >= total));
                prop_assert!(own <= total);
                path.push(total);
            }
        }
    }
}
