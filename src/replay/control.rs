//! Pausing, resuming and cancelling a replay, wherever its workers are.
//!
//! Owns: what was asked of a replay, as objects in the lake, in both directions. Does not own: obeying (`run`), what is removed of a
//! cancelled replay (`end`).
//!
//! `_replays/<id>/control/<20 digits>.json` is `{"format":1,"at":"2025-01-13T10:30:00.000Z","do":"pause"}`. The objects are numbered from 1
//! without a gap, and each is written once, by somebody who has read the one before it. The last one counts. After `cancel` there is none.

use bytes::Bytes;
use pipeline::layout;
use pipeline::time::format_rfc3339;
use serde::{Deserialize, Serialize};

use crate::lake::{LakeError, ObjectKey, ObjectStore, Written};
use crate::replay::plan::ReplayId;

/// The version of the stored form.
const FORMAT: u32 = 1;
/// How often a request is repeated because somebody else was faster.
const ATTEMPTS_MAX: u32 = 20;

/// What somebody may ask of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Control {
    /// Stop reading, and keep what was read.
    Pause,
    /// Read on.
    Resume,
    /// Stop, and never read again.
    Cancel,
}

/// What the workers of a replay are to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// Read.
    #[default]
    Running,
    /// Wait.
    Paused,
    /// End.
    Cancelled,
}

/// Why a request was not noted, or is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The lake fails.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// What is stored cannot be read.
    #[error("{key} cannot be read: {problem}")]
    Unreadable {
        /// Its key.
        key: ObjectKey,
        /// What is wrong with it.
        problem: String,
    },
    /// The replay was cancelled.
    #[error("replay {0} was cancelled, which is final; plan another one")]
    Cancelled(ReplayId),
    /// Others asked at every attempt.
    #[error("the request was not noted: others have asked something of replay {0} at the same time; try again")]
    Contended(ReplayId),
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    at: String,
    #[serde(rename = "do")]
    control: Control,
}

impl Control {
    fn wants(self) -> Wanted {
        match self {
            Control::Pause => Wanted::Paused,
            Control::Resume => Wanted::Running,
            Control::Cancel => Wanted::Cancelled,
        }
    }
}

/// What was asked last, and its number; 0 if nothing was.
async fn last(lake: &dyn ObjectStore, id: &ReplayId) -> Result<(u64, Wanted), ControlError> {
    let listed = lake.list(&layout::replay_controls(id.as_str())).await?;
    let numbered = |key: &ObjectKey| {
        layout::number_of_replay_control(id.as_str(), key.as_str()).map(|number| (number, key.clone()))
    };
    let Some((number, key)) = listed.iter().filter_map(|object| numbered(&object.key)).max() else {
        return Ok((0, Wanted::Running));
    };
    let unreadable = |problem: String| ControlError::Unreadable { key: key.clone(), problem };
    let bytes = lake.get(&key).await?.ok_or_else(|| unreadable("it is gone".to_owned()))?;
    let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
    if stored.format != FORMAT {
        return Err(unreadable(format!("it has format {}", stored.format)));
    }
    Ok((number, stored.control.wants()))
}

/// What the workers of a replay are to do now.
///
/// # Errors
/// The lake fails, or what is stored cannot be read.
pub async fn wanted(lake: &dyn ObjectStore, id: &ReplayId) -> Result<Wanted, ControlError> {
    last(lake, id).await.map(|(_, wanted)| wanted)
}

/// Asks something of a replay. Does nothing if it is what was asked last. `now_ms` is the time of day in milliseconds since 1970.
///
/// # Errors
/// The replay was cancelled; the lake fails; others are always faster.
pub async fn ask(lake: &dyn ObjectStore, id: &ReplayId, control: Control, now_ms: i64) -> Result<(), ControlError> {
    for _ in 0..ATTEMPTS_MAX {
        let (number, wanted) = last(lake, id).await?;
        if wanted == control.wants() {
            return Ok(());
        }
        if wanted == Wanted::Cancelled {
            return Err(ControlError::Cancelled(id.clone()));
        }
        let key = ObjectKey::new(layout::replay_control(id.as_str(), number + 1)).expect("digits are a plain name");
        let stored = Stored { format: FORMAT, at: format_rfc3339(now_ms), control };
        let bytes = serde_json::to_vec(&stored).expect("three plain fields");
        // If the key is taken, by somebody else or by this very request, what was asked last is read again.
        let (Written::New | Written::KeyTaken) = lake.put_new(&key, Bytes::from(bytes)).await?;
    }
    let (_, wanted) = last(lake, id).await?;
    if wanted == control.wants() { Ok(()) } else { Err(ControlError::Contended(id.clone())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::{Fault, MemoryStore};

    fn id() -> ReplayId {
        ReplayId::try_from("01ab0000".to_owned()).unwrap()
    }

    #[tokio::test]
    async fn what_was_asked_last_counts_and_cancel_is_final() {
        let (lake, id) = (MemoryStore::new(), id());
        assert_eq!(wanted(&lake, &id).await, Ok(Wanted::Running));
        for (control, expected) in [
            (Control::Pause, Wanted::Paused),
            (Control::Pause, Wanted::Paused),
            (Control::Resume, Wanted::Running),
            (Control::Cancel, Wanted::Cancelled),
            (Control::Cancel, Wanted::Cancelled),
        ] {
            ask(&lake, &id, control, 0).await.unwrap();
            assert_eq!(wanted(&lake, &id).await, Ok(expected));
        }
        assert_eq!(lake.objects().len(), 3, "a repeated request writes nothing");
        assert_eq!(ask(&lake, &id, Control::Resume, 0).await, Err(ControlError::Cancelled(id)));
    }

    #[tokio::test]
    async fn a_request_whose_answer_was_lost_is_noted_once() {
        let (lake, id) = (MemoryStore::new(), id());
        lake.fail("put_new", 0, Fault::LoseAfter);
        let lost = ask(&lake, &id, Control::Pause, 0).await;
        assert!(matches!(lost, Err(ControlError::Lake(_))), "the caller's store repeats: {lost:?}");
        ask(&lake, &id, Control::Pause, 0).await.unwrap();
        assert_eq!((lake.objects().len(), wanted(&lake, &id).await), (1, Ok(Wanted::Paused)));
    }

    #[tokio::test]
    async fn of_two_that_ask_at_once_both_are_noted_in_some_order() {
        let (lake, id) = (MemoryStore::new(), id());
        let (one, other) = tokio::join!(ask(&lake, &id, Control::Pause, 0), ask(&lake, &id, Control::Cancel, 0));
        other.unwrap();
        assert!(matches!(one, Ok(()) | Err(ControlError::Cancelled(_))), "{one:?}");
        assert_eq!(wanted(&lake, &id).await, Ok(Wanted::Cancelled));
    }
}
