//! What the page shows of the log of the lake, read entry by entry as it grows.
//!
//! Owns: the sums, the newest commits and files, the last hour by minute, and where the newest dead letters are. Does not own: the log
//! (`commit::lake_log`).
//!
//! The first read begins at the newest snapshot; each later one lists what is after the version that is known. So a lake of any number of
//! commits costs one list while nothing is committed. What is kept is bounded.

use std::collections::{BTreeMap, VecDeque};

use pipeline::dead_letter::stored::StoredLines;
use pipeline::layout::Folder;
use pipeline::time::{format_rfc3339, parse_rfc3339};

use crate::commit::ObjectKind;
use crate::commit::lake_log::{Entry, HistoryError, LakeAt, extent, lake_at, read_backward};
use crate::inspect::LogLine;
use crate::lake::{ObjectKey, ObjectStore};
use crate::server::fleet::model::{DeadLetterCode, DeadLetterPosition, RecentFile};

/// Commits that are shown.
const COMMITS: usize = 20;
/// Files that are shown.
const FILES: usize = 30;
/// Entries of the last hour that the first read has at most.
const ENTRIES_MAX: usize = 500;
/// Minutes that are counted.
const MINUTES: i64 = 60;
/// Positions of dead letters that are shown of each code.
const POSITIONS: usize = 5;
/// The largest object of dead letters that is read for positions, and the bytes of its lines that are decompressed.
const OBJECT_MAX: u64 = 256 << 10;
const LINES_MAX: usize = 8 << 20;
/// Objects of dead letters that are read at a time.
const OBJECTS_AT_ONCE: usize = 8;

/// The log, as it is known.
#[derive(Default)]
pub(super) struct LogReader {
    at: Option<LakeAt>,
    pub(super) commits: VecDeque<LogLine>,
    pub(super) files: VecDeque<RecentFile>,
    /// Records and dead letters by minute since 1970.
    minutes: BTreeMap<i64, (u64, u64)>,
    codes: BTreeMap<String, Code>,
}

/// What is known of the dead letters of a code.
#[derive(Default)]
struct Code {
    by_minute: BTreeMap<i64, u64>,
    /// The newest object and its size, if its positions were not read.
    unread: Option<(ObjectKey, u64)>,
    positions: Vec<DeadLetterPosition>,
}

/// What is kept of an entry. It has few of the entry's objects.
struct Summary {
    line: LogLine,
    files: Vec<RecentFile>,
    written_ms: i64,
    dead_letters: BTreeMap<String, u64>,
    errors: Vec<(String, ObjectKey, u64)>,
}

impl Summary {
    fn of(entry: &Entry) -> Option<Self> {
        let line = LogLine::of(entry, None)?;
        let files = entry.added.iter().take(FILES).map(|object| RecentFile {
            key: object.key.to_string(),
            kind: object.kind,
            dataset: object.dataset.clone(),
            rows: object.rows,
            bytes: object.bytes,
            version: entry.version.0,
            entered_at: entry.entered_at.clone(),
        });
        let error = |key: &ObjectKey| match Folder::parse(key.as_str().rsplit_once('/')?.0) {
            Ok(Folder::Error { code, .. }) => Some(code.to_string()),
            _ => None,
        };
        let errors = entry.added.iter().filter(|object| object.kind == ObjectKind::Error);
        let is_operation = entry.kind.is_operation();
        Some(Summary {
            files: files.collect(),
            written_ms: parse_rfc3339(entry.written_at.as_bytes()).unwrap_or_default(),
            dead_letters: if is_operation { BTreeMap::new() } else { entry.totals.dead_letters.clone() },
            errors: errors.filter_map(|object| Some((error(&object.key)?, object.key.clone(), object.bytes))).collect(),
            line,
        })
    }
}

impl LogReader {
    /// The sums of all entries that were read.
    pub(super) fn at(&self) -> Option<&LakeAt> {
        self.at.as_ref()
    }

    /// Reads what is new. `now_ms`: the time of day.
    ///
    /// # Errors
    /// The lake fails, or its log is damaged. What was read before stays.
    pub(super) async fn advance(&mut self, lake: &dyn ObjectStore, now_ms: i64) -> Result<(), HistoryError> {
        let mut summaries: Vec<Summary> = Vec::new();
        match &mut self.at {
            Some(at) => {
                let read = at.advance(lake, &mut |entry| summaries.extend(Summary::of(entry))).await;
                summaries.drain(..).for_each(|summary| self.add(summary));
                read?;
            }
            None => {
                let extent = extent(lake).await?;
                let at = lake_at(lake, &extent, extent.newest).await?;
                read_backward(lake, extent.newest, &extent, &mut |entry| {
                    summaries.extend(Summary::of(&entry));
                    let is_recent = |summary: &Summary| summary.written_ms >= now_ms - MINUTES * 60_000;
                    let wants_more = summaries.len() < COMMITS || summaries.last().is_some_and(is_recent);
                    wants_more && summaries.len() < ENTRIES_MAX
                })
                .await?;
                self.at = Some(at);
                summaries.into_iter().rev().for_each(|summary| self.add(summary));
            }
        }
        self.forget_before(now_ms);
        Ok(())
    }

    fn add(&mut self, summary: Summary) {
        let minute = summary.written_ms.div_euclid(60_000);
        let of_minute = self.minutes.entry(minute).or_default();
        of_minute.0 += summary.line.records;
        of_minute.1 += summary.dead_letters.values().sum::<u64>();
        for (code, count) in summary.dead_letters {
            *self.codes.entry(code).or_default().by_minute.entry(minute).or_default() += count;
        }
        for (code, key, bytes) in summary.errors {
            self.codes.entry(code).or_default().unread = Some((key, bytes));
        }
        for file in summary.files {
            self.files.push_front(file);
        }
        self.files.truncate(FILES);
        self.commits.push_front(summary.line);
        self.commits.truncate(COMMITS);
    }

    fn forget_before(&mut self, now_ms: i64) {
        let oldest = now_ms.div_euclid(60_000) - MINUTES;
        self.minutes.retain(|minute, _| *minute > oldest);
        self.codes.values_mut().for_each(|code| code.by_minute.retain(|minute, _| *minute > oldest));
    }

    /// Records and dead letters of the last minutes, the newest last. The minute that is not over is the last one.
    pub(super) fn by_minute(&self, now_ms: i64) -> (Vec<u64>, Vec<u64>) {
        let now = now_ms.div_euclid(60_000);
        (now - MINUTES + 1..=now).map(|minute| self.minutes.get(&minute).copied().unwrap_or_default()).unzip()
    }

    /// The dead letters in the lake, those of the last hour first.
    pub(super) fn dead_letters(&self) -> Vec<DeadLetterCode> {
        let Some(at) = &self.at else { return Vec::new() };
        let mut codes: Vec<DeadLetterCode> = at
            .fold
            .dead_letters()
            .into_iter()
            .map(|(code, days)| {
                let known = self.codes.get(&code);
                DeadLetterCode {
                    records: days.values().map(|day| day.records).sum(),
                    last_hour: known.map_or(0, |known| known.by_minute.values().sum()),
                    newest: known.map_or_else(Vec::new, |known| known.positions.clone()),
                    code,
                }
            })
            .collect();
        codes.sort_by_key(|code| std::cmp::Reverse((code.last_hour, code.records)));
        codes
    }

    /// Reads where the newest dead letters are. Of each only its position is kept.
    pub(super) async fn read_positions(&mut self, lake: &dyn ObjectStore) {
        let unread =
            self.codes.iter_mut().filter_map(|(name, code)| Some((name, code.unread.take()?, &mut code.positions)));
        for (name, (key, bytes), positions) in unread.take(OBJECTS_AT_ONCE) {
            if bytes > OBJECT_MAX {
                continue;
            }
            match lake.get(&key).await {
                // Decompressing would hold up a thread that waits for sockets.
                Ok(Some(bytes)) => {
                    let read = tokio::task::spawn_blocking(move || last_positions(&key, bytes));
                    *positions = read.await.unwrap_or_default();
                }
                // It was redriven or discarded meanwhile.
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, code = name, "cannot tell where the newest dead letters are"),
            }
        }
    }
}

/// The positions of the last dead letters of an object, the last one first.
fn last_positions(key: &ObjectKey, bytes: bytes::Bytes) -> Vec<DeadLetterPosition> {
    let mut last = VecDeque::new();
    let Ok(mut lines) = StoredLines::new(key.as_str(), bytes) else { return Vec::new() };
    let mut left = LINES_MAX;
    while let Ok(Some(line)) = lines.next_line() {
        let Some(rest) = left.checked_sub(line.bytes.len()) else { break };
        left = rest;
        let Some(letter) = line.dead_letter else { continue };
        last.push_front(DeadLetterPosition {
            stream: letter.stream.to_string(),
            shard: letter.shard.to_string(),
            sequence: letter.sequence.to_string(),
            sub: letter.sub_sequence,
            arrived_at: format_rfc3339(letter.arrival_ms),
        });
        last.truncate(POSITIONS);
    }
    last.into()
}
