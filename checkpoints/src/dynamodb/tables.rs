//! The table itself: creating it, waiting until it is ready, and checking its key.
//!
//! Workers may start at the same time: one of them creates the table, and the others wait for it. A crash after the request
//! to create it leaves a table in creation, and the next start waits for it. An existing table is never changed.
//!
//! Limits: a table that is not ready after 2 minutes is [`StoreError::Unavailable`].

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType, TableDescription, TableStatus,
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
pub(super) async fn create(client: &Client, table: &str) -> Result<(), StoreError> {
    if describe(client, table).await?.is_none() {
        let request = Request { operation: "create the table", action: "dynamodb:CreateTable", table };
        let create = schema(client.create_table().table_name(table)).map_err(|error| StoreError::Invalid {
            operation: format!("create the table {table}"),
            problem: error.to_string(),
        })?;
        match create.send().await {
            Ok(_) => {}
            // Another worker was faster, or the reply to an earlier attempt of ours was lost.
            Err(error) if error.as_service_error().is_some_and(CreateTableError::is_resource_in_use_exception) => {}
            Err(error) => return Err(request.explain(&error)),
        }
    }
    ready(client, table).await
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
fn check(table: &str, found: &TableDescription) -> Result<(), StoreError> {
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
