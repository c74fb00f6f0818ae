//! Reading objects that other programs wrote: pages of a list with ETags, and parts of objects as long as they have their ETag.
//!
//! Owns: these two requests and what their answers mean. Does not own: which objects are read (`source::objects`), retries.
//!
//! Keys of foreign objects are any text below the location's prefix. They need not be paths as the keys of a lake are.

use std::ops::Range;

use aws_sdk_s3::types::EncodingType;
use bytes::Bytes;
use checkpoints::error_chain;

use crate::aws::permissions::{PROBE, Trials};
use crate::aws::{Aws, large_request};
use crate::lake::s3::{READ_ACTIONS, S3Location, S3Options, S3Store, code, decode, millis, status};
use crate::lake::{LakeError, StorageClass};

/// An object as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForeignObject {
    /// Its key below the location's prefix.
    pub(crate) key: String,
    /// Its ETag, without quotes.
    pub(crate) etag: String,
    /// Its size.
    pub(crate) bytes: u64,
    /// When it was written, in milliseconds since 1970.
    pub(crate) modified_ms: i64,
    /// Its storage class.
    pub(crate) storage_class: StorageClass,
}

/// What reading a part of a foreign object came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ForeignPart {
    /// The bytes.
    Bytes(Bytes),
    /// There is no such object any more.
    Gone,
    /// The object has another ETag now.
    Changed,
}

impl S3Store {
    /// The bucket that a location names, found as that of a lake is.
    ///
    /// # Errors
    /// It does not exist, or may not be listed, or S3 does not respond.
    pub(crate) async fn open_foreign(location: &S3Location, options: &S3Options, aws: &Aws) -> Result<Self, LakeError> {
        location.store(options, aws).await
    }

    /// One page of the objects below the location, in the order of their keys, and the token of the next page.
    pub(crate) async fn list_foreign(
        &self,
        token: Option<String>,
    ) -> Result<(Vec<ForeignObject>, Option<String>), LakeError> {
        let request = self.list_request("").encoding_type(EncodingType::Url).max_keys(self.page);
        let page = request.set_continuation_token(token).send().await;
        let page = page.map_err(|error| self.failed(format!("list {}", self.location), "s3:ListBucket", &error))?;
        let mut objects = Vec::new();
        for object in page.contents.unwrap_or_default() {
            let Some(full) = object.key.as_deref().map(decode) else { continue };
            let Some(key) = full.strip_prefix(self.location.prefix()) else { continue };
            let class = object.storage_class.as_ref().map_or("", |class| class.as_str());
            objects.push(ForeignObject {
                key: key.to_owned(),
                etag: object.e_tag.unwrap_or_default().trim_matches('"').to_owned(),
                bytes: object.size.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default(),
                modified_ms: millis(object.last_modified.as_ref()),
                storage_class: StorageClass::of(class),
            });
        }
        let next = page.next_continuation_token.filter(|_| page.is_truncated == Some(true));
        Ok((objects, next))
    }

    /// Bytes of an object, if it still has this ETag. `range`: of a part that is not the whole object.
    pub(crate) async fn get_foreign(
        &self,
        key: &str,
        etag: &str,
        bytes: u64,
        range: Option<Range<u64>>,
    ) -> Result<ForeignPart, LakeError> {
        let wanted = range.as_ref().map_or(bytes, |range| range.end - range.start);
        let time = large_request(usize::try_from(wanted).unwrap_or(usize::MAX));
        let range = range.map(|range| format!("bytes={}-{}", range.start, range.end - 1));
        let request = self.client.get_object().bucket(self.bucket()).key(format!("{}{key}", self.location.prefix()));
        let request = request.set_expected_bucket_owner(self.owner()).set_range(range);
        // Some stand-ins for S3 list no ETag.
        let request = request.set_if_match((!etag.is_empty()).then(|| format!("\"{etag}\"")));
        // A key may hold personal data: an error names the place, and not the key.
        let operation = || format!("read an object of {}", self.location);
        let cut_off = |problem: String| LakeError::Unavailable { operation: operation(), problem };
        let object = match request.customize().config_override(time).send().await {
            Ok(object) => object,
            Err(error) if code(&error) == Some("NoSuchKey") => return Ok(ForeignPart::Gone),
            Err(error) if code(&error) == Some("PreconditionFailed") || status(&error) == Some(412) => {
                return Ok(ForeignPart::Changed);
            }
            Err(error) => return Err(self.failed(operation(), READ_ACTIONS, &error)),
        };
        let body = object.body.collect().await.map_err(|error| cut_off(error_chain(&error)))?.into_bytes();
        if body.len() as u64 != wanted {
            return Err(cut_off(format!("S3 returned {} bytes of {wanted}", body.len())));
        }
        Ok(ForeignPart::Bytes(body))
    }

    /// Tries what reading foreign objects needs.
    pub(crate) async fn try_reading(location: &S3Location, options: &S3Options, aws: &Aws, trials: &mut Trials) {
        const LIST: &str = "s3:ListBucket";
        let (whole, below) =
            (format!("s3://{}", location.bucket()), format!("s3://{}/{}*", location.bucket(), location.prefix()));
        let store = match location.store(options, aws).await {
            Ok(store) => Ok(store),
            // What cannot be opened is tried as it is, which shows which permission is missing, if one is.
            Err(error) => match aws.reach(&options.access, None).await {
                Ok(reached) => S3Store::new(reached.s3(), location.clone(), options).map_err(|error| error.to_string()),
                Err(_) => Err(error.to_string()),
            },
        };
        let store = match store {
            Ok(store) => store,
            Err(problem) => return trials.fail(LIST, &whole, problem),
        };
        let absent = ("NoSuchBucket", "the bucket of the source");
        trials.note(LIST, &whole, store.list_request("").max_keys(1).send().await, &[], absent);
        if trials.last_exists() {
            let key = format!("{}{PROBE}", location.prefix());
            let got = store.client.get_object().bucket(location.bucket()).key(key);
            let got = got.set_expected_bucket_owner(store.owner()).if_match("\"0\"").send().await;
            trials.note("s3:GetObject", &below, got, &["NoSuchKey", "PreconditionFailed"], absent);
        }
    }
}
