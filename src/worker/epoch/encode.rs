//! Rows of the lanes become row groups and files.
//!
//! Owns:
//!
//! - encoding what a full lane gives up: one row group for each partition, some partitions at a time;
//! - encoding what all lanes hold when an epoch ends: partitions are cut into jobs, and each job builds the last files of its
//!   partitions on a thread of its own.
//!
//! Does not own: how rows are encoded (`pipeline::encode`), the objects that the files are in (`objects`).

use std::collections::BTreeMap;
use std::sync::Arc;

use pipeline::encode::{EncodeError, Encoder, EncoderConfig, FinishedFile, ParquetFile, Provenance, RowGroup, Rows};
use pipeline::lane::{Lane, LaneConfig};
use tokio::task::JoinSet;

use crate::worker::WorkerError;
use crate::worker::compute::{Compute, joined};
use crate::worker::epoch::objects::{Objects, OpenUpload, OutputTarget, TakenFile, finish_files};

/// Partitions, and rows, that one encoding job takes when an epoch ends.
const JOB_PARTITIONS: usize = 64;
const JOB_ROWS: u64 = 100_000;
/// Bytes of row groups that a full lane encodes at a time.
const SPILL_BYTES: usize = 4 << 20;

/// What is needed to encode.
#[derive(Clone)]
pub(crate) struct Encoding {
    pub(crate) lanes: Arc<LaneConfig>,
    pub(crate) compute: Compute,
    /// How Parquet files are written.
    pub(crate) encoder: EncoderConfig,
    /// Encoded bytes at which a file is closed.
    pub(crate) file_bytes: u64,
}

/// A lane with its encoder.
pub(crate) struct LaneSlot {
    pub(crate) lane: Lane,
    pub(crate) encoder: Encoder,
}

/// Rows that a full lane gave up and that are not encoded yet.
pub(crate) struct Spill {
    rows: Vec<Rows>,
    /// The next partition of the last rows.
    next: usize,
}

/// Row groups for their partitions' files, and what is still to be encoded.
pub(crate) type EncodedSpill = (Vec<(OutputTarget, RowGroup)>, Option<Spill>);

impl LaneSlot {
    pub(crate) fn new(encoding: &Encoding) -> Result<Self, EncodeError> {
        let encoder = Encoder::new(&encoding.lanes.datasets, &encoding.encoder)?;
        Ok(LaneSlot { lane: Lane::new(Arc::clone(&encoding.lanes)), encoder })
    }

    /// Takes the lane's rows out of it.
    pub(crate) fn spill(&mut self) -> Spill {
        Spill { rows: self.lane.take_rows(), next: 0 }
    }

    /// Encodes some of the rows, one row group for each partition. Not all at once: an encoded row group of a few rows takes
    /// more memory than the rows did.
    pub(crate) fn encode_some(&mut self, mut spill: Spill) -> Result<EncodedSpill, EncodeError> {
        let mut groups = Vec::new();
        let mut bytes = 0;
        while groups.len() < JOB_PARTITIONS && bytes < SPILL_BYTES {
            let Some(rows) = spill.rows.last() else { return Ok((groups, None)) };
            let Some(partition) = rows.partitions().get(spill.next) else {
                spill.rows.pop();
                spill.next = 0;
                continue;
            };
            let target = OutputTarget::Rows { dataset: rows.dataset(), path: partition.path.clone() };
            let group = self.encoder.row_group(rows, spill.next)?;
            bytes += group.bytes();
            groups.push((target, group));
            spill.next += 1;
        }
        Ok((groups, Some(spill)))
    }
}

/// Encodes what the lanes hold, partition by partition, on all threads.
pub(crate) async fn encode_rest(
    encoding: &Encoding,
    slots: &mut [LaneSlot],
    objects: &mut Objects,
    provenance: Provenance,
) -> Result<(), WorkerError> {
    let lines: Vec<_> = slots.iter_mut().flat_map(|slot| slot.lane.take_lines()).collect();
    for member in lines {
        objects.add_lines(member).await?;
    }
    let all_rows: Vec<Rows> = slots.iter_mut().flat_map(|slot| slot.lane.take_rows()).collect();
    let all_rows = Arc::new(all_rows);
    let mut jobs = jobs(&all_rows).into_iter();
    let mut encoders: Vec<Encoder> = Vec::new();
    for _ in 0..slots.len() {
        encoders.push(Encoder::new(&encoding.lanes.datasets, &encoding.encoder)?);
    }
    let mut running: JoinSet<Result<(Encoder, Vec<Encoded>), WorkerError>> = JoinSet::new();
    loop {
        while let Some(encoder) = encoders.pop() {
            let Some(partitions) = jobs.next() else { break };
            let mut job = Job {
                lanes: Arc::clone(&encoding.lanes),
                rows: Arc::clone(&all_rows),
                file_bytes: encoding.file_bytes,
                provenance: provenance.clone(),
                encoder,
                partitions: Vec::new(),
            };
            for (target, parts) in partitions {
                let (file, upload) = objects.take_file(&target).map(TakenFile::into_parts).unzip();
                job.partitions.push(JobPartition { target, parts, file, upload });
            }
            let compute = encoding.compute.clone();
            running.spawn(async move { compute.run(move || job.run()).await });
        }
        let Some(done) = running.join_next().await else { return Ok(()) };
        let (encoder, encoded) = joined(done)?;
        encoders.push(encoder);
        for Encoded { target, upload, files } in encoded {
            objects.add_finished(&target, upload, files).await?;
        }
    }
}

/// Where a partition's rows are: the index among all rows, and the index of the partition in those.
type PartitionRows = Vec<(usize, usize)>;

/// Cuts the partitions of all rows into jobs.
fn jobs(all_rows: &[Rows]) -> Vec<Vec<(OutputTarget, PartitionRows)>> {
    let mut by_target: BTreeMap<OutputTarget, (u64, PartitionRows)> = BTreeMap::new();
    for (index, rows) in all_rows.iter().enumerate() {
        for (number, partition) in rows.partitions().iter().enumerate() {
            let target = OutputTarget::Rows { dataset: rows.dataset(), path: partition.path.clone() };
            let (count, parts) = by_target.entry(target).or_default();
            *count += partition.rows;
            parts.push((index, number));
        }
    }
    let mut jobs: Vec<Vec<(OutputTarget, PartitionRows)>> = Vec::new();
    let mut rows = u64::MAX;
    for (target, (count, parts)) in by_target {
        match jobs.last_mut() {
            Some(job) if job.len() < JOB_PARTITIONS && rows.saturating_add(count) <= JOB_ROWS => {
                job.push((target, parts));
                rows += count;
            }
            _ => {
                jobs.push(vec![(target, parts)]);
                rows = count;
            }
        }
    }
    jobs
}

/// Partitions that are encoded and finished together.
struct Job {
    lanes: Arc<LaneConfig>,
    rows: Arc<Vec<Rows>>,
    file_bytes: u64,
    provenance: Provenance,
    encoder: Encoder,
    partitions: Vec<JobPartition>,
}

struct JobPartition {
    target: OutputTarget,
    parts: PartitionRows,
    file: Option<ParquetFile>,
    upload: Option<OpenUpload>,
}

/// The finished files of a partition.
struct Encoded {
    target: OutputTarget,
    upload: Option<OpenUpload>,
    files: Vec<FinishedFile>,
}

impl Job {
    fn run(mut self) -> Result<(Encoder, Vec<Encoded>), WorkerError> {
        let mut encoded = Vec::with_capacity(self.partitions.len());
        for JobPartition { target, parts, file, upload } in std::mem::take(&mut self.partitions) {
            let OutputTarget::Rows { dataset, .. } = target else { continue };
            let groups = parts
                .iter()
                .map(|(rows, partition)| self.encoder.row_group(&self.rows[*rows], *partition))
                .collect::<Result<Vec<_>, _>>()?;
            let datasets = &self.lanes.datasets;
            let files =
                finish_files(datasets, &self.encoder, dataset, file, groups, self.file_bytes, &self.provenance)?;
            encoded.push(Encoded { target, upload, files });
        }
        Ok((self.encoder, encoded))
    }
}
