//! A dataset as a table of a catalog: the DDL of Athena, and the table of Glue.
//!
//! Owns: quoting and escaping in Athena's DDL, what a catalog takes as a comment, and how Athena derives partitions from their
//! names (partition projection). Does not own: the types of scalars (`types`), the other schemas (`schema`).
//!
//! Athena's DDL is Hive's. Every name is in backticks: of the table, the columns, and the fields of structs, since any of them
//! may be a reserved word (Athena's user guide, "Escape reserved keywords in queries"). Inside a string, a backslash escapes.
//! Glue's type strings have no backticks.
//!
//! A comment in Glue is one line of at most 255 bytes (Glue's API, "Column", "Single-line string pattern").

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::dataset::definition::Definition;
use crate::dataset::plan::{ColumnType, Partition, Plan};
use crate::layout::DATE_PARTS;
use crate::time::{DAY_MS, day_of};

/// Bytes of a comment.
const COMMENT_BYTES_MAX: usize = 255;
/// The last year of the partitions that Athena derives. Athena counts through a range, so a later one costs every query.
const LAST_YEAR: u16 = 2099;

/// `CREATE EXTERNAL TABLE` for Athena. `location` is the folder of the dataset's files, with a final slash.
pub(super) fn athena(definition: &Definition, plan: &Plan, location: &str) -> String {
    let columns = plan.columns.iter().filter(|column| column.in_file).map(|column| {
        let comment = match comment(&column.description) {
            text if text.is_empty() => String::new(),
            text => format!(" COMMENT {}", literal(&text)),
        };
        format!("  {} {}{comment}", quoted(&column.name), hive_type(&column.data_type, quoted))
    });
    let columns: Vec<String> = columns.collect();
    let partitions = plan.partitions.iter().map(Partition::name);
    let partitions: Vec<String> =
        partitions.map(|name| format!("  {} {}", quoted(name), partition_type(name))).collect();
    let properties = table_properties(definition, plan, location);
    let is_projected = properties.iter().any(|(key, _)| key == "projection.enabled");
    let properties: Vec<String> =
        properties.iter().map(|(key, value)| format!("  {} = {}", literal(key), literal(value))).collect();
    let table = quoted(&plan.name);
    let mut note = String::new();
    if !location.starts_with("s3://") {
        note += "-- Athena reads s3:// locations only. Name the lake on S3 with --lake s3://BUCKET/PREFIX.\n";
    }
    let comment = match comment(&definition.description) {
        text if text.is_empty() => String::new(),
        text => format!("COMMENT {}\n", literal(&text)),
    };
    let repair = if is_projected {
        String::new()
    } else {
        format!("-- Then, and whenever there are new partitions: MSCK REPAIR TABLE {table};\n")
    };
    format!(
        "{note}CREATE EXTERNAL TABLE IF NOT EXISTS {table} (\n{}\n)\n{comment}PARTITIONED BY (\n{}\n)\nSTORED AS PARQUET\n\
         LOCATION {}\nTBLPROPERTIES (\n{}\n);\n{repair}",
        columns.join(",\n"),
        partitions.join(",\n"),
        literal(location),
        properties.join(",\n"),
    )
}

/// The `TableInput` of Glue's CreateTable. `location` is the folder of the dataset's files, with a final slash.
pub(super) fn glue(definition: &Definition, plan: &Plan, location: &str) -> Value {
    let columns = plan.columns.iter().filter(|column| column.in_file).map(|column| {
        let data_type = hive_type(&column.data_type, str::to_owned);
        json!({ "Name": column.name, "Type": data_type, "Comment": comment(&column.description) })
    });
    let columns: Vec<Value> = columns.collect();
    let partitions = plan.partitions.iter().map(Partition::name);
    let partitions: Vec<Value> = partitions.map(|name| json!({ "Name": name, "Type": partition_type(name) })).collect();
    let parameters: Map<String, Value> = table_properties(definition, plan, location)
        .into_iter()
        .map(|(key, value)| (key, Value::String(value)))
        .collect();
    json!({
        "Name": *plan.name,
        "Description": comment(&definition.description),
        "TableType": "EXTERNAL_TABLE",
        "Parameters": parameters,
        "PartitionKeys": partitions,
        "StorageDescriptor": {
            "Columns": columns,
            "Location": location,
            "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
            "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
            "SerdeInfo": {
                "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
            },
        },
    })
}

/// A type as Hive writes it. `field` writes the name of a struct's field.
fn hive_type(data_type: &ColumnType, field: fn(&str) -> String) -> String {
    match data_type {
        ColumnType::Scalar(scalar) => scalar.spec().hive,
        ColumnType::List(element) => format!("array<{}>", hive_type(element, field)),
        ColumnType::Map(value) => format!("map<string,{}>", hive_type(value, field)),
        ColumnType::Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, of)| format!("{}:{}", field(name), hive_type(of, field))).collect();
            format!("struct<{}>", fields.join(","))
        }
    }
}

fn partition_type(name: &str) -> &'static str {
    if DATE_PARTS.contains(&name) { "int" } else { "string" }
}

/// Properties of a table. If it is partitioned by dates alone, they include how Athena derives its partitions.
///
/// Texts are never projected: a value outside the list would be invisible in every query, without an error.
fn table_properties(definition: &Definition, plan: &Plan, location: &str) -> Vec<(String, String)> {
    let mut properties = vec![
        ("classification".to_owned(), "parquet".to_owned()),
        ("parquet.compression".to_owned(), "ZSTD".to_owned()),
    ];
    let names: Vec<&str> = plan.partitions.iter().map(Partition::name).collect();
    if names.iter().all(|name| DATE_PARTS.contains(name)) {
        properties.push(("projection.enabled".to_owned(), "true".to_owned()));
        for name in &names {
            let (range, digits) = match *name {
                "year" => (years(definition.event_time.not_before_ms), 4),
                "month" => ("1,12".to_owned(), 2),
                _ => ("1,31".to_owned(), 2),
            };
            properties.push((format!("projection.{name}.type"), "integer".to_owned()));
            properties.push((format!("projection.{name}.range"), range));
            properties.push((format!("projection.{name}.digits"), digits.to_string()));
        }
        let template: Vec<String> = names.iter().map(|name| format!("{name}=${{{name}}}/")).collect();
        properties.push(("storage.location.template".to_owned(), format!("{location}{}", template.concat())));
    }
    properties
}

/// The years that a dataset's rows may have. No row is before the least event time, so no partition is outside the range.
fn years(not_before_ms: i64) -> String {
    let first = u16::try_from(day_of(not_before_ms.div_euclid(DAY_MS)).year).unwrap_or(0);
    format!("{first},{}", LAST_YEAR.max(first))
}

/// A description as a comment that both catalogs take: one line, of at most 255 bytes, without control characters.
fn comment(description: &str) -> String {
    let words = description.split(|c: char| c.is_whitespace() || c.is_control() || is_noncharacter(c));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let mut text = words.join(" ");
    text.truncate(text.floor_char_boundary(COMMENT_BYTES_MAX));
    text.truncate(text.trim_end().len());
    text
}

/// Whether Unicode assigns no character, so that Glue refuses it: the last two of a plane, and U+FDD0 to U+FDEF.
fn is_noncharacter(c: char) -> bool {
    matches!(u32::from(c) & 0xFFFF, 0xFFFE | 0xFFFF) || matches!(c, '\u{FDD0}'..='\u{FDEF}')
}

/// A name in Hive's backticks.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text as a string of Hive.
fn literal(text: &str) -> String {
    let escaped: Cow<'_, str> =
        if text.contains(['\\', '\'']) { text.replace('\\', "\\\\").replace('\'', "\\'").into() } else { text.into() };
    format!("'{escaped}'")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_comment_is_one_line_that_is_cut_at_a_character() {
        assert_eq!(comment("  First line.\r\n\tSecond\u{2028}line.\u{0}\u{85} "), "First line. Second line.");
        assert_eq!(comment(&"é".repeat(200)), "é".repeat(127), "254 bytes");
        assert_eq!(comment(&format!("{} b", "a".repeat(254))), "a".repeat(254), "no space at the end");
        assert_eq!(comment("x\u{FFFE}y\u{FDD0}z\u{1FFFF}"), "x y z");
        assert_eq!(comment("\n\t"), "");
    }

    #[test]
    fn a_literal_reads_back_as_the_text() {
        assert_eq!(literal(r"It's C:\new"), r"'It\'s C:\\new'");
        assert_eq!(literal(r"\'"), r"'\\\''");
    }

    #[test]
    fn the_years_of_a_table_begin_with_the_least_event_time() {
        for (time, expected) in [
            ("1999-01-01", "1999,2099"),
            ("2010-01-01", "2010,2099"),
            ("2010-01-01T00:00:00+14:00", "2009,2099"),
            ("0001-01-01", "1,2099"),
            ("2150-06-01", "2150,2150"),
        ] {
            assert_eq!(years(crate::time::parse_rfc3339_or_date(time).unwrap()), expected, "{time}");
        }
    }

    proptest! {
        #[test]
        fn no_comment_breaks_the_line_or_the_literal(text in "[\\PC'\\\\`;\n\r\t\u{0}-\u{1f}]{0,300}") {
            let comment = comment(&text);
            prop_assert!(comment.len() <= COMMENT_BYTES_MAX && !comment.contains(char::is_control));
            let quoted = literal(&comment);
            let inside = &quoted[1..quoted.len() - 1];
            let (mut read, mut characters) = (String::new(), inside.chars());
            while let Some(c) = characters.next() {
                prop_assert!(c != '\'', "the literal ends early");
                read.push(if c == '\\' { characters.next().unwrap() } else { c });
            }
            prop_assert_eq!(read, comment);
        }
    }
}
