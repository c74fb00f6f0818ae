//! The lease store in a DynamoDB table: for a fleet, in the layout of the Kinesis Client Library (KCL).
//!
//! A [`DynamoStore`] can take a table over from KCL. It keeps KCL's attributes in KCL's form and leaves unknown attributes as
//! they are, so that KCL can be started again. The two must not run at the same time: KCL's leader reassigns leases freely.
//!
//! The parts:
//! - `keys.rs` maps a shard to the key of its item, and back.
//! - `item.rs` encodes and decodes an item.
//! - `change.rs` has the condition and the effect of every call.
//! - `calls.rs` runs the calls.
//! - `tables.rs` creates the table.
//! - `errors.rs` says what a failure means.
//!
//! This file owns how single requests are sent. It does not own the client: region, credentials, endpoint and the time limit
//! of one attempt are the caller's.
//!
//! # Which requests are repeated
//!
//! The SDK repeats a request whose reply was lost. That is right for reads, for transactions (which carry a token) and where
//! the second answer shows the first one's effect ("already renewed", "already advanced"). For the other requests it is wrong:
//! the first attempt's effect makes the condition of the second one fail, and a lease that was taken would look refused. Such a
//! request is sent once. A lost reply is [`StoreError::Unavailable`], which every caller can resolve.
//!
//! Limits: 100 shards in a decision; 16 requests at once in one call. A call over several rows continues after one of them
//! failed, and then returns the error. Reads are consistent.

mod calls;
mod change;
mod errors;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod item;
mod keys;
mod tables;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{KeysAndAttributes, ReturnValue, ReturnValuesOnConditionCheckFailure, TableDescription};
use futures::{StreamExt, stream};

use self::change::Change;
use self::errors::Request;
use self::item::{Item, LEASE_KEY, text};
pub use self::keys::StreamIds;
use self::keys::{KeyAttributes, Keys, RowKey};
pub use self::tables::TableOptions;
use crate::error::StoreError;
use crate::lease::Lease;
use crate::shard::ShardKey;

/// The most requests that one call has in flight.
const REQUESTS_MAX: usize = 16;
/// The most keys in one BatchGetItem.
const BATCH_KEYS_MAX: usize = 100;
/// How often a batch is sent again for the keys that it left out, and the pause before the first time; then twice as long.
const BATCH_ROUNDS_MAX: usize = 8;
const BATCH_PAUSE: Duration = Duration::from_millis(25);

/// A lease store in a DynamoDB table. Clones share the client.
#[derive(Clone)]
pub struct DynamoStore {
    client: Client,
    table: Arc<str>,
    keys: Arc<RwLock<Keys>>,
}

/// The outcome of a conditional write.
enum Written {
    /// It was written. The item now.
    Done(Item),
    /// The condition did not hold. The item, if there is one and the service returns it.
    Refused(Option<Item>),
}

/// Who repeats a request whose reply was lost; see the top of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    Sdk,
    Caller,
}

impl DynamoStore {
    /// Opens the store in `table`, and creates the table if there is none: billed per request, with KCL's index. Several
    /// workers may do so at once.
    ///
    /// # Errors
    ///
    /// - [`StoreError::Unusable`]: something is wrong with the table, or a permission is missing.
    /// - [`StoreError::Malformed`]: a row belongs to no known stream.
    /// - [`StoreError::Unavailable`]: DynamoDB did not answer, or the table was not ready within 2 minutes.
    pub async fn open(client: Client, table: &str, streams: StreamIds) -> Result<Self, StoreError> {
        Self::open_with(client, table, &TableOptions::default(), streams).await
    }

    /// The same with options for a table that is created. `table` is its name or its ARN.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn open_with(
        client: Client,
        table: &str,
        options: &TableOptions,
        streams: StreamIds,
    ) -> Result<Self, StoreError> {
        tables::create(&client, table, options).await?;
        Self::with_learned_keys(client, table, streams).await
    }

    /// Switches on point-in-time recovery of the table, unless it is on. A table that was just created has none for a while,
    /// so this is tried for a minute.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unusable`]: a permission is missing. [`StoreError::Unavailable`]: it is not on yet.
    pub async fn switch_on_backups(&self) -> Result<(), StoreError> {
        tables::switch_on_backups(&self.client, &self.table).await
    }

    /// Checks that a table has the key that this store uses.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unusable`]: it has another key.
    pub fn check_table(table: &str, found: &TableDescription) -> Result<(), StoreError> {
        tables::check(table, found)
    }

    /// The request that creates a table, for trying the permission. `None` if the options cannot be sent.
    pub fn create_request(client: &Client, table: &str, options: &TableOptions) -> Option<CreateTableFluentBuilder> {
        tables::request(client, table, options).ok()
    }

    /// Opens the store in a table that exists, and creates nothing.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`StoreError::Unusable`] if there is no table.
    pub async fn open_existing(client: Client, table: &str, streams: StreamIds) -> Result<Self, StoreError> {
        tables::find(&client, table).await?;
        Self::with_learned_keys(client, table, streams).await
    }

    /// Whether there is such a table. One that is being deleted is waited for.
    ///
    /// # Errors
    ///
    /// - [`StoreError::Unusable`]: a permission is missing.
    /// - [`StoreError::Unavailable`]: DynamoDB did not answer, or the table was not gone within 2 minutes.
    pub async fn exists(client: &Client, table: &str) -> Result<bool, StoreError> {
        tables::exists(client, table).await
    }

    async fn with_learned_keys(client: Client, table: &str, streams: StreamIds) -> Result<Self, StoreError> {
        let keys = Arc::new(RwLock::new(Keys::new(streams)));
        let store = Self { client, table: table.into(), keys };
        store.learn_keys().await?;
        Ok(store)
    }

    /// Learns from the table which form its keys have.
    async fn learn_keys(&self) -> Result<(), StoreError> {
        let attributes = [LEASE_KEY, item::SHARDLAKE_STREAM, item::STREAM_NAME, item::SHARD_ID, item::ENTITY_TYPE];
        let items = self.scan("read the keys of all leases", Some(attributes.join(", "))).await?;
        let rows = items.iter().filter_map(|item| item::key_attributes(item).transpose());
        let rows: Vec<KeyAttributes> = rows.collect::<Result<_, _>>()?;
        self.keys.write().unwrap_or_else(PoisonError::into_inner).learn(&rows)
    }

    /// The keys. A panic while they were locked left them whole or unchanged.
    fn keys(&self) -> RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys of the rows of these shards. A stream that the configuration does not name may have come into the table since
    /// it was last scanned (another worker's manifest may name it). So the table is scanned again, once for each stream.
    async fn row_keys(&self, keys: &[&ShardKey]) -> Result<Vec<RowKey>, StoreError> {
        let streams = || keys.iter().map(|key| &key.stream);
        if !self.keys().know(streams()) {
            self.learn_keys().await?;
            self.keys.write().unwrap_or_else(PoisonError::into_inner).settle(streams());
        }
        let known = self.keys();
        keys.iter().map(|key| known.row_key(key)).collect()
    }

    async fn row_key(&self, key: &ShardKey) -> Result<RowKey, StoreError> {
        Ok(self.row_keys(&[key]).await?.remove(0))
    }

    fn request<'a>(&'a self, operation: &'a str, action: &'static str) -> Request<'a> {
        Request { operation, action, table: &self.table }
    }

    /// Decodes the item under the key of `key`'s row.
    fn decode(&self, key: &ShardKey, item: &Item) -> Result<Option<Lease>, StoreError> {
        match item::decode(item, &self.keys())? {
            Some(lease) if lease.key != *key => {
                Err(StoreError::malformed_lease(key, format!("its key is taken by {}", lease.key)))
            }
            lease => Ok(lease),
        }
    }

    /// All items of the table.
    async fn scan(&self, operation: &str, projection: Option<String>) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let scan = self.client.scan().table_name(&*self.table).consistent_read(true);
            let scan = scan.set_projection_expression(projection.clone()).set_exclusive_start_key(start);
            let request = self.request(operation, "dynamodb:Scan");
            let page = scan.send().await.map_err(|error| request.explain(&error))?;
            items.extend(page.items.unwrap_or_default());
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }

    /// The items of these keys, at most [`BATCH_KEYS_MAX`], each once.
    async fn batch(&self, lease_keys: &[String]) -> Result<BTreeMap<String, Item>, StoreError> {
        let request = self.request("read leases", "dynamodb:BatchGetItem");
        let key = |lease_key: &String| HashMap::from([(LEASE_KEY.to_owned(), text(lease_key))]);
        let mut asked: Vec<Item> = lease_keys.iter().map(key).collect();
        let mut found = BTreeMap::new();
        let mut pause = BATCH_PAUSE;
        for _ in 0..BATCH_ROUNDS_MAX {
            let keys = KeysAndAttributes::builder().set_keys(Some(asked)).consistent_read(true).build();
            let keys = keys.expect("the keys, the only required part, are set");
            let batch = self.client.batch_get_item().request_items(&*self.table, keys);
            let answer = batch.send().await.map_err(|error| request.explain(&error))?;
            for item in answer.responses.into_iter().flat_map(HashMap::into_values).flatten() {
                if let Some(lease_key) = item.get(LEASE_KEY).and_then(|key| key.as_s().ok()).cloned() {
                    found.insert(lease_key, item);
                }
            }
            let unprocessed = answer.unprocessed_keys.into_iter().flat_map(HashMap::into_values);
            asked = unprocessed.flat_map(|keys| keys.keys).collect();
            if asked.is_empty() {
                return Ok(found);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(request.unavailable(&format!("{} rows were not read in {BATCH_ROUNDS_MAX} requests", asked.len())))
    }

    /// Sends one change.
    async fn update(
        &self,
        operation: &str,
        row_key: &RowKey,
        change: &Change,
        repeat: Repeat,
    ) -> Result<Written, StoreError> {
        let update = self
            .client
            .update_item()
            .table_name(&*self.table)
            .key(LEASE_KEY, text(&row_key.lease_key))
            .update_expression(change.update_expression())
            .condition_expression(change.condition_expression())
            .set_expression_attribute_values(Some(change.values().clone()))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .customize();
        let update = match repeat {
            Repeat::Sdk => update,
            Repeat::Caller => update.config_override(one_attempt()),
        };
        match update.send().await {
            Ok(done) => Ok(Written::Done(done.attributes.unwrap_or_default())),
            Err(SdkError::ServiceError(refused)) if refused.err().is_conditional_check_failed_exception() => {
                match refused.into_err() {
                    UpdateItemError::ConditionalCheckFailedException(refusal) => Ok(Written::Refused(refusal.item)),
                    _ => Ok(Written::Refused(None)),
                }
            }
            Err(error) => Err(self.request(operation, "dynamodb:UpdateItem").explain(&error)),
        }
    }

    /// The row that refused a change. It is read if the service did not return it: there is no item, or a stand-in for
    /// DynamoDB does not return items.
    async fn refused_row(
        &self,
        key: &ShardKey,
        row_key: &RowKey,
        item: Option<Item>,
    ) -> Result<Option<Lease>, StoreError> {
        let item = match item.filter(|item| !item.is_empty()) {
            Some(item) => Some(item),
            None => self.batch(std::slice::from_ref(&row_key.lease_key)).await?.remove(&row_key.lease_key),
        };
        item.map_or(Ok(None), |item| self.decode(key, &item))
    }
}

impl fmt::Debug for DynamoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoStore").field("table", &self.table).finish_non_exhaustive()
    }
}

/// The setting of a request that the SDK must not repeat.
fn one_attempt() -> aws_sdk_dynamodb::config::Builder {
    aws_sdk_dynamodb::config::Builder::new().retry_config(RetryConfig::disabled())
}

/// Runs all requests to their end, a few at once. Returns their answers in order, or an error; a permanent one takes
/// precedence over a retryable one.
async fn all<T>(requests: Vec<impl Future<Output = Result<T, StoreError>> + Send>) -> Result<Vec<T>, StoreError> {
    let outcomes: Vec<Result<T, StoreError>> = stream::iter(requests).buffered(REQUESTS_MAX).collect().await;
    let lasting = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).find(|error| !error.is_retryable());
    match lasting {
        Some(error) => Err(error.clone()),
        None => outcomes.into_iter().collect(),
    }
}
