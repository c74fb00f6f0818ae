//! `init`: makes what a development account needs and does not have: streams, bucket, lease table.
//!
//! Owns: printing. What exists is left as it is. Does not own: how each resource is made (its backend), production, where
//! encryption, alarms and lifecycle rules belong to a template.

use std::process::ExitCode;

use serde_json::json;

use crate::aws::Created;
use crate::cli::args::InitArgs;
use crate::cli::load;
use crate::config::Overrides;
use crate::setup::{create_missing, load_aws};

pub(crate) async fn init(args: &InitArgs, json: bool) -> anyhow::Result<ExitCode> {
    let config = load(&Overrides { sources: args.source.clone(), ..args.lake.overrides() })?;
    let done: Vec<(String, &'static str)> = match load_aws(&config).await? {
        None => vec![(config.lake.to_string(), "nothing to make: a run makes its folder and its database")],
        Some(aws) => {
            let how = |created| match created {
                Created::Made => "made",
                Created::Existed => "is there already",
            };
            let done = create_missing(&config, &aws, args.shards).await?;
            done.into_iter().map(|(resource, created)| (resource, how(created))).collect()
        }
    };
    if json {
        let done: Vec<_> = done.iter().map(|(what, how)| json!({ "what": what, "how": how })).collect();
        println!("{}", json!(done));
    } else {
        for (what, how) in done {
            println!("{what}: {how}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
