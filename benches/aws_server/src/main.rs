//! Kinesis, S3 and DynamoDB for `benches/aws.py`, on one port of loopback.
//!
//! `aws_server RECORDS.ndjson [--shards N] [--laps N]` serves the lines of a file as a stream of N shards (64) that repeats them N
//! times (1). It prints one line of JSON (`url`, `records`, `bytes`), and ends when its standard input ends. Records are rendered
//! before that line is printed, so that a response costs a slice of memory. S3 and DynamoDB are the models of
//! `tests/support/aws_model`, which check every request, also its checksums; uploads stay in memory. This process is not
//! measured, and needs a processor core of its own.

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

struct Arguments {
    records: String,
    shards: usize,
    laps: usize,
}

fn parse() -> Result<Arguments, String> {
    let (mut records, mut shards, mut laps) = (None, 64, 1);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let number = arguments.next().and_then(|value| value.parse().ok());
            number.filter(|number| (1..1_000_000).contains(number)).ok_or(format!("{argument} needs a number"))
        };
        match argument.as_str() {
            "--shards" => shards = number()?,
            "--laps" => laps = number()?,
            other if other.starts_with("--") => return Err(format!("there is no flag {other}")),
            file => records = Some(file.to_owned()),
        }
    }
    Ok(Arguments { records: records.ok_or("a file of records is required")?, shards, laps })
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
    let Arguments { records, shards, laps } = parse()?;
    let lines = std::fs::read(&records).map_err(|error| format!("{records}: {error}"))?;
    let tape = Tape::new(&lines, shards, laps);
    drop(lines);
    let mut message = serde_json::json!({ "records": tape.records(), "bytes": tape.bytes() });
    let clock = ModelClock::tokio(1_764_000_000_000);
    let now_ms = move || u64::try_from(clock.now_ms()).unwrap_or(0);
    let services = Services::new()
        .with(ServiceName::Kinesis, Replay(tape))
        .with(ServiceName::DynamoDb, DynamoDb::new(now_ms.clone()))
        .with(ServiceName::S3, S3::new(now_ms));
    let server = Server::start(services, Arc::new(Faults::new(0)));
    message["url"] = server.url().into();
    println!("{message}");
    // The parent keeps the pipe open as long as it needs the server.
    tokio::io::stdin().read_to_end(&mut Vec::new()).await.map_err(|error| error.to_string())?;
    Ok(())
}
