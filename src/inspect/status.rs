//! The state of a lake and its lease table in one value.
//!
//! Owns: putting together leases, the commit log and how far the shards are behind. Does not own: opening the sources that
//! can say how far (`setup`), printing (`cli`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use checkpoints::{Lease, LeaseOwner, ManifestName, Position, ShardId, ShardKey, StreamName};
use pipeline::graph::EdgeId;
use serde::{Serialize, Serializer};

use crate::commit::lake_log::LakeAt;
use crate::commit::log::{Log, ObjectTotal, Watermark};
use crate::commit::{EdgeTotal, ObjectKind, Totals, is_internal_stream};
use crate::named_checkpoints::EndingCheckpoint;
use crate::retry::Retryable;
use crate::source::losses::Loss;
use crate::source::{Behind, ShardSource};

/// What has been read and committed, and by whom the rest is read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The version of the lake log, if it is not the present one. Then nothing is known of owners, nor of how far behind they were.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub at: Option<AtVersion>,
    /// Every shard that has a lease.
    pub shards: Vec<ShardStatus>,
    /// Committed epochs.
    pub epochs: u64,
    /// When the last of them was written, RFC 3339.
    pub last_commit: Option<String>,
    /// What their records became.
    pub totals: Totals,
    /// The objects in the lake, by kind.
    pub objects: BTreeMap<ObjectKind, ObjectTotal>,
    /// Up to what time of arrival each dataset is complete.
    pub watermarks: Vec<Watermark>,
    /// What passed along the stage graph's edges, in the order of the graph. In JSON it is an object.
    #[serde(serialize_with = "as_object")]
    pub edges: Vec<EdgeStatus>,
    /// Losses in sources that nobody has accepted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<Loss>,
    /// Saved checkpoints that can soon not be used any more, or cannot be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ending_checkpoints: Vec<EndingCheckpoint>,
    /// Why commit records could not be read. They are not in the counts.
    pub unreadable: Vec<String>,
}

/// A version of the lake log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AtVersion {
    /// Its number.
    pub version: u64,
    /// When it was entered, RFC 3339; `None` for the empty lake.
    pub entered_at: Option<String>,
}

impl From<&LakeAt> for AtVersion {
    fn from(at: &LakeAt) -> Self {
        AtVersion { version: at.version.0, entered_at: at.entered_at.clone() }
    }
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShardStatus {
    /// Its stream.
    pub stream: StreamName,
    /// The shard.
    pub shard: ShardId,
    /// The worker that holds its lease.
    pub owner: Option<LeaseOwner>,
    /// The worker that has asked for the lease.
    pub handed_to: Option<LeaseOwner>,
    /// Everything up to here is in the lake.
    pub checkpoint: Position,
    /// The epoch that is decided and not finished.
    pub pending: Option<ManifestName>,
    /// Bytes after the checkpoint, where the source can tell.
    pub behind_bytes: Option<u64>,
    /// Milliseconds between the checkpoint and the end of the shard, where the source can tell.
    pub behind_ms: Option<u64>,
}

/// One edge of the stage graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeStatus {
    /// Its id.
    pub id: String,
    /// What passed along it.
    pub total: EdgeTotal,
}

impl Status {
    /// The status of a lake whose log was read. `behind` says how far shards are behind, where that is known.
    pub fn new(log: Log, behind: &HashMap<ShardKey, Behind>) -> Self {
        let latest = log.latest().map(|latest| latest.written_at.clone());
        let shards = log.leases.iter().filter(|lease| !is_internal_stream(&lease.key.stream));
        let shards = shards.map(|lease| ShardStatus::new(lease, behind.get(&lease.key))).collect();
        Status {
            at: None,
            watermarks: log.fold.arrivals.watermarks(log.chains.ends(), &log.leases),
            shards,
            epochs: log.fold.epochs,
            last_commit: latest,
            totals: log.fold.totals(),
            objects: log.fold.objects(),
            edges: EdgeStatus::in_order(log.fold.edges),
            losses: Vec::new(),
            ending_checkpoints: Vec::new(),
            unreadable: log.unreadable.iter().map(ToString::to_string).collect(),
        }
    }

    /// The status of the lake at a version: the shards as they were read by then, and the objects that were live.
    pub fn at(at: LakeAt) -> Self {
        let shard = |(key, end): (&ShardKey, &Position)| ShardStatus {
            stream: key.stream.clone(),
            shard: key.shard.clone(),
            owner: None,
            handed_to: None,
            checkpoint: end.clone(),
            pending: None,
            behind_bytes: None,
            behind_ms: None,
        };
        Status {
            at: Some(AtVersion::from(&at)),
            shards: at.chains.ends().filter(|(key, _)| !is_internal_stream(&key.stream)).map(shard).collect(),
            epochs: at.fold.epochs,
            last_commit: at.fold.latest.as_ref().map(|latest| latest.written_at.clone()),
            objects: at.live_by_kind(),
            watermarks: at.fold.arrivals.watermarks(at.chains.ends(), &[]),
            totals: at.fold.totals(),
            edges: EdgeStatus::in_order(at.fold.edges),
            losses: Vec::new(),
            ending_checkpoints: Vec::new(),
            unreadable: Vec::new(),
        }
    }
}

impl EdgeStatus {
    fn in_order(edges: BTreeMap<String, EdgeTotal>) -> Vec<Self> {
        let mut edges: Vec<EdgeStatus> = edges.into_iter().map(|(id, total)| EdgeStatus { id, total }).collect();
        // Ids that only a later version knows are last.
        edges.sort_by_cached_key(|edge| edge.id.parse::<EdgeId>().map_or((true, None), |id| (false, Some(id))));
        edges
    }
}

impl ShardStatus {
    fn new(lease: &Lease, behind: Option<&Behind>) -> Self {
        let (behind_bytes, behind_ms) = match behind {
            Some(Behind::Nothing) => (Some(0), Some(0)),
            Some(Behind::Bytes(bytes)) => (Some(*bytes), None),
            Some(Behind::Time(ms)) => (None, Some(*ms)),
            None => (None, None),
        };
        ShardStatus {
            stream: lease.key.stream.clone(),
            shard: lease.key.shard.clone(),
            owner: lease.holder.committer().cloned(),
            handed_to: match &lease.holder {
                checkpoints::Holder::HandingOver { to, .. } => Some(to.clone()),
                _ => None,
            },
            checkpoint: lease.checkpoint.clone(),
            pending: lease.pending.as_ref().map(|pending| pending.manifest.clone()),
            behind_bytes,
            behind_ms,
        }
    }
}

/// How far each shard is behind its source. Shards of other streams, and those that cannot be asked about, are left out. What only
/// somebody can fix, such as a missing permission, is logged once for each stream.
pub async fn how_far_behind(sources: &[Arc<dyn ShardSource>], leases: &[Lease]) -> HashMap<ShardKey, Behind> {
    let mut behind = HashMap::new();
    let mut refused = BTreeSet::new();
    for lease in leases {
        let Some(source) = sources.iter().find(|source| *source.stream() == lease.key.stream) else { continue };
        match source.behind(&lease.key.shard, &lease.checkpoint).await {
            Ok(found) => drop(behind.insert(lease.key.clone(), found)),
            Err(error) if !error.is_retryable() && refused.insert(source.stream().clone()) => {
                tracing::warn!(stream = %lease.key.stream, shard = %lease.key.shard, %error, "cannot tell how far the stream's shards are behind");
            }
            Err(error) => {
                tracing::debug!(stream = %lease.key.stream, shard = %lease.key.shard, %error, "cannot tell how far the shard is behind");
            }
        }
    }
    behind
}

fn as_object<S: Serializer>(edges: &[EdgeStatus], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Passed {
        records: u64,
        bytes: u64,
    }
    serializer.collect_map(
        edges.iter().map(|EdgeStatus { id, total: EdgeTotal(records, bytes) }| {
            (id, Passed { records: *records, bytes: *bytes })
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::log::{Chains, Fold, Latest};
    use checkpoints::{Holder, NewLease, Pending};

    #[test]
    fn a_status_is_one_json_value_with_the_edges_in_the_order_of_the_graph() {
        let [a, b] = ["a", "b"].map(|shard| {
            let key = ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new(shard).unwrap());
            Lease::new(NewLease::new(key, Position::Beginning))
        });
        let owner = |name: &str| LeaseOwner::new(name).unwrap();
        let handing_over = Holder::HandingOver { from: owner("w-1"), to: owner("w-2") };
        let manifest = ManifestName::new("_intents/e.json").unwrap();
        let pending = Some(Pending { through: Position::End, manifest });
        let mut leases = vec![Lease { holder: handing_over, ..a.clone() }, Lease { pending, ..b }];
        // Leases of operations and of replays are not shards of a stream.
        for (stream, shard) in [("_lake:0123456789abcdef", "orders"), ("_replay:01ab0000", "slice-00001")] {
            let key = ShardKey::new(StreamName::new(stream).unwrap(), ShardId::new(shard).unwrap());
            leases.push(Lease::new(NewLease::new(key, Position::Beginning)));
        }
        let edge = |records| EdgeTotal(records, 10 * records);
        let mut fold = Fold::default();
        fold.epochs = 2;
        fold.latest = Some(Latest {
            written_at: "2025-01-13T10:30:00.000Z".to_owned(),
            epoch: "e".to_owned().try_into().unwrap(),
        });
        fold.edges = [("batch/x/out", 2), ("decode/x/out", 3), ("archive/out", 1)]
            .map(|(id, records)| (id.to_owned(), edge(records)))
            .into();
        let log = Log {
            fold,
            chains: Chains::default(),
            overlaps: Vec::new(),
            unreadable: Vec::new(),
            leases,
            roll_up: None,
            records_read: 2,
        };
        let status = Status::new(log, &HashMap::from([(a.key, Behind::Time(1500))]));
        let json = serde_json::to_string(&status).unwrap();
        let expected = r#"{"shards":[{"stream":"orders","shard":"a","owner":"w-1","handed_to":"w-2","checkpoint":"TRIM_HORIZON","pending":null,"behind_bytes":null,"behind_ms":1500},{"stream":"orders","shard":"b","owner":null,"handed_to":null,"checkpoint":"TRIM_HORIZON","pending":"_intents/e.json","behind_bytes":null,"behind_ms":null}],"epochs":2,"last_commit":"2025-01-13T10:30:00.000Z","totals":{"records":0,"rows":{},"dead_letters":{},"raw_lines":null},"objects":{},"watermarks":[],"edges":{"decode/x/out":{"records":3,"bytes":30},"batch/x/out":{"records":2,"bytes":20},"archive/out":{"records":1,"bytes":10}},"unreadable":[]}"#;
        assert_eq!(json, expected);
    }
}
