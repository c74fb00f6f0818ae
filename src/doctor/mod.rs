//! `doctor`: looks at everything that a fleet needs, and says what is wrong and what to do. Changes nothing.
//!
//! Owns: which parts are looked at, and that one that cannot be looked at does not stop the others. Does not own: the kinds of findings
//! (`findings`), what only one kind of lake or lease store knows (its backend), printing.
//!
//! Each part has a limit of time, so that a service that hangs delays the report and does not prevent it.

mod fleet;
mod lake;
mod settings;

use std::time::Duration;

use crate::aws::Aws;
use crate::aws::permissions::Found;
use crate::clock::SharedClock;
use crate::config::Config;
use crate::findings::{self, Findings};
use crate::setup::permissions::try_all;
use crate::setup::{self, Consents, OpenError, check_definitions, check_lake, check_sources, load_aws};

/// How long one part may take.
const PART_WITHIN: Duration = Duration::from_secs(60);
/// A clock that differs by more is wrong. Services refuse a difference of five minutes or more.
const SKEW_MAX_MS: i64 = 30_000;

/// What `doctor` looks at.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// Whether the permissions of a worker and the pseudonym key are tried, which needs the worker's role.
    pub permissions: bool,
    /// How long the lease table is watched, to see which workers are alive.
    pub watch: Duration,
}

/// Looks at everything. `step` is called with what is looked at next.
pub async fn examine(config: &Config, scope: Scope, clock: &SharedClock, step: &(dyn Fn(&str) + Sync)) -> Findings {
    let mut all = Findings::default();
    settings::examine(config, &mut all);
    step("credentials");
    let aws = match load_aws(config).await {
        Ok(aws) => aws,
        Err(error) => {
            all.add(&findings::CREDENTIALS, error.to_string());
            return all;
        }
    };
    step("permissions and services");
    look(&mut all, "the services", examine_services(config, aws.as_ref(), scope)).await;
    step("whether a worker would start");
    let mut exists = true;
    look(&mut all, "whether a worker would start", examine_start(config, aws.as_ref(), scope.permissions, &mut exists))
        .await;
    if exists {
        step("the lake");
        look(&mut all, "the lake", lake::examine(config, clock)).await;
        step("the fleet");
        look(&mut all, "the fleet", fleet::examine(config, aws.as_ref(), clock, scope.watch)).await;
    }
    if let Some(skew) = aws.as_ref().and_then(|aws| aws.requests().clock_skew_ms()).filter(|ms| ms.abs() > SKEW_MAX_MS)
    {
        let direction = if skew > 0 { "behind" } else { "ahead of" };
        all.add(
            &findings::CLOCK,
            format!("the clock of this machine is {} s {direction} that of the services", skew.abs() / 1000),
        );
    }
    all.found.sort_by_key(|finding| {
        (finding.kind.severity, findings::ALL.iter().position(|kind| std::ptr::eq(*kind, finding.kind)))
    });
    all
}

/// Looks at one part, for as long as that may take.
async fn look(all: &mut Findings, what: &str, looking: impl Future<Output = Findings>) {
    match tokio::time::timeout(PART_WITHIN, looking).await {
        Ok(found) => all.extend(found),
        Err(_) => all.unknown(what, &format_args!("it took more than {} s", PART_WITHIN.as_secs())),
    }
}

/// Permissions, and what the services themselves say of bucket, table and disk.
async fn examine_services(config: &Config, aws: Option<&Aws>, scope: Scope) -> Findings {
    let mut all = Findings::default();
    if let Some(aws) = aws.filter(|_| scope.permissions) {
        for tried in try_all(config, aws).await {
            let (action, on) = (tried.action, &tried.resource);
            match &tried.found {
                Found::Denied(advice) => {
                    let advice = advice.map_or_else(String::new, |advice| format!("; {advice}"));
                    all.add(&findings::PERMISSION, format!("a worker needs {action} on {on}{advice}"));
                }
                Found::Absent(_) if action.starts_with("kinesis:") => {
                    all.add(&findings::STREAM_MISSING, format!("there is no stream {on}"));
                }
                Found::Absent(_) if action.starts_with("s3:") => {
                    all.add(&findings::NO_LAKE, format!("there is no bucket for {on}"));
                }
                // A worker makes the table at its first start.
                Found::Allowed | Found::Absent(_) => {}
                Found::Failed(problem) => all.unknown(&format!("{action} on {on}"), problem),
            }
        }
        let mut seen = Vec::new();
        all.found.retain(|finding| {
            let is_new = !seen.contains(finding);
            seen.push(finding.clone());
            is_new
        });
    }
    all.extend(config.lake.backend().examine(&config.lake_options, aws).await);
    all.extend(config.checkpoints().backend().examine(&config.checkpoints_options, aws).await);
    all
}

/// Why a worker would refuse to start. `exists` becomes false if there is no lake to look at.
async fn examine_start(config: &Config, aws: Option<&Aws>, permissions: bool, exists: &mut bool) -> Findings {
    let mut all = Findings::default();
    let opened = config.lake.backend().open_existing(&config.lake_options, aws).await;
    let lake = match opened {
        Ok(Some(lake)) => lake,
        Ok(None) => {
            *exists = false;
            all.add(&findings::NO_LAKE, format!("there is no lake {}", config.lake));
            return all;
        }
        Err(error) => {
            *exists = false;
            all.add(&findings::NO_LAKE, format!("the lake {} cannot be opened: {error}", config.lake));
            return all;
        }
    };
    match check_lake(config, aws, Consents::default()).await {
        Ok(_) => {}
        Err(error @ OpenError::LostRows { .. }) => all.add(&findings::LOST_ROWS, error.to_string()),
        Err(error @ OpenError::OtherLake { .. }) => all.add(&findings::OTHER_LAKE, error.to_string()),
        Err(error) if error.is_usage() => all.add(&findings::LAKE_UNREADABLE, error.to_string()),
        Err(error) => all.unknown("the lease table and the lake", &error),
    }
    match check_definitions(config, aws, false).await {
        Ok(()) => {}
        Err(error) if error.is_usage() => all.add(&findings::DEFINITION, error.to_string()),
        Err(error) => all.unknown("the definitions", &error),
    }
    match check_sources(config, aws).await {
        Ok(()) => {}
        Err(OpenError::Source(error)) if !crate::retry::Retryable::is_retryable(&error) => {
            all.add(&findings::OTHER_STREAM, error.to_string());
        }
        Err(error) => all.unknown("the streams", &error),
    }
    // The maintenance role may not read the key.
    if permissions && config.datasets.need_key() {
        match setup::check_key(config, aws, &*lake).await {
            Ok(()) => {}
            Err(OpenError::Unavailable(problem)) => all.unknown("the pseudonym key", &problem),
            Err(error) => all.add(&findings::KEY, error.to_string()),
        }
    }
    all
}
