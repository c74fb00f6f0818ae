//! The order in which objects are read: entries in the lake, which are only ever added.
//!
//! Owns: the entries and their format, and finding the entry of a position. Does not own: finding objects (`lister`), reading them
//! (`reader`).
//!
//! Objects appear in any order of their keys, so a key cannot be a position: an object that appears later could sort before the
//! position, and would never be read. Instead each object permanently gets a number in its shard when it is first listed. An entry is
//! written only if its number is free, so two workers cannot give one number twice; whoever is late reads what the other one wrote.
//!
//! ```json
//! {"format":1,"stream":"s3://bucket/in","before":[{"objects":12,"bytes":48210}],
//!  "objects":[{"key":"2025/01/13/a.json","etag":"9b2c…","bytes":4017,"modified_ms":1736764200000}],"seen":[]}
//! ```
//!
//! `before`: for each shard, how much the entries before this one have. `objects`: those that get numbers, each in the shard of its key.
//! `seen`: contents of keys that somebody decided not to read.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use checkpoints::{ShardId, StreamName};
use flate2::Compression;
use pipeline::layout;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::lake::{LakeError, ObjectKey, ObjectStore, Written};
use crate::source::SourceError;
use crate::source::objects::store::Object;

/// The most objects of one entry.
pub(super) const ENTRY_OBJECTS_MAX: usize = 10_000;
/// The most bytes that an entry may have in JSON: keys have at most 1,024 bytes, which JSON may write as six times as many.
const JSON_BYTES_MAX: u64 = 128 << 20;
/// Entries that are kept in memory for readers at nearly the same place.
const CACHED: usize = 3;
/// The format of what this file writes.
const FORMAT: u32 = 1;

/// How much a shard has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Count {
    pub(super) objects: u64,
    pub(super) bytes: u64,
}

/// Objects that got their numbers at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    format: u32,
    stream: StreamName,
    pub(super) before: Vec<Count>,
    pub(super) objects: Vec<Object>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) seen: Vec<Object>,
}

/// Into how many shards the objects of a stream are divided: `{"format":1,"stream":"s3://bucket/in","shards":8}`.
#[derive(Debug, Serialize, Deserialize)]
struct Division {
    format: u32,
    stream: StreamName,
    shards: u32,
}

/// A hash by which a key is known: no two keys share it by chance.
pub(super) type KeyHash = [u8; 12];

/// The hash of a key.
pub(super) fn hash_of(key: &str) -> KeyHash {
    Sha256::digest(key.as_bytes()).first_chunk::<12>().copied().unwrap_or_default()
}

/// The shard of a key, from 0: its CRC-64/NVME modulo the number of shards.
pub(super) fn shard_of(key: &str, shards: u32) -> usize {
    let hash = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, key.as_bytes());
    usize::try_from(hash % u64::from(shards.max(1))).unwrap_or_default()
}

/// The id of a shard.
pub(super) fn shard_id(index: usize) -> ShardId {
    ShardId::new(format!("objects-{index:05}")).expect("letters and digits are a valid id")
}

/// The index of a shard by its id; the inverse of [`shard_id`].
pub(super) fn index_of(shard: &ShardId) -> Option<usize> {
    let index = shard.as_str().strip_prefix("objects-")?.parse().ok()?;
    (shard_id(index) == *shard).then_some(index)
}

impl Entry {
    pub(super) fn new(stream: StreamName, before: Vec<Count>, objects: Vec<Object>, seen: Vec<Object>) -> Self {
        Entry { format: FORMAT, stream, before, objects, seen }
    }

    /// How much each shard has after this entry.
    pub(super) fn after(&self) -> Vec<Count> {
        let shards = u32::try_from(self.before.len()).unwrap_or(u32::MAX);
        let mut after = self.before.clone();
        for object in &self.objects {
            if let Some(count) = after.get_mut(shard_of(&object.key, shards)) {
                *count = Count { objects: count.objects + 1, bytes: count.bytes + object.bytes };
            }
        }
        after
    }

    /// The objects of a shard with their numbers.
    pub(super) fn of_shard(&self, index: usize) -> impl Iterator<Item = (u64, &Object)> {
        let shards = u32::try_from(self.before.len()).unwrap_or(u32::MAX);
        let first = self.before.get(index).map_or(1, |count| count.objects + 1);
        (first..).zip(self.objects.iter().filter(move |object| shard_of(&object.key, shards) == index))
    }

    fn encode(&self) -> Bytes {
        let json = serde_json::to_vec(self).expect("an entry contains only text and numbers");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&json).expect("writing to memory does not fail");
        encoder.finish().expect("writing to memory does not fail").into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut json = Vec::new();
        flate2::read::GzDecoder::new(bytes)
            .take(JSON_BYTES_MAX + 1)
            .read_to_end(&mut json)
            .map_err(|error| error.to_string())?;
        if json.len() as u64 > JSON_BYTES_MAX {
            return Err("it is too large".to_owned());
        }
        let entry: Entry = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
        if entry.format == FORMAT {
            Ok(entry)
        } else {
            Err(format!("its format {} is of a later version", entry.format))
        }
    }
}

/// The entries of one stream.
pub(super) struct Catalog {
    lake: Arc<dyn ObjectStore>,
    stream: StreamName,
    cached: Mutex<VecDeque<(u64, Arc<Entry>)>>,
}

impl Catalog {
    pub(super) fn new(lake: Arc<dyn ObjectStore>, stream: StreamName) -> Self {
        Catalog { lake, stream, cached: Mutex::default() }
    }

    fn error(&self, error: &LakeError) -> SourceError {
        let (place, problem) = (format!("stream {}", self.stream), error.to_string());
        if error.is_retryable() {
            SourceError::Unavailable { place, problem }
        } else {
            SourceError::Unreadable { place, problem }
        }
    }

    fn damaged(&self, key: &ObjectKey, problem: &str) -> SourceError {
        let place = format!("stream {}", self.stream);
        SourceError::Unreadable { place, problem: format!("{key} in the lake is damaged: {problem}") }
    }

    fn key(text: String) -> ObjectKey {
        ObjectKey::new(text).expect("hex digits and a number are a plain path")
    }

    /// The number of shards, which the first worker decides: `wanted`, unless it was decided before.
    pub(super) async fn divide(&self, wanted: u32) -> Result<u32, SourceError> {
        let key = Self::key(layout::objects_of_source(self.stream.as_str()));
        let division = Division { format: FORMAT, stream: self.stream.clone(), shards: wanted };
        let bytes = serde_json::to_vec(&division).expect("it contains only text and numbers");
        if let Some(shards) = self.division().await? {
            return Ok(shards);
        }
        self.lake.put_new(&key, Bytes::from(bytes)).await.map_err(|error| self.error(&error))?;
        // Somebody else may have been first.
        self.division().await?.ok_or_else(|| self.damaged(&key, "it was deleted"))
    }

    /// The number of shards, if it was decided.
    pub(super) async fn division(&self) -> Result<Option<u32>, SourceError> {
        let key = Self::key(layout::objects_of_source(self.stream.as_str()));
        let Some(bytes) = self.lake.get(&key).await.map_err(|error| self.error(&error))? else { return Ok(None) };
        let division: Division =
            serde_json::from_slice(&bytes).map_err(|error| self.damaged(&key, &error.to_string()))?;
        if division.format != FORMAT || division.shards == 0 {
            return Err(self.damaged(&key, "its format is of a later version"));
        }
        Ok(Some(division.shards))
    }

    /// The number of the last entry; 0 if there is none.
    pub(super) async fn latest(&self) -> Result<u64, SourceError> {
        let prefix = layout::object_entries(self.stream.as_str());
        let listed = self.lake.list(&prefix).await.map_err(|error| self.error(&error))?;
        let number = |key: &ObjectKey| layout::number_of_object_entry(self.stream.as_str(), key.as_str());
        Ok(listed.iter().filter_map(|object| number(&object.key)).max().unwrap_or(0))
    }

    /// An entry that is read once.
    pub(super) async fn load(&self, number: u64) -> Result<Option<Entry>, SourceError> {
        let key = Self::key(layout::object_entry(self.stream.as_str(), number));
        let Some(bytes) = self.lake.get(&key).await.map_err(|error| self.error(&error))? else { return Ok(None) };
        Entry::decode(&bytes).map(Some).map_err(|problem| self.damaged(&key, &problem))
    }

    /// An entry, which several readers may need.
    pub(super) async fn entry(&self, number: u64) -> Result<Option<Arc<Entry>>, SourceError> {
        let cached = || self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, entry)) = cached().iter().find(|(cached, _)| *cached == number) {
            return Ok(Some(Arc::clone(entry)));
        }
        let Some(entry) = self.load(number).await?.map(Arc::new) else { return Ok(None) };
        let mut cached = cached();
        if cached.len() >= CACHED {
            cached.pop_front();
        }
        cached.push_back((number, Arc::clone(&entry)));
        Ok(Some(entry))
    }

    /// Writes an entry, unless its number is taken.
    pub(super) async fn add(&self, number: u64, entry: &Entry) -> Result<Written, SourceError> {
        let key = Self::key(layout::object_entry(self.stream.as_str(), number));
        self.lake.put_new(&key, entry.encode()).await.map_err(|error| self.error(&error))
    }

    /// The last entry, up to `latest`, before which a shard has fewer objects than `number`: the one that has the object, if any has.
    /// 0 if there is none.
    pub(super) async fn find(&self, index: usize, number: u64, latest: u64) -> Result<u64, SourceError> {
        let (mut found, mut end) = (0, latest + 1);
        while found + 1 < end {
            let middle = found + (end - found) / 2;
            let Some(entry) = self.entry(middle).await? else {
                let key = Self::key(layout::object_entry(self.stream.as_str(), middle));
                return Err(self.damaged(&key, "it is not there, and a later one is"));
            };
            let before = entry.before.get(index).map_or(0, |count| count.objects);
            if before < number { found = middle } else { end = middle }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::MemoryStore;

    fn object(key: &str) -> Object {
        Object { key: key.to_owned(), etag: "e".to_owned(), bytes: 10, modified_ms: 1 }
    }

    #[tokio::test]
    async fn each_object_has_one_shard_and_one_number_and_is_found_by_it() {
        let catalog = Catalog::new(Arc::new(MemoryStore::new()), StreamName::new("s3://b/in").unwrap());
        assert_eq!((catalog.divide(4).await.unwrap(), catalog.divide(7).await.unwrap()), (4, 4));
        let mut before = vec![Count::default(); 4];
        for number in 1..=9_u64 {
            let objects = (0..number).map(|n| object(&format!("{number}/{n}.json"))).collect();
            let entry = Entry::new(catalog.stream.clone(), before, objects, Vec::new());
            before = entry.after();
            assert_eq!(catalog.add(number, &entry).await, Ok(Written::New));
            assert_eq!(catalog.add(number, &entry).await, Ok(Written::KeyTaken));
        }
        assert_eq!(before.iter().map(|count| count.objects).sum::<u64>(), 45);
        assert_eq!(catalog.latest().await, Ok(9));
        for (index, count) in before.iter().enumerate() {
            for number in 1..=count.objects {
                let found = catalog.find(index, number, 9).await.unwrap();
                let entry = catalog.load(found).await.unwrap().unwrap();
                assert!(entry.of_shard(index).any(|(of_entry, _)| of_entry == number), "{index} {number}");
            }
            let after_all = catalog.find(index, count.objects + 1, 9).await.unwrap();
            let entry = catalog.load(after_all).await.unwrap().unwrap();
            assert!(entry.of_shard(index).all(|(number, _)| number <= count.objects));
        }
        assert_eq!(catalog.find(0, 1, 0).await, Ok(0));
    }

    #[test]
    fn an_entry_has_a_documented_form_and_a_later_one_is_refused() {
        let json = r#"{"format":1,"stream":"s3://b/in","before":[{"objects":12,"bytes":48210}],"objects":[{"key":"a","etag":"e","bytes":10,"modified_ms":1}]}"#;
        let entry: Entry = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&entry).unwrap(), json);
        assert_eq!(Entry::decode(&entry.encode()), Ok(entry.clone()));
        assert!(Entry::decode(&Entry { format: 2, ..entry }.encode()).unwrap_err().contains("later version"));
        assert!(Entry::decode(b"x").is_err());
    }

    #[test]
    fn the_id_of_a_shard_is_read_back() {
        assert_eq!(index_of(&shard_id(7)), Some(7));
        for id in ["objects-7", "a", "objects-x"] {
            assert_eq!(index_of(&ShardId::new(id).unwrap()), None);
        }
    }
}
