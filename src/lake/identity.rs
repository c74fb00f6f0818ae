//! What a lake says about itself: its format, and which pseudonym key it was written under.
//!
//! Owns: the stored format of `_lake.json`, and the check that a process may use a lake. Does not own: how a fingerprint is
//! computed (`setup::key`), the formats of other objects (`commit`, the pipeline crate).
//!
//! ```json
//! {"format":3,"key_fingerprint":"0f5b1c…"}
//! ```
//!
//! | field | meaning |
//! | --- | --- |
//! | `format` | [`FORMAT`]. It changes when a reader of the old format could misread what is written now |
//! | `migrates_from` | the format that the lake had, while its lake log is being built; otherwise absent |
//! | `key_fingerprint` | a text that only the lake's key yields; absent if the first worker needed no key |
//!
//! The object is written before any other object of the lake. It is replaced when the lake is migrated from the format before, and never
//! changed otherwise. So commit records in a lake without
//! `_lake.json` mean that an older version wrote the lake, or that somebody removed the object. Where the first worker had no
//! key, the fingerprint of the first key is in an object of its own, `_lake_key.json`: `{"key_fingerprint":"0f5b1c…"}`.

use bytes::Bytes;
use pipeline::layout::{COMMITS, LAKE_IDENTITY, LAKE_KEY};
use serde::{Deserialize, Serialize};

use crate::lake::{LakeError, ObjectKey, ObjectStore};

/// The format of lakes that this version reads and writes. Such a lake has a lake log.
pub const FORMAT: u32 = 3;
/// The format of lakes that a worker of this version migrates.
pub const FORMAT_BEFORE: u32 = 2;

/// The stored object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    migrates_from: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_fingerprint: Option<String>,
}

impl Identity {
    fn to_bytes(&self) -> Bytes {
        Bytes::from(serde_json::to_vec(self).expect("numbers and a text are JSON"))
    }
}

/// What is to be done with a lake of its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LakeFormat {
    /// The lake is new.
    New,
    /// It has the format of this version.
    Current,
    /// It has the format before: a worker of this version migrates it.
    Before,
    /// It is being migrated from the format before.
    Migrating,
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
    /// A worker of this version has not migrated the lake yet.
    #[error(
        "the lake has format {FORMAT_BEFORE}, or a worker is converting it to format {FORMAT} now. Nothing was changed. Stop all workers \
         of the earlier version, then start one of this version: it builds the lake log from the commit records, and every command can \
         use the lake afterwards"
    )]
    NotMigrated,
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

/// Reads `_lake.json`, and its bytes; `None` if the lake is new.
async fn read(lake: &dyn ObjectStore) -> Result<Option<(Identity, Bytes)>, IdentityError> {
    let Some(bytes) = lake.get(&key(LAKE_IDENTITY)).await? else {
        return if lake.list(COMMITS).await?.is_empty() { Ok(None) } else { Err(IdentityError::Absent) };
    };
    let AnyFormat { format } = serde_json::from_slice(&bytes).map_err(damaged(LAKE_IDENTITY))?;
    if format != FORMAT && format != FORMAT_BEFORE {
        return Err(IdentityError::Format { found: format });
    }
    let identity = serde_json::from_slice(&bytes).map_err(damaged(LAKE_IDENTITY))?;
    Ok(Some((identity, bytes)))
}

/// Returns the format of a lake. Changes nothing.
///
/// # Errors
/// The lake has a format that this version neither reads nor migrates, or cannot be read.
pub async fn format_of(lake: &dyn ObjectStore) -> Result<LakeFormat, IdentityError> {
    Ok(match read(lake).await? {
        None => LakeFormat::New,
        Some((Identity { format: FORMAT_BEFORE, .. }, _)) => LakeFormat::Before,
        Some((Identity { migrates_from: Some(_), .. }, _)) => LakeFormat::Migrating,
        Some(_) => LakeFormat::Current,
    })
}

/// Checks that this version can read the lake as it is. Changes nothing.
///
/// # Errors
/// The lake has another format, or cannot be read.
pub async fn check_format(lake: &dyn ObjectStore) -> Result<(), IdentityError> {
    match format_of(lake).await? {
        LakeFormat::New | LakeFormat::Current => Ok(()),
        LakeFormat::Before | LakeFormat::Migrating => Err(IdentityError::NotMigrated),
    }
}

/// Declares that a lake of the format before is being migrated. Workers of earlier versions refuse to start then. Does nothing to another
/// lake.
///
/// # Errors
/// The lake cannot be read or written.
pub async fn begin_migration(lake: &dyn ObjectStore) -> Result<(), IdentityError> {
    let Some((identity, bytes)) = read(lake).await? else { return Ok(()) };
    if identity.format == FORMAT_BEFORE {
        let migrating = Identity { format: FORMAT, migrates_from: Some(FORMAT_BEFORE), ..identity };
        lake.replace(&key(LAKE_IDENTITY), &bytes, migrating.to_bytes()).await?;
    }
    Ok(())
}

/// Declares that a lake that was being migrated has this format. Does nothing to another lake.
///
/// # Errors
/// The lake cannot be read or written.
pub async fn end_migration(lake: &dyn ObjectStore) -> Result<(), IdentityError> {
    let Some((identity, bytes)) = read(lake).await? else { return Ok(()) };
    if identity.migrates_from.is_some() {
        let migrated = Identity { migrates_from: None, ..identity };
        lake.replace(&key(LAKE_IDENTITY), &bytes, migrated.to_bytes()).await?;
    }
    Ok(())
}

/// Checks that a worker may write to the lake, and writes the identity of a new one. `fingerprint` is that of the worker's
/// key, if it has one. A lake of the format before must be migrated afterwards.
///
/// # Errors
/// The lake has another format or another key, or it cannot be read or written.
pub async fn claim(lake: &dyn ObjectStore, fingerprint: Option<&str>) -> Result<(), IdentityError> {
    if read(lake).await?.is_none() {
        let identity =
            Identity { format: FORMAT, migrates_from: None, key_fingerprint: fingerprint.map(str::to_owned) };
        lake.put_new(&key(LAKE_IDENTITY), identity.to_bytes()).await?;
    }
    // Another worker may have been first: what counts is the object that is there now.
    let identity = read(lake).await?;
    let Some(fingerprint) = fingerprint else { return Ok(()) };
    let found = match identity.and_then(|(identity, _)| identity.key_fingerprint) {
        Some(found) => found,
        None => claim_later_key(lake, fingerprint).await?,
    };
    if found == fingerprint { Ok(()) } else { Err(IdentityError::OtherKey) }
}

/// Checks that a key is the lake's, if the lake has one. Changes nothing.
///
/// # Errors
/// The lake has another key or another format, or it cannot be read.
pub async fn check_key(lake: &dyn ObjectStore, fingerprint: &str) -> Result<(), IdentityError> {
    let found = match read(lake).await?.and_then(|(identity, _)| identity.key_fingerprint) {
        Some(found) => Some(found),
        None => match lake.get(&key(LAKE_KEY)).await? {
            Some(bytes) => {
                let later: LaterKey = serde_json::from_slice(&bytes).map_err(damaged(LAKE_KEY))?;
                Some(later.key_fingerprint)
            }
            None => None,
        },
    };
    if found.is_none_or(|found| found == fingerprint) { Ok(()) } else { Err(IdentityError::OtherKey) }
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
    async fn a_new_lake_gets_format_3_and_its_key_for_ever() {
        let lake = MemoryStore::new();
        check_format(&lake).await.unwrap();
        assert!(lake.objects().is_empty(), "a check writes nothing");
        claim(&lake, Some("a")).await.unwrap();
        let stored = lake.object(&key(LAKE_IDENTITY)).unwrap();
        assert_eq!(stored, r#"{"format":3,"key_fingerprint":"a"}"#);
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
        assert_eq!(lake.object(&key(LAKE_IDENTITY)).unwrap(), r#"{"format":3}"#);
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
            (&[("_lake.json", r#"{"format":4,"whatever":[]}"#)], other(4)),
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

    #[tokio::test]
    async fn a_lake_of_format_2_is_claimed_by_workers_and_refused_by_commands_until_it_is_migrated() {
        let before = r#"{"format":2,"key_fingerprint":"a"}"#;
        let lake = lake_with(&[("_lake.json", before), ("_commits/20250113T103000Z.json", "{}")]).await;
        claim(&lake, Some("a")).await.unwrap();
        assert_eq!(claim(&lake, Some("b")).await, Err(IdentityError::OtherKey));
        assert_eq!(lake.object(&key(LAKE_IDENTITY)).unwrap(), before);
        assert_eq!(format_of(&lake).await, Ok(LakeFormat::Before));
        end_migration(&lake).await.unwrap();
        for _ in 0..2 {
            assert_eq!(check_format(&lake).await, Err(IdentityError::NotMigrated));
            begin_migration(&lake).await.unwrap();
            assert_eq!(format_of(&lake).await, Ok(LakeFormat::Migrating));
        }
        let migrating = lake.object(&key(LAKE_IDENTITY)).unwrap();
        assert_eq!(migrating, r#"{"format":3,"migrates_from":2,"key_fingerprint":"a"}"#);
        for _ in 0..2 {
            end_migration(&lake).await.unwrap();
            begin_migration(&lake).await.unwrap();
            check_format(&lake).await.unwrap();
        }
        assert_eq!(lake.object(&key(LAKE_IDENTITY)).unwrap(), r#"{"format":3,"key_fingerprint":"a"}"#);
    }

    #[test]
    fn the_refusal_of_format_1_says_what_to_do() {
        let message = IdentityError::Format { found: 1 }.to_string();
        for part in
            ["the lake has format 1", "format 3", "raw/", "original sources", "another --lake", "queried as they are"]
        {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
    }
}
