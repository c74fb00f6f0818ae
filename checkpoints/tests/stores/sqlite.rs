//! The conformance suite on the SQLite store. Every handle opens the file by itself, as another process does.

use std::sync::Arc;

use async_trait::async_trait;
use checkpoints::conformance::{Factory, Fixture};
use checkpoints::{LeaseStore, SqliteStore, lease_store_conformance};

struct SqliteStores;

#[async_trait]
impl Factory for SqliteStores {
    async fn fresh(&self, handles: usize) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let mut stores: Vec<Arc<dyn LeaseStore>> = Vec::new();
        for _ in 0..handles {
            stores.push(Arc::new(SqliteStore::open(folder.path().join("checkpoints.db")).await.unwrap()));
        }
        Fixture::new(stores, folder)
    }
}

lease_store_conformance!(SqliteStores);
