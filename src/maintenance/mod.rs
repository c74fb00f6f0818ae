//! Operations on a lake beside the workers: each removes or rewrites what no reader needs.

mod sweep;

pub use sweep::{Swept, sweep};
