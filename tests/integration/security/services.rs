//! Models of Kinesis, DynamoDB, S3 and Firehose behind one server, and what was put into the stream.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_model::account::Account;
use aws_model::clock::ModelClock;
use aws_model::dynamodb::DynamoDb;
use aws_model::faults::{Fault, Faults, Refusal, Rule, ServiceName, When};
use aws_model::kinesis::{Kinesis, Put, Settings};
use aws_model::s3::S3;
use aws_model::server::Server;
use md5::{Digest, Md5};
use serde_json::Value;

use crate::lake::Objects;
use crate::place::Place;
use crate::records::{RECORD_BYTES_MAX, Record};
use crate::search::Marks;

pub(crate) const STREAM: &str = "people";
const BUCKET: &str = "lake-of-people";
pub(crate) const LAKE: &str = "s3://lake-of-people/main/";
pub(crate) const TABLE: &str = "leases";
/// The key of pseudonyms, in the environment.
pub(crate) const KEY: &str = "KEY_OF_TESTS";

/// The services.
pub(crate) struct Cloud {
    pub(crate) kinesis: Kinesis,
    dynamodb: DynamoDb,
    pub(crate) s3: S3,
    faults: Arc<Faults>,
    url: String,
    round: std::cell::Cell<u32>,
    _server: Server,
    _runtime: tokio::runtime::Runtime,
}

impl Cloud {
    /// A stream of two shards, an empty bucket, a delivery stream.
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let entered = runtime.enter();
        let now_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let clock = ModelClock::tokio(now_ms);
        let account = Account::new(&clock, Settings::default());
        let faults = Arc::new(Faults::new(0));
        let server = account.serve(&faults);
        drop(entered);
        let Account { kinesis, dynamodb, s3, firehose } = account;
        firehose.create("raw");
        kinesis.create_stream(STREAM, Some(2)).unwrap();
        s3.create_bucket(BUCKET);
        let url = server.url();
        let round = std::cell::Cell::new(0);
        Cloud { kinesis, dynamodb, s3, faults, url, round, _server: server, _runtime: runtime }
    }

    /// Puts the records under marked partition keys, plain and in aggregates of the Kinesis Producer Library, whole and
    /// broken: how many keys there were.
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
                    let mut data = aggregated(records, &mut key);
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
            let answers = self.kinesis.put_records(STREAM, batch.to_vec()).unwrap();
            answers.into_iter().for_each(|answer| drop(answer.unwrap()));
        }
        keys
    }

    /// Writes a worker's configuration and environment.
    pub(crate) fn configure(&self, place: &mut Place, raw: &str) {
        let group = self.round.get();
        place.write(
            "shardlake.toml",
            format!(
                "[[source]]\nurl = \"kinesis://{STREAM}\"\n[lake]\nurl = \"s3://{BUCKET}/main{group}\"\n\
                 [checkpoints]\nurl = \"dynamodb://{TABLE}{group}\"\n[anonymize]\nkey = \"env:{KEY}\"\n\
                 [commit]\ninterval = \"500ms\"\n[leases]\nfailover = \"2s\"\n[raw]\n{raw}\n\
                 [limits]\nthreads = 1\nmemory = \"64 MiB\"\nrecord_bytes = {RECORD_BYTES_MAX}\n"
            ),
        );
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        place.environment.0.extend([
            set("AWS_ENDPOINT_URL", &self.url),
            set("AWS_REGION", "us-east-1"),
            set("AWS_ACCESS_KEY_ID", "test"),
            set("AWS_SECRET_ACCESS_KEY", "test"),
            set(KEY, "0123456789abcdef0123456789abcdef"),
        ]);
    }

    /// From now on calls fail now and then, in every way: failures are told, too.
    pub(crate) fn fail_sometimes(&self) {
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

    /// The next worker has a lake and a lease table of its own.
    pub(crate) fn begin_again(&self) {
        self.round.set(self.round.get() + 1);
    }

    /// The lake's objects, by their names in it.
    pub(crate) fn lake(&self) -> Objects {
        let prefix = format!("main{}/", self.round.get());
        let keys = self.s3.keys(BUCKET).into_iter().filter(|key| {
            assert!(key.starts_with("main"), "{key} lies outside of the lake");
            key.starts_with(&prefix)
        });
        keys.map(|key| (key[prefix.len()..].to_owned(), self.s3.object(BUCKET, &key).unwrap().to_vec())).collect()
    }

    /// Every item of the lease table.
    pub(crate) fn items(&self) -> Vec<Value> {
        let table = format!("{TABLE}{}", self.round.get());
        self.dynamodb.items(&table)
    }
}

/// Magic bytes, a protobuf of a table of keys (1) and records (3), each with a key's number (1) and data (3), and its MD5.
pub(crate) fn aggregated(records: &[Record], key: &mut impl FnMut() -> String) -> Vec<u8> {
    let mut message = Vec::new();
    for _ in records {
        field(1, key().as_bytes(), &mut message);
    }
    for (number, record) in records.iter().enumerate() {
        let mut inner = vec![1 << 3, u8::try_from(number).unwrap()];
        field(3, &record.0, &mut inner);
        field(3, &inner, &mut message);
    }
    [&[0xF3, 0x89, 0x9A, 0xC2][..], &message, &Md5::digest(&message)[..]].concat()
}

pub(crate) fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend_from_slice(bytes);
}
