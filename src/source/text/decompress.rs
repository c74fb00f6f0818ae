//! A text, decompressed as it is read.
//!
//! Owns: how content is compressed, reading it from an offset of its text (compressed content by decompressing up to there), and
//! distinguishing a damaged compressed stream from a source that fails. Everything here blocks. Does not own: where the bytes come
//! from, cutting the text into records.
//!
//! Limits: a window of 8 MiB (zstd's levels up to 19 need no more). A decoder holds it beside the configured memory, and a file of a few
//! bytes may ask for any size.
//!
//! A compressed stream that is damaged or truncated ends where it cannot be read further. What came before is kept.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// The largest window of a zstd file, as a power of two.
pub(in crate::source) const WINDOW_LOG_MAX: u32 = 23;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::source) enum Codec {
    #[default]
    Plain,
    Gzip,
    Zstd,
}

/// A text that is being read.
pub(in crate::source) struct TextReader {
    text: Box<dyn Read + Send>,
    codec: Codec,
    /// Offset of the next byte in the text.
    pub(in crate::source) offset: u64,
    /// Bytes of the source that were read, before decompression.
    taken: Arc<AtomicU64>,
    /// The text ends before the requested offset: all of it was read before.
    exhausted: bool,
    /// The compressed stream is damaged where it was read to.
    damaged: bool,
}

/// How filling a buffer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) enum Filled {
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
pub(in crate::source) fn decoder(file: impl Read + Send + 'static, codec: Codec) -> io::Result<Box<dyn Read + Send>> {
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

impl TextReader {
    /// Reads `content` from an offset of its text. That of plain content must begin at this offset; compressed content begins at its own
    /// beginning, and is decompressed up to the offset.
    ///
    /// # Errors
    /// The content cannot be read.
    pub(in crate::source) fn new(content: impl Read + Send + 'static, codec: Codec, offset: u64) -> io::Result<Self> {
        let taken = Arc::new(AtomicU64::new(0));
        let counted = Counted { inner: content, taken: Arc::clone(&taken) };
        let at = if codec == Codec::Plain { offset } else { 0 };
        let text = decoder(counted, codec)?;
        let mut reader = TextReader { text, codec, offset: at, taken, exhausted: false, damaged: false };
        reader.skip(offset)?;
        // Damage was reported by the first reader: the position after it is one past the last byte.
        reader.exhausted = reader.offset < offset;
        reader.offset = offset;
        Ok(reader)
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
    pub(in crate::source) fn fill(&mut self, buffer: &mut Vec<u8>, target: usize) -> io::Result<Filled> {
        if self.exhausted {
            return Ok(Filled::Ended);
        }
        if self.damaged {
            return Ok(Filled::Damaged);
        }
        while buffer.len() < target {
            let before = buffer.len();
            // In steps: most texts are far smaller than a chunk.
            grow(buffer, target.min((before * 2).max(before + ZEROS.len())));
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
                        _ if self.codec != Codec::Plain && is_damage(&error) => {
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

    /// Bytes of the source that were read since the last call.
    pub(in crate::source) fn taken(&self) -> u64 {
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

/// How content that begins with these bytes is compressed.
pub(in crate::source) fn codec_of(first: &[u8]) -> Codec {
    match first {
        // RFC 1952: the magic number, then the only method there is.
        [0x1f, 0x8b, 8, ..] => Codec::Gzip,
        // RFC 8878: a frame, or a skippable frame.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Codec::Zstd,
        _ => Codec::Plain,
    }
}

/// How a file is compressed. Its first bytes decide, since names are sometimes wrong. A file whose name says that it is compressed and
/// that does not begin so is plain if it looks like text; otherwise it is damaged.
pub(in crate::source) fn codec_by_content(named: Codec, first: &[u8]) -> Codec {
    match codec_of(first) {
        Codec::Plain if named != Codec::Plain => {
            let text = first.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(first).trim_ascii_start();
            if matches!(text.first(), Some(b'{' | b'[' | b'"')) { Codec::Plain } else { named }
        }
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_say_how_content_is_compressed() {
        assert_eq!(codec_by_content(Codec::Plain, b"\x1f\x8b\x08\x00"), Codec::Gzip);
        assert_eq!(codec_by_content(Codec::Gzip, b"\x28\xb5\x2f\xfd"), Codec::Zstd);
        assert_eq!(codec_by_content(Codec::Gzip, b"\xEF\xBB\xBF {\"a\":1}"), Codec::Plain);
        assert_eq!(codec_by_content(Codec::Gzip, b"\x00\x01"), Codec::Gzip, "it is damaged");
        assert_eq!(codec_by_content(Codec::Plain, b"2025-01-13 INFO"), Codec::Plain);
    }
}
