//! A lease store that loses requests by script: for tests of everything that must survive a lost request or reply.
//!
//! [`Faulty`] wraps a store and passes every call on, except those that its [`Script`] names: the n-th call of an operation
//! is lost before its effect or after it. The caller can't tell these two apart. The test keeps the script as a handle; it
//! also records every call. It has no randomness: a test, or a simulation with a seed, decides what is lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::decision::{Decision, Verdict};
use crate::error::StoreError;
use crate::lease::{Lease, LeaseOwner, ManifestName, NewLease};
use crate::shard::ShardKey;
use crate::store::{Advance, AdvanceOutcome, LeaseStore, Renewal, RenewalOutcome};

/// The calls of a [`LeaseStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the method of the same name")]
pub enum Operation {
    List,
    Get,
    Create,
    Renew,
    Take,
    Ask,
    HandOver,
    Release,
    Remove,
    Decide,
    Advance,
    RollBack,
    Register,
    Deregister,
    OwnerIsGone,
}

/// How a call is lost. The caller gets [`StoreError::Unavailable`] in both cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The request is lost: no effect.
    LoseBefore,
    /// The reply is lost: the full effect.
    LoseAfter,
}

/// A recorded call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// The operation.
    pub operation: Operation,
    /// The number of this call among those of its operation, from 1.
    pub nth: usize,
    /// How it was lost, if it was.
    pub fault: Option<Fault>,
}

/// Which calls are lost, and which calls were made. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Script {
    state: Arc<Mutex<ScriptState>>,
}

#[derive(Debug, Default)]
struct ScriptState {
    faults: BTreeMap<(Operation, usize), Fault>,
    calls: Vec<Call>,
}

/// A store that loses the calls that its script names.
#[derive(Debug)]
pub struct Faulty<S: ?Sized> {
    script: Script,
    store: Arc<S>,
}

impl Script {
    /// A script that loses nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses the `nth` call of `operation`, counted from 1 over all calls that this script sees.
    pub fn lose(&self, operation: Operation, nth: usize, fault: Fault) {
        self.state().faults.insert((operation, nth), fault);
    }

    /// Loses the next call of `operation`.
    pub fn lose_next(&self, operation: Operation, fault: Fault) {
        self.lose(operation, self.count(operation) + 1, fault);
    }

    /// All calls so far, in their order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// How many calls of `operation` were made so far.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        self.state().count(operation)
    }

    fn state(&self) -> MutexGuard<'_, ScriptState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a call and returns how it is lost.
    fn next(&self, operation: Operation) -> Option<Fault> {
        let mut state = self.state();
        let nth = state.count(operation) + 1;
        let fault = state.faults.get(&(operation, nth)).copied();
        state.calls.push(Call { operation, nth, fault });
        fault
    }
}

impl ScriptState {
    fn count(&self, operation: Operation) -> usize {
        self.calls.iter().filter(|call| call.operation == operation).count()
    }
}

impl<S: LeaseStore + ?Sized> Faulty<S> {
    /// Wraps `store`. Several stores may share one script, as the handles of one fleet do.
    #[must_use]
    pub fn new(store: Arc<S>, script: Script) -> Self {
        Self { script, store }
    }

    async fn call<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let lost = |what: &str| {
            Err(StoreError::Unavailable {
                operation: format!("{operation:?}"),
                problem: format!("the {what} was lost"),
            })
        };
        match self.script.next(operation) {
            None => call.await,
            Some(Fault::LoseBefore) => lost("request"),
            Some(Fault::LoseAfter) => {
                call.await?;
                lost("reply")
            }
        }
    }
}

#[async_trait]
impl<S: LeaseStore + ?Sized> LeaseStore for Faulty<S> {
    fn decision_shards_max(&self) -> usize {
        self.store.decision_shards_max()
    }

    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        self.call(Operation::List, self.store.list()).await
    }

    async fn get(&self, keys: &[ShardKey]) -> Result<Vec<Option<Lease>>, StoreError> {
        self.call(Operation::Get, self.store.get(keys)).await
    }

    async fn create(&self, leases: &[NewLease]) -> Result<Vec<ShardKey>, StoreError> {
        self.call(Operation::Create, self.store.create(leases)).await
    }

    async fn renew(&self, me: &LeaseOwner, renewals: &[Renewal]) -> Result<Vec<RenewalOutcome>, StoreError> {
        self.call(Operation::Renew, self.store.renew(me, renewals)).await
    }

    async fn take(&self, me: &LeaseOwner, key: &ShardKey, seen_counter: u64) -> Result<Option<Lease>, StoreError> {
        self.call(Operation::Take, self.store.take(me, key, seen_counter)).await
    }

    async fn ask(&self, me: &LeaseOwner, key: &ShardKey, from: &LeaseOwner) -> Result<bool, StoreError> {
        self.call(Operation::Ask, self.store.ask(me, key, from)).await
    }

    async fn hand_over(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError> {
        self.call(Operation::HandOver, self.store.hand_over(me, key)).await
    }

    async fn release(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError> {
        self.call(Operation::Release, self.store.release(me, key)).await
    }

    async fn remove(&self, key: &ShardKey) -> Result<bool, StoreError> {
        self.call(Operation::Remove, self.store.remove(key)).await
    }

    async fn decide(&self, decision: &Decision) -> Result<Verdict, StoreError> {
        self.call(Operation::Decide, self.store.decide(decision)).await
    }

    async fn advance(&self, manifest: &ManifestName, advances: &[Advance]) -> Result<Vec<AdvanceOutcome>, StoreError> {
        self.call(Operation::Advance, self.store.advance(manifest, advances)).await
    }

    async fn roll_back(&self, manifest: &ManifestName, keys: &[ShardKey]) -> Result<bool, StoreError> {
        self.call(Operation::RollBack, self.store.roll_back(manifest, keys)).await
    }

    async fn register(&self, me: &LeaseOwner) -> Result<(), StoreError> {
        self.call(Operation::Register, self.store.register(me)).await
    }

    async fn deregister(&self, me: &LeaseOwner) -> Result<(), StoreError> {
        self.call(Operation::Deregister, self.store.deregister(me)).await
    }

    async fn owner_is_gone(&self, owner: &LeaseOwner) -> Result<bool, StoreError> {
        self.call(Operation::OwnerIsGone, self.store.owner_is_gone(owner)).await
    }
}
