//! How far each shard was read by arrival time, and which streams each dataset has its rows from.
//!
//! Owns: what commit records say about it, added up, and the watermark that follows ([`Arrivals::watermarks`]). Does not own: where
//! the times come from (the sources and the epoch's ledger), printing.
//!
//! A time `t` of a shard means: every record of the shard that arrived before `t` has been committed. A source gives such times if its
//! service says when each record arrived; files have none. Times are the service's. They come from the last record of a range, and
//! from shards that were at their tips with nothing to read (`Manifest::idle`).
//!
//! The *watermark* of a stream is the least time of its shards. A shard that has ended does not count. A child of it that was not
//! read yet counts with the time of its parent, since its records arrived after all of its parent's. The watermark of a dataset is the
//! least of the streams that it has rows from: "events of the dataset are complete up to this time". A shard or stream without a time
//! leaves the watermark unknown.
//!
//! Addition is commutative: of two times of a shard the later one counts, and both are true.

use std::collections::{BTreeMap, BTreeSet};

use checkpoints::{Lease, Position, ShardId, ShardKey, StreamName};
use pipeline::time::format_rfc3339;
use serde::{Deserialize, Serialize, Serializer};

use crate::commit::manifest::{IdleShard, ShardOfEpoch, optional_time};

/// What commit records say about arrival times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Arrivals {
    shards: BTreeMap<ShardKey, ShardArrivals>,
    /// The streams that were read by epochs with rows of a dataset.
    streams: BTreeMap<String, BTreeSet<StreamName>>,
}

/// One shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ShardArrivals {
    /// Everything that arrived before this time is committed.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_time")]
    through: Option<i64>,
    /// It was read to its end, and these are its children.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    children: Option<BTreeSet<ShardId>>,
}

/// The stored form: JSON has no keys of two parts.
#[derive(Serialize, Deserialize)]
struct Stored {
    shards: Vec<StoredShard>,
    streams: BTreeMap<String, BTreeSet<StreamName>>,
}

#[derive(Serialize, Deserialize)]
struct StoredShard {
    #[serde(flatten)]
    key: ShardKey,
    #[serde(flatten)]
    arrivals: ShardArrivals,
}

impl From<Arrivals> for Stored {
    fn from(Arrivals { shards, streams }: Arrivals) -> Self {
        let shards = shards.into_iter().map(|(key, arrivals)| StoredShard { key, arrivals }).collect();
        Stored { shards, streams }
    }
}

impl From<Stored> for Arrivals {
    fn from(Stored { shards, streams }: Stored) -> Self {
        Arrivals { shards: shards.into_iter().map(|one| (one.key, one.arrivals)).collect(), streams }
    }
}

/// How far a dataset is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Watermark {
    /// The dataset.
    pub dataset: String,
    /// How far.
    #[serde(flatten)]
    pub complete: Complete,
    /// The streams that it has rows from.
    pub streams: Vec<StreamWatermark>,
}

/// How far a stream was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamWatermark {
    /// The stream.
    pub stream: StreamName,
    /// Whether its source says when records arrived. Files do not.
    pub has_times: bool,
    /// How far.
    #[serde(flatten)]
    pub complete: Complete,
}

/// Up to what arrival time something is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Complete {
    /// Up to a time.
    Through {
        /// Everything that arrived before this time is committed: milliseconds since 1970. RFC 3339 in JSON.
        #[serde(serialize_with = "as_time")]
        complete_through: i64,
        /// The shard that has it.
        held_back_by: ShardKey,
    },
    /// All shards have ended, and were read to their ends.
    Ended,
    /// A shard has no time: it was not read yet, or its source does not say when records arrived.
    Unknown {
        /// The shard.
        held_back_by: ShardKey,
    },
}

fn as_time<S: Serializer>(ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_rfc3339(*ms))
}

impl Complete {
    /// The lesser of two: what is complete in both.
    fn and(self, other: Complete) -> Complete {
        match (&self, &other) {
            (Complete::Unknown { .. }, _) | (_, Complete::Ended) => self,
            (_, Complete::Unknown { .. }) | (Complete::Ended, _) => other,
            (Complete::Through { complete_through: one, .. }, Complete::Through { complete_through: two, .. }) => {
                if one <= two { self } else { other }
            }
        }
    }
}

impl Arrivals {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty() && self.streams.is_empty()
    }

    /// Adds what an epoch says.
    pub(super) fn add<'a>(
        &mut self,
        shards: &[ShardOfEpoch],
        idle: &[IdleShard],
        datasets: impl Iterator<Item = &'a String>,
    ) {
        for shard in shards {
            let is_end = *shard.range.through() == Position::End;
            // What says nothing takes no place here: there may be a million files.
            if shard.arrived_through.is_none() && shard.children.is_empty() {
                continue;
            }
            let known = self.shards.entry(shard.key.clone()).or_default();
            known.through = known.through.max(shard.arrived_through);
            if is_end {
                known.children.get_or_insert_default().extend(shard.children.iter().cloned());
            }
        }
        for IdleShard { key, at: _, arrived_through } in idle {
            let known = self.shards.entry(key.clone()).or_default();
            known.through = known.through.max(Some(*arrived_through));
        }
        let streams: BTreeSet<&StreamName> = shards.iter().map(|shard| &shard.key.stream).collect();
        for dataset in datasets {
            let of_dataset = self.streams.entry(dataset.clone()).or_default();
            of_dataset.extend(
                streams.iter().copied().filter(|stream| !of_dataset.contains(*stream)).cloned().collect::<Vec<_>>(),
            );
        }
    }

    /// Everything of the shard that arrived before this time is committed: milliseconds since 1970. `None` if nothing is known.
    pub fn complete_through(&self, key: &ShardKey) -> Option<i64> {
        self.shards.get(key).and_then(|shard| shard.through)
    }

    /// Whether any record of a stream has a time of arrival.
    fn has_times(&self, stream: &StreamName) -> bool {
        self.shards.iter().any(|(key, shard)| key.stream == *stream && shard.through.is_some())
    }

    /// The watermark of each dataset that has rows. `read` are the shards that have been read, with the ends of what was read; `rows`
    /// are the leases, for shards that nobody has read yet.
    pub fn watermarks<'a>(
        &self,
        read: impl Iterator<Item = (&'a ShardKey, &'a Position)>,
        rows: &[Lease],
    ) -> Vec<Watermark> {
        let mut open: BTreeMap<ShardKey, Option<i64>> = BTreeMap::new();
        let mut ended: BTreeSet<&ShardKey> = BTreeSet::new();
        for (key, end) in read {
            if *end == Position::End {
                ended.insert(key);
            } else {
                open.insert(key.clone(), self.shards.get(key).and_then(|shard| shard.through));
            }
        }
        for (key, shard) in &self.shards {
            match &shard.children {
                None if ended.contains(key) => {}
                None => {
                    open.insert(key.clone(), shard.through);
                }
                Some(children) => {
                    for child in children {
                        let child = ShardKey::new(key.stream.clone(), child.clone());
                        // A merged shard has two parents; its records arrived after those of both.
                        if !self.shards.contains_key(&child) && !ended.contains(&child) {
                            let time = open.entry(child).or_insert(shard.through);
                            *time = (*time).max(shard.through);
                        }
                    }
                }
            }
        }
        let unread: BTreeSet<&ShardKey> =
            rows.iter().filter(|row| row.checkpoint != Position::End).map(|row| &row.key).collect();
        for row in rows.iter().filter(|row| unread.contains(&row.key)) {
            // A parent that is not read to its end holds the stream back itself.
            let is_open = |parent: &ShardId| {
                let parent = ShardKey::new(row.key.stream.clone(), parent.clone());
                unread.contains(&parent) || open.contains_key(&parent)
            };
            if !row.parents.iter().any(is_open) {
                open.entry(row.key.clone()).or_insert(None);
            }
        }
        let mut streams: BTreeMap<&StreamName, Complete> = BTreeMap::new();
        for (key, time) in &open {
            let complete = match time {
                Some(ms) => Complete::Through { complete_through: *ms, held_back_by: key.clone() },
                None => Complete::Unknown { held_back_by: key.clone() },
            };
            let before = streams.remove(&key.stream).unwrap_or(Complete::Ended);
            streams.insert(&key.stream, before.and(complete));
        }
        let of_dataset = |(dataset, names): (&String, &BTreeSet<StreamName>)| {
            let of_stream = |stream: &StreamName| StreamWatermark {
                stream: stream.clone(),
                has_times: self.has_times(stream),
                complete: streams.get(stream).cloned().unwrap_or(Complete::Ended),
            };
            let streams: Vec<StreamWatermark> = names.iter().map(of_stream).collect();
            let complete = streams.iter().fold(Complete::Ended, |all, one| all.and(one.complete.clone()));
            Watermark { dataset: dataset.clone(), complete, streams }
        };
        self.streams.iter().map(of_dataset).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use checkpoints::{NewLease, ShardRange};

    fn key(shard: &str) -> ShardKey {
        ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new(shard).unwrap())
    }

    fn shard(name: &str, through: Position, children: &[&str], arrived_through: Option<i64>) -> ShardOfEpoch {
        ShardOfEpoch {
            key: key(name),
            parents: Vec::new(),
            range: ShardRange::new(Position::Beginning, through).unwrap(),
            children: children.iter().map(|child| ShardId::new(*child).unwrap()).collect(),
            taken_over: false,
            records: 1,
            bytes: 1,
            arrived_through,
        }
    }

    fn at(sequence: u64) -> Position {
        Position::at(sequence.into())
    }

    /// The watermark of the only dataset after these epochs.
    fn watermark(epochs: &[(Vec<ShardOfEpoch>, Vec<IdleShard>)], rows: &[Lease]) -> Complete {
        let mut arrivals = Arrivals::default();
        let mut ends: BTreeMap<ShardKey, Position> = BTreeMap::new();
        for (shards, idle) in epochs {
            arrivals.add(shards, idle, ["events".to_owned()].iter());
            ends.extend(shards.iter().map(|shard| (shard.key.clone(), shard.range.through().clone())));
        }
        let stored: Arrivals = serde_json::from_str(&serde_json::to_string(&arrivals).unwrap()).unwrap();
        assert_eq!(stored, arrivals, "it is read as it was written");
        let mut watermarks = arrivals.watermarks(ends.iter(), rows);
        assert_eq!(watermarks.len(), 1);
        watermarks.remove(0).complete
    }

    fn through(ms: i64, shard: &str) -> Complete {
        Complete::Through { complete_through: ms, held_back_by: key(shard) }
    }

    fn idle(shard: &str, ms: i64) -> IdleShard {
        IdleShard { key: key(shard), at: at(1), arrived_through: ms }
    }

    #[test]
    fn the_shard_that_was_read_least_far_holds_the_watermark_back() {
        let both = vec![shard("a", at(9), &[], Some(500)), shard("b", at(9), &[], Some(300))];
        assert_eq!(watermark(&[(both.clone(), vec![])], &[]), through(300, "b"));
        let idle_after = (vec![shard("a", at(12), &[], Some(900))], vec![idle("b", 800)]);
        assert_eq!(watermark(&[(both.clone(), vec![]), idle_after.clone()], &[]), through(800, "b"));
        // In any order: times only grow.
        assert_eq!(watermark(&[idle_after, (both, vec![])], &[]), through(800, "b"));
    }

    #[test]
    fn a_shard_that_was_not_read_or_has_no_times_leaves_it_unknown() {
        let one = vec![(vec![shard("a", at(9), &[], Some(500))], vec![])];
        let row = Lease::new(NewLease::new(key("b"), Position::Beginning));
        assert_eq!(watermark(&one, std::slice::from_ref(&row)), Complete::Unknown { held_back_by: key("b") });
        assert_eq!(watermark(&[(one[0].0.clone(), vec![idle("b", 400)])], &[row]), through(400, "b"));
        let without_time = vec![(vec![shard("a", at(9), &[], Some(500)), shard("c", at(9), &[], None)], vec![])];
        assert_eq!(watermark(&without_time, &[]), Complete::Unknown { held_back_by: key("c") });
    }

    #[test]
    fn ended_shards_do_not_count_and_their_unread_children_count_from_their_end() {
        let ended = |name: &str, child: &str, ms| shard(name, Position::End, &[child], Some(ms));
        let split = (vec![ended("a", "c", 500), shard("b", at(9), &[], Some(900))], vec![]);
        assert_eq!(watermark(std::slice::from_ref(&split), &[]), through(500, "c"));
        let read = (vec![shard("c", at(5), &[], Some(1000))], vec![]);
        assert_eq!(watermark(&[split, read], &[]), through(900, "b"));
        // A child of two parents has records that arrived after both had ended.
        let merged = (vec![ended("a", "c", 500), ended("b", "c", 700)], vec![]);
        assert_eq!(watermark(&[merged], &[]), through(700, "c"));
        let all = (vec![shard("a", Position::End, &[], Some(500))], vec![]);
        assert_eq!(watermark(&[all], &[]), Complete::Ended);
    }
}
