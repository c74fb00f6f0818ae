//! JSON numbers: whole numbers and decimals exactly, doubles correctly rounded.
//!
//! Owns: the grammar of numbers and their values. Does not own: which number a field accepts (`scan::value`), bounds
//! (`columns::constraints`).
//!
//! A whole number may be written with a fraction or an exponent (`12.0`, `1e3`), because some producers write every number
//! so. `12.5` is not a whole number.

use crate::dead_letter::code::Code;

/// A number as scanned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Number {
    /// Where it begins, and where the next token begins.
    pub(crate) at: usize,
    pub(crate) end: usize,
    negative: bool,
    /// All digits as one integer, if they fit.
    digits: u64,
    fits: bool,
    /// Digits after the point, minus the exponent: value = digits · 10^-scale.
    scale: i32,
}

/// Scans the number at `at`. It ends before the first character that cannot belong to it. `Err` is the position of the
/// error.
#[inline]
pub(crate) fn scan(buffer: &[u8], at: usize) -> Result<Number, usize> {
    let byte = |place: usize| buffer.get(place).copied().unwrap_or(0);
    let negative = byte(at) == b'-';
    let begin = at + usize::from(negative);
    let mut number = Number { at, end: begin, negative, digits: 0, fits: true, scale: 0 };
    number.take_digits(buffer);
    let length = number.end - begin;
    if length == 0 || (length > 1 && byte(begin) == b'0') {
        return Err(if length == 0 { begin } else { begin + 1 });
    }
    if !matches!(byte(number.end), b'.' | b'e' | b'E') {
        return Ok(number);
    }
    scan_rest(buffer, number)
}

fn scan_rest(buffer: &[u8], mut number: Number) -> Result<Number, usize> {
    let byte = |place: usize| buffer.get(place).copied().unwrap_or(0);
    if byte(number.end) == b'.' {
        number.end += 1;
        let fraction = number.end;
        number.take_digits(buffer);
        if number.end == fraction {
            return Err(fraction);
        }
        number.scale = i32::try_from(number.end - fraction).unwrap_or(i32::MAX / 2);
    }
    if matches!(byte(number.end), b'e' | b'E') {
        let mut place = number.end + 1;
        let negative = byte(place) == b'-';
        place += usize::from(matches!(byte(place), b'+' | b'-'));
        let first = place;
        let mut exponent = 0_i32;
        while byte(place).is_ascii_digit() {
            exponent = exponent.saturating_mul(10).saturating_add(i32::from(byte(place) - b'0')).min(1_000_000);
            place += 1;
        }
        if place == first {
            return Err(place);
        }
        number.end = place;
        number.scale = number.scale.saturating_sub(if negative { -exponent } else { exponent });
    }
    Ok(number)
}

impl Number {
    #[inline]
    fn take_digits(&mut self, buffer: &[u8]) {
        while let Some(digit) = buffer.get(self.end).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit <= 9) {
            let next = self.digits.wrapping_mul(10).wrapping_add(u64::from(digit));
            // 19 digits always fit; a twentieth may not.
            self.fits &= self.digits < 1_000_000_000_000_000_000;
            self.digits = next;
            self.end += 1;
        }
    }

    /// The number as i64.
    ///
    /// # Errors
    /// `WrongType` if it is not whole, `OutOfRange` if it does not fit.
    #[inline]
    pub(crate) fn to_i64(self, buffer: &[u8]) -> Result<i64, Code> {
        if self.scale == 0 && self.fits {
            return self.signed(self.digits);
        }
        self.whole(buffer)
    }

    /// The number in units of 10^-`scale`, with at most `precision` digits: 12.5 is 1250 for a scale of 2. Exact, unless it
    /// may be rounded (`round`): then to the nearest unit, and from the middle away from zero.
    ///
    /// # Errors
    /// `WrongType` if it has more digits after the point and must not be rounded, `OutOfRange` if it has more digits than
    /// `precision`.
    pub(crate) fn to_decimal(self, precision: u8, scale: u8, round: bool, buffer: &[u8]) -> Result<i64, Code> {
        let units = Number { scale: self.scale.saturating_sub(scale.into()), ..self };
        let zeros = u32::try_from(units.scale.saturating_neg()).ok().filter(|_| self.fits);
        let magnitude =
            zeros.and_then(|zeros| 10_u64.checked_pow(zeros)).and_then(|power| units.digits.checked_mul(power));
        let value = match magnitude {
            Some(magnitude) => units.signed(magnitude)?,
            None => match units.whole(buffer) {
                Err(Code::WrongType) if round => units.rounded(buffer)?,
                value => value?,
            },
        };
        if value.unsigned_abs() < 10_u64.pow(precision.into()) { Ok(value) } else { Err(Code::OutOfRange) }
    }

    /// The nearest whole number of one with digits after its point. From the middle it is away from zero.
    #[cold]
    fn rounded(self, buffer: &[u8]) -> Result<i64, Code> {
        let text = &buffer[self.at..self.end];
        let mantissa = text.split(|byte| matches!(byte, b'e' | b'E')).next().unwrap_or_default();
        let digits: Vec<u8> = mantissa.iter().filter(|byte| byte.is_ascii_digit()).map(|byte| byte - b'0').collect();
        let dropped = usize::try_from(self.scale).unwrap_or(0);
        let kept = digits.len().checked_sub(dropped);
        let magnitude = digits[..kept.unwrap_or(0)].iter().try_fold(0_u64, |magnitude, digit| {
            magnitude.checked_mul(10).and_then(|value| value.checked_add(u64::from(*digit))).ok_or(Code::OutOfRange)
        })?;
        // The first digit that is dropped; a zero that is not written, if there are fewer digits.
        let first = kept.and_then(|kept| digits.get(kept)).copied().unwrap_or(0);
        self.signed(magnitude.saturating_add(u64::from(first >= 5)))
    }

    fn signed(self, magnitude: u64) -> Result<i64, Code> {
        match (self.negative, i64::try_from(magnitude)) {
            (false, Ok(value)) => Ok(value),
            (true, Ok(value)) => Ok(-value),
            (true, Err(_)) if magnitude == 1 << 63 => Ok(i64::MIN),
            (_, Err(_)) => Err(Code::OutOfRange),
        }
    }

    /// The slow path, digit by digit: fractions that are zero, exponents, very long numbers.
    #[cold]
    fn whole(self, buffer: &[u8]) -> Result<i64, Code> {
        let text = &buffer[self.at..self.end];
        let mantissa = text.split(|byte| matches!(byte, b'e' | b'E')).next().unwrap_or_default();
        let mut digits: Vec<u8> =
            mantissa.iter().filter(|byte| byte.is_ascii_digit()).map(|byte| byte - b'0').collect();
        let mut scale = self.scale;
        while scale > 0 && digits.last() == Some(&0) {
            digits.pop();
            scale -= 1;
        }
        if digits.iter().all(|digit| *digit == 0) {
            return Ok(0);
        }
        if scale > 0 {
            return Err(Code::WrongType);
        }
        if scale < -19 {
            return Err(Code::OutOfRange);
        }
        digits.extend(std::iter::repeat_n(0, scale.unsigned_abs() as usize));
        let mut magnitude = 0_u64;
        for digit in digits {
            magnitude = magnitude
                .checked_mul(10)
                .and_then(|value| value.checked_add(u64::from(digit)))
                .ok_or(Code::OutOfRange)?;
        }
        self.signed(magnitude)
    }

    /// The number as a double, rounded to the nearest as IEEE 754 says.
    ///
    /// # Errors
    /// `NotFinite` if it is beyond the largest double.
    #[inline]
    pub(crate) fn to_f64(self, buffer: &[u8]) -> Result<f64, Code> {
        const EXACT: [f64; 23] = [
            1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
            1e19, 1e20, 1e21, 1e22,
        ];
        // Clinger's fast path: an exact integer divided or multiplied by an exact power of ten is rounded once.
        if self.fits
            && self.digits < 1 << 53
            && let Some(power) = EXACT.get(self.scale.unsigned_abs() as usize)
        {
            #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
            let digits = self.digits as f64;
            let value = if self.scale >= 0 { digits / power } else { digits * power };
            return Ok(if self.negative { -value } else { value });
        }
        let text = std::str::from_utf8(&buffer[self.at..self.end]).unwrap_or_default();
        // Every number of the grammar can be parsed, so this cannot fail.
        let value: f64 = text.parse().unwrap_or(f64::NAN);
        if value.is_finite() { Ok(value) } else { Err(Code::NotFinite) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Result<Number, usize> {
        scan(text.as_bytes(), 0)
    }

    #[test]
    fn whole_numbers_keep_their_value() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("9007199254740993", Ok(9_007_199_254_740_993)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775808", Err(Code::OutOfRange)),
            ("-9223372036854775809", Err(Code::OutOfRange)),
            ("99999999999999999999999", Err(Code::OutOfRange)),
            ("12.0", Ok(12)),
            ("12.50", Err(Code::WrongType)),
            ("1e3", Ok(1000)),
            ("1.5e1", Ok(15)),
            ("1200e-2", Ok(12)),
            ("1e-1", Err(Code::WrongType)),
            ("0e999999999", Ok(0)),
            ("1e999999999", Err(Code::OutOfRange)),
            ("1e19", Err(Code::OutOfRange)),
            ("9.223372036854775807e18", Ok(i64::MAX)),
        ] {
            assert_eq!(number(text).unwrap().to_i64(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn decimals_keep_every_digit() {
        for (text, precision, scale, expected) in [
            ("12.34", 12, 2, Ok(1234)),
            ("12.3", 12, 2, Ok(1230)),
            ("-12", 12, 2, Ok(-1200)),
            ("0.1", 1, 1, Ok(1)),
            ("-0", 12, 2, Ok(0)),
            ("-0.00", 12, 2, Ok(0)),
            ("12.3400", 12, 2, Ok(1234)),
            ("12.345", 12, 2, Err(Code::WrongType)),
            ("9999999999.99", 12, 2, Ok(999_999_999_999)),
            ("-9999999999.99", 12, 2, Ok(-999_999_999_999)),
            ("10000000000", 12, 2, Err(Code::OutOfRange)),
            ("9007199254740993", 18, 0, Ok(9_007_199_254_740_993)),
            ("90071992547409.93", 18, 2, Ok(9_007_199_254_740_993)),
            ("999999999999999999", 18, 0, Ok(999_999_999_999_999_999)),
            ("1000000000000000000", 18, 0, Err(Code::OutOfRange)),
            ("9223372036854775807", 18, 0, Err(Code::OutOfRange)),
            ("0.000000000000000001", 18, 18, Ok(1)),
            ("1", 18, 18, Err(Code::OutOfRange)),
            ("1.2e1", 4, 2, Ok(1200)),
            ("12e-2", 4, 2, Ok(12)),
            ("12E-3", 4, 2, Err(Code::WrongType)),
            ("1e2", 4, 2, Err(Code::OutOfRange)),
            ("0e999999999", 4, 2, Ok(0)),
            ("1e-999999999", 4, 2, Err(Code::WrongType)),
            ("1e999999999", 4, 2, Err(Code::OutOfRange)),
            ("100000000000000000000000000000e-28", 4, 2, Ok(1000)),
            ("0.0000000000000000000000000000001", 4, 2, Err(Code::WrongType)),
            ("123456789012345678901234567890", 18, 2, Err(Code::OutOfRange)),
        ] {
            let found = number(text).unwrap().to_decimal(precision, scale, false, text.as_bytes());
            assert_eq!(found, expected, "{text} as decimal({precision},{scale})");
        }
    }

    #[test]
    fn text_that_is_not_a_json_number_is_refused() {
        for text in ["", "-", "+1", ".5", "1.", "1.e3", "1e", "1e+", "01", "-01", "x"] {
            assert!(number(text).is_err(), "{text}");
        }
        assert_eq!(number("1,").unwrap().end, 1);
    }

    #[test]
    fn a_number_beyond_the_largest_double_is_not_finite() {
        assert_eq!(number("1e999").unwrap().to_f64(b"1e999"), Err(Code::NotFinite));
        assert_eq!(number("-1e400").unwrap().to_f64(b"-1e400"), Err(Code::NotFinite));
        assert_eq!(number("1e-999").unwrap().to_f64(b"1e-999"), Ok(0.0));
    }

    proptest! {
        #[test]
        fn doubles_read_as_the_standard_library_reads_them(value in any::<f64>().prop_filter("finite", |v| v.is_finite())) {
            for text in [format!("{value}"), format!("{value:e}")] {
                let read = number(&text).unwrap();
                prop_assert_eq!(read.end, text.len());
                prop_assert_eq!(read.to_f64(text.as_bytes()).unwrap().to_bits(), value.to_bits());
            }
        }

        #[test]
        fn decimal_text_reads_as_the_standard_library_reads_it(text in "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?") {
            let read = number(&text).unwrap();
            prop_assert_eq!(read.end, text.len());
            prop_assert_eq!(read.to_f64(text.as_bytes()).unwrap(), text.parse::<f64>().unwrap());
        }

        #[test]
        fn every_decimal_round_trips(units in -999_999_999_999_999_999..1_000_000_000_000_000_000_i64, scale in 0_u8..=18) {
            let (sign, magnitude) = (if units < 0 { "-" } else { "" }, units.unsigned_abs());
            let one = 10_u64.pow(scale.into());
            let point = if scale == 0 { String::new() } else { format!(".{:0width$}", magnitude % one, width = scale.into()) };
            for text in [format!("{sign}{}{point}", magnitude / one), format!("{units}e-{scale}")] {
                prop_assert_eq!(number(&text).unwrap().to_decimal(18, scale, false, text.as_bytes()), Ok(units), "{}", text);
            }
        }

        #[test]
        fn every_i64_round_trips(value in any::<i64>()) {
            let text = value.to_string();
            prop_assert_eq!(number(&text).unwrap().to_i64(text.as_bytes()), Ok(value));
        }
    }
}
