//! Finding an object's key among the few that a plan knows.
//!
//! Owns: tables of keys, the padded literals that the scanner compares keys with, and allow-lists of keys. Does not own: the
//! scanning. Limits: 65,535 keys in a table.

/// A set of known keys, found by a hash of their length, beginning and end.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyIndex {
    keys: Vec<Box<[u8]>>,
    /// Open addressing, a power of two of slots; 0 is empty, otherwise the key's number plus one.
    slots: Vec<u16>,
}

impl KeyIndex {
    pub(crate) fn new(keys: impl IntoIterator<Item = Box<[u8]>>) -> Self {
        let keys: Vec<Box<[u8]>> = keys.into_iter().collect();
        assert!(keys.len() < usize::from(u16::MAX), "at most 65,534 keys in one JSON object");
        let mut slots = vec![0_u16; (keys.len() * 2).next_power_of_two().max(2)];
        for (number, key) in keys.iter().enumerate() {
            let mut at = hash(key) & (slots.len() - 1);
            while slots[at] != 0 {
                at = (at + 1) & (slots.len() - 1);
            }
            #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
            let slot = number as u16 + 1;
            slots[at] = slot;
        }
        KeyIndex { keys, slots }
    }

    /// The number of a key, in the order given to [`KeyIndex::new`].
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Option<u16> {
        if self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut at = hash(key) & mask;
        loop {
            match self.slots[at] {
                0 => return None,
                slot if *self.keys[usize::from(slot) - 1] == *key => return Some(slot - 1),
                _ => at = (at + 1) & mask,
            }
        }
    }
}

#[inline]
fn hash(key: &[u8]) -> usize {
    let word = |bytes: Option<&[u8; 4]>| bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let (first, last) = match key.len() {
        0 => (0, 0),
        1..4 => (u32::from(key[0]), u32::from(key[key.len() - 1])),
        _ => (word(key.first_chunk()), word(key.last_chunk())),
    };
    let mixed = (u64::from(first) << 32 | u64::from(last)).wrapping_add(key.len() as u64);
    (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize
}

/// Which keys of a free-form object may be written: listed ones, prefixes (`sms_*`), or all (`*`). All others are denied.
#[derive(Debug, Clone, Default)]
pub(crate) struct AllowList {
    exact: KeyIndex,
    /// The number of each exact key among the entries.
    numbers: Vec<usize>,
    /// Each prefix, and its number among the entries.
    prefixes: Vec<(Box<[u8]>, usize)>,
}

impl AllowList {
    pub(crate) fn new(entries: &[String]) -> Self {
        let bytes = |text: &str| text.as_bytes().to_vec().into_boxed_slice();
        let (prefixes, exact): (Vec<_>, Vec<_>) =
            entries.iter().enumerate().partition(|(_, entry)| entry.ends_with('*'));
        let prefix = |(number, entry): (usize, &String)| (bytes(entry.trim_end_matches('*')), number);
        AllowList {
            exact: KeyIndex::new(exact.iter().map(|(_, entry)| bytes(entry))),
            numbers: exact.into_iter().map(|(number, _)| number).collect(),
            prefixes: prefixes.into_iter().map(prefix).collect(),
        }
    }

    /// The number of the entry that allows a key; `None`: the key is denied.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Option<usize> {
        let exact = self.exact.find(key).map(|number| self.numbers[usize::from(number)]);
        exact.or_else(|| self.prefixes.iter().find(|(prefix, _)| key.starts_with(prefix)).map(|(_, number)| *number))
    }
}

/// The bytes of `"key":`, to be compared with a record's bytes in one or two steps.
#[derive(Debug, Clone)]
pub(crate) struct Literal {
    len: usize,
    words: [u128; 2],
    masks: [u128; 2],
}

impl Literal {
    /// The literal of a key as compact JSON has it (`"key":`).
    pub(crate) fn plain(key: &str) -> Self {
        Self::of(format!("{}:", json_string(key)).as_bytes())
    }

    /// The same inside a JSON text that is itself a JSON string (`\"key\":`).
    pub(crate) fn escaped(key: &str) -> Self {
        let inner = json_string(&format!("{}:", json_string(key)));
        Self::of(&inner.as_bytes()[1..inner.len() - 1])
    }

    /// A literal over 32 bytes never matches; [`KeyIndex`] finds its key.
    fn of(bytes: &[u8]) -> Self {
        let mut padded = [0_u8; 32];
        let mut mask = [0_u8; 32];
        let fits = bytes.len() <= 32;
        if fits {
            padded[..bytes.len()].copy_from_slice(bytes);
            mask[..bytes.len()].fill(0xFF);
        }
        let words = |bytes: &[u8; 32]| {
            let (low, high) = bytes.split_at(16);
            [low, high].map(|half| u128::from_le_bytes(half.try_into().unwrap_or_default()))
        };
        Literal { len: if fits { bytes.len() } else { 0 }, words: words(&padded), masks: words(&mask) }
    }

    /// The length of the literal if it is in `buffer` at `at`, else 0. The buffer must have 32 bytes after `at`; without them
    /// nothing matches.
    #[inline]
    pub(crate) fn matches(&self, buffer: &[u8], at: usize) -> usize {
        let Some(window) = buffer.get(at..).and_then(<[u8]>::first_chunk::<32>) else { return 0 };
        let (low, high) = window.split_at(16);
        let low = u128::from_le_bytes(low.try_into().unwrap_or_default());
        if (low ^ self.words[0]) & self.masks[0] != 0 {
            return 0;
        }
        if self.len > 16 {
            let high = u128::from_le_bytes(high.try_into().unwrap_or_default());
            if (high ^ self.words[1]) & self.masks[1] != 0 {
                return 0;
            }
        }
        self.len
    }
}

/// A JSON string literal of a text.
pub(crate) fn json_string(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('"');
    for character in text.chars() {
        match character {
            '"' => literal.push_str("\\\""),
            '\\' => literal.push_str("\\\\"),
            control if u32::from(control) < 0x20 => literal.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => literal.push(other),
        }
    }
    literal.push('"');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_key_is_found_and_no_other() {
        let keys: Vec<String> = (0..500).map(|n| format!("key_{n}")).chain(["".into(), "a".into()]).collect();
        let index = KeyIndex::new(keys.iter().map(|key| key.as_bytes().to_vec().into_boxed_slice()));
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(index.find(key.as_bytes()).map(usize::from), Some(number));
            assert_eq!(index.find(format!("{key}x").as_bytes()), None);
        }
        assert_eq!(KeyIndex::default().find(b"a"), None);
    }

    #[test]
    fn an_allow_list_denies_what_it_does_not_list() {
        let list = AllowList::new(&["sms_*".into(), "campaign_id".into()]);
        assert_eq!((list.find(b"campaign_id"), list.find(b"sms_parts")), (Some(1), Some(0)));
        assert_eq!((list.find(b"email"), list.find(b"campaign_id2")), (None, None));
        assert_eq!(AllowList::new(&["*".into()]).find(b"anything"), Some(0));
        assert_eq!(AllowList::default().find(b"anything"), None);
    }

    #[test]
    fn a_literal_matches_itself_only() {
        for key in ["a", "event_timestamp", "a_key_of_more_than_sixteen", "a_key_that_is_too_long_for_a_literal"] {
            let literal = Literal::plain(key);
            let mut text = format!("\"{key}\":1").into_bytes();
            text.resize(text.len() + 64, 0);
            let expected = if key.len() + 3 > 32 { 0 } else { key.len() + 3 };
            assert_eq!(literal.matches(&text, 0), expected);
            text[1] = b'#';
            assert_eq!(literal.matches(&text, 0), 0);
        }
        assert_eq!(Literal::escaped("Id").matches(&[br#"\"Id\":"#.as_slice(), &[0; 40]].concat(), 0), 7);
    }
}
