//! Why a replay is not promoted, undone, purged or cancelled.

use crate::commit::lake_log::{HistoryError, LogVersion};
use crate::lake::{DefinitionError, LakeError, ObjectKey};
use crate::maintenance::operation::OperationError;
use crate::maintenance::undo::UndoError;
use crate::replay::control::ControlError;
use crate::replay::plan::ReplayId;
use crate::replay::promote::OBJECTS_MAX;

/// Why a replay is not promoted, undone, purged or cancelled. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is a redrive or a what-if.
    #[error("{0} is not a replay that can be promoted")]
    Purpose(ReplayId),
    /// Something that it replaces is gone.
    #[error(
        "replay {id} is outdated: version {version} has removed {key}, which it would replace. Plan again: shardlake replay plan"
    )]
    Outdated {
        /// The replay.
        id: ReplayId,
        /// The version of the lake log.
        version: LogVersion,
        /// The object.
        key: ObjectKey,
    },
    /// The same, and the entries that say why are gone.
    #[error(
        "replay {id} is outdated: {key}, which it would replace, is not in the lake any more. Plan again: shardlake replay plan"
    )]
    NotLive {
        /// The replay.
        id: ReplayId,
        /// The object.
        key: ObjectKey,
    },
    /// It has not read everything.
    #[error("replay {0} is not complete, or has read fewer records than were planned: see shardlake replay status")]
    Incomplete(ReplayId),
    /// It has read fewer or more records than the epochs had.
    #[error(
        "replay {id} has read {found} records, and the epochs that it replaces had {expected}. Compare with shardlake replay diff; to \
         promote it all the same, add --accept-difference"
    )]
    OtherRecords {
        /// The replay.
        id: ReplayId,
        /// Records that it has read.
        found: u64,
        /// Records of the epochs.
        expected: u64,
    },
    /// Rows of a dataset were made by several definitions, or by another one than the configuration has.
    #[error(
        "replay {id} has made rows of {dataset} with another definition than this configuration has. Use the configuration of the replay, \
         or plan again"
    )]
    OtherDefinition {
        /// The replay.
        id: ReplayId,
        /// The dataset.
        dataset: String,
    },
    /// It changes too many objects at once.
    #[error(
        "replay {id} adds and removes {count} objects; one change of the lake has at most {OBJECTS_MAX}. Plan shorter ranges and promote one \
         after the other"
    )]
    TooLarge {
        /// The replay.
        id: ReplayId,
        /// Objects.
        count: usize,
    },
    /// Somebody has cancelled it.
    #[error("replay {0} was cancelled: plan a new one")]
    Cancelled(ReplayId),
    /// It was promoted and undone.
    #[error("replay {id} was undone in version {version} and is not promoted again: plan a new one")]
    Undone {
        /// The replay.
        id: ReplayId,
        /// The version of the undo.
        version: LogVersion,
    },
    /// It was promoted, so it cannot be cancelled.
    #[error("replay {0} was promoted: take it back with `shardlake replay undo`")]
    Promoted(ReplayId),
    /// It was never promoted.
    #[error("replay {0} was not promoted: there is nothing to undo")]
    NotPromoted(ReplayId),
    /// What it had made is gone.
    #[error("replay {0} was purged")]
    Purged(ReplayId),
    /// It still runs.
    #[error(
        "replay {0} is neither complete nor promoted: to end it and remove what it has written, use shardlake replay cancel"
    )]
    Unfinished(ReplayId),
}

/// A command on a replay failed.
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// It cannot be done. Nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A definition does not fit what the lake has.
    #[error(transparent)]
    Definitions(#[from] DefinitionError),
    /// The operation was not done, or not to its end.
    #[error(transparent)]
    Operation(#[from] OperationError),
    /// It cannot be undone, or the undo failed.
    #[error(transparent)]
    Undo(#[from] UndoError),
    /// What was asked of the replay cannot be read.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A log cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The lake fails.
    #[error(transparent)]
    Lake(#[from] LakeError),
}

impl PromoteError {
    /// Whether the caller can act on it, and nothing was changed.
    pub fn is_usage(&self) -> bool {
        match self {
            PromoteError::Refused(_) | PromoteError::Undo(UndoError::Refused(_)) => true,
            PromoteError::Definitions(error) => error.is_usage(),
            _ => false,
        }
    }
}
