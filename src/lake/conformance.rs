//! The suite that every object store must pass: what the commit protocol relies on.
//!
//! A store calls [`object_store_conformance!`](crate::object_store_conformance) with an expression that makes an empty store;
//! then every function of the suite is one test. The functions panic if a store is wrong: they are tests, and are compiled for
//! tests and with the feature `conformance` only. The suite does not test what a store adds, such as files or faults of a service.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]
#![expect(missing_docs, reason = "each function of the suite says in its name what it proves")]

use bytes::Bytes;
use futures::future::join_all;

use crate::lake::{
    Checksum, Checksummer, Completion, LakeError, NewPart, ObjectKey, ObjectStore, Part, UploadId, Written,
};

/// Makes one test of every function of the suite, in a module of its own.
///
/// The expression makes an empty store, and whatever must live as long as the store: `object_store_conformance!((store, folder))`.
/// It may `await`. With `, needs the local AWS stack` after it, the tests run only on request. The caller's crate needs `tokio`
/// with its macros.
#[macro_export]
macro_rules! object_store_conformance {
    ($store:expr) => {
        $crate::object_store_conformance!(@suite always $store);
    };
    ($store:expr, needs the local AWS stack) => {
        $crate::object_store_conformance!(@suite on_request $store);
    };
    (@suite $when:ident $store:expr) => {
        $crate::object_store_conformance!(@each $when $store;
            an_upload_is_invisible_until_it_is_completed_and_then_whole,
            an_object_of_several_parts_is_its_parts_in_order,
            an_object_may_be_empty,
            completing_again_after_a_lost_response_leaves_the_object_as_it_is,
            of_many_uploads_of_one_key_one_is_completed,
            completing_never_replaces_an_object,
            an_aborted_upload_cannot_be_completed,
            a_copy_is_staged_like_any_upload_and_outlives_its_source,
            a_copy_never_replaces_an_object_and_may_be_aborted,
            nothing_is_staged_of_an_object_that_does_not_exist,
            a_new_object_is_written_once,
            an_object_is_replaced_only_if_it_has_the_expected_bytes,
            a_part_of_an_object_is_read_up_to_its_end,
            lists_are_by_prefix_and_in_order,
            a_list_may_begin_after_any_text,
        );
    };
    (@each $when:ident $store:expr; $($name:ident,)*) => {
        $($crate::object_store_conformance!(@test $when $store; $name);)*
    };
    (@test always $store:expr; $name:ident) => {
        #[tokio::test]
        async fn $name() {
            let (store, _keep) = $store;
            $crate::lake::conformance::$name(&store).await;
        }
    };
    (@test on_request $store:expr; $name:ident) => {
        #[tokio::test]
        #[ignore = "needs the local AWS stack: localstack/run"]
        async fn $name() {
            let (store, _keep) = $store;
            $crate::lake::conformance::$name(&store).await;
        }
    };
}

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
        // A part may be repeated.
        store.upload_part(&key, &id, part.clone()).await.unwrap();
        tags.push(store.upload_part(&key, &id, part).await.unwrap());
    }
    (key, id, tags)
}

async fn keys(store: &dyn ObjectStore, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().into_iter().map(|object| object.key.to_string()).collect()
}

/// The smallest part that the store accepts before the last one. Parts of different seeds differ.
fn full_part(store: &dyn ObjectStore, seed: u8) -> Bytes {
    let bytes = store.part_bytes_min().max(3);
    (0..bytes).map(|at| u8::try_from(at % 251).unwrap_or_default() ^ seed).collect()
}

pub async fn an_upload_is_invisible_until_it_is_completed_and_then_whole(store: &dyn ObjectStore) {
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

pub async fn an_object_of_several_parts_is_its_parts_in_order(store: &dyn ObjectStore) {
    let sent = vec![full_part(store, 1), full_part(store, 2), full_part(store, 3), Bytes::from_static(b"the end")];
    let (key, id, parts) = stage_bytes(store, "raw/several.gz", "u-1", sent.clone()).await;
    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::Completed);
    let mut checksummer = Checksummer::default();
    sent.iter().for_each(|part| checksummer.update(part));
    let whole = sent.concat();
    assert_eq!(store.checksum(&key).await.unwrap(), Some((whole.len() as u64, checksummer.finish())));
    assert!(store.get(&key).await.unwrap().unwrap() == whole, "the bytes are those of the parts, in their order");
}

pub async fn an_object_may_be_empty(store: &dyn ObjectStore) {
    let (key, id, parts) = stage(store, "raw/empty", "u-1", &[""]).await;
    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::Completed);
    assert_eq!(store.checksum(&key).await.unwrap(), Some((0, Checksum::of(b""))));
}

/// The response to the first completion was lost. What the second returns depends on the store: some know that the object is
/// this upload's. In each case the object is there and does not change.
pub async fn completing_again_after_a_lost_response_leaves_the_object_as_it_is(store: &dyn ObjectStore) {
    let (key, id, parts) = stage(store, "processed/twice", "u-2", &["x"]).await;
    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::Completed);
    for _ in 0..2 {
        store.complete_upload(&key, &id, &parts).await.unwrap();
        assert_eq!(store.checksum(&key).await.unwrap(), Some((1, Checksum::of(b"x"))));
    }
    store.abort_upload(&key, &id).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().as_deref(), Some(b"x".as_slice()));
}

pub async fn of_many_uploads_of_one_key_one_is_completed(store: &dyn ObjectStore) {
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
            // S3 may ask the losers of a race to try again.
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

pub async fn completing_never_replaces_an_object(store: &dyn ObjectStore) {
    let (key, id, parts) = stage(store, "processed/taken", "u-3", &["new"]).await;
    assert_eq!(store.put_new(&key, Bytes::from_static(b"old")).await.unwrap(), Written::New);
    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::KeyTaken);
    assert_eq!(store.get(&key).await.unwrap().as_deref(), Some(b"old".as_slice()));
}

pub async fn an_aborted_upload_cannot_be_completed(store: &dyn ObjectStore) {
    let (key, id, parts) = stage(store, "processed/aborted", "u-4", &["x"]).await;
    store.abort_upload(&key, &id).await.unwrap();
    store.abort_upload(&key, &id).await.unwrap();
    store.flush().await.unwrap();
    assert_eq!(store.complete_upload(&key, &id, &parts).await.unwrap(), Completion::NoSuchUpload);
    assert_eq!(store.get(&key).await.unwrap(), None);
    let late = store.upload_part(&key, &id, NewPart { number: 2, offset: 1, bytes: Bytes::from_static(b"y") }).await;
    assert!(matches!(late, Err(LakeError::Refused { .. })), "{late:?}");
}

pub async fn a_copy_is_staged_like_any_upload_and_outlives_its_source(store: &dyn ObjectStore) {
    let (from, to) = (key("processed/a b+c/ä.parquet"), key("_trash/e-1/processed/a b+c/ä.parquet"));
    for (number, text) in [(1, "one,two"), (2, "")] {
        let (from, to) = (key(&format!("{from}-{number}")), key(&format!("{to}-{number}")));
        let (_, id, parts) = stage(store, from.as_str(), &format!("u-{number}"), &[text]).await;
        assert_eq!(store.complete_upload(&from, &id, &parts).await.unwrap(), Completion::Completed);
        let copy = store.stage_copy(&from, &to, &format!("c-{number}")).await.unwrap().unwrap();
        let checksum = Checksum::of(text.as_bytes());
        assert_eq!((copy.bytes, copy.crc64nvme), (text.len() as u64, checksum));
        store.flush().await.unwrap();
        assert_eq!(store.get(&to).await.unwrap(), None, "it is invisible");
        assert_eq!(store.complete_upload(&to, &copy.upload, &copy.parts).await.unwrap(), Completion::Completed);
        store.delete(&from).await.unwrap();
        assert_eq!(store.get(&from).await.unwrap(), None);
        assert_eq!(store.get(&to).await.unwrap().as_deref(), Some(text.as_bytes()));
        assert_eq!(store.checksum(&to).await.unwrap(), Some((text.len() as u64, checksum)));
    }
    assert!(store.list_uploads().await.unwrap().is_empty());
}

pub async fn a_copy_never_replaces_an_object_and_may_be_aborted(store: &dyn ObjectStore) {
    let (from, to) = (key("processed/x"), key("processed/y"));
    assert_eq!(store.put_new(&from, Bytes::from_static(b"x")).await.unwrap(), Written::New);
    assert_eq!(store.put_new(&to, Bytes::from_static(b"y")).await.unwrap(), Written::New);
    let copy = store.stage_copy(&from, &to, "c-1").await.unwrap().unwrap();
    assert_eq!(store.complete_upload(&to, &copy.upload, &copy.parts).await.unwrap(), Completion::KeyTaken);
    store.abort_upload(&to, &copy.upload).await.unwrap();
    assert_eq!(store.complete_upload(&to, &copy.upload, &copy.parts).await.unwrap(), Completion::NoSuchUpload);
    assert_eq!(store.get(&from).await.unwrap().as_deref(), Some(b"x".as_slice()), "aborting leaves the source");
    assert_eq!(store.get(&to).await.unwrap().as_deref(), Some(b"y".as_slice()));
}

pub async fn nothing_is_staged_of_an_object_that_does_not_exist(store: &dyn ObjectStore) {
    assert_eq!(store.stage_copy(&key("processed/none"), &key("processed/y"), "c-1").await.unwrap(), None);
    assert!(store.list_uploads().await.unwrap().is_empty());
}

pub async fn a_new_object_is_written_once(store: &dyn ObjectStore) {
    let key = key("_intents/e-1.json");
    assert_eq!(store.put_new(&key, Bytes::from_static(b"{}")).await.unwrap(), Written::New);
    assert_eq!(store.put_new(&key, Bytes::from_static(b"[]")).await.unwrap(), Written::KeyTaken);
    assert_eq!(store.get(&key).await.unwrap().as_deref(), Some(b"{}".as_slice()));
    store.delete(&key).await.unwrap();
    store.delete(&key).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap(), None);
    assert_eq!(store.checksum(&key).await.unwrap(), None);
}

pub async fn an_object_is_replaced_only_if_it_has_the_expected_bytes(store: &dyn ObjectStore) {
    let (key, [old, new, other]) =
        (key("_lake.json"), ["{}", "[1]", "[2]"].map(|text: &'static str| Bytes::from_static(text.as_bytes())));
    assert!(!store.replace(&key, &old, new.clone()).await.unwrap(), "there is none");
    assert_eq!(store.get(&key).await.unwrap(), None);
    store.put_new(&key, old.clone()).await.unwrap();
    assert!(!store.replace(&key, &other, new.clone()).await.unwrap(), "it has other bytes");
    assert_eq!(store.get(&key).await.unwrap(), Some(old.clone()));
    // The answer to the first was lost.
    for _ in 0..2 {
        assert!(store.replace(&key, &old, new.clone()).await.unwrap());
        assert_eq!(store.get(&key).await.unwrap(), Some(new.clone()));
    }
    assert!(!store.replace(&key, &old, other).await.unwrap(), "it has new bytes");
    assert_eq!(store.checksum(&key).await.unwrap(), Some((3, Checksum::of(b"[1]"))));
    assert_eq!(keys(store, "").await, ["_lake.json"], "nothing else is left");
}

pub async fn a_part_of_an_object_is_read_up_to_its_end(store: &dyn ObjectStore) {
    let (some, empty, none) = (key("raw/a/x.json.gz"), key("raw/a/empty.json.gz"), key("raw/a/none.json.gz"));
    store.put_new(&some, Bytes::from_static(b"0123456789")).await.unwrap();
    store.put_new(&empty, Bytes::new()).await.unwrap();
    for (range, expected) in
        [(0..4, "0123"), (3..8, "34567"), (7..100, "789"), (10..20, ""), (500..600, ""), (4..4, "")]
    {
        let part = store.get_range(&some, range.clone()).await.unwrap();
        assert_eq!(part.as_deref(), Some(expected.as_bytes()), "{range:?}");
    }
    assert_eq!(store.get_range(&empty, 0..10).await.unwrap(), Some(Bytes::new()));
    assert_eq!(store.get_range(&none, 0..10).await.unwrap(), None);
}

pub async fn lists_are_by_prefix_and_in_order(store: &dyn ObjectStore) {
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

pub async fn a_list_may_begin_after_any_text(store: &dyn ObjectStore) {
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
