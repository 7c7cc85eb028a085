//! Debian packages: says which ones are missing and what for, asks when somebody sits there, installs them.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, Result, bail};

use crate::tool::{self, root};

/// What the tests need, one package a line, what for behind `#`.
const LIST: &str = "tests/PACKAGES";

/// Packages that are not needed where the program they bring is in PATH already, perhaps a newer one.
const SERVED_BY: [(&str, &str); 2] = [("golang-go", "go"), ("nodejs", "node")];

/// Installs what `tests/PACKAGES` names and `more`, in one go.
pub(crate) fn install_for_tests(more: &[(&str, &str)]) -> Result<()> {
    let text = std::fs::read_to_string(root().join(LIST))
        .with_context(|| format!("cannot read {LIST}"))?;
    let mut packages = parse(&text);
    packages.extend_from_slice(more);
    packages.retain(|(package, _)| {
        let program = SERVED_BY.iter().find(|(name, _)| name == package);
        match program {
            Some((_, program)) if tool::exists(program) => {
                println!("{package}: not needed, {program} is in PATH");
                false
            }
            _ => true,
        }
    });
    install(&packages)
}

fn parse(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .map(|line| line.split_once('#').unwrap_or((line, "")))
        .map(|(package, why)| (package.trim(), why.trim()))
        .filter(|(package, _)| !package.is_empty())
        .collect()
}

/// Installs those of `packages` (name, what for) that are missing.
pub(crate) fn install(packages: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<_> = packages
        .iter()
        .filter(|(package, _)| !is_installed(package))
        .collect();
    if missing.is_empty() {
        println!("all {} Debian packages are installed", packages.len());
        return Ok(());
    }
    println!("Debian packages to install:");
    for (package, why) in &missing {
        println!("  {package:<24} {why}");
    }
    if !tool::exists("apt-get") {
        bail!("there is no apt-get here: install them by other means");
    }
    ask()?;
    let names: Vec<&str> = missing.iter().map(|(package, _)| *package).collect();
    apt_get(&["update", "-q"])?;
    let mut arguments = vec!["install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(names);
    apt_get(&arguments)
}

fn is_installed(package: &str) -> bool {
    let query = tool::command("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status}", package])
        .output();
    query.is_ok_and(|output| output.status.success() && output.stdout == b"installed")
}

/// A person is asked; a script has decided already.
fn ask() -> Result<()> {
    if !std::io::stdin().is_terminal() {
        return Ok(());
    }
    print!("Install them? [Y/n] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "" | "y" | "yes" => Ok(()),
        _ => bail!("without these packages the tests can't run"),
    }
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = crate::up::as_root("apt-get")?;
    command
        // Somebody else may be installing.
        .args(["-o", "DPkg::Lock::Timeout=400"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    tool::run(&mut command)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_list_has_names_and_reasons() {
        let parsed = super::parse("# heading\n\ngcc   # compiles\nnodejs\n");
        assert_eq!(parsed, [("gcc", "compiles"), ("nodejs", "")]);
    }
}
