//! The auditor: the rules that must hold at every moment, whatever happens.
//!
//! After *every* effect on the lake or the lease table, it reads the lake as any reader would, and the lease table as it is
//! stored. It knows what was put into the streams. It shares no code with the product except the types of keys and positions.
//! It keeps the first violation, and the fleet asks for it.
//!
//! 1. No record is visible twice, and nothing is visible that was never put. This holds for rows and dead letters together,
//!    and for raw lines. Only an operation that replaces an object shows its records twice, until the object goes.
//! 2. An object is visible only while its epoch is pending or has a commit record. A commit record exists only if all its
//!    objects are visible, and is never removed.
//! 3. A visible record is at or before its shard's checkpoint, or in the pending range of its own epoch.
//! 4. Every record up to a checkpoint is visible, once. A checkpoint moves only over visible records, and they stay visible.
//! 5. A checkpoint never goes back, and moves only to the end of a pending range.
//! 6. A decision is made by the holder of the lease, starts at the checkpoint, has an intent, and finds nothing pending.
//! 7. Nothing of a shard is decided before its parents are committed to their ends.
//! 8. An epoch that was rolled back is not visible, and has no commit record.
//! 9. When a worker ends because it has caught up, every record that existed when it started is visible.
//! 10. A valid record is a row with its own values in its own partition. An invalid record is a dead letter with its own bytes.
//! 11. What a commit record says about times of arrival is true (`arrivals`).
//! 12. A checkpoint moves only once its epoch is in the lake log, which has what is committed, once, and in one order.
//! 13. Each record is in one live object at every version of the lake log, unless its dead letter was discarded. What is live is in the
//!     lake; what was removed is in the trash, until its replay is purged. An undo brings back what was there (`live`).
//! 14. A named checkpoint is of one moment, and everything up to its positions is visible (`named`).
//!
//! Owns: the rules, and the state that they need. Does not own: reading an object (`object_reader`), the rules of the lake log
//! itself (`lake_log`).

mod arrivals;
mod lake_log;
mod live;
mod named;
mod object_reader;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use checkpoints::{Position, ShardId, ShardKey, StreamName};
use serde_json::Value;
use tokio::time::Instant;

use crate::auditor::arrivals::check_arrivals;
use crate::auditor::lake_log::LogAudit;
use crate::auditor::live::{Entered, Gone, LiveAudit, operation};
use crate::auditor::named::NamedAudit;
use crate::auditor::object_reader::{Entry, as_line, read_object};
use crate::environment::{Environment, RecordId, Row, is_internal, is_replay};
use crate::network::Service;
use crate::objects::SimObjects;
use crate::records::{Becomes, Draft};

pub use crate::auditor::named::KEPT;

/// A record that must become visible.
#[derive(Debug, Clone)]
struct Expected {
    position: Position,
    /// Its bytes as they are in a raw line.
    line: Vec<u8>,
    becomes: Becomes,
    /// What it may become in an operation instead.
    redriven: Option<Becomes>,
    put_at: Instant,
    /// When the stream may trim it.
    trimmed_at: Option<Instant>,
}

/// The auditor.
pub struct Auditor {
    environment: Arc<dyn Environment>,
    /// Whether records also land in `raw/` as they were received.
    raw: bool,
    ledger: Mutex<AuditLedger>,
}

#[derive(Default)]
struct AuditLedger {
    /// The records of each shard, in the order of their positions.
    expected: BTreeMap<ShardKey, Vec<Expected>>,
    /// The record of each raw line. No two records are equal.
    lines: HashMap<Vec<u8>, RecordId>,
    /// How often each record is visible as a row or dead letter.
    seen: HashMap<RecordId, u32>,
    /// How often each record is visible as a raw line.
    seen_raw: HashMap<RecordId, u32>,
    /// Records whose dead letters were discarded.
    dropped: HashSet<RecordId>,
    /// The records in each visible object.
    objects: HashMap<String, ObjectRecords>,
    /// Objects that a decided operation has moved to the trash, and that are live until it enters the log. Their records count as visible.
    swapped: HashMap<String, ObjectRecords>,
    commits: HashSet<String>,
    log: LogAudit,
    live: LiveAudit,
    named: NamedAudit,
    rows: BTreeMap<ShardKey, Row>,
    /// Rows that were lost, as they were.
    lost: BTreeMap<ShardKey, Row>,
    violation: Option<String>,
}

/// The records in an object, as raw lines or as what they became.
#[derive(Default)]
struct ObjectRecords {
    ids: Vec<RecordId>,
    is_raw: bool,
    bytes: Bytes,
}

impl AuditLedger {
    fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn seen_of(&mut self, is_raw: bool) -> &mut HashMap<RecordId, u32> {
        if is_raw { &mut self.seen_raw } else { &mut self.seen }
    }

    /// A record was put.
    fn expect(&mut self, id: RecordId, draft: Draft, put_at: Instant, trimmed_at: Option<Instant>) {
        let line = as_line(draft.bytes.clone());
        self.lines.insert(line.clone(), id.clone());
        let RecordId { key, position } = id;
        let Draft { becomes, redriven, .. } = draft;
        let record = Expected { position, line, becomes, redriven, put_at, trimmed_at };
        self.expected.entry(key).or_default().push(record);
    }

    /// An object is not visible any more.
    fn hide(&mut self, key: &str, object: ObjectRecords) {
        for id in object.ids {
            let seen = self.seen_of(object.is_raw);
            let Some(count) = seen.get_mut(&id) else { continue };
            *count -= 1;
            if *count > 0 {
                continue;
            }
            seen.remove(&id);
            if self.dropped.contains(&id) && !object.is_raw {
                continue;
            }
            if self.rows.get(&id.key).is_some_and(|row| id.position <= row.checkpoint) {
                self.violated(format!("{key} is gone, and with it the committed record {id:?}"));
            }
        }
    }

    /// The records that were put until then, and are neither visible nor trimmed.
    fn missing(&self, until: Instant) -> Vec<RecordId> {
        let now = Instant::now();
        let all = self.expected.iter().flat_map(|(key, records)| records.iter().map(move |record| (key, record)));
        let there = all.filter(|(_, record)| {
            record.put_at <= until && record.trimmed_at.is_none_or(|trimmed_at| trimmed_at > now)
        });
        let ids = there.map(|(key, record)| RecordId { key: key.clone(), position: record.position.clone() });
        ids.filter(|id| !self.seen.contains_key(id) && !self.dropped.contains(id)).collect()
    }

    /// The operations that are decided and not finished.
    fn pending_operations(&self) -> BTreeSet<String> {
        let rows = self.rows.values().chain(self.lost.values()).filter(|row| is_internal(&row.key.stream));
        let pending = rows.filter_map(|row| row.pending.as_ref());
        pending.map(|(manifest, _)| epoch_of_manifest(manifest).to_owned()).collect()
    }

    /// The record that was put with this id.
    fn record(&self, id: &RecordId) -> Option<&Expected> {
        let records = self.expected.get(&id.key)?;
        let index = records.binary_search_by(|record| record.position.cmp(&id.position)).ok()?;
        records.get(index)
    }
}

impl Auditor {
    /// An auditor of an empty environment. `raw`: whether records also land in `raw/` as they were received.
    pub fn new(environment: Arc<dyn Environment>, raw: bool) -> Self {
        Auditor { environment, raw, ledger: Mutex::default() }
    }

    fn ledger(&self) -> MutexGuard<'_, AuditLedger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record was put.
    pub fn expect(&self, id: RecordId, draft: Draft, trimmed_at: Option<Instant>) {
        self.ledger().expect(id, draft, Instant::now(), trimmed_at);
    }

    /// A worker has ended because it has caught up. Everything that was put before `at` must be visible.
    pub fn caught_up(&self, worker: &str, at: Instant) {
        let mut ledger = self.ledger();
        let mut missing = ledger.missing(at);
        missing.extend(self.unlisted(at));
        if let Some(first) = missing.first() {
            let count = missing.len();
            ledger.violated(format!("{worker} has caught up, but {count} records are missing, first {first:?}"));
        }
    }

    /// A rule was violated that others than the auditor check.
    pub fn violated(&self, what: String) {
        self.ledger().violated(what);
    }

    /// The first violation.
    pub fn violation(&self) -> Option<String> {
        self.ledger().violation.clone()
    }

    /// The number of records that were put.
    pub fn records(&self) -> u64 {
        self.ledger().expected.values().map(|shard| shard.len() as u64).sum()
    }

    /// The number of committed epochs.
    pub fn epochs(&self) -> u64 {
        self.ledger().commits.len() as u64
    }

    /// Checks that every epoch with a commit record is in the lake log, unless it is still pending.
    ///
    /// # Errors
    /// The first epoch that is not.
    pub fn check_log_is_complete(&self) -> Result<(), String> {
        let rows = self.environment.rows();
        let ledger = self.ledger();
        let is_pending = |epoch: &str| {
            rows.iter().filter_map(|row| row.pending.as_ref()).any(|(name, _)| epoch_of_manifest(name) == epoch)
        };
        match ledger.commits.iter().filter(|epoch| !ledger.log.has(epoch) && !is_pending(epoch)).min() {
            Some(epoch) => Err(format!("{epoch} is committed, and not in the lake log")),
            None => Ok(()),
        }
    }

    /// The newest version of the lake log, the number of versions that were removed, and the number of entries that were written
    /// where one had been removed.
    pub fn log(&self) -> (u64, u64, u64) {
        let ledger = self.ledger();
        (ledger.log.newest(), ledger.log.trimmed(), ledger.log.false_entries())
    }

    /// Checks that what is visible is what is live, once nothing is half-way.
    ///
    /// # Errors
    /// The first object that is not.
    pub fn check_visible_is_live(&self) -> Result<(), String> {
        let ledger = self.ledger();
        ledger.live.check_visible(&ledger.objects)
    }

    /// Checks what the product reads of a version of the lake log: the keys of the live objects.
    ///
    /// # Errors
    /// The first object that it has or lacks.
    pub fn check_live_at(&self, version: u64, keys: &BTreeSet<String>) -> Result<(), String> {
        self.ledger().live.check_at(version, keys)
    }

    /// Whether the lake has an object.
    pub fn has(&self, key: &str) -> bool {
        self.environment.object(key).is_some()
    }

    /// Checks that no dead letter is left of a record that a redrive makes a row of.
    ///
    /// # Errors
    /// The first one.
    pub fn check_redriven(&self) -> Result<(), String> {
        let ledger = self.ledger();
        let errors = ledger.objects.iter().filter(|(key, _)| key.starts_with("error/"));
        let mut left: Vec<(&String, &RecordId)> =
            errors.flat_map(|(key, object)| object.ids.iter().map(move |id| (key, id))).collect();
        left.retain(|(_, id)| ledger.record(id).is_some_and(|record| record.redriven.is_some()));
        match left.into_iter().min() {
            Some((key, id)) => Err(format!("{key} still has {id:?}, which a redrive makes a row of")),
            None => Ok(()),
        }
    }

    /// The records that should be visible and are not.
    pub fn missing(&self) -> Vec<RecordId> {
        let now = Instant::now();
        let mut missing = self.ledger().missing(now);
        missing.extend(self.unlisted(now));
        missing
    }

    /// The records of objects that no worker has listed, and that were put until then. They have no identity yet.
    fn unlisted(&self, until: Instant) -> Vec<RecordId> {
        let put = self.environment.unlisted().into_iter().filter(|put_at| *put_at <= until);
        let shard = || ShardId::new("not-listed").expect("a plain name");
        put.map(|_| RecordId { key: ShardKey::new(SimObjects::name(), shard()), position: Position::Beginning })
            .collect()
    }

    /// How many checkpoints were saved by a command, and how many by the schedule.
    pub fn saved(&self) -> [u64; 2] {
        self.ledger().named.counts()
    }

    /// The epochs that are committed now.
    pub fn committed_epochs(&self) -> BTreeSet<String> {
        self.ledger().named.epochs()
    }

    /// A checkpoint was saved by a command that began when these epochs were committed.
    pub fn check_checkpoint_has(&self, key: &str, epochs: &BTreeSet<String>) {
        let mut ledger = self.ledger();
        if let Err(what) = ledger.named.check_begun_after(key, epochs) {
            ledger.violated(what);
        }
    }

    /// The number of records that were trimmed before anybody read them.
    pub fn trimmed(&self) -> u64 {
        let ledger = self.ledger();
        let unseen = |(key, records): (&ShardKey, &Vec<Expected>)| {
            let id = |record: &&Expected| RecordId { key: key.clone(), position: record.position.clone() };
            let is_unseen = |id: RecordId| !ledger.seen.contains_key(&id) && !ledger.dropped.contains(&id);
            records.iter().filter(|record| is_unseen(id(record))).count() as u64
        };
        ledger.expected.iter().map(unseen).sum()
    }

    /// Audits after a request has taken effect: its service, its operation, and the key that it was for.
    pub fn check(&self, service: Service, operation: &str, about: &str) {
        match (service, operation) {
            (
                Service::Lake,
                "complete_upload" | "put_new" | "delete" | "CompleteMultipartUpload" | "PutObject" | "DeleteObject",
            ) => self.check_object(about),
            (
                Service::Leases,
                "create" | "take" | "ask" | "hand_over" | "release" | "remove" | "decide" | "advance" | "roll_back"
                | "UpdateItem" | "TransactWriteItems" | "PutItem" | "DeleteItem" | "BatchWriteItem",
            ) => self.check_leases(),
            _ => {}
        }
    }

    /// The lease table, without the rows of replays: these have a lake of their own.
    fn rows(&self) -> Vec<Row> {
        self.environment.rows().into_iter().filter(|row| !is_replay(&row.key.stream)).collect()
    }

    /// An object may have appeared or disappeared.
    fn check_object(&self, key: &str) {
        let bytes = self.environment.object(key);
        let mut ledger = self.ledger();
        if let Some(name) = key.strip_prefix("_commits/") {
            let epoch = name.trim_end_matches(".json").to_owned();
            match bytes {
                None if ledger.commits.contains(&epoch) => ledger.violated(format!("the commit record {key} is gone")),
                Some(bytes) if ledger.commits.insert(epoch) => {
                    check_commit_record(&mut ledger, &*self.environment, key, &bytes);
                }
                _ => {}
            }
            return;
        }
        if key.starts_with("_log/") {
            let record = |epoch: &str| {
                let bytes = self.environment.object(&format!("_commits/{epoch}.json"))?;
                serde_json::from_slice(&bytes).ok()
            };
            let AuditLedger { log, rows, lost, live, objects, swapped, .. } = &mut *ledger;
            let is_pending = |epoch: &str| {
                let mut pending = rows.values().chain(lost.values()).filter_map(|row| row.pending.as_ref());
                pending.any(|(name, _)| epoch_of_manifest(name) == epoch)
            };
            let entered = log.check(key, bytes.as_deref(), record, is_pending);
            let entered = entered.and_then(|entered| match entered {
                Some(record) => live.enter(&record, objects, swapped),
                None => Ok(Entered::default()),
            });
            match entered {
                Ok(Entered { added, removed, dropped }) => {
                    let AuditLedger { objects, dropped: before, .. } = &mut *ledger;
                    if !before.is_empty() {
                        let added = added.iter().filter_map(|key| objects.get(key)).filter(|object| !object.is_raw);
                        for id in added.flat_map(|object| &object.ids) {
                            before.remove(id);
                        }
                    }
                    ledger.dropped.extend(dropped);
                    for key in removed {
                        let object = ledger.swapped.remove(&key).unwrap_or_default();
                        ledger.hide(&key, object);
                    }
                }
                Err(what) => ledger.violated(what),
            }
            return;
        }
        if key.starts_with("_sources/") {
            for (id, draft, put_at) in bytes.map(|bytes| self.environment.listed(key, &bytes)).unwrap_or_default() {
                ledger.expect(id, draft, put_at, None);
            }
            return;
        }
        if key.starts_with("_checkpoints/") {
            let AuditLedger { named, log, rows, lost, .. } = &mut *ledger;
            let has_row = |shard: &ShardKey| rows.contains_key(shard) || lost.contains_key(shard);
            match named.check(key, bytes.as_ref(), has_row, |version| log.epochs_through(version)) {
                Ok(cut) => {
                    for (shard, position) in cut.unwrap_or_default() {
                        self.check_coverage(&mut ledger, &shard, &Position::Beginning, &position);
                    }
                }
                Err(what) => ledger.violated(what),
            }
            return;
        }
        if key.starts_with("_trash/") || key.starts_with("_replays/") {
            let pending = if bytes.is_none() { ledger.pending_operations() } else { BTreeSet::new() };
            let AuditLedger { live, objects, .. } = &mut *ledger;
            if let Err(what) = live.check_kept(&*self.environment, key, bytes.is_some(), objects, &pending) {
                ledger.violated(what);
            }
            return;
        }
        let is_data = ["processed/", "raw/", "error/"].iter().any(|prefix| key.starts_with(prefix));
        if !is_data {
            return;
        }
        match (ledger.objects.contains_key(key), bytes) {
            (false, Some(bytes)) => self.check_new_object(&mut ledger, key, &bytes),
            (true, None) => {
                let object = ledger.objects.remove(key).unwrap_or_default();
                let is_committed = epoch_of_object(key).is_some_and(|epoch| ledger.commits.contains(epoch));
                let pending = ledger.pending_operations();
                match ledger.live.deleted(&*self.environment, key, &object.bytes, is_committed, &pending) {
                    Ok(Gone::Removed) => ledger.hide(key, object),
                    Ok(Gone::Swapped) => drop(ledger.swapped.insert(key.to_owned(), object)),
                    Err(what) => ledger.violated(what),
                }
            }
            _ => {}
        }
    }

    /// Rows were lost. Returns whether one of them was of a shard that is committed in part, so that it must be missed.
    pub fn rows_lost(&self) -> bool {
        let now: BTreeMap<ShardKey, Row> = self.rows().into_iter().map(|row| (row.key.clone(), row)).collect();
        let mut ledger = self.ledger();
        let before = std::mem::replace(&mut ledger.rows, now);
        ledger.lost = before.into_iter().filter(|(key, _)| !ledger.rows.contains_key(key)).collect();
        // The row of a shard whose children are read may stay missing.
        let is_parent = |key: &ShardKey| {
            let all = ledger.rows.values().chain(ledger.lost.values());
            all.filter(|row| row.key.stream == key.stream).any(|row| row.parents.contains(&key.shard))
        };
        // The rows of operations on the lake are missed by the next operation, not by a worker.
        let is_read = |row: &&Row| !is_internal(&row.key.stream);
        ledger.lost.values().filter(is_read).any(|row| !row.checkpoint.is_start() && !is_parent(&row.key))
    }

    /// The lost rows were made again. Everything up to their positions must be visible, and nothing after them.
    pub fn rows_made_again(&self) {
        let mut ledger = self.ledger();
        let lost = std::mem::take(&mut ledger.lost);
        for row in self.rows().into_iter().filter(|row| lost.contains_key(&row.key)) {
            self.check_coverage(&mut ledger, &row.key, &Position::Beginning, &row.checkpoint);
            let after = ledger.seen.keys().find(|id| id.key == row.key && id.position > row.checkpoint).cloned();
            if let Some(after) = after {
                ledger.violated(format!("{after:?} is visible, and its row was made again at {}", row.checkpoint));
            }
        }
    }

    /// Rows may have changed.
    fn check_leases(&self) {
        let rows = self.rows();
        let mut ledger = self.ledger();
        let now: BTreeMap<&ShardKey, &Row> = rows.iter().map(|row| (&row.key, row)).collect();
        for row in &rows {
            let before = ledger.rows.get(&row.key).cloned();
            if before.as_ref() != Some(row) {
                self.check_row(&mut ledger, before.as_ref(), row, &now);
            }
        }
        let gone: Vec<Row> = ledger.rows.values().filter(|row| !now.contains_key(&row.key)).cloned().collect();
        for row in gone {
            if row.checkpoint != Position::End || row.pending.is_some() {
                ledger.violated(format!("the row of {} is gone before its end", row.key));
            }
        }
        ledger.rows = rows.into_iter().map(|row| (row.key.clone(), row)).collect();
    }

    /// A row has changed.
    fn check_row(&self, ledger: &mut AuditLedger, before: Option<&Row>, row: &Row, now: &BTreeMap<&ShardKey, &Row>) {
        let shard = &row.key;
        let (from, was_pending) = match before {
            Some(before) => (before.checkpoint.clone(), before.pending.clone()),
            None => (row.checkpoint.clone(), None),
        };
        if row.checkpoint < from {
            ledger.violated(format!("the checkpoint of {shard} goes back from {from} to {}", row.checkpoint));
        } else if row.checkpoint != from {
            match &was_pending {
                Some((manifest, through)) if *through == row.checkpoint => {
                    if !ledger.commits.contains(epoch_of_manifest(manifest)) {
                        ledger.violated(format!("{shard} advances by {manifest}, which has no commit record"));
                    }
                    if !ledger.log.has(epoch_of_manifest(manifest)) {
                        ledger.violated(format!("{shard} advances by {manifest}, which is not in the lake log"));
                    }
                    if let Err(what) = ledger.live.advanced(epoch_of_manifest(manifest), &ledger.objects) {
                        ledger.violated(what);
                    }
                }
                _ => ledger
                    .violated(format!("the checkpoint of {shard} moves to {}, which was not pending", row.checkpoint)),
            }
            if row.pending.is_some() && row.pending == was_pending {
                ledger.violated(format!("{shard} has advanced and is still pending"));
            }
            self.check_coverage(ledger, shard, &from, &row.checkpoint);
            return;
        }
        match (&was_pending, &row.pending) {
            (None, Some((manifest, through))) => self.check_decision(ledger, before, row, manifest, through, now),
            (Some((old, _)), Some((new, _))) if old != new => {
                ledger.violated(format!("{new} is decided on {shard} over {old}, which is pending"));
            }
            (Some((manifest, _)), None) => {
                let epoch = epoch_of_manifest(manifest);
                if ledger.commits.contains(epoch) {
                    ledger.violated(format!("{manifest} is rolled back on {shard}, and has a commit record"));
                }
                let visible = ledger.objects.keys().find(|key| epoch_of_object(key) == Some(epoch)).cloned();
                if let Some(visible) = visible {
                    ledger.violated(format!("{manifest} is rolled back on {shard}, and {visible} is visible"));
                }
            }
            _ => {}
        }
    }

    /// A decision took effect on a shard.
    fn check_decision(
        &self,
        ledger: &mut AuditLedger,
        before: Option<&Row>,
        row: &Row,
        manifest: &str,
        through: &Position,
        now: &BTreeMap<&ShardKey, &Row>,
    ) {
        let shard = &row.key;
        for parent in &row.parents {
            let parent = ShardKey::new(shard.stream.clone(), parent.clone());
            if now.get(&parent).is_some_and(|parent| parent.checkpoint != Position::End) {
                ledger.violated(format!("{shard} is committed before its parent {parent} was read to its end"));
            }
        }
        let Some(intent) =
            self.environment.object(manifest).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        else {
            return ledger.violated(format!("{manifest} is decided on {shard} without an intent"));
        };
        let holder = before.and_then(|before| before.holder.clone());
        if intent["worker"].as_str() != holder.as_deref() {
            ledger.violated(format!("{} decides on {shard}, which {holder:?} holds", intent["worker"]));
        }
        let shards = intent["shards"].as_array().map(Vec::as_slice).unwrap_or_default();
        let own = shards.iter().find(|own| key_of(own).as_ref() == Some(shard));
        let range = own.map(|own| (own["range"]["after"].as_str(), own["range"]["through"].as_str()));
        let (after, end) = (row.checkpoint.to_string(), through.to_string());
        if range != Some((Some(after.as_str()), Some(end.as_str()))) {
            ledger.violated(format!("{manifest} says {range:?} of {shard}; decided is from {after} to {end}"));
        }
        let pending_on = |own: &Value| {
            let row = key_of(own).and_then(|key| now.get(&key).copied());
            row.is_some_and(|row| row.pending.as_ref().is_some_and(|(name, _)| name == manifest))
        };
        if !shards.iter().all(pending_on) {
            ledger.violated(format!("{manifest} is decided on some of its shards only"));
        }
    }

    /// A checkpoint moved. Everything between its old and its new position must be visible.
    fn check_coverage(&self, ledger: &mut AuditLedger, key: &ShardKey, from: &Position, to: &Position) {
        let now = Instant::now();
        let records = ledger.expected.get(key).map(Vec::as_slice).unwrap_or_default();
        let begin = records.partition_point(|record| record.position <= *from);
        let missing = records[begin..].iter().take_while(|record| record.position <= *to).find(|record| {
            let id = RecordId { key: key.clone(), position: record.position.clone() };
            let is_seen = (ledger.seen.contains_key(&id) || ledger.dropped.contains(&id))
                && (!self.raw || ledger.seen_raw.contains_key(&id));
            !is_seen && record.trimmed_at.is_none_or(|at| at > now)
        });
        if let Some(missing) = missing {
            let missing = missing.position.clone();
            ledger.violated(format!(
                "the checkpoint of {key} moves to {to}, but the record at {missing} is not visible, or not in raw/"
            ));
        }
    }

    /// An object became visible.
    fn check_new_object(&self, ledger: &mut AuditLedger, key: &str, bytes: &Bytes) {
        let Some(epoch) = epoch_of_object(key).map(str::to_owned) else {
            return ledger.violated(format!("{key} does not name an epoch"));
        };
        let is_raw = key.starts_with("raw/");
        if is_raw && !self.raw {
            ledger.violated(format!("{key} exists, but raw landing is off"));
        }
        let is_pending = |ledger: &AuditLedger| {
            let rows = ledger.rows.values().chain(ledger.lost.values());
            let mut pending = rows.filter_map(|row| row.pending.as_ref());
            pending.any(|(manifest, _)| epoch_of_manifest(manifest) == epoch)
        };
        if !is_pending(ledger) && !ledger.commits.contains(&epoch) {
            ledger.violated(format!("{key} is visible, but its epoch is not decided"));
        }
        let mut object = ObjectRecords { ids: Vec::new(), is_raw, bytes: bytes.clone() };
        for entry in read_object(key, bytes) {
            let id = match entry {
                Entry::Line(line) => match ledger.lines.get(&line) {
                    Some(id) => id.clone(),
                    None => {
                        let line = String::from_utf8_lossy(&line).into_owned();
                        ledger.violated(format!("{key} has a line that was never put: {line}"));
                        continue;
                    }
                },
                Entry::Record { id, becomes, bytes } => {
                    check_record(ledger, &*self.environment, (key, &epoch), &id, &becomes, bytes);
                    id
                }
            };
            let row = ledger.rows.get(&id.key).or_else(|| ledger.lost.get(&id.key));
            let in_range = row.is_some_and(|row| {
                let own = |(manifest, through): &(String, Position)| {
                    epoch_of_manifest(manifest) == epoch && id.position > row.checkpoint && id.position <= *through
                };
                row.pending.as_ref().is_some_and(own)
            });
            let count = ledger.seen_of(is_raw).entry(id.clone()).or_default();
            *count += 1;
            let count = *count;
            let is_strange = count > 1 || !in_range && !ledger.commits.contains(&epoch);
            let AuditLedger { live, objects, swapped, dropped, .. } = &mut *ledger;
            // A replay makes a dead letter again that was discarded.
            let is_again = |id| !is_raw && dropped.contains(id) && operation(&*self.environment, &epoch).is_some();
            let is_copy =
                is_strange && (live.replaces(&*self.environment, (objects, swapped), &epoch, &id) || is_again(&id));
            if is_strange && !is_copy && count > 1 || count > 2 {
                ledger.violated(format!("{id:?} is visible twice, now in {key}"));
            } else if is_strange && !is_copy {
                ledger.violated(format!("{key} has {id:?}, which is not in the decided range of its epoch"));
            }
            object.ids.push(id);
        }
        ledger.objects.insert(key.to_owned(), object);
    }
}

/// A visible record must be what was put, and what it must become.
fn check_record(
    ledger: &mut AuditLedger,
    environment: &dyn Environment,
    (key, epoch): (&str, &str),
    id: &RecordId,
    becomes: &Becomes,
    bytes: Option<Vec<u8>>,
) {
    let wrong = match ledger.record(id) {
        None => Some("which was never put".to_owned()),
        Some(put) if put.redriven.as_ref() == Some(becomes) && operation(environment, epoch).is_some() => None,
        Some(put) if put.becomes != *becomes => Some(format!("as {becomes:?}; it must become {:?}", put.becomes)),
        Some(put) if bytes.is_some_and(|bytes| as_line(bytes) != put.line) => Some("with other bytes".to_owned()),
        Some(_) => None,
    };
    if let Some(wrong) = wrong {
        ledger.violated(format!("{key} has {id:?}, {wrong}"));
    }
}

/// The shard of an entry of a manifest.
fn key_of(own: &Value) -> Option<ShardKey> {
    let stream = StreamName::new(own["stream"].as_str()?).ok()?;
    Some(ShardKey::new(stream, ShardId::new(own["shard"].as_str()?).ok()?))
}

/// All objects of a commit record must be visible.
fn check_commit_record(ledger: &mut AuditLedger, environment: &dyn Environment, key: &str, bytes: &[u8]) {
    let Ok(record) = serde_json::from_slice::<Value>(bytes) else {
        return ledger.violated(format!("the commit record {key} is not valid JSON"));
    };
    ledger.named.committed(&record);
    check_arrivals(ledger, environment, key, &record);
    for object in record["objects"].as_array().into_iter().flatten() {
        let object = object["key"].as_str().unwrap_or_default();
        if !ledger.objects.contains_key(object) {
            ledger.violated(format!("the commit record {key} exists, but {object} is not visible"));
        }
    }
}

/// `_intents/<epoch>.json`
fn epoch_of_manifest(manifest: &str) -> &str {
    manifest.trim_start_matches("_intents/").trim_end_matches(".json")
}

/// `…/<epoch>-<number>.<extension>`
fn epoch_of_object(key: &str) -> Option<&str> {
    let (stem, _) = key.rsplit('/').next()?.split_once('.')?;
    Some(stem.rsplit_once('-')?.0)
}
