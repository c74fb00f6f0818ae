//! Where the reading of a stream starts: recorded once, permanently, in an object of the lake.
//!
//! `latest` would mean another time at each restart, and what arrived in between would never be read. So the first worker that opens
//! the stream records what it means. Every worker, including this one, uses what is recorded:
//!
//! ```json
//! {"format":1,"stream":"orders","arn":"arn:aws:kinesis:…:stream/orders","created_ms":1736764200000,
//!  "start":"AT_TIMESTAMP:1736764201000"}
//! ```
//!
//! The key is `_sources/<stream's name in the lake, escaped>.json`. The object also identifies the stream. A stream that was deleted
//! and created again has other records under the same name, and its shards would be mistaken for those that were read before.
//!
//! Owns: the object. Does not own: what a position means to a reader (`cursor`).

use std::sync::Arc;

use bytes::Bytes;
use checkpoints::{Position, StreamName};
use pipeline::layout;
use serde::{Deserialize, Serialize};

use crate::clock::SharedClock;
use crate::lake::{LakeError, ObjectKey, ObjectStore};
use crate::retry::{Retry, RetryPolicy};
use crate::source::SourceError;

/// The format's number.
const FORMAT: u32 = 1;

/// Where the first reading of a stream starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the oldest record of the stream.
    TrimHorizon,
    /// With what arrives after the first start of all.
    Latest,
    /// With the first record that arrived at this time or later.
    At {
        /// Milliseconds since 1970.
        ms: u64,
    },
}

/// The identity of the stream, as the service describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) arn: String,
    /// Milliseconds since 1970.
    pub(super) created_ms: i64,
}

/// The object in the lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Settled {
    format: u32,
    stream: StreamName,
    arn: String,
    created_ms: i64,
    start: Position,
}

/// Where this stream's reading starts, by the object in the lake. The object is written if there is none.
pub(super) async fn settle(
    lake: &Arc<dyn ObjectStore>,
    clock: &SharedClock,
    stream: &StreamName,
    identity: &Identity,
    start: Start,
    retry: RetryPolicy,
) -> Result<Position, SourceError> {
    let place = format!("stream {stream}");
    let unreadable = |problem: String| SourceError::Unreadable { place: place.clone(), problem };
    let failed = |error: LakeError| {
        let (place, problem) = (place.clone(), error.to_string());
        if error.is_retryable() {
            SourceError::Unavailable { place, problem }
        } else {
            SourceError::Unreadable { place, problem }
        }
    };
    let now = u64::try_from(clock.now_ms()).unwrap_or(0);
    let wanted = match start {
        Start::TrimHorizon => Position::Beginning,
        Start::Latest => Position::Since { ms: now },
        Start::At { ms } if ms > now => {
            return Err(unreadable(format!("its start, {ms} ms since 1970, is in the future")));
        }
        Start::At { ms } => Position::Since { ms },
    };
    let Identity { arn, created_ms } = identity.clone();
    let new = Settled { format: FORMAT, stream: stream.clone(), arn, created_ms, start: wanted.clone() };
    let bytes = Bytes::from(serde_json::to_vec(&new).expect("texts and numbers are JSON"));
    let key = key(stream);
    let retry = Retry::new(retry, "the lake");
    // Read first: a worker may have permission to read the object only.
    let mut stored = retry.run(|| lake.get(&key)).await.map_err(failed)?;
    if stored.is_none() {
        // The first writer wins. It may be this worker itself, in a request whose response was lost.
        retry.run(|| lake.put_new(&key, bytes.clone())).await.map_err(failed)?;
        stored = retry.run(|| lake.get(&key)).await.map_err(failed)?;
    }
    let Some(stored) = stored else {
        return Err(unreadable(format!("{key} was written to the lake and does not exist")));
    };
    let settled: Settled = serde_json::from_slice(&stored)
        .map_err(|error| unreadable(format!("{key} in the lake is damaged, or has another version: {error}")))?;
    if settled.format != FORMAT || settled.stream != *stream {
        let Settled { format, stream, .. } = settled;
        return Err(unreadable(format!("{key} in the lake has format {format} and is for stream {stream}")));
    }
    // In seconds, as in KCL: not every service keeps more.
    if settled.arn != identity.arn || settled.created_ms / 1000 != identity.created_ms / 1000 {
        return Err(unreadable(format!(
            "the lake has another stream with this name, {} created at {} ms since 1970; this one is {} created at {}. A stream \
             that was recreated needs another `name` in the configuration",
            settled.arn, settled.created_ms, identity.arn, identity.created_ms
        )));
    }
    let changed = match start {
        // The time of the first start is long past.
        Start::Latest => settled.start == Position::Beginning,
        Start::TrimHorizon | Start::At { .. } => settled.start != wanted,
    };
    if changed {
        tracing::warn!(%stream, start = %settled.start, "the stream's start was recorded before; the configured start has no effect");
    }
    match settled.start {
        start @ (Position::Beginning | Position::Since { .. }) => Ok(start),
        start => Err(unreadable(format!("{key} in the lake says {start}, which is not a valid start"))),
    }
}

fn key(stream: &StreamName) -> ObjectKey {
    ObjectKey::new(layout::stream_start(stream.as_str())).expect("an escaped name is a valid segment")
}

#[cfg(test)]
#[path = "tests/start.rs"]
mod tests;
