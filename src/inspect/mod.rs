//! Looking at a lake from outside: what it holds, and whether that is what its commit records say.
//!
//! Owns: the audits behind `verify`, `status`, `sweep`, `deadletters`. They give data; the command line prints it. Does not
//! own: the formats (`commit`, the pipeline crate).

mod dead_letters;
pub mod leases;
mod verify;

use futures::{StreamExt, TryStreamExt, stream};

use crate::commit::{COMMITS, CommitError, INTENTS, Manifest, Stores, UnreadableManifest};
use crate::lake::ObjectKey;

pub use dead_letters::{LettersObject, ShownLetter, list_letters, show_letters};
pub use verify::{Audit, Fault, verify};

/// Requests that are under way at once.
const CONCURRENT: usize = 16;

/// All commit records that can be read, in the order of their epochs, and those that can't.
///
/// # Errors
/// The lake fails.
pub async fn commit_records(stores: &Stores) -> Result<(Vec<Manifest>, Vec<UnreadableManifest>), CommitError> {
    manifests(stores, COMMITS).await
}

/// All intents, in the same way.
///
/// # Errors
/// The lake fails.
pub async fn intents(stores: &Stores) -> Result<(Vec<Manifest>, Vec<UnreadableManifest>), CommitError> {
    manifests(stores, INTENTS).await
}

async fn manifests(stores: &Stores, prefix: &str) -> Result<(Vec<Manifest>, Vec<UnreadableManifest>), CommitError> {
    let keys = stores.lake.list(prefix).await?.into_iter().map(|object| object.key);
    let read: Vec<Option<Result<Manifest, UnreadableManifest>>> = stream::iter(keys)
        .map(|key| async move { read(stores, &key).await })
        .buffered(CONCURRENT)
        .try_collect()
        .await?;
    let mut manifests = Vec::new();
    let mut unreadable = Vec::new();
    for one in read.into_iter().flatten() {
        match one {
            Ok(manifest) => manifests.push(manifest),
            Err(error) => unreadable.push(error),
        }
    }
    Ok((manifests, unreadable))
}

async fn read(stores: &Stores, key: &ObjectKey) -> Result<Option<Result<Manifest, UnreadableManifest>>, CommitError> {
    let bytes = stores.lake.get(key).await?;
    Ok(bytes.map(|bytes| Manifest::from_bytes(key, &bytes)))
}
