//! What the files of each dataset were written with, in `_definitions/<dataset>/<number>.json`.
//!
//! Owns: which of these objects counts, how a worker adds its definition, and the refusal of one that does not fit. Does not own:
//! what fits, the content of the objects (both: [`DefinitionHistory`]), their keys ([`layout`]).
//!
//! Each object has everything of the one before it, and the one with the highest number counts. A definition is compared with it
//! twice:
//!
//! 1. Before a worker touches anything. A lake without files of a dataset accepts every definition of it.
//! 2. Before the first commit that has rows of a dataset. The worker then *claims*: it writes the next number with
//!    [`put_new`](ObjectStore::put_new), which never replaces an object. If another worker was faster, it compares with that
//!    worker's object. So of two workers that begin a dataset at once with definitions that do not fit, the second one fails
//!    before any of its rows is visible.
//!
//! | crash | leaves behind |
//! | --- | --- |
//! | before the claim | nothing |
//! | after the claim | a history with a definition that no file has yet: the lake refuses what does not fit it |
//!
//! Lakes that older versions wrote have no such objects. There the history is what the lake's field ids and the keys of the files
//! show: types and partition columns. The first claim writes it down.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use pipeline::dataset::{Change, ChangeKind, Datasets, DefinitionHistory, Verdict};
use pipeline::layout::{self, Area, Folder};

use crate::lake::schemas::{self, SchemaError};
use crate::lake::{LakeError, ObjectKey, ObjectStore, Written};

/// The highest number: eight digits keep the keys in order.
const NUMBER_MAX: u32 = 99_999_999;
/// How often a worker tries to claim, each time because another one wrote the next number first.
const ATTEMPTS_MAX: u32 = 100;

/// Why a definition cannot be used with a lake.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// The lake cannot be read or written.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The field ids of a lake without histories cannot be read.
    #[error(transparent)]
    Schemas(#[from] SchemaError),
    /// A history cannot be read.
    #[error("{key} cannot be read: {problem}; without it, nobody knows what the dataset's files were written with")]
    Unreadable {
        /// The object.
        key: ObjectKey,
        /// What is wrong with it.
        problem: String,
    },
    /// Others have changed the history at every attempt.
    #[error(
        "the definition of dataset '{dataset}' could not be stored: other workers changed it {ATTEMPTS_MAX} times meanwhile"
    )]
    Contended {
        /// The dataset.
        dataset: String,
    },
    /// Definitions do not fit what the lake has.
    #[error("{}", Refusals(.0))]
    Refused(Vec<Refusal>),
}

impl DefinitionError {
    /// Whether the user can fix it with another definition.
    pub fn is_usage(&self) -> bool {
        matches!(self, DefinitionError::Refused(_))
    }
}

/// A definition that does not fit the files of its dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The dataset.
    pub dataset: String,
    /// The changes that prevent it.
    pub changes: Vec<Change>,
}

/// The text of refusals: what differs, and what to do.
struct Refusals<'r>(&'r [Refusal]);

impl fmt::Display for Refusals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Refusal { dataset, changes }) in self.0.iter().enumerate() {
            let is_unreadable = changes.iter().any(|change| change.kind.verdict() == Verdict::Refused);
            let why =
                if is_unreadable { "readers could not read them together" } else { "a name would mean two things" };
            let line = if n == 0 { "" } else { "\n" };
            write!(
                f,
                "{line}the definition of dataset '{dataset}' does not fit the files that the lake has of it: {why}. Nothing was \
                 written with it"
            )?;
            for change in changes {
                write!(f, "\n  {change}: {}", change.kind.advice())?;
            }
            write!(f, "\n  all differences: shardlake schema {dataset} --diff")?;
        }
        Ok(())
    }
}

/// The history that counts.
struct Newest {
    /// Its number; 0 if it is not stored.
    number: u32,
    history: DefinitionHistory,
}

/// The history of a dataset in a lake. It is empty if the lake has no files of the dataset.
///
/// # Errors
/// The lake fails, or the history cannot be read.
pub async fn read_history(lake: &dyn ObjectStore, dataset: &str) -> Result<DefinitionHistory, DefinitionError> {
    newest(lake, dataset, 0).await.map(|newest| newest.history)
}

/// Checks that every definition fits what the lake has. Changes nothing. With `consent`, names may change their meaning.
///
/// # Errors
/// The definitions that do not fit, all at once; or the lake fails.
pub async fn check_definitions(
    lake: &dyn ObjectStore,
    datasets: &Datasets,
    consent: bool,
) -> Result<(), DefinitionError> {
    let mut refusals = Vec::new();
    for (dataset, name) in datasets.names().enumerate() {
        let changes = datasets.changes(dataset, &read_history(lake, name).await?);
        for change in changes.iter().filter(|change| change.kind == ChangeKind::Mixed) {
            tracing::warn!(dataset = name, %change, "the lake has files that readers cannot read together");
        }
        refusals.extend(refusal(name, changes, consent));
    }
    if refusals.is_empty() { Ok(()) } else { Err(DefinitionError::Refused(refusals)) }
}

/// The refusal of some changes, if any of them is not allowed.
fn refusal(dataset: &str, mut changes: Vec<Change>, consent: bool) -> Option<Refusal> {
    changes.retain(|change| match change.kind.verdict() {
        Verdict::Passes => false,
        Verdict::NeedsConsent => !consent,
        Verdict::Refused => true,
    });
    (!changes.is_empty()).then(|| Refusal { dataset: dataset.to_owned(), changes })
}

/// The definitions of one worker, each of which is claimed before its first rows become visible.
#[derive(Debug, Default)]
pub struct DefinitionClaims {
    consent: bool,
    /// The numbers of the datasets that are claimed.
    claimed: Mutex<BTreeSet<usize>>,
}

impl DefinitionClaims {
    /// No claims yet. With `consent`, names may change their meaning.
    pub fn new(consent: bool) -> Self {
        DefinitionClaims { consent, claimed: Mutex::default() }
    }

    /// Claims the definitions of these datasets, unless this worker has done it before.
    ///
    /// # Errors
    /// A definition does not fit what the lake has, the lake fails, or the history cannot be read.
    pub async fn claim(
        &self,
        lake: &dyn ObjectStore,
        datasets: &Datasets,
        names: impl Iterator<Item = &str>,
    ) -> Result<(), DefinitionError> {
        for dataset in names.filter_map(|name| datasets.find(name)) {
            if self.claimed().contains(&dataset) {
                continue;
            }
            self.claim_one(lake, datasets, dataset).await?;
            self.claimed().insert(dataset);
        }
        Ok(())
    }

    /// Claims the definitions by which names change their meaning. So an accepted change is accepted for all workers at once.
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    pub async fn claim_accepted(&self, lake: &dyn ObjectStore, datasets: &Datasets) -> Result<(), DefinitionError> {
        let mut accepted = Vec::new();
        for (dataset, name) in datasets.names().enumerate() {
            let changes = datasets.changes(dataset, &read_history(lake, name).await?);
            if changes.iter().any(|change| change.kind.verdict() == Verdict::NeedsConsent) {
                accepted.push(name);
            }
        }
        self.claim(lake, datasets, accepted.into_iter()).await
    }

    async fn claim_one(
        &self,
        lake: &dyn ObjectStore,
        datasets: &Datasets,
        dataset: usize,
    ) -> Result<(), DefinitionError> {
        let own = datasets.history(dataset);
        let mut least = 0;
        for _ in 0..ATTEMPTS_MAX {
            let newest = newest(lake, own.dataset(), least).await?;
            least = newest.number + 1;
            if self.add(lake, datasets, dataset, newest).await? {
                return Ok(());
            }
        }
        Err(DefinitionError::Contended { dataset: own.dataset().to_owned() })
    }

    /// Adds a definition to the history, unless the history has it. Returns false if another worker wrote the next object first.
    async fn add(
        &self,
        lake: &dyn ObjectStore,
        datasets: &Datasets,
        dataset: usize,
        Newest { number, mut history }: Newest,
    ) -> Result<bool, DefinitionError> {
        if let Some(refusal) = refusal(history.dataset(), datasets.changes(dataset, &history), self.consent) {
            return Err(DefinitionError::Refused(vec![refusal]));
        }
        if !history.extend(&datasets.history(dataset)) && number > 0 {
            return Ok(true);
        }
        // If this very call wrote it and its first answer was lost, the next attempt finds the definition there.
        let key = key(history.dataset(), number + 1);
        Ok(lake.put_new(&key, Bytes::from(history.to_bytes())).await? == Written::New)
    }

    fn claimed(&self) -> std::sync::MutexGuard<'_, BTreeSet<usize>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the history that counts. `least`: a number that is known to exist, although a listing may not show it yet.
async fn newest(lake: &dyn ObjectStore, dataset: &str, least: u32) -> Result<Newest, DefinitionError> {
    let listed = lake.list(&layout::definitions_of(dataset)).await?;
    let numbers = listed.iter().filter_map(|object| layout::number_of_definition(dataset, object.key.as_str()));
    let number = numbers.max().unwrap_or(0).max(least);
    if number == 0 {
        return Ok(Newest { number, history: history_of_files(lake, dataset).await? });
    }
    let key = key(dataset, number);
    let unreadable = |problem: String| DefinitionError::Unreadable { key: key.clone(), problem };
    let bytes = lake.get(&key).await?.ok_or_else(|| unreadable("it was deleted".to_owned()))?;
    let history = DefinitionHistory::from_bytes(dataset, &bytes).map_err(|problem| unreadable(problem.to_string()))?;
    if number >= NUMBER_MAX {
        return Err(unreadable("its number is the last one".to_owned()));
    }
    Ok(Newest { number, history })
}

/// The history of a lake that has none stored.
async fn history_of_files(lake: &dyn ObjectStore, dataset: &str) -> Result<DefinitionHistory, DefinitionError> {
    let Some(ids) = schemas::read_field_ids(lake, dataset).await? else { return Ok(DefinitionHistory::new(dataset)) };
    let mut layouts = BTreeSet::new();
    for object in lake.list(&format!("{}{dataset}/", Area::Processed.prefix())).await? {
        let folder = object.key.as_str().rsplit_once('/').map(|(folder, _)| Folder::parse(folder));
        if let Some(Ok(Folder::Processed { partition, .. })) = folder {
            layouts.insert(partition.columns().map(|(name, _)| name.to_owned()).collect::<Vec<_>>());
        }
    }
    // Ids without files are of definitions that no row was written with.
    if layouts.is_empty() {
        return Ok(DefinitionHistory::new(dataset));
    }
    Ok(DefinitionHistory::of_files(&ids, layouts))
}

fn key(dataset: &str, number: u32) -> ObjectKey {
    ObjectKey::new(layout::definition(dataset, number)).expect("a dataset has a plain name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::{Fault, MemoryStore, NewPart, number_fields};
    use pipeline::dataset::DefinitionText;
    use proptest::prelude::*;

    /// A dataset `orders` that has a column `a` of this type, more columns, and these partitions; and a dataset without columns
    /// of its own.
    fn datasets(data_type: &str, more: &str, partition_by: &str) -> Datasets {
        let orders = format!(
            "name = \"orders\"\npartition_by = {partition_by}\n[event_time]\npointer = \"/at\"\n\
             [[column]]\nname = \"a\"\npointer = \"/a\"\ntype = \"{data_type}\"\n{more}"
        );
        let users = "name = \"users\"\n[event_time]\npointer = \"/at\"\n[[column]]\nname = \"at\"\nfrom = \"event_time\"\ntype = \"timestamp\"\n";
        let text = |file: &str, text: &str| DefinitionText { file: file.to_owned(), text: text.to_owned() };
        Datasets::compile(&[text("orders.toml", &orders), text("users.toml", users)], &|_, _| Err(String::new()))
            .unwrap()
    }

    fn orders(data_type: &str) -> Datasets {
        datasets(data_type, "", "[\"day\"]")
    }

    async fn claim(lake: &MemoryStore, datasets: &Datasets) -> Result<(), DefinitionError> {
        DefinitionClaims::default().claim(lake, datasets, ["orders"].into_iter()).await
    }

    /// The numbers of the objects of `orders`.
    fn numbers(lake: &MemoryStore) -> Vec<u32> {
        lake.objects().keys().filter_map(|key| layout::number_of_definition("orders", key.as_str())).collect()
    }

    /// A lake as an older version left it: field ids of this definition, and a file with this key.
    async fn older_lake(definition: &mut Datasets, file: Option<&str>) -> MemoryStore {
        let lake = MemoryStore::new();
        number_fields(&lake, definition).await.unwrap();
        if let Some(file) = file {
            let key = ObjectKey::new(file).unwrap();
            let id = lake.begin_upload(&key, "u").await.unwrap();
            let part = NewPart { number: 1, offset: 0, bytes: Bytes::from_static(b"x") };
            let part = lake.upload_part(&key, &id, part).await.unwrap();
            lake.complete_upload(&key, &id, &[part]).await.unwrap();
        }
        lake
    }

    #[tokio::test]
    async fn a_definition_is_stored_once_and_a_wider_one_is_added() {
        let lake = MemoryStore::new();
        let int32 = orders("int32");
        claim(&lake, &int32).await.unwrap();
        claim(&lake, &int32).await.unwrap();
        assert_eq!(numbers(&lake), [1]);
        let more = datasets("int32", "[[column]]\nname = \"b\"\npointer = \"/b\"\ntype = \"string\"\n", "[\"day\"]");
        check_definitions(&lake, &more, false).await.unwrap();
        assert_eq!(numbers(&lake), [1], "a check writes nothing");
        claim(&lake, &more).await.unwrap();
        claim(&lake, &int32).await.unwrap();
        assert_eq!((numbers(&lake), lake.objects().len()), (vec![1, 2], 2), "users has no rows, so it has no history");
        let claims = DefinitionClaims::default();
        claims.claim(&lake, &more, ["orders"].into_iter()).await.unwrap();
        let calls = lake.calls().len();
        claims.claim(&lake, &more, ["orders"].into_iter()).await.unwrap();
        assert_eq!(lake.calls().len(), calls, "a worker asks the lake once");
    }

    #[tokio::test]
    async fn a_definition_that_does_not_fit_is_refused_with_what_to_do_and_nothing_changes() {
        let lake = MemoryStore::new();
        claim(&lake, &orders("int32")).await.unwrap();
        let before = lake.objects();
        let other = datasets("int64", "", "[\"year\", \"day\"]");
        let message = check_definitions(&lake, &other, true).await.unwrap_err().to_string();
        assert_eq!(
            message,
            "the definition of dataset 'orders' does not fit the files that the lake has of it: readers could not read them \
             together. Nothing was written with it\n  \
             partition_by is day in the lake and year, day in the definition: keep partition_by, or give the dataset a new name\n  \
             the type of column 'a' is int32 in the lake and int64 in the definition: keep the type, or give the new column \
             or the dataset another name\n  \
             all differences: shardlake schema orders --diff"
        );
        assert_eq!(claim(&lake, &other).await.unwrap_err().to_string(), message);
        assert_eq!(lake.objects(), before);
    }

    #[tokio::test]
    async fn another_meaning_is_refused_until_somebody_accepts_it_once() {
        let lake = MemoryStore::new();
        let with = |pointer: &str| {
            let column = format!("[[column]]\nname = \"b\"\npointer = \"{pointer}\"\ntype = \"string\"\n");
            datasets("int32", &column, "[\"day\"]")
        };
        claim(&lake, &with("/b")).await.unwrap();
        let message = check_definitions(&lake, &with("/c"), false).await.unwrap_err().to_string();
        assert!(message.contains("the source of column 'b' is /b in the lake and /c in the definition"), "{message}");
        check_definitions(&lake, &with("/c"), true).await.unwrap();
        DefinitionClaims::new(true).claim_accepted(&lake, &with("/b")).await.unwrap();
        assert_eq!(numbers(&lake), [1], "nothing had to be accepted");
        DefinitionClaims::new(true).claim_accepted(&lake, &with("/c")).await.unwrap();
        check_definitions(&lake, &with("/c"), false).await.unwrap();
        check_definitions(&lake, &with("/b"), false).await.unwrap();
        check_definitions(&lake, &with("/d"), false).await.unwrap_err();
    }

    #[tokio::test]
    async fn of_two_workers_that_begin_a_dataset_at_once_the_second_is_refused() {
        let lake = MemoryStore::new();
        let (first, second) = (orders("int32"), orders("string"));
        let seen = newest(&lake, "orders", 0).await.unwrap();
        claim(&lake, &first).await.unwrap();
        // The second worker read the lake before the first one wrote.
        let claims = DefinitionClaims::default();
        assert!(!claims.add(&lake, &second, 0, seen).await.unwrap(), "the number is taken");
        assert!(claim(&lake, &second).await.unwrap_err().is_usage());
        // The listing may not show the object yet. The write finds it.
        lake.hide_once(&key("orders", 1), 0);
        assert!(claim(&lake, &second).await.unwrap_err().is_usage());
        assert_eq!(numbers(&lake), [1]);
    }

    #[tokio::test]
    async fn a_lost_answer_leaves_a_claim_that_the_next_attempt_finds() {
        let lake = MemoryStore::new();
        lake.fail("put_new", 0, Fault::LoseAfter);
        assert!(claim(&lake, &orders("int32")).await.is_err());
        claim(&lake, &orders("int32")).await.unwrap();
        assert_eq!(numbers(&lake), [1]);
    }

    #[tokio::test]
    async fn lakes_of_older_versions_are_judged_by_their_ids_and_keys() {
        let file = "processed/orders/day=03/20250113T103000Z-3f2a91c07d5e4b10-000001-00001.parquet";
        let lake = older_lake(&mut orders("int32"), Some(file)).await;
        check_definitions(&lake, &orders("int32"), false).await.unwrap();
        for other in [orders("int64"), datasets("int32", "", "[\"month\"]")] {
            assert!(check_definitions(&lake, &other, false).await.unwrap_err().is_usage());
        }
        let without_a = orders("int32");
        claim(&lake, &without_a).await.unwrap();
        assert_eq!(numbers(&lake), [1]);
        assert!(check_definitions(&lake, &orders("int64"), false).await.unwrap_err().is_usage());
        // Ids alone are of a definition that no row was written with.
        let lake = older_lake(&mut orders("int32"), None).await;
        check_definitions(&lake, &orders("int64"), false).await.unwrap();
    }

    #[tokio::test]
    async fn a_history_that_cannot_be_read_is_an_error() {
        let lake = MemoryStore::new();
        claim(&lake, &orders("int32")).await.unwrap();
        lake.tamper(&key("orders", 1), Some(Bytes::from_static(b"{}")));
        let message = claim(&lake, &orders("int32")).await.unwrap_err().to_string();
        assert!(
            message.starts_with("_definitions/orders/00000001.json cannot be read: it has format null"),
            "{message}"
        );
    }

    /// What a worker does next: read, or write what follows from what it read. A crash forgets what it read.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Go,
        Crash,
        LoseAnswer,
    }

    fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
        let step = prop_oneof![6 => Just(Step::Go), 1 => Just(Step::Crash), 1 => Just(Step::LoseAnswer)];
        prop::collection::vec((0..5_usize, step), 0..40)
    }

    proptest! {
        #[test]
        fn workers_at_once_never_give_a_column_two_types_whatever_crashes(
            types in prop::collection::vec(prop::sample::select(vec!["int32", "int64", "string"]), 1..5),
            steps in steps(),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let lake = MemoryStore::new();
            let workers: Vec<Datasets> = types.iter().map(|data_type| orders(data_type)).collect();
            let mut read: Vec<Option<Newest>> = workers.iter().map(|_| None).collect();
            let claims = DefinitionClaims::default();
            runtime.block_on(async {
                for (worker, step) in steps {
                    let worker = worker % workers.len();
                    match (step, read[worker].take()) {
                        (Step::Crash, _) => {}
                        (_, None) => read[worker] = Some(newest(&lake, "orders", 0).await.unwrap()),
                        (step, Some(newest)) => {
                            if matches!(step, Step::LoseAnswer) {
                                lake.fail("put_new", 0, Fault::LoseAfter);
                            }
                            let _ = claims.add(&lake, &workers[worker], 0, newest).await;
                        }
                    }
                }
                // The last lost answer may not have been asked for yet.
                let _ = claim(&lake, &workers[0]).await;
            });
            let history = runtime.block_on(read_history(&lake, "orders")).unwrap();
            let fits = workers.iter().filter(|own| refusal("orders", own.changes(0, &history), false).is_none());
            let fitting: Vec<String> = fits.map(|own| format!("{:?}", own.history(0))).collect();
            prop_assert!(!fitting.is_empty() && fitting.iter().all(|own| *own == fitting[0]), "{fitting:?}");
        }
    }
}
