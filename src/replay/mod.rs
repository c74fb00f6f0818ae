//! Replays: a part of the past is processed again, beside the lake's live data, and then replaces it.
//!
//! Owns: what a replay is, from its plan to its end. Does not own: what a worker does (`worker`), the steps of a commit (`commit`),
//! opening what the configuration names (`setup`).
//!
//! A replay is an ordinary run of the ordinary worker, into a lake of its own inside the lake (`lake::InsideLake`). Its source
//! (`source::replay`) reads parts of the past again. So several workers, recovery and exactly once are the worker's own.
//!
//! | file | owns |
//! |---|---|
//! | `plan` | the plan, as it is stored; names |
//! | `planning` | making a plan |
//! | `control` | pausing, resuming, cancelling |
//! | `run` | running the workers until every slice has ended |
//! | `throttle` | giving way to the live workers |
//! | `progress` | how far it is |
//! | `status` | which state it is in |
//! | `end` | removing what is left of it |
//! | `promote` | promoting, undoing and purging a replay |

use std::sync::Arc;

use crate::lake::{InsideLake, ObjectStore};

pub mod control;
pub mod end;
pub mod plan;
pub mod planning;
pub mod progress;
pub mod promote;
pub mod run;
pub mod status;
pub mod throttle;

pub use plan::{
    Estimate, Plan, PlanError, Purpose, ReplayId, SavedPlan, Slice, SliceOf, SupersededObject, Totals, Widened,
    WidenedBecause, find_plan, is_complete, list_plans, read_plan, save_plan,
};

/// The lake that a replay writes, inside the lake.
pub fn replay_lake_of(lake: &Arc<dyn ObjectStore>, plan: &Plan) -> InsideLake {
    InsideLake::new(Arc::clone(lake), &plan.aside_prefix())
}
