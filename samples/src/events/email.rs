//! Events of e-mails: the data of the message (`facets.email_channel.mail_event.mail`), and beside it an object whose name and
//! shape depend on the event.
//!
//! `event_timestamp` is the time of **sending** in all of them, so opens and clicks arrive hours or weeks "late". For some events
//! AWS's guide shows no sample:
//!
//! - a bounce, a complaint and a reject have the members of AWS's own Athena schema;
//! - an unsubscribe is a click with `link_tags`, as that schema suggests (an inference);
//! - a rendering failure has the two members that SES documents, in snake case (an inference).

use super::super::draft::{Draft, RecordContext};
use super::super::personas::Channel;
use super::super::random::Rng;
use super::super::texts::{LINKS, SUBJECTS, UNUSUAL_SUBJECTS, USER_AGENTS};
use super::super::write::{Hex32, Text, put};
use super::message::{run_id, sender_id};
use super::{ACCOUNT, app_id, no_device_no_session, open_of_service};

/// What happened to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mail {
    Send,
    Delivered,
    Rejected,
    HardBounce,
    SoftBounce,
    Complaint,
    Open,
    Click,
    Unsubscribe,
    RenderingFailure,
}

const FROM: &str = "no-reply@mail.example.com";

impl Mail {
    /// The value of `attributes.feedback`; for a click it is the link instead.
    fn feedback(self) -> &'static str {
        match self {
            Mail::Send => "received",
            Mail::Delivered => "delivered",
            Mail::Rejected => "rejected",
            Mail::HardBounce => "hardbounce",
            Mail::SoftBounce => "softbounce",
            Mail::Complaint => "complaint",
            Mail::Open => "opened",
            Mail::Click => "clicked",
            Mail::Unsubscribe => "unsubscribed",
            Mail::RenderingFailure => "rendering_failure",
        }
    }

    /// How long after the sending the event arrives, milliseconds.
    fn delay_ms(self, rng: &mut Rng) -> i64 {
        i64::from(match self {
            Mail::Send | Mail::Rejected | Mail::RenderingFailure => 200 + rng.skewed(1_500),
            Mail::Delivered | Mail::HardBounce => 500 + rng.skewed(60_000),
            Mail::SoftBounce => 1_000 + rng.skewed(12 * 3_600_000),
            Mail::Open | Mail::Click | Mail::Complaint | Mail::Unsubscribe => 5_000 + rng.skewed(20 * 86_400_000),
        })
    }
}

/// Appends an e-mail's event.
pub(super) fn write(draft: &mut Draft<'_>, context: &mut RecordContext<'_>, name: &str, mail: Mail) {
    let late_ms = mail.delay_ms(&mut context.rng);
    open_of_service(draft, context, name, late_ms);
    put!(draft.member("client"); r#"{"client_id":""#, context.person.endpoint(Channel::Email), r#""}"#);
    no_device_no_session(draft);

    let link = context.rng.pick(&LINKS);
    let feedback = if mail == Mail::Click { link } else { mail.feedback() };
    attributes(draft.member("attributes"), &mut context.rng, feedback);
    put!(draft.member("client_context"); r#"{"custom":{"legacy_identifier":""#, app_id(context), r#""}}"#);
    put!(draft.member("awsAccountId"); "\"", ACCOUNT, "\"");
    let out = draft.member("facets");
    put!(out; r#"{"email_channel":{"mail_event":{"mail":"#);
    message(out, context, mail);
    put!(out; ",");
    outcome(out, context, mail, link);
    put!(out; "}}}");
}

/// A third of the messages come from a campaign, a third from a journey, a third from a call of the API.
fn attributes(out: &mut Vec<u8>, rng: &mut Rng, feedback: &str) {
    put!(out; r#"{"feedback":""#, feedback, r#"""#);
    match rng.below(3) {
        0 => {
            put!(out; r#","treatment_id":""#, rng.skewed(3), r#"","campaign_activity_id":""#, Hex32(rng.bits()));
            put!(out; r#"","campaign_id":""#, sender_id(rng), r#"""#);
        }
        1 => {
            put!(out; r#","journey_run_id":""#, run_id(rng), r#"","journey_id":""#, sender_id(rng));
            put!(out; r#"","journey_activity_id":"Wz3kQ9d""#);
        }
        _ => {}
    }
    put!(out; "}");
}

fn message(out: &mut Vec<u8>, context: &mut RecordContext<'_>, mail: Mail) {
    let (rng, person) = (&mut context.rng, &context.person);
    let subject = Text(rng.text(&SUBJECTS, &UNUSUAL_SUBJECTS));
    put!(out; r#"{"message_id":""#, Hex32(rng.bits()), r#"-000000","message_send_timestamp":"#, context.at_ms);
    put!(out; r#","from_address":""#, FROM, r#"","destination":[""#, person.email(), r#""],"headers_truncated":"#);
    put!(out; if rng.chance(300) { "true" } else { "false" });
    put!(out; r#","headers":[{"name":"From","value":""#, FROM, r#""},{"name":"To","value":""#, person.email());
    put!(out; r#""},{"name":"Subject","value":"#, subject, r#"},{"name":"MIME-Version","value":"1.0"},"#);
    put!(out; r#"{"name":"Content-Type","value":"multipart/alternative;  boundary=\"----=_Part_"#);
    put!(out; rng.below(1_000_000), "_", rng.below(1_000_000), r#"\""}"#);
    if matches!(mail, Mail::Open | Mail::Click | Mail::Unsubscribe) {
        put!(out; r#",{"name":"Message-ID","value":"null"}"#);
    }
    put!(out; r#"],"common_headers":{"from":""#, FROM, r#"","to":[""#, person.email());
    put!(out; r#""],"subject":"#, subject, "}}");
}

/// The object beside `mail`.
fn outcome(out: &mut Vec<u8>, context: &mut RecordContext<'_>, mail: Mail, link: &str) {
    let (rng, person) = (&mut context.rng, &context.person);
    let agent = rng.pick_skewed(&USER_AGENTS);
    match mail {
        Mail::Send => put!(out; r#""send":{}"#),
        Mail::Delivered => {
            put!(out; r#""delivery":{"smtp_response":"250 ok:  Message "#, rng.below(100_000_000));
            put!(out; r#" accepted","reporting_mta":"a8-53.smtp-out.example.net","recipients":[""#, person.email());
            put!(out; r#""],"processing_time_millis":"#, 400 + rng.skewed(60_000), "}");
        }
        Mail::Rejected => put!(out; r#""reject":{"reason":"Bad content"}"#),
        Mail::HardBounce => {
            let reason = rng.pick(&["General", "NoEmail", "Suppressed"]);
            put!(out; r#""bounce":{"bounce_type":"Permanent","bounce_sub_type":""#, reason);
            put!(out; r#"","bounced_recipients":[{"email_address":""#, person.email());
            put!(out; r#"","action":"failed","status":"5.1.1","diagnostic_code":"smtp; 550 5.1.1 <"#, person.email(), r#">: user \"unknown\""}],"#);
            put!(out; r#""feedback_id":""#, Hex32(rng.bits()));
            put!(out; r#"","reporting_mta":"dsn; a8-53.smtp-out.example.net"}"#);
        }
        Mail::SoftBounce => {
            put!(out; r#""bounce":{"bounce_type":"Transient","bounce_sub_type":"MailboxFull","bounced_recipients":["#);
            put!(out; r#"{"email_address":""#, person.email(), r#""}],"feedback_id":""#, Hex32(rng.bits()), r#""}"#);
        }
        Mail::Complaint => {
            put!(out; r#""complaint":{"complained_recipients":[{"email_address":""#, person.email());
            put!(out; r#""}],"feedback_id":""#, Hex32(rng.bits()), r#"-000000","user_agent":""#, agent);
            put!(out; r#"","complaint_feedback_type":""#, rng.pick(&["abuse", "not-spam", "virus"]), r#""}"#);
        }
        Mail::Open => put!(out; r#""open":{"ip_address":""#, person.ip(rng), r#"","user_agent":""#, agent, r#""}"#),
        Mail::Click | Mail::Unsubscribe => {
            put!(out; r#""click":{"ip_address":""#, person.ip(rng), r#"","user_agent":""#, agent, r#"","link":""#);
            put!(out; if mail == Mail::Click { link } else { LINKS[3] }, r#"""#);
            if mail == Mail::Unsubscribe {
                put!(out; r#","link_tags":{"unsubscribeLinkTag":["optOutAll"]}"#);
            }
            put!(out; "}");
        }
        Mail::RenderingFailure => {
            put!(out; r#""rendering_failure":{"template_name":"reminder-de","error_message":"Attribute "#);
            put!(out; r#"'User.UserAttributes.first_name' is not present in the rendering data: \"{{first_name}}\""}"#);
        }
    }
}
