//! The data path: records of any bytes, definitions of any text.
//!
//! Owns: making chunks from arbitrary bytes ([`record`], [`records`]) and datasets from arbitrary text ([`definition`]), and
//! checking the results. serde_json decides what is JSON; files are read with the parquet crate's record API. Does not own: the
//! inputs. A check panics if something does not hold.
//!
//! Writing files and reading them back takes a hundred times as long as decoding. So each check has a form for the fuzzer
//! ([`fast`]), which reads files back for one input of many, and checks only the lane's counts for the others.

pub mod fast;
mod identities;
mod judge;
mod lane;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use pipeline::chunk::{Chunk, Damage, Framing};
use pipeline::dataset::{Datasets, DefinitionHistory, DefinitionText, LookupTable, SchemaFormat, shipped};
use pipeline::dead_letter::code::Code;
use pipeline::documents::{Documents, cut};
use pipeline::encode::{Encoder, EncoderConfig};
use pipeline::lane::LaneConfig;

pub use identities::identities;

use judge::Verdict;
use lane::{Key, Sent};

/// The limit for the bytes of a record.
const RECORD_BYTES_MAX: usize = 3_000;
/// The byte that separates the frames of [`records`]. It is a control character, so no valid record contains it.
const SEPARATOR: u8 = 0x1E;

/// The shipped datasets, for a source that is assigned to one of them, or to none if `assigned` is beyond the last.
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
    /// Kept from input to input: what it encodes must not depend on its buffers.
    static ENCODER: RefCell<Encoder> =
        RefCell::new(Encoder::new(&shipped_config().datasets, &EncoderConfig::default()).expect("zstd has a level 1"));
}

/// Lines of JSON, of any dataset: all lines in one chunk, and then each line in a chunk of its own. Then the same text as documents
/// that may span lines.
pub fn record(data: &[u8]) {
    let config = shipped_config();
    many(config, data);
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
        assert_eq!(together.rows, apart.rows, "rows depend on how records are divided into chunks");
        assert_eq!(
            together.dead_letters, apart.dead_letters,
            "dead letters depend on how records are divided into chunks"
        );
    }
}

/// Documents of a text, which may span lines: in one chunk, and in chunks as a source cuts them that reads some bytes at a time.
fn many(config: &Arc<LaneConfig>, data: &[u8]) {
    let chunk = |begin: usize, end: usize| {
        let framing = Framing::Lines { base: 1_000 + begin as u64 };
        lane::chunk(data[begin..end].to_vec(), framing).with_documents(Documents::MANY)
    };
    let step = data.first().map_or(1, |first| usize::from(*first) + 1);
    let (mut begin, mut have, mut chunks) = (0, 0, Vec::new());
    while begin < data.len() {
        have = (have + step).min(data.len());
        let end = match cut(&data[begin..have], Documents::MANY) {
            Some(end) => begin + end,
            None if have == data.len() => have,
            None => continue,
        };
        chunks.push(chunk(begin, end));
        begin = end;
    }
    let together = ENCODER.with_borrow_mut(|encoder| lane::run(config, encoder, vec![chunk(0, data.len())]));
    let apart = ENCODER.with_borrow_mut(|encoder| lane::run(config, encoder, chunks));
    let found = together.rows.len() + together.dead_letters.len();
    assert_eq!(together.records, found as u64, "a record is lost");
    assert_eq!(together.rows, apart.rows, "rows depend on where a text is cut");
    assert_eq!(together.dead_letters, apart.dead_letters, "dead letters depend on where a text is cut");
    assert_eq!(together.raw, apart.raw, "raw lines depend on where a text is cut");
}

/// A frame of [`records`].
struct Given<'a> {
    key: Key,
    bytes: &'a [u8],
    arrival_ms: Option<i64>,
    has_key: bool,
    damage: Option<Damage>,
    /// Whether it begins the second chunk.
    begins_chunk: bool,
}

/// Frames separated by [`SEPARATOR`]. The first byte of the input is the dataset that the source is assigned to. The first byte of
/// each frame has flags:
///
/// | bit | meaning |
/// | --- | --- |
/// | 0 | it has an arrival time of its own |
/// | 1 | it has a partition key |
/// | 2 | it is damaged: too large |
/// | 3 | it is damaged: its file |
/// | 4 | it belongs to the same aggregate as the frame before it |
/// | 5 | it begins the second chunk |
/// | 6 | it is damaged: a broken aggregate |
pub fn records(data: &[u8]) {
    let Some((assigned, data)) = data.split_first() else { return };
    let given = given(data);
    let sent: Vec<Sent<'_>> =
        given.iter().map(|given| Sent { key: given.key.clone(), bytes: given.bytes, damage: given.damage }).collect();
    let config = config(usize::from(assigned & 3));
    let out = ENCODER.with_borrow_mut(|encoder| lane::run(config, encoder, chunks(&given)));
    judge_all(&sent, &out, config.assigned[0]);
}

/// The frames of an input.
fn given(data: &[u8]) -> Vec<Given<'_>> {
    let mut key = Key { sequence: "49".to_owned() + &"0".repeat(40), sub_sequence: 0 };
    let mut has_second = false;
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
        let begins_chunk = bit(5) && !has_second;
        has_second |= begins_chunk;
        Given { key: key.clone(), bytes, arrival_ms, has_key: bit(1), damage, begins_chunk }
    });
    frames.collect()
}

/// The frames, in one chunk or two.
fn chunks(given: &[Given<'_>]) -> Vec<Chunk> {
    let mut chunks = vec![lane::Frames::default()];
    for Given { key, bytes, arrival_ms, has_key, damage, begins_chunk } in given {
        if *begins_chunk {
            chunks.push(lane::Frames::default());
        }
        let last = chunks.last_mut().expect("there is one chunk at least");
        last.push(bytes, key, *arrival_ms, has_key.then_some("key \"of\" the record"), *damage);
    }
    chunks.into_iter().map(lane::Frames::into_chunk).collect()
}

/// Every record that was sent is in one row or one dead letter, and in the right one of these.
fn judge_all(sent: &[Sent<'_>], out: &lane::Out, assigned: Option<usize>) {
    assert_eq!(out.records, sent.len() as u64, "the number of counted records differs from those sent");
    assert_eq!(out.rows.len() + out.dead_letters.len(), sent.len(), "a record is lost or landed twice");
    let mut raw: Vec<Vec<u8>> = sent.iter().map(|sent| judge::as_line(sent.bytes)).collect();
    raw.sort();
    assert_eq!(out.raw, raw, "raw lines differ from the records");
    for Sent { key, bytes, damage } in sent {
        match (out.rows.get(key), out.dead_letters.get(key)) {
            (Some(_), None) => judge_one(bytes, *damage, None, assigned.is_some()),
            (None, Some(dead)) => {
                assert_eq!(dead.raw, *bytes, "a dead letter has other bytes");
                judge_one(bytes, *damage, Some(dead.code), assigned.is_some());
            }
            found => panic!("a record must be a row or a dead letter, not {found:?}: {key:?}"),
        }
    }
}

/// Checks that a record is rightly a row (no code) or a dead letter.
fn judge_one(bytes: &[u8], damage: Option<Damage>, code: Option<Code>, is_assigned: bool) {
    let shown = || String::from_utf8_lossy(bytes);
    let too_large = (bytes.len() > RECORD_BYTES_MAX).then_some(Damage::TooLarge);
    let damaged = damage.or(too_large).map(|damage| match damage {
        Damage::TooLarge => Code::TooLarge,
        Damage::DamagedFile => Code::DamagedFile,
        Damage::BrokenAggregate => Code::BrokenAggregate,
        Damage::Truncated => Code::Truncated,
    });
    if damaged.is_some() {
        return assert_eq!(code, damaged, "a damaged record must be a dead letter of its code");
    }
    let verdict = judge::verdict(bytes);
    match code {
        None => assert!(
            matches!(verdict, Verdict::Object | Verdict::Deep),
            "a row from a record that is {verdict:?}: {}",
            shown()
        ),
        Some(code) => {
            assert!(verdict.allows(code, is_assigned), "code {code} for a record that is {verdict:?}: {}", shown());
        }
    }
}

/// Another dataset, which the dataset before it must not affect.
const OTHER: &str = r#"
name = "other"
event_time = { pointer = "/seen/at", format = "epoch_ms" }
recognize = { present = ["/other/id"], equals = { "/other/kind" = ["x", "y"] } }
column = [{ name = "id", pointer = "/other/id", type = "string" }]
"#;

/// The text of a definition, alone and before another one. A definition that compiles is used.
pub fn definition(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Datasets::name_of("own.toml", text);
    let other = DefinitionText { file: "other.toml".to_owned(), text: OTHER.to_owned() };
    let together = Datasets::compile(&[own(text), other], &tables);
    match compiled(text) {
        Some(datasets) => use_datasets(datasets, text),
        None => assert!(together.is_err(), "a definition that is refused alone compiles with another"),
    }
}

fn own(text: &str) -> DefinitionText {
    DefinitionText { file: "own.toml".to_owned(), text: text.to_owned() }
}

fn tables(file: &str, key: &str) -> Result<LookupTable, String> {
    match file {
        "none.csv" => Err("there is no such file".to_owned()),
        _ => LookupTable::read(b"code,name,rank\nDE,Germany,1\nFR,,2\ntext,other,x\n", key),
    }
}

/// The dataset of a definition, if the definition compiles.
fn compiled(text: &str) -> Option<Datasets> {
    match Datasets::compile(&[own(text)], &tables) {
        Ok(datasets) => Some(datasets),
        Err(problems) => {
            assert!(!problems.is_empty() && !problems.to_string().is_empty(), "a refusal without a reason");
            None
        }
    }
}

fn use_datasets(datasets: Datasets, text: &str) {
    for format in [SchemaFormat::Athena, SchemaFormat::Glue, SchemaFormat::JsonSchema, SchemaFormat::Arrow] {
        let rendered = datasets.schema(0, format, "s3://lake");
        assert!(!rendered.is_empty());
        if format != SchemaFormat::Athena {
            serde_json::from_str::<serde_json::Value>(&rendered).expect("this schema is JSON");
        }
    }
    assert_eq!(datasets.version(0).len(), 64);
    let history = datasets.history(0);
    let stored = DefinitionHistory::from_bytes(history.dataset(), &history.to_bytes()).expect("a history reads back");
    assert_eq!(stored, history);
    assert!(datasets.changes(0, &stored).is_empty(), "a definition fits its own files");
    let config = Arc::new(lane::config(datasets, Some(0), usize::MAX));
    for drawn in [config.graph.text(None), config.graph.mermaid(), config.graph.dot()] {
        assert!(drawn.contains("decode"));
    }
    let records = judge::records_for(text);
    let mut encoder = Encoder::new(&config.datasets, &EncoderConfig::default())
        .expect("a dataset that compiles has a Parquet schema");
    let data: Vec<u8> = records.iter().flat_map(|record| [record.as_bytes(), b"\n"].concat()).collect();
    let out = lane::run(&config, &mut encoder, vec![lane::chunk(data, Framing::Lines { base: 0 })]);
    assert_eq!(out.rows.len() + out.dead_letters.len(), records.len(), "a record is lost or landed twice");
    let mut by_code: BTreeMap<Code, usize> = BTreeMap::new();
    out.dead_letters.values().for_each(|dead| *by_code.entry(dead.code).or_default() += 1);
    for broken in [Code::NotJson, Code::NotUtf8, Code::Truncated, Code::MultipleDocuments, Code::TrailingBytes] {
        assert!(!by_code.contains_key(&broken), "all records are JSON");
    }
}
