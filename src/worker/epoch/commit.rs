//! The commit of a staged epoch: intent, decision, publication, entry in the lake log, advance.
//!
//! Owns: the order of the steps for an epoch of this worker, and what each outcome is called. Does not own: the steps
//! themselves (`crate::commit`), staging (`open`), what an outcome means for the shards (the coordinator).

use checkpoints::ManifestName;
use mutations::mutated;
use pipeline::dataset::Datasets;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::commit::{Manifest, Outcome, Staged, Stores, abort_uploads, epoch_of};
use crate::lake::DefinitionClaims;
use crate::spans;
use crate::worker::WorkerError;
use crate::worker::progress::{CommitStep, Progress};

/// What became of an epoch.
#[derive(Debug)]
pub(crate) enum EpochEnd {
    /// Nothing was read.
    Empty,
    /// Everything is visible, and all checkpoints have moved.
    Committed(Box<Manifest>),
    /// The lease store refused the decision. The epoch never happens, and its uploads are aborted.
    Refused,
    /// The epoch is decided, but one of its uploads is gone. Somebody else is finishing it, or it must be rolled back.
    Unpublished(ManifestName),
}

/// The span of a step, below the current span.
pub(crate) fn span_of(step: CommitStep) -> Span {
    tracing::info_span!(target: spans::TARGET, "commit step", otel.name = step.as_str())
}

/// Commits a staged epoch. Before its rows can become visible, `definitions` claims what they were made with.
///
/// # Errors
/// A store failed. Before the decision the epoch never happens. After it, the next holder of any of its shards finishes it.
/// Or a definition does not fit what the lake has; then the epoch never happens.
pub(crate) async fn commit_epoch(
    stores: &Stores,
    definitions: Option<(&DefinitionClaims, &Datasets)>,
    manifest: Manifest,
    progress: &Progress,
) -> Result<EpochEnd, WorkerError> {
    let mut begun = Instant::now();
    let mut on_step = |step| {
        progress.on_commit_step(step, begun.elapsed());
        begun = Instant::now();
    };
    let has_no_rows = manifest.totals.rows.is_empty();
    if manifest.shards.is_empty() || (has_no_rows && mutated!(SkipEpochsWithoutRows)) {
        return Ok(EpochEnd::Empty);
    }
    if let Some((claims, datasets)) = definitions {
        let names = manifest.totals.rows.keys().map(String::as_str);
        if let Err(error) = claims.claim(&*stores.lake, datasets, names).await {
            abort_uploads(stores, manifest).await;
            return Err(error.into());
        }
    }
    let intended = match Staged::new(manifest).write_intent(stores).instrument(span_of(CommitStep::Intent)).await {
        Ok(intended) => intended,
        Err((manifest, error)) => {
            abort_uploads(stores, manifest).await;
            return Err(error.into());
        }
    };
    on_step(CommitStep::Intent);
    let outcome = intended.decide(stores).instrument(span_of(CommitStep::Decide)).await?;
    on_step(CommitStep::Decide);
    let decided = match outcome {
        Outcome::Decided(decided) => decided,
        Outcome::Refused(manifest, refusals) => {
            let reasons: Vec<String> = refusals.iter().map(ToString::to_string).collect();
            let reasons = reasons.join("; ");
            tracing::warn!(epoch = %manifest.epoch, reasons, "epoch was refused; reading its shards again");
            return Ok(EpochEnd::Refused);
        }
    };
    let committed = match decided.publish(stores).instrument(span_of(CommitStep::Publish)).await? {
        Ok(published) => {
            on_step(CommitStep::Publish);
            let entered = published.enter(stores).instrument(span_of(CommitStep::Enter)).await?;
            on_step(CommitStep::Enter);
            let committed = entered.advance(stores).instrument(span_of(CommitStep::Advance)).await?.0;
            on_step(CommitStep::Advance);
            committed
        }
        Err((decided, lost)) => {
            let name = decided.into_manifest().epoch.manifest_name();
            tracing::warn!(epoch = epoch_of(&name), missing = %lost.0, "a staged upload is gone; recovering the epoch");
            return Ok(EpochEnd::Unpublished(name));
        }
    };
    tracing::info!(
        epoch = %committed.epoch,
        records = committed.totals.records,
        dead_letters = committed.totals.dead_letters.values().sum::<u64>(),
        objects = committed.objects.len(),
        "committed"
    );
    Ok(EpochEnd::Committed(Box::new(committed)))
}
