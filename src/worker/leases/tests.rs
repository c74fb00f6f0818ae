//! Lease managers without coordinators, under paused time: how fast leases find their next holder.

use super::*;
use crate::source::{Behind, ShardReader, SourceError, SourceShard};
use async_trait::async_trait;
use checkpoints::{
    Advance, Decided, Decision, LeaseStoreExt, ManifestName, MemoryStore, Position, ShardId, ShardRange, StreamName,
};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::task::JoinHandle;

/// A stream that can only be listed.
struct Listed {
    stream: StreamName,
    /// Whether a list is never answered.
    hangs: AtomicBool,
    shards: Mutex<Vec<SourceShard>>,
}

#[async_trait]
impl ShardSource for Listed {
    fn stream(&self) -> &StreamName {
        &self.stream
    }

    async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        Ok(self.shards.lock().unwrap().clone())
    }

    async fn open(&self, _: &ShardId, _: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        unreachable!("lease managers do not read")
    }

    async fn behind(&self, _: &ShardId, _: &Position) -> Result<Behind, SourceError> {
        Ok(Behind::Nothing)
    }
}

fn shard(id: &str, parents: &[&str]) -> SourceShard {
    let parents = parents.iter().map(|id| ShardId::new(*id).unwrap()).collect();
    SourceShard { parents, ..SourceShard::alone(ShardId::new(id).unwrap()) }
}

fn stream(shards: usize) -> Arc<Listed> {
    let shards = (0..shards).map(|number| shard(&format!("{number:03}"), &[])).collect();
    Arc::new(Listed {
        hangs: AtomicBool::new(false),
        stream: StreamName::new("s").unwrap(),
        shards: Mutex::new(shards),
    })
}

/// A lease manager, and a coordinator that releases what is requested after the time of a commit.
struct Worker {
    me: LeaseOwner,
    commands: mpsc::UnboundedSender<LeaseCommand>,
    manager: JoinHandle<()>,
    throughput: Arc<Throughput>,
    /// How often a lease was gained.
    gained: Arc<AtomicUsize>,
}

fn settings(
    number: u8,
    store: &MemoryStore,
    source: &Arc<Listed>,
) -> (LeaseManagerSettings, mpsc::UnboundedReceiver<LeaseEvent>) {
    let (coordinator, events) = mpsc::unbounded_channel();
    let settings = LeaseManagerSettings {
        failing_max: Duration::from_secs(300),
        me: LeaseOwner::from_random([number; 16]),
        store: Arc::new(store.clone()),
        sources: vec![Arc::clone(source) as Arc<dyn ShardSource>],
        failover: Duration::from_secs(10),
        hand_off: Duration::from_secs(30),
        throughput: Arc::default(),
        progress: Arc::default(),
        coordinator,
    };
    (settings, events)
}

fn start(number: u8, store: &MemoryStore, source: &Arc<Listed>) -> Worker {
    let (settings, mut events) = settings(number, store, source);
    let (commands, receiver) = mpsc::unbounded_channel();
    let (me, throughput) = (settings.me.clone(), Arc::clone(&settings.throughput));
    let (replies, gained) = (commands.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&gained);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                LeaseEvent::Gained(_) => drop(count.fetch_add(1, Ordering::Relaxed)),
                LeaseEvent::Requested(key) => {
                    tokio::time::sleep(Duration::from_millis(700)).await;
                    let _ = replies.send(LeaseCommand::Release(key));
                }
                _ => {}
            }
        }
    });
    Worker { me, commands, manager: tokio::spawn(LeaseManager::new(settings).run(receiver)), throughput, gained }
}

async fn held(store: &MemoryStore, worker: &Worker) -> usize {
    store.list().await.unwrap().iter().filter(|lease| lease.holder == Holder::Held(worker.me.clone())).count()
}

/// Waits until a worker holds `count` leases, and returns how long that took.
async fn until_held(store: &MemoryStore, worker: &Worker, count: usize) -> Duration {
    let begun = Instant::now();
    while held(store, worker).await != count {
        assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", store.list().await.unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_child_waits_for_a_parent_that_the_scan_did_not_show() {
    let store = MemoryStore::new();
    let key = |id: &str| ShardKey::new(StreamName::new("s").unwrap(), ShardId::new(id).unwrap());
    let source = stream(1);
    source.shards.lock().unwrap().extend([shard("child", &["000"]), shard("orphan", &["forgotten"])]);
    let first = start(1, &store, &source);
    until_held(&store, &first, 2).await;
    first.commands.send(LeaseCommand::Stop).unwrap();
    first.manager.await.unwrap();
    store.hide(&key("000"), true);
    let second = start(2, &store, &source);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let rows = store.get(&[key("000"), key("child"), key("orphan")]).await.unwrap();
    let holders: Vec<bool> = rows.into_iter().map(|row| row.unwrap().holder.is(&second.me)).collect();
    assert_eq!(holders, [true, false, true], "the parent that the scan did not show is read by its key");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_came_back_between_two_scans_is_gained_again_once_it_is_disowned() {
    let (store, source) = (MemoryStore::new(), stream(1));
    let worker = start(1, &store, &source);
    until_held(&store, &worker, 1).await;
    let key = ShardKey::new(StreamName::new("s").unwrap(), ShardId::new("000").unwrap());
    // Between two scans.
    for taker in [LeaseOwner::from_random([2; 16]), worker.me.clone()] {
        let row = store.get(std::slice::from_ref(&key)).await.unwrap().remove(0).unwrap();
        assert!(store.take(&taker, &key, row.counter).await.unwrap().is_some());
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(worker.gained.load(Ordering::Relaxed), 1, "the manager has seen no change");
    worker.commands.send(LeaseCommand::Disown(key)).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(worker.gained.load(Ordering::Relaxed), 2);
    assert_eq!(held(&store, &worker).await, 1);
}

#[tokio::test(start_paused = true)]
async fn the_leases_of_a_worker_that_stops_are_taken_at_once_and_of_one_that_dies_within_fifteen_seconds() {
    let (store, source) = (MemoryStore::new().with_metering(), stream(8));
    let first = start(1, &store, &source);
    until_held(&store, &first, 8).await;
    let second = start(2, &store, &source);
    let share = until_held(&store, &second, 4).await;
    assert!(share < Duration::from_secs(30), "the second worker had its share after {share:?}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((held(&store, &first).await, held(&store, &second).await), (4, 4), "nothing moves without a reason");

    first.commands.send(LeaseCommand::Stop).unwrap();
    first.manager.await.unwrap();
    let after = until_held(&store, &second, 8).await;
    assert!(after < Duration::from_secs(2), "taken after {after:?}");

    let third = start(3, &store, &source);
    until_held(&store, &third, 4).await;
    second.manager.abort();
    let after = until_held(&store, &third, 8).await;
    assert!((Duration::from_secs(5)..Duration::from_secs(15)).contains(&after), "taken after {after:?}");
}

#[tokio::test(start_paused = true)]
async fn no_worker_loses_a_lease_while_a_stream_cannot_be_listed() {
    let (store, source) = (MemoryStore::new().with_metering(), stream(4));
    let first = start(1, &store, &source);
    until_held(&store, &first, 4).await;
    let second = start(2, &store, &source);
    until_held(&store, &second, 2).await;
    source.hangs.store(true, Ordering::Relaxed);
    for _ in 0..300 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((held(&store, &first).await, held(&store, &second).await), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_requested_lease_is_released_again_if_the_first_release_was_lost() {
    let (store, source) = (MemoryStore::new(), stream(1));
    let other = LeaseOwner::from_random([2; 16]);
    let (settings, _events) = settings(1, &store, &source);
    let me = settings.me.clone();
    let mut manager = LeaseManager::new(settings);
    manager.scan_leases().await.unwrap();
    let key = store.list().await.unwrap()[0].key.clone();
    assert!(store.ask(&other, &key, &me).await.unwrap());
    manager.scan_leases().await.unwrap();
    assert!(manager.requested_by_others.contains(&key));
    // `release` leaves this state if its request is lost.
    manager.held.remove(&key);
    manager.scan_leases().await.unwrap();
    assert_eq!(store.list().await.unwrap()[0].holder, Holder::Held(other));
    assert!(manager.requested_by_others.is_empty(), "if the lease comes back, it may be requested again");
}

#[tokio::test(start_paused = true)]
async fn a_busy_shard_weighs_as_much_as_several_idle_ones() {
    let (store, source) = (MemoryStore::new(), stream(4));
    let first = start(1, &store, &source);
    until_held(&store, &first, 4).await;
    let busy = ShardKey::new(source.stream.clone(), ShardId::new("000").unwrap());
    // Two minutes at a megabyte a second.
    for _ in 0..120 {
        first.throughput.add(&busy, 1_000_000);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let second = start(2, &store, &source);
    until_held(&store, &second, 1).await;
    for _ in 0..120 {
        second.throughput.add(&busy, 1_000_000);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let rows = store.list().await.unwrap();
    let of = |worker: &Worker| rows.iter().filter(|row| row.holder.is(&worker.me)).count();
    assert_eq!((of(&first), of(&second)), (3, 1), "one lease moves, and none moves back");
    assert_eq!(rows[0].holder, Holder::Held(second.me.clone()), "the busy shard moves");
}

#[tokio::test(start_paused = true)]
async fn a_row_is_removed_once_its_stream_has_forgotten_the_shard_and_its_children_are_read() {
    let (store, source) = (MemoryStore::new(), stream(0));
    let at = |id: &str| ShardKey::new(source.stream.clone(), ShardId::new(id).unwrap());
    source.shards.lock().unwrap().extend([shard("a", &[]), shard("b", &["a"])]);
    let worker = start(1, &store, &source);
    until_held(&store, &worker, 1).await;
    let commit = async |id: &str, through: Position, children: Vec<ShardId>| {
        let lease = store.get(&[at(id)]).await.unwrap().pop().flatten().unwrap();
        let manifest = ManifestName::new(format!("_intents/{id}.json")).unwrap();
        let range = ShardRange::new(lease.checkpoint, through.clone()).unwrap();
        let decision = Decision::new(worker.me.clone(), manifest.clone(), vec![(at(id), range)]).unwrap();
        assert_eq!(store.decide_once(&decision).await.unwrap(), Decided::Yes);
        let advance =
            if through == Position::End { Advance::to_end(at(id), children) } else { Advance::new(at(id), through) };
        store.advance(&manifest, &[advance]).await.unwrap();
    };
    commit("a", Position::End, vec![ShardId::new("b").unwrap()]).await;
    worker.commands.send(LeaseCommand::Release(at("a"))).unwrap();
    until_held(&store, &worker, 1).await;
    source.shards.lock().unwrap().remove(0);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(store.list().await.unwrap().len(), 2, "its child has not been read yet");
    commit("b", Position::at(1_u64.into()), Vec::new()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let rows = store.list().await.unwrap();
    assert_eq!(rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>(), [at("b")]);
}

#[tokio::test(start_paused = true)]
async fn leases_are_kept_while_no_stream_can_be_listed() {
    let store = MemoryStore::new();
    let streams: Vec<Arc<Listed>> = (0..6)
        .map(|number| {
            Arc::new(Listed {
                hangs: AtomicBool::new(false),
                stream: StreamName::new(format!("s{number}")).unwrap(),
                shards: Mutex::new(vec![shard("000", &[])]),
            })
        })
        .collect();
    let run = |number: u8| {
        let (mut settings, events) = settings(number, &store, &streams[0]);
        settings.sources = streams.iter().map(|stream| Arc::clone(stream) as Arc<dyn ShardSource>).collect();
        let (commands, receiver) = mpsc::unbounded_channel();
        tokio::spawn(LeaseManager::new(settings).run(receiver));
        (commands, events)
    };
    let _first = run(1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    streams.iter().for_each(|stream| stream.hangs.store(true, Ordering::Relaxed));
    let (lines, _guard) = crate::trouble::tests::Lines::collect();
    let counters = async || store.list().await.unwrap().iter().map(|lease| lease.counter).sum::<u64>();
    let mut before = counters().await;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        let now = counters().await;
        assert!(now > before, "a worker renews at least once in 6 s, below the failover time");
        before = now;
    }
    let logged = lines.take();
    // Twelve are of the first list of each stream; every further one is 20 s later.
    assert!(logged.len() <= 6 * 13 && logged.iter().all(|line| line.contains("listing the shards of")), "{logged:#?}");
}

#[tokio::test(start_paused = true)]
async fn snapshots_do_not_pile_up_while_the_coordinator_is_busy() {
    let store = MemoryStore::new();
    let (settings, mut events) = settings(1, &store, &stream(3));
    let (commands, receiver) = mpsc::unbounded_channel();
    tokio::spawn(LeaseManager::new(settings).run(receiver));
    tokio::time::sleep(Duration::from_secs(300)).await;
    commands.send(LeaseCommand::Scan).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut snapshots = 0;
    while let Ok(event) = events.try_recv() {
        snapshots += usize::from(matches!(event, LeaseEvent::Snapshot(_)));
    }
    assert_eq!(snapshots, 2, "the first, and the one that was requested");
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_coordinator_waits_for_a_service_asks_nobody_for_leases() {
    let (store, source) = (MemoryStore::new(), stream(4));
    let first = start(1, &store, &source);
    until_held(&store, &first, 4).await;
    let (settings, mut events) = settings(2, &store, &source);
    let (_commands, receiver) = mpsc::unbounded_channel();
    tokio::spawn(LeaseManager::new(settings).run(receiver));
    let second = |lease: &Lease| lease.holder == Holder::Held(LeaseOwner::from_random([2; 16]));
    let held_by_second = async || {
        let leases = store.list().await.unwrap();
        leases.into_iter().filter(|lease| second(lease)).map(|lease| lease.key).collect::<Vec<_>>()
    };
    // The first worker's shards are busy, the second one's idle.
    let busy = async |seconds: u64| {
        for _ in 0..seconds {
            let leases = store.list().await.unwrap();
            leases.iter().filter(|lease| !second(lease)).for_each(|lease| first.throughput.add(&lease.key, 500_000));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    while held_by_second().await.len() < 2 {
        while events.try_recv().is_ok() {}
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let before = held_by_second().await;
    busy(180).await;
    assert_eq!(held_by_second().await, before, "its coordinator handles nothing");
    for _ in 0..120 {
        while events.try_recv().is_ok() {}
        busy(1).await;
    }
    assert_ne!(held_by_second().await, before, "it handles events again, and takes a share of the load");
}
