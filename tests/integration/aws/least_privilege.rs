//! Least privilege, from both sides: the roles of `deploy/worker.yaml` allow everything that the commands send, and without any one
//! of their grants a command fails and names the missing action.
//!
//! Owns: the cases (one for each option of the template), what is done in each, and the two comparisons. Does not own: the policies
//! (`deploy/`), their evaluation (`tests/support/access`), what a request asks of IAM (`aws_model::access`).
//!
//! Every test of `aws` runs under the roles with all options on, and fails if anything is denied (`audit`). Here each option is on
//! alone, and a grant is one action on one pattern of resources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use access::{Grant, Policy};
use aws_model::access::{Asked, Keys};
use aws_model::clock::ModelClock;
use aws_model::faults::{Fault, FaultKind, Rule, ServiceName, When};
use aws_model::http::Request;
use aws_model::kinesis::Put;
use serde_json::Value;
use shardlake::setup::permissions;

use crate::aws::cloud::{BUCKET, Cloud, DELIVERY_STREAM, Options, PREFIX, STREAM, parameters};
use crate::aws::failing::abort_between_decide_and_publish;
use crate::common::roles::{LAKE_KEY, MAINTENANCE, Roles, SECRET_KEY, STREAM_KEY, WORKER};
use crate::common::{now_ms, wait_for};

/// The secret that the pseudonym key is in.
const SECRET: &str = "arn:aws:secretsmanager:us-east-1:000000000000:secret:pseudonyms-AbCdEf";
/// The bucket of objects that are a source.
const SOURCE_BUCKET: &str = "old-events";
/// Tests of one grant that run at the same time.
const AT_ONCE: usize = 4;
/// How long a worker may take to name an action.
const NAMED_WITHIN: u64 = 25;
/// Warnings that the records, objects and rollbacks of these tests cause on purpose.
const EXPECTED_WARNINGS: [&str; 3] =
    ["cannot open aggregate", "ignoring a roll-up of the commit log", "rolling the epoch back"];
/// Grants whose absence `config check` alone reports: the object of its trial exists only then.
const PROBE: &str = "_shardlake-probe";

/// One option of the template.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    /// Keys of `[[source]]`, `[raw]`, `[limits]`, `[lake]`, `[checkpoints]`.
    source: &'static str,
    raw: &'static str,
    limits: &'static str,
    lake: &'static str,
    checkpoints: &'static str,
    has_keys: bool,
}

const PLAIN: Case = Case {
    name: "plain",
    parameters: &[],
    source: "",
    raw: "",
    limits: "threads = 1",
    lake: "",
    checkpoints: "",
    has_keys: false,
};

const CASES: [Case; 7] = [
    PLAIN,
    Case {
        name: "fan-out",
        parameters: &[("ReadMode", "fan-out")],
        source: "read = \"fan-out\"\nconsumer = \"shardlake\"",
        ..PLAIN
    },
    Case {
        name: "firehose",
        parameters: &[("RawTo", "firehose"), ("DeliveryStreamName", DELIVERY_STREAM)],
        raw: "to = \"firehose:landing\"",
        limits: "threads = 1\nrecord_bytes = \"512 KiB\"",
        ..PLAIN
    },
    Case {
        name: "objects",
        parameters: &[("SourceBucketName", SOURCE_BUCKET), ("SourcePrefix", "in/")],
        // Another source follows that of the stream.
        source: "[[source]]\nurl = \"s3://old-events/in\"\nlist_every = \"1s\"\nshards = 1",
        ..PLAIN
    },
    Case { name: "tags", parameters: &[("ObjectTags", "true")], lake: "tags = { team = \"data\" }", ..PLAIN },
    Case {
        name: "new table",
        parameters: &[("CreatesTable", "true")],
        checkpoints: "point_in_time_recovery = true",
        ..PLAIN
    },
    Case {
        name: "keys",
        parameters: &[("LakeKmsKeyArn", LAKE_KEY), ("StreamKmsKeyArn", STREAM_KEY), ("SecretKmsKeyArn", SECRET_KEY)],
        has_keys: true,
        ..PLAIN
    },
];

impl Case {
    fn roles(&self) -> Roles {
        Roles::of(&parameters(&[self.parameters, &[("PseudonymKeySecretArn", SECRET)]].concat()))
    }

    /// A stream with records, and everything that the case needs.
    fn cloud(&self, roles: Roles) -> Cloud {
        let options = Options {
            source: self.source.to_owned(),
            raw: self.raw.to_owned(),
            limits: self.limits.to_owned(),
            lake: self.lake.to_owned(),
            checkpoints: format!("every = \"24h\"\nkeep = 1\n{}", self.checkpoints),
            key: format!("secretsmanager:{SECRET}"),
            ..Options::default()
        };
        let keys = |key: &str| self.has_keys.then(|| key.to_owned());
        let keys = Keys { buckets: keys(LAKE_KEY), streams: keys(STREAM_KEY), secrets: keys(SECRET_KEY) };
        let cloud = Cloud::with_access(2, &options, || ModelClock::tokio(now_ms()), roles.into_access(keys));
        cloud.secrets.put(SECRET, "0123456789abcdef0123456789abcdef");
        cloud.firehose.create(DELIVERY_STREAM);
        cloud.s3.create_bucket(SOURCE_BUCKET);
        cloud.s3.put_object(SOURCE_BUCKET, "in/a.json", "{\"assessment_id\":1}");
        if self.name != "new table" {
            cloud.folder.ok(&["init"]);
        }
        cloud.put(40);
        cloud
    }
}

/// A step that failed, and everything that it printed and logged.
#[derive(Debug)]
struct Failed {
    step: String,
    said: String,
}

/// Whether a log has a warning or an error that the test does not cause on purpose.
fn warns(log: &str) -> bool {
    let warnings = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
    warnings.into_iter().any(|line| !EXPECTED_WARNINGS.iter().any(|expected| line.contains(expected)))
}

impl Cloud {
    /// A damaged roll-up makes the next one due, and three make the oldest superfluous.
    fn put_damaged_roll_ups(&self) {
        for number in 1..=3 {
            self.put_object(&format!("{PREFIX}_rollups/{number:020}.json.gz"), "damaged".to_owned());
        }
    }

    fn put_object(&self, key: &str, text: String) {
        let (method, path) = ("PUT".to_owned(), format!("/{BUCKET}/{key}"));
        let request = Request { method, path, query: BTreeMap::new(), headers: BTreeMap::new(), body: text.into() };
        self.services().answer(&request);
    }

    /// A command that must succeed without a warning.
    fn must(&self, args: &[&str]) -> Result<(), Failed> {
        let output = self.folder.run(args);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        // What `leases list` and `doctor` find in this lake is not their failure.
        let finds = (args.starts_with(&["leases", "list"]) && !said.contains("shardlake: "))
            || (args.starts_with(&["doctor"])
                && !said.contains("could not check")
                && !said.contains("permission-missing"));
        let ended = output.status.success() || finds;
        if ended && !warns(&said) {
            return Ok(());
        }
        Err(Failed { step: args.join(" "), said })
    }

    /// A worker that must do all that there is to do, without a warning. `action`: the worker is stopped once it has named it.
    fn must_catch_up(&self, action: Option<&str>) -> Result<(), Failed> {
        let mut worker = self.start(&["--until-caught-up"]);
        let began = std::time::Instant::now();
        let named = |log: &str| action.is_some_and(|action| log.contains(action));
        let status = loop {
            let status = worker.exit_status();
            if status.is_some() || named(&worker.log()) || began.elapsed().as_secs() > NAMED_WITHIN {
                break status;
            }
            crate::common::pause(50);
        };
        let said = worker.log();
        if status.is_some_and(|status| status.success()) && !warns(&said) {
            return Ok(());
        }
        let step = if status.is_some() { "run" } else { "run, without an end" };
        Err(Failed { step: step.to_owned(), said })
    }

    /// Leaves a worker dead between its intent and its decision.
    fn kill_before_decision(&self) {
        self.faults.add(Rule::new(ServiceName::DynamoDb, "TransactWriteItems", When::Always, Fault::Hang));
        self.put(60);
        let worker = self.start(&[]);
        wait_for("a decision to hang", 30, || self.faults.count(FaultKind::Hang) > 0);
        worker.kill();
        self.faults.clear();
        // It is old: otherwise a sweep would keep it.
        let intents = self.s3.keys(BUCKET).into_iter().filter(|key| key.starts_with(&format!("{PREFIX}_intents/")));
        for key in intents {
            let mut intent: Value = serde_json::from_slice(&self.s3.object(BUCKET, &key).unwrap()).unwrap();
            intent["written_at"] = "2020-01-01T00:00:00.000Z".into();
            self.put_object(&key, intent.to_string());
        }
    }

    /// A sweep that must remove an old entry of the lake log, and enter the newest epoch, whose entry is gone.
    fn must_keep_the_log(&self) -> Result<(), Failed> {
        self.put(40);
        self.catch_up();
        let entries = || {
            let keys = self.s3.keys(BUCKET).into_iter();
            keys.filter(|key| key.starts_with(&format!("{PREFIX}_log/0"))).collect::<Vec<String>>()
        };
        let [oldest, .., newest] = &entries()[..] else { panic!("the log has two entries: {:?}", entries()) };
        let entry: Value = serde_json::from_slice(&self.s3.object(BUCKET, newest).unwrap()).unwrap();
        let record = entry["record"].as_str().unwrap();
        let text = self.s3.object(BUCKET, &format!("{PREFIX}{record}")).unwrap();
        let intent = format!("{PREFIX}{}", record.replace("_commits/", "_intents/"));
        self.put_object(&intent, String::from_utf8(text.to_vec()).unwrap());
        self.s3.remove_object(BUCKET, newest);
        let entered = self.must(&["sweep", "--older-than", "1h"]);
        if entered.is_ok() {
            assert!(entries().contains(newest), "the epoch entered again");
        }
        self.s3.set_modified_ms(BUCKET, oldest, 0);
        let bytes = self.s3.object(BUCKET, oldest).unwrap();
        let snapshots = [1, 2].map(|version| format!("{PREFIX}_log/snapshots/{version:020}.json.gz"));
        snapshots.iter().for_each(|key| self.put_object(key, "head".to_owned()));
        let trimmed = entered.and_then(|()| self.must(&["sweep", "--older-than", "1h"]));
        if trimmed.is_ok() {
            assert!(!entries().contains(oldest), "the old entry is gone");
        }
        // They were not real snapshots, so readers need the entry.
        assert!(snapshots.iter().all(|key| self.s3.remove_object(BUCKET, key)));
        self.put_object(oldest, String::from_utf8(bytes.to_vec()).unwrap());
        trimmed
    }

    /// Leaves a file that was cut after it was read: somebody must decide what it is now.
    fn cut_a_file(&self) {
        let line = |number| {
            let fields = "\"user_id\":\"u\",\"type\":\"skills\",\"score\":1,\"timestamp\":\"2025-01-01T10:00:00Z\"";
            format!("{{\"id\":\"f{number}\",{fields}}}\n")
        };
        let lines = |count: u32| (0..count).map(line).collect::<String>();
        let read = ["run", "--source", "in", "--until-caught-up"];
        self.folder.write("in/a.ndjson", lines(9));
        self.folder.ok(&read);
        self.folder.write("in/a.ndjson", lines(3));
        self.folder.exits(1, &read);
    }

    /// A lease that a worker gives away when it is asked for it.
    fn must_release(&self) -> Result<(), Failed> {
        let worker = self.start(&[]);
        wait_for("a worker to hold all", 30, || self.sole_holder(2).is_some());
        let released = self.must(&["leases", "release", "shardId-000000000001"]);
        worker.kill();
        released
    }

    /// A replay that is planned and asked for something, and never read.
    fn must_ask_of_a_replay(&self) -> Result<(), Failed> {
        // The epochs of a file are not read again here.
        self.must(&["replay", "plan", "--from", "trim-horizon", "--stream", STREAM])?;
        let list = self.folder.json(&["replay", "list"]);
        let id = list["replays"][0]["id"].as_str().unwrap();
        self.must(&["replay", "pause", id])?;
        self.must(&["replay", "status", id])?;
        self.must(&["replay", "resume", id])
    }

    /// A sweep that must remove what a redrive has left aside.
    fn must_remove_what_a_redrive_left(&self) -> Result<(), Failed> {
        let key = format!("{PREFIX}_replays/redrive-0a1b2c3d/00001/lake/_log/00000000000000000001.json");
        self.put_object(&key, "{}".to_owned());
        self.s3.set_modified_ms(BUCKET, &key, 0);
        let swept = self.must(&["sweep", "--older-than", "1h"]);
        if swept.is_ok() {
            assert!(!self.s3.keys(BUCKET).contains(&key), "it is gone");
        }
        swept
    }

    /// A sweep that purges what a promoted replay has replaced.
    fn must_purge(&self) -> Result<(), Failed> {
        self.must(&["replay", "plan", "--from", "trim-horizon", "--prefer", "stream", "--stream", STREAM])?;
        let list = self.folder.json(&["replay", "list"]);
        let id = list["replays"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
        self.must(&["replay", "start", &id])?;
        self.must(&["replay", "promote", &id])?;
        let below = |folder: &str| {
            let prefix = format!("{PREFIX}{folder}");
            self.s3.keys(BUCKET).into_iter().filter(|key| key.starts_with(&prefix)).collect::<Vec<String>>()
        };
        assert!(!below("_trash/").is_empty());
        assert!(below("_trash/").iter().all(|key| self.s3.set_modified_ms(BUCKET, key, 0)));
        self.must(&["sweep", "--older-than", "1h"])?;
        assert_eq!((below("_trash/").len(), below(&format!("_replays/{id}/lake/")).len()), (0, 0));
        Ok(())
    }

    /// Leaves a decided epoch that can only be rolled back.
    fn kill_before_rollback(&self) {
        let worker = abort_between_decide_and_publish(self, Fault::Hang, "/raw/");
        worker.kill();
        self.faults.clear();
    }
}

/// What a worker does in its life, with a role that lacks `gone`, which names an action.
fn work(case: &Case, roles: Roles, gone: Option<&Grant>) -> (Cloud, Vec<Failed>) {
    let cloud = case.cloud(roles);
    cloud.put_damaged_roll_ups();
    // A checkpoint of the schedule that becomes superfluous.
    cloud.put_checkpoint("auto-20200101T000000Z", "schedule");
    let mut failures = Vec::new();
    failures.extend(cloud.must(&["config", "check"]).err());
    let settings = ["dynamodb:Describe", "s3:GetBucket", "s3:GetLifecycle"];
    if gone.is_none_or(|grant| settings.iter().any(|action| grant.action.starts_with(action))) {
        failures.extend(cloud.must(&["doctor", "--watch", "100ms"]).err());
    }
    let action = gone.map(|grant| grant.action.as_str());
    if gone.is_none_or(|grant| !grant.resource.ends_with(PROBE)) {
        failures.extend(cloud.must_catch_up(action).err());
    }
    // A replay is planned with the other role.
    let replays = gone.is_none_or(|grant| grant.resource.contains("_replays"));
    if case.name == "plain" && replays && failures.is_empty() {
        let plan = cloud.folder.json(&["replay", "plan", "--from", "trim-horizon"]);
        let id = plan["id"].as_str().unwrap();
        failures.extend(cloud.must(&["replay", "start", id]).err());
        failures.extend(cloud.must(&["replay", "cancel", id]).err());
    }
    let purges = gone.is_none_or(|grant| grant.resource.contains("_trash"));
    if case.name == "plain" && purges && failures.is_empty() {
        let plan = cloud.folder.json(&["replay", "plan", "--from", "trim-horizon", "--prefer", "stream"]);
        let id = plan["id"].as_str().unwrap();
        for step in ["start", "promote", "undo", "purge"] {
            failures.extend(cloud.must(&["replay", step, id]).err());
        }
    }
    // Only a rollback deletes data.
    let deletes_data =
        gone.is_none_or(|grant| grant.action == "s3:DeleteObject" && !grant.resource.contains(&format!("{PREFIX}_")));
    if case.name == "plain" && deletes_data && failures.is_empty() {
        cloud.kill_before_rollback();
        failures.extend(cloud.must_catch_up(action).err());
    }
    (cloud, failures)
}

/// Every command beside the workers, with a role that lacks `gone`.
fn maintain(case: &Case, roles: Roles, gone: Option<&Grant>) -> (Cloud, Vec<Failed>) {
    // What they find was made by workers that lack nothing.
    let mut all = case.roles();
    all.maintenance = roles.maintenance;
    let cloud = case.cloud(all);
    // What is prepared takes longest, so it is left out where the grant has nothing to do with it.
    let concerns = |texts: &[&str]| {
        gone.is_none_or(|grant| texts.iter().any(|text| grant.action == *text || grant.resource.contains(text)))
    };
    let has_losses = concerns(&["_losses"]);
    if has_losses {
        cloud.cut_a_file();
    }
    cloud.catch_up();
    if concerns(&["s3:AbortMultipartUpload", "s3:ListBucketMultipartUploads", "_intents", "dynamodb:UpdateItem"]) {
        cloud.kill_before_decision();
    }
    let swept = if concerns(&["_log"]) { cloud.must_keep_the_log().err() } else { None };
    cloud.put_damaged_roll_ups();
    let shard = "shardId-000000000000";
    let commands: [&[&str]; 19] = [
        &["doctor", "--skip-permissions", "--watch", "100ms"],
        &["leases", "list", "--watch", "100ms"],
        &["status"],
        &["deadletters", "list"],
        &["deadletters", "show"],
        &["checkpoints", "list"],
        &["checkpoints", "save", "before"],
        &["checkpoints", "show", "before"],
        &["checkpoints", "list"],
        &["checkpoints", "delete", "before"],
        &["schema", "assessments", "--diff"],
        &["leases", "inspect", shard],
        &["losses", "accept", "a.ndjson", "--then", "position"],
        &["losses", "list"],
        &["leases", "evict", shard],
        &["sweep", "--older-than", "1h", "--dry-run"],
        &["sweep", "--older-than", "1h"],
        &["verify", "--quick"],
        &["verify"],
    ];
    // The killed worker is still a holder, and does not answer: its lease is evicted.
    let commands = commands.iter().filter(|command| has_losses || !command.starts_with(&["losses", "accept"]));
    let failed = swept.into_iter().chain(commands.filter_map(|command| cloud.must(command).err()));
    let replays = concerns(&["_replays"]).then_some(&cloud);
    let failed = failed.chain(replays.into_iter().filter_map(|cloud| cloud.must_ask_of_a_replay().err()));
    let failed = failed.chain(replays.into_iter().filter_map(|cloud| cloud.must_remove_what_a_redrive_left().err()));
    let purges = concerns(&["_trash", "_replays", "dynamodb:DeleteItem"]).then_some(&cloud);
    let failed = failed.chain(purges.into_iter().filter_map(|cloud| cloud.must_purge().err()));
    let releases = concerns(&["dynamodb:BatchGetItem"]).then_some(&cloud);
    let failed = failed.chain(releases.into_iter().filter_map(|cloud| cloud.must_release().err()));
    let failures: Vec<Failed> = match gone {
        None => failed.collect(),
        Some(_) => failed.take(1).collect(),
    };
    (cloud, failures)
}

type Scenario = fn(&Case, Roles, Option<&Grant>) -> (Cloud, Vec<Failed>);

/// Runs a scenario with the whole role: nothing fails, nothing is denied, and every grant is used.
fn needs(case: &Case, principal: &str, scenario: Scenario) -> BTreeSet<Asked> {
    let roles = case.roles();
    let (cloud, failures) = scenario(case, roles.clone(), None);
    let denied = cloud.access.denied();
    assert!(denied.is_empty(), "{}: the role {principal} lacks {denied:#?}", case.name);
    assert!(failures.is_empty(), "{}: {failures:#?}", case.name);
    let asked: BTreeSet<Asked> =
        cloud.access.decisions().into_keys().filter(|asked| asked.principal == principal).collect();
    let used: BTreeSet<Grant> = asked.iter().flat_map(|asked| roles.used_by(asked)).collect();
    let unused: Vec<_> = grants_of(case, principal).difference(&used).cloned().collect();
    assert!(unused.is_empty(), "{}: the role {principal} has what nothing needs: {unused:#?}", case.name);
    asked
}

/// Runs a scenario without each grant in turn: something fails, and its message names the action.
fn is_missed(case: &Case, principal: &str, scenario: Scenario, grants: &BTreeSet<Grant>) -> BTreeMap<String, usize> {
    let grants: Vec<&Grant> = grants.iter().collect();
    let (next, steps, faults) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(grant) = grants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut roles = case.roles();
                    let policy: &mut Policy =
                        if principal == WORKER { &mut roles.worker } else { &mut roles.maintenance };
                    *policy = policy.without(grant);
                    let (_, failures) = scenario(case, roles, Some(grant));
                    let named = failures.iter().filter(|failed| failed.said.contains(&grant.action));
                    let named: Vec<&str> = named.map(|failed| failed.step.split(' ').next().unwrap()).collect();
                    if named.is_empty() {
                        faults.lock().unwrap().push(format!("{grant:?}: {failures:#?}"));
                    }
                    for step in named {
                        *steps.lock().unwrap().entry(step.trim_end_matches(',').to_owned()).or_insert(0) += 1;
                    }
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{}: nobody names what is missing:\n{}", case.name, faults.join("\n"));
    steps.into_inner().unwrap()
}

/// The grants of a case that the plain one does not have.
fn grants_of(case: &Case, principal: &str) -> BTreeSet<Grant> {
    let grants = |case: &Case| case.roles().policy(principal).unwrap().grants();
    if case.name == PLAIN.name { grants(case) } else { grants(case).difference(&grants(&PLAIN)).cloned().collect() }
}

#[test]
fn the_roles_allow_all_that_is_sent_and_nothing_else() {
    let mut cases: Vec<(&Case, &'static str, Scenario)> =
        CASES.iter().map(|case| (case, WORKER, work as Scenario)).collect();
    cases.extend([(&PLAIN, MAINTENANCE, maintain as Scenario), (&CASES[5], MAINTENANCE, maintain)]);
    let (next, found) = (AtomicUsize::new(0), Mutex::new((BTreeSet::new(), BTreeSet::new())));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((case, principal, scenario)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let asked = needs(case, principal, *scenario);
                    let (pairs, grants) = &mut *found.lock().unwrap();
                    pairs.extend(asked.into_iter().map(|asked| (asked.principal, asked.action, asked.resource)));
                    grants.extend(grants_of(case, principal).into_iter().map(|grant| (*principal, grant)));
                }
            });
        }
    });
    let (pairs, grants) = found.into_inner().unwrap();
    for role in [WORKER, MAINTENANCE] {
        let sent = pairs.iter().filter(|(principal, ..)| principal == role);
        let actions: BTreeSet<&str> = sent.clone().map(|(_, action, _)| action.as_str()).collect();
        let granted = grants.iter().filter(|(principal, _)| *principal == role).count();
        println!(
            "{role}: {} pairs of action and resource were sent ({} actions), all allowed; {granted} grants, all used",
            sent.count(),
            actions.len()
        );
    }
}

#[test]
fn a_worker_that_lacks_any_grant_fails_and_names_the_action() {
    let (mut count, mut steps) = (0, BTreeMap::new());
    for case in &CASES {
        let grants = grants_of(case, WORKER);
        count += grants.len();
        for (step, times) in is_missed(case, WORKER, work, &grants) {
            *steps.entry(step).or_insert(0) += times;
        }
    }
    println!("worker: {count} grants taken away in turn; the action was named by {steps:?}");
    assert!(count > 25, "{count}");
}

#[test]
fn a_maintainer_that_lacks_any_grant_fails_and_names_the_action() {
    let (mut count, mut steps) = (0, BTreeMap::new());
    for case in [&PLAIN, &CASES[5]] {
        let grants = grants_of(case, MAINTENANCE);
        count += grants.len();
        for (step, times) in is_missed(case, MAINTENANCE, maintain, &grants) {
            *steps.entry(step).or_insert(0) += times;
        }
    }
    println!("maintenance: {count} grants taken away in turn; the action was named by {steps:?}");
    assert!(count > 10, "{count}");
}

#[test]
fn the_worker_role_has_the_actions_of_the_list_of_permissions() {
    let granted: BTreeSet<String> = CASES
        .iter()
        .flat_map(|case| case.roles().worker.grants())
        .map(|grant| grant.action)
        // Services encrypt in the worker's name; no request of its own needs them.
        .filter(|action| !action.starts_with("kms:"))
        .collect();
    let listed: BTreeSet<String> =
        permissions::all().into_iter().map(|permission| permission.action.to_owned()).collect();
    assert_eq!(granted, listed);
}

#[test]
fn a_role_may_not_do_what_its_commands_never_do() {
    let roles = PLAIN.roles();
    let cloud = PLAIN.cloud(roles.clone());
    cloud.kinesis.put_records(STREAM, vec![Put::new("k".to_owned(), b"{}".to_vec())]).unwrap();
    let allowed = |principal: &str, action: &str, resource: &str| {
        let context = [("aws:principalaccount".to_owned(), "000000000000".to_owned())].into();
        let (principal, action, resource) = (principal.to_owned(), action.to_owned(), resource.to_owned());
        roles.allow(&Asked { principal, action, resource, context })
    };
    let object = |key: &str| format!("arn:aws:s3:::{BUCKET}/{PREFIX}{key}");
    for (principal, action, resource) in [
        (WORKER, "s3:DeleteObject", object("_commits/x.json")),
        (WORKER, "s3:DeleteObject", object("_lake.json")),
        (WORKER, "s3:GetObject", format!("arn:aws:s3:::{BUCKET}/another/x")),
        (WORKER, "s3:PutObject", "arn:aws:s3:::another-bucket/main/x".to_owned()),
        (WORKER, "kinesis:PutRecords", format!("arn:aws:kinesis:us-east-1:000000000000:stream/{STREAM}")),
        (
            WORKER,
            "kinesis:SubscribeToShard",
            format!("arn:aws:kinesis:us-east-1:000000000000:stream/{STREAM}/consumer/other:1"),
        ),
        (WORKER, "dynamodb:DeleteTable", "arn:aws:dynamodb:us-east-1:000000000000:table/leases".to_owned()),
        (MAINTENANCE, "s3:PutObject", object("processed/x.parquet")),
        (MAINTENANCE, "s3:DeleteObject", object("raw/x.json.gz")),
        (MAINTENANCE, "kinesis:GetRecords", "arn:aws:kinesis:us-east-1:000000000000:stream/another".to_owned()),
    ] {
        assert!(!allowed(principal, action, &resource), "{principal} may do {action} on {resource}");
    }
    assert!(allowed(WORKER, "s3:DeleteObject", &object("_intents/x.json")));
}
