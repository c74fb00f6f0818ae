//! Texts of positions, ranges, names, keys and checksums.

use checkpoints::{Position, SequenceNumber, ShardRange};
use serde_json::Value;
use shardlake::commit::{CheckpointName, NamedCheckpoint};
use shardlake::lake::{Checksum, ObjectKey};

use super::manifest::manifest_name;

/// Each line, read as every kind of value that is stored as text; and all lines together, read as a named checkpoint.
pub fn position(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines: Vec<&str> = text.split('\n').take(12).collect();
    let mut positions = Vec::new();
    for line in &lines {
        positions.extend(one_position(line));
        stored_position(line);
        manifest_name(line);
        if let Ok(number) = SequenceNumber::try_from(*line) {
            assert_eq!(number.as_str(), *line, "a number with two texts");
        }
        if let Ok(key) = ObjectKey::new(*line) {
            let inside = |part: &str| !part.is_empty() && part != "." && part != "..";
            assert!(key.as_str() == *line && line.split('/').all(inside) && !line.contains('\0'));
        }
        if let Ok(checksum) = line.parse::<Checksum>() {
            assert_eq!(checksum.to_string(), *line, "a checksum with two texts");
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

/// The bytes of a named checkpoint, read under the key of the name that they contain.
fn named_checkpoint(data: &[u8]) {
    let name = serde_json::from_slice(data).ok().and_then(|value: Value| value["name"].as_str().map(str::to_owned));
    let name = name.and_then(|name| CheckpointName::new(name).ok());
    let name = name.unwrap_or_else(|| CheckpointName::new("1").expect("a valid name"));
    match NamedCheckpoint::from_bytes(&name, data) {
        Ok(read) => {
            assert_eq!(read.name, name);
            assert_eq!(
                NamedCheckpoint::from_bytes(&name, &read.to_bytes()).as_ref(),
                Ok(&read),
                "it changed on its way through the codec"
            );
        }
        Err(refused) => assert!(refused.key == name.key() && !refused.problem.is_empty()),
    }
}

fn one_position(line: &str) -> Option<Position> {
    let position: Position = line.parse().ok()?;
    assert_eq!(position.to_string(), line, "a position with two texts");
    let (checkpoint, sub) = (position.checkpoint().to_owned(), position.sub_sequence_number());
    assert_eq!(Position::from_stored(&checkpoint, sub).as_ref(), Ok(&position), "a position with two stored forms");
    Some(position)
}

/// A line in the stored form: a text and a number.
fn stored_position(line: &str) {
    let Some((checkpoint, sub)) = line.split_once(' ') else { return };
    let Ok(sub) = sub.parse::<u64>() else { return };
    if let Ok(position) = Position::from_stored(checkpoint, sub) {
        assert_eq!((position.checkpoint(), position.sub_sequence_number()), (checkpoint, sub));
        assert_eq!(position.to_string().parse().as_ref(), Ok(&position));
    }
}

/// Positions have a total order, and a range only goes forward.
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
