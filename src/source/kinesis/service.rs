//! What a failed call of Kinesis means.
//!
//! Owns: telling apart what passes, what is too much, and what stays so until somebody does something. Does not own: what is
//! done about it. A message holds the service's words about the request, and never a record's contents.

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::types::error::SubscribeToShardEventStreamError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::event_stream::RawMessage;
use checkpoints::error_chain;

use crate::retry::Retryable;
use crate::source::SourceError;

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Too many calls, or too many bytes, for now.
    #[error("{0}")]
    Throttled(String),
    /// The iterator, or the token of a next page, is too old.
    #[error("{0}")]
    Expired(String),
    /// No answer, or one that says that the service has a problem.
    #[error("{0}")]
    Unavailable(String),
    /// What was named is being changed, or is used by another call.
    #[error("{0}")]
    InUse(String),
    /// What was named is not there.
    #[error("{0}")]
    NotFound(String),
    /// The stream has no such shard any more.
    #[error("{0}")]
    Forgotten(String),
    /// The service does not accept an argument: a position that is none in this shard, say.
    #[error("{0}")]
    Invalid(String),
    /// The service refuses until somebody does something.
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    /// What a call of `operation` failed of.
    pub(super) fn of<E>(operation: &str, error: &SdkError<E, HttpResponse>) -> Failure
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let SdkError::ServiceError(service) = error else {
            let problem = format!("{operation}: {}", error_chain(error));
            return match error {
                SdkError::ConstructionFailure(_) => Failure::Refused(problem),
                _ => Failure::Unavailable(problem),
            };
        };
        let status = service.raw().status();
        let (code, message) = (service.err().code(), service.err().message());
        Failure::of_code(operation, code, message, status.is_server_error())
    }

    /// What a subscription failed of.
    pub(super) fn of_event(error: &SdkError<SubscribeToShardEventStreamError, RawMessage>) -> Failure {
        let operation = "SubscribeToShard";
        match error {
            SdkError::ServiceError(event) => {
                let (code, message) = (event.err().code(), event.err().message());
                Failure::of_code(operation, code, message, true)
            }
            error => Failure::Unavailable(format!("{operation}: {}", error_chain(error))),
        }
    }

    /// What an error of this code means.
    pub(super) fn of_code(operation: &str, code: Option<&str>, message: Option<&str>, server: bool) -> Failure {
        let code = code.unwrap_or("an error without a code");
        let message = format!("{operation}: {code}: {}", message.unwrap_or("no message"));
        match code {
            "ProvisionedThroughputExceededException"
            | "LimitExceededException"
            | "KMSThrottlingException"
            | "ThrottlingException"
            | "Throttling"
            | "RequestLimitExceeded"
            | "TooManyRequestsException" => Failure::Throttled(message),
            "ExpiredIteratorException" | "ExpiredNextTokenException" => Failure::Expired(message),
            "ResourceInUseException" => Failure::InUse(message),
            "ResourceNotFoundException" => Failure::NotFound(message),
            "InvalidArgumentException" | "ValidationException" => Failure::Invalid(message),
            "AccessDeniedException" | "AccessDenied" => {
                Failure::Refused(format!("{message} (the worker's role needs the permission kinesis:{operation})"))
            }
            "KMSAccessDeniedException"
            | "KMSDisabledException"
            | "KMSInvalidStateException"
            | "KMSNotFoundException"
            | "KMSOptInRequired" => {
                Failure::Refused(format!("{message} (the worker's role needs kms:Decrypt on the stream's key)"))
            }
            "InternalFailure" | "InternalFailureException" | "ServiceUnavailable"
            // Credentials are renewed by the SDK; until then the old ones may be refused.
            | "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" => Failure::Unavailable(message),
            _ if server => Failure::Unavailable(message),
            _ => Failure::Refused(message),
        }
    }

    /// The error of a source that this is.
    pub(super) fn at(self, place: &str) -> SourceError {
        let (place, problem) = (place.to_owned(), self.to_string());
        if self.is_retryable() {
            SourceError::Unavailable { place, problem }
        } else {
            SourceError::Unreadable { place, problem }
        }
    }
}

impl Retryable for Failure {
    fn is_retryable(&self) -> bool {
        match self {
            Failure::Throttled(_) | Failure::Expired(_) | Failure::Unavailable(_) | Failure::InUse(_) => true,
            Failure::NotFound(_) | Failure::Forgotten(_) | Failure::Invalid(_) | Failure::Refused(_) => false,
        }
    }
}
