//! Arbitrary values of the stored types, for the round-trip property tests. Compiled for tests only.

use std::collections::BTreeSet;

use proptest::collection::btree_set;
use proptest::option;
use proptest::prelude::*;

use crate::lease::{HashRange, Holder, Lease, LeaseOwner, ManifestName, NewLease, Pending, ThroughputKbps};
use crate::position::{Position, SequenceNumber};
use crate::shard::{ShardId, ShardKey, StreamName};

/// The largest number that a row can hold: see `row.rs`.
const NUMBER_MAX: u64 = i64::MAX.unsigned_abs();

pub(crate) fn sequence_number() -> impl Strategy<Value = SequenceNumber> {
    "0|[1-9][0-9]{0,127}".prop_map(|digits| SequenceNumber::try_from(digits).unwrap())
}

pub(crate) fn position() -> impl Strategy<Value = Position> {
    prop_oneof![
        1 => Just(Position::Beginning),
        1 => (0..=i64::MAX as u64).prop_map(|ms| Position::Since { ms }),
        1 => Just(Position::Latest),
        1 => Just(Position::End),
        6 => (sequence_number(), prop_oneof![Just(0), 0..=NUMBER_MAX])
            .prop_map(|(sequence, sub)| Position::At { sequence, sub }),
    ]
}

/// Any text that is a valid name, also outside ASCII.
fn name() -> impl Strategy<Value = String> {
    "[^\\p{Cc}]{1,20}"
}

pub(crate) fn shard_key() -> impl Strategy<Value = ShardKey> {
    (name(), name())
        .prop_map(|(stream, shard)| ShardKey::new(StreamName::new(stream).unwrap(), ShardId::new(shard).unwrap()))
}

fn shard_ids() -> impl Strategy<Value = BTreeSet<ShardId>> {
    btree_set(name().prop_map(|id| ShardId::new(id).unwrap()), 0..3)
}

fn holder() -> impl Strategy<Value = Holder> {
    let owner = || name().prop_map(|owner| LeaseOwner::new(owner).unwrap());
    prop_oneof![
        Just(Holder::Nobody),
        owner().prop_map(Holder::Held),
        (owner(), owner())
            .prop_filter("an owner does not hand over to itself", |(from, to)| from != to)
            .prop_map(|(from, to)| Holder::HandingOver { from, to }),
    ]
}

fn manifest() -> impl Strategy<Value = ManifestName> {
    name().prop_map(|manifest| ManifestName::new(manifest).unwrap())
}

fn hash_range() -> impl Strategy<Value = HashRange> {
    any::<[u128; 2]>().prop_map(|[a, b]| HashRange::new(a.min(b), a.max(b)).unwrap())
}

pub(crate) fn lease() -> impl Strategy<Value = Lease> {
    let places = (shard_key(), position(), option::of((position(), manifest())), option::of(manifest()));
    let counts = (0..=NUMBER_MAX, 0..=NUMBER_MAX, any::<f64>());
    (places, counts, holder(), shard_ids(), shard_ids(), option::of(hash_range())).prop_map(
        |(
            (key, checkpoint, pending, last_manifest),
            (counter, switches, kbps),
            holder,
            parents,
            children,
            hash_range,
        )| Lease {
            holder,
            counter,
            pending: pending
                .filter(|(through, _)| *through > checkpoint)
                .map(|(through, manifest)| Pending { through, manifest }),
            last_manifest,
            children,
            owner_switches_since_checkpoint: switches,
            throughput: ThroughputKbps::new(kbps),
            ..Lease::new(NewLease { parents, hash_range, ..NewLease::new(key, checkpoint) })
        },
    )
}
