//! The plan of a replay, as it is stored.
//!
//! Owns: the id of a replay, the format of its plan in both directions, saving, reading and listing plans; whether all its slices were
//! read to their ends. Does not own: making a plan (`planning`), running it (`run`), where its objects are (`pipeline::layout`).
//!
//! A plan is the object `_replays/plans/<id>.json`. It is written once and never changed, so that all processes of a replay do the same.
//! Plans are in a folder of their own: listing them does not list what the replays have written.
//!
//! | field | meaning |
//! |---|---|
//! | `format` | the version of this layout. No other is read |
//! | `id`, `purpose`, `made_at` | the name of the replay, what it is for, and when it was planned (RFC 3339) |
//! | `version` | the version of the lake log for which it was planned |
//! | `from`, `to` | the range as it was asked for |
//! | `into` | where the aside lake is, if not in its usual place |
//! | `streams`, `dataset` | the streams of which the range is read again; if only epochs with rows of one dataset, or with dead letters, are replaced: the dataset |
//! | `slices` | what is read, in parts that are shared out among the workers |
//! | `epochs` | the epochs that are replaced, sorted |
//! | `operations` | earlier operations whose objects are replaced with them, sorted |
//! | `superseded` | the objects that are live and will be removed |
//! | `widened` | the epochs that are replaced although the range has only a part of them, or none |
//! | `totals` | what the epochs had become |
//! | `definitions`, `made_by` | today's definitions by dataset; those by which the replaced rows were made |
//! | `warnings` | sentences for whoever starts it |
//! | `estimate` | how long it takes and what it costs, where that is known |

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use checkpoints::{Position, ShardId, StreamName};
use futures::{StreamExt, stream};
use pipeline::layout;
use serde::{Deserialize, Serialize};

use crate::commit::lake_log::{HistoryError, LogVersion};
use crate::commit::{DefinitionOfEpoch, EpochId, ObjectKind, replay_stream};
use crate::lake::{LakeError, ObjectKey, ObjectStore, Written};
use crate::replay::progress::AsideProgress;

/// The version of the stored form.
const FORMAT: u32 = 1;
/// Plans that are read at once.
const CONCURRENT: usize = 16;

/// The name of a replay: 8 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReplayId(String);

impl ReplayId {
    /// A new name from random bytes.
    pub fn from_random(random: [u8; 4]) -> Self {
        ReplayId(random.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of its plan.
    pub fn plan_key(&self) -> ObjectKey {
        ObjectKey::new(layout::replay_plan(&self.0)).expect("hex digits are a plain name")
    }

    /// The stream whose leases its workers hold.
    pub fn stream(&self) -> StreamName {
        replay_stream(&self.0)
    }
}

impl TryFrom<String> for ReplayId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_valid = text.len() == 8 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_valid { Ok(ReplayId(text)) } else { Err(format!("'{text}' is not a valid id: expected 8 hex digits")) }
    }
}

impl From<ReplayId> for String {
    fn from(id: ReplayId) -> String {
        id.0
    }
}

impl fmt::Display for ReplayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Rows are made again and replace the ones that are there.
    Replay,
    /// Rows are made again to be compared, and nothing is replaced.
    WhatIf,
}

/// What a replay reads, and what it replaces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The version of the stored form: [`Plan::FORMAT`].
    pub format: u32,
    /// The name of the replay.
    pub id: ReplayId,
    /// What it is for.
    pub purpose: Purpose,
    /// When it was planned, RFC 3339.
    pub made_at: String,
    /// The version of the lake log for which it was planned.
    pub version: LogVersion,
    /// Where the range begins, as it was asked for.
    pub from: String,
    /// Where the range ends, as it was asked for.
    pub to: String,
    /// The prefix of the aside lake, with a slash at its end, if it is not in its usual place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// The streams whose records are read again.
    pub streams: Vec<StreamName>,
    /// The only dataset whose rows are replaced; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// What is read, in parts.
    pub slices: Vec<Slice>,
    /// The epochs that are replaced, sorted.
    pub epochs: Vec<EpochId>,
    /// Earlier operations whose objects are replaced with them, sorted.
    #[serde(default)]
    pub operations: Vec<EpochId>,
    /// The objects that are live at [`version`](Self::version) and that promoting removes.
    pub superseded: Vec<SupersededObject>,
    /// The epochs that are replaced beyond the range that was asked for.
    #[serde(default)]
    pub widened: Vec<Widened>,
    /// What the epochs had become.
    pub totals: Totals,
    /// By dataset, the definition by which rows are made now.
    pub definitions: BTreeMap<String, DefinitionOfEpoch>,
    /// By dataset, the definitions by which the replaced rows were made.
    #[serde(default)]
    pub made_by: BTreeMap<String, Vec<DefinitionOfEpoch>>,
    /// Sentences for whoever starts it.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// How long it takes and what it costs.
    #[serde(default)]
    pub estimate: Estimate,
}

/// A part of what is read: a shard of the replay's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// Its name, such as `slice-00001`.
    pub id: ShardId,
    /// Records in it, as the epochs counted them.
    pub records: u64,
    /// Bytes that are read of it.
    pub bytes: u64,
    /// What is read.
    pub from: SliceOf,
}

/// Where the records of a slice are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SliceOf {
    /// In a shard of a configured stream.
    Stream {
        /// The stream.
        stream: StreamName,
        /// The shard.
        shard: ShardId,
        /// Where the slice starts; this position is not in it.
        after: Position,
        /// Where it ends; this position is in it.
        through: Position,
    },
    /// In raw objects of the lake, whose lines carry the identities of their records.
    Raw {
        /// The objects, in the order in which they are read.
        objects: Vec<ObjectKey>,
    },
}

/// A live object that promoting removes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupersededObject {
    /// Its key.
    pub key: ObjectKey,
    /// What it holds.
    pub kind: ObjectKind,
    /// The dataset of its rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// Rows or lines in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// An epoch that is replaced beyond the range that was asked for. An epoch is replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Widened {
    /// The epoch.
    pub epoch: EpochId,
    /// Why it is replaced as a whole.
    pub because: WidenedBecause,
    /// Its records.
    pub records: u64,
}

/// Why an epoch is replaced beyond the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WidenedBecause {
    /// It begins before the range.
    BeginsBefore,
    /// It ends after the range.
    EndsAfter,
    /// It has records of a stream or shard that was not asked for.
    OtherShards,
    /// Its rows are in one object with rows of another epoch, which an earlier operation made.
    SharesObjects,
}

/// What is read again, and what it had become.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Records of the epochs.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows by dataset.
    pub rows: BTreeMap<String, u64>,
    /// Dead letters.
    pub dead_letters: u64,
    /// Bytes that are read from raw objects or from objects of dead letters, as they are stored.
    pub bytes_from_objects: u64,
    /// Bytes that are read from streams.
    pub bytes_from_streams: u64,
}

/// How long a replay takes, and what it costs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Seconds; `None` if nothing is known to tell from.
    pub seconds: Option<u64>,
    /// The rate from which that follows: bytes of records a second and worker.
    pub bytes_per_second: Option<u64>,
    /// Where the rate is from, for people.
    #[serde(default)]
    pub rate_from: String,
    /// US dollars for requests of AWS; `None` if nothing of AWS is used.
    pub dollars: Option<f64>,
}

/// A plan, or an id, that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The lake fails.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// What is stored cannot be read.
    #[error("{key} cannot be read: {problem}")]
    Unreadable {
        /// Its key.
        key: ObjectKey,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no such replay.
    #[error("there is no replay '{0}': see `shardlake replay list`")]
    NoSuchReplay(String),
    /// Several ids begin like the text.
    #[error("'{text}' may be any of {}: give more of its digits", ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was given.
        text: String,
        /// The ids that begin so.
        ids: Vec<ReplayId>,
    },
}

impl PlanError {
    /// Whether the user can fix it by calling otherwise.
    pub fn is_usage(&self) -> bool {
        matches!(self, PlanError::NoSuchReplay(_) | PlanError::Ambiguous { .. })
    }
}

impl Plan {
    /// The version of the stored form that this version of Shardlake writes. It reads no other.
    pub const FORMAT: u32 = FORMAT;

    /// The prefix of all keys of the aside lake, with a slash at its end.
    pub fn aside_prefix(&self) -> String {
        self.into.clone().unwrap_or_else(|| layout::replay_lake(self.id.as_str()))
    }

    /// Whether a slice reads this stream.
    pub fn reads_stream(&self, name: &StreamName) -> bool {
        self.slices.iter().any(|slice| matches!(&slice.from, SliceOf::Stream { stream, .. } if stream == name))
    }

    /// The records of all slices.
    pub fn records(&self) -> u64 {
        self.slices.iter().map(|slice| slice.records).sum()
    }

    /// The bytes of all slices.
    pub fn bytes(&self) -> u64 {
        self.slices.iter().map(|slice| slice.bytes).sum()
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = serde_json::to_vec(self).expect("a plan has only text keys and finite numbers");
        bytes.push(b'\n');
        Bytes::from(bytes)
    }

    /// Reads a stored plan; `key` is where it was found.
    ///
    /// # Errors
    /// It is damaged, of another format, or of another replay than its key.
    pub fn from_bytes(key: &ObjectKey, bytes: &[u8]) -> Result<Self, PlanError> {
        #[derive(Deserialize)]
        struct AnyFormat {
            format: u32,
        }
        let unreadable = |problem: String| PlanError::Unreadable { key: key.clone(), problem };
        let AnyFormat { format } = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        if format != FORMAT {
            return Err(unreadable(format!(
                "it has format {format}, and this version of shardlake reads format {FORMAT} only; use a newer version"
            )));
        }
        let plan: Plan = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        if plan.id.plan_key() != *key {
            return Err(unreadable(format!("it is of replay {}", plan.id)));
        }
        // Whatever is in the aside lake may be deleted, so it is never the lake itself.
        if let Some(into) = &plan.into {
            check_into(into).map_err(unreadable)?;
        }
        Ok(plan)
    }
}

/// Checks the prefix of an aside lake, as in `reprocessed/2025/`.
///
/// # Errors
/// It is not a plain path with a slash at its end, or it belongs to the lake's own keys.
pub fn check_into(prefix: &str) -> Result<(), String> {
    let is_path = prefix.strip_suffix('/').is_some_and(|path| ObjectKey::new(path).is_ok());
    if !is_path || prefix.len() > 300 {
        return Err(format!("'{prefix}' is not a valid prefix: expected a path such as reprocessed/2025/"));
    }
    if layout::is_of_lake(prefix) {
        return Err(format!(
            "'{prefix}' belongs to the lake itself: name a prefix that is not used, such as reprocessed/"
        ));
    }
    Ok(())
}

/// A plan as a list shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedPlan {
    /// The plan.
    pub plan: Plan,
    /// When it was written, by the clock of the lake's store: milliseconds since 1970.
    pub stored_at_ms: i64,
}

/// Saves a plan. [`Written::KeyTaken`]: another plan has its id.
///
/// # Errors
/// The lake fails.
pub async fn save_plan(lake: &dyn ObjectStore, plan: &Plan) -> Result<Written, LakeError> {
    let (key, bytes) = (plan.id.plan_key(), plan.to_bytes());
    match lake.put_new(&key, bytes.clone()).await? {
        // A repeated request finds what the first one wrote.
        Written::KeyTaken if lake.get(&key).await?.as_ref() == Some(&bytes) => Ok(Written::New),
        written => Ok(written),
    }
}

/// A plan; `None` if there is none.
///
/// # Errors
/// The lake fails, or the plan cannot be read.
pub async fn read_plan(lake: &dyn ObjectStore, id: &ReplayId) -> Result<Option<Plan>, PlanError> {
    let key = id.plan_key();
    lake.get(&key).await?.map(|bytes| Plan::from_bytes(&key, &bytes)).transpose()
}

/// The plan whose id begins with a text.
///
/// # Errors
/// There is none, or there are several; the lake fails, or the plan cannot be read.
pub async fn find_plan(lake: &dyn ObjectStore, text: &str) -> Result<Plan, PlanError> {
    let no_such = || PlanError::NoSuchReplay(text.to_owned());
    let is_hex = !text.is_empty() && text.len() <= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex {
        return Err(no_such());
    }
    let begins = text.to_ascii_lowercase();
    let listed = lake.list(&format!("{}{begins}", layout::REPLAY_PLANS)).await?;
    let mut ids: Vec<ReplayId> = listed.iter().filter_map(|object| id_of_plan(&object.key)).collect();
    match (ids.pop(), ids.is_empty()) {
        (None, _) => Err(no_such()),
        (Some(id), true) => read_plan(lake, &id).await?.ok_or_else(no_such),
        (Some(id), false) => {
            ids.push(id);
            Err(PlanError::Ambiguous { text: text.to_owned(), ids })
        }
    }
}

/// All plans, the oldest first, and those that cannot be read.
///
/// # Errors
/// The lake fails.
pub async fn list_plans(lake: &dyn ObjectStore) -> Result<(Vec<SavedPlan>, Vec<PlanError>), LakeError> {
    let listed = lake.list(layout::REPLAY_PLANS).await?;
    let wanted: Vec<(ReplayId, i64)> =
        listed.iter().filter_map(|object| Some((id_of_plan(&object.key)?, object.modified_ms))).collect();
    let read = stream::iter(wanted).map(|(id, stored_at_ms)| read_listed(lake, id, stored_at_ms)).buffered(CONCURRENT);
    let read: Vec<Result<Option<SavedPlan>, PlanError>> = read.collect().await;
    let (mut plans, mut unreadable) = (Vec::new(), Vec::new());
    for plan in read {
        match plan {
            Ok(plan) => plans.extend(plan),
            Err(PlanError::Lake(error)) => return Err(error),
            Err(error) => unreadable.push(error),
        }
    }
    plans.sort_by(|left, right| (left.stored_at_ms, &left.plan.id).cmp(&(right.stored_at_ms, &right.plan.id)));
    Ok((plans, unreadable))
}

async fn read_listed(lake: &dyn ObjectStore, id: ReplayId, stored_at_ms: i64) -> Result<Option<SavedPlan>, PlanError> {
    Ok(read_plan(lake, &id).await?.map(|plan| SavedPlan { plan, stored_at_ms }))
}

fn id_of_plan(key: &ObjectKey) -> Option<ReplayId> {
    ReplayId::try_from(layout::id_of_replay_plan(key.as_str())?.to_owned()).ok()
}

/// Whether a replay is complete: all slices of the plan were read to their ends, with all the records that the epochs had, and all that
/// came of them is in the log of the aside lake. `aside` is that lake. The lease table is not asked: its rows go once a replay has ended.
///
/// # Errors
/// The lake fails, or its log is damaged.
pub async fn is_complete(aside: &dyn ObjectStore, plan: &Plan) -> Result<bool, HistoryError> {
    let mut progress = AsideProgress::default();
    progress.advance(aside, plan).await?;
    Ok(progress.has_ended(plan) && progress.short(plan).is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::lake::MemoryStore;

    fn plan(id: &str) -> Plan {
        Plan {
            format: FORMAT,
            id: id.to_owned().try_into().unwrap(),
            purpose: Purpose::Replay,
            made_at: "2025-01-13T10:30:00.000Z".to_owned(),
            version: LogVersion(17),
            from: "trim-horizon".to_owned(),
            to: "now".to_owned(),
            into: None,
            streams: vec![StreamName::new("orders").unwrap()],
            dataset: None,
            slices: vec![
                Slice {
                    id: ShardId::new("slice-00001").unwrap(),
                    records: 10,
                    bytes: 1000,
                    from: SliceOf::Stream {
                        stream: StreamName::new("orders").unwrap(),
                        shard: ShardId::new("shardId-0").unwrap(),
                        after: Position::Beginning,
                        through: "17:3".parse().unwrap(),
                    },
                },
                Slice {
                    id: ShardId::new("slice-00002").unwrap(),
                    records: 1,
                    bytes: 10,
                    from: SliceOf::Raw { objects: vec![ObjectKey::new("raw/orders/x.json.gz").unwrap()] },
                },
            ],
            epochs: Vec::new(),
            operations: Vec::new(),
            superseded: Vec::new(),
            widened: Vec::new(),
            totals: Totals::default(),
            definitions: BTreeMap::new(),
            made_by: BTreeMap::new(),
            warnings: Vec::new(),
            estimate: Estimate { seconds: Some(3), dollars: Some(0.25), ..Estimate::default() },
        }
    }

    #[tokio::test]
    async fn a_plan_is_written_once_and_found_by_the_beginning_of_its_id() {
        let lake: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
        let (first, second) = (plan("01ab0000"), plan("01ac0000"));
        assert_eq!(save_plan(&*lake, &first).await.unwrap(), Written::New);
        assert_eq!(save_plan(&*lake, &second).await.unwrap(), Written::New);
        assert_eq!(save_plan(&*lake, &second).await.unwrap(), Written::New, "the same plan again");
        let other = Plan { to: "later".to_owned(), ..first.clone() };
        assert_eq!(save_plan(&*lake, &other).await.unwrap(), Written::KeyTaken);
        assert_eq!(read_plan(&*lake, &first.id).await.unwrap(), Some(first.clone()));
        assert_eq!(find_plan(&*lake, "01AB").await.unwrap(), first);
        assert!(matches!(find_plan(&*lake, "01").await, Err(PlanError::Ambiguous { ids, .. }) if ids.len() == 2));
        for text in ["02", "", "plan", "01ab00000", "../x"] {
            assert!(find_plan(&*lake, text).await.unwrap_err().is_usage(), "{text}");
        }
        let (plans, unreadable) = list_plans(&*lake).await.unwrap();
        assert_eq!((plans.len(), unreadable.len()), (2, 0));
    }

    #[tokio::test]
    async fn a_plan_of_another_format_or_another_id_is_not_read() {
        let lake = MemoryStore::new();
        let key = plan("01ab0000").id.plan_key();
        let newer = Plan { format: 2, ..plan("01ab0000") };
        for (bytes, problem) in [
            (newer.to_bytes(), "reads format 1 only"),
            (plan("01ab0001").to_bytes(), "it is of replay 01ab0001"),
            (Bytes::from_static(b"{}"), "missing field"),
            (Plan { into: Some("processed/".to_owned()), ..plan("01ab0000") }.to_bytes(), "belongs to the lake itself"),
        ] {
            let message = Plan::from_bytes(&key, &bytes).unwrap_err().to_string();
            assert!(message.contains(problem), "{message}");
        }
        lake.put_new(&key, Bytes::from_static(b"{}")).await.unwrap();
        let (plans, unreadable) = list_plans(&lake).await.unwrap();
        assert_eq!((plans.len(), unreadable.len()), (0, 1));
    }

    #[test]
    fn an_aside_lake_is_never_inside_the_data_of_the_lake() {
        assert_eq!(check_into("reprocessed/2025/"), Ok(()));
        for prefix in ["", "/", "reprocessed", "a//b/", "../a/", "_log/", "processed/", "raw/x/", "error/", "archive/"]
        {
            assert!(check_into(prefix).is_err(), "{prefix}");
        }
    }
}
