//! Which partition a row goes to, and what the partition's path is.
//!
//! Owns: numbering the partitions of a dataset, and Hive's path syntax (`type=skills/year=2025/month=01`). Does not own:
//! where a row's values come from, what is written there.
//!
//! Path values are percent-encoded as Hive's `FileUtils.escapePathName` does it; null and the empty string are
//! `__HIVE_DEFAULT_PARTITION__`. Limits: 255 bytes a path segment, as file systems have it, and 800 bytes a path.
//!
//! Beyond Hive: the control characters U+0080 to U+009F, which a terminal may obey, line separators, and what turns the
//! direction of text (U+202A to U+202E, U+2066 to U+2069) are written as the escaped bytes of their UTF-8. DuckDB, pyarrow
//! and Polars read them back as they were, Hive and Spark as one character a byte. A value that is the name of the default
//! partition is no null: its first byte is escaped.

use crate::columns::intern::Interner;
use crate::dataset::plan::Partition;
use crate::time::{DAY_MS, Day, day_of};

/// Bytes of a path segment: what ext4, XFS, APFS and NTFS allow for a name.
const SEGMENT_BYTES_MAX: usize = 255;

/// Bytes of a path: an S3 key may have 1,024, and there is a lake before the path and a file's name after it.
const PATH_BYTES_MAX: usize = 800;

/// The number of a partition in its table.
pub(crate) type PartitionId = u32;

/// Partitions seen so far.
#[derive(Debug)]
pub(crate) struct Partitions {
    columns: Vec<Partition>,
    /// Finest part of a date that is asked for.
    grain: Grain,
    /// From (date, first text value), then (so far, next text value), to a number.
    pairs: PairMap,
    /// What a number of `pairs` stands for: a whole partition, or a part of one.
    paths: Vec<Option<String>>,
    /// Partitions that were found for the first time, since they were last asked for.
    fresh: Vec<PartitionId>,
    steps: u32,
    last_day: i64,
    last_code: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Grain {
    None,
    Year,
    Month,
    Day,
}

impl Partitions {
    pub(crate) fn new(columns: &[Partition]) -> Self {
        let grain = |column: &Partition| match column {
            Partition::Year => Grain::Year,
            Partition::Month => Grain::Month,
            Partition::Day => Grain::Day,
            Partition::Text { .. } => Grain::None,
        };
        Partitions {
            grain: columns.iter().map(grain).max().unwrap_or(Grain::None),
            columns: columns.to_vec(),
            pairs: PairMap::default(),
            paths: Vec::new(),
            fresh: Vec::new(),
            steps: 0,
            last_day: i64::MIN,
            last_code: 0,
        }
    }

    /// The text leaves whose values a partition needs, in order.
    pub(crate) fn text_leaves(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().filter_map(|column| match column {
            Partition::Text { leaf, .. } => Some(*leaf),
            _ => None,
        })
    }

    /// The partition of a row: its event time, and the dictionary number of each text value (0: null), with the
    /// dictionaries to read them in. `None` if its path would be too long.
    #[inline]
    pub(crate) fn find(
        &mut self,
        event_ms: i64,
        values: impl Iterator<Item = u32>,
        dictionaries: &[&Interner],
    ) -> Option<PartitionId> {
        let date = self.date_code(event_ms.div_euclid(DAY_MS));
        let mut code = date;
        let mut numbers = [0_u32; TEXTS_MAX];
        let mut count = 0;
        for value in values {
            numbers[count] = value;
            count += 1;
            // The last step's number is the partition; a step before it only needs to be told from others.
            code = self.step(code, value, count);
        }
        if count == 0 {
            code = self.step(date, 0, 1);
        }
        if self.paths[code as usize].is_none() {
            let path = self.path(event_ms, &numbers[..count], dictionaries).unwrap_or_default();
            if !path.is_empty() {
                self.fresh.push(code);
            }
            self.paths[code as usize] = Some(path);
        }
        self.paths[code as usize].as_deref().is_some_and(|path| !path.is_empty()).then_some(code)
    }

    #[inline]
    fn step(&mut self, code: u32, value: u32, depth: usize) -> u32 {
        // Numbers of one depth are never asked for at another: the depth is part of the pair by way of `code`, since all
        // steps number their results from one counter; only the date codes of depth one could collide with them.
        let pair = (u64::from(code) | if depth == 1 { 1 << 31 } else { 0 }) << 32 | u64::from(value);
        let (found, new) = self.pairs.get_or_insert(pair, self.steps);
        if new {
            self.steps += 1;
            self.paths.push(None);
        }
        found
    }

    #[inline]
    fn date_code(&mut self, day: i64) -> u32 {
        if day == self.last_day {
            return self.last_code;
        }
        let Day { year, month, .. } = day_of(day);
        let code = match self.grain {
            Grain::None => 0,
            Grain::Year => i64::from(year),
            Grain::Month => i64::from(year) * 12 + i64::from(month),
            Grain::Day => day + 1_000_000,
        };
        self.last_day = day;
        self.last_code = u32::try_from(code).unwrap_or(0);
        self.last_code
    }

    fn path(&self, event_ms: i64, values: &[u32], dictionaries: &[&Interner]) -> Option<String> {
        let day = day_of(event_ms.div_euclid(DAY_MS));
        let mut texts = values.iter().zip(dictionaries);
        let mut path = String::new();
        for column in &self.columns {
            let segment = match column {
                Partition::Year => format!("year={:04}", day.year),
                Partition::Month => format!("month={:02}", day.month),
                Partition::Day => format!("day={:02}", day.day),
                Partition::Text { name, .. } => {
                    let value = texts.next().filter(|(number, _)| **number != 0).map(|(number, all)| all.get(*number));
                    format!("{name}={}", escape(value.unwrap_or_default()))
                }
            };
            if segment.len() > SEGMENT_BYTES_MAX {
                return None;
            }
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(&segment);
        }
        (path.len() <= PATH_BYTES_MAX).then_some(path)
    }

    /// The path of a partition that [`Partitions::find`] gave.
    pub(crate) fn path_of(&self, partition: PartitionId) -> &str {
        self.paths[partition as usize].as_deref().unwrap_or_default()
    }

    /// The partitions that were found for the first time since the last call.
    pub(crate) fn take_fresh(&mut self) -> Vec<PartitionId> {
        std::mem::take(&mut self.fresh)
    }

    pub(crate) fn memory(&self) -> usize {
        self.pairs.slots.len() * 16
            + self.paths.iter().map(|path| 24 + path.as_ref().map_or(0, String::len)).sum::<usize>()
    }
}

/// Text columns that a dataset may be partitioned by.
pub(crate) const TEXTS_MAX: usize = 8;

/// What stands for null, and for the empty text.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// A value as Hive writes it into a path.
pub(crate) fn escape(value: &[u8]) -> String {
    if value.is_empty() {
        return NULL.to_owned();
    }
    if value == NULL.as_bytes() {
        return format!("%5F{}", &NULL[1..]);
    }
    let mut escaped = String::with_capacity(value.len());
    for character in String::from_utf8_lossy(value).chars() {
        match character {
            '\0'..='\x1F'
            | '\x7F'
            | '"'
            | '#'
            | '%'
            | '\''
            | '*'
            | '/'
            | ':'
            | '='
            | '?'
            | '\\'
            | '{'
            | '}'
            | '['
            | ']'
            | '^'
            | '<'
            | '>'
            | '|' => escaped.push_str(&format!("%{:02X}", u32::from(character))),
            '\u{80}'..='\u{9F}' | '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => {
                let mut bytes = [0; 4];
                character.encode_utf8(&mut bytes).bytes().for_each(|byte| escaped.push_str(&format!("%{byte:02X}")));
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// A map from pairs of numbers to numbers.
#[derive(Debug, Default)]
struct PairMap {
    /// Open addressing: (pair, number plus one); 0 is empty.
    slots: Vec<(u64, u32)>,
    len: usize,
}

impl PairMap {
    /// The number of a pair, which becomes `next` if it is new; and whether it is.
    #[inline]
    fn get_or_insert(&mut self, pair: u64, next: u32) -> (u32, bool) {
        if self.len * 2 >= self.slots.len() {
            self.grow();
        }
        let at = self.place(pair);
        match &mut self.slots[at] {
            (_, 0) => {
                self.slots[at] = (pair, next + 1);
                self.len += 1;
                (next, true)
            }
            (_, number) => (*number - 1, false),
        }
    }

    #[inline]
    fn place(&self, pair: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = (pair.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & mask;
        loop {
            match self.slots[at] {
                (_, 0) => return at,
                (known, _) if known == pair => return at,
                _ => at = (at + 1) & mask,
            }
        }
    }

    #[cold]
    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(64);
        let old = std::mem::replace(&mut self.slots, vec![(0, 0); size]);
        for (pair, number) in old.into_iter().filter(|(_, number)| *number != 0) {
            let at = self.place(pair);
            self.slots[at] = (pair, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::parse_rfc3339;

    fn ms(text: &str) -> i64 {
        parse_rfc3339(text.as_bytes()).unwrap()
    }

    #[test]
    fn rows_of_one_month_and_type_share_a_partition() {
        let columns = [Partition::Text { name: "type".into(), leaf: 3 }, Partition::Year, Partition::Month];
        let mut partitions = Partitions::new(&columns);
        let mut types = Interner::new(1);
        let (skills, _) = types.intern(b"skills");
        let (odd, _) = types.intern(b"a/b=c d");
        let mut find = |time: &str, kind: u32| {
            let found = partitions.find(ms(time), [kind].into_iter(), &[&types]).unwrap();
            (found, partitions.path_of(found).to_owned())
        };
        let first = find("2025-01-13T00:00:00Z", skills);
        assert_eq!(first.1, "type=skills/year=2025/month=01");
        assert_eq!(find("2025-01-31T23:59:59Z", skills), first);
        assert_eq!(find("2025-02-01T00:00:00Z", skills).1, "type=skills/year=2025/month=02");
        assert_eq!(find("2025-01-13T00:00:00Z", odd).1, "type=a%2Fb%3Dc d/year=2025/month=01");
        assert_eq!(find("2025-01-13T00:00:00Z", 0).1, "type=__HIVE_DEFAULT_PARTITION__/year=2025/month=01");
        assert_eq!(find("2025-01-01T00:00:00Z", skills), first);
    }

    #[test]
    fn a_path_reads_back_as_its_value_and_turns_no_text_around() {
        let decoded = |path: &str| {
            let (mut bytes, mut rest) = (Vec::new(), path.as_bytes());
            while let [first, after @ ..] = rest {
                let is_escape = *first == b'%';
                let digits = || u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap();
                bytes.push(if is_escape { digits() } else { *first });
                rest = if is_escape { &after[2..] } else { after };
            }
            bytes
        };
        for value in ["..", "a%2Fb", "\u{0}\u{7f}\u{9b}", "x\u{202E}gpj.exe\u{2066}\u{2029}", "é/ü=ö", NULL] {
            let path = escape(value.as_bytes());
            assert!(!path.contains('/') && path != NULL, "{path:?}");
            assert!(
                !path.chars().any(|c| c.is_control() || matches!(c, '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}'))
            );
            assert_eq!(decoded(&path), value.as_bytes(), "{path}");
        }
        assert_eq!(escape(b""), NULL);
    }

    #[test]
    fn two_text_columns_make_a_partition_of_each_pair() {
        let text = |name: &str| Partition::Text { name: name.into(), leaf: 0 };
        let mut partitions = Partitions::new(&[text("a"), Partition::Day, text("b")]);
        let mut values = Interner::new(1);
        let numbers: Vec<u32> = (0..40).map(|n| values.intern(format!("v{n}").as_bytes()).0).collect();
        let mut seen = std::collections::HashMap::new();
        for day in 0..5 {
            for &a in &numbers {
                for &b in &numbers {
                    let found = partitions.find(day * DAY_MS, [a, b].into_iter(), &[&values, &values]).unwrap();
                    let path = partitions.path_of(found).to_owned();
                    assert_eq!(path, format!("a=v{}/day={:02}/b=v{}", a - 1, day + 1, b - 1));
                    assert!(seen.insert(found, path).is_none());
                }
            }
        }
        assert_eq!(seen.len(), 5 * 40 * 40);
    }

    #[test]
    fn a_dataset_may_be_partitioned_by_the_day_alone_and_a_long_value_is_refused() {
        let mut days = Partitions::new(&[Partition::Day]);
        let first = days.find(0, std::iter::empty(), &[]).unwrap();
        assert_eq!(days.find(DAY_MS - 1, std::iter::empty(), &[]), Some(first));
        assert_ne!(days.find(DAY_MS, std::iter::empty(), &[]), Some(first));
        let mut texts = Partitions::new(&[Partition::Text { name: "t".into(), leaf: 0 }]);
        let mut values = Interner::new(1);
        let (long, _) = values.intern(&[b'/'; 100]);
        assert_eq!(texts.find(0, [long].into_iter(), &[&values]), None);
    }
}
