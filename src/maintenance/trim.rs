//! Removing old entries of the lake log, so that the log does not grow for ever.
//!
//! Owns: which entries may go. Does not own: snapshots, from which readers begin (`commit::lake_log`), what an entry that is gone means for
//! an epoch (`commit::lake_log::enter`).
//!
//! The steps are in this order, which `enter` relies on:
//!
//! 1. *Choose* the highest version to be removed: not above the given snapshot, not the newest of the log, and older than the given age.
//! 2. *List the intents.* The version is not above the lowest head of any of them.
//! 3. *Remove* the entries up to that version, in ascending order, each after the one before it is gone.
//!
//! An intent that is written after step 2 is of an epoch that enters above the newest entry of step 1. A worker that does not know that
//! entry notices that the end of the log, as it knows it, is gone. An intent that cannot be read stops the trim: its head is not known.
//!
//! Ages are differences between times that the store gives to objects: the entry's, and the newest entry's. So no clock but the store's
//! decides, and a lake in which nothing happens keeps its entries.

use std::time::Duration;

use mutations::mutated;

use crate::commit::lake_log::{self, LogVersion};
use crate::commit::log::intents;
use crate::commit::{CommitError, Stores};

/// How old an entry must be to be removed.
pub const TRIM_AGE: Duration = Duration::from_secs(30 * 86_400);

/// What a trim removed, or would remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrimPlan {
    /// Entries.
    pub entries: u64,
    /// The highest version that may go; [`LogVersion::EMPTY`] if none may.
    pub through: LogVersion,
}

/// Removes the entries of the lake log that are older than `age` and in a snapshot. With `dry_run` it only counts. The newest snapshot does
/// not count: if it cannot be read, readers begin at the one before it.
///
/// # Errors
/// As [`trim`].
pub async fn trim_what_snapshots_have(stores: &Stores, age: Duration, dry_run: bool) -> Result<TrimPlan, CommitError> {
    match lake_log::list_snapshots(&*stores.lake).await?.iter().rev().nth(1) {
        Some(snapshot) => trim(stores, *snapshot, age, dry_run).await,
        None => Ok(TrimPlan::default()),
    }
}

/// Removes the entries of the lake log that are older than `age` and not above `snapshot`, the version of a durable snapshot. With
/// `dry_run` it only counts. May run beside workers, and beside other trims.
///
/// # Errors
/// The lake fails, or an intent cannot be read. What was removed before stays removed.
pub async fn trim(
    stores: &Stores,
    snapshot: LogVersion,
    age: Duration,
    dry_run: bool,
) -> Result<TrimPlan, CommitError> {
    let early = if mutated!(ListIntentsBeforeChoosing) { Some(lowest_head(stores).await?) } else { None };
    let listed = lake_log::list_after(&*stores.lake, LogVersion::EMPTY).await?;
    let Some(chosen) = choose(&listed, snapshot, age) else { return Ok(TrimPlan::default()) };
    let lowest_head = match early {
        Some(lowest) => lowest,
        None => lowest_head(stores).await?,
    };
    let through = match lowest_head {
        Some(head) if !mutated!(TrimAboveIntent) => chosen.min(head),
        _ => chosen,
    };
    // Also what a worker that slept wrote into versions that were trimmed before.
    let trimmed = listed.iter().map(|entry| entry.version).filter(|version| *version <= through);
    let mut plan = TrimPlan { entries: 0, through };
    for version in trimmed {
        if !dry_run {
            stores.lake.delete(&version.key()).await?;
        }
        plan.entries += 1;
    }
    Ok(plan)
}

/// The highest version that is old and not above the snapshot; never the newest.
fn choose(listed: &[lake_log::ListedEntry], snapshot: LogVersion, age: Duration) -> Option<LogVersion> {
    let (newest, others) = lake_log::run_of(listed).split_last()?;
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let is_old = |entry: &&lake_log::ListedEntry| newest.modified_ms.saturating_sub(entry.modified_ms) >= age_ms;
    let old = others.iter().take_while(is_old).take_while(|entry| entry.version <= snapshot);
    old.last().map(|entry| entry.version)
}

/// The lowest head of all intents; `None` if there are none.
async fn lowest_head(stores: &Stores) -> Result<Option<LogVersion>, CommitError> {
    let (found, unreadable) = intents(stores).await?;
    if let Some(unreadable) = unreadable.into_iter().next() {
        return Err(unreadable.into());
    }
    Ok(found.into_iter().map(|intent| intent.head).min())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::time::UNIX_EPOCH;

    use bytes::Bytes;

    use crate::commit::lake_log::testing::{commit, epoch, intend, process};
    use crate::commit::{CommitError, Published};
    use crate::lake::{LocalStore, MemoryStore, ObjectKey, ObjectStore};

    /// Every age counts as old.
    const ANY: Duration = Duration::ZERO;

    async fn versions(lake: &dyn ObjectStore) -> Vec<u64> {
        lake_log::list_after(lake, LogVersion::EMPTY).await.unwrap().iter().map(|entry| entry.version.0).collect()
    }

    async fn lake_of(entries: u64) -> (MemoryStore, Stores) {
        let lake = MemoryStore::new();
        let stores = process(&lake);
        for number in 0..entries {
            commit(&stores, 1, number).await;
        }
        (lake, stores)
    }

    #[tokio::test(start_paused = true)]
    async fn a_trim_keeps_what_is_above_the_snapshot_and_the_newest_entry() {
        let (lake, stores) = lake_of(6).await;
        assert_eq!(trim(&stores, LogVersion(0), ANY, false).await.unwrap(), TrimPlan::default());
        let plan = TrimPlan { entries: 2, through: LogVersion(2) };
        assert_eq!(trim(&stores, LogVersion(2), ANY, true).await.unwrap(), plan);
        assert_eq!(versions(&lake).await.len(), 6, "a dry run removes nothing");
        assert_eq!(trim(&stores, LogVersion(2), ANY, false).await.unwrap(), plan);
        assert_eq!(versions(&lake).await, [3, 4, 5, 6]);
        // What a sleeper wrote into a version that was trimmed goes, too.
        lake.put_new(&LogVersion(1).key(), Bytes::from_static(b"{}")).await.unwrap();
        let plan = TrimPlan { entries: 4, through: LogVersion(5) };
        assert_eq!(trim(&stores, LogVersion(9), ANY, false).await.unwrap(), plan);
        assert_eq!(versions(&lake).await, [6]);
        assert_eq!(trim(&stores, LogVersion(9), ANY, false).await.unwrap(), TrimPlan::default());
        assert_eq!(commit(&process(&lake), 2, 1).await, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn entries_go_through_the_snapshot_before_the_newest_one() {
        let (lake, stores) = lake_of(9).await;
        for (snapshot, through) in [(4, 0), (6, 4), (8, 6)] {
            let key = ObjectKey::new(pipeline::layout::log_snapshot(snapshot)).unwrap();
            lake.put_new(&key, Bytes::from_static(b"x")).await.unwrap();
            let plan = trim_what_snapshots_have(&stores, ANY, false).await.unwrap();
            assert_eq!(plan.through, LogVersion(through));
        }
        assert_eq!(versions(&lake).await, [7, 8, 9]);
        // A process that starts finds the end from the newest snapshot on, also if that is the newest version.
        assert_eq!(commit(&process(&lake), 2, 1).await, 10);
        lake.put_new(&ObjectKey::new(pipeline::layout::log_snapshot(10)).unwrap(), Bytes::from_static(b"x"))
            .await
            .unwrap();
        assert_eq!(commit(&process(&lake), 2, 2).await, 11);
    }

    #[tokio::test]
    async fn an_entry_goes_when_it_is_older_than_the_newest_one_by_the_age() {
        let folder = tempfile::tempdir().unwrap();
        let lake = LocalStore::open(folder.path().join("lake")).unwrap();
        let stores = process(&lake);
        for number in 0..5 {
            commit(&stores, 1, number).await;
        }
        let now = UNIX_EPOCH + Duration::from_secs(20_000 * 86_400);
        let set_age = |version: u64, days: u64| {
            let path = Path::new(lake.root()).join(LogVersion(version).key().as_str());
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(now - Duration::from_secs(days * 86_400)).unwrap();
        };
        for (version, days) in [(1, 70), (2, 41), (3, 39), (4, 45), (5, 10)] {
            set_age(version, days);
        }
        let plan = trim(&stores, LogVersion(5), TRIM_AGE, false).await.unwrap();
        assert_eq!((plan.entries, versions(&lake).await), (2, vec![3, 4, 5]), "the newest entry is 10 days old");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_goes_above_the_head_of_an_intent_and_nothing_while_one_cannot_be_read() {
        let (lake, stores) = lake_of(3).await;
        let sleeper = process(&lake);
        let manifest = intend(&sleeper, 7, 0).await;
        for number in 3..9 {
            commit(&stores, 1, number).await;
        }
        assert_eq!(trim(&stores, LogVersion(8), ANY, false).await.unwrap().through, LogVersion(3));
        assert_eq!(versions(&lake).await, [4, 5, 6, 7, 8, 9]);
        // It wakes up. Its epoch has its version once.
        let entered = Published::found(manifest.clone()).enter(&sleeper).await.unwrap();
        assert_eq!(entered.version(), Some(LogVersion(10)));
        assert_eq!(trim(&stores, LogVersion(9), ANY, false).await.unwrap().through, LogVersion(3));
        stores.lake.delete(&manifest.epoch.intent_key()).await.unwrap();
        // An intent of an earlier version has no head, and one that cannot be read has none either.
        let old = epoch(8, 0, LogVersion::EMPTY);
        stores.lake.put_new(&old.epoch.intent_key(), old.to_bytes()).await.unwrap();
        assert_eq!(trim(&stores, LogVersion(9), ANY, false).await.unwrap().entries, 0);
        lake.tamper(&old.epoch.intent_key(), Some(Bytes::from_static(b"{}")));
        assert!(matches!(trim(&stores, LogVersion(9), ANY, false).await, Err(CommitError::Unreadable(_))));
        assert_eq!(versions(&lake).await, [4, 5, 6, 7, 8, 9, 10]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_knew_only_trimmed_entries_enters_once_at_the_end() {
        let (lake, stores) = lake_of(1).await;
        let idle = process(&lake);
        assert_eq!(commit(&idle, 7, 0).await, 2);
        for number in 1..9 {
            commit(&stores, 1, number).await;
        }
        // Its intent is written after the trim has listed the intents, and enters before and after entries are removed.
        for through in [1, 2, 3, 8] {
            assert_eq!(trim(&stores, LogVersion(through), ANY, false).await.unwrap().through, LogVersion(through));
            let newest = versions(&lake).await.pop().unwrap();
            assert_eq!(commit(&idle, 7, through).await, newest + 1);
        }
    }
}
