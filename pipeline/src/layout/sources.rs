//! Keys of what the lake keeps about its sources: where a stream starts, the files and objects of a source, and losses.
//!
//! Owns: these keys, in both directions. Streams and shards have any names, so their keys have digests of them. Does not own: what is stored
//! there.

use sha2::{Digest, Sha256};

use crate::layout::{LOSSES, SOURCES};

/// Bytes of a stream's name that its key keeps as they are; a longer name is shortened to a prefix and a hash.
const PLAIN_STREAM_NAME_MAX: usize = 300;

/// The key of where reading a Kinesis stream starts. Two streams never share a key.
pub fn stream_start(stream: &str) -> String {
    let mut name = String::new();
    for byte in stream.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    if name.len() > PLAIN_STREAM_NAME_MAX {
        // No unshortened name contains a tilde.
        name.truncate(PLAIN_STREAM_NAME_MAX / 2);
        name.push('~');
        name.push_str(&hex_digest(stream, 16));
    }
    format!("{SOURCES}{name}.json")
}

/// The key of the `number`-th entry, from 1, of the registry of a shard's files.
pub fn registry_entry(stream: &str, shard: &str, number: usize) -> String {
    format!("{SOURCES}{}/{}/{number:08}.json", hex_digest(stream, 8), hex_digest(shard, 8))
}

/// The prefix of what is kept about the files of a stream.
pub fn files_of_source(stream: &str) -> String {
    format!("{SOURCES}{}/", hex_digest(stream, 8))
}

/// The key of the `number`-th entry, from 1, of the catalog of a stream's files of lines.
pub fn catalog_entry(stream: &str, number: usize) -> String {
    format!("{SOURCES}{}/files/{number:08}.json", hex_digest(stream, 8))
}

/// The key of how the objects of a stream are divided into shards.
pub fn objects_of_source(stream: &str) -> String {
    format!("{SOURCES}{}/objects.json", hex_digest(stream, 8))
}

/// The prefix of the entries about the objects of a stream.
pub fn object_entries(stream: &str) -> String {
    format!("{SOURCES}{}/objects/", hex_digest(stream, 8))
}

/// The key of the `number`-th entry, from 1, about the objects of a stream. Keys sort by their numbers.
pub fn object_entry(stream: &str, number: u64) -> String {
    format!("{}{number:020}.json.gz", object_entries(stream))
}

/// The number of the key of an entry about the objects of a stream; the inverse of [`object_entry`].
pub fn number_of_object_entry(stream: &str, key: &str) -> Option<u64> {
    let number = key.strip_prefix(&object_entries(stream))?.strip_suffix(".json.gz")?.parse().ok()?;
    (object_entry(stream, number) == key).then_some(number)
}

/// The key of the loss of a shard.
pub fn loss(stream: &str, shard: &str) -> String {
    format!("{LOSSES}{}-{}.json", hex_digest(stream, 8), hex_digest(shard, 8))
}

/// The key of the decision about the loss of a shard.
pub fn accepted_loss(stream: &str, shard: &str) -> String {
    format!("{LOSSES}{}-{}.accepted.json", hex_digest(stream, 8), hex_digest(shard, 8))
}

/// The first bytes of a text's SHA-256 as hex digits.
fn hex_digest(text: &str, bytes: usize) -> String {
    Sha256::digest(text)[..bytes].iter().map(|byte| format!("{byte:02x}")).collect()
}
