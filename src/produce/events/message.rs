//! Events that the service reports of messages it sends: campaigns, journeys and SMS receipts.
//!
//! Campaign and journey events carry the endpoint as it was when the message went out; SMS receipts carry the number
//! called, the price, and in some messages the caller's own context as another escaped document. There is no device and
//! no session: `"device":{"platform":{}}`, `"session":{}`, `"sdk":{}`, and no `metrics` but in SMS receipts, where
//! `_SMS.BUFFERED` has no price yet.

use super::super::draft::{Draft, RecordContext};
use super::super::personas::Channel;
use super::super::random::{Rng, mix};
use super::super::write::{Fixed, Hex32, Text, Uuid, escape, put};
use super::{ACCOUNT, app_id, endpoint, no_device_no_session, open_of_service, usual_delay_ms};

/// What became of a text message.
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
const SPICED_NOTES: [&str; 2] = ["\"vip\"\\list", "Frühjahr 🌷"];
/// How many campaigns and journeys there are.
const SENDERS: u32 = 40;

/// The identifier of a campaign or a journey; a few of them send most messages.
pub(super) fn sender_id(rng: &mut Rng) -> Hex32 {
    Hex32(mix(u64::from(rng.skewed(SENDERS)) + 1))
}

/// The identifier of one run of a journey, of which there are fewer than messages.
pub(super) fn run_id(rng: &mut Rng) -> Hex32 {
    Hex32(mix(1_000 + u64::from(rng.below(200))))
}

/// Appends a `_campaign.send`.
pub(super) fn campaign(draft: &mut Draft<'_>, scene: &mut RecordContext<'_>, name: &str) {
    let channel = scene.rng.pick_skewed(&CHANNELS);
    open_sent(draft, scene, name, channel);
    let rng = &mut scene.rng;
    let out = draft.member("attributes");
    put!(out; r#"{"treatment_id":""#, rng.skewed(3), r#"","campaign_activity_id":""#, Hex32(rng.bits()));
    put!(out; r#"","delivery_type":""#, channel.name(), r#"","campaign_id":""#);
    put!(out; sender_id(rng), r#"","campaign_send_status":""#, status(rng), r#""}"#);
    close_sent(draft, scene, channel);
}

/// Appends a `_journey.send`.
pub(super) fn journey(draft: &mut Draft<'_>, scene: &mut RecordContext<'_>, name: &str) {
    let channel = scene.rng.pick_skewed(&CHANNELS);
    let activity = match channel {
        Channel::Apns | Channel::Gcm => "PUSH",
        other => other.name(),
    };
    open_sent(draft, scene, name, channel);
    let rng = &mut scene.rng;
    let out = draft.member("attributes");
    put!(out; r#"{"journey_run_id":""#, run_id(rng));
    put!(out; r#"","journey_send_status":""#, status(rng), r#"","journey_id":""#, sender_id(rng));
    put!(out; r#"","journey_activity_id":""#, rng.pick(&["0yKa1b2", "Wz3kQ9d", "mN7pT4x"]));
    put!(out; r#"","journey_activity_type":""#, activity, r#""}"#);
    close_sent(draft, scene, channel);
}

/// Appends an SMS receipt.
pub(super) fn sms(draft: &mut Draft<'_>, scene: &mut RecordContext<'_>, name: &str, receipt: Receipt) {
    // Carriers answer within seconds, some within three days; a receipt may even arrive before its own event time.
    let late_ms = match scene.rng.below(100) {
        0..10 => -i64::from(scene.rng.below(300)),
        10..15 => i64::from(scene.rng.skewed(72 * 3_600_000)),
        _ => i64::from(100 + scene.rng.skewed(30_000)),
    };
    open_of_service(draft, scene, name, late_ms);
    let (rng, person) = (&mut scene.rng, &scene.person);
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
        let context = &mut *scene.scratch;
        put!(context; r#"{"userId":""#, person.id(), r#"","note":"#, Text(rng.text(&NOTES, &SPICED_NOTES)), "}");
        put!(out; r#","customer_context":""#);
        escape(out, context);
        put!(out; r#"""#);
        context.clear();
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
fn open_sent(draft: &mut Draft<'_>, scene: &mut RecordContext<'_>, name: &str, channel: Channel) {
    let late_ms = usual_delay_ms(&mut scene.rng);
    open_of_service(draft, scene, name, late_ms);
    put!(draft.member("client"); r#"{"client_id":""#, scene.person.endpoint(channel), r#""}"#);
    no_device_no_session(draft);
}

/// Everything after the attributes of a send.
fn close_sent(draft: &mut Draft<'_>, scene: &mut RecordContext<'_>, channel: Channel) {
    let app_id = app_id(scene);
    let out = draft.member("client_context");
    put!(out; r#"{"custom":{"endpoint":"#);
    endpoint::write(out, scene, app_id, channel);
    put!(out; "}}");
    put!(draft.member("awsAccountId"); "\"", ACCOUNT, "\"");
}

fn status(rng: &mut Rng) -> &'static str {
    if rng.chance(800) { rng.pick_skewed(&CAMPAIGN_FAILURES) } else { "SUCCESS" }
}
