//! Builds Arrow columns from rows.
//!
//! Owns: the Arrow schema with its field ids, the builders. Does not own: the Parquet writer (`partition`).

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int32Builder, Int64Builder,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, ListArray, MapArray, RecordBatch, StructArray};
use arrow_buffer::{NullBufferBuilder, OffsetBuffer};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};

use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

use crate::leaf::{Leaf, Output};
use crate::plan::{Plan, Source, TimePart};
use crate::time::{DAY_US, date_of};
use crate::value::Value;

/// What a row has in addition to the values of its record.
#[derive(Debug)]
pub(crate) struct Ingest<'r> {
    pub(crate) stream: &'r str,
    pub(crate) shard: &'r str,
    pub(crate) sequence: &'r str,
    pub(crate) arrival_us: i64,
    pub(crate) event_us: i64,
}

/// The schema of a plan's files. Fields are numbered from 1, each before those inside it, partition columns included.
pub(crate) fn schema(plan: &Plan) -> SchemaRef {
    let mut last_id = 0;
    let mut fields = Vec::new();
    for column in &plan.columns {
        let field = numbered(&Field::new(&column.name, data_type(&column.source), true), &mut last_id);
        if column.in_file {
            fields.push(field);
        }
    }
    Arc::new(Schema::new(fields))
}

/// A field with its Parquet field id, and ids in everything inside it.
fn numbered(field: &Field, last_id: &mut i32) -> FieldRef {
    *last_id += 1;
    let metadata = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), last_id.to_string())]);
    let mut all = |fields: &Fields| fields.iter().map(|field| numbered(field, last_id)).collect::<Fields>();
    let data_type = match field.data_type() {
        DataType::List(element) => DataType::List(Arc::clone(&all(&vec![Arc::clone(element)].into())[0])),
        DataType::Struct(members) => DataType::Struct(all(members)),
        DataType::Map(entries, sorted) => {
            let DataType::Struct(pair) = entries.data_type() else { unreachable!("a map is of structs") };
            DataType::Map(Arc::new(entries.as_ref().clone().with_data_type(DataType::Struct(all(pair)))), *sorted)
        }
        scalar => scalar.clone(),
    };
    Arc::new(field.clone().with_data_type(data_type).with_metadata(metadata))
}

fn data_type(source: &Source) -> DataType {
    let nullable = |name: &str, data_type: DataType| Arc::new(Field::new(name, data_type, true));
    match source {
        Source::Scalar(_, leaf) => scalar_type(leaf),
        Source::List(_, leaf) => DataType::List(nullable("element", scalar_type(leaf))),
        Source::Map(_, leaf) => map_of(scalar_type(leaf)),
        Source::MapOfLists(_, leaf) => map_of(DataType::List(nullable("element", scalar_type(leaf)))),
        Source::Objects { members, .. } => {
            let members = members.iter().map(|(name, leaf)| nullable(name, scalar_type(leaf)));
            DataType::List(nullable("element", DataType::Struct(members.collect())))
        }
        Source::Struct { members, .. } => {
            DataType::Struct(members.iter().map(|(name, _, leaf)| nullable(name, scalar_type(leaf))).collect())
        }
        Source::EventTime(TimePart::Instant) | Source::ArrivalTime { as_date: false } => timestamp(),
        Source::EventTime(TimePart::Date) | Source::ArrivalTime { as_date: true } => DataType::Date32,
        Source::EventTime(_) => DataType::Int32,
        Source::SubSequence => DataType::Int64,
        Source::Json { .. } | Source::Stream | Source::Shard | Source::Sequence => DataType::Utf8,
    }
}

fn map_of(value: DataType) -> DataType {
    let key = Arc::new(Field::new("key", DataType::Utf8, false));
    let entry = DataType::Struct(Fields::from(vec![key, Arc::new(Field::new("value", value, true))]));
    DataType::Map(Arc::new(Field::new("key_value", entry, false)), false)
}

fn scalar_type(leaf: &Leaf) -> DataType {
    match leaf.output {
        Output::Text => DataType::Utf8,
        Output::Int32 => DataType::Int32,
        Output::Int64 => DataType::Int64,
        Output::Float64 => DataType::Float64,
        Output::Decimal(digits) => DataType::Decimal128(digits.precision, digits.scale.cast_signed()),
        Output::Bool => DataType::Boolean,
        Output::Date32 => DataType::Date32,
        Output::Timestamp => timestamp(),
    }
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The rows of one partition that were not written yet.
#[derive(Debug)]
pub(crate) struct Columns {
    schema: SchemaRef,
    builders: Vec<Builder>,
    pub(crate) rows: usize,
}

impl Columns {
    pub(crate) fn new(schema: &SchemaRef) -> Self {
        let builders = schema.fields().iter().map(|field| Builder::new(field.data_type())).collect();
        Columns { schema: Arc::clone(schema), builders, rows: 0 }
    }

    /// Adds a row. `values` has one value for each of the plan's columns; those of computed columns are ignored.
    pub(crate) fn append(&mut self, plan: &Plan, values: &[Value], ingest: &Ingest<'_>) {
        let columns = plan.columns.iter().zip(values).filter(|(column, _)| column.in_file);
        for ((column, value), builder) in columns.zip(&mut self.builders) {
            match column.source {
                Source::EventTime(part) => builder.append_int(time_part(ingest.event_us, part)),
                Source::ArrivalTime { as_date: false } => builder.append_int(ingest.arrival_us),
                Source::ArrivalTime { as_date: true } => builder.append_int(ingest.arrival_us.div_euclid(DAY_US)),
                Source::Stream => builder.append_text(ingest.stream),
                Source::Shard => builder.append_text(ingest.shard),
                Source::Sequence => builder.append_text(ingest.sequence),
                Source::SubSequence => builder.append_int(0),
                _ => builder.append(value),
            }
        }
        self.rows += 1;
    }

    /// Takes the rows.
    pub(crate) fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        let arrays = self.builders.iter_mut().map(Builder::finish).collect();
        self.rows = 0;
        RecordBatch::try_new(Arc::clone(&self.schema), arrays)
    }
}

fn time_part(us: i64, part: TimePart) -> i64 {
    match part {
        TimePart::Instant => us,
        TimePart::Date => us.div_euclid(DAY_US),
        TimePart::Year => date_of(us).0.into(),
        TimePart::Month => date_of(us).1.into(),
        TimePart::Day => date_of(us).2.into(),
        TimePart::Hour => us.rem_euclid(DAY_US) / 3_600_000_000,
    }
}

/// One column under construction.
#[derive(Debug)]
enum Builder {
    Text(StringBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder),
    Bool(BooleanBuilder),
    Date32(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    List { field: FieldRef, element: Box<Builder>, ends: Ends },
    Map { field: FieldRef, entries: Fields, keys: StringBuilder, values: Box<Builder>, ends: Ends },
    Struct { fields: Fields, members: Vec<Builder>, valid: NullBufferBuilder },
}

impl Builder {
    fn new(data_type: &DataType) -> Self {
        match data_type {
            DataType::Int32 => Builder::Int32(Int32Builder::new()),
            DataType::Int64 => Builder::Int64(Int64Builder::new()),
            DataType::Float64 => Builder::Float64(Float64Builder::new()),
            DataType::Decimal128(..) => Builder::Decimal(Decimal128Builder::new().with_data_type(data_type.clone())),
            DataType::Boolean => Builder::Bool(BooleanBuilder::new()),
            DataType::Date32 => Builder::Date32(Date32Builder::new()),
            DataType::Timestamp(..) => {
                Builder::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(data_type.clone()))
            }
            DataType::List(field) => Builder::List {
                field: Arc::clone(field),
                element: Box::new(Builder::new(field.data_type())),
                ends: Ends::new(),
            },
            DataType::Map(field, _) => {
                let DataType::Struct(entries) = field.data_type() else { unreachable!("a map is of structs") };
                Builder::Map {
                    field: Arc::clone(field),
                    entries: entries.clone(),
                    keys: StringBuilder::new(),
                    values: Box::new(Builder::new(entries[1].data_type())),
                    ends: Ends::new(),
                }
            }
            DataType::Struct(fields) => Builder::Struct {
                fields: fields.clone(),
                members: fields.iter().map(|field| Builder::new(field.data_type())).collect(),
                valid: NullBufferBuilder::new(0),
            },
            _ => Builder::Text(StringBuilder::new()),
        }
    }

    fn append(&mut self, value: &Value) {
        match (self, value) {
            (Builder::Text(builder), Value::Text(text)) => builder.append_value(text),
            (Builder::Text(builder), _) => builder.append_null(),
            (Builder::Float64(builder), Value::Float(number)) => builder.append_value(*number),
            (Builder::Float64(builder), _) => builder.append_null(),
            (Builder::Bool(builder), Value::Bool(value)) => builder.append_value(*value),
            (Builder::Bool(builder), _) => builder.append_null(),
            (Builder::List { element, ends, .. }, Value::List(elements)) => {
                elements.iter().for_each(|value| element.append(value));
                ends.push(elements.len());
            }
            (Builder::Map { keys, values, ends, .. }, Value::Map(entries)) => {
                for (key, value) in entries {
                    keys.append_value(key);
                    values.append(value);
                }
                ends.push(entries.len());
            }
            (Builder::List { ends, .. } | Builder::Map { ends, .. }, _) => ends.push_null(),
            (Builder::Struct { members, valid, .. }, Value::Struct(values)) => {
                members.iter_mut().zip(values).for_each(|(member, value)| member.append(value));
                valid.append(true);
            }
            (Builder::Struct { members, valid, .. }, _) => {
                members.iter_mut().for_each(|member| member.append(&Value::Null));
                valid.append(false);
            }
            (builder, Value::Int(number)) => builder.append_int(*number),
            (Builder::Int32(builder), _) => builder.append_null(),
            (Builder::Int64(builder), _) => builder.append_null(),
            (Builder::Decimal(builder), _) => builder.append_null(),
            (Builder::Date32(builder), _) => builder.append_null(),
            (Builder::Timestamp(builder), _) => builder.append_null(),
        }
    }

    fn append_int(&mut self, number: i64) {
        let small = || i32::try_from(number).expect("a value was checked to be of its type");
        match self {
            Builder::Int32(builder) => builder.append_value(small()),
            Builder::Int64(builder) => builder.append_value(number),
            Builder::Decimal(builder) => builder.append_value(number.into()),
            Builder::Date32(builder) => builder.append_value(small()),
            Builder::Timestamp(builder) => builder.append_value(number),
            _ => unreachable!("a column of other values gets no whole number"),
        }
    }

    fn append_text(&mut self, text: &str) {
        match self {
            Builder::Text(builder) => builder.append_value(text),
            _ => unreachable!("a column of other values gets no text"),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::Text(builder) => ArrayBuilder::finish(builder),
            Builder::Int32(builder) => ArrayBuilder::finish(builder),
            Builder::Int64(builder) => ArrayBuilder::finish(builder),
            Builder::Float64(builder) => ArrayBuilder::finish(builder),
            Builder::Decimal(builder) => ArrayBuilder::finish(builder),
            Builder::Bool(builder) => ArrayBuilder::finish(builder),
            Builder::Date32(builder) => ArrayBuilder::finish(builder),
            Builder::Timestamp(builder) => ArrayBuilder::finish(builder),
            Builder::List { field, element, ends } => {
                let (offsets, valid) = ends.finish();
                Arc::new(ListArray::new(Arc::clone(field), offsets, element.finish(), valid))
            }
            Builder::Map { field, entries, keys, values, ends } => {
                let (offsets, valid) = ends.finish();
                let arrays = vec![ArrayBuilder::finish(keys), values.finish()];
                let entries = StructArray::new(entries.clone(), arrays, None);
                Arc::new(MapArray::new(Arc::clone(field), offsets, entries, valid, false))
            }
            Builder::Struct { fields, members, valid } => {
                let arrays = members.iter_mut().map(Builder::finish).collect();
                Arc::new(StructArray::new(fields.clone(), arrays, valid.finish()))
            }
        }
    }
}

/// Where the elements of each list end, and which lists are null.
#[derive(Debug)]
struct Ends {
    lengths: Vec<usize>,
    valid: NullBufferBuilder,
}

impl Ends {
    fn new() -> Self {
        Ends { lengths: Vec::new(), valid: NullBufferBuilder::new(0) }
    }

    fn push(&mut self, length: usize) {
        self.lengths.push(length);
        self.valid.append(true);
    }

    fn push_null(&mut self) {
        self.lengths.push(0);
        self.valid.append(false);
    }

    fn finish(&mut self) -> (OffsetBuffer<i32>, Option<arrow_buffer::NullBuffer>) {
        let offsets = OffsetBuffer::from_lengths(self.lengths.iter().copied());
        self.lengths.clear();
        (offsets, self.valid.finish())
    }
}
