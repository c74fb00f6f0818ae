//! An open file, decompressed as it is read.
//!
//! Owns: seeking to an offset of the text, and noticing that an open file became another. Everything here blocks; callers are on the
//! blocking pool. Does not own: decompressing (`text::decompress`), cutting the text into records.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::source::files::identity::{Head, Likeness, Stat, read_head};
use crate::source::files::list::Codec;
pub(super) use crate::source::text::decompress::Filled;
use crate::source::text::decompress::TextReader;

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
    /// Its text.
    pub(super) text: TextReader,
    part: Part,
    /// The time of the last change, as of opening or checking.
    pub(super) modified_ms: i64,
    /// A second handle, for checking the file.
    file: File,
    /// The file when it was last found unchanged.
    checked: Option<Stat>,
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
        let second = file.try_clone()?;
        let begin = if part.codec == Codec::Plain { part.from + offset } else { part.from };
        file.seek(SeekFrom::Start(begin))?;
        let text = match part.limit {
            Some(limit) => TextReader::new(file.take(limit.saturating_sub(begin)), part.codec, offset)?,
            None => TextReader::new(file, part.codec, offset)?,
        };
        Ok(Input { text, part, modified_ms: stat.modified_ms, file: second, checked: None })
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
        let is_shorter = self.part.codec == Codec::Plain && stat.bytes < self.part.from + self.text.offset;
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
}
