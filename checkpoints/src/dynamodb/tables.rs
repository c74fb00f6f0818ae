//! The table itself: creating it, waiting until it is ready, and checking its key.
//!
//! Workers may start at the same time: one of them creates the table, and the others wait for it. A crash after the request
//! to create it leaves a table in creation, and the next start waits for it. An existing table is never changed, except that
//! backups may be switched on: the worker that created the table may have ended before it did that.
//!
//! Limits: a table that is not ready after 2 minutes is [`StoreError::Unavailable`]. Switching on backups is tried for a minute.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{BuildError, ProvideErrorMetadata};
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType,
    PointInTimeRecoverySpecification, Projection, ProjectionType, ScalarAttributeType, SseSpecification, SseType,
    TableDescription, TableStatus, Tag,
};
use tokio::time::Instant;

use super::errors::Request;
use super::item::{LEASE_KEY, LEASE_OWNER};
use crate::error::StoreError;

/// KCL 3's index, with which its workers find the leases that were assigned to them.
const OWNER_INDEX: &str = "LeaseOwnerToLeaseKeyIndex";

/// How long a new table may take.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// The pause between two checks of a new table.
const READY_POLL: Duration = Duration::from_millis(500);

/// How often and how long switching on backups is tried. A table that is new has none for a while.
const BACKUPS_POLL: Duration = Duration::from_secs(1);
const BACKUPS_TIMEOUT: Duration = Duration::from_secs(60);

/// The permission that it needs.
const BACKUPS_ACTION: &str = "dynamodb:UpdateContinuousBackups";
/// Errors of a table that is too new.
const EARLY: [&str; 3] = ["ContinuousBackupsUnavailableException", "ResourceInUseException", "TableInUseException"];

/// How a table is created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// Its tags. They are a part of the request that creates the table, since policies may ask for them.
    pub tags: BTreeMap<String, String>,
    /// Whether deleting the table is refused until somebody switches this off.
    pub deletion_protection: bool,
    /// The key of KMS: its id, ARN or alias. `None`: a key that AWS owns.
    pub kms_key: Option<String>,
}

/// The request that creates a table.
pub(super) fn request(
    client: &Client,
    table: &str,
    options: &TableOptions,
) -> Result<CreateTableFluentBuilder, BuildError> {
    let TableOptions { tags, deletion_protection, kms_key } = options;
    let mut create = schema(client.create_table().table_name(own_name(table)))?;
    for (key, value) in tags {
        create = create.tags(Tag::builder().key(key).value(value).build()?);
    }
    if *deletion_protection {
        create = create.deletion_protection_enabled(true);
    }
    if let Some(key) = kms_key {
        let encryption =
            SseSpecification::builder().enabled(true).sse_type(SseType::Kms).kms_master_key_id(key).build();
        create = create.sse_specification(encryption);
    }
    Ok(create)
}

/// The table's name, if it is given by its ARN.
fn own_name(table: &str) -> &str {
    if table.starts_with("arn:") { table.rsplit('/').next().unwrap_or(table) } else { table }
}

/// The account in an ARN.
fn account(arn: &str) -> Option<&str> {
    arn.strip_prefix("arn:")?.split(':').nth(3)
}

/// The table as it is created: KCL's key and index, billed per request.
fn schema(create: CreateTableFluentBuilder) -> Result<CreateTableFluentBuilder, BuildError> {
    let attribute =
        |name: &str| AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build();
    let element = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
    let index = GlobalSecondaryIndex::builder()
        .index_name(OWNER_INDEX)
        .key_schema(element(LEASE_OWNER, KeyType::Hash)?)
        .key_schema(element(LEASE_KEY, KeyType::Range)?)
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build())
        .build()?;
    Ok(create
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute(LEASE_KEY)?)
        .attribute_definitions(attribute(LEASE_OWNER)?)
        .key_schema(element(LEASE_KEY, KeyType::Hash)?)
        .global_secondary_indexes(index))
}

/// Checks that a table exists and waits until it is ready. Creates nothing.
pub(super) async fn find(client: &Client, table: &str) -> Result<(), StoreError> {
    match describe(client, table).await? {
        Some(_) => ready(client, table).await,
        None => Err(unusable(table, "there is no such table in this account and region")),
    }
}

/// Whether there is such a table, once one that is being deleted is gone.
pub(super) async fn exists(client: &Client, table: &str) -> Result<bool, StoreError> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        match describe(client, table).await? {
            None => return Ok(false),
            Some(found) if found.table_status() != Some(&TableStatus::Deleting) => return Ok(true),
            Some(_) if Instant::now() >= deadline => {
                return Err(StoreError::Unavailable {
                    operation: format!("open the DynamoDB table {table}"),
                    problem: format!("it is still being deleted after {} s", READY_TIMEOUT.as_secs()),
                });
            }
            Some(_) => tokio::time::sleep(READY_POLL).await,
        }
    }
}

/// Creates a table if there is none, and waits until it is ready.
pub(super) async fn create(client: &Client, table: &str, options: &TableOptions) -> Result<(), StoreError> {
    if describe(client, table).await?.is_none() {
        let invalid = |error: BuildError| StoreError::Invalid {
            operation: format!("create the table {table}"),
            problem: error.to_string(),
        };
        let create = request(client, table, options).map_err(invalid)?;
        let request = Request { operation: "create the table", action: "dynamodb:CreateTable", table };
        match create.send().await {
            Ok(created) => check_account(table, created.table_description())?,
            // Another worker was faster, or the reply to an earlier attempt of ours was lost.
            Err(error) if error.as_service_error().is_some_and(CreateTableError::is_resource_in_use_exception) => {
                check_account(table, describe(client, own_name(table)).await?.as_ref())?;
            }
            Err(error) => return Err(request.explain(&error)),
        }
    }
    ready(client, table).await
}

/// Checks that a table that was created, or is there, is in the account that the ARN of the wanted one says. A table of another
/// account cannot be created; DynamoDB usually refuses to describe it already.
fn check_account(table: &str, found: Option<&TableDescription>) -> Result<(), StoreError> {
    let arn = found.and_then(TableDescription::table_arn).unwrap_or_default();
    match account(table).zip(account(arn)) {
        Some((wanted, found)) if wanted != found => Err(unusable(
            table,
            format!(
                "it does not exist. The account of these credentials has {arn}: name that table, or create this one in its own account"
            ),
        )),
        _ => Ok(()),
    }
}

/// Switches on point-in-time recovery, unless it is on.
pub(super) async fn switch_on_backups(client: &Client, table: &str) -> Result<(), StoreError> {
    let deadline = Instant::now() + BACKUPS_TIMEOUT;
    loop {
        let on = PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(true).build();
        let on = on.expect("the switch, the only required part, is set");
        let update = client.update_continuous_backups().table_name(table).point_in_time_recovery_specification(on);
        let Err(error) = update.send().await else { return Ok(()) };
        // Backups of a new table are not there yet, or another worker is switching them on.
        let is_early = error.code().is_some_and(|code| EARLY.contains(&code));
        let error = Request { operation: "switch on backups", action: BACKUPS_ACTION, table }.explain(&error);
        if !(is_early || error.is_retryable()) || Instant::now() >= deadline {
            return Err(error);
        }
        tokio::time::sleep(BACKUPS_POLL).await;
    }
}

/// Waits until a table that exists, or is about to, is ready.
async fn ready(client: &Client, table: &str) -> Result<(), StoreError> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let state = match describe(client, table).await? {
            Some(found) => match found.table_status() {
                Some(TableStatus::Active | TableStatus::Updating) => return check(table, &found),
                Some(TableStatus::Creating | TableStatus::Deleting) => found.table_status().cloned(),
                other => {
                    let status = other.map_or("unknown", TableStatus::as_str);
                    return Err(unusable(table, format!("its status is {status}")));
                }
            },
            // The answer may be older than the table.
            None => None,
        };
        if Instant::now() >= deadline {
            return Err(StoreError::Unavailable {
                operation: format!("open the DynamoDB table {table}"),
                problem: format!(
                    "it was not ready within {} s, its status is {}",
                    READY_TIMEOUT.as_secs(),
                    state.as_ref().map_or("unknown", TableStatus::as_str)
                ),
            });
        }
        tokio::time::sleep(READY_POLL).await;
    }
}

async fn describe(client: &Client, table: &str) -> Result<Option<TableDescription>, StoreError> {
    let request = Request { operation: "describe the table", action: "dynamodb:DescribeTable", table };
    match client.describe_table().table_name(table).send().await {
        Ok(found) => Ok(found.table),
        Err(error) if error.as_service_error().is_some_and(DescribeTableError::is_resource_not_found_exception) => {
            Ok(None)
        }
        Err(error) => Err(request.explain(&error)),
    }
}

/// Checks that the key is the one that this store uses.
pub(super) fn check(table: &str, found: &TableDescription) -> Result<(), StoreError> {
    let expected = LEASE_KEY;
    let is_text = found.attribute_definitions().iter().any(|attribute| {
        attribute.attribute_name() == expected && *attribute.attribute_type() == ScalarAttributeType::S
    });
    match found.key_schema() {
        [key] if key.attribute_name() == expected && is_text => Ok(()),
        others => {
            let names: Vec<&str> = others.iter().map(KeySchemaElement::attribute_name).collect();
            let problem = format!(
                "it is not a lease table: its key is {} instead of the text {expected} alone",
                names.join(" and ")
            );
            Err(unusable(table, problem))
        }
    }
}

fn unusable(table: &str, problem: impl Into<String>) -> StoreError {
    StoreError::Unusable { store: format!("DynamoDB table {table}"), problem: problem.into() }
}
