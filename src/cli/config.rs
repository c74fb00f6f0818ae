//! `config check`: the effective configuration, whether the worker may do what it will have to do, and whether it would refuse to
//! start: definitions, lease table or streams that do not fit the lake. `config keys`: every key of the file.
//!
//! Owns: printing. The pseudonym key is never printed, only where it is. Does not own: reading the configuration
//! (`crate::config`), trying the permissions (`crate::setup::permissions`).

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::aws::Aws;
use crate::aws::permissions::Found;
use crate::cli::args::{ConfigArgs, ConfigCommand};
use crate::cli::load;
use crate::cli::output::Table;
use crate::config::{Config, Overrides, documentation};
use crate::settings::KeyDoc;
use crate::setup::permissions::try_all;
use crate::setup::{Consents, OpenError, check_definitions, check_lake, check_sources, load_aws};
use crate::source::SourceError;

pub(crate) async fn config(args: &ConfigArgs, json: bool) -> anyhow::Result<ExitCode> {
    let (lake, source, offline) = match &args.command {
        ConfigCommand::Check { lake, source, offline } => (lake, source, offline),
        ConfigCommand::Keys => {
            print_keys(json);
            return Ok(ExitCode::SUCCESS);
        }
    };
    let config = load(&Overrides { sources: source.clone(), run: true, ..lake.overrides() })?;
    let text = config.effective();
    let config = config.waiting_briefly();
    let aws = if *offline { None } else { load_aws(&config).await? };
    let tried = match &aws {
        Some(aws) => try_all(&config, aws).await,
        None => Vec::new(),
    };
    let missing = tried.iter().filter(|tried| tried.found.is_fault()).count();
    let refused = refused(&config, aws.as_ref(), missing > 0).await?;
    let code = ExitCode::from(if missing == 0 && refused.is_none() { 0 } else { 2 });
    if json {
        let tried: Vec<Value> = tried
            .iter()
            .map(|tried| {
                json!({
                    "action": tried.action, "on": tried.resource, "ok": !tried.found.is_fault(), "found": tried.found.to_string(),
                })
            })
            .collect();
        let ok = missing == 0 && refused.is_none();
        println!("{}", json!({ "config": text, "permissions": tried, "refused": refused, "ok": ok }));
        return Ok(code);
    }
    print!("{text}");
    if !tried.is_empty() {
        let mut table = Table::new(&["IAM action", "on", "found"]);
        for tried in &tried {
            table.row([tried.action.to_owned(), tried.resource.clone(), tried.found.to_string()]);
        }
        println!();
        print!("{}", table.render(""));
    }
    for tried in tried.iter().filter(|tried| tried.found.is_fault()) {
        let (action, on) = (tried.action, &tried.resource);
        match &tried.found {
            Found::Denied(None) => eprintln!("shardlake: the worker needs {action} on {on}"),
            Found::Denied(Some(advice)) => eprintln!("shardlake: the worker needs {action} on {on}; {advice}"),
            other => eprintln!("shardlake: {action} on {on}: {other}"),
        }
    }
    if let Some(refused) = refused {
        eprintln!("shardlake: {refused}");
    }
    Ok(code)
}

/// Why a worker would refuse to start, if it would. A lake on AWS is only read if `aws` is there, and so are a lease table and
/// streams.
///
/// # Errors
/// The lake cannot be read, unless a permission is `missing`, which says enough.
async fn refused(config: &Config, aws: Option<&Aws>, missing: bool) -> anyhow::Result<Option<String>> {
    if config.lake.backend().needs_aws() && aws.is_none() {
        return Ok(None);
    }
    let mut checks = vec![check_definitions(config, aws, false).await];
    if aws.is_some() || !config.needs_aws_for_leases() {
        checks.push(check_lake(config, aws, Consents::default()).await.map(drop));
    }
    if aws.is_some() {
        checks.push(check_sources(config, aws).await);
    }
    let mut refusals = Vec::new();
    for error in checks.into_iter().filter_map(Result::err) {
        if error.is_usage() || matches!(error, OpenError::Source(SourceError::Unreadable { .. })) {
            refusals.push(error.to_string());
        } else if !missing {
            return Err(error.into());
        }
    }
    Ok((!refusals.is_empty()).then(|| refusals.join("\n")))
}

/// Prints every key of the configuration file.
fn print_keys(json: bool) {
    let sections = documentation();
    if json {
        let key = |key: &KeyDoc| json!({ "key": key.name, "value": key.value, "default": key.default, "meaning": key.meaning });
        let sections: Vec<Value> = sections
            .iter()
            .map(|section| {
                let keys: Vec<Value> = section.keys.iter().map(key).collect();
                json!({ "section": section.header, "about": section.doc, "keys": keys })
            })
            .collect();
        println!("{}", json!(sections));
        return;
    }
    // The texts are Markdown.
    let plain = |text: &str| text.replace('`', "");
    for section in sections {
        println!("{}  {}", section.header, plain(section.doc));
        for KeyDoc { name, value, default, meaning } in section.keys {
            println!("  {name}: {} (default: {})\n      {}", plain(&value), plain(&default), plain(&meaning));
        }
        println!();
    }
}
