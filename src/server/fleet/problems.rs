//! What is wrong now, with the command to type.
//!
//! Owns: the conditions and their sentences. The names are those of the alerts, which are evaluated by Prometheus and CloudWatch over
//! longer times (`telemetry`). Here a condition shows at once, and goes at once. Does not own: the figures.

use std::time::Duration;

use crate::inspect::leases::ShardState;
use crate::named_checkpoints::Usability;
use crate::replay::status::State;
use crate::server::fleet::model::{DeadLetterCode, FleetWorker, Problem, Severity, Shard};
use crate::server::fleet::stores::Snapshot;
use crate::server::health::{Report, spoken};
use crate::server::site::View;
use crate::trouble;

/// How far a shard may be behind.
const BEHIND_S: f64 = 900.0;
/// The share of the retention that may be used.
const RETENTION: f64 = 0.5;
/// How long a decided epoch may take to finish.
const PENDING: Duration = Duration::from_secs(300);
/// How long a shard may have no holder.
const FREE: Duration = Duration::from_secs(60);
/// How long a service may fail.
const FAILING: Duration = Duration::from_secs(20);
/// How often the objective of freshness may be missed: the age of the oldest record that is not committed, by it.
const FRESHNESS: f64 = 2.0;
/// Commit intervals after which what was read must be committed.
const INTERVALS: f64 = 3.0;
/// The least time for that: short intervals are for tests and demonstrations.
const COMMIT_S_MIN: f64 = 60.0;
/// Epochs of an hour that may be aborted.
const ABORTED: u64 = 3;
/// One record of this many may be a dead letter.
const DEAD_LETTERS_ONE_OF: u64 = 100;
/// Fewer dead letters an hour do not matter.
const DEAD_LETTERS_MIN: u64 = 10;

/// What the conditions are about.
pub(super) struct Facts<'f> {
    pub(super) view: &'f View,
    pub(super) snapshot: &'f Snapshot,
    pub(super) shards: &'f [Shard],
    pub(super) workers: &'f [FleetWorker],
    pub(super) aborted_last_hour: u64,
    pub(super) readiness: Report,
    pub(super) liveness: Report,
}

impl Facts<'_> {
    /// Everything that is wrong, the worst first.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.health(&mut problems);
        self.shards(&mut problems);
        self.lake(&mut problems);
        problems.sort_by_key(|problem| problem.severity);
        problems
    }

    fn command(&self, command: &str) -> String {
        format!("shardlake {command} {}", self.view.place)
    }

    fn problem(&self, severity: Severity, name: &'static str, what: String, command: &str) -> Problem {
        Problem { severity, name, what, command: Some(self.command(command)) }
    }

    /// This process, the services, and the other workers.
    fn health(&self, problems: &mut Vec<Problem>) {
        for reason in &self.liveness.reasons {
            let what = format!("This worker is stuck: {reason}.");
            problems.push(self.problem(Severity::Page, "ShardlakeWorkerDown", what, "status"));
        }
        if self.readiness.state == "stopping" {
            let what = "This worker is stopping: it commits what it has read, and releases its shards.".to_owned();
            problems.push(Problem { severity: Severity::Note, name: "ShardlakeWorkerStopping", what, command: None });
        } else {
            for reason in &self.readiness.reasons {
                let what = format!("This worker is not ready: {reason}.");
                problems.push(self.problem(Severity::Page, "ShardlakeServiceFailing", what, "leases list"));
            }
        }
        for (service, failing_for) in trouble::services().into_iter().filter(|(_, time)| *time >= FAILING) {
            let what = format!("This fails and is retried, for {}: {service}.", spoken(failing_for));
            problems.push(self.problem(Severity::Page, "ShardlakeServiceFailing", what, "config check"));
        }
        for (what, problem) in &self.snapshot.failures {
            let what = format!("Cannot read {what}, so what the page shows of it is old: {problem}.");
            problems.push(self.problem(Severity::Page, "ShardlakeServiceFailing", what, "status"));
        }
        for worker in self.workers.iter().filter(|worker| worker.state == "silent" && worker.shards > 0) {
            let silent = seconds(worker.silent_s.unwrap_or_default());
            let what = format!(
                "Worker {} has been silent for {silent} and holds {}. Others take them after the failover time.",
                worker.id,
                counted(worker.shards, "shard")
            );
            problems.push(self.problem(Severity::Page, "ShardlakeWorkerDown", what, "leases list"));
        }
        if self.aborted_last_hour >= ABORTED {
            let what = format!(
                "This worker has lost leases again and again: {} were aborted in the last hour.",
                counted(self.aborted_last_hour, "epoch")
            );
            problems.push(self.problem(Severity::Ticket, "ShardlakeEpochsAborted", what, "leases list"));
        }
    }

    fn shards(&self, problems: &mut Vec<Problem>) {
        let table = &self.snapshot.table;
        // The worker has watched the table since its start, and the page only since somebody watches.
        let scanned = self.view.progress.fleet();
        let unowned_for = scanned.as_ref().map_or(Duration::ZERO, |fleet| fleet.unowned_for);
        let longest = table.free_since.iter().max_by_key(|(_, since)| since.elapsed());
        if let Some((key, since)) = longest.filter(|(_, since)| since.elapsed().max(unowned_for) >= FREE) {
            let what = format!(
                "{} without an owner, such as {key}, for {}.",
                are(table.free_since.len() as u64, "shard"),
                spoken(since.elapsed().max(unowned_for))
            );
            problems.push(self.problem(Severity::Page, "ShardlakeShardWithoutOwner", what, "leases list"));
        }
        let pending_for = scanned.as_ref().map_or(Duration::ZERO, |fleet| fleet.pending_for);
        let longest = table.pending_since.iter().max_by_key(|(_, since)| since.elapsed());
        if let Some((key, since)) = longest.filter(|(_, since)| since.elapsed().max(pending_for) >= PENDING) {
            let what = format!(
                "A commit is decided and not finished, that of {key} for {}.",
                spoken(since.elapsed().max(pending_for))
            );
            problems.push(self.problem(
                Severity::Page,
                "ShardlakeEpochStalled",
                what,
                &format!("leases inspect {key}"),
            ));
        }
        let is_read = |shard: &&Shard| shard.state != ShardState::Done.as_str();
        let worst = |figure: &dyn Fn(&Shard) -> Option<f64>, limit: f64| {
            let over = self.shards.iter().filter(is_read);
            let over: Vec<(f64, &Shard)> =
                over.filter_map(|shard| Some((figure(shard)?, shard))).filter(|(value, _)| *value > limit).collect();
            let worst = over.iter().max_by(|(one, _), (other, _)| one.total_cmp(other)).copied();
            worst.map(|(value, shard)| (over.len() as u64, value, shard))
        };
        if let Some((count, share, shard)) = worst(&|shard| shard.retention_used, RETENTION) {
            let what = format!(
                "{} more than half of the retention behind; {} has used {:.0} % of it. Records expire at 100 %.",
                are(count, "shard"),
                shard.shard,
                share * 100.0
            );
            problems.push(self.problem(Severity::Page, "ShardlakeRetentionHalfUsed", what, "status"));
        }
        // A shard of another worker is behind by what is committed, so the interval of commits is a part of it.
        let slack = BEHIND_S + self.view.commit_interval.as_secs_f64();
        let behind = |shard: &Shard| {
            let is_idle =
                shard.at_tip == Some(true) || (!shard.is_here && shard.bytes_per_s.is_none_or(|rate| rate <= 0.0));
            if is_idle { None } else { shard.behind_s }
        };
        if let Some((count, value, shard)) = worst(&behind, slack) {
            let what = format!("{} behind; the worst is {}, by {}.", are(count, "shard"), shard.shard, seconds(value));
            problems.push(self.problem(Severity::Ticket, "ShardlakeShardBehind", what, "status"));
        }
        let age_max = FRESHNESS * self.view.freshness.as_secs_f64();
        // A file may have been written long ago, and is as fresh as it can be.
        let age = |shard: &Shard| shard.retention_used.and(shard.oldest_uncommitted_s);
        if let Some((count, value, shard)) = worst(&age, age_max) {
            let what = format!(
                "{} not fresh; the oldest record of {} that is not in the lake is {} old.",
                are(count, "shard"),
                shard.shard,
                seconds(value)
            );
            problems.push(self.problem(Severity::Page, "ShardlakeDataNotFresh", what, "status"));
        }
        let late = (INTERVALS * self.view.commit_interval.as_secs_f64()).max(COMMIT_S_MIN);
        let uncommitted = |shard: &Shard| shard.uncommitted_s;
        if let Some((count, value, shard)) = worst(&uncommitted, late) {
            let what = format!(
                "{} read records and not committed for {}; the worst is {}.",
                if count == 1 { "1 shard has".to_owned() } else { format!("{count} shards have") },
                seconds(value),
                shard.shard
            );
            problems.push(self.problem(Severity::Page, "ShardlakeNoCommit", what, "status"));
        }
    }

    fn lake(&self, problems: &mut Vec<Problem>) {
        if !self.snapshot.losses.is_empty() {
            let count = self.snapshot.losses.len() as u64;
            let first = self
                .snapshot
                .losses
                .first()
                .map_or_else(String::new, |loss| format!(" {}: {}", loss.key(), loss.problem));
            let what = format!("DATA LOSS: {} that nobody has accepted.{first}", counted(count, "loss"));
            problems.push(self.problem(Severity::Page, "ShardlakeDataLost", what, "losses list"));
        }
        if let Some(log) = &self.snapshot.log {
            let records: u64 = self.snapshot.by_minute.0.iter().sum();
            let recent: u64 = log.dead_letters.iter().map(|code| code.last_hour).sum();
            if recent >= DEAD_LETTERS_MIN && recent.saturating_mul(DEAD_LETTERS_ONE_OF) > records {
                let code = log.dead_letters.first().map_or("", |code| &code.code);
                let what = format!(
                    "{recent} of {records} records of the last hour became dead letters, most of them {code}.",
                );
                let show = format!("deadletters show --code {code}");
                problems.push(self.problem(Severity::Ticket, "ShardlakeDeadLetters", what, &show));
            }
            // In a young lake everything is new.
            let is_old = log.totals.records > records.saturating_mul(2);
            let is_new = |code: &&DeadLetterCode| is_old && code.last_hour > 0 && code.records == code.last_hour;
            let new: Vec<&DeadLetterCode> = log.dead_letters.iter().filter(is_new).collect();
            if let Some(first) = new.first() {
                let names: Vec<String> = new.iter().map(|code| format!("{} ({})", code.code, code.records)).collect();
                let what = format!("Dead letters of a kind that is new in the last hour: {}.", names.join(", "));
                let show = format!("deadletters show --code {}", first.code);
                problems.push(self.problem(Severity::Ticket, "ShardlakeNewDeadLetterCode", what, &show));
            }
        }
        for ending in &self.snapshot.ending_checkpoints {
            let what = match ending.usability {
                Usability::Expired => format!("Checkpoint {} was usable until {}.", ending.name, ending.usable.until()),
                _ => format!("Checkpoint {} is usable until {}.", ending.name, ending.usable.until()),
            };
            problems.push(self.problem(Severity::Ticket, "ShardlakeCheckpointExpiring", what, "checkpoints list"));
        }
        for replay in self.snapshot.replays.iter().filter(|replay| replay.state == State::Stopped) {
            let id = replay.id.as_str();
            let what = format!("Replay {id} has begun, is not complete, and nobody runs it.");
            let start = format!("replay start {id}");
            problems.push(self.problem(Severity::Note, "ShardlakeReplayStopped", what, &start));
        }
    }
}

/// `1 shard`, `2 shards`.
fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ if noun.ends_with('s') => format!("{count} {noun}es"),
        _ => format!("{count} {noun}s"),
    }
}

/// `1 shard is`, `2 shards are`.
fn are(count: u64, noun: &str) -> String {
    format!("{} {}", counted(count, noun), if count == 1 { "is" } else { "are" })
}

fn seconds(seconds: f64) -> String {
    spoken(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}
