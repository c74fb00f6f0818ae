//! Streams, lease tables and lakes that are not what they were: a table that is gone or has a wrong name, a stream that was replaced,
//! two lakes on one table, and machines whose clocks are wrong. Also when a run ends that catches up with a busy stream.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_model::faults::ServiceName;
use aws_model::kinesis::Put;

use crate::aws::cloud::{BUCKET, Cloud, Options, STREAM, TABLE};
use crate::common::services::KEY;
use crate::common::{pause, wait_for};

impl Cloud {
    /// The name of a shard's row and its checkpoint, for all rows.
    fn positions(&self) -> BTreeSet<(String, String)> {
        self.rows().into_iter().map(|row| (row.shard, row.checkpoint)).collect()
    }

    /// Deletes the stream and creates another one of the same name.
    fn replace_stream(&self, shards: u32) {
        self.kinesis.delete_stream(STREAM, true).unwrap();
        pause(1_100);
        self.kinesis.create_stream(STREAM, Some(shards)).unwrap();
    }

    /// The objects of the bucket.
    fn keys(&self) -> Vec<String> {
        self.s3.keys(BUCKET).into_iter().collect()
    }
}

#[test]
fn a_lake_that_knows_more_than_the_lease_table_is_refused_until_its_rows_are_rebuilt() {
    let cloud = Cloud::without_roles(2, &Options::default());
    cloud.put(100);
    cloud.catch_up();
    let first = cloud.kinesis.shards(STREAM).unwrap().remove(0);
    cloud.kinesis.split_shard(STREAM, &first.shard, first.hash_keys.1 / 2).unwrap();
    cloud.put(50);
    cloud.catch_up();
    let (positions, keys) = (cloud.positions(), cloud.keys());
    assert!(positions.iter().any(|(_, checkpoint)| checkpoint == "SHARD_END"), "{positions:?}");
    assert!(cloud.dynamodb.delete_table(TABLE));

    for table in [TABLE, "mistyped"] {
        let checkpoints = format!("dynamodb://{table}");
        let flags = ["--checkpoints", checkpoints.as_str()];
        for command in [&["run", "--until-caught-up"][..], &["config", "check"]] {
            let printed = cloud.folder.exits(2, &[command, &flags[..]].concat());
            for way_out in ["--checkpoints", "shardlake leases rebuild", "--new-checkpoints", "which has no row at all"]
            {
                assert!(printed.contains(way_out), "{way_out}: {printed}");
            }
        }
        assert!(!cloud.dynamodb.requests().is_empty() && cloud.dynamodb.items(table).is_empty());
    }
    assert_eq!(cloud.keys(), keys, "nothing was touched");

    let rebuilt = cloud.folder.json(&["leases", "rebuild"]);
    assert_eq!(rebuilt["created"].as_array().unwrap().len(), positions.len(), "{rebuilt}");
    assert_eq!(cloud.positions(), positions);
    let again = cloud.folder.ok(&["leases", "rebuild"]);
    assert!(again.contains("created 0 rows"), "{again}");
    cloud.folder.ok(&["leases", "list", "--watch", "10ms"]);
    cloud.put(50);
    cloud.catch_up();
    cloud.audit();
}

#[test]
fn rows_that_were_deleted_by_hand_are_noticed_at_the_start_and_while_a_worker_runs() {
    let cloud = Cloud::new(3, &Options::default());
    cloud.put(200);
    cloud.catch_up();
    let item =
        cloud.dynamodb.items(TABLE).into_iter().find(|item| item["leaseKey"]["S"] == "shardId-000000000001").unwrap();
    cloud.dynamodb.delete_past_checks(TABLE, &item).unwrap();
    let printed = cloud.folder.exits(2, &["run", "--until-caught-up"]);
    assert!(printed.contains("shardId-000000000001 of stream orders, which has no row"), "{printed}");
    let rebuilt = cloud.folder.json(&["leases", "rebuild"]);
    assert_eq!((rebuilt["created"].as_array().unwrap().len(), rebuilt["existing"].as_u64()), (1, Some(2)));

    let mut worker = cloud.start(&[]);
    wait_for("a worker to hold all", 20, || cloud.sole_holder(3).is_some());
    cloud.put(50);
    wait_for("everything to be committed", 20, || cloud.everything_is_committed());
    // Somebody empties the table, which stays.
    for item in cloud.dynamodb.items(TABLE) {
        cloud.dynamodb.delete_past_checks(TABLE, &item).unwrap();
    }
    let code = worker.wait(60).code();
    assert!(code == Some(1) && worker.log().contains("are gone that were there before"), "{code:?} {}", worker.log());
    assert!(cloud.dynamodb.items(TABLE).is_empty());
    cloud.folder.ok(&["leases", "rebuild"]);
    cloud.catch_up();
    cloud.audit();
}

#[test]
fn everything_is_read_again_only_with_consent() {
    let cloud = Cloud::new(1, &Options::default());
    cloud.put(20);
    cloud.catch_up();
    cloud.dynamodb.delete_table(TABLE);
    let summary = cloud.start(&["--until-caught-up", "--new-checkpoints"]).finish(60);
    assert_eq!(summary["records"].as_u64(), Some(cloud.expected()), "{summary}");
}

#[test]
fn the_start_is_refused_for_a_stream_that_was_replaced() {
    let cloud = Cloud::new(2, &Options::default());
    cloud.put(50);
    cloud.catch_up();
    cloud.folder.ok(&["config", "check"]);
    cloud.replace_stream(2);
    cloud.put_unseen(50);
    for (code, command) in [(1, &["run", "--until-caught-up"][..]), (2, &["config", "check"])] {
        let printed = cloud.folder.exits(code, command);
        assert!(printed.contains("needs another `name`"), "{printed}");
    }
}

#[test]
fn a_worker_commits_nothing_of_a_stream_that_replaced_the_one_it_reads() {
    // A shard that was read in part, one that was not read at all, and one of an id that the old stream never had.
    for (before, after) in [(1, 1), (2, 2), (2, 4), (4, 2)] {
        let cloud = Cloud::new(before, &Options::default());
        let mut worker = cloud.start(&[]);
        cloud.put(if before == 2 { 1 } else { 60 });
        wait_for("everything to be committed", 30, || cloud.everything_is_committed());
        if before == 4 {
            let shards = cloud.kinesis.shards(STREAM).unwrap();
            cloud.kinesis.merge_shards(STREAM, &shards[0].shard, &shards[1].shard).unwrap();
            wait_for("the merged shards to end", 30, || {
                cloud.rows().iter().filter(|row| row.checkpoint == "SHARD_END").count() == 2
            });
        }
        let rows: BTreeSet<String> = cloud.rows().into_iter().map(|row| row.shard).collect();
        cloud.replace_stream(after);
        cloud.put_unseen(100);
        let code = worker.wait(60).code();
        let log = worker.log();
        assert!(code == Some(1) && log.contains("needs another `name`"), "{before} {after} {code:?}: {log}");
        assert!(!log.contains("DATA LOSS"), "nothing was trimmed: {log}");
        assert_eq!(cloud.rows().into_iter().map(|row| row.shard).collect::<BTreeSet<_>>(), rows, "no shard was added");
        cloud.audit();
    }
}

#[test]
fn a_stream_that_is_deleted_is_waited_for() {
    let cloud = Cloud::new(1, &Options::default());
    let mut worker = cloud.start(&[]);
    cloud.put(60);
    wait_for("everything to be committed", 30, || cloud.everything_is_committed());
    cloud.kinesis.delete_stream(STREAM, true).unwrap();
    wait_for("the worker to notice", 30, || worker.log().contains("the stream was deleted"));
    pause(3_000);
    assert!(worker.exit_status().is_none(), "{}", worker.log());
    assert!(!worker.log().contains("DATA LOSS"), "{}", worker.log());
    assert_eq!(worker.log().matches("the stream was deleted").count(), 1);
    worker.stop();
    cloud.audit();
}

#[test]
fn latest_is_the_time_of_the_service_whatever_the_clock_of_the_worker_says() {
    for behind in [600, -600] {
        let options = Options { source: "start = \"latest\"".to_owned(), ..Options::default() };
        let cloud = Cloud::behind_the_workers(behind, 2, &options);
        cloud.put_unseen(50);
        pause(2_100);
        let worker = cloud.start(&[]);
        wait_for("a worker to hold all", 20, || cloud.sole_holder(2).is_some());
        cloud.put(50);
        wait_for("everything to be committed", 30, || cloud.everything_is_committed());
        worker.stop();
        cloud.audit();
    }
}

#[test]
fn two_lakes_may_share_one_lease_table_from_their_first_starts_on() {
    for _ in 0..4 {
        let cloud = Cloud::without_roles(2, &Options::default());
        cloud.kinesis.create_stream("users", Some(2)).unwrap();
        cloud.s3.create_bucket("another-lake");
        let text = format!(
            "[[source]]\nurl = \"kinesis://users\"\n[lake]\nurl = \"s3://another-lake\"\n[checkpoints]\nurl = \"dynamodb://{TABLE}\"\n\
             [anonymize]\nkey = \"env:{KEY}\"\n[commit]\ninterval = \"500ms\"\n[leases]\nfailover = \"2s\"\n[limits]\nthreads = 1\n"
        );
        cloud.folder.write("other.toml", text);
        cloud.put(40);
        let puts = (0..40).map(|number| Put::new(format!("{number}"), format!("{{\"number\":{number}}}")));
        cloud.kinesis.put_records("users", puts.collect()).unwrap();
        let workers = [cloud.start(&[]), cloud.start(&["--config", "other.toml"])];
        let other = || cloud.s3.keys("another-lake").iter().filter(|key| key.starts_with("_commits/")).count() > 0;
        wait_for("both to commit", 30, || cloud.everything_is_committed() && other());
        for worker in workers {
            worker.stop();
        }
        cloud.audit();
        let other = cloud.folder.json(&["verify", "--config", "other.toml"]);
        assert_eq!((&other["clean"], other["shards"].as_u64()), (&true.into(), Some(2)), "{other}");
        let status = cloud.folder.json(&["status", "--config", "other.toml"]);
        assert_eq!(status["shards"].as_array().unwrap().len(), 2, "{status}");
        for config in ["shardlake.toml", "other.toml"] {
            let listed = cloud.folder.json(&["leases", "list", "--watch", "10ms", "--config", config]);
            assert_eq!(listed["leases"].as_array().unwrap().len(), 2, "{listed}");
            cloud.start(&["--until-caught-up", "--config", config]).finish(60);
        }
    }
}

#[test]
fn a_run_ends_at_what_was_there_when_it_began_although_the_stream_is_busy() {
    let cloud = Cloud::new(2, &Options::default());
    let expected = cloud.put(300).len();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                cloud.put_unseen(4);
                pause(20);
            }
        });
        let summary = cloud.catch_up();
        over.store(true, Ordering::Relaxed);
        assert!(summary["records"].as_u64().unwrap() >= u64::try_from(expected).unwrap(), "{summary}");
    });
    let described = cloud.calls(ServiceName::Kinesis, "DescribeStreamSummary");
    assert!(described < 40, "{described} questions for the identity of the stream");
}
