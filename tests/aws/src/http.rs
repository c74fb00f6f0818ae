//! What a model sees of HTTP: a request, and the answer to it.

use std::collections::BTreeMap;

use bytes::Bytes;

/// A request, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `PUT`, …
    pub method: String,
    /// The path, percent-decoded, with the leading `/`.
    pub path: String,
    /// The query, percent-decoded; a key without a value has the empty text.
    pub query: BTreeMap<String, String>,
    /// Headers by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The body, chunk framing and `aws-chunked` framing removed.
    pub body: Bytes,
}

/// The answer of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 200, 400, …
    pub status: u16,
    /// Headers by name.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// A model that is served over HTTP.
pub trait Service: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: &Request) -> Response;
}
