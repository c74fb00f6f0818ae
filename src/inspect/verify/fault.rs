//! What an audit may find wrong with a lake.

use std::fmt;

use checkpoints::{Position, ShardKey, ShardRange};
use serde::Serialize;

use crate::lake::ObjectKey;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Fault {
    /// A commit record cannot be read.
    UnreadableRecord {
        /// Which one, and why.
        problem: String,
    },
    /// A shard's ranges have a gap: a commit record is missing, or the records in the gap were never committed.
    Gap {
        /// The shard.
        #[serde(flatten)]
        key: ShardKey,
        /// The end of the chain before the gap.
        after: Position,
        /// Where the chain continues, or the checkpoint of the shard's lease.
        before: Position,
    },
    /// A shard's range was committed twice, in part or whole.
    Overlap {
        /// The shard.
        #[serde(flatten)]
        key: ShardKey,
        /// The epoch whose range overlaps one that was found before.
        epoch: String,
        /// Its range.
        range: ShardRange,
    },
    /// A commit record contradicts itself.
    Sums {
        /// The epoch.
        epoch: String,
        /// The sums that differ.
        problem: String,
    },
    /// The commit log, which `status` reads, disagrees with the commit records.
    Log {
        /// In what.
        problem: String,
    },
    /// Versions are missing in the lake log.
    LogGap {
        /// The newest version before the gap; 0 if there is none.
        after: u64,
        /// The version after it.
        before: u64,
    },
    /// An entry of the lake log cannot be read.
    UnreadableEntry {
        /// Which one, and why.
        problem: String,
    },
    /// An entry of the lake log does not follow the one before it.
    LogChain {
        /// Its version.
        version: u64,
        /// In what.
        problem: String,
    },
    /// An epoch is in the lake log twice.
    EnteredTwice {
        /// The epoch.
        epoch: String,
        /// The version that has it first.
        first: u64,
        /// The version that has it again.
        version: u64,
    },
    /// An entry of the lake log says something else than its commit record.
    EntryDiffers {
        /// Its version.
        version: u64,
        /// Its epoch.
        epoch: String,
    },
    /// An entry of the lake log has no commit record.
    EntryWithoutRecord {
        /// Its version.
        version: u64,
        /// Its epoch.
        epoch: String,
    },
    /// A commit record is not in the lake log, although its checkpoints have moved.
    NotEntered {
        /// The epoch.
        epoch: String,
    },
    /// The lake log lacks ranges up to a checkpoint.
    LogLacks {
        /// The shard.
        #[serde(flatten)]
        key: ShardKey,
        /// The end of what the log has.
        after: Position,
        /// The checkpoint of the shard's lease, or where the log continues.
        before: Position,
    },
    /// An entry removes an object that was not live.
    RemovesUnknown {
        /// The version.
        version: u64,
        /// The key.
        key: ObjectKey,
    },
    /// A snapshot of the lake log is damaged, or differs from what the entries add up to.
    Snapshot {
        /// Its version.
        version: u64,
        /// What is wrong.
        problem: String,
    },
    /// An object is visible that an entry has removed.
    NotRemoved {
        /// Its key.
        key: ObjectKey,
        /// The version that removed it.
        version: u64,
    },
    /// Bytes of a source were lost, or a file must be decided about, and nobody has accepted it.
    Loss {
        /// The shard.
        #[serde(flatten)]
        key: ShardKey,
        /// What happened.
        problem: String,
    },
    /// An object is missing.
    Missing {
        /// Its key.
        key: ObjectKey,
        /// The epoch that wrote it.
        epoch: String,
    },
    /// An object differs from what was written.
    Altered {
        /// Its key.
        key: ObjectKey,
        /// The epoch that wrote it.
        epoch: String,
        /// In what.
        problem: String,
    },
    /// A visible object is in no commit record.
    Unknown {
        /// Its key.
        key: ObjectKey,
    },
    /// An object is in two commit records.
    Claimed {
        /// Its key.
        key: ObjectKey,
        /// The second of them.
        epoch: String,
    },
}

impl Fault {
    /// Returns true if a later scan found the same fault. Workers may have continued between two scans, so a gap is the
    /// same if it begins at the same position, wherever it ends.
    pub(crate) fn is_still(&self, later: &Fault) -> bool {
        match (self, later) {
            (Fault::Gap { key, after, .. }, Fault::Gap { key: other, after: other_after, .. })
            | (Fault::LogLacks { key, after, .. }, Fault::LogLacks { key: other, after: other_after, .. }) => {
                key == other && after == other_after
            }
            (Fault::Log { .. }, Fault::Log { .. }) => true,
            _ => self == later,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::UnreadableRecord { problem } => write!(f, "unreadable commit record: {problem}"),
            Fault::Gap { key, after, before } => {
                write!(f, "gap: {key} has no commit record for ({after}, {before}]")
            }
            Fault::Overlap { key, epoch, range } => {
                write!(
                    f,
                    "overlap: {key} was committed twice in ({}, {}], by epoch {epoch}",
                    range.after(),
                    range.through()
                )
            }
            Fault::Sums { epoch, problem } => write!(f, "sums: the commit record of epoch {epoch} says {problem}"),
            Fault::Log { problem } => write!(
                f,
                "log: {problem}; delete the objects in _rollups/ to have the sums computed again from the commit records"
            ),
            Fault::LogGap { after, before } => {
                write!(f, "lake log: the versions between {after} and {before} are missing, and no snapshot has them")
            }
            Fault::UnreadableEntry { problem } => write!(f, "lake log: {problem}"),
            Fault::LogChain { version, problem } => {
                write!(f, "lake log: version {version} does not follow the version before it: {problem}")
            }
            Fault::EnteredTwice { epoch, first, version } => {
                write!(f, "lake log: epoch {epoch} is in version {first} and again in version {version}")
            }
            Fault::EntryDiffers { version, epoch } => {
                write!(f, "lake log: version {version} differs from the commit record of epoch {epoch}")
            }
            Fault::EntryWithoutRecord { version, epoch } => {
                write!(f, "lake log: version {version} is of epoch {epoch}, which has no commit record")
            }
            Fault::NotEntered { epoch } => {
                write!(f, "lake log: epoch {epoch} is committed, and no version has it")
            }
            Fault::LogLacks { key, after, before } => {
                write!(f, "lake log: no version has ({after}, {before}] of {key}, which is committed")
            }
            Fault::RemovesUnknown { version, key } => {
                write!(f, "lake log: version {version} removes {key}, which was not live")
            }
            Fault::Snapshot { version, problem } => write!(
                f,
                "lake log: the snapshot at version {version}: {problem}; if all entries before it are there, delete it, and a later one \
                 replaces it"
            ),
            Fault::NotRemoved { key, version } => {
                write!(f, "not removed: {key} is visible, although version {version} removed it")
            }
            Fault::Loss { key, problem } => {
                write!(f, "loss: {key}: {problem}; accept it with `shardlake losses accept`")
            }
            Fault::Missing { key, epoch } => write!(f, "missing: {key} of epoch {epoch} is not there"),
            Fault::Altered { key, epoch, problem } => write!(f, "altered: {key} of epoch {epoch}: {problem}"),
            Fault::Unknown { key } => write!(f, "unknown: {key} belongs to no commit record"),
            Fault::Claimed { key, epoch } => write!(f, "claimed twice: {key}, again by epoch {epoch}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use checkpoints::{ShardId, StreamName};

    #[test]
    fn a_fault_is_a_sentence_and_a_json_object() {
        let key = ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new("a").unwrap());
        let gap = Fault::Gap { key, after: Position::Beginning, before: Position::End };
        assert_eq!(gap.to_string(), "gap: shard a of stream orders has no commit record for (TRIM_HORIZON, SHARD_END]");
        assert_eq!(
            serde_json::to_string(&gap).unwrap(),
            r#"{"kind":"gap","stream":"orders","shard":"a","after":"TRIM_HORIZON","before":"SHARD_END"}"#
        );
    }
}
