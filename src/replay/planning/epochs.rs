//! What the lake log and the commit records say of the epochs, for planning.
//!
//! Owns: an outline of every epoch and operation up to a version. Does not own: which of them are replaced (`selection`).
//!
//! Old entries of the log may have been trimmed. Commit records are kept, so the epochs of trimmed entries are read from these. A record
//! that is not in the log yet is of a pending epoch, and was written after the oldest entry that is left.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;
use checkpoints::{Position, ShardKey};
use futures::{StreamExt, stream};
use pipeline::layout::COMMITS;
use pipeline::time::parse_rfc3339;

use crate::commit::lake_log::{Entry, Extent, LogVersion, read_backward};
use crate::commit::{
    DefinitionOfEpoch, EpochId, Manifest, ShardOfEpoch, Totals, UnreadableManifest, is_internal_stream,
};
use crate::lake::{ObjectKey, ObjectStore};
use crate::replay::planning::PlanningError;

/// Commit records that are read at once.
const CONCURRENT: usize = 32;

/// What planning needs to know of an epoch or an operation.
#[derive(Debug, Clone)]
pub(super) struct Outline {
    pub(super) epoch: EpochId,
    /// The version of its entry; [`LogVersion::EMPTY`] if the entry was trimmed.
    pub(super) version: LogVersion,
    pub(super) is_operation: bool,
    /// When its manifest was written: milliseconds since 1970.
    pub(super) written_ms: i64,
    /// What it read. Empty for an operation.
    pub(super) ranges: Vec<ReadOnce>,
    pub(super) records: u64,
    /// Raw lines; `None` if the raw landing was off.
    pub(super) raw_lines: Option<u64>,
    pub(super) definitions: BTreeMap<String, DefinitionOfEpoch>,
    /// The datasets of its rows.
    pub(super) datasets: BTreeSet<String>,
    /// Whether some of its records became dead letters.
    pub(super) has_dead_letters: bool,
    /// Of an operation: the epochs whose records its objects have.
    pub(super) sources: Vec<EpochId>,
}

/// A range that an epoch read.
#[derive(Debug, Clone)]
pub(super) struct ReadOnce {
    pub(super) key: ShardKey,
    pub(super) after: Position,
    pub(super) through: Position,
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// All its records, and all before it, arrived before this time: milliseconds since 1970.
    pub(super) arrived_through: Option<i64>,
}

impl Outline {
    /// Whether the epoch has rows of a dataset, or dead letters that may become such rows.
    pub(super) fn may_have(&self, dataset: &str) -> bool {
        self.has_dead_letters || self.datasets.contains(dataset)
    }

    fn of_entry(entry: Entry) -> Self {
        let Entry { version, kind, epoch, written_at, shards, totals, definitions, .. } = entry;
        let is_operation = kind.is_operation();
        Outline::new(version, is_operation, epoch, &written_at, ranges_of(shards), totals, definitions)
    }

    fn of_record(record: Manifest) -> Self {
        let Manifest { kind, epoch, written_at, shards, totals, definitions, .. } = record;
        let (version, is_operation) = (LogVersion::EMPTY, kind.is_operation());
        Outline::new(version, is_operation, epoch, &written_at, ranges_of(shards), totals, definitions)
    }

    fn new(
        version: LogVersion,
        is_operation: bool,
        epoch: EpochId,
        written_at: &str,
        ranges: Vec<ReadOnce>,
        totals: Totals,
        definitions: BTreeMap<String, DefinitionOfEpoch>,
    ) -> Self {
        Outline {
            epoch,
            version,
            is_operation,
            written_ms: time_of(written_at),
            ranges,
            records: totals.records,
            raw_lines: totals.raw_lines,
            has_dead_letters: !totals.dead_letters.is_empty(),
            datasets: totals.rows.into_keys().collect(),
            definitions,
            sources: Vec::new(),
        }
    }
}

fn time_of(text: &str) -> i64 {
    parse_rfc3339(text.as_bytes()).unwrap_or(i64::MAX)
}

fn ranges_of(shards: Vec<ShardOfEpoch>) -> Vec<ReadOnce> {
    let of_source = shards.into_iter().filter(|shard| !is_internal_stream(&shard.key.stream));
    let range = |shard: ShardOfEpoch| ReadOnce {
        key: shard.key,
        after: shard.range.after().clone(),
        through: shard.range.through().clone(),
        records: shard.records,
        bytes: shard.bytes,
        arrived_through: shard.arrived_through,
    };
    of_source.map(range).collect()
}

/// The epochs and operations up to a version, the oldest first.
///
/// # Errors
/// The lake fails, its log is damaged, or a commit record cannot be read.
pub(super) async fn read_outlines(
    lake: &dyn ObjectStore,
    extent: &Extent,
    version: LogVersion,
) -> Result<Vec<Outline>, PlanningError> {
    let (mut outlines, mut oldest) = (Vec::new(), None);
    read_backward(lake, version, extent, &mut |entry| {
        oldest = Some((entry.version, time_of(&entry.entered_at)));
        outlines.push(Outline::of_entry(entry));
        true
    })
    .await?;
    outlines.reverse();
    if let Some((lowest, entered_ms)) = oldest.filter(|(lowest, _)| *lowest > LogVersion(1)) {
        let seen: HashSet<EpochId> = outlines.iter().map(|outline| outline.epoch.clone()).collect();
        tracing::debug!(%lowest, "older entries of the lake log were trimmed; reading commit records");
        let mut trimmed = read_records(lake, &seen).await?;
        trimmed.retain(|outline| outline.written_ms <= entered_ms);
        trimmed.sort_by_key(|outline| outline.written_ms);
        trimmed.append(&mut outlines);
        outlines = trimmed;
    }
    // An entry does not name the epochs whose records an operation has.
    for outline in outlines.iter_mut().filter(|outline| outline.is_operation) {
        let key = outline.epoch.commit_key();
        let missing = || UnreadableManifest { name: key.to_string(), problem: "it is not there".to_owned() };
        let bytes = lake.get(&key).await?.ok_or_else(missing)?;
        outline.sources = Manifest::from_bytes(&key, &bytes)?.sources;
    }
    Ok(outlines)
}

async fn read_records(lake: &dyn ObjectStore, seen: &HashSet<EpochId>) -> Result<Vec<Outline>, PlanningError> {
    let listed = lake.list(COMMITS).await?;
    let is_new = |key: &ObjectKey| EpochId::of_commit_key(key).is_some_and(|epoch| !seen.contains(&epoch));
    let keys = listed.into_iter().map(|object| object.key).filter(is_new);
    let mut reading = stream::iter(keys).map(|key| async move { (lake.get(&key).await, key) }).buffered(CONCURRENT);
    let mut outlines = Vec::new();
    while let Some((bytes, key)) = reading.next().await {
        let Some(bytes): Option<Bytes> = bytes? else { continue };
        outlines.push(Outline::of_record(Manifest::from_bytes(&key, &bytes)?));
    }
    Ok(outlines)
}

/// All streams of these epochs.
pub(super) fn streams_of(outlines: &[Outline]) -> BTreeSet<checkpoints::StreamName> {
    outlines.iter().flat_map(|outline| outline.ranges.iter().map(|range| range.key.stream.clone())).collect()
}
