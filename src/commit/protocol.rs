//! The steps of one commit, each consuming the one before it.
//!
//! Every request here may be lost before or after its effect. Each step says why it may be repeated.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use checkpoints::{Advance, AdvanceOutcome, Decided, Decision, ManifestName, Position, Refusal, ShardKey, StoreError};
use futures::{StreamExt, TryStreamExt, stream};
use mutations::mutated;

use crate::commit::epoch_id::EpochId;
use crate::commit::lake_log::{self, LogVersion, UnreadableEntry};
use crate::commit::manifest::{Manifest, ObjectOfEpoch, UnreadableManifest};
use crate::commit::operations::remove_objects;
use crate::commit::stores::Stores;
use crate::commit::swap::swap_objects;
use crate::lake::{Completion, LakeError, ObjectKey, Written};

/// Requests about objects that are in progress at once.
const CONCURRENT: usize = 16;
/// How long a commit waits for the removal of its intent, which a sweep can do later.
const INTENT_REMOVED_WITHIN: Duration = Duration::from_secs(2);

/// A commit that could not be finished.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The lease store failed.
    #[error(transparent)]
    Leases(#[from] StoreError),
    /// A stored manifest cannot be read.
    #[error(transparent)]
    Unreadable(#[from] UnreadableManifest),
    /// An entry of the lake log cannot be read.
    #[error(transparent)]
    UnreadableEntry(#[from] UnreadableEntry),
    /// Entries of the lake log are gone that were in it. The newest entry is never removed.
    #[error("the lake log ends at version {newest}, but version {known} was in it; restore the objects below _log/")]
    LogCut {
        /// The newest version that was known.
        known: LogVersion,
        /// The newest version that is in the lake.
        newest: LogVersion,
    },
    /// Another object has the key of this epoch's object or record.
    #[error("{key} exists, but with other bytes than epoch {epoch} wrote")]
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
    /// A range was committed twice, so no cursor of the log can say which records were read.
    #[error("the commit log is ambiguous: {key} was committed twice, again by epoch {epoch}; run shardlake verify")]
    Overlap {
        /// The shard.
        key: ShardKey,
        /// The second epoch.
        epoch: String,
    },
    /// Staged objects are gone, and shards have advanced: the epoch can go neither forward nor back.
    #[error(
        "epoch {epoch} can be neither finished nor rolled back: {missing} is permanently gone, and some of the epoch's \
         shards have advanced; restore the object"
    )]
    Torn {
        /// The epoch.
        epoch: String,
        /// The first missing object.
        missing: ObjectKey,
    },
}

impl CommitError {
    /// Returns true if the same call may succeed later.
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

/// Step 3 is done: the epoch is committed, whatever happens now.
#[derive(Debug)]
pub struct DecidedEpoch {
    manifest: Manifest,
    /// The intent as it is stored. The commit record has the same bytes, also if another version wrote the intent, with
    /// fields that this one does not know.
    intent: Bytes,
}

/// Step 4 is done: every object is visible, and the commit record says so.
#[derive(Debug)]
pub struct Published(Manifest);

/// Step 5 is done: the lake log has the epoch.
#[derive(Debug)]
pub struct Entered {
    manifest: Manifest,
    /// The epoch's version; `None` if it entered so long ago that its entry was trimmed.
    version: Option<LogVersion>,
}

/// Step 6 is done: the checkpoints have moved.
#[derive(Debug)]
pub struct Committed(pub Manifest);

/// The answer to step 3.
#[derive(Debug)]
pub enum Outcome {
    /// The epoch is committed.
    Decided(DecidedEpoch),
    /// The epoch was not committed, and its uploads are aborted. The shards that prevented it, if the store named them.
    Refused(Manifest, Vec<Refusal>),
}

/// An object that cannot be published: its upload is gone, and there is no object.
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
    /// The lake fails. Then nothing is decided, and nothing will be: the caller aborts the epoch.
    pub async fn write_intent(self, stores: &Stores) -> Result<Intended, (Manifest, CommitError)> {
        let Staged(mut manifest) = self;
        let written = async {
            stores.lake.flush().await?;
            manifest.head = lake_log::head(stores).await?;
            write_once(stores, &manifest.epoch.intent_key(), &manifest, manifest.to_bytes()).await
        };
        match written.await {
            Ok(()) => Ok(Intended(manifest)),
            Err(error) => Err((manifest, error)),
        }
    }
}

impl Intended {
    /// Step 3, the commit point. If the reply is lost, the rows show the outcome ([`Stores::decide_once`]).
    ///
    /// # Errors
    /// It is not known whether the epoch is committed. The caller must neither abort its uploads nor continue to read. It
    /// releases the shards, and whoever takes them finds the epoch pending or not.
    pub async fn decide(self, stores: &Stores) -> Result<Outcome, CommitError> {
        let Intended(manifest) = self;
        if mutated!(PublishBeforeDeciding) {
            for object in &manifest.objects {
                publish_object(stores.clone(), manifest.epoch.clone(), object.clone()).await?;
            }
        }
        if mutated!(RemoveBeforeDeciding) {
            remove_objects(stores, &manifest).await?;
        }
        let shards = manifest.shards.iter().map(|shard| (shard.key.clone(), shard.range.clone())).collect();
        let decision = Decision::new(manifest.worker.clone(), manifest.epoch.manifest_name(), shards)
            .map_err(|error| StoreError::Invalid { operation: "decide".to_owned(), problem: error.to_string() })?;
        let decided = stores.decide_once(&decision).await?;
        let refusals = match decided {
            Decided::Yes => {
                let intent = manifest.to_bytes();
                return Ok(Outcome::Decided(DecidedEpoch { manifest, intent }));
            }
            Decided::No(refusals) => refusals,
            Decided::Superseded => Vec::new(),
        };
        // The intent stays. A request that timed out may still arrive, and whoever finds the epoch pending needs the intent.
        abort_uploads(stores, manifest.clone()).await;
        Ok(Outcome::Refused(manifest, refusals))
    }
}

impl DecidedEpoch {
    /// A decided epoch that was found pending.
    pub(crate) fn found(manifest: Manifest, intent: Bytes) -> Self {
        DecidedEpoch { manifest, intent }
    }

    /// Step 4: completes every upload, then writes the commit record. Whoever repeats it finds the uploads gone, and the
    /// objects with the manifest's sizes and checksums.
    ///
    /// # Errors
    /// The lake fails, or another object has the key of one of the epoch.
    pub async fn publish(self, stores: &Stores) -> Result<Result<Published, (Self, Lost)>, CommitError> {
        if mutated!(AdvanceBeforePublishing) {
            Entered { manifest: self.manifest.clone(), version: None }.advance(stores).await?;
        }
        if mutated!(EnterBeforePublishing) {
            lake_log::enter(stores, &self.manifest).await?;
        }
        if mutated!(IntentRemovedEarly) {
            stores.lake.delete(&self.manifest.epoch.intent_key()).await?;
        }
        if mutated!(RecordBeforeObjects) {
            write_once(stores, &self.manifest.epoch.commit_key(), &self.manifest, self.intent.clone()).await?;
        }
        if let Some(swap) = self.manifest.swap.clone() {
            if let Some(lost) = swap_objects(stores, &self.manifest, &swap).await? {
                return Ok(Err((self, lost)));
            }
            write_once(stores, &self.manifest.epoch.commit_key(), &self.manifest, self.intent).await?;
            return Ok(Ok(Published(self.manifest)));
        }
        // Each object is copied only while it is published: ten thousand objects with their statistics take megabytes.
        let objects = &self.manifest.objects;
        let lost: Vec<Option<Lost>> = stream::iter(0..objects.len())
            .map(|index| publish_object(stores.clone(), self.manifest.epoch.clone(), objects[index].clone()))
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

    /// The name by which its rows know it.
    pub fn name(&self) -> ManifestName {
        self.manifest.epoch.manifest_name()
    }

    /// Returns the manifest.
    pub(crate) fn into_manifest(self) -> Manifest {
        self.manifest
    }
}

impl Published {
    /// An epoch whose commit record was found.
    pub(crate) fn found(manifest: Manifest) -> Self {
        Published(manifest)
    }

    /// Step 5: gives the epoch the next version of the lake log. Whoever repeats it finds the epoch in the log.
    ///
    /// # Errors
    /// The lake fails, or the lake log is damaged. The epoch is committed all the same; the next holder of a shard rolls it forward.
    pub async fn enter(self, stores: &Stores) -> Result<Entered, CommitError> {
        let Published(manifest) = self;
        if mutated!(AdvanceBeforeEntering) {
            Entered { manifest: manifest.clone(), version: None }.advance(stores).await?;
        }
        if mutated!(RemoveBeforeEntering) {
            remove_objects(stores, &manifest).await?;
        }
        let version = lake_log::enter(stores, &manifest).await?;
        Ok(Entered { manifest, version })
    }
}

impl Entered {
    /// The epoch's version; `None` if it entered so long ago that its entry was trimmed.
    pub fn version(&self) -> Option<LogVersion> {
        self.version
    }

    /// Step 6: moves every shard's checkpoint, then removes the intent. Whoever repeats it finds nothing pending. The objects that an
    /// operation removes go before: rows that are pending guarantee that somebody finishes this.
    ///
    /// # Errors
    /// The lease store fails. The epoch is committed all the same; the next holder of a shard rolls it forward.
    pub async fn advance(self, stores: &Stores) -> Result<Committed, CommitError> {
        let Entered { manifest, .. } = self;
        if !mutated!(RemoveAfterAdvancing) {
            remove_objects(stores, &manifest).await?;
        }
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
            tracing::debug!(epoch = %manifest.epoch, "some shards had already advanced");
        }
        if mutated!(RemoveAfterAdvancing) {
            remove_objects(stores, &manifest).await?;
        }
        // The commit record says all that the intent said. If this fails, a sweep removes the intent.
        let intent = manifest.epoch.intent_key();
        match tokio::time::timeout(INTENT_REMOVED_WITHIN, stores.lake_once.delete(&intent)).await {
            Ok(Ok(())) => {}
            // A refusal meets every epoch, and a sweep as well: somebody must act.
            Ok(Err(error)) if !error.is_retryable() => {
                tracing::warn!(epoch = %manifest.epoch, %error, "failed to remove the intent; intents pile up");
            }
            Ok(Err(_)) | Err(_) => {
                tracing::debug!(epoch = %manifest.epoch, "failed to remove the intent; a sweep removes it later");
            }
        }
        Ok(Committed(manifest))
    }
}

/// Completes one upload, or finds the object there.
pub(super) async fn publish_object(
    stores: Stores,
    epoch: EpochId,
    object: ObjectOfEpoch,
) -> Result<Option<Lost>, CommitError> {
    let completion = stores.lake.complete_upload(&object.key, &object.upload, &object.parts).await?;
    if completion == Completion::Completed {
        return Ok(None);
    }
    match stores.lake.checksum(&object.key).await? {
        Some(found) if found == (object.bytes, object.crc64nvme) => Ok(None),
        Some(_) => Err(CommitError::Conflict { key: object.key, epoch: epoch.to_string() }),
        None => Ok(Some(Lost(object.key))),
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

/// Aborts an epoch's uploads. A sweep removes those that cannot be aborted now.
pub async fn abort_uploads(stores: &Stores, manifest: Manifest) {
    stream::iter(manifest.objects)
        .for_each_concurrent(CONCURRENT, |object| {
            let lake = Arc::clone(&stores.lake_once);
            async move {
                if let Err(error) = lake.abort_upload(&object.key, &object.upload).await {
                    tracing::debug!(key = %object.key, %error, "failed to abort the upload; a sweep aborts it later");
                }
            }
        })
        .await;
}
