//! The auditor: what must hold at every moment, whatever happens.
//!
//! It looks at the lake as any reader would and at the lease table as it is stored, after *every* effect on either, and
//! knows what was put into the stream. It shares no code with the product but the type of a position. What it finds first is
//! kept; the fleet looks for it.
//!
//! 1. No record is visible twice, and nothing is visible that was never put.
//! 2. An object is visible only while its epoch is pending, or has its commit record; a commit record is there only when all
//!    its objects are visible, and never goes away.
//! 3. A visible record lies at or before its shard's checkpoint, or in the pending range of its own epoch.
//! 4. Behind a checkpoint everything is visible, once: it moves only over what can be seen, and what can be seen stays.
//! 5. Checkpoints never go back, and move only to the end of what was pending.
//! 6. A decision is made by the holder of the lease, from the checkpoint on, described by an intent, over nothing pending.
//! 7. Nothing of a shard is decided before its parents are committed to their ends.
//! 8. What is rolled back is not visible, and has no commit record.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use checkpoints::{Position, SequenceNumber};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use serde_json::Value;
use tokio::time::Instant;

use crate::wires::Service;
use crate::world::{Place, Row, World};

/// A record that must be found.
#[derive(Debug, Clone)]
struct Expected {
    position: Position,
    /// When the stream may have forgotten it.
    trimmed_at: Option<Instant>,
}

/// The auditor.
pub struct Auditor {
    world: Arc<dyn World>,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    expected: BTreeMap<String, Vec<Expected>>,
    /// How often each place is seen.
    seen: HashMap<Place, u32>,
    /// What each visible object holds.
    objects: HashMap<String, Held>,
    commits: HashSet<String>,
    rows: BTreeMap<String, Row>,
    violation: Option<String>,
}

#[derive(Default)]
struct Held {
    places: Vec<Place>,
    raw_lines: u64,
}

impl Books {
    fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }
}

impl Auditor {
    /// An auditor of an empty world.
    pub fn new(world: Arc<dyn World>) -> Self {
        Auditor { world, books: Mutex::default() }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record was put.
    pub fn expect(&self, place: Place, trimmed_at: Option<Instant>) {
        let Place { shard, position } = place;
        self.books().expected.entry(shard).or_default().push(Expected { position, trimmed_at });
    }

    /// Something other than the lake is wrong.
    pub fn violated(&self, what: String) {
        self.books().violated(what);
    }

    /// What was violated first.
    pub fn violation(&self) -> Option<String> {
        self.books().violation.clone()
    }

    /// Records that were put.
    pub fn records(&self) -> u64 {
        self.books().expected.values().map(|shard| shard.len() as u64).sum()
    }

    /// Raw lines that are visible.
    pub fn raw_lines(&self) -> u64 {
        self.books().objects.values().map(|held| held.raw_lines).sum()
    }

    /// Epochs that are committed.
    pub fn epochs(&self) -> u64 {
        self.books().commits.len() as u64
    }

    /// Records that should be visible and are not: how many, and the first.
    pub fn owed(&self) -> (usize, Option<Place>) {
        let books = self.books();
        let now = Instant::now();
        let mut owed = books.expected.iter().flat_map(|(shard, records)| {
            let missing = |record: &&Expected| {
                let place = Place { shard: shard.clone(), position: record.position.clone() };
                !books.seen.contains_key(&place) && record.trimmed_at.is_none_or(|at| at > now)
            };
            records
                .iter()
                .filter(missing)
                .map(|record| Place { shard: shard.clone(), position: record.position.clone() })
        });
        let first = owed.next();
        (owed.count() + usize::from(first.is_some()), first)
    }

    /// Records that were trimmed before anybody read them.
    pub fn trimmed(&self) -> u64 {
        let books = self.books();
        let unseen = |(shard, records): (&String, &Vec<Expected>)| {
            let missing = |record: &&Expected| {
                !books.seen.contains_key(&Place { shard: shard.clone(), position: record.position.clone() })
            };
            records.iter().filter(missing).count() as u64
        };
        books.expected.iter().map(unseen).sum()
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
        let mut books = self.books();
        if let Some(name) = key.strip_prefix("_commits/") {
            let epoch = name.trim_end_matches(".json").to_owned();
            match found {
                None if books.commits.contains(&epoch) => books.violated(format!("the commit record {key} is gone")),
                Some(bytes) if books.commits.insert(epoch) => commit_record(&mut books, key, &bytes),
                _ => {}
            }
            return;
        }
        let is_data = ["processed/", "raw/", "error/"].iter().any(|prefix| key.starts_with(prefix));
        if !is_data {
            return;
        }
        match (books.objects.contains_key(key), found) {
            (false, Some(bytes)) => appeared(&mut books, key, &bytes),
            (true, None) => {
                let held = books.objects.remove(key).unwrap_or_default();
                for place in held.places {
                    let committed = books.rows.get(&place.shard).is_some_and(|row| place.position <= row.checkpoint);
                    if committed {
                        books.violated(format!("{key} is gone, and with it the committed record {place:?}"));
                    }
                    if let Some(count) = books.seen.get_mut(&place) {
                        *count -= 1;
                        if *count == 0 {
                            books.seen.remove(&place);
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
        let mut books = self.books();
        let now: BTreeMap<&str, &Row> = rows.iter().map(|row| (row.shard.as_str(), row)).collect();
        for row in &rows {
            let before = books.rows.get(&row.shard).cloned();
            if before.as_ref() != Some(row) {
                self.changed(&mut books, before.as_ref(), row, &now);
            }
        }
        let gone: Vec<Row> = books.rows.values().filter(|row| !now.contains_key(row.shard.as_str())).cloned().collect();
        for row in gone {
            if row.checkpoint != Position::End || row.pending.is_some() {
                books.violated(format!("the row of {} is gone before its end", row.shard));
            }
        }
        books.rows = rows.into_iter().map(|row| (row.shard.clone(), row)).collect();
    }

    fn changed(&self, books: &mut Books, before: Option<&Row>, row: &Row, now: &BTreeMap<&str, &Row>) {
        let shard = &row.shard;
        let (from, was_pending) = match before {
            Some(before) => (before.checkpoint.clone(), before.pending.clone()),
            None => (row.checkpoint.clone(), None),
        };
        if row.checkpoint < from {
            books.violated(format!("the checkpoint of {shard} goes back from {from} to {}", row.checkpoint));
        } else if row.checkpoint != from {
            match &was_pending {
                Some((manifest, through)) if *through == row.checkpoint => {
                    if !books.commits.contains(epoch_of_manifest(manifest)) {
                        books.violated(format!("{shard} advances by {manifest}, which has no commit record"));
                    }
                }
                _ => books
                    .violated(format!("the checkpoint of {shard} moves to {}, which was not pending", row.checkpoint)),
            }
            if row.pending.is_some() && row.pending == was_pending {
                books.violated(format!("{shard} has advanced and is still pending"));
            }
            self.covered(books, shard, &from, &row.checkpoint);
            return;
        }
        match (&was_pending, &row.pending) {
            (None, Some((manifest, through))) => self.decided(books, before, row, manifest, through, now),
            (Some((old, _)), Some((new, _))) if old != new => {
                books.violated(format!("{new} is decided on {shard} over {old}, which is pending"));
            }
            (Some((manifest, _)), None) => {
                let epoch = epoch_of_manifest(manifest);
                if books.commits.contains(epoch) {
                    books.violated(format!("{manifest} is rolled back on {shard}, and has a commit record"));
                }
                let visible = books.objects.keys().find(|key| epoch_of_object(key) == Some(epoch)).cloned();
                if let Some(visible) = visible {
                    books.violated(format!("{manifest} is rolled back on {shard}, and {visible} is visible"));
                }
            }
            _ => {}
        }
    }

    /// A decision took effect on a shard.
    fn decided(
        &self,
        books: &mut Books,
        before: Option<&Row>,
        row: &Row,
        manifest: &str,
        through: &Position,
        now: &BTreeMap<&str, &Row>,
    ) {
        let shard = &row.shard;
        for parent in &row.parents {
            if now.get(parent.as_str()).is_some_and(|parent| parent.checkpoint != Position::End) {
                books.violated(format!("{shard} is committed before its parent {parent} was read to its end"));
            }
        }
        let Some(intent) = self.world.object(manifest).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        else {
            return books.violated(format!("{manifest} is decided on {shard} without an intent"));
        };
        let holder = before.and_then(|before| before.holder.clone());
        if intent["worker"].as_str() != holder.as_deref() {
            books.violated(format!("{} decides on {shard}, which {holder:?} holds", intent["worker"]));
        }
        let shards = intent["shards"].as_array().map(Vec::as_slice).unwrap_or_default();
        let own = shards.iter().find(|own| own["shard"].as_str() == Some(shard.as_str()));
        let range = own.map(|own| (own["range"]["after"].as_str(), own["range"]["through"].as_str()));
        let (after, end) = (row.checkpoint.to_string(), through.to_string());
        if range != Some((Some(after.as_str()), Some(end.as_str()))) {
            books.violated(format!("{manifest} says {range:?} of {shard}; decided is from {after} to {end}"));
        }
        let pending_on = |own: &Value| {
            let row = own["shard"].as_str().and_then(|shard| now.get(shard));
            row.is_some_and(|row| row.pending.as_ref().is_some_and(|(name, _)| name == manifest))
        };
        if !shards.iter().all(pending_on) {
            books.violated(format!("{manifest} is decided on some of its shards only"));
        }
    }

    /// A checkpoint moved: everything in between is visible.
    fn covered(&self, books: &mut Books, shard: &str, from: &Position, to: &Position) {
        let now = Instant::now();
        let records = books.expected.get(shard).map(Vec::as_slice).unwrap_or_default();
        let begin = records.partition_point(|record| record.position <= *from);
        let missing = records[begin..].iter().take_while(|record| record.position <= *to).find(|record| {
            let place = Place { shard: shard.to_owned(), position: record.position.clone() };
            !books.seen.contains_key(&place) && record.trimmed_at.is_none_or(|at| at > now)
        });
        if let Some(missing) = missing {
            let missing = missing.position.clone();
            books.violated(format!(
                "the checkpoint of {shard} moves to {to}, and the record at {missing} is not visible"
            ));
        }
    }
}

/// All objects of a commit record are visible.
fn commit_record(books: &mut Books, key: &str, bytes: &[u8]) {
    let Ok(record) = serde_json::from_slice::<Value>(bytes) else {
        return books.violated(format!("the commit record {key} is no JSON"));
    };
    for object in record["objects"].as_array().into_iter().flatten() {
        let object = object["key"].as_str().unwrap_or_default();
        if !books.objects.contains_key(object) {
            books.violated(format!("the commit record {key} is there, and {object} is not visible"));
        }
    }
}

/// An object became visible.
fn appeared(books: &mut Books, key: &str, bytes: &Bytes) {
    let mut held = Held::default();
    if key.starts_with("processed/") {
        held.places = rows_of(bytes.clone());
    } else if key.starts_with("error/") {
        held.places = letters_of(bytes);
    } else {
        held.raw_lines = lines_of(bytes).len() as u64;
    }
    let Some(epoch) = epoch_of_object(key).map(str::to_owned) else {
        return books.violated(format!("{key} is of no epoch"));
    };
    let is_pending = |books: &Books| {
        let mut pending = books.rows.values().filter_map(|row| row.pending.as_ref());
        pending.any(|(manifest, _)| epoch_of_manifest(manifest) == epoch)
    };
    if !is_pending(books) && !books.commits.contains(&epoch) {
        books.violated(format!("{key} is visible, and its epoch is not decided"));
    }
    for place in &held.places {
        let known = books
            .expected
            .get(&place.shard)
            .is_some_and(|records| records.binary_search_by(|record| record.position.cmp(&place.position)).is_ok());
        if !known {
            books.violated(format!("{key} holds {place:?}, which was never put"));
        }
        let in_range = books.rows.get(&place.shard).is_some_and(|row| {
            let own = |(manifest, through): &(String, Position)| {
                epoch_of_manifest(manifest) == epoch && place.position > row.checkpoint && place.position <= *through
            };
            row.pending.as_ref().is_some_and(own)
        });
        if !in_range && !books.commits.contains(&epoch) {
            books.violated(format!("{key} holds {place:?}, which its epoch has not decided"));
        }
        let count = books.seen.entry(place.clone()).or_default();
        *count += 1;
        if *count > 1 {
            books.violated(format!("{place:?} is visible twice, now in {key}"));
        }
    }
    books.objects.insert(key.to_owned(), held);
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

fn at(sequence: &str, sub: u64) -> Position {
    let sequence = SequenceNumber::try_from(sequence).expect("a sequence number is in the lake");
    Position::At { sequence, sub }
}

/// Places of the rows of a Parquet file.
fn rows_of(bytes: Bytes) -> Vec<Place> {
    let reader = SerializedFileReader::new(bytes).expect("a visible Parquet file can be read");
    let fields = reader.metadata().file_metadata().schema().get_fields().to_vec();
    let column = |name: &str| fields.iter().position(|field| field.name() == name).expect("it is in every file");
    let (shard, sequence, sub) = (column("ingest_shard"), column("ingest_sequence"), column("ingest_subsequence"));
    let rows = reader.get_row_iter(None).expect("a visible Parquet file can be read");
    let place = |row: Result<parquet::record::Row, parquet::errors::ParquetError>| {
        let row = row.expect("a visible Parquet file can be read");
        let number = row.get_string(sequence).expect("a text");
        let sub = row.get_long(sub).expect("a number");
        let position = at(number, u64::try_from(sub).expect("it is not negative"));
        Place { shard: row.get_string(shard).expect("a text").clone(), position }
    };
    rows.map(place).collect()
}

fn letters_of(bytes: &[u8]) -> Vec<Place> {
    let place = |letter: &String| {
        let letter: Value = serde_json::from_str(letter).expect("a dead letter is JSON");
        let sequence = letter["sequenceNumber"].as_str().expect("a dead letter has a number");
        let position = at(sequence, letter["subSequenceNumber"].as_u64().expect("a number"));
        Place { shard: letter["shardId"].as_str().expect("a dead letter has a shard").to_owned(), position }
    };
    lines_of(bytes).iter().map(place).collect()
}

fn lines_of(bytes: &[u8]) -> Vec<String> {
    let mut text = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut text).expect("a visible file can be read");
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}
