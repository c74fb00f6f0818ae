//! Checkpoints beside a worker: one an interval in the whole fleet, the removal of old ones, and the warning of those that end soon.
//!
//! Owns: when it is time, who saves, what is removed. Does not own: the contents (`take`), the stored form (`commit::named_checkpoint`).
//!
//! Every worker tries, and exactly one succeeds, without a leader:
//!
//! - The time is the time of the lake's store: when it says that the commit record was written that this worker wrote last. The clocks
//!   of machines decide nothing.
//! - The name says when the interval began ([`CheckpointName::of_interval`]), and the object is created only if there is none of its name.
//! - Of the checkpoints that the schedule has saved, the newest `keep` stay. What people have saved is never removed.
//!
//! | event | consequence |
//! |---|---|
//! | a worker ends before the PUT | another one saves, after its next commit |
//! | two workers save at once | one object is created; the other worker finds it |
//! | a reply is lost | the same bytes are found under the name |
//! | a worker ends after the PUT | old ones stay until the next interval |
//! | a worker sleeps before its PUT | it finds that the name is taken. If the schedule has removed that object meanwhile, the late one is the oldest, and is removed next |
//! | nothing is committed in an interval | it gets none: the positions are those of the one before |
//!
//! All of this is in the background. A failure is logged, and the worker tries again after a later commit.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::LeaseOwner;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use crate::commit::{
    CheckpointError, CheckpointName, CutError, EpochId, SavedBy, Stores, UnreadableCheckpoint, get_checkpoint,
    is_internal_stream, save_checkpoint, scheduled_names,
};
use crate::config::CheckpointSchedule;
use crate::lake::LakeError;
use crate::named_checkpoints::expiry::{EndingCheckpoint, Retentions, Usability, ending_checkpoints};
use crate::named_checkpoints::take::take;
use crate::source::ShardSource;
use crate::worker::AfterCommit;

/// How long after a failure it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// How long after the start of a worker, and how often, it checks which checkpoints end soon.
const FIRST_WARNING_AFTER: Duration = Duration::from_secs(600);
/// How often checkpoints that end soon are warned of.
const WARN_EVERY: Duration = Duration::from_secs(24 * 3600);
/// How long the end of a run waits for a checkpoint that is being saved.
const FINISH_WITHIN: Duration = Duration::from_secs(20);

/// Why a scheduled checkpoint was not saved.
#[derive(Debug, thiserror::Error)]
enum ScheduleError {
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error(transparent)]
    Cut(#[from] CutError),
    #[error("the commit record of epoch {0} is not in the lake")]
    NoRecord(EpochId),
}

/// What became of an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Saved {
    /// It was saved.
    Now(CheckpointName),
    /// The interval has one already.
    Before,
}

/// Named checkpoints beside a worker.
#[derive(Debug)]
pub struct ScheduledCheckpoints {
    work: Work,
    /// When the interval ends that was attended to last. `None`: none was.
    save_at: Option<Instant>,
    warn_at: Instant,
    running: Option<JoinHandle<Next>>,
}

/// What a task needs.
#[derive(Clone)]
struct Work {
    me: LeaseOwner,
    stores: Stores,
    sources: Vec<Arc<dyn ShardSource>>,
    schedule: CheckpointSchedule,
}

/// What a task was for, and when it is due again.
#[derive(Debug, Default)]
struct Next {
    save_after: Option<Duration>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("me", &self.me).field("schedule", &self.schedule).finish_non_exhaustive()
    }
}

impl ScheduledCheckpoints {
    /// Checkpoints beside worker `me`, which reads these sources.
    pub fn new(
        me: LeaseOwner,
        stores: Stores,
        sources: Vec<Arc<dyn ShardSource>>,
        schedule: CheckpointSchedule,
    ) -> Self {
        let work = Work { me, stores, sources, schedule };
        ScheduledCheckpoints { work, save_at: None, warn_at: Instant::now() + FIRST_WARNING_AFTER, running: None }
    }

    /// Notes when a task that has ended is due again. One that panicked is like one that failed.
    fn note(&mut self, done: Result<Next, JoinError>) {
        let Next { save_after } = done.unwrap_or(Next { save_after: Some(RETRY_AFTER) });
        self.save_at = save_after.map(|after| Instant::now() + after).or(self.save_at);
    }
}

#[async_trait]
impl AfterCommit for ScheduledCheckpoints {
    /// Saves a checkpoint in the background if its interval has none, and warns of those that end soon.
    async fn after_commit(&mut self, epoch: &EpochId) {
        if self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            return;
        }
        if let Some(running) = self.running.take() {
            self.note(running.await);
        }
        let now = Instant::now();
        let saves = !self.work.schedule.every.is_zero() && self.save_at.is_none_or(|at| at <= now);
        let warns = self.warn_at <= now;
        if warns {
            self.warn_at = now + WARN_EVERY;
        }
        if saves || warns {
            let (work, epoch) = (self.work.clone(), epoch.clone());
            self.running = Some(tokio::spawn(async move { work.run(&epoch, saves, warns).await }));
        }
    }

    async fn finish(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        match tokio::time::timeout(FINISH_WITHIN, &mut running).await {
            Ok(done) => self.note(done),
            Err(_) => {
                running.abort();
                tracing::warn!("a scheduled checkpoint was not saved before the end of the run; a later run saves it");
            }
        }
    }
}

impl Drop for ScheduledCheckpoints {
    /// A checkpoint that is dropped half-way leaves nothing behind, or itself whole.
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

impl Work {
    async fn run(&self, epoch: &EpochId, saves: bool, warns: bool) -> Next {
        let mut next = Next::default();
        if saves {
            next.save_after = Some(match self.save(epoch).await {
                Ok((saved, left)) => {
                    if let Saved::Now(name) = saved {
                        tracing::info!(%name, "saved a checkpoint");
                    }
                    left
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to save a scheduled checkpoint; trying again after a later commit");
                    RETRY_AFTER
                }
            });
        }
        if warns && let Err(error) = self.warn(epoch).await {
            tracing::warn!(%error, "failed to check which checkpoints end soon; trying again tomorrow");
        }
        next
    }

    /// Saves the checkpoint of the present interval unless it has one. Also returns the time until the interval ends.
    async fn save(&self, epoch: &EpochId) -> Result<(Saved, Duration), ScheduleError> {
        let now_ms = self.time_of_store(epoch).await?;
        let every_ms = i64::try_from(self.schedule.every.as_millis()).unwrap_or(i64::MAX).max(1);
        let left_ms = every_ms - now_ms.rem_euclid(every_ms);
        let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
        let name = CheckpointName::of_interval(now_ms, every_ms);
        if scheduled_names(&*self.stores.lake).await?.contains(&name) {
            return Ok((Saved::Before, left));
        }
        let retentions = Retentions::ask(&self.sources).await;
        let (stores, sources) = (&self.stores, &self.sources);
        let checkpoint = take(stores, sources, &retentions, name, SavedBy::Schedule, now_ms).await?;
        if !save_checkpoint(&*stores.lake, &checkpoint).await? {
            return Ok((Saved::Before, left));
        }
        // A refusal meets the next one as well: somebody must act.
        if let Err(error) = self.remove_old().await {
            tracing::warn!(%error, "failed to remove old scheduled checkpoints; the next one removes them");
        }
        Ok((Saved::Now(checkpoint.name), left))
    }

    /// The time by the clock of the lake's store, in milliseconds since 1970: when the commit record of an epoch was written.
    async fn time_of_store(&self, epoch: &EpochId) -> Result<i64, ScheduleError> {
        let key = epoch.commit_key();
        let listed = self.stores.lake.list(key.as_str()).await?;
        let record = listed.into_iter().find(|object| object.key == key);
        Ok(record.ok_or_else(|| ScheduleError::NoRecord(epoch.clone()))?.modified_ms)
    }

    /// Removes what the schedule has saved, except for the newest.
    async fn remove_old(&self) -> Result<(), LakeError> {
        let names = scheduled_names(&*self.stores.lake).await?;
        let old = names.len().saturating_sub(self.schedule.keep);
        for name in &names[..old] {
            // Somebody may have saved it with an earlier version, under such a name.
            let is_scheduled = match get_checkpoint(&*self.stores.lake, name).await {
                Ok(found) => found.is_some_and(|found| found.saved_by == SavedBy::Schedule),
                Err(CheckpointError::Lake(error)) => return Err(error),
                Err(CheckpointError::Unreadable(UnreadableCheckpoint { key, problem })) => {
                    tracing::warn!(%key, %problem, "keeping an old checkpoint that cannot be read");
                    false
                }
            };
            if is_scheduled {
                self.stores.lake_once.delete(&name.key()).await?;
            }
        }
        Ok(())
    }

    /// Warns of checkpoints that people have saved and that end soon. Of a fleet, the worker that holds the first lease warns.
    async fn warn(&self, epoch: &EpochId) -> Result<(), ScheduleError> {
        let now_ms = self.time_of_store(epoch).await?;
        let mut ending = ending_checkpoints(&*self.stores.lake, &self.sources, now_ms).await?;
        // Nothing can be done about those that have ended.
        ending.retain(|one| one.usability == Usability::Expiring);
        if ending.is_empty() || !self.is_first().await? {
            return Ok(());
        }
        for EndingCheckpoint { name, usable, .. } in ending {
            let (stream, until, advice) = (&usable.stream, usable.until(), usable.advice());
            tracing::warn!(%name, %stream, until, "a checkpoint can soon not be used any more; {advice}");
        }
        Ok(())
    }

    /// Whether this worker holds the first of all leases of the lake that somebody holds.
    async fn is_first(&self) -> Result<bool, ScheduleError> {
        let mut leases = self.stores.own_leases().await.map_err(CutError::from)?;
        // The process of an operation, or of a replay, does not warn.
        leases.retain(|lease| !is_internal_stream(&lease.key.stream));
        leases.sort_by(|one, other| one.key.cmp(&other.key));
        let first = leases.iter().find_map(|lease| lease.holder.committer());
        Ok(first == Some(&self.me))
    }
}
