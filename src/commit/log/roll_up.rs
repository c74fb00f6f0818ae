//! Roll-ups: the sums of many commit records, stored as one object.
//!
//! Owns: the stored form, reading the newest one, writing the next one and removing old ones, and when a worker writes one.
//! Does not own: which records a roll-up covers, and whether that suffices (the parent module).
//!
//! A roll-up is `_rollups/<20 digits>.json.gz`, JSON compressed by gzip:
//!
//! ```json
//! {"format":2,"number":7,
//!  "cursor":{"horizon":"20250113T093000Z","recent":["20250113T103000Z-3f2a91c07d5e4b10-000001"],
//!            "chains":[{"stream":"orders","shard":"shardId-0","segments":[{"after":"TRIM_HORIZON","through":"4959"}],
//!                       "last":"20250113T103000Z-3f2a91c07d5e4b10-000001"}],
//!            "accepted":[{"kind":"parent","stream":"orders","shard":"shardId-9","through":null}]},
//!  "fold":{"epochs":1,"latest":{"written_at":"2025-01-13T…Z","epoch":"20250113T…-000001"},"totals":{…},"edges":{…},
//!          "dead_letters":{"Decode.Truncated":{"2025-01-13":{"records":5,"files":1,"bytes":812}}},
//!          "objects":{"processed":{"count":3,"rows":995,"bytes":81234}},
//!          "arrivals":{"shards":[{"stream":"orders","shard":"shardId-0","through":"2025-01-13T…Z"}],"streams":{"events":["orders"]}}}}
//! ```
//!
//! Format 1 had no arrival times. A roll-up of it is ignored, and the next one replaces it.
//!
//! Limits: 256 MiB of JSON, which is enough for about a million shards.

use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use checkpoints::LeaseOwner;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use pipeline::layout;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::commit::log::{Cursor, Fold, read_from};
use crate::commit::manifest::UnreadableManifest;
use crate::commit::protocol::CommitError;
use crate::commit::stores::Stores;
use crate::lake::{LakeError, ObjectKey, Written};

/// The format that this version writes. It reads no other.
const FORMAT: u32 = 2;
/// The size of a roll-up's JSON.
const JSON_BYTES_MAX: u64 = 256 << 20;
/// How often the list of roll-ups is read, if the newest one is removed before it can be read.
const LISTS_MAX: usize = 3;
/// Roll-ups that are kept: the newest one, and the one before it for readers that have just listed it.
const KEPT: u64 = 2;

/// When roll-ups are written, and what they leave to be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RollUpConfig {
    /// Commits of one worker between two roll-ups.
    pub every: u64,
    /// The horizon is at least this long before the newest epoch of each worker, since clocks differ. It only decides how many
    /// names a reader lists.
    pub margin: Duration,
}

impl Default for RollUpConfig {
    fn default() -> Self {
        RollUpConfig { every: 256, margin: Duration::from_secs(900) }
    }
}

/// What a set of commit records adds up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollUp {
    format: u32,
    /// Its number, from 1.
    pub number: u64,
    /// Which records it covers.
    pub cursor: Cursor,
    /// Their sums.
    pub fold: Fold,
}

/// What became of writing a roll-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolledUp {
    /// It was written.
    Written {
        /// Its number.
        number: u64,
        /// How many records it covers.
        epochs: u64,
    },
    /// The newest one covers almost all records.
    NotNeeded,
    /// Another worker wrote the number first.
    Outrun,
    /// Records cannot be read, or ranges were committed twice. Until that is repaired, all records are read each time.
    Unfit,
}

impl RollUp {
    /// The key of a roll-up.
    fn key(number: u64) -> ObjectKey {
        ObjectKey::new(layout::roll_up(number)).expect("digits are a plain name")
    }

    fn to_bytes(&self) -> Result<Bytes, CommitError> {
        let refused = |problem: String| {
            CommitError::Lake(LakeError::Refused { operation: format!("write {}", Self::key(self.number)), problem })
        };
        let json = serde_json::to_vec(self).expect("a roll-up has only text keys and whole numbers");
        if json.len() as u64 > JSON_BYTES_MAX {
            return Err(refused(format!("it has {} bytes; the limit is {JSON_BYTES_MAX}", json.len())));
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let compressed = encoder.write_all(&json).and_then(|()| encoder.finish());
        compressed.map(Bytes::from).map_err(|error| refused(error.to_string()))
    }

    fn from_bytes(key: &ObjectKey, bytes: &[u8]) -> Result<Self, UnreadableManifest> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let unreadable = |problem: String| UnreadableManifest { name: key.to_string(), problem };
        let mut json = Vec::new();
        let read = GzDecoder::new(bytes).take(JSON_BYTES_MAX + 1).read_to_end(&mut json);
        if read.map_err(|error| unreadable(error.to_string()))? as u64 > JSON_BYTES_MAX {
            return Err(unreadable(format!("it has more than {JSON_BYTES_MAX} bytes")));
        }
        let head: Head = serde_json::from_slice(&json).map_err(|error| unreadable(error.to_string()))?;
        if head.format != FORMAT {
            return Err(unreadable(format!("it has format {}, this version reads format {FORMAT}", head.format)));
        }
        let roll_up: RollUp = serde_json::from_slice(&json).map_err(|error| unreadable(error.to_string()))?;
        if Self::key(roll_up.number) != *key {
            return Err(unreadable(format!("it says that it is number {}", roll_up.number)));
        }
        Ok(roll_up)
    }
}

/// The number of the newest roll-up, and the newest one that can be read.
///
/// # Errors
/// The lake fails.
pub async fn newest_roll_up(stores: &Stores) -> Result<(Option<u64>, Option<RollUp>), CommitError> {
    let mut newest = None;
    'lists: for _ in 0..LISTS_MAX {
        let numbers = numbers(stores).await?;
        newest = numbers.last().copied();
        for number in numbers.into_iter().rev() {
            let key = RollUp::key(number);
            // It was removed meanwhile, so a newer one is there.
            let Some(bytes) = stores.lake.get(&key).await? else { continue 'lists };
            match RollUp::from_bytes(&key, &bytes) {
                Ok(roll_up) => return Ok((newest, Some(roll_up))),
                Err(error) => tracing::warn!(%error, "ignoring a roll-up of the commit log; trying the one before it"),
            }
        }
        break;
    }
    Ok((newest, None))
}

/// The numbers of all roll-ups, in order.
async fn numbers(stores: &Stores) -> Result<Vec<u64>, LakeError> {
    let listed = stores.lake.list(layout::ROLL_UPS).await?;
    Ok(listed.iter().filter_map(|object| layout::number_of_roll_up(object.key.as_str())).collect())
}

/// Writes the next roll-up, if the newest one lacks at least `config.every` records, or cannot be read. Several workers may call
/// it at once.
///
/// # Errors
/// The stores fail. What was written stays valid.
pub async fn roll_up(stores: &Stores, config: RollUpConfig) -> Result<RolledUp, CommitError> {
    let leases = stores.own_leases().await?;
    let (newest, base) = newest_roll_up(stores).await?;
    let is_newest = base.as_ref().map(|base| base.number) == newest;
    let records_min = if is_newest { config.every.max(1) } else { 0 };
    if newest.is_none() && (stores.lake.list(layout::COMMITS).await?.len() as u64) < records_min {
        // A young lake: no record needs to be read to find out.
        return Ok(RolledUp::NotNeeded);
    }
    let base = base.map(|RollUp { cursor, fold, .. }| (cursor, fold));
    let base_cursor = base.as_ref().map(|(cursor, _)| cursor.clone());
    let (gathered, fold, is_from_base) = read_from(stores, &leases, base).await?;
    if is_from_base && gathered.records_read < records_min {
        return Ok(RolledUp::NotNeeded);
    }
    if !gathered.unreadable.is_empty() || gathered.is_broken {
        tracing::debug!("the commit records are damaged or overlap; no roll-up is written");
        return Ok(RolledUp::Unfit);
    }
    let epochs = fold.epochs;
    let number = newest.map_or(1, |newest| newest + 1);
    let base_cursor = base_cursor.filter(|_| is_from_base).unwrap_or_default();
    let next =
        RollUp { format: FORMAT, number, cursor: gathered.into_cursor(&base_cursor, &leases, config.margin), fold };
    if stores.lake.put_new(&RollUp::key(number), next.to_bytes()?).await? == Written::KeyTaken {
        return Ok(RolledUp::Outrun);
    }
    if let Err(error) = remove_before(stores, number).await {
        // A refusal meets the next writer as well: somebody must act.
        if error.is_retryable() {
            tracing::debug!(%error, "failed to remove old roll-ups; the next writer removes them");
        } else {
            tracing::warn!(%error, "failed to remove old roll-ups; they pile up");
        }
    }
    Ok(RolledUp::Written { number, epochs })
}

/// Removes the roll-ups that nobody needs once `number` is written.
async fn remove_before(stores: &Stores, number: u64) -> Result<(), LakeError> {
    for old in numbers(stores).await?.into_iter().filter(|old| old + KEPT <= number) {
        stores.lake_once.delete(&RollUp::key(old)).await?;
    }
    Ok(())
}

/// Writes roll-ups beside a worker, one after a number of its own commits.
#[derive(Debug)]
pub struct RollUps {
    stores: Stores,
    config: RollUpConfig,
    /// Commits until the next one.
    due_in: u64,
    running: Option<JoinHandle<()>>,
}

impl RollUps {
    /// Roll-ups beside `worker`.
    pub fn new(stores: Stores, worker: &LeaseOwner, config: RollUpConfig) -> Self {
        // Workers that start together write at different times.
        let spread = worker.as_str().bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        RollUps { stores, config, due_in: 1 + spread % config.every.max(1), running: None }
    }

    /// Counts a commit. Writes a roll-up in the background if it is time and the one before is finished.
    pub fn maybe_roll_up(&mut self) {
        self.due_in -= 1;
        if self.due_in > 0 {
            return;
        }
        self.due_in = self.config.every.max(1);
        if self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            return;
        }
        // Other workers write roll-ups as well: most of the commits may be covered already.
        let config = RollUpConfig { every: self.config.every / 4, ..self.config };
        let stores = self.stores.clone();
        self.running = Some(tokio::spawn(async move {
            match roll_up(&stores, config).await {
                Ok(RolledUp::Written { number, epochs }) => {
                    tracing::info!(number, epochs, "wrote a roll-up of the commit log");
                }
                Ok(outcome) => tracing::debug!(?outcome, "wrote no roll-up of the commit log"),
                Err(error) => {
                    tracing::warn!(%error, "failed to write a roll-up of the commit log; a later one covers more");
                }
            }
        }));
    }
}

impl Drop for RollUps {
    /// A roll-up that is dropped half-way leaves nothing behind, or itself whole.
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roll_up() -> RollUp {
        RollUp { format: FORMAT, number: 7, cursor: Cursor::default(), fold: Fold::default() }
    }

    #[test]
    fn a_roll_up_round_trips() {
        let roll_up = roll_up();
        let key = RollUp::key(7);
        assert_eq!(key.as_str(), "_rollups/00000000000000000007.json.gz");
        assert_eq!(RollUp::from_bytes(&key, &roll_up.to_bytes().unwrap()), Ok(roll_up));
    }

    #[test]
    fn a_roll_up_that_is_damaged_or_of_another_format_or_number_is_refused() {
        let whole = roll_up().to_bytes().unwrap();
        let key = RollUp::key(7);
        assert!(RollUp::from_bytes(&key, &whole[..whole.len() - 9]).is_err());
        assert!(RollUp::from_bytes(&key, b"{}").is_err());
        let problem = RollUp::from_bytes(&RollUp::key(8), &whole).unwrap_err().problem;
        assert_eq!(problem, "it says that it is number 7");
        let later = RollUp { format: 3, ..roll_up() }.to_bytes().unwrap();
        let problem = RollUp::from_bytes(&key, &later).unwrap_err().problem;
        assert_eq!(problem, "it has format 3, this version reads format 2");
    }
}
