//! The routes.
//!
//! Owns: which path answers what. Does not own: what the answers say (`fleet`, `health`, `page`, `telemetry`).

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{self, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::stream;

use crate::server::guard::guard;
use crate::server::health::Report;
use crate::server::page::{HTML, POLICY};
use crate::server::site::{Site, Watcher};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// What Prometheus expects of its text format.
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub(super) fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/api/fleet", get(fleet))
        .route("/api/status", get(fleet))
        .route("/events", get(events))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(nothing)
        .layer(from_fn_with_state(Arc::clone(&site), guard))
        .with_state(site)
}

async fn page() -> Response {
    let mut response = Html(HTML).into_response();
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    response
}

async fn fleet(State(site): State<Arc<Site>>) -> Response {
    json(StatusCode::OK, site.fleet().await)
}

async fn events(State(site): State<Arc<Site>>) -> Response {
    let Some(watcher) = Watcher::new(&site) else {
        let problem = "too many pages are open; this one asks for /api/fleet instead\n";
        return (StatusCode::SERVICE_UNAVAILABLE, problem).into_response();
    };
    let frames = stream::unfold(watcher, async |mut watcher| {
        let frame = watcher.next().await?;
        Some((Ok::<Bytes, Infallible>(frame), watcher))
    });
    let mut response = Body::from_stream(frames).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

async fn metrics(State(site): State<Arc<Site>>) -> Response {
    match site.metrics() {
        Some(Ok(text)) => with_type(StatusCode::OK, METRICS, text.into()),
        Some(Err(problem)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{problem}\n")).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the worker is starting\n").into_response(),
    }
}

async fn healthz(State(site): State<Arc<Site>>) -> Response {
    report(&site.liveness())
}

async fn readyz(State(site): State<Arc<Site>>) -> Response {
    report(&site.readiness())
}

async fn nothing(uri: Uri) -> Response {
    (StatusCode::NOT_FOUND, format!("there is nothing at {}; the page is at /\n", uri.path())).into_response()
}

fn report(report: &Report) -> Response {
    let code = if report.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(code, serde_json::to_vec(report).unwrap_or_default().into())
}

fn json(code: StatusCode, body: Bytes) -> Response {
    with_type(code, JSON, body)
}

fn with_type(code: StatusCode, kind: HeaderValue, body: Bytes) -> Response {
    let mut response = (code, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
