//! Records of the `events` dataset: Amazon Pinpoint's event stream, every family of it.
//!
//! This file owns the envelope that all families share, and the frequency of each type. Each family has a file of its own:
//! [`app`] (app events and push, both reported by the app's SDK), [`message`] (campaign, journey and SMS, reported by
//! the service), [`email`], and [`endpoint`] (the endpoint document inside `client_context`). The source of the format
//! is the Amazon Pinpoint developer guide, pages "event-streams-data-*".
//!
//! `event_type`, `event_timestamp`, `arrival_timestamp`, `event_version`, `application.app_id` and `client.client_id`
//! are always present. The event time is `event_timestamp`. An app event arrives some hundred milliseconds later (2 %: up
//! to 300 ms *earlier*), an SMS receipt up to 72 hours later. An e-mail's event has the time of sending, and arrives up to 20 days
//! later. A record of the mix has 1.4 KB on average.

mod app;
mod email;
mod endpoint;
mod message;

use super::draft::{Draft, RecordContext};
use super::random::Rng;
use super::write::put;

/// The account of every event; AWS's documentation uses this number.
const ACCOUNT: &str = "123456789012";
/// The projects ("apps") that send to the stream.
const APPS: [&str; 3] =
    ["a1b2c3d4e5f60718293a4b5c6d7e8f90", "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "9c8b7a6d5e4f40312213041526374859"];

/// The family of an event type, and what is special about the type.
#[derive(Debug, Clone, Copy)]
enum Family {
    App(app::Activity),
    Push(app::Push),
    Campaign,
    Journey,
    Email(email::Mail),
    Sms(message::Receipt),
}

/// Every type with its weight. The weights add up to [`TOTAL_WEIGHT`].
const TYPES: [(u32, &str, Family); 34] = {
    use app::{Activity, Push};
    use email::Mail;
    use message::Receipt;
    [
        (130, "_session.start", Family::App(Activity::SessionStart)),
        (110, "_session.stop", Family::App(Activity::SessionStop)),
        (160, "_campaign.send", Family::Campaign),
        (70, "page.viewed", Family::App(Activity::PageViewed)),
        (60, "assessment.completed", Family::App(Activity::AssessmentCompleted)),
        (60, "assessment.started", Family::App(Activity::AssessmentStarted)),
        (50, "_journey.send", Family::Journey),
        (40, "_session.pause", Family::App(Activity::SessionPause)),
        (40, "_session.resume", Family::App(Activity::SessionResume)),
        (40, "_campaign.opened_notification", Family::Push(Push::Opened)),
        (30, "_campaign.received_background", Family::Push(Push::Background)),
        (20, "_campaign.received_foreground", Family::Push(Push::Foreground)),
        (30, "_userauth.sign_in", Family::App(Activity::SignIn)),
        (8, "_userauth.sign_up", Family::App(Activity::SignUp)),
        (8, "_userauth.auth_fail", Family::App(Activity::AuthFail)),
        (20, "_monetization.purchase", Family::App(Activity::Purchase)),
        (10, "feedback.sent", Family::App(Activity::FeedbackSent)),
        (18, "_email.send", Family::Email(Mail::Send)),
        (18, "_email.delivered", Family::Email(Mail::Delivered)),
        (12, "_email.open", Family::Email(Mail::Open)),
        (6, "_email.click", Family::Email(Mail::Click)),
        (3, "_email.softbounce", Family::Email(Mail::SoftBounce)),
        (2, "_email.hardbounce", Family::Email(Mail::HardBounce)),
        (2, "_email.complaint", Family::Email(Mail::Complaint)),
        (2, "_email.rejected", Family::Email(Mail::Rejected)),
        (2, "_email.unsubscribe", Family::Email(Mail::Unsubscribe)),
        (2, "_email.rendering_failure", Family::Email(Mail::RenderingFailure)),
        (22, "_SMS.SUCCESS", Family::Sms(Receipt::Success)),
        (14, "_SMS.BUFFERED", Family::Sms(Receipt::Buffered)),
        (6, "_SMS.FAILURE", Family::Sms(Receipt::Failure)),
        (2, "_SMS.OPTOUT", Family::Sms(Receipt::OptOut)),
        (1, "assessment.abandoned", Family::App(Activity::AssessmentStarted)),
        (1, "Kündigung \"angefragt\"", Family::App(Activity::PageViewed)),
        (1, "plan/upgrade\\downgrade", Family::App(Activity::PageViewed)),
    ]
};

/// The sum of the weights.
const TOTAL_WEIGHT: u32 = {
    let mut total = 0;
    let mut at = 0;
    while at < TYPES.len() {
        total += TYPES[at].0;
        at += 1;
    }
    total
};

/// Appends the members of one record, and returns its event time.
pub(super) fn write(draft: &mut Draft<'_>, context: &mut RecordContext<'_>) -> i64 {
    let (name, family) = choose(&mut context.rng);
    match family {
        Family::App(activity) => app::activity(draft, context, name, activity),
        Family::Push(push) => app::push(draft, context, name, push),
        Family::Campaign => message::campaign(draft, context, name),
        Family::Journey => message::journey(draft, context, name),
        Family::Email(mail) => email::write(draft, context, name, mail),
        Family::Sms(receipt) => message::sms(draft, context, name, receipt),
    }
    context.at_ms
}

fn choose(rng: &mut Rng) -> (&'static str, Family) {
    let mut rest = rng.below(TOTAL_WEIGHT);
    for (weight, name, family) in TYPES {
        if rest < weight {
            return (name, family);
        }
        rest -= weight;
    }
    unreachable!("a number below the sum of the weights falls into one of them")
}

/// The first four members of every event. `late_ms` is the time between the event and its arrival.
fn open(draft: &mut Draft<'_>, context: &RecordContext<'_>, name: &str, late_ms: i64, version: &str) {
    put!(draft.member("event_type"); super::write::Text(name));
    put!(draft.member("event_timestamp"); context.at_ms);
    put!(draft.member("arrival_timestamp"); context.at_ms + late_ms);
    put!(draft.member("event_version"); "\"", version, "\"");
}

/// The delay of an event of an app or of a send: 60 to 1,000 ms. In 2 % it is up to 300 ms too early, because the clocks of the
/// sender and of the service differ.
fn usual_delay_ms(rng: &mut Rng) -> i64 {
    if rng.chance(200) { -i64::from(rng.below(301)) } else { i64::from(60 + rng.skewed(940)) }
}

/// The project. Most people use the first.
fn app_id(context: &RecordContext<'_>) -> &'static str {
    match context.person.number % 10 {
        0..=6 => APPS[0],
        7..=8 => APPS[1],
        _ => APPS[2],
    }
}

/// The first members of an event that the service itself reports: there is no SDK.
fn open_of_service(draft: &mut Draft<'_>, context: &RecordContext<'_>, name: &str, late_ms: i64) {
    open(draft, context, name, late_ms, "3.1");
    put!(draft.member("application"); r#"{"app_id":""#, app_id(context), r#"","sdk":{}}"#);
}

/// `device` and `session` of such an event, which are empty.
fn no_device_no_session(draft: &mut Draft<'_>) {
    put!(draft.member("device"); r#"{"platform":{}}"#);
    put!(draft.member("session"); "{}");
}

#[cfg(test)]
pub(super) fn type_names() -> impl Iterator<Item = &'static str> {
    TYPES.iter().map(|(_, name, _)| *name)
}
