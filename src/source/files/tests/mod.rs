//! Files as shards: what is read, its positions, and that reading from any position returns exactly the rest.

mod changes;
mod documents;
mod hostile;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use checkpoints::{Position, ShardId};
use pipeline::chunk::{Damage, Framing, Text};
use pipeline::documents::Documents;

use super::{Arrival, FileSource, FilesConfig};
use crate::clock::SystemClock;
use crate::lake::{MemoryStore, ObjectStore};
use crate::source::{Behind, Read, ShardReader, ShardSource, SourceError};

fn source(root: &Path, complete: bool) -> FileSource {
    source_on(root, complete, Arc::new(MemoryStore::new()))
}

fn source_on(root: &Path, complete: bool, lake: Arc<dyn ObjectStore>) -> FileSource {
    FileSource::open(root, None, config(complete), lake).unwrap()
}

fn config(complete: bool) -> FilesConfig {
    FilesConfig {
        complete,
        settle: Duration::ZERO,
        patience: Duration::ZERO,
        record_bytes_max: 1000,
        documents: Documents::ONE,
        arrival: Arrival::Modified,
        clock: Arc::new(SystemClock),
    }
}

fn shard(id: &str) -> ShardId {
    ShardId::new(id).unwrap()
}

async fn ids(source: &FileSource) -> Vec<String> {
    source.shards().await.unwrap().into_iter().map(|shard| shard.id.to_string()).collect()
}

/// One record as read: sequence number, text, damage.
type Record = (u128, String, Option<Damage>);

/// What one read returned.
#[derive(Debug, PartialEq)]
enum Got {
    Chunk(Vec<Record>, Position),
    AtTip,
    End,
}

async fn next(reader: &mut dyn ShardReader, bytes: usize) -> Got {
    match reader.read(bytes, Vec::new()).await.unwrap() {
        Read::AtTip => Got::AtTip,
        Read::Empty { .. } | Read::Failed { .. } => panic!("files have no such reads"),
        Read::End { .. } => Got::End,
        Read::Chunk { chunk, through, .. } => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let lines = |bytes: &[u8], base: u64| {
                let mut at = u128::from(base);
                let mut records = Vec::new();
                for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                    if !line.trim_ascii().is_empty() {
                        records.push((at, text(line.trim_ascii_end()), None));
                    }
                    at += line.len() as u128;
                }
                records
            };
            let records = match chunk.framing() {
                Framing::Lines { base } => lines(chunk.bytes(), *base),
                Framing::Texts(texts) => texts
                    .iter()
                    .flat_map(|Text { bytes, base, is_record, damage, .. }| {
                        let bytes = &chunk.bytes()[bytes.start as usize..bytes.end as usize];
                        if *is_record { vec![(u128::from(*base), text(bytes), *damage)] } else { lines(bytes, *base) }
                    })
                    .collect(),
                Framing::Records(frames) => frames
                    .iter()
                    .map(|frame| {
                        let bytes = &chunk.bytes()[frame.bytes.start as usize..frame.bytes.end as usize];
                        (frame.sequence.parse().unwrap(), text(bytes), frame.damage)
                    })
                    .collect(),
            };
            Got::Chunk(records, through)
        }
    }
}

/// Reads a shard to its tip or end: all records, every position, and how it ended.
async fn read_all(source: &FileSource, id: &str, after: Position, bytes: usize) -> (Vec<Record>, Vec<Position>, Got) {
    let mut reader = source.open(&shard(id), &after).await.unwrap();
    let (mut records, mut positions) = (Vec::new(), vec![after]);
    for _ in 0..10_000 {
        match next(&mut *reader, bytes).await {
            Got::Chunk(more, through) => {
                let before = positions.last().unwrap();
                assert!(through > *before, "{through} is not after {before}");
                for (sequence, _, _) in &more {
                    let at = Position::at(checkpoints::SequenceNumber::try_from(sequence.to_string()).unwrap());
                    assert!(at > *before && at <= through, "{at} is in ({before}, {through}]");
                }
                records.extend(more);
                positions.push(through);
            }
            end => return (records, positions, end),
        }
    }
    panic!("the shard never ends");
}

fn texts(records: &[Record]) -> Vec<&str> {
    records.iter().map(|(_, text, _)| text.as_str()).collect()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_folder_has_a_shard_for_each_file_of_lines_and_each_folder_of_json() {
    let folder = tempfile::tempdir().unwrap();
    for path in [
        "a.ndjson",
        "b.jsonl.gz",
        "firehose-1.gz",
        "x/c.ndjson.zst",
        "x/1.json",
        "x/2.json.gz",
        "y/1.json",
        "README.md",
        ".hidden.ndjson",
        "_commits/x.json",
        "x/_part.ndjson",
    ] {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "{}\n").unwrap();
    }
    let source = source(folder.path(), true);
    assert_eq!(ids(&source).await, ["a.ndjson", "b.jsonl.gz", "firehose-1.gz", "x/c.ndjson.zst", "x/", "y/"]);
    std::fs::write(folder.path().join("top.json"), "{}").unwrap();
    assert!(ids(&source).await.contains(&"./".to_owned()));
    assert!(source.stream().as_str().starts_with("file:///"), "{}", source.stream());
}

#[tokio::test]
async fn a_single_file_is_a_shard_whatever_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.log");
    std::fs::write(&path, "{\"a\":1}\n").unwrap();
    let source = source(&path, true);
    assert_eq!(ids(&source).await, ["export.log"]);
    let (records, ..) = read_all(&source, "export.log", Position::Beginning, 100).await;
    assert_eq!(texts(&records), ["{\"a\":1}"]);
}

#[tokio::test]
async fn lines_have_the_offsets_of_their_first_bytes_for_any_chunk_size() {
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<String> = (0..200).map(|n| format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(n % 50))).collect();
    let text = format!("\n{}\r\n\n  \n{}", lines[..100].join("\n"), lines[100..].join("\n"));
    let plain = folder.path().join("a.ndjson");
    std::fs::write(&plain, &text).unwrap();
    std::fs::write(folder.path().join("b.ndjson.gz"), gzip(text.as_bytes())).unwrap();
    std::fs::write(folder.path().join("c.ndjson.zst"), zstd::bulk::compress(text.as_bytes(), 1).unwrap()).unwrap();
    let source = source(folder.path(), true);
    for id in ["a.ndjson", "b.ndjson.gz", "c.ndjson.zst"] {
        for bytes in [1, 10, 333, 100_000] {
            let (records, positions, end) = read_all(&source, id, Position::Beginning, bytes).await;
            assert_eq!(texts(&records), lines, "{id} by {bytes}");
            for (sequence, line, _) in &records {
                assert!(text[usize::try_from(*sequence).unwrap()..].starts_with(line.as_str()));
            }
            assert_eq!(end, if id == "a.ndjson" { Got::AtTip } else { Got::End });
            // From every position, exactly the rest is read.
            let (position, seen) = (positions[positions.len() / 2].clone(), positions.len() / 2);
            let (rest, ..) = read_all(&source, id, position, bytes).await;
            let before = records.len() - rest.len();
            assert_eq!(rest, records[before..], "{id} by {bytes} from position {seen}");
        }
    }
    let length = text.len() as u64;
    let at = |offset: u64| Position::at(offset.into());
    assert_eq!(source.behind(&shard("a.ndjson"), &Position::Beginning).await, Ok(Behind::Bytes(length)));
    assert_eq!(source.behind(&shard("a.ndjson"), &at(9)).await, Ok(Behind::Bytes(length - 10)));
    assert_eq!(source.behind(&shard("a.ndjson"), &at(length - 1)).await, Ok(Behind::Nothing));
    assert!(matches!(source.behind(&shard("b.ndjson.gz"), &at(length - 1)).await, Ok(Behind::Bytes(_))));
    assert_eq!(source.behind(&shard("b.ndjson.gz"), &Position::End).await, Ok(Behind::Nothing));
}

#[tokio::test]
async fn a_run_that_ends_reads_what_a_growing_file_had_when_it_was_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ndjson");
    std::fs::write(&path, "0\n1\n2\n").unwrap();
    let complete = source(folder.path(), true);
    let mut reader = complete.open(&shard("a.ndjson"), &Position::Beginning).await.unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    let mut read = Vec::new();
    for number in 3.. {
        file.write_all(format!("{number}\n").as_bytes()).unwrap();
        match next(&mut *reader, 2).await {
            Got::Chunk(records, ..) => read.extend(records),
            Got::AtTip => break,
            other => panic!("{other:?}"),
        }
        assert!(number < 20, "it does not end");
    }
    assert_eq!(texts(&read)[..3], ["0", "1", "2"]);
    assert_eq!(complete.behind(&shard("a.ndjson"), &Position::at(5.into())).await, Ok(Behind::Nothing));
    assert_eq!(complete.behind(&shard("a.ndjson"), &Position::at(1.into())).await, Ok(Behind::Bytes(4)));
    let next_run = source(folder.path(), true);
    assert_ne!(next_run.behind(&shard("a.ndjson"), &Position::at(5.into())).await, Ok(Behind::Nothing));
}

#[tokio::test]
async fn a_growing_file_is_followed_and_its_unfinished_line_waits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ndjson");
    std::fs::write(&path, "one\ntw").unwrap();
    let following = source(folder.path(), false);
    let mut reader = following.open(&shard("a.ndjson"), &Position::Beginning).await.unwrap();
    assert_eq!(next(&mut *reader, 100).await, Got::Chunk(vec![(0, "one".into(), None)], Position::at(3.into())));
    assert_eq!(next(&mut *reader, 100).await, Got::AtTip);
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"o\nthree").unwrap();
    assert_eq!(next(&mut *reader, 100).await, Got::Chunk(vec![(4, "two".into(), None)], Position::at(7.into())));
    assert_eq!(next(&mut *reader, 100).await, Got::AtTip);
    // Also if the files are complete, unless the line is a whole document.
    let complete = source(folder.path(), true);
    let (records, _, end) = read_all(&complete, "a.ndjson", Position::at(7.into()), 100).await;
    assert_eq!((records, end), (vec![], Got::AtTip));
    let unread = "a.ndjson: its last line (5 bytes) has no line end and is not a complete JSON document";
    assert_eq!(complete.report().unread, [unread]);
    file.write_all(b"\n{\"a\":1}").unwrap();
    // A run reads what a file had when it was opened.
    let complete = source(folder.path(), true);
    let (records, positions, _) = read_all(&complete, "a.ndjson", Position::at(7.into()), 100).await;
    assert_eq!(texts(&records), ["three", "{\"a\":1}"]);
    assert_eq!(positions.last(), Some(&Position::at(20.into())));
    assert!(complete.report().unread.is_empty());
    // A line end that is added later is a blank line.
    file.write_all(b"\nfour\n").unwrap();
    let complete = source(folder.path(), true);
    let (records, ..) = read_all(&complete, "a.ndjson", Position::at(20.into()), 100).await;
    assert_eq!(texts(&records), ["four"]);
}

#[tokio::test]
async fn a_truncated_file_is_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.ndjson"), "one\n").unwrap();
    let source = source(folder.path(), false);
    let message = source.open(&shard("a.ndjson"), &Position::at(99.into())).await.err().unwrap();
    assert!(matches!(message, SourceError::Unreadable { .. }));
    assert!(message.to_string().contains("the file has 4 bytes, but 100 were read before"), "{message}");
    for id in ["../a.ndjson", "/etc/passwd", "x/../../y"] {
        assert!(source.open(&shard(id), &Position::Beginning).await.is_err(), "{id} leads out of the source");
    }
}

#[tokio::test]
async fn a_line_that_is_too_long_keeps_its_first_bytes_and_its_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(200_000);
    let text = format!("one\n{long}\ntwo\n{long}");
    std::fs::write(folder.path().join("a.ndjson"), &text).unwrap();
    std::fs::write(folder.path().join("b.ndjson.gz"), gzip(text.as_bytes())).unwrap();
    std::fs::create_dir(folder.path().join("d")).unwrap();
    std::fs::write(folder.path().join("d/1.json"), format!("{{}}\n{long}\n{{\"two\":2}}\n")).unwrap();
    let source = source(folder.path(), true);
    for id in ["a.ndjson", "b.ndjson.gz"] {
        for bytes in [10, 1000, 1 << 20] {
            let (records, ..) = read_all(&source, id, Position::Beginning, bytes).await;
            let shape: Vec<_> = records.iter().map(|(at, text, damage)| (*at, text.len(), *damage)).collect();
            let large = Some(Damage::TooLarge);
            if bytes < 1 << 20 {
                assert_eq!(
                    shape,
                    [(0, 3, None), (4, 1000, large), (200_005, 3, None), (200_009, 1000, large)],
                    "{id} by {bytes}"
                );
            } else {
                // If a chunk contains the whole line, the decoder rejects it: it has the same limit.
                assert_eq!(shape.iter().map(|(at, ..)| *at).collect::<Vec<_>>(), [0, 4, 200_005, 200_009]);
            }
        }
    }
    let (records, ..) = read_all(&source, "d/", Position::Beginning, 100).await;
    let shape: Vec<_> = records.iter().map(|(_, text, damage)| (text.len(), *damage)).collect();
    assert_eq!(shape, [(2, None), (1000, Some(Damage::TooLarge)), (9, None)]);
}

#[tokio::test]
async fn a_damaged_compressed_file_is_read_up_to_the_damage() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..2000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let mut cut = gzip(text.as_bytes());
    cut.truncate(cut.len() / 2);
    std::fs::write(folder.path().join("cut.ndjson.gz"), &cut).unwrap();
    let mut zstd = zstd::bulk::compress(text.as_bytes(), 1).unwrap();
    zstd.truncate(zstd.len() - 10);
    std::fs::write(folder.path().join("cut.ndjson.zst"), zstd).unwrap();
    std::fs::write(folder.path().join("none.ndjson.gz"), "not gzip").unwrap();
    std::fs::create_dir(folder.path().join("d")).unwrap();
    std::fs::write(folder.path().join("d/1.json.gz"), &cut).unwrap();
    std::fs::write(folder.path().join("d/2.json"), "{\"after\":1}").unwrap();
    let source = source(folder.path(), true);
    for id in ["cut.ndjson.gz", "cut.ndjson.zst", "none.ndjson.gz"] {
        let (records, _, end) = read_all(&source, id, Position::Beginning, 100).await;
        assert_eq!(end, Got::End, "{id}");
        let (last, good) = records.split_last().unwrap();
        assert_eq!(last.2, Some(Damage::DamagedFile), "{id}");
        assert!(good.iter().all(|(_, _, damage)| damage.is_none()));
        let joined: String = texts(good).iter().map(|line| format!("{line}\n")).collect();
        assert!(text.starts_with(&joined), "{id}");
        // Reading from the position of the end finds the end.
        let (_, positions, _) = read_all(&source, id, Position::Beginning, 100).await;
        let (rest, _, end) = read_all(&source, id, positions.last().unwrap().clone(), 100).await;
        assert_eq!((rest, end), (vec![], Got::End), "{id}: the damage is reported once");
    }
    let (records, ..) = read_all(&source, "d/", Position::Beginning, 100_000).await;
    assert_eq!(records.iter().filter(|(_, _, damage)| *damage == Some(Damage::DamagedFile)).count(), 1);
    assert_eq!(records.last().unwrap().1, "{\"after\":1}", "the next file is read all the same");
}

#[tokio::test]
async fn json_files_are_documents_or_lines() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("1.json", "{\"compact\":1}"),
        ("2.json", "{\n  \"spread\": {\n    \"over\": \"lines\"\n  }\n}\n"),
        ("3.json", "{\"line\":1}\n{\"line\":2}\n\n{\"line\":3}"),
        ("4.json", ""),
        ("5.json", "not json\n{\"line\":4}\n"),
        ("6.json", "\u{feff}{\"mark\":1}"),
        ("7.json", "[{\"a\":1},\n {\"a\":2}]"),
    ];
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    std::fs::write(folder.path().join("8.json.gz"), gzip(b"{\"line\":5}\n{\"line\":6}\n")).unwrap();
    let source = source(folder.path(), true);
    let expected = [
        "{\"compact\":1}",
        files[1].1,
        "{\"line\":1}",
        "{\"line\":2}",
        "{\"line\":3}",
        "not json",
        "{\"line\":4}",
        "   {\"mark\":1}",
        files[6].1,
        "{\"line\":5}",
        "{\"line\":6}",
    ];
    for bytes in [1, 100, 1 << 20] {
        let (records, positions, end) = read_all(&source, "./", Position::Beginning, bytes).await;
        assert_eq!(texts(&records), expected, "by {bytes}");
        assert_eq!(end, Got::AtTip);
        let tip = positions.last().unwrap();
        assert_eq!(*tip, Position::at(7_999_999_999_999.into()));
        assert_eq!(source.behind(&shard("./"), tip).await, Ok(Behind::Nothing));
        for position in &positions {
            let (rest, ..) = read_all(&source, "./", position.clone(), bytes).await;
            assert_eq!(rest, records[records.len() - rest.len()..], "from {position}");
        }
    }
}

#[tokio::test]
async fn a_large_json_file_of_lines_is_read_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..50_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    std::fs::write(folder.path().join("1.json"), "{\"first\":1}").unwrap();
    std::fs::write(folder.path().join("2.json"), &text).unwrap();
    std::fs::write(folder.path().join("3.json"), "{\"last\":1}").unwrap();
    let source = source(folder.path(), true);
    for bytes in [1000, 70_000] {
        let (records, positions, _) = read_all(&source, "./", Position::Beginning, bytes).await;
        assert_eq!(records.len(), 50_002);
        assert_eq!(records[1].0, 2_000_000_000_000);
        for position in positions.iter().step_by(positions.len() / 5) {
            let (rest, ..) = read_all(&source, "./", position.clone(), bytes).await;
            assert_eq!(rest, records[records.len() - rest.len()..], "from {position}");
        }
    }
}

#[tokio::test]
async fn a_late_file_is_read_although_its_name_sorts_first() {
    let folder = tempfile::tempdir().unwrap();
    let lake: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
    std::fs::write(folder.path().join("m.json"), "{\"m\":1}").unwrap();
    let first = source_on(folder.path(), true, Arc::clone(&lake));
    let (records, positions, _) = read_all(&first, "./", Position::Beginning, 100).await;
    assert_eq!(texts(&records), ["{\"m\":1}"]);
    std::fs::write(folder.path().join("a.json"), "{\"a\":1}").unwrap();
    std::fs::write(folder.path().join("z.json"), "{\"z\":1}").unwrap();
    let tip = positions.last().unwrap().clone();
    assert!(matches!(first.behind(&shard("./"), &tip).await, Ok(Behind::Bytes(_))));
    // Another process continues from there, and a third reads everything again: all agree on every number.
    let second = source_on(folder.path(), true, Arc::clone(&lake));
    let (rest, ..) = read_all(&second, "./", tip, 100).await;
    assert_eq!(rest, [(2_000_000_000_000, "{\"a\":1}".into(), None), (3_000_000_000_000, "{\"z\":1}".into(), None)]);
    let third = source_on(folder.path(), true, lake);
    let (all, ..) = read_all(&third, "./", Position::Beginning, 100).await;
    assert_eq!(all, [records, rest].concat());
}

#[tokio::test]
async fn a_long_lived_reader_drops_names_and_reads_every_file_once() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(folder.path(), true);
    let mut reader = source.open(&shard("./"), &Position::Beginning).await.unwrap();
    let mut read = Vec::new();
    for round in 0..4 {
        // Later files have earlier names, and the files of earlier rounds still exist.
        for n in 0..700 {
            let name = format!("{}-{n:03}.json", 9 - round);
            std::fs::write(folder.path().join(name), format!("{{\"n\":{}}}", round * 700 + n)).unwrap();
        }
        loop {
            match next(&mut *reader, 50).await {
                Got::Chunk(records, _) => read.extend(texts(&records).into_iter().map(str::to_owned)),
                other => break assert_eq!(other, Got::AtTip),
            }
        }
    }
    let expected: Vec<String> = (0..2_800).map(|n| format!("{{\"n\":{n}}}")).collect();
    assert_eq!(read, expected);
    // From the middle of what another reader has dropped.
    let (rest, ..) = read_all(&source, "./", Position::at(1_999_999_999_999_999.into()), 50).await;
    assert_eq!(texts(&rest), expected[1_999..]);
    // After the middle come files that are not read yet, and files without a number.
    std::fs::write(folder.path().join("0.json"), "{\"n\":1}").unwrap();
    let behind = async |at: u64| source.behind(&shard("./"), &Position::at(at.into())).await.unwrap();
    assert_eq!(behind(1_999_999_999_999_999).await, Behind::Bytes(801 * 10 + 7));
    assert_eq!(behind(2_800_999_999_999_999).await, Behind::Bytes(7));
}

#[tokio::test]
async fn two_processes_that_number_files_at_once_agree() {
    let folder = tempfile::tempdir().unwrap();
    let lake = MemoryStore::new();
    for n in 0..30 {
        std::fs::write(folder.path().join(format!("{n:02}.json")), format!("{{\"n\":{n}}}")).unwrap();
    }
    // One of them learns of its own entry only because the number is taken.
    lake.fail("put_new", 0, crate::lake::Fault::LoseAfter);
    let lake: Arc<dyn ObjectStore> = Arc::new(lake);
    let one = source_on(folder.path(), true, Arc::clone(&lake));
    let mut reader = one.open(&shard("./"), &Position::Beginning).await.unwrap();
    assert!(matches!(reader.read(100, Vec::new()).await, Err(SourceError::Unavailable { .. })));
    std::fs::write(folder.path().join("00a.json"), "{\"late\":1}").unwrap();
    let two = source_on(folder.path(), true, lake);
    let all = |source: FileSource| async move { read_all(&source, "./", Position::Beginning, 100).await.0 };
    let (left, right) = tokio::join!(all(one), all(two));
    assert_eq!(left, right);
    assert_eq!(left.len(), 31);
    assert_eq!(left[30].1, "{\"late\":1}");
}

#[tokio::test]
async fn a_json_file_that_is_still_being_written_waits_until_it_has_settled() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("1.json"), "{\"half\":").unwrap();
    let config = FilesConfig { settle: Duration::from_secs(3600), ..config(false) };
    let source = FileSource::open(folder.path(), None, config, Arc::new(MemoryStore::new())).unwrap();
    let mut reader = source.open(&shard("./"), &Position::Beginning).await.unwrap();
    assert_eq!(next(&mut *reader, 100).await, Got::AtTip);
}
