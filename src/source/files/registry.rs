//! The order in which a folder's files are read.
//!
//! Files arrive in a folder in any order of their names, so their names cannot be positions: a file that arrives late could sort before
//! the checkpoint and would never be read. Instead every file permanently gets a number when it is first seen. All workers agree on the
//! numbers, which are kept in the lake, in a log of small objects that are only ever added
//! (`_sources/<stream>/<shard>/00000001.json`, …). An entry is written only if its number is free, so two workers cannot give one number
//! twice; the loser reads what the winner wrote.
//!
//! A number belongs to what a file was when it was numbered: a name with a [`Mark`]. A file that was replaced gets another number, and so
//! does what a file has grown by. A file that was renamed keeps its number. Files that were numbered without marks, by an older version,
//! get theirs when they are seen.
//!
//! In memory, a name is kept only until its file has been read. For all files, a hash of 16 bytes and a mark show whether a file has a
//! number. So a folder of a million files costs a worker some 100 MB. Does not own: reading the files.

use std::collections::{HashMap, VecDeque};
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

/// What a complete file was when it was numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Its size.
    pub(super) bytes: u64,
    /// A hash of its device and inode.
    pub(super) inode: u64,
    /// A hash of the time of its last change.
    pub(super) modified: u64,
    /// A hash of its beginning and its end.
    pub(super) content: u64,
}

/// A file that gets a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewFile {
    pub(super) name: String,
    /// Where the part that gets the number begins.
    pub(super) from: u64,
    pub(super) mark: Mark,
}

/// A file that has a number, under another name or without a mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SeenFile {
    pub(super) name: String,
    pub(super) mark: Mark,
    /// The hash of the name that it had before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) was: Option<NameHash>,
}

/// The first 16 bytes of a name's SHA-256, which no two names share by chance.
pub(super) type NameHash = [u8; 16];

pub(super) fn name_hash(name: &str) -> NameHash {
    Sha256::digest(name)[..16].try_into().expect("a digest has 32 bytes")
}

/// One entry of the log: files that were seen for the first time, in order. The first file of the first entry has number 1.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    stream: StreamName,
    shard: ShardId,
    files: Vec<String>,
    /// For each of these files, where its part begins and its mark.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    marks: Vec<(u64, Mark)>,
    /// Files that have numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    seen: Vec<SeenFile>,
}

/// The file of a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NumberedFile {
    pub(super) name: String,
    /// Where its part begins.
    pub(super) from: u64,
    pub(super) mark: Option<Mark>,
}

/// The numbers of one folder's files.
pub(super) struct Registry {
    lake: Arc<dyn ObjectStore>,
    stream: StreamName,
    shard: ShardId,
    /// Files number `first` to `count`; empty if `first` is larger.
    files: VecDeque<NumberedFile>,
    first: u64,
    /// The number of files that have numbers.
    count: u64,
    known: Arc<Known>,
    /// New names of files, by the hashes of their old ones, and the last number that the old name may have meant.
    renamed: HashMap<NameHash, (u64, String)>,
    entries: usize,
}

/// The names that have a number, with what their files were then.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(HashMap<NameHash, Option<Mark>>);

impl Known {
    /// Whether the name has a number.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(&name_hash(name))
    }

    /// What the file of this name was; `None` if the name has no number.
    pub(super) fn mark(&self, name: &str) -> Option<Option<Mark>> {
        self.0.get(&name_hash(name)).copied()
    }

    /// The names, by their hashes, whose files have an inode of these.
    pub(super) fn of_inodes(&self, inodes: &std::collections::HashSet<u64>) -> HashMap<u64, Vec<(NameHash, Mark)>> {
        let mut found: HashMap<u64, Vec<(NameHash, Mark)>> = HashMap::new();
        for (name, mark) in &self.0 {
            if let Some(mark) = mark.filter(|mark| inodes.contains(&mark.inode)) {
                found.entry(mark.inode).or_default().push((*name, mark));
            }
        }
        found
    }
}

impl Registry {
    pub(super) fn new(lake: Arc<dyn ObjectStore>, stream: StreamName, shard: ShardId) -> Self {
        Registry {
            lake,
            stream,
            shard,
            files: VecDeque::new(),
            first: 1,
            count: 0,
            known: Arc::default(),
            renamed: HashMap::new(),
            entries: 0,
        }
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
            let mut marks = entry.marks.into_iter();
            for name in entry.files {
                let (from, mark) = marks.next().map_or((0, None), |(from, mark)| (from, Some(mark)));
                known.0.insert(name_hash(&name), mark);
                self.count += 1;
                if self.count >= self.first {
                    self.files.push_back(NumberedFile { name, from, mark });
                }
            }
            for SeenFile { name, mark, was } in entry.seen {
                if let Some(was) = was {
                    known.0.remove(&was);
                    self.renamed.insert(was, (self.count, name.clone()));
                }
                known.0.insert(name_hash(&name), Some(mark));
            }
            self.entries += 1;
        }
        Ok(())
    }

    /// Gives numbers to files, in this order, and notes what is seen. Whoever was first has decided: what others wrote meanwhile is loaded,
    /// and the files that it is about are left out.
    pub(super) async fn number(&mut self, mut new: Vec<NewFile>, mut seen: Vec<SeenFile>) -> Result<(), SourceError> {
        while !new.is_empty() || !seen.is_empty() {
            let some: Vec<&NewFile> = new.iter().take(ENTRY_FILES_MAX).collect();
            let entry = Entry {
                stream: self.stream.clone(),
                shard: self.shard.clone(),
                files: some.iter().map(|file| file.name.clone()).collect(),
                marks: some.iter().map(|file| (file.from, file.mark)).collect(),
                seen: seen.iter().take(ENTRY_FILES_MAX).cloned().collect(),
            };
            let bytes = serde_json::to_vec(&entry).expect("an entry contains only text and numbers");
            let key = self.key(self.entries + 1);
            let written = self.lake.put_new(&key, Bytes::from(bytes)).await.map_err(|error| self.error(&error))?;
            if written == Written::KeyTaken {
                // Another worker was first, or this one in a request whose response was lost.
                tracing::debug!(%key, "another worker numbered files first");
            }
            let before = Arc::clone(&self.known);
            self.load().await?;
            // A name whose mark has changed is in an entry that was just loaded.
            let is_same = |name: &str| self.known.mark(name) == before.mark(name);
            new.retain(|file| is_same(&file.name));
            seen.retain(|file| is_same(&file.name) && self.known.mark(&file.name) != Some(Some(file.mark)));
        }
        Ok(())
    }

    /// The new name of a file that was renamed after it got this number.
    pub(super) fn renamed(&self, number: u64, name: &str) -> Option<&str> {
        let (last, name) = self.renamed.get(&name_hash(name))?;
        (number <= *last).then_some(name)
    }

    /// A file; `None` if there is no such number or its name was dropped.
    pub(super) fn file(&self, number: u64) -> Option<&NumberedFile> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.files.get(index)
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
