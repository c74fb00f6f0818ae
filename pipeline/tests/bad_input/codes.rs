//! At least one record for each code: the code, the field and dataset of the dead letter, the rows of the neighbours.
//!
//! [`check`] is the whole test, and `cases!` names each case by the sentence that it proves. `every_code_has_a_case` fails for a
//! code without a case.

use std::collections::BTreeSet;

use pipeline::chunk::{Chunk, Damage, Framing};
use pipeline::dead_letter::code::Code;

use crate::common::{ARRIVAL_MS, BASE, Outcome, RECORD_BYTES_MAX, SHARD, STREAM, Setup, TestFrame, ndjson, pseudonym};

/// Good records of each dataset; the third has the fields that the second lacks.
const NEIGHBOURS: [&str; 4] = [
    r#"{"id":"a-1","user_id":"u-1","type":"skills","score":73.5,"duration":420,"timestamp":"2025-01-13T10:30:00.123Z","user_age":34,"user_region":"DE-BY","answers":[{"question":"q1","answer":"A","milliseconds":1200},{"question":"q2","answer":"B"}],"device":"ios"}"#,
    r#"{"event_type":"_session.start","event_timestamp":1736764200123}"#,
    r#"{"event_type":"_campaign.send","event_timestamp":1736764200456,"arrival_timestamp":1736764200987,"attributes":{"campaign_id":"c-1","screen":"home"},"metrics":{"score":1.5},"client_context":{"custom":{"endpoint":"{\"Id\":\"e-1\",\"User\":{\"UserId\":\"u-1\"},\"Metrics\":{\"completed\":3}}"}}}"#,
    r#"{"user_id":"u-1","updated_at":"2025-01-13T10:30:00Z","age":34,"tags":["beta","vip"],"attributes":{"team_size":"1"}}"#,
];

/// A dataset that is joined to a table, and rejects records that have no row there.
const PLACES: &str = r#"
name = "places"
event_time = { pointer = "/at", format = "epoch_ms" }
recognize = { present = ["/country"] }
column = [
  { name = "country", pointer = "/country", type = "string" },
  { name = "currency", from = "lookup.countries.currency", type = "string" },
]
lookup = { name = "countries", file = "countries.csv", key = "code", on = "country", missing = "reject" }
"#;

/// The datasets that a record is pushed into.
#[derive(Clone, Copy)]
enum World {
    Shipped,
    Places,
}

impl World {
    fn setup(self) -> Setup {
        match self {
            World::Shipped => Setup::shipped(),
            World::Places => Setup::of(&[PLACES]).table("countries.csv", "code,currency\nDE,EUR\nFR,EUR\n"),
        }
    }

    fn neighbours(self) -> Vec<&'static [u8]> {
        let lines: &[&str] = match self {
            World::Shipped => &NEIGHBOURS,
            World::Places => &[r#"{"country":"DE","at":1736764200123}"#, r#"{"country":"FR","at":1736764200123}"#],
        };
        lines.iter().map(|line| line.as_bytes()).collect()
    }
}

/// A bad record and the expected result.
struct Case {
    record: Vec<u8>,
    code: Code,
    dataset: Option<&'static str>,
    field: Option<&'static str>,
    damage: Option<Damage>,
    world: World,
}

fn case(record: impl Into<Vec<u8>>, code: Code) -> Case {
    Case { record: record.into(), code, dataset: None, field: None, damage: None, world: World::Shipped }
}

impl Case {
    fn of(self, dataset: &'static str) -> Self {
        Case { dataset: Some(dataset), ..self }
    }

    fn at(self, field: &'static str) -> Self {
        Case { field: Some(field), ..self }
    }

    fn damaged(self, damage: Damage) -> Self {
        Case { damage: Some(damage), ..self }
    }

    fn among(self, world: World) -> Self {
        Case { world, ..self }
    }
}

/// An assessment with more members, which may also replace its own ones.
fn assessment(members: &str) -> String {
    let mut record = String::from("{");
    for (key, value) in
        [("id", "\"a-2\""), ("user_id", "\"u-2\""), ("type", "\"skills\""), ("timestamp", "\"2025-01-13T10:30:00Z\"")]
    {
        if !members.contains(&format!("\"{key}\":")) {
            record += &format!("\"{key}\":{value},");
        }
    }
    record + members + "}"
}

fn assessment_without(key: &str) -> String {
    let all = assessment("\"score\":1");
    let start = all.find(&format!("\"{key}\":")).expect("the key is there");
    let end = start + all[start..].find(',').expect("it is not the last one") + 1;
    format!("{}{}", &all[..start], &all[end..])
}

fn event(members: &str) -> String {
    format!(r#"{{"event_type":"a","event_timestamp":1736764200123,{members}}}"#)
}

fn endpoint(text: &str) -> String {
    event(&format!(r#""client_context":{{"custom":{{"endpoint":{text}}}}}"#))
}

fn user(members: &str) -> String {
    format!(r#"{{"user_id":"u-2","updated_at":"2025-01-13T10:30:00Z",{members}}}"#)
}

fn with_bytes(record: &str, place: &str, bytes: &[u8]) -> Vec<u8> {
    let at = record.find(place).expect("the place is there");
    [&record.as_bytes()[..at], bytes, &record.as_bytes()[at + place.len()..]].concat()
}

fn nested(open: &str, close: &str, depth: usize) -> String {
    format!("\"unread\":{}1{}", open.repeat(depth), close.repeat(depth))
}

/// Makes a test of each case.
macro_rules! cases {
    ($($name:ident: $case:expr;)*) => {
        $(
            #[test]
            fn $name() {
                check(&$case);
            }
        )*

        #[test]
        fn every_code_has_a_case() {
            let with_case: BTreeSet<Code> = [$($case.code),*].into();
            assert_eq!(with_case, BTreeSet::from(Code::ALL));
        }
    };
}

cases! {
    a_line_of_a_log_is_not_json: case("2025-01-13T10:30:00Z INFO done in 12 ms", Code::NotJson);
    a_line_of_csv_is_not_json: case("u-000123,skills,73.5,true", Code::NotJson);
    a_line_of_html_is_not_json: case("<html><body>502 Bad Gateway</body></html>", Code::NotJson);
    nan_is_not_json: case("NaN", Code::NotJson);
    nan_as_a_value_is_not_json: case(assessment(r#""score":NaN"#), Code::NotJson).of("assessments");
    infinity_as_a_value_is_not_json: case(assessment(r#""score":-Infinity"#), Code::NotJson).of("assessments");
    single_quotes_are_not_json: case("{'id': 'a-2'}", Code::NotJson);
    a_key_without_quotes_is_not_json: case("{id:\"a-2\"}", Code::NotJson);
    a_missing_colon_is_not_json: case(r#"{"id" "a-2"}"#, Code::NotJson);
    a_missing_comma_is_not_json: case(r#"{"id":"a-2" "type":"t"}"#, Code::NotJson);
    a_comma_before_the_brace_is_not_json: case(assessment(r#""score":1,"#), Code::NotJson).of("assessments");
    a_leading_zero_is_not_json: case(assessment(r#""score":007"#), Code::NotJson).of("assessments");
    a_leading_plus_is_not_json: case(assessment(r#""score":+1"#), Code::NotJson).of("assessments");
    a_number_that_ends_in_its_point_is_not_json: case(assessment(r#""score":1."#), Code::NotJson).of("assessments");
    a_word_that_is_not_a_literal_is_not_json: case(assessment(r#""processed":True"#), Code::NotJson).of("assessments");
    a_bad_escape_is_not_json: case(assessment(r#""version":"\x41""#), Code::NotJson).of("assessments");
    a_bad_escape_in_an_unread_field_is_not_json:
        case(assessment(r#""unread":"\u00g1""#), Code::NotJson).of("assessments");
    a_tab_in_a_string_is_not_json: case(assessment("\"version\":\"1\t0\""), Code::NotJson).of("assessments");
    a_nul_in_a_string_is_not_json: case(assessment("\"version\":\"1\u{0}0\""), Code::NotJson).of("assessments");
    a_tab_in_an_unread_string_is_not_json: case(assessment("\"unread\":\"1\t0\""), Code::NotJson).of("assessments");
    a_tab_between_the_tokens_of_an_embedded_document_is_not_json:
        case(endpoint("\"{\t\\\"Id\\\":\\\"e\\\"}\""), Code::NotJson).of("events");
    a_byte_order_mark_is_not_json: case("\u{feff}{}", Code::NotJson);
    brackets_that_do_not_match_are_not_json: case(assessment(r#""unread":[1}"#), Code::NotJson).of("assessments");
    base64_of_a_text_is_not_json: case("bm90IGEgSlNPTiBkb2N1bWVudA==", Code::NotJson);

    a_stray_byte_is_not_utf_8:
        case(with_bytes(&assessment(r#""score":1"#), "skills", b"sk\xffills"), Code::NotUtf8).of("assessments");
    a_cut_sequence_is_not_utf_8:
        case(with_bytes(&assessment(r#""score":1"#), "skills", b"sk\xe2\x82ills"), Code::NotUtf8).of("assessments");
    an_overlong_form_is_not_utf_8:
        case(with_bytes(&assessment(r#""score":1"#), "skills", b"\xc0\xaf"), Code::NotUtf8).of("assessments");
    an_encoded_surrogate_is_not_utf_8:
        case(with_bytes(&assessment(r#""score":1"#), "skills", b"\xed\xa0\xbd"), Code::NotUtf8).of("assessments");
    bytes_of_an_unread_field_must_be_utf_8_too:
        case(with_bytes(&assessment(r#""unread":"here""#), "here", b"\xf5\x80\x80\x80"), Code::NotUtf8)
            .of("assessments");
    bytes_of_a_key_must_be_utf_8_too:
        case(with_bytes(&assessment(r#""unread":1"#), "unread", b"\xc3"), Code::NotUtf8).of("assessments");
    bytes_that_are_neither_json_nor_utf_8_are_not_utf_8: case(b"\xff\xfe{\x00}\x00", Code::NotUtf8);

    a_record_cut_after_a_value_is_truncated: case(r#"{"id":"a-2","user_id":"u-2""#, Code::Truncated);
    a_record_cut_in_a_key_is_truncated: case(r#"{"id":"a-2","user_i"#, Code::Truncated);
    a_record_cut_in_a_string_is_truncated: case(r#"{"id":"a-"#, Code::Truncated);
    a_record_cut_in_an_escape_is_truncated: case(r#"{"id":"a\u00"#, Code::Truncated);
    a_record_cut_in_a_surrogate_pair_is_truncated: case(r#"{"id":"\ud83d\"#, Code::Truncated);
    a_record_cut_in_a_number_is_truncated: case(r#"{"score":12"#, Code::Truncated).of("assessments");
    a_record_cut_in_a_literal_is_truncated: case(r#"{"processed":tru"#, Code::Truncated);
    a_record_cut_after_its_brace_is_truncated: case("{", Code::Truncated);
    a_record_cut_in_a_list_is_truncated: case(r#"{"answers":[{"question":"q1"},"#, Code::Truncated).of("assessments");
    a_record_cut_in_its_embedded_document_is_truncated:
        case(r#"{"event_type":"a","client_context":{"custom":{"endpoint":"{\"Id\":\"e"#, Code::Truncated).of("events");
    a_record_of_damaged_gzip_data_is_rejected: case(b"\x1f\x8b\x08\x00 damaged", Code::DamagedGzip);

    a_wrapped_record_that_is_cut_is_truncated: case("eyJldmVudF90eXBlIjoi", Code::Truncated).of("events");

    two_documents_without_a_space_are_two:
        case(format!("{0}{0}", assessment("\"score\":1")), Code::MultipleDocuments).of("assessments");
    two_documents_with_a_space_are_two:
        case(format!("{0} {0}", event("\"attributes\":{}")), Code::MultipleDocuments).of("events");
    a_list_after_the_document_is_a_second_one:
        case(format!("{}[]", user("\"age\":1")), Code::MultipleDocuments).of("users");

    text_after_the_document_is_trailing:
        case(assessment("\"score\":1") + " garbage", Code::TrailingBytes).of("assessments");
    an_extra_brace_is_trailing: case(assessment("\"score\":1") + "}", Code::TrailingBytes).of("assessments");
    a_comma_after_the_document_is_trailing: case(event("\"attributes\":{}") + ",", Code::TrailingBytes).of("events");
    a_nul_after_the_document_is_trailing: case(event("\"attributes\":{}") + "\0", Code::TrailingBytes).of("events");

    a_list_is_not_an_object: case(format!("[{}]", assessment("\"score\":1")), Code::NotAnObject);
    a_string_is_not_an_object: case("\"heartbeat\"", Code::NotAnObject);
    a_number_is_not_an_object: case("-12.5e3", Code::NotAnObject);
    a_literal_is_not_an_object: case("null", Code::NotAnObject);

    a_key_that_occurs_twice_is_rejected:
        case(assessment(r#""score":1,"score":2"#), Code::DuplicateKey).of("assessments").at("/score");
    a_key_that_occurs_twice_with_the_same_value_is_rejected:
        case(assessment(r#""score":1,"score":1"#), Code::DuplicateKey).of("assessments").at("/score");
    a_key_that_occurs_twice_in_two_spellings_is_rejected:
        case(assessment(r#""score":1,"\u0073core":2"#), Code::DuplicateKey).of("assessments").at("/score");
    a_dropped_key_that_occurs_twice_is_rejected:
        case(user(r#""email":"a","email":"b""#), Code::DuplicateKey).of("users").at("/email");
    a_nested_key_that_occurs_twice_is_rejected:
        case(event(r#""client":{"client_id":"a","client_id":"b"}"#), Code::DuplicateKey)
            .of("events").at("/client/client_id");
    a_key_of_a_list_element_that_occurs_twice_is_rejected:
        case(assessment(r#""answers":[{"answer":"A","answer":"B"}]"#), Code::DuplicateKey)
            .of("assessments").at("/answers/answer");
    a_key_of_an_embedded_document_that_occurs_twice_is_rejected:
        case(endpoint(r#""{\"Id\":\"a\",\"Id\":\"b\"}""#), Code::DuplicateKey)
            .of("events").at("/client_context/custom/endpoint/Id");
    a_key_of_a_map_that_occurs_twice_is_rejected:
        case(event(r#""attributes":{"screen":"a","screen":"b"}"#), Code::DuplicateKey).of("events").at("/attributes");
    a_key_of_a_map_that_occurs_twice_in_two_spellings_is_rejected:
        case(event(r#""attributes":{"screen":"a","scr\u0065en":"b"}"#), Code::DuplicateKey)
            .of("events").at("/attributes");
    a_collected_key_that_occurs_twice_is_rejected:
        case(assessment(r#""device":"a","device":"b""#), Code::DuplicateKey).of("assessments");

    a_high_surrogate_alone_is_rejected:
        case(assessment(r#""version":"\ud83d""#), Code::UnpairedSurrogate).of("assessments");
    a_low_surrogate_alone_is_rejected:
        case(assessment(r#""version":"\ude00""#), Code::UnpairedSurrogate).of("assessments");
    a_high_surrogate_before_another_character_is_rejected:
        case(assessment(r#""version":"\uD83D\u0041""#), Code::UnpairedSurrogate).of("assessments");
    surrogates_in_the_wrong_order_are_rejected:
        case(assessment(r#""version":"\ude00\ud83d""#), Code::UnpairedSurrogate).of("assessments");
    a_surrogate_in_an_unread_field_is_rejected:
        case(assessment(r#""unread":"\ud83dx""#), Code::UnpairedSurrogate).of("assessments");
    a_surrogate_in_a_key_is_rejected: case(assessment(r#""\ud83d":1"#), Code::UnpairedSurrogate).of("assessments");

    lists_128_deep_in_a_record_are_too_deep: case(assessment(&nested("[", "]", 128)), Code::TooDeep).of("assessments");
    objects_128_deep_in_a_record_are_too_deep:
        case(assessment(&nested(r#"{"a":"#, "}", 128)), Code::TooDeep).of("assessments");
    a_collected_field_may_be_too_deep:
        case(assessment(&nested("[", "]", 128).replace("unread", "context")), Code::TooDeep).of("assessments");
    a_list_instead_of_a_record_may_be_too_deep: case("[".repeat(100_000), Code::TooDeep);

    a_record_of_one_byte_more_than_the_limit_is_too_large: case(vec![b'x'; RECORD_BYTES_MAX + 1], Code::TooLarge);
    a_well_formed_record_may_be_too_large:
        case(assessment(&format!("\"unread\":\"{}\"", "x".repeat(RECORD_BYTES_MAX))), Code::TooLarge);
    a_record_that_its_source_calls_too_large_is_rejected:
        case(assessment("\"score\":1"), Code::TooLarge).damaged(Damage::TooLarge);
    the_readable_bytes_of_a_damaged_file_are_kept:
        case(&assessment("\"score\":1").as_bytes()[..40], Code::DamagedFile).damaged(Damage::DamagedFile);
    a_damaged_file_may_have_no_readable_bytes: case("", Code::DamagedFile).damaged(Damage::DamagedFile);
    an_aggregate_that_cannot_be_opened_is_kept_whole:
        case(&b"\xF3\x89\x9A\xC2\x0A\x01"[..], Code::BrokenAggregate).damaged(Damage::BrokenAggregate);

    an_embedded_text_that_is_not_json_is_rejected:
        case(endpoint(r#""[object Object]""#), Code::BadEmbeddedJson)
            .of("events").at("/client_context/custom/endpoint");
    an_embedded_document_that_is_cut_is_rejected:
        case(endpoint(r#""{\"Id\":\"e""#), Code::BadEmbeddedJson).of("events").at("/client_context/custom/endpoint");
    an_embedded_document_that_is_a_list_is_rejected:
        case(endpoint(r#""[{}]""#), Code::BadEmbeddedJson).of("events").at("/client_context/custom/endpoint");
    something_after_an_embedded_document_is_rejected:
        case(endpoint(r#""{} x""#), Code::BadEmbeddedJson).of("events").at("/client_context/custom/endpoint");
    a_surrogate_in_an_embedded_document_is_rejected:
        case(endpoint(r#""{\"Id\":\"\\ud83d\"}""#), Code::BadEmbeddedJson)
            .of("events").at("/client_context/custom/endpoint");
    an_embedded_document_that_is_too_deep_is_rejected:
        case(endpoint(&format!(r#""{{\"unread\":{}{}}}""#, "[".repeat(200), "]".repeat(200))), Code::BadEmbeddedJson)
            .of("events").at("/client_context/custom/endpoint");

    an_empty_object_belongs_to_no_dataset: case("{}", Code::UnknownDataset);
    a_record_of_another_system_belongs_to_no_dataset: case(r#"{"metric":"cpu","value":12}"#, Code::UnknownDataset);
    a_record_whose_event_type_is_nested_belongs_to_no_dataset:
        case(r#"{"a":{"event_type":"x","score":1}}"#, Code::UnknownDataset);

    an_assessment_without_its_id_is_rejected:
        case(assessment_without("id"), Code::MissingField).of("assessments").at("/id");
    an_assessment_without_its_user_is_rejected:
        case(assessment_without("user_id"), Code::MissingField).of("assessments").at("/user_id");
    an_assessment_without_its_type_is_rejected:
        case(assessment_without("type"), Code::MissingField).of("assessments").at("/type");
    an_assessment_without_its_time_is_rejected:
        case(assessment_without("timestamp"), Code::MissingField).of("assessments").at("/timestamp");
    null_for_a_required_field_is_rejected:
        case(assessment(r#""id":null"#), Code::MissingField).of("assessments").at("/id");
    null_for_the_event_time_is_rejected:
        case(assessment(r#""timestamp":null"#), Code::MissingField).of("assessments").at("/timestamp");
    an_event_without_its_type_is_rejected:
        case(r#"{"event_timestamp":1736764200123}"#, Code::MissingField).of("events").at("/event_type");
    an_event_without_its_time_is_rejected:
        case(r#"{"event_type":"a"}"#, Code::MissingField).of("events").at("/event_timestamp");
    a_user_without_its_id_is_rejected:
        case(r#"{"signed_up_at":"2024-01-13T10:30:00Z","updated_at":"2025-01-13T10:30:00Z"}"#, Code::MissingField)
            .of("users").at("/user_id");

    an_object_for_a_number_is_rejected:
        case(assessment(r#""score":{"value":1}"#), Code::WrongType).of("assessments").at("/score");
    a_list_for_a_number_is_rejected: case(assessment(r#""score":[1]"#), Code::WrongType).of("assessments").at("/score");
    a_boolean_for_a_number_is_rejected:
        case(assessment(r#""score":true"#), Code::WrongType).of("assessments").at("/score");
    a_string_for_a_number_is_rejected:
        case(assessment(r#""score":"73.5""#), Code::WrongType).of("assessments").at("/score");
    a_string_for_a_whole_number_is_rejected:
        case(assessment(r#""duration":"123""#), Code::WrongType).of("assessments").at("/duration");
    a_fraction_for_a_whole_number_is_rejected:
        case(assessment(r#""duration":12.5"#), Code::WrongType).of("assessments").at("/duration");
    a_fraction_for_an_age_is_rejected:
        case(assessment(r#""user_age":33.5"#), Code::WrongType).of("assessments").at("/user_age");
    a_number_for_a_string_is_rejected:
        case(assessment(r#""version":17"#), Code::WrongType).of("assessments").at("/version");
    a_boolean_for_a_string_that_may_be_a_number_is_rejected:
        case(assessment(r#""id":true"#), Code::WrongType).of("assessments").at("/id");
    a_list_for_a_string_is_rejected:
        case(assessment(r#""type":["skills"]"#), Code::WrongType).of("assessments").at("/type");
    a_string_for_a_boolean_is_rejected:
        case(assessment(r#""processed":"true""#), Code::WrongType).of("assessments").at("/processed");
    a_number_for_a_boolean_is_rejected:
        case(user(r#""marketing_opt_in":1"#), Code::WrongType).of("users").at("/marketing_opt_in");
    an_object_for_a_list_is_rejected:
        case(assessment(r#""answers":{}"#), Code::WrongType).of("assessments").at("/answers");
    a_string_in_a_list_of_objects_is_rejected:
        case(assessment(r#""answers":[{},"A"]"#), Code::WrongType).of("assessments").at("/answers");
    a_list_in_a_list_of_objects_is_rejected:
        case(assessment(r#""answers":[{},null,[]]"#), Code::WrongType).of("assessments").at("/answers");
    a_number_in_a_list_of_strings_is_rejected: case(user(r#""tags":["a",2]"#), Code::WrongType).of("users").at("/tags");
    a_wrong_value_in_a_list_element_is_rejected:
        case(assessment(r#""answers":[{"milliseconds":"12"}]"#), Code::WrongType)
            .of("assessments").at("/answers/*/milliseconds");
    a_string_for_a_map_is_rejected: case(user(r#""attributes":"app""#), Code::WrongType).of("users").at("/attributes");
    a_list_for_a_map_is_rejected: case(user(r#""attributes":[]"#), Code::WrongType).of("users").at("/attributes");
    a_number_for_a_value_of_a_map_of_strings_is_rejected_with_its_key:
        case(user(r#""attributes":{"industry":1}"#), Code::WrongType).of("users").at("/attributes/industry");
    a_string_for_epoch_milliseconds_is_rejected:
        case(r#"{"event_type":"a","event_timestamp":"1736764200123"}"#, Code::WrongType)
            .of("events").at("/event_timestamp");
    a_number_for_an_rfc_3339_time_is_rejected:
        case(assessment(r#""timestamp":1736764200"#), Code::WrongType).of("assessments").at("/timestamp");

    a_score_above_100_is_rejected: case(assessment(r#""score":100.1"#), Code::OutOfRange).of("assessments").at("/score");
    a_score_below_0_is_rejected: case(assessment(r#""score":-0.1"#), Code::OutOfRange).of("assessments").at("/score");
    a_negative_duration_is_rejected:
        case(assessment(r#""duration":-1"#), Code::OutOfRange).of("assessments").at("/duration");
    a_duration_beyond_its_type_is_rejected:
        case(assessment(r#""duration":2147483648"#), Code::OutOfRange).of("assessments").at("/duration");
    a_duration_beyond_64_bits_is_rejected:
        case(assessment(r#""duration":92233720368547758080"#), Code::OutOfRange).of("assessments").at("/duration");
    a_duration_with_a_large_exponent_is_rejected:
        case(assessment(r#""duration":1e400"#), Code::OutOfRange).of("assessments").at("/duration");
    an_age_above_130_is_rejected:
        case(assessment(r#""user_age":131"#), Code::OutOfRange).of("assessments").at("/user_age");
    a_negative_age_is_rejected: case(user(r#""age":-1"#), Code::OutOfRange).of("users").at("/age");
    an_answer_that_took_negative_time_is_rejected:
        case(assessment(r#""answers":[{"milliseconds":5},{"milliseconds":-5}]"#), Code::OutOfRange)
            .of("assessments").at("/answers/*/milliseconds");
    an_event_time_beyond_64_bits_is_rejected:
        case(r#"{"event_type":"a","event_timestamp":17367642001230000000000}"#, Code::OutOfRange)
            .of("events").at("/event_timestamp");
    an_arrival_time_beyond_the_year_9999_is_rejected:
        case(event(r#""arrival_timestamp":253402300800000"#), Code::OutOfRange).of("events").at("/arrival_timestamp");

    a_score_beyond_a_double_is_rejected:
        case(assessment(r#""score":1e999"#), Code::NotFinite).of("assessments").at("/score");
    a_score_below_every_double_is_rejected:
        case(assessment(r#""score":-1.5E+400"#), Code::NotFinite).of("assessments").at("/score");

    an_empty_identifier_is_rejected:
        case(assessment(r#""id":"""#), Code::ConstraintViolated).of("assessments").at("/id");
    an_empty_user_is_rejected:
        case(assessment(r#""user_id":"""#), Code::ConstraintViolated).of("assessments").at("/user_id");
    an_empty_type_is_rejected: case(assessment(r#""type":"""#), Code::ConstraintViolated).of("assessments").at("/type");
    an_empty_event_type_is_rejected:
        case(r#"{"event_type":"","event_timestamp":1736764200123}"#, Code::ConstraintViolated)
            .of("events").at("/event_type");
    a_string_of_too_many_characters_is_rejected:
        case(assessment(&format!(r#""type":"{}""#, "é".repeat(65))), Code::ConstraintViolated)
            .of("assessments").at("/type");

    a_word_for_a_time_is_rejected:
        case(assessment(r#""timestamp":"yesterday""#), Code::BadTimestamp).of("assessments").at("/timestamp");
    a_time_without_an_offset_is_rejected:
        case(assessment(r#""timestamp":"2025-01-13T10:30:00""#), Code::BadTimestamp).of("assessments").at("/timestamp");
    a_day_that_does_not_exist_is_rejected:
        case(assessment(r#""timestamp":"2025-02-30T10:00:00Z""#), Code::BadTimestamp)
            .of("assessments").at("/timestamp");
    an_empty_time_is_rejected:
        case(assessment(r#""timestamp":"""#), Code::BadTimestamp).of("assessments").at("/timestamp");
    a_malformed_time_in_another_column_is_rejected:
        case(user(r#""signed_up_at":"13/01/2025""#), Code::BadTimestamp).of("users").at("/signed_up_at");

    an_event_before_2010_is_rejected:
        case(assessment(r#""timestamp":"2009-12-31T23:59:59.999Z""#), Code::EventTimeOutOfBounds)
            .of("assessments").at("/timestamp");
    seconds_instead_of_milliseconds_are_rejected:
        case(r#"{"event_type":"a","event_timestamp":1736764200}"#, Code::EventTimeOutOfBounds)
            .of("events").at("/event_timestamp");
    an_event_more_than_a_day_after_its_arrival_is_rejected:
        case(assessment(r#""timestamp":"2025-02-02T00:00:00.001Z""#), Code::EventTimeOutOfBounds)
            .of("assessments").at("/timestamp");

    a_country_that_is_not_in_the_table_is_rejected:
        case(r#"{"country":"XX","at":1736764200123}"#, Code::LookupMissing)
            .among(World::Places).of("places").at("/country");

    a_partition_whose_path_is_too_long_is_rejected:
        case(assessment(&format!(r#""type":"{}""#, "😀".repeat(64))), Code::PartitionTooLong)
            .of("assessments").at("/type");
}

/// Checks the result for a bad record among good ones, as a line and as a record with its own sequence number.
fn check(case: &Case) {
    if case.damage.is_none() {
        check_line(case);
    }
    check_frame(case);
}

fn check_line(case: &Case) {
    let neighbours = ndjson(&case.world.neighbours());
    let all = [neighbours.as_slice(), &case.record, b"\n", &neighbours].concat();
    let mut run = case.world.setup().run();
    run.lines(&all);
    let count = 2 * case.world.neighbours().len() as u64;
    assert_eq!((run.records, run.by_code.get(&case.code)), (count + 1, Some(&1)));
    assert_eq!(run.by_code.len(), 1, "{:?}", run.by_code);
    let outcome = run.take();

    let sequence = (BASE + neighbours.len() as u64).to_string();
    check_dead_letter(case, &outcome, &sequence, 0, None);
    assert_eq!(outcome.row_count() as u64, count, "the neighbours are rows");
    assert_eq!(outcome.raw.len() as u64, count + 1, "every record lands raw");

    // The neighbours alone, with the same sequence numbers, give exactly the same files.
    let mut alone = case.world.setup().run();
    for base in [BASE, BASE + (neighbours.len() + case.record.len() + 1) as u64] {
        let framing = Framing::Lines { base };
        alone.push(Chunk::new(STREAM.into(), SHARD.into(), ARRIVAL_MS, neighbours.clone(), framing));
    }
    let alone = alone.take();
    for (file, expected) in outcome.files.iter().zip(&alone.files) {
        assert_eq!((&file.path, &file.rows), (&expected.path, &expected.rows));
        assert_eq!(file.bytes, expected.bytes, "nothing of the bad record is in {}", file.path);
    }
    assert_eq!(outcome.files.len(), alone.files.len());
}

fn check_frame(case: &Case) {
    let neighbours = case.world.neighbours();
    let numbers: Vec<String> = (0..=2 * neighbours.len()).map(|n| format!("4959233{n:049}")).collect();
    let bad = neighbours.len();
    let frame = |n: usize| match n.cmp(&bad) {
        std::cmp::Ordering::Less => TestFrame::new(neighbours[n], &numbers[n]),
        std::cmp::Ordering::Greater => TestFrame::new(neighbours[n - bad - 1], &numbers[n]),
        std::cmp::Ordering::Equal => TestFrame {
            damage: case.damage,
            sub_sequence: 3,
            partition_key: Some("a \"key\""),
            ..TestFrame::new(&case.record, &numbers[n])
        },
    };
    let frames: Vec<TestFrame<'_>> = (0..numbers.len()).map(frame).collect();
    let outcome = case.world.setup().run().frames(&frames).take();
    check_dead_letter(case, &outcome, &numbers[bad], 3, Some("a \"key\""));

    let good: Vec<TestFrame<'_>> = (0..numbers.len()).filter(|n| *n != bad).map(frame).collect();
    let alone = case.world.setup().run().frames(&good).take();
    assert_eq!(outcome.row_count(), 2 * neighbours.len());
    for (file, expected) in outcome.files.iter().zip(&alone.files) {
        assert_eq!((&file.path, &file.bytes), (&expected.path, &expected.bytes));
    }
}

fn check_dead_letter(case: &Case, outcome: &Outcome, sequence: &str, sub_sequence: u64, partition_key: Option<&str>) {
    let dead_letter = outcome.dead_letter();
    assert_eq!(dead_letter.code, case.code, "{}", dead_letter.about);
    assert_eq!(dead_letter.stage, case.code.stage().as_str());
    assert_eq!(
        (dead_letter.dataset.as_deref(), dead_letter.field.as_deref()),
        (case.dataset, case.field),
        "{}",
        dead_letter.about
    );
    assert_eq!(dead_letter.raw, case.record, "the dead letter holds the bytes as received");
    assert_eq!((dead_letter.sequence.as_str(), dead_letter.sub_sequence), (sequence, sub_sequence));
    assert_eq!(dead_letter.partition_key, partition_key.map(pseudonym));
    assert_eq!(dead_letter.arrival_ms, ARRIVAL_MS);
    assert_eq!(dead_letter.folder, format!("error/reason={}/year=2025/month=02/day=01", case.code));
}
