//! A record that was set aside, as it is stored: one JSON line under `error/reason=<code>/`.
//!
//! Owns: the line's format, in both directions. The fields keep Firehose's names (`attemptsMade`, `arrivalTimestamp`,
//! `rawData`, `sequenceNumber`, `subSequenceNumber`) where they have its meaning. Only `rawData` holds the record; the
//! partition key, which often is somebody's id, stands here as its pseudonym.
//!
//! ```json
//! {"errorCode":"Validate.MissingField","errorMessage":"a required field is missing or null","stage":"validate",
//!  "dataset":"assessments","field":"/user_id","stream":"file:///in","shardId":"a.ndjson","sequenceNumber":"1042",
//!  "subSequenceNumber":0,"partitionKey":null,"arrivalTimestamp":1736764200123,"attemptsMade":1,"rawData":"eyJpZ…"}
//! ```

pub mod code;

use crate::dataset::keys::json_string;
use crate::dead_letter::code::Code;

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// Why.
    pub code: Code,
    /// The dataset, if it is known.
    pub dataset: Option<&'a str>,
    /// JSON Pointer of the field that is at fault, if it is one.
    pub field: Option<&'a str>,
    /// The stream.
    pub stream: &'a str,
    /// The shard.
    pub shard: &'a str,
    /// Sequence number, decimal digits.
    pub sequence: &'a str,
    /// Place in its aggregated record; 0 for a plain one.
    pub sub_sequence: u64,
    /// The pseudonym of the partition key, if the source has one and there is a key of pseudonyms.
    pub partition_key: Option<&'a str>,
    /// When it arrived: milliseconds since 1970.
    pub arrival_ms: i64,
    /// The record's bytes as received.
    pub raw: &'a [u8],
}

impl DeadLetter<'_> {
    /// Appends the line, with its line end.
    pub fn write(&self, out: &mut Vec<u8>) {
        let optional = |value: Option<&str>| value.map_or_else(|| "null".to_owned(), json_string);
        let head = format!(
            "{{\"errorCode\":\"{}\",\"errorMessage\":\"{}\",\"stage\":\"{}\",\"dataset\":{},\"field\":{},\"stream\":{},\
             \"shardId\":{},\"sequenceNumber\":\"{}\",\"subSequenceNumber\":{},\"partitionKey\":{},\
             \"arrivalTimestamp\":{},\"attemptsMade\":1,\"rawData\":\"",
            self.code,
            self.code.message(),
            self.code.stage().as_str(),
            optional(self.dataset),
            optional(self.field),
            json_string(self.stream),
            json_string(self.shard),
            self.sequence,
            self.sub_sequence,
            optional(self.partition_key),
            self.arrival_ms,
        );
        out.extend_from_slice(head.as_bytes());
        base64_simd::STANDARD.encode_append(self.raw, out);
        out.extend_from_slice(b"\"}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_line_is_json_that_says_what_was_put_in(
            raw in prop::collection::vec(any::<u8>(), 0..100),
            stream in "\\PC{1,20}",
            shard in any::<String>(),
            field in prop::option::of("/[a-z\"~]{1,10}"),
            partition_key in prop::option::of(any::<String>()),
            arrival_ms in any::<i64>(),
            code in prop::sample::select(Code::ALL.to_vec()),
        ) {
            let letter = DeadLetter {
                code, dataset: Some("events"), field: field.as_deref(), stream: &stream, shard: &shard, sequence: "42",
                sub_sequence: 7, partition_key: partition_key.as_deref(), arrival_ms, raw: &raw,
            };
            let mut line = Vec::new();
            letter.write(&mut line);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let read: serde_json::Value = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(&read["errorCode"], code.as_str());
            prop_assert_eq!(&read["stage"], code.stage().as_str());
            prop_assert_eq!(&read["dataset"], "events");
            prop_assert_eq!(&read["field"], &field.map_or(serde_json::Value::Null, Into::into));
            prop_assert_eq!(&read["stream"], &stream);
            prop_assert_eq!(&read["shardId"], &shard);
            prop_assert_eq!(&read["sequenceNumber"], "42");
            prop_assert_eq!(&read["subSequenceNumber"], 7);
            prop_assert_eq!(&read["partitionKey"], &partition_key.map_or(serde_json::Value::Null, Into::into));
            prop_assert_eq!(&read["arrivalTimestamp"], arrival_ms);
            let raw_data = base64_simd::STANDARD.decode_to_vec(read["rawData"].as_str().unwrap()).unwrap();
            prop_assert_eq!(raw_data, raw);
        }
    }
}
