//! Intents and commit records.

use checkpoints::ManifestName;
use pipeline::layout::{COMMITS, INTENTS};
use serde_json::Value;
use shardlake::commit::{EpochId, FORMAT, Manifest, ObjectKind, Totals};
use shardlake::lake::ObjectKey;

/// The bytes of an intent or commit record, read under the key of the epoch that they name.
pub fn manifest(data: &[u8]) {
    let epoch = named(data);
    let key = epoch.intent_key();
    let read = match Manifest::from_bytes(&key, data) {
        Ok(manifest) => manifest,
        Err(refused) => {
            assert_eq!(refused.name, key.as_str(), "a refusal must name the object");
            assert!(!refused.problem.is_empty());
            return;
        }
    };
    assert!((FORMAT - 1..=FORMAT).contains(&read.format) && read.epoch == epoch, "another format, or another epoch");
    let bytes = read.to_bytes();
    for key in [epoch.intent_key(), epoch.commit_key()] {
        assert_eq!(Manifest::from_bytes(&key, &bytes).as_ref(), Ok(&read), "it changed on its way through the codec");
    }
    let elsewhere = ObjectKey::new(format!("{COMMITS}another.json")).expect("a valid key");
    assert!(
        epoch.commit_key() == elsewhere || Manifest::from_bytes(&elsewhere, &bytes).is_err(),
        "it was accepted as another epoch"
    );
    for cut in [0, 1, bytes.len() / 2, bytes.len() - 2] {
        assert!(Manifest::from_bytes(&key, &bytes[..cut]).is_err(), "accepted although truncated at {cut}");
    }
    assert_eq!(EpochId::of_manifest(&epoch.manifest_name()).as_ref(), Ok(&epoch));
    for shard in &read.shards {
        assert!(shard.range.through() > shard.range.after(), "an empty range");
    }
    for object in &read.objects {
        assert_inside(&object.key, object.kind);
    }
    assert_counts(&read);
}

/// The epoch that the bytes name, or another one if they name none.
fn named(data: &[u8]) -> EpochId {
    let epoch = serde_json::from_slice(data).ok().and_then(|value: Value| value["epoch"].as_str().map(str::to_owned));
    let epoch = epoch.and_then(|epoch| EpochId::try_from(epoch).ok());
    epoch.unwrap_or_else(|| EpochId::try_from("1".to_owned()).expect("a valid name"))
}

/// Asserts that publishing or deleting the object touches nothing but an object of its kind.
fn assert_inside(key: &ObjectKey, kind: ObjectKind) {
    let path = std::path::Path::new(key.as_str());
    let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    assert!(plain && path.is_relative() && key.as_str().len() <= 1024, "{key} leads out of the lake");
    let folder = match kind {
        ObjectKind::Processed => "processed/",
        ObjectKind::Raw => "raw/",
        ObjectKind::Error => "error/",
    };
    assert!(key.as_str().starts_with(folder), "{key} is not in {folder}");
    assert!(!key.as_str().starts_with(INTENTS) && !key.as_str().starts_with(COMMITS));
}

/// Asserts that the counts of many records can be added up.
fn assert_counts(manifest: &Manifest) {
    let mut totals = Totals::default();
    totals.add(&manifest.totals);
    assert_eq!(totals.records, manifest.totals.records);
    totals.add(&manifest.totals);
    let sum = |mut counts: &mut dyn Iterator<Item = u64>| Iterator::try_fold(&mut counts, 0, u64::checked_add);
    let objects = || manifest.objects.iter();
    for counts in [
        &mut manifest.shards.iter().map(|shard| shard.records) as &mut dyn Iterator<Item = u64>,
        &mut manifest.shards.iter().map(|shard| shard.bytes),
        &mut objects().map(|object| object.rows),
        &mut objects().map(|object| object.bytes),
        &mut manifest.totals.rows.values().chain(manifest.totals.dead_letters.values()).copied(),
        &mut manifest.edges.values().map(|edge| edge.0),
        &mut manifest.edges.values().map(|edge| edge.1),
        &mut manifest.totals.nulled_values.values().copied(),
        &mut manifest.totals.denied_keys.values().copied(),
        &mut manifest.totals.raw_lines.into_iter(),
    ] {
        assert!(sum(counts).is_some_and(|sum| sum < 1 << 60), "an impossible count");
    }
}

/// The name of an intent, as a lease stores it.
pub(super) fn manifest_name(text: &str) {
    let Ok(name) = ManifestName::new(text) else { return };
    match EpochId::of_manifest(&name) {
        Ok(epoch) => {
            assert_eq!(epoch.manifest_name(), name);
            for (key, folder) in [(epoch.intent_key(), INTENTS), (epoch.commit_key(), COMMITS)] {
                assert_eq!(key.as_str().matches('/').count(), 1);
                assert!(key.as_str().starts_with(folder));
            }
        }
        Err(problem) => {
            assert!(
                problem.contains("is not the name of an intent") || problem.contains("is not a valid name"),
                "{problem}"
            );
        }
    }
}
