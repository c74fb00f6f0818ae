//! What must hold for any input: the checks behind the fuzz targets, and behind the ordinary test that runs their
//! stored inputs.
//!
//! Owns: making chunks of arbitrary bytes ([`record`], [`records`]) and datasets of arbitrary text ([`definition`]), and
//! judging what comes out. serde_json is the judge of what is JSON; files are read with the parquet crate's record API.
//! Does not own: the inputs. Every check panics where something does not hold.

mod judge;
mod lane;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use pipeline::chunk::{Damage, Framing};
use pipeline::dataset::{Datasets, DefinitionText, LookupTable, SchemaFormat, shipped};
use pipeline::encode::Encoder;
use pipeline::lane::LaneConfig;
use pipeline::reject::Code;

use judge::Verdict;
use lane::{Key, Sent};

/// Bytes that a record may have here.
const RECORD_BYTES_MAX: usize = 3_000;
/// Byte that separates the frames of [`records`]: a control character, so no valid record holds one.
const SEPARATOR: u8 = 0x1E;

/// The shipped datasets behind a source that is assigned to one of them, or, beyond the last one, to none.
fn config(assigned: usize) -> &'static Arc<LaneConfig> {
    static CONFIGS: [OnceLock<Arc<LaneConfig>>; 4] = [const { OnceLock::new() }; 4];
    CONFIGS[assigned].get_or_init(|| {
        let datasets = Datasets::compile(&shipped(), &|_, _| Err("no tables".to_owned()));
        let datasets = datasets.expect("the shipped datasets compile");
        lane::config(datasets, Some(assigned).filter(|assigned| *assigned < 3), RECORD_BYTES_MAX)
    })
}

fn shipped_config() -> &'static Arc<LaneConfig> {
    config(3)
}

thread_local! {
    /// Kept from input to input: its buffers must not show in what it encodes.
    static ENCODER: RefCell<Encoder> =
        RefCell::new(Encoder::new(&shipped_config().datasets, 1).expect("zstd has a level 1"));
}

/// Lines of JSON, of any dataset: each line in one chunk with the others, and again in a chunk of its own.
pub fn record(data: &[u8]) {
    let config = shipped_config();
    let base = 1_000;
    let lines = judge::lines(data);
    let sent: Vec<Sent<'_>> = lines
        .iter()
        .map(|line| Sent { key: Key::of_line(base + line.offset as u64), bytes: line.text, damage: None })
        .collect();
    let together = ENCODER.with_borrow_mut(|encoder| {
        let chunk = lane::chunk(data.to_vec(), Framing::Lines { base });
        lane::run(config, encoder, vec![chunk])
    });
    judge_all(&sent, &together, None);
    if sent.len() > 1 {
        let chunks = lines
            .iter()
            .map(|line| lane::chunk(line.whole.to_vec(), Framing::Lines { base: base + line.offset as u64 }));
        let apart = ENCODER.with_borrow_mut(|encoder| lane::run(config, encoder, chunks.collect()));
        assert_eq!(together.rows, apart.rows, "rows do not depend on how records fall into chunks");
        assert_eq!(together.letters, apart.letters, "nor do dead letters");
    }
}

/// Frames separated by [`SEPARATOR`]. The first byte of all says what the source is assigned to; the first byte of a
/// frame what is known of it:
///
/// | bit | meaning |
/// | --- | --- |
/// | 0 | it has an arrival time of its own |
/// | 1 | it has a partition key |
/// | 2 | it is damaged: too large |
/// | 3 | it is damaged: its file |
/// | 4 | it is the next one of the same aggregated record |
/// | 5 | it begins the second chunk |
/// | 6 | it is damaged: an aggregate that can't be opened |
pub fn records(data: &[u8]) {
    let Some((assigned, data)) = data.split_first() else { return };
    let assigned = usize::from(assigned & 3);
    let mut sent = Vec::new();
    let mut chunks = vec![lane::Frames::default()];
    let mut key = Key { sequence: "49".to_owned() + &"0".repeat(40), sub_sequence: 0 };
    for (number, frame) in data.split(|byte| *byte == SEPARATOR).enumerate() {
        let (flags, bytes) = frame.split_first().map_or((0, frame), |(flags, bytes)| (*flags, bytes));
        let bit = |bit: u8| flags >> bit & 1 == 1;
        if bit(4) {
            key.sub_sequence += 1;
        } else {
            key = Key { sequence: format!("49{number:040}"), sub_sequence: 0 };
        }
        if bit(5) && chunks.len() == 1 {
            chunks.push(lane::Frames::default());
        }
        let damage = match (bit(2), bit(3), bit(6)) {
            (true, _, _) => Some(Damage::TooLarge),
            (false, true, _) => Some(Damage::DamagedFile),
            (false, false, true) => Some(Damage::BrokenAggregate),
            (false, false, false) => None,
        };
        let arrival_ms = bit(0).then(|| lane::ARRIVAL_MS + i64::from(flags) * 1_000_000);
        let last = chunks.last_mut().expect("there is one chunk at least");
        last.push(bytes, &key, arrival_ms, bit(1).then_some("key \"of\" the record"), damage);
        sent.push(Sent { key: key.clone(), bytes, damage });
    }
    let config = config(assigned);
    let chunks = chunks.into_iter().map(lane::Frames::into_chunk).collect();
    let out = ENCODER.with_borrow_mut(|encoder| lane::run(config, encoder, chunks));
    judge_all(&sent, &out, config.assigned[0]);
}

/// Every record that was sent is in one row or in one dead letter, and is where it belongs.
fn judge_all(sent: &[Sent<'_>], out: &lane::Out, assigned: Option<usize>) {
    assert_eq!(out.records, sent.len() as u64, "as many records are counted as were sent");
    assert_eq!(out.rows.len() + out.letters.len(), sent.len(), "each record is in one row or one dead letter");
    let mut raw: Vec<Vec<u8>> = sent.iter().map(|sent| judge::as_line(sent.bytes)).collect();
    raw.sort();
    assert_eq!(out.raw, raw, "each record lands raw");
    for Sent { key, bytes, damage } in sent {
        let verdict = judge::verdict(bytes);
        match (out.rows.get(key), out.letters.get(key)) {
            (Some(_), None) => {
                assert!(damage.is_none() && bytes.len() <= RECORD_BYTES_MAX, "a damaged record is no row");
                let shown = String::from_utf8_lossy(bytes);
                assert!(matches!(verdict, Verdict::Object | Verdict::Deep), "{verdict:?} is no row: {shown}");
            }
            (None, Some(letter)) => {
                assert_eq!(letter.raw, *bytes, "a dead letter keeps the bytes");
                let shown = String::from_utf8_lossy(bytes);
                match damage {
                    Some(Damage::TooLarge) => assert_eq!(letter.code, Code::TooLarge),
                    Some(Damage::DamagedFile) => assert_eq!(letter.code, Code::DamagedFile),
                    Some(Damage::BrokenAggregate) => assert_eq!(letter.code, Code::BrokenAggregate),
                    None if bytes.len() > RECORD_BYTES_MAX => assert_eq!(letter.code, Code::TooLarge),
                    None => assert!(
                        verdict.allows(letter.code, assigned.is_some()),
                        "{} is no answer to what is {verdict:?}: {shown}",
                        letter.code
                    ),
                }
            }
            found => panic!("a record is in one place, not {found:?}: {key:?}"),
        }
    }
}

/// Another dataset, which must not mind what stands before it.
const OTHER: &str = r#"
name = "other"
event_time = { pointer = "/seen/at", format = "epoch_ms" }
recognize = { present = ["/other/id"], equals = { "/other/kind" = ["x", "y"] } }
column = [{ name = "id", pointer = "/other/id", type = "string" }]
"#;

/// Text of a definition, alone and before another one. What compiles is put to work.
pub fn definition(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let own = DefinitionText { file: "own.toml".to_owned(), text: text.to_owned() };
    let tables = |file: &str, key: &str| match file {
        "none.csv" => Err("there is none".to_owned()),
        _ => LookupTable::read(b"code,name,rank\nDE,Germany,1\nFR,,2\ntext,other,x\n", key),
    };
    let _ = Datasets::name_of("own.toml", text);
    let alone = Datasets::compile(std::slice::from_ref(&own), &tables);
    let other = DefinitionText { file: "other.toml".to_owned(), text: OTHER.to_owned() };
    let together = Datasets::compile(&[own, other], &tables);
    match alone {
        Err(problems) => {
            assert!(!problems.is_empty() && !problems.to_string().is_empty(), "a refusal says why");
            assert!(together.is_err(), "what is wrong alone is wrong with others");
        }
        Ok(datasets) => put_to_work(datasets, text),
    }
}

fn put_to_work(datasets: Datasets, text: &str) {
    for format in [SchemaFormat::Athena, SchemaFormat::Glue, SchemaFormat::JsonSchema, SchemaFormat::Arrow] {
        let rendered = datasets.schema(0, format, "s3://lake");
        assert!(!rendered.is_empty());
        if format != SchemaFormat::Athena {
            serde_json::from_str::<serde_json::Value>(&rendered).expect("the other schemas are JSON");
        }
    }
    assert_eq!(datasets.version(0).len(), 64);
    let config = lane::config(datasets, Some(0), usize::MAX);
    for drawn in [config.graph.text(None), config.graph.mermaid(), config.graph.dot()] {
        assert!(drawn.contains("decode"));
    }
    let records = judge::records_for(text);
    let mut encoder = Encoder::new(&config.datasets, 1).expect("the schema of what compiles is one of Parquet");
    let data: Vec<u8> = records.iter().flat_map(|record| [record.as_bytes(), b"\n"].concat()).collect();
    let out = lane::run(&config, &mut encoder, vec![lane::chunk(data, Framing::Lines { base: 0 })]);
    assert_eq!(out.rows.len() + out.letters.len(), records.len(), "each record is in one row or one dead letter");
    let mut by_code: BTreeMap<Code, usize> = BTreeMap::new();
    out.letters.values().for_each(|letter| *by_code.entry(letter.code).or_default() += 1);
    for broken in [Code::NotJson, Code::NotUtf8, Code::Truncated, Code::MultipleDocuments, Code::TrailingBytes] {
        assert!(!by_code.contains_key(&broken), "the records are JSON");
    }
}
