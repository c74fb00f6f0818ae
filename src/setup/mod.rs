//! Opening what the configuration names: lake, lease store, pseudonym key, sources and raw sink.
//!
//! Owns: the order in which they are opened, and the checks that come before anything is touched. Does not own: how each kind of
//! source, lake and lease store is opened (its own backend), what the worker does with them.
//!
//! Order: the format of the lake, whether lake and checkpoints belong together, whether the definitions fit the lake, the key, then
//! the lake, the sources and the lease store. Until the key, nothing is written or created.

pub mod allocator;
mod key;
pub mod permissions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use checkpoints::{LeaseStore, ManifestName, StoreError, StreamIds, StreamName};
use pipeline::anonymize::PseudonymKey;
use pipeline::documents::Documents;

use crate::aws::{Aws, Created};
use crate::clock::SharedClock;
use crate::commit::{CommitError, LakeMatch, Stores, match_lake};
use crate::config::{Config, SourceConfig};
use crate::lake::identity::{self, IdentityError};
use crate::lake::{DefinitionError, LakeError, ObjectStore, Retrying, SchemaError, number_fields};
use crate::raw::{RawError, RawSink};
use crate::retry::{Retry, RetryPolicy, Retryable};
use crate::source::backend::{OpenSource, OpenedSource};
use crate::source::backends::{SourceOptions, SourceUrl};
use crate::source::{ShardSource, SourceError};

pub use key::{OpenedKey, open_key};

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
    /// Two sources are the same stream.
    #[error("two sources are the same stream: {0}")]
    SameStream(StreamName),
}

impl OpenError {
    /// Whether the user can fix it by calling otherwise. Nothing was touched then.
    pub fn is_usage(&self) -> bool {
        match self {
            OpenError::Key(_)
            | OpenError::NoLake { .. }
            | OpenError::NoLeases { .. }
            | OpenError::OtherLake { .. }
            | OpenError::SameStream(_)
            | OpenError::Identity(_) => true,
            OpenError::Definitions(error) => error.is_usage(),
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

/// How long a worker waits for its lake, and for its lease store. A service may be back later; a disk that fails rarely is, and whoever
/// started the worker is at hand.
fn policies(config: &Config) -> (RetryPolicy, RetryPolicy) {
    let policy = |is_service: bool| {
        if is_service { RetryPolicy::within(config.worker.retry.within) } else { RetryPolicy::CALL }
    };
    (policy(config.lake.backend().needs_aws()), policy(config.needs_aws_for_leases()))
}

/// Checks that this version can use the lake, and that the checkpoints were committed in it. Changes nothing. Returns whether the
/// lake is known to exist: it has what the checkpoints were committed with. With `new_lake`, the second check is left out.
///
/// # Errors
/// The lake has another format ([`OpenError::Identity`]); the checkpoints belong to another lake ([`OpenError::OtherLake`]); lake
/// or lease store cannot be read.
pub async fn check_lake(config: &Config, aws: Option<&Aws>, new_lake: bool) -> Result<bool, OpenError> {
    let (policy, of_leases) = policies(config);
    let opening = Retry::new(policy, "opening the lake");
    let lake = config.lake.backend();
    if let Some(lake) = opening.run(|| lake.open_existing(&config.lake_options, aws)).await? {
        identity::check_format(&Retrying::new(lake, policy)).await?;
    }
    if new_lake {
        return Ok(false);
    }
    let leases = match of_leases.run("opening the lease store", || open_existing_leases(config, aws)).await {
        Ok(leases) => leases,
        // A new store, or one that cannot be used: opening it for the worker makes it or says why not.
        Err(OpenError::NoLeases { .. } | OpenError::Leases(StoreError::Unusable { .. })) => return Ok(false),
        Err(error) => return Err(error),
    };
    // Opening a source says what is wrong with it.
    let streams =
        config.sources.iter().filter_map(|source| source.url.backend().local_stream_name(source.name.as_deref()));
    let streams: Vec<StreamName> = streams.collect();
    let open_lake =
        async || opening.run(|| lake.open_existing(&config.lake_options, aws)).await.map_err(CommitError::from);
    match match_lake(&*leases, &streams, open_lake, &policy, &of_leases).await? {
        LakeMatch::NothingCommitted => Ok(false),
        LakeMatch::Same => Ok(true),
        LakeMatch::Other { newest } => {
            let (checkpoints, lake) = (config.checkpoints().to_string(), config.lake.to_string());
            Err(OpenError::OtherLake { checkpoints, lake, newest })
        }
    }
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
    identity::check_format(&lake).await?;
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
) -> Result<Components, OpenError> {
    let aws = load_aws(config).await;
    let (policy, of_leases) = policies(config);
    let (place, options) = (config.lake.backend(), &config.lake_options);
    let lake = policy.run("opening the lake", || place.open(options, aws.as_ref(), known)).await?;
    let retried = Retrying::new(Arc::clone(&lake), policy);
    identity::claim(&retried, key.map(key::fingerprint).as_deref()).await?;
    let opened = open_sources(config, &lake, clock, complete, aws.as_ref()).await?;
    let place = config.checkpoints().backend();
    let opening = || place.open(stream_ids(config, &opened), aws.as_ref());
    let leases = of_leases.run("opening the lease store", opening).await?;
    let sources = opened.into_iter().map(|opened| opened.source).collect();
    let stores = Stores::with_policies((lake, policy), (leases, of_leases));
    number_fields(&*stores.lake, &mut config.datasets).await?;
    Ok(Components { stores, sources, aws })
}

/// Opens a lake and a lease store that must exist, for looking at them.
///
/// # Errors
/// One does not exist or cannot be opened, or the lake has another format.
pub async fn open_existing(config: &Config) -> Result<Stores, OpenError> {
    let aws = load_aws(config).await;
    let lake = open_existing_lake(config, aws.as_ref()).await?;
    let leases = open_existing_leases(config, aws.as_ref()).await?;
    Ok(Stores::new(lake, leases, RetryPolicy::CALL))
}

/// Opens a lake that must exist, for looking at it.
///
/// # Errors
/// It does not exist, cannot be opened, or has another format.
pub async fn open_existing_lake(config: &Config, aws: Option<&Aws>) -> Result<Arc<dyn ObjectStore>, OpenError> {
    let lake = config.lake.backend().open_existing(&config.lake_options, aws).await?;
    let lake = lake.ok_or_else(|| OpenError::NoLake { lake: config.lake.to_string() })?;
    identity::check_format(&Retrying::new(Arc::clone(&lake), RetryPolicy::CALL)).await?;
    Ok(lake)
}

/// Opens a lease store that must exist, for looking at it.
///
/// # Errors
/// It does not exist or cannot be opened.
pub async fn open_existing_leases(config: &Config, aws: Option<&Aws>) -> Result<Arc<dyn LeaseStore>, OpenError> {
    let leases = config.checkpoints().backend().open_existing(stream_ids(config, &[]), aws).await?;
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
pub async fn load_aws(config: &Config) -> Option<Aws> {
    let needs = config.lake.backend().needs_aws()
        || config.needs_aws_for_leases()
        || config.key.needs_aws()
        || config.worker.output.raw_to.needs_aws()
        || config.sources.iter().any(|source| source.url.backend().needs_aws());
    if needs { Some(Aws::load().await) } else { None }
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
        note(source.url.to_string(), source.url.backend().create(aws, shards).await)?;
    }
    note(config.lake.to_string(), config.lake.backend().create(aws).await)?;
    let leases = config.checkpoints().backend().create(stream_ids(config, &[]), aws).await;
    note(config.checkpoints().to_string(), leases)?;
    Ok(done)
}
