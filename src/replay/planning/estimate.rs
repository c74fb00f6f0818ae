//! How long a replay takes and what it costs, before it runs.
//!
//! Owns: both estimates and what they are made from. Does not own: prices (`cost`), the estimate while it runs (`replay::progress`).
//!
//! The rate is that of the fastest of the last replays of the same lake, by what their logs say. Without one it is assumed. A range of a stream is
//! read at half of what a shard gives, because the live workers read the other half.

use crate::cost::{Item, Prices};
use crate::lake::ObjectStore;
use crate::replay::plan::{Estimate, Plan, SliceOf, list_plans};
use crate::replay::progress::AsideProgress;
use crate::replay::replay_lake_of;

/// Bytes of records a second that one worker is assumed to process, if no replay was measured: half of what benchmarks on two cores show.
const ASSUMED_BYTES_PER_SECOND: u64 = 40_000_000;
/// Bytes a second of a shard of a stream that keeps records for a limited time: half of the 2 MB of a shard of Kinesis.
const SHARD_BYTES_PER_SECOND: u64 = 1_000_000;
/// Seconds from the start to the first record.
const START_SECONDS: u64 = 5;
/// The least bytes from which a rate is measured.
const MEASURED_BYTES_MIN: u64 = 10_000_000;
/// Replays whose logs are read, the newest ones.
const PLANS_READ: usize = 3;
/// Requests at the price of a PUT for each object: begin, one part, complete; and again when it is promoted.
const PUTS_PER_OBJECT: u64 = 6;
/// Requests at the price of a PUT for each epoch: intent, commit record, entry of the log.
const PUTS_PER_EPOCH: u64 = 3;
/// Days for which the replaced objects are kept, and a month.
const KEPT_DAYS: f64 = 7.0;
const MONTH_DAYS: f64 = 30.0;

/// The estimate of a plan. `interval_s`: seconds between two commits. `prices`: if the lake is on AWS. `shards_are_shared`: the streams
/// of slices are read by live workers too, at a limited rate.
pub(super) async fn estimate(
    lake: &std::sync::Arc<dyn ObjectStore>,
    plan: &Plan,
    interval_s: u64,
    prices: Option<&Prices>,
    shards_are_shared: bool,
) -> Estimate {
    let measured = measured_rate(lake).await;
    let rate = measured.unwrap_or(ASSUMED_BYTES_PER_SECOND).max(1);
    let largest = plan.slices.iter().filter(|slice| matches!(slice.from, SliceOf::Stream { .. }));
    let largest = largest.map(|slice| slice.bytes).max().unwrap_or(0);
    let by_shard = if shards_are_shared { largest / SHARD_BYTES_PER_SECOND } else { 0 };
    let seconds = START_SECONDS + (plan.totals.bytes / rate).max(by_shard);
    Estimate {
        seconds: Some(seconds),
        bytes_per_second: Some(rate),
        rate_from: if measured.is_some() { "earlier replays of this lake" } else { "assumed; nothing was measured" }
            .to_owned(),
        dollars: prices.map(|prices| dollars(plan, seconds, interval_s, prices)),
    }
}

/// Bytes of records a second that earlier replays have processed in all their workers; `None` if there is none that shows it. The fastest
/// counts: others had a limit, or gave way to live workers.
async fn measured_rate(lake: &std::sync::Arc<dyn ObjectStore>) -> Option<u64> {
    let (plans, _) = list_plans(&**lake).await.ok()?;
    let mut rates = Vec::new();
    for saved in plans.iter().rev().take(PLANS_READ) {
        let mut progress = AsideProgress::default();
        let read = progress.advance(&replay_lake_of(lake, &saved.plan), &saved.plan).await;
        if read.is_ok() && progress.bytes >= MEASURED_BYTES_MIN {
            rates.extend(progress.bytes_per_second());
        }
    }
    rates.into_iter().max()
}

/// US dollars for the requests, and for keeping new and old objects for a week.
fn dollars(plan: &Plan, seconds: u64, interval_s: u64, prices: &Prices) -> f64 {
    let price = |item: Item, count: f64| prices.one(item).unwrap_or_default() * count;
    let objects = plan.superseded.len() as u64;
    let slices = plan.slices.len() as u64;
    let epochs = slices.div_ceil(100) * (1 + seconds / interval_s.max(1));
    let puts = objects * (PUTS_PER_OBJECT + PUTS_PER_OBJECT / 2) + epochs * PUTS_PER_EPOCH;
    let read: usize = plan
        .slices
        .iter()
        .map(|slice| match &slice.from {
            SliceOf::Raw { objects } => objects.len(),
            SliceOf::Stream { .. } => 0,
        })
        .sum();
    let bytes: u64 = plan.superseded.iter().map(|object| object.bytes).sum();
    let gb_months = 2.0 * as_f64(bytes) / 1e9 * KEPT_DAYS / MONTH_DAYS;
    price(Item::S3Puts, as_f64(puts))
        + price(Item::S3Gets, as_f64(read as u64 + objects))
        + price(Item::DynamoWrites, as_f64(3 * slices + 2 * epochs + seconds / 3))
        + price(Item::S3Standard, gb_months)
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn as_f64(count: u64) -> f64 {
    count as f64
}
