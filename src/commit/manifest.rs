//! What one epoch did, as it is stored: the intent, and the commit record that becomes of it.
//!
//! Owns: the format, in both directions. An intent `_intents/<epoch>.json` is written before the decision; the commit
//! record `_commits/<epoch>.json` has the same bytes and is written once all objects are visible. Whoever rolls an epoch
//! forward needs nothing else: not the stream, not the configuration, not the version that wrote it.
//!
//! ```json
//! {"format":1,"epoch":"20250113T103000Z-3f2a91c07d5e4b10-000001","worker":"3f2a91c0-…","written_at":"2025-01-13T…Z",
//!  "shards":[{"stream":"orders","shard":"shardId-0","range":{"after":"TRIM_HORIZON","through":"4959"},"children":[],
//!             "records":1000,"bytes":1398101}],
//!  "objects":[{"key":"processed/events/…parquet","kind":"processed","dataset":"events","rows":995,"bytes":81234,
//!              "crc64nvme":"ae8b14860a799888","upload":"3f2a91c0-1","parts":[{"number":1,"tag":""}]}],
//!  "totals":{"records":1000,"rows":{"events":995},"dead_letters":{"Decode.Truncated":5},"raw_lines":1000},
//!  "edges":{"decode/events/out":[998,1390000]},
//!  "definitions":{"events":"9f86d081…"},"version":"0.1.0"}
//! ```
//!
//! What is read is checked before anybody acts on it: an object's key is in the folder of its kind, since rolling back
//! deletes objects; and counts are such that they can be added up.
//!
//! Invariant of a commit record, which `verify` checks: records = rows + dead letters; raw lines = records where the raw
//! landing is on; rows and lines of the objects add up to the totals.

use std::collections::BTreeMap;

use bytes::Bytes;
use checkpoints::{LeaseOwner, ManifestName, ShardId, ShardKey, ShardRange};
use mutations::mutated;
use pipeline::time::format_rfc3339;
use serde::{Deserialize, Serialize};

use crate::lake::{Checksum, ObjectKey, Part, UploadId};

/// The format that this version writes. It reads no other.
pub const FORMAT: u32 = 1;
/// Where intents are.
pub const INTENTS: &str = "_intents/";
/// Where commit records are.
pub const COMMITS: &str = "_commits/";
/// What records, rows, lines or bytes of an epoch may come to: 9 PB, and as much as any JSON number can say.
const COUNT_MAX: u64 = 1 << 53;

/// The name of an epoch: sorts by time, and is never used again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EpochId(String);

impl EpochId {
    /// The `number`-th epoch of a worker, begun at `now_ms`.
    pub fn new(now_ms: i64, worker: &LeaseOwner, number: u64) -> Self {
        let time: String = format_rfc3339(now_ms).chars().filter(|c| *c != '-' && *c != ':').take(15).collect();
        let worker = if mutated!(NamesUsedTwice) { "aaaaaaaa" } else { worker.as_str() };
        let worker: String = worker.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
        EpochId(format!("{time}Z-{worker}-{number:06}"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of its intent.
    pub fn intent_key(&self) -> ObjectKey {
        ObjectKey::new(format!("{INTENTS}{}.json", self.0)).expect("an epoch's name is a plain name")
    }

    /// The key of its commit record.
    pub fn commit_key(&self) -> ObjectKey {
        ObjectKey::new(format!("{COMMITS}{}.json", self.0)).expect("an epoch's name is a plain name")
    }

    /// The name under which the lease store has it pending.
    pub fn manifest_name(&self) -> ManifestName {
        ManifestName::new(self.intent_key().as_str()).expect("an epoch's name is a plain name")
    }

    /// An id for the `number`-th upload of this epoch, which tells whose it is.
    pub fn upload_id(&self, worker: &LeaseOwner, number: u64) -> String {
        let epoch = self.0.rsplit('-').next().unwrap_or_default();
        format!("{worker}-{epoch}-{number:05}")
    }

    /// The worker that an upload's id names.
    pub fn owner_of_upload(id: &UploadId) -> Option<&str> {
        let (rest, _) = id.0.rsplit_once('-')?;
        let (owner, _) = rest.rsplit_once('-')?;
        (owner.len() == 36).then_some(owner)
    }

    /// The epoch whose intent a lease names.
    ///
    /// # Errors
    /// The name is none that this product gives.
    pub fn of_manifest(name: &ManifestName) -> Result<Self, String> {
        let plain = name.as_str().strip_prefix(INTENTS).and_then(|name| name.strip_suffix(".json"));
        plain.map_or_else(|| Err(format!("'{name}' names no intent")), |name| EpochId::try_from(name.to_owned()))
    }
}

impl TryFrom<String> for EpochId {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let plain =
            !name.is_empty() && name.len() <= 128 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if plain { Ok(EpochId(name)) } else { Err(format!("'{name}' is no epoch's name")) }
    }
}

impl From<EpochId> for String {
    fn from(epoch: EpochId) -> String {
        epoch.0
    }
}

impl std::fmt::Display for EpochId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an epoch read of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardOfEpoch {
    /// The shard.
    #[serde(flatten)]
    pub key: ShardKey,
    /// What was read of it.
    pub range: ShardRange,
    /// What it became, if its end was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ShardId>,
    /// Set on the first range of a shard that another program (a KCL application) had read up to where it begins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub taken_over: bool,
    /// Records in the range.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
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
    /// What the keys of such objects begin with.
    pub fn folder(self) -> &'static str {
        match self {
            ObjectKind::Processed => "processed/",
            ObjectKind::Raw => "raw/",
            ObjectKind::Error => "error/",
        }
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

/// What an epoch's records became.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Records read.
    pub records: u64,
    /// Rows by dataset.
    pub rows: BTreeMap<String, u64>,
    /// Dead letters by code.
    pub dead_letters: BTreeMap<String, u64>,
    /// Raw lines; `None` if the raw landing is off.
    pub raw_lines: Option<u64>,
    /// Keys of free-form objects that were on no allow-list, by dataset.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub denied_keys: BTreeMap<String, u64>,
}

impl Totals {
    /// Adds another epoch's.
    pub fn add(&mut self, other: &Totals) {
        let merge = |mine: &mut BTreeMap<String, u64>, theirs: &BTreeMap<String, u64>| {
            for (name, count) in theirs {
                let sum = mine.entry(name.clone()).or_default();
                *sum = sum.saturating_add(*count);
            }
        };
        self.records = self.records.saturating_add(other.records);
        merge(&mut self.rows, &other.rows);
        merge(&mut self.dead_letters, &other.dead_letters);
        merge(&mut self.denied_keys, &other.denied_keys);
        if let Some(lines) = other.raw_lines {
            let sum = self.raw_lines.get_or_insert(0);
            *sum = sum.saturating_add(lines);
        }
    }
}

/// What has passed along an edge: records and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeTotal(pub u64, pub u64);

/// One epoch, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Its name.
    pub epoch: EpochId,
    /// Who wrote it.
    pub worker: LeaseOwner,
    /// When, RFC 3339.
    pub written_at: String,
    /// What was read.
    pub shards: Vec<ShardOfEpoch>,
    /// What was made.
    pub objects: Vec<ObjectOfEpoch>,
    /// What the records became.
    pub totals: Totals,
    /// What passed along the stage graph's edges, by the edges' stable ids.
    pub edges: BTreeMap<String, EdgeTotal>,
    /// The hash of each dataset's definition.
    pub definitions: BTreeMap<String, String>,
    /// The product's version.
    pub version: String,
}

/// A stored manifest that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} can't be read: {problem}")]
pub struct UnreadableManifest {
    /// Its key.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Manifest {
    /// The bytes of intent and commit record.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = serde_json::to_vec(self).expect("a manifest has only text keys and finite numbers");
        bytes.push(b'\n');
        Bytes::from(bytes)
    }

    /// Reads an intent or a commit record; `key` is where it was found.
    ///
    /// # Errors
    /// It is damaged, of another format, of another epoch than its key says, or says what no epoch does.
    pub fn from_bytes(key: &ObjectKey, bytes: &[u8]) -> Result<Self, UnreadableManifest> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let unreadable = |problem: String| UnreadableManifest { name: key.to_string(), problem };
        let head: Head = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        if head.format != FORMAT {
            let problem = format!("it has format {}, this version reads format {FORMAT}", head.format);
            return Err(unreadable(problem));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        if manifest.epoch.intent_key() != *key && manifest.epoch.commit_key() != *key {
            return Err(unreadable(format!("it is of epoch {}", manifest.epoch)));
        }
        manifest.check().map_err(unreadable)?;
        Ok(manifest)
    }

    /// Whether an epoch may have done this.
    fn check(&self) -> Result<(), String> {
        if let Some(object) = self.objects.iter().find(|object| !object.key.as_str().starts_with(object.kind.folder()))
        {
            return Err(format!("its object {} is not in {}", object.key, object.kind.folder()));
        }
        let Totals { records, rows, dead_letters, raw_lines, denied_keys } = &self.totals;
        let sum = |what: &str, counts: &mut dyn Iterator<Item = u64>| {
            let sum = counts.fold(0, u64::saturating_add);
            if sum <= COUNT_MAX { Ok(()) } else { Err(format!("no epoch has {sum} {what}")) }
        };
        sum("records", &mut std::iter::once(*records))?;
        sum("rows and dead letters", &mut rows.values().chain(dead_letters.values()).copied())?;
        sum("raw lines", &mut raw_lines.iter().copied())?;
        sum("denied keys", &mut denied_keys.values().copied())?;
        sum("records in its shards", &mut self.shards.iter().map(|shard| shard.records))?;
        sum("bytes in its shards", &mut self.shards.iter().map(|shard| shard.bytes))?;
        sum("rows in its objects", &mut self.objects.iter().map(|object| object.rows))?;
        sum("bytes in its objects", &mut self.objects.iter().map(|object| object.bytes))?;
        sum("records along its edges", &mut self.edges.values().map(|edge| edge.0))?;
        sum("bytes along its edges", &mut self.edges.values().map(|edge| edge.1))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn worker() -> LeaseOwner {
        LeaseOwner::from_random([0x3f; 16])
    }

    fn manifest() -> impl Strategy<Value = Manifest> {
        let shard = ("[a-z:/]{1,20}", "\\PC{1,20}", any::<u64>(), 1_u64..1000, any::<bool>()).prop_map(
            |(stream, shard, after, more, ends)| {
                let key = ShardKey::new(
                    checkpoints::StreamName::new(stream).unwrap(),
                    ShardId::new(shard).unwrap_or_else(|_| ShardId::new("x").unwrap()),
                );
                let after = after / 2;
                let through =
                    if ends { checkpoints::Position::End } else { checkpoints::Position::at((after + more).into()) };
                let range = ShardRange::new(checkpoints::Position::at(after.into()), through).unwrap();
                ShardOfEpoch { key, range, children: Vec::new(), taken_over: false, records: more, bytes: more * 100 }
            },
        );
        let object = ("[a-z=0-9%é]{1,20}", 1_u64..100_000, 0..COUNT_MAX / 8, prop::option::of("[a-z]{1,9}"), 1_u32..5)
            .prop_map(|(name, rows, bytes, dataset, parts)| ObjectOfEpoch {
                key: ObjectKey::new(match dataset {
                    Some(_) => format!("processed/{name}/x.parquet"),
                    None => format!("error/{name}/x.json.gz"),
                })
                .unwrap(),
                kind: if dataset.is_some() { ObjectKind::Processed } else { ObjectKind::Error },
                dataset,
                rows,
                bytes,
                crc64nvme: Checksum::of(name.as_bytes()),
                upload: UploadId(format!("u-{rows}")),
                parts: (1..=parts).map(|number| Part { number, tag: format!("\"{number}\"") }).collect(),
            });
        let count = || 0..COUNT_MAX / 8;
        let counts = prop::collection::btree_map("[a-zA-Z.]{1,10}", count(), 0..4);
        (
            prop::collection::vec(shard, 1..5),
            prop::collection::vec(object, 0..5),
            (count(), counts.clone(), counts.clone(), prop::option::of(count()), counts),
            any::<u32>(),
        )
            .prop_map(|(shards, objects, (records, rows, dead_letters, raw_lines, denied_keys), number)| {
                Manifest {
                    format: FORMAT,
                    epoch: EpochId::new(1_736_764_200_123, &worker(), u64::from(number)),
                    worker: worker(),
                    written_at: format_rfc3339(1_736_764_200_123),
                    shards,
                    objects,
                    totals: Totals { records, rows, dead_letters, raw_lines, denied_keys },
                    edges: BTreeMap::from([("decode/events/out".to_owned(), EdgeTotal(records, 7))]),
                    definitions: BTreeMap::from([("events".to_owned(), "00ff".to_owned())]),
                    version: "0.1.0".to_owned(),
                }
            })
    }

    proptest! {
        #[test]
        fn a_manifest_round_trips(manifest in manifest()) {
            let bytes = manifest.to_bytes();
            prop_assert_eq!(&Manifest::from_bytes(&manifest.epoch.intent_key(), &bytes).unwrap(), &manifest);
            prop_assert_eq!(&Manifest::from_bytes(&manifest.epoch.commit_key(), &bytes).unwrap(), &manifest);
            let name = manifest.epoch.manifest_name();
            prop_assert_eq!(EpochId::of_manifest(&name).unwrap(), manifest.epoch);
        }

        #[test]
        fn a_damaged_manifest_is_an_error_and_no_panic(manifest in manifest(), cut in any::<prop::sample::Index>()) {
            let bytes = manifest.to_bytes();
            let cut = cut.index(bytes.len() - 1);
            prop_assert!(Manifest::from_bytes(&manifest.epoch.intent_key(), &bytes[..cut]).is_err());
        }
    }

    #[test]
    fn another_format_and_another_epoch_are_refused() {
        let key = EpochId::new(0, &worker(), 1).intent_key();
        let message = Manifest::from_bytes(&key, b"{\"format\":2,\"new\":true}").unwrap_err();
        assert_eq!(message.problem, "it has format 2, this version reads format 1");
        assert!(EpochId::of_manifest(&ManifestName::new("_intents/../x.json").unwrap()).is_err());
        assert!(EpochId::of_manifest(&ManifestName::new("elsewhere").unwrap()).is_err());
    }

    /// A manifest as JSON, with something in it replaced.
    fn message_of(from: &str, to: &str) -> Result<Manifest, String> {
        let object = ObjectOfEpoch {
            key: ObjectKey::new("processed/events/a.parquet").unwrap(),
            kind: ObjectKind::Processed,
            dataset: None,
            rows: 17,
            bytes: 4711,
            crc64nvme: Checksum::of(b""),
            upload: UploadId("u-1".to_owned()),
            parts: Vec::new(),
        };
        let manifest = Manifest {
            format: FORMAT,
            epoch: EpochId::new(0, &worker(), 1),
            worker: worker(),
            written_at: format_rfc3339(0),
            shards: Vec::new(),
            objects: vec![object],
            totals: Totals { records: 17, rows: [("events".to_owned(), 17)].into(), ..Totals::default() },
            edges: BTreeMap::new(),
            definitions: BTreeMap::new(),
            version: "0.1.0".to_owned(),
        };
        let text = String::from_utf8(manifest.to_bytes().to_vec()).unwrap();
        assert!(text.contains(from), "{from} is in {text}");
        let read = Manifest::from_bytes(&manifest.epoch.intent_key(), text.replacen(from, to, 1).as_bytes());
        read.map_err(|unreadable| unreadable.problem)
    }

    #[test]
    fn a_manifest_that_names_what_no_epoch_makes_is_refused_before_anything_is_deleted() {
        assert!(message_of("processed/events/a", "processed/events/b").is_ok());
        for key in ["_checkpoints.db", "_commits/1.json", "raw/events/a.json.gz", "_processed/a", "processed"] {
            let problem = message_of("processed/events/a.parquet", key).unwrap_err();
            assert_eq!(problem, format!("its object {key} is not in processed/"));
        }
        for key in ["/etc/passwd", "processed/../_checkpoints.db", "processed//a", "processed/a/"] {
            assert!(
                message_of("processed/events/a.parquet", key).unwrap_err().contains("is not a valid object key"),
                "{key}"
            );
        }
    }

    #[test]
    fn counts_that_can_not_be_added_up_are_refused() {
        let problem = message_of("\"events\":17", "\"events\":18446744073709551615,\"users\":18").unwrap_err();
        assert_eq!(problem, "no epoch has 18446744073709551615 rows and dead letters");
        assert_eq!(
            message_of(":4711", ":9007199254740993").unwrap_err(),
            "no epoch has 9007199254740993 bytes in its objects"
        );
        assert!(message_of(":4711", ":9007199254740992").is_ok());
    }

    #[test]
    fn a_checksum_is_read_as_it_is_written() {
        let written = Checksum::of(b"").to_string();
        assert!(message_of(&written, "00000000000000ff").is_ok());
        for other in ["+0000000000000ff", "00000000000000FF", "0000000000000ff", "00000000000000fg"] {
            assert!(
                message_of(&written, other).unwrap_err().contains("is not a valid checksum: expected 16 hex digits"),
                "{other}"
            );
        }
    }

    #[test]
    fn names_of_epochs_sort_by_time() {
        let epoch = EpochId::new(1_736_764_200_123, &worker(), 7);
        assert_eq!(epoch.as_str(), "20250113T103000Z-3f3f3f3f3f3f4f3f-000007");
        assert!(epoch < EpochId::new(1_736_764_201_123, &worker(), 1));
    }

    #[test]
    fn an_upload_tells_whose_it_is() {
        let epoch = EpochId::new(1_736_764_200_123, &worker(), 7);
        let id = UploadId(epoch.upload_id(&worker(), 12));
        assert_eq!(id.0, format!("{}-000007-00012", worker()));
        assert_eq!(EpochId::owner_of_upload(&id), Some(worker().as_str()));
        assert_eq!(EpochId::owner_of_upload(&UploadId("put-abc123".to_owned())), None);
    }
}
