//! A model of Secrets Manager: secrets by ARN, and GetSecretValue.
//!
//! Does not own: versions, rotation, names in place of ARNs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::faults::Refusal;
use crate::http::{Request, Response, Service};
use crate::route::{ServiceName, route};
use crate::server::refused;

/// A Secrets Manager; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    secrets: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Secrets {
    /// Stores a text.
    pub fn put(&self, arn: &str, text: &str) {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).insert(arn.to_owned(), text.to_owned());
    }
}

impl Service for Secrets {
    fn answer(&self, request: &Request) -> Response {
        let refuse =
            |code: &str, message: &str| refused(ServiceName::SecretsManager, &Refusal::new(400, code, message));
        if route(request).1 != "GetSecretValue" {
            return refuse("InvalidRequestException", "the model has GetSecretValue only");
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let arn = body["SecretId"].as_str().unwrap_or_default();
        let Some(text) = self.secrets.lock().unwrap_or_else(PoisonError::into_inner).get(arn).cloned() else {
            return refuse("ResourceNotFoundException", "Secrets Manager can't find the specified secret.");
        };
        let body = json!({ "ARN": arn, "Name": arn, "SecretString": text, "VersionId": "1" }).to_string();
        let headers = vec![("content-type".to_owned(), "application/x-amz-json-1.1".to_owned())];
        Response { status: 200, headers, body: body.into() }
    }
}
