//! AWS: one configuration for all clients.
//!
//! Owns: how clients are made: the SDK's own settings and credentials, one HTTP stack (`http`), a time limit for each attempt. Also
//! what is different for one resource (`access`), the requests that go out (`requests`), and what a trial of a permission shows
//! (`permissions`). Does not own: which requests are sent
//! (`lake`, `source`, the checkpoints crate), or how long a failed call is retried (`retry`). The SDK itself retries a failed
//! attempt twice, with its own backoff; after that the caller decides.
//!
//! Nothing here overrides a setting of the SDK: `AWS_REGION`, `AWS_PROFILE`, `AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_S3` and so
//! on mean what AWS says they mean. The configuration may say otherwise for one resource (`access`).

pub(crate) mod access;
pub(crate) mod arn;
mod http;
pub mod permissions;
mod requests;
pub(crate) mod tags;

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use aws_types::service_config::ServiceConfigKey;
use checkpoints::error_chain;

use crate::aws::access::Roles;
use crate::aws::http::AwsHttp;

pub use access::{Access, AccessError};
pub use arn::ResourceName;
pub use requests::{RequestCounter, RequestKind, RequestObserver, RequestOutcome};

/// Longest attempt of a small request.
const SMALL_ATTEMPT: Duration = Duration::from_secs(10);
/// Longest attempt of a lease request. It shows peers that the worker is alive, so a few attempts must fit the failover time.
const LEASE_ATTEMPT: Duration = Duration::from_secs(3);
/// Longest attempt of a request that carries megabytes, or has S3 assemble an object; besides the time that its bytes take.
const LARGE_ATTEMPT: Duration = Duration::from_secs(20);
/// The slowest way for those bytes: bytes a second.
const SLOWEST: u64 = 256 << 10;

/// Makes clients.
#[derive(Debug, Clone)]
pub struct Aws {
    config: SdkConfig,
    /// The endpoint that the configuration names for a resource.
    endpoint: Option<String>,
    roles: Roles,
    requests: RequestCounter,
}

impl Aws {
    /// Reads the SDK's settings from the environment and the shared configuration files. Asks no service, except the instance for
    /// its region if no other setting says it.
    ///
    /// # Errors
    /// A sentence for the user: the proxy or the certificates that the environment names cannot be used.
    pub async fn load() -> Result<Self, String> {
        let http = AwsHttp::from_env()?;
        let config = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone()).load().await;
        http.trust_by(&config)?;
        Ok(Self::with(config))
    }

    /// Clients of these settings, whatever the environment says.
    pub fn with(config: SdkConfig) -> Self {
        Aws { config, endpoint: None, roles: Roles::default(), requests: RequestCounter::default() }
    }

    /// The settings that an earlier step read because the configuration names something of AWS.
    ///
    /// # Panics
    /// They were not read: a fault of the program.
    pub fn required(aws: Option<&Aws>) -> &Aws {
        aws.expect("the SDK's settings were read, since the configuration names something of AWS")
    }

    /// The region; `None` if none is set.
    pub fn region(&self) -> Option<&str> {
        self.config.region().map(AsRef::as_ref)
    }

    /// Requests that were sent, including retries, by service and operation.
    pub fn requests(&self) -> &RequestCounter {
        &self.requests
    }

    /// What sends and signs a request to an endpoint that the SDK has no client for: a connector like that of all clients, and the
    /// credentials.
    ///
    /// # Errors
    /// A sentence for the user: the proxy or the certificates that the environment names cannot be used.
    pub(crate) fn signing(&self) -> Result<(SharedHttpConnector, Option<SharedCredentialsProvider>), String> {
        let http = AwsHttp::from_env()?;
        http.trust_by(&self.config)?;
        Ok((http.connector(), self.config.credentials_provider()))
    }

    /// Checks that there are credentials. Those of a role, of a container and the like are requested.
    ///
    /// # Errors
    /// What the SDK says.
    pub async fn check_credentials(&self) -> Result<(), String> {
        let Some(provider) = self.config.credentials_provider() else {
            return Err("no provider of credentials is configured".to_owned());
        };
        provider.provide_credentials().await.map(drop).map_err(|error| error_chain(&error))
    }

    fn attempt(longest: Duration) -> TimeoutConfig {
        TimeoutConfig::builder().connect_timeout(Duration::from_secs(3)).operation_attempt_timeout(longest).build()
    }

    /// A client of Kinesis.
    pub fn kinesis(&self) -> aws_sdk_kinesis::Client {
        let mut config = aws_sdk_kinesis::config::Builder::from(&self.config)
            .timeout_config(Self::attempt(SMALL_ATTEMPT))
            .interceptor(self.requests.clone());
        if let Some(endpoint) = &self.endpoint {
            config = config.endpoint_url(endpoint);
        }
        aws_sdk_kinesis::Client::from_conf(config.build())
    }

    /// A client of DynamoDB.
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let mut config = aws_sdk_dynamodb::config::Builder::from(&self.config)
            .timeout_config(Self::attempt(LEASE_ATTEMPT))
            .interceptor(self.requests.clone());
        if let Some(endpoint) = &self.endpoint {
            config = config.endpoint_url(endpoint);
        }
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    /// A client of S3. If an endpoint is set, it is not AWS: the bucket is then in the path and not in the host name.
    pub fn s3(&self) -> aws_sdk_s3::Client {
        let mut config = aws_sdk_s3::config::Builder::from(&self.config)
            .timeout_config(Self::attempt(SMALL_ATTEMPT))
            .interceptor(self.requests.clone());
        if let Some(endpoint) = &self.endpoint {
            config = config.endpoint_url(endpoint);
        }
        aws_sdk_s3::Client::from_conf(config.force_path_style(self.has_endpoint_of_s3()).build())
    }

    /// Whether an endpoint of S3 is set: by the configuration, the environment, or the profile and its `services` section.
    fn has_endpoint_of_s3(&self) -> bool {
        let key = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
        let of_service =
            self.config.service_config().zip(key.ok()).and_then(|(settings, key)| settings.load_config(key));
        self.endpoint.is_some() || self.config.endpoint_url().is_some() || of_service.is_some()
    }

    /// A client of Data Firehose.
    pub fn firehose(&self) -> aws_sdk_firehose::Client {
        let config = aws_sdk_firehose::config::Builder::from(&self.config)
            .timeout_config(Self::attempt(SMALL_ATTEMPT))
            .interceptor(self.requests.clone());
        aws_sdk_firehose::Client::from_conf(config.build())
    }

    /// A client of Secrets Manager.
    pub fn secrets(&self) -> aws_sdk_secretsmanager::Client {
        let config = aws_sdk_secretsmanager::config::Builder::from(&self.config)
            .timeout_config(Self::attempt(SMALL_ATTEMPT))
            .interceptor(self.requests.clone());
        aws_sdk_secretsmanager::Client::from_conf(config.build())
    }
}

/// The time for a request of S3 that carries this many bytes. Without a limit, a request that is never answered would be waited for like
/// one that is slow.
pub fn large_request(bytes: usize) -> aws_sdk_s3::config::Builder {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    aws_sdk_s3::Config::builder().timeout_config(Aws::attempt(LARGE_ATTEMPT + Duration::from_secs(bytes / SLOWEST)))
}

/// Whether a resource of the account was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It was made.
    Made,
    /// It existed.
    Existed,
}
