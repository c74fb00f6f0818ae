//! Until when a checkpoint can be used: as long as the records after its positions are in their streams.
//!
//! Owns: the time, and when it counts as near. Does not own: how long a stream keeps records (`source`), printing and logging.
//!
//! A stream removes a record some time after its arrival (Kinesis: 24 hours to 365 days). A checkpoint is usable until the oldest record
//! that was not read when it was saved is removed. After that, a replay from it lacks records, which only `raw/` has.
//!
//! The time is counted from when the checkpoint's object was written, by the clock of the lake's store, or from its own time if that is
//! earlier. So a wrong clock of a machine cannot make a checkpoint look usable for too long. Without the age of the oldest unread record
//! (the stream could not be asked, or an earlier version saved it) the result is the latest possible time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use checkpoints::StreamName;
use pipeline::time::format_rfc3339;
use serde::{Serialize, Serializer};

use crate::commit::{CheckpointName, CheckpointSummary, SavedBy, list_checkpoints};
use crate::lake::{LakeError, ObjectStore};
use crate::source::ShardSource;

/// A checkpoint is near its end this long before it, or during the last quarter of the retention if that is shorter.
const NEAR: Duration = Duration::from_secs(24 * 3600);

/// How long each stream keeps its records. Streams that keep them whatever their age are not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retentions(BTreeMap<StreamName, Duration>);

/// Until when a checkpoint can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usable {
    /// The time: milliseconds since 1970-01-01 UTC, in JSON RFC 3339.
    #[serde(rename = "usable_until", serialize_with = "as_time")]
    pub until_ms: i64,
    /// Whether it may be earlier.
    #[serde(rename = "usable_until_is_at_most")]
    pub is_at_most: bool,
    /// The stream that removes records then.
    pub stream: StreamName,
    /// How long the stream keeps records.
    #[serde(skip)]
    pub retention: Duration,
}

/// Whether a checkpoint can be used at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Usability {
    /// For some time.
    Usable,
    /// Not for long.
    Expiring,
    /// Records after its positions are removed from their stream.
    Expired,
}

/// A saved checkpoint that can soon not be used any more, or cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndingCheckpoint {
    /// Its name.
    pub name: CheckpointName,
    /// Until when it can be used.
    #[serde(flatten)]
    pub usable: Usable,
    /// Whether it can be used now.
    pub usability: Usability,
}

/// The checkpoints that people have saved and that end soon or have ended, by what these streams say. Those of the schedule are left
/// out: others follow them. Reads no checkpoint if no stream removes records by their age. `now_ms` is in milliseconds since 1970.
///
/// # Errors
/// The lake fails.
pub async fn ending_checkpoints(
    lake: &dyn ObjectStore,
    sources: &[Arc<dyn ShardSource>],
    now_ms: i64,
) -> Result<Vec<EndingCheckpoint>, LakeError> {
    let retentions = Retentions::ask(sources).await;
    if retentions.is_empty() {
        return Ok(Vec::new());
    }
    let (checkpoints, _) = list_checkpoints(lake).await?;
    let saved_by_people = checkpoints.into_iter().filter(|one| one.saved_by == SavedBy::Command);
    let ending = saved_by_people.filter_map(|one| {
        let usable = Usable::of(&one, &retentions)?;
        let usability = usable.at(now_ms);
        (usability != Usability::Usable).then_some(EndingCheckpoint { name: one.name, usable, usability })
    });
    Ok(ending.collect())
}

impl Retentions {
    /// Asks each stream. Those that cannot be asked are left out, and why is logged.
    pub async fn ask(sources: &[Arc<dyn ShardSource>]) -> Self {
        let mut retentions = BTreeMap::new();
        for source in sources {
            match source.retention().await {
                Ok(Some(retention)) => drop(retentions.insert(source.stream().clone(), retention)),
                Ok(None) => {}
                Err(error) => {
                    let stream = source.stream();
                    tracing::warn!(%stream, %error, "cannot tell how long the stream keeps its records");
                }
            }
        }
        Retentions(retentions)
    }

    /// How long a stream keeps its records, if that is limited and known.
    pub fn of(&self, stream: &StreamName) -> Option<Duration> {
        self.0.get(stream).copied()
    }

    /// Whether no stream is known to remove records by their age.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(StreamName, Duration)> for Retentions {
    fn from_iter<T: IntoIterator<Item = (StreamName, Duration)>>(all: T) -> Self {
        Retentions(all.into_iter().collect())
    }
}

impl Usable {
    /// Until when a checkpoint can be used. `None`: no stream removes a record that comes after it, by what is known.
    pub fn of(checkpoint: &CheckpointSummary, retentions: &Retentions) -> Option<Self> {
        let saved_ms = checkpoint.saved_at_ms.min(checkpoint.stored_at_ms);
        let of_stream = |stream: &StreamName| {
            let retention = retentions.of(stream)?;
            let behind_ms = checkpoint.behind_ms.get(stream).copied();
            let left_ms = millis(retention).saturating_sub(i64::try_from(behind_ms.unwrap_or(0)).unwrap_or(i64::MAX));
            let (until_ms, is_at_most) = (saved_ms.saturating_add(left_ms), behind_ms.is_none());
            Some(Usable { until_ms, is_at_most, stream: stream.clone(), retention })
        };
        checkpoint.unfinished.iter().filter_map(of_stream).min_by_key(|usable| usable.until_ms)
    }

    /// Whether the checkpoint can be used at `now_ms`, in milliseconds since 1970.
    pub fn at(&self, now_ms: i64) -> Usability {
        let near_ms = millis(NEAR.min(self.retention / 4));
        match self.until_ms.saturating_sub(now_ms) {
            ..=0 => Usability::Expired,
            left_ms if left_ms <= near_ms => Usability::Expiring,
            _ => Usability::Usable,
        }
    }

    /// The time as people read it.
    pub fn until(&self) -> String {
        format!("{}{}", if self.is_at_most { "at most " } else { "" }, format_rfc3339(self.until_ms))
    }

    /// What to do about it, as a sentence.
    pub fn advice(&self) -> String {
        format!(
            "replay from it before then, raise the retention of stream {}, or keep raw/, from which older records can be replayed",
            self.stream
        )
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn as_time<S: Serializer>(ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_rfc3339(*ms))
}
