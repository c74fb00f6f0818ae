//! Outages, after all other faults: a service that a worker cannot reach for seconds, minutes or an hour, and a shard that one worker
//! cannot read for ever.
//!
//! Owns: what must hold then. Does not own: what happens to requests (`network`).
//!
//! - An outage that is shorter than a worker waits costs nothing but time: the worker continues, no epoch is abandoned, and its leases are
//!   still its own.
//! - After a longer one of the lake or the lease table the worker has ended. Where only the stream was away, it has ended only if it
//!   had something to commit: before a decision it asks the stream who it is.
//! - Either way everything is visible soon after the outage.
//! - A shard that one worker cannot read is read by another, although the first one lives and reads other shards.

use std::time::Duration;

use checkpoints::Position;
use tokio::time::Instant;

use super::{BOUND, Fleet};
use crate::faults::FaultKind;
use crate::network::{Rates, Service};
use crate::objects;
use crate::rng::Rng;

/// How long workers wait for a service.
const WITHIN: Duration = Duration::from_secs(300);
/// How long an outage may last for workers to go on as if nothing had happened.
const SHORT: Duration = Duration::from_secs(120);
/// Within which time everything is visible after an outage that the worker has waited for.
const SOON: Duration = Duration::from_secs(90);

impl Fleet {
    /// Outages, in fleets that have them.
    pub(super) async fn outages(&mut self) -> Result<(), String> {
        let Some(mut rng) = self.outages.take() else { return Ok(()) };
        self.retry_within = WITHIN;
        for running in &self.workers {
            running.stop.cancel();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        let worker = self.start_calm();
        self.until_done(BOUND, "before an outage").await?;
        if rng.chance(400) { self.stuck_shard(worker, &mut rng).await } else { self.outage(worker, &mut rng).await }
    }

    /// Starts a worker that meets no faults of its own. Returns its place among the workers.
    fn start_calm(&mut self) -> usize {
        self.start_for(Rates::default(), Some(false));
        self.workers.len() - 1
    }

    async fn outage(&mut self, worker: usize, rng: &mut Rng) -> Result<(), String> {
        let service = rng.one_of(&Service::ALL);
        let time = Duration::from_secs(rng.one_of(&[3, 45, SHORT.as_secs(), 3600]));
        let aborted = self.workers[worker].progress.committed().aborted;
        self.put(40);
        tokio::time::sleep(Duration::from_millis(rng.below(3_000))).await;
        self.shared.tally.note(service.out());
        // Only the SDK has a time limit for a request: without one, a request that is never answered would wait for ever.
        if self.in_cloud {
            self.shared.tally.note(FaultKind::BlackHole);
            self.workers[worker].network.swallow(service, time);
        } else {
            self.workers[worker].network.partition(service, time);
        }
        for _ in 0..4 {
            tokio::time::sleep(time / 4).await;
            self.put(20);
        }
        let what = format!("{time:?} without {service:?}");
        self.check().await?;
        let has_ended = self.workers[worker].task.is_none();
        if time <= SHORT {
            self.until_done(SOON, &what).await?;
            let running = &self.workers[worker];
            if has_ended || running.task.is_none() {
                return Err(format!("a worker ended after {what}"));
            }
            if running.progress.committed().aborted > aborted {
                return Err(format!("an epoch was abandoned after {what}"));
            }
            let lost = self.rows_of_streams().into_iter().find(|row| {
                row.checkpoint != Position::End && row.holder.as_deref() != Some(self.workers[worker].me.as_str())
            });
            return lost.map_or(Ok(()), |row| Err(format!("a lease was lost after {what}: {row:?}")));
        }
        if !has_ended && service != Service::Stream {
            return Err(format!("after {what}, the worker has not ended"));
        }
        self.start_calm();
        self.until_done(BOUND, &what).await
    }

    async fn stuck_shard(&mut self, worker: usize, rng: &mut Rng) -> Result<(), String> {
        self.shared.tally.note(FaultKind::ShardStuck);
        let open = self.rows_of_streams().into_iter().filter(|row| row.checkpoint != Position::End);
        let open = open.filter(|row| !row.key.shard.as_str().starts_with(objects::SHARDS));
        let keys: Vec<_> = open.map(|row| row.key).collect();
        let network = &self.workers[worker].network;
        if self.in_cloud {
            network.partition(Service::Stream, Duration::from_secs(86_400));
        } else if !keys.is_empty() {
            network.stick(keys[rng.index(keys.len())].shard.clone());
        }
        self.start_calm();
        for _ in 0..3 {
            self.put(60);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        self.until_done(WITHIN + Duration::from_secs(120), "a worker cannot read a shard, and another one can").await
    }

    /// Waits until everything is visible and committed.
    async fn until_done(&mut self, within: Duration, what: &str) -> Result<(), String> {
        let deadline = Instant::now() + within;
        while !self.is_done() {
            if Instant::now() >= deadline {
                let missing = self.auditor.missing();
                let (count, first) = (missing.len(), missing.first());
                return Err(format!(
                    "{count} records are missing, first {first:?}: {what}; {:#?}",
                    self.environment.rows()
                ));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.check().await?;
        }
        Ok(())
    }
}
