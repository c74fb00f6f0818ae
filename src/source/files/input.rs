//! An open file, decompressed as it is read.
//!
//! Owns: seeking to an offset of the text (in a compressed file by decompressing up to it), distinguishing a damaged compressed stream
//! from a failing disk, and noticing that an open file became another. Everything here blocks; callers are on the blocking pool. Does not
//! own: cutting the text into records.
//!
//! Limits: a window of 8 MiB (zstd's levels up to 19 need no more). A decoder holds it beside the configured memory, and a file of a few
//! bytes may ask for any size.
//!
//! A compressed stream that is damaged or truncated ends where it cannot be read further. What came before is kept.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::source::files::identity::{Head, Likeness, Stat, read_head};
use crate::source::files::list::Codec;

/// The largest window of a zstd file, as a power of two.
pub(super) const WINDOW_LOG_MAX: u32 = 23;

/// Which part of a file is read, and how.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Part {
    pub(super) codec: Codec,
    /// Where it begins in the file.
    pub(super) from: u64,
    /// Where it ends in the file; `None` if it may grow.
    pub(super) limit: Option<u64>,
}

/// An open file.
pub(super) struct Input {
    text: Box<dyn Read + Send>,
    part: Part,
    /// Offset of the next byte in the text.
    pub(super) offset: u64,
    /// The time of the last change, as of opening or checking.
    pub(super) modified_ms: i64,
    /// Bytes of the file that were read, before decompression.
    taken: Arc<AtomicU64>,
    /// A second handle, for checking the file.
    file: File,
    /// The file when it was last found unchanged.
    checked: Option<Stat>,
    /// The text ends before the requested offset: all of it was read before.
    exhausted: bool,
    /// The compressed stream is damaged where it was read to.
    damaged: bool,
}

/// What became of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is what it was.
    Same,
    /// It begins as before, and is shorter than what was read of it.
    Cut,
    /// Its content is that of another file.
    Replaced,
}

/// How filling a buffer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    /// The buffer has the requested size.
    Full,
    /// The text ends here. That of a plain file may grow.
    Ended,
    /// The compressed stream is damaged here.
    Damaged,
}

struct Counted<R> {
    inner: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.taken.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Zeros that a buffer grows by.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// Lengthens a buffer with zeros. This crate is compiled for size, where `Vec::resize` writes byte by byte; this copies blocks.
fn grow(buffer: &mut Vec<u8>, target: usize) {
    buffer.reserve_exact(target.saturating_sub(buffer.len()));
    while buffer.len() < target {
        let block = ZEROS.len().min(target - buffer.len());
        buffer.extend_from_slice(&ZEROS[..block]);
    }
}

/// Decompresses a file.
///
/// # Errors
/// There is no memory for it.
pub(super) fn decoder(file: impl Read + Send + 'static, codec: Codec) -> io::Result<Box<dyn Read + Send>> {
    Ok(match codec {
        Codec::Plain => Box::new(file),
        Codec::Gzip | Codec::Zstd => {
            let compressed: Compressed = BufReader::with_capacity(1 << 16, Box::new(file));
            Box::new(Streams { codec, state: Some(Between(compressed)) })
        }
    })
}

type Compressed = BufReader<Box<dyn Read + Send>>;

/// The compressed streams of a file, one after the other: gzip's members, zstd's frames. Zeros after the last one are padding, as tapes
/// and block devices add it.
struct Streams {
    codec: Codec,
    /// None after a failure.
    state: Option<Stream>,
}

enum Stream {
    Between(Compressed),
    Member(Box<flate2::bufread::GzDecoder<Compressed>>),
    Frame(Box<zstd::stream::read::Decoder<'static, Compressed>>),
}
use Stream::{Between, Frame, Member};

impl Read for Streams {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let state = self.state.take().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
            let compressed = match state {
                Between(mut compressed) => {
                    if skip_zeros(&mut compressed)? {
                        self.state = Some(Between(compressed));
                        return Ok(0);
                    }
                    self.state = Some(if self.codec == Codec::Gzip {
                        Member(Box::new(flate2::bufread::GzDecoder::new(compressed)))
                    } else {
                        let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed)?.single_frame();
                        decoder.window_log_max(WINDOW_LOG_MAX)?;
                        Frame(Box::new(decoder))
                    });
                    continue;
                }
                Member(mut member) => match member.read(buffer) {
                    Ok(0) => member.into_inner(),
                    result => {
                        self.keep(Member(member), &result);
                        return result;
                    }
                },
                Frame(mut frame) => match frame.read(buffer) {
                    Ok(0) => frame.finish(),
                    result => {
                        self.keep(Frame(frame), &result);
                        return result;
                    }
                },
            };
            self.state = Some(Between(compressed));
        }
    }
}

impl Streams {
    /// Keeps a stream that can be read further.
    fn keep(&mut self, stream: Stream, result: &io::Result<usize>) {
        if result.as_ref().err().is_none_or(|error| !is_damage(error)) {
            self.state = Some(stream);
        }
    }
}

/// Skips zeros. Returns true at the end of the file.
fn skip_zeros(compressed: &mut Compressed) -> io::Result<bool> {
    loop {
        let buffer = match compressed.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
        if buffer.is_empty() || zeros < buffer.len() {
            let ended = buffer.is_empty();
            compressed.consume(zeros);
            return Ok(ended);
        }
        compressed.consume(zeros);
    }
}

impl Input {
    /// Opens a part of a file at an offset of its text.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn open(path: &Path, part: Part, offset: u64) -> io::Result<Self> {
        Self::of_file(File::open(path)?, part, offset)
    }

    /// The same of an open file.
    pub(super) fn of_file(mut file: File, part: Part, offset: u64) -> io::Result<Self> {
        let stat = Stat::of(&file.metadata()?);
        let (taken, second) = (Arc::new(AtomicU64::new(0)), file.try_clone()?);
        let begin = if part.codec == Codec::Plain { part.from + offset } else { part.from };
        file.seek(SeekFrom::Start(begin))?;
        let counted = Counted { inner: file, taken: Arc::clone(&taken) };
        let text: Box<dyn Read + Send> = match part.limit {
            Some(limit) => decoder(counted.take(limit.saturating_sub(begin)), part.codec)?,
            None => decoder(counted, part.codec)?,
        };
        let (modified_ms, is_plain) = (stat.modified_ms, part.codec == Codec::Plain);
        let at = if is_plain { offset } else { 0 };
        let mut input = Input {
            text,
            part,
            offset: at,
            modified_ms,
            taken,
            file: second,
            checked: None,
            exhausted: false,
            damaged: false,
        };
        input.skip(offset)?;
        // Damage was reported by the first reader: the position after it is one past the last byte.
        input.exhausted = input.offset < offset;
        input.offset = offset;
        Ok(input)
    }

    /// The part that it reads.
    pub(super) fn part(&self) -> Part {
        self.part
    }

    /// The size of the file when it was last found unchanged.
    pub(super) fn seen_bytes(&self) -> u64 {
        self.checked.map_or(0, |stat| stat.bytes)
    }

    /// A second handle.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// The file as it is now.
    pub(super) fn stat(&self) -> io::Result<Stat> {
        Ok(Stat::of(&self.file.metadata()?))
    }

    /// The file's beginning as it is now.
    pub(super) fn head(&self) -> io::Result<Vec<u8>> {
        read_head(&self.file)
    }

    /// Whether the file is still the one with this beginning, of which everything before the offset was read. Content that was read
    /// before the check is the file's own.
    pub(super) fn check(&mut self, head: &Head) -> io::Result<Fate> {
        let stat = self.stat()?;
        self.modified_ms = stat.modified_ms;
        if self.checked == Some(stat) {
            return Ok(Fate::Same);
        }
        let likeness = head.compare(&self.head()?);
        let is_shorter = self.part.codec == Codec::Plain && stat.bytes < self.part.from + self.offset;
        let fate = match likeness {
            _ if head.bytes() == 0 => Fate::Same,
            Likeness::Differs => Fate::Replaced,
            Likeness::Same if !is_shorter => Fate::Same,
            Likeness::Same | Likeness::Shorter => Fate::Cut,
        };
        if fate == Fate::Same {
            self.checked = Some(stat);
        }
        Ok(fate)
    }

    fn skip(&mut self, offset: u64) -> io::Result<()> {
        let mut scratch = vec![0; 1 << 16];
        while self.offset < offset {
            let wanted = usize::try_from(offset - self.offset).unwrap_or(usize::MAX).min(scratch.len());
            match self.text.read(&mut scratch[..wanted]) {
                Ok(0) => break,
                Ok(read) => self.offset += read as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_damage(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Appends text to a buffer until it has `target` bytes.
    pub(super) fn fill(&mut self, buffer: &mut Vec<u8>, target: usize) -> io::Result<Filled> {
        if self.exhausted {
            return Ok(Filled::Ended);
        }
        if self.damaged {
            return Ok(Filled::Damaged);
        }
        while buffer.len() < target {
            let before = buffer.len();
            grow(buffer, target);
            let read = self.text.read(&mut buffer[before..]);
            match read {
                Ok(read) => {
                    buffer.truncate(before + read);
                    self.offset += read as u64;
                    if read == 0 {
                        return Ok(Filled::Ended);
                    }
                }
                Err(error) => {
                    buffer.truncate(before);
                    match error.kind() {
                        io::ErrorKind::Interrupted => {}
                        _ if self.part.codec != Codec::Plain && is_damage(&error) => {
                            self.damaged = true;
                            return Ok(Filled::Damaged);
                        }
                        _ => return Err(error),
                    }
                }
            }
        }
        Ok(Filled::Full)
    }

    /// Bytes of the file that were read since the last call.
    pub(super) fn taken(&self) -> u64 {
        self.taken.swap(0, Ordering::Relaxed)
    }
}

/// Whether a decoder reports a damaged or truncated stream. Everything else is a failure of the disk.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other
    )
}
