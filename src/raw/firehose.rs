//! A delivery stream of Amazon Data Firehose.
//!
//! Owns: PutRecordBatch and what its responses mean. Does not own: batches and retries (`raw`). Limits, which are Firehose's: 500
//! records and 4 MiB for each request, 1,000 KiB for each record (the configuration refuses larger ones).

use async_trait::async_trait;
use aws_sdk_firehose::Client;
use aws_sdk_firehose::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_firehose::primitives::Blob;
use aws_sdk_firehose::types::Record;
use checkpoints::{error_chain, is_retryable};

use crate::raw::{RawError, RawSink};

/// Bytes of a record with its line end.
pub const RECORD_BYTES_MAX: u64 = 1_000 << 10;

/// A delivery stream.
#[derive(Debug, Clone)]
pub struct FirehoseSink {
    client: Client,
    delivery_stream: String,
}

impl FirehoseSink {
    /// The delivery stream of this name.
    pub fn new(client: Client, delivery_stream: &str) -> Self {
        FirehoseSink { client, delivery_stream: delivery_stream.to_owned() }
    }

    fn name(&self) -> String {
        format!("delivery stream {}", self.delivery_stream)
    }

    /// Checks that the delivery stream exists.
    ///
    /// # Errors
    /// It does not exist, or cannot be reached.
    pub async fn probe(&self) -> Result<(), RawError> {
        let described = self.client.describe_delivery_stream().delivery_stream_name(&self.delivery_stream).send().await;
        described.map(drop).map_err(|error| self.failed(&error, "firehose:DescribeDeliveryStream"))
    }

    fn failed<E>(&self, error: &SdkError<E>, action: &str) -> RawError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let sink = self.name();
        match error.as_service_error().and_then(ProvideErrorMetadata::code) {
            Some("ResourceNotFoundException") => RawError::Refused { sink, problem: "it does not exist".to_owned() },
            Some("AccessDeniedException") => {
                RawError::Refused { sink, problem: format!("access is denied: the worker needs {action}") }
            }
            _ if is_retryable(error) => RawError::Unavailable { sink, problem: error_chain(error) },
            _ => RawError::Refused { sink, problem: error_chain(error) },
        }
    }
}

#[async_trait]
impl RawSink for FirehoseSink {
    fn batch_records_max(&self) -> usize {
        500
    }

    fn batch_bytes_max(&self) -> usize {
        4 << 20
    }

    async fn put(&self, records: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, RawError> {
        let mut request = self.client.put_record_batch().delivery_stream_name(&self.delivery_stream);
        for record in &records {
            // It has its data, so building it cannot fail.
            let Ok(record) = Record::builder().data(Blob::new(record.clone())).build() else { continue };
            request = request.records(record);
        }
        let answer = request.send().await.map_err(|error| self.failed(&error, "firehose:PutRecordBatch"))?;
        if answer.failed_put_count() == 0 {
            return Ok(Vec::new());
        }
        // One entry for each record, in the same order. The entry of a rejected record has an error.
        let responses = answer.request_responses();
        if responses.len() != records.len() {
            return Ok(records);
        }
        let rejected = records.into_iter().zip(responses).filter(|(_, entry)| entry.error_code().is_some());
        Ok(rejected.map(|(record, _)| record).collect())
    }
}
