//! A table: its keys, its items, its indexes, and its state some writes ago.
//!
//! Owns: key schemas and what they refuse, the order of items, index entries (computed from the items for each read: an index is
//! never behind by itself), and the history for stale, eventually consistent reads. Does not own: conditions.
//!
//! Limits: an item has 400 KB, a partition key 2,048 bytes, a sort key 1,024 bytes; the last 1,000 writes are remembered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::error::{Refused, validation};
use super::number::Number;
use super::request::Request;
use super::value::{Item, Value, item_size};

/// The largest item, in bytes.
pub(super) const ITEM_BYTES_MAX: usize = 400 * 1024;
/// The number of remembered writes.
const HISTORY: usize = 1_000;

/// A value of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scalar {
    N(Number),
    S(String),
    B(Vec<u8>),
}

impl Scalar {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::S(text) => Some(Self::S(text.clone())),
            Value::N(number) => Some(Self::N(number.clone())),
            Value::B(bytes) => Some(Self::B(bytes.clone())),
            _ => None,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::S(text) => text.clone().into_bytes(),
            Self::N(number) => number.to_string().into_bytes(),
            Self::B(bytes) => bytes.clone(),
        }
    }
}

/// A key, in the order of a scan: partition keys by a hash, as on AWS, so that no code relies on their order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    slot: u64,
    hash: Scalar,
    range: Option<Scalar>,
}

impl Key {
    /// The segment of a scan that it belongs to, of `total`.
    pub(super) fn segment(&self, total: u64) -> u64 {
        u64::try_from((u128::from(self.slot) * u128::from(total)) >> 64).unwrap_or(0)
    }
}

/// FNV-1a, then mixed, so that the upper bits depend on every byte.
fn slot(bytes: &[u8]) -> u64 {
    let folded = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (folded ^ (folded >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// One attribute of a key: its name, and `S`, `N` or `B`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyPart {
    pub(super) name: String,
    pub(super) kind: String,
}

/// The attributes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schema {
    pub(super) hash: KeyPart,
    pub(super) range: Option<KeyPart>,
}

impl Schema {
    pub(super) fn parts(&self) -> impl Iterator<Item = &KeyPart> {
        std::iter::once(&self.hash).chain(&self.range)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.parts().any(|part| part.name == name)
    }

    /// The key of an item; `None` if one of the attributes is missing or has another type.
    pub(super) fn key(&self, item: &Item) -> Option<Key> {
        let scalar =
            |part: &KeyPart| item.get(&part.name).filter(|value| value.type_name() == part.kind).and_then(Scalar::of);
        let hash = scalar(&self.hash)?;
        let range = match &self.range {
            None => None,
            Some(part) => Some(scalar(part)?),
        };
        Some(Key { slot: slot(&hash.bytes()), hash, range })
    }
}

/// The attributes of an item that an index has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Projection {
    KeysOnly,
    All,
    Include(Vec<String>),
}

/// A global secondary index.
#[derive(Debug, Clone)]
pub(super) struct Index {
    pub(super) name: String,
    pub(super) schema: Schema,
    pub(super) projection: Projection,
    pub(super) active_from_ms: u64,
}

/// A table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) schema: Schema,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) indexes: Vec<Index>,
    pub(super) created_ms: u64,
    pub(super) active_from_ms: u64,
    pub(super) deletion_protection: bool,
    pub(super) pay_per_request: bool,
    /// The request that created it.
    pub(super) creation: Request,
    /// Whether point-in-time recovery is on.
    pub(super) backups: bool,
    /// The attribute by which rows expire. No row of the model does.
    pub(super) time_to_live: Option<String>,
    items: BTreeMap<Key, Arc<Item>>,
    history: VecDeque<(Key, Option<Arc<Item>>)>,
}

/// An item with its place in a table or an index.
pub(super) struct Entry {
    pub(super) at: (Key, Option<Key>),
    pub(super) item: Arc<Item>,
}

impl Table {
    pub(super) fn new(name: String, schema: Schema, attributes: BTreeMap<String, String>, created_ms: u64) -> Self {
        Table {
            name,
            schema,
            attributes,
            indexes: Vec::new(),
            created_ms,
            active_from_ms: created_ms,
            deletion_protection: false,
            pay_per_request: true,
            creation: Request::new(),
            backups: false,
            time_to_live: None,
            items: BTreeMap::new(),
            history: VecDeque::new(),
        }
    }

    pub(super) fn index(&self, name: &str) -> Option<&Index> {
        self.indexes.iter().find(|index| index.name == name)
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.items.values().map(|item| item_size(item)).sum()
    }

    /// The item as it was `stale` writes ago.
    pub(super) fn get(&self, key: &Key, stale: usize) -> Option<Arc<Item>> {
        let newest = self.history.len().saturating_sub(stale);
        let undone = self.history.iter().skip(newest).find(|(changed, _)| changed == key);
        match undone {
            Some((_, before)) => before.clone(),
            None => self.items.get(key).cloned(),
        }
    }

    /// Stores an item, or removes it.
    pub(super) fn set(&mut self, key: Key, item: Option<Item>) {
        let before = match item {
            Some(item) => self.items.insert(key.clone(), Arc::new(item)),
            None => self.items.remove(&key),
        };
        self.history.push_back((key, before));
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    /// All items of the table, or all entries of an index, in their order, as they were `stale` writes ago.
    pub(super) fn entries(&self, index: Option<&Index>, stale: usize) -> Vec<Entry> {
        let mut items = self.items.clone();
        for (key, before) in self.history.iter().rev().take(stale) {
            match before {
                Some(item) => items.insert(key.clone(), Arc::clone(item)),
                None => items.remove(key),
            };
        }
        let Some(index) = index else {
            return items.into_iter().map(|(key, item)| Entry { at: (key, None), item }).collect();
        };
        let mut entries: Vec<Entry> = items
            .into_iter()
            .filter_map(|(key, item)| {
                let at = index.schema.key(&item)?;
                Some(Entry { at: (at, Some(key)), item: Arc::new(self.projected(index, &item)) })
            })
            .collect();
        entries.sort_by(|a, b| a.at.cmp(&b.at));
        entries
    }

    fn projected(&self, index: &Index, item: &Item) -> Item {
        let kept = |name: &String| match &index.projection {
            Projection::All => true,
            Projection::KeysOnly => self.schema.has(name) || index.schema.has(name),
            Projection::Include(names) => self.schema.has(name) || index.schema.has(name) || names.contains(name),
        };
        item.iter().filter(|(name, _)| kept(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The key attributes of an item, including those of the index: the end of a page.
    pub(super) fn key_attributes(&self, index: Option<&Index>, item: &Item) -> Item {
        let has = |name: &String| self.schema.has(name) || index.is_some_and(|index| index.schema.has(name));
        item.iter().filter(|(name, _)| has(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The place where a page continues.
    pub(super) fn position(&self, index: Option<&Index>, key: &Item) -> Result<(Key, Option<Key>), Refused> {
        let invalid = || validation("The provided starting key is invalid");
        let own = self.schema.key(key).ok_or_else(invalid)?;
        let expected = self.schema.parts().chain(index.iter().flat_map(|index| index.schema.parts()));
        let mut names: Vec<&str> = expected.map(|part| part.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() != key.len() {
            return Err(invalid());
        }
        match index {
            None => Ok((own, None)),
            Some(index) => Ok((index.schema.key(key).ok_or_else(invalid)?, Some(own))),
        }
    }

    /// The key in a request.
    pub(super) fn requested_key(&self, key: &Item) -> Result<Key, Refused> {
        let found = self.schema.key(key).filter(|_| key.len() == self.schema.parts().count());
        let found = found.ok_or_else(|| validation("The provided key element does not match the schema"))?;
        self.key_size(key)?;
        Ok(found)
    }

    /// The key of a new item; refuses an item that an index could not have.
    pub(super) fn item_key(&self, item: &Item) -> Result<Key, Refused> {
        for part in self.schema.parts() {
            match item.get(&part.name) {
                None => {
                    return Err(validation(format!(
                        "One or more parameter values were invalid: Missing the key {} in the item",
                        part.name
                    )));
                }
                Some(value) if value.type_name() != part.kind => {
                    return Err(validation(format!(
                        "One or more parameter values were invalid: Type mismatch for key {} expected: {} actual: {}",
                        part.name,
                        part.kind,
                        value.type_name()
                    )));
                }
                Some(_) => {}
            }
        }
        self.key_size(item)?;
        self.index_keys(item)?;
        self.schema.key(item).ok_or_else(|| validation("The provided key element does not match the schema"))
    }

    /// Refuses an item that an index could not have.
    pub(super) fn index_keys(&self, item: &Item) -> Result<(), Refused> {
        for index in &self.indexes {
            for part in index.schema.parts() {
                let Some(value) = item.get(&part.name) else { continue };
                if value.type_name() != part.kind {
                    return Err(validation(format!(
                        "One or more parameter values were invalid: Type mismatch for Index Key {} Expected: {} Actual: {} \
                         IndexName: {}",
                        part.name,
                        part.kind,
                        value.type_name(),
                        index.name
                    )));
                }
                if value.size() == 0 {
                    return Err(validation(format!(
                        "One or more parameter values are not valid. A value specified for a secondary index key is not \
                         supported. The AttributeValue for a key attribute cannot contain an empty {} value. IndexName: {}, \
                         IndexKey: {}",
                        value.long_type_name().to_lowercase(),
                        index.name,
                        part.name
                    )));
                }
            }
        }
        Ok(())
    }

    fn key_size(&self, item: &Item) -> Result<(), Refused> {
        for (part, max, word) in std::iter::once((&self.schema.hash, 2048, "hashkey"))
            .chain(self.schema.range.iter().map(|r| (r, 1024, "rangekey")))
        {
            let Some(value) = item.get(&part.name) else { continue };
            if value.size() == 0 {
                return Err(validation(format!(
                    "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an \
                     empty {} value. Key: {}",
                    value.long_type_name().to_lowercase(),
                    part.name
                )));
            }
            if value.size() > max {
                // The missing space is in AWS's message too.
                return Err(validation(format!(
                    "One or more parameter values were invalid: Size of {word} has exceeded the maximum size limit of{max} \
                     bytes"
                )));
            }
        }
        Ok(())
    }
}
