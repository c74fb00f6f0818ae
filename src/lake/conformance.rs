//! One suite for every object store: what the commit protocol stands on.
//!
//! S3 joins it where there is one: `#[ignore]`d without, run by `cargo nextest run --run-ignored only` with the SDK's usual
//! environment set to a local stack.

use bytes::Bytes;
use futures::future::join_all;

use super::{
    Checksum, Checksummer, Completion, LakeError, LocalStore, MemoryStore, NewPart, ObjectKey, ObjectStore, Part,
    UploadId, Written,
};

fn key(path: &str) -> ObjectKey {
    ObjectKey::new(path).unwrap()
}

async fn stage(
    store: &dyn ObjectStore,
    path: &str,
    id: &str,
    parts: &[&'static str],
) -> (ObjectKey, UploadId, Vec<Part>) {
    stage_bytes(store, path, id, parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect()).await
}

async fn stage_bytes(
    store: &dyn ObjectStore,
    path: &str,
    id: &str,
    parts: Vec<Bytes>,
) -> (ObjectKey, UploadId, Vec<Part>) {
    let key = key(path);
    let id = store.begin_upload(&key, id).await.unwrap();
    let mut tags = Vec::new();
    let mut offset = 0;
    for (number, bytes) in (1..).zip(parts) {
        let part = NewPart { number, offset, bytes };
        offset += part.bytes.len() as u64;
        // A part that is repeated is the same.
        store.upload_part(&key, &id, part.clone()).await.unwrap();
        tags.push(store.upload_part(&key, &id, part).await.unwrap());
    }
    (key, id, tags)
}

async fn keys(store: &dyn ObjectStore, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().into_iter().map(|object| object.key.to_string()).collect()
}

/// A part as small as the store takes one that is not the last; every one is unlike the others.
fn full_part(store: &dyn ObjectStore, seed: u8) -> Bytes {
    let bytes = store.part_bytes_min().max(3);
    (0..bytes).map(|at| u8::try_from(at % 251).unwrap_or_default() ^ seed).collect()
}

async fn an_upload_is_invisible_until_it_is_completed_and_then_whole(store: &dyn ObjectStore) {
    let (key, id, parts) = stage(store, "processed/a/x.parquet", "u-1", &["one,two"]).await;
    store.flush().await.unwrap();
    assert_eq!(store.get(&key).await.unwrap(), None);
    assert_eq!(store.checksum(&key).await.unwrap(), None);
    assert_eq!(keys(store, "").await, Vec::<String>::new());
    let uploads = store.list_uploads().await.unwrap();
    let mine: Vec<_> = uploads.into_iter().filter(|upload| upload.id == id).collect();
    assert_eq!(mine.len(), 1);
    assert!(mine[0].key.as_ref().is_none_or(|listed| *listed == key), "{mine:?}");

    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::Completed);
    store.flush().await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().as_deref(), Some(b"one,two".as_slice()));
    assert_eq!(store.checksum(&key).await.unwrap(), Some((7, Checksum::of(b"one,two"))));
    assert!(!store.list_uploads().await.unwrap().iter().any(|upload| upload.id == id));
    assert_eq!(keys(store, "processed/").await, ["processed/a/x.parquet"]);
}

async fn an_object_of_several_parts_is_what_its_parts_are(store: &dyn ObjectStore) {
    let sent = vec![full_part(store, 1), full_part(store, 2), full_part(store, 3), Bytes::from_static(b"the end")];
    let (key, id, parts) = stage_bytes(store, "raw/several.gz", "u-1", sent.clone()).await;
    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::Completed);
    let mut checksummer = Checksummer::default();
    sent.iter().for_each(|part| checksummer.update(part));
    let whole = sent.concat();
    assert_eq!(store.checksum(&key).await.unwrap(), Some((whole.len() as u64, checksummer.finish())));
    assert!(store.get(&key).await.unwrap().unwrap() == whole, "the bytes are those of the parts, in their order");
}

async fn an_object_may_be_empty(store: &dyn ObjectStore) {
    let (key, id, parts) = stage(store, "raw/empty", "u-1", &[""]).await;
    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::Completed);
    assert_eq!(store.checksum(&key).await.unwrap(), Some((0, Checksum::of(b""))));
}

/// The reply to the first was lost. Which answer comes then is the store's business: some know that the object is this
/// upload's. Whatever it is, the object tells that it is one's own, and stays as it is.
async fn completing_again_after_a_lost_reply_finds_the_object_there(store: &dyn ObjectStore) {
    let (key, id, parts) = stage(store, "processed/twice", "u-2", &["x"]).await;
    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::Completed);
    for _ in 0..2 {
        store.complete_upload(&key, &id, &parts).await.unwrap();
        assert_eq!(store.checksum(&key).await.unwrap(), Some((1, Checksum::of(b"x"))));
    }
    store.abort_upload(&key, &id).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().as_deref(), Some(b"x".as_slice()));
}

async fn of_many_uploads_of_one_key_one_is_completed(store: &dyn ObjectStore) {
    let names: Vec<String> = (0..12).map(|number| format!("u-{number}")).collect();
    let contents = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let mut uploads = Vec::new();
    for (name, content) in names.iter().zip(contents) {
        uploads.push((stage(store, "processed/one", name, &[content]).await, content));
    }
    let completions = uploads
        .iter()
        .map(|((key, id, parts), content)| async move { (store.complete_upload(key, id, parts).await, *content) });
    let mut won = Vec::new();
    for (completion, content) in join_all(completions).await {
        match completion {
            Ok(Completion::Completed) => won.push(content),
            // S3 may want the losers of a race to try again.
            Ok(Completion::KeyTaken) | Err(LakeError::Unavailable { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(won.len(), 1, "{won:?}");
    let found = store.get(&key("processed/one")).await.unwrap();
    assert_eq!(found.as_deref(), Some(won[0].as_bytes()));
    for ((key, id, _), _) in &uploads {
        store.abort_upload(key, id).await.unwrap();
    }
    assert!(store.list_uploads().await.unwrap().is_empty());
}

async fn completing_never_replaces_an_object(store: &dyn ObjectStore) {
    let (key, id, parts) = stage(store, "processed/taken", "u-3", &["new"]).await;
    assert_eq!(store.put_new(&key, Bytes::from_static(b"old")).await.unwrap(), Written::New);
    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::KeyTaken);
    assert_eq!(store.get(&key).await.unwrap().as_deref(), Some(b"old".as_slice()));
}

async fn an_aborted_upload_can_not_be_completed(store: &dyn ObjectStore) {
    let (key, id, parts) = stage(store, "processed/aborted", "u-4", &["x"]).await;
    store.abort_upload(&key, &id).await.unwrap();
    store.abort_upload(&key, &id).await.unwrap();
    store.flush().await.unwrap();
    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::NoSuchUpload);
    assert_eq!(store.get(&key).await.unwrap(), None);
    let late = store.upload_part(&key, &id, NewPart { number: 2, offset: 1, bytes: Bytes::from_static(b"y") }).await;
    assert!(matches!(late, Err(LakeError::Refused { .. })), "{late:?}");
}

async fn a_new_object_is_written_once(store: &dyn ObjectStore) {
    let key = key("_intents/e-1.json");
    assert_eq!(store.put_new(&key, Bytes::from_static(b"{}")).await.unwrap(), Written::New);
    assert_eq!(store.put_new(&key, Bytes::from_static(b"[]")).await.unwrap(), Written::KeyTaken);
    assert_eq!(store.get(&key).await.unwrap().as_deref(), Some(b"{}".as_slice()));
    store.delete(&key).await.unwrap();
    store.delete(&key).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap(), None);
    assert_eq!(store.checksum(&key).await.unwrap(), None);
}

async fn lists_are_by_prefix_and_in_order(store: &dyn ObjectStore) {
    for path in ["a/b/2", "a/b/1", "a/c", "ab", "b", "c/ä =+%2F&<", "c/z"] {
        store.put_new(&key(path), Bytes::from_static(b"x")).await.unwrap();
    }
    assert_eq!(keys(store, "a/").await, ["a/b/1", "a/b/2", "a/c"]);
    assert_eq!(keys(store, "a").await, ["a/b/1", "a/b/2", "a/c", "ab"]);
    assert_eq!(keys(store, "a/b/1").await, ["a/b/1"]);
    assert_eq!(keys(store, "c/").await, ["c/z", "c/ä =+%2F&<"]);
    assert_eq!(store.get(&key("c/ä =+%2F&<")).await.unwrap().as_deref(), Some(b"x".as_slice()));
    assert_eq!(keys(store, "none/").await, Vec::<String>::new());
}

async fn a_list_may_begin_after_any_text(store: &dyn ObjectStore) {
    for path in ["a/1", "a/10", "a/2", "a/b/1", "b/1"] {
        store.put_new(&key(path), Bytes::from_static(b"x")).await.unwrap();
    }
    for (prefix, after, expected) in [
        ("a/", "", vec!["a/1", "a/10", "a/2", "a/b/1"]),
        ("a/", "a/1", vec!["a/10", "a/2", "a/b/1"]),
        ("a/", "a/1x", vec!["a/2", "a/b/1"]),
        ("a/", "a/b/1", vec![]),
        ("a/", "0", vec!["a/1", "a/10", "a/2", "a/b/1"]),
        ("a/", "b/0", vec![]),
        ("", "a/b", vec!["a/b/1", "b/1"]),
    ] {
        let listed = store.list_after(prefix, after).await.unwrap();
        let found: Vec<String> = listed.into_iter().map(|object| object.key.to_string()).collect();
        assert_eq!(found, expected, "'{prefix}' after '{after}'");
    }
}

macro_rules! conformance {
    ($($name:ident),* $(,)?) => {
        mod s3 {
            $(#[tokio::test]
            #[ignore = "needs the local AWS stack: localstack/run"]
            async fn $name() { super::$name(&crate::lake::s3::tests::store().await).await; })*
        }
        mod memory {
            use super::*;
            $(#[tokio::test] async fn $name() { super::$name(&MemoryStore::new()).await; })*
        }
        mod local {
            use super::*;
            $(#[tokio::test] async fn $name() {
                let folder = tempfile::tempdir().unwrap();
                super::$name(&LocalStore::open(folder.path().join("lake")).unwrap()).await;
            })*
        }
    };
}

conformance!(
    an_upload_is_invisible_until_it_is_completed_and_then_whole,
    an_object_of_several_parts_is_what_its_parts_are,
    an_object_may_be_empty,
    completing_again_after_a_lost_reply_finds_the_object_there,
    of_many_uploads_of_one_key_one_is_completed,
    completing_never_replaces_an_object,
    an_aborted_upload_can_not_be_completed,
    a_new_object_is_written_once,
    lists_are_by_prefix_and_in_order,
    a_list_may_begin_after_any_text,
);

#[tokio::test]
async fn a_crash_between_link_and_removal_is_healed_by_completing_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(folder.path()).unwrap();
    let (key, id, parts) = stage(&store, "processed/x", "u-1", &["x"]).await;
    std::fs::create_dir_all(folder.path().join("processed")).unwrap();
    std::fs::hard_link(folder.path().join("_staging/u-1"), folder.path().join("processed/x")).unwrap();
    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::Completed);
    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::NoSuchUpload);
    assert!(store.list_uploads().await.unwrap().is_empty());
}

#[tokio::test]
async fn many_objects_are_flushed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(folder.path()).unwrap();
    for n in 0..200 {
        stage(&store, &format!("processed/p={n}/x"), &format!("u-{n}"), &["x"]).await;
    }
    store.flush().await.unwrap();
    assert_eq!(store.list_uploads().await.unwrap().len(), 200);
}

#[tokio::test]
async fn a_lake_that_can_not_be_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let message = LocalStore::open(folder.path().join("file/lake")).unwrap_err();
    assert!(matches!(message, LakeError::Refused { .. }));
    assert!(message.to_string().starts_with("could not open the lake "), "{message}");
    assert!(LocalStore::open_existing(folder.path().join("none")).is_err());
}

#[tokio::test]
async fn a_lake_that_was_moved_away_has_lost_nothing_and_is_not_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (place, away) = (folder.path().join("lake"), folder.path().join("away"));
    let store = LocalStore::open(&place).unwrap();
    let (key, id, parts) = stage(&store, "processed/x", "u-1", &["x"]).await;
    std::fs::rename(&place, &away).unwrap();
    let message = store.complete_upload(&key, &id, &parts).await.unwrap_err();
    assert!(matches!(message, LakeError::Refused { .. }));
    assert!(message.to_string().ends_with("is not there any more; bring it back and start again"), "{message}");
    assert!(store.get(&key).await.is_err() && store.checksum(&key).await.is_err());
    assert!(store.abort_upload(&key, &id).await.is_err() && store.delete(&key).await.is_err());
    assert!(store.put_new(&key, Bytes::from_static(b"x")).await.is_err() && store.flush().await.is_err());
    assert!(store.begin_upload(&key, "u-2").await.is_err());
    assert!(store.list("_commits/").await.is_err() && store.list_uploads().await.is_err());
    assert!(!place.exists());
    std::fs::rename(&away, &place).unwrap();
    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::Completed);
}

#[cfg(unix)]
#[tokio::test]
async fn a_lake_that_another_took_the_place_of_is_not_written_on_there() {
    let folder = tempfile::tempdir().unwrap();
    let (place, away) = (folder.path().join("lake"), folder.path().join("away"));
    let store = LocalStore::open(&place).unwrap();
    let (key, id, parts) = stage(&store, "processed/x", "u-1", &["x"]).await;
    std::fs::rename(&place, &away).unwrap();
    let other = LocalStore::open(&place).unwrap();
    let (other_key, ..) = stage(&other, "processed/y", "u-9", &["y"]).await;
    let message = store.complete_upload(&key, &id, &parts).await.unwrap_err().to_string();
    assert!(
        message.ends_with("was moved away, and another one is in its place; bring it back and start again"),
        "{message}"
    );
    assert!(store.get(&key).await.is_err() && store.flush().await.is_err());
    assert!(store.put_new(&key, Bytes::from_static(b"x")).await.is_err());
    assert!(store.begin_upload(&key, "u-2").await.is_err() && store.abort_upload(&key, &id).await.is_err());
    assert_eq!(other.list_uploads().await.unwrap().len(), 1);
    assert!(other.list("").await.unwrap().is_empty() && other.get(&other_key).await.unwrap().is_none());
    std::fs::rename(&place, folder.path().join("other")).unwrap();
    std::fs::rename(&away, &place).unwrap();
    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::Completed);
}

#[test]
fn a_key_stays_inside_the_lake() {
    for path in ["", "/a", "a//b", "a/", "../a", "a/./b", "a/..", "a\nb", &"x".repeat(1025)] {
        assert!(ObjectKey::new(path).is_err(), "{path}");
    }
    assert!(ObjectKey::new("processed/assessments/type=a b%2Fc/ä.parquet").is_ok());
    assert!(serde_json::from_str::<ObjectKey>("\"../x\"").is_err());
}

#[test]
fn a_checksum_is_crc_64_nvme_in_hex() {
    // The check value of the algorithm's definition.
    assert_eq!(Checksum::of(b"123456789").to_string(), "ae8b14860a799888");
    assert_eq!("ae8b14860a799888".parse(), Ok(Checksum::of(b"123456789")));
    assert!("ae8b".parse::<Checksum>().is_err() && "xx8b14860a799888".parse::<Checksum>().is_err());
}
