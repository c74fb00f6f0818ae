//! Errors with DynamoDB's own `__type` and messages.
//!
//! Owns: the JSON form of an error, and the model's errors. Does not own: when they occur.

use bytes::Bytes;
use serde_json::{Map, Value as Json, json};

use super::value::{Item, item_to_json};
use crate::http::Response;

const DYNAMODB: &str = "com.amazonaws.dynamodb.v20120810";

/// A request that is refused, or that fails.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    status: u16,
    namespace: &'static str,
    code: &'static str,
    message: String,
    fields: Map<String, Json>,
}

impl Refused {
    fn new(status: u16, namespace: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Refused { status, namespace, code, message: message.into(), fields: Map::new() }
    }

    /// The code: `ValidationException`, …
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Adds the item that failed the condition, if the request asks for it.
    #[must_use]
    pub fn with_item(mut self, item: Option<&Item>) -> Self {
        if let Some(item) = item {
            self.fields.insert("Item".to_owned(), item_to_json(item));
        }
        self
    }

    /// The item that [`Self::with_item`] added.
    pub fn item(&self) -> Option<&Json> {
        self.fields.get("Item")
    }

    /// The answer as DynamoDB sends it.
    pub fn response(&self) -> Response {
        let mut body = self.fields.clone();
        body.insert("__type".to_owned(), json!(format!("{}#{}", self.namespace, self.code)));
        // AWS's spelling differs from error to error.
        let upper = matches!(
            self.code,
            "TransactionCanceledException" | "IdempotentParameterMismatchException" | "SerializationException"
        );
        body.insert(if upper { "Message" } else { "message" }.to_owned(), json!(self.message));
        answer(self.status, &Json::Object(body))
    }
}

/// An answer with its checksum, as DynamoDB sends it.
pub fn answer(status: u16, body: &Json) -> Response {
    let body = Bytes::from(body.to_string());
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, &body);
    let headers = vec![
        ("Content-Type".to_owned(), "application/x-amz-json-1.0".to_owned()),
        ("x-amz-crc32".to_owned(), crc.to_string()),
    ];
    Response { status, headers, body }
}

/// The request is invalid.
pub fn validation(message: impl Into<String>) -> Refused {
    Refused::new(400, "com.amazon.coral.validate", "ValidationException", message)
}

/// The request does not have the form of the API.
pub fn serialization(message: impl Into<String>) -> Refused {
    Refused::new(400, "com.amazon.coral.service", "SerializationException", message)
}

/// There is no such operation.
pub fn unknown_operation() -> Refused {
    Refused::new(400, "com.amazon.coral.service", "UnknownOperationException", "")
}

/// There is no such table or index.
pub fn not_found(message: impl Into<String>) -> Refused {
    Refused::new(400, DYNAMODB, "ResourceNotFoundException", message)
}

/// The table exists, or is being created, changed or deleted.
pub fn in_use(message: impl Into<String>) -> Refused {
    Refused::new(400, DYNAMODB, "ResourceInUseException", message)
}

/// Too many changes of tables at once.
pub fn limit_exceeded(message: impl Into<String>) -> Refused {
    Refused::new(400, DYNAMODB, "LimitExceededException", message)
}

/// The condition does not hold.
pub fn condition_failed() -> Refused {
    Refused::new(400, DYNAMODB, "ConditionalCheckFailedException", "The conditional request failed")
}

/// A transaction is in progress on the item.
pub fn transaction_conflict() -> Refused {
    Refused::new(400, DYNAMODB, "TransactionConflictException", "Transaction is ongoing for the item")
}

/// The transaction of this token is still in progress.
pub fn transaction_in_progress() -> Refused {
    Refused::new(
        400,
        DYNAMODB,
        "TransactionInProgressException",
        "The transaction with the given request token is already in progress",
    )
}

/// The token was used for another transaction.
pub fn parameter_mismatch() -> Refused {
    Refused::new(
        400,
        DYNAMODB,
        "IdempotentParameterMismatchException",
        "The transaction with the given request token was executed with different parameters",
    )
}

/// The account exceeds its request limit.
pub fn throttling() -> Refused {
    Refused::new(400, DYNAMODB, "ThrottlingException", "Rate of requests exceeds the allowed throughput.")
}

/// The table, or one of its partitions, exceeds its throughput.
pub fn throughput_exceeded() -> Refused {
    Refused::new(
        400,
        DYNAMODB,
        "ProvisionedThroughputExceededException",
        "The level of configured provisioned throughput for the table was exceeded. Consider increasing your \
         provisioning level with the UpdateTable API.",
    )
}

/// The account exceeds the limits of the control plane or of its tables.
pub fn request_limit_exceeded() -> Refused {
    Refused::new(
        400,
        DYNAMODB,
        "RequestLimitExceeded",
        "Throughput exceeds the current throughput limit for your account.",
    )
}

/// An internal error of DynamoDB.
pub fn internal() -> Refused {
    Refused::new(500, DYNAMODB, "InternalServerError", "Internal server error")
}

/// A cancelled transaction: one reason for each item, in their order.
pub fn transaction_canceled(reasons: &[Reason]) -> Refused {
    let codes: Vec<&str> = reasons.iter().map(|reason| reason.code.as_str()).collect();
    let mut refused = Refused::new(
        400,
        DYNAMODB,
        "TransactionCanceledException",
        format!("Transaction cancelled, please refer cancellation reasons for specific reasons [{}]", codes.join(", ")),
    );
    let reasons = reasons.iter().map(Reason::to_json).collect();
    refused.fields.insert("CancellationReasons".to_owned(), Json::Array(reasons));
    refused
}

/// Why one item of a transaction was refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Reason {
    /// `None`, `ConditionalCheckFailed`, `TransactionConflict`, `ThrottlingError`, …
    pub code: String,
    /// The message; none with the code `None`.
    pub message: Option<String>,
    /// The item, if the request asks for it.
    pub item: Option<Json>,
}

impl Reason {
    /// This item was not refused.
    pub fn none() -> Self {
        Reason { code: "None".to_owned(), message: None, item: None }
    }

    /// Refused, with a code and a message.
    pub fn new(code: &str, message: &str) -> Self {
        Reason { code: code.to_owned(), message: Some(message.to_owned()), item: None }
    }

    fn to_json(&self) -> Json {
        let mut json = Map::from_iter([("Code".to_owned(), json!(self.code))]);
        if let Some(message) = &self.message {
            json.insert("Message".to_owned(), json!(message));
        }
        if let Some(item) = &self.item {
            json.insert("Item".to_owned(), item.clone());
        }
        Json::Object(json)
    }
}
