//! Where a lake is in S3, and how its objects are kept there.
//!
//! Owns: checking both, with a sentence for each problem that says what to write instead. Does not own: the keys of the
//! configuration (`backend`).
//!
//! Limits, which are S3's: bucket names of 3 to 63 characters; 10 tags, whose keys have at most 128 characters and whose
//! values 256; prefixes that leave room for keys below 1,024 bytes.

use std::collections::BTreeMap;

use aws_sdk_s3::types::StorageClass;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::aws::{Access, arn, tags};
use crate::lake::ObjectKey;
use crate::settings::url::Url;

/// Bytes that a prefix may have: keys below it need the rest of the 1,024.
const PREFIX_BYTES_MAX: usize = 256;
/// Tags of one object.
const TAGS_MAX: usize = 10;

/// A bucket, and what every key of the lake begins with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct S3Location {
    bucket: String,
    /// Empty, or a path that ends with `/`.
    prefix: String,
}

/// How objects are encrypted at rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Encryption {
    /// By the bucket's default. Every bucket has had one since 2023.
    #[default]
    BucketDefault,
    /// With keys that S3 manages (SSE-S3).
    Aes256,
    /// With a key of KMS (SSE-KMS).
    Kms {
        /// The key's id or ARN; `None` for the account's own `aws/s3`.
        key: Option<String>,
        /// Whether S3 derives a key for the bucket, which needs far fewer calls of KMS.
        bucket_key: bool,
    },
}

/// How objects are stored. The default leaves everything to S3.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct S3Options {
    /// Of all objects.
    pub encryption: Encryption,
    /// Of data objects. Intents, commit records and the like are small and always STANDARD.
    pub storage_class: Option<String>,
    /// Of all objects. They need `s3:PutObjectTagging`.
    pub tags: BTreeMap<String, String>,
    /// The account that must own the bucket; S3 refuses every request if another account does.
    pub expected_bucket_owner: Option<String>,
    /// How the bucket is reached.
    pub access: Access,
}

/// A location or options that S3 does not accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidS3(String);

impl S3Location {
    /// A lake in a bucket (or an access point's alias), below a prefix, which may be empty.
    ///
    /// # Errors
    /// S3 has no such bucket names, or the prefix cannot begin a key.
    pub fn new(bucket: &str, prefix: &str) -> Result<Self, InvalidS3> {
        let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_bucket = (3..=63).contains(&bucket.len())
            && bucket.chars().all(|c| end(c) || c == '-' || c == '.')
            && bucket.starts_with(end)
            && bucket.ends_with(end)
            && !bucket.contains("..");
        // The name is not repeated: a user name and a password may be in it.
        if !is_bucket {
            return Err(InvalidS3(
                "the bucket's name must have 3 to 63 lower-case letters, digits, hyphens and dots".to_owned(),
            ));
        }
        let path = prefix.trim_end_matches('/');
        if path.is_empty() && prefix.is_empty() {
            return Ok(S3Location { bucket: bucket.to_owned(), prefix: String::new() });
        }
        if ObjectKey::new(path).is_err() || path.len() >= PREFIX_BYTES_MAX {
            return Err(InvalidS3(format!(
                "the prefix must be a path without empty, '.' or '..' segments, shorter than {PREFIX_BYTES_MAX} bytes"
            )));
        }
        Ok(S3Location { bucket: bucket.to_owned(), prefix: format!("{path}/") })
    }

    /// Reads `s3://BUCKET/PREFIX`.
    pub(crate) fn parse(url: &Url<'_>) -> Result<Self, String> {
        if arn::is_arn(url.rest) {
            return Err(format!("'{url}': a bucket is named as s3://BUCKET/PREFIX, and not by an ARN"));
        }
        let (bucket, prefix) = url.rest.split_once('/').unwrap_or((url.rest, ""));
        S3Location::new(bucket, prefix).map_err(|problem| format!("'{url}': {problem}; expected s3://BUCKET/PREFIX"))
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What every key begins with: nothing, or a path that ends with `/`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl std::fmt::Display for S3Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix.trim_end_matches('/')) }
    }
}

/// Checked options, in the form that requests need.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub(super) encryption: Encryption,
    pub(super) storage_class: Option<StorageClass>,
    /// Encoded for the header `x-amz-tagging`; `None` if there are no tags.
    pub(super) tagging: Option<String>,
    pub(super) owner: Option<String>,
}

impl S3Options {
    /// Checks the options.
    ///
    /// # Errors
    /// S3 does not accept them.
    pub fn validate(&self) -> Result<(), InvalidS3> {
        self.check().map(drop)
    }

    /// Checks the options and brings them into the form that requests need.
    pub(super) fn check(&self) -> Result<Checked, InvalidS3> {
        if let Encryption::Kms { key: Some(key), .. } = &self.encryption
            && (key.is_empty() || !key.chars().all(|c| c.is_ascii_graphic()))
        {
            return Err(InvalidS3(format!("'{key}' is not a valid KMS key: expected its id, its ARN or an alias")));
        }
        if let Some(owner) = &self.expected_bucket_owner
            && (owner.len() != 12 || !owner.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return Err(InvalidS3(format!("'{owner}' is not a valid AWS account id: it must have 12 digits")));
        }
        let storage_class = self.storage_class.as_deref().map(storage_class).transpose()?;
        let tagging = self.tagging()?;
        Ok(Checked {
            encryption: self.encryption.clone(),
            storage_class,
            tagging,
            owner: self.expected_bucket_owner.clone(),
        })
    }

    fn tagging(&self) -> Result<Option<String>, InvalidS3> {
        if self.tags.len() > TAGS_MAX {
            return Err(InvalidS3(format!(
                "{} tags are too many: S3 keeps {TAGS_MAX} for each object",
                self.tags.len()
            )));
        }
        tags::check(&self.tags).map_err(|problem| InvalidS3(format!("S3 {problem}")))?;
        let pairs: Vec<String> =
            self.tags.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
        Ok((!pairs.is_empty()).then(|| pairs.join("&")))
    }
}

/// Accepts classes whose objects can be read at once: recovery and audits read what was written.
fn storage_class(name: &str) -> Result<StorageClass, InvalidS3> {
    let class = StorageClass::from(name);
    match class {
        StorageClass::Standard
        | StorageClass::StandardIa
        | StorageClass::OnezoneIa
        | StorageClass::IntelligentTiering
        | StorageClass::GlacierIr
        | StorageClass::ReducedRedundancy => Ok(class),
        StorageClass::Glacier | StorageClass::DeepArchive => Err(InvalidS3(format!(
            "objects of the storage class {name} cannot be read without restoring them first; write another class, and \
             move them there by a lifecycle rule"
        ))),
        _ => Err(InvalidS3(format!(
            "'{name}' is not a valid storage class for a lake: expected STANDARD, STANDARD_IA, ONEZONE_IA, INTELLIGENT_TIERING, \
             GLACIER_IR or REDUCED_REDUNDANCY"
        ))),
    }
}

/// What is encoded in a part of a query: everything but RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn encode(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, ENCODED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(bucket: &str, prefix: &str) -> Result<String, String> {
        let location = S3Location::new(bucket, prefix).map_err(|problem| problem.to_string())?;
        assert!(location.prefix().is_empty() || location.prefix().ends_with('/'));
        Ok(location.to_string())
    }

    #[test]
    fn a_location_is_a_bucket_and_a_path_below_it() {
        for (bucket, prefix, shown) in [
            ("lake", "", "s3://lake"),
            ("my.lake-1", "a/", "s3://my.lake-1/a"),
            ("0ab", "team=a/b c", "s3://0ab/team=a/b c"),
        ] {
            assert_eq!(location(bucket, prefix), Ok(shown.to_owned()));
        }
        for bucket in ["", "ab", "Lake", "la_ke", "-lake", "lake.", "la..ke", "a/b", "me:hush@lake", &"x".repeat(64)] {
            let message = location(bucket, "").unwrap_err();
            assert!(message.starts_with("the bucket's name must have") && !message.contains("hush"), "{message}");
        }
        for prefix in ["/", "/a/", "a//b", "a/../", &format!("{}/", "x".repeat(256))] {
            assert!(location("lake", prefix).unwrap_err().contains("must be a path"), "{prefix}");
        }
    }

    fn message(options: &S3Options) -> String {
        options.check().unwrap_err().to_string()
    }

    #[test]
    fn options_that_s3_refuses_are_refused_before_it_is_asked() {
        let class = |name: &str| S3Options { storage_class: Some(name.to_owned()), ..S3Options::default() };
        assert!(class("INTELLIGENT_TIERING").check().is_ok());
        assert!(message(&class("DEEP_ARCHIVE")).contains("cannot be read without restoring"));
        assert!(
            message(&class("standard"))
                .starts_with("'standard' is not a valid storage class for a lake: expected STANDARD, ")
        );

        let tags = |tags: &[(&str, &str)]| S3Options {
            tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..S3Options::default()
        };
        let good = tags(&[("cost centre", "a+b=ü"), ("x", "")]).check().unwrap();
        assert_eq!(good.tagging.as_deref(), Some("cost%20centre=a%2Bb%3D%C3%BC&x="));
        assert_eq!(S3Options::default().check().unwrap().tagging, None);
        for bad in [("", "x"), ("aws:x", ""), ("x", "<"), ("x", &"v".repeat(257)), (&"k".repeat(129), "")] {
            assert!(message(&tags(&[bad])).starts_with("S3 does not accept the tag "), "{bad:?}");
        }
        let names: Vec<String> = (0..11).map(|number| format!("tag-{number}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(message(&tags(&many)), "11 tags are too many: S3 keeps 10 for each object");

        let owner = S3Options { expected_bucket_owner: Some("me".to_owned()), ..S3Options::default() };
        assert_eq!(message(&owner), "'me' is not a valid AWS account id: it must have 12 digits");
        let encryption = Encryption::Kms { key: Some(String::new()), bucket_key: true };
        assert!(message(&S3Options { encryption, ..S3Options::default() }).contains("is not a valid KMS key"));
    }
}
