//! `schema`: prints the schema of a dataset as a catalog wants it, or how the definition differs from the lake's files.
//!
//! Owns: printing. Neither form needs leases, and only the differences read the lake. Does not own: the schemas and the
//! comparison (the pipeline crate), what a lake remembers of definitions (`lake::definitions`).

use std::process::ExitCode;

use pipeline::dataset::{Change, SchemaFormat, Verdict};
use serde_json::{Value, json};

use crate::cli::args::{SchemaArgs, SchemaFormatArg};
use crate::cli::output::{Table, counted};
use crate::cli::{Usage, load};
use crate::config::{Config, Overrides};
use crate::lake::{Retrying, read_history};
use crate::retry::RetryPolicy;
use crate::setup::{OpenError, load_aws, open_existing_lake};

pub(crate) async fn schema(args: &SchemaArgs, json: bool) -> anyhow::Result<ExitCode> {
    let config = load(&Overrides { without_leases: true, ..args.lake.overrides() })?;
    let Some(dataset) = config.datasets.find(&args.dataset) else {
        let known: Vec<&str> = config.datasets.names().collect();
        return Err(Usage(format!("there is no dataset '{}'; known: {}", args.dataset, known.join(", "))).into());
    };
    if args.diff {
        return diff(&config, dataset, &args.dataset, json).await;
    }
    let format = match args.format {
        SchemaFormatArg::Athena => SchemaFormat::Athena,
        SchemaFormatArg::Glue => SchemaFormat::Glue,
        SchemaFormatArg::JsonSchema => SchemaFormat::JsonSchema,
        SchemaFormatArg::Arrow => SchemaFormat::Arrow,
    };
    // A catalog needs a location that it can reach.
    let lake = config.lake.backend().catalog_url();
    if format == SchemaFormat::Glue && !lake.starts_with("s3://") {
        eprintln!(
            "shardlake: Glue's readers reach s3:// locations only; name the lake on S3 with --lake s3://BUCKET/PREFIX"
        );
    }
    print!("{}", config.datasets.schema(dataset, format, &lake));
    Ok(ExitCode::SUCCESS)
}

/// Prints the differences between the definition and what the lake's files were written with.
async fn diff(config: &Config, dataset: usize, name: &str, json: bool) -> anyhow::Result<ExitCode> {
    let aws = load_aws(config).await?;
    let lake = Retrying::new(open_existing_lake(config, aws.as_ref()).await?, RetryPolicy::CALL);
    let history = read_history(&lake, name).await.map_err(OpenError::from)?;
    let changes = config.datasets.changes(dataset, &history);
    let unchanged = config.datasets.unchanged(dataset, &history);
    let verdict = changes.iter().map(|change| change.kind.verdict()).max().unwrap_or(Verdict::Passes);
    if json {
        let changes: Vec<Value> = changes.iter().map(as_json).collect();
        println!(
            "{}",
            json!({
                "dataset": name, "lake": config.lake.to_string(), "has_files": !history.is_empty(), "verdict": verdict.name(),
                "changes": changes, "unchanged": unchanged,
            })
        );
    } else if history.is_empty() {
        println!("the lake {} has no rows of {name}: it accepts every definition", config.lake);
    } else {
        let mut table = Table::new(&["column", "what", "in the lake", "in the definition", "verdict", ""]);
        for change in &changes {
            let Change { subject, kind, before, now } = change;
            let now = now.clone().unwrap_or_else(|| "-".to_owned());
            let before = if before.is_empty() { "-".to_owned() } else { before.join("; ") };
            let verdict = kind.verdict().name().to_owned();
            table.row([subject.clone(), kind.name().to_owned(), before, now, verdict, kind.advice().to_owned()]);
        }
        if !table.is_empty() {
            println!("{}", table.render(""));
        }
        println!("{} unchanged; the definition {}", counted(unchanged.len() as u64, "column"), in_words(verdict));
    }
    Ok(ExitCode::from(if verdict == Verdict::Passes { 0 } else { 1 }))
}

fn as_json(change: &Change) -> Value {
    let Change { subject, kind, before, now } = change;
    json!({
        "subject": subject, "change": kind.name(), "lake": before, "definition": now, "verdict": kind.verdict().name(),
        "advice": kind.advice(),
    })
}

fn in_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passes => "fits the lake's files",
        Verdict::NeedsConsent => "is refused unless run has --accept-changes",
        Verdict::Refused => "is refused",
    }
}
