//! The identity of a stream is checked again, nothing of another stream is read or committed, and times are those of the service.

use super::*;
use crate::source::Behind;

/// The time of the service in seconds.
const NOW_S: u64 = 1_700_000_100;

fn recreate(fake: &Fake, shards: Vec<FakeShard>) {
    fake.with(|state| {
        state.created_s += 50;
        state.is_gone = false;
        state.shards = shards;
    });
}

fn is_other_stream(error: &SourceError) -> bool {
    matches!(error, SourceError::Unreadable { .. }) && error.to_string().contains("needs another `name`")
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_of_a_stream_that_replaced_another_one() {
    let fake = Fake::new(vec![open_shard("a", 1..=5)]);
    let source = source(&fake).await;
    let mut reader = source.open(&shard("a"), &Position::Beginning).await.unwrap();
    read_all(&mut *reader).await.unwrap();
    assert_eq!((source.is_same().await, source.may_commit().await), (Ok(()), Ok(())));

    fake.with(|state| state.is_gone = true);
    fake.fail("GetRecords", "ResourceNotFoundException");
    let error = read_all(&mut *reader).await.unwrap_err();
    assert!(
        matches!(error, SourceError::Unavailable { .. }) && error.to_string().contains("it was deleted"),
        "{error}"
    );
    assert_eq!(source.may_commit().await, Ok(()), "what was read cannot be read again");
    assert!(source.shards().await.is_err() && source.behind(&shard("a"), &at(5, 0)).await.is_err());

    // The new stream has a shard of the same name, with records after the position.
    recreate(&fake, vec![open_shard("a", 1..=9)]);
    tokio::time::advance(Duration::from_secs(6)).await;
    let reads = fake.calls("GetRecords").len();
    let error = read_all(&mut *reader).await.unwrap_err();
    assert!(is_other_stream(&error), "{error}");
    assert_eq!(fake.calls("GetRecords").len(), reads, "no record of it was requested");
    assert_eq!(source.replaced().await, error);
    assert_eq!(source.may_commit().await, Ok(()), "all that was read is of the old stream");
    assert_eq!(source.is_same().await, Err(error));
}

#[tokio::test(start_paused = true)]
async fn what_may_be_of_another_stream_is_not_committed() {
    let fake = Fake::new(vec![open_shard("a", 1..=5)]);
    let source = source(&fake).await;
    let mut reader = source.open(&shard("a"), &Position::Beginning).await.unwrap();
    read_all(&mut *reader).await.unwrap();
    // Nobody has read while the stream was gone, and the iterator is valid for the new one.
    let created = u64::try_from(service::CREATED_S).unwrap() + 50;
    recreate(&fake, vec![open_shard("a", (1..=5).chain([created + 1]))]);
    let observed = read_all(&mut *reader).await.unwrap();
    assert_eq!(observed.records.len(), 1);
    let error = source.may_commit().await.unwrap_err();
    assert!(is_other_stream(&error) && source.replaced().await == error, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_shard_is_trimmed_only_if_the_stream_is_the_same() {
    for replaced in [false, true] {
        let fake = Fake::new(vec![open_shard("a", 1..=5), open_shard("b", 1..=5)]);
        let source = source(&fake).await;
        let mut reader = source.open(&shard("b"), &Position::Beginning).await.unwrap();
        read_all(&mut *reader).await.unwrap();
        fake.fail("GetRecords", "ExpiredIteratorException");
        fake.with(|state| state.shards.truncate(1));
        if replaced {
            recreate(&fake, vec![open_shard("a", 1..=5)]);
        }
        let read = read_all(&mut *reader).await;
        match read {
            Ok(observed) => assert!(!replaced && observed.end.is_some()),
            Err(error) => assert!(replaced && is_other_stream(&error), "{error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_position_that_another_stream_does_not_have_shows_that_it_is_another_one() {
    let fake = Fake::new(vec![open_shard("a", 1..=5)]);
    let source = source(&fake).await;
    recreate(&fake, vec![open_shard("a", 1..=5)]);
    fake.fail("GetShardIterator", "InvalidArgumentException");
    let error = read_shard(&source, "a", &at(900, 0)).await.unwrap_err();
    assert!(is_other_stream(&error), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_shards_of_a_deleted_stream_share_an_answer() {
    let fake = Fake::new(vec![open_shard("a", 1..=5)]);
    let source = source(&fake).await;
    fake.with(|state| state.is_gone = true);
    assert!(source.is_same().await.is_err());
    let before = fake.calls("DescribeStreamSummary").len();
    for _ in 0..4 {
        let all = futures::future::join_all((0..50).map(|_| source.is_same())).await;
        assert!(all.iter().all(Result::is_err));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(fake.calls("DescribeStreamSummary").len(), before);
    // What an epoch has read must be asked about after it was read.
    source.may_commit().await.unwrap();
    assert!(fake.calls("DescribeStreamSummary").len() > before);
}

#[tokio::test(start_paused = true)]
async fn latest_is_a_time_of_the_service_whatever_the_machine_says() {
    struct Ahead;
    impl Clock for Ahead {
        fn now_ms(&self) -> i64 {
            NOW_MS + 3_600_000
        }
    }
    let fake = Fake::new(vec![open_shard("a", [NOW_S - 20, NOW_S + 1, NOW_S + 2])]);
    let config = KinesisConfig { clock: Arc::new(Ahead), ..config(Start::Latest, Decode::Fast) };
    let source = KinesisSource::open(fake.client(), config, Arc::new(MemoryStore::new())).await.unwrap();
    let first = source.shards().await.unwrap().remove(0).first;
    assert_eq!(first, Position::Since { ms: (NOW_S - 1) * 1000 });
    assert_eq!(read_shard(&source, "a", &first).await.unwrap().records.len(), 2);
    let behind = source.behind(&shard("a"), &Position::Beginning).await.unwrap();
    assert_eq!(behind, Behind::Time(20_000), "the age is by the time of the service, too");
}

#[tokio::test(start_paused = true)]
async fn a_bounded_source_ends_at_what_was_there_although_more_arrives() {
    for mode in [Mode::Polling, Mode::FanOut { consumer: "c".to_owned() }] {
        let old = open_shard("a", NOW_S - 250..=NOW_S);
        let fake = Fake::new(vec![old]);
        let config = KinesisConfig { bounded: true, mode, ..config(Start::TrimHorizon, Decode::Fast) };
        let source = KinesisSource::open(fake.client(), config, Arc::new(MemoryStore::new())).await.unwrap();
        let mut reader = source.open(&shard("a"), &Position::Beginning).await.unwrap();
        // Two new records a read, for ever.
        let mut next = NOW_S + 1;
        let mut observed = Observed::default();
        let mut reads = 0;
        loop {
            fake.with(|state| state.shards[0].held.extend((next..next + 2).map(|second| record(second, b"new"))));
            next += 2;
            reader.ready(Duration::ZERO).await;
            if !observed.add(reader.read(1 << 20, Vec::new()).await.unwrap()) {
                break;
            }
            reads += 1;
            assert!(reads < 400, "it does not end");
        }
        let through = observed.through.unwrap();
        assert!(through >= at(NOW_S, 0), "{through}");
        assert!(matches!(reader.read(1 << 20, Vec::new()).await, Ok(Read::AtTip)), "it stays there");
        assert_eq!(source.behind(&shard("a"), &through).await, Ok(Behind::Nothing));
        assert!(matches!(source.behind(&shard("a"), &at(NOW_S - 9, 0)).await, Ok(Behind::Time(_))));
    }
}
