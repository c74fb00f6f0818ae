//! Partition paths as Hive writes them: `type=skills/year=2025/month=01`.
//!
//! Owns: the path's syntax, in both directions. Does not own: the escaping of values (`escape`), which columns a dataset is
//! partitioned by (`dataset`), which partition a row belongs to (`columns::partition`).
//!
//! Text values are escaped. Null and the empty string are `__HIVE_DEFAULT_PARTITION__`. The date parts `year`, `month` and
//! `day` are numbers of a fixed width.
//!
//! Limits: 255 bytes a segment, 800 bytes a path.

use std::fmt;
use std::sync::Arc;

use crate::layout::InvalidPath;
use crate::layout::escape::{NULL, escape, unescape};

/// Bytes of a path segment: the longest name that ext4, XFS, APFS and NTFS allow.
const SEGMENT_BYTES_MAX: usize = 255;

/// Bytes of a partition path. An S3 key may have 1,024 bytes, and the lake's prefix and the object's name need some.
const PATH_BYTES_MAX: usize = 800;

/// Partition columns that hold a part of the event time's date. They need no column of the dataset.
pub(crate) const DATE_PARTS: [&str; 3] = ["year", "month", "day"];

/// The path of a partition, without slashes around it: `type=skills/year=2025/month=01`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionPath(Arc<str>);

/// The value of a partition column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionValue {
    /// A part of a date.
    Number(u32),
    /// A text; never empty.
    Text(String),
    /// No value, or an empty text.
    Null,
}

impl PartitionPath {
    /// The path of these columns and values. `None` if it is longer than the limits.
    pub(crate) fn new<'a>(columns: impl Iterator<Item = (&'a str, PathValue<'a>)>) -> Option<Self> {
        let mut path = String::new();
        for (name, value) in columns {
            if !path.is_empty() {
                path.push('/');
            }
            let start = path.len();
            path.push_str(name);
            path.push('=');
            match value {
                PathValue::Number(number) => path.push_str(&format_number(name, number)),
                PathValue::Text(text) => escape(text, &mut path),
            }
            if path.len() - start > SEGMENT_BYTES_MAX {
                return None;
            }
        }
        (path.len() <= PATH_BYTES_MAX).then(|| PartitionPath(path.into()))
    }

    /// Reads a path that [`PartitionPath`] wrote.
    ///
    /// # Errors
    /// The text is not written as a partition path is.
    pub fn parse(text: &str) -> Result<Self, InvalidPath> {
        let invalid = || InvalidPath(text.to_owned());
        let mut columns = Vec::new();
        for segment in text.split('/') {
            let (name, value) = segment.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(invalid)?;
            columns.push((name, parse_value(name, value).ok_or_else(invalid)?));
        }
        let values = columns.iter().map(|(name, value)| (*name, value.as_path_value()));
        // There is one way to write a path, so that equal partitions have equal paths.
        PartitionPath::new(values).filter(|path| path.as_str() == text).ok_or_else(invalid)
    }

    /// The columns and their values, in order.
    pub fn columns(&self) -> impl Iterator<Item = (&str, PartitionValue)> {
        self.0.split('/').map(|segment| {
            let (name, value) = segment.split_once('=').expect("a partition path has a name in every segment");
            (name, parse_value(name, value).expect("a partition path holds escaped values"))
        })
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PartitionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value to be written into a path.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PathValue<'a> {
    /// A part of a date.
    Number(u32),
    /// A text; empty for null.
    Text(&'a [u8]),
}

impl PartitionValue {
    /// The value as a text; `None` where it is null.
    pub fn into_text(self) -> Option<String> {
        match self {
            PartitionValue::Number(number) => Some(number.to_string()),
            PartitionValue::Text(text) => Some(text),
            PartitionValue::Null => None,
        }
    }

    fn as_path_value(&self) -> PathValue<'_> {
        match self {
            PartitionValue::Number(number) => PathValue::Number(*number),
            PartitionValue::Text(text) => PathValue::Text(text.as_bytes()),
            PartitionValue::Null => PathValue::Text(b""),
        }
    }
}

fn format_number(name: &str, number: u32) -> String {
    if name == "year" { format!("{number:04}") } else { format!("{number:02}") }
}

fn parse_value(name: &str, value: &str) -> Option<PartitionValue> {
    if DATE_PARTS.contains(&name) {
        return value.parse().ok().map(PartitionValue::Number);
    }
    if value == NULL {
        return Some(PartitionValue::Null);
    }
    unescape(value).filter(|text| !text.is_empty()).map(PartitionValue::Text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: &str) -> Option<PartitionPath> {
        PartitionPath::new([("t", PathValue::Text(value.as_bytes()))].into_iter())
    }

    #[test]
    fn values_are_escaped_as_hive_does_it() {
        for (value, expected) in [
            ("skills", "t=skills"),
            ("a/b=c d", "t=a%2Fb%3Dc d"),
            ("..", "t=.."),
            ("a%2Fb", "t=a%252Fb"),
            ("é/ü=ö", "t=é%2Fü%3Dö"),
            ("\u{0}\u{7f}\u{9b}", "t=%00%7F%C2%9B"),
            ("x\u{202E}gpj.exe\u{2066}\u{2029}", "t=x%E2%80%AEgpj.exe%E2%81%A6%E2%80%A9"),
            (NULL, "t=%5F_HIVE_DEFAULT_PARTITION__"),
            ("", "t=__HIVE_DEFAULT_PARTITION__"),
        ] {
            assert_eq!(text(value).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn a_path_that_is_too_long_is_refused() {
        assert!(text(&"x".repeat(253)).is_some());
        assert!(text(&"x".repeat(254)).is_none());
        assert!(text(&"/".repeat(100)).is_none());
        let value = "x".repeat(253);
        let columns = |count| (0..count).map(|_| ("t", PathValue::Text(value.as_bytes())));
        assert!(PartitionPath::new(columns(3)).is_some());
        assert!(PartitionPath::new(columns(4)).is_none());
    }

    #[test]
    fn what_is_not_written_as_a_partition_path_is_refused() {
        for path in
            ["", "a", "=a", "a=", "a=b/", "/a=b", "a=%2", "a=%zz", "a=%61", "a=%2f", "a=b=c", "year=25", "year=x"]
        {
            assert_eq!(PartitionPath::parse(path), Err(InvalidPath(path.to_owned())), "{path}");
        }
    }

    proptest! {
        #[test]
        fn every_partition_path_round_trips(
            kind in "\\PC{0,20}|[\u{0}-\u{20}/%=\u{80}-\u{a0}\u{2028}-\u{202f}]{1,5}",
            (year, month, day) in (0_u32..10_000, 1_u32..=12, 1_u32..=31),
        ) {
            let columns = [
                ("kind", PathValue::Text(kind.as_bytes())),
                ("year", PathValue::Number(year)),
                ("month", PathValue::Number(month)),
                ("day", PathValue::Number(day)),
            ];
            let path = PartitionPath::new(columns.into_iter()).unwrap();
            let hidden = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
            prop_assert!(!path.as_str().contains(hidden));
            prop_assert_eq!(path.as_str().split('/').count(), 4);
            prop_assert_eq!(PartitionPath::parse(path.as_str()).unwrap(), path.clone());
            let kind = if kind.is_empty() { PartitionValue::Null } else { PartitionValue::Text(kind) };
            let expected = vec![
                ("kind", kind),
                ("year", PartitionValue::Number(year)),
                ("month", PartitionValue::Number(month)),
                ("day", PartitionValue::Number(day)),
            ];
            prop_assert_eq!(path.columns().collect::<Vec<_>>(), expected);
        }
    }
}
