//! Tests of definitions: every message with its exact words and line, and what the shipped definitions compile to.
//!
//! A message is for somebody who edits a file: it names the line, what is wrong there, and what to write instead. So the tests
//! compare whole messages. If a test fails because a message was improved, change the test.

use super::*;
use crate::dataset::definition::Definition;
use crate::dataset::plan::Node;
use crate::dataset::rule::Rule;
use crate::dataset::{Datasets, DefinitionText, shipped};

/// Ten lines of a valid definition; what a test adds begins on line 11.
const HEAD: &str = r#"name = "t"
partition_by = ["year"]
[[recognize]]
present = ["/id"]
[event_time]
pointer = "/t"
[[column]]
name = "id"
pointer = "/id"
type = "string"
"#;

fn compiled(texts: &[&str]) -> Result<Datasets, Problems> {
    let file = |(n, text): (usize, &&str)| {
        let file = if n == 0 { "t.toml".to_owned() } else { format!("t{n}.toml") };
        DefinitionText { file, text: (*text).to_owned() }
    };
    let texts: Vec<DefinitionText> = texts.iter().enumerate().map(file).collect();
    Datasets::compile(&texts, &|file, key| match file {
        "codes.csv" => LookupTable::read(b"code,label\na,A\n", key),
        _ => Err("it cannot be read: no such file".to_owned()),
    })
}

/// Every problem of a text: its line number, then the message.
fn message_of(text: &str) -> Vec<String> {
    let message = compiled(&[text]).err().map_or_else(String::new, |problems| problems.to_string());
    message.lines().map(|line| line.strip_prefix("t.toml:").unwrap_or(line).to_owned()).collect()
}

/// Asserts the problems of [`HEAD`] with something after it.
#[track_caller]
fn refused(below: &str, expected: &[&str]) {
    assert_eq!(message_of(&format!("{HEAD}{below}")), expected, "{below}");
}

/// Asserts the problems of one more column with these keys, whose name, pointer and type are on the lines 12, 13 and 14.
#[track_caller]
fn refused_column(name: &str, kind: &str, more: &str, expected: &[&str]) {
    refused(&format!("[[column]]\nname = \"{name}\"\npointer = \"/{name}\"\ntype = \"{kind}\"\n{more}"), expected);
}

/// Asserts the problems of [`HEAD`] with some of its text replaced.
#[track_caller]
fn refused_with(from: &str, to: &str, expected: &[&str]) {
    assert!(HEAD.contains(from), "{from}");
    assert_eq!(message_of(&HEAD.replacen(from, to, 1)), expected, "{to}");
}

#[test]
fn a_valid_definition_compiles() {
    assert_eq!(message_of(HEAD), [""; 0]);
}

#[test]
fn text_that_is_not_toml_is_refused_with_its_line() {
    let message = message_of("name = \"t\"\npartition_by = = \"year\"\n");
    assert!(message[0].starts_with("2: not TOML: "), "{message:?}");
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    refused("requird = true\n", &["11: unknown key 'requird' in [column]; did you mean 'required'?"]);
    refused_with(
        "partition_by",
        "partitoin_by",
        &["2: unknown key 'partitoin_by' in the file; did you mean 'partition_by'?"],
    );
    refused_with(
        "pointer = \"/t\"",
        "pointer = \"/t\"\nplace = 1",
        &[
            "7: unknown key 'place' in [event_time]; known here: pointer, format, zone, day, accept_text, not_before, not_after, ahead_max_hours",
        ],
    );
    refused_with("present", "presence", &["4: unknown key 'presence' in [recognize]; did you mean 'present'?"]);
    refused(
        "anonymize = { rule = \"drop\", bands = [1] }\n",
        &["11: unknown key 'bands' in [column.anonymize]; known here: rule"],
    );
    refused(
        "[[lookup]]\nname = \"l\"\nfile = \"codes.csv\"\nkey = \"code\"\non = \"id\"\nmising = \"null\"\n",
        &["16: unknown key 'mising' in [lookup]; did you mean 'missing'?"],
    );
}

#[test]
fn several_problems_are_reported_at_once() {
    assert_eq!(
        message_of(
            "nam = \"t\"\n[event_time]\npointer = \"t\"\nformat = \"iso\"\n[[column]]\ntype = \"strng\"\n[[column]]\nname = 3\n"
        ),
        [
            "1: the file needs name = \"…\"",
            "4: unknown format 'iso'; known: rfc3339, epoch_s, epoch_ms, epoch_us, epoch_ns, date, or a pattern such as \"%d/%m/%Y %H:%M:%S\"",
            "3: 't' is not a JSON Pointer: write '/t'",
            "5: [column] needs name = \"…\"",
            "5: a column needs pointer = \"/…\" or from = \"…\"",
            "6: unknown type 'strng'; did you mean 'string'?",
            "8: name in [column] must be a string, not integer",
            "7: a column needs pointer = \"/…\" or from = \"…\"",
            "7: [column] needs type = \"…\"",
            "1: unknown key 'nam' in the file; did you mean 'name'?",
        ]
    );
    refused(
        "[[column]]\nname = \"email\"\npointer = \"/email\"\ntype = \"string\"\nmin = 1\n[[column]]\nname = \"Id\"\npointer = \"/x\"\ntype = \"map\"\nvalue = \"string\"\n",
        &[
            "17: 'Id' is not a valid name for a column: use lower-case letters, digits and '_', starting with a letter, 64 at most",
            "12: 'email' (/email) looks like an e-mail address and has no rule: add anonymize = { rule = \"pseudonym\" }, \
             \"drop\" or another, or state personal = false",
            "15: 'email' is not a number: min and max do not apply",
            "17: 'Id' is free-form and needs allow = [\"key\", …]: keys that are not listed are never written",
        ],
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_refused() {
    refused_with("\"t\"\n", "7\n", &["1: name in the file must be a string, not integer"]);
    refused_with("[\"year\"]", "[1]", &["2: partition_by in the file must be a list of strings, not array"]);
    refused("required = \"yes\"\n", &["11: required in [column] must be true or false, not string"]);
    refused("min_length = \"3\"\n", &["11: min_length in [column] must be a whole number, not string"]);
    refused("min_length = 1.5\n", &["11: min_length in [column] must be a whole number, not float"]);
    refused("max = true\n", &["11: max in [column] must be a number, not boolean"]);
    refused("one_of = \"a\"\n", &["11: one_of in [column] must be a list of strings or numbers, not string"]);
    refused("anonymize = \"drop\"\n", &["11: anonymize in [column] must be a table, not string"]);
    refused_with(
        "[[recognize]]\npresent = [\"/id\"]",
        "recognize = 3\n",
        &["3: recognize in the file must be a list of tables, not integer"],
    );
    refused_with(
        "present = [\"/id\"]",
        "[recognize.equals]\n\"/id\" = { a = 1 }",
        &["5: equals in [recognize] must be strings or numbers, not table"],
    );
}

#[test]
fn a_missing_required_key_is_refused() {
    assert_eq!(
        message_of(""),
        [
            "1: the file needs name = \"…\"",
            "1: a dataset needs [event_time] with pointer = \"/…\" and format = \"rfc3339\"",
            "1: a dataset needs at least one [[column]]",
        ]
    );
    refused_with("pointer = \"/t\"\n", "", &["5: [event_time] needs pointer = \"…\""]);
    refused_with("name = \"id\"\n", "", &["7: [column] needs name = \"…\""]);
    refused_with("type = \"string\"\n", "", &["7: [column] needs type = \"…\""]);
    refused(
        "[[lookup]]\n",
        &[
            "11: [lookup] needs name = \"…\"",
            "11: [lookup] needs file = \"…\"",
            "11: [lookup] needs key = \"…\"",
            "11: [lookup] needs on = \"…\"",
        ],
    );
}

#[test]
fn a_pointer_must_follow_rfc_6901() {
    refused_with("\"/t\"", "\"$.t\"", &["6: '$.t' is not a JSON Pointer: write '/t'"]);
    refused_with("\"/t\"", "\"\"", &["6: '' is not a JSON Pointer: write '/'"]);
    refused_with(
        "[\"/id\"]",
        "[\"id\", \"/a~b\"]",
        &[
            "4: 'id' is not a JSON Pointer: write '/id'",
            "4: '/a~b': in a JSON Pointer write '~0' for '~' and '~1' for '/'",
        ],
    );
    refused_with(
        "partition_by",
        "embedded = [\"doc\"]\npartition_by",
        &["2: 'doc' is not a JSON Pointer: write '/doc'"],
    );
}

#[test]
fn a_column_has_one_source() {
    refused("[[column]]\nname = \"x\"\ntype = \"string\"\n", &["11: a column needs pointer = \"/…\" or from = \"…\""]);
    refused("from = \"event_time\"\n", &["11: a column has either pointer or from, not both"]);
    refused(
        "[[column]]\nname = \"x\"\ntype = \"int32\"\nfrom = \"event_time.week\"\n",
        &["14: unknown source 'event_time.week'; known: event_time, event_time.year|month|day|hour, arrival_time, \
           unknown_fields, lookup.NAME.COLUMN"],
    );
}

#[test]
fn an_unknown_type_is_refused_with_the_nearest_known_one() {
    refused_column("x", "strings", "", &["14: unknown type 'strings'; did you mean 'string'?"]);
    refused_column("x", "int", "", &["14: unknown type 'int'; did you mean 'int64'?"]);
    refused_column("x", "timestamps", "", &["14: unknown type 'timestamps'; did you mean 'timestamp'?"]);
    let known = "known: string, int32, int64, float64, decimal(P,S), bool, date32, timestamp, json, list, map, struct";
    refused_column("x", "varchar", "", &[&format!("14: unknown type 'varchar'; {known}")]);
    refused_column("x", "list", "element = \"text\"\n", &[&format!("15: unknown type 'text'; {known}")]);
    let digits = "write decimal(P,S), with P digits, 1 to 18, and S of them after the point";
    refused_column("x", "decimal(2,3)", "", &[&format!("14: 'decimal(2,3)' is not a valid type: {digits}")]);
}

#[test]
fn a_nested_type_must_say_what_it_contains() {
    let list = "14: a list needs either element = \"TYPE\" or [[column.field]] tables";
    refused_column("x", "list", "", &[list]);
    refused_column("x", "list", "value = \"string\"\n", &[list]);
    refused_column("x", "list", "element = \"string\"\nfield = [{ name = \"a\", type = \"string\" }]\n", &[list]);
    let map = "14: a map needs value = \"TYPE\", or value = \"list\" and element = \"TYPE\"; its keys are strings";
    refused_column("x", "map", "allow = [\"a\"]\n", &[map]);
    refused_column("x", "map", "element = \"string\"\nallow = [\"a\"]\n", &[map]);
    refused_column("x", "struct", "", &["14: a struct needs [[column.field]] tables"]);
    refused_column(
        "x",
        "list",
        "element = \"json\"\npersonal = false\n",
        &["12: 'x': a list of json is not supported; make the column itself json"],
    );
    refused_column(
        "x",
        "map",
        "value = \"date32\"\nallow = [\"a\"]\n",
        &["12: 'x': the values of a map are string, int64, float64 or bool"],
    );
}

#[test]
fn an_unknown_time_format_is_refused() {
    refused_with(
        "\"/t\"",
        "\"/t\"\nformat = \"unix\"",
        &[
            "7: unknown format 'unix'; known: rfc3339, epoch_s, epoch_ms, epoch_us, epoch_ns, date, or a pattern such as \"%d/%m/%Y %H:%M:%S\"",
        ],
    );
    refused_with(
        "\"/t\"",
        "\"/t\"\nnot_before = \"2010\"",
        &["7: not_before must be a date such as \"2010-01-01\", or a time such as \"2010-01-01T00:00:00Z\""],
    );
    for hours in ["-1", "87601", "nan"] {
        refused_with(
            "\"/t\"",
            &format!("\"/t\"\nahead_max_hours = {hours}"),
            &["7: ahead_max_hours must be between 0 and 87600"],
        );
    }
    refused(
        "[arrival_time]\npointer = \"/arrived\"\nformat = \"date\"\n",
        &["12: an arrival time needs a time of day: use rfc3339, epoch_ms or epoch_s"],
    );
}

#[test]
fn a_name_has_only_lower_case_letters_digits_and_underscores() {
    let rule = "use lower-case letters, digits and '_', starting with a letter, 64 at most";
    for name in ["", "T", "1t", "_t", "t-t", "t t", "tä", "analytics", "unknown"] {
        refused_with(
            "\"t\"\n",
            &format!("\"{name}\"\n"),
            &[&format!("1: '{name}' is not a valid name for a dataset: {rule}")],
        );
    }
    let long = "t".repeat(65);
    refused_with(
        "\"id\"\n",
        &format!("\"{long}\"\n"),
        &[&format!("8: '{long}' is not a valid name for a column: {rule}")],
    );
    for name in ["A", "a~b", "a/b"] {
        refused_column(
            "x",
            "struct",
            &format!("field = [{{ name = \"{name}\", type = \"string\" }}, {{ name = \"b\", type = \"string\" }}]\n"),
            &[&format!("15: '{name}' is not a valid name for a field: {rule}")],
        );
    }
}

#[test]
fn a_name_that_is_already_used_is_refused() {
    for name in ["ingest_stream", "ingest_shard", "ingest_sequence", "ingest_subsequence", "ingest_arrival_time"] {
        refused_column(
            name,
            "string",
            "",
            &[&format!("12: column '{name}' is in every file already: give yours another name")],
        );
    }
    refused_column("year", "int32", "", &["12: 'year' is a partition made from the event time: rename the column"]);
    assert_eq!(
        message_of(&format!("{HEAD}[[column]]\nname = \"month\"\npointer = \"/m\"\ntype = \"int32\"\n")),
        [""; 0]
    );
    refused_column(
        "id",
        "int64",
        "",
        &[
            "12: two columns are named 'id'; the first is at line 8",
            // Both columns also read the same field.
            ": /id is read as a string and as a number: no value is both",
        ][..1],
    );
    refused_column(
        "x",
        "struct",
        "[[column.field]]\nname = \"a\"\ntype = \"string\"\n[[column.field]]\nname = \"a\"\npointer = \"/b\"\ntype = \"string\"\n",
        &["19: two fields of 'x' are named 'a'"],
    );
}

#[test]
fn a_partition_must_be_a_string_column_or_a_part_of_the_event_time() {
    let with = |names: &str, expected: &[&str]| {
        refused_with("[\"year\"]", names, expected);
    };
    with("[\"year\", \"yeer\"]", &["2: there is no column 'yeer' to partition by; did you mean 'year'?"]);
    with("[\"zzz\"]", &["2: there is no column 'zzz' to partition by; name one of its columns, or year, month, day"]);
    with("[\"id\", \"id\"]", &["2: partition 'id' is named twice"]);
    with("[]", &["2: partition_by is empty: name columns, or year, month, day"]);
    let wrong = "2: 'id' cannot be a partition: it must be a string column with a pointer";
    for (from, to) in [
        ("type = \"string\"", "type = \"int32\""),
        ("type = \"string\"", "type = \"string\"\nunique = true"),
        ("type = \"string\"", "type = \"string\"\nanonymize = { rule = \"drop\" }"),
        ("type = \"string\"", "type = \"list\"\nelement = \"string\""),
        ("pointer = \"/id\"\ntype = \"string\"", "from = \"event_time\"\ntype = \"date32\""),
    ] {
        assert_eq!(message_of(&HEAD.replace("[\"year\"]", "[\"id\"]").replace(from, to)), [wrong], "{to}");
    }
    let columns: String =
        (0..9).map(|n| format!("[[column]]\nname = \"p{n}\"\npointer = \"/p{n}\"\ntype = \"string\"\n")).collect();
    let named = |count: usize| format!("{:?}", (0..count).map(|n| format!("p{n}")).collect::<Vec<_>>());
    let with = |count: usize| message_of(&(HEAD.replace("[\"year\"]", &named(count)) + &columns));
    assert_eq!(with(8), [""; 0]);
    assert_eq!(with(9), ["2: partition_by names more than 8 columns"]);
}

#[test]
fn a_computed_column_must_have_the_type_of_its_values() {
    let computed = |from: &str, kind: &str, more: &str| {
        message_of(&format!("{HEAD}[[column]]\nname = \"x\"\nfrom = \"{from}\"\ntype = \"{kind}\"\n{more}"))
    };
    assert_eq!(computed("event_time", "timestamp", ""), [""; 0]);
    assert_eq!(computed("event_time", "string", ""), ["12: 'x' is a time: its type is timestamp or date32"]);
    assert_eq!(computed("arrival_time", "int64", ""), ["12: 'x' is a time: its type is timestamp or date32"]);
    assert_eq!(computed("event_time.year", "int64", ""), ["12: 'x' is a part of a date: its type is int32"]);
    assert_eq!(
        computed("unknown_fields", "string", "allow = [\"a\"]\n"),
        ["12: 'x' holds unknown fields as one JSON text: its type is json"]
    );
    assert_eq!(
        computed("unknown_fields", "json", ""),
        ["12: 'x' is free-form and needs allow = [\"key\", …]: keys that are not listed are never written"]
    );
    assert_eq!(
        computed("event_time", "list", "element = \"string\"\n"),
        ["12: 'x' is computed: its type cannot be a list, map or struct"]
    );
    let no_meaning = "12: 'x' is computed: required and anonymize do not apply";
    assert_eq!(computed("event_time", "date32", "required = true\n"), [no_meaning]);
    assert_eq!(computed("event_time", "date32", "anonymize = { rule = \"drop\" }\n"), [no_meaning]);
}

#[test]
fn a_constraint_must_fit_its_type() {
    refused_column(
        "x",
        "string",
        "min = 1\nmax = 2\n",
        &["15: 'x' is not a number: min and max do not apply", "16: 'x' is not a number: min and max do not apply"],
    );
    refused_column("x", "bool", "max = 1.5\n", &["15: 'x' is not a number: min and max do not apply"]);
    refused_column("x", "int32", "min_length = 1\n", &["15: 'x': lengths apply to strings, and are not negative"]);
    refused_column("x", "string", "max_length = -1\n", &["15: 'x': lengths apply to strings, and are not negative"]);
    refused_column("x", "int64", "pattern = 'a'\n", &["15: 'x' is not a string: pattern does not apply"]);
    refused_column("x", "int64", "one_of = [1, 2]\n", &["15: 'x': one_of lists the strings that a string may be"]);
    refused_column("x", "string", "one_of = [\"a\", 2]\n", &["15: 'x': one_of lists the strings that a string may be"]);
    refused_column("x", "int64", "unique = true\n", &["12: 'x': unique is a hint for strings"]);
    refused_column(
        "x",
        "string",
        "accept_text = true\n",
        &["12: 'x': accept_text is for numbers and booleans that come as strings"],
    );
    refused_column(
        "x",
        "date32",
        "accept_text = true\n",
        &["12: 'x': accept_text is for numbers and booleans that come as strings"],
    );
    refused_column(
        "x",
        "list",
        "element = \"string\"\nmin = 1\n",
        &["16: 'x' is not a number: min and max do not apply"],
    );
    for (kind, more) in [
        ("list", "element = \"string\"\n"),
        ("map", "value = \"string\"\nallow = [\"a\"]\n"),
        ("struct", "field = [{ name = \"a\", type = \"string\" }]\n"),
        ("list", "field = [{ name = \"a\", type = \"string\" }]\n"),
    ] {
        let column = format!("[[column]]\nname = \"x\"\npointer = \"/x\"\ntype = \"{kind}\"\nrequired = true\n{more}");
        assert_eq!(message_of(&format!("{HEAD}{column}")), [""; 0]);
    }
}

#[test]
fn a_pattern_must_be_a_regular_expression() {
    refused_column(
        "x",
        "string",
        "pattern = '(a'\n",
        &["15: 'x': '(a' is not a valid regular expression (error: unclosed group)"],
    );
    refused_column(
        "x",
        "string",
        "anonymize = { rule = \"match\", pattern = '[' }\n",
        &["15: 'x': '[' is not a valid regular expression (error: unclosed character class)"],
    );
    refused_column(
        "x",
        "string",
        "anonymize = { rule = \"match\" }\n",
        &["15: [column.anonymize] needs pattern = \"…\""],
    );
}

#[test]
fn a_personal_column_without_a_rule_is_refused() {
    let hint = "has no rule: add anonymize = { rule = \"pseudonym\" }, \"drop\" or another";
    let by_name = |name: &str, meaning: &str| {
        let expected = format!("12: '{name}' (/{name}) looks like {meaning} and {hint}, or state personal = false");
        refused_column(name, "string", "", &[&expected]);
        assert_eq!(
            message_of(&format!(
                "{HEAD}[[column]]\nname = \"{name}\"\npointer = \"/{name}\"\ntype = \"string\"\npersonal = false\n"
            )),
            [""; 0]
        );
    };
    by_name("email", "an e-mail address");
    by_name("contact_phone", "a phone number");
    by_name("user_id", "an identifier of a person");
    by_name("name", "a name");
    by_name("home_address", "an address");
    by_name("comment", "free text");
    // The name of the field counts as well as that of the column, and of a struct's field.
    refused(
        "[[column]]\nname = \"x\"\npointer = \"/user/IPAddress\"\ntype = \"string\"\n",
        &[&format!("12: 'x' (/user/IPAddress) looks like an IP address and {hint}, or state personal = false")],
    );
    refused_column(
        "x",
        "struct",
        "[[column.field]]\nname = \"a\"\npointer = \"/birthday\"\ntype = \"string\"\n",
        &[&format!("16: 'x.a' (/x/birthday) looks like a date of birth and {hint}, or state personal = false")],
    );
    refused_column(
        "x",
        "list",
        "[[column.field]]\nname = \"email\"\ntype = \"string\"\n",
        &[&format!("16: 'x.email' (/x/email) looks like an e-mail address and {hint}, or state personal = false")],
    );
    refused_column("x", "string", "personal = true\n", &[&format!("12: 'x' is personal and {hint}")]);
    refused_column(
        "x",
        "json",
        "",
        &["12: 'x' is free-form JSON: state personal = false if nothing personal is in it"],
    );
    refused_column(
        "x",
        "map",
        "value = \"string\"\n",
        &["12: 'x' is free-form and needs allow = [\"key\", …]: keys that are not listed are never written"],
    );
}

#[test]
fn a_rule_must_fit_its_type() {
    let rule = |kind: &str, rule: &str, expected: &[&str]| {
        refused_column("x", kind, &format!("anonymize = {rule}\n"), expected);
    };
    let number =
        "15: 'x': this rule makes a string; set type = \"string\", and accept_number = true if the values are numbers";
    rule("int64", "{ rule = \"pseudonym\" }", &[number]);
    rule("int32", "{ rule = \"age_band\" }", &["15: 'x': this rule makes a string; set type = \"string\""]);
    rule("bool", "{ rule = \"truncate_ip\" }", &["15: 'x': this rule makes a string; set type = \"string\""]);
    rule("float64", "{ rule = \"region\" }", &[number]);
    rule("string", "{ rule = \"truncate_time\" }", &["15: 'x': this rule makes a timestamp; set type = \"timestamp\""]);
    rule(
        "date32",
        "{ rule = \"truncate_time\", to = \"day\" }",
        &["15: 'x': this rule makes a timestamp; set type = \"timestamp\""],
    );
    rule(
        "timestamp",
        "{ rule = \"truncate_time\", to = \"week\" }",
        &["15: truncate_time goes to \"hour\" or \"day\", not \"week\""],
    );
    for bands in ["[]", "[18, 18]", "[25, 18]", "[0, 18]"] {
        rule(
            "string",
            &format!("{{ rule = \"age_band\", bands = {bands} }}"),
            &["15: 'x': bands are rising ages, such as [18, 25, 35]"],
        );
    }
    rule(
        "string",
        "{ rule = \"hash\" }",
        &[
            "15: unknown rule 'hash'; known: pseudonym, age_band, region, drop, truncate_ip, truncate_time, email_domain, match",
        ],
    );
    refused_column(
        "x",
        "struct",
        "field = [{ name = \"a\", type = \"string\", anonymize = { rule = \"drop\" } }]\n",
        &["12: every field of 'x' is dropped: drop the column itself"],
    );
}

#[test]
fn a_lookup_must_be_joined_on_a_string_column_and_have_the_columns_that_are_read() {
    let lookup = |more: &str, file: &str, key: &str, on: &str| {
        message_of(&format!(
            "{HEAD}{more}[[lookup]]\nname = \"l\"\nfile = \"{file}\"\nkey = \"{key}\"\non = \"{on}\"\n"
        ))
    };
    let column = |from: &str, kind: &str| format!("[[column]]\nname = \"x\"\nfrom = \"{from}\"\ntype = \"{kind}\"\n");
    assert_eq!(lookup(&column("lookup.l.label", "string"), "codes.csv", "code", "id"), [""; 0]);
    assert_eq!(lookup("", "none.csv", "code", "id"), ["13: lookup file 'none.csv': it cannot be read: no such file"]);
    assert_eq!(
        lookup("", "codes.csv", "cod", "id"),
        ["13: lookup file 'codes.csv': there is no column 'cod'; the columns are: code, label"]
    );
    assert_eq!(
        lookup("", "codes.csv", "code", "ids"),
        ["15: lookup 'l' joins on 'ids', which is not a string column with a pointer"]
    );
    let joined_on = |more: &str| {
        let more = format!("[[column]]\nname = \"y\"\npointer = \"/y\"\n{more}\n");
        lookup(&more, "codes.csv", "code", "y")
    };
    for more in [
        "type = \"int64\"",
        "type = \"string\"\nunique = true",
        "type = \"list\"\nelement = \"string\"",
        "type = \"string\"\nanonymize = { rule = \"drop\" }",
        "type = \"string\"\nanonymize = { rule = \"age_band\" }",
    ] {
        let message = joined_on(more);
        assert!(
            message.len() == 1
                && message[0].ends_with("lookup 'l' joins on 'y', which is not a string column with a pointer"),
            "{message:?}"
        );
    }
    assert_eq!(
        lookup(&column("lookup.l.lable", "string"), "codes.csv", "code", "id"),
        ["12: lookup 'l' has no column 'lable'; its columns are: code, label"]
    );
    assert_eq!(
        lookup(&column("lookup.m.label", "string"), "codes.csv", "code", "id"),
        ["12: 'x': there is no [[lookup]] named 'm'"]
    );
    assert_eq!(
        lookup(&column("lookup.l.label", "bool"), "codes.csv", "code", "id"),
        ["12: 'x' comes from a lookup: its type is string, int64 or float64"]
    );
    refused(
        "[[lookup]]\nname = \"l\"\nfile = \"codes.csv\"\nkey = \"code\"\non = \"id\"\nmissing = \"drop\"\n",
        &["16: missing is \"null\" or \"reject\", not \"drop\""],
    );
}

#[test]
fn a_key_that_does_not_apply_to_a_column_is_refused_and_not_ignored() {
    let computed = |more: &str| {
        message_of(&format!("{HEAD}[[column]]\nname = \"x\"\nfrom = \"event_time.year\"\ntype = \"int32\"\n{more}\n"))
    };
    let message = "12: 'x' is computed: constraints and hints do not apply";
    for more in ["min = 1", "max_length = 3", "unique = true", "accept_text = true", "pattern = \"a\""] {
        assert_eq!(computed(more), [message], "{more}");
    }
    refused_column(
        "x",
        "struct",
        "min = 1\nfield = [{ name = \"a\", type = \"string\" }]\n",
        &["12: 'x' has fields: put constraints and hints on the fields"],
    );
}

#[test]
fn a_lookup_column_with_a_personal_name_is_refused() {
    let lookup = "[[lookup]]\nname = \"l\"\nfile = \"codes.csv\"\nkey = \"code\"\non = \"id\"\n";
    let column = |name: &str, more: &str| {
        let column = format!("[[column]]\nname = \"{name}\"\nfrom = \"lookup.l.label\"\ntype = \"string\"\n{more}\n");
        message_of(&format!("{HEAD}{column}{lookup}"))
    };
    assert_eq!(
        column("email", ""),
        [
            "12: 'email' looks like an e-mail address, and lookup values are written as they are: leave it out, or state \
          personal = false"
        ]
    );
    assert_eq!(column("email", "personal = false"), [""; 0]);
    assert_eq!(column("label", ""), [""; 0]);
}

#[test]
fn equals_must_compare_strings() {
    refused_with(
        "present = [\"/id\"]",
        "[recognize.equals]\n\"/id\" = [1]",
        &["5: equals compares strings: write \"/field\" = [\"value\", …]"],
    );
    refused_with(
        "present = [\"/id\"]",
        "[recognize.equals]\nid = \"x\"",
        &["5: 'id' is not a JSON Pointer: write '/id'"],
    );
}

#[test]
fn two_readings_of_one_field_that_exclude_each_other_are_refused() {
    let also = |pointer: &str, rest: &str| {
        message_of(&format!("{HEAD}[[column]]\nname = \"x\"\npointer = \"{pointer}\"\n{rest}\n"))
    };
    let both = " /id is read in two ways that exclude each other, such as a value and an object";
    assert_eq!(also("/id/b", "type = \"string\""), [both]);
    assert_eq!(also("/id", "type = \"list\"\nelement = \"string\""), [both]);
    assert_eq!(also("/id", "type = \"json\"\npersonal = false"), [both]);
    assert_eq!(also("/id", "type = \"map\"\nvalue = \"string\"\nallow = [\"a\"]"), [both]);
    assert_eq!(also("/id", "type = \"int64\""), [" /id is read as a string and as a number: no value is both"]);
    assert_eq!(also("/id", "type = \"bool\""), [" /id is read as a string and as a boolean: no value is both"]);
    // Two columns may read the same field, and an object may be read both whole and by its fields.
    assert_eq!(also("/id", "type = \"string\"\nunique = true"), [""; 0]);
    let twice = |first: &str, second: &str| {
        message_of(&format!(
            "{HEAD}[[column]]\nname = \"x\"\npointer = \"/o\"\n{first}\n[[column]]\nname = \"y\"\npointer = \"/o\"\n{second}\n"
        ))
    };
    let json = "type = \"json\"\npersonal = false";
    let list = "type = \"list\"\nelement = \"string\"";
    let map = "type = \"map\"\nvalue = \"string\"\nallow = [\"a\"]";
    let structure = "type = \"struct\"\nfield = [{ name = \"a\", type = \"string\" }]";
    assert_eq!(twice(json, structure), [""; 0]);
    assert_eq!(twice(map, structure), [""; 0]);
    let both_read = |line: usize| [format!("{line}: two columns read /o as a list, map or struct; use one")];
    assert_eq!(twice(list, list), both_read(17));
    assert_eq!(twice(map, map), both_read(18));
    assert_eq!(twice(structure, structure), both_read(17));
    assert_eq!(twice(list, map), [" /o is read in two ways that exclude each other, such as a value and an object"]);
}

#[test]
fn an_embedded_document_must_be_read_and_not_be_inside_another() {
    let embedded = |names: &str, pointer: &str| {
        message_of(
            &(HEAD.replace("partition_by", &format!("embedded = {names}\npartition_by"))
                + &format!("[[column]]\nname = \"x\"\npointer = \"{pointer}\"\ntype = \"string\"\n")),
        )
    };
    assert_eq!(embedded("[\"/doc\"]", "/doc/a"), [""; 0]);
    assert_eq!(embedded("[\"/doc\"]", "/dog/a"), [" /doc is named in embedded, but no column reads a field inside it"]);
    assert_eq!(
        embedded("[\"/doc\", \"/doc/inner\"]", "/doc/inner/a"),
        [" /doc/inner is embedded in a document that is itself embedded; only one level is supported"]
    );
    assert_eq!(
        embedded("[\"/doc\", \"/other\"]", "/doc/a"),
        [" /other is named in embedded, but no column reads a field inside it"]
    );
}

#[test]
fn a_field_that_is_compared_with_a_string_is_read_as_a_string_or_not_at_all() {
    let compared = |pointer: &str, kind: &str| {
        message_of(
            &(HEAD.replace("present = [\"/id\"]", "equals = { \"/kind\" = \"a\" }")
                + &format!("[[column]]\nname = \"x\"\npointer = \"{pointer}\"\n{kind}\n")),
        )
    };
    assert_eq!(compared("/kind", "type = \"string\""), [""; 0]);
    assert_eq!(compared("/other", "type = \"string\""), [""; 0]);
    let message = " /kind is compared with a string and read as something else";
    assert_eq!(compared("/kind/a", "type = \"string\""), [message]);
    assert_eq!(compared("/kind", "type = \"list\"\nelement = \"string\""), [message]);
}

#[test]
fn a_dataset_reads_at_most_256_keys_of_one_object() {
    let columns = |count: usize| -> String {
        (0..count).map(|n| format!("[[column]]\nname = \"c{n}\"\npointer = \"/o/c{n}\"\ntype = \"string\"\n")).collect()
    };
    assert_eq!(message_of(&(HEAD.to_owned() + &columns(Node::FIELDS_MAX))), [""; 0]);
    assert_eq!(
        message_of(&(HEAD.to_owned() + &columns(Node::FIELDS_MAX + 1))),
        [" /o/: the dataset reads more than 256 keys of one object"]
    );
}

#[test]
fn datasets_are_recognized_by_64_marks_at_most() {
    let with = |count: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("/m{n}")).collect();
        HEAD.replace("[\"/id\"]", &format!("{names:?}"))
    };
    assert!(compiled(&[&with(64)]).is_ok());
    let message = "datasets: the datasets' [recognize] rules name more than 64 fields and values together";
    assert_eq!(compiled(&[&with(65)]).unwrap_err().to_string(), message);
    // The limit is for all datasets together; the same field counts once.
    let other = with(40).replace("\"t\"\n", "\"u\"\n");
    assert!(compiled(&[&with(64), &other]).is_ok());
    let further = other.replace("/m", "/n");
    assert_eq!(compiled(&[&with(40), &further]).unwrap_err().to_string(), message);
}

#[test]
fn each_dataset_has_its_own_name_and_there_is_at_least_one() {
    assert_eq!(compiled(&[HEAD, HEAD]).unwrap_err().to_string(), "t1.toml:1: there are two datasets named 't'");
    assert_eq!(compiled(&[]).unwrap_err().to_string(), "datasets: no definition is given");
    let message = compiled(&[&HEAD.replace("/t", "t"), &HEAD.replace("\"id\"\n", "\"Id\"\n")]).unwrap_err().to_string();
    assert_eq!(message.lines().count(), 2, "of every file: {message}");
    assert!(message.contains("t.toml:6: ") && message.contains("t1.toml:8: "), "{message}");
}

#[test]
fn the_first_dataset_that_recognizes_a_record_gets_it() {
    let datasets = compiled(&[
        &HEAD.replace("present = [\"/id\"]", "present = [\"/a\"]\nabsent = [\"/b\"]\n[[recognize]]\nequals = { \"/k\" = [\"x\", \"y\"], \"/l\" = \"z\" }"),
        &HEAD.replace("\"t\"\n", "\"u\"\n").replace("present = [\"/id\"]", "present = [\"/a\"]"),
        &HEAD.replace("\"t\"\n", "\"v\"\n").replace("[[recognize]]\npresent = [\"/id\"]\n", ""),
        &HEAD.replace("\"t\"\n", "\"w\"\n").replace("present = [\"/id\"]", "absent = [\"/a\"]"),
    ])
    .unwrap();
    // Marks, in the order of the conditions: a, b, k = x, k = y, l = z.
    let recognized = |marks: &[usize]| datasets.recognize(marks.iter().map(|mark| 1 << mark).sum());
    assert_eq!(recognized(&[0]), Some(0));
    assert_eq!(recognized(&[0, 1]), Some(1));
    assert_eq!(recognized(&[3, 4]), Some(0));
    assert_eq!(recognized(&[2, 3, 4]), Some(0));
    assert_eq!(recognized(&[2, 3]), None);
    assert_eq!(recognized(&[4]), None);
    assert_eq!(recognized(&[]), None, "what is only absent recognizes nothing");
}

#[test]
fn a_minimal_definition_has_these_defaults() {
    let plan = compiled(&["name = \"t\"\n[event_time]\npointer = \"/t\"\n[[column]]\nname = \"a\"\npointer = \"/a\"\ntype = \"string\"\nanonymize = { rule = \"age_band\" }\n"]).unwrap();
    let plan = plan.plan(0);
    assert_eq!((plan.event_time.format, plan.arrival_time), (TimeForm::Rfc3339.into(), None));
    assert_eq!((plan.event_time.not_before_ms, plan.event_time.ahead_max_ms), (1_262_304_000_000, 86_400_000));
    assert!(plan.partitions.iter().map(Partition::name).eq(["year", "month", "day"]));
    let Some(Rule::AgeBand(bands)) = &plan.leaves[0].rule else { panic!("{:?}", plan.leaves[0].rule) };
    let found = [17, 18, 25, 35, 45, 55, 65, 80].map(|age| bands.of(age));
    assert_eq!(found, ["0-17", "18-24", "25-34", "35-44", "45-54", "55-64", "65-79", "80+"]);
}

#[test]
fn two_columns_that_read_one_field_share_its_input() {
    let below =
        "[[column]]\nname = \"x\"\npointer = \"/id\"\ntype = \"string\"\nanonymize = { rule = \"pseudonym\" }\n";
    let datasets = compiled(&[&format!("{HEAD}{below}")]).unwrap();
    let plan = datasets.plan(0);
    let inputs: Vec<_> = plan.leaves[..2].iter().map(|leaf| leaf.source.clone()).collect();
    assert_eq!(inputs[0], inputs[1]);
    assert_eq!(plan.inputs.iter().filter(|input| input.pointer == "/id").count(), 1);
}

#[test]
fn the_shipped_definitions_compile_and_describe_themselves() {
    let texts = shipped();
    let datasets = Datasets::compile(&texts, &|_, _| Err("none is needed".to_owned())).unwrap();
    assert!(datasets.names().eq(["events", "assessments", "users", "ses", "sms"]));
    for (number, text) in texts.iter().enumerate() {
        let plan = datasets.plan(number);
        assert!(text.file.starts_with(&*plan.name), "{}", text.file);
        assert_eq!(Datasets::name_of(&text.file, &text.text).as_deref(), Some(&*plan.name));
        let definition = Definition::parse(&text.file, &text.text).unwrap();
        assert!(!definition.description.is_empty() && !definition.recognize.is_empty());
        assert_eq!(plan.event_time.not_before_ms, 1_262_304_000_000);
        assert_eq!(plan.event_time.ahead_max_ms, 86_400_000);
        // Every personal column that is not dropped has a rule in the plan.
        let rules = plan.leaves.iter().filter(|leaf| leaf.rule.is_some()).count();
        assert!(rules > 0, "{}", plan.name);
    }
    let ways: usize = texts.iter().map(|text| Definition::parse("t", &text.text).unwrap().recognize.len()).sum();
    assert_eq!(ways, 12);
}

#[test]
fn the_name_is_read_from_a_definition_that_is_otherwise_invalid() {
    assert_eq!(Datasets::name_of("t.toml", HEAD).as_deref(), Some("t"));
    assert_eq!(Datasets::name_of("t.toml", "name = ="), None);
}
