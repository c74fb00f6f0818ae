//! Conditions and updates in the form that is older than expressions; the Kinesis Client Library still uses it.
//!
//! Owns: `Expected`, `KeyConditions`, `QueryFilter`, `ScanFilter`, `AttributeUpdates` and `AttributesToGet`, translated into
//! the trees of `expression`. Does not own: the meaning of those trees.

use serde_json::{Map, Value as Json};

use super::error::{Refused, serialization, validation};
use super::expression::{Comparator, Condition, Operand, Path, Term, Update};
use super::value::Value;

type Request = Map<String, Json>;

/// Refuses old and new parameters in one request.
///
/// # Errors
/// If the request has both kinds.
pub(super) fn not_both(request: &Request, old: &[&str], new: &[&str]) -> Result<(), Refused> {
    let given = |names: &[&str]| -> Vec<String> {
        names.iter().filter(|name| request.contains_key(**name)).map(|name| (*name).to_owned()).collect()
    };
    let (old, new) = (given(old), given(new));
    if old.is_empty() || new.is_empty() {
        return Ok(());
    }
    Err(validation(format!(
        "Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {{{}}} \
         Expression parameters: {{{}}}",
        old.join(", "),
        new.join(", ")
    )))
}

/// Parses a map of conditions.
///
/// # Errors
/// If one of them is invalid.
pub(super) fn conditions(request: &Request, parameter: &str) -> Result<Option<Condition>, Refused> {
    let Some(given) = request.get(parameter).filter(|given| !given.is_null()) else { return Ok(None) };
    let given = given.as_object().ok_or_else(|| serialization("Expected a map"))?;
    let any = request.get("ConditionalOperator").and_then(Json::as_str) == Some("OR");
    let mut all: Option<Condition> = None;
    for (name, expected) in given {
        let one = condition(name, expected)?;
        all = Some(match all {
            None => one,
            Some(all) if any => Condition::Or(Box::new(all), Box::new(one)),
            Some(all) => Condition::And(Box::new(all), Box::new(one)),
        });
    }
    Ok(all)
}

fn condition(name: &str, expected: &Json) -> Result<Condition, Refused> {
    let path = Path::attribute(name);
    let values = match expected.get("AttributeValueList").and_then(Json::as_array) {
        Some(list) => list.iter().map(Value::from_json).collect::<Result<Vec<_>, _>>()?,
        None => Vec::new(),
    };
    let Some(operator) = expected.get("ComparisonOperator").and_then(Json::as_str) else {
        let value = expected.get("Value").filter(|value| !value.is_null()).map(Value::from_json).transpose()?;
        let exists = expected.get("Exists").and_then(Json::as_bool);
        return match (exists, value) {
            (Some(false), None) => Ok(Condition::Missing(path)),
            (Some(false), Some(_)) => Err(validation(format!(
                "One or more parameter values were invalid: Value cannot be used when Exists is false for Attribute: {name}"
            ))),
            (_, Some(value)) => Ok(Condition::Compare(Comparator::Equal, Operand::Path(path), Operand::Value(value))),
            (exists, None) => Err(validation(format!(
                "One or more parameter values were invalid: Value must be provided when Exists is {} for Attribute: {name}",
                exists.map_or("null".to_owned(), |exists| exists.to_string())
            ))),
        };
    };
    let wrong_count = || {
        validation(format!(
            "One or more parameter values were invalid: Invalid number of argument(s) for the {operator} ComparisonOperator"
        ))
    };
    let path_operand = Operand::Path(path.clone());
    let mut operands = values.into_iter().map(Operand::Value);
    let (first, second) = (operands.next(), operands.next());
    let compare = |comparator| match (first.clone(), &second) {
        (Some(value), None) => Ok(Condition::Compare(comparator, path_operand.clone(), value)),
        _ => Err(wrong_count()),
    };
    match operator {
        "EQ" => compare(Comparator::Equal),
        "NE" => compare(Comparator::Unequal),
        "LT" => compare(Comparator::Less),
        "LE" => compare(Comparator::LessOrEqual),
        "GT" => compare(Comparator::Greater),
        "GE" => compare(Comparator::GreaterOrEqual),
        "NULL" | "NOT_NULL" if first.is_some() => Err(wrong_count()),
        "NULL" => Ok(Condition::Missing(path)),
        "NOT_NULL" => Ok(Condition::Exists(path)),
        "BETWEEN" => match (first, second, operands.next()) {
            (Some(low), Some(high), None) => Ok(Condition::Between(path_operand, low, high)),
            _ => Err(wrong_count()),
        },
        "IN" if first.is_some() => {
            Ok(Condition::In(path_operand, first.into_iter().chain(second).chain(operands).collect()))
        }
        "BEGINS_WITH" | "CONTAINS" | "NOT_CONTAINS" => match (first, second) {
            (Some(value), None) => Ok(match operator {
                "BEGINS_WITH" => Condition::BeginsWith(path_operand, value),
                "CONTAINS" => Condition::Contains(path_operand, value),
                _ => Condition::Not(Box::new(Condition::Contains(path_operand, value))),
            }),
            _ => Err(wrong_count()),
        },
        "IN" => Err(wrong_count()),
        _ => Err(validation(format!("Unsupported ComparisonOperator: {operator}"))),
    }
}

/// Parses `AttributeUpdates`.
///
/// # Errors
/// If one of them is invalid.
pub(super) fn updates(request: &Request) -> Result<Option<Update>, Refused> {
    let Some(given) = request.get("AttributeUpdates").filter(|given| !given.is_null()) else { return Ok(None) };
    let given = given.as_object().ok_or_else(|| serialization("Expected a map"))?;
    let mut update = Update::default();
    for (name, change) in given {
        let path = Path::attribute(name);
        let value = change.get("Value").filter(|value| !value.is_null()).map(Value::from_json).transpose()?;
        let action = change.get("Action").and_then(Json::as_str).unwrap_or("PUT");
        let is_set = matches!(value, Some(Value::Ss(_) | Value::Ns(_) | Value::Bs(_)));
        match (action, value) {
            ("PUT", Some(value)) => update.set.push((path, Term::Value(value))),
            ("DELETE", None) => update.remove.push(path),
            ("DELETE", Some(value)) if is_set => update.delete.push((path, value)),
            ("ADD", Some(value @ Value::N(_))) => update.add.push((path, value)),
            ("ADD", Some(value)) if is_set => update.add.push((path, value)),
            ("ADD", Some(value @ Value::L(_))) => {
                let before = Term::IfNotExists(path.clone(), Box::new(Term::Value(Value::L(Vec::new()))));
                update.set.push((path, Term::ListAppend(Box::new(before), Box::new(Term::Value(value)))));
            }
            ("PUT" | "ADD", None) => {
                return Err(validation(
                    "One or more parameter values were invalid: Only DELETE action is allowed when no attribute value is \
                     specified",
                ));
            }
            (_, Some(value)) => {
                return Err(validation(format!(
                    "One or more parameter values were invalid: {action} action is not supported for the type {}",
                    value.type_name()
                )));
            }
            (_, None) => return Err(validation(format!("Unsupported Action: {action}"))),
        }
    }
    Ok(Some(update))
}

/// Parses `AttributesToGet`.
pub(super) fn projection(request: &Request) -> Option<Vec<Path>> {
    let names = request.get("AttributesToGet")?.as_array()?;
    Some(names.iter().filter_map(Json::as_str).map(Path::attribute).collect())
}
