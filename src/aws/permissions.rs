//! IAM actions: which requests need them, and what a trial of one shows.
//!
//! Owns: reading the answer to a trial. Does not own: which actions a backend needs and how each is tried (the backend's own
//! `PERMISSIONS` and `try_permissions`), or trying all of them (`setup::permissions`).
//!
//! A trial is one harmless request. An action that reads is tried as it is. An action that writes is tried with a condition
//! that cannot hold, or on an upload that is aborted at once. Nothing that exists is changed.

use std::fmt;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use checkpoints::error_chain;

/// The key of an item, an object or an upload that exists only during a trial.
pub const PROBE: &str = "_shardlake-probe";
/// Characters of a problem that are shown.
const PROBLEM_MAX: usize = 160;

/// An IAM action that a worker needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission {
    /// Its name in IAM, such as `kinesis:GetRecords`.
    pub action: &'static str,
    /// The requests that need it, as [`RequestCounter`](crate::aws::RequestCounter) names them.
    pub requests: &'static [&'static str],
}

/// What the trial of an action showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is allowed.
    Allowed,
    /// The account refuses it, and what may be done about it beside allowing the action.
    Denied(Option<&'static str>),
    /// The resource does not exist.
    Absent(&'static str),
    /// The trial failed for another reason.
    Failed(String),
}

impl Found {
    /// Whether a worker would fail.
    pub fn is_fault(&self) -> bool {
        matches!(self, Found::Denied(_) | Found::Failed(_))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Allowed => f.write_str("allowed"),
            Found::Denied(_) => f.write_str("DENIED"),
            Found::Absent(what) => write!(f, "not there yet: {what}"),
            Found::Failed(problem) => write!(f, "not known: {problem}"),
        }
    }
}

/// An action that was tried.
#[derive(Debug, Clone)]
pub struct Tried {
    /// Its name in IAM.
    pub action: &'static str,
    /// The resource it was tried on.
    pub resource: String,
    /// What the trial showed.
    pub found: Found,
}

/// The trials of one resource.
#[derive(Debug, Default)]
pub struct Trials(Vec<Tried>);

impl Trials {
    /// Notes what a request showed. An error with one of the codes in `allowed` shows that the request was allowed; `absent`
    /// is the code that says that the resource does not exist, and how to make it.
    pub fn note<T, E>(
        &mut self,
        action: &'static str,
        resource: &str,
        result: Result<T, SdkError<E, HttpResponse>>,
        allowed: &[&str],
        absent: (&str, &'static str),
    ) where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let found = judge(result, allowed, absent);
        self.0.push(Tried { action, resource: resource.to_owned(), found });
    }

    /// Notes why an action could not be tried, in place of what the last trial of it showed.
    pub fn fail(&mut self, action: &'static str, resource: &str, problem: String) {
        self.0.pop_if(|last| last.action == action && last.resource == resource);
        self.0.push(Tried { action, resource: resource.to_owned(), found: Found::Failed(problem) });
    }

    /// Whether the last trial showed neither that its action is allowed nor that it is denied.
    pub fn last_failed(&self) -> bool {
        self.0.last().is_some_and(|tried| matches!(tried.found, Found::Failed(_)))
    }

    /// What may be done if the last trial was denied, beside allowing the action.
    pub fn advise_if_denied(&mut self, advice: &'static str) {
        if let Some(Tried { found: Found::Denied(kept), .. }) = self.0.last_mut() {
            *kept = Some(advice);
        }
    }

    /// Whether the resource of the last trial exists.
    pub fn last_exists(&self) -> bool {
        self.0.last().is_some_and(|tried| !matches!(tried.found, Found::Absent(_)))
    }

    /// All trials, in their order.
    pub fn into_vec(self) -> Vec<Tried> {
        self.0
    }
}

fn judge<T, E>(
    result: Result<T, SdkError<E, HttpResponse>>,
    allowed: &[&str],
    (absent, what): (&str, &'static str),
) -> Found
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let Err(error) = result else { return Found::Allowed };
    let status = error.raw_response().map(|response| response.status().as_u16());
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default().to_owned();
    if allowed.contains(&code.as_str()) {
        return Found::Allowed;
    }
    if code == absent {
        return Found::Absent(what);
    }
    let denied = ["AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError", "Forbidden"];
    if denied.contains(&code.as_str()) || (code.is_empty() && status == Some(403)) {
        return Found::Denied(None);
    }
    let mut problem = error_chain(&error);
    problem.truncate(problem.char_indices().nth(PROBLEM_MAX).map_or(problem.len(), |(at, _)| at));
    Found::Failed(problem)
}
