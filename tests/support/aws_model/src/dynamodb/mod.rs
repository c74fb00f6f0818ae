//! A model of DynamoDB.
//!
//! Owns: the JSON API with which Shardlake and the Kinesis Client Library keep leases: tables with global secondary indexes,
//! reads, conditional writes and transactions, with AWS's limits, messages and errors. It also has switches for what a test can't
//! wait for: writes and transactions that AWS cancels, stale reads, batches that are processed in part, tables that take
//! time to create. Does not own: transport and its faults (a lost reply).
//!
//! Every request is answered under one lock, so the model is serializable. The requests and the given clock determine everything
//! that it does. Not modelled: streams, restoring backups, the expiry of rows, PartiQL, local secondary indexes, provisioned limits.

mod control;
pub mod error;
pub mod expression;
mod legacy;
pub mod number;
mod read;
mod request;
mod table;
mod transaction;
pub mod value;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value as Json;

use crate::http::{Request, Response, Service};
use error::{Reason, Refused};
use table::Table;
use value::{Item, item_from_json};
use write::Verb;

const TARGET: &str = "DynamoDB_20120810.";

/// A DynamoDB; clones share it.
#[derive(Clone)]
pub struct DynamoDb {
    state: Arc<Mutex<State>>,
    now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// Why AWS may refuse a valid write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Another transaction is in progress on an item: `TransactionConflict`, or `TransactionConflictException` for a single write.
    TransactionConflict,
    /// A transaction is cancelled with `ThrottlingError`; a single write gets `ThrottlingException`.
    Throttling,
    /// A transaction is cancelled with `ProvisionedThroughputExceeded`; a single write gets the exception of that name.
    ThroughputExceeded,
    /// The account's limit: `RequestLimitExceeded` for the whole request.
    RequestLimitExceeded,
    /// `TransactionInProgressException`: the token's first request is still in progress. For transactions; a single write gets
    /// `TransactionConflictException`.
    InProgress,
    /// `InternalServerError`, 500. Nothing was written.
    Internal,
}

/// Counts requests of one kind, and knows which of them are refused.
#[derive(Debug, Default)]
struct Refusals {
    seen: u64,
    planned: BTreeMap<u64, (usize, Refusal)>,
}

/// A transaction that took effect.
#[derive(Debug)]
struct Remembered {
    at_ms: u64,
    items: Json,
}

#[derive(Debug, Default)]
struct State {
    now_ms: u64,
    tables: BTreeMap<String, Table>,
    tokens: BTreeMap<String, Remembered>,
    writes: Refusals,
    transactions: Refusals,
    stale_writes: usize,
    batch_max: Option<usize>,
    page_max: Option<usize>,
    making_ms: u64,
    requests: BTreeMap<String, u64>,
}

impl fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDb").finish_non_exhaustive()
    }
}

impl DynamoDb {
    /// An empty DynamoDB; `now_ms` returns the milliseconds since 1970.
    pub fn new(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        DynamoDb { state: Arc::default(), now_ms: Arc::new(now_ms) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.now_ms = (self.now_ms)();
        state
    }

    /// Refuses the `nth` single write or batch from now on (the next is 1), whatever its condition.
    pub fn refuse_write(&self, nth: u64, refusal: Refusal) {
        let writes = &mut self.lock().writes;
        writes.planned.insert(writes.seen + nth, (0, refusal));
    }

    /// Refuses the `nth` transaction from now on (the next is 1). The reason is that of `item`, counted from 0, or of the last
    /// item if there are fewer.
    pub fn refuse_transaction(&self, nth: u64, item: usize, refusal: Refusal) {
        let transactions = &mut self.lock().transactions;
        transactions.planned.insert(transactions.seen + nth, (item, refusal));
    }

    /// Lets eventually consistent reads see the table as it was `writes` writes ago, at most 1,000; 0 is the newest state.
    pub fn set_stale_writes(&self, writes: usize) {
        self.lock().stale_writes = writes;
    }

    /// Lets a batch process this number of its items and return the rest as unprocessed; `None` processes all.
    pub fn set_batch_max(&self, items: Option<usize>) {
        self.lock().batch_max = items;
    }

    /// Limits pages of scans and queries to this number of items, as if these were a megabyte. Concurrent changes are visible in the
    /// later pages.
    pub fn set_page_max(&self, items: Option<usize>) {
        self.lock().page_max = items;
    }

    /// How long creating a table or an index takes from now on.
    pub fn set_creation_ms(&self, ms: u64) {
        self.lock().making_ms = ms;
    }

    /// The request that created a table; `None` if there is no such table.
    pub fn creation(&self, table: &str) -> Option<Json> {
        Some(Json::Object(self.lock().tables.get(table)?.creation.clone()))
    }

    /// Whether a table has point-in-time recovery.
    pub fn has_backups(&self, table: &str) -> bool {
        self.lock().tables.get(table).is_some_and(|table| table.backups)
    }

    /// All items of a table in the order of a scan, as JSON; none if there is no such table.
    pub fn items(&self, table: &str) -> Vec<Json> {
        let state = self.lock();
        let entries = state.tables.get(table).map(|table| table.entries(None, 0)).unwrap_or_default();
        entries.iter().map(|entry| value::item_to_json(&entry.item)).collect()
    }

    /// Stores an item, given as JSON, without the checks of a write.
    ///
    /// # Errors
    /// If it is not an item of this table.
    pub fn put_past_checks(&self, table: &str, item: &Json) -> Result<(), Refused> {
        let mut state = self.lock();
        let item: Item = item_from_json(item)?;
        let key = state.table(table)?.item_key(&item)?;
        if let Some(table) = state.tables.get_mut(table) {
            table.set(key, Some(item));
        }
        Ok(())
    }

    /// Deletes an item, given as JSON, as somebody does by hand.
    ///
    /// # Errors
    /// If it is not an item of this table.
    pub fn delete_past_checks(&self, table: &str, item: &Json) -> Result<(), Refused> {
        let mut state = self.lock();
        let key = state.table(table)?.item_key(&item_from_json(item)?)?;
        if let Some(table) = state.tables.get_mut(table) {
            table.set(key, None);
        }
        Ok(())
    }

    /// Deletes a table immediately, whatever its settings. Returns whether there was one.
    pub fn delete_table(&self, table: &str) -> bool {
        self.lock().tables.remove(table).is_some()
    }

    /// Requests so far, by operation.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.lock().requests.clone()
    }

    fn operate(&self, request: &Request) -> Result<Json, Refused> {
        let target = request.headers.get("x-amz-target").map_or("", String::as_str);
        let operation = target.strip_prefix(TARGET).ok_or_else(error::unknown_operation)?;
        let body: Json =
            serde_json::from_slice(&request.body).map_err(|_| error::serialization("Could not parse request body"))?;
        let Json::Object(body) = body else { return Err(error::serialization("Start of structure expected")) };
        let mut state = self.lock();
        let state = &mut *state;
        let answer = match operation {
            "CreateTable" => control::create(state, &body),
            "DescribeTable" => control::describe(state, &body),
            "UpdateTable" => control::update(state, &body),
            "DeleteTable" => control::delete(state, &body),
            "UpdateContinuousBackups" => control::update_backups(state, &body),
            "DescribeContinuousBackups" => control::describe_backups(state, &body),
            "UpdateTimeToLive" => control::update_time_to_live(state, &body),
            "DescribeTimeToLive" => control::describe_time_to_live(state, &body),
            "ListTables" => control::list(state, &body),
            "GetItem" => read::get(state, &body),
            "BatchGetItem" => read::batch_get(state, &body),
            "TransactGetItems" => read::transact_get(state, &body),
            "Query" => read::query(state, &body),
            "Scan" => read::scan(state, &body),
            "PutItem" => write::write(state, Verb::Put, &body),
            "UpdateItem" => write::write(state, Verb::Update, &body),
            "DeleteItem" => write::write(state, Verb::Delete, &body),
            "BatchWriteItem" => write::batch_write(state, &body),
            "TransactWriteItems" => transaction::transact_write(state, &body),
            _ => return Err(error::unknown_operation()),
        };
        *state.requests.entry(operation.to_owned()).or_default() += 1;
        answer
    }
}

impl Service for DynamoDb {
    fn answer(&self, request: &Request) -> Response {
        match self.operate(request) {
            Ok(body) => error::answer(200, &body),
            Err(refused) => refused.response(),
        }
    }
}

impl Refusals {
    fn next(&mut self) -> Option<(usize, Refusal)> {
        self.seen += 1;
        self.planned.remove(&self.seen)
    }
}

impl State {
    fn staleness(&self, consistent: bool) -> usize {
        if consistent { 0 } else { self.stale_writes }
    }

    fn refused_write(&mut self) -> Result<(), Refused> {
        match self.writes.next() {
            None => Ok(()),
            Some((_, Refusal::TransactionConflict | Refusal::InProgress)) => Err(error::transaction_conflict()),
            Some((_, Refusal::Throttling)) => Err(error::throttling()),
            Some((_, Refusal::ThroughputExceeded)) => Err(error::throughput_exceeded()),
            Some((_, Refusal::RequestLimitExceeded)) => Err(error::request_limit_exceeded()),
            Some((_, Refusal::Internal)) => Err(error::internal()),
        }
    }

    fn refused_transaction(&mut self, items: usize) -> Result<(), Refused> {
        let Some((item, refusal)) = self.transactions.next() else { return Ok(()) };
        let reason = match refusal {
            Refusal::TransactionConflict => Reason::new("TransactionConflict", "Transaction is ongoing for the item"),
            Refusal::Throttling => Reason::new(
                "ThrottlingError",
                "Throughput exceeds the current capacity for one or more global secondary indexes. DynamoDB is automatically \
                 scaling your index so please try again shortly.",
            ),
            Refusal::ThroughputExceeded => Reason::new(
                "ProvisionedThroughputExceeded",
                "The level of configured provisioned throughput for the table was exceeded. Consider increasing your \
                 provisioning level with the UpdateTable API.",
            ),
            Refusal::RequestLimitExceeded => return Err(error::request_limit_exceeded()),
            Refusal::InProgress => return Err(error::transaction_in_progress()),
            Refusal::Internal => return Err(error::internal()),
        };
        let mut reasons = vec![Reason::none(); items];
        if let Some(place) = reasons.get_mut(item.min(items.saturating_sub(1))) {
            *place = reason;
        }
        Err(error::transaction_canceled(&reasons))
    }
}
