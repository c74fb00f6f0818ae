//! Reading by polling: every record once, whatever fails.

use serde_json::json;

use super::*;
use crate::source::Behind;
use crate::source::kinesis::kpl::tests::aggregate;
use crate::source::kinesis::polling::is_nearer;

fn texts(sequences: impl IntoIterator<Item = u64>) -> Vec<String> {
    sequences.into_iter().map(|sequence| format!("{sequence}:0=r{sequence}")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_shard_is_read_to_its_tip_from_any_position() {
    let fake = Fake::new(vec![open_shard("a", 1..=250)]);
    let source = source(&fake).await;
    let message = read_shard(&source, "a", &Position::Beginning).await.unwrap();
    assert_eq!((message.records, message.through, message.end), (texts(1..=250), Some(at(250, 0)), None));
    for after in [1, 99, 100, 249, 250] {
        let message = read_shard(&source, "a", &at(after, 0)).await.unwrap();
        assert_eq!((message.records, message.through), (texts(after + 1..=250), Some(at(250, 0))), "after {after}");
    }
    let message = read_shard(&source, "a", &Position::Since { ms: 100_000 }).await.unwrap();
    assert_eq!(message.records, texts(100..=250));
    let message = read_shard(&source, "a", &Position::Latest).await.unwrap();
    assert_eq!((message.records, message.through), (vec![], None));
}

#[tokio::test(start_paused = true)]
async fn both_decoders_return_the_same() {
    let packed = aggregate(&["a", "b"], &[(0, b"one"), (1, b"two")]);
    let mut held = vec![record(1, b"{}"), record(2, b""), record(3, &packed), Held::Gap, record(4, &packed[..30])];
    held.extend((10..40).map(|sequence| record(sequence, &vec![b'x'; 10_000])));
    let fake = Fake::new(vec![FakeShard { held, ..open_shard("a", []) }]);
    let mut message = Vec::new();
    for decode in [Decode::Fast, Decode::Stock] {
        let config = KinesisConfig { record_bytes_max: 5_000, ..config(Start::TrimHorizon, decode) };
        let source = KinesisSource::open(fake.client(), config, Arc::new(MemoryStore::new())).await.unwrap();
        message.push(read_shard(&source, "a", &Position::Beginning).await.unwrap());
    }
    assert_eq!(message[0], message[1]);
    assert_eq!(message[0].records[..4], ["1:0={}", "2:0=", "3:0=one", "3:1=two"]);
    assert!(message[0].records[4].ends_with(" BrokenAggregate") && message[0].records[34].ends_with("x TooLarge"));
    assert_eq!((message[0].records.len(), message[0].empty), (35, 1));
}

#[tokio::test(start_paused = true)]
async fn the_limit_for_a_record_is_for_each_of_its_documents() {
    let held = vec![record(1, &vec![b'x'; 10_000])];
    let fake = Fake::new(vec![FakeShard { held, ..open_shard("a", []) }]);
    for (documents, is_damaged) in [(Documents::ONE, true), (Documents::MANY, false)] {
        let config = KinesisConfig { record_bytes_max: 5_000, documents, ..config(Start::TrimHorizon, Decode::Fast) };
        let source = KinesisSource::open(fake.client(), config, Arc::new(MemoryStore::new())).await.unwrap();
        let mut reader = source.open(&shard("a"), &Position::Beginning).await.unwrap();
        reader.ready(Duration::ZERO).await;
        let Read::Chunk { chunk, .. } = reader.read(1 << 20, Vec::new()).await.unwrap() else { panic!("a chunk") };
        let Framing::Records(frames) = chunk.framing() else { panic!("records of Kinesis have frames") };
        assert_eq!((frames[0].damage.is_some(), chunk.documents), (is_damaged, documents));
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_the_scan_rejects_is_requested_again() {
    let fake = Fake::new(vec![open_shard("a", 1..=3)]);
    let source = source(&fake).await;
    // The SDK reads a null list as an empty one; the scan rejects it.
    fake.fail("GetRecords", r#"body:{"Records":null,"NextShardIterator":"a/0","MillisBehindLatest":0}"#);
    let message = read_shard(&source, "a", &Position::Beginning).await.unwrap();
    assert_eq!(message.records, texts(1..=3));
    let asked = fake.calls("GetRecords");
    assert_eq!(asked[0], asked[1], "with the same iterator");
}

#[tokio::test(start_paused = true)]
async fn temporary_failures_lose_and_repeat_no_record() {
    for code in [
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "KMSThrottlingException",
        "ExpiredIteratorException",
        "InternalFailure",
        "InvalidArgumentException",
        "body:{\"Records\":[{\"Data\":\"eA==\",\"SequenceNumber\":\"9\",\"PartitionKey\":\"k\"},\
         {\"Data\":\"eA==\",\"SequenceNumber\":\"8\",\"PartitionKey\":\"k\"}]}",
    ] {
        for skip in 0..4 {
            let fake = Fake::new(vec![open_shard("a", 1..=250)]);
            let source = source(&fake).await;
            let mut reader = source.open(&shard("a"), &Position::Beginning).await.unwrap();
            let mut message = Observed::default();
            for read in 0.. {
                if read == skip {
                    fake.fail("GetRecords", code);
                }
                reader.ready(Duration::ZERO).await;
                if !message.add(reader.read(100, Vec::new()).await.unwrap()) {
                    break;
                }
            }
            assert_eq!((message.records, message.through), (texts(1..=250), Some(at(250, 0))), "{code} after {skip}");
            assert_eq!(message.empty, 1, "{code} after {skip}");
        }
    }
}

/// Whatever fails, and however often: the reader says so, waits longer each time, and reads on when it can. Only its task gives up.
#[tokio::test(start_paused = true)]
async fn a_failure_that_lasts_is_a_failed_read_each_time_and_requested_ever_less_often() {
    for (operation, code, is_expected_normal) in [
        ("GetRecords", "ProvisionedThroughputExceededException", true),
        ("GetRecords", "ExpiredIteratorException", true),
        ("GetRecords", "InternalFailure", false),
        ("GetRecords", "ExpiredTokenException", false),
        ("GetShardIterator", "InternalFailure", false),
        ("GetShardIterator", "ProvisionedThroughputExceededException", true),
    ] {
        let fake = Fake::new(vec![open_shard("a", [1])]);
        let source = source(&fake).await;
        let mut reader = source.open(&shard("a"), &Position::Beginning).await.unwrap();
        (0..40).for_each(|_| fake.fail(operation, code));
        let begun = tokio::time::Instant::now();
        for _ in 0..40 {
            reader.ready(Duration::ZERO).await;
            match reader.read(100, Vec::new()).await.unwrap() {
                Read::Failed { error: SourceError::Unavailable { problem, .. }, is_normal } => {
                    assert!(problem.contains(code) && is_normal == is_expected_normal, "{problem}");
                }
                other => panic!("{code}: {other:?}"),
            }
        }
        assert!(begun.elapsed() > Duration::from_secs(200), "{code}: {:?}", begun.elapsed());
        assert_eq!(read_all(&mut *reader).await.unwrap().records, texts([1]), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_without_records_is_progress_only_if_it_is_nearer_to_the_tip_than_any_before() {
    let mut least = None;
    let nearer: Vec<bool> = [500, 400, 400, 450, 300].into_iter().map(|behind| is_nearer(&mut least, behind)).collect();
    assert_eq!(nearer, [true, true, false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_damaged_response_does_not_contain_its_records() {
    let secret = "c2VjcmV0IHNlY3JldA==";
    for end in ["", "}", "]", "]}x", ",\"PartitionKey\":\"secret key\"", ",\"SequenceNumber\":\"secret key\"}]}"] {
        let fake = Fake::new(vec![open_shard("a", [1])]);
        let body = format!("body:{{\"Records\":[{{\"Data\":\"{secret}\"{end}");
        for decode in [Decode::Fast, Decode::Stock] {
            let config = config(Start::TrimHorizon, decode);
            let source = KinesisSource::open(fake.client(), config, Arc::new(MemoryStore::new())).await.unwrap();
            // The SDK decodes what the scan does not recognize.
            (0..2).for_each(|_| fake.fail("GetRecords", &body));
            let mut reader = source.open(&shard("a"), &Position::Beginning).await.unwrap();
            let read = reader.read(100, Vec::new()).await.unwrap();
            let Read::Failed { error: message, .. } = read else { panic!("{read:?}") };
            assert!(matches!(message, SourceError::Unavailable { .. }), "{message}");
            let shown = format!("{message} {message:?}");
            assert!(!shown.contains(&secret[..6]) && !shown.contains("secret"), "{shown}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn permanent_failures_say_what_to_do() {
    let fake = Fake::new(vec![open_shard("a", [1])]);
    let source = source(&fake).await;
    for (operation, code, expected) in [
        ("GetShardIterator", "InvalidArgumentException", "is not in this shard"),
        // The stream still lists the shard, so its records did not expire: something else is wrong.
        ("GetShardIterator", "ResourceNotFoundException", "ResourceNotFoundException"),
        ("GetShardIterator", "AccessDeniedException", "needs the permission kinesis:GetShardIterator"),
        ("GetRecords", "AccessDeniedException", "needs the permission kinesis:GetRecords"),
        ("GetRecords", "KMSAccessDeniedException", "kms:Decrypt"),
    ] {
        fake.fail(operation, code);
        let message = read_shard(&source, "a", &at(1, 0)).await.unwrap_err();
        assert!(
            matches!(message, SourceError::Unreadable { .. }) && message.to_string().contains(expected),
            "{message}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_expired_before_it_was_read_ends() {
    let fake = Fake::new(vec![open_shard("b", [1])]);
    let source = source(&fake).await;
    fake.fail("GetShardIterator", "ResourceNotFoundException");
    let message = read_shard(&source, "a", &at(1, 0)).await.unwrap();
    assert_eq!((message.records, message.end), (texts([]), Some(Vec::new())));
    fake.fail("GetShardIterator", "ResourceNotFoundException");
    assert_eq!(source.behind(&shard("a"), &at(1, 0)).await, Ok(Behind::Nothing));
}

#[tokio::test(start_paused = true)]
async fn empty_responses_before_the_tip_are_skipped() {
    let held = vec![Held::Gap, Held::Gap, record(7, b"r7"), Held::Gap];
    let fake = Fake::new(vec![FakeShard { held: held.clone(), ..open_shard("a", []) }]);
    let source = source(&fake).await;
    let begun = tokio::time::Instant::now();
    let message = read_shard(&source, "a", &Position::Beginning).await.unwrap();
    assert_eq!((message.records, message.through, message.empty), (texts([7]), Some(at(7, 0)), 2));
    assert!(begun.elapsed() >= Duration::from_millis(600), "five reads a second at most");
    // Closed, with only empty responses after the position.
    fake.with(|state| state.shards[0].closed = Some(vec!["b".to_owned(), "c".to_owned()]));
    let message = read_shard(&source, "a", &at(7, 0)).await.unwrap();
    assert_eq!((message.records, message.end), (vec![], Some(vec!["b".to_owned(), "c".to_owned()])));
    fake.with(|state| state.shards[0].held.clear());
    let message = read_shard(&source, "a", &Position::Beginning).await.unwrap();
    assert_eq!(
        (message.records.len(), message.through, message.end.map(|children| children.len())),
        (0, None, Some(2))
    );
}

#[tokio::test(start_paused = true)]
async fn the_end_follows_the_last_chunk_and_stays() {
    let closed = FakeShard { closed: Some(vec![]), ..open_shard("a", [1, 2]) };
    let source = source(&Fake::new(vec![closed])).await;
    let mut reader = source.open(&shard("a"), &Position::Beginning).await.unwrap();
    assert!(matches!(reader.read(100, Vec::new()).await.unwrap(), Read::Chunk { through, .. } if through == at(2, 0)));
    for _ in 0..2 {
        assert!(matches!(reader.read(100, Vec::new()).await.unwrap(), Read::End { children } if children.is_empty()));
    }
    let mut ended = source.open(&shard("a"), &Position::End).await.unwrap();
    assert!(matches!(ended.read(100, Vec::new()).await.unwrap(), Read::End { .. }));
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_half_committed_aggregate_is_read() {
    let packed = aggregate(&["k"], &[(0, b"x"), (0, b"y"), (0, b"z")]);
    let fake = Fake::new(vec![FakeShard { held: vec![record(5, &packed), record(6, b"r6")], ..open_shard("a", []) }]);
    let source = source(&fake).await;
    let message = read_shard(&source, "a", &at(5, 1)).await.unwrap();
    assert_eq!(message.records, ["5:2=z", "6:0=r6"]);
    let message = read_shard(&source, "a", &at(5, 2)).await.unwrap();
    assert_eq!(message.records, ["6:0=r6"]);
}

#[tokio::test(start_paused = true)]
async fn reading_from_the_tip_misses_nothing_when_its_iterator_expires() {
    let fake = Fake::new(vec![open_shard("a", [1])]);
    let source = source(&fake).await;
    let mut reader = source.open(&shard("a"), &Position::Latest).await.unwrap();
    assert!(matches!(reader.read(100, Vec::new()).await.unwrap(), Read::AtTip));
    fake.with(|state| state.shards[0].held.push(Held::Record(2, NOW_MS + 5, b"r2".to_vec())));
    fake.fail("GetRecords", "ExpiredIteratorException");
    assert_eq!(read_all(&mut *reader).await.unwrap().records, texts([2]));
}

#[tokio::test(start_paused = true)]
async fn at_the_tip_the_time_of_the_service_before_the_request_says_what_was_read() {
    let fake = Fake::new(vec![open_shard("a", [1])]);
    let source = source(&fake).await;
    let mut reader = source.open(&shard("a"), &Position::Beginning).await.unwrap();
    let begun = tokio::time::Instant::now();
    assert!(matches!(reader.read(100, Vec::new()).await.unwrap(), Read::Chunk { .. }));
    assert_eq!(reader.tip_as_of_ms(), None, "there was a record: the tip may be further ahead");
    assert!(matches!(reader.read(100, Vec::new()).await.unwrap(), Read::AtTip));
    // Whole seconds, less a second between hosts, less ten for records that become readable late.
    let waited = i64::try_from(begun.elapsed().as_millis()).unwrap();
    let tip = reader.tip_as_of_ms().unwrap();
    assert!((NOW_MS - 12_000..=NOW_MS - 11_000 + waited).contains(&tip), "{tip}");
    fake.with(|state| state.shards[0].held.push(Held::Record(2, NOW_MS + 5, b"r2".to_vec())));
    assert!(matches!(reader.read(100, Vec::new()).await.unwrap(), Read::Chunk { .. }));
    assert_eq!(reader.tip_as_of_ms(), None);
}

#[tokio::test(start_paused = true)]
async fn as_many_records_are_requested_as_fit() {
    let held = (1..=5000).map(|sequence| record(sequence, &[b'x'; 100])).collect();
    let fake = Fake::new(vec![FakeShard { held, ..open_shard("a", []) }]);
    let source = source(&fake).await;
    let mut reader = source.open(&shard("a"), &Position::Beginning).await.unwrap();
    for bytes in [1000, 1000, 20_000, 1, 1 << 30] {
        reader.ready(Duration::ZERO).await;
        reader.read(bytes, Vec::new()).await.unwrap();
    }
    let limits: Vec<_> = fake.calls("GetRecords").iter().map(|asked| asked["Limit"].clone()).collect();
    assert_eq!(limits, [100, 10, 200, 1, 10_000].map(|limit| json!(limit)));
}

#[tokio::test(start_paused = true)]
async fn the_lag_of_a_position_is_the_age_of_the_first_record_after_it() {
    let now = u64::try_from(NOW_MS).unwrap();
    let fake = Fake::new(vec![open_shard("a", [1, 2])]);
    let source = source(&fake).await;
    let behind = async |position: Position| source.behind(&shard("a"), &position).await.unwrap();
    assert_eq!(behind(Position::Beginning).await, Behind::Time(now - 1000));
    assert_eq!(behind(at(1, 0)).await, Behind::Time(now - 2000));
    assert_eq!(behind(at(2, 0)).await, Behind::Nothing);
    assert_eq!(behind(Position::End).await, Behind::Nothing);
    fake.fail("GetRecords", "ProvisionedThroughputExceededException");
    assert_eq!(behind(Position::Latest).await, Behind::Nothing);
    fake.with(|state| state.shards[0].held.push(Held::Gap));
    fake.with(|state| state.shards[0].held.extend([Held::Gap, record(9, b"x")]));
    assert_eq!(behind(Position::Since { ms: 8000 }).await, Behind::Time(now - 9000));
    fake.with(|state| state.shards[0].closed = Some(vec![]));
    assert_eq!(behind(at(9, 0)).await, Behind::Nothing);
}

#[tokio::test(start_paused = true)]
async fn shards_are_listed_page_by_page_with_the_parents_that_are_listed() {
    let child = |id: &str, parents: &[&str]| FakeShard {
        parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
        ..open_shard(id, [])
    };
    let shards = vec![child("b", &["a"]), child("c", &["a"]), child("d", &["b", "c"]), child("e", &["gone", "d"])];
    let fake = Fake::new(shards);
    fake.with(|state| state.page = 1);
    for (start, first) in [
        (Start::TrimHorizon, Position::Beginning),
        (Start::At { ms: 5500 }, Position::Since { ms: 5500 }),
        (Start::Latest, Position::Since { ms: u64::try_from(NOW_MS).unwrap() - 1000 }),
    ] {
        let config = config(start, Decode::Fast);
        let source = KinesisSource::open(fake.client(), config, Arc::new(MemoryStore::new())).await.unwrap();
        assert_eq!(source.serialized_id(), "123456789012:orders:1700000000");
        fake.with(|state| state.calls.clear());
        // The token of the second page is too old.
        fake.fail("ListShards", "LimitExceededException");
        let listed = source.shards().await.unwrap();
        let families: Vec<_> = listed
            .iter()
            .map(|shard| (shard.id.as_str(), shard.parents.iter().map(ShardId::as_str).collect::<Vec<_>>()))
            .collect();
        assert_eq!(families, [("b", vec![]), ("c", vec![]), ("d", vec!["b", "c"]), ("e", vec!["d"])]);
        assert!(listed.iter().all(|shard| shard.first == first && shard.hash_range.is_some()));
        let filter = fake.calls("ListShards")[0]["ShardFilter"].clone();
        let expected = match first {
            Position::Since { ms } => {
                json!({ "Type": "FROM_TIMESTAMP", "Timestamp": serde_json::from_str::<serde_json::Value>(
                &format!("{}{}", ms / 1000, if ms % 1000 == 0 { String::new() } else { ".5".to_owned() })).unwrap() })
            }
            _ => json!({ "Type": "FROM_TRIM_HORIZON" }),
        };
        assert_eq!(filter, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_restarts_after_an_expired_token_and_drops_a_filter_that_is_rejected() {
    let fake = Fake::new(vec![open_shard("a", []), open_shard("b", [])]);
    fake.with(|state| state.page = 1);
    let source = source(&fake).await;
    for code in ["ExpiredNextTokenException", "InvalidArgumentException"] {
        fake.fail("ListShards", code);
        assert_eq!(source.shards().await.unwrap().len(), 2, "{code}");
    }
    (0..9).for_each(|_| fake.fail("ListShards", "AccessDeniedException"));
    let message = source.shards().await.unwrap_err();
    assert!(message.to_string().contains("kinesis:ListShards"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_cannot_be_opened_is_reported_plainly() {
    for (code, expected) in [
        ("ResourceNotFoundException", "there is no such stream"),
        ("AccessDeniedException", "kinesis:DescribeStreamSummary"),
    ] {
        let fake = Fake::new(vec![]);
        // The SDK repeats a request if the service's clock is far from this machine's.
        (0..3).for_each(|_| fake.fail("DescribeStreamSummary", code));
        let config = config(Start::TrimHorizon, Decode::Fast);
        let message = KinesisSource::open(fake.client(), config, Arc::new(MemoryStore::new())).await.unwrap_err();
        assert!(
            matches!(message, SourceError::Unreadable { .. }) && message.to_string().contains(expected),
            "{message}"
        );
    }
}
