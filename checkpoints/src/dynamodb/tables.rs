//! The tables as such: making one, waiting until it can be used, and seeing that it is what it should be.
//!
//! Workers start at once, so a table is made by whoever comes first, and the others wait for it. A crash after the request
//! to make it leaves a table that is being made, which the next start waits for. A table that is there is never changed.
//!
//! Limits: a table that is not ready 2 minutes after it was asked for is [`StoreError::Unavailable`].

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

/// KCL 3's index, by which its workers find the leases that were given to them.
const OWNER_INDEX: &str = "LeaseOwnerToLeaseKeyIndex";

/// How long a new table may take.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// How often it is looked at meanwhile.
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

/// Sees that a table is there and can be used. Makes nothing.
pub(super) async fn find(client: &Client, table: &str) -> Result<(), StoreError> {
    match describe(client, table).await? {
        Some(_) => ready(client, table).await,
        None => Err(unusable(table, "there is no such table in this account and region")),
    }
}

/// Makes a table if it is not there, and waits until it can be used.
pub(super) async fn make(client: &Client, table: &str) -> Result<(), StoreError> {
    if describe(client, table).await?.is_none() {
        let request = Request { operation: "make the table", action: "dynamodb:CreateTable", table };
        let create = schema(client.create_table().table_name(table)).map_err(|error| StoreError::Invalid {
            operation: format!("make the table {table}"),
            problem: error.to_string(),
        })?;
        match create.send().await {
            Ok(_) => {}
            // Another worker was faster, or the reply to an attempt of ours was lost.
            Err(error) if error.as_service_error().is_some_and(CreateTableError::is_resource_in_use_exception) => {}
            Err(error) => return Err(request.explain(&error)),
        }
    }
    ready(client, table).await
}

/// Waits until a table that is there, or about to be, can be used.
async fn ready(client: &Client, table: &str) -> Result<(), StoreError> {
    let give_up = Instant::now() + READY_TIMEOUT;
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
            // The answer may come from before it was made.
            None => None,
        };
        if Instant::now() >= give_up {
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
    let request = Request { operation: "look at the table", action: "dynamodb:DescribeTable", table };
    match client.describe_table().table_name(table).send().await {
        Ok(found) => Ok(found.table),
        Err(error) if error.as_service_error().is_some_and(DescribeTableError::is_resource_not_found_exception) => {
            Ok(None)
        }
        Err(error) => Err(request.explain(&error)),
    }
}

/// That the key is the one that this store uses.
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
                "it is the table of something else: its key is {}, and not the text {expected} alone",
                names.join(" and ")
            );
            Err(unusable(table, problem))
        }
    }
}

fn unusable(table: &str, problem: impl Into<String>) -> StoreError {
    StoreError::Unusable { store: format!("DynamoDB table {table}"), problem: problem.into() }
}
