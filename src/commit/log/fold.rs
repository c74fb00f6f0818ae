//! What all epochs of a lake add up to.
//!
//! Owns: the sums that `status` and `deadletters list` show, and adding a commit record to them. Addition is commutative, so
//! the order in which records are added does not matter. Does not own: which records there are (the parent module).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::commit::epoch_id::EpochId;
use crate::commit::lake_log::Entry;
use crate::commit::log::arrivals::Arrivals;
use crate::commit::manifest::{IdleShard, Manifest, ManifestKind, ObjectKind, ShardOfEpoch, code_and_day};
use crate::commit::totals::{EdgeTotal, Totals};
use crate::lake::ObjectKey;

/// What a set of commit records adds up to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fold {
    /// How many records there are.
    pub epochs: u64,
    /// The epoch that was written last.
    pub latest: Option<Latest>,
    /// What the records of the epochs became.
    pub totals: Totals,
    /// What has passed along the stage graph's edges, by id.
    pub edges: BTreeMap<String, EdgeTotal>,
    /// Dead letters by code and day of arrival (`2025-01-13`).
    pub dead_letters: BTreeMap<String, BTreeMap<String, DeadLetterTotal>>,
    /// Objects by kind.
    pub objects: BTreeMap<ObjectKind, ObjectTotal>,
    /// How far shards were read by arrival time.
    pub arrivals: Arrivals,
}

/// What is added: a commit record, or the entry of the lake log that was made of one.
struct Added<'a> {
    kind: ManifestKind,
    epoch: &'a EpochId,
    written_at: &'a str,
    shards: &'a [ShardOfEpoch],
    idle: &'a [IdleShard],
    totals: &'a Totals,
    edges: &'a BTreeMap<String, EdgeTotal>,
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

impl Fold {
    /// Adds a commit record.
    pub fn add(&mut self, record: &Manifest) {
        let Manifest { kind, epoch, written_at, shards, idle, totals, edges, .. } = record;
        self.add_epoch(&Added { kind: *kind, epoch, written_at, shards, idle, totals, edges });
        for object in &record.objects {
            self.add_object(&object.key, object.kind, object.rows, object.bytes);
        }
    }

    /// Adds an entry of the lake log: what its commit record would add.
    pub fn add_entry(&mut self, entry: &Entry) {
        let Entry { kind, epoch, written_at, shards, idle, totals, edges, .. } = entry;
        self.add_epoch(&Added { kind: *kind, epoch, written_at, shards, idle, totals, edges });
        for object in &entry.added {
            self.add_object(&object.key, object.kind, object.rows, object.bytes);
        }
    }

    fn add_epoch(&mut self, added: &Added<'_>) {
        self.epochs += 1;
        let latest = Latest { written_at: added.written_at.to_owned(), epoch: added.epoch.clone() };
        self.latest = self.latest.take().max(Some(latest));
        self.totals.add(added.totals);
        for (id, total) in added.edges {
            self.edges.entry(id.clone()).or_default().add(*total);
        }
        if added.kind == ManifestKind::Epoch {
            self.arrivals.add(added.shards, added.idle, added.totals.rows.keys());
        }
    }

    fn add_object(&mut self, key: &ObjectKey, kind: ObjectKind, rows: u64, bytes: u64) {
        let total = self.objects.entry(kind).or_default();
        total.count += 1;
        total.rows = total.rows.saturating_add(rows);
        total.bytes = total.bytes.saturating_add(bytes);
        if kind == ObjectKind::Error {
            let (code, day) = code_and_day(key);
            let total = self.dead_letters.entry(code).or_default().entry(day).or_default();
            total.records = total.records.saturating_add(rows);
            total.files += 1;
            total.bytes = total.bytes.saturating_add(bytes);
        }
    }
}
