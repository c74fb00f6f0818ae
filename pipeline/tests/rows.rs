//! Rows that are read back to be compared: equal values have equal hashes, and no others do.
//!
//! The reference is the JSON of the same files as the parquet crate's record API reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use pipeline::layout::PartitionPath;
use pipeline::rows::{ColumnValue, FileParts, NOT_COMPARED, RowFile, RowIdentity, ShownValue, footer_begin};
use serde_json::{Map, Value, json};

use crate::common::{BASE, File, SHARD, STREAM, Setup, key, ndjson};

const HEAD: &str = r#"
name = "orders"
partition_by = ["kind", "month"]
[[recognize]]
present = ["/at"]
[event_time]
pointer = "/at"
"#;

/// Columns of every nesting, in two orders of columns and of fields.
const COLUMNS: [&str; 7] = [
    "[[column]]\nname = \"kind\"\npointer = \"/kind\"\ntype = \"string\"\n",
    "[[column]]\nname = \"amount\"\npointer = \"/amount\"\ntype = \"int64\"\n",
    "[[column]]\nname = \"price\"\npointer = \"/price\"\ntype = \"decimal(9,2)\"\n",
    "[[column]]\nname = \"ok\"\npointer = \"/ok\"\ntype = \"bool\"\n",
    "[[column]]\nname = \"tags\"\npointer = \"/tags\"\ntype = \"list\"\nelement = \"float64\"\n",
    "[[column]]\nname = \"labels\"\npointer = \"/labels\"\ntype = \"map\"\nvalue = \"int64\"\nallow = [\"a\", \"b\"]\n",
    "[[column]]\nname = \"device\"\npointer = \"/device\"\ntype = \"struct\"\n",
];
const LINES: &str = "[[column]]\nname = \"lines\"\npointer = \"/lines\"\ntype = \"list\"\n";
const FIELDS: [&str; 2] =
    ["[[column.field]]\nname = \"sku\"\ntype = \"string\"\n", "[[column.field]]\nname = \"n\"\ntype = \"int32\"\n"];

fn definition() -> String {
    let fields = FIELDS.concat();
    format!("{HEAD}{}{fields}{LINES}{fields}", COLUMNS.concat())
}

/// The same columns and fields in another order; an integer has another width, and there is a column more, and a field.
fn reordered() -> String {
    let fields = [FIELDS[1], FIELDS[0], "[[column.field]]\nname = \"later\"\ntype = \"string\"\n"].concat();
    let mut columns: Vec<String> = COLUMNS[..6].iter().map(|column| (*column).to_owned()).collect();
    columns.insert(0, format!("{}{fields}", COLUMNS[6]));
    columns.reverse();
    let columns = columns.concat().replace(
        "name = \"amount\"\npointer = \"/amount\"\ntype = \"int64\"",
        "name = \"amount\"\npointer = \"/amount\"\ntype = \"int32\"",
    );
    let more = "[[column]]\nname = \"later\"\npointer = \"/later\"\ntype = \"timestamp\"\n";
    format!("{HEAD}{LINES}{fields}{more}{columns}")
}

fn records() -> Vec<String> {
    let values: [&[Value]; 7] = [
        &[json!(null), json!(0), json!(7), json!(-7)],
        &[json!(null), json!(0.5), json!(12.25)],
        &[json!(null), json!(true), json!(false)],
        &[
            json!(null),
            json!([]),
            json!([null]),
            json!([1.5]),
            json!([1.5, null]),
            json!([null, 1.5]),
            json!([1.5, 2.5]),
        ],
        &[json!(null), json!({}), json!({"a": 1}), json!({"b": 1}), json!({"a": 1, "b": 2}), json!({"a": null})],
        &[
            json!(null),
            json!({}),
            json!({"sku": "x"}),
            json!({"n": 1}),
            json!({"sku": "x", "n": 1}),
            json!({"sku": ""}),
        ],
        &[
            json!(null),
            json!([]),
            json!([null]),
            json!([{}]),
            json!([{"sku": "x"}]),
            json!([{"sku": "x"}, {}]),
            json!([{}, {"sku": "x"}]),
            json!([{"sku": "x", "n": 1}, null, {"n": 2}]),
        ],
    ];
    let names = ["amount", "price", "ok", "tags", "labels", "device", "lines"];
    let mut records = Vec::new();
    for (name, values) in names.iter().zip(values) {
        for value in values {
            let mut record = json!({"at": "2025-01-13T10:30:00Z", "kind": "k/1"});
            record[*name] = value.clone();
            records.push(record.to_string());
        }
    }
    records
}

fn files(definition: &str, records: &[String]) -> Vec<File> {
    let outcome = Setup::of(&[definition]).run().lines(ndjson(records)).take();
    assert_eq!(outcome.codes(), []);
    outcome.files
}

/// Hashes of the columns of each row, by the hash of its identity, beside its JSON.
type Hashes = BTreeMap<u128, (u64, BTreeMap<String, u64>, Map<String, Value>)>;

fn read(file: &File, bytes: &Bytes) -> Hashes {
    let path = PartitionPath::parse(&file.path).expect("a file has a valid path");
    let opened = RowFile::open(bytes.clone(), Some(&path)).expect("the file is readable");
    assert_eq!(opened.rows(), file.rows.len() as u64);
    let mut found = Hashes::new();
    let all = |batch: &pipeline::rows::RowBatch<'_>| {
        for row in 0..batch.identities.len() {
            let hashes = opened.columns().iter().zip(batch.columns);
            let hashes = hashes.map(|(name, hashes)| (name.clone(), hashes[row])).collect();
            let json = file.rows[usize::try_from(batch.first_row).expect("rows in memory") + row].clone();
            let before = found.insert(batch.identities[row], (batch.rows[row], hashes, json));
            assert!(before.is_none(), "identities differ");
        }
    };
    opened.read(|_, _| true, all).expect("the rows are readable");
    found
}

fn all(definition: &str, compact: bool) -> Hashes {
    let files = files(definition, &records());
    files.iter().flat_map(|file| read(file, if compact { &file.compact } else { &file.bytes })).collect()
}

/// What a value is without fields that are null, which another definition may not have.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect(),
        Value::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}

#[test]
fn hashes_are_equal_exactly_where_values_are() {
    let sides =
        [all(&definition(), false), all(&definition(), true), all(&reordered(), false), all(&reordered(), true)];
    let rows: Vec<_> = sides.iter().flat_map(|side| side.values()).collect();
    assert_eq!(rows.len(), 4 * records().len());
    let names = ["amount", "price", "ok", "tags", "labels", "device", "lines", "later"];
    let null = Value::Null;
    let mut equal = 0;
    for (row, hashes, json) in &rows {
        assert_eq!(hashes["kind"], rows[0].1["kind"]);
        for (other_row, other_hashes, other_json) in &rows {
            let mut same = true;
            for name in names {
                let hash = |hashes: &BTreeMap<String, u64>| hashes.get(name).copied().unwrap_or(0);
                // An empty map stays one: only fields of structs may be missing.
                let value = |json: &Map<String, Value>| match name {
                    "labels" => json.get(name).unwrap_or(&null).clone(),
                    _ => plain(json.get(name).unwrap_or(&null)),
                };
                let is_same = value(json) == value(other_json);
                assert_eq!(hash(hashes) == hash(other_hashes), is_same, "{name}: {json:?} and {other_json:?}");
                same &= is_same;
            }
            assert_eq!(row == other_row, same);
            equal += u32::from(same);
        }
    }
    assert!(equal > 4 * 4 * 36, "the same record has the same hash in all four files");
    // The same records have the same identities.
    assert!(sides[1..].iter().all(|side| side.keys().eq(sides[0].keys())));
}

#[test]
fn a_text_in_the_path_is_the_text_of_a_column() {
    let in_file = definition().replace("partition_by = [\"kind\", \"month\"]", "partition_by = [\"month\"]");
    let kind = |definition: &str| all(definition, false).into_values().next().unwrap().1["kind"];
    assert_eq!(kind(&definition()), kind(&in_file));
    let without_kind: Vec<String> = records().iter().map(|record| record.replace("k/1", "")).collect();
    let file = &files(&definition(), &without_kind)[0];
    assert_eq!(read(file, &file.bytes).into_values().next().unwrap().1["kind"], 0, "{}", file.path);
}

#[test]
fn the_hash_of_an_identity_is_that_of_its_parts() {
    let record = r#"{"at":"2025-01-13T10:30:00Z","kind":"k"}"#.to_owned();
    let file = &files(&definition(), &[record])[0];
    let found = *read(file, &file.bytes).keys().next().unwrap();
    let of = |subsequence| {
        let sequence = BASE.to_string();
        RowIdentity::hash(STREAM.as_bytes(), SHARD.as_bytes(), sequence.as_bytes(), subsequence)
    };
    assert_eq!(found, of(0));
    assert_ne!(found, of(1));
}

#[test]
fn only_columns_with_bounds_are_shown_and_nulls() {
    let records = [
        r#"{"at":"2025-01-13T10:30:00Z","kind":"k","amount":1,"price":0.5,"ok":true,"tags":[1]}"#.to_owned(),
        r#"{"at":"2025-01-13T10:30:00Z","kind":"k","amount":2,"price":12.25}"#.to_owned(),
        r#"{"at":"2025-01-13T10:30:00Z","kind":"k","amount":3}"#.to_owned(),
    ];
    let file = &files(&definition(), &records)[0];
    let path = PartitionPath::parse(&file.path).expect("a file has a valid path");
    let opened = RowFile::open(file.bytes.clone(), Some(&path)).unwrap();
    // Fields get their ids in the order of the definition: `kind` is 1, `amount` 2, `price` 3.
    let rows = opened.show(&BTreeSet::from([0, 2]), &BTreeSet::from([2])).unwrap();
    assert_eq!(rows.iter().map(|row| row.row).collect::<Vec<_>>(), [0, 2]);
    let [first, last] = &rows[..] else { panic!("{rows:?}") };
    let value = |value: Value| ShownValue::Value(value);
    assert_eq!((&first.values["amount"], &last.values["amount"]), (&value(json!(1)), &value(json!(3))));
    assert_eq!((&first.values["price"], &last.values["price"]), (&ShownValue::Hidden, &value(Value::Null)));
    assert_eq!((&first.values["kind"], &first.values["month"]), (&value(json!("k")), &value(json!("1"))));
    assert_eq!(first.values["tags"], ShownValue::Hidden);
    assert!(NOT_COMPARED.iter().all(|name| !first.values.contains_key(*name)));
    let RowIdentity { stream, shard, sequence, subsequence } = &first.identity;
    assert_eq!((&**stream, &**shard, &**sequence, *subsequence), (STREAM, SHARD, &*BASE.to_string(), 0));
}

#[test]
fn what_is_not_a_file_of_rows_is_refused() {
    assert!(RowFile::open(Bytes::from_static(b"PAR1 nothing"), None).is_err());
    let file = &files(&definition(), &records()[..3])[0];
    let cut = file.bytes.slice(..file.bytes.len() - 9);
    assert!(RowFile::open(cut, None).unwrap_err().to_string().starts_with("it cannot be read as rows of a lake: "));
}

/// The same file, of which only these bytes are in memory.
fn only(file: &Bytes, ranges: &[Range<u64>]) -> FileParts {
    let mut parts = FileParts::new(file.len() as u64);
    let at = |offset: u64| usize::try_from(offset).expect("a file in memory");
    for range in ranges {
        parts.add(range.start, file.slice(at(range.start)..at(range.end)));
    }
    parts
}

/// Finds rows, with no other bytes than those that each step names. Returns them, and how many bytes were needed beside the footer.
fn find(bytes: &Bytes, path: &PartitionPath, conditions: &[ColumnValue]) -> (Vec<(u64, String)>, u64) {
    let length = bytes.len() as u64;
    let begin = footer_begin(length, bytes).expect("a file has a footer");
    let mut ranges = Vec::from_iter(std::iter::once(begin..length));
    let open =
        |ranges: &[Range<u64>]| RowFile::open_parts(only(bytes, ranges), Some(path)).expect("its footer is in memory");
    let filters = open(&ranges).bytes_of_filters(conditions);
    ranges.extend(filters);
    let needed = |ranges: &[Range<u64>]| ranges[1..].iter().map(|range| range.end - range.start).sum::<u64>();
    let Some(columns) = open(&ranges).bytes_to_find(conditions) else { return (Vec::new(), needed(&ranges)) };
    ranges.extend(columns);
    let rows = open(&ranges).find(conditions).expect("its columns are in memory");
    ranges.extend(open(&ranges).bytes_to_identify(&rows));
    let found = open(&ranges).identify(&rows).expect("its identities are in memory");
    assert!(found.iter().all(|row| row.arrival_ms.is_some()));
    (found.into_iter().map(|row| (row.row, row.identity.sequence)).collect(), needed(&ranges))
}

/// Whether a record is wanted, by its number.
type Wants<'w> = &'w dyn Fn(usize) -> bool;

#[test]
fn rows_are_found_by_their_values_from_parts_of_a_file() {
    let definition = format!(
        "{}[[column]]\nname = \"who\"\npointer = \"/who\"\ntype = \"string\"\nanonymize = {{ rule = \"pseudonym\" }}\n\
         [[column]]\nname = \"day\"\npointer = \"/day\"\ntype = \"date32\"\n",
        definition()
    );
    let record = |number: usize| {
        let price = if number.is_multiple_of(5) {
            json!(null)
        } else {
            json!(format!("{}.25", number % 40).parse::<f64>().unwrap())
        };
        json!({
            "at": "2025-01-13T10:30:00Z", "kind": "k/1", "amount": number % 1_000, "price": price, "ok": number.is_multiple_of(7),
            "device": {"sku": format!("sku-{}", number % 300)}, "who": format!("person {number}"), "tags": [1.5],
            "day": format!("2025-01-{:02}", number % 28 + 1), "lines": [{"sku": "x"}],
        })
        .to_string()
    };
    let records: Vec<String> = (0..30_000).map(record).collect();
    let outcome = Setup::of(&[&definition]).run().lines(ndjson(&records)).take();
    let datasets = Setup::of(&[&definition]).datasets();
    let is = |column: &str, text: &str| ColumnValue {
        column: column.to_owned(),
        texts: datasets.stored_texts(0, column, text, Some(&key())),
    };
    let asked: [(Vec<ColumnValue>, Wants<'_>); 5] = [
        (vec![is("amount", "17")], &|n| n % 1_000 == 17),
        (vec![is("price", "7.25")], &|n| n % 40 == 7 && n % 5 != 0),
        (vec![is("price", "7.250"), is("ok", "true")], &|n| n % 40 == 7 && n % 5 != 0 && n % 7 == 0),
        (vec![is("device.sku", "sku-299")], &|n| n % 300 == 299),
        (vec![is("day", "2025-01-28"), is("amount", "27")], &|n| n % 28 == 27 && n % 1_000 == 27),
    ];
    for (conditions, wants) in asked {
        let mut sequences: BTreeSet<String> = BTreeSet::new();
        // Most bytes of these files are pseudonyms.
        let is_of_people = conditions.iter().any(|condition| condition.column == "who");
        for file in &outcome.files {
            let path = PartitionPath::parse(&file.path).unwrap();
            for bytes in [&file.bytes, &file.compact] {
                let (found, needed) = find(bytes, &path, &conditions);
                assert!(
                    is_of_people || needed < bytes.len() as u64 / 2,
                    "{needed} of {} bytes for {conditions:?}",
                    bytes.len()
                );
                for (row, sequence) in found {
                    assert_eq!(file.rows[usize::try_from(row).unwrap()]["ingest_sequence"], sequence);
                    sequences.insert(sequence);
                }
            }
        }
        let offsets = records.iter().scan(BASE, |offset, record| {
            let begin = *offset;
            *offset += record.len() as u64 + 1;
            Some(begin)
        });
        let expected: BTreeSet<String> =
            offsets.enumerate().filter(|(number, _)| wants(*number)).map(|(_, offset)| offset.to_string()).collect();
        assert_eq!(sequences, expected, "{conditions:?}");
    }
}
