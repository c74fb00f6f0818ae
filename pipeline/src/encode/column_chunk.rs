//! A column chunk that is being written: its bytes and its metadata.
//!
//! Owns: the offsets of pages, the page index, the bounds of pages and chunk, the metadata of the chunk. Does not own: the
//! content of a page (`column`), the file around the chunk (`file`).
//!
//! The metadata is `ColumnMetaData` of `parquet.thrift`, the page index that of Parquet's `PageIndex.md`. Limit: 2 GiB a
//! page, because page sizes are 32-bit integers there.

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, PageType, ZstdLevel};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::Result;
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use crate::dataset::types::Physical;
use crate::encode::stats::{Bounds, statistics};

/// A growing column chunk.
pub(super) struct ColumnChunk {
    descriptor: ColumnDescPtr,
    sink: TrackedWrite<Vec<u8>>,
    pub(super) bounds: Option<Bounds>,
    pub(super) bloom: Option<Sbbf>,
    index: ColumnIndexBuilder,
    /// True while every page has bounds or no values. The pages of a large, unsorted dictionary have no bounds: such a
    /// column gets no column index.
    indexed: bool,
    offsets: OffsetIndexBuilder,
    uncompressed: usize,
    dictionary_at: Option<i64>,
    data_at: Option<i64>,
    pages: Vec<(PageType, Encoding, i32)>,
    rows: u64,
    levels: u64,
    values: u64,
}

impl ColumnChunk {
    pub(super) fn new(descriptor: &ColumnDescPtr) -> Self {
        ColumnChunk {
            descriptor: descriptor.clone(),
            sink: TrackedWrite::new(Vec::new()),
            bounds: None,
            bloom: None,
            index: ColumnIndexBuilder::new(descriptor.physical_type()),
            indexed: true,
            offsets: OffsetIndexBuilder::new(),
            uncompressed: 0,
            dictionary_at: None,
            data_at: None,
            pages: Vec::new(),
            rows: 0,
            levels: 0,
            values: 0,
        }
    }

    /// Adds a page to the page index and to the bounds of the chunk.
    pub(super) fn add_page(
        &mut self,
        bounds: Option<&Bounds>,
        physical: Physical,
        (levels, values): (usize, usize),
        rows: usize,
    ) {
        self.rows += rows as u64;
        self.levels += levels as u64;
        self.values += values as u64;
        self.indexed &= values == 0 || bounds.is_some();
        let (min, max) = bounds.map(|bounds| bounds.to_bytes(physical)).unwrap_or_default();
        let nans = (physical == Physical::Double).then_some(0);
        self.index.append(values == 0, min, max, i64::try_from(levels - values).unwrap_or(0), nans);
        self.offsets.append_row_count(i64::try_from(rows).unwrap_or(0));
        if let Some(bounds) = bounds {
            match &mut self.bounds {
                Some(all) => all.widen(bounds),
                None => self.bounds = Some(bounds.clone()),
            }
        }
    }

    /// Appends the bytes of a page. A data page must have been added with [`ColumnChunk::add_page`].
    pub(super) fn write(&mut self, page: Page, uncompressed: usize) -> Result<()> {
        let data = page.is_data_page();
        let (kind, encoding) = (page.page_type(), page.encoding());
        let has_values = page.num_values() > 0;
        let at = i64::try_from(self.sink.bytes_written()).unwrap_or(0);
        let spec = SerializedPageWriter::new(&mut self.sink).write_page(CompressedPage::new(page, uncompressed))?;
        self.uncompressed += spec.uncompressed_size;
        if data {
            self.data_at.get_or_insert(at);
            self.offsets.append_offset_and_size(at, i32::try_from(spec.compressed_size).unwrap_or(i32::MAX));
        } else {
            self.dictionary_at = Some(at);
        }
        debug_assert!(has_values || !data, "a data page has levels");
        match self.pages.iter_mut().find(|(known, with, _)| *known == kind && *with == encoding) {
            Some((_, _, count)) => *count += 1,
            None => self.pages.push((kind, encoding, 1)),
        }
        Ok(())
    }

    /// The bytes of the chunk, and what the file's footer and indexes need of it.
    pub(super) fn finish(self, physical: Physical, level: i32) -> Result<(Bytes, ColumnCloseResult)> {
        let size = i64::try_from(self.sink.bytes_written()).unwrap_or(i64::MAX);
        let mut encodings: Vec<Encoding> = self.pages.iter().map(|(_, encoding, _)| *encoding).collect();
        encodings.push(Encoding::RLE);
        let page_stats = self.pages.iter().map(|(page_type, encoding, count)| PageEncodingStats {
            page_type: *page_type,
            encoding: *encoding,
            count: *count,
        });
        let mut builder = ColumnChunkMetaData::builder(self.descriptor)
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(level)?))
            .set_encodings(encodings)
            .set_page_encoding_stats(page_stats.collect())
            .set_total_compressed_size(size)
            .set_total_uncompressed_size(i64::try_from(self.uncompressed).unwrap_or(i64::MAX))
            .set_num_values(i64::try_from(self.levels).unwrap_or(i64::MAX))
            .set_data_page_offset(self.data_at.unwrap_or(0))
            .set_dictionary_page_offset(self.dictionary_at);
        builder = builder.set_statistics(statistics(self.bounds.as_ref(), physical, self.levels - self.values));
        let close = ColumnCloseResult {
            bytes_written: size.cast_unsigned(),
            rows_written: self.rows,
            metadata: builder.build()?,
            bloom_filter: self.bloom,
            column_index: if self.indexed { Some(self.index.build()?) } else { None },
            offset_index: Some(self.offsets.build()),
        };
        // The bytes wait in memory until their part is uploaded: spare capacity must not.
        let mut bytes = self.sink.into_inner()?;
        bytes.shrink_to_fit();
        Ok((Bytes::from(bytes), close))
    }
}
