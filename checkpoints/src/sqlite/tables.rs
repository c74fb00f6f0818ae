//! The tables of an SQLite lease store: reading and writing whole rows, inside a transaction that is already open.
//!
//! A lease row is moved between SQL values and [`StoredLease`], which knows what they mean; a set of shard ids is a JSON
//! list. A row whose values have the wrong type, as only another program can write them, is an error that names the shard.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Failure;
use crate::error::StoreError;
use crate::lease::Lease;
use crate::named::{CheckpointName, NamedCheckpoint, NamedCheckpointSummary, decode_positions, encode_positions};
use crate::row::{self, StoredLease};
use crate::rules::Rows;
use crate::shard::ShardKey;

/// All columns of `leases`, in the order of [`write()`]'s parameters.
const COLUMNS: &str = "streamName, shardId, leaseOwner, checkpointOwner, leaseCounter, checkpoint, \
     checkpointSubSequenceNumber, pendingCheckpoint, pendingCheckpointSubSequenceNumber, pendingCheckpointState, \
     lastManifest, parentShardId, childShardIds, startingHashKey, endingHashKey, ownerSwitchesSinceCheckpoint, \
     throughputKBps";

/// The leases, for the time of one transaction.
pub(super) struct Leases<'tx> {
    transaction: &'tx Connection,
}

impl<'tx> Leases<'tx> {
    pub(super) fn new(transaction: &'tx Connection) -> Self {
        Self { transaction }
    }

    /// The transaction, for the functions below.
    pub(super) fn transaction(&self) -> &'tx Connection {
        self.transaction
    }
}

impl Rows for Leases<'_> {
    type Error = Failure;

    fn get(&self, key: &ShardKey) -> Result<Option<Lease>, Failure> {
        let select = format!("SELECT {COLUMNS} FROM leases WHERE streamName = ?1 AND shardId = ?2");
        let mut statement = self.transaction.prepare(&select)?;
        let mut rows = statement.query([key.stream.as_str(), key.shard.as_str()])?;
        rows.next()?.map(read).transpose()
    }

    fn put(&mut self, lease: Lease) -> Result<(), Failure> {
        write(self.transaction, &row::encode(&lease)?)
    }

    fn delete(&mut self, key: &ShardKey) -> Result<(), Failure> {
        let delete = "DELETE FROM leases WHERE streamName = ?1 AND shardId = ?2";
        self.transaction.execute(delete, [key.stream.as_str(), key.shard.as_str()])?;
        Ok(())
    }
}

/// All leases, in the order of their keys.
pub(super) fn list_leases(transaction: &Connection) -> Result<Vec<Lease>, Failure> {
    let mut statement = transaction.prepare(&format!("SELECT {COLUMNS} FROM leases ORDER BY streamName, shardId"))?;
    let mut rows = statement.query([])?;
    let mut leases = Vec::new();
    while let Some(row) = rows.next()? {
        leases.push(read(row)?);
    }
    Ok(leases)
}

fn write(transaction: &Connection, stored: &StoredLease) -> Result<(), Failure> {
    let insert = format!(
        "INSERT OR REPLACE INTO leases ({COLUMNS}) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)"
    );
    transaction.execute(
        &insert,
        params![
            stored.stream_name,
            stored.shard_id,
            stored.lease_owner,
            stored.checkpoint_owner,
            stored.lease_counter,
            stored.checkpoint,
            stored.checkpoint_sub_sequence_number,
            stored.pending_checkpoint,
            stored.pending_checkpoint_sub_sequence_number,
            stored.pending_checkpoint_state,
            stored.last_manifest,
            json_list(&stored.parent_shard_id),
            json_list(&stored.child_shard_ids),
            stored.starting_hash_key,
            stored.ending_hash_key,
            stored.owner_switches_since_checkpoint,
            stored.throughput_kbps,
        ],
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<Lease, Failure> {
    let stored = read_values(row).map_err(|error| {
        let name = |column| row.get::<_, String>(column).unwrap_or_else(|_| "?".to_owned());
        StoreError::Malformed {
            item: format!("lease of shard {} of stream {}", name("shardId"), name("streamName")),
            problem: error.to_string(),
        }
    })?;
    Ok(row::decode(stored)?)
}

fn read_values(row: &Row<'_>) -> rusqlite::Result<StoredLease> {
    Ok(StoredLease {
        stream_name: row.get("streamName")?,
        shard_id: row.get("shardId")?,
        lease_owner: row.get("leaseOwner")?,
        checkpoint_owner: row.get("checkpointOwner")?,
        lease_counter: row.get("leaseCounter")?,
        checkpoint: row.get("checkpoint")?,
        checkpoint_sub_sequence_number: row.get("checkpointSubSequenceNumber")?,
        pending_checkpoint: row.get("pendingCheckpoint")?,
        pending_checkpoint_sub_sequence_number: row.get("pendingCheckpointSubSequenceNumber")?,
        pending_checkpoint_state: row.get("pendingCheckpointState")?,
        last_manifest: row.get("lastManifest")?,
        parent_shard_id: read_list(row, "parentShardId")?,
        child_shard_ids: read_list(row, "childShardIds")?,
        starting_hash_key: row.get("startingHashKey")?,
        ending_hash_key: row.get("endingHashKey")?,
        owner_switches_since_checkpoint: row.get("ownerSwitchesSinceCheckpoint")?,
        throughput_kbps: row.get("throughputKBps")?,
    })
}

/// A set as a JSON list, or nothing if it is empty.
fn json_list(texts: &[String]) -> Option<String> {
    let json = || serde_json::to_string(texts).expect("a list of texts is always JSON");
    (!texts.is_empty()).then(json)
}

fn read_list(row: &Row<'_>, column: &str) -> rusqlite::Result<Vec<String>> {
    let Some(json) = row.get::<_, Option<String>>(column)? else { return Ok(Vec::new()) };
    serde_json::from_str(&json).map_err(|error| {
        let index = row.as_ref().column_index(column).unwrap_or_default();
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, error.into())
    })
}

pub(super) fn save_checkpoint(transaction: &Connection, checkpoint: &NamedCheckpoint) -> Result<bool, Failure> {
    let too_large = |_| StoreError::Invalid {
        operation: format!("save checkpoint {}", checkpoint.name),
        problem: format!("its time, {} ms, exceeds 63 bits", checkpoint.at_ms),
    };
    let at_ms = i64::try_from(checkpoint.at_ms).map_err(too_large)?;
    let shards = i64::try_from(checkpoint.positions.len()).expect("a list in memory has fewer than 2^63 entries");
    let insert = "INSERT INTO namedCheckpoints (name, atMs, shards, positions) VALUES (?1, ?2, ?3, ?4) \
                  ON CONFLICT DO NOTHING";
    let positions = encode_positions(&checkpoint.positions);
    Ok(transaction.execute(insert, params![checkpoint.name.as_str(), at_ms, shards, positions])? == 1)
}

pub(super) fn list_checkpoints(transaction: &Connection) -> Result<Vec<NamedCheckpointSummary>, Failure> {
    let mut statement = transaction.prepare("SELECT name, atMs, shards FROM namedCheckpoints ORDER BY name")?;
    let mut rows = statement.query([])?;
    let mut summaries = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get("name")?;
        let count = |column: &str| -> Result<u64, Failure> {
            let number: i64 = row.get(column)?;
            Ok(u64::try_from(number).map_err(|_| checkpoint_nonsense(&name, format!("{column} is {number}")))?)
        };
        let shards = usize::try_from(count("shards")?).map_err(|error| checkpoint_nonsense(&name, error))?;
        let at_ms = count("atMs")?;
        let name = CheckpointName::new(&name).map_err(|error| checkpoint_nonsense(&name, error))?;
        summaries.push(NamedCheckpointSummary { name, at_ms, shards });
    }
    Ok(summaries)
}

pub(super) fn get_checkpoint(
    transaction: &Connection,
    name: &CheckpointName,
) -> Result<Option<NamedCheckpoint>, Failure> {
    let select = "SELECT atMs, positions FROM namedCheckpoints WHERE name = ?1";
    let values = |row: &Row<'_>| Ok((row.get("atMs")?, row.get("positions")?));
    let found: Option<(i64, String)> = transaction.query_row(select, [name.as_str()], values).optional()?;
    let Some((at_ms, positions)) = found else { return Ok(None) };
    Ok(Some(NamedCheckpoint {
        name: name.clone(),
        at_ms: u64::try_from(at_ms).map_err(|_| checkpoint_nonsense(name, format!("atMs is {at_ms}")))?,
        positions: decode_positions(&positions).map_err(|error| checkpoint_nonsense(name, error))?,
    }))
}

pub(super) fn delete_checkpoint(transaction: &Connection, name: &CheckpointName) -> Result<bool, Failure> {
    Ok(transaction.execute("DELETE FROM namedCheckpoints WHERE name = ?1", [name.as_str()])? == 1)
}

fn checkpoint_nonsense(name: impl std::fmt::Display, problem: impl std::fmt::Display) -> StoreError {
    StoreError::Malformed { item: format!("checkpoint {name}"), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary::lease;

    /// An empty store in memory, with the real tables.
    fn connection() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(super::super::schema::TABLES).unwrap();
        connection
    }

    proptest! {
        #[test]
        fn a_lease_survives_the_table(first in lease(), second in lease()) {
            let connection = connection();
            let mut leases = Leases::new(&connection);
            // The second write to the same row must leave nothing of the first.
            let second = Lease { key: first.key.clone(), ..second };
            for lease in [first, second] {
                prop_assert!(leases.put(lease.clone()).is_ok());
                let read = leases.get(&lease.key).ok().flatten();
                prop_assert_eq!(read, Some(lease));
            }
        }
    }
}
