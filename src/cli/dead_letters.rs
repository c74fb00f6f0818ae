//! `deadletters list` and `deadletters show`: how many records were set aside and why, and some of them.

use std::process::ExitCode;

use pipeline::dead_letter::code::Code;
use pipeline::dead_letter::stored::DeadLetterFilter;
use pipeline::time::parse_rfc3339_or_date;
use serde_json::json;

use crate::cli::args::LakeArgs;
use crate::cli::dead_letter_args::{DeadLettersArgs, DeadLettersCommand, FilterArgs};
use crate::cli::output::{Table, show_bytes, show_count, show_version};
use crate::cli::redrive::{discard, redrive, redrive_from};
use crate::cli::show_args::AtArgs;
use crate::cli::{Usage, load, of_history, version_or_time};
use crate::commit::lake_log::{extent, lake_at, resolve};
use crate::commit::log;
use crate::inspect::{AtVersion, DeadLetterGroup, dead_letter_groups, show_dead_letters};
use crate::setup::open_existing;

pub(crate) async fn dead_letters(args: DeadLettersArgs, json: bool) -> anyhow::Result<ExitCode> {
    match args.command {
        DeadLettersCommand::List { lake, code, at } => list(&lake, code.as_deref(), &at, json).await,
        DeadLettersCommand::Show { lake, filter, limit, raw } => {
            let filter = filter_of(&filter)?;
            let stores = open_existing(&load(&lake.overrides())?).await?;
            for letter in show_dead_letters(&*stores.lake, &filter, limit, raw).await? {
                println!("{}", letter.0);
            }
            Ok(ExitCode::SUCCESS)
        }
        DeadLettersCommand::Redrive { lake, from: Some(from), fail_on, .. } => {
            redrive_from(lake, &from, fail_on, json).await
        }
        DeadLettersCommand::Redrive { lake, filter, from: None, dry_run, fail_on } => {
            redrive(&lake, filter_of(&filter)?, dry_run, &fail_on, json).await
        }
        DeadLettersCommand::Discard { lake, filter, all, dry_run } => {
            let filter = filter_of(&filter)?;
            if all != (filter == DeadLetterFilter::default()) {
                let problem = "name what to discard: either --all, or one or more of --code, --since, --until, --dataset and --stream";
                return Err(Usage(problem.to_owned()).into());
            }
            discard(&lake, filter, dry_run, json).await
        }
    }
}

/// What the flags want.
fn filter_of(args: &FilterArgs) -> anyhow::Result<DeadLetterFilter> {
    let FilterArgs { code, since, until, dataset, stream } = args;
    let codes = code.iter().map(|code| code_of(code)).collect::<anyhow::Result<Vec<Code>>>()?;
    let time = |flag: &str, text: &Option<String>| -> anyhow::Result<Option<i64>> {
        let Some(text) = text else { return Ok(None) };
        let ms = parse_rfc3339_or_date(text);
        let invalid = || {
            Usage(format!("{flag}: '{text}' is not a valid time: expected 2025-01-13T10:30:00Z or 2025-01-13")).into()
        };
        ms.map(Some).ok_or_else(invalid)
    };
    let (since_ms, until_ms) = (time("--since", since)?, time("--until", until)?);
    if let (Some(since_ms), Some(until_ms)) = (since_ms, until_ms)
        && since_ms >= until_ms
    {
        return Err(Usage("--until must be later than --since".to_owned()).into());
    }
    Ok(DeadLetterFilter { codes, since_ms, until_ms, dataset: dataset.clone(), stream: stream.clone() })
}

fn code_of(name: &str) -> anyhow::Result<Code> {
    let known = || Code::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>().join(", ");
    Code::from_name(name).ok_or_else(|| Usage(format!("there is no code '{name}'; known: {}", known())).into())
}

async fn list(lake: &LakeArgs, code: Option<&str>, at: &AtArgs, json: bool) -> anyhow::Result<ExitCode> {
    if let Some(code) = code {
        code_of(code)?;
    }
    let at = at.at.as_deref().map(version_or_time).transpose()?;
    let stores = open_existing(&load(&lake.overrides())?).await?;
    let (fold, version) = match at {
        None => (log::read(&stores).await?.fold, None),
        Some(at) => {
            let extent = extent(&*stores.lake).await?;
            let version = resolve(&*stores.lake, &extent, at).await.map_err(of_history)?;
            let at = lake_at(&*stores.lake, &extent, version).await.map_err(of_history)?;
            let version = AtVersion::from(&at);
            (at.fold, Some(version))
        }
    };
    let groups = dead_letter_groups(&fold, code);
    match (json, version) {
        (true, None) => println!("{}", json!({ "deadLetters": groups })),
        (true, Some(AtVersion { version, entered_at })) => {
            println!("{}", json!({ "version": version, "entered_at": entered_at, "deadLetters": groups }));
        }
        (false, version) => {
            if let Some(version) = version {
                println!("{}", show_version(&version));
            }
            print_text(groups);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_text(groups: Vec<DeadLetterGroup>) {
    let total: u64 = groups.iter().map(|group| group.records).sum();
    let mut table = Table::new(&["code", "arrived", ">records", ">files", ">size"]);
    for DeadLetterGroup { code, day, records, files, bytes } in groups {
        table.row([code, day, show_count(records), show_count(files), show_bytes(bytes)]);
    }
    if !table.is_empty() {
        print!("{}", table.render(""));
    }
    println!("{} dead letters", show_count(total));
}
