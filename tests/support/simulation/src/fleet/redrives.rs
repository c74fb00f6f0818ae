//! Redrives and discards of dead letters among the events, while workers run and other operations are at work.
//!
//! Owns: which dead letters are taken, and the worker that processes a batch aside. Does not own: the steps (the product's `redrive`),
//! when such a process begins (`past`).
//!
//! In a redrive records may be larger than before. So those that were too large become rows, with their first identities, and the others
//! fail again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use checkpoints::{LeaseStore, MemoryStore as MemoryLeases, StreamName};
use pipeline::dead_letter::code::Code;
use pipeline::dead_letter::stored::DeadLetterFilter;
use pipeline::lane::LaneConfig;
use shardlake::clock::SharedClock;
use shardlake::commit::{CommitError, Stores};
use shardlake::lake::ObjectStore;
use shardlake::redrive::{AsideBatch, Redrive, RedriveError, RunAside, codes_of_records};
use shardlake::retry::RetryPolicy;
use shardlake::source::replay::dead_letters::{DeadLetterSlice, DeadLetterSource, Streams};
use shardlake::worker;
use tokio_util::sync::CancellationToken;

use super::operations::judge;
use super::past::{self, Past, owner};
use super::workers::lanes;
use crate::faults::FaultKind;
use crate::records::REDRIVEN_BYTES_MAX;
use crate::rng::Rng;

/// The stream of a batch. Its leases are in memory.
const STREAM: &str = "_replay:redrive-0";

/// Runs workers aside.
struct Workers {
    rng: Mutex<Rng>,
    retry: RetryPolicy,
    clock: SharedClock,
    /// The lease table of the lake, which knows the processes that are alive.
    registry: Arc<dyn LeaseStore>,
}

#[async_trait]
impl RunAside for Workers {
    async fn run(&self, batch: AsideBatch<'_>) -> Result<(), RedriveError> {
        let slice = |objects| DeadLetterSlice {
            objects,
            filter: batch.filter.clone(),
            documents: BTreeMap::new(),
            streams: Streams::Except(Vec::new()),
        };
        let (me, is_divided) = {
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            (owner(&mut rng), rng.chance(500))
        };
        let middle = if is_divided { batch.objects.len() / 2 } else { 0 };
        let (one, other) = batch.objects.split_at(middle);
        let slices = [one, other].into_iter().filter(|objects| !objects.is_empty());
        let slices = slices.map(|objects| slice(objects.to_vec())).collect();
        let stream = StreamName::new(STREAM).expect("a plain name");
        let source = Arc::new(DeadLetterSource::new(stream, Arc::clone(&batch.lake), slices));
        let leases = (Arc::new(MemoryLeases::new()) as Arc<_>, RetryPolicy::CALL);
        let stores = Stores::with_policies((Arc::clone(&batch.aside), self.retry), leases);
        let stores = stores.with_clock(Arc::clone(&self.clock));
        let lanes = LaneConfig { record_bytes_max: REDRIVEN_BYTES_MAX, ..lanes(&[STREAM.to_owned()], false, false) };
        let config = past::worker(me.clone(), source, stores, Arc::clone(&self.clock), Arc::new(lanes));
        self.registry.register(&me).await.map_err(CommitError::from)?;
        worker::run(config, Arc::default(), CancellationToken::new()).await?;
        let _ = self.registry.deregister(&me).await;
        Ok(())
    }

    async fn claim(&self, _: &dyn ObjectStore, _: &[&str]) -> Result<(), RedriveError> {
        Ok(())
    }
}

impl Past {
    /// Redrives dead letters. Returns whether it was done to its end.
    pub(super) async fn redrive(&mut self) -> Result<bool, String> {
        let some = [Code::TooLarge, Code::TooDeep];
        let codes = if !self.calm && self.rng.chance(500) { some.to_vec() } else { codes_of_records() };
        let workers = Workers {
            rng: Mutex::new(self.rng.fork()),
            retry: self.network.retry(),
            clock: Arc::clone(&self.clock),
            registry: Arc::clone(&self.connected.stores.leases),
        };
        self.take(codes, Some(workers)).await
    }

    /// Discards dead letters of some codes, which a redrive leaves as they are.
    pub(super) async fn discard(&mut self) -> Result<bool, String> {
        let code = self.rng.one_of(&[Code::TooDeep, Code::NotUtf8, Code::MissingField, Code::TooLarge]);
        self.take(vec![code], None).await
    }

    async fn take(&mut self, codes: Vec<Code>, workers: Option<Workers>) -> Result<bool, String> {
        let Some(mut operator) = self.operator().await? else { return Ok(false) };
        let (stores, stop) = (self.connected.stores.clone(), CancellationToken::new());
        let filter = DeadLetterFilter { codes, ..DeadLetterFilter::default() };
        let id = format!("{:08x}", self.rng.below(1 << 32));
        let request = Redrive::new(id, filter, &stores, &mut operator, &|_| {}, &stop);
        // One object in a batch, or all.
        let batch_bytes = self.rng.one_of(&[1, request.batch_bytes]);
        let request = Redrive { batch_bytes, ..request };
        let done = match &workers {
            Some(workers) => shardlake::redrive::redrive(request, workers).await.map(|done| done.operations),
            None => shardlake::redrive::discard(request).await.map(|done| done.operations),
        };
        match done {
            Ok(operations) => {
                if operations > 0 {
                    let is_redrive = workers.is_some();
                    let kind =
                        if is_redrive { FaultKind::DeadLettersRedriven } else { FaultKind::DeadLettersDiscarded };
                    self.network.tally().note(kind);
                }
                operator.close().await;
                Ok(true)
            }
            Err(RedriveError::Operation(error)) if !self.calm => judge(&error, true).map(|()| false),
            Err(error) => self.left_undone("a redrive", &error),
        }
    }
}
