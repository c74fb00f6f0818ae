//! A dataset's schema for other programs: catalogues, producers, readers.
//!
//! Owns: the JSON Schema for producers, the Arrow schema, and the choice among all formats. All of them come from the one
//! definition, so that they cannot diverge. Does not own: the tables of Athena and Glue (`catalog`), the Parquet schema
//! (`encode::schema`), the types of scalars (`types`).

use serde_json::{Value, json};

use crate::dataset::catalog;
use crate::dataset::definition::{Definition, FieldRules, Kind, Source};
use crate::dataset::input_kind::InputKind;
use crate::dataset::plan::{ColumnType, Plan};
use crate::dataset::pointer::Pointer;
use crate::dataset::types::ScalarType;
use crate::toml_reader::Scalar;

/// Which schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaFormat {
    /// `CREATE EXTERNAL TABLE` for Athena.
    Athena,
    /// The `TableInput` of Glue's CreateTable.
    Glue,
    /// JSON Schema (2020-12) of the records, for producers.
    JsonSchema,
    /// Arrow schema in the JSON form of Arrow's integration tests.
    Arrow,
}

/// Renders a schema. `location` is the folder of the dataset's files, with a final slash.
pub(crate) fn render(definition: &Definition, plan: &Plan, format: SchemaFormat, location: &str) -> String {
    let pretty = |value: Value| serde_json::to_string_pretty(&value).unwrap_or_default() + "\n";
    match format {
        SchemaFormat::Athena => catalog::athena(definition, plan, location),
        SchemaFormat::Glue => pretty(catalog::glue(definition, plan, location)),
        SchemaFormat::JsonSchema => pretty(json_schema(definition)),
        SchemaFormat::Arrow => pretty(arrow(plan)),
    }
}

fn arrow(plan: &Plan) -> Value {
    let fields: Vec<Value> = plan
        .columns
        .iter()
        .filter(|column| column.in_file)
        .map(|column| arrow_field(&column.name, &column.data_type, true))
        .collect();
    json!({ "fields": fields, "metadata": [{ "key": "shardlake.definition", "value": plan.version }] })
}

fn arrow_field(name: &str, data_type: &ColumnType, nullable: bool) -> Value {
    let (kind, children) = match data_type {
        ColumnType::Scalar(scalar) => (scalar.spec().arrow, vec![]),
        ColumnType::List(element) => (json!({ "name": "list" }), vec![arrow_field("element", element, true)]),
        ColumnType::Map(value) => {
            let key = arrow_field("key", &ColumnType::Scalar(ScalarType::String), false);
            let entries = json!({
                "name": "key_value",
                "nullable": false,
                "type": { "name": "struct" },
                "children": [key, arrow_field("value", value, true)],
            });
            (json!({ "name": "map", "keysSorted": false }), vec![entries])
        }
        ColumnType::Struct(fields) => {
            let children = fields.iter().map(|(name, data_type)| arrow_field(name, data_type, true)).collect();
            (json!({ "name": "struct" }), children)
        }
    };
    json!({ "name": name, "nullable": nullable, "type": kind, "children": children })
}

fn json_schema(definition: &Definition) -> Value {
    let mut root = object();
    for column in &definition.columns {
        let Source::Pointer(pointer) = &column.source else { continue };
        let mut schema = match &column.kind {
            // A dropped value may be of any type.
            _ if column.field.is_dropped() => json!({}),
            Kind::Scalar(kind) => scalar_schema(*kind, &column.field),
            Kind::List(kind) => {
                json!({ "type": type_of("array", &column.field), "items": element_schema(*kind, &column.field) })
            }
            Kind::ListOfStructs(members) => {
                let mut element = object();
                element["type"] = json!(["object", "null"]);
                for member in members {
                    place(
                        &mut element,
                        &member.pointer,
                        scalar_schema(member.kind, &member.field),
                        member.field.required,
                    );
                }
                json!({ "type": type_of("array", &column.field), "items": element })
            }
            Kind::Map(kind) => {
                json!({ "type": type_of("object", &column.field), "additionalProperties": element_schema(*kind, &column.field) })
            }
            Kind::MapOfLists(kind) => {
                let list = json!({ "type": ["array", "null"], "items": element_schema(*kind, &column.field) });
                json!({ "type": type_of("object", &column.field), "additionalProperties": list })
            }
            Kind::Struct(members) => {
                let mut structure = object();
                for member in members {
                    let schema = scalar_schema(member.kind, &member.field);
                    place(&mut structure, &member.pointer, schema, member.field.required);
                }
                structure["type"] = type_of("object", &column.field);
                structure
            }
        };
        if !column.description.is_empty() {
            schema["description"] = Value::String(column.description.clone());
        }
        place(&mut root, pointer, schema, column.field.required);
    }
    definition.embedded.iter().for_each(|pointer| embed(&mut root, &pointer.value));
    let time = &definition.event_time.field;
    place(&mut root, &time.pointer.value, time.format.json_schema(), true);
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!(definition.name.value);
    root["description"] = json!(definition.description);
    root
}

/// Declares that an object may also come as a string that holds it.
fn embed(root: &mut Value, pointer: &Pointer) {
    let mut at = root;
    for key in pointer.keys() {
        let Some(inside) = at.pointer_mut("/properties").and_then(|all| all.get_mut(key)) else { return };
        at = inside;
    }
    at["type"] = match at["type"].take() {
        Value::Array(types) => types.into_iter().chain([json!("string")]).collect(),
        one => json!([one, "string"]),
    };
    at["contentMediaType"] = json!("application/json");
}

/// The type of a list, map or struct.
fn type_of(name: &str, rules: &FieldRules) -> Value {
    if rules.required { json!(name) } else { json!([name, "null"]) }
}

/// The schema of an element of a list or map. Whether the column is required does not matter for it.
fn element_schema(kind: ScalarType, rules: &FieldRules) -> Value {
    scalar_schema(kind, &FieldRules { required: false, ..rules.clone() })
}

fn object() -> Value {
    json!({ "type": "object", "properties": {} })
}

/// Puts a schema at a pointer, and creates the objects that contain it.
fn place(root: &mut Value, pointer: &Pointer, schema: Value, required: bool) {
    let Some((last, above)) = pointer.keys().split_last() else { return };
    let mut at = root;
    for key in above {
        at = &mut at["properties"][key];
        if !at.is_object() {
            *at = json!({ "type": ["object", "null"], "properties": {} });
        } else if at.get("properties").is_none() {
            at["properties"] = json!({});
        }
        if required {
            at["type"] = json!("object");
        }
    }
    let old = at["properties"][last].take();
    at["properties"][last] = merge(old, schema);
    if required {
        let mut names: Vec<Value> = at["required"].as_array().cloned().unwrap_or_default();
        if !names.contains(&json!(last)) {
            names.push(json!(last));
        }
        at["required"] = Value::Array(names);
    }
}

/// Joins the schemas of two readings of one field. For a keyword that both have, the first value is kept.
fn merge(old: Value, new: Value) -> Value {
    match (old, new) {
        (Value::Object(mut old), Value::Object(new)) => {
            for (key, value) in new {
                old.entry(key).or_insert(value);
            }
            Value::Object(old)
        }
        (Value::Object(old), _) => Value::Object(old),
        (_, new) => new,
    }
}

fn scalar_schema(kind: ScalarType, rules: &FieldRules) -> Value {
    if kind == ScalarType::Json {
        return kind.spec().json_schema;
    }
    // A rule may read another value than the column's type says.
    let read = if rules.input_of_rule() == Some(InputKind::Int) { ScalarType::Int64 } else { kind };
    let mut schema = read.spec().json_schema;
    if let Some(min) = &rules.min {
        schema["minimum"] = number(min.value);
    }
    if let Some(max) = &rules.max {
        schema["maximum"] = number(max.value);
    }
    if let Some(min_length) = &rules.min_length {
        schema["minLength"] = json!(min_length.value);
    }
    if let Some(max_length) = &rules.max_length {
        schema["maxLength"] = json!(max_length.value);
    }
    if let Some(pattern) = &rules.pattern {
        schema["pattern"] = json!(pattern.value);
    }
    if let Some(one_of) = &rules.one_of {
        let values =
            one_of.value.iter().filter_map(|value| if let Scalar::Text(text) = value { Some(text) } else { None });
        schema["enum"] = values.map(|text| json!(text)).collect();
    }
    let mut types = match schema["type"].take() {
        Value::Array(types) => types,
        one => vec![one],
    };
    for (accepted, name) in
        [(rules.accept_text, "string"), (rules.accept_number, "number"), (rules.accept_bool, "boolean")]
    {
        if accepted && !types.contains(&json!(name)) {
            types.push(json!(name));
        }
    }
    if !rules.required {
        types.push(json!("null"));
    }
    schema["type"] = if types.len() == 1 { types.remove(0) } else { Value::Array(types) };
    schema
}

/// A bound; a whole number is written without a fraction.
fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}
