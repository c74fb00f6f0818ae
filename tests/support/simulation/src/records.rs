//! The records that are put into the streams: valid and invalid ones, aggregates, and hundreds of partitions.
//!
//! Owns: the bytes of records, no two of them equal, and the definition of their dataset. Does not own: where they are put
//! (the environments). The layout of an aggregate is written here from its public description, not taken from the product.

use std::fmt::Write as _;

use md5::{Digest, Md5};

use crate::faults::FaultKind;
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

/// A further column, for a worker whose configuration has changed.
pub const FURTHER_COLUMN: &str = r#"[[column]]
name = "extra"
pointer = "/extra"
type = "string"
"#;

/// Most bytes of a record.
pub const RECORD_BYTES_MAX: usize = 4_000;
/// Most bytes of a record in a redrive: the records that were too large before become rows.
pub const REDRIVEN_BYTES_MAX: usize = 40_000;

/// The start of 13 January 2025 UTC, in milliseconds since the Unix epoch: the day of the first records.
const FIRST_DAY_MS: u64 = 1_736_726_400_000;
const FIRST_DAY: u64 = 13;
const DAY_MS: u64 = 86_400_000;

/// What a record must become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Becomes {
    /// A row with this id, in an object in this folder.
    Row {
        /// The value of its column `id`. No other record has it.
        id: String,
        /// The folder of its partition.
        folder: String,
    },
    /// A dead letter that holds its bytes.
    DeadLetter,
}

/// A record, and what it must become.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it must become.
    pub becomes: Becomes,
    /// What it becomes in a redrive, if that differs.
    pub redriven: Option<Becomes>,
    /// What is wrong with it.
    pub fault: Option<FaultKind>,
}

impl Draft {
    /// The `number`-th record of a run, of one of `kinds` kinds.
    pub fn new(number: u64, kinds: u64, rng: &mut Rng) -> Self {
        let at = 1_736_764_200_000 + rng.below(200_000_000);
        let kind = rng.below(kinds);
        let day = FIRST_DAY + (at - FIRST_DAY_MS) / DAY_MS;
        let folder = format!("processed/orders/kind=k{kind}/day={day:02}");
        let good = format!("{{\"id\":\"r{number}\",\"at\":{at},\"kind\":\"k{kind}\"}}");
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
                let row = Becomes::Row { id: format!("r{number}"), folder };
                return Draft { redriven: Some(row), ..Draft::bad(large.into_bytes(), FaultKind::Poison) };
            }
            _ => (good.into_bytes(), false),
        };
        if is_poison {
            return Draft::bad(bytes, FaultKind::Poison);
        }
        Draft { bytes, becomes: Becomes::Row { id: format!("r{number}"), folder }, redriven: None, fault: None }
    }

    /// A record that can't become a row.
    pub fn bad(bytes: Vec<u8>, fault: FaultKind) -> Self {
        Draft { bytes, becomes: Becomes::DeadLetter, redriven: None, fault: Some(fault) }
    }
}

/// An aggregate of the Kinesis Producer Library.
pub fn aggregate(drafts: &[Draft]) -> Vec<u8> {
    let mut message = Vec::new();
    field(&mut message, 1, b"key");
    for draft in drafts {
        // The index of the partition key, which is 0, then the data.
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
