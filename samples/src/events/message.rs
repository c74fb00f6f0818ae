//! Events that the service reports about messages that it sends: campaigns, journeys and SMS receipts.
//!
//! Campaign and journey events have the endpoint as it was when the message was sent. SMS receipts have the number, the price, and
//! sometimes the caller's own context as another escaped document. There is no device and no session:
//! `"device":{"platform":{}}`, `"session":{}`, `"sdk":{}`. Only SMS receipts have `metrics`, and `_SMS.BUFFERED` has no
//! price yet.

use super::super::draft::{Draft, RecordContext};
use super::super::personas::Channel;
use super::super::random::{Rng, mix};
use super::super::write::{Fixed, Hex32, Text, Uuid, escape, put};
use super::{ACCOUNT, app_id, endpoint, no_device_no_session, open_of_service, usual_delay_ms};

/// What happened to a text message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receipt {
    Buffered,
    Success,
    Failure,
    OptOut,
}

const CHANNELS: [Channel; 5] = [Channel::Gcm, Channel::Email, Channel::Apns, Channel::Sms, Channel::Custom];
const CAMPAIGN_FAILURES: [&str; 8] = [
    "FAILURE",
    "DUPLICATE",
    "OPTED_OUT",
    "EXPIRED",
    "APP_THROTTLED",
    "INVALID",
    "CUSTOM_DELIVERY_FAILURE",
    "PERMANENT_FAILURE",
];
const SMS_FAILURES: [&str; 11] = [
    "UNREACHABLE",
    "INVALID",
    "UNKNOWN",
    "BLOCKED",
    "CARRIER_UNREACHABLE",
    "SPAM",
    "INVALID_MESSAGE",
    "CARRIER_BLOCKED",
    "TTL_EXPIRED",
    "MAX_PRICE_EXCEEDED",
    "OPTED_OUT",
];
const NOTES: [&str; 2] = ["autumn", "reminder 2"];
const UNUSUAL_NOTES: [&str; 2] = ["\"vip\"\\list", "Frühjahr 🌷"];
/// The number of campaigns and journeys.
const SENDERS: u32 = 40;

/// The identifier of a campaign or a journey. A few of them send most messages.
pub(super) fn sender_id(rng: &mut Rng) -> Hex32 {
    Hex32(mix(u64::from(rng.skewed(SENDERS)) + 1))
}

/// The identifier of one run of a journey, which sends many messages.
pub(super) fn run_id(rng: &mut Rng) -> Hex32 {
    Hex32(mix(1_000 + u64::from(rng.below(200))))
}

/// Appends a `_campaign.send`.
pub(super) fn campaign(draft: &mut Draft<'_>, context: &mut RecordContext<'_>, name: &str) {
    let channel = context.rng.pick_skewed(&CHANNELS);
    open_sent(draft, context, name, channel);
    let rng = &mut context.rng;
    let out = draft.member("attributes");
    put!(out; r#"{"treatment_id":""#, rng.skewed(3), r#"","campaign_activity_id":""#, Hex32(rng.bits()));
    put!(out; r#"","delivery_type":""#, channel.name(), r#"","campaign_id":""#);
    put!(out; sender_id(rng), r#"","campaign_send_status":""#, status(rng), r#""}"#);
    close_sent(draft, context, channel);
}

/// Appends a `_journey.send`.
pub(super) fn journey(draft: &mut Draft<'_>, context: &mut RecordContext<'_>, name: &str) {
    let channel = context.rng.pick_skewed(&CHANNELS);
    let activity = match channel {
        Channel::Apns | Channel::Gcm => "PUSH",
        other => other.name(),
    };
    open_sent(draft, context, name, channel);
    let rng = &mut context.rng;
    let out = draft.member("attributes");
    put!(out; r#"{"journey_run_id":""#, run_id(rng));
    put!(out; r#"","journey_send_status":""#, status(rng), r#"","journey_id":""#, sender_id(rng));
    put!(out; r#"","journey_activity_id":""#, rng.pick(&["0yKa1b2", "Wz3kQ9d", "mN7pT4x"]));
    put!(out; r#"","journey_activity_type":""#, activity, r#""}"#);
    close_sent(draft, context, channel);
}

/// Appends an SMS receipt.
pub(super) fn sms(draft: &mut Draft<'_>, context: &mut RecordContext<'_>, name: &str, receipt: Receipt) {
    // Carriers respond within seconds, some within three days. A receipt may even arrive before its own event time.
    let late_ms = match context.rng.below(100) {
        0..10 => -i64::from(context.rng.below(300)),
        10..15 => i64::from(context.rng.skewed(72 * 3_600_000)),
        _ => i64::from(100 + context.rng.skewed(30_000)),
    };
    open_of_service(draft, context, name, late_ms);
    let (rng, person) = (&mut context.rng, &context.person);
    let out = draft.member("client");
    put!(out; r#"{"client_id":""#);
    if rng.chance(3_000) {
        put!(out; ACCOUNT);
    } else {
        put!(out; person.endpoint(Channel::Sms));
    }
    put!(out; r#""}"#);
    no_device_no_session(draft);

    let parts = 1 + rng.skewed(4);
    let out = draft.member("attributes");
    put!(out; r#"{"sender_request_id":""#, Uuid(rng.bits(), rng.bits()), r#"","campaign_activity_id":""#);
    put!(out; Hex32(rng.bits()), r#"","origination_phone_number":"+12065550142""#);
    put!(out; r#","destination_phone_number":""#, person.phone(), r#"","record_status":""#);
    put!(out; match receipt {
        Receipt::Buffered => "PENDING",
        Receipt::Success => rng.pick(&["SUCCESSFUL", "DELIVERED"]),
        Receipt::Failure => rng.pick_skewed(&SMS_FAILURES),
        Receipt::OptOut => "OPTED_OUT",
    });
    put!(out; r#"","iso_country_code":""#, person.phone_country(), r#"","treatment_id":""#, rng.skewed(3));
    put!(out; r#"","number_of_message_parts":""#, parts, r#"","message_id":""#, Uuid(rng.bits(), rng.bits()));
    put!(out; r#"","message_type":""#, rng.pick(&["Promotional", "Transactional"]), r#"","campaign_id":""#);
    put!(out; sender_id(rng), r#"""#);
    if rng.chance(4_000) {
        let document = &mut *context.scratch;
        put!(document; r#"{"userId":""#, person.id(), r#"","note":"#, Text(rng.text(&NOTES, &UNUSUAL_NOTES)), "}");
        put!(out; r#","customer_context":""#);
        escape(out, document);
        put!(out; r#"""#);
        document.clear();
    }
    put!(out; "}");
    let out = draft.member("metrics");
    if receipt == Receipt::Buffered {
        put!(out; "{}");
    } else {
        put!(out; r#"{"price_in_millicents_usd":"#, Fixed(6_450 * i64::from(parts), 1), "}");
    }
    put!(draft.member("awsAccountId"); "\"", ACCOUNT, "\"");
}

/// Everything before the attributes of a send.
fn open_sent(draft: &mut Draft<'_>, context: &mut RecordContext<'_>, name: &str, channel: Channel) {
    let late_ms = usual_delay_ms(&mut context.rng);
    open_of_service(draft, context, name, late_ms);
    put!(draft.member("client"); r#"{"client_id":""#, context.person.endpoint(channel), r#""}"#);
    no_device_no_session(draft);
}

/// Everything after the attributes of a send.
fn close_sent(draft: &mut Draft<'_>, context: &mut RecordContext<'_>, channel: Channel) {
    let app_id = app_id(context);
    let out = draft.member("client_context");
    put!(out; r#"{"custom":{"endpoint":"#);
    endpoint::write(out, context, app_id, channel);
    put!(out; "}}");
    put!(draft.member("awsAccountId"); "\"", ACCOUNT, "\"");
}

fn status(rng: &mut Rng) -> &'static str {
    if rng.chance(800) { rng.pick_skewed(&CAMPAIGN_FAILURES) } else { "SUCCESS" }
}
