//! Telling which dataset a record belongs to.
//!
//! Owns: the marks, one bit for each field (or field value) that any definition looks at, and the rules over them. The
//! scanner sets a record's bits while it scans by the plan of the dataset that it guesses; the rules then say which
//! dataset it is, and only a wrong guess costs a second scan. Limit: 64 different marks over all datasets together.

use crate::dataset::definition::{Definition, Recognize};
use crate::dataset::pointer::Pointer;
use crate::dataset::tree::Draft;

/// The marks of all datasets and each dataset's rule over them.
#[derive(Debug, Default)]
pub(crate) struct Markers {
    marks: Vec<Mark>,
    /// For each dataset, the ways in which a record can be of it.
    rules: Vec<Vec<Rule>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Mark {
    pointer: Pointer,
    /// The string that the field must hold; `None`: any value at all.
    value: Option<String>,
}

/// One way: the record has all of `present`, none of `absent`, and one of each group.
#[derive(Debug, Default)]
struct Rule {
    present: u64,
    absent: u64,
    one_of_each: Vec<u64>,
}

impl Rule {
    /// All bits that it looks at.
    fn bits(&self) -> u64 {
        self.one_of_each.iter().fold(self.present | self.absent, |bits, group| bits | group)
    }
}

impl Markers {
    /// The marks of these definitions, in their order of precedence.
    ///
    /// # Errors
    /// A sentence for the user where there are too many.
    pub(crate) fn new(definitions: &[Definition]) -> Result<Self, String> {
        let mut markers = Markers::default();
        for definition in definitions {
            let rules =
                definition.recognize.iter().map(|recognize| markers.rule(recognize)).collect::<Result<_, _>>()?;
            markers.rules.push(rules);
        }
        Ok(markers)
    }

    fn rule(&mut self, recognize: &Recognize) -> Result<Rule, String> {
        let mut rule = Rule::default();
        for at in &recognize.present {
            rule.present |= self.bit(&at.value, None)?;
        }
        for at in &recognize.absent {
            rule.absent |= self.bit(&at.value, None)?;
        }
        for (at, values) in &recognize.equals {
            let mut group = 0;
            for value in values {
                group |= self.bit(&at.value, Some(value.clone()))?;
            }
            rule.one_of_each.push(group);
        }
        Ok(rule)
    }

    fn bit(&mut self, pointer: &Pointer, value: Option<String>) -> Result<u64, String> {
        let mark = Mark { pointer: pointer.clone(), value };
        let position = self.marks.iter().position(|known| *known == mark).unwrap_or_else(|| {
            self.marks.push(mark);
            self.marks.len() - 1
        });
        if position >= 64 {
            return Err("the datasets' [recognize] rules look at more than 64 fields and values together".to_owned());
        }
        Ok(1 << position)
    }

    /// Puts every mark into the decode tree of a dataset, so that scanning by it tells all datasets apart.
    pub(crate) fn mark(&self, dataset: usize, draft: &mut Draft) {
        let own = self.rules[dataset].iter().fold(0, |bits, rule| bits | rule.bits());
        for (position, mark) in self.marks.iter().enumerate() {
            let bit = 1 << position;
            match &mark.value {
                None => draft.mark(&mark.pointer, bit, own & bit != 0),
                Some(value) => draft.mark_value(&mark.pointer, value, bit, own & bit != 0),
            }
        }
    }

    /// The first dataset of which a rule holds for a record's bits. A dataset without rules, or with one that has no
    /// condition but `absent`, is only reached by its source's configuration.
    pub(crate) fn recognize(&self, bits: u64) -> Option<usize> {
        let holds = |rule: &Rule| {
            (rule.present != 0 || !rule.one_of_each.is_empty())
                && bits & rule.present == rule.present
                && bits & rule.absent == 0
                && rule.one_of_each.iter().all(|group| bits & group != 0)
        };
        self.rules.iter().position(|rules| rules.iter().any(holds))
    }
}
