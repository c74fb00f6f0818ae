//! Rows of the SQLite table.

use std::cell::RefCell;

use checkpoints::fuzzing::{Cell, RowTable};

use super::{assert_names, assert_sane};

thread_local! {
    /// Kept from input to input. It holds one row at a time.
    static TABLE: RefCell<RowTable> = RefCell::default();
}

/// A valid row, in which the input replaces columns. A line is the letter of a column (from `a` on, in the order of the table), the
/// letter of a type (`T`, `I`, `R`, `B`, any other for NULL), and the value.
pub fn row(data: &[u8]) {
    let mut cells: [Cell; RowTable::COLUMNS] = std::array::from_fn(|column| match column {
        0 => Cell::Text(b"orders".to_vec()),
        1 => Cell::Text(b"shardId-0".to_vec()),
        5 => Cell::Text(b"7".to_vec()),
        4 | 6 | 15 => Cell::Integer(0),
        16 => Cell::Real(0.5),
        _ => Cell::Null,
    });
    for line in data.split(|byte| *byte == b'\n') {
        let [column, kind, value @ ..] = line else { continue };
        let Some(cell) = cells.get_mut(usize::from(column.wrapping_sub(b'a'))) else { continue };
        let text = || std::str::from_utf8(value).ok();
        *cell = match kind {
            b'T' => Cell::Text(value.to_vec()),
            b'I' => text().and_then(|text| text.parse().ok()).map_or(Cell::Null, Cell::Integer),
            b'R' => text().and_then(|text| text.parse().ok()).map_or(Cell::Null, Cell::Real),
            b'B' => Cell::Blob(value.to_vec()),
            _ => Cell::Null,
        };
    }
    let name = |cell: &Cell| match cell {
        Cell::Text(text) => String::from_utf8(text.clone()).unwrap_or_else(|_| "?".to_owned()),
        _ => "?".to_owned(),
    };
    let named = format!("lease of shard {} of stream {}", name(&cells[1]), name(&cells[0]));
    TABLE.with_borrow(|table| {
        if table.set(&cells).is_err() {
            return;
        }
        match table.list() {
            Ok(leases) => {
                let [lease] = &leases[..] else { panic!("{} leases in one row", leases.len()) };
                assert_sane(lease);
                assert_eq!(lease.to_owned().key.to_string(), named["lease of ".len()..]);
                table.put(lease).expect("a lease that was read can be written");
                assert_eq!(table.list().as_ref(), Ok(&leases), "the lease changed when it was written");
            }
            Err(error) => assert_names(&error, &[&named]),
        }
    });
}
