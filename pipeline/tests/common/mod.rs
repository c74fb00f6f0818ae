//! Shared by the integration tests: a lane with its configuration, and everything that comes out of it, read back.
//!
//! Rows are read with the parquet crate's record API, which shares no code with the encoder. Line objects are decompressed and
//! split. Times are fixed: nothing here reads a clock.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary uses its own part of this; an expectation would fail in those that use all of it"
)]

mod replay;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use parquet::basic::Encoding;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use pipeline::anonymize::PseudonymKey;
use pipeline::chunk::{Chunk, Frame, Framing};
use pipeline::dataset::{Datasets, DefinitionText, LookupTable, shipped};
use pipeline::dead_letter::code::{Code, Reason};
use pipeline::encode::{Encoder, EncoderConfig, Encodings, Provenance};
use pipeline::graph::{Counts, Graph};
use pipeline::lane::{DeniedNames, Lane, LaneConfig, Pushed};
use pipeline::layout::{Area, Folder};
use pipeline::line_objects::{LineCodec, LineMember};
use serde_json::{Map, Value};

/// The stream of the chunks.
pub(crate) const STREAM: &str = "kinesis://records";
/// The shard of the chunks, unless a test says otherwise.
pub(crate) const SHARD: &str = "shardId-000000000007";
/// The arrival time of the chunks, unless a test says otherwise: 2025-02-01T00:00:00Z.
pub(crate) const ARRIVAL_MS: i64 = 1_738_368_000_000;
/// Bytes that a record may have in tests.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 20;
/// The sequence number of the first byte of the first chunk.
pub(crate) const BASE: u64 = 5_000;

/// The pseudonym key.
pub(crate) fn key() -> PseudonymKey {
    PseudonymKey::new(&[7; 32]).expect("32 bytes make a key")
}

/// A value's pseudonym under the tests' key.
pub(crate) fn pseudonym(value: &str) -> String {
    String::from_utf8(key().pseudonym(value.as_bytes()).to_vec()).expect("hex digits")
}

/// How a lane is set up.
pub(crate) struct Setup {
    definitions: Vec<DefinitionText>,
    tables: BTreeMap<String, Vec<u8>>,
    assigned: Option<String>,
    record_bytes_max: usize,
    raw: bool,
    denied_names: bool,
    /// Whether nothing was changed, so that all tests of a binary can share the compiled form.
    plain: bool,
}

impl Setup {
    /// The shipped datasets.
    pub(crate) fn shipped() -> Self {
        Setup {
            definitions: shipped(),
            tables: BTreeMap::new(),
            assigned: None,
            record_bytes_max: RECORD_BYTES_MAX,
            raw: true,
            denied_names: false,
            plain: true,
        }
    }

    /// These definitions, in this order.
    pub(crate) fn of<T: AsRef<str>>(definitions: &[T]) -> Self {
        let text =
            |(n, text): (usize, &T)| DefinitionText { file: format!("{n}.toml"), text: text.as_ref().to_owned() };
        let definitions = definitions.iter().enumerate().map(text).collect();
        Setup { definitions, plain: false, ..Setup::shipped() }
    }

    /// A lookup file.
    pub(crate) fn table(mut self, file: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.tables.insert(file.to_owned(), bytes.into());
        self
    }

    /// Assigns this dataset to all records of the source.
    pub(crate) fn assigned(mut self, dataset: &str) -> Self {
        self.plain = false;
        self.assigned = Some(dataset.to_owned());
        self
    }

    /// Bytes that a record may have.
    pub(crate) fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.plain = false;
        self.record_bytes_max = bytes;
        self
    }

    /// Collects the names of denied keys.
    pub(crate) fn with_denied_names(mut self) -> Self {
        self.plain = false;
        self.denied_names = true;
        self
    }

    /// No raw landing.
    pub(crate) fn without_raw(mut self) -> Self {
        self.plain = false;
        self.raw = false;
        self
    }

    /// The datasets, which must compile.
    pub(crate) fn datasets(&self) -> Datasets {
        self.try_datasets().unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// The datasets, or every problem with them.
    pub(crate) fn try_datasets(&self) -> Result<Datasets, String> {
        let tables = |file: &str, key: &str| match self.tables.get(file) {
            Some(bytes) => LookupTable::read(bytes, key),
            None => Err("no such file".to_owned()),
        };
        Datasets::compile(&self.definitions, &tables).map_err(|problems| problems.to_string())
    }

    /// The lane.
    pub(crate) fn run(self) -> Run {
        static SHIPPED: OnceLock<Arc<LaneConfig>> = OnceLock::new();
        let config = if self.plain { Arc::clone(SHIPPED.get_or_init(|| self.config())) } else { self.config() };
        Run {
            lane: Lane::new(Arc::clone(&config)),
            counts: config.graph.counts(),
            config,
            next: BASE,
            records: 0,
            by_code: BTreeMap::new(),
            nulled_values: BTreeMap::new(),
            denied_keys: 0,
            denied_names: DeniedNames::default(),
            members: Vec::new(),
        }
    }

    fn config(&self) -> Arc<LaneConfig> {
        let datasets = self.datasets();
        let graph = Graph::new(&["in".to_owned()], &datasets, self.raw);
        let assigned = self.assigned.as_ref().map(|name| datasets.find(name).expect("the assigned dataset is there"));
        Arc::new(LaneConfig {
            graph,
            key: Some(key()),
            assigned: vec![assigned],
            raw: self.raw.then_some(LineCodec::Gzip(1)),
            raw_identities: true,
            dead_letters: LineCodec::Gzip(1),
            record_bytes_max: self.record_bytes_max,
            hash_seed: 42,
            denied_names: self.denied_names,
            datasets,
        })
    }
}

/// A lane that records are pushed into.
pub(crate) struct Run {
    pub(crate) config: Arc<LaneConfig>,
    pub(crate) lane: Lane,
    pub(crate) counts: Counts,
    pub(crate) records: u64,
    pub(crate) by_code: BTreeMap<Code, u64>,
    /// Values that became null, by dataset and field: `events/session/start_timestamp`.
    pub(crate) nulled_values: BTreeMap<String, u64>,
    pub(crate) denied_keys: u64,
    pub(crate) denied_names: DeniedNames,
    next: u64,
    members: Vec<LineMember>,
}

impl Run {
    /// Pushes a chunk of lines; its sequence numbers follow those of the previous chunk.
    pub(crate) fn lines(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.lines_at(bytes, ARRIVAL_MS)
    }

    /// The same with another arrival time.
    pub(crate) fn lines_at(&mut self, bytes: impl AsRef<[u8]>, arrival_ms: i64) -> &mut Self {
        let bytes = bytes.as_ref().to_vec();
        let framing = Framing::Lines { base: self.next };
        self.next += bytes.len() as u64;
        self.push(Chunk::new(STREAM.into(), SHARD.into(), arrival_ms, bytes, framing))
    }

    /// Pushes a chunk of records with their own sequence numbers.
    pub(crate) fn frames(&mut self, frames: &[TestFrame<'_>]) -> &mut Self {
        self.push(chunk_of(frames))
    }

    /// Pushes any chunk.
    pub(crate) fn push(&mut self, chunk: Chunk) -> &mut Self {
        let pushed = self.lane.push(0, chunk);
        let names: Vec<&str> = self.config.datasets.names().collect();
        for ((dataset, field), count) in pushed.nulled_values {
            *self.nulled_values.entry(format!("{}{field}", names[dataset])).or_default() += count;
        }
        self.denied_names.merge(pushed.denied_names);
        let Pushed { records, counts, dead_letters, denied_keys, members, buffer, .. } = pushed;
        assert!(buffer.is_empty(), "the buffer comes back empty");
        self.counts.merge(&counts);
        self.records += records;
        for (code, count) in dead_letters {
            *self.by_code.entry(code).or_default() += count;
        }
        self.denied_keys += denied_keys.iter().sum::<u64>();
        self.members.extend(members);
        self
    }

    /// Returns line members that were taken to be inspected.
    pub(crate) fn keep(&mut self, members: Vec<LineMember>) {
        self.members.extend(members);
    }

    /// Takes everything out of the lane and reads it back.
    pub(crate) fn take(&mut self) -> Outcome {
        self.members.extend(self.lane.take_lines());
        let files = encode_all(&self.config, &mut self.lane);
        let members = std::mem::take(&mut self.members);
        let lines: Vec<Line> = members.iter().flat_map(lines_of).collect();
        let (errors, raw): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.folder.area() == Area::Error);
        let dead_letters = errors.into_iter().map(|line| StoredDeadLetter::read(&line)).collect();
        let outcome = Outcome { files, raw, dead_letters };
        if self.config.raw.is_some() {
            replay::assert_same_again(&self.config, &members, &outcome);
        }
        outcome
    }

    /// How many records have passed along an edge.
    pub(crate) fn count(&self, edge: &str) -> u64 {
        let edge = edge.parse().ok().and_then(|id| self.config.graph.find_edge(&id)).expect("the id of an edge");
        self.counts[edge].records
    }
}

/// Pushes lines into a lane of the shipped datasets, and returns what comes out.
pub(crate) fn outcome_of(bytes: impl AsRef<[u8]>) -> Outcome {
    Setup::shipped().run().lines(bytes).take()
}

/// Lines joined by line ends, with one after the last.
pub(crate) fn ndjson<T: AsRef<[u8]>>(lines: &[T]) -> Vec<u8> {
    lines.iter().flat_map(|line| line.as_ref().iter().copied().chain([b'\n'])).collect()
}

/// A record of a test with its own sequence number.
#[derive(Clone, Copy)]
pub(crate) struct TestFrame<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) sequence: &'a str,
    pub(crate) sub_sequence: u64,
    pub(crate) arrival_ms: Option<i64>,
    pub(crate) partition_key: Option<&'a str>,
    pub(crate) damage: Option<pipeline::chunk::Damage>,
}

impl<'a> TestFrame<'a> {
    pub(crate) fn new(bytes: &'a [u8], sequence: &'a str) -> Self {
        TestFrame { bytes, sequence, sub_sequence: 0, arrival_ms: None, partition_key: None, damage: None }
    }
}

/// A chunk of frames, with a byte between them that belongs to none.
pub(crate) fn chunk_of(frames: &[TestFrame<'_>]) -> Chunk {
    let place = |at: usize| u32::try_from(at).expect("a test's chunk is small");
    let mut bytes = Vec::new();
    let mut framed = Vec::new();
    for frame in frames {
        let start = place(bytes.len());
        bytes.extend_from_slice(frame.bytes);
        framed.push(Frame {
            bytes: start..place(bytes.len()),
            sequence: frame.sequence.into(),
            sub_sequence: frame.sub_sequence,
            arrival_ms: frame.arrival_ms,
            partition_key: frame.partition_key.map(Into::into),
            damage: frame.damage,
        });
        bytes.push(b'|');
    }
    Chunk::new(STREAM.into(), SHARD.into(), ARRIVAL_MS, bytes, Framing::Records(framed))
}

/// Everything that came out of a lane.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) files: Vec<File>,
    pub(crate) raw: Vec<Line>,
    pub(crate) dead_letters: Vec<StoredDeadLetter>,
}

impl Outcome {
    /// All rows of a dataset, by sequence number.
    pub(crate) fn rows(&self, dataset: &str) -> Vec<Map<String, Value>> {
        let files = self.files.iter().filter(|file| file.dataset == dataset);
        let mut rows: Vec<_> = files.flat_map(|file| file.rows.iter().cloned()).collect();
        rows.sort_by_key(number_of);
        rows
    }

    /// The one row of a dataset.
    pub(crate) fn row(&self, dataset: &str) -> Map<String, Value> {
        let mut rows = self.rows(dataset);
        assert_eq!(rows.len(), 1, "there is one row; dead letters: {:?}", self.dead_letters);
        rows.remove(0)
    }

    /// The one dead letter.
    pub(crate) fn dead_letter(&self) -> &StoredDeadLetter {
        assert_eq!(self.dead_letters.len(), 1, "there is one dead letter: {:?}", self.dead_letters);
        &self.dead_letters[0]
    }

    /// How many rows there are.
    pub(crate) fn row_count(&self) -> usize {
        self.files.iter().map(|file| file.rows.len()).sum()
    }

    /// The codes of the dead letters, in the order of their sequence numbers.
    pub(crate) fn codes(&self) -> Vec<Code> {
        let mut dead_letters: Vec<&StoredDeadLetter> = self.dead_letters.iter().collect();
        dead_letters.sort_by_key(|dead_letter| dead_letter.sequence.parse::<u64>().unwrap_or(0));
        dead_letters.iter().map(|dead_letter| dead_letter.code).collect()
    }
}

fn number_of(row: &Map<String, Value>) -> (usize, String, i64) {
    let sequence = row["ingest_sequence"].as_str().unwrap_or_default().to_owned();
    (sequence.len(), sequence, row["ingest_subsequence"].as_i64().unwrap_or(0))
}

/// A Parquet file: its bytes and its rows.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) dataset: String,
    pub(crate) path: String,
    pub(crate) bytes: Bytes,
    pub(crate) rows: Vec<Map<String, Value>>,
    /// The same rows in compact encodings.
    pub(crate) compact: Bytes,
}

/// Encodes all rows that a lane holds, one file for each partition, and reads them back. Both kinds of encodings give the same
/// rows, and the compatible files have no other encodings than the oldest ones.
pub(crate) fn encode_all(config: &LaneConfig, lane: &mut Lane) -> Vec<File> {
    let mut encoders = Encodings::ALL.map(|encodings| {
        let config_of_files = EncoderConfig { encodings, ..EncoderConfig::default() };
        Encoder::new(&config.datasets, &config_of_files).expect("zstd has a level 1")
    });
    let names: Vec<&str> = config.datasets.names().collect();
    let mut files = Vec::new();
    for rows in lane.take_rows() {
        for (place, partition) in rows.partitions().iter().enumerate() {
            let [bytes, compact] = encoders.each_mut().map(|encoder| {
                let group = encoder.row_group(&rows, place).expect("rows can be encoded");
                assert_eq!(group.rows, partition.rows);
                let mut file = encoder.file(&config.datasets, rows.dataset()).expect("the schema is one");
                file.append(group).expect("a row group of the same schema");
                Bytes::from(file.finish(&Provenance { epoch: "e-1".into(), ranges: None }).expect("a file").bytes)
            });
            assert_only_the_oldest_encodings(&bytes);
            let read = read_rows(&bytes);
            assert_eq!(read.len() as u64, partition.rows, "a file has the rows that it was given");
            assert!(read == read_rows(&compact), "both kinds of encodings give the same rows");
            let dataset = names[rows.dataset()].to_owned();
            files.push(File { dataset, path: partition.path.to_string(), bytes, rows: read, compact });
        }
    }
    files
}

/// Fails if a file has an encoding that some reader does not know.
fn assert_only_the_oldest_encodings(bytes: &Bytes) {
    let reader = SerializedFileReader::new(bytes.clone()).expect("the file can be opened");
    for column in reader.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns) {
        let oldest = |encoding| matches!(encoding, Encoding::PLAIN | Encoding::RLE | Encoding::RLE_DICTIONARY);
        let encodings: Vec<Encoding> = column.encodings().collect();
        assert!(encodings.iter().copied().all(oldest), "{}: {encodings:?}", column.column_path());
    }
}

/// The rows of a Parquet file.
pub(crate) fn read_rows(bytes: &Bytes) -> Vec<Map<String, Value>> {
    let reader = SerializedFileReader::new(bytes.clone()).expect("the file can be opened");
    let rows = reader.get_row_iter(None).expect("the file can be read");
    rows.map(|row| row_value(&row.expect("the row can be read"))).collect()
}

fn row_value(row: &Row) -> Map<String, Value> {
    row.get_column_iter().map(|(name, field)| (name.clone(), field_value(field))).collect()
}

/// A value as JSON: times as microseconds, dates as days since 1970, decimals as in `1234e-2`.
fn field_value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Int(value) | Field::Date(value) => (*value).into(),
        Field::Long(value) | Field::TimestampMicros(value) => (*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Decimal(value) => {
            let units = value
                .data()
                .iter()
                .skip(1)
                .fold(i64::from(value.data()[0].cast_signed()), |units, byte| units << 8 | i64::from(*byte));
            format!("{units}e-{}", value.scale()).into()
        }
        Field::Str(value) => value.as_str().into(),
        Field::Group(row) => Value::Object(row_value(row)),
        Field::ListInternal(list) => list.elements().iter().map(field_value).collect(),
        Field::MapInternal(map) => {
            let entry = |(key, value): &(Field, Field)| match key {
                Field::Str(key) => (key.clone(), field_value(value)),
                other => panic!("a map's key is a string, not {other:?}"),
            };
            Value::Object(map.entries().iter().map(entry).collect())
        }
        other => panic!("no column has the type of {other:?}"),
    }
}

/// A line of a line object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    pub(crate) folder: Folder,
    pub(crate) text: Vec<u8>,
}

fn lines_of(member: &LineMember) -> Vec<Line> {
    let mut text = Vec::new();
    MultiGzDecoder::new(member.bytes.as_slice()).read_to_end(&mut text).expect("a member can be decompressed");
    assert_eq!(text.pop(), Some(b'\n'), "the last line has its end");
    let line = |line: &[u8]| Line { folder: member.folder.clone(), text: line.to_vec() };
    let lines: Vec<Line> = text.split(|byte| *byte == b'\n').map(line).collect();
    assert_eq!(lines.len() as u64, member.lines, "a member has as many lines as it says");
    lines
}

/// A dead letter as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct StoredDeadLetter {
    pub(crate) folder: String,
    pub(crate) code: Code,
    pub(crate) stage: String,
    pub(crate) dataset: Option<String>,
    pub(crate) field: Option<String>,
    pub(crate) sequence: String,
    pub(crate) sub_sequence: u64,
    pub(crate) partition_key: Option<String>,
    pub(crate) arrival_ms: i64,
    pub(crate) attempts: u64,
    pub(crate) raw: Vec<u8>,
    /// Everything except `rawData`.
    pub(crate) about: String,
}

impl StoredDeadLetter {
    fn read(line: &Line) -> StoredDeadLetter {
        let mut value: Value = serde_json::from_slice(&line.text).expect("a dead letter is JSON");
        let raw = value["rawData"].take();
        let raw = raw.as_str().expect("rawData is base64");
        let about = value.to_string();
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        let code = Code::from_name(&text("errorCode").expect("there is a code")).expect("the code is known");
        let message = text("errorMessage").expect("a dead letter has a message");
        let is_of_reason = Reason::ALL.iter().any(|reason| reason.message() == message);
        // The kind and place of a syntax error may follow.
        assert!(message.starts_with(code.message()) || is_of_reason, "{message}");
        assert_eq!(text("stage").as_deref(), Some(code.stage().as_str()));
        assert_eq!(text("stream").as_deref(), Some(STREAM));
        assert!(matches!(line.folder, Folder::Error { code: found, .. } if found == code), "{}", line.folder);
        StoredDeadLetter {
            folder: line.folder.to_string(),
            code,
            stage: text("stage").unwrap_or_default(),
            dataset: text("dataset"),
            field: text("field"),
            sequence: text("sequenceNumber").expect("there is a sequence number"),
            sub_sequence: value["subSequenceNumber"].as_u64().expect("there is a sub-sequence number"),
            partition_key: text("partitionKey"),
            arrival_ms: value["arrivalTimestamp"].as_i64().expect("there is an arrival time"),
            attempts: value["attemptsMade"].as_u64().expect("there is a number of attempts"),
            raw: base64_simd::STANDARD.decode_to_vec(raw).expect("rawData is base64"),
            about,
        }
    }
}
