//! Why a record was set aside.
//!
//! Owns: the closed set of error codes, their stages and their messages. Does not own: the dead letter as it is stored
//! (`deadletter`). A message never holds a value of the record: it goes to `error/` metadata and to logs.

use std::fmt;

use crate::stage::Stage;

/// Why a record was set aside: the `errorCode` of its dead letter. The set is closed; `docs/dead-letters.md` lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// The bytes are no JSON.
    NotJson,
    /// The bytes are not UTF-8.
    NotUtf8,
    /// The bytes end inside the JSON document.
    Truncated,
    /// Another document follows the first.
    MultipleDocuments,
    /// Something follows the document.
    TrailingBytes,
    /// The document is no object.
    NotAnObject,
    /// A key that the definition names is there twice in one object.
    DuplicateKey,
    /// Half of a UTF-16 surrogate pair, as `\ud83d` alone: no text.
    UnpairedSurrogate,
    /// Arrays and objects nested too deeply.
    TooDeep,
    /// More bytes than a record may have, or more items than a list may have.
    TooLarge,
    /// A string that should hold JSON does not.
    BadEmbeddedJson,
    /// The file's compressed stream is damaged or cut off here.
    DamagedFile,
    /// An aggregate of records that can't be opened.
    BrokenAggregate,
    /// No dataset recognizes the record.
    UnknownDataset,
    /// A required field is absent or null.
    MissingField,
    /// A value is of another JSON type than the definition says.
    WrongType,
    /// A number is outside its type or its bounds.
    OutOfRange,
    /// A number is too large for a double.
    NotFinite,
    /// A string breaks a constraint of its length, choices or pattern.
    ConstraintViolated,
    /// A time is not written as the definition says.
    BadTimestamp,
    /// The event time is too long ago or too far ahead of the record's arrival.
    EventTimeOutOfBounds,
    /// A lookup table has no row for the record, and the definition says to reject it.
    LookupMissing,
    /// A partition value is too long for a path.
    PartitionTooLong,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 23] = [
        Code::NotJson,
        Code::NotUtf8,
        Code::Truncated,
        Code::MultipleDocuments,
        Code::TrailingBytes,
        Code::NotAnObject,
        Code::DuplicateKey,
        Code::UnpairedSurrogate,
        Code::TooDeep,
        Code::TooLarge,
        Code::BadEmbeddedJson,
        Code::DamagedFile,
        Code::BrokenAggregate,
        Code::UnknownDataset,
        Code::MissingField,
        Code::WrongType,
        Code::OutOfRange,
        Code::NotFinite,
        Code::ConstraintViolated,
        Code::BadTimestamp,
        Code::EventTimeOutOfBounds,
        Code::LookupMissing,
        Code::PartitionTooLong,
    ];

    /// The code as it stands in dead letters and in `error/reason=…`. Firehose's names are kept where its meaning fits:
    /// its `ParseError` is text that is no JSON, its `MalformedData` data that does not fit the schema.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::NotJson => "DataFormatConversion.ParseError",
            Code::WrongType => "DataFormatConversion.MalformedData",
            Code::NotUtf8 => "Decode.NotUtf8",
            Code::Truncated => "Decode.Truncated",
            Code::MultipleDocuments => "Decode.MultipleDocuments",
            Code::TrailingBytes => "Decode.TrailingBytes",
            Code::NotAnObject => "Decode.NotAnObject",
            Code::DuplicateKey => "Decode.DuplicateKey",
            Code::UnpairedSurrogate => "Decode.UnpairedSurrogate",
            Code::TooDeep => "Decode.TooDeep",
            Code::TooLarge => "Decode.TooLarge",
            Code::BadEmbeddedJson => "Decode.BadEmbeddedJson",
            Code::DamagedFile => "Decode.DamagedFile",
            Code::BrokenAggregate => "Decode.BrokenAggregate",
            Code::UnknownDataset => "Decode.UnknownDataset",
            Code::MissingField => "Validate.MissingField",
            Code::OutOfRange => "Validate.OutOfRange",
            Code::NotFinite => "Validate.NotFinite",
            Code::ConstraintViolated => "Validate.ConstraintViolated",
            Code::BadTimestamp => "Validate.BadTimestamp",
            Code::EventTimeOutOfBounds => "Validate.EventTimeOutOfBounds",
            Code::LookupMissing => "Enrich.LookupMissing",
            Code::PartitionTooLong => "Batch.PartitionTooLong",
        }
    }

    /// The stage that sets records aside for this reason.
    pub fn stage(self) -> Stage {
        match self {
            Code::MissingField
            | Code::WrongType
            | Code::OutOfRange
            | Code::NotFinite
            | Code::ConstraintViolated
            | Code::BadTimestamp
            | Code::EventTimeOutOfBounds => Stage::Validate,
            Code::LookupMissing => Stage::Enrich,
            Code::PartitionTooLong => Stage::Batch,
            _ => Stage::Decode,
        }
    }

    /// What is wrong, for people; never with a value of the record.
    pub fn message(self) -> &'static str {
        match self {
            Code::NotJson => "the record is not JSON",
            Code::NotUtf8 => "the record is not UTF-8",
            Code::Truncated => "the record ends inside its JSON document",
            Code::MultipleDocuments => "another JSON document follows the record's first",
            Code::TrailingBytes => "bytes follow the record's JSON document",
            Code::NotAnObject => "the record is JSON, but no object",
            Code::DuplicateKey => "a key that the dataset reads is there twice",
            Code::UnpairedSurrogate => "a string holds half of a surrogate pair",
            Code::TooDeep => "arrays and objects are nested too deeply",
            Code::TooLarge => "the record, or a list in it, is larger than the limit",
            Code::BadEmbeddedJson => "a string that should hold a JSON object does not",
            Code::DamagedFile => "the compressed file is damaged or cut off at this point",
            Code::BrokenAggregate => "the record begins as an aggregate of records does, and can't be opened",
            Code::UnknownDataset => "no dataset recognizes the record",
            Code::MissingField => "a required field is missing or null",
            Code::WrongType => "a value is not of the type that the dataset says",
            Code::OutOfRange => "a number is out of range",
            Code::NotFinite => "a number is too large",
            Code::ConstraintViolated => "a string is empty, too long, or not one of those allowed",
            Code::BadTimestamp => "a time is not written in the dataset's format",
            Code::EventTimeOutOfBounds => "the event time is too long ago or too far ahead of the arrival",
            Code::LookupMissing => "a lookup table has no row for the record",
            Code::PartitionTooLong => "a partition value is too long",
        }
    }

    /// The code of a name; the inverse of [`Code::as_str`].
    pub fn from_name(name: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.as_str() == name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_of_its_own_that_fits_a_path() {
        for (n, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(Code::from_name(code.as_str()), Some(code));
            assert!(code.as_str().chars().all(|c| c.is_ascii_alphanumeric() || c == '.'));
            assert!(!Code::ALL[..n].contains(&code));
            assert!(!code.message().is_empty() && code.stage().rejects());
            assert_eq!(code as usize, n);
        }
    }
}
