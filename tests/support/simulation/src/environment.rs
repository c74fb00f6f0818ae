//! The environment of a fleet: streams, a lease table and a lake, as the workers, the auditor and the fleet see them.
//!
//! Owns: the trait, and the first of its two implementations.
//!
//! - [`InMemory`] implements the product's three traits in memory. It is fast, and has faults that services rarely show.
//! - `Cloud` (in `cloud`) has the product's real AWS clients, including the official SDK, over models of Kinesis, DynamoDB and
//!   S3.
//!
//! Does not own: what happens to a worker's requests (`network`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use checkpoints::{LeaseOwner, MemoryStore as MemoryLeases, Position, ShardId, ShardKey, StreamName};
use shardlake::clock::{Clock, SharedClock};
use shardlake::commit::Stores;
use shardlake::lake::{MemoryStore, ObjectKey, ObjectStore};
use shardlake::retry::RetryPolicy;
use shardlake::source::ShardSource;
use tokio::time::Instant;

use crate::faults::FaultKind;
use crate::in_memory::{NetworkedLake, NetworkedLeases};
use crate::network::Network;
use crate::objects::SimObjects;
use crate::records::Draft;
use crate::rng::Rng;
use crate::stream::{NetworkedStream, SimStream};

/// A record, by its shard and position.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId {
    /// The shard.
    pub key: ShardKey,
    /// Its position.
    pub position: Position,
}

/// A row of the lease table, as the auditor sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The shard.
    pub key: ShardKey,
    /// The worker that may commit it.
    pub holder: Option<String>,
    /// The position up to which it is committed.
    pub checkpoint: Position,
    /// The decided and unfinished epoch: its manifest, and the end of its range.
    pub pending: Option<(String, Position)>,
    /// Its parents in the same stream.
    pub parents: Vec<ShardId>,
}

/// The connections of a worker.
pub struct Connected {
    /// The streams.
    pub sources: Vec<Arc<dyn ShardSource>>,
    /// Lake and leases.
    pub stores: Stores,
}

/// An environment.
#[async_trait]
pub trait Environment: Send + Sync {
    /// The names of the streams in the lake. Shards of different streams may have the same id.
    fn streams(&self) -> Vec<StreamName>;

    /// Connects a worker. The error says why it failed. `bounded`: its streams are read up to the present.
    async fn connect(&self, network: &Arc<Network>, clock: SharedClock, bounded: bool) -> Result<Connected, String>;

    /// Lake and leases without a network, so without faults.
    fn stores(&self) -> Stores;

    /// The bytes of a visible object.
    fn object(&self, key: &str) -> Option<Bytes>;

    /// The lease table.
    fn rows(&self) -> Vec<Row>;

    /// Puts records, and returns them with their ids.
    fn put(&self, drafts: Vec<Draft>, rng: &mut Rng) -> Vec<(RecordId, Draft)>;

    /// Splits, merges or (if it `may_forget`) forgets a shard. Returns what happened, if anything did.
    fn change_stream(&self, rng: &mut Rng, may_forget: bool) -> Option<FaultKind>;

    /// The shards that accept no more records.
    fn closed_shards(&self) -> Vec<ShardKey>;

    /// Aborts uploads, as a lifecycle rule does: all of them, or one.
    fn expire_uploads(&self, rng: &mut Rng);

    /// Makes the next conditional write conflict with another one. Returns false if this environment has no such fault.
    fn conflict(&self) -> bool;

    /// Unusual behaviour that lasts for the whole run.
    fn quirks(&self) -> Vec<FaultKind>;

    /// Loses rows of the lease table, all of them or some.
    fn lose_rows(&self, rng: &mut Rng);

    /// Deletes the first stream. Returns false if this environment cannot.
    fn delete_stream(&self) -> bool;

    /// Creates a stream of that name again.
    fn create_stream_again(&self, shards: u32);

    /// Whether reading starts at the latest record, by the time at which a worker connects first.
    fn starts_at_latest(&self) -> bool;

    /// The retention of the streams in milliseconds, if they trim records.
    fn retention_ms(&self) -> Option<u64>;

    /// The time of arrival of a record that was put then: milliseconds since 1970. `None` if the auditor does not know the
    /// streams' clock.
    fn arrived_ms(&self, _put_at: Instant) -> Option<i64> {
        None
    }

    /// The records that get their identities by an object that a source has written into the lake, each once, and when each was put.
    fn listed(&self, _key: &str, _bytes: &Bytes) -> Vec<(RecordId, Draft, Instant)> {
        Vec::new()
    }

    /// When each record was put that has no identity yet.
    fn unlisted(&self) -> Vec<Instant> {
        Vec::new()
    }
}

/// The streams of an environment: the first of these, or both.
pub const STREAMS: [&str; 2] = ["simulated", "another"];

/// The clock of commands beside the workers. Nothing depends on it but when an entry of the lake log says that it was made.
#[derive(Debug)]
pub struct FixedClock;

impl Clock for FixedClock {
    fn now_ms(&self) -> i64 {
        1_767_225_600_000
    }
}

/// The environment in memory.
#[derive(Debug)]
pub struct InMemory {
    lake: MemoryStore,
    leases: MemoryLeases,
    streams: Vec<SimStream>,
    /// The longest time until a record that was put becomes visible.
    late_ms: u64,
    /// Whether a scan shows rows as of several times.
    torn: bool,
    /// Objects of another program, as a further source.
    objects: Option<SimObjects>,
    begun: Instant,
}

impl InMemory {
    /// An environment that follows from `rng`: one shard for each decision, two, or any number; metered or not. `objects`: it also has
    /// objects of another program, which follow from that.
    pub fn new(rng: &mut Rng, objects: Option<Rng>) -> Self {
        let most = rng.one_of(&[1, 2, usize::MAX]);
        let leases = MemoryLeases::new().with_decision_shards_max(most);
        let leases = if rng.chance(500) { leases.with_metering() } else { leases };
        let count = if rng.chance(250) { 2 } else { 1 };
        let streams = STREAMS[..count].iter().map(|name| SimStream::new(name, 1 + rng.below(5))).collect();
        let (late_ms, torn) = (rng.one_of(&[0, 0, 400, 3_000]), rng.chance(400));
        let (objects, begun) = (objects.map(SimObjects::new), Instant::now());
        InMemory { lake: MemoryStore::new(), leases, streams, late_ms, torn, objects, begun }
    }

    /// An environment without faults, whose one stream has this many shards.
    pub fn calm(shards: u64) -> Self {
        let streams = vec![SimStream::new(STREAMS[0], shards)];
        let (lake, leases, begun) = (MemoryStore::new(), MemoryLeases::new(), Instant::now());
        InMemory { lake, leases, streams, late_ms: 0, torn: false, objects: None, begun }
    }
}

#[async_trait]
impl Environment for InMemory {
    fn streams(&self) -> Vec<StreamName> {
        let objects = self.objects.iter().map(|_| SimObjects::name());
        self.streams.iter().map(|stream| stream.name().clone()).chain(objects).collect()
    }

    async fn connect(&self, network: &Arc<Network>, clock: SharedClock, bounded: bool) -> Result<Connected, String> {
        let connected = |stream: &SimStream| NetworkedStream { network: Arc::clone(network), stream: stream.clone() };
        let mut sources: Vec<Arc<dyn ShardSource>> =
            self.streams.iter().map(|stream| Arc::new(connected(stream)) as Arc<dyn ShardSource>).collect();
        let (to_lake, store, begun) = (Arc::clone(network), self.lake.clone(), self.begun);
        let lake: Arc<dyn ObjectStore> = Arc::new(NetworkedLake { network: to_lake, store, begun });
        if let Some(objects) = &self.objects {
            sources.push(Arc::new(objects.source(network, Arc::clone(&lake), Arc::clone(&clock), bounded)));
        }
        let stores = Stores::new(
            lake,
            Arc::new(NetworkedLeases { network: Arc::clone(network), store: self.leases.clone(), torn: self.torn }),
            network.retry(),
        )
        .with_streams(self.streams())
        .with_clock(clock);
        Ok(Connected { sources, stores })
    }

    fn stores(&self) -> Stores {
        let stores = Stores::new(Arc::new(self.lake.clone()), Arc::new(self.leases.clone()), RetryPolicy::default());
        stores.with_streams(self.streams()).with_clock(Arc::new(FixedClock))
    }

    fn object(&self, key: &str) -> Option<Bytes> {
        self.lake.object(&ObjectKey::new(key).ok()?)
    }

    fn rows(&self) -> Vec<Row> {
        let leases = self.leases.rows();
        let row = |lease: checkpoints::Lease| Row {
            key: lease.key,
            holder: lease.holder.committer().map(ToString::to_string),
            checkpoint: lease.checkpoint,
            pending: lease.pending.map(|pending| (pending.manifest.to_string(), pending.through)),
            parents: lease.parents.into_iter().collect(),
        };
        leases.into_iter().map(row).collect()
    }

    fn arrived_ms(&self, put_at: Instant) -> Option<i64> {
        self.streams.first().map(|stream| stream.arrived_ms(put_at))
    }

    fn put(&self, mut drafts: Vec<Draft>, rng: &mut Rng) -> Vec<(RecordId, Draft)> {
        if let Some(objects) = &self.objects {
            objects.put(&mut drafts);
        }
        let open = |stream: &SimStream| {
            let shards = stream.open_shards().into_iter();
            shards.map(|shard| (stream.clone(), shard)).collect::<Vec<_>>()
        };
        let open: Vec<(SimStream, ShardId)> = self.streams.iter().flat_map(open).collect();
        let put = |draft: Draft| {
            let (stream, shard) = &open[rng.index(open.len())];
            let late = Duration::from_millis(rng.below(self.late_ms + 1));
            let sequence = stream.put(shard, rng.below(9), draft.bytes.clone(), late);
            let key = ShardKey::new(stream.name().clone(), shard.clone());
            (RecordId { key, position: Position::at(sequence.into()) }, draft)
        };
        drafts.into_iter().map(put).collect()
    }

    fn change_stream(&self, rng: &mut Rng, may_forget: bool) -> Option<FaultKind> {
        let stream = &self.streams[rng.index(self.streams.len())];
        let open = stream.open_shards();
        match rng.below(3) {
            0 if open.len() < 12 => {
                stream.split(&open[rng.index(open.len())]);
                Some(FaultKind::Split)
            }
            1 if open.len() > 1 => {
                let left = rng.index(open.len() - 1);
                stream.merge(&open[left], &open[left + 1]);
                Some(FaultKind::Merged)
            }
            2 if may_forget => {
                // A stream forgets a shard long after it was read to its end.
                let rows = self.rows();
                let read = |shard: &ShardId| {
                    let key = ShardKey::new(stream.name().clone(), shard.clone());
                    rows.iter().any(|row| row.key == key && row.checkpoint == Position::End)
                };
                let closed = stream.closed_shards().into_iter().find(read)?;
                stream.unlist(closed).then_some(FaultKind::Unlisted)
            }
            _ => None,
        }
    }

    fn closed_shards(&self) -> Vec<ShardKey> {
        let closed = |stream: &SimStream| {
            let shards = stream.closed_shards().into_iter();
            shards.map(|shard| ShardKey::new(stream.name().clone(), shard)).collect::<Vec<_>>()
        };
        self.streams.iter().flat_map(closed).collect()
    }

    fn expire_uploads(&self, rng: &mut Rng) {
        if rng.chance(400) {
            self.lake.expire_uploads();
        } else {
            self.lake.expire_upload(rng.index(1000));
        }
    }

    fn conflict(&self) -> bool {
        false
    }

    fn quirks(&self) -> Vec<FaultKind> {
        let quirks = [
            (self.late_ms > 0, FaultKind::VisibleLate),
            (self.torn, FaultKind::TornScans),
            (self.objects.is_some(), FaultKind::ObjectsBeside),
        ];
        quirks.into_iter().filter_map(|(is_so, kind)| is_so.then_some(kind)).collect()
    }

    fn lose_rows(&self, rng: &mut Rng) {
        let is_whole = rng.chance(600);
        for row in self.rows() {
            if is_whole || rng.chance(400) {
                self.leases.lose(&row.key);
            }
        }
    }

    fn delete_stream(&self) -> bool {
        false
    }

    fn create_stream_again(&self, _: u32) {}

    fn starts_at_latest(&self) -> bool {
        false
    }

    fn retention_ms(&self) -> Option<u64> {
        None
    }

    fn listed(&self, key: &str, bytes: &Bytes) -> Vec<(RecordId, Draft, Instant)> {
        self.objects.as_ref().map(|objects| objects.listed(key, bytes)).unwrap_or_default()
    }

    fn unlisted(&self) -> Vec<Instant> {
        self.objects.as_ref().map(SimObjects::unlisted).unwrap_or_default()
    }
}

/// Whether a stream has the leases of operations on the lake, or of a replay, and no records of its own.
pub fn is_internal(stream: &StreamName) -> bool {
    stream.as_str().starts_with('_')
}

/// Whether a stream has the leases of a replay, whose commits are in a lake of its own.
pub fn is_replay(stream: &StreamName) -> bool {
    stream.as_str().starts_with("_replay:")
}

/// Takes a lease from whoever holds it.
pub async fn steal(stores: &Stores, key: &ShardKey, thief: &LeaseOwner) -> bool {
    let Ok(rows) = stores.leases.get(std::slice::from_ref(key)).await else { return false };
    let Some(Some(lease)) = rows.into_iter().next() else { return false };
    if lease.holder.is(thief) || lease.is_done() {
        return false;
    }
    matches!(stores.leases.take(thief, key, lease.counter).await, Ok(Some(_)))
}
