//! Kinesis as JSON 1.1 over HTTP.
//!
//! Owns: the operations, their parameters' names, base64, times as seconds with a fraction, errors as
//! `{"__type": …, "message": …}` with status 400 (500 for a failure). Does not own: what an operation does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Kinesis;
use super::api::{
    Child, ConsumerInfo, Error, ErrorKind, Placed, Put, Record, Result, ShardFilter, ShardInfo, ShardPage, Start,
    SubscriptionEvent,
};
use super::events;
use crate::http::{Request, Response, Service, Streamed};
use crate::s3::http_date;

const JSON: &str = "application/x-amz-json-1.1";

impl Service for Kinesis {
    fn answer(&self, request: &Request) -> Response {
        let answered = Input::read(request).and_then(|input| self.operate(operation(request), &input));
        let (status, body) = match answered {
            Ok(Value::Null) => (200, String::new()),
            Ok(answer) => (200, answer.to_string()),
            Err(refusal) => {
                (if refusal.kind == ErrorKind::InternalFailure { 500 } else { 400 }, error(&refusal).to_string())
            }
        };
        Response { status, headers: self.headers(JSON), body: body.into() }
    }

    fn stream(&self, request: &Request) -> Option<std::result::Result<Streamed, Response>> {
        if operation(request) != "SubscribeToShard" {
            return None;
        }
        Some(match Input::read(request).and_then(|input| self.subscribe_by_arn(&input)) {
            Ok(session) => Ok(Streamed {
                status: 200,
                headers: self.headers("application/vnd.amazon.eventstream"),
                body: events::frames(session),
            }),
            Err(refusal) => {
                Err(Response { status: 400, headers: self.headers(JSON), body: error(&refusal).to_string().into() })
            }
        })
    }
}

fn operation(request: &Request) -> &str {
    request.headers.get("x-amz-target").and_then(|target| target.split_once('.')).map_or("", |(_, operation)| operation)
}

impl Kinesis {
    fn headers(&self, content_type: &str) -> Vec<(String, String)> {
        let id = format!("{:08x}-0000-0000-0000-000000000000", self.lock().nonce());
        let date = http_date(u64::try_from(self.clock().now_ms()).unwrap_or(0));
        vec![
            ("content-type".to_owned(), content_type.to_owned()),
            ("x-amzn-requestid".to_owned(), id),
            ("date".to_owned(), date),
        ]
    }

    fn operate(&self, operation: &str, input: &Input) -> Result<Value> {
        match operation {
            "CreateStream" => {
                let on_demand = input.0.get("StreamModeDetails").and_then(|mode| mode.get("StreamMode"))
                    == Some(&json!("ON_DEMAND"));
                let shards = if on_demand { None } else { Some(input.integer("ShardCount")?.unwrap_or(1)) };
                self.create_stream(input.required("StreamName")?, shards)?;
            }
            "DeleteStream" => {
                let with_consumers = input.0.get("EnforceConsumerDeletion") == Some(&json!(true));
                self.delete_stream(input.stream()?, with_consumers)?;
            }
            "ListStreams" => {
                return Ok(json!({ "StreamNames": self.list_streams(), "HasMoreStreams": false }));
            }
            "DescribeStream" => return self.describe(input),
            "DescribeStreamSummary" => return self.summary(input),
            "ListShards" => return self.list(input),
            "PutRecord" => {
                let Placed { shard, sequence } = self.put_record(input.stream()?, put(&input.0)?)?;
                return Ok(
                    json!({ "ShardId": shard, "SequenceNumber": sequence.to_string(), "EncryptionType": "NONE" }),
                );
            }
            "PutRecords" => return self.put_many(input),
            "GetShardIterator" => {
                let kind = input.required("ShardIteratorType")?;
                let start = start(kind, input.text("StartingSequenceNumber"), input.millis("Timestamp")?)?;
                let iterator = self.shard_iterator(input.stream()?, input.required("ShardId")?, &start)?;
                return Ok(json!({ "ShardIterator": iterator }));
            }
            "GetRecords" => return self.get(input),
            "SplitShard" => {
                let at = hash_key_of(input.required("NewStartingHashKey")?)?;
                self.split_shard(input.stream()?, input.required("ShardToSplit")?, at)?;
            }
            "MergeShards" => {
                let (shard, adjacent) = (input.required("ShardToMerge")?, input.required("AdjacentShardToMerge")?);
                self.merge_shards(input.stream()?, shard, adjacent)?;
            }
            "UpdateShardCount" => {
                let target = input.integer("TargetShardCount")?.unwrap_or(0);
                let current = self.update_shard_count(input.stream()?, target)?;
                return Ok(json!({
                    "StreamName": input.stream()?, "CurrentShardCount": current, "TargetShardCount": target,
                }));
            }
            "IncreaseStreamRetentionPeriod" | "DecreaseStreamRetentionPeriod" => {
                let hours = input.integer("RetentionPeriodHours")?.unwrap_or(0);
                self.set_retention(input.stream()?, hours, operation.starts_with("Increase"))?;
            }
            "UpdateMaxRecordSize" => {
                let kib = input.integer("MaxRecordSizeInKiB")?.unwrap_or(0);
                self.update_max_record_size(input.stream()?, kib)?;
            }
            "RegisterStreamConsumer" => {
                let info = self.register_consumer(input.stream()?, input.required("ConsumerName")?)?;
                return Ok(json!({ "Consumer": consumer(&info, false) }));
            }
            "DescribeStreamConsumer" => {
                let (stream, name) = self.consumer_named(input)?;
                let info = self.describe_consumer(&stream, &name)?;
                return Ok(json!({ "ConsumerDescription": consumer(&info, true) }));
            }
            "ListStreamConsumers" => {
                let consumers = self.list_consumers(input.stream()?)?;
                let consumers: Vec<Value> = consumers.iter().map(|info| consumer(info, false)).collect();
                return Ok(json!({ "Consumers": consumers }));
            }
            "DeregisterStreamConsumer" => {
                let (stream, name) = self.consumer_named(input)?;
                self.deregister_consumer(&stream, &name)?;
            }
            _ => return Err(Error::new(ErrorKind::UnknownOperation, format!("no model of operation {operation}"))),
        }
        Ok(Value::Null)
    }

    fn describe(&self, input: &Input) -> Result<Value> {
        let (name, limit) = (input.stream()?, input.integer("Limit")?.unwrap_or(100));
        let page =
            self.list_shards(name, &ShardFilter::FromTrimHorizon, input.text("ExclusiveStartShardId"), Some(limit))?;
        let mut described = self.summary(input)?["StreamDescriptionSummary"].take();
        described["Shards"] = page.shards.iter().map(shard).collect();
        described["HasMoreShards"] = page.next_token.is_some().into();
        Ok(json!({ "StreamDescription": described }))
    }

    fn summary(&self, input: &Input) -> Result<Value> {
        let summary = self.describe_stream_summary(input.stream()?)?;
        Ok(json!({ "StreamDescriptionSummary": {
            "StreamName": summary.name,
            "StreamARN": summary.arn,
            "StreamStatus": summary.status,
            "StreamModeDetails": { "StreamMode": if summary.on_demand { "ON_DEMAND" } else { "PROVISIONED" } },
            "RetentionPeriodHours": summary.retention_hours,
            "StreamCreationTimestamp": seconds(summary.created_ms),
            "EnhancedMonitoring": [{ "ShardLevelMetrics": [] }],
            "EncryptionType": "NONE",
            "OpenShardCount": summary.open_shards,
            "ConsumerCount": summary.consumers,
            "MaxRecordSizeInKiB": summary.max_record_kib,
        }}))
    }

    fn list(&self, input: &Input) -> Result<Value> {
        let limit = input.integer("MaxResults")?;
        // The ARN may be sent with a token, and the name may not.
        let (name, arn) = (input.text("StreamName"), input.text("StreamARN"));
        let ShardPage { shards, next_token } = match (name, input.text("NextToken")) {
            (None, None) if arn.is_none() => {
                return Err(Error::argument("Either NextToken or StreamName should be provided."));
            }
            (Some(_), Some(_)) => {
                return Err(Error::argument("NextToken and StreamName cannot be provided together."));
            }
            (None, Some(token)) => self.list_more_shards(token, limit)?,
            (_, None) => {
                let filter =
                    filter(&Input(input.0.get("ShardFilter").and_then(Value::as_object).cloned().unwrap_or_default()))?;
                self.list_shards(input.stream()?, &filter, input.text("ExclusiveStartShardId"), limit)?
            }
        };
        let mut answer = json!({ "Shards": shards.iter().map(shard).collect::<Vec<_>>() });
        if let Some(token) = next_token {
            answer["NextToken"] = token.into();
        }
        Ok(answer)
    }

    fn put_many(&self, input: &Input) -> Result<Value> {
        let records = input.0.get("Records").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let puts =
            records.iter().map(|record| put(record.as_object().unwrap_or(&Map::new()))).collect::<Result<Vec<_>>>()?;
        let placed = self.put_records(input.stream()?, puts)?;
        let failed = placed.iter().filter(|placed| placed.is_err()).count();
        let results = placed.into_iter().map(|placed| match placed {
            Ok(Placed { shard, sequence }) => json!({ "ShardId": shard, "SequenceNumber": sequence.to_string() }),
            Err(failed) => json!({ "ErrorCode": failed.kind.name(), "ErrorMessage": failed.message }),
        });
        Ok(json!({ "FailedRecordCount": failed, "Records": results.collect::<Vec<_>>(), "EncryptionType": "NONE" }))
    }

    fn get(&self, input: &Input) -> Result<Value> {
        let chunk = self.get_records(input.required("ShardIterator")?, input.integer("Limit")?)?;
        let mut answer = json!({
            "Records": chunk.records.iter().map(record).collect::<Vec<_>>(),
            "MillisBehindLatest": chunk.millis_behind_latest,
        });
        match chunk.next_iterator {
            Some(next) => answer["NextShardIterator"] = next.into(),
            None => answer["ChildShards"] = chunk.children.iter().map(child).collect(),
        }
        Ok(answer)
    }

    fn consumer_named(&self, input: &Input) -> Result<(String, String)> {
        match input.text("ConsumerARN") {
            Some(arn) => self.consumer_by_arn(arn),
            None => Ok((input.stream()?.to_owned(), input.required("ConsumerName")?.to_owned())),
        }
    }

    fn subscribe_by_arn(&self, input: &Input) -> Result<super::Subscription> {
        let (stream, name) = self.consumer_by_arn(input.required("ConsumerARN")?)?;
        let position = input.0.get("StartingPosition").and_then(Value::as_object).cloned().unwrap_or_default();
        let position = Input(position);
        let start = start(position.required("Type")?, position.text("SequenceNumber"), position.millis("Timestamp")?)?;
        self.subscribe(&stream, &name, input.required("ShardId")?, &start)
    }
}

/// The parameters of a request.
struct Input(Map<String, Value>);

impl Input {
    fn read(request: &Request) -> Result<Self> {
        match serde_json::from_slice(&request.body) {
            Ok(Value::Object(members)) => Ok(Input(members)),
            _ => Err(Error::new(ErrorKind::Serialization, "the body is not a JSON object")),
        }
    }

    fn text(&self, member: &str) -> Option<&str> {
        self.0.get(member).and_then(Value::as_str)
    }

    fn required(&self, member: &str) -> Result<&str> {
        self.text(member).ok_or_else(|| Error::constraint("null", member, "not be null"))
    }

    /// The stream's name, given as a name or as an ARN.
    fn stream(&self) -> Result<&str> {
        match self.text("StreamName") {
            Some(name) => Ok(name),
            None => {
                let arn =
                    self.text("StreamARN").ok_or_else(|| Error::constraint("null", "streamName", "not be null"))?;
                arn.split_once(":stream/").map(|(_, name)| name).ok_or_else(|| Error::argument("Invalid StreamARN."))
            }
        }
    }

    fn integer<T: TryFrom<i64>>(&self, member: &str) -> Result<Option<T>> {
        let wrong = || Error::new(ErrorKind::Serialization, format!("{member} is not a number in range"));
        match self.0.get(member) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_i64().and_then(|value| T::try_from(value).ok()).map(Some).ok_or_else(wrong),
        }
    }

    /// A time: seconds since 1970 with a fraction, here in ms.
    #[expect(clippy::cast_possible_truncation, reason = "times of any calendar fit")]
    fn millis(&self, member: &str) -> Result<Option<i64>> {
        match self.0.get(member) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(seconds) => Ok(Some((seconds * 1000.0).round() as i64)),
                None => Err(Error::new(ErrorKind::Serialization, format!("{member} is not a time"))),
            },
        }
    }
}

fn put(members: &Map<String, Value>) -> Result<Put> {
    let input = |member: &str| members.get(member).and_then(Value::as_str);
    let data = STANDARD.decode(input("Data").unwrap_or(""));
    Ok(Put {
        partition_key: input("PartitionKey").unwrap_or("").to_owned(),
        explicit_hash_key: input("ExplicitHashKey").map(hash_key_of).transpose()?,
        data: data.map_err(|_| Error::new(ErrorKind::Serialization, "Data is not base64"))?.into(),
    })
}

fn hash_key_of(text: &str) -> Result<u128> {
    text.parse().map_err(|_| {
        Error::argument(format!(
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {text}"
        ))
    })
}

fn start(kind: &str, sequence: Option<&str>, at_ms: Option<i64>) -> Result<Start> {
    let either = "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or \
                  (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber.";
    match (kind, sequence) {
        ("TRIM_HORIZON", None) => Ok(Start::TrimHorizon),
        ("LATEST", None) => Ok(Start::Latest),
        ("AT_SEQUENCE_NUMBER", Some(number)) => Ok(Start::At(number.to_owned())),
        ("AFTER_SEQUENCE_NUMBER", Some(number)) => Ok(Start::After(number.to_owned())),
        ("AT_TIMESTAMP", _) => at_ms.map(Start::Timestamp).ok_or_else(|| {
            Error::argument(
                "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no \
                 timestamp parameter.",
            )
        }),
        ("TRIM_HORIZON" | "LATEST", Some(_)) => {
            Err(Error::argument(format!("{either} Request specified {kind} and also a StartingSequenceNumber.")))
        }
        ("AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER", None) => {
            Err(Error::argument(format!("{either} Request specified {kind} and no StartingSequenceNumber.")))
        }
        _ => {
            let values = "satisfy enum value set: [AFTER_SEQUENCE_NUMBER, LATEST, AT_TIMESTAMP, AT_SEQUENCE_NUMBER, TRIM_HORIZON]";
            Err(Error::constraint(kind, "shardIteratorType", values))
        }
    }
}

fn filter(input: &Input) -> Result<ShardFilter> {
    let at_ms = || {
        let missing = || Error::argument("Timestamp must be specified in ShardFilter of this type.");
        input.millis("Timestamp")?.ok_or_else(missing)
    };
    Ok(match input.text("Type") {
        None if input.0.is_empty() => ShardFilter::FromTrimHorizon,
        Some("FROM_TRIM_HORIZON") => ShardFilter::FromTrimHorizon,
        Some("AT_TRIM_HORIZON") => ShardFilter::AtTrimHorizon,
        Some("AT_LATEST") => ShardFilter::AtLatest,
        Some("AT_TIMESTAMP") => ShardFilter::AtTimestamp(at_ms()?),
        Some("FROM_TIMESTAMP") => ShardFilter::FromTimestamp(at_ms()?),
        Some("AFTER_SHARD_ID") => {
            let missing = || Error::argument("ShardId must be specified in ShardFilter of this type.");
            ShardFilter::AfterShardId(input.text("ShardId").ok_or_else(missing)?.to_owned())
        }
        kind => {
            let values = "satisfy enum value set: [AT_TRIM_HORIZON, FROM_TRIM_HORIZON, AT_LATEST, AT_TIMESTAMP, FROM_TIMESTAMP, AFTER_SHARD_ID]";
            return Err(Error::constraint(kind.unwrap_or("null"), "shardFilter.type", values));
        }
    })
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of any calendar are exact in a double")]
fn seconds(at_ms: i64) -> f64 {
    at_ms as f64 / 1000.0
}

fn hash_keys((first, last): (u128, u128)) -> Value {
    json!({ "StartingHashKey": first.to_string(), "EndingHashKey": last.to_string() })
}

fn shard(info: &ShardInfo) -> Value {
    let mut numbers = json!({ "StartingSequenceNumber": info.starting.to_string() });
    if let Some(ending) = info.ending {
        numbers["EndingSequenceNumber"] = ending.to_string().into();
    }
    let mut shard = json!({
        "ShardId": info.shard, "HashKeyRange": hash_keys(info.hash_keys), "SequenceNumberRange": numbers,
    });
    for (member, parent) in [("ParentShardId", &info.parent), ("AdjacentParentShardId", &info.adjacent_parent)] {
        if let Some(parent) = parent {
            shard[member] = parent.as_str().into();
        }
    }
    shard
}

fn child(child: &Child) -> Value {
    json!({ "ShardId": child.shard, "ParentShards": child.parents, "HashKeyRange": hash_keys(child.hash_keys) })
}

fn record(record: &Record) -> Value {
    json!({
        "SequenceNumber": record.sequence.to_string(),
        "ApproximateArrivalTimestamp": seconds(record.arrived_ms),
        "PartitionKey": record.partition_key,
        "Data": STANDARD.encode(&record.data),
        "EncryptionType": "NONE",
    })
}

fn consumer(info: &ConsumerInfo, described: bool) -> Value {
    let mut consumer = json!({
        "ConsumerName": info.name,
        "ConsumerARN": info.arn,
        "ConsumerStatus": info.status,
        "ConsumerCreationTimestamp": seconds(info.created_ms),
    });
    if described {
        consumer["StreamARN"] = info.stream_arn.as_str().into();
    }
    consumer
}

/// An event of a subscription.
pub(super) fn event(event: &SubscriptionEvent) -> Value {
    let mut written = json!({
        "Records": event.records.iter().map(record).collect::<Vec<_>>(),
        "MillisBehindLatest": event.millis_behind_latest,
    });
    match event.continuation {
        Some(sequence) => written["ContinuationSequenceNumber"] = sequence.to_string().into(),
        None => written["ChildShards"] = event.children.iter().map(child).collect(),
    }
    written
}

/// A refused call.
pub(super) fn error(error: &Error) -> Value {
    json!({ "__type": error.kind.name(), "message": error.message })
}
