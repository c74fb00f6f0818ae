//! Which epoch has read a position, over many versions: with snapshots, without entries, and after operations.

use std::sync::Arc;

use checkpoints::{MemoryStore as MemoryLeases, Position};

use super::epochs::{Covering, find_epochs};
use crate::commit::Stores;
use crate::commit::lake_log::{LogVersion, SnapshotWritten, extent, lake_at, write_snapshot};
use crate::inspect::sample_lake::SampleLake;
use crate::lake::MemoryStore;
use crate::retry::RetryPolicy;

/// Epochs, of ten records of each of two shards.
const EPOCHS: u64 = 23;

/// A lake whose every fourth version has a snapshot.
async fn lake() -> MemoryStore {
    let lake = MemoryStore::new();
    let tampered = lake.clone();
    let mut sample = SampleLake::new(2, move |key, bytes| tampered.tamper(key, Some(bytes)));
    let stores = Stores::new(Arc::new(lake.clone()), Arc::new(MemoryLeases::new()), RetryPolicy::default());
    for number in 0..EPOCHS {
        sample.commit(number % 3);
        let written = write_snapshot(&stores, &format!("w-{number}"), 4).await.unwrap();
        assert_eq!(written == SnapshotWritten::NotNeeded, !(number + 1).is_multiple_of(4));
    }
    lake
}

async fn epochs_of(lake: &MemoryStore, shard: usize, records: &[u64]) -> Vec<Covering> {
    let extent = extent(lake).await.unwrap();
    let at = lake_at(lake, &extent, extent.newest).await.unwrap();
    let targets: Vec<_> =
        records.iter().map(|record| (SampleLake::key(shard), Position::at((*record).into()))).collect();
    find_epochs(lake, &extent, &at, &targets, &|_| {}).await.unwrap()
}

fn version_of(record: u64) -> LogVersion {
    LogVersion(record.div_ceil(10))
}

#[tokio::test]
async fn the_epoch_that_has_read_a_position_is_found_from_few_versions() {
    let lake = lake().await;
    for record in [1, 10, 11, 40, 41, 119, 120, 121, 229, 230] {
        let before = lake.calls().len();
        let found = epochs_of(&lake, 1, &[record]).await;
        assert_eq!(found.len(), 1, "{record}");
        assert_eq!(found[0].version, Some(version_of(record)), "{record}");
        assert!(found[0].range.after() < &Position::at(record.into()) && !found[0].objects.is_empty());
        assert!(lake.calls().len() - before < 24, "{} calls for {record}", lake.calls().len() - before);
    }
    assert!(epochs_of(&lake, 0, &[231]).await.is_empty() && epochs_of(&lake, 2, &[1]).await.is_empty());
    let many: Vec<u64> = (1..=EPOCHS * 10).collect();
    let mut versions: Vec<LogVersion> =
        epochs_of(&lake, 0, &many).await.into_iter().filter_map(|found| found.version).collect();
    versions.sort_unstable();
    assert_eq!(versions, many.iter().map(|record| version_of(*record)).collect::<Vec<_>>());
}

#[tokio::test]
async fn where_entries_were_trimmed_commit_records_say_it_and_a_damaged_snapshot_is_passed_over() {
    let lake = lake().await;
    for version in 1..=9 {
        lake.tamper(&LogVersion(version).key(), None);
    }
    lake.tamper(&crate::commit::lake_log::Snapshot::key_of(LogVersion(12)), Some("damaged".into()));
    for record in [1, 85, 95, 105, 125] {
        let found = epochs_of(&lake, 0, &[record]).await;
        let version = version_of(record);
        assert_eq!(found.len(), 1, "{record}");
        assert_eq!(found[0].version, (version.0 > 9).then_some(version), "{record}");
        assert!(*found[0].range.through() >= Position::at(record.into()) && !found[0].objects.is_empty());
    }
}
