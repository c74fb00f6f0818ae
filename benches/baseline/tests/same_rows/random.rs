//! Random records: of a definition that uses every feature, and damaged sample records. If a record has several faults,
//! both sides must report the same one.
//!
//! The environment variable `BASELINE_SEEDS=100..200` chooses other seeds, or more of them.

use std::ops::Range;

use pipeline::dataset::{DefinitionText, shipped};
use samples::{Generator, Options};

use crate::compare::same;
use crate::product::Feed;

/// The seeds to try: `few`, or those of the environment.
fn seeds(few: Range<u64>) -> Range<u64> {
    let asked = std::env::var("BASELINE_SEEDS").ok();
    let asked = asked.as_deref().and_then(|text| text.split_once(".."));
    asked.map_or(few, |(from, to)| from.parse().unwrap()..to.parse().unwrap())
}

/// A pseudo-random sequence: SplitMix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ bits >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.bits() % bound as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.below(from.len())]
    }
}

impl Random {
    /// Picks one of them; the last one, which is bad, rarely.
    fn seldom_last<'t>(&mut self, from: &[&'t str]) -> &'t str {
        let bad = self.one_in(20);
        if bad { from[from.len() - 1] } else { self.pick(&from[..from.len() - 1]) }
    }
}

const WHOLE: [&str; 14] = [
    "0",
    "-0",
    "7",
    "-3",
    "12.0",
    "1e2",
    "15e-1",
    "1.5e1",
    "2147483647",
    "-2147483649",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "9.223372036854775807e18",
];
const REAL: [&str; 12] = [
    "0",
    "-0",
    "-0.0",
    "0.5",
    "1.5",
    "-2.5e-3",
    "1E5",
    "0.30000000000000004",
    "123456789012345678901234567890",
    "1e23",
    "5e-324",
    "1e308",
];
/// The last ones have too many digits.
const DECIMAL: [&str; 16] = [
    "0",
    "-0",
    "0.5",
    "-12.34",
    "1.2e3",
    "1234E-2",
    "99999.9999",
    "-99999.9999",
    "\"0.30\"",
    "\"-1e2\"",
    "\"100000.00000\"",
    "9999999999.00",
    "9999999999.01",
    "-9999999999.99",
    "0.001",
    "\"1,5\"",
];
const TEXT: [&str; 12] = [
    r#""""#,
    r#""a""#,
    r#""abc""#,
    r#""é東""#,
    r#""a\u0062c""#,
    r#""\ud83d\ude00""#,
    r#""x\ny""#,
    r#""b/c""#,
    r#""\/""#,
    r#""long enough to be rejected""#,
    r#""12""#,
    r#""true""#,
];
const ODD: [&str; 14] = [
    "null",
    "null",
    "null",
    "true",
    "false",
    "[]",
    "{}",
    "[null]",
    r#"{"a":1}"#,
    "1e999",
    "9223372036854775808",
    "12.5",
    r#""x""#,
    "[[1]]",
];
const DATES: [&str; 5] =
    [r#""2025-01-13""#, r#""2024-02-29""#, r#""1969-12-31""#, r#""2025-\u0030\u0031-01""#, r#""2025-1-1""#];
const INSTANTS: [&str; 5] = [
    r#""2025-01-13T10:30:00.5Z""#,
    r#""1969-12-31T23:59:59.999+00:01""#,
    r#""2024-06-30T23:59:60Z""#,
    r#""2025-01-13 10:30:00\u005a""#,
    r#""soon""#,
];
const MILLIS: [&str; 5] = ["1736764200123", "-1", "0", "1736764200123.0", "253402300800000"];
const SECONDS: [&str; 5] = ["1736764200.123", "-0.0005", "1736764200", "1.7367642001235e9", "253402300800"];

/// The last one is outside of the bounds of its column, or not a time.
const LOCALS: [&str; 12] = [
    r#""2025-01-13T10:30:00""#,
    r#""2025-01-13 10:30""#,
    r#""2025-01-13T23:30:00.5-0500""#,
    r#""2025-01-13t00:30:00,123456789+02""#,
    r#""2025-01-13 10:30:00 UTC""#,
    r#""2025-01-13 10:30:00 +0000""#,
    r#""2025-01-13T10:30:00+01:00[Europe\/Berlin]""#,
    r#""2025-07-08T20:29:59.999999""#,
    r#""2025-07-08T20:30:00""#,
    r#""1999-12-31T20:30:00""#,
    r#""1999-12-31T20:29:59""#,
    r#""2025-01-13T24:00:00""#,
];
const LOGGED: [&str; 6] = [
    r#""13/Jan/2025:11:30:00 +0100""#,
    r#""3/feb/2024:1:30:60 Z""#,
    r#""31/Dec/9999:23:59:59 -0100""#,
    r#""01/Jan/0001:00:00:00 +0100""#,
    r#""30/Feb/2025:00:00:00 Z""#,
    r#""13/Jan/2025""#,
];
const MICROS: [&str; 8] = [
    "1736764200123456",
    "\"1736764200123456\"",
    "-1",
    "253402300799999999",
    "253402300800000000",
    "-62135596800000001",
    "-62135596800000000",
    "9223372036854775807",
];

/// A member of an object: the text of its name, and a function that makes its value.
type Member<'m> = (&'m str, &'m dyn Fn(&mut Random) -> String);

/// An object of some of these members, in random order.
fn object(random: &mut Random, members: &[Member<'_>], always: usize) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (n, (key, value)) in members.iter().enumerate() {
        if n < always || random.one_in(3) {
            let value = if random.one_in(60) { random.pick(&ODD).to_owned() } else { value(random) };
            let space = random.pick(&["", "", "", " ", "\t "]);
            parts.push(format!("{space}\"{key}\"{space}:{space}{value}{space}"));
            if random.one_in(400) && !key.starts_with("free") {
                parts.push(format!("\"{key}\":null"));
            }
        }
    }
    for last in (1..parts.len()).rev() {
        if random.one_in(3) {
            parts.swap(last, random.below(last + 1));
        }
    }
    format!("{{{}}}", parts.join(","))
}

fn list(random: &mut Random, element: &dyn Fn(&mut Random) -> String) -> String {
    let count = random.below(5);
    let elements: Vec<String> = (0..count).map(|_| element(random)).collect();
    format!("[{}]", elements.join(random.pick(&[",", " , "])))
}

fn any_json(random: &mut Random) -> String {
    match random.below(8) {
        0 => list(random, &any_json),
        1 => format!("{{{}:{},\"é\" : {}}}", random.pick(&TEXT), any_json(random), random.pick(&WHOLE)),
        2 => random.pick(&REAL).to_owned(),
        3 => random.pick(&["true", "false", "null"]).to_owned(),
        _ => random.pick(&TEXT).to_owned(),
    }
}

fn record(random: &mut Random) -> String {
    let whole = |random: &mut Random| random.pick(&WHOLE).to_owned();
    let small = |random: &mut Random| random.pick(&WHOLE[..9]).to_owned();
    let text_or_small = |random: &mut Random| random.pick(&["7", "\"7\"", "\"-12.0\"", "\"1e2\"", "\"-0\""]).to_owned();
    let real = |random: &mut Random| random.pick(&REAL).to_owned();
    let text = |random: &mut Random| random.pick(&TEXT).to_owned();
    let short = |random: &mut Random| random.pick(&TEXT[..4]).to_owned();
    let flag = |random: &mut Random| random.pick(&["true", "false", "\"true\"", "\"false\""]).to_owned();
    let plain_flag = |random: &mut Random| random.pick(&["true", "false", "null"]).to_owned();
    let date = |random: &mut Random| random.seldom_last(&DATES).to_owned();
    let instant = |random: &mut Random| random.seldom_last(&INSTANTS).to_owned();
    let millis = |random: &mut Random| random.seldom_last(&MILLIS).to_owned();
    let seconds = |random: &mut Random| random.seldom_last(&SECONDS).to_owned();
    let ratio = |random: &mut Random| random.pick(&["0", "0.5", "1e-3", "-0.0"]).to_owned();
    let id = |random: &mut Random| random.pick(&["\"a\"", "\"b\"", "\"é\""]).to_owned();
    let wrapped_object = |random: &mut Random| {
        let flag_lists = |random: &mut Random| list(random, &plain_flag);
        let pair = |random: &mut Random| object(random, &[("a", &text), ("b", &plain_flag)], 0);
        let element = |random: &mut Random| object(random, &[("n", &whole), ("other", &any_json)], 0);
        let objects = |random: &mut Random| list(random, &element);
        let ints = |random: &mut Random| list(random, &whole);
        let map = |random: &mut Random| object(random, &[("k", &text), ("é", &text), ("q\\\"", &text)], 0);
        object(
            random,
            &[
                ("text", &text),
                ("pair", &pair),
                ("list", &ints),
                ("objects", &objects),
                ("map", &map),
                ("tags", &|random| object(random, &[("k", &flag_lists), ("l", &flag_lists)], 0)),
                ("u", &any_json),
            ],
            0,
        )
    };
    let wrapped = |random: &mut Random| match random.below(3) {
        0 => wrapped_object(random),
        1 => serde_json::Value::from(wrapped_object(random)).to_string(),
        _ => random.pick(&["\"\"", "null", "{}", "\"{}\""]).to_owned(),
    };
    let item = |random: &mut Random| {
        let more = |random: &mut Random| object(random, &[("deep", &real), ("else", &any_json)], 0);
        object(
            random,
            &[("id", &id), ("more", &more), ("when", &date), ("who", &text), ("on", &flag), ("hidden", &any_json)],
            1,
        )
    };
    let nested = |random: &mut Random| {
        let below = |random: &mut Random| object(random, &[("~c", &whole), ("d", &any_json)], 0);
        object(random, &[("text", &text), ("a/b", &below), ("mark", &any_json), ("free", &any_json)], 0)
    };
    let point = |random: &mut Random| {
        let names = |random: &mut Random| object(random, &[("first", &text)], 0);
        object(random, &[("x", &real), ("y", &small), ("names", &names), ("secret", &any_json)], 1)
    };
    let words = |random: &mut Random| {
        object(random, &[("x", &short), ("y_1", &short), ("\\u00e9", &short), ("denied", &any_json), ("y_", &short)], 0)
    };
    let counts = |random: &mut Random| {
        object(random, &[("", &whole), ("a b", &whole), ("known", &small), ("secret", &any_json), ("\\n", &whole)], 0)
    };
    let ratios =
        |random: &mut Random| object(random, &[("a", &ratio), ("b", &ratio), ("ab", &ratio), ("c", &any_json)], 0);
    let switches = |random: &mut Random| object(random, &[("on", &plain_flag), ("off", &plain_flag)], 0);
    let price = |random: &mut Random| random.pick(&DECIMAL[..10]).to_owned();
    let any_price = |random: &mut Random| {
        let from = if random.one_in(9) { &DECIMAL[..] } else { &DECIMAL[..12] };
        random.pick(from).to_owned()
    };
    let any = |random: &mut Random| {
        let from = random.below(4);
        let value = match from {
            0 => random.pick(&TEXT),
            1 => random.pick(&REAL),
            2 => random.pick(&WHOLE),
            _ => random.pick(&ODD),
        };
        value.to_owned()
    };
    let local = |random: &mut Random| {
        if random.one_in(6) { random.pick(&LOCALS[8..]).to_owned() } else { random.pick(&LOCALS[..8]).to_owned() }
    };
    let logged = |random: &mut Random| random.pick(&LOGGED).to_owned();
    let micros = |random: &mut Random| random.pick(&MICROS).to_owned();
    let dates = |random: &mut Random| {
        list(random, &|random| random.pick(&[DATES[0], DATES[2], DATES[4], "null", "7", r#""2025-07-08""#]).to_owned())
    };
    let loose = |random: &mut Random| {
        let inside = |random: &mut Random| object(random, &[("b", &any)], 0);
        if random.one_in(3) { any(random) } else { object(random, &[("a", &any), ("in", &inside), ("x", &any)], 0) }
    };
    let strict_loose = |random: &mut Random| {
        let inside = |random: &mut Random| object(random, &[("b", &short)], 0);
        if random.one_in(3) { any(random) } else { object(random, &[("a", &any), ("in", &inside), ("x", &any)], 0) }
    };
    let lists = |random: &mut Random| list(random, &short);
    let number_lists = |random: &mut Random| if random.one_in(3) { any(random) } else { list(random, &any) };
    let members: [Member<'_>; 55] = [
        ("what", &|random| random.pick(&["\"everything\"", r#""alles \"\u00e9\"""#]).to_owned()),
        ("at", &|random| {
            random
                .pick(&[
                    "1736764200.123",
                    "1736764200",
                    "-1.5",
                    "0",
                    "1.7e9",
                    "1767225600",
                    "\"1736764200.5\"",
                    "1767139199.5",
                ])
                .to_owned()
        }),
        ("kind", &|random| random.pick(&[r#""a""#, r#""b\/c""#, r#""d é""#, r#""\u0061""#]).to_owned()),
        ("seen_at", &|_| r#""2026-01-02T00:00:00+01:00""#.to_owned()),
        ("place", &|random| random.pick(&[r#""de-BY""#, r#""emea""#, r#""S\u00fcd""#, r#"" ""#, r#""x""#]).to_owned()),
        ("code", &|random| random.pick(&[r#""abc""#, r#""ééé""#, r#""a\u0062c""#]).to_owned()),
        ("small", &text_or_small),
        ("bounded", &|random| random.pick(&["0", "-5", "1e6", "1000000"]).to_owned()),
        ("large", &whole),
        ("real", &real),
        ("part", &|random| random.pick(&["0", "-0.5", "1.5", "15e-1", "0.1"]).to_owned()),
        ("price", &any_price),
        ("price_text", &|random| random.pick(&["999999999999999999", "\"-9007199254740993\"", "1e17"]).to_owned()),
        ("prices", &|random| list(random, &price)),
        ("flag", &flag),
        ("date", &date),
        ("instant", &millis),
        ("seconds", &seconds),
        ("written", &instant),
        ("json", &any_json),
        ("nested", &nested),
        ("who", &text),
        ("years", &|random| random.pick(&["0", "1", "2", "17", "18.0", "64", "65", "6e2"]).to_owned()),
        ("host", &|random| random.pick(&[r#""1.2.3.4""#, r#""::1""#, r#""x""#, r#"" 1.2.3.4\n""#]).to_owned()),
        ("mail", &|random| {
            let mails = [
                r#""A@B.example""#,
                r#"" a@b.\u00c4\n""#,
                r#""a@b""#,
                r#""a b@c.d""#,
                r#""@c.d""#,
                r#""a@-b.c""#,
                r#""x@@b.c-d""#,
            ];
            random.pick(&mails).to_owned()
        }),
        ("texts", &|random| list(random, &short)),
        ("ints", &|random| list(random, &whole)),
        ("smalls", &|random| list(random, &|random| random.pick(&["7", "\"7\"", "null", "0"]).to_owned())),
        ("reals", &|random| list(random, &real)),
        ("flags", &|random| list(random, &plain_flag)),
        ("instants", &|random| list(random, &instant)),
        ("whos", &|random| list(random, &text)),
        ("words", &words),
        ("counts", &counts),
        ("ratios", &ratios),
        ("switches", &switches),
        ("point", &point),
        ("wrapped", &wrapped),
        ("items", &|random| list(random, &item)),
        ("free", &any_json),
        ("free_\\u0078", &any_json),
        ("fre", &any_json),
        ("score2", &any_json),
        ("~0", &any_json),
        ("id", &|random| {
            random.pick(&["\"a\"", "7", "-0", "1.50", "12e1", "true", "false", "18446744073709551615"]).to_owned()
        }),
        ("lenient", &any),
        ("local", &local),
        ("logged", &logged),
        ("micros", &micros),
        ("days", &dates),
        ("loose", &loose),
        ("loose_items", &|random| list(random, &strict_loose)),
        ("loose_map", &|random| object(random, &[("a", &any), ("b1", &any), ("x", &any)], 0)),
        ("tags", &|random| {
            object(random, &[("a", &lists), ("b", &lists), ("é", &lists), ("n", &|_| "null".to_owned())], 0)
        }),
        ("loose_tags", &|random| object(random, &[("a", &number_lists), ("b1", &number_lists), ("x", &any)], 0)),
    ];
    object(random, &members, 3)
}

/// Records of the dataset that uses every feature.
pub(crate) fn everything(seed: u64, count: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..count).flat_map(|_| (record(&mut random) + "\n").into_bytes()).collect()
}

/// The shipped definitions, and the one that uses every feature.
pub(crate) fn definitions() -> Vec<DefinitionText> {
    let text = include_str!("everything.toml").to_owned();
    let mut all = shipped();
    all.push(DefinitionText { file: "everything.toml".to_owned(), text });
    all
}

#[test]
fn every_type_and_rule_gives_the_same_rows() {
    for seed in seeds(0..4) {
        let ndjson = everything(seed, 1_000);
        let chunk_bytes = vec![1 << (6 + 3 * (seed % 4)), 5_000];
        let feed = Feed { definitions: definitions(), chunk_bytes, take_every: 11, ..Feed::default() };
        let landed = same(&ndjson, &feed);
        let rejected = landed.dead_letters.len();
        assert!((100..800).contains(&rejected), "{rejected} rejected: enough of both kinds");
    }
}

/// Damages a record: replaces, duplicates or removes a few bytes, or copies some from elsewhere.
fn damage(random: &mut Random, record: &mut Vec<u8>) {
    const PIECES: [&str; 28] = [
        "\"", "\\", "{", "}", "[", "]", ",", ":", "0", "1e5", "-", ".", "null", "true", "\\u00e9", "\\ud83d",
        "\\ude00", " ", "\t", "\u{0}", "é", "\\\"", "{}", "[]", "\"\"", "\\\\", "/", "e",
    ];
    for _ in 0..=random.below(3) {
        let at = random.below(record.len().max(1));
        let end = record.len().min(at + random.below(6));
        let piece = random.pick(&PIECES).as_bytes().to_vec();
        match random.below(6) {
            0 => drop(record.splice(at..end, piece)),
            1 => drop(record.splice(at..at, piece)),
            2 => drop(record.drain(at..end)),
            3 => {
                let copy = record[at..end].to_vec();
                let place = random.below(record.len().max(1));
                record.splice(place..place, copy);
            }
            4 if !record.is_empty() => record[at] ^= 1 << random.below(8),
            _ => record.truncate(record.len() - random.below(4).min(record.len())),
        }
    }
    record.retain(|byte| *byte != b'\n');
}

#[test]
fn damaged_records_are_rejected_by_both_sides_or_by_neither() {
    for seed in seeds(0..3) {
        let mut random = Random(seed);
        let mut generator = Generator::new(Options { seed, ..Options::default() }).unwrap();
        let mut ndjson = Vec::new();
        for _ in 0..1_500 {
            let mut record = Vec::new();
            generator.next_into(&mut record);
            damage(&mut random, &mut record);
            ndjson.extend_from_slice(&record);
            ndjson.push(b'\n');
        }
        same(&ndjson, &Feed { chunk_bytes: vec![30_000], take_every: 7, ..Feed::default() });
    }
}
