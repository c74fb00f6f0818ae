//! The objects of one epoch: which of them are open, and their uploads.
//!
//! Owns: one open file for each partition of each dataset, one for each folder of raw lines and dead letters, and closing
//! them at the target size. Does not own: encoding (the lanes), uploading (`upload`), making objects visible
//! (`crate::commit`).
//!
//! Every object's name begins with its epoch's name, so no two epochs ever write the same key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use checkpoints::LeaseOwner;
use pipeline::dataset::Datasets;
use pipeline::encode::{EncodeError, Encoder, FileStats, FinishedFile, ParquetFile, Provenance, RowGroup};
use pipeline::layout::{Area, DataObject, Folder, PartitionPath};
use pipeline::line_objects::LineMember;
use tokio::task::{JoinError, JoinSet};

use crate::commit::{EpochId, ObjectKind, ObjectOfEpoch, Stores};
use crate::lake::{LakeError, ObjectKey};
use crate::worker::WorkerError;
use crate::worker::epoch::upload::Upload;
use crate::worker::memory_plan::ByteBudget;

/// Least bytes of a part, where the store allows smaller ones: it saves calls.
const PART_BYTES: usize = 1 << 18;

/// How an epoch's objects are written.
#[derive(Debug, Clone)]
pub(crate) struct ObjectsConfig {
    /// Who writes them.
    pub(crate) worker: LeaseOwner,
    /// The span that its uploads belong to.
    pub(crate) span: tracing::Span,
    /// Bytes at which an object is closed.
    pub(crate) file_bytes: u64,
    /// Objects that may be open at once.
    pub(crate) open_max: usize,
    /// Bytes that open objects may hold: parts that are not full yet, and footers.
    pub(crate) open_bytes_max: usize,
    /// Bytes of parts that may be uploading at once.
    pub(crate) upload_bytes: usize,
    /// Extensions of raw objects and of dead-letter objects.
    pub(crate) raw_extension: &'static str,
    pub(crate) dead_letter_extension: &'static str,
}

/// What is written into one object after the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum OutputTarget {
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
    open: BTreeMap<OutputTarget, OpenObject>,
    /// Objects that are complete. Their last parts may still be uploading.
    closing: JoinSet<Result<ObjectOfEpoch, LakeError>>,
    /// Objects that are uploaded. A task that has ended holds its memory until its result is taken, so it is taken early: an
    /// epoch may have tens of thousands of objects.
    uploaded: Vec<ObjectOfEpoch>,
    /// Why an object could not be uploaded.
    failure: Option<LakeError>,
    budget: ByteBudget,
    /// The first upload that fails sets it.
    failed: Arc<AtomicBool>,
    /// Objects that were begun: their numbers.
    begun: u64,
    /// Additions to any object, to find the one that was idle longest.
    additions: u64,
    /// The provenance in the footers of files that are closed from now on.
    provenance: Provenance,
}

struct OpenObject {
    upload: Upload,
    file: Option<ParquetFile>,
    /// Statistics of the file's columns, once it is finished.
    columns: FileStats,
    rows: u64,
    /// The number of the last addition.
    last_addition: u64,
}

impl Objects {
    pub(crate) fn new(stores: Stores, config: ObjectsConfig, epoch: EpochId, datasets: &Datasets) -> Self {
        let budget = ByteBudget::new(config.upload_bytes);
        Objects {
            stores,
            config,
            epoch,
            datasets: datasets.names().map(str::to_owned).collect(),
            open: BTreeMap::new(),
            closing: JoinSet::new(),
            uploaded: Vec::new(),
            failure: None,
            budget,
            failed: Arc::default(),
            begun: 0,
            additions: 0,
            provenance: Provenance::default(),
        }
    }

    /// Sets the provenance in the footers of files that are closed from now on.
    pub(crate) fn set_provenance(&mut self, provenance: Provenance) {
        self.provenance = provenance;
    }

    /// Adds a row group to its partition's file.
    pub(crate) async fn add_rows(
        &mut self,
        datasets: &Datasets,
        encoder: &Encoder,
        target: OutputTarget,
        group: RowGroup,
    ) -> Result<(), WorkerError> {
        let OutputTarget::Rows { dataset, .. } = target else { return Ok(()) };
        let mut open = match self.open.remove(&target) {
            Some(open) => open,
            None => self.begin(&target, Some(encoder.file(datasets, dataset)?)),
        };
        open.rows += group.rows;
        self.additions += 1;
        open.last_addition = self.additions;
        if let Some(file) = &mut open.file {
            file.append(group)?;
            if file.bytes_waiting() >= self.part_bytes() {
                open.upload.send(file.take_bytes()).await;
            }
            if file.bytes_written() as u64 >= self.config.file_bytes {
                return self.close(target, open).await;
            }
        }
        self.open.insert(target, open);
        self.close_idle().await
    }

    /// Adds compressed lines to their folder's object.
    pub(crate) async fn add_lines(&mut self, member: LineMember) -> Result<(), WorkerError> {
        let target = OutputTarget::Lines { folder: member.folder };
        let mut open = match self.open.remove(&target) {
            Some(open) => open,
            None => self.begin(&target, None),
        };
        open.rows += member.lines;
        self.additions += 1;
        open.last_addition = self.additions;
        open.upload.send(member.bytes).await;
        if open.upload.bytes >= self.config.file_bytes {
            return self.close(target, open).await;
        }
        self.open.insert(target, open);
        self.close_idle().await
    }

    /// Takes the open file of a partition out, so that a job can finish it with its last rows.
    pub(crate) fn take_file(&mut self, target: &OutputTarget) -> Option<TakenFile> {
        let mut open = self.open.remove(target)?;
        let file = open.file.take()?;
        Some(TakenFile { open, file })
    }

    /// Writes finished files into objects and closes them. The first file continues the object that `taken` belongs to.
    pub(crate) async fn add_finished(
        &mut self,
        target: &OutputTarget,
        taken: Option<OpenUpload>,
        files: Vec<FinishedFile>,
    ) -> Result<(), WorkerError> {
        let mut continued = taken;
        for FinishedFile { bytes, rows, stats } in files {
            let mut open = match continued.take() {
                Some(OpenUpload(open)) => open,
                None => self.begin(target, None),
            };
            open.rows = rows;
            open.columns = stats;
            open.upload.send(bytes).await;
            self.close_upload(target.clone(), open).await;
        }
        Ok(())
    }

    /// Whether an upload has failed, so that the epoch can't be committed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn part_bytes(&self) -> usize {
        self.stores.lake.part_bytes_min().max(PART_BYTES)
    }

    fn begin(&mut self, target: &OutputTarget, file: Option<ParquetFile>) -> OpenObject {
        self.begun += 1;
        let folder = match target {
            OutputTarget::Rows { dataset, path } => {
                Folder::Processed { dataset: self.datasets[*dataset].as_str().into(), partition: path.clone() }
            }
            OutputTarget::Lines { folder } => folder.clone(),
        };
        let extension = match folder.area() {
            Area::Processed => "parquet",
            Area::Raw => self.config.raw_extension,
            Area::Error => self.config.dead_letter_extension,
        };
        let (epoch, number) = (self.epoch.to_string(), self.begun);
        let key = ObjectKey::new(DataObject { folder, epoch, number, extension: extension.to_owned() }.to_string())
            .expect("partition paths are escaped and bounded, and epoch names have plain characters");
        let hint = self.epoch.upload_id(&self.config.worker, self.begun);
        let (part_bytes, budget, failed) = (self.part_bytes(), self.budget.clone(), Arc::clone(&self.failed));
        let begin = || Upload::begin(self.stores.clone(), key, hint, part_bytes, budget, failed);
        let upload = self.config.span.in_scope(begin);
        OpenObject { upload, file, columns: FileStats::default(), rows: 0, last_addition: self.additions }
    }

    /// The number of objects of the epoch so far.
    pub(crate) fn count(&self) -> usize {
        self.open.len() + self.closing.len() + self.uploaded.len()
    }

    /// Bytes that open objects hold.
    fn memory(&self) -> usize {
        let held = |open: &OpenObject| {
            let file = open.file.as_ref().map_or(0, |file| file.bytes_waiting() + file.footer_memory());
            open.upload.waiting.capacity() + file
        };
        self.open.values().map(held).sum()
    }

    /// Closes the objects that were idle longest, while too many or too large ones are open.
    async fn close_idle(&mut self) -> Result<(), WorkerError> {
        let too_much = |objects: &Self| {
            // Adding up the memory of all objects takes time, so it is not done for every addition.
            let adds_up = objects.additions.is_multiple_of(16);
            objects.open.len() > objects.config.open_max
                || (adds_up && objects.memory() > objects.config.open_bytes_max)
        };
        while too_much(self) {
            let Some(oldest) =
                self.open.iter().min_by_key(|(_, open)| open.last_addition).map(|(target, _)| target.clone())
            else {
                break;
            };
            if let Some(open) = self.open.remove(&oldest) {
                self.close(oldest, open).await?;
            }
        }
        Ok(())
    }

    async fn close(&mut self, target: OutputTarget, mut open: OpenObject) -> Result<(), WorkerError> {
        if let Some(file) = open.file.take() {
            let FinishedFile { bytes, stats, .. } = file.finish(&self.provenance)?;
            open.columns = stats;
            open.upload.send(bytes).await;
        }
        self.close_upload(target, open).await;
        Ok(())
    }

    async fn close_upload(&mut self, target: OutputTarget, open: OpenObject) {
        let (kind, dataset) = match &target {
            OutputTarget::Rows { dataset, .. } => (ObjectKind::Processed, Some(self.datasets[*dataset].clone())),
            OutputTarget::Lines { folder } if folder.area() == Area::Raw => (ObjectKind::Raw, None),
            OutputTarget::Lines { .. } => (ObjectKind::Error, None),
        };
        let OpenObject { upload, columns, rows, .. } = open;
        let closed = upload.close(&mut self.closing, move |uploaded| ObjectOfEpoch {
            partition: ObjectOfEpoch::partition_of(&uploaded.key),
            columns,
            key: uploaded.key,
            kind,
            dataset,
            rows,
            bytes: uploaded.bytes,
            crc64nvme: uploaded.checksummer.finish(),
            upload: uploaded.id,
            parts: uploaded.parts,
        });
        closed.await;
        while let Some(done) = self.closing.try_join_next() {
            self.take_uploaded(done);
        }
    }

    /// Takes the result of an object's last task.
    fn take_uploaded(&mut self, done: Result<Result<ObjectOfEpoch, LakeError>, JoinError>) {
        match done {
            Ok(Ok(object)) => self.uploaded.push(object),
            Ok(Err(error)) => self.failure = Some(error),
            Err(error) => {
                let problem = error.to_string();
                self.failure = Some(LakeError::Unavailable { operation: "upload".to_owned(), problem });
            }
        }
    }

    /// Closes everything, waits for the uploads, and returns all objects of the epoch.
    pub(crate) async fn seal(mut self) -> Result<Vec<ObjectOfEpoch>, WorkerError> {
        for (target, open) in std::mem::take(&mut self.open) {
            self.close(target, open).await?;
        }
        self.finish_uploads().await;
        let Objects { uploaded: mut objects, failure, stores, .. } = self;
        match failure {
            None => {
                objects.sort_by(|left, right| left.key.cmp(&right.key));
                Ok(objects)
            }
            Some(error) => {
                for object in objects {
                    let _ = stores.lake_once.abort_upload(&object.key, &object.upload).await;
                }
                Err(error.into())
            }
        }
    }

    /// Waits for the uploads of all closed objects.
    async fn finish_uploads(&mut self) {
        while let Some(done) = self.closing.join_next().await {
            self.take_uploaded(done);
        }
    }

    /// Aborts all uploads: the epoch never happens.
    pub(crate) async fn abort(mut self) {
        let lake = Arc::clone(&self.stores.lake_once);
        let mut open = JoinSet::new();
        for (_, object) in std::mem::take(&mut self.open) {
            object.upload.close(&mut open, |uploaded| (uploaded.key, uploaded.id)).await;
        }
        while let Some(closed) = open.join_next().await {
            if let Ok(Ok((key, id))) = closed {
                let _ = lake.abort_upload(&key, &id).await;
            }
        }
        self.finish_uploads().await;
        for object in self.uploaded {
            let _ = lake.abort_upload(&object.key, &object.upload).await;
        }
    }
}

/// A partition's open file that a job finishes.
pub(crate) struct TakenFile {
    open: OpenObject,
    file: ParquetFile,
}

impl TakenFile {
    /// The file, and the upload that its bytes belong to.
    pub(crate) fn into_parts(self) -> (ParquetFile, OpenUpload) {
        (self.file, OpenUpload(self.open))
    }
}

/// The upload of such a file.
pub(crate) struct OpenUpload(OpenObject);

/// Builds the last files of one partition from row groups. The first of them continues `file`.
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
