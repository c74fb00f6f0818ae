//! Compresses the bodies of pages with zstd.
//!
//! Owns: the parameters of zstd for each kind of content. Does not own: what is in a page (`column`).
//!
//! zstd's levels are made for general data. Pages of plain numbers or texts have a fixed stride: the length of a text, or
//! the high bytes of a number, equal those of the value before. zstd writes such a match at the last distance in almost no
//! bits, but its levels often prefer a distant match, which costs more than it saves. A hash table of few entries forgets
//! distant matches, and a short least match finds the near ones. So level 1 has parameters of its own for each kind.
//! Measured on `shardlake produce`, bytes compared with zstd's level 1 at about the same time:
//!
//! | content | least match | hash table | bytes |
//! | --- | --- | --- | --- |
//! | texts | 6 | 2^12 | pseudonyms −3 %, UUIDs −2 %, JSON 0 % |
//! | sequence numbers | 6 | 2^6 | −30 % |
//! | numbers of 64 bits | 4 | 2^12 | −17 % |
//!
//! Other levels are zstd's own: who asks for more compression gets zstd's search for it.
//!
//! In a page of texts, long definition and repetition levels have a block of their own in the frame. In one block with the
//! texts, they would need a common code for their bytes, which is worse for both: 3 % of such a page. Other pages gain less
//! than it costs.

use bytes::Bytes;
use parquet::errors::Result;
use zstd::bulk::Compressor;
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{CParameter, InBuffer, OutBuffer, ResetDirective, Strategy, compress_bound, get_error_name};

/// What is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Anything without a better name: dictionary numbers, bits, numbers of 32 bits, doubles.
    Mixed,
    /// Texts that hardly repeat, each with its length: plain pages, dictionaries.
    Texts,
    /// Decimal numbers that increase, each with its length.
    Sequences,
    /// Whole numbers and times of 64 bits.
    Numbers,
}

/// The level that has parameters for each content.
const TUNED_LEVEL: i32 = 1;

/// The fewest bytes of levels before texts that are worth a block of their own.
const LEVELS_MIN: usize = 256;
/// Bytes that a block may add to what zstd needs at most: its header, with room to spare.
const BLOCK_BYTES: usize = 64;

/// One compressor for every kind of content: its memory is a megabyte and more.
pub(super) struct PageCompressor {
    level: i32,
    compressor: Compressor<'static>,
    /// What its parameters are for.
    tuned_for: Content,
    packed: Vec<u8>,
}

impl PageCompressor {
    pub(super) fn new(level: i32) -> Result<Self> {
        let compressor = Compressor::new(level)?;
        Ok(PageCompressor { level, compressor, tuned_for: Content::Mixed, packed: Vec::new() })
    }

    /// Sets the parameters for this content.
    fn tune(&mut self, content: Content) -> std::io::Result<()> {
        if self.level != TUNED_LEVEL || self.tuned_for == content {
            return Ok(());
        }
        let failed = |code| std::io::Error::other(get_error_name(code));
        self.compressor.context_mut().reset(ResetDirective::Parameters).map_err(failed)?;
        self.compressor.set_parameter(CParameter::CompressionLevel(self.level))?;
        let tuned = match content {
            Content::Mixed => None,
            Content::Texts => Some((6, 12)),
            Content::Sequences => Some((6, 6)),
            Content::Numbers => Some((4, 12)),
        };
        if let Some((min_match, hash_log)) = tuned {
            self.compressor.set_parameter(CParameter::Strategy(Strategy::ZSTD_fast))?;
            self.compressor.set_parameter(CParameter::MinMatch(min_match))?;
            self.compressor.set_parameter(CParameter::HashLog(hash_log))?;
        }
        self.tuned_for = content;
        Ok(())
    }

    pub(super) fn level(&self) -> i32 {
        self.level
    }

    /// The body as one zstd frame. It begins with this many bytes of levels.
    pub(super) fn compress(&mut self, body: &[u8], levels: usize, content: Content) -> Result<Bytes> {
        self.tune(content)?;
        let compressor = &mut self.compressor;
        self.packed.clear();
        self.packed.reserve(compress_bound(body.len()) + BLOCK_BYTES);
        if content != Content::Texts || levels < LEVELS_MIN || levels == body.len() {
            compressor.compress_to_buffer(body, &mut self.packed)?;
        } else {
            compress_apart(compressor, body, levels, &mut self.packed)?;
        }
        Ok(Bytes::copy_from_slice(&self.packed))
    }
}

/// Writes one frame in which the levels end with a block.
fn compress_apart(
    compressor: &mut Compressor<'_>,
    body: &[u8],
    levels: usize,
    packed: &mut Vec<u8>,
) -> std::io::Result<()> {
    let failed = |code| std::io::Error::other(get_error_name(code));
    let context = compressor.context_mut();
    // The frame says how long its content is, as other frames do.
    context.set_pledged_src_size(Some(body.len() as u64)).map_err(failed)?;
    let room = packed.capacity();
    let mut output = OutBuffer::around(packed);
    let (levels, values) = body.split_at(levels);
    for (part, end) in [(levels, ZSTD_EndDirective::ZSTD_e_flush), (values, ZSTD_EndDirective::ZSTD_e_end)] {
        let mut input = InBuffer::around(part);
        while context.compress_stream2(&mut output, &mut input, end).map_err(failed)? > 0 {
            if output.pos() == room {
                return Err(std::io::Error::other("a page does not fit into its buffer"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a tuned compressor writes is smaller than what zstd's level 1 writes, and any decoder reads it.
    fn ratio(body: &[u8], content: Content) -> f64 {
        let mut compressor = PageCompressor::new(TUNED_LEVEL).unwrap();
        let tuned = compressor.compress(body, 0, content).unwrap();
        assert_eq!(zstd::decode_all(&*tuned).unwrap(), body);
        #[expect(clippy::cast_precision_loss, reason = "pages are small")]
        let ratio = tuned.len() as f64 / compressor.compress(body, 0, Content::Mixed).unwrap().len() as f64;
        ratio
    }

    /// Texts as a plain page has them.
    fn plain(texts: impl Iterator<Item = String>) -> Vec<u8> {
        let mut body = Vec::new();
        for text in texts {
            body.extend_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
            body.extend_from_slice(text.as_bytes());
        }
        body
    }

    /// Random numbers, the same ones every time.
    fn random(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ state >> 31
        }
    }

    #[test]
    fn each_kind_of_page_is_smaller_than_at_the_plain_level() {
        let mut next = random(1);
        let pseudonyms = plain((0..20_000).map(|_| format!("{:016x}{:016x}", next(), next())));
        assert!(ratio(&pseudonyms, Content::Texts) < 0.99);
        let offsets = plain((0..20_000_u64).scan(10_000_000, |at, _| {
            *at += 900 + next() % 900;
            Some(at.to_string())
        }));
        assert!(ratio(&offsets, Content::Sequences) < 0.8);
        let shard = "4959033827149025660855969253836";
        let stream = plain((0..20_000_u64).scan(1_000_000_000, |at, _| {
            *at += 900 + next() % 90_000;
            Some(format!("{shard}{at:025}"))
        }));
        assert!(ratio(&stream, Content::Sequences) < 1.0);
        let times = (0..20_000).flat_map(|_| (1_736_899_200_000_000 + next() % 259_200_000 * 1000).to_le_bytes());
        assert!(ratio(&times.collect::<Vec<u8>>(), Content::Numbers) < 0.9);
    }

    #[test]
    fn a_frame_with_levels_in_a_block_of_their_own_is_smaller_and_has_its_size() {
        let mut next = random(2);
        let mut body: Vec<u8> = (0..2_700).map(|_| next().to_le_bytes()[3]).collect();
        let levels = body.len();
        body.extend(plain((0..12_000).map(|_| format!("{:016x}{:016x}", next(), next()))));
        for level in [1, 3, 19] {
            let mut compressor = PageCompressor::new(level).unwrap();
            for content in [Content::Texts, Content::Mixed, Content::Numbers, Content::Sequences] {
                for levels in [levels, LEVELS_MIN - 1, 0, body.len() - 1, body.len()] {
                    let frame = compressor.compress(&body, levels, content).unwrap();
                    assert_eq!(zstd::decode_all(&*frame).unwrap(), body, "level {level}, {levels} bytes of levels");
                    let size = zstd::zstd_safe::get_frame_content_size(&frame).unwrap();
                    assert_eq!(size, Some(body.len() as u64));
                    let end = zstd::zstd_safe::find_frame_compressed_size(&frame).unwrap();
                    assert_eq!(end, frame.len(), "there is one frame");
                }
            }
            if level == TUNED_LEVEL {
                let apart = compressor.compress(&body, levels, Content::Texts).unwrap().len();
                let together = compressor.compress(&body, 0, Content::Texts).unwrap().len();
                assert!(apart * 100 < together * 99, "{apart} {together}");
            }
        }
        // Bytes that cannot be compressed fit as well.
        let noise: Vec<u8> = (0..1 << 20).map(|_| next().to_le_bytes()[3]).collect();
        let frame = PageCompressor::new(1).unwrap().compress(&noise, 1 << 19, Content::Texts).unwrap();
        assert_eq!(zstd::decode_all(&*frame).unwrap(), noise);
    }

    #[test]
    fn the_other_levels_are_those_of_zstd() {
        let mut compressor = PageCompressor::new(3).unwrap();
        let body = plain((0..5_000).map(|n| format!("{n:032}")));
        assert_eq!(*compressor.compress(&body, 0, Content::Texts).unwrap(), *zstd::bulk::compress(&body, 3).unwrap());
    }
}
