//! The lease store in a DynamoDB table: for a fleet, in the layout of the Kinesis Client Library (KCL).
//!
//! A [`DynamoStore`] takes a table over from KCL, keeps its attributes as KCL has them, and leaves what it does not know as
//! it is, so that KCL can be started again. The two are not to run at once: KCL's leader gives leases away as it sees fit.
//!
//! The parts: `keys.rs` knows which item is which shard's, `item.rs` what an item holds, `change.rs` the condition and the
//! effect of every call, `calls.rs` runs the calls, `tables.rs` makes
//! the table, and `errors.rs` says what a failure means. This file owns how single requests are sent. It does not own the
//! client: region, credentials, endpoint and the time limit of one attempt are the caller's.
//!
//! # Requests that are repeated
//!
//! The SDK repeats a request whose reply was lost, by itself. That is right for reads, for transactions (which carry a token)
//! and where the second answer tells ("renewed already", "advanced already"). Elsewhere the first attempt's effect would make
//! the second one fail its condition, and a lease that was taken would look refused: those requests are sent once, and a
//! lost reply is [`StoreError::Unavailable`], which every caller knows how to resolve.
//!
//! Limits: 100 shards in a decision; 16 requests at once in one call; a call over several rows goes on after one of them
//! failed, and then says so. Reads are consistent.

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
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{KeysAndAttributes, ReturnValue, ReturnValuesOnConditionCheckFailure};
use futures::{StreamExt, stream};

use self::change::Change;
use self::errors::Request;
use self::item::{Item, LEASE_KEY, text};
pub use self::keys::StreamIds;
use self::keys::{KeyAttributes, Keys, RowKey};
use crate::error::StoreError;
use crate::lease::Lease;
use crate::shard::ShardKey;

/// The most requests that one call has under way.
const REQUESTS_MAX: usize = 16;
/// The most keys in one BatchGetItem.
const BATCH_KEYS_MAX: usize = 100;
/// How often a batch that was answered in part is asked for again, and how long before the first time; then twice as long.
const BATCH_ROUNDS_MAX: usize = 8;
const BATCH_PAUSE: Duration = Duration::from_millis(25);

/// A lease store in a DynamoDB table. Clones share the client.
#[derive(Clone)]
pub struct DynamoStore {
    client: Client,
    table: Arc<str>,
    keys: Arc<RwLock<Keys>>,
}

/// What became of a conditional write.
enum Written {
    /// The item as it is now.
    Done(Item),
    /// The condition did not hold. The item as it is, if there is one and the service tells.
    Refused(Option<Item>),
}

/// Who repeats a request whose reply was lost: see the top of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    Sdk,
    Caller,
}

impl DynamoStore {
    /// Opens the store in `table`, and makes the table if it is not there: paid per request, with KCL's index. Several
    /// workers may do so at once.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unusable`] says what is wrong with the table, or which permission is missing; [`StoreError::Nonsense`]
    /// that a row is of no known stream; [`StoreError::Unavailable`] that DynamoDB did not answer, or that the table was
    /// not ready within 2 minutes.
    pub async fn open(client: Client, table: &str, streams: StreamIds) -> Result<Self, StoreError> {
        tables::make(&client, table).await?;
        Self::look_into(client, table, streams).await
    }

    /// Opens the store in a table that is there, and makes nothing.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`StoreError::Unusable`] if there is no table.
    pub async fn open_existing(client: Client, table: &str, streams: StreamIds) -> Result<Self, StoreError> {
        tables::find(&client, table).await?;
        Self::look_into(client, table, streams).await
    }

    async fn look_into(client: Client, table: &str, streams: StreamIds) -> Result<Self, StoreError> {
        let keys = Arc::new(RwLock::new(Keys::new(streams)));
        let store = Self { client, table: table.into(), keys };
        store.learn_keys().await?;
        Ok(store)
    }

    /// Lets the table say which form its keys have.
    async fn learn_keys(&self) -> Result<(), StoreError> {
        let attributes = [LEASE_KEY, item::SHARDLAKE_STREAM, item::STREAM_NAME, item::SHARD_ID, item::ENTITY_TYPE];
        let items = self.scan("look at the keys of all leases", Some(attributes.join(", "))).await?;
        let rows = items.iter().filter_map(|item| item::key_attributes(item).transpose());
        let rows: Vec<KeyAttributes> = rows.collect::<Result<_, _>>()?;
        self.keys.write().unwrap_or_else(PoisonError::into_inner).learn(&rows)
    }

    /// The keys, for one look. A panic under the lock left them whole or not yet changed.
    fn keys(&self) -> RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the rows of these shards are found. A stream that the configuration does not name may have come into the table
    /// since it was looked at (another worker's manifest may name it), so it is looked at again, once for each stream.
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

    /// Decodes the item that was found where the row of `key` is.
    fn decode(&self, key: &ShardKey, item: &Item) -> Result<Option<Lease>, StoreError> {
        match item::decode(item, &self.keys())? {
            Some(lease) if lease.key != *key => {
                Err(StoreError::lease_nonsense(key, format!("its key is taken by {}", lease.key)))
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
            let keys = keys.expect("the keys, the only part that is needed, are there");
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

    /// The row that refused a change. Where the service does not tell (there is no item, or a stand-in for DynamoDB does not
    /// know how), it is read.
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

/// The setting of a request that must not be repeated by the SDK.
fn one_attempt() -> aws_sdk_dynamodb::config::Builder {
    aws_sdk_dynamodb::config::Builder::new().retry_config(RetryConfig::disabled())
}

/// Runs all requests to their end, a few at once. Their answers in order, or an error: one that will not pass before one
/// that may.
async fn all<T>(requests: Vec<impl Future<Output = Result<T, StoreError>> + Send>) -> Result<Vec<T>, StoreError> {
    let outcomes: Vec<Result<T, StoreError>> = stream::iter(requests).buffered(REQUESTS_MAX).collect().await;
    let lasting = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).find(|error| !error.is_retryable());
    match lasting {
        Some(error) => Err(error.clone()),
        None => outcomes.into_iter().collect(),
    }
}
