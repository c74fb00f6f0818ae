//! The stages that a record passes, in their order.
//!
//! Owns: the one list of stages. The graph, the dead-letter codes and the order in which `status` lists edges come from it.
//! Does not own: what a stage does, how stages are connected (`graph`).

use std::fmt;

/// A stage, from the source to the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Reading the stream.
    Source,
    /// Bytes to fields.
    Decode,
    /// Fields against the definition.
    Validate,
    /// Lookups, times and ingest columns.
    Enrich,
    /// Rules for personal values.
    Anonymize,
    /// Grouping by partition.
    Batch,
    /// Columns to Parquet.
    Encode,
    /// Collecting records as received.
    Raw,
    /// Collecting records that failed.
    DeadLetters,
    /// Making an epoch's objects visible.
    Commit,
}

impl Stage {
    /// All stages in the order in which a record passes them.
    pub const ALL: [Stage; 10] = [
        Stage::Source,
        Stage::Decode,
        Stage::Validate,
        Stage::Enrich,
        Stage::Anonymize,
        Stage::Batch,
        Stage::Encode,
        Stage::Raw,
        Stage::DeadLetters,
        Stage::Commit,
    ];

    /// The stage's name in dead letters, edge ids, metrics and the graph.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Source => "source",
            Stage::Decode => "decode",
            Stage::Validate => "validate",
            Stage::Enrich => "enrich",
            Stage::Anonymize => "anonymize",
            Stage::Batch => "batch",
            Stage::Encode => "encode",
            Stage::Raw => "raw",
            Stage::DeadLetters => "dead_letters",
            Stage::Commit => "commit",
        }
    }

    /// The stage of a name; the inverse of [`Stage::as_str`].
    pub fn from_name(name: &str) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| stage.as_str() == name)
    }

    /// Whether the stage can reject a record, so that it becomes a dead letter.
    pub fn rejects(self) -> bool {
        matches!(self, Stage::Decode | Stage::Validate | Stage::Enrich | Stage::Batch)
    }

    /// Whether the graph has a node of this stage for each dataset.
    pub(crate) fn is_per_dataset(self) -> bool {
        matches!(self, Stage::Validate | Stage::Enrich | Stage::Anonymize | Stage::Batch | Stage::Encode)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_compare_in_their_order_and_have_names_of_their_own() {
        assert!(Stage::ALL.is_sorted_by(|left, right| left < right));
        for stage in Stage::ALL {
            assert_eq!(Stage::from_name(stage.as_str()), Some(stage));
            assert!(stage.as_str().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        }
    }
}
