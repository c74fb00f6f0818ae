//! An open file, decompressed as it is read.
//!
//! Owns: seeking to an offset of the text (in a compressed file by decompressing up to it), and distinguishing a damaged compressed stream
//! from a failing disk. Everything here blocks; callers are on the blocking pool. Does not own: cutting the text into records.
//!
//! Limits: a window of 8 MiB (zstd's levels up to 19 need no more). A decoder holds it beside the configured memory, and a file of a few
//! bytes may ask for any size.
//!
//! A compressed stream that is damaged or truncated ends where it cannot be read further. What came before is kept.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::source::files::list::{Codec, modified_ms};

/// The largest window of a zstd file, as a power of two.
pub(super) const WINDOW_LOG_MAX: u32 = 23;

/// An open file.
pub(super) struct Input {
    text: Box<dyn Read + Send>,
    compressed: bool,
    /// Offset of the next byte in the text.
    pub(super) offset: u64,
    /// The time of the last change, as of opening or refreshing.
    pub(super) modified_ms: i64,
    /// Bytes of the file that were read, before decompression.
    taken: Arc<AtomicU64>,
    /// A second handle to a plain file, for the time of its last change.
    plain: Option<File>,
    /// The text ends before the requested offset: all of it was read before.
    exhausted: bool,
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

impl Input {
    /// Opens a file at an offset of its text.
    ///
    /// # Errors
    /// The file cannot be read; or it is plain and shorter than the offset, so it is not the same file.
    pub(super) fn open(path: &Path, codec: Codec, offset: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let taken = Arc::new(AtomicU64::new(0));
        let modified_ms = modified_ms(&metadata);
        if codec == Codec::Plain {
            if metadata.len() < offset {
                let problem = format!(
                    "the file has {} bytes, but {offset} were read before: it was truncated or replaced; \
                     restore it, or give the new file another name",
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
        // Damage was reported by the first reader: the position after it is one past the last byte.
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

    /// Reads the time of a plain file's last change again.
    pub(super) fn refresh(&mut self) -> io::Result<()> {
        if let Some(file) = &self.plain {
            self.modified_ms = modified_ms(&file.metadata()?);
        }
        Ok(())
    }
}

/// Whether a decoder reports a damaged or truncated stream. Everything else is a failure of the disk.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other
    )
}
