//! How far a shard was read: sequence numbers, positions and the ranges between two positions.
//!
//! A [`Position`] says what was read. `At { sequence, sub }` means everything up to and including sub-record `sub` of the
//! record `sequence` (0 for a record that is not an aggregate). A [`ShardRange`] is what is between two positions,
//! `(after, through]`. Ranges of one shard, laid end to end, have no gap and no overlap.
//!
//! This file owns every text form of a position. There are two, and both have the sentinels `TRIM_HORIZON` and `SHARD_END`:
//!
//! | form | where | `Beginning` | `Since { 1736 }` | `Latest` | `At { 4959, 0 }` | `At { 4959, 3 }` | `End` |
//! |---|---|---|---|---|---|---|---|
//! | one text | JSON (manifests, named checkpoints), logs | `TRIM_HORIZON` | `AT_TIMESTAMP:1736` | `LATEST` | `4959` | `4959:3` | `SHARD_END` |
//! | text and number, as the Kinesis Client Library stores them | lease rows | `TRIM_HORIZON`, 0 | `AT_TIMESTAMP`, 1736 | `LATEST`, 0 | `4959`, 0 | `4959`, 3 | `SHARD_END`, 0 |
//!
//! `Since` and `Latest` are where the first reading of a shard starts. KCL keeps the time of `AT_TIMESTAMP` in its
//! configuration and ignores the number beside a sentinel. We store the time as that number: a time that is not stored would
//! move with every restart. A row that KCL wrote has 0 there, and is read from the first record on. Only KCL writes `Latest`:
//! its meaning changes until the first record is committed.
//!
//! Invariants:
//! - A position has exactly one text in each form.
//! - The order is `Beginning`, `Since` by time, `Latest`, then `At` by sequence number and by sub-record, then `End`.
//! - A range is never empty.
//!
//! Limits: a sequence number has at most 128 digits (Kinesis uses 56, which is more than a `u128` holds).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text::InvalidText;

/// The sentinel of [`Position::Beginning`], in every stored form.
pub const TRIM_HORIZON: &str = "TRIM_HORIZON";
/// The sentinel of [`Position::Since`], in every stored form.
pub const AT_TIMESTAMP: &str = "AT_TIMESTAMP";
/// The sentinel of [`Position::Latest`], in every stored form.
pub const LATEST: &str = "LATEST";
/// The sentinel of [`Position::End`], in every stored form.
pub const SHARD_END: &str = "SHARD_END";

/// The sequence number of a record in its shard: decimal digits, compared as a number.
///
/// Canonical: no sign, no leading zeros except for `0` itself, at most [`SequenceNumber::DIGITS_MAX`] digits. So equal
/// numbers are equal texts, and the longer text is the greater number.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SequenceNumber(Box<str>);

/// How far a shard was read, or where reading starts.
///
/// In JSON it is one string: see the table at the top of `position.rs`.
///
/// ```
/// use checkpoints::Position;
///
/// let position: Position = "49590338271490256608559692538361571095921575989136588898:3".parse()?;
/// assert!(Position::Beginning < position && position < Position::End);
/// assert_eq!(serde_json::to_string(&Position::Beginning).unwrap(), r#""TRIM_HORIZON""#);
/// # Ok::<(), checkpoints::InvalidText>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Position {
    /// Before the first record that the shard has.
    Beginning,
    /// Before the first record that arrived at this time or later.
    Since {
        /// Milliseconds since 1970.
        ms: u64,
    },
    /// After the records that existed when reading began.
    Latest,
    /// After a record, or after a sub-record of an aggregate.
    At {
        /// The record.
        sequence: SequenceNumber,
        /// The sub-record, counted from 0; 0 for a record that is not an aggregate.
        sub: u64,
    },
    /// After the last record of a shard that will get no more.
    End,
}

/// A part of a shard: everything after `after`, up to and including `through`. Never empty.
///
/// In JSON: `{"after":"TRIM_HORIZON","through":"4959:3"}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RangeText")]
pub struct ShardRange {
    after: Position,
    through: Position,
}

/// A range whose end is not after its start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("range ({after}, {through}] is empty: its end must be after its start")]
pub struct EmptyRange {
    /// The given start.
    pub after: Position,
    /// The given end.
    pub through: Position,
}

impl SequenceNumber {
    /// The most digits that a sequence number may have.
    pub const DIGITS_MAX: usize = 128;

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Position {
    /// Returns true if the first reading of a shard starts here, so nothing of the shard was read.
    #[must_use]
    pub fn is_start(&self) -> bool {
        matches!(self, Position::Beginning | Position::Since { .. } | Position::Latest)
    }

    /// The position after a record that is not an aggregate.
    #[must_use]
    pub fn at(sequence: SequenceNumber) -> Self {
        Self::At { sequence, sub: 0 }
    }

    /// The text half of the stored form: KCL's `checkpoint` or `pendingCheckpoint`.
    #[must_use]
    pub fn checkpoint(&self) -> &str {
        match self {
            Self::Beginning => TRIM_HORIZON,
            Self::Since { .. } => AT_TIMESTAMP,
            Self::Latest => LATEST,
            Self::At { sequence, .. } => sequence.as_str(),
            Self::End => SHARD_END,
        }
    }

    /// The number half of the stored form: KCL's `checkpointSubSequenceNumber` or `pendingCheckpointSubSequenceNumber`.
    #[must_use]
    pub fn sub_sequence_number(&self) -> u64 {
        match self {
            Self::At { sub, .. } => *sub,
            Self::Since { ms } => *ms,
            Self::Beginning | Self::Latest | Self::End => 0,
        }
    }

    /// Decodes the stored form: the inverse of [`checkpoint`](Self::checkpoint) and
    /// [`sub_sequence_number`](Self::sub_sequence_number).
    ///
    /// # Errors
    ///
    /// The text is neither a sentinel nor a sequence number, or a sentinel has a sub-sequence number.
    pub fn from_stored(checkpoint: &str, sub: u64) -> Result<Self, InvalidText> {
        let invalid = |problem: &str| Err(InvalidText::new("position", checkpoint, problem));
        match checkpoint {
            TRIM_HORIZON | LATEST | SHARD_END if sub != 0 => {
                invalid("has a sub-sequence number, which only a record can have")
            }
            TRIM_HORIZON => Ok(Self::Beginning),
            SHARD_END => Ok(Self::End),
            AT_TIMESTAMP => Ok(Self::Since { ms: sub }),
            LATEST => Ok(Self::Latest),
            digits => Ok(Self::At { sequence: SequenceNumber::try_from(digits)?, sub }),
        }
    }
}

impl ShardRange {
    /// The range `(after, through]`.
    ///
    /// # Errors
    ///
    /// `through` is not after `after`.
    pub fn new(after: Position, through: Position) -> Result<Self, EmptyRange> {
        if through > after { Ok(Self { after, through }) } else { Err(EmptyRange { after, through }) }
    }

    /// Where the range starts; this position itself is not in it.
    #[must_use]
    pub fn after(&self) -> &Position {
        &self.after
    }

    /// Where the range ends; this position is in it.
    #[must_use]
    pub fn through(&self) -> &Position {
        &self.through
    }
}

/// A range as JSON has it, not yet checked.
#[derive(Deserialize)]
struct RangeText {
    after: Position,
    through: Position,
}

impl TryFrom<RangeText> for ShardRange {
    type Error = EmptyRange;

    fn try_from(RangeText { after, through }: RangeText) -> Result<Self, Self::Error> {
        Self::new(after, through)
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<u64> for SequenceNumber {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

impl TryFrom<&str> for SequenceNumber {
    type Error = InvalidText;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        let invalid = |problem: String| Err(InvalidText::new("sequence number", text, problem));
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            invalid("is not made of decimal digits".to_owned())
        } else if text.len() > Self::DIGITS_MAX {
            invalid(format!("has {} digits, at most {} are allowed", text.len(), Self::DIGITS_MAX))
        } else if text.len() > 1 && text.starts_with('0') {
            invalid("has leading zeros".to_owned())
        } else {
            Ok(Self(text.into()))
        }
    }
}

impl TryFrom<String> for SequenceNumber {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::try_from(text.as_str())
    }
}

impl From<SequenceNumber> for String {
    fn from(number: SequenceNumber) -> Self {
        number.0.into()
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SequenceNumber({})", self.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.checkpoint())?;
        match self.sub_sequence_number() {
            0 => Ok(()),
            number => write!(f, ":{number}"),
        }
    }
}

impl FromStr for Position {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((checkpoint, sub_text)) = text.split_once(':') else { return Self::from_stored(text, 0) };
        // Parsed as a `SequenceNumber`, so that a number has one text only: no sign, no leading zeros.
        let sub = SequenceNumber::try_from(sub_text)?.as_str().parse().ok().filter(|sub| *sub != 0_u64);
        let Some(sub) = sub else {
            return Err(InvalidText::new("position", text, "has a sub-record that is 0 or exceeds 64 bits"));
        };
        Self::from_stored(checkpoint, sub)
    }
}

impl TryFrom<String> for Position {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Position> for String {
    fn from(position: Position) -> Self {
        position.to_string()
    }
}

impl fmt::Display for ShardRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}]", self.after, self.through)
    }
}

#[cfg(test)]
mod tests;
