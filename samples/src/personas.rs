//! The people whom records are about. A number always gives the same person, whatever the seed and the kind of record.
//!
//! A person is computed, not stored: number 123 is `u-000123` with one age, region, locale, device, e-mail address and
//! phone number in every run, so records of all kinds (and of several runs) join. Numbers have at most six digits.
//!
//! Everything here is fictional by construction:
//!
//! - surnames mean "example", or are the placeholder names of a language;
//! - e-mail addresses are in the domains of RFC 2606;
//! - IP addresses are in the documentation ranges of RFC 5737 and RFC 3849;
//! - phone numbers are in the ranges that NANPA (555-01xx), Ofcom, ARCEP and the Bundesnetzagentur reserve for fiction.

use pipeline::time::DAY_MS;

use super::random::{Rng, mix};
use super::write::{Hex32, Padded, Piece, ShortHex, Uuid, put};

/// The limit for numbers of people, so that an identifier has six digits.
pub(super) const PEOPLE_MAX: u32 = 1_000_000;

/// 2025-01-01, the day of [`Person::age`], in days since 1970-01-01.
const AGE_DAY: i64 = 20_089;
/// 2017-01-01, the first day on which people signed up, in days since 1970-01-01.
const FIRST_SIGN_UP_DAY: i64 = 17_167;

/// Where a person lives.
#[derive(Debug)]
pub(super) struct Home {
    /// ISO 3166-1 alpha-2.
    pub country: &'static str,
    /// ISO 3166-2 if the producer knows the subdivision, otherwise the country again.
    pub region: &'static str,
    pub city: &'static str,
    pub postal_code: &'static str,
    /// Ten-thousandths of a degree.
    pub latitude: i64,
    /// Ten-thousandths of a degree.
    pub longitude: i64,
    pub timezone: &'static str,
    pub language: &'static str,
}

/// A device, as the mobile SDKs report it.
#[derive(Debug)]
pub(super) struct Device {
    pub make: &'static str,
    pub model: &'static str,
    pub platform: &'static str,
    pub platform_version: &'static str,
    /// The push channel of this platform.
    pub push: Channel,
    pub sdk: &'static str,
    pub sdk_version: &'static str,
}

/// The channel of an endpoint, by its name in Pinpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    Apns,
    Gcm,
    Email,
    Sms,
    Custom,
}

impl Channel {
    pub(super) fn name(self) -> &'static str {
        match self {
            Channel::Apns => "APNS",
            Channel::Gcm => "GCM",
            Channel::Email => "EMAIL",
            Channel::Sms => "SMS",
            Channel::Custom => "CUSTOM",
        }
    }
}

/// A name, and its form in an e-mail address.
type Name = (&'static str, &'static str);

/// One person.
#[derive(Debug, Clone)]
pub(super) struct Person {
    pub number: u32,
    pub home: &'static Home,
    pub device: &'static Device,
    pub plan: &'static str,
    pub age: u32,
    /// Days since 1970-01-01.
    pub born_day: i64,
    /// Epoch milliseconds, a time of 2017 to 2024.
    pub signed_up_ms: i64,
    given: Name,
    family: Name,
    /// Random bits, from which the rest is derived.
    key: u64,
}

impl Person {
    /// The person of this number, below [`PEOPLE_MAX`].
    pub(super) fn of(number: u32) -> Self {
        // The seed of this stream is a constant: people stay the same when the seed of the records changes.
        let mut rng = Rng::of(0x70_656f_706c_6521, u64::from(number));
        // The mean of two draws: most people are in the middle of 16 to 85.
        let age = 16 + (rng.below(70) + rng.below(70)) / 2;
        // Born `age` years and up to 364 days before AGE_DAY. A year is 365.25 days, rounded up, so that the age is reached.
        let born_day = AGE_DAY - i64::from(age) * 1461 / 4 - 1 - i64::from(rng.below(364));
        let sign_up_span_days = rng.skewed((AGE_DAY - FIRST_SIGN_UP_DAY) as u32);
        Person {
            number,
            home: &HOMES[rng.skewed(HOMES.len() as u32) as usize],
            device: &DEVICES[rng.skewed(DEVICES.len() as u32) as usize],
            plan: rng.pick_skewed(&["free", "pro", "team", "enterprise"]),
            age,
            born_day,
            signed_up_ms: (AGE_DAY - 1 - i64::from(sign_up_span_days)) * DAY_MS + i64::from(rng.below(86_400_000)),
            given: rng.pick_skewed(&GIVEN_NAMES),
            family: rng.pick_skewed(&FAMILY_NAMES),
            key: rng.bits(),
        }
    }

    /// `u-000123`.
    pub(super) fn id(&self) -> impl Piece + use<> {
        UserId(self.number)
    }

    /// Given and family name, unquoted. Neither needs an escape.
    pub(super) fn name(&self) -> impl Piece + use<> {
        FullName(self.given.0, self.family.0)
    }

    /// An address in a domain that is reserved for examples.
    pub(super) fn email(&self) -> impl Piece + use<> {
        Email(self.given.1, self.family.1, self.number)
    }

    /// A number in E.164, in a range that is reserved for fiction.
    pub(super) fn phone(&self) -> impl Piece + use<> {
        Phone { country: self.phone_country(), key: self.key }
    }

    /// The country of [`Person::phone`]. Some home countries have no reserved range.
    pub(super) fn phone_country(&self) -> &'static str {
        match self.home.country {
            home @ ("CA" | "DE" | "FR" | "GB") => home,
            _ => "US",
        }
    }

    /// `de_DE`.
    pub(super) fn locale(&self) -> impl Piece + use<> {
        Locale(self.home.language, self.home.country)
    }

    /// The identifier of this person's endpoint for a channel.
    pub(super) fn endpoint(&self, channel: Channel) -> impl Piece + use<> {
        let key = self.key ^ (channel as u64 + 1);
        Uuid(mix(key), mix(!key))
    }

    /// This person's identity in the Cognito pool, without the region.
    pub(super) fn cognito_identity(&self) -> impl Piece + use<> {
        Uuid(mix(self.key ^ 0x100), mix(!self.key ^ 0x100))
    }

    /// The push token of this person's device.
    pub(super) fn push_token(&self) -> impl Piece + use<> {
        Token(self.key)
    }

    /// An address that this person uses: one of a few. One person in four has IPv6.
    pub(super) fn ip(&self, rng: &mut Rng) -> impl Piece + use<> {
        Ip { key: self.key, host: rng.below(3) as u64 }
    }
}

struct UserId(u32);

impl Piece for UserId {
    fn put(&self, out: &mut Vec<u8>) {
        put!(out; "u-", Padded(self.0, 6));
    }
}

struct FullName(&'static str, &'static str);

impl Piece for FullName {
    fn put(&self, out: &mut Vec<u8>) {
        put!(out; self.0, " ", self.1);
    }
}

struct Email(&'static str, &'static str, u32);

impl Piece for Email {
    fn put(&self, out: &mut Vec<u8>) {
        let domain = ["@example.com", "@example.org", "@example.net"][self.2 as usize % 3];
        put!(out; self.0, ".", self.1, self.2, domain);
    }
}

struct Locale(&'static str, &'static str);

impl Piece for Locale {
    fn put(&self, out: &mut Vec<u8>) {
        put!(out; self.0, "_", self.1);
    }
}

struct Token(u64);

impl Piece for Token {
    fn put(&self, out: &mut Vec<u8>) {
        put!(out; Hex32(mix(self.0 ^ 0x200)), Hex32(mix(self.0 ^ 0x300)));
    }
}

struct Phone {
    country: &'static str,
    key: u64,
}

impl Piece for Phone {
    fn put(&self, out: &mut Vec<u8>) {
        const RANGES: [&str; 6] = ["+120655501", "+121255501", "+130355501", "+131255501", "+151255501", "+161755501"];
        const CANADIAN_RANGES: [&str; 3] = ["+141655501", "+151455501", "+160455501"];
        let line = (self.key >> 32) as u32;
        let area = self.key as u32;
        let (range, digits) = match self.country {
            "GB" => ("+447700900", 3),
            "FR" => ("+3363998", 4),
            "DE" => ("+4917139200", 2),
            "CA" => (CANADIAN_RANGES[area as usize % CANADIAN_RANGES.len()], 2),
            _ => (RANGES[area as usize % RANGES.len()], 2),
        };
        put!(out; range, Padded(line % 10_u32.pow(digits), digits as usize));
    }
}

struct Ip {
    key: u64,
    host: u64,
}

impl Piece for Ip {
    fn put(&self, out: &mut Vec<u8>) {
        if self.key & 3 == 0 {
            put!(out; "2001:db8:", ShortHex(self.key as u16), "::", ShortHex(1 + self.host as u16));
        } else {
            let net = ["192.0.2.", "198.51.100.", "203.0.113."][(self.host % 3) as usize];
            put!(out; net, 1 + (self.key >> 8) % 254);
        }
    }
}

/// The most frequent homes first. The last ones are rare, so that some groups are small.
static HOMES: [Home; 30] = [
    home("US", "US-CA", "San Francisco", "94105", (377_898, -1_223_942), "America/Los_Angeles", "en"),
    home("DE", "DE-BY", "München", "80331", (481_351, 115_820), "Europe/Berlin", "de"),
    home("FR", "FR-IDF", "Paris", "75004", (488_566, 23_522), "Europe/Paris", "fr"),
    home("GB", "GB-LND", "London", "EC1A 1BB", (515_202, -979), "Europe/London", "en"),
    home("US", "US-NY", "New York", "10007", (407_128, -740_060), "America/New_York", "en"),
    home("DE", "DE-BE", "Berlin", "10178", (525_200, 134_050), "Europe/Berlin", "de"),
    home("ES", "ES-MD", "Madrid", "28013", (404_168, -37_038), "Europe/Madrid", "es"),
    home("IN", "IN-MH", "Mumbai", "400001", (189_388, 728_354), "Asia/Kolkata", "en"),
    home("BR", "BR-SP", "São Paulo", "01001-000", (-235_505, -466_333), "America/Sao_Paulo", "pt"),
    home("US", "US-TX", "Austin", "78701", (302_672, -977_431), "America/Chicago", "en"),
    home("IT", "IT-62", "Roma", "00186", (419_028, 124_964), "Europe/Rome", "it"),
    home("PL", "PL-14", "Warszawa", "00-001", (522_297, 210_122), "Europe/Warsaw", "pl"),
    home("NL", "NL-NH", "Amsterdam", "1012 AB", (523_676, 49_041), "Europe/Amsterdam", "nl"),
    home("JP", "JP-13", "東京", "100-0001", (356_762, 1_396_503), "Asia/Tokyo", "ja"),
    home("CA", "CA-ON", "Toronto", "M5H 2N2", (436_532, -793_832), "America/Toronto", "en"),
    home("CA", "CA-QC", "Montréal", "H2Y 1C6", (455_017, -735_673), "America/Toronto", "fr"),
    home("SE", "SE-AB", "Stockholm", "111 29", (593_293, 180_686), "Europe/Stockholm", "sv"),
    home("DE", "DE-NW", "Köln", "50667", (509_375, 69_603), "Europe/Berlin", "de"),
    home("AT", "AT-9", "Wien", "1010", (482_082, 163_738), "Europe/Vienna", "de"),
    home("CH", "CH-ZH", "Zürich", "8001", (473_769, 85_417), "Europe/Zurich", "de"),
    home("AU", "AU-NSW", "Sydney", "2000", (-338_688, 1_512_093), "Australia/Sydney", "en"),
    home("MX", "MX-CMX", "Ciudad de México", "06000", (194_326, -991_332), "America/Mexico_City", "es"),
    home("SG", "SG", "Singapore", "018956", (12_838, 1_038_591), "Asia/Singapore", "en"),
    home("IE", "IE", "Dublin", "D02 X285", (533_498, -62_603), "Europe/Dublin", "en"),
    home("KR", "KR-11", "서울", "04524", (375_665, 1_269_780), "Asia/Seoul", "ko"),
    home("ZA", "ZA-GP", "Johannesburg", "2001", (-262_041, 280_473), "Africa/Johannesburg", "en"),
    home("UA", "UA-30", "Київ", "01001", (504_501, 305_234), "Europe/Kyiv", "uk"),
    home("LU", "LU", "Luxembourg", "1118", (496_116, 61_319), "Europe/Luxembourg", "fr"),
    home("NZ", "NZ", "Auckland", "1010", (-368_509, 1_747_645), "Pacific/Auckland", "en"),
    home("IS", "IS", "Reykjavík", "101", (641_466, -219_426), "Atlantic/Reykjavik", "is"),
];

const fn home(
    country: &'static str,
    region: &'static str,
    city: &'static str,
    postal_code: &'static str,
    (latitude, longitude): (i64, i64),
    timezone: &'static str,
    language: &'static str,
) -> Home {
    Home { country, region, city, postal_code, latitude, longitude, timezone, language }
}

static DEVICES: [Device; 12] = [
    device("Apple", "iPhone15,2", "iOS", "17.2.1", Channel::Apns),
    device("samsung", "SM-G991B", "ANDROID", "14", Channel::Gcm),
    device("Apple", "iPhone13,4", "iOS", "16.7.4", Channel::Apns),
    device("Google", "Pixel 8", "ANDROID", "15", Channel::Gcm),
    device("Xiaomi", "Redmi Note 12", "ANDROID", "13", Channel::Gcm),
    device("Apple", "iPad13,8", "iOS", "18.1", Channel::Apns),
    device("generic web browser", "Unknown", "android", "10.10", Channel::Gcm),
    device("samsung", "SM-A546B", "ANDROID", "14", Channel::Gcm),
    device("OnePlus", "CPH2449", "ANDROID", "13", Channel::Gcm),
    device("HUAWEI", "ELE-L29", "ANDROID", "10", Channel::Gcm),
    device("Apple", "iPad Pro (12.9\") \\ 2024", "iOS", "18.2", Channel::Apns),
    device("小米", "红米 Note 11", "ANDROID", "12", Channel::Gcm),
];

const fn device(
    make: &'static str,
    model: &'static str,
    platform: &'static str,
    platform_version: &'static str,
    push: Channel,
) -> Device {
    let (sdk, sdk_version) = match push {
        Channel::Apns => ("aws-sdk-iOS", "2.36.1"),
        _ => ("aws-sdk-android", "2.75.0"),
    };
    Device { make, model, platform, platform_version, push, sdk, sdk_version }
}

const GIVEN_NAMES: [Name; 24] = [
    ("Anna", "anna"),
    ("Max", "max"),
    ("Jane", "jane"),
    ("John", "john"),
    ("Marie", "marie"),
    ("Juan", "juan"),
    ("Sofia", "sofia"),
    ("Fred", "fred"),
    ("Priya", "priya"),
    ("Jan", "jan"),
    ("Erika", "erika"),
    ("Kim", "kim"),
    ("Noah", "noah"),
    ("Mary-Jane", "mary-jane"),
    ("José", "jose"),
    ("Zoë", "zoe"),
    ("Björn", "bjorn"),
    ("Łukasz", "lukasz"),
    ("Amélie", "amelie"),
    ("João", "joao"),
    ("花子", "hanako"),
    ("Олена", "olena"),
    ("길동", "gildong"),
    ("Ngọc", "ngoc"),
];

const FAMILY_NAMES: [Name; 20] = [
    ("Example", "example"),
    ("Sample", "sample"),
    ("Doe", "doe"),
    ("Muster", "muster"),
    ("Mustermann", "mustermann"),
    ("Bloggs", "bloggs"),
    ("Roe", "roe"),
    ("Esempio", "esempio"),
    ("Voorbeeld", "voorbeeld"),
    ("Ejemplo", "ejemplo"),
    ("Testsson", "testsson"),
    ("O'Sample", "osample"),
    ("Specimen", "specimen"),
    ("Fulano de Tal", "fulano"),
    ("Przykładowa", "przykladowa"),
    ("Exemple-Défaut", "exemple-defaut"),
    ("Örnek", "ornek"),
    ("Příklad", "priklad"),
    ("見本", "mihon"),
    ("Приклад", "pryklad"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_always_the_same_and_has_the_age_of_the_birthday() {
        for number in (0..PEOPLE_MAX).step_by(997) {
            let person = Person::of(number);
            assert_eq!(format!("{person:?}"), format!("{:?}", Person::of(number)));
            let years = (AGE_DAY - person.born_day) as f64 / 365.2425;
            assert!((years - 0.01).floor() as u32 == person.age || years.floor() as u32 == person.age, "{person:?}");
            assert!(person.signed_up_ms >= FIRST_SIGN_UP_DAY * DAY_MS && person.signed_up_ms < AGE_DAY * DAY_MS);
        }
    }

    #[test]
    fn addresses_are_in_reserved_ranges() {
        let mut text = Vec::new();
        for number in 0..5_000 {
            let person = Person::of(number);
            text.clear();
            put!(&mut text; person.email(), " ", person.phone(), " ", person.ip(&mut Rng::of(1, 1)));
            let line = std::str::from_utf8(&text).unwrap();
            let [email, phone, ip] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            assert!(email.is_ascii() && email.contains("@example."), "{line}");
            let reserved = ["+447700900", "+3363998", "+4917139200"];
            assert!(phone[5..].starts_with("55501") || reserved.iter().any(|range| phone.starts_with(range)), "{line}");
            match ip.parse::<std::net::IpAddr>().unwrap() {
                std::net::IpAddr::V4(ip) => assert!(ip.is_documentation(), "{line}"),
                std::net::IpAddr::V6(ip) => assert_eq!(ip.segments()[..2], [0x2001, 0xdb8], "{line}"),
            }
        }
    }
}
