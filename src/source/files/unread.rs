//! What a source leaves unread, for the summary of a run.
//!
//! Owns: names that are not read, content that is not complete, and problems of single files. Does not own: finding any of these.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use checkpoints::StreamName;

use crate::source::SourceReport;

/// What is unread now.
#[derive(Debug, Default)]
pub(super) struct Unread(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The number of files whose names are not read, by ending.
    names: BTreeMap<String, u64>,
    /// The number of files whose names are read; `None` before the first scan.
    readable: Option<u64>,
    /// A sentence for each file of which something is unread.
    content: BTreeMap<String, String>,
    /// The same for the `.json` files of each folder.
    folders: BTreeMap<String, Vec<(String, &'static str)>>,
    /// Names of files that have not settled.
    waiting: Vec<String>,
    /// What is wrong with files, and was logged.
    problems: BTreeSet<String>,
    is_summary_logged: bool,
    has_history: bool,
}

impl Unread {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A scan found this many readable files, and these names that are not read. `has_history`: the source had files before.
    pub(super) fn scanned(&self, stream: &StreamName, readable: u64, names: BTreeMap<String, u64>, has_history: bool) {
        let mut state = self.lock();
        if !names.is_empty() && !state.is_summary_logged {
            state.is_summary_logged = true;
            tracing::warn!(%stream, "{}", names_sentence(&names));
        }
        (state.names, state.readable, state.has_history) = (names, Some(readable), has_history);
    }

    /// These files have not settled.
    pub(super) fn waiting(&self, names: Vec<String>) {
        self.lock().waiting = names;
    }

    /// Something of a file is unread.
    pub(super) fn leave(&self, file: &str, why: &str) {
        let mut state = self.lock();
        if state.content.get(file).is_none_or(|known| known != why) {
            state.content.insert(file.to_owned(), why.to_owned());
        }
    }

    /// These files of a folder are unread.
    pub(super) fn leave_in(&self, folder: &str, files: Vec<(String, &'static str)>) {
        let mut state = self.lock();
        let folder = folder.trim_start_matches("./");
        state.folders.insert(folder.to_owned(), files);
    }

    /// Nothing of a file is unread.
    pub(super) fn clear(&self, file: &str) {
        self.lock().content.remove(file);
    }

    /// Notes a problem. Returns true if it is new.
    pub(super) fn problem(&self, problem: String) -> bool {
        self.lock().problems.insert(problem)
    }

    pub(super) fn report(&self, stream: &StreamName) -> SourceReport {
        let state = self.lock();
        let mut problems: Vec<String> = state.problems.iter().cloned().collect();
        if state.readable == Some(0) && !state.has_history {
            problems.push(format!("stream {stream} has no file that is read, and never had one"));
        }
        SourceReport {
            names_not_read: state.names.clone(),
            unread: state
                .content
                .iter()
                .map(|(file, why)| format!("{file}: {why}"))
                .chain(
                    state.folders.iter().flat_map(|(folder, files)| {
                        files.iter().map(move |(file, why)| format!("{folder}{file}: {why}"))
                    }),
                )
                .chain(state.waiting.iter().map(|file| format!("{file}: it is still being written")))
                .collect(),
            problems,
        }
    }
}

/// How many files are not read because of their names.
pub(crate) fn names_sentence(names: &BTreeMap<String, u64>) -> String {
    let count: u64 = names.values().sum();
    let endings: Vec<String> = names.iter().map(|(ending, count)| format!("{ending} ({count})")).collect();
    let (files, are) = if count == 1 { ("file", "is") } else { ("files", "are") };
    format!("{count} {files} {are} not read because of the endings of their names: {}", endings.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_not_read_are_one_sentence() {
        let names = BTreeMap::from([(".log".to_owned(), 3), ("~".to_owned(), 1)]);
        assert_eq!(
            names_sentence(&names),
            "4 files are not read because of the endings of their names: .log (3), ~ (1)"
        );
    }
}
