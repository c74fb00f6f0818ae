//! Values at the limits of what is accepted: numbers keep their value, text keeps its characters, and absent values differ from
//! empty ones.

use pipeline::anonymize::PseudonymKey;
use pipeline::dead_letter::code::Code;
use serde_json::{Value, json};

use crate::common::{ARRIVAL_MS, Setup, ndjson, outcome_of};

/// A dataset with a column of each kind.
const THINGS: &str = r#"
name = "things"
event_time = { pointer = "/t", format = "epoch_ms" }
recognize = { present = ["/t"] }
partition_by = ["year"]
embedded = ["/doc"]
column = [
  { name = "i32", pointer = "/i32", type = "int32" },
  { name = "i64", pointer = "/i64", type = "int64" },
  { name = "f64", pointer = "/f64", type = "float64" },
  { name = "flag", pointer = "/flag", type = "bool" },
  { name = "text", pointer = "/text", type = "string" },
  { name = "lenient_int", pointer = "/lenient_int", type = "int64", accept_text = true },
  { name = "lenient_float", pointer = "/lenient_float", type = "float64", accept_text = true },
  { name = "lenient_flag", pointer = "/lenient_flag", type = "bool", accept_text = true },
  { name = "seconds", pointer = "/seconds", type = "timestamp", format = "epoch_s" },
  { name = "written", pointer = "/written", type = "timestamp" },
  { name = "hour", pointer = "/written", type = "timestamp", anonymize = { rule = "truncate_time" } },
  { name = "born", pointer = "/born", type = "date32", personal = false },
  { name = "born_ms", pointer = "/born_ms", type = "date32", format = "epoch_ms", personal = false },
  { name = "choice", pointer = "/choice", type = "string", one_of = ["a", "b"] },
  { name = "code", pointer = "/code", type = "string", pattern = '^[A-Z]{2}\d*$' },
  { name = "short", pointer = "/short", type = "string", min_length = 2, max_length = 3 },
  { name = "bounded", pointer = "/bounded", type = "int64", min = -5, max = 5 },
  { name = "numbers", pointer = "/numbers", type = "list", element = "int64", min = 0 },
  { name = "codes", pointer = "/codes", type = "list", element = "string", one_of = ["a", "b"] },
  { name = "totals", pointer = "/totals", type = "map", value = "int64", max = 9, allow = ["a", "b_*"] },
  { name = "notes", pointer = "/notes", type = "json", personal = false },
  { name = "notes_b", pointer = "/notes/b", type = "int32" },
  { name = "of_doc", pointer = "/doc/value", type = "string" },
  { name = "at_year", from = "event_time.year", type = "int32" },
  { name = "at_month", from = "event_time.month", type = "int32" },
  { name = "at_day", from = "event_time.day", type = "int32" },
  { name = "at_hour", from = "event_time.hour", type = "int32" },
  { name = "on_day", from = "event_time", type = "date32" },
  { name = "arrived", from = "arrival_time", type = "timestamp" },
  { name = "rest", from = "unknown_fields", type = "json", allow = ["x", "y_*"] },
  { name = "pair", pointer = "/pair", type = "struct", field = [
    { name = "left", type = "int64", required = true },
    { name = "right", pointer = "/deep/right", type = "string" },
  ] },
  { name = "items", pointer = "/items", type = "list", field = [
    { name = "name", type = "string", personal = false },
    { name = "size", pointer = "/box/size", type = "int64", required = true },
    { name = "box", type = "json", personal = false },
  ] },
]
"#;

/// The values of one column for records that have these values (JSON text) in its field.
fn column(name: &str, field: &str, values: &[&str]) -> Vec<Value> {
    let record = |value: &&str| format!(r#"{{"t":1736764200123,"{field}":{value}}}"#);
    let records: Vec<String> = values.iter().map(record).collect();
    let outcome = Setup::of(&[THINGS]).run().lines(ndjson(&records)).take();
    assert_eq!(outcome.codes(), [], "{name}: {:?}", outcome.dead_letters);
    outcome.rows("things").into_iter().map(|mut row| row[name].take()).collect()
}

/// The codes of records that have these values in a field.
fn rejections(field: &str, values: &[&str]) -> Vec<Code> {
    let record = |value: &&str| format!(r#"{{"t":1736764200123,"{field}":{value}}}"#);
    let records: Vec<String> = values.iter().map(record).collect();
    let outcome = Setup::of(&[THINGS]).run().lines(ndjson(&records)).take();
    assert_eq!(outcome.row_count(), 0, "{field}: {:?}", outcome.rows("things"));
    let at_field = |field_of: &str| field_of.starts_with(&format!("/{field}"));
    assert!(
        outcome.dead_letters.iter().all(|dead_letter| dead_letter.field.as_deref().is_some_and(at_field)),
        "{:?}",
        outcome.dead_letters
    );
    outcome.codes()
}

#[test]
fn whole_numbers_of_64_bits_keep_their_value() {
    let texts = ["9007199254740993", "-9007199254740993", "9223372036854775807", "-9223372036854775808", "0", "-0"];
    let expected = [9_007_199_254_740_993, -9_007_199_254_740_993, i64::MAX, i64::MIN, 0, 0].map(Value::from);
    assert_eq!(column("i64", "i64", &texts), expected);
    assert_eq!(
        column("numbers", "numbers", &["[9223372036854775807,0,9007199254740993]"])[0],
        json!([i64::MAX, 0, 9_007_199_254_740_993_i64])
    );
    assert_eq!(rejections("i64", &["9223372036854775808", "-9223372036854775809", "1e19"]), [Code::OutOfRange; 3]);
}

#[test]
fn whole_numbers_of_32_bits_have_bounds() {
    assert_eq!(column("i32", "i32", &["2147483647", "-2147483648"]), [json!(i32::MAX), json!(i32::MIN)]);
    assert_eq!(rejections("i32", &["2147483648", "-2147483649"]), [Code::OutOfRange; 2]);
}

#[test]
fn a_number_with_a_zero_fraction_is_a_whole_number() {
    assert_eq!(
        column("i64", "i64", &["12.0", "1e3", "1200e-2", "1.5E+1", "-3.000", "0.0", "9.223372036854775807e18"]),
        [12, 1000, 12, 15, -3, 0, i64::MAX].map(Value::from)
    );
    assert_eq!(rejections("i64", &["12.5", "1e-1", "0.000001"]), [Code::WrongType; 3]);
}

#[test]
fn a_number_in_quotes_is_accepted_only_if_the_definition_says_so() {
    assert_eq!(rejections("i64", &["\"123\""]), [Code::WrongType]);
    assert_eq!(rejections("f64", &["\"1.5\""]), [Code::WrongType]);
    assert_eq!(rejections("flag", &["\"true\""]), [Code::WrongType]);
    assert_eq!(
        column("lenient_int", "lenient_int", &["\"123\"", "124", "\"-5.0\"", "null"]),
        [json!(123), json!(124), json!(-5), Value::Null]
    );
    assert_eq!(column("lenient_float", "lenient_float", &["\"1.5\"", "2"]), [json!(1.5), json!(2.0)]);
    assert_eq!(
        column("lenient_flag", "lenient_flag", &["\"true\"", "\"false\"", "true"]),
        [json!(true), json!(false), json!(true)]
    );
    assert_eq!(
        rejections("lenient_int", &["\"\"", "\" 1\"", "\"1 \"", "\"+1\"", "\"0x1\"", "\"1\\u00b2\"", "\"12a\""]),
        [Code::WrongType; 7]
    );
    assert_eq!(rejections("lenient_flag", &["\"True\"", "1"]), [Code::WrongType; 2]);
    assert_eq!(rejections("lenient_int", &["\"9223372036854775808\""]), [Code::OutOfRange]);
    assert_eq!(rejections("lenient_float", &["\"1e999\""]), [Code::NotFinite]);
}

#[test]
fn doubles_are_rounded_once() {
    let texts = [
        "0.1",
        "1.7976931348623157e308",
        "5e-324",
        "2.2250738585072011e-308",
        "1e-400",
        "123456789012345678901234567890",
        "9007199254740993",
    ];
    let values: Vec<f64> = column("f64", "f64", &texts).iter().map(|value| value.as_f64().unwrap()).collect();
    let expected: Vec<f64> = texts.iter().map(|text| text.parse().unwrap()).collect();
    assert_eq!(values, expected);
    let zeros = column("f64", "f64", &["-0.0", "0.0"]);
    assert!(zeros[0].as_f64().unwrap().is_sign_negative() && zeros[1].as_f64().unwrap().is_sign_positive());
    assert_eq!(rejections("f64", &["1.8e308", "-1e999"]), [Code::NotFinite; 2]);
}

#[test]
fn text_keeps_every_character() {
    let texts = [
        r#""""#,
        r#""plain""#,
        r#""é東😀""#,
        r#""\u00e9\ud83d\ude00\/\"\\\b\f\n\r\t""#,
        r#""\u0000""#,
        "\"\u{7f}\u{85}\u{2028}\u{10ffff}\"",
    ];
    let expected: Vec<Value> = texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(column("text", "text", &texts), expected);
}

#[test]
fn times_are_read_in_every_format() {
    assert_eq!(
        column("seconds", "seconds", &["1736764200", "1736764200.1234", "-0.0015", "1.7367642e9"]),
        [1_736_764_200_000_000_i64, 1_736_764_200_123_400, -1_500, 1_736_764_200_000_000].map(Value::from)
    );
    assert_eq!(
        column(
            "written",
            "written",
            &["\"2025-01-13T10:30:00.1234567+02:00\"", "\"1969-12-31t23:59:59z\"", "\"2025-01-13T10:30:00\\u005a\""]
        ),
        [1_736_757_000_123_456_i64, -1_000_000, 1_736_764_200_000_000].map(Value::from)
    );
    assert_eq!(
        column("hour", "written", &["\"2025-01-13T10:30:00Z\"", "\"1969-12-31T23:59:59Z\""]),
        [1_736_762_400_000_000_i64, -3_600_000_000].map(Value::from)
    );
    assert_eq!(
        column("born", "born", &["\"1970-01-01\"", "\"1969-12-31\"", "\"2024-02-29\""]),
        [0, -1, 19_782].map(Value::from)
    );
    assert_eq!(column("born_ms", "born_ms", &["0", "-1", "86400000"]), [0, -1, 1].map(Value::from));
    assert_eq!(
        rejections("born", &["\"2025-02-29\"", "\"1970-1-1\"", "\"2025-01-13T00:00:00Z\""]),
        [Code::BadTimestamp; 3]
    );
    assert_eq!(rejections("seconds", &["1e300", "253402300800"]), [Code::OutOfRange; 2]);
}

#[test]
fn parts_of_the_event_time_are_columns() {
    let row = Setup::of(&[THINGS]).run().lines(r#"{"t":1736764200123}"#).take().row("things");
    let parts =
        ["at_year", "at_month", "at_day", "at_hour", "on_day", "arrived"].map(|name| row[name].as_i64().unwrap());
    assert_eq!(parts, [2025, 1, 13, 10, 20_101, ARRIVAL_MS * 1000]);
}

#[test]
fn constraints_apply_to_the_value_as_it_arrives() {
    assert_eq!(column("choice", "choice", &["\"a\"", "\"\\u0062\"", "null"]), [json!("a"), json!("b"), Value::Null]);
    assert_eq!(rejections("choice", &["\"c\"", "\"\"", "\"A\""]), [Code::ConstraintViolated; 3]);
    assert_eq!(column("code", "code", &["\"DE\"", "\"FR7\""]), [json!("DE"), json!("FR7")]);
    assert_eq!(rejections("code", &["\"de\"", "\"D\"", "\"DEx\""]), [Code::ConstraintViolated; 3]);
    // Lengths count characters, not bytes.
    assert_eq!(column("short", "short", &["\"😀😀😀\"", "\"ab\""]), [json!("😀😀😀"), json!("ab")]);
    assert_eq!(rejections("short", &["\"é\"", "\"abcd\"", "\"😀😀😀😀\""]), [Code::ConstraintViolated; 3]);
    assert_eq!(column("bounded", "bounded", &["-5", "5", "5.0"]), [-5, 5, 5].map(Value::from));
    assert_eq!(rejections("bounded", &["-6", "6"]), [Code::OutOfRange; 2]);
}

#[test]
fn constraints_apply_to_every_element() {
    assert_eq!(column("codes", "codes", &["[\"a\",null,\"b\"]", "[]"]), [json!(["a", null, "b"]), json!([])]);
    assert_eq!(rejections("codes", &["[\"a\",\"x\"]", "[\"\"]"]), [Code::ConstraintViolated; 2]);
    assert_eq!(rejections("numbers", &["[1,2,-1]", "[-1]"]), [Code::OutOfRange; 2]);
    assert_eq!(rejections("totals", &["{\"a\":10}", "{\"a\":1,\"b_x\":10}"]), [Code::OutOfRange; 2]);
    assert_eq!(column("totals", "totals", &["{\"a\":9,\"denied\":10}"]), [json!({"a": 9})]);
    assert_eq!(rejections("items", &["[{\"box\":{\"size\":1}},{\"name\":\"x\"}]", "[{}]"]), [Code::MissingField; 2]);
    assert_eq!(rejections("pair", &["{}", "{\"deep\":{\"right\":\"x\"}}", "{\"left\":null}"]), [Code::MissingField; 3]);
}

#[test]
fn absent_values_differ_from_empty_ones() {
    for (name, empty, there) in [
        ("numbers", json!([]), json!([1, null])),
        ("totals", json!({}), json!({"a": null, "b_1": 2})),
        ("items", json!([]), json!([{"name": "n", "size": 1, "box": "{\"size\":1}"}])),
        ("pair", json!({"left": 1, "right": null}), json!({"left": 1, "right": "r"})),
    ] {
        let text = match name {
            "items" => r#"[{"name":"n","box":{"size":1}}]"#.to_owned(),
            "pair" => r#"{"left":1,"deep":{"right":"r"}}"#.to_owned(),
            _ => there.to_string(),
        };
        let empty_text = if name == "pair" { r#"{"left":1}"#.to_owned() } else { empty.to_string() };
        let found = column(name, name, &["null", &empty_text, &text, "null"]);
        assert_eq!(found, [Value::Null, empty, there, Value::Null], "{name}");
    }
}

#[test]
fn an_object_may_be_read_whole_and_by_its_fields() {
    let texts = [r#"{ "a" : [1, 2], "b":7}"#, r#"{"b":null}"#, "null"];
    assert_eq!(column("notes", "notes", &texts), [json!(texts[0]), json!(texts[1]), Value::Null]);
    assert_eq!(column("notes_b", "notes", &texts), [json!(7), Value::Null, Value::Null]);
    let items = column(
        "items",
        "items",
        &["null", r#"[{"box":{"size":1}},{"name":"b","box":{"size":2,"x":[]}}]"#, r#"[{"box":{"size":3}}]"#],
    );
    assert_eq!(
        items[1],
        json!([{"name": null, "size": 1, "box": "{\"size\":1}"}, {"name": "b", "size": 2, "box": "{\"size\":2,\"x\":[]}"}])
    );
    assert_eq!(items[2], json!([{"name": null, "size": 3, "box": "{\"size\":3}"}]));
}

#[test]
fn an_embedded_document_has_the_same_meaning_in_every_spelling() {
    for spelling in [
        r#""{\"value\":\"v\"}""#,
        r#""{\"x\":[1,{\"y\":\"z\"}],\"value\":\"v\",\"n\":-1.5e3,\"l\":null,\"b\":true}""#,
        r#""{\"\\u0076alue\":\"\\u0076\"}""#,
        r#""\u007b\"value\":\"v\"}""#,
        r#""{\n  \"value\" : \"v\"\n}""#,
        r#"" {\"value\":\"v\"} ""#,
        r#"{"value":"v"}"#,
        r#"{ "value" : "v", "other": {"deep": [1]} }"#,
    ] {
        assert_eq!(column("of_doc", "doc", &[spelling]), [json!("v")], "{spelling}");
    }
    assert_eq!(column("of_doc", "doc", &[r#""{\"value\":\"a\\\"b\\\\c\\n\\u00e9\"}""#]), [json!("a\"b\\c\né")]);
    assert_eq!(
        column("of_doc", "doc", &["\"\"", "\"{}\"", "{}", "null", r#""{\"value\":null}""#]),
        vec![Value::Null; 5]
    );
}

#[test]
fn unknown_keys_may_occur_twice() {
    let record = r#"{"event_type":"a","event_timestamp":1736764200123,"unread":1,"unread":2,"device":{"x":1,"x":2},"attributes":{"not listed":"a","not listed":"b"}}"#;
    assert_eq!(outcome_of(record).row("events")["attributes"], json!({}));
}

#[test]
fn unknown_fields_are_collected_if_they_are_listed() {
    let record = |members: &str| format!(r#"{{"t":1736764200123,{members}}}"#);
    let mut run = Setup::of(&[THINGS]).run();
    let lines = [
        record(r#""x":{"a":[1, "é"]},"z":1,"y_1":null,"\u0079_2":"\u00e9""#),
        record(r#""z":{"x":1}"#),
        record(r#""x":"text""#),
    ];
    let rows = run.lines(ndjson(&lines)).take().rows("things");
    assert_eq!(rows[0]["rest"], r#"{"x":{"a":[1, "é"]},"y_1":null,"\u0079_2":"\u00e9"}"#);
    assert_eq!((&rows[1]["rest"], &rows[2]["rest"]), (&Value::Null, &json!(r#"{"x":"text"}"#)));
    assert_eq!(run.denied_keys, 2);
}

#[test]
fn a_record_may_be_nested_as_deep_as_the_limit() {
    let record = |depth: usize| format!(r#"{{"t":1736764200123,"unread":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let outcome = Setup::of(&[THINGS]).run().lines(ndjson(&[record(127), record(128)])).take();
    assert_eq!((outcome.row_count(), outcome.codes()), (1, vec![Code::TooDeep]));
}

#[test]
fn a_pseudonym_is_the_same_in_every_dataset() {
    let outcome = outcome_of(ndjson(&[
        r#"{"id":"1","user_id":"u-é","type":"t","timestamp":"2025-01-13T10:30:00Z"}"#,
        r#"{"user_id":"u-\u00e9","updated_at":"2025-01-13T10:30:00Z"}"#,
        r#"{"event_type":"a","event_timestamp":1736764200123,"client_context":{"custom":{"endpoint":"{\"User\":{\"UserId\":\"u-\\u00e9\"}}"}}}"#,
    ]));
    let pseudonym = PseudonymKey::new(&[7; 32]).unwrap().pseudonym("u-é".as_bytes());
    let expected = std::str::from_utf8(&pseudonym).unwrap();
    for dataset in ["assessments", "users", "events"] {
        assert_eq!(outcome.row(dataset)["user_id"], expected, "{dataset}");
    }
}

#[test]
fn personal_values_are_written_only_in_their_coarse_form() {
    let record = r#"{"user_id":"u","updated_at":"2025-01-13T10:30:00Z","age":34,"region":"DE-BY","last_ip":"203.0.113.77","tags":["vip","my friend Bob"],"attributes":{"industry":"mine@example.com","team_size":"1"},"email":"a@example.com","name":"A B","phone":"+1","date_of_birth":"not even a date"}"#;
    let row = outcome_of(record).row("users");
    assert_eq!(row["age_group"], "25-34");
    assert_eq!(row["region"], "DE");
    assert_eq!(row["last_network"], "203.0.113.0/24");
    assert_eq!(row["tags"], json!(["vip", null]));
    assert_eq!(row["attributes"], json!({"industry": null, "team_size": "1"}));
    for dropped in ["email", "name", "phone", "date_of_birth"] {
        assert!(!row.contains_key(dropped), "{dropped}");
    }
}

#[test]
fn the_rule_email_domain_writes_only_the_domain_of_an_address() {
    const DEFINITION: &str = r#"
name = "contacts"
partition_by = ["year"]
[event_time]
pointer = "/at"
[[column]]
name = "provider"
pointer = "/mail"
type = "string"
anonymize = { rule = "email_domain" }
[[column]]
name = "providers"
pointer = "/mails"
type = "list"
element = "string"
anonymize = { rule = "email_domain" }
[[column]]
name = "unique_provider"
pointer = "/mail"
type = "string"
unique = true
anonymize = { rule = "email_domain" }
"#;
    let record = |mail: &str| json!({"at": "2025-01-13T10:30:00Z", "mail": mail, "mails": ["x@B.example", mail]});
    let records = ["Bob.Smith@Example.com", "Bob Smith", "eve@example.COM"].map(|mail| record(mail).to_string());
    let outcome = Setup::of(&[DEFINITION]).assigned("contacts").run().lines(ndjson(&records)).take();
    let rows = outcome.rows("contacts");
    let column = |name: &str| rows.iter().map(|row| row[name].clone()).collect::<Vec<_>>();
    let expected = [json!("example.com"), Value::Null, json!("example.com")];
    assert_eq!((column("provider"), column("unique_provider")), (expected.to_vec(), expected.to_vec()));
    assert_eq!(column("providers"), expected.map(|last| json!(["b.example", last])));
    assert!(!format!("{rows:?}").contains("Bob"));
}

#[test]
fn a_partition_value_is_escaped_in_the_path_as_in_hive() {
    let of_type = |kind: &str| {
        let record = json!({"id": "1", "user_id": "u", "type": kind, "timestamp": "2025-01-13T10:30:00Z"}).to_string();
        outcome_of(record).files[0].path.clone()
    };
    assert_eq!(of_type("skills"), "type=skills/year=2025/month=01");
    assert_eq!(of_type("a/b=c:d%"), "type=a%2Fb%3Dc%3Ad%25/year=2025/month=01");
    assert_eq!(of_type("ä b"), "type=ä b/year=2025/month=01");
    assert_eq!(of_type(".."), "type=../year=2025/month=01");
    assert_eq!(of_type("a\n\u{7f}\u{85}b"), "type=a%0A%7F%C2%85b/year=2025/month=01");
    assert_eq!(
        outcome_of(r#"{"event_type":"a","event_timestamp":1736764200123}"#).files[0].path,
        "year=2025/month=01/day=13"
    );
    let by_text = THINGS.replace("partition_by = [\"year\"]", "partition_by = [\"choice\", \"text\"]");
    let lines = ndjson(&[r#"{"t":1736764200123,"choice":"a"}"#, r#"{"t":1736764200123,"text":"x"}"#]);
    let outcome = Setup::of(&[by_text]).run().lines(lines).take();
    let mut paths: Vec<&str> = outcome.files.iter().map(|file| file.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["choice=__HIVE_DEFAULT_PARTITION__/text=x", "choice=a/text=__HIVE_DEFAULT_PARTITION__"]);
    assert!(!outcome.files[0].rows[0].contains_key("choice"), "a partition column is only in the path");
}

#[test]
fn a_field_that_only_another_dataset_reads_may_be_of_any_type() {
    let other = r#"
name = "other"
event_time = { pointer = "/seen/at", format = "epoch_ms" }
recognize = { present = ["/payload/kind"], equals = { "/payload/version" = "2" } }
column = [{ name = "kind", pointer = "/payload/kind", type = "string" }]
"#;
    for payload in [r#""a text""#, "[1,2]", "{}", "7", "null", r#"{"kind":{"deep":1},"version":3}"#] {
        let record = format!(r#"{{"t":1736764200123,"text":"x","payload":{payload},"seen":true}}"#);
        let outcome = Setup::of(&[other, THINGS]).run().lines(record).take();
        assert_eq!(outcome.row("things")["text"], "x", "{payload}");
    }
}
