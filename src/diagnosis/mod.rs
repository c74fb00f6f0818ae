//! What `doctor` may find, and what it has found.
//!
//! Owns: the one table of findings (`table`), and collecting them. Does not own: finding anything. Each kind of source, lake and lease
//! store examines its own service (its `diagnose`), and `doctor` examines the rest.
//!
//! Nothing here holds contents of records: a finding names resources, shards, epochs and keys of objects.

mod table;

use serde::Serialize;

pub use table::FindingKind;

/// How much harm a finding does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Records are lost or will be, or no worker can continue.
    Critical,
    /// Data is late, or something will fail later.
    Warning,
    /// Somebody should have decided so.
    Note,
}

impl Severity {
    /// The severity as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// What is wrong, as a sentence that names the resource.
    pub what: String,
}

/// Something that could not be examined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unchecked {
    /// What.
    pub what: String,
    /// Why not, and what to do.
    pub why: String,
}

/// What an examination has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What could not be examined.
    pub unchecked: Vec<Unchecked>,
}

/// Items that a sentence names before it says only how many more there are.
const NAMED_MAX: usize = 5;

impl Diagnosis {
    /// Notes a finding.
    pub fn find(&mut self, kind: FindingKind, what: impl Into<String>) {
        self.findings.push(Finding { kind, what: what.into() });
    }

    /// Notes a finding about several items, unless there are none. `what` makes the sentence from their names.
    pub fn find_all<T: ToString>(&mut self, kind: FindingKind, items: &[T], what: impl FnOnce(&str) -> String) {
        if !items.is_empty() {
            self.find(kind, what(&named(items)));
        }
    }

    /// Notes that something could not be examined.
    pub fn cannot_check(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.unchecked.push(Unchecked { what: what.into(), why: why.into() });
    }

    /// Adds what another examination has shown.
    pub fn add(&mut self, other: Diagnosis) {
        self.findings.extend(other.findings);
        self.unchecked.extend(other.unchecked);
    }

    /// Puts the findings into the order of their harm.
    pub fn sort(&mut self) {
        self.findings.sort_by_key(|finding| (finding.kind.severity(), finding.kind));
    }

    /// The greatest harm; `None` if nothing was found.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.kind.severity()).min()
    }
}

/// The first few items, and how many more there are.
fn named<T: ToString>(items: &[T]) -> String {
    let shown: Vec<String> = items.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    match items.len().saturating_sub(NAMED_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_in_the_order_of_their_harm() {
        let mut diagnosis = Diagnosis::default();
        let kinds = [FindingKind::BucketNotVersioned, FindingKind::Leftovers, FindingKind::DataLost];
        kinds.into_iter().for_each(|kind| diagnosis.find(kind, "x"));
        assert_eq!(diagnosis.worst(), Some(Severity::Critical));
        diagnosis.sort();
        let sorted: Vec<FindingKind> = diagnosis.findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(sorted, [FindingKind::DataLost, FindingKind::Leftovers, FindingKind::BucketNotVersioned]);
    }

    #[test]
    fn a_sentence_names_a_few_items_and_counts_the_others() {
        let mut diagnosis = Diagnosis::default();
        diagnosis.find_all(FindingKind::Leftovers, &[1, 2, 3, 4, 5, 6, 7], |names| format!("files {names}"));
        diagnosis.find_all(FindingKind::Leftovers, &[0_u8; 0], str::to_owned);
        assert_eq!(diagnosis.findings.len(), 1);
        assert_eq!(diagnosis.findings[0].what, "files 1, 2, 3, 4, 5 and 2 more");
    }
}
