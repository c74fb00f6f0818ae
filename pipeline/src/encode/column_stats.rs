//! Statistics of a file's columns, for the epoch's manifest.
//!
//! Owns: which statistics leave the file, and their stored form. Does not own: the statistics inside the file (`stats`,
//! `column_chunk`), the manifest.
//!
//! Table formats plan a query by these numbers without opening the file: Iceberg's `column_sizes`, `value_counts`,
//! `null_value_counts`, `lower_bounds` and `upper_bounds` (Iceberg's spec, "Manifests"), Delta's `nullCount`, `minValues`
//! and `maxValues` (Delta's protocol, "Per-file Statistics").
//!
//! # Bounds of personal data
//!
//! A bound is a value of some person's record. A manifest outlives the file, and more people can read it. So a column has
//! bounds only if all of this holds:
//!
//! - no rule anonymizes it: not even the band of an age or a coarser time has bounds, and much less a pseudonym;
//! - its values may repeat: texts that are unique to a record (`unique = true`, `ingest_sequence`) have none;
//! - it is not free-form: JSON texts, keys and values of maps have none;
//! - it does not come from a lookup table, which may be joined on a person;
//! - it has one value a row: elements of lists have none, as in Iceberg.
//!
//! A column that is entirely null in the file has no entry.
//!
//! # Stored form
//!
//! A JSON list with one entry for each column, in the order of the file. An entry is a list:
//!
//! ```json
//! [[1,4711,995,0],[2,812,995,12,"skills","teamwork"],[3,96,995,0,1736764200123000,1736764923000000],
//!  [4,2048,995,0,"assessment-00000","assessment-00001",3]]
//! ```
//!
//! | position | content |
//! | --- | --- |
//! | 0 | field id |
//! | 1 | compressed bytes, in all row groups |
//! | 2 | values, nulls included; a list that is null or empty counts as one null |
//! | 3 | nulls |
//! | 4, 5 | least and greatest value, if the column has bounds; `null` if no short text is great enough |
//! | 6 | left out if both bounds are exact; else 1 if the lower one was shortened, 2 if the upper one was, 3 if both were |
//!
//! Bounds are booleans, integers as the file stores them (dates as days, times as microseconds since 1970), doubles (written
//! with a fraction or an exponent) or texts. Texts have 16 characters at most, as Iceberg truncates them by default; so they
//! have at most 64 bytes. The type of a column is that of its field id in `_schemas/`.

use std::fmt::Write;
use std::ops::Range;

use parquet::file::metadata::RowGroupMetaData;
use serde_json::Value;

use crate::dataset::plan::{Leaf, LeafSource, Nest, Plan};
use crate::encode::stats::Bounds;

/// The most characters in a bound of texts.
const TEXT_CHARACTERS: usize = 16;

/// Statistics of one column in one file.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnStats {
    /// The column's field id.
    pub field_id: i32,
    /// Compressed bytes in all row groups.
    pub bytes: u64,
    /// Values, nulls included.
    pub values: u64,
    /// Nulls.
    pub nulls: u64,
    /// The least and greatest value, of columns that may show them.
    pub bounds: Option<ColumnBounds>,
}

/// The least and the greatest value of a column in one file.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnBounds {
    /// No value is less.
    pub lower: Bound,
    /// No value is greater; `None` if no short text is great enough.
    pub upper: Option<Bound>,
    /// Whether the lower bound is a value of the column.
    pub lower_exact: bool,
    /// Whether the upper bound is a value of the column.
    pub upper_exact: bool,
}

/// A bound. All bounds of a column are of one kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Bound {
    /// Of booleans.
    Bool(bool),
    /// Of integers and of all that the file stores as integers: dates in days, times in microseconds since 1970.
    Int(i64),
    /// Of doubles; never NaN or infinite.
    Double(f64),
    /// Of texts; at most 16 characters.
    Text(String),
}

/// Statistics that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column statistics cannot be read: {0}")]
pub struct InvalidStats(String);

/// The statistics of a file's columns, in their stored form.
///
/// An epoch keeps them for each of its objects until it commits, which may be ten thousand. So they stay text: about 30
/// bytes for a column, a third of what [`ColumnStats`] would take.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileStats(Box<str>);

impl FileStats {
    /// The stored form of these statistics.
    pub fn new(columns: &[ColumnStats]) -> Self {
        if columns.is_empty() {
            return FileStats::default();
        }
        let mut json = String::with_capacity(columns.len() * 40);
        for column in columns {
            json.push(if json.is_empty() { '[' } else { ',' });
            column.write(&mut json);
        }
        json.push(']');
        FileStats(json.into())
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// It is damaged, or its numbers contradict each other.
    pub fn from_json(json: &str) -> Result<Self, InvalidStats> {
        Ok(FileStats::new(&read(json)?))
    }

    /// The stored form; an empty list if there are no statistics.
    pub fn as_json(&self) -> &str {
        if self.0.is_empty() { "[]" } else { &self.0 }
    }

    /// The statistics, column by column.
    pub fn columns(&self) -> Vec<ColumnStats> {
        read(self.as_json()).expect("only valid statistics are kept")
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl ColumnBounds {
    /// Whether a column with these bounds may have a text. Always true if they are not of texts.
    pub fn may_have_text(&self, text: &str) -> bool {
        let (Bound::Text(lower), upper) = (&self.lower, &self.upper) else { return true };
        let is_below = |upper: &Bound| matches!(upper, Bound::Text(upper) if text > upper.as_str());
        lower.as_str() <= text && !upper.as_ref().is_some_and(is_below)
    }

    /// Whether a column with these bounds may have an integer of a range. Always true if they are not of integers.
    pub fn may_have_int(&self, range: Range<i64>) -> bool {
        match (&self.lower, &self.upper) {
            (Bound::Int(lower), Some(Bound::Int(upper))) => *lower < range.end && *upper >= range.start,
            _ => true,
        }
    }
}

impl ColumnStats {
    fn write(&self, json: &mut String) {
        let ColumnStats { field_id, bytes, values, nulls, bounds } = self;
        let _ = write!(json, "[{field_id},{bytes},{values},{nulls}");
        if let Some(ColumnBounds { lower, upper, lower_exact, upper_exact }) = bounds {
            for bound in [Some(lower), upper.as_ref()] {
                let value = match bound {
                    None => Value::Null,
                    Some(Bound::Bool(value)) => Value::from(*value),
                    Some(Bound::Int(value)) => Value::from(*value),
                    Some(Bound::Double(value)) => Value::from(*value),
                    Some(Bound::Text(value)) => Value::from(value.as_str()),
                };
                let _ = write!(json, ",{value}");
            }
            let shortened = u8::from(!lower_exact) | u8::from(!upper_exact) << 1;
            if shortened != 0 {
                let _ = write!(json, ",{shortened}");
            }
        }
        json.push(']');
    }
}

fn read(json: &str) -> Result<Vec<ColumnStats>, InvalidStats> {
    let invalid = |problem: &str| InvalidStats(problem.to_owned());
    let entries: Vec<Vec<Value>> = serde_json::from_str(json).map_err(|error| InvalidStats(error.to_string()))?;
    let mut columns = Vec::with_capacity(entries.len());
    for entry in entries {
        let [field_id, bytes, values, nulls, bounds @ ..] = entry.as_slice() else {
            return Err(invalid("an entry has fewer than four numbers"));
        };
        let count = |value: &Value| value.as_u64().ok_or_else(|| InvalidStats(format!("{value} is not a count")));
        let id = field_id.as_i64().and_then(|id| i32::try_from(id).ok()).filter(|id| *id > 0);
        let column = ColumnStats {
            field_id: id.ok_or_else(|| InvalidStats(format!("{field_id} is not a field id")))?,
            bytes: count(bytes)?,
            values: count(values)?,
            nulls: count(nulls)?,
            bounds: read_bounds(bounds)?,
        };
        if column.nulls >= column.values {
            let ColumnStats { field_id, values, nulls, .. } = column;
            return Err(InvalidStats(format!("field {field_id} has {nulls} nulls among {values} values")));
        }
        columns.push(column);
    }
    Ok(columns)
}

fn read_bounds(entry: &[Value]) -> Result<Option<ColumnBounds>, InvalidStats> {
    let (lower, upper, shortened) = match entry {
        [] => return Ok(None),
        [lower, upper] => (lower, upper, 0),
        [lower, upper, shortened] => match shortened.as_u64() {
            Some(shortened @ 1..=3) => (lower, upper, shortened),
            _ => return Err(InvalidStats(format!("{shortened} does not say which bound was shortened"))),
        },
        _ => return Err(InvalidStats("an entry has a wrong number of values".to_owned())),
    };
    let bound = |value: &Value| match value {
        Value::Bool(value) => Ok(Bound::Bool(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Ok(Bound::Int(value)),
            (None, Some(value)) if number.is_f64() => Ok(Bound::Double(value)),
            _ => Err(InvalidStats(format!("{number} is not a bound"))),
        },
        Value::String(text) if text.chars().count() <= TEXT_CHARACTERS => Ok(Bound::Text(text.clone())),
        _ => Err(InvalidStats("a bound is not a short value".to_owned())),
    };
    let lower = bound(lower)?;
    let upper = if upper.is_null() { None } else { Some(bound(upper)?) };
    let in_order = match (&lower, &upper) {
        (Bound::Text(_), None) => true,
        (Bound::Bool(lower), Some(Bound::Bool(upper))) => lower <= upper,
        (Bound::Int(lower), Some(Bound::Int(upper))) => lower <= upper,
        (Bound::Double(lower), Some(Bound::Double(upper))) => lower <= upper,
        (Bound::Text(lower), Some(Bound::Text(upper))) => lower <= upper,
        _ => false,
    };
    if !in_order || upper.is_none() && shortened & 2 == 0 {
        return Err(InvalidStats("the bounds of a column are of two kinds, or not in order".to_owned()));
    }
    Ok(Some(ColumnBounds { lower, upper, lower_exact: shortened & 1 == 0, upper_exact: shortened & 2 == 0 }))
}

/// For each column of a dataset's files, whether its bounds may leave the file.
pub(crate) fn bounded_columns(plan: &Plan) -> Vec<bool> {
    plan.leaves.iter().filter(|leaf| leaf.in_file).map(may_show_bounds).collect()
}

fn may_show_bounds(leaf: &Leaf) -> bool {
    let is_kept = leaf.rule.is_none();
    let may_repeat = !leaf.unique;
    let one_a_row = matches!(leaf.nest, Nest::Flat | Nest::InStruct(_));
    is_kept && may_repeat && one_a_row && !matches!(leaf.source, LeafSource::Lookup { .. })
}

/// The statistics of a file with these row groups. `bounded`: for each column, whether its bounds may be shown.
pub(crate) fn of_file(row_groups: &[RowGroupMetaData], bounded: &[bool]) -> FileStats {
    let mut columns = Vec::with_capacity(bounded.len());
    for (number, bounded) in bounded.iter().enumerate() {
        let chunks = row_groups.iter().map(|group| group.column(number));
        let (mut bytes, mut values, mut nulls, mut field_id) = (0, 0, 0, 0);
        let mut bounds: Option<Bounds> = None;
        let mut all_bounded = *bounded;
        for chunk in chunks {
            let count = |number: i64| u64::try_from(number).unwrap_or(0);
            let null_count = chunk.statistics().and_then(parquet::file::statistics::Statistics::null_count_opt);
            let null_count = null_count.unwrap_or(0);
            bytes += count(chunk.compressed_size());
            values += count(chunk.num_values());
            nulls += null_count;
            field_id = chunk.column_descr().self_type().get_basic_info().id();
            if !all_bounded || null_count == count(chunk.num_values()) {
                continue;
            }
            match (chunk.statistics().and_then(Bounds::of_statistics), &mut bounds) {
                (Some(more), Some(all)) => all.widen(&more),
                (Some(first), None) => bounds = Some(first),
                (None, _) => all_bounded = false,
            }
        }
        if nulls < values {
            let bounds = bounds.filter(|_| all_bounded).and_then(column_bounds);
            columns.push(ColumnStats { field_id, bytes, values, nulls, bounds });
        }
    }
    FileStats::new(&columns)
}

/// The bounds of a column in their public form.
fn column_bounds(bounds: Bounds) -> Option<ColumnBounds> {
    let exact = |lower, upper| ColumnBounds { lower, upper: Some(upper), lower_exact: true, upper_exact: true };
    Some(match bounds {
        Bounds::Bools(min, max) => exact(Bound::Bool(min), Bound::Bool(max)),
        Bounds::Numbers(min, max) => exact(Bound::Int(min), Bound::Int(max)),
        Bounds::Doubles(min, max) => exact(Bound::Double(min), Bound::Double(max)),
        Bounds::Texts { min, max, min_exact, max_exact } => {
            let (lower, is_all_of_min) = shorten(std::str::from_utf8(&min).ok()?);
            let upper = max.as_deref().and_then(|max| shorten_up(std::str::from_utf8(max).ok()?));
            let is_all_of_max = upper.as_ref().is_some_and(|(_, is_all)| *is_all);
            ColumnBounds {
                lower: Bound::Text(lower.to_owned()),
                upper: upper.map(|(text, _)| Bound::Text(text)),
                lower_exact: min_exact && is_all_of_min,
                upper_exact: max_exact && is_all_of_max,
            }
        }
    })
}

/// The first characters of a text, and whether they are all of it.
fn shorten(text: &str) -> (&str, bool) {
    match text.char_indices().nth(TEXT_CHARACTERS) {
        None => (text, true),
        Some((end, _)) => (&text[..end], false),
    }
}

/// A text of a few characters that is not less than this one, and whether it is the same; `None` if there is none.
fn shorten_up(text: &str) -> Option<(String, bool)> {
    let (short, is_all) = shorten(text);
    let mut short = short.to_owned();
    if is_all {
        return Some((short, true));
    }
    while let Some(last) = short.pop() {
        if let Some(next) = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32) {
            short.push(next);
            return Some((short, false));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Datasets, DefinitionText, LookupTable, shipped};
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = String> {
        "[a\"\\\\\u{7f}\u{7ff}\u{ffff}\u{10ffff}]{0,16}"
    }

    fn pair() -> impl Strategy<Value = (Bound, Option<Bound>)> {
        let double = || any::<f64>().prop_filter("JSON has no NaN and no infinity", |double| double.is_finite());
        prop_oneof![
            (any::<bool>(), any::<bool>())
                .prop_map(|(one, other)| (Bound::Bool(one & other), Some(Bound::Bool(one | other)))),
            (any::<i64>(), any::<i64>())
                .prop_map(|(one, other)| (Bound::Int(one.min(other)), Some(Bound::Int(one.max(other))))),
            (double(), double())
                .prop_map(|(one, other)| (Bound::Double(one.min(other)), Some(Bound::Double(one.max(other))))),
            (text(), prop::option::of(text())).prop_map(|(one, other)| {
                let upper = other.as_ref().map(|other| Bound::Text(one.clone().max(other.clone())));
                (Bound::Text(other.map_or(one.clone(), |other| one.min(other))), upper)
            }),
        ]
    }

    fn column() -> impl Strategy<Value = ColumnStats> {
        let bounds = (pair(), any::<(bool, bool)>()).prop_map(|((lower, upper), (lower_exact, upper_exact))| {
            let upper_exact = upper_exact && upper.is_some();
            ColumnBounds { lower, upper, lower_exact, upper_exact }
        });
        (1..i32::MAX, any::<u64>(), 0..u64::MAX, any::<u64>(), prop::option::of(bounds)).prop_map(
            |(field_id, bytes, nulls, more, bounds)| ColumnStats {
                field_id,
                bytes,
                values: nulls.saturating_add(more).max(nulls + 1),
                nulls,
                bounds,
            },
        )
    }

    proptest! {
        #[test]
        fn statistics_round_trip(columns in prop::collection::vec(column(), 0..8)) {
            let stats = FileStats::new(&columns);
            prop_assert_eq!(&FileStats::from_json(stats.as_json()).unwrap(), &stats);
            prop_assert_eq!(stats.columns(), columns);
        }

        #[test]
        fn short_bounds_of_texts_hold(text in "[a\u{7f}\u{7ff}\u{d7ff}\u{ffff}\u{10ffff}]{0,30}") {
            let (lower, lower_is_all) = shorten(&text);
            prop_assert!(lower <= text.as_str() && lower.len() <= 64);
            prop_assert_eq!(lower_is_all, lower == text);
            match shorten_up(&text) {
                Some((upper, is_all)) => {
                    prop_assert!(text <= upper && upper.len() <= 64 && upper.chars().count() <= TEXT_CHARACTERS);
                    prop_assert_eq!(is_all, upper == text);
                }
                None => {
                    let has_no_successor = text.starts_with(&char::MAX.to_string().repeat(TEXT_CHARACTERS));
                    prop_assert!(has_no_successor);
                }
            }
        }
    }

    #[test]
    fn statistics_have_the_documented_form() {
        let bounds =
            |lower, upper, lower_exact, upper_exact| Some(ColumnBounds { lower, upper, lower_exact, upper_exact });
        let text = |text: &str| Bound::Text(text.to_owned());
        let column = |field_id, nulls, bounds| ColumnStats { field_id, bytes: 4711, values: 995, nulls, bounds };
        let stats = FileStats::new(&[
            column(1, 0, None),
            column(2, 12, bounds(text("skills"), Some(text("teamwork")), true, true)),
            column(3, 0, bounds(Bound::Int(-1), Some(Bound::Int(7)), true, true)),
            column(4, 0, bounds(Bound::Double(-0.0), Some(Bound::Double(5.0)), true, true)),
            column(5, 0, bounds(Bound::Bool(false), Some(Bound::Bool(true)), true, true)),
            column(6, 0, bounds(text("\u{10ffff}"), None, true, false)),
        ]);
        assert_eq!(
            stats.as_json(),
            "[[1,4711,995,0],[2,4711,995,12,\"skills\",\"teamwork\"],[3,4711,995,0,-1,7],[4,4711,995,0,-0.0,5.0],\
             [5,4711,995,0,false,true],[6,4711,995,0,\"\u{10ffff}\",null,2]]"
        );
        assert_eq!(FileStats::new(&[]).as_json(), "[]");
    }

    #[test]
    fn statistics_that_contradict_themselves_are_refused() {
        for damaged in [
            "[[1,2,3]]",
            "[[0,2,3,0]]",
            "[[1,-2,3,0]]",
            "[[1,2,3,3]]",
            "[[1,2,3,0,5]]",
            "[[1,2,3,0,5,4]]",
            "[[1,2,3,0,5,4.0]]",
            "[[1,2,3,0,\"a\",null]]",
            "[[1,2,3,0,5,null,2]]",
            "[[1,2,3,0,\"a\",\"b\",4]]",
            "[[1,2,3,0,\"12345678901234567\",\"b\",1]]",
            "[[1,2,3,0,[],[]]]",
            "[[1,2,3,0,18446744073709551615,18446744073709551615]]",
            "{}",
        ] {
            assert!(FileStats::from_json(damaged).is_err(), "{damaged}");
        }
    }

    /// The names of the columns whose bounds may leave the file.
    fn bounded(datasets: &Datasets, dataset: usize) -> Vec<&str> {
        let plan = datasets.plan(dataset);
        let columns = plan.leaves.iter().filter(|leaf| leaf.in_file).zip(bounded_columns(plan));
        columns.filter(|(_, bounded)| *bounded).map(|(leaf, _)| leaf.name.as_str()).collect()
    }

    const EVERY_RULE: &str = r#"
name = "orders"
[event_time]
pointer = "/at"
[[column]]
name = "status"
pointer = "/status"
type = "string"
[[column]]
name = "id"
pointer = "/id"
type = "string"
unique = true
[[column]]
name = "buyer"
pointer = "/buyer"
type = "string"
anonymize = { rule = "pseudonym" }
[[column]]
name = "band"
pointer = "/band"
type = "string"
anonymize = { rule = "age_band" }
[[column]]
name = "country"
pointer = "/country"
type = "string"
anonymize = { rule = "region" }
[[column]]
name = "network"
pointer = "/network"
type = "string"
anonymize = { rule = "truncate_ip" }
[[column]]
name = "seen_at"
pointer = "/seen_at"
type = "timestamp"
anonymize = { rule = "truncate_time", to = "hour" }
[[column]]
name = "answer"
pointer = "/answer"
type = "string"
anonymize = { rule = "match", pattern = "^[a-z]$" }
[[column]]
name = "labels"
pointer = "/labels"
type = "map"
value = "string"
allow = ["a"]
[[column]]
name = "rest"
pointer = "/rest"
type = "json"
personal = false
[[column]]
name = "extra"
from = "unknown_fields"
type = "json"
allow = ["b"]
[[column]]
name = "tags"
pointer = "/tags"
type = "list"
element = "string"
[[column]]
name = "items"
pointer = "/items"
type = "list"
[[column.field]]
name = "sku"
type = "string"
[[column]]
name = "device"
pointer = "/device"
type = "struct"
[[column.field]]
name = "make"
type = "string"
[[column.field]]
name = "owner"
type = "string"
anonymize = { rule = "pseudonym" }
[[column]]
name = "segment"
from = "lookup.buyers.segment"
type = "string"
[[lookup]]
name = "buyers"
file = "buyers.csv"
key = "id"
on = "buyer"
"#;

    #[test]
    fn bounds_of_what_may_identify_a_person_never_leave_the_file() {
        let definition = DefinitionText { file: "orders.toml".to_owned(), text: EVERY_RULE.to_owned() };
        let table = |_: &str, key: &str| LookupTable::read(b"id,segment\n1,a\n", key);
        let datasets = Datasets::compile(&[definition], &table).unwrap();
        let ingest = ["ingest_stream", "ingest_shard", "ingest_subsequence", "ingest_arrival_time"];
        assert_eq!(bounded(&datasets, 0), [&["status", "device.make"], &ingest[..]].concat());
    }

    #[test]
    fn no_column_of_the_shipped_definitions_shows_bounds_of_what_a_rule_anonymizes() {
        let datasets = Datasets::compile(&shipped(), &|_, _| Err(String::new())).unwrap();
        for (dataset, name) in datasets.names().enumerate() {
            let bounded = bounded(&datasets, dataset);
            for leaf in &datasets.plan(dataset).leaves {
                assert!(leaf.rule.is_none() || !bounded.contains(&leaf.name.as_str()), "{name}.{}", leaf.name);
            }
            assert!(bounded.len() > 4, "{name} has bounds: {bounded:?}");
        }
    }
}
