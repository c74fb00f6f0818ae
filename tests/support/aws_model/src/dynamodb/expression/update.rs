//! The effect of an update on an item.
//!
//! Owns: SET, REMOVE, ADD and DELETE. Every right-hand side uses the item as it was before. Does not own: whether the item may
//! be written (`write`), or its keys.

use super::{Kind, Path, Step, Term, Update};
use crate::dynamodb::error::{Refused, validation};
use crate::dynamodb::number::Number;
use crate::dynamodb::value::{Item, Value};

/// The item after the update.
///
/// # Errors
/// If the update does not fit the item.
pub fn apply(update: &Update, before: &Item) -> Result<Item, Refused> {
    let mut values = Vec::with_capacity(update.set.len());
    for (path, term) in &update.set {
        values.push((path, evaluate(term, before)?));
    }
    let mut item = before.clone();
    // Elements beyond a list's end are appended in the order of their indexes.
    values.sort_by_key(|(path, _)| match path.steps().last() {
        Some(Step::Index(index)) => *index,
        _ => 0,
    });
    for (path, value) in values {
        put(&mut item, path, value)?;
    }
    for (path, value) in &update.add {
        let sum = add(path.get(before), value)?;
        put(&mut item, path, sum)?;
    }
    for (path, value) in &update.delete {
        match subtract(path.get(before), value)? {
            Some(rest) => put(&mut item, path, rest)?,
            None => remove(&mut item, path)?,
        }
    }
    // From the back, so that the indexes of the other elements stay valid.
    let mut removed: Vec<&Path> = update.remove.iter().collect();
    removed.sort_by_key(|path| {
        std::cmp::Reverse(match path.steps().last() {
            Some(Step::Index(index)) => *index,
            _ => 0,
        })
    });
    for path in removed {
        remove(&mut item, path)?;
    }
    Ok(item)
}

fn evaluate(term: &Term, item: &Item) -> Result<Value, Refused> {
    match term {
        Term::Value(value) => Ok(value.clone()),
        Term::Path(path) => path.get(item).cloned().ok_or_else(|| {
            validation("The provided expression refers to an attribute that does not exist in the item")
        }),
        Term::IfNotExists(path, other) => match path.get(item) {
            Some(value) => Ok(value.clone()),
            None => evaluate(other, item),
        },
        Term::ListAppend(left, right) => match (evaluate(left, item)?, evaluate(right, item)?) {
            (Value::L(mut left), Value::L(right)) => {
                left.extend(right);
                Ok(Value::L(left))
            }
            _ => Err(wrong_type()),
        },
        Term::Plus(left, right) => sum(&evaluate(left, item)?, &evaluate(right, item)?, false),
        Term::Minus(left, right) => sum(&evaluate(left, item)?, &evaluate(right, item)?, true),
    }
}

fn wrong_type() -> Refused {
    validation("An operand in the update expression has an incorrect data type")
}

fn sum(left: &Value, right: &Value, minus: bool) -> Result<Value, Refused> {
    let (Value::N(left), Value::N(right)) = (left, right) else { return Err(wrong_type()) };
    let right = if minus { right.negated() } else { right.clone() };
    left.plus(&right).map(Value::N).map_err(|error| validation(error.message("")))
}

fn add(before: Option<&Value>, value: &Value) -> Result<Value, Refused> {
    match (before, value) {
        (None, Value::N(_)) => sum(&Value::N(Number::zero()), value, false),
        (None, set) => Ok(set.clone()),
        (Some(Value::N(_)), Value::N(_)) => sum(before.unwrap_or(value), value, false),
        (Some(Value::Ss(before)), Value::Ss(value)) => Ok(Value::Ss(before | value)),
        (Some(Value::Ns(before)), Value::Ns(value)) => Ok(Value::Ns(before | value)),
        (Some(Value::Bs(before)), Value::Bs(value)) => Ok(Value::Bs(before | value)),
        _ => Err(wrong_type()),
    }
}

/// The rest of a set; `None` if it is empty.
fn subtract(before: Option<&Value>, value: &Value) -> Result<Option<Value>, Refused> {
    let rest = match (before, value) {
        (None, _) => return Ok(None),
        (Some(Value::Ss(before)), Value::Ss(value)) => Value::Ss(before - value),
        (Some(Value::Ns(before)), Value::Ns(value)) => Value::Ns(before - value),
        (Some(Value::Bs(before)), Value::Bs(value)) => Value::Bs(before - value),
        _ => return Err(wrong_type()),
    };
    let empty = match &rest {
        Value::Ss(set) => set.is_empty(),
        Value::Ns(set) => set.is_empty(),
        Value::Bs(set) => set.is_empty(),
        _ => false,
    };
    Ok((!empty).then_some(rest))
}

fn invalid_path() -> Refused {
    validation("The document path provided in the update expression is invalid for update")
}

/// The container of the last step of a path.
enum Parent<'a> {
    Map(&'a mut Item, &'a str),
    List(&'a mut Vec<Value>, usize),
}

fn parent<'a>(item: &'a mut Item, path: &'a Path) -> Result<Parent<'a>, Refused> {
    let Some((last, before)) = path.steps().split_last() else {
        return Err(Kind::Update.invalid("an empty path"));
    };
    let mut map: Option<&mut Item> = Some(item);
    let mut list: Option<&mut Vec<Value>> = None;
    for step in before {
        let next = match step {
            Step::Attribute(name) => map.take().and_then(|map| map.get_mut(name)),
            Step::Index(index) => list.take().and_then(|list| list.get_mut(*index)),
        };
        match next {
            Some(Value::M(inner)) => map = Some(inner),
            Some(Value::L(inner)) => list = Some(inner),
            _ => return Err(invalid_path()),
        }
    }
    match (last, map, list) {
        (Step::Attribute(name), Some(map), _) => Ok(Parent::Map(map, name)),
        (Step::Index(index), _, Some(list)) => Ok(Parent::List(list, *index)),
        _ => Err(invalid_path()),
    }
}

fn put(item: &mut Item, path: &Path, value: Value) -> Result<(), Refused> {
    match parent(item, path)? {
        Parent::Map(map, name) => {
            map.insert(name.to_owned(), value);
        }
        Parent::List(list, index) => match list.get_mut(index) {
            Some(element) => *element = value,
            None => list.push(value),
        },
    }
    Ok(())
}

fn remove(item: &mut Item, path: &Path) -> Result<(), Refused> {
    match parent(item, path)? {
        Parent::Map(map, name) => {
            map.remove(name);
        }
        Parent::List(list, index) => {
            if index < list.len() {
                list.remove(index);
            }
        }
    }
    Ok(())
}
