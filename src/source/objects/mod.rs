//! Objects in a bucket or a folder as a stream: many small ones, or few large ones, that other programs write.
//!
//! Owns: what the shards are, what positions mean, and when the place is listed. Does not own:
//!
//! - the places (`s3`, `folder`; their trait is `store`), URL, keys of the configuration and permissions (`backend`);
//! - what a key says (`keys`), what was listed and in which order (`lister`, `catalog`);
//! - reading objects (`reader`), decompressing and cutting them (`source::text`);
//! - what is left unread (`report`).
//!
//! The objects are divided into a fixed number of shards by a hash of the key, so there is one lease for each shard and not for each
//! object. A position is the number of the object in its shard · 10¹² + the offset in its text, as for the `.json` files of a folder. So
//! the identity of a record is: the stream, the shard, the number of its object in the shard, and the offset.
//!
//! The place is listed by the worker that reads the first shard, again and again. A run that ends when it has caught up lists it once, in
//! each worker, and ends after what that list found. Workers never rely on a list alone: an object is read only once it has a number in
//! the lake. Two workers that list at the same time, one of them late perhaps, agree by that.

pub(in crate::source) mod backend;
mod catalog;
mod folder;
mod keys;
mod lister;
mod reader;
mod report;
mod s3;
mod store;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::{Position, ShardId, StreamName};
use pipeline::time::format_rfc3339;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::SharedClock;
use crate::lake::{LakeError, ObjectStore};
use crate::retry::RetryPolicy;
use crate::source::losses::{self, Loss, LossKind};
use crate::source::objects::catalog::{Catalog, Entry, index_of, shard_id};
use crate::source::objects::lister::{Lister, id_of};
use crate::source::objects::reader::ObjectsReader;
use crate::source::objects::report::Report;
use crate::source::text::complete::{TextConfig, next_of};
use crate::source::{Behind, ShardReader, ShardSource, SourceError, SourceReport, SourceShard};

pub use store::{Object, Pages, Part, Place};

/// How often a worker that does not list looks for entries of the one that does, while it has nothing to read.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Losses that are logged one by one.
const LOGGED_LOSSES: u64 = 10;

/// How objects are read.
#[derive(Clone)]
pub struct ObjectsConfig {
    /// Whether reading ends after what is there now.
    pub complete: bool,
    /// The number of shards, if no worker has decided it before.
    pub shards: u32,
    /// The time between two lists.
    pub list_every: Duration,
    /// How the texts of objects are cut into records.
    pub text: TextConfig,
    /// For how long trouble of the place is waited for, and how often a list that failed is repeated.
    pub retry: RetryPolicy,
    /// The time of day.
    pub clock: SharedClock,
}

/// Objects as a stream.
pub struct ObjectsSource {
    shared: Arc<Shared>,
    /// Ends with the source.
    listing: Mutex<Option<AbortOnDrop>>,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How much is known of what there is to read.
#[derive(Debug, Clone, Default)]
struct Known {
    /// Entries that exist.
    entries: u64,
    /// The entry that reading ends with; `None` if it does not end, or this is not known yet.
    last: Option<u64>,
    /// Why the last list failed.
    error: Option<SourceError>,
}

/// What a source, its readers and its lister share.
struct Shared {
    stream: StreamName,
    config: ObjectsConfig,
    place: Arc<dyn Place>,
    lake: Arc<dyn ObjectStore>,
    catalog: Catalog,
    /// The number of shards, once it is decided.
    shards: OnceLock<u32>,
    known: watch::Sender<Known>,
    /// Notified of each change of `known`. It wakes readers in the order in which they began to wait, so that the simulation can be repeated; a
    /// `watch` channel wakes them in any order.
    changes: Notify,
    report: Report,
    clock: SharedClock,
    /// Open readers of the first shard. As long as there is one, this worker lists.
    leading: AtomicUsize,
    leads: Notify,
    looked: tokio::sync::Mutex<Option<Instant>>,
    /// Objects that this worker has lost.
    lost: AtomicU64,
    runtime: tokio::runtime::Handle,
}

/// A reader of the first shard, whose worker lists.
struct Leading(Arc<Shared>);

impl Leading {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.leading.fetch_add(1, Ordering::Relaxed);
        shared.leads.notify_one();
        Leading(Arc::clone(shared))
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.leading.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ObjectsSource {
    /// The objects of a place as the stream of this name. Must be called in a runtime.
    pub fn new(stream: StreamName, place: Arc<dyn Place>, lake: Arc<dyn ObjectStore>, config: ObjectsConfig) -> Self {
        let shared = Shared {
            catalog: Catalog::new(Arc::clone(&lake), stream.clone()),
            report: Report::new(stream.clone()),
            clock: Arc::clone(&config.clock),
            stream,
            config,
            place,
            lake,
            shards: OnceLock::new(),
            known: watch::Sender::default(),
            changes: Notify::new(),
            leading: AtomicUsize::new(0),
            leads: Notify::new(),
            looked: tokio::sync::Mutex::default(),
            lost: AtomicU64::new(0),
            runtime: tokio::runtime::Handle::current(),
        };
        ObjectsSource { shared: Arc::new(shared), listing: Mutex::default() }
    }

    /// Begins to list, unless it has begun.
    fn begin_listing(&self) {
        let mut listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &self.shared;
        listing.get_or_insert_with(|| AbortOnDrop(tokio::spawn(Arc::clone(shared).list_while_needed())));
    }
}

impl Shared {
    /// The number of shards. It was decided before anything is listed or read.
    fn shards(&self) -> usize {
        self.shards.get().map_or(0, |shards| usize::try_from(*shards).unwrap_or_default())
    }

    fn unreadable(&self, problem: String) -> SourceError {
        SourceError::Unreadable { place: format!("stream {}", self.stream), problem }
    }

    fn lake_error(&self, error: &LakeError) -> SourceError {
        let (place, problem) = (format!("stream {}", self.stream), error.to_string());
        if error.is_retryable() {
            SourceError::Unavailable { place, problem }
        } else {
            SourceError::Unreadable { place, problem }
        }
    }

    /// Changes what is known, and wakes whoever waits, if `change` returns true.
    fn know(&self, change: impl FnOnce(&mut Known) -> bool) {
        if self.known.send_if_modified(change) {
            self.changes.notify_waiters();
        }
    }

    /// Entries up to this one exist.
    fn found_entries(&self, entries: u64) {
        self.know(|known| {
            let is_more = entries > known.entries;
            known.entries = known.entries.max(entries);
            is_more
        });
    }

    /// Whether this worker must list now.
    fn lists(&self) -> bool {
        match self.config.complete {
            true => self.known.borrow().last.is_none(),
            false => self.leading.load(Ordering::Relaxed) > 0,
        }
    }

    /// Lists again and again while this worker reads the first shard, or once in a run that ends when it has caught up.
    async fn list_while_needed(self: Arc<Self>) {
        let (mut lister, mut failures) = (None, 0);
        loop {
            if !self.lists() {
                if self.config.complete {
                    return;
                }
                // The worker that lists now has what is known in its memory.
                lister = None;
                self.leads.notified().await;
                continue;
            }
            let current = lister.get_or_insert_with(|| Lister::new(Arc::clone(&self)));
            match current.pass().await {
                Ok(()) => {
                    failures = 0;
                    self.know(|known| {
                        known.error = None;
                        known.last = self.config.complete.then_some(known.entries);
                        true
                    });
                    if !self.config.complete {
                        tokio::time::sleep(self.config.list_every).await;
                    }
                }
                Err(error) => {
                    failures += 1;
                    tracing::debug!(stream = %self.stream, %error, "failed to list objects; retrying");
                    // Its readers report it.
                    self.know(|known| {
                        known.error = Some(error);
                        true
                    });
                    tokio::time::sleep(self.config.retry.wait_after(failures)).await;
                }
            }
        }
    }

    /// Looks for the entries of another worker, unless this was done just now.
    async fn look_for_entries(&self) -> Result<(), SourceError> {
        let mut looked = self.looked.lock().await;
        if looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        *looked = Some(Instant::now());
        let mut entries = self.known.borrow().entries;
        while self.catalog.entry(entries + 1).await?.is_some() {
            entries += 1;
            self.found_entries(entries);
        }
        Ok(())
    }

    /// Notes that an object cannot be read any more.
    async fn lose(&self, object: &Object, problem: &str) -> Result<(), SourceError> {
        let (stream, shard) = (self.stream.clone(), id_of(object));
        losses::announce();
        let count = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
        // Not a line for each: a rule of the bucket may delete a million objects.
        if count <= LOGGED_LOSSES || count.is_power_of_two() {
            tracing::error!(%stream, etag = %object.etag, bytes = object.bytes, count, "DATA LOSS: {problem}");
        }
        self.report.problem(format!("DATA LOSS: stream {stream}: {problem}; see `shardlake losses list`"));
        let found_at = format_rfc3339(self.clock.now_ms());
        let loss = Loss { stream, shard, kind: LossKind::Lost, problem: problem.to_owned(), found_at };
        losses::report(&*self.lake, &loss).await.map_err(|error| self.lake_error(&error))
    }

    /// Bytes of a shard in the entries up to `last`, after a position.
    async fn bytes_after(&self, index: usize, number: u64, last: u64) -> Result<u64, SourceError> {
        let Some(newest) = (if last == 0 { None } else { self.catalog.entry(last).await? }) else { return Ok(0) };
        let all = newest.after().get(index).map_or(0, |count| count.bytes);
        let at = self.catalog.find(index, number, last).await?;
        let found = if at == 0 { None } else { self.catalog.entry(at).await? };
        let before = match found {
            Some(entry) => {
                let read = entry.of_shard(index).filter(|(of_entry, _)| *of_entry < number);
                let before = |entry: &Entry| entry.before.get(index).map_or(0, |count| count.bytes);
                before(&entry) + read.map(|(_, object)| object.bytes).sum::<u64>()
            }
            None => 0,
        };
        Ok(all.saturating_sub(before))
    }
}

#[async_trait]
impl ShardSource for ObjectsSource {
    fn stream(&self) -> &StreamName {
        &self.shared.stream
    }

    fn retry(&self) -> RetryPolicy {
        RetryPolicy::shard(self.shared.config.retry.within)
    }

    fn lists_every(&self) -> Duration {
        // They never change.
        Duration::from_secs(60)
    }

    async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
        if self.shared.shards.get().is_none() {
            let shards = self.shared.catalog.divide(self.shared.config.shards).await?;
            if shards != self.shared.config.shards {
                tracing::info!(stream = %self.shared.stream, shards, "the number of shards was decided before; `shards` of the configuration is not used");
            }
            let _ = self.shared.shards.set(shards);
        }
        self.begin_listing();
        Ok((0..self.shared.shards()).map(|index| SourceShard::alone(shard_id(index))).collect())
    }

    async fn open(&self, shard: &ShardId, after: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        if self.shared.shards.get().is_none() {
            self.shards().await?;
        }
        Ok(Box::new(ObjectsReader::open(Arc::clone(&self.shared), shard, after).await?))
    }

    async fn behind(&self, shard: &ShardId, position: &Position) -> Result<Behind, SourceError> {
        let (Some(index), Some((number, _))) = (index_of(shard), next_of(position)) else {
            return Ok(Behind::Nothing);
        };
        let known = self.shared.known.borrow().clone();
        let is_listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let last = match known.last {
            Some(last) => last,
            None if is_listing && self.shared.config.complete => known.entries,
            None => self.shared.catalog.latest().await?,
        };
        let bytes = self.shared.bytes_after(index, number, last).await?;
        // As long as the list has not ended, nobody knows that nothing is left.
        let is_open = is_listing && self.shared.config.complete && known.last.is_none();
        Ok(match bytes {
            0 if is_open => Behind::Bytes(1),
            0 => Behind::Nothing,
            bytes => Behind::Bytes(bytes),
        })
    }

    fn report(&self) -> SourceReport {
        self.shared.report.show()
    }
}

#[cfg(test)]
mod tests;
