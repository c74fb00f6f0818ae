//! One task for each shard that is read: it pulls chunks and hands them to the coordinator.
//!
//! Owns: the reader of its shard, retries, waiting at the tip, and taking from the memory budget before it reads. Does not
//! own: the position that counts (the coordinator's, and in the end the lease's checkpoint). When the task is dropped,
//! whatever it had read is read again by the next one.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use checkpoints::{Position, ShardId, ShardKey};
use futures::FutureExt;
use pipeline::chunk::Chunk;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::retry::RetryPolicy;
use crate::source::{Read, ShardSource, SourceError};

/// Shortest and longest wait between two looks at a shard's tip.
const IDLE_MIN: Duration = Duration::from_millis(20);
const IDLE_MAX: Duration = Duration::from_secs(1);
/// The unit of the memory budget.
const UNIT: usize = 1 << 10;

/// A reader's task; a new number for every task that is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Session(pub(crate) u64);

/// Bytes of chunks that may be in memory, shared by all readers.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    permits: Arc<Semaphore>,
    total: usize,
    buffers: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        let total = (bytes / UNIT).max(1);
        Budget { permits: Arc::new(Semaphore::new(total)), total, buffers: Arc::default() }
    }

    /// Waits until so many bytes may be read.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT).min(self.total)).unwrap_or(u32::MAX);
        Arc::clone(&self.permits).acquire_many_owned(units).await.ok()
    }

    fn buffer(&self) -> Vec<u8> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Gives an empty buffer back to be filled again.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < 8 {
            buffers.push(buffer);
        }
    }
}

/// ReaderEventKind a reader tells the coordinator.
#[derive(Debug)]
pub(crate) struct ReaderEvent {
    pub(crate) session: Session,
    pub(crate) key: ShardKey,
    pub(crate) what: ReaderEventKind,
}

/// ReaderEventKind happened.
#[derive(Debug)]
pub(crate) enum ReaderEventKind {
    Chunk {
        chunk: Chunk,
        through: Position,
        source_bytes: u64,
        /// Held until the chunk's rows are in columns.
        permit: OwnedSemaphorePermit,
    },
    AtTip,
    End {
        children: Vec<ShardId>,
    },
    Failed(SourceError),
}

/// All that a reader's task needs.
pub(crate) struct ReaderTask {
    pub(crate) session: Session,
    pub(crate) key: ShardKey,
    pub(crate) source: Arc<dyn ShardSource>,
    pub(crate) after: Position,
    pub(crate) chunk_bytes: usize,
    pub(crate) budget: Budget,
    pub(crate) retry: RetryPolicy,
    pub(crate) coordinator: mpsc::Sender<ReaderEvent>,
}

impl ReaderTask {
    /// Reads until the shard ends, fails for good, or nobody listens any more.
    pub(crate) async fn run(self) {
        let failure = match AssertUnwindSafe(self.read()).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            // ReaderEvent like any other failure: nobody else would notice that the shard is not read.
            Err(_) => SourceError::Unreadable {
                place: self.key.to_string(),
                problem: "its reader has panicked, which is a fault of the program".to_owned(),
            },
        };
        self.tell(ReaderEventKind::Failed(failure)).await;
    }

    async fn read(&self) -> Result<(), SourceError> {
        let mut after = self.after.clone();
        let mut idle = Duration::ZERO;
        let mut failures = 0;
        let mut reader = self.retry.run(|| self.source.open(&self.key.shard, &after)).await?;
        loop {
            reader.ready(idle).await;
            let Some(permit) = self.budget.take(self.chunk_bytes).await else { return Ok(()) };
            let read = match reader.read(self.chunk_bytes, self.budget.buffer()).await {
                Ok(read) => {
                    failures = 0;
                    read
                }
                // ReaderEventKind can be opened again and again and never be read is given up, too.
                Err(error) if matches!(error, SourceError::Unreadable { .. }) || failures == self.retry.retries => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::warn!(%error, "opening the shard again");
                    drop(permit);
                    tokio::time::sleep((self.retry.first * (1 << failures.min(16))).min(self.retry.longest)).await;
                    failures += 1;
                    reader = self.retry.run(|| self.source.open(&self.key.shard, &after)).await?;
                    continue;
                }
            };
            match read {
                Read::Chunk { chunk, through, source_bytes } => {
                    idle = Duration::ZERO;
                    after = through.clone();
                    if !self.tell(ReaderEventKind::Chunk { chunk, through, source_bytes, permit }).await {
                        return Ok(());
                    }
                }
                Read::AtTip => {
                    drop(permit);
                    if !self.tell(ReaderEventKind::AtTip).await {
                        return Ok(());
                    }
                    idle = (idle * 2).clamp(IDLE_MIN, IDLE_MAX);
                }
                Read::End { children } => {
                    self.tell(ReaderEventKind::End { children }).await;
                    return Ok(());
                }
            }
        }
    }

    /// `false` if nobody listens.
    async fn tell(&self, what: ReaderEventKind) -> bool {
        let message = ReaderEvent { session: self.session, key: self.key.clone(), what };
        self.coordinator.send(message).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Behind, ShardReader, SourceShard};
    use async_trait::async_trait;
    use checkpoints::StreamName;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A shard that can be opened again and again, and never be read.
    #[derive(Default)]
    struct Broken {
        opened: AtomicUsize,
    }

    fn broken() -> SourceError {
        SourceError::Unavailable { place: "a".to_owned(), problem: "broken disk".to_owned() }
    }

    struct BrokenReader;

    #[async_trait]
    impl ShardReader for BrokenReader {
        async fn read(&mut self, _: usize, _: Vec<u8>) -> Result<Read, SourceError> {
            Err(broken())
        }
    }

    #[async_trait]
    impl ShardSource for Broken {
        fn stream(&self) -> &StreamName {
            unreachable!("a reader's task does not ask")
        }

        async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
            Ok(Vec::new())
        }

        async fn open(&self, _: &ShardId, _: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
            self.opened.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(BrokenReader))
        }

        async fn behind(&self, _: &ShardId, _: &Position) -> Result<Behind, SourceError> {
            Ok(Behind::Nothing)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_opens_and_can_not_be_read_is_given_up() {
        let source = Arc::new(Broken::default());
        let (coordinator, mut message) = mpsc::channel(1);
        let retry = RetryPolicy::default();
        let task = ReaderTask {
            session: Session(1),
            key: ShardKey::new(StreamName::new("s").unwrap(), ShardId::new("a").unwrap()),
            source: Arc::clone(&source) as Arc<dyn ShardSource>,
            after: Position::Beginning,
            chunk_bytes: 1 << 10,
            budget: Budget::new(1 << 20),
            retry,
            coordinator,
        };
        let begun = tokio::time::Instant::now();
        task.run().await;
        let Some(ReaderEvent { what: ReaderEventKind::Failed(error), .. }) = message.recv().await else {
            panic!("a failure is told")
        };
        assert_eq!((error, source.opened.load(Ordering::Relaxed)), (broken(), 1 + retry.retries));
        assert!(begun.elapsed() > Duration::from_secs(5), "it waited in between");
    }

    /// A source whose code is at fault.
    struct Faulty;

    #[async_trait]
    impl ShardSource for Faulty {
        fn stream(&self) -> &StreamName {
            unreachable!("a reader's task does not ask")
        }

        async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
            Ok(Vec::new())
        }

        async fn open(&self, _: &ShardId, _: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
            panic!("on purpose")
        }

        async fn behind(&self, _: &ShardId, _: &Position) -> Result<Behind, SourceError> {
            Ok(Behind::Nothing)
        }
    }

    #[tokio::test]
    async fn a_reader_that_panics_says_so() {
        let (coordinator, mut message) = mpsc::channel(1);
        let task = ReaderTask {
            session: Session(1),
            key: ShardKey::new(StreamName::new("s").unwrap(), ShardId::new("a").unwrap()),
            source: Arc::new(Faulty),
            after: Position::Beginning,
            chunk_bytes: 1 << 10,
            budget: Budget::new(1 << 20),
            retry: RetryPolicy::default(),
            coordinator,
        };
        task.run().await;
        let Some(ReaderEvent { what: ReaderEventKind::Failed(error), .. }) = message.recv().await else {
            panic!("a failure is told")
        };
        assert_eq!(
            error.to_string(),
            "cannot read shard a of stream s: its reader has panicked, which is a fault of the program"
        );
    }
}
