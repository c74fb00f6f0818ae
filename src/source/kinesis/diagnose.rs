//! What is wrong with a stream of Kinesis.
//!
//! Owns: reading its summary, and judging that. Does not own: whether its records can be read (the backend's `try_permissions`), whether
//! it is the stream of the lake (`identity`), how far its shards are behind.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::types::StreamStatus;
use checkpoints::error_chain;

use crate::diagnosis::{Diagnosis, FindingKind};
use crate::source::kinesis::requests;

/// Hours of retention that survive a weekend.
const RETENTION_HOURS_MIN: i32 = 48;

/// Notes what is wrong with a stream.
pub(super) async fn diagnose(client: &Client, stream: &str, diagnosis: &mut Diagnosis) {
    let summary = match requests::describe(client, stream).send().await {
        Ok(answer) => answer.stream_description_summary,
        Err(error) if error.code() == Some("ResourceNotFoundException") => {
            return diagnosis.find(FindingKind::StreamMissing, format!("stream {stream} does not exist"));
        }
        Err(error) => {
            let refused = error.code() == Some("AccessDeniedException");
            let advice = if refused { "; allow kinesis:DescribeStreamSummary" } else { "" };
            return diagnosis.cannot_check(format!("stream {stream}"), format!("{}{advice}", error_chain(&error)));
        }
    };
    let Some(summary) = summary else { return };
    if summary.stream_status == StreamStatus::Deleting {
        diagnosis.find(FindingKind::StreamMissing, format!("stream {stream} is being deleted"));
    }
    let hours = summary.retention_period_hours;
    if hours < RETENTION_HOURS_MIN {
        diagnosis.find(FindingKind::RetentionShort, format!("stream {stream} keeps records for {hours} hours"));
    }
}
