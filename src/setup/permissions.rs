//! Trying what a worker will have to do, so that a missing permission is told before it is needed.
//!
//! Owns: one harmless request for each IAM action. Reading actions are tried as they are; writing ones with a condition that
//! can't hold, or on something that is made and removed at once (an upload that is aborted). Nothing that is there is
//! changed. Does not own: making what is missing (`shardlake init`).

use std::fmt;

use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use aws_sdk_kinesis::types::ShardIteratorType;
use aws_sdk_s3::error::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use checkpoints::error_chain;

use crate::config::{BucketUrl, CheckpointsUrl, Config, KeySource, LakeUrl, RawTo, SourceUrl};
use crate::setup::aws::Aws;
use crate::source::Mode;

/// The key of an item, an object or an upload that is there only while it is tried.
const PROBE: &str = "_shardlake-probe";

/// What trying an action showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is allowed.
    Allowed,
    /// The account refuses it.
    Denied,
    /// What it acts on is not there.
    Absent(&'static str),
    /// It could not be tried.
    Failed(String),
}

impl Found {
    /// Whether a worker would fail.
    pub fn is_fault(&self) -> bool {
        matches!(self, Found::Denied | Found::Failed(_))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Allowed => f.write_str("allowed"),
            Found::Denied => f.write_str("DENIED"),
            Found::Absent(what) => write!(f, "not there yet: {what}"),
            Found::Failed(problem) => write!(f, "not known: {problem}"),
        }
    }
}

/// An action that was tried.
#[derive(Debug, Clone)]
pub struct Tried {
    /// As IAM names it.
    pub action: &'static str,
    /// What it was tried on.
    pub resource: String,
    /// What came of it.
    pub found: Found,
}

/// Tries everything that the configuration needs.
pub async fn try_all(config: &Config, aws: &Aws) -> Vec<Tried> {
    let mut tried = Vec::new();
    for source in &config.sources {
        if let SourceUrl::Kinesis(stream) = &source.url {
            kinesis(aws, stream, &source.read, &mut tried).await;
        }
    }
    if let CheckpointsUrl::DynamoDb(table) = &config.checkpoints {
        dynamodb(aws, table, &mut tried).await;
    }
    if let LakeUrl::S3(place) = &config.lake {
        s3(aws, place, &mut tried).await;
    }
    if let RawTo::Firehose { delivery_stream } = &config.output.raw_to {
        let described = aws.firehose().describe_delivery_stream().delivery_stream_name(delivery_stream).send().await;
        let found = judge(described, &[], &[("ResourceNotFoundException", "the delivery stream")]);
        note(&mut tried, "firehose:DescribeDeliveryStream", delivery_stream, found);
    }
    if let KeySource::SecretsManager(id) = &config.key {
        let read = aws.secrets().get_secret_value().secret_id(id).send().await;
        let found = judge(read, &[], &[("ResourceNotFoundException", "the secret")]);
        note(&mut tried, "secretsmanager:GetSecretValue", id, found);
    }
    tried
}

fn note(tried: &mut Vec<Tried>, action: &'static str, resource: &str, found: Found) {
    tried.push(Tried { action, resource: resource.to_owned(), found });
}

/// Reads an answer: errors with one of the codes `fine` mean that the request was allowed to be made.
fn judge<T, E>(result: Result<T, SdkError<E>>, fine: &[&str], absent: &[(&str, &'static str)]) -> Found
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let Err(error) = result else { return Found::Allowed };
    let status = error.raw_response().map(|response| response.status().as_u16());
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default().to_owned();
    if fine.contains(&code.as_str()) {
        return Found::Allowed;
    }
    if let Some((_, what)) = absent.iter().find(|(known, _)| *known == code) {
        return Found::Absent(what);
    }
    let denied = ["AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError", "Forbidden"];
    if denied.contains(&code.as_str()) || (code.is_empty() && status == Some(403)) {
        return Found::Denied;
    }
    let mut problem = error_chain(&error);
    problem.truncate(problem.char_indices().nth(160).map_or(problem.len(), |(at, _)| at));
    Found::Failed(problem)
}

async fn kinesis(aws: &Aws, stream: &str, read: &Mode, tried: &mut Vec<Tried>) {
    let client = aws.kinesis();
    let absent = [("ResourceNotFoundException", "the stream (shardlake init makes it)")];
    let described = client.describe_stream_summary().stream_name(stream).send().await;
    let arn = described
        .as_ref()
        .ok()
        .and_then(|answer| answer.stream_description_summary())
        .map(|summary| summary.stream_arn().to_owned());
    note(tried, "kinesis:DescribeStreamSummary", stream, judge(described, &[], &absent));
    let listed = client.list_shards().stream_name(stream).max_results(1).send().await;
    let shard =
        listed.as_ref().ok().and_then(|answer| answer.shards().first()).map(|shard| shard.shard_id().to_owned());
    note(tried, "kinesis:ListShards", stream, judge(listed, &[], &absent));
    let Some(shard) = shard else { return };
    let request = client.get_shard_iterator().stream_name(stream).shard_id(shard);
    let got = request.shard_iterator_type(ShardIteratorType::Latest).send().await;
    let iterator = got.as_ref().ok().and_then(|answer| answer.shard_iterator()).map(str::to_owned);
    note(tried, "kinesis:GetShardIterator", stream, judge(got, &[], &absent));
    if let Some(iterator) = iterator {
        let read = client.get_records().shard_iterator(iterator).limit(1).send().await;
        let found = judge(read, &["ProvisionedThroughputExceededException"], &absent);
        note(tried, "kinesis:GetRecords", stream, found);
    }
    if let (Mode::FanOut { consumer }, Some(arn)) = (read, arn) {
        let described = client.describe_stream_consumer().stream_arn(arn).consumer_name(consumer).send().await;
        let absent =
            [("ResourceNotFoundException", "the consumer (a worker registers it: kinesis:RegisterStreamConsumer)")];
        note(tried, "kinesis:DescribeStreamConsumer", stream, judge(described, &[], &absent));
    }
}

async fn dynamodb(aws: &Aws, table: &str, tried: &mut Vec<Tried>) {
    let client = aws.dynamodb();
    let absent = [("ResourceNotFoundException", "the table (a worker makes it: dynamodb:CreateTable)")];
    let described = client.describe_table().table_name(table).send().await;
    let there = described.is_ok();
    note(tried, "dynamodb:DescribeTable", table, judge(described, &[], &absent));
    if !there {
        return;
    }
    let key = || AttributeValue::S(PROBE.to_owned());
    // A condition that can't hold: the key of an item that is not there.
    let never = "attribute_exists(leaseKey)";
    let refused = ["ConditionalCheckFailedException", "TransactionCanceledException"];
    let scanned = client.scan().table_name(table).limit(1).send().await;
    note(tried, "dynamodb:Scan", table, judge(scanned, &[], &absent));
    let keys = aws_sdk_dynamodb::types::KeysAndAttributes::builder()
        .keys([("leaseKey".to_owned(), key())].into_iter().collect())
        .build();
    if let Ok(keys) = keys {
        let got = client.batch_get_item().request_items(table, keys).send().await;
        note(tried, "dynamodb:BatchGetItem", table, judge(got, &[], &absent));
    }
    let put = client.put_item().table_name(table).item("leaseKey", key()).condition_expression(never).send().await;
    note(tried, "dynamodb:PutItem", table, judge(put, &refused, &absent));
    let update = client.update_item().table_name(table).key("leaseKey", key()).condition_expression(never);
    let update = update
        .update_expression("SET leaseCounter = :one")
        .expression_attribute_values(":one", AttributeValue::N("1".to_owned()));
    note(tried, "dynamodb:UpdateItem", table, judge(update.send().await, &refused, &absent));
    let delete = client.delete_item().table_name(table).key("leaseKey", key()).condition_expression(never).send().await;
    note(tried, "dynamodb:DeleteItem", table, judge(delete, &refused, &absent));
    let put = Put::builder().table_name(table).item("leaseKey", key()).condition_expression(never).build();
    if let Ok(put) = put {
        let item = TransactWriteItem::builder().put(put).build();
        let sent = client.transact_write_items().transact_items(item).send().await;
        // IAM has no action for a transaction: it needs those of the writes in it.
        note(tried, "dynamodb:PutItem (in a transaction)", table, judge(sent, &refused, &absent));
    }
}

async fn s3(aws: &Aws, place: &BucketUrl, tried: &mut Vec<Tried>) {
    let client = aws.s3();
    let (bucket, prefix) = (&place.bucket, &place.prefix);
    let (whole, below) = (format!("s3://{bucket}"), format!("s3://{bucket}/{prefix}*"));
    let key = format!("{prefix}{PROBE}");
    let absent = [("NoSuchBucket", "the bucket (shardlake init makes it)")];
    let listed = client.list_objects_v2().bucket(bucket).prefix(prefix).max_keys(1).send().await;
    let found = judge(listed, &[], &absent);
    let there = !matches!(found, Found::Absent(_));
    note(tried, "s3:ListBucket", &whole, found);
    if !there {
        return;
    }
    let listed = client.list_multipart_uploads().bucket(bucket).prefix(prefix).max_uploads(1).send().await;
    note(tried, "s3:ListBucketMultipartUploads", &whole, judge(listed, &[], &absent));
    let got = client.get_object().bucket(bucket).key(&key).send().await;
    note(tried, "s3:GetObject", &below, judge(got, &["NoSuchKey"], &absent));
    let begun = client.create_multipart_upload().bucket(bucket).key(&key).send().await;
    let upload = begun.as_ref().ok().and_then(|answer| answer.upload_id()).map(str::to_owned);
    note(tried, "s3:PutObject", &below, judge(begun, &[], &absent));
    if let Some(upload) = upload {
        let aborted = client.abort_multipart_upload().bucket(bucket).key(&key).upload_id(upload).send().await;
        note(tried, "s3:AbortMultipartUpload", &below, judge(aborted, &["NoSuchUpload"], &absent));
    }
    let deleted = client.delete_object().bucket(bucket).key(&key).send().await;
    note(tried, "s3:DeleteObject", &below, judge(deleted, &["NoSuchKey"], &absent));
}
