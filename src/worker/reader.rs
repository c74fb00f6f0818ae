//! One task for each shard that is read: it reads chunks and sends them to the coordinator.
//!
//! Owns: the shard's reader, how long it may fail, waiting at the tip, and taking from the memory budget before it reads. Does not
//! own: the position that counts. That is the coordinator's, and in the end the lease's checkpoint. If the task is dropped, the
//! next one reads again what this one had read.
//!
//! A shard may fail for some time without *progress*: a record, a position that moves, or the tip. A read that failed is not progress,
//! whatever the reader returns for it, and neither is opening the shard again. Then the task ends with an error, and the lease is
//! released: another worker may be able to read the shard.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use checkpoints::{Position, ShardId, ShardKey};
use futures::FutureExt;
use mutations::mutated;
use pipeline::chunk::Chunk;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::Instrument;

use crate::clock::SharedClock;
use crate::retry::RetryPolicy;
use crate::source::{Behind, Read, ShardReader, ShardSource, SourceError};
use crate::spans;
use crate::trouble::{Attempts, Trouble};
use crate::worker::live::ShardFigures;
use crate::worker::memory_plan::{ByteBudget, TakenBytes};

/// Shortest and longest wait between two reads at a shard's tip. A shard that always has a few new records is read once a second, too: Kinesis
/// lets all programs together read a shard five times a second, and a request costs the same whatever it returns.
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
    /// There is nothing new for now. Every record that arrived before `as_of_ms`, if the source can tell, was sent before.
    AtTip { as_of_ms: Option<i64> },
    /// The shard is not known to be at its tip any more.
    Behind,
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
    /// How long the shard may fail without progress, and the waits before it is opened again.
    pub(super) retry: RetryPolicy,
    /// Where failures of the stream's shards are logged.
    pub(super) trouble: Arc<Trouble>,
    pub(super) coordinator: mpsc::Sender<ReaderEvent>,
    /// The time of day, for whoever watches.
    pub(super) clock: SharedClock,
    /// Where the reader shows what the source said.
    pub(super) figures: ShardFigures,
}

/// How long a shard has failed without progress.
struct Patience {
    policy: RetryPolicy,
    attempts: Attempts,
    failing_since: Option<Instant>,
    failures: u64,
    waits: Box<dyn Iterator<Item = Duration> + Send>,
}

impl Patience {
    fn new(policy: RetryPolicy, trouble: &Arc<Trouble>) -> Self {
        let (attempts, waits) = (trouble.attempts(), Box::new(policy.waits()));
        Patience { policy, attempts, failing_since: None, failures: 0, waits }
    }

    /// The shard was read further, or to its tip.
    fn on_progress(&mut self) {
        if self.failing_since.take().is_some() {
            (self.failures, self.waits) = (0, Box::new(self.policy.waits()));
            self.attempts.succeeded();
        }
    }

    /// Reading or opening failed.
    ///
    /// # Errors
    /// It cannot succeed later, or there was no progress for too long.
    fn on_failure(&mut self, error: SourceError, is_normal: bool) -> Result<(), SourceError> {
        let SourceError::Unavailable { place, problem } = &error else { return Err(error) };
        let failing = self.failing_since.get_or_insert_with(Instant::now).elapsed();
        self.failures += 1;
        if failing >= self.policy.within {
            let (place, seconds, failures) = (place.clone(), failing.as_secs(), self.failures);
            let problem = format!("no progress for {seconds} s, in {failures} attempts; the last one: {problem}");
            return Err(SourceError::Unavailable { place, problem });
        }
        if is_normal {
            self.attempts.failed_normally(&error);
        } else {
            self.attempts.failed(&error);
        }
        Ok(())
    }

    /// Waits before the shard is opened again. The waits grow until there is progress.
    async fn wait(&mut self) {
        let wait = self.waits.next().unwrap_or(self.policy.longest);
        tokio::time::sleep(wait).await;
    }

    /// The worker itself was busy since `begun`, which says nothing about the shard.
    fn was_busy_since(&mut self, begun: Instant) {
        if let Some(since) = &mut self.failing_since {
            *since += begun.elapsed();
        }
    }
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
        let (mut idle, mut is_at_tip) = (Duration::ZERO, false);
        let mut patience = Patience::new(self.retry, &self.trouble);
        let mut opened: Option<Box<dyn ShardReader>> = None;
        loop {
            let reader = match &mut opened {
                Some(reader) => reader,
                None => match self.source.open(&self.key.shard, &after).await {
                    Ok(reader) => opened.insert(reader),
                    Err(error) => {
                        patience.on_failure(error, false)?;
                        patience.wait().await;
                        continue;
                    }
                },
            };
            reader.ready(idle).await;
            let begun = Instant::now();
            let Some(memory) = self.budget.take(self.chunk_bytes).await else { return Ok(()) };
            patience.was_busy_since(begun);
            let span = tracing::info_span!(target: spans::TARGET, parent: None, "read", stream = %self.key.stream, shard = %self.key.shard);
            let read = reader.read(self.chunk_bytes, self.buffers.take()).instrument(span).await;
            if let Ok(Read::Chunk { .. } | Read::Empty { .. } | Read::AtTip) = &read {
                let at_tip = matches!(read, Ok(Read::AtTip));
                self.figures.on_response(self.clock.now_ms(), reader.behind(), at_tip);
            } else {
                self.figures.on_left_tip();
            }
            if is_at_tip && matches!(read, Err(_) | Ok(Read::Failed { .. } | Read::Empty { .. })) {
                is_at_tip = false;
                if !self.send(ReaderEventKind::Behind).await {
                    return Ok(());
                }
            }
            match read {
                Ok(Read::Chunk { chunk, through, source_bytes }) => {
                    if through != after {
                        patience.on_progress();
                    }
                    is_at_tip = false;
                    // If the source says that nothing follows, the next records have yet to arrive.
                    let is_last = matches!(reader.behind(), Some(Behind::Nothing));
                    idle = if is_last { longer(idle) } else { Duration::ZERO };
                    after = through.clone();
                    let begun = Instant::now();
                    if !self.send(ReaderEventKind::Chunk(ReadChunk { chunk, through, source_bytes, memory })).await {
                        return Ok(());
                    }
                    patience.was_busy_since(begun);
                }
                Ok(Read::Empty { moved }) => {
                    idle = Duration::ZERO;
                    if moved {
                        patience.on_progress();
                    }
                }
                Ok(Read::AtTip) => {
                    drop(memory);
                    patience.on_progress();
                    is_at_tip = true;
                    let as_of_ms = reader.tip_as_of_ms();
                    if !self.send(ReaderEventKind::AtTip { as_of_ms }).await {
                        return Ok(());
                    }
                    idle = longer(idle);
                }
                Ok(Read::End { children }) => {
                    self.send(ReaderEventKind::End { children }).await;
                    return Ok(());
                }
                Ok(Read::Failed { error, is_normal }) => {
                    drop(memory);
                    idle = Duration::ZERO;
                    if mutated!(FailedReadsAreProgress) {
                        patience.on_progress();
                    }
                    patience.on_failure(error, is_normal)?;
                }
                Err(error) => {
                    drop(memory);
                    patience.on_failure(error, false)?;
                    patience.wait().await;
                    opened = None;
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

/// The wait after this one, at the tip.
fn longer(idle: Duration) -> Duration {
    (idle * 2).clamp(IDLE_MIN, IDLE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{ShardReader, SourceShard};
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

    /// A reader that does the next of these, and the last one for ever.
    struct Script(Vec<fn() -> Result<Read, SourceError>>);

    #[async_trait]
    impl ShardReader for Script {
        async fn ready(&mut self, idle: Duration) {
            tokio::time::sleep(idle.max(Duration::from_secs(1))).await;
        }

        async fn read(&mut self, _: usize, _: Vec<u8>) -> Result<Read, SourceError> {
            let next = if self.0.len() > 1 { self.0.remove(0) } else { self.0[0] };
            next()
        }
    }

    fn failed() -> Result<Read, SourceError> {
        Ok(Read::Failed { error: broken_disk(), is_normal: false })
    }

    fn empty_chunk() -> Result<Read, SourceError> {
        let framing = pipeline::chunk::Framing::Records(Vec::new());
        let chunk = Chunk::new("s".into(), "a".into(), 0, Vec::new(), framing);
        Ok(Read::Chunk { chunk, through: Position::Beginning, source_bytes: 0 })
    }

    struct BrokenReader;

    #[async_trait]
    impl ShardReader for BrokenReader {
        async fn read(&mut self, _: usize, _: Vec<u8>) -> Result<Read, SourceError> {
            Err(broken_disk())
        }
    }

    /// A reader of `source`, and what it sends.
    fn task(source: Arc<dyn ShardSource>) -> (ReaderTask, mpsc::Receiver<ReaderEvent>) {
        let (coordinator, events) = mpsc::channel(1);
        let task = ReaderTask {
            id: ReaderId(1),
            key: ShardKey::new(StreamName::new("s").unwrap(), ShardId::new("a").unwrap()),
            source,
            after: Position::Beginning,
            chunk_bytes: 1 << 10,
            budget: ByteBudget::new(1 << 20),
            buffers: BufferPool::default(),
            retry: RetryPolicy::shard(Duration::from_secs(300)),
            trouble: Trouble::new("a shard"),
            coordinator,
            clock: Arc::new(crate::worker::testing::StoppedClock),
            figures: ShardFigures::new(crate::worker::testing::key("a")),
        };
        (task, events)
    }

    /// Runs a reader of `source` until it ends, and returns the error that it sent.
    async fn failure_of(source: Arc<dyn ShardSource>) -> SourceError {
        let (task, mut events) = task(source);
        let running = tokio::spawn(task.run());
        loop {
            match events.recv().await {
                Some(ReaderEvent { kind: ReaderEventKind::Failed(error), .. }) => return error,
                Some(_) => {}
                None => panic!("the reader must send its failure: {:?}", running.await),
            }
        }
    }

    /// How long a shard is tried that is read by `open`, and how often it was opened.
    async fn tried(open: fn() -> Box<dyn ShardReader>) -> (u64, usize, String) {
        let source = Arc::new(TestSource { opened: AtomicUsize::new(0), open });
        let begun = Instant::now();
        let error = failure_of(Arc::clone(&source) as _).await;
        (begun.elapsed().as_secs(), source.opened.load(Ordering::Relaxed), error.to_string())
    }

    /// A reader at its tip that always has a new record, or one that has many more.
    struct Trickle {
        behind: Behind,
        read: u64,
    }

    #[async_trait]
    impl ShardReader for Trickle {
        async fn ready(&mut self, idle: Duration) {
            tokio::time::sleep(idle.max(Duration::from_millis(200))).await;
        }

        async fn read(&mut self, _: usize, _: Vec<u8>) -> Result<Read, SourceError> {
            self.read += 1;
            let framing = pipeline::chunk::Framing::Records(Vec::new());
            let chunk = Chunk::new("s".into(), "a".into(), 0, Vec::new(), framing);
            Ok(Read::Chunk { chunk, through: Position::at(self.read.into()), source_bytes: 0 })
        }

        fn behind(&self) -> Option<Behind> {
            Some(self.behind)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_with_a_few_new_records_is_read_once_a_second_and_one_that_is_behind_as_fast_as_it_may() {
        let reads_in_a_minute = async |open: fn() -> Box<dyn ShardReader>| {
            let (task, mut events) = task(Arc::new(TestSource { opened: AtomicUsize::new(0), open }));
            let task = tokio::spawn(task.run());
            let mut reads = 0;
            let _ = tokio::time::timeout(Duration::from_secs(60), async {
                while events.recv().await.is_some() {
                    reads += 1;
                }
            })
            .await;
            task.abort();
            reads
        };
        let at_tip = reads_in_a_minute(|| Box::new(Trickle { behind: Behind::Nothing, read: 0 })).await;
        let behind = reads_in_a_minute(|| Box::new(Trickle { behind: Behind::Time(5), read: 0 })).await;
        assert!((58..=65).contains(&at_tip), "{at_tip}");
        assert!((299..=300).contains(&behind), "{behind}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_opens_but_cannot_be_read_is_given_up_by_time_and_opened_ever_less_often() {
        let (seconds, opened, error) = tried(|| Box::new(BrokenReader)).await;
        assert!((300..=325).contains(&seconds) && opened < 45, "{seconds} s, opened {opened} times");
        assert!(error.contains("no progress for 3") && error.ends_with("the last one: broken disk"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn only_progress_makes_a_failing_shard_start_again() {
        // Reads that fail, whatever they look like.
        let always: [fn() -> Box<dyn ShardReader>; 3] = [
            || Box::new(Script(vec![failed])),
            || Box::new(Script([failed, empty_chunk].repeat(500))),
            || Box::new(Script([failed, || Ok(Read::Empty { moved: false })].repeat(500))),
        ];
        for open in always {
            let (seconds, opened, error) = tried(open).await;
            assert!((300..=310).contains(&seconds) && opened == 1, "{seconds} s, opened {opened} times: {error}");
        }
        // 200 s, then progress, then for ever.
        let progress: [fn() -> Box<dyn ShardReader>; 2] = [
            || Box::new(Script([vec![failed as fn() -> _; 200], vec![|| Ok(Read::AtTip), failed]].concat())),
            || {
                Box::new(Script(
                    [vec![failed as fn() -> _; 200], vec![|| Ok(Read::Empty { moved: true }), failed]].concat(),
                ))
            },
        ];
        for open in progress {
            let (seconds, ..) = tried(open).await;
            assert!((500..=510).contains(&seconds), "{seconds} s");
        }
    }

    #[tokio::test]
    async fn a_reader_that_panics_reports_a_failure() {
        let source = TestSource { opened: AtomicUsize::new(0), open: || panic!("on purpose") };
        let error = failure_of(Arc::new(source)).await;
        assert_eq!(error.to_string(), "cannot read shard a of stream s: its reader panicked, which is a bug");
    }
}
