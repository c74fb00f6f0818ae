//! Manifests by which QuickSight reads files from S3.
//!
//! Owns: which of a lake's files QuickSight can read, and the format of the manifest. Does not own: listing the lake (`lake`).
//!
//! QuickSight reads CSV, TSV, CLF, ELF, XLSX and JSON from S3 (its API: `UploadSettings`), also with gzip. **It does not read Parquet
//! from S3.** So `processed/` goes through Athena, and manifests are for the areas of JSON lines and CSV.
//!
//! ```json
//! {"fileLocations":[{"URIPrefixes":["s3://the-lake/error/"]}],"globalUploadSettings":{"format":"JSON"}}
//! ```
//!
//! A manifest of a whole area has its prefix, so that each refresh reads the files that are there by then. A manifest of some days has
//! the files themselves.
//!
//! The limits of a manifest are from memory: 1,000 files, 25 GB in all.

use pipeline::layout::{ANALYTICS, Area, DataObject, Folder};
use pipeline::time::Day;
use serde_json::{Value, json};

use crate::lake::ObjectInfo;

/// Files that a manifest may name.
pub const FILES_MAX: u64 = 1000;
/// Bytes of all files of a manifest.
pub const TOTAL_BYTES_MAX: u64 = 25 << 30;

/// Where the files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestArea {
    /// Summaries in CSV.
    Analytics,
    /// Dead letters: JSON lines.
    Error,
    /// Records as received: JSON lines.
    Raw,
}

/// Which files a manifest is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestScope {
    /// Where they are.
    pub area: ManifestArea,
    /// Of `raw/`: one dataset only.
    pub dataset: Option<String>,
    /// The first and the last day of arrival; `None` for all.
    pub days: Option<(Day, Day)>,
}

/// A manifest, and what it covers now.
#[derive(Debug, Clone, PartialEq)]
pub struct QuickSightManifest {
    /// The manifest.
    pub json: Value,
    /// Files that it covers.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Why there is no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// There are no such files.
    #[error("the lake has no files below {prefix}{of_days}")]
    Nothing {
        /// Where they would be.
        prefix: String,
        /// That they would be of some days.
        of_days: &'static str,
    },
    /// QuickSight cannot decompress a file.
    #[error(
        "QuickSight reads gzip only, and {key} is compressed otherwise: use Athena, or set codec = \"gzip\" in [raw]"
    )]
    Codec {
        /// The file.
        key: String,
    },
}

impl ManifestScope {
    /// The prefix of the files.
    pub fn prefix(&self) -> String {
        match (self.area, &self.dataset) {
            (ManifestArea::Analytics, _) => ANALYTICS.to_owned(),
            (ManifestArea::Error, _) => Area::Error.prefix().to_owned(),
            (ManifestArea::Raw, None) => Area::Raw.prefix().to_owned(),
            (ManifestArea::Raw, Some(dataset)) => format!("{}{dataset}/", Area::Raw.prefix()),
        }
    }

    fn has_day_of(&self, key: &str) -> bool {
        let Some((first, last)) = self.days else { return true };
        match key.parse().map(|object: DataObject| object.folder) {
            Ok(Folder::Raw { day, .. } | Folder::Error { day, .. }) => (first..=last).contains(&day),
            _ => false,
        }
    }

    /// The manifest of these files. `lake` is the lake's URL (`s3://BUCKET/PREFIX`), and `objects` what it has below
    /// [`ManifestScope::prefix`].
    ///
    /// # Errors
    /// There are no such files, or QuickSight cannot read one.
    pub fn manifest(&self, lake: &str, objects: &[ObjectInfo]) -> Result<QuickSightManifest, ManifestError> {
        let prefix = self.prefix();
        let chosen: Vec<&ObjectInfo> = objects.iter().filter(|object| self.has_day_of(object.key.as_str())).collect();
        if chosen.is_empty() {
            let of_days = if self.days.is_some() { " of these days" } else { "" };
            return Err(ManifestError::Nothing { prefix, of_days });
        }
        if let Some(other) = chosen.iter().find(|object| object.key.as_str().ends_with(".zst")) {
            return Err(ManifestError::Codec { key: other.key.to_string() });
        }
        let lake = lake.trim_end_matches('/');
        let locations = match self.days {
            None => json!([{ "URIPrefixes": [format!("{lake}/{prefix}")] }]),
            Some(_) => {
                let uris: Vec<String> = chosen.iter().map(|object| format!("{lake}/{}", object.key)).collect();
                json!([{ "URIs": uris }])
            }
        };
        let settings = match self.area {
            ManifestArea::Analytics => {
                json!({ "format": "CSV", "delimiter": ",", "textqualifier": "\"", "containsHeader": "true" })
            }
            ManifestArea::Error | ManifestArea::Raw => json!({ "format": "JSON" }),
        };
        Ok(QuickSightManifest {
            json: json!({ "fileLocations": locations, "globalUploadSettings": settings }),
            files: chosen.len() as u64,
            bytes: chosen.iter().map(|object| object.bytes).sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::ObjectKey;

    fn objects(keys: &[&str]) -> Vec<ObjectInfo> {
        let object = |key: &&str| ObjectInfo {
            key: ObjectKey::new(*key).unwrap(),
            bytes: 10,
            modified_ms: 0,
            storage_class: None,
        };
        keys.iter().map(object).collect()
    }

    fn scope(area: ManifestArea) -> ManifestScope {
        ManifestScope { area, dataset: None, days: None }
    }

    const RAW: [&str; 2] = [
        "raw/events/year=2026/month=11/day=29/20261129T000000Z-0123456789abcdef-000001-00001.json.gz",
        "raw/events/year=2026/month=11/day=30/20261130T000000Z-0123456789abcdef-000001-00001.json.gz",
    ];

    #[test]
    fn a_whole_area_is_a_prefix() {
        let scope = ManifestScope { dataset: Some("events".to_owned()), ..scope(ManifestArea::Raw) };
        assert_eq!(scope.prefix(), "raw/events/");
        let manifest = scope.manifest("s3://the-lake/prod/", &objects(&RAW)).unwrap();
        let expected = json!({
            "fileLocations": [{ "URIPrefixes": ["s3://the-lake/prod/raw/events/"] }],
            "globalUploadSettings": { "format": "JSON" },
        });
        assert_eq!((manifest.json, manifest.files, manifest.bytes), (expected, 2, 20));
    }

    #[test]
    fn some_days_are_files() {
        let day = Day { year: 2026, month: 11, day: 30 };
        let some = ManifestScope { days: Some((day, day)), ..scope(ManifestArea::Raw) };
        let manifest = some.manifest("s3://the-lake", &objects(&RAW)).unwrap();
        assert_eq!(manifest.json["fileLocations"], json!([{ "URIs": [format!("s3://the-lake/{}", RAW[1])] }]));
        assert_eq!(manifest.files, 1);
        let other = Day { year: 2027, ..day };
        let none = ManifestScope { days: Some((other, other)), ..scope(ManifestArea::Raw) };
        let message = none.manifest("s3://the-lake", &objects(&RAW)).unwrap_err().to_string();
        assert_eq!(message, "the lake has no files below raw/ of these days");
    }

    #[test]
    fn summaries_are_csv_with_a_header() {
        let manifest = scope(ManifestArea::Analytics)
            .manifest("s3://the-lake", &objects(&["processed/analytics/daily_summaries/2026-11-30.csv"]))
            .unwrap();
        assert_eq!(manifest.json["globalUploadSettings"]["format"], "CSV");
        assert_eq!(manifest.json["globalUploadSettings"]["containsHeader"], "true");
    }

    #[test]
    fn what_quicksight_cannot_decompress_is_refused() {
        let zstd = RAW[0].replace(".gz", ".zst");
        let problem = scope(ManifestArea::Raw).manifest("s3://the-lake", &objects(&[&zstd])).unwrap_err();
        assert_eq!(problem, ManifestError::Codec { key: zstd });
    }
}
