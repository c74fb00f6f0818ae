//! Raw lines, read again with their identities: they must become what the records became at first.
//!
//! Owns: making chunks of raw members, and comparing what comes out of them. So every test of a lane is also one of this.

use std::collections::BTreeMap;
use std::sync::Arc;

use pipeline::chunk::{Chunk, Frame, Framing};
use pipeline::documents::Documents;
use pipeline::lane::{Lane, LaneConfig};
use pipeline::layout::Area;
use pipeline::line_objects::LineMember;
use pipeline::line_objects::identities::{Identity, IdentityReader, Line, field_of_extra};
use serde_json::Value;

use super::{Outcome, StoredDeadLetter, encode_all, lines_of};

/// The identities of a raw member's lines; `None` if it has none.
fn identities_of(member: &LineMember, lines: &[super::Line]) -> Option<Vec<Identity>> {
    let decoder = flate2::bufread::GzDecoder::new(member.bytes.as_slice());
    let field = field_of_extra(decoder.header().expect("a member has a header").extra()?)?.to_vec();
    let mut reader = IdentityReader::new(field).expect("the field can be read");
    let next = |line: &super::Line| reader.next(line.text.len()).expect("each line has an identity");
    let identities = lines.iter().map(next).collect();
    assert!(reader.is_done(), "there are as many identities as lines");
    Some(identities)
}

/// The chunks of raw lines, one for each source and kind.
fn chunks_of(lines: Vec<(Identity, Vec<u8>)>) -> Vec<Chunk> {
    let mut groups: BTreeMap<_, (Vec<u8>, Vec<Frame>)> = BTreeMap::new();
    let place = |at: usize| u32::try_from(at).expect("a test's chunk is small");
    for (Identity { stream, shard, sequence, sub_sequence, arrival_ms, read_ms, line }, text) in lines {
        let documents = if let Line::Packed(documents) = line { documents } else { Documents::ONE };
        let damage = if let Line::Damaged(damage) = line { Some(damage) } else { None };
        let key = (stream, shard, read_ms, documents.many, documents.arrays);
        let (bytes, frames) = groups.entry(key).or_default();
        let begin = place(bytes.len());
        bytes.extend_from_slice(&text);
        let (arrival_ms, bytes_of) = (Some(arrival_ms), begin..place(bytes.len()));
        frames.push(Frame { bytes: bytes_of, sequence, sub_sequence, arrival_ms, partition_key: None, damage });
        bytes.push(b'\n');
    }
    let chunk = |((stream, shard, read_ms, many, arrays), (bytes, frames)): ((Arc<str>, Arc<str>, _, _, _), _)| {
        let chunk = Chunk::new(stream, shard, 0, bytes, Framing::Records(frames));
        let mut chunk = chunk.with_documents(Documents { many, arrays });
        chunk.read_ms = read_ms;
        chunk
    };
    groups.into_iter().map(chunk).collect()
}

/// Rows and dead letters in a form in which they can be compared, by identity. Raw lines have no partition keys.
fn comparable(outcome: &Outcome) -> BTreeMap<(String, u64), Vec<String>> {
    let mut found: BTreeMap<(String, u64), Vec<String>> = BTreeMap::new();
    for file in &outcome.files {
        for row in &file.rows {
            let sub_sequence = row["ingest_subsequence"].as_u64().unwrap_or_default();
            let identity = (row["ingest_sequence"].as_str().unwrap_or_default().to_owned(), sub_sequence);
            let row = format!("{} {} {}", file.dataset, file.path, Value::Object(row.clone()));
            found.entry(identity).or_default().push(row);
        }
    }
    for dead in &outcome.dead_letters {
        let mut about: Value = serde_json::from_str(&dead.about).expect("it is JSON");
        if let Some(about) = about.as_object_mut() {
            about.remove("partitionKey");
            // Only dead letters are processed again, and that makes no raw lines.
            about.remove("attemptsMade");
        }
        let line = format!("{} {about} {}", dead.folder, String::from_utf8_lossy(&dead.raw));
        found.entry((dead.sequence.clone(), dead.sub_sequence)).or_default().push(line);
    }
    found.values_mut().for_each(|what| what.sort_unstable());
    found
}

/// Asserts that raw members become again what they were made of.
pub(crate) fn assert_same_again(config: &Arc<LaneConfig>, members: &[LineMember], first: &Outcome) {
    let mut lines = Vec::new();
    for member in members.iter().filter(|member| member.folder.area() == Area::Raw) {
        let texts = lines_of(member);
        // Sequence numbers of some tests are none.
        let Some(identities) = identities_of(member, &texts) else { return };
        lines.extend(identities.into_iter().zip(texts.into_iter().map(|line| line.text)));
    }
    let mut lane = Lane::new(Arc::clone(config));
    let mut members = Vec::new();
    for chunk in chunks_of(lines) {
        members.extend(lane.push(0, chunk).members);
    }
    members.extend(lane.take_lines());
    let lines = members.iter().filter(|member| member.folder.area() == Area::Error).flat_map(lines_of);
    let dead_letters = lines.map(|line| StoredDeadLetter::read(&line)).collect();
    let again = Outcome { files: encode_all(config, &mut lane), raw: Vec::new(), dead_letters };
    let (mut first_time, mut again) = (comparable(first), comparable(&again));
    assert!(first_time.keys().eq(again.keys()), "each record is there again");
    // A line end in what is not JSON is a space in the raw line, so something else may be wrong with it.
    for dead in first.dead_letters.iter().filter(|dead| dead.raw.contains(&b'\n')) {
        let identity = (dead.sequence.clone(), dead.sub_sequence);
        first_time.remove(&identity);
        again.remove(&identity);
    }
    for (identity, what) in &first_time {
        assert_eq!(again.get(identity), Some(what), "what is made again from raw lines is the same");
    }
}
