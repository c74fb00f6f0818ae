//! Whether a definition makes sense as a whole.
//!
//! Owns: every check that needs more than one key, such as an unknown partition column, a personal field without a rule, or
//! a rule that does not fit its type. Does not own: the form of single keys (`read`), decoding (`plan`).
//!
//! Every message says what to write instead.

use std::collections::HashMap;

use crate::dataset::definition::{Column, Definition, EventTime, FieldRules, Kind, Member, OnError, Source, TimePart};
use crate::dataset::pattern::Pattern;
use crate::dataset::personal::looks_personal;
use crate::dataset::plan::Partition;
use crate::dataset::pointer::Pointer;
use crate::dataset::rule::{Rule, invalid_pattern};
use crate::dataset::types::ScalarType;
use crate::layout::{DATE_PARTS, RESERVED_DATASETS};
use crate::toml_reader::{At, Problem, Problems, Scalar, nearest};

/// Columns that every file has in addition to those of the definition.
pub(crate) const INGEST_COLUMNS: [&str; 5] =
    ["ingest_stream", "ingest_shard", "ingest_sequence", "ingest_subsequence", "ingest_arrival_time"];

/// Every problem of a definition; `file` is only for messages.
pub(crate) fn check(file: &str, definition: &Definition) -> Problems {
    let mut checker = Checker { file, problems: Problems::default() };
    checker.names(definition);
    checker.partitions(definition);
    for column in &definition.columns {
        checker.column(definition, column);
    }
    checker.lookups(definition);
    checker.times(definition);
    checker.problems
}

/// Finds rules that recognize a dataset by a field inside an embedded document, of this or another dataset. Whether such a
/// field is seen would depend on the dataset by whose plan the record happens to be scanned first.
pub(crate) fn recognized_outside(file: &str, definition: &Definition, all: &[Definition]) -> Problems {
    let mut checker = Checker { file, problems: Problems::default() };
    for rule in &definition.recognize {
        let compared = rule.equals.iter().map(|(pointer, _)| pointer);
        for pointer in rule.present.iter().chain(&rule.absent).chain(compared) {
            let inside = |document: &&At<Pointer>| pointer.value.is_below(&document.value);
            for other in all {
                if let Some(document) = other.embedded.iter().find(inside) {
                    let message = format!(
                        "{} is inside {}, which '{}' reads as an embedded document: recognize records by a field outside",
                        pointer.value, document.value, other.name.value
                    );
                    checker.report(pointer.line, message);
                }
            }
        }
    }
    checker.problems
}

struct Checker<'a> {
    file: &'a str,
    problems: Problems,
}

impl Checker<'_> {
    fn report(&mut self, line: usize, message: impl Into<String>) {
        self.problems.push(Problem { file: self.file.to_owned(), line, message: message.into() });
    }

    fn names(&mut self, definition: &Definition) {
        let name = &definition.name;
        if !is_name(&name.value) || RESERVED_DATASETS.contains(&name.value.as_str()) {
            self.report(name.line, format!("'{}' is not a valid name for a dataset: {NAME_RULE}", name.value));
        }
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for column in &definition.columns {
            let At { value: name, line } = &column.name;
            if !is_name(name) {
                self.report(*line, format!("'{name}' is not a valid name for a column: {NAME_RULE}"));
            }
            if INGEST_COLUMNS.contains(&name.as_str()) {
                self.report(*line, format!("column '{name}' is in every file already: give yours another name"));
            }
            if DATE_PARTS.contains(&name.as_str()) && definition.partition_by.value.contains(name) {
                self.report(*line, format!("'{name}' is a partition made from the event time: rename the column"));
            }
            if let Some(first) = seen.insert(name, *line) {
                self.report(*line, format!("two columns are named '{name}'; the first is at line {first}"));
            }
        }
    }

    fn partitions(&mut self, definition: &Definition) {
        let At { value: names, line } = &definition.partition_by;
        if names.is_empty() {
            self.report(*line, "partition_by is empty: name columns, or year, month, day");
        }
        let texts = names.iter().filter(|name| !DATE_PARTS.contains(&name.as_str())).count();
        if texts > Partition::TEXTS_MAX {
            self.report(*line, format!("partition_by names more than {} columns", Partition::TEXTS_MAX));
        }
        for (n, name) in names.iter().enumerate() {
            if names[..n].contains(name) {
                self.report(*line, format!("partition '{name}' is named twice"));
            }
            if DATE_PARTS.contains(&name.as_str()) {
                continue;
            }
            let Some(column) = definition.columns.iter().find(|column| column.name.value == *name) else {
                let known = definition.columns.iter().map(|column| column.name.value.as_str()).chain(DATE_PARTS);
                let hint = nearest(name, known).map_or_else(
                    || "name one of its columns, or year, month, day".to_owned(),
                    |known| format!("did you mean '{known}'?"),
                );
                self.report(*line, format!("there is no column '{name}' to partition by; {hint}"));
                continue;
            };
            let is_text = matches!(column.kind, Kind::Scalar(ScalarType::String)) && !column.field.unique;
            if !is_text || !matches!(column.source, Source::Pointer(_)) || column.field.is_dropped() {
                self.report(
                    *line,
                    format!("'{name}' cannot be a partition: it must be a string column with a pointer"),
                );
            }
        }
    }

    fn column(&mut self, definition: &Definition, column: &Column) {
        let At { value: name, line } = &column.name;
        let line = *line;
        let computed = !matches!(column.source, Source::Pointer(_));
        if computed && (column.field.required || column.field.anonymize.is_some()) {
            self.report(line, format!("'{name}' is computed: required and anonymize do not apply"));
        }
        self.on_error(name, line, definition.partition_by.value.contains(name), computed, &column.field);
        if computed && is_constrained(&column.field) {
            self.report(line, format!("'{name}' is computed: constraints and hints do not apply"));
        }
        if matches!(column.kind, Kind::Struct(_) | Kind::ListOfStructs(_)) && is_constrained(&column.field) {
            self.report(line, format!("'{name}' has fields: put constraints and hints on the fields"));
        }
        if let Source::Lookup { column: from, .. } = &column.source
            && column.field.personal != Some(false)
            && let Some(meaning) = looks_personal(name).or_else(|| looks_personal(from))
        {
            self.report(
                line,
                format!(
                    "'{name}' looks like {meaning}, and lookup values are written as they are: leave it out, \
                     or state personal = false"
                ),
            );
        }
        match (&column.source, &column.kind) {
            (Source::Pointer(pointer), Kind::Scalar(kind)) => self.value(name, line, pointer, *kind, &column.field),
            (Source::Pointer(pointer), Kind::List(kind)) => {
                if *kind == ScalarType::Json {
                    self.report(
                        line,
                        format!("'{name}': a list of json is not supported; make the column itself json"),
                    );
                }
                self.value(name, line, pointer, *kind, &column.field);
            }
            (Source::Pointer(pointer), Kind::Map(kind) | Kind::MapOfLists(kind)) => {
                self.map(name, line, pointer, *kind, &column.field);
            }
            (Source::Pointer(pointer), Kind::Struct(members) | Kind::ListOfStructs(members)) => {
                self.members(name, line, pointer, members);
            }
            (Source::EventTime(TimePart::Whole) | Source::ArrivalTime, Kind::Scalar(kind)) => {
                if !kind.is_time() {
                    self.report(line, format!("'{name}' is a time: its type is timestamp or date32"));
                }
            }
            (Source::EventTime(_), Kind::Scalar(kind)) => {
                if *kind != ScalarType::Int32 {
                    self.report(line, format!("'{name}' is a part of a date: its type is int32"));
                }
            }
            (Source::UnknownFields, kind) => {
                if !matches!(kind, Kind::Scalar(ScalarType::Json)) {
                    self.report(line, format!("'{name}' holds unknown fields as one JSON text: its type is json"));
                }
                if column.field.allow.is_none() {
                    self.report(line, format!("'{name}' {ALLOW_RULE}"));
                }
            }
            (Source::Lookup { lookup, .. }, kind) => {
                if !definition.lookups.iter().any(|known| known.name.value == *lookup) {
                    self.report(line, format!("'{name}': there is no [[lookup]] named '{lookup}'"));
                }
                if !matches!(kind, Kind::Scalar(kind) if kind.is_lookup_value()) {
                    self.report(line, format!("'{name}' comes from a lookup: its type is string, int64 or float64"));
                }
            }
            (_, _) => self.report(line, format!("'{name}' is computed: its type cannot be a list, map or struct")),
        }
    }

    fn members(&mut self, name: &str, line: usize, above: &Pointer, members: &[Member]) {
        for (n, member) in members.iter().enumerate() {
            if !is_name(&member.name.value) {
                self.report(
                    member.name.line,
                    format!("'{}' is not a valid name for a field: {NAME_RULE}", member.name.value),
                );
            }
            if members[..n].iter().any(|other| other.name.value == member.name.value) {
                self.report(member.name.line, format!("two fields of '{name}' are named '{}'", member.name.value));
            }
            let path = format!("{name}.{}", member.name.value);
            self.on_error(&path, member.name.line, false, false, &member.field);
            self.value(&path, member.name.line, &above.join(&member.pointer), member.kind, &member.field);
        }
        if members.iter().all(|member| member.field.is_dropped()) {
            self.report(line, format!("every field of '{name}' is dropped: drop the column itself"));
        }
    }

    /// Checks what a value costs that does not fit: it can be null only where a null can stand.
    fn on_error(&mut self, name: &str, line: usize, is_partition: bool, is_computed: bool, rules: &FieldRules) {
        let Some(at) = &rules.on_error else { return };
        let why_not = match at.value {
            _ if is_computed => "is computed: on_error does not apply",
            OnError::Null if rules.required => "is required: a value that does not fit rejects the record",
            OnError::Null if is_partition => "is a partition: a value that does not fit rejects the record",
            _ => return,
        };
        self.report(line, format!("'{name}' {why_not}"));
    }

    fn map(&mut self, name: &str, line: usize, pointer: &Pointer, kind: ScalarType, rules: &FieldRules) {
        if !kind.is_map_value() {
            self.report(line, format!("'{name}': the values of a map are string, int64, float64 or bool"));
        }
        if rules.allow.is_none() {
            self.report(line, format!("'{name}' {ALLOW_RULE}"));
        }
        // By listing the keys, the author states that they are harmless; the name of the map does not matter then.
        let rules = FieldRules { personal: rules.personal.or(Some(false)), ..rules.clone() };
        self.value(name, line, pointer, kind, &rules);
    }

    fn value(&mut self, name: &str, line: usize, pointer: &Pointer, kind: ScalarType, rules: &FieldRules) {
        self.personal(name, line, pointer, rules);
        if kind == ScalarType::Json && rules.personal.is_none() {
            self.report(
                line,
                format!("'{name}' is free-form JSON: state personal = false if nothing personal is in it"),
            );
        }
        if let Some(rule) = &rules.anonymize {
            self.rule(name, rule, kind);
        }
        let is_number_for_rule = rules.input_of_rule().is_some();
        let number = is_number_for_rule || kind.is_number();
        let text = kind == ScalarType::String && !is_number_for_rule;
        for bound in [&rules.min, &rules.max].into_iter().flatten() {
            if !number {
                self.report(bound.line, format!("'{name}' is not a number: min and max do not apply"));
            }
        }
        for bound in [&rules.min_length, &rules.max_length].into_iter().flatten() {
            if !text || bound.value < 0 {
                self.report(bound.line, format!("'{name}': lengths apply to strings, and are not negative"));
            }
        }
        if let Some(pattern) = &rules.pattern {
            if !text {
                self.report(pattern.line, format!("'{name}' is not a string: pattern does not apply"));
            }
            self.pattern(name, pattern);
        }
        if let Some(one_of) = &rules.one_of
            && (!text || one_of.value.iter().any(|value| !matches!(value, Scalar::Text(_))))
        {
            self.report(one_of.line, format!("'{name}': one_of lists the strings that a string may be"));
        }
        if rules.unique && !text {
            self.report(line, format!("'{name}': unique is a hint for strings"));
        }
        let is_number_time =
            matches!(kind, ScalarType::Date32(format) | ScalarType::Timestamp(format) if !format.form.is_text());
        if rules.accept_text && !number && kind != ScalarType::Bool && !is_number_time {
            self.report(line, format!("'{name}': accept_text is for numbers and booleans that come as strings"));
        }
        if rules.round && !matches!(kind, ScalarType::Decimal { .. }) {
            self.report(line, format!("'{name}': round is for decimals"));
        }
        if (rules.accept_number || rules.accept_bool) && !text {
            self.report(line, format!("'{name}': accept_number and accept_bool are for strings"));
        }
        for bound in [&rules.not_before, &rules.not_after].into_iter().flatten() {
            if !kind.is_time() {
                self.report(bound.line, format!("'{name}' is not a time: not_before and not_after do not apply"));
            }
        }
        if let (Some(first), Some(last)) = (&rules.not_before, &rules.not_after)
            && first.value > last.value
        {
            self.report(last.line, format!("'{name}': not_after is before not_before"));
        }
    }

    fn personal(&mut self, name: &str, line: usize, pointer: &Pointer, rules: &FieldRules) {
        if rules.anonymize.is_some() {
            return;
        }
        if rules.personal == Some(true) {
            self.report(line, format!("'{name}' is personal and has no rule: {RULE_HINT}"));
        }
        if rules.personal.is_some() {
            return;
        }
        let last = name.rsplit('.').next().unwrap_or(name);
        let key = pointer.keys().last().map_or("", String::as_str);
        if let Some(meaning) = looks_personal(last).or_else(|| looks_personal(key)) {
            self.report(
                line,
                format!(
                    "'{name}' ({pointer}) looks like {meaning} and has no rule: {RULE_HINT}, or state personal = false"
                ),
            );
        }
    }

    fn rule(&mut self, name: &str, rule: &At<Rule>, kind: ScalarType) {
        if let Some(problem) = rule.value.problem() {
            self.report(rule.line, format!("'{name}': {problem}"));
        }
        if let Some(wanted) = rule.value.applies_to().filter(|wanted| *wanted != kind.spec().name) {
            let hint = if kind.is_number() && wanted == "string" && rule.value.input().is_none() {
                ", and accept_number = true if the values are numbers"
            } else {
                ""
            };
            self.report(rule.line, format!("'{name}': this rule makes a {wanted}; set type = \"{wanted}\"{hint}"));
        }
    }

    fn pattern(&mut self, name: &str, pattern: &At<String>) {
        if let Err(problem) = Pattern::new(&pattern.value) {
            self.report(pattern.line, format!("'{name}': {}", invalid_pattern(&pattern.value, &problem)));
        }
    }

    fn lookups(&mut self, definition: &Definition) {
        for lookup in &definition.lookups {
            let on = definition.columns.iter().find(|column| column.name.value == lookup.on.value);
            let joins = on.is_some_and(|column| {
                matches!(column.kind, Kind::Scalar(ScalarType::String))
                    && !column.field.unique
                    && matches!(column.source, Source::Pointer(_))
                    && !column.field.is_dropped()
                    && column.field.input_of_rule().is_none()
            });
            if !joins {
                self.report(
                    lookup.on.line,
                    format!(
                        "lookup '{}' joins on '{}', which is not a string column with a pointer",
                        lookup.name.value, lookup.on.value
                    ),
                );
            }
        }
    }

    fn times(&mut self, definition: &Definition) {
        let fields = [Some(&definition.event_time.field), definition.arrival_time.as_ref()];
        let EventTime { not_before_ms, not_after_ms, .. } = definition.event_time;
        if not_before_ms > not_after_ms {
            self.report(definition.event_time.field.pointer.line, "[event_time] not_after is before not_before");
        }
        for field in fields.into_iter().flatten() {
            if !field.format.form.has_time() && field.pointer != definition.event_time.field.pointer {
                self.report(
                    field.pointer.line,
                    "an arrival time needs a time of day: use rfc3339, epoch_ms or epoch_s",
                );
            }
            if field.accept_text && field.format.form.is_text() {
                self.report(
                    field.pointer.line,
                    "accept_text is for numbers that come as strings; this format is a text",
                );
            }
        }
    }
}

/// Whether the column has constraints, or hints about its values.
fn is_constrained(rules: &FieldRules) -> bool {
    let numbers = rules.min.is_some() || rules.max.is_some();
    let times = rules.not_before.is_some() || rules.not_after.is_some();
    let lengths = rules.min_length.is_some() || rules.max_length.is_some();
    let accepts = rules.round || rules.accept_text || rules.accept_number || rules.accept_bool;
    numbers || times || lengths || accepts || rules.one_of.is_some() || rules.pattern.is_some() || rules.unique
}

const NAME_RULE: &str = "use lower-case letters, digits and '_', starting with a letter, 64 at most";
const RULE_HINT: &str = "add anonymize = { rule = \"pseudonym\" }, \"drop\" or another";
const ALLOW_RULE: &str = "is free-form and needs allow = [\"key\", …]: keys that are not listed are never written";

fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}
