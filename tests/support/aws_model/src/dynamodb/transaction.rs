//! TransactWriteItems.
//!
//! Owns: all or nothing. Every item is checked against the state before; only if none is refused is anything stored, under
//! one lock, so no reader sees a part. A refusal has one reason for each item, in their order. A transaction that took effect is
//! remembered by its `ClientRequestToken` for 10 minutes: repeated, it has no effect and the same answer; with other
//! parameters it is refused. Does not own: single writes (`write`).
//!
//! Limits: 100 items, 4 MB, each item once.

use serde_json::{Value as Json, json};

use super::error::{Reason, Refused, parameter_mismatch, transaction_canceled, validation};
use super::request::{Request, capacity, objects, text, write_halves};
use super::value::item_size;
use super::write::{Judged, Verb, Write};
use super::{Remembered, State};

/// How long a token is remembered.
pub(super) const TOKEN_MS: u64 = 10 * 60 * 1000;
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Writes all items, or none.
pub(super) fn transact_write(state: &mut State, request: &Request) -> Result<Json, Refused> {
    let entries = objects(request, "TransactItems")?;
    if entries.is_empty() || entries.len() > 100 {
        let (bound, most) = if entries.is_empty() { ("greater", 1) } else { ("less", 100) };
        return Err(validation(format!(
            "1 validation error detected: Value at 'transactItems' failed to satisfy constraint: Member must have length \
             {bound} than or equal to {most}"
        )));
    }
    let token = text(request, "ClientRequestToken")?.map(str::to_owned);
    if token.as_ref().is_some_and(|token| !(1..=36).contains(&token.len())) {
        return Err(validation(
            "1 validation error detected: Value at 'clientRequestToken' failed to satisfy constraint: Member must have length \
             less than or equal to 36",
        ));
    }
    let mut writes: Vec<Write> = Vec::with_capacity(entries.len());
    for entry in &entries {
        let write = write_of(state, entry)?;
        if writes.iter().any(|other| other.table == write.table && other.key == write.key) {
            return Err(validation("Transaction request cannot include multiple operations on one item"));
        }
        writes.push(write);
    }
    let now_ms = state.now_ms;
    state.tokens.retain(|_, remembered| now_ms < remembered.at_ms.saturating_add(TOKEN_MS));
    if let Some(remembered) = token.as_ref().and_then(|token| state.tokens.get(token)) {
        if remembered.items != request["TransactItems"] {
            return Err(parameter_mismatch());
        }
        return Ok(json!({}));
    }
    state.refused_transaction(writes.len())?;

    let (mut judged, mut reasons): (Vec<Judged>, Vec<Reason>) = (Vec::new(), Vec::new());
    for write in &writes {
        match write.judge(state.table(&write.table)?) {
            Ok(good) => {
                judged.push(good);
                reasons.push(Reason::none());
            }
            Err(refused) => {
                let code = match refused.code() {
                    "ConditionalCheckFailedException" => "ConditionalCheckFailed",
                    _ => "ValidationError",
                };
                let item = refused.item().cloned();
                reasons.push(Reason { item, ..Reason::new(code, refused.message()) });
            }
        }
    }
    if judged.len() < writes.len() {
        return Err(transaction_canceled(&reasons));
    }
    let bytes: usize = judged.iter().filter_map(|judged| judged.after.as_ref()).map(item_size).sum();
    if bytes > BYTES_MAX {
        return Err(validation("Transaction request size exceeds the maximum allowed size of 4 MB"));
    }
    let mut halves: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for (write, judged) in writes.iter().zip(judged) {
        // A transaction prepares and commits: each write costs twice.
        *halves.entry(write.table.clone()).or_default() += 2 * write_halves(judged.bytes());
        write.store(state, judged);
    }
    if let Some(token) = token {
        state.tokens.insert(token, Remembered { at_ms: now_ms, items: request["TransactItems"].clone() });
    }
    let mut consumed = Vec::new();
    for (table, halves) in halves {
        consumed.extend(capacity(request, &table, None, halves)?.map(|mut message| {
            message["WriteCapacityUnits"] = message["CapacityUnits"].clone();
            message
        }));
    }
    Ok(if consumed.is_empty() { json!({}) } else { json!({ "ConsumedCapacity": consumed }) })
}

fn write_of(state: &State, entry: &Request) -> Result<Write, Refused> {
    let kinds =
        [("Put", Verb::Put), ("Update", Verb::Update), ("Delete", Verb::Delete), ("ConditionCheck", Verb::Check)];
    let mut given = kinds.iter().filter_map(|(name, verb)| Some((*verb, entry.get(*name)?.as_object()?)));
    let (Some((verb, request)), None) = (given.next(), given.next()) else {
        return Err(validation("TransactItems can only contain one of Check, Put, Update or Delete"));
    };
    if let Some(parameter) = match verb {
        Verb::Check if !request.contains_key("ConditionExpression") => Some("conditionExpression"),
        Verb::Update if !request.contains_key("UpdateExpression") => Some("updateExpression"),
        _ => None,
    } {
        return Err(validation(format!(
            "1 validation error detected: Value null at 'transactItems.1.member.{parameter}' failed to satisfy constraint: \
             Member must not be null"
        )));
    }
    Write::of(state, verb, request)
}
