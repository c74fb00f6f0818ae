//! What the tests of the lake log share: epochs without objects, and processes that commit them.

use std::collections::BTreeMap;
use std::sync::Arc;

use checkpoints::{LeaseOwner, MemoryStore as MemoryLeases, Position, ShardId, ShardKey, ShardRange, StreamName};

use crate::commit::epoch_id::EpochId;
use crate::commit::lake_log::{LogVersion, enter, head};
use crate::commit::manifest::{FORMAT, Manifest, ManifestKind, ShardOfEpoch};
use crate::commit::stores::Stores;
use crate::commit::totals::Totals;
use crate::lake::ObjectStore;
use crate::retry::RetryPolicy;

pub(crate) fn worker(number: u8) -> LeaseOwner {
    LeaseOwner::from_random([number; 16])
}

fn at(number: u64) -> Position {
    Position::at(number.into())
}

/// An epoch without objects that continues the one of the number before. Its intent is not written.
pub(crate) fn epoch(me: u8, number: u64, head: LogVersion) -> Manifest {
    let key = ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new("a").unwrap());
    let shard = ShardOfEpoch {
        key,
        parents: Vec::new(),
        range: ShardRange::new(if number == 0 { Position::Beginning } else { at(number) }, at(number + 1)).unwrap(),
        children: Vec::new(),
        taken_over: false,
        records: 1,
        bytes: 10,
        arrived_through: None,
    };
    Manifest {
        format: FORMAT,
        kind: ManifestKind::Epoch,
        epoch: EpochId::new(1_736_764_200_000, &worker(me), number),
        worker: worker(me),
        written_at: "2025-01-13T10:30:00.000Z".to_owned(),
        head,
        shards: vec![shard],
        objects: Vec::new(),
        idle: Vec::new(),
        removed: Vec::new(),
        of: None,
        sources: Vec::new(),
        swap: None,
        totals: Totals::default(),
        edges: BTreeMap::new(),
        definitions: BTreeMap::new(),
        version: "0".to_owned(),
    }
}

/// The stores of one process.
pub(crate) fn process<L: ObjectStore + Clone>(lake: &L) -> Stores {
    Stores::new(Arc::new(lake.clone()), Arc::new(MemoryLeases::new()), RetryPolicy::default())
}

/// Writes the intent, enters, and removes the intent. Returns the version.
pub(crate) async fn commit(stores: &Stores, me: u8, number: u64) -> u64 {
    let manifest = intend(stores, me, number).await;
    let version = enter(stores, &manifest).await.unwrap().unwrap();
    stores.lake.delete(&manifest.epoch.intent_key()).await.unwrap();
    version.0
}

pub(crate) async fn intend(stores: &Stores, me: u8, number: u64) -> Manifest {
    let manifest = epoch(me, number, head(stores).await.unwrap());
    stores.lake.put_new(&manifest.epoch.intent_key(), manifest.to_bytes()).await.unwrap();
    manifest
}
