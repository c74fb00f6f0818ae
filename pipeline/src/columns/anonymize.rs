//! The stage `anonymize`: the values of a column become what is written of them.
//!
//! Owns: applying a column's rule to its values, once for each distinct value where the column has a dictionary. Does not
//! own: what a rule does to one value (the module `anonymize` of the crate), which column has which rule (`dataset`).
//!
//! Invariant: after this stage no dense value of a column that has a rule is the value that arrived.

use crate::anonymize::{AgeBands, PseudonymKey};
use crate::columns::leaf::{Dictionary, Values};
use crate::columns::micro_batch::{Buffers, Dense, MicroBatch, append};
use crate::dataset::plan::Plan;
use crate::dataset::rule::{Effect, Rule};

/// Applies the rule of every leaf.
pub(super) fn anonymize(
    plan: &Plan,
    batch: &mut MicroBatch<'_>,
    key: Option<&PseudonymKey>,
    values: &mut [Values],
    buffers: &mut Buffers,
) {
    for ((leaf, values), dense) in plan.leaves.iter().zip(values).zip(&mut buffers.dense) {
        let Some(rule) = leaf.rule.as_ref().filter(|_| !dense.absent) else { continue };
        match (rule.effect(), values) {
            (Effect::Ages(bands), Values::Dictionary(dictionary)) => ages(bands, dictionary, dense),
            (Effect::Times(unit), _) => dense.values.iter_mut().for_each(|ms| *ms -= ms.rem_euclid(unit)),
            (_, Values::Dictionary(dictionary)) => distinct_texts(rule, key, dictionary, dense),
            (_, _) => {
                let scratch = &mut batch.slots.scratch;
                for slot in &mut dense.texts {
                    *slot = slot.and_then(|text| {
                        let output = rule.text(text.bytes(batch.chunk, scratch), key)?;
                        Some(append(scratch, &output, text.index))
                    });
                }
            }
        }
    }
}

/// Replaces the numbers of the values that arrived by those of the values that are written.
fn distinct_texts(rule: &Rule, key: Option<&PseudonymKey>, dictionary: &mut Dictionary, dense: &mut Dense) {
    let Dictionary { arrived, rejected, mapping, output: Some(output), .. } = dictionary else { return };
    for value in arrived.values_from(mapping.len()) {
        let is_rejected = rejected.get(mapping.len()).is_some_and(|rejected| *rejected);
        let number = match (rule, key) {
            _ if is_rejected => 0,
            // Different identifiers have different pseudonyms: there is nothing to look up.
            (Rule::Pseudonym, Some(key)) => output.append(&key.pseudonym(value)),
            _ => rule.text(value, key).map_or(0, |text| output.intern(&text).0),
        };
        mapping.push(number);
    }
    for number in dense.numbers.iter_mut().filter(|number| **number != 0) {
        *number = mapping[*number as usize - 1];
    }
}

/// Ages become the numbers of their bands.
fn ages(bands: &AgeBands, dictionary: &mut Dictionary, dense: &mut Dense) {
    let Some(output) = &mut dictionary.output else { return };
    let Dense { numbers, values, valid, .. } = dense;
    let is_valid = |index: usize| valid.get(index).is_none_or(|valid| *valid);
    numbers.clear();
    numbers.extend(
        values.iter().enumerate().map(
            |(index, age)| {
                if is_valid(index) { output.intern(bands.of(*age).as_bytes()).0 } else { 0 }
            },
        ),
    );
}
