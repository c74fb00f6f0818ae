//! Where the reading of one shard stands.
//!
//! Owns: the position that was read to, and where a request for more begins: they differ before the first record, and after
//! answers that move on without one. Does not own: requests, or records.
//!
//! | position at the start | the first request begins | a later one |
//! |---|---|---|
//! | `Beginning` | at the oldest record | behind the last record |
//! | `Since` | at the time | behind the last record |
//! | `Latest` | at the tip | at the time of the first request, then behind the last record |
//! | `At` | **at** the record, which `batch` leaves out as far as it was read | behind the last record |
//!
//! Beginning at the record that was read last, and not behind it, costs one record, and shows two things: the rest of an
//! aggregate that another consumer committed half of; and whether the record is still there. If it is not, records behind it
//! may be gone, too, unread: the stream keeps them for a time only. That is told in the log; nothing can bring them back.

use aws_sdk_kinesis::types::{ShardIteratorType, StartingPosition};
use aws_smithy_types::DateTime;
use checkpoints::{Position, SequenceNumber, ShardId};

use crate::source::kinesis::batch::Batch;
use crate::source::kinesis::service::Failure;

/// Where a request begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Begin {
    Oldest,
    Since { ms: u64 },
    Tip,
    At(SequenceNumber),
    Behind(SequenceNumber),
}

/// Where the reading of a shard stands.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    position: Position,
    begin: Begin,
}

impl Begin {
    /// What the service calls it.
    pub(super) fn kind(&self) -> ShardIteratorType {
        match self {
            Begin::Oldest => ShardIteratorType::TrimHorizon,
            Begin::Since { .. } => ShardIteratorType::AtTimestamp,
            Begin::Tip => ShardIteratorType::Latest,
            Begin::At(_) => ShardIteratorType::AtSequenceNumber,
            Begin::Behind(_) => ShardIteratorType::AfterSequenceNumber,
        }
    }

    pub(super) fn sequence(&self) -> Option<String> {
        match self {
            Begin::At(sequence) | Begin::Behind(sequence) => Some(sequence.to_string()),
            Begin::Oldest | Begin::Since { .. } | Begin::Tip => None,
        }
    }

    pub(super) fn time(&self) -> Option<DateTime> {
        match self {
            Begin::Since { ms } => Some(DateTime::from_millis(i64::try_from(*ms).unwrap_or(i64::MAX))),
            Begin::Oldest | Begin::Tip | Begin::At(_) | Begin::Behind(_) => None,
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

    /// What it means that the service finds an argument invalid.
    pub(super) fn refused(&self, failure: Failure) -> Failure {
        match (self, failure) {
            (Begin::At(sequence) | Begin::Behind(sequence), Failure::Invalid(message)) => Failure::Refused(format!(
                "the position {sequence} is none of this shard: was the stream made anew, or the checkpoint changed by hand? \
                 ({message})"
            )),
            // This machine's clock may be ahead of the service's.
            (Begin::Since { .. }, Failure::Invalid(message)) => Failure::Unavailable(message),
            (_, failure) => failure,
        }
    }
}

impl Cursor {
    /// A reading that begins behind `after`; `None` if there is nothing behind it.
    pub(super) fn new(after: &Position) -> Option<Self> {
        let begin = match after {
            Position::Beginning => Begin::Oldest,
            Position::Since { ms } => Begin::Since { ms: *ms },
            Position::Latest => Begin::Tip,
            Position::At { sequence, .. } => Begin::At(sequence.clone()),
            Position::End => return None,
        };
        Some(Cursor { position: after.clone(), begin })
    }

    /// How far the shard was read.
    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    /// Where the next iterator or subscription begins.
    pub(super) fn begin(&self) -> &Begin {
        &self.begin
    }

    /// A request went out at this time: what arrives from now on is not to be missed by the next one.
    pub(super) fn begun(&mut self, now_ms: i64) {
        if self.begin == Begin::Tip {
            self.begin = Begin::Since { ms: u64::try_from(now_ms).unwrap_or(0) };
        }
    }

    /// Records were read.
    pub(super) fn read(&mut self, batch: &Batch, shard: &ShardId) {
        let Some(first) = batch.first() else { return };
        if let Begin::At(sequence) = &self.begin
            && first > sequence
        {
            tracing::warn!(
                %shard, position = %self.position, %first,
                "the record that was read last is no longer in the stream: others behind it may have been lost unread"
            );
        }
        self.position = batch.through();
        if let Position::At { sequence, .. } = &self.position {
            self.begin = Begin::Behind(sequence.clone());
        }
    }

    /// The service said where to go on, behind what was read, or passed over since no record is there.
    pub(super) fn go_on_behind(&mut self, sequence: SequenceNumber) {
        self.begin = Begin::Behind(sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kinesis::batch::About;

    fn at(sequence: u64, sub: u64) -> Position {
        Position::At { sequence: sequence.into(), sub }
    }

    #[test]
    fn a_reading_begins_at_its_position_and_goes_on_behind_the_last_record() {
        let begins = [
            (Position::Beginning, Begin::Oldest),
            (Position::Since { ms: 5 }, Begin::Since { ms: 5 }),
            (at(7, 2), Begin::At(7.into())),
        ];
        let shard = ShardId::new("shardId-0").unwrap();
        for (position, begin) in begins {
            let mut cursor = Cursor::new(&position).unwrap();
            cursor.begun(99);
            assert_eq!((cursor.position(), cursor.begin()), (&position, &begin));
            let mut batch = Batch::new(Vec::new(), position.clone(), 10);
            cursor.read(&batch, &shard);
            assert_eq!((cursor.position(), cursor.begin()), (&position, &begin), "nothing was read");
            batch.add(0, About { sequence: "9", arrival_ms: None, partition_key: None }).unwrap();
            cursor.read(&batch, &shard);
            assert_eq!((cursor.position(), cursor.begin()), (&at(9, 0), &Begin::Behind(9.into())));
        }
        assert!(Cursor::new(&Position::End).is_none());
    }

    #[test]
    fn a_reading_from_the_tip_that_has_to_begin_again_misses_nothing() {
        let mut cursor = Cursor::new(&Position::Latest).unwrap();
        assert_eq!(cursor.begin(), &Begin::Tip);
        cursor.begun(99);
        cursor.begun(120);
        assert_eq!((cursor.position(), cursor.begin()), (&Position::Latest, &Begin::Since { ms: 99 }));
    }
}
