//! The endpoint document: what Pinpoint knows about one address of one user, as a JSON document inside a JSON string.
//!
//! 7 of 10 are full records as the API returns them; the others are short as in AWS's own sample, with `"User":{}`. The
//! members are those of the API's `EndpointResponse`. Text in the document is escaped twice in the event.

use pipeline::time::DAY_MS;

use super::super::draft::RecordContext;
use super::super::personas::{Channel, Person};
use super::super::random::Rng;
use super::super::write::{Fixed, Hex, Text, Utc, Uuid, escape, put};

const INTERESTS: [&str; 6] = ["leadership", "languages", "data", "coaching", "remote work", "exams"];
const UNUSUAL_INTERESTS: [&str; 5] = ["\"soft\" skills", "Führung", "C:\\dev", "línea 1\nlínea 2", "機械学習 🤖"];
const DEPARTMENTS: [&str; 5] = ["sales", "engineering", "people", "finance", "support"];
const UNUSUAL_DEPARTMENTS: [&str; 3] = ["R&D \"north\"", "Qualitätssicherung", "経理"];

/// Appends the document of the person's endpoint for `channel`, quoted and escaped.
pub(super) fn write(out: &mut Vec<u8>, context: &mut RecordContext<'_>, app_id: &str, channel: Channel) {
    let document = &mut *context.scratch;
    if context.rng.chance(7_000) {
        full(document, &mut context.rng, &context.person, context.at_ms, app_id, channel);
    } else {
        short(document, &mut context.rng, context.at_ms, channel);
    }
    out.push(b'"');
    escape(out, document);
    out.push(b'"');
    document.clear();
}

fn short(out: &mut Vec<u8>, rng: &mut Rng, at_ms: i64, channel: Channel) {
    put!(out; r#"{"ChannelType":""#, channel.name(), r#"","EndpointStatus":"ACTIVE","OptOut":"NONE","RequestId":""#);
    put!(out; Uuid(rng.bits(), rng.bits()), r#"","EffectiveDate":""#, Utc(at_ms - 40_000), r#"","User":{}}"#);
}

fn full(out: &mut Vec<u8>, rng: &mut Rng, person: &Person, at_ms: i64, app_id: &str, channel: Channel) {
    let (home, device) = (person.home, person.device);
    put!(out; r#"{"ChannelType":""#, channel.name(), r#"","Address":""#);
    match channel {
        Channel::Email => put!(out; person.email()),
        Channel::Sms => put!(out; person.phone()),
        Channel::Custom => put!(out; "arn:aws:lambda:eu-central-1:123456789012:function:deliver"),
        Channel::Apns | Channel::Gcm => put!(out; person.push_token()),
    }
    put!(out; r#"","EndpointStatus":""#, if rng.chance(400) { "INACTIVE" } else { "ACTIVE" });
    put!(out; r#"","OptOut":""#, if rng.chance(500) { "ALL" } else { "NONE" });
    put!(out; r#"","RequestId":""#, Uuid(rng.bits(), rng.bits()));
    let effective_ms = at_ms - i64::from(rng.skewed(30)) * DAY_MS - i64::from(rng.below(80_000_000));
    put!(out; r#"","EffectiveDate":""#, Utc(effective_ms), r#"","CreationDate":""#, Utc(person.signed_up_ms));
    put!(out; r#"","ApplicationId":""#, app_id, r#"","CohortId":""#, person.number % 100);
    put!(out; r#"","Id":""#, person.endpoint(channel), r#"","Demographic":{"#);
    if matches!(channel, Channel::Apns | Channel::Gcm) {
        put!(out; r#""Make":"#, Text(device.make), r#","Model":"#, Text(device.model), r#","ModelVersion":""#);
        put!(out; device.platform_version, r#"","AppVersion":"4.12.0","Platform":""#, device.platform);
        put!(out; r#"","PlatformVersion":""#, device.platform_version, r#"","#);
    }
    put!(out; r#""Locale":""#, person.locale(), r#"","Timezone":""#, home.timezone, r#""},"Location":{"#);
    put!(out; r#""Country":""#, home.country, r#"","City":"#, Text(home.city), r#","PostalCode":""#);
    put!(out; home.postal_code, r#"","Region":""#, home.region, r#"""#);
    if rng.chance(6_000) {
        let (north, east) = (i64::from(rng.below(900)) - 450, i64::from(rng.below(900)) - 450);
        put!(out; r#","Latitude":"#, Fixed(home.latitude + north, 4));
        put!(out; r#","Longitude":"#, Fixed(home.longitude + east, 4));
    }
    put!(out; "},");
    if rng.chance(5_000) {
        put!(out; r#""Attributes":{"interests":["#, Text(rng.text(&INTERESTS, &UNUSUAL_INTERESTS)), ",");
        put!(out; Text(rng.text(&INTERESTS, &UNUSUAL_INTERESTS)), r#"]},"Metrics":{"completed":"#);
        put!(out; Fixed(i64::from(rng.skewed(40)) * 10, 1), r#","balance":"#);
        put!(out; Fixed(i64::from(rng.below(20_000)) - 2_000, 2), "},");
    } else {
        put!(out; r#""Attributes":{},"Metrics":{},"#);
    }
    put!(out; r#""User":{"UserId":""#, person.id(), r#"","UserAttributes":{"plan":[""#, person.plan);
    put!(out; r#""],"department":["#, Text(rng.text(&DEPARTMENTS, &UNUSUAL_DEPARTMENTS)), "]");
    if rng.chance(1_000) {
        put!(out; r#","email":[""#, person.email(), r#""],"reference":[""#, Hex(rng.bits()), r#""]"#);
    }
    put!(out; "}}}");
}
