//! The kinds of lease stores: every one is registered here, and nothing outside this folder names one.
//!
//! Owns: reading a URL of `[checkpoints]`, opening, permissions, and how the commands show a store. Does not own: the stores
//! themselves (the checkpoints crate). To add one: its store there, its file here, and the variant and the entries below.

mod dynamodb;
mod sqlite;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use checkpoints::{LeaseStore, StoreError, StreamIds};
use pipeline::layout::LOCAL_CHECKPOINTS;

use crate::aws::permissions::{Permission, Trials};
use crate::aws::{Aws, Created, arn};
use crate::diagnosis::Diagnosis;
use crate::settings::url::Url;
use crate::settings::{Setting, Within};

pub use dynamodb::{DynamoDbOptions, DynamoDbUrl};
pub use sqlite::SqliteUrl;

/// Where checkpoints and leases are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointsUrl {
    /// A SQLite database.
    Sqlite(SqliteUrl),
    /// A DynamoDB table.
    DynamoDb(DynamoDbUrl),
}

impl CheckpointsUrl {
    /// What URLs look like.
    pub(crate) const FORM: &'static str = "`sqlite://PATH`, `dynamodb://TABLE` or `dynamodb://ARN`";

    /// The database in a local lake.
    pub fn in_lake(folder: &Path) -> Self {
        CheckpointsUrl::Sqlite(SqliteUrl::new(folder.join(LOCAL_CHECKPOINTS)))
    }

    /// Reads the URL of a lease store.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::new(text);
        match url.scheme {
            SqliteUrl::SCHEME if !url.rest.is_empty() => {
                Ok(CheckpointsUrl::Sqlite(SqliteUrl::new(PathBuf::from(url.rest))))
            }
            DynamoDbUrl::SCHEME => DynamoDbUrl::parse(&url).map(CheckpointsUrl::DynamoDb),
            "" if arn::service(text) == Some(DynamoDbUrl::SERVICE) => {
                DynamoDbUrl::parse(&url).map(CheckpointsUrl::DynamoDb)
            }
            _ => Err(format!(
                "'{url}' is not a valid lease store: expected {} or {}",
                SqliteUrl::FORM,
                DynamoDbUrl::FORM
            )),
        }
    }

    /// The kind of lease store.
    pub fn backend(&self) -> &dyn LeaseBackend {
        match self {
            CheckpointsUrl::Sqlite(url) => url,
            CheckpointsUrl::DynamoDb(url) => url,
        }
    }
}

/// The options of all kinds of lease stores; each kind reads its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseStoreOptions {
    /// Of a table in DynamoDB.
    pub dynamodb: DynamoDbOptions,
}

/// The keys of `[checkpoints]` that belong to one kind of lease store, each with the kind's name.
pub(crate) fn keys() -> Vec<(&'static str, Box<dyn Setting<LeaseStoreOptions>>)> {
    let dynamodb = dynamodb::keys().into_iter().map(|key| {
        let setting = Within { key, part: |options: &mut LeaseStoreOptions| &mut options.dynamodb, only: None };
        (DynamoDbUrl::NAME, Box::new(setting) as Box<dyn Setting<LeaseStoreOptions>>)
    });
    dynamodb.collect()
}

/// The permissions that any kind of lease store may need.
pub fn permissions() -> Vec<Permission> {
    dynamodb::PERMISSIONS.to_vec()
}

impl fmt::Display for CheckpointsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backend().fmt(f)
    }
}

/// A kind of lease store, by the URL of one store.
#[async_trait]
pub trait LeaseBackend: fmt::Display + Send + Sync {
    /// Its name in messages and in the documentation.
    fn name(&self) -> &'static str;

    /// A name for the application that keeps its leases here, if the store has one.
    fn application(&self) -> Option<&str> {
        None
    }

    /// Checks the options of this kind of lease store.
    ///
    /// # Errors
    /// A sentence for the user.
    fn check_options(&self, _: &LeaseStoreOptions) -> Result<(), String> {
        Ok(())
    }

    /// Whether opening it needs the SDK's settings.
    fn needs_aws(&self) -> bool {
        false
    }

    /// Checks that the store can be there, beside a lake in this folder if the lake is in one. Asks no service.
    ///
    /// # Errors
    /// A sentence for the user.
    fn check(&self, _lake: Option<&Path>) -> Result<(), String> {
        Ok(())
    }

    /// Opens the store, and makes it if it does not exist.
    async fn open(
        &self,
        options: &LeaseStoreOptions,
        streams: StreamIds,
        aws: Option<&Aws>,
    ) -> Result<Arc<dyn LeaseStore>, StoreError>;

    /// Opens a store that must exist; `None` if this machine or account does not have it.
    async fn open_existing(
        &self,
        options: &LeaseStoreOptions,
        streams: StreamIds,
        aws: Option<&Aws>,
    ) -> Result<Option<Arc<dyn LeaseStore>>, StoreError>;

    /// Tries the actions that a worker needs.
    async fn try_permissions(&self, _: &Aws, _: &LeaseStoreOptions, _: &mut Trials) {}

    /// Notes what is wrong with the store, if it exists. Changes nothing.
    async fn diagnose(&self, _: &LeaseStoreOptions, _: Option<&Aws>, _: &mut Diagnosis) {}

    /// Makes the store for a development account, if it does not exist. `None`: there is nothing to make.
    ///
    /// # Errors
    /// A sentence for the user.
    async fn create(&self, _: &LeaseStoreOptions, _: StreamIds, _: &Aws) -> Result<Option<Created>, String> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_shown_as_it_was_written() {
        for url in ["sqlite://c.db", "sqlite:///data/c.db", "dynamodb://the-table"] {
            assert_eq!(CheckpointsUrl::parse(url).unwrap().to_string(), url);
        }
        let arn = "arn:aws:dynamodb:eu-west-1:222222222222:table/leases";
        for url in [arn.to_owned(), format!("dynamodb://{arn}")] {
            assert_eq!(CheckpointsUrl::parse(&url).unwrap().to_string(), format!("dynamodb://{arn}"));
        }
        assert!(CheckpointsUrl::parse("dynamodb://arn:aws:dynamodb:eu-west-1:222222222222:table/a/index/b").is_err());
        assert_eq!(CheckpointsUrl::in_lake(Path::new("lake")).to_string(), "sqlite://lake/_checkpoints.db");
    }

    #[test]
    fn a_url_that_names_no_store_is_refused_with_what_to_write() {
        assert_eq!(
            CheckpointsUrl::parse("c.db").unwrap_err(),
            "'c.db' is not a valid lease store: expected sqlite://PATH or dynamodb://TABLE"
        );
        for url in
            ["sqlite://", "dynamodb://a", "dynamodb://me:hush@table", "https://me:hush@host/a", "x://h?Signature=hush"]
        {
            let message = CheckpointsUrl::parse(url).unwrap_err();
            assert!(!message.contains("hush") && message.starts_with('\''), "{message}");
        }
    }
}
