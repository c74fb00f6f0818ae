//! What one epoch did, as it is stored: first as the intent, then as the commit record.
//!
//! Owns: the format, in both directions. An intent `_intents/<epoch>.json` is written before the decision. The commit record
//! `_commits/<epoch>.json` has the same bytes and is written once all objects are visible. Whoever rolls an epoch forward
//! needs nothing else: not the stream, not the configuration, not the version that wrote it. Does not own: the names
//! (`epoch_id`), the sums (`totals`), reading many records (`log`).
//!
//! ```json
//! {"format":3,"kind":"epoch","epoch":"20250113T103000Z-3f2a91c07d5e4b10-000001","worker":"3f2a91c0-…",
//!  "written_at":"2025-01-13T…Z","head":16,
//!  "shards":[{"stream":"orders","shard":"shardId-1","parents":["shardId-0"],
//!             "range":{"after":"TRIM_HORIZON","through":"4959"},"records":1000,"bytes":1398101}],
//!  "objects":[{"key":"processed/events/year=2025/month=01/day=13/…parquet","kind":"processed","dataset":"events",
//!              "partition":{"year":2025,"month":1,"day":13},"columns":[[1,4711,995,0],[2,812,995,12,"a","z"]],
//!              "rows":995,"bytes":81234,
//!              "crc64nvme":"ae8b14860a799888","upload":"3f2a91c0-1","parts":[{"number":1,"tag":""}]}],
//!  "removed":[],
//!  "totals":{"records":1000,"rows":{"events":995},"dead_letters":{"Decode.Truncated":5},"raw_lines":1000},
//!  "edges":{"decode/events/out":[998,1390000]},
//!  "definitions":{"events":{"hash":"9f86d081…","schema_version":1}},"version":"0.1.0"}
//! ```
//!
//! | field | meaning |
//! |---|---|
//! | `format` | the format of the manifest. This one and the one before are read |
//! | `kind` | what the manifest describes: `epoch`, or an operation on the lake: `replace`, `compact`, `archive`, `erase`, `undo`. Every other kind is refused |
//! | `head` | the newest version of the lake log that was known when the intent was written; 0 if absent |
//! | `shards[].parents` | the shards that this one came from, on its first range |
//! | `shards[].arrived_through` | every record of the shard that arrived before this time is in this range or in one before it |
//! | `idle` | shards that were at their tips without a record: everything that arrived before a time is at or before a position |
//! | `objects[].partition` | the values of the partition columns: numbers for parts of a date, text, or `null` |
//! | `objects[].columns` | statistics of the columns: see `pipeline::encode::column_stats`. Personal columns have no bounds |
//! | `removed` | the objects that are removed from the lake. An epoch removes none; an operation only what it holds (`operations`) |
//! | `of` | what an operation belongs to: `replay:<id>`, `redrive:<id>`, `discard:<id>`, `undo:<operation>`. An epoch has none |
//! | `sources` | the epochs whose records the added objects of an operation have, or whose dead letters it removes. An epoch has none |
//! | `swap` | how an operation swaps objects for readers who list folders, and of which objects the added ones are copies (`swap`) |
//! | `definitions` | by dataset: the hash of its definition, and the version of the lake's schema that its files have |
//!
//! What is read is checked before anybody acts on it. An object's key is in the area of its kind, since rolling back
//! deletes objects, and it names the partition that the manifest names. An epoch removes nothing. Counts are small enough to be added up. Unknown fields are ignored: they
//! belong to a later version.
//!
//! Invariant of a commit record, which `verify` checks: records = rows + dead letters; raw lines = records where the raw
//! landing is on; rows and lines of the objects add up to the totals.

use std::collections::BTreeMap;

use bytes::Bytes;
use checkpoints::{LeaseOwner, Position, ShardId, ShardKey, ShardRange};
use pipeline::encode::FileStats;
use pipeline::layout::{self, Area, Folder};
use serde::{Deserialize, Serialize};

use crate::commit::epoch_id::EpochId;
use crate::commit::lake_log::LogVersion;
use crate::commit::operations;
use crate::commit::swap::Swap;
use crate::commit::totals::{EdgeTotal, Totals};
use crate::lake::{Checksum, ObjectKey, Part, UploadId};

/// The format that this version writes.
pub const FORMAT: u32 = 3;
/// The format before, which it reads. It has no head. An earlier version of Shardlake does not read the newer one, so it cannot finish an
/// epoch without entering it into the lake log.
const FORMAT_BEFORE: u32 = 2;
/// The most records, rows, lines or bytes of an epoch: 9 PB, and the largest number that all JSON readers know exactly.
const COUNT_MAX: u64 = 1 << 53;

/// What a manifest describes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ManifestKind {
    /// Records that were read between two commits.
    #[default]
    Epoch,
    /// Objects are replaced by others, as when a part of the past is processed again.
    Replace,
    /// Many small objects become few.
    Compact,
    /// Objects move to an archive.
    Archive,
    /// Records of a person are removed, permanently.
    Erase,
    /// Another operation is taken back.
    Undo,
}

impl ManifestKind {
    /// All kinds, as they are stored.
    const ALL: [(&str, ManifestKind); 6] = [
        ("epoch", ManifestKind::Epoch),
        ("replace", ManifestKind::Replace),
        ("compact", ManifestKind::Compact),
        ("archive", ManifestKind::Archive),
        ("erase", ManifestKind::Erase),
        ("undo", ManifestKind::Undo),
    ];

    /// Whether it is an operation on the lake, and not what a worker has read.
    pub fn is_operation(self) -> bool {
        self != ManifestKind::Epoch
    }
}

/// What an epoch read of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardOfEpoch {
    /// The shard.
    #[serde(flatten)]
    pub key: ShardKey,
    /// The shards that this one came from, on its first range.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<ShardId>,
    /// What was read of it.
    pub range: ShardRange,
    /// The shards that it became, if its end was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ShardId>,
    /// Set on the first range of a shard that another program (a KCL application) had read to where it begins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub taken_over: bool,
    /// Records in the range.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Every record of the shard that arrived before this time is in this range, or in one before it: milliseconds since 1970, by
    /// the stream's own clock. `None` if the source does not know. RFC 3339 in JSON.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_time")]
    pub arrived_through: Option<i64>,
}

/// A shard that was at its tip, and of which the epoch has no range.
///
/// It says something about the stream and nothing about the lease, so it is true whoever holds the lease when it is committed. Its
/// position was committed before, so what it says is complete in the lake too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdleShard {
    /// The shard.
    #[serde(flatten)]
    pub key: ShardKey,
    /// Where it was read to.
    pub at: Position,
    /// Every record that arrived before this time is at or before the position: milliseconds since 1970, by the stream's own clock.
    /// RFC 3339 in JSON.
    #[serde(with = "time")]
    pub arrived_through: i64,
}

/// What an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    /// Rows.
    Processed,
    /// Records as received.
    Raw,
    /// Dead letters.
    Error,
}

impl ObjectKind {
    /// All kinds.
    pub const ALL: [ObjectKind; 3] = [ObjectKind::Processed, ObjectKind::Raw, ObjectKind::Error];

    /// The area of the lake that such objects are in.
    pub fn area(self) -> Area {
        match self {
            ObjectKind::Processed => Area::Processed,
            ObjectKind::Raw => Area::Raw,
            ObjectKind::Error => Area::Error,
        }
    }

    /// The prefix of the keys of such objects.
    pub fn prefix(self) -> &'static str {
        self.area().prefix()
    }
}

/// One object of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectOfEpoch {
    /// Its key.
    pub key: ObjectKey,
    /// What it holds.
    pub kind: ObjectKind,
    /// The dataset of its rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// The values of the partition columns of its rows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub partition: BTreeMap<String, PartitionValue>,
    /// Statistics of its columns.
    #[serde(default, skip_serializing_if = "FileStats::is_empty", with = "column_stats")]
    pub columns: FileStats,
    /// Rows or lines in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Its checksum.
    pub crc64nvme: Checksum,
    /// The upload that it is staged in.
    pub upload: UploadId,
    /// The upload's parts.
    pub parts: Vec<Part>,
}

/// An object that an operation removes from the lake: what is needed to subtract it from all sums.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RemovedObject {
    /// Its key.
    pub key: ObjectKey,
    /// What it holds.
    pub kind: ObjectKind,
    /// The dataset of its rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Rows or lines in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// The value of a partition column, as JSON has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PartitionValue {
    /// A part of a date.
    Number(u32),
    /// A text.
    Text(String),
    /// No value.
    Null,
}

/// The definition by which a dataset's rows were made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefinitionOfEpoch {
    /// The hash of the definition and of its lookup tables, in hex.
    pub hash: String,
    /// The version of the dataset's schema in the lake.
    pub schema_version: u32,
}

/// One epoch, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// What it describes.
    pub kind: ManifestKind,
    /// Its name.
    pub epoch: EpochId,
    /// The worker that wrote it.
    pub worker: LeaseOwner,
    /// When it was written, RFC 3339.
    pub written_at: String,
    /// The newest version of the lake log that was known when the intent was written. Whoever enters the epoch begins there.
    #[serde(default)]
    pub head: LogVersion,
    /// What was read. Never empty.
    pub shards: Vec<ShardOfEpoch>,
    /// Shards of the same worker that had nothing to read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub idle: Vec<IdleShard>,
    /// The objects that were made.
    pub objects: Vec<ObjectOfEpoch>,
    /// The objects that it removes from the lake. Empty for what a worker has read.
    pub removed: Vec<RemovedObject>,
    /// What an operation belongs to, such as `replay:1f2e3d4c`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// The epochs whose records the added objects of an operation have, or whose dead letters it removes, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<EpochId>,
    /// How an operation swaps objects for readers who list folders. `None`: it adds all, enters the log, and then removes all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<Swap>,
    /// What the records became.
    pub totals: Totals,
    /// What passed along the stage graph's edges, by their ids.
    pub edges: BTreeMap<String, EdgeTotal>,
    /// The datasets' definitions.
    pub definitions: BTreeMap<String, DefinitionOfEpoch>,
    /// The product's version.
    pub version: String,
}

/// A stored manifest, or a roll-up of manifests, that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} cannot be read: {problem}")]
pub struct UnreadableManifest {
    /// Its key.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

impl From<&ObjectOfEpoch> for RemovedObject {
    fn from(object: &ObjectOfEpoch) -> Self {
        let ObjectOfEpoch { key, kind, dataset, rows, bytes, .. } = object;
        RemovedObject { key: key.clone(), kind: *kind, dataset: dataset.clone(), rows: *rows, bytes: *bytes }
    }
}

impl ObjectOfEpoch {
    /// The values of the partition columns in an object's key; none if it has no such columns.
    pub(crate) fn partition_of(key: &ObjectKey) -> BTreeMap<String, PartitionValue> {
        match folder_of(key) {
            Some(Folder::Processed { partition, .. }) => {
                partition.columns().map(|(name, value)| (name.to_owned(), value.into())).collect()
            }
            _ => BTreeMap::new(),
        }
    }
}

/// The code of the dead letters in an object, and the day of their arrival as in `2025-01-13`; question marks if another
/// version chose the key, in a way that this one does not know.
pub(super) fn code_and_day(key: &ObjectKey) -> (String, String) {
    match folder_of(key) {
        Some(Folder::Error { code, day }) => (code.to_string(), day.to_string()),
        _ => ("?".to_owned(), "?".to_owned()),
    }
}

fn folder_of(key: &ObjectKey) -> Option<Folder> {
    let (folder, _) = key.as_str().rsplit_once('/')?;
    Folder::parse(folder).ok()
}

impl From<layout::PartitionValue> for PartitionValue {
    fn from(value: layout::PartitionValue) -> Self {
        match value {
            layout::PartitionValue::Number(number) => PartitionValue::Number(number),
            layout::PartitionValue::Text(text) => PartitionValue::Text(text),
            layout::PartitionValue::Null => PartitionValue::Null,
        }
    }
}

impl Manifest {
    /// The bytes of intent and commit record.
    pub fn to_bytes(&self) -> Bytes {
        // A buffer of the right size, since one that doubles would take three times the size of a large manifest.
        let of_object = |object: &ObjectOfEpoch| object.columns.as_json().len() + 3 * object.key.as_str().len() + 256;
        let of_removed = |object: &RemovedObject| object.key.as_str().len() + 128;
        let expected = 4096
            + 256 * self.shards.len()
            + self.objects.iter().map(of_object).sum::<usize>()
            + self.removed.iter().map(of_removed).sum::<usize>()
            + 64 * self.sources.len()
            + self
                .swap
                .iter()
                .flat_map(|swap| &swap.copies)
                .map(|(to, from)| 16 + to.as_str().len() + from.as_str().len())
                .sum::<usize>();
        let mut bytes = Vec::with_capacity(expected);
        serde_json::to_writer(&mut bytes, self).expect("a manifest has only text keys and finite numbers");
        bytes.push(b'\n');
        Bytes::from(bytes)
    }

    /// Reads an intent or a commit record; `key` is where it was found.
    ///
    /// # Errors
    /// It is damaged, of another format or kind, of another epoch than its key, or says what no epoch does.
    pub fn from_bytes(key: &ObjectKey, bytes: &[u8]) -> Result<Self, UnreadableManifest> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
            kind: Option<String>,
        }
        let unreadable = |problem: String| UnreadableManifest { name: key.to_string(), problem };
        let head: Head = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        let known = match (head.format, head.kind.as_deref()) {
            (FORMAT, Some(kind)) if ManifestKind::ALL.iter().any(|(known, _)| *known == kind) => Ok(()),
            (FORMAT_BEFORE, Some("epoch")) => Ok(()),
            (FORMAT | FORMAT_BEFORE, kind) => Err(format!(
                "it is of kind '{}', which this version of shardlake does not know; use a newer version",
                kind.unwrap_or_default()
            )),
            (format, _) if format < FORMAT => Err(format!(
                "it has format {format}, which an older version of shardlake wrote; this version reads formats \
                 {FORMAT_BEFORE} and {FORMAT} only, and needs a new lake"
            )),
            (format, _) => Err(format!(
                "it has format {format}, and this version of shardlake reads formats {FORMAT_BEFORE} and {FORMAT} only; use \
                 a newer version"
            )),
        };
        known.map_err(unreadable)?;
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        if manifest.epoch.intent_key() != *key && manifest.epoch.commit_key() != *key {
            return Err(unreadable(format!("it is of epoch {}", manifest.epoch)));
        }
        manifest.check().map_err(unreadable)?;
        Ok(manifest)
    }

    /// Whether an epoch, or an operation, may have done this.
    ///
    /// # Errors
    /// What it may not have done.
    pub fn check(&self) -> Result<(), String> {
        if self.shards.is_empty() {
            return Err("it has no shards".to_owned());
        }
        for object in &self.objects {
            if Area::of(object.key.as_str()) != Some(object.kind.area()) {
                return Err(format!("its object {} is not in {}", object.key, object.kind.prefix()));
            }
            if object.partition != ObjectOfEpoch::partition_of(&object.key) {
                return Err(format!("its object {} is in another partition than the manifest says", object.key));
            }
        }
        operations::check(self)?;
        let Totals { records, rows, dead_letters, raw_lines, nulled_values, denied_keys } = &self.totals;
        let sum = |what: &str, counts: &mut dyn Iterator<Item = u64>| {
            let sum = counts.fold(0, u64::saturating_add);
            if sum <= COUNT_MAX { Ok(()) } else { Err(format!("no epoch has {sum} {what}")) }
        };
        sum("records", &mut std::iter::once(*records))?;
        sum("rows and dead letters", &mut rows.values().chain(dead_letters.values()).copied())?;
        sum("raw lines", &mut raw_lines.iter().copied())?;
        sum("values that became null", &mut nulled_values.values().copied())?;
        sum("denied keys", &mut denied_keys.values().copied())?;
        sum("records in its shards", &mut self.shards.iter().map(|shard| shard.records))?;
        sum("bytes in its shards", &mut self.shards.iter().map(|shard| shard.bytes))?;
        sum("rows in its objects", &mut self.objects.iter().map(|object| object.rows))?;
        sum("bytes in its objects", &mut self.objects.iter().map(|object| object.bytes))?;
        sum("rows in the objects that it removes", &mut self.removed.iter().map(|object| object.rows))?;
        sum("bytes in the objects that it removes", &mut self.removed.iter().map(|object| object.bytes))?;
        sum("records along its edges", &mut self.edges.values().map(|edge| edge.0))?;
        sum("bytes along its edges", &mut self.edges.values().map(|edge| edge.1))
    }
}

/// A time as RFC 3339 in JSON.
pub(super) mod time {
    use pipeline::time::{format_rfc3339, parse_rfc3339};
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_rfc3339(*ms))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_rfc3339(text.as_bytes()).ok_or_else(|| D::Error::custom(format!("'{text}' is not a valid time")))
    }
}

/// A time that may be absent, likewise.
pub(super) mod optional_time {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(ms: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
        match ms {
            Some(ms) => super::time::serialize(ms, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
        #[derive(Deserialize)]
        struct Time(#[serde(with = "super::time")] i64);
        Ok(Option::<Time>::deserialize(deserializer)?.map(|Time(ms)| ms))
    }
}

/// Column statistics as a part of a manifest, and of an entry of the lake log.
pub(super) mod column_stats {
    use pipeline::encode::FileStats;
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    type Columns = Vec<Vec<Value>>;

    pub(crate) fn serialize<S: Serializer>(stats: &FileStats, serializer: S) -> Result<S::Ok, S::Error> {
        let columns: Columns = serde_json::from_str(stats.as_json()).map_err(S::Error::custom)?;
        columns.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FileStats, D::Error> {
        let columns = Columns::deserialize(deserializer)?;
        let json = serde_json::to_string(&columns).map_err(D::Error::custom)?;
        FileStats::from_json(&json).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
