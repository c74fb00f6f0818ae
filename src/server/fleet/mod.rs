//! What the status page shows: the fleet, its shards, the lake, and what is wrong.
//!
//! Owns: when the fleet is read (`keep_fresh`), and putting the value together. Does not own: the value's fields (`model`), reading the
//! stores (`stores`, `lake_log`), what is wrong (`problems`), serving it.
//!
//! What this process reads comes from its own counters, and costs nothing. What others read comes from the lease table and the log of the
//! lake. These are read only while somebody watches, once for all of them. So an idle worker makes no requests for its page.

mod build;
mod history;
mod lake_log;
mod model;
mod problems;
mod stores;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use checkpoints::ShardKey;
use tokio::time::{Instant, sleep_until};

use crate::server::fleet::history::{Pair, Rates, Ring, STEP, as_f64};
use crate::server::fleet::stores::{EVERY, Snapshot, StoreReader};
use crate::server::site::{Published, Site, View};
use crate::source::Behind;
use crate::worker::LiveShard;

pub use model::{Problem, Severity};

/// The version of the value. It changes only if fields lose their meaning.
pub const FORMAT: u32 = 1;
/// The time between two values while somebody watches.
const PUBLISH_EVERY: Duration = Duration::from_secs(2);

/// Keeps the value fresh while somebody watches, and the charts at all times. Ends when it is dropped.
pub(super) async fn keep_fresh(site: Arc<Site>) {
    let view = loop {
        match site.view() {
            Some(view) => break Arc::clone(view),
            None => site.woken().await,
        }
    };
    let mut fleet = Fleet::new(view);
    let mut reading: Option<Reading> = None;
    loop {
        let now = Instant::now();
        if now >= fleet.sample_at {
            fleet.sample(now);
            site.note_progress();
        }
        let is_watched = site.is_watched();
        if is_watched {
            if let Some(mut reader) = fleet.reader.take_if(|_| now >= fleet.read_at) {
                let now_ms = site.now_ms();
                reading = Some(Box::pin(async move {
                    let snapshot = reader.read(now_ms).await;
                    (reader, snapshot)
                }));
            }
            fleet.count();
            site.publish(Published::new(&fleet.json(&site), fleet.snapshot.read_at));
        }
        let next = if is_watched { fleet.sample_at.min(now + PUBLISH_EVERY) } else { fleet.sample_at };
        tokio::select! {
            (reader, snapshot) = done(&mut reading) => {
                (reading, fleet.reader) = (None, Some(reader));
                (fleet.snapshot, fleet.read_at) = (snapshot, Instant::now() + EVERY);
            }
            () = sleep_until(next) => {}
            () = site.woken() => {}
        }
    }
}

/// A read of the stores that is in progress.
type Reading = Pin<Box<dyn Future<Output = (Box<StoreReader>, Snapshot)> + Send>>;

async fn done(reading: &mut Option<Reading>) -> (Box<StoreReader>, Snapshot) {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}

/// The fleet as this process knows it.
struct Fleet {
    view: Arc<View>,
    /// Away while it reads.
    reader: Option<Box<StoreReader>>,
    snapshot: Snapshot,
    /// When the stores are read next.
    read_at: Instant,
    /// When the next values of the charts are due.
    sample_at: Instant,
    shard_rates: Rates<ShardKey>,
    edge_rates: Rates<String>,
    all_rates: Rates<()>,
    charts: OwnCharts,
    /// Epochs that were aborted by the last hour's samples.
    aborted: Ring,
}

/// The charts of this process.
#[derive(Default)]
struct OwnCharts {
    sampled: Option<(Instant, u64)>,
    records_per_s: Ring,
    behind_s: Ring,
    behind_bytes: Ring,
    oldest_uncommitted_s: Ring,
}

impl Fleet {
    fn new(view: Arc<View>) -> Self {
        Fleet {
            reader: Some(Box::new(StoreReader::new(Arc::clone(&view)))),
            view,
            snapshot: Snapshot::default(),
            read_at: Instant::now(),
            sample_at: Instant::now(),
            shard_rates: Rates::default(),
            edge_rates: Rates::default(),
            all_rates: Rates::default(),
            charts: OwnCharts::default(),
            aborted: Ring::default(),
        }
    }

    /// The next values of the charts.
    fn sample(&mut self, now: Instant) {
        self.sample_at = now + STEP;
        let progress = &self.view.progress;
        let records = progress.records.load(Ordering::Relaxed);
        let charts = &mut self.charts;
        let rate = charts.sampled.map(|(at, before)| {
            as_f64(records.saturating_sub(before)) / now.duration_since(at).as_secs_f64().max(0.001)
        });
        charts.sampled = Some((now, records));
        charts.records_per_s.push(rate);
        let shards = progress.shards();
        charts.behind_s.push(shards.iter().filter_map(behind_s).reduce(f64::max));
        let bytes = shards.iter().filter_map(behind_bytes).reduce(u64::saturating_add);
        charts.behind_bytes.push(bytes.map(as_f64));
        let now_ms = self.view.clock.now_ms();
        let oldest = shards.iter().filter_map(|shard| shard.oldest_uncommitted_ms).min();
        charts.oldest_uncommitted_s.push(oldest.map(|oldest| age_s(now_ms, oldest)));
        self.aborted.push(Some(as_f64(progress.committed().aborted)));
        self.count();
    }

    /// Counts for the rates.
    fn count(&mut self) {
        let progress = &self.view.progress;
        let pair = |shard: &LiveShard| (shard.key.clone(), (shard.records, shard.bytes));
        self.shard_rates.add(progress.shards().iter().map(pair).collect());
        let edges = progress.edges().into_iter();
        let edges: HashMap<String, Pair> = edges.map(|(id, total)| (id.to_string(), (total.0, total.1))).collect();
        self.edge_rates.add(edges);
        let all = (progress.records.load(Ordering::Relaxed), progress.bytes_read.load(Ordering::Relaxed));
        self.all_rates.add(HashMap::from([((), all)]));
    }
}

/// How far a shard is behind in seconds, where its source measures time.
fn behind_s(shard: &LiveShard) -> Option<f64> {
    match shard.behind? {
        Behind::Nothing => Some(0.0),
        Behind::Time(ms) => Some(as_f64(ms) / 1000.0),
        Behind::Bytes(_) => None,
    }
}

/// How far a shard is behind in bytes, where its source counts them.
fn behind_bytes(shard: &LiveShard) -> Option<u64> {
    match shard.behind? {
        Behind::Bytes(bytes) => Some(bytes),
        Behind::Nothing | Behind::Time(_) => None,
    }
}

/// The age of something in seconds; zero if a clock is ahead.
fn age_s(now_ms: i64, then_ms: i64) -> f64 {
    let ms = now_ms.saturating_sub(then_ms).max(0);
    as_f64(u64::try_from(ms).unwrap_or_default()) / 1000.0
}
