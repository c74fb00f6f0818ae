//! Single rows, with values that people may see.
//!
//! Owns: which values are shown, and how. Does not own: which rows (the caller chooses).
//!
//! A value is shown only if the lake shows bounds of its column: then no rule transforms it, and it is not free-form, unique to a record or
//! from a lookup table (`encode::column_stats`). All other values are hidden, and nested ones too. That a value is null is shown.

use std::collections::{BTreeMap, BTreeSet};

use parquet::basic::LogicalType;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::file::reader::{FileReader, RowGroupReader};
use parquet::schema::types::ColumnDescriptor;
use serde_json::Value;

use crate::rows::column::LeafRole;
use crate::rows::identity::IdentityColumns;
use crate::rows::{RowFile, RowIdentity, UnreadableRows};
use crate::time::{day_of, format_rfc3339};

/// The most characters of a text that are shown.
const TEXT_CHARACTERS: usize = 64;

/// A row that is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownRow {
    /// Its number in the file, from 0.
    pub row: u64,
    /// Whose row it is.
    pub identity: RowIdentity,
    /// The values of its columns. A column that the file does not have is null.
    pub values: BTreeMap<String, ShownValue>,
}

/// A value that is shown or hidden.
#[derive(Debug, Clone, PartialEq)]
pub enum ShownValue {
    /// The value; dates and times as texts, and long texts cut.
    Value(Value),
    /// It is personal, or might be, or it is nested.
    Hidden,
}

impl RowFile {
    /// Some rows, by their numbers. `may_show` has the ids of the fields whose values may be shown.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn show(&self, rows: &BTreeSet<u64>, may_show: &BTreeSet<i32>) -> Result<Vec<ShownRow>, UnreadableRows> {
        let mut shown = Vec::new();
        let mut first_row = 0;
        for number in 0..self.reader.num_row_groups() {
            let group = self.reader.get_row_group(number)?;
            let count = u64::try_from(group.metadata().num_rows()).unwrap_or(0);
            let wanted: Vec<u64> = rows.range(first_row..first_row + count).map(|row| row - first_row).collect();
            if !wanted.is_empty() {
                shown.extend(self.show_group(&*group, first_row, &wanted, may_show)?);
            }
            first_row += count;
        }
        Ok(shown)
    }

    fn show_group(
        &self,
        group: &dyn RowGroupReader,
        first_row: u64,
        wanted: &[u64],
        may_show: &BTreeSet<i32>,
    ) -> Result<Vec<ShownRow>, UnreadableRows> {
        let mut identity = IdentityColumns::open(group, self.identity)?;
        let mut shown = Vec::with_capacity(wanted.len());
        for (row, skipped) in with_skips(wanted) {
            identity.skip(skipped)?;
            let in_path = self.in_path.iter().map(|(name, value)| {
                let value = value.as_ref().map_or(Value::Null, |text| Value::from(text.as_str()));
                (name.clone(), ShownValue::Value(value))
            });
            let values = in_path.collect();
            shown.push(ShownRow { row: first_row + row, identity: identity.read_one()?, values });
        }
        for (number, role) in self.leaves.iter().enumerate() {
            if matches!(role, LeafRole::NotCompared) {
                continue;
            }
            let descriptor = group.metadata().column(number).column_descr_ptr();
            let name = descriptor.path().parts()[0].clone();
            if descriptor.path().parts().len() > 1 {
                shown.iter_mut().for_each(|row| drop(row.values.insert(name.clone(), ShownValue::Hidden)));
                continue;
            }
            let info = descriptor.self_type().get_basic_info();
            let is_shown = info.has_id() && may_show.contains(&info.id());
            let values = read_some(group.get_column_reader(number)?, &descriptor, wanted)?;
            for (row, value) in shown.iter_mut().zip(values) {
                let value = if is_shown || value.is_null() { ShownValue::Value(value) } else { ShownValue::Hidden };
                row.values.insert(name.clone(), value);
            }
        }
        Ok(shown)
    }
}

/// Each row with the number of rows between it and the one before.
fn with_skips(wanted: &[u64]) -> impl Iterator<Item = (u64, usize)> {
    let mut next = 0;
    wanted.iter().map(move |row| {
        let skipped = usize::try_from(row - next).unwrap_or(usize::MAX);
        next = row + 1;
        (*row, skipped)
    })
}

fn read_some(
    reader: ColumnReader,
    descriptor: &ColumnDescriptor,
    wanted: &[u64],
) -> Result<Vec<Value>, UnreadableRows> {
    match reader {
        ColumnReader::BoolColumnReader(reader) => read_typed(reader, wanted, |value| Value::from(*value)),
        ColumnReader::Int32ColumnReader(reader) => {
            read_typed(reader, wanted, |value| show_number((*value).into(), descriptor))
        }
        ColumnReader::Int64ColumnReader(reader) => read_typed(reader, wanted, |value| show_number(*value, descriptor)),
        ColumnReader::DoubleColumnReader(reader) => read_typed(reader, wanted, |value| Value::from(*value)),
        ColumnReader::ByteArrayColumnReader(reader) => read_typed(reader, wanted, |value| show_text(value.data())),
        _ => Err(UnreadableRows("a column has a type that no file of ours has".to_owned())),
    }
}

/// The times in some rows of a column: microseconds since 1970, or null.
pub(super) fn read_times(reader: ColumnReader, wanted: &[u64]) -> Result<Vec<Option<i64>>, UnreadableRows> {
    match reader {
        ColumnReader::Int64ColumnReader(reader) => {
            let values = read_typed(reader, wanted, |value| Value::from(*value))?;
            Ok(values.into_iter().map(|value| value.as_i64()).collect())
        }
        _ => Err(UnreadableRows("a column of times has another type".to_owned())),
    }
}

fn read_typed<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    wanted: &[u64],
    show: impl Fn(&T::T) -> Value,
) -> Result<Vec<Value>, UnreadableRows> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let mut shown = Vec::with_capacity(wanted.len());
    for (_, skipped) in with_skips(wanted) {
        levels.clear();
        values.clear();
        let skipped_now = reader.skip_records(skipped)?;
        let (read, _, _) = reader.read_records(1, Some(&mut levels), None, &mut values)?;
        if skipped_now != skipped || read != 1 {
            return Err(UnreadableRows("a column has fewer rows than the file".to_owned()));
        }
        shown.push(values.first().map_or(Value::Null, &show));
    }
    Ok(shown)
}

fn show_text(bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(TEXT_CHARACTERS) {
        Some((end, _)) => Value::from(format!("{}…", &text[..end])),
        None => Value::from(text.into_owned()),
    }
}

fn show_number(number: i64, descriptor: &ColumnDescriptor) -> Value {
    match descriptor.logical_type_ref() {
        Some(LogicalType::Date) => Value::from(day_of(number).to_string()),
        Some(LogicalType::Timestamp(_)) => Value::from(show_time(number)),
        Some(LogicalType::Decimal(_)) => Value::from(show_decimal(number, descriptor.type_scale())),
        _ => Value::from(number),
    }
}

/// Microseconds since 1970 as RFC 3339, with milliseconds unless there are finer digits.
fn show_time(us: i64) -> String {
    let text = format_rfc3339(us.div_euclid(1_000));
    match us.rem_euclid(1_000) {
        0 => text,
        finer => format!("{}{finer:03}Z", text.trim_end_matches('Z')),
    }
}

fn show_decimal(number: i64, scale: i32) -> String {
    let scale = usize::try_from(scale).unwrap_or(0);
    let digits = format!("{:0>width$}", number.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let point = if scale == 0 { "" } else { "." };
    format!("{}{whole}{point}{fraction}", if number < 0 { "-" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_decimals_are_shown_as_people_write_them() {
        assert_eq!(show_time(1_736_764_200_123_000), "2025-01-13T10:30:00.123Z");
        assert_eq!(show_time(-1), "1969-12-31T23:59:59.999999Z");
        let shown = [(5, 2), (-1234, 2), (7, 0), (1_000, 3)].map(|(number, scale)| show_decimal(number, scale));
        assert_eq!(shown, ["0.05", "-12.34", "7", "1.000"]);
        assert_eq!(show_text("é".repeat(70).as_bytes()), Value::from(format!("{}…", "é".repeat(64))));
    }
}
