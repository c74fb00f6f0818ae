//! Kinesis as a kind of source: URL, keys of the configuration, permissions, opening, and making a stream for development.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::operation::create_stream::CreateStreamError;
use aws_sdk_kinesis::types::{ShardIteratorType, StreamMode, StreamModeDetails, StreamStatus};
use checkpoints::{StreamName, error_chain};
use pipeline::time::{format_rfc3339, parse_rfc3339};
use tokio::time::Instant;

use crate::aws::arn::ResourceKind;
use crate::aws::permissions::{Permission, Trials};
use crate::aws::{Access, AccessError, Aws, Created, ResourceName};
use crate::diagnosis::Diagnosis;
use crate::lake::ObjectStore;
use crate::settings::url::{Url, is_aws_name};
use crate::settings::{Fallback, Key, Kind, Setting};
use crate::source::backend::{OpenSource, OpenedSource, SourceBackend};
use crate::source::kinesis::check_identity;
use crate::source::kinesis::{diagnose, requests};
use crate::source::{Decode, KinesisConfig, KinesisSource, Limits, Mode, SourceError, Start};

/// The IAM actions that reading a stream needs. On an encrypted stream the worker also needs `kms:Decrypt` with its key.
pub(crate) const PERMISSIONS: &[Permission] = &[
    Permission { action: "kinesis:DescribeStreamSummary", requests: &["Kinesis.DescribeStreamSummary"] },
    Permission { action: "kinesis:ListShards", requests: &["Kinesis.ListShards"] },
    Permission { action: "kinesis:GetShardIterator", requests: &["Kinesis.GetShardIterator"] },
    Permission { action: "kinesis:GetRecords", requests: &["Kinesis.GetRecords"] },
    // With enhanced fan-out.
    Permission { action: "kinesis:DescribeStreamConsumer", requests: &["Kinesis.DescribeStreamConsumer"] },
    Permission { action: "kinesis:RegisterStreamConsumer", requests: &["Kinesis.RegisterStreamConsumer"] },
    Permission { action: "kinesis:SubscribeToShard", requests: &["Kinesis.SubscribeToShard"] },
];

/// How long a new stream may take to become active.
const ACTIVE_WITHIN: Duration = Duration::from_secs(120);
/// How often a new stream's status is read.
const STATUS_EVERY: Duration = Duration::from_millis(250);
/// What every default name of a consumer begins with. The rest is the application's.
const CONSUMER: &str = "shardlake-";
/// Characters that a consumer's name may have.
const CONSUMER_LENGTH: std::ops::RangeInclusive<usize> = 1..=128;
/// A stream in ARNs.
const STREAM: ResourceKind = ResourceKind { service: "kinesis", kind: "stream", length: 1..=128 };

/// A Kinesis stream, by name or by ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KinesisUrl(ResourceName);

/// How a stream is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KinesisOptions {
    /// Where the very first reading starts.
    pub start: Start,
    /// Whether records are pushed to a consumer (enhanced fan-out).
    pub fan_out: bool,
    /// The consumer's name. `None`: it was not filled in.
    pub consumer: Option<String>,
    /// How the stream is reached.
    pub access: Access,
}

impl Default for KinesisOptions {
    fn default() -> Self {
        KinesisOptions { start: Start::TrimHorizon, fan_out: false, consumer: None, access: Access::default() }
    }
}

impl KinesisOptions {
    /// The way records come.
    fn mode(&self) -> Mode {
        match &self.consumer {
            Some(consumer) if self.fan_out => Mode::FanOut { consumer: consumer.clone() },
            _ => Mode::Polling,
        }
    }
}

/// The keys of `[[source]]` for a stream.
pub(crate) fn keys() -> Vec<Box<dyn Setting<KinesisOptions>>> {
    let own = own_keys().into_iter().map(|key| Box::new(key) as Box<dyn Setting<KinesisOptions>>);
    own.chain(crate::aws::access::keys_of(|options: &mut KinesisOptions| &mut options.access)).collect()
}

fn own_keys() -> Vec<Key<KinesisOptions>> {
    vec![
        Key {
            name: "start",
            kind: Kind::Text {
                form: "`trim_horizon`, `latest` or a time",
                read: |options, text| {
                    options.start = parse_start(text)?;
                    Ok(())
                },
                show: |options| {
                    Some(match options.start {
                        Start::TrimHorizon => "trim_horizon".to_owned(),
                        Start::Latest => "latest".to_owned(),
                        Start::At { ms } => format_rfc3339(i64::try_from(ms).unwrap_or(i64::MAX)),
                    })
                },
            },
            default: Fallback::Is("trim_horizon"),
            doc: "Where reading starts if no worker has opened the stream before. Later starts continue from the checkpoints.",
        },
        Key {
            name: "read",
            kind: Kind::Text {
                form: "`polling` or `fan-out`",
                read: |options, text| {
                    options.fan_out = match text {
                        "polling" => false,
                        "fan-out" | "fan_out" => true,
                        other => return Err(format!("read must be polling or fan-out, not '{other}'")),
                    };
                    Ok(())
                },
                show: |options| Some(if options.fan_out { "fan-out" } else { "polling" }.to_owned()),
            },
            default: Fallback::Is("polling"),
            doc: "How records are read: `polling` shares each shard's 2 MB a second with all its readers; `fan-out` has 2 MB a \
              second for this consumer alone, at a price.",
        },
        Key {
            name: "consumer",
            kind: Kind::Text {
                form: "name",
                read: |options, text| {
                    if !options.fan_out {
                        return Err("consumer is only for read = \"fan-out\"".to_owned());
                    }
                    if !is_aws_name(text, CONSUMER_LENGTH) {
                        return Err(format!(
                            "consumer must have 1 to 128 of a-z, A-Z, 0-9, '.', '_', '-', not '{text}'"
                        ));
                    }
                    options.consumer = Some(text.to_owned());
                    Ok(())
                },
                show: |options| options.consumer.clone(),
            },
            default: Fallback::Depends("`shardlake-` and the lease table's name, with a part that depends on the lake"),
            doc: "The name of the registered consumer, which is registered if it does not exist. Each application needs one of its \
                  own ([aws.md](aws.md#reading)).",
        },
    ]
}

/// Reads `trim_horizon`, `latest` or a time.
fn parse_start(text: &str) -> Result<Start, String> {
    match text.to_ascii_lowercase().replace('-', "_").as_str() {
        "trim_horizon" => Ok(Start::TrimHorizon),
        "latest" => Ok(Start::Latest),
        _ => match parse_rfc3339(text.as_bytes()).map(u64::try_from) {
            Some(Ok(ms)) => Ok(Start::At { ms }),
            _ => {
                Err(format!("start must be trim_horizon, latest or a time such as 2025-01-13T10:30:00Z, not '{text}'"))
            }
        },
    }
}

impl KinesisUrl {
    /// The name of this kind of source.
    pub const NAME: &'static str = "Kinesis";
    /// The scheme of its URLs.
    pub const SCHEME: &'static str = "kinesis";
    /// What a URL looks like.
    pub const FORM: &'static str = "kinesis://STREAM";
    /// Its service, as ARNs write it.
    pub(crate) const SERVICE: &'static str = STREAM.service;

    /// Reads a URL of this scheme.
    pub(crate) fn parse(url: &Url<'_>) -> Result<Self, String> {
        match ResourceName::parse(url.rest, &STREAM) {
            Ok(name) => Ok(KinesisUrl(name)),
            Err(problem) => Err(format!("'{url}': expected {}: {problem}", Self::FORM)),
        }
    }

    /// The stream's name in Kinesis.
    pub fn stream(&self) -> &str {
        self.0.name()
    }

    /// The stream, by its name or its ARN.
    pub fn resource(&self) -> &ResourceName {
        &self.0
    }

    async fn client(&self, aws: &Aws, options: &KinesisOptions) -> Result<aws_sdk_kinesis::Client, AccessError> {
        Ok(aws.reach(&options.access, self.0.region()).await?.kinesis())
    }
}

impl fmt::Display for KinesisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kinesis://{}", self.0)
    }
}

#[async_trait]
impl<Options: AsRef<KinesisOptions> + AsMut<KinesisOptions> + Sync> SourceBackend<Options> for KinesisUrl {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn stream_name(&self) -> Option<&str> {
        Some(self.stream())
    }

    fn local_stream_name(&self, name: Option<&str>) -> Option<StreamName> {
        StreamName::new(name.unwrap_or(self.stream())).ok()
    }

    fn needs_aws(&self) -> bool {
        true
    }

    fn is_kcl_stream(&self) -> bool {
        true
    }

    /// A consumer has one subscription of a shard, and the live workers have it.
    fn read_beside(&self, options: &mut Options) {
        options.as_mut().fan_out = false;
    }

    fn fill(&self, options: &mut Options, application: &str) {
        let options = options.as_mut();
        if options.fan_out && options.consumer.is_none() {
            let most = CONSUMER_LENGTH.end() - CONSUMER.len();
            // The end of an application's name tells it from others.
            let name = &application[application.len().saturating_sub(most)..];
            options.consumer = Some(format!("{CONSUMER}{name}"));
        }
    }

    fn check_options(&self, options: &Options) -> Result<(), String> {
        options.as_ref().access.check_region(self.0.region())
    }

    async fn open(&self, context: OpenSource<'_, Options>) -> Result<OpenedSource, SourceError> {
        let OpenSource { name, options, record_bytes_max, documents, complete, clock, lake, aws, retry_within, .. } =
            context;
        let options = options.as_ref();
        let config = KinesisConfig {
            stream: self.0.as_str().to_owned(),
            name: Some(name.unwrap_or(self.stream()).to_owned()),
            start: options.start,
            mode: options.mode(),
            record_bytes_max,
            documents,
            decode: Decode::Fast,
            limits: Limits::default(),
            retry_within,
            bounded: complete,
            clock: Arc::clone(clock),
        };
        let client = self.client(Aws::required(aws), options).await.map_err(|AccessError { problem, passing }| {
            let place = format!("stream {}", self.0);
            if passing {
                SourceError::Unavailable { place, problem }
            } else {
                SourceError::Unreadable { place, problem }
            }
        })?;
        let source = KinesisSource::open(client, config, Arc::clone(lake)).await?;
        let kcl_id = Some(source.serialized_id());
        Ok(OpenedSource { source: Arc::new(source), kcl_id })
    }

    async fn check_identity(
        &self,
        name: Option<&str>,
        options: &Options,
        lake: &Arc<dyn ObjectStore>,
        aws: Option<&Aws>,
    ) -> Result<(), SourceError> {
        let Some(name) = <Self as SourceBackend<Options>>::local_stream_name(self, name) else { return Ok(()) };
        // Trying the permissions says what is wrong with the way there.
        let Ok(client) = self.client(Aws::required(aws), options.as_ref()).await else { return Ok(()) };
        check_identity(&client, self.0.as_str(), &name, lake).await
    }

    async fn try_permissions(&self, aws: &Aws, options: &Options, trials: &mut Trials) {
        let (options, stream) = (options.as_ref(), self.0.as_str());
        let absent = ("ResourceNotFoundException", "the stream (shardlake init makes it)");
        let client = match self.client(aws, options).await {
            Ok(client) => client,
            Err(error) => return trials.fail("kinesis:DescribeStreamSummary", stream, error.problem),
        };
        let described = requests::describe(&client, stream).send().await;
        let summary = described.as_ref().ok().and_then(|answer| answer.stream_description_summary());
        let arn = summary.map(|summary| summary.stream_arn().to_owned());
        trials.note("kinesis:DescribeStreamSummary", stream, described, &[], absent);
        let listed = requests::list_shards(&client, stream).max_results(1).send().await;
        let shard = listed.as_ref().ok().and_then(|answer| answer.shards().first());
        let shard = shard.map(|shard| shard.shard_id().to_owned());
        trials.note("kinesis:ListShards", stream, listed, &[], absent);
        let Some(shard) = shard else { return };
        let request = requests::shard_iterator(&client, stream).shard_id(shard);
        let got = request.shard_iterator_type(ShardIteratorType::Latest).send().await;
        let iterator = got.as_ref().ok().and_then(|answer| answer.shard_iterator()).map(str::to_owned);
        trials.note("kinesis:GetShardIterator", stream, got, &[], absent);
        if let Some(iterator) = iterator {
            let read = requests::records(&client, stream).shard_iterator(iterator).limit(1).send().await;
            trials.note("kinesis:GetRecords", stream, read, &["ProvisionedThroughputExceededException"], absent);
        }
        if let (Mode::FanOut { consumer }, Some(arn)) = (options.mode(), arn) {
            let described = client.describe_stream_consumer().stream_arn(&arn).consumer_name(&consumer).send().await;
            let absent =
                ("ResourceNotFoundException", "the consumer (a worker registers it: kinesis:RegisterStreamConsumer)");
            let resource = format!("{stream}/consumer/{consumer}");
            trials.note("kinesis:DescribeStreamConsumer", &resource, described, &[], absent);
        }
    }

    async fn diagnose(&self, options: &Options, aws: Option<&Aws>, diagnosis: &mut Diagnosis) {
        match self.client(Aws::required(aws), options.as_ref()).await {
            Ok(client) => diagnose::diagnose(&client, self.0.as_str(), diagnosis).await,
            Err(error) => diagnosis.cannot_check(format!("stream {}", self.0), error.problem),
        }
    }

    async fn create(&self, aws: &Aws, options: &Options, shards: u32) -> Result<Option<Created>, String> {
        let client = self.client(aws, options.as_ref()).await.map_err(|error| error.problem)?;
        let stream = self.stream();
        let request = client.create_stream().stream_name(stream);
        let request = match i32::try_from(shards) {
            Ok(0) => {
                let mode = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand).build();
                request.stream_mode_details(mode.expect("it has a mode"))
            }
            Ok(shards) => request.shard_count(shards),
            Err(_) => return Err(format!("{shards} shards are more than a stream may have")),
        };
        let created = match request.send().await {
            Ok(_) => Created::Made,
            Err(error) if error.as_service_error().is_some_and(CreateStreamError::is_resource_in_use_exception) => {
                Created::Existed
            }
            Err(error) => return Err(error_chain(&error)),
        };
        let deadline = Instant::now() + ACTIVE_WITHIN;
        loop {
            let answer = client.describe_stream_summary().stream_name(stream).send().await;
            let answer = answer.map_err(|error| error_chain(&error))?;
            let status = answer.stream_description_summary().map(|summary| summary.stream_status().clone());
            if status == Some(StreamStatus::Active) {
                return Ok(Some(created));
            }
            if Instant::now() > deadline {
                return Err(format!("the stream is not active after {} s", ACTIVE_WITHIN.as_secs()));
            }
            tokio::time::sleep(STATUS_EVERY).await;
        }
    }
}
