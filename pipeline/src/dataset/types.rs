//! The scalar types of columns: one table.
//!
//! Owns: everything that follows from a scalar type. [`ScalarType::spec`] has one arm for each type, with its form in
//! records, in memory, in Parquet and in every schema. Does not own: lists, maps and structs (`plan::ColumnType`), parsing
//! single values (`decode`, `columns::validate`).
//!
//! A new type needs a variant and an arm here. A new input kind also needs an arm in `decode::scan::value`, and a check that
//! no other type has needs one in `columns::validate`.

use parquet::basic::{LogicalType, TimeUnit, Type as PhysicalType};
use parquet::schema::types::{PrimitiveTypeBuilder, Type};
use serde_json::{Value, json};

/// A scalar type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScalarType {
    String,
    Int32,
    Int64,
    Float64,
    Bool,
    Date32(TimeFormat),
    Timestamp(TimeFormat),
    Json,
}

/// What follows from a scalar type.
#[derive(Debug)]
pub(crate) struct Spec {
    /// The name in a definition.
    pub(crate) name: String,
    /// What the scanner reads.
    pub(crate) input: InputKind,
    /// JSON Schema of a value in a record.
    pub(crate) json_schema: Value,
    /// How values are kept in memory and written.
    pub(crate) physical: Physical,
    /// The meaning of the physical type in Parquet.
    pub(crate) logical: Option<LogicalType>,
    /// The name in Hive, Athena and Glue.
    pub(crate) hive: String,
    /// The type in Arrow's JSON form.
    pub(crate) arrow: Value,
    /// The name in the lake's field ids. Types that are the same in a file have the same name, and a name never changes.
    pub(crate) stored: String,
}

impl Spec {
    /// The column or field of this type in a Parquet schema.
    pub(crate) fn parquet<'n>(&self, name: &'n str) -> PrimitiveTypeBuilder<'n> {
        Type::primitive_type_builder(name, self.physical.parquet()).with_logical_type(self.logical.clone())
    }
}

impl ScalarType {
    /// The names of the types in a definition.
    pub(crate) const NAMES: [&str; 8] = ["string", "int32", "int64", "float64", "bool", "date32", "timestamp", "json"];

    /// The type of a name in a definition; `format` says how a time is written in records.
    pub(crate) fn parse(name: &str, format: Option<TimeFormat>) -> Option<ScalarType> {
        Some(match name {
            "string" => ScalarType::String,
            "int32" => ScalarType::Int32,
            "int64" => ScalarType::Int64,
            "float64" => ScalarType::Float64,
            "bool" => ScalarType::Bool,
            "date32" => ScalarType::Date32(format.unwrap_or(TimeFormat::Date)),
            // `timestamp_millis` was its name before times had microseconds.
            "timestamp" | "timestamp_millis" => ScalarType::Timestamp(format.unwrap_or(TimeFormat::Rfc3339)),
            "json" => ScalarType::Json,
            _ => return None,
        })
    }

    /// Everything that follows from the type.
    pub(crate) fn spec(self) -> Spec {
        let int = |bits: u8| json!({ "name": "int", "bitWidth": bits, "isSigned": true });
        match self {
            ScalarType::String => Spec {
                name: "string".into(),
                input: InputKind::Text,
                json_schema: json!({ "type": "string" }),
                physical: Physical::Text,
                logical: Some(LogicalType::String),
                hive: "string".into(),
                arrow: json!({ "name": "utf8" }),
                stored: "string".into(),
            },
            ScalarType::Int32 => Spec {
                name: "int32".into(),
                input: InputKind::Int,
                json_schema: json!({ "type": "integer", "minimum": i32::MIN, "maximum": i32::MAX }),
                physical: Physical::Int32,
                logical: None,
                hive: "int".into(),
                arrow: int(32),
                stored: "int32".into(),
            },
            ScalarType::Int64 => Spec {
                name: "int64".into(),
                input: InputKind::Int,
                json_schema: json!({ "type": "integer" }),
                physical: Physical::Int64,
                logical: None,
                hive: "bigint".into(),
                arrow: int(64),
                stored: "int64".into(),
            },
            ScalarType::Float64 => Spec {
                name: "float64".into(),
                input: InputKind::Float,
                json_schema: json!({ "type": "number" }),
                physical: Physical::Double,
                logical: None,
                hive: "double".into(),
                arrow: json!({ "name": "floatingpoint", "precision": "DOUBLE" }),
                stored: "float64".into(),
            },
            ScalarType::Bool => Spec {
                name: "bool".into(),
                input: InputKind::Bool,
                json_schema: json!({ "type": "boolean" }),
                physical: Physical::Bool,
                logical: None,
                hive: "boolean".into(),
                arrow: json!({ "name": "bool" }),
                stored: "bool".into(),
            },
            ScalarType::Date32(format) => Spec {
                name: "date32".into(),
                input: format.input(),
                json_schema: format.json_schema(),
                physical: Physical::Int32,
                logical: Some(LogicalType::Date),
                hive: "date".into(),
                arrow: json!({ "name": "date", "unit": "DAY" }),
                stored: "date32".into(),
            },
            // Microseconds are the only unit of Iceberg's `timestamptz` and of Delta's `timestamp`.
            ScalarType::Timestamp(format) => Spec {
                name: "timestamp".into(),
                input: format.input(),
                json_schema: format.json_schema(),
                physical: Physical::Int64,
                logical: Some(LogicalType::timestamp(true, TimeUnit::MICROS)),
                hive: "timestamp".into(),
                arrow: json!({ "name": "timestamp", "unit": "MICROSECOND", "timezone": "UTC" }),
                stored: "timestamp".into(),
            },
            // JSON text is a string to every engine that reads the lake; Parquet's own JSON type is not.
            ScalarType::Json => Spec {
                name: "json".into(),
                input: InputKind::Json,
                json_schema: json!({}),
                physical: Physical::Text,
                logical: Some(LogicalType::String),
                hive: "string".into(),
                arrow: json!({ "name": "utf8" }),
                stored: "string".into(),
            },
        }
    }

    /// Whether `min`, `max` and `accept_text` have a meaning for its values.
    pub(crate) fn is_number(self) -> bool {
        matches!(self, ScalarType::Int32 | ScalarType::Int64 | ScalarType::Float64)
    }

    /// Whether its values are points in time.
    pub(crate) fn is_time(self) -> bool {
        matches!(self, ScalarType::Date32(_) | ScalarType::Timestamp(_))
    }

    /// Whether it can be the type of a map's values.
    pub(crate) fn is_map_value(self) -> bool {
        matches!(self, ScalarType::String | ScalarType::Int64 | ScalarType::Float64 | ScalarType::Bool)
    }

    /// Whether a lookup table can have values of it.
    pub(crate) fn is_lookup_value(self) -> bool {
        matches!(self, ScalarType::String | ScalarType::Int64 | ScalarType::Float64)
    }

    /// The least and the greatest number, if the type has fewer numbers than what the scanner reads.
    pub(crate) fn range(self) -> Option<(f64, f64)> {
        (self == ScalarType::Int32).then_some((f64::from(i32::MIN), f64::from(i32::MAX)))
    }
}

/// How a point in time is written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeFormat {
    /// RFC 3339 text; an offset is required.
    Rfc3339,
    /// Milliseconds since 1970, a whole number.
    EpochMs,
    /// Seconds since 1970, a number.
    EpochS,
    /// `YYYY-MM-DD` text.
    Date,
}

impl TimeFormat {
    /// The names of the formats in a definition.
    pub(crate) const NAMES: [&str; 4] = ["rfc3339", "epoch_ms", "epoch_s", "date"];

    /// The format of a name in a definition.
    pub(crate) fn parse(name: &str) -> Option<TimeFormat> {
        Some(match name {
            "rfc3339" => TimeFormat::Rfc3339,
            "epoch_ms" => TimeFormat::EpochMs,
            "epoch_s" => TimeFormat::EpochS,
            "date" => TimeFormat::Date,
            _ => return None,
        })
    }

    /// What the scanner reads.
    pub(crate) fn input(self) -> InputKind {
        match self {
            TimeFormat::Rfc3339 | TimeFormat::Date => InputKind::Text,
            TimeFormat::EpochMs => InputKind::Int,
            TimeFormat::EpochS => InputKind::Float,
        }
    }

    /// JSON Schema of a time in a record.
    pub(crate) fn json_schema(self) -> Value {
        match self {
            TimeFormat::Rfc3339 => json!({ "type": "string", "format": "date-time" }),
            TimeFormat::Date => json!({ "type": "string", "format": "date" }),
            TimeFormat::EpochMs => json!({ "type": "integer", "description": "milliseconds since 1970" }),
            TimeFormat::EpochS => json!({ "type": "number", "description": "seconds since 1970" }),
        }
    }
}

/// How the scanner stores a value in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputKind {
    /// A string: its place in the record.
    Text,
    /// A whole number, as i64.
    Int,
    /// A number, as the bits of a double.
    Float,
    /// 0 or 1.
    Bool,
    /// Any value: the place of its JSON text.
    Json,
    /// Unknown fields: places of key and value, two slots each.
    Unknown,
}

impl InputKind {
    /// The values that it reads, in words.
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            InputKind::Text => "a string",
            InputKind::Int | InputKind::Float => "a number",
            InputKind::Bool => "a boolean",
            InputKind::Json | InputKind::Unknown => "any value",
        }
    }

    /// Whether one field can be read as this kind and as another one.
    pub(crate) fn goes_with(self, other: InputKind) -> bool {
        let number = |kind| matches!(kind, InputKind::Int | InputKind::Float);
        let any = |kind| matches!(kind, InputKind::Json | InputKind::Unknown);
        self == other || number(self) && number(other) || any(self) || any(other)
    }
}

/// How the values of a leaf are kept in memory and in Parquet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Physical {
    /// UTF-8 text.
    Text,
    Int32,
    Int64,
    Double,
    Bool,
}

impl Physical {
    /// The physical type in Parquet.
    fn parquet(self) -> PhysicalType {
        match self {
            Physical::Text => PhysicalType::BYTE_ARRAY,
            Physical::Int32 => PhysicalType::INT32,
            Physical::Int64 => PhysicalType::INT64,
            Physical::Double => PhysicalType::DOUBLE,
            Physical::Bool => PhysicalType::BOOLEAN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_and_time_format_is_parsed_by_its_name() {
        for name in ScalarType::NAMES {
            assert_eq!(ScalarType::parse(name, None).unwrap().spec().name, name);
        }
        assert_eq!(ScalarType::parse("text", None), None);
        for name in TimeFormat::NAMES {
            assert!(TimeFormat::parse(name).is_some(), "{name}");
        }
    }

    #[test]
    fn types_that_share_a_stored_name_are_the_same_in_a_file() {
        let specs: Vec<Spec> =
            ScalarType::NAMES.iter().map(|name| ScalarType::parse(name, None).unwrap().spec()).collect();
        for (left, right) in specs.iter().flat_map(|left| specs.iter().map(move |right| (left, right))) {
            let in_file = |spec: &Spec| (spec.physical, spec.logical.clone());
            assert_eq!(left.stored == right.stored, in_file(left) == in_file(right), "{} {}", left.name, right.name);
        }
    }
}
