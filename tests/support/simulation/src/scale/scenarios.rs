//! What happens to a fleet, and what is measured.
//!
//! Owns: the order of things, and the figures. Does not own: the workers (`fleet`), the rules of scaling (`autoscaler`).
//!
//! Each run begins with the start of all workers at once, and waits until they have shared the shards. It ends with the end of the load: then
//! every record must be committed, once.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::autoscaler::Autoscaler;
use super::fleet::{ScaleFleet, View};
use super::requests::{Counts, float};
use super::{Scale, Scenario};

/// How often the fleet is inspected.
const EVERY: Duration = Duration::from_secs(1);
/// The longest time that anything may take.
const BOUND_S: f64 = 4.0 * 3600.0;
/// How long the fleet or the load is away, or the load is high.
const AWAY: Duration = Duration::from_secs(1_800);
const HIGH: Duration = Duration::from_secs(3_600);
/// From the decision to the first request of a task of Fargate.
const TASK_STARTS: f64 = 60.0;
/// The storm: within which time half of the workers go, how long after the signal each is killed, and when it is replaced.
const STORM_S: f64 = 120.0;
const NOTICE_S: f64 = 30.0;
const REPLACED_S: f64 = 240.0;
/// Seconds between two points of the curve.
const POINT_S: f64 = 30.0;
/// By how much records may be older than the interval of commits before the fleet counts as behind.
const LATE_S: f64 = 60.0;

/// Something that will happen.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Start,
    Terminate(usize),
    Kill(usize),
}

struct Run {
    fleet: ScaleFleet,
    /// By the second at which each happens.
    events: Vec<(f64, Event)>,
    /// Seconds, workers, oldest record, bytes that are not committed, shards that nobody holds.
    curve: Vec<Value>,
    next_point: f64,
    worst: View,
    late_until: Option<f64>,
    unheld_shard_seconds: f64,
}

/// Runs a scenario.
///
/// # Panics
/// A worker ended unasked, or a record is not in the lake exactly once.
pub async fn run(scale: Scale) -> Value {
    let mut run = Run {
        fleet: ScaleFleet::new(scale),
        events: Vec::new(),
        curve: Vec::new(),
        next_point: 0.0,
        worst: View::default(),
        late_until: None,
        unheld_shard_seconds: 0.0,
    };
    let mut measured = Map::new();
    (0..run.fleet.scale.workers).for_each(|_| run.fleet.start());
    let (held, balanced) = run.settle().await;
    measured.insert("held_s".to_owned(), seconds(held));
    measured.insert("balanced_s".to_owned(), seconds(balanced));
    let pause = run.fleet.scale.interval + Duration::from_secs(120);
    run.pass(pause).await;
    (run.worst, run.late_until, run.unheld_shard_seconds) = (View::default(), None, 0.0);
    let (before, begun) = (run.fleet.services.counts(), run.fleet.now_s());
    let (epochs, _, _) = run.fleet.committed();
    let hours = run.fleet.task_hours();
    let found = run.happen().await;
    let passed = run.fleet.now_s() - begun;
    let counts = run.fleet.services.counts().since(&before);
    let epochs = run.fleet.committed().0 - epochs;
    measured.insert("counted".to_owned(), of_counts(&counts, passed, epochs, run.fleet.task_hours() - hours));
    measured.extend(found);
    measured.insert("oldest_max_s".to_owned(), json!(run.worst.oldest_s));
    measured.insert("uncommitted_max".to_owned(), json!(run.worst.uncommitted));
    measured.insert("workers_most".to_owned(), json!(run.worst.workers));
    measured.insert("unheld_most".to_owned(), json!(run.worst.unheld));
    measured.insert("unheld_shard_seconds".to_owned(), json!(run.unheld_shard_seconds));
    measured.insert("late_s".to_owned(), seconds(run.late_until.map(|until| until - begun)));
    let curve = run.curve.iter().filter(|point| point[0].as_f64().is_some_and(|at| at >= begun - 300.0));
    let curve: Vec<Value> = curve.cloned().collect();
    measured.insert("begun_s".to_owned(), json!(begun));
    measured.insert("curve".to_owned(), json!(curve));
    run.prove(&mut measured).await;
    Value::Object(measured)
}

fn seconds(at: Option<f64>) -> Value {
    at.map_or(Value::Null, |at| json!((at * 10.0).round() / 10.0))
}

fn of_counts(counts: &Counts, passed: f64, epochs: u64, task_hours: f64) -> Value {
    let requests: Map<String, Value> =
        counts.requests.iter().map(|(operation, count)| (operation.name(), json!(count))).collect();
    json!({
        "seconds": passed,
        "requests": requests,
        "read_units": counts.read_units,
        "write_units": counts.write_units,
        "throttled": counts.throttled,
        "cpu_s": counts.cpu.as_secs_f64(),
        "epochs": epochs,
        "task_hours": task_hours,
    })
}

impl Run {
    /// Lets a second pass.
    async fn tick(&mut self) -> View {
        tokio::time::sleep(EVERY).await;
        let now = self.fleet.now_s();
        let due: Vec<Event> = self.events.iter().filter(|(at, _)| *at <= now).map(|(_, event)| *event).collect();
        self.events.retain(|(at, _)| *at > now);
        for event in due {
            match event {
                Event::Start => self.fleet.start(),
                Event::Terminate(number) => self.fleet.terminate(number),
                Event::Kill(number) => self.fleet.kill(number),
            }
        }
        self.fleet.check().await;
        let view = self.fleet.view();
        self.worst = View {
            workers: self.worst.workers.max(view.workers),
            unheld: self.worst.unheld.max(view.unheld),
            oldest_s: self.worst.oldest_s.max(view.oldest_s),
            uncommitted: self.worst.uncommitted.max(view.uncommitted),
            ..view
        };
        if view.oldest_s > self.fleet.scale.interval.as_secs_f64() + LATE_S {
            self.late_until = Some(now);
        }
        self.unheld_shard_seconds += float(view.unheld as u64);
        if now >= self.next_point {
            self.next_point = now + POINT_S;
            let (oldest, uncommitted) = (view.oldest_s.round(), view.uncommitted.round());
            self.curve.push(json!([now.round(), view.workers, oldest, uncommitted, view.unheld]));
        }
        view
    }

    async fn pass(&mut self, time: Duration) {
        let end = self.fleet.now_s() + time.as_secs_f64();
        while self.fleet.now_s() < end {
            self.tick().await;
        }
    }

    /// Waits until something holds. Returns how long that took; `None` if it never does.
    async fn until(&mut self, holds: impl Fn(&View) -> bool) -> Option<f64> {
        let begun = self.fleet.now_s();
        while self.fleet.now_s() - begun < BOUND_S {
            if holds(&self.tick().await) && self.events.is_empty() {
                return Some(self.fleet.now_s() - begun);
            }
        }
        None
    }

    /// Waits until every shard is held, and then until each worker has its share.
    async fn settle(&mut self) -> (Option<f64>, Option<f64>) {
        let held = self.until(|view| view.unheld == 0).await;
        let balanced = self.until(View::is_balanced).await;
        (held, held.zip(balanced).map(|(held, balanced)| held + balanced))
    }

    async fn happen(&mut self) -> Map<String, Value> {
        let mut found = Map::new();
        let counted = self.fleet.scale.counted;
        let begun = self.fleet.now_s();
        match self.fleet.scale.scenario {
            Scenario::Calm => {
                self.pass(counted).await;
                return found;
            }
            Scenario::Recover => self.fleet.kill(0),
            Scenario::Join => (0..self.fleet.scale.workers).for_each(|_| self.fleet.start()),
            Scenario::CatchUp => {
                let up = self.fleet.up();
                up.iter().for_each(|number| self.fleet.terminate(*number));
                self.pass(AWAY).await;
                (0..up.len()).for_each(|_| self.fleet.start());
            }
            Scenario::Tenfold => {
                self.fleet.stream.multiply(10);
                self.scaled(HIGH).await;
                self.fleet.stream.multiply(1);
                self.scaled(HIGH / 2).await;
                return found;
            }
            Scenario::Reshard => {
                let shards = 2 * self.fleet.stream.open_shards();
                self.fleet.stream.split_all();
                let read = self.until(|view| view.shards == shards && view.unheld == 0).await;
                found.insert("children_held_s".to_owned(), seconds(read));
            }
            Scenario::Spot | Scenario::Kill => {
                let up = self.fleet.up();
                let half = up.len().div_ceil(2);
                for (nth, number) in up.into_iter().take(half).enumerate() {
                    let at = begun + STORM_S * float(nth as u64) / float(half as u64);
                    let (signal, killed) = match self.fleet.scale.scenario {
                        Scenario::Spot => (Some((at, Event::Terminate(number))), at + NOTICE_S),
                        _ => (None, at),
                    };
                    self.events.extend(signal);
                    self.events.extend([(killed, Event::Kill(number)), (at + REPLACED_S, Event::Start)]);
                }
            }
        }
        let (held, balanced) = self.settle().await;
        found.insert("held_again_s".to_owned(), seconds(held));
        found.insert("balanced_again_s".to_owned(), seconds(balanced));
        // Whatever is late by now is caught up before the end.
        let bound = self.fleet.scale.interval.as_secs_f64() + LATE_S;
        self.pass(self.fleet.scale.interval).await;
        self.until(|view| view.oldest_s <= bound).await;
        self.pass(self.fleet.scale.interval).await;
        found
    }

    /// Lets a rule add and remove workers.
    async fn scaled(&mut self, time: Duration) {
        let Scale { rule, workers, workers_max, .. } = self.fleet.scale;
        let mut scaler = Autoscaler::new(rule, (workers, workers_max));
        let end = self.fleet.now_s() + time.as_secs_f64();
        while self.fleet.now_s() < end {
            self.pass(Duration::from_secs(60)).await;
            let up = self.fleet.up();
            let figures: Vec<(f64, f64)> =
                up.iter().map(|number| self.fleet.members[*number].backlog_and_age()).collect();
            let weight = self.fleet.bytes_weight();
            let figures: Vec<(f64, f64)> = figures.into_iter().map(|(backlog, age)| (backlog * weight, age)).collect();
            let starting = self.events.len();
            let current = up.len() + starting;
            let desired = scaler.desired(current, &figures);
            let now = self.fleet.now_s();
            self.events.extend((current..desired).map(|_| (now + TASK_STARTS, Event::Start)));
            // The youngest go.
            up.iter().rev().take(current.saturating_sub(desired)).for_each(|number| self.fleet.terminate(*number));
        }
    }

    /// Ends the load, and proves that each record was committed once.
    async fn prove(&mut self, measured: &mut Map<String, Value>) {
        self.fleet.stream.multiply(0);
        self.until(|view| view.oldest_s <= 0.0 && view.unheld == 0).await;
        let (records, (epochs, committed, largest)) = (self.fleet.stream.records(), self.fleet.committed());
        assert_eq!(records, committed, "every record is committed once");
        measured.insert("records".to_owned(), json!(records));
        measured.insert("epochs".to_owned(), json!(epochs));
        measured.insert("commit_record_bytes_max".to_owned(), json!(largest));
        measured.insert("commit_s".to_owned(), json!(self.fleet.commit_s()));
        measured.insert("aborted".to_owned(), json!(self.fleet.aborted()));
    }
}
