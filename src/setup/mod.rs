//! Opening what the configuration names: lake, lease store, pseudonym key, sources and raw sink.
//!
//! Owns: the order in which they are opened, and the checks that come before anything is touched. Does not own: how each kind of
//! source, lake and lease store is opened (its own backend), what the worker does with them.
//!
//! Order: the format of the lake; whether lake and checkpoints each know what the other one knows; whether the
//! definitions fit the lake; the key; then the lake, the sources and the lease store. Until the key, nothing is written or created.

pub mod allocator;
mod find;
mod key;
pub mod permissions;
mod redrive;
pub mod replay;
pub mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use checkpoints::{LeaseStore, ManifestName, MemoryStore, StoreError, StreamIds, StreamName};
use pipeline::anonymize::PseudonymKey;
use pipeline::documents::Documents;

use crate::aws::{Aws, Created};
use crate::clock::SharedClock;
use crate::commit::{CommitError, LakeMatch, LostRows, Stores, lost_rows, match_lake};
use crate::config::{Config, SourceConfig};
use crate::lake::identity::{self, IdentityError};
use crate::lake::{DefinitionError, LakeError, ObjectStore, Retrying, SchemaError, number_fields};
use crate::maintenance::{MigrateError, migrate};
use crate::raw::{RawError, RawSink};
use crate::retry::{Retry, RetryPolicy, Retryable};
use crate::source::backend::{OpenSource, OpenedSource};
use crate::source::backends::{SourceOptions, SourceUrl};
use crate::source::{ShardSource, SourceError};

pub use find::open_for_find;
pub use key::{OpenedKey, open_key};
pub use redrive::open_for_redrive;

/// What opening can fail with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The lake.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The lake has another format or another key, or its identity cannot be read.
    #[error(transparent)]
    Identity(IdentityError),
    /// The lease store.
    #[error(transparent)]
    Leases(#[from] StoreError),
    /// A source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The raw landing.
    #[error(transparent)]
    Raw(#[from] RawError),
    /// The field ids of the lake's datasets.
    #[error(transparent)]
    Schemas(#[from] SchemaError),
    /// A definition does not fit what the lake has of its dataset, or that cannot be read.
    #[error(transparent)]
    Definitions(#[from] DefinitionError),
    /// Lake or leases could not be read to compare them.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The lake has the format before, and could not be migrated.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The pseudonym key.
    #[error("the pseudonym key: {0}")]
    Key(String),
    /// The service that keeps the pseudonym key does not respond, or fails.
    #[error("the pseudonym key: {0}")]
    Unavailable(String),
    /// A lake that must exist does not.
    #[error("there is no lake {lake}: name yours with --lake")]
    NoLake {
        /// Its URL.
        lake: String,
    },
    /// A lease store that must exist does not.
    #[error("there is no lease store {checkpoints}: has a worker run on this lake?")]
    NoLeases {
        /// Its URL.
        checkpoints: String,
    },
    /// The checkpoints were committed in another lake.
    #[error(
        "the checkpoints {checkpoints} were committed in another lake: {lake} has neither intent nor commit record {newest}, and \
         what was read until then would never be in it. Restore that lake, or name it with --lake; or, to continue from these \
         checkpoints in a new lake, start with --new-lake"
    )]
    OtherLake {
        /// URL of the lease store.
        checkpoints: String,
        /// URL of the lake.
        lake: String,
        /// The newest manifest that the checkpoints name.
        newest: ManifestName,
    },
    /// The SDK's settings cannot be used.
    #[error("{0}")]
    Aws(String),
    /// The lake has commit records of shards that have no row.
    #[error(
        "the checkpoints {checkpoints} do not know what the lake {lake} has: it has commit records of {}. All their records would be \
         read and written again. Either name the lease table that has these rows, with --checkpoints; or, if they are lost, make \
         them again from the commit records: shardlake leases rebuild; or, to read everything again, start with --new-checkpoints",
        lost.iter().map(ToString::to_string).collect::<Vec<_>>().join(", and of ")
    )]
    LostRows {
        /// URL of the lease store.
        checkpoints: String,
        /// URL of the lake.
        lake: String,
        /// The shards, by stream.
        lost: Vec<LostRows>,
    },
    /// Two sources are the same stream.
    #[error("two sources have the name {0} in the lake: name one of them otherwise, with `name` in its [[source]]")]
    SameStream(StreamName),
}

impl OpenError {
    /// Whether the user can fix it by calling otherwise. Nothing was touched then.
    pub fn is_usage(&self) -> bool {
        match self {
            OpenError::Key(_)
            | OpenError::Aws(_)
            | OpenError::NoLake { .. }
            | OpenError::NoLeases { .. }
            | OpenError::OtherLake { .. }
            | OpenError::LostRows { .. }
            | OpenError::SameStream(_)
            | OpenError::Identity(_) => true,
            OpenError::Definitions(error) => error.is_usage(),
            OpenError::Migrate(error) => error.is_usage(),
            OpenError::Lake(_)
            | OpenError::Leases(_)
            | OpenError::Source(_)
            | OpenError::Raw(_)
            | OpenError::Schemas(_)
            | OpenError::Commit(_)
            | OpenError::Unavailable(_) => false,
        }
    }
}

impl Retryable for OpenError {
    fn is_retryable(&self) -> bool {
        match self {
            OpenError::Lake(error) => error.is_retryable(),
            OpenError::Leases(error) => error.is_retryable(),
            OpenError::Source(error) => error.is_retryable(),
            OpenError::Raw(error) => error.is_retryable(),
            OpenError::Commit(error) => error.is_retryable(),
            OpenError::Migrate(error) => error.is_retryable(),
            OpenError::Unavailable(_) => true,
            _ => false,
        }
    }
}

impl From<IdentityError> for OpenError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Lake(error) => OpenError::Lake(error),
            error => OpenError::Identity(error),
        }
    }
}

/// What a worker runs on.
pub struct Components {
    /// Lake and leases.
    pub stores: Stores,
    /// The streams, in the configuration's order.
    pub sources: Vec<Arc<dyn ShardSource>>,
    /// The SDK's settings, if anything of AWS is used.
    pub aws: Option<Aws>,
}

/// What the user has consented to, by flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Consents {
    /// The checkpoints may be of another lake.
    pub new_lake: bool,
    /// The lake may have records of shards without checkpoints, which are read again.
    pub new_checkpoints: bool,
}

/// How long a worker waits for its lake, and for its lease store. A service may be back later; a disk that fails rarely is, and whoever
/// started the worker is at hand.
fn policies(config: &Config) -> (RetryPolicy, RetryPolicy) {
    let policy = |is_service: bool| {
        if is_service { RetryPolicy::within(config.worker.retry.within) } else { RetryPolicy::CALL }
    };
    (policy(config.lake.backend().needs_aws()), policy(config.needs_aws_for_leases()))
}

/// Checks that this version can use the lake, that the checkpoints were committed in it, and that they know all shards that were
/// committed to it. Changes nothing. Returns whether the lake is known to exist: it has what the checkpoints were committed with.
/// Consents leave out a check.
///
/// # Errors
/// The lake has another format ([`OpenError::Identity`]); the checkpoints belong to another lake ([`OpenError::OtherLake`]); rows are
/// missing ([`OpenError::LostRows`]); lake or lease store cannot be read.
pub async fn check_lake(config: &Config, aws: Option<&Aws>, consents: Consents) -> Result<bool, OpenError> {
    let (policy, of_leases) = policies(config);
    let opening = Retry::new(policy, "opening the lake");
    let lake = config.lake.backend();
    let existing = opening.run(|| lake.open_existing(&config.lake_options, aws)).await?;
    if let Some(lake) = &existing {
        identity::format_of(&Retrying::new(Arc::clone(lake), policy)).await?;
    }
    let leases = match of_leases.run("opening the lease store", || open_existing_leases(config, aws)).await {
        Ok(leases) => Some(leases),
        Err(OpenError::NoLeases { .. }) => None,
        // A store that cannot be used: opening it for the worker says why not.
        Err(OpenError::Leases(StoreError::Unusable { .. })) => return Ok(false),
        Err(error) => return Err(error),
    };
    let streams = stream_names(config);
    let (checkpoints, lake_url) = (config.checkpoints().to_string(), config.lake.to_string());
    let open_lake =
        async || opening.run(|| lake.open_existing(&config.lake_options, aws)).await.map_err(CommitError::from);
    let mut known = false;
    if let Some(leases) = leases.as_ref().filter(|_| !consents.new_lake) {
        known = match match_lake(&**leases, &streams, open_lake, &policy, &of_leases).await? {
            LakeMatch::NothingCommitted => false,
            LakeMatch::Same => true,
            LakeMatch::Other { newest } => {
                return Err(OpenError::OtherLake { checkpoints, lake: lake_url, newest });
            }
        };
    }
    if let Some(lake) = existing.filter(|_| !consents.new_checkpoints) {
        let leases = leases.unwrap_or_else(|| Arc::new(MemoryStore::new()));
        let stores = Stores::with_policies((lake, policy), (leases, of_leases)).with_streams(streams.clone());
        let lost = lost_rows(&stores, &streams).await?;
        if !lost.is_empty() {
            return Err(OpenError::LostRows { checkpoints, lake: lake_url, lost });
        }
    }
    Ok(known)
}

/// The names of the configuration's streams. Opening a source says what is wrong with one that has no name.
pub fn stream_names(config: &Config) -> Vec<StreamName> {
    let name = |source: &SourceConfig| source.url.backend().local_stream_name(source.name.as_deref());
    config.sources.iter().filter_map(name).collect()
}

/// Checks that each source is the stream that the lake has under its name. Changes nothing.
///
/// # Errors
/// A sentence about a source that is another one, or the lake cannot be read.
pub async fn check_sources(config: &Config, aws: Option<&Aws>) -> Result<(), OpenError> {
    let lake = config.lake.backend().open_existing(&config.lake_options, aws).await?;
    let Some(lake) = lake else { return Ok(()) };
    for SourceConfig { url, name, options, .. } in &config.sources {
        url.backend().check_identity(name.as_deref(), options, &lake, aws).await?;
    }
    Ok(())
}

/// Checks that the definitions fit what the lake has of their datasets. Changes nothing. With `consent`, names may change their
/// meaning.
///
/// # Errors
/// A definition does not fit ([`DefinitionError::Refused`]); the lake has another format, or cannot be read.
pub async fn check_definitions(config: &Config, aws: Option<&Aws>, consent: bool) -> Result<(), OpenError> {
    let (policy, _) = policies(config);
    let lake = config.lake.backend();
    let lake = policy.run("opening the lake", || lake.open_existing(&config.lake_options, aws)).await?;
    // A lake that does not exist has no files.
    let Some(lake) = lake else { return Ok(()) };
    let lake = Retrying::new(lake, policy);
    identity::format_of(&lake).await?;
    Ok(crate::lake::check_definitions(&lake, &config.datasets, consent).await?)
}

/// Opens everything that a worker needs. The lake is the first, since its identity may refuse the rest. The fields of the
/// configuration's datasets get their ids in this lake. `complete`: the files of a source are complete as they are. `known`: the lake exists; a local one is not created again if it was moved in the meantime.
///
/// # Errors
/// Something cannot be opened, or the lake was written under another key.
pub async fn open(
    config: &mut Config,
    key: Option<&PseudonymKey>,
    clock: &SharedClock,
    complete: bool,
    known: bool,
    aws: Option<Aws>,
) -> Result<Components, OpenError> {
    let (policy, of_leases) = policies(config);
    let (place, options) = (config.lake.backend(), &config.lake_options);
    let lake = policy.run("opening the lake", || place.open(options, aws.as_ref(), known)).await?;
    let retried = Retrying::new(Arc::clone(&lake), policy);
    identity::claim(&retried, key.map(key::fingerprint).as_deref()).await?;
    let opened = open_sources(config, &lake, clock, complete, aws.as_ref()).await?;
    let (place, options) = (config.checkpoints().backend(), &config.checkpoints_options);
    let opening = || place.open(options, stream_ids(config, &opened), aws.as_ref());
    let leases = of_leases.run("opening the lease store", opening).await?;
    let sources: Vec<Arc<dyn ShardSource>> = opened.into_iter().map(|opened| opened.source).collect();
    let stores = Stores::with_policies((lake, policy), (leases, of_leases)).with_clock(Arc::clone(clock));
    let stores = stores.with_streams(sources.iter().map(|source| source.stream().clone()));
    migrate(&stores, config.worker.leases.failover).await?;
    number_fields(&*stores.lake, &mut config.datasets).await?;
    Ok(Components { stores, sources, aws })
}

/// Opens a lake and a lease store that must exist, for looking at them.
///
/// # Errors
/// One does not exist or cannot be opened, or the lake has another format.
pub async fn open_existing(config: &Config) -> Result<Stores, OpenError> {
    let aws = load_aws(config).await?;
    let lake = open_existing_lake(config, aws.as_ref()).await?;
    let leases = open_existing_leases(config, aws.as_ref()).await?;
    Ok(Stores::new(lake, leases, RetryPolicy::CALL).with_streams(stream_names(config)))
}

/// Opens a lake that must exist, and a lease store, which is made if it does not exist: for making its rows again. Also returns the
/// sources that can be opened, for what they know of their shards.
///
/// # Errors
/// One cannot be opened, or the lake has another format.
pub async fn open_for_rebuild(
    config: &Config,
    clock: &SharedClock,
) -> Result<(Stores, Vec<Arc<dyn ShardSource>>), OpenError> {
    let aws = load_aws(config).await?;
    let lake = open_lake_of_any_format(config, aws.as_ref()).await?;
    identity::format_of(&Retrying::new(Arc::clone(&lake), RetryPolicy::CALL)).await?;
    let opened = match open_sources(config, &lake, clock, true, aws.as_ref()).await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::warn!(%error, "cannot open the configured sources; the rows will lack the hash ranges of their shards");
            Vec::new()
        }
    };
    let place = config.checkpoints().backend();
    let leases = place.open(&config.checkpoints_options, stream_ids(config, &opened), aws.as_ref()).await?;
    let stores = Stores::new(lake, leases, RetryPolicy::CALL).with_streams(stream_names(config));
    let stores = stores.with_clock(Arc::clone(clock));
    // A worker would not start without the rows, so it could not migrate the lake.
    migrate(&stores, config.worker.leases.failover).await?;
    Ok((stores, opened.into_iter().map(|opened| opened.source).collect()))
}

/// Opens a lake that must exist, for looking at it.
///
/// # Errors
/// It does not exist, cannot be opened, or has another format.
pub async fn open_existing_lake(config: &Config, aws: Option<&Aws>) -> Result<Arc<dyn ObjectStore>, OpenError> {
    let lake = open_lake_of_any_format(config, aws).await?;
    identity::check_format(&Retrying::new(Arc::clone(&lake), RetryPolicy::CALL)).await?;
    Ok(lake)
}

async fn open_lake_of_any_format(config: &Config, aws: Option<&Aws>) -> Result<Arc<dyn ObjectStore>, OpenError> {
    let lake = config.lake.backend().open_existing(&config.lake_options, aws).await?;
    lake.ok_or_else(|| OpenError::NoLake { lake: config.lake.to_string() })
}

/// Opens a lease store that must exist, for looking at it.
///
/// # Errors
/// It does not exist or cannot be opened.
pub async fn open_existing_leases(config: &Config, aws: Option<&Aws>) -> Result<Arc<dyn LeaseStore>, OpenError> {
    let ids = stream_ids(config, &[]);
    let leases = config.checkpoints().backend().open_existing(&config.checkpoints_options, ids, aws).await?;
    leases.ok_or_else(|| OpenError::NoLeases { checkpoints: config.checkpoints().to_string() })
}

/// Where raw records go, if not into the lake.
///
/// # Errors
/// The service does not have it, or cannot be reached.
pub async fn open_raw_sink(config: &Config, aws: Option<&Aws>) -> Result<Option<Arc<dyn RawSink>>, OpenError> {
    if config.worker.output.raw.is_none() {
        return Ok(None);
    }
    let policy = RetryPolicy::within(config.worker.retry.within);
    Ok(policy.run("opening the raw landing", || config.worker.output.raw_to.open(aws)).await?)
}

/// The SDK's settings, if anything in the configuration needs them.
///
/// # Errors
/// The settings name a proxy or certificates that cannot be used ([`OpenError::Aws`]).
pub async fn load_aws(config: &Config) -> Result<Option<Aws>, OpenError> {
    let needs = config.lake.backend().needs_aws()
        || config.needs_aws_for_leases()
        || config.key.needs_aws()
        || config.worker.output.raw_to.needs_aws()
        || config.sources.iter().any(|source| source.url.backend().needs_aws());
    if needs { Aws::load().await.map(Some).map_err(OpenError::Aws) } else { Ok(None) }
}

/// The streams' names in the lease table. A lone stream that KCL could read has rows such as a KCL application of one stream
/// writes.
fn stream_ids(config: &Config, opened: &[OpenedSource]) -> StreamIds {
    let ids: BTreeMap<StreamName, String> =
        opened.iter().filter_map(|opened| Some((opened.source.stream().clone(), opened.kcl_id.clone()?))).collect();
    let mut streams = config.sources.iter().filter(|source| source.url.backend().is_kcl_stream());
    let bare = match (streams.next(), streams.next()) {
        (Some(only), None) => only.stream_name().and_then(|name| StreamName::new(name).ok()),
        _ => None,
    };
    StreamIds { ids, bare }
}

/// Opens the sources. `complete`: their files are complete as they are.
///
/// # Errors
/// One of them cannot be opened, or two are the same stream.
pub async fn open_sources(
    config: &Config,
    lake: &Arc<dyn ObjectStore>,
    clock: &SharedClock,
    complete: bool,
    aws: Option<&Aws>,
) -> Result<Vec<OpenedSource>, OpenError> {
    let mut sources: Vec<OpenedSource> = Vec::new();
    let record_bytes_max = usize::try_from(config.worker.limits.record_bytes).unwrap_or(usize::MAX);
    for SourceConfig { url, name, options, documents, .. } in &config.sources {
        let name = name.as_deref();
        let documents = *documents;
        let retry_within = config.worker.retry.within;
        let context =
            OpenSource { name, options, record_bytes_max, documents, complete, clock, lake, aws, retry_within };
        let opened = url.backend().open(context).await?;
        let stream = opened.source.stream();
        if sources.iter().any(|other| other.source.stream() == stream) {
            return Err(OpenError::SameStream(stream.clone()));
        }
        sources.push(opened);
    }
    Ok(sources)
}

/// Opens a source whose stream has the name that its URL gives it, so that the name says where it is; `None` for other names.
pub async fn open_by_name(
    stream: &StreamName,
    lake: &Arc<dyn ObjectStore>,
    clock: &SharedClock,
) -> Option<Arc<dyn ShardSource>> {
    let url = SourceUrl::parse(stream.as_str()).ok()?;
    let options = SourceOptions::default();
    let (record_bytes_max, documents, complete) = (1, Documents::MANY, true);
    let context = OpenSource {
        name: None,
        options: &options,
        record_bytes_max,
        documents,
        complete,
        clock,
        lake,
        aws: None,
        retry_within: Duration::ZERO,
    };
    let is_url = url.backend().local_stream_name(None).as_ref() == Some(stream) && !url.backend().needs_aws();
    let source = if is_url { url.backend().open(context).await.ok()?.source } else { return None };
    Some(source)
}

/// A resource of a development account that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("failed to create {resource}: {problem}")]
pub struct CreateError {
    resource: String,
    problem: String,
}

/// Makes streams, bucket and table with plain settings, if they do not exist. Returns each resource's URL and whether it was made.
///
/// # Errors
/// One of them cannot be made.
pub async fn create_missing(config: &Config, aws: &Aws, shards: u32) -> Result<Vec<(String, Created)>, CreateError> {
    let mut done = Vec::new();
    let mut note = |resource: String, result: Result<Option<Created>, String>| match result {
        Ok(created) => {
            done.extend(created.map(|created| (resource, created)));
            Ok(())
        }
        Err(problem) => Err(CreateError { resource, problem }),
    };
    for source in &config.sources {
        note(source.url.to_string(), source.url.backend().create(aws, &source.options, shards).await)?;
    }
    note(config.lake.to_string(), config.lake.backend().create(aws, &config.lake_options).await)?;
    let (leases, ids) = (config.checkpoints().backend(), stream_ids(config, &[]));
    let leases = leases.create(&config.checkpoints_options, ids, aws).await;
    note(config.checkpoints().to_string(), leases)?;
    Ok(done)
}
