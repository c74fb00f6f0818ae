//! What is wanted, as every place compares it: rows by columns, dead letters and raw lines by fields or by their identity.
//!
//! Owns: turning a question into conditions for each dataset, and testing lines. Does not own: what a rule makes of a value
//! (`pipeline::dataset`), comparing columns (`pipeline::rows`).
//!
//! Values that are searched for may be personal. They are in memory only: no message and no log line has one.

use std::collections::BTreeMap;

use checkpoints::{SequenceNumber, ShardId, StreamName};
use memchr::memmem::Finder;
use pipeline::anonymize::PseudonymKey;
use pipeline::dataset::{Datasets, SearchColumn};
use pipeline::rows::ColumnValue;
use serde_json::Value;

/// What is wanted.
#[derive(Clone)]
pub enum Question {
    /// A record by its sequence number; of an aggregate, or of a record of several documents, one of its parts.
    Record {
        /// The sequence number.
        sequence: SequenceNumber,
        /// The number of the part; `None` for all.
        sub: Option<u64>,
    },
    /// Rows whose columns have these values, all of them, and lines that they may have been made of.
    Values(Vec<(String, String)>),
    /// An id that the producer has given: a value of any column of ids, or any value in a line.
    Id(String),
}

/// A question that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuestion {
    /// There is no such dataset.
    #[error("there is no dataset '{0}'; the datasets are {1}")]
    Dataset(String, String),
    /// No dataset has all the columns.
    #[error("no dataset has {0} as columns of one value a row; `shardlake schema DATASET` shows its columns")]
    Columns(String),
}

/// Where a record was read, where the question says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The stream.
    pub stream: Option<StreamName>,
    /// The shard.
    pub shard: Option<ShardId>,
}

impl Origin {
    /// Whether a shard is meant.
    pub(super) fn wants(&self, stream: &str, shard: &str) -> bool {
        self.stream.as_ref().is_none_or(|wanted| wanted.as_str() == stream)
            && self.shard.as_ref().is_none_or(|wanted| wanted.as_str() == shard)
    }
}

/// What is wanted of one dataset.
#[derive(Debug, Clone, Default)]
pub(super) struct OfDataset {
    /// A row is wanted if it meets all conditions of one of these.
    pub(super) rows: Vec<Vec<ColumnValue>>,
    /// A document is wanted if it has all the fields of one of these: JSON Pointers and texts.
    fields: Vec<Vec<(String, String)>>,
    /// The ids of the columns in statistics, by name.
    pub(super) field_ids: BTreeMap<String, i32>,
}

/// A question for all datasets.
pub(super) struct Matcher {
    by_dataset: BTreeMap<String, OfDataset>,
    /// For datasets that the configuration does not have.
    others: Option<OfDataset>,
    /// The only dataset that counts.
    only: Option<String>,
    record: Option<(SequenceNumber, Option<u64>)>,
    origin: Origin,
    /// A text that every wanted document has, if it has no escapes.
    text: Option<Finder<'static>>,
    id: Option<String>,
}

/// Whose line it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct LineOf<'l> {
    pub(super) stream: &'l str,
    pub(super) shard: &'l str,
    pub(super) sequence: &'l str,
    pub(super) sub: u64,
}

impl Matcher {
    pub(super) fn new(
        question: &Question,
        (origin, only): (&Origin, Option<&str>),
        datasets: &Datasets,
        key: Option<&PseudonymKey>,
    ) -> Result<Self, InvalidQuestion> {
        if let Some(name) = only.filter(|name| datasets.find(name).is_none()) {
            let all = datasets.names().collect::<Vec<_>>().join(", ");
            return Err(InvalidQuestion::Dataset(name.to_owned(), all));
        }
        let mut matcher = Matcher {
            by_dataset: BTreeMap::new(),
            others: None,
            only: only.map(str::to_owned),
            record: None,
            origin: origin.clone(),
            text: None,
            id: None,
        };
        match question {
            Question::Record { sequence, sub } => {
                matcher.record = Some((sequence.clone(), *sub));
                matcher.others =
                    Some(OfDataset { rows: vec![of_record(sequence, *sub, origin)], ..OfDataset::default() });
            }
            Question::Values(values) => {
                matcher.text = values.first().and_then(|(_, value)| finder(value));
                for (number, name) in datasets.names().enumerate() {
                    let columns = datasets.search_columns(number);
                    let found: Option<Vec<&SearchColumn>> =
                        values.iter().map(|(name, _)| columns.iter().find(|column| column.name == *name)).collect();
                    let Some(found) = found else { continue };
                    let fields = values
                        .iter()
                        .zip(&found)
                        .map(|((_, value), column)| Some((column.pointer.clone()?, value.clone())));
                    let conditions = values.iter().map(|(column, value)| ColumnValue {
                        column: column.clone(),
                        texts: datasets.stored_texts(number, column, value, key),
                    });
                    let of = OfDataset {
                        rows: vec![conditions.collect()],
                        fields: fields.collect::<Option<Vec<_>>>().into_iter().collect(),
                        field_ids: BTreeMap::new(),
                    };
                    matcher.by_dataset.insert(name.to_owned(), of);
                }
                let is_wanted = |name: &String| only.is_none_or(|only| only == name);
                if !matcher.by_dataset.keys().any(is_wanted) {
                    let names: Vec<&str> = values.iter().map(|(name, _)| name.as_str()).collect();
                    return Err(InvalidQuestion::Columns(names.join(" and ")));
                }
            }
            Question::Id(id) => {
                (matcher.text, matcher.id) = (finder(id), Some(id.clone()));
                for (number, name) in datasets.names().enumerate() {
                    let ids = datasets.search_columns(number).into_iter().filter(|column| column.is_id);
                    let condition = |column: SearchColumn| {
                        let texts = datasets.stored_texts(number, &column.name, id, key);
                        vec![ColumnValue { column: column.name, texts }]
                    };
                    let of = OfDataset { rows: ids.map(condition).collect(), ..OfDataset::default() };
                    matcher.by_dataset.insert(name.to_owned(), of);
                }
            }
        }
        matcher.number_columns(datasets);
        Ok(matcher)
    }

    /// Wants the lines of one record.
    pub(super) fn of_identity(sequence: SequenceNumber, sub: u64, origin: Origin) -> Self {
        Matcher {
            by_dataset: BTreeMap::new(),
            others: None,
            only: None,
            record: Some((sequence, Some(sub))),
            origin,
            text: None,
            id: None,
        }
    }

    /// Notes the ids of the columns, by which statistics know them.
    fn number_columns(&mut self, datasets: &Datasets) {
        if let Some(others) = self.others.take() {
            for name in datasets.names() {
                self.by_dataset.insert(name.to_owned(), others.clone());
            }
            self.others = Some(others);
        }
        for (name, of) in &mut self.by_dataset {
            let Some(number) = datasets.find(name) else { continue };
            let columns = of.rows.iter().flatten().map(|condition| condition.column.clone());
            let columns = columns.chain(["ingest_arrival_time".to_owned()]);
            of.field_ids =
                columns.filter_map(|column| Some((column.clone(), datasets.field_id(number, &column)?))).collect();
        }
    }

    /// What is wanted of a dataset; `None` if nothing is.
    pub(super) fn of(&self, dataset: Option<&str>) -> Option<&OfDataset> {
        let dataset = dataset?;
        if self.only.as_deref().is_some_and(|only| only != dataset) {
            return None;
        }
        self.by_dataset.get(dataset).or(self.others.as_ref()).filter(|of| !of.rows.is_empty())
    }

    /// Whether a line is wanted: by its identity, or by what it has. `dataset`: that of the line, if it is known.
    pub(super) fn wants_line(&self, of: Option<LineOf<'_>>, dataset: Option<&str>, document: &[u8]) -> bool {
        if let (Some(only), Some(dataset)) = (&self.only, dataset)
            && only != dataset
        {
            return false;
        }
        if of.is_some_and(|of| !self.origin.wants(of.stream, of.shard)) {
            return false;
        }
        if let Some((sequence, sub)) = &self.record {
            return of.is_some_and(|of| of.sequence == sequence.as_str() && sub.is_none_or(|sub| of.sub == sub));
        }
        if self.text.as_ref().is_some_and(|text| text.find(document).is_none()) {
            return false;
        }
        let json = serde_json::from_slice::<Value>(document);
        match (&self.id, json) {
            // What cannot be parsed is searched as text.
            (Some(id), Err(_)) => memchr::memmem::find(document, id.as_bytes()).is_some(),
            (Some(id), Ok(json)) => has_value(&json, id),
            (None, Err(_)) => false,
            (None, Ok(json)) => {
                let sets = self.by_dataset.iter().filter(|(name, _)| {
                    dataset.is_none_or(|dataset| dataset == name.as_str())
                        && self.only.as_ref().is_none_or(|only| only == *name)
                });
                let mut sets = sets.flat_map(|(_, of)| &of.fields);
                sets.any(|fields| {
                    fields.iter().all(|(pointer, text)| at(&json, pointer).is_some_and(|value| is(&value, text)))
                })
            }
        }
    }
}

/// The conditions by which a row is known as that of a record.
fn of_record(sequence: &SequenceNumber, sub: Option<u64>, origin: &Origin) -> Vec<ColumnValue> {
    let condition = |column: &str, text: String| ColumnValue { column: column.to_owned(), texts: vec![text] };
    let mut conditions = vec![condition("ingest_sequence", sequence.as_str().to_owned())];
    conditions.extend(sub.map(|sub| condition("ingest_subsequence", sub.to_string())));
    conditions.extend(origin.stream.as_ref().map(|stream| condition("ingest_stream", stream.to_string())));
    conditions.extend(origin.shard.as_ref().map(|shard| condition("ingest_shard", shard.to_string())));
    conditions
}

/// Finds a text in JSON; `None` if JSON may have it in another form.
fn finder(text: &str) -> Option<Finder<'static>> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'/');
    (!text.is_empty() && text.bytes().all(is_plain)).then(|| Finder::new(text).into_owned())
}

/// Whether a scalar has a text.
fn is(value: &Value, text: &str) -> bool {
    match value {
        Value::String(value) => value == text,
        Value::Number(value) => value.to_string() == text,
        Value::Bool(value) => value.to_string() == text,
        _ => false,
    }
}

/// Whether any scalar in a document has a text. A string that holds a document is searched too.
fn has_value(json: &Value, text: &str) -> bool {
    match json {
        Value::Array(values) => values.iter().any(|value| has_value(value, text)),
        Value::Object(fields) => fields.values().any(|value| has_value(value, text)),
        Value::String(value) => value == text || embedded(value).is_some_and(|inner| has_value(&inner, text)),
        scalar => is(scalar, text),
    }
}

/// The document that a string holds.
fn embedded(text: &str) -> Option<Value> {
    text.trim_start().starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
}

/// The value at a JSON Pointer, which may lead into a string that holds a document.
fn at(json: &Value, pointer: &str) -> Option<Value> {
    let mut value = json.clone();
    for part in pointer.strip_prefix('/')?.split('/') {
        let name = part.replace("~1", "/").replace("~0", "~");
        if let Value::String(text) = &value {
            value = embedded(text)?;
        }
        value = value.get_mut(&name)?.take();
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::dataset::shipped;
    use serde_json::json;

    fn datasets() -> Datasets {
        Datasets::compile(&shipped(), &|_, _| Err(String::new())).unwrap()
    }

    fn matcher(question: &Question, only: Option<&str>) -> Result<Matcher, InvalidQuestion> {
        Matcher::new(question, (&Origin::default(), only), &datasets(), None)
    }

    fn values(pairs: &[(&str, &str)]) -> Question {
        Question::Values(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_question_of_unknown_columns_or_datasets_is_refused() {
        let columns = matcher(&values(&[("no_such", "1")]), None).err().unwrap();
        assert!(columns.to_string().contains("no_such") && !columns.to_string().contains('1'));
        assert!(matches!(matcher(&values(&[("app_id", "1")]), Some("x")), Err(InvalidQuestion::Dataset(..))));
        assert!(matches!(matcher(&values(&[("app_id", "1")]), Some("users")), Err(InvalidQuestion::Columns(_))));
    }

    #[test]
    fn lines_are_tested_by_the_fields_that_columns_are_made_of() {
        let matcher = matcher(&values(&[("event_type", "a.b"), ("app_id", "x/7")]), None).unwrap();
        let line = |event: &str, app: &str| json!({"event_type": event, "application": {"app_id": app}}).to_string();
        let wants = |line: &str, dataset| matcher.wants_line(None, dataset, line.as_bytes());
        assert!(wants(&line("a.b", "x/7"), None) && wants(&line("a.b", "x/7"), Some("events")));
        assert!(!wants(&line("a.b", "x"), None) && !wants(&line("a.b", "x/7"), Some("users")) && !wants("a.b", None));
    }

    #[test]
    fn an_id_is_found_anywhere_in_a_line() {
        let matcher = matcher(&Question::Id("id-7".to_owned()), None).unwrap();
        let wants = |line: &str| matcher.wants_line(None, None, line.as_bytes());
        let inner = json!({"endpoint": json!({"Id": "id-7"}).to_string()}).to_string();
        assert!(wants(r#"{"a":[{"b":"id-7"}]}"#) && wants(&inner) && wants(r#"{"a":"id-7", cut"#));
        assert!(!wants(r#"{"a":"id-77"}"#) && !wants(r#"{"a":7}"#));
        assert!(matcher.of(Some("events")).is_some_and(|of| of.rows.len() > 3));
    }

    #[test]
    fn a_record_is_known_by_its_identity() {
        let question = Question::Record { sequence: 17.into(), sub: None };
        let origin = Origin { stream: Some(StreamName::new("s").unwrap()), shard: None };
        let matcher = Matcher::new(&question, (&origin, None), &datasets(), None).unwrap();
        let of = |stream, sequence| Some(LineOf { stream, shard: "x", sequence, sub: 0 });
        assert!(matcher.wants_line(of("s", "17"), None, b"anything"));
        assert!(!matcher.wants_line(of("t", "17"), None, b"") && !matcher.wants_line(of("s", "170"), None, b""));
        assert!(!matcher.wants_line(None, None, b"17"));
        assert_eq!(matcher.of(Some("events")).unwrap().rows[0].len(), 2);
    }
}
