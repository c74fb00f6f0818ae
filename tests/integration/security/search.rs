//! Finding marks: in plain text, and in every form that can be turned back into them.
//!
//! Owns: which marks were planted where, and the search for them. A mark is unlike any other text, so bytes that contain it come
//! from the record in which it was planted. Does not own: where a mark may be (`rules`), what is searched (`lake`).
//!
//! The search finds, anywhere in any bytes:
//!
//! - the mark itself: in upper or lower case, with characters written as `\u0051` or `%51`, as UTF-16, as base64 (either
//!   alphabet, any alignment), as hex digits; and the digits of a number;
//! - its MD5, SHA-1, SHA-256 and SHA-512, also of the trimmed, lower-case or upper-case value: as bytes, as hex digits of either
//!   case, as base64 of either alphabet, with or without padding. (A digest can be reversed with a list of names.) The first 64
//!   bits of a digest are enough, so a truncated digest is found, too.
//!
//! It does not search for CRC-32: with 32 bits, thousands of marks and megabytes, some would match by chance.

use std::collections::{HashMap, HashSet};

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

/// What every mark begins with, in lower case.
const STEM: &str = "qx7mark";
/// Digits of a mark's number.
const DIGITS: usize = 5;
/// A numeric mark is this number plus the number of the mark. It fits into an int32.
const NUMBERS: u64 = 731_900_000;

/// The value of a character, and its number of bits.
type Alphabet = (fn(u8) -> Option<u8>, u32);

/// The number of a mark.
pub(crate) type MarkId = usize;

/// Where a mark was planted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planted {
    /// The dataset of the record; empty if it has none.
    pub(crate) dataset: String,
    /// JSON Pointer of the value in the record, through documents inside strings; empty if it is not a value.
    pub(crate) pointer: String,
    /// The mark, as a reader of the record gets it.
    pub(crate) text: String,
}

/// A mark that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    /// The first and the last mark that it can be. They are the same unless it was truncated.
    pub(crate) ids: [MarkId; 2],
    /// The form in which it was found.
    pub(crate) form: &'static str,
}

/// All marks, and the beginnings of their digests.
#[derive(Debug)]
pub(crate) struct Marks {
    planted: Vec<Planted>,
    digests: HashMap<u64, MarkId>,
    /// Whether a digest may begin with these bits: checked for each byte that is searched.
    filter: Vec<bool>,
    numbers: HashSet<String>,
}

impl Default for Marks {
    fn default() -> Self {
        Marks { planted: Vec::new(), digests: HashMap::new(), filter: vec![false; 1 << 24], numbers: HashSet::new() }
    }
}

impl Marks {
    pub(crate) fn planted(&self, id: MarkId) -> &Planted {
        &self.planted[id]
    }

    pub(crate) fn len(&self) -> usize {
        self.planted.len()
    }

    fn add(&mut self, dataset: &str, pointer: &str, text: String) -> String {
        let id = self.planted.len();
        assert!(id < 10_usize.pow(DIGITS as u32), "marks have {DIGITS} digits");
        let (trimmed, core) = (text.trim().to_owned(), code(id));
        for value in [&text, &trimmed, &core] {
            for value in [value.clone(), value.to_lowercase(), value.to_uppercase()] {
                let value = value.as_bytes();
                for digest in [
                    Md5::digest(value).to_vec(),
                    Sha1::digest(value).to_vec(),
                    Sha256::digest(value).to_vec(),
                    Sha512::digest(value).to_vec(),
                ] {
                    let begin = u64::from_be_bytes(digest[..8].try_into().unwrap());
                    self.digests.insert(begin, id);
                    let index = slot(begin, self.filter.len());
                    self.filter[index] = true;
                }
            }
        }
        self.planted.push(Planted { dataset: dataset.to_owned(), pointer: pointer.to_owned(), text: text.clone() });
        text
    }

    /// A new mark that looks like a code: 13 letters and digits.
    pub(crate) fn code(&mut self, dataset: &str, pointer: &str) -> String {
        let text = code(self.planted.len());
        self.add(dataset, pointer, text)
    }

    /// A new mark that looks like text written by a person.
    pub(crate) fn prose(&mut self, dataset: &str, pointer: &str) -> String {
        let text = format!(" {} Zoë \"Zo\" O'Hara, 1/2; a@example.com ", code(self.planted.len()));
        self.add(dataset, pointer, text)
    }

    /// A new mark that is an integer of nine digits.
    pub(crate) fn number(&mut self, dataset: &str, pointer: &str) -> String {
        let text = (NUMBERS + self.planted.len() as u64).to_string();
        self.numbers.insert(text.clone());
        self.add(dataset, pointer, text)
    }

    /// All marks in some bytes, in any form.
    pub(crate) fn find(&self, bytes: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        self.find_text(bytes, "unchanged", &mut found);
        self.find_numbers(bytes, &mut found);
        if bytes.contains(&b'\\') {
            self.find_text(&unescaped(bytes), "with \\u escapes", &mut found);
        }
        if bytes.contains(&b'%') {
            self.find_text(&percent_decoded(bytes), "percent-encoded", &mut found);
        }
        if bytes.contains(&0) {
            let narrow: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).collect();
            self.find_text(&narrow, "as UTF-16", &mut found);
        }
        self.find_windows(bytes, None, 8, "a digest's bytes", &mut found);
        for run in runs(bytes, hex_value, 14) {
            self.find_windows(run, Some((hex_value, 4)), 16, "a digest in hex", &mut found);
            for skip in 0..2 {
                self.find_text(&decoded(&run[skip..], hex_value, 4), "in hex", &mut found);
            }
        }
        for run in runs(bytes, base64_value, 11) {
            self.find_windows(run, Some((base64_value, 6)), 11, "a digest in base64", &mut found);
            for skip in 0..4.min(run.len()) {
                self.find_text(&decoded(&run[skip..], base64_value, 6), "in base64", &mut found);
            }
        }
        found.sort();
        found.dedup();
        found
    }

    /// All unchanged marks in some bytes.
    pub(crate) fn find_plain(&self, bytes: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        self.find_text(bytes, "unchanged", &mut found);
        self.find_numbers(bytes, &mut found);
        found
    }

    fn find_text(&self, bytes: &[u8], form: &'static str, found: &mut Vec<Found>) {
        let lower = bytes.to_ascii_lowercase();
        for at in memchr::memmem::find_iter(&lower, STEM) {
            let rest = lower[at + STEM.len()..].iter().take(DIGITS);
            let digits: usize = rest.clone().take_while(|byte| byte.is_ascii_digit()).count();
            let number = rest.take(digits).fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
            // A truncated mark may be any mark that begins with the same digits. The upper bounds of statistics increment the last
            // digit that is left.
            let (left, last) = (10_usize.pow((DIGITS - digits) as u32), self.planted.len().saturating_sub(1));
            let first = if left == 1 { number } else { number.saturating_sub(1) * left };
            let ids = [first.min(last), (number * left + left - 1).min(last)];
            found.push(Found { ids, form });
        }
    }

    fn find_numbers(&self, bytes: &[u8], found: &mut Vec<Found>) {
        for run in bytes.split(|byte| !byte.is_ascii_digit()).filter(|run| run.len() == 9) {
            let digits = std::str::from_utf8(run).unwrap();
            if self.numbers.contains(digits) {
                let id = usize::try_from(digits.parse::<u64>().unwrap() - NUMBERS).unwrap();
                found.push(Found { ids: [id, id], form: "as a number" });
            }
        }
    }

    /// Searches every window of this many characters for the first 64 bits of a digest.
    fn find_windows(
        &self,
        bytes: &[u8],
        alphabet: Option<Alphabet>,
        window: usize,
        form: &'static str,
        found: &mut Vec<Found>,
    ) {
        let bits = alphabet.map_or(8, |(_, bits)| bits);
        let surplus = u32::try_from(window).unwrap() * bits - 64;
        let mut value = 0_u128;
        for (index, byte) in bytes.iter().enumerate() {
            let low = alphabet.map_or(Some(*byte), |(value_of, _)| value_of(*byte)).unwrap_or_default();
            value = value << bits | u128::from(low);
            let begin = (value >> surplus) as u64;
            if index + 1 >= window
                && self.filter[slot(begin, self.filter.len())]
                && let Some(id) = self.digests.get(&begin)
            {
                found.push(Found { ids: [*id, *id], form });
            }
        }
    }
}

fn code(id: MarkId) -> String {
    format!("Qx7Mark{id:05}z")
}

fn slot(begin: u64, size: usize) -> usize {
    usize::try_from(begin >> 40).unwrap() % size
}

fn hex_value(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// The value in the standard alphabet and in that for URLs.
fn base64_value(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

/// The longest runs of an alphabet's characters, with at least this many characters.
fn runs(bytes: &[u8], value_of: fn(u8) -> Option<u8>, at_least: usize) -> impl Iterator<Item = &[u8]> {
    bytes.split(move |byte| value_of(*byte).is_none()).filter(move |run| run.len() >= at_least)
}

fn decoded(text: &[u8], value_of: fn(u8) -> Option<u8>, bits: u32) -> Vec<u8> {
    let (mut value, mut have, mut bytes) = (0_u32, 0, Vec::with_capacity(text.len()));
    for byte in text {
        value = value << bits | u32::from(value_of(*byte).unwrap_or_default());
        have += bits;
        if have >= 8 {
            have -= 8;
            bytes.push((value >> have & 0xFF) as u8);
        }
    }
    bytes
}

/// Replaces `\u0051` by the character, and keeps other escapes. A backslash of an inner document may itself be escaped.
fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = match bytes[at..] {
            [b'\\', b'u', a, b, c, d, ..] => {
                let digits = [a, b, c, d].map(hex_value);
                digits.iter().try_fold(0_u32, |code, digit| digit.map(|digit| code << 4 | u32::from(digit)))
            }
            _ => None,
        };
        match code.and_then(char::from_u32) {
            Some(character) => {
                plain.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                at += 6;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    plain
}

/// Replaces `%51` by the byte.
pub(crate) fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at..] {
            [b'%', high, low, ..] if hex_value(high).is_some() && hex_value(low).is_some() => {
                plain.push(hex_value(high).unwrap() << 4 | hex_value(low).unwrap());
                at += 3;
            }
            [byte, ..] => {
                plain.push(byte);
                at += 1;
            }
            [] => unreachable!("there is a byte"),
        }
    }
    plain
}

/// Proves the search, on which the other tests depend: it is shown leaks of every form, and texts without a leak.
#[test]
fn the_search_finds_leaks_of_every_form_and_nothing_else() {
    let mut marks = Marks::default();
    for n in 0..200 {
        marks.code("d", &format!("/{n}"));
    }
    let prose = marks.prose("d", "/prose");
    let number = marks.number("d", "/number");
    let id = 200;
    let ids = |bytes: &[u8]| marks.find(bytes).into_iter().map(|found| found.ids[0]).collect::<Vec<_>>();

    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let base64 = |bytes: &[u8]| base64_simd::STANDARD.encode_to_string(bytes);
    let mut leaks: Vec<(String, Vec<u8>)> = Vec::new();
    let mut texts: Vec<(&str, String)> = vec![("unchanged", prose.clone()), ("trimmed", prose.trim().to_owned())];
    texts.push(("lower", prose.to_lowercase()));
    texts.push(("upper", prose.to_uppercase()));
    texts.push(("core", code(id)));
    for (name, text) in &texts {
        leaks.push(((*name).to_owned(), text.clone().into_bytes()));
        leaks.push((format!("{name}, hex"), hex(text.as_bytes()).into_bytes()));
        leaks.push((format!("{name}, HEX"), hex(text.as_bytes()).to_uppercase().into_bytes()));
        for shift in 0..3 {
            let shifted = [&b"abc"[..shift], text.as_bytes()].concat();
            let encoded = base64(&shifted);
            leaks.push((format!("{name}, base64 at {shift}"), encoded.clone().into_bytes()));
            let url = encoded.replace('+', "-").replace('/', "_");
            leaks.push((format!("{name}, base64url at {shift}"), url.trim_end_matches('=').as_bytes().to_vec()));
        }
        let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        leaks.push((format!("{name}, UTF-16"), utf16));
        let escapes: String = text.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
        leaks.push((format!("{name}, escaped"), escapes.into_bytes()));
        let percents: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        leaks.push((format!("{name}, percent"), percents.into_bytes()));
        let digests: [(&str, Vec<u8>); 4] = [
            ("md5", Md5::digest(text).to_vec()),
            ("sha1", Sha1::digest(text).to_vec()),
            ("sha256", Sha256::digest(text).to_vec()),
            ("sha512", Sha512::digest(text).to_vec()),
        ];
        for (algorithm, digest) in digests {
            for (length, digest) in
                [("", &digest[..]), (" truncated to 16 bytes", &digest[..16]), (" truncated to 9", &digest[..9])]
            {
                let name = format!("{algorithm}{length} of {name}");
                leaks.push((format!("{name}, bytes"), digest.to_vec()));
                leaks.push((format!("{name}, hex"), hex(digest).into_bytes()));
                leaks.push((format!("{name}, HEX"), hex(digest).to_uppercase().into_bytes()));
                let encoded = base64(digest);
                leaks.push((format!("{name}, base64"), encoded.clone().into_bytes()));
                leaks.push((
                    format!("{name}, base64 without padding"),
                    encoded.trim_end_matches('=').as_bytes().to_vec(),
                ));
                let url = encoded.replace('+', "-").replace('/', "_");
                leaks.push((format!("{name}, base64url"), url.trim_end_matches('=').as_bytes().to_vec()));
            }
        }
    }
    assert!(leaks.len() > 400);
    let neighbours: [(&[u8], &[u8]); 4] =
        [(b"", b""), (b"user=", b" (3 of 7)"), (b"{\"key\":\"", b"\"}\n"), (b"/type=x%2F", b"/year=2025/")];
    for (name, leak) in &leaks {
        for (before, after) in neighbours {
            let text = [before, leak, after].concat();
            assert!(ids(&text).contains(&id), "{name} between {before:?} and {after:?} is not found");
        }
    }
    // A digest in hex is found inside a longer run of hex digits.
    let longer = format!("0123abc{}fedc", hex(&Sha256::digest(&prose)));
    assert_eq!(ids(longer.as_bytes()), [id]);
    assert_eq!(ids(format!("{{\"age\":{number}}}").as_bytes()), [201]);
    assert_eq!(marks.find(b"Qx7Mark0012")[0].ids, [110, 129], "a truncated mark is found");

    let innocent = format!(
        "{} {} {} {number}0 qx7 Mark00012 {}",
        hex(&Sha256::digest("something else")),
        base64(&Md5::digest("something else")),
        NUMBERS + 5,
        uuid_like()
    );
    assert_eq!(ids(innocent.as_bytes()), Vec::<usize>::new());
}

#[cfg(test)]
fn uuid_like() -> String {
    (0..2_000).map(|n| format!("{:?} ", Sha256::digest(format!("seed {n}")))).collect()
}
