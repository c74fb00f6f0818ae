//! What a failed request to AWS means, whichever service it was sent to: whether the same request may succeed later.
//!
//! Owns: the one list of codes that all services share, above all those of expired credentials, and recognizing a request that was never
//! sent because something is missing here. Does not own: what only one service says (`dynamodb/errors.rs`, and the files of the other
//! services in the worker), or how long a request is retried.
//!
//! | what happened | may it pass? |
//! |---|---|
//! | no connection, no response in time, a response that was cut off | yes |
//! | a status of 5xx, 408 or 429 | yes |
//! | throttling | yes |
//! | credentials that have expired: the SDK renews them, and until then the old ones are refused | yes |
//! | a signature whose time is wrong: the SDK or the machine corrects its clock | yes |
//! | no credentials or no region at all | no |
//! | anything else that the service says | no |

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

/// Codes of credentials that have expired, and of signatures whose time is wrong.
pub const EXPIRED_CODES: [&str; 6] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "RequestInTheFuture",
    "RequestTimeTooSkewed",
    "TokenRefreshRequired",
];

/// Codes of throttling, and of a service that has failed for the moment.
const BUSY_CODES: [&str; 23] = [
    "BandwidthLimitExceeded",
    "InternalError",
    "InternalFailure",
    "InternalFailureException",
    "InternalServerError",
    "KMSThrottlingException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceeded",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingError",
    "ThrottlingException",
    "TooManyRequestsException",
];

/// What the message of an `InvalidSignatureException` begins with if only the time of the signature is wrong.
const SIGNATURE_TIMES: [&str; 2] = ["Signature expired", "Signature not yet current"];

/// A setting without which no request can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingSetting {
    /// There are no credentials, or none that can be read.
    Credentials,
    /// There is no region.
    Region,
}

/// What the SDK says then. Its error types are in other crates, so its texts are compared; tests check them. A credential service that
/// fails is another case: it may be back later.
const MISSING: [(&str, MissingSetting); 5] = [
    ("the credential provider was not enabled", MissingSetting::Credentials),
    ("the credentials provider was not properly configured", MissingSetting::Credentials),
    ("failed to load the cached SSO token", MissingSetting::Credentials),
    ("missing signing region", MissingSetting::Region),
    ("A region must be set", MissingSetting::Region),
];

/// What the SDK says if a provider of credentials has failed.
const LOADING: &str = "an error occurred while loading credentials";

/// Whether the same request may succeed later, by what the service has answered.
#[must_use]
pub fn answer_is_retryable(status: u16, code: &str, message: &str) -> bool {
    status >= 500
        || status == 408
        || status == 429
        || EXPIRED_CODES.contains(&code)
        || BUSY_CODES.contains(&code)
        || (code == "InvalidSignatureException" && SIGNATURE_TIMES.iter().any(|time| message.starts_with(time)))
}

/// The setting without which a request could not be sent, if that is why it failed.
#[must_use]
pub fn missing_setting(error: &(dyn Error + 'static)) -> Option<MissingSetting> {
    let mut next = Some(error);
    let mut is_loading = false;
    while let Some(error) = next {
        let text = error.to_string();
        if let Some((_, missing)) = MISSING.iter().find(|(words, _)| text.starts_with(words)) {
            return Some(*missing);
        }
        is_loading |= text.starts_with(LOADING);
        // A file that the credentials are read from does not exist, such as the token of a web identity.
        let not_found = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        if is_loading && error.downcast_ref::<std::io::Error>().is_some_and(not_found) {
            return Some(MissingSetting::Credentials);
        }
        next = error.source();
    }
    None
}

/// Whether the same request may succeed later.
#[must_use]
pub fn is_retryable<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::ServiceError(refused) => {
            let (code, message) = (refused.err().code(), refused.err().message());
            answer_is_retryable(refused.raw().status().as_u16(), code.unwrap_or_default(), message.unwrap_or_default())
        }
        SdkError::ConstructionFailure(_) => false,
        SdkError::DispatchFailure(failure) => !failure.is_user() && missing_setting(error).is_none(),
        // It timed out or was cut off, and may have taken effect.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expired_credentials_and_wrong_times_may_pass_and_other_refusals_do_not() {
        for code in EXPIRED_CODES.iter().chain(&BUSY_CODES) {
            assert!(answer_is_retryable(400, code, ""), "{code}");
        }
        let expired = "Signature expired: 20250113T103000Z is now earlier than 20250113T103500Z";
        assert!(answer_is_retryable(400, "InvalidSignatureException", expired));
        assert!(!answer_is_retryable(400, "InvalidSignatureException", "The signature does not match"));
        for code in ["AccessDenied", "AccessDeniedException", "UnrecognizedClientException", "NoSuchBucket", ""] {
            assert!(!answer_is_retryable(403, code, "") && answer_is_retryable(503, code, ""), "{code}");
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<dyn Error>>);

    #[test]
    fn a_cause_that_something_is_missing_is_found_at_any_depth() {
        let chain = |last| Link("dispatch failure", Some(Box::new(Link("other", Some(Box::new(Link(last, None)))))));
        for (words, missing) in MISSING {
            assert_eq!(missing_setting(&chain(words)), Some(missing), "{words}");
        }
        assert_eq!(missing_setting(&chain(LOADING)), None);
        let file =
            |kind| Link("dispatch failure", Some(Box::new(Link(LOADING, Some(Box::new(std::io::Error::from(kind)))))));
        let [absent, refused] = [std::io::ErrorKind::NotFound, std::io::ErrorKind::ConnectionRefused].map(file);
        assert_eq!(missing_setting(&absent), Some(MissingSetting::Credentials));
        assert_eq!(missing_setting(&refused), None);
    }
}
