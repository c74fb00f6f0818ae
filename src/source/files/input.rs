//! An open file, decompressed as it is read.
//!
//! Owns: seeking to an offset of the text (by decompressing up to it, where it is compressed), and telling a damaged
//! compressed stream from a failing disk. Everything here blocks; callers are on the blocking pool.
//!
//! Limits: a window of 8 MiB (zstd's levels to 19 need no more), because a decoder holds it beside the memory that is
//! configured, and a file of a few bytes may ask for any.
//!
//! A compressed stream that is damaged or cut off ends where it can't be read on: what came before it stands.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::source::files::list::{Codec, modified_ms};

/// Bytes that a zstd file may look back, as a power of two.
pub(super) const WINDOW_LOG_MAX: u32 = 23;

/// An open file.
pub(super) struct Input {
    text: Box<dyn Read + Send>,
    compressed: bool,
    /// Offset of the next byte in the text.
    pub(super) offset: u64,
    /// When the file last changed, when it was opened or refreshed.
    pub(super) modified_ms: i64,
    /// Bytes of the file itself that were read.
    taken: Arc<AtomicU64>,
    /// For a plain file: the file again, to see whether it has changed.
    plain: Option<File>,
    /// The text ends before the offset that was asked for: everything of it has been read.
    exhausted: bool,
}

/// How filling a buffer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    /// The buffer is as full as it was asked to be.
    Full,
    /// The text ends here (a plain file's, for now).
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

impl Input {
    /// Opens a file at an offset of its text.
    ///
    /// # Errors
    /// The file can't be read; or it is plain and shorter than the offset, so that it is not the file it was.
    pub(super) fn open(path: &Path, codec: Codec, offset: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let taken = Arc::new(AtomicU64::new(0));
        let modified_ms = modified_ms(&metadata);
        if codec == Codec::Plain {
            if metadata.len() < offset {
                let problem = format!(
                    "the file has {} bytes, but {offset} were read of it before: it was cut or replaced; \
                     restore it, or give the new one another name",
                    metadata.len()
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
            let plain = Some(file.try_clone()?);
            file.seek(SeekFrom::Start(offset))?;
            let text = Box::new(Counted { inner: file, taken: Arc::clone(&taken) });
            return Ok(Input { text, compressed: false, offset, modified_ms, taken, plain, exhausted: false });
        }
        let counted = BufReader::with_capacity(1 << 16, Counted { inner: file, taken: Arc::clone(&taken) });
        let text: Box<dyn Read + Send> = match codec {
            Codec::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(counted)),
            _ => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(counted)?;
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
        };
        let mut input = Input { text, compressed: true, offset: 0, modified_ms, taken, plain: None, exhausted: false };
        input.skip(offset)?;
        // What lies at or behind damage was told by who read it first: its position is one behind the last byte.
        input.exhausted = input.offset < offset;
        input.offset = offset;
        Ok(input)
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
        while buffer.len() < target {
            let before = buffer.len();
            buffer.resize(target, 0);
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
                        _ if self.compressed && is_damage(&error) => return Ok(Filled::Damaged),
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

    /// Looks again when a plain file last changed.
    pub(super) fn refresh(&mut self) -> io::Result<()> {
        if let Some(file) = &self.plain {
            self.modified_ms = modified_ms(&file.metadata()?);
        }
        Ok(())
    }
}

/// What decoders say of a stream that is damaged or cut off; everything else is the disk's failure.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other
    )
}
