//! Scanning a source: listing its files, giving shards to new ones, and deciding about files that are lost or unclear.
//!
//! Owns: the order of these steps, and what a scan logs. Does not own: the steps (`list`, `matching`, `catalog`), losses as they are
//! stored (`losses`).

use std::sync::{Arc, PoisonError};

use checkpoints::{ShardId, ShardKey};
use pipeline::layout;
use pipeline::time::format_rfc3339;
use tokio::time::Instant;

use crate::source::SourceError;
use crate::source::files::catalog::State;
use crate::source::files::matching::{Found, Now, scan};
use crate::source::files::{Shared, blocking};
use crate::source::losses::{self, Loss, LossKind, Then};

impl Shared {
    /// Lists all files, and records those that are new. Returns the shards whose files exist, and those of folders.
    pub(super) async fn scan(self: &Arc<Self>) -> Result<Vec<ShardId>, SourceError> {
        let mut scanned = self.scanning.lock().await;
        let begun = Instant::now();
        let shards = self.scan_alone().await?;
        *scanned = Some(begun);
        Ok(shards)
    }

    /// The same, unless a scan has begun since then. So many readers that ask at once cause one scan.
    pub(super) async fn rescan(self: &Arc<Self>, since: Instant) -> Result<(), SourceError> {
        let mut scanned = self.scanning.lock().await;
        if scanned.is_none_or(|begun| begun <= since) {
            let begun = Instant::now();
            self.scan_alone().await?;
            *scanned = Some(begun);
        }
        Ok(())
    }

    /// Finds where files are, unless a scan has done so, and records nothing: for commands that only show something.
    pub(super) async fn look_up_once(&self) -> Result<(), SourceError> {
        let mut scanned = self.scanning.lock().await;
        if scanned.is_some() {
            return Ok(());
        }
        *scanned = Some(Instant::now());
        self.catalog.load().await?;
        let (root, now, known) = (self.root.clone(), self.now(), self.catalog.shared());
        blocking(&self.stream, move || {
            let listing = root.list()?;
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            scan(&root, &listing, &mut known, now).map(drop)
        })
        .await
    }

    pub(super) fn now(&self) -> Now {
        let settle_ms = i64::try_from(self.config.settle.as_millis()).unwrap_or(i64::MAX);
        Now { ms: self.config.clock.now_ms(), settle_ms, complete: self.config.complete }
    }

    async fn scan_alone(self: &Arc<Self>) -> Result<Vec<ShardId>, SourceError> {
        let root = self.root.clone();
        let mut listing = blocking(&self.stream, move || root.list()).await?;
        for (path, problem) in std::mem::take(&mut listing.skipped) {
            self.skip(path, problem);
        }
        let mut folders = Vec::new();
        for folder in std::mem::take(&mut listing.folders) {
            // A name that is not a valid shard id must not prevent the others from being read.
            match self.root.folder_shard(&folder) {
                Ok(shard) => folders.push(shard),
                Err(problem) => self.skip(folder, &problem),
            }
        }
        let readable = (listing.files.len() + folders.len()) as u64;
        let listing = Arc::new(listing);
        loop {
            self.catalog.load().await?;
            let (root, now, known, scanned) =
                (self.root.clone(), self.now(), self.catalog.shared(), Arc::clone(&listing));
            let found = blocking(&self.stream, move || {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                scan(&root, &scanned, &mut known, now)
            })
            .await?;
            if found.records.is_empty() {
                let names = listing.not_read(&self.root, &found.renamed);
                let has_history = readable > 0 || self.had_files().await?;
                self.unread.scanned(&self.stream, readable, names, has_history);
                let mut shards = self.finish(found).await?;
                shards.sort_unstable();
                shards.append(&mut folders);
                return Ok(shards);
            }
            let new: Vec<ShardId> = found.records.iter().map(|record| record.shard.clone()).collect();
            let added = self.catalog.add(found.records).await;
            let has_failed = added.is_err();
            *self.not_recorded.lock().unwrap_or_else(PoisonError::into_inner) = added.as_ref().err().cloned();
            match added {
                Ok(true) => {
                    let mut known = self.catalog.lock();
                    found.places.into_iter().for_each(|(shard, place)| known.found(&shard, place));
                }
                Ok(false) => {}
                // Their readers fail with this error. If it were an error of the whole source, nobody would report it.
                Err(_) => folders.extend(new.into_iter().chain(found.shards)),
            }
            if has_failed {
                folders.sort_unstable();
                folders.dedup();
                return Ok(folders);
            }
        }
    }

    /// Why new files could not be recorded.
    pub(super) fn recording_error(&self) -> Option<SourceError> {
        self.not_recorded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the source had files before.
    async fn had_files(&self) -> Result<bool, SourceError> {
        if !self.catalog.is_empty() {
            return Ok(true);
        }
        let prefix = layout::files_of_source(self.stream.as_str());
        let objects = self.lake.list(&prefix).await.map_err(|error| self.catalog.error(&error))?;
        Ok(!objects.is_empty())
    }

    /// What a scan says beside its shards.
    async fn finish(&self, found: Found) -> Result<Vec<ShardId>, SourceError> {
        for (path, problem) in found.invalid {
            self.skip(path, &problem);
        }
        self.unread.waiting(found.waiting);
        for shard in found.grown {
            let problem = "its compressed content was damaged when it was read, and the file has grown since; the new content is not read";
            match self.unclear(&shard, problem).await {
                Ok(Then::Start) => self.catalog.change(&shard, |record| record.state = State::Closed).await?,
                Ok(Then::Position) => {}
                Err(error) => {
                    if self.unread.problem(error.to_string()) {
                        tracing::error!(%error, "file has changed");
                    }
                }
            }
        }
        Ok(found.shards)
    }

    pub(super) fn place_of(&self, shard: &ShardId) -> String {
        format!("shard {shard} of stream {}", self.stream)
    }

    fn key(&self, shard: &ShardId) -> ShardKey {
        ShardKey::new(self.stream.clone(), shard.clone())
    }

    fn loss(&self, shard: &ShardId, kind: LossKind, problem: String) -> Loss {
        let found_at = format_rfc3339(self.config.clock.now_ms());
        Loss { stream: self.stream.clone(), shard: shard.clone(), kind, problem, found_at }
    }

    /// What somebody decided about an unclear file. As long as nobody has, it is an error.
    pub(super) async fn unclear(&self, shard: &ShardId, problem: &str) -> Result<Then, SourceError> {
        let key = self.key(shard);
        let known =
            losses::find(&*self.lake, &key, LossKind::Unclear).await.map_err(|error| self.catalog.error(&error))?;
        match known {
            Some((_, Some(then))) => Ok(then),
            Some((loss, None)) => Err(self.undecided(shard, &loss.problem)),
            None => {
                let loss = self.loss(shard, LossKind::Unclear, problem.to_owned());
                losses::report(&*self.lake, &loss).await.map_err(|error| self.catalog.error(&error))?;
                Err(self.undecided(shard, problem))
            }
        }
    }

    /// A new uncertainty about a file, whatever was decided before.
    pub(super) async fn report_unclear(&self, shard: &ShardId, problem: &str) -> Result<SourceError, SourceError> {
        let loss = self.loss(shard, LossKind::Unclear, problem.to_owned());
        losses::report(&*self.lake, &loss).await.map_err(|error| self.catalog.error(&error))?;
        Ok(self.undecided(shard, problem))
    }

    fn undecided(&self, shard: &ShardId, problem: &str) -> SourceError {
        let problem = format!(
            "{problem}. If it is another file now, run `shardlake losses accept '{shard}' --then start`: it is read from its start. If it \
             was restored, use `--then position`: reading continues where it was"
        );
        SourceError::Unreadable { place: self.place_of(shard), problem }
    }

    /// Bytes of a shard are gone. It is reported once.
    pub(super) async fn lost(&self, shard: &ShardId, problem: &str) -> Result<(), SourceError> {
        let key = self.key(shard);
        if losses::find(&*self.lake, &key, LossKind::Lost).await.map_err(|error| self.catalog.error(&error))?.is_some()
        {
            return Ok(());
        }
        losses::announce();
        tracing::error!(stream = %self.stream, %shard, "DATA LOSS: {problem}");
        let loss = self.loss(shard, LossKind::Lost, problem.to_owned());
        losses::report(&*self.lake, &loss).await.map_err(|error| self.catalog.error(&error))?;
        self.unread.problem(format!("DATA LOSS: {shard}: {problem}"));
        Ok(())
    }
}
