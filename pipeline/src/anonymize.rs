//! What becomes of a personal value before it is written.
//!
//! Owns: the rules' arithmetic, one value at a time, and the pseudonym key. Does not own: which rules there are
//! (`dataset::rule`), which column has which rule (`dataset`), where the key comes from.
//!
//! A pseudonym is HMAC-SHA256 (RFC 2104, FIPS 180-4) of the value's UTF-8 bytes under the secret key: its first 128 bits as
//! 32 lower-case hex digits. It is the same for the same value in every dataset. Without the key, nobody can find the value
//! by trying all values.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The fewest bytes in a key: 128 bits, the strength of the pseudonyms.
pub const KEY_BYTES_MIN: usize = 16;

/// The secret pseudonym key, ready for use: the two hash states that depend only on the key, which each pseudonym begins
/// with.
#[derive(Clone)]
pub struct PseudonymKey(Hmac<Sha256>);

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
        Ok(PseudonymKey(Hmac::new_from_slice(key).expect("HMAC takes keys of every length")))
    }

    /// The pseudonym of a value, as hex digits.
    pub fn pseudonym(&self, value: &[u8]) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(value);
        let mac = mac.finalize().into_bytes();
        let mut hex = [0_u8; 32];
        for (pair, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(mac.iter()) {
            *pair = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
        }
        hex
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Bands of ages, each with its name: `0-17`, `25-34`, `80+`.
#[derive(Debug, Clone)]
pub(crate) struct AgeBands {
    /// The first age of each band but the lowest.
    begins: Vec<i64>,
    /// The name of each band.
    names: Vec<String>,
}

impl AgeBands {
    /// Bands that begin at these ages.
    pub(crate) fn new(begins: Vec<i64>) -> Self {
        let name = |begin: i64, next: Option<&i64>| match next {
            Some(next) if begin == next - 1 => format!("{begin}"),
            Some(next) => format!("{begin}-{}", next - 1),
            None => format!("{begin}+"),
        };
        let lowest = begins.first().map_or_else(String::new, |next| format!("0-{}", next - 1));
        let above = begins.iter().enumerate().map(|(band, begin)| name(*begin, begins.get(band + 1)));
        let names = std::iter::once(lowest).chain(above).collect();
        AgeBands { begins, names }
    }

    /// The name of each band, from the youngest.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether the ages rise, from 1 at least.
    pub(crate) fn is_valid(&self) -> bool {
        self.begins.first().is_some_and(|first| *first > 0) && self.begins.windows(2).all(|pair| pair[0] < pair[1])
    }

    /// The name of the band of an age.
    pub(crate) fn of(&self, age: i64) -> &str {
        &self.names[self.begins.iter().take_while(|begin| **begin <= age).count()]
    }
}

/// A region, coarsened.
///
/// - A code that begins with a country (ISO 3166: `DE`, `DE-BY`, `us-east`) becomes that country.
/// - A name is kept only if it is in `keep`, which is lower-case.
/// - Every other text becomes `other`; an empty one becomes null.
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

/// The network of an IP address: its /24, or its /48 for IPv6. `None` if the text is not an address.
pub(crate) fn network(value: &[u8]) -> Option<String> {
    let address: IpAddr = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    // An IPv4-mapped IPv6 address is an IPv4 address: its /48 would hide only zeros.
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

/// The domain of an e-mail address, in lower case. `None` if the text is not an address `local@domain`. The domain has at least
/// two labels of letters, digits and inner hyphens, of any script; a label has at most 63 bytes, the domain 253.
pub(crate) fn email_domain(value: &[u8]) -> Option<String> {
    let (local, domain) = std::str::from_utf8(value).ok()?.trim().rsplit_once('@')?;
    let is_label = |label: &str| {
        let inner = |c: char| c.is_alphanumeric() || c == '-';
        (1..=63).contains(&label.len()) && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_address = !local.is_empty()
        && !local.contains(|c: char| c.is_whitespace() || c.is_control())
        && domain.len() <= 253
        && domain.contains('.')
        && domain.split('.').all(is_label);
    is_address.then(|| domain.to_lowercase())
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
    fn a_short_key_is_refused_and_a_key_is_never_printed() {
        assert_eq!(PseudonymKey::new(b"short").unwrap_err(), "the key has 5 bytes; it needs at least 16");
        assert_eq!(format!("{:?}", PseudonymKey::new(&[7; 32]).unwrap()), "PseudonymKey(secret)");
    }

    #[test]
    fn ages_fall_into_bands() {
        let bands = AgeBands::new(vec![18, 25, 35, 36, 45, 55, 65, 80]);
        let found = [-1, 0, 17, 18, 24, 34, 35, 79, 80, 130].map(|age| bands.of(age));
        assert_eq!(found, ["0-17", "0-17", "0-17", "18-24", "18-24", "25-34", "35", "65-79", "80+", "80+"]);
        assert!(bands.is_valid());
        for invalid in [vec![], vec![0, 18], vec![18, 18], vec![25, 18]] {
            assert!(!AgeBands::new(invalid.clone()).is_valid(), "{invalid:?}");
        }
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

    #[test]
    fn email_addresses_become_domains() {
        let long_label = format!("a@{}.example", "x".repeat(64));
        let long_domain = format!("a@{}example", "x.".repeat(124));
        for (address, expected) in [
            ("Bob.Smith@Example.COM", Some("example.com")),
            (" a@mail.example.co.uk\n", Some("mail.example.co.uk")),
            ("\"a@b\"@example.com", Some("example.com")),
            ("j@Bücher.example", Some("bücher.example")),
            ("a@xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            ("example.com", None),
            ("@example.com", None),
            ("a b@example.com", None),
            ("a@localhost", None),
            ("a@example..com", None),
            ("a@example.com.", None),
            ("a@-example.com", None),
            ("a@example-.com", None),
            ("Bob <a@example.com>", None),
            (&long_label, None),
            (&long_domain, None),
            ("", None),
        ] {
            assert_eq!(email_domain(address.as_bytes()).as_deref(), expected, "{address}");
        }
        assert_eq!(email_domain(b"a@example.\xff"), None);
    }
}
