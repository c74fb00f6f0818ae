//! Hand-written records: what the sample generator does not write.

use crate::compare::{by_sequence, same};
use crate::product::{Feed, Landed};

/// An assessment with these additional members, none of them `id`, `user_id`, `type` or `timestamp`.
pub(crate) fn assessment(members: &str) -> String {
    format!(r#"{{"id":"a-1","user_id":"u-1","type":"skills","timestamp":"2025-01-13T10:30:00Z"{members}}}"#)
}

/// An event with these additional members.
pub(crate) fn event(members: &str) -> String {
    format!(r#"{{"event_type":"_session.start","event_timestamp":1736764200123{members}}}"#)
}

/// An event with this endpoint.
pub(crate) fn endpoint(endpoint: &str) -> String {
    event(&format!(r#","client_context":{{"custom":{{"legacy_identifier":"l","endpoint":{endpoint}}}}}"#))
}

/// A user with these additional members.
fn user(members: &str) -> String {
    format!(r#"{{"user_id":"u-1","updated_at":"2025-01-13T10:30:00.5+01:00"{members}}}"#)
}

/// This text as a JSON string.
pub(crate) fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(text)
}

/// Both sides accept all of them, in one chunk and in many.
fn all_good(records: &[String]) -> Landed {
    let ndjson = records.join("\n");
    let landed = same(ndjson.as_bytes(), &Feed { chunk_bytes: vec![64], ..Feed::default() });
    assert_eq!(landed.dead_letters, []);
    same(ndjson.as_bytes(), &Feed::default())
}

/// Both sides reject all of them with this code.
fn all_bad(records: &[(String, &str)]) {
    let ndjson = records.iter().map(|(record, _)| record.as_str()).collect::<Vec<_>>().join("\n");
    let landed = same(ndjson.as_bytes(), &Feed::default());
    let codes: Vec<&str> = landed.dead_letters.iter().map(|(_, code, _)| code.as_str()).collect();
    assert_eq!(codes, records.iter().map(|(_, code)| *code).collect::<Vec<_>>());
}

#[test]
fn spelling_does_not_matter() {
    let plain = r#"{"id":"a-1","user_id":"u-1","type":"skills","score":73.5,"timestamp":"2025-01-13T10:30:00Z","answers":[{"question":"q1","answer":"A"}],"device":"ios"}"#;
    let spaced = " \t{ \"id\" : \"a-1\" ,\t\"user_id\"\t:\r\"u-1\",\"type\": \"skills\" , \"score\" :73.5 ,\"timestamp\":  \
                  \"2025-01-13T10:30:00Z\",\"answers\": [ { \"question\" : \"q1\" , \"answer\" :\"A\" } ] , \"device\" : \"ios\" } \t";
    let shuffled = r#"{"device":"ios","answers":[{"answer":"A","question":"q1"}],"timestamp":"2025-01-13T10:30:00Z","type":"skills","id":"a-1","score":73.5,"user_id":"u-1"}"#;
    let escaped = r#"{"\u0069d":"\u0061-1","user_i\u0064":"u\u002d1","t\u0079pe":"skill\u0073","score":73.5,"timestamp":"2025-01-13\u005410:30:00Z","answer\u0073":[{"\u0071uestion":"q\u0031","answer":"\u0041"}],"d\u0065vice":"\u0069os"}"#;
    let records = [plain, spaced, shuffled, escaped].map(str::to_owned);
    let landed = all_good(&records);
    // All rows are the same, too.
    let rows = by_sequence(landed.files.into_values().next().unwrap());
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if !["ingest_sequence", "extra"].contains(&field.name().as_str()) {
            (1..4).for_each(|row| assert!(*column.slice(row, 1) == *column.slice(0, 1), "{}", field.name()));
        }
    }
}

#[test]
fn absent_null_and_empty_are_distinguished() {
    all_good(&[
        assessment(""),
        assessment(r#","answers":null,"score":null,"duration":null,"user_age":null,"user_region":null,"device":null"#),
        assessment(r#","answers":[],"user_region":"","version":"""#),
        assessment(r#","answers":[{},{"question":null},{"other":1},{"question":"","answer":"","milliseconds":0}]"#),
        assessment(r#","device":null,"language":{},"context":[],"unlisted":1"#),
        event(""),
        event(r#","application":{},"client":{},"device":{},"session":{},"attributes":{},"metrics":{}"#),
        event(r#","application":null,"client":null,"device":null,"session":null,"attributes":null,"metrics":null"#),
        event(r#","device":{"locale":{},"platform":null},"application":{"sdk":{}},"facets":{}"#),
        event(r#","facets":{"email_channel":{"mail_event":{"bounce":{"bounced_recipients":[]}}}}"#),
        event(r#","facets":{"email_channel":{"mail_event":{"bounce":{"bounced_recipients":[{},{"action":"f"}]}}}}"#),
        event(r#","attributes":{"screen":null,"unlisted":7},"metrics":{"score":null,"unlisted":"x"}"#),
        event(r#","attributes":{"unlisted":7}"#),
        event(r#","client_context":{}"#),
        event(r#","client_context":{"custom":{}}"#),
        event(r#","client_context":{"custom":null}"#),
        event(r#","attributes":{"campaign_id":"","screen":""},"client":{"client_id":""}"#),
        user(r#","tags":[],"attributes":{},"signed_up_at":null"#),
        user(r#","tags":[null,"","vip",null],"attributes":{"team_size":null,"industry":""},"last_ip":"","region":" ""#),
    ]);
}

#[test]
fn an_endpoint_comes_in_every_form() {
    let document = r#"{"ChannelType":"GCM","Id":"e-1","User":{"UserId":"u-1","UserAttributes":{"a":["b"]}},"Metrics":{"completed":4.0,"other":1}}"#;
    let spaced = r#" { "ChannelType" : "GCM" , "Metrics" : { "completed" : 1e1 } , "OptOut" : null , "EffectiveDate" : "2025-01-13T10:30:00Z" } "#;
    let texts = "{\"ChannelType\":\"a \\\"b\\\" \\\\ \\n \\u00e9 é 東 😀 \\ud83d\\ude00\",\"Address\":\"\\/\",\"Location\":{\"City\":\"\\\"\"}}";
    all_good(&[
        endpoint(document),
        endpoint(&string(document)),
        endpoint(spaced),
        endpoint(&string(spaced)),
        endpoint(texts),
        endpoint(&string(texts)),
        endpoint(&string(&texts.replace('é', "e"))),
        endpoint(r#""{\u0022ChannelType\u0022:\u0022GCM\u0022}""#),
        endpoint(r#""\u007b\"ChannelType\":\"GCM\"}""#),
        endpoint(r#""{\"Channel\u0054ype\":\"GCM\",\"Id\":\"\u00e9\"}""#),
        endpoint(&string(r#"{"Channel\u0054ype":"GCM","Id":"\u00e9"}"#)),
        endpoint(&string("{\n\t\"ChannelType\":\t\"GCM\"\r\n}\n")),
        endpoint(&string("{}")),
        endpoint(&string(" { } ")),
        endpoint("{}"),
        endpoint("null"),
        endpoint("\"\""),
        endpoint(&string(
            r#"{"Demographic":{},"Location":null,"User":{},"Metrics":{},"Attributes":{"x":[[{"y":"\"z\""}]]}}"#,
        )),
        endpoint(&string(r#"{"Unknown":[1,-2.5e3,true,false,null,"\\",{"a":{}}],"Id":"e-2"}"#)),
    ]);
    let bad = "Decode.BadEmbeddedJson";
    let duplicate = "Decode.DuplicateKey";
    all_bad(&[
        (endpoint("\" \""), bad),
        (endpoint(&string("GCM")), bad),
        (endpoint(&string("null")), bad),
        (endpoint(&string("[]")), bad),
        (endpoint(&string("{")), bad),
        (endpoint(&string("{} x")), bad),
        (endpoint(&string("{}{}")), bad),
        (endpoint(&string(r#"{"Id":"\x"}"#)), bad),
        (endpoint(&string(r#"{"Id":"\ud83d"}"#)), bad),
        (endpoint(&string(r#"{"Id":01}"#)), bad),
        (endpoint(&string(r#"{"Unknown":[1,}"#)), bad),
        (endpoint(&string("{\"Id\":\"a\tb\"}")), bad),
        (endpoint(&string(&string("{}"))), bad),
        (endpoint(&string(r#"{"Id":"a","Id":"a"}"#)), duplicate),
        (endpoint(&string(r#"{"Id":"a","\u0049d":"a"}"#)), duplicate),
        (endpoint(r#"{"Id":"a","Id":"a"}"#), duplicate),
        (endpoint(&string(r#"{"Metrics":{"completed":1,"completed":1}}"#)), duplicate),
    ]);
    // What does not fit is null, and the event stays.
    all_good(&[
        endpoint(&string(r#"{"Id":1,"User":{"UserId":1.50}}"#)),
        endpoint(&string(r#"{"User":"x","Id":"e"}"#)),
        endpoint(&string(r#"{"Metrics":{"completed":"1"}}"#)),
        endpoint("1"),
        endpoint("[]"),
        endpoint(&string(r#"{"Metrics":{"completed":1e999}}"#)),
        endpoint(&string(r#"{"EffectiveDate":"yesterday","Id":"e"}"#)),
    ]);
}

#[test]
fn base64_records_are_read() {
    let record = event(r#","attributes":{"screen":"home"}"#);
    let spaced = format!("{{ {}", &record[1..]);
    let broken = format!("{{\n{}", &record[1..]);
    let unpadded = base64(&record).trim_end_matches('=').to_owned();
    all_good(&[
        base64(&record),
        base64(&spaced),
        base64(&broken),
        unpadded,
        format!("\"{}\"", base64(&record)),
        format!(" {} ", base64(&record)),
        base64(&format!("{record} \n")),
        record,
    ]);
    all_bad(&[
        (base64("{}"), "Decode.UnknownDataset"),
        (base64("[{}]"), "DataFormatConversion.ParseError"),
        (base64(&event("")[..40]), "Decode.Truncated"),
        (base64(&format!("{}x", event(""))), "Decode.TrailingBytes"),
        (format!("{}{}", base64(&spaced), base64(&spaced)), "DataFormatConversion.ParseError"),
        (format!("\"{}", base64(&spaced)), "Decode.Truncated"),
        (format!("\"{}\"", base64("not JSON, but text")), "Decode.NotAnObject"),
    ]);
}

#[test]
fn unknown_fields_keep_their_values() {
    all_good(&[
        assessment(
            r#","context":{"a":[1,2.50,-0.0,1e2,9007199254740993,true,null,"é\u00e9\"\\\/"],"b":{"c":{"d":[]}}}"#,
        ),
        assessment(r#","context": [ 1 , { "a" : "b c" } ] ,"device" : "ios","language":"de""#),
        assessment(r#","d\u0065vice":"é","language":"\ud83d\ude00","comment":"never lands""#),
        assessment(r#","context":"","device":0,"language":false"#),
        assessment(r#","unlisted":1e999,"context":1e300"#),
        assessment(r#","unlisted":[[[1e999]]],"email":"x@example.com","email":"y@example.com""#),
    ]);
}

#[test]
fn numbers_keep_their_value_in_every_spelling() {
    let scores =
        ["0", "-0", "-0.0", "100", "1e2", "100.0", "1E+2", "0.1e3", "73.55555555555555555555", "5e-324", "1e-999"];
    let durations =
        ["0", "-0", "12.0", "1e2", "1.5e1", "1200e-2", "2147483647", "2147483647.0", "0e99", "0.0e-9999999999"];
    let times = ["1736764200123", "1736764200123.0", "1.736764200123e12", "1736764200123000e-3"];
    let mut records: Vec<String> = Vec::new();
    records.extend(scores.iter().map(|score| assessment(&format!(r#","score":{score}"#))));
    records.extend(durations.iter().map(|duration| assessment(&format!(r#","duration":{duration}"#))));
    records.extend(["0", "17.0", "18", "130"].iter().map(|age| assessment(&format!(r#","user_age":{age}"#))));
    records.extend(times.iter().map(|time| event("").replace("1736764200123", time)));
    records.extend(
        ["0", "12", "1e1", "12.0", "-0"]
            .iter()
            .map(|parts| event(&format!(r#","attributes":{{"number_of_message_parts":"{parts}"}}"#))),
    );
    for number in ["9007199254740993", "1e308", "123456789012345678901234567890", "1e23", "-1.7976931348623157e308"] {
        records.push(event(&format!(r#","metrics":{{"score":{number},"price_in_millicents_usd":{number}}}"#)));
    }
    for parts in [" 1", "1x", "", "01", "2147483648"] {
        records.push(event(&format!(r#","attributes":{{"number_of_message_parts":"{parts}"}}"#)));
    }
    records.push(event(r#","session":{"start_timestamp":-62135596800001,"stop_timestamp":1736764200}"#));
    all_good(&records);

    let range = "Validate.OutOfRange";
    let wrong = "DataFormatConversion.MalformedData";
    all_bad(&[
        (assessment(r#","score":100.00000000000001"#), range),
        (assessment(r#","score":-5e-324"#), range),
        (assessment(r#","score":1e309"#), "Validate.NotFinite"),
        (assessment(r#","duration":2147483648"#), range),
        (assessment(r#","duration":-1"#), range),
        (assessment(r#","duration":9223372036854775808"#), range),
        (assessment(r#","duration":9223372036854775807"#), range),
        (assessment(r#","duration":1e99"#), range),
        (assessment(r#","duration":12.5"#), wrong),
        (assessment(r#","duration":1.00000000000000000000001"#), wrong),
        (assessment(r#","duration":9007199254740992.5"#), wrong),
        (assessment(r#","duration":1e-1"#), wrong),
        (assessment(r#","duration":"12""#), wrong),
        (assessment(r#","score":"73.5""#), wrong),
        (assessment(r#","user_age":131"#), range),
        (assessment(r#","user_age":-1"#), range),
        (event(r#","arrival_timestamp":253402300800000"#), range),
    ]);
}

#[test]
fn texts_of_every_kind_survive() {
    let long = "é".repeat(50_000);
    let texts =
        ["", " ", "\u{0}\u{1f}\u{7f}", "a\"b\\c/d", "é東😀\u{10ffff}\u{fffd}\u{feff}", "e\u{301}", "\u{2028}", &long];
    let mut records: Vec<String> = Vec::new();
    for text in texts {
        let ascii: String = text
            .chars()
            .map(|c| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04X}")).collect::<String>())
            .collect();
        for text in [string(text), format!("\"{ascii}\"")] {
            records.push(event(&format!(r#","application":{{"title":{text}}},"client":{{"client_id":{text}}}"#)));
            records.push(event(&format!(r#","attributes":{{"message_id":{text},"screen":{text},{text}:1}},{text}:1"#)));
            records.push(user(&format!(r#","tags":[{text},"b"],"last_ip":{text},"email":{text}"#)));
        }
    }
    for kind in ["a/b", "a=b c", "ünï cödé", "%41", "..", "a:b?*#'\"\\^[]{", &"x".repeat(64), &"é".repeat(64)] {
        records.push(assessment("").replace("\"skills\"", &string(kind)));
    }
    for id in [&"é".repeat(256), "😀"] {
        records.push(assessment("").replace("\"a-1\"", &string(id)));
    }
    for address in
        ["203.0.113.77", " 203.0.113.77 ", "2001:db8::1", "::ffff:1.2.3.4", "1.2.3", "01.2.3.4", "fe80::1%eth0", "x"]
    {
        records.push(user(&format!(r#","last_ip":"{address}""#)));
    }
    for region in
        ["DE", "de-by", "US_west", "emea", " EMEA ", "north america", "Bavaria", "D1", "ÄÖ", "de-", "-de", "\u{a0}"]
    {
        records.push(assessment(&format!(r#","user_region":"{region}""#)));
    }
    all_good(&records);

    let constraint = "Validate.ConstraintViolated";
    all_bad(&[
        (assessment("").replace("a-1", &"é".repeat(257)), constraint),
        (assessment("").replace("a-1", ""), constraint),
        (assessment("").replace("skills", &"x".repeat(65)), constraint),
        (assessment("").replace("skills", &"😀".repeat(64)), "Batch.PartitionTooLong"),
        (assessment(&format!(r#","user_region":"{}""#, "x".repeat(129))), constraint),
    ]);
}

#[test]
fn times_are_read_as_iso_8601_defines_them_where_they_have_one_meaning() {
    let good = [
        "2025-01-13T10:30:00Z",
        "2025-01-13t10:30:00z",
        "2025-01-13 10:30:00+00:00",
        "2025-01-13T10:30:00.1Z",
        "2025-01-13T10:30:00.123456789123Z",
        "2025-01-13T10:30:00.000001Z",
        "2026-01-02T00:00:00.000999Z",
        "2025-01-13T00:30:00+23:59",
        "2025-01-13T10:30:00-00:00",
        "2024-02-29T23:59:60Z",
        "2024-12-31T23:59:59.9999-05:30",
        "2010-01-01T00:00:00Z",
        "2026-01-02T00:00:00Z",
        "2025-01-13T10:30Z",
        "2025-01-13T10:30:00+0100",
        "2025-01-13T10:30:00-01",
        "2025-01-13 10:30:00,5 UTC",
        "2025-01-13 10:30:00 gmt",
        "2025-01-13T11:30:00+01:00[Europe/Berlin]",
    ];
    let bad = [
        "",
        "2025-01-13",
        "2025-01-13T10:30:00",
        "2025-01-13T10Z",
        "2025-01-13T10:30.5Z",
        "2025-01-13T10:30:00 CET",
        "2025-01-13T10:30:00[Europe/Berlin]",
        "2025-1-13T10:30:00Z",
        "2025-02-30T10:30:00Z",
        "2025-01-13T24:00:00Z",
        "2025-01-13T10:60:00Z",
        "2025-01-13T10:30:61Z",
        "2025-01-13T10:30:00.Z",
        "2025-01-13T10:30:00+24:00",
        "2025-01-13T10:30:00+010",
        "2025-01-13T10:30:00Z ",
        " 2025-01-13T10:30:00Z",
        "2025-01-13_10:30:00Z",
        "+2025-01-13T10:30:00Z",
        "2025-01-13T10:30:00\u{2212}01:00",
        "2025-01-13T10:30:00,Z",
        "２025-01-13T10:30:00Z",
        "1736764200123",
    ];
    let out = [
        "2009-12-31T23:59:59.999Z",
        "2026-01-02T00:00:00.001Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
        "1969-12-31T23:59:59.9999999Z",
    ];
    // No reader of the lake has the year 0, or one of five digits.
    let out_of_calendar = [
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+02:00",
        "0000-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-05:00",
        "9999-12-31T23:59:60Z",
    ];
    let at = |time: &&str| assessment("").replace("2025-01-13T10:30:00Z", time);
    let signed_up = |time: &&str| user(&format!(r#","signed_up_at":"{time}""#));
    all_good(&good.iter().map(at).chain(good.iter().chain(&out).map(signed_up)).collect::<Vec<_>>());
    let mut records: Vec<(String, &str)> = bad.iter().map(|time| (at(time), "Validate.BadTimestamp")).collect();
    records.extend(bad.iter().map(|time| (signed_up(time), "Validate.BadTimestamp")));
    records.extend(out.iter().map(|time| (at(time), "Validate.EventTimeOutOfBounds")));
    records.extend(out_of_calendar.iter().map(|time| (at(time), "Validate.OutOfRange")));
    records.extend(out_of_calendar.iter().map(|time| (signed_up(time), "Validate.OutOfRange")));
    all_bad(&records);
}

#[test]
fn duplicates_count_where_the_definition_names_the_key() {
    let duplicate = "Decode.DuplicateKey";
    all_bad(&[
        (assessment(r#","score":1,"score":1"#), duplicate),
        (assessment(r#","score":null,"score":1"#), duplicate),
        (assessment(r#","answers":[{"question":"a","question":"a"}]"#), duplicate),
        (user(r#","email":"a","email":"a""#), duplicate),
        (event(r#","device":{"locale":{"code":"a","code":"b"}}"#), duplicate),
        (event(r#","device":{},"device":{}"#), duplicate),
        (event(r#","attributes":{"screen":"a","scr\u0065en":"b"}"#), duplicate),
        (event(r#","attributes":{"campaign_id":"a","campaign_id":"b"}"#), duplicate),
    ]);
    all_good(&[
        assessment(r#","unknown":1,"unknown":2,"comment":"a","comment":"a""#),
        event(r#","attributes":{"unlisted":"a","unlisted":"b"},"device":{"colour":1,"colour":2}"#),
        event(r#","application":{"sdk":{"x":1,"x":1}}"#),
    ]);
}

#[test]
fn faults_of_syntax_have_their_codes() {
    let parse = "DataFormatConversion.ParseError";
    let wrong = "DataFormatConversion.MalformedData";
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    all_good(&[
        assessment(&format!(r#","deep":{}"#, nested(127))),
        assessment(&format!(r#","context":{}"#, nested(100))),
        event(r#","device":"phone""#),
        event(r#","device":[]"#),
        event(r#","attributes":{"screen":1,"method":true,"rating":[]}"#),
        event(r#","metrics":{"score":"1"}"#),
        event(r#","metrics":{"score":{}}"#),
        assessment(r#","answers":[null]"#),
        assessment(r#","answers":[null,{"question":"q1"},null]"#),
    ]);
    all_bad(&[
        (assessment(&format!(r#","deep":{}"#, nested(128))), "Decode.TooDeep"),
        (nested(128), "Decode.NotAnObject"),
        (nested(129), "Decode.TooDeep"),
        ("[".repeat(100_000), "Decode.TooDeep"),
        ("null".to_owned(), "Decode.NotAnObject"),
        ("\"text\"".to_owned(), "Decode.NotAnObject"),
        ("-12.5e3".to_owned(), "Decode.NotAnObject"),
        ("-".to_owned(), "Decode.Truncated"),
        ("tru".to_owned(), "Decode.Truncated"),
        ("truth".to_owned(), parse),
        ("\u{c}".to_owned(), parse),
        ("\u{feff}{}".to_owned(), parse),
        ("{}".to_owned(), "Decode.UnknownDataset"),
        (r#"{"score":1,"event_type":"x"}"#.to_owned(), "Validate.MissingField"),
        (r#"{"event_type":null,"event_timestamp":1736764200123}"#.to_owned(), "Validate.MissingField"),
        (r#"{"user_id":"u","updated_at":"2025-01-13T10:30:00Z","type":"x"}"#.to_owned(), "Validate.MissingField"),
        (assessment(r#","answers":{}"#), wrong),
        (assessment(r#","answers":"[]""#), wrong),
        (assessment(r#","answers":[[]]"#), wrong),
        (assessment(r#","answers":[{"question":1}]"#), wrong),
        (assessment(r#","answers":[{"milliseconds":-1}]"#), "Validate.OutOfRange"),
        (assessment(r#","processed":"true""#), wrong),
        (assessment(r#","processed":1"#), wrong),
        (user(r#","tags":"vip""#), wrong),
        (user(r#","tags":[1]"#), wrong),
        (user(r#","tags":[["vip"]]"#), wrong),
    ]);
}

#[test]
fn line_ends_of_every_system_are_read() {
    let records = [assessment(""), event(""), user("")];
    for text in [
        records.join("\r\n"),
        records.join("\n") + "\n",
        records.join("\r\n\r\n") + "\r\n\r\n",
        format!("\n\n \t\r\n{}\n\n", records.join("\n  \n")),
        records.join(" \r\n ") + "\r",
    ] {
        for size in [1, 100, 1 << 20] {
            let landed = same(text.as_bytes(), &Feed { chunk_bytes: vec![size], ..Feed::default() });
            assert_eq!((landed.files.len(), landed.dead_letters.len()), (3, 0));
        }
    }
    // A carriage return inside a line is JSON white space; one before the line feed belongs to the line end.
    let landed = same(format!("{}\r\r\n{}", records[0], records[1]).as_bytes(), &Feed::default());
    assert_eq!(landed.dead_letters, []);
    assert!(same(b"", &Feed::default()).files.is_empty());
    assert!(same(b"\r\n \n", &Feed::default()).files.is_empty());
}

#[test]
fn a_record_over_the_limit_is_too_large() {
    let padded = |bytes: usize| {
        let around = assessment(r#","padding":"""#).len();
        assessment(&format!(r#","padding":"{}""#, "x".repeat(bytes - around)))
    };
    let limit = baseline::RECORD_BYTES_MAX;
    let ndjson = [padded(limit), padded(limit + 1)].join("\n");
    let landed = same(ndjson.as_bytes(), &Feed::default());
    assert_eq!(landed.dead_letters.iter().map(|(_, code, _)| code.as_str()).collect::<Vec<_>>(), ["Decode.TooLarge"]);
}
