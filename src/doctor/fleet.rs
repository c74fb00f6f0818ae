//! What the lease table and the streams show: who reads what, what is stuck, how far behind it is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use checkpoints::{LeaseOwner, ManifestName};

use crate::aws::Aws;
use crate::clock::SharedClock;
use crate::commit::{CommitError, EpochId, Stores};
use crate::config::Config;
use crate::findings::{self, Findings};
use crate::inspect::how_far_behind;
use crate::inspect::leases::{Finding as OfTable, LeaseStatus, LeaseTable, ShardState, scan};
use crate::named_checkpoints::{Retentions, ending_checkpoints};
use crate::retry::RetryPolicy;
use crate::settings::units::write_duration;
use crate::setup::{open_existing_lake, open_existing_leases, open_sources, stream_names};
use crate::source::{Behind, ShardSource};

/// An epoch that began longer ago than the interval and this is stuck.
const PENDING_MAX_MS: i64 = 300_000;
/// The lag that needs attention.
const LAG_MAX_MS: u64 = 900_000;
/// A shorter retention leaves no time to repair anything.
const RETENTION_MIN: Duration = Duration::from_secs(48 * 3600);

pub(super) async fn examine(config: &Config, aws: Option<&Aws>, clock: &SharedClock, watch: Duration) -> Findings {
    let mut all = Findings::default();
    let lake = match open_existing_lake(config, aws).await {
        Ok(lake) => lake,
        Err(error) => {
            all.unknown("the lake", &error);
            return all;
        }
    };
    let sources: Vec<Arc<dyn ShardSource>> = match open_sources(config, &lake, clock, true, aws).await {
        Ok(opened) => opened.into_iter().map(|opened| opened.source).collect(),
        Err(error) => {
            all.unknown("the sources", &error);
            Vec::new()
        }
    };
    let leases = match open_existing_leases(config, aws).await {
        Ok(leases) => leases,
        Err(error) => {
            all.unknown("the lease table", &error);
            return all;
        }
    };
    let stores = Stores::new(lake, leases, RetryPolicy::CALL).with_streams(stream_names(config));
    let table = async {
        let others = stores.foreign_streams(&stores.leases.list().await?).await?;
        Ok::<_, CommitError>(scan(&*stores.leases, watch, &others).await?)
    };
    match table.await {
        Ok(table) => {
            examine_table(config, &table, clock.now_ms(), &mut all);
            examine_lag(&sources, &table, &mut all).await;
        }
        Err(error) => all.unknown("the lease table", &error),
    }
    match ending_checkpoints(&*stores.lake, &sources, clock.now_ms()).await {
        Ok(ending) => {
            for one in ending {
                all.add(&findings::CHECKPOINT_ENDING, format!("{}: usable until {}", one.name, one.usable.until()));
            }
        }
        Err(error) => all.unknown("saved checkpoints", &error),
    }
    all
}

fn examine_table(config: &Config, table: &LeaseTable, now_ms: i64, all: &mut Findings) {
    let open: Vec<&LeaseStatus> = table.leases.iter().filter(|status| status.state != ShardState::Done).collect();
    // A lake of files that was read to its end by a run that has ended has nobody, and needs nobody.
    let follows = config.sources.iter().any(|source| source.url.backend().needs_aws());
    if table.alive.is_empty() && !open.is_empty() && follows {
        all.add(&findings::NO_WORKER, format!("{} shards are to be read, and no worker is alive", open.len()));
    } else if follows || !table.alive.is_empty() {
        for status in open.iter().filter(|status| status.state == ShardState::Free) {
            all.add(&findings::SHARD_FREE, format!("{} has no owner", status.lease.key));
        }
    }
    let silent: BTreeSet<&LeaseOwner> = open
        .iter()
        .filter(|status| status.state == ShardState::Silent)
        .filter_map(|status| status.lease.holder.committer())
        .collect();
    for owner in silent {
        all.add(&findings::SILENT, format!("worker {owner} does not renew its leases"));
    }
    for finding in &table.findings {
        let kind = match finding {
            OfTable::Restless { .. } => &findings::RESTLESS,
            OfTable::Gap { .. } | OfTable::Doubled { .. } | OfTable::NoChildren { .. } => &findings::HASH_RANGE,
        };
        all.add(kind, finding.to_string());
    }
    let interval_ms = i64::try_from(config.worker.commit.interval.as_millis()).unwrap_or(i64::MAX);
    let is_old = |name: &ManifestName| {
        let begun = EpochId::of_manifest(name).ok().and_then(|epoch| epoch.begun_ms());
        begun.is_none_or(|begun| now_ms.saturating_sub(begun) > interval_ms.saturating_add(PENDING_MAX_MS))
    };
    let pending = |leases: &[LeaseStatus]| -> BTreeSet<ManifestName> {
        leases.iter().filter_map(|status| Some(status.lease.pending.as_ref()?.manifest.clone())).collect()
    };
    for name in pending(&table.leases).iter().filter(|name| is_old(name)) {
        all.add(&findings::EPOCH_PENDING, format!("{name} is decided, and not finished"));
    }
    for name in pending(&table.internal).iter().filter(|name| is_old(name)) {
        all.add(&findings::OPERATION_PENDING, format!("{name} is decided, and not finished"));
    }
}

async fn examine_lag(sources: &[Arc<dyn ShardSource>], table: &LeaseTable, all: &mut Findings) {
    let retentions = Retentions::ask(sources).await;
    for source in sources {
        if let Some(retention) = retentions.of(source.stream()).filter(|retention| *retention < RETENTION_MIN) {
            let text = format!("stream {} keeps records for {}", source.stream(), write_duration(retention));
            all.add(&findings::RETENTION_SHORT, text);
        }
    }
    let leases: Vec<_> =
        table.leases.iter().map(|status| status.lease.clone()).filter(|lease| !lease.is_done()).collect();
    for (key, behind) in how_far_behind(sources, &leases).await {
        let Behind::Time(ms) = behind else { continue };
        let used =
            retentions.of(&key.stream).map_or(0, |retention| u128::from(ms) * 100 / retention.as_millis().max(1));
        let lag = write_duration(Duration::from_secs(ms / 1000));
        if used >= 50 {
            all.add(&findings::LAG_CRITICAL, format!("{key} is {lag} behind: {used} % of the retention"));
        } else if ms > LAG_MAX_MS {
            all.add(&findings::LAG, format!("{key} is {lag} behind"));
        }
    }
}
