//! `deadletters redrive` and `deadletters discard`.

use std::process::ExitCode;
use std::sync::Arc;

use checkpoints::LeaseOwner;
use pipeline::dead_letter::code::Code;
use pipeline::dead_letter::stored::DeadLetterFilter;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cli::args::{FailOn, LakeArgs, RunArgs};
use crate::cli::output::{Table, counted, show_bytes, show_count};
use crate::cli::progress_bar::bar;
use crate::cli::run::{run, stop_on_signal};
use crate::cli::{Usage, load};
use crate::clock::{SharedClock, SystemClock, random_bytes};
use crate::commit::Stores;
use crate::maintenance::operation::Operator;
use crate::redrive::{
    Discarded, Progress, Redrive, Redriven, Selected, WorkerAside, codes_of_records, discard as discard_letters,
    redrive as redrive_letters, select,
};
use crate::settings::url::Url;
use crate::setup::{Consents, check_lake, load_aws, open_existing, open_for_redrive};

/// The bar of a redrive or a discard.
const BAR: &str = "{bar:30} {percent:>3}%  {human_pos} of {human_len} dead letters  {eta}";

/// Redrives dead letters of the lake.
pub(crate) async fn redrive(
    lake: &LakeArgs,
    mut filter: DeadLetterFilter,
    dry_run: bool,
    fail_on: &[FailOn],
    json: bool,
) -> anyhow::Result<ExitCode> {
    if fail_on.contains(&FailOn::Unread) {
        return Err(Usage("--fail-on unread needs --from: the dead letters of the lake are all read".to_owned()).into());
    }
    let of_records = codes_of_records();
    if let Some(code) = filter.codes.iter().find(|code| !of_records.contains(code)) {
        return Err(Usage(cannot_redrive(*code)).into());
    }
    if filter.codes.is_empty() {
        filter.codes = of_records;
    }
    let mut config = load(&lake.overrides())?;
    if dry_run {
        let stores = open_existing(&config).await?;
        print_selected(&select(&*stores.lake, &filter).await?, "redrive", json);
        return Ok(ExitCode::SUCCESS);
    }
    let clock: SharedClock = Arc::new(SystemClock);
    let (stores, key) = open_for_redrive(&mut config, &clock).await?;
    let failover = config.worker.leases.failover;
    let stop = CancellationToken::new();
    let listening = tokio::spawn(stop_on_signal(stop.clone()));
    let aside = WorkerAside::new(config, key, Arc::clone(&stores.leases), Arc::clone(&clock), stop.clone())?;
    let mut operator = operator(&stores, clock, failover).await?;
    let id = new_id()?;
    let bar = bar(0, BAR);
    let on_progress = |progress: Progress| {
        bar.set_length(progress.all);
        bar.set_position(progress.done);
    };
    let request = Redrive::new(id.clone(), filter, &stores, &mut operator, &on_progress, &stop);
    let result = redrive_letters(request, &aside).await;
    bar.finish_and_clear();
    operator.close().await;
    listening.abort();
    let done = result?;
    if json {
        let Redriven { taken, rows, failed_again, left_alone, operations } = &done;
        println!(
            "{}",
            json!({
                "id": id,
                "taken": taken,
                "rows": rows,
                "failed_again": failed_again,
                "left_alone": left_alone,
                "operations": operations,
            })
        );
    } else {
        print!("{}", show_redriven(&id, &done));
    }
    let failed: u64 = done.failed_again.values().sum();
    if failed > 0 && fail_on.contains(&FailOn::DeadLetters) {
        eprintln!("shardlake: {} again (--fail-on dead-letters)", counted(failed, "dead letter"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Redrives what a delivery stream of Firehose could not process: its error objects are a source of their own, so each record is read once.
pub(crate) async fn redrive_from(
    lake: LakeArgs,
    from: &str,
    fail_on: Vec<FailOn>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let source = match Url::new(from).scheme {
        "" => format!("objects://{from}"),
        _ => from.to_owned(),
    };
    let is_objects = source.starts_with("s3://") || source.starts_with("objects://");
    if !is_objects {
        return Err(Usage(format!("--from: expected s3://BUCKET/PREFIX or a folder, not '{}'", Url::new(from))).into());
    }
    let args = RunArgs {
        // A live worker of this machine may have the configured address.
        listen: Some("off".to_owned()),
        lake,
        source: vec![source],
        until_caught_up: true,
        fail_on,
        raw: None,
        memory: None,
        threads: None,
        commit_interval: None,
        show_denied_keys: false,
        new_lake: false,
        new_checkpoints: false,
        accept_changes: false,
    };
    run(args, json).await
}

/// Discards dead letters of the lake.
pub(crate) async fn discard(
    lake: &LakeArgs,
    filter: DeadLetterFilter,
    dry_run: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let config = load(&lake.overrides())?;
    let clock: SharedClock = Arc::new(SystemClock);
    let stores = open_existing(&config).await?.with_clock(Arc::clone(&clock));
    check_lake(&config, load_aws(&config).await?.as_ref(), Consents::default()).await?;
    if dry_run {
        print_selected(&select(&*stores.lake, &filter).await?, "discard", json);
        return Ok(ExitCode::SUCCESS);
    }
    let stop = CancellationToken::new();
    let listening = tokio::spawn(stop_on_signal(stop.clone()));
    let mut operator = operator(&stores, clock, config.worker.leases.failover).await?;
    let id = new_id()?;
    let bar = bar(0, BAR);
    let on_progress = |progress: Progress| {
        bar.set_length(progress.all);
        bar.set_position(progress.done);
    };
    let result = discard_letters(Redrive::new(id.clone(), filter, &stores, &mut operator, &on_progress, &stop)).await;
    bar.finish_and_clear();
    operator.close().await;
    listening.abort();
    let Discarded { discarded, left_alone, operations } = result?;
    if json {
        let done = json!({ "id": id, "discarded": discarded, "left_alone": left_alone, "operations": operations });
        println!("{done}");
    } else if discarded == 0 {
        println!("nothing to discard; the lake has {}", counted(left_alone, "other dead letter"));
    } else {
        println!("discarded {} (discard {id})", counted(discarded, "dead letter"));
        println!("  left alone: {}", counted(left_alone, "dead letter"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Why dead letters of a code are not processed again.
fn cannot_redrive(code: Code) -> String {
    let what = match code {
        Code::DamagedFile => {
            "is not a record, but the part of a file that cannot be read; repair the file, and read it as a source"
        }
        _ => "is not one record, and cannot be taken apart later either",
    };
    format!("a dead letter with code {code} {what}")
}

async fn operator(stores: &Stores, clock: SharedClock, failover: std::time::Duration) -> anyhow::Result<Operator> {
    let me = LeaseOwner::from_random(random_bytes()?);
    Ok(Operator::new(me, stores.clone(), clock, failover, random_bytes()?).await?)
}

/// The id of a redrive or a discard: 8 hex digits.
fn new_id() -> std::io::Result<String> {
    Ok(random_bytes::<4>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn print_selected(selected: &Selected, verb: &str, json: bool) {
    if json {
        println!("{}", json!({ "dry_run": true, "selected": selected }));
        return;
    }
    let Selected { dead_letters, objects, bytes, by_code, by_dataset, left_alone } = selected;
    println!(
        "would {verb} {} in {}, {}",
        counted(*dead_letters, "dead letter"),
        counted(*objects, "object"),
        show_bytes(*bytes)
    );
    let mut codes = Table::new(&["code", ">records"]);
    for (code, count) in by_code {
        codes.row([code.clone(), show_count(*count)]);
    }
    let mut datasets = Table::new(&["dataset", ">records"]);
    for (dataset, count) in by_dataset {
        datasets.row([dataset.clone(), show_count(*count)]);
    }
    for table in [codes, datasets].into_iter().filter(|table| !table.is_empty()) {
        print!("\n{}", table.render("  "));
    }
    println!("\n  left alone: {}", counted(*left_alone, "dead letter"));
}

fn show_redriven(id: &str, done: &Redriven) -> String {
    let Redriven { taken, rows, failed_again, left_alone, operations } = done;
    if *taken == 0 {
        return format!("nothing to redrive; the lake has {}\n", counted(*left_alone, "other dead letter"));
    }
    let mut text =
        format!("redrove {} in {} (redrive {id})\n", counted(*taken, "dead letter"), counted(*operations, "operation"));
    let mut became = Table::new(&["became rows", ">records"]);
    for (dataset, count) in rows {
        became.row([dataset.clone(), show_count(*count)]);
    }
    let mut failed = Table::new(&["failed again", ">records"]);
    for (code, count) in failed_again {
        failed.row([code.clone(), show_count(*count)]);
    }
    for table in [became, failed].into_iter().filter(|table| !table.is_empty()) {
        text.push('\n');
        text.push_str(&table.render("  "));
    }
    text.push_str(&format!("\n  left alone: {}\n", counted(*left_alone, "dead letter")));
    text
}
