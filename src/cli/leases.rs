//! `leases`: who holds which shard, what is wrong with the table, and letting go of a lease by hand.
//!
//! Owns: printing, and the two interventions. `release` asks the holder, which commits what it has open and hands over;
//! `evict` takes the lease away, and what the holder had open is read again by the next one. Neither loses or doubles a
//! record: a holder that lost its lease can't commit.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use checkpoints::{Holder, Lease, LeaseOwner, LeaseStore, ShardKey};
use serde_json::{Value, json};

use crate::cli::args::{LeasesArgs, LeasesCommand, Place};
use crate::cli::output::counted;
use crate::cli::show::owner;
use crate::cli::table::{Table, shorten};
use crate::cli::{Usage, load};
use crate::clock::random_bytes;
use crate::inspect::leases::{ShardState, alive, findings, states};
use crate::settings::units::parse_duration;
use crate::setup::{load_aws, open_existing_leases};

/// How long a holder may take to hand over what it was asked for: it commits first.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(60);

pub(crate) async fn leases(args: &LeasesArgs, json: bool) -> anyhow::Result<ExitCode> {
    match &args.command {
        LeasesCommand::List { place, watch } => {
            let watch = parse_duration(watch).map_err(Usage)?;
            list(&*open(place).await?, watch, json).await
        }
        LeasesCommand::Inspect { shard, place } => {
            let store = open(place).await?;
            let leases = store.list().await?;
            inspect(find(&leases, shard)?, &leases, json);
            Ok(ExitCode::SUCCESS)
        }
        LeasesCommand::Release { shard, place } => {
            let store = open(place).await?;
            let lease = find(&store.list().await?, shard)?.clone();
            release(&*store, lease).await
        }
        LeasesCommand::Evict { shard, place } => {
            let store = open(place).await?;
            let lease = find(&store.list().await?, shard)?.clone();
            evict(&*store, lease).await
        }
    }
}

async fn open(place: &Place) -> anyhow::Result<std::sync::Arc<dyn LeaseStore>> {
    let config = load(&place.overrides())?;
    Ok(open_existing_leases(&config, load_aws(&config).await.as_ref()).await?)
}

/// The lease of a shard: by its id, or by `STREAM/SHARD` where several streams have such a shard.
fn find<'l>(leases: &'l [Lease], name: &str) -> anyhow::Result<&'l Lease> {
    let matches = |lease: &&Lease| {
        lease.key.shard.as_str() == name || format!("{}/{}", lease.key.stream, lease.key.shard) == name
    };
    let found: Vec<&Lease> = leases.iter().filter(matches).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(Usage(format!("there is no lease of a shard {name}: see shardlake leases list")).into()),
        _ => Err(Usage(format!("several streams have a shard {name}: write STREAM/{name}")).into()),
    }
}

async fn list(store: &dyn LeaseStore, watch: Duration, json: bool) -> anyhow::Result<ExitCode> {
    let before = store.list().await?;
    if before.iter().any(|lease| lease.holder != Holder::Nobody) {
        // Leases have no time in them: a holder is alive if its counters move.
        tokio::time::sleep(watch).await;
    }
    let leases = store.list().await?;
    let mut alive = alive(&before, &leases);
    for owner in leases.iter().filter_map(|lease| lease.holder.committer()).collect::<BTreeSet<_>>() {
        if store.owner_is_gone(owner).await? {
            alive.remove(owner);
        }
    }
    let states = states(&leases, &alive);
    let findings = findings(&leases);
    if json {
        let rows: Vec<Value> = leases.iter().map(|lease| row(lease, &states)).collect();
        let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
        println!("{}", json!({ "leases": rows, "alive": alive, "findings": findings }));
        return Ok(ExitCode::from(u8::from(!findings.is_empty())));
    }
    let mut table = Table::new(&["stream", "shard", "owner", "state", ">checkpoint", ">KB/s", ">hand-offs", "pending"]);
    for lease in &leases {
        table.row([
            shorten(lease.key.stream.as_str(), 24),
            shorten(lease.key.shard.as_str(), 40),
            owner(&lease.holder),
            states[&lease.key].as_str().to_owned(),
            shorten(&lease.checkpoint.to_string(), 24),
            format!("{:.0}", lease.throughput.get()),
            lease.owner_switches_since_checkpoint.to_string(),
            lease.pending.as_ref().map_or_else(String::new, |pending| shorten(pending.manifest.as_str(), 32)),
        ]);
    }
    print!("{}", table.render(""));
    let mut workers: BTreeMap<&LeaseOwner, u64> = BTreeMap::new();
    for owner in leases.iter().filter(|lease| !lease.is_done()).filter_map(|lease| lease.holder.committer()) {
        *workers.entry(owner).or_default() += 1;
    }
    let mut table = Table::new(&["worker", ">shards", "counters"]);
    for (owner, shards) in &workers {
        let moves = if alive.contains(*owner) { "move" } else { "did not move" };
        table.row([owner.to_string(), shards.to_string(), format!("{moves} within {:.1} s", watch.as_secs_f64())]);
    }
    if !table.is_empty() {
        println!();
        print!("{}", table.render(""));
    }
    println!();
    for finding in &findings {
        println!("{finding}");
    }
    println!("{} of {}", counted(leases.len() as u64, "lease"), counted(workers.len() as u64, "worker"));
    Ok(ExitCode::from(u8::from(!findings.is_empty())))
}

fn row(lease: &Lease, states: &BTreeMap<&ShardKey, ShardState>) -> Value {
    json!({
        "stream": lease.key.stream, "shard": lease.key.shard, "owner": lease.holder.committer(),
        "handed_to": match &lease.holder { Holder::HandingOver { to, .. } => Some(to), _ => None },
        "state": states.get(&lease.key).map(ShardState::as_str), "counter": lease.counter,
        "checkpoint": lease.checkpoint, "pending": lease.pending.as_ref().map(|pending| &pending.manifest),
        "last_manifest": lease.last_manifest, "parents": lease.parents, "children": lease.children,
        "hash_range": lease.hash_range.map(|range| [range.start().to_string(), range.end().to_string()]),
        "hand_offs_since_checkpoint": lease.owner_switches_since_checkpoint, "throughput_kbps": lease.throughput.get(),
    })
}

fn inspect(lease: &Lease, leases: &[Lease], json: bool) {
    if json {
        println!("{}", row(lease, &states(leases, &BTreeSet::new())));
        return;
    }
    let mut table = Table::new(&["", "", ""]);
    let mut line = |name: &str, value: String, meaning: &str| table.row([name.to_owned(), value, meaning.to_owned()]);
    line("stream", lease.key.stream.to_string(), "");
    line("shard", lease.key.shard.to_string(), "");
    let (holder, meaning) = match &lease.holder {
        Holder::Nobody if lease.is_done() => ("nobody".to_owned(), "needs no holder any more"),
        Holder::Nobody => ("nobody".to_owned(), "the next worker that has less than its share takes it"),
        Holder::Held(owner) => (owner.to_string(), "reads the shard and commits it"),
        Holder::HandingOver { from, to } => {
            (format!("{from} to {to}"), "the first commits what it has open, then lets go")
        }
    };
    line("holder", holder, meaning);
    line("counter", lease.counter.to_string(), "grows while the holder lives");
    line("checkpoint", lease.checkpoint.to_string(), "everything up to here is in the lake");
    match &lease.pending {
        Some(pending) => {
            line("pending", pending.manifest.to_string(), "decided: whoever holds the shard next finishes it first");
            line("", format!("through {}", pending.through), "");
        }
        None => line("pending", "nothing".to_owned(), ""),
    }
    if let Some(manifest) = &lease.last_manifest {
        let record = manifest.as_str().replacen("_intents/", "_commits/", 1);
        line("last commit", record, "the record that moved the checkpoint");
    }
    let ids = |set: &BTreeSet<checkpoints::ShardId>| {
        let ids: Vec<String> = set.iter().map(ToString::to_string).collect();
        if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
    };
    line("parents", ids(&lease.parents), "are read to their ends first");
    line("children", ids(&lease.children), "known once the end is reached");
    if let Some(range) = lease.hash_range {
        line("hash keys", format!("{} to {}", range.start(), range.end()), "");
    }
    line("hand-offs", lease.owner_switches_since_checkpoint.to_string(), "since the checkpoint moved");
    line("throughput", format!("{:.1} KB/s", lease.throughput.get()), "as the holder last measured it");
    print!("{}", table.render("").trim_start_matches('\n'));
}

/// An operator, as the table sees one: never the name of a worker.
fn operator() -> anyhow::Result<LeaseOwner> {
    Ok(LeaseOwner::new(format!("operator-{}", LeaseOwner::from_random(random_bytes()?)))?)
}

async fn release(store: &dyn LeaseStore, lease: Lease) -> anyhow::Result<ExitCode> {
    let key = lease.key;
    let holder = match lease.holder {
        Holder::Nobody => {
            println!("nobody holds {key}");
            return Ok(ExitCode::SUCCESS);
        }
        Holder::HandingOver { from, to } => {
            anyhow::bail!("{key} is on its way from {from} to {to} already: wait, or evict it");
        }
        Holder::Held(owner) => owner,
    };
    let me = operator()?;
    if !store.ask(&me, &key, &holder).await? {
        anyhow::bail!("{key} has just changed hands: look again");
    }
    eprintln!("asked {holder} for {key}: it commits what it has open first");
    let deadline = tokio::time::Instant::now() + HAND_OVER_WITHIN;
    while tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let row = store.get(std::slice::from_ref(&key)).await?.pop().flatten();
        match row.map(|row| row.holder) {
            Some(Holder::HandingOver { to, .. }) if to == me => {}
            Some(Holder::Held(owner)) if owner == me => {
                store.release(&me, &key).await?;
                println!("{key} is free; the next worker that has less than its share takes it");
                return Ok(ExitCode::SUCCESS);
            }
            _ => anyhow::bail!("{key} was taken by another worker meanwhile"),
        }
    }
    anyhow::bail!(
        "{holder} did not hand {key} over within {} s: if it is dead, shardlake leases evict takes the lease away",
        HAND_OVER_WITHIN.as_secs()
    )
}

async fn evict(store: &dyn LeaseStore, lease: Lease) -> anyhow::Result<ExitCode> {
    let key = lease.key;
    if lease.holder == Holder::Nobody {
        println!("nobody holds {key}");
        return Ok(ExitCode::SUCCESS);
    }
    let me = operator()?;
    let mut counter = lease.counter;
    // A holder that is alive moves the counter meanwhile.
    for _ in 0..10 {
        if store.take(&me, &key, counter).await?.is_some() {
            store.release(&me, &key).await?;
            println!("took {key} from {}; what it had open is read again by the next worker", lease.holder);
            return Ok(ExitCode::SUCCESS);
        }
        let Some(row) = store.get(std::slice::from_ref(&key)).await?.pop().flatten() else { break };
        counter = row.counter;
    }
    anyhow::bail!("{key} could not be taken: its counter moves too fast, or its row is gone; try again")
}
