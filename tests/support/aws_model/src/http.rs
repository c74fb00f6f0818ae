//! What a model sees of HTTP: a request, and the answer to it.
//!
//! Does not own: sockets (`server`), which service a request is for (`route`), what goes wrong on the way (`faults`).

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::BoxStream;

/// A request, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `PUT`, …
    pub method: String,
    /// The path, percent-decoded, with the leading `/`.
    pub path: String,
    /// The query, percent-decoded; a key without a value has the empty text.
    pub query: BTreeMap<String, String>,
    /// Headers by lower-case name. Trailers of an `aws-chunked` body are among them.
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

/// An answer whose body grows while it is read.
pub struct Streamed {
    /// 200, …
    pub status: u16,
    /// Headers by name.
    pub headers: Vec<(String, String)>,
    /// The body, a piece at a time; each piece is sent at once. Dropped when the reader goes away.
    pub body: BoxStream<'static, Bytes>,
}

impl std::fmt::Debug for Streamed {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Streamed")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

/// A model that is served over HTTP.
pub trait Service: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: &Request) -> Response;

    /// Answers a request of the kind whose answer grows while it is read, or refuses it; `None` for every other kind, which
    /// then goes to [`Service::answer`]. Asked first.
    fn stream(&self, _request: &Request) -> Option<Result<Streamed, Response>> {
        None
    }
}
