//! Answers of GetRecords.

use checkpoints::Position;
use pipeline::chunk::Framing;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use shardlake::fuzzing::{Answer, Record, Refused, by_records, by_scan};

use super::is_one_of;

/// Bytes that a record may have here.
const RECORD_BYTES_MAX: usize = 1_000;

/// The body of an answer. Its first byte says behind which position it was asked for.
///
/// What the scan takes, serde and base64 take, and it is the same; what they read, written plainly, the scan takes.
pub fn answer(data: &[u8]) {
    let Some((after, body)) = data.split_first() else { return };
    let after = match after % 5 {
        0 => Position::Beginning,
        1 => Position::At { sequence: 2_u64.into(), sub: 0 },
        2 => Position::At { sequence: 1_u64.into(), sub: 1 },
        3 => Position::Since { ms: 5 },
        _ => Position::Latest,
    };
    let scanned = by_scan(body, &after, RECORD_BYTES_MAX);
    let judged = judged(body);
    let expected = judged.as_ref().map(|(_, records)| by_records(records, &after, RECORD_BYTES_MAX));
    match (&scanned, &expected) {
        (Ok(scanned), Some(Ok(expected))) => {
            let envelope = judged.as_ref().map(|(envelope, _)| envelope);
            assert_eq!(Some(&scanned.envelope), envelope, "{}", body.escape_ascii());
            assert_same(scanned, expected);
        }
        (Ok(_), found) => panic!("the judge finds {found:?} in {}", body.escape_ascii()),
        (Err(Refused::Malformed), Some(Ok(_))) => panic!("it makes sense: {}", body.escape_ascii()),
        // It may stumble over what is no JSON further on, or not know a form that others read.
        (Err(_), _) => {}
    }
    if let (Some((envelope, records)), Some(Ok(_))) = (judged, expected)
        && is_one_of(body, 4)
    {
        let plain = written(&envelope, &records);
        // Read again, since a time of ten digits and more may be off by the last bit of it.
        let (_, records) = self::judged(plain.as_bytes()).expect("what serde writes it reads");
        let expected = by_records(&records, &after, RECORD_BYTES_MAX).expect("it made sense before");
        match by_scan(plain.as_bytes(), &after, RECORD_BYTES_MAX) {
            Ok(scanned) => {
                assert_eq!(scanned.envelope, envelope);
                assert_same(&scanned, &expected);
            }
            Err(refused) => panic!("{refused:?}: {plain}"),
        }
    }
}

fn assert_same(scanned: &Answer, expected: &Answer) {
    let (Framing::Records(found), Framing::Records(wanted)) = (scanned.chunk.framing(), expected.chunk.framing())
    else {
        panic!("records of Kinesis have frames")
    };
    assert_eq!(scanned.chunk.bytes(), expected.chunk.bytes(), "the records' bytes");
    assert_eq!(format!("{found:?}"), format!("{wanted:?}"), "the records");
    assert_eq!((&scanned.through, scanned.counts), (&expected.through, expected.counts));
    assert!(found.iter().all(|frame| frame.bytes.start <= frame.bytes.end));
}

type Envelope = (Option<String>, i64, Vec<String>);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Body {
    records: Vec<Told>,
    next_shard_iterator: Option<String>,
    millis_behind_latest: Option<i64>,
    child_shards: Option<Vec<Child>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    data: String,
    sequence_number: String,
    /// `null` is no partition key, but having none is.
    #[serde(default, deserialize_with = "present")]
    partition_key: Option<String>,
    approximate_arrival_timestamp: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Child {
    shard_id: String,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// The answer as serde and base64 read it.
fn judged(body: &[u8]) -> Option<(Envelope, Vec<Record>)> {
    let body: Body = serde_json::from_slice(body).ok()?;
    let children = body.child_shards.unwrap_or_default().into_iter().map(|child| child.shard_id).collect();
    let envelope = (body.next_shard_iterator, body.millis_behind_latest.unwrap_or(0), children);
    let record = |message: Told| {
        let data = base64_simd::STANDARD.decode_to_vec(message.data).ok()?;
        let (sequence, partition_key) = (message.sequence_number, message.partition_key);
        Some(Record { data, sequence, arrival_s: message.approximate_arrival_timestamp, partition_key })
    };
    Some((envelope, body.records.into_iter().map(record).collect::<Option<_>>()?))
}

/// The answer as Kinesis would write it.
fn written((next, behind_ms, children): &Envelope, records: &[Record]) -> String {
    let record = |record: &Record| {
        let mut members = Map::new();
        members.insert("SequenceNumber".to_owned(), json!(record.sequence));
        members.insert("Data".to_owned(), json!(base64_simd::STANDARD.encode_to_string(&record.data)));
        members.extend(record.partition_key.iter().map(|key| ("PartitionKey".to_owned(), json!(key))));
        members.extend(record.arrival_s.iter().map(|time| ("ApproximateArrivalTimestamp".to_owned(), json!(time))));
        Value::Object(members)
    };
    json!({
        "Records": records.iter().map(record).collect::<Vec<_>>(),
        "NextShardIterator": next,
        "MillisBehindLatest": behind_ms,
        "ChildShards": children.iter().map(|id| json!({ "ShardId": id, "ParentShards": [] })).collect::<Vec<_>>(),
    })
    .to_string()
}
