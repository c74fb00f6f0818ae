//! Which item of the table is which shard's lease: KCL's keys, and the attribute that says which stream a row belongs to.
//!
//! KCL has two forms of `leaseKey`. With one stream it is the *bare* shard id. With several streams it is
//! `<stream id>:<shard id>`; the id is `account:stream:creationEpoch` and is also in `streamName`. When a KCL application goes
//! from one stream to several, it searches for other keys than before, and so forgets how far it got. Here the *table*
//! determines the form of a stream: rows that have one form keep it.
//!
//! | the row has | its stream |
//! |---|---|
//! | `shardlakeStream` | that one: every row that we ever wrote has it |
//! | no `shardlakeStream`, a configured `streamName` | the stream of that id |
//! | no `shardlakeStream`, another `streamName` | a stream whose name is that id |
//! | neither | the bare stream; if there is none, the row is malformed |
//!
//! A stream without an id (files) uses its name instead. In the key, `:` and `%` of a *shard id* are percent-encoded, which
//! changes no shard id of Kinesis. So a bare key has no colon, in any other key the last colon ends the stream, and no two
//! shards have the same key.
//!
//! The workers of several streams may start with one new table at the same time, each as if its stream were the only one. Whose
//! rows come first keeps the bare keys; the others use their ids (`calls.rs`). So the forms are learned again whenever a scan shows a
//! row under another key than expected, and a row whose shard id is taken has a key of its own (`exceptions`).
//!
//! A stream that was deleted and created again has a new id. The rows of the old one are ignored: their sequence numbers
//! have no meaning in the new one.
//!
//! It does not own reading the table (`mod.rs`) or the other attributes (`item.rs`).
//! Limits: a key has at most 2,048 bytes, DynamoDB's limit.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::StoreError;
use crate::shard::{ShardId, ShardKey, StreamName};

/// The most bytes of a key in DynamoDB.
const KEY_BYTES_MAX: usize = 2_048;

/// The ids of the configured streams, for the keys of their leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamIds {
    /// The id that KCL gives each Kinesis stream: `account:stream:creationEpoch`, the epoch in seconds.
    pub ids: BTreeMap<StreamName, String>,
    /// The only Kinesis stream, if there is exactly one. Unless the table shows otherwise, its leases have their bare shard
    /// ids as keys, as in KCL.
    pub bare: Option<StreamName>,
}

/// The attributes of an item that identify its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyAttributes {
    pub(super) lease_key: String,
    pub(super) shardlake_stream: Option<String>,
    pub(super) stream_name: Option<String>,
    pub(super) shard_id: Option<String>,
}

/// How to find the row of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowKey {
    /// `leaseKey`.
    pub(super) lease_key: String,
    /// `streamName`; none in a bare row, which has no `shardId` either.
    pub(super) stream_name: Option<String>,
}

/// The form of one stream's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// The shard id alone.
    Bare,
    /// The shard id after this stream id: KCL's, or the stream's name.
    Behind(String),
}

/// The forms of all streams in the configuration or the table.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    configured: StreamIds,
    names: BTreeMap<String, StreamName>,
    forms: BTreeMap<StreamName, Form>,
    /// The rows of shards that have another key than the form of their stream gives.
    exceptions: BTreeMap<ShardKey, RowKey>,
}

impl Keys {
    /// The forms as configured, before the table is read.
    pub(super) fn new(configured: StreamIds) -> Self {
        let names = configured.ids.iter().map(|(name, id)| (id.clone(), name.clone())).collect();
        let mut forms: BTreeMap<StreamName, Form> =
            configured.ids.iter().map(|(name, id)| (name.clone(), Form::Behind(id.clone()))).collect();
        forms.extend(configured.bare.iter().map(|name| (name.clone(), Form::Bare)));
        Self { configured, names, forms, exceptions: BTreeMap::new() }
    }

    /// Replaces the configured forms by those that the table's rows have.
    ///
    /// # Errors
    ///
    /// [`StoreError::Malformed`] if a row belongs to no stream.
    pub(super) fn learn(&mut self, rows: &[KeyAttributes]) -> Result<(), StoreError> {
        let mut bare: BTreeSet<StreamName> = BTreeSet::new();
        let mut behind: BTreeMap<StreamName, BTreeSet<&str>> = BTreeMap::new();
        let mut unmarked = None;
        for row in rows {
            match (&row.shardlake_stream, &row.stream_name) {
                (Some(_), None) => drop(bare.insert(self.stream(row)?)),
                (None, None) => unmarked = Some(row),
                (_, Some(id)) => drop(behind.entry(self.stream(row)?).or_default().insert(id)),
            }
        }
        match (bare.first(), self.bare().cloned()) {
            (Some(_), _) => {
                let other = self.configured.bare.clone().filter(|configured| !bare.contains(configured));
                if let Some(other) = other {
                    self.forms.insert(other.clone(), Form::Behind(self.id(&other)));
                }
                self.forms.extend(bare.into_iter().map(|owner| (owner, Form::Bare)));
            }
            (None, Some(configured)) if unmarked.is_none() => {
                // It may have rows from a time when there were several streams.
                let has_rows_behind = |id: &str| behind.get(&configured).is_some_and(|ids| ids.contains(id));
                let forms = [self.id(&configured), configured.to_string()];
                if let Some(id) = forms.into_iter().find(|id| has_rows_behind(id)) {
                    self.forms.insert(configured, Form::Behind(id));
                }
            }
            (None, Some(_)) => {}
            (None, None) => unmarked.map_or(Ok(()), |row| self.stream(row).map(drop))?,
        }
        for (stream, ids) in behind {
            let by_name = ids.contains(stream.as_str());
            match self.forms.get(&stream) {
                Some(Form::Bare) => {}
                Some(Form::Behind(_)) if !by_name => {}
                Some(Form::Behind(_)) | None => {
                    let latest = ids.into_iter().max_by_key(|id| creation_epoch(id)).filter(|_| !by_name);
                    let id = latest.unwrap_or(stream.as_str()).to_owned();
                    self.forms.insert(stream, Form::Behind(id));
                }
            }
        }
        self.exceptions.clear();
        for row in rows {
            // Whoever reads the row reports what is wrong with it.
            let Ok(Some(key)) = self.shard(row) else { continue };
            if self.row_key(&key)?.lease_key != row.lease_key {
                let row_key = RowKey { lease_key: row.lease_key.clone(), stream_name: row.stream_name.clone() };
                self.exceptions.insert(key, row_key);
            }
        }
        Ok(())
    }

    /// Whether a shard's row is where it is searched for.
    pub(super) fn expect(&self, key: &ShardKey, lease_key: &str) -> bool {
        self.row_key(key).is_ok_and(|row_key| row_key.lease_key == lease_key)
    }

    /// Whether the keys of a stream are its bare shard ids.
    pub(super) fn is_bare(&self, stream: &StreamName) -> bool {
        self.forms.get(stream) == Some(&Form::Bare)
    }

    /// The bare key of this shard is taken by another stream: the row gets the key that it has among several streams.
    pub(super) fn except(&mut self, key: &ShardKey) {
        let id = self.id(&key.stream);
        let row_key = RowKey { lease_key: format!("{id}:{}", escape(key.shard.as_str())), stream_name: Some(id) };
        self.exceptions.insert(key.clone(), row_key);
    }

    /// Whether the form of every one of these streams is known.
    pub(super) fn know<'a>(&self, mut streams: impl Iterator<Item = &'a StreamName>) -> bool {
        streams.all(|stream| self.forms.contains_key(stream))
    }

    /// Fixes the form of streams that neither the configuration nor the table names: their name.
    pub(super) fn settle<'a>(&mut self, streams: impl Iterator<Item = &'a StreamName>) {
        for stream in streams {
            self.forms.entry(stream.clone()).or_insert_with(|| Form::Behind(stream.to_string()));
        }
    }

    /// How to find the row of a shard.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] if the key would be too long for DynamoDB.
    pub(super) fn row_key(&self, key: &ShardKey) -> Result<RowKey, StoreError> {
        if let Some(row_key) = self.exceptions.get(key) {
            return Ok(row_key.clone());
        }
        let shard = escape(key.shard.as_str());
        let row_key = match self.forms.get(&key.stream) {
            Some(Form::Bare) => RowKey { lease_key: shard, stream_name: None },
            Some(Form::Behind(id)) => RowKey { lease_key: format!("{id}:{shard}"), stream_name: Some(id.clone()) },
            None => RowKey { lease_key: format!("{}:{shard}", key.stream), stream_name: Some(key.stream.to_string()) },
        };
        if row_key.lease_key.len() > KEY_BYTES_MAX {
            return Err(StoreError::Invalid {
                operation: format!("find the lease of {key}"),
                problem: format!("its key exceeds DynamoDB's limit of {KEY_BYTES_MAX} bytes"),
            });
        }
        Ok(row_key)
    }

    /// The shard of a row; `None` if the row is of a stream that was deleted and created again.
    ///
    /// # Errors
    ///
    /// [`StoreError::Malformed`] if the row contradicts itself, or if KCL wrote it and there is no bare stream.
    pub(super) fn shard(&self, row: &KeyAttributes) -> Result<Option<ShardKey>, StoreError> {
        let stream = self.stream(row)?;
        let shard = row.shard_id.clone().unwrap_or_else(|| unescape(last_part(&row.lease_key)));
        let shard = ShardId::new(shard).map_err(|error| malformed(row, error.to_string()))?;
        let expected = match &row.stream_name {
            None => escape(shard.as_str()),
            Some(id) => format!("{id}:{}", escape(shard.as_str())),
        };
        if expected != row.lease_key {
            return Err(malformed(row, format!("by its other attributes its key should be {expected}")));
        }
        match (&row.stream_name, self.forms.get(&stream)) {
            (None, _) => {}
            (Some(id), form) => {
                let current = match form {
                    Some(Form::Behind(current)) => Some(current),
                    Some(Form::Bare) => self.configured.ids.get(&stream),
                    None => None,
                };
                let by_name = id == stream.as_str();
                if current.is_some_and(|current| current != id && current != stream.as_str() && !by_name) {
                    return Ok(None);
                }
            }
        }
        Ok(Some(ShardKey::new(stream, shard)))
    }

    /// The stream of a row: the table at the top of the file.
    fn stream(&self, row: &KeyAttributes) -> Result<StreamName, StoreError> {
        let checked = |name: &String| StreamName::new(name).map_err(|error| malformed(row, error.to_string()));
        match (&row.shardlake_stream, &row.stream_name) {
            (Some(name), _) => checked(name),
            (None, Some(id)) => self.names.get(id).cloned().map_or_else(|| checked(id), Ok),
            (None, None) => self.bare().cloned().ok_or_else(|| {
                let problem = "KCL wrote it for its only stream, and it is not known which stream that is; start once \
                               with that stream alone, so that the row is marked as that stream's";
                malformed(row, problem)
            }),
        }
    }

    fn bare(&self) -> Option<&StreamName> {
        let configured = self.configured.bare.as_ref().filter(|stream| self.is_bare(stream));
        configured.or_else(|| self.forms.iter().find(|(_, form)| **form == Form::Bare).map(|(stream, _)| stream))
    }

    /// The stream id in the keys of a stream that is not bare.
    fn id(&self, stream: &StreamName) -> String {
        self.configured.ids.get(stream).cloned().unwrap_or_else(|| stream.to_string())
    }
}

impl RowKey {
    /// The attributes of a row with this key.
    #[cfg(test)]
    pub(super) fn attributes(&self, key: &ShardKey) -> KeyAttributes {
        KeyAttributes {
            lease_key: self.lease_key.clone(),
            shardlake_stream: Some(key.stream.to_string()),
            stream_name: self.stream_name.clone(),
            shard_id: self.stream_name.is_some().then(|| key.shard.to_string()),
        }
    }
}

/// A row with a malformed key.
pub(super) fn malformed(row: &KeyAttributes, problem: impl Into<String>) -> StoreError {
    StoreError::Malformed { item: format!("lease under key {}", row.lease_key), problem: problem.into() }
}

/// The last number of a stream id.
fn creation_epoch(id: &str) -> Option<u64> {
    id.rsplit(':').next()?.parse().ok()
}

fn last_part(lease_key: &str) -> &str {
    lease_key.rsplit(':').next().unwrap_or(lease_key)
}

fn escape(shard: &str) -> String {
    shard.replace('%', "%25").replace(':', "%3A")
}

fn unescape(shard: &str) -> String {
    shard.replace("%3A", ":").replace("%25", "%")
}

#[cfg(test)]
#[path = "keys/tests.rs"]
mod tests;
