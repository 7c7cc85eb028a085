//! How much code there is: privileged code and single files stay small. Privileged code is counted in lines of code,
//! so that nobody saves on the comments that reviewers of such code need; files in lines as they stand. Tests count in neither.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::tool::{self, root};

/// Lines of code of the sampler after its start, and of the opener.
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
        let own = without_tests(&text);
        let (lines, code) = (own.len(), own.iter().filter(|line| is_code(line)).count());
        let start_only = START_ONLY
            .iter()
            .any(|file| path.as_path() == Path::new(file));
        if start_only {
            at_start += code;
        } else if path.starts_with("sampler/src") || path.starts_with("opener/src") {
            privileged += code;
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
        "sampler after its start and opener: {privileged} lines of code (at most {PRIVILEGED_LINES}); the start: {at_start}"
    );
    if privileged > PRIVILEGED_LINES {
        wrong.push(format!(
            "sampler and opener have {privileged} lines of code, more than {PRIVILEGED_LINES}"
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

/// The lines before a test module, which stands at a file's end.
fn without_tests(text: &str) -> Vec<&str> {
    let mut lines = text.lines().peekable();
    let mut own = Vec::new();
    while let Some(line) = lines.next() {
        let opens = lines
            .peek()
            .is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'));
        if line == "#[cfg(test)]" && opens {
            break;
        }
        own.push(line);
    }
    own
}

/// Neither blank nor only a comment.
fn is_code(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with("//")
}

#[cfg(test)]
mod tests {
    use super::{is_code, is_exempt, without_tests};

    #[test]
    fn tests_do_not_count() {
        assert_eq!(
            without_tests("a\nb\n#[cfg(test)]\nmod tests {\n}\n").len(),
            2
        );
        assert_eq!(without_tests("#[cfg(test)]\nmod tests;\nb\n").len(), 3);
        assert!(is_code("    x(); // why") && !is_code("    /// What.") && !is_code(""));
        assert!(is_exempt("tests/src/lib.rs".as_ref()));
        assert!(is_exempt("pprof/src/tree/tests.rs".as_ref()));
        assert!(is_exempt("remote-store/src/generated/x.rs".as_ref()));
        assert!(!is_exempt("xtask/src/test.rs".as_ref()));
    }
}
