//! The contents of S3: buckets, objects, uploads; and the formats of times.
//!
//! Owns: the data, and which headers an object keeps. An upload is not an object: nothing of it is visible until it is completed.
//! Does not own: requests.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::checksum::{Algorithm, claimed, hex, md5};
use super::error::{Refused, invalid_argument, invalid_request};
use super::xml::url_decode;
use crate::http::Request;

/// Whether a checksum is of the bytes, or of the parts' checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChecksumType {
    FullObject,
    Composite,
}

impl ChecksumType {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FullObject => "FULL_OBJECT",
            Self::Composite => "COMPOSITE",
        }
    }
}

/// The metadata that a write gives an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// Headers that are returned with the object: content type, encryption, metadata, …
    pub(super) headers: BTreeMap<String, String>,
    pub(super) tags: Vec<(String, String)>,
}

const STORAGE_CLASSES: [&str; 10] = [
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER",
    "DEEP_ARCHIVE",
    "GLACIER_IR",
    "OUTPOSTS",
    "EXPRESS_ONEZONE",
];

impl Settings {
    pub(super) fn of(request: &Request) -> Result<Self, Refused> {
        let mut headers = BTreeMap::new();
        for (name, value) in &request.headers {
            let kept = matches!(
                name.as_str(),
                "content-type"
                    | "content-encoding"
                    | "content-disposition"
                    | "content-language"
                    | "cache-control"
                    | "expires"
                    | "x-amz-storage-class"
            ) || name.starts_with("x-amz-meta-")
                || name.starts_with("x-amz-server-side-encryption");
            // Headers that the transport removed are not kept.
            let value =
                value.split(',').map(str::trim).filter(|part| *part != "aws-chunked").collect::<Vec<_>>().join(",");
            if kept && !value.is_empty() {
                headers.insert(name.clone(), value);
            }
        }
        if headers.get("x-amz-storage-class").is_some_and(|class| !STORAGE_CLASSES.contains(&class.as_str())) {
            return Err(Refused::new(400, "InvalidStorageClass", "The storage class you specified is not valid"));
        }
        let encryption = headers.get("x-amz-server-side-encryption").map(String::as_str);
        match encryption {
            None | Some("AES256" | "aws:kms" | "aws:kms:dsse") => {}
            Some(_) => return Err(invalid_argument("The encryption method specified is not supported")),
        }
        let kms = headers.keys().any(|name| name.starts_with("x-amz-server-side-encryption-"));
        if kms && !matches!(encryption, Some("aws:kms" | "aws:kms:dsse")) {
            return Err(invalid_argument(
                "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms",
            ));
        }
        if encryption.is_none() {
            headers.insert("x-amz-server-side-encryption".to_owned(), "AES256".to_owned());
        }
        let tags = request.headers.get("x-amz-tagging").map(|text| tags(text)).transpose()?.unwrap_or_default();
        Ok(Settings { headers, tags })
    }

    pub(super) fn storage_class(&self) -> &str {
        self.headers.get("x-amz-storage-class").map_or("STANDARD", String::as_str)
    }

    /// The headers about encryption, which the answers to writes have, too.
    pub(super) fn encryption(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let encryption = self.headers.iter().filter(|(name, _)| name.starts_with("x-amz-server-side-encryption"));
        encryption.filter(|(name, _)| !name.ends_with("-context")).map(|(name, value)| (name.clone(), value.clone()))
    }

    /// The ETag of bytes: their MD5, except with KMS.
    pub(super) fn etag(&self, sum: &[u8]) -> String {
        match self.headers.get("x-amz-server-side-encryption").map(String::as_str) {
            Some("AES256") | None => hex(sum),
            Some(other) => hex(&md5(&[other.as_bytes(), sum].concat())),
        }
    }
}

fn tags(text: &str) -> Result<Vec<(String, String)>, Refused> {
    let invalid = || {
        invalid_argument(
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.",
        )
    };
    let mut tags: Vec<(String, String)> = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| url_decode(&text.replace('+', " ")).ok_or_else(invalid);
        let (name, value) = (decode(name)?, decode(value)?);
        if tags.iter().any(|(other, _)| *other == name) {
            return Err(invalid());
        }
        tags.push((name, value));
    }
    check_tags(&tags)?;
    Ok(tags)
}

/// Refuses more than 10 tags, and tags that are too long.
pub(super) fn check_tags(tags: &[(String, String)]) -> Result<(), Refused> {
    if tags.len() > 10 {
        return Err(Refused::new(400, "BadRequest", "Object tags cannot be greater than 10"));
    }
    if tags.iter().any(|(name, _)| name.is_empty() || name.chars().count() > 128) {
        return Err(Refused::new(400, "InvalidTag", "The TagKey you have provided is invalid"));
    }
    if tags.iter().any(|(_, value)| value.chars().count() > 256) {
        return Err(Refused::new(400, "InvalidTag", "The TagValue you have provided is invalid"));
    }
    Ok(())
}

/// An object.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) body: Bytes,
    pub(super) etag: String,
    pub(super) modified_ms: u64,
    pub(super) checksum: (Algorithm, ChecksumType, String),
    pub(super) settings: Settings,
    pub(super) parts: Option<usize>,
}

/// A part of an upload.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) body: Bytes,
    pub(super) sum: Vec<u8>,
    pub(super) etag: String,
    pub(super) checksum: (Algorithm, String),
    pub(super) modified_ms: u64,
}

/// An upload in progress.
#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) begun_ms: u64,
    /// Whether the request named the algorithm; otherwise it is S3's default.
    pub(super) named: bool,
    pub(super) algorithm: Algorithm,
    pub(super) kind: ChecksumType,
    pub(super) settings: Settings,
    pub(super) parts: BTreeMap<u32, Part>,
}

impl Upload {
    pub(super) fn of(request: &Request, key: &str, now_ms: u64) -> Result<Self, Refused> {
        claimed(request)?;
        let given = request.headers.get("x-amz-checksum-algorithm");
        let algorithm = match given {
            None => Algorithm::Crc64Nvme,
            Some(name) => Algorithm::of_name(name).ok_or_else(|| {
                invalid_request("Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]")
            })?,
        };
        let kind = match request.headers.get("x-amz-checksum-type").map(String::as_str) {
            None if algorithm == Algorithm::Crc64Nvme => ChecksumType::FullObject,
            None | Some("COMPOSITE") => ChecksumType::Composite,
            Some("FULL_OBJECT") => ChecksumType::FullObject,
            Some(_) => return Err(invalid_request("Value for x-amz-checksum-type header is invalid.")),
        };
        let fits = match kind {
            ChecksumType::FullObject => algorithm.is_crc(),
            ChecksumType::Composite => algorithm != Algorithm::Crc64Nvme,
        };
        if !fits {
            return Err(invalid_request(format!(
                "The {} checksum type cannot be used with the {} checksum algorithm.",
                kind.name(),
                algorithm.name().to_lowercase()
            )));
        }
        Ok(Upload {
            key: key.to_owned(),
            begun_ms: now_ms,
            named: given.is_some(),
            algorithm,
            kind,
            settings: Settings::of(request)?,
            parts: BTreeMap::new(),
        })
    }
}

/// A bucket. Upload ids grow with time.
#[derive(Debug, Clone, Default)]
pub(super) struct Bucket {
    pub(super) objects: BTreeMap<String, Object>,
    pub(super) uploads: BTreeMap<String, Upload>,
    /// Settings of the bucket, by the name of their sub-resource: documents as they were put.
    pub(super) settings: BTreeMap<String, Bytes>,
}

/// Year, month, day, hour, minute, second, millisecond and day of the week (0 is Thursday).
fn civil(ms: u64) -> [u64; 8] {
    let (days, rest) = (ms / 86_400_000, ms % 86_400_000);
    // H. Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    [year, month, day, rest / 3_600_000, rest / 60_000 % 60, rest / 1_000 % 60, rest % 1_000, days % 7]
}

/// `2026-11-23T20:45:04.000Z`.
pub(super) fn iso8601(ms: u64) -> String {
    let [year, month, day, hour, minute, second, millis, _] = civil(ms);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// `Mon, 23 Nov 2026 20:45:04 GMT`.
pub(crate) fn http_date(ms: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let [year, month, day, hour, minute, second, _, weekday] = civil(ms);
    let pick = |names: &[&'static str], index: u64| {
        usize::try_from(index).ok().and_then(|index| names.get(index).copied()).unwrap_or("")
    };
    let (weekday, month) = (pick(&DAYS, weekday), pick(&MONTHS, month - 1));
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_s3_writes_them() {
        assert_eq!(http_date(1_795_466_704_000), "Mon, 23 Nov 2026 20:45:04 GMT");
        assert_eq!(iso8601(1_795_466_704_007), "2026-11-23T20:45:04.007Z");
        assert_eq!(http_date(951_782_400_000), "Tue, 29 Feb 2000 00:00:00 GMT");
    }
}
