//! The parts that requests have in common.
//!
//! Owns: parameters by name and type, and the capacity in an answer. Does not own: operations.

use serde_json::{Map, Value as Json, json};

use super::error::{Refused, serialization, validation};
use super::expression::{Condition, Kind, Path, Placeholders, parse};
use super::table::Table;
use super::value::{Item, item_from_json};
use super::{State, legacy};

/// The parameters of a request.
pub(super) type Request = Map<String, Json>;

/// A text.
pub(super) fn text<'a>(request: &'a Request, name: &str) -> Result<Option<&'a str>, Refused> {
    match request.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(_) => Err(serialization("Unexpected token; expected a string")),
    }
}

/// A flag; false if it is missing.
pub(super) fn flag(request: &Request, name: &str) -> bool {
    request.get(name).and_then(Json::as_bool).unwrap_or(false)
}

/// One of the values; the first if it is missing.
pub(super) fn choice<'a>(request: &'a Request, name: &str, of: &[&'a str]) -> Result<&'a str, Refused> {
    let Some(given) = text(request, name)? else { return Ok(of.first().copied().unwrap_or("")) };
    if of.contains(&given) {
        return Ok(given);
    }
    let member = format!("{}{}", name[..1].to_lowercase(), &name[1..]);
    Err(validation(format!(
        "1 validation error detected: Value '{given}' at '{member}' failed to satisfy constraint: Member must satisfy enum \
         value set: [{}]",
        of.join(", ")
    )))
}

/// A whole number within bounds.
pub(super) fn count(request: &Request, name: &str, least: u64, most: u64) -> Result<Option<u64>, Refused> {
    let Some(given) = request.get(name).filter(|given| !given.is_null()) else { return Ok(None) };
    let member = format!("{}{}", name[..1].to_lowercase(), &name[1..]);
    match given.as_i64() {
        None => Err(serialization("Unexpected token; expected an integer")),
        Some(number) => match u64::try_from(number) {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            Ok(number) if number > most => Err(validation(format!(
                "1 validation error detected: Value '{number}' at '{member}' failed to satisfy constraint: Member must have \
                 value less than or equal to {most}"
            ))),
            _ => Err(validation(format!(
                "1 validation error detected: Value '{number}' at '{member}' failed to satisfy constraint: Member must have \
                 value greater than or equal to {least}"
            ))),
        },
    }
}

/// An item or a key.
pub(super) fn item(request: &Request, name: &str) -> Result<Item, Refused> {
    match request.get(name) {
        None | Some(Json::Null) => {
            let member = format!("{}{}", name[..1].to_lowercase(), &name[1..]);
            Err(validation(format!(
                "1 validation error detected: Value null at '{member}' failed to satisfy constraint: Member must not be null"
            )))
        }
        Some(json) => item_from_json(json),
    }
}

/// The name of the table, given as a name or at the end of an ARN.
pub(super) fn table_name(request: &Request) -> Result<&str, Refused> {
    let name = text(request, "TableName")?.ok_or_else(|| {
        validation(
            "1 validation error detected: Value null at 'tableName' failed to satisfy constraint: Member must not be null",
        )
    })?;
    let name = name.rsplit_once(":table/").map_or(name, |(_, name)| name);
    let good = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if !good || !(3..=255).contains(&name.len()) {
        return Err(validation(format!(
            "1 validation error detected: Value '{name}' at 'tableName' failed to satisfy constraint: Member must satisfy \
             regular expression pattern: [a-zA-Z0-9_.-]+"
        )));
    }
    Ok(name)
}

/// The parts of a list parameter, each an object.
pub(super) fn objects<'a>(request: &'a Request, name: &str) -> Result<Vec<&'a Request>, Refused> {
    match request.get(name) {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(list)) => list
            .iter()
            .map(|element| element.as_object().ok_or_else(|| serialization("Expected a structure")))
            .collect(),
        Some(_) => Err(serialization("Expected a list")),
    }
}

/// A condition, filter or key condition of a request, in the new form or the old one.
pub(super) fn condition(
    request: &Request,
    kind: Kind,
    old: &str,
    placeholders: &mut Placeholders,
) -> Result<Option<Condition>, Refused> {
    match text(request, kind.parameter())? {
        Some(expression) => parse::condition(kind, expression, placeholders).map(Some),
        None => legacy::conditions(request, old),
    }
}

/// The attributes to return; `None` for all.
pub(super) fn projection(request: &Request, placeholders: &mut Placeholders) -> Result<Option<Vec<Path>>, Refused> {
    match text(request, Kind::Projection.parameter())? {
        Some(expression) => parse::projection(expression, placeholders).map(Some),
        None => Ok(legacy::projection(request)),
    }
}

/// The units of capacity for reading these bytes, in halves.
pub(super) fn read_halves(bytes: usize, consistent: bool) -> usize {
    bytes.div_ceil(4096).max(1) * if consistent { 2 } else { 1 }
}

/// The units of capacity for writing these bytes, in halves.
pub(super) fn write_halves(bytes: usize) -> usize {
    bytes.div_ceil(1024).max(1) * 2
}

/// `ConsumedCapacity` of one table, if the request asks for it.
pub(super) fn capacity(
    request: &Request,
    table: &str,
    index: Option<&str>,
    halves: usize,
) -> Result<Option<Json>, Refused> {
    let asked = choice(request, "ReturnConsumedCapacity", &["NONE", "TOTAL", "INDEXES"])?;
    if asked == "NONE" {
        return Ok(None);
    }
    let units = f64::from(u32::try_from(halves).unwrap_or(u32::MAX)) / 2.0;
    let mut message = json!({ "TableName": table, "CapacityUnits": units });
    if asked == "INDEXES" {
        message["Table"] = json!({ "CapacityUnits": if index.is_some() { 0.0 } else { units } });
        if let Some(index) = index {
            message["GlobalSecondaryIndexes"] = json!({ index: { "CapacityUnits": units } });
        }
    }
    Ok(Some(message))
}

impl State {
    /// The table, if it is ready.
    pub(super) fn table(&self, name: &str) -> Result<&Table, Refused> {
        let found = self.tables.get(name).filter(|table| table.active_from_ms <= self.now_ms);
        found.ok_or_else(|| super::error::not_found("Requested resource not found"))
    }
}
