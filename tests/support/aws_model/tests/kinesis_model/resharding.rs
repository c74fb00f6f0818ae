//! Splits, merges, changed shard counts: which shards end and begin, and what clients see of it.

use std::collections::{BTreeMap, BTreeSet};

use aws_model::kinesis::{Put, Settings};
use aws_sdk_kinesis::types::{ScalingType, StreamStatus};

use crate::client::{STREAM, World, contents, refusal, shard};

const MIDDLE: &str = "170141183460469231731687303715884105728";
const HOUR_MS: u32 = 3_600_000;

impl World {
    pub(crate) async fn split(&self, number: u32, at: &str) {
        let split =
            self.client.split_shard().stream_name(STREAM).shard_to_split(shard(number)).new_starting_hash_key(at);
        split.send().await.unwrap();
    }

    pub(crate) async fn merge(&self, low: u32, high: u32) {
        let merge = self.client.merge_shards().stream_name(STREAM).shard_to_merge(shard(low));
        merge.adjacent_shard_to_merge(shard(high)).send().await.unwrap();
    }
}

#[tokio::test]
async fn the_end_of_a_closed_shard_names_its_children() {
    for end_with_last_records in [false, true] {
        let world = World::new(1, Settings { end_with_last_records, ..Settings::default() });
        world.put("key", "before").await;
        world.split(0, MIDDLE).await;
        world.put("key", "behind").await;
        let mut answer = world.get(world.oldest(&shard(0)).await).await;
        assert_eq!(contents(&answer), ["before"]);
        if !end_with_last_records {
            assert!(answer.child_shards().is_empty());
            answer = world.get(answer.next_shard_iterator.unwrap()).await;
            assert_eq!(answer.records.len(), 0);
        }
        assert_eq!(answer.next_shard_iterator, None);
        let children: Vec<_> = answer
            .child_shards()
            .iter()
            .map(|child| (child.shard_id.clone(), child.parent_shards.clone(), child.hash_key_range.clone().unwrap()))
            .collect();
        assert_eq!(children.len(), 2);
        assert_eq!((&children[0].0, &children[0].1), (&shard(1), &vec![shard(0)]));
        assert_eq!(children[1].2.starting_hash_key, MIDDLE);
        let held = [world.contents(&shard(1)).await, world.contents(&shard(2)).await].concat();
        assert_eq!(held, ["behind"]);
    }
}

#[tokio::test]
async fn a_merged_shard_has_two_parents_and_greater_sequence_numbers_than_both() {
    let world = World::new(2, Settings::default());
    for key in ["a", "b", "c", "d", "e"] {
        world.put(key, key).await;
    }
    world.merge(0, 1).await;
    let number = world.put("a", "behind").await;
    let shards = world.shards().await;
    assert_eq!(shards[2].parent_shard_id, Some(shard(0)));
    assert_eq!(shards[2].adjacent_parent_shard_id, Some(shard(1)));
    for parent in &shards[..2] {
        let range = parent.sequence_number_range.as_ref().unwrap();
        let ending = range.ending_sequence_number.as_ref().unwrap();
        let child = &shards[2].sequence_number_range.as_ref().unwrap().starting_sequence_number;
        assert!(range.starting_sequence_number < *ending && ending < child && *child < number);
        let read = world.get(world.oldest(&parent.shard_id).await).await;
        assert!(read.records.iter().all(|record| record.sequence_number < *ending));
        assert!(!read.records.is_empty());
        let end = world.get(read.next_shard_iterator.unwrap()).await;
        assert_eq!(end.child_shards()[0].parent_shards, [shard(0), shard(1)]);
    }
}

#[tokio::test]
async fn invalid_splits_and_merges_are_refused() {
    let world = World::new(3, Settings { status_ms: 100, ..Settings::default() });
    let split = |number, at: &str| {
        world.client.split_shard().stream_name(STREAM).shard_to_split(shard(number)).new_starting_hash_key(at)
    };
    let merge = |low, high| {
        world.client.merge_shards().stream_name(STREAM).shard_to_merge(shard(low)).adjacent_shard_to_merge(shard(high))
    };
    assert_eq!(refusal(split(0, "9").send().await).0, "ResourceInUseException", "it is CREATING yet");
    world.clock.advance_ms(100);
    assert_eq!(refusal(split(0, "1").send().await).0, "InvalidArgumentException");
    assert_eq!(refusal(split(0, MIDDLE).send().await).0, "InvalidArgumentException");
    assert_eq!(refusal(split(7, "9").send().await).0, "ResourceNotFoundException");
    assert_eq!(refusal(merge(0, 2).send().await).0, "InvalidArgumentException");
    split(0, "1000").send().await.unwrap();
    let (kind, message) = refusal(merge(1, 2).send().await);
    assert_eq!(kind, "ResourceInUseException");
    assert!(message.ends_with("not ACTIVE, instead in state UPDATING"), "{message}");
    let summary = world.client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
    assert_eq!(summary.stream_description_summary.unwrap().stream_status, StreamStatus::Updating);
    world.clock.advance_ms(100);
    assert_eq!(refusal(split(0, "500").send().await).0, "InvalidArgumentException", "it is closed");
}

#[tokio::test]
async fn a_changed_shard_count_leaves_equal_ranges_and_every_record_in_one_shard() {
    let world = World::new(3, Settings::default());
    let mut put = 0;
    let mut put_some = || {
        for _ in 0..200 {
            put += 1;
            world.kinesis.put_record(STREAM, Put::new(format!("key {put}"), put.to_string())).unwrap();
        }
    };
    put_some();
    for target in [5, 4, 8, 4, 3] {
        let update = world.client.update_shard_count().stream_name(STREAM).target_shard_count(target);
        let updated = update.scaling_type(ScalingType::UniformScaling).send().await.unwrap();
        assert_eq!(updated.target_shard_count, Some(target));
        put_some();
        let shards = world.kinesis.shards(STREAM).unwrap();
        let mut open: Vec<_> =
            shards.iter().filter(|shard| shard.ending.is_none()).map(|shard| shard.hash_keys).collect();
        open.sort_unstable();
        assert_eq!(open.len(), usize::try_from(target).unwrap());
        assert!(open.windows(2).all(|two| two[0].1 + 1 == two[1].0));
        let sizes: BTreeSet<_> = open.iter().map(|(first, last)| (last - first) >> 8).collect();
        assert!(sizes.len() <= 2, "{open:?}");
    }
    for target in [1, 7] {
        let update = world.client.update_shard_count().stream_name(STREAM).target_shard_count(target);
        let refused = refusal(update.scaling_type(ScalingType::UniformScaling).send().await);
        assert_eq!(refused.0, "InvalidArgumentException");
    }
    read_by_lineage(&world, put).await;
}

/// Reads parents before children, by GetRecords alone, and finds every record once, in the order of its key's shard.
async fn read_by_lineage(world: &World, put: usize) {
    let mut ready: Vec<String> = (0..3).map(shard).collect();
    let (mut ended, mut waiting, mut seen) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
    while let Some(name) = ready.pop() {
        let mut iterator = Some(world.oldest(&name).await);
        while let Some(current) = iterator {
            let answer = world.get(current).await;
            for data in contents(&answer) {
                assert!(seen.insert(data), "read twice");
            }
            if answer.next_shard_iterator.is_none() {
                for child in answer.child_shards() {
                    waiting.insert(child.shard_id.clone(), child.parent_shards.clone());
                }
            } else if answer.records.is_empty() {
                break;
            }
            iterator = answer.next_shard_iterator;
        }
        ended.insert(name);
        let now = waiting.iter().filter(|(_, parents)| parents.iter().all(|parent| ended.contains(parent)));
        let now: Vec<String> = now.map(|(child, _)| child.clone()).collect();
        for child in now {
            waiting.remove(&child);
            ready.push(child);
        }
    }
    assert!(waiting.is_empty());
    assert_eq!(seen.len(), put);
}

#[tokio::test]
async fn a_closed_shard_past_retention_is_no_longer_listed_and_its_children_keep_its_name() {
    let world = World::new(1, Settings::default());
    world.put("key", "old").await;
    world.clock.advance_ms(HOUR_MS);
    world.split(0, MIDDLE).await;
    let inside = world.oldest(&shard(0)).await;
    world.clock.advance_ms(24 * HOUR_MS);
    assert_eq!(world.shards().await.len(), 3, "closed 24 hours ago to the millisecond");
    let iterator = world.oldest(&shard(0)).await;
    world.clock.advance_ms(1);
    let shards = world.shards().await;
    assert_eq!(shards.iter().map(|shard| shard.shard_id.as_str()).collect::<Vec<_>>(), [shard(1), shard(2)]);
    assert!(shards.iter().all(|child| child.parent_shard_id.as_deref() == Some(&shard(0))));
    let get = |iterator: &str| world.client.get_records().shard_iterator(iterator).send();
    assert_eq!(refusal(get(&iterator).await).0, "ResourceNotFoundException");
    assert_eq!(refusal(get(&inside).await).0, "ExpiredIteratorException");
    let asked = world.client.get_shard_iterator().stream_name(STREAM).shard_id(shard(0));
    let asked = asked.shard_iterator_type(aws_sdk_kinesis::types::ShardIteratorType::TrimHorizon).send().await;
    assert_eq!(refusal(asked).0, "ResourceNotFoundException");
}
