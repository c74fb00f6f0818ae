//! The fast scan of a GetRecords response: JSON with records in base64.
//!
//! The SDK's own decoding reads each byte of a record four times and allocates twice for each record; it costs as much as all
//! later steps. Here a record's bytes are found by a search for the closing quote, and are decoded from there to their place in
//! the chunk.
//!
//! Owns: the form of the response. Does not own: where its bytes come from (`answer`), or what a record becomes (`batch`).
//!
//! The scan is strict: it rejects a response that it does not recognize in full, and the SDK decodes that instead. So it may reject
//! what the SDK accepts, and never accepts what the SDK would read in another way. Keys may come in any order, and unknown keys are
//! skipped. A duplicate key, or a record without data or sequence number, is not recognized.

use std::borrow::Cow;

use aws_smithy_types::DateTime;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::source::kinesis::batch::{Batch, Malformed, RecordMeta, millis};

/// What a response says besides its records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) next: Option<String>,
    pub(super) behind_ms: i64,
    pub(super) children: Vec<String>,
}

/// A response that was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejected {
    /// The scan does not recognize its form: what it found.
    NotRecognized(&'static str),
    /// Its form is recognized, and its contents cannot be right.
    Malformed(Malformed),
}

impl From<Malformed> for Rejected {
    fn from(malformed: Malformed) -> Self {
        Rejected::Malformed(malformed)
    }
}

type Scanned<T> = Result<T, Rejected>;

const fn not_recognized<T>(what: &'static str) -> Scanned<T> {
    Err(Rejected::NotRecognized(what))
}

/// Adds the records of a response to a batch. After a failure the batch is not usable.
pub(super) fn scan(body: &[u8], batch: &mut Batch) -> Scanned<Envelope> {
    let mut scanner = Scanner { bytes: body, at: 0 };
    let (mut next, mut behind, mut children, mut records) = (None, None, None, None);
    let mut is_first = true;
    scanner.expect(b'{')?;
    while let Some(key) = scanner.key(&mut is_first)? {
        match &*key.unescaped()? {
            b"Records" => once(&mut records, scanner.records(batch)?)?,
            b"NextShardIterator" => once(&mut next, scanner.value::<Option<String>>()?)?,
            b"MillisBehindLatest" => once(&mut behind, scanner.value::<Option<i64>>()?)?,
            b"ChildShards" => once(&mut children, scanner.value::<Option<Vec<Child>>>()?)?,
            _ => scanner.skip(key)?,
        }
    }
    scanner.space();
    if scanner.at != body.len() {
        return not_recognized("bytes after the response");
    }
    if records.is_none() {
        return not_recognized("a response without records");
    }
    let children = children.flatten().unwrap_or_default().into_iter().map(|child| child.shard_id).collect();
    Ok(Envelope { next: next.flatten(), behind_ms: behind.flatten().unwrap_or(0), children })
}

/// A child of the shard. Its other fields are in the list of shards as well.
#[derive(Deserialize)]
struct Child {
    #[serde(rename = "ShardId")]
    shard_id: String,
}

fn once<T>(place: &mut Option<T>, value: T) -> Scanned<()> {
    if place.replace(value).is_some() { not_recognized("a duplicate key") } else { Ok(()) }
}

/// A string as it is in the response.
#[derive(Clone, Copy)]
struct Text<'a> {
    /// Including its quotes.
    quoted: &'a [u8],
    is_escaped: bool,
}

impl<'a> Text<'a> {
    fn raw(self) -> &'a [u8] {
        &self.quoted[1..self.quoted.len() - 1]
    }

    fn text(self) -> Scanned<Cow<'a, str>> {
        // Without escapes it is its own text, unless it has a character that JSON does not allow in a string.
        if !self.is_escaped && self.raw().iter().all(|byte| *byte >= 0x20) {
            return std::str::from_utf8(self.raw())
                .map_or(not_recognized("a text that is not UTF-8"), |text| Ok(text.into()));
        }
        serde_json::from_slice::<String>(self.quoted).map_or(not_recognized("a string"), |text| Ok(text.into()))
    }

    /// Its bytes, for a comparison. They need not be valid UTF-8 if there are no escapes.
    fn unescaped(self) -> Scanned<Cow<'a, [u8]>> {
        if !self.is_escaped {
            return Ok(self.raw().into());
        }
        Ok(self.text()?.into_owned().into_bytes().into())
    }

    /// Appends the bytes that it encodes in base64.
    fn decode(self, into: &mut Vec<u8>) -> Scanned<()> {
        let text;
        let base64 = if self.is_escaped {
            text = self.text()?;
            text.as_bytes()
        } else {
            self.raw()
        };
        base64_simd::STANDARD.decode_append(base64, into).or(not_recognized("base64"))
    }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// Skips white space, and then the next byte if it is this one. Returns whether it was.
    fn is_next(&mut self, byte: u8) -> bool {
        self.space();
        let is_next = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8) -> Scanned<()> {
        if self.is_next(byte) { Ok(()) } else { not_recognized("punctuation") }
    }

    /// The next key of an object, including its colon; `None` at the object's end.
    fn key(&mut self, is_first: &mut bool) -> Scanned<Option<Text<'a>>> {
        if self.is_next(b'}') {
            return Ok(None);
        }
        if !std::mem::take(is_first) {
            self.expect(b',')?;
        }
        let key = self.string()?;
        self.expect(b':')?;
        Ok(Some(key))
    }

    fn string(&mut self) -> Scanned<Text<'a>> {
        self.expect(b'"')?;
        let begin = self.at - 1;
        let mut is_escaped = false;
        loop {
            let Some(found) = memchr::memchr2(b'"', b'\\', &self.bytes[self.at..]) else {
                return not_recognized("a string without an end");
            };
            self.at += found + 1;
            if self.bytes[self.at - 1] == b'"' {
                return Ok(Text { quoted: &self.bytes[begin..self.at], is_escaped });
            }
            is_escaped = true;
            if self.at == self.bytes.len() {
                return not_recognized("a string without an end");
            }
            self.at += 1;
        }
    }

    /// A value of a type, parsed by serde.
    fn value<T: DeserializeOwned>(&mut self) -> Scanned<T> {
        let mut values = serde_json::Deserializer::from_slice(&self.bytes[self.at..]).into_iter::<T>();
        let Some(Ok(value)) = values.next() else { return not_recognized("a value") };
        self.at += values.byte_offset();
        Ok(value)
    }

    /// Skips the value of an unknown key. Both must be valid JSON.
    fn skip(&mut self, key: Text<'_>) -> Scanned<()> {
        key.text()?;
        self.value::<IgnoredAny>().map(|_| ())
    }

    fn records(&mut self, batch: &mut Batch) -> Scanned<()> {
        self.expect(b'[')?;
        if self.is_next(b']') {
            return Ok(());
        }
        loop {
            self.record(batch)?;
            if self.is_next(b']') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn record(&mut self, batch: &mut Batch) -> Scanned<()> {
        let (mut data, mut sequence, mut arrival, mut key) = (None, None, None, None);
        let mut is_first = true;
        self.expect(b'{')?;
        while let Some(name) = self.key(&mut is_first)? {
            match &*name.unescaped()? {
                b"Data" => once(&mut data, self.string()?)?,
                b"SequenceNumber" => once(&mut sequence, self.string()?.text()?)?,
                b"PartitionKey" => once(&mut key, self.string()?.text()?)?,
                b"ApproximateArrivalTimestamp" => once(&mut arrival, self.value::<Option<f64>>()?)?,
                _ => self.skip(name)?,
            }
        }
        let (Some(data), Some(sequence)) = (data, sequence) else {
            return not_recognized("a record without data or sequence number");
        };
        let start = batch.buffer.len();
        data.decode(&mut batch.buffer)?;
        let arrival_ms = arrival.flatten().map(|seconds| millis(&DateTime::from_secs_f64(seconds)));
        batch.add(start, RecordMeta { sequence: &sequence, arrival_ms, partition_key: key.as_deref() })?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests/decode.rs"]
mod tests;
