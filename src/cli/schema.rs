//! `schema`: prints the schema of a dataset as a catalog wants it, or how the definition differs from the lake's files; writes the
//! tables of all datasets into a CloudFormation template.
//!
//! Owns: printing, and replacing the template. No form needs leases, and only the differences read the lake. Does not own: the schemas and the
//! comparison (the pipeline crate), what a lake remembers of definitions (`lake::definitions`).

use std::io::Write;
use std::path::Path;
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
    let format = match args.format {
        SchemaFormatArg::Athena => SchemaFormat::Athena,
        SchemaFormatArg::Glue => SchemaFormat::Glue,
        SchemaFormatArg::JsonSchema => SchemaFormat::JsonSchema,
        SchemaFormatArg::Arrow => SchemaFormat::Arrow,
        SchemaFormatArg::Cloudformation => {
            if args.dataset.is_some() {
                let problem = "--format cloudformation has all datasets: leave out the name of one";
                return Err(Usage(problem.to_owned()).into());
            }
            return tables(&config, args.into.as_deref(), args.check);
        }
    };
    if args.into.is_some() {
        return Err(Usage("--into is for --format cloudformation".to_owned()).into());
    }
    let known: Vec<&str> = config.datasets.names().collect();
    let known = known.join(", ");
    let Some(name) = &args.dataset else {
        return Err(Usage(format!("which dataset? known: {known}")).into());
    };
    let Some(dataset) = config.datasets.find(name) else {
        return Err(Usage(format!("there is no dataset '{name}'; known: {known}")).into());
    };
    if args.diff {
        return diff(&config, dataset, name, json).await;
    }
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

/// Prints the tables as resources of a template, or writes them into one. `check` compares only.
fn tables(config: &Config, into: Option<&Path>, check: bool) -> anyhow::Result<ExitCode> {
    let Some(path) = into else {
        print!("{}", config.datasets.cloudformation());
        return Ok(ExitCode::SUCCESS);
    };
    let file = path.display();
    let template = std::fs::read_to_string(path).map_err(|error| Usage(format!("failed to read {file}: {error}")))?;
    let Some(replaced) = config.datasets.insert_into_template(&template) else {
        let problem = "does not have the two comments around a generated part, as deploy/analytics.yaml has them";
        return Err(Usage(format!("{file} {problem}")).into());
    };
    let stale = replaced != template;
    if check {
        println!("{file}: {}", if stale { "stale; write it again without --check" } else { "up to date" });
        return Ok(ExitCode::from(u8::from(stale)));
    }
    if stale {
        replace_file(path, replaced.as_bytes()).map_err(|error| anyhow::anyhow!("failed to write {file}: {error}"))?;
    }
    println!("{file}: {}", if stale { "written" } else { "up to date" });
    Ok(ExitCode::SUCCESS)
}

/// Replaces a file at once, so that a failure leaves it as it was.
fn replace_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(std::fs::metadata(path)?.permissions())?;
    file.persist(path)?;
    Ok(())
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
