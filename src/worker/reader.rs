//! One task for each shard that is read: it pulls chunks and hands them to the coordinator.
//!
//! Owns: the reader of its shard, retries, waiting at the tip, and taking from the memory budget before it reads. Does not
//! own: the position that counts (the coordinator's, and in the end the lease's checkpoint). When the task is dropped,
//! whatever it had read is read again by the next one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use checkpoints::{Position, ShardId, ShardKey};
use pipeline::chunk::Chunk;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::retry::RetryPolicy;
use crate::source::{Read, ShardSource, SourceError};

/// Longest wait between two looks at a shard's tip.
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

/// What a reader tells the coordinator.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) session: Session,
    pub(crate) key: ShardKey,
    pub(crate) what: What,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum What {
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
    pub(crate) coordinator: mpsc::Sender<Told>,
}

impl ReaderTask {
    /// Reads until the shard ends, fails for good, or nobody listens any more.
    pub(crate) async fn run(self) {
        if let Err(error) = self.read().await {
            self.tell(What::Failed(error)).await;
        }
    }

    async fn read(&self) -> Result<(), SourceError> {
        let mut after = self.after.clone();
        let mut idle = Duration::from_millis(20);
        let mut reader = self.retry.run(|| self.source.open(&self.key.shard, &after)).await?;
        loop {
            let Some(permit) = self.budget.take(self.chunk_bytes).await else { return Ok(()) };
            let read = match reader.read(self.chunk_bytes, self.budget.buffer()).await {
                Ok(read) => read,
                Err(SourceError::Unreadable { place, problem }) => {
                    return Err(SourceError::Unreadable { place, problem });
                }
                Err(error) => {
                    tracing::warn!(%error, "opening the shard again");
                    reader = self.retry.run(|| self.source.open(&self.key.shard, &after)).await?;
                    continue;
                }
            };
            match read {
                Read::Chunk { chunk, through, source_bytes } => {
                    idle = Duration::from_millis(20);
                    after = through.clone();
                    if !self.tell(What::Chunk { chunk, through, source_bytes, permit }).await {
                        return Ok(());
                    }
                }
                Read::AtTip => {
                    drop(permit);
                    if !self.tell(What::AtTip).await {
                        return Ok(());
                    }
                    tokio::time::sleep(idle).await;
                    idle = (idle * 2).min(IDLE_MAX);
                }
                Read::End { children } => {
                    self.tell(What::End { children }).await;
                    return Ok(());
                }
            }
        }
    }

    /// `false` if nobody listens.
    async fn tell(&self, what: What) -> bool {
        let told = Told { session: self.session, key: self.key.clone(), what };
        self.coordinator.send(told).await.is_ok()
    }
}
