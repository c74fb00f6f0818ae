//! PutItem, UpdateItem, DeleteItem, BatchWriteItem.
//!
//! Owns: the steps of one write, also inside a transaction: parsed and checked against the table ([`Write::of`]),
//! checked against the current item ([`Write::judge`]), and only then stored. Does not own: transactions.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::error::{Refused, condition_failed, serialization, validation};
use super::expression::evaluate::{holds, project};
use super::expression::{Condition, Kind, Path, Placeholders, Update, parse, update};
use super::request::{Request, capacity, choice, condition, flag, item, objects, table_name, text, write_halves};
use super::table::{ITEM_BYTES_MAX, Key, Table};
use super::value::{Item, item_from_json, item_size, item_to_json};
use super::{State, legacy};

/// The kinds of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Put,
    Update,
    Delete,
    Check,
}

/// A write, checked against its table.
pub(super) struct Write {
    pub(super) table: String,
    pub(super) key: Key,
    verb: Verb,
    /// The item to store, or the key.
    given: Item,
    update: Update,
    /// An old-style update that only removes attributes creates no item.
    makes_no_item: bool,
    condition: Option<Condition>,
    tell_item: bool,
}

/// The effect of a write.
pub(super) struct Judged {
    pub(super) before: Option<Arc<Item>>,
    pub(super) after: Option<Item>,
}

impl Judged {
    /// The written bytes: those of the larger item, before or after.
    pub(super) fn bytes(&self) -> usize {
        let before = self.before.as_ref().map_or(0, |item| item_size(item));
        before.max(self.after.as_ref().map_or(0, item_size))
    }
}

impl Write {
    /// Parses a write.
    pub(super) fn of(state: &State, verb: Verb, request: &Request) -> Result<Self, Refused> {
        let name = table_name(request)?;
        legacy::not_both(
            request,
            &["AttributeUpdates", "Expected", "ConditionalOperator"],
            &["UpdateExpression", "ConditionExpression"],
        )?;
        let mut placeholders = Placeholders::of(request, &[Kind::Condition, Kind::Update])?;
        let given = item(request, if verb == Verb::Put { "Item" } else { "Key" })?;
        let old = legacy::updates(request)?;
        let makes_no_item = old.as_ref().is_some_and(|update| update.set.is_empty() && update.add.is_empty());
        let update = match (text(request, Kind::Update.parameter())?, old) {
            (Some(expression), _) if verb == Verb::Update => parse::update(expression, &mut placeholders)?,
            (_, Some(update)) => update,
            (_, None) => Update::default(),
        };
        let condition = condition(request, Kind::Condition, "Expected", &mut placeholders)?;
        placeholders.finish()?;
        let tell_item = choice(request, "ReturnValuesOnConditionCheckFailure", &["NONE", "ALL_OLD"])? == "ALL_OLD";
        let table = state.table(name)?;
        let key = if verb == Verb::Put { table.item_key(&given)? } else { table.requested_key(&given)? };
        if verb == Verb::Put && item_size(&given) > ITEM_BYTES_MAX {
            return Err(validation("Item size has exceeded the maximum allowed size"));
        }
        if let Some(path) = update.paths().find(|path| table.schema.has(path.top())) {
            return Err(validation(format!(
                "One or more parameter values were invalid: Cannot update attribute {}. This attribute is part of the key",
                path.top()
            )));
        }
        Ok(Write { table: name.to_owned(), key, verb, given, update, makes_no_item, condition, tell_item })
    }

    /// Checks the write against the current item. Changes nothing.
    pub(super) fn judge(&self, table: &Table) -> Result<Judged, Refused> {
        let before = table.get(&self.key, 0);
        let empty = Item::new();
        if let Some(condition) = &self.condition
            && !holds(condition, before.as_deref().unwrap_or(&empty))
        {
            return Err(condition_failed().with_item(before.as_deref().filter(|_| self.tell_item)));
        }
        let after = match self.verb {
            Verb::Put => Some(self.given.clone()),
            Verb::Delete => None,
            Verb::Check => before.as_deref().cloned(),
            Verb::Update if before.is_none() && self.makes_no_item => None,
            Verb::Update => {
                let after = update::apply(&self.update, before.as_deref().unwrap_or(&self.given))?;
                if item_size(&after) > ITEM_BYTES_MAX {
                    return Err(validation("Item size to update has exceeded the maximum allowed size"));
                }
                table.index_keys(&after)?;
                Some(after)
            }
        };
        Ok(Judged { before, after })
    }

    /// Stores the effect of a checked write.
    pub(super) fn store(&self, state: &mut State, judged: Judged) {
        let gone_before_and_after = judged.before.is_none() && judged.after.is_none();
        if self.verb == Verb::Check || gone_before_and_after {
            return;
        }
        if let Some(table) = state.tables.get_mut(&self.table) {
            table.set(self.key.clone(), judged.after);
        }
    }

    fn returned(&self, judged: &Judged, values: &str) -> Option<Item> {
        let paths: Vec<Path> = self.update.paths().cloned().collect();
        match values {
            "ALL_OLD" => judged.before.as_deref().cloned(),
            "ALL_NEW" => judged.after.clone(),
            "UPDATED_OLD" => judged.before.as_deref().map(|item| project(item, &paths)).filter(|item| !item.is_empty()),
            "UPDATED_NEW" => judged.after.as_ref().map(|item| project(item, &paths)).filter(|item| !item.is_empty()),
            _ => None,
        }
    }
}

/// A single write.
pub(super) fn write(state: &mut State, verb: Verb, request: &Request) -> Result<Json, Refused> {
    let values = choice(request, "ReturnValues", &["NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"])?;
    if verb != Verb::Update && !matches!(values, "NONE" | "ALL_OLD") {
        return Err(validation("ReturnValues can only be ALL_OLD or NONE"));
    }
    let write = Write::of(state, verb, request)?;
    state.refused_write()?;
    let judged = write.judge(state.table(&write.table)?)?;
    let mut answer = json!({});
    if let Some(item) = write.returned(&judged, values) {
        answer["Attributes"] = item_to_json(&item);
    }
    if let Some(message) = capacity(request, &write.table, None, write_halves(judged.bytes()))? {
        answer["ConsumedCapacity"] = message;
    }
    write.store(state, judged);
    Ok(answer)
}

/// Up to 25 puts and deletes, each separately.
pub(super) fn batch_write(state: &mut State, request: &Request) -> Result<Json, Refused> {
    let tables = request
        .get("RequestItems")
        .and_then(Json::as_object)
        .filter(|tables| !tables.is_empty())
        .ok_or_else(|| validation("The batch write request list for a table cannot be null or empty"))?;
    let mut writes: Vec<(Write, Json)> = Vec::new();
    for name in tables.keys() {
        for entry in objects(tables, name)? {
            let (verb, inner, part) = match (entry.get("PutRequest"), entry.get("DeleteRequest")) {
                (Some(Json::Object(put)), None) => (Verb::Put, put, "Item"),
                (None, Some(Json::Object(delete))) => (Verb::Delete, delete, "Key"),
                _ => {
                    return Err(validation(
                        "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported \
                         datatypes",
                    ));
                }
            };
            let given = inner.get(part).ok_or_else(|| serialization("Expected an item"))?;
            item_from_json(given)?;
            let request = Request::from_iter([("TableName".to_owned(), json!(name)), (part.to_owned(), given.clone())]);
            let write = Write::of(state, verb, &request)?;
            if writes.iter().any(|(other, _)| other.table == write.table && other.key == write.key) {
                return Err(validation("Provided list of item keys contains duplicates"));
            }
            writes.push((write, Json::Object(entry.clone())));
        }
    }
    if !(1..=25).contains(&writes.len()) {
        return Err(validation("Too many items requested for the BatchWriteItem call"));
    }
    state.refused_write()?;
    let done = state.batch_max.unwrap_or(usize::MAX).min(writes.len());
    let mut unprocessed = json!({});
    for (_, entry) in writes.iter().enumerate().skip(done) {
        let list = &mut unprocessed[&entry.0.table];
        match list {
            Json::Array(list) => list.push(entry.1.clone()),
            other => *other = json!([entry.1]),
        }
    }
    let mut consumed: Vec<Json> = Vec::new();
    for (write, _) in writes.iter().take(done) {
        let judged = write.judge(state.table(&write.table)?)?;
        consumed.extend(capacity(request, &write.table, None, write_halves(judged.bytes()))?);
        write.store(state, judged);
    }
    let mut answer = json!({ "UnprocessedItems": unprocessed });
    if !consumed.is_empty() {
        answer["ConsumedCapacity"] = Json::Array(consumed);
    }
    Ok(answer)
}

/// Whether the reads must return the newest state.
pub(super) fn consistent(request: &Request) -> bool {
    flag(request, "ConsistentRead")
}
