//! Records of the `users` dataset: the whole profile of a user after each change, about 0.4 KB.
//!
//! All properties except `last_ip`, the tags, the opt-in and `updated_at` belong to the person and never change. `user_id`,
//! `email`, `signed_up_at` and `updated_at` are always present; some others are null or absent in 2 % of the records. The
//! event time is `updated_at`.

use super::draft::{Draft, RecordContext};
use super::write::{Date, Text, Utc, put};

const TAGS: [&str; 6] = ["beta", "newsletter", "trial", "vip", "reseller", "student"];
const UNUSUAL_TAGS: [&str; 4] = ["naïve", "a \"friend\"", "back\\slash", "お得意様"];
const INDUSTRIES: [&str; 6] = ["software", "retail", "health", "education", "manufacturing", "public sector"];
const UNUSUAL_INDUSTRIES: [&str; 3] = ["R&D / \"stealth\"", "Gesundheitswesen & Pflege für Ältere", "教育"];
const TEAM_SIZES: [&str; 5] = ["1", "2-10", "11-50", "51-200", "201+"];

/// Appends the members of one record, and returns its event time.
pub(super) fn write(draft: &mut Draft<'_>, context: &mut RecordContext<'_>) -> i64 {
    let RecordContext { rng, person, at_ms, .. } = context;
    put!(draft.member("user_id"); "\"", person.id(), "\"");
    put!(draft.member("email"); "\"", person.email(), "\"");
    put!(draft.member("name"); "\"", person.name(), "\"");
    match rng.below(100) {
        0 => {}
        1 => put!(draft.member("phone"); "null"),
        _ => put!(draft.member("phone"); "\"", person.phone(), "\""),
    }
    if !rng.chance(200) {
        put!(draft.member("date_of_birth"); "\"", Date(person.born_day), "\"");
        put!(draft.member("age"); person.age);
    }
    put!(draft.member("region"); "\"", person.home.region, "\"");
    put!(draft.member("locale"); "\"", person.locale(), "\"");
    put!(draft.member("plan"); "\"", person.plan, "\"");
    put!(draft.member("signed_up_at"); "\"", Utc(person.signed_up_ms), "\"");
    put!(draft.member("updated_at"); "\"", Utc(*at_ms), "\"");
    match rng.below(100) {
        0 => {}
        1 => put!(draft.member("last_ip"); "null"),
        _ => put!(draft.member("last_ip"); "\"", person.ip(rng), "\""),
    }
    put!(draft.member("marketing_opt_in"); if rng.chance(4_000) { "true" } else { "false" });
    let out = draft.member("tags");
    out.push(b'[');
    for index in 0..rng.skewed(5) {
        put!(out; if index == 0 { "" } else { "," }, Text(rng.text(&TAGS, &UNUSUAL_TAGS)));
    }
    out.push(b']');
    let out = draft.member("attributes");
    if rng.chance(500) {
        put!(out; "{}");
    } else {
        let industry = Text(rng.text(&INDUSTRIES, &UNUSUAL_INDUSTRIES));
        put!(out; r#"{"team_size":""#, rng.pick(&TEAM_SIZES), r#"","industry":"#, industry, "}");
    }
    *at_ms
}
