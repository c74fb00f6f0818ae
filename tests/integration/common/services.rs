//! Models of Kinesis, DynamoDB, S3 and Firehose behind one server in the test's own process.
//!
//! Owns: starting them with one clock, a stream and a bucket, and the environment by which a command reaches them. Does not own:
//! what the models do (`tests/support/aws_model`), or what a test puts into the stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_model::clock::ModelClock;
use aws_model::dynamodb::DynamoDb;
use aws_model::faults::{Faults, ServiceName};
use aws_model::firehose::Firehose;
use aws_model::http::{Request, Service};
use aws_model::kinesis::{Kinesis, Settings};
use aws_model::s3::S3;
use aws_model::server::{Server, Services as ServedServices};
use bytes::Bytes;

use crate::common::folder::Folder;

/// The variable that holds the key of pseudonyms.
pub(crate) const KEY: &str = "KEY_OF_TESTS";

/// The models, for as long as the test runs.
pub(crate) struct Services {
    pub(crate) kinesis: Kinesis,
    pub(crate) dynamodb: DynamoDb,
    pub(crate) s3: S3,
    pub(crate) firehose: Firehose,
    pub(crate) faults: Arc<Faults>,
    pub(crate) clock: ModelClock,
    pub(crate) runtime: tokio::runtime::Runtime,
    server: Server,
}

impl Services {
    /// A stream of `shards` and an empty bucket. `clock` is called inside the runtime of the server.
    pub(crate) fn start(
        stream: &str,
        shards: u32,
        bucket: &str,
        settings: Settings,
        clock: impl FnOnce() -> ModelClock,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let entered = runtime.enter();
        let clock = clock();
        let kinesis = Kinesis::new(clock.clone(), settings);
        let now_ms = {
            let clock = clock.clone();
            move || u64::try_from(clock.now_ms()).unwrap()
        };
        let (dynamodb, s3, firehose) = (DynamoDb::new(now_ms.clone()), S3::new(now_ms), Firehose::new());
        let faults = Arc::new(Faults::new(0));
        let served = ServedServices::new()
            .with(ServiceName::Kinesis, kinesis.clone())
            .with(ServiceName::DynamoDb, dynamodb.clone())
            .with(ServiceName::S3, s3.clone())
            .with(ServiceName::Firehose, firehose.clone());
        let server = Server::start(served, Arc::clone(&faults));
        drop(entered);
        kinesis.create_stream(stream, Some(shards)).unwrap();
        let put_bucket = Request {
            method: "PUT".to_owned(),
            path: format!("/{bucket}"),
            query: BTreeMap::new(),
            headers: BTreeMap::new(),
            body: Bytes::new(),
        };
        assert_eq!(s3.answer(&put_bucket).status, 200);
        Services { kinesis, dynamodb, s3, firehose, faults, clock, runtime, server }
    }

    /// Lets the commands of a folder reach these services.
    pub(crate) fn set_environment(&self, folder: &mut Folder) {
        folder.set("AWS_ENDPOINT_URL", &self.server.url());
        folder.set("AWS_REGION", "us-east-1");
        folder.set("AWS_ACCESS_KEY_ID", "test");
        folder.set("AWS_SECRET_ACCESS_KEY", "test");
        folder.set(KEY, "0123456789abcdef0123456789abcdef");
    }
}
