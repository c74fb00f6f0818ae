//! Objects of the `raw/` of a lake among others: their records keep their first identities.
//!
//! Owns: reading such an object, and where it is read as a text instead. Does not own: cutting it (`text::identified`), which object is next.

use bytes::Bytes;

use super::{CHANGED, GONE, ObjectsReader, PART_BYTES};
use crate::source::objects::store::{Object, Part};
use crate::source::text::identified::{Groups, IdentifiedText, Step};
use crate::source::{Read, SourceError};

/// An object of `raw/`, whose lines have identities.
pub(super) struct RawObject {
    object: Object,
    /// Its first bytes, in case it must be read as a text.
    first: Bytes,
    text: IdentifiedText,
    /// Offset of the next part.
    at: u64,
    groups: Option<Groups>,
    /// Bytes of it that were read and not reported.
    source_bytes: u64,
}

impl RawObject {
    /// An object whose first bytes were read, of which the lines before `offset` were read before.
    pub(super) fn new(object: Object, first: Bytes, offset: u64, record_bytes_max: usize) -> Self {
        let text = IdentifiedText::new(offset, record_bytes_max);
        let mut raw = RawObject { object, first: first.clone(), text, at: 0, groups: None, source_bytes: 0 };
        raw.give(first);
        raw
    }

    fn give(&mut self, bytes: Bytes) {
        self.at += bytes.len() as u64;
        self.source_bytes += bytes.len() as u64;
        self.text.give(bytes);
        if self.at >= self.object.bytes {
            self.text.end();
        }
    }
}

impl ObjectsReader {
    /// The next chunk of the open object with identities, which has records of one shard. `None` if the object gives none now: it has
    /// ended, was lost, or is read as a text from here on.
    pub(super) async fn read_raw(&mut self) -> Result<Option<Read>, SourceError> {
        while let Some(raw) = &mut self.raw {
            if let Some(groups) = &mut raw.groups {
                if let Some((chunk, through)) = groups.next() {
                    (self.offset, self.groups_read) = groups.at();
                    let source_bytes = std::mem::take(&mut raw.source_bytes);
                    return Ok(Some(Read::Chunk { chunk, through, source_bytes }));
                }
                raw.groups = None;
            }
            match raw.text.step() {
                Step::Busy => tokio::task::yield_now().await,
                Step::NeedsBytes => {
                    let range = raw.at..(raw.at + PART_BYTES).min(raw.object.bytes);
                    match self.shared.place.get(&raw.object, Some(range)).await? {
                        Part::Bytes(bytes) => raw.give(bytes),
                        Part::Gone => return self.lose_raw(GONE).await.map(|()| None),
                        Part::Changed => return self.lose_raw(CHANGED).await.map(|()| None),
                    }
                }
                Step::Piece(piece) => {
                    let groups_read = std::mem::take(&mut self.groups_read);
                    raw.groups = Some(piece.into_groups(self.number, groups_read));
                }
                Step::Ended => {
                    self.raw = None;
                    self.begin_next();
                }
                Step::Stopped { offset, problem } => {
                    let stream = &self.shared.stream;
                    // A key may hold personal data: the number says which object it is.
                    tracing::warn!(%stream, shard = %self.shard, number = self.number, offset, %problem, "a raw object has no identities");
                    self.shared.report.problem(format!(
                        "stream {stream}: a raw object has no identities from some byte on: the records there have the identity of the object"
                    ));
                    (self.offset, self.groups_read) = (self.offset.max(offset), 0);
                    let Some(RawObject { object, first, .. }) = self.raw.take() else { break };
                    self.open_text(object, first).await?;
                }
            }
        }
        Ok(None)
    }

    async fn lose_raw(&mut self, problem: &'static str) -> Result<(), SourceError> {
        match self.raw.take() {
            Some(raw) => self.lose(&raw.object, problem).await,
            None => Ok(()),
        }
    }
}
