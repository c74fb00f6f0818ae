//! The requests of a fleet, by service and operation, and what each takes.
//!
//! Owns: the counters, the capacity of the lease table, how long a request takes, and whether its worker still runs. Does not own: which
//! requests a call of the product sends (`services`, `load`).
//!
//! The times are assumptions, drawn evenly between half and one and a half of `Operation::millis`. The table takes what a new table that is
//! billed by request takes: 12,000 read units and 4,000 write units a second. A request above that waits. If it would wait for longer
//! than the SDK's attempts last, it fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::rng::Rng;

/// What a table without a history takes each second, in units.
const READ_UNITS: f64 = 12_000.0;
const WRITE_UNITS: f64 = 4_000.0;
/// For how long the SDK's attempts hide that a request is throttled.
const THROTTLED_FOR: f64 = 1.0;

/// An operation of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are those of the services")]
pub enum Operation {
    Scan,
    BatchGetItem,
    PutItem,
    UpdateItem,
    DeleteItem,
    TransactWriteItems,
    CreateMultipartUpload,
    UploadPart,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListMultipartUploads,
    PutObject,
    GetObject,
    HeadObject,
    ListObjectsV2,
    DeleteObject,
    GetRecords,
    GetShardIterator,
    ListShards,
    DescribeStreamSummary,
}

impl Operation {
    /// Its service and its name.
    pub fn name(self) -> String {
        let service = match self {
            _ if self <= Operation::TransactWriteItems => "dynamodb",
            _ if self <= Operation::DeleteObject => "s3",
            _ => "kinesis",
        };
        format!("{service}.{self:?}")
    }

    /// The mean time of a request.
    fn millis(self) -> u64 {
        match self {
            Operation::Scan => 50,
            Operation::BatchGetItem => 10,
            Operation::PutItem | Operation::UpdateItem | Operation::DeleteItem => 6,
            Operation::TransactWriteItems | Operation::ListShards => 25,
            Operation::PutObject | Operation::UploadPart => 35,
            Operation::CreateMultipartUpload | Operation::CompleteMultipartUpload => 45,
            Operation::ListObjectsV2 | Operation::ListMultipartUploads => 30,
            _ => 15,
        }
    }
}

/// What was counted until a moment.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Requests.
    pub requests: BTreeMap<Operation, u64>,
    /// Units that the lease table read.
    pub read_units: u64,
    /// Units that the lease table and its index wrote.
    pub write_units: u64,
    /// Requests to the table that failed because it was throttled.
    pub throttled: u64,
    /// Parts of a second that the processors of all workers worked.
    pub cpu: Duration,
}

impl Counts {
    /// What was counted since `before`.
    #[must_use]
    pub fn since(&self, before: &Counts) -> Counts {
        let of = |operation: &Operation| before.requests.get(operation).copied().unwrap_or(0);
        let requests = self.requests.iter().map(|(operation, count)| (*operation, count - of(operation)));
        Counts {
            requests: requests.filter(|(_, count)| *count > 0).collect(),
            read_units: self.read_units - before.read_units,
            write_units: self.write_units - before.write_units,
            throttled: self.throttled - before.throttled,
            cpu: self.cpu - before.cpu,
        }
    }

    /// Requests of one operation.
    pub fn of(&self, operation: Operation) -> u64 {
        self.requests.get(&operation).copied().unwrap_or(0)
    }
}

/// Units that are left at a time.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    /// When all that was asked for will have been served.
    busy_until: Instant,
}

impl Bucket {
    /// The time until these units are served; `None` if that is too long.
    fn take(&mut self, units: u64) -> Option<Duration> {
        let now = Instant::now();
        let begin = self.busy_until.max(now);
        if (begin - now).as_secs_f64() > THROTTLED_FOR {
            return None;
        }
        self.busy_until = begin + Duration::from_secs_f64(float(units) / self.per_second);
        Some(begin - now)
    }
}

/// A figure.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// What all workers share.
#[derive(Debug)]
pub struct Services {
    counts: Mutex<Counts>,
    reads: Mutex<Bucket>,
    writes: Mutex<Bucket>,
    rng: Mutex<Rng>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Services {
    /// Services that draw their times from a seed.
    pub fn new(seed: u64) -> Arc<Self> {
        let bucket = |per_second| Mutex::new(Bucket { per_second, busy_until: Instant::now() });
        Arc::new(Services {
            counts: Mutex::default(),
            reads: bucket(READ_UNITS),
            writes: bucket(WRITE_UNITS),
            rng: Mutex::new(Rng::new(seed)),
        })
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    fn add_units(&self, reads: u64, writes: u64) {
        let mut counts = lock(&self.counts);
        (counts.read_units, counts.write_units) = (counts.read_units + reads, counts.write_units + writes);
    }

    fn draw(&self, below: u64) -> u64 {
        lock(&self.rng).below(below)
    }
}

/// A request that was throttled for too long.
#[derive(Debug, Clone, Copy)]
pub struct Throttled;

/// What one worker asks of the services.
#[derive(Debug)]
pub struct Caller {
    services: Arc<Services>,
    is_alive: AtomicBool,
    /// Processor cores of the worker.
    vcpus: f64,
    /// When the processor will have done everything that it was given.
    busy_until: Mutex<Instant>,
}

/// Processor time of a request. Measured: 100,000 objects from S3 took 25.5 CPU seconds (docs/benchmarks.md), most of it the SDK's.
pub const CPU_OF_REQUEST: Duration = Duration::from_micros(250);
/// Bytes of records that a core processes in a second, with the raw landing. Measured: 94 and 105 MB (docs/benchmarks.md).
pub const BYTES_PER_CPU_SECOND: f64 = 100e6;

impl Caller {
    /// A worker of this many cores.
    pub fn new(services: &Arc<Services>, vcpus: f64) -> Arc<Self> {
        let (services, is_alive) = (Arc::clone(services), AtomicBool::new(true));
        Arc::new(Caller { services, is_alive, vcpus, busy_until: Mutex::new(Instant::now()) })
    }

    /// No request that the worker sends from now on has an effect.
    pub fn kill(&self) {
        self.is_alive.store(false, Ordering::Relaxed);
    }

    async fn wait_if_killed(&self) {
        if !self.is_alive.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// Sends `count` requests of one operation, `at_once` of them side by side.
    pub async fn send(&self, operation: Operation, count: usize, at_once: usize) {
        let rounds = count.div_ceil(at_once.max(1));
        for _ in 0..rounds {
            let millis = operation.millis();
            let micros = 1_000 * millis / 2 + self.services.draw(1_000 * millis + 1);
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
        self.wait_if_killed().await;
        *lock(&self.services.counts).requests.entry(operation).or_default() += count as u64;
    }

    /// Counts write units of the index, which has a capacity of its own.
    pub fn note_units(&self, writes: u64) {
        self.services.add_units(0, writes);
    }

    /// Takes read and write units of the lease table.
    ///
    /// # Errors
    /// The table is throttled for too long.
    pub async fn units(&self, reads: u64, writes: u64) -> Result<(), Throttled> {
        let waits = [(&self.services.reads, reads), (&self.services.writes, writes)];
        let wait = waits.into_iter().filter(|(_, units)| *units > 0).map(|(bucket, units)| lock(bucket).take(units));
        let wait: Option<Vec<Duration>> = wait.collect();
        let Some(wait) = wait else {
            lock(&self.services.counts).throttled += 1;
            tokio::time::sleep(Duration::from_secs_f64(THROTTLED_FOR)).await;
            self.wait_if_killed().await;
            return Err(Throttled);
        };
        self.services.add_units(reads, writes);
        let wait = wait.into_iter().max().unwrap_or_default();
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
            self.wait_if_killed().await;
        }
        Ok(())
    }

    /// Notes the processor's work for a number of requests. It is done before what waits for the processor: a thread of its own does it.
    pub fn charge(&self, requests: u64) {
        let work = CPU_OF_REQUEST.mul_f64(float(requests));
        lock(&self.services.counts).cpu += work;
        let mut busy_until = lock(&self.busy_until);
        *busy_until = (*busy_until).max(Instant::now()) + work.div_f64(self.vcpus);
    }

    /// Waits until the worker's processor has done the work of a read that returned this many bytes. Reads are processed in the order in which
    /// they come.
    pub async fn process(&self, bytes: u64) {
        let work = CPU_OF_REQUEST + Duration::from_secs_f64(float(bytes) / BYTES_PER_CPU_SECOND);
        lock(&self.services.counts).cpu += work;
        let until = {
            let mut busy_until = lock(&self.busy_until);
            *busy_until = (*busy_until).max(Instant::now()) + work.div_f64(self.vcpus);
            *busy_until
        };
        tokio::time::sleep_until(until).await;
        self.wait_if_killed().await;
    }
}
