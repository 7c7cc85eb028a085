use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::builder::{Builder, Labels, Line, LocationId, Meta};
use crate::example;

fn rows(tree: &Tree<'_, '_>) -> Vec<String> {
    let mut rows = Vec::new();
    let mut open = vec![0];
    while let Some(index) = open.pop() {
        let node = tree.node(index).unwrap();
        let indent = "  ".repeat(node.depth);
        rows.push(format!(
            "{indent}{} {} {}",
            tree.label(node),
            node.total,
            node.own
        ));
        open.extend(node.children.iter().rev());
    }
    rows
}

#[test]
fn stacks_share_their_callers() {
    let profile = example::profile();
    let frames = Frames::new(&profile);
    let tree = Tree::new(&frames, Grouping::default());
    assert_eq!(
        rows(&tree),
        [
            "all 12 0",
            "  main 11 0",
            "    work 9 0",
            "      inner<T> 9 6",
            "        do_syscall 3 3",
            "    0x7f00 [libfoo.so] 2 2",
            "  [unwind stopped: no_row] 1 0",
            "    main 1 1",
        ]
    );
}

#[test]
fn processes_are_a_level_and_can_be_picked() {
    let profile = example::profile();
    let frames = Frames::new(&profile);
    let by_process = Grouping { by_process: true };
    let tree = Tree::new(&frames, by_process);
    let top: Vec<_> = tree
        .root()
        .children
        .iter()
        .map(|child| {
            let node = tree.node(*child).unwrap();
            (node.name, node.total)
        })
        .collect();
    assert_eq!(
        top,
        [(NodeName::Process("app"), 11), (NodeName::Process("db"), 1)]
    );
    let tree = Tree::of(&frames, by_process, |sample| {
        sample.number("pid") == Some(12)
    });
    assert_eq!(
        rows(&tree),
        [
            "all 2 0",
            "  app 2 0",
            "    main 2 0",
            "      0x7f00 [libfoo.so] 2 2"
        ]
    );
    let tree = Tree::of(&frames, by_process, |_| false);
    assert_eq!(rows(&tree), ["all 0 0"]);
}

#[test]
fn equal_weights_stand_in_the_order_of_their_names() {
    let profile = example::foreign(&["c", "a", "b"]);
    let frames = Frames::new(&profile);
    let tree = Tree::new(&frames, Grouping::default());
    assert_eq!(
        rows(&tree),
        [
            "all 300 0",
            "  root 300 0",
            "    a 100 100",
            "    b 100 100",
            "    c 100 100"
        ]
    );
}

#[test]
fn a_hundred_thousand_stacks_make_a_tree() {
    let mut builder = Builder::new(Meta::default());
    let locations: Vec<LocationId> = (0..1000)
        .map(|index| {
            let function = builder.function(&format!("f{index}"), "", "");
            builder.location(None, index, &[Line { function, line: 0 }])
        })
        .collect();
    let mut state = 1u64;
    let mut next = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((state >> 33) % below) as usize
    };
    for _ in 0..100_000 {
        let shared = next(20);
        let leaf = (0..10).map(|_| next(1000)).collect::<Vec<_>>();
        let callers = (0..40).map(|depth| shared * 40 + depth);
        let stack: Vec<LocationId> = leaf
            .into_iter()
            .chain(callers)
            .map(|at| locations[at])
            .collect();
        builder.sample(&stack, &Labels::default(), 1);
    }
    let profile = builder.finish();
    let frames = Frames::new(&profile);
    let tree = Tree::new(&frames, Grouping::default());
    assert_eq!(tree.root().total, 100_000);
    assert_eq!(
        tree.nodes().iter().map(|node| node.own).sum::<i64>(),
        100_000
    );
}

proptest! {
    #[test]
    fn a_tree_counts_each_stack_at_each_of_its_prefixes(
        stacks in vec((vec(0usize..4, 0..6), 1i64..5), 0..30),
    ) {
        let mut builder = Builder::new(Meta::default());
        let mut expected: HashMap<Vec<usize>, (i64, i64)> = HashMap::from([(Vec::new(), (0, 0))]);
        for (stack, count) in &stacks {
            let mut ids: Vec<LocationId> = stack
                .iter()
                .map(|index| {
                    let function = builder.function(&format!("f{index}"), "", "");
                    builder.location(None, *index as u64, &[Line { function, line: 0 }])
                })
                .collect();
            ids.reverse();
            builder.sample(&ids, &Labels::default(), *count as u64);
            for depth in 0..=stack.len() {
                expected.entry(stack[..depth].to_vec()).or_default().0 += count;
            }
            expected.get_mut(stack).unwrap().1 += count;
        }
        let profile = builder.finish();
        let frames = Frames::new(&profile);
        let tree = Tree::new(&frames, Grouping::default());
        let found: HashMap<Vec<usize>, (i64, i64)> = tree
            .nodes()
            .iter()
            .map(|node| {
                let mut path = Vec::new();
                let mut at = node;
                while at.depth > 0 {
                    path.push(tree.label(at)[1..].parse().unwrap());
                    at = tree.node(at.parent).unwrap();
                }
                path.reverse();
                (path, (node.total, node.own))
            })
            .collect();
        prop_assert_eq!(found.len(), tree.nodes().len());
        prop_assert_eq!(found, expected);
    }
}
