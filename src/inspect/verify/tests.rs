//! The audit: each fault is made in a lake that is clean otherwise, and found.

use std::sync::Arc;

use bytes::Bytes;
use checkpoints::{
    LeaseStore, ManifestName, MemoryStore as MemoryLeases, NewLease, Position, ShardId, ShardKey, StreamName,
};
use pipeline::layout;

use super::*;
use crate::commit::RemovedObject;
use crate::commit::lake_log::ObjectFilter;
use crate::commit::lake_log::{Snapshot, VersionOrTime, get_snapshot, resolve, write_snapshot};
use crate::inspect::sample_lake::SampleLake;
use crate::lake::{MemoryStore, ObjectKey, ObjectStore};
use crate::retry::RetryPolicy;

/// The faults of a lake without commit records, with a row at record 7.
fn faults(last_manifest: Option<&str>) -> usize {
    let key = ShardKey::new(StreamName::new("s").unwrap(), ShardId::new("a").unwrap());
    let mut lease = Lease::new(NewLease::new(key, Position::at(7_u64.into())));
    lease.last_manifest = last_manifest.map(|name| ManifestName::new(name).unwrap());
    let mut audit = Audit::default();
    audit.check_chains(&Chains::default(), &[lease], Vec::new(), Vec::new());
    audit.faults.len()
}

#[test]
fn a_row_that_no_commit_moved_is_where_another_program_left_it() {
    assert_eq!(faults(None), 0);
    assert_eq!(faults(Some("_intents/lost.json")), 1, "the commit record that moved it is missing");
}

fn sample(lake: &MemoryStore) -> SampleLake<'static> {
    let lake = lake.clone();
    SampleLake::new(2, move |key, bytes| lake.tamper(key, Some(bytes)))
}

async fn stores(lake: &MemoryStore, sample: &SampleLake<'_>) -> Stores {
    let leases = MemoryLeases::new();
    leases.create(&sample.rows()).await.unwrap();
    let streams = [SampleLake::key(0).stream];
    Stores::new(Arc::new(lake.clone()), Arc::new(leases), RetryPolicy::NONE).with_streams(streams)
}

async fn audit(lake: &MemoryStore, sample: &SampleLake<'_>) -> Audit {
    verify(&stores(lake, sample).await, &|_| {}).await.unwrap()
}

/// A lake of 12 epochs with snapshots at versions 4 and 9.
async fn with_snapshots() -> (MemoryStore, SampleLake<'static>) {
    let lake = MemoryStore::new();
    let mut sample = sample(&lake);
    for number in 1..=12 {
        sample.commit(2);
        if [4, 9].contains(&number) {
            write_snapshot(&stores(&lake, &sample).await, &format!("w-{number}"), 1).await.unwrap();
        }
    }
    (lake, sample)
}

/// An entry with some of its text replaced.
fn replace(lake: &MemoryStore, key: &ObjectKey, from: &str, to: &str) {
    let text = String::from_utf8(lake.object(key).unwrap().to_vec()).unwrap();
    assert!(text.contains(from), "{text}");
    lake.tamper(key, Some(text.replacen(from, to, 1).into()));
}

#[tokio::test]
async fn a_lake_with_a_log_is_clean_and_so_is_one_whose_old_entries_were_trimmed() {
    let (lake, sample) = with_snapshots().await;
    let whole = audit(&lake, &sample).await;
    assert_eq!(whole.faults, []);
    assert_eq!((whole.epochs, whole.log_version, whole.snapshots, whole.objects), (12, Some(12), 2, 12 * 4));
    for key in ["_log/readme", "_log/snapshots/parts/other", "_log/later/1.json"] {
        lake.tamper(&ObjectKey::new(key).unwrap(), Some(Bytes::from_static(b"?")));
    }
    let late = lake.object(&LogVersion(2).key()).unwrap();
    for trimmed in 1..=8 {
        lake.tamper(&LogVersion(trimmed).key(), None);
        let trimmed_lake = audit(&lake, &sample).await;
        assert_eq!(trimmed_lake.faults, [], "through {trimmed}");
        assert_eq!(trimmed_lake.objects, 12 * 4);
    }
    // A worker that slept has entered its epoch in a trimmed place, directly below the others.
    let text = String::from_utf8(late.to_vec()).unwrap().replace("\"version\":2", "\"version\":8");
    lake.tamper(&LogVersion(8).key(), Some(text.into()));
    assert_eq!(audit(&lake, &sample).await.faults, []);
}

#[tokio::test]
async fn a_lake_without_a_log_has_no_faults_of_one() {
    let lake = MemoryStore::new();
    let mut sample = sample(&lake);
    let manifest = sample.publish(1);
    sample.record(&manifest);
    let audit = audit(&lake, &sample).await;
    assert_eq!((audit.log_version, audit.faults), (None, vec![]));
    // A lake of a format that has a log must have one.
    lake.tamper(&ObjectKey::new(layout::LAKE_IDENTITY).unwrap(), Some(Bytes::from_static(b"{\"format\":3}")));
    let audit = verify(&stores(&lake, &sample).await, &|_| {}).await.unwrap();
    assert_eq!(audit.faults, [Fault::NotEntered { epoch: manifest.epoch.to_string() }]);
    // While the log is built, it lacks epochs.
    let migrating = Bytes::from_static(b"{\"format\":3,\"migrates_from\":2}");
    lake.tamper(&ObjectKey::new(layout::LAKE_IDENTITY).unwrap(), Some(migrating));
    let audit = verify(&stores(&lake, &sample).await, &|_| {}).await.unwrap();
    assert_eq!((audit.log_version, audit.faults), (None, vec![]));
}

#[tokio::test]
async fn versions_that_are_missing_are_a_gap() {
    let (lake, sample) = with_snapshots().await;
    lake.tamper(&LogVersion(11).key(), None);
    let found = audit(&lake, &sample).await.faults;
    assert_eq!(found[0], Fault::LogGap { after: 10, before: 12 });
    assert!(found[0].to_string().contains("between 10 and 12 are missing"));
    // The epoch of the gap is committed, and no entry has it.
    assert!(matches!(&found[1], Fault::NotEntered { .. }) && found.len() == 2, "{found:?}");
    let quick = check_log(&stores(&lake, &sample).await).await.unwrap().faults;
    assert!(quick.iter().any(|fault| fault.to_string().contains("version 11 of the lake log is missing")), "{quick:?}");
}

#[tokio::test]
async fn an_entry_that_was_changed_breaks_the_chain_and_differs_from_its_record() {
    let (lake, sample) = with_snapshots().await;
    replace(&lake, &LogVersion(10).key(), "\"records\":20", "\"records\":21");
    let found = audit(&lake, &sample).await.faults;
    assert!(matches!(&found[0], Fault::LogChain { version: 11, .. }), "{found:?}");
    assert!(matches!(&found[1], Fault::EntryDiffers { version: 10, .. }) && found.len() == 2, "{found:?}");
    // Also where snapshots have it, as long as nothing was trimmed.
    let (lake, sample) = with_snapshots().await;
    replace(&lake, &LogVersion(3).key(), "\"records\":20", "\"records\":21");
    let found = audit(&lake, &sample).await.faults;
    assert!(found.iter().any(|fault| matches!(fault, Fault::LogChain { version: 4, .. })), "{found:?}");
    assert!(found.iter().any(|fault| matches!(fault, Fault::Snapshot { version: 4, .. })), "{found:?}");
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_reported_and_the_others_are_compared() {
    let (lake, sample) = with_snapshots().await;
    lake.tamper(&LogVersion(6).key(), Some(Bytes::from_static(b"{")));
    let found = audit(&lake, &sample).await.faults;
    assert!(matches!(&found[0], Fault::UnreadableEntry { .. }), "{found:?}");
    assert!(found.iter().any(|fault| matches!(fault, Fault::LogChain { version: 7, .. })), "{found:?}");
    assert!(found.iter().any(|fault| matches!(fault, Fault::NotEntered { .. })), "{found:?}");
}

#[tokio::test]
async fn an_epoch_that_entered_twice_is_reported() {
    let lake = MemoryStore::new();
    let mut sample = sample(&lake);
    let first = sample.commit(1);
    sample.enter(&first, |_| {});
    let found = audit(&lake, &sample).await.faults;
    let epoch = first.epoch.to_string();
    assert_eq!(found, [Fault::EnteredTwice { epoch, first: 1, version: 2 }]);
}

#[tokio::test]
async fn a_commit_record_that_no_entry_has_is_reported_unless_it_is_pending() {
    let lake = MemoryStore::new();
    let mut sample = sample(&lake);
    sample.commit(1);
    let before = sample.rows();
    let lost = sample.publish(1);
    sample.record(&lost);
    let found = audit(&lake, &sample).await.faults;
    assert_eq!(found, [Fault::NotEntered { epoch: lost.epoch.to_string() }]);
    let quick = check_log(&stores(&lake, &sample).await).await.unwrap().faults;
    assert!(quick.len() == 2 && quick.iter().all(|fault| matches!(fault, Fault::LogLacks { .. })), "{quick:?}");
    // Before its checkpoints have moved, it is on its way into the log.
    let leases = MemoryLeases::new();
    leases.create(&before).await.unwrap();
    let stores = Stores::new(Arc::new(lake.clone()), Arc::new(leases), RetryPolicy::NONE)
        .with_streams([SampleLake::key(0).stream]);
    assert_eq!(verify(&stores, &|_| {}).await.unwrap().faults, []);
}

#[tokio::test]
async fn an_entry_without_a_commit_record_is_reported() {
    let lake = MemoryStore::new();
    let mut sample = sample(&lake);
    let first = sample.commit(0);
    sample.commit(1);
    lake.tamper(&first.epoch.commit_key(), None);
    let found = audit(&lake, &sample).await.faults;
    let epoch = first.epoch.to_string();
    assert!(found.contains(&Fault::EntryWithoutRecord { version: 1, epoch }), "{found:?}");
}

#[tokio::test]
async fn snapshots_that_differ_from_the_entries_are_reported() {
    // Another snapshot under its key; a part that is gone, and one that is damaged.
    for change in 0..4 {
        let (lake, sample) = with_snapshots().await;
        let snapshot = get_snapshot(&lake, LogVersion(4)).await.unwrap();
        let part = &snapshot.parts[0].key;
        let head = Snapshot::key_of(LogVersion(4));
        let mut changed = snapshot.clone();
        match change {
            0 => lake.tamper(&head, Some(Bytes::from_static(b"damaged"))),
            1 => lake.tamper(part, None),
            2 => lake.tamper(part, Some(Bytes::from_static(b"damaged"))),
            _ => {
                changed.fold.epochs += 1;
                changed.parts.pop();
                lake.tamper(&head, Some(changed.to_bytes().unwrap()));
            }
        }
        let found = audit(&lake, &sample).await.faults;
        let of_snapshot = found.iter().filter(|fault| matches!(fault, Fault::Snapshot { version: 4, .. })).count();
        assert_eq!((of_snapshot, found.len()), if change == 3 { (2, 2) } else { (1, 1) }, "{found:?}");
    }
}

#[tokio::test]
async fn what_entries_removed_must_not_be_visible_and_must_have_been_live() {
    let lake = MemoryStore::new();
    let mut sample = sample(&lake);
    let first = sample.commit(2);
    let (gone, unknown) = (first.objects[0].key.clone(), ObjectKey::new("processed/events/x-1-1.parquet").unwrap());
    let second = sample.publish(1);
    sample.record(&second);
    let removed = RemovedObject::from(&first.objects[0]);
    let removed = vec![removed.clone(), RemovedObject { key: unknown.clone(), ..removed }];
    sample.enter(&second, |entry| entry.removed = removed);
    let mut found = audit(&lake, &sample).await.faults;
    // An epoch's commit record removes nothing, so its entry differs.
    found.retain(|fault| !matches!(fault, Fault::EntryDiffers { .. }));
    let expected =
        [Fault::RemovesUnknown { version: 2, key: unknown }, Fault::NotRemoved { key: gone.clone(), version: 2 }];
    assert_eq!(found, expected);
    // While the operation has its intent, it may still remove the object.
    lake.put_new(&second.epoch.intent_key(), second.to_bytes()).await.unwrap();
    let found = audit(&lake, &sample).await.faults;
    assert!(!found.iter().any(|fault| matches!(fault, Fault::NotRemoved { .. })), "{found:?}");
    // It is in the trash: then it is neither visible nor missing.
    let bytes = lake.object(&gone).unwrap();
    lake.tamper(&gone, None);
    let trash = layout::trash(second.epoch.as_str(), gone.as_str());
    lake.tamper(&ObjectKey::new(trash).unwrap(), Some(bytes));
    let audit = audit(&lake, &sample).await;
    assert!(!audit.faults.iter().any(|fault| fault.to_string().contains(gone.as_str())), "{:?}", audit.faults);
    assert_eq!(audit.objects, 4 + 3 - 1);
    // At the version before, it was live, and it was removed since.
    let stores = stores(&lake, &sample).await;
    let extent = extent(&lake).await.unwrap();
    let version = resolve(&lake, &extent, VersionOrTime::Version(LogVersion(1))).await.unwrap();
    let (then, at) = verify_at(&stores, &extent, version, &|_| {}).await.unwrap();
    assert_eq!((then.objects, then.removed_since, then.epochs, at.version), (4, 1, 1, LogVersion(1)));
    assert_eq!(then.faults, []);
}

#[tokio::test]
async fn objects_that_are_gone_altered_or_unknown_are_reported_at_any_version() {
    let (lake, sample) = with_snapshots().await;
    let extent = extent(&lake).await.unwrap();
    let at = lake_at(&lake, &extent, LogVersion(2)).await.unwrap();
    let mut objects = at.live_objects(&lake, ObjectFilter::default());
    let (first, second) = (objects.next().await.unwrap().unwrap(), objects.next().await.unwrap().unwrap());
    lake.tamper(&first.key, None);
    lake.tamper(&second.key, Some(Bytes::from_static(b"altered")));
    let unknown = ObjectKey::new("raw/events/year=2025/month=01/day=13/copy").unwrap();
    lake.tamper(&unknown, Some(Bytes::from_static(b"copy")));
    let kinds = |faults: &[Fault]| {
        let count = |is: &dyn Fn(&Fault) -> bool| faults.iter().filter(|fault| is(fault)).count();
        [
            count(&|fault| matches!(fault, Fault::Missing { key, .. } if *key == first.key)),
            count(&|fault| matches!(fault, Fault::Altered { key, .. } if *key == second.key)),
            count(&|fault| matches!(fault, Fault::Unknown { key } if *key == unknown)),
            faults.len(),
        ]
    };
    assert_eq!(kinds(&audit(&lake, &sample).await.faults), [1, 1, 1, 3]);
    let stores = stores(&lake, &sample).await;
    let (then, _) = verify_at(&stores, &extent, LogVersion(2), &|_| {}).await.unwrap();
    assert_eq!(kinds(&then.faults), [1, 1, 0, 2], "other objects are not of this version");
}

#[tokio::test]
async fn the_progress_of_an_audit_ends_where_it_said() {
    let (lake, sample) = with_snapshots().await;
    let seen = std::sync::Mutex::new((0, 0, 0));
    let stores = stores(&lake, &sample).await;
    let audit = verify(&stores, &|progress| {
        let mut seen = seen.lock().unwrap();
        match progress {
            VerifyProgress::Records(records) => seen.0 = records,
            VerifyProgress::Total(bytes) => {
                assert_eq!(seen.2, 0, "the total is known before the first object");
                seen.1 = bytes;
            }
            VerifyProgress::Compared(bytes) => seen.2 += bytes,
        }
    })
    .await
    .unwrap();
    let (records, total, compared) = *seen.lock().unwrap();
    assert_eq!((records, total, compared), (12, audit.bytes, audit.bytes));
}
