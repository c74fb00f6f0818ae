//! The auditor: what must hold at every moment, whatever happens.
//!
//! It looks at the lake as any reader would and at the lease table as it is stored, after *every* effect on either, and
//! knows what was put into the streams. It shares no code with the product but the types of keys and positions. What it finds
//! first is kept; the fleet looks for it.
//!
//! 1. No record is visible twice, and nothing is visible that was never put: not as a row or dead letter, not as a raw line.
//! 2. An object is visible only while its epoch is pending, or has its commit record; a commit record is there only when all
//!    its objects are visible, and never goes away.
//! 3. A visible record lies at or before its shard's checkpoint, or in the pending range of its own epoch.
//! 4. Behind a checkpoint everything is visible, once: it moves only over what can be seen, and what can be seen stays.
//! 5. Checkpoints never go back, and move only to the end of what was pending.
//! 6. A decision is made by the holder of the lease, from the checkpoint on, described by an intent, over nothing pending.
//! 7. Nothing of a shard is decided before its parents are committed to their ends.
//! 8. What is rolled back is not visible, and has no commit record.
//! 9. When a worker ends because all has been read, everything is visible that was there when it began.
//! 10. A good record is a row with its own values in its own partition; a bad one is a dead letter with its own bytes.
//!
//! Owns: the books of all that, and the rules. Does not own: reading an object (`found`).

mod found;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use checkpoints::{Position, ShardId, ShardKey, StreamName};
use serde_json::Value;
use tokio::time::Instant;

use crate::auditor::found::{Found, as_line, found_in};
use crate::records::{Becomes, Draft};
use crate::wires::Service;
use crate::world::{Place, Row, World};

/// A record that must be found.
#[derive(Debug, Clone)]
struct Expected {
    position: Position,
    /// Its bytes, as a raw line holds them.
    line: Vec<u8>,
    becomes: Becomes,
    put_at: Instant,
    /// When the stream may have forgotten it.
    trimmed_at: Option<Instant>,
}

/// The auditor.
pub struct Auditor {
    world: Arc<dyn World>,
    /// Whether records land as received, too.
    raw: bool,
    ledger: Mutex<EpochLedger>,
}

#[derive(Default)]
struct EpochLedger {
    /// In the order of their positions.
    expected: BTreeMap<ShardKey, Vec<Expected>>,
    /// Which record each line is of. No two records are the same.
    lines: HashMap<Vec<u8>, Place>,
    /// How often each record is seen as a row or dead letter.
    seen: HashMap<Place, u32>,
    /// How often each is seen as a raw line.
    seen_raw: HashMap<Place, u32>,
    /// What each visible object holds.
    objects: HashMap<String, Held>,
    commits: HashSet<String>,
    rows: BTreeMap<ShardKey, Row>,
    violation: Option<String>,
}

/// The records in an object: as raw lines, or as what they became.
#[derive(Default)]
struct Held {
    places: Vec<Place>,
    is_raw: bool,
}

impl EpochLedger {
    fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn seen_of(&mut self, is_raw: bool) -> &mut HashMap<Place, u32> {
        if is_raw { &mut self.seen_raw } else { &mut self.seen }
    }

    /// Records that were put until then, and are neither visible nor trimmed.
    fn owed(&self, until: Instant) -> Vec<Place> {
        let now = Instant::now();
        let all = self.expected.iter().flat_map(|(key, records)| records.iter().map(move |record| (key, record)));
        let there = all.filter(|(_, record)| {
            record.put_at <= until && record.trimmed_at.is_none_or(|trimmed_at| trimmed_at > now)
        });
        let places = there.map(|(key, record)| Place { key: key.clone(), position: record.position.clone() });
        places.filter(|place| !self.seen.contains_key(place)).collect()
    }

    /// The record that was put at a place.
    fn record_at(&self, place: &Place) -> Option<&Expected> {
        let records = self.expected.get(&place.key)?;
        let index = records.binary_search_by(|record| record.position.cmp(&place.position)).ok()?;
        records.get(index)
    }
}

impl Auditor {
    /// An auditor of an empty world. `raw`: whether records land as received, too.
    pub fn new(world: Arc<dyn World>, raw: bool) -> Self {
        Auditor { world, raw, ledger: Mutex::default() }
    }

    fn ledger(&self) -> MutexGuard<'_, EpochLedger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record was put.
    pub fn expect(&self, place: Place, draft: Draft, trimmed_at: Option<Instant>) {
        let mut ledger = self.ledger();
        let line = as_line(draft.bytes);
        ledger.lines.insert(line.clone(), place.clone());
        let Place { key, position } = place;
        let record = Expected { position, line, becomes: draft.becomes, put_at: Instant::now(), trimmed_at };
        ledger.expected.entry(key).or_default().push(record);
    }

    /// A worker says that it has read everything there is. What was put before `at` must be visible.
    pub fn caught_up(&self, worker: &str, at: Instant) {
        let mut ledger = self.ledger();
        let owed = ledger.owed(at);
        if let Some(first) = owed.first() {
            ledger.violated(format!("{worker} has caught up, and {} records are missing, first {first:?}", owed.len()));
        }
    }

    /// Something else than lake or table is not as it must be.
    pub fn violated(&self, what: String) {
        self.ledger().violated(what);
    }

    /// What was violated first.
    pub fn violation(&self) -> Option<String> {
        self.ledger().violation.clone()
    }

    /// Records that were put.
    pub fn records(&self) -> u64 {
        self.ledger().expected.values().map(|shard| shard.len() as u64).sum()
    }

    /// Epochs that are committed.
    pub fn epochs(&self) -> u64 {
        self.ledger().commits.len() as u64
    }

    /// Records that should be visible and are not.
    pub fn owed(&self) -> Vec<Place> {
        self.ledger().owed(Instant::now())
    }

    /// Records that were trimmed before anybody read them.
    pub fn trimmed(&self) -> u64 {
        let ledger = self.ledger();
        let unseen = |(key, records): (&ShardKey, &Vec<Expected>)| {
            let place = |record: &&Expected| Place { key: key.clone(), position: record.position.clone() };
            records.iter().filter(|record| !ledger.seen.contains_key(&place(record))).count() as u64
        };
        ledger.expected.iter().map(unseen).sum()
    }

    /// A request took effect: on which service, what it was called, and what it was about.
    pub fn look(&self, service: Service, operation: &str, about: &str) {
        match (service, operation) {
            (
                Service::Lake,
                "complete_upload" | "put_new" | "delete" | "CompleteMultipartUpload" | "PutObject" | "DeleteObject",
            ) => self.object(about),
            (
                Service::Leases,
                "create" | "take" | "ask" | "hand_over" | "release" | "remove" | "decide" | "advance" | "roll_back"
                | "UpdateItem" | "TransactWriteItems" | "PutItem" | "DeleteItem" | "BatchWriteItem",
            ) => self.leases(),
            _ => {}
        }
    }

    /// An object may have come or gone.
    fn object(&self, key: &str) {
        let found = self.world.object(key);
        let mut ledger = self.ledger();
        if let Some(name) = key.strip_prefix("_commits/") {
            let epoch = name.trim_end_matches(".json").to_owned();
            match found {
                None if ledger.commits.contains(&epoch) => ledger.violated(format!("the commit record {key} is gone")),
                Some(bytes) if ledger.commits.insert(epoch) => commit_record(&mut ledger, key, &bytes),
                _ => {}
            }
            return;
        }
        let is_data = ["processed/", "raw/", "error/"].iter().any(|prefix| key.starts_with(prefix));
        if !is_data {
            return;
        }
        match (ledger.objects.contains_key(key), found) {
            (false, Some(bytes)) => self.appeared(&mut ledger, key, &bytes),
            (true, None) => {
                let held = ledger.objects.remove(key).unwrap_or_default();
                for place in held.places {
                    let committed = ledger.rows.get(&place.key).is_some_and(|row| place.position <= row.checkpoint);
                    if committed {
                        ledger.violated(format!("{key} is gone, and with it the committed record {place:?}"));
                    }
                    let seen = ledger.seen_of(held.is_raw);
                    if let Some(count) = seen.get_mut(&place) {
                        *count -= 1;
                        if *count == 0 {
                            seen.remove(&place);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// Rows may have changed.
    fn leases(&self) {
        let rows = self.world.rows();
        let mut ledger = self.ledger();
        let now: BTreeMap<&ShardKey, &Row> = rows.iter().map(|row| (&row.key, row)).collect();
        for row in &rows {
            let before = ledger.rows.get(&row.key).cloned();
            if before.as_ref() != Some(row) {
                self.changed(&mut ledger, before.as_ref(), row, &now);
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

    fn changed(&self, ledger: &mut EpochLedger, before: Option<&Row>, row: &Row, now: &BTreeMap<&ShardKey, &Row>) {
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
                }
                _ => ledger
                    .violated(format!("the checkpoint of {shard} moves to {}, which was not pending", row.checkpoint)),
            }
            if row.pending.is_some() && row.pending == was_pending {
                ledger.violated(format!("{shard} has advanced and is still pending"));
            }
            self.covered(ledger, shard, &from, &row.checkpoint);
            return;
        }
        match (&was_pending, &row.pending) {
            (None, Some((manifest, through))) => self.decided(ledger, before, row, manifest, through, now),
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
    fn decided(
        &self,
        ledger: &mut EpochLedger,
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
        let Some(intent) = self.world.object(manifest).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
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

    /// A checkpoint moved: everything in between is visible.
    fn covered(&self, ledger: &mut EpochLedger, key: &ShardKey, from: &Position, to: &Position) {
        let now = Instant::now();
        let records = ledger.expected.get(key).map(Vec::as_slice).unwrap_or_default();
        let begin = records.partition_point(|record| record.position <= *from);
        let missing = records[begin..].iter().take_while(|record| record.position <= *to).find(|record| {
            let place = Place { key: key.clone(), position: record.position.clone() };
            let seen = ledger.seen.contains_key(&place) && (!self.raw || ledger.seen_raw.contains_key(&place));
            !seen && record.trimmed_at.is_none_or(|at| at > now)
        });
        if let Some(missing) = missing {
            let missing = missing.position.clone();
            ledger.violated(format!(
                "the checkpoint of {key} moves to {to}, and the record at {missing} is not visible, or not in raw/"
            ));
        }
    }

    /// An object became visible.
    fn appeared(&self, ledger: &mut EpochLedger, key: &str, bytes: &Bytes) {
        let Some(epoch) = epoch_of_object(key).map(str::to_owned) else {
            return ledger.violated(format!("{key} is of no epoch"));
        };
        let is_raw = key.starts_with("raw/");
        if is_raw && !self.raw {
            ledger.violated(format!("{key} is there, and nothing was to land as received"));
        }
        let is_pending = |ledger: &EpochLedger| {
            let mut pending = ledger.rows.values().filter_map(|row| row.pending.as_ref());
            pending.any(|(manifest, _)| epoch_of_manifest(manifest) == epoch)
        };
        if !is_pending(ledger) && !ledger.commits.contains(&epoch) {
            ledger.violated(format!("{key} is visible, and its epoch is not decided"));
        }
        let mut held = Held { places: Vec::new(), is_raw };
        for found in found_in(key, bytes) {
            let place = match found {
                Found::Line(line) => match ledger.lines.get(&line) {
                    Some(place) => place.clone(),
                    None => {
                        let line = String::from_utf8_lossy(&line).into_owned();
                        ledger.violated(format!("{key} holds a line that was never put: {line}"));
                        continue;
                    }
                },
                Found::Record { place, becomes, bytes } => {
                    is_as_put(ledger, key, &place, &becomes, bytes);
                    place
                }
            };
            let in_range = ledger.rows.get(&place.key).is_some_and(|row| {
                let own = |(manifest, through): &(String, Position)| {
                    epoch_of_manifest(manifest) == epoch
                        && place.position > row.checkpoint
                        && place.position <= *through
                };
                row.pending.as_ref().is_some_and(own)
            });
            if !in_range && !ledger.commits.contains(&epoch) {
                ledger.violated(format!("{key} holds {place:?}, which its epoch has not decided"));
            }
            let count = ledger.seen_of(is_raw).entry(place.clone()).or_default();
            *count += 1;
            if *count > 1 {
                ledger.violated(format!("{place:?} is visible twice, now in {key}"));
            }
            held.places.push(place);
        }
        ledger.objects.insert(key.to_owned(), held);
    }
}

/// What was found at a place is what was put there.
fn is_as_put(ledger: &mut EpochLedger, key: &str, place: &Place, becomes: &Becomes, bytes: Option<Vec<u8>>) {
    let wrong = match ledger.record_at(place) {
        None => Some("which was never put".to_owned()),
        Some(put) if put.becomes != *becomes => Some(format!("as {becomes:?}; it must become {:?}", put.becomes)),
        Some(put) if bytes.is_some_and(|bytes| as_line(bytes) != put.line) => Some("with other bytes".to_owned()),
        Some(_) => None,
    };
    if let Some(wrong) = wrong {
        ledger.violated(format!("{key} holds {place:?}, {wrong}"));
    }
}

/// The shard that a part of a manifest is about.
fn key_of(own: &Value) -> Option<ShardKey> {
    let stream = StreamName::new(own["stream"].as_str()?).ok()?;
    Some(ShardKey::new(stream, ShardId::new(own["shard"].as_str()?).ok()?))
}

/// All objects of a commit record are visible.
fn commit_record(ledger: &mut EpochLedger, key: &str, bytes: &[u8]) {
    let Ok(record) = serde_json::from_slice::<Value>(bytes) else {
        return ledger.violated(format!("the commit record {key} is no JSON"));
    };
    for object in record["objects"].as_array().into_iter().flatten() {
        let object = object["key"].as_str().unwrap_or_default();
        if !ledger.objects.contains_key(object) {
            ledger.violated(format!("the commit record {key} is there, and {object} is not visible"));
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
