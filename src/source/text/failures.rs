//! Records that a delivery stream could not process, as it writes them below its error prefix.
//!
//! Owns: taking the original record and its time of arrival out of such a document. Does not own: which objects have them
//! (`objects::keys`).
//!
//! Format (Amazon Data Firehose Developer Guide, "Handle data delivery failures"): JSON documents with `rawData`, the record in base64;
//! `arrivalTimestamp`, milliseconds since 1970 as a number or a text; and `attemptsMade`.

use serde::Deserialize;

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "rawData")]
    raw_data: String,
    #[serde(rename = "arrivalTimestamp")]
    arrival: Option<serde_json::Value>,
    /// Its presence tells such a document from an event that has raw data of its own.
    #[serde(rename = "attemptsMade")]
    _attempts: serde_json::Value,
}

/// A record in a text of failures.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure<'t> {
    /// Where its document begins in the text.
    pub(super) at: usize,
    /// What the document holds.
    pub(super) content: Content<'t>,
}

/// What a document of a text of failures holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content<'t> {
    /// The original record, and when it arrived, in milliseconds since 1970.
    Record(Vec<u8>, Option<i64>),
    /// It is not such a document. The rest of its line is kept as it is.
    Other(&'t [u8]),
}

/// The records of a text that begins and ends between two lines. Documents may also follow each other on one line.
pub(super) fn records(text: &[u8]) -> Vec<Failure<'_>> {
    let mut failures = Vec::new();
    let mut begin = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let mut documents = serde_json::Deserializer::from_slice(line).into_iter::<Document>();
        loop {
            let offset = documents.byte_offset();
            let decoded = match documents.next() {
                None => break,
                Some(Ok(document)) => base64_simd::STANDARD
                    .decode_to_vec(document.raw_data.as_bytes())
                    .ok()
                    .map(|record| Content::Record(record, millis(document.arrival.as_ref()))),
                Some(Err(_)) => None,
            };
            let is_other = decoded.is_none();
            failures.push(Failure { at: begin + offset, content: decoded.unwrap_or(Content::Other(&line[offset..])) });
            if is_other {
                break;
            }
        }
        begin += line.len();
    }
    failures
}

fn millis(arrival: Option<&serde_json::Value>) -> Option<i64> {
    let arrival = arrival?;
    arrival.as_i64().or_else(|| arrival.as_str()?.parse().ok()).filter(|ms| *ms > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_record_and_its_arrival_are_taken_out() {
        let one =
            br#"{"attemptsMade":4,"arrivalTimestamp":1736764200123,"lastErrorCode":"x","rawData":"eyJhIjoxfQ=="}"#;
        let two =
            br#"{"attemptsMade":"1","arrivalTimestamp":"1736764200999","errorCode":"x","rawData":"eyJhIjoyfQ=="}"#;
        let text = [&one[..], b"\n", two, one, b"\r\n", b"{\"rawData\":\"eyJhIjoxfQ==\"}\n", b"not JSON"].concat();
        let record = |n: u8, ms: i64| Content::Record(format!("{{\"a\":{n}}}").into_bytes(), Some(ms));
        let found = records(&text);
        let expected = [
            (0, record(1, 1_736_764_200_123)),
            (one.len() + 1, record(2, 1_736_764_200_999)),
            (one.len() + 1 + two.len(), record(1, 1_736_764_200_123)),
            (text.len() - 37, Content::Other(b"{\"rawData\":\"eyJhIjoxfQ==\"}\n")),
            (text.len() - 8, Content::Other(b"not JSON")),
        ];
        let mut found = found.into_iter().map(|failure| (failure.at, failure.content));
        for (at, content) in expected {
            let (found_at, found) = found.next().unwrap();
            assert_eq!(found, content);
            assert!(found_at == at || matches!(found, Content::Other(_)), "{found_at} {at}");
        }
        assert_eq!(found.next(), None);
    }

    #[test]
    fn what_is_not_base64_is_kept_as_it_is() {
        let text = b"{\"attemptsMade\":1,\"rawData\":\"?\"}";
        assert_eq!(records(text), [Failure { at: 0, content: Content::Other(text) }]);
        assert_eq!(records(b" \n\n"), []);
    }
}
