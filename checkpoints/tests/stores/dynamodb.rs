//! The conformance suite on the DynamoDB store, twice: with one stream, whose rows have bare shard ids as keys, and with
//! several. Every handle has a client of its own, as another process has.
//!
//! The server is the one that the SDK's environment names (`AWS_ENDPOINT_URL`, `AWS_REGION`, credentials). Each test has a
//! table of its own and does not delete it: the test server keeps nothing.
//!
//! If the server is moto, it differs from AWS:
//! - Its conditional writes are atomic only while it serves one request at a time; the concurrent tests need that.
//! - It never answers with a conflict of transactions, and leaves no key of a batch unprocessed.
//! - It does not know the tokens of requests.
//!
//! `dynamodb_faults.rs` tests, by script, what moto can't show.

use std::sync::Arc;

use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::Client;
use checkpoints::conformance::{Factory, Fixture};
use checkpoints::{DynamoStore, LeaseStore, StreamIds, StreamName, lease_store_conformance};

/// The id of a stream, as KCL writes it.
pub(crate) fn id(stream: &str) -> String {
    format!("000000000000:{stream}:1795423056")
}

/// Streams of these names; if there is only one, its keys are bare.
pub(crate) fn streams(names: &[&str]) -> StreamIds {
    let name = |name: &str| StreamName::new(name).unwrap();
    let bare = if let [only] = names { Some(name(only)) } else { None };
    StreamIds { ids: names.iter().map(|stream| (name(stream), id(stream))).collect(), bare }
}

/// A client of the server that the environment names.
pub(crate) async fn client() -> Client {
    let http = aws_smithy_http_client::Builder::new().build_http();
    Client::new(&aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await)
}

/// A name that no other table has.
pub(crate) fn table() -> String {
    let random = tempfile::tempdir().unwrap();
    let name = random.path().file_name().unwrap().to_str().unwrap();
    format!("shardlake-test-{}", name.trim_start_matches('.'))
}

struct DynamoStores {
    streams: StreamIds,
}

#[async_trait]
impl Factory for DynamoStores {
    async fn fresh(&self, handles: usize) -> Fixture {
        let table = table();
        let mut stores: Vec<Arc<dyn LeaseStore>> = Vec::new();
        for _ in 0..handles {
            let store = DynamoStore::open(client().await, &table, self.streams.clone()).await.unwrap();
            stores.push(Arc::new(store));
        }
        Fixture::new(stores, ())
    }
}

mod one_stream {
    use super::*;

    lease_store_conformance!(DynamoStores { streams: streams(&["orders"]) }, needs the local AWS stack);
}

mod several_streams {
    use super::*;

    lease_store_conformance!(DynamoStores { streams: streams(&["orders", "users"]) }, needs the local AWS stack);
}
