//! A lake in memory with scripted faults, for tests and the simulation.
//!
//! Owns: the same semantics as S3 (parts by number, completing never replaces), and a script of faults. By it, the n-th call of an
//! operation is lost before or after its effect, or is refused. Does not own: any randomness or clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::lake::{
    Checksum, Completion, LakeError, NewPart, ObjectInfo, ObjectKey, ObjectStore, Part, UploadId, UploadInfo, Written,
};

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request is lost before it takes effect.
    LoseBefore,
    /// The request takes effect, and its response is lost.
    LoseAfter,
    /// The request is lost, and no response ever comes.
    Hang,
    /// The store refuses.
    Refuse,
}

/// A lake in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<ObjectKey, Bytes>,
    /// When objects were written that were not written at time 0.
    written_ms: BTreeMap<ObjectKey, i64>,
    /// The time, which only tests move.
    now_ms: i64,
    uploads: BTreeMap<UploadId, Upload>,
    begun: BTreeSet<UploadId>,
    script: VecDeque<(&'static str, usize, Fault)>,
    /// An object that a list leaves out, and how many lists show it before that.
    hidden: Option<(ObjectKey, usize)>,
    calls: Vec<(&'static str, String)>,
}

impl State {
    fn write(&mut self, key: &ObjectKey, bytes: Bytes) {
        self.objects.insert(key.clone(), bytes);
        if self.now_ms != 0 {
            self.written_ms.insert(key.clone(), self.now_ms);
        }
    }
}

#[derive(Debug)]
struct Upload {
    key: ObjectKey,
    parts: BTreeMap<u32, Bytes>,
}

impl MemoryStore {
    /// An empty lake.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the time at which objects are written from now on: milliseconds since 1970. It is 0 at first.
    pub fn set_time(&self, now_ms: i64) {
        self.state().now_ms = now_ms;
    }

    /// Scripts a fault: for the call of this operation that follows `skip` others of it.
    pub fn fail(&self, operation: &'static str, skip: usize, fault: Fault) {
        self.state().script.push_back((operation, skip, fault));
    }

    /// All calls so far: operation and key.
    pub fn calls(&self) -> Vec<(&'static str, String)> {
        self.state().calls.clone()
    }

    /// All visible objects.
    pub fn objects(&self) -> BTreeMap<ObjectKey, Bytes> {
        self.state().objects.clone()
    }

    /// A visible object.
    pub fn object(&self, key: &ObjectKey) -> Option<Bytes> {
        self.state().objects.get(key).cloned()
    }

    /// Writes, changes or removes an object, as somebody else might.
    pub fn tamper(&self, key: &ObjectKey, bytes: Option<Bytes>) {
        let mut state = self.state();
        match bytes {
            Some(bytes) => state.objects.insert(key.clone(), bytes),
            None => state.objects.remove(key),
        };
    }

    /// Leaves an object out of one list that it belongs to, after `skip` others: a list of many pages may do so, if a page was
    /// read before the object was there.
    pub fn hide_once(&self, key: &ObjectKey, skip: usize) {
        self.state().hidden = Some((key.clone(), skip));
    }

    /// Loses all uploads, as a lifecycle rule does.
    pub fn expire_uploads(&self) {
        self.state().uploads.clear();
    }

    /// Loses one of the uploads: the `nth`, modulo their number.
    pub fn expire_upload(&self, nth: usize) {
        let mut state = self.state();
        let count = state.uploads.len().max(1);
        if let Some(id) = state.uploads.keys().nth(nth % count).cloned() {
            state.uploads.remove(&id);
        }
    }

    /// Runs one call, with a scripted fault if there is one for it.
    async fn call<T>(
        &self,
        operation: &'static str,
        on: &str,
        effect: impl FnOnce(&mut State) -> Result<T, LakeError>,
    ) -> Result<T, LakeError> {
        match self.call_now(operation, on, effect) {
            Some(result) => result,
            None => std::future::pending().await,
        }
    }

    /// The result of a call; `None` if it hangs.
    fn call_now<T>(
        &self,
        operation: &'static str,
        on: &str,
        effect: impl FnOnce(&mut State) -> Result<T, LakeError>,
    ) -> Option<Result<T, LakeError>> {
        let mut state = self.state();
        state.calls.push((operation, on.to_owned()));
        let due = state.script.iter_mut().enumerate().find(|(_, (scripted, _, _))| *scripted == operation);
        let fault = match due {
            Some((_, (_, skip, _))) if *skip > 0 => {
                *skip -= 1;
                None
            }
            Some((index, (_, _, fault))) => Some((index, *fault)),
            None => None,
        };
        let Some((index, fault)) = fault else { return Some(effect(&mut state)) };
        state.script.remove(index);
        let (operation, problem) = (format!("{operation} {on}"), "scripted fault".to_owned());
        let lost = || LakeError::Unavailable { operation: operation.clone(), problem: problem.clone() };
        match fault {
            Fault::Refuse => Some(Err(LakeError::Refused { operation, problem })),
            Fault::LoseBefore => Some(Err(lost())),
            Fault::LoseAfter => Some(effect(&mut state).and_then(|_| Err(lost()))),
            Fault::Hang => None,
        }
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    fn part_bytes_min(&self) -> usize {
        1
    }

    async fn begin_upload(&self, key: &ObjectKey, id_hint: &str) -> Result<UploadId, LakeError> {
        self.call("begin_upload", key.as_str(), |state| {
            let id = UploadId(id_hint.to_owned());
            // A repeated request begins no second upload.
            if state.begun.insert(id.clone()) {
                state.uploads.insert(id.clone(), Upload { key: key.clone(), parts: BTreeMap::new() });
            }
            Ok(id)
        })
        .await
    }

    async fn upload_part(&self, key: &ObjectKey, id: &UploadId, part: NewPart) -> Result<Part, LakeError> {
        let NewPart { number, bytes, .. } = part;
        self.call("upload_part", key.as_str(), |state| {
            let Some(upload) = state.uploads.get_mut(id) else {
                let operation = format!("upload part {number} of {key}");
                return Err(LakeError::Refused { operation, problem: "there is no such upload".to_owned() });
            };
            upload.parts.insert(number, bytes);
            Ok(Part { number, tag: format!("tag-{number}") })
        })
        .await
    }

    async fn complete_upload(&self, key: &ObjectKey, id: &UploadId, parts: &[Part]) -> Result<Completion, LakeError> {
        self.call("complete_upload", key.as_str(), |state| {
            let Some(upload) = state.uploads.get(id) else { return Ok(Completion::NoSuchUpload) };
            if state.objects.contains_key(key) {
                return Ok(Completion::KeyTaken);
            }
            let mut bytes = Vec::new();
            for part in parts {
                let Some(part_bytes) = upload.parts.get(&part.number) else {
                    let problem = format!("part {} was never uploaded", part.number);
                    return Err(LakeError::Refused { operation: format!("complete {key}"), problem });
                };
                bytes.extend_from_slice(part_bytes);
            }
            assert_eq!(upload.key, *key, "an upload is completed under its own key");
            state.uploads.remove(id);
            state.write(key, Bytes::from(bytes));
            Ok(Completion::Completed)
        })
        .await
    }

    async fn abort_upload(&self, key: &ObjectKey, id: &UploadId) -> Result<(), LakeError> {
        self.call("abort_upload", key.as_str(), |state| {
            state.uploads.remove(id);
            Ok(())
        })
        .await
    }

    async fn list_uploads(&self) -> Result<Vec<UploadInfo>, LakeError> {
        self.call("list_uploads", "", |state| {
            let info = |(id, upload): (&UploadId, &Upload)| UploadInfo {
                key: Some(upload.key.clone()),
                id: id.clone(),
                begun_ms: 0,
            };
            Ok(state.uploads.iter().map(info).collect())
        })
        .await
    }

    async fn flush(&self) -> Result<(), LakeError> {
        self.call("flush", "", |_| Ok(())).await
    }

    async fn put_new(&self, key: &ObjectKey, bytes: Bytes) -> Result<Written, LakeError> {
        self.call("put_new", key.as_str(), |state| {
            if state.objects.contains_key(key) {
                return Ok(Written::KeyTaken);
            }
            state.write(key, bytes);
            Ok(Written::New)
        })
        .await
    }

    async fn replace(&self, key: &ObjectKey, from: &Bytes, to: Bytes) -> Result<bool, LakeError> {
        self.call("replace", key.as_str(), |state| match state.objects.get_mut(key) {
            Some(bytes) if bytes == from || *bytes == to => {
                *bytes = to;
                Ok(true)
            }
            _ => Ok(false),
        })
        .await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, LakeError> {
        self.call("get", key.as_str(), |state| Ok(state.objects.get(key).cloned())).await
    }

    async fn checksum(&self, key: &ObjectKey) -> Result<Option<(u64, Checksum)>, LakeError> {
        self.call("checksum", key.as_str(), |state| {
            Ok(state.objects.get(key).map(|bytes| (bytes.len() as u64, Checksum::of(bytes))))
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, LakeError> {
        self.call("list", prefix, |state| {
            let written_ms = &state.written_ms;
            let info = |(key, bytes): (&ObjectKey, &Bytes)| ObjectInfo {
                key: key.clone(),
                bytes: bytes.len() as u64,
                modified_ms: written_ms.get(key).copied().unwrap_or(0),
                storage_class: None,
            };
            let hidden = match &mut state.hidden {
                Some((key, skip)) if key.as_str().starts_with(prefix) && *skip > 0 => {
                    *skip -= 1;
                    None
                }
                hidden => hidden.take_if(|(key, _)| key.as_str().starts_with(prefix)).map(|(key, _)| key),
            };
            let listed = state.objects.iter().filter(|(key, _)| key.as_str().starts_with(prefix));
            Ok(listed.filter(|(key, _)| hidden.as_ref() != Some(key)).map(info).collect())
        })
        .await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), LakeError> {
        self.call("delete", key.as_str(), |state| {
            state.objects.remove(key);
            Ok(())
        })
        .await
    }
}
