//! Keepers alone, under paused time: how fast leases find their next holder.

use super::*;
use crate::source::{Behind, ShardReader, SourceError, SourceShard};
use async_trait::async_trait;
use checkpoints::{
    Advance, Decided, Decision, LeaseStoreExt, ManifestName, MemoryStore, Position, ShardId, ShardRange,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::task::JoinHandle;

/// A stream of which only the list of shards is asked.
struct Listed {
    stream: StreamName,
    /// Whether listing gives no answer.
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
        unreachable!("keepers do not read")
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

/// A keeper and its coordinator, which lets go of what is asked for, after as long as a commit takes.
struct Worker {
    me: LeaseOwner,
    commands: mpsc::UnboundedSender<LeaseCommand>,
    keeper: JoinHandle<()>,
    throughput: Arc<Throughput>,
    /// How often a lease was gained.
    gained: Arc<AtomicUsize>,
}

fn start(number: u8, store: &MemoryStore, source: &Arc<Listed>) -> Worker {
    let me = LeaseOwner::from_random([number; 16]);
    let (commands, receiver) = mpsc::unbounded_channel();
    let (coordinator, mut message) = mpsc::unbounded_channel();
    let throughput = Arc::new(Throughput::default());
    let keeper = LeaseManager {
        me: me.clone(),
        store: Arc::new(store.clone()),
        sources: vec![Arc::clone(source) as Arc<dyn ShardSource>],
        failover: Duration::from_secs(10),
        hand_off: Duration::from_secs(30),
        throughput: Arc::clone(&throughput),
        coordinator,
        state: LeaseManagerState::default(),
    };
    let (lease_commands, gained) = (commands.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&gained);
    tokio::spawn(async move {
        while let Some(news) = message.recv().await {
            match news {
                LeaseEvent::Gained(_) => drop(count.fetch_add(1, Ordering::Relaxed)),
                LeaseEvent::Asked(key) => {
                    tokio::time::sleep(Duration::from_millis(700)).await;
                    let _ = lease_commands.send(LeaseCommand::LetGo(key));
                }
                _ => {}
            }
        }
    });
    Worker { me, commands, keeper: tokio::spawn(keeper.run(receiver)), throughput, gained }
}

async fn held(store: &MemoryStore, worker: &Worker) -> usize {
    store.list().await.unwrap().iter().filter(|lease| lease.holder == Holder::Held(worker.me.clone())).count()
}

/// Waits until a worker holds so many leases, and says how long that took.
async fn until_held(store: &MemoryStore, worker: &Worker, count: usize) -> Duration {
    let begun = Instant::now();
    while held(store, worker).await != count {
        assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", store.list().await.unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_child_waits_for_a_parent_that_the_look_at_the_table_did_not_show() {
    let store = MemoryStore::new();
    let key = |id: &str| ShardKey::new(StreamName::new("s").unwrap(), ShardId::new(id).unwrap());
    let source = stream(1);
    source.shards.lock().unwrap().extend([shard("child", &["000"]), shard("orphan", &["forgotten"])]);
    let first = start(1, &store, &source);
    until_held(&store, &first, 2).await;
    first.commands.send(LeaseCommand::Stop).unwrap();
    first.keeper.await.unwrap();
    store.hide(&key("000"), true);
    let second = start(2, &store, &source);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let rows = store.get(&[key("000"), key("child"), key("orphan")]).await.unwrap();
    let holders: Vec<bool> = rows.into_iter().map(|row| row.unwrap().holder.is(&second.me)).collect();
    assert_eq!(holders, [true, false, true], "what the look does not show is asked for");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_anothers_in_between_is_gained_once_the_coordinator_says_so() {
    let (store, source) = (MemoryStore::new(), stream(1));
    let worker = start(1, &store, &source);
    until_held(&store, &worker, 1).await;
    let key = ShardKey::new(StreamName::new("s").unwrap(), ShardId::new("000").unwrap());
    // Between two looks of the keeper.
    for taker in [LeaseOwner::from_random([2; 16]), worker.me.clone()] {
        let row = store.get(std::slice::from_ref(&key)).await.unwrap().remove(0).unwrap();
        assert!(store.take(&taker, &key, row.counter).await.unwrap().is_some());
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(worker.gained.load(Ordering::Relaxed), 1, "the keeper has seen no change");
    worker.commands.send(LeaseCommand::NotOurs(key)).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(worker.gained.load(Ordering::Relaxed), 2);
    assert_eq!(held(&store, &worker).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_ends_is_followed_at_once_one_that_dies_within_fifteen_seconds() {
    let (store, source) = (MemoryStore::new().with_metering(), stream(8));
    let first = start(1, &store, &source);
    until_held(&store, &first, 8).await;
    let second = start(2, &store, &source);
    let share = until_held(&store, &second, 4).await;
    assert!(share < Duration::from_secs(30), "the second has its share after {share:?}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((held(&store, &first).await, held(&store, &second).await), (4, 4), "nothing moves without a reason");

    first.commands.send(LeaseCommand::Stop).unwrap();
    first.keeper.await.unwrap();
    let after = until_held(&store, &second, 8).await;
    assert!(after < Duration::from_secs(2), "taken up after {after:?}");

    let third = start(3, &store, &source);
    until_held(&store, &third, 4).await;
    second.keeper.abort();
    let after = until_held(&store, &third, 8).await;
    assert!((Duration::from_secs(5)..Duration::from_secs(15)).contains(&after), "taken after {after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_can_not_be_listed_costs_nobody_its_leases() {
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
async fn a_lease_whose_letting_go_was_lost_is_let_go_again() {
    let (store, source) = (MemoryStore::new(), stream(1));
    let me = LeaseOwner::from_random([1; 16]);
    let other = LeaseOwner::from_random([2; 16]);
    let (coordinator, _told) = mpsc::unbounded_channel();
    let mut keeper = LeaseManager {
        me: me.clone(),
        store: Arc::new(store.clone()),
        sources: vec![Arc::clone(&source) as Arc<dyn ShardSource>],
        failover: Duration::from_secs(10),
        hand_off: Duration::from_secs(30),
        throughput: Arc::default(),
        coordinator,
        state: LeaseManagerState::default(),
    };
    keeper.look().await.unwrap();
    let key = store.list().await.unwrap()[0].key.clone();
    assert!(store.ask(&other, &key, &me).await.unwrap());
    keeper.look().await.unwrap();
    assert!(keeper.state.asked_of_us.contains(&key));
    // As `let_go` leaves it when its request is lost.
    keeper.state.held.remove(&key);
    keeper.look().await.unwrap();
    assert_eq!(store.list().await.unwrap()[0].holder, Holder::Held(other));
    assert!(keeper.state.asked_of_us.is_empty(), "should it come back, it may be asked for again");
}

#[tokio::test(start_paused = true)]
async fn a_busy_shard_is_worth_several_idle_ones() {
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
    assert_eq!((of(&first), of(&second)), (3, 1), "one is given up, and nothing moves back");
    assert_eq!(rows[0].holder, Holder::Held(second.me.clone()), "the busy one");
}

#[tokio::test(start_paused = true)]
async fn the_row_of_a_shard_goes_when_its_stream_has_forgotten_it_and_its_children_are_read() {
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
    worker.commands.send(LeaseCommand::LetGo(at("a"))).unwrap();
    until_held(&store, &worker, 1).await;
    source.shards.lock().unwrap().remove(0);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(store.list().await.unwrap().len(), 2, "its child is not read yet");
    commit("b", Position::at(1_u64.into()), Vec::new()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let rows = store.list().await.unwrap();
    assert_eq!(rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>(), [at("b")]);
}
