//! Texts with many documents in a line, and documents over many lines: every document is read once, from any position.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use checkpoints::Position;
use pipeline::chunk::{Damage, Framing};
use pipeline::documents::Documents;

use super::{FilesConfig, config, gzip, shard};
use crate::lake::MemoryStore;
use crate::source::{FileSource, Read, ShardSource};

fn source(root: &Path, complete: bool, settle: Duration) -> FileSource {
    let config = FilesConfig { settle, documents: Documents::MANY, ..config(complete) };
    FileSource::open(root, None, config, Arc::new(MemoryStore::new())).unwrap()
}

/// All records of a shard after a position, and the position after each chunk.
async fn read(source: &FileSource, id: &str, after: &Position, bytes: usize) -> (Vec<String>, Vec<Position>) {
    let mut reader = source.open(&shard(id), after).await.unwrap();
    let (mut records, mut positions) = (Vec::new(), Vec::new());
    while let Read::Chunk { chunk, through, .. } = reader.read(bytes, Vec::new()).await.unwrap() {
        assert_eq!(chunk.documents, Documents::MANY);
        let too_large = match chunk.framing() {
            Framing::Lines { .. } => false,
            Framing::Texts(texts) => texts.iter().any(|text| text.damage == Some(Damage::TooLarge)),
            Framing::Records(frames) => frames.iter().any(|frame| frame.damage == Some(Damage::TooLarge)),
        };
        for record in chunk.records_received() {
            let text = String::from_utf8_lossy(&record).trim().to_owned();
            // The lane rejects what the reader has whole.
            let is_large = text.len() > 1_000 || too_large && text.contains("xxxx");
            records.push(if is_large { "too large".to_owned() } else { text });
        }
        positions.push(through);
    }
    (records, positions)
}

#[tokio::test]
async fn every_document_is_read_once_from_any_position() {
    let small = |number: usize| format!("{{\"n\":{number},\"t\":\"}}{{\"}}");
    let pretty = |number: usize| format!("{{\n  \"n\": {number},\n  \"list\": [\n    {{}},\n    {{}}\n  ]\n}}");
    let large = format!("{{\"t\":\"{}\"}}", "x".repeat(3_000));
    let mut documents = Vec::new();
    let mut text = String::new();
    for number in 0..40 {
        let document = match number % 8 {
            0 => pretty(number),
            5 if number > 8 => large.clone(),
            _ => small(number),
        };
        text += &document;
        text += ["", "\n", " ", "\r\n", "\n\n"][number % 5];
        documents.push(if document == large { "too large".to_owned() } else { document.replace('\n', " ") });
    }
    text += "\n";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.ndjson"), &text).unwrap();
    std::fs::write(folder.path().join("b.ndjson.gz"), gzip(text.as_bytes())).unwrap();
    std::fs::write(folder.path().join("c.json"), &text).unwrap();
    let source = source(folder.path(), true, Duration::ZERO);
    for id in ["a.ndjson", "b.ndjson.gz", "./"] {
        for bytes in [1, 50, 700, 1 << 20] {
            let (records, positions) = read(&source, id, &Position::Beginning, bytes).await;
            assert_eq!(records, documents, "{id} by {bytes}");
            for position in &positions {
                let (rest, _) = read(&source, id, position, bytes).await;
                assert_eq!(rest, documents[documents.len() - rest.len()..], "{id} by {bytes} from {position}");
            }
        }
    }
}

#[tokio::test]
async fn lines_that_may_begin_a_longer_document_wait_until_the_file_has_settled() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.ndjson"), "{\"n\":1}\n{\"n\":\n").unwrap();
    let following = source(folder.path(), false, Duration::from_secs(3_600));
    assert_eq!(read(&following, "a.ndjson", &Position::Beginning, 100).await.0, ["{\"n\":1}"]);
    let settled = source(folder.path(), false, Duration::ZERO);
    assert_eq!(read(&settled, "a.ndjson", &Position::Beginning, 100).await.0, ["{\"n\":1}", "{\"n\":"]);
    std::fs::write(folder.path().join("a.ndjson"), "{\"n\":1}\n{\"n\":\n2}\n{\"half\"").unwrap();
    assert_eq!(read(&following, "a.ndjson", &Position::Beginning, 100).await.0, ["{\"n\":1}", "{\"n\": 2}"]);
}

#[tokio::test]
async fn the_rest_of_a_removed_file_may_have_documents_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ndjson");
    // The first line is a record; what follows may still become one document.
    std::fs::write(&path, "{\"n\":1}\n{\n \"n\": 2,\n").unwrap();
    let source = source(folder.path(), false, Duration::from_secs(3600));
    source.shards().await.unwrap();
    let mut reader = source.open(&shard("a.ndjson"), &Position::Beginning).await.unwrap();
    assert!(matches!(reader.read(1000, Vec::new()).await.unwrap(), Read::Chunk { .. }));
    std::fs::remove_file(&path).unwrap();
    // The reader checks the name once a second.
    let rest = loop {
        match reader.read(1000, Vec::new()).await.unwrap() {
            Read::AtTip => tokio::time::sleep(Duration::from_millis(50)).await,
            read => break read,
        }
    };
    let Read::Chunk { chunk, .. } = rest else { panic!("the beginning of a document was dropped") };
    assert_eq!((chunk.documents, chunk.bytes()), (Documents::MANY, &b"{\n \"n\": 2,\n"[..]));
}
