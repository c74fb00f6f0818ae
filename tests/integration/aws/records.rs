//! Records of every kind, as producers send them: plain ones, aggregates of the Kinesis Producer Library, broken aggregates.
//!
//! Owns: what a record of the stream holds, and what must become of each part. Does not own: where it is put (`cloud`), the
//! layout of an aggregate (`common::aggregate`).

use crate::common::aggregate::aggregate;
use crate::common::gzip;

/// What must become of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A row with this `assessment_id`.
    Row(String),
    /// A dead letter of this code.
    DeadLetter(&'static str),
}

/// A record of the stream before it is put.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) partition_key: String,
    pub(crate) data: Vec<u8>,
    /// What it holds, in order: what becomes of each, and its bytes.
    pub(crate) holds: Vec<(Outcome, Vec<u8>)>,
}

/// The beginning of every user's name and every partition key. No log may contain it.
pub(crate) const PERSONAL: &str = "hush-hush";

impl Draft {
    /// The `number`-th record: of 20, 13 are plain, 3 are aggregates, 1 is a broken aggregate, 3 are bad.
    pub(crate) fn new(number: u64) -> Self {
        let (outcome, bytes) = match number % 20 {
            3 | 9 | 15 => return Self::aggregate(number),
            12 => return Self::broken_aggregate(number),
            6 => dead_letter("Decode.Truncated", &good(&format!("t{number}"))[..25]),
            11 => dead_letter(
                "Validate.MissingField",
                br#"{"id":"x","type":"skills","timestamp":"2025-01-01T10:00:00Z"}"#,
            ),
            17 => dead_letter("Decode.NotAnObject", b"[1,2,3]"),
            _ => row(format!("r{number}")),
        };
        Draft { partition_key: partition_key(number), data: bytes.clone(), holds: vec![(outcome, bytes)] }
    }

    /// The `number`-th record if each has several documents: side by side, on lines, also in gzip.
    pub(crate) fn several(number: u64) -> Self {
        let mut holds: Vec<(Outcome, Vec<u8>)> =
            (0..2 + number % 3).map(|document| row(format!("s{number}-{document}"))).collect();
        if number.is_multiple_of(5) {
            holds[1] = dead_letter("Decode.Truncated", &good("cut")[..25]);
        }
        let lines: Vec<&[u8]> = holds.iter().map(|(_, data)| data.as_slice()).collect();
        let side_by_side = if number.is_multiple_of(5) { b"\n".as_slice() } else { b"" };
        let data = match number % 4 {
            0 => lines.join(side_by_side),
            1 => [lines.join(b"\n".as_slice()), b"\n".to_vec()].concat(),
            2 => gzip(&lines.join(b"\r\n".as_slice())),
            _ => [gzip(&lines[..1].concat()), gzip(b"\n"), gzip(&lines[1..].join(b"\n".as_slice()))].concat(),
        };
        Draft { partition_key: partition_key(number), data, holds }
    }

    fn aggregate(number: u64) -> Self {
        let mut holds: Vec<(Outcome, Vec<u8>)> =
            (0..2 + number % 5).map(|sub| row(format!("r{number}-{sub}"))).collect();
        if number % 20 == 9 {
            // One bad record must not affect its neighbours.
            holds[1] = dead_letter("Decode.Truncated", &good("cut")[..25]);
        }
        let key = partition_key(number);
        let data = aggregate(holds.iter().map(|(_, data)| (key.as_str(), data.as_slice())));
        Draft { data, partition_key: key, holds }
    }

    fn broken_aggregate(number: u64) -> Self {
        let mut data = Self::aggregate(number).data;
        let middle = data.len() / 2;
        data[middle] ^= 0x40;
        let holds = vec![(Outcome::DeadLetter("Decode.BrokenAggregate"), data.clone())];
        Draft { partition_key: partition_key(number), data, holds }
    }
}

fn partition_key(number: u64) -> String {
    format!("{PERSONAL}-key-{number}")
}

fn row(id: String) -> (Outcome, Vec<u8>) {
    let bytes = good(&id);
    (Outcome::Row(id), bytes)
}

fn dead_letter(code: &'static str, bytes: &[u8]) -> (Outcome, Vec<u8>) {
    (Outcome::DeadLetter(code), bytes.to_vec())
}

/// A good assessment, on one of eight days of two months, of one of two types.
fn good(id: &str) -> Vec<u8> {
    let sum: usize = id.bytes().map(usize::from).sum();
    let (kind, month, day) = (["skills", "personality"][sum % 2], sum / 2 % 2 + 1, sum / 4 % 4 + 1);
    format!(
        "{{\"user_id\":\"{PERSONAL}-user-{}\",\"id\":\"{id}\",\"type\":\"{kind}\",\"score\":{},\"duration\":{sum},\
         \"timestamp\":\"2025-{month:02}-{day:02}T10:00:00Z\"}}",
        sum % 7,
        sum % 101
    )
    .into_bytes()
}
