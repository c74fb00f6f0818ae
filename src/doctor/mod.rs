//! `doctor`: examines everything that a fleet needs, and changes nothing.
//!
//! Owns: which examinations there are, that they run side by side in bounded time, and that one that fails does not stop the others.
//! Does not own: the table of findings (`diagnosis`), what is wrong with one kind of source, lake or lease store (its `diagnose`),
//! opening them (`setup`), printing (`cli`).
//!
//! The lake is opened for reading only, so that nothing that is called here can change it. The lease table is listed. Trying the
//! permissions sends requests that write nothing (`aws::permissions`).
//!
//! Leases have no time in them. So the lease table is listed several times, and what is wrong for a moment, such as a shard that changes
//! its holder, is not a finding.

mod fleet;
mod history;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use checkpoints::{Lease, StoreError, StreamName};
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;

use crate::aws::Aws;
use crate::aws::permissions::Found;
use crate::clock::{SharedClock, SystemClock};
use crate::commit::Stores;
use crate::config::Config;
use crate::diagnosis::{Diagnosis, FindingKind};
use crate::lake::{LakeError, ObjectStore, ReadOnly};
use crate::retry::{RetryPolicy, Retryable};
use crate::setup::permissions::try_all;
use crate::setup::{
    Consents, OpenError, check_definitions, check_lake, check_sources, load_aws, open_existing_lake,
    open_existing_leases, open_sources, stream_names,
};
use crate::source::{ShardSource, SourceError};

/// How an examination is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoctorOptions {
    /// How long the lease table is watched to see which workers are alive.
    pub watch: Duration,
    /// Whether it is tried what a worker must be allowed to do. Not for credentials that are not a worker's.
    pub tries_permissions: bool,
    /// How long one examination may take.
    pub within: Duration,
}

/// Difference between this machine's clock and AWS's from which it is a finding, in milliseconds.
const CLOCK_AHEAD_MAX_MS: i64 = 60_000;

/// What there is to examine.
struct Patient {
    config: Config,
    aws: Option<Aws>,
    clock: SharedClock,
    /// The lake; `None` if it does not exist or cannot be opened.
    lake: Option<Arc<dyn ObjectStore>>,
    /// Lake and leases, if both exist.
    stores: Option<Stores>,
    /// Streams that somebody has begun to read.
    sources: Vec<Arc<dyn ShardSource>>,
}

/// One of several that run side by side, on one thread.
type Examination<'a> = LocalBoxFuture<'a, Diagnosis>;

/// Examines what a configuration names. `progress` gets the name of each examination once it has ended, and how many are left.
///
/// # Errors
/// The settings of the SDK cannot be used: a mistake of the caller.
pub async fn examine(
    config: Config,
    options: &DoctorOptions,
    progress: &(dyn Fn(&str, usize) + Sync),
) -> Result<Diagnosis, OpenError> {
    let mut diagnosis = settings::examine(&config);
    let aws = load_aws(&config).await?;
    let clock: SharedClock = Arc::new(SystemClock);
    if let Some(aws) = &aws {
        aws.requests().compare_clocks(Arc::clone(&clock));
        if let Err(problem) = aws.check_credentials().await {
            diagnosis.find(FindingKind::NoCredentials, format!("there are no AWS credentials: {problem}"));
            diagnosis.cannot_check("lake, lease table, streams and permissions on AWS", "there are no credentials");
            diagnosis.sort();
            return Ok(diagnosis);
        }
    }
    let opening = open(config.waiting_briefly(), aws, clock, &mut diagnosis);
    let Ok(patient) = tokio::time::timeout(options.within, opening).await else {
        let why = format!("lake, lease table and streams did not open within {} s", options.within.as_secs());
        diagnosis.cannot_check("anything", why);
        return Ok(diagnosis);
    };
    diagnosis.add(run_all(examinations(&patient, options), options.within, progress).await);
    diagnosis.add(compare_clocks(&patient));
    diagnosis.sort();
    Ok(diagnosis)
}

/// Runs examinations side by side. Each may take `within`.
async fn run_all(
    all: Vec<(&'static str, Examination<'_>)>,
    within: Duration,
    progress: &(dyn Fn(&str, usize) + Sync),
) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    let timed = |(name, examination)| async move { (name, tokio::time::timeout(within, examination).await) };
    let mut running: FuturesUnordered<_> = all.into_iter().map(timed).collect();
    while let Some((name, ended)) = running.next().await {
        match ended {
            Ok(found) => diagnosis.add(found),
            Err(_) => diagnosis.cannot_check(name, format!("it took longer than {} s", within.as_secs())),
        }
        progress(name, running.len());
    }
    diagnosis
}

/// Everything that can be examined.
fn examinations<'a>(patient: &'a Patient, options: &'a DoctorOptions) -> Vec<(&'static str, Examination<'a>)> {
    let mut all: Vec<(&'static str, Examination<'a>)> = vec![
        ("the services", Box::pin(services(patient))),
        ("whether a worker would start", Box::pin(refusals(patient))),
    ];
    if let Some(aws) = patient.aws.as_ref().filter(|_| options.tries_permissions) {
        all.push(("the permissions", Box::pin(permissions(patient, aws))));
    }
    if let Some(lake) = &patient.lake {
        all.push(("losses and saved checkpoints", Box::pin(history::losses_and_checkpoints(patient, lake))));
        all.push(("the files of the lake", Box::pin(history::foreign_files(&patient.config, lake))));
    }
    if let Some(stores) = &patient.stores {
        all.push(("the workers and their leases", Box::pin(fleet::examine(patient, stores, options.watch))));
        all.push(("epochs that are not finished", Box::pin(fleet::stalled_epochs(stores, &patient.clock))));
        all.push(("the history of commits", Box::pin(history::chains(stores))));
        all.push(("what uncommitted epochs left", Box::pin(history::leftovers(stores, &patient.clock))));
        all.push(("the replays", Box::pin(history::replays(stores))));
    }
    all
}

/// Opens what exists, and notes what cannot be opened.
async fn open(mut config: Config, aws: Option<Aws>, clock: SharedClock, diagnosis: &mut Diagnosis) -> Patient {
    for source in &mut config.sources {
        source.url.backend().read_beside(&mut source.options);
    }
    let lake = match open_existing_lake(&config, aws.as_ref()).await {
        Ok(lake) => Some(Arc::new(ReadOnly::new(lake)) as Arc<dyn ObjectStore>),
        Err(error) => {
            note_error("the lake", &error, diagnosis);
            None
        }
    };
    let leases = match open_existing_leases(&config, aws.as_ref()).await {
        Ok(leases) => Some(leases),
        Err(error) => {
            // A lake that does not exist has no lease table yet.
            if lake.is_some() || !matches!(error, OpenError::NoLeases { .. }) {
                note_error("the lease table", &error, diagnosis);
            }
            None
        }
    };
    let stores = lake.clone().zip(leases).map(|(lake, leases)| {
        Stores::new(lake, leases, RetryPolicy::CALL).with_streams(stream_names(&config)).with_clock(Arc::clone(&clock))
    });
    let mut patient = Patient { config, aws, clock, lake, stores, sources: Vec::new() };
    open_begun_sources(&mut patient, diagnosis).await;
    patient
}

/// Opens the sources that somebody has begun to read. The first reader of a stream writes where it begins, which is not done here.
async fn open_begun_sources(patient: &mut Patient, diagnosis: &mut Diagnosis) {
    let Some((lake, stores)) = patient.lake.clone().zip(patient.stores.clone()) else { return };
    let leases: Vec<Lease> = match stores.leases.list().await {
        Ok(leases) => leases,
        Err(error) => return note_error("the lease table", &OpenError::Leases(error), diagnosis),
    };
    for source in std::mem::take(&mut patient.config.sources) {
        let name: Option<StreamName> = source.url.backend().local_stream_name(source.name.as_deref());
        let is_begun = leases.iter().any(|lease| Some(&lease.key.stream) == name.as_ref());
        patient.config.sources.push(source);
        let mut all = std::mem::take(&mut patient.config.sources);
        if is_begun && let Some(one) = all.pop() {
            patient.config.sources.push(one);
            let opened = open_sources(&patient.config, &lake, &patient.clock, true, patient.aws.as_ref()).await;
            all.append(&mut patient.config.sources);
            match opened {
                Ok(opened) => patient.sources.extend(opened.into_iter().map(|opened| opened.source)),
                Err(error) => note_error("how far a source was read", &error, diagnosis),
            }
        }
        patient.config.sources = all;
    }
}

/// Bucket, disk, table and streams, each by its own kind.
async fn services(patient: &Patient) -> Diagnosis {
    let Patient { config, aws, .. } = patient;
    let mut diagnosis = Diagnosis::default();
    config.lake.backend().diagnose(&config.lake_options, aws.as_ref(), &mut diagnosis).await;
    config.checkpoints().backend().diagnose(&config.checkpoints_options, aws.as_ref(), &mut diagnosis).await;
    for source in &config.sources {
        source.url.backend().diagnose(&source.options, aws.as_ref(), &mut diagnosis).await;
    }
    diagnosis
}

/// What a worker would refuse to start with.
async fn refusals(patient: &Patient) -> Diagnosis {
    let Patient { config, aws, .. } = patient;
    let mut diagnosis = Diagnosis::default();
    if patient.lake.is_none() {
        return diagnosis;
    }
    if let Err(error) = check_definitions(config, aws.as_ref(), false).await {
        note_error("whether the definitions fit the lake", &error, &mut diagnosis);
    }
    if let Err(error) = check_lake(config, aws.as_ref(), Consents::default()).await {
        note_error("whether lake and lease table belong together", &error, &mut diagnosis);
    }
    if let Err(error) = check_sources(config, aws.as_ref()).await {
        note_error("whether the streams are those of the lake", &error, &mut diagnosis);
    }
    diagnosis
}

/// What a worker must be allowed to do, and whether keys of KMS can be used.
async fn permissions(patient: &Patient, aws: &Aws) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    let mut denied = Vec::new();
    for tried in try_all(&patient.config, aws).await {
        match tried.found {
            Found::Denied(_) => denied.push(format!("{} on {}", tried.action, tried.resource)),
            Found::Failed(problem) if problem.contains("KMS") => {
                let what = format!("{} on {} fails: {problem}", tried.action, tried.resource);
                diagnosis.find(FindingKind::KeyUnusable, what);
            }
            Found::Failed(problem) => {
                diagnosis.cannot_check(format!("{} on {}", tried.action, tried.resource), problem);
            }
            // Whether it must exist is for whoever opens it to say.
            Found::Allowed | Found::Absent(_) => {}
        }
    }
    diagnosis.find_all(FindingKind::PermissionMissing, &denied, |actions| format!("not allowed: {actions}"));
    diagnosis
}

/// Whether this machine's clock is right, by all responses so far.
fn compare_clocks(patient: &Patient) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    let ahead_ms = patient.aws.as_ref().and_then(|aws| aws.requests().clock_ahead_ms());
    if let Some(ahead_ms) = ahead_ms.filter(|ahead_ms| ahead_ms.abs() > CLOCK_AHEAD_MAX_MS) {
        let how = if ahead_ms > 0 { "ahead of" } else { "after" };
        let what = format!("this machine's clock is {} s {how} that of AWS", ahead_ms.abs() / 1000);
        diagnosis.find(FindingKind::ClockWrong, what);
    }
    diagnosis
}

/// Notes why something could not be opened or checked: a finding if somebody must act, otherwise that it could not be checked.
fn note_error(what: &str, error: &OpenError, diagnosis: &mut Diagnosis) {
    let kind = match error {
        OpenError::NoLake { .. } | OpenError::NoLeases { .. } => Some(FindingKind::NotBegun),
        OpenError::OtherLake { .. } | OpenError::LostRows { .. } => Some(FindingKind::LakeAndLeasesDiffer),
        OpenError::Definitions(error) if error.is_usage() => Some(FindingKind::DefinitionsRefused),
        OpenError::Source(SourceError::Unreadable { .. }) => Some(FindingKind::StreamReplaced),
        OpenError::Lake(LakeError::Refused { problem, .. }) if problem.contains("NoSuchBucket") => {
            Some(FindingKind::BucketMissing)
        }
        OpenError::Lake(LakeError::Refused { .. }) | OpenError::Identity(_) => Some(FindingKind::LakeUnusable),
        OpenError::Leases(StoreError::Unusable { .. }) => Some(FindingKind::LeaseTableUnusable),
        _ => None,
    };
    match kind {
        Some(kind) => diagnosis.find(kind, error.to_string()),
        None if error.is_retryable() => diagnosis.cannot_check(what, format!("{error}; try again later")),
        None => diagnosis.cannot_check(what, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_examination_that_hangs_does_not_stop_the_others() {
        let found = async {
            let mut diagnosis = Diagnosis::default();
            diagnosis.find(FindingKind::DataLost, "x");
            diagnosis
        };
        let all: Vec<(&'static str, Examination<'_>)> =
            vec![("the one that hangs", Box::pin(std::future::pending())), ("the other", Box::pin(found))];
        let ended = std::sync::Mutex::new(Vec::new());
        let progress = |name: &str, left: usize| ended.lock().unwrap().push((name.to_owned(), left));
        let diagnosis = run_all(all, Duration::from_secs(60), &progress).await;
        assert_eq!(diagnosis.findings.len(), 1);
        assert_eq!(diagnosis.unchecked[0].what, "the one that hangs");
        let expected = [("the other".to_owned(), 1), ("the one that hangs".to_owned(), 0)];
        assert_eq!(*ended.lock().unwrap(), expected);
    }
}
