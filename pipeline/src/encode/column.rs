//! Encodes the values of one column as pages, with their dictionary and bloom filter.
//!
//! Owns: the choice of the encoding, page boundaries, compression. Does not own: the metadata of pages and column chunk
//! (`column_chunk`), the file around them (`file`).
//!
//! The parquet crate's column writers are not used. They take whole values and build each dictionary by hashing every value
//! of every row, which costs more than the rest of the pipeline. Here the dictionary exists since decoding, so a row costs
//! a table look-up. The result is ordinary Parquet, and the crate still writes page headers and the footer.
//!
//! Encodings are those of Parquet's `Encodings.md`:
//!
//! | values | encoding |
//! | --- | --- |
//! | text that repeats | dictionary, sorted if it is small |
//! | text that hardly repeats | `DELTA_LENGTH_BYTE_ARRAY`; sequence numbers `DELTA_BYTE_ARRAY` |
//! | whole numbers, dates, times | `DELTA_BINARY_PACKED` |
//! | doubles | dictionary if few differ, else `PLAIN` |
//! | booleans | `PLAIN` (bits) |

use std::collections::HashMap;
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
use crate::encode::column_chunk::ColumnChunk;
use crate::encode::delta::{self, Width};
use crate::encode::gather::{Column, LeafRows, Levels};
use crate::encode::levels;
use crate::encode::stats::Bounds;

/// The most rows in a page: readers skip page by page.
const PAGE_ROWS: usize = 20_000;
/// Approximate size of a page before compression.
const PAGE_BYTES: usize = 1 << 20;
/// The most values in a sorted dictionary. The ids of a sorted one give each page exact bounds at no cost.
const SORTED_MAX: usize = 4096;
/// The most values in a dictionary of doubles.
const DOUBLES_MAX: usize = 1 << 16;
/// False positives of a bloom filter: the share of row groups that are read in vain for a person who is not in them. At
/// one per cent, files of many pseudonyms would be about two per cent larger.
const BLOOM_FPP: f64 = 0.05;

/// The compressor of one encoder, and buffers that it reuses.
pub(crate) struct ColumnEncoder {
    compressor: zstd::bulk::Compressor<'static>,
    level: i32,
    body: Vec<u8>,
    packed: Vec<u8>,
    scratch: Vec<i64>,
    /// For each number of the leaf's dictionary, its position in the file's dictionary plus one. All 0 between columns.
    positions: Vec<u32>,
    /// The leaf's numbers in the order of the file's dictionary.
    dictionary: Vec<u32>,
}

impl std::fmt::Debug for ColumnEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColumnEncoder").field("level", &self.level).finish_non_exhaustive()
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
        prefixed: bool,
    },
}

impl Body<'_> {
    fn encoding(&self) -> Encoding {
        match self {
            Body::Ids(_) => Encoding::RLE_DICTIONARY,
            Body::Numbers(..) => Encoding::DELTA_BINARY_PACKED,
            Body::Doubles(_) | Body::Bools(_) => Encoding::PLAIN,
            Body::Texts { prefixed: true, .. } => Encoding::DELTA_BYTE_ARRAY,
            Body::Texts { prefixed: false, .. } => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        }
    }
}

impl ColumnEncoder {
    pub(crate) fn new(level: i32) -> Result<Self> {
        Ok(ColumnEncoder {
            compressor: zstd::bulk::Compressor::new(level)?,
            level,
            body: Vec::new(),
            packed: Vec::new(),
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
        match dictionary {
            Some(dictionary) => self.encode_interned(leaf, rows, column, dictionary, &mut chunk)?,
            None if leaf.physical == Physical::Double => self.encode_doubles(rows, column, &mut chunk)?,
            None => self.encode_plain(leaf, rows, column, &mut chunk)?,
        }
        chunk.finish(leaf.physical, self.level)
    }

    /// Encodes values that are not interned.
    fn encode_plain(
        &mut self,
        leaf: &Leaf,
        rows: &LeafRows<'_>,
        column: &mut Column,
        chunk: &mut ColumnChunk,
    ) -> Result<()> {
        let mut filter = if leaf.is_pseudonym() { Some(new_filter(rows.texts())?) } else { None };
        for batch in 0..rows.batches() {
            column.gather(rows, batch);
            let body = match leaf.physical {
                Physical::Int32 => Body::Numbers(&column.numbers, Width::Bits32),
                Physical::Int64 => Body::Numbers(&column.numbers, Width::Bits64),
                Physical::Bool => Body::Bools(&column.numbers),
                Physical::Double | Physical::Text => Body::Texts {
                    bytes: &column.texts,
                    lengths: &column.lengths,
                    prefixed: leaf.source == LeafSource::Sequence,
                },
            };
            if let Some(filter) = &mut filter {
                let mut begin = 0;
                for length in &column.lengths {
                    let end = begin + *length as usize;
                    filter.insert(&column.texts[begin..end]);
                    begin = end;
                }
            }
            self.pages(&column.levels, &[], &body, leaf.physical, &[], chunk)?;
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
        let distinct = self.dictionary.len();
        let written = if distinct > 1000 && distinct * 4 > values * 3 {
            self.encode_without_dictionary(leaf, rows, column, interned, chunk)
        } else {
            self.encode_with_dictionary(leaf, rows, column, interned, chunk)
        };
        for number in &self.dictionary {
            self.positions[*number as usize] = 0;
        }
        written
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
            let body = Body::Texts { bytes: &column.texts, lengths: &column.lengths, prefixed: false };
            self.pages(&column.levels, &[], &body, leaf.physical, &[], chunk)?;
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
            self.dictionary_page(distinct, sorted, chunk)?;
        }
        let width = levels::bit_width(u32::try_from(distinct.saturating_sub(1)).map_err(|_| too_many())?);
        let page_texts = if sorted { texts.as_slice() } else { &[] };
        for batch in 0..rows.batches() {
            if rows.batches() > 1 {
                column.gather(rows, batch);
            }
            column.ids.iter_mut().for_each(|id| *id = self.positions[*id as usize] - 1);
            self.pages(&column.levels, &column.ids, &Body::Ids(width), leaf.physical, page_texts, chunk)?;
        }
        Ok(())
    }

    /// Encodes doubles, with a dictionary if a sample has few different values.
    fn encode_doubles(&mut self, rows: &LeafRows<'_>, column: &mut Column, chunk: &mut ColumnChunk) -> Result<()> {
        let mut positions: HashMap<i64, u32, Mix> = HashMap::default();
        let mut distinct: Vec<i64> = Vec::new();
        let mut repeats = true;
        for batch in 0..rows.batches() {
            column.gather(rows, batch);
            if batch == 0 {
                let sample: std::collections::HashSet<i64> = column.numbers.iter().take(1024).copied().collect();
                repeats = sample.len() * 2 <= column.numbers.len().min(1024);
            }
            if repeats {
                for value in &column.numbers {
                    let next = u32::try_from(distinct.len()).map_err(|_| too_many())?;
                    if *positions.entry(*value).or_insert(next) == next {
                        distinct.push(*value);
                    }
                }
            }
            repeats &= distinct.len() <= DOUBLES_MAX;
            if !repeats {
                break;
            }
        }
        if repeats {
            chunk.bounds = Bounds::of_doubles(&distinct);
            self.body.clear();
            distinct.iter().for_each(|value| self.body.extend_from_slice(&value.to_le_bytes()));
            if !distinct.is_empty() {
                self.dictionary_page(distinct.len(), false, chunk)?;
            }
        }
        let width = levels::bit_width(u32::try_from(distinct.len().saturating_sub(1)).map_err(|_| too_many())?);
        chunk.doubles = if repeats { distinct } else { Vec::new() };
        for batch in 0..rows.batches() {
            if rows.batches() > 1 {
                column.gather(rows, batch);
            }
            if repeats {
                column.ids.clear();
                column.ids.extend(column.numbers.iter().map(|value| positions[value]));
                self.pages(&column.levels, &column.ids, &Body::Ids(width), Physical::Double, &[], chunk)?;
            } else {
                let body = Body::Doubles(&column.numbers);
                self.pages(&column.levels, &[], &body, Physical::Double, &[], chunk)?;
            }
        }
        Ok(())
    }

    fn dictionary_page(&mut self, distinct: usize, is_sorted: bool, chunk: &mut ColumnChunk) -> Result<()> {
        let page = Page::DictionaryPage {
            buf: self.compress()?,
            num_values: u32::try_from(distinct).map_err(|_| too_many())?,
            encoding: Encoding::PLAIN,
            is_sorted,
        };
        chunk.write(page, self.body.len())
    }

    fn compress(&mut self) -> Result<Bytes> {
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(self.body.len()));
        self.compressor.compress_to_buffer(&self.body, &mut self.packed)?;
        Ok(Bytes::copy_from_slice(&self.packed))
    }

    /// Cuts the rows into pages and writes them. `texts` is the dictionary, if it is sorted, for the bounds of each page.
    fn pages(
        &mut self,
        all: &Levels,
        ids: &[u32],
        body: &Body<'_>,
        physical: Physical,
        texts: &[&[u8]],
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
            // A page without values names PLAIN: there may be no dictionary, and some readers require one if a page names it.
            let encoding = if values.is_empty() { Encoding::PLAIN } else { body.encoding() };
            let bounds = match body {
                _ if values.is_empty() => None,
                Body::Ids(width) => {
                    self.body.push(width.to_le_bytes()[0]);
                    levels::encode(&ids[values.clone()], *width, &mut self.body);
                    chunk.bounds_of_ids(&ids[values.clone()], texts)
                }
                Body::Numbers(numbers, width) => {
                    delta::encode_numbers(&numbers[values.clone()], *width, &mut self.body);
                    Bounds::of_numbers(&numbers[values.clone()])
                }
                Body::Doubles(doubles) => {
                    let doubles = &doubles[values.clone()];
                    doubles.iter().for_each(|bits| self.body.extend_from_slice(&bits.to_le_bytes()));
                    Bounds::of_doubles(doubles)
                }
                Body::Bools(bools) => {
                    let bools = &bools[values.clone()];
                    levels::pack(bools.iter().map(|bit| u64::from(*bit != 0)), bools.len(), 1, &mut self.body);
                    Bounds::of_bools(bools)
                }
                Body::Texts { bytes, lengths, prefixed } => {
                    let lengths = &lengths[values.clone()];
                    let end = byte + lengths.iter().map(|length| *length as usize).sum::<usize>();
                    let encode = if *prefixed { delta::encode_prefixed } else { delta::encode_texts };
                    encode(lengths, &bytes[byte..end], &mut self.scratch, &mut self.body);
                    let bounds = Bounds::of_concatenated(lengths, &bytes[byte..end]);
                    byte = end;
                    bounds
                }
            };
            let page = Page::DataPage {
                buf: self.compress()?,
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

/// A fast hash of the bits of doubles. Its table lives for one column chunk, so collisions cost time and nothing else.
#[derive(Default, Clone, Copy)]
struct Mix;

impl std::hash::BuildHasher for Mix {
    type Hasher = MixHasher;

    fn build_hasher(&self) -> MixHasher {
        MixHasher(0)
    }
}

struct MixHasher(u64);

impl std::hash::Hasher for MixHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    }

    fn write_i64(&mut self, value: i64) {
        let mixed = u128::from(value.cast_unsigned() ^ 0xD6E8_FEB8_6659_FD93) * 0x9E37_79B9_7F4A_7C15_u128;
        #[expect(clippy::cast_possible_truncation, reason = "both halves are folded together")]
        let folded = mixed as u64 ^ (mixed >> 64) as u64;
        self.0 = folded;
    }
}
