//! A model of Amazon Data Firehose, for records that are put into it directly.
//!
//! Owns: PutRecordBatch with its limits and partial failures, DescribeDeliveryStream, and the accepted records in order, for
//! tests to read. Delivery is at least once: a batch whose reply was lost is stored, and is stored twice when it is repeated.
//! Does not own: delivery to S3, transport and its faults.
//!
//! Limits: 500 records and 4 MiB a batch, 1,000 KiB a record before base64.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value as Json, json};

use crate::http::{Request, Response, Service};

const TARGET: &str = "Firehose_20150804.";
const RECORDS_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
const RECORD_BYTES_MAX: usize = 1_000 * 1024;

/// A Firehose; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Firehose {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<String, Vec<Bytes>>,
    batches: u64,
    taken: u64,
    failing: BTreeMap<u64, BTreeSet<usize>>,
    unavailable: BTreeSet<u64>,
}

struct Refused {
    status: u16,
    code: &'static str,
    message: String,
}

impl Firehose {
    /// A Firehose without delivery streams.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a delivery stream.
    pub fn create(&self, name: &str) {
        self.lock().streams.entry(name.to_owned()).or_default();
    }

    /// Makes records of the `nth` batch from now on (the next is 1) fail, by their indexes in it.
    pub fn fail_records(&self, nth: u64, places: impl IntoIterator<Item = usize>) {
        let mut state = self.lock();
        let at = state.batches + nth;
        state.failing.entry(at).or_default().extend(places);
    }

    /// Refuses the `nth` batch from now on with `ServiceUnavailableException`; none of its records is stored.
    pub fn refuse_batch(&self, nth: u64) {
        let mut state = self.lock();
        let at = state.batches + nth;
        state.unavailable.insert(at);
    }

    /// The records that a delivery stream has stored, in order.
    pub fn delivered(&self, name: &str) -> Vec<Bytes> {
        self.lock().streams.get(name).cloned().unwrap_or_default()
    }

    fn operate(&self, request: &Request) -> Result<Json, Refused> {
        let target = request.headers.get("x-amz-target").map_or("", String::as_str);
        let body: Json = serde_json::from_slice(&request.body)
            .map_err(|_| refused("SerializationException", "Could not parse request body"))?;
        let name = body["DeliveryStreamName"].as_str().unwrap_or_default();
        let mut state = self.lock();
        match target.strip_prefix(TARGET) {
            Some("PutRecordBatch") => state.put(name, &body),
            Some("DescribeDeliveryStream") => state.describe(name),
            _ => Err(refused("UnknownOperationException", "")),
        }
    }
}

impl State {
    fn put(&mut self, name: &str, body: &Json) -> Result<Json, Refused> {
        let records = body["Records"].as_array().map(Vec::as_slice).unwrap_or_default();
        if records.is_empty() || records.len() > RECORDS_MAX {
            let (length, bound, limit) =
                (records.len(), if records.is_empty() { "greater" } else { "less" }, records.is_empty());
            return Err(refused(
                "ValidationException",
                format!(
                    "1 validation error detected: Value of length {length} at 'records' failed to satisfy constraint: Member \
                     must have length {bound} than or equal to {}",
                    if limit { 1 } else { RECORDS_MAX }
                ),
            ));
        }
        let mut batch: Vec<Bytes> = Vec::with_capacity(records.len());
        for (place, record) in records.iter().enumerate() {
            let data = record["Data"].as_str().and_then(|data| STANDARD.decode(data).ok());
            let data = data.ok_or_else(|| refused("SerializationException", "Expected base64"))?;
            if data.len() > RECORD_BYTES_MAX {
                return Err(refused(
                    "ValidationException",
                    format!(
                        "1 validation error detected: Value at 'records.{}.member.data' failed to satisfy constraint: Member \
                         must have length less than or equal to {RECORD_BYTES_MAX}",
                        place + 1
                    ),
                ));
            }
            batch.push(Bytes::from(data));
        }
        if batch.iter().map(Bytes::len).sum::<usize>() > BATCH_BYTES_MAX {
            return Err(refused("InvalidArgumentException", "Records size exceeds 4 MB limit"));
        }
        if !self.streams.contains_key(name) {
            return Err(not_found(name));
        }
        self.batches += 1;
        if self.unavailable.remove(&self.batches) {
            return Err(Refused {
                status: 503,
                code: "ServiceUnavailableException",
                message: "Service is unavailable. Please retry your request.".to_owned(),
            });
        }
        let failing = self.failing.remove(&self.batches).unwrap_or_default();
        let (mut failed, mut responses) = (0, Vec::with_capacity(batch.len()));
        for (place, data) in batch.into_iter().enumerate() {
            if failing.contains(&place) {
                failed += 1;
                responses.push(json!({ "ErrorCode": "ServiceUnavailableException", "ErrorMessage": "Slow down." }));
                continue;
            }
            self.taken += 1;
            responses.push(json!({ "RecordId": format!("{:032}", self.taken) }));
            self.streams.entry(name.to_owned()).or_default().push(data);
        }
        Ok(json!({ "FailedPutCount": failed, "Encrypted": false, "RequestResponses": responses }))
    }

    fn describe(&self, name: &str) -> Result<Json, Refused> {
        if !self.streams.contains_key(name) {
            return Err(not_found(name));
        }
        Ok(json!({ "DeliveryStreamDescription": {
            "DeliveryStreamName": name,
            "DeliveryStreamARN": format!("arn:aws:firehose:us-east-1:000000000000:deliverystream/{name}"),
            "DeliveryStreamStatus": "ACTIVE",
            "DeliveryStreamType": "DirectPut",
            "VersionId": "1",
            "Destinations": [],
            "HasMoreDestinations": false,
        } }))
    }
}

fn refused(code: &'static str, message: impl Into<String>) -> Refused {
    Refused { status: 400, code, message: message.into() }
}

fn not_found(name: &str) -> Refused {
    refused("ResourceNotFoundException", format!("Firehose {name} under account 000000000000 not found."))
}

impl Service for Firehose {
    fn answer(&self, request: &Request) -> Response {
        let (status, body) = match self.operate(request) {
            Ok(body) => (200, body),
            Err(Refused { status, code, message }) => (status, json!({ "__type": code, "message": message })),
        };
        let headers = vec![("Content-Type".to_owned(), "application/x-amz-json-1.1".to_owned())];
        Response { status, headers, body: Bytes::from(body.to_string()) }
    }
}
