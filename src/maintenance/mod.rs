//! Operations on a lake and its lease table beside the workers.
//!
//! Each removes what no reader needs, frees what a worker holds, makes lost rows again, or replaces objects of the lake. Only the last two
//! may change what a reader of the lake sees: making rows again finishes or undoes an epoch that was left half-way. A lake of the
//! format before is migrated before anybody reads it.

pub mod leases;
mod migrate;
pub mod operation;
pub mod purge;
mod rebuild;
mod sweep;
mod trim;
pub mod undo;

pub use migrate::{MigrateError, migrate};
pub use rebuild::{Rebuilt, rebuild};
pub use sweep::{Swept, sweep};
pub use trim::{TRIM_AGE, TrimPlan, trim, trim_what_snapshots_have};
