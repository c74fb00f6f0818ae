//! Trying the permissions on the bucket, with the requests that a worker sends.
//!
//! Owns: which requests are tried. Nothing stays in the bucket: an upload is aborted, and a small object is sent with a checksum that
//! is not its own, so that S3 refuses it once everything else was allowed. Does not own: what is in a request (`requests`), what an
//! answer shows (`aws::permissions`).

use bytes::Bytes;

use crate::aws::permissions::{PROBE, Trials};
use crate::lake::s3::{S3Store, WRITE_ADVICE};
use crate::lake::{Checksum, LakeError, ObjectKey, UploadId};

/// The action that is tried first.
pub(super) const LIST: &str = "s3:ListBucket";
/// What S3 says to a checksum that is not that of the bytes, or where there is such an object.
const BAD_CHECKSUM: [&str; 4] = ["BadDigest", "InvalidDigest", "PreconditionFailed", "XAmzContentChecksumMismatch"];

impl S3Store {
    /// Tries what a worker will do with the lake. If opening it has failed, and for another reason than a permission or a missing
    /// bucket, that failure is reported.
    pub(super) async fn try_permissions(&self, trials: &mut Trials, opening: Option<LakeError>) {
        let (whole, below) =
            (format!("s3://{}", self.bucket()), format!("s3://{}/{}*", self.bucket(), self.location.prefix()));
        let absent = ("NoSuchBucket", "the bucket (shardlake init makes it)");
        let Ok(key) = ObjectKey::new(PROBE) else { return };
        trials.note(LIST, &whole, self.list_request("").max_keys(1).send().await, &[], absent);
        if let Some(error) = opening.filter(|_| trials.last_failed()) {
            return trials.fail(LIST, &whole, error.to_string());
        }
        if !trials.last_exists() {
            return;
        }
        let listed = self.list_uploads_request().max_uploads(1).send().await;
        trials.note("s3:ListBucketMultipartUploads", &whole, listed, &[], absent);
        trials.note("s3:GetObject", &below, self.get_request(&key).send().await, &["NoSuchKey"], absent);
        let put = "s3:PutObject";
        let begun = self.begin_request(&key).send().await;
        let upload = begun.as_ref().ok().and_then(|answer| answer.upload_id()).map(|id| UploadId(id.to_owned()));
        trials.note(put, &below, begun, &[], absent);
        trials.advise_if_denied(WRITE_ADVICE);
        if let Some(upload) = upload {
            // With a KMS key, a part needs more than the beginning does.
            let part = self.part_request(&key, &upload, 1, Bytes::from_static(b"{}")).send().await;
            trials.note("s3:PutObject (of a part)", &below, part, &[], absent);
            let aborted = self.abort_request(&key, &upload).send().await;
            trials.note("s3:AbortMultipartUpload", &below, aborted, &["NoSuchUpload"], absent);
        }
        let written = self.put_request(&key, Bytes::from_static(b"{}"), Checksum::of(b"another")).send().await;
        trials.note("s3:PutObject (of a small object)", &below, written, &BAD_CHECKSUM, absent);
        trials.advise_if_denied(WRITE_ADVICE);
        // Also removes the small object where a stand-in for S3 does not compare the checksum.
        trials.note("s3:DeleteObject", &below, self.delete_request(&key).send().await, &["NoSuchKey"], absent);
    }
}
