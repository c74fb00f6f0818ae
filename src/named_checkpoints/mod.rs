//! Saving the positions of all shards under a name, on request and by a schedule, and how long they can be used.
//!
//! Owns: what is put into a checkpoint, when a worker saves one, and until when its records are in their streams. Does not own: the
//! stored form and which positions belong together (`commit::named_checkpoint`), printing (`cli`), what a replay does with one.
//!
//! | file | owns |
//! |---|---|
//! | `take` | the contents of a checkpoint |
//! | `expiry` | until when a checkpoint can be used |
//! | `schedule` | saving beside a worker: one checkpoint an interval in a whole fleet, and the removal of old ones |

mod expiry;
mod schedule;
mod take;

#[cfg(test)]
mod tests;

pub use expiry::{EndingCheckpoint, Retentions, Usability, Usable, ending_checkpoints};
pub use schedule::ScheduledCheckpoints;
pub use take::take;
