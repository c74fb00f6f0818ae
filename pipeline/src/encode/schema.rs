//! A plan's Parquet schema.
//!
//! Lists and maps have the three-level form that the format asks for; all columns are optional, so that files of
//! different versions of a definition can be read together; times are UTC milliseconds, which Athena, Spark and DuckDB
//! all read.

use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as PhysicalType};
use parquet::errors::Result;
use parquet::schema::types::{SchemaDescPtr, SchemaDescriptor, Type, TypePtr};

use crate::dataset::plan::{ColumnType, Plan};

/// The schema of a plan's files: its columns in order, partitions left out.
pub(crate) fn schema(plan: &Plan) -> Result<SchemaDescPtr> {
    let columns = plan.columns.iter().filter(|column| column.in_file);
    let fields = columns.map(|column| field(&column.name, &column.data_type)).collect::<Result<Vec<_>>>()?;
    let root = Type::group_type_builder("schema").with_fields(fields).build()?;
    Ok(Arc::new(SchemaDescriptor::new(Arc::new(root))))
}

fn field(name: &str, data_type: &ColumnType) -> Result<TypePtr> {
    match data_type {
        ColumnType::List(element) => {
            let element = match &**element {
                ColumnType::Struct(fields) => group("element", fields, Repetition::REQUIRED)?,
                scalar => field("element", scalar)?,
            };
            let list = repeated("list", vec![element])?;
            Ok(Arc::new(annotated(name, vec![list], LogicalType::List)?))
        }
        ColumnType::Map(value) => {
            let key = primitive("key", &ColumnType::String, Repetition::REQUIRED)?;
            let entries = repeated("key_value", vec![key, field("value", value)?])?;
            Ok(Arc::new(annotated(name, vec![entries], LogicalType::Map)?))
        }
        ColumnType::Struct(fields) => group(name, fields, Repetition::OPTIONAL),
        scalar => primitive(name, scalar, Repetition::OPTIONAL),
    }
}

fn group(name: &str, fields: &[(String, ColumnType)], repetition: Repetition) -> Result<TypePtr> {
    let fields = fields.iter().map(|(name, data_type)| field(name, data_type)).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(Type::group_type_builder(name).with_fields(fields).with_repetition(repetition).build()?))
}

fn repeated(name: &str, fields: Vec<TypePtr>) -> Result<TypePtr> {
    let builder = Type::group_type_builder(name).with_fields(fields).with_repetition(Repetition::REPEATED);
    Ok(Arc::new(builder.build()?))
}

fn annotated(name: &str, fields: Vec<TypePtr>, logical: LogicalType) -> Result<Type> {
    let builder = Type::group_type_builder(name).with_fields(fields).with_repetition(Repetition::OPTIONAL);
    builder.with_logical_type(Some(logical)).build()
}

fn primitive(name: &str, data_type: &ColumnType, repetition: Repetition) -> Result<TypePtr> {
    let utc_millis = LogicalType::timestamp(true, TimeUnit::MILLIS);
    let (physical, logical) = match data_type {
        ColumnType::Int32 => (PhysicalType::INT32, None),
        ColumnType::Int64 => (PhysicalType::INT64, None),
        ColumnType::Float64 => (PhysicalType::DOUBLE, None),
        ColumnType::Bool => (PhysicalType::BOOLEAN, None),
        ColumnType::Date32 => (PhysicalType::INT32, Some(LogicalType::Date)),
        ColumnType::TimestampMillis => (PhysicalType::INT64, Some(utc_millis)),
        // JSON text is a string to every engine that reads the lake; Parquet's own JSON type is not.
        _ => (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)),
    };
    let builder = Type::primitive_type_builder(name, physical).with_logical_type(logical).with_repetition(repetition);
    Ok(Arc::new(builder.build()?))
}
