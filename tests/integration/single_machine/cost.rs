//! `cost` and `manifest` on one machine, where no service is asked.

use std::fs;

use serde_json::Value;

use crate::common::folder::Folder;
use crate::single_machine::{CATCH_UP, assessment};

/// A record of 1,000 bytes a second.
const SMALL: [&str; 7] = ["cost", "--records-per-day", "86400", "--bytes", "1000", "--shards", "1"];

fn design<'v>(report: &'v Value, name: &str) -> &'v Value {
    report["designs"].as_array().unwrap().iter().find(|design| design["design"] == name).unwrap()
}

fn line<'v>(design: &'v Value, item: &str) -> &'v Value {
    design["lines"].as_array().unwrap().iter().find(|line| line["item"] == item).unwrap()
}

fn close(found: &Value, expected: f64) {
    let found = found.as_f64().unwrap();
    assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
}

#[test]
fn every_line_of_an_estimate_has_units_a_price_with_its_source_and_a_reason() {
    let folder = Folder::new();
    let report = folder.json(&SMALL);
    close(&line(design(&report, "shardlake"), "kinesis.shard-hours")["usd"], 10.95);
    close(&line(design(&report, "lambdas"), "s3.puts")["usd"], 26.28);
    for design in report["designs"].as_array().unwrap() {
        let lines = design["lines"].as_array().unwrap();
        let sum: f64 = lines.iter().filter_map(|line| line["usd"].as_f64()).sum();
        close(&design["totalUsd"], sum);
        for line in lines {
            let charged = line["units"].as_f64().unwrap() - line["freeUnits"].as_f64().unwrap();
            match line["priceUsd"].as_f64() {
                Some(usd) => close(&line["usd"], charged * usd / line["per"].as_f64().unwrap()),
                None => assert!(line["usd"].is_null() && line["checked"] == "unknown", "{line}"),
            }
            for key in ["why", "unit", "region", "day", "page"] {
                assert!(!line[key].as_str().unwrap().is_empty(), "{key}: {line}");
            }
        }
    }
    assert_eq!(
        design(&report, "channel")["unknown"],
        serde_json::json!(["kinesis.channel-hours", "kinesis.channel-data"])
    );
    let text = folder.ok(&SMALL);
    for part in
        ["730 shard-hours × $0.015", "10.95", "1 × 730 hours", "Shardlake", "Firehose", "Lambdas", "Channel", " + ?"]
    {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn flags_change_the_workload() {
    let folder = Folder::new();
    let with = |flags: &[&str]| folder.json(&[&SMALL[..], flags].concat());
    let total = |report: &Value| design(report, "shardlake")["totalUsd"].as_f64().unwrap();
    let base = total(&with(&[]));
    let on_demand = with(&["--on-demand"]);
    close(&line(design(&on_demand, "shardlake"), "kinesis.stream-hours")["usd"], 29.2);
    assert!(total(&with(&["--workers", "2"])) > base);
    assert!(total(&with(&["--commit-interval", "30s"])) > base);
    close(&line(design(&with(&["--nat"]), "shardlake"), "vpc.nat-hours")["usd"], 32.85);
    close(&line(design(&with(&["--fan-out"]), "shardlake"), "kinesis.fan-out-hours")["usd"], 10.95);
    close(&line(design(&with(&["--ec2"]), "shardlake"), "ec2.instance-hours")["usd"], 12.264);
    let analytics = with(&["--athena-tb", "2", "--quicksight-authors", "1"]);
    assert!(analytics["analytics"]["totalUsd"].as_f64().unwrap() > 33.9, "{}", analytics["analytics"]);
    // A size may have a unit.
    let sized =
        folder.json(&["cost", "--records-per-day", "86400", "--bytes", "1KB", "--provisioned", "--shards", "1"]);
    close(&Value::from(total(&sized)), base);
    let charged = with(&["--no-free-tier"]);
    close(&line(design(&charged, "lambdas"), "lambda.requests")["usd"], 1.0512);
}

#[test]
fn each_phase_has_its_estimate_and_flags_go_over_it() {
    let folder = Folder::new();
    let all = folder.json(&["cost", "--phase", "all"]);
    let phases = all["phases"].as_array().unwrap();
    assert_eq!(phases.iter().map(|month| month["phase"]["number"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for (number, month) in ["1", "2", "3", "4"].into_iter().zip(phases) {
        assert_eq!(folder.json(&["cost", "--phase", number]), *month, "phase {number}");
    }
    let changed = folder.json(&["cost", "--phase", "3", "--bytes", "50KB"]);
    assert_eq!(changed["workload"]["record_bytes"], 50_000);
    assert_eq!(changed["workload"]["records_per_day"], phases[2]["workload"]["records_per_day"]);
    let text = folder.ok(&["cost", "--phase", "all"]);
    assert!(text.contains("4 full analytics") && text.contains("500-2000"), "{text}");
}

#[test]
fn a_users_prices_replace_those_that_are_built_in() {
    let folder = Folder::new();
    let row = |id: &str, usd: &str, unit: &str| {
        format!(
            "[[price]]\nid = \"{id}\"\nusd = {usd}\nunit = \"{unit}\"\nregion = \"eu-central-1\"\nday = \"2027-01-02\"\n\
             page = \"the bill\"\nchecked = \"page\"\n"
        )
    };
    let rows = [row("kinesis.shard-hours", "0.018", "shard-hour"), row("kinesis.channel-data", "0.05", "GB")].concat();
    folder.write("own.toml", &rows);
    let report = folder.json(&[&SMALL[..], &["--prices", "own.toml"]].concat());
    close(&line(design(&report, "shardlake"), "kinesis.shard-hours")["usd"], 13.14);
    assert_eq!(design(&report, "channel")["unknown"], serde_json::json!(["kinesis.channel-hours"]));
    let text = folder.ok(&[&SMALL[..], &["--prices", "own.toml"]].concat());
    assert!(text.contains("eu-central-1 and us-east-1"), "{text}");

    // The table that is printed is one that can be read.
    folder.write("all.toml", folder.ok(&["cost", "--print-prices"]));
    assert_eq!(folder.json(&[&SMALL[..], &["--prices", "all.toml"]].concat()), folder.json(&SMALL));

    folder.write(
        "bad.toml",
        rows.replace("shard-hour\"", "hour\"").replace("kinesis.channel-data", "kinesis.channel-date"),
    );
    let message = folder.exits(2, &[&SMALL[..], &["--prices", "bad.toml"]].concat());
    for part in ["bad.toml:", "did you mean 'kinesis.channel-data'?"] {
        assert!(message.contains(part), "{part} is missing in {message}");
    }
    assert!(folder.exits(2, &[&SMALL[..], &["--prices", "none.toml"]].concat()).contains("could not read none.toml"));
}

#[test]
fn wrong_figures_are_reported_before_anything_else() {
    let folder = Folder::new();
    for (args, expected) in [
        (&["cost"][..], "needs --records-per-day and --bytes, or --phase"),
        (&["cost", "--records-per-day", "10"], "needs --records-per-day and --bytes, or --phase"),
        (&["cost", "--records-per-day", "0", "--bytes", "10"], "--records-per-day must be 1 to 10^12"),
        (&["cost", "--records-per-day", "-1", "--bytes", "10"], "unexpected argument"),
        (&["cost", "--records-per-day", "10", "--bytes", "11MiB"], "--bytes must be 1 to 10485760"),
        (&["cost", "--records-per-day", "10", "--bytes", "big"], "--bytes: invalid size 'big'"),
        (&["cost", "--records-per-day", "10", "--bytes", "10", "--shards", "0"], "--shards must be 1 to 20000"),
        (&["cost", "--records-per-day", "864000000", "--bytes", "10", "--shards", "2"], "the mean alone needs 10"),
        (&["cost", "--phase", "5"], "invalid value '5'"),
        (&["cost", "--phase", "1", "--commit-interval", "soon"], "--commit-interval: invalid time 'soon'"),
        (&["cost", "--phase", "1", "--provisioned", "--on-demand"], "cannot be used with"),
        (&["cost", "--phase", "1", "--monthly-review"], "cannot be used with"),
        (&["cost", "--phase", "1", "--inventory", "x.csv"], "are for --monthly-review"),
        (&["cost", "--phase", "1", "--vcpu", "NaN"], "--vcpu must be 0.25 to 16"),
    ] {
        let message = folder.exits(2, args);
        assert!(message.contains(expected), "{args:?}: {message}");
    }
}

#[test]
fn a_review_of_an_inventory_asks_no_service() {
    let folder = Folder::new();
    let lines = "\"b\",\"raw/events/a.json.gz\",\"1073741824\",\"STANDARD_IA\"\n\
                 \"b\",\"processed/events/a.parquet\",\"2147483648\",\"STANDARD\"\n\
                 \"b\",\"archive/old.parquet\",\"1073741824\",\"GLACIER_IR\"\n";
    folder.write("inventory.csv", lines);
    let args = [
        "cost",
        "--monthly-review",
        "--inventory",
        "inventory.csv",
        "--inventory-schema",
        "Bucket, Key, Size, StorageClass",
    ];
    let report = folder.json(&args);
    // 0.0125 + 0.046 + 0.004; all in STANDARD would be 0.092.
    close(&report["total"]["usd"], 0.0625);
    close(&report["total"]["savedUsd"], 0.092 - 0.0625);
    assert_eq!((&report["requests"], report["storage"].as_array().unwrap().len()), (&Value::Null, 3));
    let text = folder.ok(&args);
    for part in ["STANDARD_IA", "GLACIER_IR", "archive/", "Not known from here", "data transfer", "Cost Explorer"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    // A lake below a prefix: the configuration has it, and still nothing is asked.
    folder.write("shardlake.toml", "[lake]\nurl = \"s3://the-lake/prod\"\n");
    let with_prefix = lines.replace("\"raw/", "\"prod/raw/").replace("\"processed/", "\"prod/processed/");
    folder.write("inventory.csv", with_prefix);
    let report = folder.json(&args);
    let areas: Vec<&str> =
        report["storage"].as_array().unwrap().iter().map(|row| row["area"].as_str().unwrap()).collect();
    assert_eq!(areas, ["raw", "processed", "other"], "an object beside the lake is not in one of its areas");
    let message = folder.exits(2, &["cost", "--monthly-review", "--inventory", "inventory.csv"]);
    assert!(message.contains("inventory.csv:1: a report of S3 Inventory has no names of columns"), "{message}");
    assert!(
        folder.exits(1, &["cost", "--monthly-review", "--inventory", "none.csv"]).contains("could not read none.csv")
    );
}

#[test]
fn a_review_of_a_local_lake_counts_what_its_commit_records_say() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", (0..50).map(assessment).collect::<String>());
    folder.ok(&CATCH_UP);
    let report = folder.json(&["cost", "--monthly-review", "--lake", "lake"]);
    let sent = &report["requests"]["sent"];
    let count = |name: &str| sent[name].as_u64().unwrap();
    let objects =
        folder.files("lake/processed").len() + folder.files("lake/raw").len() + folder.files("lake/error").len();
    assert_eq!(count("createMultipartUpload"), u64::try_from(objects).unwrap());
    assert_eq!((count("epochs"), count("putObject"), count("deleteObject")), (1, 3, 1));
    assert_eq!(report["requests"]["puts"].as_u64().unwrap(), 3 * count("createMultipartUpload") + 3);
    // The leases are a file of the lake's folder; what is in it is not counted as data.
    let bytes: u64 = folder.files("lake/processed").iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    let row = |area: &str| {
        let rows = report["storage"].as_array().unwrap();
        rows.iter().find(|row| row["area"] == area).unwrap_or_else(|| panic!("no {area} in {report}")).clone()
    };
    assert_eq!(row("processed")["bytes"].as_u64().unwrap(), bytes);
    assert_eq!(row("raw")["class"], "STANDARD");
    assert!(folder.exits(2, &["cost", "--monthly-review", "--lake", "no-lake"]).contains("no-lake"));
}

#[test]
fn a_manifest_needs_a_lake_on_s3_and_files_that_quicksight_reads() {
    let folder = Folder::new();
    folder.write("in/a.ndjson", assessment(0));
    folder.ok(&CATCH_UP);
    for (args, expected) in [
        (&["--area", "raw", "--lake", "lake"][..], "QuickSight reaches s3:// only"),
        (&["--area", "processed", "--lake", "s3://b"], "processed/ is Parquet, which QuickSight does not read from S3"),
        (&["--area", "error", "--dataset", "events", "--lake", "s3://b"], "--dataset is for --area raw"),
        (&["--area", "raw", "--from", "yesterday", "--lake", "s3://b"], "--from must be a day such as 2026-11-30"),
        (&["--area", "raw", "--from", "2026-02-02", "--to", "2026-02-01", "--lake", "s3://b"], "--from is after --to"),
        (&["--from", "2026-02-02", "--lake", "s3://b"], "--from and --to are for --area raw and error"),
    ] {
        let message = folder.exits(2, &[&["manifest"], args].concat());
        assert!(message.contains(expected), "{args:?}: {message}");
    }
}
