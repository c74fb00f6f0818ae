//! Field ids: the numbers by which table formats know the fields of a dataset.
//!
//! Owns: numbering the fields of a schema, and the stored form of that numbering. Does not own: where it is stored (the
//! worker's `lake/schemas`), the Parquet schema that carries the ids (`encode::schema`).
//!
//! Iceberg finds a column in a file by its id, not by its name, so an id must never mean two things (Iceberg's spec,
//! "Schema Evolution" and "Column Projection"). Delta's column mapping uses the same ids. Parquet stores an id in each
//! `SchemaElement` (`field_id` in `parquet.thrift`).
//!
//! A **field** is a column, a list's element, a map's key or value, or a struct's member. It is identified by its name,
//! its type and the field that contains it. The rules:
//!
//! 1. A field keeps its id for ever, also if it disappears from the definition and comes back.
//! 2. A new field gets the next id above all that were ever assigned. A field whose type changes is a new field, and so
//!    is everything inside it.
//! 3. Nothing is ever removed, so no id is used twice.
//!
//! The type of a list or map includes the type of its elements: Iceberg cannot replace an element and keep its list.
//!
//! Stored form, JSON, the ids counting up from 1 without a gap:
//!
//! ```json
//! {"dataset":"orders","fields":[{"id":1,"name":"id","type":"string"},{"id":2,"name":"lines","type":"list<struct>"},
//!  {"id":3,"name":"element","parent":2,"type":"struct"},{"id":4,"name":"sku","parent":3,"type":"string"}],"format":1}
//! ```

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::dataset::plan::{ColumnType, PlannedColumn};
use crate::dataset::types::ScalarType;

/// The stored form that this version writes. It reads no other.
const FORMAT: u64 = 1;
/// The largest id: Iceberg reserves those above for its metadata columns (Iceberg's spec, "Reserved Field IDs").
const ID_MAX: usize = 2_147_483_447;

/// Every field that a dataset has ever had, with its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldIds {
    dataset: String,
    /// The field with id n is at n - 1.
    fields: Vec<Field>,
}

/// What identifies a field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Field {
    /// The id of the field that contains it.
    parent: Option<i32>,
    name: String,
    data_type: String,
}

/// Stored field ids that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidFieldIds(String);

impl FieldIds {
    /// The ids of a dataset that has none yet.
    pub fn new(dataset: impl Into<String>) -> Self {
        FieldIds { dataset: dataset.into(), fields: Vec::new() }
    }

    /// The dataset whose fields these are.
    pub fn dataset(&self) -> &str {
        &self.dataset
    }

    /// How many ids were assigned so far; the largest one.
    pub fn count(&self) -> usize {
        self.fields.len()
    }

    /// The ids of these columns and of everything inside them: each column before its children, in the order of the
    /// columns. New fields are added.
    pub(crate) fn assign(&mut self, columns: &[PlannedColumn]) -> Vec<i32> {
        let known = (1..).zip(&self.fields).map(|(id, field)| (field.clone(), id)).collect();
        let mut assignment = Assignment { fields: &mut self.fields, known, ids: Vec::new() };
        for column in columns {
            assignment.field(None, &column.name, &column.data_type);
        }
        assignment.ids
    }

    /// The dotted path and the type of every column and of every struct's field, in the order of their ids. A path occurs
    /// once for each type that it has had.
    pub(crate) fn paths(&self) -> Vec<(String, String)> {
        let mut paths: Vec<String> = Vec::with_capacity(self.fields.len());
        let mut named = Vec::new();
        for Field { parent, name, data_type } in &self.fields {
            let above = parent.and_then(|parent| usize::try_from(parent - 1).ok());
            // An element, a key or a value: the type of its list or map has it.
            let is_inside = above.is_some_and(|above| self.fields[above].data_type != "struct");
            let path = match above {
                None => name.clone(),
                Some(above) if is_inside => paths[above].clone(),
                Some(above) => format!("{}.{name}", paths[above]),
            };
            if !is_inside {
                named.push((path.clone(), data_type.clone()));
            }
            paths.push(path);
        }
        named
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let field = |(id, field): (usize, &Field)| {
            let mut object = Map::from_iter([("id".to_owned(), json!(id))]);
            if let Some(parent) = field.parent {
                object.insert("parent".to_owned(), json!(parent));
            }
            object.insert("name".to_owned(), json!(field.name));
            object.insert("type".to_owned(), json!(field.data_type));
            Value::Object(object)
        };
        let fields: Vec<Value> = (1..).zip(&self.fields).map(field).collect();
        format!("{}\n", json!({ "format": FORMAT, "dataset": self.dataset, "fields": fields })).into_bytes()
    }

    /// Reads the stored form of this dataset's ids.
    ///
    /// # Errors
    /// It is damaged, has another format, belongs to another dataset, or contradicts itself.
    pub fn from_bytes(dataset: &str, bytes: &[u8]) -> Result<Self, InvalidFieldIds> {
        let stored: Value = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if stored["format"] != FORMAT {
            let found = &stored["format"];
            return Err(invalid(format!("it has format {found}; this version reads format {FORMAT}")));
        }
        if stored["dataset"] != dataset {
            return Err(invalid(format!("it belongs to dataset {}, not to '{dataset}'", stored["dataset"])));
        }
        let entries = stored["fields"].as_array().ok_or_else(|| invalid("'fields' is not a list"))?;
        if entries.len() > ID_MAX {
            return Err(invalid("it has more fields than there are ids"));
        }
        let mut fields: Vec<Field> = Vec::with_capacity(entries.len());
        let mut ids = HashMap::new();
        for (entry, id) in entries.iter().zip(1_i32..) {
            let text = |key: &str| {
                let text = entry[key].as_str().map(str::to_owned);
                text.ok_or_else(|| invalid(format!("field {id}: '{key}' is not a string")))
            };
            let parent = match &entry["parent"] {
                Value::Null => None,
                parent => {
                    let number = parent.as_i64().and_then(|parent| i32::try_from(parent).ok());
                    let before = number.filter(|parent| (1..id).contains(parent));
                    let problem = || invalid(format!("field {id} is in field {parent}, which does not come before it"));
                    Some(before.ok_or_else(problem)?)
                }
            };
            if entry["id"] != id {
                return Err(invalid(format!("field {} is where field {id} must be", entry["id"])));
            }
            let field = Field { parent, name: text("name")?, data_type: text("type")? };
            if let Some(first) = ids.insert(field.clone(), id) {
                return Err(invalid(format!("field {id} is the same as field {first}")));
            }
            fields.push(field);
        }
        Ok(FieldIds { dataset: dataset.to_owned(), fields })
    }
}

/// One run of [`FieldIds::assign`].
struct Assignment<'f> {
    fields: &'f mut Vec<Field>,
    known: HashMap<Field, i32>,
    ids: Vec<i32>,
}

impl Assignment<'_> {
    fn field(&mut self, parent: Option<i32>, name: &str, data_type: &ColumnType) {
        let field = Field { parent, name: name.to_owned(), data_type: type_name(data_type) };
        let id = *self.known.entry(field).or_insert_with_key(|field| {
            self.fields.push(field.clone());
            assert!(self.fields.len() <= ID_MAX, "a dataset has had more fields than there are ids");
            i32::try_from(self.fields.len()).expect("the largest id is within 31 bits")
        });
        self.ids.push(id);
        match data_type {
            ColumnType::List(element) => self.field(Some(id), "element", element),
            ColumnType::Map(value) => {
                self.field(Some(id), "key", &ColumnType::Scalar(ScalarType::String));
                self.field(Some(id), "value", value);
            }
            ColumnType::Struct(members) => {
                for (name, data_type) in members {
                    self.field(Some(id), name, data_type);
                }
            }
            _ => {}
        }
    }
}

/// The name of a type in the stored form. Types that are the same in a file have the same name.
pub(super) fn type_name(data_type: &ColumnType) -> String {
    match data_type {
        ColumnType::Scalar(scalar) => scalar.spec().stored,
        ColumnType::List(element) => format!("list<{}>", type_name(element)),
        ColumnType::Map(value) => format!("map<string,{}>", type_name(value)),
        ColumnType::Struct(_) => "struct".to_owned(),
    }
}

fn invalid(problem: impl Into<String>) -> InvalidFieldIds {
    InvalidFieldIds(problem.into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::dataset::time_format::TimeForm;
    use proptest::prelude::*;

    const STRING: ColumnType = ColumnType::Scalar(ScalarType::String);
    const INT32: ColumnType = ColumnType::Scalar(ScalarType::Int32);
    const INT64: ColumnType = ColumnType::Scalar(ScalarType::Int64);

    fn column(name: &str, data_type: ColumnType) -> PlannedColumn {
        PlannedColumn { name: name.to_owned(), description: String::new(), data_type, in_file: true }
    }

    fn scalar() -> impl Strategy<Value = ColumnType> {
        prop::sample::select(vec![
            STRING,
            INT32,
            INT64,
            ColumnType::Scalar(ScalarType::Float64),
            ColumnType::Scalar(ScalarType::Bool),
            ColumnType::Scalar(ScalarType::Date32(TimeForm::Date.into())),
            ColumnType::Scalar(ScalarType::Timestamp(TimeForm::EpochMs.into())),
        ])
    }

    fn data_type() -> impl Strategy<Value = ColumnType> {
        let members = || prop::collection::btree_map("[a-c]|key|element", scalar(), 1..4);
        let structure = move || members().prop_map(|members| ColumnType::Struct(members.into_iter().collect()));
        prop_oneof![
            scalar(),
            structure(),
            prop_oneof![scalar(), structure()].prop_map(|element| ColumnType::List(Box::new(element))),
            scalar().prop_map(|value| ColumnType::Map(Box::new(value))),
        ]
    }

    /// Schemas of one dataset, one after the other: few names, so that fields go, come back and change their types.
    fn schemas() -> impl Strategy<Value = Vec<Vec<PlannedColumn>>> {
        let schema = prop::collection::btree_map("[a-d]", data_type(), 0..4);
        let columns = schema.prop_map(|schema| schema.into_iter().map(|(name, of)| column(&name, of)).collect());
        prop::collection::vec(columns, 1..8)
    }

    /// The fields of a schema as text: each with its name and type, and the names and types of all that contain it.
    fn identities(columns: &[PlannedColumn]) -> Vec<String> {
        fn add(above: &str, name: &str, data_type: &ColumnType, all: &mut Vec<String>) {
            let identity = format!("{above}/{name}:{}", type_name(data_type));
            all.push(identity.clone());
            match data_type {
                ColumnType::List(element) => add(&identity, "element", element, all),
                ColumnType::Map(value) => {
                    add(&identity, "key", &STRING, all);
                    add(&identity, "value", value, all);
                }
                ColumnType::Struct(members) => members.iter().for_each(|(name, of)| add(&identity, name, of, all)),
                _ => {}
            }
        }
        let mut all = Vec::new();
        columns.iter().for_each(|column| add("", &column.name, &column.data_type, &mut all));
        all
    }

    proptest! {
        #[test]
        fn an_id_never_means_two_fields_and_a_field_never_has_two_ids(schemas in schemas()) {
            let mut ids = FieldIds::new("orders");
            let mut by_id = BTreeMap::new();
            let mut by_field = BTreeMap::new();
            for columns in &schemas {
                let before = ids.count();
                let assigned = ids.assign(columns);
                let fields = identities(columns);
                prop_assert_eq!(assigned.len(), fields.len());
                for (id, field) in assigned.into_iter().zip(fields) {
                    prop_assert_eq!(by_id.entry(id).or_insert_with(|| field.clone()), &field);
                    let is_new = !by_field.contains_key(&field);
                    prop_assert_eq!(*by_field.entry(field).or_insert(id), id);
                    prop_assert_eq!(is_new, usize::try_from(id).unwrap() > before);
                }
                // The next worker reads what this one stored.
                ids = FieldIds::from_bytes("orders", &ids.to_bytes()).unwrap();
            }
        }

        #[test]
        fn stored_ids_round_trip(schemas in schemas(), cut in any::<prop::sample::Index>()) {
            let mut ids = FieldIds::new("orders");
            for columns in &schemas {
                ids.assign(columns);
            }
            let bytes = ids.to_bytes();
            prop_assert_eq!(FieldIds::from_bytes("orders", &bytes).unwrap(), ids);
            prop_assert!(FieldIds::from_bytes("orders", &bytes[..cut.index(bytes.len() - 1)]).is_err());
        }
    }

    #[test]
    fn a_schema_without_history_is_numbered_from_one_in_order() {
        let members = vec![("sku".to_owned(), STRING), ("count".to_owned(), INT32)];
        let columns = [
            column("id", STRING),
            column("lines", ColumnType::List(Box::new(ColumnType::Struct(members)))),
            column("labels", ColumnType::Map(Box::new(INT64))),
        ];
        let mut ids = FieldIds::new("orders");
        assert_eq!(ids.assign(&columns), [1, 2, 3, 4, 5, 6, 7, 8]);
        let stored = String::from_utf8(ids.to_bytes()).unwrap();
        assert!(stored.contains(r#"{"id":4,"name":"sku","parent":3,"type":"string"}"#), "{stored}");
        assert!(stored.contains(r#"{"id":6,"name":"labels","type":"map<string,int64>"}"#), "{stored}");
    }

    #[test]
    fn a_field_that_comes_back_has_its_old_id_and_one_whose_type_changes_a_new_one() {
        let mut ids = FieldIds::new("orders");
        let list = |element| column("x", ColumnType::List(Box::new(element)));
        assert_eq!(ids.assign(&[column("a", INT32), list(INT32)]), [1, 2, 3]);
        assert_eq!(ids.assign(&[list(INT64)]), [4, 5]);
        assert_eq!(ids.assign(&[column("a", STRING)]), [6]);
        assert_eq!(ids.assign(&[list(INT32), column("a", INT32)]), [2, 3, 1]);
    }

    #[test]
    fn stored_ids_that_contradict_themselves_are_refused() {
        let problem = |fields: &str| {
            let stored = format!(r#"{{"format":1,"dataset":"orders","fields":[{fields}]}}"#);
            FieldIds::from_bytes("orders", stored.as_bytes()).unwrap_err().to_string()
        };
        let first = r#"{"id":1,"name":"a","type":"string"}"#;
        assert_eq!(problem(r#"{"id":2,"name":"a","type":"string"}"#), "field 2 is where field 1 must be");
        assert_eq!(problem(&format!("{first},{}", first.replace(":1", ":2"))), "field 2 is the same as field 1");
        assert_eq!(
            problem(r#"{"id":1,"parent":1,"name":"a","type":"string"}"#),
            "field 1 is in field 1, which does not come before it"
        );
        assert_eq!(problem(r#"{"id":1,"name":7,"type":"string"}"#), "field 1: 'name' is not a string");
        let other = |stored: &str| FieldIds::from_bytes("orders", stored.as_bytes()).unwrap_err().to_string();
        assert_eq!(other(r#"{"format":2}"#), "it has format 2; this version reads format 1");
        assert_eq!(
            other(r#"{"format":1,"dataset":"users","fields":[]}"#),
            "it belongs to dataset \"users\", not to 'orders'"
        );
    }
}
