//! A good record while it is written: what it is about ([`RecordContext`]) and where its bytes go ([`Draft`]).
//!
//! A draft knows where each **top-level** member of the record begins and ends. The later steps need only that:
//! [`super::reformat`] changes the order of the members; [`super::corrupt`] removes one, repeats it or changes its
//! value. Nested values are plain bytes here.

use super::personas::Person;
use super::random::Rng;

/// What a record is made from. It is the same for every family.
pub(super) struct RecordContext<'a> {
    /// The record's own random stream.
    pub rng: Rng,
    /// The person that the record is about.
    pub person: Person,
    /// When it happened, epoch milliseconds.
    pub at_ms: i64,
    /// A buffer for a document that is escaped into the record; empty between uses.
    pub scratch: &'a mut Vec<u8>,
}

/// A top-level member, `"name":value`. Offsets count from the record's first byte.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    /// The member's name. No name needs an escape.
    pub name: &'static str,
    /// Where the opening quote of the name is.
    pub start: usize,
    /// Where the value begins.
    pub value: usize,
    /// Where the value ends: the offset of the comma or brace after it.
    pub end: usize,
}

/// A record being appended to `out`.
pub(super) struct Draft<'a> {
    out: &'a mut Vec<u8>,
    members: &'a mut Vec<Member>,
    base: usize,
}

/// A finished good record: one compact JSON object, with at least one member.
#[derive(Clone, Copy)]
pub(super) struct Good<'a> {
    /// The object, from brace to brace.
    pub text: &'a [u8],
    /// Its members in order.
    pub members: &'a [Member],
}

impl<'a> Draft<'a> {
    /// Begins a record at the end of `out`. `members` is a buffer for its members, and is cleared.
    pub(super) fn new(out: &'a mut Vec<u8>, members: &'a mut Vec<Member>) -> Self {
        members.clear();
        Draft { base: out.len(), out, members }
    }

    /// Begins the next member. The caller appends its value to the returned buffer.
    pub(super) fn member(&mut self, name: &'static str) -> &mut Vec<u8> {
        let end = self.out.len() - self.base;
        match self.members.last_mut() {
            Some(previous) => {
                previous.end = end;
                self.out.push(b',');
            }
            None => self.out.push(b'{'),
        }
        let start = self.out.len() - self.base;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.members.push(Member { name, start, value: start + name.len() + 3, end: 0 });
        self.out
    }

    /// Ends the record.
    pub(super) fn finish(self) {
        if let Some(last) = self.members.last_mut() {
            last.end = self.out.len() - self.base;
        }
        self.out.push(b'}');
    }
}

impl Good<'_> {
    /// The member of this name, if the record has it.
    pub(super) fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// Appends the record with another value (any bytes) for one member. A missing member is added at the end.
    pub(super) fn put_with(&self, name: &str, value: &[u8], out: &mut Vec<u8>) {
        if let Some(member) = self.member(name) {
            out.extend_from_slice(&self.text[..member.value]);
            out.extend_from_slice(value);
            out.extend_from_slice(&self.text[member.end..]);
        } else {
            self.put_with_another(name, value, out);
        }
    }

    /// Appends the record with one more member at its end, even if it has one of this name.
    pub(super) fn put_with_another(&self, name: &str, value: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text[..self.text.len() - 1]);
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        out.extend_from_slice(value);
        out.push(b'}');
    }

    /// Appends the record without one of its members.
    pub(super) fn put_without(&self, name: &str, out: &mut Vec<u8>) {
        let mut separator = b'{';
        for member in self.members.iter().filter(|member| member.name != name) {
            out.push(separator);
            out.extend_from_slice(&self.text[member.start..member.end]);
            separator = b',';
        }
        out.push(b'}');
    }
}
