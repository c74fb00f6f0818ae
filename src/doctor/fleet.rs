//! The workers: who is alive, which shards nobody reads, how far they are behind, and what was decided and is not finished.
//!
//! Owns: telling what is wrong for long from what is wrong for a moment. Does not own: the states of shards (`inspect::leases`), asking a
//! source how much is left (`source`).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use checkpoints::{Holder, Lease, ShardKey, StreamName};
use futures::future::join_all;
use pipeline::time::parse_rfc3339;

use crate::clock::SharedClock;
use crate::commit::log::intents;
use crate::commit::{CommitError, EpochId, Stores, is_operations_stream};
use crate::diagnosis::{Diagnosis, FindingKind};
use crate::doctor::Patient;
use crate::inspect::how_far_behind;
use crate::inspect::leases::{Finding as LeaseFinding, LeaseStatus, LeaseTable, ShardState, scan};
use crate::named_checkpoints::Retentions;
use crate::source::Behind;

/// An epoch that was decided this long ago and is not finished is stalled.
const STALLED_AFTER: Duration = Duration::from_secs(300);
/// The longest wait for a hand-off to end.
const HAND_OFF_MAX: Duration = Duration::from_secs(60);
/// Shards whose sources are asked at once.
const CONCURRENT: usize = 16;

/// Examines leases, lag and retention.
pub(super) async fn examine(patient: &Patient, stores: &Stores, watch: Duration) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    let retentions = Retentions::ask(&patient.sources).await;
    let tables = match scan_twice(patient, stores, watch).await {
        Ok(tables) => tables,
        Err(error) => {
            diagnosis.cannot_check("the workers and their leases", error.to_string());
            return diagnosis;
        }
    };
    let unfinished: Vec<Lease> =
        tables.1.leases.iter().map(|status| &status.lease).filter(|lease| !lease.is_done()).cloned().collect();
    let parts = unfinished.chunks(unfinished.len().div_ceil(CONCURRENT).max(1));
    let behind: HashMap<ShardKey, Behind> =
        join_all(parts.map(|part| how_far_behind(&patient.sources, part))).await.into_iter().flatten().collect();
    judge_fleet(&tables, &behind, &mut diagnosis);
    let streams = patient.sources.iter().map(|source| source.stream());
    let retentions: BTreeMap<&StreamName, Duration> =
        streams.filter_map(|stream| Some((stream, retentions.of(stream)?))).collect();
    judge_lag(&behind, &retentions, &mut diagnosis);
    let interval = patient.config.worker.commit.interval;
    for (stream, retention) in retentions.into_iter().filter(|(_, retention)| interval > *retention / 4) {
        let what =
            format!("[commit] interval is {interval:?}, and stream {stream} keeps records for {}", hours(retention));
        diagnosis.find(FindingKind::IntervalNearRetention, what);
    }
    diagnosis
}

/// Scans the lease table, and again if something seems to be wrong: after the time that a hand-off may take, if there is one.
async fn scan_twice(
    patient: &Patient,
    stores: &Stores,
    watch: Duration,
) -> Result<(LeaseTable, LeaseTable), CommitError> {
    let leases = stores.leases.list().await?;
    let others = stores.foreign_streams(&leases).await?;
    let first = scan(&*stores.leases, watch, &others).await?;
    let has = |state| first.leases.iter().any(|status| status.state == state);
    let is_sound = first.findings.is_empty() && ![ShardState::Silent, ShardState::Free].into_iter().any(has);
    if has(ShardState::HandingOver) {
        let of_leases = &patient.config.worker.leases;
        tokio::time::sleep((of_leases.hand_off + of_leases.failover).min(HAND_OFF_MAX)).await;
    } else if is_sound || first.alive.is_empty() {
        return Ok((first.clone(), first));
    }
    let second = scan(&*stores.leases, watch, &others).await?;
    Ok((first, second))
}

/// Judges what two scans have in common.
fn judge_fleet(
    (first, second): &(LeaseTable, LeaseTable),
    behind: &HashMap<ShardKey, Behind>,
    diagnosis: &mut Diagnosis,
) {
    let before: HashMap<&ShardKey, &LeaseStatus> =
        first.leases.iter().map(|status| (&status.lease.key, status)).collect();
    let is_waiting = |state| matches!(state, ShardState::Silent | ShardState::Free);
    if second.alive.is_empty() {
        let waiting = second.leases.iter().filter(|status| {
            is_waiting(status.state)
                && behind.get(&status.lease.key).is_some_and(|behind| *behind != Behind::Nothing && !is_zero(*behind))
        });
        let waiting: Vec<&ShardKey> = waiting.map(|status| &status.lease.key).collect();
        diagnosis.find_all(FindingKind::NoWorker, &waiting, |shards| format!("nobody reads {shards}"));
    } else {
        let mut unread = Vec::new();
        let mut stuck = Vec::new();
        for LeaseStatus { lease, state } in &second.leases {
            let Some(earlier) = before.get(&lease.key) else { continue };
            if is_waiting(*state) && is_waiting(earlier.state) {
                unread.push(&lease.key);
            }
            let is_handed = matches!(lease.holder, Holder::HandingOver { .. });
            if is_handed && lease.holder == earlier.lease.holder && *state == ShardState::HandingOver {
                stuck.push(&lease.key);
            }
        }
        diagnosis.find_all(FindingKind::ShardWithoutOwner, &unread, |shards| {
            format!("workers run, and none reads {shards}")
        });
        diagnosis.find_all(FindingKind::HandOffStuck, &stuck, |shards| format!("asked for and not released: {shards}"));
    }
    for finding in second.findings.iter().filter(|finding| first.findings.contains(finding)) {
        let kind = match finding {
            LeaseFinding::Gap { .. } => FindingKind::HashKeysUnread,
            LeaseFinding::Doubled { .. } => FindingKind::HashKeysDoubled,
            LeaseFinding::NoChildren { .. } => FindingKind::ChildrenNotBegun,
            LeaseFinding::Restless { .. } => FindingKind::ShardRestless,
        };
        diagnosis.find(kind, finding.to_string());
    }
}

fn is_zero(behind: Behind) -> bool {
    matches!(behind, Behind::Time(0) | Behind::Bytes(0))
}

/// Notes shards that are behind by more than half of what their stream keeps.
fn judge_lag(
    behind: &HashMap<ShardKey, Behind>,
    retentions: &BTreeMap<&StreamName, Duration>,
    diagnosis: &mut Diagnosis,
) {
    for (stream, retention) in retentions {
        let late = |(key, behind): (&ShardKey, &Behind)| match behind {
            Behind::Time(ms) if key.stream == **stream && Duration::from_millis(*ms) > *retention / 2 => {
                Some((key.shard.clone(), Duration::from_millis(*ms)))
            }
            _ => None,
        };
        let mut late: Vec<_> = behind.iter().filter_map(late).collect();
        late.sort();
        let late: Vec<String> = late.iter().map(|(shard, behind)| format!("{shard} by {}", hours(*behind))).collect();
        diagnosis.find_all(FindingKind::RetentionRunningOut, &late, |shards| {
            format!("stream {stream} keeps records for {}, and these are behind: {shards}", hours(*retention))
        });
    }
}

fn hours(time: Duration) -> String {
    format!("{} h", time.as_secs() / 3600)
}

/// Notes epochs and operations that were decided long ago and are pending.
pub(super) async fn stalled_epochs(stores: &Stores, clock: &SharedClock) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    // Intents first: an epoch that is finished meanwhile is not pending any more.
    let (found, leases) = match both(stores).await {
        Ok(both) => both,
        Err(error) => {
            diagnosis.cannot_check("epochs that are not finished", error.to_string());
            return diagnosis;
        }
    };
    let now_ms = clock.now_ms();
    let mut stalled: BTreeMap<(bool, EpochId), u64> = BTreeMap::new();
    for lease in leases {
        let epoch = lease.pending.as_ref().and_then(|pending| EpochId::of_manifest(&pending.manifest).ok());
        let Some(epoch) = epoch else { continue };
        let Some(written_ms) = found.get(&epoch) else { continue };
        let age = Duration::from_millis(now_ms.saturating_sub(*written_ms).max(0).unsigned_abs());
        if age > STALLED_AFTER {
            stalled.insert((is_operations_stream(&lease.key.stream), epoch), age.as_secs() / 60);
        }
    }
    for (kind, is_operation) in [(FindingKind::EpochStalled, false), (FindingKind::OperationStuck, true)] {
        let of_kind = stalled.iter().filter(|((operation, _), _)| *operation == is_operation);
        let names: Vec<String> =
            of_kind.map(|((_, epoch), minutes)| format!("{epoch}, decided {minutes} min ago")).collect();
        diagnosis.find_all(kind, &names, |names| format!("not finished: {names}"));
    }
    diagnosis
}

/// When each intent was written, and the leases.
async fn both(stores: &Stores) -> Result<(HashMap<EpochId, i64>, Vec<Lease>), CommitError> {
    let (found, _) = intents(stores).await?;
    let leases = stores.own_leases().await?;
    let written = found.into_iter().filter_map(|one| Some((one.epoch, parse_rfc3339(one.written_at.as_bytes())?)));
    Ok((written.collect(), leases))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use checkpoints::{LeaseOwner, NewLease, Position, ShardId};

    use super::*;

    fn key(shard: &str) -> ShardKey {
        ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new(shard).unwrap())
    }

    fn owner(name: &str) -> LeaseOwner {
        LeaseOwner::new(name).unwrap()
    }

    /// A table in which shard `a` is in this state, and `w-2` reads another if it is alive.
    fn table(state: ShardState, holder: Holder, is_alive: bool) -> LeaseTable {
        let lease =
            |shard: &str, holder| Lease { holder, ..Lease::new(NewLease::new(key(shard), Position::Beginning)) };
        let other = LeaseStatus { lease: lease("b", Holder::Held(owner("w-2"))), state: ShardState::Read };
        let leases = vec![LeaseStatus { lease: lease("a", holder), state }];
        LeaseTable {
            leases: leases.into_iter().chain(is_alive.then_some(other)).collect(),
            alive: if is_alive { [owner("w-2")].into() } else { BTreeSet::new() },
            workers: BTreeMap::new(),
            internal: Vec::new(),
            other_streams: BTreeSet::new(),
            findings: Vec::new(),
        }
    }

    fn judged(first: LeaseTable, second: LeaseTable, behind: Option<Behind>) -> Vec<FindingKind> {
        let mut diagnosis = Diagnosis::default();
        let behind = behind.map(|behind| (key("a"), behind)).into_iter().collect();
        judge_fleet(&(first, second), &behind, &mut diagnosis);
        diagnosis.findings.into_iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn a_shard_counts_as_unread_only_if_it_is_for_long() {
        let free = || table(ShardState::Free, Holder::Nobody, true);
        let read = || table(ShardState::Read, Holder::Held(owner("w-2")), true);
        let silent = || table(ShardState::Silent, Holder::Held(owner("w-1")), true);
        assert_eq!(judged(free(), read(), None), []);
        assert_eq!(judged(read(), free(), None), []);
        for first in [free(), silent()] {
            assert_eq!(judged(first, free(), None), [FindingKind::ShardWithoutOwner]);
        }
    }

    #[test]
    fn without_a_worker_it_counts_whether_something_is_left_to_read() {
        let nobody = || table(ShardState::Free, Holder::Nobody, false);
        for nothing in [None, Some(Behind::Nothing), Some(Behind::Bytes(0))] {
            assert_eq!(judged(nobody(), nobody(), nothing), [], "{nothing:?}");
        }
        for something in [Behind::Time(1), Behind::Bytes(1)] {
            assert_eq!(judged(nobody(), nobody(), Some(something)), [FindingKind::NoWorker]);
        }
    }

    #[test]
    fn a_hand_off_is_stuck_if_it_is_the_same_one_later() {
        let handing = |to: &str| {
            let holder = Holder::HandingOver { from: owner("w-2"), to: owner(to) };
            table(ShardState::HandingOver, holder, true)
        };
        assert_eq!(judged(handing("w-3"), handing("w-3"), None), [FindingKind::HandOffStuck]);
        assert_eq!(judged(handing("w-3"), handing("w-4"), None), []);
        assert_eq!(judged(table(ShardState::Read, Holder::Held(owner("w-2")), true), handing("w-3"), None), []);
    }

    #[test]
    fn findings_of_the_table_count_if_both_scans_have_them() {
        let gap = || LeaseFinding::Gap { stream: key("a").stream, keys: (0, 9) };
        let with = |findings: Vec<LeaseFinding>| LeaseTable {
            findings,
            ..table(ShardState::Read, Holder::Held(owner("w-2")), true)
        };
        assert_eq!(judged(with(vec![gap()]), with(Vec::new()), None), []);
        assert_eq!(judged(with(vec![gap()]), with(vec![gap()]), None), [FindingKind::HashKeysUnread]);
        let children = || LeaseFinding::NoChildren { key: key("a"), missing: vec!["b".to_owned()] };
        let doubled = || LeaseFinding::Doubled { shards: (key("a"), key("b")) };
        let restless = || LeaseFinding::Restless { key: key("a"), switches: 12 };
        let all = || with(vec![children(), doubled(), restless()]);
        let expected = [FindingKind::ChildrenNotBegun, FindingKind::HashKeysDoubled, FindingKind::ShardRestless];
        assert_eq!(judged(all(), all(), None), expected);
    }

    #[test]
    fn half_of_the_retention_is_too_far_behind() {
        let stream = key("a").stream;
        let retentions = [(&stream, Duration::from_secs(48 * 3600))].into();
        let found = |ms| {
            let mut diagnosis = Diagnosis::default();
            judge_lag(&[(key("a"), Behind::Time(ms))].into(), &retentions, &mut diagnosis);
            diagnosis.findings
        };
        assert_eq!(found(24 * 3_600_000), []);
        let late = found(30 * 3_600_000);
        assert_eq!(late[0].kind, FindingKind::RetentionRunningOut);
        assert_eq!(late[0].what, "stream orders keeps records for 48 h, and these are behind: a by 30 h");
    }
}
