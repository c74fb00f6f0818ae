//! The requests about objects, complete with everything that the configuration says about them.
//!
//! Owns: what is in a request: encryption, tags, storage class, the bucket's owner, checksums. So a trial of a permission sends what a
//! worker sends, and a policy of the bucket judges both alike. Does not own: sending them, and what an answer means.

use aws_sdk_s3::operation::abort_multipart_upload::builders::AbortMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::create_multipart_upload::builders::CreateMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::delete_object::builders::DeleteObjectFluentBuilder;
use aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder;
use aws_sdk_s3::operation::list_multipart_uploads::builders::ListMultipartUploadsFluentBuilder;
use aws_sdk_s3::operation::list_objects_v2::builders::ListObjectsV2FluentBuilder;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::operation::upload_part::builders::UploadPartFluentBuilder;
use aws_sdk_s3::operation::upload_part_copy::builders::UploadPartCopyFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, ServerSideEncryption};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::lake::s3::{Encryption, S3Store, content_type, to_base64};
use crate::lake::{Checksum, ObjectKey, UploadId};

/// What is encoded in the name of an object that is copied.
const KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

impl S3Store {
    /// Lists keys that begin with `prefix`.
    pub(super) fn list_request(&self, prefix: &str) -> ListObjectsV2FluentBuilder {
        let prefix = format!("{}{prefix}", self.location.prefix());
        let request = self.client.list_objects_v2().bucket(self.bucket()).prefix(prefix);
        request.set_expected_bucket_owner(self.owner())
    }

    /// Lists uploads.
    pub(super) fn list_uploads_request(&self) -> ListMultipartUploadsFluentBuilder {
        let request = self.client.list_multipart_uploads().bucket(self.bucket()).prefix(self.location.prefix());
        request.set_expected_bucket_owner(self.owner())
    }

    /// Reads an object.
    pub(super) fn get_request(&self, key: &ObjectKey) -> GetObjectFluentBuilder {
        let request = self.client.get_object().bucket(self.bucket()).key(self.full(key));
        request.set_expected_bucket_owner(self.owner())
    }

    /// Begins the upload of a data object.
    pub(super) fn begin_request(&self, key: &ObjectKey) -> CreateMultipartUploadFluentBuilder {
        let (encryption, kms_key, bucket_key) = self.encryption();
        let request = self.client.create_multipart_upload().bucket(self.bucket()).key(self.full(key));
        request
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .set_bucket_key_enabled(bucket_key)
            .set_storage_class(self.options.storage_class.clone())
            .set_tagging(self.options.tagging.clone())
            .set_expected_bucket_owner(self.owner())
            .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
            .checksum_type(ChecksumType::FullObject)
            .content_type(content_type(key))
    }

    /// Uploads a part.
    pub(super) fn part_request(
        &self,
        key: &ObjectKey,
        id: &UploadId,
        number: i32,
        bytes: Bytes,
    ) -> UploadPartFluentBuilder {
        let request = self.client.upload_part().bucket(self.bucket()).key(self.full(key)).upload_id(&id.0);
        request
            .part_number(number)
            .checksum_crc64_nvme(to_base64(Checksum::of(&bytes)))
            .body(ByteStream::from(bytes))
            .set_expected_bucket_owner(self.owner())
    }

    /// Uploads a part that S3 copies from an object, or from `range` (offset and length) of it.
    pub(super) fn copy_part_request(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        id: &UploadId,
        number: i32,
        range: Option<(u64, u64)>,
    ) -> UploadPartCopyFluentBuilder {
        let source = format!("{}/{}", self.bucket(), self.full(from));
        let range = range.map(|(offset, length)| format!("bytes={offset}-{}", offset + length - 1));
        let request = self.client.upload_part_copy().bucket(self.bucket()).key(self.full(to)).upload_id(&id.0);
        request
            .part_number(number)
            .copy_source(utf8_percent_encode(&source, KEY).to_string())
            .set_copy_source_range(range)
            .set_expected_bucket_owner(self.owner())
            .set_expected_source_bucket_owner(self.owner())
    }

    /// Aborts an upload.
    pub(super) fn abort_request(&self, key: &ObjectKey, id: &UploadId) -> AbortMultipartUploadFluentBuilder {
        let request = self.client.abort_multipart_upload().bucket(self.bucket()).key(self.full(key)).upload_id(&id.0);
        request.set_expected_bucket_owner(self.owner())
    }

    /// Writes a small object, unless there is one.
    pub(super) fn put_request(&self, key: &ObjectKey, bytes: Bytes, checksum: Checksum) -> PutObjectFluentBuilder {
        let (encryption, kms_key, bucket_key) = self.encryption();
        let request = self.client.put_object().bucket(self.bucket()).key(self.full(key));
        request
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .set_bucket_key_enabled(bucket_key)
            .set_tagging(self.options.tagging.clone())
            .set_expected_bucket_owner(self.owner())
            .if_none_match("*")
            .content_type(content_type(key))
            .checksum_crc64_nvme(to_base64(checksum))
            .body(ByteStream::from(bytes))
    }

    /// Deletes an object.
    pub(super) fn delete_request(&self, key: &ObjectKey) -> DeleteObjectFluentBuilder {
        let request = self.client.delete_object().bucket(self.bucket()).key(self.full(key));
        request.set_expected_bucket_owner(self.owner())
    }

    fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>, Option<bool>) {
        match &self.options.encryption {
            Encryption::BucketDefault => (None, None, None),
            Encryption::Aes256 => (Some(ServerSideEncryption::Aes256), None, None),
            Encryption::Kms { key, bucket_key } => (Some(ServerSideEncryption::AwsKms), key.clone(), Some(*bucket_key)),
        }
    }
}
