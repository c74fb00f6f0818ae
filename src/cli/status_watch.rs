//! `status --watch`: the state of a fleet on a terminal, read again and again.
//!
//! Owns: the page and how it fits the terminal, rates, and how often sources are asked. Does not own: reading the state (`status`), what
//! workers serve (`server`).
//!
//! On a terminal the page replaces the one before. Elsewhere, pages follow each other; with `--json` each is a line.

use std::collections::{HashMap, VecDeque};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use checkpoints::{Lease, LeaseOwner, ShardKey};
use console::Term;
use pipeline::time::{format_rfc3339, parse_rfc3339};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::cli::output::{Table, counted, shorten, show_count, show_holder, show_number};
use crate::cli::show_args::StatusArgs;
use crate::cli::status::{show_behind, sources};
use crate::cli::{Usage, load};
use crate::clock::{Clock, SystemClock};
use crate::commit::log::{Complete, Watermark};
use crate::commit::{Stores, log};
use crate::config::Config;
use crate::inspect::{ShardStatus, Status, how_far_behind};
use crate::settings::units::parse_duration;
use crate::setup::open_existing;
use crate::source::{Behind, ShardSource, losses};

/// The shortest time between two pages.
const EVERY_MIN: Duration = Duration::from_millis(200);
/// The shortest time between two rounds of questions to sources, which answer few questions a second.
const ASK_EVERY: Duration = Duration::from_secs(15);
/// How long the first page waits for their answers.
const FIRST_WITHIN: Duration = Duration::from_secs(2);
/// Rates are of the commits in this time: a fleet commits every few minutes.
const RATE_OVER: Duration = Duration::from_secs(900);
/// Size of the page where it is not known.
const SIZE: (usize, usize) = (24, 100);
/// Problems that the page shows.
const PROBLEMS: usize = 3;

/// What one page needs beside the state.
struct Page<'p> {
    lake: &'p str,
    now_ms: i64,
    /// Records and dead letters a second, once two commits were seen.
    rates: Option<(f64, f64)>,
    /// Rows and columns of the terminal.
    size: (usize, usize),
    /// Why the state could not be read again.
    problem: Option<String>,
}

pub(crate) async fn watch(args: &StatusArgs, every: &str, json: bool) -> anyhow::Result<ExitCode> {
    let every = parse_duration(every).map_err(|problem| Usage(format!("--watch: {problem}")))?.max(EVERY_MIN);
    let config = load(&args.lake.overrides())?.waiting_briefly();
    let stores = open_existing(&config).await?;
    let lake = config.lake.to_string();
    let terminal = (std::io::stdout().is_terminal() && !json).then(Term::stdout);
    let mut asked = Asked::default();
    let mut seen = Seen::default();
    let mut shown: Option<Status> = None;
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ctrl_c = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let read = tokio::select! {
            _ = &mut ctrl_c => break,
            read = async {
                ticks.tick().await;
                read(&config, &stores, &mut asked).await
            } => read,
        };
        let problem = match (read, &shown) {
            (Ok(status), _) => {
                shown = Some(status);
                None
            }
            (Err(error), None) => return Err(error),
            // What was read last stays.
            (Err(error), Some(_)) => Some(format!("! cannot be read now: {error}")),
        };
        let Some(status) = &shown else { continue };
        if json {
            if problem.is_none() {
                println!("{}", serde_json::to_string(status)?);
                std::io::stdout().flush()?;
            }
            continue;
        }
        let size = terminal.as_ref().and_then(Term::size_checked).map(|(rows, columns)| (rows.into(), columns.into()));
        let (rates, size) = (seen.note(status, Instant::now()), size.unwrap_or(SIZE));
        let text = Page { lake: &lake, now_ms: SystemClock.now_ms(), rates, size, problem }.render(status);
        match &terminal {
            // Cleared line by line, so that it does not flicker.
            Some(terminal) => {
                terminal.hide_cursor()?;
                terminal.move_cursor_to(0, 0)?;
                let lines = text.replace('\n', "\x1b[K\n");
                terminal.write_str(&format!("{lines}\x1b[J"))?;
                terminal.flush()?;
            }
            None => println!("{text}\n"),
        }
    }
    if let Some(terminal) = terminal {
        terminal.show_cursor()?;
        println!();
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the state of the fleet. How far shards are behind may be some seconds old.
async fn read(config: &Config, stores: &Stores, asked: &mut Asked) -> anyhow::Result<Status> {
    let log = log::read(stores).await?;
    asked.ask(config, stores, &log.leases).await?;
    let mut status = Status::new(log, &asked.behind);
    let losses = losses::list(&*stores.lake).await?;
    status.losses = losses.into_iter().filter(|(_, then)| then.is_none()).map(|(loss, _)| loss).collect();
    Ok(status)
}

/// What sources have said of how far shards are behind.
#[derive(Default)]
struct Asked {
    behind: HashMap<ShardKey, Behind>,
    sources: Option<Vec<Arc<dyn ShardSource>>>,
    asking: Option<JoinHandle<HashMap<ShardKey, Behind>>>,
    at: Option<Instant>,
}

impl Asked {
    /// Asks the sources, if they were not asked lately, and takes their answers. Waits a little for the first ones only.
    async fn ask(&mut self, config: &Config, stores: &Stores, leases: &[Lease]) -> anyhow::Result<()> {
        let is_first = self.at.is_none();
        if self.asking.is_none() && self.at.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
            let sources = match &self.sources {
                Some(sources) => sources.clone(),
                None => {
                    let streams = leases.iter().map(|lease| lease.key.stream.clone()).collect();
                    sources(config, &stores.lake, &streams).await
                }
            };
            self.sources = Some(sources.clone());
            self.at = Some(Instant::now());
            let leases = leases.to_vec();
            self.asking = Some(tokio::spawn(async move { how_far_behind(&sources, &leases).await }));
        }
        if let Some(asking) = &mut self.asking {
            let patience = if is_first { FIRST_WITHIN } else { Duration::ZERO };
            if let Ok(answers) = tokio::time::timeout(patience, asking).await {
                self.asking = None;
                self.behind = answers?;
            }
        }
        Ok(())
    }
}

/// Totals that were seen, for rates.
#[derive(Default)]
struct Seen(VecDeque<(Instant, u64, u64)>);

impl Seen {
    /// Notes totals. Returns records and dead letters a second between the first and the last commit that were seen.
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn note(&mut self, status: &Status, now: Instant) -> Option<(f64, f64)> {
        let (records, dead) = (status.totals.records, status.totals.dead_letters.values().sum());
        if self.0.back().is_none_or(|last| last.1 != records) {
            self.0.push_back((now, records, dead));
        }
        while self.0.len() > 2 && self.0.front().is_some_and(|first| now.duration_since(first.0) > RATE_OVER) {
            self.0.pop_front();
        }
        let (first, last) = (self.0.front()?, self.0.back()?);
        // When nothing is committed any more, the rate falls.
        let seconds = now.duration_since(first.0).as_secs_f64();
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        (self.0.len() > 1 && seconds > 0.0).then(|| (rate(first.1, last.1), rate(first.2, last.2)))
    }
}

impl Page<'_> {
    fn render(&self, status: &Status) -> String {
        let mut lines = vec![format!("{}   {}   Ctrl-C ends", shorten(self.lake, 48), format_rfc3339(self.now_ms))];
        lines.push(self.totals(status));
        lines.push(workers(status));
        lines.extend(self.datasets(status));
        lines.extend(self.problem.clone());
        lines.extend(problems(status));
        lines.push(String::new());
        let mut shards: Vec<&ShardStatus> = status.shards.iter().collect();
        shards.sort_by_cached_key(|shard| {
            std::cmp::Reverse((shard.behind_ms, shard.behind_bytes, shard.owner.is_none()))
        });
        // Two lines for the header of the table and for what is left out.
        let room = self.size.0.saturating_sub(lines.len() + 3).max(3);
        let mut table = Table::new(&["shard", "owner", ">checkpoint", ">behind", "pending"]);
        for shard in shards.iter().take(room) {
            table.row([
                shorten(shard.shard.as_str(), 36),
                show_holder(shard.owner.as_ref(), shard.handed_to.as_ref()),
                shorten(&shard.checkpoint.to_string(), 20),
                show_behind(shard),
                if shard.pending.is_some() { "commits".to_owned() } else { String::new() },
            ]);
        }
        lines.extend(table.render("").lines().map(str::to_owned));
        if let Some(more @ 1..) = shards.len().checked_sub(room) {
            lines.push(format!("and {} that are less behind", counted(more as u64, "shard")));
        }
        lines.iter().map(|line| cut(line, self.size.1)).collect::<Vec<_>>().join("\n")
    }

    fn totals(&self, status: &Status) -> String {
        let dead: u64 = status.totals.dead_letters.values().sum();
        let rate = |of: fn((f64, f64)) -> f64| {
            self.rates
                .map_or_else(String::new, |rates| format!(" ({}/s)", show_number((of(rates) * 10.0).round() / 10.0)))
        };
        let last = status.last_commit.as_ref().and_then(|at| parse_rfc3339(at.as_bytes()));
        let last = last.map_or_else(String::new, |ms| format!(", the last {} ago", show_age(self.now_ms - ms)));
        format!(
            "{}{}   {}{}   {} committed{last}",
            counted(status.totals.records, "record"),
            rate(|rates| rates.0),
            counted(dead, "dead letter"),
            rate(|rates| rates.1),
            counted(status.epochs, "epoch"),
        )
    }

    /// Up to when each dataset is complete.
    fn datasets(&self, status: &Status) -> Vec<String> {
        let of_streams = |one: &&Watermark| one.streams.iter().any(|stream| stream.has_times);
        let line = |one: &Watermark| match &one.complete {
            Complete::Through { complete_through, held_back_by } => format!(
                "{}: complete up to {} ago, held back by {}",
                one.dataset,
                show_age(self.now_ms - complete_through),
                shorten(held_back_by.shard.as_str(), 32)
            ),
            Complete::Unknown { held_back_by } => {
                format!("{}: not known, because of {}", one.dataset, shorten(held_back_by.shard.as_str(), 32))
            }
            Complete::Ended => format!("{}: complete, all shards have ended", one.dataset),
        };
        status.watermarks.iter().filter(of_streams).map(line).collect()
    }
}

/// How many workers hold how many shards.
fn workers(status: &Status) -> String {
    let mut held: HashMap<&LeaseOwner, u64> = HashMap::new();
    for owner in status.shards.iter().filter_map(|shard| shard.owner.as_ref()) {
        *held.entry(owner).or_default() += 1;
    }
    let ended = |shard: &&ShardStatus| shard.checkpoint == checkpoints::Position::End;
    let free = status.shards.iter().filter(|shard| shard.owner.is_none() && !ended(shard)).count() as u64;
    let moving = status.shards.iter().filter(|shard| shard.handed_to.is_some()).count() as u64;
    let (most, least) = (held.values().max().copied().unwrap_or(0), held.values().min().copied().unwrap_or(0));
    let spread = if held.is_empty() { String::new() } else { format!(", {least} to {most} shards each") };
    format!(
        "{}{spread}   {} held by nobody   {} being handed over",
        counted(held.len() as u64, "worker"),
        counted(free, "shard"),
        show_count(moving)
    )
}

fn problems(status: &Status) -> Vec<String> {
    let losses = status.losses.iter().map(|loss| format!("! loss: {}: {}", loss.key(), loss.problem));
    let unreadable = status.unreadable.iter().map(|problem| format!("! {problem}"));
    let all: Vec<String> = losses.chain(unreadable).collect();
    let more = all.len().saturating_sub(PROBLEMS) as u64;
    let shown = all.into_iter().take(PROBLEMS);
    shown
        .chain((more > 0).then(|| format!("! {} more; `shardlake doctor` shows all", counted(more, "problem"))))
        .collect()
}

/// A time of people: two units at most.
fn show_age(ms: i64) -> String {
    let seconds = (ms / 1000).max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// The beginning of a line that fits.
fn cut(line: &str, columns: usize) -> String {
    line.chars().take(columns.max(20)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::log::{Chains, Fold, Log};
    use checkpoints::{Holder, NewLease, Position, ShardId, StreamName};

    fn status(shards: usize) -> Status {
        let lease = |number: usize| {
            let key =
                ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new(format!("shard-{number:03}")).unwrap());
            let holder = match number {
                0 => Holder::Nobody,
                _ => Holder::Held(LeaseOwner::new(format!("worker-{}", number % 3)).unwrap()),
            };
            Lease { holder, ..Lease::new(NewLease::new(key, Position::Beginning)) }
        };
        let leases: Vec<Lease> = (0..shards).map(lease).collect();
        let behind = leases.iter().enumerate();
        let behind = behind.map(|(number, lease)| (lease.key.clone(), Behind::Time(1_000 * number as u64))).collect();
        let log = Log {
            fold: Fold::default(),
            chains: Chains::default(),
            overlaps: Vec::new(),
            unreadable: Vec::new(),
            leases,
            roll_up: None,
            records_read: 0,
        };
        Status::new(log, &behind)
    }

    #[test]
    fn the_page_fits_the_terminal_and_shows_what_is_most_behind() {
        let mut status = status(100);
        status.totals.records = 1_234_567;
        for size in [(24, 80), (10, 40), (60, 200), (3, 10)] {
            let page = Page { lake: "s3://bucket/lake", now_ms: 0, rates: Some((12.345, 0.0)), size, problem: None };
            let text = page.render(&status);
            assert!(text.lines().count() <= size.0.max(12), "{size:?}:\n{text}");
            assert!(text.lines().all(|line| line.chars().count() <= size.1.max(20)), "{size:?}:\n{text}");
            let first = text.lines().position(|line| line.starts_with("shard ")).unwrap() + 1;
            assert!(text.lines().nth(first).unwrap().starts_with("shard-099"), "{text}");
        }
        let page = Page { lake: "lake", now_ms: 0, rates: Some((12.345, 0.0)), size: (24, 100), problem: None };
        let text = page.render(&status);
        for part in
            ["1,234,567 records (12.3/s)", "3 workers, 33 to 33 shards each", "1 shard held by nobody", "less behind"]
        {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }

    #[test]
    fn rates_are_between_the_first_and_the_last_commit_that_were_seen() {
        let (mut seen, mut status, begun) = (Seen::default(), status(1), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(seen.note(&status, begun), None);
        status.totals.records = 600;
        assert_eq!(seen.note(&status, at(60)), Some((10.0, 0.0)));
        assert_eq!(seen.note(&status, at(120)), Some((5.0, 0.0)), "nothing was committed in the second minute");
    }

    #[test]
    fn ages_have_two_units() {
        let shown = [-5, 999, 61_000, 3_660_000, 90_000_000].map(show_age);
        assert_eq!(shown, ["0 s", "0 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }
}
