//! The catalog of a source's files of lines: which file is which shard, kept in the lake.
//!
//! Owns: the records of files, in a log of small objects that are only ever added (`_sources/<stream>/files/00000001.json`, …), and
//! where each file is now. Does not own: deciding which file is which (`matching`), reading.
//!
//! A shard is a file, not a name. Its id is the name under which the file was first seen. A later file of that name gets the same id
//! with `//2`, `//3`, …, which no path contains. A record says what the file is (`identity`). Of two records of one shard the later
//! counts. An entry of the log is written only if its number is free, so two workers cannot give one file to two shards: the loser
//! reads the winner's entry and matches again.
//!
//! ```json
//! {"stream":"file:///in","files":[{"shard":"app.ndjson","path":"app.ndjson","device":2049,"inode":7,"codec":"plain",
//!  "bytes":460,"modified":[1736764200,0],"recorded_ms":1736764203123,"head":[[64,11495104353665842533],[460,6931606432508610657]]}]}
//! ```

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use checkpoints::{ShardId, StreamName};
use pipeline::layout;
use serde::{Deserialize, Serialize};

use crate::lake::{LakeError, ObjectKey, ObjectStore, Written};
use crate::source::SourceError;
use crate::source::files::identity::{Head, Stat};
use crate::source::files::list::Codec;

/// The most files of one entry.
const ENTRY_FILES_MAX: usize = 5_000;

/// How far a file is from being read as usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// It is read, or was read.
    #[default]
    Open,
    /// It was shorter than what had been read, and begins as before. Somebody must decide what it is.
    Cut,
    /// Its compressed stream was damaged, and the damage was reported.
    Damaged,
    /// It was gone, and its shard has ended. It was read up to `bytes`.
    Ended,
    /// The shard has ended. If a file like it is there, it is another one.
    Closed,
}

/// One file, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileRecord {
    /// Its shard.
    pub(super) shard: ShardId,
    /// Its name when it was recorded.
    pub(super) path: String,
    /// It is a link. A link is identified by its name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) link: bool,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) codec: Codec,
    /// Where the part begins in the file, before decompression. A compressed file that grew has several parts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) from: u64,
    /// The shard of the part before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<ShardId>,
    /// Its size when it was recorded. A compressed file is read up to here, and so is one that has ended.
    pub(super) bytes: u64,
    /// The time of its last change when it was recorded: seconds and nanoseconds.
    pub(super) modified: (i64, i64),
    /// When it was recorded first, in milliseconds since 1970.
    #[serde(default)]
    pub(super) recorded_ms: i64,
    /// Its beginning.
    pub(super) head: Head,
    /// The hash of the bytes before `bytes`, of a compressed file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) tail: u64,
    #[serde(default, skip_serializing_if = "is_open")]
    pub(super) state: State,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_open(state: &State) -> bool {
    *state == State::Open
}

/// Where a file is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// As the last scan found it.
    pub(super) stat: Stat,
}

/// One entry of the log.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    stream: StreamName,
    files: Vec<FileRecord>,
}

/// What is known of all files.
#[derive(Debug, Default)]
pub(super) struct Known {
    entries: usize,
    records: HashMap<ShardId, Arc<FileRecord>>,
    /// The last shard of each inode.
    by_inode: HashMap<(u64, u64), ShardId>,
    /// The last shard of each name.
    by_path: HashMap<String, ShardId>,
    /// Where the last scan found each file. A file that it did not find has none.
    pub(super) places: HashMap<ShardId, Place>,
    /// The largest size at which this process has seen each file.
    seen: HashMap<ShardId, u64>,
    /// Files with a modification time in the future: how they were seen first, and when.
    pub(super) odd_times: HashMap<PathBuf, (Stat, i64)>,
}

impl FileRecord {
    /// Where reading ends, whatever the size of the file is now.
    pub(super) fn limit(&self) -> Option<u64> {
        (self.codec != Codec::Plain || self.state == State::Ended).then_some(self.bytes)
    }
}

impl Known {
    pub(super) fn record(&self, shard: &ShardId) -> Option<&Arc<FileRecord>> {
        self.records.get(shard)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Arc<FileRecord>> {
        self.records.values()
    }

    pub(super) fn of_inode(&self, device: u64, inode: u64) -> Option<&Arc<FileRecord>> {
        self.by_inode.get(&(device, inode)).and_then(|shard| self.records.get(shard))
    }

    /// The last file of a name.
    pub(super) fn of_path(&self, path: &str) -> Option<&Arc<FileRecord>> {
        self.by_path.get(path).and_then(|shard| self.records.get(shard))
    }

    fn insert(&mut self, record: FileRecord) {
        let shard = record.shard.clone();
        let inode = (record.device, record.inode);
        let before = self.records.get(&shard);
        // A record that changes for another reason must not displace a newer file of its inode or name.
        let has_moved = before.is_none_or(|before| (before.device, before.inode) != inode);
        let is_renamed = before.is_none_or(|before| before.path != record.path);
        if let Some(before) = before.filter(|_| has_moved) {
            let inode = (before.device, before.inode);
            if self.by_inode.get(&inode) == Some(&shard) {
                self.by_inode.remove(&inode);
            }
        }
        if has_moved && !record.link {
            self.by_inode.insert(inode, shard.clone());
        }
        if is_renamed {
            self.by_path.insert(record.path.clone(), shard.clone());
        }
        self.records.insert(shard, Arc::new(record));
    }

    /// A file is here now.
    pub(super) fn found(&mut self, shard: &ShardId, place: Place) {
        let seen = self.seen.entry(shard.clone()).or_default();
        *seen = place.stat.bytes.max(*seen);
        self.places.insert(shard.clone(), place);
    }

    /// The id of a new file of this name. `taken`: ids that are not recorded yet.
    pub(super) fn new_shard(&self, name: &str, taken: impl Fn(&ShardId) -> bool) -> Result<ShardId, String> {
        let numbered = |number: u64| if number == 1 { name.to_owned() } else { format!("{name}//{number}") };
        for number in 1_u64.. {
            let shard = ShardId::new(numbered(number)).map_err(|error| error.to_string())?;
            if !self.records.contains_key(&shard) && !taken(&shard) {
                return Ok(shard);
            }
        }
        Err("there are too many files of this name".to_owned())
    }
}

/// The catalog of one source.
pub(super) struct Catalog {
    lake: Arc<dyn ObjectStore>,
    stream: StreamName,
    known: Arc<Mutex<Known>>,
    /// One entry at a time, so that readers of one worker do not compete for its number.
    adding: tokio::sync::Mutex<()>,
}

impl Catalog {
    pub(super) fn new(lake: Arc<dyn ObjectStore>, stream: StreamName) -> Self {
        Catalog { lake, stream, known: Arc::default(), adding: tokio::sync::Mutex::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known, for work on another thread.
    pub(super) fn shared(&self) -> Arc<Mutex<Known>> {
        Arc::clone(&self.known)
    }

    /// Where a file is now, and its record.
    pub(super) fn find(&self, shard: &ShardId) -> (Option<Arc<FileRecord>>, Option<Place>) {
        let known = self.lock();
        (known.record(shard).cloned(), known.places.get(shard).cloned())
    }

    /// The largest size at which a file was seen.
    pub(super) fn seen_bytes(&self, shard: &ShardId) -> u64 {
        let known = self.lock();
        let recorded = known.record(shard).map_or(0, |record| record.bytes);
        known.seen.get(shard).copied().unwrap_or(0).max(recorded)
    }

    /// Whether any file was ever recorded.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().records.is_empty()
    }

    fn key(&self, number: usize) -> ObjectKey {
        let key = layout::catalog_entry(self.stream.as_str(), number);
        ObjectKey::new(key).expect("hex digits and a number are a plain path")
    }

    pub(super) fn error(&self, error: &LakeError) -> SourceError {
        let (place, problem) = (format!("the files of stream {}", self.stream), error.to_string());
        if error.is_retryable() {
            SourceError::Unavailable { place, problem }
        } else {
            SourceError::Unreadable { place, problem }
        }
    }

    /// Reads the entries that were added since the last call.
    pub(super) async fn load(&self) -> Result<(), SourceError> {
        loop {
            let number = self.lock().entries + 1;
            let key = self.key(number);
            let Some(bytes) = self.lake.get(&key).await.map_err(|error| self.error(&error))? else { return Ok(()) };
            let entry: Entry = serde_json::from_slice(&bytes).map_err(|error| SourceError::Unreadable {
                place: format!("the files of stream {}", self.stream),
                problem: format!("{key} in the lake is damaged: {error}"),
            })?;
            let mut known = self.lock();
            // Another task may have read it in the meantime.
            if known.entries + 1 == number {
                known.entries = number;
                entry.files.into_iter().for_each(|record| known.insert(record));
            }
        }
    }

    /// Adds an entry with as many of these records as one entry may have. Returns false if another worker was first: what it wrote
    /// is loaded, and the records may be wrong now.
    pub(super) async fn add(&self, records: Vec<FileRecord>) -> Result<bool, SourceError> {
        let _adding = self.adding.lock().await;
        self.write(records).await
    }

    async fn write(&self, mut records: Vec<FileRecord>) -> Result<bool, SourceError> {
        records.truncate(ENTRY_FILES_MAX);
        let entry = Entry { stream: self.stream.clone(), files: records };
        let bytes = serde_json::to_vec(&entry).expect("an entry contains only text and numbers");
        let key = self.key(self.lock().entries + 1);
        let written = self.lake.put_new(&key, bytes.into()).await.map_err(|error| self.error(&error))?;
        self.load().await?;
        Ok(written == Written::New)
    }

    /// Changes the record of a file. Only the holder of the shard's lease does so.
    pub(super) async fn change(&self, shard: &ShardId, change: impl Fn(&mut FileRecord)) -> Result<(), SourceError> {
        let _adding = self.adding.lock().await;
        loop {
            let Some(record) = self.lock().record(shard).cloned() else { return Ok(()) };
            let mut changed = (*record).clone();
            change(&mut changed);
            if changed == *record || self.write(vec![changed]).await? {
                return Ok(());
            }
        }
    }
}
