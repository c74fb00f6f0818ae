//! The fuzz targets' view of a DynamoDB table: items in, leases out; and the writes of every call beside what `rules.rs`
//! does to the same lease.
//!
//! It does not own evaluating a write: the model of DynamoDB does that.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::change::{Change, Take};
use super::item::{self, MANIFEST_PREFIX};
use super::keys::{Keys, StreamIds};
use crate::decision::{Decision, Verdict};
use crate::error::StoreError;
use crate::lease::{Holder, Lease, LeaseOwner, ManifestName, ThroughputKbps};
use crate::position::{Position, ShardRange};
use crate::rules::{self, Rows};
use crate::shard::ShardKey;
use crate::store::{Advance, AdvanceOutcome, Renewal, RenewalOutcome};

/// An item, in the SDK's type.
pub type Item = HashMap<String, AttributeValue>;

/// A table whose items determine the forms of its keys.
#[derive(Debug)]
pub struct ItemTable(Keys);

impl ItemTable {
    /// A table as `open` sees it: its items determine the forms of its streams' keys.
    ///
    /// # Errors
    ///
    /// As [`DynamoStore::open`](crate::DynamoStore::open).
    pub fn open(streams: StreamIds, items: &[Item]) -> Result<Self, StoreError> {
        let rows: Result<Vec<_>, StoreError> =
            items.iter().filter_map(|row| item::key_attributes(row).transpose()).collect();
        let mut keys = Keys::new(streams);
        keys.learn(&rows?)?;
        Ok(Self(keys))
    }

    /// The lease of an item; `None` if it is not a lease, or is of a stream that was created again.
    ///
    /// # Errors
    ///
    /// [`StoreError::Malformed`] if the item is malformed.
    pub fn decode(&self, item: &Item) -> Result<Option<Lease>, StoreError> {
        item::decode(item, &self.0)
    }

    /// A lease as a new item, with the key under which the store searches for it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] if DynamoDB does not take such a key, or a number exceeds `i64::MAX`.
    pub fn encode(&self, lease: &Lease) -> Result<Item, StoreError> {
        item::encode(lease, &self.0.row_key(&lease.key)?)
    }
}

/// One conditional write of ours.
#[derive(Debug)]
pub struct ItemWrite {
    /// The call that sends it.
    pub call: &'static str,
    /// Empty if it changes nothing.
    pub update: String,
    /// Its condition.
    pub condition: String,
    /// The values that both expressions refer to.
    pub values: Item,
    /// The lease after it by the rules of the other stores; `None` if they refuse.
    pub expected: Option<Lease>,
}

/// What every call of `me` writes to the row of a lease. Its counts must be below `i64::MAX`.
///
/// # Errors
///
/// [`StoreError::Invalid`] if a number exceeds `i64::MAX`.
pub fn item_writes(lease: &Lease, me: &LeaseOwner) -> Result<Vec<ItemWrite>, StoreError> {
    let key = &lease.key;
    let counter = super::change::count(key, "counter", lease.counter)?;
    let throughput = ThroughputKbps::new(2.5);
    let name = |name: &str| ManifestName::new(format!("{MANIFEST_PREFIX}{name}")).expect("a plain name");
    let mut writes = Vec::new();
    let mut add = |call, change: &Change, expected| {
        let (update, condition) = (change.update_expression(), change.condition_expression());
        writes.push(ItemWrite { call, update, condition, values: change.values().clone(), expected });
    };

    let renewal = Renewal { key: key.clone(), counter: lease.counter, throughput };
    let renewed = after(lease, |row| {
        let outcomes = rules::renew(row, me, &[renewal])?;
        Ok(matches!(outcomes[..], [RenewalOutcome::Renewed { .. } | RenewalOutcome::HandOffAsked { .. }]))
    })?;
    add("renew", &Change::renew(me, counter, throughput), renewed);

    let how = if lease.holder.is_only(me) { Take::Again } else { Take::FromAnother };
    let taken = after(lease, |row| Ok(rules::take(row, me, key, lease.counter)?.is_some()))?;
    add("take", &Change::take(me, key, counter, how), taken);

    if let Holder::Held(from) | Holder::HandingOver { to: from, .. } = &lease.holder
        && from != me
    {
        let asked = after(lease, |row| rules::ask(row, me, key, from))?;
        add("ask", &Change::ask(me, from), asked);
    }
    add("hand over", &Change::hand_over(me), after(lease, |row| rules::hand_over(row, me, key))?);
    if lease.holder.is_only(me) {
        add("release", &Change::release(me), after(lease, |row| rules::release(row, me, key))?);
    }
    add("remove", &Change::removal(), after(lease, |row| rules::remove(row, key))?);

    let furthest = Position::at("9".repeat(128).as_str().try_into().expect("as many digits as there may be"));
    for through in [furthest, Position::End] {
        let Ok(range) = ShardRange::new(lease.checkpoint.clone(), through) else { continue };
        let manifest = name("new.json");
        let decision = Decision::new(me.clone(), manifest.clone(), vec![(key.clone(), range.clone())]);
        let decision = decision.expect("it has one shard");
        let decided = after(lease, |row| Ok(rules::decide(row, &decision, 1)? == Verdict::Decided))?;
        add("decide", &Change::decide(me, &manifest, key, &range)?, decided);
    }

    let (manifest, through) = match &lease.pending {
        Some(pending) => (pending.manifest.clone(), pending.through.clone()),
        None => (name("unknown.json"), Position::End),
    };
    let advance = Advance::new(key.clone(), through);
    let advanced = after(lease, |row| {
        Ok(rules::advance(row, &manifest, std::slice::from_ref(&advance))? == [AdvanceOutcome::Advanced])
    })?;
    add("advance", &Change::advance(&manifest, &advance)?, advanced);
    let rolled_back = after(lease, |row| rules::roll_back(row, &manifest, std::slice::from_ref(key)))?;
    add("roll back", &Change::roll_back(&manifest), rolled_back);
    Ok(writes)
}

/// One row, for `rules.rs`.
struct OneRow(Option<Lease>);

impl Rows for OneRow {
    type Error = StoreError;

    fn get(&self, _: &ShardKey) -> Result<Option<Lease>, StoreError> {
        Ok(self.0.clone())
    }

    fn put(&mut self, lease: Lease) -> Result<(), StoreError> {
        self.0 = Some(lease);
        Ok(())
    }

    fn delete(&mut self, _: &ShardKey) -> Result<(), StoreError> {
        // A removed row is compared by the condition alone.
        Ok(())
    }
}

/// The lease after a call, if the call is not refused.
fn after(
    lease: &Lease,
    call: impl FnOnce(&mut OneRow) -> Result<bool, StoreError>,
) -> Result<Option<Lease>, StoreError> {
    let mut row = OneRow(Some(lease.clone()));
    Ok(if call(&mut row)? { row.0 } else { None })
}
