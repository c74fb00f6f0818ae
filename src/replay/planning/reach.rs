//! Where the records of an epoch can be read again: in `raw/`, or in its streams.
//!
//! Owns: the choice for each epoch, and what is missing. Does not own: reading.
//!
//! `raw/` comes first, unless somebody wants otherwise. A replay from `raw/` does not compete with the live workers for the 5 reads and
//! 2 MB a second of a shard, and it does not depend on the retention of the stream.
//!
//! - `raw/` has an epoch if all its raw lines are in live objects, and each of these carries the identities of its records.
//! - A stream has a range if it is configured, keeps records for long enough, and still has something after the position where the range
//!   begins. A stream does not say when the first record of its first range arrived. Then the time counts at which the epoch began, and
//!   the run finds out whether records are missing: it compares its counts with those of the epochs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::{Position, ShardKey, StreamName};
use futures::{StreamExt, stream};
use pipeline::time::format_rfc3339;
use serde::Serialize;

use crate::commit::lake_log::AddedObject;
use crate::lake::{LakeError, ObjectKey};
use crate::replay::planning::epochs::{Outline, ReadOnce};
use crate::source::{Behind, ShardSource};

/// Questions that are asked at once.
const CONCURRENT: usize = 16;
/// What is left of the retention of a stream when a replay is planned must suffice for the replay to begin.
const RETENTION_MARGIN: Duration = Duration::from_secs(300);

/// Whether raw objects carry the identities of their records.
#[async_trait]
pub trait Identities: Send + Sync {
    /// Whether this object does.
    ///
    /// # Errors
    /// The lake fails.
    async fn has(&self, key: &ObjectKey) -> Result<bool, LakeError>;
}

/// A part of the range that is nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The shard.
    #[serde(flatten)]
    pub key: ShardKey,
    /// Where the part begins.
    pub after: Position,
    /// Where it ends.
    pub through: Position,
    /// When the epoch that has read it was written.
    pub written_at: String,
    /// Why it cannot be read.
    pub why: String,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Missing { key, after, through, written_at, why } = self;
        write!(f, "{key}, after {after} through {through}, committed at {written_at}: {why}")
    }
}

/// Where an epoch is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadFrom {
    Raw,
    Streams,
}

/// A range of a shard that is read from its stream: ranges of several epochs that touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamRange {
    pub(super) key: ShardKey,
    pub(super) after: Position,
    pub(super) through: Position,
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// The epochs, by their numbers in the outlines.
    epochs: Vec<usize>,
}

/// Where everything is read.
#[derive(Debug, Default)]
pub(super) struct Reach {
    pub(super) from: BTreeMap<usize, ReadFrom>,
    pub(super) ranges: Vec<StreamRange>,
    pub(super) missing: Vec<Missing>,
}

/// What the choice depends on.
pub(super) struct Around<'a> {
    pub(super) outlines: &'a [Outline],
    /// The live raw objects of each epoch, by its number in the outlines.
    pub(super) raw: &'a HashMap<usize, Vec<AddedObject>>,
    pub(super) identities: &'a dyn Identities,
    pub(super) sources: &'a [Arc<dyn ShardSource>],
    /// When the records before each range had arrived, by epoch and number in it.
    pub(super) arrivals: &'a HashMap<(usize, usize), i64>,
    pub(super) prefers_streams: bool,
    pub(super) now_ms: i64,
}

/// How long a stream keeps its records.
enum Keeps {
    Forever,
    For(Duration),
    /// It cannot be read, for this reason.
    Unknown(String),
}

impl Around<'_> {
    /// Chooses for these epochs.
    pub(super) async fn choose(&self, epochs: &BTreeSet<usize>) -> Result<Reach, LakeError> {
        let mut in_raw: HashMap<usize, Result<(), String>> = HashMap::new();
        let asked = stream::iter(epochs.iter().copied()).map(|epoch| self.raw_has(epoch));
        let mut answers = asked.buffer_unordered(CONCURRENT);
        while let Some(answer) = answers.next().await {
            let (epoch, has) = answer?;
            in_raw.insert(epoch, has);
        }
        drop(answers);
        let keeps = self.keeps().await;
        let mut not_in_streams: HashMap<usize, BTreeMap<usize, String>> = HashMap::new();
        for epoch in epochs.iter().copied() {
            for (number, range) in self.outlines[epoch].ranges.iter().enumerate() {
                if let Err(why) = self.stream_has(&keeps, epoch, number, range) {
                    not_in_streams.entry(epoch).or_default().insert(number, why);
                }
            }
        }
        // A stream may turn out not to have a range after all. Then the choice is made again without it.
        loop {
            let from: BTreeMap<usize, ReadFrom> = epochs
                .iter()
                .filter_map(|epoch| {
                    let (raw, streams) = (in_raw[epoch].is_ok(), !not_in_streams.contains_key(epoch));
                    Some((
                        *epoch,
                        match (raw, streams) {
                            (true, true) if self.prefers_streams => ReadFrom::Streams,
                            (true, _) => ReadFrom::Raw,
                            (false, true) => ReadFrom::Streams,
                            (false, false) => return None,
                        },
                    ))
                })
                .collect();
            let ranges = self.joined(&from);
            let mut is_settled = true;
            for range in &ranges {
                let Some(why) = self.has_nothing_after(range).await else { continue };
                is_settled = false;
                for epoch in &range.epochs {
                    let numbers = self.outlines[*epoch].ranges.iter().enumerate();
                    let of_shard = numbers.filter(|(_, own)| own.key == range.key).map(|(number, _)| number);
                    not_in_streams.entry(*epoch).or_default().extend(of_shard.map(|number| (number, why.clone())));
                }
            }
            if !is_settled {
                continue;
            }
            let missing = epochs.iter().filter(|epoch| !from.contains_key(epoch));
            let missing = missing.flat_map(|epoch| self.missing(*epoch, &in_raw[epoch], &not_in_streams[epoch]));
            let missing = missing.collect();
            return Ok(Reach { from, ranges, missing });
        }
    }

    fn missing(&self, epoch: usize, in_raw: &Result<(), String>, streams: &BTreeMap<usize, String>) -> Vec<Missing> {
        let outline = &self.outlines[epoch];
        let raw = in_raw.as_ref().err().map_or("", String::as_str);
        let of_range = |(number, why): (&usize, &String)| {
            let range = &outline.ranges[*number];
            Missing {
                key: range.key.clone(),
                after: range.after.clone(),
                through: range.through.clone(),
                written_at: format_rfc3339(outline.written_ms),
                why: format!("{why}, and {raw}"),
            }
        };
        streams.iter().map(of_range).collect()
    }

    /// Whether `raw/` has an epoch whole; otherwise why not.
    async fn raw_has(&self, epoch: usize) -> Result<(usize, Result<(), String>), LakeError> {
        let outline = &self.outlines[epoch];
        if outline.raw_lines.is_none() {
            return Ok((epoch, Err("the raw landing was off".to_owned())));
        }
        let objects = self.raw.get(&epoch).map_or(&[][..], Vec::as_slice);
        let lines: u64 = objects.iter().map(|object| object.rows).sum();
        if lines < outline.records {
            let gone = outline.records - lines;
            return Ok((epoch, Err(format!("raw/ lacks {gone} of its {} records", outline.records))));
        }
        for object in objects {
            if !self.identities.has(&object.key).await? {
                return Ok((epoch, Err("its objects in raw/ do not carry the identities of their records".to_owned())));
            }
        }
        Ok((epoch, Ok(())))
    }

    async fn keeps(&self) -> HashMap<StreamName, Keeps> {
        let mut keeps = HashMap::new();
        for source in self.sources {
            let of_source = match source.retention().await {
                Ok(None) => Keeps::Forever,
                Ok(Some(time)) => Keeps::For(time),
                Err(error) => Keeps::Unknown(error.to_string()),
            };
            keeps.insert(source.stream().clone(), of_source);
        }
        keeps
    }

    /// Whether a stream may have a range, by its retention; otherwise why not.
    fn stream_has(
        &self,
        keeps: &HashMap<StreamName, Keeps>,
        epoch: usize,
        number: usize,
        range: &ReadOnce,
    ) -> Result<(), String> {
        if range.after == Position::Latest {
            return Err("another program has decided where reading began".to_owned());
        }
        match keeps.get(&range.key.stream) {
            None => Err("the stream is not configured".to_owned()),
            Some(Keeps::Unknown(problem)) => Err(format!("the stream cannot be asked: {problem}")),
            Some(Keeps::Forever) => Ok(()),
            Some(Keeps::For(time)) => {
                let arrived = self.arrivals.get(&(epoch, number)).copied();
                let arrived = arrived.or_else(|| self.outlines[epoch].epoch.begun_ms()).unwrap_or(i64::MIN);
                let kept = time.saturating_sub(RETENTION_MARGIN);
                let oldest = self.now_ms.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
                if arrived >= oldest {
                    return Ok(());
                }
                Err(format!("the stream keeps records for {} h, and these arrived earlier", time.as_secs() / 3600))
            }
        }
    }

    /// The ranges that are read from streams. Those of one shard that touch are one.
    fn joined(&self, from: &BTreeMap<usize, ReadFrom>) -> Vec<StreamRange> {
        let mut ranges: Vec<StreamRange> = Vec::new();
        for (epoch, _) in from.iter().filter(|(_, from)| **from == ReadFrom::Streams) {
            for ReadOnce { key, after, through, records, bytes, .. } in &self.outlines[*epoch].ranges {
                ranges.push(StreamRange {
                    key: key.clone(),
                    after: after.clone(),
                    through: through.clone(),
                    records: *records,
                    bytes: *bytes,
                    epochs: vec![*epoch],
                });
            }
        }
        ranges.sort_by(|left, right| (&left.key, &left.after).cmp(&(&right.key, &right.after)));
        let mut joined: Vec<StreamRange> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last) if last.key == range.key && last.through == range.after => {
                    last.through = range.through;
                    last.records += range.records;
                    last.bytes += range.bytes;
                    last.epochs.extend(range.epochs);
                }
                _ => joined.push(range),
            }
        }
        // Nothing was read of a shard that only ended.
        joined.retain(|range| range.records > 0 || range.bytes > 0);
        joined
    }

    /// Why a stream has nothing after the position where a range begins; `None` if it has.
    async fn has_nothing_after(&self, range: &StreamRange) -> Option<String> {
        let source = self.sources.iter().find(|source| *source.stream() == range.key.stream)?;
        match source.behind(&range.key.shard, &range.after).await {
            Ok(Behind::Nothing) => Some("the stream does not have it any more".to_owned()),
            Ok(Behind::Bytes(_) | Behind::Time(_)) => None,
            Err(error) => Some(format!("the stream cannot be read: {error}")),
        }
    }
}
