//! A range of a shard of a configured stream, read again.
//!
//! Owns: where the slice ends: after exactly the records that were read into the range the first time. Does not own: reading the shard
//! (its own source).
//!
//! A shard that has nothing more before the end of the range has lost records, or is not the shard that was read. Then the slice fails:
//! the records are missing, and must not be taken for the whole range.

use std::time::Duration;

use async_trait::async_trait;
use checkpoints::Position;
use mutations::mutated;
use tokio::time::Instant;

use crate::source::{Read, ShardReader, SourceError};

/// How long a shard may seem to have nothing more before the end of the range.
const TIP_MAX: Duration = Duration::from_secs(30);
/// The time between two reads meanwhile.
const TIP_WAIT: Duration = Duration::from_millis(500);

/// Reads `(after, through]` of a shard.
pub(super) struct StreamSlice {
    inner: Box<dyn ShardReader>,
    place: String,
    at: Position,
    through: Position,
    /// Since when the shard has nothing more.
    at_tip_since: Option<Instant>,
}

impl StreamSlice {
    /// `inner` was opened after `at`.
    pub(super) fn new(inner: Box<dyn ShardReader>, place: String, at: Position, through: Position) -> Self {
        StreamSlice { inner, place, at, through, at_tip_since: None }
    }

    fn ends_early(&self) -> SourceError {
        let StreamSlice { place, at, through, .. } = self;
        let problem = format!(
            "it has nothing more after {at}, but the range was read through {through}: the records have expired, or the source \
             is another one now. Plan again: what is not in the stream any more may be in raw/"
        );
        SourceError::Unreadable { place: place.clone(), problem }
    }
}

#[async_trait]
impl ShardReader for StreamSlice {
    async fn ready(&mut self, idle: Duration) {
        if self.at_tip_since.is_some() {
            tokio::time::sleep(TIP_WAIT).await;
        }
        if self.at < self.through {
            self.inner.ready(idle).await;
        }
    }

    async fn read(&mut self, bytes: usize, buffer: Vec<u8>) -> Result<Read, SourceError> {
        if self.at >= self.through {
            return Ok(Read::End { children: Vec::new() });
        }
        match self.inner.read(bytes, buffer).await? {
            Read::Chunk { chunk, through, source_bytes } => {
                self.at_tip_since = None;
                if through < self.through {
                    self.at = through.clone();
                    return Ok(Read::Chunk { chunk, through, source_bytes });
                }
                self.at = self.through.clone();
                let chunk = match &self.through {
                    Position::At { sequence, sub } if !mutated!(SliceNotCut) => chunk.through(sequence.as_str(), *sub),
                    _ => chunk,
                };
                Ok(Read::Chunk { chunk, through: self.through.clone(), source_bytes })
            }
            Read::AtTip => {
                let since = *self.at_tip_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= TIP_MAX { Err(self.ends_early()) } else { Ok(Read::Empty { moved: false }) }
            }
            Read::End { .. } if self.through == Position::End => Ok(Read::End { children: Vec::new() }),
            Read::End { .. } => Err(self.ends_early()),
            other => Ok(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use pipeline::chunk::{Chunk, Frame, Framing};

    use super::*;

    /// A shard whose records have the sequence numbers 1 to `records`, five in a read, and what it says after them.
    struct Shard {
        next: u64,
        records: u64,
        ends: bool,
    }

    #[async_trait]
    impl ShardReader for Shard {
        async fn ready(&mut self, _: Duration) {}

        async fn read(&mut self, _: usize, _: Vec<u8>) -> Result<Read, SourceError> {
            if self.next > self.records {
                return Ok(if self.ends { Read::End { children: Vec::new() } } else { Read::AtTip });
            }
            let (mut bytes, mut frames) = (Vec::new(), Vec::new());
            while self.next <= self.records && frames.len() < 5 {
                let start = u32::try_from(bytes.len()).unwrap();
                bytes.extend_from_slice(b"{}");
                frames.push(Frame {
                    bytes: start..start + 2,
                    sequence: self.next.to_string().into(),
                    sub_sequence: 0,
                    arrival_ms: None,
                    partition_key: None,
                    damage: None,
                });
                bytes.push(b'\n');
                self.next += 1;
            }
            let chunk = Chunk::new("s".into(), "a".into(), 0, bytes, Framing::Records(frames));
            Ok(Read::Chunk { chunk, through: at(self.next - 1), source_bytes: 1 })
        }
    }

    fn at(sequence: u64) -> Position {
        Position::at(sequence.into())
    }

    /// Reads a slice to its end: the sequence numbers of its records.
    async fn read(shard: Shard, after: Position, through: Position) -> Result<Vec<String>, SourceError> {
        let mut slice = StreamSlice::new(Box::new(shard), "a".to_owned(), after, through.clone());
        let (mut found, mut last) = (Vec::new(), None);
        loop {
            slice.ready(Duration::ZERO).await;
            match slice.read(1, Vec::new()).await? {
                Read::Chunk { chunk, through, .. } => {
                    let Framing::Records(frames) = chunk.framing() else { panic!() };
                    found.extend(frames.iter().map(|frame| frame.sequence.to_string()));
                    last = Some(through);
                }
                Read::End { .. } => break,
                _ => {}
            }
        }
        if through != Position::End && !found.is_empty() {
            assert_eq!(last, Some(through), "the position is the end of the range");
        }
        Ok(found)
    }

    fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
        range.map(|number| number.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_slice_ends_after_the_last_record_of_its_range() {
        let shard = |next: u64| Shard { next, records: 20, ends: false };
        assert_eq!(read(shard(1), Position::Beginning, at(7)).await, Ok(numbers(1..=7)));
        assert_eq!(read(shard(1), Position::Beginning, at(10)).await, Ok(numbers(1..=10)));
        assert_eq!(read(shard(8), at(7), at(9)).await, Ok(numbers(8..=9)));
        assert_eq!(read(shard(8), at(7), at(7)).await, Ok(Vec::new()), "it was read before");
        let ended = Shard { next: 18, records: 20, ends: true };
        assert_eq!(read(ended, at(17), Position::End).await, Ok(numbers(18..=20)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_has_less_than_the_range_fails_and_is_not_taken_for_whole() {
        for ends in [false, true] {
            let begun = Instant::now();
            let error = read(Shard { next: 1, records: 6, ends }, Position::Beginning, at(9)).await.unwrap_err();
            assert!(error.to_string().contains("it has nothing more after 6"), "{error}");
            assert!(begun.elapsed() <= TIP_MAX + TIP_WAIT * 2, "{ends}: {:?}", begun.elapsed());
        }
    }
}
