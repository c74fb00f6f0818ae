//! Values that do not fit their field: where the definition says so, they cost the field and not the record. And what else a
//! definition can accept: numbers for strings, times in many forms, nulls among structs, maps of lists.

use pipeline::dead_letter::code::{Code, Reason};
use serde_json::{Value, json};

use crate::common::{Outcome, Run, Setup, ndjson, outcome_of, pseudonym};

/// A dataset whose optional fields are lenient, but one.
const LENIENT: &str = r#"
name = "visits"
on_error = "null"
partition_by = ["page", "day"]
recognize = { present = ["/visitor"] }
event_time = { pointer = "/t", format = "epoch_ms", accept_text = true, not_after = "2025-01-31" }
arrival_time = { pointer = "/seen", format = "epoch_ms" }
column = [
  { name = "visitor", pointer = "/visitor", type = "string", accept_number = true, required = true, anonymize = { rule = "pseudonym" } },
  { name = "page", pointer = "/page", type = "string" },
  { name = "strict", pointer = "/strict", type = "int32", on_error = "reject" },
  { name = "size", pointer = "/size", type = "int32", max = 10 },
  { name = "score", pointer = "/score", type = "float64" },
  { name = "code", pointer = "/code", type = "string", pattern = "^[a-z]+$" },
  { name = "note", pointer = "/note", type = "string", unique = true, max_length = 3 },
  { name = "at", pointer = "/at", type = "timestamp", zone = "UTC", not_before = "2010-01-01" },
  { name = "until", pointer = "/until", type = "timestamp", on_error = "reject", not_before = "2010-01-01", not_after = "2025-07-08" },
  { name = "born", pointer = "/born", type = "date32", personal = false, on_error = "reject", not_before = "1900-01-01" },
  { name = "tags", pointer = "/tags", type = "list", element = "string" },
  { name = "labels", pointer = "/labels", type = "map", value = "string", allow = ["a", "b_*", "x/y"], accept_number = true, accept_bool = true, max_length = 5 },
  { name = "topics", pointer = "/topics", type = "map", value = "list", element = "string", allow = ["*"], max_length = 5 },
  { name = "box", pointer = "/box", type = "struct", field = [{ name = "w", type = "int32" }, { name = "h", pointer = "/deep/h", type = "int32" }] },
  { name = "lines", pointer = "/lines", type = "list", field = [{ name = "sku", type = "string" }, { name = "count", type = "int32" }] },
]
"#;

fn visit(members: &str) -> String {
    format!(r#"{{"visitor":"v","page":"p","t":1736764200123{members}}}"#)
}

fn run_of(members: &[&str]) -> Run {
    let records: Vec<String> = members.iter().map(|members| visit(&format!(",{members}"))).collect();
    let mut run = Setup::of(&[LENIENT]).run();
    run.lines(ndjson(&records));
    run
}

/// The one dead letter's field and message.
fn rejection(outcome: &Outcome) -> (Option<String>, String) {
    let dead_letter = outcome.dead_letter();
    let about: Value = serde_json::from_str(&dead_letter.about).expect("a dead letter is JSON");
    (dead_letter.field.clone(), about["errorMessage"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn an_optional_field_that_does_not_fit_costs_the_field_and_is_counted() {
    for (members, field, column) in [
        (r#""size":"x""#, "/size", "size"),
        (r#""size":11"#, "/size", "size"),
        (r#""size":[1]"#, "/size", "size"),
        (r#""score":1e999"#, "/score", "score"),
        (r#""code":7"#, "/code", "code"),
        (r#""code":"A1""#, "/code", "code"),
        (r#""note":"long""#, "/note", "note"),
        (r#""at":"yesterday""#, "/at", "at"),
        (r#""at":"2009-12-31T23:59:59Z""#, "/at", "at"),
        (r#""at":"0001-01-01T00:00:00+01:00""#, "/at", "at"),
        (r#""tags":"x""#, "/tags", "tags"),
        (r#""labels":[]"#, "/labels", "labels"),
        (r#""topics":7"#, "/topics", "topics"),
        (r#""box":"x""#, "/box", "box"),
        (r#""lines":{}"#, "/lines", "lines"),
    ] {
        let mut run = run_of(&[members]);
        let row = run.take().row("visits");
        assert_eq!(row[column], Value::Null, "{members}");
        assert_eq!(row["visitor"], json!(pseudonym("v")), "{members}");
        assert_eq!(run.nulled_values, [(format!("visits{field}"), 1)].into(), "{members}");
    }
}

#[test]
fn the_neighbours_of_a_value_that_does_not_fit_stay() {
    let mut run = run_of(&[
        r#""size":3,"note":"ok","at":"2025-01-13 10:30:00""#,
        r#""size":"x","note":7,"at":7"#,
        r#""size":4,"note":"yes","at":"2025-01-13T10:30:00+0100""#,
        r#""tags":["a",7,null,{},"b"],"box":{"w":"x","deep":{"h":2}},"lines":[7,{"sku":"s","count":"x"},null,{}]"#,
        r#""box":{"w":1,"deep":"x"},"labels":{"a":"far too long","b_1":true,"x/y":1.50}"#,
    ]);
    let rows = run.take().rows("visits");
    assert_eq!(
        rows.iter().map(|row| row["size"].clone()).collect::<Vec<_>>(),
        [json!(3), json!(null), json!(4), json!(null), json!(null)]
    );
    assert_eq!(
        rows.iter().map(|row| row["note"].clone()).take(3).collect::<Vec<_>>(),
        [json!("ok"), json!(null), json!("yes")]
    );
    assert_eq!(rows[1]["at"], Value::Null);
    assert!(rows[0]["at"] != Value::Null && rows[2]["at"] != Value::Null && rows[0]["at"] != rows[2]["at"]);
    assert_eq!(rows[3]["tags"], json!(["a", null, null, null, "b"]));
    assert_eq!(rows[3]["box"], json!({ "w": null, "h": 2 }));
    assert_eq!(rows[3]["lines"], json!([null, { "sku": "s", "count": null }, null, { "sku": null, "count": null }]));
    assert_eq!(rows[4]["box"], json!({ "w": 1, "h": null }));
    assert_eq!(rows[4]["labels"], json!({ "a": null, "b_1": "true", "x/y": "1.50" }));
    let expected = [
        ("visits/at", 1),
        ("visits/box/deep", 1),
        ("visits/box/w", 1),
        ("visits/labels/a", 1),
        ("visits/lines", 1),
        ("visits/lines/*/count", 1),
        ("visits/note", 1),
        ("visits/size", 1),
        ("visits/tags", 2),
    ];
    assert_eq!(run.nulled_values, expected.map(|(field, count)| (field.to_owned(), count)).into());
}

#[test]
fn a_required_a_partition_and_a_time_field_still_cost_the_record() {
    for (record, field) in [
        (r#"{"visitor":[],"page":"p","t":1736764200123}"#, "/visitor"),
        (r#"{"visitor":"v","page":7,"t":1736764200123}"#, "/page"),
        (r#"{"visitor":"v","page":"p","t":"x"}"#, "/t"),
        (r#"{"visitor":"v","page":"p","t":1736764200123,"seen":"x"}"#, "/seen"),
        (r#"{"visitor":"v","page":"p","t":1736764200123,"strict":"x"}"#, "/strict"),
    ] {
        let mut run = Setup::of(&[LENIENT]).run();
        let outcome = run.lines(record).take();
        assert_eq!((outcome.codes(), outcome.dead_letter().field.as_deref()), (vec![Code::WrongType], Some(field)));
        assert!(run.nulled_values.is_empty());
    }
}

#[test]
fn the_values_of_a_record_that_fails_are_not_counted() {
    // The first fails while it is scanned, the second when its constraints are checked.
    let mut run =
        run_of(&[r#""size":"x","strict":"x""#, r#""size":"x","until":"2030-01-01T00:00:00Z""#, r#""size":"x""#]);
    assert_eq!(run.take().row_count(), 1);
    assert_eq!(run.nulled_values, [("visits/size".to_owned(), 1)].into());
}

#[test]
fn where_on_error_has_no_meaning_it_is_refused() {
    let with = |line: &str| {
        let text = LENIENT.replace("column = [", &format!("column = [ {line},"));
        Setup::of(&[text]).try_datasets().unwrap_err()
    };
    let column = r#"{ name = "x", pointer = "/x", type = "string", "#;
    assert!(with(&format!(r#"{column} required = true, on_error = "null" }}"#)).contains("is required"));
    assert!(
        with(&format!(r#"{column} on_error = "drop" }}"#)).contains(r#"on_error is "reject" or "null", not "drop""#)
    );
    assert!(
        with(r#"{ name = "x", from = "arrival_time", type = "timestamp", on_error = "null" }"#).contains("computed")
    );
    assert!(
        with(r#"{ name = "x", pointer = "/x", type = "int32", accept_number = true }"#).contains("are for strings")
    );
    assert!(with(&format!(r#"{column} not_before = "2010-01-01" }}"#)).contains("is not a time"));
    assert!(with(&format!("{column} round = true }}")).contains("round is for decimals"));
    let partition = LENIENT
        .replace(r#"pointer = "/page", type = "string""#, r#"pointer = "/page", type = "string", on_error = "null""#);
    assert!(Setup::of(&[partition]).try_datasets().unwrap_err().contains("is a partition"));
}

#[test]
fn a_number_can_be_an_identifier() {
    let outcome = outcome_of(ndjson(&[
        r#"{"user_id":12345,"updated_at":"2025-01-08T18:40:00Z"}"#,
        r#"{"user_id":"12345","updated_at":"2025-01-08T18:40:00Z"}"#,
        r#"{"id":987,"user_id":12345,"type":"skills","timestamp":"2025-01-08T18:40:00Z"}"#,
    ]));
    assert_eq!(outcome.codes(), []);
    let expected = json!(pseudonym("12345"));
    assert!(outcome.rows("users").iter().all(|row| row["user_id"] == expected));
    assert_eq!(
        (&outcome.row("assessments")["user_id"], &outcome.row("assessments")["assessment_id"]),
        (&expected, &json!("987"))
    );

    let number = |kind: &str| {
        let text = format!(
            "name = \"visits\"\nrecognize = {{ present = [\"/v\"] }}\nevent_time = {{ pointer = \"/t\" }}\n\
             column = [{{ name = \"v\", pointer = \"/v\", type = \"{kind}\", anonymize = {{ rule = \"pseudonym\" }} }}]"
        );
        Setup::of(&[text]).try_datasets().unwrap_err()
    };
    assert!(number("int64").contains("set type = \"string\", and accept_number = true if the values are numbers"));
}

#[test]
fn a_null_among_structs_is_null() {
    for (list, expected) in [
        (r#"[null,{"sku":"y"}]"#, json!([null, { "sku": "y", "count": null }])),
        ("[null]", json!([null])),
        ("[{},null,{}]", json!([{ "sku": null, "count": null }, null, { "sku": null, "count": null }])),
        ("[]", json!([])),
        ("null", json!(null)),
    ] {
        let mut run = run_of(&[&format!(r#""lines":{list}"#)]);
        assert_eq!(run.take().row("visits")["lines"], expected, "{list}");
        assert!(run.nulled_values.is_empty(), "{list}");
    }
}

#[test]
fn a_map_of_lists_keeps_what_is_absent_empty_and_null_apart() {
    let topics = [
        r#"{"a":["x","y"],"b":[],"c":null,"d":[null,"z"]}"#,
        "{}",
        "null",
        r#"{"a":[]}"#,
        r#"{"a":["x"]}"#,
        r#"{"\u00e9":["\u00e9"],"e":["too long"]}"#,
    ];
    let members: Vec<String> = topics.iter().map(|topics| format!(r#""topics":{topics}"#)).collect();
    let mut run = run_of(&members.iter().map(String::as_str).collect::<Vec<_>>());
    let rows = run.take().rows("visits");
    let found: Vec<&Value> = rows.iter().map(|row| &row["topics"]).collect();
    let expected = [
        json!({ "a": ["x", "y"], "b": [], "c": null, "d": [null, "z"] }),
        json!({}),
        json!(null),
        json!({ "a": [] }),
        json!({ "a": ["x"] }),
        json!({ "é": ["é"], "e": [null] }),
    ];
    assert_eq!(found, expected.iter().collect::<Vec<_>>());
    assert_eq!(run.nulled_values, [("visits/topics/*".to_owned(), 1)].into());
}

#[test]
fn a_fault_in_a_map_names_the_key_that_the_definition_lists_and_no_other() {
    let strict = LENIENT.replace("on_error = \"null\"\n", "");
    for (members, field) in [
        (r#""labels":{"a":{}}"#, "/labels/a"),
        (r#""labels":{"kim@example.com":{},"b_kim":[]}"#, "/labels/b_*"),
        (r#""labels":{"a":"ok","x\u002fy":"far too long"}"#, "/labels/x~1y"),
        (r#""topics":{"kim":"x"}"#, "/topics/*"),
        (r#""topics":{"kim":["ok","far too long"]}"#, "/topics/*"),
        (r#""topics":{"kim":[7]}"#, "/topics/*"),
    ] {
        let outcome = Setup::of(&[&strict]).run().lines(visit(&format!(",{members}"))).take();
        assert_eq!(outcome.dead_letter().field.as_deref(), Some(field), "{members}");
    }
}

#[test]
fn the_message_of_a_time_names_the_field_and_the_reason() {
    let day = 86_400_000_i64;
    for (record, field, reason) in [
        (r#"{"visitor":"v","page":"p","t":1736764200}"#.to_owned(), "/t", Reason::EventTooEarly),
        (r#"{"visitor":"v","page":"p","t":"1738400000000"}"#.to_owned(), "/t", Reason::EventTooLate),
        (
            format!(r#"{{"visitor":"v","page":"p","t":{},"seen":1736764200}}"#, 1_736_764_200_123_i64),
            "/seen",
            Reason::ArrivalTooEarly,
        ),
        (
            format!(r#"{{"visitor":"v","page":"p","t":{},"seen":1736764200123}}"#, 1_736_764_200_123 + 2 * day),
            "/t",
            Reason::EventTooFarAheadOfField,
        ),
        (visit(r#","until":"2009-12-31T23:59:59Z""#), "/until", Reason::TimeTooEarly),
        (visit(r#","until":"2025-07-09T00:00:00Z""#), "/until", Reason::TimeTooLate),
        (visit(r#","until":"9999-12-31T23:59:59-05:00""#), "/until", Reason::TimeOutOfCalendar),
        (visit(r#","born":"0000-01-01""#), "/born", Reason::TimeOutOfCalendar),
        (visit(r#","born":"1899-12-31""#), "/born", Reason::TimeTooEarly),
    ] {
        let outcome = Setup::of(&[LENIENT]).run().lines(&record).take();
        assert_eq!(rejection(&outcome), (Some(field.to_owned()), reason.message().to_owned()), "{record}");
    }
    let outcome = Setup::of(&[LENIENT]).run().lines_at(visit(""), 1_736_764_200_123 - 2 * day).take();
    assert_eq!(rejection(&outcome), (Some("/t".to_owned()), Reason::EventTooFarAhead.message().to_owned()));
    // The last day of a bound belongs to it.
    let mut run = run_of(&[r#""until":"2025-07-08T23:59:59.999999Z","born":"1900-01-01""#]);
    assert_eq!(run.take().row_count(), 1);
}

/// A dataset of times in every form.
const TIMES: &str = r#"
name = "times"
partition_by = ["year"]
recognize = { present = ["/t"] }
event_time = { pointer = "/t", format = "%d/%b/%Y:%H:%M:%S %z" }
column = [
  { name = "written", pointer = "/written", type = "timestamp" },
  { name = "local", pointer = "/local", type = "timestamp", zone = "+02:00" },
  { name = "micros", pointer = "/micros", type = "timestamp", format = "epoch_us", accept_text = true },
  { name = "nanos", pointer = "/nanos", type = "timestamp", format = "epoch_ns" },
  { name = "millis", pointer = "/millis", type = "timestamp", format = "epoch_ms", accept_text = true },
  { name = "seconds", pointer = "/seconds", type = "timestamp", format = "epoch_s", accept_text = true },
  { name = "american", pointer = "/american", type = "timestamp", format = "%m/%d/%Y %I:%M %p", zone = "-05:00" },
  { name = "day", pointer = "/written", type = "date32", format = "rfc3339" },
  { name = "day_written", pointer = "/written", type = "date32", format = "rfc3339", day = "written" },
  { name = "german", pointer = "/german", type = "date32", format = "%d.%m.%Y" },
]
"#;

#[test]
fn times_are_read_in_every_form_that_a_definition_names() {
    let instant = 1_736_764_200_123_000_i64;
    let micros = |row: &serde_json::Map<String, Value>, name: &str| row[name].clone();
    let plain = Setup::of(&[TIMES])
        .run()
        .lines(r#"{"t":"13/Jan/2025:10:30:00 Z","written":"2025-01-13T10:30:00.123Z"}"#)
        .take();
    let expected = micros(&plain.row("times"), "written");
    for (field, value) in [
        ("written", r#""2025-01-13T11:30:00.123+0100""#),
        ("written", r#""2025-01-13 11:30:00,123 +01""#),
        ("written", r#""2025-01-13 10:30:00.123 UTC""#),
        ("local", r#""2025-01-13T12:30:00.123""#),
        ("local", r#""2025-01-13T10:30:00.123Z""#),
        ("micros", &instant.to_string()),
        ("micros", &format!("\"{instant}\"")),
        ("nanos", &(instant * 1000 + 999).to_string()),
        ("millis", "\"1736764200123\""),
        ("seconds", "\"1736764200.123\""),
    ] {
        let record = format!(r#"{{"t":"13/Jan/2025:11:30:00 +0100","{field}":{value}}}"#);
        let row = Setup::of(&[TIMES]).run().lines(record).take().row("times");
        assert_eq!(row[field], expected, "{field}: {value}");
    }
    let record = r#"{"t":"13/Jan/2025:11:30:00 +0100","written":"2025-01-13T23:30:00-05:00","american":"1/13/2025 5:30 AM","german":"13.1.2025"}"#;
    let row = Setup::of(&[TIMES]).run().lines(record).take().row("times");
    let whole =
        Setup::of(&[TIMES]).run().lines(r#"{"t":"13/Jan/2025:10:30:00 Z","written":"2025-01-13T10:30:00Z"}"#).take();
    assert_eq!(row["american"], whole.row("times")["written"]);
    // The day in UTC is one later than the day as written.
    assert_eq!(row["day_written"], row["german"]);
    assert_eq!(plain.row("times")["day"], row["german"]);
    assert_ne!(row["day"], row["german"]);
}

#[test]
fn a_time_without_an_offset_needs_a_zone() {
    let column = |keys: &str| {
        let text = TIMES.replace(
            "column = [",
            &format!("column = [ {{ name = \"x\", pointer = \"/x\", type = \"timestamp\", {keys} }},"),
        );
        Setup::of(&[text]).try_datasets().map(|_| ())
    };
    let refused = |keys: &str| column(keys).unwrap_err();
    assert!(refused(r#"format = "%Y-%m-%d %H:%M:%S""#).contains("set zone = \"UTC\", or an offset"));
    assert!(refused(r#"zone = "Europe/Berlin""#).contains("'Europe/Berlin' is not a zone"));
    assert!(refused(r#"format = "epoch_ms", zone = "UTC""#).contains("a number since 1970 is UTC"));
    assert!(refused(r#"format = "%F %T%z", zone = "UTC""#).contains("this format has one"));
    assert!(refused(r#"format = "yyyy-MM-dd""#).contains("or a pattern such as"));
    assert!(refused(r#"format = "%Y""#).contains("needs a year (%Y), a month (%m) and a day (%d)"));
    assert!(refused(r#"day = "written""#).contains("day is for a date32"));
    assert!(refused(r#"accept_text = true"#).contains("accept_text is for"));
    assert_eq!(column(r#"format = "%F %T", zone = "UTC""#), Ok(()));
}

#[test]
fn pinpoints_producers_may_vary() {
    let event = |members: &str| format!(r#"{{"event_type":"_email.send","event_timestamp":1736764200123,{members}}}"#);
    let mut run = Setup::shipped().run();
    let outcome = run
        .lines(ndjson(&[
            event(r#""attributes":{"rating":5,"screen":"home","variant":true,"campaign_id":12345}"#),
            event(r#""application":{"app_id":"x","version_code":42},"event_version":3.1,"awsAccountId":111122223333"#),
            event(r#""client_context":{"custom":{"endpoint":"{\"EffectiveDate\":\"2025-01-08T18:40:00.123+0000\",\"Id\":7}"}}"#),
            event(r#""application":"x","attributes":"none","metrics":{"score":"12.5"}"#),
            event(r#""session":{"session_id":"s","start_timestamp":1736764200,"stop_timestamp":"1736764200123"}"#),
        ]))
        .take();
    assert_eq!(outcome.codes(), []);
    let rows = outcome.rows("events");
    assert_eq!(rows[0]["attributes"], json!({ "rating": "5", "screen": "home", "variant": "true" }));
    assert_eq!(rows[0]["campaign_id"], json!("12345"));
    assert_eq!((&rows[1]["app_version_code"], &rows[1]["event_version"]), (&json!("42"), &json!("3.1")));
    assert_eq!(rows[1]["aws_account_id"], json!("111122223333"));
    assert_eq!(rows[2]["endpoint_id"], json!(pseudonym("7")));
    assert_ne!(rows[2]["endpoint_effective_at"], Value::Null);
    assert_eq!((&rows[3]["app_id"], &rows[3]["attributes"]), (&Value::Null, &Value::Null));
    assert_eq!(rows[3]["metrics"], json!({ "score": 12.5 }));
    // Seconds where milliseconds are meant would be a day of 1970.
    assert_eq!((&rows[4]["session_start"], &rows[4]["session_id"]), (&Value::Null, &json!(pseudonym("s"))));
    assert_ne!(rows[4]["session_stop"], Value::Null);
    let expected = ["events/application", "events/attributes", "events/session/start_timestamp"];
    assert_eq!(run.nulled_values, expected.map(|field| (field.to_owned(), 1)).into());
}

#[test]
fn the_names_of_denied_keys_are_collected_only_if_they_are_asked_for() {
    let long = "x".repeat(300);
    let record = visit(&format!(r#","labels":{{"a":1,"my_metric":2,"tab\t":3,"{long}":4}},"topics":{{"t":[]}}"#));
    let mut run = Setup::of(&[LENIENT]).run();
    run.lines(ndjson(&[&record, &record]));
    assert_eq!((run.denied_keys, run.denied_names.iter().count()), (6, 0));

    let mut run = Setup::of(&[LENIENT]).with_denied_names().run();
    run.lines(ndjson(&[record.clone(), record, visit(r#","strict":[],"labels":{"of_a_record_that_fails":1}"#)]));
    let names: Vec<_> =
        run.denied_names.iter().map(|(_, object, key, count)| (object, key.to_owned(), count)).collect();
    let cut = format!("{}…", "x".repeat(64));
    assert_eq!(
        names,
        [("/labels", "my_metric".to_owned(), 2), ("/labels", "tab\u{fffd}".to_owned(), 2), ("/labels", cut, 2)]
    );

    let many: Vec<String> = (0..300).map(|n| visit(&format!(r#","labels":{{"key{n}":1}}"#))).collect();
    run.lines(ndjson(&many));
    assert_eq!(run.denied_names.iter().count(), 100, "the number of names is limited");
}
