//! Cancelling a replay, which rules out that it is promoted: what it has made may be removed afterwards.

use async_trait::async_trait;

use crate::clock::Clock;
use crate::commit::{ManifestKind, Stores};
use crate::lake::ObjectStore;
use crate::maintenance::operation::{self, OperationError, Operator, Work, finish_pending};
use crate::replay::control::{Control, ask};
use crate::replay::plan::Plan;
use crate::replay::promote::fate::{Fate, fate_of, write_marker};
use crate::replay::promote::{Aside, PromoteError, Refusal, parts_of};

/// Asks the workers of a replay to end and never to read again, and makes sure that no promotion of it was decided, and that none will be.
///
/// A promotion reads what was asked under the leases of its parts. So one that begins after this request is refused. One that began before
/// it holds the leases, or has finished; or it has died or slept, and then whoever takes its leases finishes what it decided, and nothing
/// else of it can be decided.
///
/// # Errors
/// It was promoted, a promotion is running, or the stores fail. Then nothing may be removed. The same call may be repeated.
pub async fn cancel(
    operator: &mut Operator,
    stores: &Stores,
    clock: &dyn Clock,
    plan: &Plan,
    aside: Aside<'_>,
) -> Result<(), PromoteError> {
    let lake = &*stores.lake;
    finish_pending(stores).await.map_err(OperationError::from)?;
    refuse_promoted(lake, clock, plan).await?;
    ask(lake, &plan.id, Control::Cancel, clock.now_ms()).await?;
    let parts = parts_of(plan, aside.lake).await?;
    // With more parts than that, it cannot be promoted either.
    if parts.len() <= stores.leases.decision_shards_max() {
        operator.run(ManifestKind::Replace, &parts, &Nothing).await?;
    }
    refuse_promoted(lake, clock, plan).await
}

async fn refuse_promoted(lake: &dyn ObjectStore, clock: &dyn Clock, plan: &Plan) -> Result<(), PromoteError> {
    match fate_of(lake, plan).await? {
        Fate { promoted: Some((operation, version)), undone: None, .. } => {
            write_marker(lake, clock, &plan.id, "promoted", Some((operation, version))).await?;
            Err(Refusal::Promoted(plan.id.clone()).into())
        }
        Fate { .. } => Ok(()),
    }
}

/// An operation that only takes its leases, and so finishes what is pending under them.
struct Nothing;

#[async_trait]
impl Work for Nothing {
    async fn plan(&self, _: &Stores, _: &mut operation::Plan) -> Result<(), OperationError> {
        Ok(())
    }
}
