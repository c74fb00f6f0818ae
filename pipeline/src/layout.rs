//! The layout of the lake: every key, built and parsed.
//!
//! Owns: the names of areas, folders and objects, in both directions. Does not own: what the objects hold, storing them,
//! or the type of a validated key (`lake::ObjectKey` of the worker); keys are text here.
//!
//! ```text
//! processed/<dataset>/<partition columns>/<epoch>-<number>.parquet      rows, by event time
//! processed/analytics/…          reserved for summaries
//! archive/…                      reserved for archived rows
//! raw/<dataset>/year=YYYY/month=MM/day=DD/<epoch>-<number>.json.gz      records as received, by arrival day
//! error/reason=<code>/year=YYYY/month=MM/day=DD/<epoch>-<number>.json.gz   dead letters, by arrival day
//! _intents/<epoch>.json          what an epoch intends to commit
//! _commits/<epoch>.json          what an epoch has committed
//! _rollups/<20 digits>.json.gz   what the commit records of many epochs add up to
//! _log/<20 digits>.json          the lake log: what has changed in the lake, in order
//! _log/snapshots/<20 digits>.json.gz     what the lake log adds up to at a version
//! _log/snapshots/parts/<20 digits>-<writer>-<number>.jsonl.gz   live objects of snapshots
//! _trash/<operation>/<key>       an object that an operation has removed
//! _sources/<stream>.json         where reading a Kinesis stream starts
//! _sources/<hash>/<hash>/<number>.json   the files of a folder that is read as a stream, in their order
//! _sources/<hash>/files/<number>.json    the files of lines of a folder that is read as a stream
//! _sources/<hash>/objects.json   into how many shards the objects of a bucket are divided
//! _sources/<hash>/objects/<20 digits>.json.gz   the objects of a bucket that is read as a stream, in their order
//! _losses/<hash>-<hash>.json     a loss in a source, or a file that somebody must decide about; `.accepted.json`: the decision
//! _checkpoints/<name>.json       named checkpoints
//! _replays/plans/<id>.json       the plan of a replay
//! _replays/<id>/control/<20 digits>.json   what somebody has asked of a replay: to pause, to resume, to cancel
//! _replays/<id>/promoted.json    that a replay was promoted; also `undone.json` and `purged.json`
//! _replays/<id>/lake/…           what a replay has made: a lake of its own
//! _replays/redrive-<process>/<number>/lake/…   what a batch of a redrive has made, until it is in the lake
//! _operations.json               the lake's id, by which its operations are known in a lease table that several lakes share
//! _schemas/<dataset>/<version>.json the field ids of a dataset, as recorded
//! _definitions/<dataset>/<number>.json what the files of a dataset were written with
//! _lake.json                     which lake this is, and its format
//! _lake_key.json                 the fingerprint of its key, if the first worker needed no key
//! _staging/<upload>              uploads in progress (a local lake only)
//! _checkpoints.db                leases (a local lake only, by default)
//! ```
//!
//! Names that begin with `_` are hidden from readers such as Athena and Spark.
//!
//! Invariant: each folder and object has exactly one spelling. A parser accepts only what its builder writes.

mod escape;
mod hive;
mod redrives;
mod sources;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::dead_letter::code::Code;
use crate::time::Day;

pub(crate) use hive::{DATE_PARTS, PathValue};
pub use hive::{PartitionPath, PartitionValue};
pub use redrives::{REDRIVES, owner_of_redrive, redrive, redrive_lake};
pub use sources::{
    accepted_loss, catalog_entry, files_of_source, loss, number_of_object_entry, object_entries, object_entry,
    objects_of_source, registry_entry, stream_start,
};

/// Prefix of summaries for people and tools that read CSV.
pub const ANALYTICS: &str = "processed/analytics/";
/// Prefix of data that was moved out of the way.
pub const ARCHIVE: &str = "archive/";
/// Prefix of intents.
pub const INTENTS: &str = "_intents/";
/// Prefix of commit records.
pub const COMMITS: &str = "_commits/";
/// Prefix of roll-ups of commit records.
pub const ROLL_UPS: &str = "_rollups/";
/// Prefix of the lake log.
pub const LAKE_LOG: &str = "_log/";
/// What the keys of all entries of the lake log begin with: their versions have fewer than 20 digits. Nothing else below
/// [`LAKE_LOG`] begins with it, so a list of entries has only entries.
pub const LAKE_LOG_ENTRIES: &str = "_log/0";
/// Prefix of the heads of the lake log's snapshots, and of nothing else, for the same reason.
pub const LOG_SNAPSHOT_HEADS: &str = "_log/snapshots/0";
/// Prefix of all that belongs to snapshots of the lake log.
pub const LOG_SNAPSHOTS: &str = "_log/snapshots/";
/// Prefix of the parts of the lake log's snapshots.
pub const LOG_SNAPSHOT_PARTS: &str = "_log/snapshots/parts/";
/// Prefix of what operations have removed.
pub const TRASH: &str = "_trash/";
/// Prefix of what sources keep in the lake.
pub const SOURCES: &str = "_sources/";
/// Prefix of losses in sources.
pub const LOSSES: &str = "_losses/";
/// Prefix of named checkpoints.
pub const CHECKPOINTS: &str = "_checkpoints/";
/// Prefix of all that belongs to replays.
pub const REPLAYS: &str = "_replays/";
/// Prefix of the plans of replays, and of nothing else.
pub const REPLAY_PLANS: &str = "_replays/plans/";
/// The object with the lake's id, by which its operations are known.
pub const OPERATIONS: &str = "_operations.json";
/// Prefix of recorded schemas.
pub const SCHEMAS: &str = "_schemas/";
/// Prefix of what the files of each dataset were written with.
pub const DEFINITIONS: &str = "_definitions/";
/// The object that identifies the lake and its format.
pub const LAKE_IDENTITY: &str = "_lake.json";
/// The object with the fingerprint of the pseudonym key, in a lake that was begun without a key.
pub const LAKE_KEY: &str = "_lake_key.json";
/// The folder of uploads in progress in a local lake.
pub const STAGING: &str = "_staging";
/// The database of leases that a local lake contains by default.
pub const LOCAL_CHECKPOINTS: &str = "_checkpoints.db";

/// A text that is not a valid path in the lake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a valid path in the lake")]
pub struct InvalidPath(pub(crate) String);

/// A part of the lake that holds data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// Rows, by event time.
    Processed,
    /// Records as received, by arrival day.
    Raw,
    /// Dead letters, by code and arrival day.
    Error,
}

impl Area {
    /// All areas.
    pub const ALL: [Area; 3] = [Area::Processed, Area::Raw, Area::Error];

    /// The prefix of the area's keys.
    pub fn prefix(self) -> &'static str {
        match self {
            Area::Processed => "processed/",
            Area::Raw => "raw/",
            Area::Error => "error/",
        }
    }

    /// The area that a key belongs to.
    pub fn of(key: &str) -> Option<Area> {
        Area::ALL.into_iter().find(|area| key.starts_with(area.prefix()))
    }
}

/// Whether a key, or a prefix that ends with `/`, belongs to a lake: to an area of data, or to what readers do not see. Other
/// things may be beside a lake, such as what Data Firehose delivers to `landing/`. The empty prefix contains the lake.
pub fn is_of_lake(key: &str) -> bool {
    key.is_empty() || key.starts_with('_') || key.starts_with(ARCHIVE) || Area::of(key).is_some()
}

/// A folder of data objects. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Folder {
    /// Rows of one partition of a dataset.
    Processed {
        /// The dataset's name.
        dataset: Arc<str>,
        /// Its partition.
        partition: PartitionPath,
    },
    /// Records as received on one day.
    Raw {
        /// The dataset's name; `None` for records that no dataset recognized, which go to `unknown`.
        dataset: Option<Arc<str>>,
        /// The day of arrival.
        day: Day,
    },
    /// Dead letters of one day.
    Error {
        /// Why the records failed.
        code: Code,
        /// The day of arrival.
        day: Day,
    },
}

/// The folder of raw records that no dataset recognized.
const UNKNOWN_DATASET: &str = "unknown";
/// Names that no dataset may have: other things are in folders of these names.
pub(crate) const RESERVED_DATASETS: [&str; 2] = ["analytics", UNKNOWN_DATASET];

impl Folder {
    /// The area that the folder belongs to.
    pub fn area(&self) -> Area {
        match self {
            Folder::Processed { .. } => Area::Processed,
            Folder::Raw { .. } => Area::Raw,
            Folder::Error { .. } => Area::Error,
        }
    }

    /// Reads a folder that [`Folder`]'s `Display` wrote.
    ///
    /// # Errors
    /// The text is not the path of a folder of data objects.
    pub fn parse(text: &str) -> Result<Folder, InvalidPath> {
        parse_folder(text).filter(|folder| folder.to_string() == text).ok_or_else(|| InvalidPath(text.to_owned()))
    }
}

fn parse_folder(text: &str) -> Option<Folder> {
    let area = Area::of(text)?;
    let (first, rest) = text[area.prefix().len()..].split_once('/').filter(|(first, _)| !first.is_empty())?;
    match area {
        Area::Processed => {
            Some(Folder::Processed { dataset: first.into(), partition: PartitionPath::parse(rest).ok()? })
        }
        Area::Raw => {
            Some(Folder::Raw { dataset: (first != UNKNOWN_DATASET).then(|| first.into()), day: parse_day(rest)? })
        }
        Area::Error => {
            Some(Folder::Error { code: Code::from_name(first.strip_prefix("reason=")?)?, day: parse_day(rest)? })
        }
    }
}

/// `year=YYYY/month=MM/day=DD`
fn parse_day(text: &str) -> Option<Day> {
    let (year, rest) = text.strip_prefix("year=")?.split_once("/month=")?;
    let (month, day) = rest.split_once("/day=")?;
    let day = Day { year: year.parse().ok()?, month: month.parse().ok()?, day: day.parse().ok()? };
    day.is_valid().then_some(day)
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.area().prefix())?;
        let day = match self {
            Folder::Processed { dataset, partition } => return write!(f, "{dataset}/{partition}"),
            Folder::Raw { dataset, day } => {
                f.write_str(dataset.as_deref().unwrap_or(UNKNOWN_DATASET))?;
                day
            }
            Folder::Error { code, day } => {
                write!(f, "reason={code}")?;
                day
            }
        };
        let Day { year, month, day } = day;
        write!(f, "/year={year:04}/month={month:02}/day={day:02}")
    }
}

impl FromStr for Folder {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Folder, InvalidPath> {
        Folder::parse(text)
    }
}

/// A data object's key, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataObject {
    /// Its folder.
    pub folder: Folder,
    /// The epoch that wrote it. No two epochs write the same key.
    pub epoch: String,
    /// Its number in the epoch, from 1.
    pub number: u64,
    /// What its name ends with: `parquet`, `json.gz`, `json.zst`.
    pub extension: String,
}

impl fmt::Display for DataObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DataObject { folder, epoch, number, extension } = self;
        write!(f, "{folder}/{epoch}-{number:05}.{extension}")
    }
}

impl FromStr for DataObject {
    type Err = InvalidPath;

    fn from_str(key: &str) -> Result<DataObject, InvalidPath> {
        let parse = || {
            let (folder, name) = key.rsplit_once('/')?;
            let (stem, extension) = name.split_once('.')?;
            let (epoch, number) = stem.rsplit_once('-').filter(|(epoch, _)| !epoch.is_empty())?;
            Some(DataObject {
                folder: Folder::parse(folder).ok()?,
                epoch: epoch.to_owned(),
                number: number.parse().ok()?,
                extension: Some(extension).filter(|extension| !extension.is_empty())?.to_owned(),
            })
        };
        parse().filter(|object| object.to_string() == key).ok_or_else(|| InvalidPath(key.to_owned()))
    }
}

/// The text before an object's number: the name of the epoch, if an epoch wrote it. Unlike [`DataObject`]'s parser it
/// accepts any folder, and it does not check that the text is an epoch's name.
pub fn epoch_of_object(key: &str) -> Option<&str> {
    let (stem, _) = key.rsplit('/').next()?.split_once('.')?;
    stem.rsplit_once('-').filter(|(_, number)| !number.is_empty()).map(|(epoch, _)| epoch)
}

/// The key of an epoch's intent.
pub fn intent(epoch: &str) -> String {
    format!("{INTENTS}{epoch}.json")
}

/// The epoch of an intent's key; the inverse of [`intent`].
pub fn epoch_of_intent(key: &str) -> Option<&str> {
    name_of(INTENTS, key)
}

/// The key of an epoch's commit record.
pub fn commit_record(epoch: &str) -> String {
    format!("{COMMITS}{epoch}.json")
}

/// The epoch of a commit record's key; the inverse of [`commit_record`].
pub fn epoch_of_commit_record(key: &str) -> Option<&str> {
    name_of(COMMITS, key)
}

/// The key of the `number`-th roll-up. Keys of roll-ups sort by their numbers.
pub fn roll_up(number: u64) -> String {
    format!("{ROLL_UPS}{number:020}.json.gz")
}

/// The number of a roll-up's key; the inverse of [`roll_up`].
pub fn number_of_roll_up(key: &str) -> Option<u64> {
    let number = key.strip_prefix(ROLL_UPS)?.strip_suffix(".json.gz")?.parse().ok()?;
    (roll_up(number) == key).then_some(number)
}

/// The key of the entry of the lake log that has this version. Keys of entries sort by their versions.
pub fn log_entry(version: u64) -> String {
    format!("{LAKE_LOG}{version:020}.json")
}

/// The version of an entry's key; the inverse of [`log_entry`].
pub fn version_of_log_entry(key: &str) -> Option<u64> {
    let version = name_of(LAKE_LOG, key)?.parse().ok()?;
    (log_entry(version) == key).then_some(version)
}

/// The key of the snapshot of the lake log at this version. Keys of snapshots sort by their versions.
pub fn log_snapshot(version: u64) -> String {
    format!("{LOG_SNAPSHOTS}{version:020}.json.gz")
}

/// The version of a snapshot's key; the inverse of [`log_snapshot`].
pub fn version_of_log_snapshot(key: &str) -> Option<u64> {
    let version = key.strip_prefix(LOG_SNAPSHOTS)?.strip_suffix(".json.gz")?.parse().ok()?;
    (log_snapshot(version) == key).then_some(version)
}

/// The key of the `number`-th part that `writer` makes of a snapshot at this version.
pub fn log_snapshot_part(version: u64, writer: &str, number: u32) -> String {
    format!("{LOG_SNAPSHOT_PARTS}{version:020}-{writer}-{number:05}.jsonl.gz")
}

/// The place of an object that an operation has removed.
pub fn trash(operation: &str, key: &str) -> String {
    format!("{TRASH}{operation}/{key}")
}

/// The prefix of what an operation has removed.
pub fn trash_of(operation: &str) -> String {
    format!("{TRASH}{operation}/")
}

/// The operation of a key in the trash.
pub fn operation_of_trash(key: &str) -> Option<&str> {
    let (operation, rest) = key.strip_prefix(TRASH)?.split_once('/')?;
    (!operation.is_empty() && !rest.is_empty()).then_some(operation)
}

/// The key of a named checkpoint.
pub fn named_checkpoint(name: &str) -> String {
    format!("{CHECKPOINTS}{name}.json")
}

/// The name of a named checkpoint's key; the inverse of [`named_checkpoint`].
pub fn name_of_checkpoint(key: &str) -> Option<&str> {
    name_of(CHECKPOINTS, key)
}

/// The key of a replay's plan.
pub fn replay_plan(id: &str) -> String {
    format!("{REPLAY_PLANS}{id}.json")
}

/// The replay of a plan's key; the inverse of [`replay_plan`].
pub fn id_of_replay_plan(key: &str) -> Option<&str> {
    name_of(REPLAY_PLANS, key)
}

/// The prefix of all that a replay has written, except for its plan.
pub fn replay(id: &str) -> String {
    format!("{REPLAYS}{id}/")
}

/// The prefix of the lake that a replay writes.
pub fn replay_lake(id: &str) -> String {
    format!("{REPLAYS}{id}/lake/")
}

/// The prefix of what was asked of a replay.
pub fn replay_controls(id: &str) -> String {
    format!("{REPLAYS}{id}/control/")
}

/// The key of the `number`-th thing, from 1, that was asked of a replay. Keys sort by their numbers.
pub fn replay_control(id: &str, number: u64) -> String {
    format!("{}{number:020}.json", replay_controls(id))
}

/// The number of such a key; the inverse of [`replay_control`].
pub fn number_of_replay_control(id: &str, key: &str) -> Option<u64> {
    let number = key.strip_prefix(&replay_controls(id))?.strip_suffix(".json")?.parse().ok()?;
    (replay_control(id, number) == key).then_some(number)
}

/// The key of a marker of a replay: that it was `promoted`, `undone` or `purged`.
pub fn replay_marker(id: &str, what: &str) -> String {
    format!("{REPLAYS}{id}/{what}.json")
}

/// The prefix of a dataset's recorded schemas.
pub fn schemas_of(dataset: &str) -> String {
    format!("{SCHEMAS}{dataset}/")
}

/// The key of the `version`-th recorded schema of a dataset, counted from 1.
pub fn schema(dataset: &str, version: u32) -> String {
    format!("{SCHEMAS}{dataset}/{version:08}.json")
}

/// The version of a recorded schema of a dataset, by its key; the inverse of [`schema`].
pub fn version_of_schema(dataset: &str, key: &str) -> Option<u32> {
    eight_digits(key.strip_prefix(&schemas_of(dataset))?)
}

/// The prefix of what the files of a dataset were written with.
pub fn definitions_of(dataset: &str) -> String {
    format!("{DEFINITIONS}{dataset}/")
}

/// The key of the `number`-th version of what the files of a dataset were written with, counted from 1.
pub fn definition(dataset: &str, number: u32) -> String {
    format!("{DEFINITIONS}{dataset}/{number:08}.json")
}

/// The number of such a key; the inverse of [`definition`].
pub fn number_of_definition(dataset: &str, key: &str) -> Option<u32> {
    eight_digits(key.strip_prefix(&definitions_of(dataset))?)
}

/// The number of a name such as `00000012.json`.
fn eight_digits(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".json")?;
    let is_plain = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|number| is_plain && *number > 0)
}

/// The name between a prefix and `.json`, if it is a single segment.
fn name_of<'a>(prefix: &str, key: &'a str) -> Option<&'a str> {
    let name = key.strip_prefix(prefix)?.strip_suffix(".json")?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::day_of;
    use proptest::prelude::*;

    fn folders() -> impl Strategy<Value = Folder> {
        let day = || (-100_000_000_000_i64..=100_000_000_000).prop_map(day_of);
        let dataset = || "[a-z][a-z0-9_]{0,20}".prop_filter("a reserved name", |name| name != UNKNOWN_DATASET);
        let processed = (dataset(), "\\PC{0,20}", day()).prop_map(|(dataset, kind, day)| {
            let columns = [
                ("kind", PathValue::Text(kind.as_bytes())),
                ("year", PathValue::Number(day.year.unsigned_abs())),
                ("month", PathValue::Number(day.month)),
            ];
            Folder::Processed {
                dataset: dataset.into(),
                partition: PartitionPath::new(columns.into_iter()).expect("it is short"),
            }
        });
        let raw = (prop::option::of(dataset()), day())
            .prop_map(|(dataset, day)| Folder::Raw { dataset: dataset.map(Into::into), day });
        let error =
            (prop::sample::select(Code::ALL.to_vec()), day()).prop_map(|(code, day)| Folder::Error { code, day });
        prop_oneof![processed, raw, error]
    }

    proptest! {
        #[test]
        fn every_folder_and_every_object_in_it_round_trips(
            folder in folders(),
            epoch in "[0-9]{8}T[0-9]{6}Z-[0-9a-f]{1,16}-[0-9]{6}",
            number in any::<u64>(),
            extension in prop::sample::select(vec!["parquet", "json.gz", "json.zst"]),
        ) {
            let text = folder.to_string();
            prop_assert_eq!(Folder::parse(&text), Ok(folder.clone()));
            prop_assert_eq!(Area::of(&text), Some(folder.area()));
            let object = DataObject { folder, epoch, number, extension: extension.to_owned() };
            let key = object.to_string();
            prop_assert_eq!(epoch_of_object(&key), Some(object.epoch.as_str()));
            prop_assert_eq!(key.parse(), Ok(object));
        }

        #[test]
        fn a_text_that_parses_is_the_only_spelling_of_its_folder(
            text in "(processed|raw|error)/(events|reason=Decode.TooDeep)/(type=[a%0-9A-F]{0,4}|year=[0-9+]{1,4}/month=[0-9]{1,2}/day=[0-9]{1,2})",
        ) {
            if let Ok(folder) = Folder::parse(&text) {
                prop_assert_eq!(folder.to_string(), text);
            }
        }

        #[test]
        fn names_between_prefix_and_extension_round_trip(name in "[A-Za-z0-9._-]{1,40}") {
            let (intent, record, checkpoint) = (intent(&name), commit_record(&name), named_checkpoint(&name));
            prop_assert_eq!(epoch_of_intent(&intent), Some(name.as_str()));
            prop_assert_eq!(epoch_of_commit_record(&record), Some(name.as_str()));
            prop_assert_eq!(name_of_checkpoint(&checkpoint), Some(name.as_str()));
        }

        #[test]
        fn keys_of_roll_ups_round_trip_and_sort_by_number(number in any::<u64>(), other in any::<u64>()) {
            prop_assert_eq!(number_of_roll_up(&roll_up(number)), Some(number));
            prop_assert_eq!(roll_up(number).cmp(&roll_up(other)), number.cmp(&other));
        }

        #[test]
        fn keys_of_log_entries_round_trip_and_sort_by_version(version in any::<u64>(), other in any::<u64>()) {
            prop_assert_eq!(version_of_log_entry(&log_entry(version)), Some(version));
            prop_assert_eq!(log_entry(version).cmp(&log_entry(other)), version.cmp(&other));
            prop_assert_eq!(version_of_log_snapshot(&log_snapshot(version)), Some(version));
            prop_assert_eq!(version_of_log_entry(&log_snapshot(version)), None);
            prop_assert_eq!(version_of_log_snapshot(&log_snapshot_part(version, "w", 1)), None);
        }

        #[test]
        fn keys_of_replays_round_trip(id in "[0-9a-f]{8}", number in any::<u64>(), other in any::<u64>()) {
            let plan = replay_plan(&id);
            prop_assert_eq!(id_of_replay_plan(&plan), Some(id.as_str()));
            prop_assert_eq!(number_of_replay_control(&id, &replay_control(&id, number)), Some(number));
            prop_assert_eq!(replay_control(&id, number).cmp(&replay_control(&id, other)), number.cmp(&other));
            for key in [replay_lake(&id), replay_control(&id, number), replay_marker(&id, "promoted")] {
                prop_assert!(key.starts_with(&replay(&id)) && id_of_replay_plan(&key).is_none());
            }
        }

        #[test]
        fn two_streams_never_share_the_key_of_their_start(left in "\\PC{1,300}", right in "\\PC{1,300}") {
            prop_assert_eq!(stream_start(&left) == stream_start(&right), left == right);
            prop_assert!(stream_start(&left).len() < 320);
        }
    }

    #[test]
    fn folders_are_written_as_documented() {
        let day = Day { year: 2025, month: 1, day: 3 };
        let unknown = Folder::Raw { dataset: None, day };
        assert_eq!(unknown.to_string(), "raw/unknown/year=2025/month=01/day=03");
        let failed = Folder::Error { code: Code::MissingField, day };
        assert_eq!(failed.to_string(), "error/reason=Validate.MissingField/year=2025/month=01/day=03");
        let partition = PartitionPath::parse("type=a%2Fb/year=2025/month=01").unwrap();
        let rows = Folder::Processed { dataset: "assessments".into(), partition };
        assert_eq!(rows.to_string(), "processed/assessments/type=a%2Fb/year=2025/month=01");
        let object = DataObject { folder: rows, epoch: "e-1".to_owned(), number: 7, extension: "parquet".to_owned() };
        assert_eq!(object.to_string(), "processed/assessments/type=a%2Fb/year=2025/month=01/e-1-00007.parquet");
    }

    #[test]
    fn what_is_not_a_folder_is_refused() {
        for text in [
            "",
            "raw",
            "raw/",
            "raw/events",
            "raw/events/year=2025/month=02/day=30",
            "raw/events/year=2025/month=2/day=03",
            "raw/events/year=2025/month=02/day=03/",
            "raw//year=2025/month=02/day=03",
            "error/reason=Unheard.Of/year=2025/month=02/day=03",
            "error/Decode.TooDeep/year=2025/month=02/day=03",
            "processed/events",
            "processed/events/2025",
            "archive/events/year=2025/month=02/day=03",
            "_commits/events/year=2025/month=02/day=03",
        ] {
            assert_eq!(Folder::parse(text), Err(InvalidPath(text.to_owned())));
        }
    }

    #[test]
    fn keys_of_other_objects_name_no_epoch() {
        for key in ["_intents/a/b.json", "_intents/.json", "_commits/a.json", "_intents/a"] {
            assert_eq!(epoch_of_intent(key), None, "{key}");
        }
        for key in ["raw/x", "raw/x-1", "a-1/x.json", "raw/e-.json"] {
            assert_eq!(epoch_of_object(key), None, "{key}");
        }
        assert_eq!(epoch_of_object("anywhere/e-1-00001.json.gz"), Some("e-1"));
        for key in ["_rollups/7.json.gz", "_rollups/+0000000000000000007.json.gz", "_rollups/00000000000000000007.json"]
        {
            assert_eq!(number_of_roll_up(key), None, "{key}");
        }
        assert_eq!(operation_of_trash(&trash("e-1", "raw/x/a.json.gz")), Some("e-1"));
        assert!(trash("e-1", "raw/x/a.json.gz").starts_with(&trash_of("e-1")));
        for key in ["_trash/e-1", "_trash/e-1/", "_trash//raw/x", "_trash2/e-1/raw/x"] {
            assert_eq!(operation_of_trash(key), None, "{key}");
        }
        for key in ["_log/7.json", "_log/+0000000000000000007.json", "_log/snapshots/00000000000000000007.json"] {
            assert_eq!(version_of_log_entry(key), None, "{key}");
        }
    }

    #[test]
    fn keys_of_sources_are_plain_and_short() {
        assert_eq!(stream_start("orders"), "_sources/orders.json");
        assert_eq!(stream_start("a/b c"), "_sources/a%2Fb%20c.json");
        let entry = registry_entry("file:///in", "a.ndjson", 12);
        assert!(entry.starts_with("_sources/") && entry.ends_with("/00000012.json") && entry.len() == 56, "{entry}");
        assert!(catalog_entry("file:///in", 7).ends_with("/files/00000007.json"));
        let (loss, accepted) = (loss("file:///in", "a.ndjson"), accepted_loss("file:///in", "a.ndjson"));
        assert_eq!(accepted, loss.replace(".json", ".accepted.json"));
    }
}
