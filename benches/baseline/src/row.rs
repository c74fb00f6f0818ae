//! The row of one record: the values that were read, its times, and the values of its columns.
//!
//! Faults are found in the product's order: first those of the walk, then those of the times, then those of the columns.

use crate::anonymize::Pseudonyms;
use crate::code::Code;
use crate::plan::{Plan, Source};

use crate::time::time_of;
use crate::tree::Json;
use crate::value::Value;
use crate::walk::Walk;

/// Buffers of one row, reused for the next.
#[derive(Debug, Default)]
pub(crate) struct Row {
    slots: Vec<Value>,
    /// The value of each column; null for computed columns.
    pub(crate) values: Vec<Value>,
    /// The path of its partition.
    pub(crate) path: String,
    /// The digits of its sequence number.
    pub(crate) sequence: String,
}

/// The times of a record, in microseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) event_us: i64,
    pub(crate) arrival_us: i64,
}

impl Row {
    /// Walks a record's tree into the slots.
    pub(crate) fn walk(&mut self, plan: &Plan, members: Vec<(String, Json)>, walk: &mut Walk) {
        self.slots.clear();
        self.slots.resize(plan.slots, Value::Null);
        walk.object(&plan.record, members, &mut self.slots);
    }

    /// The times of the record, if they are within bounds. `arrival_ms` is the source's arrival time.
    pub(crate) fn times(&self, plan: &Plan, arrival_ms: i64) -> Result<Times, Code> {
        let arrival = plan.arrival_time.as_ref().filter(|time| self.slots[time.slot] != Value::Null);
        let arrival_us = match arrival {
            Some(time) => time_of(&self.slots[time.slot], &time.format)?,
            None => arrival_ms.saturating_mul(1000),
        };
        let event = &self.slots[plan.event_time.slot];
        if *event == Value::Null {
            return Err(Code::MissingField);
        }
        let event_us = time_of(event, &plan.event_time.format)?;
        // The bounds are whole milliseconds: a time is within them if its millisecond is.
        let last_us =
            arrival_us.div_euclid(1000).saturating_mul(1000).saturating_add(plan.ahead_max_us).saturating_add(999);
        let is_late = event_us.div_euclid(1000) > plan.not_after_us.div_euclid(1000);
        if event_us < plan.not_before_us || event_us > last_us || is_late {
            return Err(Code::EventTimeOutOfBounds);
        }
        Ok(Times { event_us, arrival_us })
    }

    /// Turns slots into the values of columns. The first fault counts, in the order of the columns.
    pub(crate) fn apply(&mut self, plan: &Plan, pseudonyms: &Pseudonyms) -> Result<(), Code> {
        self.values.clear();
        for column in &plan.columns {
            let value = column_value(&column.source, &mut self.slots, pseudonyms)?;
            self.values.push(value);
        }
        Ok(())
    }
}

/// The value of a column, from the slots; null for a computed column.
fn column_value(source: &Source, slots: &mut [Value], pseudonyms: &Pseudonyms) -> Result<Value, Code> {
    let mut take = |slot: usize| std::mem::take(&mut slots[slot]);
    let (mut value, required) = match source {
        Source::Scalar(slot, leaf)
        | Source::List(slot, leaf)
        | Source::Map(slot, leaf)
        | Source::MapOfLists(slot, leaf) => (take(*slot), leaf.required),
        Source::Objects { slot, required, .. } | Source::Json { slot, required } => (take(*slot), *required),
        Source::Struct { presence, required, members } => {
            let value = match take(*presence) {
                Value::Null => Value::Null,
                _ => Value::Struct(members.iter().map(|(_, slot, _)| take(*slot)).collect()),
            };
            (value, *required)
        }
        _ => return Ok(Value::Null),
    };
    if required && value == Value::Null {
        return Err(Code::MissingField);
    }
    match (source, &mut value) {
        (Source::Scalar(_, leaf), value) => leaf.apply(value, pseudonyms)?,
        (Source::List(_, leaf), Value::List(elements)) => {
            elements.iter_mut().try_for_each(|element| leaf.apply(element, pseudonyms))?;
        }
        (Source::Map(_, leaf), Value::Map(entries)) => {
            entries.iter_mut().try_for_each(|(_, value)| leaf.apply(value, pseudonyms))?;
        }
        (Source::MapOfLists(_, leaf), Value::Map(entries)) => {
            for (_, list) in entries {
                if let Value::List(elements) = list {
                    elements.iter_mut().try_for_each(|element| leaf.apply(element, pseudonyms))?;
                }
            }
        }
        (Source::Struct { members, .. }, Value::Struct(values)) => {
            members.iter().zip(values).try_for_each(|((_, _, leaf), value)| leaf.apply(value, pseudonyms))?;
        }
        // The rules of each member are applied to all elements before those of the next member.
        (Source::Objects { members, .. }, Value::List(elements)) => {
            for (number, (_, leaf)) in members.iter().enumerate() {
                for element in elements.iter_mut() {
                    if let Value::Struct(values) = element {
                        leaf.apply(&mut values[number], pseudonyms)?;
                    }
                }
            }
        }
        _ => {}
    }
    Ok(value)
}
