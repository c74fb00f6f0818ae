//! A definition compiled: what the scanner walks and what the columns are made of.
//!
//! Owns: the types of the decode tree, of the inputs, shapes and leaves. Does not own: making them (`compile`), scanning,
//! values, files.
//!
//! - An **input** is a field of the record as the scanner stores it. Two columns that read the same field share its input.
//! - A **shape** is a list, map or struct. The scanner stores how many elements of it a record has.
//! - A **leaf** is one column of values in the file, with its source, checks and rule.

use std::sync::Arc;

use crate::dataset::definition::TimePart;
use crate::dataset::input_kind::{InputKind, Reading};
use crate::dataset::keys::{AllowList, KeyIndex, Literal};
use crate::dataset::lookup::LookupTable;
use crate::dataset::pattern::Pattern;
use crate::dataset::rule::Rule;
use crate::dataset::time_format::TimeFormat;
use crate::dataset::types::{Physical, ScalarType};

/// Number of a [`Node`] in its plan; 0 is the record itself.
pub(crate) type NodeId = usize;
/// Number of an [`Input`] in its plan.
pub(crate) type InputId = usize;
/// Number of a [`Shape`] in its plan.
pub(crate) type ShapeId = usize;
/// Number of a [`Leaf`] in its plan.
pub(crate) type LeafId = usize;

/// A compiled dataset.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: Arc<str>,
    pub(crate) version: String,
    pub(crate) nodes: Vec<Node>,
    pub(crate) inputs: Vec<Input>,
    pub(crate) shapes: Vec<Shape>,
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) columns: Vec<PlannedColumn>,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) event_time: EventTimeInput,
    pub(crate) arrival_time: Option<(InputId, TimeFormat)>,
    pub(crate) lookups: Vec<PlannedLookup>,
}

impl Plan {
    /// The rules that the plan's columns are anonymized by, each once; for the graph.
    pub(crate) fn rules(&self) -> Vec<&'static str> {
        let mut rules = Vec::new();
        for leaf in &self.leaves {
            let Some(rule) = leaf.rule.as_ref().map(Rule::label) else { continue };
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        rules
    }

    /// The JSON Pointer of the field that caused a rejection; of a computed column, its name.
    pub(crate) fn pointer_of(&self, spot: Spot) -> Option<String> {
        match spot {
            Spot::Record => None,
            Spot::Input(input) => Some(self.inputs[input].pointer.clone()),
            Spot::Entry(input, entry) => Some(self.inputs[input].pointer_of_entry(entry)),
            Spot::Field(node, field) => Some(self.nodes[node].fields[field].pointer.clone()),
            Spot::Node(node) => Some(self.nodes[node].pointer.clone()).filter(|pointer| !pointer.is_empty()),
            Spot::Shape(shape) => Some(self.shapes[shape].pointer.clone()),
            Spot::Leaf(leaf) => Some(match self.leaves[leaf].source {
                LeafSource::Input(input) => self.inputs[input].pointer.clone(),
                _ => self.leaves[leaf].name.clone(),
            }),
        }
    }
}

/// The part of a record that caused a rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spot {
    Record,
    Input(InputId),
    /// A value of a map: its input, and which entry of the allow-list its key is.
    Entry(InputId, usize),
    /// A field of a node.
    Field(NodeId, usize),
    Node(NodeId),
    Shape(ShapeId),
    Leaf(LeafId),
}

/// An object of the record, with the fields that the dataset reads.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// The object's JSON Pointer, for messages.
    pub(crate) pointer: String,
    pub(crate) fields: Vec<Field>,
    pub(crate) keys: KeyIndex,
    pub(crate) unknown: Unknown,
}

/// What becomes of an object's keys that are not among its fields.
#[derive(Debug, Default)]
pub(crate) enum Unknown {
    /// Checked for form only.
    #[default]
    Skip,
    /// Key and JSON text are collected, if the key is on the list.
    Collect { input: InputId, allow: AllowList },
    /// They are the elements of a map, if the key is on the list.
    Map(MapInputs),
}

/// A map's inputs.
#[derive(Debug)]
pub(crate) struct MapInputs {
    pub(crate) shape: ShapeId,
    pub(crate) key: InputId,
    pub(crate) value: InputId,
    /// The lists that are the map's values; `None`: the values are scalars.
    pub(crate) lists: Option<ShapeId>,
    pub(crate) allow: AllowList,
}

impl Node {
    /// Keys of one object that a plan may know. The scanner keeps a bit for each, to find duplicates.
    pub(crate) const FIELDS_MAX: usize = 256;
}

/// A key of an object.
#[derive(Debug)]
pub(crate) struct Field {
    /// The field's JSON Pointer, for messages.
    pub(crate) pointer: String,
    pub(crate) plain: Literal,
    pub(crate) escaped: Literal,
    /// Whether only other datasets read it, to recognize their records. Then it never causes a rejection.
    pub(crate) foreign: bool,
    /// Whether a value of a wrong type, such as a text for an object, makes null of all that is read in it.
    pub(crate) is_lenient: bool,
    /// Bits that its presence sets, for recognizing the dataset.
    pub(crate) marker: u64,
    /// Bits that a certain string value sets.
    pub(crate) equals: Vec<(Box<[u8]>, u64)>,
    pub(crate) action: Action,
}

/// What the scanner does with a field's value.
#[derive(Debug)]
pub(crate) enum Action {
    /// Checked for form only.
    Skip,
    /// A scalar: stored for each of these inputs.
    Take(Vec<InputId>),
    /// An object to be entered. It is also stored as JSON text (`json`) and as the presence of a struct (`shape`). If
    /// `embedded`, it may come as a string that holds the object's JSON.
    Object { node: NodeId, shape: Option<ShapeId>, json: Option<InputId>, embedded: bool },
    /// Any value, stored as its JSON text.
    Json(InputId),
    /// If it is an object, other datasets read fields in it, to recognize their records. This one does `otherwise`.
    Marked { node: NodeId, otherwise: Box<Action> },
    /// An array of scalars.
    List { shape: ShapeId, element: InputId },
    /// An array of objects.
    Objects { shape: ShapeId, node: NodeId },
}

/// A field as the scanner stores it.
#[derive(Debug)]
pub(crate) struct Input {
    /// JSON Pointer, for messages. For a list's element it is the list's pointer, `/*`, and the pointer in the element.
    pub(crate) pointer: String,
    pub(crate) kind: InputKind,
    pub(crate) reading: Reading,
    /// The list or map whose elements these are; `None`: one for each record.
    pub(crate) shape: Option<ShapeId>,
    /// For the values of a map, the entries of its allow-list, for messages.
    pub(crate) entries: Vec<String>,
}

impl Input {
    /// Whether one value can be read as this input and as another one.
    pub(crate) fn goes_with(&self, other: &Input) -> bool {
        // A text that holds a number is read as both where the definition accepts it.
        let text_and = |one: &Input, other: &Input| {
            let as_text = match other.kind {
                InputKind::Bool => one.reading.accept_bool,
                _ => one.reading.accept_number,
            };
            one.kind == InputKind::Text && (other.reading.accept_text || as_text)
        };
        self.kind.goes_with(other.kind) || text_and(self, other) || text_and(other, self)
    }

    /// The pointer of a value of a map: it ends in the key, or the prefix of keys, that the definition lists. A key that
    /// the definition does not name is never a part of it.
    fn pointer_of_entry(&self, entry: usize) -> String {
        let entry = self.entries.get(entry).map_or("*", String::as_str);
        format!("{}/{}", self.pointer, entry.replace('~', "~0").replace('/', "~1"))
    }
}

/// A list, map or struct.
#[derive(Debug)]
pub(crate) struct Shape {
    /// JSON Pointer, for messages.
    pub(crate) pointer: String,
    pub(crate) kind: ShapeKind,
    /// The map whose values these lists are; `None`: a record has at most one.
    pub(crate) within: Option<ShapeId>,
    /// Whether every record must have it.
    pub(crate) required: bool,
    /// Whether one of a wrong type is null, and does not reject the record.
    pub(crate) is_lenient: bool,
}

/// What kind of shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShapeKind {
    /// Elements that repeat: a list of scalars or a map.
    Repeated,
    /// Structs that repeat: a list of structs, each of which may be null.
    Objects,
    /// A struct, which is present or not.
    Struct,
}

/// A column as a user sees it.
#[derive(Debug)]
pub(crate) struct PlannedColumn {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) data_type: ColumnType,
    pub(crate) in_file: bool,
}

/// A column's type as files, catalogues and people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ColumnType {
    Scalar(ScalarType),
    List(Box<ColumnType>),
    Map(Box<ColumnType>),
    Struct(Vec<(String, ColumnType)>),
}

/// One column of values in the file.
#[derive(Debug)]
pub(crate) struct Leaf {
    /// Dotted name, for messages and statistics.
    pub(crate) name: String,
    pub(crate) source: LeafSource,
    pub(crate) nest: Nest,
    pub(crate) data_type: ScalarType,
    /// How its values are kept and written; it follows from the type.
    pub(crate) physical: Physical,
    /// Whether its values hardly repeat, so that a dictionary is not worth it.
    pub(crate) unique: bool,
    /// Whether it is a column of the file; a partition column is only in the path.
    pub(crate) in_file: bool,
    pub(crate) required: bool,
    pub(crate) checks: Checks,
    /// Whether a value that breaks a constraint is null, and does not reject the record.
    pub(crate) is_lenient: bool,
    /// The rule for personal values.
    pub(crate) rule: Option<Rule>,
}

impl Leaf {
    /// Whether its values are pseudonyms.
    pub(crate) fn is_pseudonym(&self) -> bool {
        matches!(self.rule, Some(Rule::Pseudonym))
    }
}

/// Where a leaf's values come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeafSource {
    Input(InputId),
    EventTime(TimePart),
    ArrivalTime,
    Stream,
    Shard,
    Sequence,
    SubSequence,
    /// A column of a lookup table, in the row that the joined value has.
    Lookup {
        lookup: usize,
        column: usize,
    },
}

/// How a leaf is nested in its column, which decides its levels in Parquet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nest {
    /// Optional unless `required`.
    Flat,
    /// A field of an optional struct.
    InStruct(ShapeId),
    /// An element of a list of scalars: optional.
    Element(ShapeId),
    /// A field of the structs of a list: optional, as the structs are.
    InElement(ShapeId),
    /// The key of a map: required.
    MapKey(ShapeId),
    /// The value of a map: optional.
    MapValue(ShapeId),
    /// An element of the lists that are the values of a map: optional, as the lists are.
    MapListElement { map: ShapeId, lists: ShapeId },
}

impl Nest {
    /// The list, map or struct that the leaf is a part of.
    pub(crate) fn shape(self) -> Option<ShapeId> {
        match self {
            Nest::InStruct(shape) => Some(shape),
            other => other.repeated(),
        }
    }

    /// The repeated shape whose elements the leaf's values are.
    pub(crate) fn repeated(self) -> Option<ShapeId> {
        match self {
            Nest::Flat | Nest::InStruct(_) => None,
            Nest::Element(shape) | Nest::InElement(shape) | Nest::MapKey(shape) | Nest::MapValue(shape) => Some(shape),
            Nest::MapListElement { lists, .. } => Some(lists),
        }
    }
}

/// Constraints on a value as it arrives, before a rule changes it.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    /// The first and the last time that are accepted: microseconds of a timestamp, days of a date.
    pub(crate) times: Option<(i64, i64)>,
    pub(crate) text: Option<TextChecks>,
}

/// Constraints on a string.
#[derive(Debug)]
pub(crate) struct TextChecks {
    /// Lengths in Unicode characters.
    pub(crate) min_length: usize,
    pub(crate) max_length: usize,
    pub(crate) one_of: Option<Vec<Box<[u8]>>>,
    pub(crate) pattern: Option<Pattern>,
}

/// A partition column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Partition {
    Year,
    Month,
    Day,
    /// The values of a text leaf.
    Text {
        name: String,
        leaf: LeafId,
    },
}

impl Partition {
    /// Text columns that a dataset may be partitioned by.
    pub(crate) const TEXTS_MAX: usize = 8;

    pub(crate) fn name(&self) -> &str {
        match self {
            Partition::Year => "year",
            Partition::Month => "month",
            Partition::Day => "day",
            Partition::Text { name, .. } => name,
        }
    }
}

/// The event time's input and bounds.
#[derive(Debug)]
pub(crate) struct EventTimeInput {
    pub(crate) input: InputId,
    pub(crate) format: TimeFormat,
    pub(crate) not_before_ms: i64,
    /// The last plausible millisecond; the greatest number if there is no such bound.
    pub(crate) not_after_ms: i64,
    pub(crate) ahead_max_ms: i64,
}

/// A lookup with its table.
#[derive(Debug)]
pub(crate) struct PlannedLookup {
    pub(crate) name: String,
    pub(crate) on: LeafId,
    pub(crate) reject_missing: bool,
    pub(crate) table: LookupTable,
}
