//! The end of a document that is too large to be kept, found in pieces of the text.
//!
//! Owns: where reading continues. Does not own: what is kept of the document (its source).
//!
//! A document is followed by its brackets. If they never match, it ends as any broken one (`split`), except that no line is
//! checked for being a whole object. Anything else ends with its line.

use crate::documents::Documents;
use crate::documents::split::{begins_document, indent_of};

/// Searches for the end of a document.
#[derive(Debug)]
pub struct Skipper {
    /// Brackets that are open; `None`: only the line's end, or what follows it, counts.
    depth: Option<usize>,
    in_string: bool,
    is_escaped: bool,
    /// Whether a document may span lines.
    spans: bool,
    indent: usize,
    /// White space since the beginning of the line; `None` after its first character.
    spaces: Option<usize>,
    /// The last character that is not white space.
    last: u8,
}

impl Skipper {
    /// A search that begins after `head`, the first bytes of the document.
    pub fn new(documents: Documents, head: &[u8]) -> Self {
        let indent = indent_of(head);
        let first = head.get(indent).copied().unwrap_or(0);
        let spans = documents.many && matches!(first, b'{' | b'[');
        let depth = spans.then_some(0);
        let mut skipper =
            Skipper { depth, in_string: false, is_escaped: false, spans, indent, spaces: None, last: first };
        if spans {
            for byte in head {
                skipper.bracket(*byte);
            }
            skipper.spaces = None;
        }
        skipper
    }

    /// Takes the next piece of the text. Returns the number of its bytes that belong to the document, if it ends here.
    pub fn feed(&mut self, piece: &[u8]) -> Option<usize> {
        if !self.spans {
            return memchr::memchr(b'\n', piece).map(|end| end + 1);
        }
        for (at, byte) in piece.iter().enumerate() {
            let begins_line = self.spaces.filter(|_| !byte.is_ascii_whitespace());
            if let Some(spaces) = begins_line
                && begins_document(self.last, *byte, spaces, self.indent, true)
            {
                return Some(at);
            }
            if self.bracket(*byte) {
                return Some(at + 1);
            }
        }
        None
    }

    /// Notes a byte. Returns whether it closes the document.
    fn bracket(&mut self, byte: u8) -> bool {
        match byte {
            b'\n' => {
                // A string never spans lines.
                (self.in_string, self.is_escaped, self.spaces) = (false, false, Some(0));
                return false;
            }
            b' ' | b'\t' | b'\r' => {
                (self.is_escaped, self.spaces) = (false, self.spaces.map(|spaces| spaces + 1));
                return false;
            }
            _ => (self.last, self.spaces) = (byte, None),
        }
        if self.is_escaped {
            self.is_escaped = false;
        } else if self.in_string {
            self.is_escaped = byte == b'\\';
            self.in_string = byte != b'"';
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth = self.depth.map(|depth| depth + 1),
                b'}' | b']' => {
                    // If the brackets match too early, the document is broken.
                    self.depth = self.depth.and_then(|depth| depth.checked_sub(1));
                    if self.depth == Some(0) {
                        self.depth = None;
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }
}
