//! What a lake says about itself: its format, and which pseudonym key it was written under.
//!
//! Owns: the stored format of `_lake.json`, and the check that a process may use a lake. Does not own: how a fingerprint is
//! computed (`setup::key`), the formats of other objects (`commit`, the pipeline crate).
//!
//! ```json
//! {"format":2,"key_fingerprint":"0f5b1c…"}
//! ```
//!
//! | field | meaning |
//! | --- | --- |
//! | `format` | [`FORMAT`]. It changes when a reader of the old format could misread what is written now |
//! | `key_fingerprint` | a text that only the lake's key yields; absent if the first worker needed no key |
//!
//! The object is written before any other object of the lake and never changed. So commit records in a lake without
//! `_lake.json` mean that an older version wrote the lake, or that somebody removed the object. Where the first worker had no
//! key, the fingerprint of the first key is in an object of its own, `_lake_key.json`: `{"key_fingerprint":"0f5b1c…"}`.

use bytes::Bytes;
use pipeline::layout::{COMMITS, LAKE_IDENTITY, LAKE_KEY};
use serde::{Deserialize, Serialize};

use crate::lake::{LakeError, ObjectKey, ObjectStore};

/// The format of lakes that this version reads and writes.
pub const FORMAT: u32 = 2;

/// The stored object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_fingerprint: Option<String>,
}

/// A lake that this process must not use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The lake could not be read or written.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// Another version wrote the lake.
    #[error(
        "the lake has format {found}, and this version of shardlake reads and writes format {FORMAT} only. Nothing was \
         changed. To have the data in a new lake, start this version with another --lake and other --checkpoints, and with \
         the original sources or a copy of the old lake's raw/ folder as its --source. The files in the old lake can still be \
         queried as they are"
    )]
    Format {
        /// The format of the lake.
        found: u32,
    },
    /// There are commit records, and no `_lake.json`.
    #[error(
        "the lake has commit records but no {LAKE_IDENTITY}: either an older version of shardlake wrote it (format 1), or the object \
         was removed. Nothing was changed. If it was removed, restore it. Otherwise start with another --lake and other \
         --checkpoints, and with the original sources or a copy of the old lake's raw/ folder as --source. The files in the \
         old lake can still be queried as they are"
    )]
    Absent,
    /// The object is damaged.
    #[error("{object} in the lake cannot be parsed ({problem}); restore the object, or use another lake")]
    Damaged {
        /// Its key.
        object: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The lake was written under another key.
    #[error(
        "the lake was written under another pseudonym key: with this one, every person would get a second pseudonym; use \
         the lake's own key, or a new lake"
    )]
    OtherKey,
}

/// The stored object of a key that came later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LaterKey {
    key_fingerprint: String,
}

/// The field that decides what the rest of the object means.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name).expect("a plain name is a key")
}

fn damaged(object: &'static str) -> impl Fn(serde_json::Error) -> IdentityError {
    move |error| IdentityError::Damaged { object, problem: error.to_string() }
}

/// Reads `_lake.json`; `None` if the lake is new.
async fn read(lake: &dyn ObjectStore) -> Result<Option<Identity>, IdentityError> {
    let Some(bytes) = lake.get(&key(LAKE_IDENTITY)).await? else {
        return if lake.list(COMMITS).await?.is_empty() { Ok(None) } else { Err(IdentityError::Absent) };
    };
    let AnyFormat { format } = serde_json::from_slice(&bytes).map_err(damaged(LAKE_IDENTITY))?;
    if format != FORMAT {
        return Err(IdentityError::Format { found: format });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(damaged(LAKE_IDENTITY))
}

/// Checks that this version can read the lake. Changes nothing.
///
/// # Errors
/// The lake has another format, or cannot be read.
pub async fn check_format(lake: &dyn ObjectStore) -> Result<(), IdentityError> {
    read(lake).await.map(drop)
}

/// Checks that a worker may write to the lake, and writes the identity of a new one. `fingerprint` is that of the worker's
/// key, if it has one.
///
/// # Errors
/// The lake has another format or another key, or it cannot be read or written.
pub async fn claim(lake: &dyn ObjectStore, fingerprint: Option<&str>) -> Result<(), IdentityError> {
    if read(lake).await?.is_none() {
        let identity = Identity { format: FORMAT, key_fingerprint: fingerprint.map(str::to_owned) };
        let bytes = serde_json::to_vec(&identity).expect("a number and a text are JSON");
        lake.put_new(&key(LAKE_IDENTITY), Bytes::from(bytes)).await?;
    }
    // Another worker may have been first: what counts is the object that is there now.
    let identity = read(lake).await?;
    let Some(fingerprint) = fingerprint else { return Ok(()) };
    let found = match identity.and_then(|identity| identity.key_fingerprint) {
        Some(found) => found,
        None => claim_later_key(lake, fingerprint).await?,
    };
    if found == fingerprint { Ok(()) } else { Err(IdentityError::OtherKey) }
}

/// The fingerprint of the first key of a lake that was begun without one. It is this one unless there is one already.
async fn claim_later_key(lake: &dyn ObjectStore, fingerprint: &str) -> Result<String, IdentityError> {
    let first = LaterKey { key_fingerprint: fingerprint.to_owned() };
    let bytes = serde_json::to_vec(&first).expect("a text is JSON");
    lake.put_new(&key(LAKE_KEY), Bytes::from(bytes)).await?;
    let found = lake.get(&key(LAKE_KEY)).await?.unwrap_or_default();
    serde_json::from_slice(&found).map(|found: LaterKey| found.key_fingerprint).map_err(damaged(LAKE_KEY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::MemoryStore;

    async fn lake_with(objects: &[(&str, &str)]) -> MemoryStore {
        let lake = MemoryStore::new();
        for (path, text) in objects {
            let written = lake.put_new(&ObjectKey::new(*path).unwrap(), Bytes::from((*text).to_owned())).await;
            written.unwrap();
        }
        lake
    }

    #[tokio::test]
    async fn a_new_lake_gets_format_2_and_its_key_for_ever() {
        let lake = MemoryStore::new();
        check_format(&lake).await.unwrap();
        assert!(lake.objects().is_empty(), "a check writes nothing");
        claim(&lake, Some("a")).await.unwrap();
        let stored = lake.object(&key(LAKE_IDENTITY)).unwrap();
        assert_eq!(stored, r#"{"format":2,"key_fingerprint":"a"}"#);
        claim(&lake, Some("a")).await.unwrap();
        claim(&lake, None).await.unwrap();
        assert_eq!(claim(&lake, Some("b")).await, Err(IdentityError::OtherKey));
        assert_eq!(lake.object(&key(LAKE_IDENTITY)).unwrap(), stored);
        check_format(&lake).await.unwrap();
    }

    #[tokio::test]
    async fn a_lake_begun_without_a_key_takes_the_first_one() {
        let lake = MemoryStore::new();
        claim(&lake, None).await.unwrap();
        assert_eq!(lake.object(&key(LAKE_IDENTITY)).unwrap(), r#"{"format":2}"#);
        claim(&lake, Some("a")).await.unwrap();
        assert_eq!(lake.object(&key(LAKE_KEY)).unwrap(), r#"{"key_fingerprint":"a"}"#);
        claim(&lake, Some("a")).await.unwrap();
        assert_eq!(claim(&lake, Some("b")).await, Err(IdentityError::OtherKey));
    }

    #[tokio::test]
    async fn lakes_of_other_formats_are_refused_and_left_as_they_are() {
        let other = |found| IdentityError::Format { found };
        let cases: [(&[(&str, &str)], IdentityError); 4] = [
            (&[("_lake.json", r#"{"format":1,"key_fingerprint":"a"}"#)], other(1)),
            (&[("_lake.json", r#"{"format":3,"whatever":[]}"#)], other(3)),
            (&[("_commits/20250113T103000Z.json", "{}")], IdentityError::Absent),
            (
                &[("_lake.json", "{}")],
                IdentityError::Damaged {
                    object: LAKE_IDENTITY,
                    problem: "missing field `format` at line 1 column 2".into(),
                },
            ),
        ];
        for (objects, expected) in cases {
            let lake = lake_with(objects).await;
            let before = lake.objects();
            assert_eq!(check_format(&lake).await, Err(expected.clone()));
            assert_eq!(claim(&lake, Some("a")).await, Err(expected));
            assert_eq!(lake.objects(), before);
        }
    }

    #[test]
    fn the_refusal_of_format_1_says_what_to_do() {
        let message = IdentityError::Format { found: 1 }.to_string();
        for part in
            ["the lake has format 1", "format 2", "raw/", "original sources", "another --lake", "queried as they are"]
        {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
    }
}
