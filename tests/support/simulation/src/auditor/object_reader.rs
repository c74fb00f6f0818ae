//! What a reader of the lake finds in an object.
//!
//! Owns: reading rows, dead letters and raw lines by their public formats, without code of the product. Does not own: what
//! should be there (the auditor).

use std::io::Read;

use base64::Engine;
use bytes::Bytes;
use checkpoints::{Position, SequenceNumber, ShardId, ShardKey, StreamName};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use serde_json::Value;

use crate::environment::RecordId;
use crate::records::Becomes;

/// One row or line of an object.
pub(super) enum Entry {
    /// A record's row or dead letter.
    Record {
        /// The record.
        id: RecordId,
        /// What it has become.
        becomes: Becomes,
        /// Its bytes, if this is a dead letter.
        bytes: Option<Vec<u8>>,
    },
    /// A raw line.
    Line(Vec<u8>),
}

/// The bytes of a record as they are in a raw line: without line ends.
pub(super) fn as_line(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
    bytes
}

/// The entries of a visible object under `processed/`, `error/` or `raw/`.
pub(super) fn read_object(key: &str, bytes: &Bytes) -> Vec<Entry> {
    if key.starts_with("processed/") {
        rows(key, bytes.clone())
    } else if key.starts_with("error/") {
        lines(bytes).iter().map(|line| dead_letter(line)).collect()
    } else {
        lines(bytes).into_iter().map(Entry::Line).collect()
    }
}

fn record_id(stream: &str, shard: &str, sequence: &str, sub: u64) -> RecordId {
    let stream = StreamName::new(stream).expect("the lake names a stream");
    let shard = ShardId::new(shard).expect("the lake names a shard");
    let sequence = SequenceNumber::try_from(sequence).expect("a sequence number is in the lake");
    RecordId { key: ShardKey::new(stream, shard), position: Position::At { sequence, sub } }
}

fn rows(key: &str, bytes: Bytes) -> Vec<Entry> {
    let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
    let reader = SerializedFileReader::new(bytes).expect("a visible Parquet file can be read");
    let fields = reader.metadata().file_metadata().schema().get_fields().to_vec();
    let column = |name: &str| fields.iter().position(|field| field.name() == name).expect("it is in every file");
    let [id, stream, shard, sequence, sub] =
        ["id", "ingest_stream", "ingest_shard", "ingest_sequence", "ingest_subsequence"].map(column);
    let entry = |row: Result<parquet::record::Row, parquet::errors::ParquetError>| {
        let row = row.expect("a visible Parquet file can be read");
        let text = |column| row.get_string(column).expect("a text").as_str();
        let sub = u64::try_from(row.get_long(sub).expect("a number")).expect("it is not negative");
        Entry::Record {
            id: record_id(text(stream), text(shard), text(sequence), sub),
            becomes: Becomes::Row { id: text(id).to_owned(), folder: folder.to_owned() },
            bytes: None,
        }
    };
    reader.get_row_iter(None).expect("a visible Parquet file can be read").map(entry).collect()
}

fn dead_letter(line: &[u8]) -> Entry {
    let letter: Value = serde_json::from_slice(line).expect("a dead letter is JSON");
    let text = |name: &str| letter[name].as_str().expect("a dead letter says where it is from");
    let sub = letter["subSequenceNumber"].as_u64().expect("a number");
    let bytes = base64::engine::general_purpose::STANDARD.decode(text("rawData")).expect("it contains the record");
    Entry::Record {
        id: record_id(text("stream"), text("shardId"), text("sequenceNumber"), sub),
        becomes: Becomes::DeadLetter,
        bytes: Some(bytes),
    }
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut text = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut text).expect("a visible file can be read");
    let whole = text.strip_suffix(b"\n").unwrap_or(&text);
    if whole.is_empty() { Vec::new() } else { whole.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect() }
}
