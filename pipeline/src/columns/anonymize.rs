//! The stage `anonymize`: the values of a column become what is written of them.
//!
//! Owns: applying a column's rule to its values, once for each distinct value where the column has a dictionary. Does not
//! own: what a rule does to one value (the module `anonymize` of the crate), which column has which rule (`dataset`).
//!
//! Invariant: after this stage no dense value of a column that has a rule is the value that arrived.

use crate::anonymize::{self, PseudonymKey};
use crate::columns::leaf::{Dictionary, Values};
use crate::columns::micro_batch::{Buffers, Dense, MicroBatch, append};
use crate::dataset::plan::{Plan, Transform};

/// Applies the rule of every leaf.
pub(super) fn anonymize(
    plan: &Plan,
    batch: &mut MicroBatch<'_>,
    key: Option<&PseudonymKey>,
    values: &mut [Values],
    buffers: &mut Buffers,
) {
    for ((leaf, values), dense) in plan.leaves.iter().zip(values).zip(&mut buffers.dense) {
        if dense.absent {
            continue;
        }
        match (&leaf.transform, values) {
            (Transform::Keep, _) => {}
            (Transform::AgeBand(begins), Values::Dictionary(dictionary)) => bands(begins, dictionary, dense),
            (Transform::TruncateTime(unit), _) => dense.values.iter_mut().for_each(|ms| *ms -= ms.rem_euclid(*unit)),
            (transform, Values::Dictionary(dictionary)) => distinct_values(transform, key, dictionary, dense),
            (transform, _) => {
                let scratch = &mut batch.slots.scratch;
                for slot in &mut dense.texts {
                    *slot = slot.and_then(|text| {
                        let output = output_text(transform, key, text.bytes(batch.chunk, scratch))?;
                        Some(append(scratch, &output, text.index))
                    });
                }
            }
        }
    }
}

/// Replaces the numbers of the values that arrived by those of the values that are written.
fn distinct_values(transform: &Transform, key: Option<&PseudonymKey>, dictionary: &mut Dictionary, dense: &mut Dense) {
    let Dictionary { arrived, rejected, mapping, output: Some(output), .. } = dictionary else { return };
    for value in arrived.values_from(mapping.len()) {
        let is_rejected = rejected.get(mapping.len()).is_some_and(|rejected| *rejected);
        let number = match (transform, key) {
            _ if is_rejected => 0,
            // Different identifiers have different pseudonyms: there is nothing to look up.
            (Transform::Pseudonym, Some(key)) => output.append(&key.pseudonym(value)),
            _ => output_text(transform, key, value).map_or(0, |text| output.intern(&text).0),
        };
        mapping.push(number);
    }
    for number in dense.numbers.iter_mut().filter(|number| **number != 0) {
        *number = mapping[*number as usize - 1];
    }
}

/// Ages become the numbers of their bands.
fn bands(begins: &[i64], dictionary: &mut Dictionary, dense: &mut Dense) {
    let Some(output) = &mut dictionary.output else { return };
    let Dense { numbers, values, valid, .. } = dense;
    let is_valid = |index: usize| valid.get(index).is_none_or(|valid| *valid);
    numbers.clear();
    numbers.extend(values.iter().enumerate().map(|(index, age)| {
        if is_valid(index) { output.intern(anonymize::age_band(*age, begins).as_bytes()).0 } else { 0 }
    }));
}

/// What is written of a text; `None`: null.
fn output_text(transform: &Transform, key: Option<&PseudonymKey>, value: &[u8]) -> Option<Vec<u8>> {
    match transform {
        Transform::Pseudonym => key.map(|key| key.pseudonym(value).to_vec()),
        Transform::Region(keep) => anonymize::region(value, keep).map(String::into_bytes),
        Transform::TruncateIp => anonymize::network(value).map(String::into_bytes),
        Transform::Match(pattern) => pattern.is_match(value).then(|| value.to_vec()),
        Transform::Keep | Transform::AgeBand(_) | Transform::TruncateTime(_) => Some(value.to_vec()),
    }
}
