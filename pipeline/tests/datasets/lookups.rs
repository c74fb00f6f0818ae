//! Records joined to small reference tables, CSV or Parquet. A record without a row gets nulls or is rejected, and a hash
//! identifies the table.

use std::sync::Arc;

use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use pipeline::dataset::LookupTable;
use pipeline::dead_letter::code::Code;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::{Outcome, Setup, ndjson};

/// Visits, joined to countries; `lookup` is the rest of the lookup's definition.
fn visits(lookup: &str) -> String {
    format!(
        r#"
name = "visits"
event_time = {{ pointer = "/t", format = "epoch_ms" }}
recognize = {{ present = ["/t"] }}
partition_by = ["year"]
column = [
  {{ name = "country", pointer = "/country", type = "string" }},
  {{ name = "name", from = "lookup.countries.name", type = "string", personal = false }},
  {{ name = "rank", from = "lookup.countries.rank", type = "int64" }},
  {{ name = "share", from = "lookup.countries.share", type = "float64" }},
]
lookup = {{ name = "countries", file = "countries", key = "code", on = "country"{lookup} }}
"#
    )
}

const CSV: &str = "share,code,name,rank\n0.5,DE,Germany,1\n,FR,,2\n1e3,ÉÀ,\"Quoted, \"\"name\"\"\",\n";

/// A Parquet table of one row group; `write` writes its columns in order.
fn table_of(message: &str, write: impl FnOnce(&mut SerializedRowGroupWriter<'_, Vec<u8>>)) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(message).expect("a schema"));
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).expect("a file can be begun");
    let mut group = writer.next_row_group().expect("a row group can be begun");
    write(&mut group);
    group.close().expect("the row group is whole");
    writer.into_inner().expect("the file is whole")
}

/// Writes the next column; a level is 0 where a value is null.
fn column<T: DataType>(group: &mut SerializedRowGroupWriter<'_, Vec<u8>>, values: &[T::T], levels: Option<&[i16]>) {
    let mut column = group.next_column().expect("a column can be begun").expect("the schema has another column");
    column.typed::<T>().write_batch(values, levels, None).expect("the values are of the column's type");
    column.close().expect("the column is whole");
}

/// The same table in Parquet.
fn parquet_table() -> Vec<u8> {
    let message = "message table { optional double share; required binary code (UTF8); optional binary name (UTF8); \
                   optional int64 rank; }";
    let texts = |texts: &[&str]| texts.iter().map(|text| ByteArray::from(*text)).collect::<Vec<_>>();
    table_of(message, |group| {
        column::<DoubleType>(group, &[0.5, 1e3], Some(&[1, 0, 1]));
        column::<ByteArrayType>(group, &texts(&["DE", "FR", "ÉÀ"]), None);
        column::<ByteArrayType>(group, &texts(&["Germany", "Quoted, \"name\""]), Some(&[1, 0, 1]));
        column::<Int64Type>(group, &[1, 2], Some(&[1, 1, 0]));
    })
}

fn record(country: &Value) -> String {
    json!({ "t": 1_736_764_200_123_i64, "country": country }).to_string()
}

fn outcome(lookup: &str, table: Vec<u8>, countries: &[Value]) -> Outcome {
    let lines: Vec<String> = countries.iter().map(record).collect();
    Setup::of(&[visits(lookup)]).table("countries", table).run().lines(ndjson(&lines)).take()
}

fn joined(outcome: &Outcome) -> Vec<Value> {
    let rows = outcome.rows("visits");
    rows.iter().map(|row| json!([row["country"], row["name"], row["rank"], row["share"]])).collect()
}

#[test]
fn a_record_gets_the_values_of_its_row_and_null_without_a_row() {
    for table in [CSV.as_bytes().to_vec(), parquet_table()] {
        for lookup in ["", ", missing = \"null\""] {
            let countries = ["DE", "XX", "FR", "ÉÀ", "de", "", "DE"].map(Value::from);
            let outcome = outcome(lookup, table.clone(), &[&countries[..], &[Value::Null]].concat());
            assert_eq!(outcome.dead_letters.len(), 0);
            assert_eq!(
                joined(&outcome),
                [
                    json!(["DE", "Germany", 1, 0.5]),
                    json!(["XX", null, null, null]),
                    json!(["FR", null, 2, null]),
                    json!(["ÉÀ", "Quoted, \"name\"", null, 1e3]),
                    json!(["de", null, null, null]),
                    json!(["", null, null, null]),
                    json!(["DE", "Germany", 1, 0.5]),
                    json!([null, null, null, null]),
                ]
            );
        }
    }
}

#[test]
fn a_record_without_a_row_is_rejected_if_the_definition_says_so() {
    let countries = ["DE", "XX", "FR", "de"].map(Value::from);
    for table in [CSV.as_bytes().to_vec(), parquet_table()] {
        let outcome = outcome(", missing = \"reject\"", table, &[&countries[..], &[Value::Null]].concat());
        assert_eq!(outcome.codes(), [Code::LookupMissing; 2]);
        for dead_letter in &outcome.dead_letters {
            assert_eq!((dead_letter.stage.as_str(), dead_letter.field.as_deref()), ("enrich", Some("/country")));
            assert!(!dead_letter.about.contains("XX"));
        }
        // A record without a value to look up is not rejected.
        assert_eq!(
            joined(&outcome),
            [json!(["DE", "Germany", 1, 0.5]), json!(["FR", null, 2, null]), json!([null, null, null, null])]
        );
    }
}

#[test]
fn a_key_is_compared_without_its_escapes() {
    let lines = [r#"{"t":1736764200123,"country":"\u0044E"}"#, r#"{"t":1736764200123,"country":"\u00c9\u00C0"}"#];
    let outcome = Setup::of(&[visits("")]).table("countries", CSV).run().lines(ndjson(&lines)).take();
    assert_eq!(joined(&outcome), [json!(["DE", "Germany", 1, 0.5]), json!(["ÉÀ", "Quoted, \"name\"", null, 1e3])]);
}

#[test]
fn a_personal_key_is_looked_up_before_it_becomes_a_pseudonym() {
    let definition = r#"
name = "visits"
event_time = { pointer = "/t", format = "epoch_ms" }
recognize = { present = ["/t"] }
partition_by = ["year"]
column = [
  { name = "user_id", pointer = "/user_id", type = "string", anonymize = { rule = "pseudonym" } },
  { name = "segment", from = "lookup.segments.segment", type = "string" },
  { name = "cohort", from = "lookup.cohorts.cohort", type = "int64" },
]
lookup = [
  { name = "segments", file = "segments", key = "user", on = "user_id" },
  { name = "cohorts", file = "cohorts", key = "user", on = "user_id" },
]
"#;
    let setup = Setup::of(&[definition])
        .table("segments", "user,segment\nu-1,gold\nu-2,silver\n")
        .table("cohorts", "cohort,user\n7,u-2\n8,u-3\n");
    let records = (1..=4).map(|n| json!({ "t": 1_736_764_200_123_i64, "user_id": format!("u-{n}") }).to_string());
    let rows = setup.run().lines(ndjson(&records.collect::<Vec<_>>())).take().rows("visits");
    let found: Vec<Value> = rows.iter().map(|row| json!([row["segment"], row["cohort"]])).collect();
    assert_eq!(found, [json!(["gold", null]), json!(["silver", 7]), json!([null, 8]), json!([null, null])]);
    assert!(rows.iter().all(|row| row["user_id"].as_str().is_some_and(|user| user.len() == 32)));
}

#[test]
fn joins_give_the_same_result_cycle_after_cycle() {
    let mut run = Setup::of(&[visits(", missing = \"reject\"")]).table("countries", CSV).run();
    for cycle in 0..5 {
        let countries = ["DE", "XX", "FR"].map(|country| record(&json!(country)));
        let outcome = run.lines(ndjson(&countries[..=cycle % 3])).take();
        assert_eq!(outcome.dead_letters.len(), usize::from(cycle % 3 > 0));
        assert_eq!(joined(&outcome)[0], json!(["DE", "Germany", 1, 0.5]));
    }
}

#[test]
fn a_table_is_identified_by_its_content() {
    let hash = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let table = LookupTable::read(CSV.as_bytes(), "code").unwrap();
    assert_eq!(table.content_hash(), hash(CSV.as_bytes()));
    assert_eq!(LookupTable::read(&parquet_table(), "code").unwrap().content_hash(), hash(&parquet_table()));

    let version = |table: &str| Setup::of(&[visits("")]).table("countries", table).datasets().version(0).to_owned();
    assert_eq!(version(CSV), version(CSV));
    assert_ne!(version(CSV), version(&CSV.replace("Germany", "Deutschland")), "another table is another version");
}

#[test]
fn the_version_of_the_tables_is_in_every_file() {
    let outcome = outcome("", CSV.into(), &[json!("DE")]);
    let reader = SerializedFileReader::new(outcome.files[0].bytes.clone()).unwrap();
    let metadata = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let version = metadata.iter().find(|pair| pair.key == "shardlake.definition").unwrap().value.clone();
    let datasets = Setup::of(&[visits("")]).table("countries", CSV).datasets();
    assert_eq!(version.as_deref(), Some(datasets.version(0)));
    assert!(datasets.lookups(0).eq(["countries"]));
}

#[test]
fn a_parquet_table_may_have_columns_of_other_types() {
    let table =
        table_of("message table { required int32 code; required boolean flag; required int32 day (DATE); }", |group| {
            column::<Int32Type>(group, &[7, -1], None);
            column::<BoolType>(group, &[true, false], None);
            column::<Int32Type>(group, &[0, 20_101], None);
        });
    let definition = visits("").replace("countries.name", "countries.day").replace("countries.rank", "countries.code");
    let definition =
        definition.replace("  { name = \"share\", from = \"lookup.countries.share\", type = \"float64\" },\n", "");
    let lines = ndjson(&[record(&json!("-1")), record(&json!("7"))]);
    let rows = Setup::of(&[definition]).table("countries", table).run().lines(lines).take().rows("visits");
    let found: Vec<Value> = rows.iter().map(|row| json!([row["name"], row["rank"]])).collect();
    assert_eq!(found, [json!(["2025-01-13", -1]), json!(["1970-01-01", 7])]);
}
