//! `verify`: audits a lake, and prints a line for each fault.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::output::{counted, show_bytes, show_count, show_version};
use crate::cli::progress_bar::bar;
use crate::cli::show_args::VerifyArgs;
use crate::cli::{load, of_history, version_or_time};
use crate::commit::lake_log::{extent, resolve};
use crate::inspect::{self, AtVersion, Audit, VerifyProgress};
use crate::setup::open_existing;

pub(crate) async fn verify(args: &VerifyArgs, json: bool) -> anyhow::Result<ExitCode> {
    let at = args.at.at.as_deref().map(version_or_time).transpose()?;
    let config = load(&args.lake.overrides())?;
    let stores = open_existing(&config).await?;
    let scanning = bar(0, "{spinner} {msg}");
    // Its length is known before the first object is compared.
    let comparing = bar(0, "{bar:30} {percent:>3}%  {binary_bytes_per_sec}  comparing objects");
    let progress = |progress: VerifyProgress| match progress {
        VerifyProgress::Records(read) => {
            scanning.set_message(format!("reading commit records: {}", show_count(read)));
            scanning.tick();
        }
        VerifyProgress::Total(bytes) => {
            scanning.finish_and_clear();
            comparing.set_length(bytes);
        }
        VerifyProgress::Compared(bytes) => comparing.inc(bytes),
    };
    let (audit, version) = if args.quick {
        (inspect::check_log(&stores).await?, None)
    } else if let Some(at) = at {
        let extent = extent(&*stores.lake).await?;
        let version = resolve(&*stores.lake, &extent, at).await.map_err(of_history)?;
        let (audit, at) = inspect::verify_at(&stores, &extent, version, &progress).await?;
        (audit, Some(AtVersion::from(&at)))
    } else {
        (inspect::verify(&stores, &progress).await?, None)
    };
    comparing.finish_and_clear();
    if json {
        print_json(&audit, version.as_ref());
    } else {
        if let Some(version) = &version {
            println!("{}", show_version(version));
        }
        print_text(&audit, args.quick);
    }
    Ok(ExitCode::from(u8::from(!audit.faults.is_empty())))
}

fn print_json(audit: &Audit, at: Option<&AtVersion>) {
    let Audit { epochs, objects, bytes, shards, totals, pending, accepted_losses, faults, .. } = audit;
    let Audit { log_version, snapshots, removed_since, operations, .. } = audit;
    let entered_at = at.map(|at| &at.entered_at);
    let sentences: Vec<String> = faults.iter().map(ToString::to_string).collect();
    println!(
        "{}",
        json!({
            "clean": faults.is_empty(), "epochs": epochs, "operations": operations, "shards": shards, "objects": objects, "bytes": bytes,
            "pending": pending, "records": totals.records, "rows": totals.rows, "dead_letters": totals.dead_letters,
            "log_version": log_version, "entered_at": entered_at, "snapshots": snapshots, "removed_since": removed_since,
            "raw_lines": totals.raw_lines, "accepted_losses": accepted_losses, "faults": sentences, "details": faults,
        })
    );
}

fn counted_losses(count: u64) -> String {
    if count == 1 { "1 loss".to_owned() } else { format!("{} losses", show_count(count)) }
}

fn print_text(audit: &Audit, quick: bool) {
    let rows: u64 = audit.totals.rows.values().sum();
    let dead_letters: u64 = audit.totals.dead_letters.values().sum();
    println!(
        "{} in {} of {}: {}, {}; {}, {}",
        counted(audit.totals.records, "record"),
        counted(audit.epochs, "epoch"),
        counted(audit.shards, "shard"),
        counted(rows, "row"),
        counted(dead_letters, "dead letter"),
        counted(audit.objects, "object"),
        show_bytes(audit.bytes),
    );
    match audit.log_version {
        Some(version) => println!("lake log: version {version}, {} compared", counted(audit.snapshots, "snapshot")),
        None => println!("the lake has no log"),
    }
    if audit.operations > 0 {
        println!("{} on the lake", counted(audit.operations, "operation"));
    }
    if audit.removed_since > 0 {
        println!("{} removed in later versions, not compared", counted(audit.removed_since, "object"));
    }
    if quick {
        println!("checked the chains of commits only, not the objects");
    }
    if audit.pending > 0 {
        println!(
            "{} decided and not yet finished; the next worker finishes what is left",
            counted(audit.pending, "epoch")
        );
    }
    if audit.accepted_losses > 0 {
        println!("{} in sources accepted", counted_losses(audit.accepted_losses));
    }
    for fault in &audit.faults {
        println!("{fault}");
    }
    match audit.faults.len() as u64 {
        0 => println!("no fault found"),
        faults => println!("{} found", counted(faults, "fault")),
    }
}
