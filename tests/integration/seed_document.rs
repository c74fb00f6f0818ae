//! `docs/seed.md` has a row for each part of the architecture, and names only what exists.
//!
//! Owns: the list of the parts, since the document itself is not in the repository, and checking the rows. Does not own: whether a part
//! works, which the test or command that its row names shows.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::folder::Folder;

/// Every snippet, every item of the checklist, and every line of the cost and review lists, in the document's order.
const PARTS: [&str; 64] = [
    "Bucket Organization",
    "Partitioning: date-based",
    "Partitioning: assessment type",
    "Partitioning: rationale",
    "Lifecycle Policies",
    "Data formats: raw JSON",
    "Data formats: processed Parquet",
    "Data formats: analytics CSV",
    "Phase 1: Direct Upload",
    "Phase 2: Add Processing",
    "Phase 3: Streaming with Kinesis Firehose",
    "Intelligent Tiering Setup",
    "Compression: JSON",
    "Compression: Parquet",
    "Compression: CSV",
    "Archive Policies",
    "S3 Select Optimization",
    "Pinpoint Event Export",
    "QuickSight Direct S3 Queries",
    "Athena Configuration",
    "Glue Catalog Setup",
    "S3 Encryption Configuration",
    "IAM Roles and Policies",
    "VPC Endpoint Configuration",
    "CloudTrail Logging",
    "Phase 1 cost: Storage",
    "Phase 1 cost: Requests",
    "Phase 1 cost: Lambda",
    "Phase 1 cost: Total",
    "Phase 2 cost: Storage",
    "Phase 2 cost: Lambda Processing",
    "Phase 2 cost: S3 Lifecycle",
    "Phase 2 cost: Total",
    "Phase 3 cost: Firehose",
    "Phase 3 cost: Storage",
    "Phase 3 cost: Processing",
    "Phase 3 cost: Total",
    "Phase 4 cost: Athena",
    "Phase 4 cost: Glue",
    "Phase 4 cost: QuickSight",
    "Phase 4 cost: Storage",
    "Phase 4 cost: Total",
    "Week 1: Create S3 bucket with versioning",
    "Week 1: Set up folder structure",
    "Week 1: Configure encryption and access policies",
    "Week 1: Deploy basic upload Lambda",
    "Week 2: Create ETL Lambda functions",
    "Week 2: Set up S3 event triggers",
    "Week 2: Implement Parquet conversion",
    "Week 2: Configure lifecycle policies",
    "Week 3: Connect QuickSight to S3",
    "Week 3: Set up Athena tables",
    "Week 3: Configure Pinpoint export",
    "Week 3: Create CloudWatch dashboards",
    "Week 4: Implement S3 Select queries",
    "Week 4: Set up cost alerts",
    "Week 4: Configure intelligent tiering",
    "Week 4: Document query patterns",
    "CloudWatch Alarms",
    "Review: S3 storage by tier",
    "Review: Request counts by type",
    "Review: Data transfer costs",
    "Review: Lambda execution costs",
    "Review: Lifecycle transition savings",
];

const STATES: [&str; 4] = ["built", "built, needs an account", "replaced", "not yet"];
/// Folders whose files the table names.
const FOLDERS: [&str; 7] = ["src/", "pipeline/", "docs/", "tests/", "deploy/", "scripts/", "checkpoints/"];

struct Row {
    part: String,
    state: String,
    r#where: String,
    check: String,
    reason: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rows below the sections' headings.
fn rows() -> Vec<Row> {
    let text = read("docs/seed.md");
    let sections = &text[text.find("\n## ").unwrap()..];
    let lines = sections
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| part |") && !line.starts_with("| ---"));
    lines
        .map(|line| {
            let cells: Vec<String> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
            let [part, state, r#where, check, reason] =
                <[String; 5]>::try_from(cells).unwrap_or_else(|cells| panic!("{} cells: {line}", cells.len()));
            Row { part, state, r#where, check, reason }
        })
        .collect()
}

/// What is in backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// A file, or a resource of a template: `deploy/lake.yaml#Bucket`.
fn assert_exists(path: &str, row: &str) {
    let (file, resource) = path.split_once('#').map_or((path, None), |(file, resource)| (file, Some(resource)));
    assert!(root().join(file).exists(), "{row}: there is no {file}");
    if let Some(resource) = resource {
        let text = read(file);
        let resources = text.split_once("\nResources:").map(|(_, rest)| rest).unwrap_or_default();
        let head = format!("  {resource}:");
        assert!(resources.lines().any(|line| line == head), "{row}: {file} has no resource {resource}");
    }
}

/// A command that the table names: one of `shardlake`, a part of the test script, or a suite.
fn assert_is_command(folder: &Folder, command: &str, row: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    match words[..] {
        ["shardlake", ref args @ ..] => {
            // Its flags are known; it is not run here.
            let subcommands: Vec<&str> = args.iter().copied().take_while(|word| !word.starts_with("--")).collect();
            let command = subcommands.iter().copied().take(if subcommands[0] == "config" { 2 } else { 1 });
            let help = folder.ok(&command.chain(["--help"]).collect::<Vec<_>>());
            for flag in args.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(flag), "{row}: shardlake {} has no {flag}", subcommands.join(" "));
            }
        }
        ["scripts/test", part] => {
            let script = read("scripts/test");
            assert!(script.contains(&format!("\n{part}() {{")), "{row}: scripts/test has no part {part}");
        }
        ["python", "-m", suite] => assert_exists(&format!("tests/{}.py", suite.replace('.', "/")), row),
        _ => panic!("{row}: not a command that can be checked: {command}"),
    }
}

#[test]
fn every_part_of_the_architecture_has_a_row_in_its_order() {
    let found: Vec<String> = rows().into_iter().map(|row| row.part).collect();
    assert_eq!(found, PARTS);
    assert_eq!(PARTS.iter().collect::<BTreeSet<_>>().len(), PARTS.len(), "two parts have one name");
}

#[test]
fn every_row_names_files_and_commands_that_exist() {
    let folder = Folder::new();
    for Row { part, state, r#where, check, reason } in rows() {
        assert!(STATES.contains(&state.as_str()), "{part}: {state}");
        assert!(spans(&r#where).count() >= 1 && spans(&check).count() == 1, "{part} names no file or no command");
        for path in spans(&r#where) {
            assert_exists(path, &part);
        }
        for path in spans(&reason).filter(|span| FOLDERS.iter().any(|folder| span.starts_with(folder))) {
            assert_exists(path, &part);
        }
        assert_is_command(&folder, spans(&check).next().unwrap(), &part);
        assert!(state == "built" || state == "built, needs an account" || reason.len() > 20, "{part}: why?");
    }
}

#[test]
fn the_documents_are_named_where_people_start() {
    let readme = read("README.md");
    for page in ["docs/seed.md", "docs/cost.md", "docs/compare.md"] {
        assert!(readme.contains(page) && Path::new(&root()).join(page).exists(), "README.md does not name {page}");
    }
}
