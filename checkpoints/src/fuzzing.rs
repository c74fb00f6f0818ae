//! What only the fuzz targets need of the stores. They put in rows as another program may have written them, and get leases or
//! errors. They can also see what our writes do to such rows.
//!
//! The stores themselves need a DynamoDB or a file: that is too slow for millions of rows, and such a store never returns the
//! rows of another program. Compiled with the feature `fuzzing` only; not a part of the crate's interface.
//!
//! It does not own what must hold of them (`fuzz/src/outside`).

pub use crate::dynamodb::fuzzing::{Item, ItemTable, ItemWrite, item_writes};
pub use crate::sqlite::fuzzing::{Cell, RowTable};
