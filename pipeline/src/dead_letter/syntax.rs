//! What is wrong with the syntax of a record, and where.
//!
//! Owns: the kinds of faults with their names and texts. Does not own: finding them (`decode::diagnose`). A text never contains
//! a value of the record; an offset is not one.

use std::fmt;

/// Makes the enum of kinds and everything that follows from its table.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident: $name:literal, $text:literal;)+) => {
        /// The kind of a fault of the syntax: the `errorKind` of a dead letter. The set is closed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum SyntaxKind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl SyntaxKind {
            /// Every kind.
            pub const ALL: [SyntaxKind; [$(SyntaxKind::$kind),+].len()] = [$(SyntaxKind::$kind),+];

            /// The kind as it is written in dead letters.
            pub fn as_str(self) -> &'static str {
                match self { $(SyntaxKind::$kind => $name,)+ }
            }

            /// The fault, for people.
            pub fn text(self) -> &'static str {
                match self { $(SyntaxKind::$kind => $text,)+ }
            }
        }
    };
}

kinds! {
    /// A comma before a closing bracket.
    TrailingComma: "TrailingComma", "a trailing comma";
    /// No comma between two members, or no colon after a key.
    MissingSeparator: "MissingSeparator", "a missing comma or colon";
    /// `NaN`, `Infinity` or `-Infinity`.
    NotANumber: "NotANumber", "NaN or Infinity, which JSON does not have";
    /// A number that JSON writes in another way, such as `007`, `+1`, `.5` or `1.`.
    BadNumber: "BadNumber", "an invalid number";
    /// A word that JSON does not have: `True`, `None`, a key without quotes.
    UnknownWord: "UnknownWord", "a word without quotes";
    /// A single quote.
    SingleQuote: "SingleQuote", "a single quote";
    /// A comment.
    Comment: "Comment", "a comment";
    /// A line end, a tab or another control character in a string.
    ControlCharacter: "ControlCharacter", "a control character";
    /// An escape that JSON does not have.
    BadEscape: "BadEscape", "an invalid escape in a string";
    /// A closing bracket that does not match the open one.
    MismatchedBracket: "MismatchedBracket", "a bracket that does not match";
    /// Text that does not begin as a JSON object or array does.
    NotADocument: "NotADocument", "text that does not begin like JSON";
    /// UTF-16 text.
    Utf16: "Utf16", "UTF-16 text";
    /// gzip data where it is not unpacked: in a line of a file.
    Gzip: "Gzip", "gzip data";
    /// zstd data, which is not unpacked.
    Zstd: "Zstd", "zstd data";
    /// Any other byte that JSON does not allow there.
    UnexpectedByte: "UnexpectedByte", "an unexpected byte";
}

impl SyntaxKind {
    /// The kind of a name; the inverse of [`SyntaxKind::as_str`].
    pub fn from_name(name: &str) -> Option<SyntaxKind> {
        SyntaxKind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A fault of the syntax.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyntaxError {
    /// Its kind, if the code does not say everything.
    pub kind: Option<SyntaxKind>,
    /// The first byte at fault: its offset, from 0, in the record's bytes. Of base64, in what it decodes to.
    pub offset: u64,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Some(kind) => write!(f, ": {} at byte {}", kind.text(), self.offset),
            None => write!(f, ", at byte {}", self.offset),
        }
    }
}
