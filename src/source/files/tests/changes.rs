//! Files that change while they are read, or between two runs: rotated, replaced, cut, grown, renamed, removed.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::source::losses::{self, LossKind, Then};

/// A folder, and the lake that remembers its files.
struct Logs {
    folder: tempfile::TempDir,
    lake: Arc<dyn ObjectStore>,
}

/// Bytes of a line.
const LINE: u64 = 39;

/// Lines of one length, with numbers from `range`.
fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("{{\"id\":{n:04},\"text\":\"one line of a log\"}}\n")).collect()
}

fn numbers(records: &[Record]) -> Vec<u32> {
    let number = |text: &str| text[6..10].parse().unwrap_or_else(|_| panic!("'{text}' is torn"));
    records.iter().map(|(_, text, _)| number(text)).collect()
}

impl Logs {
    fn new() -> Self {
        Logs { folder: tempfile::tempdir().unwrap(), lake: Arc::new(MemoryStore::new()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn append(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let mut file = fs::OpenOptions::new().append(true).open(self.path(name)).unwrap();
        file.write_all(bytes.as_ref()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// A process of its own.
    fn source(&self, complete: bool) -> FileSource {
        source_on(self.folder.path(), complete, Arc::clone(&self.lake))
    }

    /// What a run reads: from each position, and for shards without one from the beginning. Positions are kept for the next run.
    async fn run(&self, positions: &mut std::collections::BTreeMap<String, Position>) -> (Vec<u32>, FileSource) {
        let source = self.source(true);
        let mut all: std::collections::BTreeSet<String> = ids(&source).await.into_iter().collect();
        all.extend(positions.keys().cloned());
        let mut read = Vec::new();
        for id in all {
            let after = positions.get(&id).cloned().unwrap_or(Position::Beginning);
            if after == Position::End {
                continue;
            }
            let (records, reached, end) = read_all(&source, &id, after, 1 << 16).await;
            read.extend(numbers(&records));
            let last = if end == Got::End { Position::End } else { reached.last().unwrap().clone() };
            positions.insert(id, last);
        }
        read.sort_unstable();
        (read, source)
    }
}

fn range(range: std::ops::Range<u32>) -> Vec<u32> {
    range.collect()
}

type Positions = std::collections::BTreeMap<String, Position>;

#[tokio::test]
async fn a_file_that_is_replaced_between_two_runs_is_finished_and_the_new_one_read_from_its_start() {
    // Longer, equally long and shorter ones; in place, which keeps the inode, and by another file.
    for new in [3..40, 3..8, 3..5] {
        for in_place in [true, false] {
            let (logs, mut positions) = (Logs::new(), Positions::new());
            logs.write("app.ndjson", lines(100..105));
            assert_eq!(logs.run(&mut positions).await.0, range(100..105));
            if in_place {
                logs.write("app.ndjson", lines(new.clone()));
            } else {
                logs.write("new", lines(new.clone()));
                logs.rename("new", "app.ndjson");
            }
            let (read, source) = logs.run(&mut positions).await;
            assert_eq!(read, range(new.clone()), "{new:?}, in place: {in_place}");
            assert_eq!(positions["app.ndjson"], Position::End);
            assert!(positions.contains_key("app.ndjson//2") && source.report().problems.is_empty());
            // It grows, and nothing is read twice.
            logs.append("app.ndjson", lines(50..60));
            assert_eq!(logs.run(&mut positions).await.0, range(50..60));
            assert_eq!(logs.run(&mut positions).await.0, range(0..0));
        }
    }
}

#[tokio::test]
async fn a_rotated_file_is_finished_under_its_new_name_whether_that_is_read_or_not() {
    for to in ["app.ndjson.1", "app.1.ndjson", "app.ndjson-20250708", "old.jsonl", ".app.old"] {
        let (logs, mut positions) = (Logs::new(), Positions::new());
        logs.write("app.ndjson", lines(0..5));
        assert_eq!(logs.run(&mut positions).await.0, range(0..5));
        logs.append("app.ndjson", lines(5..8));
        logs.rename("app.ndjson", to);
        logs.write("app.ndjson", lines(10..30));
        assert_eq!(logs.run(&mut positions).await.0, [range(5..8), range(10..30)].concat(), "{to}");
        logs.append(to, lines(8..9));
        assert_eq!(logs.run(&mut positions).await.0, [8], "{to}");
        assert_eq!(positions.len(), 2, "{to}: {positions:?}");
    }
}

#[tokio::test]
async fn logs_that_were_rotated_twice_while_nobody_watched_are_read_and_older_ones_are_not() {
    let (logs, mut positions) = (Logs::new(), Positions::new());
    logs.write("app.ndjson.1", lines(900..902));
    logs.write("app.ndjson", lines(0..2));
    let (read, source) = logs.run(&mut positions).await;
    assert_eq!((read, source.report().names_not_read[".1"]), (range(0..2), 1));
    tokio::time::sleep(Duration::from_millis(20)).await;
    logs.append("app.ndjson", lines(2..3));
    logs.rename("app.ndjson.1", "app.ndjson.3");
    logs.rename("app.ndjson", "app.ndjson.2");
    logs.write("app.ndjson.1", lines(3..7));
    logs.write("app.ndjson-20250708", lines(7..9));
    logs.write("app.ndjson", lines(9..12));
    let (read, source) = logs.run(&mut positions).await;
    assert_eq!(read, range(2..12));
    let names: Vec<String> = source.report().names_not_read.into_keys().collect();
    assert_eq!(names, [".3"]);
    // A copy of one that was read is not another one.
    fs::copy(logs.path("app.ndjson.1"), logs.path("app.ndjson.4")).unwrap();
    assert_eq!(logs.run(&mut positions).await.0, range(0..0));
}

#[tokio::test]
async fn copytruncate_and_compressed_rotation_read_the_rest_from_the_copy() {
    for (copy, compressed) in [("app.ndjson.1", false), ("app.1.ndjson", false), ("app.ndjson.1.gz", true)] {
        let (logs, mut positions) = (Logs::new(), Positions::new());
        logs.write("app.ndjson", lines(0..50));
        assert_eq!(logs.run(&mut positions).await.0, range(0..50));
        logs.append("app.ndjson", lines(50..60));
        let old = fs::read(logs.path("app.ndjson")).unwrap();
        logs.write(copy, if compressed { gzip(&old) } else { old });
        logs.write("app.ndjson", lines(70..75));
        assert_eq!(logs.run(&mut positions).await.0, [range(50..60), range(70..75)].concat(), "{copy}");
        assert_eq!(logs.run(&mut positions).await.0, range(0..0), "{copy}");
    }
}

#[tokio::test]
async fn a_followed_file_that_is_rotated_loses_and_doubles_nothing() {
    let logs = Logs::new();
    logs.write("app.ndjson", lines(0..3));
    let source = logs.source(false);
    assert_eq!(ids(&source).await, ["app.ndjson"]);
    let mut reader = source.open(&shard("app.ndjson"), &Position::Beginning).await.unwrap();
    let mut read = Vec::new();
    let mut follow = async |reader: &mut Box<dyn ShardReader>| loop {
        match next(&mut **reader, 1 << 16).await {
            Got::Chunk(records, _) => read.extend(numbers(&records)),
            end => return (std::mem::take(&mut read), end),
        }
    };
    assert_eq!(follow(&mut reader).await, (range(0..3), Got::AtTip));
    // The writer has the old file open until it is signalled.
    logs.rename("app.ndjson", "app.ndjson.1");
    logs.append("app.ndjson.1", lines(3..5));
    logs.write("app.ndjson", lines(10..12));
    assert_eq!(follow(&mut reader).await, (range(3..5), Got::AtTip));
    assert_eq!(ids(&source).await, ["app.ndjson", "app.ndjson//2"]);
    let mut second = source.open(&shard("app.ndjson//2"), &Position::Beginning).await.unwrap();
    assert_eq!(follow(&mut second).await, (range(10..12), Got::AtTip));
    // Truncated, and grown past the position before the next read.
    logs.write("app.ndjson", lines(20..90));
    assert_eq!(follow(&mut second).await, (vec![], Got::End));
    assert!(ids(&source).await.contains(&"app.ndjson//3".to_owned()));
    let mut third = source.open(&shard("app.ndjson//3"), &Position::Beginning).await.unwrap();
    assert_eq!(follow(&mut third).await, (range(20..90), Got::AtTip));
    assert!(source.report().problems.is_empty(), "{:?}", source.report());
}

#[tokio::test]
async fn a_followed_file_ends_when_its_rotated_copy_was_compressed_or_it_was_removed() {
    for compressed in [true, false] {
        let logs = Logs::new();
        logs.write("app.ndjson", lines(0..30));
        let source = logs.source(false);
        ids(&source).await;
        let mut reader = source.open(&shard("app.ndjson"), &Position::Beginning).await.unwrap();
        assert!(matches!(next(&mut *reader, 1 << 16).await, Got::Chunk(records, _) if records.len() == 30));
        assert_eq!(next(&mut *reader, 1 << 16).await, Got::AtTip);
        if compressed {
            logs.write("app.ndjson.1.gz", gzip(lines(0..30).as_bytes()));
        } else {
            logs.append("app.ndjson", "{\"id\":0030");
        }
        fs::remove_file(logs.path("app.ndjson")).unwrap();
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(2)).await;
        tokio::time::resume();
        if !compressed {
            // Nobody will end the line.
            let Got::Chunk(records, _) = next(&mut *reader, 1 << 16).await else { panic!() };
            assert_eq!(numbers(&records), [30]);
        }
        assert_eq!(next(&mut *reader, 1 << 16).await, Got::End);
        assert_eq!(source.report().problems, [""; 0]);
        assert!(!ids(&source).await.contains(&"app.ndjson.1.gz".to_owned()));
    }
}

#[tokio::test]
async fn a_file_that_was_cut_is_an_error_until_somebody_decides() {
    for (then, expected) in [(Then::Start, [range(0..3), range(3..20)].concat()), (Then::Position, range(10..20))] {
        let (logs, mut positions) = (Logs::new(), Positions::new());
        logs.write("app.ndjson", lines(0..10));
        logs.run(&mut positions).await;
        logs.write("app.ndjson", lines(0..3));
        let failure = async |logs: &Logs| {
            let source = logs.source(true);
            ids(&source).await;
            source.open(&shard("app.ndjson"), &positions["app.ndjson"]).await.err().unwrap().to_string()
        };
        for _ in 0..2 {
            let message = failure(&logs).await;
            assert!(message.contains("but 390 were read before") && message.contains("losses accept"), "{message}");
        }
        // It does not vanish when the file has grown.
        logs.append("app.ndjson", lines(3..20));
        assert!(failure(&logs).await.contains("losses accept"));
        let all = losses::list(&*logs.lake).await.unwrap();
        assert_eq!((all.len(), all[0].0.kind, all[0].1), (1, LossKind::Unclear, None));
        assert!(losses::accept(&*logs.lake, &all[0].0, then).await.unwrap());
        let mut read = logs.run(&mut positions).await.0;
        read.extend(logs.run(&mut positions).await.0);
        assert_eq!(read, expected, "{then:?}");
    }
}

#[tokio::test]
async fn a_removed_file_has_ended_if_it_was_read_and_is_one_loss_if_it_was_not() {
    let (logs, mut positions) = (Logs::new(), Positions::new());
    logs.write("read.ndjson", lines(0..3));
    logs.write("part.ndjson", lines(3..9));
    logs.write("packed.ndjson.gz", gzip(lines(9..12).as_bytes()));
    let source = logs.source(true);
    assert_eq!(ids(&source).await, ["packed.ndjson.gz", "part.ndjson", "read.ndjson"]);
    positions.insert("read.ndjson".to_owned(), Position::at((3 * LINE - 1).into()));
    positions.insert("part.ndjson".to_owned(), Position::at((3 * LINE - 1).into()));
    for name in ["read.ndjson", "part.ndjson", "packed.ndjson.gz"] {
        fs::remove_file(logs.path(name)).unwrap();
    }
    positions.insert("packed.ndjson.gz".to_owned(), Position::Beginning);
    let (read, source) = logs.run(&mut positions).await;
    assert_eq!(read, range(0..0));
    assert!(positions.values().all(|position| *position == Position::End), "{positions:?}");
    let problems = source.report().problems;
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().any(|one| one.contains("part.ndjson") && one.contains("117 bytes of it were not read")));
    assert_eq!(losses::list(&*logs.lake).await.unwrap().len(), 2);
    // It comes back with more: only that is read.
    logs.write("read.ndjson", lines(0..5));
    let (read, source) = logs.run(&mut positions).await;
    assert_eq!((read, source.report().problems), (range(3..5), vec![]));
}

#[tokio::test]
async fn a_file_that_was_copied_back_to_its_name_is_not_read_again() {
    let (logs, mut positions) = (Logs::new(), Positions::new());
    logs.write("a.ndjson", lines(0..9));
    logs.run(&mut positions).await;
    // As after restoring a backup, or a move to another disk: another inode.
    fs::copy(logs.path("a.ndjson"), logs.path("copy")).unwrap();
    logs.rename("copy", "a.ndjson");
    logs.append("a.ndjson", lines(9..12));
    assert_eq!(logs.run(&mut positions).await.0, range(9..12));
    assert_eq!(positions.len(), 1);
}

#[tokio::test]
async fn complete_files_that_grow_or_are_replaced_are_read_on() {
    let (logs, mut positions) = (Logs::new(), Positions::new());
    fs::create_dir(logs.path("d")).unwrap();
    logs.write("app.jsonl.gz", gzip(lines(0..3).as_bytes()));
    logs.write("app.jsonl.zst", zstd::bulk::compress(lines(10..13).as_bytes(), 1).unwrap());
    logs.write("d/app.json", lines(20..23));
    logs.write("d/one.json", lines(30..31));
    assert_eq!(logs.run(&mut positions).await.0, [0, 1, 2, 10, 11, 12, 20, 21, 22, 30]);
    assert_eq!(logs.run(&mut positions).await.0, range(0..0));
    logs.append("app.jsonl.gz", gzip(lines(3..5).as_bytes()));
    logs.append("app.jsonl.zst", zstd::bulk::compress(lines(13..15).as_bytes(), 1).unwrap());
    logs.append("d/app.json", lines(23..25));
    assert_eq!(logs.run(&mut positions).await.0, [3, 4, 13, 14, 23, 24]);
    assert_eq!(logs.run(&mut positions).await.0, range(0..0));
    // The next day's exports have the same names.
    logs.write("app.jsonl.gz", gzip(lines(40..48).as_bytes()));
    logs.write("d/app.json", lines(50..52));
    logs.write("d/one.json", lines(60..61));
    assert_eq!(logs.run(&mut positions).await.0, [40, 41, 42, 43, 44, 45, 46, 47, 50, 51, 60]);
    // Renamed, touched and removed: nothing new.
    logs.rename("d/app.json", "d/older.json");
    fs::File::open(logs.path("d/one.json"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_750_000_000))
        .unwrap();
    fs::remove_file(logs.path("app.jsonl.zst")).unwrap();
    let (read, source) = logs.run(&mut positions).await;
    assert_eq!((read, source.report().problems), (vec![], vec![]));
}

#[tokio::test]
async fn a_json_file_that_is_gone_before_it_is_read_is_one_loss_and_its_neighbours_are_read() {
    let logs = Logs::new();
    fs::create_dir(logs.path("d")).unwrap();
    for n in 1..4 {
        logs.write(&format!("d/{n}.json"), lines(n..n + 1));
    }
    let first = logs.source(true);
    let mut reader = first.open(&shard("d/"), &Position::Beginning).await.unwrap();
    // One file is read, and all have numbers.
    assert!(matches!(next(&mut *reader, 1).await, Got::Chunk(..)));
    fs::remove_file(logs.path("d/2.json")).unwrap();
    let second = logs.source(true);
    let after = Position::at(1_999_999_999_999.into());
    let (records, positions, _) = read_all(&second, "d/", after, 1).await;
    assert_eq!(numbers(&records), [3]);
    assert!(second.report().problems[0].contains("d/2.json"), "{:?}", second.report());
    fs::remove_dir_all(logs.path("d")).unwrap();
    let third = logs.source(true);
    let (records, _, end) = read_all(&third, "d/", positions.last().unwrap().clone(), 1).await;
    assert_eq!((records, end, third.report().problems), (vec![], Got::AtTip, vec![]));
}

#[tokio::test]
async fn a_compressed_file_that_is_still_arriving_is_waited_for() {
    let logs = Logs::new();
    let mut state = 1_u64;
    let text: String = (0..3_000)
        .map(|n| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            format!("{{\"id\":{n:04},\"text\":\"{state:x}\"}}\n")
        })
        .collect();
    let whole = gzip(text.as_bytes());
    let config = FilesConfig { patience: Duration::from_secs(3600), ..config(false) };
    let source = FileSource::open(logs.folder.path(), None, config, Arc::clone(&logs.lake)).unwrap();
    logs.write("slow.ndjson.gz", b"");
    assert_eq!(ids(&source).await, [""; 0]);
    logs.write("slow.ndjson.gz", &whole[..whole.len() / 3]);
    assert_eq!(ids(&source).await, ["slow.ndjson.gz"]);
    let mut reader = source.open(&shard("slow.ndjson.gz"), &Position::Beginning).await.unwrap();
    let mut read = Vec::new();
    for part in [1, 2, 3] {
        loop {
            match next(&mut *reader, 1 << 16).await {
                Got::Chunk(records, _) => {
                    assert!(records.iter().all(|(_, _, damage)| damage.is_none()));
                    read.extend(numbers(&records));
                }
                end => break assert_eq!(end, if part < 3 { Got::AtTip } else { Got::End }),
            }
        }
        assert!(read.len() > 500 * part && read == range(0..u32::try_from(read.len()).unwrap()), "{}", read.len());
        logs.append("slow.ndjson.gz", &whole[whole.len() * part / 3..whole.len() * (part + 1).min(3) / 3]);
    }
    assert_eq!(read.len(), 3_000);
}

#[tokio::test]
async fn a_run_that_ends_leaves_the_rest_of_an_arriving_compressed_file_unread() {
    let logs = Logs::new();
    let whole = gzip(lines(0..500).as_bytes());
    logs.write("slow.ndjson.gz", &whole[..whole.len() - 9]);
    let config = FilesConfig { settle: Duration::from_secs(3600), ..config(true) };
    let open = || FileSource::open(logs.folder.path(), None, config.clone(), Arc::clone(&logs.lake)).unwrap();
    let source = open();
    ids(&source).await;
    let (records, positions, end) = read_all(&source, "slow.ndjson.gz", Position::Beginning, 1 << 16).await;
    assert!(end == Got::AtTip && records.iter().all(|(_, _, damage)| damage.is_none()));
    assert!(source.report().unread[0].contains("slow.ndjson.gz: it is compressed, ends unexpectedly"));
    // The next run finds it whole, and reads the rest.
    logs.append("slow.ndjson.gz", &whole[whole.len() - 9..]);
    let source = open();
    ids(&source).await;
    let (rest, _, end) = read_all(&source, "slow.ndjson.gz", positions.last().unwrap().clone(), 1 << 16).await;
    assert_eq!((numbers(&[records, rest].concat()), end), (range(0..500), Got::End));
    assert!(source.report().unread.is_empty(), "{:?}", source.report());
}

#[tokio::test]
async fn a_document_that_is_half_written_stays_unread_until_it_is_whole() {
    let logs = Logs::new();
    logs.write("doc.json", "{\n  \"id\":0001,\n");
    logs.write("next.json", lines(2..3));
    let source = logs.source(true);
    let mut reader = source.open(&shard("./"), &Position::Beginning).await.unwrap();
    let Got::Chunk(records, _) = next(&mut *reader, 100).await else { panic!() };
    assert_eq!(numbers(&records), [2]);
    assert_eq!(next(&mut *reader, 100).await, Got::AtTip);
    assert_eq!(source.report().unread, ["doc.json: it ends inside a JSON document"]);
    logs.append("doc.json", "  \"more\":{}\n}\n");
    let Got::Chunk(records, _) = next(&mut *reader, 100).await else { panic!() };
    assert!(records.len() == 1 && records[0].1.contains("more"), "{records:?}");
    assert_eq!(next(&mut *reader, 100).await, Got::AtTip);
    assert!(source.report().unread.is_empty());
}

#[tokio::test]
async fn content_is_recognized_by_its_first_bytes_and_padding_is_no_damage() {
    let logs = Logs::new();
    logs.write("plain.ndjson.gz", lines(0..2));
    logs.write("packed.ndjson", gzip(lines(2..4).as_bytes()));
    logs.write(
        "zeros.ndjson.gz",
        [gzip(lines(4..5).as_bytes()), gzip(lines(5..6).as_bytes()), vec![0; 70_000]].concat(),
    );
    logs.write("zeros.ndjson.zst", [zstd::bulk::compress(lines(6..8).as_bytes(), 1).unwrap(), vec![0; 512]].concat());
    logs.write("packed.json", gzip(lines(8..9).as_bytes()));
    let (read, source) = logs.run(&mut Positions::new()).await;
    assert_eq!((read, source.report().problems), (range(0..9), vec![]));
}

#[tokio::test]
async fn names_without_an_ending_are_lines_and_other_names_are_counted() {
    let logs = Logs::new();
    let read = ["part-00000", "fh-6-2025-07-08-18-40-00-0a1b", "events.account-1-2026-05-27-11-00-00-0a1b", "A.NDJSON"];
    let not_read =
        ["a.log", "b.log", "c.ndjson.1", "d.ndjson.bz2", "e.ndjson~", "f.part", "app.ndjson-20250708", ".hidden", "_x"];
    for name in read.into_iter().chain(not_read) {
        logs.write(name, lines(0..1));
    }
    let source = logs.source(true);
    let mut expected = read.to_vec();
    expected.sort_unstable();
    assert_eq!(ids(&source).await, expected);
    let names: Vec<(String, u64)> = source.report().names_not_read.into_iter().collect();
    let names: Vec<(&str, u64)> = names.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(names, [(".1", 1), (".bz2", 1), (".log", 2), (".part", 1), ("others", 1), ("~", 1)]);

    let none = Logs::new();
    none.write("a.log", lines(0..1));
    let source = none.source(true);
    assert_eq!(ids(&source).await, [""; 0]);
    assert!(source.report().problems[0].contains("has no file that is read"), "{:?}", source.report());
}

#[tokio::test]
async fn old_positions_adopt_the_files_that_are_there() {
    let logs = Logs::new();
    logs.write("a.ndjson", lines(0..9));
    let mut positions = Positions::from([("a.ndjson".to_owned(), Position::at((4 * LINE - 1).into()))]);
    assert_eq!(logs.run(&mut positions).await.0, range(4..9));
    logs.rename("a.ndjson", "a.ndjson.1");
    logs.write("a.ndjson", lines(20..22));
    assert_eq!(logs.run(&mut positions).await.0, range(20..22));
}

#[tokio::test]
async fn a_lake_that_refuses_the_catalog_fails_the_files_and_not_the_listing() {
    let (folder, lake) = (tempfile::tempdir().unwrap(), MemoryStore::new());
    fs::write(folder.path().join("a.ndjson"), lines(0..1)).unwrap();
    for _ in 0..2 {
        lake.fail("put_new", 0, crate::lake::Fault::Refuse);
    }
    let source = source_on(folder.path(), true, Arc::new(lake));
    assert_eq!(ids(&source).await, ["a.ndjson"]);
    let error = source.open(&shard("a.ndjson"), &Position::Beginning).await.err();
    assert!(matches!(error, Some(SourceError::Unreadable { .. })), "{error:?}");
    assert_eq!(numbers(&read_all(&source, "a.ndjson", Position::Beginning, 100).await.0), [0]);
}

#[tokio::test]
async fn two_workers_that_find_files_at_once_agree() {
    let logs = Logs::new();
    for n in 0..30 {
        logs.write(&format!("{n:02}.ndjson"), lines(n..n + 1));
    }
    let (one, two) = (logs.source(true), logs.source(true));
    let (left, right) = tokio::join!(ids(&one), ids(&two));
    assert_eq!((left.len(), &left), (30, &right));
    logs.write("00.ndjson", lines(50..51));
    let (left, right) = tokio::join!(ids(&one), ids(&two));
    assert_eq!((left.len(), left.contains(&"00.ndjson//2".to_owned()), &left), (30, true, &right));
}

#[tokio::test]
async fn bytes_that_were_seen_and_overwritten_are_a_loss_and_the_new_content_is_read() {
    let logs = Logs::new();
    logs.write("app.ndjson", lines(0..10));
    let source = logs.source(false);
    ids(&source).await;
    let mut reader = source.open(&shard("app.ndjson"), &Position::Beginning).await.unwrap();
    let Got::Chunk(records, _) = next(&mut *reader, 39).await else { panic!() };
    assert_eq!(numbers(&records), [0]);
    logs.write("app.ndjson", lines(50..53));
    assert_eq!(next(&mut *reader, 39).await, Got::End);
    let problems = source.report().problems;
    assert!(problems.len() == 1 && problems[0].contains("351 bytes of it were not read"), "{problems:?}");
    assert!(ids(&source).await.contains(&"app.ndjson//2".to_owned()));
    let (records, ..) = read_all(&source, "app.ndjson//2", Position::Beginning, 100).await;
    assert_eq!(numbers(&records), range(50..53));
}

#[tokio::test]
async fn a_crash_before_an_end_is_committed_hides_no_loss() {
    let (logs, mut positions) = (Logs::new(), Positions::new());
    logs.write("app.ndjson", lines(0..10));
    logs.run(&mut positions).await;
    fs::remove_file(logs.path("app.ndjson")).unwrap();
    let committed = Position::at((4 * LINE - 1).into());
    assert_eq!(logs.run(&mut positions).await.1.report().problems, [""; 0], "all of it was read");
    // Neither the end nor the last lines were committed before the crash.
    positions.insert("app.ndjson".to_owned(), committed.clone());
    let (read, source) = logs.run(&mut positions).await;
    assert_eq!(read, range(0..0));
    assert!(source.report().problems[0].contains("234 bytes of it were not read"), "{:?}", source.report());
    // If the file is there again, they are read, and what follows is a part of its own.
    logs.write("app.ndjson", lines(0..12));
    positions.insert("app.ndjson".to_owned(), committed);
    assert_eq!(logs.run(&mut positions).await.0, range(4..12));
}

#[tokio::test]
async fn a_file_that_was_small_when_it_was_first_seen_is_known_by_what_was_read_of_it() {
    let (logs, mut positions) = (Logs::new(), Positions::new());
    let head = "{\"id\":0000,\"text\":\"the service has started\"}\n";
    logs.write("app.ndjson", head);
    assert_eq!(logs.run(&mut positions).await.0, [0]);
    logs.append("app.ndjson", lines(1..5));
    assert_eq!(logs.run(&mut positions).await.0, range(1..5));
    // The next file begins with the same line, in the same inode, and is longer.
    logs.write("app.ndjson", head.to_owned() + &lines(11..40));
    let read = logs.run(&mut positions).await.0;
    assert_eq!(read, [vec![0], range(11..40)].concat());
}

#[tokio::test]
async fn a_source_that_is_one_file_is_followed_when_it_is_rotated() {
    let logs = Logs::new();
    logs.write("app.log", lines(0..3));
    let source = source_on(&logs.path("app.log"), true, Arc::clone(&logs.lake));
    let (records, positions, _) = {
        assert_eq!(ids(&source).await, ["app.log"]);
        read_all(&source, "app.log", Position::Beginning, 100).await
    };
    assert_eq!(numbers(&records), range(0..3));
    logs.append("app.log", lines(3..4));
    let source = source_on(&logs.path("app.log"), true, Arc::clone(&logs.lake));
    logs.rename("app.log", "app.log.1");
    assert_eq!(ids(&source).await, ["app.log"]);
    logs.write("app.log", lines(10..12));
    assert_eq!(ids(&source).await, ["app.log", "app.log//2"]);
    let (rest, ..) = read_all(&source, "app.log", positions.last().unwrap().clone(), 100).await;
    assert_eq!(numbers(&rest), [3]);
    let (new, ..) = read_all(&source, "app.log//2", Position::Beginning, 100).await;
    assert_eq!(numbers(&new), [10, 11]);
}
