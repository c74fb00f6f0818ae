//! A SQLite database as a lease store, for the workers of one machine.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use checkpoints::{LeaseStore, SqliteStore, StoreError, StreamIds};

use crate::aws::Aws;
use crate::diagnosis::{Diagnosis, FindingKind};
use crate::lake::places::{check_writable, network_file_system, resolved};
use crate::lease_stores::{LeaseBackend, LeaseStoreOptions};

/// The path of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteUrl(PathBuf);

impl SqliteUrl {
    /// The scheme of its URLs.
    pub const SCHEME: &'static str = "sqlite";
    /// What a URL looks like.
    pub const FORM: &'static str = "sqlite://PATH";

    /// The database at a path.
    pub fn new(path: PathBuf) -> Self {
        SqliteUrl(path)
    }

    fn problem(&self, lake: Option<&Path>) -> Option<String> {
        let path = resolved(&self.0);
        let folder = path.parent()?;
        if path.is_dir() {
            return Some("this is a directory; give the path of a file in it".to_owned());
        }
        // The lake's own folder is made with the lake.
        if lake.is_some_and(|lake| folder == resolved(lake)) {
            return None;
        }
        if !folder.is_dir() {
            return Some(format!("there is no directory {}; create it first", folder.display()));
        }
        check_writable(folder).err()
    }
}

impl fmt::Display for SqliteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite://{}", self.0.display())
    }
}

#[async_trait]
impl LeaseBackend for SqliteUrl {
    fn name(&self) -> &'static str {
        "SQLite"
    }

    fn check(&self, lake: Option<&Path>) -> Result<(), String> {
        match self.problem(lake) {
            Some(problem) => Err(format!("the checkpoints {}: {problem}", self.0.display())),
            None => Ok(()),
        }
    }

    async fn open(
        &self,
        _: &LeaseStoreOptions,
        _: StreamIds,
        _: Option<&Aws>,
    ) -> Result<Arc<dyn LeaseStore>, StoreError> {
        Ok(Arc::new(SqliteStore::open(&self.0).await?))
    }

    async fn open_existing(
        &self,
        options: &LeaseStoreOptions,
        streams: StreamIds,
        aws: Option<&Aws>,
    ) -> Result<Option<Arc<dyn LeaseStore>>, StoreError> {
        if !self.0.is_file() {
            return Ok(None);
        }
        self.open(options, streams, aws).await.map(Some)
    }

    async fn diagnose(&self, _: &LeaseStoreOptions, _: Option<&Aws>, diagnosis: &mut Diagnosis) {
        if let Some(kind) = network_file_system(&self.0) {
            let what = format!("the lease database {} is on a network file system ({kind})", self.0.display());
            diagnosis.find(FindingKind::LeasesOnNetworkDisk, what);
        }
    }
}
