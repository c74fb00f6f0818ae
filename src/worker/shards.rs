//! The shards whose leases this worker holds. Each waits until its pending epoch is recovered, is read, and is released.
//!
//! Owns: what a lease that is gained means for its shard, the recoveries and the readers, which shards are to be released and
//! why, and which of them failed. Does not own: leases themselves (`leases`), open epochs (the coordinator).
//!
//! Invariants:
//!
//! 1. A shard that waits for a recovery has no reader, and no open epoch has records of it. The coordinator ends such an epoch
//!    before the shard is read from another position.
//! 2. After a recovery a shard is read by what its row says then, if this worker still holds the lease.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use checkpoints::{Lease, LeaseOwner, ManifestName, Position, ShardKey};
use mutations::mutated;
use tokio::sync::mpsc;

use crate::commit::{CommitError, IdleShard, Manifest, Recovered, Stores, epoch_of};
use crate::worker::WorkerError;
use crate::worker::leases::LeaseCommand;
use crate::worker::progress::Progress;
use crate::worker::reader::ReaderEvent;
use crate::worker::readers::{ReaderSettings, ReaderUpdate, Readers};
use crate::worker::recoveries::{FinishedRecovery, Recoveries, Recovery};

/// Why a shard is released. The greater reason counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Release {
    /// Another worker asked for it.
    Requested,
    /// It cannot be read here. Another worker may try, or this one later.
    Abandoned,
}

pub(super) struct Shards {
    me: LeaseOwner,
    stores: Stores,
    lease_commands: mpsc::UnboundedSender<LeaseCommand>,
    progress: Arc<Progress>,
    recoveries: Recoveries,
    readers: Readers,
    /// Shards that are to be released once no open epoch has records of them.
    releases: BTreeMap<ShardKey, Release>,
    /// Shards that could not be read, and why.
    failed: BTreeMap<ShardKey, String>,
}

impl Shards {
    pub(super) fn new(
        me: LeaseOwner,
        stores: Stores,
        lease_commands: mpsc::UnboundedSender<LeaseCommand>,
        progress: Arc<Progress>,
        readers: ReaderSettings,
    ) -> Self {
        Shards {
            me,
            recoveries: Recoveries::new(stores.clone()),
            stores,
            lease_commands,
            progress,
            readers: Readers::new(readers),
            releases: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// This worker holds a lease, and no open epoch has records of its shard. The shard is read, or waits for a recovery.
    pub(super) fn on_gained(&mut self, lease: Lease) {
        let key = lease.key.clone();
        self.progress.live.hold(&key);
        if let Some(pending) = lease.pending.clone().filter(|_| !mutated!(SkipRecovery)) {
            self.recoveries.wait_for(pending.manifest, key);
        } else if lease.is_done() {
            self.progress.live.forget(&key);
            let _ = self.lease_commands.send(LeaseCommand::Release(key));
        } else {
            self.failed.remove(&key);
            self.readers.start(lease);
        }
    }

    /// A decided epoch of this worker could not be published. It is recovered like any other that is pending.
    pub(super) fn on_unpublished(&mut self, manifest: &ManifestName, keys: Vec<ShardKey>) {
        for key in keys {
            self.stop(&key);
            self.recoveries.wait_for(manifest.clone(), key);
        }
    }

    /// Waits for the next recovery that ends; `None` if none is running. May be dropped while it waits.
    pub(super) async fn next_recovery(&mut self) -> Option<FinishedRecovery> {
        self.recoveries.next().await
    }

    /// Continues with the shards that waited for a recovery.
    ///
    /// # Errors
    /// A store failed, and shards wait: the worker ends, as it does when it can't finish a commit. If it continued, it would
    /// keep the leases, and nobody would read the shards.
    pub(super) async fn on_recovered(&mut self, recovery: FinishedRecovery) -> Result<(), WorkerError> {
        let FinishedRecovery { manifest, waiting, result } = recovery;
        match result {
            Ok(Recovery::Done(Recovered::Forward(committed))) if committed.0.worker == self.me => {
                self.progress.add_epoch(&committed.0);
            }
            Ok(Recovery::Done(Recovered::Forward(_))) => self.progress.note(|committed| committed.rolled_forward += 1),
            Ok(Recovery::Done(Recovered::Back)) => self.progress.note(|committed| committed.rolled_back += 1),
            Ok(Recovery::NotPending) => {}
            Err(error) if waiting.is_empty() => {
                tracing::warn!(epoch = epoch_of(&manifest), %error, "failed to recover pending epoch; leaving it to the holder of its leases");
            }
            Err(error) if error.is_retryable() || matches!(error, CommitError::Lake(_)) => return Err(error.into()),
            Err(error) => {
                for key in waiting {
                    tracing::error!(stream = %key.stream, shard = %key.shard, epoch = epoch_of(&manifest), %error, "failed to recover pending epoch; releasing the shard");
                    self.abandon(key.clone(), format!("{key}: {error}"));
                }
                return Ok(());
            }
        }
        self.read_again(waiting).await
    }

    /// Whether a recovery is running.
    pub(super) fn is_recovering(&self) -> bool {
        !self.recoveries.is_empty()
    }

    /// Tells the lease manager that a lease is another worker's. The manager may not know: if the lease was taken and came
    /// back between two scans, the manager would believe that the shard is still being read.
    fn disown(&self, lease: &Lease) {
        self.progress.live.forget(&lease.key);
        if !mutated!(HideDisownedLeases) {
            let _ = self.lease_commands.send(LeaseCommand::Disown(lease.key.clone()));
        }
    }

    /// Reads shards again from their checkpoints, those that are still ours.
    pub(super) async fn read_again(&mut self, keys: Vec<ShardKey>) -> Result<(), WorkerError> {
        for key in &keys {
            self.stop(key);
        }
        if keys.is_empty() {
            return Ok(());
        }
        let mut gone: BTreeSet<ShardKey> = keys.iter().cloned().collect();
        for lease in self.stores.leases_of(keys).await? {
            gone.remove(&lease.key);
            if lease.holder.is(&self.me) {
                self.on_gained(lease);
            } else {
                self.disown(&lease);
            }
        }
        gone.iter().for_each(|key| self.progress.live.forget(key));
        Ok(())
    }

    /// Whether the shard is read already, and nothing in its row says otherwise.
    pub(super) fn reads_from(&self, lease: &Lease) -> bool {
        self.readers.reads_from(lease)
    }

    /// Stops reading a shard, or waiting for its recovery.
    pub(super) fn stop(&mut self, key: &ShardKey) {
        self.recoveries.forget(key);
        self.readers.stop(key);
        self.releases.remove(key);
    }

    /// The lease of a shard is lost, and nothing of it waits for a commit.
    pub(super) fn on_lost(&mut self, key: &ShardKey) {
        self.stop(key);
        self.progress.live.forget(key);
    }

    /// Ends all readers.
    pub(super) async fn stop_readers(&mut self) {
        self.readers.stop_all().await;
    }

    /// Ends all readers and recoveries.
    pub(super) async fn shut_down(&mut self) {
        self.readers.stop_all().await;
        self.recoveries.abort_all().await;
    }

    /// The shards of a group that are at their tips, and what arrived before.
    pub(super) fn tips(&self, group: usize) -> Vec<IdleShard> {
        self.readers.tips(group)
    }

    /// The number of shards of which records were read and not committed.
    pub(super) fn uncommitted(&self) -> usize {
        self.readers.uncommitted()
    }

    /// Takes a reader's event into account. A shard that fails is abandoned.
    pub(super) fn on_reader_event(&mut self, event: ReaderEvent) -> ReaderUpdate {
        match self.readers.on_event(event) {
            ReaderUpdate::Failed(key, error) => {
                tracing::error!(stream = %key.stream, shard = %key.shard, %error, "failed to read shard; releasing it");
                self.abandon(key.clone(), error.to_string());
                ReaderUpdate::Failed(key, error)
            }
            update => update,
        }
    }

    /// An epoch of this worker is committed. Shards that have ended are released.
    /// `now_ms`: milliseconds since 1970.
    pub(super) fn on_committed(&mut self, manifest: &Manifest, now_ms: i64) {
        for shard in &manifest.shards {
            self.progress.live.on_committed(&shard.key, now_ms);
            if *shard.range.through() == Position::End && self.readers.has(&shard.key) {
                self.progress.live.forget(&shard.key);
                self.readers.stop(&shard.key);
                let _ = self.lease_commands.send(LeaseCommand::Release(shard.key.clone()));
            } else {
                self.readers.on_committed(&shard.key, shard.range.through());
            }
        }
    }

    /// Another worker asks for a shard.
    pub(super) fn request(&mut self, key: ShardKey) {
        self.releases.entry(key).or_insert(Release::Requested);
    }

    /// A shard cannot be read. It is released, so that another worker may try, or this one later. A run that ends when it has
    /// caught up does not wait for the shard, and reports the problem at its end.
    fn abandon(&mut self, key: ShardKey, problem: String) {
        self.failed.insert(key.clone(), problem);
        self.releases.insert(key, Release::Abandoned);
    }

    /// Stops the shards that are to be released, and returns them. The coordinator commits their epochs, then calls
    /// [`Shards::release`] for each.
    pub(super) fn take_releases(&mut self) -> BTreeMap<ShardKey, Release> {
        let releases = std::mem::take(&mut self.releases);
        releases.keys().for_each(|key| self.stop(key));
        releases
    }

    /// Releases the lease of a shard that no open epoch has records of.
    pub(super) fn release(&mut self, key: ShardKey, release: Release) {
        // If the commit was refused, the shard is being read again, or could not be read.
        let release = self.releases.get(&key).copied().unwrap_or(release).max(release);
        self.stop(&key);
        self.progress.live.forget(&key);
        let _ = self.lease_commands.send(match release {
            Release::Requested => LeaseCommand::Release(key),
            Release::Abandoned => LeaseCommand::Abandon(key),
        });
    }

    /// Notes that a shard cannot be read, without releasing it.
    pub(super) fn fail(&mut self, key: ShardKey, problem: String) {
        self.failed.insert(key, problem);
    }

    /// Whether the shard could not be read.
    pub(super) fn has_failed(&self, key: &ShardKey) -> bool {
        self.failed.contains_key(key)
    }

    /// What is wrong with the shards that could not be read.
    pub(super) fn problems(&self) -> Vec<String> {
        self.failed.values().cloned().collect()
    }

    /// Whether everything of a shard has been read and committed, for now.
    pub(super) fn has_committed_all(&self, key: &ShardKey) -> bool {
        self.readers.has_committed_all(key)
    }

    /// Whether no shard has anything more to read, for now.
    pub(super) fn are_all_at_tip(&self) -> bool {
        self.readers.are_all_at_tip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::MemoryStore;
    use crate::retry::RetryPolicy;
    use crate::source::SourceError;
    use crate::worker::reader::{ReaderEventKind, ReaderId};
    use crate::worker::testing::{TestStream, at, key, lease, reader_settings};
    use checkpoints::{Holder, LeaseStore, MemoryStore as MemoryLeases, NewLease, Pending};

    struct Parts {
        shards: Shards,
        leases: MemoryLeases,
        commands: mpsc::UnboundedReceiver<LeaseCommand>,
        _events: mpsc::Receiver<ReaderEvent>,
    }

    fn me() -> LeaseOwner {
        LeaseOwner::from_random([1; 16])
    }

    fn parts() -> Parts {
        let (lease_commands, commands) = mpsc::unbounded_channel();
        let leases = MemoryLeases::new();
        let stores = Stores::new(Arc::new(MemoryStore::new()), Arc::new(leases.clone()), RetryPolicy::default());
        let (settings, events) = reader_settings(Arc::new(TestStream::new(&[("a", 0), ("b", 0)])));
        Parts {
            shards: Shards::new(me(), stores, lease_commands, Arc::default(), settings),
            leases,
            commands,
            _events: events,
        }
    }

    fn pending() -> Lease {
        let manifest = ManifestName::new("_intents/20250113T103000Z-w-000001.json").unwrap();
        Lease { pending: Some(Pending { through: at(9), manifest }), ..lease("a", at(5)) }
    }

    impl Parts {
        fn command(&mut self) -> Option<String> {
            self.commands.try_recv().ok().map(|command| format!("{command:?}"))
        }

        /// Creates a shard's row, held by `owner`.
        async fn hold(&self, shard: &str, owner: &LeaseOwner) {
            self.leases.create(&[NewLease::new(key(shard), at(5))]).await.unwrap();
            self.leases.take(owner, &key(shard), 0).await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_shard_is_read_unless_it_is_done_or_has_an_epoch_pending() {
        let mut parts = parts();
        parts.shards.on_gained(lease("b", at(5)));
        assert!(parts.shards.reads_from(&lease("b", at(5))) && parts.command().is_none());
        parts.shards.on_gained(lease("a", Position::End));
        assert!(parts.command().unwrap().starts_with("Release"), "a done shard needs no reader");
        parts.shards.on_gained(pending());
        assert!(parts.shards.is_recovering() && !parts.shards.readers.has(&key("a")));
    }

    #[tokio::test]
    async fn after_a_recovery_a_shard_is_read_by_its_row_if_the_lease_is_still_held() {
        let mut parts = parts();
        parts.hold("a", &me()).await;
        parts.hold("b", &LeaseOwner::from_random([2; 16])).await;
        let manifest = pending().pending.unwrap().manifest;
        let waiting = vec![key("a"), key("b")];
        let recovery = FinishedRecovery { manifest, waiting, result: Ok(Recovery::NotPending) };
        parts.shards.on_recovered(recovery).await.unwrap();
        assert!(parts.shards.readers.has(&key("a")) && !parts.shards.readers.has(&key("b")));
        assert!(parts.command().unwrap().starts_with("Disown"));
    }

    #[tokio::test]
    async fn a_failed_recovery_ends_the_worker_only_if_a_store_failed_and_shards_wait() {
        let unavailable = || {
            let (operation, problem) = ("get".to_owned(), "lost".to_owned());
            CommitError::Lake(crate::lake::LakeError::Unavailable { operation, problem })
        };
        let no_intent = || CommitError::NoIntent { name: "x".to_owned() };
        let cases = [
            (unavailable(), vec![key("a")], false, vec![]),
            (unavailable(), vec![], true, vec![]),
            (no_intent(), vec![key("a")], true, vec![key("a")]),
        ];
        for (error, waiting, continues, abandoned) in cases {
            let mut parts = parts();
            let manifest = pending().pending.unwrap().manifest;
            let finished = FinishedRecovery { manifest, waiting, result: Err(error) };
            assert_eq!(parts.shards.on_recovered(finished).await.is_ok(), continues);
            assert_eq!(parts.shards.take_releases().into_keys().collect::<Vec<_>>(), abandoned);
        }
    }

    #[tokio::test]
    async fn an_own_epoch_that_cannot_be_published_is_recovered_before_its_shards_are_read_again() {
        let mut parts = parts();
        parts.shards.on_gained(lease("a", at(5)));
        let manifest = pending().pending.unwrap().manifest;
        parts.shards.on_unpublished(&manifest, vec![key("a")]);
        assert!(!parts.shards.readers.has(&key("a")));
        let finished = parts.shards.next_recovery().await.unwrap();
        assert_eq!((finished.manifest, finished.waiting), (manifest, vec![key("a")]));
    }

    #[tokio::test]
    async fn a_shard_that_is_lost_or_released_waits_for_its_recovery_no_longer() {
        let mut parts = parts();
        parts.shards.on_gained(pending());
        parts.shards.request(key("a"));
        for (key, release) in parts.shards.take_releases() {
            parts.shards.release(key, release);
        }
        assert!(parts.command().unwrap().starts_with("Release"));
        assert_eq!(parts.shards.next_recovery().await.unwrap().waiting, []);
    }

    #[tokio::test]
    async fn a_shard_that_fails_is_abandoned_and_not_waited_for_until_it_is_read_again() {
        let mut parts = parts();
        parts.shards.on_gained(lease("a", at(5)));
        let error = SourceError::Unreadable { place: "a".to_owned(), problem: "gone".to_owned() };
        let event = ReaderEvent { reader: ReaderId(1), key: key("a"), kind: ReaderEventKind::Failed(error) };
        parts.shards.on_reader_event(event);
        parts.shards.request(key("a"));
        let releases = parts.shards.take_releases();
        assert_eq!(releases, BTreeMap::from([(key("a"), Release::Abandoned)]), "a request does not weaken it");
        for (key, release) in releases {
            parts.shards.release(key, release);
        }
        assert!(parts.command().unwrap().starts_with("Abandon"));
        assert!(parts.shards.has_failed(&key("a")) && parts.shards.problems() == ["cannot read a: gone"]);
        parts.shards.on_gained(Lease { holder: Holder::Held(me()), ..lease("a", at(5)) });
        assert!(!parts.shards.has_failed(&key("a")));
    }
}
