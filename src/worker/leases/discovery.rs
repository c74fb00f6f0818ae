//! Which rows the lease table has.
//!
//! Owns: making the rows that are missing, and removing those of shards that their stream has forgotten. Does not own: which
//! are missing (`rows`), who holds them (`leases`).

use std::collections::HashSet;

use checkpoints::{Lease, ShardKey, StoreError, StreamName};
use tokio::time::Instant;

use crate::worker::leases::manager::LeaseManager;
use crate::worker::leases::missing;

impl LeaseManager {
    /// Makes rows for shards that need one, and removes those of shards that are done and forgotten by their streams.
    /// Answers whether rows were made.
    pub(super) async fn sync_shards(&mut self, leases: &[Lease]) -> Result<bool, StoreError> {
        let mut made = false;
        for source in self.sources.clone() {
            let stream = source.stream();
            if self.state.synced.get(stream).is_some_and(|at| at.elapsed() < source.lists_every()) {
                continue;
            }
            // While it waits here nothing is renewed, and others would take this worker for dead.
            let shards = match tokio::time::timeout(self.failover / 3, source.shards()).await {
                Ok(Ok(shards)) => shards,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the shards can't be listed");
                    continue;
                }
                Err(_) => {
                    tracing::warn!(%stream, "listing the shards takes too long, and is tried again");
                    continue;
                }
            };
            self.state.synced.insert(stream.clone(), Instant::now());
            let listed: HashSet<ShardKey> =
                shards.iter().map(|shard| ShardKey::new(stream.clone(), shard.id.clone())).collect();
            for generation in missing(stream, shards, leases) {
                made |= !self.store.create(&generation).await?.is_empty();
            }
            self.forget(leases, stream, &listed).await?;
        }
        Ok(made)
    }

    /// Removes rows of shards that were read to their ends, whose stream has not listed them twice, and whose children
    /// are being read. (A row that is missing would be made again, and its shard read twice, if the stream still had it.)
    async fn forget(
        &mut self,
        leases: &[Lease],
        stream: &StreamName,
        listed: &HashSet<ShardKey>,
    ) -> Result<(), StoreError> {
        let of_stream = |lease: &&Lease| lease.key.stream == *stream;
        let (mut again, mut removed) = (Vec::new(), Vec::new());
        for lease in leases.iter().filter(of_stream) {
            let done = lease.is_done() && !listed.contains(&lease.key);
            let mut children = leases.iter().filter(of_stream).filter(|child| child.parents.contains(&lease.key.shard));
            let read = |child: &Lease| child.last_manifest.is_some() || child.is_done();
            if !done || lease.children.is_empty() || !children.all(read) {
                continue;
            }
            if self.state.forgotten.contains(&lease.key) {
                removed.push(lease.key.clone());
            } else {
                again.push(lease.key.clone());
            }
        }
        self.state.forgotten.retain(|key| key.stream != *stream);
        self.state.forgotten.extend(again);
        for key in removed {
            if self.store.remove(&key).await? {
                tracing::info!(%key, "the stream has forgotten the shard: its lease is removed");
            }
        }
        Ok(())
    }
}
