//! One response of GetRecords of 10 MB, from the HTTP body to a chunk, decoded by Shardlake's fast decoder and by the SDK.
//!
//! `get_records RECORDS.ndjson [--responses N]` makes a response of the file's first records. A connector inside the process gives
//! it to the client N times (50) in each of 5 rounds, first for one decoder and then for the other. It prints one line of JSON:
//! `records` and `bytes` of the response, and `mb_per_cpu_second` of both decoders, the median of the rounds. CPU time is user and
//! system of all threads. It includes the other costs of a call (signing, an iterator), but no HTTP and no sockets.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use checkpoints::{Position, ShardId};
use pipeline::chunk::Framing;
use pipeline::documents::Documents;
use shardlake::clock::SystemClock;
use shardlake::lake::MemoryStore;
use shardlake::source::{Decode, KinesisConfig, KinesisSource, Limits, Mode, Read, ShardSource, Start};

const ROUNDS: usize = 5;
const RECORDS_MAX: usize = 10_000;
const BYTES_MAX: usize = 10 << 20;

type Problem = Box<dyn std::error::Error>;

/// Sends the same responses again and again.
#[derive(Debug, Clone)]
struct Canned {
    records: Bytes,
}

impl HttpClient for Canned {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Canned {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let operation = request.headers().get("x-amz-target").and_then(|target| target.split('.').next_back());
        let body = match operation {
            Some("GetRecords") => self.records.clone(),
            Some("GetShardIterator") => Bytes::from_static(br#"{"ShardIterator":"0"}"#),
            _ => Bytes::from_static(
                br#"{"StreamDescriptionSummary":{"StreamName":"bench","StreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/bench",
                "StreamStatus":"ACTIVE","RetentionPeriodHours":24,"StreamCreationTimestamp":1762000000,
                "EnhancedMonitoring":[],"OpenShardCount":1}}"#,
            ),
        };
        let status = 200.try_into().expect("200 is a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
    }
}

/// A response with the first lines, the number of its records, and their bytes.
fn response(lines: &[u8]) -> (Bytes, usize, usize) {
    let mut body = String::from(r#"{"Records":["#);
    let (mut records, mut bytes) = (0, 0);
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).take(RECORDS_MAX) {
        if bytes + line.len() > BYTES_MAX {
            break;
        }
        let comma = if records == 0 { "" } else { "," };
        let _ = write!(
            body,
            r#"{comma}{{"SequenceNumber":"4959033827149025660855969253836157{records:022}","ApproximateArrivalTimestamp":1763000000.{:03},"Data":"{}","PartitionKey":"{records:08x}"}}"#,
            records % 1000,
            base64_simd::STANDARD.encode_to_string(line),
        );
        records += 1;
        bytes += line.len();
    }
    body.push_str(r#"],"NextShardIterator":"0","MillisBehindLatest":1000}"#);
    (body.into(), records, bytes)
}

/// CPU time of all threads so far, in clock ticks of a hundredth of a second.
fn cpu_ticks() -> Result<u64, Problem> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).ok_or("a short /proc/self/stat").map(|field| field.parse::<u64>());
    Ok(ticks(11)?? + ticks(12)??)
}

async fn source(canned: &Canned, decode: Decode) -> Result<KinesisSource, Problem> {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("none", "none", None, None, "bench"))
        .http_client(canned.clone());
    let stream = KinesisConfig {
        retry_within: Duration::from_secs(300),
        stream: "bench".to_owned(),
        name: None,
        start: Start::TrimHorizon,
        mode: Mode::Polling,
        record_bytes_max: BYTES_MAX,
        documents: Documents::MANY,
        decode,
        limits: Limits { between_reads: Duration::ZERO, bytes_per_second: u64::MAX },
        bounded: false,
        clock: Arc::new(SystemClock),
    };
    let client = aws_sdk_kinesis::Client::from_conf(config.build());
    Ok(KinesisSource::open(client, stream, Arc::new(MemoryStore::new())).await?)
}

/// Reads this many responses. Returns the CPU seconds.
async fn read(source: &KinesisSource, responses: usize, records: usize) -> Result<f64, Problem> {
    let shard = ShardId::new("shardId-000000000000")?;
    let mut buffer = Vec::new();
    let before = cpu_ticks()?;
    for _ in 0..responses {
        // From the beginning each time, because a reader skips records that it has read.
        let mut reader = source.open(&shard, &Position::Beginning).await?;
        let Read::Chunk { chunk, .. } = reader.read(BYTES_MAX, buffer).await? else {
            return Err("a response without a chunk".into());
        };
        if !matches!(chunk.framing(), Framing::Records(frames) if frames.len() == records) {
            return Err("a chunk that lacks records".into());
        }
        buffer = chunk.into_buffer();
    }
    let ticks = u32::try_from(cpu_ticks()? - before)?;
    Ok(f64::from(ticks) / 100.0)
}

async fn measure() -> Result<serde_json::Value, Problem> {
    let (mut file, mut responses) = (None, 50);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--responses" => responses = arguments.next().ok_or("--responses needs a number")?.parse()?,
            _ => file = Some(argument),
        }
    }
    let lines = std::fs::read(file.ok_or("a file of records is required")?)?;
    let (body, records, bytes) = response(&lines);
    let canned = Canned { records: body };
    let (fast, stock) = (source(&canned, Decode::Fast).await?, source(&canned, Decode::Stock).await?);
    let (mut fasts, mut stocks) = (Vec::new(), Vec::new());
    let megabytes = f64::from(u32::try_from(bytes * responses / 1000)?) / 1000.0;
    for _ in 0..ROUNDS {
        fasts.push(megabytes / read(&fast, responses, records).await?);
        stocks.push(megabytes / read(&stock, responses, records).await?);
    }
    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[ROUNDS / 2].round()
    };
    Ok(serde_json::json!({
        "records": records, "bytes": bytes,
        "mb_per_cpu_second": { "shardlake": median(&mut fasts), "sdk": median(&mut stocks) },
    }))
}

#[tokio::main]
async fn main() -> ExitCode {
    match measure().await {
        Ok(measured) => {
            println!("{measured}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("get_records: {problem}");
            ExitCode::FAILURE
        }
    }
}
