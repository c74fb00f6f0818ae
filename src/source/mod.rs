//! Where records come from: shards of a stream, each read from a position.
//!
//! Owns: the trait between the worker and streams outside, and the kinds of sources (`backends`). Does not own: who reads which
//! shard, or what is done with its records.
//!
//! What a source promises:
//!
//! 1. Reading a shard again from the same position returns the same records with the same sequence numbers.
//! 2. A chunk's records come after the position before it, up to and including the chunk's own position. The position moves over
//!    everything that was read, including what contains no record.
//! 3. A shard that has ended stays ended.

pub mod backend;
pub mod backends;
mod files;
mod kinesis;
pub mod losses;
pub mod objects;
pub mod replay;
mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::{HashRange, Position, ShardId, StreamName};
use pipeline::chunk::Chunk;

use crate::retry::RetryPolicy;

pub(crate) use files::names_sentence;
pub use files::{Arrival, FileSource, FilesConfig};
#[cfg(feature = "fuzzing")]
pub(crate) use kinesis::fuzzing;
pub use kinesis::{Decode, KinesisConfig, KinesisSource, Limits, Mode, Start};
pub use text::complete::TextConfig;
pub(crate) use text::raw_lines::each_raw_line;

/// One shard of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceShard {
    /// Its id.
    pub id: ShardId,
    /// The shards that it came from. They are read to their ends first.
    pub parents: Vec<ShardId>,
    /// Where reading starts if no worker has read it yet.
    pub first: Position,
    /// The range of hash keys that the stream puts here, if it has hash keys.
    pub hash_range: Option<HashRange>,
}

impl SourceShard {
    /// A shard without parents that is read from its beginning.
    pub fn alone(id: ShardId) -> Self {
        SourceShard { id, parents: Vec::new(), first: Position::Beginning, hash_range: None }
    }
}

/// What one read returned.
#[derive(Debug)]
pub enum Read {
    /// Records; perhaps none of them is valid, perhaps there is none.
    Chunk {
        /// The bytes.
        chunk: Chunk,
        /// The position up to which the shard was read.
        through: Position,
        /// Bytes of the source that were consumed, as the source has them (perhaps compressed), for the progress bar.
        source_bytes: u64,
    },
    /// No records this time, although there may be more before the tip. `moved`: the next read begins later in the shard than any
    /// read before it.
    Empty {
        /// Whether the shard was read further.
        moved: bool,
    },
    /// The read failed, and may succeed later. The reader keeps its place and may be asked again; it waits for as long as makes sense
    /// in [`ShardReader::ready`]. This is not progress, however often it is returned.
    Failed {
        /// What happened.
        error: SourceError,
        /// Whether this is normal for a moment, such as throttling.
        is_normal: bool,
    },
    /// There is nothing new at the moment.
    AtTip,
    /// The shard has ended.
    End {
        /// The shards that follow it.
        children: Vec<ShardId>,
    },
}

/// How much of a shard comes after a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Nothing: the position is the shard's tip or end.
    Nothing,
    /// This many bytes, as the source has them.
    Bytes(u64),
    /// An unknown number of bytes. The first record is this many milliseconds old.
    Time(u64),
}

/// What a source has that was not read, besides what will be read next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceReport {
    /// The number of files that are not read because of their names, by ending.
    pub names_not_read: BTreeMap<String, u64>,
    /// A sentence for each file that was not read to its end, because it is not complete.
    pub unread: Vec<String>,
    /// What is wrong with the source, a sentence for each.
    pub problems: Vec<String>,
}

/// A source that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It may work later.
    #[error("failed to read {place}: {problem}")]
    Unavailable {
        /// Stream or shard.
        place: String,
        /// What happened.
        problem: String,
    },
    /// It will not work until somebody acts.
    #[error("cannot read {place}: {problem}")]
    Unreadable {
        /// Stream or shard.
        place: String,
        /// What is wrong and, if known, what to do.
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

    /// The streams whose records it gives: its own, unless it reads records of others again. Each is a source of the stage graph.
    fn origins(&self) -> Vec<StreamName> {
        vec![self.stream().clone()]
    }

    /// How long a shard may fail without progress before the worker stops reading it and releases its lease.
    fn retry(&self) -> RetryPolicy {
        RetryPolicy::CALL
    }

    /// How often its shards are listed. They are also listed whenever one has ended.
    fn lists_every(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// The shards that exist now.
    async fn shards(&self) -> Result<Vec<SourceShard>, SourceError>;

    /// Opens a shard after a position.
    async fn open(&self, shard: &ShardId, after: &Position) -> Result<Box<dyn ShardReader>, SourceError>;

    /// How much of a shard comes after a position now. If the source was opened to be read up to the present, that is the present
    /// at its opening, and its readers report the tip once they have passed it.
    async fn behind(&self, shard: &ShardId, position: &Position) -> Result<Behind, SourceError>;

    /// How long the stream keeps a record after its arrival; `None` if it does not remove records by their age.
    ///
    /// # Errors
    /// The stream cannot be asked, or it is another one than was opened.
    async fn retention(&self) -> Result<Option<Duration>, SourceError> {
        Ok(None)
    }

    /// Checks that the stream is the one that was opened, so that what it returned before this call is of that one.
    ///
    /// # Errors
    /// It is another one, or gone, or cannot be asked.
    async fn is_same(&self) -> Result<(), SourceError> {
        Ok(())
    }

    /// Checks that what its readers returned before this call may be committed: all of it is of the stream that was opened.
    ///
    /// # Errors
    /// It may be of another one, or the stream cannot be asked.
    async fn may_commit(&self) -> Result<(), SourceError> {
        Ok(())
    }

    /// Waits until the stream is found to be another one than was opened. The error says so. May be dropped while it waits.
    async fn replaced(&self) -> SourceError {
        std::future::pending().await
    }

    /// What is not read of it, so far.
    fn report(&self) -> SourceReport {
        SourceReport::default()
    }
}

/// A shard that is being read.
#[async_trait]
pub trait ShardReader: Send {
    /// Waits until a read makes sense. That is for `idle`, which is zero unless the shard is at its tip, where it grows. It waits
    /// longer if the source limits the rate of reads, and less if it knows of something new. It holds no memory, and may be dropped
    /// while it waits, without loss.
    async fn ready(&mut self, idle: Duration) {
        tokio::time::sleep(idle).await;
    }

    /// Reads the next records: at most about `bytes`, into `buffer`, which is empty and need not be used. If it is dropped while it
    /// waits, what it would have returned is lost, and the shard must be opened again.
    async fn read(&mut self, bytes: usize, buffer: Vec<u8>) -> Result<Read, SourceError>;

    /// After a read that returned [`Read::AtTip`]: every record of the shard that arrived before this time was returned by a read.
    /// Milliseconds since 1970, by the service's clock. `None` if the service does not say.
    fn tip_as_of_ms(&self) -> Option<i64> {
        None
    }

    /// How much of the shard followed what the last read returned, as the source said with it. Only for whoever watches. `None` if the
    /// source does not say.
    fn behind(&self) -> Option<Behind> {
        None
    }
}
