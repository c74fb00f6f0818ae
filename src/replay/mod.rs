//! Replays: a part of the past is processed again, beside the lake's live data, and then replaces it.
//!
//! Owns: what a replay is, from its plan to its end. Does not own: running a worker (`worker`), the steps of a commit (`commit`), opening
//! what the configuration names (`setup`).
//!
//! A replay is an ordinary run of the ordinary worker, into a lake of its own inside the lake (`lake::InsideLake`). Its source
//! (`source::replay`) reads parts of the past again. So several workers, recovery and exactly once are the worker's own.
//!
//! | file | owns |
//! |---|---|
//! | `plan` | the plan, as it is stored; names |

pub mod plan;

pub use plan::{
    Estimate, Plan, PlanError, Purpose, ReplayId, SavedPlan, Slice, SliceOf, SupersededObject, Totals, Widened,
    WidenedBecause, find_plan, is_complete, list_plans, read_plan, save_plan,
};
