//! Texts of positions, ranges, names and keys.

use checkpoints::{Position, SequenceNumber, ShardRange};
use serde_json::Value;
use shardlake::commit::{CheckpointName, NamedCheckpoint};
use shardlake::lake::{Checksum, ObjectKey};

use super::manifest::manifest_name;

/// Lines, each as everything of which a text is stored; and all of them as a named checkpoint.
pub fn position(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines: Vec<&str> = text.split('\n').take(12).collect();
    let mut positions = Vec::new();
    for line in &lines {
        positions.extend(one_position(line));
        stored_position(line);
        manifest_name(line);
        if let Ok(number) = SequenceNumber::try_from(*line) {
            assert_eq!(number.as_str(), *line, "a number has one text");
        }
        if let Ok(key) = ObjectKey::new(*line) {
            let inside = |part: &str| !part.is_empty() && part != "." && part != "..";
            assert!(key.as_str() == *line && line.split('/').all(inside) && !line.contains('\0'));
        }
        if let Ok(checksum) = line.parse::<Checksum>() {
            assert_eq!(checksum.to_string(), *line, "a checksum has one text");
        }
        if let Ok(name) = CheckpointName::new(*line) {
            assert!(name.as_str() == *line && line.is_ascii() && line.len() <= 128);
        }
        if let Ok(range) = serde_json::from_str::<ShardRange>(line) {
            assert!(range.through() > range.after());
            let json = serde_json::to_string(&range).expect("a range is JSON");
            assert_eq!(serde_json::from_str::<ShardRange>(&json).ok(), Some(range));
        }
    }
    in_order(&positions);
    named_checkpoint(data);
}

/// The bytes of a named checkpoint, where one of its name would be.
fn named_checkpoint(data: &[u8]) {
    let name = serde_json::from_slice(data).ok().and_then(|value: Value| value["name"].as_str().map(str::to_owned));
    let name = name.and_then(|name| CheckpointName::new(name).ok());
    let name = name.unwrap_or_else(|| CheckpointName::new("1").expect("a plain name"));
    match NamedCheckpoint::from_bytes(&name, data) {
        Ok(read) => {
            assert_eq!(read.name, name);
            assert_eq!(
                NamedCheckpoint::from_bytes(&name, &read.to_bytes()).as_ref(),
                Ok(&read),
                "it comes back as it is"
            );
        }
        Err(refused) => assert!(refused.key == name.key() && !refused.problem.is_empty()),
    }
}

fn one_position(line: &str) -> Option<Position> {
    let position: Position = line.parse().ok()?;
    assert_eq!(position.to_string(), line, "a position has one text");
    let (checkpoint, sub) = (position.checkpoint().to_owned(), position.sub_sequence_number());
    assert_eq!(Position::from_stored(&checkpoint, sub).as_ref(), Ok(&position), "and one as it is stored");
    Some(position)
}

/// A line as KCL stores it: a text and a number.
fn stored_position(line: &str) {
    let Some((checkpoint, sub)) = line.split_once(' ') else { return };
    let Ok(sub) = sub.parse::<u64>() else { return };
    if let Ok(position) = Position::from_stored(checkpoint, sub) {
        assert_eq!((position.checkpoint(), position.sub_sequence_number()), (checkpoint, sub));
        assert_eq!(position.to_string().parse().as_ref(), Ok(&position));
    }
}

/// Positions have one order, and a range goes only forward in it.
fn in_order(positions: &[Position]) {
    for one in positions {
        for other in positions {
            assert_eq!(one.cmp(other), other.cmp(one).reverse());
            assert_eq!(one == other, one.cmp(other).is_eq());
            assert_eq!(ShardRange::new(one.clone(), other.clone()).is_ok(), other > one);
            for third in positions {
                assert!(!(one <= other && other <= third) || one <= third, "{one} {other} {third}");
            }
        }
    }
}
