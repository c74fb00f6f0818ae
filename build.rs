//! Names the commit that a release is built from, for `shardlake --version` and the footers of Parquet files.
//!
//! In this order: the environment variable `SHARDLAKE_BUILD`; for a release build, the commit that `.git` names; `unknown`.
//! Only files are read: `git` itself may be missing where a release is built.
//!
//! A debug build does not read `.git`: every commit would compile the crate again, and each of its tests.

use std::path::{Path, PathBuf};

/// Hex digits of a commit that make its short name.
const DIGITS: usize = 12;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SHARDLAKE_BUILD");
    let named = std::env::var("SHARDLAKE_BUILD").ok().filter(|build| !build.is_empty());
    if let Some(build) = &named {
        // It is written into the footer's `created_by`, whose reader ends it at a bracket.
        let is_plain =
            build.len() <= 64 && build.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._+".contains(&byte));
        assert!(is_plain, "SHARDLAKE_BUILD is '{build}': it may have 64 letters, digits, '-', '.', '_' and '+'");
    }
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = || is_release.then(|| commit(Path::new(".git"))).flatten();
    println!("cargo:rustc-env=SHARDLAKE_BUILD_ID={}", named.or_else(commit).as_deref().unwrap_or("unknown"));
}

/// The short name of the commit that is checked out.
fn commit(dot_git: &Path) -> Option<String> {
    // In a linked worktree `.git` is a file that names the directory.
    let dir = match read(dot_git) {
        Some(link) => PathBuf::from(link.strip_prefix("gitdir:")?.trim()),
        None => dot_git.to_owned(),
    };
    let head = watched(&dir.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref:").map(str::trim) else { return short(&head) };
    // Branches belong to the main worktree.
    let common = read(&dir.join("commondir")).map_or_else(|| dir.clone(), |common| dir.join(common.trim()));
    if let Some(commit) = watched(&common.join(name)) {
        return short(&commit);
    }
    // The branch has no file of its own until its next commit, which HEAD's log notes.
    watched(&dir.join("logs/HEAD"));
    let packed = watched(&common.join("packed-refs"))?;
    packed.lines().find_map(|line| short(line.strip_suffix(name)?.strip_suffix(' ')?))
}

/// The content of a file; a change of it makes Cargo run this script again.
fn watched(path: &Path) -> Option<String> {
    let text = read(path)?;
    println!("cargo:rerun-if-changed={}", path.display());
    Some(text)
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn short(commit: &str) -> Option<String> {
    let digits = commit.trim().get(..DIGITS)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| digits.to_owned())
}
