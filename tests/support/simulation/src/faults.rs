//! The kinds of fault, and how often each occurred.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! kinds {
    ($($(#[doc = $text:literal])+ $kind:ident,)+) => {
        /// A kind of fault, or of bad luck.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[doc = $text])+ $kind,)+
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Kind] = &[$(Kind::$kind,)+];

            /// What it is, in words.
            pub fn about(self) -> &'static str {
                match self {
                    $(Kind::$kind => concat!($($text),+).trim_ascii(),)+
                }
            }
        }
    };
}

kinds! {
    /// a worker without power from one moment to the next
    Killed,
    /// a worker without power right before or behind the effect of a request
    KilledAtRequest,
    /// a worker that stands still, and goes on as if nothing had been
    Paused,
    /// a worker that stands still right before or behind the effect of a request
    PausedAtRequest,
    /// a worker that stands still for longer than its leases last
    WokenLate,
    /// a worker told to stop
    Stopped,
    /// a worker that joins
    Joined,
    /// a request lost before its effect
    LostBefore,
    /// a request that took effect, its answer lost
    LostAfter,
    /// a request that takes effect long after it was given up
    Late,
    /// an answer of several seconds
    Slow,
    /// a request that is never answered
    Hung,
    /// the lake throttles, or fails for a moment
    LakeThrottled,
    /// the lease store throttles, conflicts, or fails for a moment
    LeasesThrottled,
    /// the stream throttles, or fails for a moment
    StreamThrottled,
    /// a worker cut off from the lake for a while
    LakeParted,
    /// a worker cut off from the lease store for a while
    LeasesParted,
    /// a worker cut off from the stream for a while
    StreamParted,
    /// a service that refuses a worker everything for a while
    Refused,
    /// a lease taken from a live holder
    LeaseStolen,
    /// a lease taken from a live holder, and its own again before it may have looked
    LeaseReturned,
    /// a lifecycle rule that aborts one upload, or all
    UploadsExpired,
    /// two conditional writes of one key at once
    WriteConflict,
    /// a shard that splits
    Split,
    /// two shards that merge
    Merged,
    /// a shard that its stream lists no more
    Unlisted,
    /// an iterator that is too old
    IteratorExpired,
    /// records that are visible only some time after they were put
    VisibleLate,
    /// answers without records in the middle of a shard
    EmptyAnswer,
    /// looks at the table, the lake and the stream that take several requests, and see them at several times
    TornLooks,
    /// records trimmed while they are read
    Trimmed,
    /// a worker whose clock is minutes off
    ClockSkewed,
    /// a worker whose clock jumps while it runs
    ClockJumped,
    /// a worker that starts under another configuration
    ConfigChanged,
    /// a worker of a later version among others
    VersionChanged,
    /// a record that can't become a row
    Poison,
    /// an aggregate that can't be opened
    BrokenAggregate,
    /// hundreds of partitions at once
    PartitionExplosion,
    /// a lake swept while workers run
    Swept,
    /// a lake audited while workers run
    Audited,
    /// a worker with hardly any memory
    LittleMemory,
}

/// How often each kind occurred.
#[derive(Debug)]
pub struct Tally(Vec<AtomicU64>);

impl Default for Tally {
    fn default() -> Self {
        Tally(Kind::ALL.iter().map(|_| AtomicU64::new(0)).collect())
    }
}

impl Tally {
    /// It occurred.
    pub fn note(&self, kind: Kind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it occurred.
    pub fn count(&self, kind: Kind) -> u64 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }

    /// Adds what occurred elsewhere.
    pub fn add(&self, other: &Tally) {
        for (mine, theirs) in self.0.iter().zip(&other.0) {
            mine.fetch_add(theirs.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Kinds that never occurred.
    pub fn missing(&self) -> Vec<Kind> {
        Kind::ALL.iter().copied().filter(|kind| self.count(*kind) == 0).collect()
    }

    /// A table of all kinds.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for kind in Kind::ALL {
            let _ = writeln!(text, "  {:>10}  {}", self.count(*kind), kind.about());
        }
        text
    }
}
