//! `deadletters`: how many records were set aside and why, and some of them.

use std::process::ExitCode;

use pipeline::dead_letter::code::Code;
use serde_json::json;

use crate::cli::args::{DeadLettersArgs, DeadLettersCommand};
use crate::cli::output::{Table, show_bytes, show_count};
use crate::cli::{Usage, load};
use crate::commit::log;
use crate::inspect::{DeadLetterGroup, dead_letter_groups, show_dead_letters};
use crate::setup::open_existing;

pub(crate) async fn dead_letters(args: &DeadLettersArgs, json: bool) -> anyhow::Result<ExitCode> {
    let (lake, code) = match &args.command {
        DeadLettersCommand::List { lake, code } | DeadLettersCommand::Show { lake, code, .. } => {
            (lake, code.as_deref())
        }
    };
    if let Some(code) = code.filter(|code| Code::from_name(code).is_none()) {
        let known: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        return Err(Usage(format!("there is no code '{code}'; known: {}", known.join(", "))).into());
    }
    let config = load(&lake.overrides())?;
    let stores = open_existing(&config).await?;
    match &args.command {
        DeadLettersCommand::List { .. } => {
            let groups = dead_letter_groups(&log::read(&stores).await?.fold, code);
            if json {
                println!("{}", json!({ "deadLetters": groups }));
            } else {
                print_text(groups);
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
