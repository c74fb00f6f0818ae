//! What a worker finds out rarely, because each time costs requests: how long its streams keep records, and what is wrong in the lake
//! without any worker noticing it.
//!
//! Owns: asking, again and again. Does not own: showing it (`telemetry`), removing it (`maintenance`). One worker of the fleet asks the lake:
//! the holder of the first shard. If a request fails, what was known before is shown on, and the next time asks again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::SharedClock;
use crate::commit::{CommitError, Stores};
use crate::maintenance;
use crate::named_checkpoints::{Retentions, ending_checkpoints};
use crate::retry::RetryPolicy;
use crate::source::{ShardSource, losses};
use crate::telemetry::{Figures, LakeUpkeep, Upkeep};
use crate::worker::Progress;

/// How often it is checked whether this worker is the one that asks the lake.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The age from which what a worker left behind may be removed, as at the start of a worker.
const ORPHANED_AFTER: Duration = Duration::from_secs(86_400);

/// Asks the lake once.
///
/// # Errors
/// A store fails.
pub async fn lake_upkeep(
    stores: &Stores,
    sources: &[Arc<dyn ShardSource>],
    clock: &SharedClock,
) -> Result<LakeUpkeep, CommitError> {
    let open =
        |losses: Vec<(losses::Loss, Option<losses::Then>)>| losses.iter().filter(|(_, then)| then.is_none()).count();
    let losses = open(losses::list(&*stores.lake).await?);
    let ending = ending_checkpoints(&*stores.lake, sources, clock.now_ms()).await?;
    let swept = maintenance::sweep(stores, clock.now_ms(), ORPHANED_AFTER, true).await?;
    Ok(LakeUpkeep {
        losses: losses as u64,
        ending_checkpoints: ending.len() as u64,
        orphaned_uploads: swept.uploads,
        orphaned_intents: swept.intents,
    })
}

/// Asks streams and lake every `every`, for as long as it is polled.
pub async fn watch_upkeep(
    figures: Arc<Figures>,
    progress: Arc<Progress>,
    stores: Stores,
    sources: Vec<Arc<dyn ShardSource>>,
    clock: SharedClock,
    every: Duration,
) {
    // Each call is made once: this has a schedule of its own, and must not be what a service is still waited for.
    let stores = Stores::new(stores.lake_once, stores.leases_once, RetryPolicy::NONE);
    let mut upkeep = Upkeep::default();
    let (mut streams_at, mut lake_at): (Option<Instant>, Option<Instant>) = (None, None);
    let is_due = |at: Option<Instant>| at.is_none_or(|at| at.elapsed() >= every);
    loop {
        if is_due(streams_at) {
            let retentions = Retentions::ask(&sources).await;
            let of = |source: &Arc<dyn ShardSource>| {
                let stream = source.stream();
                retentions.of(stream).map(|retention| (stream.to_string(), retention))
            };
            upkeep.retention.extend(sources.iter().filter_map(of));
            streams_at = Some(Instant::now());
        }
        // Another worker may have become the first one.
        if !progress.fleet().is_some_and(|fleet| fleet.is_first) {
            (upkeep.lake, lake_at) = (None, None);
        } else if is_due(lake_at) {
            match lake_upkeep(&stores, &sources, &clock).await {
                Ok(lake) => upkeep.lake = Some(lake),
                Err(error) => {
                    tracing::warn!(%error, "failed to look for losses and leftovers in the lake; trying again later");
                }
            }
            lake_at = Some(Instant::now());
        }
        figures.set_upkeep(upkeep.clone());
        tokio::time::sleep(CHECK_EVERY.min(every)).await;
    }
}
