//! A limit for lines of the log that repeat: a few a minute from one place of the code.
//!
//! Owns: counting the lines of each place, and saying how many were left out. It is the limit for everything: our own warnings in loops
//! that nobody thought of, and those of libraries. The SDK, for example, warns at each attempt to get credentials from a container's
//! endpoint, many times a second. Does not own: what is logged of trouble that lasts (`trouble`), which levels are logged (`logging`).
//!
//! Errors of our own are never left out: each is about something that happened once, such as `DATA LOSS`. Neither are lines below `warn`,
//! which somebody has asked for, nor those of `trouble`, which has a limit of its own.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Filter};

use crate::cli::args::LogFormat;

/// The time for which lines are counted.
const EVERY: Duration = Duration::from_secs(60);
/// Lines of one place in that time: of our own crates, and of others.
const OWN_MAX: u64 = 10;
const FOREIGN_MAX: u64 = 3;

/// The lines of one place.
struct Place {
    since: Instant,
    lines: u64,
}

/// What to do with a line.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Show it. So many like it were left out before it.
    Show {
        left_out: u64,
    },
    LeaveOut,
}

/// Leaves lines out that repeat.
pub(super) struct LogLimit {
    format: LogFormat,
    places: Mutex<HashMap<Identifier, Place>>,
}

impl LogLimit {
    pub(super) fn new(format: LogFormat) -> Self {
        LogLimit { format, places: Mutex::default() }
    }

    /// Counts a line of this place.
    fn judge(&self, metadata: &Metadata<'_>) -> Verdict {
        let Some(most) = most_lines(metadata) else { return Verdict::Show { left_out: 0 } };
        let now = Instant::now();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(metadata.callsite()).or_insert(Place { since: now, lines: 0 });
        let mut left_out = 0;
        if now.duration_since(place.since) >= EVERY {
            left_out = place.lines.saturating_sub(most);
            *place = Place { since: now, lines: 0 };
        }
        place.lines += 1;
        if place.lines > most { Verdict::LeaveOut } else { Verdict::Show { left_out } }
    }

    /// Says that lines were left out before a line of this place. An event would not do: none can be sent while one is handled.
    fn say(&self, left_out: u64, metadata: &Metadata<'_>) {
        let mut time = String::new();
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let said = format!("{left_out} lines like the next one were left out");
        let line = match self.format {
            LogFormat::Text => format!("{time} {:>5} {said}", metadata.level().as_str()),
            LogFormat::Json => serde_json::json!({
                "timestamp": time,
                "level": metadata.level().as_str(),
                "fields": { "message": said },
                "target": metadata.target(),
            })
            .to_string(),
        };
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

/// How many lines a place may have; `None`: any number.
fn most_lines(metadata: &Metadata<'_>) -> Option<u64> {
    let target = metadata.target();
    let is_own = super::logging::is_own(target);
    match *metadata.level() {
        Level::WARN if is_own => (target != "shardlake::trouble").then_some(OWN_MAX),
        Level::ERROR if is_own => None,
        Level::WARN | Level::ERROR => Some(FOREIGN_MAX),
        _ => None,
    }
}

impl<S> Filter<S> for LogLimit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        match self.judge(event.metadata()) {
            Verdict::LeaveOut => false,
            Verdict::Show { left_out } => {
                if left_out > 0 {
                    self.say(left_out, event.metadata());
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Count(Arc<AtomicUsize>);

    impl<S: tracing::Subscriber> Layer<S> for Count {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number of lines that are shown while `log` is called a thousand times.
    fn shown(log: impl Fn()) -> usize {
        let count = Count::default();
        let limited = count.clone().with_filter(LogLimit::new(LogFormat::Text));
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(limited));
        (0..1000).for_each(|_| log());
        count.0.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn one_place_warns_a_few_times_a_minute() {
        assert_eq!(shown(|| tracing::warn!("own")), 10);
        assert_eq!(shown(|| tracing::warn!(target: "aws_config::ecs", "of a library")), 3);
        assert_eq!(shown(|| tracing::error!(target: "hyper", "of a library")), 3);
        assert_eq!(shown(|| tracing::error!("own")), 1000);
        assert_eq!(shown(|| tracing::info!("asked for")), 1000);
        assert_eq!(shown(|| tracing::warn!(target: "shardlake::trouble", "limited there")), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_minute_the_number_of_lines_that_were_left_out_is_said() {
        let (limit, count) = (LogLimit::new(LogFormat::Json), Count::default());
        let metadata = Arc::new(Mutex::new(None));
        let keep = {
            struct Keep(Arc<Mutex<Option<&'static Metadata<'static>>>>);
            impl<S: tracing::Subscriber> Layer<S> for Keep {
                fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                    *self.0.lock().unwrap() = Some(event.metadata());
                }
            }
            Keep(Arc::clone(&metadata))
        };
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(keep).with(count));
        tracing::warn!("one place");
        let metadata = metadata.lock().unwrap().unwrap();
        let verdicts: Vec<Verdict> = (0..25).map(|_| limit.judge(metadata)).collect();
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::LeaveOut).count(), 15);
        tokio::time::advance(EVERY).await;
        assert_eq!(limit.judge(metadata), Verdict::Show { left_out: 15 });
        assert_eq!(limit.judge(metadata), Verdict::Show { left_out: 0 });
    }
}
