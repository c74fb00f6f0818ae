//! Compares the outputs of the product and the baseline for the same lines.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow_select::concat::concat_batches;
use arrow_select::take::take;
use baseline::Baseline;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::product::{self, ARRIVAL_MS, Feed, KEY, Landed, SHARD, STREAM};

/// Columns of JSON text: the product copies the text, the baseline writes it again.
const JSON_COLUMNS: [&str; 3] = ["extra", "whole", "raw_json"];

/// Runs both sides on these lines and compares everything. Returns the output of the product.
pub(crate) fn same(ndjson: &[u8], feed: &Feed) -> Landed {
    let landed = product::run(ndjson, feed);
    let definitions: Vec<&str> = feed.definitions.iter().map(|definition| definition.text.as_str()).collect();
    let mut baseline = Baseline::new(&definitions, &KEY).unwrap();
    baseline.push(ndjson, feed.base_sequence, STREAM, SHARD, ARRIVAL_MS).unwrap();
    let output = baseline.finish().unwrap();

    let line = |sequence: u64| {
        let begin = usize::try_from(sequence - feed.base_sequence).unwrap();
        let line = ndjson[begin..].split(|byte| *byte == b'\n').next().unwrap();
        line.strip_suffix(b"\r").unwrap_or(line)
    };
    let shown = |sequence: u64| String::from_utf8_lossy(line(sequence)).into_owned();
    let ours: BTreeMap<u64, &str> =
        landed.dead_letters.iter().map(|(sequence, code, _)| (*sequence, code.as_str())).collect();
    let theirs: BTreeMap<u64, &str> =
        output.rejects.iter().map(|(sequence, code)| (*sequence, code.as_str())).collect();
    for sequence in ours.keys().chain(theirs.keys()) {
        let (ours, theirs) = (ours.get(sequence), theirs.get(sequence));
        assert!(ours == theirs, "product {ours:?}, baseline {theirs:?}: {}", shown(*sequence));
    }
    assert_eq!(ours.len(), landed.dead_letters.len(), "each reject has one dead letter");
    for (sequence, _, raw) in &landed.dead_letters {
        assert_eq!(raw, line(*sequence));
    }

    let ours = landed.files.iter().map(|((dataset, path), bytes)| ((dataset.as_str(), decoded(path)), bytes.clone()));
    let ours: BTreeMap<_, Bytes> = ours.collect();
    let theirs = output.files.into_iter();
    let theirs: Vec<_> = theirs.map(|file| (file.dataset, decoded(&file.partition), Bytes::from(file.bytes))).collect();
    let theirs: BTreeMap<_, Bytes> =
        theirs.iter().map(|(dataset, path, bytes)| ((dataset.as_str(), path.clone()), bytes.clone())).collect();
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    let mut rows = 0;
    for ((partition, ours), theirs) in ours.into_iter().zip(theirs.into_values()) {
        let (ours, theirs) = (by_sequence(ours), by_sequence(theirs));
        same_batches(&ours, &theirs, &format!("{partition:?}"), &shown);
        rows += ours.num_rows();
    }

    // Nothing is lost or duplicated: rows and dead letters together are all lines, and so are the raw lines.
    let mut lines: Vec<&[u8]> = ndjson.split(|byte| *byte == b'\n').collect();
    lines.iter_mut().for_each(|line| *line = line.strip_suffix(b"\r").unwrap_or(line));
    lines.retain(|line| !line.trim_ascii().is_empty() || line.contains(&b'\x0c'));
    assert_eq!(rows + landed.dead_letters.len(), lines.len());
    lines.sort_unstable();
    let mut raw: Vec<&[u8]> = landed.raw.iter().map(Vec::as_slice).collect();
    raw.sort_unstable();
    assert!(raw == lines, "the raw lines are the input");
    landed
}

/// A partition's path with its escapes decoded. Hive escapes some characters; the product may escape more.
fn decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

/// All rows of a file, in the order of their sequence numbers.
pub(crate) fn by_sequence(file: Bytes) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    let all = concat_batches(&schema, &batches).unwrap();
    let mut order: Vec<(u64, u64)> = (0..).zip(sequences(&all)).map(|(row, sequence)| (sequence, row)).collect();
    order.sort_unstable();
    let order = UInt64Array::from_iter_values(order.into_iter().map(|(_, row)| row));
    let columns = all.columns().iter().map(|column| take(column, &order, None).unwrap()).collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

fn sequences(batch: &RecordBatch) -> Vec<u64> {
    let column = batch.column_by_name("ingest_sequence").unwrap().as_string::<i32>();
    column.iter().map(|sequence| sequence.unwrap().parse().unwrap()).collect()
}

fn same_batches(ours: &RecordBatch, theirs: &RecordBatch, context: &str, shown: &dyn Fn(u64) -> String) {
    let (our_schema, their_schema) = (ours.schema(), theirs.schema());
    for (ours, theirs) in our_schema.fields().iter().zip(their_schema.fields()) {
        let differ = |what: &str| format!("{context}: product {ours:?}, baseline {theirs:?}: {what}");
        assert_eq!(ours.name(), theirs.name(), "{}", differ("names"));
        assert!(ours.data_type().equals_datatype(theirs.data_type()), "{}", differ("types"));
        assert_eq!(ours.data_type(), theirs.data_type(), "{}", differ("names, nullability or field ids inside"));
        assert_eq!(ours.metadata(), theirs.metadata(), "{}", differ("field ids"));
        assert_eq!(ours.is_nullable(), theirs.is_nullable(), "{}", differ("nullability"));
    }
    assert_eq!(our_schema.fields().len(), their_schema.fields().len(), "{context}");
    let sequences = sequences(ours);
    assert_eq!(sequences, self::sequences(theirs), "{context}");
    for (number, field) in our_schema.fields().iter().enumerate() {
        let (mut ours, mut theirs) = (Arc::clone(ours.column(number)), Arc::clone(theirs.column(number)));
        if JSON_COLUMNS.contains(&field.name().as_str()) {
            (ours, theirs) = (plain_json(&ours), plain_json(&theirs));
        }
        if *ours == *theirs {
            continue;
        }
        let row = (0..ours.len()).find(|row| *ours.slice(*row, 1) != *theirs.slice(*row, 1)).unwrap();
        let (ours, theirs) = (ours.slice(row, 1), theirs.slice(row, 1));
        panic!("{context} {}: product {ours:?}, baseline {theirs:?}: {}", field.name(), shown(sequences[row]));
    }
}

/// JSON texts in a normal form.
fn plain_json(column: &ArrayRef) -> ArrayRef {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).map(|value| value.to_string());
    // serde_json refuses a number beyond a double; both sides keep its text.
    let plain = |text: &str| parse(text).or_else(|_| parse(&text.replace("1e999", "\"1e999\""))).unwrap_or(text.into());
    Arc::new(column.as_string::<i32>().iter().map(|text| text.map(plain)).collect::<StringArray>())
}
