//! A good record as another producer would write it: members in another order, spaces after colons and commas,
//! `\uXXXX` and `\/` instead of UTF-8 and `/`, or the whole event in base64.
//!
//! Every change keeps the record's value (RFC 8259): a reader decodes the same value as from the plain form. Shares of all good
//! records: order 2 %, spaces 1 %, escapes 5 % (2 % of these in the keys too, so 0.1 % of all), base64 1 % of the events. They are
//! drawn independently and may be combined. Records with escapes also have more texts in which escapes matter. Plain records,
//! more than 90 %, are never reformatted.

use super::RecordKind;
use super::draft::{Good, Member};
use super::random::Rng;
use super::write::{base64, escape_char};

/// A form of a record that differs from the plain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    /// Top-level members in random order.
    shuffled: bool,
    /// A space after each colon and comma outside strings.
    spaced: bool,
    escapes: Escapes,
    /// The record is the base64 text of the JSON document.
    wrapped: bool,
}

/// Where a producer uses escapes that are not necessary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escapes {
    Nowhere,
    /// All text beyond ASCII, each `/`, and some ASCII characters.
    Values,
    /// The same in values, and some ASCII characters of the keys.
    ValuesAndKeys,
}

impl Style {
    const PLAIN: Style = Style { shuffled: false, spaced: false, escapes: Escapes::Nowhere, wrapped: false };

    /// Draws a style. `None` is the plain one.
    pub(super) fn draw(rng: &mut Rng, kind: RecordKind) -> Option<Self> {
        let shuffled = rng.chance(200);
        let spaced = rng.chance(100);
        let escapes = match rng.below(10_000) {
            0..10 => Escapes::ValuesAndKeys,
            10..500 => Escapes::Values,
            _ => Escapes::Nowhere,
        };
        let wrapped = rng.chance(100) && kind == RecordKind::Events;
        let style = Style { shuffled, spaced, escapes, wrapped };
        (style != Style::PLAIN).then_some(style)
    }

    /// Whether the record should have texts in which escapes matter.
    pub(super) fn escapes(self) -> bool {
        self.escapes != Escapes::Nowhere
    }

    /// Appends the record in this style.
    pub(super) fn put(self, good: &Good<'_>, rng: &mut Rng, out: &mut Vec<u8>) {
        if self.wrapped {
            let mut document = Vec::with_capacity(good.text.len() * 2);
            self.put_document(good, rng, &mut document);
            base64(out, &document);
        } else {
            self.put_document(good, rng, out);
        }
    }

    fn put_document(self, good: &Good<'_>, rng: &mut Rng, out: &mut Vec<u8>) {
        let mut members: Vec<&Member> = good.members.iter().collect();
        if self.shuffled {
            for last in (1..members.len()).rev() {
                members.swap(last, rng.below(last as u32 + 1) as usize);
            }
        }
        let mut writer = StyledWriter { style: self, until_escape: rng.below(12), rng };
        let mut separator = "{";
        for member in members {
            out.extend_from_slice(separator.as_bytes());
            writer.put_part(&good.text[member.start..member.end], out);
            separator = if self.spaced { ", " } else { "," };
        }
        out.push(b'}');
    }
}

/// Writes a record in a style.
struct StyledWriter<'a> {
    style: Style,
    /// How many characters of the alphabet are written unchanged before the next one is escaped. It is small at first, so that
    /// every record of this style has an escape.
    until_escape: u32,
    rng: &'a mut Rng,
}

impl StyledWriter<'_> {
    /// Appends a part of the record with whole strings only: one member.
    fn put_part(&mut self, part: &[u8], out: &mut Vec<u8>) {
        let mut rest = std::str::from_utf8(part).expect("a member is valid UTF-8");
        while let Some(quote) = rest.find('"') {
            let (structure, from_quote) = rest.split_at(quote);
            self.put_structure(structure, out);
            let (string, after) = from_quote.split_at(string_length(from_quote.as_bytes()));
            let escaped = match self.style.escapes {
                Escapes::Nowhere => false,
                Escapes::Values => !after.starts_with(':'),
                Escapes::ValuesAndKeys => true,
            };
            if escaped {
                self.put_escaped(string, out);
            } else {
                out.extend_from_slice(string.as_bytes());
            }
            rest = after;
        }
        self.put_structure(rest, out);
    }

    fn put_structure(&self, structure: &str, out: &mut Vec<u8>) {
        for byte in structure.bytes() {
            out.push(byte);
            if self.style.spaced && matches!(byte, b':' | b',') {
                out.push(b' ');
            }
        }
    }

    /// Appends a string with more escapes than it needs. Its own escapes remain.
    fn put_escaped(&mut self, string: &str, out: &mut Vec<u8>) {
        let mut chars = string.chars();
        while let Some(char) = chars.next() {
            match char {
                '\\' => {
                    // An existing escape, with the character after the backslash. The four digits of a `\u` must remain
                    // digits.
                    let kind = chars.next().expect("a backslash has something after it");
                    out.extend_from_slice(&[b'\\', kind as u8]);
                    if kind == 'u' {
                        out.extend(chars.by_ref().take(4).map(|digit| digit as u8));
                    }
                }
                '/' => out.extend_from_slice(b"\\/"),
                char if !char.is_ascii() || (char.is_ascii_alphabetic() && self.is_due()) => escape_char(out, char),
                char => out.push(char as u8),
            }
        }
    }

    /// Counts a character of the alphabet. Returns true if it must be escaped.
    fn is_due(&mut self) -> bool {
        let due = self.until_escape == 0;
        self.until_escape = if due { self.rng.below(100) } else { self.until_escape - 1 };
        due
    }
}

/// The length of the string at the beginning of `text`, with both quotes.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

#[cfg(test)]
mod tests {
    use super::super::draft::Draft;
    use super::super::write::{Text, put};
    use super::*;

    #[test]
    fn a_record_has_the_same_value_in_every_style() {
        let (mut plain, mut members) = (Vec::new(), Vec::new());
        let mut draft = Draft::new(&mut plain, &mut members);
        put!(draft.member("text"); Text("a/b \"c:d, {e}\" \\ \u{1} \n é 東 😀 \\u0041"));
        put!(draft.member("nested"); r#"{"a b":[1,{"c":"\"x\":\\"}],"é":null}"#);
        put!(draft.member("number"); "7.35e1");
        draft.finish();
        let good = Good { text: &plain, members: &members };
        let value: serde_json::Value = serde_json::from_slice(&plain).unwrap();

        let mut seen = [0; 4];
        for n in 0..20_000 {
            let mut rng = Rng::of(3, n);
            let Some(style) = Style::draw(&mut rng, RecordKind::Assessments) else { continue };
            let mut styled = Vec::new();
            style.put(&good, &mut rng, &mut styled);
            let text = std::str::from_utf8(&styled).unwrap();
            assert_eq!(serde_json::from_str::<serde_json::Value>(text).unwrap(), value, "{text}");
            assert_eq!(text.is_ascii(), style.escapes == Escapes::ValuesAndKeys, "{text}");
            assert_eq!(text.contains("\": "), style.spaced, "{text}");
            let signs = [style.shuffled, style.spaced, style.escapes == Escapes::Values, text.is_ascii()];
            signs.iter().zip(&mut seen).for_each(|(sign, seen)| *seen += u32::from(*sign));
        }
        assert!(seen.iter().all(|seen| *seen > 5), "{seen:?}");
    }
}
