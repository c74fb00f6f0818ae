//! When a run with `--until-caught-up` ends.
//!
//! Owns: the judgement that what was there when the run began has been read and committed, by whichever worker. So a run ends although
//! more arrives all the time. A reader of a bounded source reports the tip once it is past the beginning of the run
//! ([`ShardSource`]). A shard that appears later without parents, such as a new file, is not waited for. First this worker's
//! shards must be at their tips and committed. Then the lease manager scans all leases once more, because other workers may
//! still be reading. Does not own: the scan (`leases`), what follows from the judgement (the coordinator).
//!
//! A scan reads the whole lease table, and a judgement lists the shards of every stream. So while other workers are still
//! reading, at most one scan is requested every 500 ms. The scans that the lease manager makes anyway wake the coordinator.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use checkpoints::{Lease, Position, ShardId, ShardKey, StreamName};
use tokio::time::Instant;

use crate::source::{Behind, ShardSource, SourceShard};
use crate::worker::leases::missing;
use crate::worker::shards::Shards;

/// Least time between two scans while nothing changes for this worker.
const RECHECK_AFTER: Duration = Duration::from_millis(500);

/// How far a run is from being caught up.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    is_enabled: bool,
    /// A scan was requested after the last commit, and its result has not come yet.
    is_scan_requested: bool,
    /// When to scan again after a scan that showed others at work. None once something of this worker has changed.
    recheck_at: Option<Instant>,
    /// The shards of each stream when it was listed first.
    first_listed: HashMap<StreamName, HashSet<ShardId>>,
    is_caught_up: bool,
}

impl CatchUp {
    /// `is_enabled`: whether the run ends once it has caught up.
    pub(super) fn new(is_enabled: bool) -> Self {
        CatchUp { is_enabled, ..CatchUp::default() }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Whether every shard has been read and committed.
    pub(super) fn is_caught_up(&self) -> bool {
        self.is_caught_up
    }

    /// Ends the run without asking what the other workers do.
    pub(super) fn assume_caught_up(&mut self) {
        self.is_caught_up = true;
    }

    /// Something of this worker has changed, so the next scan may show something new.
    pub(super) fn on_change(&mut self) {
        self.recheck_at = None;
    }

    /// Whether to request a scan now. If so, the next snapshot is judged.
    pub(super) fn request_scan(&mut self) -> bool {
        let requests = !self.is_scan_requested && self.recheck_at.is_none_or(|at| Instant::now() >= at);
        self.is_scan_requested |= requests;
        requests
    }

    /// Judges by all leases, as they were read after this worker had committed everything. `is_quiet`: this worker still has
    /// nothing to commit.
    pub(super) async fn judge(
        &mut self,
        leases: &[Lease],
        sources: &[Arc<dyn ShardSource>],
        shards: &mut Shards,
        is_quiet: bool,
    ) {
        let was_requested = std::mem::replace(&mut self.is_scan_requested, false);
        if !self.is_enabled || !was_requested || !is_quiet {
            return;
        }
        self.recheck_at = Some(Instant::now() + RECHECK_AFTER);
        for source in sources {
            if !self.is_committed(&**source, leases, shards).await {
                return;
            }
        }
        // What a stream does not list, or does not have, is read only if it is still the same stream.
        for source in sources {
            if let Err(error) = source.is_same().await {
                tracing::warn!(stream = %source.stream(), %error, "failed to confirm the identity of the stream; retrying");
                return;
            }
        }
        self.is_caught_up = true;
    }

    /// Whether every shard of a source has been read and committed. Those that cannot be read don't count, and neither do those that
    /// appeared without parents since the first list.
    async fn is_committed(&mut self, source: &dyn ShardSource, leases: &[Lease], shards: &mut Shards) -> bool {
        let listed = match source.shards().await {
            Ok(listed) => listed,
            Err(error) => {
                // The lease manager lists them as well, and tells.
                tracing::debug!(stream = %source.stream(), %error, "failed to list shards; retrying");
                return false;
            }
        };
        let first = self.first_listed.entry(source.stream().clone());
        let first = first.or_insert_with(|| listed.iter().map(|shard| shard.id.clone()).collect());
        let listed: Vec<SourceShard> =
            listed.into_iter().filter(|shard| first.contains(&shard.id) || !shard.parents.is_empty()).collect();
        if !missing(source.stream(), listed.clone(), leases).is_empty() {
            return false;
        }
        let rows: HashSet<&ShardKey> = leases.iter().map(|lease| &lease.key).collect();
        let settled = leases.iter().filter(|lease| lease.pending.is_none());
        let checkpoints: HashMap<&ShardKey, &Position> = settled.map(|lease| (&lease.key, &lease.checkpoint)).collect();
        for shard in listed {
            let key = ShardKey::new(source.stream().clone(), shard.id.clone());
            // A shard without a row was read to its end some time ago, and its row was removed.
            if shards.has_failed(&key) || !rows.contains(&key) {
                continue;
            }
            let Some(checkpoint) = checkpoints.get(&key) else { return false };
            if shards.has_committed_all(&key) {
                continue;
            }
            match source.behind(&shard.id, checkpoint).await {
                Ok(Behind::Nothing) => {}
                Ok(Behind::Bytes(_) | Behind::Time(_)) => return false,
                Err(error) => {
                    tracing::error!(stream = %key.stream, shard = %key.shard, %error, "failed to read shard; not waiting for it");
                    shards.fail(key, error.to_string());
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Stores;
    use crate::lake::MemoryStore;
    use crate::retry::RetryPolicy;
    use crate::worker::testing::{TestStream, at, key, lease, reader_settings};
    use checkpoints::{LeaseOwner, ManifestName, MemoryStore as MemoryLeases, Pending};
    use tokio::sync::mpsc;

    /// The stream has shards `a` and `b` with two records each. This worker reads none of them.
    struct Parts {
        stream: TestStream,
        shards: Shards,
    }

    fn parts() -> Parts {
        let stream = TestStream::new(&[("a", 2), ("b", 2)]);
        let stores = Stores::new(Arc::new(MemoryStore::new()), Arc::new(MemoryLeases::new()), RetryPolicy::default());
        let (settings, _events) = reader_settings(Arc::new(stream.clone()));
        let commands = mpsc::unbounded_channel().0;
        let shards = Shards::new(LeaseOwner::from_random([1; 16]), stores, commands, Arc::default(), settings);
        Parts { stream, shards }
    }

    impl Parts {
        /// Whether a run that has requested a scan has caught up, if the scan shows these leases.
        async fn has_caught_up(&mut self, leases: &[Lease]) -> bool {
            let mut catch_up = CatchUp::new(true);
            assert!(catch_up.request_scan());
            let sources = [Arc::new(self.stream.clone()) as Arc<dyn ShardSource>];
            catch_up.judge(leases, &sources, &mut self.shards, true).await;
            catch_up.is_caught_up()
        }
    }

    #[tokio::test]
    async fn a_run_has_caught_up_once_every_shard_is_committed_to_its_tip() {
        let mut parts = parts();
        assert!(parts.has_caught_up(&[lease("a", at(2)), lease("b", at(2))]).await);
        assert!(!parts.has_caught_up(&[lease("a", at(2)), lease("b", at(1))]).await, "a record is left");
        assert!(!parts.has_caught_up(&[lease("a", at(2))]).await, "a row is still to be created");
        let manifest = ManifestName::new("_intents/1.json").unwrap();
        let pending = Lease { pending: Some(Pending { through: at(2), manifest }), ..lease("b", at(2)) };
        assert!(!parts.has_caught_up(&[lease("a", at(2)), pending]).await, "an epoch is pending");
    }

    #[tokio::test]
    async fn a_shard_that_failed_is_not_waited_for() {
        let mut parts = parts();
        parts.shards.fail(key("b"), "gone".to_owned());
        assert!(parts.has_caught_up(&[lease("a", at(2)), lease("b", at(1))]).await);
    }

    #[tokio::test(start_paused = true)]
    async fn scans_are_requested_at_most_every_500_ms_unless_something_changes() {
        let mut parts = parts();
        let sources = [Arc::new(parts.stream.clone()) as Arc<dyn ShardSource>];
        let mut catch_up = CatchUp::new(true);
        assert!(catch_up.request_scan() && !catch_up.request_scan(), "one scan at a time");
        catch_up.judge(&[lease("a", at(1))], &sources, &mut parts.shards, true).await;
        assert!(!catch_up.request_scan());
        tokio::time::advance(RECHECK_AFTER).await;
        assert!(catch_up.request_scan());
        catch_up.judge(&[lease("a", at(1))], &sources, &mut parts.shards, true).await;
        catch_up.on_change();
        assert!(catch_up.request_scan());
    }

    #[tokio::test]
    async fn only_a_requested_scan_of_a_quiet_worker_is_judged() {
        let mut parts = parts();
        let sources = [Arc::new(parts.stream.clone()) as Arc<dyn ShardSource>];
        let leases = [lease("a", at(2)), lease("b", at(2))];
        let mut catch_up = CatchUp::new(true);
        catch_up.judge(&leases, &sources, &mut parts.shards, true).await;
        assert!(!catch_up.is_caught_up(), "no scan was requested after the last commit");
        catch_up.request_scan();
        catch_up.judge(&leases, &sources, &mut parts.shards, false).await;
        assert!(!catch_up.is_caught_up(), "the worker has something to do again");
        let mut disabled = CatchUp::new(false);
        disabled.request_scan();
        disabled.judge(&leases, &sources, &mut parts.shards, true).await;
        assert!(!disabled.is_caught_up() && !disabled.is_enabled());
    }
}
