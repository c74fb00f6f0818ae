//! The values of one leaf: how they are checked, transformed and kept.
//!
//! Owns: turning slots into dictionary numbers, integers or texts, one column at a time; constraint checks and
//! anonymization, which for a dictionary column run once for each distinct value. Does not own: which rows survive.
//!
//! In a dictionary column two numberings matter: a **raw** number for each distinct value as it arrived (memory only,
//! never written), and an **out** number for what lands. Where nothing is transformed they are the same.

use crate::anonymize::{self, PseudonymKey};
use crate::columns::intern::{Interner, WARM_VALUES};
use crate::columns::store::{Packed, Strings};
use crate::dataset::definition::TimeFormat;
use crate::dataset::lookup::LookupTable;
use crate::dataset::plan::{Checks, Leaf, LeafSource, Physical, TextChecks, Transform};
use crate::dead_letter::code::Code;
use crate::decode::slots::{Place, Slot, Slots};
use crate::decode::text;
use crate::time::{DAY_MS, parse_date, parse_rfc3339};

/// Fate of a raw value that breaks a constraint; every other fate is an out number.
const REFUSED: u32 = u32::MAX;

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
    raw: Interner,
    /// For each raw number, its out number, 0 where it becomes null, or [`REFUSED`]. Empty: raw is out.
    fates: Vec<u32>,
    /// Values as they land, where that is not how they arrived.
    out: Option<Interner>,
    /// For each raw number, the row plus one in each lookup table that is joined on this column.
    rows: Vec<Vec<u32>>,
    pub(crate) numbers: Packed,
}

impl Dictionary {
    /// The dictionary of what lands.
    pub(crate) fn landed(&self) -> &Interner {
        self.out.as_ref().unwrap_or(&self.raw)
    }

    /// The row plus one (0: none) that a raw number has in the joined table of this place; 0 for null.
    pub(crate) fn row(&self, joined: usize, raw: u32) -> u32 {
        if raw == 0 { 0 } else { self.rows[joined][raw as usize - 1] }
    }

    /// A number for a text that lands as it is.
    pub(crate) fn number_of(&mut self, text: &[u8]) -> u32 {
        self.raw.intern(text).0
    }

    fn memory(&self) -> usize {
        let rows: usize = self.rows.iter().map(|rows| rows.capacity() * 4).sum();
        let out = self.out.as_ref().map_or(0, Interner::memory);
        self.raw.memory() + out + self.fates.capacity() * 4 + rows + self.numbers.memory()
    }
}

impl Values {
    /// An empty column for a leaf. `joined`: how many lookups are joined on it; `plain`: it has shown that it hardly
    /// repeats.
    pub(crate) fn new(leaf: &Leaf, joined: usize, plain: bool, seed: u64) -> Self {
        match leaf.physical {
            Physical::Text { .. } if leaf.source == LeafSource::Sequence => {
                Values::Sequences { numbers: Packed::default(), texts: Strings::default(), is_text: Vec::new() }
            }
            Physical::Text { unique } if unique || plain => Values::Texts(Strings::default()),
            Physical::Text { .. } => {
                let same = matches!(leaf.transform, Transform::Keep);
                Values::Dictionary(Box::new(Dictionary {
                    raw: Interner::new(seed),
                    fates: Vec::new(),
                    out: (!same).then(|| Interner::new(seed)),
                    rows: vec![Vec::new(); joined],
                    numbers: Packed::default(),
                }))
            }
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

/// The values of one leaf for one micro-batch: one for each record, or for each element of its shape.
#[derive(Debug, Default)]
pub(crate) struct Dense {
    /// No record has any: nothing below is filled.
    pub(crate) absent: bool,
    /// Out numbers of a dictionary column; 0 is null.
    pub(crate) numbers: Vec<u32>,
    /// Raw numbers, where lookups are joined on the column.
    pub(crate) raw: Vec<u32>,
    /// Numbers.
    pub(crate) values: Vec<i64>,
    /// Whether each number is there; empty: all are.
    pub(crate) valid: Vec<bool>,
    /// Texts; `None` is null.
    pub(crate) texts: Vec<Option<Slot>>,
}

/// What resolving a leaf needs beside its own state.
pub(crate) struct Resolver<'r> {
    pub(crate) chunk: &'r [u8],
    pub(crate) key: Option<&'r PseudonymKey>,
    /// Lookup tables that are joined on the leaf.
    pub(crate) tables: Vec<&'r LookupTable>,
    /// Told of each value that is refused: its record's or element's number, and why.
    pub(crate) refuse: &'r mut dyn FnMut(u32, Code),
}

impl Resolver<'_> {
    /// Turns the slots of an input into the dense values of a leaf; `count` is how many records or elements there are.
    pub(crate) fn resolve(
        &mut self,
        leaf: &Leaf,
        values: &mut Values,
        input: usize,
        slots: &mut Slots,
        count: usize,
        dense: &mut Dense,
    ) {
        dense.absent = slots.inputs[input].is_empty();
        if dense.absent {
            return;
        }
        // Texts are unescaped and transformed into the scratch while the slots are read.
        let list = std::mem::take(&mut slots.inputs[input]);
        match values {
            Values::Dictionary(dictionary) => match &leaf.transform {
                Transform::AgeBand(begins) => self.bands(leaf, dictionary, begins, &list, count, dense),
                _ => self.dictionary(leaf, dictionary, &list, &slots.scratch, count, dense),
            },
            Values::Numbers(_) => self.numbers(leaf, &list, &slots.scratch, count, dense),
            Values::Texts(_) => self.texts(leaf, &list, &mut slots.scratch, count, dense),
            Values::Sequences { .. } => {}
        }
        slots.inputs[input] = list;
    }

    fn dictionary(
        &mut self,
        leaf: &Leaf,
        dictionary: &mut Dictionary,
        list: &[Slot],
        scratch: &[u8],
        count: usize,
        dense: &mut Dense,
    ) {
        dense.numbers.clear();
        dense.numbers.resize(count, 0);
        let joined = !self.tables.is_empty();
        if joined {
            dense.raw.clear();
            dense.raw.resize(count, 0);
        }
        let plain = leaf.checks.text.is_none() && matches!(leaf.transform, Transform::Keep) && !joined;
        let mut unescaped = Vec::new();
        for (number, slot) in list.iter().enumerate() {
            if number % WARM_VALUES == 0 && dictionary.raw.is_large() {
                let next = &list[number..list.len().min(number + WARM_VALUES)];
                dictionary.raw.warm(next.iter().map(|slot| slot.bytes(self.chunk, scratch)));
            }
            let mut bytes = slot.bytes(self.chunk, scratch);
            if slot.is_escaped() {
                unescaped.clear();
                text::unescape(bytes, &mut unescaped);
                bytes = &unescaped;
            }
            let (raw, new) = dictionary.raw.intern(bytes);
            if plain {
                dense.numbers[slot.index as usize] = raw;
                continue;
            }
            if new {
                self.new_value(leaf, dictionary, bytes);
            }
            let fate = dictionary.fates[raw as usize - 1];
            if fate == REFUSED {
                (self.refuse)(slot.index, Code::ConstraintViolated);
                continue;
            }
            dense.numbers[slot.index as usize] = fate;
            if joined {
                dense.raw[slot.index as usize] = raw;
            }
        }
    }

    /// Decides the fate of a value that is seen for the first time.
    #[cold]
    fn new_value(&mut self, leaf: &Leaf, dictionary: &mut Dictionary, value: &[u8]) {
        let Dictionary { raw, fates, out, rows, .. } = dictionary;
        #[expect(clippy::cast_possible_truncation, reason = "the interner counts in u32")]
        let number = raw.len() as u32;
        let fate = if leaf.checks.text.as_ref().is_some_and(|checks| !checks.hold(value)) {
            REFUSED
        } else {
            match out {
                None => number,
                // Other identifiers have other pseudonyms: there is nothing to look up.
                Some(out) if matches!(leaf.transform, Transform::Pseudonym) => match self.key {
                    Some(key) => out.append(&key.pseudonym(value)),
                    None => 0,
                },
                Some(out) => {
                    let landing = landing_text(&leaf.transform, self.key, value);
                    landing.map_or(0, |text| out.intern(&text).0)
                }
            }
        };
        fates.push(fate);
        for (rows, table) in rows.iter_mut().zip(&self.tables) {
            rows.push(table.row(value).map_or(0, |row| u32::try_from(row + 1).unwrap_or(0)));
        }
    }

    fn bands(
        &mut self,
        leaf: &Leaf,
        dictionary: &mut Dictionary,
        begins: &[i64],
        list: &[Slot],
        count: usize,
        dense: &mut Dense,
    ) {
        dense.numbers.clear();
        dense.numbers.resize(count, 0);
        let Some(out) = &mut dictionary.out else { return };
        for slot in list {
            let age = slot.value.cast_signed();
            if !leaf.checks.holds(age) {
                (self.refuse)(slot.index, Code::OutOfRange);
                continue;
            }
            dense.numbers[slot.index as usize] = out.intern(anonymize::age_band(age, begins).as_bytes()).0;
        }
    }

    fn numbers(&mut self, leaf: &Leaf, list: &[Slot], scratch: &[u8], count: usize, dense: &mut Dense) {
        dense.values.clear();
        dense.valid.clear();
        // Without gaps the slots stand one for each record, in order.
        let complete = list.len() == count;
        dense.values.resize(count, 0);
        if !complete {
            dense.valid.resize(count, false);
        }
        for slot in list {
            let value = match self.number(leaf, *slot, scratch) {
                Ok(value) => value,
                Err(code) => {
                    (self.refuse)(slot.index, code);
                    0
                }
            };
            dense.values[slot.index as usize] = value;
            if !complete {
                dense.valid[slot.index as usize] = true;
            }
        }
    }

    #[inline]
    fn number(&self, leaf: &Leaf, slot: Slot, scratch: &[u8]) -> Result<i64, Code> {
        match leaf.physical {
            Physical::Int32 | Physical::Int64 => {
                let value = slot.value.cast_signed();
                if leaf.checks.holds(value) { Ok(value) } else { Err(Code::OutOfRange) }
            }
            Physical::Float64 => {
                let value = f64::from_bits(slot.value);
                let below = leaf.checks.min.is_some_and(|min| value < min);
                let above = leaf.checks.max.is_some_and(|max| value > max);
                if below || above { Err(Code::OutOfRange) } else { Ok(slot.value.cast_signed()) }
            }
            Physical::Bool => Ok(slot.value.cast_signed()),
            Physical::Date32 | Physical::TimestampMillis => {
                let format = leaf.time_format.unwrap_or(TimeFormat::Rfc3339);
                let ms = time_of(slot, format, self.chunk, scratch)?;
                let ms = if let Transform::TruncateTime(unit) = leaf.transform { ms - ms.rem_euclid(unit) } else { ms };
                Ok(if leaf.physical == Physical::Date32 { ms.div_euclid(DAY_MS) } else { ms })
            }
            Physical::Text { .. } => Err(Code::WrongType),
        }
    }

    fn texts(&mut self, leaf: &Leaf, list: &[Slot], scratch: &mut Vec<u8>, count: usize, dense: &mut Dense) {
        dense.texts.clear();
        dense.texts.resize(count, None);
        let mut unescaped = Vec::new();
        for slot in list {
            let mut bytes = slot.bytes(self.chunk, scratch);
            if slot.is_escaped() {
                unescaped.clear();
                text::unescape(bytes, &mut unescaped);
                bytes = &unescaped;
            }
            if leaf.checks.text.as_ref().is_some_and(|checks| !checks.hold(bytes)) {
                (self.refuse)(slot.index, Code::ConstraintViolated);
                continue;
            }
            let landing = match &leaf.transform {
                Transform::Keep if !slot.is_escaped() => Some(*slot),
                Transform::Keep => Some(append(scratch, &unescaped, slot.index)),
                transform => landing_text(transform, self.key, bytes).map(|text| append(scratch, &text, slot.index)),
            };
            dense.texts[slot.index as usize] = landing;
        }
    }
}

/// Puts a text into the scratch.
pub(crate) fn append(scratch: &mut Vec<u8>, text: &[u8], index: u32) -> Slot {
    let at = scratch.len();
    scratch.extend_from_slice(text);
    Slot::text(Place::Scratch, at, at + text.len(), false, index)
}

/// What a text becomes before it lands; `None`: null.
fn landing_text(transform: &Transform, key: Option<&PseudonymKey>, value: &[u8]) -> Option<Vec<u8>> {
    match transform {
        Transform::Pseudonym => key.map(|key| key.pseudonym(value).to_vec()),
        Transform::Region(keep) => anonymize::region(value, keep).map(String::into_bytes),
        Transform::TruncateIp => anonymize::network(value).map(String::into_bytes),
        Transform::Match(pattern) => pattern.is_match(value).then(|| value.to_vec()),
        Transform::Keep | Transform::AgeBand(_) | Transform::TruncateTime(_) => Some(value.to_vec()),
    }
}

/// The time of a slot, in milliseconds.
#[inline]
pub(crate) fn time_of(slot: Slot, format: TimeFormat, chunk: &[u8], scratch: &[u8]) -> Result<i64, Code> {
    /// The end of year 9999: no time beyond it can be written as RFC 3339.
    const LAST_MS: i64 = 253_402_300_799_999;
    match format {
        TimeFormat::EpochMs => {
            let ms = slot.value.cast_signed();
            if (-62_135_596_800_000..=LAST_MS).contains(&ms) { Ok(ms) } else { Err(Code::OutOfRange) }
        }
        TimeFormat::EpochS => {
            let ms = (f64::from_bits(slot.value) * 1000.0).round();
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "bounded just before")]
            if ms.abs() <= LAST_MS as f64 { Ok(ms as i64) } else { Err(Code::OutOfRange) }
        }
        TimeFormat::Rfc3339 | TimeFormat::Date => {
            let mut bytes = slot.bytes(chunk, scratch);
            let mut unescaped = Vec::new();
            if slot.is_escaped() {
                text::unescape(bytes, &mut unescaped);
                bytes = &unescaped;
            }
            let ms = if format == TimeFormat::Rfc3339 {
                parse_rfc3339(bytes)
            } else {
                parse_date(bytes).map(|days| days * DAY_MS)
            };
            ms.ok_or(Code::BadTimestamp)
        }
    }
}

impl Checks {
    #[inline]
    fn holds(&self, value: i64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "bounds beyond 2^53 are not written by hand")]
        let value = value as f64;
        self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }
}

impl TextChecks {
    fn hold(&self, value: &[u8]) -> bool {
        // Bytes of UTF-8 that begin a character.
        let length = || value.iter().filter(|byte| (**byte).cast_signed() >= -64).count();
        let long_enough = self.min_length == 0 || length() >= self.min_length;
        let short_enough = value.len() <= self.max_length || length() <= self.max_length;
        let chosen = self.one_of.as_ref().is_none_or(|choices| choices.iter().any(|choice| **choice == *value));
        long_enough && short_enough && chosen && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(value))
    }
}
