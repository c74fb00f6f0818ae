//! Losses in a source: bytes that are gone before they were read, and files about which somebody must decide.
//!
//! Owns: the objects in `_losses/` that keep them, in both directions, and the decisions about them. Does not own: finding a loss
//! (the source does), printing (`cli`).
//!
//! A loss is one object for each shard and kind, written once. `verify` reports it until somebody accepts it.
//!
//! ```json
//! {"stream":"file:///in","shard":"a.ndjson","kind":"lost","problem":"…","found_at":"2025-01-13T10:30:00.000Z"}
//! {"then":"start"}
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use checkpoints::{ShardId, ShardKey, StreamName};
use pipeline::layout;
use serde::{Deserialize, Serialize};

use crate::lake::{LakeError, ObjectKey, ObjectStore};

/// Losses that this process has announced.
static ANNOUNCED: AtomicU64 = AtomicU64::new(0);

/// Counts a loss that is announced in the log.
pub(in crate::source) fn announce() {
    ANNOUNCED.fetch_add(1, Ordering::Relaxed);
}

/// How many losses this process has announced, or may have had.
pub fn announced() -> u64 {
    ANNOUNCED.load(Ordering::Relaxed)
}

/// What happened to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// Bytes are gone. The shard has ended.
    Lost,
    /// It cannot be known which bytes of the file were read. The shard is not read until somebody decides.
    Unclear,
}

/// A loss of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The stream.
    pub stream: StreamName,
    /// The shard.
    pub shard: ShardId,
    /// What happened.
    pub kind: LossKind,
    /// The same in words, without any content of the file.
    pub problem: String,
    /// When it was found, RFC 3339.
    pub found_at: String,
}

/// What to do with a file about which somebody decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// The shard has ended. What is in the file is read from its start as a new one.
    Start,
    /// The file is what it was. Reading continues at the position.
    Position,
}

/// A decision as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Decision {
    then: Then,
}

impl Loss {
    /// The shard.
    pub fn key(&self) -> ShardKey {
        ShardKey::new(self.stream.clone(), self.shard.clone())
    }
}

fn key(text: String) -> ObjectKey {
    ObjectKey::new(text).expect("hex digits are a plain path")
}

fn loss_key(shard: &ShardKey, kind: LossKind) -> ObjectKey {
    match kind {
        LossKind::Lost => key(layout::loss(shard.stream.as_str(), shard.shard.as_str())),
        // No shard has such an id.
        LossKind::Unclear => key(layout::loss(shard.stream.as_str(), &format!("{}//unclear", shard.shard))),
    }
}

fn decision_key(shard: &ShardKey, kind: LossKind) -> ObjectKey {
    match kind {
        LossKind::Lost => key(layout::accepted_loss(shard.stream.as_str(), shard.shard.as_str())),
        LossKind::Unclear => key(layout::accepted_loss(shard.stream.as_str(), &format!("{}//unclear", shard.shard))),
    }
}

fn read<T: serde::de::DeserializeOwned>(key: &ObjectKey, bytes: &[u8]) -> Result<T, LakeError> {
    serde_json::from_slice(bytes).map_err(|error| LakeError::Refused {
        operation: format!("read {key}"),
        problem: format!("it is damaged: {error}"),
    })
}

fn bytes_of(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("a loss contains only text").into()
}

/// Keeps a loss, unless the shard has one. An earlier decision about an unclear file is withdrawn, since it was about another change.
///
/// # Errors
/// The lake fails.
pub async fn report(lake: &dyn ObjectStore, loss: &Loss) -> Result<(), LakeError> {
    if loss.kind == LossKind::Unclear {
        lake.delete(&decision_key(&loss.key(), loss.kind)).await?;
    }
    lake.put_new(&loss_key(&loss.key(), loss.kind), bytes_of(loss)).await.map(drop)
}

/// The loss of this kind of a shard, and what was decided about it.
///
/// # Errors
/// The lake fails, or an object is damaged.
pub async fn find(
    lake: &dyn ObjectStore,
    shard: &ShardKey,
    kind: LossKind,
) -> Result<Option<(Loss, Option<Then>)>, LakeError> {
    let loss = loss_key(shard, kind);
    let Some(bytes) = lake.get(&loss).await? else { return Ok(None) };
    let decision = decision_key(shard, kind);
    let then = match lake.get(&decision).await? {
        Some(bytes) => Some(read::<Decision>(&decision, &bytes)?.then),
        None => None,
    };
    Ok(Some((read(&loss, &bytes)?, then)))
}

/// All losses, and what was decided about each.
///
/// # Errors
/// The lake fails, or an object is damaged.
pub async fn list(lake: &dyn ObjectStore) -> Result<Vec<(Loss, Option<Then>)>, LakeError> {
    let mut losses = Vec::new();
    for object in lake.list(layout::LOSSES).await? {
        if object.key.as_str().ends_with(".accepted.json") {
            continue;
        }
        let Some(bytes) = lake.get(&object.key).await? else { continue };
        let loss: Loss = read(&object.key, &bytes)?;
        losses.extend(find(lake, &loss.key(), loss.kind).await?);
    }
    Ok(losses)
}

/// Accepts a loss. Returns false if somebody decided before.
///
/// # Errors
/// The lake fails.
pub async fn accept(lake: &dyn ObjectStore, loss: &Loss, then: Then) -> Result<bool, LakeError> {
    let written = lake.put_new(&decision_key(&loss.key(), loss.kind), bytes_of(&Decision { then })).await?;
    Ok(written == crate::lake::Written::New)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::MemoryStore;

    #[tokio::test]
    async fn a_loss_is_kept_once_and_accepted_once() {
        let lake = MemoryStore::new();
        let loss = Loss {
            stream: StreamName::new("file:///in").unwrap(),
            shard: ShardId::new("a.ndjson//2").unwrap(),
            kind: LossKind::Unclear,
            problem: "it is shorter".to_owned(),
            found_at: "2025-01-13T10:30:00.000Z".to_owned(),
        };
        assert_eq!(find(&lake, &loss.key(), LossKind::Unclear).await, Ok(None));
        report(&lake, &loss).await.unwrap();
        report(&lake, &Loss { problem: "again".to_owned(), ..loss.clone() }).await.unwrap();
        assert_eq!(list(&lake).await, Ok(vec![(loss.clone(), None)]));
        assert_eq!(accept(&lake, &loss, Then::Position).await, Ok(true));
        assert_eq!(accept(&lake, &loss, Then::Start).await, Ok(false));
        assert_eq!(list(&lake).await, Ok(vec![(loss.clone(), Some(Then::Position))]));
        report(&lake, &loss).await.unwrap();
        assert_eq!(find(&lake, &loss.key(), LossKind::Lost).await, Ok(None));
        assert_eq!(find(&lake, &loss.key(), LossKind::Unclear).await, Ok(Some((loss, None))), "it happened again");
    }
}
