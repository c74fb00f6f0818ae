//! The two stores that a commit writes to, the lake and the lease store, with retries.
//!
//! Owns: wrapping both, so that calls that may be repeated are repeated, and the two calls of the lease store that need more
//! than repetition; which rows of the table are this lake's. All tasks of a process share its knowledge of the end of the lake log. Does
//! not own: which calls may be repeated (`lake::Retrying`, `RetryingLeases`), that knowledge (`lake_log`).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use checkpoints::{
    Decided, Decision, Lease, LeaseStore, LeaseStoreExt, ManifestName, ShardKey, StoreError, StreamName,
};
use pipeline::layout;

use crate::clock::{SharedClock, SystemClock};
use crate::commit::lake_guard::{has_one_of, newest_manifests};
use crate::commit::lake_log::Tail;
use crate::commit::protocol::CommitError;
use crate::commit::retrying_leases::RetryingLeases;
use crate::lake::{ObjectKey, ObjectStore, Retrying};
use crate::retry::{Retry, RetryPolicy};

/// Lake and leases.
#[derive(Clone)]
pub struct Stores {
    /// The lake. Its calls are repeated while they fail with an error that may be retried.
    pub lake: Arc<dyn ObjectStore>,
    /// The leases. Calls that may be repeated are repeated.
    pub leases: Arc<dyn LeaseStore>,
    /// The same lake, each call made once: for cleaning up, which a sweep does later if it fails.
    pub lake_once: Arc<dyn ObjectStore>,
    /// The same leases, each call made once: for callers that have their own schedule.
    pub leases_once: Arc<dyn LeaseStore>,
    /// Streams that are known to be this lake's.
    own: Arc<Mutex<BTreeSet<StreamName>>>,
    /// The end of the lake log, as this process knows it.
    pub(in crate::commit) tail: Arc<Tail>,
    /// The time of day, for entries of the lake log.
    pub(in crate::commit) clock: SharedClock,
    /// For the calls of the lease store that are repeated here.
    retry: Retry,
}

impl Stores {
    /// Lake and leases whose calls are repeated as `policy` says.
    pub fn new(lake: Arc<dyn ObjectStore>, leases: Arc<dyn LeaseStore>, policy: RetryPolicy) -> Self {
        Self::with_policies((lake, policy), (leases, policy))
    }

    /// The same with a policy for each.
    pub fn with_policies(
        (lake, of_lake): (Arc<dyn ObjectStore>, RetryPolicy),
        (leases, of_leases): (Arc<dyn LeaseStore>, RetryPolicy),
    ) -> Self {
        let retry = Retry::new(of_leases, "the lease store");
        Stores {
            lake: Arc::new(Retrying::new(Arc::clone(&lake), of_lake)),
            leases: Arc::new(RetryingLeases::new(Arc::clone(&leases), retry.clone())),
            lake_once: lake,
            leases_once: leases,
            own: Arc::default(),
            tail: Arc::default(),
            clock: Arc::new(SystemClock),
            retry,
        }
    }

    /// The same stores. These streams are the lake's, whatever is in it.
    #[must_use]
    pub fn with_streams(self, streams: impl IntoIterator<Item = StreamName>) -> Self {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).extend(streams);
        self
    }

    /// The same stores with another clock than the machine's.
    #[must_use]
    pub fn with_clock(self, clock: SharedClock) -> Self {
        Stores { clock, ..self }
    }

    /// All leases of this lake's streams. Several lakes may share one lease table; the rows of streams that this lake does not know
    /// are left out.
    ///
    /// # Errors
    /// The stores fail.
    pub async fn own_leases(&self) -> Result<Vec<Lease>, CommitError> {
        let mut leases = self.leases.list().await?;
        let foreign = self.foreign_streams(&leases).await?;
        leases.retain(|lease| !foreign.contains(&lease.key.stream));
        Ok(leases)
    }

    /// The streams of these leases that this lake does not know: the configuration does not name them, no worker has opened them for
    /// this lake, and none of the newest manifests that their rows name is in it.
    ///
    /// # Errors
    /// The lake fails.
    pub async fn foreign_streams(&self, leases: &[Lease]) -> Result<BTreeSet<StreamName>, CommitError> {
        let mut foreign: BTreeSet<StreamName> = leases.iter().map(|lease| lease.key.stream.clone()).collect();
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).clone();
        foreign.retain(|stream| !own.contains(stream));
        for stream in foreign.clone() {
            let of_stream = || leases.iter().filter(|lease| lease.key.stream == stream).cloned();
            if self.has_opened(&stream).await?
                || has_one_of(&*self.lake, &newest_manifests(of_stream()), &RetryPolicy::NONE).await?
            {
                foreign.remove(&stream);
                self.own.lock().unwrap_or_else(PoisonError::into_inner).insert(stream);
            }
        }
        Ok(foreign)
    }

    /// Whether a worker has opened the stream for this lake: what its source keeps there.
    async fn has_opened(&self, stream: &StreamName) -> Result<bool, CommitError> {
        let start = ObjectKey::new(layout::stream_start(stream.as_str())).expect("an escaped name is a valid segment");
        if self.lake.get(&start).await?.is_some() {
            return Ok(true);
        }
        Ok(!self.lake.list(&layout::files_of_source(stream.as_str())).await?.is_empty())
    }

    /// The leases of these shards; those without a row are left out.
    ///
    /// # Errors
    /// The lease store fails.
    pub async fn leases_of(&self, keys: Vec<ShardKey>) -> Result<Vec<Lease>, StoreError> {
        Ok(self.leases.get(&keys).await?.into_iter().flatten().collect())
    }

    /// Decides, or finds out that it was decided. Each attempt sends the decision and, if there is no reply, reads the rows.
    ///
    /// # Errors
    /// It is not known whether the decision took effect ([`LeaseStoreExt::decide_once`]).
    pub async fn decide_once(&self, decision: &Decision) -> Result<Decided, StoreError> {
        self.retry.run(|| self.leases_once.decide_once(decision)).await
    }

    /// Takes a decision back. `false` may also mean that an earlier attempt of the same call took effect; the rows show it.
    ///
    /// # Errors
    /// The lease store fails.
    pub async fn roll_back(&self, manifest: &ManifestName, keys: &[ShardKey]) -> Result<bool, StoreError> {
        self.retry.run(|| self.leases_once.roll_back(manifest, keys)).await
    }
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stores").field("retry", &self.retry).finish_non_exhaustive()
    }
}
