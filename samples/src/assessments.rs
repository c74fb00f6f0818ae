//! Records of the `assessments` dataset: one finished assessment each, about 1 KB.
//!
//! The fields are `id`, `user_id`, `type`, `score`, `duration`, `timestamp`, `user_age`, `user_region`, `answers`, `version` and
//! `processed`, and sometimes further ones that no definition knows. `id`, `user_id`, `type`, `timestamp` and `answers` are
//! always present; `score`, `duration`, `user_age` and `user_region` are each absent or null in 1.5 % of the records. The event
//! time is `timestamp`.

use super::draft::{Draft, RecordContext};
use super::random::Rng;
use super::texts::{COMMENTS, UNUSUAL_COMMENTS};
use super::write::{East, Exponent, Fixed, Padded, Piece, Seconds, Text, Utc, Uuid, put};

/// The values of `type`, frequent ones first.
pub(super) const TYPES: [&str; 6] = ["personality", "skills", "cognitive", "values", "leadership", "language"];

const PLAIN_ANSWERS: [&str; 9] = ["1", "2", "3", "4", "5", "A", "B", "C", "D"];
const UNUSUAL_ANSWERS: [&str; 6] =
    ["prefer not to say", "it \"depends\"", "c\\d", "weiß nicht", "わからない 🤷", "none of these/all of these"];

/// Appends the members of one record, and returns its event time, which some producers write in whole seconds.
pub(super) fn write(draft: &mut Draft<'_>, context: &mut RecordContext<'_>) -> i64 {
    let RecordContext { rng, person, at_ms, .. } = context;
    put!(draft.member("id"); "\"", Uuid(rng.bits(), rng.bits()), "\"");
    put!(draft.member("user_id"); "\"", person.id(), "\"");
    put!(draft.member("type"); "\"", rng.pick_skewed(&TYPES), "\"");
    if let Some(out) = optional(draft, "score", rng) {
        score(out, rng);
    }
    if let Some(out) = optional(draft, "duration", rng) {
        put!(out; 45 + rng.skewed(5_400));
    }
    let at_ms = timestamp(draft.member("timestamp"), *at_ms, rng);
    if let Some(out) = optional(draft, "user_age", rng) {
        put!(out; person.age);
    }
    if let Some(out) = optional(draft, "user_region", rng) {
        put!(out; "\"", person.home.region, "\"");
    }
    answers(draft.member("answers"), rng);
    put!(draft.member("version"); if rng.chance(300) { "\"1.1\"" } else { "\"1.0\"" });
    put!(draft.member("processed"); "false");
    if rng.chance(3_000) {
        put!(draft.member("device"); rng.pick(&["\"ios\"", "\"android\"", "\"web\""]));
    }
    if rng.chance(3_000) {
        put!(draft.member("language"); "\"", person.home.language, "\"");
    }
    if rng.chance(1_500) {
        let comment = if rng.chance(3_000) { rng.pick(&UNUSUAL_COMMENTS) } else { rng.pick(&COMMENTS) };
        put!(draft.member("comment"); Text(comment));
    }
    if rng.chance(500) {
        put!(draft.member("email"); "\"", person.email(), "\"");
    }
    if rng.chance(500) {
        let out = draft.member("context");
        put!(out; r#"{"experiment":{"name":"intro-video","arm":""#, rng.pick(&["A", "B"]));
        put!(out; r#""},"screen":["#, rng.between(360, 2_561), ",", rng.between(640, 1_601), r#"],"retry":null}"#);
    }
    at_ms
}

/// The buffer for a member's value. `None` if the member is absent or null in this record.
fn optional<'d>(draft: &'d mut Draft<'_>, name: &'static str, rng: &mut Rng) -> Option<&'d mut Vec<u8>> {
    match rng.below(1000) {
        0..=7 => None,
        8..=14 => {
            put!(draft.member(name); "null");
            None
        }
        _ => Some(draft.member(name)),
    }
}

/// 0 to 100 with one decimal, most in the middle. Whole numbers may be integers, and 1 % have an exponent.
fn score(out: &mut Vec<u8>, rng: &mut Rng) {
    let tenths = rng.below(501) + rng.below(501);
    match rng.below(100) {
        0 => put!(out; Exponent(tenths.into(), 1)),
        1..50 if tenths.is_multiple_of(10) => put!(out; tenths / 10),
        _ => put!(out; Fixed(tenths.into(), 1)),
    }
}

/// RFC 3339 in one of three forms. Returns the instant that was written.
fn timestamp(out: &mut Vec<u8>, at_ms: i64, rng: &mut Rng) -> i64 {
    match rng.below(100) {
        0..2 => put!(out; "\"", East(at_ms, 1 + rng.below(9)), "\""),
        2..4 => {
            put!(out; "\"", Seconds(at_ms), "\"");
            return at_ms - at_ms.rem_euclid(1000);
        }
        _ => put!(out; "\"", Utc(at_ms), "\""),
    }
    at_ms
}

/// 10 to 30 answers, mostly less than 18, to questions with increasing numbers.
fn answers(out: &mut Vec<u8>, rng: &mut Rng) {
    let further = if rng.chance(2_500) { 21 } else { 8 };
    let count = 10 + rng.skewed(further);
    let mut question = rng.below(20);
    for index in 0..count {
        question += 1 + rng.below(3);
        put!(out; if index == 0 { "[" } else { "," }, r#"{"question":"q"#, Padded(question, 3), r#"","answer":"#);
        if rng.chance(50) {
            Text(rng.pick(&UNUSUAL_ANSWERS)).put(out);
        } else {
            put!(out; "\"", rng.pick(&PLAIN_ANSWERS), "\"");
        }
        put!(out; r#","milliseconds":"#, 400 + rng.skewed(30_000), "}");
    }
    out.push(b']');
}
