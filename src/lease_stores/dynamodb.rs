//! A DynamoDB table as a lease store, for a fleet.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, Put, TransactWriteItem};
use checkpoints::{DynamoStore, LeaseStore, StoreError, StreamIds};

use crate::aws::permissions::{PROBE, Permission, Trials};
use crate::aws::{Aws, Created};
use crate::lease_stores::LeaseBackend;
use crate::settings::url::{Url, is_aws_name};

/// The IAM actions that a lease table needs. A transaction has no action of its own: it needs those of the writes in it.
pub(super) const PERMISSIONS: &[Permission] = &[
    Permission { action: "dynamodb:DescribeTable", requests: &["DynamoDB.DescribeTable"] },
    Permission { action: "dynamodb:Scan", requests: &["DynamoDB.Scan"] },
    Permission { action: "dynamodb:BatchGetItem", requests: &["DynamoDB.BatchGetItem"] },
    Permission { action: "dynamodb:PutItem", requests: &["DynamoDB.PutItem"] },
    Permission { action: "dynamodb:UpdateItem", requests: &["DynamoDB.UpdateItem", "DynamoDB.TransactWriteItems"] },
    Permission { action: "dynamodb:DeleteItem", requests: &["DynamoDB.DeleteItem"] },
    // For the first start.
    Permission { action: "dynamodb:CreateTable", requests: &["DynamoDB.CreateTable"] },
];

/// A condition that cannot hold: the item of the probe never exists.
const NEVER: &str = "attribute_exists(leaseKey)";
/// The codes of a write whose condition does not hold.
const REFUSED: [&str; 2] = ["ConditionalCheckFailedException", "TransactionCanceledException"];

/// A table, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamoDbUrl(String);

impl DynamoDbUrl {
    /// The scheme of its URLs.
    pub const SCHEME: &'static str = "dynamodb";
    /// What a URL looks like.
    pub const FORM: &'static str = "dynamodb://TABLE";

    pub(super) fn parse(url: &Url<'_>) -> Result<Self, String> {
        if is_aws_name(url.rest, 3..=255) {
            return Ok(DynamoDbUrl(url.rest.to_owned()));
        }
        Err(format!("'{url}': expected {}, the table's name (3 to 255 of a-z, A-Z, 0-9, '.', '_', '-')", Self::FORM))
    }
}

impl fmt::Display for DynamoDbUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dynamodb://{}", self.0)
    }
}

#[async_trait]
impl LeaseBackend for DynamoDbUrl {
    fn needs_aws(&self) -> bool {
        true
    }

    async fn open(&self, streams: StreamIds, aws: Option<&Aws>) -> Result<Arc<dyn LeaseStore>, StoreError> {
        Ok(Arc::new(DynamoStore::open(Aws::required(aws).dynamodb(), &self.0, streams).await?))
    }

    async fn open_existing(
        &self,
        streams: StreamIds,
        aws: Option<&Aws>,
    ) -> Result<Option<Arc<dyn LeaseStore>>, StoreError> {
        let client = Aws::required(aws).dynamodb();
        if !DynamoStore::exists(&client, &self.0).await? {
            return Ok(None);
        }
        Ok(Some(Arc::new(DynamoStore::open_existing(client, &self.0, streams).await?)))
    }

    async fn create(&self, streams: StreamIds, aws: &Aws) -> Result<Option<Created>, String> {
        let exists = aws.dynamodb().describe_table().table_name(&self.0).send().await.is_ok();
        self.open(streams, Some(aws)).await.map_err(|error| error.to_string())?;
        Ok(Some(if exists { Created::Existed } else { Created::Made }))
    }

    async fn try_permissions(&self, aws: &Aws, trials: &mut Trials) {
        let (client, table) = (aws.dynamodb(), self.0.as_str());
        let absent = ("ResourceNotFoundException", "the table (a worker makes it: dynamodb:CreateTable)");
        let described = client.describe_table().table_name(table).send().await;
        let exists = described.is_ok();
        trials.note("dynamodb:DescribeTable", table, described, &[], absent);
        if !exists {
            return;
        }
        let key = || AttributeValue::S(PROBE.to_owned());
        let scanned = client.scan().table_name(table).limit(1).send().await;
        trials.note("dynamodb:Scan", table, scanned, &[], absent);
        let keys = KeysAndAttributes::builder().keys([("leaseKey".to_owned(), key())].into_iter().collect()).build();
        if let Ok(keys) = keys {
            let got = client.batch_get_item().request_items(table, keys).send().await;
            trials.note("dynamodb:BatchGetItem", table, got, &[], absent);
        }
        let put = client.put_item().table_name(table).item("leaseKey", key()).condition_expression(NEVER).send().await;
        trials.note("dynamodb:PutItem", table, put, &REFUSED, absent);
        let update = client.update_item().table_name(table).key("leaseKey", key()).condition_expression(NEVER);
        let update = update
            .update_expression("SET leaseCounter = :one")
            .expression_attribute_values(":one", AttributeValue::N("1".to_owned()));
        trials.note("dynamodb:UpdateItem", table, update.send().await, &REFUSED, absent);
        let delete = client.delete_item().table_name(table).key("leaseKey", key()).condition_expression(NEVER);
        trials.note("dynamodb:DeleteItem", table, delete.send().await, &REFUSED, absent);
        let put = Put::builder().table_name(table).item("leaseKey", key()).condition_expression(NEVER).build();
        if let Ok(put) = put {
            let item = TransactWriteItem::builder().put(put).build();
            let sent = client.transact_write_items().transact_items(item).send().await;
            trials.note("dynamodb:PutItem (in a transaction)", table, sent, &REFUSED, absent);
        }
    }
}
