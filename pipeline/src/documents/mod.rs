//! Documents in a text: where each begins and ends, and what is kept of one that is broken.
//!
//! Owns: how a record, or the text of a file, is divided into JSON documents; where a text may be cut; where reading continues
//! after a document that is too large. Does not own: what a document contains (`decode`), lines that are one record each
//! (`decode::framing`).
//!
//! Documents may follow each other with nothing between them, or with separators: white space, a comma, a byte order mark, and
//! the two characters `\n` that some producers write for a line end. With [`Documents::arrays`], the brackets around documents
//! are separators too.
//!
//! A document may span lines. If it is broken, it ends before the next line that begins another one: see `split`.
//!
//! Invariant: an item depends on the text from its beginning on, never on where the text was cut. So a file gives the same
//! records whatever the size of its chunks, and reading may begin at any item.

mod cut;
mod skipper;
mod split;

pub use cut::{cut, unfinished};
pub use skipper::Skipper;

pub(crate) use split::{Item, Next, OpenArrays, Rules, Split, end_of_text};

/// How many documents a record of a source may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Documents {
    /// A record, or a file's text, may have many documents. Otherwise a line of a file, and a record, is one document.
    pub many: bool,
    /// Arrays are opened: each of their elements is a document. Only with `many`.
    pub arrays: bool,
}

impl Documents {
    /// One document in each record.
    pub const ONE: Documents = Documents { many: false, arrays: false };
    /// Any number of documents in each record.
    pub const MANY: Documents = Documents { many: true, arrays: false };
}
