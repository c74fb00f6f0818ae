//! A worker's configuration, from what was configured and opened.
//!
//! Owns: which of the configuration a worker gets, whatever it runs for. Does not own: opening stores and sources (`setup`), running the
//! worker.

use std::sync::Arc;

use checkpoints::{LeaseOwner, StreamName};
use pipeline::anonymize::PseudonymKey;
use pipeline::dataset::Datasets;
use pipeline::encode::{EncoderConfig, ProducerVersion};
use pipeline::graph::Graph;
use pipeline::lane::LaneConfig;
use pipeline::line_objects::LineCodec;

use crate::clock::{SharedClock, random_bytes};
use crate::commit::Stores;
use crate::commit::lake_log::SNAPSHOT_EVERY;
use crate::commit::log::RollUpConfig;
use crate::config::{Config, SourceConfig, WorkerSettings};
use crate::raw::RawSink;
use crate::source::ShardSource;
use crate::worker::{Compute, WorkerConfig};

/// What a worker runs on, beside its settings.
pub struct WorkerParts {
    /// Lake and leases.
    pub stores: Stores,
    /// What it reads.
    pub sources: Vec<Arc<dyn ShardSource>>,
    /// The service that takes records as received, if they don't go into the lake.
    pub raw_sink: Option<Arc<dyn RawSink>>,
    /// The time of day.
    pub clock: SharedClock,
    /// Whether to end once everything was read and committed.
    pub until_caught_up: bool,
}

/// What all lanes of a process share. `origins`: the streams whose records are read, each a source of the graph. `raw`: how the raw
/// landing is compressed; `None`: it is off. `denied_names`: whether names of denied keys are collected.
///
/// # Errors
/// The operating system gives no random bytes.
pub fn lane_config(
    config: Config,
    origins: &[StreamName],
    key: Option<PseudonymKey>,
    raw: Option<LineCodec>,
    denied_names: bool,
) -> std::io::Result<LaneConfig> {
    let Config { sources, datasets, worker, .. } = config;
    let names: Vec<String> = origins.iter().map(ToString::to_string).collect();
    let assigned = origins.iter().map(|origin| assigned_to(&sources, &datasets, origin)).collect();
    Ok(LaneConfig {
        graph: Graph::new(&names, &datasets, raw.is_some()),
        key,
        assigned,
        raw,
        raw_identities: worker.output.raw_identities,
        dead_letters: LineCodec::Gzip(1),
        record_bytes_max: usize::try_from(worker.limits.record_bytes).unwrap_or(usize::MAX),
        hash_seed: u64::from_le_bytes(random_bytes()?),
        denied_names,
        datasets,
    })
}

/// The dataset of all records of a stream, if the configuration names one.
fn assigned_to(sources: &[SourceConfig], datasets: &Datasets, stream: &StreamName) -> Option<usize> {
    let is_it = |source: &&SourceConfig| {
        source.url.backend().local_stream_name(source.name.as_deref()).as_ref() == Some(stream)
    };
    datasets.find(sources.iter().find(is_it)?.dataset.as_deref()?)
}

/// The configuration of one worker. No other start has its name.
///
/// # Errors
/// The operating system gives no random bytes, or no threads.
pub fn worker_config(
    settings: WorkerSettings,
    lanes: Arc<LaneConfig>,
    parts: WorkerParts,
) -> std::io::Result<WorkerConfig> {
    let WorkerParts { stores, sources, raw_sink, clock, until_caught_up } = parts;
    Ok(WorkerConfig {
        me: LeaseOwner::from_random(random_bytes()?),
        sources,
        stores,
        raw_sink,
        clock,
        compute: Compute::on_threads(settings.limits.threads)?,
        lanes,
        encoder: EncoderConfig {
            encodings: settings.output.encodings,
            zstd_level: settings.output.zstd_level,
            producer: ProducerVersion::of_build(crate::BUILD),
        },
        settings,
        roll_ups: RollUpConfig::default(),
        snapshot_every: SNAPSHOT_EVERY,
        definitions: None,
        until_caught_up,
        after_commit: Vec::new(),
    })
}
