//! The lines of an object of dead letters: reading them one after another, choosing some, and writing those that stay.
//!
//! Owns: how such an object is taken apart and put together again. Does not own: the format of one line (`dead_letter`), which objects
//! there are, getting and storing their bytes.
//!
//! A line that this version cannot parse, as one of a later version, is not chosen by anything, and is written as it was read.

use std::io::{self, BufRead, BufReader, Write};

use bytes::{Buf, Bytes};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::dead_letter::DeadLetter;
use crate::dead_letter::code::Code;
use crate::layout::Folder;
use crate::time::{DAY_MS, day_of};

/// Bytes of lines that are compressed together.
const MEMBER_BYTES: usize = 1 << 20;
/// What the name of an object ends with that has zstd frames and not gzip members.
const ZSTD: &str = ".zst";
/// The level of zstd for lines that are written again.
const ZSTD_LEVEL: i32 = 1;

/// Which dead letters are wanted. The default wants all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Only these codes; all if it is empty.
    pub codes: Vec<Code>,
    /// Only records that arrived at this time or later: milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Only records that arrived before this time: milliseconds since 1970.
    pub until_ms: Option<i64>,
    /// Only those of this dataset.
    pub dataset: Option<String>,
    /// Only those of this stream.
    pub stream: Option<String>,
}

impl DeadLetterFilter {
    /// Whether a dead letter is wanted.
    pub fn wants(&self, dead_letter: &DeadLetter<'_>) -> bool {
        let is =
            |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().is_none_or(|wanted| found == Some(wanted));
        (self.codes.is_empty() || self.codes.contains(&dead_letter.code))
            && self.since_ms.is_none_or(|since| dead_letter.arrival_ms >= since)
            && self.until_ms.is_none_or(|until| dead_letter.arrival_ms < until)
            && is(&self.dataset, dead_letter.dataset.as_deref())
            && is(&self.stream, Some(&dead_letter.stream))
    }

    /// Whether an object in a folder may have a dead letter that is wanted.
    pub fn may_have(&self, folder: &Folder) -> bool {
        let Folder::Error { code, day } = folder else { return false };
        (self.codes.is_empty() || self.codes.contains(code))
            && self.since_ms.is_none_or(|since| *day >= day_of(since.div_euclid(DAY_MS)))
            && self.until_ms.is_none_or(|until| *day <= day_of(until.saturating_sub(1).div_euclid(DAY_MS)))
    }
}

/// The lines of an object, which are decompressed as they are read.
pub struct StoredLines {
    text: Box<dyn BufRead + Send>,
    line: Vec<u8>,
}

/// A line of an object.
#[derive(Debug)]
pub struct StoredLine<'l> {
    /// Its bytes, with its line end.
    pub bytes: &'l [u8],
    /// What it says; `None` if this version cannot parse it.
    pub dead_letter: Option<DeadLetter<'static>>,
}

impl StoredLines {
    /// The lines of an object with this name and these bytes.
    ///
    /// # Errors
    /// It cannot be decompressed.
    pub fn new(name: &str, bytes: Bytes) -> io::Result<Self> {
        let text: Box<dyn BufRead + Send> = if name.ends_with(ZSTD) {
            Box::new(BufReader::new(zstd::stream::read::Decoder::new(bytes.reader())?))
        } else {
            Box::new(BufReader::new(MultiGzDecoder::new(bytes.reader())))
        };
        Ok(StoredLines { text, line: Vec::new() })
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// The object is damaged.
    pub fn next_line(&mut self) -> io::Result<Option<StoredLine<'_>>> {
        self.line.clear();
        if self.text.read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        if self.line.last() != Some(&b'\n') {
            self.line.push(b'\n');
        }
        Ok(Some(StoredLine { bytes: &self.line, dead_letter: DeadLetter::parse(&self.line).ok() }))
    }
}

/// Compresses lines for an object, a piece at a time.
pub struct StoredWriter {
    is_zstd: bool,
    waiting: Vec<u8>,
}

impl StoredWriter {
    /// For an object with this name.
    pub fn new(name: &str) -> Self {
        StoredWriter { is_zstd: name.ends_with(ZSTD), waiting: Vec::new() }
    }

    /// Adds a line, with its line end. Returns the next piece of the object if there is a whole one.
    ///
    /// # Errors
    /// Compressing fails, which is a bug.
    pub fn add(&mut self, line: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.waiting.extend_from_slice(line);
        if self.waiting.len() < MEMBER_BYTES { Ok(None) } else { self.finish() }
    }

    /// The last piece of the object; `None` if nothing waits.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn finish(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.waiting.is_empty() {
            return Ok(None);
        }
        let lines = std::mem::take(&mut self.waiting);
        if self.is_zstd {
            return zstd::bulk::compress(&lines, ZSTD_LEVEL).map(Some);
        }
        let mut member = GzEncoder::new(Vec::new(), Compression::fast());
        member.write_all(&lines)?;
        member.finish().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::parse_rfc3339;

    fn dead_letter(number: usize) -> DeadLetter<'static> {
        DeadLetter {
            code: if number.is_multiple_of(2) { Code::MissingField } else { Code::NotJson },
            reason: None,
            syntax: None,
            dataset: (!number.is_multiple_of(3)).then(|| "orders".into()),
            field: None,
            stream: if number.is_multiple_of(5) { "a".into() } else { "b".into() },
            shard: "s".into(),
            sequence: number.to_string().into(),
            sub_sequence: 0,
            partition_key: None,
            arrival_ms: 1_736_764_200_000 + i64::try_from(number).unwrap(),
            attempts: 1,
            raw: vec![b'x'; 100].into(),
        }
    }

    #[test]
    fn lines_that_are_written_again_are_the_lines_that_were_read() {
        for name in ["a.json.gz", "a.json.zst"] {
            let (mut writer, mut object, mut lines) = (StoredWriter::new(name), Vec::new(), Vec::new());
            for number in 0..10_000 {
                let mut line = Vec::new();
                match number % 100 {
                    7 => line.extend_from_slice(b"{\"errorCode\":\"Decode.OfALaterVersion\"}\n"),
                    _ => dead_letter(number).write(&mut line),
                }
                object.extend(writer.add(&line).unwrap().into_iter().flatten());
                lines.push(line);
            }
            object.extend(writer.finish().unwrap().into_iter().flatten());
            assert_eq!(writer.finish().unwrap(), None);
            let mut read = StoredLines::new(name, Bytes::from(object.clone())).unwrap();
            for (number, expected) in lines.iter().enumerate() {
                let line = read.next_line().unwrap().unwrap();
                assert_eq!(line.bytes, expected);
                let is_parsed = (number % 100 != 7).then(|| dead_letter(number));
                assert_eq!(line.dead_letter, is_parsed);
            }
            assert!(read.next_line().unwrap().is_none());
            let mut cut = StoredLines::new(name, Bytes::from(object).slice(..1000)).unwrap();
            let end = loop {
                match cut.next_line() {
                    Ok(Some(_)) => {}
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            assert!(end.is_err(), "{name}: an object that is cut off is an error, and not its end");
        }
    }

    #[test]
    fn a_filter_wants_what_all_its_parts_want() {
        let count = |filter: &DeadLetterFilter| (0..30).filter(|number| filter.wants(&dead_letter(*number))).count();
        let all = DeadLetterFilter::default();
        assert_eq!(count(&all), 30);
        assert_eq!(count(&DeadLetterFilter { codes: vec![Code::NotJson, Code::TooDeep], ..all.clone() }), 15);
        assert_eq!(count(&DeadLetterFilter { dataset: Some("orders".to_owned()), ..all.clone() }), 20);
        assert_eq!(count(&DeadLetterFilter { stream: Some("a".to_owned()), ..all.clone() }), 6);
        let at = |number: i64| Some(1_736_764_200_000 + number);
        assert_eq!(count(&DeadLetterFilter { since_ms: at(10), until_ms: at(12), ..all }), 2);
    }

    #[test]
    fn a_folder_is_left_out_only_if_nothing_in_it_can_be_wanted() {
        let folder = |code: Code, day: &str| Folder::Error {
            code,
            day: day_of(parse_rfc3339(day.as_bytes()).unwrap().div_euclid(DAY_MS)),
        };
        let (before, on, after) = ("2025-01-12T00:00:00Z", "2025-01-13T00:00:00Z", "2025-01-14T00:00:00Z");
        let ms = |text: &str| parse_rfc3339(text.as_bytes());
        let filter = DeadLetterFilter {
            codes: vec![Code::NotJson],
            since_ms: ms("2025-01-13T10:00:00Z"),
            until_ms: ms(after),
            ..DeadLetterFilter::default()
        };
        let may_have = |code: Code, day: &str| filter.may_have(&folder(code, day));
        assert!(may_have(Code::NotJson, on));
        assert!(!may_have(Code::TooDeep, on));
        assert!(!may_have(Code::NotJson, before));
        assert!(!may_have(Code::NotJson, after), "the end is not in it");
        assert!(DeadLetterFilter::default().may_have(&folder(Code::TooDeep, before)));
    }
}
