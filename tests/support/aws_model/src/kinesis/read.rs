//! GetShardIterator and GetRecords.
//!
//! Owns: iterators as text, the position of each kind of start, and the contents of an answer. Does not own: which records
//! can be read (`shard`). An iterator contains a place in a shard's log and its own age. It is valid for 300 s and may be used
//! any number of times.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::api::{Chunk, Error, ErrorKind, Result, Start};
use super::sequence::SequenceNumber;
use super::shard::Shard;
use super::write::rate_exceeded;
use super::{Kinesis, State};

pub(super) const LIFETIME_MS: i64 = 300_000;
const RECORDS_MAX: usize = 10_000;

/// A place in a shard, as clients get it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Iterator {
    stream: String,
    stream_created_ms: i64,
    shard: u32,
    ordinal: u64,
    made_ms: i64,
}

impl Iterator {
    fn text(&self, nonce: u64) -> String {
        let Iterator { stream, stream_created_ms, shard, ordinal, made_ms } = self;
        STANDARD.encode(format!("iterator/{stream}/{stream_created_ms}/{shard}/{ordinal}/{made_ms}/{nonce}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        let text = std::str::from_utf8(&bytes).ok()?;
        let parts: Vec<&str> = text.split('/').collect();
        let ["iterator", stream, created, shard, ordinal, made, _nonce] = parts[..] else { return None };
        Some(Iterator {
            stream: stream.to_owned(),
            stream_created_ms: created.parse().ok()?,
            shard: shard.parse().ok()?,
            ordinal: ordinal.parse().ok()?,
            made_ms: made.parse().ok()?,
        })
    }
}

impl Kinesis {
    /// An iterator at `start` of a shard.
    ///
    /// # Errors
    /// If there is no such stream or shard, the sequence number is of another shard, or the time is in the future.
    pub fn shard_iterator(&self, stream: &str, shard: &str, start: &Start) -> Result<String> {
        self.look(|state, now_ms| {
            let (number, ordinal) = state.place(stream, shard, start, now_ms)?;
            let stream_created_ms = state.stream(stream, now_ms)?.created_ms;
            let iterator =
                Iterator { stream: stream.to_owned(), stream_created_ms, shard: number, ordinal, made_ms: now_ms };
            Ok(iterator.text(state.nonce()))
        })
    }

    /// Up to `limit` records (default 10,000) from an iterator on, 10 MiB at most.
    ///
    /// # Errors
    /// If the iterator is malformed or older than 300 s, the shard is gone, or its limit is reached.
    pub fn get_records(&self, iterator: &str, limit: Option<usize>) -> Result<Chunk> {
        self.look(|state, now_ms| state.get_records(iterator, limit, now_ms))
    }
}

impl State {
    /// The number of a shard, and the place of `start` in it.
    pub(super) fn place(&mut self, stream: &str, shard: &str, start: &Start, now_ms: i64) -> Result<(u32, u64)> {
        let account = self.account.clone();
        let found = self.shard(stream, shard, now_ms)?;
        let ordinal = match start {
            Start::TrimHorizon => found.beginning(),
            Start::Latest => found.end(),
            Start::At(text) => {
                let sequence = issued(found, stream, &account, text)?;
                found.place(|record| record.sequence < sequence)
            }
            Start::After(text) => {
                let sequence = issued(found, stream, &account, text)?;
                found.place(|record| record.sequence <= sequence)
            }
            Start::Timestamp(at_ms) if *at_ms > now_ms => {
                return Err(Error::argument(format!(
                    "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
                     timestampInMillis: {at_ms}, currentTimestampInMillis: {now_ms}"
                )));
            }
            Start::Timestamp(at_ms) => found.place(|record| record.arrived_ms < *at_ms),
        };
        Ok((found.number, ordinal))
    }

    pub(super) fn shard(&mut self, stream: &str, shard: &str, now_ms: i64) -> Result<&mut Shard> {
        let missing =
            Error::not_found(format!("Shard {shard} in stream {stream} under account {} does not exist", self.account));
        // AWS also takes the digits alone.
        let number = shard.strip_prefix("shardId-").unwrap_or(shard).parse().ok();
        self.stream(stream, now_ms)?.shards.get_mut(&number.ok_or_else(|| missing.clone())?).ok_or(missing)
    }

    fn get_records(&mut self, text: &str, limit: Option<usize>, now_ms: i64) -> Result<Chunk> {
        let limit = limit.unwrap_or(RECORDS_MAX);
        if !(1..=RECORDS_MAX).contains(&limit) {
            let bound = if limit == 0 { "greater than or equal to 1" } else { "less than or equal to 10000" };
            return Err(Error::constraint(limit, "limit", &format!("have value {bound}")));
        }
        let iterator = Iterator::parse(text).ok_or_else(|| Error::argument("Invalid ShardIterator."))?;
        if now_ms - iterator.made_ms > LIFETIME_MS {
            return Err(Error::new(
                ErrorKind::ExpiredIterator,
                format!(
                    "Iterator expired. The iterator was created at time {} while right now it is {now_ms} which is further \
                     in the future than the tolerated delay of {LIFETIME_MS} milliseconds.",
                    iterator.made_ms
                ),
            ));
        }
        let (settings, account, nonce) = (self.settings.clone(), self.account.clone(), self.nonce());
        let stream_name = &iterator.stream;
        if self.stream(stream_name, now_ms)?.created_ms != iterator.stream_created_ms {
            return Err(self.no_stream(stream_name));
        }
        let shard = self.shard(stream_name, &super::shard::shard_name(iterator.shard), now_ms)?;
        if settings.read_limits && !shard.reads.admits_any(now_ms) {
            return Err(rate_exceeded(&shard.name(), stream_name, &account));
        }
        let mut page = shard.read(iterator.ordinal, limit, now_ms);
        if !page.records.is_empty() {
            shard.answers += 1;
            if settings.empty_answer_every.is_some_and(|every| shard.answers.is_multiple_of(every.get())) {
                page = shard.read(iterator.ordinal, 0, now_ms);
            }
        }
        if settings.read_limits {
            shard.reads.note(now_ms, page.bytes as u64);
        }
        let ends = page.is_end && (page.records.is_empty() || settings.end_with_last_records);
        let next = Iterator { ordinal: page.next, made_ms: now_ms, ..iterator };
        Ok(Chunk {
            records: page.records,
            next_iterator: (!ends).then(|| next.text(nonce)),
            millis_behind_latest: page.millis_behind_latest,
            children: if ends { shard.children.clone() } else { Vec::new() },
        })
    }
}

/// Parses a sequence number and checks that it is the shard's.
fn issued(shard: &Shard, stream: &str, account: &str, text: &str) -> Result<SequenceNumber> {
    let name = shard.name();
    let used = format!(
        "StartingSequenceNumber {text} used in GetShardIterator on shard {name} in stream {stream} under account {account} is invalid"
    );
    let sequence = SequenceNumber::parse(text).ok_or_else(|| Error::argument(format!("{used}.")))?;
    if sequence.shard() != shard.number {
        return Err(Error::argument(format!(
            "Invalid StartingSequenceNumber. It encodes {}, while it was used in a call to a shard with {name}",
            super::shard::shard_name(sequence.shard())
        )));
    }
    if !shard.issued(sequence) {
        return Err(Error::argument(format!("{used} because it did not come from this stream.")));
    }
    Ok(sequence)
}
