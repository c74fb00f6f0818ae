//! The scan compared with serde_json and base64: what it accepts, it reads as they do.

use pipeline::chunk::Framing;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use checkpoints::Position;

/// The response as serde reads it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    records: Vec<Record>,
    next_shard_iterator: Option<String>,
    millis_behind_latest: Option<i64>,
    child_shards: Option<Vec<Child>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record {
    data: String,
    sequence_number: String,
    partition_key: String,
    approximate_arrival_timestamp: Option<f64>,
}

/// A record: sequence number, bytes, partition key, arrival.
type Seen = (String, Vec<u8>, Option<String>, Option<i64>);

fn batch() -> Batch {
    Batch::new(Vec::new(), Position::Beginning, 1 << 20)
}

fn by_scan(body: &[u8]) -> Scanned<(Envelope, Vec<Seen>)> {
    let mut batch = batch();
    let envelope = scan(body, &mut batch)?;
    let chunk = batch.into_chunk("s".into(), "a".into(), 0);
    let Framing::Records(frames) = chunk.framing() else { panic!("records of Kinesis have frames") };
    let seen = frames.iter().map(|frame| {
        let bytes = chunk.bytes()[frame.bytes.start as usize..frame.bytes.end as usize].to_vec();
        (frame.sequence.to_string(), bytes, frame.partition_key.as_deref().map(str::to_owned), frame.arrival_ms)
    });
    Ok((envelope, seen.collect()))
}

fn by_serde(body: &[u8]) -> Option<(Envelope, Vec<Seen>)> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let children = answer.child_shards.unwrap_or_default().into_iter().map(|child| child.shard_id).collect();
    let (next, behind_ms) = (answer.next_shard_iterator, answer.millis_behind_latest.unwrap_or(0));
    let mut seen = Vec::new();
    for record in answer.records {
        let arrival = record.approximate_arrival_timestamp.map(|seconds| millis(&DateTime::from_secs_f64(seconds)));
        let data = base64_simd::STANDARD.decode_to_vec(record.data).ok()?;
        seen.push((record.sequence_number, data, Some(record.partition_key), arrival));
    }
    Some((Envelope { next, behind_ms, children }, seen))
}

/// A response with these records, with white space and unknown members.
fn body(records: &[(Vec<u8>, String, f64)], next: Option<&str>, children: &[String], order: usize) -> String {
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let record = |(number, (data, key, arrival)): (usize, &(Vec<u8>, String, f64))| {
        let mut members = [
            format!("\"Data\" : \"{}\"", base64_simd::STANDARD.encode_to_string(data)),
            format!("\"SequenceNumber\":\"{}\"", number + 1),
            format!("\"PartitionKey\":{}", quoted(key)),
            format!("\"ApproximateArrivalTimestamp\":{arrival:?}"),
            "\"Encryption\\u0054ype\": {\"a\":[1,\"}\\\"\"]}".to_owned(),
        ];
        members.rotate_left(order % 5);
        format!("{{{}}}", members.join(", "))
    };
    let records: Vec<String> = records.iter().enumerate().map(record).collect();
    let children: Vec<String> =
        children.iter().map(|id| format!("{{\"ParentShards\":[\"x\"],\"ShardId\":{}}}", quoted(id))).collect();
    let mut members = [
        format!("\"Records\":[\n{}\t]", records.join(" ,")),
        format!("\"NextShardIterator\":{}", next.map_or("null".to_owned(), quoted)),
        format!("\"MillisBehindLatest\":{order}"),
        format!("\"ChildShards\":[{}]", children.join(",")),
        "\"Unknown\":[{},null,true,-1.5e3]".to_owned(),
    ];
    members.rotate_left(order % 5);
    format!(" {{{}\r\n}} ", members.join(","))
}

fn any_body() -> impl Strategy<Value = String> {
    let record = (vec(any::<u8>(), 0..80), any::<String>(), 0.0..2e9);
    (vec(record, 0..6), proptest::option::of(any::<String>()), vec("[a-z]{1,5}", 0..3), 0..25_usize)
        .prop_map(|(records, next, children, order)| body(&records, next.as_deref(), &children, order))
}

proptest! {
    #[test]
    fn a_response_is_read_as_serde_reads_it(body in any_body()) {
        prop_assert_eq!(by_scan(body.as_bytes()).ok(), by_serde(body.as_bytes()));
        prop_assert!(by_scan(body.as_bytes()).is_ok());
    }

    #[test]
    fn a_changed_response_is_read_as_serde_reads_it_or_rejected(
        body in any_body(),
        changes in vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), prop::sample::select(&b"\"\\{}[],:0u"[..])]), 1..4),
        cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut body = body.into_bytes();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        if let Ok(scanned) = by_scan(&body)
            // Both the scan and the SDK accept a record without a partition key.
            && scanned.1.iter().all(|record| record.2.is_some())
        {
            prop_assert_eq!(Some(scanned), by_serde(&body), "{}", String::from_utf8_lossy(&body));
        }
    }

    #[test]
    fn any_bytes_are_read_or_rejected(body in vec(any::<u8>(), 0..200)) {
        let _ = by_scan(&body);
    }
}

#[test]
fn escapes_are_recognized_everywhere() {
    let body =
        br#"{"R\u0065cords":[{"Data":"AAA\/","SequenceNumber":"\u0031","PartitionKey":"\u00e4\ud83d\ude00\n"}]}"#;
    let seen = [("1".to_owned(), vec![0, 0, 63], Some("ä😀\n".to_owned()), None)];
    assert_eq!(by_scan(body).unwrap(), (Envelope::default(), seen.to_vec()));
}

#[test]
fn an_unknown_form_is_rejected() {
    let record = r#"{"Data":"AAAA","SequenceNumber":"1","PartitionKey":"k"}"#;
    assert!(by_scan(format!(r#"{{"Records":[{record}]}}"#).as_bytes()).is_ok());
    for body in [
        "".to_owned(),
        "{}".to_owned(),
        "[]".to_owned(),
        r#"{"Records":null}"#.to_owned(),
        r#"{"Records":[]}x"#.to_owned(),
        r#"{"Records":[],}"#.to_owned(),
        r#"{"Records":[]"#.to_owned(),
        r#"{"Records":[],"Records":[]}"#.to_owned(),
        r#"{"Records":[],"NextShardIterator":5}"#.to_owned(),
        r#"{"Records":[{"SequenceNumber":"1"}]}"#.to_owned(),
        r#"{"Records":[{"Data":"AAAA"}]}"#.to_owned(),
        r#"{"Records":[{"Data":"AAA","SequenceNumber":"1"}]}"#.to_owned(),
        r#"{"Records":[{"Data":"AA A","SequenceNumber":"1"}]}"#.to_owned(),
        r#"{"Records":[{"Data":"AAAA","SequenceNumber":1}]}"#.to_owned(),
        r#"{"Records":[{"Data":"AAAA","Data":"AAAA","SequenceNumber":"1"}]}"#.to_owned(),
        r#"{"Records":[{"Data":"AAAA","SequenceNumber":"1","ApproximateArrivalTimestamp":"2025"}]}"#.to_owned(),
        format!(r#"{{"Records":[{record}{record}]}}"#),
        format!(r#"{{"Records":[{record},]}}"#),
        "{\"Records\":[],\"a\":\"\\".to_owned(),
    ] {
        assert!(matches!(by_scan(body.as_bytes()), Err(Rejected::NotRecognized(_))), "{body}");
    }
    let twice = format!(r#"{{"Records":[{record},{record}]}}"#);
    assert!(matches!(by_scan(twice.as_bytes()), Err(Rejected::Malformed(_))), "{twice}");
}
