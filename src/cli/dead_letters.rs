//! `deadletters`: how many records were set aside and why, and some of them.

use std::process::ExitCode;

use pipeline::dead_letter::code::Code;
use serde_json::json;

use crate::cli::output::{Table, show_bytes, show_count, show_version};
use crate::cli::show_args::{DeadLettersArgs, DeadLettersCommand};
use crate::cli::{Usage, load, of_history, version_or_time};
use crate::commit::lake_log::{extent, lake_at, resolve};
use crate::commit::log;
use crate::inspect::{AtVersion, DeadLetterGroup, dead_letter_groups, show_dead_letters};
use crate::setup::open_existing;

pub(crate) async fn dead_letters(args: &DeadLettersArgs, json: bool) -> anyhow::Result<ExitCode> {
    let (lake, code) = match &args.command {
        DeadLettersCommand::List { lake, code, .. } | DeadLettersCommand::Show { lake, code, .. } => {
            (lake, code.as_deref())
        }
    };
    if let Some(code) = code.filter(|code| Code::from_name(code).is_none()) {
        let known: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        return Err(Usage(format!("there is no code '{code}'; known: {}", known.join(", "))).into());
    }
    let at = match &args.command {
        DeadLettersCommand::List { at, .. } => at.at.as_deref().map(version_or_time).transpose()?,
        DeadLettersCommand::Show { .. } => None,
    };
    let config = load(&lake.overrides())?;
    let stores = open_existing(&config).await?;
    match &args.command {
        DeadLettersCommand::List { .. } => {
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
        }
        DeadLettersCommand::Show { limit, raw, .. } => {
            for letter in show_dead_letters(&stores, code, *limit, *raw).await? {
                println!("{}", letter.0);
            }
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
