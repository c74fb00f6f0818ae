//! Rows of the lanes become row groups and files.
//!
//! Owns: encoding what a lane holds when it is full, one row group a partition, some partitions at a time; and what all lanes hold when an epoch
//! ends: partitions are cut into jobs, and each job builds the last files of its partitions on a thread of its own. Does
//! not own: how rows are encoded (`pipeline::encode`), the objects that files lie in (`objects`).

use std::collections::BTreeMap;
use std::sync::Arc;

use pipeline::encode::{EncodeError, Encoder, FinishedFile, ParquetFile, Provenance, RowGroup, Rows};
use pipeline::lane::{Lane, LaneConfig};
use tokio::task::JoinSet;

use crate::worker::epoch::objects::{Objects, OpenUpload, Slot, TakenFile, finish_files};
use crate::worker::{WorkerConfig, WorkerError};

/// Partitions, and rows, that one encoding job takes when an epoch ends.
const JOB_PARTITIONS: usize = 64;
const JOB_ROWS: u64 = 100_000;
/// Bytes of row groups that a full lane hands over at a time.
const SPILL_BYTES: usize = 4 << 20;

/// One lane with its encoder.
pub(crate) struct Unit {
    pub(crate) lane: Lane,
    pub(crate) encoder: Encoder,
}

/// Rows that a full lane gave up, as far as they are not encoded.
pub(crate) struct Spill {
    rows: Vec<Rows>,
    /// The next partition of the last rows.
    next: usize,
}

/// Row groups for their partitions' files, and what is still to be encoded.
pub(crate) type Spilled = (Vec<(Slot, RowGroup)>, Option<Spill>);

impl Unit {
    /// Gives up the lane's rows.
    pub(crate) fn spill(&mut self) -> Spill {
        Spill { rows: self.lane.take_rows(), next: 0 }
    }

    /// Encodes some of the rows, one row group a partition: not all at once, because an encoded row group of a few rows
    /// takes more memory than the rows did.
    pub(crate) fn encode_some(&mut self, mut spill: Spill) -> Result<Spilled, EncodeError> {
        let mut groups = Vec::new();
        let mut bytes = 0;
        while groups.len() < JOB_PARTITIONS && bytes < SPILL_BYTES {
            let Some(rows) = spill.rows.last() else { return Ok((groups, None)) };
            let Some(partition) = rows.partitions().get(spill.next) else {
                spill.rows.pop();
                spill.next = 0;
                continue;
            };
            let slot = Slot::Rows { dataset: rows.dataset(), path: partition.path.clone() };
            let group = self.encoder.row_group(rows, spill.next)?;
            bytes += group.bytes();
            groups.push((slot, group));
            spill.next += 1;
        }
        Ok((groups, Some(spill)))
    }
}

/// Encodes what the lanes hold, partition by partition, on all threads.
pub(crate) async fn encode_rest(
    config: &WorkerConfig,
    units: &mut [Unit],
    objects: &mut Objects,
    provenance: Provenance,
) -> Result<(), WorkerError> {
    let lines: Vec<_> = units.iter_mut().flat_map(|unit| unit.lane.take_lines()).collect();
    for member in lines {
        objects.add_lines(member).await?;
    }
    let all_rows: Vec<Rows> = units.iter_mut().flat_map(|unit| unit.lane.take_rows()).collect();
    let all_rows = Arc::new(all_rows);
    let mut jobs = jobs(&all_rows).into_iter();
    let mut encoders: Vec<Encoder> = Vec::new();
    for _ in 0..units.len() {
        encoders.push(Encoder::new(&config.lanes.datasets, &config.encoder)?);
    }
    let mut running: JoinSet<Result<(Encoder, Vec<Encoded>), WorkerError>> = JoinSet::new();
    loop {
        while let Some(encoder) = encoders.pop() {
            let Some(partitions) = jobs.next() else { break };
            let mut job = Job {
                lanes: Arc::clone(&config.lanes),
                rows: Arc::clone(&all_rows),
                file_bytes: config.file_bytes,
                provenance: provenance.clone(),
                encoder,
                partitions: Vec::new(),
            };
            for (slot, places) in partitions {
                let (file, upload) = objects.take_file(&slot).map(TakenFile::into_parts).unzip();
                job.partitions.push(JobPartition { slot, places, file, upload });
            }
            let compute = config.compute.clone();
            running.spawn(async move { compute.run(move || job.run()).await });
        }
        let Some(done) = running.join_next().await else { return Ok(()) };
        let (encoder, encoded) = joined(done)?;
        encoders.push(encoder);
        for Encoded { slot, upload, files } in encoded {
            objects.add_finished(&slot, upload, files).await?;
        }
    }
}

/// A partition's rows: place in the list of all rows, place of the partition in those.
type Places = Vec<(usize, usize)>;

/// Cuts the partitions of all rows into jobs.
fn jobs(all_rows: &[Rows]) -> Vec<Vec<(Slot, Places)>> {
    let mut by_slot: BTreeMap<Slot, (u64, Places)> = BTreeMap::new();
    for (place, rows) in all_rows.iter().enumerate() {
        for (number, partition) in rows.partitions().iter().enumerate() {
            let slot = Slot::Rows { dataset: rows.dataset(), path: partition.path.clone() };
            let (count, places) = by_slot.entry(slot).or_default();
            *count += partition.rows;
            places.push((place, number));
        }
    }
    let mut jobs: Vec<Vec<(Slot, Places)>> = Vec::new();
    let mut rows = u64::MAX;
    for (slot, (count, places)) in by_slot {
        match jobs.last_mut() {
            Some(job) if job.len() < JOB_PARTITIONS && rows.saturating_add(count) <= JOB_ROWS => {
                job.push((slot, places));
                rows += count;
            }
            _ => {
                jobs.push(vec![(slot, places)]);
                rows = count;
            }
        }
    }
    jobs
}

/// Partitions to be encoded and finished in one go.
struct Job {
    lanes: Arc<LaneConfig>,
    rows: Arc<Vec<Rows>>,
    file_bytes: u64,
    provenance: Provenance,
    encoder: Encoder,
    partitions: Vec<JobPartition>,
}

struct JobPartition {
    slot: Slot,
    places: Places,
    file: Option<ParquetFile>,
    upload: Option<OpenUpload>,
}

/// The finished files of a partition.
struct Encoded {
    slot: Slot,
    upload: Option<OpenUpload>,
    files: Vec<FinishedFile>,
}

impl Job {
    fn run(mut self) -> Result<(Encoder, Vec<Encoded>), WorkerError> {
        let mut encoded = Vec::with_capacity(self.partitions.len());
        for JobPartition { slot, places, file, upload } in std::mem::take(&mut self.partitions) {
            let Slot::Rows { dataset, .. } = slot else { continue };
            let groups = places
                .iter()
                .map(|(place, partition)| self.encoder.row_group(&self.rows[*place], *partition))
                .collect::<Result<Vec<_>, _>>()?;
            let datasets = &self.lanes.datasets;
            let files =
                finish_files(datasets, &self.encoder, dataset, file, groups, self.file_bytes, &self.provenance)?;
            encoded.push(Encoded { slot, upload, files });
        }
        Ok((self.encoder, encoded))
    }
}

/// The result of a joined task; one that panicked goes on panicking here.
pub(crate) fn joined<T>(result: Result<T, tokio::task::JoinError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("a lane's task was cancelled: {error}"),
        },
    }
}
