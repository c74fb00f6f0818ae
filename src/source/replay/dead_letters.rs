//! Dead letters as a source: live error objects of the lake, whose records are processed again.
//!
//! Owns: which chunks a list of objects becomes, and what the positions between them are. Does not own: which objects there are and what
//! becomes of them afterwards (`redrive`), the form of an object (`pipeline::dead_letter::stored`).
//!
//! Each chunk has the dead letters of one stream and shard, with their first identities: sequence and subsequence number, time of arrival,
//! and the pseudonym of the partition key. So a row is the one that it would have been at once. `pipeline::lane` says which
//! numbers the documents of a dead letter get that has several now.
//!
//! The lines of an object are read in *windows*: so many lines that they have a megabyte of wanted records, or 4,096 of them. A window is
//! grouped by stream and shard, and each group is a chunk. A window depends on nothing but its first line. The position of a
//! chunk is: the number of the object · 10¹² + the first line of its window, and as the sub-record the number of groups that were read.
//!
//! Memory: one object as it is stored, and one window.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use checkpoints::{Position, SequenceNumber, ShardId, StreamName};
use pipeline::chunk::{Chunk, Frame, Framing};
use pipeline::dead_letter::DeadLetter;
use pipeline::dead_letter::stored::{DeadLetterFilter, StoredLines};
use pipeline::documents::Documents;

use crate::lake::{LakeError, ObjectKey, ObjectStore};
use crate::source::{Behind, Read, ShardReader, ShardSource, SourceError, SourceShard};

/// A sequence number of a position is the object's number times this, plus a line.
const OBJECT: u64 = 1_000_000_000_000;
/// Bytes of records in a window.
const WINDOW_BYTES: usize = 1 << 20;
/// Records in a window.
const WINDOW_RECORDS: usize = 4096;
/// Lines that are read before other tasks of the thread have their turn.
const LINES_AT_ONCE: u64 = 1024;

/// Error objects that are read one after another.
#[derive(Debug, Clone)]
pub struct DeadLetterSlice {
    /// The objects with their sizes, in the order in which they are read.
    pub objects: Vec<(ObjectKey, u64)>,
    /// Which of their dead letters are read.
    pub filter: DeadLetterFilter,
    /// How many documents a dead letter may have, by the names of the streams; the others may have many.
    pub documents: BTreeMap<String, Documents>,
    /// Only dead letters of these streams, or only those of the others.
    pub streams: Streams,
}

/// Streams, by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Streams {
    /// These.
    Only(Vec<String>),
    /// All but these.
    Except(Vec<String>),
}

impl Streams {
    fn has(&self, stream: &str) -> bool {
        match self {
            Streams::Only(names) => names.iter().any(|name| name == stream),
            Streams::Except(names) => !names.iter().any(|name| name == stream),
        }
    }
}

impl DeadLetterSlice {
    fn wants(&self, letter: &DeadLetter<'_>) -> bool {
        self.streams.has(&letter.stream) && self.filter.wants(letter)
    }

    /// Bytes of the objects from a number on.
    fn bytes_from(&self, number: u64) -> u64 {
        let before = usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
        self.objects.iter().skip(before).map(|(_, bytes)| bytes).sum()
    }
}

/// Slices of dead letters as a stream, whose shards they are.
pub struct DeadLetterSource {
    stream: StreamName,
    lake: Arc<dyn ObjectStore>,
    slices: Vec<(ShardId, Arc<DeadLetterSlice>)>,
}

impl DeadLetterSource {
    /// A stream of this name, of objects in a lake.
    pub fn new(stream: StreamName, lake: Arc<dyn ObjectStore>, slices: Vec<DeadLetterSlice>) -> Self {
        let name = |number: usize| ShardId::new(format!("slice-{number:05}")).expect("a plain name");
        let slices = (1..).zip(slices).map(|(number, slice)| (name(number), Arc::new(slice))).collect();
        DeadLetterSource { stream, lake, slices }
    }

    fn slice(&self, shard: &ShardId) -> Result<Arc<DeadLetterSlice>, SourceError> {
        let found = self.slices.iter().find(|(id, _)| id == shard).map(|(_, slice)| Arc::clone(slice));
        found.ok_or_else(|| SourceError::Unreadable {
            place: format!("stream {}", self.stream),
            problem: format!("it has no shard {shard}"),
        })
    }
}

#[async_trait]
impl ShardSource for DeadLetterSource {
    fn stream(&self) -> &StreamName {
        &self.stream
    }

    async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
        Ok(self.slices.iter().map(|(id, _)| SourceShard::alone(id.clone())).collect())
    }

    async fn open(&self, shard: &ShardId, after: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
        Ok(Box::new(DeadLetterReader::new(Arc::clone(&self.lake), self.slice(shard)?, after)?))
    }

    async fn behind(&self, shard: &ShardId, position: &Position) -> Result<Behind, SourceError> {
        let slice = self.slice(shard)?;
        Ok(match Place::after(position).map(|place| slice.bytes_from(place.object)) {
            None | Some(0) => Behind::Nothing,
            Some(bytes) => Behind::Bytes(bytes),
        })
    }
}

/// Where a slice is read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// The number of the object, from 1.
    object: u64,
    /// The first line of the window.
    line: u64,
    /// The groups of the window that were read.
    groups: u64,
}

impl Place {
    /// The place after a position; `None` if the slice has no such position, or has ended.
    fn after(position: &Position) -> Option<Self> {
        match position {
            Position::Beginning => Some(Place { object: 1, line: 0, groups: 0 }),
            Position::At { sequence, sub } => {
                let at = sequence.as_str().parse::<u64>().ok().filter(|at| *at >= OBJECT)?;
                Some(Place { object: at / OBJECT, line: at % OBJECT, groups: *sub })
            }
            Position::Since { .. } | Position::Latest | Position::End => None,
        }
    }

    fn position(self) -> Position {
        let Place { object, line, groups } = self;
        Position::At { sequence: SequenceNumber::from(object * OBJECT + line), sub: groups }
    }
}

/// A reader of one slice.
pub struct DeadLetterReader {
    lake: Arc<dyn ObjectStore>,
    slice: Arc<DeadLetterSlice>,
    place: Place,
    /// The object in hand, whose next line is the first one after the window.
    open: Option<OpenObject>,
    /// The groups of the window that were not read.
    window: VecDeque<Group>,
}

struct OpenObject {
    lines: StoredLines,
    /// Lines that were read of it.
    line: u64,
    is_done: bool,
}

/// Dead letters of one stream and shard.
struct Group {
    stream: Arc<str>,
    shard: Arc<str>,
    dead_letters: Vec<DeadLetter<'static>>,
}

impl DeadLetterReader {
    /// Reads a slice after a position.
    ///
    /// # Errors
    /// The slice has no such position.
    pub fn new(lake: Arc<dyn ObjectStore>, slice: Arc<DeadLetterSlice>, after: &Position) -> Result<Self, SourceError> {
        let end = Place { object: slice.objects.len() as u64 + 1, line: 0, groups: 0 };
        let place = match (Place::after(after), after) {
            (Some(place), _) => place,
            (None, Position::End) => end,
            (None, after) => {
                let problem = format!("{after} is not a valid position in dead letters");
                return Err(SourceError::Unreadable { place: "dead letters".to_owned(), problem });
            }
        };
        Ok(DeadLetterReader { lake, slice, place, open: None, window: VecDeque::new() })
    }

    /// The object in hand; `None` if all were read.
    async fn object(&mut self) -> Result<Option<OpenObject>, SourceError> {
        if let Some(open) = self.open.take() {
            return Ok(Some(open));
        }
        let index = usize::try_from(self.place.object - 1).unwrap_or(usize::MAX);
        let Some((key, _)) = self.slice.objects.get(index) else { return Ok(None) };
        let unreadable = |problem: String| SourceError::Unreadable { place: key.to_string(), problem };
        let bytes = self.lake.get(key).await.map_err(|error| lake_error(key, &error))?;
        let bytes = bytes.ok_or_else(|| unreadable("it is not in the lake any more".to_owned()))?;
        let mut lines = StoredLines::new(key.as_str(), bytes).map_err(|error| unreadable(error.to_string()))?;
        for line in 0..self.place.line {
            if lines.next_line().map_err(|error| unreadable(error.to_string()))?.is_none() {
                return Err(unreadable(format!("it has only {line} lines")));
            }
        }
        Ok(Some(OpenObject { lines, line: self.place.line, is_done: false }))
    }

    /// Reads the window at the place, without the groups that were read.
    async fn fill(&mut self, mut open: OpenObject) -> Result<OpenObject, SourceError> {
        let mut groups: BTreeMap<(Arc<str>, Arc<str>), Vec<DeadLetter<'static>>> = BTreeMap::new();
        let (mut bytes, mut records) = (0, 0);
        while bytes < WINDOW_BYTES && records < WINDOW_RECORDS {
            let line = open.lines.next_line().map_err(|error| {
                let key = &self.slice.objects[usize::try_from(self.place.object - 1).unwrap_or(usize::MAX)].0;
                SourceError::Unreadable { place: key.to_string(), problem: error.to_string() }
            })?;
            let Some(line) = line else {
                open.is_done = true;
                break;
            };
            open.line += 1;
            if let Some(letter) = line.dead_letter.filter(|letter| self.slice.wants(letter)) {
                (bytes, records) = (bytes + letter.raw.len(), records + 1);
                let key = ((&*letter.stream).into(), (&*letter.shard).into());
                groups.entry(key).or_default().push(letter);
            }
            if open.line.is_multiple_of(LINES_AT_ONCE) {
                tokio::task::yield_now().await;
            }
        }
        let groups = groups.into_iter().map(|((stream, shard), dead_letters)| Group { stream, shard, dead_letters });
        self.window = groups.skip(usize::try_from(self.place.groups).unwrap_or(usize::MAX)).collect();
        Ok(open)
    }

    /// Moves to what comes after the window.
    fn leave_window(&mut self, open: OpenObject) {
        if open.is_done {
            self.place = Place { object: self.place.object + 1, line: 0, groups: 0 };
        } else {
            self.place = Place { line: open.line, groups: 0, ..self.place };
            self.open = Some(open);
        }
    }
}

#[async_trait]
impl ShardReader for DeadLetterReader {
    async fn read(&mut self, _bytes: usize, buffer: Vec<u8>) -> Result<Read, SourceError> {
        let object = self.place.object;
        if self.window.is_empty() {
            let Some(open) = self.object().await? else { return Ok(Read::End { children: Vec::new() }) };
            let open = self.fill(open).await?;
            if self.window.is_empty() {
                self.leave_window(open);
                return Ok(Read::Empty { moved: true });
            }
            self.open = Some(open);
        }
        let Some(group) = self.window.pop_front() else { return Ok(Read::Empty { moved: false }) };
        self.place.groups += 1;
        if self.window.is_empty()
            && let Some(open) = self.open.take()
        {
            self.leave_window(open);
        }
        let source_bytes = match self.place.object > object {
            true => self.slice.bytes_from(object) - self.slice.bytes_from(self.place.object),
            false => 0,
        };
        let documents = self.slice.documents.get(&*group.stream).copied().unwrap_or(Documents::MANY);
        let chunk = chunk_of(group, buffer).with_documents(documents);
        Ok(Read::Chunk { chunk, through: self.place.position(), source_bytes })
    }
}

/// The dead letters of a group as a chunk.
fn chunk_of(group: Group, mut bytes: Vec<u8>) -> Chunk {
    let Group { stream, shard, dead_letters } = group;
    let place = |bytes: &Vec<u8>| u32::try_from(bytes.len()).expect("a window is far below 2 GiB");
    let (mut frames, mut attempts) = (Vec::with_capacity(dead_letters.len()), Vec::with_capacity(dead_letters.len()));
    let mut last_arrival_ms = 0;
    for letter in dead_letters {
        let begin = place(&bytes);
        bytes.extend_from_slice(&letter.raw);
        let end = place(&bytes);
        bytes.push(b'\n');
        attempts.push(letter.attempts);
        last_arrival_ms = letter.arrival_ms;
        frames.push(Frame {
            bytes: begin..end,
            sequence: letter.sequence.into(),
            sub_sequence: letter.sub_sequence,
            arrival_ms: Some(letter.arrival_ms),
            partition_key: letter.partition_key.map(Into::into),
            damage: None,
        });
    }
    Chunk::new(stream, shard, last_arrival_ms, bytes, Framing::Records(frames)).with_attempts(attempts)
}

fn lake_error(key: &ObjectKey, error: &LakeError) -> SourceError {
    let (place, problem) = (key.to_string(), error.to_string());
    if error.is_retryable() {
        SourceError::Unavailable { place, problem }
    } else {
        SourceError::Unreadable { place, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use bytes::Bytes;
    use pipeline::dead_letter::code::Code;
    use pipeline::dead_letter::stored::StoredWriter;

    use crate::lake::MemoryStore;

    /// Puts objects of dead letters of three shards, so that no window has only one of them.
    async fn objects(lake: &MemoryStore, count: usize, lines: usize) -> Vec<(ObjectKey, u64)> {
        let mut objects = Vec::new();
        for number in 0..count {
            let key = format!("error/reason=Decode.TooDeep/year=2025/month=01/day=13/e-{number:05}.json.gz");
            let key = ObjectKey::new(key).unwrap();
            let (mut writer, mut bytes) = (StoredWriter::new(key.as_str()), Vec::new());
            for line in 0..lines {
                let letter = DeadLetter {
                    code: if line % 10 == 3 { Code::NotUtf8 } else { Code::TooDeep },
                    reason: None,
                    syntax: None,
                    dataset: None,
                    field: None,
                    stream: if line % 4 == 0 { "other".into() } else { "orders".into() },
                    shard: format!("s{}", line % 3).into(),
                    sequence: (number * lines + line).to_string().into(),
                    sub_sequence: 5,
                    partition_key: Some("p".into()),
                    arrival_ms: 1_736_764_200_000,
                    attempts: 1 + line as u64 % 2,
                    raw: format!("record {line}").into_bytes().into(),
                };
                let mut text = Vec::new();
                letter.write(&mut text);
                bytes.extend(writer.add(&text).unwrap().into_iter().flatten());
            }
            bytes.extend(writer.finish().unwrap().into_iter().flatten());
            let size = bytes.len() as u64;
            lake.put_new(&key, Bytes::from(bytes)).await.unwrap();
            objects.push((key, size));
        }
        objects
    }

    fn slice(objects: Vec<(ObjectKey, u64)>, streams: Streams) -> DeadLetterSlice {
        let filter = DeadLetterFilter { codes: vec![Code::TooDeep], ..DeadLetterFilter::default() };
        DeadLetterSlice { objects, filter, documents: BTreeMap::new(), streams }
    }

    /// What a chunk has: its stream and shard, and the sequence number and text of each record.
    fn records(chunk: &Chunk) -> Vec<(String, String, String)> {
        let Framing::Records(frames) = chunk.framing() else { panic!("no records") };
        let record = |frame: &Frame| {
            assert_eq!((frame.sub_sequence, frame.arrival_ms), (5, Some(1_736_764_200_000)));
            let text = &chunk.bytes()[frame.bytes.start as usize..frame.bytes.end as usize];
            let place = format!("{}/{}", chunk.stream, chunk.shard);
            (place, frame.sequence.to_string(), String::from_utf8(text.to_vec()).unwrap())
        };
        frames.iter().map(record).collect()
    }

    /// Everything after a position, with the position after each chunk.
    async fn read_all(
        lake: &MemoryStore,
        slice: &DeadLetterSlice,
        after: &Position,
    ) -> Vec<(Position, Vec<(String, String, String)>)> {
        let lake: Arc<dyn ObjectStore> = Arc::new(lake.clone());
        let mut reader = DeadLetterReader::new(lake, Arc::new(slice.clone()), after).unwrap();
        let mut chunks = Vec::new();
        loop {
            match reader.read(100, Vec::new()).await.unwrap() {
                Read::Chunk { chunk, through, .. } => chunks.push((through, records(&chunk))),
                Read::End { .. } => return chunks,
                Read::Empty { moved } => assert!(moved),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn every_wanted_dead_letter_is_read_once_with_its_identity() {
        let lake = MemoryStore::new();
        let slice = slice(objects(&lake, 3, 10_000).await, Streams::Except(Vec::new()));
        let chunks = read_all(&lake, &slice, &Position::Beginning).await;
        assert!(chunks.is_sorted_by(|left, right| left.0 < right.0), "positions only grow");
        let mut sequences: Vec<usize> =
            chunks.iter().flat_map(|(_, records)| records.iter().map(|record| record.1.parse().unwrap())).collect();
        assert_eq!(sequences.len(), 27_000);
        sequences.sort_unstable();
        assert!(sequences.iter().eq((0..30_000).filter(|number| number % 10_000 % 10 != 3).collect::<Vec<_>>().iter()));
        // Windows keep chunks large although the shards take turns.
        assert!(chunks.len() < 60, "{}", chunks.len());
    }

    #[tokio::test]
    async fn reading_again_from_any_position_gives_the_same_chunks() {
        let lake = MemoryStore::new();
        let slice = slice(objects(&lake, 2, 9_000).await, Streams::Except(Vec::new()));
        let chunks = read_all(&lake, &slice, &Position::Beginning).await;
        for (number, (after, _)) in chunks.iter().enumerate() {
            assert_eq!(read_all(&lake, &slice, after).await, chunks[number + 1..], "after {after}");
        }
        assert_eq!(read_all(&lake, &slice, &Position::End).await, []);
    }

    #[tokio::test]
    async fn slices_of_some_streams_and_of_the_others_have_each_dead_letter_once() {
        let lake = MemoryStore::new();
        let objects = objects(&lake, 1, 1_000).await;
        let named = vec!["other".to_owned()];
        let mut count = 0;
        for streams in [Streams::Only(named.clone()), Streams::Except(named)] {
            let is_only = matches!(streams, Streams::Only(_));
            for (_, records) in read_all(&lake, &slice(objects.clone(), streams), &Position::Beginning).await {
                assert!(records.iter().all(|record| record.0.starts_with("other/") == is_only));
                count += records.len();
            }
        }
        assert_eq!(count, 900);
    }

    #[tokio::test]
    async fn a_source_says_how_much_is_left_and_refuses_an_object_that_is_gone() {
        let lake = MemoryStore::new();
        let objects = objects(&lake, 2, 10).await;
        let (first, all) = (objects[0].1, objects[0].1 + objects[1].1);
        let gone = objects[1].0.clone();
        let stream = StreamName::new("_replay:0a1b2c3d").unwrap();
        let slices = vec![slice(objects, Streams::Except(Vec::new()))];
        let source = DeadLetterSource::new(stream, Arc::new(lake.clone()), slices);
        let shard = source.shards().await.unwrap().pop().unwrap().id;
        assert_eq!(source.behind(&shard, &Position::Beginning).await, Ok(Behind::Bytes(all)));
        let second = Position::at(SequenceNumber::from(2 * OBJECT));
        assert_eq!(source.behind(&shard, &second).await, Ok(Behind::Bytes(all - first)));
        assert_eq!(source.behind(&shard, &Position::End).await, Ok(Behind::Nothing));
        lake.delete(&gone).await.unwrap();
        let mut reader = source.open(&shard, &second).await.unwrap();
        let Err(SourceError::Unreadable { place, problem }) = reader.read(100, Vec::new()).await else {
            panic!("it was read")
        };
        assert_eq!((place, problem.as_str()), (gone.to_string(), "it is not in the lake any more"));
    }
}
