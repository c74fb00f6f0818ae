//! Anonymizes personal values.
//!
//! Owns: the arithmetic of each rule. Does not own: which rule a column has (`plan`).

use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Makes pseudonyms: the first 128 bits of HMAC-SHA256, as hex digits. The key is prepared once.
#[derive(Debug, Clone)]
pub(crate) struct Pseudonyms(Hmac<Sha256>);

impl Pseudonyms {
    pub(crate) fn new(key: &[u8]) -> Self {
        Pseudonyms(Hmac::new_from_slice(key).expect("HMAC takes keys of every length"))
    }

    pub(crate) fn of(&self, text: &str) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut mac = self.0.clone();
        mac.update(text.as_bytes());
        let code = mac.finalize().into_bytes();
        let digits = code[..16].iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
    }
}

/// The band of an age. The numbers are the first ages of all bands except the lowest.
pub(crate) fn age_band(age: i64, bands: &[i64]) -> String {
    let next = bands.iter().copied().find(|begin| *begin > age);
    match (bands.iter().copied().rfind(|begin| *begin <= age), next.map(|next| next - 1)) {
        (Some(first), Some(last)) if first == last => first.to_string(),
        (Some(first), Some(last)) => format!("{first}-{last}"),
        (None, Some(last)) => format!("0-{last}"),
        (Some(first), None) => format!("{first}+"),
        (None, None) => String::new(),
    }
}

/// The region itself if it is in the list of kept names, else its country, else `other`.
pub(crate) fn region(text: &str, keep: &[String]) -> Option<String> {
    let text = text.trim();
    if text.is_empty() || keep.contains(&text.to_lowercase()) {
        return (!text.is_empty()).then(|| text.to_owned());
    }
    let (country, _) = text.split_once(['-', '_']).unwrap_or((text, ""));
    let is_country = country.len() == 2 && country.chars().all(|letter| letter.is_ascii_alphabetic());
    Some(if is_country { country.to_ascii_uppercase() } else { "other".to_owned() })
}

/// The network of an address: the first 24 bits, or the first 48 of IPv6.
pub(crate) fn network(text: &str) -> Option<String> {
    match text.trim().parse::<IpAddr>().ok()?.to_canonical() {
        IpAddr::V4(address) => Some(format!("{}/24", std::net::Ipv4Addr::from_bits(address.to_bits() & !0xFF))),
        IpAddr::V6(address) => Some(format!("{}/48", std::net::Ipv6Addr::from_bits(address.to_bits() >> 80 << 80))),
    }
}

/// The lower-case domain of an e-mail address; `None` if the text is not an address.
pub(crate) fn email_domain(text: &str) -> Option<String> {
    let text = text.trim();
    let at = text.rfind('@')?;
    let (local, domain) = (&text[..at], &text[at + 1..]);
    let labels: Vec<&str> = domain.split('.').collect();
    let good_local = !local.is_empty() && local.chars().all(|c| !c.is_whitespace() && !c.is_control());
    let good_label = |label: &&str| {
        let ends = [label.chars().next(), label.chars().last()];
        label.len() < 64
            && ends.iter().all(|end| end.is_some_and(char::is_alphanumeric))
            && label.chars().all(|c| c == '-' || c.is_alphanumeric())
    };
    (good_local && labels.len() > 1 && domain.len() < 254 && labels.iter().all(good_label))
        .then(|| domain.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_gives_the_documented_values() {
        // RFC 4231, test case 2.
        assert_eq!(Pseudonyms::new(b"Jefe").of("what do ya want for nothing?"), "5bdcc146bf60754e6a042426089575c7");
        let bands = [18, 25, 26, 80];
        assert_eq!(
            [0, 17, 18, 25, 79, 80].map(|age| age_band(age, &bands)),
            ["0-17", "0-17", "18-24", "25", "26-79", "80+"]
        );
        let keep = ["emea".to_owned()];
        let regions = ["EMEA", "de_BY", "Bavaria", " "].map(|text| region(text, &keep).unwrap_or_default());
        assert_eq!(regions, ["EMEA", "DE", "other", ""]);
        assert_eq!(network(" 203.0.113.77").as_deref(), Some("203.0.113.0/24"));
        assert_eq!(network("2001:db8:1:2::3").as_deref(), Some("2001:db8:1::/48"));
        assert_eq!(network("203.0.113"), None);
        assert_eq!(email_domain(" A.B@Mail.Example ").as_deref(), Some("mail.example"));
        assert_eq!(email_domain("a@b"), None);
    }
}
