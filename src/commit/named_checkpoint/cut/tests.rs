//! Epochs are decided, recorded and advanced between the rows of a scan, in any order: every epoch is in the cut for all of its shards
//! or for none of them.

use std::sync::Arc;

use bytes::Bytes;
use checkpoints::{
    Advance, Decision, LeaseOwner, LeaseStore, MemoryStore as MemoryLeases, NewLease, ShardId, ShardRange, StreamName,
};
use proptest::prelude::*;

use super::*;
use crate::commit::lake_log::LogVersion;
use crate::commit::{FORMAT, ManifestKind, Totals};
use crate::lake::{MemoryStore, ObjectStore};
use crate::retry::RetryPolicy;

const SHARDS: [&str; 4] = ["a", "b", "c", "d"];

/// An epoch that is under way.
struct Running {
    manifest: Manifest,
    /// Whether the commit record is written.
    is_recorded: bool,
    /// Shards that have not advanced.
    left: Vec<ShardKey>,
}

/// A fleet whose epochs take single steps.
struct Fleet {
    lake: MemoryStore,
    leases: MemoryLeases,
    stores: Stores,
    me: LeaseOwner,
    running: Vec<Running>,
    /// Every epoch that was decided.
    decided: Vec<Manifest>,
    recorded: BTreeSet<EpochId>,
    number: u64,
}

fn key(shard: &str) -> ShardKey {
    ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new(shard).unwrap())
}

impl Fleet {
    async fn new() -> Self {
        let (lake, leases) = (MemoryStore::new(), MemoryLeases::new());
        let me = LeaseOwner::from_random([1; 16]);
        let stores = Stores::new(Arc::new(lake.clone()), Arc::new(leases.clone()), RetryPolicy::NONE)
            .with_streams([key("a").stream]);
        leases.create(&SHARDS.map(|shard| NewLease::new(key(shard), Position::Beginning))).await.unwrap();
        for shard in SHARDS {
            leases.take(&me, &key(shard), 0).await.unwrap().unwrap();
        }
        let (running, decided, recorded) = (Vec::new(), Vec::new(), BTreeSet::new());
        Fleet { lake, leases, stores, me, running, decided, recorded, number: 0 }
    }

    /// Decides an epoch over those of these shards on which nothing is pending.
    async fn decide(&mut self, among: &[ShardKey]) {
        self.number += 1;
        let through = Position::at(self.number.into());
        let rows = self.leases.get(among).await.unwrap().into_iter().flatten().filter(|row| row.pending.is_none());
        let of = |row: Lease| ShardOfEpoch {
            range: ShardRange::new(row.checkpoint, through.clone()).unwrap(),
            key: row.key,
            parents: Vec::new(),
            children: Vec::new(),
            taken_over: false,
            records: 1,
            bytes: 1,
            arrived_through: None,
        };
        let shards: Vec<ShardOfEpoch> = rows.map(of).collect();
        if shards.is_empty() {
            return;
        }
        let definition = DefinitionOfEpoch { hash: format!("{:02}", self.number % 3), schema_version: 1 };
        let manifest = Manifest {
            format: FORMAT,
            kind: ManifestKind::Epoch,
            epoch: EpochId::new(1_736_764_200_000, &self.me, self.number),
            worker: self.me.clone(),
            head: LogVersion::EMPTY,
            written_at: "2025-01-13T10:30:00.000Z".to_owned(),
            shards,
            idle: Vec::new(),
            objects: Vec::new(),
            removed: Vec::new(),
            of: None,
            sources: Vec::new(),
            swap: None,
            totals: Totals { records: 1, ..Totals::default() },
            edges: BTreeMap::new(),
            definitions: [("orders".to_owned(), definition)].into(),
            version: "0".to_owned(),
        };
        let ranges = manifest.shards.iter().map(|shard| (shard.key.clone(), shard.range.clone())).collect();
        let decision = Decision::new(self.me.clone(), manifest.epoch.manifest_name(), ranges).unwrap();
        self.leases.decide(&decision).await.unwrap();
        let left = manifest.shards.iter().map(|shard| shard.key.clone()).collect();
        self.decided.push(manifest.clone());
        self.running.push(Running { manifest, is_recorded: false, left });
    }

    /// The next step of a running epoch: its record, or one of its rows.
    async fn step(&mut self, choice: usize) {
        if self.running.is_empty() {
            return;
        }
        let place = choice % self.running.len();
        let epoch = &mut self.running[place];
        if !epoch.is_recorded {
            let (key, bytes) = (epoch.manifest.epoch.commit_key(), epoch.manifest.to_bytes());
            self.lake.put_new(&key, bytes).await.unwrap();
            epoch.is_recorded = true;
            self.recorded.insert(epoch.manifest.epoch.clone());
            return;
        }
        let key = epoch.left.remove(choice % epoch.left.len());
        let shard = epoch.manifest.shards.iter().find(|shard| shard.key == key).unwrap();
        let advance = Advance::new(key, shard.range.through().clone());
        self.leases.advance(&epoch.manifest.epoch.manifest_name(), &[advance]).await.unwrap();
        if epoch.left.is_empty() {
            self.running.remove(place);
        }
    }

    /// What happens between two reads, by a number.
    async fn act(&mut self, choice: usize) {
        match choice % 4 {
            0 => {
                let among: Vec<ShardKey> = SHARDS
                    .iter()
                    .enumerate()
                    .filter(|(n, _)| choice >> (n + 2) & 1 == 1)
                    .map(|(_, shard)| key(shard))
                    .collect();
                self.decide(&among).await;
            }
            _ => self.step(choice / 4).await,
        }
    }

    /// A scan that reads row by row, and lets the fleet act before each.
    async fn scan(&mut self, choices: &mut impl Iterator<Item = Vec<usize>>) -> BTreeMap<ShardKey, Lease> {
        let mut rows = BTreeMap::new();
        for shard in SHARDS {
            for choice in choices.next().unwrap_or_default() {
                self.act(choice).await;
            }
            let row = self.leases.get(&[key(shard)]).await.unwrap().remove(0).unwrap();
            rows.insert(row.key.clone(), row);
        }
        for choice in choices.next().unwrap_or_default() {
            self.act(choice).await;
        }
        rows
    }
}

/// Makes a cut while the fleet acts. Returns false if it was not settled.
async fn cut_is_consistent(choices: Vec<Vec<usize>>) -> Result<bool, TestCaseError> {
    let mut fleet = Fleet::new().await;
    let mut choices = choices.into_iter();
    let mut first = fleet.scan(&mut choices).await;
    for _ in 1..SCANS_MAX {
        let recorded = fleet.recorded.clone();
        let second = fleet.scan(&mut choices).await;
        let records = read_records(&fleet.stores, unsettled(&first, &second)).await.unwrap();
        let Some(cut) = settle(&first, second.clone(), &records) else {
            first = second;
            continue;
        };
        for manifest in &fleet.decided {
            let has = |shard: &&ShardOfEpoch| cut[&shard.key].checkpoint >= *shard.range.through();
            let count = manifest.shards.iter().filter(has).count();
            prop_assert!(count == 0 || count == manifest.shards.len(), "epoch {} in part: {cut:?}", manifest.epoch);
            prop_assert!(count > 0 || !recorded.contains(&manifest.epoch), "{} had a record", manifest.epoch);
        }
        for row in cut.values() {
            let ends = |shard: &ShardOfEpoch| shard.key == row.key && *shard.range.through() == row.checkpoint;
            let last = fleet.decided.iter().find(|manifest| manifest.shards.iter().any(ends));
            prop_assert_eq!(row.last_manifest.clone(), last.map(|last| last.epoch.manifest_name()));
        }
        return Ok(true);
    }
    Ok(false)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn every_epoch_is_in_a_cut_for_all_of_its_shards_or_for_none(
        choices in prop::collection::vec(prop::collection::vec(any::<usize>(), 0..6), 0..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let is_settled = runtime.block_on(cut_is_consistent(choices))?;
        prop_assert!(is_settled, "the fleet was quiet during the last scans");
    }
}

#[tokio::test]
async fn a_scan_alone_shows_epochs_in_part() {
    // The row of a is read before an epoch of both is decided, and the row of b after it has advanced.
    let mut fleet = Fleet::new().await;
    let first = fleet.scan(&mut std::iter::empty()).await;
    let before = fleet.leases.get(&[key("a")]).await.unwrap().remove(0).unwrap();
    fleet.decide(&[key("a"), key("b")]).await;
    for _ in 0..3 {
        fleet.step(0).await;
    }
    let mut second = fleet.scan(&mut std::iter::empty()).await;
    second.insert(key("a"), before);
    let names = unsettled(&first, &second);
    assert_eq!(names, BTreeSet::from([fleet.decided[0].epoch.manifest_name()]));
    let records = read_records(&fleet.stores, names).await.unwrap();
    let cut = settle(&first, second.clone(), &records).unwrap();
    assert_ne!(second[&key("a")].checkpoint, second[&key("b")].checkpoint, "the scan is torn");
    assert_eq!(cut[&key("a")].checkpoint, cut[&key("b")].checkpoint);
    assert_eq!(settle(&first, second, &[]), None, "the row of b has moved by an epoch that is not known");
}

#[tokio::test]
async fn a_pending_epoch_counts_if_its_commit_record_is_there() {
    for is_recorded in [false, true] {
        let mut fleet = Fleet::new().await;
        fleet.decide(&[key("a"), key("b")]).await;
        if is_recorded {
            fleet.step(0).await;
        }
        let cut = read_cut(&fleet.stores).await.unwrap();
        let [a, b, c, _] = &cut.shards[..] else { panic!("{cut:?}") };
        let expected = if is_recorded { Position::at(1_u64.into()) } else { Position::Beginning };
        assert_eq!((&a.checkpoint, &b.checkpoint, &c.checkpoint), (&expected, &expected, &Position::Beginning));
        assert_eq!(a.last_manifest.is_some(), is_recorded);
        assert_eq!(cut.definitions.contains_key("orders"), is_recorded);
    }
}

#[tokio::test]
async fn a_cut_has_the_definitions_of_the_last_epochs_of_its_shards() {
    let mut fleet = Fleet::new().await;
    for shards in [vec!["a", "b", "c"], vec!["a"], vec!["b"]] {
        let shards: Vec<ShardKey> = shards.into_iter().map(key).collect();
        fleet.decide(&shards).await;
        for _ in 0..=shards.len() {
            fleet.step(0).await;
        }
    }
    let hashes = |cut: &Cut| cut.definitions["orders"].iter().map(|one| one.hash.clone()).collect::<Vec<_>>();
    assert_eq!(hashes(&read_cut(&fleet.stores).await.unwrap()), ["00", "01", "02"]);
    // A record that cannot be read is an error, not a checkpoint without what it says.
    fleet.lake.tamper(&fleet.decided[0].epoch.commit_key(), Some(Bytes::from_static(b"{")));
    assert!(matches!(read_cut(&fleet.stores).await, Err(CutError::Commit(CommitError::Unreadable(_)))));
}

#[tokio::test]
async fn a_quiet_table_costs_two_scans_and_the_records_of_its_last_epochs() {
    let mut fleet = Fleet::new().await;
    fleet.decide(&SHARDS.map(key)).await;
    for _ in 0..5 {
        fleet.step(0).await;
    }
    let calls = fleet.lake.calls().len();
    read_cut(&fleet.stores).await.unwrap();
    assert_eq!(fleet.lake.calls()[calls..].iter().map(|(call, _)| *call).collect::<Vec<_>>(), ["get"]);
}

#[tokio::test]
async fn leases_of_operations_and_of_replays_are_not_in_a_cut() {
    let mut fleet = Fleet::new().await;
    let internal = ["_lake:0123456789abcdef", "_replay:01ab0000"].map(|name| StreamName::new(name).unwrap());
    // Even if they are known to be this lake's.
    fleet.stores = fleet.stores.with_streams(internal.clone());
    for stream in internal {
        let key = ShardKey::new(stream, ShardId::new("orders").unwrap());
        fleet.leases.create(&[NewLease::new(key, Position::Beginning)]).await.unwrap();
    }
    assert_eq!(fleet.stores.own_leases().await.unwrap().len(), SHARDS.len() + 2);
    let cut = read_cut(&fleet.stores).await.unwrap();
    assert!(cut.shards.iter().all(|shard| shard.key.stream == key("a").stream), "{:?}", cut.shards);
    assert_eq!(cut.shards.len(), SHARDS.len());
}
