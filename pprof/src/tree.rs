//! The call tree of a profile's stacks: what a flame graph draws. Decides no colour, width or order of drawing.

use std::collections::HashMap;

use crate::frames::{Frame, Frames, Function, FunctionIndex, Sample};

/// What a node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeName<'a> {
    /// All stacks.
    Root,
    /// The stacks of all processes of this name (label `comm`; "" without one).
    Process(&'a str),
    /// A function as called by its parents.
    Function(FunctionIndex),
}

/// A caller and what it called.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    /// What it stands for.
    pub name: NodeName<'a>,
    /// Value of the stacks that end here.
    pub own: i64,
    /// Value of the stacks that go through here.
    pub total: i64,
    /// The node above; the root's is itself.
    pub parent: usize,
    /// Levels above it.
    pub depth: usize,
    /// The nodes below, as indexes for [`Tree::node`]: heaviest first, then by name.
    pub children: Vec<usize>,
}

/// A call tree; node 0 is the root.
#[derive(Debug)]
pub struct Tree<'f, 'a> {
    frames: &'f Frames<'a>,
    nodes: Vec<Node<'a>>,
}

/// What to leave out of a tree and what to add.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grouping {
    /// Puts a level of processes, by name, between the root and the stacks.
    pub by_process: bool,
}

impl<'f, 'a> Tree<'f, 'a> {
    /// The tree of all samples.
    #[must_use]
    pub fn new(frames: &'f Frames<'a>, grouping: Grouping) -> Self {
        Self::of(frames, grouping, |_| true)
    }

    /// The tree of the samples that `select` picks, for instance those of one process:
    /// `|sample| sample.number("pid") == Some(1)`.
    #[must_use]
    pub fn of(
        frames: &'f Frames<'a>,
        grouping: Grouping,
        mut select: impl FnMut(&Sample<'f, 'a>) -> bool,
    ) -> Self {
        let mut growing = Growing::new();
        for sample in frames.samples() {
            if select(&sample) {
                let process = grouping.by_process.then(|| sample.owner().comm);
                let stack = sample.stack().rev().map(|frame: &Frame<'_>| frame.function);
                growing.add(process, stack, sample.value());
            }
        }
        let mut tree = Self {
            frames,
            nodes: growing.nodes,
        };
        tree.sort_children();
        tree
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> &Node<'a> {
        // A tree is made with its root.
        &self.nodes[0]
    }

    /// One of its nodes.
    #[must_use]
    pub fn node(&self, index: usize) -> Option<&Node<'a>> {
        self.nodes.get(index)
    }

    /// All nodes, callers before callees.
    #[must_use]
    pub fn nodes(&self) -> &[Node<'a>] {
        &self.nodes
    }

    /// The node's function, unless it stands for something else.
    #[must_use]
    pub fn function(&self, node: &Node<'a>) -> Option<&'f Function<'a>> {
        match node.name {
            NodeName::Function(index) => self.frames.function(index),
            NodeName::Root | NodeName::Process(_) => None,
        }
    }

    /// The node's name as text; foreign text for functions and processes.
    #[must_use]
    pub fn label(&self, node: &Node<'a>) -> &str {
        match node.name {
            NodeName::Root => "all",
            NodeName::Process("") => "[no name]",
            NodeName::Process(comm) => comm,
            NodeName::Function(index) => self
                .frames
                .function(index)
                .map_or("", |function| function.name.as_ref()),
        }
    }

    fn sort_children(&mut self) {
        for index in 0..self.nodes.len() {
            let mut children = std::mem::take(&mut self.nodes[index].children);
            children.sort_by(|left, right| {
                let (left, right) = (&self.nodes[*left], &self.nodes[*right]);
                right
                    .total
                    .cmp(&left.total)
                    .then_with(|| self.label(left).cmp(self.label(right)))
            });
            self.nodes[index].children = children;
        }
    }
}

/// A tree while stacks are added.
struct Growing<'a> {
    nodes: Vec<Node<'a>>,
    children: HashMap<(usize, NodeName<'a>), usize>,
    /// The nodes of the stack before: neighbours in a profile share most of their callers.
    path: Vec<usize>,
}

impl<'a> Growing<'a> {
    fn new() -> Self {
        Self {
            nodes: vec![Node {
                name: NodeName::Root,
                own: 0,
                total: 0,
                parent: 0,
                depth: 0,
                children: Vec::new(),
            }],
            children: HashMap::new(),
            path: Vec::new(),
        }
    }

    /// Adds a stack, root first.
    fn add(
        &mut self,
        process: Option<&'a str>,
        stack: impl Iterator<Item = FunctionIndex>,
        value: i64,
    ) {
        let mut at = 0;
        let mut depth = 0;
        let mut same = true;
        self.weigh(at, value);
        let process = process.map(NodeName::Process);
        for name in process.into_iter().chain(stack.map(NodeName::Function)) {
            let before = self.path.get(depth).copied().filter(|_| same);
            at = match before {
                Some(node) if self.nodes[node].name == name => node,
                _ => {
                    same = false;
                    self.path.truncate(depth);
                    let child = self.child(at, name);
                    self.path.push(child);
                    child
                }
            };
            depth += 1;
            self.weigh(at, value);
        }
        self.path.truncate(depth);
        let own = &mut self.nodes[at].own;
        *own = own.saturating_add(value);
    }

    fn weigh(&mut self, node: usize, value: i64) {
        let total = &mut self.nodes[node].total;
        *total = total.saturating_add(value);
    }

    fn child(&mut self, parent: usize, name: NodeName<'a>) -> usize {
        let next = self.nodes.len();
        let child = *self.children.entry((parent, name)).or_insert(next);
        if child == next {
            let depth = self.nodes[parent].depth + 1;
            self.nodes[parent].children.push(next);
            self.nodes.push(Node {
                name,
                own: 0,
                total: 0,
                parent,
                depth,
                children: Vec::new(),
            });
        }
        child
    }
}

#[cfg(test)]
mod tests;
