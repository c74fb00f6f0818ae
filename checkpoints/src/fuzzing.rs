//! What the fuzz targets need of the stores, and nobody else: rows as another program may have written them go in, leases
//! or errors come out; and what our writes would make of such rows.
//!
//! The stores themselves need a DynamoDB or a file, which is too slow for millions of rows and never gives them the rows of
//! a stranger. Compiled with the feature `fuzzing` only, and no part of the crate's interface.
//!
//! It does not own what must hold: that is judged in `fuzz/src/outside`.

pub use crate::dynamodb::fuzzing::{Item, ItemTable, ItemWrite, item_writes};
pub use crate::sqlite::fuzzing::{Cell, RowTable};
