//! A snapshot of the lake log, as it is stored: what the entries up to a version add up to.
//!
//! Owns: the format of the head and of the parts, in both directions. Does not own: when a snapshot is written (`write_snapshot`), which
//! one a reader takes (`at`).
//!
//! The head is `_log/snapshots/<20 digits>.json.gz`, JSON compressed by gzip, written by create-only PUT after all its parts:
//!
//! ```json
//! {"format":1,"version":1000,"entry":"9f86d081…","entered_at":"2025-01-13T…Z",
//!  "fold":{…},"chains":[{"stream":"orders","shard":"shardId-0","segments":[…],"last":"20250113T…-000001"}],
//!  "parts":[{"key":"_log/snapshots/parts/00000000000000001000-3f2a91c07d5e4b10-00001.jsonl.gz","kind":"processed",
//!            "dataset":"events","objects":20000,"rows":19900000,"bytes":1620000000,"crc64nvme":"ae8b14860a799888"}]}
//! ```
//!
//! A part has live objects of one kind and dataset, each as a line of JSON, as entries have them. A part that a later snapshot needs
//! unchanged is named by that one too. So a snapshot costs what has changed since the one before, and not what the lake has.
//!
//! Limits: 256 MiB of JSON in a head, enough for about a million shards. 64 MiB of JSON in a part, which its writer keeps far below.

use std::io::{BufRead, BufReader, Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use pipeline::layout;
use serde::{Deserialize, Serialize};

use crate::commit::lake_log::entry::{AddedObject, EntryHash, LogVersion};
use crate::commit::log::{Chains, Fold};
use crate::commit::manifest::ObjectKind;
use crate::lake::{Checksum, ObjectKey};

/// The format that this version writes. It reads no other.
const FORMAT: u32 = 1;
/// The size of a head's JSON.
const HEAD_BYTES_MAX: u64 = 256 << 20;
/// The size of a part's JSON.
const PART_BYTES_MAX: u64 = 64 << 20;

/// What the log adds up to at a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    format: u32,
    /// The version.
    pub version: LogVersion,
    /// The hash of its entry.
    pub entry: EntryHash,
    /// When it was entered, as its entry says.
    pub entered_at: String,
    /// The sums of all entries up to it.
    pub fold: Fold,
    /// The ranges that they cover.
    pub chains: Chains,
    /// Where the live objects are.
    pub parts: Vec<SnapshotPart>,
}

/// What all objects of a part have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectGroup {
    /// What the objects hold.
    pub kind: ObjectKind,
    /// The dataset of their rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
}

impl ObjectGroup {
    /// The group of an object.
    pub fn of(object: &AddedObject) -> Self {
        ObjectGroup { kind: object.kind, dataset: object.dataset.clone() }
    }
}

/// Live objects of a snapshot, stored as one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPart {
    /// Its key.
    pub key: ObjectKey,
    /// What its objects have in common.
    #[serde(flatten)]
    pub group: ObjectGroup,
    /// How many there are.
    pub objects: u64,
    /// Rows and lines in them.
    pub rows: u64,
    /// Their size.
    pub bytes: u64,
    /// The checksum of the part itself.
    pub crc64nvme: Checksum,
}

/// A stored snapshot, or a part of one, that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} cannot be read: {problem}")]
pub struct UnreadableSnapshot {
    /// Its key.
    pub key: ObjectKey,
    /// What is wrong with it.
    pub problem: String,
}

impl Snapshot {
    /// A snapshot.
    pub(super) fn new(
        (version, entry, entered_at): (LogVersion, EntryHash, String),
        fold: Fold,
        chains: Chains,
        parts: Vec<SnapshotPart>,
    ) -> Self {
        Snapshot { format: FORMAT, version, entry, entered_at, fold, chains, parts }
    }

    /// The key of the snapshot at a version.
    pub fn key_of(version: LogVersion) -> ObjectKey {
        ObjectKey::new(layout::log_snapshot(version.0)).expect("digits are a plain name")
    }

    /// The version of a snapshot's key.
    pub fn version_of_key(key: &ObjectKey) -> Option<LogVersion> {
        layout::version_of_log_snapshot(key.as_str()).map(LogVersion)
    }

    /// Its stored form.
    ///
    /// # Errors
    /// It is larger than the limit.
    pub fn to_bytes(&self) -> Result<Bytes, UnreadableSnapshot> {
        let refused = |problem: String| UnreadableSnapshot { key: Self::key_of(self.version), problem };
        let json = serde_json::to_vec(self).expect("a snapshot has only text keys and whole numbers");
        if json.len() as u64 > HEAD_BYTES_MAX {
            return Err(refused(format!("it has {} bytes; the limit is {HEAD_BYTES_MAX}", json.len())));
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let compressed = encoder.write_all(&json).and_then(|()| encoder.finish());
        compressed.map(Bytes::from).map_err(|error| refused(error.to_string()))
    }

    /// Reads a snapshot; `key` is where it was found.
    ///
    /// # Errors
    /// It is damaged, of another format, or of another version than its key.
    pub fn from_bytes(key: &ObjectKey, bytes: &[u8]) -> Result<Self, UnreadableSnapshot> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let unreadable = |problem: String| UnreadableSnapshot { key: key.clone(), problem };
        let mut json = Vec::new();
        let read = GzDecoder::new(bytes).take(HEAD_BYTES_MAX + 1).read_to_end(&mut json);
        if read.map_err(|error| unreadable(error.to_string()))? as u64 > HEAD_BYTES_MAX {
            return Err(unreadable(format!("it has more than {HEAD_BYTES_MAX} bytes")));
        }
        let Head { format } = serde_json::from_slice(&json).map_err(|error| unreadable(error.to_string()))?;
        if format != FORMAT {
            return Err(unreadable(format!(
                "it has format {format}, and this version of shardlake reads format {FORMAT} only; use a newer version"
            )));
        }
        let snapshot: Snapshot = serde_json::from_slice(&json).map_err(|error| unreadable(error.to_string()))?;
        if Self::version_of_key(key) != Some(snapshot.version) {
            return Err(unreadable(format!("it is of version {}", snapshot.version)));
        }
        Ok(snapshot)
    }
}

impl SnapshotPart {
    /// Reads the objects of a part.
    ///
    /// # Errors
    /// The bytes are not those that were written, or cannot be read.
    pub fn objects_of(&self, bytes: &[u8]) -> Result<Vec<AddedObject>, UnreadableSnapshot> {
        let unreadable = |problem: String| UnreadableSnapshot { key: self.key.clone(), problem };
        let found = Checksum::of(bytes);
        if found != self.crc64nvme {
            return Err(unreadable(format!("its checksum is {found}, not {}", self.crc64nvme)));
        }
        let mut lines = BufReader::new(GzDecoder::new(bytes).take(PART_BYTES_MAX));
        let (mut objects, mut line) = (Vec::new(), Vec::new());
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line).map_err(|error| unreadable(error.to_string()))? == 0 {
                break;
            }
            objects.push(serde_json::from_slice(&line).map_err(|error| unreadable(error.to_string()))?);
        }
        if objects.len() as u64 != self.objects {
            return Err(unreadable(format!("it has {} objects, not {}", objects.len(), self.objects)));
        }
        Ok(objects)
    }
}

/// A part that is being written, compressed as it grows.
pub(super) struct PartWriter {
    group: ObjectGroup,
    encoder: GzEncoder<Vec<u8>>,
    objects: u64,
    rows: u64,
    bytes: u64,
    json_bytes: u64,
}

impl PartWriter {
    pub(super) fn new(group: ObjectGroup) -> Self {
        let encoder = GzEncoder::new(Vec::new(), Compression::default());
        PartWriter { group, encoder, objects: 0, rows: 0, bytes: 0, json_bytes: 0 }
    }

    /// Adds an object of the group.
    pub(super) fn add(&mut self, object: &AddedObject) {
        let mut line = serde_json::to_vec(object).expect("an object has only text keys and finite numbers");
        line.push(b'\n');
        self.encoder.write_all(&line).expect("memory takes all bytes");
        self.objects += 1;
        self.rows = self.rows.saturating_add(object.rows);
        self.bytes = self.bytes.saturating_add(object.bytes);
        self.json_bytes += line.len() as u64;
    }

    /// How many objects it has.
    pub(super) fn objects(&self) -> u64 {
        self.objects
    }

    /// Bytes of its JSON, before compression.
    pub(super) fn json_bytes(&self) -> u64 {
        self.json_bytes
    }

    /// The part and its bytes.
    pub(super) fn finish(self, key: ObjectKey) -> (SnapshotPart, Bytes) {
        let PartWriter { group, encoder, objects, rows, bytes, json_bytes: _ } = self;
        let stored = Bytes::from(encoder.finish().expect("memory takes all bytes"));
        let crc64nvme = Checksum::of(&stored);
        (SnapshotPart { key, group, objects, rows, bytes, crc64nvme }, stored)
    }
}
