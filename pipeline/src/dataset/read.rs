//! Reading a definition from TOML: what a user writes, checked for form.
//!
//! Owns: the keys of a definition, their values and their defaults. Does not own: walking the document (`toml_reader`), the
//! keys of a rule (`rule`), whether the definition makes sense as a whole (`check`). The format is documented for users in
//! `docs/datasets.md`.
//!
//! Invariant: reading continues after a problem, so that all problems are reported at once.

use crate::dataset::definition::{
    Column, Definition, EventTime, FieldRules, Kind, Lookup, Member, OnError, Recognize, Source, TimeField, TimePart,
};
use crate::dataset::pointer::Pointer;
use crate::dataset::rule::Rule;
use crate::dataset::time_format::{TimeForm, TimeFormat, parse_zone};
use crate::dataset::types::ScalarType;
use crate::time::{DAY_MS, MS_US, parse_date, parse_rfc3339};
use crate::toml_reader::{At, Document, Problems, Scalar, Section};

/// 2010-01-01T00:00:00Z in milliseconds: the earliest plausible event, unless a definition says otherwise.
const NOT_BEFORE_MS: i64 = 1_262_304_000_000;
/// How far an event may be ahead of its arrival, unless a definition says otherwise: 24 hours.
const AHEAD_MAX_MS: i64 = 24 * 3_600_000;
impl Definition {
    /// Reads the form of a definition. `file` is only for messages.
    ///
    /// # Errors
    /// Every problem of form, with its line.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Definition, Problems> {
        let document = Document::new(file, text);
        let Some(table) = document.parse() else { return Err(document.into_problems()) };
        let definition = {
            let root = document.root(&table);
            let definition = read_definition(&root);
            root.finish();
            definition
        };
        drop(table);
        let problems = document.into_problems();
        match definition {
            Some(definition) if problems.is_empty() => Ok(definition),
            _ => Err(problems),
        }
    }
}

fn read_definition(root: &Section<'_>) -> Option<Definition> {
    let name = root.required_text("name");
    let description = root.text("description").map_or_else(String::new, |at| at.value);
    let recognize = root.sections("recognize").into_iter().map(|section| {
        let recognize = Recognize {
            present: pointers(&section, "present"),
            absent: pointers(&section, "absent"),
            equals: equals(&section),
        };
        section.finish();
        recognize
    });
    let recognize = recognize.collect();
    let event_time = match root.section("event_time") {
        Some(section) => read_event_time(section),
        None => {
            root.report(1, "a dataset needs [event_time] with pointer = \"/…\" and format = \"rfc3339\"");
            None
        }
    };
    let arrival_time = root.section("arrival_time").and_then(|section| {
        let field = read_time_field(&section);
        section.finish();
        field
    });
    let partition_by = root
        .texts("partition_by")
        .unwrap_or_else(|| At { value: ["year", "month", "day"].map(str::to_owned).to_vec(), line: root.line() });
    let embedded = pointers(root, "embedded");
    let mut columns: Vec<Column> = root.sections("column").into_iter().filter_map(read_column).collect();
    if let Some(on_error) = read_on_error(root) {
        apply_default(&on_error, &mut columns, &partition_by.value);
    }
    if !root.has("column") {
        root.report(1, "a dataset needs at least one [[column]]");
    }
    let lookups = root.sections("lookup").into_iter().filter_map(read_lookup).collect();
    Some(Definition {
        name: name?,
        description,
        recognize,
        event_time: event_time?,
        arrival_time,
        partition_by,
        embedded,
        columns,
        lookups,
    })
}

/// Sets what a value costs that does not fit, for every optional column and field that does not say so itself.
fn apply_default(on_error: &At<OnError>, columns: &mut [Column], partition_by: &[String]) {
    let apply = |rules: &mut FieldRules| {
        if rules.on_error.is_none() && !rules.required {
            rules.on_error = Some(on_error.clone());
        }
    };
    for column in columns {
        if matches!(column.source, Source::Pointer(_)) && !partition_by.contains(&column.name.value) {
            apply(&mut column.field);
            if let Kind::Struct(members) | Kind::ListOfStructs(members) = &mut column.kind {
                members.iter_mut().for_each(|member| apply(&mut member.field));
            }
        }
    }
}

fn read_on_error(section: &Section<'_>) -> Option<At<OnError>> {
    let at = section.text("on_error")?;
    let value = match at.value.as_str() {
        "reject" => OnError::Reject,
        "null" => OnError::Null,
        other => {
            section.report(at.line, format!("on_error is \"reject\" or \"null\", not \"{other}\""));
            return None;
        }
    };
    Some(At { value, line: at.line })
}

fn pointer(section: &Section<'_>, text: &At<String>) -> Option<At<Pointer>> {
    match Pointer::parse(&text.value) {
        Ok(value) => Some(At { value, line: text.line }),
        Err(message) => {
            section.report(text.line, message);
            None
        }
    }
}

fn pointers(section: &Section<'_>, key: &'static str) -> Vec<At<Pointer>> {
    let Some(texts) = section.texts(key) else { return Vec::new() };
    texts.value.into_iter().filter_map(|value| pointer(section, &At { value, line: texts.line })).collect()
}

fn equals(section: &Section<'_>) -> Vec<(At<Pointer>, Vec<String>)> {
    let mut all = Vec::new();
    for (key, values) in section.free_table("equals") {
        let texts: Vec<String> = values
            .value
            .iter()
            .filter_map(|value| if let Scalar::Text(text) = value { Some(text.clone()) } else { None })
            .collect();
        if texts.len() != values.value.len() {
            section.report(values.line, "equals compares strings: write \"/field\" = [\"value\", …]");
        }
        if let Some(at) = pointer(section, &At { value: key, line: values.line }) {
            all.push((at, texts));
        }
    }
    all
}

fn read_event_time(section: Section<'_>) -> Option<EventTime> {
    let field = read_time_field(&section);
    let not_before = read_not_before(&section);
    let not_after = read_not_after(&section);
    let ahead_max_ms = section.number("ahead_max_hours").map(|at| {
        if !(0.0..=87_600.0).contains(&at.value) {
            section.report(at.line, "ahead_max_hours must be between 0 and 87600");
        }
        hours_to_ms(at.value)
    });
    section.finish();
    Some(EventTime {
        field: field?,
        not_before_ms: not_before.map_or(NOT_BEFORE_MS, |at| at.value.div_euclid(MS_US)),
        not_after_ms: not_after.map_or(i64::MAX, |at| at.value.div_euclid(MS_US)),
        ahead_max_ms: ahead_max_ms.unwrap_or(AHEAD_MAX_MS),
    })
}

#[expect(clippy::cast_possible_truncation, reason = "bounded to ten years by the caller")]
fn hours_to_ms(hours: f64) -> i64 {
    (hours * 3_600_000.0) as i64
}

/// The first time that is accepted, in microseconds.
fn read_not_before(section: &Section<'_>) -> Option<At<i64>> {
    read_bound(section, "not_before", 0)
}

/// The last time that is accepted, in microseconds. A date includes its day.
fn read_not_after(section: &Section<'_>) -> Option<At<i64>> {
    read_bound(section, "not_after", DAY_MS * MS_US - 1)
}

fn read_bound(section: &Section<'_>, key: &'static str, into_day_us: i64) -> Option<At<i64>> {
    let At { value, line } = section.text(key)?;
    let date = parse_date(value.as_bytes()).map(|days| days * DAY_MS * MS_US + into_day_us);
    let value = date.or_else(|| parse_rfc3339(value.as_bytes()).map(|ms| ms * MS_US));
    if value.is_none() {
        section.report(
            line,
            format!("{key} must be a date such as \"2010-01-01\", or a time such as \"2010-01-01T00:00:00Z\""),
        );
    }
    Some(At { value: value?, line })
}

fn read_time_field(section: &Section<'_>) -> Option<TimeField> {
    let at = section.required_text("pointer");
    let format = read_time_format(section, TimeForm::Rfc3339);
    if let Some(problem) = format.problem(false) {
        section.report(section.line(), problem);
    }
    let accept_text = section.flag("accept_text").is_some_and(|at| at.value);
    Some(TimeField { pointer: pointer(section, &at?)?, format, accept_text })
}

/// How a time is written; `form` unless the section says otherwise.
fn read_time_format(section: &Section<'_>, form: TimeForm) -> TimeFormat {
    let mut format = TimeFormat::from(form);
    if let Some(at) = section.text("format") {
        match TimeForm::parse(&at.value) {
            Ok(form) => format.form = form,
            Err(message) => section.report(at.line, message),
        }
    }
    if let Some(at) = section.text("zone") {
        match parse_zone(&at.value) {
            Ok(zone) => format.zone = Some(zone),
            Err(message) => section.report(at.line, message),
        }
    }
    match section.text("day") {
        None => {}
        Some(at) if at.value == "utc" => {}
        Some(at) if at.value == "written" => format.day_as_written = true,
        Some(at) => section.report(at.line, format!("day is \"utc\" or \"written\", not \"{}\"", at.value)),
    }
    format
}

fn read_column(section: Section<'_>) -> Option<Column> {
    let name = section.required_text("name");
    let description = section.text("description").map_or_else(String::new, |at| at.value);
    let source = read_source(&section);
    let kind = read_kind(&section);
    let field = read_rules(&section);
    section.finish();
    Some(Column { name: name?, description, source: source?, kind: kind?, field })
}

fn read_source(section: &Section<'_>) -> Option<Source> {
    let from = section.text("from");
    let path = section.text("pointer");
    match (path, from) {
        (Some(path), None) => pointer(section, &path).map(|at| Source::Pointer(at.value)),
        (None, Some(from)) => match parse_from(&from.value) {
            Some(source) => Some(source),
            None => {
                section.report(
                    from.line,
                    format!(
                        "unknown source '{}'; known: event_time, event_time.year|month|day|hour, arrival_time, \
                         unknown_fields, lookup.NAME.COLUMN",
                        from.value
                    ),
                );
                None
            }
        },
        (None, None) => {
            section.report(section.line(), "a column needs pointer = \"/…\" or from = \"…\"");
            None
        }
        (Some(_), Some(from)) => {
            section.report(from.line, "a column has either pointer or from, not both");
            None
        }
    }
}

fn parse_from(text: &str) -> Option<Source> {
    Some(match text {
        "event_time" => Source::EventTime(TimePart::Whole),
        "event_time.year" => Source::EventTime(TimePart::Year),
        "event_time.month" => Source::EventTime(TimePart::Month),
        "event_time.day" => Source::EventTime(TimePart::Day),
        "event_time.hour" => Source::EventTime(TimePart::Hour),
        "arrival_time" => Source::ArrivalTime,
        "unknown_fields" => Source::UnknownFields,
        other => {
            let (lookup, column) = other.strip_prefix("lookup.")?.split_once('.')?;
            Source::Lookup { lookup: lookup.to_owned(), column: column.to_owned() }
        }
    })
}

fn read_kind(section: &Section<'_>) -> Option<Kind> {
    let at = section.required_text("type");
    let element = section.text("element");
    let value = section.text("value");
    let members: Vec<Member> = section.sections("field").into_iter().filter_map(read_member).collect();
    let at = at?;
    match (at.value.as_str(), element, value) {
        ("list", Some(element), None) if members.is_empty() => scalar_type(section, &element).map(Kind::List),
        ("list", None, None) if !members.is_empty() => Some(Kind::ListOfStructs(members)),
        ("list", ..) => {
            section.report(at.line, "a list needs either element = \"TYPE\" or [[column.field]] tables");
            None
        }
        ("map", Some(element), Some(value)) if value.value == "list" => {
            scalar_type(section, &element).map(Kind::MapOfLists)
        }
        ("map", None, Some(value)) if value.value != "list" => scalar_type(section, &value).map(Kind::Map),
        ("map", ..) => {
            section.report(
                at.line,
                "a map needs value = \"TYPE\", or value = \"list\" and element = \"TYPE\"; its keys are strings",
            );
            None
        }
        ("struct", None, None) if !members.is_empty() => Some(Kind::Struct(members)),
        ("struct", ..) => {
            section.report(at.line, "a struct needs [[column.field]] tables");
            None
        }
        _ => scalar_type(section, &at).map(Kind::Scalar),
    }
}

/// The type of a name, with the form of its times.
fn scalar_type(section: &Section<'_>, at: &At<String>) -> Option<ScalarType> {
    let mut kind = ScalarType::parse(&at.value).map_err(|message| section.report(at.line, message)).ok()?;
    match &mut kind {
        ScalarType::Date32(format) | ScalarType::Timestamp(format) => *format = read_time_format(section, format.form),
        _ => {
            if section.has("zone") || section.has("day") {
                section.report(at.line, "zone and day are for timestamp and date32");
            }
            // It is known, and means nothing for this type.
            let _ = read_time_format(section, TimeForm::Rfc3339);
        }
    }
    if let ScalarType::Date32(format) | ScalarType::Timestamp(format) = kind
        && let Some(problem) = format.problem(matches!(kind, ScalarType::Date32(_)))
    {
        section.report(at.line, problem);
    }
    Some(kind)
}

fn read_member(section: Section<'_>) -> Option<Member> {
    let name = section.required_text("name");
    let path = match section.text("pointer") {
        Some(at) => pointer(&section, &at).map(|at| at.value),
        None => name.as_ref().map(|name| Pointer::of_key(&name.value)),
    };
    let kind = section.required_text("type").and_then(|at| scalar_type(&section, &at));
    let field = read_rules(&section);
    section.finish();
    Some(Member { name: name?, pointer: path?, kind: kind?, field })
}

fn read_rules(section: &Section<'_>) -> FieldRules {
    FieldRules {
        required: section.flag("required").is_some_and(|at| at.value),
        accept_text: section.flag("accept_text").is_some_and(|at| at.value),
        accept_number: section.flag("accept_number").is_some_and(|at| at.value),
        accept_bool: section.flag("accept_bool").is_some_and(|at| at.value),
        round: section.flag("round").is_some_and(|at| at.value),
        on_error: read_on_error(section),
        unique: section.flag("unique").is_some_and(|at| at.value),
        personal: section.flag("personal").map(|at| at.value),
        anonymize: section.section("anonymize").and_then(read_rule),
        allow: section.texts("allow"),
        min: section.number("min"),
        max: section.number("max"),
        not_before: read_not_before(section),
        not_after: read_not_after(section),
        min_length: section.integer("min_length"),
        max_length: section.integer("max_length"),
        one_of: section.scalars("one_of"),
        pattern: section.text("pattern"),
    }
}

fn read_rule(section: Section<'_>) -> Option<At<Rule>> {
    let rule = Rule::read(&section);
    section.finish();
    rule
}

fn read_lookup(section: Section<'_>) -> Option<Lookup> {
    let name = section.required_text("name");
    let file = section.required_text("file");
    let key = section.required_text("key");
    let on = section.required_text("on");
    let reject_missing = match section.text("missing") {
        None => false,
        Some(at) if at.value == "null" => false,
        Some(at) if at.value == "reject" => true,
        Some(at) => {
            section.report(at.line, format!("missing is \"null\" or \"reject\", not \"{}\"", at.value));
            false
        }
    };
    section.finish();
    Some(Lookup { name: name?, file: file?, key: key?, on: on?, reject_missing })
}
