//! Holds the parts of the house style that no lint knows: sizes of files, heads, forbidden words, machine paths.
//! It reads sources as text and never judges behaviour. After TigerBeetle's `src/tidy.zig`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Lines of a file that needs no excuse.
const LINES: usize = 400;
/// Lines of a file that says in its head why it is longer.
const LINES_EXCUSED: usize = 600;
/// What the head of such a file says.
const EXCUSE: &str = "Longer than 400 lines because";
/// Lines of a file that count as its head.
const HEAD: usize = 20;
/// Words for work left undone. An issue tracker holds that, the code does not.
const UNDONE: [&str; 5] = ["TODO", "FIXME", "XXX", "todo!", "unimplemented!"];
/// Directories of the machines that wrote this code.
const MACHINES: [&str; 4] = ["/work/main", "/work/shared", "/root/", "/tmp/wt"];
/// The one file under `tests/` that may sleep: its helper waits for a condition, with a bound.
const WAITS: &str = "node/tests/processes/wait.rs";
/// This file, which has to name what it forbids.
const TIDY: &str = "node/tests/tidy.rs";
/// Files a workspace may hold before this test calls itself lost.
const FILES: usize = 10_000;

/// Every offence of one Rust file, one sentence each. `path` is relative to the workspace, with `/`.
fn offences(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push(format!("{path}: does not begin with `//!` and what the file is"));
    }
    let lines = text.lines().count();
    let excused = text.lines().take(HEAD).any(|line| line.starts_with("//!") && line.contains(EXCUSE));
    if lines > LINES_EXCUSED || (lines > LINES && !excused) {
        let advice =
            if excused { "split it" } else { "split it, or say in its head: \"Longer than 400 lines because\"" };
        found.push(format!("{path}: {lines} lines; {advice}"));
    }
    if path == TIDY {
        return found;
    }
    for (at, line) in text.lines().enumerate() {
        let place = format!("{path}:{}", at + 1);
        found.extend(UNDONE.iter().filter(|word| line.contains(**word)).map(|word| format!("{place}: {word}")));
        found.extend(machine_paths(line).map(|machine| format!("{place}: a path of one machine, {machine}")));
        if line.contains("sleep(") && path.contains("/tests/") && path != WAITS {
            found.push(format!("{place}: tests wait for a condition, they do not sleep"));
        }
    }
    found
}

fn machine_paths(line: &str) -> impl Iterator<Item = &'static str> {
    MACHINES.into_iter().filter(|machine| line.contains(machine))
}

/// Every file of the workspace that a person wrote, relative paths.
fn sources(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let (name, path) = (entry.file_name(), entry.path());
            let kind = entry.file_type()?;
            if kind.is_dir() && name != "target" && name != ".git" {
                directories.push(path);
            } else if kind.is_file() && name != ".git" {
                files.push(path.strip_prefix(root).map_err(io::Error::other)?.to_path_buf());
            }
        }
        assert!(files.len() < FILES, "{} files: is a build directory inside the workspace?", files.len());
    }
    files.sort();
    Ok(files)
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

#[test]
fn the_workspace_is_tidy() -> Result<(), Box<dyn Error>> {
    let mut found = Vec::new();
    let mut rust = 0;
    for path in sources(workspace())? {
        // A name or a content that is no text belongs to no rule here.
        let (Some(name), Ok(text)) = (path.to_str(), fs::read_to_string(workspace().join(&path))) else { continue };
        if name.ends_with(".rs") {
            rust += 1;
            found.extend(offences(name, &text));
        } else {
            let lines = text.lines().enumerate();
            let bad = lines.flat_map(|(at, line)| machine_paths(line).map(move |machine| (at + 1, machine)));
            found.extend(bad.map(|(at, machine)| format!("{name}:{at}: a path of one machine, {machine}")));
        }
    }
    assert!(rust > 10, "only {rust} Rust files found: the search is broken");
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    Ok(())
}

#[test]
fn planted_offences_are_caught() {
    let good = "//! What it is.\n";
    let long = |lines: usize, head: &str| format!("//! {head}\n{}", "// x\n".repeat(lines - 1));
    let caught = |path: &str, text: &str| offences(path, text).len();
    assert_eq!(caught("node/src/a.rs", good), 0);
    assert_eq!(caught("node/src/a.rs", "fn a() {}\n"), 1);
    assert_eq!(caught("node/src/a.rs", &long(400, "What it is.")), 0);
    assert_eq!(caught("node/src/a.rs", &long(401, "What it is.")), 1);
    assert_eq!(caught("node/src/a.rs", &long(600, "Longer than 400 lines because of a table.")), 0);
    assert_eq!(caught("node/src/a.rs", &long(601, "Longer than 400 lines because of a table.")), 1);
    for line in
        ["// TODO: later", "// FIXME", "todo!()", "unimplemented!()", "let a = \"/root/x\";", "// see /work/main"]
    {
        assert_eq!(caught("node/src/a.rs", &format!("{good}{line}\n")), 1, "{line}");
    }
    let sleeps = format!("{good}thread::sleep(x);\n");
    assert_eq!(caught("node/tests/a.rs", &sleeps), 1);
    assert_eq!((caught(WAITS, &sleeps), caught("node/src/a.rs", &sleeps)), (0, 0));
}
