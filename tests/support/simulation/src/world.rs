//! What a fleet runs in: a stream, a lease table and a lake, as workers, the auditor and fate see them.
//!
//! There are two. `Plain` is the simulation's own, behind the product's three traits: fast, and with faults that no service
//! shows so plainly. `Cloud` (in `aws`) has the product's real ends of AWS, the official SDK included, over models of Kinesis,
//! DynamoDB and S3.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use checkpoints::{LeaseOwner, MemoryStore as MemoryLeases, Position, ShardId, ShardKey, StreamName};
use shardlake::clock::SharedClock;
use shardlake::commit::Stores;
use shardlake::lake::{MemoryStore, ObjectKey};
use shardlake::retry::RetryPolicy;
use shardlake::source::ShardSource;

use crate::faults::Kind;
use crate::plain::{Lake, Leases};
use crate::records::Draft;
use crate::rng::Rng;
use crate::stream::{SimStream, Wired};
use crate::wires::Wires;

/// Where a record went.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The shard.
    pub key: ShardKey,
    /// The position behind it.
    pub position: Position,
}

/// A row of the lease table, as the auditor reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The shard.
    pub key: ShardKey,
    /// Who may commit it.
    pub holder: Option<String>,
    /// How far it is committed.
    pub checkpoint: Position,
    /// What is decided and not finished: the manifest and where it ends.
    pub pending: Option<(String, Position)>,
    /// The shards of the same stream that it came from.
    pub parents: Vec<ShardId>,
}

/// What a worker is given.
pub struct Connected {
    /// The streams.
    pub sources: Vec<Arc<dyn ShardSource>>,
    /// Lake and leases.
    pub stores: Stores,
}

/// A world.
#[async_trait]
pub trait World: Send + Sync {
    /// The streams' names in the lake. Their shards may have the same ids.
    fn streams(&self) -> Vec<StreamName>;

    /// Opens everything for a worker; in words, why it could not.
    async fn connect(&self, wires: &Arc<Wires>, clock: SharedClock) -> Result<Connected, String>;

    /// Lake and leases without wires.
    fn stores(&self) -> Stores;

    /// A visible object's bytes.
    fn object(&self, key: &str) -> Option<Bytes>;

    /// The lease table.
    fn rows(&self) -> Vec<Row>;

    /// Puts records: where each went.
    fn put(&self, drafts: Vec<Draft>, rng: &mut Rng) -> Vec<(Place, Draft)>;

    /// Something happens to a stream that is no fault of anybody's; what, if anything.
    fn change_stream(&self, rng: &mut Rng) -> Option<Kind>;

    /// The shards that take no more records.
    fn closed_shards(&self) -> Vec<ShardKey>;

    /// Lifecycle rules abort uploads: all of them, or one.
    fn expire_uploads(&self, rng: &mut Rng);

    /// The next conditional write meets another one, where the world knows such a thing.
    fn conflict(&self) -> bool;

    /// What goes on in this world all the time.
    fn quirks(&self) -> Vec<Kind>;

    /// How long after it was put a record is trimmed, milliseconds, if it ever is.
    fn retention_ms(&self) -> Option<u64>;
}

/// The streams that a world has, the first one or both.
pub const STREAMS: [&str; 2] = ["simulated", "another"];

/// The simulation's own world.
#[derive(Debug)]
pub struct Plain {
    lake: MemoryStore,
    leases: MemoryLeases,
    streams: Vec<SimStream>,
    late_ms: u64,
    torn: bool,
}

impl Plain {
    /// A world of a seed: one shard a decision, two, or as many as there are; metered or not.
    pub fn new(rng: &mut Rng) -> Self {
        let most = rng.one_of(&[1, 2, usize::MAX]);
        let leases = MemoryLeases::new().with_decision_shards_max(most);
        let leases = if rng.chance(500) { leases.with_metering() } else { leases };
        let count = if rng.chance(250) { 2 } else { 1 };
        let streams = STREAMS[..count].iter().map(|name| SimStream::new(name, 1 + rng.below(5))).collect();
        let (late_ms, torn) = (rng.one_of(&[0, 0, 400, 3_000]), rng.chance(400));
        Plain { lake: MemoryStore::new(), leases, streams, late_ms, torn }
    }
}

#[async_trait]
impl World for Plain {
    fn streams(&self) -> Vec<StreamName> {
        self.streams.iter().map(|stream| stream.name().clone()).collect()
    }

    async fn connect(&self, wires: &Arc<Wires>, _: SharedClock) -> Result<Connected, String> {
        let wired = |stream: &SimStream| Wired { wires: Arc::clone(wires), stream: stream.clone() };
        let sources = self.streams.iter().map(|stream| Arc::new(wired(stream)) as Arc<dyn ShardSource>).collect();
        let stores = Stores::new(
            Arc::new(Lake { wires: Arc::clone(wires), store: self.lake.clone() }),
            Arc::new(Leases { wires: Arc::clone(wires), store: self.leases.clone(), torn: self.torn }),
            RetryPolicy::default(),
        );
        Ok(Connected { sources, stores })
    }

    fn stores(&self) -> Stores {
        Stores::new(Arc::new(self.lake.clone()), Arc::new(self.leases.clone()), RetryPolicy::default())
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

    fn put(&self, drafts: Vec<Draft>, rng: &mut Rng) -> Vec<(Place, Draft)> {
        let open = |stream: &SimStream| {
            let shards = stream.open_shards().into_iter();
            shards.map(|shard| (stream.clone(), shard)).collect::<Vec<_>>()
        };
        let open: Vec<(SimStream, ShardId)> = self.streams.iter().flat_map(open).collect();
        let put = |draft: Draft| {
            let (stream, shard) = &open[rng.place(open.len())];
            let late = Duration::from_millis(rng.below(self.late_ms + 1));
            let sequence = stream.put(shard, rng.below(9), draft.bytes.clone(), late);
            let key = ShardKey::new(stream.name().clone(), shard.clone());
            (Place { key, position: Position::at(sequence.into()) }, draft)
        };
        drafts.into_iter().map(put).collect()
    }

    fn change_stream(&self, rng: &mut Rng) -> Option<Kind> {
        let stream = &self.streams[rng.place(self.streams.len())];
        let open = stream.open_shards();
        match rng.below(3) {
            0 if open.len() < 12 => {
                stream.split(&open[rng.place(open.len())]);
                Some(Kind::Split)
            }
            1 if open.len() > 1 => {
                let left = rng.place(open.len() - 1);
                stream.merge(&open[left], &open[left + 1]);
                Some(Kind::Merged)
            }
            2 => {
                // Streams forget shards long after they were read to their ends.
                let rows = self.rows();
                let read = |shard: &ShardId| {
                    let key = ShardKey::new(stream.name().clone(), shard.clone());
                    rows.iter().any(|row| row.key == key && row.checkpoint == Position::End)
                };
                let closed = stream.closed_shards().into_iter().find(read)?;
                stream.unlist(closed).then_some(Kind::Unlisted)
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
            self.lake.expire_upload(rng.place(1000));
        }
    }

    fn conflict(&self) -> bool {
        false
    }

    fn quirks(&self) -> Vec<Kind> {
        let quirks = [(self.late_ms > 0, Kind::VisibleLate), (self.torn, Kind::TornLooks)];
        quirks.into_iter().filter_map(|(is_so, kind)| is_so.then_some(kind)).collect()
    }

    fn retention_ms(&self) -> Option<u64> {
        None
    }
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
