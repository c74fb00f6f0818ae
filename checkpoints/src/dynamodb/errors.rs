//! What an error of DynamoDB means for the caller of the store.
//!
//! A condition that does not hold is not an error and never gets here (`mod.rs`). Everything else becomes one of the four
//! [`StoreError`]s. It depends on whether the same call may succeed later, and whether somebody must do something first:
//!
//! | what happened | error |
//! |---|---|
//! | no answer in time, no connection, 5xx, throttling, another transaction on the same rows | `Unavailable` |
//! | expired credentials, which the SDK renews | `Unavailable` |
//! | a request that breaks one of DynamoDB's rules | `Invalid` |
//! | no permission, no such table, refused credentials, anything unknown | `Unusable` |
//!
//! The messages name the operation, the table and, for a missing permission, the IAM action. They contain what AWS answered,
//! but neither requests nor credentials.

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::CancellationReason;

use crate::aws::{MissingSetting, answer_is_retryable, is_retryable, missing_setting};
use crate::error::{StoreError, error_chain};

/// The codes of errors that may pass, besides those of every service.
const PASSING: [&str; 4] = [
    "ReplicatedWriteConflictException",
    "TransactionConflict",
    "TransactionConflictException",
    "TransactionInProgressException",
];

fn passes(status: u16, code: &str, message: &str) -> bool {
    PASSING.contains(&code) || answer_is_retryable(status, code, message)
}

/// What a request is for, for the messages of its errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    /// What the caller asked for, as in "take shard 0 of stream orders".
    pub(super) operation: &'a str,
    /// The IAM action.
    pub(super) action: &'static str,
    pub(super) table: &'a str,
}

impl Request<'_> {
    /// The error of a failed request, for the caller.
    pub(super) fn explain<E>(&self, error: &SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(refused) => {
                let status = refused.raw().status().as_u16();
                let code = refused.err().code().unwrap_or("no code");
                let message = refused.err().message().unwrap_or("no message");
                self.judge(status, code, message)
            }
            _ if is_retryable(error) => self.unavailable(&error_chain(error)),
            _ => match missing_setting(error) {
                Some(MissingSetting::Region) => self.unusable("no region is set: set AWS_REGION"),
                _ => self.unusable(&error_chain(error)),
            },
        }
    }

    /// The error of a cancelled transaction in which no condition failed, from its reasons.
    pub(super) fn explain_cancelled(&self, reasons: &[CancellationReason]) -> StoreError {
        let coded =
            reasons.iter().filter_map(|reason| Some((reason.code()?, reason.message().unwrap_or("no message"))));
        let message: Vec<(&str, &str)> = coded.filter(|(code, _)| *code != "None").collect();
        // A reason that stays takes precedence over one that may pass.
        let lasting = message.iter().find(|(code, message)| !passes(400, code, message));
        match lasting.or(message.first()) {
            Some((code, message)) => self.judge(400, code, message),
            None => self.unavailable("the transaction was cancelled and no reason was given"),
        }
    }

    pub(super) fn unavailable(&self, problem: &str) -> StoreError {
        StoreError::Unavailable {
            operation: self.operation.to_owned(),
            problem: format!("{problem} (DynamoDB table {})", self.table),
        }
    }

    fn unusable(&self, problem: &str) -> StoreError {
        StoreError::Unusable {
            store: format!("DynamoDB table {}", self.table),
            problem: format!("could not {}: {problem}", self.operation),
        }
    }

    fn judge(&self, status: u16, code: &str, message: &str) -> StoreError {
        match code {
            _ if passes(status, code, message) => self.unavailable(&format!("{code}: {message}")),
            "ValidationException" | "ValidationError" => StoreError::Invalid {
                operation: self.operation.to_owned(),
                problem: format!("DynamoDB refuses it: {message}"),
            },
            "AccessDeniedException" => {
                self.unusable(&format!("this needs the permission {} on the table: {message}", self.action))
            }
            "ResourceNotFoundException" => self.unusable("there is no such table in this account and region"),
            _ => self.unusable(&format!("{code}: {message}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::EXPIRED_CODES;

    const REQUEST: Request<'_> =
        Request { operation: "take shard 0 of stream orders", action: "dynamodb:UpdateItem", table: "leases" };

    fn cancelled(codes: &[&str]) -> StoreError {
        let reason = |code: &&str| CancellationReason::builder().code(*code).message("said so").build();
        REQUEST.explain_cancelled(&codes.iter().map(reason).collect::<Vec<_>>())
    }

    #[test]
    fn exactly_the_errors_that_may_pass_are_retryable() {
        for code in PASSING.iter().chain(&EXPIRED_CODES) {
            assert!(REQUEST.judge(400, code, "later").is_retryable(), "{code}");
        }
        assert!(REQUEST.judge(503, "SomethingNew", "later").is_retryable());
        for code in ["ValidationException", "AccessDeniedException", "ResourceNotFoundException", "SomethingNew"] {
            assert!(!REQUEST.judge(400, code, "never").is_retryable(), "{code}");
        }
    }

    #[test]
    fn a_missing_permission_is_reported_with_its_table() {
        let error = REQUEST.judge(400, "AccessDeniedException", "not you").to_string();
        let message = "cannot use the checkpoints in DynamoDB table leases: could not take shard 0 of stream orders: \
                    this needs the permission dynamodb:UpdateItem on the table: not you";
        assert_eq!(error, message);
    }

    #[test]
    fn the_worst_reason_of_a_cancelled_transaction_counts() {
        for code in ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"] {
            assert!(cancelled(&["None", code]).is_retryable(), "{code}");
        }
        assert!(matches!(cancelled(&["TransactionConflict", "ValidationError"]), StoreError::Invalid { .. }));
        assert!(matches!(cancelled(&["ItemCollectionSizeLimitExceeded"]), StoreError::Unusable { .. }));
        assert!(cancelled(&[]).is_retryable());
    }
}
