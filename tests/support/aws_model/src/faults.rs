//! Faults between a client and a model: a plan of rules, scripted and seeded.
//!
//! Owns: which call meets which fault, in what order, and counts of what happened. Does not own: carrying a fault out. The
//! server does that on the wire; an in-process user may draw from the same plan.
//!
//! Every rule counts the calls that match it from the moment it was added; the first rule that fires decides the call. A
//! rule with a probability has a generator of its own, seeded by the plan's seed and the rule's number. So the same calls in the
//! same order meet the same faults, whatever other rules there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use crate::route::ServiceName;

/// An error that is sent in place of the model's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// 400, 500, 503, …
    pub status: u16,
    /// The error's type, as the service names it: `ProvisionedThroughputExceededException`, `SlowDown`, …
    pub code: String,
    /// The message.
    pub message: String,
    /// DynamoDB's reasons of a canceled transaction, one for each action (`None`, `ConditionalCheckFailed`, …).
    pub reasons: Vec<String>,
}

impl Refusal {
    /// An error of this type.
    pub fn new(status: u16, code: &str, message: &str) -> Self {
        Refusal { status, code: code.to_owned(), message: message.to_owned(), reasons: Vec::new() }
    }

    /// 500: the service failed.
    pub fn internal() -> Self {
        Self::new(500, "InternalFailure", "We encountered an internal error. Please try again.")
    }

    /// S3's 503.
    pub fn slow_down() -> Self {
        Self::new(503, "SlowDown", "Please reduce your request rate.")
    }

    /// A shard's, a table's or an index's limit.
    pub fn throughput_exceeded() -> Self {
        Self::new(400, "ProvisionedThroughputExceededException", "Rate exceeded.")
    }

    /// The limit of an operation or of an account.
    pub fn throttled() -> Self {
        Self::new(400, "ThrottlingException", "Rate exceeded")
    }

    /// Kinesis's answer to an iterator that is older than 5 minutes.
    pub fn expired_iterator() -> Self {
        Self::new(400, "ExpiredIteratorException", "Iterator expired.")
    }

    /// DynamoDB's answer to a cancelled transaction: one reason for each action.
    pub fn transaction_canceled<'a>(reasons: impl IntoIterator<Item = &'a str>) -> Self {
        let reasons: Vec<String> = reasons.into_iter().map(str::to_owned).collect();
        let message = format!(
            "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
            reasons.join(", ")
        );
        Refusal { reasons, ..Self::new(400, "TransactionCanceledException", &message) }
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The model does not see the call; this is the answer.
    Refuse(Refusal),
    /// The call waits, then proceeds.
    Delay(Duration),
    /// The model does not see the call, and there is no answer until the client disconnects.
    Hang,
    /// The model does not see the call; the connection is cut.
    CutBefore,
    /// The call takes effect; the connection is cut.
    CutAfter,
    /// The call takes effect; this is the answer.
    RefuseAfter(Refusal),
    /// The call takes effect, and there is no answer until the client disconnects.
    HangAfter,
    /// The call takes effect; the connection is cut in the middle of the answer's body, or after its first event. An answer
    /// without a body is not sent at all.
    CutBody,
}

/// The kinds of faults, as they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// [`Fault::Refuse`]
    Refuse,
    /// [`Fault::Delay`]
    Delay,
    /// [`Fault::Hang`]
    Hang,
    /// [`Fault::CutBefore`]
    CutBefore,
    /// [`Fault::CutAfter`]
    CutAfter,
    /// [`Fault::RefuseAfter`]
    RefuseAfter,
    /// [`Fault::HangAfter`]
    HangAfter,
    /// [`Fault::CutBody`]
    CutBody,
}

impl Fault {
    /// Its kind.
    pub fn kind(&self) -> FaultKind {
        match self {
            Fault::Refuse(_) => FaultKind::Refuse,
            Fault::Delay(_) => FaultKind::Delay,
            Fault::Hang => FaultKind::Hang,
            Fault::CutBefore => FaultKind::CutBefore,
            Fault::CutAfter => FaultKind::CutAfter,
            Fault::RefuseAfter(_) => FaultKind::RefuseAfter,
            Fault::HangAfter => FaultKind::HangAfter,
            Fault::CutBody => FaultKind::CutBody,
        }
    }
}

/// Which of the calls that match a rule it fires on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// All of them.
    Always,
    /// This one, counted from 1.
    Nth(u64),
    /// The first n.
    First(u64),
    /// Every n-th.
    Every(u64),
    /// Each with this probability, 0 to 1.
    Probability(f64),
}

/// A fault, and the calls that it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    service: ServiceName,
    operation: String,
    touching: Option<String>,
    sparing: Option<String>,
    when: When,
    fault: Fault,
}

impl Rule {
    /// `operation` is a name (`PutObject`), the beginning of names and `*` (`Put*`), or `*`.
    pub fn new(service: ServiceName, operation: &str, when: When, fault: Fault) -> Self {
        Rule { service, operation: operation.to_owned(), touching: None, sparing: None, when, fault }
    }

    /// Only calls whose path, headers or body contain this text: a bucket's key, a table's name, `x-amz-tagging:`.
    #[must_use]
    pub fn touching(mut self, text: &str) -> Self {
        self.touching = Some(text.to_owned());
        self
    }

    /// Only calls that do not contain this text.
    #[must_use]
    pub fn sparing(mut self, text: &str) -> Self {
        self.sparing = Some(text.to_owned());
        self
    }

    fn matches(&self, service: ServiceName, operation: &str, touches: &dyn Fn(&str) -> bool) -> bool {
        let named = match self.operation.strip_suffix('*') {
            Some(beginning) => operation.starts_with(beginning),
            None => operation == self.operation,
        };
        service == self.service
            && named
            && self.touching.as_deref().is_none_or(touches)
            && !self.sparing.as_deref().is_some_and(touches)
    }
}

/// A plan of faults. Threads share it; rules may be added at any time.
#[derive(Debug)]
pub struct Faults {
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Planned>,
    added: u64,
    happened: BTreeMap<FaultKind, u64>,
    calls: BTreeMap<(ServiceName, String), u64>,
    signatures: BTreeSet<Signature>,
}

/// Who signed a call, and for which region.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signature {
    /// The service that was called.
    pub service: ServiceName,
    /// The region of the signature.
    pub region: String,
    /// The access key id.
    pub access_key: String,
}

#[derive(Debug)]
struct Planned {
    rule: Rule,
    seen: u64,
    random: u64,
}

impl Faults {
    /// No faults yet; those with a probability will draw from `seed`.
    pub fn new(seed: u64) -> Self {
        Faults { seed, state: Mutex::default() }
    }

    /// Adds a rule after the existing ones.
    pub fn add(&self, rule: Rule) {
        let mut state = self.state();
        let random = self.seed ^ (state.added.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        state.added += 1;
        state.rules.push(Planned { rule, seen: 0, random });
    }

    /// Removes all rules; the counts stay.
    pub fn clear(&self) {
        self.state().rules.clear();
    }

    /// How often each kind happened.
    pub fn happened(&self) -> BTreeMap<FaultKind, u64> {
        self.state().happened.clone()
    }

    /// How often this kind happened.
    pub fn count(&self, kind: FaultKind) -> u64 {
        self.state().happened.get(&kind).copied().unwrap_or(0)
    }

    /// How many calls came, including faulty ones, by service and operation.
    pub fn calls(&self) -> BTreeMap<(ServiceName, String), u64> {
        self.state().calls.clone()
    }

    /// Counts a call and returns its fault. `touches` says whether its path or body contains a text.
    pub fn draw(&self, service: ServiceName, operation: &str, touches: &dyn Fn(&str) -> bool) -> Option<Fault> {
        let mut state = self.state();
        *state.calls.entry((service, operation.to_owned())).or_default() += 1;
        let mut fires = None;
        for planned in &mut state.rules {
            if planned.rule.matches(service, operation, touches) && planned.fires() && fires.is_none() {
                fires = Some(planned.rule.fault.clone());
            }
        }
        if let Some(fault) = &fires {
            *state.happened.entry(fault.kind()).or_default() += 1;
        }
        fires
    }

    /// Notes who signed a call, by its `Authorization` header: `… Credential=KEY/DATE/REGION/SERVICE/aws4_request, …`.
    pub fn note_signature(&self, service: ServiceName, authorization: &str) {
        let Some((_, credential)) = authorization.split_once("Credential=") else { return };
        let mut parts = credential.split('/');
        if let (Some(access_key), Some(region)) = (parts.next(), parts.nth(1)) {
            let (region, access_key) = (region.to_owned(), access_key.to_owned());
            self.state().signatures.insert(Signature { service, region, access_key });
        }
    }

    /// Who signed the calls.
    pub fn signatures(&self) -> BTreeSet<Signature> {
        self.state().signatures.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Planned {
    fn fires(&mut self) -> bool {
        self.seen += 1;
        match self.rule.when {
            When::Always => true,
            When::Nth(nth) => self.seen == nth,
            When::First(count) => self.seen <= count,
            When::Every(step) => step != 0 && self.seen.is_multiple_of(step),
            When::Probability(probability) => unit(&mut self.random) < probability,
        }
    }
}

/// The next number of SplitMix64, as a fraction of 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits are exactly what a double holds")]
fn unit(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^= mixed >> 31;
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(faults: &Faults, operation: &str) -> Option<FaultKind> {
        faults.draw(ServiceName::S3, operation, &|text| text == "key").map(|fault| fault.kind())
    }

    #[test]
    fn rules_count_their_own_calls_and_the_first_that_fires_decides() {
        let faults = Faults::new(0);
        faults.add(Rule::new(ServiceName::S3, "Put*", When::Nth(2), Fault::Hang));
        faults.add(Rule::new(ServiceName::S3, "PutObject", When::First(2), Fault::CutAfter));
        faults.add(Rule::new(ServiceName::S3, "*", When::Every(3), Fault::CutBody).touching("key"));
        faults.add(Rule::new(ServiceName::S3, "*", When::Always, Fault::CutBefore).touching("another"));
        let drawn: Vec<_> =
            ["PutObject", "PutObject", "PutObject", "GetObject"].map(|name| drawn(&faults, name)).into();
        assert_eq!(drawn, [Some(FaultKind::CutAfter), Some(FaultKind::Hang), Some(FaultKind::CutBody), None]);
        assert_eq!(faults.count(FaultKind::Hang), 1);
        assert_eq!(faults.happened().len(), 3);
        assert_eq!(faults.calls()[&(ServiceName::S3, "PutObject".to_owned())], 3);
        faults.clear();
        assert_eq!(faults.draw(ServiceName::S3, "PutObject", &|_| true), None);
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_at_about_the_given_rate() {
        let run = |seed| {
            let faults = Faults::new(seed);
            faults.add(Rule::new(ServiceName::S3, "*", When::Probability(0.25), Fault::Hang));
            (0..1000).map(|_| drawn(&faults, "GetObject").is_some()).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let hits = run(7).into_iter().filter(|hit| *hit).count();
        assert!((200..300).contains(&hits), "{hits}");
    }
}
