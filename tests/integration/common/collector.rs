//! A collector of OTLP on loopback, and a way to a server that notes headers.
//!
//! Owns: taking exports over HTTP, decoding their protobuf, and keeping their headers. Does not own: what should be in them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;

/// An export as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Export {
    /// The path, or the whole URL if it came through a proxy.
    pub(crate) target: String,
    /// Headers by their names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// A collector, for as long as the process runs.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    exports: Arc<Mutex<Vec<Export>>>,
}

impl Collector {
    /// Takes everything with this status.
    pub(crate) fn start(status: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let exports = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&exports);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || serve(stream, status, &kept));
            }
        });
        Collector { address, exports }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn exports(&self) -> Vec<Export> {
        self.exports.lock().unwrap().clone()
    }

    /// The metrics of all exports: each with its unit and the attributes of its series.
    pub(crate) fn metrics(&self) -> BTreeMap<String, (String, BTreeSet<String>)> {
        let mut metrics: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
        for export in self.exports().iter().filter(|export| export.target.ends_with("/v1/metrics")) {
            let request = ExportMetricsServiceRequest::decode(&*export.body).unwrap();
            let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
            for metric in scopes.flat_map(|scope| scope.metrics) {
                let json = serde_json::to_string(&format!("{metric:?}")).unwrap();
                let entry = metrics.entry(metric.name).or_default();
                entry.0 = metric.unit;
                entry.1.insert(json);
            }
        }
        metrics
    }

    /// The attributes of the resource of the last export.
    pub(crate) fn resource(&self) -> BTreeMap<String, String> {
        let exports = self.exports();
        let last = exports.iter().rev().find(|export| export.target.ends_with("/v1/metrics")).unwrap();
        let request = ExportMetricsServiceRequest::decode(&*last.body).unwrap();
        texts(&request.resource_metrics[0].resource.as_ref().unwrap().attributes)
    }

    /// Names and attributes of all spans, with the ids of trace, span and parent.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for export in self.exports().iter().filter(|export| export.target.ends_with("/v1/traces")) {
            let request = ExportTraceServiceRequest::decode(&*export.body).unwrap();
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            for span in scopes.flat_map(|scope| scope.spans) {
                let attributes = texts(&span.attributes);
                let (trace, id, parent) = (hex(&span.trace_id), hex(&span.span_id), hex(&span.parent_span_id));
                spans.push(Span { name: span.name, attributes, trace, id, parent });
            }
        }
        spans
    }
}

/// A span that was pushed.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some((attribute.key.clone(), text.clone())),
        _ => None,
    };
    attributes.iter().filter_map(text).collect()
}

fn serve(stream: TcpStream, status: u16, exports: &Mutex<Vec<Export>>) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        exports.lock().unwrap().push(Export { target, headers, body });
        if write!(writer, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

/// A way to a server that notes each value of a header.
pub(crate) struct HeaderTap {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl HeaderTap {
    /// A way to `server` that notes the header `name`, in lower case.
    pub(crate) fn to(server: SocketAddr, name: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || tap(client, server, name, &kept));
            }
        });
        HeaderTap { address, seen }
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn tap(mut client: TcpStream, server: SocketAddr, name: &str, seen: &Mutex<Vec<String>>) {
    let Ok(mut server) = TcpStream::connect(server) else { return };
    let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    let _ = client.set_read_timeout(Some(Duration::from_secs(120)));
    let mut piece = vec![0; 1 << 16];
    while let Ok(bytes @ 1..) = client.read(&mut piece) {
        // A head is one piece, since it is small and sent at once.
        let text = String::from_utf8_lossy(&piece[..bytes]);
        for line in text.lines() {
            if let Some((found, value)) = line.split_once(": ")
                && found.eq_ignore_ascii_case(name)
            {
                seen.lock().unwrap().push(value.trim().to_owned());
            }
        }
        if server.write_all(&piece[..bytes]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(std::net::Shutdown::Both);
}
