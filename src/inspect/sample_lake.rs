//! A lake with its commit records and its log, made without a worker: for tests and for measurements of large lakes.
//!
//! Owns: objects, commit records and entries that agree with each other, as fast as they can be written. Does not own: where they are
//! written (its caller gives a function), or the lease table, whose rows it only names.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use checkpoints::{LeaseOwner, NewLease, Position, ShardId, ShardKey, ShardRange, StreamName};
use parquet::basic::Compression;
use parquet::data_type::Int64Type;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use pipeline::encode::FileStats;
use pipeline::time::format_rfc3339;

use crate::commit::lake_log::{Entry, EntryHash, LogVersion, RECENT_MAX};
use crate::commit::{
    EdgeTotal, EpochId, FORMAT, Manifest, ManifestKind, ObjectKind, ObjectOfEpoch, ShardOfEpoch, Totals,
};
use crate::lake::{Checksum, ObjectKey, UploadId};

/// When the first epoch begins: 2025-01-13, 10:30.
pub const BEGUN_MS: i64 = 1_736_764_200_000;
/// Milliseconds between two epochs.
pub const STEP_MS: i64 = 60_000;
/// Records of each shard in an epoch.
const RECORDS: u64 = 10;

/// Writes an object.
type Put<'a> = Box<dyn FnMut(&ObjectKey, Bytes) + Send + 'a>;

/// A lake that grows by whole epochs.
pub struct SampleLake<'a> {
    put: Put<'a>,
    worker: LeaseOwner,
    /// How far each shard was read.
    shards: Vec<u64>,
    epochs: u64,
    /// The newest version, its hash, and the epochs of the newest versions.
    pub version: LogVersion,
    hash: EntryHash,
    recent: VecDeque<EpochId>,
}

impl<'a> SampleLake<'a> {
    /// A lake of a stream with this many shards. `put` writes an object.
    pub fn new(shards: usize, put: impl FnMut(&ObjectKey, Bytes) + Send + 'a) -> Self {
        SampleLake {
            put: Box::new(put),
            worker: LeaseOwner::from_random([7; 16]),
            shards: vec![0; shards],
            epochs: 0,
            version: LogVersion::EMPTY,
            hash: EntryHash::NONE,
            recent: VecDeque::new(),
        }
    }

    /// A shard of the stream.
    pub fn key(shard: usize) -> ShardKey {
        let stream = StreamName::new("orders").expect("a plain name");
        ShardKey::new(stream, ShardId::new(format!("shard-{shard}")).expect("a plain name"))
    }

    /// The rows of the lease table, once everything is committed.
    pub fn rows(&self) -> Vec<NewLease> {
        let row = |(shard, read): (usize, &u64)| {
            let at = if *read == 0 { Position::Beginning } else { Position::at((*read).into()) };
            NewLease::new(Self::key(shard), at)
        };
        self.shards.iter().enumerate().map(row).collect()
    }

    /// The time at which the newest entry was entered: milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        BEGUN_MS + STEP_MS * i64::try_from(self.epochs).unwrap_or(0)
    }

    /// An epoch that reads all shards further and has `files` files of rows, one object of raw lines and one of dead letters. Its
    /// objects are written; its commit record and its entry are not.
    pub fn publish(&mut self, files: u64) -> Manifest {
        self.epochs += 1;
        let now_ms = self.now_ms();
        let epoch = EpochId::new(now_ms - STEP_MS / 2, &self.worker, self.epochs);
        let mut shards = Vec::new();
        for (shard, read) in self.shards.iter_mut().enumerate() {
            let after = if *read == 0 { Position::Beginning } else { Position::at((*read).into()) };
            *read += RECORDS;
            shards.push(ShardOfEpoch {
                key: Self::key(shard),
                parents: Vec::new(),
                range: ShardRange::new(after, Position::at((*read).into())).expect("it moves"),
                children: Vec::new(),
                taken_over: false,
                records: RECORDS,
                bytes: 100 * RECORDS,
                arrived_through: Some(now_ms - 1_000 * i64::try_from(shard + 1).unwrap_or(0)),
            });
        }
        let records = RECORDS * shards.len() as u64;
        // Without files of rows all records are dead letters.
        let failed = if files == 0 { records } else { u64::from(records > 1) };
        let of_file =
            |file: u64| (records - failed) / files.max(1) + u64::from(file < (records - failed) % files.max(1));
        let mut objects = Vec::new();
        for file in 0..files {
            let day = 1 + file % 28;
            let dataset = if file % 5 == 4 { "users" } else { "events" };
            let rows = of_file(file);
            let key = format!("processed/{dataset}/year=2025/month=01/day={day:02}/{epoch}-{:05}.parquet", file + 1);
            objects.push(self.object(ObjectKind::Processed, Some(dataset), key, rows, parquet_file(&epoch, rows)));
        }
        let lines = Bytes::from(format!("raw lines of {epoch}"));
        let key = format!("raw/events/year=2025/month=01/day=13/{epoch}-90001.json.gz");
        objects.push(self.object(ObjectKind::Raw, Some("events"), key, records, lines));
        if failed > 0 {
            let dead_letters = Bytes::from(format!("dead letters of {epoch}"));
            let key = format!("error/reason=Decode.Truncated/year=2025/month=01/day=13/{epoch}-90002.json.gz");
            objects.push(self.object(ObjectKind::Error, None, key, failed, dead_letters));
        }
        let mut rows: BTreeMap<String, u64> = BTreeMap::new();
        for object in objects.iter().filter(|object| object.kind == ObjectKind::Processed) {
            *rows.entry(object.dataset.clone().unwrap_or_default()).or_default() += object.rows;
        }
        Manifest {
            format: FORMAT,
            kind: ManifestKind::Epoch,
            worker: self.worker.clone(),
            written_at: format_rfc3339(now_ms),
            head: self.version,
            shards,
            objects,
            idle: Vec::new(),
            removed: Vec::new(),
            of: None,
            sources: Vec::new(),
            swap: None,
            totals: Totals {
                records,
                rows,
                dead_letters: BTreeMap::from([("Decode.Truncated".to_owned(), failed)]),
                raw_lines: Some(records),
                ..Totals::default()
            },
            edges: BTreeMap::from([("validate/events/out".to_owned(), EdgeTotal(records, 100))]),
            definitions: BTreeMap::new(),
            version: "0".to_owned(),
            epoch,
        }
    }

    /// Writes an epoch's commit record.
    pub fn record(&mut self, manifest: &Manifest) {
        (self.put)(&manifest.epoch.commit_key(), manifest.to_bytes());
    }

    /// Enters an epoch at the next version. `change` may alter the entry.
    pub fn enter(&mut self, manifest: &Manifest, change: impl FnOnce(&mut Entry)) -> LogVersion {
        self.version = self.version.next();
        let recent = self.recent.iter().cloned();
        let entered_at = format_rfc3339(self.now_ms());
        let mut entry = Entry::new(self.version, self.hash, recent, manifest, entered_at);
        change(&mut entry);
        let bytes = entry.to_bytes();
        self.hash = EntryHash::of(&bytes);
        (self.put)(&self.version.key(), bytes);
        self.recent.push_front(manifest.epoch.clone());
        self.recent.truncate(RECENT_MAX);
        self.version
    }

    /// A whole epoch with `files` files of rows: its objects, its commit record and its entry.
    pub fn commit(&mut self, files: u64) -> Manifest {
        let manifest = self.publish(files);
        self.record(&manifest);
        self.enter(&manifest, |_| {});
        manifest
    }

    fn object(
        &mut self,
        kind: ObjectKind,
        dataset: Option<&str>,
        key: String,
        rows: u64,
        bytes: Bytes,
    ) -> ObjectOfEpoch {
        let key = ObjectKey::new(key).expect("a plain path");
        let object = ObjectOfEpoch {
            partition: ObjectOfEpoch::partition_of(&key),
            columns: FileStats::default(),
            key,
            kind,
            dataset: dataset.map(str::to_owned),
            rows,
            bytes: bytes.len() as u64,
            crc64nvme: Checksum::of(&bytes),
            upload: UploadId("u".to_owned()),
            parts: Vec::new(),
        };
        (self.put)(&object.key, bytes);
        object
    }
}

/// A Parquet file with this many rows, whose footer names the epoch.
fn parquet_file(epoch: &EpochId, rows: u64) -> Bytes {
    let schema = parse_message_type("message sample { required int64 id; }").expect("it is a valid schema");
    let named = KeyValue::new("shardlake.epoch".to_owned(), epoch.as_str().to_owned());
    let properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_key_value_metadata(Some(vec![named]))
        .build();
    let write = || {
        let mut writer = SerializedFileWriter::new(Vec::new(), schema.into(), properties.into())?;
        let mut group = writer.next_row_group()?;
        if let Some(mut column) = group.next_column()? {
            let values: Vec<i64> = (0..i64::try_from(rows).unwrap_or(0)).collect();
            column.typed::<Int64Type>().write_batch(&values, None, None)?;
            column.close()?;
        }
        group.close()?;
        writer.into_inner()
    };
    Bytes::from(write().expect("memory takes all bytes"))
}
