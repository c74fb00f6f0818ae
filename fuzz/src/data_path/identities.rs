//! Identities of raw lines.

use pipeline::line_objects::identities::{
    Identities, Identity, IdentityReader, NewLines, Sequence, field_of_extra, field_of_frame,
};

/// The most lines that are read: a few bytes may describe any number of them.
const LINES_MAX: usize = 3_000;

/// Arbitrary bytes as a field with identities. What can be read survives the codec: it is written and read as the same.
pub fn identities(data: &[u8]) {
    for found in [field_of_extra(data), field_of_frame(data)].into_iter().flatten() {
        assert!(found.len() < data.len(), "a field is longer than what holds it");
    }
    let Ok(mut reader) = IdentityReader::new(data.to_vec()) else { return };
    let (mut read, mut written) = (Vec::new(), Identities::default());
    while !reader.is_done() && read.len() < LINES_MAX {
        let bytes = length_of(read.len());
        let Ok(identity) = reader.next(bytes) else { break };
        write(&mut written, &identity, bytes as u64);
        read.push(identity);
    }
    // Many names make a field too large.
    let Some(field) = written.finish() else { return };
    let mut again = IdentityReader::new(field).expect("what was written can be read");
    for (number, identity) in read.iter().enumerate() {
        assert_eq!(again.next(length_of(number)).as_ref(), Ok(identity), "it changed on its way through the codec");
    }
    assert!(again.is_done());
}

/// The length of a line.
fn length_of(number: usize) -> usize {
    number * 7 % 300
}

fn write(identities: &mut Identities, identity: &Identity, bytes: u64) {
    let Identity { stream, shard, sequence, sub_sequence, arrival_ms, read_ms, line } = identity;
    let (sub_sequence, arrival_ms, read_ms, line) = (*sub_sequence, *arrival_ms, *read_ms, *line);
    let number = sequence.parse().ok().filter(|number: &u64| number.is_multiple_of(2));
    let sequence = number.map_or(Sequence::Digits(sequence), Sequence::Number);
    identities.add(&NewLines {
        stream,
        shard,
        sequence,
        sub_sequence,
        arrival_ms,
        read_ms,
        line,
        count: 1,
        bytes,
        last_bytes: bytes,
    });
}
