//! `find`: where a record is.
//!
//! Owns: reading the question from the command line, and printing the answer. A value that is searched for may be personal, so it is never
//! printed. Does not own: the search (`inspect::find`).

use std::collections::BTreeSet;
use std::io::BufRead;
use std::process::ExitCode;

use checkpoints::{SequenceNumber, ShardId, StreamName};
use clap::{ArgGroup, Args as ClapArgs};
use pipeline::time::parse_rfc3339_or_date;

use crate::cli::args::LakeArgs;
use crate::cli::output::{counted, shorten, show_bytes, show_count};
use crate::cli::progress_bar::bar;
use crate::cli::{Usage, load};
use crate::commit::ObjectKind;
use crate::inspect::find::{
    self, FindError, FindProgress, FindQuery, FindReport, Found, Identity, Operation, Origin, Question, ReadState,
};
use crate::setup::open_for_find;

/// States of shards that the text shows.
const STATES_SHOWN: usize = 5;

/// Arguments of `find`.
#[derive(Debug, ClapArgs)]
#[command(group(ArgGroup::new("question").required(true).args(["sequence", "column", "id"])))]
pub(crate) struct FindArgs {
    #[command(flatten)]
    pub(crate) lake: LakeArgs,

    /// The record with this sequence number; of a file, the offset of its first byte
    #[arg(long, value_name = "NUMBER")]
    pub(crate) sequence: Option<String>,

    /// Only this part of an aggregate, or of a record of several documents
    #[arg(long, value_name = "N", requires = "sequence")]
    pub(crate) sub: Option<u64>,

    /// Rows with this value, as it is in the lake or at the source; may be repeated. Without a value, or with -, a line of standard input
    #[arg(long, value_name = "COLUMN=VALUE", conflicts_with_all = ["sequence", "id"])]
    pub(crate) column: Vec<String>,

    /// What has this id, given by the producer: in any column of ids, or anywhere in a dead letter; - reads a line of standard input
    #[arg(long, value_name = "ID", conflicts_with = "sequence")]
    pub(crate) id: Option<String>,

    /// Only records of this stream, by its name in the lake
    #[arg(long)]
    pub(crate) stream: Option<String>,

    /// Only records of this shard; of files, the file
    #[arg(long)]
    pub(crate) shard: Option<String>,

    /// Only records of this dataset
    #[arg(long)]
    pub(crate) dataset: Option<String>,

    /// Only records that arrived at this time or later (2025-01-13T10:30:00Z, or 2025-01-13)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,

    /// Only records that arrived before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,

    /// Search all raw lines for the value, too, and not only those of what was found
    #[arg(long, conflicts_with = "sequence")]
    pub(crate) raw: bool,

    /// End after so many results
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}

pub(crate) async fn find(args: FindArgs, json: bool) -> anyhow::Result<ExitCode> {
    let query = query_of(&args)?;
    let mut config = load(&args.lake.overrides())?.waiting_briefly();
    let wants_key = !matches!(query.question, Question::Record { .. });
    let (stores, key, no_key) = open_for_find(&mut config, wants_key).await?;
    let searching = bar(0, "{bar:30} {pos} of {len} objects  {msg}");
    let entries = std::sync::atomic::AtomicU64::new(0);
    let progress = |step: FindProgress| match step {
        FindProgress::Entry => {
            let read = entries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            searching.set_message(format!("{} versions of the log", show_count(read)));
            searching.tick();
        }
        FindProgress::Planned(objects) => searching.inc_length(objects),
        FindProgress::Searched => searching.inc(1),
    };
    let found = find::find(&stores, &query, &config.datasets, key.as_ref(), &progress).await;
    searching.finish_and_clear();
    let report = found.map_err(|error| match error {
        FindError::Question(error) => Usage(error.to_string()).into(),
        error => anyhow::Error::new(error),
    })?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print_text(&report, &query);
    }
    if let Some(problem) = no_key {
        eprintln!("values were not searched as pseudonyms: {problem}");
    }
    for (object, problem) in &report.unreadable {
        eprintln!("{object} was not searched: {problem}");
    }
    let is_found = !report.found.is_empty() && report.unreadable.is_empty();
    Ok(if is_found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn query_of(args: &FindArgs) -> anyhow::Result<FindQuery> {
    let question = match (&args.sequence, &args.id) {
        (Some(sequence), _) => {
            let sequence = SequenceNumber::try_from(sequence.clone());
            let sequence = sequence.map_err(|error| Usage(format!("--sequence: {error}")))?;
            Question::Record { sequence, sub: args.sub }
        }
        (None, Some(id)) => Question::Id(value_of("--id", id)?),
        (None, None) => {
            let pairs = args.column.iter().map(|text| {
                let (name, value) = text.split_once('=').unwrap_or((text, "-"));
                Ok((name.to_owned(), value_of(name, value)?))
            });
            Question::Values(pairs.collect::<anyhow::Result<_>>()?)
        }
    };
    let name = |problem: String| Usage(problem);
    let stream = args.stream.as_deref().map(StreamName::new).transpose().map_err(|error| name(error.to_string()))?;
    let shard = args.shard.as_deref().map(ShardId::new).transpose().map_err(|error| name(error.to_string()))?;
    let time = |flag: &str, text: &Option<String>| -> anyhow::Result<Option<i64>> {
        let Some(text) = text else { return Ok(None) };
        let invalid = || {
            Usage(format!("{flag}: '{text}' is not a valid time: expected 2025-01-13T10:30:00Z or 2025-01-13")).into()
        };
        parse_rfc3339_or_date(text).map(Some).ok_or_else(invalid)
    };
    Ok(FindQuery {
        question,
        origin: Origin { stream, shard },
        dataset: args.dataset.clone(),
        since_ms: time("--since", &args.since)?,
        until_ms: time("--until", &args.until)?,
        search_raw: args.raw,
        limit: usize::try_from(args.limit).unwrap_or(usize::MAX),
    })
}

/// A value of the command line, or of standard input, which no list of processes and no history of a shell shows.
fn value_of(name: &str, text: &str) -> anyhow::Result<String> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let value = line.trim_end_matches(['\r', '\n']);
    if value.is_empty() {
        return Err(Usage(format!("{name}: standard input has no line with its value")).into());
    }
    Ok(value.to_owned())
}

fn print_text(report: &FindReport, query: &FindQuery) {
    let identities: BTreeSet<Option<&Identity>> = report.found.iter().map(|found| found.identity.as_ref()).collect();
    for identity in identities {
        let of: Vec<&Found> = report.found.iter().filter(|found| found.identity.as_ref() == identity).collect();
        match identity {
            Some(Identity { stream, shard, sequence, subsequence }) => {
                let part = if *subsequence > 0 { format!(", part {subsequence}") } else { String::new() };
                println!("record {sequence}{part} of {stream}, {shard}");
            }
            None => println!("raw lines without identities"),
        }
        if let Some(arrived) = of.iter().find_map(|found| found.arrived_at.as_ref()) {
            println!("  arrived at {arrived}");
        }
        for found in of {
            println!("  {}", show_found(found));
        }
    }
    for state in report.read.iter().take(STATES_SHOWN) {
        println!("{}", show_state(state));
    }
    if let Some(more @ 1..) = report.read.len().checked_sub(STATES_SHOWN) {
        println!("and {} more; --json shows all of them, and --shard names one", counted(more as u64, "shard"));
    }
    if report.found.is_empty() {
        println!("{}", not_found(report, query));
    }
    if report.is_cut {
        println!(
            "there may be more: the search ended after {}; see --limit",
            counted(report.found.len() as u64, "result")
        );
    }
    println!(
        "searched {} ({} read) of version {}",
        counted(report.objects, "object"),
        show_bytes(report.bytes),
        report.version
    );
}

fn show_found(found: &Found) -> String {
    let Found { kind, object, number, dataset, code, .. } = found;
    let of = |dataset: &Option<String>| dataset.as_ref().map_or_else(String::new, |name| format!(" of {name}"));
    match kind {
        ObjectKind::Processed => format!("row {}{} in {object}", show_count(*number), of(dataset)),
        ObjectKind::Error => {
            let code = code.as_deref().unwrap_or("?");
            format!("dead letter {code}{}, line {} of {object}", of(dataset), show_count(*number))
        }
        ObjectKind::Raw => format!("raw line {} of {object}", show_count(*number)),
    }
}

fn show_state(state: &ReadState) -> String {
    let key = state.key();
    match state {
        ReadState::Committed { epoch, written_at, version, changed_by, .. } => {
            let version = version.map_or_else(String::new, |version| format!(", version {version} of the lake"));
            let mut text = format!("{key} was read there by epoch {epoch}, committed at {written_at}{version}");
            for Operation { epoch, version, of } in changed_by {
                let of = of.as_deref().unwrap_or(epoch.as_str());
                text.push_str(&format!("\n  objects of this epoch were changed by {of}, version {version}"));
            }
            text
        }
        ReadState::Committing { epoch, worker, .. } => {
            format!("{key} was read there by epoch {epoch}, which worker {} is committing", shorten(worker, 12))
        }
        ReadState::NotCommitted { checkpoint, worker, .. } => {
            let by = worker.as_ref().map_or_else(
                || "nobody holds the shard".to_owned(),
                |worker| format!("worker {} has it in its open epoch, or has not read it yet", shorten(worker, 12)),
            );
            format!("{key} is committed up to {checkpoint}: {by}")
        }
        ReadState::Before { begins, .. } => format!("{key} was read from {begins} on, which is after this record"),
        ReadState::Gap { .. } => {
            format!(
                "{key} has no commit record for it, although later records are committed; `shardlake verify` shows the fault"
            )
        }
    }
}

/// Why nothing was found, and what to do.
fn not_found(report: &FindReport, query: &FindQuery) -> String {
    let mut text = "nothing was found".to_owned();
    match query.question {
        Question::Record { .. } => {
            let committed: Vec<&ReadState> =
                report.read.iter().filter(|state| matches!(state, ReadState::Committed { .. })).collect();
            let is_changed = committed
                .iter()
                .any(|state| matches!(state, ReadState::Committed { changed_by, .. } if !changed_by.is_empty()));
            if is_changed {
                text.push_str(": no record in the range has this number, or an operation has removed it; what was removed is in _trash/ until a sweep purges it");
            } else if !committed.is_empty() {
                text.push_str(": no record in the range has this number");
            } else if report.read.is_empty() {
                text.push_str(": no shard of this lake has such a position; is --stream or --shard right?");
            }
        }
        Question::Values(_) | Question::Id(_) => {
            if !query.search_raw {
                text.push_str("; --raw searches the raw lines, too");
            }
            text.push_str("; what is not committed yet can be found by its sequence number only");
            if report.committing > 0 {
                text.push_str(&format!(" ({} being committed)", counted(report.committing, "epoch")));
            }
        }
    }
    text
}
