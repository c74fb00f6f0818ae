//! What each call of the lease store changes in an item, and on which condition: `store.rs` in DynamoDB's language.
//!
//! A [`Change`] is one conditional write: `SET`, `REMOVE` and `ADD` of single attributes, so that unknown attributes survive
//! it. No change creates an item: every condition needs an attribute that every lease has.
//!
//! It does not own sending a change, or what a failed condition means (`mod.rs`, `calls.rs`).

use aws_sdk_dynamodb::types::AttributeValue;

use super::item::{
    self, CHECKPOINT, CHECKPOINT_OWNER, CHECKPOINT_SUB, CHILDREN, Item, LAST_MANIFEST, LEASE_COUNTER, LEASE_OWNER,
    MANIFEST_PREFIX, MANIFEST_PREFIX_SUCCESSOR, OWNER_SWITCHES, PENDING, PENDING_STATE, PENDING_SUB, SHARDLAKE_STREAM,
    THROUGHPUT, number, text,
};
use crate::error::StoreError;
use crate::lease::{LeaseOwner, ManifestName, ThroughputKbps};
use crate::position::{Position, SHARD_END, ShardRange};
use crate::shard::{ShardId, ShardKey};
use crate::store::Advance;

/// One conditional write to one item.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Change {
    set: Vec<String>,
    remove: Vec<&'static str>,
    add: Vec<String>,
    conditions: Vec<String>,
    values: Item,
}

/// How a lease is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// From another holder, from nobody, or out of a hand-off: this counts as a switch.
    FromAnother,
    /// By the worker that already holds it: not a switch.
    Again,
}

/// No hand-off is in progress.
const NOT_ASKED_FOR: &str = "attribute_not_exists(checkpointOwner)";

impl Change {
    /// [`renew`](crate::LeaseStore::renew).
    pub(super) fn renew(me: &LeaseOwner, counter: i64, throughput: ThroughputKbps) -> Self {
        Self::default()
            .when_held_by(me)
            .when_is(LEASE_COUNTER, number(counter))
            .add(LEASE_COUNTER, 1)
            .set(THROUGHPUT, item::throughput(throughput.get()))
    }

    /// [`take`](crate::LeaseStore::take). It also marks a row that KCL wrote as ours.
    pub(super) fn take(me: &LeaseOwner, key: &ShardKey, seen_counter: i64, how: Take) -> Self {
        let change = Self::default().when_is(LEASE_COUNTER, number(seen_counter)).add(LEASE_COUNTER, 1);
        let change = change.set(SHARDLAKE_STREAM, text(key.stream.as_str()));
        match how {
            Take::Again => change.when_is(LEASE_OWNER, text(me.as_str())).when(NOT_ASKED_FOR),
            Take::FromAnother => {
                let mut change = change.set(LEASE_OWNER, text(me.as_str())).remove([CHECKPOINT_OWNER]);
                let me = change.value(text(me.as_str()));
                change.add(OWNER_SWITCHES, 1).when(format!(
                    "(attribute_not_exists({LEASE_OWNER}) OR {LEASE_OWNER} <> {me} \
                     OR attribute_exists({CHECKPOINT_OWNER}))"
                ))
            }
        }
    }

    /// [`ask`](crate::LeaseStore::ask), in the way that KCL's leader starts a hand-off.
    pub(super) fn ask(me: &LeaseOwner, from: &LeaseOwner) -> Self {
        Self::default()
            .when_is(LEASE_OWNER, text(from.as_str()))
            .when(NOT_ASKED_FOR)
            .set(LEASE_OWNER, text(me.as_str()))
            .set(CHECKPOINT_OWNER, text(from.as_str()))
    }

    /// [`hand_over`](crate::LeaseStore::hand_over), in the way that KCL's old owner completes a hand-off.
    pub(super) fn hand_over(me: &LeaseOwner) -> Self {
        Self::default()
            .when_is(CHECKPOINT_OWNER, text(me.as_str()))
            .when(format!("attribute_exists({LEASE_OWNER})"))
            .remove([CHECKPOINT_OWNER])
            .add(LEASE_COUNTER, 1)
            .add(OWNER_SWITCHES, 1)
    }

    /// [`release`](crate::LeaseStore::release) of a lease that nobody asked for, in the way that KCL evicts.
    pub(super) fn release(me: &LeaseOwner) -> Self {
        Self::default()
            .when_is(LEASE_OWNER, text(me.as_str()))
            .when(NOT_ASKED_FOR)
            .remove([LEASE_OWNER])
            .add(LEASE_COUNTER, 1)
    }

    /// The condition of [`remove`](crate::LeaseStore::remove); it changes nothing.
    pub(super) fn removal() -> Self {
        Self::default().when_is(CHECKPOINT, text(SHARD_END)).when_nothing_is_pending()
    }

    /// One shard of [`decide`](crate::LeaseStore::decide). A pending checkpoint of KCL's own is overwritten.
    pub(super) fn decide(
        me: &LeaseOwner,
        manifest: &ManifestName,
        key: &ShardKey,
        range: &ShardRange,
    ) -> Result<Self, StoreError> {
        let (after, through) = (range.after(), range.through());
        Ok(Self::default()
            .when_held_by(me)
            .when_nothing_is_pending()
            .when_is(CHECKPOINT, text(after.checkpoint()))
            .when_is(CHECKPOINT_SUB, sub(key, after)?)
            .set(PENDING, text(through.checkpoint()))
            .set(PENDING_SUB, sub(key, through)?)
            .set(PENDING_STATE, item::manifest(manifest)))
    }

    /// One shard of [`advance`](crate::LeaseStore::advance).
    pub(super) fn advance(manifest: &ManifestName, advance: &Advance) -> Result<Self, StoreError> {
        let through = advance.through();
        let (checkpoint, sub) = (text(through.checkpoint()), sub(advance.key(), through)?);
        let change = Self::default()
            .when_is(PENDING_STATE, item::manifest(manifest))
            .when_is(PENDING, checkpoint.clone())
            .when_is(PENDING_SUB, sub.clone())
            .set(CHECKPOINT, checkpoint)
            .set(CHECKPOINT_SUB, sub)
            .set(LAST_MANIFEST, text(manifest.as_str()))
            .set(OWNER_SWITCHES, number(0))
            .remove([PENDING, PENDING_SUB, PENDING_STATE]);
        let children = item::texts(advance.children().iter().map(ShardId::to_string).collect());
        Ok(match children {
            Some(children) => change.set(CHILDREN, children),
            None => change,
        })
    }

    /// One shard of [`roll_back`](crate::LeaseStore::roll_back).
    pub(super) fn roll_back(manifest: &ManifestName) -> Self {
        Self::default().when_is(PENDING_STATE, item::manifest(manifest)).remove([PENDING, PENDING_SUB, PENDING_STATE])
    }

    /// The whole update in DynamoDB's syntax.
    pub(super) fn update_expression(&self) -> String {
        let clauses = [("SET", self.set.join(", ")), ("REMOVE", self.remove.join(", ")), ("ADD", self.add.join(", "))];
        let written = clauses.iter().filter(|(_, parts)| !parts.is_empty());
        written.map(|(verb, parts)| format!("{verb} {parts}")).collect::<Vec<_>>().join(" ")
    }

    /// The whole condition.
    pub(super) fn condition_expression(&self) -> String {
        self.conditions.join(" AND ")
    }

    /// The values that both expressions refer to.
    pub(super) fn values(&self) -> &Item {
        &self.values
    }

    /// A value's name in the expressions.
    fn value(&mut self, value: AttributeValue) -> String {
        let name = format!(":v{}", self.values.len());
        self.values.insert(name.clone(), value);
        name
    }

    fn set(mut self, attribute: &str, value: AttributeValue) -> Self {
        let value = self.value(value);
        self.set.push(format!("{attribute} = {value}"));
        self
    }

    fn remove(mut self, attributes: impl IntoIterator<Item = &'static str>) -> Self {
        self.remove.extend(attributes);
        self
    }

    fn add(mut self, attribute: &str, count: i64) -> Self {
        let value = self.value(number(count));
        self.add.push(format!("{attribute} {value}"));
        self
    }

    fn when(mut self, condition: impl Into<String>) -> Self {
        self.conditions.push(condition.into());
        self
    }

    fn when_is(mut self, attribute: &str, value: AttributeValue) -> Self {
        let value = self.value(value);
        self.when(format!("{attribute} = {value}"))
    }

    /// `me` is the worker that may commit: see the table in `lease.rs`.
    fn when_held_by(mut self, me: &LeaseOwner) -> Self {
        let me = self.value(text(me.as_str()));
        self.when(format!(
            "({CHECKPOINT_OWNER} = {me} OR ({LEASE_OWNER} = {me} AND attribute_not_exists({CHECKPOINT_OWNER})))"
        ))
    }

    /// No manifest of ours is pending; KCL's pending checkpoints do not count. Bytes that begin with the prefix are those from
    /// the prefix up to its successor. (`begins_with` means the same, but moto has it for texts only.)
    fn when_nothing_is_pending(mut self) -> Self {
        let binary = self.value(text("B"));
        let first = self.value(AttributeValue::B(MANIFEST_PREFIX.as_bytes().into()));
        let behind = self.value(AttributeValue::B(MANIFEST_PREFIX_SUCCESSOR.as_bytes().into()));
        self.when(format!(
            "(attribute_not_exists({PENDING_STATE}) OR NOT attribute_type({PENDING_STATE}, {binary}) \
             OR {PENDING_STATE} < {first} OR {PENDING_STATE} >= {behind})"
        ))
    }
}

/// The number half of a position.
fn sub(key: &ShardKey, position: &Position) -> Result<AttributeValue, StoreError> {
    count(key, "sub-sequence number", position.sub_sequence_number()).map(number)
}

/// A number for a row of `key`.
///
/// # Errors
///
/// [`StoreError::Invalid`] if it exceeds `i64::MAX`, the largest number in a row.
pub(super) fn count(key: &ShardKey, what: &str, number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Invalid {
        operation: format!("change the lease of {key}"),
        problem: format!("{what} {number} exceeds 63 bits"),
    })
}

#[cfg(test)]
#[path = "change/tests.rs"]
mod tests;
