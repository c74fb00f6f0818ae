//! The commands that look: `graph`, `schema`, `verify`, `status`, `sweep`, `deadletters`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use checkpoints::{Holder, Lease, ShardKey};
use pipeline::dataset::SchemaFormat;
use pipeline::dead_letter::code::Code;
use pipeline::graph::{EdgeId, Graph};
use serde_json::{Map, Value, json};

use crate::cli::args::{
    DeadlettersArgs, DeadlettersCommand, GraphArgs, GraphFormat, Place, SchemaArgs, SchemaFormatArg, SweepArgs,
};
use crate::cli::output::{counted, show_bytes, show_count};
use crate::cli::progress_bar::bar;
use crate::cli::table::{Table, shorten};
use crate::cli::{Usage, load};
use crate::clock::{Clock, SharedClock, SystemClock};
use crate::commit::{EdgeTotal, Stores};
use crate::config::{Config, Overrides};
use crate::settings::units::parse_duration;
use crate::setup::{load_aws, open_by_name, open_existing, open_sources};
use crate::source::{Behind, ShardSource};
use crate::{inspect, maintenance};

pub(crate) fn graph(args: &GraphArgs, json: bool) -> anyhow::Result<ExitCode> {
    let overrides = Overrides { config: args.config.clone(), sources: args.source.clone(), ..Overrides::default() };
    let config = load(&overrides)?;
    let names: Vec<String> = config
        .sources
        .iter()
        .map(|source| source.stream_name().map_or_else(|| source.url.to_string(), str::to_owned))
        .collect();
    let graph = Graph::new(&names, &config.datasets, config.worker.output.raw.is_some());
    if json {
        let nodes: Vec<Value> = graph
            .nodes()
            .iter()
            .map(|node| json!({ "name": node.name, "kind": format!("{:?}", node.kind).to_lowercase(), "detail": node.detail }))
            .collect();
        let edges: Vec<Value> = graph
            .edges()
            .map(|(_, edge)| {
                let name = |node: usize| &graph.nodes()[node].name;
                json!({ "from": name(edge.from), "to": name(edge.to), "dead_letters": edge.dead_letters })
            })
            .collect();
        println!("{}", json!({ "nodes": nodes, "edges": edges }));
        return Ok(ExitCode::SUCCESS);
    }
    match args.format {
        GraphFormat::Text => print!("{}", graph.text(None)),
        GraphFormat::Mermaid => print!("{}", graph.mermaid()),
        GraphFormat::Dot => print!("{}", graph.dot()),
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn schema(args: &SchemaArgs) -> anyhow::Result<ExitCode> {
    let config = load(&args.place.overrides())?;
    let Some(dataset) = config.datasets.find(&args.dataset) else {
        let known: Vec<&str> = config.datasets.names().collect();
        return Err(Usage(format!("there is no dataset '{}'; known: {}", args.dataset, known.join(", "))).into());
    };
    let format = match args.format {
        SchemaFormatArg::Athena => SchemaFormat::Athena,
        SchemaFormatArg::Glue => SchemaFormat::Glue,
        SchemaFormatArg::JsonSchema => SchemaFormat::JsonSchema,
        SchemaFormatArg::Arrow => SchemaFormat::Arrow,
    };
    // A catalogue needs a place that it can reach: a lake that is not a folder's path is given as it is.
    let lake = match &args.place.lake {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => config.lake.backend().catalog_url(),
    };
    print!("{}", config.datasets.schema(dataset, format, &lake));
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn verify(place: &Place, json: bool) -> anyhow::Result<ExitCode> {
    let config = load(&place.overrides())?;
    let stores = open_existing(&config).await?;
    let bar = bar(0, "{bar:30} {percent:>3}%  {binary_bytes_per_sec}  comparing objects");
    let audit = inspect::verify(&stores, &|bytes| {
        bar.inc_length(bytes);
        bar.inc(bytes);
    })
    .await?;
    bar.finish_and_clear();
    let clean = audit.faults.is_empty();
    if json {
        let faults: Vec<String> = audit.faults.iter().map(ToString::to_string).collect();
        println!(
            "{}",
            json!({
                "clean": clean, "epochs": audit.epochs, "shards": audit.shards, "objects": audit.objects,
                "bytes": audit.bytes, "pending": audit.pending, "records": audit.totals.records,
                "rows": audit.totals.rows, "dead_letters": audit.totals.dead_letters,
                "raw_lines": audit.totals.raw_lines, "faults": faults,
            })
        );
    } else {
        let rows: u64 = audit.totals.rows.values().sum();
        let letters: u64 = audit.totals.dead_letters.values().sum();
        println!(
            "{} in {} of {}: {}, {}; {}, {}",
            counted(audit.totals.records, "record"),
            counted(audit.epochs, "epoch"),
            counted(audit.shards, "shard"),
            counted(rows, "row"),
            counted(letters, "dead letter"),
            counted(audit.objects, "object"),
            show_bytes(audit.bytes),
        );
        if audit.pending > 0 {
            println!("{} decided and not yet finished: the next worker finishes them", audit.pending);
        }
        for fault in &audit.faults {
            println!("{fault}");
        }
        let found = counted(audit.faults.len() as u64, "fault");
        println!("{}", if clean { "no fault found".to_owned() } else { format!("{found} found") });
    }
    Ok(ExitCode::from(u8::from(!clean)))
}

pub(crate) async fn status(place: &Place, json: bool) -> anyhow::Result<ExitCode> {
    let config = load(&place.overrides())?;
    let stores = open_existing(&config).await?;
    let leases = stores.leases.list().await?;
    let (records, unreadable) = inspect::commit_records(&stores).await?;
    let clock: SharedClock = Arc::new(SystemClock);
    let lags = lags(&config, &stores, &clock, &leases).await;
    let mut edges: BTreeMap<String, EdgeTotal> = BTreeMap::new();
    for record in &records {
        for (name, EdgeTotal(records, bytes)) in &record.edges {
            let total = edges.entry(name.clone()).or_default();
            total.0 += records;
            total.1 += bytes;
        }
    }
    let last = records.iter().map(|record| record.written_at.as_str()).max();
    if json {
        let shards: Vec<Value> = leases
            .iter()
            .map(|lease| {
                json!({
                    "stream": lease.key.stream, "shard": lease.key.shard, "owner": lease.holder.committer(),
                    "checkpoint": lease.checkpoint, "pending": lease.pending.as_ref().map(|pending| &pending.manifest),
                    "behind_bytes": match lags.get(&lease.key) { Some(Behind::Nothing) => Some(0), Some(Behind::Bytes(bytes)) => Some(*bytes), _ => None },
                    "behind_ms": match lags.get(&lease.key) { Some(Behind::Nothing) => Some(0), Some(Behind::Time(ms)) => Some(*ms), _ => None },
                })
            })
            .collect();
        let edges: Map<String, Value> = edges
            .into_iter()
            .map(|(name, EdgeTotal(records, bytes))| (name, json!({ "records": records, "bytes": bytes })))
            .collect();
        println!("{}", json!({ "shards": shards, "epochs": records.len(), "last_commit": last, "edges": edges }));
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["shard", "owner", ">checkpoint", ">behind", "pending"]);
    for lease in &leases {
        let behind = match lags.get(&lease.key) {
            Some(Behind::Nothing) => "0".to_owned(),
            Some(Behind::Bytes(bytes)) => show_bytes(*bytes),
            Some(Behind::Time(ms)) => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
            None => "?".to_owned(),
        };
        table.row([
            shorten(lease.key.shard.as_str(), 48),
            owner(&lease.holder),
            shorten(&lease.checkpoint.to_string(), 24),
            behind,
            lease.pending.as_ref().map_or_else(String::new, |pending| shorten(pending.manifest.as_str(), 32)),
        ]);
    }
    let streams: std::collections::BTreeSet<&str> = leases.iter().map(|lease| lease.key.stream.as_str()).collect();
    for stream in streams {
        println!("stream {stream}");
    }
    print!("{}", table.render("  "));
    println!(
        "\n{} committed{}",
        counted(records.len() as u64, "epoch"),
        last.map_or_else(String::new, |at| format!(", the last at {at}"))
    );
    for error in unreadable {
        println!("{error}");
    }
    let mut passed = Table::new(&["passed along", ">records", ">bytes"]);
    let mut edges: Vec<(String, EdgeTotal)> = edges.into_iter().collect();
    edges.sort_by_key(|(id, _)| id.parse::<EdgeId>().ok());
    for (name, EdgeTotal(records, bytes)) in edges {
        passed.row([name, show_count(records), show_bytes(bytes)]);
    }
    if !passed.is_empty() {
        println!();
        print!("{}", passed.render("  "));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn owner(holder: &Holder) -> String {
    let short = |owner: &checkpoints::LeaseOwner| owner.as_str().chars().take(8).collect::<String>();
    match holder {
        Holder::Nobody => "-".to_owned(),
        Holder::Held(owner) => short(owner),
        Holder::HandingOver { from, to } => format!("{} to {}", short(from), short(to)),
    }
}

/// How far each shard is behind, where its source can be read.
async fn lags(config: &Config, stores: &Stores, clock: &SharedClock, leases: &[Lease]) -> BTreeMap<ShardKey, Behind> {
    let mut lags = BTreeMap::new();
    let aws = load_aws(config).await;
    let opened = open_sources(config, &stores.lake, clock, true, aws.as_ref()).await;
    let opened = opened.unwrap_or_default().into_iter().map(|opened| opened.source);
    let mut sources: Vec<Arc<dyn ShardSource>> = opened.collect();
    // Streams that the configuration does not name are found by their own names, if these are URLs.
    for lease in leases {
        let stream = &lease.key.stream;
        if !sources.iter().any(|source| source.stream() == stream)
            && let Some(source) = open_by_name(stream, &stores.lake, clock).await
        {
            sources.push(source);
        }
    }
    for lease in leases {
        let Some(source) = sources.iter().find(|source| *source.stream() == lease.key.stream) else { continue };
        if let Ok(behind) = source.behind(&lease.key.shard, &lease.checkpoint).await {
            lags.insert(lease.key.clone(), behind);
        }
    }
    lags
}

pub(crate) async fn sweep(args: &SweepArgs, json: bool) -> anyhow::Result<ExitCode> {
    let age = parse_duration(&args.older_than).map_err(Usage)?;
    if age < std::time::Duration::from_secs(3600) {
        return Err(Usage("--older-than must be 1h at least: a request may live as long".to_owned()).into());
    }
    let config = load(&args.place.overrides())?;
    let stores = open_existing(&config).await?;
    let swept = maintenance::sweep(&stores, SystemClock.now_ms(), age, args.dry_run).await?;
    if json {
        let maintenance::Swept { uploads, intents, kept } = swept;
        println!("{}", json!({ "uploads": uploads, "intents": intents, "kept": kept, "dry_run": args.dry_run }));
    } else {
        let verb = if args.dry_run { "would remove" } else { "removed" };
        println!(
            "{verb} {} uploads and {} intents; {} are young or still needed",
            swept.uploads, swept.intents, swept.kept
        );
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn deadletters(args: &DeadlettersArgs, json: bool) -> anyhow::Result<ExitCode> {
    let (place, code) = match &args.command {
        DeadlettersCommand::List { place, code } | DeadlettersCommand::Show { place, code, .. } => {
            (place, code.as_deref())
        }
    };
    if let Some(code) = code.filter(|code| Code::from_name(code).is_none()) {
        let known: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        return Err(Usage(format!("there is no code '{code}'; known: {}", known.join(", "))).into());
    }
    let config = load(&place.overrides())?;
    let stores = open_existing(&config).await?;
    let objects = inspect::list_letters(&stores, code).await?;
    match &args.command {
        DeadlettersCommand::List { .. } => {
            let mut days: BTreeMap<(String, String), (u64, u64, u64)> = BTreeMap::new();
            for object in objects {
                let (letters, files, bytes) = days.entry((object.code, object.day)).or_default();
                *letters += object.letters;
                *files += 1;
                *bytes += object.bytes;
            }
            if json {
                let all: Vec<Value> = days
                    .into_iter()
                    .map(|((code, day), (letters, files, bytes))| {
                        json!({ "code": code, "day": day, "records": letters, "files": files, "bytes": bytes })
                    })
                    .collect();
                println!("{}", json!({ "deadLetters": all }));
                return Ok(ExitCode::SUCCESS);
            }
            let mut table = Table::new(&["code", "arrived", ">records", ">files", ">size"]);
            let mut total = 0;
            for ((code, day), (letters, files, bytes)) in days {
                total += letters;
                table.row([code, day, show_count(letters), show_count(files), show_bytes(bytes)]);
            }
            if !table.is_empty() {
                print!("{}", table.render(""));
            }
            println!("{} dead letters", show_count(total));
        }
        DeadlettersCommand::Show { limit, raw, .. } => {
            for letter in inspect::show_letters(&stores, &objects, *limit, *raw).await? {
                println!("{}", letter.0);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
