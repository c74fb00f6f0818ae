//! Shardlake's data path: JSON records become validated, anonymized columns, and columns become Parquet.
//!
//! Pure: no network, no clock, no async, no `unsafe`. The modules stand in the order of a record's way:
//!
//! 1. [`dataset`]: the schema is data; definitions are compiled into plans.
//! 2. [`chunk`]: what one read of one shard returned.
//! 3. `decode`: bytes to slots, once over each record.
//! 4. `columns`: slots to checked, enriched, anonymized columns, by partition.
//! 5. [`anonymize`]: what becomes of a personal value.
//! 6. [`lane`]: all of it for one core.
//! 7. [`encode`]: columns to Parquet.
//! 8. [`line_objects`], [`dead_letter`]: the raw landing and the records that failed.
//!
//! [`layout`] has every key of the lake. [`graph`] is the same way as an object that can be drawn and counted along.

#![forbid(unsafe_code)]

pub mod anonymize;
pub mod chunk;
mod columns;
pub mod dataset;
pub mod dead_letter;
mod decode;
pub mod encode;
pub mod graph;
pub mod lane;
pub mod layout;
pub mod line_objects;
pub mod stage;
pub mod time;
pub mod toml_reader;
