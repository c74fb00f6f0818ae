//! The telemetry of a run, from its start to its end.
//!
//! Owns: which tasks run beside a worker for it. Does not own: what they do (`telemetry`, `inspect`).

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::aws::Aws;
use crate::cli::Usage;
use crate::clock::SharedClock;
use crate::commit::Stores;
use crate::config::{CloudWatchMetrics, WorkerSettings};
use crate::inspect::watch_upkeep;
use crate::source::ShardSource;
use crate::telemetry::{Figures, Settings, Telemetry, emf, otlp};
use crate::worker::Progress;

/// The telemetry of a run.
pub(crate) struct RunTelemetry {
    telemetry: Telemetry,
    tasks: Vec<JoinHandle<()>>,
}

/// What it is started with.
pub(crate) struct Watched<'w> {
    pub(crate) progress: &'w Arc<Progress>,
    pub(crate) aws: Option<&'w Aws>,
    pub(crate) clock: &'w SharedClock,
    pub(crate) settings: &'w WorkerSettings,
    /// The worker's name.
    pub(crate) worker: String,
    pub(crate) stores: &'w Stores,
    pub(crate) sources: &'w [Arc<dyn ShardSource>],
}

impl RunTelemetry {
    /// Refuses variables of the environment that cannot be used, before anything is touched.
    pub(crate) fn check() -> anyhow::Result<()> {
        otlp::check().map_err(|problem| Usage(problem).into())
    }

    pub(crate) async fn start(watched: Watched<'_>) -> anyhow::Result<Self> {
        let Watched { progress, aws, clock, settings, worker, stores, sources } = watched;
        otlp::connect(aws).await.map_err(Usage)?;
        let own = Settings {
            worker,
            commit_interval: settings.commit.interval,
            freshness: settings.telemetry.freshness,
            memory: settings.limits.memory,
        };
        let requests = aws.map(|aws| aws.requests().clone());
        let telemetry =
            Telemetry::start(Figures::new(Arc::clone(progress), requests, clock.clone(), own)).map_err(Usage)?;
        let figures = telemetry.figures();
        let upkeep = watch_upkeep(
            Arc::clone(figures),
            Arc::clone(progress),
            stores.clone(),
            sources.to_vec(),
            clock.clone(),
            settings.telemetry.lake_every,
        );
        let mut tasks = vec![tokio::spawn(upkeep)];
        if settings.telemetry.cloudwatch_metrics == CloudWatchMetrics::Stdout {
            tasks.push(tokio::spawn(emf::write_lines(Arc::clone(figures), clock.clone())));
        }
        Ok(RunTelemetry { telemetry, tasks })
    }

    /// Ends the tasks, and pushes what is left. Takes some seconds at most.
    pub(crate) async fn end(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.telemetry.shut_down().await;
    }
}
