//! The requests about a stream, by its name or its ARN.
//!
//! Owns: how a request names the stream, in one place for workers and for trials of permissions. A stream of another account has to
//! be named by its ARN. Does not own: what else is in a request, or when it is sent.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::describe_stream_summary::builders::DescribeStreamSummaryFluentBuilder;
use aws_sdk_kinesis::operation::get_records::builders::GetRecordsFluentBuilder;
use aws_sdk_kinesis::operation::get_shard_iterator::builders::GetShardIteratorFluentBuilder;
use aws_sdk_kinesis::operation::list_shards::builders::ListShardsFluentBuilder;

use crate::aws::arn::is_arn;

/// A stream as a request names it: its name, or its ARN.
fn named(stream: &str) -> (Option<String>, Option<String>) {
    let stream = stream.to_owned();
    if is_arn(&stream) { (None, Some(stream)) } else { (Some(stream), None) }
}

/// The stream's own name.
pub(super) fn own_name(stream: &str) -> &str {
    if is_arn(stream) { stream.rsplit('/').next().unwrap_or(stream) } else { stream }
}

/// DescribeStreamSummary.
pub(super) fn describe(client: &Client, stream: &str) -> DescribeStreamSummaryFluentBuilder {
    let (name, arn) = named(stream);
    client.describe_stream_summary().set_stream_name(name).set_stream_arn(arn)
}

/// The first page of ListShards.
pub(super) fn list_shards(client: &Client, stream: &str) -> ListShardsFluentBuilder {
    let (name, arn) = named(stream);
    client.list_shards().set_stream_name(name).set_stream_arn(arn)
}

/// A further page of ListShards. Its token has the stream's name, which must not be sent again; the ARN must.
pub(super) fn list_more_shards(client: &Client, stream: &str, token: String) -> ListShardsFluentBuilder {
    client.list_shards().next_token(token).set_stream_arn(named(stream).1)
}

/// GetShardIterator.
pub(super) fn shard_iterator(client: &Client, stream: &str) -> GetShardIteratorFluentBuilder {
    let (name, arn) = named(stream);
    client.get_shard_iterator().set_stream_name(name).set_stream_arn(arn)
}

/// GetRecords. An iterator names the stream; the ARN also says the account.
pub(super) fn records(client: &Client, stream: &str) -> GetRecordsFluentBuilder {
    client.get_records().set_stream_arn(named(stream).1)
}
