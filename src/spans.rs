//! The spans of traces: one for each read, epoch and step of a commit.
//!
//! Owns: the target by which they are known. Nobody listens to it unless traces are pushed (`telemetry::traces`), and a span that nobody
//! listens to costs one comparison. Does not own: pushing them, the log, which does not show them.

/// The target of all spans.
pub const TARGET: &str = "shardlake::spans";
