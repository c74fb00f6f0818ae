//! Raw landing by way of another service: records as received, sent on while their epoch is open.
//!
//! Owns: cutting chunks into records, batches, and what is on its way; an epoch is described only when all its records were
//! taken. Does not own: the raw landing in the lake (the lanes and `worker::objects`), which is exactly once.
//!
//! What is sent on is there **at least once**: an epoch that is given up was sent already and is read, and sent, again; and a
//! request whose answer is lost is repeated. Nothing is lost: a record that the service does not take keeps its epoch from
//! being committed.

mod firehose;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pipeline::chunk::{Chunk, Framing};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::retry::{RetryPolicy, Retryable};

pub use firehose::{FirehoseSink, RECORD_BYTES_MAX};

/// A service that takes records as they are.
#[async_trait]
pub trait RawSink: Send + Sync + 'static {
    /// Records that one request may have.
    fn batch_records_max(&self) -> usize;

    /// Bytes that one request may have.
    fn batch_bytes_max(&self) -> usize;

    /// Sends records, each with its line end. Gives back those that were not taken, to be sent again.
    async fn put(&self, records: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, RawError>;
}

/// A service that did not take records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RawError {
    /// It may work later.
    #[error("could not send raw records to {sink}: {problem}")]
    Unavailable {
        /// The service and what in it.
        sink: String,
        /// What happened.
        problem: String,
    },
    /// It will not work until somebody does something.
    #[error("can't send raw records to {sink}: {problem}")]
    Refused {
        /// The service and what in it.
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

/// How long records that are not taken are sent again: some five minutes.
const RETRY: RetryPolicy =
    RetryPolicy { retries: 66, first: Duration::from_millis(100), longest: Duration::from_secs(5) };
/// Requests that are under way at once.
const REQUESTS: usize = 8;

/// The records of one epoch on their way.
pub(crate) struct Forward {
    sink: Arc<dyn RawSink>,
    waiting: Vec<Vec<u8>>,
    waiting_bytes: usize,
    sending: JoinSet<Result<(), RawError>>,
    requests: Arc<Semaphore>,
}

impl Forward {
    pub(crate) fn new(sink: Arc<dyn RawSink>) -> Self {
        Forward {
            sink,
            waiting: Vec::new(),
            waiting_bytes: 0,
            sending: JoinSet::new(),
            requests: Arc::new(Semaphore::new(REQUESTS)),
        }
    }

    /// Takes a chunk's records; waits while too much is on its way.
    pub(crate) async fn push(&mut self, chunk: &Chunk) -> Result<(), RawError> {
        let bytes = chunk.bytes();
        match chunk.framing() {
            Framing::Lines { .. } => {
                for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
                    self.add(line).await?;
                }
            }
            Framing::Records(frames) => {
                for frame in frames {
                    self.add(&bytes[frame.bytes.start as usize..frame.bytes.end as usize]).await?;
                }
            }
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
        let sink = Arc::clone(&self.sink);
        self.sending.spawn(async move {
            let sent = send_all(&*sink, records).await;
            drop(permit);
            sent
        });
        while let Some(done) = self.sending.try_join_next() {
            joined(done)?;
        }
        Ok(())
    }

    /// Sends the rest, and waits until everything was taken.
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

/// Sends records until all were taken.
async fn send_all(sink: &dyn RawSink, records: Vec<Vec<u8>>) -> Result<(), RawError> {
    let rest = std::sync::Mutex::new(records);
    RETRY
        .run(|| async {
            let records = rest.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            let left = sink.put(records).await?;
            let count = left.len();
            *rest.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = left;
            match count {
                0 => Ok(()),
                count => Err(RawError::Unavailable {
                    sink: "the raw landing".to_owned(),
                    problem: format!("{count} records of a batch were not taken"),
                }),
            }
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Takes every second record of a batch, and fails every third request.
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
    async fn every_record_is_taken_though_batches_are_taken_in_parts() {
        let sink = Arc::new(Unreliable::default());
        let mut forward = Forward::new(Arc::clone(&sink) as Arc<dyn RawSink>);
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
    async fn a_refusal_is_told_before_the_epoch_is_described() {
        let mut forward = Forward::new(Arc::new(Refuses));
        let chunk = Chunk::new("s".into(), "0".into(), 0, b"one\n".to_vec(), Framing::Lines { base: 0 });
        forward.push(&chunk).await.unwrap();
        assert!(matches!(forward.finish().await, Err(RawError::Refused { .. })));
    }
}
