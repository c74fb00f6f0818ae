//! The error codes of rejected records: those of the product's dead letters, except those of lookup tables.
//!
//! Owns: a list of names of its own. An oracle that imported them from the product would agree with it by construction.

use std::fmt;

/// Why a record was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// The bytes are not JSON.
    NotJson,
    /// The bytes are not UTF-8.
    NotUtf8,
    /// The bytes end inside the JSON document.
    Truncated,
    /// Another document follows the first.
    MultipleDocuments,
    /// Something follows the document.
    TrailingBytes,
    /// The document is not an object.
    NotAnObject,
    /// An object has a key twice that the definition names.
    DuplicateKey,
    /// A string has half of a surrogate pair.
    UnpairedSurrogate,
    /// Arrays and objects are nested too deeply.
    TooDeep,
    /// The record has too many bytes.
    TooLarge,
    /// A string that should hold a JSON object does not.
    BadEmbeddedJson,
    /// No dataset recognizes the record.
    UnknownDataset,
    /// A required field is absent or null.
    MissingField,
    /// A value has another type than in the definition.
    WrongType,
    /// A number is outside its type or its bounds.
    OutOfRange,
    /// A number is too large for a double.
    NotFinite,
    /// A string violates a constraint.
    ConstraintViolated,
    /// A time is not in the format of the definition.
    BadTimestamp,
    /// The event time is too long ago, or too long after the arrival.
    EventTimeOutOfBounds,
    /// A partition value is too long for a path.
    PartitionTooLong,
}

impl Code {
    /// The code in the form of dead letters.
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
