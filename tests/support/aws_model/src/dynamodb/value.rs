//! Attribute values: their JSON form, their size, their types.
//!
//! Owns: `{"S": "x"}` ↔ [`Value`], with what DynamoDB refuses (empty sets, duplicates in sets, invalid numbers, two
//! types in one value), and sizes as DynamoDB counts them. Does not own: which values a key may have (`table`).
//!
//! Limits: nesting of 32 levels.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};

use super::error::{Refused, serialization, validation};
use super::number::Number;

/// An item, or the content of a map.
pub type Item = BTreeMap<String, Value>;

/// The deepest nesting of a value.
const NESTING_MAX: usize = 32;

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string.
    S(String),
    /// A number.
    N(Number),
    /// Bytes.
    B(Vec<u8>),
    /// A boolean.
    Bool(bool),
    /// Null.
    Null,
    /// A map.
    M(Item),
    /// A list.
    L(Vec<Value>),
    /// A set of strings.
    Ss(BTreeSet<String>),
    /// A set of numbers.
    Ns(BTreeSet<Number>),
    /// A set of bytes.
    Bs(BTreeSet<Vec<u8>>),
}

impl Value {
    /// The type in requests: `S`, `SS`, `BOOL`, …
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::S(_) => "S",
            Self::N(_) => "N",
            Self::B(_) => "B",
            Self::Bool(_) => "BOOL",
            Self::Null => "NULL",
            Self::M(_) => "M",
            Self::L(_) => "L",
            Self::Ss(_) => "SS",
            Self::Ns(_) => "NS",
            Self::Bs(_) => "BS",
        }
    }

    /// The type in messages about update expressions: `STRING`, `LIST`, …
    pub fn long_type_name(&self) -> &'static str {
        match self {
            Self::S(_) => "STRING",
            Self::N(_) => "NUMBER",
            Self::B(_) => "BINARY",
            Self::Bool(_) => "BOOLEAN",
            Self::Null => "NULL",
            Self::M(_) => "MAP",
            Self::L(_) => "LIST",
            Self::Ss(_) => "STRING_SET",
            Self::Ns(_) => "NUMBER_SET",
            Self::Bs(_) => "BINARY_SET",
        }
    }

    /// Parses a value of a request.
    ///
    /// # Errors
    /// If DynamoDB refuses it.
    pub fn from_json(json: &Json) -> Result<Self, Refused> {
        Self::read(json, 0)
    }

    fn read(json: &Json, depth: usize) -> Result<Self, Refused> {
        if depth > NESTING_MAX {
            return Err(validation("Nesting Levels have exceeded supported limits"));
        }
        let fields =
            json.as_object().ok_or_else(|| serialization("Start of structure or map found where not expected"))?;
        let mut typed = fields.iter().filter(|(_, value)| !value.is_null());
        let (Some((kind, value)), another) = (typed.next(), typed.next()) else {
            return Err(validation(
                "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes",
            ));
        };
        if another.is_some() {
            return Err(validation(
                "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported \
                 datatypes",
            ));
        }
        Ok(match kind.as_str() {
            "S" => Self::S(text(value)?.to_owned()),
            "N" => Self::N(number(value)?),
            "B" => Self::B(binary(value)?),
            "BOOL" => Self::Bool(value.as_bool().ok_or_else(|| serialization("Expected a boolean"))?),
            "NULL" if value.as_bool() == Some(true) => Self::Null,
            "NULL" => {
                return Err(validation(
                    "One or more parameter values were invalid: Null attribute value types must have the value of true",
                ));
            }
            "M" => Self::M(read_item(value, depth + 1)?),
            "L" => Self::L(list(value)?.iter().map(|value| Self::read(value, depth + 1)).collect::<Result<_, _>>()?),
            "SS" => Self::Ss(set(value, "string", |value| text(value).map(str::to_owned))?),
            "NS" => Self::Ns(set(value, "number", number)?),
            "BS" => Self::Bs(set(value, "binary", binary)?),
            _ => {
                return Err(validation(
                    "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes",
                ));
            }
        })
    }

    /// The value for an answer.
    pub fn to_json(&self) -> Json {
        match self {
            Self::S(text) => json!({ "S": text }),
            Self::N(number) => json!({ "N": number.to_string() }),
            Self::B(bytes) => json!({ "B": STANDARD.encode(bytes) }),
            Self::Bool(value) => json!({ "BOOL": value }),
            Self::Null => json!({ "NULL": true }),
            Self::M(item) => json!({ "M": item_to_json(item) }),
            Self::L(values) => json!({ "L": values.iter().map(Self::to_json).collect::<Vec<_>>() }),
            Self::Ss(set) => json!({ "SS": set }),
            Self::Ns(set) => json!({ "NS": set.iter().map(ToString::to_string).collect::<Vec<_>>() }),
            Self::Bs(set) => json!({ "BS": set.iter().map(|bytes| STANDARD.encode(bytes)).collect::<Vec<_>>() }),
        }
    }

    /// The bytes that the value adds to an item's size.
    pub fn size(&self) -> usize {
        match self {
            Self::S(text) => text.len(),
            Self::N(number) => number.size(),
            Self::B(bytes) => bytes.len(),
            Self::Bool(_) | Self::Null => 1,
            Self::M(item) => 3 + item_size(item) + item.len(),
            Self::L(values) => 3 + values.iter().map(|value| value.size() + 1).sum::<usize>(),
            Self::Ss(set) => set.iter().map(String::len).sum(),
            Self::Ns(set) => set.iter().map(Number::size).sum(),
            Self::Bs(set) => set.iter().map(Vec::len).sum(),
        }
    }
}

/// The bytes of an item: names and values.
pub fn item_size(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + value.size()).sum()
}

/// Parses an item.
///
/// # Errors
/// If a value is refused.
pub fn item_from_json(json: &Json) -> Result<Item, Refused> {
    read_item(json, 0)
}

fn read_item(json: &Json, depth: usize) -> Result<Item, Refused> {
    let fields = json.as_object().ok_or_else(|| serialization("Expected a map of attribute values"))?;
    fields.iter().map(|(name, value)| Ok((name.clone(), Value::read(value, depth)?))).collect()
}

/// The item for an answer.
pub fn item_to_json(item: &Item) -> Json {
    Json::Object(item.iter().map(|(name, value)| (name.clone(), value.to_json())).collect::<Map<_, _>>())
}

fn text(json: &Json) -> Result<&str, Refused> {
    json.as_str().ok_or_else(|| serialization("NUMBER_VALUE cannot be converted to String"))
}

fn number(json: &Json) -> Result<Number, Refused> {
    let text = text(json)?;
    Number::parse(text).map_err(|error| validation(error.message(text)))
}

fn binary(json: &Json) -> Result<Vec<u8>, Refused> {
    STANDARD.decode(text(json)?).map_err(|_| serialization("Base64 encoded length is expected a multiple of 4 bytes"))
}

fn list(json: &Json) -> Result<&Vec<Json>, Refused> {
    json.as_array().ok_or_else(|| serialization("Expected a list"))
}

fn set<T: Ord>(json: &Json, kind: &str, read: impl Fn(&Json) -> Result<T, Refused>) -> Result<BTreeSet<T>, Refused> {
    let values = list(json)?;
    if values.is_empty() {
        return Err(validation(format!("One or more parameter values were invalid: An {kind} set  may not be empty")));
    }
    let set: BTreeSet<T> = values.iter().map(read).collect::<Result<_, _>>()?;
    if set.len() < values.len() {
        return Err(validation(if kind == "number" {
            "Input collection contains duplicates".to_owned()
        } else {
            "One or more parameter values were invalid: Input collection contains duplicates.".to_owned()
        }));
    }
    Ok(set)
}
