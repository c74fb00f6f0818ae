//! Records that are packed: gzip, base64, or base64 of gzip.
//!
//! Owns: by which bytes a packed record is recognized, and the limit for what it unpacks to. Does not own: base64 of a single
//! document, which is unwrapped on the fast path (`framing`); what the text contains.
//!
//! No JSON begins with `1f 8b`, or with `H4sI`, which is the same in base64. So a record that begins with them is
//! unpacked whatever the configuration says, once it was found not to be JSON. CloudWatch Logs subscriptions send gzip.
//!
//! Several gzip members make one text. A record whose gzip data is damaged is rejected as a whole: nothing of it is used.
//!
//! Limit: [`UNPACKED_MAX`] times as many bytes as a record may have. What is larger is rejected before it is unpacked further.

use std::io::Read;
use std::ops::Range;

use crate::dead_letter::code::Code;
use crate::decode::framing::{append, unwrap_base64};

/// How many times larger than the limit for one record the text of a packed record may be.
pub(crate) const UNPACKED_MAX: usize = 4;
/// The first bytes of gzip data.
pub(crate) const GZIP: &[u8] = &[0x1F, 0x8B];
/// The same in base64, with the compression method.
const GZIP_BASE64: &[u8] = b"H4sI";

/// What a record was unpacked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unpacked {
    /// It is not packed.
    Plain,
    /// It was gzip data, perhaps in base64: its text, at the end of the buffer.
    Unzipped(Range<usize>),
    /// It was base64: its text, at the end of the buffer.
    Unwrapped(Range<usize>),
    /// It is packed, and cannot be unpacked.
    Rejected(Code),
}

/// Whether a record is a JSON string that may be base64 of gzip data.
pub(crate) fn is_gzip_text(record: &[u8]) -> bool {
    record.trim_ascii_start().strip_prefix(b"\"").is_some_and(|text| text.starts_with(GZIP_BASE64))
}

/// Unpacks the record at `bytes` of the buffer, if it is packed.
pub(crate) fn unpack(buffer: &mut Vec<u8>, bytes: Range<usize>, record_bytes_max: usize) -> Unpacked {
    let record = &buffer[bytes.clone()];
    let text_max = record_bytes_max.saturating_mul(UNPACKED_MAX);
    let unzipped = if record.starts_with(GZIP) {
        gunzip(record, text_max)
    } else {
        let text = record.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(record).trim_ascii();
        // The base64 may be in a JSON string.
        let text = text.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(text);
        if !text.starts_with(GZIP_BASE64) {
            let unwrapped = unwrap_base64(buffer, bytes.clone());
            return if unwrapped == bytes { Unpacked::Plain } else { Unpacked::Unwrapped(unwrapped) };
        }
        let decoded =
            base64_simd::STANDARD.decode_to_vec(text).or_else(|_| base64_simd::STANDARD_NO_PAD.decode_to_vec(text));
        let Ok(zipped) = decoded else { return Unpacked::Plain };
        gunzip(&zipped, text_max)
    };
    match unzipped {
        Ok(text) => Unpacked::Unzipped(append(buffer, &text)),
        Err(code) => Unpacked::Rejected(code),
    }
}

/// The text of gzip data of one or more members.
fn gunzip(data: &[u8], text_max: usize) -> Result<Vec<u8>, Code> {
    let mut text = Vec::new();
    let mut decoder = flate2::bufread::MultiGzDecoder::new(data).take(text_max as u64 + 1);
    decoder.read_to_end(&mut text).map_err(|_| Code::DamagedGzip)?;
    if text.len() > text_max { Err(Code::TooLarge) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(record: &[u8]) -> Result<Option<Vec<u8>>, Code> {
        let mut buffer = record.to_vec();
        buffer.resize(record.len() + 64, 0);
        match unpack(&mut buffer, 0..record.len(), 1000) {
            Unpacked::Plain => Ok(None),
            Unpacked::Unzipped(range) | Unpacked::Unwrapped(range) => Ok(Some(buffer[range].to_vec())),
            Unpacked::Rejected(code) => Err(code),
        }
    }

    #[test]
    fn gzip_base64_and_both_are_unpacked() {
        let text = b"{\"a\":1}\n{\"b\":2}";
        let base64 = |bytes: &[u8]| base64_simd::STANDARD.encode_to_string(bytes);
        for record in [
            gzip(text),
            [gzip(&text[..5]), gzip(&text[5..])].concat(),
            base64(&gzip(text)).into_bytes(),
            base64(&gzip(text)).trim_end_matches('=').as_bytes().to_vec(),
            format!(" \"{}\"\n", base64(&gzip(text))).into_bytes(),
            format!("\u{feff}{}", base64(&gzip(text))).into_bytes(),
            base64(text).into_bytes(),
        ] {
            assert_eq!(unpacked(&record), Ok(Some(text.to_vec())));
        }
        for record in [&text[..], b"H4sIxx!", b"", b"H4sI"] {
            assert!(matches!(unpacked(record), Ok(None) | Err(Code::DamagedGzip)), "{record:?}");
        }
    }

    #[test]
    fn a_text_over_the_limit_is_rejected() {
        assert_eq!(unpacked(&gzip(&[b' '; 4_000])), Ok(Some(vec![b' '; 4_000])));
        assert_eq!(unpacked(&gzip(&[b' '; 4_001])), Err(Code::TooLarge));
        let bomb = gzip(&vec![0; 100_000_000]);
        assert_eq!(unpacked(&bomb), Err(Code::TooLarge));
        assert_eq!(unpacked(base64_simd::STANDARD.encode_to_string(&bomb).as_bytes()), Err(Code::TooLarge));
    }

    #[test]
    fn damaged_gzip_data_is_rejected_as_a_whole() {
        let whole = gzip(b"{\"a\":1}");
        let mut changed = whole.clone();
        changed[14] ^= 0x55;
        for record in [&whole[..whole.len() - 3], &whole[..2], &changed[..], &[&whole[..], b"rest"].concat()] {
            assert_eq!(unpacked(record), Err(Code::DamagedGzip));
        }
    }
}
