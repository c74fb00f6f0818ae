//! The calls of Kinesis, answered from the tape.
//!
//! Owns: the JSON of the calls that read a stream by polling: DescribeStreamSummary, ListShards, GetShardIterator, GetRecords. An
//! iterator contains its position, so that the server keeps no state between calls. All shards stay open; at its tip a shard gives
//! empty responses. Does not own: records (`tape`), HTTP, limits on the rate of reads: the contenders obey these themselves.

use aws_model::http::{Request, Response, Service, Streamed};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use serde_json::{Value, json};

use crate::tape::{StreamPosition, Tape};

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/bench";
/// When the stream was created, in seconds since 1970.
const CREATED: u64 = 1_762_000_000;

/// A stream that is read again and again.
pub(crate) struct Replay(pub(crate) Tape);

fn headers() -> Vec<(String, String)> {
    vec![
        ("content-type".to_owned(), "application/x-amz-json-1.1".to_owned()),
        ("x-amzn-requestid".to_owned(), "00000000-0000-0000-0000-000000000000".to_owned()),
    ]
}

fn respond(status: u16, body: &Value) -> Response {
    Response { status, headers: headers(), body: body.to_string().into() }
}

fn refused(kind: &str, message: &str) -> Response {
    respond(400, &json!({ "__type": kind, "message": message }))
}

impl Replay {
    fn shard(&self, body: &Value) -> Option<usize> {
        let number = body["ShardId"].as_str()?.strip_prefix("shardId-")?.parse().ok()?;
        (number < self.0.shards()).then_some(number)
    }

    fn describe(&self) -> Value {
        json!({"StreamDescriptionSummary": {
            "StreamName": "bench", "StreamARN": ARN, "StreamStatus": "ACTIVE", "RetentionPeriodHours": 24,
            "StreamCreationTimestamp": CREATED, "EnhancedMonitoring": [], "EncryptionType": "NONE",
            "OpenShardCount": self.0.shards(), "ConsumerCount": 0,
            "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        }})
    }

    fn list(&self) -> Value {
        let count = self.0.shards() as u128;
        // The range of hash keys, divided among the shards.
        let first = |shard: u128| if shard == count { u128::MAX } else { u128::MAX / count * shard };
        let shard = |shard: u128| {
            let last = if shard + 1 == count { u128::MAX } else { first(shard + 1) - 1 };
            json!({
                "ShardId": format!("shardId-{shard:012}"),
                "HashKeyRange": {"StartingHashKey": first(shard).to_string(), "EndingHashKey": last.to_string()},
                "SequenceNumberRange": {"StartingSequenceNumber": format!("49590338271490256608559692538361570{shard:021}")},
            })
        };
        json!({"Shards": (0..count).map(shard).collect::<Vec<_>>()})
    }

    fn iterator(&self, body: &Value) -> Response {
        let Some(shard) = self.shard(body) else {
            return refused("ResourceNotFoundException", "there is no such shard");
        };
        let sequence = body["StartingSequenceNumber"].as_str().and_then(|sequence| self.0.find(shard, sequence));
        let position = match (body["ShardIteratorType"].as_str(), sequence) {
            (Some("TRIM_HORIZON" | "AT_TIMESTAMP"), _) => self.0.oldest(shard),
            (Some("LATEST"), _) => self.0.tip(shard),
            (Some("AT_SEQUENCE_NUMBER"), Some(position)) => position,
            (Some("AFTER_SEQUENCE_NUMBER"), Some(position)) => self.0.after(position, 1),
            _ => return refused("InvalidArgumentException", "there is no such position in the shard"),
        };
        respond(200, &json!({ "ShardIterator": text(position) }))
    }

    fn records(&self, body: &Value) -> Result<Streamed, Response> {
        let position = body["ShardIterator"].as_str().and_then(|iterator| self.position(iterator));
        let Some(position) = position else {
            return Err(refused("InvalidArgumentException", "there is no such iterator"));
        };
        let limit = body["Limit"].as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let (elements, next) = self.0.read(position, limit);
        let behind_ms = if next == self.0.tip(position.shard) { 0 } else { 1000 };
        let end = format!(r#"],"NextShardIterator":"{}","MillisBehindLatest":{behind_ms}}}"#, text(next));
        let pieces = [Bytes::from_static(br#"{"Records":["#), elements, end.into()];
        let mut headers = headers();
        headers.push(("content-length".to_owned(), pieces.iter().map(Bytes::len).sum::<usize>().to_string()));
        let pieces = stream::iter(pieces.into_iter().filter(|piece| !piece.is_empty()));
        Ok(Streamed { status: 200, headers, body: pieces.boxed() })
    }

    fn position(&self, iterator: &str) -> Option<StreamPosition> {
        let mut numbers = iterator.split('-').map(|number| number.parse().ok());
        let mut number = || numbers.next().flatten();
        let position = StreamPosition { shard: number()?, lap: number()?, line: number()? };
        let tip = (position.shard < self.0.shards()).then(|| self.0.tip(position.shard))?;
        let lines = tip.line..self.0.tip(position.shard + 1).line;
        (position == tip || position.lap < tip.lap && lines.contains(&position.line)).then_some(position)
    }
}

fn text(position: StreamPosition) -> String {
    format!("{:012}-{:06}-{:016}", position.shard, position.lap, position.line)
}

fn operation(request: &Request) -> &str {
    request.headers.get("x-amz-target").and_then(|target| target.split_once('.')).map_or("", |(_, name)| name)
}

impl Service for Replay {
    fn answer(&self, request: &Request) -> Response {
        let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
            return refused("SerializationException", "the request is not JSON");
        };
        match operation(request) {
            "DescribeStreamSummary" => respond(200, &self.describe()),
            "ListShards" => respond(200, &self.list()),
            "GetShardIterator" => self.iterator(&body),
            other => refused("UnknownOperationException", other),
        }
    }

    fn stream(&self, request: &Request) -> Option<Result<Streamed, Response>> {
        (operation(request) == "GetRecords").then(|| {
            let body = serde_json::from_slice(&request.body);
            body.map_err(|_| refused("SerializationException", "the request is not JSON"))
                .and_then(|body| self.records(&body))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(replay: &Replay, operation: &str, body: &Value) -> Response {
        let headers = [("x-amz-target".to_owned(), format!("Kinesis_20131202.{operation}"))];
        replay.answer(&Request {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            query: [].into(),
            headers: headers.into(),
            body: body.to_string().into(),
        })
    }

    #[test]
    fn an_iterator_contains_its_position_and_others_are_refused() {
        let replay = Replay(Tape::new(b"1\n2\n3\n4\n5\n", 2, 2));
        let iterator = |kind: &str, shard: usize, sequence: Option<&str>| {
            let body = json!({"ShardId": format!("shardId-{shard:012}"), "ShardIteratorType": kind, "StartingSequenceNumber": sequence});
            let response = call(&replay, "GetShardIterator", &body);
            let body: Value = serde_json::from_slice(&response.body).unwrap();
            body["ShardIterator"].as_str().and_then(|iterator| replay.position(iterator))
        };
        assert_eq!(iterator("TRIM_HORIZON", 1, None), Some(replay.0.oldest(1)));
        assert_eq!(iterator("LATEST", 1, None), Some(replay.0.tip(1)));
        assert_eq!(iterator("TRIM_HORIZON", 2, None), None);
        let last = "49590338271490256608559692538361570000010000000000000004";
        assert_eq!(iterator("AFTER_SEQUENCE_NUMBER", 1, Some(last)), Some(replay.0.tip(1)));
        assert_eq!(iterator("AT_SEQUENCE_NUMBER", 0, Some(last)), None);
        for wrong in ["", "0", "0-0-9", "0-2-1", "0-3-0", "2-0-0", "x-0-0"] {
            assert_eq!(replay.position(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn shards_divide_all_hash_keys() {
        let replay = Replay(Tape::new(b"1\n", 3, 1));
        let listed: Value = serde_json::from_slice(&call(&replay, "ListShards", &json!({})).body).unwrap();
        let mut next = 0_u128;
        for shard in listed["Shards"].as_array().unwrap() {
            let key = |name: &str| shard["HashKeyRange"][name].as_str().unwrap().parse::<u128>().unwrap();
            assert_eq!(key("StartingHashKey"), next);
            next = key("EndingHashKey").wrapping_add(1);
        }
        assert_eq!(next, 0);
    }
}
