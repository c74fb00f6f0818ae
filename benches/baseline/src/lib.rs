//! The usual way from JSON records to partitioned Parquet. It parses each record into a tree (serde_json), checks and
//! transforms the tree value by value, fills Arrow builders, and writes with one `ArrowWriter` for each partition.
//!
//! It has two uses:
//!
//! - **Baseline** of the benchmarks: what a careful engineer writes with the usual crates. Keys and paths are prepared once,
//!   texts are moved and not copied, nothing is slow on purpose.
//! - **Oracle** of the tests: a second implementation of dataset definitions that shares no code with the product. Parser,
//!   numbers, times, pseudonyms and paths come from other crates or are written here.
//!
//! It does to a record what the product does: same columns, field ids, checks, error codes, anonymization, partitions and
//! ingest columns. It has no lookups, bloom filters or commits, and writes no dead letters or raw lines. JSON columns have
//! the same values as the product's but not the same bytes: the product copies them, this crate writes the tree again.
//!
//! Stages:
//!
//! 1. `decode`: lines, base64, parsing; `strict` parses again what serde_json does not read exactly.
//! 2. `walk`: takes the definition's fields out of the tree.
//! 3. `row`, `values`: times, checks, anonymization.
//! 4. `partition`, `columns`: rows to files.

#![forbid(unsafe_code)]

mod code;
mod definition;
mod plan;

mod compile;

mod decode;
mod strict;
mod tree;

mod walk;

mod anonymize;
mod leaf;
mod time;
mod value;

mod row;

mod columns;
mod partition;

use std::collections::HashMap;
use std::fmt::Write;

use arrow_schema::SchemaRef;

use crate::anonymize::Pseudonyms;
use crate::columns::Ingest;
use crate::partition::PartitionFile;
use crate::plan::Plan;
use crate::row::{Row, Times};
use crate::tree::Json;
use crate::walk::Walk;

pub use code::Code;

/// The most bytes in a record: the product's default.
pub const RECORD_BYTES_MAX: usize = 10 << 20;

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A definition is not valid TOML, or does not have the format.
    #[error("a definition cannot be read: {0}")]
    Toml(#[from] toml::de::Error),
    /// A definition is contradictory, or uses something that is not supported.
    #[error("dataset '{name}': {message}")]
    Definition {
        /// The dataset.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// Arrow or Parquet cannot write a file.
    #[error("a file cannot be written: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
}

/// A finished file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The dataset's name.
    pub dataset: String,
    /// The partition's path, such as `type=skills/year=2025/month=01`.
    pub partition: String,
    /// The Parquet file.
    pub bytes: Vec<u8>,
    /// The number of rows.
    pub rows: u64,
}

/// The result for all records.
#[derive(Debug)]
pub struct Output {
    /// Files, by dataset and partition.
    pub files: Vec<File>,
    /// The sequence number of each rejected record, and the reason.
    pub rejects: Vec<(u64, Code)>,
}

/// Turns bytes into files.
#[derive(Debug)]
pub struct Baseline {
    datasets: Vec<Dataset>,
    pseudonyms: Pseudonyms,
    rejects: Vec<(u64, Code)>,
    row: Row,
}

#[derive(Debug)]
struct Dataset {
    plan: Plan,
    schema: SchemaRef,
    files: HashMap<String, PartitionFile>,
}

/// Where records come from.
#[derive(Debug, Clone, Copy)]
struct Origin<'s> {
    stream: &'s str,
    shard: &'s str,
    arrival_ms: i64,
}

impl Baseline {
    /// A baseline for the datasets that these TOML texts define. The first dataset that recognizes a record gets it. `key`
    /// is the secret pseudonym key.
    ///
    /// # Errors
    /// [`Error::Toml`] and [`Error::Definition`].
    pub fn new(definitions: &[&str], key: &[u8]) -> Result<Self, Error> {
        let mut datasets = Vec::new();
        for text in definitions {
            let plan = compile::compile(text)?;
            datasets.push(Dataset { schema: columns::schema(&plan), plan, files: HashMap::new() });
        }
        let pseudonyms = Pseudonyms::new(key);
        Ok(Baseline { datasets, pseudonyms, rejects: Vec::new(), row: Row::default() })
    }

    /// Adds lines of JSON. The sequence number of a record is `base_sequence` plus the offset of its line. `arrival_ms` is
    /// the arrival time of records without one of their own, in milliseconds since 1970.
    ///
    /// # Errors
    /// [`Error::Parquet`]. A bad record is not an error.
    pub fn push(
        &mut self,
        ndjson: &[u8],
        base_sequence: u64,
        stream: &str,
        shard: &str,
        arrival_ms: i64,
    ) -> Result<(), Error> {
        let origin = Origin { stream, shard, arrival_ms };
        for (offset, line) in decode::lines(ndjson) {
            let sequence = base_sequence + offset as u64;
            match self.read(line, origin) {
                Ok((dataset, times)) => self.append(dataset, times, sequence, origin)?,
                Err(code) => self.rejects.push((sequence, code)),
            }
        }
        Ok(())
    }

    /// Finishes all files.
    ///
    /// # Errors
    /// [`Error::Parquet`].
    pub fn finish(self) -> Result<Output, Error> {
        let mut files = Vec::new();
        for dataset in self.datasets {
            for (partition, file) in dataset.files {
                let rows = file.rows;
                files.push(File { dataset: dataset.plan.name.clone(), partition, bytes: file.finish()?, rows });
            }
        }
        files.sort_by(|left, right| (&left.dataset, &left.partition).cmp(&(&right.dataset, &right.partition)));
        Ok(Output { files, rejects: self.rejects })
    }

    /// Reads a record into the row. Returns its dataset and its times.
    fn read(&mut self, line: &[u8], origin: Origin<'_>) -> Result<(usize, Times), Code> {
        if line.len() > RECORD_BYTES_MAX {
            return Err(Code::TooLarge);
        }
        let json = decode::unwrap(line);
        let Json::Object(members) = decode::parse(&json)? else { return Err(Code::NotAnObject) };
        let recognizes = |dataset: &Dataset| dataset.plan.recognizes(&members);
        let number = self.datasets.iter().position(recognizes).ok_or(Code::UnknownDataset)?;
        let plan = &self.datasets[number].plan;
        let mut walk = Walk::default();
        self.row.walk(plan, members, &mut walk);
        if walk.inexact {
            let Json::Object(members) = strict::parse(&json)? else { return Err(Code::NotAnObject) };
            walk = Walk { exact: true, ..Walk::default() };
            self.row.walk(plan, members, &mut walk);
        }
        if let Some(code) = walk.fault {
            return Err(code);
        }
        let times = self.row.times(plan, origin.arrival_ms)?;
        self.row.apply(plan, &self.pseudonyms)?;
        let Row { values, path, .. } = &mut self.row;
        if partition::write_path(plan, times.event_us, values, path) {
            Ok((number, times))
        } else {
            Err(Code::PartitionTooLong)
        }
    }

    /// Appends the row to its partition's file.
    fn append(&mut self, dataset: usize, times: Times, sequence: u64, origin: Origin<'_>) -> Result<(), Error> {
        let Row { values, path, sequence: digits, .. } = &mut self.row;
        digits.clear();
        write!(digits, "{sequence}").expect("a string can be written to");
        let Dataset { plan, schema, files } = &mut self.datasets[dataset];
        if !files.contains_key(path) {
            files.insert(path.clone(), PartitionFile::new(schema)?);
        }
        let file = files.get_mut(path).expect("it was there, or just inserted");
        let Times { event_us, arrival_us } = times;
        let Origin { stream, shard, .. } = origin;
        Ok(file.append(plan, values, &Ingest { stream, shard, sequence: digits, arrival_us, event_us })?)
    }
}

impl Plan {
    fn recognizes(&self, members: &[(String, Json)]) -> bool {
        let there = |path: &Vec<String>| Json::find(members, path).is_some();
        self.ways.iter().any(|way| {
            let conditions = way.present.len() + way.equals.len();
            let equal = way.equals.iter().all(|(path, values)| match Json::find(members, path) {
                Some(Json::Text(text)) => values.contains(text),
                _ => false,
            });
            conditions > 0 && way.present.iter().all(there) && !way.absent.iter().any(there) && equal
        })
    }
}
