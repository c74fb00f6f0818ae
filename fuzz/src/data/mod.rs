//! The data path: records of any bytes, definitions of any text.
//!
//! Owns: making chunks of arbitrary bytes ([`record`], [`records`]) and datasets of arbitrary text ([`definition`]), and
//! judging what comes out. serde_json is the judge of what is JSON; files are read with the parquet crate's record API.
//! Does not own: the inputs. Every check panics where something does not hold.
//!
//! Writing files and reading them back takes a hundred times as long as decoding, so each check has a form for the fuzzer
//! ([`fast`]) that follows one input of many so far, and judges the others by what the lane counts.

pub mod fast;
mod judge;
mod lane;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use pipeline::chunk::{Chunk, Damage, Framing};
use pipeline::dataset::{Datasets, DefinitionText, LookupTable, SchemaFormat, shipped};
use pipeline::dead_letter::code::Code;
use pipeline::encode::{Encoder, EncoderConfig};
use pipeline::lane::LaneConfig;

use judge::Verdict;
use lane::{Key, Sent};

/// Bytes that a record may have here.
const RECORD_BYTES_MAX: usize = 3_000;
/// Byte that separates the frames of [`records`]: a control character, so no valid record holds one.
const SEPARATOR: u8 = 0x1E;

/// The shipped datasets behind a source that is assigned to one of them, or, beyond the last one, to none.
fn config(assigned: usize) -> &'static Arc<LaneConfig> {
    static CONFIGS: [OnceLock<Arc<LaneConfig>>; 4] = [const { OnceLock::new() }; 4];
    CONFIGS[assigned].get_or_init(|| Arc::new(config_of(assigned)))
}

fn config_of(assigned: usize) -> LaneConfig {
    let datasets = Datasets::compile(&shipped(), &|_, _| Err("no tables".to_owned()));
    let datasets = datasets.expect("the shipped datasets compile");
    lane::config(datasets, Some(assigned).filter(|assigned| *assigned < 3), RECORD_BYTES_MAX)
}

fn shipped_config() -> &'static Arc<LaneConfig> {
    config(3)
}

thread_local! {
    /// Kept from input to input: its buffers must not show in what it encodes.
    static ENCODER: RefCell<Encoder> =
        RefCell::new(Encoder::new(&shipped_config().datasets, &EncoderConfig::default()).expect("zstd has a level 1"));
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

/// A frame of [`records`].
struct Given<'a> {
    key: Key,
    bytes: &'a [u8],
    arrival_ms: Option<i64>,
    has_key: bool,
    damage: Option<Damage>,
    /// Whether it begins the second chunk.
    turns: bool,
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
    let given = given(data);
    let sent: Vec<Sent<'_>> =
        given.iter().map(|given| Sent { key: given.key.clone(), bytes: given.bytes, damage: given.damage }).collect();
    let config = config(usize::from(assigned & 3));
    let out = ENCODER.with_borrow_mut(|encoder| lane::run(config, encoder, chunks(&given)));
    judge_all(&sent, &out, config.assigned[0]);
}

/// The frames that an input tells.
fn given(data: &[u8]) -> Vec<Given<'_>> {
    let mut key = Key { sequence: "49".to_owned() + &"0".repeat(40), sub_sequence: 0 };
    let mut turned = false;
    let frames = data.split(|byte| *byte == SEPARATOR).enumerate().map(|(number, frame)| {
        let (flags, bytes) = frame.split_first().map_or((0, frame), |(flags, bytes)| (*flags, bytes));
        let bit = |bit: u8| flags >> bit & 1 == 1;
        if bit(4) {
            key.sub_sequence += 1;
        } else {
            key = Key { sequence: format!("49{number:040}"), sub_sequence: 0 };
        }
        let damage = match (bit(2), bit(3), bit(6)) {
            (true, _, _) => Some(Damage::TooLarge),
            (false, true, _) => Some(Damage::DamagedFile),
            (false, false, true) => Some(Damage::BrokenAggregate),
            (false, false, false) => None,
        };
        let arrival_ms = bit(0).then(|| lane::ARRIVAL_MS + i64::from(flags) * 1_000_000);
        let turns = bit(5) && !turned;
        turned |= turns;
        Given { key: key.clone(), bytes, arrival_ms, has_key: bit(1), damage, turns }
    });
    frames.collect()
}

/// One chunk of frames, or two.
fn chunks(given: &[Given<'_>]) -> Vec<Chunk> {
    let mut chunks = vec![lane::Frames::default()];
    for Given { key, bytes, arrival_ms, has_key, damage, turns } in given {
        if *turns {
            chunks.push(lane::Frames::default());
        }
        let last = chunks.last_mut().expect("there is one chunk at least");
        last.push(bytes, key, *arrival_ms, has_key.then_some("key \"of\" the record"), *damage);
    }
    chunks.into_iter().map(lane::Frames::into_chunk).collect()
}

/// Every record that was sent is in one row or in one dead letter, and is where it belongs.
fn judge_all(sent: &[Sent<'_>], out: &lane::Out, assigned: Option<usize>) {
    assert_eq!(out.records, sent.len() as u64, "as many records are counted as were sent");
    assert_eq!(out.rows.len() + out.letters.len(), sent.len(), "each record is in one row or one dead letter");
    let mut raw: Vec<Vec<u8>> = sent.iter().map(|sent| judge::as_line(sent.bytes)).collect();
    raw.sort();
    assert_eq!(out.raw, raw, "each record lands raw");
    for Sent { key, bytes, damage } in sent {
        match (out.rows.get(key), out.letters.get(key)) {
            (Some(_), None) => judge_one(bytes, *damage, None, assigned.is_some()),
            (None, Some(letter)) => {
                assert_eq!(letter.raw, *bytes, "a dead letter keeps the bytes");
                judge_one(bytes, *damage, Some(letter.code), assigned.is_some());
            }
            found => panic!("a record is in one place, not {found:?}: {key:?}"),
        }
    }
}

/// Whether a record that became a row (no code) or a dead letter should have.
fn judge_one(bytes: &[u8], damage: Option<Damage>, code: Option<Code>, is_assigned: bool) {
    let shown = || String::from_utf8_lossy(bytes);
    let too_large = (bytes.len() > RECORD_BYTES_MAX).then_some(Damage::TooLarge);
    let damaged = damage.or(too_large).map(|damage| match damage {
        Damage::TooLarge => Code::TooLarge,
        Damage::DamagedFile => Code::DamagedFile,
        Damage::BrokenAggregate => Code::BrokenAggregate,
    });
    if damaged.is_some() {
        return assert_eq!(code, damaged, "a damaged record is a dead letter");
    }
    let verdict = judge::verdict(bytes);
    match code {
        None => assert!(matches!(verdict, Verdict::Object | Verdict::Deep), "{verdict:?} is no row: {}", shown()),
        Some(code) => {
            assert!(verdict.allows(code, is_assigned), "{code} is no answer to what is {verdict:?}: {}", shown());
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
    let _ = Datasets::name_of("own.toml", text);
    let other = DefinitionText { file: "other.toml".to_owned(), text: OTHER.to_owned() };
    let together = Datasets::compile(&[own(text), other], &tables);
    match compiled(text) {
        Some(datasets) => put_to_work(datasets, text),
        None => assert!(together.is_err(), "what is wrong alone is wrong with others"),
    }
}

fn own(text: &str) -> DefinitionText {
    DefinitionText { file: "own.toml".to_owned(), text: text.to_owned() }
}

fn tables(file: &str, key: &str) -> Result<LookupTable, String> {
    match file {
        "none.csv" => Err("there is none".to_owned()),
        _ => LookupTable::read(b"code,name,rank\nDE,Germany,1\nFR,,2\ntext,other,x\n", key),
    }
}

/// The dataset of a text alone, if it is one.
fn compiled(text: &str) -> Option<Datasets> {
    match Datasets::compile(&[own(text)], &tables) {
        Ok(datasets) => Some(datasets),
        Err(problems) => {
            assert!(!problems.is_empty() && !problems.to_string().is_empty(), "a refusal says why");
            None
        }
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
    let config = Arc::new(lane::config(datasets, Some(0), usize::MAX));
    for drawn in [config.graph.text(None), config.graph.mermaid(), config.graph.dot()] {
        assert!(drawn.contains("decode"));
    }
    let records = judge::records_for(text);
    let mut encoder = Encoder::new(&config.datasets, &EncoderConfig::default())
        .expect("the schema of what compiles is one of Parquet");
    let data: Vec<u8> = records.iter().flat_map(|record| [record.as_bytes(), b"\n"].concat()).collect();
    let out = lane::run(&config, &mut encoder, vec![lane::chunk(data, Framing::Lines { base: 0 })]);
    assert_eq!(out.rows.len() + out.letters.len(), records.len(), "each record is in one row or one dead letter");
    let mut by_code: BTreeMap<Code, usize> = BTreeMap::new();
    out.letters.values().for_each(|letter| *by_code.entry(letter.code).or_default() += 1);
    for broken in [Code::NotJson, Code::NotUtf8, Code::Truncated, Code::MultipleDocuments, Code::TrailingBytes] {
        assert!(!by_code.contains_key(&broken), "the records are JSON");
    }
}
