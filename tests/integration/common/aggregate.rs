//! Aggregates of the Kinesis Producer Library, written from their public description and not by the product's code.

use md5::{Digest, Md5};

/// An aggregate of (partition key, data): magic bytes, a protobuf message, and its MD5.
pub(crate) fn aggregate<'a>(records: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let (mut keys, mut message): (Vec<&str>, Vec<u8>) = (Vec::new(), Vec::new());
    for (key, data) in records {
        let index = keys.iter().position(|known| *known == key).unwrap_or_else(|| {
            keys.push(key);
            keys.len() - 1
        });
        record(index as u64, data, &mut message);
    }
    let mut table = Vec::new();
    keys.iter().for_each(|key| field(1, key.as_bytes(), &mut table));
    sealed(&[table, message].concat())
}

/// Adds a record (field 3): the index of its partition key (1), and its data (3).
pub(crate) fn record(key_index: u64, data: &[u8], out: &mut Vec<u8>) {
    let mut inner = vec![1 << 3];
    varint(key_index, &mut inner);
    field(3, data, &mut inner);
    field(3, &inner, out);
}

/// Adds a field of bytes.
pub(crate) fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Adds a number, seven bits a byte.
pub(crate) fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap());
}

/// The magic bytes, the message, and its MD5.
pub(crate) fn sealed(message: &[u8]) -> Vec<u8> {
    [&[0xF3, 0x89, 0x9A, 0xC2][..], message, &Md5::digest(message)[..]].concat()
}
