//! Hostile files: links that lead elsewhere, and contents larger than memory.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::*;
use crate::source::text::decompress::WINDOW_LOG_MAX;

const RECORD: &str = "{\"a\":1}\n";

#[tokio::test]
async fn a_link_is_followed_only_to_a_file_of_the_source() {
    let outer = tempfile::tempdir().unwrap();
    let (root, other) = (outer.path().join("in"), outer.path().join("in-and-more"));
    for folder in [&root.join("sub"), &other] {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("a.ndjson"), RECORD).unwrap();
        std::fs::write(folder.join("a.json"), RECORD).unwrap();
    }
    symlink("sub/a.ndjson", root.join("inside.ndjson")).unwrap();
    symlink("sub/../sub/a.json", root.join("inside.json")).unwrap();
    symlink(other.join("a.ndjson"), root.join("outside.ndjson")).unwrap();
    symlink("../in-and-more/a.json", root.join("sub/outside.json")).unwrap();
    symlink(&other, root.join("folder")).unwrap();
    symlink(&other, root.join("folder.ndjson")).unwrap();
    symlink("/dev/zero", root.join("zeros.ndjson")).unwrap();
    symlink("nothing", root.join("nothing.ndjson")).unwrap();
    symlink("turns.ndjson", root.join("turns.ndjson")).unwrap();
    let made = Command::new("mkfifo").arg(root.join("pipe.ndjson")).arg(root.join("pipe.json")).status().unwrap();
    assert!(made.success());

    let source = source(&root, true);
    assert_eq!(ids(&source).await, ["inside.ndjson", "sub/a.ndjson", "./", "sub/"]);
    for id in ["inside.ndjson", "./", "sub/"] {
        let (records, ..) = read_all(&source, id, Position::Beginning, 100).await;
        assert_eq!(texts(&records).concat().trim(), RECORD.trim(), "{id}");
    }
    // A file that was listed and then replaced by a link that leaves the source.
    std::fs::remove_file(root.join("sub/a.ndjson")).unwrap();
    symlink(other.join("a.ndjson"), root.join("sub/a.ndjson")).unwrap();
    for id in ["sub/a.ndjson", "inside.ndjson", "outside.ndjson", "zeros.ndjson", "pipe.ndjson"] {
        let refused = source.open(&shard(id), &Position::Beginning).await.err();
        assert!(matches!(refused, Some(SourceError::Unreadable { .. })), "{id}: {refused:?}");
    }
}

#[tokio::test]
async fn an_invalid_name_does_not_prevent_others_from_being_read() {
    let folder = tempfile::tempdir().unwrap();
    let names: [&[u8]; 5] = [b"a\nb.ndjson", b"\x1b[2J.ndjson", b"\xff.ndjson", b"a\nb.json", b"good.ndjson"];
    for name in names {
        std::fs::write(folder.path().join(std::ffi::OsStr::from_bytes(name)), RECORD).unwrap();
    }
    std::fs::create_dir(folder.path().join("a\nb")).unwrap();
    std::fs::write(folder.path().join("a\nb/c.ndjson"), RECORD).unwrap();
    // A path longer than a shard's name may be.
    let mut deep = folder.path().to_owned();
    for _ in 0..6 {
        deep.push("d".repeat(200));
    }
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("a.ndjson"), RECORD).unwrap();
    let source = source(folder.path(), true);
    assert_eq!(ids(&source).await, ["good.ndjson"]);
    assert_eq!(source.shared.reported.lock().unwrap().len(), 6);
    assert_eq!(ids(&source).await, ["good.ndjson"]);
}

#[tokio::test]
async fn a_shard_id_never_names_a_path_outside_its_source() {
    let outer = tempfile::tempdir().unwrap();
    std::fs::create_dir(outer.path().join("in")).unwrap();
    std::fs::write(outer.path().join("a.ndjson"), RECORD).unwrap();
    let source = source(&outer.path().join("in"), true);
    let absolute = outer.path().join("a.ndjson");
    for id in ["../a.ndjson", "x/../../a.ndjson", absolute.to_str().unwrap(), "../", "/"] {
        assert!(source.open(&shard(id), &Position::Beginning).await.is_err(), "{id}");
    }
}

#[tokio::test]
async fn a_line_of_many_megabytes_is_skipped_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let giant = [RECORD.as_bytes(), &vec![b'x'; 80 << 20], b"\n", RECORD.as_bytes()].concat();
    std::fs::write(folder.path().join("a.ndjson.gz"), gzip(&giant)).unwrap();
    std::fs::write(folder.path().join("b.ndjson"), &giant).unwrap();
    std::fs::write(folder.path().join("c.json.zst"), zstd::bulk::compress(&giant, 1).unwrap()).unwrap();
    let source = source(folder.path(), true);
    for id in ["a.ndjson.gz", "b.ndjson", "./"] {
        let (records, positions, _) = read_all(&source, id, Position::Beginning, 1 << 16).await;
        let damages: Vec<_> = records.iter().map(|(_, text, damage)| (text.len(), *damage)).collect();
        assert_eq!(damages, [(7, None), (1000, Some(Damage::TooLarge)), (7, None)], "{id}");
        // After the long line, only what follows it.
        let (rest, ..) = read_all(&source, id, positions[positions.len() - 2].clone(), 1 << 16).await;
        assert!(rest.len() < 3, "{id}");
    }
}

#[tokio::test]
async fn a_zstd_file_with_a_large_window_counts_as_damaged() {
    let folder = tempfile::tempdir().unwrap();
    for (name, window) in [("a.ndjson.zst", WINDOW_LOG_MAX), ("b.ndjson.zst", WINDOW_LOG_MAX + 1)] {
        let file = std::fs::File::create(folder.path().join(name)).unwrap();
        let mut encoder = zstd::stream::write::Encoder::new(file, 1).unwrap();
        encoder.window_log(window).unwrap();
        encoder.write_all(RECORD.as_bytes()).unwrap();
        encoder.finish().unwrap();
    }
    let source = source(folder.path(), true);
    let (records, ..) = read_all(&source, "a.ndjson.zst", Position::Beginning, 100).await;
    assert_eq!(texts(&records), [RECORD.trim()]);
    let (records, _, end) = read_all(&source, "b.ndjson.zst", Position::Beginning, 100).await;
    assert_eq!(records, [(0, String::new(), Some(Damage::DamagedFile))]);
    assert_eq!(end, Got::End);
}
