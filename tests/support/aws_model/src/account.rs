//! All models of one AWS account, on one clock: what most tests need.
//!
//! Does not own: what is in them (streams, buckets, tables), faults, and the server's life.

use std::sync::Arc;

use crate::access::Access;
use crate::clock::ModelClock;
use crate::dynamodb::DynamoDb;
use crate::faults::{Faults, ServiceName};
use crate::firehose::Firehose;
use crate::kinesis::{Kinesis, Settings};
use crate::s3::S3;
use crate::secrets::Secrets;
use crate::server::{Server, Services};
use crate::sts::Sts;

/// The models of an account. Clones share them.
#[derive(Debug, Clone)]
pub struct Account {
    /// Kinesis.
    pub kinesis: Kinesis,
    /// DynamoDB.
    pub dynamodb: DynamoDb,
    /// S3.
    pub s3: S3,
    /// Data Firehose.
    pub firehose: Firehose,
    /// The Security Token Service.
    pub sts: Sts,
    /// Secrets Manager.
    pub secrets: Secrets,
}

impl Account {
    /// An empty account: no streams, tables, buckets or delivery streams.
    pub fn new(clock: &ModelClock, settings: Settings) -> Self {
        let now_ms = {
            let clock = clock.clone();
            move || u64::try_from(clock.now_ms()).unwrap_or(0)
        };
        Account {
            kinesis: Kinesis::new(clock.clone(), settings),
            dynamodb: DynamoDb::new(now_ms.clone()),
            s3: S3::new(now_ms),
            firehose: Firehose::new(),
            sts: Sts::default(),
            secrets: Secrets::default(),
        }
    }

    /// All of them, for a server or for a client in the same process.
    pub fn services(&self) -> Services {
        Services::new()
            .with(ServiceName::Kinesis, self.kinesis.clone())
            .with(ServiceName::DynamoDb, self.dynamodb.clone())
            .with(ServiceName::S3, self.s3.clone())
            .with(ServiceName::Firehose, self.firehose.clone())
            .with(ServiceName::Sts, self.sts.clone())
            .with(ServiceName::SecretsManager, self.secrets.clone())
    }

    /// Serves all of them on one port of loopback, in the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime, or if loopback has no free port.
    pub fn serve(&self, faults: &Arc<Faults>) -> Server {
        Server::start(self.services(), Arc::clone(faults))
    }

    /// The same, denying what `access` does not allow.
    ///
    /// # Panics
    /// As for [`Account::serve`].
    pub fn serve_guarded(&self, faults: &Arc<Faults>, access: &Arc<Access>) -> Server {
        Server::start(self.services().guarded_by(Arc::clone(access)), Arc::clone(faults))
    }
}
