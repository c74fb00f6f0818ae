//! Where records come from: shards of a stream, each read from a position on.
//!
//! Owns: the trait between the worker and the world's streams. Does not own: who reads which shard, or what is done with
//! what was read.
//!
//! What a source promises:
//!
//! 1. Reading a shard again from the same position gives the same records with the same sequence numbers.
//! 2. A chunk's records lie behind the position before it, up to and including the chunk's own; the position moves over
//!    everything that was read, also over what holds no record.
//! 3. A shard that has come to its end stays so.

mod files;
mod kinesis;

use std::time::Duration;

use async_trait::async_trait;
use checkpoints::{HashRange, Position, ShardId, StreamName};
use pipeline::chunk::Chunk;

use crate::retry::RetryPolicy;

pub use files::{FileSource, FilesConfig};
#[cfg(feature = "fuzzing")]
pub(crate) use kinesis::fuzzing;
pub use kinesis::{Decode, KinesisConfig, KinesisSource, Limits, Mode, Start};

/// One shard of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceShard {
    /// Its id.
    pub id: ShardId,
    /// The shards that it came from: they are read to their ends first.
    pub parents: Vec<ShardId>,
    /// Where reading starts, if nobody has read it yet.
    pub first: Position,
    /// The hash keys that the stream sends here, where it has such a thing.
    pub hash_range: Option<HashRange>,
}

impl SourceShard {
    /// A shard that stands alone and is read from its beginning.
    pub fn alone(id: ShardId) -> Self {
        SourceShard { id, parents: Vec::new(), first: Position::Beginning, hash_range: None }
    }
}

/// What one read returned.
#[derive(Debug)]
pub enum Read {
    /// Records, perhaps none of them good, perhaps none at all.
    Chunk {
        /// The bytes.
        chunk: Chunk,
        /// Where the shard has been read to.
        through: Position,
        /// Bytes of the source that were used up, compressed as they are there; for progress.
        source_bytes: u64,
    },
    /// There is nothing new for now.
    AtTip,
    /// The shard has come to its end.
    End {
        /// The shards that it became.
        children: Vec<ShardId>,
    },
}

/// How much of a shard lies behind a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Nothing: the shard is read to its tip or its end.
    Nothing,
    /// So many bytes, as they are in the source.
    Bytes(u64),
    /// Something; the source can't tell how much, but for the time between its first record and now, in milliseconds.
    Time(u64),
}

/// A source that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It may work later.
    #[error("could not read {place}: {problem}")]
    Unavailable {
        /// Stream or shard.
        place: String,
        /// What happened.
        problem: String,
    },
    /// It will not work until somebody does something.
    #[error("can't read {place}: {problem}")]
    Unreadable {
        /// Stream or shard.
        place: String,
        /// What is wrong and, where there is something, what to do.
        problem: String,
    },
}

impl crate::retry::Retryable for SourceError {
    fn is_retryable(&self) -> bool {
        matches!(self, SourceError::Unavailable { .. })
    }
}

/// A stream that is read shard by shard.
#[async_trait]
pub trait ShardSource: Send + Sync + 'static {
    /// The stream's name in the lake.
    fn stream(&self) -> &StreamName;

    /// How long a shard that fails is tried again before it is given up.
    fn retry(&self) -> RetryPolicy {
        RetryPolicy::default()
    }

    /// How often its shards are listed, beside whenever one has ended.
    fn lists_every(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// The shards that there are now.
    async fn shards(&self) -> Result<Vec<SourceShard>, SourceError>;

    /// Opens a shard behind a position.
    async fn open(&self, shard: &ShardId, after: &Position) -> Result<Box<dyn ShardReader>, SourceError>;

    /// How much of a shard lies behind a position now.
    async fn behind(&self, shard: &ShardId, position: &Position) -> Result<Behind, SourceError>;
}

/// A shard that is being read.
#[async_trait]
pub trait ShardReader: Send {
    /// Waits until a read makes sense: for `idle`, which grows while the shard is at its tip and else is zero; longer where
    /// the source allows only so many reads a second; shorter where it knows of something new. No memory is held
    /// meanwhile. May be dropped while it waits, without loss.
    async fn ready(&mut self, idle: Duration) {
        tokio::time::sleep(idle).await;
    }

    /// Reads on: about `bytes` of records at most, into `buffer`, which is empty and may be used or not. May be dropped
    /// while it waits; then what it would have returned is lost, and the shard must be opened again.
    async fn read(&mut self, bytes: usize, buffer: Vec<u8>) -> Result<Read, SourceError>;
}
