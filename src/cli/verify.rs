//! `verify`: audits a lake, and prints a line for each fault.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::args::VerifyArgs;
use crate::cli::load;
use crate::cli::output::{counted, show_bytes, show_count};
use crate::cli::progress_bar::bar;
use crate::inspect::{self, Audit};
use crate::setup::open_existing;

pub(crate) async fn verify(args: &VerifyArgs, json: bool) -> anyhow::Result<ExitCode> {
    let config = load(&args.lake.overrides())?;
    let stores = open_existing(&config).await?;
    let audit = if args.quick {
        inspect::check_log(&stores).await?
    } else {
        let bar = bar(0, "{bar:30} {percent:>3}%  {binary_bytes_per_sec}  comparing objects");
        let audit = inspect::verify(&stores, &|bytes| {
            bar.inc_length(bytes);
            bar.inc(bytes);
        })
        .await?;
        bar.finish_and_clear();
        audit
    };
    if json {
        print_json(&audit);
    } else {
        print_text(&audit, args.quick);
    }
    Ok(ExitCode::from(u8::from(!audit.faults.is_empty())))
}

fn print_json(audit: &Audit) {
    let Audit { epochs, objects, bytes, shards, totals, pending, accepted_losses, faults } = audit;
    let sentences: Vec<String> = faults.iter().map(ToString::to_string).collect();
    println!(
        "{}",
        json!({
            "clean": faults.is_empty(), "epochs": epochs, "shards": shards, "objects": objects, "bytes": bytes,
            "pending": pending, "records": totals.records, "rows": totals.rows, "dead_letters": totals.dead_letters,
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
