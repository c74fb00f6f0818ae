//! The name of an epoch, and the names that are built from it.
//!
//! An epoch's name is `<time>-<worker>-<number>`, such as `20250113T103000Z-3f2a91c07d5e4b10-000001`: when the epoch began,
//! which process ran it, and its number in that process. So names sort by the time at which epochs began, which is not the
//! order in which they were committed.
//!
//! Owns: the form of the name; the names of the intent, the commit record and the uploads of an epoch. Does not own: where
//! these objects are in the lake (`pipeline::layout`).

use checkpoints::{LeaseOwner, ManifestName};
use mutations::mutated;
use pipeline::layout;
use pipeline::time::{format_rfc3339, parse_rfc3339};
use serde::{Deserialize, Serialize};

use crate::lake::{ObjectKey, UploadId};

/// Characters of a name's time: `20250113T103000Z`.
const TIME_LENGTH: usize = 16;

/// The name of an epoch. It is never used again, not even if the epoch was not committed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EpochId(String);

/// The epoch that a manifest's name names, for lines of the log. A name of another form is left as it is.
pub(crate) fn epoch_of(name: &ManifestName) -> &str {
    let file = name.as_str().rsplit_once('/').map_or(name.as_str(), |(_, file)| file);
    file.strip_suffix(".json").unwrap_or(file)
}

impl EpochId {
    /// The `number`-th epoch of a worker, begun at `now_ms`.
    pub fn new(now_ms: i64, worker: &LeaseOwner, number: u64) -> Self {
        let worker = if mutated!(NamesUsedTwice) { "aaaaaaaa".to_owned() } else { Self::worker_part(worker) };
        EpochId(format!("{}-{worker}-{number:06}", Self::format_time(now_ms)))
    }

    /// The part of a worker's name that is in the names of its epochs.
    pub(crate) fn worker_part(worker: &LeaseOwner) -> String {
        worker.as_str().chars().filter(char::is_ascii_alphanumeric).take(16).collect()
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A time as it is at the beginning of a name: every epoch that began later has a name that sorts after it.
    pub(crate) fn format_time(ms: i64) -> String {
        let digits: String =
            format_rfc3339(ms).chars().filter(|c| *c != '-' && *c != ':').take(TIME_LENGTH - 1).collect();
        format!("{digits}Z")
    }

    /// The worker's part of the name; `None` if the name has another form.
    pub(crate) fn worker(&self) -> Option<&str> {
        self.begun_ms()?;
        self.0.get(TIME_LENGTH + 1..)?.rsplit_once('-').map(|(worker, _)| worker)
    }

    /// When the epoch began, to the second, by its worker's clock; `None` if the name has another form.
    pub(crate) fn begun_ms(&self) -> Option<i64> {
        let (time, _) = self.0.split_once('-').filter(|(time, _)| time.len() == TIME_LENGTH)?;
        let (day, clock) = time.strip_suffix('Z')?.split_once('T').filter(|(day, _)| day.len() == 8)?;
        let text =
            format!("{}-{}-{}T{}:{}:{}Z", &day[..4], &day[4..6], &day[6..], &clock[..2], &clock[2..4], &clock[4..]);
        parse_rfc3339(text.as_bytes())
    }

    /// The key of its intent.
    pub fn intent_key(&self) -> ObjectKey {
        ObjectKey::new(layout::intent(&self.0)).expect("an epoch's name is a plain name")
    }

    /// The key of its commit record.
    pub fn commit_key(&self) -> ObjectKey {
        ObjectKey::new(layout::commit_record(&self.0)).expect("an epoch's name is a plain name")
    }

    /// The epoch of a commit record's key.
    pub(crate) fn of_commit_key(key: &ObjectKey) -> Option<Self> {
        EpochId::try_from(layout::epoch_of_commit_record(key.as_str())?.to_owned()).ok()
    }

    /// The name by which the lease store knows the epoch as pending.
    pub fn manifest_name(&self) -> ManifestName {
        ManifestName::new(self.intent_key().as_str()).expect("an epoch's name is a plain name")
    }

    /// The epoch whose intent a lease names.
    ///
    /// # Errors
    /// The name has another form.
    pub fn of_manifest(name: &ManifestName) -> Result<Self, String> {
        let epoch = layout::epoch_of_intent(name.as_str());
        epoch.map_or_else(
            || Err(format!("'{name}' is not the name of an intent")),
            |epoch| EpochId::try_from(epoch.to_owned()),
        )
    }

    /// An id for the `number`-th upload of this epoch. It contains the worker and the epoch's number.
    pub fn upload_id(&self, worker: &LeaseOwner, number: u64) -> String {
        let epoch = self.0.rsplit('-').next().unwrap_or_default();
        format!("{worker}-{epoch}-{number:05}")
    }

    /// The worker that an upload's id names.
    pub fn owner_of_upload(id: &UploadId) -> Option<&str> {
        let (rest, _) = id.0.rsplit_once('-')?;
        let (owner, _) = rest.rsplit_once('-')?;
        (owner.len() == 36).then_some(owner)
    }

    /// The epoch that wrote an object of data, by the object's name, as in
    /// `…/20250113T103000Z-3f2a91c07d5e4b10-000001-00001.parquet`. `None` if no epoch writes such a name.
    pub fn of_object(key: &ObjectKey) -> Option<Self> {
        let epoch = EpochId::try_from(layout::epoch_of_object(key.as_str())?.to_owned()).ok()?;
        let (worker, number) = epoch.0.get(TIME_LENGTH + 1..)?.split_once('-')?;
        let is_ours = epoch.begun_ms().is_some()
            && !worker.is_empty()
            && number.len() >= 6
            && number.bytes().all(|byte| byte.is_ascii_digit());
        is_ours.then_some(epoch)
    }
}

impl TryFrom<String> for EpochId {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let plain =
            !name.is_empty() && name.len() <= 128 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if plain { Ok(EpochId(name)) } else { Err(format!("'{name}' is not a valid name of an epoch")) }
    }
}

impl From<EpochId> for String {
    fn from(epoch: EpochId) -> String {
        epoch.0
    }
}

impl std::fmt::Display for EpochId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> LeaseOwner {
        LeaseOwner::from_random([0x3f; 16])
    }

    #[test]
    fn names_of_epochs_sort_by_time() {
        let epoch = EpochId::new(1_736_764_200_123, &worker(), 7);
        assert_eq!(epoch.as_str(), "20250113T103000Z-3f3f3f3f3f3f4f3f-000007");
        assert!(epoch < EpochId::new(1_736_764_201_123, &worker(), 1));
        assert!(EpochId::format_time(1_736_764_200_123).as_str() < epoch.as_str());
        assert!(EpochId::format_time(1_736_764_201_000).as_str() > epoch.as_str());
    }

    #[test]
    fn a_name_holds_the_time_and_the_worker() {
        let epoch = EpochId::new(1_736_764_200_123, &worker(), 7);
        assert_eq!((epoch.begun_ms(), epoch.worker()), (Some(1_736_764_200_000), Some("3f3f3f3f3f3f4f3f")));
        for other in ["x", "20250113T103000Z", "20250113T1030Z-a-1", "2025011éT10300Z-a-1", "20251313T103000Z-a-1"] {
            let parsed = EpochId::try_from(other.to_owned()).ok();
            assert_eq!(parsed.and_then(|epoch| epoch.begun_ms()), None, "{other}");
        }
    }

    #[test]
    fn keys_name_their_epoch() {
        let epoch = EpochId::new(1_736_764_200_123, &worker(), 7);
        assert_eq!(EpochId::of_manifest(&epoch.manifest_name()), Ok(epoch.clone()));
        assert_eq!(EpochId::of_commit_key(&epoch.commit_key()), Some(epoch.clone()));
        assert_eq!(EpochId::of_commit_key(&epoch.intent_key()), None);
        for name in ["_intents/../x.json", "elsewhere", "_intents/a"] {
            assert!(EpochId::of_manifest(&ManifestName::new(name).unwrap()).is_err(), "{name}");
        }
    }

    #[test]
    fn an_upload_id_names_its_worker() {
        let epoch = EpochId::new(1_736_764_200_123, &worker(), 7);
        let id = UploadId(epoch.upload_id(&worker(), 12));
        assert_eq!(id.0, format!("{}-000007-00012", worker()));
        assert_eq!(EpochId::owner_of_upload(&id), Some(worker().as_str()));
        assert_eq!(EpochId::owner_of_upload(&UploadId("put-abc123".to_owned())), None);
    }

    #[test]
    fn the_name_of_an_object_names_its_epoch() {
        let epoch = EpochId::new(1_736_764_200_123, &worker(), 7);
        let of = |path: &str| EpochId::of_object(&ObjectKey::new(path).unwrap());
        for path in [format!("processed/a/y=1/{epoch}-00001.parquet"), format!("{epoch}-123456.json.gz")] {
            assert_eq!(of(&path), Some(epoch.clone()), "{path}");
        }
        for path in [
            "backup.tar.gz".to_owned(),
            format!("{epoch}.json"),
            format!("_intents/{epoch}.json"),
            format!("x{epoch}-00001.parquet"),
            "20250113T103000Z-abc-x-00001.parquet".to_owned(),
            "2025-01-13-logs.gz".to_owned(),
        ] {
            assert_eq!(of(&path), None, "{path}");
        }
    }
}
