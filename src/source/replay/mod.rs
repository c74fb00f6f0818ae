//! A part of the past as a stream: what a replay reads.
//!
//! Owns: a stream whose shards are the slices of a plan, and how each kind of slice is opened. Does not own: which slices there are
//! (`replay::planning`), how fast they may be read (`pace` holds the rate, `replay` decides it).
//!
//! The leases are of the replay's own stream. The records are those of the streams that were read first: chunks name these streams and
//! shards, and the records have their first sequence numbers. So a row that is made again has the identity of the first one.
//!
//! | file | reads |
//! |---|---|
//! | `stream_slice` | a range of a shard of a configured stream |
//! | `dead_letters` | dead letters of the lake |
//! | `raw_slice` | raw objects of the lake, whose lines carry the identities of their records |

pub mod dead_letters;
mod identities;
mod pace;
pub mod raw_slice;
mod stream_slice;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::{Position, ShardId, StreamName};
use futures::future::select_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::lake::ObjectStore;
use crate::replay::control::{Wanted, wanted};
use crate::replay::{Plan, ReplayId, Slice, SliceOf};
use crate::retry::RetryPolicy;
use crate::source::{Behind, Read, ShardReader, ShardSource, SourceError, SourceShard};

pub use identities::RawIdentities;
pub use pace::Pace;

use raw_slice::RawSliceReader;
use stream_slice::StreamSlice;

/// How often the list of slices is confirmed, and with it that the replay was not cancelled.
const LISTS_EVERY: Duration = Duration::from_secs(10);
/// Slices of objects that one worker reads at once: each keeps decompressed text in memory.
const OBJECT_SLICES_MAX: usize = 8;

/// The slices of a plan as the shards of a stream.
pub struct ReplaySource {
    id: ReplayId,
    stream: StreamName,
    slices: BTreeMap<ShardId, Slice>,
    /// The streams of the records.
    origins: Vec<StreamName>,
    /// The streams that slices read, by name.
    streams: BTreeMap<StreamName, Arc<dyn ShardSource>>,
    /// The lake that has the replay, and the objects that are read again.
    lake: Arc<dyn ObjectStore>,
    pace: Arc<Pace>,
    object_slices: Arc<Semaphore>,
    retry: RetryPolicy,
    /// Bytes that a record may have.
    record_bytes_max: usize,
    /// Every slice ends at once, without a record.
    is_ending: bool,
}

impl ReplaySource {
    /// The slices of a plan. `streams`: the configured streams, of which those are kept that a slice reads. `lake`: where the objects of slices are. Trouble of a slice is waited
    /// for, for `retry_within`. `record_bytes_max`: bytes that a record may have.
    pub fn new(
        plan: &Plan,
        streams: Vec<Arc<dyn ShardSource>>,
        lake: Arc<dyn ObjectStore>,
        pace: Arc<Pace>,
        retry_within: Duration,
        record_bytes_max: usize,
    ) -> Self {
        let is_read = |source: &Arc<dyn ShardSource>| plan.reads_stream(source.stream());
        let streams = streams.into_iter().filter(is_read).map(|source| (source.stream().clone(), source));
        ReplaySource {
            id: plan.id.clone(),
            stream: plan.id.stream(),
            slices: plan.slices.iter().map(|slice| (slice.id.clone(), slice.clone())).collect(),
            origins: plan.streams.clone(),
            streams: streams.collect(),
            lake,
            pace,
            object_slices: Arc::new(Semaphore::new(OBJECT_SLICES_MAX)),
            retry: RetryPolicy::shard(retry_within),
            record_bytes_max,
            is_ending: false,
        }
    }

    /// The same slices, each of which ends at once. A worker that reads them takes all leases, finishes what is pending, and leaves
    /// nothing that a worker that has slept could still commit.
    pub fn ending(plan: &Plan, lake: Arc<dyn ObjectStore>) -> Self {
        let source = ReplaySource::new(plan, Vec::new(), lake, Arc::new(Pace::default()), Duration::ZERO, 0);
        ReplaySource { is_ending: true, ..source }
    }

    fn unreadable(&self, slice: &ShardId, problem: impl Into<String>) -> SourceError {
        SourceError::Unreadable { place: format!("{slice} of replay {}", self.id), problem: problem.into() }
    }

    async fn open_slice(&self, slice: &Slice, after: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        match &slice.from {
            SliceOf::Stream { stream, shard, after: begin, through } => {
                let Some(source) = self.streams.get(stream) else {
                    return Err(
                        self.unreadable(&slice.id, format!("it reads stream {stream}, which is not configured"))
                    );
                };
                let from = if after.is_start() { begin } else { after };
                let inner = source.open(shard, from).await?;
                let place = format!("shard {shard} of stream {stream}");
                Ok(Box::new(StreamSlice::new(inner, place, from.clone(), through.clone())))
            }
            SliceOf::Raw { objects } => {
                let (lake, id) = (Arc::clone(&self.lake), slice.id.clone());
                Ok(Box::new(RawSliceReader::open(lake, id, objects.clone(), after, self.record_bytes_max)?))
            }
        }
    }
}

#[async_trait]
impl ShardSource for ReplaySource {
    fn stream(&self) -> &StreamName {
        &self.stream
    }

    fn origins(&self) -> Vec<StreamName> {
        self.origins.clone()
    }

    fn retry(&self) -> RetryPolicy {
        self.retry
    }

    fn lists_every(&self) -> Duration {
        LISTS_EVERY
    }

    async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
        Ok(self.slices.keys().cloned().map(SourceShard::alone).collect())
    }

    async fn open(&self, shard: &ShardId, after: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        let slice = self.slices.get(shard).ok_or_else(|| self.unreadable(shard, "the plan has no such slice"))?;
        if *after == Position::End || self.is_ending {
            return Ok(Box::new(EndedSlice));
        }
        let permit = match &slice.from {
            SliceOf::Stream { .. } => None,
            SliceOf::Raw { .. } => {
                let permit = Arc::clone(&self.object_slices).acquire_owned().await;
                Some(permit.map_err(|error| self.unreadable(shard, error.to_string()))?)
            }
        };
        let inner = self.open_slice(slice, after).await?;
        Ok(Box::new(PacedReader { inner, pace: Arc::clone(&self.pace), reserved: 0, _permit: permit }))
    }

    async fn behind(&self, shard: &ShardId, position: &Position) -> Result<Behind, SourceError> {
        let bytes = self.slices.get(shard).map_or(1, |slice| slice.bytes.max(1));
        Ok(if *position == Position::End { Behind::Nothing } else { Behind::Bytes(bytes) })
    }

    /// Rows are created only while nobody has cancelled the replay. Somebody who cancels it removes the rows.
    async fn is_same(&self) -> Result<(), SourceError> {
        match wanted(&*self.lake, &self.id).await {
            Ok(Wanted::Cancelled) if !self.is_ending => {
                let place = format!("replay {}", self.id);
                Err(SourceError::Unreadable { place, problem: "it was cancelled".to_owned() })
            }
            Ok(_) => Ok(()),
            Err(error) => {
                let place = format!("replay {}", self.id);
                Err(SourceError::Unavailable { place, problem: error.to_string() })
            }
        }
    }

    async fn may_commit(&self) -> Result<(), SourceError> {
        for source in self.streams.values() {
            source.may_commit().await?;
        }
        Ok(())
    }

    async fn replaced(&self) -> SourceError {
        let waits: Vec<_> = self.streams.values().map(|source| source.replaced()).collect();
        if waits.is_empty() { std::future::pending().await } else { select_all(waits).await.0 }
    }
}

/// The reader of a slice that has nothing more.
struct EndedSlice;

#[async_trait]
impl ShardReader for EndedSlice {
    async fn read(&mut self, _: usize, _: Vec<u8>) -> Result<Read, SourceError> {
        Ok(Read::End { children: Vec::new() })
    }
}

/// A reader that waits for the rate of the replay.
struct PacedReader {
    inner: Box<dyn ShardReader>,
    pace: Arc<Pace>,
    /// Bytes that were reserved for the next read.
    reserved: u64,
    _permit: Option<OwnedSemaphorePermit>,
}

#[async_trait]
impl ShardReader for PacedReader {
    async fn ready(&mut self, idle: Duration) {
        self.inner.ready(idle).await;
        self.reserved = self.pace.admitted().await;
    }

    async fn read(&mut self, bytes: usize, buffer: Vec<u8>) -> Result<Read, SourceError> {
        let reserved = std::mem::take(&mut self.reserved);
        let read = self.inner.read(self.pace.piece(bytes), buffer).await;
        let bytes = match &read {
            Ok(Read::Chunk { chunk, .. }) => chunk.bytes().len() as u64,
            _ => 0,
        };
        self.pace.settle(reserved, bytes);
        read
    }

    fn behind(&self) -> Option<Behind> {
        self.inner.behind()
    }
}
