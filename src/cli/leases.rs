//! `leases`: who holds which shard, what is wrong with the table, freeing a lease by hand, and making lost rows again.
//!
//! Owns: printing. Does not own: judging the table (`inspect::leases`), freeing a lease (`maintenance::leases`), the positions of
//! rows that are made again (`maintenance::rebuild`).

use std::collections::{BTreeSet, HashMap};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use checkpoints::{Holder, Lease, LeaseOwner, LeaseStore, Position, ShardId, ShardKey, StreamName};
use serde_json::{Value, json};

use crate::aws::Aws;
use crate::cli::args::{LakeArgs, LeasesArgs, LeasesCommand};
use crate::cli::output::{Table, counted, shorten, show_holder};
use crate::cli::{Usage, load};
use crate::clock::{SharedClock, SystemClock, random_bytes};
use crate::commit::{EpochId, Stores};
use crate::config::{Config, Overrides};
use crate::inspect::leases::{LeaseStatus, LeaseTable, scan, states};
use crate::maintenance::leases::{Freed, evict, release};
use crate::maintenance::{Rebuilt, rebuild};
use crate::retry::RetryPolicy;
use crate::settings::units::parse_duration;
use crate::setup::{load_aws, open_existing_lake, open_existing_leases, open_for_rebuild, stream_names};

pub(crate) async fn leases(args: &LeasesArgs, json: bool) -> anyhow::Result<ExitCode> {
    match &args.command {
        LeasesCommand::List { lake, watch } => {
            let watch = parse_duration(watch).map_err(Usage)?;
            let config = load(&lake.overrides())?;
            let aws = load_aws(&config).await?;
            let store = open_existing_leases(&config, aws.as_ref()).await?;
            let others = streams_of_others(&config, aws.as_ref(), &store).await?;
            let table = scan(&*store, watch, &others).await?;
            if json {
                println!("{}", serde_json::to_string(&table)?);
            } else {
                print_table(&table, watch);
            }
            Ok(ExitCode::from(u8::from(!table.findings.is_empty())))
        }
        LeasesCommand::Rebuild { lake, source } => {
            rebuild_rows(&load(&Overrides { sources: source.clone(), ..lake.overrides() })?, json).await
        }
        LeasesCommand::Inspect { shard, lake } => {
            let leases = open(lake).await?.list().await?;
            let lease = find(&leases, shard)?.clone();
            // Who is alive is not known, so every holder counts as silent.
            let state = states(&leases, &BTreeSet::new()).get(&lease.key).copied();
            match state.map(|state| LeaseStatus { lease: lease.clone(), state }) {
                Some(status) if json => println!("{}", serde_json::to_string(&status)?),
                _ => print_lease(&lease),
            }
            Ok(ExitCode::SUCCESS)
        }
        LeasesCommand::Release { shard, lake } => {
            let store = open(lake).await?;
            let lease = find(&store.list().await?, shard)?.clone();
            if let Holder::Held(holder) = &lease.holder {
                eprintln!("asking {holder} for {}; it commits what it has open first", lease.key);
            }
            let key = lease.key.clone();
            let freed = release(&*store, &operator()?, lease).await?;
            print_freed(&key, &freed, "any worker with less than its share may take it now", json);
            Ok(ExitCode::SUCCESS)
        }
        LeasesCommand::Evict { shard, lake } => {
            let store = open(lake).await?;
            let lease = find(&store.list().await?, shard)?.clone();
            let key = lease.key.clone();
            let freed = evict(&*store, &operator()?, lease).await?;
            print_freed(&key, &freed, "the next worker reads again what was not committed", json);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Makes lost rows again from the commit records.
async fn rebuild_rows(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let clock: SharedClock = Arc::new(SystemClock);
    let (stores, sources) = open_for_rebuild(config, &clock).await?;
    let mut hash_ranges = HashMap::new();
    for source in sources {
        // Without its hash range a row is as good as with it, except in `leases list`.
        for shard in source.shards().await.unwrap_or_default() {
            let key = ShardKey::new(source.stream().clone(), shard.id);
            hash_ranges.extend(shard.hash_range.map(|range| (key, range)));
        }
    }
    let rebuilt = rebuild(&stores, &hash_ranges).await?;
    let code = ExitCode::from(u8::from(!rebuilt.behind.is_empty()));
    let Rebuilt { created, existing, finished, undone, behind } = rebuilt;
    if json {
        let row =
            |(key, at): &(ShardKey, Position)| json!({ "stream": key.stream, "shard": key.shard, "checkpoint": at });
        let late = |(key, at, proved): &(ShardKey, Position, Position)| json!({ "stream": key.stream, "shard": key.shard, "checkpoint": at, "committed": proved });
        let created: Vec<Value> = created.iter().map(row).collect();
        let behind: Vec<Value> = behind.iter().map(late).collect();
        println!(
            "{}",
            json!({ "created": created, "existing": existing, "finished": finished, "undone": undone, "behind": behind })
        );
        return Ok(code);
    }
    let mut table = Table::new(&["stream", "shard", ">checkpoint"]);
    for (key, checkpoint) in &created {
        let (stream, shard) = (shorten(key.stream.as_str(), 24), shorten(key.shard.as_str(), 40));
        table.row([stream, shard, shorten(&checkpoint.to_string(), 24)]);
    }
    if !table.is_empty() {
        println!("{}", table.render(""));
    }
    println!("created {}; {existing} existed", counted(created.len() as u64, "row"));
    for epoch in finished {
        println!("finished epoch {epoch}, which was decided in a lost row");
    }
    for epoch in undone {
        println!("epoch {epoch} has no commit record and was discarded; its records are read again");
    }
    for (key, checkpoint, proved) in &behind {
        println!(
            "{key} has a row at {checkpoint}, but is committed up to {proved}: its records would be read again. Stop all workers, \
             delete this row, and run the command again"
        );
    }
    Ok(code)
}

async fn open(lake: &LakeArgs) -> anyhow::Result<Arc<dyn LeaseStore>> {
    let config = load(&lake.overrides())?;
    Ok(open_existing_leases(&config, load_aws(&config).await?.as_ref()).await?)
}

/// The lease of a shard: by its id, or by `STREAM/SHARD` where several streams have such a shard.
fn find<'l>(leases: &'l [Lease], name: &str) -> anyhow::Result<&'l Lease> {
    let matches = |lease: &&Lease| {
        lease.key.shard.as_str() == name || format!("{}/{}", lease.key.stream, lease.key.shard) == name
    };
    let found: Vec<&Lease> = leases.iter().filter(matches).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(Usage(format!("there is no lease of a shard {name}; shardlake leases list shows all")).into()),
        _ => Err(Usage(format!("several streams have a shard {name}; write STREAM/{name}")).into()),
    }
}

/// An operator's name in the table, which is never the name of a worker.
fn operator() -> anyhow::Result<LeaseOwner> {
    Ok(LeaseOwner::new(format!("operator-{}", LeaseOwner::from_random(random_bytes()?)))?)
}

/// Streams in the table that this lake does not know.
async fn streams_of_others(
    config: &Config,
    aws: Option<&Aws>,
    leases: &Arc<dyn LeaseStore>,
) -> anyhow::Result<BTreeSet<StreamName>> {
    let Ok(lake) = open_existing_lake(config, aws).await else { return Ok(BTreeSet::new()) };
    let stores = Stores::new(lake, Arc::clone(leases), RetryPolicy::CALL).with_streams(stream_names(config));
    let all = stores.leases.list().await?;
    Ok(stores.foreign_streams(&all).await?)
}

fn print_table(table: &LeaseTable, watch: Duration) {
    let mut rows = Table::new(&["stream", "shard", "owner", "state", ">checkpoint", ">KB/s", ">hand-offs", "pending"]);
    for LeaseStatus { lease, state } in &table.leases {
        let handed_to = match &lease.holder {
            Holder::HandingOver { to, .. } => Some(to),
            Holder::Nobody | Holder::Held(_) => None,
        };
        rows.row([
            shorten(lease.key.stream.as_str(), 24),
            shorten(lease.key.shard.as_str(), 40),
            show_holder(lease.holder.committer(), handed_to),
            state.as_str().to_owned(),
            shorten(&lease.checkpoint.to_string(), 24),
            format!("{:.0}", lease.throughput.get()),
            lease.owner_switches_since_checkpoint.to_string(),
            lease.pending.as_ref().map_or_else(String::new, |pending| shorten(pending.manifest.as_str(), 32)),
        ]);
    }
    print!("{}", rows.render(""));
    let mut internal = Table::new(&["operation or replay", "part", "owner", "state", ">checkpoint", "pending"]);
    for LeaseStatus { lease, state } in &table.internal {
        internal.row([
            shorten(lease.key.stream.as_str(), 24),
            shorten(lease.key.shard.as_str(), 40),
            show_holder(lease.holder.committer(), None),
            state.as_str().to_owned(),
            shorten(&lease.checkpoint.to_string(), 24),
            lease.pending.as_ref().map_or_else(String::new, |pending| shorten(pending.manifest.as_str(), 32)),
        ]);
    }
    if !internal.is_empty() {
        println!();
        print!("{}", internal.render(""));
    }
    let mut workers = Table::new(&["worker", ">shards", "counters"]);
    for (owner, shards) in &table.workers {
        let changed = if table.alive.contains(owner) { "changed" } else { "did not change" };
        workers.row([owner.to_string(), shards.to_string(), format!("{changed} within {:.1} s", watch.as_secs_f64())]);
    }
    if !workers.is_empty() {
        println!();
        print!("{}", workers.render(""));
    }
    println!();
    for finding in &table.findings {
        println!("{finding}");
    }
    if !table.other_streams.is_empty() {
        let others: Vec<&str> = table.other_streams.iter().map(StreamName::as_str).collect();
        println!("not shown, since this lake does not know them: streams {}", others.join(", "));
    }
    println!("{} of {}", counted(table.leases.len() as u64, "lease"), counted(table.workers.len() as u64, "worker"));
}

fn print_lease(lease: &Lease) {
    let mut table = Table::new(&["", "", ""]);
    let mut line = |name: &str, value: String, meaning: &str| table.row([name.to_owned(), value, meaning.to_owned()]);
    line("stream", lease.key.stream.to_string(), "");
    line("shard", lease.key.shard.to_string(), "");
    let (holder, meaning) = match &lease.holder {
        Holder::Nobody if lease.is_done() => ("nobody".to_owned(), "the shard is done and needs no holder"),
        Holder::Nobody => ("nobody".to_owned(), "any worker with less than its share may take it"),
        Holder::Held(owner) => (owner.to_string(), "reads the shard and commits it"),
        Holder::HandingOver { from, to } => {
            (format!("{from} to {to}"), "the first commits what it has open, then hands over")
        }
    };
    line("holder", holder, meaning);
    line("counter", lease.counter.to_string(), "grows while the holder is alive");
    line("checkpoint", lease.checkpoint.to_string(), "everything up to here is in the lake");
    match &lease.pending {
        Some(pending) => {
            line("pending", pending.manifest.to_string(), "decided; the next holder of the shard finishes it first");
            line("", format!("through {}", pending.through), "");
        }
        None => line("pending", "nothing".to_owned(), ""),
    }
    if let Some(Ok(epoch)) = lease.last_manifest.as_ref().map(EpochId::of_manifest) {
        line("last commit", epoch.commit_key().to_string(), "the record that moved the checkpoint");
    }
    let ids = |set: &BTreeSet<ShardId>| {
        let ids: Vec<String> = set.iter().map(ToString::to_string).collect();
        if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
    };
    line("parents", ids(&lease.parents), "are read to their ends first");
    line("children", ids(&lease.children), "known once the end of the shard is committed");
    if let Some(range) = lease.hash_range {
        line("hash keys", format!("{} to {}", range.start(), range.end()), "");
    }
    line("hand-offs", lease.owner_switches_since_checkpoint.to_string(), "since the checkpoint moved");
    line("throughput", format!("{:.1} KB/s", lease.throughput.get()), "as the holder last measured it");
    print!("{}", table.render("").trim_start_matches('\n'));
}

fn print_freed(key: &ShardKey, freed: &Freed, next: &str, json: bool) {
    match freed {
        _ if json => {
            let from = match freed {
                Freed::WasFree => None,
                Freed::From(holder) => holder.committer(),
            };
            println!("{}", json!({ "stream": key.stream, "shard": key.shard, "freed_from": from }));
        }
        Freed::WasFree => println!("nobody holds {key}"),
        Freed::From(holder) => println!("{key} is free; it was held by {holder}; {next}"),
    }
}
