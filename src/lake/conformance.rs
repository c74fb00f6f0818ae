//! One suite for every object store: what the commit protocol stands on.

use bytes::Bytes;

use super::{
    Checksum, Completion, LakeError, LocalStore, MemoryStore, NewPart, ObjectKey, ObjectStore, UploadId, Written,
};

fn key(path: &str) -> ObjectKey {
    ObjectKey::new(path).unwrap()
}

async fn stage(
    store: &dyn ObjectStore,
    path: &str,
    id: &str,
    parts: &[&'static str],
) -> (ObjectKey, UploadId, Vec<super::Part>) {
    let key = key(path);
    let id = store.begin_upload(&key, id).await.unwrap();
    let mut tags = Vec::new();
    let mut offset = 0;
    for (number, part) in (1..).zip(parts) {
        let part = NewPart { number, offset, bytes: Bytes::from_static(part.as_bytes()) };
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

async fn an_upload_is_invisible_until_it_is_completed_and_then_whole(store: &dyn ObjectStore) {
    let (key, id, parts) = stage(store, "processed/a/x.parquet", "u-1", &["one,", "two"]).await;
    store.flush().await.unwrap();
    assert_eq!(store.get(&key).await.unwrap(), None);
    assert_eq!(keys(store, "").await, Vec::<String>::new());
    assert_eq!(store.list_uploads().await.unwrap().iter().filter(|upload| upload.id == id).count(), 1);

    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::Completed);
    store.flush().await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().as_deref(), Some(b"one,two".as_slice()));
    assert_eq!(store.checksum(&key).await.unwrap(), Some((7, Checksum::of(b"one,two"))));
    assert!(!store.list_uploads().await.unwrap().iter().any(|upload| upload.id == id));
    assert_eq!(keys(store, "processed/").await, ["processed/a/x.parquet"]);
}

async fn completing_twice_does_no_harm(store: &dyn ObjectStore) {
    let (key, id, parts) = stage(store, "processed/twice", "u-2", &["x"]).await;
    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::Completed);
    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::NoSuchUpload);
    assert_eq!(store.get(&key).await.unwrap().as_deref(), Some(b"x".as_slice()));
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
    for path in ["a/b/2", "a/b/1", "a/c", "ab", "b"] {
        store.put_new(&key(path), Bytes::from_static(b"x")).await.unwrap();
    }
    assert_eq!(keys(store, "a/").await, ["a/b/1", "a/b/2", "a/c"]);
    assert_eq!(keys(store, "a").await, ["a/b/1", "a/b/2", "a/c", "ab"]);
    assert_eq!(keys(store, "a/b/1").await, ["a/b/1"]);
    assert_eq!(keys(store, "none/").await, Vec::<String>::new());
}

macro_rules! conformance {
    ($($name:ident),* $(,)?) => {
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
    completing_twice_does_no_harm,
    completing_never_replaces_an_object,
    an_aborted_upload_can_not_be_completed,
    a_new_object_is_written_once,
    lists_are_by_prefix_and_in_order,
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
    let told = LocalStore::open(folder.path().join("file/lake")).unwrap_err();
    assert!(matches!(told, LakeError::Refused { .. }));
    assert!(told.to_string().starts_with("could not open the lake "), "{told}");
    assert!(LocalStore::open_existing(folder.path().join("none")).is_err());
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
