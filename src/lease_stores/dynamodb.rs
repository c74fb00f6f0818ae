//! A DynamoDB table as a lease store, for a fleet.

mod diagnose;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, KeysAndAttributes, Put, ScalarAttributeType, TransactWriteItem,
};
use checkpoints::{DynamoStore, LeaseStore, StoreError, StreamIds, TableOptions};

use crate::aws::arn::ResourceKind;
use crate::aws::permissions::{PROBE, Permission, Trials};
use crate::aws::{Access, AccessError, Aws, Created, ResourceName, access, tags};
use crate::diagnosis::Diagnosis;
use crate::lease_stores::{LeaseBackend, LeaseStoreOptions};
use crate::settings::url::Url;
use crate::settings::{Fallback, Key, Kind, Setting};

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
    // With point-in-time recovery.
    Permission { action: "dynamodb:UpdateContinuousBackups", requests: &["DynamoDB.UpdateContinuousBackups"] },
    // For `doctor`.
    Permission { action: "dynamodb:DescribeContinuousBackups", requests: &["DynamoDB.DescribeContinuousBackups"] },
    Permission { action: "dynamodb:DescribeTimeToLive", requests: &["DynamoDB.DescribeTimeToLive"] },
];

/// A table in ARNs.
const TABLE: ResourceKind = ResourceKind { service: "dynamodb", kind: "table", length: 3..=255 };
/// Tags of one table.
const TAGS_MAX: usize = 50;
/// A condition that cannot hold: the item of the probe never exists.
const NEVER: &str = "attribute_exists(leaseKey)";
/// The codes of a write whose condition does not hold.
const REFUSED: [&str; 2] = ["ConditionalCheckFailedException", "TransactionCanceledException"];

/// A table, by name or by ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamoDbUrl(ResourceName);

/// How a table is reached, and made if it does not exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DynamoDbOptions {
    /// How it is reached.
    pub access: Access,
    /// How it is made.
    pub table: TableOptions,
    /// Whether point-in-time recovery is switched on.
    pub point_in_time_recovery: bool,
}

/// The keys of `[checkpoints]` for a table in DynamoDB.
pub(super) fn keys() -> Vec<Box<dyn Setting<DynamoDbOptions>>> {
    let own = own_keys().into_iter().map(|key| Box::new(key) as Box<dyn Setting<DynamoDbOptions>>);
    own.chain(access::keys_of(|options: &mut DynamoDbOptions| &mut options.access)).collect()
}

fn own_keys() -> Vec<Key<DynamoDbOptions>> {
    vec![
        Key {
            name: "tags",
            kind: Kind::Texts(|options| &mut options.table.tags),
            default: Fallback::Depends("none"),
            doc: "Tags of a table that a worker makes, as in `tags = { team = \"data\" }`. An existing table keeps its own.",
        },
        Key {
            name: "deletion_protection",
            kind: Kind::Flag {
                read: |options, on| options.table.deletion_protection = on,
                show: |options| Some(options.table.deletion_protection),
            },
            default: Fallback::Is("false"),
            doc: "Whether a table that a worker makes is protected against deletion.",
        },
        Key {
            name: "point_in_time_recovery",
            kind: Kind::Flag {
                read: |options, on| options.point_in_time_recovery = on,
                show: |options| Some(options.point_in_time_recovery),
            },
            default: Fallback::Is("false"),
            doc: "Whether a worker switches on point-in-time recovery of the table, at its start.",
        },
        Key {
            name: "kms_key",
            kind: Kind::Text {
                form: "id, ARN or alias",
                read: |options, text| {
                    if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
                        return Err(format!("kms_key must be the id, the ARN or an alias of a key, not '{text}'"));
                    }
                    options.table.kms_key = Some(text.to_owned());
                    Ok(())
                },
                show: |options| options.table.kms_key.clone(),
            },
            default: Fallback::Depends("a key that AWS owns"),
            doc: "The key of KMS for a table that a worker makes.",
        },
    ]
}

impl DynamoDbUrl {
    /// The scheme of its URLs.
    pub const SCHEME: &'static str = "dynamodb";
    /// What a URL looks like.
    pub const FORM: &'static str = "dynamodb://TABLE";

    /// The name of this kind of lease store.
    pub const NAME: &'static str = "DynamoDB";
    /// Its service, as ARNs write it.
    pub(super) const SERVICE: &'static str = TABLE.service;

    pub(super) fn parse(url: &Url<'_>) -> Result<Self, String> {
        match ResourceName::parse(url.rest, &TABLE) {
            Ok(name) => Ok(DynamoDbUrl(name)),
            Err(problem) => Err(format!("'{url}': expected {}: {problem}", Self::FORM)),
        }
    }

    async fn client(&self, aws: &Aws, options: &LeaseStoreOptions) -> Result<aws_sdk_dynamodb::Client, AccessError> {
        Ok(aws.reach(&options.dynamodb.access, self.0.region()).await?.dynamodb())
    }

    fn not_reached(&self, AccessError { problem, passing }: AccessError) -> StoreError {
        let store = format!("DynamoDB table {}", self.0);
        match passing {
            true => StoreError::Unavailable { operation: format!("open the {store}"), problem },
            false => StoreError::Unusable { store, problem },
        }
    }
}

impl fmt::Display for DynamoDbUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dynamodb://{}", self.0)
    }
}

#[async_trait]
impl LeaseBackend for DynamoDbUrl {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn application(&self) -> Option<&str> {
        Some(self.0.name())
    }

    fn check_options(&self, options: &LeaseStoreOptions) -> Result<(), String> {
        options.dynamodb.access.check_region(self.0.region())?;
        let tags = &options.dynamodb.table.tags;
        if tags.len() > TAGS_MAX {
            return Err(format!("{} tags are too many: a table has {TAGS_MAX} at most", tags.len()));
        }
        tags::check(tags).map_err(|problem| format!("DynamoDB {problem}"))
    }

    fn needs_aws(&self) -> bool {
        true
    }

    async fn open(
        &self,
        options: &LeaseStoreOptions,
        streams: StreamIds,
        aws: Option<&Aws>,
    ) -> Result<Arc<dyn LeaseStore>, StoreError> {
        let client = self.client(Aws::required(aws), options).await.map_err(|error| self.not_reached(error))?;
        let DynamoDbOptions { table, point_in_time_recovery, .. } = &options.dynamodb;
        let store = DynamoStore::open_with(client, self.0.as_str(), table, streams).await?;
        // A worker can do without it.
        if *point_in_time_recovery && let Err(error) = store.switch_on_backups().await {
            tracing::warn!(%error, "point-in-time recovery of the lease table is not on; the next start tries again");
        }
        Ok(Arc::new(store))
    }

    async fn open_existing(
        &self,
        options: &LeaseStoreOptions,
        streams: StreamIds,
        aws: Option<&Aws>,
    ) -> Result<Option<Arc<dyn LeaseStore>>, StoreError> {
        let client = self.client(Aws::required(aws), options).await.map_err(|error| self.not_reached(error))?;
        if !DynamoStore::exists(&client, self.0.as_str()).await? {
            return Ok(None);
        }
        Ok(Some(Arc::new(DynamoStore::open_existing(client, self.0.as_str(), streams).await?)))
    }

    async fn create(
        &self,
        options: &LeaseStoreOptions,
        streams: StreamIds,
        aws: &Aws,
    ) -> Result<Option<Created>, String> {
        let client = self.client(aws, options).await.map_err(|error| error.problem)?;
        let exists = client.describe_table().table_name(self.0.as_str()).send().await.is_ok();
        self.open(options, streams, Some(aws)).await.map_err(|error| error.to_string())?;
        Ok(Some(if exists { Created::Existed } else { Created::Made }))
    }

    async fn diagnose(&self, options: &LeaseStoreOptions, aws: Option<&Aws>, diagnosis: &mut Diagnosis) {
        // What cannot be reached is reported by whoever opens it.
        if let Ok(client) = self.client(Aws::required(aws), options).await {
            diagnose::diagnose(&client, self.0.as_str(), diagnosis).await;
        }
    }

    async fn try_permissions(&self, aws: &Aws, options: &LeaseStoreOptions, trials: &mut Trials) {
        let table = self.0.as_str();
        let absent = ("ResourceNotFoundException", "the table");
        let client = match self.client(aws, options).await {
            Ok(client) => client,
            Err(error) => return trials.fail("dynamodb:DescribeTable", table, error.problem),
        };
        let described = client.describe_table().table_name(table).send().await;
        let found = described.as_ref().ok().and_then(|answer| answer.table().cloned());
        trials.note("dynamodb:DescribeTable", table, described, &[], absent);
        let Some(found) = found else {
            if !trials.last_exists() {
                try_to_create(&client, table, options, trials).await;
            }
            return;
        };
        if let Err(error) = DynamoStore::check_table(table, &found) {
            return trials.fail("dynamodb:DescribeTable", table, error.to_string());
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

/// Tries to create the table with a definition that DynamoDB refuses: of an attribute that no key has. So none is created.
async fn try_to_create(
    client: &aws_sdk_dynamodb::Client,
    table: &str,
    options: &LeaseStoreOptions,
    trials: &mut Trials,
) {
    let Some(request) = DynamoStore::create_request(client, table, &options.dynamodb.table) else { return };
    let unused = AttributeDefinition::builder().attribute_name(PROBE).attribute_type(ScalarAttributeType::S).build();
    let Ok(unused) = unused else { return };
    let created = request.attribute_definitions(unused).send().await;
    let invalid = ("ValidationException", "the table (a worker makes it at its first start)");
    trials.note("dynamodb:CreateTable", table, created, &["ResourceInUseException"], invalid);
}
