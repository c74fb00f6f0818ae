//! The shipped datasets of Amazon SES and AWS End User Messaging: what AWS's published events become.

use serde_json::{Value, json};

use crate::common::{Setup, outcome_of, pseudonym};

#[test]
fn every_ses_event_lands_in_a_row_of_its_own() {
    let outcome = outcome_of(samples::messaging::SES);
    assert_eq!(outcome.codes(), [], "{:?}", outcome.dead_letters);
    let rows = outcome.rows("ses");
    let types: Vec<&Value> = rows.iter().map(|row| &row["event_type"]).collect();
    let expected = [
        "Send",
        "Delivery",
        "Bounce",
        "Complaint",
        "Open",
        "Click",
        "Reject",
        "Rendering Failure",
        "DeliveryDelay",
        "Subscription",
    ];
    assert_eq!(types, expected.iter().map(|name| json!(name)).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    let kim = pseudonym("kim.recipient@example.com");
    for row in &rows {
        assert_eq!(row["recipients"], json!([kim, pseudonym("Lee <lee@example.com>")]));
        assert_eq!((&row["configuration_set"], &row["tags"]), (&json!(["ConfigSet"]), &json!({})));
        assert_eq!(
            (&row["from_domain"], &row["source_network"]),
            (&json!(["sender.example"]), &json!(["192.0.2.0/24"]))
        );
    }
    assert_eq!(rows[1]["delivery_processing_ms"], json!(11893));
    assert_eq!((&rows[1]["delivery_smtp_code"], &rows[1]["delivery_recipients"]), (&Value::Null, &json!([kim])));
    let bounced = json!([
        { "recipient": kim, "action": "failed", "status": "5.1.1" },
        { "recipient": pseudonym("lee@example.com"), "action": null, "status": null },
    ]);
    assert_eq!((&rows[2]["bounce_type"], &rows[2]["bounced_recipients"]), (&json!("Permanent"), &bounced));
    assert_eq!(
        (&rows[3]["complaint_type"], &rows[3]["complained_recipients"]),
        (&json!("abuse"), &json!([{ "recipient": kim }]))
    );
    assert_eq!(rows[4]["open_network"], json!("203.0.113.0/24"));
    assert_eq!((&rows[5]["click_network"], &rows[5]["click_link_tags"]), (&json!("2001:db8:1::/48"), &json!({})));
    assert_eq!((&rows[6]["reject_reason"], &rows[7]["template_name"]), (&json!("Bad content"), &json!("MyTemplate")));
    assert_eq!(rows[8]["delayed_recipients"], json!([{ "recipient": kim, "status": "4.4.1" }]));
    assert_eq!(
        (&rows[9]["unsubscribed_all"], &rows[9]["topics"]),
        (&json!(true), &json!([{ "topic": "News", "status": "OptOut" }]))
    );
}

#[test]
fn every_end_user_messaging_event_lands_in_a_row_of_its_own() {
    let mut run = Setup::shipped().run();
    let outcome = run.lines(samples::messaging::SMS).take();
    assert_eq!(outcome.codes(), [], "{:?}", outcome.dead_letters);
    assert!(run.nulled_values.is_empty(), "{:?}", run.nulled_values);
    let rows = outcome.rows("sms");
    let types: Vec<&Value> = rows.iter().map(|row| &row["event_type"]).collect();
    assert_eq!(
        types,
        [&json!("TEXT_SUCCESSFUL"), &json!("TEXT_DELIVERED"), &json!("MEDIA_PENDING"), &json!("VOICE_COMPLETED")]
    );
    assert_eq!(rows[0]["destination"], json!(pseudonym("+14255550156")));
    assert_eq!(rows[0]["message_status_description"], json!("Message has been accepted by phone carrier"));
    // A description with a number in it is dropped.
    assert_eq!(rows[1]["message_status_description"], Value::Null);
    // A code may come as a number, and keeps its text.
    assert_eq!((&rows[0]["mcc"], &rows[1]["mcc"], &rows[1]["mnc"]), (&json!("310"), &json!("214"), &json!("05")));
    // Prices are exact: as text, as a number, and rounded where a sum of doubles is a little off.
    assert_eq!((&rows[0]["message_price"], &rows[1]["message_price"]), (&json!("9582000e-8"), &json!("1743000e-8")));
    assert_eq!((&rows[0]["carrier_fee"], &rows[1]["carrier_fee"]), (&json!("0e-8"), &json!("300000e-8")));
}

#[test]
fn no_personal_value_of_a_message_lands() {
    let outcome = outcome_of([samples::messaging::SES, samples::messaging::SMS].concat());
    let rows: Vec<_> = ["ses", "sms"].iter().flat_map(|dataset| outcome.rows(dataset)).collect();
    let text = json!(rows).to_string().to_lowercase();
    for personal in
        ["kim", "lee", "robin", "secret", "0156", "0152", "0077", ".77", "::77", "mozilla", "summer", "\"bar\""]
    {
        assert!(!text.contains(personal), "'{personal}' is in the rows");
    }
}

#[test]
fn other_formats_and_other_events_are_not_taken_for_messages() {
    for (record, dataset) in [
        (r#"{"notificationType":"Bounce","mail":{"timestamp":"2025-01-08T18:40:00.000Z"}}"#, None),
        (r#"{"Type":"Notification","MessageId":"n","Message":"{}","Timestamp":"2025-01-08T18:40:00.000Z"}"#, None),
        (r#"{"eventType":"click","eventTimestamp":1736764200123}"#, None),
        (r#"{"eventType":"click","userId":"u"}"#, None),
        (r#"{"eventType":"x","mail":{},"event_type":"a","event_timestamp":1736764200123}"#, Some("events")),
        (
            r#"{"eventType":"x","eventTimestamp":1,"messageId":"m","event_type":"a","event_timestamp":1736764200123}"#,
            Some("events"),
        ),
    ] {
        let outcome = outcome_of(record);
        match dataset {
            Some(dataset) => assert_eq!(outcome.rows(dataset).len(), 1, "{record}"),
            None => assert_eq!(outcome.dead_letter().dataset, None, "{record}"),
        }
    }
}
