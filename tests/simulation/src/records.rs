//! What is put into the streams: good records and bad ones, aggregates, and partitions by the hundred.
//!
//! Owns: the bytes, all of them different, and the dataset that they are of. The layout of an aggregate is written here from
//! its public description, and not taken from the product.

use std::fmt::Write as _;

use md5::{Digest, Md5};

use crate::rng::Rng;

/// The dataset of all records.
pub const DEFINITION: &str = r#"
name = "orders"
partition_by = ["kind", "day"]
[[recognize]]
present = ["/at"]
[event_time]
pointer = "/at"
format = "epoch_ms"
[[column]]
name = "id"
pointer = "/id"
type = "string"
required = true
[[column]]
name = "kind"
pointer = "/kind"
type = "string"
"#;

/// One more column, as after a change of the configuration.
pub const FURTHER_COLUMN: &str = r#"[[column]]
name = "extra"
pointer = "/extra"
type = "string"
"#;

/// Bytes of a record at most.
pub const RECORD_BYTES_MAX: usize = 4_000;

/// A record, and whether it can become a row.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether it can't become a row.
    pub is_poison: bool,
    /// Whether it stands for an aggregate that can't be opened.
    pub is_broken: bool,
}

impl Draft {
    /// The `number`-th record of a run, of one of so many kinds.
    pub fn new(number: u64, kinds: u64, rng: &mut Rng) -> Self {
        let at = 1_736_764_200_000 + rng.below(200_000_000);
        let good = format!("{{\"id\":\"r{number}\",\"at\":{at},\"kind\":\"k{}\"}}", rng.below(kinds));
        let (bytes, is_poison) = match rng.below(24) {
            0 => (format!("{{\"id\":\"r{number}\",\"broken\":").into_bytes(), true),
            1 => (format!("{{\"at\":{at},\"no\":\"id{number}\"}}").into_bytes(), true),
            2 => {
                let mut deep = format!("{{\"at\":{at},\"id\":\"r{number}\",\"x\":");
                deep.push_str(&"[".repeat(300));
                (deep.into_bytes(), true)
            }
            3 => {
                let mut bytes = good.into_bytes();
                let last = bytes.len() - 3;
                bytes[last] = 0xFF;
                (bytes, true)
            }
            4 => {
                let mut large = good;
                large.pop();
                let _ = write!(large, ",\"x\":\"{}\"}}", "x".repeat(RECORD_BYTES_MAX));
                (large.into_bytes(), true)
            }
            _ => (good.into_bytes(), false),
        };
        Draft { bytes, is_poison, is_broken: false }
    }
}

/// An aggregate of the Kinesis Producer Library.
pub fn aggregate(drafts: &[Draft]) -> Vec<u8> {
    let mut message = Vec::new();
    field(&mut message, 1, b"key");
    for draft in drafts {
        // Index 0 of the keys, then the data.
        let mut record = vec![0x08, 0x00];
        field(&mut record, 3, &draft.bytes);
        field(&mut message, 3, &record);
    }
    let digest = Md5::digest(&message);
    [&[0xF3, 0x89, 0x9A, 0xC2], message.as_slice(), digest.as_slice()].concat()
}

fn field(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    message.push(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        message.push(u8::try_from(length & 0x7F).expect("seven bits") | 0x80);
        length >>= 7;
    }
    message.push(u8::try_from(length).expect("seven bits"));
    message.extend_from_slice(bytes);
}
