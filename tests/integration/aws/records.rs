//! Records of every kind, as producers send them: plain ones, aggregates of the Kinesis Producer Library, broken ones.
//!
//! Owns: what a record of the stream holds and what must become of each part. Does not own: where it is put (`cloud`). The
//! layout of an aggregate is written here once more, from its public description, and not taken from the product.

use md5::{Digest, Md5};

/// What must become of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A row with this `assessment_id`.
    Row(String),
    /// A dead letter of this code.
    Letter(&'static str),
}

/// A record of the stream before it is put.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) partition_key: String,
    pub(crate) data: Vec<u8>,
    /// What it holds, in order: what becomes of each, and its bytes.
    pub(crate) holds: Vec<(Fate, Vec<u8>)>,
}

/// Begins every user's name and every partition key: neither may stand in a log.
pub(crate) const PERSONAL: &str = "hush-hush";

impl Draft {
    /// The `number`-th record: of 20, 13 are plain, 3 are aggregates, 1 is a broken aggregate, 3 are no good JSON.
    pub(crate) fn new(number: u64) -> Self {
        let (fate, bytes) = match number % 20 {
            3 | 9 | 15 => return Self::aggregate(number),
            12 => return Self::broken_aggregate(number),
            6 => letter("Decode.Truncated", &good(&format!("t{number}"))[..25]),
            11 => letter("Validate.MissingField", br#"{"id":"x","type":"skills","timestamp":"2025-01-01T10:00:00Z"}"#),
            17 => letter("Decode.NotAnObject", b"[1,2,3]"),
            _ => row(format!("r{number}")),
        };
        Draft { partition_key: partition_key(number), data: bytes.clone(), holds: vec![(fate, bytes)] }
    }

    fn aggregate(number: u64) -> Self {
        let mut holds: Vec<(Fate, Vec<u8>)> = (0..2 + number % 5).map(|sub| row(format!("r{number}-{sub}"))).collect();
        if number % 20 == 9 {
            // One bad record does not spoil its neighbours.
            holds[1] = letter("Decode.Truncated", &good("cut")[..25]);
        }
        let key = partition_key(number);
        Draft { data: aggregated(&key, &holds), partition_key: key, holds }
    }

    fn broken_aggregate(number: u64) -> Self {
        let mut data = Self::aggregate(number).data;
        let middle = data.len() / 2;
        data[middle] ^= 0x40;
        let holds = vec![(Fate::Letter("Decode.BrokenAggregate"), data.clone())];
        Draft { partition_key: partition_key(number), data, holds }
    }
}

fn partition_key(number: u64) -> String {
    format!("{PERSONAL}-key-{number}")
}

fn row(id: String) -> (Fate, Vec<u8>) {
    let bytes = good(&id);
    (Fate::Row(id), bytes)
}

fn letter(code: &'static str, bytes: &[u8]) -> (Fate, Vec<u8>) {
    (Fate::Letter(code), bytes.to_vec())
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

/// Magic bytes, a protobuf of a table of keys (1) and records (3), each with a key's number (1) and data (3), and its MD5.
fn aggregated(key: &str, holds: &[(Fate, Vec<u8>)]) -> Vec<u8> {
    let mut message = Vec::new();
    field(1, key.as_bytes(), &mut message);
    for (_, data) in holds {
        let mut record = vec![1 << 3, 0];
        field(3, data, &mut record);
        field(3, &record, &mut message);
    }
    [&[0xF3, 0x89, 0x9A, 0xC2][..], &message, &Md5::digest(&message)[..]].concat()
}

fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend_from_slice(bytes);
}
