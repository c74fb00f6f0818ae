//! From a checked definition to a plan.
//!
//! Owns: which inputs, shapes and leaves each column needs, in the order of the file: the definition's columns, then the
//! ingest columns. Does not own: what a type or a rule implies (`types`, `rule`), whether the definition makes sense
//! (`check`).
//!
//! One kind of mistake shows only while the decode tree grows, and is reported here: one field is read in two ways that
//! exclude each other.

use sha2::{Digest, Sha256};

use crate::dataset::check::INGEST_COLUMNS;
use crate::dataset::definition::{Column, Definition, FieldRules, Kind, Member, Source, TimeField};
use crate::dataset::input_kind::{InputKind, Reading};
use crate::dataset::keys::AllowList;
use crate::dataset::lookup::LookupTable;
use crate::dataset::pattern::Pattern;
use crate::dataset::plan::{
    Checks, ColumnType, EventTimeInput, Input, InputId, Leaf, LeafSource, MapInputs, Nest, Partition, Plan,
    PlannedColumn, PlannedLookup, Shape, ShapeId, ShapeKind, TextChecks,
};
use crate::dataset::pointer::Pointer;
use crate::dataset::recognize::Markers;
use crate::dataset::time_format::{TimeForm, TimeFormat};
use crate::dataset::tree::{Draft, Target};
use crate::dataset::types::ScalarType;
use crate::layout::DATE_PARTS;
use crate::time::DAY_US;
use crate::toml_reader::{At, Problem, Problems, Scalar};

/// Reads the lookup table of a file and key column; `Err`: a sentence that says why this failed.
pub type Tables<'t> = dyn Fn(&str, &str) -> Result<LookupTable, String> + 't;

/// Compiles a checked definition with its text. `markers` has the marks by which records are recognized, and `dataset` is
/// the number of the definition in them. `file` is only for messages.
pub(crate) fn compile(
    file: &str,
    definition: &Definition,
    text: &str,
    (markers, dataset): (&Markers, usize),
    tables: &Tables<'_>,
) -> Result<Plan, Problems> {
    let mut compiler = Compiler { file, problems: Problems::default(), ..Compiler::default() };
    for at in &definition.embedded {
        compiler.draft.embed(&at.value);
    }
    compiler.read_lookups(definition, tables);
    for column in &definition.columns {
        compiler.column(definition, column);
    }
    compiler.join_lookups(definition);
    compiler.ingest_columns();
    let event_time = EventTimeInput {
        input: compiler.time_input(&definition.event_time.field),
        format: definition.event_time.field.format,
        not_before_ms: definition.event_time.not_before_ms,
        not_after_ms: definition.event_time.not_after_ms,
        ahead_max_ms: definition.event_time.ahead_max_ms,
    };
    let arrival_time = definition.arrival_time.as_ref().map(|field| (compiler.time_input(field), field.format));
    let partitions = definition.partition_by.value.iter().filter_map(|name| compiler.partition(name)).collect();
    markers.mark(dataset, &mut compiler.draft);
    compiler.finish(definition, text, event_time, arrival_time, partitions)
}

#[derive(Default)]
struct Compiler<'a> {
    file: &'a str,
    problems: Problems,
    draft: Draft,
    inputs: Vec<Input>,
    shapes: Vec<Shape>,
    leaves: Vec<Leaf>,
    columns: Vec<PlannedColumn>,
    lookups: Vec<Option<PlannedLookup>>,
}

impl Compiler<'_> {
    fn report(&mut self, line: usize, message: impl Into<String>) {
        self.problems.push(Problem { file: self.file.to_owned(), line, message: message.into() });
    }

    fn finish(
        mut self,
        definition: &Definition,
        text: &str,
        event_time: EventTimeInput,
        arrival_time: Option<(InputId, TimeFormat)>,
        partitions: Vec<Partition>,
    ) -> Result<Plan, Problems> {
        let nodes = match std::mem::take(&mut self.draft).build() {
            Ok(nodes) => nodes,
            Err(messages) => {
                messages.into_iter().for_each(|message| self.report(0, message));
                Vec::new()
            }
        };
        self.readings();
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        let lookups: Vec<PlannedLookup> = self.lookups.into_iter().flatten().collect();
        Ok(Plan {
            name: definition.name.value.as_str().into(),
            version: version(text, &lookups),
            nodes,
            inputs: self.inputs,
            shapes: self.shapes,
            leaves: self.leaves,
            columns: self.columns,
            partitions,
            event_time,
            arrival_time,
            lookups,
        })
    }

    /// Reports two readings of one field that no value fits.
    fn readings(&mut self) {
        let mut message = Vec::new();
        for (n, one) in self.inputs.iter().enumerate() {
            for other in &self.inputs[..n] {
                if one.pointer == other.pointer && one.shape == other.shape && !one.goes_with(other) {
                    let (first, second) = (other.kind.in_words(), one.kind.in_words());
                    message.push(format!("{} is read as {first} and as {second}: no value is both", one.pointer));
                }
            }
        }
        message.into_iter().for_each(|message| self.report(0, message));
    }

    /// Reads a target at a pointer. `is_lenient`: a value that does not fit is null, and does not reject the record.
    fn read(&mut self, line: usize, pointer: &Pointer, target: Target, is_lenient: bool) {
        if let Err(message) = self.draft.add(pointer, target, is_lenient) {
            self.report(line, message);
        }
    }

    fn input(&mut self, pointer: String, kind: InputKind, reading: Reading, shape: Option<ShapeId>) -> InputId {
        let same = |input: &Input| {
            input.pointer == pointer && input.kind == kind && input.reading == reading && input.shape == shape
        };
        self.inputs.iter().position(same).unwrap_or_else(|| {
            self.inputs.push(Input { pointer, kind, reading, shape, entries: Vec::new() });
            self.inputs.len() - 1
        })
    }

    fn shape(&mut self, pointer: &Pointer, kind: ShapeKind, rules: &FieldRules) -> ShapeId {
        let (required, is_lenient) = (rules.required, rules.is_lenient());
        self.shapes.push(Shape { pointer: pointer.to_string(), kind, within: None, required, is_lenient });
        self.shapes.len() - 1
    }

    fn time_input(&mut self, field: &TimeField) -> InputId {
        let reading = Reading { accept_text: field.accept_text, ..Reading::default() };
        let input = self.input(field.pointer.value.to_string(), field.format.input(), reading, None);
        self.read(field.pointer.line, &field.pointer.value, Target::Take(input), false);
        input
    }

    fn column(&mut self, definition: &Definition, column: &Column) {
        let At { value: name, line } = &column.name;
        let line = *line;
        if let (Source::Pointer(pointer), true) = (&column.source, column.field.is_dropped()) {
            self.read(line, pointer, Target::Known, true);
            return;
        }
        let in_file = !definition.partition_by.value.contains(name);
        let data_type = match (&column.source, &column.kind) {
            (Source::Pointer(pointer), Kind::Scalar(kind)) => {
                self.scalar(name, line, pointer, *kind, &column.field, in_file);
                ColumnType::Scalar(*kind)
            }
            (Source::Pointer(pointer), Kind::List(kind)) => {
                let shape = self.shape(pointer, ShapeKind::Repeated, &column.field);
                let (kind_read, reading) = (column.field.input(*kind), column.field.reading());
                let input = self.input(pointer.to_string(), kind_read, reading, Some(shape));
                self.read(line, pointer, Target::List { shape, element: input }, column.field.is_lenient());
                self.leaf(name.clone(), LeafSource::Input(input), Nest::Element(shape), *kind, &column.field);
                ColumnType::List(Box::new(ColumnType::Scalar(*kind)))
            }
            (Source::Pointer(pointer), Kind::Map(kind)) => {
                self.map(name, line, pointer, (*kind, false), &column.field);
                ColumnType::Map(Box::new(ColumnType::Scalar(*kind)))
            }
            (Source::Pointer(pointer), Kind::MapOfLists(kind)) => {
                self.map(name, line, pointer, (*kind, true), &column.field);
                ColumnType::Map(Box::new(ColumnType::List(Box::new(ColumnType::Scalar(*kind)))))
            }
            (Source::Pointer(pointer), Kind::Struct(members)) => {
                self.structure(name, line, pointer, (members, &column.field))
            }
            (Source::Pointer(pointer), Kind::ListOfStructs(members)) => {
                self.objects(name, line, pointer, (members, &column.field))
            }
            (source, Kind::Scalar(kind)) => {
                self.computed(name, line, source, *kind, column);
                ColumnType::Scalar(*kind)
            }
            // `check` has refused every other combination.
            _ => return,
        };
        self.columns.push(PlannedColumn {
            name: name.clone(),
            description: column.description.clone(),
            data_type,
            in_file,
        });
    }

    fn scalar(
        &mut self,
        name: &str,
        line: usize,
        pointer: &Pointer,
        kind: ScalarType,
        rules: &FieldRules,
        in_file: bool,
    ) {
        let input = self.input(pointer.to_string(), rules.input(kind), rules.reading(), None);
        let target = if kind == ScalarType::Json { Target::Json(input) } else { Target::Take(input) };
        self.read(line, pointer, target, rules.is_lenient());
        self.leaf(name.to_owned(), LeafSource::Input(input), Nest::Flat, kind, rules).in_file = in_file;
    }

    fn map(
        &mut self,
        name: &str,
        line: usize,
        pointer: &Pointer,
        (kind, of_lists): (ScalarType, bool),
        rules: &FieldRules,
    ) {
        let shape = self.shape(pointer, ShapeKind::Repeated, rules);
        let lists = of_lists.then(|| {
            let lists = self.shape(pointer, ShapeKind::Repeated, &FieldRules { required: false, ..rules.clone() });
            self.shapes[lists].within = Some(shape);
            lists
        });
        let key = self.input(format!("{pointer} (key)"), InputKind::Text, Reading::default(), Some(shape));
        let value = self.input(pointer.to_string(), rules.input(kind), rules.reading(), Some(lists.unwrap_or(shape)));
        let entries = rules.allow.as_ref().map_or_else(Vec::new, |at| at.value.clone());
        let allow = AllowList::new(&entries);
        self.inputs[value].entries = entries;
        self.read(line, pointer, Target::Map(MapInputs { shape, key, value, lists, allow }), rules.is_lenient());
        let plain = FieldRules::default();
        self.leaf(format!("{name}.key"), LeafSource::Input(key), Nest::MapKey(shape), ScalarType::String, &plain);
        let nest = lists.map_or(Nest::MapValue(shape), |lists| Nest::MapListElement { map: shape, lists });
        self.leaf(format!("{name}.value"), LeafSource::Input(value), nest, kind, rules);
    }

    fn structure(
        &mut self,
        name: &str,
        line: usize,
        pointer: &Pointer,
        (members, rules): (&[Member], &FieldRules),
    ) -> ColumnType {
        let shape = self.shape(pointer, ShapeKind::Struct, rules);
        self.read(line, pointer, Target::Struct(shape), rules.is_lenient());
        let mut fields = Vec::new();
        for member in members {
            let path = pointer.join(&member.pointer);
            if member.field.is_dropped() {
                self.read(member.name.line, &path, Target::Known, true);
                continue;
            }
            let kind = member.field.input(member.kind);
            let input = self.input(path.to_string(), kind, member.field.reading(), None);
            let target = if member.kind == ScalarType::Json { Target::Json(input) } else { Target::Take(input) };
            self.read(member.name.line, &path, target, member.field.is_lenient());
            let leaf_name = format!("{name}.{}", member.name.value);
            self.leaf(leaf_name, LeafSource::Input(input), Nest::InStruct(shape), member.kind, &member.field);
            fields.push((member.name.value.clone(), ColumnType::Scalar(member.kind)));
        }
        ColumnType::Struct(fields)
    }

    fn objects(
        &mut self,
        name: &str,
        line: usize,
        pointer: &Pointer,
        (members, rules): (&[Member], &FieldRules),
    ) -> ColumnType {
        let shape = self.shape(pointer, ShapeKind::Objects, rules);
        let mut read = Vec::new();
        let mut fields = Vec::new();
        for member in members {
            if member.field.is_dropped() {
                continue;
            }
            let kind = member.field.input(member.kind);
            let path = format!("{pointer}/*{}", member.pointer);
            let input = self.input(path, kind, member.field.reading(), Some(shape));
            let target = if member.kind == ScalarType::Json { Target::Json(input) } else { Target::Take(input) };
            read.push((member.pointer.clone(), target, member.field.is_lenient()));
            let leaf_name = format!("{name}.{}", member.name.value);
            self.leaf(leaf_name, LeafSource::Input(input), Nest::InElement(shape), member.kind, &member.field);
            fields.push((member.name.value.clone(), ColumnType::Scalar(member.kind)));
        }
        self.read(line, pointer, Target::Objects { shape, members: read }, rules.is_lenient());
        ColumnType::List(Box::new(ColumnType::Struct(fields)))
    }

    fn computed(&mut self, name: &str, line: usize, source: &Source, kind: ScalarType, column: &Column) {
        let source = match source {
            Source::EventTime(part) => LeafSource::EventTime(*part),
            Source::ArrivalTime => LeafSource::ArrivalTime,
            Source::UnknownFields => {
                let input = self.input("unknown fields".to_owned(), InputKind::Unknown, Reading::default(), None);
                let allow = column.field.allow.as_ref().map_or(&[][..], |at| at.value.as_slice());
                self.draft.collect_unknown(input, AllowList::new(allow));
                LeafSource::Input(input)
            }
            Source::Lookup { lookup, column } => {
                let Some(number) = self.lookup_number(lookup) else { return };
                match self.lookup_column(number, column) {
                    Ok(column) => LeafSource::Lookup { lookup: number, column },
                    Err(message) => return self.report(line, message),
                }
            }
            Source::Pointer(_) => return,
        };
        self.leaf(name.to_owned(), source, Nest::Flat, kind, &FieldRules::default());
    }

    fn leaf(
        &mut self,
        name: String,
        source: LeafSource,
        nest: Nest,
        kind: ScalarType,
        rules: &FieldRules,
    ) -> &mut Leaf {
        self.leaves.push(Leaf {
            name,
            source,
            nest,
            data_type: kind,
            physical: kind.spec().physical,
            unique: rules.unique || kind == ScalarType::Json,
            in_file: true,
            required: rules.required && matches!(nest, Nest::Flat | Nest::InStruct(_) | Nest::InElement(_)),
            checks: checks(rules, kind),
            is_lenient: rules.is_lenient(),
            rule: rules.rule().cloned(),
        });
        let last = self.leaves.len() - 1;
        &mut self.leaves[last]
    }

    fn ingest_columns(&mut self) {
        let columns = [
            (LeafSource::Stream, ScalarType::String, "Stream that the record was read from."),
            (LeafSource::Shard, ScalarType::String, "Shard of that stream."),
            (LeafSource::Sequence, ScalarType::Json, "Sequence number in that shard, decimal."),
            (LeafSource::SubSequence, ScalarType::Int64, "Place in its aggregated record; 0 for a plain one."),
            (
                LeafSource::ArrivalTime,
                ScalarType::Timestamp(TimeForm::EpochMs.into()),
                "When the record arrived in the stream (UTC).",
            ),
        ];
        for (name, (source, kind, description)) in INGEST_COLUMNS.into_iter().zip(columns) {
            self.leaf(name.to_owned(), source, Nest::Flat, kind, &FieldRules::default());
            // A sequence number is kept like a JSON text: as a string that hardly repeats.
            let data_type = ColumnType::Scalar(if kind == ScalarType::Json { ScalarType::String } else { kind });
            let description = description.to_owned();
            self.columns.push(PlannedColumn { name: name.to_owned(), description, data_type, in_file: true });
        }
    }

    fn partition(&mut self, name: &str) -> Option<Partition> {
        if DATE_PARTS.contains(&name) {
            return Some(match name {
                "year" => Partition::Year,
                "month" => Partition::Month,
                _ => Partition::Day,
            });
        }
        let leaf = self.leaves.iter().position(|leaf| leaf.name == name)?;
        Some(Partition::Text { name: name.to_owned(), leaf })
    }

    fn read_lookups(&mut self, definition: &Definition, tables: &Tables<'_>) {
        for lookup in &definition.lookups {
            let table = match tables(&lookup.file.value, &lookup.key.value) {
                Ok(table) => Some(PlannedLookup {
                    name: lookup.name.value.clone(),
                    on: 0,
                    reject_missing: lookup.reject_missing,
                    table,
                }),
                Err(message) => {
                    self.report(lookup.file.line, format!("lookup file '{}': {message}", lookup.file.value));
                    None
                }
            };
            self.lookups.push(table);
        }
    }

    fn join_lookups(&mut self, definition: &Definition) {
        for (number, lookup) in definition.lookups.iter().enumerate() {
            let on = self.leaves.iter().position(|leaf| leaf.name == lookup.on.value);
            if let (Some(on), Some(planned)) = (on, &mut self.lookups[number]) {
                planned.on = on;
            }
        }
    }

    fn lookup_number(&self, name: &str) -> Option<usize> {
        self.lookups.iter().position(|lookup| lookup.as_ref().is_some_and(|lookup| lookup.name == name))
    }

    fn lookup_column(&self, number: usize, column: &str) -> Result<usize, String> {
        let Some(lookup) = &self.lookups[number] else { return Ok(0) };
        lookup.table.column(column).ok_or_else(|| {
            let names = lookup.table.names().join(", ");
            format!("lookup '{}' has no column '{column}'; its columns are: {names}", lookup.name)
        })
    }
}

/// The constraints on a value as it arrives.
fn checks(rules: &FieldRules, kind: ScalarType) -> Checks {
    let number = |bound: &Option<At<f64>>| bound.as_ref().map(|at| at.value);
    let (mut min, mut max) = (number(&rules.min), number(&rules.max));
    if let Some((least, greatest)) = kind.range() {
        min = Some(min.unwrap_or(f64::MIN).max(least));
        max = Some(max.unwrap_or(f64::MAX).min(greatest));
    }
    let constrained =
        rules.min_length.is_some() || rules.max_length.is_some() || rules.one_of.is_some() || rules.pattern.is_some();
    let length = |bound: &Option<At<i64>>| bound.as_ref().and_then(|at| usize::try_from(at.value).ok());
    let is_text = rules.input(kind) == InputKind::Text && kind == ScalarType::String;
    let text = (is_text && constrained).then(|| TextChecks {
        min_length: length(&rules.min_length).unwrap_or(0),
        max_length: length(&rules.max_length).unwrap_or(usize::MAX),
        one_of: rules.one_of.as_ref().map(|at| {
            let text =
                |value: &Scalar| if let Scalar::Text(text) = value { Some(text.as_bytes().into()) } else { None };
            at.value.iter().filter_map(text).collect()
        }),
        pattern: rules.pattern.as_ref().and_then(|at| Pattern::new(&at.value).ok()),
    });
    let times = (rules.not_before.is_some() || rules.not_after.is_some()).then(|| {
        let unit = if matches!(kind, ScalarType::Date32(_)) { DAY_US } else { 1 };
        let bound =
            |at: &Option<At<i64>>, otherwise: i64| at.as_ref().map_or(otherwise, |at| at.value.div_euclid(unit));
        (bound(&rules.not_before, i64::MIN), bound(&rules.not_after, i64::MAX))
    });
    Checks { min, max, times, text }
}

/// The hash of a definition's text and of its lookup tables, in hex.
fn version(text: &str, lookups: &[PlannedLookup]) -> String {
    let mut hash = Sha256::new();
    hash.update(text);
    // Without lookups it is the hash of the text, which `sha256sum` prints too.
    lookups.iter().for_each(|lookup| hash.update(format!("\n{} {}", lookup.name, lookup.table.content_hash())));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
