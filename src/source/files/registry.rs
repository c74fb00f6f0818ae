//! The order in which a folder's files are read.
//!
//! Files arrive in a folder in any order of their names, so their names cannot be positions: a file that arrives late could sort before
//! the checkpoint and would never be read. Instead every file permanently gets a number when it is first seen. All workers agree on the
//! numbers, which are kept in the lake, in a log of small objects that are only ever added
//! (`_sources/<stream>/<shard>/00000001.json`, …). An entry is written only if its number is free, so two workers cannot give one number
//! twice; the loser reads what the winner wrote.
//!
//! In memory, a name is kept only until its file has been read. For all files, a hash of 16 bytes shows whether a name has a number. So a
//! folder of a million files costs a worker some 40 MB. Does not own: reading the files.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use checkpoints::{ShardId, StreamName};
use pipeline::layout;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::lake::{LakeError, ObjectKey, ObjectStore, Written};
use crate::source::SourceError;

/// The most files of one entry.
const ENTRY_FILES_MAX: usize = 10_000;

/// One entry of the log: files that were seen for the first time, in order. The first file of the first entry has number 1.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    stream: StreamName,
    shard: ShardId,
    files: Vec<String>,
}

/// The numbers of one folder's files.
pub(super) struct Registry {
    lake: Arc<dyn ObjectStore>,
    stream: StreamName,
    shard: ShardId,
    /// The names of files number `first` to `count`; empty if `first` is larger.
    files: VecDeque<String>,
    first: u64,
    /// The number of files that have numbers.
    count: u64,
    known: Arc<Known>,
    entries: usize,
}

/// The names that have a number: the first 16 bytes of their SHA-256, which no two names share by chance.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(HashSet<[u8; 16]>);

impl Known {
    fn hash_of(name: &str) -> [u8; 16] {
        Sha256::digest(name)[..16].try_into().expect("a digest has 32 bytes")
    }

    fn insert(&mut self, name: &str) {
        self.0.insert(Self::hash_of(name));
    }

    /// Whether the name has a number.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains(&Self::hash_of(name))
    }
}

impl Registry {
    pub(super) fn new(lake: Arc<dyn ObjectStore>, stream: StreamName, shard: ShardId) -> Self {
        Registry { lake, stream, shard, files: VecDeque::new(), first: 1, count: 0, known: Arc::default(), entries: 0 }
    }

    /// An empty registry of the same folder.
    pub(super) fn again(&self) -> Self {
        Registry::new(Arc::clone(&self.lake), self.stream.clone(), self.shard.clone())
    }

    fn key(&self, number: usize) -> ObjectKey {
        let key = layout::registry_entry(self.stream.as_str(), self.shard.as_str(), number);
        ObjectKey::new(key).expect("hex digits and a number are a plain path")
    }

    fn error(&self, error: &LakeError) -> SourceError {
        let place = format!("shard {} of stream {}", self.shard, self.stream);
        let problem = error.to_string();
        if error.is_retryable() {
            SourceError::Unavailable { place, problem }
        } else {
            SourceError::Unreadable { place, problem }
        }
    }

    /// Reads the entries that were added since the last call.
    pub(super) async fn load(&mut self) -> Result<(), SourceError> {
        while let Some(bytes) = self.lake.get(&self.key(self.entries + 1)).await.map_err(|error| self.error(&error))? {
            let key = self.key(self.entries + 1);
            let entry: Entry = serde_json::from_slice(&bytes).map_err(|error| SourceError::Unreadable {
                place: format!("shard {} of stream {}", self.shard, self.stream),
                problem: format!("{key} in the lake is damaged: {error}"),
            })?;
            // Copied only if another holder still reads it.
            let known = Arc::make_mut(&mut self.known);
            for file in entry.files {
                known.insert(&file);
                self.count += 1;
                if self.count >= self.first {
                    self.files.push_back(file);
                }
            }
            self.entries += 1;
        }
        Ok(())
    }

    /// Gives numbers to files that have none, in the order of the names given.
    pub(super) async fn number(&mut self, names: impl Iterator<Item = String>) -> Result<(), SourceError> {
        let mut new: Vec<String> = names.filter(|name| !self.known.contains(name)).collect();
        while !new.is_empty() {
            let files: Vec<String> = new.iter().take(ENTRY_FILES_MAX).cloned().collect();
            let entry = Entry { stream: self.stream.clone(), shard: self.shard.clone(), files };
            let bytes = serde_json::to_vec(&entry).expect("an entry contains only text");
            let key = self.key(self.entries + 1);
            let written = self.lake.put_new(&key, Bytes::from(bytes)).await.map_err(|error| self.error(&error))?;
            if written == Written::KeyTaken {
                // Another worker was first, or this one in a request whose response was lost.
                tracing::debug!(%key, "another worker numbered files first");
            }
            self.load().await?;
            new.retain(|name| !self.known.contains(name));
        }
        Ok(())
    }

    /// The name of a file; `None` if there is no such number or its name was dropped.
    pub(super) fn file(&self, number: u64) -> Option<&str> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.files.get(index).map(String::as_str)
    }

    /// The names that have numbers.
    pub(super) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known)
    }

    /// The number of files that have numbers.
    pub(super) fn len(&self) -> u64 {
        self.count
    }

    /// Drops the names of files before `number`, including those that are not loaded yet.
    pub(super) fn forget_before(&mut self, number: u64) {
        while self.first < number {
            self.files.pop_front();
            self.first += 1;
        }
        // Releases what a long log needed.
        if self.files.capacity() > 4 * self.files.len() + 1_024 {
            self.files.shrink_to_fit();
        }
    }
}
