//! Which ranges of which shards a set of commit records covers, and what speaks for a record that the set lacks.
//!
//! A decision moves a shard's checkpoint from the beginning of its range to the end. So the ranges of a shard in all commit
//! records form one chain without a gap or an overlap. Two things follow, and the commit log is built on them:
//!
//! 1. *A set without gaps is known by its ends.* If the ranges of a set form one segment for each shard, then a record belongs
//!    to the set if and only if its ranges lie in these segments. No list of names is needed.
//! 2. *The lease table knows what is missing.* A checkpoint moves only after the commit record was written. So if the rows
//!    are read first, then every row's checkpoint must be covered by the records that are listed afterwards.
//!
//! [`Chains::doubts`] lists everything that contradicts a set of records being complete. Rows may be gone: a worker removes
//! the row of a shard that has ended, once its children have been committed. So a child that was read, by its row or by a
//! record, requires that its parents are covered to their ends. By induction along the children, down to shards that have rows, no shard can be
//! missed whole. (Rows of a stream's last shards are never removed.)
//!
//! Doubts that the complete list could not dispel are facts, such as the position to which a KCL application has moved a
//! checkpoint. They are kept and accepted later, but only if they are still the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use checkpoints::{Lease, Position, ShardId, ShardKey, ShardRange};
use serde::{Deserialize, Serialize};

use crate::commit::epoch_id::EpochId;
use crate::commit::manifest::{Manifest, ShardOfEpoch};

/// The ranges of a set of commit records, by shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<StoredChain>", into = "Vec<StoredChain>")]
pub struct Chains(BTreeMap<ShardKey, Chain>);

/// The ranges of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain {
    /// In order; no two overlap or touch. Never empty; more than one only if records are missing.
    segments: Vec<Segment>,
    /// The epoch of the record whose range ends last.
    last: EpochId,
    /// The shards that this one came from.
    parents: BTreeSet<ShardId>,
}

/// Ranges of a shard without a gap between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Segment {
    #[serde(flatten)]
    range: ShardRange,
    /// Set if another program had read the shard to where the segment begins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    taken_over: bool,
}

/// A range that was committed before, in part or whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The shard.
    pub key: ShardKey,
    /// The epoch that was found second.
    pub epoch: EpochId,
    /// Its range.
    pub range: ShardRange,
}

/// How a record relates to a set of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// It is one of them.
    Whole,
    /// It is not one of them.
    None,
    /// Neither, so the set is not one of whole records.
    Part,
}

/// What speaks for a record that a set of records lacks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Doubt {
    /// A shard's ranges have a gap.
    Gap {
        /// The shard.
        #[serde(flatten)]
        key: ShardKey,
        /// The end of the range before the gap.
        after: Position,
        /// The beginning of the range after it.
        before: Position,
    },
    /// A row's checkpoint is after the last range.
    Ahead {
        /// The shard.
        #[serde(flatten)]
        key: ShardKey,
        /// The end of the last range, if there is one.
        through: Option<Position>,
        /// The row's checkpoint.
        checkpoint: Position,
    },
    /// A shard has no row, though it was not read to its end.
    NoRow {
        /// The shard.
        #[serde(flatten)]
        key: ShardKey,
        /// The end of the last range.
        through: Position,
    },
    /// A shard was not read to its end, though a shard that came from it was read.
    Parent {
        /// The shard that should have ended.
        #[serde(flatten)]
        key: ShardKey,
        /// The end of its last range, if there is one.
        through: Option<Position>,
    },
}

impl Chain {
    fn new(shard: &ShardOfEpoch, epoch: &EpochId) -> Self {
        let segment = Segment { range: shard.range.clone(), taken_over: shard.taken_over };
        Chain { segments: vec![segment], last: epoch.clone(), parents: shard.parents.iter().cloned().collect() }
    }

    fn end(&self) -> &Position {
        self.segments.last().map_or(&Position::Beginning, |segment| segment.range.through())
    }

    fn covers(&self, position: &Position) -> bool {
        let first = self.segments.partition_point(|segment| segment.range.through() < position);
        self.segments.get(first).is_some_and(|segment| segment.range.after() < position)
    }

    /// Adds a range. Returns true if a part of it was there.
    fn insert(&mut self, shard: &ShardOfEpoch, epoch: &EpochId) -> bool {
        if shard.range.through() > self.end() {
            self.last = epoch.clone();
        }
        self.parents.extend(shard.parents.iter().cloned());
        let (mut after, mut through) = (shard.range.after().clone(), shard.range.through().clone());
        let (mut taken_over, mut overlaps) = (shard.taken_over, false);
        let first = self.segments.partition_point(|segment| *segment.range.through() < after);
        let touching = self.segments[first..].iter().take_while(|segment| *segment.range.after() <= through).count();
        for Segment { range, taken_over: theirs } in self.segments.drain(first..first + touching) {
            overlaps |= range.through() > shard.range.after() && range.after() < shard.range.through();
            if *range.after() <= after {
                taken_over = if *range.after() == after { taken_over || theirs } else { theirs };
                after = range.after().clone();
            }
            through = through.max(range.through().clone());
        }
        let range = ShardRange::new(after, through).expect("the union of ranges is not empty");
        self.segments.insert(first, Segment { range, taken_over });
        overlaps
    }

    /// The gaps between the ranges, and before the first one unless reading began there.
    fn gaps(&self) -> impl Iterator<Item = (&Position, &Position)> {
        let first = self.segments.first().filter(|first| !first.taken_over && !first.range.after().is_start());
        let before_first = first.map(|first| (&Position::Beginning, first.range.after()));
        let between = self.segments.windows(2).map(|pair| (pair[0].range.through(), pair[1].range.after()));
        before_first.into_iter().chain(between)
    }
}

impl Chains {
    /// How many shards have ranges.
    pub fn shards(&self) -> usize {
        self.0.len()
    }

    /// The shards that have ranges, and the end of the last one.
    pub fn ends(&self) -> impl Iterator<Item = (&ShardKey, &Position)> {
        self.0.iter().map(|(key, chain)| (key, chain.end()))
    }

    /// The end of a shard's last range.
    pub fn end_of(&self, key: &ShardKey) -> Option<&Position> {
        self.0.get(key).map(Chain::end)
    }

    /// The shards with a range that has a position.
    pub fn covering<'c>(&'c self, position: &'c Position) -> impl Iterator<Item = &'c ShardKey> {
        self.0.iter().filter(|(_, chain)| chain.covers(position)).map(|(key, _)| key)
    }

    /// Whether a range of a shard has a position.
    pub fn covers(&self, key: &ShardKey, position: &Position) -> bool {
        self.0.get(key).is_some_and(|chain| chain.covers(position))
    }

    /// Where a shard's first range begins.
    pub fn begin_of(&self, key: &ShardKey) -> Option<&Position> {
        self.0.get(key).and_then(|chain| chain.segments.first()).map(|first| first.range.after())
    }

    /// The parents of all shards that have ranges.
    pub fn parents(&self) -> impl Iterator<Item = ShardKey> {
        let of = |(key, chain): (&ShardKey, &Chain)| {
            let stream = key.stream.clone();
            let keys = chain.parents.iter().map(move |parent| ShardKey::new(stream.clone(), parent.clone()));
            keys.collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of)
    }

    /// The shards that a shard came from, and the epoch whose range of it ends last.
    pub fn origin_of(&self, key: &ShardKey) -> Option<(&BTreeSet<ShardId>, &EpochId)> {
        self.0.get(key).map(|chain| (&chain.parents, &chain.last))
    }

    /// Adds a commit record. Returns its ranges that were there before, in part or whole.
    pub fn insert(&mut self, record: &Manifest) -> Vec<Overlap> {
        self.insert_shards(&record.epoch, &record.shards)
    }

    /// Adds the ranges of an epoch, likewise.
    pub(crate) fn insert_shards(&mut self, epoch: &EpochId, shards: &[ShardOfEpoch]) -> Vec<Overlap> {
        let mut overlaps = Vec::new();
        for shard in shards {
            let overlaps_chain = match self.0.get_mut(&shard.key) {
                Some(chain) => chain.insert(shard, epoch),
                None => {
                    self.0.insert(shard.key.clone(), Chain::new(shard, epoch));
                    false
                }
            };
            if overlaps_chain {
                let (key, epoch, range) = (shard.key.clone(), epoch.clone(), shard.range.clone());
                overlaps.push(Overlap { key, epoch, range });
            }
        }
        overlaps
    }

    /// Whether a record is in the set, by its ranges.
    pub fn coverage(&self, record: &Manifest) -> Coverage {
        let (mut whole, mut none) = (true, true);
        for ShardOfEpoch { key, range, .. } in &record.shards {
            let segments = self.0.get(key).map_or(&[][..], |chain| &chain.segments);
            let first = segments.partition_point(|segment| segment.range.through() <= range.after());
            match segments.get(first).map(|segment| &segment.range) {
                Some(found) if found.after() <= range.after() && range.through() <= found.through() => none = false,
                Some(found) if found.after() < range.through() => (whole, none) = (false, false),
                _ => whole = false,
            }
        }
        match (whole, none) {
            (true, _) => Coverage::Whole,
            (false, true) => Coverage::None,
            (false, false) => Coverage::Part,
        }
    }

    /// Where ranges are missing between a shard's beginning and its checkpoint: the shard, the end of what is there, and
    /// where it continues. `leases` must have been read before the records were listed.
    pub fn gaps(&self, leases: &[Lease]) -> Vec<(ShardKey, Position, Position)> {
        let gap = |doubt| match doubt {
            Doubt::Gap { key, after, before } => Some((key, after, before)),
            Doubt::Ahead { key, through, checkpoint } => {
                Some((key, through.unwrap_or(Position::Beginning), checkpoint))
            }
            Doubt::NoRow { .. } | Doubt::Parent { .. } => None,
        };
        self.doubts(leases).into_iter().filter_map(gap).collect()
    }

    /// What speaks against the set being complete. `leases` must have been read before the records were listed.
    pub fn doubts(&self, leases: &[Lease]) -> BTreeSet<Doubt> {
        let rows: HashMap<&ShardKey, &Lease> = leases.iter().map(|lease| (&lease.key, lease)).collect();
        let mut doubts = BTreeSet::new();
        for (key, chain) in &self.0 {
            for (after, before) in chain.gaps() {
                doubts.insert(Doubt::Gap { key: key.clone(), after: after.clone(), before: before.clone() });
            }
            match rows.get(key) {
                // Another program has moved the checkpoint on, after the last record of ours.
                Some(row) if row.was_advanced_by(&chain.last.manifest_name()) => {}
                Some(row) if row.checkpoint > *chain.end() => {
                    let (through, checkpoint) = (Some(chain.end().clone()), row.checkpoint.clone());
                    doubts.insert(Doubt::Ahead { key: key.clone(), through, checkpoint });
                }
                None if *chain.end() != Position::End => {
                    doubts.insert(Doubt::NoRow { key: key.clone(), through: chain.end().clone() });
                }
                _ => {}
            }
            self.doubt_parents(key, &chain.parents, &mut doubts);
        }
        for row in leases.iter().filter(|row| !row.checkpoint.is_start()) {
            // A row that no commit of ours has moved is where another program left it.
            if row.last_manifest.is_some() && !self.0.contains_key(&row.key) {
                let (key, checkpoint) = (row.key.clone(), row.checkpoint.clone());
                doubts.insert(Doubt::Ahead { key, through: None, checkpoint });
            }
            self.doubt_parents(&row.key, &row.parents, &mut doubts);
        }
        doubts
    }

    /// Doubts for the parents of a shard that was read.
    fn doubt_parents(&self, child: &ShardKey, parents: &BTreeSet<ShardId>, doubts: &mut BTreeSet<Doubt>) {
        for parent in parents {
            let key = ShardKey::new(child.stream.clone(), parent.clone());
            let through = self.end_of(&key).cloned();
            if through != Some(Position::End) {
                doubts.insert(Doubt::Parent { key, through });
            }
        }
    }
}

/// A chain as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredChain {
    #[serde(flatten)]
    key: ShardKey,
    segments: Vec<Segment>,
    last: EpochId,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    parents: BTreeSet<ShardId>,
}

impl From<Chains> for Vec<StoredChain> {
    fn from(chains: Chains) -> Vec<StoredChain> {
        let stored = |(key, Chain { segments, last, parents })| StoredChain { key, segments, last, parents };
        chains.0.into_iter().map(stored).collect()
    }
}

impl TryFrom<Vec<StoredChain>> for Chains {
    type Error = String;

    fn try_from(stored: Vec<StoredChain>) -> Result<Chains, String> {
        let mut chains = BTreeMap::new();
        for StoredChain { key, segments, last, parents } in stored {
            let apart = segments.windows(2).all(|pair| pair[0].range.through() < pair[1].range.after());
            if segments.is_empty() || !apart {
                return Err(format!("the ranges of {key} are not in order"));
            }
            if chains.insert(key.clone(), Chain { segments, last, parents }).is_some() {
                return Err(format!("{key} is in it twice"));
            }
        }
        Ok(Chains(chains))
    }
}
