//! One entry of the lake log, as it is stored.
//!
//! Owns: the format, in both directions, and the chain of hashes. Does not own: which version an epoch gets (the step enter), where
//! entries are in the lake (`pipeline::layout`).
//!
//! ```json
//! {"format":1,"version":17,"kind":"epoch","epoch":"20250113T103000Z-3f2a91c07d5e4b10-000001",
//!  "record":"_commits/20250113T103000Z-3f2a91c07d5e4b10-000001.json","entered_at":"2025-01-13T10:31:00.000Z",
//!  "written_at":"2025-01-13T10:30:59.000Z","previous":"9f86d081…","recent":["20250113T102900Z-…-000001"],
//!  "shards":[…],"added":[{"key":"processed/events/…parquet","kind":"processed","dataset":"events","rows":995,"bytes":81234,
//!  "crc64nvme":"ae8b14860a799888"}],"removed":[],"totals":{…},"edges":{…},"definitions":{…}}
//! ```
//!
//! | field | meaning |
//! |---|---|
//! | `format` | the format of the entry. No other is read |
//! | `version` | its number, from 1. It is also in the key |
//! | `kind`, `epoch` | what changed the lake, and its name |
//! | `record` | its commit record, from which the entry is made |
//! | `entered_at` | when the entry was made, by its writer's clock. Nothing but the search for a time depends on it |
//! | `previous` | SHA-256 of the bytes of the entry before; zeros in version 1 |
//! | `recent` | the epochs of the versions before, the nearest first, at most [`RECENT_MAX`] |
//! | `added` | the objects of the commit record, without what is needed to complete their uploads |
//! | `of` | what an operation belongs to, such as `replay:1f2e3d4c` |
//! | the others | as in the commit record. An entry has no `sources` |
//!
//! What is read is checked: the version is that of the key, and `recent` has as many names as there are versions before, up to the
//! limit. Unknown fields are ignored: they belong to a later version of Shardlake.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use pipeline::encode::FileStats;
use pipeline::layout;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::commit::epoch_id::EpochId;
use crate::commit::manifest::{
    DefinitionOfEpoch, IdleShard, Manifest, ManifestKind, ObjectKind, ObjectOfEpoch, PartitionValue, RemovedObject,
    ShardOfEpoch, column_stats,
};
use crate::commit::totals::{EdgeTotal, Totals};
use crate::lake::{Checksum, ObjectKey};

/// The format that this version writes. It reads no other.
const FORMAT: u32 = 1;
/// The most names of epochs before it that an entry repeats.
pub const RECENT_MAX: usize = 100;

/// The number of an entry. Version 0 is the empty lake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogVersion(pub u64);

impl LogVersion {
    /// The lake before its first entry.
    pub const EMPTY: LogVersion = LogVersion(0);

    /// Whether the lake has no entry yet.
    pub fn is_empty(self) -> bool {
        self == LogVersion::EMPTY
    }

    /// The version after this one.
    #[must_use]
    pub fn next(self) -> Self {
        LogVersion(self.0.saturating_add(1))
    }

    /// The version before this one. There is none before [`EMPTY`](Self::EMPTY).
    #[must_use]
    pub fn before(self) -> Self {
        LogVersion(self.0.saturating_sub(1))
    }

    /// The key of its entry.
    pub fn key(self) -> ObjectKey {
        ObjectKey::new(layout::log_entry(self.0)).expect("digits are a plain name")
    }

    /// The version of an entry's key.
    pub fn of_key(key: &ObjectKey) -> Option<Self> {
        layout::version_of_log_entry(key.as_str()).map(LogVersion)
    }
}

impl fmt::Display for LogVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// SHA-256 of the bytes of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryHash([u8; 32]);

impl EntryHash {
    /// What version 1 has in place of the hash of an entry before.
    pub const NONE: EntryHash = EntryHash([0; 32]);

    /// The hash of an entry's bytes.
    pub fn of(bytes: &[u8]) -> Self {
        EntryHash(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EntryHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("'{text}' is not a valid hash: expected 64 hex digits");
        // Only the form in which it is written.
        if text.len() != 64 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid());
        }
        let mut hash = [0; 32];
        for (index, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| invalid())?;
        }
        Ok(EntryHash(hash))
    }
}

impl TryFrom<String> for EntryHash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<EntryHash> for String {
    fn from(hash: EntryHash) -> String {
        hash.to_string()
    }
}

/// An object that an entry adds to the lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedObject {
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
}

impl From<&ObjectOfEpoch> for AddedObject {
    fn from(object: &ObjectOfEpoch) -> Self {
        let ObjectOfEpoch { key, kind, dataset, partition, columns, rows, bytes, crc64nvme, upload: _, parts: _ } =
            object;
        AddedObject {
            key: key.clone(),
            kind: *kind,
            dataset: dataset.clone(),
            partition: partition.clone(),
            columns: columns.clone(),
            rows: *rows,
            bytes: *bytes,
            crc64nvme: *crc64nvme,
        }
    }
}

impl From<&AddedObject> for RemovedObject {
    fn from(object: &AddedObject) -> Self {
        let AddedObject { key, kind, dataset, rows, bytes, .. } = object;
        RemovedObject { key: key.clone(), kind: *kind, dataset: dataset.clone(), rows: *rows, bytes: *bytes }
    }
}

/// One change of the lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    format: u32,
    /// Its number, from 1.
    pub version: LogVersion,
    /// What changed the lake.
    pub kind: ManifestKind,
    /// The name of that.
    pub epoch: EpochId,
    /// Its commit record.
    pub record: ObjectKey,
    /// When the entry was made, RFC 3339, by its writer's clock.
    pub entered_at: String,
    /// When the manifest was written, RFC 3339.
    pub written_at: String,
    /// The hash of the entry before.
    pub previous: EntryHash,
    /// The epochs of the versions before, the nearest first.
    pub recent: Vec<EpochId>,
    /// What was read.
    pub shards: Vec<ShardOfEpoch>,
    /// Shards that had nothing to read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub idle: Vec<IdleShard>,
    /// The objects that come into the lake with this version.
    pub added: Vec<AddedObject>,
    /// The objects that leave the lake with this version.
    pub removed: Vec<RemovedObject>,
    /// What an operation belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// What the records became.
    pub totals: Totals,
    /// What passed along the stage graph's edges, by their ids.
    pub edges: BTreeMap<String, EdgeTotal>,
    /// The datasets' definitions.
    pub definitions: BTreeMap<String, DefinitionOfEpoch>,
}

/// The part of an entry that says where it is in the log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EntryHead {
    format: u32,
    /// Its number, from 1.
    pub version: LogVersion,
    /// The name of what changed the lake.
    pub epoch: EpochId,
    /// The hash of the entry before.
    pub previous: EntryHash,
    /// The epochs of the versions before, the nearest first.
    pub recent: Vec<EpochId>,
}

/// A stored entry that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} cannot be read: {problem}")]
pub struct UnreadableEntry {
    /// Its key.
    pub key: ObjectKey,
    /// What is wrong with it.
    pub problem: String,
}

impl Entry {
    /// The entry of an epoch. `recent` names the epochs of the versions before, the nearest first; what is above the limit is left out.
    pub fn new(
        version: LogVersion,
        previous: EntryHash,
        recent: impl IntoIterator<Item = EpochId>,
        manifest: &Manifest,
        entered_at: String,
    ) -> Self {
        Entry {
            format: FORMAT,
            version,
            kind: manifest.kind,
            epoch: manifest.epoch.clone(),
            record: manifest.epoch.commit_key(),
            entered_at,
            written_at: manifest.written_at.clone(),
            previous,
            recent: recent.into_iter().take(RECENT_MAX).collect(),
            shards: manifest.shards.clone(),
            idle: manifest.idle.clone(),
            added: manifest.objects.iter().map(AddedObject::from).collect(),
            removed: manifest.removed.clone(),
            of: manifest.of.clone(),
            totals: manifest.totals.clone(),
            edges: manifest.edges.clone(),
            definitions: manifest.definitions.clone(),
        }
    }

    /// Whether the entry says what its commit record says.
    pub fn is_of(&self, manifest: &Manifest) -> bool {
        let recent = self.recent.iter().cloned();
        *self == Entry::new(self.version, self.previous, recent, manifest, self.entered_at.clone())
    }

    /// The hash of what the entry says about its epoch, whatever its place in the log is.
    pub fn content(&self) -> EntryHash {
        let (version, previous, recent) = (LogVersion::EMPTY, EntryHash::NONE, Vec::new());
        let bare = Entry { version, previous, recent, entered_at: String::new(), ..self.clone() };
        EntryHash::of(&bare.to_bytes())
    }

    /// The same of the entry that a commit record gets.
    pub fn content_of(manifest: &Manifest) -> EntryHash {
        let bare = Entry::new(LogVersion::EMPTY, EntryHash::NONE, [], manifest, String::new());
        EntryHash::of(&bare.to_bytes())
    }

    /// Its stored form.
    pub fn to_bytes(&self) -> Bytes {
        // A buffer of the right size, since one that doubles would take three times the size of a large entry.
        let of_object = |object: &AddedObject| object.columns.as_json().len() + object.key.as_str().len() + 256;
        let of_removed = |object: &RemovedObject| object.key.as_str().len() + 128;
        let expected = 8192
            + 256 * self.shards.len()
            + self.added.iter().map(of_object).sum::<usize>()
            + self.removed.iter().map(of_removed).sum::<usize>();
        let mut bytes = Vec::with_capacity(expected);
        serde_json::to_writer(&mut bytes, self).expect("an entry has only text keys and finite numbers");
        bytes.push(b'\n');
        Bytes::from(bytes)
    }

    /// Reads an entry; `key` is where it was found.
    ///
    /// # Errors
    /// It is damaged, of another format, or of another version than its key.
    pub fn from_bytes(key: &ObjectKey, bytes: &[u8]) -> Result<Self, UnreadableEntry> {
        EntryHead::from_bytes(key, bytes)?;
        serde_json::from_slice(bytes).map_err(|error| UnreadableEntry { key: key.clone(), problem: error.to_string() })
    }
}

impl EntryHead {
    /// Reads this part of an entry; `key` is where it was found.
    ///
    /// # Errors
    /// It is damaged, of another format, or of another version than its key.
    pub fn from_bytes(key: &ObjectKey, bytes: &[u8]) -> Result<Self, UnreadableEntry> {
        #[derive(Deserialize)]
        struct AnyFormat {
            format: u32,
        }
        let unreadable = |problem: String| UnreadableEntry { key: key.clone(), problem };
        let AnyFormat { format } = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        if format != FORMAT {
            return Err(unreadable(format!(
                "it has format {format}, and this version of shardlake reads format {FORMAT} only; use a newer version"
            )));
        }
        let head: EntryHead = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        if LogVersion::of_key(key) != Some(head.version) {
            return Err(unreadable(format!("it is of version {}", head.version)));
        }
        let before = usize::try_from(head.version.0.saturating_sub(1)).unwrap_or(usize::MAX);
        if head.recent.len() != before.min(RECENT_MAX) {
            return Err(unreadable(format!("it names {} versions before it", head.recent.len())));
        }
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(number: usize) -> EpochId {
        format!("20250113T103000Z-3f2a91c07d5e4b10-{number:06}").try_into().unwrap()
    }

    fn manifest() -> Manifest {
        let json = r#"{"format":2,"kind":"epoch","epoch":"20250113T103000Z-3f2a91c07d5e4b10-000200",
            "worker":"3f2a91c0-7d5e-4b10-8000-000000000000","written_at":"2025-01-13T10:31:00.000Z",
            "shards":[{"stream":"orders","shard":"a","range":{"after":"TRIM_HORIZON","through":"9"},"records":2,"bytes":99}],
            "objects":[{"key":"processed/events/year=2025/month=01/day=13/x-00001.parquet","kind":"processed",
                "dataset":"events","partition":{"year":2025,"month":1,"day":13},"columns":[[1,47,2,0]],"rows":2,"bytes":80,
                "crc64nvme":"ae8b14860a799888","upload":"u","parts":[{"number":1,"tag":""}]}],
            "removed":[],"totals":{"records":2,"rows":{"events":2},"dead_letters":{},"raw_lines":null},"edges":{},
            "definitions":{"events":{"hash":"9f","schema_version":1}},"version":"0.1.0"}"#;
        Manifest::from_bytes(&epoch(200).commit_key(), json.as_bytes()).unwrap()
    }

    fn entry(version: u64) -> Entry {
        let recent = (1..usize::try_from(version).unwrap()).rev().map(epoch);
        let time = "2025-01-13T10:31:00.500Z".to_owned();
        Entry::new(LogVersion(version), EntryHash::of(b"before"), recent, &manifest(), time)
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_and_has_no_upload() {
        for version in [1, 2, 101, 150] {
            let entry = entry(version);
            let (key, bytes) = (entry.version.key(), entry.to_bytes());
            assert_eq!(Entry::from_bytes(&key, &bytes), Ok(entry.clone()));
            assert!(entry.is_of(&manifest()));
            assert_eq!(entry.content(), Entry::content_of(&manifest()));
            assert!(!String::from_utf8_lossy(&bytes).contains("upload"));
        }
        assert_eq!(entry(150).recent.len(), RECENT_MAX);
        assert_eq!(entry(150).recent[0], epoch(149));
    }

    #[test]
    fn an_entry_of_another_commit_record_is_noticed() {
        let mut other = manifest();
        other.objects[0].rows += 1;
        assert!(!entry(1).is_of(&other));
        assert_ne!(entry(1).content(), Entry::content_of(&other));
    }

    #[test]
    fn what_is_not_an_entry_of_its_key_is_refused() {
        let text = String::from_utf8(entry(3).to_bytes().to_vec()).unwrap();
        let refused =
            |version: u64, text: &str| Entry::from_bytes(&LogVersion(version).key(), text.as_bytes()).unwrap_err();
        assert!(refused(4, &text).problem.contains("it is of version 3"));
        assert!(refused(3, &text.replace("\"format\":1", "\"format\":2")).problem.contains("use a newer version"));
        assert!(refused(3, &text.replace("\"recent\":[", "\"recent\":[\"e-1\",")).problem.contains("names 3 versions"));
        refused(3, &text[..text.len() / 2]);
    }

    #[test]
    fn hashes_have_one_spelling() {
        let hash = EntryHash::of(b"entry");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert!(hash.to_string().to_uppercase().parse::<EntryHash>().is_err());
        assert!("00".parse::<EntryHash>().is_err());
        assert_eq!(EntryHash::NONE.to_string(), "0".repeat(64));
    }
}
