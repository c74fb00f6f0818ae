//! What a failed call of Kinesis means.
//!
//! Owns: distinguishing temporary failures, throttling, and failures that last until somebody acts. Does not own: how each is
//! handled. A message has the service's words about the request, and never a record's contents.

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::types::error::SubscribeToShardEventStreamError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::event_stream::RawMessage;
use checkpoints::{answer_is_retryable, error_chain, is_retryable};

use crate::retry::Retryable;
use crate::source::SourceError;

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Too many calls or too many bytes at the moment.
    #[error("{0}")]
    Throttled(String),
    /// The iterator, or the token of a next page, is too old.
    #[error("{0}")]
    Expired(String),
    /// There was no response, or the service reports a problem of its own.
    #[error("{0}")]
    Unavailable(String),
    /// The resource is being changed, or is used by another call.
    #[error("{0}")]
    InUse(String),
    /// The resource does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The stream no longer has the shard.
    #[error("{0}")]
    Forgotten(String),
    /// The service rejects an argument, such as a position that is not in the shard.
    #[error("{0}")]
    Invalid(String),
    /// The service refuses until somebody acts.
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    /// The failure of a call of `operation`.
    pub(super) fn of<E>(operation: &str, error: &SdkError<E, HttpResponse>) -> Failure
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let SdkError::ServiceError(service) = error else {
            let problem = format!("{operation}: {}", error_chain(error));
            return if is_retryable(error) { Failure::Unavailable(problem) } else { Failure::Refused(problem) };
        };
        let status = service.raw().status();
        let (code, message) = (service.err().code(), service.err().message());
        Failure::of_code(operation, code, message, status.as_u16())
    }

    /// The failure of a subscription.
    pub(super) fn of_event(error: &SdkError<SubscribeToShardEventStreamError, RawMessage>) -> Failure {
        let operation = "SubscribeToShard";
        match error {
            SdkError::ServiceError(event) => {
                let (code, message) = (event.err().code(), event.err().message());
                Failure::of_code(operation, code, message, 500)
            }
            error => Failure::Unavailable(format!("{operation}: {}", error_chain(error))),
        }
    }

    /// The meaning of an error code.
    pub(super) fn of_code(operation: &str, code: Option<&str>, message: Option<&str>, status: u16) -> Failure {
        let code = code.unwrap_or("an error without a code");
        let said = message.unwrap_or("no message");
        let message = format!("{operation}: {code}: {said}");
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
            _ if answer_is_retryable(status, code, said) => Failure::Unavailable(message),
            _ => Failure::Refused(message),
        }
    }

    /// The same as an error of the source.
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
