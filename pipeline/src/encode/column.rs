//! Encodes the values of one column as pages, with their dictionary and bloom filter.
//!
//! Owns: the choice of the encoding, page boundaries, compression. Does not own: the metadata of pages and column chunk
//! (`column_chunk`), the file around them (`file`).
//!
//! The parquet crate's column writers are not used. They take whole values and build each dictionary by hashing every value
//! of every row, which costs more than the rest of the pipeline. Here the dictionary exists since decoding, so a row costs
//! a table look-up. The result is ordinary Parquet, and the crate still writes page headers and the footer.
//!
//! Encodings are those of Parquet's `Encodings.md`. [`Encodings`] says which ones a file may have:
//!
//! | values | `compatible` | `compact` |
//! | --- | --- | --- |
//! | text that repeats | dictionary, sorted if it is small | the same |
//! | text that hardly repeats | `PLAIN` | `DELTA_LENGTH_BYTE_ARRAY`; sequence numbers `DELTA_BYTE_ARRAY` |
//! | whole numbers, dates, times | dictionary if it is smaller (`numbers`), else `PLAIN` | `DELTA_BINARY_PACKED` |
//! | doubles | dictionary if few differ, else `PLAIN` | the same |
//! | booleans | `PLAIN` (bits) | the same |
//!
//! Data pages have version 1 in both: the oldest readers know no other.

use std::ops::Range;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::bloom_filter::Sbbf;
use parquet::column::page::Page;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::schema::types::ColumnDescPtr;

use crate::columns::intern::Interner;
use crate::dataset::plan::{Leaf, LeafSource};
use crate::dataset::types::Physical;
use crate::encode::Encodings;
use crate::encode::column_chunk::ColumnChunk;
use crate::encode::compressor::{Content, PageCompressor};
use crate::encode::delta::{self, Width};
use crate::encode::gather::{Column, LeafRows, Levels};
use crate::encode::levels;
use crate::encode::numbers::{self, Kind, NumberDictionary};
use crate::encode::plain;
use crate::encode::stats::Bounds;

/// The most rows in a page: readers skip page by page.
const PAGE_ROWS: usize = 20_000;
/// Approximate size of a page before compression.
const PAGE_BYTES: usize = 1 << 20;
/// The most values in a sorted dictionary. The ids of a sorted one give each page exact bounds at no cost.
const SORTED_MAX: usize = 4096;
/// The fewest values of a dictionary of texts that may be too many.
const DICTIONARY_MIN: usize = 1000;
/// Bits that a byte of text takes after compression, as a rule: those of a hexadecimal digit.
const TEXT_BITS: usize = 4;
/// False positives of a bloom filter: the share of row groups that are read in vain for a person who is not in them. At
/// one per cent, files of many pseudonyms would be about two per cent larger.
const BLOOM_FPP: f64 = 0.05;

/// The compressor of one encoder, and buffers that it reuses.
pub(crate) struct ColumnEncoder {
    encodings: Encodings,
    compressor: PageCompressor,
    body: Vec<u8>,
    scratch: Vec<i64>,
    /// For each number of the leaf's dictionary, its position in the file's dictionary plus one. All 0 between columns.
    positions: Vec<u32>,
    /// The leaf's numbers in the order of the file's dictionary.
    dictionary: Vec<u32>,
}

impl std::fmt::Debug for ColumnEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColumnEncoder").field("encodings", &self.encodings).finish_non_exhaustive()
    }
}

/// The values of a column chunk, in the form that its pages need.
enum Body<'v> {
    /// Dictionary ids and their width in bits.
    Ids(u32),
    Numbers(&'v [i64], Width),
    Doubles(&'v [i64]),
    Bools(&'v [i64]),
    Texts {
        bytes: &'v [u8],
        lengths: &'v [u32],
        /// Whether they are sequence numbers: each begins like the one before it.
        sequences: bool,
    },
}

/// The entries of a dictionary, for the bounds of the pages that refer to them.
enum Entries<'d> {
    /// There is no dictionary, or it has too many entries to be scanned for each page.
    None,
    /// Sorted texts.
    Texts(&'d [&'d [u8]]),
    /// Numbers, and whether they are sorted.
    Numbers(&'d [i64], bool),
}

impl Entries<'_> {
    /// The bounds of the entries that a page refers to: those of the least and the greatest id if the entries are sorted.
    fn bounds(&self, ids: &[u32], physical: Physical) -> Option<Bounds> {
        if let Entries::Numbers(values, false) = self {
            let values: Vec<i64> = ids.iter().map(|id| values[*id as usize]).collect();
            return Bounds::of_values(&values, physical);
        }
        let (min, max) = (*ids.iter().min()? as usize, *ids.iter().max()? as usize);
        match self {
            Entries::None => None,
            Entries::Texts(texts) => Bounds::of_texts([*texts.get(min)?, *texts.get(max)?].into_iter()),
            Entries::Numbers(values, _) => Bounds::of_values(&[*values.get(min)?, *values.get(max)?], physical),
        }
    }
}

impl Body<'_> {
    fn encoding(&self, encodings: Encodings) -> Encoding {
        match (self, encodings) {
            (Body::Ids(_), _) => Encoding::RLE_DICTIONARY,
            (Body::Doubles(_) | Body::Bools(_), _) | (_, Encodings::Compatible) => Encoding::PLAIN,
            (Body::Numbers(..), Encodings::Compact) => Encoding::DELTA_BINARY_PACKED,
            (Body::Texts { sequences: true, .. }, Encodings::Compact) => Encoding::DELTA_BYTE_ARRAY,
            (Body::Texts { sequences: false, .. }, Encodings::Compact) => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        }
    }

    fn content(&self, encodings: Encodings) -> Content {
        match (self, encodings) {
            (Body::Numbers(_, Width::Bits64), Encodings::Compatible) => Content::Numbers,
            (Body::Texts { sequences: true, .. }, Encodings::Compatible) => Content::Sequences,
            (Body::Texts { .. }, Encodings::Compatible) => Content::Texts,
            _ => Content::Mixed,
        }
    }
}

impl ColumnEncoder {
    pub(crate) fn new(level: i32, encodings: Encodings) -> Result<Self> {
        Ok(ColumnEncoder {
            encodings,
            compressor: PageCompressor::new(level)?,
            body: Vec::new(),
            scratch: Vec::new(),
            positions: Vec::new(),
            dictionary: Vec::new(),
        })
    }

    /// Encodes a leaf's rows. `dictionary` has the leaf's values, if they are interned; `column` is a reused buffer.
    pub(crate) fn encode(
        &mut self,
        leaf: &Leaf,
        descriptor: &ColumnDescPtr,
        rows: &LeafRows<'_>,
        column: &mut Column,
        dictionary: Option<&Interner>,
    ) -> Result<(Bytes, ColumnCloseResult)> {
        let mut chunk = ColumnChunk::new(descriptor);
        match (dictionary, leaf.physical) {
            (Some(dictionary), _) => self.encode_interned(leaf, rows, column, dictionary, &mut chunk)?,
            (None, Physical::Text) => self.encode_texts(leaf, rows, column, &mut chunk)?,
            (None, _) => self.encode_numbers(leaf.physical, rows, column, &mut chunk)?,
        }
        chunk.finish(leaf.physical, self.compressor.level())
    }

    /// Encodes texts that are not interned.
    fn encode_texts(
        &mut self,
        leaf: &Leaf,
        rows: &LeafRows<'_>,
        column: &mut Column,
        chunk: &mut ColumnChunk,
    ) -> Result<()> {
        let mut filter = if leaf.is_pseudonym() { Some(new_filter(rows.texts())?) } else { None };
        let sequences = leaf.source == LeafSource::Sequence;
        for batch in 0..rows.batches() {
            column.gather(rows, batch);
            let body = Body::Texts { bytes: &column.texts, lengths: &column.lengths, sequences };
            if let Some(filter) = &mut filter {
                let mut begin = 0;
                for length in &column.lengths {
                    let end = begin + *length as usize;
                    filter.insert(&column.texts[begin..end]);
                    begin = end;
                }
            }
            self.pages(&column.levels, &[], &body, leaf.physical, &Entries::None, chunk)?;
        }
        chunk.bloom = filter;
        Ok(())
    }

    /// Encodes interned texts. The file's dictionary has only the values that these rows use.
    fn encode_interned(
        &mut self,
        leaf: &Leaf,
        rows: &LeafRows<'_>,
        column: &mut Column,
        interned: &Interner,
        chunk: &mut ColumnChunk,
    ) -> Result<()> {
        self.positions.resize(self.positions.len().max(interned.len() + 1), 0);
        self.dictionary.clear();
        let mut values = 0;
        for batch in 0..rows.batches() {
            column.gather(rows, batch);
            values += column.ids.len();
            for id in &column.ids {
                let position = &mut self.positions[*id as usize];
                if *position == 0 {
                    self.dictionary.push(*id);
                    *position = u32::try_from(self.dictionary.len()).map_err(|_| too_many())?;
                }
            }
        }
        if leaf.is_pseudonym() {
            let mut filter = new_filter(self.dictionary.len())?;
            self.dictionary.iter().for_each(|number| filter.insert(interned.get(*number)));
            chunk.bloom = Some(filter);
        }
        let written = if self.hardly_repeats(values, interned) {
            self.encode_without_dictionary(leaf, rows, column, interned, chunk)
        } else {
            self.encode_with_dictionary(leaf, rows, column, interned, chunk)
        };
        for number in &self.dictionary {
            self.positions[*number as usize] = 0;
        }
        written
    }

    /// Whether this many texts take less space without a dictionary of the different ones: whether the dictionary's ids
    /// take more bits than it saves. A sample has the mean length.
    fn hardly_repeats(&self, values: usize, interned: &Interner) -> bool {
        let distinct = self.dictionary.len();
        if distinct <= DICTIONARY_MIN {
            return false;
        }
        let sample = self.dictionary.iter().take(DICTIONARY_MIN);
        let bytes: usize = sample.map(|number| size_of::<u32>() + interned.get(*number).len()).sum();
        let saved = TEXT_BITS * (bytes / DICTIONARY_MIN) * (values - distinct);
        values * numbers::id_width(distinct) as usize > saved
    }

    /// Encodes interned texts most of which occur once: a dictionary would only add ids to them.
    fn encode_without_dictionary(
        &mut self,
        leaf: &Leaf,
        rows: &LeafRows<'_>,
        column: &mut Column,
        interned: &Interner,
        chunk: &mut ColumnChunk,
    ) -> Result<()> {
        for batch in 0..rows.batches() {
            if rows.batches() > 1 {
                column.gather(rows, batch);
            }
            column.texts.clear();
            column.lengths.clear();
            for id in &column.ids {
                let text = interned.get(*id);
                column.texts.extend_from_slice(text);
                column.lengths.push(u32::try_from(text.len()).map_err(|_| too_many())?);
            }
            let body = Body::Texts { bytes: &column.texts, lengths: &column.lengths, sequences: false };
            self.pages(&column.levels, &[], &body, leaf.physical, &Entries::None, chunk)?;
        }
        Ok(())
    }

    fn encode_with_dictionary(
        &mut self,
        leaf: &Leaf,
        rows: &LeafRows<'_>,
        column: &mut Column,
        interned: &Interner,
        chunk: &mut ColumnChunk,
    ) -> Result<()> {
        let distinct = self.dictionary.len();
        let sorted = distinct <= SORTED_MAX;
        if sorted {
            self.dictionary.sort_unstable_by_key(|number| interned.get(*number));
            for (position, number) in (1..).zip(&self.dictionary) {
                self.positions[*number as usize] = position;
            }
        }
        self.body.clear();
        for number in &self.dictionary {
            let value = interned.get(*number);
            self.body.extend_from_slice(&u32::try_from(value.len()).map_err(|_| too_many())?.to_le_bytes());
            self.body.extend_from_slice(value);
        }
        let texts: Vec<&[u8]> = self.dictionary.iter().map(|number| interned.get(*number)).collect();
        chunk.bounds = Bounds::of_texts(texts.iter().copied());
        if distinct > 0 {
            self.dictionary_page(distinct, sorted, Content::Texts, chunk)?;
        }
        let width = numbers::id_width(distinct);
        let entries = if sorted { Entries::Texts(&texts) } else { Entries::None };
        for batch in 0..rows.batches() {
            if rows.batches() > 1 {
                column.gather(rows, batch);
            }
            column.ids.iter_mut().for_each(|id| *id = self.positions[*id as usize] - 1);
            self.pages(&column.levels, &column.ids, &Body::Ids(width), leaf.physical, &entries, chunk)?;
        }
        Ok(())
    }

    /// Encodes numbers, times, booleans and doubles.
    fn encode_numbers(
        &mut self,
        physical: Physical,
        rows: &LeafRows<'_>,
        column: &mut Column,
        chunk: &mut ColumnChunk,
    ) -> Result<()> {
        let kind = match (physical, self.encodings) {
            (Physical::Double, _) => Some(Kind::Doubles),
            (Physical::Int32 | Physical::Int64, Encodings::Compatible) => Some(Kind::Whole),
            _ => None,
        };
        let width = if physical == Physical::Int32 { Width::Bits32 } else { Width::Bits64 };
        let dictionary = kind.and_then(|kind| NumberDictionary::find(rows, column, kind));
        if let Some(dictionary) = &dictionary {
            let NumberDictionary { values, is_sorted, .. } = dictionary;
            chunk.bounds = Bounds::of_values(values, physical);
            self.body.clear();
            plain::encode_numbers(values, width, &mut self.body);
            let content = if physical == Physical::Int64 { Content::Numbers } else { Content::Mixed };
            self.dictionary_page(values.len(), *is_sorted, content, chunk)?;
        }
        let entries = dictionary.as_ref().map_or(Entries::None, |of| Entries::Numbers(&of.values, of.is_sorted));
        for batch in 0..rows.batches() {
            if rows.batches() > 1 || kind.is_none() {
                column.gather(rows, batch);
            }
            if let Some(dictionary) = &dictionary {
                dictionary.number(&column.numbers, &mut column.ids);
            }
            let body = match (&dictionary, physical) {
                (Some(dictionary), _) => Body::Ids(numbers::id_width(dictionary.values.len())),
                (None, Physical::Bool) => Body::Bools(&column.numbers),
                (None, Physical::Double) => Body::Doubles(&column.numbers),
                (None, _) => Body::Numbers(&column.numbers, width),
            };
            self.pages(&column.levels, &column.ids, &body, physical, &entries, chunk)?;
        }
        Ok(())
    }

    fn dictionary_page(
        &mut self,
        distinct: usize,
        is_sorted: bool,
        content: Content,
        chunk: &mut ColumnChunk,
    ) -> Result<()> {
        let page = Page::DictionaryPage {
            buf: self.compressor.compress(&self.body, 0, content)?,
            num_values: u32::try_from(distinct).map_err(|_| too_many())?,
            encoding: Encoding::PLAIN,
            is_sorted,
        };
        chunk.write(page, self.body.len())
    }

    /// Cuts the rows into pages and writes them. `dictionary` has what the ids mean.
    fn pages(
        &mut self,
        all: &Levels,
        ids: &[u32],
        body: &Body<'_>,
        physical: Physical,
        dictionary: &Entries<'_>,
        chunk: &mut ColumnChunk,
    ) -> Result<()> {
        let bytes_a_row = match body {
            Body::Ids(width) => all.count * *width as usize / 8 / all.rows.max(1),
            Body::Texts { bytes, .. } => bytes.len() / all.rows.max(1),
            _ => 8 * all.count / all.rows.max(1),
        };
        let rows_a_page = (PAGE_BYTES / bytes_a_row.max(1)).clamp(1, PAGE_ROWS);
        let (mut value, mut byte) = (0, 0);
        let mut first_row = 0;
        while first_row < all.rows {
            let last_row = (first_row + rows_a_page).min(all.rows);
            let levels = all.range(first_row, last_row);
            let values = value..value + all.values_in(levels.clone());
            self.body.clear();
            write_levels(all, levels.clone(), &mut self.body);
            let levels_end = self.body.len();
            // A page without values names PLAIN: there may be no dictionary, and some readers require one if a page names it.
            let encoding = if values.is_empty() { Encoding::PLAIN } else { body.encoding(self.encodings) };
            let content = if values.is_empty() { Content::Mixed } else { body.content(self.encodings) };
            let bounds = match body {
                _ if values.is_empty() => None,
                Body::Ids(width) => {
                    self.body.push(width.to_le_bytes()[0]);
                    levels::encode(&ids[values.clone()], *width, &mut self.body);
                    dictionary.bounds(&ids[values.clone()], physical)
                }
                Body::Numbers(numbers, width) => {
                    let numbers = &numbers[values.clone()];
                    match self.encodings {
                        Encodings::Compatible => plain::encode_numbers(numbers, *width, &mut self.body),
                        Encodings::Compact => delta::encode_numbers(numbers, *width, &mut self.body),
                    }
                    Bounds::of_numbers(numbers)
                }
                Body::Doubles(doubles) => {
                    plain::encode_numbers(&doubles[values.clone()], Width::Bits64, &mut self.body);
                    Bounds::of_doubles(&doubles[values.clone()])
                }
                Body::Bools(bools) => {
                    let bools = &bools[values.clone()];
                    levels::pack(bools.iter().map(|bit| u64::from(*bit != 0)), bools.len(), 1, &mut self.body);
                    Bounds::of_bools(bools)
                }
                Body::Texts { bytes, lengths, sequences } => {
                    let lengths = &lengths[values.clone()];
                    let end = byte + lengths.iter().map(|length| *length as usize).sum::<usize>();
                    let bytes = &bytes[byte..end];
                    match (self.encodings, *sequences) {
                        (Encodings::Compatible, _) => plain::encode_texts(lengths, bytes, &mut self.body),
                        (Encodings::Compact, true) => {
                            delta::encode_prefixed(lengths, bytes, &mut self.scratch, &mut self.body);
                        }
                        (Encodings::Compact, false) => {
                            delta::encode_texts(lengths, bytes, &mut self.scratch, &mut self.body);
                        }
                    }
                    byte = end;
                    Bounds::of_concatenated(lengths, bytes)
                }
            };
            let page = Page::DataPage {
                buf: self.compressor.compress(&self.body, levels_end, content)?,
                num_values: u32::try_from(levels.len()).map_err(|_| too_many())?,
                encoding,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            };
            chunk.add_page(bounds.as_ref(), physical, (levels.len(), values.len()), last_row - first_row);
            chunk.write(page, self.body.len())?;
            value = values.end;
            first_row = last_row;
        }
        Ok(())
    }
}

/// Writes the levels of a data page of version 1: for each kind, its length in four bytes, then the hybrid encoding
/// (Parquet's `Encodings.md`, "RLE").
fn write_levels(all: &Levels, range: Range<usize>, out: &mut Vec<u8>) {
    let mut write = |encode: &dyn Fn(&mut Vec<u8>)| {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        encode(out);
        let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
        out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    };
    if !all.repetition.is_empty() {
        let width = levels::bit_width(u32::from(all.max_repetition));
        write(&|out| levels::encode(&all.repetition[range.clone()], width, out));
    }
    let width = levels::bit_width(u32::from(all.max_definition));
    if all.definition.is_empty() {
        write(&|out| levels::encode_run(u32::from(all.max_definition), range.len(), width, out));
    } else {
        write(&|out| levels::encode(&all.definition[range.clone()], width, out));
    }
}

/// An empty filter for this many different values.
fn new_filter(values: usize) -> Result<Sbbf> {
    Sbbf::new_with_ndv_fpp(values.max(1) as u64, BLOOM_FPP)
}

fn too_many() -> ParquetError {
    ParquetError::General("a row group holds more than 2^32 values or bytes of a column".to_owned())
}
