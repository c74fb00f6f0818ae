//! The objects of the open epoch: which are open, and their uploads.
//!
//! Owns: one open file for each partition of each dataset and one for each folder of raw lines and dead letters; rolling
//! them at the target size. Does not own: encoding (the lanes), uploading (`upload`), making the objects visible (`commit`).
//!
//! Every object's name begins with its epoch's, so no two epochs ever write one key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use checkpoints::LeaseOwner;
use pipeline::dataset::Datasets;
use pipeline::encode::{EncodeError, Encoder, FinishedFile, ParquetFile, Provenance, RowGroup};
use pipeline::layout::{Area, DataObject, Folder, PartitionPath};
use pipeline::line_objects::LineMember;
use tokio::task::JoinHandle;

use crate::commit::{EpochId, ObjectKind, ObjectOfEpoch, Stores};
use crate::lake::{LakeError, ObjectKey};
use crate::worker::WorkerError;
use crate::worker::epoch::upload::{Budget, Upload};

/// Bytes that a part has at least, where the store asks for less: fewer calls.
const PART_BYTES: usize = 1 << 18;

/// How objects are written.
#[derive(Debug, Clone)]
pub(crate) struct ObjectsConfig {
    /// Who writes them.
    pub(crate) worker: LeaseOwner,
    pub(crate) file_bytes: u64,
    pub(crate) open_max: usize,
    /// Bytes that open objects may hold: parts not yet full, footers.
    pub(crate) open_bytes_max: usize,
    /// Bytes of parts that may be on their way.
    pub(crate) upload_bytes: usize,
    /// What names of raw objects and of dead letters end with.
    pub(crate) raw_extension: &'static str,
    pub(crate) letters_extension: &'static str,
}

/// What an open object holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Slot {
    /// Rows of a dataset's partition.
    Rows { dataset: usize, path: PartitionPath },
    /// Lines below `raw/` or `error/`.
    Lines { folder: Folder },
}

/// The objects of one epoch.
pub(crate) struct Objects {
    stores: Stores,
    config: ObjectsConfig,
    epoch: EpochId,
    datasets: Vec<String>,
    open: BTreeMap<Slot, Open>,
    /// Objects that are complete, their last parts perhaps still on the way.
    closed: Vec<JoinHandle<Result<ObjectOfEpoch, LakeError>>>,
    budget: Budget,
    /// Set by the first upload that fails.
    failed: Arc<AtomicBool>,
    begun: u64,
    touches: u64,
    /// What the footers of files that are closed from now on say.
    provenance: Provenance,
}

struct Open {
    upload: Upload,
    file: Option<ParquetFile>,
    rows: u64,
    touched: u64,
}

impl Objects {
    pub(crate) fn new(stores: Stores, config: ObjectsConfig, epoch: EpochId, datasets: &Datasets) -> Self {
        let budget = Budget::new(config.upload_bytes);
        Objects {
            stores,
            config,
            epoch,
            datasets: datasets.names().map(str::to_owned).collect(),
            open: BTreeMap::new(),
            closed: Vec::new(),
            budget,
            failed: Arc::default(),
            begun: 0,
            touches: 0,
            provenance: Provenance::default(),
        }
    }

    /// Sets what footers say from now on.
    pub(crate) fn set_provenance(&mut self, provenance: Provenance) {
        self.provenance = provenance;
    }

    /// Adds a row group to its partition's file.
    pub(crate) async fn add_rows(
        &mut self,
        datasets: &Datasets,
        encoder: &Encoder,
        slot: Slot,
        group: RowGroup,
    ) -> Result<(), WorkerError> {
        let Slot::Rows { dataset, .. } = slot else { return Ok(()) };
        let mut open = match self.open.remove(&slot) {
            Some(open) => open,
            None => self.begin(&slot, Some(encoder.file(datasets, dataset)?)),
        };
        open.rows += group.rows;
        self.touches += 1;
        open.touched = self.touches;
        if let Some(file) = &mut open.file {
            file.append(group)?;
            if file.bytes_waiting() >= self.part_bytes() {
                open.upload.send(file.take_bytes()).await;
            }
            if file.bytes_written() as u64 >= self.config.file_bytes {
                return self.close(slot, open).await;
            }
        }
        self.open.insert(slot, open);
        self.close_some().await
    }

    /// Adds compressed lines to their folder's object.
    pub(crate) async fn add_lines(&mut self, member: LineMember) -> Result<(), WorkerError> {
        let slot = Slot::Lines { folder: member.folder };
        let mut open = match self.open.remove(&slot) {
            Some(open) => open,
            None => self.begin(&slot, None),
        };
        open.rows += member.lines;
        self.touches += 1;
        open.touched = self.touches;
        open.upload.send(member.bytes).await;
        if open.upload.bytes >= self.config.file_bytes {
            return self.close(slot, open).await;
        }
        self.open.insert(slot, open);
        self.close_some().await
    }

    /// The open file of a partition, taken out to be finished with its last rows elsewhere.
    pub(crate) fn take_file(&mut self, slot: &Slot) -> Option<TakenFile> {
        let mut open = self.open.remove(slot)?;
        let file = open.file.take()?;
        Some(TakenFile { open, file })
    }

    /// Puts finished files into their objects and closes those: bytes and rows of each, the first one going on where
    /// `taken` left off.
    pub(crate) async fn add_finished(
        &mut self,
        slot: &Slot,
        taken: Option<OpenUpload>,
        files: Vec<FinishedFile>,
    ) -> Result<(), WorkerError> {
        let mut going_on = taken;
        for FinishedFile { bytes, rows, .. } in files {
            let mut open = match going_on.take() {
                Some(OpenUpload(open)) => open,
                None => self.begin(slot, None),
            };
            open.rows = rows;
            open.upload.send(bytes).await;
            self.close_upload(slot.clone(), open).await;
        }
        Ok(())
    }

    /// Whether an upload has failed: the epoch can't be committed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn part_bytes(&self) -> usize {
        self.stores.lake.part_bytes_min().max(PART_BYTES)
    }

    fn begin(&mut self, slot: &Slot, file: Option<ParquetFile>) -> Open {
        self.begun += 1;
        let folder = match slot {
            Slot::Rows { dataset, path } => {
                Folder::Processed { dataset: self.datasets[*dataset].as_str().into(), partition: path.clone() }
            }
            Slot::Lines { folder } => folder.clone(),
        };
        let extension = match folder.area() {
            Area::Processed => "parquet",
            Area::Raw => self.config.raw_extension,
            Area::Error => self.config.letters_extension,
        };
        let (epoch, number) = (self.epoch.to_string(), self.begun);
        let key = ObjectKey::new(DataObject { folder, epoch, number, extension: extension.to_owned() }.to_string())
            .expect("partition paths are escaped and bounded, and epochs' names are plain");
        let hint = self.epoch.upload_id(&self.config.worker, self.begun);
        let (part_bytes, budget, failed) = (self.part_bytes(), self.budget.clone(), Arc::clone(&self.failed));
        let upload = Upload::begin(self.stores.clone(), key, hint, part_bytes, budget, failed);
        Open { upload, file, rows: 0, touched: self.touches }
    }

    /// How many objects the epoch has so far.
    pub(crate) fn count(&self) -> usize {
        self.open.len() + self.closed.len()
    }

    /// Bytes that open objects hold.
    fn memory(&self) -> usize {
        let held = |open: &Open| {
            let file = open.file.as_ref().map_or(0, |file| file.bytes_waiting() + file.footer_memory());
            open.upload.waiting.capacity() + file
        };
        self.open.values().map(held).sum()
    }

    /// Closes what has longest not been written to, while too much is open.
    async fn close_some(&mut self) -> Result<(), WorkerError> {
        let too_much = |objects: &Self| {
            // Adding up what all of them hold takes its time.
            let look = objects.touches.is_multiple_of(16);
            objects.open.len() > objects.config.open_max || (look && objects.memory() > objects.config.open_bytes_max)
        };
        while too_much(self) {
            let Some(oldest) = self.open.iter().min_by_key(|(_, open)| open.touched).map(|(slot, _)| slot.clone())
            else {
                break;
            };
            if let Some(open) = self.open.remove(&oldest) {
                self.close(oldest, open).await?;
            }
        }
        Ok(())
    }

    async fn close(&mut self, slot: Slot, mut open: Open) -> Result<(), WorkerError> {
        if let Some(file) = open.file.take() {
            let last = file.finish(&self.provenance)?;
            open.upload.send(last.bytes).await;
        }
        self.close_upload(slot, open).await;
        Ok(())
    }

    async fn close_upload(&mut self, slot: Slot, open: Open) {
        let (kind, dataset) = match &slot {
            Slot::Rows { dataset, .. } => (ObjectKind::Processed, Some(self.datasets[*dataset].clone())),
            Slot::Lines { folder } if folder.area() == Area::Raw => (ObjectKind::Raw, None),
            Slot::Lines { .. } => (ObjectKind::Error, None),
        };
        let rows = open.rows;
        let closed = open.upload.close(move |uploaded| ObjectOfEpoch {
            key: uploaded.key,
            kind,
            dataset,
            rows,
            bytes: uploaded.bytes,
            crc64nvme: uploaded.checksummer.finish(),
            upload: uploaded.id,
            parts: uploaded.parts,
        });
        let closed = closed.await;
        self.closed.push(closed);
    }

    /// Closes everything and waits for the uploads: all objects of the epoch.
    pub(crate) async fn seal(mut self) -> Result<Vec<ObjectOfEpoch>, WorkerError> {
        for (slot, open) in std::mem::take(&mut self.open) {
            self.close(slot, open).await?;
        }
        let mut objects = Vec::with_capacity(self.closed.len());
        let mut failure = None;
        for closed in self.closed {
            match closed.await {
                Ok(Ok(object)) => objects.push(object),
                Ok(Err(error)) => failure = Some(error),
                Err(error) => {
                    failure =
                        Some(LakeError::Unavailable { operation: "upload".to_owned(), problem: error.to_string() });
                }
            }
        }
        match failure {
            None => {
                objects.sort_by(|left, right| left.key.cmp(&right.key));
                Ok(objects)
            }
            Some(error) => {
                for object in objects {
                    let _ = self.stores.lake_once.abort_upload(&object.key, &object.upload).await;
                }
                Err(error.into())
            }
        }
    }

    /// Gives all uploads up: the epoch never happened.
    pub(crate) async fn abort(self) {
        let lake = Arc::clone(&self.stores.lake_once);
        for open in self.open.into_values() {
            let closed = open.upload.close(|uploaded| (uploaded.key, uploaded.id)).await;
            if let Ok(Ok((key, id))) = closed.await {
                let _ = lake.abort_upload(&key, &id).await;
            }
        }
        for closed in self.closed {
            if let Ok(Ok(object)) = closed.await {
                let _ = lake.abort_upload(&object.key, &object.upload).await;
            }
        }
    }
}

/// A partition's open file, taken out of the set.
pub(crate) struct TakenFile {
    open: Open,
    file: ParquetFile,
}

impl TakenFile {
    /// The file, and the upload that its bytes belong to.
    pub(crate) fn into_parts(self) -> (ParquetFile, OpenUpload) {
        (self.file, OpenUpload(self.open))
    }
}

/// The upload of a file that is being finished elsewhere.
pub(crate) struct OpenUpload(Open);

/// Builds the last files of one partition from row groups: `file` goes on where it left off.
pub(crate) fn finish_files(
    datasets: &Datasets,
    encoder: &Encoder,
    dataset: usize,
    file: Option<ParquetFile>,
    groups: Vec<RowGroup>,
    file_bytes: u64,
    provenance: &Provenance,
) -> Result<Vec<FinishedFile>, EncodeError> {
    let mut finished = Vec::new();
    let mut file = file;
    for group in groups {
        let mut growing = match file.take() {
            Some(file) => file,
            None => encoder.file(datasets, dataset)?,
        };
        growing.append(group)?;
        if growing.bytes_written() as u64 >= file_bytes {
            finished.push(growing.finish(provenance)?);
        } else {
            file = Some(growing);
        }
    }
    if let Some(file) = file {
        finished.push(file.finish(provenance)?);
    }
    Ok(finished)
}
