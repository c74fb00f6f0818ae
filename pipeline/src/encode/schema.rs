//! A dataset's Parquet schema.
//!
//! Owns: nesting, repetition, and the field ids in the schema. Does not own: the types of scalars (`dataset::types`), which
//! id a field has (`dataset::field_ids`).
//!
//! - Lists and maps have the three-level form that Parquet's `LogicalTypes.md` prescribes ("Nested Types").
//! - Every column is optional, so that files of different versions of a definition can be read together.
//! - Times are UTC microseconds, the only unit that Iceberg's `timestamptz` and Delta's `timestamp` have.
//! - Columns, elements, keys, values and members have field ids; the repeated groups between them have none (Iceberg's
//!   spec, "Parquet").

use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition};
use parquet::errors::{ParquetError, Result};
use parquet::schema::types::{SchemaDescPtr, SchemaDescriptor, Type, TypePtr};

use crate::dataset::plan::{ColumnType, Plan};
use crate::dataset::types::ScalarType;

/// The schema of a plan's files: its columns in order, without the partition columns. `ids` has the id of every field,
/// each before those inside it, partition columns included.
pub(crate) fn schema(plan: &Plan, ids: &[i32]) -> Result<SchemaDescPtr> {
    let mut builder = Builder { ids: ids.iter() };
    let mut fields = Vec::with_capacity(plan.columns.len());
    for column in &plan.columns {
        let field = builder.field(&column.name, &column.data_type, Repetition::OPTIONAL)?;
        if column.in_file {
            fields.push(field);
        }
    }
    let root = Type::group_type_builder("schema").with_fields(fields).build()?;
    Ok(Arc::new(SchemaDescriptor::new(Arc::new(root))))
}

struct Builder<'i> {
    ids: std::slice::Iter<'i, i32>,
}

impl Builder<'_> {
    fn field(&mut self, name: &str, data_type: &ColumnType, repetition: Repetition) -> Result<TypePtr> {
        let missing = || ParquetError::General(format!("field '{name}' has no id"));
        let id = Some(*self.ids.next().ok_or_else(missing)?);
        let group = |fields| Type::group_type_builder(name).with_fields(fields).with_repetition(repetition).with_id(id);
        let field = match data_type {
            ColumnType::List(element) => {
                let list = repeated("list", vec![self.field("element", element, Repetition::OPTIONAL)?])?;
                group(vec![list]).with_logical_type(Some(LogicalType::List)).build()?
            }
            ColumnType::Map(value) => {
                let key = self.field("key", &ColumnType::Scalar(ScalarType::String), Repetition::REQUIRED)?;
                let entries = repeated("key_value", vec![key, self.field("value", value, Repetition::OPTIONAL)?])?;
                group(vec![entries]).with_logical_type(Some(LogicalType::Map)).build()?
            }
            ColumnType::Struct(members) => {
                let members = members.iter().map(|(name, of)| self.field(name, of, Repetition::OPTIONAL));
                group(members.collect::<Result<_>>()?).build()?
            }
            ColumnType::Scalar(scalar) => {
                scalar.spec().parquet(name).with_repetition(repetition).with_id(id).build()?
            }
        };
        Ok(Arc::new(field))
    }
}

fn repeated(name: &str, fields: Vec<TypePtr>) -> Result<TypePtr> {
    let builder = Type::group_type_builder(name).with_fields(fields).with_repetition(Repetition::REPEATED);
    Ok(Arc::new(builder.build()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Datasets, DefinitionText, FieldIds};

    const DEFINITION: &str = r#"
name = "orders"
partition_by = ["kind", "month"]

[event_time]
pointer = "/at"

[[column]]
name = "kind"
pointer = "/kind"
type = "string"

[[column]]
name = "lines"
pointer = "/lines"
type = "list"
[[column.field]]
name = "sku"
type = "string"

[[column]]
name = "labels"
pointer = "/labels"
type = "map"
value = "int64"
allow = ["a"]

[[column]]
name = "device"
pointer = "/device"
type = "struct"
[[column.field]]
name = "make"
type = "string"

[[column]]
name = "tags"
pointer = "/tags"
type = "list"
element = "float64"
"#;

    /// (path, id) of every node of a dataset's Parquet schema.
    fn nodes(datasets: &Datasets) -> Vec<(String, Option<i32>)> {
        fn add(above: &str, node: &Type, all: &mut Vec<(String, Option<i32>)>) {
            let info = node.get_basic_info();
            let path = format!("{above}{}", info.name());
            all.push((path.clone(), info.has_id().then(|| info.id())));
            if node.is_group() {
                node.get_fields().iter().for_each(|field| add(&format!("{path}."), field, all));
            }
        }
        let schema = schema(datasets.plan(0), datasets.field_ids(0)).unwrap();
        let mut all = Vec::new();
        schema.root_schema().get_fields().iter().for_each(|field| add("", field, &mut all));
        all
    }

    #[test]
    fn every_field_has_its_id_and_the_groups_between_have_none() {
        let text = DefinitionText { file: "orders.toml".to_owned(), text: DEFINITION.to_owned() };
        let no_tables = |_: &str, _: &str| Err(String::new());
        let mut datasets = Datasets::compile(&[text], &no_tables).unwrap();
        let found = nodes(&datasets);
        let expected = [
            // Id 1 belongs to the partition column, which is not in the file.
            ("lines", Some(2)),
            ("lines.list", None),
            ("lines.list.element", Some(3)),
            ("lines.list.element.sku", Some(4)),
            ("labels", Some(5)),
            ("labels.key_value", None),
            ("labels.key_value.key", Some(6)),
            ("labels.key_value.value", Some(7)),
            ("device", Some(8)),
            ("device.make", Some(9)),
            ("tags", Some(10)),
            ("tags.list", None),
            ("tags.list.element", Some(11)),
            ("ingest_stream", Some(12)),
        ];
        let expected: Vec<_> = expected.map(|(path, id)| (path.to_owned(), id)).into();
        assert_eq!(found[..expected.len()], expected);

        // A lake that has had another definition before.
        let stored = br#"{"format":1,"dataset":"orders","fields":[{"id":1,"name":"gone","type":"string"}]}"#;
        let mut ids = FieldIds::from_bytes("orders", stored).unwrap();
        datasets.number_fields(0, &mut ids);
        let shifted: Vec<_> = found.into_iter().map(|(path, id)| (path, id.map(|id| id + 1))).collect();
        assert_eq!(nodes(&datasets), shifted);
    }
}
