//! The product and the baseline read the same bytes: every row, every value, every reject must be the same.
//!
//! `product` runs the product's lane and encoder as a worker would, in small pieces; `compare` reads both sides' Parquet
//! with parquet's own reader and compares. `produced` feeds records of the sample generator, `odd` hand-written ones;
//! `read_back` looks at what is beside the values in the product's files: statistics, indexes, filters, footers.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod compare;
mod product;

mod differences;
mod odd;
mod produced;
mod random;
mod read_back;
