//! What happens to a stream while it is read: shards are split and merged, and records are trimmed. Also where reading starts, and
//! enhanced fan-out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_model::faults::{Fault, FaultKind, Rule, ServiceName, When};

use crate::aws::cloud::{Cloud, Options, Row, STREAM};
use crate::common::{now_ms, pause, wait_for};

impl Cloud {
    /// The shards that take records now, by their first hash keys.
    fn open_shards(&self) -> Vec<(String, u128, u128)> {
        let shards = self.kinesis.shards(STREAM).unwrap().into_iter().filter(|shard| shard.ending.is_none());
        let mut open: Vec<_> = shards.map(|shard| (shard.shard, shard.hash_keys.0, shard.hash_keys.1)).collect();
        open.sort_by_key(|(_, first, _)| *first);
        open
    }

    /// Splits an open shard into two halves.
    fn split(&self, index: usize) {
        let (shard, first, last) = self.open_shards().swap_remove(index);
        self.kinesis.split_shard(STREAM, &shard, first + (last - first) / 2).unwrap();
    }

    /// Merges an open shard with the next one.
    fn merge(&self, index: usize) {
        let open = self.open_shards();
        self.kinesis.merge_shards(STREAM, &open[index].0, &open[index + 1].0).unwrap();
    }

    /// No shard is held or read before its parents are read to their ends.
    fn check_order(&self) {
        let rows: BTreeMap<String, Row> = self.rows().into_iter().map(|row| (row.shard.clone(), row)).collect();
        for row in rows.values() {
            let started = row.owner.is_some() || row.is_pending || row.checkpoint != "TRIM_HORIZON";
            let parents = row.parents.iter().filter_map(|parent| rows.get(parent));
            let open: Vec<&Row> = parents.filter(|row| row.checkpoint != "SHARD_END" || row.is_pending).collect();
            assert!(!started || open.is_empty(), "{row:?} was started before {open:?} ended");
        }
    }
}

#[test]
fn shards_may_be_split_and_merged_while_they_are_read() {
    let cloud = Cloud::new(2, &Options::default());
    let workers = [cloud.start(&[]), cloud.start(&[])];
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                cloud.check_order();
                pause(2);
            }
        });
        let reshards: [&dyn Fn(); 8] = [
            &|| cloud.split(0),
            // A child that was just created, perhaps before any record of it was read.
            &|| cloud.split(0),
            &|| cloud.merge(1),
            &|| {
                cloud.split(1);
                cloud.merge(0);
            },
            &|| cloud.split(2),
            &|| cloud.merge(0),
            // A shard that ends without ever having held a record.
            &|| {
                cloud.split(0);
                cloud.split(0);
            },
            &|| {
                cloud.kinesis.update_shard_count(STREAM, 3).unwrap();
            },
        ];
        for reshard in reshards {
            cloud.put(120);
            pause(250);
            cloud.put(40);
            reshard();
            cloud.put(40);
            pause(350);
        }
        let open = cloud.open_shards().len();
        let ended = || {
            cloud.rows().iter().filter(|row| row.checkpoint == "SHARD_END").count()
                == cloud.kinesis.shards(STREAM).unwrap().len() - open
        };
        wait_for("everything to be read, and all ends", 30, || cloud.everything_is_committed() && ended());
        over.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
    });
    for worker in workers {
        worker.stop();
    }
    cloud.audit();
}

#[test]
fn a_start_at_the_latest_record_is_decided_once() {
    let options = Options { source: "start = \"latest\"".to_owned(), ..Options::default() };
    let cloud = Cloud::new(2, &options);
    cloud.put_unseen(100);
    // The time of the service has whole seconds, and a margin of one more.
    pause(2_100);
    let worker = cloud.start(&[]);
    wait_for("a worker to hold all", 20, || cloud.sole_holder(2).is_some());
    cloud.put(100);
    cloud.split(1);
    cloud.put(100);
    worker.kill();
    // The next worker reads what arrives in between: the start does not move.
    cloud.put(100);
    cloud.split(0);
    cloud.put(100);
    cloud.catch_up();
    cloud.audit();
}

#[test]
fn a_start_at_a_time_reads_what_arrived_since() {
    let cloud = Cloud::new(2, &Options::default());
    cloud.put_unseen(100);
    // A shard that ended before the time has nothing to read, and neither has its parent.
    cloud.split(0);
    cloud.put_unseen(100);
    cloud.split(0);
    cloud.put_unseen(100);
    pause(1100);
    let start = pipeline::time::format_rfc3339(now_ms());
    pause(20);
    cloud.configure(&Options { source: format!("start = \"{start}\""), ..Options::default() });
    cloud.put(100);
    cloud.merge(1);
    cloud.put(100);
    cloud.catch_up();
    cloud.audit();
}

#[test]
fn fan_out_continues_through_ends_of_sessions_and_of_shards() {
    let cloud = Cloud::new(2, &Options { source: "read = \"fan-out\"".to_owned(), ..Options::default() });
    // Three sessions end early, in different ways.
    let subscribe = |when, fault| Rule::new(ServiceName::Kinesis, "SubscribeToShard", when, fault);
    cloud.faults.add(subscribe(When::Nth(1), Fault::CutBody));
    cloud.faults.add(subscribe(When::Nth(2), Fault::CutAfter));
    cloud.faults.add(subscribe(When::Nth(3), Fault::CutBody));
    cloud.put(200);
    let worker = cloud.start(&[]);
    wait_for("sessions to end", 30, || {
        cloud.put(5);
        pause(100);
        cloud.calls(ServiceName::Kinesis, "SubscribeToShard") > 3
    });
    assert_eq!((cloud.faults.count(FaultKind::CutBody), cloud.faults.count(FaultKind::CutAfter)), (2, 1));
    wait_for("everything to be committed", 30, || cloud.everything_is_committed());
    cloud.put(100);
    cloud.split(0);
    cloud.put(100);
    wait_for("the children's records to be committed", 30, || cloud.everything_is_committed());
    // GetRecords is called only to find out whether a shard has records after a position, for --until-caught-up.
    let polls = cloud.calls(ServiceName::Kinesis, "GetRecords");
    assert!(polls <= 4, "{polls} calls of GetRecords: the shards were polled");
    worker.stop();
    cloud.audit();
}

#[test]
fn a_stream_with_too_many_consumers_is_polled() {
    let cloud = Cloud::new(2, &Options { source: "read = \"fan-out\"".to_owned(), ..Options::default() });
    for number in 0..20 {
        cloud.kinesis.register_consumer(STREAM, &format!("other-{number}")).unwrap();
    }
    cloud.put(200);
    let worker = cloud.start(&[]);
    wait_for("everything to be committed", 60, || cloud.everything_is_committed());
    assert!(worker.log().contains("failed to register the consumer; polling the stream"));
    assert_eq!(cloud.calls(ServiceName::Kinesis, "SubscribeToShard"), 0);
    worker.stop();
    cloud.audit();
}

#[test]
fn a_worker_continues_after_records_were_trimmed() {
    let cloud = Cloud::in_the_past(60, 2, &Options::default());
    // Sixty hours ago: a parent that no worker ever reads.
    cloud.put_unseen(100);
    cloud.split(0);
    cloud.put_unseen(100);
    cloud.advance_hours(30);
    // Thirty hours ago: the parent and all its records are gone.
    assert!(cloud.kinesis.shards(STREAM).unwrap().iter().all(|shard| shard.shard != "shardId-000000000000"));
    let read = cloud.put(100);
    cloud.catch_up();
    cloud.audit();
    assert!(read.iter().any(|placed| placed.shard == "shardId-000000000002"), "a child of the shard that is gone");
    // Records that arrive and expire while no worker runs.
    cloud.put_unseen(100);
    cloud.advance_hours(25);
    cloud.put(100);
    cloud.go_to_the_present();
    cloud.put(100);
    cloud.catch_up();
    cloud.audit();
}

#[test]
fn every_document_of_a_record_lands_once_although_a_worker_is_killed() {
    let cloud = Cloud::new(2, &Options::default());
    cloud.put_several(60);
    cloud.put(40);
    let worker = cloud.start(&[]);
    wait_for("a first commit", 60, || cloud.committed() > 0);
    cloud.put_several(60);
    worker.kill();
    cloud.put_several(20);
    cloud.catch_up();
    cloud.audit();
}
