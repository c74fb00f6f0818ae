//! Checksums of objects and parts.
//!
//! Owns: the five algorithms, what a request claims about its body (headers, and trailers, which the transport adds to the
//! headers), and refusing a body that does not match. Does not own: which checksum an object keeps (`objects`,
//! `multipart`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

use super::error::{Refused, invalid_request};
use crate::http::Request;

/// A checksum algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

pub(super) const ALL: [Algorithm; 5] =
    [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme, Algorithm::Sha1, Algorithm::Sha256];

impl Algorithm {
    /// Its name in `x-amz-checksum-algorithm`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The header that carries it.
    pub(super) fn header(self) -> String {
        format!("x-amz-checksum-{}", self.name().to_lowercase())
    }

    pub(super) fn of_name(name: &str) -> Option<Self> {
        ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// Whether it can be the checksum of a whole object that is made of parts.
    pub(super) fn is_crc(self) -> bool {
        matches!(self, Self::Crc32 | Self::Crc32c | Self::Crc64Nvme)
    }

    /// The checksum's bytes.
    pub(super) fn sum(self, bytes: &[u8]) -> Vec<u8> {
        use crc_fast::CrcAlgorithm::{Crc32Iscsi, Crc32IsoHdlc, Crc64Nvme};
        let crc = |algorithm, width: usize| crc_fast::checksum(algorithm, bytes).to_be_bytes()[8 - width..].to_vec();
        match self {
            Self::Crc32 => crc(Crc32IsoHdlc, 4),
            Self::Crc32c => crc(Crc32Iscsi, 4),
            Self::Crc64Nvme => crc(Crc64Nvme, 8),
            Self::Sha1 => sha1::Sha1::digest(bytes).to_vec(),
            Self::Sha256 => sha2::Sha256::digest(bytes).to_vec(),
        }
    }

    /// In base64, as headers have it.
    pub(super) fn text(self, bytes: &[u8]) -> String {
        STANDARD.encode(self.sum(bytes))
    }
}

/// The MD5 of bytes.
pub(super) fn md5(bytes: &[u8]) -> Vec<u8> {
    Md5::digest(bytes).to_vec()
}

/// In hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The checksum in a request, of whatever it is.
pub(super) fn claimed(request: &Request) -> Result<Option<(Algorithm, String)>, Refused> {
    let mut claims =
        ALL.into_iter().filter_map(|algorithm| Some((algorithm, request.headers.get(&algorithm.header())?.clone())));
    let (claim, another) = (claims.next(), claims.next());
    if another.is_some() {
        return Err(invalid_request(
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        ));
    }
    if let Some((algorithm, value)) = &claim
        && STANDARD.decode(value).ok().is_none_or(|sum| sum.len() != algorithm.sum(b"").len())
    {
        return Err(invalid_request(format!("Value for {} header is invalid.", algorithm.header())));
    }
    Ok(claim)
}

/// Checks everything that a request claims about its body. Returns its checksum.
pub(super) fn verify(request: &Request) -> Result<Option<(Algorithm, String)>, Refused> {
    let bad = |what: &str| {
        Refused::new(400, "BadDigest", format!("The {what} you specified did not match the calculated checksum."))
    };
    if let Some(length) = request.headers.get("x-amz-decoded-content-length")
        && length.parse() != Ok(request.body.len())
    {
        return Err(Refused::new(
            400,
            "IncompleteBody",
            "You did not provide the number of bytes specified by the Content-Length HTTP header",
        ));
    }
    if let Some(md5_claimed) = request.headers.get("content-md5") {
        match STANDARD.decode(md5_claimed) {
            Ok(sum) if sum.len() == 16 => {
                if sum != md5(&request.body) {
                    return Err(Refused::new(
                        400,
                        "BadDigest",
                        "The Content-MD5 you specified did not match what we received.",
                    ));
                }
            }
            _ => return Err(Refused::new(400, "InvalidDigest", "The Content-MD5 you specified was invalid.")),
        }
    }
    if let Some(sum) = request.headers.get("x-amz-content-sha256")
        && sum.len() == 64
        && *sum != hex(&Algorithm::Sha256.sum(&request.body))
    {
        return Err(Refused::new(
            400,
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ));
    }
    if let Some(trailer) = request.headers.get("x-amz-trailer")
        && !request.headers.contains_key(&trailer.to_lowercase())
    {
        return Err(Refused::new(
            400,
            "MalformedTrailerError",
            "The request contained trailing data that was not well-formed or did not conform to our published schema.",
        ));
    }
    let claim = claimed(request)?;
    if let Some((algorithm, value)) = &claim
        && *value != algorithm.text(&request.body)
    {
        return Err(bad(algorithm.name()));
    }
    Ok(claim)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check values from the catalogue of CRCs and from FIPS 180, over `123456789`.
    #[test]
    fn checksums_are_the_published_ones() {
        let sums = ALL.map(|algorithm| hex(&algorithm.sum(b"123456789")));
        assert_eq!(
            sums,
            [
                "cbf43926",
                "e3069283",
                "ae8b14860a799888",
                "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
                "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
            ]
        );
        assert_eq!(hex(&md5(b"")), "d41d8cd98f00b204e9800998ecf8427e");
    }
}
