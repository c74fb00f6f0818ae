//! HTTP as a model sees it: a request, and the answer to it.
//!
//! Does not own: sockets (`server`), which service a request is for (`route`), faults of the network (`faults`).

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::BoxStream;

/// A request, as received.
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
    /// The body in pieces; each piece is sent immediately. Dropped when the client disconnects.
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

    /// Answers a request whose answer grows while it is read, or refuses it; `None` for every other request, which then goes
    /// to [`Service::answer`]. Called first.
    fn stream(&self, _request: &Request) -> Option<Result<Streamed, Response>> {
        None
    }
}
