//! What a thread's stack must look like: the functions of the workloads, from the thread's root on. Knows nothing of how
//! a profile is read.

/// `count` frames of `function`, one below the other.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub function: &'static str,
    pub count: usize,
}

/// How the thread's stacks end at the root side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Every stack reaches the thread's root.
    AtRoot,
    /// Too deep for any limit: the stack may be cut, and must then say so.
    MayBeCut,
}

/// The known stacks of one thread.
#[derive(Debug, Clone)]
pub struct Chain {
    /// The thread's name; for programs whose goroutines wander between threads, empty: the process decides.
    pub thread: &'static str,
    /// Root first. A sample's workload functions must be the beginning of one of them: the leaf may be anywhere.
    pub paths: Vec<Vec<Step>>,
    /// Whether stacks without any workload function are right as well (a child between fork and exec, process start).
    pub outside: bool,
    pub ends: Ends,
}

/// What was wrong with a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The stack is the beginning of path `path`; `whole` when it goes down to the path's last function.
    Right {
        path: usize,
        whole: bool,
    },
    /// Right, and without any function of the workload.
    Outside,
    Wrong,
}

impl Chain {
    /// A chain with one path, one frame for each function, that ends at its root.
    #[must_use]
    pub fn of(thread: &'static str, functions: &[&'static str]) -> Self {
        Self {
            thread,
            paths: vec![path(functions)],
            outside: false,
            ends: Ends::AtRoot,
        }
    }

    /// Adds another path that is as right as the first.
    #[must_use]
    pub fn or(mut self, functions: &[&'static str]) -> Self {
        self.paths.push(path(functions));
        self
    }

    /// Repeats `function` `count` times wherever it stands.
    #[must_use]
    pub fn repeated(mut self, function: &str, count: usize) -> Self {
        for step in self
            .paths
            .iter_mut()
            .flatten()
            .filter(|step| step.function == function)
        {
            step.count = count;
        }
        self
    }

    /// Stacks without any workload function are right too.
    #[must_use]
    pub fn outside_too(mut self) -> Self {
        self.outside = true;
        self
    }

    /// The stack may be deeper than what is recorded.
    #[must_use]
    pub fn may_be_cut(mut self) -> Self {
        self.ends = Ends::MayBeCut;
        self
    }

    /// Judges the workload functions of one complete stack, root first (see [`workload_function`]).
    #[must_use]
    pub fn judge(&self, functions: &[&str]) -> Verdict {
        if functions.is_empty() {
            return if self.outside {
                Verdict::Outside
            } else {
                Verdict::Wrong
            };
        }
        for (index, path) in self.paths.iter().enumerate() {
            let expanded: Vec<&str> = path
                .iter()
                .flat_map(|step| std::iter::repeat_n(step.function, step.count))
                .collect();
            if expanded.starts_with(functions) {
                return Verdict::Right {
                    path: index,
                    whole: expanded.len() == functions.len(),
                };
            }
        }
        Verdict::Wrong
    }

    /// Judges a stack that was cut at the root side: what is left must still be the leaf end of a path.
    #[must_use]
    pub fn judge_cut(&self, functions: &[&str]) -> Verdict {
        for (index, path) in self.paths.iter().enumerate() {
            let expanded: Vec<&str> = path
                .iter()
                .flat_map(|step| std::iter::repeat_n(step.function, step.count))
                .collect();
            if self.ends == Ends::MayBeCut && expanded.ends_with(functions) {
                return Verdict::Right {
                    path: index,
                    whole: true,
                };
            }
        }
        Verdict::Wrong
    }
}

fn path(functions: &[&'static str]) -> Vec<Step> {
    functions
        .iter()
        .map(|&function| Step { function, count: 1 })
        .collect()
}

/// The workload's own name in a (demangled) function name: the identifier that begins with `w_`, without namespaces,
/// type arguments, parameters and suffixes. `None` for all other functions, and for a PLT entry, which is nobody's frame.
#[must_use]
pub fn workload_function(name: &str) -> Option<&str> {
    let is_identifier = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = name.as_bytes();
    let start = (0..bytes.len()).find(|&at| {
        bytes[at..].starts_with(b"w_")
            && !at
                .checked_sub(1)
                .is_some_and(|before| is_identifier(bytes[before]))
    })?;
    let rest = &name[start..];
    let end = rest
        .bytes()
        .position(|byte| !is_identifier(byte))
        .unwrap_or(rest.len());
    let (own, suffix) = rest.split_at(end);
    if suffix.starts_with("@plt") {
        None
    } else {
        Some(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workloads_name_is_found_in_every_languages_spelling() {
        for (name, expected) in [
            ("w_spin", Some("w_spin")),
            ("w_plt_leaf@plt", None),
            ("w_recurse.constprop.0", Some("w_recurse")),
            (
                "leadsman::workload::Climber<0>::w_climb(std::vector<int, std::allocator<int> > const&)",
                Some("w_climb"),
            ),
            (
                "<chains::Walker as chains::Step>::w_step::hea4f7b78c16ce4a4",
                Some("w_step"),
            ),
            ("main.w_go_plain", Some("w_go_plain")),
            ("show_list", None),
            ("start_thread", None),
            ("", None),
        ] {
            assert_eq!(workload_function(name), expected, "{name}");
        }
    }

    #[test]
    fn a_chain_accepts_its_beginnings_and_nothing_else() {
        let chain = Chain::of("t", &["w_a", "w_b", "w_c"])
            .repeated("w_b", 2)
            .or(&["w_x"]);
        assert_eq!(
            chain.judge(&["w_a", "w_b"]),
            Verdict::Right {
                path: 0,
                whole: false
            }
        );
        assert_eq!(
            chain.judge(&["w_a", "w_b", "w_b", "w_c"]),
            Verdict::Right {
                path: 0,
                whole: true
            }
        );
        assert_eq!(
            chain.judge(&["w_x"]),
            Verdict::Right {
                path: 1,
                whole: true
            }
        );
        assert_eq!(
            chain.judge(&["w_a", "w_b", "w_c"]),
            Verdict::Wrong,
            "one frame is missing"
        );
        assert_eq!(
            chain.judge(&["w_b", "w_b", "w_c"]),
            Verdict::Wrong,
            "the root is missing"
        );
        assert_eq!(chain.judge(&[]), Verdict::Wrong);
        assert_eq!(chain.outside_too().judge(&[]), Verdict::Outside);
    }

    #[test]
    fn a_cut_stack_is_judged_from_its_leaf() {
        let chain = Chain::of("t", &["w_main", "w_r", "w_leaf"]).repeated("w_r", 9);
        assert_eq!(
            chain.judge_cut(&["w_r", "w_r", "w_leaf"]),
            Verdict::Wrong,
            "not a chain that may be cut"
        );
        let chain = chain.may_be_cut();
        assert_eq!(
            chain.judge_cut(&["w_r", "w_r", "w_leaf"]),
            Verdict::Right {
                path: 0,
                whole: true
            }
        );
        assert_eq!(chain.judge_cut(&["w_r", "w_x", "w_leaf"]), Verdict::Wrong);
    }
}
