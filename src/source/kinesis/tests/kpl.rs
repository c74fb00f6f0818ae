//! Aggregates of other implementations, and every way in which an aggregate is broken.

use md5::{Digest, Md5};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Written by `aws-kinesis-agg` for Python: three records of alice, bob and alice.
const THREE: &str = "f3899ac20a05616c6963650a03626f621a0b08001a077b226e223a317d1a0b08011a077b226e223a327d1a0b08001a077b22\
                     6e223a337d2c2e09d1324a5259bd1423734970b68c";
/// Written by the same library: two records with explicit hash keys, the second one empty.
const HASH_KEYS: &str = "f3899ac20a05616c69636512013512273334303238323336363932303933383436333436333337343630373433313736\
                         383231313435351a0d080010001a077b226e223a317d1a06080010011a009d9ba71b8b4be4d90f746169f8935da3";

pub(crate) fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn records(aggregate: &[u8]) -> Result<Vec<(String, Vec<u8>)>, Broken> {
    let opened = open(aggregate)?;
    Ok(opened.into_iter().map(|record| (record.partition_key.to_string(), aggregate[record.data].to_vec())).collect())
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap());
}

fn field(number: u64, bytes: &[u8], out: &mut Vec<u8>) {
    varint(number << 3 | 2, out);
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn sealed(message: &[u8]) -> Vec<u8> {
    [&MAGIC, message, &Md5::digest(message)[..]].concat()
}

/// An aggregate of these records, each with the number of its key in the table.
pub(crate) fn aggregate(keys: &[&str], records: &[(u64, &[u8])]) -> Vec<u8> {
    let mut message = Vec::new();
    for key in keys {
        field(1, key.as_bytes(), &mut message);
    }
    for (key, data) in records {
        let mut record = vec![1 << 3];
        varint(*key, &mut record);
        field(3, data, &mut record);
        field(3, &record, &mut message);
    }
    sealed(&message)
}

#[test]
fn aggregates_of_another_implementation_are_opened() {
    let (alice, bob) = ("alice".to_owned(), "bob".to_owned());
    let expected = [
        (alice.clone(), br#"{"n":1}"#.to_vec()),
        (bob, br#"{"n":2}"#.to_vec()),
        (alice.clone(), br#"{"n":3}"#.to_vec()),
    ];
    assert!(is_aggregate(&hex(THREE)));
    assert_eq!(records(&hex(THREE)).unwrap(), expected);
    // Their hash keys belong to two shards: both records are kept.
    assert_eq!(records(&hex(HASH_KEYS)).unwrap(), [(alice.clone(), br#"{"n":1}"#.to_vec()), (alice, Vec::new())]);
}

#[test]
fn a_truncated_or_changed_aggregate_is_broken() {
    let whole = hex(THREE);
    for cut in MAGIC.len()..whole.len() {
        assert!(is_aggregate(&whole[..cut]) && open(&whole[..cut]).is_err(), "cut at {cut}");
    }
    for at in MAGIC.len()..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 4;
        assert_eq!(open(&changed), Err(Broken::Digest), "changed at {at}");
    }
    assert!(!is_aggregate(b"") && !is_aggregate(&whole[..3]) && !is_aggregate(b"{}"));
}

#[test]
fn a_message_that_claims_more_than_it_has_is_broken() {
    assert_eq!(open(&sealed(b"")), Err(Broken::Empty));
    assert_eq!(open(&aggregate(&["a"], &[])), Err(Broken::Empty));
    assert_eq!(open(&aggregate(&["a"], &[(1, b"{}")])), Err(Broken::PartitionKey));
    assert_eq!(open(&aggregate(&[], &[(0, b"{}")])), Err(Broken::PartitionKey));
    assert_eq!(open(&aggregate(&["a"], &[(u64::MAX, b"{}")])), Err(Broken::PartitionKey));
    assert_eq!(open(&aggregate(&[&"k".repeat(1025)], &[(0, b"{}")])), Err(Broken::TooMuch));
    let many = vec![(0, &b""[..]); SUB_RECORDS_MAX + 1];
    assert_eq!(open(&aggregate(&["a"], &many)), Err(Broken::TooMuch));
    assert_eq!(open(&aggregate(&["a"], &many[1..])).map(|records| records.len()), Ok(SUB_RECORDS_MAX));
    let messages: [&[u8]; 10] = [
        b"\x0a\x05abc",                                  // a key longer than the message
        b"\x0a",                                         // a field without a length
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", // a length of 2^64 - 1
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", // a number of more than 64 bits
        b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", // and one of more bytes than that
        b"\x08\x01",                                     // a key that is a number
        b"\x1b\x1c",                                     // a group
        b"\x02\x00",                                     // a field of number 0
        b"\x0a\x01\xff\x1a\x04\x08\x00\x1a\x00",         // a key that is not UTF-8
        b"\x0a\x01a\x1a\x02\x08\x00",                    // a record without data
    ];
    for message in messages {
        assert_eq!(open(&sealed(message)), Err(Broken::Message), "{message:x?}");
    }
    // An index into a table of hash keys that does not exist.
    assert_eq!(open(&sealed(b"\x0a\x01a\x1a\x06\x08\x00\x10\x00\x1a\x00")), Err(Broken::PartitionKey));
}

#[test]
fn tables_after_the_records_tags_and_unknown_fields_are_accepted() {
    let message = b"\x1a\x0d\x08\x00\x22\x03\x0a\x01t\x1a\x02{}\x28\x07\x0a\x01a\x25abcd\x21abcdefgh\x2a\x01x";
    let mut message = message.to_vec();
    message[1] = 13;
    assert_eq!(records(&sealed(&message)).unwrap(), [("a".to_owned(), b"{}".to_vec())]);
}

proptest! {
    #[test]
    fn a_packed_aggregate_is_opened(keys in vec("[a-z]{1,8}", 1..5), records in vec((any::<u64>(), vec(any::<u8>(), 0..300)), 1..50)) {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let packed: Vec<(u64, &[u8])> =
            records.iter().map(|(key, data)| (key % keys.len() as u64, data.as_slice())).collect();
        let aggregate = aggregate(&keys, &packed);
        let opened = open(&aggregate).unwrap();
        prop_assert_eq!(opened.len(), records.len());
        for (record, (key, data)) in opened.iter().zip(&packed) {
            prop_assert_eq!(&*record.partition_key, keys[usize::try_from(*key).unwrap()]);
            prop_assert_eq!(&aggregate[record.data.clone()], *data);
        }
        // Between any two records there is at least one byte that belongs to neither.
        prop_assert!(opened.windows(2).all(|two| two[0].data.end < two[1].data.start));
    }

    #[test]
    fn any_bytes_are_opened_or_broken(message in vec(any::<u8>(), 0..200)) {
        let sealed = sealed(&message);
        if let Ok(records) = open(&sealed) {
            prop_assert!(records.iter().all(|record| record.data.end <= sealed.len()));
        }
    }
}
