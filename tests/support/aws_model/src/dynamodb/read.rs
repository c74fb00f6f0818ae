//! GetItem, BatchGetItem, TransactGetItems, Query, Scan.
//!
//! Owns: which items a request returns, in which order, in which pages. Does not own: how stale they are (`table`).
//!
//! Limits: a page of 1 MB or `Limit` items, before the filter; 100 items in a batch or a transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::error::{Refused, serialization, validation};
use super::expression::evaluate::{holds, project};
use super::expression::{Comparator, Condition, Kind, Operand, Path, Placeholders};
use super::request::{
    Request, capacity, choice, condition, count, item, objects, projection, read_halves, table_name, text,
};
use super::table::{Entry, Index, KeyPart, Projection, Schema, Table};
use super::value::{Item, Value, item_from_json, item_size, item_to_json};
use super::write::consistent;
use super::{State, legacy};

/// The bytes that one page reads.
const PAGE_BYTES: usize = 1024 * 1024;

fn answered(item: &Item, paths: Option<&Vec<Path>>) -> Json {
    match paths {
        None => item_to_json(item),
        Some(paths) => item_to_json(&project(item, paths)),
    }
}

/// One item.
pub(super) fn get(state: &State, request: &Request) -> Result<Json, Refused> {
    let name = table_name(request)?;
    legacy::not_both(request, &["AttributesToGet"], &["ProjectionExpression"])?;
    let mut placeholders = Placeholders::of(request, &[Kind::Projection])?;
    let paths = projection(request, &mut placeholders)?;
    placeholders.finish()?;
    let key = item(request, "Key")?;
    let table = state.table(name)?;
    let key = table.requested_key(&key)?;
    let found = table.get(&key, state.staleness(consistent(request)));
    let mut answer = json!({});
    if let Some(item) = &found {
        answer["Item"] = answered(item, paths.as_ref());
    }
    let bytes = found.map_or(0, |item| item_size(&item));
    if let Some(message) = capacity(request, name, None, read_halves(bytes, consistent(request)))? {
        answer["ConsumedCapacity"] = message;
    }
    Ok(answer)
}

/// Up to 100 items, each read separately.
pub(super) fn batch_get(state: &State, request: &Request) -> Result<Json, Refused> {
    let tables = request
        .get("RequestItems")
        .and_then(Json::as_object)
        .filter(|tables| !tables.is_empty())
        .ok_or_else(|| validation("1 validation error detected: Value at 'requestItems' failed to satisfy constraint: Member must have length greater than or equal to 1"))?;
    let (mut responses, mut unprocessed, mut consumed) = (Map::new(), Map::new(), Vec::new());
    let (mut asked, mut done) = (0_usize, 0_usize);
    for (name, wanted) in tables {
        let wanted = wanted.as_object().ok_or_else(|| serialization("Expected a structure"))?;
        let mut placeholders = Placeholders::of(wanted, &[Kind::Projection])?;
        let paths = projection(wanted, &mut placeholders)?;
        placeholders.finish()?;
        let table = state.table(name)?;
        let mut keys = BTreeMap::new();
        let (mut found, mut left, mut halves) = (Vec::new(), Vec::new(), 0);
        for json in wanted.get("Keys").and_then(Json::as_array).into_iter().flatten() {
            let key = table.requested_key(&item_from_json(json)?)?;
            if keys.insert(key.clone(), ()).is_some() {
                return Err(validation("Provided list of item keys contains duplicates"));
            }
            asked += 1;
            if state.batch_max.is_some_and(|most| done >= most) {
                left.push(json.clone());
                continue;
            }
            done += 1;
            let item = table.get(&key, state.staleness(consistent(wanted)));
            halves += read_halves(item.as_ref().map_or(0, |item| item_size(item)), consistent(wanted));
            found.extend(item.map(|item| answered(&item, paths.as_ref())));
        }
        responses.insert(name.clone(), Json::Array(found));
        consumed.extend(capacity(request, name, None, halves)?);
        if !left.is_empty() {
            let mut again = wanted.clone();
            again.insert("Keys".to_owned(), Json::Array(left));
            unprocessed.insert(name.clone(), Json::Object(again));
        }
    }
    if !(1..=100).contains(&asked) {
        return Err(validation("Too many items requested for the BatchGetItem call"));
    }
    let mut answer = json!({ "Responses": responses, "UnprocessedKeys": unprocessed });
    if !consumed.is_empty() {
        answer["ConsumedCapacity"] = Json::Array(consumed);
    }
    Ok(answer)
}

/// Up to 100 items at one moment.
pub(super) fn transact_get(state: &State, request: &Request) -> Result<Json, Refused> {
    let gets = objects(request, "TransactItems")?;
    if !(1..=100).contains(&gets.len()) {
        return Err(validation(
            "1 validation error detected: Value at 'transactItems' failed to satisfy constraint: Member must have length less \
             than or equal to 100",
        ));
    }
    let mut responses = Vec::new();
    let mut seen: Vec<(&str, Item)> = Vec::new();
    for entry in gets {
        let get = entry.get("Get").and_then(Json::as_object).ok_or_else(|| serialization("Expected a Get"))?;
        let name = table_name(get)?;
        let mut placeholders = Placeholders::of(get, &[Kind::Projection])?;
        let paths = projection(get, &mut placeholders)?;
        placeholders.finish()?;
        let table = state.table(name)?;
        let key_item = item(get, "Key")?;
        let key = table.requested_key(&key_item)?;
        if seen.contains(&(name, key_item.clone())) {
            return Err(validation("Transaction request cannot include multiple operations on one item"));
        }
        seen.push((name, key_item));
        responses.push(match table.get(&key, 0) {
            Some(item) => json!({ "Item": answered(&item, paths.as_ref()) }),
            None => json!({}),
        });
    }
    Ok(json!({ "Responses": responses }))
}

/// Items of one partition, in order.
pub(super) fn query(state: &State, request: &Request) -> Result<Json, Refused> {
    let name = table_name(request)?;
    legacy::not_both(
        request,
        &["KeyConditions", "QueryFilter", "AttributesToGet", "ConditionalOperator"],
        &["KeyConditionExpression", "FilterExpression", "ProjectionExpression"],
    )?;
    let mut placeholders = Placeholders::of(request, &[Kind::KeyCondition, Kind::Filter, Kind::Projection])?;
    let key = condition(request, Kind::KeyCondition, "KeyConditions", &mut placeholders)?.ok_or_else(|| {
        validation("Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.")
    })?;
    let filter = condition(request, Kind::Filter, "QueryFilter", &mut placeholders)?;
    let paths = projection(request, &mut placeholders)?;
    placeholders.finish()?;
    let table = state.table(name)?;
    let index = index_of(state, table, request)?;
    let schema = index.map_or(&table.schema, |index| &index.schema);
    key_condition(schema, &key)?;
    if let Some(filter) = &filter
        && let Some(part) = schema.parts().find(|part| mentions(filter, &part.name))
    {
        return Err(validation(format!(
            "Filter Expression can only contain non-primary key attributes: Primary key attribute: {}",
            part.name
        )));
    }
    let mut entries = table.entries(index, stale(state, request, index));
    entries.retain(|entry| holds(&key, &entry.item));
    let forward = request.get("ScanIndexForward").and_then(Json::as_bool).unwrap_or(true);
    if !forward {
        entries.reverse();
    }
    let page_of = Page { forward, most: state.page_max };
    page(table, index, request, &entries, page_of, filter.as_ref(), paths.as_ref())
}

/// All items.
pub(super) fn scan(state: &State, request: &Request) -> Result<Json, Refused> {
    let name = table_name(request)?;
    legacy::not_both(
        request,
        &["ScanFilter", "AttributesToGet", "ConditionalOperator"],
        &["FilterExpression", "ProjectionExpression"],
    )?;
    let mut placeholders = Placeholders::of(request, &[Kind::Filter, Kind::Projection])?;
    let filter = condition(request, Kind::Filter, "ScanFilter", &mut placeholders)?;
    let paths = projection(request, &mut placeholders)?;
    placeholders.finish()?;
    let segments = (count(request, "Segment", 0, 999_999)?, count(request, "TotalSegments", 1, 1_000_000)?);
    let table = state.table(name)?;
    let index = index_of(state, table, request)?;
    let mut entries = table.entries(index, stale(state, request, index));
    match segments {
        (None, None) => {}
        (Some(segment), Some(total)) if segment < total => {
            entries.retain(|entry| entry.at.0.segment(total) == segment);
        }
        (Some(segment), Some(total)) => {
            return Err(validation(format!(
                "The Segment parameter is zero-based and must be less than parameter TotalSegments: Segment: {segment} is not \
                 less than TotalSegments: {total}"
            )));
        }
        (None, Some(_)) => {
            return Err(validation(
                "The Segment parameter is required but was not present in the request when parameter TotalSegments is present",
            ));
        }
        (Some(_), None) => {
            return Err(validation(
                "The TotalSegments parameter is required but was not present in the request when Segment parameter is present",
            ));
        }
    }
    let page_of = Page { forward: true, most: state.page_max };
    page(table, index, request, &entries, page_of, filter.as_ref(), paths.as_ref())
}

fn stale(state: &State, request: &Request, index: Option<&Index>) -> usize {
    state.staleness(index.is_none() && consistent(request))
}

fn index_of<'a>(state: &State, table: &'a Table, request: &Request) -> Result<Option<&'a Index>, Refused> {
    let Some(name) = text(request, "IndexName")? else { return Ok(None) };
    let index =
        table.index(name).ok_or_else(|| validation(format!("The table does not have the specified index: {name}")))?;
    if index.active_from_ms > state.now_ms {
        return Err(validation(format!("Cannot read from backfilling global secondary index: {name}")));
    }
    if consistent(request) {
        return Err(validation("Consistent reads are not supported on global secondary indexes"));
    }
    if text(request, "Select")? == Some("ALL_ATTRIBUTES") && index.projection != Projection::All {
        return Err(validation(format!(
            "One or more parameter values were invalid: Select type ALL_ATTRIBUTES is not supported for global secondary index \
             {name} because its projection type is not ALL"
        )));
    }
    Ok(Some(index))
}

/// The limits of a page.
struct Page {
    forward: bool,
    /// The most items, in addition to the request's own limit.
    most: Option<usize>,
}

fn page(
    table: &Table,
    index: Option<&Index>,
    request: &Request,
    entries: &[Entry],
    Page { forward, most }: Page,
    filter: Option<&Condition>,
    paths: Option<&Vec<Path>>,
) -> Result<Json, Refused> {
    let limit = count(request, "Limit", 1, u64::from(u32::MAX))?;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let select =
        choice(request, "Select", &["", "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES", "SPECIFIC_ATTRIBUTES", "COUNT"])?;
    let start = match request.get("ExclusiveStartKey").filter(|key| !key.is_null()) {
        None => 0,
        Some(key) => {
            let at = table.position(index, &item_from_json(key)?)?;
            entries.partition_point(|entry| if forward { entry.at <= at } else { entry.at >= at })
        }
    };
    let (mut scanned, mut bytes, mut last) = (0, 0, None);
    let mut found: Vec<Arc<Item>> = Vec::new();
    for (place, entry) in entries.iter().enumerate().skip(start) {
        scanned += 1;
        bytes += item_size(&entry.item);
        if filter.is_none_or(|filter| holds(filter, &entry.item)) {
            found.push(Arc::clone(&entry.item));
        }
        // As on AWS, a page that ends at `Limit` names its end even if nothing follows.
        let full = bytes >= PAGE_BYTES || most.is_some_and(|most| scanned >= most);
        if scanned == limit || (full && place + 1 < entries.len()) {
            last = Some(table.key_attributes(index, &entry.item));
            break;
        }
    }
    let mut answer = json!({ "Count": found.len(), "ScannedCount": scanned });
    if select != "COUNT" {
        answer["Items"] = found.iter().map(|item| answered(item, paths)).collect();
    }
    if let Some(last) = last {
        answer["LastEvaluatedKey"] = item_to_json(&last);
    }
    let halves = read_halves(bytes, consistent(request));
    if let Some(message) = capacity(request, &table.name, index.map(|index| index.name.as_str()), halves)? {
        answer["ConsumedCapacity"] = message;
    }
    Ok(answer)
}

/// Checks that it is one equality on the partition key and at most one condition on the sort key.
fn key_condition(schema: &Schema, key: &Condition) -> Result<(), Refused> {
    let mut parts = Vec::new();
    conjunction(key, &mut parts);
    let (mut hash, mut range) = (0, 0);
    for part in parts {
        let (operand, values, equal) = match part {
            Condition::Compare(Comparator::Unequal, ..) => return Err(unsupported()),
            Condition::Compare(comparator, operand, value) => (operand, vec![value], *comparator == Comparator::Equal),
            Condition::Between(operand, low, high) => (operand, vec![low, high], false),
            Condition::BeginsWith(operand, prefix) => (operand, vec![prefix], false),
            _ => return Err(unsupported()),
        };
        let Operand::Path(path) = operand else { return Err(unsupported()) };
        let name = path.only().ok_or_else(unsupported)?;
        let is_hash = schema.hash.name == name;
        let known: Option<&KeyPart> = schema.parts().find(|part| part.name == name);
        let Some(known) = known else {
            return Err(validation(format!("Query condition missed key schema element: {}", missed(schema, hash))));
        };
        if is_hash && !equal {
            return Err(unsupported());
        }
        for value in values {
            match value {
                Operand::Value(value) if value.type_name() != known.kind => {
                    return Err(validation(
                        "One or more parameter values were invalid: Condition parameter type does not match schema type",
                    ));
                }
                Operand::Value(value) if empty_key(value) => {
                    return Err(validation(format!(
                        "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an \
                         empty string value. Key: {name}"
                    )));
                }
                Operand::Value(_) => {}
                _ => return Err(unsupported()),
            }
        }
        if is_hash { hash += 1 } else { range += 1 }
    }
    if hash > 1 || range > 1 {
        return Err(validation("KeyConditionExpressions must only contain one condition per key"));
    }
    if hash == 0 {
        return Err(validation(format!("Query condition missed key schema element: {}", schema.hash.name)));
    }
    Ok(())
}

fn empty_key(value: &Value) -> bool {
    matches!(value, Value::S(_) | Value::B(_)) && value.size() == 0
}

fn missed(schema: &Schema, hash: usize) -> &str {
    match &schema.range {
        Some(range) if hash > 0 => &range.name,
        _ => &schema.hash.name,
    }
}

fn unsupported() -> Refused {
    validation("Query key condition not supported")
}

fn conjunction<'a>(condition: &'a Condition, parts: &mut Vec<&'a Condition>) {
    if let Condition::And(left, right) = condition {
        conjunction(left, parts);
        conjunction(right, parts);
    } else {
        parts.push(condition);
    }
}

fn mentions(condition: &Condition, name: &str) -> bool {
    let operand = |operand: &Operand| match operand {
        Operand::Path(path) | Operand::Size(path) => path.top() == name,
        Operand::Value(_) => false,
    };
    match condition {
        Condition::Compare(_, left, right) | Condition::BeginsWith(left, right) | Condition::Contains(left, right) => {
            operand(left) || operand(right)
        }
        Condition::Between(value, low, high) => operand(value) || operand(low) || operand(high),
        Condition::In(value, among) => operand(value) || among.iter().any(operand),
        Condition::And(left, right) | Condition::Or(left, right) => mentions(left, name) || mentions(right, name),
        Condition::Not(inner) => mentions(inner, name),
        Condition::Exists(path) | Condition::Missing(path) | Condition::IsType(path, _) => path.top() == name,
    }
}
