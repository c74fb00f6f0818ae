//! The object store of a lake on S3, behind the official SDK, against the model of S3.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_model::account::Account;
use aws_model::clock::ModelClock;
use aws_model::faults::Faults;
use aws_model::kinesis::Settings;
use aws_model::server::Server;
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use shardlake::aws::Aws;
use shardlake::lake::{S3Location, S3Options, S3Store};

use crate::aws::cloud::BUCKET;
use crate::common::now_ms;

/// An empty lake, and the server that it is on.
fn store() -> (S3Store, Server) {
    static LAKES: AtomicU64 = AtomicU64::new(0);
    let account = Account::new(&ModelClock::tokio(now_ms()), Settings::default());
    account.s3.create_bucket(BUCKET);
    let server = account.serve(&Arc::new(Faults::new(0)));
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(server.url())
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("test", "test", None, None, "test")))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    let prefix = format!("lake-{}/", LAKES.fetch_add(1, Ordering::Relaxed));
    let location = S3Location::new(BUCKET, &prefix).unwrap();
    (S3Store::new(Aws::with(config).s3(), location, &S3Options::default()).unwrap(), server)
}

shardlake::object_store_conformance!(store());
