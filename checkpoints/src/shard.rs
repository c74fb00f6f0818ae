//! What a worker reads: a stream, a shard of it, and the two together, which is the key of a lease.
//!
//! A stream is a Kinesis stream's name or the URL of files (`file:///data/in`, `s3://bucket/prefix`). A shard is a Kinesis
//! shard id (`shardId-000000000000`) or, for files, a path inside that URL (`year=2025/part-0.ndjson`). This crate does not
//! interpret either text.
//!
//! Limits: a stream has at most 1,000 bytes and a shard at most 1,024, so that both fit into one DynamoDB key (2,048).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::text_newtype;

text_newtype!(
    /// A stream: 1 to 1,000 bytes without control characters.
    StreamName,
    "stream name",
    1_000
);

text_newtype!(
    /// A shard within its stream: 1 to 1,024 bytes without control characters.
    ShardId,
    "shard id",
    1_024
);

/// One shard of one stream: the key of a lease.
///
/// In JSON: `{"stream":"orders","shard":"shardId-000000000000"}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardKey {
    /// The stream.
    pub stream: StreamName,
    /// The shard within it.
    pub shard: ShardId,
}

impl ShardKey {
    /// The key of `shard` in `stream`.
    #[must_use]
    pub fn new(stream: StreamName, shard: ShardId) -> Self {
        Self { stream, shard }
    }
}

impl fmt::Display for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} of stream {}", self.shard, self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kinesis_and_of_files_are_accepted() {
        for stream in ["orders", "file:///data/in", "s3://bucket/prefix", "ströme und flüsse"] {
            assert_eq!(StreamName::new(stream).unwrap().as_str(), stream);
        }
        for shard in ["shardId-000000000000", "year=2025/part-0.ndjson", "."] {
            assert_eq!(ShardId::new(shard).unwrap().as_str(), shard);
        }
        assert!(ShardId::new("x".repeat(1_024)).is_ok());
    }

    #[test]
    fn an_empty_long_or_unprintable_name_is_refused_with_the_reason() {
        let problem = |text: &str| ShardId::new(text).unwrap_err().to_string();
        assert_eq!(problem(""), r#"shard id "" is empty"#);
        assert_eq!(problem("a\nb"), r#"shard id "a\nb" has a control character"#);
        assert!(problem(&"x".repeat(1_025)).ends_with("has 1025 bytes, at most 1024 are allowed"));
        assert!(StreamName::new("x".repeat(1_001)).is_err());
    }

    #[test]
    fn a_key_has_a_documented_form_in_json_and_on_screen() {
        let key = ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new("shardId-0").unwrap());
        let json = r#"{"stream":"orders","shard":"shardId-0"}"#;
        assert_eq!(serde_json::to_string(&key).unwrap(), json);
        assert_eq!(serde_json::from_str::<ShardKey>(json).unwrap(), key);
        assert_eq!(key.to_string(), "shard shardId-0 of stream orders");
        assert!(serde_json::from_str::<ShardKey>(r#"{"stream":"","shard":"shardId-0"}"#).is_err());
    }
}
