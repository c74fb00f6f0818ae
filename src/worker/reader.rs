//! One task for each shard that is read: it reads chunks and sends them to the coordinator.
//!
//! Owns: the shard's reader, retries, waiting at the tip, and taking from the memory budget before it reads. Does not own:
//! the position that counts. That is the coordinator's, and in the end the lease's checkpoint. If the task is dropped, the
//! next one reads again what this one had read.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use checkpoints::{Position, ShardId, ShardKey};
use futures::FutureExt;
use pipeline::chunk::Chunk;
use tokio::sync::mpsc;

use crate::retry::RetryPolicy;
use crate::source::{Read, ShardSource, SourceError};
use crate::worker::memory_plan::{ByteBudget, TakenBytes};

/// Shortest and longest wait between two reads at a shard's tip.
const IDLE_MIN: Duration = Duration::from_millis(20);
const IDLE_MAX: Duration = Duration::from_secs(1);
/// Empty buffers that are kept to be filled again.
const BUFFERS_MAX: usize = 8;

/// A reader's task. Every task that is started has an id of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ReaderId(pub(super) u64);

/// Empty chunk buffers, shared by all readers.
#[derive(Debug, Clone, Default)]
pub(super) struct BufferPool(Arc<Mutex<Vec<Vec<u8>>>>);

impl BufferPool {
    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Returns an empty buffer.
    pub(super) fn put_back(&self, buffer: Vec<u8>) {
        let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < BUFFERS_MAX {
            buffers.push(buffer);
        }
    }
}

/// What a reader sends to the coordinator.
#[derive(Debug)]
pub(super) struct ReaderEvent {
    pub(super) reader: ReaderId,
    pub(super) key: ShardKey,
    pub(super) kind: ReaderEventKind,
}

#[derive(Debug)]
pub(super) enum ReaderEventKind {
    /// Records were read, or the position moved over something that holds none.
    Chunk(ReadChunk),
    /// There is nothing new for now.
    AtTip,
    /// The shard has ended, and these are its children. The task ends.
    End { children: Vec<ShardId> },
    /// The shard cannot be read. The task ends.
    Failed(SourceError),
}

/// A chunk and where it ends.
#[derive(Debug)]
pub(super) struct ReadChunk {
    pub(super) chunk: Chunk,
    pub(super) through: Position,
    /// Bytes of the source, compressed as they are there.
    pub(super) source_bytes: u64,
    /// Held until the chunk's rows are in columns.
    pub(super) memory: TakenBytes,
}

/// All that a reader's task needs.
pub(super) struct ReaderTask {
    pub(super) id: ReaderId,
    pub(super) key: ShardKey,
    pub(super) source: Arc<dyn ShardSource>,
    /// Where reading starts.
    pub(super) after: Position,
    pub(super) chunk_bytes: usize,
    pub(super) budget: ByteBudget,
    pub(super) buffers: BufferPool,
    pub(super) retry: RetryPolicy,
    pub(super) coordinator: mpsc::Sender<ReaderEvent>,
}

impl ReaderTask {
    /// Reads until the shard ends, fails permanently, or the coordinator is gone.
    pub(super) async fn run(self) {
        let failure = match AssertUnwindSafe(self.read()).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            // A panic is a failure like any other. Without the event nobody would notice that the shard is not read.
            Err(_) => SourceError::Unreadable {
                place: self.key.to_string(),
                problem: "its reader panicked, which is a bug".to_owned(),
            },
        };
        self.send(ReaderEventKind::Failed(failure)).await;
    }

    async fn read(&self) -> Result<(), SourceError> {
        let mut after = self.after.clone();
        let mut idle = Duration::ZERO;
        let mut failures = 0;
        let mut reader = self.retry.run(|| self.source.open(&self.key.shard, &after)).await?;
        loop {
            reader.ready(idle).await;
            let Some(memory) = self.budget.take(self.chunk_bytes).await else { return Ok(()) };
            let read = match reader.read(self.chunk_bytes, self.buffers.take()).await {
                Ok(read) => {
                    failures = 0;
                    read
                }
                // A shard that can be opened every time but never read must fail in the end, too.
                Err(error) if matches!(error, SourceError::Unreadable { .. }) || failures == self.retry.retries => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::warn!(key = %self.key, %error, "failed to read shard; reopening it");
                    drop(memory);
                    failures += 1;
                    tokio::time::sleep(self.retry.wait_after(failures)).await;
                    reader = self.retry.run(|| self.source.open(&self.key.shard, &after)).await?;
                    continue;
                }
            };
            match read {
                Read::Chunk { chunk, through, source_bytes } => {
                    idle = Duration::ZERO;
                    after = through.clone();
                    if !self.send(ReaderEventKind::Chunk(ReadChunk { chunk, through, source_bytes, memory })).await {
                        return Ok(());
                    }
                }
                Read::AtTip => {
                    drop(memory);
                    if !self.send(ReaderEventKind::AtTip).await {
                        return Ok(());
                    }
                    idle = (idle * 2).clamp(IDLE_MIN, IDLE_MAX);
                }
                Read::End { children } => {
                    self.send(ReaderEventKind::End { children }).await;
                    return Ok(());
                }
            }
        }
    }

    /// Returns false if the coordinator is gone.
    async fn send(&self, kind: ReaderEventKind) -> bool {
        let event = ReaderEvent { reader: self.id, key: self.key.clone(), kind };
        self.coordinator.send(event).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Behind, ShardReader, SourceShard};
    use async_trait::async_trait;
    use checkpoints::StreamName;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A source of one shard that is opened by `open`.
    struct TestSource {
        opened: AtomicUsize,
        open: fn() -> Box<dyn ShardReader>,
    }

    #[async_trait]
    impl ShardSource for TestSource {
        fn stream(&self) -> &StreamName {
            unreachable!("a reader's task does not ask for it")
        }

        async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
            Ok(Vec::new())
        }

        async fn open(&self, _: &ShardId, _: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
            self.opened.fetch_add(1, Ordering::Relaxed);
            Ok((self.open)())
        }

        async fn behind(&self, _: &ShardId, _: &Position) -> Result<Behind, SourceError> {
            Ok(Behind::Nothing)
        }
    }

    fn broken_disk() -> SourceError {
        SourceError::Unavailable { place: "a".to_owned(), problem: "broken disk".to_owned() }
    }

    struct BrokenReader;

    #[async_trait]
    impl ShardReader for BrokenReader {
        async fn read(&mut self, _: usize, _: Vec<u8>) -> Result<Read, SourceError> {
            Err(broken_disk())
        }
    }

    /// Runs a reader of `source` until it ends, and returns the error that it sent.
    async fn failure_of(source: Arc<dyn ShardSource>) -> SourceError {
        let (coordinator, mut events) = mpsc::channel(1);
        let task = ReaderTask {
            id: ReaderId(1),
            key: ShardKey::new(StreamName::new("s").unwrap(), ShardId::new("a").unwrap()),
            source,
            after: Position::Beginning,
            chunk_bytes: 1 << 10,
            budget: ByteBudget::new(1 << 20),
            buffers: BufferPool::default(),
            retry: RetryPolicy::default(),
            coordinator,
        };
        task.run().await;
        match events.recv().await {
            Some(ReaderEvent { kind: ReaderEventKind::Failed(error), .. }) => error,
            other => panic!("the reader must send its failure, not {other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_opens_but_cannot_be_read_fails_after_bounded_retries() {
        let source = Arc::new(TestSource { opened: AtomicUsize::new(0), open: || Box::new(BrokenReader) });
        let begun = tokio::time::Instant::now();
        assert_eq!(failure_of(Arc::clone(&source) as _).await, broken_disk());
        assert_eq!(source.opened.load(Ordering::Relaxed), 1 + RetryPolicy::default().retries);
        assert!(begun.elapsed() > Duration::from_secs(5), "it waits between the attempts");
    }

    #[tokio::test]
    async fn a_reader_that_panics_reports_a_failure() {
        let source = TestSource { opened: AtomicUsize::new(0), open: || panic!("on purpose") };
        let error = failure_of(Arc::new(source)).await;
        assert_eq!(error.to_string(), "cannot read shard a of stream s: its reader panicked, which is a bug");
    }
}
