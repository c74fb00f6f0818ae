//! What a lake's storage costs now, what the lifecycle saved, and which requests its epochs took.
//!
//! Owns: sums over a bucket's objects and over commit records. Does not own: where the objects are listed (`lake`, `inventory`),
//! the commit records (`commit`), prices (`prices`).
//!
//! How a class is charged:
//!
//! | class | bytes that are charged | beside that |
//! | --- | --- | --- |
//! | `STANDARD` | the object's | |
//! | `STANDARD_IA`, `ONEZONE_IA`, `GLACIER_IR` | 128 KB at least | |
//! | `GLACIER`, `DEEP_ARCHIVE` | 32 KB more | 8 KB in `STANDARD` |
//! | `INTELLIGENT_TIERING` | the object's, at the price of its tier | monitoring, from 128 KB on |
//!
//! A list of objects does not say the tier. Then the most expensive one counts, and the sum is an upper bound.

use std::collections::BTreeMap;

use pipeline::layout::{ANALYTICS, ARCHIVE, Area};
use serde::Serialize;

use super::GB;
use super::prices::{Item, Prices};
use super::storage::{ARCHIVE_INDEX, ARCHIVE_OVERHEAD, MOVED_BYTES_MIN};
use super::workload::as_f64;
use crate::commit::Manifest;
use crate::lake::StorageClass;

/// A part of the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AreaOfBucket {
    /// `raw/`
    Raw,
    /// `processed/`, without `processed/analytics/`.
    Processed,
    /// `processed/analytics/`
    Analytics,
    /// `error/`
    Error,
    /// `archive/`
    Archive,
    /// What Shardlake keeps for itself: names that begin with `_`.
    Log,
    /// Everything else in the bucket.
    Other,
}

impl AreaOfBucket {
    /// The area of a key in the lake.
    pub fn of(key: &str) -> Self {
        if key.starts_with(ANALYTICS) {
            return AreaOfBucket::Analytics;
        }
        match Area::of(key) {
            Some(Area::Processed) => AreaOfBucket::Processed,
            Some(Area::Raw) => AreaOfBucket::Raw,
            Some(Area::Error) => AreaOfBucket::Error,
            None if key.starts_with(ARCHIVE) => AreaOfBucket::Archive,
            None if key.starts_with('_') => AreaOfBucket::Log,
            None => AreaOfBucket::Other,
        }
    }

    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            AreaOfBucket::Raw => Area::Raw.prefix(),
            AreaOfBucket::Processed => Area::Processed.prefix(),
            AreaOfBucket::Analytics => ANALYTICS,
            AreaOfBucket::Error => Area::Error.prefix(),
            AreaOfBucket::Archive => ARCHIVE,
            AreaOfBucket::Log => "_commits/ and others",
            AreaOfBucket::Other => "other",
        }
    }
}

/// A tier of Intelligent-Tiering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Frequent access.
    Frequent,
    /// Infrequent access.
    Infrequent,
    /// Archive instant access.
    ArchiveInstant,
    /// Archive access.
    Archive,
    /// Deep archive access.
    DeepArchive,
}

impl Tier {
    /// The tier by its name in an inventory: `FREQUENT`, `ARCHIVE_ACCESS`, …
    pub fn of(name: &str) -> Option<Self> {
        // The longer names first.
        let tiers = [
            ("FREQUENT", Tier::Frequent),
            ("INFREQUENT", Tier::Infrequent),
            ("ARCHIVE_INSTANT", Tier::ArchiveInstant),
            ("ARCHIVE", Tier::Archive),
            ("DEEP_ARCHIVE", Tier::DeepArchive),
        ];
        tiers.into_iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, tier)| tier)
    }

    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Frequent => "frequent",
            Tier::Infrequent => "infrequent",
            Tier::ArchiveInstant => "archive instant",
            Tier::Archive => "archive",
            Tier::DeepArchive => "deep archive",
        }
    }
}

/// What a version of an object is, in a bucket with versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The one that readers see.
    Current,
    /// An older one, or one that was deleted.
    Noncurrent,
    /// The mark that the object was deleted.
    DeleteMarker,
}

/// One object, or one version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Its key in the lake.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// Its storage class.
    pub class: StorageClass,
    /// Its tier, if it is known.
    pub tier: Option<Tier>,
    /// What the version is.
    pub version: Version,
}

/// The objects of one area and class.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ReviewRow {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that are charged as if they were larger.
    pub rounded_up: u64,
    /// What they cost in a month, in US dollars. Classes without a known price count nothing.
    pub usd: f64,
    /// What they would cost in `STANDARD`.
    pub usd_in_standard: f64,
    /// What moving them into the class has cost, if a lifecycle rule did, and once.
    pub moving_usd: f64,
}

impl ReviewRow {
    /// Adds another row.
    pub fn add(&mut self, other: &ReviewRow) {
        self.objects += other.objects;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.rounded_up += other.rounded_up;
        self.usd += other.usd;
        self.usd_in_standard += other.usd_in_standard;
        self.moving_usd += other.moving_usd;
    }

    /// What the class saves in a month; negative if it costs more.
    pub fn saved_usd(&self) -> f64 {
        self.usd_in_standard - self.usd
    }
}

/// Sums over the objects of a bucket.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Review {
    /// Current versions by area, class and tier.
    pub rows: BTreeMap<(AreaOfBucket, StorageClass, Option<Tier>), ReviewRow>,
    /// Noncurrent versions.
    pub noncurrent: ReviewRow,
    /// Delete markers.
    pub delete_markers: u64,
}

impl Review {
    /// Adds an object.
    pub fn add(&mut self, object: &StoredObject, prices: &Prices) {
        match object.version {
            Version::DeleteMarker => self.delete_markers += 1,
            Version::Noncurrent => self.noncurrent.add(&charge(object, prices)),
            Version::Current => {
                let key = (AreaOfBucket::of(&object.key), object.class, object.tier);
                self.rows.entry(key).or_default().add(&charge(object, prices));
            }
        }
    }

    /// The sum of all current versions.
    pub fn total(&self) -> ReviewRow {
        let mut total = ReviewRow::default();
        self.rows.values().for_each(|row| total.add(row));
        total
    }

    /// Whether the tier of some objects is not known, so that the costs are an upper bound.
    pub fn has_unknown_tiers(&self) -> bool {
        self.rows.keys().any(|(_, class, tier)| *class == StorageClass::IntelligentTiering && tier.is_none())
    }

    /// Whether some objects are in a class without a known price.
    pub fn has_unknown_classes(&self) -> bool {
        self.rows.keys().any(|(_, class, _)| *class == StorageClass::Other)
    }
}

fn charge(object: &StoredObject, prices: &Prices) -> ReviewRow {
    let bytes = as_f64(object.bytes);
    let usd = |item: Item, bytes: f64| prices.one(item).unwrap_or_default() * bytes / GB;
    let moving = |item: Item| prices.one(item).unwrap_or_default();
    let at_least = bytes.max(MOVED_BYTES_MIN);
    let archived = |item: Item| usd(item, bytes + ARCHIVE_OVERHEAD) + usd(Item::S3Standard, ARCHIVE_INDEX);
    let is_small = bytes < MOVED_BYTES_MIN;
    let (cost, moving_usd, is_rounded_up) = match object.class {
        StorageClass::Standard => (usd(Item::S3Standard, bytes), 0.0, false),
        StorageClass::StandardIa => (usd(Item::S3StandardIa, at_least), moving(Item::ToStandardIa), is_small),
        StorageClass::OneZoneIa => (usd(Item::S3OneZoneIa, at_least), moving(Item::ToOneZoneIa), is_small),
        StorageClass::GlacierInstantRetrieval => {
            (usd(Item::S3GlacierInstant, at_least), moving(Item::ToGlacierInstant), is_small)
        }
        StorageClass::Glacier => (archived(Item::S3Glacier), moving(Item::ToGlacier), true),
        StorageClass::DeepArchive => (archived(Item::S3DeepArchive), moving(Item::ToDeepArchive), true),
        StorageClass::IntelligentTiering => {
            let item = match object.tier {
                None | Some(Tier::Frequent) => Item::S3Frequent,
                Some(Tier::Infrequent) => Item::S3Infrequent,
                Some(Tier::ArchiveInstant) => Item::S3ArchiveInstant,
                Some(Tier::Archive) => Item::S3Archive,
                Some(Tier::DeepArchive) => Item::S3DeepArchiveTier,
            };
            let monitoring = if is_small { 0.0 } else { prices.one(Item::S3Monitoring).unwrap_or_default() };
            (usd(item, bytes) + monitoring, moving(Item::ToIntelligent), false)
        }
        StorageClass::Other => (0.0, 0.0, false),
    };
    let usd_in_standard = if object.class == StorageClass::Other { 0.0 } else { usd(Item::S3Standard, bytes) };
    ReviewRow {
        objects: 1,
        bytes: object.bytes,
        rounded_up: u64::from(is_rounded_up),
        usd: cost,
        usd_in_standard,
        moving_usd,
    }
}

/// The requests that the epochs of some commit records took, without those that were sent again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    /// Epochs.
    pub epochs: u64,
    /// `CreateMultipartUpload`
    pub create_multipart_upload: u64,
    /// `UploadPart`
    pub upload_part: u64,
    /// `CompleteMultipartUpload`
    pub complete_multipart_upload: u64,
    /// `PutObject`: intents, commit records and entries of the lake log.
    pub put_object: u64,
    /// `DeleteObject`: intents. It is free.
    pub delete_object: u64,
}

impl Sent {
    /// Adds the requests of an epoch.
    pub fn add(&mut self, record: &Manifest) {
        let objects = record.objects.len() as u64;
        self.epochs += 1;
        self.create_multipart_upload += objects;
        self.upload_part += record.objects.iter().map(|object| object.parts.len() as u64).sum::<u64>();
        self.complete_multipart_upload += objects;
        self.put_object += 3;
        self.delete_object += 1;
    }

    /// The requests that cost as a PUT does.
    pub fn puts(&self) -> u64 {
        self.create_multipart_upload + self.upload_part + self.complete_multipart_upload + self.put_object
    }

    /// What they cost, in US dollars.
    pub fn usd(&self, prices: &Prices) -> f64 {
        prices.one(Item::S3Puts).unwrap_or_default() * as_f64(self.puts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn object(key: &str, bytes: u64, class: StorageClass, tier: Option<Tier>) -> StoredObject {
        StoredObject { key: key.to_owned(), bytes, class, tier, version: Version::Current }
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }

    #[test]
    fn keys_belong_to_areas() {
        for (key, area) in [
            ("raw/events/x", AreaOfBucket::Raw),
            ("processed/events/x", AreaOfBucket::Processed),
            ("processed/analytics/daily_summaries/x.csv", AreaOfBucket::Analytics),
            ("error/reason=x/y", AreaOfBucket::Error),
            ("archive/assessments/x", AreaOfBucket::Archive),
            ("_commits/x.json", AreaOfBucket::Log),
            ("quicksight/manifest.json", AreaOfBucket::Other),
            ("rawness/x", AreaOfBucket::Other),
        ] {
            assert_eq!(AreaOfBucket::of(key), area, "{key}");
        }
    }

    #[test]
    fn each_class_is_charged_as_s3_charges_it() {
        let prices = Prices::built_in();
        let usd = |bytes, class, tier| charge(&object("raw/x", bytes, class, tier), &prices).usd;
        close(usd(10 * GIB, StorageClass::Standard, None), 0.23);
        close(usd(10 * GIB, StorageClass::StandardIa, None), 0.125);
        close(usd(10 * GIB, StorageClass::GlacierInstantRetrieval, None), 0.04);
        close(usd(10 * GIB, StorageClass::Glacier, None), 0.036 + (32.0 * 0.0036 + 8.0 * 0.023) / 1_048_576.0);
        close(usd(10 * GIB, StorageClass::IntelligentTiering, None), 0.23 + 0.000_002_5);
        close(usd(10 * GIB, StorageClass::IntelligentTiering, Some(Tier::Archive)), 0.036 + 0.000_002_5);
        // 1 KB counts as 128 KB, and is not monitored.
        close(usd(1024, StorageClass::StandardIa, None), 0.0125 / 8192.0);
        close(usd(1024, StorageClass::IntelligentTiering, None), 0.023 / 1_048_576.0);
        let small = charge(&object("raw/x", 1024, StorageClass::StandardIa, None), &prices);
        assert!(
            small.saved_usd() < 0.0 && small.rounded_up == 1,
            "a small object costs more in STANDARD_IA: {small:?}"
        );
    }

    #[test]
    fn savings_are_the_difference_to_standard() {
        let prices = Prices::built_in();
        let mut review = Review::default();
        review.add(&object("raw/a", 100 * GIB, StorageClass::StandardIa, None), &prices);
        review.add(&object("raw/b", 100 * GIB, StorageClass::StandardIa, None), &prices);
        review.add(&object("processed/c", 10 * GIB, StorageClass::Standard, None), &prices);
        let old =
            StoredObject { version: Version::Noncurrent, ..object("_intents/d", 1000, StorageClass::Standard, None) };
        review.add(&old, &prices);
        review.add(&StoredObject { version: Version::DeleteMarker, ..old }, &prices);
        let total = review.total();
        assert_eq!(
            (total.objects, total.bytes, review.noncurrent.objects, review.delete_markers),
            (3, 210 * GIB, 1, 1)
        );
        close(total.usd, 2.5 + 0.23);
        close(total.saved_usd(), 2.1);
        close(total.moving_usd, 0.000_02);
        assert!(!review.has_unknown_tiers());
        review.add(&object("raw/e", 1, StorageClass::IntelligentTiering, None), &prices);
        assert!(review.has_unknown_tiers());
    }

    #[test]
    fn a_class_without_a_price_is_counted_and_not_charged() {
        let mut review = Review::default();
        review.add(&object("raw/a", GIB, StorageClass::Other, None), &Prices::built_in());
        assert!(review.has_unknown_classes());
        assert_eq!((review.total().bytes, review.total().usd, review.total().saved_usd()), (GIB, 0.0, 0.0));
    }

    #[test]
    fn tiers_have_the_names_of_an_inventory() {
        for (name, tier) in [
            ("FREQUENT", Tier::Frequent),
            ("INFREQUENT", Tier::Infrequent),
            ("ARCHIVE_INSTANT_ACCESS", Tier::ArchiveInstant),
            ("ARCHIVE_ACCESS", Tier::Archive),
            ("DEEP_ARCHIVE_ACCESS", Tier::DeepArchive),
        ] {
            assert_eq!(Tier::of(name), Some(tier));
        }
        assert_eq!(Tier::of(""), None);
    }
}
