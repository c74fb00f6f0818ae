//! The scan of a GetRecords answer: JSON with records in base64.
//!
//! The SDK's own decoding looks at each byte of a record four times and allocates twice for each; it costs as much as all
//! that comes after it. Here a record's bytes are found by a search for the closing quote, and decoded from there to their
//! place in the chunk.
//!
//! Owns: the form of the answer. Does not own: where its bytes come from (`answer`), or what a record is made of (`batch`).
//!
//! The scan is strict: an answer that it does not understand in full is refused, and decoded by the SDK instead. So it may
//! refuse what the SDK takes, and never takes what it would read otherwise. Keys may come in any order and unknown ones are
//! passed over; a key that is there twice, or a record without data or sequence number, is not understood.

use std::borrow::Cow;

use aws_smithy_types::DateTime;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::source::kinesis::batch::{About, Batch, Malformed, millis};

/// What an answer says beside its records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) next: Option<String>,
    pub(super) behind_ms: i64,
    pub(super) children: Vec<String>,
}

/// An answer that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// It is not of the form that this scan knows: what it stumbled over.
    NotUnderstood(&'static str),
    /// It is of that form, and can't be true.
    Malformed(Malformed),
}

impl From<Malformed> for NotTaken {
    fn from(malformed: Malformed) -> Self {
        NotTaken::Malformed(malformed)
    }
}

type Scanned<T> = Result<T, NotTaken>;

const fn not_understood<T>(what: &'static str) -> Scanned<T> {
    Err(NotTaken::NotUnderstood(what))
}

/// Adds the records of an answer to a batch. If it fails, the batch is good for nothing.
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
            _ => scanner.pass(key)?,
        }
    }
    scanner.space();
    if scanner.at != body.len() {
        return not_understood("bytes behind the answer");
    }
    if records.is_none() {
        return not_understood("an answer without records");
    }
    let children = children.flatten().unwrap_or_default().into_iter().map(|child| child.shard_id).collect();
    Ok(Envelope { next: next.flatten(), behind_ms: behind.flatten().unwrap_or(0), children })
}

/// A child of the shard; the rest of what is said of it is in the list of shards.
#[derive(Deserialize)]
struct Child {
    #[serde(rename = "ShardId")]
    shard_id: String,
}

fn once<T>(place: &mut Option<T>, value: T) -> Scanned<()> {
    if place.replace(value).is_some() { not_understood("a key that is there twice") } else { Ok(()) }
}

/// A string as it stands, between its quotes.
#[derive(Clone, Copy)]
struct Text<'a> {
    /// With the quotes.
    quoted: &'a [u8],
    is_escaped: bool,
}

impl<'a> Text<'a> {
    fn raw(self) -> &'a [u8] {
        &self.quoted[1..self.quoted.len() - 1]
    }

    fn text(self) -> Scanned<Cow<'a, str>> {
        // Without escapes it is its own text, unless it holds what no JSON string may.
        if !self.is_escaped && self.raw().iter().all(|byte| *byte >= 0x20) {
            return std::str::from_utf8(self.raw())
                .map_or(not_understood("a text that is not UTF-8"), |text| Ok(text.into()));
        }
        serde_json::from_slice::<String>(self.quoted).map_or(not_understood("a string"), |text| Ok(text.into()))
    }

    /// Its bytes, for a comparison: without escapes nobody has looked yet whether they are a text.
    fn unescaped(self) -> Scanned<Cow<'a, [u8]>> {
        if !self.is_escaped {
            return Ok(self.raw().into());
        }
        Ok(self.text()?.into_owned().into_bytes().into())
    }

    /// Appends the bytes that it is base64 of.
    fn decode(self, into: &mut Vec<u8>) -> Scanned<()> {
        let text;
        let base64 = if self.is_escaped {
            text = self.text()?;
            text.as_bytes()
        } else {
            self.raw()
        };
        base64_simd::STANDARD.decode_append(base64, into).or(not_understood("base64"))
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

    /// Whether the next byte behind white space is this one; then it is passed.
    fn is_next(&mut self, byte: u8) -> bool {
        self.space();
        let is_next = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8) -> Scanned<()> {
        if self.is_next(byte) { Ok(()) } else { not_understood("punctuation") }
    }

    /// The next key of an object, up to its colon; `None` at the object's end.
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
                return not_understood("a string without an end");
            };
            self.at += found + 1;
            if self.bytes[self.at - 1] == b'"' {
                return Ok(Text { quoted: &self.bytes[begin..self.at], is_escaped });
            }
            is_escaped = true;
            if self.at == self.bytes.len() {
                return not_understood("a string without an end");
            }
            self.at += 1;
        }
    }

    /// A value of some type, read by serde.
    fn value<T: DeserializeOwned>(&mut self) -> Scanned<T> {
        let mut values = serde_json::Deserializer::from_slice(&self.bytes[self.at..]).into_iter::<T>();
        let Some(Ok(value)) = values.next() else { return not_understood("a value") };
        self.at += values.byte_offset();
        Ok(value)
    }

    /// Passes over the value of a key that means nothing here, and yet must be one.
    fn pass(&mut self, key: Text<'_>) -> Scanned<()> {
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
                _ => self.pass(name)?,
            }
        }
        let (Some(data), Some(sequence)) = (data, sequence) else {
            return not_understood("a record without data or sequence number");
        };
        let start = batch.buffer.len();
        data.decode(&mut batch.buffer)?;
        let arrival_ms = arrival.flatten().map(|seconds| millis(&DateTime::from_secs_f64(seconds)));
        batch.add(start, About { sequence: &sequence, arrival_ms, partition_key: key.as_deref() })?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests/decode.rs"]
mod tests;
