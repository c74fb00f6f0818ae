//! The official SDK's requests, answered by a model without a socket.
//!
//! Owns: the connector, and the removal of `aws-chunked` framing, whose trailers join the headers. Does not own: retries, which
//! are off, so that a test sees each error.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_model::http::{Request, Service};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::{Response, StatusCode};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;

#[derive(Clone)]
struct Connector(Arc<dyn Service>);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

/// An HTTP client of the SDK that calls this model.
pub(crate) fn client(model: impl Service) -> SharedHttpClient {
    let connector = SharedHttpConnector::new(Connector(Arc::new(model)));
    http_client_fn(move |_, _| connector.clone())
}

impl HttpConnector for Connector {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let model = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move {
            let body = ByteStream::new(request.take_body()).collect().await;
            let body = body.map_err(|error| ConnectorError::user(error.into()))?.into_bytes();
            let answer = model.answer(&read(&request, body));
            let status = StatusCode::try_from(answer.status).unwrap();
            let mut response = Response::new(status, SdkBody::from(answer.body));
            for (name, value) in answer.headers {
                response.headers_mut().append(name.to_lowercase(), value);
            }
            Ok(response)
        })
    }
}

fn read(request: &HttpRequest, body: Bytes) -> Request {
    let uri = request.uri().split_once("://").map_or(request.uri(), |(_, rest)| rest);
    let uri = uri.find('/').map_or("/", |start| &uri[start..]);
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v)));
    let mut headers: BTreeMap<String, String> =
        request.headers().iter().map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let framed = headers.get("content-encoding").is_some_and(|encoding| encoding.contains("aws-chunked"));
    let body = if framed { unframe(&body, &mut headers) } else { body };
    Request { method: request.method().to_owned(), path: decode(path), query: query.collect(), headers, body }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex = [rest.next().unwrap(), rest.next().unwrap()];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn unframe(body: &[u8], headers: &mut BTreeMap<String, String>) -> Bytes {
    let line = |from: usize| from + body[from..].windows(2).position(|two| two == b"\r\n").unwrap();
    let (mut at, mut whole) = (0, Vec::new());
    loop {
        let end = line(at);
        let size = std::str::from_utf8(&body[at..end]).unwrap().split(';').next().unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        at = end + 2;
        if size == 0 {
            break;
        }
        whole.extend_from_slice(&body[at..at + size]);
        at += size + 2;
    }
    while at < body.len() && line(at) > at {
        let end = line(at);
        let (name, value) = std::str::from_utf8(&body[at..end]).unwrap().split_once(':').unwrap();
        headers.insert(name.to_lowercase(), value.trim().to_owned());
        at = end + 2;
    }
    Bytes::from(whole)
}

#[test]
fn framing_is_removed_and_trailers_join_the_headers() {
    let mut headers = BTreeMap::new();
    let body = unframe(b"3\r\nabc\r\n2\r\nde\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", &mut headers);
    assert_eq!((&body[..], headers["x-amz-checksum-crc32"].as_str()), (&b"abcde"[..], "AAAAAA=="));
}
