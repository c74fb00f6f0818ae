//! What S3's failures mean: which are temporary, and what to do about the others.
//!
//! Owns: telling a service that fails (`Unavailable`: throttled, 5xx, no response, a conflict that is being resolved) from a
//! service that refuses (`Refused`: no permission, no bucket, wrong region, bad credentials, a bad request), and the sentence
//! for either. Does not own: responses that are not failures, such as a key that is taken or an upload that is gone.
//!
//! A text has what S3 says (code, message, request id), and never a header, a signature or a key of the account.

use std::error::Error;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use checkpoints::{EXPIRED_CODES, MissingSetting, error_chain, is_retryable, missing_setting};

use crate::lake::LakeError;
use crate::lake::s3::S3Location;

/// A call of S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// What was requested, with its key.
    pub(super) operation: String,
    /// The IAM actions that it needs.
    pub(super) actions: String,
}

/// Codes of temporary failures, besides those of every service.
const TEMPORARY: [&str; 7] = [
    // The digest was computed from the bytes that were sent: they changed on the way.
    "BadDigest",
    // Another request for the same key is in progress.
    "ConditionalRequestConflict",
    "KMS.InternalException",
    "KMS.KeyUnavailableException",
    "KMS.ThrottlingException",
    "OperationAborted",
    "XAmzContentSHA256Mismatch",
];

/// Codes of credentials that S3 does not accept.
const CREDENTIALS: [&str; 6] = [
    "AuthFailure",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

/// Codes of a bucket in another region.
const REGION: [&str; 4] =
    ["AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect", "TemporaryRedirect"];

/// The code of S3's response; `None` if there was no response, or one without a body, as to HEAD.
pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// The status of S3's response.
pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// The error of a failed call.
pub(super) fn lake_error<E>(call: Call, location: &S3Location, error: &SdkError<E, HttpResponse>) -> LakeError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let operation = call.operation;
    if !matches!(error, SdkError::ServiceError(_)) {
        let problem = error_chain(error);
        // The SDK reports a failure to sign as a failure to send.
        if is_retryable(error) {
            return LakeError::Unavailable { operation, problem };
        }
        let problem = match missing_setting(error) {
            Some(MissingSetting::Credentials) => {
                format!("there are no usable AWS credentials ({problem}); {GIVE_CREDENTIALS}")
            }
            Some(MissingSetting::Region) => "no region is set: set AWS_REGION".to_owned(),
            None => problem,
        };
        return LakeError::Refused { operation, problem };
    }
    let status = status(error).unwrap_or_default();
    let code = code(error).unwrap_or_default();
    let said = said(error);
    // A response to HEAD has no code: 400 may be for credentials that have expired.
    let is_head_400 = code.is_empty() && status == 400;
    if TEMPORARY.contains(&code) || is_retryable(error) || is_head_400 {
        let problem = match code {
            "RequestTimeTooSkewed" => format!("{said}; set this machine's clock"),
            _ if EXPIRED_CODES.contains(&code) => format!("{said}; {GIVE_CREDENTIALS}"),
            "" if is_head_400 => {
                format!("{said}; the region or the credentials are wrong: set region in [lake], or {GIVE_CREDENTIALS}")
            }
            _ => said,
        };
        return LakeError::Unavailable { operation, problem };
    }
    let (bucket, prefix) = (location.bucket(), location.prefix());
    let problem = if CREDENTIALS.contains(&code) {
        format!("{said}; {GIVE_CREDENTIALS}")
    } else if REGION.contains(&code) || (300..400).contains(&status) {
        match header(error, BUCKET_REGION) {
            Some(region) => format!("{said}; bucket '{bucket}' is in {region}: set region = \"{region}\" in [lake]"),
            None => format!("{said}; set region in [lake] to the region of bucket '{bucket}'"),
        }
    } else {
        match code {
            "NoSuchBucket" => format!("{said}; there is no bucket '{bucket}': create it, or use another lake"),
            "EntityTooSmall" => format!("{said}; every part except the last must have at least 5 MiB"),
            "NoSuchUpload" => format!("{said}; the upload was aborted or completed, perhaps by a lifecycle rule"),
            _ if code == "AccessDenied" || status == 403 => {
                let advice = if call.actions.contains("s3:PutObject") { WRITE_ADVICE } else { OWNER_ADVICE };
                format!("{said}; allow {} on bucket '{bucket}', keys '{prefix}*'; {advice}", call.actions)
            }
            _ if code.starts_with("KMS.") => format!("{said}; check the KMS key of bucket '{bucket}'"),
            _ => said,
        }
    };
    LakeError::Refused { operation, problem }
}

/// What else may be wrong where S3 denies a write: a policy that wants a header denies requests without it.
pub(super) const WRITE_ADVICE: &str = "if a policy of the bucket denies it, set encryption, kms_key, tags, storage_class or \
                                       bucket_owner in [lake] as the policy wants";
/// What else may be wrong where S3 denies another request.
const OWNER_ADVICE: &str = "if the bucket is another account's, correct bucket_owner in [lake]";
/// The header by which S3 says where a bucket is.
pub(super) const BUCKET_REGION: &str = "x-amz-bucket-region";

/// What to do about credentials.
const GIVE_CREDENTIALS: &str = "renew the session, or give credentials by AWS_PROFILE, by the environment or by a role";

/// S3's own words.
fn said<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> String {
    let metadata = error.as_service_error();
    let code = metadata.and_then(ProvideErrorMetadata::code);
    let message = metadata.and_then(ProvideErrorMetadata::message).filter(|message| !message.is_empty());
    let mut said = match (code, status(error)) {
        (Some(code), _) => format!("S3 returned {code}"),
        (None, Some(status)) => format!("S3 returned status {status}"),
        (None, None) => "S3 failed".to_owned(),
    };
    if let Some(message) = message {
        said.push_str(": ");
        said.push_str(message.trim_end_matches('.'));
    }
    if let Some(request) = header(error, "x-amz-request-id") {
        said.push_str(&format!(" (request {request})"));
    }
    said
}

/// A header of S3's response.
pub(super) fn header<'a, E>(error: &'a SdkError<E, HttpResponse>, name: &'static str) -> Option<&'a str> {
    error.raw_response().and_then(|response| response.headers().get(name))
}
