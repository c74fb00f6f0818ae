//! The scalar types of columns: one table.
//!
//! Owns: everything that follows from a scalar type. [`ScalarType::spec`] has one arm for each type, with its form in
//! records, in memory, in Parquet and in every schema. Does not own: lists, maps and structs (`plan::ColumnType`), how a
//! time is written (`time_format`), what the scanner reads (`input_kind`), parsing values (`decode`, `columns::validate`).
//!
//! A new type needs a variant and an arm here. A new input kind also needs an arm in `decode::scan::value`, and a check that
//! no other type has needs one in `columns::validate`.

use parquet::basic::{LogicalType, TimeUnit, Type as PhysicalType};
use parquet::schema::types::{PrimitiveTypeBuilder, Type};
use serde_json::{Value, json};

use crate::dataset::input_kind::InputKind;
use crate::dataset::time_format::{TimeForm, TimeFormat};
use crate::toml_reader::nearest;

/// A scalar type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScalarType {
    String,
    Int32,
    Int64,
    Float64,
    /// An exact number with this many digits, `scale` of them after the point. Its values are whole numbers of 10^-scale.
    Decimal {
        precision: u8,
        scale: u8,
    },
    Bool,
    Date32(TimeFormat),
    Timestamp(TimeFormat),
    Json,
}

/// The most digits of a decimal: all numbers of 18 digits fit into 64 bits.
const DECIMAL_DIGITS_MAX: u8 = 18;

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
        let builder = Type::primitive_type_builder(name, self.physical.parquet());
        let builder = match &self.logical {
            Some(LogicalType::Decimal(of)) => builder.with_precision(of.precision).with_scale(of.scale),
            _ => builder,
        };
        builder.with_logical_type(self.logical.clone())
    }
}

impl ScalarType {
    /// The names of the types in a definition.
    pub(crate) const NAMES: [&str; 9] =
        ["string", "int32", "int64", "float64", "decimal(P,S)", "bool", "date32", "timestamp", "json"];

    /// The type of a name in a definition. A time has the form that it has by default.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the name.
    pub(crate) fn parse(name: &str) -> Result<ScalarType, String> {
        Ok(match name {
            "string" => ScalarType::String,
            "int32" => ScalarType::Int32,
            "int64" => ScalarType::Int64,
            "float64" => ScalarType::Float64,
            "bool" => ScalarType::Bool,
            "date32" => ScalarType::Date32(TimeForm::Date.into()),
            // `timestamp_millis` was its name before times had microseconds.
            "timestamp" | "timestamp_millis" => ScalarType::Timestamp(TimeForm::Rfc3339.into()),
            "json" => ScalarType::Json,
            _ => match name.strip_prefix("decimal") {
                Some(digits) => decimal(digits).ok_or_else(|| {
                    format!(
                        "'{name}' is not a valid type: write decimal(P,S), with P digits, 1 to {DECIMAL_DIGITS_MAX}, and S \
                         of them after the point"
                    )
                })?,
                None => return Err(unknown_type(name)),
            },
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
            ScalarType::Decimal { precision, scale } => {
                let name = format!("decimal({precision},{scale})");
                let bound = 10_i64.pow(u32::from(precision - scale));
                Spec {
                    name: name.clone(),
                    input: InputKind::Decimal { precision, scale },
                    json_schema: json!({
                        "type": ["number", "string"],
                        "description": format!("exact, with at most {scale} digits after the point"),
                        "exclusiveMinimum": -bound,
                        "exclusiveMaximum": bound,
                        "pattern": NUMBER_PATTERN,
                    }),
                    physical: if precision <= 9 { Physical::Int32 } else { Physical::Int64 },
                    logical: Some(LogicalType::decimal(scale.into(), precision.into())),
                    hive: name.clone(),
                    arrow: json!({ "name": "decimal", "precision": precision, "scale": scale, "bitWidth": 128 }),
                    stored: name,
                }
            }
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
        use ScalarType::{Decimal, Float64, Int32, Int64};
        matches!(self, Int32 | Int64 | Float64 | Decimal { .. })
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

/// A JSON number in a string, as a regular expression.
const NUMBER_PATTERN: &str = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$";

/// The type of the digits in `decimal(12,2)`, given as `(12,2)`.
fn decimal(digits: &str) -> Option<ScalarType> {
    let (precision, scale) = digits.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    let is_valid = (1..=DECIMAL_DIGITS_MAX).contains(&precision) && scale <= precision;
    is_valid.then_some(ScalarType::Decimal { precision, scale })
}

/// Says that there is no type of this name, and which one may be meant.
fn unknown_type(name: &str) -> String {
    let known = || ScalarType::NAMES.into_iter().chain(["list", "map", "struct"]);
    let hint = nearest(name, known()).map_or_else(
        || format!("known: {}", known().collect::<Vec<_>>().join(", ")),
        |meant| format!("did you mean '{meant}'?"),
    );
    format!("unknown type '{name}'; {hint}")
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

    /// A name of each type, and of several decimals.
    fn examples() -> Vec<String> {
        let of = |digits: &str| ScalarType::NAMES.map(|name| name.replace("P,S", digits));
        let mut names = ["12,2", "12,3", "13,2", "9,2", "1,0", "18,18"].map(of).concat();
        names.sort();
        names.dedup();
        names
    }

    #[test]
    fn a_decimal_has_1_to_18_digits_and_no_more_of_them_after_the_point() {
        for digits in ["(12,2)", "(12, 2)", "(1,0)", "(18,18)", "(9,0)"] {
            assert!(ScalarType::parse(&format!("decimal{digits}")).is_ok(), "{digits}");
        }
        let message = "'decimal(19,2)' is not a valid type: write decimal(P,S), with P digits, 1 to 18, and S of them \
                       after the point";
        assert_eq!(ScalarType::parse("decimal(19,2)").unwrap_err(), message);
        for digits in ["", "()", "(12)", "(0,0)", "(2,3)", "(12,-1)", "(12,2", "(12,2,1)", "(a,b)", "(256,2)", "s"] {
            assert!(ScalarType::parse(&format!("decimal{digits}")).is_err(), "{digits}");
        }
    }

    #[test]
    fn every_type_and_time_format_is_parsed_by_its_name() {
        for name in examples() {
            assert_eq!(ScalarType::parse(&name).unwrap().spec().name, name);
        }
        assert_eq!(ScalarType::parse("int").unwrap_err(), "unknown type 'int'; did you mean 'int64'?");
        assert!(ScalarType::parse("").unwrap_err().ends_with("date32, timestamp, json, list, map, struct"));
        for name in TimeForm::NAMES {
            assert!(TimeForm::parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn types_that_share_a_stored_name_are_the_same_in_a_file() {
        let specs: Vec<Spec> = examples().iter().map(|name| ScalarType::parse(name).unwrap().spec()).collect();
        for (left, right) in specs.iter().flat_map(|left| specs.iter().map(move |right| (left, right))) {
            let in_file = |spec: &Spec| (spec.physical, spec.logical.clone());
            assert_eq!(left.stored == right.stored, in_file(left) == in_file(right), "{} {}", left.name, right.name);
        }
    }
}
