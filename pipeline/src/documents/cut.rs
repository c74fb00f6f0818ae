//! Where a text that was read so far may be cut.
//!
//! Owns: the choice of the place. Does not own: what an item is (`split`).
//!
//! A line that ends with `}` and a next one that begins with `{` are never in one document. So in a file of lines the last such
//! place is found by searching backwards, and only the text after it is scanned.

use crate::documents::Documents;
use crate::documents::split::{Next, Rules, Split, indent_of};

/// Line ends that are tried before the text is scanned from its beginning.
const LINES_TRIED: usize = 64;

/// The largest number of bytes at the beginning of `text` that end between two records. The text begins with a record, and more
/// of it may follow. `None`: its first record has no end yet.
pub fn cut(text: &[u8], documents: Documents) -> Option<usize> {
    if !documents.many {
        return memchr::memrchr(b'\n', text).map(|end| end + 1);
    }
    let certain = certain_boundary(text);
    let rules = Rules { arrays: documents.arrays, lines: true };
    let mut split = Split::new(text, certain, rules, false);
    let (mut boundary, mut after) = (certain, certain);
    loop {
        match split.next() {
            Next::Item(item) => (boundary, after) = (item.range.start, split.at()),
            Next::Pending(start) => {
                boundary = start;
                break;
            }
            Next::End => {
                // Whatever begins the next line belongs to another record.
                boundary = memchr::memrchr(b'\n', &text[after..]).map_or(boundary, |end| after + end + 1);
                break;
            }
        }
    }
    (boundary > 0).then_some(boundary)
}

/// Where an item begins whose end is not in the text, which is the end of a file. `None`: the file ends between two records, or the
/// text is too little to say.
pub fn unfinished(text: &[u8], is_whole_file: bool, documents: Documents) -> Option<usize> {
    let begin = certain_boundary(text);
    if begin == 0 && !is_whole_file {
        return None;
    }
    let rules = Rules { arrays: documents.arrays, lines: true };
    // An array may have been opened anywhere before.
    let begin = if documents.arrays && is_whole_file { 0 } else { begin };
    let mut split = Split::new(text, begin, rules, false);
    loop {
        match split.next() {
            Next::Item(_) => {}
            Next::Pending(start) => return Some(start),
            Next::End => return (is_whole_file && split.open.depth > 0).then_some(split.open.begin),
        }
    }
}

/// The beginning of a line that begins another document, whatever is before it; 0 if none was found.
fn certain_boundary(text: &[u8]) -> usize {
    let ends = memchr::memrchr_iter(b'\n', text).take(LINES_TRIED);
    let mut ends = ends.filter(|end| {
        let line = &text[end + 1..];
        let begins = line.get(indent_of(line)) == Some(&b'{');
        begins && text[..*end].trim_ascii_end().last() == Some(&b'}')
    });
    ends.next().map_or(0, |end| end + 1)
}
