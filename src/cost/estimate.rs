//! The lines of a month's bill, for four ways to land a stream.
//!
//! Owns: which lines each way has, how many units each line has, and why. Does not own: the prices (`prices`), the worker's requests
//! (`requests`), the storage classes (`storage`), printing.
//!
//! # What is assumed of the other ways
//!
//! - **Firehose**: producers put records directly, as the architecture has it, so there is no stream. It converts to Parquet and keeps
//!   the records as received. A Lambda removes personal data, which Firehose cannot do: one invocation for each MB or minute. It
//!   writes an object every 5 minutes or 128 MB into one prefix: not by type, and by arrival time.
//! - **Lambdas**: one function stores each upload as an object, and another one reads it and writes it as Parquet.
//! - **Channel**: the stream is on demand, as channels require. The channel delivers the records as received, compressed, about every
//!   5 minutes. It removes nothing, and makes no Parquet.

use serde::Serialize;

use super::prices::{Item, Prices};
use super::requests::WorkerRequests;
use super::storage::{ERROR_RATIO, Landed, PROCESSED_RATIO, RAW_RATIO, stored_in_month};
use super::workload::{Capacity, Network, Workload, as_f64};
use super::{GB, HOURS};

/// Bytes of a PUT payload unit, of Kinesis's on-demand steps and of Firehose's steps.
const PUT_UNIT: u64 = 25 << 10;
const ON_DEMAND_STEP: u64 = 1 << 10;
const FIREHOSE_STEP: u64 = 5 << 10;
const MB: f64 = 1_048_576.0;
/// A read's JSON has the records in base64.
const BASE64: f64 = 4.0 / 3.0;
/// GB and seconds of the Lambda that stores an upload, of the one that makes a Parquet file, and of one that reads 1 MB of records.
const UPLOAD_LAMBDA: (f64, f64) = (0.125, 0.05);
const PARQUET_LAMBDA: (f64, f64) = (0.5, 0.3);
const FIREHOSE_LAMBDA: (f64, f64) = (0.5, 1.0);
/// Bytes that an invocation logs.
const LAMBDA_LOG: f64 = 350.0;
/// A Parquet file of one row is mostly its own schema and footer.
const PARQUET_BYTES_MIN: f64 = 4096.0;
/// Alarms, dashboards and metric filters that the templates of `deploy/` make.
const ALARMS: f64 = 10.0;
const DASHBOARDS: f64 = 1.0;
const METRICS: f64 = 5.0;
/// DPUs of a crawler, and hours of its shortest run; it runs daily.
const CRAWLER_DPUS: f64 = 2.0;
const CRAWLER_HOURS: f64 = 1.0 / 6.0;

/// A way to land a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Design {
    /// A Kinesis stream, and Shardlake on Fargate.
    Shardlake,
    /// Data Firehose with conversion to Parquet.
    Firehose,
    /// A Lambda for each object.
    Lambdas,
    /// A channel of Kinesis Data Streams that delivers to S3.
    Channel,
}

impl Design {
    /// All of them.
    pub const ALL: [Design; 4] = [Design::Shardlake, Design::Firehose, Design::Lambdas, Design::Channel];

    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Design::Shardlake => "Shardlake",
            Design::Firehose => "Firehose",
            Design::Lambdas => "Lambdas",
            Design::Channel => "Channel",
        }
    }

    /// What it is.
    pub fn title(self) -> &'static str {
        match self {
            Design::Shardlake => "Kinesis stream, Shardlake on Fargate, Parquet on S3",
            Design::Firehose => "Firehose with conversion, a Lambda that removes personal data",
            Design::Lambdas => "a Lambda for each upload, another for each object",
            Design::Channel => "Kinesis channel to S3: records as received, no Parquet",
        }
    }
}

/// What a line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Taking records in.
    Stream,
    /// Reading, converting and writing them.
    Processing,
    /// Requests to S3.
    Requests,
    /// The lease table.
    Leases,
    /// What is stored, and moving it between classes.
    Storage,
    /// Logs, secrets and the audit log.
    Operation,
    /// Queries and dashboards.
    Analytics,
}

impl Part {
    /// The parts of a way to land a stream.
    pub const ALL: [Part; 6] =
        [Part::Stream, Part::Processing, Part::Requests, Part::Leases, Part::Storage, Part::Operation];

    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Part::Stream => "stream",
            Part::Processing => "processing",
            Part::Requests => "S3 requests",
            Part::Leases => "lease table",
            Part::Storage => "storage",
            Part::Operation => "operation",
            Part::Analytics => "analytics",
        }
    }
}

/// One line of a bill.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// What it is for.
    pub part: Part,
    /// What is paid.
    pub item: Item,
    /// How many units.
    pub units: f64,
    /// How many of them are free.
    pub free: f64,
    /// What the rest costs in US dollars; `None` if the price is not known.
    pub usd: Option<f64>,
    /// Where the number of units comes from.
    pub why: String,
}

/// A month's bill.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// The way to land the stream.
    pub design: Design,
    /// Its lines, by part.
    pub lines: Vec<Line>,
    /// What one should know beside the sum.
    pub notes: Vec<String>,
}

/// What queries and dashboards cost, which is the same for every way.
#[derive(Debug, Clone, PartialEq)]
pub struct Analytics {
    /// Its lines.
    pub lines: Vec<Line>,
}

/// The sum of the lines whose price is known, in US dollars.
fn sum<'l>(lines: impl Iterator<Item = &'l Line>) -> f64 {
    lines.filter_map(|line| line.usd).sum()
}

impl Estimate {
    /// The sum of the lines whose price is known, in US dollars.
    pub fn total(&self) -> f64 {
        sum(self.lines.iter())
    }

    /// The same for one part; `None` if the bill has no such line, or only lines without a known price.
    pub fn total_of(&self, part: Part) -> Option<f64> {
        let known = |line: &&Line| line.part == part && line.usd.is_some();
        self.lines.iter().any(|line| known(&line)).then(|| sum(self.lines.iter().filter(known)))
    }

    /// What has no known price, so that the total lacks it.
    pub fn unknown(&self) -> Vec<Item> {
        self.lines.iter().filter(|line| line.usd.is_none()).map(|line| line.item).collect()
    }
}

impl Analytics {
    /// The sum, in US dollars.
    pub fn total(&self) -> f64 {
        sum(self.lines.iter())
    }
}

/// The bills of all four ways.
pub fn estimate(workload: &Workload, prices: &Prices) -> Vec<Estimate> {
    Design::ALL.into_iter().map(|design| Bill::new(workload, prices).of(design)).collect()
}

/// What is paid for queries, dashboards and alarms, whichever way the data came.
pub fn estimate_analytics(workload: &Workload, prices: &Prices) -> Analytics {
    let mut bill = Bill::new(workload, prices);
    let part = Part::Analytics;
    if workload.athena_tb > 0.0 {
        bill.add(part, Item::AthenaData, workload.athena_tb, "what the queries scan; partitions and columns reduce it");
    }
    if workload.crawler {
        let hours = HOURS / 24.0 * CRAWLER_DPUS * CRAWLER_HOURS;
        bill.add(part, Item::CrawlerHours, hours, "a daily run of 10 minutes with 2 DPUs");
    }
    if workload.quicksight_authors > 0 {
        bill.add(part, Item::Authors, f64::from(workload.quicksight_authors), "one for each author");
    }
    bill.add(part, Item::Alarms, ALARMS, "alarms on cost, lag, dead letters and stalled shards");
    bill.add(part, Item::Dashboards, DASHBOARDS, "one dashboard");
    Analytics { lines: bill.lines }
}

/// Collects the lines of a bill.
struct Bill<'a> {
    workload: &'a Workload,
    prices: &'a Prices,
    lines: Vec<Line>,
    notes: Vec<String>,
}

impl<'a> Bill<'a> {
    fn new(workload: &'a Workload, prices: &'a Prices) -> Self {
        Bill { workload, prices, lines: Vec::new(), notes: Vec::new() }
    }

    fn of(mut self, design: Design) -> Estimate {
        match design {
            Design::Shardlake => self.shardlake(),
            Design::Firehose => self.firehose(),
            Design::Lambdas => self.lambdas(),
            Design::Channel => self.channel(),
        }
        Estimate { design, lines: self.lines, notes: self.notes }
    }

    fn add(&mut self, part: Part, item: Item, units: f64, why: impl Into<String>) {
        let free = self.prices.free(item).min(units);
        let usd = self.prices.one(item).map(|one| (units - free) * one);
        self.lines.push(Line { part, item, units, free, usd, why: why.into() });
    }

    fn shardlake(&mut self) {
        let Workload { workers, vcpu, memory_gb, network, .. } = *self.workload;
        self.stream();
        let tasks = f64::from(workers);
        let part = Part::Processing;
        if self.workload.on_ec2 {
            self.add(part, Item::InstanceHours, tasks * HOURS, format!("{workers} × 730 hours"));
        } else {
            let of_tasks = format!("{workers} × {vcpu} vCPU, all hours of the month");
            self.add(part, Item::VcpuHours, tasks * vcpu * HOURS, of_tasks);
            self.add(part, Item::MemoryHours, tasks * memory_gb * HOURS, format!("{workers} × {memory_gb} GB"));
        }
        match network {
            Network::PublicIp => {
                self.add(part, Item::Ipv4Hours, tasks * HOURS, "one public address for each task");
            }
            Network::Nat => {
                self.add(part, Item::NatHours, HOURS, "one NAT gateway");
                let data = self.workload.bytes() * BASE64 / GB;
                let why = "reads of the stream, in base64; S3 and DynamoDB have gateway endpoints, which are free";
                self.add(part, Item::NatData, data, why);
            }
        }
        let requests = WorkerRequests::of(self.workload);
        let objects = requests.objects() / requests.epochs;
        let parts = requests.parts / requests.epochs;
        let epochs = show(requests.epochs);
        self.add(
            Part::Requests,
            Item::S3Puts,
            requests.s3_puts,
            format!(
                "{epochs} epochs: 2 for each of {objects:.1} objects, {parts:.1} parts, intent, commit record and log entry; roll-ups"
            ),
        );
        self.add(
            Part::Requests,
            Item::S3Gets,
            requests.s3_gets,
            "the end of the lake log; roll-ups read each commit record once",
        );
        let shards = self.workload.shards;
        let why = "a renewal every 2.9 s for each worker, one a minute for each further shard; commits";
        self.add(Part::Leases, Item::DynamoWrites, requests.lease_writes, why);
        let why = format!("a scan of the table every 2.9 s for each worker; rows: {shards}");
        self.add(Part::Leases, Item::DynamoReads, requests.lease_reads, why);
        self.storage(&Landed {
            raw: (self.workload.bytes() * RAW_RATIO, requests.raw_objects),
            processed: (self.workload.bytes() * PROCESSED_RATIO, requests.processed_objects),
            other: self.workload.bytes() * ERROR_RATIO + requests.record_bytes,
        });
        self.operation(requests.log_bytes, requests.s3_puts + requests.s3_gets + requests.epochs);
        self.add(Part::Operation, Item::SecretMonths, 1.0, "the pseudonym key");
        self.add(Part::Operation, Item::Metrics, METRICS, "metric filters of the worker's logs");
        self.note("Traffic between the stream, the workers, S3 and DynamoDB in one region costs nothing beside the lines above.");
        self.note("Exactly once; personal data removed; partitioned by type and event time; dead letters by code.");
    }

    /// The stream that Shardlake reads.
    fn stream(&mut self) {
        let part = Part::Stream;
        let Workload { shards, fan_out, .. } = *self.workload;
        let data = self.workload.bytes() / GB;
        let shard_hours = f64::from(shards) * HOURS;
        match self.workload.capacity {
            Capacity::Provisioned => {
                self.add(part, Item::ShardHours, shard_hours, format!("{shards} × 730 hours"));
                let each = self.workload.record_bytes.div_ceil(PUT_UNIT);
                let units = self.workload.bytes_in_steps_of(PUT_UNIT) / as_f64(PUT_UNIT);
                self.add(part, Item::PutUnits, units, format!("{each} for each record; reading is free"));
                if fan_out {
                    self.add(part, Item::FanOutHours, shard_hours, "one consumer with fan-out");
                    self.add(part, Item::FanOutData, data, "all records, read once");
                }
            }
            Capacity::OnDemand => {
                self.on_demand_stream();
                let (item, why) = match fan_out {
                    true => (Item::StreamFanOut, "all records, read once with fan-out"),
                    false => (Item::StreamOut, "all records, read once"),
                };
                self.add(part, item, data, why);
            }
        }
    }

    fn on_demand_stream(&mut self) {
        self.add(Part::Stream, Item::StreamHours, HOURS, "one stream");
        let data = self.workload.bytes_in_steps_of(ON_DEMAND_STEP) / GB;
        self.add(Part::Stream, Item::StreamIn, data, "all records, each rounded up to 1 KB");
    }

    fn firehose(&mut self) {
        let data = self.workload.bytes_in_steps_of(FIREHOSE_STEP) / GB;
        let stretch = self.workload.bytes_in_steps_of(FIREHOSE_STEP) / self.workload.bytes();
        let why = format!("all records, each rounded up to 5 KB: {stretch:.2} times their bytes");
        self.add(Part::Stream, Item::FirehoseData, data, why);
        self.add(Part::Processing, Item::FirehoseConversion, data, "the same bytes, to Parquet");
        let invocations = self.flushes(60.0, MB);
        self.add(
            Part::Processing,
            Item::LambdaRequests,
            invocations,
            "removes personal data: every MB, or every minute",
        );
        let megabytes = self.workload.bytes() / MB;
        let (gb, seconds) = FIREHOSE_LAMBDA;
        let time = gb * (seconds * megabytes).max(0.1 * invocations);
        self.add(Part::Processing, Item::LambdaTime, time, "0.5 GB, a second for each MB");
        let objects = self.flushes(300.0, 128.0 * MB);
        self.add(
            Part::Requests,
            Item::S3Puts,
            2.0 * objects,
            "an object of Parquet and one of records every 5 minutes or 128 MB",
        );
        self.storage(&Landed {
            raw: (self.workload.bytes() * RAW_RATIO, objects),
            processed: (self.workload.bytes() * PROCESSED_RATIO, objects),
            other: 0.0,
        });
        self.operation(LAMBDA_LOG * invocations, 2.0 * objects);
        self.note("At least once. Without dynamic partitioning all types are in one prefix, by arrival time.");
        self.note("No lease table, no tasks: nothing runs that one has to watch. No replay beside the raw copy.");
    }

    fn lambdas(&mut self) {
        let records = self.workload.records();
        self.add(
            Part::Processing,
            Item::LambdaRequests,
            2.0 * records,
            "one stores an upload, one converts its object",
        );
        let time = |(gb, seconds): (f64, f64)| gb * seconds * records;
        let why = "0.125 GB for 50 ms, and 0.5 GB for 300 ms";
        self.add(Part::Processing, Item::LambdaTime, time(UPLOAD_LAMBDA) + time(PARQUET_LAMBDA), why);
        self.add(Part::Requests, Item::S3Puts, 2.0 * records, "one object of JSON and one of Parquet for each record");
        self.add(Part::Requests, Item::S3Gets, records, "the second function reads what the first one wrote");
        let parquet = (PROCESSED_RATIO * as_f64(self.workload.record_bytes)).max(PARQUET_BYTES_MIN);
        self.storage(&Landed {
            raw: (self.workload.bytes(), records),
            processed: (records * parquet, records),
            other: 0.0,
        });
        self.operation(LAMBDA_LOG * 2.0 * records, 3.0 * records);
        self.note("At least once. The functions are called through function URLs, which cost nothing; API Gateway would cost more.");
        self.note("Every query opens one file for each record, and S3 charges a GET for each.");
    }

    fn channel(&mut self) {
        self.on_demand_stream();
        self.add(Part::Processing, Item::ChannelHours, HOURS, "one channel, if it has a price by the hour");
        let data = self.workload.bytes() / GB;
        self.add(Part::Processing, Item::ChannelData, data, "all records, if it has a price by the GB");
        let objects = self.flushes(300.0, 128.0 * MB);
        self.add(
            Part::Requests,
            Item::S3Puts,
            objects,
            "an object every 5 minutes or 128 MB, if deliveries are charged as requests",
        );
        self.storage(&Landed { raw: (self.workload.bytes() * RAW_RATIO, objects), processed: (0.0, 0.0), other: 0.0 });
        self.operation(0.0, objects);
        self.note(
            "Not the same result: personal data stays in, there is no Parquet, no partition by type or event time.",
        );
        self.note(
            "No price of channels was found: fill in kinesis.channel-hours and kinesis.channel-data with --prices.",
        );
    }

    /// How often a buffer is written that is flushed after this time, or once it has this many bytes. The time begins with the
    /// first record.
    fn flushes(&self, seconds: f64, bytes: f64) -> f64 {
        let month = HOURS * 3600.0;
        let between = month / self.workload.records();
        (month / (seconds + between)).max(self.workload.bytes() / bytes)
    }

    fn storage(&mut self, landed: &Landed) {
        let month = self.workload.month;
        let stored = stored_in_month(landed, month);
        for (item, gb) in &stored.gb {
            let why = match item {
                Item::S3Standard => "data that no rule has moved yet, or that no rule moves",
                Item::S3StandardIa => "raw/ from 30 to 90 days",
                Item::S3Frequent => "raw/ after 90 days, its first month in Intelligent-Tiering",
                Item::S3Infrequent => "raw/ that nobody has read for 30 days",
                Item::S3Archive => "raw/ that nobody has read for 90 days in Intelligent-Tiering",
                Item::S3DeepArchiveTier => "raw/ that nobody has read for 180 days in Intelligent-Tiering",
                _ => "processed/ after a year; Athena does not read it there",
            };
            self.add(Part::Storage, *item, *gb, format!("{why}; end of month {month}"));
        }
        for (item, objects) in &stored.moved {
            let class = match item {
                Item::ToStandardIa => "STANDARD_IA",
                Item::ToIntelligent => "INTELLIGENT_TIERING",
                _ => "GLACIER",
            };
            self.add(Part::Storage, *item, *objects, format!("objects that the rules move to {class} this month"));
        }
        if stored.monitored > 0.0 {
            self.add(Part::Storage, Item::S3Monitoring, stored.monitored, "objects in Intelligent-Tiering");
        }
        if let (Some(standard), false) = (self.prices.one(Item::S3Standard), stored.moved.is_empty()) {
            let all = stored.all_gb * standard;
            let now = sum(self.lines.iter().filter(|line| line.part == Part::Storage));
            self.notes.push(format!(
                "The lifecycle rules save ${:.2} this month: all in STANDARD would be ${all:.2}.",
                all - now
            ));
        }
        if !stored.too_small.is_empty() {
            let areas = stored.too_small.join(" and ");
            self.notes.push(format!("The objects of {areas} are smaller than 128 KB, so S3 moves none of them."));
        }
    }

    fn operation(&mut self, log_bytes: f64, events: f64) {
        if log_bytes > 0.0 {
            self.add(Part::Operation, Item::Logs, log_bytes / GB, "one or a few lines for each epoch or invocation");
        }
        self.add(Part::Operation, Item::DataEvents, events, "CloudTrail's data events: each request to the bucket");
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

/// A count in words of a sentence.
fn show(count: f64) -> String {
    if count >= 10.0 { format!("{count:.0}") } else { format!("{count:.1}") }
}

#[cfg(test)]
#[path = "estimate_tests.rs"]
mod tests;
