//! `manifest`: prints a manifest by which QuickSight reads files of the lake.
//!
//! Owns: printing, and what is reported beside the manifest. Does not own: the manifest (`catalog`).

use std::process::ExitCode;

use pipeline::time::{Day, day_of, parse_date};
use serde_json::json;

use crate::catalog::{FILES_MAX, ManifestArea, ManifestScope, TOTAL_BYTES_MAX};
use crate::cli::args::{ManifestAreaArg, ManifestArgs};
use crate::cli::output::{counted, show_bytes};
use crate::cli::{Usage, load};
use crate::config::Overrides;
use crate::lake::{ObjectStore, Retrying};
use crate::retry::RetryPolicy;
use crate::setup::{load_aws, open_existing_lake};

pub(crate) async fn manifest(args: &ManifestArgs, json: bool) -> anyhow::Result<ExitCode> {
    let scope = scope(args).map_err(Usage)?;
    let config = load(&Overrides { without_leases: true, ..args.lake.overrides() })?;
    let url = config.lake.backend().catalog_url();
    if !url.starts_with("s3://") {
        let problem =
            format!("QuickSight reaches s3:// only, and the lake is {url}: name it with --lake s3://BUCKET/PREFIX");
        return Err(Usage(problem).into());
    }
    let aws = load_aws(&config).await?;
    let lake = Retrying::new(open_existing_lake(&config, aws.as_ref()).await?, RetryPolicy::CALL);
    let manifest = scope.manifest(&url, &lake.list(&scope.prefix()).await?)?;
    let mut warnings = Vec::new();
    if scope.area != ManifestArea::Analytics {
        warnings.push(
            "these files have personal data as it was received: guard the manifest and the data set, or use Athena on processed/"
                .to_owned(),
        );
    }
    if manifest.files > FILES_MAX || manifest.bytes > TOTAL_BYTES_MAX {
        let size = show_bytes(manifest.bytes);
        warnings.push(format!(
            "the manifest covers {} of {size}; QuickSight takes {FILES_MAX} files and 25 GB: choose days with --from and --to",
            counted(manifest.files, "file")
        ));
    }
    warnings.iter().for_each(|warning| eprintln!("shardlake: {warning}"));
    if json {
        let report = json!({
            "manifest": manifest.json, "files": manifest.files, "bytes": manifest.bytes, "warnings": warnings,
        });
        println!("{report}");
    } else {
        println!("{:#}", manifest.json);
    }
    Ok(ExitCode::SUCCESS)
}

fn scope(args: &ManifestArgs) -> Result<ManifestScope, String> {
    let area = match args.area {
        ManifestAreaArg::Analytics => ManifestArea::Analytics,
        ManifestAreaArg::Error => ManifestArea::Error,
        ManifestAreaArg::Raw => ManifestArea::Raw,
        ManifestAreaArg::Processed => {
            return Err("processed/ is Parquet, which QuickSight does not read from S3: create the tables with \
                        'shardlake schema DATASET --format athena', and choose Athena as the data source"
                .to_owned());
        }
    };
    if args.dataset.is_some() && area != ManifestArea::Raw {
        return Err("--dataset is for --area raw".to_owned());
    }
    let day = |text: &Option<String>, flag: &str, missing: Day| -> Result<Day, String> {
        let Some(text) = text else { return Ok(missing) };
        let days = parse_date(text.as_bytes())
            .ok_or_else(|| format!("{flag} must be a day such as 2026-11-30, not '{text}'"))?;
        Ok(day_of(days))
    };
    let first = day(&args.from, "--from", Day { year: 1, month: 1, day: 1 })?;
    let last = day(&args.to, "--to", Day { year: 9999, month: 12, day: 31 })?;
    let has_days = args.from.is_some() || args.to.is_some();
    if has_days && area == ManifestArea::Analytics {
        return Err("--from and --to are for --area raw and error".to_owned());
    }
    if first > last {
        return Err("--from is after --to".to_owned());
    }
    Ok(ManifestScope { area, dataset: args.dataset.clone(), days: has_days.then_some((first, last)) })
}
