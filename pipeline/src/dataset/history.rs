//! The history of a dataset's definition in a lake: everything that the lake's files were written with.
//!
//! Owns: what a lake remembers of a definition, its stored form, and which changes a dataset survives. Does not own: where it is
//! stored (the worker's `lake/definitions`), the ids of fields (`field_ids`), what people read about a change (the commands).
//!
//! A history has every partition layout, type, source and form of values that any file of the dataset may have. It only grows. So
//! a definition is compared with all that the lake holds, and not with the last one only.
//!
//! What happens to a change depends on what readers do with files of before and after (tried with DuckDB, pyarrow, Polars and
//! Spark; docs/datasets.md has the table):
//!
//! | change | verdict | why |
//! | --- | --- | --- |
//! | a column or a struct's field is added or removed; other order, constraints, descriptions | passes | every reader unifies it |
//! | another type, also a wider one; a scalar becomes a list, map or struct | refused | at least two readers refuse the whole dataset |
//! | other partition columns, or another order | refused | DuckDB, Polars and Spark refuse the whole dataset |
//! | other source or rule, JSON text or plain text | needs consent | everything is readable, and one name means two things |
//!
//! A type, layout or meaning that the history has already is not a change: the lake does not get worse by it.
//!
//! Stored form, JSON:
//!
//! ```json
//! {"columns":{"lines":{"forms":["plain"],"sources":["/lines"],"types":["list<struct>"]},
//!             "lines.sku":{"forms":["plain"],"sources":["/sku"],"types":["string"]}},
//!  "dataset":"orders","event_time":["/at"],"format":1,"not_before_ms":1262304000000,"partition_by":[["year","month"]]}
//! ```

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};

use crate::dataset::definition::{Definition, FieldRules, Kind, Member, Source, TimePart};
use crate::dataset::field_ids::{FieldIds, type_name};
use crate::dataset::plan::{ColumnType, Partition, Plan};
use crate::dataset::rule::Rule;
use crate::dataset::types::ScalarType;
use crate::time::format_rfc3339;

/// The stored form that this version writes. It reads no other.
const FORMAT: u64 = 1;

/// The key of a definition that names the partition columns.
const PARTITION_BY: &str = "partition_by";

/// What the files of a dataset were written with. That of a single definition has one of everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DefinitionHistory {
    dataset: String,
    /// The partition columns of each layout, in order.
    partition_by: Vec<Vec<String>>,
    /// The pointers of the event time.
    event_time: Vec<String>,
    /// The least event time, in milliseconds since 1970; `None` if it is not known.
    not_before_ms: Option<i64>,
    /// By the dotted path of a column or of a struct's field.
    columns: BTreeMap<String, ColumnHistory>,
}

/// What one column was written with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ColumnHistory {
    /// As in the lake's field ids.
    types: Vec<String>,
    /// Where its values came from. Empty if it is not known.
    sources: Vec<String>,
    /// What was made of the values. Empty if it is not known.
    forms: Vec<String>,
}

/// A stored history that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidHistory(String);

/// A difference between a definition and the history of its dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The dotted path of the column, or the key of the definition.
    pub subject: String,
    /// What differs.
    pub kind: ChangeKind,
    /// What the lake has.
    pub before: Vec<String>,
    /// What the definition has; `None` if it has no such column.
    pub now: Option<String>,
}

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// The partition columns, or their order.
    Partitions,
    /// The type of a column.
    Type,
    /// The field that the event time is read from, and with it the meaning of date partitions.
    EventTime,
    /// Where the values of a column come from.
    Source,
    /// The rule for personal values, or whether a text is JSON.
    Form,
    /// Earlier event times are in the lake.
    NotBefore,
    /// The column is new.
    Added,
    /// The column is not written any more.
    Removed,
    /// The lake has the column in several types already.
    Mixed,
}

/// Whether a worker may write with a changed definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Readers read the files of before and after together.
    Passes,
    /// Readers read everything, but the name means something else from now on. Somebody must accept it.
    NeedsConsent,
    /// Readers could not read the dataset as a whole.
    Refused,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { subject, kind, before, now } = self;
        match kind {
            ChangeKind::Added => return write!(f, "column '{subject}' is new"),
            ChangeKind::Removed => return write!(f, "column '{subject}' is not written any more"),
            ChangeKind::Partitions | ChangeKind::EventTime | ChangeKind::NotBefore => f.write_str(subject)?,
            ChangeKind::Mixed if subject == PARTITION_BY => f.write_str(subject)?,
            ChangeKind::Type | ChangeKind::Mixed => write!(f, "the type of column '{subject}'")?,
            ChangeKind::Source => write!(f, "the source of column '{subject}'")?,
            ChangeKind::Form => write!(f, "the form of column '{subject}'")?,
        }
        let (before, now) = (before.join("; "), now.as_deref().unwrap_or("nothing"));
        write!(f, " is {before} in the lake and {now} in the definition")
    }
}

impl ChangeKind {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            ChangeKind::Partitions => "partition_by",
            ChangeKind::Type => "type",
            ChangeKind::EventTime => "event_time",
            ChangeKind::Source => "source",
            ChangeKind::Form => "form",
            ChangeKind::NotBefore => "not_before",
            ChangeKind::Added => "added",
            ChangeKind::Removed => "removed",
            ChangeKind::Mixed => "mixed",
        }
    }

    /// Whether a worker may write with it.
    pub fn verdict(self) -> Verdict {
        match self {
            ChangeKind::Partitions | ChangeKind::Type => Verdict::Refused,
            ChangeKind::EventTime | ChangeKind::Source | ChangeKind::Form => Verdict::NeedsConsent,
            ChangeKind::NotBefore | ChangeKind::Added | ChangeKind::Removed | ChangeKind::Mixed => Verdict::Passes,
        }
    }

    /// What the user can do, or must know.
    pub fn advice(self) -> &'static str {
        match self {
            ChangeKind::Partitions => "keep partition_by, or give the dataset a new name",
            ChangeKind::Type => "keep the type, or give the new column or the dataset another name",
            ChangeKind::EventTime => {
                "keep the field, or give the dataset a new name, or accept it with --accept-changes"
            }
            ChangeKind::Source | ChangeKind::Form => {
                "give the new column another name, or accept it with --accept-changes if it means the same"
            }
            ChangeKind::NotBefore => "rows before it are in the lake: a table's range of years must still include them",
            ChangeKind::Added => "null in the rows before",
            ChangeKind::Removed => "null in the rows from now on",
            ChangeKind::Mixed => "readers cannot read the whole dataset since a version that did not check it",
        }
    }
}

impl Verdict {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Passes => "passes",
            Verdict::NeedsConsent => "needs consent",
            Verdict::Refused => "refused",
        }
    }
}

impl DefinitionHistory {
    /// The history of a dataset without files.
    pub fn new(dataset: impl Into<String>) -> Self {
        DefinitionHistory { dataset: dataset.into(), ..DefinitionHistory::default() }
    }

    /// What is known of files that were written before the lake kept histories: the fields that have ids, and the partition
    /// layouts of their keys.
    pub fn of_files(ids: &FieldIds, layouts: impl IntoIterator<Item = Vec<String>>) -> Self {
        let mut history = DefinitionHistory::new(ids.dataset());
        layouts.into_iter().for_each(|layout| add(&mut history.partition_by, &layout));
        for (path, data_type) in ids.paths() {
            add(&mut history.columns.entry(path).or_default().types, &data_type);
        }
        history
    }

    /// The history of a dataset whose files were written with one definition.
    pub(crate) fn of_definition(definition: &Definition, plan: &Plan) -> Self {
        let mut history = DefinitionHistory::new(&*plan.name);
        history.partition_by.push(plan.partitions.iter().map(Partition::name).map(str::to_owned).collect());
        history.event_time.push(definition.event_time.field.pointer.value.to_string());
        history.not_before_ms = Some(definition.event_time.not_before_ms);
        for column in &plan.columns {
            history.add_types(&column.name, &column.data_type);
        }
        for column in definition.columns.iter().filter(|column| !column.field.is_dropped()) {
            let name = &column.name.value;
            let is_json = matches!(column.kind, Kind::Scalar(ScalarType::Json));
            history.add_meaning(name, source_name(&column.source), form_name(&column.field, is_json));
            let (Kind::Struct(members) | Kind::ListOfStructs(members)) = &column.kind else { continue };
            for Member { name: member, pointer, kind, field } in members.iter().filter(|one| !one.field.is_dropped()) {
                let form = form_name(field, *kind == ScalarType::Json);
                history.add_meaning(&format!("{name}.{}", member.value), pointer.to_string(), form);
            }
        }
        history
    }

    /// The dataset.
    pub fn dataset(&self) -> &str {
        &self.dataset
    }

    fn add_types(&mut self, path: &str, data_type: &ColumnType) {
        self.columns.entry(path.to_owned()).or_default().types.push(type_name(data_type));
        let mut inside = data_type;
        while let ColumnType::List(element) | ColumnType::Map(element) = inside {
            inside = element;
        }
        if let ColumnType::Struct(members) = inside {
            members.iter().for_each(|(name, of)| self.add_types(&format!("{path}.{name}"), of));
        }
    }

    fn add_meaning(&mut self, path: &str, source: String, form: String) {
        let column = self.columns.entry(path.to_owned()).or_default();
        column.sources.push(source);
        column.forms.push(form);
    }

    /// Adds everything of another history. Returns whether anything was new.
    pub fn extend(&mut self, other: &DefinitionHistory) -> bool {
        let before = self.clone();
        other.partition_by.iter().for_each(|layout| add(&mut self.partition_by, layout));
        other.event_time.iter().for_each(|pointer| add(&mut self.event_time, pointer));
        self.not_before_ms = match (self.not_before_ms, other.not_before_ms) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        for (path, column) in &other.columns {
            let known = self.columns.entry(path.clone()).or_default();
            column.types.iter().for_each(|one| add(&mut known.types, one));
            column.sources.iter().for_each(|one| add(&mut known.sources, one));
            column.forms.iter().for_each(|one| add(&mut known.forms, one));
        }
        *self != before
    }

    /// Whether the dataset has no files.
    pub fn is_empty(&self) -> bool {
        self.partition_by.is_empty()
    }

    /// The differences between this history and a definition's: first those that are refused. None if there are no files.
    pub(crate) fn changes_to(&self, now: &DefinitionHistory) -> Vec<Change> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut changes = Vec::new();
        let mut report = |subject: &str, kind, before: &[String], now: Option<&String>| {
            changes.push(Change { subject: subject.to_owned(), kind, before: before.to_vec(), now: now.cloned() });
        };
        let layouts = |all: &[Vec<String>]| all.iter().map(|layout| layout.join(", ")).collect::<Vec<_>>();
        let (before, layout) = (layouts(&self.partition_by), layouts(&now.partition_by));
        if let Some(layout) = differs(&before, &layout) {
            report(PARTITION_BY, ChangeKind::Partitions, &before, Some(layout));
        } else if before.len() > 1 {
            report(PARTITION_BY, ChangeKind::Mixed, &before, layout.first());
        }
        if let Some(pointer) = differs(&self.event_time, &now.event_time) {
            report("event_time", ChangeKind::EventTime, &self.event_time, Some(pointer));
        }
        if let (Some(before), Some(least)) = (self.not_before_ms, now.not_before_ms)
            && before < least
        {
            let [before, least] = [before, least].map(format_rfc3339);
            report("not_before", ChangeKind::NotBefore, &[before], Some(&least));
        }
        for (path, column) in &now.columns {
            let Some(known) = self.columns.get(path) else {
                if !self.is_reported_above(now, path) {
                    report(path, ChangeKind::Added, &[], column.types.first());
                }
                continue;
            };
            if let Some(data_type) = differs(&known.types, &column.types) {
                report(path, ChangeKind::Type, &known.types, Some(data_type));
                continue;
            }
            if known.types.len() > 1 {
                report(path, ChangeKind::Mixed, &known.types, column.types.first());
            }
            if let Some(source) = differs(&known.sources, &column.sources) {
                report(path, ChangeKind::Source, &known.sources, Some(source));
            }
            if let Some(form) = differs(&known.forms, &column.forms) {
                report(path, ChangeKind::Form, &known.forms, Some(form));
            }
        }
        for (path, known) in &self.columns {
            if !now.columns.contains_key(path) && !self.is_reported_above(now, path) {
                report(path, ChangeKind::Removed, &known.types, None);
            }
        }
        changes.sort_by_key(|change| std::cmp::Reverse(change.kind.verdict()));
        changes
    }

    /// Whether the column that contains a field is new, is gone, or has another type, which says everything about the field.
    fn is_reported_above(&self, now: &DefinitionHistory, path: &str) -> bool {
        let Some((column, _)) = path.rsplit_once('.') else { return false };
        match (self.columns.get(column), now.columns.get(column)) {
            (Some(before), Some(now)) => differs(&before.types, &now.types).is_some(),
            _ => true,
        }
    }

    /// The columns and fields that are as the history has them.
    pub(crate) fn unchanged(&self, now: &DefinitionHistory) -> Vec<String> {
        let changes = self.changes_to(now);
        let is_changed = |path: &str| {
            let is_part = |rest: &str| rest.is_empty() || rest.starts_with('.');
            changes.iter().any(|change| path.strip_prefix(&change.subject).is_some_and(is_part))
        };
        now.columns.keys().filter(|path| !self.is_empty() && !is_changed(path)).cloned().collect()
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let columns: Map<String, Value> = self
            .columns
            .iter()
            .map(|(path, ColumnHistory { types, sources, forms })| {
                (path.clone(), json!({ "types": types, "sources": sources, "forms": forms }))
            })
            .collect();
        let stored = json!({
            "format": FORMAT,
            "dataset": self.dataset,
            "partition_by": self.partition_by,
            "event_time": self.event_time,
            "not_before_ms": self.not_before_ms,
            "columns": columns,
        });
        format!("{stored}\n").into_bytes()
    }

    /// Reads the stored form of this dataset's history.
    ///
    /// # Errors
    /// It is damaged, has another format, or belongs to another dataset.
    pub fn from_bytes(dataset: &str, bytes: &[u8]) -> Result<Self, InvalidHistory> {
        let stored: Value = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if stored["format"] != FORMAT {
            let found = &stored["format"];
            return Err(invalid(format!("it has format {found}; this version reads format {FORMAT}")));
        }
        if stored["dataset"] != dataset {
            return Err(invalid(format!("it belongs to dataset {}, not to '{dataset}'", stored["dataset"])));
        }
        let layouts = stored["partition_by"].as_array().filter(|layouts| !layouts.is_empty());
        let layouts = layouts.ok_or_else(|| invalid("'partition_by' is not a list of layouts"))?;
        let not_before_ms = match &stored["not_before_ms"] {
            Value::Null => None,
            time => Some(time.as_i64().ok_or_else(|| invalid("'not_before_ms' is not a number"))?),
        };
        let mut columns = BTreeMap::new();
        for (path, column) in stored["columns"].as_object().ok_or_else(|| invalid("'columns' is not an object"))? {
            let all = |key: &str| texts(&column[key], &format!("'{key}' of column '{path}'"));
            let types = Some(all("types")?).filter(|types| !types.is_empty());
            let types = types.ok_or_else(|| invalid(format!("column '{path}' has no type")))?;
            let column = ColumnHistory { types, sources: all("sources")?, forms: all("forms")? };
            columns.insert(path.clone(), column);
        }
        Ok(DefinitionHistory {
            dataset: dataset.to_owned(),
            partition_by: layouts.iter().map(|layout| texts(layout, "'partition_by'")).collect::<Result<_, _>>()?,
            event_time: texts(&stored["event_time"], "'event_time'")?,
            not_before_ms,
            columns,
        })
    }
}

fn texts(list: &Value, what: &str) -> Result<Vec<String>, InvalidHistory> {
    let texts = list.as_array().and_then(|list| list.iter().map(|text| text.as_str().map(str::to_owned)).collect());
    texts.ok_or_else(|| invalid(format!("{what} is not a list of strings")))
}

fn invalid(problem: impl Into<String>) -> InvalidHistory {
    InvalidHistory(problem.into())
}

fn add<T: Clone + PartialEq>(all: &mut Vec<T>, one: &T) {
    if !all.contains(one) {
        all.push(one.clone());
    }
}

/// What the definition has and the history does not, if the history knows anything of it.
fn differs<'n>(before: &[String], now: &'n [String]) -> Option<&'n String> {
    now.iter().find(|one| !before.is_empty() && !before.contains(one))
}

/// Where a column's values come from, as a definition writes it.
fn source_name(source: &Source) -> String {
    let part = |name: &str| format!("event_time.{name}");
    match source {
        Source::Pointer(pointer) => pointer.to_string(),
        Source::EventTime(TimePart::Whole) => "event_time".to_owned(),
        Source::EventTime(TimePart::Year) => part("year"),
        Source::EventTime(TimePart::Month) => part("month"),
        Source::EventTime(TimePart::Day) => part("day"),
        Source::EventTime(TimePart::Hour) => part("hour"),
        Source::ArrivalTime => "arrival_time".to_owned(),
        Source::UnknownFields => "unknown_fields".to_owned(),
        Source::Lookup { lookup, column } => format!("lookup.{lookup}.{column}"),
    }
}

/// What is made of a column's values. A rule that only removes values leaves the others as they are.
fn form_name(rules: &FieldRules, is_json: bool) -> String {
    match rules.rule() {
        Some(Rule::AgeBand(bands)) => format!("age bands {}", bands.names().join(" ")),
        None | Some(Rule::Match(_)) => if is_json { "JSON" } else { "plain" }.to_owned(),
        Some(rule) => rule.label().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Datasets, DefinitionText};
    use proptest::prelude::*;

    const ORDERS: &str = r#"
name = "orders"
partition_by = ["kind", "year"]
[event_time]
pointer = "/at"
[[column]]
name = "kind"
pointer = "/kind"
type = "string"
[[column]]
name = "count"
pointer = "/count"
type = "int32"
[[column]]
name = "note"
pointer = "/note"
type = "string"
[[column]]
name = "customer"
pointer = "/customer"
type = "string"
anonymize = { rule = "pseudonym" }
[[column]]
name = "lines"
pointer = "/lines"
type = "list"
[[column.field]]
name = "sku"
type = "string"
[[column.field]]
name = "element"
type = "int32"
"#;

    fn datasets(text: &str) -> Datasets {
        let text = DefinitionText { file: "orders.toml".to_owned(), text: text.to_owned() };
        Datasets::compile(&[text], &|_, _| Err(String::new())).unwrap()
    }

    fn history(text: &str) -> DefinitionHistory {
        datasets(text).history(0)
    }

    /// The definition after some replacements, each of which must find its text.
    fn changed(replacements: &[(&str, &str)]) -> String {
        let mut text = ORDERS.to_owned();
        for (from, to) in replacements {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        text
    }

    /// The changes from [`ORDERS`], as `subject kind: before > now`.
    fn changes(text: &str) -> Vec<String> {
        shown(&history(ORDERS).changes_to(&history(text)))
    }

    fn shown(changes: &[Change]) -> Vec<String> {
        let show = |Change { subject, kind, before, now }: &Change| {
            format!("{subject} {}: {} > {}", kind.name(), before.join(" | "), now.as_deref().unwrap_or("-"))
        };
        changes.iter().map(show).collect()
    }

    #[test]
    fn what_readers_unify_passes() {
        for replacements in [
            vec![],
            vec![("type = \"int32\"", "type = \"int32\"\nrequired = true\nmin = 3\naccept_text = true")],
            vec![(
                "pointer = \"/note\"",
                "pointer = \"/note\"\nmax_length = 7\ndescription = \"other\"\nunique = true",
            )],
            vec![("pointer = \"/note\"", "pointer = \"/note\"\nanonymize = { rule = \"match\", pattern = \"^a$\" }")],
            vec![("pointer = \"/at\"", "pointer = \"/at\"\nformat = \"epoch_s\"\nnot_before = \"1999-01-01\"")],
        ] {
            assert_eq!(changes(&changed(&replacements)), [""; 0], "{replacements:?}");
        }
        let added = "[[column]]\nname = \"more\"\npointer = \"/more\"\ntype = \"struct\"\n[[column.field]]\nname = \"a\"\ntype = \"bool\"\n";
        assert_eq!(changes(&format!("{ORDERS}{added}")), ["more added:  > struct"]);
        let back = history(&format!("{ORDERS}{added}")).changes_to(&history(ORDERS));
        assert_eq!(shown(&back), ["more removed: struct > -"]);
        let member = "[[column.field]]\nname = \"price\"\ntype = \"float64\"\n";
        assert_eq!(changes(&format!("{ORDERS}{member}")), ["lines.price added:  > float64"]);
        assert_eq!(
            changes(&changed(&[("pointer = \"/note\"", "pointer = \"/note\"\nanonymize = { rule = \"drop\" }")])),
            ["note removed: string > -"]
        );
        let later = changed(&[("pointer = \"/at\"", "pointer = \"/at\"\nnot_before = \"2020-01-01\"")]);
        assert_eq!(changes(&later), ["not_before not_before: 2010-01-01T00:00:00.000Z > 2020-01-01T00:00:00.000Z"]);
        let kinds = [ChangeKind::Added, ChangeKind::Removed, ChangeKind::NotBefore, ChangeKind::Mixed];
        assert!(kinds.iter().all(|kind| kind.verdict() == Verdict::Passes));
    }

    #[test]
    fn what_readers_cannot_read_together_is_refused() {
        let count = "type = \"int32\"";
        for (from, to, expected) in [
            (count, "type = \"int64\"", "count type: int32 > int64"),
            (count, "type = \"float64\"", "count type: int32 > float64"),
            (count, "type = \"decimal(9,0)\"", "count type: int32 > decimal(9,0)"),
            (count, "type = \"list\"\nelement = \"int32\"", "count type: int32 > list<int32>"),
            (count, "type = \"map\"\nvalue = \"int64\"\nallow = []", "count type: int32 > map<string,int64>"),
            (count, "type = \"struct\"\n[[column.field]]\nname = \"a\"\ntype = \"bool\"", "count type: int32 > struct"),
            ("name = \"sku\"\ntype = \"string\"", "name = \"sku\"\ntype = \"int64\"", "lines.sku type: string > int64"),
            (
                "name = \"element\"\ntype = \"int32\"",
                "name = \"element\"\ntype = \"bool\"",
                "lines.element type: int32 > bool",
            ),
            ("[\"kind\", \"year\"]", "[\"year\", \"kind\"]", "partition_by partition_by: kind, year > year, kind"),
            ("[\"kind\", \"year\"]", "[\"kind\"]", "partition_by partition_by: kind, year > kind"),
            (
                "[\"kind\", \"year\"]",
                "[\"kind\", \"year\", \"day\"]",
                "partition_by partition_by: kind, year > kind, year, day",
            ),
        ] {
            assert_eq!(changes(&changed(&[(from, to)])), [expected]);
        }
        assert!([ChangeKind::Partitions, ChangeKind::Type].iter().all(|kind| kind.verdict() == Verdict::Refused));
    }

    #[test]
    fn a_name_that_means_something_else_needs_consent() {
        let pseudonym = "anonymize = { rule = \"pseudonym\" }";
        for (from, to, expected) in [
            ("pointer = \"/count\"", "pointer = \"/total\"", "count source: /count > /total"),
            (pseudonym, "personal = false", "customer form: pseudonyms > plain"),
            (pseudonym, "anonymize = { rule = \"email_domain\" }", "customer form: pseudonyms > e-mail domains"),
            (
                "pointer = \"/note\"\ntype = \"string\"",
                "pointer = \"/note\"\ntype = \"json\"\npersonal = false",
                "note form: plain > JSON",
            ),
            ("pointer = \"/count\"", "from = \"event_time.hour\"", "count source: /count > event_time.hour"),
            ("pointer = \"/at\"", "pointer = \"/sent\"", "event_time event_time: /at > /sent"),
            ("name = \"sku\"", "name = \"sku\"\npointer = \"/id\"", "lines.sku source: /sku > /id"),
        ] {
            assert_eq!(changes(&changed(&[(from, to)])), [expected]);
        }
        let bands = |bands: &str| {
            let rule = format!("anonymize = {{ rule = \"age_band\", bands = {bands} }}");
            history(&changed(&[(pseudonym, &rule)]))
        };
        let changes = bands("[18, 65]").changes_to(&bands("[21, 65]"));
        assert_eq!(shown(&changes), ["customer form: age bands 0-17 18-64 65+ > age bands 0-20 21-64 65+"]);
        let kinds = [ChangeKind::EventTime, ChangeKind::Source, ChangeKind::Form];
        assert!(kinds.iter().all(|kind| kind.verdict() == Verdict::NeedsConsent));
    }

    #[test]
    fn a_definition_is_compared_with_every_one_before_it() {
        let without = changed(&[("[[column]]\nname = \"count\"\npointer = \"/count\"\ntype = \"int32\"\n", "")]);
        let mut lake = history(ORDERS);
        assert!(!lake.extend(&history(&without)), "it has nothing that is new");
        let back = history(&changed(&[("type = \"int32\"", "type = \"string\"")]));
        assert_eq!(shown(&lake.changes_to(&back)), ["count type: int32 > string"]);
        // A lake that has both already does not get worse.
        assert!(lake.extend(&back));
        assert_eq!(shown(&lake.changes_to(&back)), ["count mixed: int32 | string > string"]);
        assert_eq!(shown(&lake.changes_to(&history(ORDERS))), ["count mixed: int32 | string > int32"]);
    }

    #[test]
    fn a_dataset_without_files_may_change_in_every_way() {
        let text = changed(&[("type = \"int32\"", "type = \"string\""), ("[\"kind\", \"year\"]", "[\"day\"]")]);
        assert_eq!(DefinitionHistory::new("orders").changes_to(&history(&text)), []);
        assert!(DefinitionHistory::new("orders").is_empty() && !history(ORDERS).is_empty());
    }

    #[test]
    fn files_from_before_the_history_have_types_and_layouts() {
        let mut ids = FieldIds::new("orders");
        datasets(ORDERS).number_fields(0, &mut ids);
        let mut plain = history(ORDERS);
        plain.event_time.clear();
        plain.not_before_ms = None;
        for column in plain.columns.values_mut() {
            (column.sources, column.forms) = (Vec::new(), Vec::new());
        }
        let layout = ["kind", "year"].map(str::to_owned).to_vec();
        let found = DefinitionHistory::of_files(&ids, [layout.clone(), layout]);
        assert_eq!(found, plain);
        assert_eq!(found.changes_to(&history(ORDERS)), [], "what is not known is not a change");
    }

    #[test]
    fn what_is_unchanged_is_named_with_its_fields() {
        let now = history(&changed(&[("type = \"int32\"", "type = \"int64\"")]));
        let unchanged = history(ORDERS).unchanged(&now);
        assert!(
            ["kind", "lines", "lines.sku", "ingest_shard"].iter().all(|path| unchanged.iter().any(|name| name == path))
        );
        assert!(!unchanged.contains(&"count".to_owned()));
    }

    #[test]
    fn a_stored_history_that_is_damaged_is_refused() {
        let problem =
            |stored: &str| DefinitionHistory::from_bytes("orders", stored.as_bytes()).unwrap_err().to_string();
        assert_eq!(problem(r#"{"format":2}"#), "it has format 2; this version reads format 1");
        assert_eq!(problem(r#"{"format":1,"dataset":"users"}"#), "it belongs to dataset \"users\", not to 'orders'");
        let with = |rest: &str| problem(&format!(r#"{{"format":1,"dataset":"orders",{rest}}}"#));
        assert_eq!(with(r#""partition_by":[]"#), "'partition_by' is not a list of layouts");
        assert_eq!(with(r#""partition_by":[["a"]]"#), "'columns' is not an object");
        let column = with(r#""partition_by":[["a"]],"columns":{"a":{"types":[],"sources":[],"forms":[]}}"#);
        assert_eq!(column, "column 'a' has no type");
        let column = with(r#""partition_by":[["a"]],"columns":{"a":{"types":["string"],"sources":[7],"forms":[]}}"#);
        assert_eq!(column, "'sources' of column 'a' is not a list of strings");
    }

    fn histories() -> impl Strategy<Value = Vec<DefinitionHistory>> {
        let replacements = vec![
            ("\"/count\"\ntype = \"int32\"", "\"/count\"\ntype = \"int64\""),
            ("\"/count\"\ntype = \"int32\"", "\"/count\"\ntype = \"list\"\nelement = \"bool\""),
            ("pointer = \"/note\"", "pointer = \"/text\""),
            ("[\"kind\", \"year\"]", "[\"day\"]"),
            ("pointer = \"/at\"", "pointer = \"/at\"\nnot_before = \"2000-01-01\""),
            ("name = \"note\"", "name = \"remark\""),
            ("anonymize = { rule = \"pseudonym\" }", "personal = false"),
        ];
        let one = prop::sample::subsequence(replacements, 0..4).prop_map(|replacements| {
            let mut text = ORDERS.to_owned();
            replacements.iter().for_each(|(from, to)| text = text.replacen(from, to, 1));
            history(&text)
        });
        prop::collection::vec(one, 1..6)
    }

    proptest! {
        #[test]
        fn a_history_round_trips_and_accepts_all_that_it_has(all in histories()) {
            let mut lake = DefinitionHistory::new("orders");
            for one in &all {
                lake.extend(one);
                lake = DefinitionHistory::from_bytes("orders", &lake.to_bytes()).unwrap();
            }
            for one in &all {
                prop_assert!(lake.changes_to(one).iter().all(|change| change.kind.verdict() == Verdict::Passes));
                prop_assert!(!lake.clone().extend(one));
            }
        }
    }
}
