//! Which shards get rows in the lease table, and in which order.
//!
//! A listed shard without a row gets one, unless it was read before. KCL removes the row of a shard that it has read to its
//! end once the children are being read, while the stream still lists the shard; made again, that row would have every record
//! of the shard read a second time. A shard is read only once its parents have been read to their ends, so whatever stands
//! above a shard that was read from is done.
//!
//! For that to follow from the rows alone, they are made parents first, each generation when the one before it is in the
//! table: a crash leaves shards without their children, never children without a parent that is still to be read.
//!
//! It does not own making them, nor when a row is removed (`leases/sync.rs`).

use std::collections::{HashMap, HashSet};

use checkpoints::{Lease, NewLease, Position, ShardId, ShardKey, StreamName};
use mutations::mutated;

use crate::source::SourceShard;

/// The rows that are missing, generation by generation. `leases` are all of the table, `shards` all that the stream lists.
pub(crate) fn missing(stream: &StreamName, shards: Vec<SourceShard>, leases: &[Lease]) -> Vec<Vec<NewLease>> {
    let of_stream: Vec<&Lease> = leases.iter().filter(|lease| lease.key.stream == *stream).collect();
    let done = above_those_read(&shards, &of_stream);
    let known: HashSet<&ShardId> = of_stream.iter().map(|lease| &lease.key.shard).collect();
    let mut left: Vec<SourceShard> =
        shards.into_iter().filter(|shard| !known.contains(&shard.id) && !done.contains(&shard.id)).collect();
    let mut generations = Vec::new();
    while !left.is_empty() {
        let waiting: HashSet<ShardId> = left.iter().map(|shard| shard.id.clone()).collect();
        let (mut first, mut rest): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|shard| !shard.parents.iter().any(|parent| waiting.contains(parent)));
        if first.is_empty() {
            // Shards that are each other's parents, which no stream has: a row for each is no loss.
            first = std::mem::take(&mut rest);
        }
        generations.push(first.into_iter().map(|shard| new_lease(stream, shard)).collect());
        left = rest;
    }
    generations
}

fn new_lease(stream: &StreamName, shard: SourceShard) -> NewLease {
    let SourceShard { id, parents, first, hash_range } = shard;
    let first = if mutated!(ChildFromItsTip) && !parents.is_empty() { Position::Latest } else { first };
    let key = ShardKey::new(stream.clone(), id);
    NewLease { key, checkpoint: first, parents: parents.into_iter().collect(), hash_range }
}

/// The shards that others came of which were read from.
fn above_those_read(shards: &[SourceShard], leases: &[&Lease]) -> HashSet<ShardId> {
    let mut parents: HashMap<&ShardId, Vec<&ShardId>> = HashMap::new();
    for shard in shards {
        parents.entry(&shard.id).or_default().extend(&shard.parents);
    }
    for lease in leases {
        parents.entry(&lease.key.shard).or_default().extend(&lease.parents);
    }
    let was_read = |lease: &&&Lease| matches!(lease.checkpoint, Position::At { .. } | Position::End);
    let mut from: Vec<&ShardId> = leases.iter().filter(was_read).map(|lease| &lease.key.shard).collect();
    let mut above = HashSet::new();
    while let Some(shard) = from.pop() {
        for parent in parents.get(shard).into_iter().flatten() {
            if above.insert((*parent).clone()) {
                from.push(parent);
            }
        }
    }
    above
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: &str) -> ShardId {
        ShardId::new(id).unwrap()
    }

    /// A great-grandparent `a`, its child `b`, and so on to `d`; and `x`, which stands alone.
    fn listed() -> Vec<SourceShard> {
        let with = |own: &str, parents: &[&str]| SourceShard {
            parents: parents.iter().map(|parent| id(parent)).collect(),
            ..SourceShard::alone(id(own))
        };
        vec![with("d", &["c"]), with("b", &["a"]), with("a", &[]), with("c", &["b"]), with("x", &[])]
    }

    fn stream() -> StreamName {
        StreamName::new("s").unwrap()
    }

    fn row(shard: &str, checkpoint: Position) -> Lease {
        Lease::new(NewLease::new(ShardKey::new(stream(), id(shard)), checkpoint))
    }

    fn ids(leases: &[Lease]) -> Vec<Vec<String>> {
        let ids = |generation: Vec<NewLease>| generation.iter().map(|new| new.key.shard.to_string()).collect();
        missing(&stream(), listed(), leases).into_iter().map(ids).collect()
    }

    #[test]
    fn rows_are_made_parents_first() {
        assert_eq!(ids(&[]), [vec!["a", "x"], vec!["b"], vec!["c"], vec!["d"]]);
        assert_eq!(ids(&[row("b", Position::Beginning)]), [vec!["a", "c", "x"], vec!["d"]]);
    }

    #[test]
    fn a_shard_is_not_read_again_whose_row_kcl_has_removed() {
        let read = Position::at(7_u64.into());
        assert_eq!(ids(&[row("c", read.clone())]), [vec!["d", "x"]], "parent and grandparent are done");
        assert_eq!(ids(&[row("b", Position::End)]), [vec!["c", "x"], vec!["d"]]);
        let other = StreamName::new("other").unwrap();
        let of_another = Lease::new(NewLease::new(ShardKey::new(other, id("c")), read));
        assert_eq!(ids(&[of_another]).len(), 4, "another stream's shard says nothing");
    }

    #[test]
    fn a_child_that_was_not_read_from_says_nothing_of_its_parents() {
        for start in [Position::Beginning, Position::Latest, Position::Since { ms: 5 }] {
            assert_eq!(ids(&[row("c", start)]), [vec!["d", "a", "x"], vec!["b"]]);
        }
    }

    #[test]
    fn shards_that_are_each_others_parents_get_rows_too() {
        let ring = |own: &str, parent: &str| SourceShard { parents: vec![id(parent)], ..SourceShard::alone(id(own)) };
        let made = missing(&stream(), vec![ring("a", "b"), ring("b", "a")], &[]);
        assert_eq!(made.iter().map(Vec::len).collect::<Vec<_>>(), [2]);
    }
}
