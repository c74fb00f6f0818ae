//! What becomes of a personal value before it lands.
//!
//! Owns: the rules' arithmetic, one value at a time; it runs on the distinct values of a column, not on every row. Does
//! not own: which column has which rule (`dataset`), where the key comes from.
//!
//! A pseudonym is HMAC-SHA256 (RFC 2104, FIPS 180-4) of the value's UTF-8 bytes under the secret key, its first 128 bits
//! as 32 lower-case hex digits: the same for the same value in every dataset, and without the key not to be guessed by
//! trying all values. The two inner states that depend only on the key are computed once.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};

/// Bytes that a key must have at least: 128 bits, the strength of the pseudonyms.
pub const KEY_BYTES_MIN: usize = 16;
/// The block length of SHA-256.
const BLOCK: usize = 64;

/// The secret key of pseudonyms, ready for use.
#[derive(Clone)]
pub struct PseudonymKey {
    inner: Sha256,
    outer: Sha256,
}

impl fmt::Debug for PseudonymKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PseudonymKey(secret)")
    }
}

impl PseudonymKey {
    /// A key of these bytes.
    ///
    /// # Errors
    /// A sentence for the user if it is too short.
    pub fn new(key: &[u8]) -> Result<Self, String> {
        if key.len() < KEY_BYTES_MIN {
            return Err(format!("the key has {} bytes; it needs at least {KEY_BYTES_MIN}", key.len()));
        }
        let mut block = [0_u8; BLOCK];
        if key.len() > BLOCK {
            block[..32].copy_from_slice(&Sha256::digest(key));
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        let state = |pad: u8| Sha256::new_with_prefix(block.map(|byte| byte ^ pad));
        Ok(PseudonymKey { inner: state(0x36), outer: state(0x5C) })
    }

    /// The pseudonym of a value, as hex digits.
    pub fn pseudonym(&self, value: &[u8]) -> [u8; 32] {
        let mut inner = self.inner.clone();
        inner.update(value);
        let mut outer = self.outer.clone();
        outer.update(inner.finalize());
        let mac = outer.finalize();
        let mut hex = [0_u8; 32];
        for (pair, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(mac.iter()) {
            *pair = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
        }
        hex
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The band of an age: `0-17`, `25-34`, `80+` for bands that begin at these ages.
pub(crate) fn age_band(age: i64, begins: &[i64]) -> String {
    let band = begins.iter().take_while(|begin| **begin <= age).count();
    match (band.checked_sub(1).map(|at| begins[at]), begins.get(band)) {
        (None, Some(next)) => format!("0-{}", next - 1),
        (Some(begin), Some(next)) if begin == next - 1 => format!("{begin}"),
        (Some(begin), Some(next)) => format!("{begin}-{}", next - 1),
        (Some(begin), None) => format!("{begin}+"),
        (None, None) => String::new(),
    }
}

/// A region coarsened: a code that begins with a country (ISO 3166: `DE`, `DE-BY`, `us-east`) becomes that country; a
/// name stays only if it is on the list of names to keep (lower-case); every other text becomes `other`, none stays none.
pub(crate) fn region(value: &[u8], keep: &[String]) -> Option<String> {
    let text = String::from_utf8_lossy(value);
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    if keep.contains(&text.to_lowercase()) {
        return Some(text.to_owned());
    }
    let country = text.split(['-', '_']).next().unwrap_or_default();
    let is_country = country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_alphabetic());
    Some(if is_country { country.to_uppercase() } else { "other".to_owned() })
}

/// The network of an IP address: its /24, or its /48 for IPv6. `None` if it is no address.
pub(crate) fn network(value: &[u8]) -> Option<String> {
    let address: IpAddr = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    // An IPv4 address in IPv6 clothes is an IPv4 address: its /48 would hide nothing but zeros.
    Some(match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{}/24", Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudonyms_are_hmac_sha256() {
        // RFC 4231, test cases 2 (its key lengthened by zeros, which HMAC does itself), 3 and 6.
        let key = PseudonymKey::new(&[b"Jefe".as_slice(), &[0; 12]].concat()).unwrap();
        assert_eq!(&key.pseudonym(b"what do ya want for nothing?"), b"5bdcc146bf60754e6a042426089575c7");
        let key = PseudonymKey::new(&[0xaa; 20]).unwrap();
        assert_eq!(&key.pseudonym(&[0xdd; 50]), b"773ea91e36800e46854db8ebd09181a7");
        let key = PseudonymKey::new(&[0xaa; 131]).unwrap();
        let text = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(&key.pseudonym(text), b"60e431591ee0b67f0d8a26aacbf5b77f");
    }

    #[test]
    fn a_short_key_is_refused_and_no_key_is_printed() {
        assert_eq!(PseudonymKey::new(b"short").unwrap_err(), "the key has 5 bytes; it needs at least 16");
        assert_eq!(format!("{:?}", PseudonymKey::new(&[7; 32]).unwrap()), "PseudonymKey(secret)");
    }

    #[test]
    fn ages_fall_into_bands() {
        let bands = [18, 25, 35, 45, 55, 65, 80];
        let found: Vec<String> = [0, 17, 18, 24, 34, 79, 80, 130].iter().map(|age| age_band(*age, &bands)).collect();
        assert_eq!(found, ["0-17", "0-17", "18-24", "18-24", "25-34", "65-79", "80+", "80+"]);
    }

    #[test]
    fn regions_become_countries_or_known_names_or_other() {
        let keep = ["emea".to_owned(), "north america".to_owned()];
        for (region_text, expected) in [
            ("DE-BY", Some("DE")),
            ("de", Some("DE")),
            ("us-east-1", Some("US")),
            ("DE-BY-80331", Some("DE")),
            ("EMEA", Some("EMEA")),
            ("North America", Some("North America")),
            ("Bavaria", Some("other")),
            ("48.13,11.57", Some("other")),
            (" ", None),
        ] {
            assert_eq!(region(region_text.as_bytes(), &keep).as_deref(), expected, "{region_text}");
        }
    }

    #[test]
    fn addresses_become_networks() {
        for (address, expected) in [
            ("203.0.113.77", Some("203.0.113.0/24")),
            ("2001:db8:1:2::3", Some("2001:db8:1::/48")),
            ("::ffff:203.0.113.77", Some("203.0.113.0/24")),
            ("nobody@example.com", None),
            ("", None),
        ] {
            assert_eq!(network(address.as_bytes()).as_deref(), expected, "{address}");
        }
    }
}
