//! `cost --monthly-review` and `manifest` on S3, after a worker: the requests that it sent, and the classes that S3 lists.

use serde_json::{Value, json};

use crate::aws::cloud::{BUCKET, Cloud, Options, PREFIX};

/// A lake whose data objects are in `STANDARD_IA`, and the summary of the worker that filled it.
fn filled() -> (Cloud, Value) {
    let cloud = Cloud::new(2, &Options::default());
    let file = cloud.folder.path("shardlake.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    cloud
        .folder
        .write("shardlake.toml", text.replace("[checkpoints]", "storage_class = \"STANDARD_IA\"\n[checkpoints]"));
    cloud.put(200);
    let summary = cloud.catch_up();
    (cloud, summary)
}

#[test]
fn the_review_counts_the_requests_that_the_worker_sent() {
    let (cloud, summary) = filled();
    let report = cloud.folder.json(&["cost", "--monthly-review"]);
    let sent = &report["requests"]["sent"];
    let counted = |name: &str| summary["requests"][format!("S3.{name}")].as_u64().unwrap_or(0);
    for (name, operation) in [
        ("createMultipartUpload", "CreateMultipartUpload"),
        ("uploadPart", "UploadPart"),
        ("completeMultipartUpload", "CompleteMultipartUpload"),
        ("deleteObject", "DeleteObject"),
    ] {
        assert_eq!(sent[name].as_u64().unwrap(), counted(operation), "{operation}: {summary}");
    }
    // Beside intents, commit records and entries of the lake log, a new lake gets its identity, its schemas and where its streams start.
    let epochs = sent["epochs"].as_u64().unwrap();
    assert_eq!(sent["putObject"].as_u64().unwrap(), 3 * epochs);
    assert!(epochs >= 1 && counted("PutObject") > 3 * epochs, "{summary}");
    // One decision for each epoch: a transaction over its shards.
    assert_eq!(summary["requests"]["DynamoDB.TransactWriteItems"].as_u64(), Some(epochs), "{summary}");
    assert_eq!(report["requests"]["incompleteUploads"], 0);
}

#[test]
fn the_review_shows_storage_by_the_class_that_s3_lists() {
    let (cloud, _) = filled();
    let report = cloud.folder.json(&["cost", "--monthly-review"]);
    let rows = report["storage"].as_array().unwrap();
    let classes: Vec<(&str, &str)> =
        rows.iter().map(|row| (row["area"].as_str().unwrap(), row["class"].as_str().unwrap())).collect();
    let expected =
        [("raw", "STANDARD_IA"), ("processed", "STANDARD_IA"), ("error", "STANDARD_IA"), ("log", "STANDARD")];
    assert_eq!(classes, expected);
    // Small objects count as 128 KB in STANDARD_IA: they cost more there.
    assert!(report["total"]["savedUsd"].as_f64().unwrap() < 0.0, "{report}");
    let objects: u64 = rows[..3].iter().map(|row| row["objects"].as_u64().unwrap()).sum();
    assert_eq!(report["total"]["objectsRoundedUp"].as_u64(), Some(objects));
    let text = cloud.folder.ok(&["cost", "--monthly-review"]);
    for part in
        ["raw/", "STANDARD_IA", "charged as if they were larger", "CompleteMultipartUpload", "noncurrent versions"]
    {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn a_manifest_has_the_files_that_quicksight_can_read() {
    let (cloud, _) = filled();
    let lake = format!("s3://{BUCKET}/{PREFIX}");
    let area = |area: &str| cloud.folder.json(&["manifest", "--area", area]);
    for name in ["raw", "error"] {
        let report = area(name);
        let expected = json!({
            "fileLocations": [{ "URIPrefixes": [format!("{lake}{name}/")] }],
            "globalUploadSettings": { "format": "JSON" },
        });
        assert_eq!(report["manifest"], expected);
        assert!(report["files"].as_u64().unwrap() >= 1);
        assert!(report["warnings"][0].as_str().unwrap().contains("personal data"), "{report}");
    }
    // Without --json, the manifest alone is on standard output.
    let printed: Value = serde_json::from_str(&cloud.folder.ok(&["manifest", "--area", "raw"])).unwrap();
    assert_eq!(printed, area("raw")["manifest"]);
    let of_days = cloud.folder.json(&["manifest", "--area", "raw", "--from", "2000-01-01"]);
    let uris = of_days["manifest"]["fileLocations"][0]["URIs"].as_array().unwrap().len();
    assert_eq!(Some(uris as u64), area("raw")["files"].as_u64());
    let none = cloud.folder.exits(1, &["manifest", "--area", "raw", "--to", "2000-01-01"]);
    assert!(none.contains("no files below raw/ of these days"), "{none}");
    assert!(cloud.folder.exits(1, &["manifest"]).contains("no files below processed/analytics/"));
}
