//! The models of an AWS account behind one server in the test's own process.
//!
//! Owns: a stream and a bucket in that account, and the environment by which a command reaches it. Does not own: what the models do
//! (`tests/support/aws_model`), what a test puts into the stream, or who may do what (`roles`).

use std::ops::Deref;
use std::sync::Arc;

use aws_model::access::{Access, Keys};
use aws_model::account::Account;
use aws_model::clock::ModelClock;
use aws_model::faults::Faults;
use aws_model::kinesis::Settings;
use aws_model::server::Server;

use crate::common::folder::Folder;

/// The variable that holds the pseudonym key.
pub(crate) const KEY: &str = "KEY_OF_TESTS";

/// The account and its server, for as long as the test runs.
pub(crate) struct Services {
    account: Account,
    pub(crate) faults: Arc<Faults>,
    pub(crate) access: Arc<Access>,
    pub(crate) clock: ModelClock,
    pub(crate) runtime: tokio::runtime::Runtime,
    server: Server,
}

impl Deref for Services {
    type Target = Account;

    fn deref(&self) -> &Account {
        &self.account
    }
}

impl Services {
    /// A stream of `shards` and an empty bucket. `clock` is called inside the runtime of the server. Everything is allowed.
    pub(crate) fn start(
        stream: &str,
        shards: u32,
        bucket: &str,
        settings: Settings,
        clock: impl FnOnce() -> ModelClock,
    ) -> Self {
        Self::guarded(stream, shards, bucket, settings, clock, Access::new(Keys::default(), |_| true))
    }

    /// The same, for those that `access` allows.
    pub(crate) fn guarded(
        stream: &str,
        shards: u32,
        bucket: &str,
        settings: Settings,
        clock: impl FnOnce() -> ModelClock,
        access: Access,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let entered = runtime.enter();
        let clock = clock();
        let account = Account::new(&clock, settings);
        let faults = Arc::new(Faults::new(0));
        let access = Arc::new(access);
        let server = account.serve_guarded(&faults, &access);
        drop(entered);
        account.kinesis.create_stream(stream, Some(shards)).unwrap();
        account.s3.create_bucket(bucket);
        Services { account, faults, access, clock, runtime, server }
    }

    /// The URL of the server.
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// Lets the commands of a folder reach this account.
    pub(crate) fn set_environment(&self, folder: &mut Folder) {
        folder.set("AWS_ENDPOINT_URL", &self.server.url());
        folder.set("AWS_REGION", "us-east-1");
        folder.set("AWS_ACCESS_KEY_ID", "test");
        folder.set("AWS_SECRET_ACCESS_KEY", "test");
        folder.set(KEY, "0123456789abcdef0123456789abcdef");
    }
}
