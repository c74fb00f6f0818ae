//! Where a lake is in S3, and how its objects are kept there.
//!
//! Owns: checking both, each problem told as a sentence that says what would do. Does not own: where the user writes it
//! (`config`).
//!
//! Limits, which are S3's: bucket names of 3 to 63 characters; 10 tags, whose keys have 128 characters at most and whose
//! values 256; prefixes that leave room for keys below 1,024 bytes.

use std::collections::BTreeMap;

use aws_sdk_s3::types::StorageClass;

use crate::lake::ObjectKey;

/// Bytes that a prefix may have: keys below it need the rest of the 1,024.
const PREFIX_BYTES_MAX: usize = 256;
/// Tags of one object.
const TAGS_MAX: usize = 10;

/// The place of a lake.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct S3Place {
    /// The bucket's name, or an access point's alias.
    pub bucket: String,
    /// What every key begins with: nothing, or a path that ends with `/`.
    pub prefix: String,
}

/// How objects are encrypted at rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Encryption {
    /// As the bucket's default says. Since 2023 every bucket has one.
    #[default]
    BucketDefault,
    /// With keys that S3 keeps (SSE-S3).
    Aes256,
    /// With a key of KMS (SSE-KMS).
    Kms {
        /// The key's id or ARN; `None` for the account's own `aws/s3`.
        key: Option<String>,
        /// Whether S3 derives a key for the bucket: far fewer calls of KMS.
        bucket_key: bool,
    },
}

/// How objects are kept. The default asks S3 for nothing in particular.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct S3Options {
    /// Of all objects.
    pub encryption: Encryption,
    /// Of data objects. Intents, commit records and the like are small and always STANDARD.
    pub storage_class: Option<String>,
    /// Of all objects. They need `s3:PutObjectTagging`.
    pub tags: BTreeMap<String, String>,
    /// The account that must own the bucket; S3 refuses every request if another one does.
    pub expected_bucket_owner: Option<String>,
}

/// What a place or options can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidS3(String);

impl S3Place {
    /// Checks the place.
    ///
    /// # Errors
    /// S3 has no such bucket names, or the prefix would not make keys.
    pub fn validate(&self) -> Result<(), InvalidS3> {
        let S3Place { bucket, prefix } = self;
        let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let plain = bucket.chars().all(|c| ends(c) || c == '-' || c == '.');
        let good = (3..=63).contains(&bucket.len())
            && plain
            && bucket.starts_with(ends)
            && bucket.ends_with(ends)
            && !bucket.contains("..");
        if !good {
            return Err(InvalidS3(format!(
                "'{bucket}' is no bucket's name: 3 to 63 lower-case letters, digits, hyphens and dots"
            )));
        }
        let Some(path) = prefix.strip_suffix('/') else {
            return if prefix.is_empty() {
                Ok(())
            } else {
                Err(InvalidS3(format!("the prefix '{prefix}' must be empty or end with '/'")))
            };
        };
        if ObjectKey::new(path).is_err() || prefix.len() > PREFIX_BYTES_MAX {
            return Err(InvalidS3(format!(
                "the prefix '{prefix}' must be a path without empty, '.' or '..' segments, of {PREFIX_BYTES_MAX} bytes \
                 at most"
            )));
        }
        Ok(())
    }
}

impl std::fmt::Display for S3Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

/// Options that were checked, as requests need them.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub(super) encryption: Encryption,
    pub(super) storage_class: Option<StorageClass>,
    /// Encoded as the header `x-amz-tagging` has them; `None` if there are none.
    pub(super) tagging: Option<String>,
    pub(super) owner: Option<String>,
}

impl S3Options {
    /// Checks the options.
    ///
    /// # Errors
    /// S3 would refuse them.
    pub fn validate(&self) -> Result<(), InvalidS3> {
        self.check().map(drop)
    }

    /// Checks the options, and puts them into the form that requests need.
    pub(super) fn check(&self) -> Result<Checked, InvalidS3> {
        if let Encryption::Kms { key: Some(key), .. } = &self.encryption
            && (key.is_empty() || !key.chars().all(|c| c.is_ascii_graphic()))
        {
            return Err(InvalidS3(format!("'{key}' is no KMS key: give its id, its ARN or an alias")));
        }
        if let Some(owner) = &self.expected_bucket_owner
            && (owner.len() != 12 || !owner.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return Err(InvalidS3(format!("'{owner}' is no AWS account: it must have 12 digits")));
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
            return Err(InvalidS3(format!("{} tags are too many: S3 keeps {TAGS_MAX} an object", self.tags.len())));
        }
        for (key, value) in &self.tags {
            let allowed = |c: char| c.is_alphanumeric() || " +-=._:/@".contains(c);
            let good = (1..=128).contains(&key.chars().count())
                && value.chars().count() <= 256
                && key.chars().chain(value.chars()).all(allowed)
                && !key.to_ascii_lowercase().starts_with("aws:");
            if !good {
                return Err(InvalidS3(format!(
                    "S3 does not take the tag '{key}' = '{value}': keys have 1 to 128 characters and values up to 256, \
                     letters, digits, spaces and + - = . _ : / @, and no key begins with 'aws:'"
                )));
            }
        }
        let pairs: Vec<String> =
            self.tags.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
        Ok((!pairs.is_empty()).then(|| pairs.join("&")))
    }
}

/// A class whose objects can be read again at once: recovery and audits read what was written.
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
            "objects of the storage class {name} can't be read without restoring them first; write another class, and \
             move them there by a lifecycle rule"
        ))),
        _ => Err(InvalidS3(format!(
            "'{name}' is no storage class for a lake: STANDARD, STANDARD_IA, ONEZONE_IA, INTELLIGENT_TIERING, \
             GLACIER_IR or REDUCED_REDUNDANCY"
        ))),
    }
}

/// Encodes a part of a query.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(bucket: &str, prefix: &str) -> Result<(), String> {
        let place = S3Place { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
        place.validate().map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_place_is_a_bucket_and_a_path_below_it() {
        for (bucket, prefix) in [("lake", ""), ("my.lake-1", "a/"), ("0ab", "team=a/b c/")] {
            assert_eq!(place(bucket, prefix), Ok(()));
        }
        for bucket in ["", "ab", "Lake", "la_ke", "-lake", "lake.", "la..ke", "a/b", &"x".repeat(64)] {
            assert!(place(bucket, "").unwrap_err().contains("is no bucket's name"), "{bucket}");
        }
        assert_eq!(place("lake", "a").unwrap_err(), "the prefix 'a' must be empty or end with '/'");
        for prefix in ["/", "/a/", "a//", "a/../", &format!("{}/", "x".repeat(256))] {
            assert!(place("lake", prefix).unwrap_err().contains("must be a path"), "{prefix}");
        }
    }

    fn message_of(options: &S3Options) -> String {
        options.check().unwrap_err().to_string()
    }

    #[test]
    fn options_that_s3_would_refuse_are_refused_with_the_reason() {
        let class = |name: &str| S3Options { storage_class: Some(name.to_owned()), ..S3Options::default() };
        assert!(class("INTELLIGENT_TIERING").check().is_ok());
        assert!(message_of(&class("DEEP_ARCHIVE")).contains("can't be read without restoring"));
        assert!(message_of(&class("standard")).starts_with("'standard' is no storage class for a lake: STANDARD, "));

        let tags = |tags: &[(&str, &str)]| S3Options {
            tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..S3Options::default()
        };
        let good = tags(&[("cost centre", "a+b=ü"), ("x", "")]).check().unwrap();
        assert_eq!(good.tagging.as_deref(), Some("cost%20centre=a%2Bb%3D%C3%BC&x="));
        assert_eq!(S3Options::default().check().unwrap().tagging, None);
        for bad in [("", "x"), ("aws:x", ""), ("x", "<"), ("x", &"v".repeat(257)), (&"k".repeat(129), "")] {
            assert!(message_of(&tags(&[bad])).starts_with("S3 does not take the tag "), "{bad:?}");
        }
        let names: Vec<String> = (0..11).map(|number| format!("tag-{number}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(message_of(&tags(&many)), "11 tags are too many: S3 keeps 10 an object");

        let owner = S3Options { expected_bucket_owner: Some("me".to_owned()), ..S3Options::default() };
        assert_eq!(message_of(&owner), "'me' is no AWS account: it must have 12 digits");
        let encryption = Encryption::Kms { key: Some(String::new()), bucket_key: true };
        assert!(message_of(&S3Options { encryption, ..S3Options::default() }).contains("is no KMS key"));
    }
}
