//! Checks everything but the values in the product's files: statistics, page index, bloom filters, dictionaries, footers,
//! and the statistics for the manifest. parquet's own reader reads them. A reader that skips by them must never miss a row.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use arrow_select::concat::concat_batches;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use parquet::basic::{Encoding, PageType};
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::file::statistics::Statistics;
use parquet::schema::types::SchemaDescriptor;
use pipeline::dataset::{DefinitionText, shipped};
use pipeline::encode::{Bound, ColumnBounds, FileStats};
use samples::{Generator, Kinds, Options, RecordKind};
use sha2::{Digest, Sha256};

use crate::product::{self, Feed, Landed};
use crate::random;

/// The most rows in a page.
const PAGE_ROWS: usize = 20_000;
/// The most bytes in a bound of texts.
const BOUND_BYTES: usize = 64;

/// A value of a leaf, with Parquet's order.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Scalar {
    Int(i64),
    Double(f64),
    Text(Vec<u8>),
    Bool(bool),
}

/// A file, opened with its page index.
fn open(file: &Bytes) -> ParquetRecordBatchReaderBuilder<Bytes> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options).unwrap()
}

/// The column that contains a leaf, of one row group, or of a range of its rows.
fn read_column(file: &Bytes, group: usize, leaf: usize, rows: Option<Range<usize>>) -> ArrayRef {
    let reader = open(file);
    let schema = reader.parquet_schema();
    let mask = ProjectionMask::roots(schema, [schema.get_column_root_idx(leaf)]);
    let mut reader = reader.with_projection(mask).with_row_groups(vec![group]);
    if let Some(rows) = rows {
        let selectors = vec![RowSelector::skip(rows.start), RowSelector::select(rows.len())];
        reader = reader.with_row_selection(RowSelection::from(selectors));
    }
    let reader = reader.build().unwrap();
    let schema = arrow_array::RecordBatchReader::schema(&reader);
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    Arc::clone(concat_batches(&schema, &batches).unwrap().column(0))
}

/// The values of a leaf in a range of rows of its column, without nulls, and the number of their levels. `name` is the last
/// part of the leaf's path.
fn values(array: &ArrayRef, rows: Range<usize>, name: &str) -> (Vec<Scalar>, usize) {
    let array = array.slice(rows.start, rows.len());
    let index = |offset: i32| usize::try_from(offset).unwrap();
    match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let empty = (0..list.len()).filter(|row| list.value_length(*row) == 0).count();
            let (from, to) = (list.value_offsets()[0], list.value_offsets()[list.len()]);
            let (found, levels) = values(list.values(), index(from)..index(to), name);
            (found, levels + empty)
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let empty = (0..map.len()).filter(|row| map.value_length(*row) == 0).count();
            let (from, to) = (map.value_offsets()[0], map.value_offsets()[map.len()]);
            let entries: ArrayRef = Arc::new(map.entries().clone());
            let (found, levels) = values(&entries, index(from)..index(to), name);
            (found, levels + empty)
        }
        DataType::Struct(_) => {
            // The lists of a map are inside of its values.
            let members = array.as_struct();
            let member = members.column_by_name(name).or_else(|| members.column_by_name("value")).unwrap();
            values(member, 0..array.len(), name)
        }
        _ => (scalars(&array), array.len()),
    }
}

fn scalars(array: &ArrayRef) -> Vec<Scalar> {
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().flatten().map(|text| Scalar::Text(text.into())).collect(),
        DataType::Boolean => array.as_boolean().iter().flatten().map(Scalar::Bool).collect(),
        DataType::Float64 => array.as_primitive::<Float64Type>().iter().flatten().map(Scalar::Double).collect(),
        DataType::Int32 => array.as_primitive::<Int32Type>().iter().flatten().map(|n| Scalar::Int(n.into())).collect(),
        DataType::Date32 => {
            array.as_primitive::<Date32Type>().iter().flatten().map(|n| Scalar::Int(n.into())).collect()
        }
        DataType::Decimal128(..) => {
            let units = array.as_primitive::<Decimal128Type>().iter().flatten();
            units.map(|n| Scalar::Int(i64::try_from(n).unwrap())).collect()
        }
        DataType::Int64 => array.as_primitive::<Int64Type>().iter().flatten().map(Scalar::Int).collect(),
        _ => array.as_primitive::<TimestampMicrosecondType>().iter().flatten().map(Scalar::Int).collect(),
    }
}

/// The least and the greatest value.
fn range(values: &[Scalar]) -> Option<(&Scalar, &Scalar)> {
    let mut values = values.iter();
    let first = values.next()?;
    Some(values.fold((first, first), |(min, max), value| {
        (if value < min { value } else { min }, if value > max { value } else { max })
    }))
}

/// Asserts that bounds hold and are exact, except for texts that are cut.
fn check_bounds(min: &Scalar, max: &Scalar, values: &[Scalar], context: &str) {
    let (least, greatest) = range(values).unwrap();
    assert!(min <= least && greatest <= max, "{context}: {min:?} to {max:?} does not bound {least:?} to {greatest:?}");
    let short = |value: &Scalar| !matches!(value, Scalar::Text(text) if text.len() > BOUND_BYTES);
    assert!(!short(least) || min == least, "{context}: {min:?} is not the least, {least:?}");
    assert!(!short(greatest) || max == greatest, "{context}: {max:?} is not the greatest, {greatest:?}");
    if let Scalar::Double(zero) = min {
        assert!(*zero != 0.0 || zero.is_sign_negative(), "{context}: a lower bound of zero is negative");
    }
    if let Scalar::Double(zero) = max {
        assert!(*zero != 0.0 || zero.is_sign_positive(), "{context}: an upper bound of zero is positive");
    }
}

/// Whether no short text is great enough: the greatest begins with as many of the last character as a bound may have.
fn has_no_upper_bound(values: &[Scalar]) -> bool {
    let last = "\u{10ffff}".repeat(BOUND_BYTES / 4);
    values.iter().any(
        |value| matches!(value, Scalar::Text(text) if text.len() > BOUND_BYTES && text.starts_with(last.as_bytes())),
    )
}

/// The bounds of a page in a column index.
fn page_bounds(index: &ColumnIndexMetaData, page: usize) -> Option<(Scalar, Scalar)> {
    let text = |text: &[u8]| Scalar::Text(text.to_vec());
    Some(match index {
        ColumnIndexMetaData::BOOLEAN(index) => {
            (Scalar::Bool(*index.min_value(page)?), Scalar::Bool(*index.max_value(page)?))
        }
        ColumnIndexMetaData::INT32(index) => {
            (Scalar::Int((*index.min_value(page)?).into()), Scalar::Int((*index.max_value(page)?).into()))
        }
        ColumnIndexMetaData::INT64(index) => {
            (Scalar::Int(*index.min_value(page)?), Scalar::Int(*index.max_value(page)?))
        }
        ColumnIndexMetaData::DOUBLE(index) => {
            (Scalar::Double(*index.min_value(page)?), Scalar::Double(*index.max_value(page)?))
        }
        ColumnIndexMetaData::BYTE_ARRAY(index) => (text(index.min_value(page)?), text(index.max_value(page)?)),
        other => panic!("no column has this type: {other:?}"),
    })
}

/// The bounds in a column chunk's statistics.
fn chunk_bounds(statistics: &Statistics) -> Option<(Scalar, Scalar)> {
    Some(match statistics {
        Statistics::Boolean(of) => (Scalar::Bool(*of.min_opt()?), Scalar::Bool(*of.max_opt()?)),
        Statistics::Int32(of) => (Scalar::Int((*of.min_opt()?).into()), Scalar::Int((*of.max_opt()?).into())),
        Statistics::Int64(of) => (Scalar::Int(*of.min_opt()?), Scalar::Int(*of.max_opt()?)),
        Statistics::Double(of) => (Scalar::Double(*of.min_opt()?), Scalar::Double(*of.max_opt()?)),
        Statistics::ByteArray(of) => {
            (Scalar::Text(of.min_opt()?.data().to_vec()), Scalar::Text(of.max_opt()?.data().to_vec()))
        }
        other => panic!("no column has this type: {other:?}"),
    })
}

/// The stored pages of a column chunk.
fn pages(file: &Bytes, chunk: &ColumnChunkMetaData, rows: usize) -> Vec<Page> {
    let mut reader = SerializedPageReader::new(Arc::new(file.clone()), chunk, rows, None).unwrap();
    std::iter::from_fn(|| reader.get_next_page().unwrap()).collect()
}

/// Checks a file. Returns the number of pages that were compared with an entry of a column index.
fn check_file(file: &Bytes, stats: &FileStats, may_have_bounds: &BTreeSet<String>, pseudonyms: &[&str]) -> usize {
    let reader = open(file);
    let metadata = Arc::clone(reader.metadata());
    let schema = metadata.file_metadata().schema_descr();
    let mut leaves: Vec<LeafOfFile> = schema.columns().iter().map(|_| LeafOfFile::default()).collect();
    let mut compared = 0;
    for (group, row_group) in metadata.row_groups().iter().enumerate() {
        let rows = usize::try_from(row_group.num_rows()).unwrap();
        let index = metadata.page_index_for_row_group(group);
        for (leaf, chunk) in row_group.columns().iter().enumerate() {
            let context = format!("row group {group}, {}", chunk.column_path());
            let array = read_column(file, group, leaf, None);
            assert_eq!(array.len(), rows, "{context}");
            let name = chunk.column_path().parts().last().unwrap();
            let (all, levels) = values(&array, 0..rows, name);
            assert_eq!(chunk.num_values(), i64::try_from(levels).unwrap(), "{context}");

            let statistics = chunk.statistics().unwrap();
            assert_eq!(statistics.null_count_opt(), Some((levels - all.len()) as u64), "{context}");
            match chunk_bounds(statistics) {
                Some((min, max)) => {
                    check_bounds(&min, &max, &all, &context);
                    let exact = range(&all).map(|(least, greatest)| (*least == min, *greatest == max));
                    assert_eq!(Some((statistics.min_is_exact(), statistics.max_is_exact())), exact, "{context}");
                }
                None => assert!(all.is_empty() || has_no_upper_bound(&all), "{context} has no bounds"),
            }

            let stored = pages(file, chunk, rows);
            check_dictionary(chunk, &stored, &all, &context);
            let data: Vec<&Page> = stored.iter().filter(|page| page.is_data_page()).collect();
            let locations = index.offset_index(leaf).unwrap().page_locations();
            assert_eq!(data.len(), locations.len(), "{context}");
            let begins: Vec<usize> =
                locations.iter().map(|page| usize::try_from(page.first_row_index).unwrap()).chain([rows]).collect();
            assert_eq!(begins[0], 0, "{context}");
            let column_index = index.column_index(leaf);
            assert!(column_index.is_none_or(|index| index.num_pages() == data.len() as u64), "{context}");
            for (page, (stored, rows)) in data.iter().zip(begins.windows(2)).enumerate() {
                let context = format!("{context}, page {page}");
                assert!(rows[0] < rows[1] && rows[1] - rows[0] <= PAGE_ROWS, "{context}");
                let (found, levels) = values(&array, rows[0]..rows[1], name);
                assert_eq!(stored.num_values(), u32::try_from(levels).unwrap(), "{context}");
                let Some(index) = column_index else { continue };
                assert_eq!(index.null_count(page), Some(i64::try_from(levels - found.len()).unwrap()), "{context}");
                assert_eq!(index.is_null_page(page), found.is_empty(), "{context}");
                if let Some((min, max)) = page_bounds(index, page) {
                    check_bounds(&min, &max, &found, &context);
                }
                compared += 1;
            }
            // A reader that skips by the offset index finds the same rows.
            let middle = begins[begins.len() / 2].saturating_sub(3)..rows;
            let skipped = read_column(file, group, leaf, Some(middle.clone()));
            assert!(*skipped == *array.slice(middle.start, middle.len()), "{context}");

            let name = chunk.column_path().string();
            let filter = reader.get_row_group_column_bloom_filter(group, leaf).unwrap();
            assert_eq!(filter.is_some(), pseudonyms.contains(&name.as_str()), "{context}: its bloom filter");
            if let Some(filter) = filter {
                for value in &all {
                    let Scalar::Text(text) = value else { panic!("a pseudonym is text") };
                    assert!(filter.check(text.as_slice()), "{context}: {value:?} is not in the bloom filter");
                }
                let absent = (0..2_000).filter(|n| filter.check(format!("{n:032x}").as_str())).count();
                assert!(absent < 150, "{context}: {absent} of 2,000 absent values may be there");
            }
            leaves[leaf].levels += levels as u64;
            leaves[leaf].bytes += chunk.compressed_size();
            leaves[leaf].values.extend(all);
        }
    }
    check_stats(schema, &leaves, stats, may_have_bounds);
    compared
}

/// Asserts that a dictionary has each value of the chunk once and no other, that it is sorted if it says so, and that the
/// metadata lists the encodings of its pages.
fn check_dictionary(chunk: &ColumnChunkMetaData, stored: &[Page], all: &[Scalar], context: &str) {
    let mut counted: Vec<(PageType, Encoding, i32)> = Vec::new();
    for page in stored {
        match counted.iter_mut().find(|(kind, with, _)| (*kind, *with) == (page.page_type(), page.encoding())) {
            Some((_, _, count)) => *count += 1,
            None => counted.push((page.page_type(), page.encoding(), 1)),
        }
        assert!(chunk.encodings().any(|encoding| encoding == page.encoding()), "{context}");
    }
    if let Some(named) = chunk.page_encoding_stats() {
        let named: Vec<_> = named.iter().map(|page| (page.page_type, page.encoding, page.count)).collect();
        assert_eq!(named, counted, "{context}");
    }
    let dictionaries = stored.iter().filter(|page| page.page_type() == PageType::DICTIONARY_PAGE).count();
    assert_eq!(dictionaries, usize::from(chunk.dictionary_page_offset().is_some()), "{context}");
    let Some(Page::DictionaryPage { buf, num_values, is_sorted, .. }) = stored.first() else {
        assert!(counted.iter().all(|(_, encoding, _)| *encoding != Encoding::RLE_DICTIONARY), "{context}");
        return;
    };
    let Some(Scalar::Text(_)) = all.first() else { return };
    let mut rest = &buf[..];
    let mut entries = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (text, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        entries.push(Scalar::Text(text.to_vec()));
        rest = after;
    }
    assert_eq!(entries.len(), *num_values as usize, "{context}");
    assert!(!is_sorted || entries.is_sorted(), "{context}");
    let text = |value: &Scalar| if let Scalar::Text(text) = value { text.clone() } else { Vec::new() };
    let used: BTreeSet<Vec<u8>> = all.iter().map(text).collect();
    let known: BTreeSet<Vec<u8>> = entries.iter().map(text).collect();
    assert_eq!(known.len(), entries.len(), "{context}: a value occurs twice");
    assert!(known == used, "{context}: the dictionary has the values that the rows use");
}

/// Sample records of one kind and one day, some of them bad.
fn produced(kind: RecordKind, count: usize, users: u32) -> Vec<u8> {
    let options = Options { seed: 7, kinds: Kinds::only(kind), bad_ratio: 0.02, days: 1, users, ..Options::default() };
    let mut generator = Generator::new(options).unwrap();
    let mut ndjson = Vec::new();
    for _ in 0..count {
        generator.next_into(&mut ndjson);
        ndjson.push(b'\n');
    }
    ndjson
}

fn check_all(landed: &Landed, definitions: &[DefinitionText], pseudonyms: &[&str]) -> usize {
    let tables: Vec<toml::Table> = definitions.iter().map(|definition| definition.text.parse().unwrap()).collect();
    let files = landed.files.iter().zip(landed.stats.values());
    let check = |(((dataset, _), file), stats): ((&(String, String), &Bytes), &FileStats)| {
        let definition = tables.iter().find(|definition| definition["name"].as_str() == Some(dataset)).unwrap();
        check_file(file, stats, &may_have_bounds(definition), pseudonyms)
    };
    files.map(check).sum()
}

/// The columns whose bounds may leave the file, as the definition has them: those with one value a row that are neither
/// anonymized nor free-form nor looked up nor unique to a record.
fn may_have_bounds(definition: &toml::Table) -> BTreeSet<String> {
    let is_plain = |column: &toml::Table| {
        let free_form = matches!(column["type"].as_str(), Some("json" | "map" | "list"));
        let from = column.get("from").and_then(toml::Value::as_str).unwrap_or_default();
        let unique = column.get("unique").and_then(toml::Value::as_bool).unwrap_or_default();
        !column.contains_key("anonymize") && !free_form && !unique && !from.starts_with("lookup.")
    };
    let tables = |value: &toml::Value| -> Vec<toml::Table> {
        value.as_array().unwrap().iter().map(|table| table.as_table().unwrap().clone()).collect()
    };
    let mut names: BTreeSet<String> =
        ["ingest_stream", "ingest_shard", "ingest_subsequence", "ingest_arrival_time"].map(str::to_owned).into();
    for column in tables(&definition["column"]).into_iter().filter(is_plain) {
        let name = column["name"].as_str().unwrap();
        let members = column.get("field").map(tables).unwrap_or_default().into_iter().filter(is_plain);
        names.extend(members.map(|member| format!("{name}.{}", member["name"].as_str().unwrap())));
        names.insert(name.to_owned());
    }
    names
}

/// A leaf's values in the whole file.
#[derive(Debug, Default)]
struct LeafOfFile {
    values: Vec<Scalar>,
    levels: u64,
    bytes: i64,
}

/// Asserts that the statistics of a file are those of its values, and that only the given columns have bounds.
fn check_stats(
    schema: &SchemaDescriptor,
    leaves: &[LeafOfFile],
    stats: &FileStats,
    may_have_bounds: &BTreeSet<String>,
) {
    let columns = stats.columns();
    let mut entries = columns.iter();
    for (column, LeafOfFile { values, levels, bytes }) in schema.columns().iter().zip(leaves) {
        let context = column.path().string();
        let Some((least, greatest)) = range(values) else { continue };
        let entry = entries.next().unwrap();
        assert_eq!(entry.field_id, column.self_type().get_basic_info().id(), "{context}");
        assert_eq!((entry.values, entry.nulls), (*levels, levels - values.len() as u64), "{context}");
        assert_eq!(i64::try_from(entry.bytes).unwrap(), *bytes, "{context}");
        assert_eq!(entry.bounds.is_some(), may_have_bounds.contains(&context), "{context}: {entry:?}");
        let Some(ColumnBounds { lower, upper, lower_exact, upper_exact }) = &entry.bounds else { continue };
        let scalar = |bound: &Bound| match bound {
            Bound::Bool(value) => Scalar::Bool(*value),
            Bound::Int(value) => Scalar::Int(*value),
            Bound::Double(value) => Scalar::Double(*value),
            Bound::Text(text) => Scalar::Text(text.clone().into_bytes()),
        };
        let lower = scalar(lower);
        assert!(lower <= *least && *lower_exact == (lower == *least), "{context}: {lower:?} bounds {least:?}");
        match upper.as_ref().map(scalar) {
            Some(upper) => {
                let is_exact = *upper_exact == (upper == *greatest);
                assert!(*greatest <= upper && is_exact, "{context}: {upper:?} bounds {greatest:?}");
            }
            None => {
                let Scalar::Text(text) = greatest else { panic!("{context} has an upper bound") };
                assert!(text.starts_with("\u{10ffff}".repeat(16).as_bytes()), "{context} has an upper bound");
            }
        }
    }
    assert_eq!(entries.next(), None);
}

const EVENT_PSEUDONYMS: [&str; 5] = ["client_id", "client_cognito_id", "session_id", "endpoint_id", "user_id"];

#[test]
fn indexes_of_many_pages_bound_their_values() {
    // 45,000 rows in one partition make three pages, and dictionaries that are sorted and others that are not.
    let landed = product::run(&produced(RecordKind::Users, 45_000, 50_000), &Feed::default());
    let compared = check_all(&landed, &shipped(), &["user_id"]);
    assert!(compared > 3 * 12, "{compared} pages were compared");
}

#[test]
fn indexes_of_many_row_groups_bound_their_values() {
    let feed = Feed { chunk_bytes: vec![100_000], take_every: 6, ..Feed::default() };
    let landed = product::run(&produced(RecordKind::Assessments, 2_500, 900), &feed);
    check_all(&landed, &shipped(), &["user_id"]);
    let landed = product::run(&produced(RecordKind::Events, 2_500, 900), &feed);
    check_all(&landed, &shipped(), &EVENT_PSEUDONYMS);
}

#[test]
fn bounds_of_long_texts_are_cut_and_hold() {
    let texts =
        ["é".repeat(40), "\u{10ffff}".repeat(20), "a".repeat(64), "a".repeat(65), "\u{7f}".repeat(70), String::new()];
    let mut ndjson = String::new();
    for (n, text) in texts.iter().enumerate() {
        for title in [text.clone(), format!("{text}b"), format!("a{text}")] {
            let text = serde_json::Value::from(title);
            ndjson += &format!(
                r#"{{"event_type":"{n}","event_timestamp":1736764200123,"application":{{"title":{text}}},"attributes":{{"message_id":{text}}}}}"#
            );
            ndjson.push('\n');
        }
    }
    // Each row in a row group of its own, then all rows in one.
    let alone = Feed { chunk_bytes: vec![1], take_every: 1, ..Feed::default() };
    check_all(&product::run(ndjson.as_bytes(), &alone), &shipped(), &EVENT_PSEUDONYMS);
    check_all(&product::run(ndjson.as_bytes(), &Feed::default()), &shipped(), &EVENT_PSEUDONYMS);
}

#[test]
fn columns_of_every_shape_have_indexes_that_hold() {
    let feed = Feed { definitions: random::definitions(), take_every: 3, chunk_bytes: vec![40_000], ..Feed::default() };
    let landed = product::run(&random::everything(1, 500), &feed);
    check_all(&landed, &random::definitions(), &["pseudonym", "id", "whos.list.element", "items.list.element.who"]);
}

#[test]
fn pseudonyms_that_hardly_repeat_have_a_bloom_filter_too() {
    // After 10,000 rows a lane stops using dictionaries that do not pay; the filters must remain.
    let ndjson = produced(RecordKind::Users, 24_000, 1_000_000);
    let feed = Feed { take_every: 6, ..Feed::default() };
    let landed = product::run(&ndjson, &feed);
    check_all(&landed, &shipped(), &["user_id"]);
}

#[test]
fn footers_name_the_origin_of_a_file() {
    let landed = product::run(&produced(RecordKind::Users, 50, 50), &Feed::default());
    let reader = open(landed.files.values().next().unwrap());
    let footer = reader.metadata().file_metadata();
    let definition = &shipped()[2].text;
    let hash: String = Sha256::digest(definition).iter().map(|byte| format!("{byte:02x}")).collect();
    let entries: Vec<(&str, &str)> = footer
        .key_value_metadata()
        .unwrap()
        .iter()
        .map(|entry| (entry.key.as_str(), entry.value.as_deref().unwrap_or_default()))
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        entries,
        [
            ("shardlake.version", version),
            ("shardlake.dataset", "users"),
            ("shardlake.definition", &hash),
            ("shardlake.epoch", "epoch-1"),
            ("shardlake.ranges", "[\"all\"]"),
        ]
    );
    assert_eq!(footer.created_by(), Some(format!("shardlake version {version} (build unknown)").as_str()));
}
