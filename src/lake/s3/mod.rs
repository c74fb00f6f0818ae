//! A lake on S3.
//!
//! Owns: how the protocol's terms map to S3. An upload is a multipart upload. It is completed under `If-None-Match: *`, which
//! never replaces an object. Checksums are S3's own CRC-64/NVME over the whole object; each is sent with its part, and S3
//! verifies it. Does not own: the client (`aws`), what is in each request (`requests`), trying the permissions (`trials`), retries
//! (the SDK makes two, then `lake::Retrying`), the keys of the configuration (`backend`).
//!
//! What the commit protocol needs to know:
//!
//! - The client may repeat a request whose response was lost. Then completing returns `NoSuchUpload` or `KeyTaken`, and
//!   [`put_new`](ObjectStore::put_new) returns `KeyTaken`, because of the worker's own object. Compare what is there with what was
//!   written.
//! - A repeated `begin_upload` leaves a second upload that no manifest names. A sweep removes it, or a lifecycle rule
//!   (`AbortIncompleteMultipartUpload`, with more days than the longest outage to be survived).
//! - The protocol assumes of S3 that it returns `NoSuchUpload` only for an upload that was completed or aborted, and that a read
//!   after that sees its object.
//! - If a key is taken, the upload for it stays until it is aborted.
//!
//! Limits, which are S3's: parts of at least 5 MiB except the last; 10,000 parts for each object, so 48 GiB with parts of that
//! size; keys of 1,024 bytes including the prefix. Small objects are STANDARD, whatever the storage class of data objects is.

pub(in crate::lake) mod backend;
mod diagnose;
mod errors;
pub(crate) mod foreign;
mod options;
mod requests;
mod trials;

#[cfg(test)]
pub(in crate::lake) mod tests;

use std::ops::Range;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart, EncodingType};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::base64;
use bytes::Bytes;
use checkpoints::error_chain;
use percent_encoding::percent_decode_str;

use crate::aws::large_request;
use crate::lake::{
    Checksum, Checksummer, Completion, LakeError, NewPart, ObjectInfo, ObjectKey, ObjectStore, Part, StagedCopy,
    StorageClass, UploadId, UploadInfo, Written,
};
use crate::retry::one_request;
use errors::{BUCKET_REGION, Call, WRITE_ADVICE, code, header, lake_error, status};
use options::Checked;

pub use options::{Encryption, InvalidS3, S3Location, S3Options};

/// Bytes of every part but the last.
const PART_BYTES_MIN: usize = 5 << 20;
/// Parts of one object.
const PARTS_MAX: u32 = 10_000;
/// Bytes that one request copies. S3 accepts 5 GiB.
const COPIED_PART_BYTES: u64 = 512 << 20;
/// Keys in one answer to a list.
const PAGE: i32 = 1000;

/// A lake on S3. Clones share the client.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    location: S3Location,
    options: Checked,
    page: i32,
}

type Failure<E> = SdkError<E, HttpResponse>;

impl S3Store {
    /// The lake at a location. Sends no request: see [`S3Store::probe`].
    ///
    /// # Errors
    /// S3 does not accept the options.
    pub fn new(client: Client, location: S3Location, options: &S3Options) -> Result<Self, InvalidS3> {
        let options = options.check()?;
        Ok(S3Store { client, location, options, page: PAGE })
    }

    /// Its location.
    pub fn location(&self) -> &S3Location {
        &self.location
    }

    /// Checks that the bucket exists and can be listed, by listing at most one key.
    ///
    /// # Errors
    /// It does not exist, or may not be listed, or S3 does not respond.
    pub async fn probe(&self) -> Result<(), LakeError> {
        let answer = self.list_request("").max_keys(1).send().await;
        answer
            .map(drop)
            .map_err(|error| self.failed(format!("open the lake {}", self.location), "s3:ListBucket", &error))
    }

    /// The region of the bucket, as S3 says it even where it refuses the request; `None` if it does not say.
    async fn region_of_bucket(&self) -> Option<String> {
        let request = self.client.head_bucket().bucket(self.bucket()).set_expected_bucket_owner(self.owner());
        match request.send().await {
            Ok(head) => head.bucket_region,
            Err(error) => header(&error, BUCKET_REGION).map(str::to_owned),
        }
    }

    /// Lists this many keys with each request.
    #[cfg(test)]
    fn with_page(mut self, keys: i32) -> Self {
        self.page = keys;
        self
    }

    fn bucket(&self) -> &str {
        self.location.bucket()
    }

    fn owner(&self) -> Option<String> {
        self.options.owner.clone()
    }

    /// The key in the bucket.
    fn full(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.location.prefix())
    }

    /// The key in the lake; `None` for an object that is not in the lake.
    fn relative(&self, full: &str) -> Option<ObjectKey> {
        ObjectKey::new(full.strip_prefix(self.location.prefix())?).ok()
    }

    /// The actions that writing needs.
    fn write_actions(&self) -> String {
        let mut actions = "s3:PutObject".to_owned();
        if self.options.tagging.is_some() {
            actions.push_str(" and s3:PutObjectTagging");
        }
        actions + &self.key_actions()
    }

    fn key_actions(&self) -> String {
        match &self.options.encryption {
            Encryption::Kms { key, .. } => {
                let key = key.as_deref().unwrap_or("aws/s3");
                format!(", and kms:GenerateDataKey and kms:Decrypt with the key '{key}',")
            }
            Encryption::BucketDefault | Encryption::Aes256 => String::new(),
        }
    }

    fn failed<E>(&self, operation: impl Into<String>, actions: impl Into<String>, error: &Failure<E>) -> LakeError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let call = Call { operation: operation.into(), actions: actions.into() };
        lake_error(call, &self.location, error)
    }

    /// Copies an object, or `range` (offset and length) of it, as a part of an upload; `None` if the object does not exist.
    async fn copy_part(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        id: &UploadId,
        number: u32,
        range: Option<(u64, u64)>,
    ) -> Result<Option<Part>, LakeError> {
        let operation = || format!("copy {from} to part {number} of {to}");
        let number_in_s3 = i32::try_from(number).unwrap_or(i32::MAX);
        // S3 copies hundreds of MB a second, and answers at the end.
        let time = large_request(usize::try_from(COPIED_PART_BYTES).unwrap_or(usize::MAX) / 8);
        let request = self.copy_part_request(from, to, id, number_in_s3, range).customize().config_override(time);
        let copied = match request.send().await {
            Ok(copied) => copied,
            Err(error) if code(&error) == Some("NoSuchKey") => return Ok(None),
            Err(error) => {
                let actions = format!("s3:GetObject and s3:PutObject{}", self.key_actions());
                return Err(self.failed(operation(), actions, &error));
            }
        };
        let no_tag = || LakeError::Unavailable { operation: operation(), problem: "S3 returned no ETag".to_owned() };
        let tag = copied.copy_part_result.and_then(|result| result.e_tag).ok_or_else(no_tag)?;
        Ok(Some(Part { number, tag }))
    }

    /// Reads a whole object for its size and checksum; `None` if there is none. Holds one piece at a time.
    async fn read_checksum(&self, key: &ObjectKey) -> Result<Option<(u64, Checksum)>, LakeError> {
        let Some(mut body) = self.body(key).await? else { return Ok(None) };
        let mut checksummer = Checksummer::default();
        let mut bytes = 0;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| cut_off(key, &error))?;
            checksummer.update(&piece);
            bytes += piece.len() as u64;
        }
        Ok(Some((bytes, checksummer.finish())))
    }

    /// The stream of an object's bytes; `None` if the object does not exist.
    async fn body(&self, key: &ObjectKey) -> Result<Option<ByteStream>, LakeError> {
        match self.get_request(key).customize().config_override(large_request(0)).send().await {
            Ok(object) => Ok(Some(object.body)),
            Err(error) if code(&error) == Some("NoSuchKey") => Ok(None),
            Err(error) => Err(self.failed(format!("read {key}"), READ_ACTIONS, &error)),
        }
    }
}

/// The actions that reading needs. Without permission to list, S3 denies access to an object that does not exist.
const READ_ACTIONS: &str = "s3:GetObject and s3:ListBucket, and kms:Decrypt where a KMS key is used,";

#[async_trait]
impl ObjectStore for S3Store {
    fn part_bytes_min(&self) -> usize {
        PART_BYTES_MIN
    }

    async fn begin_upload(&self, key: &ObjectKey, _: &str) -> Result<UploadId, LakeError> {
        let operation = || format!("begin the upload of {key}");
        let begun = self
            .begin_request(key)
            .send()
            .await
            .map_err(|error| self.failed(operation(), self.write_actions(), &error))?;
        let no_id =
            || LakeError::Unavailable { operation: operation(), problem: "S3 returned no upload id".to_owned() };
        begun.upload_id.filter(|id| !id.is_empty()).map(UploadId).ok_or_else(no_id)
    }

    async fn upload_part(&self, key: &ObjectKey, id: &UploadId, part: NewPart) -> Result<Part, LakeError> {
        let NewPart { number, bytes, .. } = part;
        let operation = || format!("upload part {number} of {key}");
        let number_in_s3 = i32::try_from(number).ok().filter(|_| (1..=PARTS_MAX).contains(&number));
        let Some(number_in_s3) = number_in_s3 else {
            let problem =
                format!("S3 accepts {PARTS_MAX} parts for each object; set [parquet] file_bytes to 40 GiB at most");
            return Err(LakeError::Refused { operation: operation(), problem });
        };
        let time = large_request(bytes.len());
        let request = self.part_request(key, id, number_in_s3, bytes).customize().config_override(time);
        let actions = || format!("s3:PutObject{}", self.key_actions());
        let uploaded = request.send().await.map_err(|error| self.failed(operation(), actions(), &error))?;
        let no_tag = || LakeError::Unavailable { operation: operation(), problem: "S3 returned no ETag".to_owned() };
        uploaded.e_tag.map(|tag| Part { number, tag }).ok_or_else(no_tag)
    }

    async fn stage_copy(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        id_hint: &str,
    ) -> Result<Option<StagedCopy>, LakeError> {
        let Some((bytes, crc64nvme)) = self.checksum(from).await? else { return Ok(None) };
        let upload = self.begin_upload(to, id_hint).await?;
        let mut parts = Vec::new();
        let mut offset = 0;
        while offset < bytes {
            let length = COPIED_PART_BYTES.min(bytes - offset);
            let range = (length < bytes).then_some((offset, length));
            let number = u32::try_from(parts.len() + 1).unwrap_or(u32::MAX);
            match self.copy_part(from, to, &upload, number, range).await? {
                Some(part) => parts.push(part),
                None => {
                    self.abort_upload(to, &upload).await?;
                    return Ok(None);
                }
            }
            offset += length;
        }
        if bytes == 0 {
            // There is nothing to copy, and an object has a part.
            parts.push(self.upload_part(to, &upload, NewPart { number: 1, offset: 0, bytes: Bytes::new() }).await?);
        }
        Ok(Some(StagedCopy { upload, parts, bytes, crc64nvme }))
    }

    async fn complete_upload(&self, key: &ObjectKey, id: &UploadId, parts: &[Part]) -> Result<Completion, LakeError> {
        let part = |part: &Part| {
            CompletedPart::builder().set_part_number(i32::try_from(part.number).ok()).e_tag(&part.tag).build()
        };
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.iter().map(part).collect())).build();
        let request = self.client.complete_multipart_upload().bucket(self.bucket()).key(self.full(key));
        let request =
            request.upload_id(&id.0).multipart_upload(parts).if_none_match("*").set_expected_bucket_owner(self.owner());
        match request.customize().config_override(large_request(0)).send().await {
            Ok(_) => Ok(Completion::Completed),
            Err(error) if is_taken(&error) => Ok(Completion::KeyTaken),
            Err(error) if code(&error) == Some("NoSuchUpload") => Ok(Completion::NoSuchUpload),
            Err(error) => {
                let actions = format!("s3:PutObject{}", self.key_actions());
                Err(self.failed(format!("complete the upload of {key}"), actions, &error))
            }
        }
    }

    async fn abort_upload(&self, key: &ObjectKey, id: &UploadId) -> Result<(), LakeError> {
        match self.abort_request(key, id).send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some("NoSuchUpload") => Ok(()),
            Err(error) => Err(self.failed(format!("abort the upload of {key}"), "s3:AbortMultipartUpload", &error)),
        }
    }

    async fn list_uploads(&self) -> Result<Vec<UploadInfo>, LakeError> {
        let mut uploads = Vec::new();
        let mut markers = None;
        loop {
            let (key_marker, id_marker) = markers.take().unwrap_or_default();
            // No URL encoding here: local stacks do not support it for uploads, and XML escapes what it cannot hold.
            let request = self
                .list_uploads_request()
                .max_uploads(self.page)
                .set_key_marker(key_marker)
                .set_upload_id_marker(id_marker);
            let page = one_request(request.send()).await.map_err(|error| {
                self.failed(format!("list the uploads in {}", self.location), "s3:ListBucketMultipartUploads", &error)
            })?;
            for upload in page.uploads.unwrap_or_default() {
                if let (Some(key), Some(id)) = (upload.key.and_then(|key| self.relative(&key)), upload.upload_id) {
                    let begun_ms = millis(upload.initiated.as_ref());
                    uploads.push(UploadInfo { key: Some(key), id: UploadId(id), begun_ms });
                }
            }
            let next = (page.next_key_marker, page.next_upload_id_marker);
            if page.is_truncated != Some(true) || next.0.is_none() {
                return Ok(uploads);
            }
            markers = Some(next);
        }
    }

    async fn flush(&self) -> Result<(), LakeError> {
        Ok(())
    }

    async fn put_new(&self, key: &ObjectKey, bytes: Bytes) -> Result<Written, LakeError> {
        let (time, checksum) = (large_request(bytes.len()), Checksum::of(&bytes));
        match self.put_request(key, bytes, checksum).customize().config_override(time).send().await {
            Ok(_) => Ok(Written::New),
            Err(error) if is_taken(&error) => Ok(Written::KeyTaken),
            Err(error) => Err(self.failed(format!("write {key}"), self.write_actions(), &error)),
        }
    }

    async fn replace(&self, key: &ObjectKey, from: &Bytes, to: Bytes) -> Result<bool, LakeError> {
        let object = match self.get_request(key).customize().config_override(large_request(0)).send().await {
            Ok(object) => object,
            Err(error) if code(&error) == Some("NoSuchKey") => return Ok(false),
            Err(error) => return Err(self.failed(format!("read {key}"), READ_ACTIONS, &error)),
        };
        let tag = object.e_tag.clone();
        let found = object.body.collect().await.map_err(|error| cut_off(key, &error))?.into_bytes();
        if found != *from {
            return Ok(found == to);
        }
        let (time, checksum) = (large_request(to.len()), Checksum::of(&to));
        let request = self.put_request(key, to, checksum).set_if_none_match(None).set_if_match(tag);
        match request.customize().config_override(time).send().await {
            Ok(_) => Ok(true),
            // Another request was faster, perhaps this one before it was sent again.
            Err(error) if is_taken(&error) => Err(LakeError::Unavailable {
                operation: format!("replace {key}"),
                problem: "another request has changed it meanwhile".to_owned(),
            }),
            Err(error) => Err(self.failed(format!("replace {key}"), self.write_actions(), &error)),
        }
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, LakeError> {
        let Some(body) = self.body(key).await? else { return Ok(None) };
        body.collect().await.map(|bytes| Some(bytes.into_bytes())).map_err(|error| cut_off(key, &error))
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>, LakeError> {
        if range.is_empty() {
            return Ok(Some(Bytes::new()));
        }
        let time = large_request(usize::try_from(range.end - range.start).unwrap_or(usize::MAX));
        let request = self.get_request(key).range(format!("bytes={}-{}", range.start, range.end - 1));
        match request.customize().config_override(time).send().await {
            Ok(object) => {
                let body = object.body.collect().await;
                body.map(|bytes| Some(bytes.into_bytes())).map_err(|error| cut_off(key, &error))
            }
            Err(error) if code(&error) == Some("NoSuchKey") => Ok(None),
            // The object ends before the range.
            Err(error) if code(&error) == Some("InvalidRange") || status(&error) == Some(416) => Ok(Some(Bytes::new())),
            Err(error) => Err(self.failed(format!("read {key}"), READ_ACTIONS, &error)),
        }
    }

    async fn checksum(&self, key: &ObjectKey) -> Result<Option<(u64, Checksum)>, LakeError> {
        let request = self.client.head_object().bucket(self.bucket()).key(self.full(key));
        let request = request.checksum_mode(ChecksumMode::Enabled).set_expected_bucket_owner(self.owner());
        let head = match one_request(request.send()).await {
            Ok(head) => head,
            // A response to HEAD has no body, and so no code.
            Err(error) if status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(self.failed(format!("read the checksum of {key}"), READ_ACTIONS, &error)),
        };
        let whole = head.checksum_type.as_ref().is_none_or(|kind| *kind == ChecksumType::FullObject);
        let checksum = head.checksum_crc64_nvme.as_deref().filter(|_| whole).and_then(from_base64);
        let bytes = head.content_length.and_then(|bytes| u64::try_from(bytes).ok());
        match (bytes, checksum) {
            (Some(bytes), Some(checksum)) => Ok(Some((bytes, checksum))),
            // Another program wrote or copied the object: S3 has another checksum of it, or none.
            _ => self.read_checksum(key).await,
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, LakeError> {
        self.list_after(prefix, "").await
    }

    async fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<ObjectInfo>, LakeError> {
        let after = (!after.is_empty()).then(|| format!("{}{after}", self.location.prefix()));
        let mut objects = Vec::new();
        let mut token = None;
        loop {
            let request = self
                .list_request(prefix)
                .encoding_type(EncodingType::Url)
                .max_keys(self.page)
                .set_start_after(after.clone())
                .set_continuation_token(token.take());
            let page = one_request(request.send()).await.map_err(|error| {
                self.failed(format!("list '{prefix}' in {}", self.location), "s3:ListBucket", &error)
            })?;
            for object in page.contents.unwrap_or_default() {
                if let Some(key) = object.key.and_then(|key| self.relative(&decode(&key))) {
                    let bytes = object.size.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
                    let modified_ms = millis(object.last_modified.as_ref());
                    let class = object.storage_class.as_ref().map_or("", |class| class.as_str());
                    let storage_class = Some(StorageClass::of(class));
                    objects.push(ObjectInfo { key, bytes, modified_ms, storage_class });
                }
            }
            token = page.next_continuation_token;
            if page.is_truncated != Some(true) || token.is_none() {
                return Ok(objects);
            }
        }
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), LakeError> {
        match self.delete_request(key).send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == Some("NoSuchKey") => Ok(()),
            Err(error) => Err(self.failed(format!("delete {key}"), "s3:DeleteObject", &error)),
        }
    }
}

/// Whether an object with that key exists.
fn is_taken<E: ProvideErrorMetadata>(error: &Failure<E>) -> bool {
    code(error) == Some("PreconditionFailed") || status(error) == Some(412)
}

/// A download that ended early, or whose bytes do not match their checksum.
fn cut_off(key: &ObjectKey, error: &(dyn std::error::Error + 'static)) -> LakeError {
    LakeError::Unavailable { operation: format!("read {key}"), problem: error_chain(error) }
}

/// Milliseconds since 1970. A time that S3 does not return counts as far in the future, so that nothing seems old.
fn millis(time: Option<&DateTime>) -> i64 {
    time.and_then(|time| time.to_millis().ok()).unwrap_or(i64::MAX)
}

/// As S3 writes it: big-endian, in base64.
fn to_base64(checksum: Checksum) -> String {
    base64::encode(checksum.0.to_be_bytes())
}

fn from_base64(text: &str) -> Option<Checksum> {
    let bytes = base64::decode(text).ok()?;
    Some(Checksum(u64::from_be_bytes(bytes.try_into().ok()?)))
}

/// Decodes a key as S3 lists it with `encoding-type=url`: percent-encoded as in a form, so that a space is `+`.
fn decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// The content type by the key's ending. Compressed lines are files and have no content encoding, so clients do not
/// decompress them.
fn content_type(key: &ObjectKey) -> &'static str {
    match key.as_str().rsplit('.').next() {
        Some("parquet") => "application/vnd.apache.parquet",
        Some("json") => "application/json",
        Some("ndjson") => "application/x-ndjson",
        Some("gz") => "application/gzip",
        Some("zst") => "application/zstd",
        _ => "application/octet-stream",
    }
}
