//! The product and the baseline read the same bytes; every row, value and reject must be the same.
//!
//! | module | content |
//! | --- | --- |
//! | `product` | runs the product's lane and encoder like a worker, in small pieces |
//! | `compare` | reads the Parquet files of both sides with parquet's own reader and compares them |
//! | `produced`, `odd`, `random` | records of the sample generator, hand-written and random records |
//! | `differences` | cases in which the two sides once differed |
//! | `read_back` | statistics, indexes, filters and footers of the product's files |

#![expect(clippy::unwrap_used, reason = "a test that cannot continue fails")]

mod compare;
mod product;

mod differences;
mod odd;
mod produced;
mod random;
mod read_back;
