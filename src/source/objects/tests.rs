//! Objects as shards: each is read once, from any position, whatever else lists, fails, appears, is overwritten or deleted meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use checkpoints::{Position, SequenceNumber, ShardId, ShardKey, StreamName};
use pipeline::chunk::{Damage, Framing, Text};
use pipeline::documents::Documents;
use pipeline::line_objects::LineCodec;
use pipeline::time::parse_rfc3339;

use super::store::{Object, Pages, Part, Place};
use super::{ObjectsConfig, ObjectsSource};
use crate::clock::SystemClock;
use crate::lake::{Fault, MemoryStore, ObjectStore};
use crate::retry::RetryPolicy;
use crate::source::losses::{self, LossKind, Then};
use crate::source::text::complete::TextConfig;
use crate::source::text::testing::{Record, chunks, lane, object_of, records_of};
use crate::source::{Behind, Read, ShardSource, SourceError};

const SHARDS: u32 = 3;
const MODIFIED: i64 = 1_736_764_200_000;

/// A place in memory. It lists three objects a page, and fails as often as a test says.
#[derive(Default)]
struct MemoryPlace {
    objects: Mutex<BTreeMap<String, (u64, Bytes)>>,
    written: AtomicU64,
    /// Every n-th request fails; 0 for none.
    failing: AtomicU64,
    requests: AtomicU64,
}

impl MemoryPlace {
    fn put(&self, key: &str, content: impl Into<Bytes>) {
        let version = self.written.fetch_add(1, Ordering::Relaxed);
        self.objects.lock().unwrap().insert(key.to_owned(), (version, content.into()));
    }

    fn delete(&self, key: &str) {
        self.objects.lock().unwrap().remove(key);
    }

    /// A list begins again after a failure, so its pages fail more rarely: otherwise it would never end.
    fn request(&self, failing: u64) -> Result<(), SourceError> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if failing > 0 && number.is_multiple_of(failing) {
            return Err(SourceError::Unavailable { place: "memory".to_owned(), problem: "slow down".to_owned() });
        }
        Ok(())
    }
}

struct MemoryPages(Arc<MemoryPlace>, Option<String>);

#[async_trait]
impl Pages for MemoryPages {
    async fn next(&mut self) -> Result<Option<Vec<Object>>, SourceError> {
        let failing = self.0.failing.load(Ordering::Relaxed);
        self.0.request(if failing > 1 { failing * 37 } else { failing })?;
        let objects = self.0.objects.lock().unwrap();
        let after = self.1.clone().unwrap_or_default();
        let later = objects.iter().filter(|(key, _)| **key > after).take(3);
        let page: Vec<Object> = later
            .map(|(key, (version, content))| Object {
                key: key.clone(),
                etag: version.to_string(),
                bytes: content.len() as u64,
                modified_ms: MODIFIED,
            })
            .collect();
        self.1 = page.last().map(|object| object.key.clone()).or(self.1.take());
        Ok((!page.is_empty()).then_some(page))
    }
}

#[async_trait]
impl Place for Arc<MemoryPlace> {
    fn list(&self) -> Box<dyn Pages> {
        Box::new(MemoryPages(Arc::clone(self), None))
    }

    async fn get(&self, object: &Object, range: Option<Range<u64>>) -> Result<Part, SourceError> {
        self.request(self.failing.load(Ordering::Relaxed))?;
        tokio::task::yield_now().await;
        let objects = self.objects.lock().unwrap();
        let Some((version, content)) = objects.get(&object.key) else { return Ok(Part::Gone) };
        if version.to_string() != object.etag {
            return Ok(Part::Changed);
        }
        let range = range.unwrap_or(0..object.bytes);
        let at = |offset: u64| usize::try_from(offset).unwrap();
        Ok(Part::Bytes(content.slice(at(range.start)..at(range.end))))
    }
}

fn config(complete: bool, documents: Documents) -> ObjectsConfig {
    ObjectsConfig {
        complete,
        shards: SHARDS,
        list_every: Duration::from_millis(20),
        text: TextConfig { record_bytes_max: 1 << 20, documents },
        retry: RetryPolicy {
            within: Duration::ZERO,
            first: Duration::from_millis(1),
            longest: Duration::from_millis(5),
        },
        clock: Arc::new(SystemClock),
    }
}

fn stream() -> StreamName {
    StreamName::new("s3://bucket/in").unwrap()
}

fn source(place: &Arc<MemoryPlace>, lake: &Arc<MemoryStore>, complete: bool) -> ObjectsSource {
    source_of(place, lake, config(complete, Documents::MANY))
}

fn source_of(place: &Arc<MemoryPlace>, lake: &Arc<MemoryStore>, config: ObjectsConfig) -> ObjectsSource {
    let lake: Arc<dyn ObjectStore> = Arc::clone(lake) as Arc<dyn ObjectStore>;
    ObjectsSource::new(stream(), Arc::new(Arc::clone(place)), lake, config)
}

/// A text of a chunk: sequence number of its first byte, content, arrival, damage.
type Piece = (u64, String, i64, Option<Damage>);

/// What reading a shard returned: its pieces, all positions, and how often it failed.
#[derive(Debug, Default)]
struct Got {
    pieces: Vec<Piece>,
    positions: Vec<Position>,
    failures: u64,
}

/// Reads a shard until its tip. After a failure it is opened again, as a worker does.
async fn read_shard(source: &ObjectsSource, shard: &ShardId, after: Position, bytes: usize, most: usize) -> Got {
    let mut got = Got { positions: vec![after], ..Got::default() };
    let mut reader = None;
    for _ in 0..20_000 {
        if got.pieces.len() >= most {
            return got;
        }
        let at = got.positions.last().unwrap().clone();
        let opened = match &mut reader {
            Some(opened) => opened,
            None => match source.open(shard, &at).await {
                Ok(opened) => reader.insert(opened),
                Err(_) => continue,
            },
        };
        match opened.read(bytes, Vec::new()).await {
            Ok(Read::AtTip) => return got,
            Ok(Read::Empty { .. }) => {}
            Ok(Read::Chunk { chunk, through, .. }) => {
                assert!(through > at, "{through} is not after {at}");
                let Framing::Texts(texts) = chunk.framing() else { panic!("objects are texts") };
                for Text { bytes, base, arrival_ms, damage, .. } in texts {
                    let sequence = Position::at(SequenceNumber::from(*base));
                    assert!(sequence > at && sequence <= through, "{sequence} is in ({at}, {through}]");
                    let bytes = &chunk.bytes()[bytes.start as usize..bytes.end as usize];
                    let text = String::from_utf8_lossy(bytes).into_owned();
                    got.pieces.push((*base, text, *arrival_ms, *damage));
                }
                got.positions.push(through);
            }
            Ok(other) => panic!("objects have no such read: {other:?}"),
            Err(_) => {
                got.failures += 1;
                reader = None;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    panic!("the shard never comes to its tip");
}

/// All shards, each read from its beginning.
async fn read_all(source: &ObjectsSource, bytes: usize) -> Vec<(ShardId, Got)> {
    let mut all = Vec::new();
    for shard in source.shards().await.unwrap() {
        let got = read_shard(source, &shard.id, Position::Beginning, bytes, usize::MAX).await;
        all.push((shard.id, got));
    }
    all
}

/// The lines of all pieces, sorted.
fn lines(all: &[(ShardId, Got)]) -> Vec<String> {
    let pieces = all.iter().flat_map(|(_, got)| &got.pieces);
    let mut lines: Vec<String> =
        pieces.flat_map(|(_, text, ..)| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    lines.sort_unstable();
    lines
}

/// A text without its line ends: where chunks end makes no difference.
fn joined(text: &str) -> String {
    text.replace('\n', "")
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn numbered(from: usize, count: usize) -> String {
    (from..from + count).map(|n| format!("{{\"n\":{n:07},\"text\":\"{}\"}}\n", "x".repeat(n % 40))).collect()
}

/// Objects of every kind: many small ones, a large one, a large compressed one, two members, empty ones. Returns their lines.
fn fill(place: &MemoryPlace) -> Vec<String> {
    let mut all = String::new();
    let mut add = |key: String, text: String, compressed: bool| {
        all.push_str(&text);
        place.put(&key, if compressed { gzip(text.as_bytes()) } else { text.into_bytes() });
    };
    for n in 0..120 {
        let key = format!("2025/01/{:02}/{:x}.json{}", n % 28 + 1, n * 7919, if n % 3 == 0 { ".gz" } else { "" });
        add(key, numbered(n * 10, n % 4 + 1), n % 3 == 0);
    }
    add("large.ndjson".to_owned(), numbered(1_000_000, 100_000), false);
    add("large.json.gz".to_owned(), numbered(2_000_000, 100_000), true);
    let (a, b) = (numbered(3_000_000, 3), numbered(3_000_100, 3));
    all.push_str(&a);
    all.push_str(&b);
    place.put("members.gz", [gzip(a.as_bytes()), gzip(b.as_bytes())].concat());
    place.put("empty.json", "");
    place.put("_hidden/a.json", "{}");
    place.put("a.parquet", "PAR1");
    let mut lines: Vec<String> = all.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_object_is_read_once_and_any_position_continues_with_exactly_the_rest() {
    let (place, lake) = (Arc::new(MemoryPlace::default()), Arc::new(MemoryStore::new()));
    let expected = fill(&place);
    let whole = read_all(&source(&place, &lake, true), 8 << 20).await;
    assert_eq!(whole.len(), 3);
    assert!(whole.iter().all(|(_, got)| got.failures == 0 && got.pieces.len() > 20), "each shard has its part");
    assert!(lines(&whole) == expected, "{} lines of {}", lines(&whole).len(), expected.len());
    let source = source(&place, &lake, true);
    let pieces = read_all(&source, 100_000).await;
    assert!(lines(&pieces) == expected, "the size of chunks changes nothing");
    for (shard, got) in &pieces {
        let all: String = got.pieces.iter().map(|(_, text, ..)| joined(text)).collect();
        for position in got.positions.iter().step_by(got.positions.len() / 6 + 1) {
            let rest = read_shard(&source, shard, position.clone(), 1 << 20, usize::MAX).await;
            let text: String = rest.pieces.iter().map(|(_, text, ..)| joined(text)).collect();
            assert!(all.ends_with(&text), "{shard} from {position}");
            let later = |base: &u64| Position::at(SequenceNumber::from(*base)) > *position;
            let after: usize =
                got.pieces.iter().filter(|(base, ..)| later(base)).map(|(_, text, ..)| joined(text).len()).sum();
            assert_eq!(text.len(), after, "{shard} from {position}");
            let behind = source.behind(shard, position).await.unwrap();
            assert!(after == 0 || behind != Behind::Nothing, "{shard} from {position}: {behind:?}");
        }
        let last = got.positions.last().unwrap();
        assert_eq!(source.behind(shard, last).await, Ok(Behind::Nothing));
    }
    let report = source.report();
    assert_eq!(report.names_not_read, BTreeMap::from([(".parquet".to_owned(), 1)]));
    assert_eq!(report.problems, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_are_killed_at_any_moment_on_a_failing_service_read_everything_once() {
    for seed in 1..=8_u64 {
        let (place, lake) = (Arc::new(MemoryPlace::default()), Arc::new(MemoryStore::new()));
        let mut expected = BTreeSet::new();
        let put = |from: usize, expected: &mut BTreeSet<String>| {
            for n in (from..from + 40).rev() {
                // Later objects have earlier keys as well as later ones.
                let text = format!("{{\"n\":{n}}}");
                place.put(&format!("{:05}.json", (n * 7919) % 65_536), text.clone());
                expected.insert(text);
            }
        };
        put(0, &mut expected);
        place.failing.store(seed % 5 + 3, Ordering::Relaxed);
        let mut committed: BTreeMap<ShardId, Position> = BTreeMap::new();
        let mut read = Vec::new();
        for round in 0..20_usize {
            // Two workers at once, the second of which is late: what it reads is not committed.
            let (worker, zombie) = (source(&place, &lake, true), source(&place, &lake, true));
            if round == 5 || round == 9 {
                put(round * 100, &mut expected);
                lake.fail("put_new", 0, Fault::LoseAfter);
            }
            let Ok(shards) = worker.shards().await else { continue };
            drop(zombie.shards().await);
            for (number, shard) in shards.iter().enumerate() {
                let after = committed.get(&shard.id).cloned().unwrap_or(Position::Beginning);
                let most =
                    if round < 15 { (round * 3 + number + usize::try_from(seed).unwrap()) % 9 } else { usize::MAX };
                let got = read_shard(&worker, &shard.id, after.clone(), 64, most).await;
                drop(read_shard(&zombie, &shard.id, after, 1 << 20, 3).await);
                // An epoch in three is not committed.
                if round < 15 && (round + number).is_multiple_of(3) {
                    continue;
                }
                committed.insert(shard.id.clone(), got.positions.last().unwrap().clone());
                read.extend(got.pieces.into_iter().map(|(_, text, ..)| text.trim().to_owned()));
            }
        }
        assert_eq!(read.len(), expected.len(), "seed {seed}");
        assert_eq!(read.into_iter().collect::<BTreeSet<_>>(), expected, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_ends_reads_what_was_there_and_another_one_the_rest() {
    let (place, lake) = (Arc::new(MemoryPlace::default()), Arc::new(MemoryStore::new()));
    for n in 0..20 {
        place.put(&format!("{n:03}.json"), format!("{{\"n\":{n}}}"));
    }
    let first = source(&place, &lake, true);
    let mut all = read_all(&first, 1 << 20).await;
    assert_eq!(lines(&all).len(), 20);
    place.put("000-early.json", "{\"early\":1}");
    tokio::time::sleep(Duration::from_millis(60)).await;
    for (shard, got) in &all {
        let more = read_shard(&first, shard, got.positions.last().unwrap().clone(), 1 << 20, usize::MAX).await;
        assert_eq!(more.pieces, [], "it ends after what its list found");
    }
    // A worker that keeps running finds it, although its key is before all that were read.
    let second = source(&place, &lake, false);
    second.shards().await.unwrap();
    // As long as a reader of the first shard is open, its worker lists.
    let leader = second.open(&all[0].0, &Position::Beginning).await.unwrap();
    for _ in 0..200 {
        for (shard, got) in &mut all {
            let mut more = read_shard(&second, shard, got.positions.last().unwrap().clone(), 1 << 20, usize::MAX).await;
            got.pieces.append(&mut more.pieces);
            got.positions = more.positions;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        if lines(&all).len() > 20 {
            break;
        }
    }
    drop(leader);
    assert_eq!(lines(&all).len(), 21);
    assert!(lines(&all).contains(&"{\"early\":1}".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_overwritten_or_deleted_is_reported_and_never_read_twice_in_silence() {
    let (place, lake) = (Arc::new(MemoryPlace::default()), Arc::new(MemoryStore::new()));
    for name in ["a", "b", "c", "d"] {
        place.put(&format!("{name}.json"), format!("{{\"{name}\":1}}"));
    }
    assert_eq!(lines(&read_all(&source(&place, &lake, true), 1 << 20).await).len(), 4);
    place.put("a.json", "{\"a\":2}");
    place.put("b.json", "{\"b\":2}");
    let again = source(&place, &lake, true);
    let all = read_all(&again, 1 << 20).await;
    assert_eq!(lines(&all), ["{\"c\":1}", "{\"d\":1}"], "the old contents are gone, the new ones are not read");
    assert!(again.report().problems.iter().any(|problem| problem.contains("2 objects were overwritten")));
    let open = losses::list(&*lake).await.unwrap();
    let of = |kind: LossKind| open.iter().filter(move |(loss, then)| loss.kind == kind && then.is_none());
    assert_eq!((of(LossKind::Unclear).count(), of(LossKind::Lost).count()), (2, 2));
    for (loss, _) in of(LossKind::Unclear) {
        let then = if loss.shard.as_str().starts_with("a.json//") { Then::Start } else { Then::Position };
        losses::accept(&*lake, loss, then).await.unwrap();
    }
    let decided = source(&place, &lake, true);
    assert_eq!(lines(&read_all(&decided, 1 << 20).await), ["{\"a\":2}", "{\"c\":1}", "{\"d\":1}"]);
    let more = source(&place, &lake, true);
    assert_eq!(lines(&read_all(&more, 1 << 20).await).len(), 3, "once");
    let entries = lake.objects().keys().filter(|key| key.as_str().ends_with(".json.gz")).count();
    assert_eq!(
        (entries, more.report().problems.iter().filter(|text| text.contains("overwritten after they")).count()),
        (2, 0)
    );
    place.delete("d.json");
    let last = source(&place, &lake, true);
    assert_eq!(lines(&read_all(&last, 1 << 20).await), ["{\"a\":2}", "{\"c\":1}"]);
    let id = ShardId::new("d.json//3").unwrap();
    let lost = losses::find(&*lake, &ShardKey::new(stream(), id), LossKind::Lost).await.unwrap();
    assert!(lost.unwrap().0.problem.contains("was deleted"));
}

#[tokio::test]
async fn deliveries_of_firehose_are_read_as_the_records_that_were_sent() {
    let (place, lake) = (Arc::new(MemoryPlace::default()), Arc::new(MemoryStore::new()));
    let name = "2025/01/13/10/orders-1-2025-01-13-10-42-08-6d0c9b52-1d1a-4a0e-9c3f-0d1c6a2f7a11";
    place.put(&format!("{name}.gz"), gzip(b"{\"n\":1}{\"n\":2}\n{\"n\":3}"));
    place.put(
        "errors/processing-failed/2025/01/13/11/orders-1-2025-01-13-11-00-00-6d0c9b52-1d1a-4a0e-9c3f-0d1c6a2f7a12",
        "{\"attemptsMade\":4,\"arrivalTimestamp\":1736764200123,\"errorCode\":\"Lambda.FunctionError\",\"rawData\":\"eyJuIjo0fQ==\"}\n",
    );
    let many = read_all(&source(&place, &lake, true), 1 << 20).await;
    let mut pieces: Vec<(String, i64)> =
        many.into_iter().flat_map(|(_, got)| got.pieces).map(|(_, text, arrival, _)| (text, arrival)).collect();
    pieces.sort_unstable();
    let delivered = parse_rfc3339(b"2025-01-13T10:42:08Z").unwrap();
    assert_eq!(
        pieces,
        [("{\"n\":1}{\"n\":2}\n{\"n\":3}".to_owned(), delivered), ("{\"n\":4}".to_owned(), 1_736_764_200_123)]
    );
}

#[tokio::test]
async fn deliveries_of_a_channel_are_read_as_the_records_that_were_sent() {
    // The delivery of a Kinesis channel to S3: the template of its keys has the channel's name and times, its objects are plain, gzip or
    // zstd, and their records are JSON, or bytes as the producer sent them. No record has an identity or a time of its own.
    let (place, lake) = (Arc::new(MemoryPlace::default()), Arc::new(MemoryStore::new()));
    let at = |hour: u32, name: &str| format!("orders-to-s3/year=2025/month=01/day=13/hour={hour:02}/{name}");
    place.put(&at(8, "orders-to-s3-6d0c9b52-1d1a"), "{\"n\":1}\n{\"n\":2}\n");
    place.put(&at(8, "orders-to-s3-6d0c9b52-1d1b.gz"), gzip(b"{\"n\":3}\n{\"n\":4}"));
    let zstd = zstd::bulk::compress(b"{\"n\":5}{\"n\":6}", 3).unwrap();
    place.put(&at(11, "orders-to-s3-6d0c9b52-1d1c.zst"), zstd);
    let many = read_all(&source(&place, &lake, true), 1 << 20).await;
    let mut pieces: Vec<(String, i64)> =
        many.into_iter().flat_map(|(_, got)| got.pieces).map(|(_, text, arrival, _)| (text, arrival)).collect();
    pieces.sort_unstable();
    // The object's own time is not in the hour of its key: the hour counts.
    let hour = |hour: u32| parse_rfc3339(format!("2025-01-13T{hour:02}:00:00Z").as_bytes()).unwrap();
    assert_eq!(
        pieces,
        [
            ("{\"n\":1}\n{\"n\":2}\n".to_owned(), hour(8)),
            ("{\"n\":3}\n{\"n\":4}".to_owned(), hour(8)),
            ("{\"n\":5}{\"n\":6}".to_owned(), hour(11)),
        ]
    );
}

/// Reads a shard of raw objects until its tip, and opens it again after every `stop`-th chunk. Returns the records, those that were read
/// as texts, and the last position.
async fn read_raw(source: &ObjectsSource, shard: &ShardId, stop: usize) -> (Vec<Record>, Vec<String>, Position) {
    let (mut records, mut texts, mut at) = (Vec::new(), Vec::new(), Position::Beginning);
    let mut reader = source.open(shard, &at).await.unwrap();
    let mut chunks = 0;
    for _ in 0..20_000 {
        match reader.read(1 << 20, Vec::new()).await.unwrap() {
            Read::AtTip => return (records, texts, at),
            Read::Empty { .. } => {}
            Read::Chunk { chunk, through, .. } => {
                assert!(through > at, "{through} is not after {at}");
                at = through;
                match chunk.framing() {
                    Framing::Texts(pieces) => {
                        let text = |text: &Text| &chunk.bytes()[text.bytes.start as usize..text.bytes.end as usize];
                        texts.extend(pieces.iter().map(|piece| String::from_utf8_lossy(text(piece)).into_owned()));
                        assert!(pieces.is_empty() || &*chunk.shard == shard.as_str());
                    }
                    _ => records.extend(records_of(&chunk)),
                }
                chunks += 1;
                if chunks % stop == 0 {
                    reader = source.open(shard, &at).await.unwrap();
                }
            }
            other => panic!("objects have no such read: {other:?}"),
        }
    }
    panic!("the shard never comes to its tip");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_the_raw_objects_of_another_lake_keep_their_first_identities() {
    for codec in [LineCodec::Gzip(1), LineCodec::Zstd(1)] {
        let (place, lake) = (Arc::new(MemoryPlace::default()), Arc::new(MemoryStore::new()));
        let (mut first, mut expected) = (lane(codec, true), Vec::new());
        let folder = "raw/sales/year=2025/month=01/day=13";
        for (number, count) in [3, 1, 700, 40, 2].into_iter().enumerate() {
            let (chunks, records) = chunks(count, number * 1_000);
            let object = object_of(&mut first, chunks);
            // The largest is read in parts.
            assert!(count < 500 || object.len() > 2 << 20, "{}", object.len());
            place.put(&format!("{folder}/20250113T093000Z-3f2a91c0-000001-{number:05}.{}", codec.extension()), object);
            expected.extend(records);
        }
        // Objects of others are between them.
        place.put(&format!("{folder}/other.json"), "{\"other\":1}\n");
        expected.sort_unstable();
        for stop in [usize::MAX, 17] {
            let source = source(&place, &lake, true);
            let (mut records, mut texts) = (Vec::new(), Vec::new());
            for shard in source.shards().await.unwrap() {
                let (more, other, at) = read_raw(&source, &shard.id, stop).await;
                records.extend(more);
                texts.extend(other);
                assert_eq!(source.behind(&shard.id, &at).await, Ok(Behind::Nothing));
            }
            records.sort_unstable();
            assert!(records == expected, "{codec:?} {stop}: {} of {}", records.len(), expected.len());
            assert_eq!(texts, ["{\"other\":1}\n"]);
            assert_eq!(source.report().problems, Vec::<String>::new());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_raw_object_has_no_identities_its_lines_are_read_as_those_of_any_object() {
    let (place, lake) = (Arc::new(MemoryPlace::default()), Arc::new(MemoryStore::new()));
    let (with, mut expected) = chunks(4, 0);
    let (without, others) = chunks(1, 1);
    let object = [
        object_of(&mut lane(LineCodec::Gzip(1), true), with),
        object_of(&mut lane(LineCodec::Gzip(1), false), without),
        object_of(&mut lane(LineCodec::Gzip(1), true), chunks(1, 3).0),
    ];
    place.put("raw/unknown/year=2025/month=01/day=13/a.json.gz", object.concat());
    expected.sort_unstable();
    for stop in [usize::MAX, 1] {
        let source = source(&place, &lake, true);
        let (mut records, mut texts) = (Vec::new(), Vec::new());
        for shard in source.shards().await.unwrap() {
            let (more, other, _) = read_raw(&source, &shard.id, stop).await;
            records.extend(more);
            texts.extend(other);
        }
        records.sort_unstable();
        assert!(records == expected, "{} of {}", records.len(), expected.len());
        assert_eq!(texts.concat().lines().count(), others.len() + chunks(1, 3).1.len(), "from there on");
        let problems = source.report().problems;
        assert!(problems.len() == 1 && problems[0].contains("has no identities from some byte on"), "{problems:?}");
    }
}

#[tokio::test]
async fn a_place_without_objects_and_one_that_fails_are_reported() {
    let (place, lake) = (Arc::new(MemoryPlace::default()), Arc::new(MemoryStore::new()));
    let empty = source(&place, &lake, true);
    assert_eq!(lines(&read_all(&empty, 1 << 20).await).len(), 0);
    assert_eq!(empty.report().problems, ["stream s3://bucket/in has no object that is read, and never had one"]);
    place.put("a.json", "{}");
    place.failing.store(1, Ordering::Relaxed);
    let failing = source(&place, &lake, true);
    let shard = failing.shards().await.unwrap().remove(0).id;
    let mut reader = failing.open(&shard, &Position::Beginning).await.unwrap();
    let mut error = None;
    for _ in 0..200 {
        match reader.read(1 << 20, Vec::new()).await {
            Err(found) => {
                error = Some(found);
                break;
            }
            Ok(read) => assert!(matches!(read, Read::Empty { moved: false }), "{read:?}"),
        }
    }
    assert!(matches!(error, Some(SourceError::Unavailable { .. })), "{error:?}");
    let other = ShardId::new("objects-00007").unwrap();
    assert!(failing.open(&other, &Position::Beginning).await.is_err());
    assert!(failing.open(&shard, &Position::Latest).await.is_err());
}
