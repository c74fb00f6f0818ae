//! Finding rows by the values of their columns, without reading the other columns.
//!
//! Owns: when a value matches, and which parts of a file a search needs. Does not own: getting these parts, what a value becomes before it is
//! written (`dataset::search`).
//!
//! A search takes three steps: the footer, then the columns that it compares, then the identities of the rows that it found. Before each step
//! the caller gets the bytes that the step needs. A row group whose statistics or bloom filter exclude the value is left out.
//!
//! A column is searched if a row has at most one value of it: a column of a plain type, a field of a struct by its dotted name, or a column in
//! the path of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::FileReader;
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnDescriptor;

use crate::rows::column::{Compared, LeafReader, hash_of_number, hash_of_text};
use crate::rows::identity::IdentityColumns;
use crate::rows::show::read_times;
use crate::rows::{BATCH_ROWS, NOT_COMPARED, RowFile, RowIdentity, UnreadableRows};
use crate::time::{MS_US, parse_date, parse_rfc3339_us};

/// Bytes at the end of a file that have the whole footer of most files.
pub const FOOTER_BYTES: u64 = 64 << 10;
/// Bytes between two parts for which one longer request is cheaper than two.
const GAP_BYTES: u64 = 64 << 10;
/// Bytes at the very end: the length of the footer, and the magic number.
const TAIL_BYTES: u64 = 8;

/// A value that a column must have: one of these texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnValue {
    /// The column, or the dotted name of a field of a struct.
    pub column: String,
    /// The texts, as the file has the value: a number in decimal, a time as RFC 3339, a date as `2025-01-13`.
    pub texts: Vec<String>,
}

/// A row that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundRow {
    /// Its number in the file, from 0.
    pub row: u64,
    /// Whose row it is.
    pub identity: RowIdentity,
    /// When its record arrived: milliseconds since 1970; `None` if the file does not say.
    pub arrival_ms: Option<i64>,
}

/// Where the footer of a file begins, given its last bytes. `None` if they are fewer than eight.
pub fn footer_begin(length: u64, last: &[u8]) -> Option<u64> {
    let tail = last.last_chunk::<8>()?;
    let footer = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    Some(length.saturating_sub(footer + TAIL_BYTES))
}

/// What one condition is compared with in one file.
enum Test {
    /// All rows have it.
    Holds,
    /// A leaf, by its number, has one of these hashes.
    Leaf { number: usize, role: Compared, hashes: Vec<u64>, wanted: Vec<Key> },
}

/// A value as statistics have it.
enum Key {
    Text(Vec<u8>),
    Number(i64),
    Other,
}

impl RowFile {
    /// The tests of the conditions; `None` if no row can meet them all.
    fn tests(&self, conditions: &[ColumnValue]) -> Option<Vec<Test>> {
        conditions.iter().map(|condition| self.test(condition)).collect()
    }

    fn test(&self, condition: &ColumnValue) -> Option<Test> {
        if let Some(value) = self.in_path.get(&condition.column) {
            // The path has numbers without the zeros before them.
            let number = |text: &str| text.parse::<u64>().ok();
            let is = |text: &String| {
                value
                    .as_ref()
                    .is_some_and(|value| value == text || number(value).is_some_and(|it| number(text) == Some(it)))
            };
            return condition.texts.iter().any(is).then_some(Test::Holds);
        }
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let number =
            (0..schema.num_columns()).find(|number| schema.column(*number).path().string() == condition.column)?;
        let descriptor = schema.column(number);
        let role = Compared::one_a_row(&descriptor)?;
        let values = condition.texts.iter().filter_map(|text| value_of(text, &descriptor));
        let (hashes, wanted): (Vec<u64>, Vec<Key>) = values.unzip();
        (!hashes.is_empty()).then_some(Test::Leaf { number, role, hashes, wanted })
    }

    /// The row groups that may have a row, each with the number of its first row.
    fn groups(&self, tests: &[Test]) -> Vec<(usize, u64)> {
        let mut first_row = 0;
        let mut groups = Vec::new();
        for (group, metadata) in self.reader.metadata().row_groups().iter().enumerate() {
            if tests.iter().all(|test| may_have(test, metadata) && self.filter_allows(test, metadata)) {
                groups.push((group, first_row));
            }
            first_row += u64::try_from(metadata.num_rows()).unwrap_or(0);
        }
        groups
    }

    /// The bytes of the bloom filters that exclude row groups from [`bytes_to_find`](Self::bytes_to_find) once they are in memory.
    pub fn bytes_of_filters(&self, conditions: &[ColumnValue]) -> Vec<Range<u64>> {
        let tests = self.tests(conditions).unwrap_or_default();
        let of_group = |(group, _): (usize, u64)| {
            let group = self.reader.metadata().row_group(group);
            tests.iter().filter_map(Test::leaf).filter_map(move |leaf| filter_range(group.column(leaf)))
        };
        join(self.groups(&tests).into_iter().flat_map(of_group).collect())
    }

    /// Whether the bloom filter of a row group allows a value. True if it has none, or if it is not in memory.
    fn filter_allows(&self, test: &Test, group: &RowGroupMetaData) -> bool {
        let Test::Leaf { number, wanted, .. } = test else { return true };
        let column = group.column(*number);
        let in_memory = filter_range(column).filter(|range| self.parts.has(range.start, range.end));
        let filter = in_memory.and_then(|_| Sbbf::read_from_column_chunk(column, &self.parts).ok().flatten());
        filter.is_none_or(|filter| {
            wanted.iter().any(|key| match key {
                Key::Text(text) => filter.check(text.as_slice()),
                _ => true,
            })
        })
    }

    /// The bytes that [`find`](Self::find) needs, which may be none; `None` if no row meets the conditions.
    pub fn bytes_to_find(&self, conditions: &[ColumnValue]) -> Option<Vec<Range<u64>>> {
        let tests = self.tests(conditions)?;
        let leaves: Vec<usize> = tests.iter().filter_map(Test::leaf).collect();
        let groups = self.groups(&tests);
        let of = chunks(self.reader.metadata(), groups.iter().map(|(group, _)| *group), &leaves);
        (!groups.is_empty()).then_some(of)
    }

    /// The numbers of the rows that meet all conditions, from 0.
    ///
    /// # Errors
    /// The file is damaged, or bytes are missing that [`bytes_to_find`](Self::bytes_to_find) names.
    pub fn find(&self, conditions: &[ColumnValue]) -> Result<BTreeSet<u64>, UnreadableRows> {
        let mut found = BTreeSet::new();
        let Some(tests) = self.tests(conditions) else { return Ok(found) };
        let mut hashes = [Vec::new()];
        for (number, first_row) in self.groups(&tests) {
            let group = self.reader.get_row_group(number)?;
            let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
            let mut meets = vec![true; rows];
            for test in &tests {
                let Test::Leaf { number, role, hashes: wanted, .. } = test else { continue };
                let mut reader = LeafReader::open(&*group, *number, role)?;
                for batch in meets.chunks_mut(BATCH_ROWS) {
                    hashes[0].clear();
                    hashes[0].resize(batch.len(), 0);
                    reader.read_hashes(batch.len(), &mut hashes)?;
                    for (meets, hash) in batch.iter_mut().zip(&hashes[0]) {
                        *meets = *meets && wanted.contains(hash);
                    }
                }
            }
            found.extend((first_row..).zip(meets).filter(|(_, meets)| *meets).map(|(row, _)| row));
        }
        Ok(found)
    }

    /// The bytes that [`identify`](Self::identify) needs.
    pub fn bytes_to_identify(&self, rows: &BTreeSet<u64>) -> Vec<Range<u64>> {
        let mut leaves = self.identity.to_vec();
        leaves.extend(self.arrival());
        chunks(self.reader.metadata(), self.groups_of(rows).into_iter().map(|(group, _, _)| group), &leaves)
    }

    /// Whose rows these are, by their numbers.
    ///
    /// # Errors
    /// The file is damaged, or bytes are missing that [`bytes_to_identify`](Self::bytes_to_identify) names.
    pub fn identify(&self, rows: &BTreeSet<u64>) -> Result<Vec<FoundRow>, UnreadableRows> {
        let mut found = Vec::with_capacity(rows.len());
        for (number, first_row, wanted) in self.groups_of(rows) {
            let group = self.reader.get_row_group(number)?;
            let mut identity = IdentityColumns::open(&*group, self.identity)?;
            let times = match self.arrival() {
                Some(arrival) => read_times(group.get_column_reader(arrival)?, &wanted)?,
                None => vec![None; wanted.len()],
            };
            let mut next = 0;
            for (row, time_us) in wanted.iter().zip(times) {
                identity.skip(usize::try_from(row - next).unwrap_or(usize::MAX))?;
                next = row + 1;
                let arrival_ms = time_us.map(|us| us.div_euclid(MS_US));
                found.push(FoundRow { row: first_row + row, identity: identity.read_one()?, arrival_ms });
            }
        }
        Ok(found)
    }

    /// The row groups that have these rows: number, first row, and the rows counted from there.
    fn groups_of(&self, rows: &BTreeSet<u64>) -> Vec<(usize, u64, Vec<u64>)> {
        let mut first_row = 0;
        let mut groups: BTreeMap<usize, (u64, Vec<u64>)> = BTreeMap::new();
        for (group, metadata) in self.reader.metadata().row_groups().iter().enumerate() {
            let end = first_row + u64::try_from(metadata.num_rows()).unwrap_or(0);
            let wanted: Vec<u64> = rows.range(first_row..end).map(|row| row - first_row).collect();
            if !wanted.is_empty() {
                groups.insert(group, (first_row, wanted));
            }
            first_row = end;
        }
        groups.into_iter().map(|(group, (first_row, wanted))| (group, first_row, wanted)).collect()
    }

    fn arrival(&self) -> Option<usize> {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        (0..schema.num_columns()).find(|number| {
            let column = schema.column(*number);
            column.path().string() == NOT_COMPARED[4] && column.physical_type() == PhysicalType::INT64
        })
    }
}

impl Test {
    fn leaf(&self) -> Option<usize> {
        match self {
            Test::Holds => None,
            Test::Leaf { number, .. } => Some(*number),
        }
    }
}

/// The bytes of some columns in some row groups.
fn chunks(metadata: &ParquetMetaData, groups: impl Iterator<Item = usize>, leaves: &[usize]) -> Vec<Range<u64>> {
    let of_group = |group: usize| {
        let group = metadata.row_group(group);
        leaves.iter().map(move |leaf| {
            let (begin, length) = group.column(*leaf).byte_range();
            begin..begin + length
        })
    };
    join(groups.flat_map(of_group).collect())
}

/// Where a column's bloom filter is.
fn filter_range(column: &ColumnChunkMetaData) -> Option<Range<u64>> {
    let begin = u64::try_from(column.bloom_filter_offset()?).ok()?;
    Some(begin..begin + u64::try_from(column.bloom_filter_length()?).ok()?)
}

/// Parts that are near each other become one.
fn join(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end + GAP_BYTES => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Whether a row group's statistics allow a value.
fn may_have(test: &Test, group: &RowGroupMetaData) -> bool {
    let Test::Leaf { number, wanted, .. } = test else { return true };
    let Some(statistics) = group.column(*number).statistics() else { return true };
    wanted.iter().any(|key| match (key, statistics) {
        (Key::Text(text), Statistics::ByteArray(of)) => {
            of.min_opt().is_none_or(|min| min.data() <= text.as_slice())
                && of.max_opt().is_none_or(|max| max.data() >= text.as_slice())
        }
        (Key::Number(value), Statistics::Int64(of)) => {
            of.min_opt().is_none_or(|min| min <= value) && of.max_opt().is_none_or(|max| max >= value)
        }
        (Key::Number(value), Statistics::Int32(of)) => {
            of.min_opt().is_none_or(|min| i64::from(*min) <= *value)
                && of.max_opt().is_none_or(|max| i64::from(*max) >= *value)
        }
        _ => true,
    })
}

/// The hash of a value in a column of this type, and the value as statistics have it; `None` if the column cannot have it.
fn value_of(text: &str, descriptor: &ColumnDescriptor) -> Option<(u64, Key)> {
    let number = |value: i64| (hash_of_number(value.cast_unsigned(), descriptor), Key::Number(value));
    match descriptor.physical_type() {
        PhysicalType::BYTE_ARRAY => Some((hash_of_text(text.as_bytes()), Key::Text(text.as_bytes().to_vec()))),
        PhysicalType::BOOLEAN => {
            let value: bool = text.parse().ok()?;
            Some((hash_of_number(value.into(), descriptor), Key::Other))
        }
        PhysicalType::DOUBLE => {
            let value: f64 = text.parse().ok()?;
            Some((hash_of_number(value.to_bits(), descriptor), Key::Other))
        }
        PhysicalType::INT32 | PhysicalType::INT64 => match descriptor.logical_type_ref() {
            Some(LogicalType::Date) => parse_date(text.as_bytes()).map(number),
            Some(LogicalType::Timestamp(_)) => parse_rfc3339_us(text.as_bytes()).map(number),
            Some(LogicalType::Decimal(_)) => parse_decimal(text, descriptor.type_scale()).map(number),
            _ if descriptor.converted_type() == ConvertedType::TIMESTAMP_MICROS => {
                parse_rfc3339_us(text.as_bytes()).map(number)
            }
            _ => text.parse().ok().map(number),
        },
        _ => None,
    }
}

/// A decimal number times 10^scale; `None` if it has more decimals.
fn parse_decimal(text: &str, scale: i32) -> Option<i64> {
    let scale = usize::try_from(scale).ok()?;
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) || fraction.len() > scale {
        return None;
    }
    let digits: i64 = format!("{whole}{fraction:0<scale$}").parse().ok()?;
    Some(sign * digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_as_people_write_them() {
        let read = |text: &str, scale| parse_decimal(text, scale);
        assert_eq!(
            [read("12.34", 2), read("-0.05", 2), read("7", 0), read("7.00", 0)],
            [Some(1234), Some(-5), Some(7), Some(7)]
        );
        assert_eq!([read("12.345", 2), read("", 2), read("1e3", 2), read(".5", 2)], [None; 4]);
    }

    #[test]
    fn the_footer_is_found_from_the_last_bytes() {
        let mut last = 1000_u32.to_le_bytes().to_vec();
        last.extend_from_slice(b"PAR1");
        assert_eq!(footer_begin(5000, &last), Some(3992));
        assert_eq!(footer_begin(10, &last), Some(0));
        assert_eq!(footer_begin(5000, b"PAR1"), None);
    }
}
