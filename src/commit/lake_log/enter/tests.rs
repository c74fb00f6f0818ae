//! Entering: lost answers, refusals, heads of any age, several at once, and trimmed versions. Whatever happens, each epoch is in the
//! log once.

use bytes::Bytes;
use futures::future::join_all;

use super::*;
use crate::commit::epoch_id::EpochId;
use crate::commit::lake_log::end::{newest_version, run_of};
use crate::commit::lake_log::testing::{commit, epoch, intend, process};
use crate::lake::{Fault, MemoryStore, ObjectKey, ObjectStore};

/// The epochs of the log, in order. Checks the chain of hashes.
async fn log(lake: &MemoryStore) -> Vec<EpochId> {
    log_after(lake, 0).await
}

/// The same, after what was trimmed.
async fn log_after(lake: &MemoryStore, version: u64) -> Vec<EpochId> {
    let mut epochs = Vec::new();
    let mut previous: Option<EntryHash> = None;
    for stored in run_of(&list_after(lake, LogVersion(version)).await.unwrap()) {
        let bytes = lake.object(&stored.version.key()).unwrap();
        let entry = Entry::from_bytes(&stored.version.key(), &bytes).unwrap();
        assert!(previous.is_none_or(|hash| hash == entry.previous), "version {}", stored.version);
        let known = epochs.iter().rev().zip(&entry.recent).all(|(before, recent)| before == recent);
        assert!(known, "version {} names the versions before it", stored.version);
        previous = Some(EntryHash::of(&bytes));
        epochs.push(entry.epoch);
    }
    epochs
}

fn calls_since(lake: &MemoryStore, before: usize) -> Vec<&'static str> {
    lake.calls()[before..].iter().map(|(call, _)| *call).collect()
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_alone_writes_and_confirms_and_lists_nothing() {
    let lake = MemoryStore::new();
    let stores = process(&lake);
    for number in 0..5 {
        let manifest = intend(&stores, 1, number).await;
        let before = lake.calls().len();
        assert_eq!(enter(&stores, &manifest).await.unwrap(), Some(LogVersion(number + 1)));
        if number > 0 {
            assert_eq!(calls_since(&lake, before), ["put_new", "checksum"]);
        }
    }
    assert_eq!(log(&lake).await.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn the_requests_of_an_epoch_do_not_grow_with_the_number_of_processes() {
    for count in [2_u8, 10, 100] {
        let lake = MemoryStore::new();
        let processes: Vec<Stores> = (0..count).map(|_| process(&lake)).collect();
        let mut most = 0;
        for round in 0..3 {
            for (me, stores) in (0..count).zip(&processes) {
                let manifest = intend(stores, me, round).await;
                let before = lake.calls().len();
                enter(stores, &manifest).await.unwrap();
                if round == 2 {
                    assert_eq!(calls_since(&lake, before), ["list", "get", "put_new", "checksum"], "{count} processes");
                }
                most = most.max(lake.calls().len() - before);
            }
        }
        assert!(most <= 6, "{most} requests of {count} processes");
        assert_eq!(log(&lake).await.len(), 3 * usize::from(count));
    }
}

#[tokio::test(start_paused = true)]
async fn an_epoch_enters_once_whichever_answer_is_lost_and_whoever_repeats_it() {
    for entries in [0, 1, 3] {
        for operation in ["put_new", "checksum", "list", "get"] {
            for fault in [Fault::LoseBefore, Fault::LoseAfter, Fault::Refuse] {
                let lake = MemoryStore::new();
                let (one, two) = (process(&lake), process(&lake));
                for number in 0..entries {
                    commit(if number == 1 { &two } else { &one }, 2, number).await;
                }
                let manifest = intend(&one, 1, 9).await;
                head(&two).await.unwrap();
                lake.fail(operation, 0, fault);
                let first = enter(&one, &manifest).await;
                assert!(first.is_ok() || fault == Fault::Refuse, "{operation} {fault:?}: {first:?}");
                let expected = Some(LogVersion(entries + 1));
                for stores in [&one, &two, &process(&lake)] {
                    let entered = match enter(stores, &manifest).await {
                        Err(CommitError::Lake(_)) => enter(stores, &manifest).await,
                        entered => entered,
                    };
                    assert_eq!(entered.unwrap(), expected, "{operation} {fault:?}");
                }
                let next = intend(&two, 2, 77).await;
                // If the scripted fault has not occurred yet, it occurs now.
                let entered = match enter(&two, &next).await {
                    Err(CommitError::Lake(_)) => enter(&two, &next).await,
                    entered => entered,
                };
                assert_eq!(entered.unwrap(), Some(LogVersion(entries + 2)), "{operation} {fault:?}");
                assert_eq!(log(&lake).await.len() as u64, entries + 2, "{operation} {fault:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_epoch_is_found_behind_any_number_of_entries() {
    for between in [0, 1, 99, 100, 101, 102, 150, 203, 350] {
        let lake = MemoryStore::new();
        let (sleeper, other) = (process(&lake), process(&lake));
        commit(&sleeper, 1, 0).await;
        let manifest = intend(&sleeper, 1, 1).await;
        // Another process finishes the epoch, and commits many of its own. Then the first one wakes up.
        assert_eq!(enter(&other, &manifest).await.unwrap(), Some(LogVersion(2)));
        for number in 0..between {
            commit(&other, 2, number).await;
        }
        let before = lake.calls().len();
        assert_eq!(enter(&sleeper, &manifest).await.unwrap(), Some(LogVersion(2)), "{between} entries");
        assert!(lake.calls().len() - before <= 4 + usize::try_from(between / 100).unwrap());
        // And one that is not there is entered at the end.
        let new = epoch(1, 2, LogVersion(1));
        assert_eq!(enter(&sleeper, &new).await.unwrap(), Some(LogVersion(between + 3)));
        assert_eq!(log(&lake).await.len() as u64, between + 3);
    }
}

#[tokio::test(start_paused = true)]
async fn many_that_enter_at_once_get_versions_of_their_own() {
    let lake = MemoryStore::new();
    let processes: Vec<Stores> = (0..6).map(|_| process(&lake)).collect();
    let entering = (0..6_u8).flat_map(|me| (0..4).map(move |number| (me, number))).map(|(me, number)| {
        // Several groups of one process share the end of the log.
        let stores = processes[usize::from(me)].clone();
        async move { commit(&stores, me, number).await }
    });
    let mut versions = join_all(entering).await;
    versions.sort_unstable();
    assert_eq!(versions, (1..=24).collect::<Vec<u64>>());
    assert_eq!(log(&lake).await.len(), 24);
}

#[tokio::test(start_paused = true)]
async fn two_that_enter_one_epoch_at_once_enter_it_once() {
    for entries in 0..3 {
        let lake = MemoryStore::new();
        let (one, two) = (process(&lake), process(&lake));
        for number in 0..entries {
            commit(&one, 1, number).await;
        }
        let manifest = intend(&one, 1, 9).await;
        let (first, second) = tokio::join!(enter(&one, &manifest), enter(&two, &manifest));
        assert_eq!((first.unwrap(), second.unwrap()), (Some(LogVersion(entries + 1)), Some(LogVersion(entries + 1))));
        assert_eq!(log(&lake).await.len() as u64, entries + 1);
    }
}

/// Removes the entries through this version, in their order.
fn trim(lake: &MemoryStore, through: u64) {
    (1..=through).for_each(|version| lake.tamper(&LogVersion(version).key(), None));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_slept_while_the_log_was_trimmed_enters_at_the_end() {
    for trimmed in [1, 2, 5, 9, 119] {
        let lake = MemoryStore::new();
        let (idle, other) = (process(&lake), process(&lake));
        commit(&idle, 1, 0).await;
        for number in 0..119 {
            commit(&other, 2, number).await;
        }
        // Nothing of the idle process is under way, so its intent does not keep entries.
        trim(&lake, trimmed);
        let manifest = intend(&idle, 1, 1).await;
        assert_eq!(manifest.head, LogVersion(1), "it knows an old end");
        assert_eq!(enter(&idle, &manifest).await.unwrap(), Some(LogVersion(121)), "trimmed through {trimmed}");
        assert_eq!(log_after(&lake, trimmed).await.last(), Some(&manifest.epoch));
        assert_eq!(commit(&idle, 1, 2).await, 122);
        assert_eq!(commit(&other, 2, 999).await, 123);
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_another_sleeper_wrote_into_a_trimmed_version_misleads_nobody() {
    let lake = MemoryStore::new();
    let (one, two, other) = (process(&lake), process(&lake), process(&lake));
    commit(&one, 1, 0).await;
    commit(&two, 2, 0).await;
    for number in 0..200 {
        commit(&other, 3, number).await;
    }
    trim(&lake, 150);
    // A sleeper that knew version 1 wrote an epoch into version 2, and crashed. Another one knows the version 2 that was trimmed.
    let lost = intend(&one, 1, 1).await;
    let sleeping = KnownEntry::next(one.tail.newest().as_deref(), lost.epoch.clone(), b"");
    let recent = sleeping.epochs[1..].to_vec();
    let entry = Entry::new(LogVersion(2), EntryHash::NONE, recent, &lost, "2025-01-13T10:31:00.000Z".to_owned());
    lake.tamper(&LogVersion(2).key(), Some(entry.to_bytes()));
    let manifest = intend(&two, 2, 1).await;
    assert_eq!(manifest.head, LogVersion(2));
    assert_eq!(enter(&two, &manifest).await.unwrap(), Some(LogVersion(203)));
    // Whoever finishes the sleeper's epoch enters it, whatever is in the version that was trimmed.
    for version in [2, 103, 150] {
        lake.tamper(&LogVersion(2).key(), None);
        let recent = (0..version - 1).map(|number| epoch(9, number, LogVersion(0)).epoch);
        let entry =
            Entry::new(LogVersion(version), EntryHash::NONE, recent, &lost, "2025-01-13T10:31:00.000Z".to_owned());
        lake.tamper(&LogVersion(version).key(), Some(entry.to_bytes()));
    }
    assert_eq!(enter(&other, &lost).await.unwrap(), Some(LogVersion(204)));
    lake.tamper(&LogVersion(150).key(), None);
    assert_eq!(run_of(&list_after(&lake, LogVersion::EMPTY).await.unwrap())[0].version, LogVersion(151));
}

#[tokio::test(start_paused = true)]
async fn an_epoch_whose_entry_was_trimmed_does_not_enter_again() {
    let lake = MemoryStore::new();
    let (zombie, other) = (process(&lake), process(&lake));
    let manifest = intend(&zombie, 1, 0).await;
    enter(&other, &manifest).await.unwrap();
    lake.delete(&manifest.epoch.intent_key()).await.unwrap();
    for number in 0..150 {
        commit(&other, 2, number).await;
    }
    trim(&lake, 120);
    assert_eq!(enter(&zombie, &manifest).await.unwrap(), None);
    assert_eq!(log(&lake).await.len(), 31);
    // An epoch whose intent exists is not among what was trimmed.
    let pending = epoch(1, 5, LogVersion(3));
    lake.put_new(&pending.epoch.intent_key(), pending.to_bytes()).await.unwrap();
    assert_eq!(enter(&other, &pending).await.unwrap(), Some(LogVersion(152)));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_lost_its_end_is_an_error_and_is_not_continued() {
    let lake = MemoryStore::new();
    let stores = process(&lake);
    for number in 0..4 {
        commit(&stores, 1, number).await;
    }
    let manifest = intend(&stores, 1, 4).await;
    for version in 3..=4 {
        lake.tamper(&LogVersion(version).key(), None);
    }
    let error = enter(&process(&lake), &manifest).await.unwrap_err();
    assert!(matches!(error, CommitError::LogCut { known: LogVersion(4), newest: LogVersion(2) }), "{error}");
    assert!(!error.is_retryable());
    assert!(matches!(newest_version(&stores).await, Err(CommitError::LogCut { known: LogVersion(4), .. })));
    assert_eq!(log(&lake).await.len(), 2, "nothing was written");
    // Who knows the end continues with the right number.
    assert_eq!(enter(&stores, &manifest).await.unwrap(), Some(LogVersion(5)));
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_cannot_be_read_is_an_error_with_its_key() {
    let lake = MemoryStore::new();
    commit(&process(&lake), 1, 0).await;
    let key: ObjectKey = LogVersion(1).key();
    let text = String::from_utf8(lake.object(&key).unwrap().to_vec()).unwrap();
    lake.tamper(&key, Some(Bytes::from(text.replace("\"format\":1", "\"format\":7"))));
    let error = enter(&process(&lake), &epoch(1, 1, LogVersion(1))).await.unwrap_err();
    assert!(error.to_string().starts_with("_log/00000000000000000001.json cannot be read: it has format 7"), "{error}");
}
