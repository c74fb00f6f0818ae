//! The conformance suite on the memory store: with DynamoDB's limit on a decision, so that the limit is tested too.

use std::sync::Arc;

use async_trait::async_trait;
use checkpoints::conformance::{Factory, Fixture};
use checkpoints::{LeaseStore, MemoryStore, lease_store_conformance};

struct MemoryStores;

#[async_trait]
impl Factory for MemoryStores {
    async fn fresh(&self, handles: usize) -> Fixture {
        let store = MemoryStore::new().with_decision_shards_max(100);
        Fixture::new((0..handles).map(|_| Arc::new(store.clone()) as Arc<dyn LeaseStore>).collect(), ())
    }
}

lease_store_conformance!(MemoryStores);
