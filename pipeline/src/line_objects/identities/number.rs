//! Sequence numbers as numbers of 192 bits.
//!
//! Owns: their digits, and the parts that are stored. Does not own: how parts are stored (`identities`).

/// A sequence number: 192 bits, the lowest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Number(pub(super) [u64; 3]);

const LOW_BITS: u32 = 36;
const MIDDLE_BITS: u32 = 44;
/// The largest power of ten that fits 64 bits, and its exponent.
const TENS: u64 = 10_000_000_000_000_000_000;
const TENS_DIGITS: usize = 19;

impl Number {
    /// The number of canonical decimal digits, if it fits.
    pub(super) fn parse(digits: &str) -> Option<Number> {
        let bytes = digits.as_bytes();
        if bytes.is_empty() || (bytes[0] == b'0' && bytes.len() > 1) || bytes.len() > 3 * TENS_DIGITS + 1 {
            return None;
        }
        let mut number = Number::default();
        let first = bytes.len() % TENS_DIGITS;
        let (head, tail) = bytes.split_at(first);
        for part in std::iter::once(head).chain(tail.chunks(TENS_DIGITS)).filter(|part| !part.is_empty()) {
            let mut value = 0_u64;
            for byte in part {
                let digit = byte.wrapping_sub(b'0');
                if digit > 9 {
                    return None;
                }
                value = value * 10 + u64::from(digit);
            }
            number = number.times_plus(TENS, value)?;
        }
        Some(number)
    }

    fn times_plus(self, factor: u64, value: u64) -> Option<Number> {
        let mut carry = u128::from(value);
        let mut parts = self.0;
        for part in &mut parts {
            carry += u128::from(*part) * u128::from(factor);
            *part = low_half(carry);
            carry >>= 64;
        }
        (carry == 0).then_some(Number(parts))
    }

    /// The number this many above it.
    pub(super) fn plus(self, more: u64) -> Number {
        let Number([low, middle, high]) = self;
        let (low, carry) = low.overflowing_add(more);
        let (middle, carry) = middle.overflowing_add(u64::from(carry));
        Number([low, middle, high.wrapping_add(u64::from(carry))])
    }

    /// Bits 80 to 191, 36 to 79, and 0 to 35.
    pub(super) fn parts(self) -> [i128; 3] {
        let Number([low, middle, high]) = self;
        let top = u128::from(high) << 48 | u128::from(middle >> 16);
        let between = (middle & 0xFFFF) << 28 | low >> LOW_BITS;
        [top.cast_signed(), i128::from(between), i128::from(low & ((1 << LOW_BITS) - 1))]
    }

    /// The number of these parts, if each is in its range.
    pub(super) fn of_parts([top, between, bottom]: [i128; 3]) -> Option<Number> {
        let top = u128::try_from(top).ok().filter(|top| *top < 1 << 112)?;
        let between = u64::try_from(between).ok().filter(|between| *between < 1 << MIDDLE_BITS)?;
        let bottom = u64::try_from(bottom).ok().filter(|bottom| *bottom < 1 << LOW_BITS)?;
        let low = between << LOW_BITS | bottom;
        let middle = low_half(top << 16) | between >> 28;
        Some(Number([low, middle, low_half(top >> 48)]))
    }

    pub(super) fn to_digits(self) -> Box<str> {
        let mut parts = self.0;
        let mut groups = Vec::with_capacity(4);
        while parts != [0; 3] {
            let mut rest = 0_u128;
            for part in parts.iter_mut().rev() {
                let value = rest << 64 | u128::from(*part);
                *part = low_half(value / u128::from(TENS));
                rest = value % u128::from(TENS);
            }
            groups.push(low_half(rest));
        }
        let Some(first) = groups.pop() else { return "0".into() };
        let mut digits = first.to_string();
        for group in groups.iter().rev() {
            digits.push_str(&format!("{group:019}"));
        }
        digits.into()
    }
}

/// The low 64 bits.
fn low_half(value: u128) -> u64 {
    u64::try_from(value & u128::from(u64::MAX)).unwrap_or_default()
}
