//! All `.json` files of one folder as a shard.
//!
//! Owns: which file is read next. Does not own: which files get numbers (`numbering`), keeping the numbers (`registry`), whether a file
//! is one document or lines (`text::complete`).

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use checkpoints::{Position, ShardId};
use tokio::time::{Duration, Instant};

use crate::source::files::identity::{Stat, read_range};
use crate::source::files::input::{Input, Part};
use crate::source::files::list::{Codec, inside, kind_of};
use crate::source::files::numbering::{Numbering, Patience, compare, unnumbered};
use crate::source::files::registry::{Mark, NumberedFile, Registry};
use crate::source::files::{FilesConfig, Shared, blocking};
use crate::source::text::complete::{Batch, CompleteText, Step, next_of, position_before};
use crate::source::text::decompress::codec_by_content;
use crate::source::{Behind, Read, ShardReader, SourceError};

/// How often files that have numbers are compared with what they were.
const COMPARE_EVERY: Duration = Duration::from_secs(5);

/// A folder at or below the root of its source.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) root: PathBuf,
    pub(super) path: PathBuf,
}

/// Reads the `.json` files of a folder.
pub(super) struct FolderReader {
    folder: Folder,
    registry: Registry,
    stream: Arc<str>,
    shard: Arc<str>,
    place: String,
    config: FilesConfig,
    /// The file to read next, and the offset in it.
    number: u64,
    offset: u64,
    /// A file of lines that is being read.
    open: Option<Box<CompleteText>>,
    shared: Arc<Shared>,
    /// Files that have another time than when they were numbered, and the same content.
    touched: HashMap<String, Stat>,
    compared_at: Option<Instant>,
}

/// How much of a folder comes after a position.
pub(super) async fn behind(
    shared: &Shared,
    folder: Folder,
    shard: &ShardId,
    position: &Position,
) -> Result<Behind, SourceError> {
    let Some((number, _)) = next_of(position) else { return Ok(Behind::Nothing) };
    let mut registry = shared.registry(shard);
    registry.forget_before(number);
    registry.load().await?;
    let unread: HashMap<String, u64> = (number..=registry.len())
        .filter_map(|number| registry.file(number))
        .map(|file| (file.name.clone(), file.from))
        .collect();
    let known = registry.known();
    let left = blocking(&shared.stream, move || unnumbered(&folder, &known, &unread)).await?;
    Ok(if left == 0 { Behind::Nothing } else { Behind::Bytes(left) })
}

impl FolderReader {
    pub(super) async fn open(
        folder: Folder,
        shared: Arc<Shared>,
        shard: ShardId,
        after: &Position,
    ) -> Result<Self, SourceError> {
        let place = shared.place_of(&shard);
        let (number, offset) = next_of(after).ok_or_else(|| SourceError::Unreadable {
            place: place.clone(),
            problem: format!("{after} is not a valid position in a folder"),
        })?;
        let mut registry = shared.registry(&shard);
        registry.forget_before(number);
        registry.load().await?;
        Ok(FolderReader {
            folder,
            registry,
            stream: shared.stream.as_str().into(),
            shard: shard.as_str().into(),
            place,
            config: shared.config.clone(),
            shared,
            number,
            offset,
            open: None,
            touched: HashMap::new(),
            compared_at: None,
        })
    }

    /// Gives numbers to files that are new, replaced or grown.
    async fn number_new_files(&mut self) -> Result<(), SourceError> {
        let (folder, known, touched) = (self.folder.clone(), self.registry.known(), self.touched.clone());
        let checks_known = self.compared_at.is_none_or(|at| at.elapsed() >= COMPARE_EVERY);
        let patience_ms = i64::try_from(self.config.patience.as_millis()).unwrap_or(i64::MAX);
        let (now, record_bytes_max) = (self.shared.now(), self.config.record_bytes_max);
        let patience = Patience { now, patience_ms, record_bytes_max, documents: self.config.documents };
        let compare = move || compare(&folder, &known, &touched, checks_known, patience);
        let Numbering { new, seen, touched, incomplete } = blocking(&self.place, compare).await?;
        if checks_known {
            self.compared_at = Some(Instant::now());
        }
        self.touched.extend(touched);
        self.shared.unread.leave_in(&self.shard, incomplete);
        self.registry.number(new, seen).await
    }

    /// Notes that a file that has a number cannot be read any more.
    async fn lose(&mut self, name: &str) -> Result<(), SourceError> {
        let path = self.folder.path.join(name);
        let file = self.shared.root.name_of(&path).unwrap_or_else(|| name.to_owned());
        let Ok(file) = ShardId::new(file) else { return Ok(()) };
        self.shared.lost(&file, "the file is gone or was replaced before it was read").await
    }
}

#[async_trait]
impl ShardReader for FolderReader {
    async fn read(&mut self, bytes: usize, buffer: Vec<u8>) -> Result<Read, SourceError> {
        if self.number > self.registry.len() {
            self.number_new_files().await?;
            if self.number > self.registry.len() {
                return Ok(Read::AtTip);
            }
        }
        let mut batch = Batch::new(buffer);
        let mut skipping = false;
        while (skipping || (batch.buffer.len() < bytes && !batch.is_full))
            && let Some(NumberedFile { name, from, mark }) = self.registry.file(self.number).cloned()
        {
            let Folder { root, path } = self.folder.clone();
            let name = self.registry.renamed(self.number, &name).map_or(name, str::to_owned);
            let path = path.join(&name);
            let (number, offset, config) = (self.number, self.offset, self.config.clone());
            let open = self.open.take();
            let place = format!("{} ({})", self.place, name);
            let done = blocking(&place, move || {
                let mut file = match open {
                    Some(file) => file,
                    None => match open_file(&root, &path, (from, mark), number, offset, &config)? {
                        Some(file) => Box::new(file),
                        None => return Ok((batch, None)),
                    },
                };
                let step = file.read_into(&mut batch, bytes)?;
                Ok((batch, Some((file, step))))
            })
            .await?;
            let read;
            (batch, read) = done;
            let Some((file, step)) = read else {
                self.lose(&name).await?;
                (self.number, self.offset) = (self.number + 1, 0);
                self.registry.forget_before(self.number);
                continue;
            };
            skipping = matches!(step, Step::Skipping);
            match step {
                Step::Done => {
                    (self.number, self.offset) = (self.number + 1, 0);
                    self.registry.forget_before(self.number);
                    continue;
                }
                Step::More(offset) => self.offset = offset,
                Step::Skipping => {}
            }
            self.open = Some(file);
        }
        let through = position_before(self.number, self.offset);
        let (stream, shard) = (Arc::clone(&self.stream), Arc::clone(&self.shard));
        let source_bytes = batch.source_bytes;
        let chunk = batch.into_chunk((stream, shard), self.config.text(), self.config.clock.now_ms());
        Ok(Read::Chunk { chunk, through, source_bytes })
    }
}

/// Opens a file at an offset of its part. `None` if it is gone, or has another content than when it got its number.
fn open_file(
    root: &Path,
    path: &Path,
    (from, mark): (u64, Option<Mark>),
    number: u64,
    offset: u64,
    config: &FilesConfig,
) -> std::io::Result<Option<CompleteText>> {
    let real = match inside(root, path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        real => real?,
    };
    let file = File::open(&real)?;
    let stat = Stat::of(&file.metadata()?);
    if let Some(mark) = &mark
        && !mark.is_of(&file, &stat)?
    {
        return Ok(None);
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let named = kind_of(name).map_or(Codec::Plain, |(_, codec)| codec);
    let codec = codec_by_content(named, &read_range(&file, 0, 64)?);
    let part = Part { codec, from, limit: mark.map(|mark| mark.bytes) };
    let input = Input::of_file(file, part, offset)?;
    let (arrival_ms, _) = config.arrival_ms(input.modified_ms);
    Ok(Some(CompleteText::new(input.text, number, arrival_ms, config.text())))
}
