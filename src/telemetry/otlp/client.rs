//! The HTTP client that telemetry is pushed with.
//!
//! Owns: sending a request over the SDK's HTTP stack, with the proxy and the certificates that requests to AWS have. Signing it where the
//! endpoint is CloudWatch's. Reporting a collector that fails, as any service that fails is reported. Does not own: what is sent.
//!
//! CloudWatch takes metrics at `monitoring.<region>.amazonaws.com/v1/metrics` and traces at `xray.<region>.amazonaws.com/v1/traces`, signed
//! with Signature Version 4 for the service that the host names
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-OTLPEndpoint.html>).
//!
//! Exports run in threads of their own, outside of the runtime. A request runs as a task of the runtime, and is given up after its time.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::runtime::Handle;

use crate::aws::Aws;
use crate::trouble::{Attempts, Trouble};

/// What requests go over. Set once the runtime and the SDK's settings are there.
static CONNECTION: OnceLock<Connection> = OnceLock::new();

struct Connection {
    runtime: Handle,
    http: SharedHttpConnector,
    credentials: Option<SharedCredentialsProvider>,
}

/// Lets telemetry be pushed from now on, in this runtime.
///
/// # Errors
/// A sentence for the user: the SDK's settings name a proxy or certificates that cannot be used.
pub async fn connect(aws: Option<&Aws>) -> Result<(), String> {
    if CONNECTION.get().is_some() || !(super::pushes_metrics() || super::pushes_traces()) {
        return Ok(());
    }
    let (http, credentials) = match aws {
        Some(aws) => aws.signing()?,
        // No source, lake or lease store is in AWS, so nothing has read the settings yet.
        None => Aws::load().await?.signing()?,
    };
    let _ = CONNECTION.set(Connection { runtime: Handle::current(), http, credentials });
    Ok(())
}

/// Sends exports.
pub(super) struct OtlpClient {
    timeout: Duration,
    attempts: Arc<Mutex<Attempts>>,
}

impl OtlpClient {
    /// A client for what the log calls `what`, the subject of a sentence.
    pub(super) fn new(what: &str, timeout: Duration) -> Self {
        OtlpClient { timeout, attempts: Arc::new(Mutex::new(Trouble::new(what).attempts())) }
    }
}

impl std::fmt::Debug for OtlpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtlpClient").finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for OtlpClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let connection = CONNECTION.get().ok_or("the worker has not begun")?;
        let timeout = self.timeout;
        let sending = connection.runtime.spawn(async move {
            let sent = tokio::time::timeout(timeout, connection.send(request)).await;
            sent.unwrap_or_else(|_| Err(format!("no response for {} ms", timeout.as_millis()).into()))
        });
        let sent = sending.await.map_err(|_| HttpError::from("the runtime has ended"))?;
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        // The attempt is logged in the runtime, whose clock the log's limit uses.
        let _entered = connection.runtime.enter();
        match &sent {
            Ok(response) if response.status().is_success() => attempts.succeeded(),
            Ok(response) => {
                attempts.failed(&format_args!("the collector refused it with status {}", response.status()));
            }
            Err(error) => attempts.failed(error),
        }
        sent
    }
}

impl Connection {
    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        if let Some((service, region)) = signed_for(request.uri().host().unwrap_or_default()) {
            self.sign(&mut request, service, &region).await?;
        }
        let request = HttpRequest::try_from(request.map(SdkBody::from))?;
        let response = self.http.call(request).await?;
        let status = response.status().as_u16();
        let body = ByteStream::new(response.into_body()).collect().await?;
        Ok(Response::builder().status(status).body(body.into_bytes())?)
    }

    async fn sign(&self, request: &mut Request<Bytes>, service: &str, region: &str) -> Result<(), HttpError> {
        let provider = self.credentials.as_ref().ok_or("there are no credentials of AWS to sign with")?;
        let identity = provider.provide_credentials().await?.into();
        let params = v4::SigningParams::builder().identity(&identity).region(region).name(service);
        let params = params.time(now()).settings(SigningSettings::default()).build()?.into();
        let headers: Vec<(String, String)> = request
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
            .collect();
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let body = request.body().clone();
        let uri = request.uri().to_string();
        let signable = SignableRequest::new(request.method().as_str(), &uri, headers, SignableBody::Bytes(&body))?;
        let (instructions, _) = sign(signable, &params)?.into_parts();
        instructions.apply_to_request_http1x(request);
        Ok(())
    }
}

/// The time that a signature has.
#[expect(
    clippy::disallowed_methods,
    reason = "a service refuses a signature of another time; nothing is decided by it"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

/// The service and region that a request to this host is signed for; `None` if it is not signed.
fn signed_for(host: &str) -> Option<(&'static str, String)> {
    let (service, rest) = host.split_once('.')?;
    let service = ["monitoring", "xray", "logs"].into_iter().find(|known| *known == service)?;
    let region = rest.strip_suffix(".amazonaws.com").or_else(|| rest.strip_suffix(".amazonaws.com.cn"))?;
    (!region.is_empty() && !region.contains('.')).then(|| (service, region.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_to_cloudwatch_are_signed() {
        let signed = |host| signed_for(host).map(|(service, region)| format!("{service} {region}"));
        assert_eq!(signed("monitoring.eu-west-1.amazonaws.com").as_deref(), Some("monitoring eu-west-1"));
        assert_eq!(signed("xray.us-east-1.amazonaws.com").as_deref(), Some("xray us-east-1"));
        assert_eq!(signed("monitoring.cn-north-1.amazonaws.com.cn").as_deref(), Some("monitoring cn-north-1"));
        for host in [
            "127.0.0.1",
            "collector",
            "monitoring.example.com",
            "s3.eu-west-1.amazonaws.com",
            "a.monitoring.x.amazonaws.com",
        ] {
            assert_eq!(signed(host), None, "{host}");
        }
    }
}
