//! Shardlake's data path: JSON records become validated, anonymized columns, and columns become Parquet.
//!
//! Pure: no network, no clock, no async, no `unsafe`. In the order of the data path:
//!
//! 1. [`dataset`]: the schema is data; definitions are compiled into plans.
//! 2. [`chunk`]: what one read of one shard returned.
//! 3. [`documents`]: where documents begin and end; `decode`: bytes to slots, in one pass over each record.
//! 4. `columns`: the stages `validate`, `enrich`, `anonymize` and `batch`; slots become columns, by partition.
//! 5. [`anonymize`]: what becomes of a personal value.
//! 6. [`encode`]: columns to Parquet.
//! 7. [`dead_letter`], [`line_objects`]: records that failed, and records as received.
//! 8. [`lane`]: all of it for one core.
//!
//! [`rows`] reads the files back, to compare them.
//!
//! Beside the path: [`stage`] lists the stages, [`graph`] shows and counts them, [`layout`] has every key of the lake,
//! [`time`] is the calendar, and [`toml_reader`] reads what people write.

#![forbid(unsafe_code)]

pub mod dataset;

pub mod chunk;
mod decode;
pub mod documents;

pub mod anonymize;
mod columns;

pub mod encode;
pub mod rows;

pub mod dead_letter;
pub mod line_objects;

pub mod lane;

pub mod graph;
pub mod layout;
pub mod stage;
pub mod time;
pub mod toml_reader;
