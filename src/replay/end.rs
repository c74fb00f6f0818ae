//! What is left of a replay goes: its leases, its uploads, and what it has written.
//!
//! Owns: the order in which they go. Does not own: who may end a replay (`control`), the plan, which stays.
//!
//! 1. The workers stop: `cancel` was asked, and each sees it within seconds.
//! 2. A worker on slices that end at once takes all leases, finishes what is pending, and commits the end of every slice. From then on a
//!    worker that has slept cannot commit anything: its decision requires a checkpoint that has moved.
//! 3. The leases are removed, which only those of ended slices can be.
//! 4. Uploads are aborted, and the objects of the aside lake are deleted.
//!
//! Each step may be repeated. What an operation has copied out of the aside lake is not in it any more.

use std::sync::Arc;
use std::time::Duration;

use checkpoints::{LeaseStore, ShardKey, StoreError};
use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::lake::{LakeError, ObjectStore};
use crate::replay::plan::Plan;
use crate::replay::run::{Job, RunError, has_leases};
use crate::worker::{self, Progress};

/// Requests that are in progress at once.
const CONCURRENT: usize = 16;
/// How long the leases of workers that have died are waited for.
const END_WITHIN: Duration = Duration::from_secs(300);

/// What was removed of a replay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Removed {
    /// Leases.
    pub leases: u64,
    /// Uploads.
    pub uploads: u64,
    /// Objects.
    pub objects: u64,
}

/// Ends all slices of a replay, and removes what it has. `job` has workers whose slices end at once.
///
/// # Errors
/// A store fails, or leases could not be taken in time. The same call continues.
pub async fn end_and_remove(job: &Job) -> Result<Removed, RunError> {
    if has_leases(&*job.aside.leases, &job.plan).await? {
        let stop = CancellationToken::new();
        let ending = worker::run((job.make_worker)()?, Arc::new(Progress::default()), stop.clone());
        tokio::pin!(ending);
        tokio::select! {
            biased;
            ended = &mut ending => ended?,
            () = tokio::time::sleep(END_WITHIN) => {
                stop.cancel();
                ending.await?;
                return Err(RunError::Incomplete(job.plan.slices.len()));
            }
        }
    }
    let leases = remove_leases(&*job.aside.leases, &job.plan).await?;
    let (uploads, objects) = remove_objects(&*job.aside.lake).await?;
    Ok(Removed { leases, uploads, objects })
}

/// Removes the leases of a replay whose slices have ended. Returns how many.
///
/// # Errors
/// The lease table fails.
pub async fn remove_leases(leases: &dyn LeaseStore, plan: &Plan) -> Result<u64, StoreError> {
    let stream = plan.id.stream();
    let rows = leases.list().await?.into_iter().filter(|lease| lease.key.stream == stream);
    let keys: Vec<ShardKey> = rows.map(|lease| lease.key).collect();
    let removing = stream::iter(&keys).map(|key| leases.remove(key));
    let removed: Vec<bool> = removing.buffer_unordered(CONCURRENT).try_collect().await?;
    Ok(removed.into_iter().filter(|removed| *removed).count() as u64)
}

/// Aborts all uploads of an aside lake, and deletes all its objects. Returns how many of each.
///
/// # Errors
/// The lake fails.
pub async fn remove_objects(aside: &dyn ObjectStore) -> Result<(u64, u64), LakeError> {
    let uploads = aside.list_uploads().await?;
    for upload in &uploads {
        if let Some(key) = &upload.key {
            aside.abort_upload(key, &upload.id).await?;
        }
    }
    let objects = aside.list("").await?;
    let deleting = stream::iter(&objects).map(|object| aside.delete(&object.key));
    deleting.buffer_unordered(CONCURRENT).try_collect::<Vec<()>>().await?;
    aside.flush().await?;
    Ok((uploads.len() as u64, objects.len() as u64))
}
