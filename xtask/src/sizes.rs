//! How much code there is: privileged code and single files stay small. Counts lines with comments, without tests.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::tool::{self, root};

/// Lines of the sampler after its start, and of the opener.
const PRIVILEGED_LINES: usize = 5_000;
/// What the sampler runs only before its lockdown, before it has seen a foreign byte.
const START_ONLY: [&str; 4] = [
    "sampler/src/bpf/btf.rs",
    "sampler/src/bpf/load.rs",
    "sampler/src/config.rs",
    "sampler/src/startup.rs",
];
/// Lines that a file should have at most, and those it may not exceed.
const FILE_SHOULD: usize = 600;
const FILE_MUST: usize = 800;

/// Fails when privileged code or a file is too long.
pub(crate) fn check() -> Result<()> {
    let mut wrong = Vec::new();
    let (mut privileged, mut at_start) = (0, 0);
    for path in sources()? {
        let text = std::fs::read_to_string(root().join(&path))
            .with_context(|| format!("cannot read {}", path.display()))?;
        let lines = lines_without_tests(&text);
        let start_only = START_ONLY
            .iter()
            .any(|file| path.as_path() == Path::new(file));
        if start_only {
            at_start += lines;
        } else if path.starts_with("sampler/src") || path.starts_with("opener/src") {
            privileged += lines;
        }
        if lines > FILE_SHOULD {
            println!("{}: {lines} lines, more than {FILE_SHOULD}", path.display());
        }
        if lines > FILE_MUST {
            wrong.push(format!(
                "{} has more than {FILE_MUST} lines",
                path.display()
            ));
        }
    }
    println!(
        "sampler after its start and opener: {privileged} lines (at most {PRIVILEGED_LINES}); the start: {at_start}"
    );
    if privileged > PRIVILEGED_LINES {
        wrong.push(format!(
            "sampler and opener have {privileged} lines, more than {PRIVILEGED_LINES}"
        ));
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok(())
}

/// Rust files that git knows of or would take, but for tests and generated code.
fn sources() -> Result<Vec<PathBuf>> {
    let listed = tool::output(tool::command("git").args([
        // A checkout that somebody else owns is as good.
        "-c",
        "safe.directory=*",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        "*.rs",
    ]))?;
    let paths = listed.lines().map(PathBuf::from);
    Ok(paths
        .filter(|path| !is_exempt(path) && root().join(path).is_file())
        .collect())
}

fn is_exempt(path: &Path) -> bool {
    path.components().any(|part| {
        ["tests", "tests.rs", "generated"]
            .iter()
            .any(|name| part.as_os_str() == *name)
    })
}

/// Test modules stand at a file's end.
fn lines_without_tests(text: &str) -> usize {
    let mut lines = text.lines().peekable();
    let mut count = 0;
    while let Some(line) = lines.next() {
        let opens = lines.peek().is_some_and(|next| next.starts_with("mod "))
            && lines.peek().is_some_and(|next| next.ends_with('{'));
        if line == "#[cfg(test)]" && opens {
            break;
        }
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::{is_exempt, lines_without_tests};

    #[test]
    fn tests_do_not_count() {
        assert_eq!(
            lines_without_tests("a\nb\n#[cfg(test)]\nmod tests {\n}\n"),
            2
        );
        assert_eq!(lines_without_tests("#[cfg(test)]\nmod tests;\nb\n"), 3);
        assert!(is_exempt("tests/src/lib.rs".as_ref()));
        assert!(is_exempt("pprof/src/tree/tests.rs".as_ref()));
        assert!(is_exempt("remote-store/src/generated/x.rs".as_ref()));
        assert!(!is_exempt("xtask/src/test.rs".as_ref()));
    }
}
