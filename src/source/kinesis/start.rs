//! Where the reading of a stream starts: recorded once, permanently, in an object of the lake.
//!
//! `latest` would mean another time at each restart, and what arrived in between would never be read. So the first worker that opens
//! the stream records what it means: a time of the service, since a worker's own clock may be ahead. Every worker, including this one, uses what is recorded:
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

use crate::lake::{LakeError, ObjectKey, ObjectStore};
use crate::retry::{Retry, RetryPolicy};
use crate::source::SourceError;
use crate::source::kinesis::identity::{DATE_MARGIN_MS, Identity};

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

/// The object in the lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Settled {
    format: u32,
    stream: StreamName,
    arn: String,
    created_ms: i64,
    start: Position,
}

/// Where this stream's reading starts, by the object in the lake. The object is written if there is none. `now_ms`: the time of the
/// service, if it said so.
pub(super) async fn settle(
    lake: &Arc<dyn ObjectStore>,
    now_ms: Option<i64>,
    stream: &StreamName,
    identity: &Identity,
    start: Start,
    retry: RetryPolicy,
) -> Result<Position, SourceError> {
    let place = format!("stream {stream}");
    let unreadable = |problem: String| SourceError::Unreadable { place: place.clone(), problem };
    let now = now_ms.map(|now_ms| u64::try_from(now_ms).unwrap_or(0));
    // A time has whole seconds, and hosts of the service differ by a little. What arrives after the start must not be passed over.
    let latest = now.map(|now| Position::Since { ms: now.saturating_sub(DATE_MARGIN_MS.unsigned_abs()) });
    let wanted = match start {
        Start::TrimHorizon => Some(Position::Beginning),
        Start::Latest => latest,
        Start::At { ms } if now.is_some_and(|now| ms > now + 1_000 + DATE_MARGIN_MS.unsigned_abs()) => {
            return Err(unreadable(format!("its start, {ms} ms since 1970, is in the future")));
        }
        Start::At { ms } => Some(Position::Since { ms }),
    };
    let key = key(stream);
    let retry = Retry::new(retry, "the lake");
    let failed = |error| failed(&place, &error);
    // Read first: a worker may have permission to read the object only.
    let mut stored = retry.run(|| lake.get(&key)).await.map_err(failed)?;
    if stored.is_none() {
        let Some(start) = wanted.clone() else {
            let problem =
                "the service did not say what time it is, so `latest` means nothing; write a time as the `start`";
            return Err(unreadable(problem.to_owned()));
        };
        let Identity { arn, created_ms } = identity.clone();
        let new = Settled { format: FORMAT, stream: stream.clone(), arn, created_ms, start };
        let bytes = Bytes::from(serde_json::to_vec(&new).expect("texts and numbers are JSON"));
        // The first writer wins. It may be this worker itself, in a request whose response was lost.
        retry.run(|| lake.put_new(&key, bytes.clone())).await.map_err(failed)?;
        stored = retry.run(|| lake.get(&key)).await.map_err(failed)?;
    }
    let Some(stored) = stored else {
        return Err(unreadable(format!("{key} was written to the lake and does not exist")));
    };
    let settled = Settled::read(&stored, stream, identity)?;
    let changed = match start {
        // The time of the first start is long past.
        Start::Latest => settled.start == Position::Beginning,
        Start::TrimHorizon | Start::At { .. } => Some(&settled.start) != wanted.as_ref(),
    };
    if changed {
        tracing::warn!(%stream, start = %settled.start, "the stream's start was recorded before; the configured start has no effect");
    }
    match settled.start {
        start @ (Position::Beginning | Position::Since { .. }) => Ok(start),
        start => Err(unreadable(format!("{key} in the lake says {start}, which is not a valid start"))),
    }
}

/// Checks that this is the stream that the lake has under its name, if the lake has one. Writes nothing.
pub(super) async fn check(
    lake: &Arc<dyn ObjectStore>,
    stream: &StreamName,
    identity: &Identity,
) -> Result<(), SourceError> {
    let key = key(stream);
    let stored = RetryPolicy::CALL.run("the lake", || lake.get(&key)).await;
    match stored.map_err(|error| failed(&format!("stream {stream}"), &error))? {
        Some(stored) => Settled::read(&stored, stream, identity).map(drop),
        None => Ok(()),
    }
}

impl Settled {
    /// Reads the object, and checks that it is of this stream.
    fn read(stored: &[u8], stream: &StreamName, identity: &Identity) -> Result<Self, SourceError> {
        let place = format!("stream {stream}");
        let unreadable = |problem: String| SourceError::Unreadable { place: place.clone(), problem };
        let key = key(stream);
        let settled: Settled = serde_json::from_slice(stored)
            .map_err(|error| unreadable(format!("{key} in the lake is damaged, or has another version: {error}")))?;
        if settled.format != FORMAT || settled.stream != *stream {
            let Settled { format, stream, .. } = settled;
            return Err(unreadable(format!("{key} in the lake has format {format} and is for stream {stream}")));
        }
        let known = Identity { arn: settled.arn.clone(), created_ms: settled.created_ms };
        if known.is(identity) { Ok(settled) } else { Err(known.replaced_by(identity, &place)) }
    }
}

fn failed(place: &str, error: &LakeError) -> SourceError {
    let (place, problem) = (place.to_owned(), error.to_string());
    if error.is_retryable() {
        SourceError::Unavailable { place, problem }
    } else {
        SourceError::Unreadable { place, problem }
    }
}

fn key(stream: &StreamName) -> ObjectKey {
    ObjectKey::new(layout::stream_start(stream.as_str())).expect("an escaped name is a valid segment")
}

#[cfg(test)]
#[path = "tests/start.rs"]
mod tests;
