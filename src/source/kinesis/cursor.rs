//! The progress of reading one shard.
//!
//! Owns: the position that was read to, and where the next request begins. They differ before the first record, and after responses
//! that advance without a record. Does not own: requests, or records.
//!
//! | position at the start | the first request begins | a later one |
//! |---|---|---|
//! | `Beginning` | at the oldest record | after the last record |
//! | `Since` | at the time | after the last record |
//! | `Latest` | at the tip | at the time of the first request, then after the last record |
//! | `At` | **at** the record; `batch` leaves out what was read of it | after the last record |
//!
//! Beginning at the last record that was read, and not after it, costs one record and shows two things. It returns the rest of an
//! aggregate if another consumer committed half of it. And it shows whether the record still exists. If it does not, records after it
//! may have expired unread, since the stream keeps them for a limited time. Then a warning is logged; nothing can bring them back.

use aws_sdk_kinesis::types::{ShardIteratorType, StartingPosition};
use aws_smithy_types::DateTime;
use checkpoints::{Position, SequenceNumber, ShardId, StreamName};

use crate::source::kinesis::batch::Batch;
use crate::source::kinesis::service::Failure;
use crate::source::losses;

/// Where a request begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Begin {
    Oldest,
    Since { ms: u64 },
    Tip,
    At(SequenceNumber),
    After(SequenceNumber),
}

/// The progress of reading a shard.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    position: Position,
    begin: Begin,
    /// When the newest record arrived that was read.
    newest_ms: Option<i64>,
}

impl Begin {
    /// The service's name for it.
    pub(super) fn kind(&self) -> ShardIteratorType {
        match self {
            Begin::Oldest => ShardIteratorType::TrimHorizon,
            Begin::Since { .. } => ShardIteratorType::AtTimestamp,
            Begin::Tip => ShardIteratorType::Latest,
            Begin::At(_) => ShardIteratorType::AtSequenceNumber,
            Begin::After(_) => ShardIteratorType::AfterSequenceNumber,
        }
    }

    pub(super) fn sequence(&self) -> Option<String> {
        match self {
            Begin::At(sequence) | Begin::After(sequence) => Some(sequence.to_string()),
            Begin::Oldest | Begin::Since { .. } | Begin::Tip => None,
        }
    }

    pub(super) fn time(&self) -> Option<DateTime> {
        match self {
            Begin::Since { ms } => Some(DateTime::from_millis(i64::try_from(*ms).unwrap_or(i64::MAX))),
            Begin::Oldest | Begin::Tip | Begin::At(_) | Begin::After(_) => None,
        }
    }

    /// The same for a subscription.
    pub(super) fn starting_position(&self) -> StartingPosition {
        StartingPosition::builder()
            .r#type(self.kind())
            .set_sequence_number(self.sequence())
            .set_timestamp(self.time())
            .build()
            .expect("it has a type")
    }

    /// The failure, given that the service may have rejected this beginning as an invalid argument.
    pub(super) fn refused(&self, failure: Failure) -> Failure {
        match (self, failure) {
            (Begin::At(sequence) | Begin::After(sequence), Failure::Invalid(message)) => Failure::Refused(format!(
                "the position {sequence} is not in this shard: was the stream recreated, or the checkpoint edited by hand? \
                 ({message})"
            )),
            // A time of the configuration may be ahead of the service's clock.
            (Begin::Since { .. }, Failure::Invalid(message)) => Failure::Unavailable(message),
            (_, failure) => failure,
        }
    }
}

impl Cursor {
    /// A cursor after a position; `None` after the end of a shard.
    pub(super) fn new(after: &Position) -> Option<Self> {
        let begin = match after {
            Position::Beginning => Begin::Oldest,
            Position::Since { ms } => Begin::Since { ms: *ms },
            Position::Latest => Begin::Tip,
            Position::At { sequence, .. } => Begin::At(sequence.clone()),
            Position::End => return None,
        };
        Some(Cursor { position: after.clone(), begin, newest_ms: None })
    }

    /// The position that was read to.
    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    /// Where the next iterator or subscription begins.
    pub(super) fn begin(&self) -> &Begin {
        &self.begin
    }

    /// When the newest record arrived that was read here.
    pub(super) fn newest_ms(&self) -> Option<i64> {
        self.newest_ms
    }

    /// Notes that a request was sent at this time of the service. The next request must not miss what arrives from now on.
    pub(super) fn begun(&mut self, now_ms: i64) {
        if self.begin == Begin::Tip {
            self.begin = Begin::Since { ms: u64::try_from(now_ms).unwrap_or(0) };
        }
    }

    /// Notes that records were read.
    pub(super) fn read(&mut self, batch: &Batch, stream: &StreamName, shard: &ShardId) {
        let Some(first) = batch.first() else { return };
        if let Begin::At(sequence) = &self.begin
            && first > sequence
        {
            losses::announce();
            tracing::warn!(
                %stream, %shard, position = %self.position, %first,
                "the last record that was read is no longer in the stream; records after it may have expired unread"
            );
        }
        self.position = batch.through();
        self.newest_ms = self.newest_ms.max(batch.newest_ms());
        if let Position::At { sequence, .. } = &self.position {
            self.begin = Begin::After(sequence.clone());
        }
    }

    /// Notes that the service said where to continue: after what was read, or after a range without records.
    pub(super) fn continue_after(&mut self, sequence: SequenceNumber) {
        self.begin = Begin::After(sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kinesis::batch::RecordMeta;

    fn at(sequence: u64, sub: u64) -> Position {
        Position::At { sequence: sequence.into(), sub }
    }

    #[test]
    fn reading_begins_at_its_position_and_continues_after_the_last_record() {
        let begins = [
            (Position::Beginning, Begin::Oldest),
            (Position::Since { ms: 5 }, Begin::Since { ms: 5 }),
            (at(7, 2), Begin::At(7.into())),
        ];
        let (stream, shard) = (StreamName::new("s").unwrap(), ShardId::new("shardId-0").unwrap());
        for (position, begin) in begins {
            let mut cursor = Cursor::new(&position).unwrap();
            cursor.begun(99);
            assert_eq!((cursor.position(), cursor.begin()), (&position, &begin));
            let mut batch = Batch::new(Vec::new(), position.clone(), 10);
            cursor.read(&batch, &stream, &shard);
            assert_eq!((cursor.position(), cursor.begin()), (&position, &begin), "nothing was read");
            batch.add(0, RecordMeta { sequence: "9", arrival_ms: None, partition_key: None }).unwrap();
            cursor.read(&batch, &stream, &shard);
            assert_eq!((cursor.position(), cursor.begin()), (&at(9, 0), &Begin::After(9.into())));
        }
        assert!(Cursor::new(&Position::End).is_none());
    }

    #[test]
    fn reading_from_the_tip_misses_nothing_when_it_begins_again() {
        let mut cursor = Cursor::new(&Position::Latest).unwrap();
        assert_eq!(cursor.begin(), &Begin::Tip);
        cursor.begun(99);
        cursor.begun(120);
        assert_eq!((cursor.position(), cursor.begin()), (&Position::Latest, &Begin::Since { ms: 99 }));
    }
}
