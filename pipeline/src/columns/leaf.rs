//! The kept values of one leaf.
//!
//! Owns: in which form the values of a leaf are kept, and its dictionary. Does not own: checking and changing values (the
//! stages), the bytes of a block (`store`).
//!
//! A dictionary column has two numberings. The values as they **arrived** are numbered in memory only and never written.
//! The **output** values are what is written. Without an anonymize rule they are the same. Checks, lookups and rules run
//! once for each distinct value that arrived.

use crate::columns::intern::Interner;
use crate::columns::store::{Packed, Strings};
use crate::dataset::plan::{Leaf, LeafSource};
use crate::dataset::types::Physical;

/// The kept values of one leaf.
#[derive(Debug)]
pub(crate) enum Values {
    /// Numbers of a dictionary.
    Dictionary(Box<Dictionary>),
    /// Texts that hardly repeat.
    Texts(Strings),
    /// Numbers: whole ones, times, booleans, and the bits of doubles.
    Numbers(Packed),
    /// Sequence numbers: of a block all numbers, or all texts.
    Sequences { numbers: Packed, texts: Strings, is_text: Vec<bool> },
}

/// A dictionary column.
#[derive(Debug)]
pub(crate) struct Dictionary {
    /// Values as they arrived. A number is an index below plus one; 0 is null.
    pub(crate) arrived: Interner,
    /// For each value that arrived, whether it breaks a constraint; empty if the column has none.
    pub(crate) rejected: Vec<bool>,
    /// For each value that arrived, the number of its output value; 0 where it becomes null.
    pub(crate) mapping: Vec<u32>,
    /// Output values, if the column has a rule.
    pub(crate) output: Option<Interner>,
    /// The rows, as numbers of output values.
    pub(crate) numbers: Packed,
}

impl Dictionary {
    /// The dictionary of the values that are written.
    pub(crate) fn output(&self) -> &Interner {
        self.output.as_ref().unwrap_or(&self.arrived)
    }

    /// The number of a text that is written as it is.
    pub(crate) fn number_of(&mut self, text: &[u8]) -> u32 {
        self.arrived.intern(text).0
    }

    fn memory(&self) -> usize {
        let output = self.output.as_ref().map_or(0, Interner::memory);
        let by_value = self.rejected.capacity() + self.mapping.capacity() * size_of::<u32>();
        self.arrived.memory() + output + by_value + self.numbers.memory()
    }
}

impl Values {
    /// An empty column for a leaf. `hardly_repeats`: its values so far did not repeat, so that a dictionary is not worth it.
    pub(crate) fn new(leaf: &Leaf, hardly_repeats: bool, seed: u64) -> Self {
        match leaf.physical {
            Physical::Text if leaf.source == LeafSource::Sequence => {
                Values::Sequences { numbers: Packed::default(), texts: Strings::default(), is_text: Vec::new() }
            }
            Physical::Text if leaf.unique || hardly_repeats => Values::Texts(Strings::default()),
            Physical::Text => Values::Dictionary(Box::new(Dictionary {
                arrived: Interner::new(seed),
                rejected: Vec::new(),
                mapping: Vec::new(),
                output: leaf.rule.as_ref().map(|_| Interner::new(seed)),
                numbers: Packed::default(),
            })),
            _ => Values::Numbers(Packed::default()),
        }
    }

    pub(crate) fn memory(&self) -> usize {
        match self {
            Values::Dictionary(dictionary) => dictionary.memory(),
            Values::Texts(texts) => texts.memory(),
            Values::Numbers(numbers) => numbers.memory(),
            Values::Sequences { numbers, texts, is_text } => numbers.memory() + texts.memory() + is_text.capacity(),
        }
    }
}
