//! Kinesis, S3 and DynamoDB for `benches/aws.py`, on one port of loopback.
//!
//! `aws_server RECORDS.ndjson [--shards N] [--laps N]` serves the lines of a file as a stream of N shards (64) that repeats them N
//! times (1). It prints one line of JSON (`url`, `records`, `bytes`), and ends when its standard input ends. Records are rendered
//! before that line is printed, so that a response costs a slice of memory. S3 and DynamoDB are the models of
//! `tests/support/aws_model`, which check every request, also its checksums; uploads stay in memory. This process is not
//! measured, and needs a processor core of its own.
//!
//! `aws_server --objects N [--object-bytes B]` has N small documents of B bytes (700) in the bucket `source` instead, for `benches/objects.py`,
//! and an empty bucket `lake`. `bytes` is then what the documents have together.

mod documents;
mod replay;
mod tape;

use std::process::ExitCode;
use std::sync::Arc;

use aws_model::clock::ModelClock;
use aws_model::dynamodb::DynamoDb;
use aws_model::faults::{Faults, ServiceName};
use aws_model::s3::S3;
use aws_model::server::{Server, Services};
use tokio::io::AsyncReadExt;

use crate::replay::Replay;
use crate::tape::Tape;

/// What is served besides the models of S3 and DynamoDB.
enum Arguments {
    /// A stream of the lines of a file.
    Stream { records: String, shards: usize, laps: usize },
    /// Objects in a bucket.
    Objects { count: usize, bytes: usize },
}

fn parse() -> Result<Arguments, String> {
    let (mut records, mut shards, mut laps) = (None, 64, 1);
    let (mut objects, mut object_bytes) = (None, 700);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let number = arguments.next().and_then(|value| value.parse().ok());
            number.filter(|number| (1..=10_000_000).contains(number)).ok_or(format!("{argument} needs a number"))
        };
        match argument.as_str() {
            "--shards" => shards = number()?,
            "--laps" => laps = number()?,
            "--objects" => objects = Some(number()?),
            "--object-bytes" => object_bytes = number()?,
            other if other.starts_with("--") => return Err(format!("there is no flag {other}")),
            file => records = Some(file.to_owned()),
        }
    }
    match (objects, records) {
        (Some(count), None) => Ok(Arguments::Objects { count, bytes: object_bytes }),
        (None, Some(records)) => Ok(Arguments::Stream { records, shards, laps }),
        _ => Err("either a file of records is required, or --objects".to_owned()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("aws_server: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), String> {
    let clock = ModelClock::tokio(1_764_000_000_000);
    let now_ms = move || u64::try_from(clock.now_ms()).unwrap_or(0);
    let s3 = S3::new(now_ms.clone());
    let services = Services::new().with(ServiceName::DynamoDb, DynamoDb::new(now_ms));
    let (services, mut message) = match parse()? {
        Arguments::Stream { records, shards, laps } => {
            let lines = std::fs::read(&records).map_err(|error| format!("{records}: {error}"))?;
            let tape = Tape::new(&lines, shards, laps);
            drop(lines);
            let message = serde_json::json!({ "records": tape.records(), "bytes": tape.bytes() });
            (services.with(ServiceName::Kinesis, Replay(tape)), message)
        }
        Arguments::Objects { count, bytes } => {
            let bytes = documents::put(&s3, count, bytes);
            (services, serde_json::json!({ "records": count, "bytes": bytes }))
        }
    };
    let services = services.with(ServiceName::S3, s3);
    let server = Server::start(services, Arc::new(Faults::new(0)));
    message["url"] = server.url().into();
    println!("{message}");
    // The parent keeps the pipe open as long as it needs the server.
    tokio::io::stdin().read_to_end(&mut Vec::new()).await.map_err(|error| error.to_string())?;
    Ok(())
}
