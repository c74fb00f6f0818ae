//! Sides that are made record by record, and what a plain comparison of the records says about them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use pipeline::dead_letter::DeadLetter;
use pipeline::dead_letter::code::Code;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::commit::ObjectKind;
use crate::lake::{MemoryStore, ObjectStore};

const DATASETS: [&str; 2] = ["events", "quiz"];
const CODES: [Code; 2] = [Code::MissingField, Code::Truncated];

/// What a record has become on a side.
#[derive(Debug, Clone, PartialEq)]
enum Fate {
    Nothing,
    /// A row of a dataset, with a score and the pseudonym of a name. It may be there several times.
    Row {
        dataset: usize,
        score: Option<f64>,
        name: Option<&'static str>,
        copies: u64,
    },
    /// A dead letter with a code, perhaps of a dataset.
    Dead {
        code: usize,
        dataset: Option<usize>,
        copies: u64,
    },
}

fn row(score: f64) -> Fate {
    Fate::Row { dataset: 1, score: Some(score), name: Some("a"), copies: 1 }
}

fn dead(code: usize) -> Fate {
    Fate::Dead { code, dataset: Some(1), copies: 1 }
}

/// How the records of a side are divided into objects.
#[derive(Debug, Clone)]
struct Form {
    rows_max: usize,
    /// Whether the columns are in the other order, and one that is null is left out.
    other_order: bool,
}

const PLAIN: Form = Form { rows_max: 1000, other_order: false };

/// A row of a file: the number of its record, score and name.
type TestRow = (usize, Option<f64>, Option<&'static str>);

fn parquet_file(rows: &[TestRow], form: &Form) -> Bytes {
    let has_names = !form.other_order || rows.iter().any(|(_, _, name)| name.is_some());
    let name = if has_names { "optional binary name (STRING) = 3;" } else { "" };
    let score = "optional double score = 2;";
    let columns = if form.other_order { format!("{name} {score}") } else { format!("{score} {name}") };
    let ingest = "optional binary ingest_stream (STRING) = 4; optional binary ingest_shard (STRING) = 5; \
                  optional binary ingest_sequence (STRING) = 6; optional int64 ingest_subsequence = 7;";
    let schema = Arc::new(parse_message_type(&format!("message schema {{ {columns} {ingest} }}")).unwrap());
    let names: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let properties =
        Arc::new(WriterProperties::builder().set_compression(parquet::basic::Compression::UNCOMPRESSED).build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    // Two row groups, if there are enough rows.
    for rows in rows.chunks(rows.len().div_ceil(2).max(1)) {
        let mut descriptors = names.iter().cloned();
        let mut group = writer.next_row_group().unwrap();
        while let Some(mut column) = group.next_column().unwrap() {
            let name = match &*descriptors.next().expect("one for each column") {
                "score" => {
                    let values: Vec<f64> = rows.iter().filter_map(|(_, score, _)| *score).collect();
                    let levels: Vec<i16> = rows.iter().map(|(_, score, _)| i16::from(score.is_some())).collect();
                    column.typed::<DoubleType>().write_batch(&values, Some(&levels), None).unwrap();
                    column.close().unwrap();
                    continue;
                }
                "ingest_subsequence" => {
                    column
                        .typed::<Int64Type>()
                        .write_batch(&vec![0; rows.len()], Some(&vec![1; rows.len()]), None)
                        .unwrap();
                    column.close().unwrap();
                    continue;
                }
                name => name.to_owned(),
            };
            let text = |row: &TestRow| match name.as_str() {
                "name" => row.2.map(str::to_owned),
                "ingest_stream" => Some("orders".to_owned()),
                "ingest_shard" => Some(format!("shard-{}", row.0 % 3)),
                _ => Some(row.0.to_string()),
            };
            let texts: Vec<Option<String>> = rows.iter().map(text).collect();
            let levels: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
            let values: Vec<ByteArray> = texts.iter().flatten().map(|text| text.as_str().into()).collect();
            column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    Bytes::from(writer.into_inner().unwrap())
}

fn dead_letter_object(records: &[(usize, usize, Option<usize>)]) -> Bytes {
    let mut lines = Vec::new();
    for (number, code, dataset) in records {
        let letter = DeadLetter {
            code: CODES[*code],
            reason: None,
            syntax: None,
            dataset: dataset.map(|dataset| DATASETS[dataset].into()),
            field: None,
            stream: "orders".into(),
            shard: format!("shard-{}", number % 3).into(),
            sequence: number.to_string().into(),
            sub_sequence: 0,
            partition_key: None,
            arrival_ms: 1_736_764_200_123,
            attempts: 1,
            raw: b"{\"email\":\"kim@example.com\"".as_slice().into(),
        };
        letter.write(&mut lines);
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &lines).unwrap();
    Bytes::from(gzip.finish().unwrap())
}

/// A side with these records, in the order of their numbers.
async fn side(fates: &[Fate], form: &Form) -> Side {
    let lake = Arc::new(MemoryStore::new());
    let mut side = Side { lake: lake.clone(), objects: Vec::new() };
    let mut number = 0;
    let mut put = async |kind: ObjectKind, dataset: Option<&str>, folder: String, rows: usize, bytes: Bytes| {
        number += 1;
        let ending = if kind == ObjectKind::Processed { "parquet" } else { "json.gz" };
        let key =
            ObjectKey::new(format!("{folder}/20250113T103000Z-3f2a91c07d5e4b10-000001-{number:05}.{ending}")).unwrap();
        lake.put_new(&key, bytes.clone()).await.unwrap();
        side.objects.push(SideObject {
            key,
            kind,
            dataset: dataset.map(str::to_owned),
            rows: rows as u64,
            bytes: bytes.len() as u64,
            may_show: BTreeSet::from([2]),
        });
    };
    for (dataset, name) in DATASETS.iter().enumerate() {
        let of_dataset = |(record, fate): (usize, &Fate)| match fate {
            Fate::Row { dataset: of, score, name, copies } if *of == dataset => {
                vec![(record, *score, *name); usize::try_from(*copies).unwrap()]
            }
            _ => Vec::new(),
        };
        let rows: Vec<TestRow> = fates.iter().enumerate().flat_map(of_dataset).collect();
        for rows in rows.chunks(form.rows_max) {
            let folder = format!("processed/{name}/year=2025/month=01/day=13");
            put(ObjectKind::Processed, Some(name), folder, rows.len(), parquet_file(rows, form)).await;
        }
    }
    for (code, name) in CODES.iter().enumerate() {
        let of_code = |(record, fate): (usize, &Fate)| match fate {
            Fate::Dead { code: of, dataset, copies } if *of == code => {
                vec![(record, code, *dataset); usize::try_from(*copies).unwrap()]
            }
            _ => Vec::new(),
        };
        let set_aside: Vec<_> = fates.iter().enumerate().flat_map(of_code).collect();
        for some in set_aside.chunks(form.rows_max) {
            let folder = format!("error/reason={name}/year=2025/month=01/day=13");
            put(ObjectKind::Error, None, folder, some.len(), dead_letter_object(some)).await;
        }
    }
    side
}

/// What a comparison record by record finds.
fn expected(old: &[Fate], new: &[Fate], only: Option<usize>) -> Diff {
    let mut diff = Diff::default();
    let mut datasets: Vec<DatasetDiff> = vec![DatasetDiff::default(); 2];
    let dead = &mut diff.dead_letters;
    let counts = |dataset: &Option<usize>| only.is_none_or(|only| *dataset == Some(only));
    let is_nothing = |fate: &Fate| match fate {
        Fate::Nothing => true,
        Fate::Row { dataset, .. } => only.is_some_and(|only| *dataset != only),
        Fate::Dead { .. } => false,
    };
    for (side, fates) in [old, new].into_iter().enumerate() {
        for fate in fates.iter().filter(|fate| !is_nothing(fate)) {
            match fate {
                Fate::Row { dataset, copies, .. } => {
                    let of = &mut datasets[*dataset];
                    *[&mut of.old, &mut of.new][side] += copies;
                    *[&mut of.doubled_old, &mut of.doubled_new][side] += copies - 1;
                }
                Fate::Dead { code, dataset, copies } if counts(dataset) => {
                    let of = dead.codes.entry(CODES[*code].to_string()).or_default();
                    *[&mut of.old, &mut of.new][side] += copies;
                    *[&mut dead.old, &mut dead.new][side] += copies;
                    *[&mut dead.doubled_old, &mut dead.doubled_new][side] += copies - 1;
                }
                _ => {}
            }
        }
    }
    for (old, new) in old.iter().zip(new) {
        let nothing = &Fate::Nothing;
        let (old, new) = (if is_nothing(old) { nothing } else { old }, if is_nothing(new) { nothing } else { new });
        match (old, new) {
            (Fate::Nothing, Fate::Nothing) => {}
            (Fate::Row { dataset, .. }, Fate::Nothing) => datasets[*dataset].only_old += 1,
            (Fate::Nothing, Fate::Row { dataset, .. }) => datasets[*dataset].only_new += 1,
            (Fate::Row { dataset: from, .. }, Fate::Row { dataset: to, .. }) if from != to => {
                datasets[*from].to_other_datasets += 1;
                datasets[*to].from_other_datasets += 1;
            }
            (Fate::Row { dataset, score, name, .. }, Fate::Row { score: new_score, name: new_name, .. }) => {
                let of = &mut datasets[*dataset];
                let changes = [
                    ("score", score != new_score, score.is_none(), new_score.is_none()),
                    ("name", name != new_name, name.is_none(), new_name.is_none()),
                ];
                for (column, _, was_null, is_null) in changes.iter().filter(|change| change.1) {
                    let of = of.columns.entry((*column).to_owned()).or_default();
                    of.changed += 1;
                    of.was_null += u64::from(*was_null);
                    of.became_null += u64::from(*is_null);
                }
                *if changes.iter().any(|change| change.1) { &mut of.changed } else { &mut of.same } += 1;
            }
            (Fate::Row { dataset, .. }, Fate::Dead { .. }) => {
                datasets[*dataset].to_dead_letters += 1;
                dead.from_rows += 1;
            }
            (Fate::Dead { .. }, Fate::Row { dataset, .. }) => {
                datasets[*dataset].from_dead_letters += 1;
                dead.became_rows += 1;
            }
            (Fate::Dead { dataset, .. }, Fate::Nothing) => dead.only_old += u64::from(counts(dataset)),
            (Fate::Nothing, Fate::Dead { dataset, .. }) => dead.only_new += u64::from(counts(dataset)),
            (Fate::Dead { code, dataset, .. }, Fate::Dead { code: new_code, dataset: new_dataset, .. }) => {
                match (counts(dataset), counts(new_dataset)) {
                    (false, false) => {}
                    (true, false) => dead.only_old += 1,
                    (false, true) => dead.only_new += 1,
                    (true, true) if code == new_code => dead.same += 1,
                    (true, true) => {
                        *dead.other_code.entry(format!("{} → {}", CODES[*code], CODES[*new_code])).or_default() += 1;
                    }
                }
            }
        }
    }
    diff.datasets = DATASETS.iter().map(|name| (*name).to_owned()).zip(datasets).collect();
    diff
}

/// Asserts that every row and dead letter is in exactly one count.
fn assert_complete(diff: &Diff) {
    for of in diff.datasets.values() {
        let common = of.same + of.changed;
        assert_eq!(of.old, common + of.only_old + of.to_dead_letters + of.to_other_datasets + of.doubled_old, "{of:?}");
        assert_eq!(
            of.new,
            common + of.only_new + of.from_dead_letters + of.from_other_datasets + of.doubled_new,
            "{of:?}"
        );
    }
}

async fn compared(old: &[Fate], new: &[Fate], options: &DiffOptions) -> Diff {
    compare(side(old, &PLAIN).await, side(new, &PLAIN).await, options, &|_| {}).await.unwrap()
}

/// Fifty good rows and ten dead letters.
fn base() -> Vec<Fate> {
    (0..60).map(|number| if number % 6 == 5 { dead(0) } else { row(f64::from(number)) }).collect()
}

/// What a planted change makes of the counts.
type ChangeOfBoth = fn(&mut DatasetDiff, &mut DeadLetterDiff);
/// The same, of dead letters alone.
type ChangeOfDeadLetters = fn(&mut DeadLetterDiff);

#[tokio::test]
async fn each_planted_change_is_found_with_its_exact_count() {
    let changes: [(Fate, ChangeOfBoth); 9] = [
        (Fate::Nothing, |of, _| (of.only_old, of.new, of.same) = (1, 49, 49)),
        (row(-1.0), |of, _| {
            (of.changed, of.same) = (1, 49);
            of.columns.insert("score".to_owned(), ColumnDiff { changed: 1, became_null: 0, was_null: 0 });
        }),
        (Fate::Row { dataset: 1, score: None, name: Some("a"), copies: 1 }, |of, _| {
            (of.changed, of.same) = (1, 49);
            of.columns.insert("score".to_owned(), ColumnDiff { changed: 1, became_null: 1, was_null: 0 });
        }),
        (Fate::Row { dataset: 1, score: Some(7.0), name: Some("b"), copies: 1 }, |of, _| {
            (of.changed, of.same) = (1, 49);
            of.columns.insert("name".to_owned(), ColumnDiff { changed: 1, became_null: 0, was_null: 0 });
        }),
        (Fate::Row { dataset: 1, score: Some(7.0), name: None, copies: 1 }, |of, _| {
            (of.changed, of.same) = (1, 49);
            of.columns.insert("name".to_owned(), ColumnDiff { changed: 1, became_null: 1, was_null: 0 });
        }),
        (dead(1), |of, dead| {
            (of.to_dead_letters, of.new, of.same) = (1, 49, 49);
            (dead.from_rows, dead.new) = (1, 11);
            dead.codes.insert(CODES[1].to_string(), CodeCounts { old: 0, new: 1 });
        }),
        (Fate::Row { dataset: 1, score: Some(7.0), name: Some("a"), copies: 3 }, |of, _| {
            (of.doubled_new, of.new) = (2, 52);
        }),
        (Fate::Row { dataset: 0, score: Some(7.0), name: Some("a"), copies: 1 }, |of, _| {
            (of.to_other_datasets, of.new, of.same) = (1, 49, 49);
        }),
        (row(7.0), |_, _| {}),
    ];
    for (change, apply) in changes {
        let (old, mut new) = (base(), base());
        new[7] = change.clone();
        let mut wanted = expected(&base(), &base(), None);
        apply(wanted.datasets.get_mut("quiz").unwrap(), &mut wanted.dead_letters);
        let found = compared(&old, &new, &DiffOptions::default()).await;
        assert_eq!(found.datasets["quiz"], wanted.datasets["quiz"], "{change:?}");
        assert_eq!(found.dead_letters, wanted.dead_letters, "{change:?}");
        assert_eq!(found.same, change == row(7.0), "{change:?}");
        assert_complete(&found);
        // The other way round it is the same number of differences.
        let back = compared(&new, &old, &DiffOptions::default()).await;
        assert_eq!(back.doubled(), [found.doubled()[1], found.doubled()[0]]);
        assert_eq!(back.datasets["quiz"].only_new, found.datasets["quiz"].only_old);
    }
}

#[tokio::test]
async fn each_planted_change_of_a_dead_letter_is_found_with_its_exact_count() {
    let changes: [(Fate, ChangeOfDeadLetters); 4] = [
        (dead(1), |dead| {
            dead.same = 9;
            dead.other_code.insert(format!("{} → {}", CODES[0], CODES[1]), 1);
            dead.codes = [
                (CODES[0].to_string(), CodeCounts { old: 10, new: 9 }),
                (CODES[1].to_string(), CodeCounts { old: 0, new: 1 }),
            ]
            .into();
        }),
        (Fate::Nothing, |dead| {
            (dead.same, dead.only_old, dead.new) = (9, 1, 9);
            dead.codes = [(CODES[0].to_string(), CodeCounts { old: 10, new: 9 })].into();
        }),
        (row(1.0), |dead| {
            (dead.same, dead.became_rows, dead.new) = (9, 1, 9);
            dead.codes = [(CODES[0].to_string(), CodeCounts { old: 10, new: 9 })].into();
        }),
        (Fate::Dead { code: 0, dataset: Some(1), copies: 2 }, |dead| {
            (dead.doubled_new, dead.new) = (1, 11);
            dead.codes = [(CODES[0].to_string(), CodeCounts { old: 10, new: 11 })].into();
        }),
    ];
    for (change, apply) in changes {
        let (old, mut new) = (base(), base());
        new[5] = change.clone();
        let mut wanted = expected(&base(), &base(), None).dead_letters;
        apply(&mut wanted);
        let found = compared(&old, &new, &DiffOptions::default()).await;
        assert_eq!(found.dead_letters, wanted, "{change:?}");
        assert!(!found.same);
    }
}

#[tokio::test]
async fn examples_name_positions_and_show_only_values_that_may_be_shown() {
    let (old, mut new) = (base(), base());
    new[7] = Fate::Row { dataset: 1, score: Some(70.5), name: Some("somebody"), copies: 1 };
    new[8] = Fate::Row { dataset: 1, score: None, name: Some("a"), copies: 1 };
    new[5] = dead(1);
    new[11] = row(3.0);
    new[12] = Fate::Nothing;
    let found = compared(&old, &new, &DiffOptions::default()).await;
    let shown: Vec<Value> = found.samples.iter().map(|sample| serde_json::to_value(sample).unwrap()).collect();
    let sample = |kind: &str, number: usize| {
        let sequence = number.to_string();
        let mut of_record = shown.iter().filter(|sample| sample["kind"] == kind && sample["sequence"] == sequence);
        let sample = of_record.next().unwrap_or_else(|| panic!("{kind} {number} in {shown:?}")).clone();
        assert_eq!((&sample["stream"], &sample["shard"]), (&json!("orders"), &json!(format!("shard-{}", number % 3))));
        (sample["column"].clone(), sample["values"].clone())
    };
    let scores: Vec<_> =
        shown.iter().filter(|sample| sample["column"] == "score").map(|sample| &sample["values"]).collect();
    assert_eq!(scores, [&json!([7.0, 70.5]), &json!([8.0, null])]);
    // A pseudonym is never shown, only where it has changed.
    let names: Vec<_> = shown.iter().filter(|sample| sample["column"] == "name").collect();
    assert_eq!((names.len(), &names[0]["values"], &names[0]["sequence"]), (1, &Value::Null, &json!("7")));
    assert_eq!(sample("other_code", 5).1, json!([CODES[0].to_string(), CODES[1].to_string()]));
    assert_eq!(sample("became_row", 11).1, json!([CODES[0].to_string(), "quiz"]));
    assert_eq!(sample("only_old", 12), (Value::Null, Value::Null));
    let text = serde_json::to_string(&found).unwrap();
    assert!(!text.contains("somebody") && !text.contains("kim@"), "{text}");
}

#[tokio::test]
async fn of_each_kind_and_column_as_many_examples_are_given_as_asked_for() {
    let old: Vec<Fate> = (0..100).map(|number| row(f64::from(number))).collect();
    let mut new = old.clone();
    new[..40].fill(Fate::Nothing);
    new[40..80].fill(Fate::Row { dataset: 1, score: None, name: None, copies: 1 });
    for samples in [0, 3, 50] {
        let options = DiffOptions { samples, ..DiffOptions::default() };
        let found = compared(&old, &new, &options).await;
        let count =
            |column: Option<&str>| found.samples.iter().filter(|sample| sample.column.as_deref() == column).count();
        assert_eq!([count(None), count(Some("score")), count(Some("name"))], [samples.min(40); 3]);
        // The same ones, however often the objects are read.
        let in_passes = compared(&old, &new, &DiffOptions { memory: 64 * 20, threads: 3, ..options }).await;
        assert!(in_passes.passes > 5);
        assert_eq!(in_passes.samples, found.samples);
    }
}

#[tokio::test]
async fn a_damaged_or_missing_object_is_an_error_that_names_it() {
    let good = side(&base(), &PLAIN).await;
    for kind in [ObjectKind::Processed, ObjectKind::Error] {
        let lake = Arc::new(MemoryStore::new());
        let damaged = Side { lake: lake.clone(), objects: good.objects.clone() };
        let victim = good.objects.iter().find(|object| object.kind == kind).unwrap();
        for object in good.objects.iter().filter(|object| object.key != victim.key) {
            lake.put_new(&object.key, good.lake.get(&object.key).await.unwrap().unwrap()).await.unwrap();
        }
        let error = compare(good.clone(), damaged.clone(), &DiffOptions::default(), &|_| {}).await.unwrap_err();
        assert!(matches!(&error, DiffError::Gone { key } if *key == victim.key), "{error}");
        let bytes = good.lake.get(&victim.key).await.unwrap().unwrap();
        lake.put_new(&victim.key, bytes.slice(..bytes.len() / 2)).await.unwrap();
        let error = compare(good.clone(), damaged, &DiffOptions::default(), &|_| {}).await.unwrap_err();
        assert!(matches!(&error, DiffError::Unreadable { key, .. } if *key == victim.key), "{error}");
    }
}

#[tokio::test]
async fn progress_ends_at_what_was_planned() {
    let (old, mut new) = (base(), base());
    new[7] = row(-1.0);
    let progress = Mutex::new((0, 0));
    let report = |step: DiffProgress| match step {
        DiffProgress::Planned(bytes) => progress.lock().unwrap().0 += bytes,
        DiffProgress::Read(bytes) => progress.lock().unwrap().1 += bytes,
    };
    let options = DiffOptions { memory: 64 * 20, ..DiffOptions::default() };
    compare(side(&old, &PLAIN).await, side(&new, &PLAIN).await, &options, &report).await.unwrap();
    let (planned, read) = *progress.lock().unwrap();
    assert!(planned > 0 && planned == read, "{planned} {read}");
}

fn fates() -> impl Strategy<Value = Fate> {
    let copies = || prop_oneof![8 => Just(1_u64), 1 => 2_u64..4];
    let scores = prop_oneof![Just(None), Just(Some(0.0)), Just(Some(1.5))];
    let names = prop_oneof![Just(None), Just(Some("a")), Just(Some("b"))];
    prop_oneof![
        1 => Just(Fate::Nothing),
        6 => (0_usize..2, scores, names, copies()).prop_map(|(dataset, score, name, copies)| Fate::Row { dataset, score, name, copies }),
        2 => (0_usize..2, prop::option::of(0_usize..2), copies()).prop_map(|(code, dataset, copies)| Fate::Dead { code, dataset, copies }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn it_finds_what_a_comparison_record_by_record_finds(
        records in prop::collection::vec((fates(), prop::option::of(fates())), 1..80),
        rows_max in prop::array::uniform2(1_usize..40),
        other_order in any::<bool>(),
        pairs_in_memory in 1_u64..200,
        threads in 1_usize..4,
        only in prop::option::of(0_usize..2),
    ) {
        let old: Vec<Fate> = records.iter().map(|(fate, _)| fate.clone()).collect();
        let new: Vec<Fate> = records.iter().map(|(fate, other)| other.clone().unwrap_or(fate.clone())).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dataset = only.map(|only| DATASETS[only].to_owned());
        let options = DiffOptions { memory: 64 * pairs_in_memory, threads, samples: 2, dataset };
        let found = runtime.block_on(async {
            let old = side(&old, &Form { rows_max: rows_max[0], other_order: false }).await;
            let new = side(&new, &Form { rows_max: rows_max[1], other_order }).await;
            compare(old, new, &options, &|_| {}).await.unwrap()
        });
        let mut wanted = expected(&old, &new, only);
        wanted.datasets.retain(|name, _| found.datasets.contains_key(name));
        let datasets: BTreeMap<_, _> = found.datasets.clone();
        prop_assert_eq!(&datasets, &wanted.datasets);
        prop_assert_eq!(&found.dead_letters, &wanted.dead_letters);
        assert_complete(&found);
    }
}
