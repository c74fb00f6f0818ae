//! A file of lines as a shard.
//!
//! Owns: following a file whatever happens to its name, and its end: what is waited for, what is final, what is lost. Does not own:
//! cutting the text into records (`lines`), reading bytes (`input`), which file belongs to the shard (`matching`).
//!
//! | what happens | what the reader does |
//! | --- | --- |
//! | the file is renamed | continues |
//! | it is overwritten or cut, and begins with other content | ends; the new content is another shard. Bytes that were seen and not read are a loss, unless a copy of the old file is found |
//! | it is shorter than what was read, and begins as before | an error, until somebody decides |
//! | it is gone | reads the open file until it has not changed for a while, then ends. Bytes that were not read are a loss |
//! | a compressed file ends unexpectedly | waits until it has not changed for a while, then reports the damage |

use std::sync::Arc;

use async_trait::async_trait;
use checkpoints::{Position, SequenceNumber, ShardId, StreamName};
use pipeline::chunk::{Chunk, Framing};
use tokio::time::{Duration, Instant};

use crate::source::files::catalog::{FileRecord, Place, State};
use crate::source::files::identity::{Head, Likeness, Stat};
use crate::source::files::input::{Fate, Input, Part};
use crate::source::files::lines::{Cutter, Outcome, Probe};
use crate::source::files::list::{Codec, kind_of};
use crate::source::files::{Shared, blocking};
use crate::source::losses::Then;
use crate::source::{Behind, Read, ShardReader, SourceError};

/// How often a reader at the tip checks that its file still has its name.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Reads a file of lines.
pub(super) struct LinesReader {
    shared: Arc<Shared>,
    shard: ShardId,
    /// Where reading continues in the text.
    offset: u64,
    /// Nothing of the shard was read when it was opened.
    is_new: bool,
    state: ReaderState,
    place: Option<Place>,
    checked_at: Instant,
    /// Since when the file is gone, or shorter than it was, without a change.
    odd_since: Option<Instant>,
}

enum ReaderState {
    Reading(Box<Cutter>),
    /// The file exists, and is not read yet.
    Waiting,
    /// The file will not be read further. The rest of a last line is still to be returned.
    Last(Vec<u8>),
    Ended,
    /// A read was dropped while it ran.
    Dropped,
}

/// The offset after a position in a file of lines.
pub(super) fn offset_of(position: &Position) -> Option<u64> {
    match position {
        Position::Beginning => Some(0),
        Position::At { sequence, .. } => sequence.as_str().parse::<u64>().ok()?.checked_add(1),
        Position::Since { .. } | Position::Latest | Position::End => None,
    }
}

/// The position after which the text begins at this offset.
pub(super) fn position_before(offset: u64) -> Position {
    match offset.checked_sub(1) {
        Some(last) => Position::at(SequenceNumber::from(last)),
        None => Position::Beginning,
    }
}

/// How much of a file comes after a position.
pub(super) async fn behind(shared: &Arc<Shared>, shard: &ShardId, position: &Position) -> Result<Behind, SourceError> {
    let offset = offset_of(position).unwrap_or(u64::MAX);
    if shared.catalog.find(shard).1.is_none() {
        shared.look_up_once().await?;
    }
    let (codec, bytes) = match shared.catalog.find(shard) {
        (Some(record), Some(place)) => {
            let now = blocking(&shared.stream, move || std::fs::metadata(place.path)).await;
            let bytes = now.map_or(place.stat.bytes, |metadata| metadata.len());
            (record.codec, bytes.min(record.limit().unwrap_or(u64::MAX)).saturating_sub(record.from))
        }
        (Some(_), None) => return Ok(Behind::Nothing),
        (None, _) => {
            let Some(path) = shared.root.path_of(shard.as_str()) else { return Ok(Behind::Nothing) };
            let codec =
                path.file_name().and_then(|name| kind_of(name.to_str()?)).map_or(Codec::Plain, |(_, codec)| codec);
            let metadata = blocking(&shared.stream, move || std::fs::metadata(path)).await;
            (codec, metadata.map_or(0, |metadata| metadata.len()))
        }
    };
    let bytes =
        if codec == Codec::Plain { shared.bound(shard, bytes).map_or(bytes, |bound| bytes.min(bound)) } else { bytes };
    Ok(match codec {
        // The text left in a compressed file is unknown. It has been read when its shard has ended.
        Codec::Gzip | Codec::Zstd => Behind::Bytes(if offset == 0 { bytes } else { bytes / 2 + 1 }),
        Codec::Plain if offset >= bytes => Behind::Nothing,
        Codec::Plain => Behind::Bytes(bytes - offset),
    })
}

impl LinesReader {
    pub(super) async fn open(shared: Arc<Shared>, shard: ShardId, after: &Position) -> Result<Self, SourceError> {
        let offset = offset_of(after).ok_or_else(|| SourceError::Unreadable {
            place: shared.place_of(&shard),
            problem: format!("{after} is not a valid position in a file"),
        })?;
        let mut reader = LinesReader {
            shared,
            shard,
            offset,
            is_new: after.is_start(),
            state: ReaderState::Waiting,
            place: None,
            checked_at: Instant::now(),
            odd_since: None,
        };
        reader.open_file(Vec::new()).await?;
        Ok(reader)
    }

    /// Opens the file at the offset, wherever it is now. `carry`: the beginning of a line that follows, as it was read before.
    async fn open_file(&mut self, carry: Vec<u8>) -> Result<(), SourceError> {
        let since = Instant::now();
        for is_again in [false, true] {
            if is_again {
                self.shared.rescan(since).await?;
            }
            let (Some(record), Some(place)) = self.shared.catalog.find(&self.shard) else { continue };
            if record.state == State::Cut && !self.decided().await? {
                return Ok(());
            }
            let (root, path, offset) = (self.shared.root.clone(), place.path.clone(), self.offset);
            let part = Part { codec: record.codec, from: record.from, limit: record.limit() };
            let head = record.head.clone();
            let opened = blocking(&self.shared.place_of(&self.shard), move || {
                let mut input = match root.inside(&path).and_then(|real| Input::open(&real, part, offset)) {
                    Ok(input) => input,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error),
                };
                let fate = input.check(&head)?;
                Ok(Some((input, fate)))
            })
            .await?;
            match opened {
                Some((input, Fate::Same)) => {
                    self.odd_since = None;
                    self.place = Some(place);
                    let bytes = input.stat().map_or(u64::MAX, |stat| stat.bytes.saturating_sub(part.from));
                    self.shared.bound(&self.shard, bytes);
                    let cutter = Cutter::new(input, &self.shared, &self.shard, record.head.clone());
                    self.state = ReaderState::Reading(Box::new(cutter));
                    return Ok(());
                }
                Some((input, Fate::Cut)) if part.codec == Codec::Plain => {
                    let bytes = input.stat().map_or(0, |stat| stat.bytes);
                    return Err(self.cut(bytes).await?);
                }
                _ => {}
            }
        }
        self.end_without_file(carry, 0).await
    }

    /// Somebody may have decided about a file that was cut. Returns false if it is another file now: the shard has ended.
    async fn decided(&mut self) -> Result<bool, SourceError> {
        match self.shared.unclear(&self.shard, "the file was shorter than what had been read").await? {
            Then::Position => {
                self.shared.catalog.change(&self.shard, |record| record.state = State::Open).await?;
                Ok(true)
            }
            Then::Start => {
                self.shared.catalog.change(&self.shard, |record| record.state = State::Closed).await?;
                self.state = ReaderState::Ended;
                Ok(false)
            }
        }
    }

    /// The file is shorter than what was read, and begins as before.
    async fn cut(&mut self, bytes: u64) -> Result<SourceError, SourceError> {
        self.shared.catalog.change(&self.shard, |record| record.state = State::Cut).await?;
        let problem = format!(
            "the file has {bytes} bytes, but {} were read before, and it begins as before: it was cut, or an older copy was restored",
            self.offset
        );
        self.shared.report_unclear(&self.shard, &problem).await
    }

    /// The file of the shard is not there. `carry`: the beginning of a line that nobody will end. `seen`: bytes of the file that this
    /// reader knows of.
    async fn end_without_file(&mut self, carry: Vec<u8>, seen: u64) -> Result<(), SourceError> {
        let (record, _) = self.shared.catalog.find(&self.shard);
        if record.is_none() && self.exists().await? {
            if let Some(error) = self.shared.recording_error() {
                return Err(error);
            }
            self.state = ReaderState::Waiting;
            return Ok(());
        }
        let end = self.offset + carry.len() as u64;
        let lost = match record.as_deref() {
            None => self.is_new.then(|| "the file is gone, and nothing of it was read".to_owned()),
            Some(FileRecord { codec: Codec::Plain, state: State::Closed, .. }) => None,
            Some(FileRecord { codec: Codec::Plain, from, state, bytes, .. }) => {
                // What follows the end of a shard that has ended is another one's.
                let seen = match state {
                    State::Ended => *bytes,
                    _ => self.shared.catalog.seen_bytes(&self.shard).max(seen),
                };
                let lost = seen.saturating_sub(from + self.offset);
                (seen > from + end)
                    .then(|| format!("the file is gone or was overwritten, and {lost} bytes of it were not read"))
            }
            Some(_) => Some("the compressed file is gone, and was not read to its end".to_owned()),
        };
        if let Some(problem) = &lost {
            self.shared.lost(&self.shard, problem).await?;
        }
        self.shared
            .catalog
            .change(&self.shard, |record| {
                if record.codec == Codec::Plain && record.state != State::Closed {
                    (record.state, record.bytes) = (State::Ended, record.from + end);
                } else if end == 0 {
                    record.state = State::Closed;
                }
            })
            .await?;
        self.state = if carry.trim_ascii().is_empty() { ReaderState::Ended } else { ReaderState::Last(carry) };
        Ok(())
    }

    /// Whether there is a file that is not recorded, and may be read later.
    async fn exists(&mut self) -> Result<bool, SourceError> {
        let place = self.shared.place_of(&self.shard);
        let Some(path) = self.shared.root.path_of(self.shard.as_str()) else {
            let problem = "there is no such file or folder in the source".to_owned();
            return Err(SourceError::Unreadable { place, problem });
        };
        let root = self.shared.root.clone();
        blocking(&place, move || match root.inside(&path).and_then(std::fs::File::open) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        })
        .await
    }

    /// Takes the cutter's outcome into account; `None` if it must be called again.
    async fn on_outcome(&mut self, mut cutter: Box<Cutter>, outcome: Outcome) -> Result<Option<Read>, SourceError> {
        match outcome {
            Outcome::Skipping => {}
            Outcome::Read(read) => {
                self.offset = cutter.base();
                self.odd_since = None;
                if cutter.needs_head()
                    && let Some(head) = self.extend_head(cutter.probe(&self.shared)?).await?
                {
                    cutter.head = head;
                }
                self.shared.unread.clear(self.shard.as_str());
                self.state = ReaderState::Reading(cutter);
                return Ok(Some(read));
            }
            Outcome::Ended => {
                self.shared.unread.clear(self.shard.as_str());
                self.state = ReaderState::Ended;
                return Ok(Some(Read::End { children: Vec::new() }));
            }
            Outcome::AtTip { unread } => {
                self.note_unread(unread);
                return self.at_tip(cutter).await;
            }
            Outcome::Damaged => return self.on_damage(cutter).await,
            Outcome::Changed(fate) => {
                let is_plain = cutter.part().codec == Codec::Plain;
                (self.offset, self.state) = (cutter.base(), ReaderState::Waiting);
                if fate == Fate::Cut && is_plain {
                    let (stat, _, likeness) = cutter.probe(&self.shared)?.first(&self.shared).await?;
                    let since = *self.odd_since.get_or_insert_with(Instant::now);
                    let is_undecided = likeness == Likeness::Shorter && !self.shared.config.complete;
                    if is_undecided && since.elapsed() < self.shared.config.settle {
                        // A few bytes of a new file may be equal. More of them will decide.
                        self.state = ReaderState::Reading(cutter);
                        return Ok(Some(Read::AtTip));
                    }
                    return Err(self.cut(stat.bytes).await?);
                }
                tracing::info!(stream = %self.shared.stream, shard = %self.shard, "the file was overwritten; reading what it has now as another file");
                let (seen, carry) = (cutter.seen_bytes(), cutter.into_carry());
                self.shared.scan().await?;
                if is_plain && self.shared.catalog.find(&self.shard).1.is_none() {
                    self.end_without_file(carry, seen).await?;
                } else {
                    self.open_file(carry).await?;
                }
                return Ok(None);
            }
        }
        self.state = ReaderState::Reading(cutter);
        Ok(None)
    }

    /// Stores more of the file's beginning, before the position may be in it.
    async fn extend_head(&mut self, probe: Probe) -> Result<Option<Head>, SourceError> {
        let (stat, first, likeness) = probe.first(&self.shared).await?;
        if likeness != Likeness::Same {
            // The next read finds that the file has changed.
            return Ok(None);
        }
        let head = Head::of(&first);
        self.shared
            .catalog
            .change(&self.shard, |record| {
                if record.state == State::Open {
                    (record.head, record.bytes, record.modified) = (head.clone(), stat.bytes, stat.modified);
                }
            })
            .await?;
        Ok(Some(head))
    }

    /// Says what a run that ends at the tip leaves unread.
    fn note_unread(&self, unread: u64) {
        if unread > 0 && self.shared.config.complete {
            let why = format!("its last line ({unread} bytes) has no line end and is not a complete JSON document");
            self.shared.unread.leave(self.shard.as_str(), &why);
        } else {
            self.shared.unread.clear(self.shard.as_str());
        }
    }

    /// If everything was read that the file had when it was opened, and reading ends there: a handle of the file, and where it ended.
    fn at_bound(&self, cutter: &Cutter) -> Result<Option<(Probe, u64)>, SourceError> {
        let (part, base) = (cutter.part(), cutter.base());
        let bound = if part.codec == Codec::Plain { self.shared.bound(&self.shard, u64::MAX) } else { None };
        let is_at_bound = bound.is_some_and(|bound| base >= bound);
        if is_at_bound { Ok(Some((cutter.probe(&self.shared)?, part.from + base))) } else { Ok(None) }
    }

    /// There is nothing more to read for now. The file may have been renamed or removed.
    async fn at_tip(&mut self, cutter: Box<Cutter>) -> Result<Option<Read>, SourceError> {
        let config = &self.shared.config;
        let is_due = config.complete || self.checked_at.elapsed() >= CHECK_EVERY;
        if is_due && !self.has_its_name(cutter.probe(&self.shared)?).await? {
            self.checked_at = Instant::now();
            // If many files are gone at once, one scan a second shows it for all of them.
            let since = Instant::now().checked_sub(CHECK_EVERY).unwrap_or_else(Instant::now);
            self.shared.rescan(since).await?;
            let own = cutter.probe(&self.shared)?.stat(&self.shared).await?;
            if let (_, Some(place)) = self.shared.catalog.find(&self.shard) {
                if !place.stat.is_same_inode(&own) {
                    // Everything of the open file was read. The rest, if there is more, is in a copy of it.
                    self.offset = cutter.base();
                    self.open_file(cutter.into_carry()).await?;
                    return Ok(None);
                }
                (self.place, self.odd_since) = (Some(place), None);
            } else {
                let since = *self.odd_since.get_or_insert_with(Instant::now);
                if self.shared.config.complete || since.elapsed() >= self.shared.config.patience {
                    let (seen, carry) = (cutter.seen_bytes(), cutter.into_carry());
                    self.end_without_file(carry, seen).await?;
                    return Ok(None);
                }
            }
        } else if is_due {
            self.checked_at = Instant::now();
        }
        self.state = ReaderState::Reading(cutter);
        Ok(Some(Read::AtTip))
    }

    async fn has_its_name(&mut self, open: Probe) -> Result<bool, SourceError> {
        let Some(path) = self.place.as_ref().map(|place| place.path.clone()) else { return Ok(false) };
        let own = open.stat(&self.shared).await?;
        blocking(&self.shared.place_of(&self.shard), move || match std::fs::metadata(path) {
            Ok(metadata) => Ok(Stat::of(&metadata).is_same_inode(&own)),
            Err(_) => Ok(false),
        })
        .await
    }

    /// The compressed content is damaged here. It may still be arriving.
    async fn on_damage(&mut self, mut cutter: Box<Cutter>) -> Result<Option<Read>, SourceError> {
        let config = &self.shared.config;
        let stat = cutter.probe(&self.shared)?.stat(&self.shared).await?;
        let limit = cutter.part().limit.unwrap_or(0);
        let is_last = self.shared.catalog.find(&self.shard).0.is_some_and(|record| record.bytes == limit);
        if stat.bytes > limit && is_last {
            let tail = cutter.probe(&self.shared)?.tail(&self.shared, stat.bytes).await?;
            self.shared
                .catalog
                .change(&self.shard, |record| {
                    (record.bytes, record.modified, record.tail) = (stat.bytes, stat.modified, tail);
                })
                .await?;
            self.offset = cutter.base();
            self.state = ReaderState::Waiting;
            self.open_file(Vec::new()).await?;
            return Ok(None);
        }
        let age = config.clock.now_ms().saturating_sub(stat.modified_ms);
        let within = if config.complete { config.settle } else { config.patience };
        if age >= 0 && age < i64::try_from(within.as_millis()).unwrap_or(i64::MAX) {
            let why = "it is compressed, ends unexpectedly, and was changed just now";
            self.shared.unread.leave(self.shard.as_str(), why);
            self.state = ReaderState::Reading(cutter);
            return Ok(Some(Read::AtTip));
        }
        self.shared.catalog.change(&self.shard, |record| record.state = State::Damaged).await?;
        self.shared.unread.clear(self.shard.as_str());
        let read = cutter.damaged();
        self.state = ReaderState::Reading(cutter);
        Ok(Some(read))
    }

    /// The rest of a file that nobody will continue.
    fn last(&mut self, rest: Vec<u8>) -> Read {
        let through = position_before(self.offset + rest.len() as u64);
        let (stream, shard): (&StreamName, &ShardId) = (&self.shared.stream, &self.shard);
        let now = self.shared.config.clock.now_ms();
        let framing = Framing::Lines { base: self.offset };
        let chunk = Chunk::new(stream.as_str().into(), shard.as_str().into(), now, rest, framing);
        let chunk = chunk.with_documents(self.shared.config.documents);
        Read::Chunk { chunk, through, source_bytes: 0 }
    }
}

#[async_trait]
impl ShardReader for LinesReader {
    async fn read(&mut self, bytes: usize, buffer: Vec<u8>) -> Result<Read, SourceError> {
        let mut buffer = Some(buffer);
        loop {
            match std::mem::replace(&mut self.state, ReaderState::Dropped) {
                ReaderState::Ended => {
                    self.state = ReaderState::Ended;
                    return Ok(Read::End { children: Vec::new() });
                }
                ReaderState::Last(rest) => {
                    let read = self.last(rest);
                    self.state = ReaderState::Ended;
                    return Ok(read);
                }
                ReaderState::Dropped => {
                    let (place, problem) =
                        (self.shared.place_of(&self.shard), "an earlier read was dropped".to_owned());
                    return Err(SourceError::Unavailable { place, problem });
                }
                ReaderState::Waiting => {
                    self.state = ReaderState::Waiting;
                    if self.checked_at.elapsed() < CHECK_EVERY {
                        return Ok(Read::AtTip);
                    }
                    self.checked_at = Instant::now();
                    self.open_file(Vec::new()).await?;
                    if matches!(self.state, ReaderState::Waiting) {
                        return Ok(Read::AtTip);
                    }
                }
                ReaderState::Reading(mut cutter) => {
                    if let Some((probe, end)) = self.at_bound(&cutter)?
                        && probe.stat(&self.shared).await?.bytes > end
                    {
                        self.shared.unread.clear(self.shard.as_str());
                        match self.at_tip(cutter).await? {
                            Some(read) => return Ok(read),
                            None => continue,
                        }
                    }
                    let buffer = buffer.take();
                    let outcome;
                    (cutter, outcome) = blocking(&self.shared.place_of(&self.shard), move || {
                        let outcome = cutter.next(bytes, buffer.unwrap_or_default())?;
                        Ok((cutter, outcome))
                    })
                    .await?;
                    if let Some(read) = self.on_outcome(cutter, outcome).await? {
                        return Ok(read);
                    }
                }
            }
        }
    }
}
