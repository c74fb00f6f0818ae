//! Why a record was refused: the error codes of the product's dead letters that a record can get without lookup tables.
//!
//! A copy of the names, not of the code: an oracle that took them from the product would agree with it by construction.

use std::fmt;

/// Why a record was refused.
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
    /// Half of a surrogate pair: no text.
    UnpairedSurrogate,
    /// Arrays and objects nested too deeply.
    TooDeep,
    /// More bytes than a record may have.
    TooLarge,
    /// A string that should hold a JSON object does not.
    BadEmbeddedJson,
    /// No dataset recognizes the record.
    UnknownDataset,
    /// A required field is absent or null.
    MissingField,
    /// A value is of another type than the definition says.
    WrongType,
    /// A number is outside its type or its bounds.
    OutOfRange,
    /// A number is too large for a double.
    NotFinite,
    /// A string breaks a constraint.
    ConstraintViolated,
    /// A time is not written as the definition says.
    BadTimestamp,
    /// The event time is too long ago or too far ahead of the arrival.
    EventTimeOutOfBounds,
    /// A partition value is too long for a path.
    PartitionTooLong,
}

impl Code {
    /// The code as it stands in dead letters.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::NotJson => "DataFormatConversion.ParseError",
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
            Code::UnknownDataset => "Decode.UnknownDataset",
            Code::MissingField => "Validate.MissingField",
            Code::WrongType => "DataFormatConversion.MalformedData",
            Code::OutOfRange => "Validate.OutOfRange",
            Code::NotFinite => "Validate.NotFinite",
            Code::ConstraintViolated => "Validate.ConstraintViolated",
            Code::BadTimestamp => "Validate.BadTimestamp",
            Code::EventTimeOutOfBounds => "Validate.EventTimeOutOfBounds",
            Code::PartitionTooLong => "Batch.PartitionTooLong",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
