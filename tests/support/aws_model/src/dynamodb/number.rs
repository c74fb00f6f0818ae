//! DynamoDB's numbers.
//!
//! Owns: decimal numbers of up to 38 significant digits with magnitudes from 1E-130 to 9.99…E+125, their one normal form
//! (`01.50` is `1.5`), order, and exact sums. Does not own: what a sum is for. A sum that needs more than 38 digits is
//! refused here; what DynamoDB does with it is not documented.
//!
//! Source: "Supported data types and naming rules", Number.

use std::cmp::Ordering;
use std::fmt;

/// The most significant digits.
const DIGITS_MAX: usize = 38;

/// A number: `0.d1d2d3… × 10^point`, without leading or trailing zeros; zero has no digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Number {
    negative: bool,
    digits: Vec<u8>,
    point: i32,
}

/// Why a text or a sum is not a valid number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberError {
    /// It is not a decimal number.
    Malformed,
    /// It has more than 38 significant digits.
    TooPrecise,
    /// Its magnitude is 1E+126 or more.
    Overflow,
    /// Its magnitude is below 1E-130.
    Underflow,
}

impl NumberError {
    /// DynamoDB's message.
    pub fn message(self, text: &str) -> String {
        match self {
            Self::Malformed if text.is_empty() => "The parameter cannot be converted to a numeric value".to_owned(),
            Self::Malformed => format!("The parameter cannot be converted to a numeric value: {text}"),
            Self::TooPrecise => "Attempting to store more than 38 significant digits in a Number".to_owned(),
            Self::Overflow => {
                "Number overflow. Attempting to store a number with magnitude larger than supported range".to_owned()
            }
            Self::Underflow => {
                "Number underflow. Attempting to store a number with magnitude smaller than supported range".to_owned()
            }
        }
    }
}

impl Number {
    /// Zero.
    pub fn zero() -> Self {
        Number { negative: false, digits: Vec::new(), point: 0 }
    }

    /// A count.
    pub fn from_count(count: usize) -> Self {
        let digits = count.to_string().bytes().map(|digit| digit - b'0').collect::<Vec<_>>();
        let point = i32::try_from(digits.len()).unwrap_or(i32::MAX);
        Self::normal(false, digits, point).unwrap_or_else(|_| Self::zero())
    }

    /// Parses `-12.5e3`.
    ///
    /// # Errors
    /// If DynamoDB can't store the number.
    pub fn parse(text: &str) -> Result<Self, NumberError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            None => (rest, 0),
            Some((mantissa, exponent)) => {
                let digits = exponent.trim_start_matches(['+', '-']);
                if digits.is_empty() || exponent.len() - digits.len() > 1 || !digits.bytes().all(|b| b.is_ascii_digit())
                {
                    return Err(NumberError::Malformed);
                }
                (mantissa, exponent.parse::<i32>().map_err(|_| NumberError::Overflow)?)
            }
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.len() + fraction.len() == 0 || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
            return Err(NumberError::Malformed);
        }
        let digits = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').collect();
        let point = i32::try_from(whole.len()).map_err(|_| NumberError::Overflow)?;
        Self::normal(negative, digits, point.saturating_add(exponent))
    }

    fn normal(negative: bool, mut digits: Vec<u8>, mut point: i32) -> Result<Self, NumberError> {
        let leading = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..leading);
        point = point.saturating_sub(i32::try_from(leading).unwrap_or(i32::MAX));
        while digits.last() == Some(&0) {
            digits.pop();
        }
        if digits.is_empty() {
            return Ok(Self::zero());
        }
        if point > 126 {
            return Err(NumberError::Overflow);
        }
        if point < -129 {
            return Err(NumberError::Underflow);
        }
        if digits.len() > DIGITS_MAX {
            return Err(NumberError::TooPrecise);
        }
        Ok(Number { negative, digits, point })
    }

    /// The number times -1.
    #[must_use]
    pub fn negated(&self) -> Self {
        Number { negative: !self.negative && !self.digits.is_empty(), ..self.clone() }
    }

    /// The exact sum.
    ///
    /// # Errors
    /// If DynamoDB can't store it.
    pub fn plus(&self, other: &Self) -> Result<Self, NumberError> {
        let top = self.point.max(other.point).saturating_add(1);
        let places = |number: &Self| i32::try_from(number.digits.len()).unwrap_or(i32::MAX) - number.point;
        let bottom = places(self).max(places(other));
        let length = usize::try_from(top.saturating_add(bottom)).unwrap_or(0);
        let column = |number: &Self| {
            let mut column = vec![0_i16; length];
            let start = usize::try_from(top - number.point).unwrap_or(0);
            for (place, digit) in column[start.min(length)..].iter_mut().zip(&number.digits) {
                *place = i16::from(*digit) * if number.negative { -1 } else { 1 };
            }
            column
        };
        let mut sum: Vec<i16> = column(self).iter().zip(column(other)).map(|(a, b)| a + b).collect();
        let negative = sum.iter().find(|digit| **digit != 0).is_some_and(|digit| *digit < 0);
        if negative {
            sum.iter_mut().for_each(|digit| *digit = -*digit);
        }
        let mut carry = 0;
        for digit in sum.iter_mut().rev() {
            let with = *digit + carry;
            carry = with.div_euclid(10);
            *digit = with.rem_euclid(10);
        }
        Self::normal(negative, sum.iter().map(|digit| u8::try_from(*digit).unwrap_or(0)).collect(), top)
    }

    /// The bytes of the number in an item: one for every two digits, and one more.
    pub fn size(&self) -> usize {
        self.digits.len().div_ceil(2) + 1 + usize::from(self.negative)
    }

    fn magnitude(&self, other: &Self) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.point.cmp(&other.point).then_with(|| self.digits.cmp(&other.digits)),
        }
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.magnitude(other),
            (true, true) => other.magnitude(self),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Plain decimal notation, never an exponent.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.digits.is_empty() {
            return f.write_str("0");
        }
        if self.negative {
            f.write_str("-")?;
        }
        let digit = |index: usize| char::from(b'0' + self.digits.get(index).copied().unwrap_or(0));
        let Ok(point) = usize::try_from(self.point) else {
            f.write_str("0.")?;
            (0..self.point.unsigned_abs()).try_for_each(|_| f.write_str("0"))?;
            return (0..self.digits.len()).try_for_each(|index| write!(f, "{}", digit(index)));
        };
        if point == 0 {
            f.write_str("0")?;
        }
        (0..point).try_for_each(|index| write!(f, "{}", digit(index)))?;
        if self.digits.len() > point {
            f.write_str(".")?;
            (point..self.digits.len()).try_for_each(|index| write!(f, "{}", digit(index)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn one_number_has_one_form() {
        for (text, form) in [
            ("01.50", "1.5"),
            ("-0", "0"),
            ("1e3", "1000"),
            ("1.5E-2", "0.015"),
            ("+7", "7"),
            (".5", "0.5"),
            ("5.", "5"),
            ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
        ] {
            assert_eq!(number(text).to_string(), form);
        }
        for (text, error) in [
            ("", NumberError::Malformed),
            ("x", NumberError::Malformed),
            ("1e", NumberError::Malformed),
            ("1e+-1", NumberError::Malformed),
            (".", NumberError::Malformed),
            ("NaN", NumberError::Malformed),
            ("123456789012345678901234567890123456789", NumberError::TooPrecise),
            ("1e126", NumberError::Overflow),
            ("1e-131", NumberError::Underflow),
        ] {
            assert_eq!(Number::parse(text), Err(error), "{text}");
        }
        assert!(Number::parse("9.9999999999999999999999999999999999999E+125").is_ok());
        assert!(Number::parse("-1e-130").is_ok());
    }

    #[test]
    fn numbers_beyond_what_a_double_holds_keep_each_digit() {
        let checkpoint = number("49680484617961752439573259139351075817");
        assert_eq!(checkpoint.plus(&number("1")).unwrap().to_string(), "49680484617961752439573259139351075818");
        assert_eq!(number("99999999999999999999999999999999999999").plus(&number("1")).unwrap(), number("1e38"));
        assert_eq!(number("1e38").plus(&number("0.1")), Err(NumberError::TooPrecise));
    }

    proptest! {
        #[test]
        fn sums_and_order_are_those_of_integers(a in -(1_i128 << 120)..(1_i128 << 120), b in -(1_i128 << 120)..(1_i128 << 120)) {
            let (x, y) = (number(&a.to_string()), number(&b.to_string()));
            prop_assert_eq!(x.plus(&y).unwrap().to_string(), (a + b).to_string());
            prop_assert_eq!(x.plus(&y.negated()).unwrap().to_string(), (a - b).to_string());
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }
    }
}
