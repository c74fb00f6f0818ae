//! The lease table seen from outside: what its rows say together.
//!
//! Owns: judging a table as a whole: who is alive, what state each shard is in, holes in a stream's hash range, rows that
//! belong to nothing. Does not own: changing any of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use checkpoints::{Holder, Lease, LeaseOwner, ShardKey, StreamName};

/// What a shard is waiting for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardState {
    /// A worker that is alive reads it.
    Read,
    /// Its holder is asked for it, and still has it.
    HandingOver,
    /// Its holder does not move: it is taken after the failover time.
    Silent,
    /// Nobody holds it, though it is to be read.
    Free,
    /// Its parents are not read to their ends.
    WaitsForParents,
    /// It is read to its end.
    Done,
}

impl ShardState {
    /// In a word or two.
    pub fn as_str(&self) -> &'static str {
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
    /// Hash keys that no shard to be read covers: their records are not read.
    Hole {
        /// The stream.
        stream: StreamName,
        /// First and last hash key.
        keys: (u128, u128),
    },
    /// Hash keys that two shards to be read cover.
    Doubled {
        /// The two shards.
        shards: (ShardKey, ShardKey),
    },
    /// A shard that ended and whose children have no rows.
    NoChildren {
        /// The shard.
        key: ShardKey,
        /// Those of its children that have none.
        missing: Vec<String>,
    },
    /// A shard that no worker gets through.
    Restless {
        /// The shard.
        key: ShardKey,
        /// How often its holder changed since its checkpoint moved.
        switches: u64,
    },
}

/// Changes of the holder from which on a shard is called restless.
const RESTLESS: u64 = 10;

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Finding::Hole { stream, keys: (from, to) } => write!(
                f,
                "hole: no shard of stream {stream} that is to be read has the hash keys {from} to {to}; the next listing of \
                 the stream's shards by a worker fills it, unless a row was deleted by hand"
            ),
            Finding::Doubled { shards: (one, other) } => {
                write!(f, "overlap: {one} and {other} have hash keys in common, and neither came from the other")
            }
            Finding::NoChildren { key, missing } => write!(
                f,
                "orphans: {key} has ended, but its children {} have no rows; a worker makes them when it lists the stream",
                missing.join(", ")
            ),
            Finding::Restless { key, switches } => write!(
                f,
                "restless: {key} has changed its holder {switches} times and was not committed meanwhile: look at its \
                 workers' logs"
            ),
        }
    }
}

/// The owners whose counters moved between two looks at the table.
pub fn alive(before: &[Lease], after: &[Lease]) -> BTreeSet<LeaseOwner> {
    let counters: HashMap<&ShardKey, u64> = before.iter().map(|lease| (&lease.key, lease.counter)).collect();
    let moved = |lease: &&Lease| counters.get(&lease.key) != Some(&lease.counter);
    after.iter().filter(moved).filter_map(|lease| lease.holder.committer()).cloned().collect()
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

/// What is to be told about the table as a whole.
pub fn findings(leases: &[Lease]) -> Vec<Finding> {
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

/// The shards that are read now must have every hash key once.
fn hash_range(stream: &StreamName, leases: &[Lease], by_key: &HashMap<&ShardKey, &Lease>, findings: &mut Vec<Finding>) {
    let to_be_read = |lease: &&Lease| {
        lease.key.stream == *stream && !lease.is_done() && lease.parents_done(|key| by_key.get(key).copied())
    };
    let mut ranges: Vec<(u128, u128, &ShardKey)> = leases
        .iter()
        .filter(to_be_read)
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
            Some(at) if start > at => findings.push(Finding::Hole { stream: stream.clone(), keys: (at, start - 1) }),
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
        findings.push(Finding::Hole { stream: stream.clone(), keys: (at, u128::MAX) });
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
        let hole = Finding::Hole { stream: stream.clone(), keys: (HALF + 1, u128::MAX) };
        assert!(matches!(&found[0], Finding::NoChildren { missing, .. } if *missing == ["2"]), "{found:?}");
        assert_eq!(found[1], hole);
        let found = findings(&[one.clone(), lease("3", (HALF, u128::MAX), &[])]);
        assert!(matches!(&found[..], [Finding::Doubled { .. }]), "{found:?}");
        let found = findings(&[lease("4", (7, HALF), &[])]);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], Finding::Hole { stream, keys: (0, 6) });
    }

    #[test]
    fn states_tell_the_living_from_the_silent() {
        let [a, b] = ["a", "b"].map(|name| LeaseOwner::new(name).unwrap());
        let mut before = [lease("0", (0, 1), &[]), lease("1", (0, 1), &[]), lease("2", (0, 1), &["0"])];
        before[0].holder = Holder::Held(a.clone());
        before[1].holder = Holder::Held(b);
        let mut after = before.clone();
        after[0].counter += 1;
        let alive = alive(&before, &after);
        assert_eq!(alive, BTreeSet::from([a]));
        let states: Vec<ShardState> = states(&after, &alive).into_values().collect();
        assert_eq!(states, [ShardState::Read, ShardState::Silent, ShardState::WaitsForParents]);
    }
}
