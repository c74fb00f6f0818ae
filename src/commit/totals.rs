//! What the records of epochs became, as counts that can be added up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What an epoch's records became.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Records read.
    pub records: u64,
    /// Rows by dataset.
    pub rows: BTreeMap<String, u64>,
    /// Dead letters by code.
    pub dead_letters: BTreeMap<String, u64>,
    /// Raw lines; `None` if the raw landing is off.
    pub raw_lines: Option<u64>,
    /// Values that did not fit and became null, by dataset and field: `events/session/start_timestamp`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nulled_values: BTreeMap<String, u64>,
    /// Keys of free-form objects that were not on an allow-list, by dataset.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub denied_keys: BTreeMap<String, u64>,
}

impl Totals {
    /// Adds another epoch's.
    pub fn add(&mut self, other: &Totals) {
        self.records = self.records.saturating_add(other.records);
        merge(&mut self.rows, &other.rows);
        merge(&mut self.dead_letters, &other.dead_letters);
        merge(&mut self.nulled_values, &other.nulled_values);
        merge(&mut self.denied_keys, &other.denied_keys);
        if let Some(lines) = other.raw_lines {
            let sum = self.raw_lines.get_or_insert(0);
            *sum = sum.saturating_add(lines);
        }
    }
}

fn merge(sums: &mut BTreeMap<String, u64>, counts: &BTreeMap<String, u64>) {
    for (name, count) in counts {
        let sum = sums.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
}

/// What has passed along an edge of the stage graph: records and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeTotal(pub u64, pub u64);

impl EdgeTotal {
    /// Adds what another epoch sent along the edge.
    pub fn add(&mut self, other: EdgeTotal) {
        self.0 = self.0.saturating_add(other.0);
        self.1 = self.1.saturating_add(other.1);
    }
}
