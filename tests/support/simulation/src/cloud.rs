//! The AWS environment: the product's own clients of Kinesis, DynamoDB and S3, including the official SDK, over models of these
//! services, without sockets.
//!
//! Owns: an HTTP client whose requests go through a worker's network to the models, what a lost or refused request looks like
//! to the SDK, and the streams. Does not own: the models (`aws_model`).
//!
//! Each client has a region of its own. The SDK remembers the health of a service by region for the whole process, and a run
//! must not depend on the runs before it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_model::account::Account;
use aws_model::clock::ModelClock;
use aws_model::dynamodb::DynamoDb;
use aws_model::faults::Refusal;
use aws_model::http::{Request, Service as _};
use aws_model::kinesis::{Kinesis, Put, Settings};
use aws_model::route::{ServiceName, route};
use aws_model::s3::S3;
use aws_model::server::{Answer, Services, refused, understood};
use aws_sdk_kinesis::config::{Credentials, Region, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_types::sdk_config::TimeSource;
use bytes::Bytes;
use checkpoints::{DynamoStore, Position, SequenceNumber, ShardId, ShardKey, StreamIds, StreamName};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use pipeline::documents::Documents;
use serde_json::Value;
use shardlake::aws::Aws;
use shardlake::clock::SharedClock;
use shardlake::commit::Stores;
use shardlake::lake::{ObjectStore, S3Location, S3Options, S3Store};
use shardlake::retry::RetryPolicy;
use shardlake::source::{Decode, KinesisConfig, KinesisSource, Limits, Mode, ShardSource, Start};

use crate::environment::{Connected, Environment, FixedClock, RecordId, Row, STREAMS};
use crate::faults::FaultKind;
use crate::network::{Network, NetworkError, Service};
use crate::records::{Draft, RECORD_BYTES_MAX, aggregate};
use crate::rng::Rng;

const BUCKET: &str = "lake-of-the-simulation";
const PREFIX: &str = "main/";
const TABLE: &str = "leases";
/// The retention of the streams: 24 hours.
const RETENTION_MS: u64 = 24 * 3_600_000;

/// The time at which a run begins: milliseconds since 1970.
const BEGUN_MS: i64 = 1_767_225_600_000;

/// Clients that were made so far, so that each has a new region.
static CLIENTS: AtomicU64 = AtomicU64::new(0);

/// An environment of models.
pub struct Cloud {
    clock: ModelClock,
    kinesis: Kinesis,
    dynamodb: DynamoDb,
    s3: S3,
    services: Services,
    stores: Stores,
    streams: Vec<StreamName>,
    mode: Mode,
    trims: bool,
    /// Whether reading starts at the latest record.
    latest: bool,
    quirks: Vec<FaultKind>,
}

impl Cloud {
    /// An environment that follows from `rng`. `trims`: some of its records are so old that they are trimmed while they are
    /// read. `latest`: reading starts at the latest record.
    pub async fn new(rng: &mut Rng, trims: bool, latest: bool) -> Self {
        let clock = ModelClock::tokio(BEGUN_MS);
        let torn = rng.chance(400);
        let page = 1 + rng.index(4);
        let settings = Settings {
            read_limits: true,
            shards_page_max: torn.then_some(std::num::NonZeroUsize::new(page).expect("it is at least 1")),
            visible_after_ms: rng.one_of(&[0, 0, 300, 2_000]),
            empty_answer_every: rng.chance(500).then_some(std::num::NonZeroU64::new(5).expect("5 is not 0")),
            end_with_last_records: rng.chance(500),
            ..Settings::default()
        };
        let quirks = [
            (settings.visible_after_ms > 0, FaultKind::VisibleLate),
            (settings.empty_answer_every.is_some(), FaultKind::EmptyAnswer),
            (torn, FaultKind::TornScans),
        ];
        let quirks = quirks.into_iter().filter_map(|(is_so, kind)| is_so.then_some(kind)).collect();
        let account = Account::new(&clock, settings);
        let services = account.services();
        let Account { kinesis, dynamodb, s3, .. } = account;
        let count = if rng.chance(250) { 2 } else { 1 };
        let streams: Vec<StreamName> = STREAMS[..count].iter().map(|name| stream_name(name)).collect();
        for stream in &streams {
            let shards = 1 + u32::try_from(rng.below(4)).expect("a small number");
            kinesis.create_stream(stream.as_str(), Some(shards)).expect("a new stream");
        }
        // A read that is not consistent shows an older state.
        dynamodb.set_stale_writes(rng.one_of(&[0, 5, 100]));
        if torn {
            dynamodb.set_page_max(Some(page));
            dynamodb.set_batch_max(Some(page));
            s3.set_page_max(Some(page * 3));
        }
        s3.create_bucket(BUCKET);
        s3.set_conflicts_end_uploads(rng.chance(300));
        let aws = aws(services.clone(), clock.clone(), None);
        let ids = ids(&streams, BTreeMap::new());
        let leases = DynamoStore::open(aws.dynamodb(), TABLE, ids).await.expect("a model answers");
        let stores =
            Stores::new(lake(&aws), Arc::new(leases), RetryPolicy::default()).with_streams(streams.iter().cloned());
        let stores = stores.with_clock(Arc::new(FixedClock));
        let fan_out = Mode::FanOut { consumer: "simulated".to_owned() };
        let mode = if rng.chance(300) { fan_out } else { Mode::Polling };
        Cloud { clock, kinesis, dynamodb, s3, services, stores, streams, mode, trims, latest, quirks }
    }

    fn open_shards(&self, stream: &StreamName) -> Vec<aws_model::kinesis::ShardInfo> {
        let shards = self.kinesis.shards(stream.as_str()).expect("the stream exists");
        shards.into_iter().filter(|shard| shard.ending.is_none()).collect()
    }
}

fn stream_name(name: &str) -> StreamName {
    StreamName::new(name).expect("a plain name")
}

fn shard_key(stream: &StreamName, shard: &str) -> ShardKey {
    ShardKey::new(stream.clone(), ShardId::new(shard).expect("a plain name"))
}

/// Names in the lease table: shards of a single stream have their bare ids.
fn ids(streams: &[StreamName], ids: BTreeMap<StreamName, String>) -> StreamIds {
    let bare = if let [only] = streams { Some(only.clone()) } else { None };
    StreamIds { ids, bare }
}

fn lake(aws: &Aws) -> Arc<dyn ObjectStore> {
    let location = S3Location::new(BUCKET, PREFIX).expect("a valid bucket and prefix");
    Arc::new(S3Store::new(aws.s3(), location, &S3Options::default()).expect("default options are valid"))
}

/// Clients whose requests are answered by the models.
fn aws(services: Services, clock: ModelClock, network: Option<Arc<Network>>) -> Aws {
    let client = CLIENTS.fetch_add(1, Ordering::Relaxed);
    let credentials = Credentials::new("simulated", "simulated", None, None, "the simulation");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(format!("simulated-{client}")))
        .endpoint_url("http://models.invalid")
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(http_client(Connector { services, network }))
        .time_source(RunTime(clock))
        .build();
    Aws::with(config)
}

/// The SDK's time of day is that of the run. It measures the speed of bodies by it, so with the machine's clock no two runs would be equal.
#[derive(Debug)]
struct RunTime(ModelClock);

impl TimeSource for RunTime {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.now_ms().unsigned_abs())
    }
}

fn http_client(connector: Connector) -> SharedHttpClient {
    let shared = SharedHttpConnector::new(connector);
    http_client_fn(move |_: &HttpConnectorSettings, _: &RuntimeComponents| shared.clone())
}

/// An HTTP client whose requests are answered by the models.
#[derive(Clone)]
struct Connector {
    services: Services,
    /// None: no request fails on the way.
    network: Option<Arc<Network>>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let this = self.clone();
        HttpConnectorFuture::new(async move { this.exchange(request).await })
    }
}

impl Connector {
    async fn exchange(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(ConnectorError::user)?.to_bytes();
        let request = match understood(&head.method, &head.uri, &head.headers, body) {
            Ok(request) => request,
            Err(response) => return Ok(http(Answer::Whole(response))),
        };
        let Some(network) = self.network else { return Ok(http(self.services.answer(&request))) };
        let (name, operation) = route(&request);
        let service = match name {
            ServiceName::Kinesis => Service::Stream,
            ServiceName::DynamoDb => Service::Leases,
            _ => Service::Lake,
        };
        let about = request.path.strip_prefix(&format!("/{BUCKET}/{PREFIX}")).unwrap_or_default().to_owned();
        let services = self.services.clone();
        // The answer may be a stream, so it can't be shared between tasks by reference.
        let slot = Arc::new(Mutex::new(None));
        let filled = Arc::clone(&slot);
        let asked = operation.clone();
        let effect = async move {
            let answer = services.answer(&request);
            *filled.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        };
        match network.send(service, &operation, &about, effect).await {
            Ok(()) => {
                let answer = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
                Ok(http(answer.expect("the effect filled it")))
            }
            Err(NetworkError::Lost) => Err(ConnectorError::io("the connection was cut by the simulation".into())),
            Err(NetworkError::Throttled(chosen)) => {
                let refusal = overloaded(name, &asked, chosen);
                if refusal.code == "ExpiredIteratorException" {
                    network.tally().note(FaultKind::IteratorExpired);
                }
                Ok(http(Answer::Whole(refused(name, &refusal))))
            }
            Err(NetworkError::Refused) => {
                let refusal = match name {
                    ServiceName::S3 => Refusal::new(403, "AccessDenied", "Access Denied"),
                    _ => Refusal::new(400, "AccessDeniedException", "not authorized to perform this"),
                };
                Ok(http(Answer::Whole(refused(name, &refusal))))
            }
        }
    }
}

/// One of the error replies of a service that is overloaded, or has failed.
fn overloaded(service: ServiceName, operation: &str, chosen: u64) -> Refusal {
    match (service, chosen % 4) {
        (_, 0) => Refusal::internal(),
        (ServiceName::S3, _) => Refusal::slow_down(),
        (ServiceName::DynamoDb, 1) if operation == "TransactWriteItems" => {
            Refusal::transaction_canceled(["TransactionConflict"])
        }
        (ServiceName::DynamoDb, 1 | 2) => Refusal::throughput_exceeded(),
        (ServiceName::Kinesis, 1) if operation == "GetRecords" => Refusal::expired_iterator(),
        (ServiceName::Kinesis, _) if operation == "GetRecords" => Refusal::throughput_exceeded(),
        (ServiceName::Kinesis, _) => Refusal::new(400, "LimitExceededException", "Rate exceeded"),
        _ => Refusal::throttled(),
    }
}

fn http(answer: Answer) -> HttpResponse {
    let (status, headers, body) = match answer {
        Answer::Whole(response) => (response.status, response.headers, SdkBody::from(response.body)),
        Answer::Streamed(streamed) => {
            use futures::StreamExt;
            // The SDK polls the body again after its end.
            let pieces = streamed.body.fuse().map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(piece)));
            // The SDK requires bodies that can be shared. Only one task polls this one.
            (streamed.status, streamed.headers, SdkBody::from_body_1_x(SyncBody::new(StreamBody::new(pieces))))
        }
    };
    let mut response = hyper::Response::builder().status(status);
    for (name, value) in &headers {
        response = response.header(name, value);
    }
    let response = response.body(body).expect("a model sets valid headers");
    HttpResponse::try_from(response).expect("a model sets valid headers")
}

/// A body behind a lock, so that it can be shared.
struct SyncBody<B>(Mutex<std::pin::Pin<Box<B>>>);

impl<B> SyncBody<B> {
    fn new(body: B) -> Self {
        SyncBody(Mutex::new(Box::pin(body)))
    }
}

impl<B: hyper::body::Body> hyper::body::Body for SyncBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut().poll_frame(context)
    }
}

#[async_trait]
impl Environment for Cloud {
    fn streams(&self) -> Vec<StreamName> {
        self.streams.clone()
    }

    async fn connect(&self, network: &Arc<Network>, clock: SharedClock, bounded: bool) -> Result<Connected, String> {
        let aws = aws(self.services.clone(), self.clock.clone(), Some(Arc::clone(network)));
        let lake = lake(&aws);
        let mut sources: Vec<Arc<dyn ShardSource>> = Vec::new();
        let mut named = BTreeMap::new();
        for stream in &self.streams {
            let config = KinesisConfig {
                stream: stream.to_string(),
                name: None,
                start: if self.latest { Start::Latest } else { Start::TrimHorizon },
                mode: self.mode.clone(),
                record_bytes_max: RECORD_BYTES_MAX,
                documents: Documents::MANY,
                decode: Decode::Fast,
                limits: Limits::default(),
                retry_within: network.retry().within,
                bounded,
                clock: Arc::clone(&clock),
            };
            let source = KinesisSource::open(aws.kinesis(), config, Arc::clone(&lake)).await;
            let source = source.map_err(|error| error.to_string())?;
            named.insert(stream.clone(), source.serialized_id());
            sources.push(Arc::new(source));
        }
        let ids = ids(&self.streams, named);
        let leases = DynamoStore::open(aws.dynamodb(), TABLE, ids).await.map_err(|error| error.to_string())?;
        let stores =
            Stores::new(lake, Arc::new(leases), network.retry()).with_streams(self.streams()).with_clock(clock);
        Ok(Connected { sources, stores })
    }

    fn stores(&self) -> Stores {
        self.stores.clone()
    }

    fn object(&self, key: &str) -> Option<Bytes> {
        self.s3.object(BUCKET, &format!("{PREFIX}{key}"))
    }

    fn rows(&self) -> Vec<Row> {
        self.dynamodb.items(TABLE).iter().map(row).collect()
    }

    fn put(&self, drafts: Vec<Draft>, rng: &mut Rng) -> Vec<(RecordId, Draft)> {
        let mut records = Vec::new();
        let mut left = drafts;
        while !left.is_empty() {
            let count = if rng.chance(200) { 2 + rng.index(4) } else { 1 };
            let rest = left.split_off(count.min(left.len()));
            let drafts = std::mem::replace(&mut left, rest);
            let is_aggregate = drafts.len() > 1;
            let mut data = if is_aggregate { aggregate(&drafts) } else { drafts[0].bytes.clone() };
            let is_broken = is_aggregate && rng.chance(100);
            if is_broken {
                let middle = data.len() / 2;
                data[middle] ^= 0x40;
            }
            let stream = &self.streams[rng.index(self.streams.len())];
            let put = Put::new(rng.draw().to_string(), data.clone());
            let put = self.kinesis.put_record(stream.as_str(), put).expect("the stream accepts it");
            let sequence = SequenceNumber::try_from(put.sequence.to_string().as_str()).expect("a number");
            let key = shard_key(stream, &put.shard);
            let id = |sub| RecordId { key: key.clone(), position: Position::At { sequence: sequence.clone(), sub } };
            if is_broken {
                // The whole aggregate counts as one record.
                records.push((id(0), Draft::bad(data, FaultKind::BrokenAggregate)));
            } else {
                records.extend((0..).zip(drafts).map(|(sub, draft)| (id(sub), draft)));
            }
        }
        records
    }

    fn change_stream(&self, rng: &mut Rng, _: bool) -> Option<FaultKind> {
        let stream = &self.streams[rng.index(self.streams.len())];
        let mut open = self.open_shards(stream);
        open.sort_by_key(|shard| shard.hash_keys.0);
        if rng.chance(500) && open.len() < 10 {
            let shard = &open[rng.index(open.len())];
            let (first, last) = shard.hash_keys;
            self.kinesis.split_shard(stream.as_str(), &shard.shard, first + (last - first) / 2 + 1).ok()?;
            return Some(FaultKind::Split);
        }
        if open.len() < 2 {
            return None;
        }
        let left = rng.index(open.len() - 1);
        self.kinesis.merge_shards(stream.as_str(), &open[left].shard, &open[left + 1].shard).ok()?;
        Some(FaultKind::Merged)
    }

    fn closed_shards(&self) -> Vec<ShardKey> {
        let closed = |stream: &StreamName| {
            let shards = self.kinesis.shards(stream.as_str()).expect("the stream exists");
            let closed = shards.into_iter().filter(|shard| shard.ending.is_some());
            closed.map(|shard| shard_key(stream, &shard.shard)).collect::<Vec<_>>()
        };
        self.streams.iter().flat_map(closed).collect()
    }

    fn expire_uploads(&self, rng: &mut Rng) {
        let uploads = self.s3.uploads(BUCKET);
        if rng.chance(400) || uploads.is_empty() {
            self.s3.abort_uploads(BUCKET, u64::MAX);
            return;
        }
        let (key, id) = &uploads[rng.index(uploads.len())];
        let request = Request {
            method: "DELETE".to_owned(),
            path: format!("/{BUCKET}/{key}"),
            query: BTreeMap::from([("uploadId".to_owned(), id.clone())]),
            headers: BTreeMap::new(),
            body: Bytes::new(),
        };
        self.s3.answer(&request);
    }

    fn conflict(&self) -> bool {
        self.s3.conflict_with(1);
        true
    }

    fn quirks(&self) -> Vec<FaultKind> {
        self.quirks.clone()
    }

    fn lose_rows(&self, rng: &mut Rng) {
        let is_whole = rng.chance(600);
        for item in self.dynamodb.items(TABLE) {
            if is_whole || rng.chance(400) {
                self.dynamodb.delete_past_checks(TABLE, &item).expect("it is an item of the table");
            }
        }
    }

    fn delete_stream(&self) -> bool {
        self.kinesis.delete_stream(self.streams[0].as_str(), true).is_ok()
    }

    fn create_stream_again(&self, shards: u32) {
        let name = self.streams[0].as_str();
        self.kinesis.create_stream(name, Some(shards)).expect("it was deleted");
        for number in 0..20 * shards {
            // No worker may commit it.
            let put = Put::new(number.to_string(), format!("{{\"of\":\"another stream\",\"number\":{number}}}"));
            self.kinesis.put_record(name, put).expect("the stream accepts it");
        }
    }

    fn starts_at_latest(&self) -> bool {
        self.latest
    }

    fn retention_ms(&self) -> Option<u64> {
        self.trims.then_some(RETENTION_MS)
    }
}

/// Parses a stored row by the names of its attributes: those of KCL, and those of the product.
fn row(item: &Value) -> Row {
    let text = |name: &str| item[name]["S"].as_str().map(str::to_owned);
    let number = |name: &str| item[name]["N"].as_str().and_then(|number| number.parse().ok()).unwrap_or(0);
    let position = |checkpoint: &str, sub: &str| {
        let checkpoint = text(checkpoint).expect("the row has it");
        Position::from_stored(&checkpoint, number(sub)).expect("the row has a position")
    };
    let pending = item["pendingCheckpointState"]["B"].as_str().map(|state| {
        let manifest = String::from_utf8(base64(state)).expect("the name of a manifest is text");
        (manifest, position("pendingCheckpoint", "pendingCheckpointSubSequenceNumber"))
    });
    let parents = item["parentShardId"]["SS"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let stream = stream_name(&text("shardlakeStream").expect("the row names its stream"));
    Row {
        key: shard_key(&stream, &text("shardId").or_else(|| text("leaseKey")).expect("the row has a key")),
        holder: text("checkpointOwner").or_else(|| text("leaseOwner")),
        checkpoint: position("checkpoint", "checkpointSubSequenceNumber"),
        pending,
        parents: parents.map(|parent| ShardId::new(parent).expect("a shard")).collect(),
    }
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).expect("the model writes base64")
}
