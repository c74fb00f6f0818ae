//! The lake log as readers see it: the end, both orders, times, trimmed entries, snapshots, and the lake at a version.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use checkpoints::{LeaseOwner, MemoryStore as MemoryLeases};
use pipeline::time::parse_rfc3339;

use crate::commit::lake_log::*;
use crate::commit::log::Fold;
use crate::commit::manifest::{Manifest, ObjectKind, RemovedObject};
use crate::commit::stores::Stores;
use crate::inspect::sample_lake::{STEP_MS, SampleLake};
use crate::lake::{Fault, MemoryStore, ObjectKey};
use crate::retry::RetryPolicy;

fn stores(lake: &MemoryStore) -> Stores {
    Stores::new(Arc::new(lake.clone()), Arc::new(MemoryLeases::new()), RetryPolicy::default())
}

fn sample(lake: &MemoryStore) -> SampleLake<'static> {
    let lake = lake.clone();
    SampleLake::new(2, move |key, bytes| lake.tamper(key, Some(bytes)))
}

/// The keys that are live at a version.
async fn live(lake: &MemoryStore, version: LogVersion, filter: ObjectFilter) -> BTreeSet<ObjectKey> {
    let at = lake_at(lake, &extent(lake).await.unwrap(), version).await.unwrap();
    let mut objects = at.live_objects(lake, filter);
    let mut keys = BTreeSet::new();
    while let Some(object) = objects.next().await.unwrap() {
        assert!(keys.insert(object.key.clone()), "{} is given once", object.key);
    }
    keys
}

fn keys(manifests: &[Manifest]) -> BTreeSet<ObjectKey> {
    manifests.iter().flat_map(|manifest| &manifest.objects).map(|object| object.key.clone()).collect()
}

async fn versions_backward(lake: &MemoryStore, from: LogVersion) -> Result<Vec<u64>, HistoryError> {
    let mut seen = Vec::new();
    let extent = extent(lake).await?;
    read_backward(lake, from, &extent, &mut |entry| {
        seen.push(entry.version.0);
        true
    })
    .await?;
    Ok(seen)
}

#[tokio::test]
async fn the_lake_at_each_version_is_what_its_entries_add_up_to_with_snapshots_and_without() {
    let lake = MemoryStore::new();
    let mut sample = sample(&lake);
    let mut manifests = Vec::new();
    for number in 0..7 {
        manifests.push(sample.commit(number % 3));
        // Of every third version there is a snapshot, which is made from the one before.
        let written = write_snapshot(&stores(&lake), &format!("w-{number}"), 3).await.unwrap();
        let is_due = number % 3 == 2;
        let expected = if is_due { SnapshotWritten::At(LogVersion(number + 1)) } else { SnapshotWritten::NotNeeded };
        assert_eq!(written, expected);
    }
    let extent = extent(&lake).await.unwrap();
    assert_eq!((extent.newest, extent.snapshots.clone()), (LogVersion(7), vec![LogVersion(3), LogVersion(6)]));
    for version in 0..=7_usize {
        let with = lake_at(&lake, &extent, LogVersion(version as u64)).await.unwrap();
        let base = extent.snapshots.iter().rev().find(|snapshot| snapshot.0 <= version as u64);
        assert_eq!(with.base, base.copied().unwrap_or_default());
        let without = Extent { snapshots: Vec::new(), ..extent.clone() };
        let without = lake_at(&lake, &without, LogVersion(version as u64)).await.unwrap();
        let mut fold = Fold::default();
        manifests[..version].iter().for_each(|manifest| fold.add(manifest));
        for at in [&with, &without] {
            assert_eq!((&at.fold, at.hash), (&fold, without.hash));
            assert_eq!(at.chains, without.chains);
            assert_eq!(at.live_by_kind(), fold.objects());
        }
        assert_eq!(live(&lake, LogVersion(version as u64), ObjectFilter::default()).await, keys(&manifests[..version]));
    }
}

#[tokio::test]
async fn live_objects_are_found_by_kind_dataset_and_partition() {
    let lake = MemoryStore::new();
    let mut sample = sample(&lake);
    let manifests = vec![sample.commit(5), sample.commit(5)];
    write_snapshot(&stores(&lake), "w-1", 1).await.unwrap();
    let third = sample.commit(5);
    let all: BTreeSet<ObjectKey> = keys(&[manifests, vec![third]].concat());
    let wanted = |what: &dyn Fn(&str) -> bool| all.iter().filter(|key| what(key.as_str())).cloned().collect();
    let found = |filter| live(&lake, LogVersion(3), filter);
    let users = ObjectFilter { dataset: Some("users".to_owned()), ..ObjectFilter::default() };
    assert_eq!(found(users).await, wanted(&|key| key.starts_with("processed/users/")));
    let raw = ObjectFilter { kind: Some(ObjectKind::Raw), ..ObjectFilter::default() };
    assert_eq!(found(raw).await, wanted(&|key| key.starts_with("raw/")));
    let folder = "processed/events/year=2025/month=01/day=02/";
    let partition = ObjectFilter { prefix: Some(folder.to_owned()), ..ObjectFilter::default() };
    assert_eq!(found(partition).await, wanted(&|key| key.starts_with(folder)));
}

#[tokio::test]
async fn what_an_entry_removes_is_live_before_it_and_not_after() {
    for snapshot_before in [0, 1, 2, 3] {
        let lake = MemoryStore::new();
        let mut sample = sample(&lake);
        let first = sample.commit(2);
        let removed = RemovedObject::from(&first.objects[0]);
        let gone = removed.key.clone();
        if snapshot_before == 1 {
            write_snapshot(&stores(&lake), "w-1", 1).await.unwrap();
        }
        let second = sample.publish(1);
        sample.enter(&second, |entry| entry.removed = vec![removed.clone()]);
        if snapshot_before == 2 {
            write_snapshot(&stores(&lake), "w-2", 1).await.unwrap();
        }
        let third = sample.commit(1);
        if snapshot_before == 3 {
            write_snapshot(&stores(&lake), "w-3", 1).await.unwrap();
        }
        assert!(live(&lake, LogVersion(1), ObjectFilter::default()).await.contains(&gone));
        let mut expected = keys(&[first.clone(), second, third]);
        expected.remove(&gone);
        assert_eq!(live(&lake, LogVersion(3), ObjectFilter::default()).await, expected);
        let at = lake_at(&lake, &extent(&lake).await.unwrap(), LogVersion(3)).await.unwrap();
        let count: u64 = at.live_by_kind().values().map(|total| total.count).sum();
        assert_eq!(count, expected.len() as u64, "with a snapshot before {snapshot_before}");
        assert_eq!(at.live_by_kind(), at.fold.objects(), "both ways of counting agree");
        assert_eq!(at.fold.objects()[&ObjectKind::Processed].count, 3, "what was removed is not counted");
    }
}

#[tokio::test]
async fn a_full_part_is_named_by_the_next_snapshot_and_not_written_again() {
    let lake = MemoryStore::new();
    let mut sample = sample(&lake);
    // An epoch of 14,000 files, of which 11,200 are of one dataset: more than half a part.
    sample.commit(14_000);
    write_snapshot(&stores(&lake), "w-1", 1).await.unwrap();
    sample.commit(2);
    write_snapshot(&stores(&lake), "w-2", 1).await.unwrap();
    let [one, two] = [LogVersion(1), LogVersion(2)].map(|version| {
        let lake = lake.clone();
        async move { get_snapshot(&lake, version).await.unwrap() }
    });
    let (one, two) = (one.await, two.await);
    let kept: Vec<_> = one.parts.iter().filter(|part| two.parts.contains(part)).collect();
    assert!(kept.len() == 1 && kept[0].group.dataset.as_deref() == Some("events") && kept[0].objects == 11_200);
    let objects: u64 = two.parts.iter().map(|part| part.objects).sum();
    assert_eq!(objects, 14_000 + 2 + 2 + 2);
    for snapshot in [one, two] {
        let key = Snapshot::key_of(snapshot.version);
        assert_eq!(Snapshot::from_bytes(&key, &snapshot.to_bytes().unwrap()), Ok(snapshot));
    }
}

#[tokio::test]
async fn a_snapshot_is_written_once_whatever_is_lost_and_whoever_tries() {
    for fault in [None, Some(Fault::LoseBefore), Some(Fault::LoseAfter)] {
        // The parts, and then the head: one PUT each.
        for put in 0..4 {
            let lake = MemoryStore::new();
            let mut sample = sample(&lake);
            let manifest = sample.commit(1);
            if let Some(fault) = fault {
                lake.fail("put_new", put, fault);
            }
            let once = Stores::new(Arc::new(lake.clone()), Arc::new(MemoryLeases::new()), RetryPolicy::NONE);
            let first = write_snapshot(&once, "w-1", 1).await;
            assert_eq!(first.is_ok(), fault.is_none());
            let second = write_snapshot(&stores(&lake), "w-2", 1).await.unwrap();
            let is_there = first.is_ok() || (fault == Some(Fault::LoseAfter) && put == 3);
            assert_eq!(second == SnapshotWritten::NotNeeded, is_there, "{fault:?} {put}");
            assert_eq!(live(&lake, LogVersion(1), ObjectFilter::default()).await, keys(&[manifest]));
        }
    }
    // With retries a lost answer makes no difference, and of two writers one is first.
    let lake = MemoryStore::new();
    sample(&lake).commit(1);
    lake.fail("put_new", 3, Fault::LoseAfter);
    let (one, two) = (stores(&lake), stores(&lake));
    let (one, two) = tokio::join!(write_snapshot(&one, "w-1", 1), write_snapshot(&two, "w-2", 1));
    let outcomes = [one.unwrap(), two.unwrap()];
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, SnapshotWritten::At(_))).count(), 1, "{outcomes:?}");
}

#[tokio::test]
async fn a_damaged_snapshot_is_passed_over_and_the_next_one_replaces_it() {
    let lake = MemoryStore::new();
    let mut sample = sample(&lake);
    let mut manifests = vec![sample.commit(1)];
    write_snapshot(&stores(&lake), "w-1", 1).await.unwrap();
    lake.tamper(&Snapshot::key_of(LogVersion(1)), Some(Bytes::from_static(b"damaged")));
    manifests.push(sample.commit(1));
    assert_eq!(live(&lake, LogVersion(2), ObjectFilter::default()).await, keys(&manifests));
    assert_eq!(
        write_snapshot(&stores(&lake), "w-2", 1).await.unwrap(),
        SnapshotWritten::At(LogVersion(2)),
        "it is made from the entries"
    );
    // A part that is gone is an error that names it: the objects must not seem to be gone.
    let part = get_snapshot(&lake, LogVersion(2)).await.unwrap().parts[0].key.clone();
    lake.tamper(&part, None);
    let at = lake_at(&lake, &extent(&lake).await.unwrap(), LogVersion(2)).await.unwrap();
    let mut objects = at.live_objects(&lake, ObjectFilter::default());
    let error = loop {
        match objects.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the part is missing"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains(part.as_str()), "{error}");
}

#[tokio::test]
async fn entries_are_read_downwards_from_the_end_and_a_gap_is_an_error() {
    let lake = MemoryStore::new();
    let mut sample = sample(&lake);
    assert_eq!(versions_backward(&lake, LogVersion::EMPTY).await.unwrap(), Vec::<u64>::new());
    (0..50).for_each(|_| drop(sample.commit(0)));
    let expected: Vec<u64> = (1..=50).rev().collect();
    assert_eq!(versions_backward(&lake, LogVersion(50)).await.unwrap(), expected);
    assert_eq!(versions_backward(&lake, LogVersion(3)).await.unwrap(), [3, 2, 1]);
    let kept = lake.object(&LogVersion(20).key()).unwrap();
    lake.tamper(&LogVersion(20).key(), None);
    assert_eq!(versions_backward(&lake, LogVersion(50)).await, Err(HistoryError::Missing(LogVersion(20))));
    let at = lake_at(&lake, &extent(&lake).await.unwrap(), LogVersion(50)).await;
    assert_eq!(at, Err(HistoryError::Missing(LogVersion(20))));
    // An entry that was exchanged breaks the chain of hashes.
    let text = String::from_utf8(kept.to_vec()).unwrap().replace("\"records\":20", "\"records\":21");
    lake.tamper(&LogVersion(20).key(), Some(text.into()));
    assert_eq!(versions_backward(&lake, LogVersion(50)).await, Err(HistoryError::Broken(LogVersion(21))));
    let at = lake_at(&lake, &extent(&lake).await.unwrap(), LogVersion(50)).await;
    assert_eq!(at, Err(HistoryError::Broken(LogVersion(21))));
}

#[tokio::test]
async fn trimmed_entries_and_what_a_late_worker_wrote_in_their_place_do_not_count() {
    let lake = MemoryStore::new();
    let mut sample = sample(&lake);
    let manifests: Vec<Manifest> = (0..10).map(|_| sample.commit(1)).collect();
    write_snapshot(&stores(&lake), "w-1", 1).await.unwrap();
    let late = lake.object(&LogVersion(5).key()).unwrap();
    (1..=7).for_each(|version| lake.tamper(&LogVersion(version).key(), None));
    let eleventh = sample.commit(1);
    let extent = extent(&lake).await.unwrap();
    assert_eq!(
        (extent.newest, versions_backward(&lake, LogVersion(11)).await.unwrap()),
        (LogVersion(11), vec![11, 10, 9, 8])
    );
    // A worker that slept enters its epoch where an entry was trimmed, directly below the others.
    let text = String::from_utf8(late.to_vec()).unwrap().replace("\"version\":5", "\"version\":7");
    let recent = manifests[4].epoch.as_str();
    let text = text.replace("\"recent\":[", &format!("\"recent\":[\"{recent}\",\"{recent}\","));
    lake.tamper(&LogVersion(7).key(), Some(text.into()));
    assert_eq!(versions_backward(&lake, LogVersion(11)).await.unwrap(), [11, 10, 9, 8]);
    let all = keys(&[manifests, vec![eleventh]].concat());
    assert_eq!(live(&lake, LogVersion(11), ObjectFilter::default()).await, all);
    assert_eq!(resolve(&lake, &extent, VersionOrTime::Version(LogVersion(10))).await, Ok(LogVersion(10)));
    let error = resolve(&lake, &extent, VersionOrTime::Version(LogVersion(4))).await.unwrap_err();
    assert!(error.to_string().contains("the entries of version 4 are gone"), "{error}");
    let error = resolve(&lake, &extent, VersionOrTime::Version(LogVersion(12))).await.unwrap_err();
    assert!(error.to_string().contains("there is no version 12"), "{error}");
}

#[tokio::test]
async fn a_time_means_the_newest_version_that_was_entered_by_then() {
    let lake = MemoryStore::new();
    let mut sample = sample(&lake);
    (0..20).for_each(|_| drop(sample.commit(0)));
    let extent = extent(&lake).await.unwrap();
    for version in 1..=20 {
        let entry = get_entry(&lake, LogVersion(version)).await.unwrap().unwrap().entry;
        let entered = parse_rfc3339(entry.entered_at.as_bytes()).unwrap();
        for (ms, expected) in [(entered, version), (entered + STEP_MS - 1, version), (entered - 1, version - 1)] {
            assert_eq!(resolve(&lake, &extent, VersionOrTime::Time(ms)).await, Ok(LogVersion(expected)));
        }
    }
    // An empty log has one version: the empty lake.
    let empty = MemoryStore::new();
    let none = crate::commit::lake_log::extent(&empty).await.unwrap();
    assert_eq!(resolve(&empty, &none, VersionOrTime::Version(LogVersion::EMPTY)).await, Ok(LogVersion::EMPTY));
    assert!(resolve(&empty, &none, VersionOrTime::Version(LogVersion(1))).await.is_err());
}

#[tokio::test]
async fn unknown_objects_beside_the_log_make_no_difference() {
    let lake = MemoryStore::new();
    let mut sample = sample(&lake);
    let manifest = sample.commit(1);
    for key in ["_log/README.txt", "_log/9.json", "_log/0x.json", "_log/snapshots/0.txt", "_log/snapshots/parts/x"] {
        lake.tamper(&ObjectKey::new(key).unwrap(), Some(Bytes::from_static(b"?")));
    }
    assert_eq!(extent(&lake).await.unwrap(), Extent { newest: LogVersion(1), snapshots: Vec::new() });
    write_snapshot(&stores(&lake), "w-1", 1).await.unwrap();
    assert_eq!(live(&lake, LogVersion(1), ObjectFilter::default()).await, keys(&[manifest]));
}

#[tokio::test]
async fn a_worker_writes_a_snapshot_after_a_number_of_commits() {
    let lake = MemoryStore::new();
    let mut sample = sample(&lake);
    let mut snapshots = Snapshots::new(stores(&lake), &LeaseOwner::from_random([1; 16]), 8);
    for _ in 0..40 {
        sample.commit(0);
        snapshots.maybe_write();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let extent = extent(&lake).await.unwrap();
    assert!((3..=5).contains(&extent.snapshots.len()), "{extent:?}");
    assert!(extent.snapshots.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 8));
}
