//! A stream behind the real SDK: an HTTP client that responds as Kinesis does, with scripted failures.
//!
//! It is as small as these tests need it: sequence numbers are given, an iterator is a shard and an index in it, a subscription ends
//! after the last record.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};

pub(crate) const CREATED_S: i64 = 1_700_000_000;
/// 100 seconds later, as a header has it.
pub(crate) const DATE: &str = "Tue, 14 Nov 2023 22:15:00 GMT";
pub(crate) const ARN: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/orders";

/// What a shard has at one index.
#[derive(Clone)]
pub(crate) enum Held {
    /// Sequence number, arrival in ms, bytes.
    Record(u64, i64, Vec<u8>),
    /// A stretch without records: a response that begins here is empty.
    Gap,
}

#[derive(Clone, Default)]
pub(crate) struct FakeShard {
    pub(crate) id: String,
    pub(crate) parents: Vec<String>,
    pub(crate) held: Vec<Held>,
    /// Its children, if it is closed.
    pub(crate) closed: Option<Vec<String>>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) shards: Vec<FakeShard>,
    /// Scripted failures: operation and error code; `body:…` responds 200 with that body; `reset` does not respond.
    pub(crate) faults: VecDeque<(&'static str, String)>,
    /// Bodies of responses with status 200.
    pub(crate) raw: VecDeque<(&'static str, Vec<u8>)>,
    /// This many subscriptions send nothing and never end.
    pub(crate) silent: usize,
    /// The requests so far.
    pub(crate) calls: Vec<(String, Value)>,
    /// Shards on one page of ListShards.
    pub(crate) page: usize,
    /// When the stream was created, in seconds.
    pub(crate) created_s: i64,
    /// There is no stream.
    pub(crate) is_gone: bool,
}

/// A fake service. Clones share their state.
#[derive(Clone, Default)]
pub(crate) struct Fake(pub(crate) Arc<Mutex<State>>);

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

impl Fake {
    pub(crate) fn new(shards: Vec<FakeShard>) -> Self {
        Fake(Arc::new(Mutex::new(State { shards, page: 100, created_s: CREATED_S, ..State::default() })))
    }

    pub(crate) fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        what(&mut self.0.lock().unwrap())
    }

    /// The next call of this operation fails.
    pub(crate) fn fail(&self, operation: &'static str, code: &str) {
        self.with(|state| state.faults.push_back((operation, code.to_owned())));
    }

    /// The requests of an operation so far.
    pub(crate) fn calls(&self, operation: &str) -> Vec<Value> {
        self.with(|state| {
            state.calls.iter().filter(|(name, _)| name == operation).map(|(_, body)| body.clone()).collect()
        })
    }

    pub(crate) fn client(&self) -> aws_sdk_kinesis::Client {
        let config = aws_sdk_kinesis::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
            .http_client(self.clone());
        aws_sdk_kinesis::Client::from_conf(config.build())
    }
}

impl HttpClient for Fake {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Fake {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap().to_owned();
        let operation = target.split('.').next_back().unwrap().to_owned();
        let asked: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        let is_silent = operation == "SubscribeToShard"
            && self.with(|state| state.silent.checked_sub(1).map(|left| state.silent = left).is_some());
        if is_silent {
            return HttpConnectorFuture::new(std::future::pending());
        }
        let (status, body) = self.with(|state| state.answer(&operation, &asked));
        let mut response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body));
        response.headers_mut().insert("date", DATE);
        HttpConnectorFuture::ready(Ok(response))
    }
}

type Answer = (u16, Vec<u8>);

fn good(body: &Value) -> Answer {
    (200, body.to_string().into_bytes())
}

fn error(code: &str) -> Answer {
    let status = if code == "InternalFailure" { 500 } else { 400 };
    (status, json!({ "__type": code, "message": "scripted failure" }).to_string().into_bytes())
}

impl State {
    fn answer(&mut self, operation: &str, asked: &Value) -> Answer {
        self.calls.push((operation.to_owned(), asked.clone()));
        if let Some(at) = self.faults.iter().position(|(fails, _)| *fails == operation) {
            let (_, code) = self.faults.remove(at).unwrap();
            return match code.strip_prefix("body:") {
                Some(body) => (200, body.as_bytes().to_vec()),
                None => error(&code),
            };
        }
        if let Some(at) = self.raw.iter().position(|(answers, _)| *answers == operation) {
            return (200, self.raw.remove(at).unwrap().1);
        }
        match operation {
            _ if self.is_gone => error("ResourceNotFoundException"),
            "DescribeStreamSummary" => good(&json!({ "StreamDescriptionSummary": {
                "StreamName": "orders", "StreamARN": ARN, "StreamStatus": "ACTIVE", "RetentionPeriodHours": 24,
                "StreamCreationTimestamp": self.created_s, "EnhancedMonitoring": [], "OpenShardCount": 1,
            }})),
            "ListShards" => self.list(asked),
            "GetShardIterator" => self.iterator(asked),
            "GetRecords" => self.records(asked),
            "RegisterStreamConsumer" => good(&json!({ "Consumer": self.consumer("CREATING") })),
            "DescribeStreamConsumer" => good(&json!({ "ConsumerDescription": self.consumer("ACTIVE") })),
            "SubscribeToShard" => self.subscribe(asked),
            _ => error("UnknownOperationException"),
        }
    }

    fn consumer(&self, status: &str) -> Value {
        json!({
            "ConsumerName": "c", "ConsumerARN": format!("{ARN}/consumer/c:1"), "ConsumerStatus": status,
            "ConsumerCreationTimestamp": CREATED_S, "StreamARN": ARN,
        })
    }

    fn list(&self, asked: &Value) -> Answer {
        let from: usize = asked["NextToken"].as_str().map_or(0, |token| token.parse().unwrap());
        let shards: Vec<Value> = self.shards[from..].iter().take(self.page).map(|shard| json!({
            "ShardId": shard.id, "ParentShardId": shard.parents.first(), "AdjacentParentShardId": shard.parents.get(1),
            "HashKeyRange": { "StartingHashKey": "0", "EndingHashKey": "340282366920938463463374607431768211455" },
            "SequenceNumberRange": { "StartingSequenceNumber": "1" },
        })).collect();
        let next = from + shards.len();
        good(&json!({ "Shards": shards, "NextToken": (next < self.shards.len()).then(|| next.to_string()) }))
    }

    fn shard(&self, id: &Value) -> Option<&FakeShard> {
        self.shards.iter().find(|shard| *id == shard.id)
    }

    /// The index at which reading begins in a shard.
    fn index_of(shard: &FakeShard, kind: &Value, sequence: &Value, time: &Value) -> usize {
        let sequence: u64 = sequence.as_str().map_or(0, |sequence| sequence.parse().unwrap());
        let ms = time.as_f64().map_or(0, |seconds| format!("{:.0}", seconds * 1000.0).parse::<i64>().unwrap());
        let first = |wanted: &dyn Fn(u64, i64) -> bool| {
            let found = shard.held.iter().position(|held| matches!(held, Held::Record(at, ms, _) if wanted(*at, *ms)));
            found.unwrap_or(shard.held.len())
        };
        match kind.as_str().unwrap() {
            "TRIM_HORIZON" => 0,
            "AT_TIMESTAMP" => first(&|_, at| at >= ms),
            "AT_SEQUENCE_NUMBER" => first(&|at, _| at >= sequence),
            "AFTER_SEQUENCE_NUMBER" => first(&|at, _| at > sequence),
            _ => shard.held.len(),
        }
    }

    fn iterator(&self, asked: &Value) -> Answer {
        let Some(shard) = self.shard(&asked["ShardId"]) else { return error("ResourceNotFoundException") };
        let sequence = &asked["StartingSequenceNumber"];
        let index = State::index_of(shard, &asked["ShardIteratorType"], sequence, &asked["Timestamp"]);
        good(&json!({ "ShardIterator": format!("{}/{index}", shard.id) }))
    }

    fn wire(held: &[Held]) -> Vec<Value> {
        let records = held.iter().filter_map(|held| {
            let Held::Record(sequence, arrival_ms, data) = held else { return None };
            let arrival = serde_json::from_str::<Value>(&format!("{}.{:03}", arrival_ms / 1000, arrival_ms % 1000));
            Some(json!({
                "SequenceNumber": sequence.to_string(), "ApproximateArrivalTimestamp": arrival.unwrap(),
                "Data": base64_simd::STANDARD.encode_to_string(data), "PartitionKey": format!("key {sequence}"),
            }))
        });
        records.collect()
    }

    /// The next records from an index on, the index after them, and whether there is more after that.
    fn next(shard: &FakeShard, index: usize, limit: usize) -> (Vec<Value>, usize, bool) {
        let mut held: &[Held] = &shard.held[index.min(shard.held.len())..];
        let gap = held.iter().position(|held| matches!(held, Held::Gap));
        held = match gap {
            Some(0) => &held[..1],
            gap => &held[..gap.unwrap_or(held.len()).min(limit)],
        };
        let next = index + held.len();
        (State::wire(held), next, next < shard.held.len())
    }

    fn children(shard: &FakeShard) -> Vec<Value> {
        let range = json!({ "StartingHashKey": "0", "EndingHashKey": "1" });
        let closed = shard.closed.iter().flatten();
        closed.map(|id| json!({ "ShardId": id, "ParentShards": [shard.id], "HashKeyRange": range })).collect()
    }

    fn records(&self, asked: &Value) -> Answer {
        let (id, index) = asked["ShardIterator"].as_str().unwrap().split_once('/').unwrap();
        let shard = self.shard(&json!(id)).unwrap();
        let limit = usize::try_from(asked["Limit"].as_u64().unwrap()).unwrap();
        let (records, next, more) = State::next(shard, index.parse().unwrap(), limit);
        let mut body = json!({ "Records": records, "MillisBehindLatest": if more { 1000 } else { 0 } });
        if more || shard.closed.is_none() {
            body["NextShardIterator"] = json!(format!("{id}/{next}"));
        } else {
            body["ChildShards"] = json!(State::children(shard));
        }
        good(&body)
    }

    /// Events of two records each, up to the last record.
    fn subscribe(&self, asked: &Value) -> Answer {
        let Some(shard) = self.shard(&asked["ShardId"]) else { return error("ResourceNotFoundException") };
        let from = &asked["StartingPosition"];
        let mut index = State::index_of(shard, &from["Type"], &from["SequenceNumber"], &from["Timestamp"]);
        let mut continuation = from["SequenceNumber"].as_str().unwrap_or("0").to_owned();
        let mut body = event("initial-response", &json!({}));
        loop {
            let (records, next, more) = State::next(shard, index, 2);
            index = next;
            if let Some(last) = records.last() {
                continuation = last["SequenceNumber"].as_str().unwrap().to_owned();
            }
            let is_empty = records.is_empty();
            let mut message = json!({
                "Records": records, "ContinuationSequenceNumber": continuation,
                "MillisBehindLatest": if more { 1000 } else { 0 },
            });
            let ends = !more && shard.closed.is_some();
            if ends {
                message["ChildShards"] = json!(State::children(shard));
                message.as_object_mut().unwrap().remove("ContinuationSequenceNumber");
            }
            body.extend(event("SubscribeToShardEvent", &message));
            if ends || (!more && is_empty) {
                return (200, body);
            }
        }
    }
}

/// A message of an event stream.
pub(crate) fn event(kind: &str, payload: &Value) -> Vec<u8> {
    let crc = |bytes: &[u8]| {
        let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, bytes);
        u32::try_from(sum).unwrap().to_be_bytes()
    };
    let size = |length: usize| u32::try_from(length).unwrap().to_be_bytes();
    let mut headers = Vec::new();
    let texts = [(":message-type", "event"), (":event-type", kind), (":content-type", "application/x-amz-json-1.1")];
    for (name, value) in texts {
        headers.push(u8::try_from(name.len()).unwrap());
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let payload = payload.to_string();
    let mut message = Vec::new();
    message.extend_from_slice(&size(16 + headers.len() + payload.len()));
    message.extend_from_slice(&size(headers.len()));
    message.extend_from_slice(&crc(&message));
    message.extend_from_slice(&headers);
    message.extend_from_slice(payload.as_bytes());
    message.extend_from_slice(&crc(&message));
    message
}
