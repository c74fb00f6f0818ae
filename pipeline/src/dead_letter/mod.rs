//! A record that was rejected, as it is stored: one JSON line under `error/reason=<code>/`.
//!
//! Owns: the line's format, in both directions. Does not own: which object the line goes to (`lane`, `layout`), reading objects of such
//! lines (`stored`).
//!
//! The fields keep Firehose's names (`attemptsMade`, `arrivalTimestamp`, `rawData`, `sequenceNumber`, `subSequenceNumber`)
//! where they have its meaning. Only `rawData` holds the record. The partition key is often somebody's id, so its pseudonym
//! is written instead.
//!
//! ```json
//! {"errorCode":"Validate.MissingField","errorMessage":"a required field is missing or null","errorKind":null,
//!  "errorOffset":null,"stage":"validate","dataset":"assessments","field":"/user_id","stream":"file:///in","shardId":"a.ndjson","sequenceNumber":"1042",
//!  "subSequenceNumber":0,"partitionKey":null,"arrivalTimestamp":1736764200123,"attemptsMade":1,"rawData":"eyJpZ…"}
//! ```

pub mod code;
pub mod stored;
pub mod syntax;

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::dataset::keys::json_string;
use crate::dead_letter::code::{Code, Reason};
use crate::dead_letter::syntax::{SyntaxError, SyntaxKind};

/// A dead letter: borrowed where a lane writes it, owned where it was parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// Why.
    pub code: Code,
    /// What exactly is wrong, where the code has several reasons.
    pub reason: Option<Reason>,
    /// What is wrong with the syntax, and where, if the code is about the syntax.
    pub syntax: Option<SyntaxError>,
    /// The dataset, if it is known.
    pub dataset: Option<Cow<'a, str>>,
    /// JSON Pointer of the field that is at fault, if it is one.
    pub field: Option<Cow<'a, str>>,
    /// The stream.
    pub stream: Cow<'a, str>,
    /// The shard.
    pub shard: Cow<'a, str>,
    /// Sequence number, decimal digits.
    pub sequence: Cow<'a, str>,
    /// Number of the document in its record, or of the record in its aggregate; 0 for a plain record of one document.
    pub sub_sequence: u64,
    /// The pseudonym of the partition key, if the source has one and there is a pseudonym key.
    pub partition_key: Option<Cow<'a, str>>,
    /// When it arrived: milliseconds since 1970.
    pub arrival_ms: i64,
    /// How often the record was processed.
    pub attempts: u64,
    /// The record's bytes as received.
    pub raw: Cow<'a, [u8]>,
}

/// A line that is not a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the line is not a dead letter: {0}")]
pub struct InvalidDeadLetter(String);

impl DeadLetter<'_> {
    /// What is wrong, for people: the text of the reason, or else of the code; of an error of the syntax also its kind and place. Never
    /// with a value of the record.
    pub fn message(&self) -> Cow<'static, str> {
        let message = self.reason.map_or(self.code.message(), Reason::message);
        self.syntax.map_or(Cow::Borrowed(message), |syntax| Cow::Owned(format!("{message}{syntax}")))
    }

    fn kind(&self) -> Option<&'static str> {
        self.syntax.and_then(|syntax| syntax.kind).map(SyntaxKind::as_str)
    }

    /// Appends the line, with its line end.
    pub fn write(&self, out: &mut Vec<u8>) {
        let optional =
            |value: &Option<Cow<'_, str>>| value.as_ref().map_or_else(|| "null".to_owned(), |text| json_string(text));
        let head = format!(
            "{{\"errorCode\":\"{}\",\"errorMessage\":\"{}\",\"errorKind\":{},\"errorOffset\":{},\"stage\":\"{}\",\
             \"dataset\":{},\"field\":{},\"stream\":{},\
             \"shardId\":{},\"sequenceNumber\":{},\"subSequenceNumber\":{},\"partitionKey\":{},\
             \"arrivalTimestamp\":{},\"attemptsMade\":{},\"rawData\":\"",
            self.code,
            self.message(),
            optional(&self.kind().map(Cow::Borrowed)),
            self.syntax.map_or_else(|| "null".to_owned(), |syntax| syntax.offset.to_string()),
            self.code.stage(),
            optional(&self.dataset),
            optional(&self.field),
            json_string(&self.stream),
            json_string(&self.shard),
            json_string(&self.sequence),
            self.sub_sequence,
            optional(&self.partition_key),
            self.arrival_ms,
            self.attempts,
        );
        out.extend_from_slice(head.as_bytes());
        base64_simd::STANDARD.encode_append(&self.raw, out);
        out.extend_from_slice(b"\"}\n");
    }

    /// Reads a line that [`DeadLetter::write`] wrote, with or without its line end.
    ///
    /// # Errors
    /// The line is not JSON, lacks a field, or has a code that this version does not know.
    pub fn parse(line: &[u8]) -> Result<DeadLetter<'static>, InvalidDeadLetter> {
        let invalid = |problem: String| InvalidDeadLetter(problem);
        let value: Value = serde_json::from_slice(line).map_err(|error| invalid(error.to_string()))?;
        let wrong = |key: &str| invalid(format!("'{key}' is missing or of another type"));
        let optional = |key: &str| -> Result<Option<Cow<'static, str>>, InvalidDeadLetter> {
            match &value[key] {
                Value::Null => Ok(None),
                Value::String(text) => Ok(Some(Cow::Owned(text.clone()))),
                _ => Err(wrong(key)),
            }
        };
        let text = |key: &str| optional(key)?.ok_or_else(|| wrong(key));
        let count = |key: &str| value[key].as_u64().ok_or_else(|| wrong(key));
        let name = text("errorCode")?;
        // Versions before these two fields did not write them.
        let kind = optional("errorKind")?;
        let known = |name: Cow<'_, str>| {
            SyntaxKind::from_name(&name).ok_or_else(|| invalid(format!("'{name}' is not a known kind of error")))
        };
        let kind = kind.map(known).transpose()?;
        let offset = value["errorOffset"].as_u64();
        let raw = base64_simd::STANDARD.decode_to_vec(text("rawData")?.as_bytes());
        Ok(DeadLetter {
            code: Code::from_name(&name).ok_or_else(|| invalid(format!("'{name}' is not a known code")))?,
            syntax: offset.map(|offset| SyntaxError { kind, offset }),
            dataset: optional("dataset")?,
            field: optional("field")?,
            stream: text("stream")?,
            shard: text("shardId")?,
            sequence: text("sequenceNumber")?,
            sub_sequence: count("subSequenceNumber")?,
            partition_key: optional("partitionKey")?,
            arrival_ms: value["arrivalTimestamp"].as_i64().ok_or_else(|| wrong("arrivalTimestamp"))?,
            attempts: count("attemptsMade")?,
            raw: Cow::Owned(raw.map_err(|error| invalid(format!("'rawData': {error}")))?),
            reason: optional("errorMessage")?.and_then(|message| Reason::of_message(&message)),
        })
    }

    /// The stored fields except `rawData`, which may hold anything.
    pub fn without_raw(&self) -> Value {
        json!({
            "errorCode": self.code.as_str(),
            "errorMessage": self.message(),
            "errorKind": self.kind(),
            "errorOffset": self.syntax.map(|syntax| syntax.offset),
            "stage": self.code.stage().as_str(),
            "dataset": self.dataset,
            "field": self.field,
            "stream": self.stream,
            "shardId": self.shard,
            "sequenceNumber": self.sequence,
            "subSequenceNumber": self.sub_sequence,
            "partitionKey": self.partition_key,
            "arrivalTimestamp": self.arrival_ms,
            "attemptsMade": self.attempts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = Cow<'static, str>> {
        any::<String>().prop_map(Cow::Owned)
    }

    fn syntax() -> impl Strategy<Value = Option<SyntaxError>> {
        let kind = prop::option::of(prop::sample::select(SyntaxKind::ALL.to_vec()));
        prop::option::of((kind, any::<u64>()).prop_map(|(kind, offset)| SyntaxError { kind, offset }))
    }

    fn dead_letters() -> impl Strategy<Value = DeadLetter<'static>> {
        let place = (text(), text(), "[0-9]{1,56}", any::<u64>(), prop::option::of(text()));
        // An error of the syntax has no reason beside it.
        let details = prop_oneof![
            prop::option::of(prop::sample::select(Reason::ALL.to_vec())).prop_map(|reason| (reason, None)),
            syntax().prop_map(|syntax| (None, syntax)),
        ];
        let code = (prop::sample::select(Code::ALL.to_vec()), details);
        let about = (code, prop::option::of(text()), prop::option::of(text()));
        let rest = (any::<i64>(), 1_u64..5, prop::collection::vec(any::<u8>(), 0..100));
        (about, place, rest).prop_map(|(((code, details), dataset, field), place, (arrival_ms, attempts, raw))| {
            let (stream, shard, sequence, sub_sequence, partition_key) = place;
            let (reason, syntax) = details;
            DeadLetter {
                code,
                reason,
                syntax,
                dataset,
                field,
                stream,
                shard,
                sequence: Cow::Owned(sequence),
                sub_sequence,
                partition_key,
                arrival_ms,
                attempts,
                raw: Cow::Owned(raw),
            }
        })
    }

    proptest! {
        #[test]
        fn every_dead_letter_round_trips_as_one_line(dead_letter in dead_letters(), cut in any::<prop::sample::Index>()) {
            let mut line = Vec::new();
            dead_letter.write(&mut line);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(DeadLetter::parse(&line).unwrap(), dead_letter.clone());
            let cut = &line[..cut.index(line.len() - 2)];
            prop_assert!(DeadLetter::parse(cut).is_err());

            let mut stored: Value = serde_json::from_slice(&line).unwrap();
            let raw = stored.as_object_mut().unwrap().remove("rawData");
            prop_assert!(raw.is_some());
            prop_assert_eq!(dead_letter.without_raw(), stored);
        }
    }

    #[test]
    fn the_fields_have_the_documented_names() {
        let dead_letter = DeadLetter {
            code: Code::MissingField,
            reason: None,
            syntax: None,
            dataset: Some("assessments".into()),
            field: Some("/user_id".into()),
            stream: "file:///in".into(),
            shard: "a.ndjson".into(),
            sequence: "1042".into(),
            sub_sequence: 0,
            partition_key: None,
            arrival_ms: 1_736_764_200_123,
            attempts: 1,
            raw: Cow::Borrowed(b"{}"),
        };
        let mut line = Vec::new();
        dead_letter.write(&mut line);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"errorCode\":\"Validate.MissingField\",\"errorMessage\":\"a required field is missing or null\",\
             \"errorKind\":null,\"errorOffset\":null,\"stage\":\"validate\",\"dataset\":\"assessments\",\"field\":\"/user_id\",\"stream\":\"file:///in\",\
             \"shardId\":\"a.ndjson\",\"sequenceNumber\":\"1042\",\"subSequenceNumber\":0,\"partitionKey\":null,\
             \"arrivalTimestamp\":1736764200123,\"attemptsMade\":1,\"rawData\":\"e30=\"}\n"
        );
    }

    #[test]
    fn what_is_not_a_dead_letter_is_refused_with_the_field_that_is_wrong() {
        let problem = |line: &str| DeadLetter::parse(line.as_bytes()).unwrap_err().to_string();
        assert_eq!(problem("{}"), "the line is not a dead letter: 'errorCode' is missing or of another type");
        let unknown = r#"{"errorCode":"Decode.Later","rawData":""}"#;
        assert_eq!(problem(unknown), "the line is not a dead letter: 'Decode.Later' is not a known code");
        let raw = r#"{"errorCode":"Decode.TooDeep","dataset":7,"rawData":""}"#;
        assert_eq!(problem(raw), "the line is not a dead letter: 'dataset' is missing or of another type");
    }
}
