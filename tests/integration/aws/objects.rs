//! Objects in S3 as a source: through kills and failing requests, large ones in parts, and what a missing permission says.

use std::collections::BTreeMap;

use aws_model::access::{Access, Keys};
use aws_model::clock::ModelClock;
use aws_model::faults::{Fault, FaultKind, Refusal, Rule, ServiceName, When};
use aws_model::kinesis::Settings;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use crate::common::folder::Folder;
use crate::common::services::{KEY, Services};
use crate::common::{gzip, now_ms, pause, wait_for};

const BUCKET: &str = "old-events";
const WORKER: [&str; 4] = ["--commit-interval", "300ms", "--threads", "1"];
const KILLS: usize = 20;
/// Records of the raw objects of another lake.
const MADE: usize = 40_000;
const CATCH_UP: [&str; 6] = ["run", "--until-caught-up", "--commit-interval", "300ms", "--threads", "1"];

/// A bucket with an account of its own, and a folder with a worker's configuration.
fn begin(access: Access) -> (Services, Folder) {
    let services = Services::guarded("none", 1, BUCKET, Settings::default(), || ModelClock::tokio(now_ms()), access);
    let mut folder = Folder::new();
    services.set_environment(&mut folder);
    let text = format!(
        "[[source]]\nurl = \"s3://{BUCKET}/in\"\nlist_every = \"1s\"\nregion = \"us-east-1\"\n[lake]\nurl = \"lake\"\n\
         [anonymize]\nkey = \"env:{KEY}\"\n[leases]\nfailover = \"2s\"\n"
    );
    folder.write("shardlake.toml", text);
    (services, folder)
}

fn everything() -> Access {
    Access::new(Keys::default(), |_| true)
}

/// A line with a good record.
fn assessment(number: usize) -> String {
    format!(
        "{{\"id\":\"a{number}\",\"user_id\":\"u{}\",\"type\":\"skills\",\"score\":{},\"duration\":{number},\
         \"timestamp\":\"2025-01-{:02}T10:00:00Z\"}}\n",
        number % 7,
        number % 101,
        number % 28 + 1
    )
}

fn key(number: usize) -> String {
    format!("in/2025/01/{:02}/{:08x}.json", number % 28 + 1, u32::try_from(number).unwrap().wrapping_mul(2_654_435_761))
}

/// The ids of all rows, and how often each is there.
fn ids(folder: &Folder) -> BTreeMap<String, u64> {
    let mut ids = BTreeMap::new();
    for path in folder.files("lake/processed") {
        let Ok(file) = std::fs::File::open(path) else { continue };
        for row in SerializedFileReader::new(file).unwrap().get_row_iter(None).unwrap() {
            let id = row.unwrap().into_columns().into_iter().find(|(name, _)| name == "assessment_id");
            let Some((_, Field::Str(id))) = id else { panic!("a row has no id") };
            *ids.entry(id).or_default() += 1;
        }
    }
    ids
}

#[test]
fn objects_are_read_once_through_kills_and_failing_requests() {
    let (services, folder) = begin(everything());
    services.s3.set_page_max(Some(100));
    let mut written = 0;
    let mut put = |count: usize| {
        for number in written..written + count {
            services.s3.put_object(BUCKET, &key(number), assessment(number));
        }
        written += count;
        written
    };
    put(1_000);
    // Larger than one request reads, plain and compressed.
    let large: String = (1_000_000..1_060_000).map(assessment).collect();
    services.s3.put_object(BUCKET, "in/large.ndjson", large.clone());
    services.s3.put_object(
        BUCKET,
        "in/large/members.gz",
        [gzip(&large.replace("\"a1", "\"b1").into_bytes()), gzip(assessment(7_000_000).as_bytes())].concat(),
    );
    services.s3.put_object(BUCKET, "elsewhere/a.json", assessment(9_000_000));
    // Raw objects of another lake, whose records keep their identities.
    let made = format!("[[source]]\nurl = \"made.ndjson\"\n[lake]\nurl = \"made\"\n[anonymize]\nkey = \"env:{KEY}\"\n");
    folder.write("made.toml", made);
    folder.write("made.ndjson", (8_000_000..8_000_000 + MADE).map(assessment).collect::<String>());
    folder.ok(&["run", "--config", "made.toml", "--until-caught-up"]);
    for (number, path) in folder.files("made/raw").iter().enumerate() {
        services.s3.put_object(BUCKET, &format!("in/raw/{number}.json.gz"), std::fs::read(path).unwrap());
    }
    let faults = [
        ("GetObject", Fault::Refuse(Refusal::slow_down())),
        ("GetObject", Fault::CutBody),
        ("ListObjectsV2", Fault::CutBefore),
    ];
    for (operation, fault) in faults {
        services.faults.add(Rule::new(ServiceName::S3, operation, When::Probability(0.01), fault));
    }
    let start = || folder.start(&WORKER);
    let mut workers = [start(), start()];
    for kill in 0..KILLS {
        put(25);
        let before = folder.files("lake/_commits").len();
        // Until an epoch was committed, or for a while that differs.
        for _ in 0..80 + 19 * (kill % 7) {
            if folder.files("lake/_commits").len() != before {
                break;
            }
            pause(5);
        }
        let victim = &mut workers[kill % 2];
        assert!(victim.exit_status().is_none(), "a worker ended by itself: {}", victim.log());
        std::mem::replace(victim, start()).kill();
    }
    let written = put(10);
    for worker in workers {
        worker.kill();
    }
    for worker in [(); 2].map(|()| folder.start(&[&WORKER[..], &["--until-caught-up"]].concat())) {
        let summary = worker.finish(180);
        assert_eq!(summary["ok"], true, "{summary}");
    }
    assert!(services.faults.count(FaultKind::CutBody) > 0 && services.faults.count(FaultKind::Refuse) > 0);
    let ids = ids(&folder);
    assert_eq!(ids.len(), written + 2 * 60_000 + 1 + MADE);
    assert!(ids.values().all(|times| *times == 1), "each is there once");
    let report = folder.json(&["verify", "--lake", "lake"]);
    assert_eq!((&report["clean"], &report["records"]), (&true.into(), &(ids.len() as u64).into()), "{report}");
}

#[test]
fn an_object_that_is_deleted_before_it_was_read_is_recorded_as_lost() {
    let (services, folder) = begin(everything());
    for number in 0..30 {
        services.s3.put_object(BUCKET, &key(number), assessment(number));
    }
    // Listed and numbered, and then no object can be read.
    let refuse = || Rule::new(ServiceName::S3, "GetObject", When::Always, Fault::Refuse(Refusal::slow_down()));
    services.faults.add(refuse());
    let worker = folder.start(&WORKER);
    wait_for("the list", 60, || folder.files("lake/_sources").len() > 1);
    assert!(services.s3.remove_object(BUCKET, &key(3)));
    services.s3.put_object(BUCKET, &key(4), assessment(400));
    services.faults.clear();
    wait_for("the other rows", 60, || ids(&folder).len() == 28);
    worker.kill();
    let message = folder.exits(1, &["losses", "list", "--lake", "lake"]);
    assert!(
        message.contains("deleted after it was listed") && message.contains("overwritten after it was listed"),
        "{message}"
    );
    let message = folder.exits(1, &CATCH_UP);
    assert!(message.contains("1 objects were overwritten"), "somebody must decide: {message}");
    assert_eq!(ids(&folder).len(), 28);
    let report: serde_json::Value = serde_json::from_str(
        folder.exits(1, &["verify", "--lake", "lake", "--json"]).lines().next().unwrap_or_default(),
    )
    .unwrap_or_default();
    assert_ne!(report["clean"], true, "{report}");
}

#[test]
fn a_missing_permission_is_named() {
    for denied in ["s3:ListBucket", "s3:GetObject"] {
        let (services, folder) = begin(Access::new(Keys::default(), move |asked| asked.action != denied));
        services.s3.put_object(BUCKET, "in/a.json", assessment(1));
        let checked = folder.run(&["config", "check"]);
        let text = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
        assert!(!checked.status.success() && text.contains(denied), "{text}");
        let run = folder.run(&CATCH_UP);
        let text = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
        assert!(!run.status.success() && text.contains(denied), "{text}");
    }
}

#[test]
fn a_bucket_that_holds_the_lake_is_refused() {
    let (_services, folder) = begin(everything());
    for (source, lake) in
        [("s3://old-events", "s3://old-events/lake"), ("s3://old-events/lake/raw", "s3://old-events/lake")]
    {
        let message = folder.exits(
            2,
            &["run", "--source", source, "--lake", lake, "--checkpoints", "dynamodb://leases", "--until-caught-up"],
        );
        assert!(message.contains("overlap"), "{message}");
    }
}
