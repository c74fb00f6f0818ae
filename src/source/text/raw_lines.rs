//! The lines of a raw object, each with its identity if it has one.
//!
//! Owns: numbering the lines. Does not own: members and identities (`members`, `pipeline::line_objects::identities`).

use std::io;

use bytes::Bytes;
use pipeline::line_objects::identities::{Identity, IdentityReader};

use crate::source::text::members::{Decoded, Members};

/// Gives each line of a raw object to `each`: its number from 1, its identity if the object has one, and its bytes without the line end.
///
/// # Errors
/// The object cannot be decompressed.
pub(crate) fn each_raw_line(object: Bytes, mut each: impl FnMut(u64, Option<&Identity>, &[u8])) -> io::Result<()> {
    let mut members = Members::new();
    members.give(object);
    members.end();
    let (mut text, mut number) = (Vec::new(), 0);
    let mut identities: Option<IdentityReader> = None;
    let mut give = |line: &[u8], identities: &mut Option<IdentityReader>| {
        number += 1;
        let identity = identities.as_mut().and_then(|identities| identities.next(line.len()).ok());
        if identity.is_none() {
            // Those after it would be of other lines.
            *identities = None;
        }
        each(number, identity.as_ref(), line);
    };
    loop {
        match members.decode(&mut text)? {
            Decoded::Begun(field) => identities = field.and_then(|field| IdentityReader::new(field).ok()),
            Decoded::Text => {
                let mut begin = 0;
                for end in memchr::memchr_iter(b'\n', &text) {
                    give(&text[begin..end], &mut identities);
                    begin = end + 1;
                }
                text.drain(..begin);
            }
            Decoded::Finished => {}
            Decoded::Ended => {
                if !text.is_empty() {
                    give(&text, &mut identities);
                }
                return Ok(());
            }
        }
    }
}
