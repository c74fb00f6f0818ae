//! What the generator promises, checked with serde_json and a small reader ([`reader`]).

mod reader;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;
use reader::{colons, epoch_ms, fits, keys, refusal, unwrapped};

/// The limit that [`BadKind::TooLarge`] exceeds.
const TOO_LARGE_BYTES: usize = 20_000;

fn options(kind: RecordKind, bad_ratio: f64) -> Options {
    Options { kinds: Kinds::only(kind), bad_ratio, too_large_bytes: Some(TOO_LARGE_BYTES), ..Options::default() }
}

/// The first `count` records of these options.
fn records(options: Options, count: usize) -> Vec<(Produced, Vec<u8>)> {
    let mut generator = Generator::new(options).unwrap();
    let next = || {
        let mut record = Vec::new();
        (generator.next_into(&mut record), record)
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// Good records as documents, decoded from base64 if they are wrapped.
fn documents(kind: RecordKind, count: usize) -> Vec<(Produced, Value)> {
    let value = |(produced, record)| (produced, serde_json::from_slice(&unwrapped(record)).unwrap());
    records(options(kind, 0.0), count).into_iter().map(value).collect()
}

#[test]
fn the_same_options_give_the_same_bytes_everywhere() {
    // FNV-1a of 10,000 records with a line break after each. Change these constants only if the records change on
    // purpose.
    let hash = |options: Options| {
        let mut generator = Generator::new(options).unwrap();
        let mut record = Vec::new();
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for _ in 0..10_000 {
            record.clear();
            generator.next_into(&mut record);
            for byte in record.iter().chain(b"\n") {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
        hash
    };
    let seeded = |options: Options| Options { seed: 42, ..options };
    assert_eq!(hash(seeded(options(RecordKind::Events, 0.0))), 0xab97_3d0a_a8b0_7a83, "events");
    assert_eq!(hash(seeded(options(RecordKind::Assessments, 0.0))), 0x5d9e_9e76_48c0_3686, "assessments");
    assert_eq!(hash(seeded(options(RecordKind::Users, 0.0))), 0x2bbd_25b1_cdf4_f78d, "users");
    assert_eq!(
        hash(seeded(Options { bad_ratio: 0.5, ..Options::default() })),
        0xbc8a_a156_d8cf_1bd5,
        "a mix, half of it bad"
    );
}

#[test]
fn a_record_depends_only_on_its_number() {
    let options = Options { bad_ratio: 0.1, ..Options::default() };
    let in_order = records(options.clone(), 2_000);
    let mut generator = Generator::new(options).unwrap();
    let mut out = b"earlier bytes".to_vec();
    for n in (0..2_000).rev().step_by(7) {
        let start = out.len();
        generator.seek(n);
        let produced = generator.next_into(&mut out);
        assert_eq!((produced, &out[start..]), (in_order[n as usize].0, &in_order[n as usize].1[..]));
        assert_eq!(generator.position(), n + 1);
    }
}

#[test]
fn good_records_do_not_depend_on_the_bad_ratio() {
    let good = records(Options::default(), 5_000);
    let some_bad = records(Options { bad_ratio: 0.3, ..Options::default() }, 5_000);
    for (some_bad, good) in some_bad.iter().zip(&good).filter(|(some_bad, _)| some_bad.0.bad.is_none()) {
        assert_eq!(some_bad, good);
    }
    let other_seed = records(Options { seed: 1, ..Options::default() }, 5_000);
    assert!(other_seed.iter().zip(&good).all(|(other, good)| other.1 != good.1));
}

#[test]
fn every_good_record_is_accepted_and_has_the_returned_event_time() {
    for kind in RecordKind::ALL {
        for (produced, record) in records(options(kind, 0.0), 10_000) {
            let text = String::from_utf8_lossy(&record).into_owned();
            assert_eq!((produced.kind, produced.bad), (kind, None));
            assert!(!record.is_empty() && !record.contains(&b'\n'), "{text}");
            assert_eq!(refusal(kind, &record), None, "{text}");
            let value: Value = serde_json::from_slice(&unwrapped(record)).unwrap();
            let event_ms = match kind {
                RecordKind::Events => value["event_timestamp"].as_i64(),
                RecordKind::Assessments => epoch_ms(value["timestamp"].as_str().unwrap()),
                RecordKind::Users => epoch_ms(value["updated_at"].as_str().unwrap()),
            };
            assert_eq!(event_ms, Some(produced.event_ms), "{text}");
        }
    }
}

#[test]
fn every_bad_record_is_refused_for_its_reason_and_all_kinds_are_equally_frequent() {
    for kind in RecordKind::ALL {
        let mut seen = BTreeMap::new();
        for (produced, record) in records(options(kind, 1.0), 14_000) {
            let bad = produced.bad.unwrap();
            *seen.entry(bad).or_insert(0) += 1;
            let text = String::from_utf8_lossy(&record).into_owned();
            assert!(!record.contains(&b'\n') && !record.trim_ascii().is_empty(), "{bad:?}: {text}");
            match refusal(kind, &record) {
                Some(refusal) => assert!(fits(bad, kind, refusal), "{bad:?} refused as {refusal:?}: {text}"),
                None => panic!("{bad:?} accepted: {text}"),
            }
            let utf8 = std::str::from_utf8(&record);
            assert!(utf8.is_ok() || bad == BadKind::NotUtf8, "{bad:?}: {text}");
            assert!(utf8.is_err() || bad != BadKind::NotUtf8, "{text}");
        }
        let expected: Vec<_> = BadKind::ALL.into_iter().filter(|bad| bad.applies_to(kind)).collect();
        assert!(seen.keys().eq(&expected), "{kind:?}: {seen:?}");
        let even = 14_000 / expected.len();
        assert!(seen.values().all(|count| (even * 8 / 10..even * 12 / 10).contains(count)), "{kind:?}: {seen:?}");
    }
    // Records of this size are made only on request.
    let without = Options { bad_ratio: 1.0, ..Options::default() };
    assert!(records(without, 5_000).iter().all(|(produced, _)| produced.bad != Some(BadKind::TooLarge)));
}

#[test]
fn the_bad_ratio_and_the_weights_hold() {
    let count = |bad_ratio: f64, test: fn(&Produced) -> bool| {
        let mut generator = Generator::new(Options { bad_ratio, ..Options::default() }).unwrap();
        let mut record = Vec::new();
        let next = || {
            record.clear();
            generator.next_into(&mut record)
        };
        std::iter::repeat_with(next).take(40_000).filter(test).count()
    };
    let bad = |bad_ratio| count(bad_ratio, |produced| produced.bad.is_some());
    assert_eq!((bad(0.0), bad(1.0)), (0, 40_000));
    assert!((150..250).contains(&bad(0.005)));
    assert!((9_600..10_400).contains(&bad(0.25)));
    let users = count(0.0, |produced| produced.kind == RecordKind::Users);
    assert!((3_700..4_300).contains(&users), "{users}");
}

#[test]
fn every_event_family_occurs_with_its_fields() {
    let empty: Value = serde_json::json!({});
    let mut seen = BTreeSet::new();
    for (_, event) in documents(RecordKind::Events, 30_000) {
        let name = event["event_type"].as_str().unwrap().to_owned();
        let has = |pointer: &str| assert!(event.pointer(pointer).is_some(), "{pointer} of {event:#}");
        let have = |parent: &str, names: &[&str]| names.iter().for_each(|name| has(&format!("{parent}/{name}")));
        let service = ["_campaign.send", "_journey.", "_email.", "_SMS."].iter().any(|prefix| name.starts_with(prefix));
        have("", &["application/app_id", "application/sdk", "client/client_id", "device/platform", "attributes"]);
        assert_eq!(event["event_version"], if service { "3.1" } else { "3.0" });
        if service {
            has("/awsAccountId");
            assert_eq!((&event["session"], &event["application"]["sdk"]), (&empty, &empty));
            assert_eq!(event["device"], serde_json::json!({ "platform": {} }));
        } else {
            have("", &["session/session_id", "session/start_timestamp", "metrics", "device/make", "device/model"]);
            assert_eq!(event.pointer("/session/stop_timestamp").is_some(), name == "_session.stop");
            assert!(event.get("awsAccountId").is_none());
        }
        if let Some(sms) = name.strip_prefix("_SMS.") {
            have("/attributes", &["sender_request_id", "campaign_activity_id", "campaign_id", "treatment_id"]);
            have("/attributes", &["destination_phone_number", "record_status", "iso_country_code"]);
            have("/attributes", &["number_of_message_parts", "message_id", "message_type"]);
            let price = event.pointer("/metrics/price_in_millicents_usd");
            assert_eq!(price.is_none(), sms == "BUFFERED", "{event:#}");
        } else if let Some(mail) = name.strip_prefix("_email.") {
            let sibling = match mail {
                "delivered" => "delivery",
                "rejected" => "reject",
                "hardbounce" | "softbounce" => "bounce",
                "unsubscribe" => "click",
                other => other,
            };
            let mail_event = "/facets/email_channel/mail_event";
            have(mail_event, &[sibling, "mail/message_id", "mail/message_send_timestamp", "mail/from_address"]);
            have(mail_event, &["mail/destination", "mail/headers_truncated", "mail/headers", "mail/common_headers"]);
            has("/client_context/custom/legacy_identifier");
        } else if name == "_journey.send" {
            have("/attributes", &["journey_id", "journey_run_id", "journey_send_status"]);
            have("/attributes", &["journey_activity_id", "journey_activity_type"]);
            has("/client_context/custom/endpoint");
        } else if name == "_campaign.send" {
            have("/attributes", &["campaign_id", "treatment_id", "campaign_activity_id"]);
            have("/attributes", &["delivery_type", "campaign_send_status"]);
            has("/client_context/custom/endpoint");
        } else if name.starts_with("_campaign.") {
            have("/attributes", &["campaign_id", "treatment_id", "campaign_activity_id", "isAppInForeground"]);
        }
        seen.insert(name);
    }
    assert_eq!(seen, events::type_names().map(str::to_owned).collect());
}

#[test]
fn an_endpoint_is_a_document_inside_a_string() {
    let (mut full, mut short) = (0, 0);
    for (_, event) in documents(RecordKind::Events, 10_000) {
        let Some(text) = event.pointer("/client_context/custom/endpoint") else { continue };
        let text = text.as_str().unwrap();
        let endpoint: Value = serde_json::from_str(text).unwrap();
        assert_eq!(keys(&endpoint), colons(text.as_bytes()));
        assert!(
            ["ChannelType", "EndpointStatus", "OptOut", "RequestId", "EffectiveDate", "User"]
                .iter()
                .all(|name| endpoint.get(name).is_some())
        );
        if endpoint["User"].get("UserId").is_some() {
            full += 1;
            assert_eq!(endpoint["Id"], event["client"]["client_id"]);
            assert_eq!(endpoint["ApplicationId"], event["application"]["app_id"]);
            assert!(
                ["Demographic", "Location", "Attributes", "Metrics", "Address", "CohortId", "CreationDate"]
                    .iter()
                    .all(|name| endpoint.get(name).is_some())
            );
        } else {
            short += 1;
        }
    }
    assert!(full > 3_000 && short > 1_000, "{full} {short}");
}

#[test]
fn some_events_arrive_early_and_events_of_e_mails_much_later() {
    let late =
        |event: &Value| event["arrival_timestamp"].as_i64().unwrap() - event["event_timestamp"].as_i64().unwrap();
    let events = documents(RecordKind::Events, 20_000);
    let early = events.iter().filter(|(_, event)| late(event) < 0).count();
    assert!((200..1_000).contains(&early), "{early}");
    assert!(events.iter().all(|(_, event)| late(event) > -400));
    let weeks = events.iter().filter(|(_, event)| late(event) > 7 * DAY_MS).collect::<Vec<_>>();
    assert!(!weeks.is_empty() && weeks.iter().all(|(_, event)| event["facets"].is_object()));
}

#[test]
fn people_are_the_same_in_all_kinds_of_records() {
    let mut people: BTreeMap<String, (Value, Value)> = BTreeMap::new();
    let few = |kind| Options { users: 200, ..options(kind, 0.0) };
    for (_, record) in records(few(RecordKind::Users), 5_000) {
        let user: Value = serde_json::from_slice(&record).unwrap();
        let about = (user["region"].clone(), user["email"].clone());
        let known = people.entry(user["user_id"].as_str().unwrap().to_owned()).or_insert(about.clone());
        assert_eq!(*known, about);
    }
    assert_eq!(people.len(), 200);
    for (_, record) in records(few(RecordKind::Assessments), 5_000) {
        let assessment: Value = serde_json::from_slice(&record).unwrap();
        let (region, email) = &people[assessment["user_id"].as_str().unwrap()];
        assert!(assessment["user_region"].is_null() || assessment["user_region"] == *region);
        assert!(assessment["email"].is_null() || assessment["email"] == *email);
    }
    for (_, record) in records(few(RecordKind::Events), 5_000) {
        let event: Value = serde_json::from_slice(&unwrapped(record)).unwrap();
        let Some(text) = event.pointer("/client_context/custom/endpoint") else { continue };
        let endpoint: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
        if let Some(user_id) = endpoint.pointer("/User/UserId") {
            assert_eq!(endpoint["Location"]["Region"], people[user_id.as_str().unwrap()].0);
        }
    }
}

#[test]
fn activity_follows_a_power_law() {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for (_, assessment) in documents(RecordKind::Assessments, 50_000) {
        *counts.entry(assessment["user_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let most = *counts.values().max().unwrap();
    assert!((150..350).contains(&most), "{most}");
    assert!((20_000..35_000).contains(&counts.len()), "{}", counts.len());
}

#[test]
fn records_have_the_documented_sizes() {
    for (kind, sizes) in
        [(RecordKind::Events, 1_300..1_450), (RecordKind::Assessments, 920..1_050), (RecordKind::Users, 380..440)]
    {
        let records = records(options(kind, 0.0), 20_000);
        let mean = records.iter().map(|(_, record)| record.len()).sum::<usize>() / records.len();
        assert!(sizes.contains(&mean), "{kind:?}: {mean}");
        let largest = records.iter().map(|(_, record)| record.len()).max().unwrap();
        assert!(largest < 6_000, "{kind:?}: {largest}");
    }
}

#[test]
fn unusual_forms_have_the_documented_shares() {
    const COUNT: usize = 20_000;
    for kind in RecordKind::ALL {
        let records = records(options(kind, 0.0), COUNT);
        let wrapped = records.iter().filter(|(_, record)| !record.starts_with(b"{")).count();
        let texts: Vec<_> =
            records.into_iter().map(|(_, record)| String::from_utf8(unwrapped(record)).unwrap()).collect();
        let per_1000 = |test: fn(&str) -> bool| texts.iter().filter(|text| test(text)).count() * 1000 / COUNT;
        let is_among = |count: usize, range: std::ops::Range<usize>, what: &str| {
            assert!(range.contains(&count), "{count} of 1000 {kind:?}: {what}");
        };
        is_among(per_1000(|text| text.contains("\\u00")), 40..75, "escapes");
        is_among(per_1000(|text| text[text.find(':').unwrap() + 1..].starts_with(' ')), 7..13, "spaces");
        is_among(per_1000(|text| !text.is_ascii()), 20..700, "text beyond ASCII");
        match kind {
            RecordKind::Events => {
                is_among(per_1000(|text| !text.starts_with("{\"event_type\":")), 14..30, "order");
                is_among(per_1000(|text| text.contains("\\\\\\\"")), 10..100, "escapes in a document in a string");
                is_among(per_1000(|text| text.contains("\\/")), 10..60, "escaped slashes");
                is_among(per_1000(|text| text.contains("\\ud83")), 2..50, "surrogate pairs");
                is_among(wrapped * 1000 / COUNT, 7..13, "base64");
            }
            RecordKind::Assessments => {
                is_among(per_1000(|text| text.contains("e1,")), 5..15, "exponents");
                is_among(per_1000(|text| !text.contains("\"score\":")), 4..15, "no score");
                is_among(per_1000(|text| text.contains("\"score\":null")), 3..12, "null for a score");
            }
            RecordKind::Users => assert_eq!(wrapped, 0),
        }
    }
}

#[test]
fn every_e_mail_address_is_in_a_domain_for_examples() {
    for (_, record) in records(Options::default(), 20_000) {
        let record = unwrapped(record);
        for part in record.split(|byte| *byte == b'@').skip(1) {
            // A host with an escape is one for examples, too, but checking the others is enough.
            let host = part.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'.').next().unwrap();
            let escaped = part.get(host.len()) == Some(&b'\\');
            assert!(escaped || host.ends_with(b"example.com") || [&b"example.org"[..], b"example.net"].contains(&host));
        }
    }
}

#[test]
fn invalid_options_are_refused() {
    let refused = |options: Options| Generator::new(options).unwrap_err();
    let none = Kinds { events: 0, assessments: 0, users: 0 };
    assert_eq!(refused(Options { kinds: none, ..Options::default() }), OptionsError::Kinds(none));
    let many = Kinds { events: u32::MAX, assessments: 1, users: 0 };
    assert_eq!(refused(Options { kinds: many, ..Options::default() }), OptionsError::Kinds(many));
    assert_eq!(refused(Options { bad_ratio: 1.5, ..Options::default() }), OptionsError::BadRatio(1.5));
    assert!(matches!(refused(Options { bad_ratio: f64::NAN, ..Options::default() }), OptionsError::BadRatio(_)));
    assert_eq!(refused(Options { users: 0, ..Options::default() }), OptionsError::Users(0));
    assert_eq!(refused(Options { users: 1_000_001, ..Options::default() }), OptionsError::Users(1_000_001));
    for (start_ms, days) in [(0, 3), (1_736_726_400_000, 0), (1_736_726_400_000, u32::MAX), (i64::MAX, 1)] {
        let error = refused(Options { start_ms, days, ..Options::default() });
        assert_eq!(error, OptionsError::EventTimes { start_ms, days });
        assert!(error.to_string().starts_with("event times must be"));
    }
}
