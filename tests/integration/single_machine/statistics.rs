//! The manifest of an epoch, compared with the footers of its files as the `parquet` crate reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::statistics::Statistics;
use serde_json::{Value, json};
use toml::de::DeTable;

use crate::common::folder::Folder;
use crate::single_machine::CATCH_UP;

const DEFINITIONS: [&str; 3] = [
    include_str!("../../../pipeline/datasets/events.toml"),
    include_str!("../../../pipeline/datasets/assessments.toml"),
    include_str!("../../../pipeline/datasets/users.toml"),
];

/// The most characters in a bound of texts.
const TEXT_CHARACTERS: usize = 16;

/// A bound of a column chunk.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Bound {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
}

/// What the footer of a file says about one column.
#[derive(Debug, Default)]
struct Column {
    path: String,
    bytes: i64,
    values: i64,
    nulls: u64,
    least: Option<Bound>,
    greatest: Option<Bound>,
}

/// The columns of a file by field id.
fn columns_of(reader: &SerializedFileReader<fs::File>) -> BTreeMap<i32, Column> {
    let mut columns: BTreeMap<i32, Column> = BTreeMap::new();
    for chunk in reader.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns) {
        let id = chunk.column_descr().self_type().get_basic_info().id();
        let column = columns.entry(id).or_default();
        column.path = chunk.column_path().string();
        column.bytes += chunk.compressed_size();
        column.values += chunk.num_values();
        let statistics = chunk.statistics().unwrap();
        column.nulls += statistics.null_count_opt().unwrap();
        let Some((min, max)) = bounds_of(statistics) else { continue };
        if column.least.as_ref().is_none_or(|least| min < *least) {
            column.least = Some(min);
        }
        if column.greatest.as_ref().is_none_or(|greatest| max > *greatest) {
            column.greatest = Some(max);
        }
    }
    columns
}

fn bounds_of(statistics: &Statistics) -> Option<(Bound, Bound)> {
    let text = |bytes: &[u8]| Bound::Text(String::from_utf8(bytes.to_vec()).unwrap());
    Some(match statistics {
        Statistics::Boolean(of) => (Bound::Bool(*of.min_opt()?), Bound::Bool(*of.max_opt()?)),
        Statistics::Int32(of) => (Bound::Int((*of.min_opt()?).into()), Bound::Int((*of.max_opt()?).into())),
        Statistics::Int64(of) => (Bound::Int(*of.min_opt()?), Bound::Int(*of.max_opt()?)),
        Statistics::Double(of) => (Bound::Double(*of.min_opt()?), Bound::Double(*of.max_opt()?)),
        Statistics::ByteArray(of) => (text(of.min_opt()?.data()), text(of.max_opt()?.data())),
        other => panic!("no column has this type: {other:?}"),
    })
}

fn bound(value: &Value) -> Bound {
    match value {
        Value::Bool(value) => Bound::Bool(*value),
        Value::String(text) => Bound::Text(text.clone()),
        number => number.as_i64().map_or_else(|| Bound::Double(number.as_f64().unwrap()), Bound::Int),
    }
}

/// Asserts that the bounds of an entry are those of the footer; long texts are shortened.
fn check_bounds(entry: &[Value], column: &Column) {
    let (lower, upper) = (bound(&entry[0]), bound(&entry[1]));
    let shortened = entry.get(2).map_or(0, |flags| flags.as_u64().unwrap());
    let (least, greatest) = (column.least.clone().unwrap(), column.greatest.clone().unwrap());
    let is_long = |bound: &Bound| matches!(bound, Bound::Text(text) if text.chars().count() > TEXT_CHARACTERS);
    assert_eq!((shortened & 1 != 0, shortened & 2 != 0), (is_long(&least), is_long(&greatest)), "{column:?}");
    let Bound::Text(lower_text) = &lower else {
        return assert_eq!((lower, upper), (least, greatest), "{column:?}");
    };
    let Bound::Text(least_text) = &least else { panic!("{column:?}: {entry:?}") };
    assert_eq!(*lower_text, least_text.chars().take(TEXT_CHARACTERS).collect::<String>());
    assert!(upper >= greatest && !is_long(&upper) && (is_long(&greatest) || upper == greatest), "{column:?}");
}

/// A definition's name, and its columns that a rule changes: `column`, or `column.field`.
fn anonymized_columns(definition: &str) -> (String, BTreeSet<String>) {
    let definition = DeTable::parse(definition).unwrap().into_inner();
    let name = |table: &DeTable<'_>| table["name"].get_ref().as_str().unwrap().to_owned();
    let is_anonymized = |table: &DeTable<'_>| table.contains_key("anonymize");
    let mut names = BTreeSet::new();
    for column in tables(&definition, "column") {
        if is_anonymized(column) {
            names.insert(name(column));
        }
        let members = tables(column, "field").into_iter().filter(|member| is_anonymized(member));
        names.extend(members.map(|member| format!("{}.{}", name(column), name(member))));
    }
    (name(&definition), names)
}

fn tables<'t>(table: &'t DeTable<'t>, key: &str) -> Vec<&'t DeTable<'t>> {
    let items = table.get(key).and_then(|value| value.get_ref().as_array());
    items.into_iter().flatten().map(|item| item.get_ref().as_table().unwrap()).collect()
}

/// The values of the partition columns in a key, as JSON has them.
fn partition_of(key: &str) -> Value {
    let segments = key.split('/').filter_map(|segment| segment.split_once('='));
    let typed = segments.map(|(name, value)| match name {
        "year" | "month" | "day" => (name.to_owned(), json!(value.parse::<u32>().unwrap())),
        _ => (name.to_owned(), json!(value)),
    });
    Value::Object(typed.collect())
}

#[test]
fn a_manifest_has_the_statistics_of_its_files_but_no_bounds_of_personal_data() {
    let folder = Folder::new();
    folder.ok(&["produce", "--to", "in/a.ndjson", "--count", "60000", "--seed", "3", "--bad-ratio", "0.01"]);
    // The lane is full several times. So files are closed while the epoch is read, and files have several row groups.
    let config = "[parquet]\nfile_bytes = \"256 KiB\"\n\
                  [limits]\nmemory = \"64 MiB\"\nrecord_bytes = \"1 MiB\"\nthreads = 1\n";
    folder.write("shardlake.toml", config);
    folder.ok(&[&CATCH_UP[..], &["--config", "shardlake.toml"]].concat());

    let anonymized: BTreeMap<String, BTreeSet<String>> = DEFINITIONS.into_iter().map(anonymized_columns).collect();
    let mut bounded: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut without_bounds = 0;
    let mut row_groups = Vec::new();
    for path in folder.files("lake/_commits") {
        let manifest: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        for object in manifest["objects"].as_array().unwrap() {
            let key = object["key"].as_str().unwrap();
            if object["kind"] != "processed" {
                assert!(object.get("columns").is_none() && object.get("partition").is_none(), "{object}");
                continue;
            }
            assert_eq!(object["partition"], partition_of(key), "{key}");
            let dataset = object["dataset"].as_str().unwrap();
            let anonymized = &anonymized[dataset];
            let reader =
                SerializedFileReader::new(fs::File::open(folder.path(&format!("lake/{key}"))).unwrap()).unwrap();
            row_groups.push(reader.num_row_groups());
            let mut columns = columns_of(&reader);
            columns.retain(|_, column| i64::try_from(column.nulls).unwrap() < column.values);
            for entry in object["columns"].as_array().unwrap() {
                let entry = entry.as_array().unwrap();
                let id = i32::try_from(entry[0].as_i64().unwrap()).unwrap();
                let column = columns.remove(&id).unwrap_or_else(|| panic!("{key}: field {id} has no values"));
                let counts = [json!(column.bytes), json!(column.values), json!(column.nulls)];
                assert_eq!(entry[1..4], counts, "{key}: {column:?}");
                let name = column.path.split('.').next().unwrap();
                if anonymized.contains(name) || anonymized.contains(&column.path) {
                    assert_eq!(entry.len(), 4, "{key}: {} is personal and has bounds", column.path);
                    without_bounds += 1;
                } else if entry.len() > 4 {
                    check_bounds(&entry[4..], &column);
                    bounded.entry(dataset.to_owned()).or_default().insert(column.path);
                }
            }
            assert!(columns.is_empty(), "{key}: columns without statistics: {columns:?}");
        }
    }
    assert!(without_bounds > 50, "{without_bounds} personal columns were seen");
    assert!(row_groups.len() > 10 && row_groups.iter().any(|groups| *groups > 1), "row groups: {row_groups:?}");
    for (dataset, some) in [
        ("events", ["event_type", "event_timestamp", "ingest_arrival_time"]),
        ("assessments", ["score", "completion_time", "date"]),
        ("users", ["marketing_opt_in", "locale", "updated_at"]),
    ] {
        assert!(some.iter().all(|name| bounded[dataset].contains(*name)), "{dataset}: {:?}", bounded[dataset]);
    }
}
