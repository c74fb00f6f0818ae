//! A file of lines as a shard.
//!
//! Owns: cutting the file into chunks between records, and handling a record that is too long, a last line without an end, and a
//! damaged compressed stream. Does not own: reading bytes (`input`), where a text may be cut (`pipeline::documents`).

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use checkpoints::{Position, SequenceNumber, ShardId, StreamName};
use pipeline::chunk::{Chunk, Damage, Frame, Framing};
use pipeline::documents::{Skipper, cut};

use crate::source::files::folder::SKIP_BYTES;
use crate::source::files::input::{Filled, Input};
use crate::source::files::list::{Codec, kind_of};
use crate::source::files::{FilesConfig, blocking};
use crate::source::{Behind, Read, ShardReader, SourceError};

/// Reads a file of lines.
pub(super) struct LinesReader {
    cutter: Option<Cutter>,
    place: String,
}

/// The reader's state, which goes to the blocking pool and back.
struct Cutter {
    input: Input,
    stream: Arc<str>,
    shard: Arc<str>,
    config: FilesConfig,
    /// The file's text cannot grow.
    ends: bool,
    /// The beginning of a line whose end was not read yet.
    carry: Vec<u8>,
    /// The beginning of a record that is too long, and its offset, while its end is searched for.
    skipping: Option<(Vec<u8>, u64, Skipper)>,
    finished: bool,
}

/// A position in a file of lines: offset of the last byte read.
pub(super) fn offset_of(position: &Position) -> Option<u64> {
    match position {
        Position::Beginning => Some(0),
        Position::At { sequence, .. } => sequence.as_str().parse::<u64>().ok()?.checked_add(1),
        Position::Since { .. } | Position::Latest | Position::End => None,
    }
}

/// The position after which the text begins at this offset.
fn position_before(offset: u64) -> Position {
    match offset.checked_sub(1) {
        Some(last) => Position::at(SequenceNumber::from(last)),
        None => Position::Beginning,
    }
}

fn codec_of(path: &std::path::Path) -> Codec {
    path.file_name().and_then(|name| kind_of(name.to_str()?)).map_or(Codec::Plain, |(_, codec)| codec)
}

/// How much of a file comes after a position.
pub(super) async fn behind(stream: &StreamName, path: PathBuf, position: &Position) -> Result<Behind, SourceError> {
    let offset = offset_of(position).unwrap_or(u64::MAX);
    let codec = codec_of(&path);
    let size = blocking(stream, move || std::fs::metadata(path).map(|metadata| metadata.len())).await?;
    Ok(match codec {
        // The text left in a compressed file is unknown. It has been read when its shard has ended.
        Codec::Gzip | Codec::Zstd => Behind::Bytes(if offset == 0 { size } else { size / 2 + 1 }),
        Codec::Plain if offset >= size => Behind::Nothing,
        Codec::Plain => Behind::Bytes(size - offset),
    })
}

impl LinesReader {
    pub(super) async fn open(
        path: PathBuf,
        stream: StreamName,
        shard: ShardId,
        after: &Position,
        config: FilesConfig,
    ) -> Result<Self, SourceError> {
        let place = format!("shard {shard} of stream {stream}");
        let offset = offset_of(after).ok_or_else(|| SourceError::Unreadable {
            place: place.clone(),
            problem: format!("{after} is not a valid position in a file"),
        })?;
        let codec = codec_of(&path);
        let input = blocking(&place, move || Input::open(&path, codec, offset)).await?;
        let cutter = Cutter {
            input,
            stream: stream.as_str().into(),
            shard: shard.as_str().into(),
            ends: codec != Codec::Plain,
            config,
            carry: Vec::new(),
            skipping: None,
            finished: false,
        };
        Ok(LinesReader { cutter: Some(cutter), place })
    }
}

#[async_trait]
impl ShardReader for LinesReader {
    async fn read(&mut self, bytes: usize, buffer: Vec<u8>) -> Result<Read, SourceError> {
        let Some(mut cutter) = self.cutter.take() else {
            let problem = "an earlier read was dropped".to_owned();
            return Err(SourceError::Unavailable { place: self.place.clone(), problem });
        };
        let mut buffer = Some(buffer);
        loop {
            let buffer = buffer.take();
            let read;
            (cutter, read) = blocking(&self.place, move || {
                let read = match buffer {
                    Some(buffer) => cutter.next(bytes, buffer)?,
                    None => cutter.skip()?,
                };
                Ok((cutter, read))
            })
            .await?;
            // In the middle of a line that is too long: let others use the thread.
            let Some(read) = read else { continue };
            self.cutter = Some(cutter);
            return Ok(read);
        }
    }
}

impl Cutter {
    /// The next read; `None` if more of a line that is too long must be skipped first.
    fn next(&mut self, bytes: usize, mut buffer: Vec<u8>) -> std::io::Result<Option<Read>> {
        if self.finished {
            return Ok(Some(Read::End { children: Vec::new() }));
        }
        buffer.clear();
        buffer.append(&mut self.carry);
        // The offset of the buffer in the text.
        let base = self.input.offset - buffer.len() as u64;
        let mut target = bytes.max(buffer.len() + 1);
        loop {
            let filled = self.input.fill(&mut buffer, target)?;
            if let Some(end) = cut(&buffer, self.config.documents) {
                self.carry.extend_from_slice(&buffer[end..]);
                buffer.truncate(end);
                return self.chunk(buffer, base).map(Some);
            }
            match filled {
                Filled::Full if buffer.len() > self.config.record_bytes_max => {
                    let skipper = Skipper::new(self.config.documents, &buffer);
                    buffer.truncate(self.config.record_bytes_max);
                    self.skipping = Some((buffer, base, skipper));
                    return self.skip();
                }
                Filled::Full => target = (buffer.len() * 2).min(self.config.record_bytes_max + 1).max(buffer.len() + 1),
                Filled::Damaged => return Ok(Some(self.damaged(buffer, base))),
                Filled::Ended => return self.ended(buffer, base).map(Some),
            }
        }
    }

    /// The text ends, perhaps only for now, and the buffer has the beginning of a line.
    fn ended(&mut self, buffer: Vec<u8>, base: u64) -> std::io::Result<Read> {
        if buffer.is_empty() || !(self.ends || self.config.complete || self.has_settled(&buffer)?) {
            // The end of the line will come, or there is no line. A reader that waits at the tip must not keep a whole chunk's memory.
            self.carry = buffer;
            self.carry.shrink_to_fit();
            self.finished = self.ends;
            return Ok(if self.ends { Read::End { children: Vec::new() } } else { Read::AtTip });
        }
        self.finished = self.ends;
        self.chunk(buffer, base)
    }

    /// Whether lines that may be the beginning of a longer document have waited long enough for the rest of it.
    fn has_settled(&mut self, lines: &[u8]) -> std::io::Result<bool> {
        if !self.config.documents.many || !lines.ends_with(b"\n") {
            return Ok(false);
        }
        self.input.refresh()?;
        let settle = i64::try_from(self.config.settle.as_millis()).unwrap_or(i64::MAX);
        Ok(self.config.clock.now_ms().saturating_sub(self.input.modified_ms) >= settle)
    }

    fn chunk(&mut self, mut buffer: Vec<u8>, base: u64) -> std::io::Result<Read> {
        if base == 0 && buffer.starts_with(b"\xEF\xBB\xBF") {
            // A byte order mark does not belong to the first record. White space keeps the offsets.
            buffer[..3].fill(b' ');
        }
        self.input.refresh()?;
        let through = position_before(base + buffer.len() as u64);
        Ok(self.read(Framing::Lines { base }, buffer, through))
    }

    fn read(&self, framing: Framing, buffer: Vec<u8>, through: Position) -> Read {
        let (stream, shard) = (Arc::clone(&self.stream), Arc::clone(&self.shard));
        let chunk = Chunk::new(stream, shard, self.input.modified_ms, buffer, framing);
        let chunk = chunk.with_documents(self.config.documents);
        Read::Chunk { chunk, through, source_bytes: self.input.taken() }
    }

    /// Skips a line that is longer than a record may be, or a part of it (`None`). Its first bytes are kept.
    fn skip(&mut self) -> std::io::Result<Option<Read>> {
        let Some((buffer, base, mut skipper)) = self.skipping.take() else { return Ok(None) };
        let mut rest = Vec::new();
        let from = self.input.offset;
        while self.input.offset - from < SKIP_BYTES {
            rest.clear();
            let before = self.input.offset;
            let filled = self.input.fill(&mut rest, 1 << 16)?;
            if let Some(end) = skipper.feed(&rest) {
                self.carry.extend_from_slice(&rest[end..]);
                let next = before + end as u64;
                return Ok(Some(self.one_damaged(buffer, base, next, Damage::TooLarge)));
            }
            // After damage the position is one past the last byte, as in `damaged`.
            let end = match filled {
                Filled::Full => continue,
                Filled::Damaged => self.input.offset + 1,
                Filled::Ended => self.input.offset,
            };
            self.finished = self.ends || filled == Filled::Damaged;
            return Ok(Some(self.one_damaged(buffer, base, end, Damage::TooLarge)));
        }
        self.skipping = Some((buffer, base, skipper));
        Ok(None)
    }

    /// The compressed stream cannot be read further. What there is of the last line represents what is lost.
    fn damaged(&mut self, buffer: Vec<u8>, base: u64) -> Read {
        self.finished = true;
        // The position is one past the last byte that could be read. No text reaches it, so whoever opens the shard there knows
        // that the damage was reported.
        let end = base + buffer.len() as u64 + 1;
        self.one_damaged(buffer, base, end, Damage::DamagedFile)
    }

    fn one_damaged(&mut self, buffer: Vec<u8>, base: u64, end: u64, damage: Damage) -> Read {
        let frame = Frame {
            bytes: 0..u32::try_from(buffer.len()).expect("a record is smaller than a chunk"),
            sequence: base.to_string().into(),
            sub_sequence: 0,
            arrival_ms: Some(self.input.modified_ms),
            partition_key: None,
            damage: Some(damage),
        };
        self.read(Framing::Records(vec![frame]), buffer, position_before(end))
    }
}
