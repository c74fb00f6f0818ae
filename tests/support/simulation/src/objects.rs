//! Objects that another program writes, as a source beside the streams of the environment in memory.
//!
//! Owns: what is in the place, reading it through a worker's network, and which record each line is once its object has a number. Does
//! not own: listing and numbering (the product's `source::objects`), the records (`records`).
//!
//! A record has its identity only once a worker has listed its object. Until then it is known by the time at which it was put.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use checkpoints::{Position, SequenceNumber, ShardId, ShardKey, StreamName};
use pipeline::documents::Documents;
use serde_json::Value;
use shardlake::clock::SharedClock;
use shardlake::lake::ObjectStore;
use shardlake::retry::RetryPolicy;
use shardlake::source::objects::{Object, ObjectsConfig, ObjectsSource, Pages, Part, Place};
use shardlake::source::{SourceError, TextConfig};
use tokio::time::Instant;

use crate::environment::RecordId;
use crate::network::{Network, NetworkError, Service};
use crate::records::{Draft, RECORD_BYTES_MAX};
use crate::rng::Rng;

/// The name of the source's stream.
pub const NAME: &str = "objects";
/// What the ids of its shards begin with.
pub const SHARDS: &str = "objects-";
/// A sequence number is the object's number in its shard times this, plus the offset in its text.
const OBJECT: u64 = 1_000_000_000_000;
/// Keys of one page of a list.
const PAGE: usize = 3;
/// Most records of an object.
const RECORDS_MAX: u64 = 6;

struct Stored {
    bytes: Bytes,
    put_at: Instant,
    /// The records, with their offsets, until they have identities.
    records: Vec<(u64, Draft)>,
}

/// A place of objects. Clones are the same place.
#[derive(Clone)]
pub struct SimObjects {
    objects: Arc<Mutex<BTreeMap<String, Stored>>>,
    entries: Arc<Mutex<BTreeSet<String>>>,
    rng: Arc<Mutex<Rng>>,
    shards: u32,
    begun: Instant,
}

impl std::fmt::Debug for SimObjects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimObjects").finish_non_exhaustive()
    }
}

impl SimObjects {
    /// A place that follows from `rng`.
    pub fn new(mut rng: Rng) -> Self {
        let shards = 1 + u32::try_from(rng.below(3)).expect("a small number");
        let (objects, entries, rng) = (Arc::default(), Arc::default(), Arc::new(Mutex::new(rng)));
        SimObjects { objects, entries, rng, shards, begun: Instant::now() }
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Stored>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of the stream.
    pub fn name() -> StreamName {
        StreamName::new(NAME).expect("a plain name")
    }

    /// Takes some of these drafts, and writes an object of them. Their keys have no order.
    pub fn put(&self, drafts: &mut Vec<Draft>) {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        if !rng.chance(400) {
            return;
        }
        let mut count = 1 + rng.below(RECORDS_MAX);
        let mut chosen = Vec::new();
        drafts.retain(|draft| {
            // One broken line could take the next ones with it.
            let is_chosen = count > 0 && draft.fault.is_none();
            if is_chosen {
                count -= 1;
                chosen.push(draft.clone());
            }
            !is_chosen
        });
        let (mut bytes, mut records) = (Vec::new(), Vec::new());
        for draft in chosen {
            records.push((bytes.len() as u64, draft.clone()));
            bytes.extend_from_slice(&draft.bytes);
            bytes.push(b'\n');
        }
        if !records.is_empty() {
            let key = format!("{:016x}.json", rng.draw());
            let stored = Stored { bytes: bytes.into(), put_at: Instant::now(), records };
            self.objects().insert(key, stored);
        }
    }

    /// When each record was put that has no identity yet.
    pub fn unlisted(&self) -> Vec<Instant> {
        self.objects().values().flat_map(|stored| stored.records.iter().map(|_| stored.put_at)).collect()
    }

    /// The records that get their identities by an entry of the source's catalog in the lake.
    pub fn listed(&self, key: &str, bytes: &Bytes) -> Vec<(RecordId, Draft, Instant)> {
        let is_entry = key.starts_with("_sources/") && key.contains("/objects/");
        if !is_entry || !self.entries.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned()) {
            return Vec::new();
        }
        let mut json = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut json).expect("an entry is compressed");
        let entry: Value = serde_json::from_slice(&json).expect("an entry is JSON");
        let before = entry["before"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut counts: Vec<u64> = before.iter().map(|count| count["objects"].as_u64().unwrap_or(0)).collect();
        let mut records = Vec::new();
        for object in entry["objects"].as_array().into_iter().flatten() {
            let name = object["key"].as_str().expect("an object has a key");
            let shards = u64::try_from(counts.len()).expect("a small number");
            let index = usize::try_from(crc64_nvme(name.as_bytes()) % shards.max(1)).expect("a small number");
            counts[index] += 1;
            let shard = ShardId::new(format!("{SHARDS}{index:05}")).expect("a plain name");
            let shard = ShardKey::new(Self::name(), shard);
            let mut objects = self.objects();
            let stored = objects.get_mut(name).expect("what is listed is there");
            for (offset, draft) in std::mem::take(&mut stored.records) {
                let position = Position::at(SequenceNumber::from(counts[index] * OBJECT + offset));
                records.push((RecordId { key: shard.clone(), position }, draft, stored.put_at));
            }
        }
        records
    }

    /// The place as a source, behind a worker's network. `complete`: it is read up to the present.
    pub fn source(
        &self,
        network: &Arc<Network>,
        lake: Arc<dyn ObjectStore>,
        clock: SharedClock,
        complete: bool,
    ) -> ObjectsSource {
        let place = NetworkedPlace { network: Arc::clone(network), place: self.clone() };
        let config = ObjectsConfig {
            complete,
            shards: self.shards,
            list_every: Duration::from_secs(2),
            text: TextConfig { record_bytes_max: RECORD_BYTES_MAX, documents: Documents::MANY },
            retry: RetryPolicy::shard(network.retry_within),
            clock,
        };
        ObjectsSource::new(Self::name(), Arc::new(place), lake, config)
    }

    fn listed_object(&self, key: &str, stored: &Stored) -> Object {
        let after = stored.put_at.saturating_duration_since(self.begun).as_millis();
        Object {
            key: key.to_owned(),
            etag: format!("{:016x}", crc64_nvme(&stored.bytes)),
            bytes: stored.bytes.len() as u64,
            modified_ms: 1_737_000_000_000 + i64::try_from(after).expect("a run lasts hours"),
        }
    }
}

/// CRC-64/NVME, by which keys are divided into shards: reflected, polynomial 0x9A6C9329AC4BC9B5.
fn crc64_nvme(bytes: &[u8]) -> u64 {
    let step = |crc: u64, _| if crc & 1 == 1 { crc >> 1 ^ 0x9A6C_9329_AC4B_C9B5 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u64::from(*byte), step))
}

/// A place behind a worker's network.
struct NetworkedPlace {
    network: Arc<Network>,
    place: SimObjects,
}

struct NetworkedPages {
    network: Arc<Network>,
    place: SimObjects,
    after: Option<String>,
}

fn source_error(error: NetworkError) -> SourceError {
    let place = format!("stream {NAME}");
    match error {
        NetworkError::Refused => SourceError::Unreadable { place, problem: "refused by the simulation".to_owned() },
        _ => SourceError::Unavailable { place, problem: "lost by the simulation".to_owned() },
    }
}

#[async_trait]
impl Pages for NetworkedPages {
    async fn next(&mut self) -> Result<Option<Vec<Object>>, SourceError> {
        let (place, after) = (self.place.clone(), self.after.clone().unwrap_or_default());
        let listed = async move {
            let objects = place.objects();
            let later = objects.iter().filter(|(key, _)| **key > after).take(PAGE);
            later.map(|(key, stored)| place.listed_object(key, stored)).collect::<Vec<_>>()
        };
        let page = self.network.send(Service::Stream, "ListObjects", "", listed).await.map_err(source_error)?;
        self.after = page.last().map(|object| object.key.clone()).or(self.after.take());
        Ok((!page.is_empty()).then_some(page))
    }
}

#[async_trait]
impl Place for NetworkedPlace {
    fn list(&self) -> Box<dyn Pages> {
        Box::new(NetworkedPages { network: Arc::clone(&self.network), place: self.place.clone(), after: None })
    }

    async fn get(&self, object: &Object, range: Option<Range<u64>>) -> Result<Part, SourceError> {
        let (place, key) = (self.place.clone(), object.key.clone());
        let found = async move { place.objects().get(&key).map(|stored| stored.bytes.clone()) };
        let found = self.network.send(Service::Stream, "GetObject", &object.key, found).await.map_err(source_error)?;
        let Some(bytes) = found else { return Ok(Part::Gone) };
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(Part::Bytes(match range {
            Some(range) => bytes.slice(at(range.start)..at(range.end)),
            None => bytes.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_crc_64_nvme() {
        assert_eq!(super::crc64_nvme(b"123456789"), 0xAE8B_1486_0A79_9888);
    }
}
