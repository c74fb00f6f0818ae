//! Plans over a lake that was made without a worker: what is read from where, and what is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::{Position, ShardId, StreamName};

use super::*;
use crate::commit::lake_log::Entry;
use crate::inspect::sample_lake::{BEGUN_MS, STEP_MS, SampleLake};
use crate::lake::{MemoryStore, ObjectKey};
use crate::replay::save_plan;
use crate::source::{Behind, ShardReader, SourceError, SourceShard};

/// Which raw objects carry identities.
struct Carry(bool);

#[async_trait]
impl Identities for Carry {
    async fn has(&self, _: &ObjectKey) -> Result<bool, LakeError> {
        Ok(self.0)
    }
}

/// The stream `orders`, with a retention and shards that are gone.
struct Orders {
    name: StreamName,
    retention: Option<Duration>,
    gone: Vec<&'static str>,
}

#[async_trait]
impl ShardSource for Orders {
    fn stream(&self) -> &StreamName {
        &self.name
    }

    async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
        unreachable!("planning does not list shards")
    }

    async fn open(&self, _: &ShardId, _: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        unreachable!("planning reads nothing")
    }

    async fn behind(&self, shard: &ShardId, _: &Position) -> Result<Behind, SourceError> {
        Ok(if self.gone.contains(&shard.as_str()) { Behind::Nothing } else { Behind::Bytes(1) })
    }

    async fn retention(&self) -> Result<Option<Duration>, SourceError> {
        Ok(self.retention)
    }
}

/// A lake of some epochs of two shards.
struct World {
    lake: MemoryStore,
    source: Arc<dyn ShardSource>,
    carries: bool,
}

fn orders(retention: Option<Duration>, gone: &[&'static str]) -> Arc<dyn ShardSource> {
    Arc::new(Orders { name: StreamName::new("orders").unwrap(), retention, gone: gone.to_vec() })
}

fn world(epochs: usize) -> World {
    world_with(epochs, |_, _| {})
}

/// `change` may alter the entry of each epoch.
fn world_with(epochs: usize, change: impl Fn(usize, &mut Entry)) -> World {
    let lake = MemoryStore::new();
    let writing = lake.clone();
    let mut sample = SampleLake::new(2, move |key, bytes| writing.tamper(key, Some(bytes)));
    for number in 0..epochs {
        let manifest = sample.publish(5);
        sample.record(&manifest);
        sample.enter(&manifest, |entry| change(number, entry));
    }
    World { lake, source: orders(None, &[]), carries: true }
}

fn request() -> PlanRequest {
    PlanRequest {
        purpose: Purpose::Replay,
        from: (Bound::Open, "trim-horizon".to_owned()),
        to: (Bound::Open, "now".to_owned()),
        streams: BTreeSet::new(),
        dataset: None,
        into: None,
        prefers_streams: false,
    }
}

impl World {
    async fn plan(&self, request: &PlanRequest) -> Result<Plan, PlanningError> {
        let lake: Arc<dyn ObjectStore> = Arc::new(self.lake.clone());
        let definition = DefinitionOfEpoch { hash: "today".to_owned(), schema_version: 1 };
        let around = Surroundings {
            lake: &lake,
            sources: std::slice::from_ref(&self.source),
            identities: &Carry(self.carries),
            definitions: BTreeMap::from([("events".to_owned(), definition)]),
            now_ms: BEGUN_MS + 100 * STEP_MS,
            commit_interval_s: 60,
            prices: None,
        };
        plan_replay(&around, request, ReplayId::from_random([1; 4])).await
    }
}

/// What each slice is, in short.
fn slices_of(plan: &Plan) -> Vec<String> {
    let short = |slice: &Slice| match &slice.from {
        SliceOf::Stream { shard, after, through, .. } => format!("{shard} {after}-{through}: {}", slice.records),
        SliceOf::Raw { objects } => format!("raw {}: {}", objects.len(), slice.records),
    };
    plan.slices.iter().map(short).collect()
}

#[tokio::test]
async fn raw_comes_before_the_stream_and_the_stream_comes_first_on_request() {
    let mut world = world(3);
    let plan = world.plan(&request()).await.unwrap();
    assert_eq!(slices_of(&plan), ["raw 3: 60"]);
    assert_eq!((plan.epochs.len(), plan.totals.records, plan.records()), (3, 60, 60));
    assert_eq!(plan.superseded.iter().map(|object| object.rows).sum::<u64>(), 60, "rows and dead letters");
    assert!(plan.superseded.iter().all(|object| object.kind != ObjectKind::Raw), "raw/ stays");
    assert_eq!(plan.totals.rows.values().sum::<u64>() + plan.totals.dead_letters, 60);
    let streams = ["shard-0 TRIM_HORIZON-30: 30", "shard-1 TRIM_HORIZON-30: 30"];
    let on_request = PlanRequest { prefers_streams: true, ..request() };
    assert_eq!(slices_of(&world.plan(&on_request).await.unwrap()), streams, "ranges that touch are one");
    world.carries = false;
    assert_eq!(slices_of(&world.plan(&request()).await.unwrap()), streams, "raw/ cannot say whose its lines are");
}

#[tokio::test]
async fn an_epoch_that_raw_lacks_is_read_from_the_stream_and_the_others_from_raw() {
    let world = world_with(3, |number, entry| {
        for object in entry.added.iter_mut().filter(|object| number == 1 && object.kind == ObjectKind::Raw) {
            object.rows -= 1;
        }
    });
    let plan = world.plan(&request()).await.unwrap();
    assert_eq!(slices_of(&plan), ["shard-0 10-20: 10", "shard-1 10-20: 10", "raw 2: 40"]);
}

#[tokio::test]
async fn what_is_nowhere_is_refused_with_its_shard_and_nothing_is_written() {
    let mut world = world(2);
    world.carries = false;
    world.source = orders(None, &["shard-1"]);
    let before = world.lake.objects();
    let error = world.plan(&request()).await.unwrap_err();
    let PlanningError::Missing(missing) = &error else { panic!("{error}") };
    assert_eq!(missing.len(), 2, "both epochs have read it: {error}");
    assert!(missing.iter().all(|one| one.key.shard.as_str() == "shard-1"), "{error}");
    assert!(error.to_string().contains("do not carry the identities") && error.is_usage(), "{error}");
    // A stream that keeps its records for half an hour, 98 minutes later.
    world.source = orders(Some(Duration::from_secs(1_800)), &[]);
    let error = world.plan(&request()).await.unwrap_err();
    assert!(error.to_string().contains("these arrived earlier"), "{error}");
    world.source = orders(Some(Duration::from_secs(86_400)), &[]);
    let plan = world.plan(&request()).await.unwrap();
    assert_eq!(slices_of(&plan).len(), 2);
    assert_eq!(world.lake.objects(), before, "planning changes nothing");
    save_plan(&world.lake, &plan).await.unwrap();
}

#[tokio::test]
async fn with_one_dataset_the_epochs_that_have_rows_of_it_are_replaced_whole() {
    let world = world(2);
    let plan = world.plan(&PlanRequest { dataset: Some("events".to_owned()), ..request() }).await.unwrap();
    let whole = world.plan(&request()).await.unwrap();
    assert_eq!((&plan.superseded, &plan.slices), (&whole.superseded, &whole.slices));
    assert!(plan.superseded.iter().any(|object| object.dataset.as_deref() == Some("users")));
    let error = world.plan(&PlanRequest { dataset: Some("none".to_owned()), ..request() }).await.unwrap_err();
    assert!(error.is_usage(), "{error}");
}
