//! A compiled definition: every path and rule is resolved once, before the first record.
//!
//! A plan has two parts. The **fields** are a tree of the keys that the dataset reads; walking a record along this tree
//! fills one **slot** for each value. The **columns** say how slots become values of the file, in the order of the file.

use std::collections::HashMap;

use crate::definition::Digits;
use crate::leaf::Leaf;
use crate::time::TimeFormat;

/// The most keys of one object that a definition may name.
pub(crate) const FIELDS_MAX: usize = 256;

/// A compiled dataset.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    /// Ways to recognize a record of the dataset.
    pub(crate) ways: Vec<Way>,
    pub(crate) record: Node,
    /// The number of slots of a record.
    pub(crate) slots: usize,
    pub(crate) event_time: Time,
    pub(crate) not_before_us: i64,
    pub(crate) not_after_us: i64,
    pub(crate) ahead_max_us: i64,
    pub(crate) arrival_time: Option<Time>,
    pub(crate) columns: Vec<Column>,
    pub(crate) partitions: Vec<Partition>,
}

/// Conditions that all hold for a record of the dataset.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) present: Vec<Vec<String>>,
    pub(crate) absent: Vec<Vec<String>>,
    pub(crate) equals: Vec<(Vec<String>, Vec<String>)>,
}

/// A time: its slot and its format.
#[derive(Debug)]
pub(crate) struct Time {
    pub(crate) slot: usize,
    pub(crate) format: TimeFormat,
}

/// An object, with those of its keys that are read.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) fields: HashMap<String, Field>,
    pub(crate) others: Others,
}

/// A key of an object.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its number in the object, to find duplicates.
    pub(crate) number: usize,
    pub(crate) read: Read,
}

/// What is read at a key.
#[derive(Debug)]
pub(crate) enum Read {
    /// Nothing; the key is only known.
    Nothing,
    Scalars(Vec<(usize, Input)>),
    /// Whether a value of a wrong type is null, if fields inside it are read too.
    Json(usize, bool),
    List(usize, Input),
    /// A list of objects. Each element fills `width` slots of its own.
    Objects {
        slot: usize,
        element: Node,
        width: usize,
        is_lenient: bool,
    },
    Object(Box<Object>),
}

/// How an object is read.
#[derive(Debug, Default)]
pub(crate) struct Object {
    pub(crate) node: Node,
    /// The slot that is filled if the object is present.
    pub(crate) presence: Option<usize>,
    /// The slot for the object's text.
    pub(crate) json: Option<usize>,
    /// Whether a column of the object itself rejects a value of a wrong type.
    pub(crate) is_strict: bool,
    /// Whether it may be inside a string.
    pub(crate) embedded: bool,
}

/// What happens to keys that are not among an object's fields.
#[derive(Debug, Default)]
pub(crate) enum Others {
    #[default]
    Ignored,
    /// Collected as JSON.
    Collected { slot: usize, allow: Allow },
    /// The entries of a map.
    Map { slot: usize, value: Input, of_lists: bool, allow: Allow },
}

/// How a scalar is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) kind: InputKind,
    /// Whether a number or boolean may be a string.
    pub(crate) accept_text: bool,
    /// Whether a text may be a number, or a boolean.
    pub(crate) accept_number: bool,
    pub(crate) accept_bool: bool,
    /// Whether a decimal is rounded.
    pub(crate) round: bool,
    /// Whether a value that does not fit is null.
    pub(crate) is_lenient: bool,
}

impl Read {
    /// Whether a value of a wrong type is null.
    pub(crate) fn is_lenient(&self) -> bool {
        match self {
            Read::Nothing => true,
            Read::Scalars(inputs) => inputs.iter().all(|(_, input)| input.is_lenient),
            Read::Json(_, is_lenient) | Read::Objects { is_lenient, .. } => *is_lenient,
            Read::List(_, input) => input.is_lenient,
            Read::Object(object) => {
                !object.is_strict && object.node.fields.values().all(|field| field.read.is_lenient())
            }
        }
    }
}

/// The JSON type of a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputKind {
    Text,
    Int,
    Float,
    /// A number or its text.
    Decimal(Digits),
    Bool,
}

/// Allowed keys: whole keys, and prefixes such as `sms_*`.
#[derive(Debug)]
pub(crate) struct Allow(Vec<String>);

impl Allow {
    pub(crate) fn new(keys: Vec<String>) -> Self {
        Allow(keys)
    }

    pub(crate) fn allows(&self, key: &str) -> bool {
        self.0.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(begin) => key.starts_with(begin),
            None => key == allowed,
        })
    }
}

/// A column.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) source: Source,
    /// False for partition columns.
    pub(crate) in_file: bool,
}

/// Where a column's values come from.
#[derive(Debug)]
pub(crate) enum Source {
    Scalar(usize, Leaf),
    List(usize, Leaf),
    Map(usize, Leaf),
    MapOfLists(usize, Leaf),
    Objects { slot: usize, required: bool, members: Vec<(String, Leaf)> },
    Struct { presence: usize, required: bool, members: Vec<(String, usize, Leaf)> },
    Json { slot: usize, required: bool },
    EventTime(TimePart),
    ArrivalTime { as_date: bool },
    Stream,
    Shard,
    Sequence,
    SubSequence,
}

/// The part of the event time that a column has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimePart {
    Instant,
    Date,
    Year,
    Month,
    Day,
    Hour,
}

/// A partition column.
#[derive(Debug)]
pub(crate) enum Partition {
    Year,
    Month,
    Day,
    /// The text of the column with this number.
    Text(usize),
}

impl Node {
    /// Adds what is read at a path. Two readings of one field must be compatible.
    pub(crate) fn plant(&mut self, path: &[String], read: Read) -> Result<(), String> {
        let [key, below @ ..] = path else { return Err("an empty path".to_owned()) };
        let number = self.fields.len();
        if number == FIELDS_MAX {
            return Err(format!("'{key}' is one of more than {FIELDS_MAX} keys of its object"));
        }
        let field = self.fields.entry(key.clone()).or_insert(Field { number, read: Read::Nothing });
        let old = std::mem::replace(&mut field.read, Read::Nothing);
        field.read = if below.is_empty() {
            merge(old, read).ok_or_else(|| format!("'{key}' is read in two ways"))?
        } else {
            let Some(Read::Object(mut object)) = merge(old, Read::Object(Box::default())) else {
                return Err(format!("'{key}' is read as an object and otherwise"));
            };
            object.node.plant(below, read)?;
            Read::Object(object)
        };
        Ok(())
    }
}

fn merge(old: Read, new: Read) -> Option<Read> {
    Some(match (old, new) {
        (Read::Nothing, read) | (read, Read::Nothing) => read,
        (Read::Scalars(old), Read::Scalars(new)) => Read::Scalars([old, new].concat()),
        (Read::Json(slot, is_lenient), Read::Object(mut object))
        | (Read::Object(mut object), Read::Json(slot, is_lenient)) => {
            object.json = Some(slot);
            object.is_strict |= !is_lenient;
            Read::Object(object)
        }
        (Read::Object(mut old), Read::Object(new)) => {
            old.presence = old.presence.or(new.presence);
            old.embedded |= new.embedded;
            old.is_strict |= new.is_strict;
            if !matches!(new.node.others, Others::Ignored) {
                old.node.others = new.node.others;
            }
            Read::Object(old)
        }
        _ => return None,
    })
}
