//! What S3's failures mean: which may pass, and what to do about the others.
//!
//! Owns: telling a service that fails (`Unavailable`: throttled, 5xx, no answer, a conflict that is being settled) from a
//! service that refuses (`Refused`: no permission, no bucket, wrong region, bad credentials, a bad request), and the sentence
//! for either. Does not own: answers that are no failures, as a key that is taken or an upload that is gone.
//!
//! A text has what S3 says (code, message, id of the request) and never a header, a signature or a key of the account.

use std::error::Error;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use checkpoints::error_chain;

use crate::lake::LakeError;
use crate::lake::s3::S3Place;

/// A call of S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// What was asked for, with its key.
    pub(super) operation: String,
    /// The IAM actions that it needs.
    pub(super) actions: String,
}

/// Failures that the same request may not meet again, by code. Others of them have a status of 5xx.
const PASSING: [&str; 18] = [
    // A digest that does not match is checked against bytes that were read just before: they changed on the way.
    "BadDigest",
    "BandwidthLimitExceeded",
    // Another request about the same key is being settled.
    "ConditionalRequestConflict",
    "InternalError",
    "InternalFailure",
    "KMS.InternalException",
    "KMS.KeyUnavailableException",
    "KMS.ThrottlingException",
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "XAmzContentSHA256Mismatch",
];

/// Credentials that S3 does not take, by code.
const CREDENTIALS: [&str; 9] = [
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
];

/// A bucket that is elsewhere, by code.
const REGION: [&str; 4] =
    ["AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect", "TemporaryRedirect"];

/// The code of S3's answer; `None` where there was no answer, or one without a body, as to HEAD.
pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// The status of S3's answer.
pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// A failed call, told.
pub(super) fn lake_error<E>(call: Call, place: &S3Place, error: &SdkError<E, HttpResponse>) -> LakeError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let operation = call.operation;
    let unavailable = |problem: String, operation: String| LakeError::Unavailable { operation, problem };
    match error {
        SdkError::ServiceError(_) => {}
        SdkError::ConstructionFailure(_) => return LakeError::Refused { operation, problem: error_chain(error) },
        SdkError::DispatchFailure(failure) => {
            let problem = error_chain(error);
            // The SDK makes a failure to sign one of sending.
            if credentials_are_missing(error) {
                let problem = format!("there are no usable AWS credentials ({problem}); {GIVE_CREDENTIALS}");
                return LakeError::Refused { operation, problem };
            }
            return if failure.is_user() {
                LakeError::Refused { operation, problem }
            } else {
                unavailable(problem, operation)
            };
        }
        // Timed out, or cut off: it may have taken effect.
        _ => return unavailable(error_chain(error), operation),
    }
    let status = status(error).unwrap_or_default();
    let code = code(error).unwrap_or_default();
    let said = said(error);
    if PASSING.contains(&code) || status >= 500 || status == 429 || status == 408 {
        return unavailable(said, operation);
    }
    let S3Place { bucket, prefix } = place;
    let problem = if CREDENTIALS.contains(&code) {
        format!("{said}; {GIVE_CREDENTIALS}")
    } else if REGION.contains(&code) || (300..400).contains(&status) {
        match header(error, "x-amz-bucket-region") {
            Some(region) => format!("{said}; bucket '{bucket}' is in {region}: set AWS_REGION={region}"),
            None => format!("{said}; set AWS_REGION to the region of bucket '{bucket}'"),
        }
    } else {
        match code {
            "RequestTimeTooSkewed" => format!("{said}; set this machine's clock"),
            "NoSuchBucket" => format!("{said}; there is no bucket '{bucket}': make it, or name another lake"),
            "EntityTooSmall" => format!("{said}; every part but the last must have 5 MiB"),
            "NoSuchUpload" => format!("{said}; the upload was aborted or completed, perhaps by a lifecycle rule"),
            _ if code == "AccessDenied" || status == 403 => {
                format!("{said}; allow {} on bucket '{bucket}', keys '{prefix}*'", call.actions)
            }
            _ if code.starts_with("KMS.") => format!("{said}; see to the KMS key of bucket '{bucket}'"),
            "" if status == 400 => {
                format!("{said}; that is a wrong region or bad credentials: set AWS_REGION, or {GIVE_CREDENTIALS}")
            }
            _ => said,
        }
    };
    LakeError::Refused { operation, problem }
}

/// What to do about credentials.
const GIVE_CREDENTIALS: &str = "renew the session, or give credentials by AWS_PROFILE, by the environment or by a role";

/// S3's own words.
fn said<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> String {
    let metadata = error.as_service_error();
    let code = metadata.and_then(ProvideErrorMetadata::code);
    let message = metadata.and_then(ProvideErrorMetadata::message).filter(|message| !message.is_empty());
    let mut said = match (code, status(error)) {
        (Some(code), _) => format!("S3 says {code}"),
        (None, Some(status)) => format!("S3 answers {status}"),
        (None, None) => "S3 fails".to_owned(),
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

fn header<'a, E>(error: &'a SdkError<E, HttpResponse>, name: &'static str) -> Option<&'a str> {
    error.raw_response().and_then(|response| response.headers().get(name))
}

/// Whether there are no credentials, or none that can be read; a service of credentials that fails may be back later.
/// The SDK's error type is in a crate of its own: its texts are what is known here, and a test holds them.
fn credentials_are_missing(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if text == "the credential provider was not enabled"
            || text == "the credentials provider was not properly configured"
        {
            return true;
        }
        next = error.source();
    }
    false
}
