//! All `.json` files of one folder as a shard.
//!
//! Owns: which file is read next, and whether a file is one document or lines. Does not own: which files get numbers (`numbering`),
//! keeping the numbers (`registry`).
//!
//! A file may have many documents (`pipeline::documents`). If its source says that each record is one document, a file is one
//! document unless its first line is a whole document by itself or another line begins with `{`. Limit: a file larger than a record
//! may be is then read as lines.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use checkpoints::{Position, SequenceNumber, ShardId};
use pipeline::chunk::{Chunk, Damage, Framing, Text};
use pipeline::documents::{Skipper, cut};
use tokio::time::{Duration, Instant};

use crate::source::files::identity::{Stat, codec_by_content, read_range};
use crate::source::files::input::{Filled, Input, Part};
use crate::source::files::list::{Codec, inside, kind_of};
use crate::source::files::numbering::{Numbering, Patience, compare, unnumbered};
use crate::source::files::registry::{Mark, NumberedFile, Registry};
use crate::source::files::unread::is_closed;
use crate::source::files::{FilesConfig, Shared, blocking};
use crate::source::{Behind, Read, ShardReader, SourceError};

/// A sequence number is the file's number times this, plus the offset in the file.
const FILE: u64 = 1_000_000_000_000;
/// Bytes of a line that is too long that are skipped at once: there are few threads for files.
pub(super) const SKIP_BYTES: u64 = 32 << 20;
/// The offset that means that a file was read to its end.
const DONE: u64 = FILE - 1;

/// How often files that have numbers are compared with what they were.
const COMPARE_EVERY: Duration = Duration::from_secs(5);

/// A folder at or below the root of its source.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) root: PathBuf,
    pub(super) path: PathBuf,
}

/// Reads the `.json` files of a folder.
pub(super) struct FolderReader {
    folder: Folder,
    registry: Registry,
    stream: Arc<str>,
    shard: Arc<str>,
    place: String,
    config: FilesConfig,
    /// The file to read next, and the offset in it.
    number: u64,
    offset: u64,
    /// A file of lines that is being read.
    open: Option<Box<OpenFile>>,
    shared: Arc<Shared>,
    /// Files that have another time than when they were numbered, and the same content.
    touched: HashMap<String, Stat>,
    compared_at: Option<Instant>,
}

/// File number and offset of the next byte.
fn next_of(position: &Position) -> Option<(u64, u64)> {
    match position {
        Position::Beginning => Some((1, 0)),
        Position::At { sequence, .. } => {
            let at = sequence.as_str().parse::<u64>().ok()?;
            Some(if at % FILE == DONE { (at / FILE + 1, 0) } else { (at / FILE, at % FILE + 1) })
        }
        Position::Since { .. } | Position::Latest | Position::End => None,
    }
}

/// How much of a folder comes after a position.
pub(super) async fn behind(
    shared: &Shared,
    folder: Folder,
    shard: &ShardId,
    position: &Position,
) -> Result<Behind, SourceError> {
    let Some((number, _)) = next_of(position) else { return Ok(Behind::Nothing) };
    let mut registry = shared.registry(shard);
    registry.forget_before(number);
    registry.load().await?;
    let unread: HashMap<String, u64> = (number..=registry.len())
        .filter_map(|number| registry.file(number))
        .map(|file| (file.name.clone(), file.from))
        .collect();
    let known = registry.known();
    let left = blocking(&shared.stream, move || unnumbered(&folder, &known, &unread)).await?;
    Ok(if left == 0 { Behind::Nothing } else { Behind::Bytes(left) })
}

impl FolderReader {
    pub(super) async fn open(
        folder: Folder,
        shared: Arc<Shared>,
        shard: ShardId,
        after: &Position,
    ) -> Result<Self, SourceError> {
        let place = shared.place_of(&shard);
        let (number, offset) = next_of(after).ok_or_else(|| SourceError::Unreadable {
            place: place.clone(),
            problem: format!("{after} is not a valid position in a folder"),
        })?;
        let mut registry = shared.registry(&shard);
        registry.forget_before(number);
        registry.load().await?;
        Ok(FolderReader {
            folder,
            registry,
            stream: shared.stream.as_str().into(),
            shard: shard.as_str().into(),
            place,
            config: shared.config.clone(),
            shared,
            number,
            offset,
            open: None,
            touched: HashMap::new(),
            compared_at: None,
        })
    }

    /// Gives numbers to files that are new, replaced or grown.
    async fn number_new_files(&mut self) -> Result<(), SourceError> {
        let (folder, known, touched) = (self.folder.clone(), self.registry.known(), self.touched.clone());
        let checks_known = self.compared_at.is_none_or(|at| at.elapsed() >= COMPARE_EVERY);
        let patience_ms = i64::try_from(self.config.patience.as_millis()).unwrap_or(i64::MAX);
        let (now, record_bytes_max) = (self.shared.now(), self.config.record_bytes_max);
        let patience = Patience { now, patience_ms, record_bytes_max, documents: self.config.documents };
        let compare = move || compare(&folder, &known, &touched, checks_known, patience);
        let Numbering { new, seen, touched, incomplete } = blocking(&self.place, compare).await?;
        if checks_known {
            self.compared_at = Some(Instant::now());
        }
        self.touched.extend(touched);
        self.shared.unread.leave_in(&self.shard, incomplete);
        self.registry.number(new, seen).await
    }

    /// Notes that a file that has a number cannot be read any more.
    async fn lose(&mut self, name: &str) -> Result<(), SourceError> {
        let path = self.folder.path.join(name);
        let file = self.shared.root.name_of(&path).unwrap_or_else(|| name.to_owned());
        let Ok(file) = ShardId::new(file) else { return Ok(()) };
        self.shared.lost(&file, "the file is gone or was replaced before it was read").await
    }

    /// The position after everything before `next_offset` of file `number`.
    fn position(number: u64, next_offset: u64) -> Position {
        let last = next_offset.checked_sub(1).map_or((number - 1) * FILE + DONE, |last| number * FILE + last);
        Position::at(SequenceNumber::from(last))
    }
}

#[async_trait]
impl ShardReader for FolderReader {
    async fn read(&mut self, bytes: usize, buffer: Vec<u8>) -> Result<Read, SourceError> {
        if self.number > self.registry.len() {
            self.number_new_files().await?;
            if self.number > self.registry.len() {
                return Ok(Read::AtTip);
            }
        }
        let mut batch = Batch { buffer, texts: Vec::new(), source_bytes: 0, is_full: false };
        batch.buffer.clear();
        let mut skipping = false;
        while (skipping || (batch.buffer.len() < bytes && !batch.is_full))
            && let Some(NumberedFile { name, from, mark }) = self.registry.file(self.number).cloned()
        {
            let Folder { root, path } = self.folder.clone();
            let name = self.registry.renamed(self.number, &name).map_or(name, str::to_owned);
            let path = path.join(&name);
            let (number, offset, config) = (self.number, self.offset, self.config.clone());
            let open = self.open.take();
            let place = format!("{} ({})", self.place, name);
            let done = blocking(&place, move || {
                let mut file = match open {
                    Some(file) => file,
                    None => match OpenFile::open(&root, &path, (from, mark), number, offset, config)? {
                        Some(file) => Box::new(file),
                        None => return Ok((batch, None)),
                    },
                };
                let step = file.read_into(&mut batch, bytes)?;
                Ok((batch, Some((file, step))))
            })
            .await?;
            let read;
            (batch, read) = done;
            let Some((file, step)) = read else {
                self.lose(&name).await?;
                (self.number, self.offset) = (self.number + 1, 0);
                self.registry.forget_before(self.number);
                continue;
            };
            skipping = matches!(step, Step::Skipping);
            match step {
                Step::Done => {
                    (self.number, self.offset) = (self.number + 1, 0);
                    self.registry.forget_before(self.number);
                    continue;
                }
                Step::More(offset) => self.offset = offset,
                Step::Skipping => {}
            }
            self.open = Some(file);
        }
        let through = Self::position(self.number, self.offset);
        let (stream, shard) = (Arc::clone(&self.stream), Arc::clone(&self.shard));
        let chunk = Chunk::new(stream, shard, 0, batch.buffer, Framing::Texts(batch.texts));
        let mut chunk = chunk.with_documents(self.config.documents);
        chunk.read_ms = Some(self.config.clock.now_ms());
        Ok(Read::Chunk { chunk, through, source_bytes: batch.source_bytes })
    }
}

/// What one read collects: whole small files, or a piece of one large file.
struct Batch {
    buffer: Vec<u8>,
    texts: Vec<Text>,
    source_bytes: u64,
    /// Whether it has a piece of a large file, so that nothing more is added.
    is_full: bool,
}

/// A part of a file.
#[derive(Clone, Copy)]
enum Piece {
    /// Any number of records. `is_end`: the file ends with them.
    Text { is_end: bool },
    /// One record, whatever its lines are.
    Record(Option<Damage>),
}

/// How far a file was read.
enum Step {
    Done,
    /// Offset of the next byte.
    More(u64),
    /// In the middle of a line that is too long, where a chunk cannot end.
    Skipping,
}

/// A file that is being read.
struct OpenFile {
    input: Input,
    /// The arrival time of its records.
    arrival_ms: i64,
    number: u64,
    config: FilesConfig,
    carry: Vec<u8>,
    /// A record that is too long was reported, and its end was not found yet.
    skipping: Option<Skipper>,
}

impl OpenFile {
    /// Opens a file at an offset of its part. `None` if it is gone, or has another content than when it got its number.
    fn open(
        root: &Path,
        path: &Path,
        (from, mark): (u64, Option<Mark>),
        number: u64,
        offset: u64,
        config: FilesConfig,
    ) -> std::io::Result<Option<Self>> {
        let real = match inside(root, path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            real => real?,
        };
        let file = File::open(&real)?;
        let stat = Stat::of(&file.metadata()?);
        if let Some(mark) = &mark
            && !mark.is_of(&file, &stat)?
        {
            return Ok(None);
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let named = kind_of(name).map_or(Codec::Plain, |(_, codec)| codec);
        let codec = codec_by_content(named, &read_range(&file, 0, 64)?);
        let part = Part { codec, from, limit: mark.map(|mark| mark.bytes) };
        let input = Input::of_file(file, part, offset)?;
        let (arrival_ms, _) = config.arrival_ms(input.modified_ms);
        Ok(Some(OpenFile { input, arrival_ms, number, config, carry: Vec::new(), skipping: None }))
    }

    fn sequence(&self, offset: u64) -> u64 {
        self.number * FILE + offset
    }

    fn read_into(&mut self, batch: &mut Batch, bytes: usize) -> std::io::Result<Step> {
        if self.skipping.is_some() {
            return self.skip(batch);
        }
        let base = self.input.offset - self.carry.len() as u64;
        let mut text = std::mem::take(&mut self.carry);
        let whole_bytes = self.config.record_bytes_max + 1;
        let target = bytes.max(1 << 16).max(text.len() * 2).min(whole_bytes).max(text.len() + 1);
        let filled = self.input.fill(&mut text, target)?;
        batch.source_bytes += self.input.taken();
        if self.config.documents.many {
            return self.lines(batch, text, base, filled);
        }
        if base == 0 && filled == Filled::Ended && is_document(&text) {
            self.push(batch, &text, 0, Piece::Record(None));
            return Ok(Step::Done);
        }
        if base == 0 && filled == Filled::Full && text.len() < whole_bytes && !has_line_record(&text) {
            // It may be one document larger than a chunk.
            let filled = self.input.fill(&mut text, whole_bytes)?;
            batch.source_bytes += self.input.taken();
            if filled == Filled::Ended && is_document(&text) {
                self.push(batch, &text, 0, Piece::Record(None));
                return Ok(Step::Done);
            }
            return self.lines(batch, text, base, filled);
        }
        self.lines(batch, text, base, filled)
    }

    /// Adds the records of a text that begins at `base`.
    fn lines(&mut self, batch: &mut Batch, mut text: Vec<u8>, base: u64, filled: Filled) -> std::io::Result<Step> {
        if base + text.len() as u64 >= DONE {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "a file in a folder must be smaller than 10^12 bytes",
            ));
        }
        let ended = filled != Filled::Full;
        let last = cut(&text, self.config.documents);
        let end = match (last, ended) {
            (_, true) if filled == Filled::Ended => text.len(),
            (Some(end), _) => end,
            (None, true) => 0,
            (None, false) if text.len() <= self.config.record_bytes_max => {
                self.carry = text;
                return Ok(Step::More(base));
            }
            (None, false) => return self.too_long(batch, text, base),
        };
        let rest = text.split_off(end);
        // The text of a small file, and the end of a large one, is followed by that of others.
        batch.is_full = !ended && batch.buffer.is_empty();
        self.push(batch, &text, base, Piece::Text { is_end: filled == Filled::Ended });
        if filled == Filled::Damaged {
            let at = base + end as u64;
            self.push(batch, &rest, at, Piece::Record(Some(Damage::DamagedFile)));
            return Ok(Step::Done);
        }
        self.carry = rest;
        Ok(if ended { Step::Done } else { Step::More(base + end as u64) })
    }

    /// A record that is longer than records may be.
    fn too_long(&mut self, batch: &mut Batch, mut text: Vec<u8>, base: u64) -> std::io::Result<Step> {
        self.skipping = Some(Skipper::new(self.config.documents, &text));
        text.truncate(self.config.record_bytes_max);
        self.push(batch, &text, base, Piece::Record(Some(Damage::TooLarge)));
        self.skip(batch)
    }

    /// Skips a part of a record that is too long: as much as one call may take.
    fn skip(&mut self, batch: &mut Batch) -> std::io::Result<Step> {
        let Some(skipper) = &mut self.skipping else { return Ok(Step::Skipping) };
        let mut rest = Vec::new();
        let from = self.input.offset;
        while self.input.offset - from < SKIP_BYTES {
            rest.clear();
            let before = self.input.offset;
            let filled = self.input.fill(&mut rest, 1 << 16)?;
            batch.source_bytes += self.input.taken();
            if let Some(end) = skipper.feed(&rest) {
                self.skipping = None;
                self.carry.extend_from_slice(&rest[end..]);
                return Ok(Step::More(before + end as u64));
            }
            if filled != Filled::Full {
                return Ok(Step::Done);
            }
        }
        Ok(Step::Skipping)
    }

    /// Adds a text that begins at `base`, unless it is blank.
    fn push(&self, batch: &mut Batch, text: &[u8], base: u64, piece: Piece) {
        let (is_record, is_end, damage) = match piece {
            Piece::Text { is_end } => (false, is_end, None),
            Piece::Record(damage) => (true, false, damage),
        };
        if text.trim_ascii().is_empty() && damage.is_none() {
            return;
        }
        let begin = batch.buffer.len();
        batch.buffer.extend_from_slice(text);
        if base == 0 && text.starts_with(b"\xEF\xBB\xBF") {
            // A byte order mark does not belong to the first record. White space keeps the offsets.
            batch.buffer[begin..begin + 3].fill(b' ');
        }
        let place = |at: usize| u32::try_from(at).expect("a chunk is smaller than 2 GiB");
        let bytes = place(begin)..place(batch.buffer.len());
        batch.buffer.push(b'\n');
        let (base, arrival_ms) = (self.sequence(base), self.arrival_ms);
        batch.texts.push(Text { bytes, base, arrival_ms, is_record, is_end, damage });
    }
}

/// Whether a whole file's text is one document and not lines.
pub(super) fn is_document(text: &[u8]) -> bool {
    !has_line_record(text)
}

/// Whether the text has a line that is a record by itself: a first line that is a whole document, or a later line that begins
/// like one.
fn has_line_record(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text).trim_ascii_start();
    let Some(end) = memchr::memchr(b'\n', text) else { return false };
    let rest = &text[end + 1..];
    if rest.trim_ascii().is_empty() {
        return false;
    }
    is_closed(&text[..end]) || rest.starts_with(b"{") || memchr::memmem::find(rest, b"\n{").is_some()
}
