//! Compiles definitions to plans.

use regex::Regex;

use crate::Error;
use crate::definition::{Column as ColumnText, Definition, Form, OnError, Recognize, Rule, Type, Unit};
use crate::leaf::{Leaf, Output, Transform};
use crate::plan::{
    Allow, Column, Input, InputKind, Node, Object, Others, Partition, Plan, Read, Source, Time, TimePart, Way,
};
use crate::time::{DAY_US, TimeFormat, bound};

/// Compiles a definition file.
pub(crate) fn compile(text: &str) -> Result<Plan, Error> {
    let definition: Definition = toml::from_str(text)?;
    let name = definition.name.clone();
    compiled(definition).map_err(|message| Error::Definition { name, message })
}

fn compiled(definition: Definition) -> Result<Plan, String> {
    let mut compiler = Compiler { record: Node::default(), slots: 0, columns: Vec::new() };
    for pointer in &definition.embedded {
        let embedded = Object { embedded: true, ..Object::default() };
        compiler.record.plant(&path(pointer)?, Read::Object(Box::new(embedded)))?;
    }
    for mut column in definition.columns {
        let in_file = !definition.partition_by.contains(&column.name);
        let default = definition.on_error.unwrap_or(OnError::Reject);
        let apply = |of: &mut ColumnText| {
            of.on_error = of.on_error.or(Some(if of.required { OnError::Reject } else { default }));
        };
        column.members.iter_mut().for_each(apply);
        if in_file {
            apply(&mut column);
        }
        compiler.column(column, in_file)?;
    }
    for (name, source) in [
        ("ingest_stream", Source::Stream),
        ("ingest_shard", Source::Shard),
        ("ingest_sequence", Source::Sequence),
        ("ingest_subsequence", Source::SubSequence),
        ("ingest_arrival_time", Source::ArrivalTime { as_date: false }),
    ] {
        compiler.columns.push(Column { name: name.to_owned(), source, in_file: true });
    }
    let event = &definition.event_time;
    let event_time = compiler.time(&event.pointer, &event.format, event.zone.as_deref(), event.accept_text)?;
    let arrival_time = match &definition.arrival_time {
        Some(field) => Some(compiler.time(&field.pointer, &field.format, field.zone.as_deref(), field.accept_text)?),
        None => None,
    };
    let last = |text: &String| bound(text, true);
    let ways = definition.recognize.into_iter().map(way).collect::<Result<Vec<_>, String>>()?;
    for way in &ways {
        // The definition names these keys too.
        let paths = way.present.iter().chain(&way.absent).chain(way.equals.iter().map(|(path, _)| path));
        paths.into_iter().try_for_each(|path| compiler.record.plant(path, Read::Nothing))?;
    }
    let partitions = definition.partition_by.iter().map(|name| compiler.partition(name));
    let partitions = partitions.collect::<Result<_, String>>()?;
    Ok(Plan {
        name: definition.name,
        ways,
        record: compiler.record,
        slots: compiler.slots,
        event_time,
        not_before_us: bound(&event.not_before, false)?,
        not_after_us: event.not_after.as_ref().map_or(Ok(i64::MAX), last)?,
        ahead_max_us: hours_to_us(event.ahead_max_hours),
        arrival_time,
        columns: compiler.columns,
        partitions,
    })
}

#[expect(clippy::cast_possible_truncation, reason = "a number of hours that a person wrote")]
fn hours_to_us(hours: f64) -> i64 {
    ((hours * 3_600_000.0) as i64).saturating_mul(1000)
}

struct Compiler {
    record: Node,
    slots: usize,
    columns: Vec<Column>,
}

impl Compiler {
    fn slot(&mut self) -> usize {
        self.slots += 1;
        self.slots - 1
    }

    fn time(&mut self, pointer: &str, form: &Form, zone: Option<&str>, accept_text: bool) -> Result<Time, String> {
        let slot = self.slot();
        let kind = time_input(form);
        let input =
            Input { kind, accept_text, accept_number: false, accept_bool: false, round: false, is_lenient: false };
        self.record.plant(&path(pointer)?, Read::Scalars(vec![(slot, input)]))?;
        Ok(Time { slot, format: TimeFormat::new(form.clone(), zone, false)? })
    }

    fn column(&mut self, mut column: ColumnText, in_file: bool) -> Result<(), String> {
        let name = std::mem::take(&mut column.name);
        let source = match (&column.pointer, &column.from) {
            (Some(pointer), None) => {
                let path = path(pointer)?;
                if column.anonymize == Some(Rule::Drop) {
                    return self.record.plant(&path, Read::Nothing);
                }
                self.read(&path, column)?
            }
            (None, Some(from)) => match from.as_str() {
                "unknown_fields" => {
                    let slot = self.slot();
                    self.record.others = Others::Collected { slot, allow: Allow::new(column.allow) };
                    Source::Json { slot, required: false }
                }
                from => computed(from, column.kind)?,
            },
            _ => return Err(format!("column '{name}' needs either pointer or from")),
        };
        self.columns.push(Column { name, source, in_file });
        Ok(())
    }

    /// A column that reads a field of the record.
    fn read(&mut self, path: &[String], mut column: ColumnText) -> Result<Source, String> {
        let slot = self.slot();
        let is_lenient = is_lenient(&column);
        match column.kind {
            Type::Json => {
                self.record.plant(path, Read::Json(slot, is_lenient))?;
                Ok(Source::Json { slot, required: column.required })
            }
            Type::List if column.members.is_empty() => {
                let element = column.element.ok_or("a list needs element or field")?;
                let (input, leaf) = (input(element, &column), leaf(element, &column)?);
                self.record.plant(path, Read::List(slot, input))?;
                Ok(Source::List(slot, leaf))
            }
            Type::List => {
                let mut element = Node::default();
                let mut leaves = Vec::new();
                for member in kept(std::mem::take(&mut column.members)) {
                    plant_scalar(&mut element, &member_path(&member)?, leaves.len(), &member)?;
                    leaves.push((member.name.clone(), leaf(member.kind, &member)?));
                }
                self.record.plant(path, Read::Objects { slot, element, width: leaves.len(), is_lenient })?;
                Ok(Source::Objects { slot, required: column.required, members: leaves })
            }
            Type::Map => {
                let value = column.value.ok_or("a map needs value")?;
                let of_lists = value == Type::List;
                let value = if of_lists { column.element.ok_or("a list needs element")? } else { value };
                let (input, leaf) = (input(value, &column), leaf(value, &column)?);
                let others = Others::Map { slot, value: input, of_lists, allow: Allow::new(column.allow) };
                let node = Node { others, ..Node::default() };
                let object = Object { node, is_strict: !is_lenient, ..Object::default() };
                self.record.plant(path, Read::Object(Box::new(object)))?;
                Ok(if of_lists { Source::MapOfLists(slot, leaf) } else { Source::Map(slot, leaf) })
            }
            Type::Struct => {
                let object = Object { presence: Some(slot), is_strict: !is_lenient, ..Object::default() };
                self.record.plant(path, Read::Object(Box::new(object)))?;
                let mut members = Vec::new();
                for member in column.members {
                    let path = [path, &member_path(&member)?].concat();
                    if member.anonymize == Some(Rule::Drop) {
                        self.record.plant(&path, Read::Nothing)?;
                        continue;
                    }
                    let slot = self.slot();
                    plant_scalar(&mut self.record, &path, slot, &member)?;
                    members.push((member.name.clone(), slot, leaf(member.kind, &member)?));
                }
                Ok(Source::Struct { presence: slot, required: column.required, members })
            }
            kind => {
                plant_scalar(&mut self.record, path, slot, &column)?;
                Ok(Source::Scalar(slot, leaf(kind, &column)?))
            }
        }
    }

    fn partition(&self, name: &str) -> Result<Partition, String> {
        Ok(match name {
            "year" => Partition::Year,
            "month" => Partition::Month,
            "day" => Partition::Day,
            _ => Partition::Text(
                self.columns
                    .iter()
                    .position(|column| column.name == name)
                    .ok_or_else(|| format!("no column '{name}' to partition by"))?,
            ),
        })
    }
}

fn kept(members: Vec<ColumnText>) -> impl Iterator<Item = ColumnText> {
    members.into_iter().filter(|member| member.anonymize != Some(Rule::Drop))
}

fn plant_scalar(node: &mut Node, path: &[String], slot: usize, column: &ColumnText) -> Result<(), String> {
    let read = match column.kind {
        Type::Json => Read::Json(slot, is_lenient(column)),
        kind => Read::Scalars(vec![(slot, input(kind, column))]),
    };
    node.plant(path, read)
}

fn member_path(member: &ColumnText) -> Result<Vec<String>, String> {
    match &member.pointer {
        Some(pointer) => path(pointer),
        None => Ok(vec![member.name.clone()]),
    }
}

/// The keys of a JSON Pointer.
fn path(pointer: &str) -> Result<Vec<String>, String> {
    let keys = pointer.strip_prefix('/').ok_or_else(|| format!("'{pointer}' is not a JSON Pointer"))?;
    Ok(keys.split('/').map(|key| key.replace("~1", "/").replace("~0", "~")).collect())
}

fn way(recognize: Recognize) -> Result<Way, String> {
    let paths = |pointers: &[String]| pointers.iter().map(|pointer| path(pointer)).collect::<Result<_, String>>();
    Ok(Way {
        present: paths(&recognize.present)?,
        absent: paths(&recognize.absent)?,
        equals: recognize
            .equals
            .into_iter()
            .map(|(pointer, values)| Ok((path(&pointer)?, values.into_vec())))
            .collect::<Result<_, String>>()?,
    })
}

fn computed(from: &str, kind: Type) -> Result<Source, String> {
    let as_date = kind == Type::Date32;
    Ok(match from {
        "event_time" if as_date => Source::EventTime(TimePart::Date),
        "event_time" => Source::EventTime(TimePart::Instant),
        "event_time.year" => Source::EventTime(TimePart::Year),
        "event_time.month" => Source::EventTime(TimePart::Month),
        "event_time.day" => Source::EventTime(TimePart::Day),
        "event_time.hour" => Source::EventTime(TimePart::Hour),
        "arrival_time" => Source::ArrivalTime { as_date },
        other => return Err(format!("a column from '{other}' is not supported")),
    })
}

fn is_lenient(column: &ColumnText) -> bool {
    column.on_error == Some(OnError::Null)
}

fn time_input(form: &Form) -> InputKind {
    match form {
        Form::Rfc3339 | Form::Date | Form::Pattern(_) => InputKind::Text,
        Form::EpochMs | Form::EpochUs | Form::EpochNs => InputKind::Int,
        Form::EpochS => InputKind::Float,
    }
}

fn form(kind: Type, column: &ColumnText) -> Form {
    column.format.clone().unwrap_or(if kind == Type::Date32 { Form::Date } else { Form::Rfc3339 })
}

fn input(kind: Type, column: &ColumnText) -> Input {
    let kind = match kind {
        _ if matches!(column.anonymize, Some(Rule::AgeBand { .. })) => InputKind::Int,
        Type::Int32 | Type::Int64 => InputKind::Int,
        Type::Float64 => InputKind::Float,
        Type::Decimal(digits) => InputKind::Decimal(digits),
        Type::Bool => InputKind::Bool,
        Type::Date32 | Type::Timestamp => time_input(&form(kind, column)),
        _ => InputKind::Text,
    };
    let ColumnText { accept_text, accept_number, accept_bool, round, .. } = *column;
    Input { kind, accept_text, accept_number, accept_bool, round, is_lenient: is_lenient(column) }
}

fn leaf(kind: Type, column: &ColumnText) -> Result<Leaf, String> {
    let regex = |pattern: &String| Regex::new(pattern).map_err(|error| error.to_string());
    let output = match kind {
        Type::Int32 => Output::Int32,
        Type::Int64 => Output::Int64,
        Type::Float64 => Output::Float64,
        Type::Decimal(digits) => Output::Decimal(digits),
        Type::Bool => Output::Bool,
        Type::Date32 => Output::Date32,
        Type::Timestamp => Output::Timestamp,
        Type::String | Type::Json => Output::Text,
        other => return Err(format!("a value can't be a {other:?}")),
    };
    let transform = match &column.anonymize {
        None | Some(Rule::Drop) => Transform::Keep,
        Some(Rule::Pseudonym) => Transform::Pseudonym,
        Some(Rule::AgeBand { bands }) => Transform::AgeBand(bands.clone()),
        Some(Rule::Region { keep }) => Transform::Region(keep.iter().map(|name| name.to_lowercase()).collect()),
        Some(Rule::TruncateIp) => Transform::TruncateIp,
        Some(Rule::EmailDomain) => Transform::EmailDomain,
        Some(Rule::TruncateTime { to: Unit::Hour }) => Transform::TruncateTime(3_600_000_000),
        Some(Rule::TruncateTime { to: Unit::Day }) => Transform::TruncateTime(DAY_US),
        Some(Rule::Match { pattern }) => Transform::Match(regex(pattern)?),
    };
    Ok(Leaf {
        output,
        format: TimeFormat::new(form(kind, column), column.zone.as_deref(), column.day.as_deref() == Some("written"))?,
        is_lenient: is_lenient(column),
        not_before_us: column.not_before.as_ref().map_or(Ok(i64::MIN), |text| bound(text, false))?,
        not_after_us: column.not_after.as_ref().map_or(Ok(i64::MAX), |text| bound(text, true))?,
        required: column.required,
        min: column.min,
        max: column.max,
        min_length: column.min_length.unwrap_or(0),
        max_length: column.max_length.unwrap_or(usize::MAX),
        one_of: column.one_of.clone(),
        pattern: column.pattern.as_ref().map(regex).transpose()?,
        transform,
    })
}
