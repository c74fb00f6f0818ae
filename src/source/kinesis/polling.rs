//! A shard that is read by polling.
//!
//! Owns: iterators, how many records to request, and handling failed calls. Does not own: the rate of the calls (`pace`), the form
//! of a response (`answer`, `decode`), the position (`cursor`).
//!
//! What a read returns:
//!
//! | the service's response | the read |
//! |---|---|
//! | records | a chunk; then the end, if no iterator follows |
//! | no records, and the tip is further ahead | empty: the next read uses the new iterator |
//! | no records, at the tip | the tip |
//! | no records, and no iterator follows | the end |
//! | throttling, or a failed call that may succeed later | a failed read; [`ready`](ShardReader::ready) waits longer each time |
//! | the iterator is too old or rejected | the same, and a new iterator after the last record |
//! | there is no such shard, but others of the same stream | the end, and an error in the log: its last records expired unread |
//! | there is no such stream, or it is another one | an error (`identity`) |
//! | everything that was there at the start was read, and reading ends there | the tip |
//!
//! The reader holds no memory while it waits. How long a shard may fail is up to the reader's task (`worker::reader`), which counts what
//! is not progress. So the waits go on growing, and nothing here begins again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::ShardId;

use crate::retry::Retryable;
use crate::source::kinesis::Stream;
use crate::source::kinesis::answer::Answer;
use crate::source::kinesis::batch::Batch;
use crate::source::kinesis::cursor::{Begin, Cursor};
use crate::source::kinesis::identity::DATE_MARGIN_MS;
use crate::source::kinesis::pace::Pace;
use crate::source::kinesis::requests;
use crate::source::kinesis::service::Failure;
use crate::source::kinesis::shards::list;
use crate::source::losses;
use crate::source::{Behind, Read, ShardReader, SourceError};

/// Records that are requested before their size is known.
const FIRST_LIMIT: i32 = 100;
/// The most records of a request.
const LIMIT_MAX: usize = 10_000;
/// After so many failures in a row another iterator is requested, and a rejected iterator is not requested again.
const FAILURES_MAX: u32 = 4;

/// By how much a record may become readable after its time of arrival, and the service's times may differ. At the tip it is only known
/// of records that arrived this long before the request that all of them were returned.
const TIP_MARGIN_MS: i64 = 10_000;

/// Reads a shard by polling.
pub(super) struct PollingReader {
    stream: Arc<Stream>,
    shard: ShardId,
    cursor: Cursor,
    pace: Pace,
    iterator: Option<String>,
    /// Mean bytes of a record; `None` before the first.
    record_bytes: Option<usize>,
    /// The least distance from the tip that a response without records has shown, since the last record.
    behind_least: Option<i64>,
    /// Set at the shard's end.
    children: Option<Vec<ShardId>>,
    /// Everything that arrived before this time was returned, if the last response was from the tip.
    tip_as_of_ms: Option<i64>,
    /// What the last response said about its distance from the tip, in milliseconds.
    behind_ms: Option<i64>,
}

impl PollingReader {
    pub(super) fn new(stream: Arc<Stream>, shard: ShardId, cursor: Cursor) -> Self {
        let pace = Pace::new(stream.config.limits, &shard);
        PollingReader {
            stream,
            shard,
            cursor,
            pace,
            iterator: None,
            record_bytes: None,
            behind_least: None,
            children: None,
            tip_as_of_ms: None,
            behind_ms: None,
        }
    }

    /// The progress of reading.
    pub(super) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Whether the shard was read to its end.
    pub(super) fn has_ended(&self) -> bool {
        self.children.is_some()
    }

    fn limit(&self, bytes: usize) -> i32 {
        let limit = self.record_bytes.map(|mean| (bytes / mean.max(1)).clamp(1, LIMIT_MAX));
        limit.and_then(|limit| i32::try_from(limit).ok()).unwrap_or(FIRST_LIMIT)
    }

    async fn request(&mut self, bytes: usize, buffer: Vec<u8>) -> Result<Answer, Failure> {
        let iterator = match &self.iterator {
            Some(iterator) => iterator.clone(),
            None => {
                let iterator = self.stream.iterator(&self.shard, self.cursor.begin()).await?;
                self.cursor.begun(self.stream.now_ms() - DATE_MARGIN_MS);
                self.iterator.insert(iterator).clone()
            }
        };
        let batch = Batch::new(buffer, self.cursor.position().clone(), self.stream.config.whole_record_bytes_max());
        self.stream.records.get_records(&iterator, self.limit(bytes), batch).await
    }

    fn on_answer(&mut self, answer: Answer) -> Read {
        let Answer { batch, envelope } = answer;
        self.behind_ms = Some(envelope.behind_ms);
        let (records, bytes) = (batch.records(), batch.bytes());
        self.pace.read(bytes);
        if let Some(mean) = bytes.checked_div(records) {
            let mean = usize::try_from(mean).unwrap_or(usize::MAX);
            // A larger mean counts at once, so that a response is not much larger than requested.
            self.record_bytes = Some(self.record_bytes.map_or(mean, |before| mean.max(before / 2 + mean / 2)));
        }
        self.cursor.read(&batch, &self.stream.name, &self.shard);
        self.iterator = envelope.next.filter(|next| !next.is_empty());
        if self.iterator.is_none() {
            let children = envelope.children.into_iter().filter_map(|child| ShardId::new(child).ok());
            let children = self.children.insert(children.collect());
            if records == 0 {
                return Read::End { children: children.clone() };
            }
        } else if records == 0 && envelope.behind_ms <= 0 {
            return Read::AtTip;
        } else if records == 0 {
            return Read::Empty { moved: is_nearer(&mut self.behind_least, envelope.behind_ms) };
        }
        self.behind_least = None;
        let through = batch.through();
        Read::Chunk { chunk: self.stream.chunk(&self.shard, batch), through, source_bytes: bytes }
    }

    /// The stream no longer has the shard, if it is still the same stream. If it lists others, the shard's records expired, and the last of them were not
    /// read. That is logged, and reading continues with its children, whose records would be lost next.
    async fn on_forgotten(&mut self, message: String) -> Result<Read, SourceError> {
        self.stream.watch.suspect();
        self.stream.is_same().await?;
        let Stream { retrying_client, config, start, .. } = &*self.stream;
        let place = self.stream.place(&self.shard);
        let shards = list(retrying_client, &config.stream, start).await.map_err(|failure| failure.at(&place))?;
        if shards.is_empty() || shards.iter().any(|shard| shard.id == self.shard) {
            return Err(Failure::Forgotten(message).at(&place));
        }
        let position = self.cursor.position();
        losses::announce();
        tracing::error!(stream = %self.stream.name, shard = %self.shard, %position, "DATA LOSS: records expired before they were read (stream retention)");
        self.children = Some(Vec::new());
        Ok(Read::End { children: Vec::new() })
    }

    /// Waits longer before the next read, or returns the failure if it will not pass.
    fn on_failure(&mut self, failure: Failure) -> Result<Read, SourceError> {
        let times = self.pace.failed();
        let is_rejected = matches!(failure, Failure::Invalid(_)) && self.iterator.is_some() && times < FAILURES_MAX;
        if !failure.is_retryable() && !is_rejected {
            return Err(failure.at(&self.stream.place(&self.shard)));
        }
        // The service does not know a rejected iterator: another process of it issued the iterator.
        if is_rejected || matches!(failure, Failure::Expired(_)) || times.is_multiple_of(FAILURES_MAX) {
            self.iterator = None;
        }
        tracing::debug!(stream = %self.stream.name, shard = %self.shard, times, %failure, "failed to read shard; retrying");
        let is_normal = is_rejected || matches!(failure, Failure::Throttled(_) | Failure::Expired(_));
        let (place, problem) = (self.stream.place(&self.shard), failure.to_string());
        Ok(Read::Failed { error: SourceError::Unavailable { place, problem }, is_normal })
    }
}

/// What a response says about the distance from the tip.
pub(super) fn behind(ms: i64) -> Behind {
    u64::try_from(ms).ok().filter(|ms| *ms > 0).map_or(Behind::Nothing, Behind::Time)
}

/// Whether a response is nearer to the tip than any before it. Remembers the nearest.
pub(super) fn is_nearer(least: &mut Option<i64>, behind_ms: i64) -> bool {
    let is_nearer = least.is_none_or(|least| behind_ms < least);
    if is_nearer {
        *least = Some(behind_ms);
    }
    is_nearer
}

#[async_trait]
impl ShardReader for PollingReader {
    async fn ready(&mut self, idle: Duration) {
        if self.stream.is_past_goal(self.cursor.newest_ms()) && self.children.is_none() {
            return tokio::time::sleep(idle).await;
        }
        self.pace.wait(idle).await;
    }

    async fn read(&mut self, bytes: usize, buffer: Vec<u8>) -> Result<Read, SourceError> {
        if let Some(children) = &self.children {
            return Ok(Read::End { children: children.clone() });
        }
        self.tip_as_of_ms = None;
        if self.stream.is_past_goal(self.cursor.newest_ms()) {
            return Ok(Read::AtTip);
        }
        if self.stream.watch.is_suspect() {
            self.stream.is_same().await?;
        }
        // The service's time, before the request: the response may take long.
        let asked_ms = self.stream.clock.now_ms();
        match self.request(bytes, buffer).await {
            Ok(answer) => {
                let read = self.on_answer(answer);
                let is_tip = matches!(read, Read::AtTip);
                self.tip_as_of_ms = asked_ms.filter(|_| is_tip).map(|ms| ms - DATE_MARGIN_MS - TIP_MARGIN_MS);
                Ok(read)
            }
            Err(Failure::Forgotten(message) | Failure::NotFound(message)) => self.on_forgotten(message).await,
            Err(failure @ Failure::Refused(_)) => {
                // A position that is not in its shard may be of another stream.
                self.stream.is_same().await?;
                self.on_failure(failure)
            }
            Err(failure) => self.on_failure(failure),
        }
    }

    fn tip_as_of_ms(&self) -> Option<i64> {
        self.tip_as_of_ms
    }

    fn behind(&self) -> Option<Behind> {
        self.behind_ms.map(behind)
    }
}

impl Stream {
    /// An iterator of a shard.
    pub(super) async fn iterator(&self, shard: &ShardId, begin: &Begin) -> Result<String, Failure> {
        let call = requests::shard_iterator(&self.client, &self.config.stream).shard_id(shard.as_str());
        let call = call.shard_iterator_type(begin.kind()).set_starting_sequence_number(begin.sequence());
        let answer = call.set_timestamp(begin.time()).customize().interceptor(self.clock.clone()).send().await;
        let answer = answer.map_err(|error| match Failure::of("GetShardIterator", &error) {
            Failure::NotFound(message) => Failure::Forgotten(message),
            failure => begin.refused(failure),
        })?;
        answer.shard_iterator.ok_or_else(|| Failure::Unavailable("GetShardIterator: no iterator".to_owned()))
    }
}
