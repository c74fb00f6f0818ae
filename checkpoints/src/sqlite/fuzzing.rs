//! The fuzz targets' view of the SQLite table: columns of any type in, leases out.
//!
//! The real table is `STRICT`, so SQLite keeps wrong types out of it. This one has the same columns without types, as a
//! damaged file or another program's file could. It does not own the meaning of the rows (`row.rs`).

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};

use super::failure::Failure;
use super::schema;
use super::tables::{Leases, list_leases};
use crate::error::StoreError;
use crate::lease::Lease;
use crate::rules::Rows;

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// NULL.
    Null,
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Real(f64),
    /// A text. SQLite does not check that it is UTF-8.
    Text(Vec<u8>),
    /// Bytes.
    Blob(Vec<u8>),
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(bytes) => ValueRef::Text(bytes),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// A table of leases in memory.
#[derive(Debug)]
pub struct RowTable(Connection);

impl Default for RowTable {
    fn default() -> Self {
        let connection = Connection::open_in_memory().expect("SQLite opens a database in memory");
        // Without types and without NOT NULL.
        let types = [(" STRICT, WITHOUT ROWID", ""), (" NOT NULL", ""), (" TEXT", ""), (" INTEGER", ""), (" REAL", "")];
        let tables = types.iter().fold(schema::TABLES.to_owned(), |tables, (from, to)| tables.replace(from, to));
        connection.execute_batch(&tables).expect("the tables are SQL");
        Self(connection)
    }
}

impl RowTable {
    /// The number of columns of a row, in the order of the table's definition.
    pub const COLUMNS: usize = 17;

    /// Makes this the only row.
    ///
    /// # Errors
    ///
    /// SQLite refuses it.
    pub fn set(&self, cells: &[Cell; Self::COLUMNS]) -> Result<(), String> {
        let insert =
            "INSERT INTO leases VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
        let run = || {
            self.0.prepare("DELETE FROM leases")?.execute([])?;
            self.0.prepare(insert)?.execute(params_from_iter(cells)).map(drop)
        };
        run().map_err(|error| error.to_string())
    }

    /// The leases of the table.
    ///
    /// # Errors
    ///
    /// [`StoreError::Malformed`] if a row is malformed.
    pub fn list(&self) -> Result<Vec<Lease>, StoreError> {
        list_leases(&self.0).map_err(message_of)
    }

    /// Writes a lease over its row.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] if a number exceeds `i64::MAX`.
    pub fn put(&self, lease: &Lease) -> Result<(), StoreError> {
        Leases::new(&self.0).put(lease.clone()).map_err(message_of)
    }
}

fn message_of(failure: Failure) -> StoreError {
    match failure {
        Failure::Store(error) => error,
        Failure::Sqlite(error) => {
            StoreError::Unavailable { operation: "read the rows".to_owned(), problem: error.to_string() }
        }
    }
}
