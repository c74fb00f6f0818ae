//! Models of the AWS services that Shardlake uses, for tests.
//!
//! Owns: what Kinesis, DynamoDB, S3 and Data Firehose do wherever Shardlake relies on it, with the limits and faults that the
//! local stand-ins lack. Does not own: any code of the product, and it uses none.
//!
//! A model is a plain value behind a lock, and its clones share it. The same calls in the same order give the same answers.
//! Tests call it in-process, or serve it over HTTP for the official SDK ([`server::Server`]). [`account::Account`] has all
//! models together. [`faults::Faults`] is a plan of what goes wrong between a client and a model: refused, delayed, hanging and
//! cut calls, before or after their effect.
//!
//! | service | modelled | left out |
//! |---|---|---|
//! | [`kinesis`] | streams, records, iterators, ListShards with filters, resharding, retention, fan-out consumers and subscriptions, limits of shards | encryption, tags, metrics, resource policies |
//! | [`dynamodb`] | tables with global secondary indexes, reads, conditional writes, batches, transactions with tokens, expressions, the older conditions that KCL uses | streams, restoring backups, the expiry of rows, PartiQL, local secondary indexes, provisioned limits |
//! | [`s3`] | objects, conditional writes, multipart uploads, listings, checksums, tags, copies | versions, policies, lifecycle rules as such, signatures, Select |
//! | [`sts`] | AssumeRole | everything else |
//! | [`secrets`] | GetSecretValue | everything else |
//! | [`firehose`] | PutRecordBatch with limits and partial failures, DescribeDeliveryStream | delivery to S3 |
//!
//! The models are as large as the product's use of the services, and should not grow beyond that: what they do is compared
//! with stand-ins (the tests named `differential`) and with AWS's documents only. They have tests of their own, in two binaries:
//! `kinesis_model` and `other_models`.

pub mod access;
pub mod clock;
pub mod faults;
pub mod http;
pub mod server;

pub mod route;

mod chunked;

pub mod dynamodb;
pub mod firehose;
pub mod kinesis;
pub mod s3;
pub mod secrets;
pub mod sts;

pub mod account;
