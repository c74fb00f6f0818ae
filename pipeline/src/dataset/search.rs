//! Searching rows by a value as the source has it: which columns there are, and what the value became when it was written.
//!
//! Owns: applying a column's rule to one value, and which columns have ids. Does not own: the rules (`rule`), comparing (`rows::find`).

use std::collections::BTreeSet;

use crate::anonymize::PseudonymKey;
use crate::dataset::Datasets;
use crate::dataset::plan::{ColumnType, Leaf, LeafSource, Plan};
use crate::dataset::rule::{Effect, Rule};
use crate::time::{MS_US, format_rfc3339, parse_rfc3339_us};

/// A column by which rows can be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchColumn {
    /// Its dotted name.
    pub name: String,
    /// JSON Pointer of the field that it is made of; `None` if it is computed.
    pub pointer: Option<String>,
    /// Whether its values are ids: they hardly repeat, or they are pseudonyms.
    pub is_id: bool,
}

impl Datasets {
    /// The columns of a dataset of which a row has at most one value, and those in the paths of its files.
    pub fn search_columns(&self, dataset: usize) -> Vec<SearchColumn> {
        let plan = self.plan(dataset);
        let of_leaf = |leaf: &Leaf| SearchColumn {
            name: leaf.name.clone(),
            pointer: match leaf.source {
                LeafSource::Input(input) => Some(plan.inputs[input].pointer.clone()),
                _ => None,
            },
            is_id: leaf.is_pseudonym() || (leaf.unique && matches!(leaf.source, LeafSource::Input(_))),
        };
        let mut columns: Vec<SearchColumn> = searched(plan).map(of_leaf).collect();
        let known: BTreeSet<String> = columns.iter().map(|column| column.name.clone()).collect();
        let in_path = self.partition_columns(dataset).filter(|name| !known.contains(*name));
        columns.extend(in_path.map(|name| SearchColumn { name: name.to_owned(), pointer: None, is_id: false }));
        columns
    }

    /// The id of a column, or of a field of a struct by its dotted name, in the lake whose ids the datasets have.
    pub fn field_id(&self, dataset: usize, name: &str) -> Option<i32> {
        let mut ids = self.field_ids(dataset).iter().copied();
        let columns = &self.plan(dataset).columns;
        columns.iter().find_map(|column| field_id(&column.name, &column.data_type, name, &mut ids))
    }

    /// The texts that a column may have of a value: the value as it is, and what the column's rule makes of it. `key` is the pseudonym key;
    /// without one, a pseudonym is found by itself only.
    pub fn stored_texts(&self, dataset: usize, column: &str, value: &str, key: Option<&PseudonymKey>) -> Vec<String> {
        let mut texts = vec![value.to_owned()];
        let rule = searched(self.plan(dataset)).find(|leaf| leaf.name == column).and_then(|leaf| leaf.rule.as_ref());
        let made = rule.and_then(|rule| apply(rule, value, key));
        texts.extend(made.filter(|made| made != value));
        texts
    }
}

/// The id of the field `wanted` if it is `path` or inside of it. Takes the ids of `path` and of everything inside it.
fn field_id(path: &str, data_type: &ColumnType, wanted: &str, ids: &mut dyn Iterator<Item = i32>) -> Option<i32> {
    let own = ids.next();
    if path == wanted {
        return own;
    }
    match data_type {
        ColumnType::Scalar(_) => None,
        // Elements, keys and values have no names of their own.
        ColumnType::List(element) => field_id("", element, wanted, ids),
        ColumnType::Map(value) => {
            ids.next();
            field_id("", value, wanted, ids)
        }
        ColumnType::Struct(members) => members
            .iter()
            .map(|(name, data_type)| {
                let inside = if path.is_empty() { String::new() } else { format!("{path}.{name}") };
                field_id(&inside, data_type, wanted, ids)
            })
            .fold(None, Option::or),
    }
}

fn searched(plan: &Plan) -> impl Iterator<Item = &Leaf> {
    plan.leaves.iter().filter(|leaf| leaf.nest.repeated().is_none() && !matches!(leaf.rule, Some(Rule::Drop)))
}

fn apply(rule: &Rule, value: &str, key: Option<&PseudonymKey>) -> Option<String> {
    match rule.effect() {
        Effect::Texts => String::from_utf8(rule.text(value.as_bytes(), key)?).ok(),
        Effect::Ages(bands) => value.parse().ok().map(|age| bands.of(age).to_owned()),
        Effect::Times(unit) => {
            let us = parse_rfc3339_us(value.as_bytes())?;
            Some(format_rfc3339((us.div_euclid(unit) * unit).div_euclid(MS_US)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::DefinitionText;

    const DEFINITION: &str = r#"
name = "orders"
partition_by = ["year"]
[event_time]
pointer = "/at"
[[column]]
name = "id"
pointer = "/id"
type = "string"
unique = true
[[column]]
name = "buyer"
pointer = "/buyer/mail"
type = "string"
anonymize = { rule = "pseudonym" }
[[column]]
name = "band"
pointer = "/age"
type = "string"
anonymize = { rule = "age_band" }
[[column]]
name = "seen_at"
pointer = "/seen_at"
type = "timestamp"
anonymize = { rule = "truncate_time", to = "hour" }
[[column]]
name = "gone"
pointer = "/gone"
type = "string"
anonymize = { rule = "drop" }
[[column]]
name = "tags"
pointer = "/tags"
type = "list"
element = "string"
[[column]]
name = "device"
pointer = "/device"
type = "struct"
[[column.field]]
name = "make"
type = "string"
"#;

    fn datasets() -> Datasets {
        let definition = DefinitionText { file: "orders.toml".to_owned(), text: DEFINITION.to_owned() };
        Datasets::compile(&[definition], &|_, _| Err(String::new())).unwrap()
    }

    #[test]
    fn a_value_is_searched_as_it_is_and_as_it_was_written() {
        let (datasets, key) = (datasets(), PseudonymKey::new(b"a key of sixteen bytes").unwrap());
        let texts = |column, value| datasets.stored_texts(0, column, value, Some(&key));
        let pseudonym = String::from_utf8(key.pseudonym(b"a@b.c").to_vec()).unwrap();
        assert_eq!(texts("buyer", "a@b.c"), ["a@b.c", &pseudonym]);
        assert_eq!(datasets.stored_texts(0, "buyer", "a@b.c", None), ["a@b.c"]);
        assert_eq!(texts("id", "x1"), ["x1"]);
        assert_eq!(texts("band", "30"), ["30", "25-34"]);
        assert_eq!(texts("band", "25-34"), ["25-34"]);
        assert_eq!(texts("seen_at", "2025-01-13T10:31:07.5Z")[1], "2025-01-13T10:00:00.000Z");
    }

    #[test]
    fn columns_without_one_value_a_row_are_not_searched() {
        let columns = datasets().search_columns(0);
        let ids: Vec<&str> = columns.iter().filter(|column| column.is_id).map(|column| column.name.as_str()).collect();
        assert_eq!(ids, ["id", "buyer"]);
        let has = |name: &str| columns.iter().any(|column| column.name == name);
        assert!(has("device.make") && has("year") && has("ingest_sequence") && !has("gone") && !has("tags"));
        let mut numbered = datasets();
        numbered.number_fields(0, &mut crate::dataset::FieldIds::new("orders"));
        let id = |name: &str| numbered.field_id(0, name);
        let (tags, device) = (id("tags").unwrap(), id("device").unwrap());
        assert_eq!([id("id"), id("device.make"), id("make"), id("element")], [Some(1), Some(device + 1), None, None]);
        assert_eq!(device, tags + 2, "the elements of a list have an id");
        let buyer = columns.iter().find(|column| column.name == "buyer").unwrap();
        assert_eq!(buyer.pointer.as_deref(), Some("/buyer/mail"));
    }
}
