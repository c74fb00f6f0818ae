//! ListShards and DescribeStream: filters and pages.

use aws_model::kinesis::Settings;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{ShardFilter, ShardFilterType};

use crate::client::{BEGINNING_MS, STREAM, World, refusal, shard};

const HOUR_MS: u32 = 3_600_000;
const HOUR: i64 = HOUR_MS as i64;

async fn listed(world: &World, kind: ShardFilterType, at_ms: Option<i64>, after: Option<u32>) -> Vec<u32> {
    let filter = ShardFilter::builder().r#type(kind).set_shard_id(after.map(shard));
    let filter = filter.set_timestamp(at_ms.map(|at| DateTime::from_millis(BEGINNING_MS + at))).build().unwrap();
    let shards = world.client.list_shards().stream_name(STREAM).shard_filter(filter).send().await.unwrap();
    shards.shards().iter().map(|shard| shard.shard_id["shardId-".len()..].parse().unwrap()).collect()
}

/// Shards 0 to 3. After an hour, 1 is split into 4 and 5; after another, 2 and 3 are merged into 6. It ends at 2.5 hours.
async fn resharded() -> World {
    let world = World::new(4, Settings::default());
    world.clock.advance_ms(HOUR_MS);
    world.split(1, "120000000000000000000000000000000000000").await;
    world.clock.advance_ms(HOUR_MS);
    world.merge(2, 3).await;
    world.clock.advance_ms(HOUR_MS / 2);
    world
}

#[tokio::test]
async fn each_filter_returns_the_shards_of_its_time() {
    let world = resharded().await;
    let all = vec![0, 1, 2, 3, 4, 5, 6];
    let cases = [
        (ShardFilterType::AtTrimHorizon, None, None, vec![0, 1, 2, 3]),
        (ShardFilterType::FromTrimHorizon, None, None, all.clone()),
        (ShardFilterType::AtLatest, None, None, vec![0, 4, 5, 6]),
        (ShardFilterType::AtTimestamp, Some(0), None, vec![0, 1, 2, 3]),
        (ShardFilterType::AtTimestamp, Some(HOUR - 1), None, vec![0, 1, 2, 3]),
        (ShardFilterType::AtTimestamp, Some(HOUR + 1), None, vec![0, 2, 3, 4, 5]),
        (ShardFilterType::AtTimestamp, Some(2 * HOUR + 1), None, vec![0, 4, 5, 6]),
        (ShardFilterType::AtTimestamp, Some(-HOUR), None, vec![0, 1, 2, 3]),
        (ShardFilterType::FromTimestamp, Some(0), None, all.clone()),
        (ShardFilterType::FromTimestamp, Some(HOUR + 1), None, vec![0, 2, 3, 4, 5, 6]),
        (ShardFilterType::FromTimestamp, Some(2 * HOUR + 1), None, vec![0, 4, 5, 6]),
        (ShardFilterType::AfterShardId, None, Some(3), vec![4, 5, 6]),
        (ShardFilterType::AfterShardId, None, Some(6), vec![]),
    ];
    for (kind, at_ms, after, wanted) in cases {
        assert_eq!(listed(&world, kind.clone(), at_ms, after).await, wanted, "{kind:?} {at_ms:?} {after:?}");
    }
}

#[tokio::test]
async fn the_trim_horizon_moves_with_retention() {
    let world = resharded().await;
    // Now it is 25.5 hours: the horizon is at 1.5, after the split, before the merge.
    world.clock.advance_ms(23 * HOUR_MS);
    assert_eq!(listed(&world, ShardFilterType::FromTrimHorizon, None, None).await, [0, 2, 3, 4, 5, 6]);
    assert_eq!(listed(&world, ShardFilterType::AtTrimHorizon, None, None).await, [0, 2, 3, 4, 5]);
    assert_eq!(listed(&world, ShardFilterType::AtTimestamp, Some(0), None).await, [0, 2, 3, 4, 5]);
    world.clock.advance_ms(HOUR_MS);
    assert_eq!(listed(&world, ShardFilterType::AtTrimHorizon, None, None).await, [0, 4, 5, 6]);
}

#[tokio::test]
async fn an_incomplete_filter_is_refused() {
    let world = resharded().await;
    let ask = |filter| world.client.list_shards().stream_name(STREAM).shard_filter(filter).send();
    let bare = |kind| ShardFilter::builder().r#type(kind).build().unwrap();
    for kind in [ShardFilterType::AtTimestamp, ShardFilterType::FromTimestamp, ShardFilterType::AfterShardId] {
        assert_eq!(refusal(ask(bare(kind)).await).0, "InvalidArgumentException");
    }
    let ahead = DateTime::from_millis(BEGINNING_MS + 3 * HOUR);
    let ahead = ShardFilter::builder().r#type(ShardFilterType::AtTimestamp).timestamp(ahead).build().unwrap();
    assert_eq!(refusal(ask(ahead).await).0, "InvalidArgumentException");
    assert_eq!(refusal(ask(bare(ShardFilterType::from("OTHER"))).await).0, "ValidationException");
}

#[tokio::test]
async fn pages_continue_by_tokens_that_expire() {
    let world = resharded().await;
    let filter = ShardFilter::builder().r#type(ShardFilterType::AtTimestamp);
    let filter = filter.timestamp(DateTime::from_millis(BEGINNING_MS + HOUR + 1)).build().unwrap();
    let ask = || world.client.list_shards().max_results(2);
    let mut page = ask().stream_name(STREAM).shard_filter(filter).send().await.unwrap();
    let first = page.next_token.clone().unwrap();
    let mut sizes = vec![page.shards().len()];
    let mut names: Vec<String> = page.shards().iter().map(|shard| shard.shard_id.clone()).collect();
    while let Some(token) = page.next_token {
        page = ask().next_token(token).send().await.unwrap();
        sizes.push(page.shards().len());
        names.extend(page.shards().iter().map(|shard| shard.shard_id.clone()));
    }
    assert_eq!((sizes, names), (vec![2, 2, 1], [0, 2, 3, 4, 5].map(shard).into()), "the filter stays with the token");

    let both = ask().stream_name(STREAM).next_token(&first).send().await;
    assert_eq!(refusal(both).0, "InvalidArgumentException");
    assert_eq!(refusal(ask().send().await).0, "InvalidArgumentException");
    assert_eq!(refusal(ask().next_token("none").send().await).0, "InvalidArgumentException");
    world.clock.advance_ms(300_000);
    ask().next_token(&first).send().await.unwrap();
    world.clock.advance_ms(1);
    assert_eq!(refusal(ask().next_token(&first).send().await).0, "ExpiredNextTokenException");
    assert_eq!(
        refusal(world.client.list_shards().stream_name(STREAM).max_results(0).send().await).0,
        "ValidationException"
    );
}

#[tokio::test]
async fn a_description_has_pages_of_shards() {
    let world = resharded().await;
    let ask = || world.client.describe_stream().stream_name(STREAM).limit(4);
    let first = ask().send().await.unwrap().stream_description.unwrap();
    assert!(first.has_more_shards);
    assert_eq!(first.shards.len(), 4);
    let rest = ask().exclusive_start_shard_id(shard(3)).send().await.unwrap().stream_description.unwrap();
    assert!(!rest.has_more_shards);
    assert_eq!(rest.shards[0].shard_id, shard(4));
    assert_eq!(rest.shards[2].adjacent_parent_shard_id, Some(shard(3)));
}
