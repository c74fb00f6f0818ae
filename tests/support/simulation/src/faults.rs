//! The kinds of fault, and how often each occurred.
//!
//! Owns: the list of kinds, with a description of each, and the tally. Does not own: causing them (`fleet`, `network`, the
//! environments).

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! kinds {
    ($($(#[doc = $text:literal])+ $kind:ident,)+) => {
        /// A kind of fault, or of an unusual event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultKind {
            $($(#[doc = $text])+ $kind,)+
        }

        impl FaultKind {
            /// All of them.
            pub const ALL: &[FaultKind] = &[$(FaultKind::$kind,)+];

            /// What it is, in words.
            pub fn description(self) -> &'static str {
                match self {
                    $(FaultKind::$kind => concat!($($text),+).trim_ascii(),)+
                }
            }
        }
    };
}

kinds! {
    /// a worker is killed
    Killed,
    /// a worker is killed right before or after the effect of a request
    KilledAtRequest,
    /// a worker is paused, and resumes without noticing
    Paused,
    /// a worker is paused right before or after the effect of a request
    PausedAtRequest,
    /// a worker is paused for longer than its leases last
    ResumedLate,
    /// a worker is stopped
    Stopped,
    /// a worker joins
    Joined,
    /// a request is lost before its effect
    LostBefore,
    /// a request takes effect, and its reply is lost
    LostAfter,
    /// a request takes effect long after it timed out
    Late,
    /// a reply takes several seconds
    Slow,
    /// a request is never answered
    Hung,
    /// the lake throttles, or fails for a moment
    LakeThrottled,
    /// the lease store throttles, conflicts, or fails for a moment
    LeasesThrottled,
    /// the stream throttles, or fails for a moment
    StreamThrottled,
    /// a worker can't reach the lake for some time
    LakePartitioned,
    /// a worker can't reach the lease store for some time
    LeasesPartitioned,
    /// a worker can't reach the stream for some time
    StreamPartitioned,
    /// a service refuses a worker everything for some time
    Refused,
    /// a lease is taken from a live holder
    LeaseStolen,
    /// a lease is taken from a live holder, and returned before its next scan
    LeaseReturned,
    /// a lifecycle rule aborts one upload, or all
    UploadsExpired,
    /// two conditional writes of one key conflict
    WriteConflict,
    /// a shard splits
    Split,
    /// two shards merge
    Merged,
    /// a stream no longer lists a shard
    Unlisted,
    /// an iterator expires
    IteratorExpired,
    /// records become visible only some time after they were put
    VisibleLate,
    /// a read in the middle of a shard returns no records
    EmptyAnswer,
    /// scans of the table, the lake and the stream take several requests, and show them as of several times
    TornScans,
    /// records are trimmed while they are read
    Trimmed,
    /// a worker's clock is minutes off
    ClockSkewed,
    /// a worker's clock jumps while it runs
    ClockJumped,
    /// a stream is opened for the first time by a worker whose clock is ahead, and starts at the latest record
    ClockAhead,
    /// rows of the lease table are lost, and made again from the commit records
    RowsLost,
    /// a stream is deleted, and another one of its name is created
    StreamReplaced,
    /// a worker starts with another configuration
    ConfigChanged,
    /// a worker of a later version runs among others
    VersionChanged,
    /// a record can't become a row
    Poison,
    /// an aggregate can't be decoded
    BrokenAggregate,
    /// hundreds of partitions appear at once
    PartitionExplosion,
    /// the lake is swept while workers run
    Swept,
    /// the lake is audited while workers run
    Audited,
    /// the lake log is trimmed while workers run
    LogTrimmed,
    /// a worker is paused, and the lake log is trimmed before it resumes
    LogTrimmedBesideSleeper,
    /// a worker writes an entry where one was trimmed
    FalseEntry,
    /// objects of another program are read beside the streams
    ObjectsBeside,
    /// a checkpoint is saved by a command while workers run
    CheckpointSaved,
    /// a checkpoint is saved by the schedule of the workers
    CheckpointScheduled,
    /// objects of the lake are replaced by copies while workers run
    LakeRewritten,
    /// what was replaced is undone while workers run
    OperationUndone,
    /// two processes begin to replace objects of one part of the lake at once
    OperationsAtOnce,
    /// a process that replaces objects has lost its leases, and is refused
    OperationRefused,
    /// records are read again into a lake aside
    Replayed,
    /// a replay is promoted while workers run
    ReplayPromoted,
    /// a promoted replay is undone while workers run
    ReplayUndone,
    /// a replay is purged while workers run
    ReplayPurged,
    /// dead letters are redriven while workers run
    DeadLettersRedriven,
    /// dead letters are discarded while workers run
    DeadLettersDiscarded,
    /// a process that works on the past is suspended for an hour
    SuspendedForAnHour,
    /// a worker can't reach the lake for seconds, minutes or an hour, and must go on afterwards
    LakeOut,
    /// a worker can't reach the lease store for seconds, minutes or an hour, and must go on afterwards
    LeasesOut,
    /// a worker can't reach the stream for seconds, minutes or an hour, and must go on afterwards
    StreamOut,
    /// a service takes requests for that time and never answers
    BlackHole,
    /// one worker can't read a shard that others can, though its reads seem to succeed
    ShardStuck,
    /// a worker has hardly any memory
    LittleMemory,
}

/// How often each kind occurred.
#[derive(Debug)]
pub struct Tally(Vec<AtomicU64>);

impl Default for Tally {
    fn default() -> Self {
        Tally(FaultKind::ALL.iter().map(|_| AtomicU64::new(0)).collect())
    }
}

impl Tally {
    /// Counts one occurrence.
    pub fn note(&self, kind: FaultKind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it occurred.
    pub fn count(&self, kind: FaultKind) -> u64 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }

    /// Adds the counts of another tally.
    pub fn add(&self, other: &Tally) {
        for (mine, theirs) in self.0.iter().zip(&other.0) {
            mine.fetch_add(theirs.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// The kinds that never occurred.
    pub fn missing(&self) -> Vec<FaultKind> {
        FaultKind::ALL.iter().copied().filter(|kind| self.count(*kind) == 0).collect()
    }

    /// A table of all kinds.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for kind in FaultKind::ALL {
            let _ = writeln!(text, "  {:>10}  {}", self.count(*kind), kind.description());
        }
        text
    }
}
