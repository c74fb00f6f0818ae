//! The schemas of the shipped datasets, compared with those stored under `golden/` and with the files that are written.
//!
//! `UPDATE_GOLDEN=1 cargo test -p shardlake-pipeline --test datasets` rewrites the stored ones. Check the difference before you
//! commit it, because users rely on these schemas.

use std::path::Path;

use bytes::Bytes;
use parquet::basic::{LogicalType, Repetition, Type as PhysicalType};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::Type;
use pipeline::dataset::{Datasets, SchemaFormat};
use pipeline::encode::ProducerVersion;
use serde_json::{Value, json};

use crate::common::{Setup, ndjson};

const DATASETS: [&str; 5] = ["assessments", "events", "ses", "sms", "users"];
const LAKE: &str = "s3://lake";

fn schema(datasets: &Datasets, dataset: &str, format: SchemaFormat) -> String {
    let number = datasets.find(dataset).expect("it is shipped");
    datasets.schema(number, format, LAKE)
}

fn json_of(datasets: &Datasets, dataset: &str, format: SchemaFormat) -> Value {
    serde_json::from_str(&schema(datasets, dataset, format)).expect("the schema is JSON")
}

#[test]
fn the_schemas_equal_the_stored_ones() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let datasets = Setup::shipped().datasets();
    let formats = [
        (SchemaFormat::Athena, "athena.sql"),
        (SchemaFormat::Glue, "glue.json"),
        (SchemaFormat::JsonSchema, "json-schema.json"),
        (SchemaFormat::Arrow, "arrow.json"),
    ];
    let mut different = Vec::new();
    for dataset in DATASETS {
        let version = datasets.version(datasets.find(dataset).unwrap());
        for (format, ending) in formats {
            // The hash of the definition changes with every comment in it.
            let rendered = schema(&datasets, dataset, format).replace(version, "VERSION");
            let file = folder.join(format!("{dataset}.{ending}"));
            if update {
                std::fs::write(&file, &rendered).unwrap();
            }
            let stored = std::fs::read_to_string(&file).unwrap_or_default();
            if stored != rendered {
                let line = stored.lines().zip(rendered.lines()).position(|(left, right)| left != right);
                different.push(format!("{dataset}.{ending}, line {:?}", line.map(|line| line + 1)));
            }
        }
    }
    assert!(different.is_empty(), "schemas differ from the stored ones; see this file's head: {different:#?}");
}

/// A record for each dataset.
const RECORDS: [&str; 5] = [
    r#"{"id":"a-1","user_id":"u-1","type":"skills","timestamp":"2025-01-13T10:30:00Z"}"#,
    r#"{"event_type":"a","event_timestamp":1736764200123}"#,
    r#"{"eventType":"Send","mail":{"timestamp":"2025-01-13T10:30:00Z"}}"#,
    r#"{"eventType":"TEXT_DELIVERED","eventTimestamp":1736764200123,"messageId":"m"}"#,
    r#"{"user_id":"u-1","updated_at":"2025-01-13T10:30:00Z"}"#,
];

/// A file of each dataset, and its partition path.
fn files() -> Vec<(String, String, Bytes)> {
    let outcome = Setup::shipped().run().lines(ndjson(&RECORDS)).take();
    outcome.files.into_iter().map(|file| (file.dataset, file.path, file.bytes)).collect()
}

/// A Parquet column's type as Hive names it. Lists and maps must have the three levels that the format requires.
fn hive_of_parquet(field: &Type) -> String {
    let info = field.get_basic_info();
    if field.is_primitive() {
        let PhysicalType::BOOLEAN = field.get_physical_type() else {
            return match (field.get_physical_type(), info.logical_type_ref()) {
                (PhysicalType::INT32, None) => "int",
                (PhysicalType::INT32, Some(LogicalType::Date)) => "date",
                (PhysicalType::INT64, None) => "bigint",
                (PhysicalType::INT64, Some(LogicalType::Timestamp(_))) => "timestamp",
                (PhysicalType::INT32 | PhysicalType::INT64, Some(LogicalType::Decimal(of))) => {
                    return format!("decimal({},{})", of.precision, of.scale);
                }
                (PhysicalType::DOUBLE, None) => "double",
                (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)) => "string",
                other => panic!("{}: {other:?}", field.name()),
            }
            .to_owned();
        };
        return "boolean".to_owned();
    }
    let children = field.get_fields();
    let repeated = |name: &str| {
        assert_eq!((children.len(), children[0].name()), (1, name));
        assert_eq!(children[0].get_basic_info().repetition(), Repetition::REPEATED);
        children[0].get_fields()
    };
    match info.logical_type_ref() {
        Some(LogicalType::List) => {
            let [element] = repeated("list") else { panic!("a list has one element") };
            assert_eq!(element.name(), "element");
            format!("array<{}>", hive_of_parquet(element))
        }
        Some(LogicalType::Map) => {
            let [key, value] = repeated("key_value") else { panic!("a map has keys and values") };
            assert_eq!((key.name(), key.get_basic_info().repetition()), ("key", Repetition::REQUIRED));
            assert_eq!((value.name(), value.get_basic_info().repetition()), ("value", Repetition::OPTIONAL));
            format!("map<{},{}>", hive_of_parquet(key), hive_of_parquet(value))
        }
        None => {
            let field = |child: &std::sync::Arc<Type>| format!("{}:{}", child.name(), hive_of_parquet(child));
            format!("struct<{}>", children.iter().map(field).collect::<Vec<_>>().join(","))
        }
        other => panic!("{}: {other:?}", field.name()),
    }
}

/// The columns of a DDL, in order, with their types; and its partitions.
fn columns_of_athena(ddl: &str) -> [Vec<(String, String)>; 2] {
    let mut sections = ddl.split("\nPARTITIONED BY (\n");
    let section = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with("  `"));
        let column = |line: &str| {
            let (name, rest) = line.trim_start_matches("  `").split_once("` ").expect("a name and a type");
            let kind = rest.split(" COMMENT ").next().unwrap_or_default().trim_end_matches(',');
            // The fields of structs are in backticks too.
            (name.to_owned(), kind.replace('`', ""))
        };
        lines.map(column).collect::<Vec<_>>()
    };
    let columns = section(sections.next().expect("there is a table"));
    [columns, section(sections.next().expect("the table is partitioned"))]
}

#[test]
fn the_athena_table_has_the_columns_of_the_files() {
    let datasets = Setup::shipped().datasets();
    for (dataset, path, bytes) in files() {
        let reader = SerializedFileReader::new(bytes).unwrap();
        let root = reader.metadata().file_metadata().schema();
        let in_file: Vec<(String, String)> =
            root.get_fields().iter().map(|field| (field.name().to_owned(), hive_of_parquet(field))).collect();
        assert!(root.get_fields().iter().all(|field| field.get_basic_info().repetition() == Repetition::OPTIONAL));
        let [columns, partitions] = columns_of_athena(&schema(&datasets, &dataset, SchemaFormat::Athena));
        assert_eq!(columns, in_file, "{dataset}");
        let in_path: Vec<&str> = path.split('/').map(|segment| segment.split('=').next().unwrap()).collect();
        let names: Vec<&str> = partitions.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, in_path, "{dataset}");
        assert!(in_file.iter().all(|(name, _)| !in_path.contains(&name.as_str())), "a partition is not in the file");
    }
}

#[test]
fn glue_and_arrow_have_the_columns_of_athena() {
    let datasets = Setup::shipped().datasets();
    for dataset in DATASETS {
        let [columns, partitions] = columns_of_athena(&schema(&datasets, dataset, SchemaFormat::Athena));
        let glue = json_of(&datasets, dataset, SchemaFormat::Glue);
        let pairs = |list: &Value| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            list.as_array().unwrap().iter().map(|one| (text(&one["Name"]), text(&one["Type"]))).collect::<Vec<_>>()
        };
        assert_eq!(pairs(&glue["StorageDescriptor"]["Columns"]), columns);
        assert_eq!(pairs(&glue["PartitionKeys"]), partitions);
        assert_eq!(glue["StorageDescriptor"]["Location"], format!("{LAKE}/processed/{dataset}/"));
        let arrow = json_of(&datasets, dataset, SchemaFormat::Arrow);
        let fields = arrow["fields"].as_array().unwrap().iter();
        let arrow: Vec<(String, String)> =
            fields.map(|field| (field["name"].as_str().unwrap().to_owned(), hive_of_arrow(field))).collect();
        assert_eq!(arrow, columns);
    }
}

fn hive_of_arrow(field: &Value) -> String {
    let children = field["children"].as_array().expect("a field has children");
    let kind = &field["type"];
    match (kind["name"].as_str().expect("a type has a name"), kind["bitWidth"].as_u64()) {
        ("utf8", _) => "string".to_owned(),
        ("int", Some(32)) => "int".to_owned(),
        ("int", Some(64)) => "bigint".to_owned(),
        ("floatingpoint", _) => "double".to_owned(),
        ("bool", _) => "boolean".to_owned(),
        ("decimal", Some(128)) => format!("decimal({},{})", kind["precision"], kind["scale"]),
        ("date", _) => "date".to_owned(),
        ("timestamp", _) => {
            assert_eq!((&kind["unit"], &kind["timezone"]), (&"MICROSECOND".into(), &"UTC".into()));
            "timestamp".to_owned()
        }
        ("list", _) => format!("array<{}>", hive_of_arrow(&children[0])),
        ("map", _) => {
            let entries = children[0]["children"].as_array().expect("a field has children");
            assert_eq!(entries[0]["nullable"], false);
            format!("map<{},{}>", hive_of_arrow(&entries[0]), hive_of_arrow(&entries[1]))
        }
        ("struct", _) => {
            let field = |child: &Value| {
                format!("{}:{}", child["name"].as_str().expect("a field has a name"), hive_of_arrow(child))
            };
            format!("struct<{}>", children.iter().map(field).collect::<Vec<_>>().join(","))
        }
        other => panic!("{other:?}"),
    }
}

/// A definition whose names are reserved words, with descriptions that no catalog takes as they are.
const HOSTILE: &str = r#"
name = "order"
description = """Text messages; one row each.
It's C:\\new for 'each' message."""
partition_by = ["year", "month"]
recognize = { present = ["/at"] }
event_time = { pointer = "/at", format = "epoch_ms", not_before = "1999-01-01" }
[[column]]
name = "timestamp"
description = "First line.\nSecond\tline.\u0000"
from = "event_time"
type = "timestamp"
[[column]]
name = "values"
description = "DESCRIPTION"
pointer = "/values"
type = "list"
[[column.field]]
name = "from"
type = "string"
[[column.field]]
name = "end"
type = "int32"
[[column]]
name = "group"
pointer = "/group"
type = "struct"
[[column.field]]
name = "order"
type = "int32"
"#;

#[test]
fn every_name_of_the_athena_table_is_quoted_and_every_comment_fits() {
    let long = "é".repeat(300);
    let setup = Setup::of(&[&HOSTILE.replace("DESCRIPTION", &long)]);
    let datasets = setup.datasets();
    let ddl = schema(&datasets, "order", SchemaFormat::Athena);
    let cut = "é".repeat(127);
    for line in [
        "CREATE EXTERNAL TABLE IF NOT EXISTS `order` (",
        "  `timestamp` timestamp COMMENT 'First line. Second line.',",
        &format!("  `values` array<struct<`from`:string,`end`:int>> COMMENT '{cut}',"),
        "  `group` struct<`order`:int>,",
        r"COMMENT 'Text messages; one row each. It\'s C:\\new for \'each\' message.'",
        "  'projection.year.range' = '1999,2099',",
    ] {
        assert!(ddl.lines().any(|found| found == line), "{line} is missing in {ddl}");
    }
    let glue = json_of(&datasets, "order", SchemaFormat::Glue);
    assert_eq!(glue["Description"], r"Text messages; one row each. It's C:\new for 'each' message.");
    assert_eq!(glue["Parameters"]["projection.year.range"], "1999,2099");
    let columns = glue["StorageDescriptor"]["Columns"].as_array().unwrap();
    let of = |name: &str| columns.iter().find(|column| column["Name"] == name).unwrap();
    assert_eq!(of("timestamp")["Comment"], "First line. Second line.");
    assert_eq!(of("values")["Comment"], cut);
    assert_eq!(of("values")["Type"], "array<struct<from:string,end:int>>", "Glue's types have no backticks");
}

#[test]
fn a_table_that_athena_cannot_reach_says_so() {
    let datasets = Setup::shipped().datasets();
    let events = datasets.find("events").unwrap();
    let local = datasets.schema(events, SchemaFormat::Athena, "file:///it's/lake");
    assert!(local.starts_with("-- Athena reads s3:// locations only."), "{local}");
    assert!(local.contains(r"LOCATION 'file:///it\'s/lake/processed/events/'"), "{local}");
    assert!(schema(&datasets, "events", SchemaFormat::Athena).starts_with("CREATE EXTERNAL TABLE"));
    let assessments = schema(&datasets, "assessments", SchemaFormat::Athena);
    assert!(assessments.ends_with("MSCK REPAIR TABLE `assessments`;\n"), "{assessments}");
}

#[test]
fn the_promised_columns_exist() {
    let ingest = [
        ("ingest_stream", "string"),
        ("ingest_shard", "string"),
        ("ingest_sequence", "string"),
        ("ingest_subsequence", "bigint"),
        ("ingest_arrival_time", "timestamp"),
    ];
    let assessments = [
        ("assessment_id", "string"),
        ("user_id", "string"),
        ("score", "double"),
        ("completion_time", "int"),
        ("date", "date"),
        ("age_group", "string"),
        ("region", "string"),
        ("completed_at", "timestamp"),
    ];
    let datasets = Setup::shipped().datasets();
    let by_day = [("year", "int"), ("month", "int"), ("day", "int")];
    for (dataset, own, partitions) in [
        ("assessments", &assessments[..], [("type", "string"), ("year", "int"), ("month", "int")]),
        ("events", &[("event_type", "string"), ("user_id", "string")], by_day),
        ("users", &[("user_id", "string"), ("age_group", "string"), ("region", "string")], by_day),
    ] {
        let [columns, found] = columns_of_athena(&schema(&datasets, dataset, SchemaFormat::Athena));
        for (name, kind) in own.iter().chain(&ingest) {
            assert!(columns.contains(&((*name).to_owned(), (*kind).to_owned())), "{dataset} has {name} {kind}");
        }
        assert_eq!(found, partitions.map(|(name, kind)| (name.to_owned(), kind.to_owned())), "{dataset}");
        let number = datasets.find(dataset).unwrap();
        assert!(datasets.partition_columns(number).eq(partitions.iter().map(|(name, _)| *name)));
    }
    assert!(datasets.names().eq(["events", "assessments", "users", "ses", "sms"]), "in the order of precedence");
    assert!(datasets.need_key());
    assert_eq!(datasets.find("nothing"), None);
}

#[test]
fn an_event_keeps_the_fields_that_athenas_sample_schema_loses() {
    let record = r#"{"event_type":"_email.open","event_timestamp":1736764200123,"device":{"locale":{"code":"de_DE","country":"DE","language":"de"},"make":"Apple","model":"iPhone15,2","platform":{"name":"iOS","version":"18.1"}},"metrics":{"score":1.5,"price_in_millicents_usd":645},"session":{"session_id":"s","start_timestamp":1736764100000,"stop_timestamp":1736764200000},"attributes":{"campaign_id":"c","feedback":"opened","screen":"home"},"facets":{"email_channel":{"mail_event":{"mail":{"message_id":"m","message_send_timestamp":1736764000000,"headers_truncated":false,"from_address":"a@example.com"},"open":{"ip_address":"203.0.113.9","user_agent":"x"}}}},"client_context":{"custom":{"endpoint":"{\"ChannelType\":\"EMAIL\",\"Demographic\":{\"Make\":\"m\",\"Locale\":\"de_DE\"},\"Metrics\":{\"completed\":3.5},\"User\":{}}"}}}"#;
    let row = Setup::shipped().run().lines(record).take().row("events");
    for (name, expected) in [
        ("locale_code", "de_DE"),
        ("locale_country", "DE"),
        ("locale_language", "de"),
        ("device_make", "Apple"),
        ("device_model", "iPhone15,2"),
        ("platform_name", "iOS"),
        ("campaign_id", "c"),
        ("email_feedback", "opened"),
        ("email_message_id", "m"),
        ("email_open_network", "203.0.113.0/24"),
        ("endpoint_channel_type", "EMAIL"),
        ("endpoint_make", "m"),
    ] {
        assert_eq!(row[name], expected, "{name}");
    }
    assert_eq!(row["metrics"], serde_json::json!({ "score": 1.5 }));
    assert_eq!(row["endpoint_metrics"], serde_json::json!({ "completed": 3.5 }));
    assert_eq!(row["sms_price_in_millicents_usd"], 645.0);
    assert_eq!(row["email_headers_truncated"], false);
    assert_eq!(
        (&row["session_start"], &row["session_stop"]),
        (&1_736_764_100_000_000_i64.into(), &1_736_764_200_000_000_i64.into())
    );
}

#[test]
fn a_file_contains_its_provenance() {
    let datasets = Setup::shipped().datasets();
    for (dataset, _, bytes) in files() {
        let reader = SerializedFileReader::new(bytes).unwrap();
        let metadata = reader.metadata().file_metadata();
        let value = |key: &str| {
            let all = metadata.key_value_metadata().expect("there is some");
            all.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone())
        };
        assert_eq!(value("shardlake.dataset"), Some(dataset.clone()));
        assert_eq!(value("shardlake.definition").as_deref(), Some(datasets.version(datasets.find(&dataset).unwrap())));
        assert_eq!(value("shardlake.epoch").as_deref(), Some("e-1"));
        assert_eq!(value("shardlake.ranges"), None);
        assert_eq!(metadata.created_by(), Some(ProducerVersion::default().as_str()));
    }
}

#[test]
fn a_decimal_has_its_digits_in_every_schema() {
    let definition = r#"
name = "orders"
event_time = { pointer = "/at", format = "epoch_ms" }
recognize = { present = ["/at"] }
partition_by = ["year"]
column = [
  { name = "price", pointer = "/price", type = "decimal(12,2)", min = 0 },
  { name = "rate", pointer = "/rate", type = "decimal(9, 9)", required = true },
  { name = "parts", pointer = "/parts", type = "list", element = "decimal(18,0)" },
]
"#;
    let setup = Setup::of(&[definition]);
    let datasets = setup.datasets();
    let ddl = schema(&datasets, "orders", SchemaFormat::Athena);
    let [columns, _] = columns_of_athena(&ddl);
    let outcome = setup.run().lines(r#"{"at":1736764200123,"price":1.5,"rate":"0.5","parts":[7]}"#).take();
    let reader = SerializedFileReader::new(outcome.files[0].bytes.clone()).unwrap();
    let fields = reader.metadata().file_metadata().schema().get_fields();
    let in_file: Vec<_> = fields.iter().map(|field| (field.name().to_owned(), hive_of_parquet(field))).collect();
    assert_eq!(columns, in_file);
    let types: Vec<&str> = columns[..3].iter().map(|(_, hive)| hive.as_str()).collect();
    assert_eq!(types, ["decimal(12,2)", "decimal(9,9)", "array<decimal(18,0)>"]);
    let physical: Vec<_> = reader.metadata().file_metadata().schema_descr().columns()[..3].to_vec();
    let physical = physical.iter().map(|column| (column.physical_type(), column.type_precision(), column.type_scale()));
    let expected = [(PhysicalType::INT64, 12, 2), (PhysicalType::INT32, 9, 9), (PhysicalType::INT64, 18, 0)];
    assert_eq!(physical.collect::<Vec<_>>(), expected);

    let records = json_of(&datasets, "orders", SchemaFormat::JsonSchema);
    assert_eq!(records["properties"]["price"]["type"], json!(["number", "string", "null"]));
    assert_eq!(records["properties"]["rate"]["type"], json!(["number", "string"]));
    assert_eq!(records["properties"]["price"]["minimum"], 0);
    assert_eq!(records["properties"]["price"]["exclusiveMaximum"], 10_000_000_000_i64);
    let arrow = json_of(&datasets, "orders", SchemaFormat::Arrow);
    let expected = json!({ "name": "decimal", "precision": 12, "scale": 2, "bitWidth": 128 });
    assert_eq!(arrow["fields"][0]["type"], expected, "{arrow}");
}
