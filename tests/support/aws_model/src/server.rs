//! The models behind one HTTP endpoint, for the official SDK.
//!
//! Owns: sockets, translating HTTP for the models, and carrying faults out on the wire. Does not own: which call meets a fault
//! (`faults`), and what is answered (the models). HTTP/1.1 on loopback, no TLS, no check of signatures. A client that
//! disconnects ends its call, even one that hangs or streams.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::access::Access;
use crate::chunked;
use crate::faults::{Fault, Faults, Refusal};
use crate::http::{Request, Response, Service, Streamed};
use crate::route::{ServiceName, route};

/// How long the piece before a cut has to leave this machine.
const BEFORE_CUT: Duration = Duration::from_millis(20);

/// The connection is cut on purpose.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("the connection is cut on purpose")
    }
}

impl std::error::Error for Cut {}

type Body = UnsyncBoxBody<Bytes, Cut>;

/// The models that a server serves. The answer for a service without a model is 501.
#[derive(Clone, Default)]
pub struct Services {
    models: BTreeMap<ServiceName, Arc<dyn Service>>,
    access: Option<Arc<Access>>,
}

impl Services {
    /// Without models.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves `model` as `name`.
    #[must_use]
    pub fn with(mut self, name: ServiceName, model: impl Service) -> Self {
        self.models.insert(name, Arc::new(model));
        self
    }

    /// Denies what `access` does not allow.
    #[must_use]
    pub fn guarded_by(mut self, access: Arc<Access>) -> Self {
        self.access = Some(access);
        self
    }

    /// Answers one request, which takes effect with this call unless it is denied. For a client in the same process.
    pub fn answer(&self, request: &Request) -> Answer {
        let (service, _) = route(request);
        if let Some(denied) = self.access.as_ref().and_then(|access| access.refusal(request)) {
            return Answer::Whole(denied);
        }
        let Some(model) = self.models.get(&service) else {
            let refusal = Refusal::new(501, "NotImplemented", "no model of this service is served here");
            return Answer::Whole(refused(service, &refusal));
        };
        match model.stream(request) {
            Some(Ok(streamed)) => Answer::Streamed(streamed),
            Some(Err(refused)) => Answer::Whole(refused),
            None => {
                let mut response = model.answer(request);
                if let Some(denied) = self.access.as_ref().and_then(|access| access.hidden_absence(request, &response))
                {
                    response = denied;
                }
                if request.method == "HEAD" {
                    // The headers keep the length of the answer to a GET.
                    if !response.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
                        response.headers.push(("content-length".to_owned(), response.body.len().to_string()));
                    }
                    response.body = Bytes::new();
                }
                Answer::Whole(response)
            }
        }
    }
}

/// A running server. Dropping it closes every connection.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    accepts: AbortHandle,
}

impl Server {
    /// Serves on a free port of loopback, in the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime, or if loopback has no free port.
    pub fn start(services: Services, faults: Arc<Faults>) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        listener.set_nonblocking(true).expect("a fresh socket can be made non-blocking");
        let address = listener.local_addr().expect("a bound socket has an address");
        let listener = TcpListener::from_std(listener).expect("a runtime with I/O");
        let shared = Arc::new(Shared { services, faults });
        Server { address, accepts: tokio::spawn(accept(listener, shared)).abort_handle() }
    }

    /// Its URL: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

struct Shared {
    services: Services,
    faults: Arc<Faults>,
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Owned by this task: when it is aborted, so are the connections.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((socket, _)) = accepted {
                connections.spawn(serve(socket, Arc::clone(&shared)));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(socket: TcpStream, shared: Arc<Shared>) {
    // If this fails, the socket is closed already; serving it finds that out.
    let _ = socket.set_nodelay(true);
    let service = hyper::service::service_fn(|request| shared.call(request));
    // A connection ends with an error when the client disconnects and when it is cut on purpose: both are intended.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
}

impl Shared {
    async fn call(&self, request: hyper::Request<Incoming>) -> Result<hyper::Response<Body>, Cut> {
        let request = match read(request).await? {
            Ok(request) => request,
            Err(refused) => return Ok(whole(refused)),
        };
        let (service, operation) = route(&request);
        let touches = |text: &str| {
            request.path.contains(text)
                || request.body.windows(text.len().max(1)).any(|part| part == text.as_bytes())
                || request.headers.iter().any(|(name, value)| format!("{name}:{value}").contains(text))
        };
        if let Some(authorization) = request.headers.get("authorization") {
            self.faults.note_signature(service, authorization);
        }
        match self.faults.draw(service, &operation, &touches) {
            None => Ok(self.services.answer(&request).into_http()),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(self.services.answer(&request).into_http())
            }
            Some(Fault::Refuse(refusal)) => Ok(whole(refused(service, &refusal))),
            Some(Fault::Hang) => Ok(forever().await),
            Some(Fault::CutBefore) => Err(Cut),
            Some(Fault::CutAfter) => {
                drop(self.services.answer(&request));
                Err(Cut)
            }
            Some(Fault::RefuseAfter(refusal)) => {
                drop(self.services.answer(&request));
                Ok(whole(refused(service, &refusal)))
            }
            Some(Fault::HangAfter) => {
                drop(self.services.answer(&request));
                Ok(forever().await)
            }
            Some(Fault::CutBody) => self.services.answer(&request).cut(),
        }
    }
}

/// Never returns; the caller is dropped when the client disconnects.
async fn forever() -> hyper::Response<Body> {
    std::future::pending().await
}

/// A model's answer.
#[derive(Debug)]
pub enum Answer {
    /// A complete one.
    Whole(Response),
    /// It grows while it is read.
    Streamed(Streamed),
}

impl Answer {
    fn into_http(self) -> hyper::Response<Body> {
        match self {
            Answer::Whole(response) => whole(response),
            Answer::Streamed(Streamed { status, headers, body }) => {
                built(status, &headers, pieces(body.map(Ok).boxed()))
            }
        }
    }

    /// The beginning of the answer, and then the end of the connection.
    fn cut(self) -> Result<hyper::Response<Body>, Cut> {
        let (status, mut headers, beginning) = match self {
            Answer::Whole(response) if response.body.is_empty() => return Err(Cut),
            Answer::Whole(Response { status, mut headers, body }) => {
                headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-length"));
                headers.push(("content-length".to_owned(), body.len().to_string()));
                (status, headers, stream::iter([body.slice(..body.len() / 2)]).boxed())
            }
            Answer::Streamed(Streamed { status, headers, body }) => (status, headers, body.take(1).boxed()),
        };
        headers.push(("connection".to_owned(), "close".to_owned()));
        let end = stream::once(async {
            tokio::time::sleep(BEFORE_CUT).await;
            Err(Cut)
        });
        Ok(built(status, &headers, pieces(beginning.map(Ok).chain(end).boxed())))
    }
}

fn pieces(pieces: BoxStream<'static, Result<Bytes, Cut>>) -> Body {
    BodyExt::boxed_unsync(StreamBody::new(pieces.map(|piece| piece.map(Frame::data))))
}

fn whole(response: Response) -> hyper::Response<Body> {
    let Response { status, headers, body } = response;
    built(status, &headers, Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync())
}

fn built(status: u16, headers: &[(String, String)], body: Body) -> hyper::Response<Body> {
    let mut response = hyper::Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(body).expect("a model sets valid headers")
}

/// An error in the service's own form.
pub fn refused(service: ServiceName, refusal: &Refusal) -> Response {
    let Refusal { status, code, message, reasons } = refusal;
    if service == ServiceName::Sts {
        let body = format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>\
             <RequestId>0</RequestId></ErrorResponse>"
        );
        let headers = vec![("content-type".to_owned(), "text/xml".to_owned())];
        return Response { status: *status, headers, body: body.into() };
    }
    if service == ServiceName::S3 {
        let mut body = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let _ = write!(body, "<Error><Code>{code}</Code><Message>{message}</Message><RequestId>0</RequestId></Error>");
        let headers = vec![("content-type".to_owned(), "application/xml".to_owned())];
        return Response { status: *status, headers, body: body.into() };
    }
    let (namespace, content_type) = match service {
        ServiceName::DynamoDb => ("com.amazonaws.dynamodb.v20120810#", "application/x-amz-json-1.0"),
        _ => ("", "application/x-amz-json-1.1"),
    };
    let mut body = serde_json::json!({ "__type": format!("{namespace}{code}"), "message": message });
    if !reasons.is_empty() {
        body["Message"] = message.as_str().into();
        let list = reasons.iter().map(|reason| match reason.as_str() {
            "None" => serde_json::json!({ "Code": reason }),
            _ => serde_json::json!({ "Code": reason, "Message": format!("{reason} by the test's plan") }),
        });
        body["CancellationReasons"] = list.collect();
    }
    let headers = vec![("content-type".to_owned(), content_type.to_owned())];
    Response { status: *status, headers, body: body.to_string().into() }
}

/// Reads a request to its end. If the client disconnects first, the connection is cut.
async fn read(request: hyper::Request<Incoming>) -> Result<Result<Request, Response>, Cut> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    Ok(understood(&head.method, &head.uri, &head.headers, body))
}

/// A request for the models, from what came over the wire; or the answer to an invalid one.
///
/// # Errors
/// Its body does not have the length that its headers state.
pub fn understood(
    method: &hyper::Method,
    uri: &hyper::Uri,
    sent: &hyper::HeaderMap,
    body: Bytes,
) -> Result<Request, Response> {
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in sent {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str().to_owned())
            .and_modify(|joined| {
                joined.push(',');
                joined.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    let body = if chunked::is_framed(&headers) {
        match chunked::unframe(&body, &mut headers) {
            Some(body) => body,
            None => {
                let message = "You did not provide the number of bytes specified by the Content-Length HTTP header";
                return Err(refused(ServiceName::S3, &Refusal::new(400, "IncompleteBody", message)));
            }
        }
    } else {
        body
    };
    let query = uri.query().unwrap_or("");
    let query = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decoded(key), percent_decoded(value))
    });
    Ok(Request {
        method: method.as_str().to_owned(),
        path: percent_decoded(uri.path()),
        query: query.collect(),
        headers,
        body,
    })
}

fn percent_decoded(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = (first == b'%').then(|| after.get(..2)).flatten();
        let digits = digits.filter(|two| two.iter().all(u8::is_ascii_hexdigit));
        let byte =
            digits.and_then(|two| std::str::from_utf8(two).ok()).and_then(|two| u8::from_str_radix(two, 16).ok());
        if let Some(byte) = byte {
            decoded.push(byte);
            rest = &after[2..];
        } else {
            decoded.push(first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
