//! The value of `/api/fleet`, from what this process counts and what was read of the stores.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use checkpoints::{Holder, Lease, LeaseOwner, ShardKey};
use pipeline::graph::NodeKind;
use pipeline::time::format_rfc3339;

use crate::inspect::leases::ShardState;
use crate::server::fleet::history::{STEP, as_f64, rounded};
use crate::server::fleet::model::{
    Charts, Epoch, Fleet as FleetValue, FleetWorker, GraphEdge, GraphNode, GraphRates, LakeFacts, Shard, ShardCounts,
    Worker,
};
use crate::server::fleet::problems::Facts;
use crate::server::fleet::{FORMAT, Fleet, age_s, behind_bytes, behind_s};
use crate::server::site::{Mode, Site};
use crate::worker::LiveShard;

/// Shards in the list. More would make the value too large for a browser to draw every two seconds.
const SHARDS_MAX: usize = 5_000;

impl Fleet {
    /// The value as JSON.
    pub(super) fn json(&self, site: &Site) -> Vec<u8> {
        let now_ms = site.now_ms();
        let live: HashMap<ShardKey, LiveShard> =
            self.view.progress.shards().into_iter().map(|shard| (shard.key.clone(), shard)).collect();
        let (shards, shard_counts) = self.shards(&live, now_ms);
        let workers = self.workers(&live);
        let snapshot = &self.snapshot;
        let facts = Facts {
            view: &self.view,
            snapshot,
            shards: &shards,
            workers: &workers,
            aborted_last_hour: self.aborted_last_hour(),
            readiness: site.readiness(),
            liveness: site.liveness(),
        };
        let problems = facts.problems();
        let lake = snapshot.log.as_ref().map(|log| LakeFacts {
            version: log.version,
            entered_at: log.entered_at.as_deref(),
            epochs: log.epochs,
            records: log.totals.records,
            rows: &log.totals.rows,
            objects: &log.objects,
            watermarks: &log.watermarks,
            commits: &log.commits,
            files: &log.files,
            dead_letters: &log.dead_letters,
        });
        let value = FleetValue {
            format: FORMAT,
            state: facts.readiness.state,
            version: env!("CARGO_PKG_VERSION"),
            generated_at: format_rfc3339(now_ms),
            is_loaded: snapshot.read_at.is_some(),
            problems: &problems,
            worker: self.worker(site, &facts),
            graph: self.graph(),
            epochs: self.epochs(&live, now_ms),
            lake,
            replays: &snapshot.replays,
            operations: &snapshot.table.operations,
            losses: &snapshot.losses,
            ending_checkpoints: &snapshot.ending_checkpoints,
            charts: self.charts(),
            workers,
            shards,
            shard_counts,
        };
        // Everything in it can be serialized.
        serde_json::to_vec(&value).unwrap_or_default()
    }

    fn worker<'f>(&'f self, site: &Site, facts: &Facts<'_>) -> Worker<'f> {
        let progress = &self.view.progress;
        let committed = progress.committed();
        let rates = self.all_rates.of(&());
        Worker {
            id: self.view.me.as_ref(),
            mode: match self.view.mode {
                Mode::Run => "run",
                Mode::UntilCaughtUp => "until-caught-up",
                Mode::Replay(_) => "replay",
            },
            started_at: format_rfc3339(site.started_ms()),
            uptime_s: rounded(site.uptime().as_secs_f64()),
            lake: &self.view.lake,
            place: &self.view.place,
            commit_interval_s: rounded(self.view.commit_interval.as_secs_f64()),
            ready: facts.readiness.ok,
            live: facts.liveness.ok,
            reasons: [facts.liveness.reasons.clone(), facts.readiness.reasons.clone()].concat(),
            records: progress.records.load(Ordering::Relaxed),
            bytes_read: progress.bytes_read.load(Ordering::Relaxed),
            records_per_s: rates.map(|(records, _)| records),
            bytes_per_s: rates.map(|(_, bytes)| bytes),
            epochs_committed: progress.epochs.load(Ordering::Relaxed),
            epochs_aborted: committed.aborted,
            rolled_forward: committed.rolled_forward,
            rolled_back: committed.rolled_back,
        }
    }

    fn workers(&self, live: &HashMap<ShardKey, LiveShard>) -> Vec<FleetWorker> {
        let table = &self.snapshot.table;
        // A replay has several workers in one process.
        let reads_here = |owner: &LeaseOwner| {
            table.leases.iter().any(|lease| lease.holder.is(owner) && live.contains_key(&lease.key))
        };
        let worker = |(owner, silent): (&LeaseOwner, &std::time::Duration)| {
            let held =
                || table.leases.iter().filter(move |lease| lease.holder.committer() == Some(owner) && !lease.is_done());
            let handing_over = |lease: &&Lease| matches!(lease.holder, Holder::HandingOver { .. });
            FleetWorker {
                id: owner.clone(),
                is_this: self.view.me.as_ref().map_or_else(|| reads_here(owner), |me| me == owner),
                state: if silent.is_zero() { "alive" } else { "silent" },
                silent_s: (!silent.is_zero()).then(|| rounded(silent.as_secs_f64())),
                shards: held().count() as u64,
                handing_over: held().filter(handing_over).count() as u64,
                bytes_per_s: rounded(held().map(|lease| lease.throughput.get() * 1000.0).sum()),
            }
        };
        let mut workers: Vec<FleetWorker> = table.silent.iter().map(worker).collect();
        workers.sort_by(|one, other| other.is_this.cmp(&one.is_this).then_with(|| one.id.cmp(&other.id)));
        workers
    }

    /// The shards that are listed, and how many there are. Those that are read by nobody come first, and those that are done last.
    fn shards(&self, live: &HashMap<ShardKey, LiveShard>, now_ms: i64) -> (Vec<Shard>, ShardCounts) {
        let table = &self.snapshot.table;
        let mut rows: Vec<(ShardState, &Lease)> = table
            .leases
            .iter()
            .map(|lease| (table.states.get(&lease.key).copied().unwrap_or(ShardState::Free), lease))
            .collect();
        let rank = |state: ShardState| match state {
            ShardState::Free | ShardState::Silent => 0,
            ShardState::HandingOver | ShardState::Read => 1,
            ShardState::WaitsForParents => 2,
            ShardState::Done => 3,
        };
        rows.sort_by(|(one, left), (other, right)| {
            rank(*one).cmp(&rank(*other)).then_with(|| left.key.cmp(&right.key))
        });
        let count = |is: &dyn Fn(ShardState) -> bool| rows.iter().filter(|(state, _)| is(*state)).count() as u64;
        let mut counts = ShardCounts {
            total: rows.len() as u64,
            read: count(&|state| matches!(state, ShardState::Read | ShardState::HandingOver)),
            free: count(&|state| matches!(state, ShardState::Free | ShardState::Silent)),
            done: count(&|state| state == ShardState::Done),
            listed: 0,
        };
        let mut shards: Vec<Shard> =
            rows.iter().take(SHARDS_MAX).map(|(state, lease)| self.shard(*state, lease, live, now_ms)).collect();
        // Before the table was read, or while it cannot be.
        let is_known = |key: &&ShardKey| table.states.contains_key(*key);
        let mut others: Vec<&ShardKey> = live.keys().filter(|key| !is_known(key)).collect();
        others.sort();
        for key in others.into_iter().take(SHARDS_MAX.saturating_sub(shards.len())) {
            let mut shard = empty_shard(key);
            (shard.state, shard.owner) = (ShardState::Read.as_str(), self.view.me.clone());
            self.add_live(&mut shard, &live[key], now_ms);
            (counts.total, counts.read) = (counts.total + 1, counts.read + 1);
            shards.push(shard);
        }
        counts.listed = shards.len() as u64;
        (shards, counts)
    }

    fn shard(&self, state: ShardState, lease: &Lease, live: &HashMap<ShardKey, LiveShard>, now_ms: i64) -> Shard {
        let mut shard = empty_shard(&lease.key);
        shard.state = state.as_str();
        shard.owner = lease.holder.committer().cloned();
        if let Holder::HandingOver { to, .. } = &lease.holder {
            shard.handed_to = Some(to.clone());
        }
        shard.checkpoint = Some(lease.checkpoint.clone());
        shard.pending = lease.pending.as_ref().map(|pending| pending.manifest.to_string());
        let through = self.snapshot.complete_through.get(&lease.key).copied();
        shard.complete_through = through.map(format_rfc3339);
        if state == ShardState::Done {
            return shard;
        }
        match live.get(&lease.key) {
            Some(live) => self.add_live(&mut shard, live, now_ms),
            None => {
                shard.behind_s = through.map(|through| age_s(now_ms, through));
                shard.bytes_per_s = shard.owner.is_some().then(|| rounded(lease.throughput.get() * 1000.0));
            }
        }
        let retention = self.snapshot.retentions.get(&lease.key.stream);
        shard.retention_used =
            shard.behind_s.zip(retention).map(|(behind, keeps)| rounded(behind / keeps.as_secs_f64().max(1.0)));
        shard
    }

    /// What this process knows of a shard that it reads.
    fn add_live(&self, shard: &mut Shard, live: &LiveShard, now_ms: i64) {
        let rates = self.shard_rates.of(&live.key);
        shard.is_here = true;
        shard.behind_s = behind_s(live);
        shard.behind_bytes = behind_bytes(live);
        shard.at_tip = Some(live.at_tip);
        shard.records_per_s = rates.map(|(records, _)| records);
        shard.bytes_per_s = rates.map(|(_, bytes)| bytes);
        shard.uncommitted_records = Some(live.uncommitted_records);
        shard.oldest_uncommitted_s = live.oldest_uncommitted_ms.map(|oldest| age_s(now_ms, oldest));
        shard.uncommitted_s = live.uncommitted_since_ms.map(|since| age_s(now_ms, since));
        shard.committed_s = live.committed_at_ms.map(|at| age_s(now_ms, at));
        shard.epoch = live.epoch.as_ref().map(ToString::to_string);
    }

    fn graph(&self) -> GraphRates {
        let graph = &self.view.lanes.graph;
        let totals: HashMap<String, (u64, u64)> =
            self.view.progress.edges().into_iter().map(|(id, total)| (id.to_string(), (total.0, total.1))).collect();
        let nodes = graph.nodes().iter().map(|node| GraphNode {
            name: node.name.clone(),
            detail: node.detail.clone(),
            kind: match node.kind {
                NodeKind::Source => "source",
                NodeKind::Stage => "stage",
                NodeKind::Sink => "sink",
            },
        });
        let edges = graph.edges().map(|(_, edge)| {
            let id = edge.id.to_string();
            let (records, bytes) = totals.get(&id).copied().unwrap_or_default();
            let rates = self.edge_rates.of(&id);
            GraphEdge {
                from: edge.from,
                to: edge.to,
                dead_letters: edge.dead_letters,
                records,
                bytes,
                records_per_s: rates.map(|(records, _)| records),
                bytes_per_s: rates.map(|(_, bytes)| bytes),
                id,
            }
        });
        GraphRates { nodes: nodes.collect(), edges: edges.collect() }
    }

    /// The open epochs of this process, and those of any worker that are decided and not finished.
    fn epochs(&self, live: &HashMap<ShardKey, LiveShard>, now_ms: i64) -> Vec<Epoch> {
        let open = self.view.progress.open_epochs().into_iter().map(|epoch| {
            let of_epoch = || live.values().filter(|shard| shard.epoch.as_ref() == Some(&epoch.id));
            Epoch {
                state: "open",
                shards: of_epoch().count() as u64,
                records: Some(of_epoch().map(|shard| shard.uncommitted_records).sum()),
                bytes: Some(epoch.bytes),
                age_s: Some(age_s(now_ms, epoch.opened_at_ms)),
                epoch: epoch.id.to_string(),
            }
        });
        let mut epochs: Vec<Epoch> = open.collect();
        let table = &self.snapshot.table;
        let mut decided: std::collections::BTreeMap<String, Epoch> = std::collections::BTreeMap::new();
        for lease in &table.leases {
            let Some(pending) = &lease.pending else { continue };
            let name = pending.manifest.to_string();
            let epoch = decided.entry(name.clone()).or_insert_with(|| Epoch {
                epoch: name,
                state: "decided",
                shards: 0,
                records: None,
                bytes: None,
                age_s: table.pending_since.get(&lease.key).map(|since| rounded(since.elapsed().as_secs_f64())),
            });
            epoch.shards += 1;
        }
        epochs.extend(decided.into_values());
        epochs
    }

    fn charts(&self) -> Charts {
        let (committed, dead_letters) = &self.snapshot.by_minute;
        Charts {
            step_s: STEP.as_secs(),
            records_per_s: self.charts.records_per_s.values(),
            behind_s: self.charts.behind_s.values(),
            behind_bytes: self.charts.behind_bytes.values(),
            oldest_uncommitted_s: self.charts.oldest_uncommitted_s.values(),
            committed_by_minute: committed.clone(),
            dead_letters_by_minute: dead_letters.clone(),
        }
    }

    /// Epochs that this process aborted in the last hour.
    fn aborted_last_hour(&self) -> u64 {
        let values = self.aborted.values();
        let first = values.first().copied().flatten().unwrap_or(0.0);
        let now = as_f64(self.view.progress.committed().aborted);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
        let grown = (now - first).max(0.0) as u64;
        grown
    }
}

fn empty_shard(key: &ShardKey) -> Shard {
    Shard {
        stream: key.stream.clone(),
        shard: key.shard.clone(),
        state: "",
        owner: None,
        is_here: false,
        handed_to: None,
        checkpoint: None,
        pending: None,
        complete_through: None,
        behind_s: None,
        behind_bytes: None,
        retention_used: None,
        at_tip: None,
        records_per_s: None,
        bytes_per_s: None,
        uncommitted_records: None,
        oldest_uncommitted_s: None,
        uncommitted_s: None,
        committed_s: None,
        epoch: None,
    }
}
