//! Models of the AWS services that Shardlake uses, for tests.
//!
//! Owns: what Kinesis, DynamoDB, S3 and Firehose do, as far as Shardlake relies on it, with the limits and faults that the
//! local stand-ins lack. A model is a plain value behind a lock: the same calls in the same order give the same answers. It
//! is used in-process, or served over HTTP so that the official SDK speaks to it. Does not own: any code of the product, of
//! which it knows nothing.

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
