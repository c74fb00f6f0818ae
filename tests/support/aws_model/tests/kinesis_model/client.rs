//! A client of the SDK for a fresh model, and short forms of the tests' calls.

use std::sync::Arc;
use std::time::Duration;

use aws_model::clock::ModelClock;
use aws_model::faults::{Faults, ServiceName};
use aws_model::kinesis::{Kinesis, Settings};
use aws_model::server::{Server, Services};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{Shard, ShardIteratorType};

/// 1 January 2026, the models' time when a test begins.
pub(crate) const BEGINNING_MS: i64 = 1_767_225_600_000;
/// The stream of every test.
pub(crate) const STREAM: &str = "stream";

/// A client of the server at `url`, without retries.
pub(crate) fn client_of(url: &str) -> Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(url)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(Duration::from_secs(20)).build())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

/// A model behind HTTP, with one stream.
pub(crate) struct World {
    pub(crate) kinesis: Kinesis,
    pub(crate) clock: ModelClock,
    pub(crate) faults: Arc<Faults>,
    /// The server runs as long as this lives.
    _server: Server,
    pub(crate) client: Client,
}

impl World {
    pub(crate) fn new(shards: u32, settings: Settings) -> Self {
        let clock = ModelClock::manual(BEGINNING_MS);
        let kinesis = Kinesis::new(clock.clone(), settings);
        let faults = Arc::new(Faults::new(1));
        let services = Services::new().with(ServiceName::Kinesis, kinesis.clone());
        let server = Server::start(services, Arc::clone(&faults));
        kinesis.create_stream(STREAM, Some(shards)).unwrap();
        let client = client_of(&server.url());
        World { kinesis, clock, faults, _server: server, client }
    }

    /// Puts a record by its partition key; returns its sequence number.
    pub(crate) async fn put(&self, key: &str, data: impl Into<Vec<u8>>) -> String {
        let put = self.client.put_record().stream_name(STREAM).partition_key(key).data(Blob::new(data.into()));
        put.send().await.unwrap().sequence_number
    }

    pub(crate) async fn iterator(&self, shard: &str, kind: ShardIteratorType) -> String {
        let asked = self.client.get_shard_iterator().stream_name(STREAM).shard_id(shard).shard_iterator_type(kind);
        asked.send().await.unwrap().shard_iterator.unwrap()
    }

    pub(crate) async fn oldest(&self, shard: &str) -> String {
        self.iterator(shard, ShardIteratorType::TrimHorizon).await
    }

    pub(crate) async fn get(&self, iterator: impl Into<String>) -> GetRecordsOutput {
        self.client.get_records().shard_iterator(iterator).send().await.unwrap()
    }

    /// The contents of all records of a shard.
    pub(crate) async fn contents(&self, shard: &str) -> Vec<String> {
        contents(&self.get(self.oldest(shard).await).await)
    }

    pub(crate) async fn shards(&self) -> Vec<Shard> {
        self.client.list_shards().stream_name(STREAM).send().await.unwrap().shards.unwrap()
    }
}

pub(crate) fn contents(answer: &GetRecordsOutput) -> Vec<String> {
    answer.records.iter().map(|record| String::from_utf8(record.data.clone().into_inner()).unwrap()).collect()
}

/// The name of a shard.
pub(crate) fn shard(number: u32) -> String {
    format!("shardId-{number:012}")
}

/// The type and message of an error that the service returned.
pub(crate) fn refusal<T, E: ProvideErrorMetadata>(answer: Result<T, SdkError<E>>) -> (String, String) {
    match answer {
        Ok(_) => panic!("not refused"),
        Err(error) => (error.code().unwrap_or("none").to_owned(), error.message().unwrap_or("none").to_owned()),
    }
}
