//! Raw objects for tests, as a lane writes them.
//!
//! Owns: making them, and reading chunks of raw lines back. Does not own: what the tests prove.

use std::sync::Arc;

use pipeline::chunk::{Chunk, Damage, Frame, Framing};
use pipeline::dataset::{Datasets, shipped};
use pipeline::documents::Documents;
use pipeline::graph::Graph;
use pipeline::lane::{Lane, LaneConfig};
use pipeline::layout::Area;
use pipeline::line_objects::LineCodec;

/// A record as a source returned it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::source) struct Record {
    pub(in crate::source) stream: String,
    pub(in crate::source) shard: String,
    pub(in crate::source) sequence: String,
    pub(in crate::source) sub_sequence: u64,
    pub(in crate::source) arrival_ms: i64,
    pub(in crate::source) read_ms: Option<i64>,
    pub(in crate::source) damage: Option<String>,
    pub(in crate::source) text: Vec<u8>,
}

/// A lane whose raw objects have identities, or not.
pub(in crate::source) fn lane(codec: LineCodec, identities: bool) -> Lane {
    let datasets = Datasets::compile(&shipped(), &|_, _| Err("none".to_owned())).unwrap();
    Lane::new(Arc::new(LaneConfig {
        graph: Graph::new(&["in".to_owned()], &datasets, true),
        key: None,
        assigned: vec![None],
        raw: Some(codec),
        raw_identities: identities,
        dead_letters: LineCodec::Gzip(1),
        record_bytes_max: 1 << 20,
        hash_seed: 1,
        denied_names: false,
        datasets,
    }))
}

/// The bytes of the raw object of some chunks.
pub(in crate::source) fn object_of(lane: &mut Lane, chunks: Vec<Chunk>) -> Vec<u8> {
    let mut members = Vec::new();
    for chunk in chunks {
        members.extend(lane.push(0, chunk).members);
    }
    members.extend(lane.take_lines());
    members.into_iter().filter(|member| member.folder.area() == Area::Raw).flat_map(|member| member.bytes).collect()
}

/// Chunks of several shards, and the records in them.
pub(in crate::source) fn chunks(count: usize, from: usize) -> (Vec<Chunk>, Vec<Record>) {
    let (mut chunks, mut records) = (Vec::new(), Vec::new());
    for number in from..from + count {
        let (stream, shard) = (format!("stream-{}", number % 2), format!("shard-{}", number % 5));
        let base = number as u64 * 1_000_000;
        let arrival = 1_736_764_200_000 + i64::try_from(number).unwrap();
        if number % 3 == 0 {
            // Lines of a file.
            let lines: Vec<String> =
                (0..40).map(|n| format!("{{\"n\":{n},\"t\":\"{}\"}}", "x".repeat(n * 7))).collect();
            let mut offset = base;
            for line in &lines {
                records.push(Record {
                    stream: stream.clone(),
                    shard: shard.clone(),
                    sequence: offset.to_string(),
                    sub_sequence: 0,
                    arrival_ms: arrival,
                    read_ms: Some(arrival + 5),
                    damage: None,
                    text: line.clone().into_bytes(),
                });
                offset += line.len() as u64 + 1;
            }
            let chunk = Chunk::new(
                stream.into(),
                shard.into(),
                arrival,
                lines.join("\n").into_bytes(),
                Framing::Lines { base },
            );
            let mut chunk = chunk.with_documents(Documents::MANY);
            chunk.read_ms = Some(arrival + 5);
            chunks.push(chunk);
            continue;
        }
        let (mut bytes, mut frames) = (Vec::new(), Vec::new());
        for n in 0..60_u64 {
            let text = format!("{{\"number\":{number},\"n\":{n},\"text\":\"{}\"}}", noise(base + n, number * 37 % 400));
            let begin = u32::try_from(bytes.len()).unwrap();
            bytes.extend_from_slice(text.as_bytes());
            let (sequence, sub_sequence) = (format!("4959033827149025660855969253{:028}", base + n / 4), n % 4);
            let damage = (n == 7).then_some(Damage::BrokenAggregate);
            frames.push(Frame {
                bytes: begin..u32::try_from(bytes.len()).unwrap(),
                sequence: sequence.clone().into(),
                sub_sequence,
                arrival_ms: Some(arrival),
                partition_key: Some("somebody".into()),
                damage,
            });
            bytes.push(b'|');
            records.push(Record {
                stream: stream.clone(),
                shard: shard.clone(),
                sequence,
                sub_sequence,
                arrival_ms: arrival,
                read_ms: None,
                damage: damage.map(|damage| format!("{damage:?}")),
                text: text.into_bytes(),
            });
        }
        chunks.push(Chunk::new(stream.into(), shard.into(), arrival, bytes, Framing::Records(frames)));
    }
    (chunks, records)
}

/// The records of a chunk of raw lines.
pub(in crate::source) fn records_of(chunk: &Chunk) -> Vec<Record> {
    assert_eq!((chunk.last_arrival_ms(), chunk.documents), (None, Documents::ONE));
    let Framing::Records(frames) = chunk.framing() else { panic!("raw lines are records") };
    let record = |frame: &Frame| Record {
        stream: chunk.stream.to_string(),
        shard: chunk.shard.to_string(),
        sequence: frame.sequence.to_string(),
        sub_sequence: frame.sub_sequence,
        arrival_ms: frame.arrival_ms.unwrap(),
        read_ms: chunk.read_ms,
        damage: frame.damage.map(|damage| format!("{damage:?}")),
        text: chunk.bytes()[frame.bytes.start as usize..frame.bytes.end as usize].to_vec(),
    };
    assert!(frames.iter().all(|frame| frame.partition_key.is_none()));
    frames.iter().map(record).collect()
}

/// Text that hardly compresses, so that objects have several parts.
fn noise(seed: u64, length: usize) -> String {
    let mut state = seed;
    let digit = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(
            b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
                [usize::try_from(state >> 58).unwrap_or(0)],
        )
    };
    (0..length).map(digit).collect()
}
