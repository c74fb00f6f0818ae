//! Reading the objects of one shard, one after the other in the order of their numbers.
//!
//! Owns: which object is next, reading small objects ahead, and large ones in parts. Does not own: which objects there are (`lister`), those
//! whose lines have identities (`raw`), cutting texts (`text::complete`).
//!
//! Memory beside the chunk: at most 2 MiB of small objects that were read ahead, 4 MiB of a large one, and the keys of one entry that
//! belong to the shard. Of a large object whose lines have identities it is twice as much.

mod raw;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use checkpoints::{Position, ShardId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::source::files::kind_of;
use crate::source::objects::catalog::index_of;
use crate::source::objects::keys::{arrival_ms, has_failures, name_of};
use crate::source::objects::reader::raw::RawObject;
use crate::source::objects::store::{Object, Part};
use crate::source::objects::{Known, Leading, Shared};
use crate::source::text::arrival_of;
use crate::source::text::complete::{Batch, CompleteText, Step, next_of, position_before};
use crate::source::text::decompress::{Codec, TextReader, codec_by_content};
use crate::source::text::identified::groups_of;
use crate::source::text::members::has_identities;
use crate::source::{Read, ShardReader, SourceError};

/// Objects that are read at the same time.
const READS: usize = 32;
/// Bytes of small objects that are read ahead.
const AHEAD_BYTES: u64 = 2 << 20;
/// Objects with more bytes are read in parts.
const SMALL_BYTES: u64 = 1 << 20;
/// Bytes of one part.
const PART_BYTES: u64 = 4 << 20;
/// Texts with more bytes are cut on the blocking pool.
const INLINE_BYTES: usize = 64 << 10;
/// The longest time that one read collects small objects for.
const COLLECT_FOR: Duration = Duration::from_secs(1);
/// How long a read waits for a list that has not ended.
const WAIT_FOR_LIST: Duration = Duration::from_secs(1);

/// A reader of one shard.
pub(super) struct ObjectsReader {
    shared: Arc<Shared>,
    index: usize,
    stream: Arc<str>,
    shard: Arc<str>,
    /// The object to read next, and the offset in its text.
    number: u64,
    offset: u64,
    /// The last entry whose objects are in `queue`, or were.
    entry: u64,
    queue: VecDeque<(u64, Object)>,
    /// Objects that are being read, in their order.
    ahead: VecDeque<Ahead>,
    ahead_bytes: u64,
    /// An object that is not read to its end.
    open: Option<OpenObject>,
    /// How many groups of the piece at `offset` were read, if the object has identities.
    groups_read: u64,
    /// Such an object that is not read to its end.
    raw: Option<RawObject>,
    known: watch::Receiver<Known>,
    _leading: Option<Leading>,
}

/// An object that is being read, unless it is a large one.
struct Ahead {
    number: u64,
    object: Object,
    reading: Option<Reading>,
}

/// Ends when it is dropped.
struct Reading(JoinHandle<Result<Part, SourceError>>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The text of an object, and what went wrong with reading a part of it.
struct OpenObject {
    object: Object,
    text: Box<CompleteText>,
    is_inline: bool,
    failure: Arc<Mutex<Option<Failure>>>,
}

/// Why a part of an object could not be read.
#[derive(Debug, Clone)]
enum Failure {
    /// The object is not what was listed, permanently.
    Lost(&'static str),
    Error(SourceError),
}

const GONE: &str = "an object was deleted after it was listed, before it was read to its end";
const CHANGED: &str = "an object was overwritten after it was listed, before it was read to its end";

/// What there is to read next.
enum Next {
    Object,
    /// Nothing for now, although there may be more.
    NotYet,
    Tip,
}

impl ObjectsReader {
    /// Opens a shard after a position.
    ///
    /// # Errors
    /// There is no such shard or position, or the lake cannot be read.
    pub(super) async fn open(shared: Arc<Shared>, shard: &ShardId, after: &Position) -> Result<Self, SourceError> {
        let index = index_of(shard).filter(|index| *index < shared.shards());
        let index = index.ok_or_else(|| shared.unreadable(format!("it has no shard {shard}")))?;
        let (number, offset) =
            next_of(after).ok_or_else(|| shared.unreadable(format!("{after} is not a valid position in objects")))?;
        let latest = shared.catalog.latest().await?;
        shared.found_entries(latest);
        let at = if number == 1 { 0 } else { shared.catalog.find(index, number, latest).await? };
        let mut reader = ObjectsReader {
            index,
            stream: shared.stream.as_str().into(),
            shard: shard.as_str().into(),
            number,
            offset,
            entry: at.saturating_sub(1),
            queue: VecDeque::new(),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            open: None,
            groups_read: groups_of(after),
            raw: None,
            known: shared.known.subscribe(),
            _leading: (index == 0).then(|| Leading::new(&shared)),
            shared,
        };
        if at > 0 {
            reader.load_entry().await?;
        }
        Ok(reader)
    }

    /// Queues the objects of the next entry. Returns false if there is none.
    async fn load_entry(&mut self) -> Result<bool, SourceError> {
        let Some(entry) = self.shared.catalog.entry(self.entry + 1).await? else { return Ok(false) };
        let from = self.number;
        let objects = entry.of_shard(self.index).filter(|(number, _)| *number >= from);
        self.queue.extend(objects.map(|(number, object)| (number, object.clone())));
        self.entry += 1;
        Ok(true)
    }

    /// Begins to read objects ahead, as many as there may be at the same time.
    async fn read_ahead(&mut self) -> Result<Next, SourceError> {
        while self.ahead.len() < READS && self.ahead_bytes < AHEAD_BYTES {
            let Some((number, object)) = self.queue.pop_front() else {
                if self.may_load().await? && self.load_entry().await? {
                    continue;
                }
                break;
            };
            let mut ahead = Ahead { number, object, reading: None };
            self.begin(&mut ahead);
            self.ahead.push_back(ahead);
        }
        Ok(match self.known.borrow().clone() {
            _ if self.open.is_some() || self.raw.is_some() || !self.ahead.is_empty() => Next::Object,
            // What failed is repeated, and may find more.
            Known { error: Some(error), .. } => return Err(error),
            Known { last: Some(last), .. } if self.entry >= last => Next::Tip,
            _ if self.shared.config.complete => Next::NotYet,
            _ => Next::Tip,
        })
    }

    /// Waits until more is known than at the last call.
    async fn changed(&mut self) {
        let mut changed = std::pin::pin!(self.shared.changes.notified());
        changed.as_mut().enable();
        // The sender is in `shared`, so it is not gone.
        if !self.known.has_changed().unwrap_or(true) {
            changed.await;
        }
        self.known.mark_unchanged();
    }

    /// Whether the next entry may be read now: it exists, and it is not after what is to be read.
    async fn may_load(&mut self) -> Result<bool, SourceError> {
        let next = self.entry + 1;
        if next > self.known.borrow().entries && !self.shared.config.complete && !self.shared.lists() {
            self.shared.look_for_entries().await?;
        }
        let known = self.known.borrow();
        Ok(next <= known.entries && known.last.is_none_or(|last| next <= last))
    }

    /// Begins to read a small object.
    fn begin(&mut self, ahead: &mut Ahead) {
        if ahead.object.bytes > SMALL_BYTES || ahead.reading.is_some() {
            return;
        }
        self.ahead_bytes += ahead.object.bytes;
        let (place, object) = (Arc::clone(&self.shared.place), ahead.object.clone());
        ahead.reading = Some(Reading(tokio::spawn(async move { place.get(&object, None).await })));
    }

    /// Opens the next object, if it still is what was listed. Returns false if it was lost. After an error the same object is next.
    async fn open_next(&mut self) -> Result<bool, SourceError> {
        let Some(mut next) = self.ahead.pop_front() else { return Ok(false) };
        // It is not being read if it is large, or if reading it has failed.
        self.begin(&mut next);
        let opened = self.open_object(&mut next).await;
        if opened.is_err() {
            self.ahead.push_front(next);
        }
        opened
    }

    async fn open_object(&mut self, next: &mut Ahead) -> Result<bool, SourceError> {
        if next.number != self.number {
            let problem = format!("object {} of shard {} comes after object {}", next.number, self.shard, self.number);
            return Err(self.shared.unreadable(problem));
        }
        let object = next.object.clone();
        let part = match next.reading.take() {
            Some(mut reading) => {
                self.ahead_bytes = self.ahead_bytes.saturating_sub(object.bytes);
                (&mut reading.0).await.unwrap_or_else(|error| {
                    let place = format!("stream {}", self.shared.stream);
                    Err(SourceError::Unavailable { place, problem: error.to_string() })
                })
            }
            None => self.shared.place.get(&object, Some(0..PART_BYTES.min(object.bytes))).await,
        };
        let first = match part? {
            Part::Bytes(bytes) => bytes,
            Part::Gone => return self.lose(&object, GONE).await.map(|()| false),
            Part::Changed => return self.lose(&object, CHANGED).await.map(|()| false),
        };
        if has_identities(&first) {
            let record_bytes_max = self.shared.config.text.record_bytes_max;
            self.raw = Some(RawObject::new(object, first, self.offset, record_bytes_max));
            return Ok(true);
        }
        self.open_text(object, first).await
    }

    /// Opens an object as a text. Returns false if it was lost.
    async fn open_text(&mut self, object: Object, first: Bytes) -> Result<bool, SourceError> {
        match OpenObject::new(&self.shared, object.clone(), first, (self.number, self.offset)).await {
            Ok(open) => self.open = Some(open),
            Err(Failure::Lost(problem)) => return self.lose(&object, problem).await.map(|()| false),
            Err(Failure::Error(error)) => return Err(error),
        }
        Ok(true)
    }

    /// Notes that an object is lost, and continues after it.
    async fn lose(&mut self, object: &Object, problem: &'static str) -> Result<(), SourceError> {
        self.shared.lose(object, problem).await?;
        self.begin_next();
        Ok(())
    }

    /// Continues at the beginning of the next object.
    fn begin_next(&mut self) {
        (self.number, self.offset, self.groups_read) = (self.number + 1, 0, 0);
    }

    /// Reads the open object into a batch. Returns false in the middle of a record that is too long, where a chunk cannot end.
    async fn read_open(&mut self, batch: Batch, bytes: usize) -> Result<(Batch, bool), SourceError> {
        let Some(OpenObject { object, mut text, is_inline, failure }) = self.open.take() else {
            return Ok((batch, true));
        };
        let mut batch = batch;
        let step = if is_inline {
            text.read_into(&mut batch, bytes)
        } else {
            let work = move || {
                let step = text.read_into(&mut batch, bytes);
                (text, batch, step)
            };
            let done = tokio::task::spawn_blocking(work).await;
            let step;
            (text, batch, step) = done.map_err(|error| self.shared.unreadable(error.to_string()))?;
            step
        };
        let failed = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        let step = match (step, failed) {
            (_, Some(Failure::Lost(problem))) => {
                self.lose(&object, problem).await?;
                return Ok((batch, true));
            }
            (_, Some(Failure::Error(error))) => return Err(error),
            (Err(error), None) => return Err(self.shared.unreadable(error.to_string())),
            (Ok(step), None) => step,
        };
        match step {
            Step::Done => {
                self.begin_next();
                return Ok((batch, true));
            }
            Step::More(offset) => self.offset = offset,
            Step::Skipping => {}
        }
        self.open = Some(OpenObject { object, text, is_inline, failure });
        Ok((batch, !matches!(step, Step::Skipping)))
    }
}

impl OpenObject {
    /// The text of an object from an offset. `first`: its first bytes, or all of them.
    async fn new(
        shared: &Arc<Shared>,
        object: Object,
        first: Bytes,
        (number, offset): (u64, u64),
    ) -> Result<OpenObject, Failure> {
        let named = kind_of(name_of(&object.key)).map_or(Codec::Plain, |(_, codec)| codec);
        let codec = codec_by_content(named, &first[..first.len().min(64)]);
        let failure = Arc::new(Mutex::new(None));
        let is_whole = first.len() as u64 >= object.bytes;
        let is_inline = is_whole && first.len() <= INLINE_BYTES;
        let now = shared.clock.now_ms();
        let arrival = arrival_of(arrival_ms(&object.key, object.modified_ms), now);
        let at = if codec == Codec::Plain { offset } else { 0 };
        let parts = Parts {
            shared: Arc::clone(shared),
            object: object.clone(),
            at: at.min(object.bytes),
            begin: 0,
            part: first,
            failure: Arc::clone(&failure),
        };
        let open = move || TextReader::new(parts, codec, offset);
        let opened = match is_inline {
            true => open(),
            // Compressed content is decompressed up to the offset.
            false => tokio::task::spawn_blocking(open).await.unwrap_or_else(|error| Err(io::Error::other(error))),
        };
        let failed = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        let text = match (opened, failed) {
            (_, Some(failed)) => return Err(failed),
            (Err(error), None) => return Err(Failure::Error(shared.unreadable(error.to_string()))),
            (Ok(text), None) => text,
        };
        let text = CompleteText::new(text, number, arrival, shared.config.text);
        let text = Box::new(text.with_failures(has_failures(&object.key)));
        Ok(OpenObject { object, text, is_inline, failure })
    }
}

/// The bytes of an object, of which one part at a time is in memory. It blocks, on the blocking pool, if the object has several.
struct Parts {
    shared: Arc<Shared>,
    object: Object,
    /// The next byte.
    at: u64,
    /// Where `part` begins in the object.
    begin: u64,
    part: Bytes,
    failure: Arc<Mutex<Option<Failure>>>,
}

impl Parts {
    fn fetch(&mut self) -> Result<(), Failure> {
        let end = (self.at + PART_BYTES).min(self.object.bytes);
        let read = self.shared.runtime.block_on(self.shared.place.get(&self.object, Some(self.at..end)));
        match read {
            Ok(Part::Bytes(part)) => (self.begin, self.part) = (self.at, part),
            Ok(Part::Gone) => return Err(Failure::Lost(GONE)),
            Ok(Part::Changed) => return Err(Failure::Lost(CHANGED)),
            Err(error) => return Err(Failure::Error(error)),
        }
        Ok(())
    }
}

impl io::Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.object.bytes || buffer.is_empty() {
            return Ok(0);
        }
        let is_here = (self.begin..self.begin + self.part.len() as u64).contains(&self.at);
        if !is_here && let Err(failure) = self.fetch() {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            // Not one of the kinds by which a decoder reports damage.
            return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
        }
        let skip = usize::try_from(self.at - self.begin).unwrap_or(usize::MAX);
        let read = self.part.slice(skip.min(self.part.len())..).reader().read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[async_trait]
impl ShardReader for ObjectsReader {
    async fn ready(&mut self, idle: Duration) {
        let is_waiting = self.open.is_none() && self.raw.is_none() && self.ahead.is_empty() && self.queue.is_empty();
        if idle.is_zero() || !is_waiting {
            return;
        }
        // Ends early if something was found.
        let _ = tokio::time::timeout(idle, self.changed()).await;
    }

    async fn read(&mut self, bytes: usize, buffer: Vec<u8>) -> Result<Read, SourceError> {
        match self.read_ahead().await? {
            Next::Object => {}
            Next::Tip => return Ok(Read::AtTip),
            Next::NotYet => {
                let _ = tokio::time::timeout(WAIT_FOR_LIST, self.changed()).await;
                return Ok(Read::Empty { moved: false });
            }
        }
        let begun = Instant::now();
        let (from, mut batch) = ((self.number, self.offset), Batch::new(buffer));
        let mut may_end = true;
        while self.raw.is_none()
            && (!may_end || (batch.buffer.len() < bytes && !batch.is_full && begun.elapsed() < COLLECT_FOR))
        {
            let has_more = match (&self.open, self.ahead.front()) {
                (Some(_), _) => true,
                (None, Some(_)) => match self.open_next().await {
                    Ok(opened) => opened,
                    // What was collected is returned. The next read reports what fails then.
                    Err(error) if (self.number, self.offset) == from => return Err(error),
                    Err(_) => break,
                },
                (None, None) => break,
            };
            if has_more && self.raw.is_none() {
                let before = (self.number, self.offset);
                match self.read_open(batch, bytes).await {
                    Ok(read) => (batch, may_end) = read,
                    Err(error) => {
                        // The batch is gone: reading begins again after the last chunk.
                        tracing::debug!(stream = %self.shared.stream, number = before.0, %error, "failed to read an object");
                        return Err(error);
                    }
                }
            }
            // In the middle of a record that is too long, its end comes first.
            if let Err(error) = self.read_ahead().await
                && may_end
            {
                if (self.number, self.offset) == from {
                    return Err(error);
                }
                break;
            }
        }
        // An object with identities has chunks of its own. What was collected before it is returned first.
        if self.raw.is_some() && (self.number, self.offset) == from {
            if let Some(read) = self.read_raw().await? {
                return Ok(read);
            }
            if (self.number, self.offset) == from {
                return Ok(Read::Empty { moved: false });
            }
        }
        let source_bytes = batch.source_bytes;
        let through = position_before(self.number, self.offset);
        let names = (Arc::clone(&self.stream), Arc::clone(&self.shard));
        let chunk = batch.into_chunk(names, self.shared.config.text, self.shared.clock.now_ms());
        Ok(Read::Chunk { chunk, through, source_bytes })
    }
}
