//! The HTTP client of all clients of AWS: TLS, the certificates that it trusts, and proxies.
//!
//! Owns: what the environment says about the way to AWS. Does not own: timeouts and retries (the parent module), signing (the SDK).
//!
//! | setting | meaning |
//! | --- | --- |
//! | `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, also in lower case | the proxy for requests to `https://` or `http://` endpoints |
//! | `NO_PROXY`, `no_proxy` | hosts, domains and networks that are reached without it |
//! | `AWS_CA_BUNDLE`, `ca_bundle` of the profile | certificates in PEM that are trusted instead of the system's, as in the AWS CLI |
//!
//! Credentials of an instance, a container or a pod never go through a proxy: they are on the machine or beside it, and a proxy would
//! get them. The SDK leaves that to `NO_PROXY`, which is often not set for them.

use std::sync::{Arc, OnceLock};

use aws_config::SdkConfig;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_types::service_config::ServiceConfigKey;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The variables of a kind of proxy: the first that is set counts.
const HTTPS: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const HTTP: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
const ALL: [&str; 2] = ["ALL_PROXY", "all_proxy"];

/// Addresses of the credentials of an instance, an ECS task and an EKS pod.
const METADATA: [&str; 5] = ["169.254.169.254", "169.254.170.2", "169.254.170.23", "[fd00:ec2::254]", "[fd00:ec2::23]"];
/// Variables that name another place of such credentials.
const METADATA_URLS: [&str; 2] = ["AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];

/// What is trusted. Set once the settings are read; the profile may name it.
type Trusted = Arc<OnceLock<TlsContext>>;

/// The client. Clones share its connections.
#[derive(Debug, Clone)]
pub(super) struct AwsHttp {
    /// Requests to services.
    services: SharedHttpClient,
    /// Requests for credentials of this machine; `None`: there is no proxy, so they need no client of their own.
    metadata: Option<SharedHttpClient>,
    /// Further hosts of such credentials, with their ports.
    metadata_hosts: Arc<[String]>,
    trusted: Trusted,
    proxy: ProxyConfig,
}

impl AwsHttp {
    /// A client by the proxies of the environment.
    ///
    /// # Errors
    /// A variable names a proxy that cannot be used.
    pub(super) fn from_env() -> Result<Self, String> {
        let env = |name: &str| std::env::var(name).ok();
        let has_proxy = has_proxy(env)?;
        let trusted = Trusted::default();
        let proxy = if has_proxy { ProxyConfig::from_env() } else { ProxyConfig::disabled() };
        Ok(AwsHttp {
            services: client(proxy.clone(), Arc::clone(&trusted)),
            // Such credentials are only served over plain HTTP.
            metadata: has_proxy.then(|| Builder::new().build_http()),
            metadata_hosts: METADATA_URLS.into_iter().filter_map(|name| host_of_plain_url(&env(name)?)).collect(),
            trusted,
            proxy,
        })
    }

    /// A connection to any host, by the same proxies and with the same certificates, once these are known.
    pub(super) fn connector(&self) -> SharedHttpConnector {
        SharedHttpConnector::new(connector(&self.proxy, &self.trusted, None, None))
    }

    /// Trusts what the settings name instead of the system's certificates.
    ///
    /// # Errors
    /// The file cannot be read, or has no certificates.
    pub(super) fn trust_by(&self, config: &SdkConfig) -> Result<(), String> {
        // A profile's `services` section has no certificates, so it makes no difference which service is asked for.
        let key = ServiceConfigKey::builder().service_id("STS").env("AWS_CA_BUNDLE").profile("ca_bundle").build();
        let path = config.service_config().zip(key.ok()).and_then(|(settings, key)| settings.load_config(key));
        if let Some(path) = path.filter(|path| !path.is_empty()) {
            let pem = std::fs::read(&path).map_err(|error| bundle_problem(&path, &error.to_string()))?;
            check_certificates(&pem).map_err(|problem| bundle_problem(&path, &problem))?;
            let store = TrustStore::empty().with_pem_certificate(pem);
            let context = TlsContext::builder().with_trust_store(store).build();
            // Set twice only if two threads share a client before it is used.
            let _ = self.trusted.set(context.map_err(|error| bundle_problem(&path, &error.to_string()))?);
        }
        Ok(())
    }
}

fn bundle_problem(path: &str, problem: &str) -> String {
    format!("the certificates that AWS_CA_BUNDLE or ca_bundle in the profile names cannot be used: {path}: {problem}")
}

/// A connection that has these proxies and trusts this.
fn connector(
    proxy: &ProxyConfig,
    trusted: &Trusted,
    settings: Option<HttpConnectorSettings>,
    components: Option<&RuntimeComponents>,
) -> Connector {
    let mut connector =
        Connector::builder().proxy_config(proxy.clone()).tls_provider(Provider::Rustls(CryptoMode::Ring));
    if let Some(context) = trusted.get() {
        connector.set_tls_context(context.clone());
    }
    connector.set_connector_settings(settings);
    if let Some(components) = components {
        connector.set_sleep_impl(components.sleep_impl());
    }
    connector.build()
}

/// A client that has these proxies and trusts this.
fn client(proxy: ProxyConfig, trusted: Trusted) -> SharedHttpClient {
    Builder::new()
        .build_with_connector_fn(move |settings, components| connector(&proxy, &trusted, settings.cloned(), components))
}

/// Checks every certificate of a bundle, because the client would panic at one that it cannot read.
fn check_certificates(pem: &[u8]) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("it is not in the PEM format ({error})"))?;
        roots.add(certificate).map_err(|error| format!("a certificate in it cannot be used ({error})"))?;
    }
    if roots.is_empty() { Err("it has no certificates in the PEM format".to_owned()) } else { Ok(()) }
}

/// Whether the environment names a proxy for any request.
fn has_proxy(env: impl Fn(&str) -> Option<String>) -> Result<bool, String> {
    let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, env(name)?)));
    let all = first(ALL);
    let mut found = false;
    for proxy in [first(HTTPS), first(HTTP)] {
        let Some((name, url)) = proxy.or_else(|| all.clone()).filter(|(_, url)| !url.is_empty()) else { continue };
        // The URL is not repeated: a password may be in it.
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", &url));
        if !matches!(scheme, "http" | "https") {
            return Err(format!("{name} names a proxy that is not http:// or https://, which is not supported"));
        }
        if ProxyConfig::http(format!("http://{rest}")).is_err() {
            return Err(format!("{name} is not the URL of a proxy, such as http://proxy.example:3128"));
        }
        found = true;
    }
    Ok(found)
}

/// Host and port of a URL that begins with `http://`; `None` for another one.
fn host_of_plain_url(url: &str) -> Option<String> {
    let rest = url.strip_prefix("http://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Some(rest[..end].to_ascii_lowercase())
}

impl HttpClient for AwsHttp {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let services = self.services.http_connector(settings, components);
        let Some(metadata) = &self.metadata else { return services };
        let metadata = metadata.http_connector(settings, components);
        SharedHttpConnector::new(ByHost { services, metadata, metadata_hosts: Arc::clone(&self.metadata_hosts) })
    }
}

/// Sends requests for credentials of this machine without a proxy.
#[derive(Debug)]
struct ByHost {
    services: SharedHttpConnector,
    metadata: SharedHttpConnector,
    metadata_hosts: Arc<[String]>,
}

impl ByHost {
    fn is_metadata(&self, uri: &str) -> bool {
        is_metadata(uri, &self.metadata_hosts)
    }
}

impl HttpConnector for ByHost {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if self.is_metadata(request.uri()) { self.metadata.call(request) } else { self.services.call(request) }
    }
}

fn is_metadata(uri: &str, further: &[String]) -> bool {
    let Some(host) = host_of_plain_url(uri) else { return false };
    let without_port = match host.rsplit_once(':') {
        Some((before, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => before,
        _ => &host,
    };
    METADATA.contains(&without_port) || further.contains(&host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_the_machine_are_known_by_their_host() {
        let further = ["127.0.0.1:9000".to_owned()];
        for uri in [
            "http://169.254.169.254/latest/meta-data/",
            "http://169.254.170.2/v2/credentials/x",
            "http://169.254.170.23:80/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://127.0.0.1:9000/creds?a=b",
        ] {
            assert!(is_metadata(uri, &further), "{uri}");
        }
        for uri in
            ["https://sts.eu-west-1.amazonaws.com/", "http://127.0.0.1:9001/", "http://169.254.169.254.example/", "x"]
        {
            assert!(!is_metadata(uri, &further), "{uri}");
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_reported_without_its_password() {
        let with = |set: &'static [(&str, &str)]| {
            has_proxy(|name| set.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned()))
        };
        for set in [&[] as &[_], &[("HTTPS_PROXY", "")], &[("NO_PROXY", "*")]] {
            assert_eq!(with(set), Ok(false));
        }
        for set in [
            &[("https_proxy", "http://me:hush@proxy:3128")] as &[_],
            &[("HTTP_PROXY", "proxy:3128")],
            &[("ALL_PROXY", "https://proxy")],
            &[("ALL_PROXY", "socks5://proxy"), ("HTTPS_PROXY", "http://proxy"), ("HTTP_PROXY", "")],
        ] {
            assert_eq!(with(set), Ok(true), "{set:?}");
        }
        let message = with(&[("all_proxy", "socks5://me:hush@proxy:1080")]).unwrap_err();
        assert!(
            message.contains("all_proxy names a proxy that is not http:// or https://") && !message.contains("hush"),
            "{message}"
        );
        let message = with(&[("HTTPS_PROXY", "http://me:hush hush@")]).unwrap_err();
        assert!(message.contains("HTTPS_PROXY is not the URL of a proxy") && !message.contains("hush"), "{message}");
    }

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        for (pem, expected) in [
            (&b""[..], "has no certificates"),
            (b"hello", "has no certificates"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "a certificate in it cannot be used"),
            (b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "not in the PEM format"),
        ] {
            let message = check_certificates(pem).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
