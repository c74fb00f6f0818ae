//! The tables of an SQLite lease store: reading and writing whole rows, inside an open transaction.
//!
//! Owns: moving a lease row between SQL values and [`StoredLease`]; a set of shard ids is a JSON list. Does not own: what the
//! values mean (`row.rs`). A row whose values have the wrong type is an error that names the shard; only another program can
//! write one.

use rusqlite::{Connection, Row, params};

use super::failure::Failure;
use crate::error::StoreError;
use crate::lease::Lease;
use crate::row::{self, StoredLease};
use crate::rules::Rows;
use crate::shard::ShardKey;

/// All columns of `leases`, in the order of [`write()`]'s parameters.
const COLUMNS: &str = "streamName, shardId, leaseOwner, checkpointOwner, leaseCounter, checkpoint, \
     checkpointSubSequenceNumber, pendingCheckpoint, pendingCheckpointSubSequenceNumber, pendingCheckpointState, \
     lastManifest, parentShardId, childShardIds, startingHashKey, endingHashKey, ownerSwitchesSinceCheckpoint, \
     throughputKBps";

/// The leases, for one transaction.
pub(super) struct Leases<'tx> {
    transaction: &'tx Connection,
}

impl<'tx> Leases<'tx> {
    pub(super) fn new(transaction: &'tx Connection) -> Self {
        Self { transaction }
    }

    /// The transaction.
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
        fn a_lease_round_trips_through_the_table(first in lease(), second in lease()) {
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
