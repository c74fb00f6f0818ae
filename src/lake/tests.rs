//! The local and the memory store pass the conformance suite, and so does S3 where there is a local stack; what a local store
//! does when its folder is moved; keys and checksums.

use bytes::Bytes;

use super::{
    Checksum, Completion, InsideLake, LakeError, LocalStore, MemoryStore, NewPart, ObjectKey, ObjectStore, Part,
    UploadId,
};

mod memory {
    use super::*;

    crate::object_store_conformance!((MemoryStore::new(), ()));
}

mod local {
    use super::*;

    crate::object_store_conformance!({
        let folder = tempfile::tempdir().unwrap();
        (LocalStore::open(folder.path().join("lake")).unwrap(), folder)
    });
}

/// A lake inside another one keeps all promises.
mod inside {
    use std::sync::Arc;

    use super::*;

    crate::object_store_conformance!((InsideLake::new(Arc::new(MemoryStore::new()), "_replays/01ab0000/lake/"), ()));
}

mod s3 {
    crate::object_store_conformance!((crate::lake::s3::tests::store().await, ()), needs the local AWS stack);
}

fn key(path: &str) -> ObjectKey {
    ObjectKey::new(path).unwrap()
}

async fn stage(store: &LocalStore, path: &str, id: &str, text: &'static str) -> (ObjectKey, UploadId, Vec<Part>) {
    let key = key(path);
    let id = store.begin_upload(&key, id).await.unwrap();
    let part = NewPart { number: 1, offset: 0, bytes: Bytes::from_static(text.as_bytes()) };
    let parts = vec![store.upload_part(&key, &id, part).await.unwrap()];
    (key, id, parts)
}

#[tokio::test]
async fn completing_again_repairs_a_crash_between_link_and_removal() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::open(folder.path()).unwrap();
    let (key, id, parts) = stage(&store, "processed/x", "u-1", "x").await;
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
        stage(&store, &format!("processed/p={n}/x"), &format!("u-{n}"), "x").await;
    }
    store.flush().await.unwrap();
    assert_eq!(store.list_uploads().await.unwrap().len(), 200);
}

#[tokio::test]
async fn a_lake_that_cannot_exist_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let message = LocalStore::open(folder.path().join("file/lake")).unwrap_err();
    assert!(matches!(message, LakeError::Refused { .. }));
    assert!(message.to_string().starts_with("could not open the lake "), "{message}");
    assert!(LocalStore::open_existing(folder.path().join("none")).is_err());
}

#[tokio::test]
async fn a_lake_that_was_moved_away_is_unavailable_and_not_recreated() {
    let folder = tempfile::tempdir().unwrap();
    let (place, away) = (folder.path().join("lake"), folder.path().join("away"));
    let store = LocalStore::open(&place).unwrap();
    let (key, id, parts) = stage(&store, "processed/x", "u-1", "x").await;
    std::fs::rename(&place, &away).unwrap();
    let message = store.complete_upload(&key, &id, &parts).await.unwrap_err();
    assert!(matches!(message, LakeError::Refused { .. }));
    assert!(message.to_string().ends_with("does not exist any more; restore it and start again"), "{message}");
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
async fn nothing_is_written_into_another_lake_in_the_same_place() {
    let folder = tempfile::tempdir().unwrap();
    let (place, away) = (folder.path().join("lake"), folder.path().join("away"));
    let store = LocalStore::open(&place).unwrap();
    let (key, id, parts) = stage(&store, "processed/x", "u-1", "x").await;
    std::fs::rename(&place, &away).unwrap();
    let other = LocalStore::open(&place).unwrap();
    let (other_key, ..) = stage(&other, "processed/y", "u-9", "y").await;
    let message = store.complete_upload(&key, &id, &parts).await.unwrap_err().to_string();
    assert!(
        message.ends_with("was moved away, and another lake is in its place; restore it and start again"),
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
fn a_key_that_leaves_the_lake_is_refused() {
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
