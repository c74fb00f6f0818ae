//! A fleet without faults, to count the requests that an epoch costs.
//!
//! Owns: what is counted, and when. Does not own: the requests themselves (`network`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::Fleet;
use crate::auditor::Auditor;
use crate::environment::{Environment, InMemory};
use crate::network::{Rates, Service, Shared};
use crate::records::Draft;
use crate::rng::Rng;
use crate::trace::Trace;

/// The time until each worker holds its shards.
const WARM_UP: Duration = Duration::from_secs(180);

/// The requests of a fleet, between two moments.
#[derive(Debug, Clone, Copy, Default)]
pub struct Measured {
    /// Workers, each with a shard.
    pub workers: u32,
    /// Epochs that were committed.
    pub epochs: u64,
    /// Entries that were written, or refused.
    pub puts: u64,
    /// Lists of the keys of the log.
    pub lists: u64,
    /// Entries that were read, or whose checksum was.
    pub reads: u64,
}

impl Measured {
    /// Requests to the lake log for each epoch.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub fn log_requests_per_epoch(&self) -> f64 {
        (self.puts + self.lists + self.reads) as f64 / self.epochs.max(1) as f64
    }
}

#[derive(Default)]
struct Counters {
    counts: AtomicBool,
    puts: AtomicU64,
    lists: AtomicU64,
    reads: AtomicU64,
}

impl Counters {
    fn note(&self, service: Service, operation: &str, about: &str) {
        if service != Service::Lake || !about.starts_with("_log/") || !self.counts.load(Ordering::Relaxed) {
            return;
        }
        let counter = match operation {
            "put_new" => &self.puts,
            "list" | "list_after" => &self.lists,
            _ => &self.reads,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs workers with a shard each that commit every `interval`, for ten intervals, and counts.
///
/// # Panics
/// A rule was violated, or a worker ended.
pub fn measure(workers: u32, interval: Duration) -> Measured {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O");
    let measured = runtime.block_on(run(workers, interval));
    runtime.shutdown_background();
    measured
}

async fn run(workers: u32, interval: Duration) -> Measured {
    let counters = Arc::new(Counters::default());
    let environment: Arc<dyn Environment> = Arc::new(InMemory::calm(u64::from(workers)));
    let auditor = Arc::new(Auditor::new(Arc::clone(&environment), false));
    let (audited, counted) = (Arc::clone(&auditor), Arc::clone(&counters));
    let shared = Arc::new(Shared {
        tally: Arc::default(),
        trace: Mutex::new(Trace::new()),
        audit: Box::new(move |service, operation, about| {
            counted.note(service, operation, about);
            audited.check(service, operation, about);
        }),
        creating: Arc::default(),
    });
    let mut fleet = Fleet {
        begun: Instant::now(),
        returns: None,
        outages: None,
        environment,
        in_cloud: false,
        retry_within: Duration::from_secs(300),
        auditor,
        shared,
        raw: false,
        rates: Rates::default(),
        skewed: false,
        kinds: 1,
        put: 0,
        started: 0,
        workers: Vec::new(),
        refused: false,
        losses: Rng::new(2),
        is_replaced: false,
        interval: Some(interval),
        trims: None,
        operations: None,
        saves: None,
        savers: Vec::new(),
        rng: Rng::new(1),
    };
    for _ in 0..workers {
        fleet.start_for(Rates::default(), Some(false));
    }
    fleet.feed(workers, WARM_UP).await;
    let before = fleet.auditor.epochs();
    counters.counts.store(true, Ordering::Relaxed);
    fleet.feed(workers, 10 * interval).await;
    counters.counts.store(false, Ordering::Relaxed);
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Measured {
        workers,
        epochs: fleet.auditor.epochs() - before,
        puts: of(&counters.puts),
        lists: of(&counters.lists),
        reads: of(&counters.reads),
    }
}

impl Fleet {
    /// Puts records into all shards every second.
    async fn feed(&mut self, workers: u32, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let drafts = (0..4 * workers).map(|_| {
                self.put += 1;
                Draft::new(self.put, self.kinds, &mut self.rng)
            });
            let drafts: Vec<Draft> = drafts.collect();
            for (id, draft) in self.environment.put(drafts, &mut self.rng) {
                self.auditor.expect(id, draft, None);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.check().await.expect("a fleet without faults violates nothing");
        }
    }
}
