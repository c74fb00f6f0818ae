//! Runs a lane, and reads everything back that it writes.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use pipeline::anonymize::PseudonymKey;
use pipeline::chunk::{Chunk, Damage, Frame, Framing};
use pipeline::dataset::Datasets;
use pipeline::dead_letter::code::Code;
use pipeline::encode::{Encoder, Provenance};
use pipeline::graph::Graph;
use pipeline::lane::{Lane, LaneConfig};
use pipeline::layout::Area;
use pipeline::line_objects::identities::{IdentityReader, field_of_extra};
use pipeline::line_objects::{LineCodec, LineMember};
use serde_json::Value;

/// When every chunk arrives: 2025-02-01T00:00:00Z.
pub(crate) const ARRIVAL_MS: i64 = 1_738_368_000_000;

/// A record's position in its shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) sequence: String,
    pub(crate) sub_sequence: u64,
}

impl Key {
    pub(crate) fn of_line(sequence: u64) -> Key {
        Key { sequence: sequence.to_string(), sub_sequence: 0 }
    }
}

/// A record that was sent.
pub(crate) struct Sent<'a> {
    pub(crate) key: Key,
    pub(crate) bytes: &'a [u8],
    pub(crate) damage: Option<Damage>,
}

/// What the lane wrote.
#[derive(Debug)]
pub(crate) struct Out {
    pub(crate) records: u64,
    /// Rows as text, with their dataset and partition.
    pub(crate) rows: BTreeMap<Key, String>,
    pub(crate) dead_letters: BTreeMap<Key, DeadLetter>,
    /// Raw lines, sorted.
    pub(crate) raw: Vec<Vec<u8>>,
}

/// A dead letter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    pub(crate) code: Code,
    pub(crate) dataset: Option<String>,
    pub(crate) field: Option<String>,
    pub(crate) raw: Vec<u8>,
}

/// A lane's configuration.
pub(crate) fn config(datasets: Datasets, assigned: Option<usize>, record_bytes_max: usize) -> LaneConfig {
    LaneConfig {
        graph: Graph::new(&["in".to_owned()], &datasets, true),
        key: Some(PseudonymKey::new(&[7; 32]).expect("32 bytes make a key")),
        assigned: vec![assigned],
        raw: Some(LineCodec::Gzip(1)),
        raw_identities: true,
        dead_letters: LineCodec::Gzip(1),
        record_bytes_max,
        hash_seed: 42,
        denied_names: false,
        datasets,
    }
}

/// A chunk of the only shard.
pub(crate) fn chunk(bytes: Vec<u8>, framing: Framing) -> Chunk {
    Chunk::new("stream".into(), "shard".into(), ARRIVAL_MS, bytes, framing)
}

/// Frames of a chunk.
#[derive(Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    frames: Vec<Frame>,
}

impl Frames {
    pub(crate) fn push(
        &mut self,
        record: &[u8],
        key: &Key,
        arrival_ms: Option<i64>,
        partition_key: Option<&str>,
        damage: Option<Damage>,
    ) {
        let offset = |at: usize| u32::try_from(at).expect("an input is small");
        let start = offset(self.bytes.len());
        self.bytes.extend_from_slice(record);
        self.frames.push(Frame {
            bytes: start..offset(self.bytes.len()),
            sequence: key.sequence.as_str().into(),
            sub_sequence: key.sub_sequence,
            arrival_ms,
            partition_key: partition_key.map(Into::into),
            damage,
        });
        // A byte that would continue the record before it, if it were read.
        self.bytes.push(b'1');
    }

    pub(crate) fn into_chunk(self) -> Chunk {
        chunk(self.bytes, Framing::Records(self.frames))
    }
}

/// Pushes chunks through a new lane and reads everything back.
pub(crate) fn run(config: &Arc<LaneConfig>, encoder: &mut Encoder, chunks: Vec<Chunk>) -> Out {
    let mut lane = Lane::new(Arc::clone(config));
    let mut members: Vec<LineMember> = Vec::new();
    let (mut records, mut rejected) = (0, 0);
    for chunk in chunks {
        let pushed = lane.push(0, chunk);
        records += pushed.records;
        rejected += pushed.dead_letters.iter().map(|(_, count)| count).sum::<u64>();
        members.extend(pushed.members);
    }
    members.extend(lane.take_lines());
    let rows = rows(config, encoder, &mut lane);
    let (mut dead_letters, mut raw, mut identities) = (BTreeMap::new(), Vec::new(), Vec::new());
    for member in members {
        let is_raw = member.folder.area() == Area::Raw;
        let mut reader = is_raw.then(|| identities_of(&member)).flatten();
        for line in lines_of(&member) {
            if is_raw {
                identities.extend(reader.as_mut().map(|reader| key_of(reader, &line)));
                raw.push(line);
            } else {
                let (key, dead) = dead_letter(&line);
                assert!(dead_letters.insert(key, dead).is_none(), "two dead letters of one record");
            }
        }
    }
    assert_eq!(rejected, dead_letters.len() as u64, "the number of counted dead letters differs from those written");
    // Each raw line is one row or one dead letter.
    if identities.len() == raw.len() {
        let mut expected: Vec<&Key> = rows.keys().chain(dead_letters.keys()).collect();
        expected.sort();
        identities.sort();
        assert!(identities.iter().eq(expected), "raw lines have other identities than what became of them");
    }
    raw.sort();
    Out { records, rows, dead_letters, raw }
}

fn rows(config: &LaneConfig, encoder: &mut Encoder, lane: &mut Lane) -> BTreeMap<Key, String> {
    let mut found = BTreeMap::new();
    for rows in lane.take_rows() {
        for (index, partition) in rows.partitions().iter().enumerate() {
            assert!(
                !partition.path.as_str().chars().any(char::is_control),
                "{:?} can't be part of a key",
                partition.path
            );
            assert!(partition.path.as_str().len() <= 800, "{} leaves no room in a key", partition.path);
            let group = encoder.row_group(&rows, index).expect("rows can be encoded");
            let mut file = encoder.file(&config.datasets, rows.dataset()).expect("the dataset has a Parquet schema");
            file.append(group).expect("a row group of the file's schema");
            let bytes = file.finish(&Provenance::default()).expect("a file with rows").bytes;
            let before = found.len();
            let reader = SerializedFileReader::new(Bytes::from(bytes)).expect("the file can be opened");
            for row in reader.get_row_iter(None).expect("the file can be read") {
                let row = row.expect("the row can be read");
                let column = |name: &str| row.get_column_iter().position(|(known, _)| known == name);
                let sequence = column("ingest_sequence").expect("every file has it");
                let sub_sequence = column("ingest_subsequence").expect("every file has it");
                let key = Key {
                    sequence: row.get_string(sequence).expect("a string").clone(),
                    sub_sequence: row.get_long(sub_sequence).expect("a number").cast_unsigned(),
                };
                let text = format!("{}/{}: {row}", rows.dataset(), partition.path);
                assert!(found.insert(key, text).is_none(), "two rows of one record");
            }
            assert_eq!((found.len() - before) as u64, partition.rows, "a file lacks rows of its partition");
        }
    }
    found
}

fn lines_of(member: &LineMember) -> Vec<Vec<u8>> {
    let mut text = Vec::new();
    MultiGzDecoder::new(member.bytes.as_slice()).read_to_end(&mut text).expect("a member can be decompressed");
    assert_eq!(text.pop(), Some(b'\n'), "the last line has no line end");
    let lines: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    assert_eq!(lines.len() as u64, member.lines, "a member has another number of lines than it says");
    lines
}

/// A reader of a raw member's identities; `None` if a sequence number cannot be stored.
fn identities_of(member: &LineMember) -> Option<IdentityReader> {
    let decoder = flate2::bufread::GzDecoder::new(member.bytes.as_slice());
    let field = field_of_extra(decoder.header().expect("a member has a header").extra()?)?.to_vec();
    Some(IdentityReader::new(field).expect("what was written can be read"))
}

fn key_of(reader: &mut IdentityReader, line: &[u8]) -> Key {
    let identity = reader.next(line.len()).expect("each line has an identity");
    Key { sequence: identity.sequence.into(), sub_sequence: identity.sub_sequence }
}

fn dead_letter(line: &[u8]) -> (Key, DeadLetter) {
    let value: Value = serde_json::from_slice(line).expect("a dead letter is JSON");
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    let raw = base64_simd::STANDARD.decode_to_vec(text("rawData").expect("a string")).expect("rawData is base64");
    let key = Key {
        sequence: text("sequenceNumber").expect("a string"),
        sub_sequence: value["subSequenceNumber"].as_u64().expect("a number"),
    };
    let code = Code::from_name(&text("errorCode").expect("a string")).expect("a known code");
    (key, DeadLetter { code, dataset: text("dataset"), field: text("field"), raw })
}
