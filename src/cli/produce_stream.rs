//! `produce --to kinesis://STREAM`: sample records into a stream.
//!
//! Owns: batches, pace, and sending again what a request did not take. A record is put at least once: one whose answer was
//! lost may be there twice, as with every producer. Limits, which are Kinesis's: 500 records and 5 MiB a request.

use std::time::Duration;

use anyhow::Context;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;

use crate::aws::{Access, Aws, ResourceName};
use crate::cli::Usage;
use crate::cli::progress_bar::bar;
use samples::Generator;

/// Records and bytes of one request.
const BATCH_RECORDS: usize = 500;
const BATCH_BYTES: usize = 4 << 20;
/// Requests in a row that may fail, or take nothing.
const ATTEMPTS: u32 = 12;

/// Puts records, and gives their bytes.
pub(crate) async fn put(
    mut generator: Generator,
    stream: &ResourceName,
    count: u64,
    rate: Option<u64>,
) -> anyhow::Result<u64> {
    let client = Aws::load().await.map_err(Usage)?.reach(&Access::default(), stream.region()).await?.kinesis();
    let bar = bar(count, "{bar:30} {percent:>3}%  {pos} records");
    let begun = tokio::time::Instant::now();
    let (mut batch, mut batch_bytes, mut bytes) = (Vec::new(), 0, 0);
    // With a rate, a tenth of a second's records a request.
    let most = rate.map_or(BATCH_RECORDS, |rate| usize::try_from(rate / 10).unwrap_or(1).clamp(1, BATCH_RECORDS));
    for number in 1..=count {
        let mut record = Vec::with_capacity(1 << 10);
        generator.next_into(&mut record);
        batch_bytes += record.len();
        bytes += record.len() as u64;
        let entry = PutRecordsRequestEntry::builder().data(Blob::new(record)).partition_key(number.to_string());
        batch.push(entry.build()?);
        if batch.len() == most || batch_bytes >= BATCH_BYTES || number == count {
            put_all(&client, stream, std::mem::take(&mut batch)).await?;
            batch_bytes = 0;
            bar.set_position(number);
        }
        if let Some(rate) = rate.filter(|rate| *rate > 0 && batch.is_empty()) {
            tokio::time::sleep_until(begun + Duration::from_micros(number.saturating_mul(1_000_000) / rate)).await;
        }
    }
    bar.finish_and_clear();
    Ok(bytes)
}

/// Sends records until all were taken.
async fn put_all(client: &Client, stream: &ResourceName, mut batch: Vec<PutRecordsRequestEntry>) -> anyhow::Result<()> {
    let arn = stream.region().is_some().then(|| stream.as_str().to_owned());
    let name = arn.is_none().then(|| stream.name().to_owned());
    let mut wait = Duration::from_millis(100);
    let mut failures = 0;
    while !batch.is_empty() {
        let before = batch.len();
        let request = client.put_records().set_stream_name(name.clone()).set_stream_arn(arn.clone());
        match request.set_records(Some(batch.clone())).send().await {
            Ok(answer) => {
                let results = answer.records().iter().map(|result| result.error_code().is_some());
                let left: Vec<_> = batch.into_iter().zip(results).filter(|(_, failed)| *failed).collect();
                batch = left.into_iter().map(|(entry, _)| entry).collect();
            }
            Err(error) if error.as_service_error().is_none() && failures < ATTEMPTS => {}
            Err(error) => return Err(error).with_context(|| format!("could not put records into stream {stream}")),
        }
        failures = if batch.len() < before { 0 } else { failures + 1 };
        if failures > ATTEMPTS {
            anyhow::bail!("stream {stream} takes no records: it has too few shards for them; use --rate, or split it");
        }
        if !batch.is_empty() {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(2));
        }
    }
    Ok(())
}
