//! What every request is checked for, and what every response says.
//!
//! Owns: the defence against DNS rebinding, and headers. Does not own: routes, the policy for scripts of the page (`page`).
//!
//! A worker that listens on loopback is reached by a browser of the same machine. A page of another site could make that browser send
//! requests here under a name that it controls. So on loopback the `Host` header must name this machine. Elsewhere nobody knows which
//! names lead here, and whoever opens the port decides who reaches it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::server::site::Site;

const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Refuses what is not addressed to this machine, and adds the headers.
pub(super) async fn guard(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let mut response = if site.is_loopback() && !is_this_machine(request.headers()) {
        let problem =
            "the Host header does not name this machine: open the page as http://127.0.0.1 or http://localhost\n";
        (StatusCode::MISDIRECTED_REQUEST, problem).into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, value);
    }
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

/// Whether the `Host` header is a name of loopback, with any port.
fn is_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_accepted_on_loopback() {
        let accepts = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            is_this_machine(&headers)
        };
        for host in ["localhost", "LOCALHOST:8470", "127.0.0.1", "127.0.0.1:8470", "127.1.2.3:1", "[::1]", "[::1]:8470"]
        {
            assert!(accepts(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8470",
            "localhost.evil.example",
            "10.0.0.1:8470",
            "[::2]:1",
            "127.0.0.1.evil.example",
        ] {
            assert!(!accepts(host), "{host}");
        }
        assert!(!is_this_machine(&HeaderMap::new()));
    }
}
