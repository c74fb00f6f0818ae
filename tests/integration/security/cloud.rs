//! Models of AWS, and marked records in their stream.
//!
//! Owns: putting records in every form that a producer may send, the configuration of a worker that reads them, and reading
//! everything back. Does not own: the models (`common::services`), or the marks (`search`).

use std::cell::Cell;
use std::ops::Deref;

use aws_model::clock::ModelClock;
use aws_model::faults::{Fault, Refusal, Rule, ServiceName, When};
use aws_model::kinesis::{Put, Settings};
use serde_json::Value;

use crate::common::aggregate::aggregate;
use crate::common::folder::Folder;
use crate::common::now_ms;
use crate::common::services::{KEY, Services};
use crate::security::lake::Objects;
use crate::security::records::{RECORD_BYTES_MAX, Record};
use crate::security::search::Marks;

pub(crate) const STREAM: &str = "people";
const BUCKET: &str = "lake-of-people";
pub(crate) const TABLE: &str = "leases";

/// The services, and which lake and lease table the next worker uses.
pub(crate) struct Cloud {
    services: Services,
    round: Cell<u32>,
}

impl Deref for Cloud {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.services
    }
}

impl Cloud {
    /// A stream of two shards, an empty bucket, a delivery stream.
    pub(crate) fn new() -> Self {
        let services = Services::start(STREAM, 2, BUCKET, Settings::default(), || ModelClock::tokio(now_ms()));
        services.firehose.create("raw");
        Cloud { services, round: Cell::new(0) }
    }

    /// Puts the records under marked partition keys: plain, in aggregates, and in broken aggregates. Returns the number of keys.
    pub(crate) fn put(&self, records: &[Record], marks: &mut Marks) -> usize {
        let mut puts = Vec::new();
        let mut keys = 0;
        for (number, records) in records.chunks(5).enumerate() {
            let mut key = || {
                keys += 1;
                marks.code("", "")
            };
            match number % 4 {
                0 => {
                    let inner: Vec<String> = records.iter().map(|_| key()).collect();
                    let pairs = inner.iter().zip(records).map(|(key, record)| (key.as_str(), record.0.as_slice()));
                    let mut data = aggregate(pairs);
                    if number % 8 == 0 {
                        let middle = data.len() / 2;
                        data[middle] ^= 0x40;
                    }
                    puts.push(Put::new(key(), data));
                }
                _ => puts.extend(records.iter().map(|record| Put::new(key(), record.0.clone()))),
            }
        }
        for batch in puts.chunks(100) {
            let results = self.kinesis.put_records(STREAM, batch.to_vec()).unwrap();
            results.into_iter().for_each(|result| drop(result.unwrap()));
        }
        keys
    }

    /// Writes a worker's configuration, and sets its environment.
    pub(crate) fn configure(&self, folder: &mut Folder, raw: &str) {
        let round = self.round.get();
        folder.write(
            "shardlake.toml",
            format!(
                "[[source]]\nurl = \"kinesis://{STREAM}\"\n[lake]\nurl = \"s3://{BUCKET}/main{round}\"\n\
                 [checkpoints]\nurl = \"dynamodb://{TABLE}{round}\"\n[anonymize]\nkey = \"env:{KEY}\"\n\
                 [commit]\ninterval = \"500ms\"\n[leases]\nfailover = \"2s\"\n[raw]\n{raw}\n\
                 [limits]\nthreads = 1\nmemory = \"64 MiB\"\nrecord_bytes = {RECORD_BYTES_MAX}\n"
            ),
        );
        self.set_environment(folder);
    }

    /// From now on some calls fail, in every way: failures are logged, too.
    pub(crate) fn fail_some_calls(&self) {
        for (service, operation) in [
            (ServiceName::Kinesis, "GetRecords"),
            (ServiceName::DynamoDb, "TransactWriteItems"),
            (ServiceName::S3, "UploadPart"),
            (ServiceName::S3, "CompleteMultipartUpload"),
            (ServiceName::Firehose, "PutRecordBatch"),
        ] {
            let rule = |nth, fault| self.faults.add(Rule::new(service, operation, When::Nth(nth), fault));
            rule(2, Fault::CutBody);
            rule(4, Fault::Refuse(Refusal::new(500, "InternalFailure", "The request processing has failed.")));
            rule(6, Fault::CutAfter);
            rule(8, Fault::RefuseAfter(Refusal::new(503, "ServiceUnavailable", "Try again.")));
        }
    }

    pub(crate) fn fail_no_more(&self) {
        self.faults.clear();
    }

    /// Gives the next worker a lake and a lease table of its own.
    pub(crate) fn use_another_lake(&self) {
        self.round.set(self.round.get() + 1);
    }

    /// The lake's objects, by their keys in the lake.
    pub(crate) fn lake(&self) -> Objects {
        let prefix = format!("main{}/", self.round.get());
        let keys = self.s3.keys(BUCKET).into_iter().filter(|key| {
            assert!(key.starts_with("main"), "{key} is outside the lake");
            key.starts_with(&prefix)
        });
        keys.map(|key| (key[prefix.len()..].to_owned(), self.s3.object(BUCKET, &key).unwrap().to_vec())).collect()
    }

    /// Every item of the lease table.
    pub(crate) fn items(&self) -> Vec<Value> {
        self.dynamodb.items(&format!("{TABLE}{}", self.round.get()))
    }
}
