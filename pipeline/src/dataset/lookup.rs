//! Small reference tables that records are joined to.
//!
//! Owns: reading CSV or Parquet bytes into a table keyed by one column, and its content hash. The hash identifies the table
//! during a run and is written into the provenance of every file. Does not own: reading the file from disk, the join
//! (`columns::enrich`).
//!
//! Limits: 1,000,000 rows. Keys are compared byte by byte. A table with two rows of the same key is refused.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use sha2::{Digest, Sha256};

/// Rows that a lookup table may have.
const ROWS_MAX: usize = 1_000_000;

/// A reference table in memory: cells are text until a column's type is known.
#[derive(Debug)]
pub struct LookupTable {
    names: Vec<String>,
    rows: HashMap<Box<[u8]>, usize>,
    cells: Vec<Vec<Option<String>>>,
    hash: String,
}

impl LookupTable {
    /// Reads a table: Parquet if the bytes begin with its magic number, else CSV with a header line.
    ///
    /// # Errors
    /// A sentence for the user: no such key column, two rows of one key, too many rows, unreadable bytes.
    pub fn read(bytes: &[u8], key: &str) -> Result<LookupTable, String> {
        let (names, lines) = if bytes.starts_with(b"PAR1") { read_parquet(bytes)? } else { read_csv(bytes)? };
        let key_column = names
            .iter()
            .position(|name| name == key)
            .ok_or_else(|| format!("there is no column '{key}'; the columns are: {}", names.join(", ")))?;
        let mut rows = HashMap::with_capacity(lines.len());
        let mut cells = vec![Vec::with_capacity(lines.len()); names.len()];
        for (row, line) in lines.into_iter().enumerate() {
            let found = line.get(key_column).cloned().flatten().unwrap_or_default();
            match rows.entry(found.clone().into_bytes().into_boxed_slice()) {
                Entry::Occupied(_) => {
                    return Err(format!("the key '{found}' occurs twice (again in row {})", row + 1));
                }
                Entry::Vacant(entry) => entry.insert(row),
            };
            for (column, cell) in cells.iter_mut().zip(line) {
                column.push(cell);
            }
        }
        let hash = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(LookupTable { names, rows, cells, hash })
    }

    /// SHA-256 of the file's bytes, in hex.
    pub fn content_hash(&self) -> &str {
        &self.hash
    }

    /// The place of a column.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// The names of the columns.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The row of a key.
    pub(crate) fn row(&self, key: &[u8]) -> Option<usize> {
        self.rows.get(key).copied()
    }

    /// All cells of a column, by row.
    pub(crate) fn cells(&self, column: usize) -> &[Option<String>] {
        &self.cells[column]
    }
}

type Lines = (Vec<String>, Vec<Vec<Option<String>>>);

fn read_csv(bytes: &[u8]) -> Result<Lines, String> {
    let mut reader = csv::Reader::from_reader(bytes);
    let names =
        reader.headers().map_err(|error| format!("not valid CSV: {error}"))?.iter().map(str::to_owned).collect();
    let mut lines = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| format!("not valid CSV: {error}"))?;
        lines.push(record.iter().map(|cell| (!cell.is_empty()).then(|| cell.to_owned())).collect());
        bounded(lines.len())?;
    }
    Ok((names, lines))
}

fn read_parquet(bytes: &[u8]) -> Result<Lines, String> {
    let unreadable = |error: parquet::errors::ParquetError| format!("not valid Parquet: {error}");
    let reader = SerializedFileReader::new(Bytes::copy_from_slice(bytes)).map_err(unreadable)?;
    let schema = reader.metadata().file_metadata().schema();
    let names = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let mut lines = Vec::new();
    for row in reader.get_row_iter(None).map_err(unreadable)? {
        let row = row.map_err(unreadable)?;
        lines.push(row.get_column_iter().map(|(_, field)| cell(field)).collect());
        bounded(lines.len())?;
    }
    Ok((names, lines))
}

fn cell(field: &Field) -> Option<String> {
    match field {
        Field::Null => None,
        Field::Str(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn bounded(rows: usize) -> Result<(), String> {
    if rows > ROWS_MAX { Err(format!("more than {ROWS_MAX} rows, which is too large for a lookup")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_csv_table_is_found_by_its_key() {
        let table = LookupTable::read(b"code,name,rank\nDE,Germany,1\nFR,,2\n", "code").unwrap();
        let name = table.column("name").unwrap();
        assert_eq!(table.cells(name)[table.row(b"DE").unwrap()].as_deref(), Some("Germany"));
        assert_eq!(table.cells(name)[table.row(b"FR").unwrap()], None);
        assert_eq!(table.row(b"XX"), None);
        assert_eq!(table.content_hash().len(), 64);
    }

    #[test]
    fn a_table_that_makes_no_sense_is_refused() {
        let message = LookupTable::read(b"a,b\n1,2\n1,3\n", "a").unwrap_err();
        assert_eq!(message, "the key '1' occurs twice (again in row 2)");
        let message = LookupTable::read(b"a,b\n1,2\n", "c").unwrap_err();
        assert_eq!(message, "there is no column 'c'; the columns are: a, b");
        assert!(LookupTable::read(b"PAR1 broken", "a").unwrap_err().starts_with("not valid Parquet"));
        assert!(LookupTable::read(b"a,b\n1\n", "a").is_err());
    }
}
