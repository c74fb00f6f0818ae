//! The steps of a redrive and of a discard, batch by batch.
//!
//! Owns: dividing what is wanted into batches, the order of the steps of each, and beginning again where somebody else has changed the
//! objects. Does not own: each step (see the parent module).
//!
//! Memory: the keys of the error objects that may have something, and one batch.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pipeline::dead_letter::stored::DeadLetterFilter;
use pipeline::layout;
use tokio_util::sync::CancellationToken;

use crate::commit::{EpochId, Manifest, ManifestKind, Stores};
use crate::inspect::{ErrorObject, live_error_objects};
use crate::lake::{InsideLake, ObjectKey, ObjectStore};
use crate::maintenance::operation::{OperationError, Operator};
use crate::redrive::leftovers::remove_leftovers;
use crate::redrive::replacement::{Made, Replacement};
use crate::redrive::selection::{Counted, count_all, count_live, delete_all, is_of};
use crate::redrive::{Discarded, RedriveError, Redriven};

/// The lease that a redrive or a discard holds for as long as it runs.
const LEASE: &str = "_redrive";
/// Bytes of the objects of a batch.
const BATCH_BYTES: u64 = 64 << 20;
/// Wanted dead letters of a batch.
const BATCH_DEAD_LETTERS: u64 = 250_000;
/// Objects of a batch.
const BATCH_OBJECTS: usize = 500;
/// Objects that are counted at once.
const COUNTED_AT_ONCE: usize = 32;
/// How often the selection begins again because others changed it.
const SELECTIONS_MAX: u32 = 20;
/// How often an operation is repeated while another one works on the same part of the lake, and the time between.
const BUSY_MAX: u32 = 60;
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// What is left aside is removed after this time, if nothing shows that its process has ended.
const LEFTOVER_AGE: Duration = Duration::from_secs(86_400);

/// How far a redrive or a discard is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Dead letters that were looked at and dealt with.
    pub done: u64,
    /// Dead letters in all objects that may have what is wanted.
    pub all: u64,
}

/// What a redrive or a discard works with.
pub struct Redrive<'r> {
    /// Its id, 8 hex digits: its operations belong to it.
    pub id: String,
    /// Which dead letters are wanted.
    pub filter: DeadLetterFilter,
    /// The lake and its leases.
    pub stores: &'r Stores,
    /// Runs its operations.
    pub operator: &'r mut Operator,
    /// Called with how far it is.
    pub on_progress: &'r (dyn Fn(Progress) + Send + Sync),
    /// Stops it between two steps.
    pub stop: &'r CancellationToken,
    /// Bytes of the objects of a batch; a batch has at least one object.
    pub batch_bytes: u64,
}

/// What a worker processes aside.
pub struct AsideBatch<'b> {
    /// The lake whose error objects are read.
    pub lake: Arc<dyn ObjectStore>,
    /// The objects with their sizes.
    pub objects: Vec<(ObjectKey, u64)>,
    /// Which of their dead letters.
    pub filter: &'b DeadLetterFilter,
    /// The empty lake into which they are processed.
    pub aside: Arc<dyn ObjectStore>,
}

/// Processes dead letters into a lake of their own.
#[async_trait]
pub trait RunAside: Send + Sync {
    /// Processes all dead letters of a batch. Once it returns, everything is committed in the aside lake, unless it was stopped.
    ///
    /// # Errors
    /// They could not be processed.
    async fn run(&self, batch: AsideBatch<'_>) -> Result<(), RedriveError>;

    /// Called before rows of these datasets become visible in the lake.
    ///
    /// # Errors
    /// The lake's files do not allow the definitions.
    async fn claim(&self, lake: &dyn ObjectStore, datasets: &[&str]) -> Result<(), RedriveError>;
}

impl<'r> Redrive<'r> {
    /// A redrive or a discard with batches of the usual size.
    pub fn new(
        id: String,
        filter: DeadLetterFilter,
        stores: &'r Stores,
        operator: &'r mut Operator,
        on_progress: &'r (dyn Fn(Progress) + Send + Sync),
        stop: &'r CancellationToken,
    ) -> Self {
        Redrive { id, filter, stores, operator, on_progress, stop, batch_bytes: BATCH_BYTES }
    }
}

/// Processes dead letters again, and replaces them by what they become.
///
/// # Errors
/// See [`RedriveError`]. The batches that were done stay done.
pub async fn redrive(redrive: Redrive<'_>, aside: &dyn RunAside) -> Result<Redriven, RedriveError> {
    let lake = Arc::clone(&redrive.stores.lake);
    let mut done = Redriven::default();
    let mut failed = 0;
    drive(redrive, Some(aside), &mut |batch: &Batch, made: &Made| {
        done.operations += 1;
        done.taken += batch.wanted();
        for (dataset, rows) in &made.rows {
            *done.rows.entry(dataset.clone()).or_default() += rows;
        }
        for (code, count) in &made.dead_letters {
            *done.failed_again.entry(code.clone()).or_default() += count;
            failed += count;
        }
    })
    .await?;
    done.left_alone = count_live(&*lake).await?.saturating_sub(failed);
    Ok(done)
}

/// Removes dead letters. They stay in the trash until it is purged.
///
/// # Errors
/// See [`RedriveError`]. The batches that were done stay done.
pub async fn discard(redrive: Redrive<'_>) -> Result<Discarded, RedriveError> {
    let lake = Arc::clone(&redrive.stores.lake);
    let mut done = Discarded::default();
    drive(redrive, None, &mut |batch: &Batch, _: &Made| {
        done.operations += 1;
        done.discarded += batch.wanted();
    })
    .await?;
    done.left_alone = count_live(&*lake).await?;
    Ok(done)
}

/// Objects that are replaced by one operation.
#[derive(Default)]
struct Batch {
    counted: Vec<Counted>,
}

impl Batch {
    fn wanted(&self) -> u64 {
        self.counted.iter().map(|counted| counted.wanted).sum()
    }

    fn bytes(&self) -> u64 {
        self.counted.iter().map(|counted| counted.object.bytes).sum()
    }

    fn is_full(&self, bytes: u64) -> bool {
        self.bytes() >= bytes || self.wanted() >= BATCH_DEAD_LETTERS || self.counted.len() >= BATCH_OBJECTS
    }
}

/// What became of a batch.
enum End {
    Done(Box<Manifest>, Made),
    /// An object of it is not live any more. Nothing was changed.
    Changed,
}

/// Called with each batch that is done.
type OnDone<'d> = &'d mut (dyn FnMut(&Batch, &Made) + Send);

async fn drive(
    mut redrive: Redrive<'_>,
    aside: Option<&dyn RunAside>,
    on_done: OnDone<'_>,
) -> Result<(), RedriveError> {
    let held = match redrive.operator.hold(LEASE).await {
        Err(OperationError::Busy { holder, .. }) => {
            return Err(RedriveError::Busy { holder: holder.to_string() });
        }
        held => held?,
    };
    let result = drive_holding(&mut redrive, aside, on_done).await;
    redrive.operator.release(held).await;
    result
}

async fn drive_holding(
    redrive: &mut Redrive<'_>,
    aside: Option<&dyn RunAside>,
    on_done: OnDone<'_>,
) -> Result<(), RedriveError> {
    let stores = redrive.stores;
    let lake = &*stores.lake;
    // What is left does no harm, so failing to remove it does none either.
    if let Err(error) = remove_leftovers(stores, redrive.operator.now_ms(), LEFTOVER_AGE, false).await {
        tracing::warn!(%error, "failed to remove what an ended redrive left aside; the next one tries again");
    }
    let mut own: BTreeSet<EpochId> = BTreeSet::new();
    let mut has_nothing: HashSet<ObjectKey> = HashSet::new();
    let (mut number, mut progress) = (0, Progress::default());
    'select: for _ in 0..SELECTIONS_MAX {
        let mut objects = live_error_objects(lake, &redrive.filter).await?;
        objects.retain(|object| !is_of(object, &own) && !has_nothing.contains(&object.key));
        progress.all = progress.done + objects.iter().map(|object| object.rows).sum::<u64>();
        (redrive.on_progress)(progress);
        let mut objects = VecDeque::from(objects);
        while !objects.is_empty() {
            let (batch, passed) = next_batch(lake, &mut objects, redrive, &mut has_nothing).await?;
            progress.done += passed;
            if !batch.counted.is_empty() {
                number += 1;
                let (end, batch_rows) = (one_batch(redrive, aside, &batch, number).await?, batch.wanted());
                let End::Done(manifest, made) = end else { continue 'select };
                own.insert(manifest.epoch);
                on_done(&batch, &made);
                progress.done += batch_rows;
            }
            (redrive.on_progress)(progress);
        }
        return Ok(());
    }
    Err(RedriveError::Contended(SELECTIONS_MAX))
}

/// The next objects that have something that is wanted, and how many lines were passed that are not.
async fn next_batch(
    lake: &dyn ObjectStore,
    objects: &mut VecDeque<ErrorObject>,
    redrive: &Redrive<'_>,
    has_nothing: &mut HashSet<ObjectKey>,
) -> Result<(Batch, u64), RedriveError> {
    let (mut batch, mut passed) = (Batch::default(), 0);
    while !objects.is_empty() && !batch.is_full(redrive.batch_bytes) {
        // Not more than fit, so that few are counted in vain.
        let mut some: Vec<ErrorObject> = Vec::new();
        while let Some(next) = objects.front() {
            let bytes = batch.bytes() + some.iter().map(|object| object.bytes).sum::<u64>();
            let is_first = some.is_empty();
            if some.len() >= COUNTED_AT_ONCE || (!is_first && bytes + next.bytes > redrive.batch_bytes) {
                break;
            }
            some.extend(objects.pop_front());
        }
        for counted in count_all(lake, some, &redrive.filter).await? {
            passed += counted.others;
            if counted.wanted == 0 {
                has_nothing.insert(counted.object.key);
            } else {
                batch.counted.push(counted);
            }
        }
        if redrive.stop.is_cancelled() {
            return Err(RedriveError::Stopped);
        }
    }
    Ok((batch, passed))
}

/// Processes a batch, and replaces its objects.
async fn one_batch(
    redrive: &mut Redrive<'_>,
    aside: Option<&dyn RunAside>,
    batch: &Batch,
    number: u64,
) -> Result<End, RedriveError> {
    let Some(aside) = aside else {
        let of = format!("discard:{}", redrive.id);
        let manifest = replace(redrive, batch, None, of).await?;
        return Ok(manifest.map_or(End::Changed, |manifest| End::Done(Box::new(manifest), Made::default())));
    };
    let prefix = layout::redrive_lake(redrive.operator.me().as_str(), number);
    let inside = InsideLake::new(Arc::clone(&redrive.stores.lake), &prefix);
    let result = process(redrive, aside, batch, &inside).await;
    if let Err(error) = delete_all(&*redrive.stores.lake, &prefix).await {
        tracing::debug!(%error, "failed to remove what a batch made aside; a sweep does it");
    }
    result
}

async fn process(
    redrive: &mut Redrive<'_>,
    aside: &dyn RunAside,
    batch: &Batch,
    inside: &InsideLake,
) -> Result<End, RedriveError> {
    let objects = batch.counted.iter().map(|counted| (counted.object.key.clone(), counted.object.bytes)).collect();
    let lake = Arc::clone(&redrive.stores.lake);
    let work =
        AsideBatch { lake: Arc::clone(&lake), objects, filter: &redrive.filter, aside: Arc::new(inside.clone()) };
    let wanted = batch.wanted();
    let processing = async {
        aside.run(work).await?;
        if redrive.stop.is_cancelled() {
            return Err(RedriveError::Stopped);
        }
        let made = Made::read(inside).await?;
        match made.records {
            records if records < wanted => Err(RedriveError::Incomplete { taken: wanted, made: records }),
            _ => Ok(made),
        }
    };
    let made = match processing.await {
        Ok(made) => made,
        Err(RedriveError::Stopped) => return Err(RedriveError::Stopped),
        Err(error) => {
            // Another operation may have removed an object while it was read, or another redrive what was aside of one that slept.
            let live: BTreeSet<ObjectKey> =
                live_error_objects(&*lake, &redrive.filter).await?.into_iter().map(|object| object.key).collect();
            let is_live = |counted: &Counted| live.contains(&counted.object.key);
            return if batch.counted.iter().all(is_live) { Err(error) } else { Ok(End::Changed) };
        }
    };
    let datasets: Vec<&str> = made.rows.keys().map(String::as_str).collect();
    aside.claim(&*lake, &datasets).await?;
    let of = format!("redrive:{}", redrive.id);
    let manifest = replace(redrive, batch, Some((&made, inside)), of).await?;
    Ok(manifest.map_or(End::Changed, |manifest| End::Done(Box::new(manifest), made)))
}

/// Runs the operation of a batch, and waits for others that work on the same parts; `None` if an object is not live any more.
async fn replace(
    redrive: &mut Redrive<'_>,
    batch: &Batch,
    made: Option<(&Made, &InsideLake)>,
    of: String,
) -> Result<Option<Manifest>, RedriveError> {
    let parts = made.map_or_else(|| Made::default().parts(), |(made, _)| made.parts());
    let has_changed = AtomicBool::new(false);
    let work = Replacement { batch: &batch.counted, filter: &redrive.filter, made, of, has_changed };
    let mut busy = 0;
    loop {
        match redrive.operator.run(ManifestKind::Replace, &parts, &work).await {
            Ok(manifest) => return Ok(manifest),
            Err(_) if work.has_changed.load(Ordering::Relaxed) => return Ok(None),
            Err(OperationError::Busy { part, holder }) if busy < BUSY_MAX && !redrive.stop.is_cancelled() => {
                busy += 1;
                tracing::info!(part, %holder, "another operation works on this part of the lake; waiting");
                tokio::time::sleep(BUSY_WAIT).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
