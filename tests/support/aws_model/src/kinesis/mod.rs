//! Kinesis Data Streams.
//!
//! Owns: streams and shards with their records, resharding, retention, iterators, consumers and subscriptions, and the
//! limits of each, in-process ([`Kinesis`]'s methods) and as JSON 1.1 ([`crate::http::Service`]). Does not own: time, which
//! is handed in; faults of the network (`faults`); encryption, tags, metrics, resource policies.
//!
//! The model keeps what is known of AWS: the layout of sequence numbers, error types, messages where known. Where AWS leaves
//! the behavior open, [`Settings`] chooses, so that a test can show a consumer each possibility.

mod api;
mod consumers;
mod events;
mod json;
mod limits;
mod list;
mod read;
mod reshard;
mod sequence;
mod shard;
mod stream;
mod subscription;
mod write;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

pub use api::{
    Child, Chunk, ConsumerInfo, Error, ErrorKind, Placed, Put, Record, Result, Settings, ShardFilter, ShardInfo,
    ShardPage, Start, StreamSummary, SubscriptionEvent,
};
pub use sequence::SequenceNumber;
pub use stream::hash_key;
pub use subscription::Subscription;

use crate::clock::ModelClock;

/// The model. Clones share it.
#[derive(Debug, Clone)]
pub struct Kinesis {
    clock: ModelClock,
    state: Arc<Mutex<State>>,
    /// Notified of every put and every other change: subscriptions wait for it. It wakes them in the order in which they began to wait, so
    /// that a simulation can be repeated; a `watch` channel wakes them in any order.
    changes: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    account: String,
    region: String,
    settings: Settings,
    streams: BTreeMap<String, stream::Stream>,
    /// Makes returned texts unique: iterators, tokens, request ids.
    nonce: u64,
    /// Records in all PutRecords calls so far.
    offered: u64,
}

impl State {
    fn nonce(&mut self) -> u64 {
        self.nonce += 1;
        self.nonce
    }
}

impl Kinesis {
    /// No streams, in account 000000000000 of us-east-1.
    pub fn new(clock: ModelClock, settings: Settings) -> Self {
        let state = State {
            account: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            settings,
            streams: BTreeMap::new(),
            nonce: 0,
            offered: 0,
        };
        Kinesis { clock, state: Arc::new(Mutex::new(state)), changes: Arc::new(Notify::new()) }
    }

    /// Its clock.
    pub fn clock(&self) -> &ModelClock {
        &self.clock
    }

    /// Changes the settings, from the next call on.
    pub fn configure(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.lock().settings);
        self.changes.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one reading call, at one moment.
    fn look<T>(&self, call: impl FnOnce(&mut State, i64) -> T) -> T {
        let now_ms = self.clock.now_ms();
        call(&mut self.lock(), now_ms)
    }

    /// Runs one call that may change something, at one moment, and wakes subscriptions.
    fn change<T>(&self, call: impl FnOnce(&mut State, i64) -> T) -> T {
        let done = self.look(call);
        self.changes.notify_waiters();
        done
    }
}
