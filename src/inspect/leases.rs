//! The lease table as a whole: who is alive, what state each shard is in, and what is wrong.
//!
//! Owns: the state of each shard, gaps in a stream's hash range, and rows that nothing refers to. Does not own: changing any
//! of it (`maintenance::leases`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use checkpoints::{Holder, Lease, LeaseOwner, LeaseStore, ShardKey, StoreError, StreamName};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::commit::is_internal_stream;

/// The lease table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeaseTable {
    /// All leases with their states.
    pub leases: Vec<LeaseStatus>,
    /// Workers whose counters changed while the table was watched.
    pub alive: BTreeSet<LeaseOwner>,
    /// How many unfinished shards each worker holds.
    pub workers: BTreeMap<LeaseOwner, u64>,
    /// The leases of operations on the lake and of replays. No worker that reads streams takes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub internal: Vec<LeaseStatus>,
    /// Streams of other lakes, whose leases are not here.
    pub other_streams: BTreeSet<StreamName>,
    /// What an operator should know.
    #[serde(serialize_with = "as_sentences")]
    pub findings: Vec<Finding>,
}

/// A lease and the state of its shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseStatus {
    /// The lease.
    pub lease: Lease,
    /// The state of its shard.
    pub state: ShardState,
}

/// What a shard is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardState {
    /// A worker that is alive reads it.
    Read,
    /// Its holder was asked for the lease, and still has it.
    HandingOver,
    /// The counter of its holder does not change. Another worker takes the lease after the failover time.
    Silent,
    /// Nobody holds it, and it can be read.
    Free,
    /// Its parents were not read to their ends.
    WaitsForParents,
    /// It was read to its end.
    Done,
}

impl ShardState {
    /// The state in a word or two.
    pub fn as_str(self) -> &'static str {
        match self {
            ShardState::Read => "read",
            ShardState::HandingOver => "handing over",
            ShardState::Silent => "silent holder",
            ShardState::Free => "free",
            ShardState::WaitsForParents => "waits for parents",
            ShardState::Done => "done",
        }
    }
}

/// Something about a table that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// No shard that can be read has these hash keys: their records are not read.
    Gap {
        /// The stream.
        stream: StreamName,
        /// First and last hash key.
        keys: (u128, u128),
    },
    /// Two shards that can be read have hash keys in common.
    Doubled {
        /// The two shards.
        shards: (ShardKey, ShardKey),
    },
    /// A shard ended, and its children have no rows.
    NoChildren {
        /// The shard.
        key: ShardKey,
        /// The children without rows.
        missing: Vec<String>,
    },
    /// A shard changes its holder again and again, and nobody commits it.
    Restless {
        /// The shard.
        key: ShardKey,
        /// How often its holder changed since its checkpoint moved.
        switches: u64,
    },
}

/// A shard is restless after this many changes of its holder.
const RESTLESS: u64 = 10;

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Finding::Gap { stream, keys: (from, to) } => write!(
                f,
                "gap: no shard of stream {stream} covers the hash keys {from} to {to}; a worker fills the gap when it \
                 lists the shards of the stream, unless a row was deleted by hand"
            ),
            Finding::Doubled { shards: (one, other) } => {
                write!(f, "overlap: {one} and {other} have hash keys in common, and neither is the parent of the other")
            }
            Finding::NoChildren { key, missing } => write!(
                f,
                "orphans: {key} has ended, but its children {} have no rows; a worker creates them when it lists the \
                 shards of the stream",
                missing.join(", ")
            ),
            Finding::Restless { key, switches } => write!(
                f,
                "restless: {key} has changed its holder {switches} times without a commit; see the logs of its workers"
            ),
        }
    }
}

/// Lists the leases twice, `watch` apart, to see which workers are alive. If no lease is held, it does not wait. The leases of
/// `others` are left out.
///
/// # Errors
/// The lease store fails.
pub async fn scan(
    store: &dyn LeaseStore,
    watch: Duration,
    others: &BTreeSet<StreamName>,
) -> Result<LeaseTable, StoreError> {
    let is_own = |lease: &Lease| !others.contains(&lease.key.stream);
    let mut before = store.list().await?;
    before.retain(is_own);
    if before.iter().any(|lease| lease.holder != Holder::Nobody) {
        // Leases have no time in them: a holder is alive if its counters change.
        tokio::time::sleep(watch).await;
    }
    let mut leases = store.list().await?;
    leases.retain(is_own);
    let mut alive = alive(&before, &leases);
    for owner in leases.iter().filter_map(|lease| lease.holder.committer()).collect::<BTreeSet<_>>() {
        if store.owner_is_gone(owner).await? {
            alive.remove(owner);
        }
    }
    let mut workers: BTreeMap<LeaseOwner, u64> = BTreeMap::new();
    let of_workers = leases.iter().filter(|lease| !lease.is_done() && !is_internal_stream(&lease.key.stream));
    for owner in of_workers.filter_map(|lease| lease.holder.committer()) {
        *workers.entry(owner.clone()).or_default() += 1;
    }
    let (internal, leases): (Vec<Lease>, Vec<Lease>) =
        leases.into_iter().partition(|lease| is_internal_stream(&lease.key.stream));
    let (internal, findings) = (with_states(&internal, &alive), findings(&leases));
    let leases = with_states(&leases, &alive);
    Ok(LeaseTable { leases, alive, workers, internal, other_streams: others.clone(), findings })
}

fn with_states(leases: &[Lease], alive: &BTreeSet<LeaseOwner>) -> Vec<LeaseStatus> {
    let mut states = states(leases, alive);
    let status = |lease: &Lease| states.remove(&lease.key).map(|state| LeaseStatus { lease: lease.clone(), state });
    leases.iter().filter_map(status).collect()
}

/// The owners whose counters changed between two lists of the table.
fn alive(before: &[Lease], after: &[Lease]) -> BTreeSet<LeaseOwner> {
    let counters: HashMap<&ShardKey, u64> = before.iter().map(|lease| (&lease.key, lease.counter)).collect();
    let changed = |lease: &&Lease| counters.get(&lease.key) != Some(&lease.counter);
    after.iter().filter(changed).filter_map(|lease| lease.holder.committer()).cloned().collect()
}

/// The state of each shard.
pub fn states<'l>(leases: &'l [Lease], alive: &BTreeSet<LeaseOwner>) -> BTreeMap<&'l ShardKey, ShardState> {
    let by_key: HashMap<&ShardKey, &Lease> = leases.iter().map(|lease| (&lease.key, lease)).collect();
    let state = |lease: &Lease| {
        if lease.is_done() {
            return ShardState::Done;
        }
        match &lease.holder {
            Holder::Held(owner) if alive.contains(owner) => ShardState::Read,
            Holder::HandingOver { from, .. } if alive.contains(from) => ShardState::HandingOver,
            Holder::Held(_) | Holder::HandingOver { .. } => ShardState::Silent,
            Holder::Nobody if lease.parents_done(|key| by_key.get(key).copied()) => ShardState::Free,
            Holder::Nobody => ShardState::WaitsForParents,
        }
    };
    leases.iter().map(|lease| (&lease.key, state(lease))).collect()
}

/// What an operator should know about the table as a whole.
fn findings(leases: &[Lease]) -> Vec<Finding> {
    let by_key: HashMap<&ShardKey, &Lease> = leases.iter().map(|lease| (&lease.key, lease)).collect();
    let mut findings = Vec::new();
    for lease in leases {
        let key = &lease.key;
        if lease.owner_switches_since_checkpoint >= RESTLESS {
            findings.push(Finding::Restless { key: key.clone(), switches: lease.owner_switches_since_checkpoint });
        }
        let missing = |child: &&checkpoints::ShardId| {
            lease.is_done() && !by_key.contains_key(&ShardKey::new(key.stream.clone(), (*child).clone()))
        };
        let missing: Vec<String> = lease.children.iter().filter(missing).map(ToString::to_string).collect();
        if !missing.is_empty() {
            findings.push(Finding::NoChildren { key: key.clone(), missing });
        }
    }
    let streams: BTreeSet<&StreamName> = leases.iter().map(|lease| &lease.key.stream).collect();
    for stream in streams {
        hash_range(stream, leases, &by_key, &mut findings);
    }
    findings
}

/// Checks that the shards that can be read have every hash key once.
fn hash_range(stream: &StreamName, leases: &[Lease], by_key: &HashMap<&ShardKey, &Lease>, findings: &mut Vec<Finding>) {
    let can_be_read = |lease: &&Lease| {
        lease.key.stream == *stream && !lease.is_done() && lease.parents_done(|key| by_key.get(key).copied())
    };
    let mut ranges: Vec<(u128, u128, &ShardKey)> = leases
        .iter()
        .filter(can_be_read)
        .filter_map(|lease| lease.hash_range.map(|range| (range.start(), range.end(), &lease.key)))
        .collect();
    if ranges.is_empty() {
        return;
    }
    ranges.sort();
    let mut next: Option<u128> = Some(0);
    let mut widest: Option<(u128, &ShardKey)> = None;
    for (start, end, key) in ranges {
        match next {
            Some(at) if start > at => findings.push(Finding::Gap { stream: stream.clone(), keys: (at, start - 1) }),
            Some(at) if start == at => {}
            _ => {
                if let Some((_, other)) = widest {
                    findings.push(Finding::Doubled { shards: (other.clone(), key.clone()) });
                }
            }
        }
        if widest.is_none_or(|(far, _)| end >= far) {
            widest = Some((end, key));
            next = end.checked_add(1);
        }
    }
    if let Some(at) = next {
        findings.push(Finding::Gap { stream: stream.clone(), keys: (at, u128::MAX) });
    }
}

fn as_sentences<S: Serializer>(findings: &[Finding], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(findings.iter().map(ToString::to_string))
}

impl Serialize for LeaseStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let LeaseStatus { lease, state } = self;
        let handed_to = match &lease.holder {
            Holder::HandingOver { to, .. } => Some(to),
            Holder::Nobody | Holder::Held(_) => None,
        };
        let hash_range = lease.hash_range.map(|range| [range.start().to_string(), range.end().to_string()]);
        let mut row = serializer.serialize_struct("LeaseStatus", 14)?;
        row.serialize_field("stream", &lease.key.stream)?;
        row.serialize_field("shard", &lease.key.shard)?;
        row.serialize_field("owner", &lease.holder.committer())?;
        row.serialize_field("handed_to", &handed_to)?;
        row.serialize_field("state", state.as_str())?;
        row.serialize_field("counter", &lease.counter)?;
        row.serialize_field("checkpoint", &lease.checkpoint)?;
        row.serialize_field("pending", &lease.pending.as_ref().map(|pending| &pending.manifest))?;
        row.serialize_field("last_manifest", &lease.last_manifest)?;
        row.serialize_field("parents", &lease.parents)?;
        row.serialize_field("children", &lease.children)?;
        row.serialize_field("hash_range", &hash_range)?;
        row.serialize_field("hand_offs_since_checkpoint", &lease.owner_switches_since_checkpoint)?;
        row.serialize_field("throughput_kbps", &lease.throughput.get())?;
        row.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use checkpoints::{HashRange, NewLease, Position, ShardId};

    const HALF: u128 = u128::MAX / 2;

    fn lease(id: &str, range: (u128, u128), parents: &[&str]) -> Lease {
        let key = ShardKey::new(StreamName::new("s").unwrap(), ShardId::new(id).unwrap());
        let mut lease = Lease::new(NewLease::new(key, Position::Beginning));
        lease.hash_range = HashRange::new(range.0, range.1);
        lease.parents = parents.iter().map(|id| ShardId::new(*id).unwrap()).collect();
        lease
    }

    fn done(mut lease: Lease, children: &[&str]) -> Lease {
        lease.checkpoint = Position::End;
        lease.children = children.iter().map(|id| ShardId::new(*id).unwrap()).collect();
        lease
    }

    #[test]
    fn a_table_in_order_has_no_findings_at_any_time_of_a_split() {
        let parent = lease("0", (0, u128::MAX), &[]);
        let children = [lease("1", (0, HALF), &["0"]), lease("2", (HALF + 1, u128::MAX), &["0"])];
        assert_eq!(findings(std::slice::from_ref(&parent)), []);
        let [one, other] = children;
        assert_eq!(findings(&[parent.clone(), one.clone(), other.clone()]), []);
        assert_eq!(findings(&[done(parent, &["1", "2"]), one, other]), []);
    }

    #[test]
    fn holes_overlaps_and_orphans_are_found() {
        let stream = StreamName::new("s").unwrap();
        let parent = done(lease("0", (0, u128::MAX), &[]), &["1", "2"]);
        let one = lease("1", (0, HALF), &["0"]);
        let found = findings(&[parent, one.clone()]);
        let hole = Finding::Gap { stream: stream.clone(), keys: (HALF + 1, u128::MAX) };
        assert!(matches!(&found[0], Finding::NoChildren { missing, .. } if *missing == ["2"]), "{found:?}");
        assert_eq!(found[1], hole);
        let found = findings(&[one.clone(), lease("3", (HALF, u128::MAX), &[])]);
        assert!(matches!(&found[..], [Finding::Doubled { .. }]), "{found:?}");
        let found = findings(&[lease("4", (7, HALF), &[])]);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], Finding::Gap { stream, keys: (0, 6) });
    }

    #[tokio::test(start_paused = true)]
    async fn a_scan_separates_workers_that_are_alive_from_silent_ones() {
        let [a, b] = ["a", "b"].map(|name| LeaseOwner::new(name).unwrap());
        let store = checkpoints::MemoryStore::new();
        let mut keys = Vec::new();
        for (id, parents) in [("0", vec![]), ("1", vec![]), ("2", vec![ShardId::new("0").unwrap()])] {
            let key = ShardKey::new(StreamName::new("s").unwrap(), ShardId::new(id).unwrap());
            let mut new = NewLease::new(key.clone(), Position::Beginning);
            new.parents.extend(parents);
            store.create(&[new]).await.unwrap();
            keys.push(key);
        }
        store.take(&a, &keys[0], 0).await.unwrap().unwrap();
        store.take(&b, &keys[1], 0).await.unwrap().unwrap();
        let renew = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let renewal = checkpoints::Renewal { key: keys[0].clone(), counter: 1, throughput: Default::default() };
            store.renew(&a, &[renewal]).await.unwrap();
        };
        let others = BTreeSet::new();
        let (table, ()) = tokio::join!(scan(&store, Duration::from_secs(4), &others), renew);
        let table = table.unwrap();
        let states: Vec<ShardState> = table.leases.iter().map(|lease| lease.state).collect();
        assert_eq!(states, [ShardState::Read, ShardState::Silent, ShardState::WaitsForParents]);
        assert_eq!(table.alive, BTreeSet::from([a.clone()]));
        assert_eq!(table.workers, BTreeMap::from([(a, 1), (b, 1)]));
        let json = serde_json::to_value(&table).unwrap();
        assert_eq!(
            (&json["leases"][1]["state"], &json["leases"][2]["owner"]),
            (&"silent holder".into(), &serde_json::Value::Null)
        );
        assert_eq!(json["leases"][0].as_object().unwrap().len(), 14);
        assert_eq!((&json["alive"][0], json["findings"].as_array().unwrap().len()), (&"a".into(), 0));
        assert!(json.get("internal").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn leases_of_operations_and_replays_are_no_shards_and_their_holders_no_workers() {
        let store = checkpoints::MemoryStore::new();
        let owner = |name: &str| LeaseOwner::new(name).unwrap();
        for (stream, id, holder) in [
            ("s", "0", "worker"),
            ("_lake:0123456789abcdef", "orders", "operation"),
            ("_replay:01ab0000", "slice-00001", "replay"),
        ] {
            let key = ShardKey::new(StreamName::new(stream).unwrap(), ShardId::new(id).unwrap());
            store.create(&[NewLease::new(key.clone(), Position::Beginning)]).await.unwrap();
            store.take(&owner(holder), &key, 0).await.unwrap().unwrap();
        }
        let table = scan(&store, Duration::from_secs(4), &BTreeSet::new()).await.unwrap();
        assert_eq!(table.leases.iter().map(|one| one.lease.key.stream.as_str()).collect::<Vec<_>>(), ["s"]);
        let internal: Vec<&str> = table.internal.iter().map(|one| one.lease.key.stream.as_str()).collect();
        assert_eq!(internal, ["_lake:0123456789abcdef", "_replay:01ab0000"]);
        assert_eq!(table.workers, BTreeMap::from([(owner("worker"), 1)]));
        assert!(table.findings.is_empty());
    }
}
