//! Gathers the values of one leaf in one partition from the runs of all blocks, with their Parquet levels.
//!
//! Owns: reading runs of packed values, definition and repetition levels. Does not own: how values are packed
//! (`columns::store`), how they are encoded (`column`).
//!
//! Gathered values take many times the memory of packed ones, so they are gathered in batches. A batch takes about 16 MiB
//! at most, however large the partition is, unless a single run of 512 rows is larger.
//!
//! Levels follow Parquet's `LogicalTypes.md` ("Nested Types") and the Dremel paper that it cites:
//!
//! | leaf | definition levels |
//! | --- | --- |
//! | flat | 0 null, 1 value |
//! | member of a struct | 0 no struct, 1 null, 2 value |
//! | element of a list, value of a map | 0 no list, 1 empty list, 2 null, 3 value |
//! | member of a struct in a list | 0 no list, 1 empty list, 2 null struct, 3 null, 4 value |
//! | element of a list in a map | 0 no map, 1 empty map, 2 no list, 3 empty list, 4 null, 5 value |
//! | key of a map | 0 no map, 1 empty map, 2 key |
//!
//! Repetition level 0 begins a row, 1 continues it; in a list in a map, 2 continues the list.

use std::ops::Range;

use crate::columns::batch::Run;
use crate::columns::leaf::Values;
use crate::columns::store::{Gathered, GatheredStrings, Packed};
use crate::columns::table::Table;
use crate::dataset::plan::{LeafId, Nest, ShapeId};

/// Approximate number of levels in a batch. A gathered level takes about 16 bytes, twenty times as much as a packed one.
const BATCH_LEVELS: usize = 1 << 18;
/// Approximate bytes of text in a batch.
const BATCH_TEXT_BYTES: usize = 2 << 20;

/// The values of one leaf in one partition, divided into batches.
pub(crate) struct LeafRows<'r> {
    table: &'r Table,
    leaf: LeafId,
    runs: &'r [Run],
    /// For each batch, the end of its runs.
    ends: Vec<usize>,
}

impl<'r> LeafRows<'r> {
    pub(crate) fn new(table: &'r Table, leaf: LeafId, runs: &'r [Run]) -> Self {
        let mut ends = Vec::new();
        let mut size = 0;
        // Texts that hardly repeat may be long: fewer of them make a batch.
        let level_size = match &table.values[leaf] {
            values @ (Values::Texts(_) | Values::Sequences { .. }) => {
                let mean_bytes = values.memory() / table.rows.max(1);
                (mean_bytes * BATCH_LEVELS / BATCH_TEXT_BYTES).max(1)
            }
            _ => 1,
        };
        for (index, run) in runs.iter().enumerate() {
            let levels = run.len as usize + elements(table, leaf, run).map_or(0, |range| range.len());
            if size > 0 && size + levels * level_size > BATCH_LEVELS {
                ends.push(index);
                size = 0;
            }
            size += levels * level_size;
        }
        ends.push(runs.len());
        LeafRows { table, leaf, runs, ends }
    }

    pub(crate) fn batches(&self) -> usize {
        self.ends.len()
    }

    fn runs_of(&self, batch: usize) -> &'r [Run] {
        let begin = batch.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.runs[begin..self.ends[batch]]
    }

    /// The number of texts, without nulls, of a leaf that has no dictionary.
    pub(crate) fn texts(&self) -> usize {
        let Values::Texts(texts) = &self.table.values[self.leaf] else { return 0 };
        let mut lengths = Gathered::default();
        let there = |run: &Run| {
            let range =
                elements(self.table, self.leaf, run).unwrap_or(run.start as usize..(run.start + run.len) as usize);
            texts.count(run.block as usize, range, &mut lengths)
        };
        self.runs.iter().map(there).sum()
    }
}

/// The elements of a run's rows in their block, if the leaf is repeated.
fn elements(table: &Table, leaf: LeafId, run: &Run) -> Option<Range<usize>> {
    let rows = run.start as usize..(run.start + run.len) as usize;
    let block = run.block as usize;
    Some(match table.plan.leaves[leaf].nest {
        Nest::MapListElement { map, lists } => {
            elements_of(&table.shapes[lists], block, elements_of(&table.shapes[map], block, rows))
        }
        nest => elements_of(&table.shapes[nest.repeated()?], block, rows),
    })
}

/// The elements of these rows of a shape, or of these elements of a map, in their block.
fn elements_of(packed: &Packed, block: usize, rows: Range<usize>) -> Range<usize> {
    let end = |rows: usize| rows.checked_sub(1).map_or(0, |last| element_end(packed.get(block, last)));
    end(rows.start)..end(rows.end)
}

/// The levels and values of a leaf.
#[derive(Debug, Default)]
pub(crate) struct Column {
    pub(crate) levels: Levels,
    /// Numbers in the leaf's dictionary, without nulls.
    pub(crate) ids: Vec<u32>,
    /// Numbers, without nulls.
    pub(crate) numbers: Vec<i64>,
    /// Texts without nulls, concatenated, and their lengths.
    pub(crate) texts: Vec<u8>,
    pub(crate) lengths: Vec<u32>,
    scratch: Scratch,
}

/// Definition and repetition levels.
#[derive(Debug, Default)]
pub(crate) struct Levels {
    pub(crate) rows: usize,
    /// The number of levels: values and nulls.
    pub(crate) count: usize,
    pub(crate) max_definition: u8,
    pub(crate) max_repetition: u8,
    /// Empty if no value is null.
    pub(crate) definition: Vec<u8>,
    /// Empty if the leaf is not repeated.
    pub(crate) repetition: Vec<u8>,
    /// For each row, the index of its first level; empty if row n has level n.
    pub(crate) row_begins: Vec<usize>,
}

impl Levels {
    /// The levels of the rows `from..to`.
    pub(crate) fn range(&self, from: usize, to: usize) -> Range<usize> {
        let begin = |row: usize| {
            if self.row_begins.is_empty() { row } else { self.row_begins.get(row).copied().unwrap_or(self.count) }
        };
        begin(from)..begin(to)
    }

    /// The number of these levels that have a value.
    pub(crate) fn values_in(&self, levels: Range<usize>) -> usize {
        if self.definition.is_empty() {
            return levels.len();
        }
        self.definition[levels].iter().filter(|level| **level == self.max_definition).count()
    }
}

#[derive(Debug, Default)]
struct Scratch {
    gathered: Gathered,
    strings: GatheredStrings,
    shape: Gathered,
    /// Which structs of a list are not null; the lists of a map.
    presence: Gathered,
    valid: Vec<bool>,
}

impl Column {
    /// Gathers one batch.
    pub(crate) fn gather(&mut self, rows: &LeafRows<'_>, batch: usize) {
        let (table, leaf, runs) = (rows.table, rows.leaf, rows.runs_of(batch));
        self.ids.clear();
        self.numbers.clear();
        self.texts.clear();
        self.lengths.clear();
        self.levels.definition.clear();
        self.levels.repetition.clear();
        self.levels.row_begins.clear();
        self.levels.rows = runs.iter().map(|run| run.len as usize).sum();
        let nest = table.plan.leaves[leaf].nest;
        match nest.repeated() {
            None => {
                self.values(
                    &table.values[leaf],
                    runs.iter().map(|run| (run.block, run.start as usize, run.len as usize)),
                );
                self.flat(nest, table, runs);
            }
            Some(shape) => match nest {
                Nest::MapListElement { map, .. } => self.lists_of_map(table, leaf, (map, shape), runs),
                _ => self.repeated(nest, table, leaf, shape, runs),
            },
        }
    }

    /// Reads the values of these runs. Afterwards `scratch.valid` says which of them are not null; it is empty if none is
    /// null.
    fn values(&mut self, values: &Values, runs: impl Iterator<Item = (u32, usize, usize)>) {
        let Scratch { gathered, strings, valid, .. } = &mut self.scratch;
        gathered.clear();
        strings.clear();
        valid.clear();
        let number_texts = match values {
            Values::Dictionary(dictionary) => {
                for (block, start, len) in runs {
                    dictionary.numbers.read(block as usize, start, len, gathered);
                }
                take_numbers(&gathered.values, &mut self.ids);
                if self.ids.len() < gathered.values.len() {
                    valid.extend(gathered.values.iter().map(|number| *number != 0));
                }
                self.levels.count = gathered.count;
                return;
            }
            Values::Numbers(numbers) => {
                for (block, start, len) in runs {
                    numbers.read(block as usize, start, len, gathered);
                }
                std::mem::swap(&mut self.numbers, &mut gathered.values);
                std::mem::swap(valid, &mut gathered.valid);
                self.levels.count = gathered.count;
                return;
            }
            Values::Texts(texts) => {
                for (block, start, len) in runs {
                    texts.read(block as usize, start, len, strings);
                }
                false
            }
            Values::Sequences { numbers, texts, is_text } => {
                for (block, start, len) in runs {
                    if is_text[block as usize] {
                        texts.read(block as usize, start, len, strings);
                    } else {
                        gathered.clear();
                        numbers.read(block as usize, start, len, gathered);
                        for number in &gathered.values {
                            let before = strings.bytes.len();
                            write_decimal(number.cast_unsigned(), &mut strings.bytes);
                            strings.lengths.push(u32::try_from(strings.bytes.len() - before).unwrap_or(0));
                        }
                        strings.count += len;
                    }
                }
                true
            }
        };
        std::mem::swap(&mut self.texts, &mut strings.bytes);
        std::mem::swap(&mut self.lengths, &mut strings.lengths);
        self.levels.count = strings.count;
        if !number_texts {
            std::mem::swap(valid, &mut strings.valid);
        }
    }

    fn flat(&mut self, nest: Nest, table: &Table, runs: &[Run]) {
        let Scratch { shape, valid, .. } = &mut self.scratch;
        let Nest::InStruct(id) = nest else {
            self.levels.max_definition = 1;
            self.levels.definition.extend(valid.iter().map(|valid| u8::from(*valid)));
            return;
        };
        self.levels.max_definition = 2;
        shape.clear();
        read_runs(&table.shapes[id], runs, shape);
        let there = shape.values.iter().map(|value| value & 1 == 1);
        self.levels.definition.extend(there.enumerate().map(|(row, there)| match (there, valid.get(row)) {
            (false, _) => 0,
            (true, Some(false)) => 1,
            (true, _) => 2,
        }));
        if self.levels.definition.iter().all(|level| *level == 2) {
            self.levels.definition.clear();
        }
    }

    fn repeated(&mut self, nest: Nest, table: &Table, leaf: LeafId, id: ShapeId, runs: &[Run]) {
        let packed = &table.shapes[id];
        let range = |run: &Run| elements(table, leaf, run).unwrap_or_default();
        let ranges = runs.iter().map(|run| (run.block, range(run).start, range(run).len()));
        self.values(&table.values[leaf], ranges);
        let max = match nest {
            Nest::MapKey(_) => 2,
            Nest::InElement(_) => 4,
            _ => 3,
        };
        let presence = matches!(nest, Nest::InElement(_)).then(|| &table.presence[id]);
        let levels = &mut self.levels;
        levels.max_definition = max;
        levels.max_repetition = 1;
        let mut element = 0;
        for run in runs {
            self.scratch.shape.clear();
            packed.read(run.block as usize, run.start as usize, run.len as usize, &mut self.scratch.shape);
            let mut from = range(run).start;
            self.scratch.presence.clear();
            if let Some(presence) = presence {
                presence.read(run.block as usize, from, range(run).len(), &mut self.scratch.presence);
            }
            let (first_of_run, has_null_structs) = (from, self.scratch.presence.values.contains(&0));
            for value in &self.scratch.shape.values {
                levels.row_begins.push(levels.definition.len());
                let to = element_end(*value);
                if to == from {
                    levels.repetition.push(0);
                    levels.definition.push(u8::from(value & 1 == 1));
                    continue;
                }
                let end = levels.definition.len() + to - from;
                levels.repetition.push(0);
                levels.repetition.resize(end, 1);
                if self.scratch.valid.is_empty() {
                    levels.definition.resize(end, max);
                } else {
                    let valid = &self.scratch.valid[element..element + to - from];
                    levels.definition.extend(valid.iter().map(|there| if *there { max } else { max - 1 }));
                }
                if has_null_structs {
                    let structs = &self.scratch.presence.values[from - first_of_run..to - first_of_run];
                    let begin = end - (to - from);
                    for (level, there) in levels.definition[begin..].iter_mut().zip(structs) {
                        if *there == 0 {
                            *level = 2;
                        }
                    }
                }
                element += to - from;
                from = to;
            }
        }
        levels.count = levels.definition.len();
    }

    /// The elements of lists that are the values of a map.
    fn lists_of_map(&mut self, table: &Table, leaf: LeafId, (map, lists): (ShapeId, ShapeId), runs: &[Run]) {
        let range = |run: &Run| elements(table, leaf, run).unwrap_or_default();
        self.values(&table.values[leaf], runs.iter().map(|run| (run.block, range(run).start, range(run).len())));
        let Scratch { shape: maps, presence: inner, valid, .. } = &mut self.scratch;
        let levels = &mut self.levels;
        (levels.max_definition, levels.max_repetition) = (5, 2);
        let mut valid = valid.iter();
        let add = |levels: &mut Levels, repetition: u8, definition: u8| {
            levels.repetition.push(repetition);
            levels.definition.push(definition);
        };
        for run in runs {
            let block = run.block as usize;
            let rows = run.start as usize..(run.start + run.len) as usize;
            let entries = elements_of(&table.shapes[map], block, rows);
            maps.clear();
            table.shapes[map].read(block, run.start as usize, run.len as usize, maps);
            inner.clear();
            table.shapes[lists].read(block, entries.start, entries.len(), inner);
            let (mut entry, mut element) = (entries.start, range(run).start);
            for map in &maps.values {
                levels.row_begins.push(levels.definition.len());
                let last_entry = element_end(*map);
                if last_entry == entry {
                    add(levels, 0, u8::from(map & 1 == 1));
                }
                let mut repetition = 0;
                for list in &inner.values[entry - entries.start..last_entry - entries.start] {
                    let last_element = element_end(*list);
                    if last_element == element {
                        add(levels, repetition, 2 + u8::from(list & 1 == 1));
                    }
                    for _ in element..last_element {
                        add(levels, repetition, if valid.next().is_none_or(|there| *there) { 5 } else { 4 });
                        repetition = 2;
                    }
                    element = last_element;
                    repetition = 1;
                }
                entry = last_entry;
            }
        }
        levels.count = levels.definition.len();
    }
}

/// Writes the dictionary numbers that are not 0, which is null, to `ids`. Without a branch for each: a column may have nulls
/// anywhere.
fn take_numbers(numbers: &[i64], ids: &mut Vec<u32>) {
    ids.clear();
    ids.resize(numbers.len(), 0);
    let mut count = 0;
    for &number in numbers {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "dictionary numbers are u32")]
        let id = number as u32;
        ids[count] = id;
        count += usize::from(id != 0);
    }
    ids.truncate(count);
}

fn read_runs(packed: &Packed, runs: &[Run], out: &mut Gathered) {
    for run in runs {
        packed.read(run.block as usize, run.start as usize, run.len as usize, out);
    }
}

/// The end of a row's elements, from the packed form of a shape.
fn element_end(value: i64) -> usize {
    usize::try_from(value >> 1).unwrap_or(0)
}

/// Appends a number's decimal digits.
fn write_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10).to_le_bytes()[0];
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
