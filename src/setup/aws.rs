//! AWS: one configuration for all clients.
//!
//! Owns: how clients are made: the SDK's own settings and credentials (environment, profiles, roles), one HTTP stack, time
//! limits of one attempt, and counting the requests that go out. Does not own: what is asked of a service (`lake`, `source`,
//! the checkpoints crate), or how long a call that failed is tried again (`retry`): an attempt that fails is repeated twice by
//! the SDK itself, with its own backoff, and then by the caller.
//!
//! Nothing here shadows a setting of the SDK: `AWS_REGION`, `AWS_PROFILE`, `AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_S3` and so
//! on mean what AWS says they mean.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

/// Longest attempt of a small request.
const SMALL_ATTEMPT: Duration = Duration::from_secs(10);
/// Longest attempt of a request that shows others that the worker is alive: a few of them must fit the failover time.
const LEASE_ATTEMPT: Duration = Duration::from_secs(3);
/// Longest attempt of a request that carries megabytes.
const LARGE_ATTEMPT: Duration = Duration::from_secs(60);

/// Makes clients.
#[derive(Debug, Clone)]
pub struct Aws {
    config: SdkConfig,
    requests: RequestCounter,
}

impl Aws {
    /// Reads the SDK's settings from the environment and the shared configuration files. Asks no service.
    pub async fn load() -> Self {
        let http =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let config = aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await;
        Self::with(config)
    }

    /// Clients of these settings, whatever the environment says.
    pub fn with(config: SdkConfig) -> Self {
        Aws { config, requests: RequestCounter::default() }
    }

    /// The region; `None` where none is set.
    pub fn region(&self) -> Option<&str> {
        self.config.region().map(AsRef::as_ref)
    }

    /// Requests that went out, repeated ones too, by service and operation.
    pub fn requests(&self) -> &RequestCounter {
        &self.requests
    }

    fn attempt(longest: Duration) -> TimeoutConfig {
        TimeoutConfig::builder().connect_timeout(Duration::from_secs(3)).operation_attempt_timeout(longest).build()
    }

    /// A client of Kinesis.
    pub fn kinesis(&self) -> aws_sdk_kinesis::Client {
        let config = aws_sdk_kinesis::config::Builder::from(&self.config)
            .timeout_config(Self::attempt(SMALL_ATTEMPT))
            .interceptor(self.requests.clone());
        aws_sdk_kinesis::Client::from_conf(config.build())
    }

    /// A client of DynamoDB.
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let config = aws_sdk_dynamodb::config::Builder::from(&self.config)
            .timeout_config(Self::attempt(LEASE_ATTEMPT))
            .interceptor(self.requests.clone());
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    /// A client of S3. Where an endpoint is set, it is no AWS, and buckets are in the path, not in the host's name.
    pub fn s3(&self) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::config::Builder::from(&self.config)
            .timeout_config(Self::attempt(LARGE_ATTEMPT))
            .interceptor(self.requests.clone());
        let own_endpoint = self.config.endpoint_url().is_some()
            || ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"].iter().any(|name| std::env::var_os(name).is_some());
        aws_sdk_s3::Client::from_conf(config.force_path_style(own_endpoint).build())
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

/// Counts requests as they go out.
#[derive(Debug, Clone, Default)]
pub struct RequestCounter {
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl RequestCounter {
    /// The counts, by `Service.Operation`.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Intercept for RequestCounter {
    fn name(&self) -> &'static str {
        "RequestCounter"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(metadata) = config.load::<Metadata>() {
            let name = format!("{}.{}", metadata.service(), metadata.name());
            *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
        }
        Ok(())
    }
}
