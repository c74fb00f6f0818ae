//! Design A, the ordinary way from JSON records to partitioned Parquet: a tree for each record (serde_json), the tree
//! checked and transformed value by value, Arrow builders, and parquet's `ArrowWriter`, one for each partition.
//!
//! It is here for two uses. As a **baseline** of the benchmarks it is what a careful engineer writes with the usual
//! crates: keys and paths are prepared once, texts are moved and not copied, nothing is slow on purpose. As an **oracle**
//! of the tests it is a second reading of the dataset definitions that shares no code with the product: parser, numbers,
//! times, pseudonyms and paths are other crates' or its own.
//!
//! It does what the product does to a record: same columns, checks and error codes, same anonymization, partitions and
//! ingest columns. It does not do: lookups, dead letters and raw landing as files, bloom filters, commits. JSON columns
//! hold the same values as the product's, but not the same bytes: the product copies, this writes the tree again.
//!
//! A record's way: `decode` (lines, base64, parsing; `strict` where serde_json is not exact enough) → `walk` (the tree
//! along the definition's fields) → `row`, `values` (times, checks, anonymization) → `partition`, `columns` (rows to files).

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
mod time;
mod values;

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

/// Bytes that a record may have: the product's default.
pub const RECORD_BYTES_MAX: usize = 10 << 20;

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A definition is no TOML, or not of the format.
    #[error("a definition can't be read: {0}")]
    Toml(#[from] toml::de::Error),
    /// A definition makes no sense, or asks for what is not supported.
    #[error("dataset '{name}': {message}")]
    Definition {
        /// The dataset.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// Arrow or Parquet can't write a file.
    #[error("a file can't be written: {0}")]
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
    /// Its rows.
    pub rows: u64,
}

/// What became of all records.
#[derive(Debug)]
pub struct Output {
    /// Files, by dataset and partition.
    pub files: Vec<File>,
    /// Refused records by their sequence numbers, and why.
    pub rejects: Vec<(u64, Code)>,
}

/// The ordinary way, from bytes to files.
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
    /// Ready for records of the datasets that these TOML texts define, the first that recognizes a record first. `key`
    /// is the secret key of pseudonyms.
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

    /// Takes lines of JSON. The sequence number of a record is `base_sequence` plus the offset of its line;
    /// `arrival_ms` is when records arrived that don't say so themselves, in milliseconds since 1970.
    ///
    /// # Errors
    /// [`Error::Parquet`]; a bad record is none.
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

    /// Ends all files.
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

    /// Reads a record into the row: its dataset, and its times.
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
        if partition::write_path(plan, times.event_ms, values, path) {
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
        let Times { event_ms, arrival_ms } = times;
        let Origin { stream, shard, .. } = origin;
        Ok(file.append(plan, values, &Ingest { stream, shard, sequence: digits, arrival_ms, event_ms })?)
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
