//! Recognizing the dataset that a record belongs to.
//!
//! Owns: the marks, and the conditions over them. A mark is a bit for a field, or a field value, that some definition
//! recognizes records by. Does not own: guessing (`decode`), setting marks (`decode::scan`).
//!
//! The scanner sets a record's bits while it scans the record by the plan of the dataset that it guesses. The conditions
//! then say which dataset it is. Only a wrong guess costs a second scan.
//!
//! Limit: 64 different marks over all datasets together.

use crate::dataset::definition::{Definition, Recognize};
use crate::dataset::pointer::Pointer;
use crate::dataset::tree::Draft;

/// The marks of all datasets, and each dataset's conditions over them.
#[derive(Debug, Default)]
pub(crate) struct Markers {
    marks: Vec<Mark>,
    /// For each dataset, the conditions under which a record belongs to it.
    conditions: Vec<Vec<Condition>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Mark {
    pointer: Pointer,
    /// The string that the field must hold; `None`: any value.
    value: Option<String>,
}

/// One condition: the record has all of `present`, none of `absent`, and one of each group.
#[derive(Debug, Default)]
struct Condition {
    present: u64,
    absent: u64,
    one_of_each: Vec<u64>,
}

impl Condition {
    /// All bits that it depends on.
    fn bits(&self) -> u64 {
        self.one_of_each.iter().fold(self.present | self.absent, |bits, group| bits | group)
    }
}

impl Markers {
    /// The marks of these definitions, in their order of precedence.
    ///
    /// # Errors
    /// A sentence for the user if there are too many.
    pub(crate) fn new(definitions: &[Definition]) -> Result<Self, String> {
        let mut markers = Markers::default();
        for definition in definitions {
            let conditions =
                definition.recognize.iter().map(|recognize| markers.condition(recognize)).collect::<Result<_, _>>()?;
            markers.conditions.push(conditions);
        }
        Ok(markers)
    }

    fn condition(&mut self, recognize: &Recognize) -> Result<Condition, String> {
        let mut condition = Condition::default();
        for at in &recognize.present {
            condition.present |= self.bit(&at.value, None)?;
        }
        for at in &recognize.absent {
            condition.absent |= self.bit(&at.value, None)?;
        }
        for (at, values) in &recognize.equals {
            let mut group = 0;
            for value in values {
                group |= self.bit(&at.value, Some(value.clone()))?;
            }
            condition.one_of_each.push(group);
        }
        Ok(condition)
    }

    fn bit(&mut self, pointer: &Pointer, value: Option<String>) -> Result<u64, String> {
        let mark = Mark { pointer: pointer.clone(), value };
        let position = self.marks.iter().position(|known| *known == mark).unwrap_or_else(|| {
            self.marks.push(mark);
            self.marks.len() - 1
        });
        if position >= 64 {
            return Err("the datasets' [recognize] rules name more than 64 fields and values together".to_owned());
        }
        Ok(1 << position)
    }

    /// Puts every mark into the decode tree of a dataset, so that a scan by it recognizes every dataset.
    pub(crate) fn mark(&self, dataset: usize, draft: &mut Draft) {
        let own = self.conditions[dataset].iter().fold(0, |bits, condition| bits | condition.bits());
        for (position, mark) in self.marks.iter().enumerate() {
            let bit = 1 << position;
            match &mark.value {
                None => draft.mark(&mark.pointer, bit, own & bit != 0),
                Some(value) => draft.mark_value(&mark.pointer, value, bit, own & bit != 0),
            }
        }
    }

    /// The first dataset that has a condition that a record's bits meet. A dataset without conditions, or with only `absent`
    /// in them, gets records only if the configuration assigns it to a source.
    pub(crate) fn recognize(&self, bits: u64) -> Option<usize> {
        let holds = |condition: &Condition| {
            (condition.present != 0 || !condition.one_of_each.is_empty())
                && bits & condition.present == condition.present
                && bits & condition.absent == 0
                && condition.one_of_each.iter().all(|group| bits & group != 0)
        };
        self.conditions.iter().position(|conditions| conditions.iter().any(holds))
    }
}
