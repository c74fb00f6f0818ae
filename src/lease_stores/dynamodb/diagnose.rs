//! What is wrong with a lease table in DynamoDB.
//!
//! Owns: reading the settings of the table, and judging them. Does not own: the rows (`inspect::leases`).

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{PointInTimeRecoveryStatus, TableStatus, TimeToLiveStatus};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use checkpoints::{DynamoStore, error_chain};

use crate::diagnosis::{Diagnosis, FindingKind};

/// Notes what is wrong with a table. One that does not exist is not wrong: a worker makes it.
pub(super) async fn diagnose(client: &Client, table: &str, diagnosis: &mut Diagnosis) {
    let described = match client.describe_table().table_name(table).send().await {
        Ok(answer) => answer.table,
        Err(error) if error.code() == Some("ResourceNotFoundException") => None,
        Err(error) => {
            return diagnosis.cannot_check(format!("the table {table}"), why(&error, "dynamodb:DescribeTable"));
        }
    };
    let Some(described) = described else { return };
    let status = described.table_status.clone().unwrap_or(TableStatus::Active);
    if !matches!(status, TableStatus::Active | TableStatus::Updating | TableStatus::Creating) {
        let what = format!("the table {table} is not active, but {}", status.as_str());
        diagnosis.find(FindingKind::LeaseTableUnusable, what);
    }
    if let Err(error) = DynamoStore::check_table(table, &described) {
        return diagnosis.find(FindingKind::LeaseTableUnusable, error.to_string());
    }
    if described.deletion_protection_enabled != Some(true) {
        let what = format!("the table {table} is not protected against deletion");
        diagnosis.find(FindingKind::LeaseTableUnprotected, what);
    }
    match client.describe_time_to_live().table_name(table).send().await {
        Ok(answer) => {
            let found = answer.time_to_live_description;
            let status = found.as_ref().and_then(|found| found.time_to_live_status.as_ref());
            if matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)) {
                let attribute = found.as_ref().and_then(|found| found.attribute_name.as_deref()).unwrap_or("?");
                let what = format!("the table {table} deletes rows by the attribute {attribute}");
                diagnosis.find(FindingKind::LeaseRowsExpire, what);
            }
        }
        Err(error) => {
            let what = format!("whether rows of the table {table} expire");
            diagnosis.cannot_check(what, why(&error, "dynamodb:DescribeTimeToLive"));
        }
    }
    match client.describe_continuous_backups().table_name(table).send().await {
        Ok(answer) => {
            let found =
                answer.continuous_backups_description.and_then(|found| found.point_in_time_recovery_description);
            let status = found.and_then(|found| found.point_in_time_recovery_status);
            if status != Some(PointInTimeRecoveryStatus::Enabled) {
                let what = format!("point-in-time recovery of the table {table} is off");
                diagnosis.find(FindingKind::LeaseTableNotBackedUp, what);
            }
        }
        Err(error) => {
            let what = format!("whether the table {table} has point-in-time recovery");
            diagnosis.cannot_check(what, why(&error, "dynamodb:DescribeContinuousBackups"));
        }
    }
}

/// Why a request failed, and what to allow if it was refused.
fn why<E>(error: &SdkError<E, HttpResponse>, action: &str) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let said = error_chain(error);
    if error.code() == Some("AccessDeniedException") { format!("{said}; allow {action}") } else { said }
}
