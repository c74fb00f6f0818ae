//! Whether a condition holds for an item, and what a projection returns of one.
//!
//! Owns: comparing values. A missing attribute is equal to nothing and unequal to everything; values of different types
//! have no order. Does not own: legacy conditions (`legacy`), which are translated into these.

use std::cmp::Ordering;

use super::{Comparator, Condition, Operand, Path, Step};
use crate::dynamodb::number::Number;
use crate::dynamodb::value::{Item, Value};

/// The order of two values of one ordered type.
pub fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::S(left), Value::S(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
        (Value::N(left), Value::N(right)) => Some(left.cmp(right)),
        (Value::B(left), Value::B(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

/// Whether the condition holds; a missing item counts as an empty one.
pub fn holds(condition: &Condition, item: &Item) -> bool {
    match condition {
        Condition::Compare(comparator, left, right) => {
            compare(*comparator, value(left, item).as_ref(), value(right, item).as_ref())
        }
        Condition::Between(operand, low, high) => {
            let operand = value(operand, item);
            compare(Comparator::GreaterOrEqual, operand.as_ref(), value(low, item).as_ref())
                && compare(Comparator::LessOrEqual, operand.as_ref(), value(high, item).as_ref())
        }
        Condition::In(operand, among) => {
            let operand = value(operand, item);
            among.iter().any(|other| compare(Comparator::Equal, operand.as_ref(), value(other, item).as_ref()))
        }
        Condition::And(left, right) => holds(left, item) && holds(right, item),
        Condition::Or(left, right) => holds(left, item) || holds(right, item),
        Condition::Not(inner) => !holds(inner, item),
        Condition::Exists(path) => path.get(item).is_some(),
        Condition::Missing(path) => path.get(item).is_none(),
        Condition::IsType(path, name) => path.get(item).is_some_and(|value| value.type_name() == name),
        Condition::BeginsWith(operand, prefix) => match (value(operand, item), value(prefix, item)) {
            (Some(Value::S(text)), Some(Value::S(prefix))) => text.starts_with(&prefix),
            (Some(Value::B(bytes)), Some(Value::B(prefix))) => bytes.starts_with(&prefix),
            _ => false,
        },
        Condition::Contains(operand, part) => contains(value(operand, item).as_ref(), value(part, item).as_ref()),
    }
}

fn value(operand: &Operand, item: &Item) -> Option<Value> {
    match operand {
        Operand::Value(value) => Some(value.clone()),
        Operand::Path(path) => path.get(item).cloned(),
        Operand::Size(path) => {
            let size = match path.get(item)? {
                Value::S(text) => text.chars().count(),
                Value::B(bytes) => bytes.len(),
                Value::M(map) => map.len(),
                Value::L(list) => list.len(),
                Value::Ss(set) => set.len(),
                Value::Ns(set) => set.len(),
                Value::Bs(set) => set.len(),
                Value::N(_) | Value::Bool(_) | Value::Null => return None,
            };
            Some(Value::N(Number::from_count(size)))
        }
    }
}

fn compare(comparator: Comparator, left: Option<&Value>, right: Option<&Value>) -> bool {
    let (Some(left), Some(right)) = (left, right) else {
        return comparator == Comparator::Unequal;
    };
    match comparator {
        Comparator::Equal => left == right,
        Comparator::Unequal => left != right,
        Comparator::Less => order(left, right) == Some(Ordering::Less),
        Comparator::LessOrEqual => order(left, right).is_some_and(Ordering::is_le),
        Comparator::Greater => order(left, right) == Some(Ordering::Greater),
        Comparator::GreaterOrEqual => order(left, right).is_some_and(Ordering::is_ge),
    }
}

fn contains(whole: Option<&Value>, part: Option<&Value>) -> bool {
    match (whole, part) {
        (Some(Value::S(text)), Some(Value::S(part))) => text.contains(part.as_str()),
        (Some(Value::B(bytes)), Some(Value::B(part))) => {
            part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
        }
        (Some(Value::Ss(set)), Some(Value::S(part))) => set.contains(part),
        (Some(Value::Ns(set)), Some(Value::N(part))) => set.contains(part),
        (Some(Value::Bs(set)), Some(Value::B(part))) => set.contains(part),
        (Some(Value::L(list)), Some(part)) => list.contains(part),
        _ => false,
    }
}

/// The parts of an item at these paths: maps keep their shape, lists lose their gaps.
pub fn project(item: &Item, paths: &[Path]) -> Item {
    let paths: Vec<&[Step]> = paths.iter().map(Path::steps).collect();
    project_map(item, &paths)
}

fn project_map(map: &Item, paths: &[&[Step]]) -> Item {
    let mut projected = Item::new();
    for (name, value) in map {
        let below: Vec<&[Step]> = paths
            .iter()
            .filter(|path| matches!(path.first(), Some(Step::Attribute(first)) if first == name))
            .map(|path| &path[1..])
            .collect();
        if let Some(value) = project_value(value, &below) {
            projected.insert(name.clone(), value);
        }
    }
    projected
}

fn project_value(value: &Value, paths: &[&[Step]]) -> Option<Value> {
    if paths.is_empty() {
        return None;
    }
    if paths.iter().any(|path| path.is_empty()) {
        return Some(value.clone());
    }
    match value {
        Value::M(map) => Some(project_map(map, paths)).filter(|map| !map.is_empty()).map(Value::M),
        Value::L(list) => {
            let kept: Vec<Value> = list
                .iter()
                .enumerate()
                .filter_map(|(index, value)| {
                    let here = |path: &&&[Step]| path.first() == Some(&Step::Index(index));
                    let below: Vec<&[Step]> = paths.iter().filter(here).map(|path| &path[1..]).collect();
                    project_value(value, &below)
                })
                .collect();
            (!kept.is_empty()).then_some(Value::L(kept))
        }
        _ => None,
    }
}
