//! Raw objects that a lane wrote, read again whatever their sizes, their order and where reading is interrupted.

use std::collections::BTreeMap;

use pipeline::chunk::{Chunk, Frame, Framing};
use pipeline::line_objects::LineCodec;

use super::*;
use crate::lake::{Fault, MemoryStore};
use crate::source::text::testing::{Record, chunks, lane, object_of, records_of};

fn key(number: usize) -> ObjectKey {
    ObjectKey::new(format!("raw/unknown/year=2025/month=01/day=13/{number:03}.json.gz")).unwrap()
}

async fn lake_of(objects: &[Vec<u8>]) -> (Arc<MemoryStore>, Vec<ObjectKey>) {
    let lake = Arc::new(MemoryStore::new());
    let mut keys = Vec::new();
    for (number, object) in objects.iter().enumerate() {
        lake.put_new(&key(number), Bytes::from(object.clone())).await.unwrap();
        keys.push(key(number));
    }
    (lake, keys)
}

/// All chunks after a position, each with the position after it.
async fn read(
    lake: &Arc<MemoryStore>,
    keys: &[ObjectKey],
    after: &Position,
) -> Result<Vec<(Vec<Record>, Position)>, SourceError> {
    let slice = ShardId::new("slice-00001").unwrap();
    let lake: Arc<dyn ObjectStore> = Arc::<MemoryStore>::clone(lake);
    let mut reader = RawSliceReader::open(lake, slice, keys.to_vec(), after, 1 << 20)?;
    let (mut all, mut last) = (Vec::new(), after.clone());
    loop {
        match reader.read(1, Vec::new()).await? {
            Read::Chunk { chunk, through, .. } => {
                assert!(through > last, "{through} is not after {last}");
                last = through.clone();
                all.push((records_of(&chunk), through));
            }
            Read::End { children } => {
                assert!(children.is_empty());
                return Ok(all);
            }
            other => panic!("raw objects have no such read: {other:?}"),
        }
    }
}

fn sorted(read: &[(Vec<Record>, Position)]) -> Vec<Record> {
    let mut records: Vec<Record> = read.iter().flat_map(|(records, _)| records.clone()).collect();
    records.sort_unstable();
    records
}

#[tokio::test]
async fn every_record_is_read_again_with_its_first_identity_and_any_position_continues_with_the_rest() {
    for codec in [LineCodec::Gzip(1), LineCodec::Zstd(1)] {
        let (mut objects, mut expected) = (Vec::new(), Vec::new());
        let mut lane = lane(codec, true);
        // Several members, one that is small, one of several parts.
        for (count, from) in [(40, 0), (1, 1_000), (3, 2_000), (450, 3_000)] {
            let (chunks, records) = chunks(count, from);
            objects.push(object_of(&mut lane, chunks));
            expected.extend(records);
        }
        assert!(objects[3].len() as u64 > PART_BYTES, "{}", objects[3].len());
        expected.sort_unstable();
        let (lake, keys) = lake_of(&objects).await;
        for key in &keys {
            assert_eq!(has_identities(&*lake, key).await, Ok(Some(true)), "{codec:?}");
        }
        let all = read(&lake, &keys, &Position::Beginning).await.unwrap();
        assert!(sorted(&all) == expected, "{codec:?}: {} of {} records", sorted(&all).len(), expected.len());
        assert!(all.len() > 20 && all.iter().all(|(records, _)| !records.is_empty()));
        for at in (0..all.len()).step_by(all.len() / 10).chain([0, 1, 2, all.len() - 1]) {
            let rest = read(&lake, &keys, &all[at].1).await.unwrap();
            assert!(rest == all[at + 1..], "{codec:?}: after chunk {at}");
        }
        let ended = objects_before(&all[all.len() - 1].1);
        assert_eq!((objects_before(&Position::Beginning), ended, objects_before(&Position::End)), (0, 3, u64::MAX));
    }
}

#[tokio::test]
async fn chunks_are_as_small_as_a_piece_and_have_one_shard() {
    let mut lane = lane(LineCodec::Gzip(1), true);
    let (chunks, _) = chunks(600, 0);
    let (lake, keys) = lake_of(&[object_of(&mut lane, chunks)]).await;
    let all = read(&lake, &keys, &Position::Beginning).await.unwrap();
    for (records, _) in &all {
        let bytes: usize = records.iter().map(|record| record.text.len()).sum();
        assert!(bytes <= (1 << 20) + (1 << 16) && records.len() <= 16_384, "{bytes} bytes, {} lines", records.len());
        assert!(
            records.iter().all(|record| (&record.stream, &record.shard) == (&records[0].stream, &records[0].shard))
        );
    }
    // Each chunk of a file has a time of reading of its own, and so a group.
    let mut pieces: BTreeMap<String, usize> = BTreeMap::new();
    for (_, through) in &all {
        *pieces.entry(through.checkpoint().to_owned()).or_default() += 1;
    }
    assert!(pieces.len() > 4 && pieces.values().all(|groups| *groups <= 64), "{pieces:?}");
}

#[tokio::test]
async fn an_object_without_identities_and_one_that_is_damaged_or_gone_stop_the_slice_and_say_what_to_do() {
    let mut with = lane(LineCodec::Gzip(1), true);
    let mut without = lane(LineCodec::Gzip(1), false);
    let whole = object_of(&mut with, chunks(200, 0).0);
    let plain = object_of(&mut without, chunks(2, 0).0);
    let mut cut = whole.clone();
    cut.truncate(whole.len() - 20);
    let mut changed = whole.clone();
    // The field is after twelve bytes of header and four of its own: its last run says that it has other lines.
    let field = usize::from(u16::from_le_bytes([changed[14], changed[15]]));
    changed[16 + field - 1] ^= 0x15;
    let both = [whole.clone(), plain.clone()].concat();
    let text = b"{\"a\":1}\n".to_vec();
    let stops = "plan again with `--prefer stream`";
    for (name, object, problem) in [
        ("plain", &plain, "has no identities"),
        ("a later member", &both, "has no identities"),
        ("cut off", &cut, "is damaged"),
        ("not compressed", &text, "is damaged"),
        ("other identities", &changed, "identities"),
    ] {
        let (lake, keys) = lake_of(std::slice::from_ref(object)).await;
        let error = read(&lake, &keys, &Position::Beginning).await.unwrap_err();
        let SourceError::Unreadable { place, problem: found } = &error else { panic!("{name}: {error}") };
        assert!(
            place.starts_with("raw/unknown/") && found.contains(problem) && found.contains(stops),
            "{name}: {error}"
        );
        let first = has_identities(&*lake, &keys[0]).await;
        assert_eq!(first, Ok(Some(!matches!(name, "plain" | "not compressed"))), "{name}");
    }
    let (lake, keys) = lake_of(&[whole]).await;
    assert_eq!(has_identities(&*lake, &key(7)).await, Ok(None));
    let error = read(&lake, &[keys[0].clone(), key(7)], &Position::Beginning).await.unwrap_err();
    assert!(error.to_string().contains("the object is gone"), "{error}");
    for position in [Position::Latest, Position::End, Position::Since { ms: 1 }] {
        assert!(read(&lake, &keys, &position).await.is_err(), "{position}");
    }
}

#[tokio::test]
async fn a_lake_that_fails_is_asked_again_and_nothing_is_lost_or_doubled() {
    let mut lane = lane(LineCodec::Zstd(1), true);
    let (mut objects, mut expected) = (Vec::new(), Vec::new());
    for from in 0..12 {
        let (chunks, records) = chunks(8, from * 100);
        objects.push(object_of(&mut lane, chunks));
        expected.extend(records);
    }
    expected.sort_unstable();
    let (lake, keys) = lake_of(&objects).await;
    let (mut got, mut at, mut failures) = (Vec::new(), Position::Beginning, 0);
    for round in 0..200 {
        if round % 2 == 0 {
            lake.fail("get", round % 5, Fault::LoseAfter);
        }
        let slice = ShardId::new("slice-00001").unwrap();
        let mut reader = RawSliceReader::open(Arc::clone(&lake) as _, slice, keys.clone(), &at, 1 << 20).unwrap();
        let ended = loop {
            match reader.read(1, Vec::new()).await {
                Ok(Read::Chunk { chunk, through, .. }) => {
                    got.extend(records_of(&chunk));
                    at = through;
                }
                Ok(_) => break true,
                Err(error) => {
                    assert!(matches!(error, SourceError::Unavailable { .. }), "{error}");
                    failures += 1;
                    break false;
                }
            }
        };
        if ended {
            break;
        }
    }
    got.sort_unstable();
    assert!(got == expected && failures > 0, "{} of {} records, {failures} failures", got.len(), expected.len());
}

#[tokio::test]
async fn a_line_that_is_too_long_is_cut_and_damaged_and_the_next_ones_are_whole() {
    let long = format!("{{\"long\":\"{}\"}}", "z".repeat(12 << 20));
    let mut bytes = long.clone().into_bytes();
    let end = u32::try_from(bytes.len()).unwrap();
    bytes.extend_from_slice(b"|{\"after\":1}");
    let frame = |bytes, sequence: &str| Frame {
        bytes,
        sequence: sequence.into(),
        sub_sequence: 0,
        arrival_ms: Some(5),
        partition_key: None,
        damage: None,
    };
    let frames = vec![frame(0..end, "7"), frame(end + 1..end + 12, "8")];
    let chunk = Chunk::new("s".into(), "a".into(), 0, bytes, Framing::Records(frames));
    let (lake, keys) = lake_of(&[object_of(&mut lane(LineCodec::Gzip(1), true), vec![chunk])]).await;
    let all = sorted(&read(&lake, &keys, &Position::Beginning).await.unwrap());
    assert_eq!(all.len(), 2);
    assert!(all[0].text == long.as_bytes()[..10 << 20] && all[0].damage.as_deref() == Some("TooLarge"));
    assert_eq!((all[1].text.as_slice(), all[1].sequence.as_str()), (&b"{\"after\":1}"[..], "8"));
}
