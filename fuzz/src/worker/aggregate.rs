//! Records that claim to be aggregates.

use checkpoints::Position;
use md5::{Digest, Md5};
use pipeline::chunk::{Damage, Frame, Framing};
use shardlake::fuzzing::{Answer, Record, SubRecord, by_records, is_aggregate, open_aggregate};

const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
const DIGEST: usize = 16;
/// The limit for the bytes of a record.
const RECORD_BYTES_MAX: usize = 1_000;

/// A record. The first byte of the input has flags for the other bytes:
///
/// | bit | meaning |
/// | --- | --- |
/// | 0 | they are the message of an aggregate, and get its digest; otherwise they are the whole record |
/// | 1 | one bit of that digest is wrong |
/// | 2 | the last byte is missing |
/// | 3, 4 | reading begins after this record of the aggregate |
pub fn aggregate(data: &[u8]) {
    let Some((flags, bytes)) = data.split_first() else { return };
    let bit = |bit: u8| flags >> bit & 1 == 1;
    let mut record = if bit(0) { sealed(bytes) } else { bytes.to_vec() };
    if bit(0) && bit(1) {
        let last = record.len() - 1;
        record[last - usize::from(flags >> 4)] ^= 1;
    }
    if bit(2) {
        record.pop();
    }
    let opened = open_aggregate(&record);
    let claims = record.starts_with(&MAGIC);
    assert_eq!(is_aggregate(&record), claims);
    let whole = Position::Beginning;
    let response = read(&record, &whole);
    match &opened {
        Ok(records) => {
            assert!(claims && is_sealed(&record), "a malformed aggregate was opened");
            assert!(!records.is_empty(), "an aggregate without records was opened");
            let ends = MAGIC.len()..=record.len() - DIGEST;
            let mut end = 0;
            for (_, data) in records {
                assert!(ends.contains(&data.start) && ends.contains(&data.end), "{data:?} is outside the message");
                assert!(end < data.start && data.start <= data.end, "records overlap or are out of order");
                end = data.end;
            }
            let again = packed(records.iter().map(|(key, data)| (&**key, &record[data.clone()])));
            let reopened = open_aggregate(&again).expect("a packed aggregate can be opened");
            let of = |record: &[u8], opened: &[SubRecord]| {
                let records = opened.iter().map(|(key, data)| (key.to_string(), record[data.clone()].to_vec()));
                records.collect::<Vec<_>>()
            };
            assert_eq!(of(&again, &reopened), of(&record, records), "the aggregate, packed again, has other records");
            let frames: Vec<Shown> = (0..)
                .zip(records)
                .map(|(sub, (key, data))| Shown {
                    sub,
                    key: Some(key.to_string()),
                    bytes: record[data.clone()].to_vec(),
                    damage: (data.len() > RECORD_BYTES_MAX).then_some(Damage::TooLarge),
                })
                .collect();
            let last = frames.len() as u64 - 1;
            assert_eq!(shown(&response), frames);
            assert_eq!(response.through, at(last));
            // From the middle on, as if another consumer had committed the first part.
            let read_before = u64::from(flags >> 3 & 3);
            let rest = read(&record, &at(read_before));
            let next = usize::try_from(read_before).expect("it is small") + 1;
            assert_eq!(shown(&rest), frames[next.min(frames.len())..]);
            assert_eq!(rest.through, at(last.max(read_before)), "the position went back");
        }
        Err(_) => {
            // It is one record with all its bytes, and its own position.
            let damage = if claims { Some(Damage::BrokenAggregate) } else { too_large(&record) };
            let frame = Shown { sub: 0, key: Some("own".to_owned()), bytes: record.clone(), damage };
            assert_eq!(shown(&response), [frame]);
            assert_eq!(response.through, at(0));
            assert_eq!(shown(&read(&record, &at(0))), [], "it was read twice");
        }
    }
    assert_eq!(response.counts, (1, record.len() as u64), "the counts are not those of one record of the stream");
}

/// A frame, in a form that can be compared.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    sub: u64,
    key: Option<String>,
    bytes: Vec<u8>,
    damage: Option<Damage>,
}

fn shown(response: &Answer) -> Vec<Shown> {
    let Framing::Records(frames) = response.chunk.framing() else { panic!("records of Kinesis have frames") };
    let shown = |frame: &Frame| {
        assert_eq!(&*frame.sequence, "7", "a frame has another sequence number than its record");
        Shown {
            sub: frame.sub_sequence,
            key: frame.partition_key.as_deref().map(str::to_owned),
            bytes: response.chunk.bytes()[frame.bytes.start as usize..frame.bytes.end as usize].to_vec(),
            damage: frame.damage,
        }
    };
    frames.iter().map(shown).collect()
}

fn read(record: &[u8], after: &Position) -> Answer {
    let (sequence, partition_key) = ("7".to_owned(), Some("own".to_owned()));
    let record = Record { data: record.to_vec(), sequence, arrival_s: None, partition_key };
    by_records(&[record], after, RECORD_BYTES_MAX).expect("one record is always in order")
}

fn at(sub: u64) -> Position {
    Position::At { sequence: 7_u64.into(), sub }
}

fn too_large(record: &[u8]) -> Option<Damage> {
    (record.len() > RECORD_BYTES_MAX).then_some(Damage::TooLarge)
}

fn sealed(message: &[u8]) -> Vec<u8> {
    [&MAGIC, message, &Md5::digest(message)[..]].concat()
}

fn is_sealed(record: &[u8]) -> bool {
    record.len() >= MAGIC.len() + DIGEST && sealed(&record[MAGIC.len()..record.len() - DIGEST]) == record
}

/// An aggregate of these records, with one key for each, after the records.
fn packed<'a>(records: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let (mut message, mut keys) = (Vec::new(), Vec::new());
    for (number, (key, data)) in records.enumerate() {
        let mut record = vec![1 << 3];
        varint(number, &mut record);
        field(3, data, &mut record);
        field(3, &record, &mut message);
        field(1, key.as_bytes(), &mut keys);
    }
    message.append(&mut keys);
    sealed(&message)
}

fn varint(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f | 0x80).to_le_bytes()[0]);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    varint(bytes.len(), out);
    out.extend_from_slice(bytes);
}
