//! Events that an app's SDK reports: sessions, sign-ins, purchases, events of the app's own, and push notifications.
//!
//! Push notifications are the `_campaign.*` types that the device reports. They have the app's envelope with the attributes of
//! a campaign. (`_campaign.send`, which the service reports, is in [`super::message`].) Metrics are doubles, sometimes
//! with an exponent. Two thirds of these events also have the endpoint, because an app may send it with `PutEvents`.
//! `awsAccountId` is absent.

use super::super::draft::{Draft, RecordContext};
use super::super::random::Rng;
use super::super::texts::{COMMENTS, SCREENS, UNUSUAL_COMMENTS, UNUSUAL_SCREENS};
use super::super::write::{Exponent, Fixed, Hex, Hex32, Text, Uuid, put};
use super::message::sender_id;
use super::{app_id, endpoint, open, usual_delay_ms};

/// What an app event reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    SessionStart,
    SessionStop,
    SessionPause,
    SessionResume,
    SignIn,
    SignUp,
    AuthFail,
    Purchase,
    AssessmentStarted,
    AssessmentCompleted,
    PageViewed,
    FeedbackSent,
}

/// What happened to a notification on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Push {
    Opened,
    Foreground,
    Background,
}

/// Appends an app event.
pub(super) fn activity(draft: &mut Draft<'_>, context: &mut RecordContext<'_>, name: &str, activity: Activity) {
    envelope(draft, context, name, activity == Activity::SessionStop);
    attributes(draft.member("attributes"), context, activity);
    metrics(draft.member("metrics"), &mut context.rng, activity);
    client_context(draft, context);
}

/// Appends the event of a push notification.
pub(super) fn push(draft: &mut Draft<'_>, context: &mut RecordContext<'_>, name: &str, push: Push) {
    envelope(draft, context, name, false);
    let rng = &mut context.rng;
    let out = draft.member("attributes");
    put!(out; r#"{"campaign_id":""#, sender_id(rng), r#"","treatment_id":""#, rng.below(2));
    put!(out; r#"","campaign_activity_id":""#, Hex32(rng.bits()));
    put!(out; r#"","isAppInForeground":""#, if push == Push::Foreground { "true" } else { "false" });
    put!(out; r#"","isOptedOut":"false""#, if push == Push::Opened { r#","action":"OPEN_APP"}"# } else { "}" });
    put!(draft.member("metrics"); "{}");
    client_context(draft, context);
}

/// Everything up to `session`.
fn envelope(draft: &mut Draft<'_>, context: &mut RecordContext<'_>, name: &str, stopped: bool) {
    let late_ms = usual_delay_ms(&mut context.rng);
    open(draft, context, name, late_ms, "3.0");
    let app_id = app_id(context);
    let (rng, person, device) = (&mut context.rng, &context.person, context.person.device);

    let out = draft.member("application");
    put!(out; r#"{"app_id":""#, app_id);
    put!(out; r#"","cognito_identity_pool_id":"eu-central-1:3f0c1a52-8e4d-4b7a-9c16-5d2e7f8a9b01""#);
    put!(out; r#","package_name":"com.example.compass","sdk":"#);
    if rng.chance(1_000) {
        put!(out; "{}");
    } else {
        put!(out; r#"{"name":""#, device.sdk, r#"","version":""#, device.sdk_version, r#""}"#);
    }
    put!(out; r#","title":"Compass","version_name":""#);
    let (version_name, version_code) = rng.pick_skewed(&[("4.12.0", "412"), ("4.11.3", "411"), ("3.9", "390")]);
    put!(out; version_name, r#"","version_code":""#, version_code, r#""}"#);

    let out = draft.member("client");
    put!(out; r#"{"client_id":""#, person.endpoint(device.push), r#"""#);
    if !rng.chance(1_000) {
        put!(out; r#","cognito_id":"eu-central-1:"#, person.cognito_identity(), r#"""#);
    }
    put!(out; "}");

    let out = draft.member("device");
    put!(out; "{");
    if !rng.chance(300) {
        put!(out; r#""locale":{"code":""#, person.locale(), r#"","country":""#, person.home.country);
        put!(out; r#"","language":""#, person.home.language, r#""},"#);
    }
    put!(out; r#""make":"#, Text(device.make), r#","model":"#, Text(device.model), r#","platform":"#);
    if rng.chance(200) {
        put!(out; "{}}");
    } else {
        put!(out; r#"{"name":""#, device.platform, r#"","version":""#, device.platform_version, r#""}}"#);
    }

    let out = draft.member("session");
    let start_ms = context.at_ms - i64::from(rng.skewed(2_400_000));
    put!(out; r#"{"session_id":""#, Uuid(rng.bits(), rng.bits()), r#"","start_timestamp":"#, start_ms);
    if stopped {
        put!(out; r#","stop_timestamp":"#, context.at_ms);
    }
    put!(out; "}");
}

fn attributes(out: &mut Vec<u8>, context: &mut RecordContext<'_>, activity: Activity) {
    let (rng, person) = (&mut context.rng, &context.person);
    match activity {
        Activity::SessionStart | Activity::SessionStop | Activity::SessionPause | Activity::SessionResume => {
            if rng.chance(8_000) {
                put!(out; "{}");
            } else {
                put!(out; r#"{"screen":"#, Text(rng.text(&SCREENS, &UNUSUAL_SCREENS)), "}");
            }
        }
        Activity::SignIn | Activity::SignUp => {
            put!(out; r#"{"method":""#, rng.pick(&["password", "google", "apple", "saml"]), r#""}"#);
        }
        Activity::AuthFail => {
            let reason = rng.pick(&["NotAuthorizedException", "UserNotFoundException", "mot de passe \"refusé\""]);
            put!(out; r#"{"method":"password","reason":"#, Text(reason), "}");
        }
        Activity::Purchase => {
            put!(out; r#"{"_currency":""#, rng.pick(&["EUR", "USD", "GBP"]), r#"","_product_id":""#);
            put!(out; rng.pick(&["report.single", "plan.pro.month", "plan.team.year"]), r#"","_store":""#);
            put!(out; rng.pick(&["Apple", "Google Play", "Virtual"]), r#"","_transaction_id":""#, Hex(rng.bits()));
            put!(out; r#""}"#);
        }
        Activity::AssessmentStarted | Activity::AssessmentCompleted => {
            put!(out; r#"{"assessment_id":""#, Uuid(rng.bits(), rng.bits()), r#"","assessment_type":""#);
            put!(out; rng.pick_skewed(&super::super::assessments::TYPES), r#"","screen":"#);
            put!(out; Text(rng.text(&SCREENS, &UNUSUAL_SCREENS)), r#","user_id":""#, person.id(), r#"""#);
            if rng.chance(300) {
                put!(out; r#","contact_email":""#, person.email(), r#"""#);
            }
            put!(out; "}");
        }
        Activity::PageViewed => {
            put!(out; r#"{"screen":"#, Text(rng.text(&SCREENS, &UNUSUAL_SCREENS)), r#","referrer":""#);
            put!(out; rng.pick(&["push", "email", "direct"]), r#"","experiment":""#, rng.pick(&["A", "B"]), r#""}"#);
        }
        Activity::FeedbackSent => {
            let text = Text(rng.text(&COMMENTS, &UNUSUAL_COMMENTS));
            put!(out; r#"{"rating":""#, rng.between(1, 6), r#"","text":"#, text, "}");
        }
    }
}

fn metrics(out: &mut Vec<u8>, rng: &mut Rng, activity: Activity) {
    match activity {
        Activity::Purchase => {
            put!(out; r#"{"_quantity":"#, Fixed(i64::from(rng.between(1, 5)) * 10, 1), r#","_item_price":"#);
            let cents = 99 + 100 * rng.skewed(300);
            double(out, rng, cents, 2);
            put!(out; "}");
        }
        Activity::AssessmentCompleted => {
            put!(out; r#"{"score":"#);
            let tenths = rng.below(1001);
            double(out, rng, tenths, 1);
            put!(out; r#","duration_seconds":"#, 45 + rng.skewed(5_400), r#","delta":"#);
            put!(out; Fixed(i64::from(rng.below(400)) - 200, 1), "}");
        }
        Activity::AssessmentStarted => put!(out; r#"{"questions":"#, rng.between(10, 31), "}"),
        Activity::PageViewed => {
            put!(out; r#"{"load_ms":"#);
            let tenths = 400 + rng.skewed(40_000);
            double(out, rng, tenths, 1);
            put!(out; "}");
        }
        _ => put!(out; "{}"),
    }
}

/// A positive double, in 2 % with an exponent.
fn double(out: &mut Vec<u8>, rng: &mut Rng, units: u32, places: usize) {
    if rng.chance(200) {
        put!(out; Exponent(units.into(), places));
    } else {
        put!(out; Fixed(units.into(), places));
    }
}

fn client_context(draft: &mut Draft<'_>, context: &mut RecordContext<'_>) {
    if context.rng.chance(6_500) {
        let app_id = app_id(context);
        let channel = context.person.device.push;
        let out = draft.member("client_context");
        put!(out; r#"{"custom":{"legacy_identifier":""#, app_id, r#"","endpoint":"#);
        endpoint::write(out, context, app_id, channel);
        put!(out; "}}");
    }
}
