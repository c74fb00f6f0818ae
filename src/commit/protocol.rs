//! The steps of one commit, each consuming the one before it.
//!
//! Every request here may be lost before or after its effect; each step says how repeating it is safe.

use std::sync::Arc;

use bytes::Bytes;
use checkpoints::{Advance, AdvanceOutcome, Decided, Decision, Position, Refusal, StoreError};
use futures::{StreamExt, TryStreamExt, stream};
use mutations::mutated;

use crate::commit::manifest::{Manifest, ObjectOfEpoch, UnreadableManifest};
use crate::commit::stores::Stores;
use crate::lake::{Completion, LakeError, ObjectKey, Written};

/// Requests about objects that are under way at once.
const CONCURRENT: usize = 16;

/// A commit that could not be brought to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The lease store failed.
    #[error(transparent)]
    Leases(#[from] StoreError),
    /// A stored manifest can't be read.
    #[error(transparent)]
    Unreadable(#[from] UnreadableManifest),
    /// Something else stands where this epoch's own object or record belongs.
    #[error("{key} is there with other bytes than epoch {epoch} wrote")]
    Conflict {
        /// The key.
        key: ObjectKey,
        /// The epoch.
        epoch: String,
    },
    /// A pending epoch has neither intent nor commit record.
    #[error(
        "{name} is pending, but neither that intent nor its commit record is in the lake; \
         restore the intent, or clear the pending attributes of its shards by hand"
    )]
    NoIntent {
        /// The intent's name.
        name: String,
    },
    /// Staged objects are gone, and shards have advanced: neither forward nor back.
    #[error("objects of epoch {epoch} are gone for good, and some of its shards have advanced: {missing}")]
    Torn {
        /// The epoch.
        epoch: String,
        /// The first missing object.
        missing: ObjectKey,
    },
}

impl CommitError {
    /// Whether it may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            CommitError::Lake(error) => error.is_retryable(),
            CommitError::Leases(error) => error.is_retryable(),
            _ => false,
        }
    }
}

/// Step 1 is done: every object is uploaded, durable and invisible.
#[derive(Debug)]
pub struct Staged(Manifest);

/// Step 2 is done: the intent is written.
#[derive(Debug)]
pub struct Intended(Manifest);

/// Step 3 is done: the epoch is committed, whatever happens next.
#[derive(Debug)]
pub struct DecidedEpoch {
    manifest: Manifest,
    /// The intent as it is stored. The commit record is the same bytes, also where another version wrote the intent, with
    /// things in it that this one does not know.
    intent: Bytes,
}

/// Step 4 is done: every object is visible, and the commit record says so.
#[derive(Debug)]
pub struct Published(Manifest);

/// All is done.
#[derive(Debug)]
pub struct Committed(pub Manifest);

/// The answer to step 3.
#[derive(Debug)]
pub enum Outcome {
    /// The epoch is committed.
    DecidedEpoch(DecidedEpoch),
    /// The epoch never happened. Its uploads are aborted. The shards that stood in the way, if the store named them.
    Refused(Manifest, Vec<Refusal>),
}

/// An object that can't be published, because its upload is gone and it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost(pub ObjectKey);

impl Staged {
    /// An epoch whose uploads were all acknowledged.
    pub fn new(manifest: Manifest) -> Self {
        Staged(manifest)
    }

    /// Step 2: makes the uploads durable, then writes the intent. Repeating it finds the intent there.
    ///
    /// # Errors
    /// The lake fails. Nothing is decided then, and nothing will be: the epoch is to be aborted.
    pub async fn describe(self, stores: &Stores) -> Result<Intended, (Manifest, CommitError)> {
        let Staged(manifest) = self;
        let described = async {
            stores.lake.flush().await?;
            write_once(stores, &manifest.epoch.intent_key(), &manifest, manifest.to_bytes()).await
        };
        match described.await {
            Ok(()) => Ok(Intended(manifest)),
            Err(error) => Err((manifest, error)),
        }
    }
}

impl Intended {
    /// Step 3, the commit point. A lost reply is found out from the rows ([`Stores::decide_once`]).
    ///
    /// # Errors
    /// It is not known whether the epoch is committed. The caller must not abort its uploads nor read on, but let its
    /// shards go: whoever takes them finds the epoch pending or not.
    pub async fn decide(self, stores: &Stores) -> Result<Outcome, CommitError> {
        let Intended(manifest) = self;
        if mutated!(PublishBeforeDeciding) {
            for object in &manifest.objects {
                publish_object(stores.clone(), object.clone()).await?;
            }
        }
        let shards = manifest.shards.iter().map(|shard| (shard.key.clone(), shard.range.clone())).collect();
        let decision = Decision::new(manifest.worker.clone(), manifest.epoch.manifest_name(), shards)
            .map_err(|error| StoreError::Invalid { operation: "decide".to_owned(), problem: error.to_string() })?;
        let decided = stores.decide_once(&decision).await?;
        let refusals = match decided {
            Decided::Yes => {
                let intent = manifest.to_bytes();
                return Ok(Outcome::DecidedEpoch(DecidedEpoch { manifest, intent }));
            }
            Decided::No(refusals) => refusals,
            Decided::Superseded => Vec::new(),
        };
        // The intent stays: should a request that was taken for lost arrive even now, whoever finds it pending needs it.
        abort_uploads(stores, manifest.clone()).await;
        Ok(Outcome::Refused(manifest, refusals))
    }
}

impl DecidedEpoch {
    /// A decided epoch that was found pending.
    pub(crate) fn found(manifest: Manifest, intent: Bytes) -> Self {
        DecidedEpoch { manifest, intent }
    }

    /// Step 4: completes every upload, then writes the commit record. Repeating it, by anyone, finds uploads gone and
    /// objects there with the manifest's size and checksum.
    ///
    /// # Errors
    /// The lake fails, or an object is lost for good.
    pub async fn publish(self, stores: &Stores) -> Result<Result<Published, (Self, Lost)>, CommitError> {
        if mutated!(AdvanceBeforePublishing) {
            Published(self.manifest.clone()).advance(stores).await?;
        }
        if mutated!(IntentRemovedEarly) {
            stores.lake.delete(&self.manifest.epoch.intent_key()).await?;
        }
        if mutated!(RecordBeforeObjects) {
            write_once(stores, &self.manifest.epoch.commit_key(), &self.manifest, self.intent.clone()).await?;
        }
        let lost: Vec<Option<Lost>> = stream::iter(self.manifest.objects.clone())
            .map(|object| publish_object(stores.clone(), object))
            .buffer_unordered(CONCURRENT)
            .try_collect()
            .await?;
        if let Some(lost) = lost.into_iter().flatten().next() {
            return Ok(Err((self, lost)));
        }
        stores.lake.flush().await?;
        write_once(stores, &self.manifest.epoch.commit_key(), &self.manifest, self.intent).await?;
        Ok(Ok(Published(self.manifest)))
    }

    /// Gives the manifest back.
    pub(crate) fn into_manifest(self) -> Manifest {
        self.manifest
    }
}

impl Published {
    /// An epoch whose commit record was found.
    pub(crate) fn found(manifest: Manifest) -> Self {
        Published(manifest)
    }

    /// Step 5: moves every shard's checkpoint, then removes the intent. Repeating it, by anyone, finds nothing pending.
    ///
    /// # Errors
    /// The lease store fails. The epoch is committed all the same, and rolled forward by whoever reads on.
    pub async fn advance(self, stores: &Stores) -> Result<Committed, CommitError> {
        let Published(manifest) = self;
        let advances: Vec<Advance> = manifest
            .shards
            .iter()
            .map(|shard| match shard.range.through() {
                Position::End => Advance::to_end(shard.key.clone(), shard.children.iter().cloned()),
                through => Advance::new(shard.key.clone(), through.clone()),
            })
            .collect();
        let name = manifest.epoch.manifest_name();
        let outcomes = stores.leases.advance(&name, &advances).await?;
        if outcomes.contains(&AdvanceOutcome::NotPending) {
            tracing::debug!(epoch = %manifest.epoch, "some shards had moved on already");
        }
        // A commit record says all that the intent said. Should this fail, a sweep finds it.
        if let Err(error) = stores.lake_once.delete(&manifest.epoch.intent_key()).await {
            tracing::debug!(epoch = %manifest.epoch, %error, "the intent is left to be swept");
        }
        Ok(Committed(manifest))
    }
}

/// Completes one upload, or sees that the object is there.
async fn publish_object(stores: Stores, object: ObjectOfEpoch) -> Result<Option<Lost>, CommitError> {
    let completion = stores.lake.complete_upload(&object.key, &object.upload, &object.parts).await?;
    if completion == Completion::Completed {
        return Ok(None);
    }
    match stores.lake.checksum(&object.key).await? {
        Some(found) if found == (object.bytes, object.crc64nvme) => Ok(None),
        Some(_) => Err(CommitError::Conflict { key: object.key.clone(), epoch: object.key.to_string() }),
        None => Ok(Some(Lost(object.key.clone()))),
    }
}

/// Writes an intent or a commit record; one that is there must have the same bytes.
async fn write_once(stores: &Stores, key: &ObjectKey, manifest: &Manifest, bytes: Bytes) -> Result<(), CommitError> {
    if stores.lake.put_new(key, bytes.clone()).await? == Written::New {
        return Ok(());
    }
    match stores.lake.get(key).await? {
        Some(found) if found == bytes => Ok(()),
        _ => Err(CommitError::Conflict { key: key.clone(), epoch: manifest.epoch.to_string() }),
    }
}

/// Aborts an epoch's uploads; those that can't be aborted now are swept later.
pub async fn abort_uploads(stores: &Stores, manifest: Manifest) {
    stream::iter(manifest.objects)
        .for_each_concurrent(CONCURRENT, |object| {
            let lake = Arc::clone(&stores.lake_once);
            async move {
                if let Err(error) = lake.abort_upload(&object.key, &object.upload).await {
                    tracing::debug!(key = %object.key, %error, "the upload is left to be swept");
                }
            }
        })
        .await;
}
