//! Writing JSON as bytes: numbers, times, identifiers and escaped text, appended directly to a `Vec<u8>`.
//!
//! A value that can be written is a [`Piece`]; `put!(out; piece, piece, …)` appends several. A `&str` is appended
//! **unchanged**: it is for JSON's own characters and for text that needs no escape. Everything else goes through
//! [`Text`]. There is no `format!` and no float: decimals are integers with a scale, so every platform writes the same
//! digits.

pub(super) use pipeline::time::DAY_MS;
use pipeline::time::{Day, day_of};

use super::random::mix;

/// Something that can be appended to a record.
pub(super) trait Piece {
    /// Appends the bytes of this piece.
    fn put(&self, out: &mut Vec<u8>);
}

/// Appends pieces to a `&mut Vec<u8>`, in order.
macro_rules! put {
    ($out:expr; $($piece:expr),+ $(,)?) => {{
        let out: &mut Vec<u8> = $out;
        $($crate::write::Piece::put(&$piece, out);)+
    }};
}
pub(super) use put;

impl Piece for &str {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl Piece for u32 {
    fn put(&self, out: &mut Vec<u8>) {
        u64::from(*self).put(out);
    }
}

impl Piece for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut rest = *self;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        out.extend_from_slice(&digits[at..]);
    }
}

impl Piece for i64 {
    fn put(&self, out: &mut Vec<u8>) {
        if *self < 0 {
            out.push(b'-');
        }
        self.unsigned_abs().put(out);
    }
}

/// A number with leading zeros up to a width of at most 20 digits.
pub(super) struct Padded(pub u32, pub usize);

impl Piece for Padded {
    fn put(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.1, b'0');
        let mut rest = self.0;
        for digit in out[start..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
}

/// A decimal of `units` tenths, hundredths, … `places` after the point: `Fixed(735, 1)` is `73.5`.
pub(super) struct Fixed(pub i64, pub usize);

impl Piece for Fixed {
    fn put(&self, out: &mut Vec<u8>) {
        if self.0 < 0 {
            out.push(b'-');
        }
        let scale = 10_u64.pow(self.1 as u32);
        let units = self.0.unsigned_abs();
        put!(out; units / scale, ".", Padded((units % scale) as u32, self.1));
    }
}

/// The same value as [`Fixed`] with an exponent: `Exponent(735, 1)` is `7.35e1`, `Exponent(5, 1)` is `5e-1`.
pub(super) struct Exponent(pub i64, pub usize);

impl Piece for Exponent {
    fn put(&self, out: &mut Vec<u8>) {
        let start = out.len() + usize::from(self.0 < 0);
        self.0.put(out);
        let digits = out.len() - start;
        if digits > 1 {
            out.insert(start + 1, b'.');
        }
        put!(out; "e", digits as i64 - 1 - self.1 as i64);
    }
}

/// 16 lower-case hex digits.
pub(super) struct Hex(pub u64);

impl Piece for Hex {
    fn put(&self, out: &mut Vec<u8>) {
        hex(out, self.0, 16);
    }
}

/// An identifier of 32 hex digits, such as Pinpoint gives to campaigns, journeys and projects, from 64 bits.
pub(super) struct Hex32(pub u64);

impl Piece for Hex32 {
    fn put(&self, out: &mut Vec<u8>) {
        put!(out; Hex(self.0), Hex(mix(self.0)));
    }
}

/// A number in hex without leading zeros, such as a group of an IPv6 address.
pub(super) struct ShortHex(pub u16);

impl Piece for ShortHex {
    fn put(&self, out: &mut Vec<u8>) {
        hex(out, u64::from(self.0), (16 - self.0.leading_zeros()).div_ceil(4).max(1));
    }
}

/// An identifier in the form of a random UUID (version 4), from 128 bits.
pub(super) struct Uuid(pub u64, pub u64);

impl Piece for Uuid {
    fn put(&self, out: &mut Vec<u8>) {
        hex(out, self.0 >> 32, 8);
        out.push(b'-');
        hex(out, self.0 >> 16, 4);
        out.extend_from_slice(b"-4");
        hex(out, self.0, 3);
        out.push(b'-');
        hex(out, (self.1 >> 48) & 0x3fff | 0x8000, 4);
        out.push(b'-');
        hex(out, self.1, 12);
    }
}

/// The lowest `digits` hex digits of `value`.
fn hex(out: &mut Vec<u8>, value: u64, digits: u32) {
    for index in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (4 * index)) as usize & 15]);
    }
}

/// Quoted text with the escapes that JSON requires, and no others.
pub(super) struct Text<'t>(pub &'t str);

impl Piece for Text<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        escape(out, self.0.as_bytes());
        out.push(b'"');
    }
}

/// Appends the content of a JSON string: `text`, which is UTF-8, with its quotes, backslashes and controls escaped.
pub(super) fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let mut copied = 0;
    for (at, &byte) in text.iter().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text[copied..at]);
        copied = at + 1;
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            _ => {
                out.extend_from_slice(b"\\u00");
                hex(out, u64::from(byte), 2);
            }
        }
    }
    out.extend_from_slice(&text[copied..]);
}

/// One `\uXXXX` for a character of the basic plane, a surrogate pair for the others.
pub(super) fn escape_char(out: &mut Vec<u8>, char: char) {
    for unit in char.encode_utf16(&mut [0; 2]) {
        out.extend_from_slice(b"\\u");
        hex(out, u64::from(*unit), 4);
    }
}

/// An RFC 3339 time in UTC with milliseconds, `2025-01-13T10:30:00.123Z`, from epoch milliseconds.
pub(super) struct Utc(pub i64);

impl Piece for Utc {
    fn put(&self, out: &mut Vec<u8>) {
        local_time(out, self.0);
        put!(out; ".", Padded(self.0.rem_euclid(1000) as u32, 3), "Z");
    }
}

/// [`Utc`] to the second: `2025-01-13T10:30:00Z`.
pub(super) struct Seconds(pub i64);

impl Piece for Seconds {
    fn put(&self, out: &mut Vec<u8>) {
        local_time(out, self.0);
        out.push(b'Z');
    }
}

/// The same instant as [`Utc`], in a time zone `.1` whole hours (0 to 14) east of it: `…T12:30:00.123+02:00`.
pub(super) struct East(pub i64, pub u32);

impl Piece for East {
    fn put(&self, out: &mut Vec<u8>) {
        local_time(out, self.0 + i64::from(self.1) * 3_600_000);
        put!(out; ".", Padded(self.0.rem_euclid(1000) as u32, 3), "+", Padded(self.1, 2), ":00");
    }
}

/// A day as `2025-01-13`, from days since 1970-01-01, for the years 0 to 9999.
pub(super) struct Date(pub i64);

impl Piece for Date {
    fn put(&self, out: &mut Vec<u8>) {
        let Day { year, month, day } = day_of(self.0);
        put!(out; Padded(year.unsigned_abs(), 4), "-", Padded(month, 2), "-", Padded(day, 2));
    }
}

/// `2025-01-13T10:30:00`: date and time of day to the second.
fn local_time(out: &mut Vec<u8>, ms: i64) {
    let second = (ms.rem_euclid(DAY_MS) / 1000) as u32;
    put!(
        out;
        Date(ms.div_euclid(DAY_MS)),
        "T",
        Padded(second / 3600, 2),
        ":",
        Padded(second / 60 % 60, 2),
        ":",
        Padded(second % 60, 2)
    );
}

/// Appends `bytes` in base64 (RFC 4648, section 4) with padding.
pub(super) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0, |group, &byte| group << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        let sextet = |index: u32| ALPHABET[(group >> (6 * index)) as usize & 63];
        let third = if chunk.len() > 1 { sextet(1) } else { b'=' };
        let fourth = if chunk.len() > 2 { sextet(0) } else { b'=' };
        out.extend_from_slice(&[sextet(3), sextet(2), third, fourth]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(piece: &impl Piece) -> String {
        let mut out = Vec::new();
        piece.put(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_in_every_form() {
        assert_eq!(written(&0_u64), "0");
        assert_eq!(written(&u64::MAX), "18446744073709551615");
        assert_eq!(written(&i64::MIN), "-9223372036854775808");
        assert_eq!(written(&Padded(42, 6)), "000042");
        assert_eq!(written(&Fixed(735, 1)), "73.5");
        assert_eq!(written(&Fixed(-5, 4)), "-0.0005");
        assert_eq!(written(&Exponent(735, 1)), "7.35e1");
        assert_eq!(written(&Exponent(-735, 1)), "-7.35e1");
        assert_eq!(written(&Exponent(5, 1)), "5e-1");
        assert_eq!(written(&Exponent(0, 1)), "0e-1");
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(written(&Utc(1_736_764_200_123)), "2025-01-13T10:30:00.123Z");
        assert_eq!(written(&Seconds(951_782_399_999)), "2000-02-28T23:59:59Z");
        assert_eq!(written(&Utc(951_782_400_000)), "2000-02-29T00:00:00.000Z");
        assert_eq!(written(&East(1_736_719_200_001, 2)), "2025-01-13T00:00:00.001+02:00");
        assert_eq!(written(&Utc(-1)), "1969-12-31T23:59:59.999Z");
        assert_eq!(written(&Date(47_482)), "2100-01-01");
    }

    #[test]
    fn text_has_the_escapes_of_json() {
        let text = "a\"b\\c/d\ne\u{1}é😀";
        let json = written(&Text(text));
        assert_eq!(json, "\"a\\\"b\\\\c/d\\ne\\u0001é😀\"");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        let mut pair = Vec::new();
        escape_char(&mut pair, '😀');
        assert_eq!(pair, b"\\ud83d\\ude00");
    }

    #[test]
    fn identifiers_have_the_form_of_a_uuid() {
        assert_eq!(written(&Uuid(u64::MAX, u64::MAX)), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(written(&Uuid(0, 0)), "00000000-0000-4000-8000-000000000000");
        assert_eq!(written(&Hex(0xabc)), "0000000000000abc");
        assert_eq!(written(&ShortHex(0xabc)), "abc");
        assert_eq!(written(&ShortHex(0)), "0");
    }

    #[test]
    fn base64_is_padded() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            let mut out = Vec::new();
            base64(&mut out, bytes.as_bytes());
            assert_eq!(out, text.as_bytes());
        }
    }
}
