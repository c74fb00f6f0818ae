//! The rules of the definitions: in which columns a value lands unchanged.
//!
//! Owns: reading the rules from the definitions' TOML, with code of its own. There is no list of fields here: the test follows what
//! a definition says about each of its columns.

use std::collections::BTreeSet;

use regex::Regex;
use toml::de::{DeTable, DeValue};

use crate::security::search::Planted;

/// What becomes of a value.
#[derive(Debug)]
enum Rule {
    /// It lands unchanged.
    Unchanged,
    /// It lands unchanged if it matches.
    Match(Regex),
    /// A pseudonym, a band, a network or nothing lands, never the value itself.
    Never,
}

#[derive(Debug)]
struct Field {
    pointer: String,
    rule: Rule,
}

#[derive(Debug)]
struct Column {
    name: String,
    /// Where its value is. `None` for a computed column.
    pointer: Option<String>,
    from: Option<String>,
    kind: String,
    has_elements: bool,
    is_unique: bool,
    rule: Rule,
    allow: Vec<String>,
    fields: Vec<Field>,
}

/// One definition.
#[derive(Debug)]
pub(crate) struct Dataset {
    pub(crate) name: String,
    columns: Vec<Column>,
    partition_by: Vec<String>,
    /// Pointers of the record's own times: of the event and of its arrival.
    times: Vec<String>,
}

fn text(table: &DeTable<'_>, key: &str) -> Option<String> {
    table.get(key).and_then(|value| value.get_ref().as_str()).map(str::to_owned)
}

fn texts(table: &DeTable<'_>, key: &str) -> Vec<String> {
    let items = table.get(key).and_then(|value| value.get_ref().as_array());
    items.into_iter().flatten().map(|item| item.get_ref().as_str().unwrap().to_owned()).collect()
}

fn tables<'t>(table: &'t DeTable<'t>, key: &str) -> Vec<&'t DeTable<'t>> {
    let items = table.get(key).and_then(|value| value.get_ref().as_array());
    items.into_iter().flatten().map(|item| item.get_ref().as_table().unwrap()).collect()
}

fn rule(table: &DeTable<'_>) -> Rule {
    let Some(rule) = table.get("anonymize").map(toml::Spanned::get_ref) else { return Rule::Unchanged };
    let DeValue::Table(rule) = rule else { panic!("a rule must be a table") };
    match text(rule, "rule").as_deref() {
        Some("match") => Rule::Match(Regex::new(&text(rule, "pattern").unwrap()).unwrap()),
        Some("pseudonym" | "drop" | "age_band" | "region" | "truncate_ip" | "truncate_time" | "email_domain") => {
            Rule::Never
        }
        other => panic!(
            "this test does not know the rule {other:?}; add it to `rule` in tests/integration/security/rules.rs"
        ),
    }
}

impl Rule {
    fn lands(&self, value: &str) -> bool {
        match self {
            Rule::Unchanged => true,
            Rule::Match(pattern) => pattern.is_match(value),
            Rule::Never => false,
        }
    }
}

impl Dataset {
    /// Reads a definition.
    pub(crate) fn read(definition: &str) -> Self {
        let parsed = DeTable::parse(definition).unwrap();
        let root = parsed.get_ref();
        let columns = tables(root, "column").into_iter().map(|column| Column {
            name: text(column, "name").unwrap(),
            pointer: text(column, "pointer"),
            from: text(column, "from"),
            kind: text(column, "type").unwrap(),
            has_elements: column.contains_key("element"),
            is_unique: column.contains_key("unique"),
            rule: rule(column),
            allow: texts(column, "allow"),
            fields: tables(column, "field")
                .into_iter()
                .map(|field| Field {
                    pointer: text(field, "pointer").unwrap_or_else(|| format!("/{}", text(field, "name").unwrap())),
                    rule: rule(field),
                })
                .collect(),
        });
        let times = ["event_time", "arrival_time"].into_iter().filter_map(|key| {
            let table = root.get(key)?.get_ref().as_table()?;
            text(table, "pointer")
        });
        Dataset {
            name: text(root, "name").unwrap(),
            columns: columns.collect(),
            partition_by: texts(root, "partition_by"),
            times: times.collect(),
        }
    }

    /// The columns in which a planted value may be unchanged.
    pub(crate) fn columns_of(&self, planted: &Planted) -> BTreeSet<String> {
        let Planted { pointer, text, .. } = planted;
        if pointer.is_empty() {
            return BTreeSet::new();
        }
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let mut columns: BTreeSet<String> = self
            .columns
            .iter()
            .filter(|column| column.takes(pointer, text, is_number, self))
            .map(|column| column.name.clone())
            .collect();
        if is_number && self.times.contains(pointer) {
            let computed = |column: &&Column| column.from.as_deref().is_some_and(|from| from.contains("_time"));
            columns.extend(self.columns.iter().filter(computed).map(|column| column.name.clone()));
            columns.insert("ingest_arrival_time".to_owned());
        }
        columns
    }

    /// Whether the bounds of a column's values may be in a manifest. The ingest columns that no definition has may have them.
    pub(crate) fn shows_bounds(&self, name: &str) -> bool {
        self.columns.iter().find(|column| column.name == name).is_none_or(|column| {
            let is_free_form = matches!(column.kind.as_str(), "json" | "list" | "map" | "struct");
            matches!(column.rule, Rule::Unchanged) && !is_free_form && !column.is_unique
        })
    }

    /// Whether a planted value may be in the key of an object.
    pub(crate) fn in_keys(&self, planted: &Planted) -> bool {
        self.columns_of(planted).iter().any(|column| self.partition_by.contains(column))
    }

    /// Whether a planted value is one of the record's times. Dead letters show the time of arrival.
    pub(crate) fn is_time(&self, planted: &Planted) -> bool {
        self.times.contains(&planted.pointer)
    }
}

impl Column {
    fn takes(&self, pointer: &str, value: &str, is_number: bool, dataset: &Dataset) -> bool {
        if self.from.as_deref() == Some("unknown_fields") {
            let field = pointer.split('/').nth(1).unwrap_or_default();
            let is_read =
                |column: &Column| column.pointer.as_deref().is_some_and(|own| own.split('/').nth(1) == Some(field));
            return self.allow.iter().any(|key| key == field) && !dataset.columns.iter().any(is_read);
        }
        let Some(below) = self.pointer.as_deref().and_then(|own| pointer.strip_prefix(own)) else { return false };
        let fits = match self.kind.as_str() {
            "string" | "json" | "list" | "map" | "struct" => true,
            _ => is_number,
        };
        // The pointer of a list's item contains its number.
        let of_item = below.strip_prefix('/').map(|rest| rest.find('/').map_or("", |end| &rest[end..]));
        match self.kind.as_str() {
            "json" => below.is_empty() || below.starts_with('/'),
            "list" if self.has_elements => of_item == Some("") && self.rule.lands(value),
            "list" => {
                self.fields.iter().any(|field| of_item == Some(field.pointer.as_str()) && field.rule.lands(value))
            }
            "map" => {
                below.strip_prefix('/').is_some_and(|key| self.allow.iter().any(|allowed| allowed == key))
                    && self.rule.lands(value)
            }
            "struct" => self.fields.iter().any(|field| below == field.pointer && field.rule.lands(value)),
            _ => fits && below.is_empty() && self.rule.lands(value),
        }
    }
}

/// The definitions that ship with the product.
pub(crate) fn shipped() -> Vec<Dataset> {
    pipeline::dataset::shipped().iter().map(|definition| Dataset::read(&definition.text)).collect()
}

#[test]
fn the_rules_of_the_shipped_definitions_are_understood() {
    let datasets = shipped();
    let named = |name: &str| datasets.iter().find(|dataset| dataset.name == name).unwrap();
    let columns = |dataset: &str, pointer: &str, text: &str| {
        let planted = Planted { dataset: dataset.to_owned(), pointer: pointer.to_owned(), text: text.to_owned() };
        named(dataset).columns_of(&planted).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(columns("assessments", "/type", "x y"), ["type"]);
    assert_eq!(columns("assessments", "/answers/3/answer", "B"), ["answers"]);
    assert_eq!(columns("assessments", "/device/any/thing", "x y"), ["extra"]);
    assert_eq!(columns("users", "/attributes/industry", "R&D"), ["attributes"]);
    assert_eq!(columns("users", "/tags/0", "vip"), ["tags"]);
    assert_eq!(
        columns("events", "/arrival_timestamp", "731900001"),
        ["arrival_timestamp", "event_timestamp", "ingest_arrival_time"]
    );
    for (dataset, pointer, value) in [
        ("assessments", "/user_id", "x"),
        ("assessments", "/answers/3/answer", "what I think"),
        ("assessments", "/answers/3/other", "B"),
        ("assessments", "/score", "x"),
        ("assessments", "/comment", "x"),
        ("users", "/attributes/nickname", "x"),
        ("users", "/email", "x"),
        ("users", "/tags/0", "my tag"),
        ("events", "/client_context/custom/endpoint/Address", "x"),
        ("events", "/attributes", "x"),
        ("events", "", "x"),
    ] {
        assert_eq!(columns(dataset, pointer, value), Vec::<String>::new(), "{dataset}{pointer}");
    }
}
