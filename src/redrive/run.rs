//! The worker that processes a batch of dead letters aside.
//!
//! Owns: what such a worker runs on. It is the ordinary worker, with leases in memory, since this process alone reads the batch. Does not
//! own: the source (`source::replay::dead_letters`), what becomes of the result (`drive`).
//!
//! The definitions are today's, and so are `documents`, `arrays` and `dataset` of the stream that a dead letter is from, if the configuration
//! has that stream. Field ids are those of the lake, not of the lake aside.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use checkpoints::{LeaseStore, MemoryStore, StreamName};
use pipeline::anonymize::PseudonymKey;
use pipeline::documents::Documents;
use pipeline::graph::Graph;
use pipeline::lane::LaneConfig;
use pipeline::line_objects::LineCodec;
use tokio_util::sync::CancellationToken;

use crate::clock::{SharedClock, random_bytes};
use crate::commit::{CommitError, Stores};
use crate::config::{CheckpointSchedule, Config, WorkerSettings};
use crate::lake::{DefinitionClaims, ObjectStore};
use crate::redrive::RedriveError;
use crate::redrive::drive::{AsideBatch, RunAside};
use crate::retry::RetryPolicy;
use crate::setup::worker::{WorkerParts, worker_config};
use crate::source::ShardSource;
use crate::source::replay::dead_letters::{DeadLetterSlice, DeadLetterSource, Streams};
use crate::worker::{self, Compute, Progress, WorkerConfig};

/// Slices of a batch for each thread, which are read side by side.
const SLICES_PER_THREAD: usize = 2;

/// Runs workers aside.
pub struct WorkerAside {
    lanes: Arc<LaneConfig>,
    /// The streams of each source of the lanes' graph.
    sources: Vec<Streams>,
    documents: BTreeMap<String, Documents>,
    settings: WorkerSettings,
    compute: Compute,
    clock: SharedClock,
    retry: RetryPolicy,
    claims: DefinitionClaims,
    /// The lease table of the lake, which knows the processes that are alive.
    registry: Arc<dyn LeaseStore>,
    stop: CancellationToken,
}

impl WorkerAside {
    /// Workers with this configuration, whose datasets have the lake's field ids. `registry` is the lease table of the lake.
    ///
    /// # Errors
    /// The operating system starts no threads, or has no random bytes.
    pub fn new(
        config: Config,
        key: Option<PseudonymKey>,
        registry: Arc<dyn LeaseStore>,
        clock: SharedClock,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let Config { sources: configured, datasets, worker, .. } = config;
        let mut documents = BTreeMap::new();
        let mut by_dataset: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for source in &configured {
            let Some(stream) = source.url.backend().local_stream_name(source.name.as_deref()) else { continue };
            documents.insert(stream.to_string(), source.documents);
            if let Some(dataset) = source.dataset.as_deref().and_then(|name| datasets.find(name)) {
                by_dataset.entry(dataset).or_default().push(stream.to_string());
            }
        }
        // One source for streams whose records are recognized, and one for each dataset that a stream is assigned to.
        let mut sources = vec![Streams::Except(by_dataset.values().flatten().cloned().collect())];
        let mut assigned = vec![None];
        for (dataset, streams) in by_dataset {
            sources.push(Streams::Only(streams));
            assigned.push(Some(dataset));
        }
        let names: Vec<String> = (0..sources.len()).map(|number| stream_name(number).to_string()).collect();
        let lanes = LaneConfig {
            graph: Graph::new(&names, &datasets, false),
            key,
            assigned,
            raw: None,
            raw_identities: false,
            dead_letters: LineCodec::Gzip(1),
            record_bytes_max: usize::try_from(worker.limits.record_bytes).unwrap_or(usize::MAX),
            hash_seed: u64::from_le_bytes(random_bytes()?),
            denied_names: false,
            datasets,
        };
        let settings = WorkerSettings { checkpoints: CheckpointSchedule::default(), ..worker };
        Ok(WorkerAside {
            lanes: Arc::new(lanes),
            sources,
            documents,
            compute: Compute::on_threads(settings.limits.threads)?,
            clock,
            retry: RetryPolicy::within(settings.retry.within),
            claims: DefinitionClaims::default(),
            registry,
            stop,
            settings,
        })
    }

    fn sources(&self, batch: &AsideBatch<'_>) -> Vec<Arc<dyn ShardSource>> {
        let count = batch.objects.len().min(SLICES_PER_THREAD * self.settings.limits.threads).max(1);
        let source = |(number, streams): (usize, &Streams)| {
            let slice = |index: usize| DeadLetterSlice {
                objects: batch.objects.iter().skip(index).step_by(count).cloned().collect(),
                filter: batch.filter.clone(),
                documents: self.documents.clone(),
                streams: streams.clone(),
            };
            let slices = (0..count).map(slice).collect();
            let source = DeadLetterSource::new(stream_name(number), Arc::clone(&batch.lake), slices);
            Arc::new(source) as Arc<dyn ShardSource>
        };
        self.sources.iter().enumerate().map(source).collect()
    }
}

/// The name of a source of a batch. Nobody else sees it: its leases are in memory.
fn stream_name(number: usize) -> StreamName {
    StreamName::new(format!("_replay:redrive-{number}")).expect("a plain name")
}

#[async_trait]
impl RunAside for WorkerAside {
    async fn run(&self, batch: AsideBatch<'_>) -> Result<(), RedriveError> {
        let leases = (Arc::new(MemoryStore::new()) as Arc<_>, RetryPolicy::CALL);
        let stores = Stores::with_policies((Arc::clone(&batch.aside), self.retry), leases);
        let parts = WorkerParts {
            stores: stores.with_clock(Arc::clone(&self.clock)),
            sources: self.sources(&batch),
            raw_sink: None,
            clock: Arc::clone(&self.clock),
            until_caught_up: true,
        };
        // The lake aside has no files of its own: the lake's history of definitions counts, see `claim`.
        let worker = worker_config(self.settings.clone(), Arc::clone(&self.lanes), parts)?;
        let worker = WorkerConfig { compute: self.compute.clone(), ..worker };
        // While it is registered, no sweep takes its uploads for those of an ended process.
        let me = worker.me.clone();
        self.registry.register(&me).await.map_err(CommitError::from)?;
        let result = worker::run(worker, Arc::new(Progress::default()), self.stop.clone()).await;
        if let Err(error) = self.registry.deregister(&me).await {
            tracing::debug!(%error, "failed to deregister the worker of a batch");
        }
        Ok(result?)
    }

    async fn claim(&self, lake: &dyn ObjectStore, datasets: &[&str]) -> Result<(), RedriveError> {
        Ok(self.claims.claim(lake, &self.lanes.datasets, datasets.iter().copied()).await?)
    }
}
