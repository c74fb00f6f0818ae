//! Records that say that they are aggregates.

use checkpoints::Position;
use md5::{Digest, Md5};
use pipeline::chunk::{Damage, Frame, Framing};
use shardlake::fuzzing::{Answer, Record, SubRecord, by_records, is_aggregate, open_aggregate};

const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
const DIGEST: usize = 16;
/// Bytes that a record may have here.
const RECORD_BYTES_MAX: usize = 1_000;

/// A record. Its first byte says how the others become one:
///
/// | bit | meaning |
/// | --- | --- |
/// | 0 | they are the message of an aggregate with its digest; if not, the whole record |
/// | 1 | of that digest, one bit is wrong |
/// | 2 | the last byte is missing |
/// | 3, 4 | reading begins behind so many of its records |
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
    let says_so = record.starts_with(&MAGIC);
    assert_eq!(is_aggregate(&record), says_so);
    let whole = Position::Beginning;
    let answer = read(&record, &whole);
    match &opened {
        Ok(records) => {
            assert!(says_so && is_sealed(&record), "only what is whole is opened");
            assert!(!records.is_empty(), "an aggregate without records is broken");
            let ends = MAGIC.len()..=record.len() - DIGEST;
            let mut end = 0;
            for (_, data) in records {
                assert!(ends.contains(&data.start) && ends.contains(&data.end), "{data:?} is in the message");
                assert!(end < data.start && data.start <= data.end, "a record lies behind the one before it");
                end = data.end;
            }
            let again = packed(records.iter().map(|(key, data)| (&**key, &record[data.clone()])));
            let reopened = open_aggregate(&again).expect("what was packed is opened");
            let of = |record: &[u8], opened: &[SubRecord]| {
                let records = opened.iter().map(|(key, data)| (key.to_string(), record[data.clone()].to_vec()));
                records.collect::<Vec<_>>()
            };
            assert_eq!(of(&again, &reopened), of(&record, records), "the same records, packed by another");
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
            assert_eq!(shown(&answer), frames);
            assert_eq!(answer.through, at(last));
            // From the middle on, as where another consumer has committed half of it.
            let read_before = u64::from(flags >> 3 & 3);
            let rest = read(&record, &at(read_before));
            let behind = usize::try_from(read_before).expect("it is small") + 1;
            assert_eq!(shown(&rest), frames[behind.min(frames.len())..]);
            assert_eq!(rest.through, at(last.max(read_before)), "a position never goes back");
        }
        Err(_) => {
            // It is one record, whatever it is: with all its bytes, and its own place.
            let damage = if says_so { Some(Damage::BrokenAggregate) } else { too_large(&record) };
            let frame = Shown { sub: 0, key: Some("own".to_owned()), bytes: record.clone(), damage };
            assert_eq!(shown(&answer), [frame]);
            assert_eq!(answer.through, at(0));
            assert_eq!(shown(&read(&record, &at(0))), [], "it is read once");
        }
    }
    assert_eq!(answer.counts, (1, record.len() as u64), "one record of the stream, with all its bytes");
}

/// A frame, to be compared.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    sub: u64,
    key: Option<String>,
    bytes: Vec<u8>,
    damage: Option<Damage>,
}

fn shown(answer: &Answer) -> Vec<Shown> {
    let Framing::Records(frames) = answer.chunk.framing() else { panic!("records of Kinesis have frames") };
    let shown = |frame: &Frame| {
        assert_eq!(&*frame.sequence, "7", "all have the number of the record that they came in");
        Shown {
            sub: frame.sub_sequence,
            key: frame.partition_key.as_deref().map(str::to_owned),
            bytes: answer.chunk.bytes()[frame.bytes.start as usize..frame.bytes.end as usize].to_vec(),
            damage: frame.damage,
        }
    };
    frames.iter().map(shown).collect()
}

fn read(record: &[u8], after: &Position) -> Answer {
    let (sequence, partition_key) = ("7".to_owned(), Some("own".to_owned()));
    let record = Record { data: record.to_vec(), sequence, arrival_s: None, partition_key };
    by_records(&[record], after, RECORD_BYTES_MAX).expect("one record is in order")
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

/// An aggregate of these records: one key for each, behind the records.
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
