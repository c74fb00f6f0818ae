//! What a source of objects leaves unread, for the summary of a run and the log.
//!
//! Owns: keeping it, and logging each kind once. Does not own: finding it (`lister`, `reader`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use checkpoints::StreamName;

use crate::source::{SourceReport, names_sentence};

/// What is unread now.
#[derive(Debug)]
pub(super) struct Report {
    stream: StreamName,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, u64>,
    are_names_logged: bool,
    /// Objects that were overwritten, about which nobody has decided.
    overwritten: u64,
    /// Whether an object was ever read; `None` before the first list has ended.
    has_objects: Option<bool>,
    problems: BTreeSet<String>,
}

impl Report {
    pub(super) fn new(stream: StreamName) -> Self {
        Report { stream, state: Mutex::default() }
    }

    /// A list has ended.
    pub(super) fn passed(&self, names: BTreeMap<String, u64>, overwritten: u64, has_objects: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = &self.stream;
        if !names.is_empty() && !std::mem::replace(&mut state.are_names_logged, true) {
            tracing::warn!(%stream, "{}", names_sentence(&names));
        }
        if overwritten > state.overwritten {
            tracing::warn!(%stream, overwritten, "objects were overwritten after they were listed; see `shardlake losses list`");
        }
        (state.names, state.overwritten, state.has_objects) = (names, overwritten, Some(has_objects));
    }

    /// Something is lost.
    pub(super) fn problem(&self, problem: String) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).problems.insert(problem);
    }

    pub(super) fn show(&self) -> SourceReport {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut problems: Vec<String> = state.problems.iter().cloned().collect();
        if state.overwritten > 0 {
            let count = state.overwritten;
            problems.push(format!("stream {}: {count} objects were overwritten after they were listed", self.stream));
        }
        if state.has_objects == Some(false) {
            problems.push(format!("stream {} has no object that is read, and never had one", self.stream));
        }
        SourceReport { names_not_read: state.names.clone(), unread: Vec::new(), problems }
    }
}
