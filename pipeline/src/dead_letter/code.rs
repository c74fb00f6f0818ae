//! Why a record was rejected.
//!
//! Owns: the closed set of error codes, in one table: name, stage, message. Does not own: the dead letter as it is stored
//! (`dead_letter`). A message never contains a value of the record, because it goes to `error/` metadata and to logs.

use std::fmt;

use crate::stage::Stage;

/// Makes the enum of codes and everything that follows from its table.
macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $code:ident: $stage:ident, $name:literal, $message:literal;)+) => {
        /// Why a record was rejected: the `errorCode` of its dead letter. The set is closed; `docs/dead-letters.md` lists it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $($(#[doc = $doc])+ $code,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: [Code; [$(Code::$code),+].len()] = [$(Code::$code),+];

            /// The code as it is written in dead letters and in `error/reason=…`. Firehose's names are kept where its
            /// meaning fits: its `ParseError` is text that is not JSON, its `MalformedData` data that does not fit the
            /// schema.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$code => $name,)+ }
            }

            /// The stage that rejects records for this reason.
            pub fn stage(self) -> Stage {
                match self { $(Code::$code => Stage::$stage,)+ }
            }

            /// What is wrong, for people; never with a value of the record.
            pub fn message(self) -> &'static str {
                match self { $(Code::$code => $message,)+ }
            }
        }
    };
}

codes! {
    /// The bytes are not JSON.
    NotJson: Decode, "DataFormatConversion.ParseError", "the record is not JSON";
    /// The bytes are not UTF-8.
    NotUtf8: Decode, "Decode.NotUtf8", "the record is not UTF-8";
    /// The bytes end inside the JSON document.
    Truncated: Decode, "Decode.Truncated", "the record ends inside its JSON document";
    /// Another document follows the first.
    MultipleDocuments: Decode, "Decode.MultipleDocuments", "another JSON document follows the record's first";
    /// Something follows the document.
    TrailingBytes: Decode, "Decode.TrailingBytes", "bytes follow the record's JSON document";
    /// The document is not an object.
    NotAnObject: Decode, "Decode.NotAnObject", "the record is JSON, but not an object";
    /// A key that the definition names occurs twice in one object.
    DuplicateKey: Decode, "Decode.DuplicateKey", "a key that the dataset reads occurs twice";
    /// Half of a UTF-16 surrogate pair, as `\ud83d` alone, which is not text.
    UnpairedSurrogate: Decode, "Decode.UnpairedSurrogate", "a string holds half of a surrogate pair";
    /// Arrays and objects nested too deeply.
    TooDeep: Decode, "Decode.TooDeep", "arrays and objects are nested too deeply";
    /// More bytes than a record may have, or more items than a list may have.
    TooLarge: Decode, "Decode.TooLarge", "the record, what it unpacks to, or a list in it is larger than the limit";
    /// A string that should hold JSON does not.
    BadEmbeddedJson: Decode, "Decode.BadEmbeddedJson", "a string that should hold a JSON object does not";
    /// The file's compressed stream is damaged or cut off here.
    DamagedFile: Decode, "Decode.DamagedFile", "the compressed file is damaged or cut off at this point";
    /// gzip data in a record that is damaged or cut off.
    DamagedGzip: Decode, "Decode.DamagedGzip", "the gzip data of the record is damaged or cut off";
    /// An aggregate of records that cannot be opened.
    BrokenAggregate: Decode, "Decode.BrokenAggregate",
        "the record begins as an aggregate of records does, and cannot be opened";
    /// No dataset recognizes the record.
    UnknownDataset: Decode, "Decode.UnknownDataset", "no dataset recognizes the record";
    /// A required field is absent or null.
    MissingField: Validate, "Validate.MissingField", "a required field is missing or null";
    /// A value is of another JSON type than the definition says.
    WrongType: Validate, "DataFormatConversion.MalformedData", "a value is not of the type that the dataset says";
    /// A number is outside its type or its bounds.
    OutOfRange: Validate, "Validate.OutOfRange", "a number is out of range";
    /// A number is too large for a double.
    NotFinite: Validate, "Validate.NotFinite", "a number is too large";
    /// A string breaks a constraint of its length, choices or pattern.
    ConstraintViolated: Validate, "Validate.ConstraintViolated",
        "a string is empty, too long, or not one of those allowed";
    /// A time is not written as the definition says.
    BadTimestamp: Validate, "Validate.BadTimestamp", "a time is not written in the dataset's format";
    /// The event time is too long ago or too far ahead of the record's arrival.
    EventTimeOutOfBounds: Validate, "Validate.EventTimeOutOfBounds",
        "the event time is too long ago or too far ahead of the arrival";
    /// A lookup table has no row for the record, and the definition says to reject it.
    LookupMissing: Enrich, "Enrich.LookupMissing", "a lookup table has no row for the record";
    /// A partition value is too long for a path.
    PartitionTooLong: Batch, "Batch.PartitionTooLong", "a partition value is too long";
}

/// What exactly is wrong, where a code has several reasons. The text replaces that of the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The event time is before the dataset's `not_before`.
    EventTooEarly,
    /// The event time is after the dataset's `not_after`.
    EventTooLate,
    /// The event time is too far ahead of the arrival that the source knows.
    EventTooFarAhead,
    /// The event time is too far ahead of the arrival time in the record.
    EventTooFarAheadOfField,
    /// The arrival time in the record is before the dataset's `not_before`.
    ArrivalTooEarly,
    /// A time is before its column's `not_before`.
    TimeTooEarly,
    /// A time is after its column's `not_after`.
    TimeTooLate,
    /// A time is in a year that no reader of the lake has.
    TimeOutOfCalendar,
}

impl Reason {
    /// The reason with this message.
    pub(crate) fn of_message(message: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.message() == message)
    }

    /// Every reason.
    pub const ALL: [Reason; 8] = [
        Reason::EventTooEarly,
        Reason::EventTooLate,
        Reason::EventTooFarAhead,
        Reason::EventTooFarAheadOfField,
        Reason::ArrivalTooEarly,
        Reason::TimeTooEarly,
        Reason::TimeTooLate,
        Reason::TimeOutOfCalendar,
    ];

    /// What is wrong, for people; never with a value of the record.
    pub fn message(self) -> &'static str {
        match self {
            Reason::EventTooEarly => "the event time is too early: it is before not_before",
            Reason::EventTooLate => "the event time is too late: it is after not_after",
            Reason::EventTooFarAhead => "the event time is too far ahead of the record's arrival",
            Reason::EventTooFarAheadOfField => {
                "the event time is too far ahead of the arrival time that the record has in another field"
            }
            Reason::ArrivalTooEarly => "the arrival time in the record is too early: it is before not_before",
            Reason::TimeTooEarly => "a time is too early: it is before not_before",
            Reason::TimeTooLate => "a time is too late: it is after not_after",
            Reason::TimeOutOfCalendar => "a time is outside of the years 0001 to 9999 (UTC)",
        }
    }
}

impl Code {
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
            assert!(!code.message().is_empty() && code.stage().rejects());
            assert_eq!(code as usize, n);
        }
    }

    #[test]
    fn every_reason_has_a_message_of_its_own() {
        let messages = Reason::ALL.map(Reason::message).into_iter().chain(Code::ALL.map(Code::message));
        let mut messages: Vec<&str> = messages.collect();
        let count = messages.len();
        messages.sort_unstable();
        messages.dedup();
        assert_eq!(messages.len(), count);
    }
}
