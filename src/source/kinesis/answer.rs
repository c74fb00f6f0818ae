//! One GetRecords call, and its response as a batch.
//!
//! Owns: taking the response's body over from the SDK. Does not own: when to call (`polling`), or the form of the body (`decode`).
//!
//! Signing, endpoints and errors are the SDK's. If the service returns status 200, an interceptor takes the body before the SDK
//! decodes it: it keeps the bytes, and the SDK gets a response without records. If the scan does not recognize a response, the same
//! iterator is requested again and the SDK decodes the response: slow, but never wrong.
//!
//! Large responses are decoded, and their aggregates opened, on a blocking thread and not on one that does I/O.
//!
//! Bodies and buffers are reused: fresh megabytes for each response cost as much as decoding it, because the system must hand out
//! and take back their pages.
//!
//! Limits: 64 MiB for a body; Kinesis's largest is a quarter of that. Between responses, [`SPARE_BODIES`] bodies of at most
//! [`SPARE_BYTES_MAX`] are kept.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use aws_sdk_kinesis::types::Record;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::source::kinesis::batch::{Batch, Malformed, RecordMeta, millis};
use crate::source::kinesis::decode::{Envelope, Rejected, scan};
use crate::source::kinesis::requests;
use crate::source::kinesis::service::Failure;

/// The most bytes of a body.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Bodies that are kept for the next responses.
const SPARE_BODIES: usize = 4;
/// The most bytes of a body that is kept.
const SPARE_BYTES_MAX: usize = 8 << 20;
/// What the SDK is given instead of the body.
const NO_RECORDS: &[u8] = br#"{"Records":[]}"#;
/// From this many bytes on, a response is decoded on a blocking thread.
const BLOCKING_MIN: usize = 128 << 10;

/// How a GetRecords response is decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Decode {
    /// By the fast scan, and by the SDK if the scan does not recognize the response.
    #[default]
    Fast,
    /// By the SDK.
    Stock,
}

/// A client that gets records.
#[derive(Debug)]
pub(super) struct GetRecordsClient {
    client: aws_sdk_kinesis::Client,
    /// The stream's name, or its ARN.
    stream: String,
    decode: Decode,
    /// It was logged that a response was not recognized.
    reported: AtomicBool,
    /// Empty bodies with capacity for a response.
    spare: Mutex<Vec<Vec<u8>>>,
}

/// A response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) batch: Batch,
    pub(super) envelope: Envelope,
}

impl GetRecordsClient {
    pub(super) fn new(client: aws_sdk_kinesis::Client, stream: &str, decode: Decode) -> Self {
        let stream = stream.to_owned();
        GetRecordsClient { client, stream, decode, reported: AtomicBool::new(false), spare: Mutex::default() }
    }

    /// Sends one request.
    pub(super) async fn get_records(&self, iterator: &str, limit: i32, batch: Batch) -> Result<Answer, Failure> {
        match self.decode {
            Decode::Fast => self.get_fast(iterator, limit, batch).await,
            Decode::Stock => self.get_stock(iterator, limit, batch).await,
        }
    }

    async fn get_fast(&self, iterator: &str, limit: i32, mut batch: Batch) -> Result<Answer, Failure> {
        let kept = Kept(Arc::new(Mutex::new(self.spare().pop().unwrap_or_default())));
        let call = requests::records(&self.client, &self.stream).shard_iterator(iterator).limit(limit).customize();
        let called = call.interceptor(TakeBody(kept.clone())).send().await;
        called.map_err(|error| Failure::of("GetRecords", &error))?;
        let body = kept.take();
        let (batch, scanned, body) = off_the_io_threads(body.len(), move || {
            // Base64 is a third longer than the bytes that it encodes.
            reserve(&mut batch.buffer, body.len() / 4 * 3);
            let scanned = scan(&body, &mut batch);
            (batch, scanned, body)
        })
        .await?;
        self.keep(body);
        match scanned {
            Ok(envelope) => Ok(Answer { batch, envelope }),
            Err(Rejected::Malformed(malformed)) => Err(Failure::Unavailable(malformed.to_string())),
            Err(Rejected::NotRecognized(found)) => {
                if !self.reported.swap(true, Ordering::Relaxed) {
                    tracing::warn!(found, "GetRecords response not recognized by the fast decoder; using the SDK");
                }
                self.get_stock(iterator, limit, batch.restarted()).await
            }
        }
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a body for the next response.
    fn keep(&self, mut body: Vec<u8>) {
        body.clear();
        let mut spare = self.spare();
        if body.capacity() <= SPARE_BYTES_MAX && spare.len() < SPARE_BODIES {
            spare.push(body);
        }
    }

    async fn get_stock(&self, iterator: &str, limit: i32, batch: Batch) -> Result<Answer, Failure> {
        let call = requests::records(&self.client, &self.stream).shard_iterator(iterator).limit(limit);
        let answer = call.send().await.map_err(|error| Failure::of("GetRecords", &error))?;
        let batch = add_all(batch, answer.records).await?;
        let children = answer.child_shards.unwrap_or_default().into_iter().map(|child| child.shard_id).collect();
        let (next, behind_ms) = (answer.next_shard_iterator, answer.millis_behind_latest.unwrap_or(0));
        Ok(Answer { batch, envelope: Envelope { next, behind_ms, children } })
    }
}

/// Reserves this many bytes in an empty buffer, and a few more that the next response may need. A buffer that grows by itself
/// doubles and copies its old bytes.
fn reserve(buffer: &mut Vec<u8>, bytes: usize) {
    if buffer.capacity() < bytes {
        *buffer = Vec::with_capacity(bytes + bytes / 16);
    }
}

/// Adds records that the SDK decoded.
pub(super) async fn add_all(mut batch: Batch, records: Vec<Record>) -> Result<Batch, Failure> {
    let bytes = records.iter().map(|record| record.data.as_ref().len()).sum();
    let added = off_the_io_threads(bytes, move || {
        for record in &records {
            let start = batch.buffer.len();
            batch.buffer.extend_from_slice(record.data.as_ref());
            let arrival_ms = record.approximate_arrival_timestamp.as_ref().map(millis);
            let partition_key = record.partition_key.as_deref();
            batch.add(start, RecordMeta { sequence: &record.sequence_number, arrival_ms, partition_key })?;
        }
        Ok::<Batch, Malformed>(batch)
    });
    added.await?.map_err(|malformed| Failure::Unavailable(malformed.to_string()))
}

/// Runs work on this many bytes, on a blocking thread if there are many. A runtime of one thread runs everything in one order, as the
/// simulation needs it.
async fn off_the_io_threads<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    if bytes < BLOCKING_MIN || Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::Unavailable(format!("decoding: {error}")))
}

/// The bytes of a body that was taken from the SDK.
#[derive(Debug, Clone)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn with<T>(&self, what: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self) -> Vec<u8> {
        self.with(std::mem::take)
    }
}

/// Takes the body of a successful response.
#[derive(Debug)]
struct TakeBody(Kept);

impl Intercept for TakeBody {
    fn name(&self) -> &'static str {
        "TakeBody"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        if response.status().as_u16() == 200 {
            let body = Box::pin(response.take_body());
            let length = body.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
            self.0.with(|kept| {
                // An earlier attempt may have left bytes.
                kept.clear();
                reserve(kept, length.min(BODY_BYTES_MAX));
            });
            *response.body_mut() = SdkBody::from_body_1_x(TakenBody { body, kept: self.0.clone(), given: false });
        }
        Ok(())
    }
}

/// A body whose bytes are kept. To its reader it is a response without records.
struct TakenBody {
    body: Pin<Box<SdkBody>>,
    kept: Kept,
    given: bool,
}

impl Body for TakenBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            match std::task::ready!(self.body.as_mut().poll_frame(context)) {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let bytes = self.kept.with(|kept| {
                        kept.extend_from_slice(&data);
                        kept.len()
                    });
                    if bytes > BODY_BYTES_MAX {
                        return Poll::Ready(Some(Err("the response is larger than any that Kinesis sends".into())));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if std::mem::replace(&mut self.given, true) => return Poll::Ready(None),
                None => return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(NO_RECORDS))))),
            }
        }
    }
}
