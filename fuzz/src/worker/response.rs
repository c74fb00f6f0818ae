//! Responses of GetRecords.

use checkpoints::Position;
use pipeline::chunk::Framing;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use shardlake::fuzzing::{Answer, Record, Refused, by_records, by_scan};

use super::is_one_of;

/// The limit for the bytes of a record.
const RECORD_BYTES_MAX: usize = 1_000;

/// The body of a response. The first byte of the input is the position after which it was requested.
///
/// What the fast decoder accepts, serde and base64 accept with the same result. What they accept, written in a plain form, the fast
/// decoder accepts.
pub fn response(data: &[u8]) {
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
        (Ok(_), found) => panic!("serde finds {found:?} in {}", body.escape_ascii()),
        (Err(Refused::Malformed), Some(Ok(_))) => panic!("rejected as malformed: {}", body.escape_ascii()),
        // It may reject text that is not JSON after the end of the response, or a form that it does not know.
        (Err(_), _) => {}
    }
    if let (Some((envelope, records)), Some(Ok(_))) = (judged, expected)
        && is_one_of(body, 4)
    {
        let plain = written(&envelope, &records);
        // Read again, because the last bit of a time of ten digits and more may change.
        let (_, records) = self::judged(plain.as_bytes()).expect("serde reads what it writes");
        let expected = by_records(&records, &after, RECORD_BYTES_MAX).expect("it was accepted before");
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
    records: Vec<BodyRecord>,
    next_shard_iterator: Option<String>,
    millis_behind_latest: Option<i64>,
    child_shards: Option<Vec<Child>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BodyRecord {
    data: String,
    sequence_number: String,
    /// It may be absent, but it may not be `null`.
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

/// The response as serde and base64 read it.
fn judged(body: &[u8]) -> Option<(Envelope, Vec<Record>)> {
    let body: Body = serde_json::from_slice(body).ok()?;
    let children = body.child_shards.unwrap_or_default().into_iter().map(|child| child.shard_id).collect();
    let envelope = (body.next_shard_iterator, body.millis_behind_latest.unwrap_or(0), children);
    let record = |record: BodyRecord| {
        let data = base64_simd::STANDARD.decode_to_vec(record.data).ok()?;
        let (sequence, partition_key) = (record.sequence_number, record.partition_key);
        Some(Record { data, sequence, arrival_s: record.approximate_arrival_timestamp, partition_key })
    };
    Some((envelope, body.records.into_iter().map(record).collect::<Option<_>>()?))
}

/// The response as Kinesis would write it.
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
