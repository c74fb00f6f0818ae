//! Raw landing through another service: records as received, sent while their epoch is open.
//!
//! Owns: cutting chunks into records, batches, the requests in progress, and the services that raw records may go to. An epoch's
//! intent is written only when the service has accepted all its records. Does not own: the raw landing in the lake (the lanes and
//! `worker::epoch`), which is exactly once.
//!
//! The service gets every record **at least once**. An aborted epoch was sent already, and is read and sent again; a request whose
//! response is lost is repeated. Nothing is lost: as long as the service does not accept a record, its epoch is not committed.

mod firehose;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use pipeline::chunk::Chunk;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::aws::arn::ResourceKind;
use crate::aws::permissions::{Permission, Trials};
use crate::aws::{Access, AccessError, Aws, ResourceName};
use crate::retry::{Retry, Retryable};

pub use firehose::{FirehoseSink, RECORD_BYTES_MAX};

/// Where records as received go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RawTo {
    /// Into the epoch's own objects below `raw/`: exactly once.
    #[default]
    Lake,
    /// To a delivery stream of Data Firehose: at least once.
    Firehose {
        /// Its name or its ARN, which also says the region.
        delivery_stream: ResourceName,
    },
}

/// A delivery stream of Firehose.
const DELIVERY_STREAM: ResourceKind = ResourceKind { service: "firehose", kind: "deliverystream", length: 1..=64 };

/// The permissions that any service may need.
pub fn permissions() -> Vec<Permission> {
    vec![
        Permission { action: "firehose:DescribeDeliveryStream", requests: &["Firehose.DescribeDeliveryStream"] },
        Permission { action: "firehose:PutRecordBatch", requests: &["Firehose.PutRecordBatch"] },
    ]
}

impl RawTo {
    /// Reads `lake`, `firehose:NAME` or `firehose:ARN`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "lake" => Ok(RawTo::Lake),
            Some(("firehose", name)) => match ResourceName::parse(name, &DELIVERY_STREAM) {
                Ok(delivery_stream) => Ok(RawTo::Firehose { delivery_stream }),
                Err(problem) => Err(format!("to: '{text}': {problem}")),
            },
            _ => Err(format!("to must be \"lake\" or \"firehose:NAME\", not '{text}'")),
        }
    }

    /// Whether opening it needs the SDK's settings.
    pub fn needs_aws(&self) -> bool {
        matches!(self, RawTo::Firehose { .. })
    }

    /// Opens the service; `None` for the lake.
    ///
    /// # Errors
    /// The service does not have what is named, or cannot be reached.
    pub async fn open(&self, aws: Option<&Aws>) -> Result<Option<Arc<dyn RawSink>>, RawError> {
        let RawTo::Firehose { delivery_stream } = self else { return Ok(None) };
        let name = delivery_stream.name();
        let aws = Aws::required(aws).reach(&Access::default(), delivery_stream.region()).await;
        let sink = FirehoseSink::new(aws.map_err(|error| not_reached(name, error))?.firehose(), name);
        sink.probe().await?;
        Ok(Some(Arc::new(sink)))
    }

    /// Tries the actions that a worker needs.
    pub async fn try_permissions(&self, aws: &Aws, trials: &mut Trials) {
        let RawTo::Firehose { delivery_stream } = self else { return };
        let (action, name) = ("firehose:DescribeDeliveryStream", delivery_stream.name());
        let aws = match aws.reach(&Access::default(), delivery_stream.region()).await {
            Ok(aws) => aws,
            Err(error) => return trials.fail(action, name, error.problem),
        };
        let described = aws.firehose().describe_delivery_stream().delivery_stream_name(name).send().await;
        trials.note(action, name, described, &[], ("ResourceNotFoundException", "the delivery stream"));
    }
}

impl fmt::Display for RawTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RawTo::Lake => f.write_str("lake"),
            RawTo::Firehose { delivery_stream } => write!(f, "firehose:{delivery_stream}"),
        }
    }
}

fn not_reached(delivery_stream: &str, AccessError { problem, passing }: AccessError) -> RawError {
    let sink = format!("delivery stream {delivery_stream}");
    if passing { RawError::Unavailable { sink, problem } } else { RawError::Refused { sink, problem } }
}

/// A service that accepts records as they are.
#[async_trait]
pub trait RawSink: Send + Sync + 'static {
    /// The most records of one request.
    fn batch_records_max(&self) -> usize;

    /// The most bytes of one request.
    fn batch_bytes_max(&self) -> usize;

    /// Sends records, each with its line end. Returns those that were rejected, to be sent again.
    async fn put(&self, records: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, RawError>;
}

/// A service that did not accept records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RawError {
    /// It may work later.
    #[error("failed to send raw records to {sink}: {problem}")]
    Unavailable {
        /// The service and its resource.
        sink: String,
        /// What happened.
        problem: String,
    },
    /// It will not work until somebody acts.
    #[error("cannot send raw records to {sink}: {problem}")]
    Refused {
        /// The service and its resource.
        sink: String,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl Retryable for RawError {
    fn is_retryable(&self) -> bool {
        matches!(self, RawError::Unavailable { .. })
    }
}

/// Requests in progress at once.
const REQUESTS: usize = 8;

/// The records of one epoch that are being sent.
pub(crate) struct Forward {
    sink: Arc<dyn RawSink>,
    waiting: Vec<Vec<u8>>,
    waiting_bytes: usize,
    sending: JoinSet<Result<(), RawError>>,
    requests: Arc<Semaphore>,
    retry: Retry,
}

impl Forward {
    pub(crate) fn new(sink: Arc<dyn RawSink>, retry: Retry) -> Self {
        Forward {
            sink,
            waiting: Vec::new(),
            waiting_bytes: 0,
            sending: JoinSet::new(),
            requests: Arc::new(Semaphore::new(REQUESTS)),
            retry,
        }
    }

    /// Sends a chunk's records. Waits while too many requests are in progress.
    pub(crate) async fn push(&mut self, chunk: &Chunk) -> Result<(), RawError> {
        for record in chunk.records_received() {
            self.add(&record).await?;
        }
        Ok(())
    }

    async fn add(&mut self, record: &[u8]) -> Result<(), RawError> {
        let full = self.waiting.len() == self.sink.batch_records_max()
            || self.waiting_bytes + record.len() + 1 > self.sink.batch_bytes_max();
        if full {
            self.send().await?;
        }
        let mut line = Vec::with_capacity(record.len() + 1);
        line.extend_from_slice(record);
        line.push(b'\n');
        self.waiting_bytes += line.len();
        self.waiting.push(line);
        Ok(())
    }

    async fn send(&mut self) -> Result<(), RawError> {
        self.waiting_bytes = 0;
        let records = std::mem::take(&mut self.waiting);
        if records.is_empty() {
            return Ok(());
        }
        let Ok(permit) = Arc::clone(&self.requests).acquire_owned().await else { return Ok(()) };
        let (sink, retry) = (Arc::clone(&self.sink), self.retry.clone());
        self.sending.spawn(async move {
            let sent = send_all(&*sink, records, &retry).await;
            drop(permit);
            sent
        });
        while let Some(done) = self.sending.try_join_next() {
            joined(done)?;
        }
        Ok(())
    }

    /// Sends the rest, and waits until all records were accepted.
    pub(crate) async fn finish(mut self) -> Result<(), RawError> {
        self.send().await?;
        while let Some(done) = self.sending.join_next().await {
            joined(done)?;
        }
        Ok(())
    }
}

fn joined(done: Result<Result<(), RawError>, tokio::task::JoinError>) -> Result<(), RawError> {
    done.unwrap_or_else(|error| {
        Err(RawError::Unavailable { sink: "the raw landing".to_owned(), problem: error.to_string() })
    })
}

/// Sends records until all were accepted.
async fn send_all(sink: &dyn RawSink, records: Vec<Vec<u8>>, retry: &Retry) -> Result<(), RawError> {
    let rest = std::sync::Mutex::new(records);
    retry
        .run(|| async {
            let records = rest.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            let rejected = sink.put(records).await?;
            let count = rejected.len();
            *rest.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = rejected;
            match count {
                0 => Ok(()),
                count => Err(RawError::Unavailable {
                    sink: "the raw landing".to_owned(),
                    problem: format!("{count} records of a batch were rejected"),
                }),
            }
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::RetryPolicy;
    use pipeline::chunk::Framing;
    use std::sync::Mutex;

    fn retry() -> Retry {
        Retry::new(RetryPolicy::CALL, "the raw landing")
    }

    /// Accepts every second record of a batch, and fails every third request.
    #[derive(Default)]
    struct Unreliable {
        taken: Mutex<Vec<Vec<u8>>>,
        calls: Mutex<u64>,
    }

    #[async_trait]
    impl RawSink for Unreliable {
        fn batch_records_max(&self) -> usize {
            3
        }

        fn batch_bytes_max(&self) -> usize {
            20
        }

        async fn put(&self, records: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, RawError> {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            assert!(records.len() <= 3 && records.iter().map(Vec::len).sum::<usize>() <= 20);
            if calls.is_multiple_of(3) {
                return Err(RawError::Unavailable { sink: "test".to_owned(), problem: "lost".to_owned() });
            }
            let mut left = Vec::new();
            for (place, record) in records.into_iter().enumerate() {
                if place.is_multiple_of(2) { self.taken.lock().unwrap().push(record) } else { left.push(record) }
            }
            Ok(left)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_record_is_accepted_although_batches_are_accepted_in_parts() {
        let sink = Arc::new(Unreliable::default());
        let mut forward = Forward::new(Arc::clone(&sink) as Arc<dyn RawSink>, retry());
        let text = "one\ntwo\n\nthree\nfour four four\nfive\nsix".to_owned();
        let chunk = Chunk::new("s".into(), "0".into(), 0, text.into_bytes(), Framing::Lines { base: 0 });
        forward.push(&chunk).await.unwrap();
        forward.finish().await.unwrap();
        let mut taken = sink.taken.lock().unwrap().clone();
        taken.sort();
        let lines: Vec<&str> = taken.iter().map(|line| std::str::from_utf8(line).unwrap()).collect();
        assert_eq!(lines, ["five\n", "four four four\n", "one\n", "six\n", "three\n", "two\n"]);
    }

    struct Refuses;

    #[async_trait]
    impl RawSink for Refuses {
        fn batch_records_max(&self) -> usize {
            1
        }

        fn batch_bytes_max(&self) -> usize {
            100
        }

        async fn put(&self, _: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, RawError> {
            Err(RawError::Refused { sink: "test".to_owned(), problem: "there is no such stream".to_owned() })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_reported_before_the_intent_is_written() {
        let mut forward = Forward::new(Arc::new(Refuses), retry());
        let chunk = Chunk::new("s".into(), "0".into(), 0, b"one\n".to_vec(), Framing::Lines { base: 0 });
        forward.push(&chunk).await.unwrap();
        assert!(matches!(forward.finish().await, Err(RawError::Refused { .. })));
    }
}
