//! A text becomes items: whole documents, and what is between them that is not a document.
//!
//! Owns: what separates documents, and how far a broken one reaches. Does not own: why it is broken (`decode`).
//!
//! A broken document that begins with a bracket ends before the first later line that
//!
//! 1. begins with `{` after a line that ends with `}` (inside a valid document a comma would be between them), or
//! 2. is a whole object by itself, or
//! 3. is not indented deeper than the line where the broken document begins, and does not begin with a closing bracket.
//!
//! So a line that was cut off takes no other line with it, and a document of many lines becomes one dead letter and not one for
//! each line. Anything else that is not a document ends with its line. In a record of a stream it ends before the next line that
//! begins with `{`, because the lines of a binary record mean nothing.

use std::ops::Range;

use crate::decode::skip;

/// How a text is divided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// The brackets of arrays separate documents.
    pub(crate) arrays: bool,
    /// The text is that of a file, whose lines are records unless documents span them.
    pub(crate) lines: bool,
}

/// A part of the text, without the separators around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) range: Range<usize>,
    /// It is one well-formed value. Its bytes need not be valid UTF-8.
    pub(crate) whole: bool,
}

/// What comes next in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    Item(Item),
    /// An item begins here whose end depends on text that is not there yet.
    Pending(usize),
    /// Only separators are left.
    End,
}

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// A document that breaks this close to the end of an incomplete text may only be cut: in a word, a number or an escape.
const TOKEN_BYTES: usize = 12;

/// Divides a text, from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Split<'t> {
    text: &'t [u8],
    at: usize,
    rules: Rules,
    /// Whether the text is complete. Otherwise more of it may follow.
    complete: bool,
    pub(crate) open: OpenArrays,
}

/// Arrays that were opened and not closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OpenArrays {
    pub(crate) depth: usize,
    /// Where the outermost one begins.
    pub(crate) begin: usize,
}

impl<'t> Split<'t> {
    pub(crate) fn new(text: &'t [u8], at: usize, rules: Rules, complete: bool) -> Self {
        Split { text, at, rules, complete, open: OpenArrays::default() }
    }

    /// Where the next item is searched from.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn next(&mut self) -> Next {
        let text = self.text;
        let start = match self.separators() {
            Ok(Some(start)) => start,
            Ok(None) => return Next::End,
            Err(pending) => return Next::Pending(pending),
        };
        let first = self.at;
        if matches!(text[first], b'{' | b'[') {
            return match skip::value(text, first, 0, &mut 0) {
                Ok(end) => self.item(start, end, true),
                Err((_, at)) if !self.complete && at + TOKEN_BYTES >= text.len() => Next::Pending(start),
                Err(_) => self.broken(start, first),
            };
        }
        if self.rules.arrays
            && let Some(end) = self.scalar(first)
        {
            return self.item(start, end, true);
        }
        if self.rules.lines {
            return match line_end(text, first) {
                Some(end) => self.item(start, end, false),
                None if self.complete => self.item(start, text.len(), false),
                None => Next::Pending(start),
            };
        }
        let mut line = first;
        while let Some(end) = line_end(text, line) {
            line = end + 1;
            if text[line..].trim_ascii_start().starts_with(b"{") {
                return self.item(start, end, false);
            }
        }
        if self.complete { self.item(start, text.len(), false) } else { Next::Pending(start) }
    }

    fn item(&mut self, start: usize, end: usize, whole: bool) -> Next {
        self.at = end;
        // What ends with its line ends before the white space there; in a record of a stream, only before the line end.
        let carriage_return = !whole && self.text[start..end].ends_with(b"\r");
        let end = if self.rules.lines { end_of_text(self.text, end) } else { end - usize::from(carriage_return) };
        Next::Item(Item { range: start..end, whole })
    }

    /// Passes over separators. Returns where the next item begins: with the white space of its line, if there is nothing else
    /// before it. `Err`: what follows decides whether this is a separator.
    fn separators(&mut self) -> Result<Option<usize>, usize> {
        let text = self.text;
        let mut line = (self.at == 0 || text[self.at - 1] == b'\n').then_some(self.at);
        loop {
            let rest = &text[self.at..];
            let length = match rest.first() {
                None => return Ok(None),
                Some(b'\n') => {
                    self.at += 1;
                    line = Some(self.at);
                    continue;
                }
                Some(b' ' | b'\t' | b'\r') => {
                    self.at += 1;
                    continue;
                }
                Some(b'[') if self.rules.arrays => {
                    if self.open.depth == 0 {
                        self.open.begin = self.at;
                    }
                    self.open.depth += 1;
                    1
                }
                Some(b']') if self.rules.arrays => {
                    self.open.depth = self.open.depth.saturating_sub(1);
                    1
                }
                Some(0xEF) if rest.starts_with(BYTE_ORDER_MARK) => 3,
                Some(0xEF) if !self.complete && BYTE_ORDER_MARK.starts_with(rest) => {
                    return Err(line.unwrap_or(self.at));
                }
                Some(b',') => match self.separates(1) {
                    Some(true) => 1,
                    Some(false) => 0,
                    None => return Err(line.unwrap_or(self.at)),
                },
                Some(b'\\') if matches!(rest.get(1), Some(b'n' | b'r' | b't')) => match self.separates(2) {
                    Some(true) => 2,
                    Some(false) => 0,
                    None => return Err(line.unwrap_or(self.at)),
                },
                Some(b'\\') if !self.complete && rest.len() == 1 => return Err(line.unwrap_or(self.at)),
                Some(_) => 0,
            };
            if length == 0 {
                return Ok(Some(line.unwrap_or(self.at)));
            }
            self.at += length;
            line = None;
        }
    }

    /// Whether the characters at the cursor separate documents: another document, another separator or the end of the line
    /// follows. `None`: the text ends first.
    fn separates(&self, length: usize) -> Option<bool> {
        let rest = &self.text[self.at + length..];
        let spaces = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
        match rest.get(spaces) {
            None => self.complete.then_some(true),
            Some(b'{' | b'[' | b',' | b'\n') => Some(true),
            Some(b'\\') => Some(matches!(rest.get(spaces + 1), Some(b'n' | b'r' | b't'))),
            Some(0xEF) => Some(rest[spaces..].starts_with(BYTE_ORDER_MARK)),
            // The element of an array may be anything.
            Some(_) => Some(self.rules.arrays),
        }
    }

    /// The end of an element of an array that is neither an object nor an array.
    fn scalar(&self, first: usize) -> Option<usize> {
        let end = skip::value(self.text, first, 0, &mut 0).ok()?;
        let after = &self.text[end..];
        let spaces = after.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
        matches!(after.get(spaces), Some(b',' | b']')).then_some(end)
    }

    /// The item of a broken document whose first bracket is at `first`.
    fn broken(&mut self, start: usize, first: usize) -> Next {
        let text = self.text;
        let line_start = memchr::memrchr(b'\n', &text[..first]).map_or(0, |end| end + 1);
        // What begins in the middle of a line is not indented.
        let begins_line = text[line_start..first].trim_ascii().is_empty();
        let indent = if begins_line { first - line_start } else { 0 };
        let (mut last, mut at) = (text[first], first);
        // The end of the last line that is not blank.
        let mut content_end = first;
        loop {
            let next = line_end(text, at);
            let end = next.unwrap_or(text.len());
            if let Some(byte) = text[at..end].trim_ascii_end().last() {
                (last, content_end) = (*byte, end);
            }
            if next.is_none() {
                break;
            }
            let line = &text[end + 1..];
            let spaces = indent_of(line);
            at = end + 1;
            match line.get(spaces) {
                None => break,
                Some(b'\n') => {}
                Some(&byte) => {
                    let is_whole = || match memchr::memchr(b'\n', line) {
                        Some(end) => Some(is_object(&line[spaces..end])),
                        None => self.complete.then(|| is_object(&line[spaces..])),
                    };
                    let begins = begins_document(last, byte, spaces, indent, self.rules.lines)
                        || byte == b'{' && {
                            match is_whole() {
                                Some(whole) => whole,
                                None => return Next::Pending(start),
                            }
                        };
                    if begins {
                        return self.item(start, content_end, false);
                    }
                }
            }
        }
        if self.complete { self.item(start, content_end, false) } else { Next::Pending(start) }
    }
}

/// Whether a line begins another document than the broken one before it. `last` is the last character before the line, `byte`
/// the first one of it.
pub(super) fn begins_document(last: u8, byte: u8, spaces: usize, indent: usize, lines: bool) -> bool {
    let shallow = spaces <= indent && if lines { !matches!(byte, b'}' | b']') } else { matches!(byte, b'{' | b'[') };
    shallow || last == b'}' && byte == b'{'
}

/// The end of a text that ends at `end`, without its white space.
pub(crate) fn end_of_text(text: &[u8], mut end: usize) -> usize {
    while end > 0 && matches!(text[end - 1], b' ' | b'\t' | b'\r' | b'\n') {
        end -= 1;
    }
    end
}

/// White space at the beginning of a line, as JSON has it.
pub(super) fn indent_of(line: &[u8]) -> usize {
    line.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count()
}

fn is_object(text: &[u8]) -> bool {
    skip::value(text, 0, 0, &mut 0).is_ok_and(|end| text[end..].trim_ascii().is_empty())
}

fn line_end(text: &[u8], from: usize) -> Option<usize> {
    memchr::memchr(b'\n', &text[from..]).map(|end| from + end)
}
