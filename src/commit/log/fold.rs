//! What all epochs of a lake add up to.
//!
//! Owns: the sums that `status` and `deadletters list` show, and adding a commit record to them. Addition is commutative, so
//! the order in which records are added does not matter. Does not own: which records there are (the parent module).
//!
//! An operation may remove what a record says that is added later. So what operations add and what they remove are two sums of their
//! own, and what is live is computed from both when somebody asks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::commit::epoch_id::EpochId;
use crate::commit::lake_log::Entry;
use crate::commit::log::arrivals::Arrivals;
use crate::commit::manifest::{
    IdleShard, Manifest, ManifestKind, ObjectKind, RemovedObject, ShardOfEpoch, code_and_day,
};
use crate::commit::totals::{EdgeTotal, Totals};
use crate::lake::ObjectKey;

/// What a set of commit records adds up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fold {
    /// How many epochs there are. Operations are not counted.
    pub epochs: u64,
    /// The epoch, or the operation, that was written last.
    pub latest: Option<Latest>,
    /// What the records of the epochs became when they were read.
    totals: Totals,
    /// What has passed along the stage graph's edges, by id.
    pub edges: BTreeMap<String, EdgeTotal>,
    /// Dead letters that epochs have added, by code and day of arrival (`2025-01-13`).
    dead_letters: BTreeMap<String, BTreeMap<String, DeadLetterTotal>>,
    /// Objects that epochs have added, by kind.
    objects: BTreeMap<ObjectKind, ObjectTotal>,
    /// What operations have changed.
    #[serde(default, skip_serializing_if = "Operations::is_empty")]
    operations: Operations,
    /// How far shards were read by arrival time.
    pub arrivals: Arrivals,
}

/// What operations on the lake have changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Operations {
    /// How many there are.
    count: u64,
    added: ObjectSums,
    removed: ObjectSums,
}

/// What a set of objects adds up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ObjectSums {
    /// Rows by dataset.
    rows: BTreeMap<String, u64>,
    dead_letters: BTreeMap<String, BTreeMap<String, DeadLetterTotal>>,
    objects: BTreeMap<ObjectKind, ObjectTotal>,
}

/// What is added: a commit record, or the entry of the lake log that was made of one.
struct Added<'a> {
    kind: ManifestKind,
    epoch: &'a EpochId,
    written_at: &'a str,
    shards: &'a [ShardOfEpoch],
    idle: &'a [IdleShard],
    removed: &'a [RemovedObject],
    totals: &'a Totals,
    edges: &'a BTreeMap<String, EdgeTotal>,
}

/// What is counted of an object.
struct Counted<'a> {
    key: &'a ObjectKey,
    kind: ObjectKind,
    dataset: Option<&'a String>,
    rows: u64,
    bytes: u64,
}

/// The newest epoch, by the time at which its manifest was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Latest {
    /// When it was written, RFC 3339.
    pub written_at: String,
    /// Its name.
    pub epoch: EpochId,
}

/// Dead letters of one code and day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterTotal {
    /// How many.
    pub records: u64,
    /// In how many objects.
    pub files: u64,
    /// The size of these.
    pub bytes: u64,
}

/// Objects of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectTotal {
    /// How many.
    pub count: u64,
    /// Rows or lines in them.
    pub rows: u64,
    /// Their size.
    pub bytes: u64,
}

impl DeadLetterTotal {
    fn is_zero(&self) -> bool {
        *self == DeadLetterTotal::default()
    }
}

impl ObjectTotal {
    /// Adds an object.
    pub(in crate::commit) fn add(&mut self, rows: u64, bytes: u64) {
        self.count += 1;
        self.rows = self.rows.saturating_add(rows);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Takes an object out.
    pub(in crate::commit) fn subtract(&mut self, rows: u64, bytes: u64) {
        self.count = self.count.saturating_sub(1);
        self.rows = self.rows.saturating_sub(rows);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Operations {
    fn is_empty(&self) -> bool {
        *self == Operations::default()
    }
}

impl ObjectSums {
    fn add(&mut self, object: &Counted<'_>) {
        if let (ObjectKind::Processed, Some(dataset)) = (object.kind, object.dataset) {
            let sum = self.rows.entry(dataset.clone()).or_default();
            *sum = sum.saturating_add(object.rows);
        }
        add_object(&mut self.objects, &mut self.dead_letters, object);
    }
}

impl Fold {
    /// Adds a commit record.
    pub fn add(&mut self, record: &Manifest) {
        let Manifest { kind, epoch, written_at, shards, idle, removed, totals, edges, .. } = record;
        self.add_record(&Added { kind: *kind, epoch, written_at, shards, idle, removed, totals, edges });
        for object in &record.objects {
            let (key, dataset) = (&object.key, object.dataset.as_ref());
            let counted = Counted { key, kind: object.kind, dataset, rows: object.rows, bytes: object.bytes };
            self.add_object(record.kind, &counted);
        }
    }

    /// Adds an entry of the lake log: what its commit record would add.
    pub fn add_entry(&mut self, entry: &Entry) {
        let Entry { kind, epoch, written_at, shards, idle, removed, totals, edges, .. } = entry;
        self.add_record(&Added { kind: *kind, epoch, written_at, shards, idle, removed, totals, edges });
        for object in &entry.added {
            let (key, dataset) = (&object.key, object.dataset.as_ref());
            let counted = Counted { key, kind: object.kind, dataset, rows: object.rows, bytes: object.bytes };
            self.add_object(entry.kind, &counted);
        }
    }

    fn add_record(&mut self, added: &Added<'_>) {
        let latest = Latest { written_at: added.written_at.to_owned(), epoch: added.epoch.clone() };
        self.latest = self.latest.take().max(Some(latest));
        self.totals.add(added.totals);
        for (id, total) in added.edges {
            self.edges.entry(id.clone()).or_default().add(*total);
        }
        if added.kind.is_operation() {
            self.operations.count += 1;
        } else {
            self.epochs += 1;
            self.arrivals.add(added.shards, added.idle, added.totals.rows.keys());
        }
        for object in added.removed {
            let RemovedObject { key, kind, dataset, rows, bytes } = object;
            let dataset = dataset.as_ref();
            self.operations.removed.add(&Counted { key, kind: *kind, dataset, rows: *rows, bytes: *bytes });
        }
    }

    fn add_object(&mut self, kind: ManifestKind, object: &Counted<'_>) {
        if kind.is_operation() {
            self.operations.added.add(object);
        } else {
            add_object(&mut self.objects, &mut self.dead_letters, object);
        }
    }

    /// Operations on the lake, such as a promoted replay.
    pub fn operations(&self) -> u64 {
        self.operations.count
    }

    /// The records that were read, and the rows and dead letters that are live. After a discard, or where one record becomes several rows,
    /// their sum is another number than that of the records.
    pub fn totals(&self) -> Totals {
        let mut totals = self.totals.clone();
        let Operations { added, removed, .. } = &self.operations;
        for (dataset, rows) in &added.rows {
            let sum = totals.rows.entry(dataset.clone()).or_default();
            *sum = sum.saturating_add(*rows);
        }
        for (dataset, rows) in &removed.rows {
            let sum = totals.rows.entry(dataset.clone()).or_default();
            *sum = sum.saturating_sub(*rows);
        }
        let records = |days: &BTreeMap<String, DeadLetterTotal>| days.values().map(|total| total.records).sum::<u64>();
        for (code, days) in &added.dead_letters {
            let sum = totals.dead_letters.entry(code.clone()).or_default();
            *sum = sum.saturating_add(records(days));
        }
        for (code, days) in &removed.dead_letters {
            let sum = totals.dead_letters.entry(code.clone()).or_default();
            *sum = sum.saturating_sub(records(days));
        }
        totals.rows.retain(|dataset, rows| *rows > 0 || !removed.rows.contains_key(dataset));
        totals.dead_letters.retain(|code, records| *records > 0 || !removed.dead_letters.contains_key(code));
        totals
    }

    /// The dead letters that are live, by code and day of arrival (`2025-01-13`).
    pub fn dead_letters(&self) -> BTreeMap<String, BTreeMap<String, DeadLetterTotal>> {
        let mut live = self.dead_letters.clone();
        let Operations { added, removed, .. } = &self.operations;
        for (code, days) in &added.dead_letters {
            for (day, more) in days {
                let total = live.entry(code.clone()).or_default().entry(day.clone()).or_default();
                total.records = total.records.saturating_add(more.records);
                total.files = total.files.saturating_add(more.files);
                total.bytes = total.bytes.saturating_add(more.bytes);
            }
        }
        for (code, days) in &removed.dead_letters {
            for (day, less) in days {
                let total = live.entry(code.clone()).or_default().entry(day.clone()).or_default();
                total.records = total.records.saturating_sub(less.records);
                total.files = total.files.saturating_sub(less.files);
                total.bytes = total.bytes.saturating_sub(less.bytes);
            }
        }
        live.values_mut().for_each(|days| days.retain(|_, total| !total.is_zero()));
        live.retain(|_, days| !days.is_empty());
        live
    }

    /// The objects that are live, by kind.
    pub fn objects(&self) -> BTreeMap<ObjectKind, ObjectTotal> {
        let mut live = self.objects.clone();
        let Operations { added, removed, .. } = &self.operations;
        for (kind, more) in &added.objects {
            let total = live.entry(*kind).or_default();
            total.count = total.count.saturating_add(more.count);
            total.rows = total.rows.saturating_add(more.rows);
            total.bytes = total.bytes.saturating_add(more.bytes);
        }
        for (kind, less) in &removed.objects {
            let total = live.entry(*kind).or_default();
            total.count = total.count.saturating_sub(less.count);
            total.rows = total.rows.saturating_sub(less.rows);
            total.bytes = total.bytes.saturating_sub(less.bytes);
        }
        live.retain(|_, total| total.count > 0);
        live
    }
}

fn add_object(
    objects: &mut BTreeMap<ObjectKind, ObjectTotal>,
    dead_letters: &mut BTreeMap<String, BTreeMap<String, DeadLetterTotal>>,
    object: &Counted<'_>,
) {
    objects.entry(object.kind).or_default().add(object.rows, object.bytes);
    if object.kind == ObjectKind::Error {
        let (code, day) = code_and_day(object.key);
        let total = dead_letters.entry(code).or_default().entry(day).or_default();
        total.records = total.records.saturating_add(object.rows);
        total.files += 1;
        total.bytes = total.bytes.saturating_add(object.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::lake_log::LogVersion;
    use crate::commit::lake_log::testing::epoch;
    use crate::commit::manifest::{FORMAT, ObjectOfEpoch};
    use crate::lake::{Checksum, UploadId};

    fn object(path: &str, kind: ObjectKind, dataset: Option<&str>, rows: u64) -> ObjectOfEpoch {
        let key = ObjectKey::new(path).unwrap();
        ObjectOfEpoch {
            partition: ObjectOfEpoch::partition_of(&key),
            columns: pipeline::encode::FileStats::default(),
            key,
            kind,
            dataset: dataset.map(str::to_owned),
            rows,
            bytes: 10 * rows,
            crc64nvme: Checksum::of(b""),
            upload: UploadId("u".to_owned()),
            parts: Vec::new(),
        }
    }

    /// An epoch with 7 rows and 3 dead letters, and an operation that makes 9 rows and 1 dead letter of them.
    fn history() -> [Manifest; 2] {
        let rows = "processed/orders/year=2025/month=01/day=13";
        let dead = "error/reason=Validate.MissingField/year=2025/month=01/day=13";
        let mut first = epoch(1, 0, LogVersion::EMPTY);
        first.objects = vec![
            object(&format!("{rows}/a-00001.parquet"), ObjectKind::Processed, Some("orders"), 7),
            object(&format!("{dead}/a-00002.json.gz"), ObjectKind::Error, None, 3),
        ];
        first.totals = Totals {
            records: 10,
            rows: [("orders".to_owned(), 7)].into(),
            dead_letters: [("Validate.MissingField".to_owned(), 3)].into(),
            ..Totals::default()
        };
        let mut second = Manifest { kind: ManifestKind::Replace, format: FORMAT, ..epoch(2, 0, LogVersion::EMPTY) };
        second.objects = vec![
            object(&format!("{rows}/b-00001.parquet"), ObjectKind::Processed, Some("orders"), 9),
            object(&dead.replace("Validate.MissingField", "Decode.Truncated"), ObjectKind::Error, None, 1),
        ];
        second.objects[1].key = ObjectKey::new(format!("{}/b-00002.json.gz", second.objects[1].key)).unwrap();
        second.removed = first.objects.iter().map(RemovedObject::from).collect();
        [first, second]
    }

    #[test]
    fn what_is_live_follows_operations_in_whatever_order_records_are_added() {
        let [first, second] = history();
        let (mut fold, mut other) = (Fold::default(), Fold::default());
        [&first, &second].into_iter().for_each(|record| fold.add(record));
        [&second, &first].into_iter().for_each(|record| other.add(record));
        assert_eq!(fold, other);
        assert_eq!((fold.epochs, fold.operations()), (1, 1));
        let totals = fold.totals();
        assert_eq!(totals.records, 10);
        assert_eq!(totals.rows, [("orders".to_owned(), 9)].into());
        assert_eq!(totals.dead_letters, [("Decode.Truncated".to_owned(), 1)].into());
        let objects = fold.objects();
        let processed = ObjectTotal { count: 1, rows: 9, bytes: 90 };
        assert_eq!((objects[&ObjectKind::Processed], objects[&ObjectKind::Error].rows), (processed, 1));
        let dead = fold.dead_letters();
        assert_eq!(dead.keys().collect::<Vec<_>>(), ["Decode.Truncated"]);
        // The stored form says the same.
        let json = serde_json::to_string(&fold).unwrap();
        assert_eq!(serde_json::from_str::<Fold>(&json).unwrap(), fold);
    }

    #[test]
    fn sums_of_a_lake_without_operations_are_stored_as_before() {
        let [first, _] = history();
        let mut fold = Fold::default();
        fold.add(&first);
        assert!(!serde_json::to_string(&fold).unwrap().contains("operations"));
        assert_eq!(fold.totals(), first.totals);
    }
}
