//! Walks the tree of a record along the fields of a plan: moves values to their slots and keeps the first fault.
//!
//! The walk consumes the tree, so texts are moved and not copied.

use crate::code::Code;
use crate::definition::Digits;
use crate::plan::{FIELDS_MAX, Input, InputKind, Node, Object, Others, Read};
use crate::tree::{Json, write_object};
use crate::value::Value;
use crate::{decode, strict};

/// A walk over one record.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// The first fault, in the order of the record.
    pub(crate) fault: Option<Code>,
    /// True if an exact number was expected and a rounded one was found: [`strict`] must parse the record.
    pub(crate) inexact: bool,
    /// True if [`strict`] parsed the record; it must then also parse the documents inside it.
    pub(crate) exact: bool,
}

impl Walk {
    fn note(&mut self, code: Code) {
        self.fault.get_or_insert(code);
    }

    /// Reads an object's members into slots.
    pub(crate) fn object(&mut self, node: &Node, members: Vec<(String, Json)>, slots: &mut [Value]) {
        let mut seen = [0_u64; FIELDS_MAX / 64];
        let mut collected = Vec::new();
        let mut entries = Vec::new();
        for (key, value) in members {
            if let Some(field) = node.fields.get(&key) {
                let (word, bit) = (field.number / 64, 1 << (field.number % 64));
                if seen[word] & bit != 0 {
                    self.note(Code::DuplicateKey);
                    continue;
                }
                seen[word] |= bit;
                self.read(&field.read, value, slots);
                continue;
            }
            match &node.others {
                Others::Collected { allow, .. } if allow.allows(&key) => collected.push((key, value)),
                Others::Map { allow, value: input, of_lists, .. } if allow.allows(&key) => {
                    let value = if *of_lists { self.list(value, *input) } else { self.scalar(value, *input) };
                    entries.push((key, value));
                }
                _ => {}
            }
        }
        if repeats(&collected) || repeats(&entries) {
            self.note(Code::DuplicateKey);
        }
        match &node.others {
            Others::Collected { slot, .. } if !collected.is_empty() => slots[*slot] = object_text(&collected),
            Others::Map { slot, .. } => slots[*slot] = Value::Map(entries),
            _ => {}
        }
    }

    fn read(&mut self, read: &Read, value: Json, slots: &mut [Value]) {
        match (read, value) {
            (Read::Nothing, _) | (_, Json::Null) => {}
            (Read::Scalars(targets), value) => {
                let Some(((last, last_input), others)) = targets.split_last() else { return };
                for (slot, input) in others {
                    slots[*slot] = self.scalar(value.clone(), *input);
                }
                slots[*last] = self.scalar(value, *last_input);
            }
            (Read::Json(slot, _), value) => {
                let mut text = String::new();
                value.write(&mut text);
                slots[*slot] = Value::Text(text);
            }
            (Read::List(slot, input), value @ Json::List(_)) => slots[*slot] = self.list(value, *input),
            (Read::Objects { slot, element: node, width, is_lenient }, Json::List(elements)) => {
                let mut list = Vec::with_capacity(elements.len());
                for element in elements {
                    let mut values = vec![Value::Null; *width];
                    match element {
                        Json::Object(members) => {
                            self.object(node, members, &mut values);
                            list.push(Value::Struct(values));
                            continue;
                        }
                        Json::Null => {}
                        _ if *is_lenient => {}
                        _ => self.note(Code::WrongType),
                    }
                    list.push(Value::Null);
                }
                slots[*slot] = Value::List(list);
            }
            (Read::Object(object), Json::Object(members)) => self.whole(object, members, slots),
            (Read::Object(object), Json::Text(text)) if object.embedded => {
                if text.is_empty() {
                    return;
                }
                let parse = if self.exact { strict::parse } else { decode::parse };
                match parse(text.as_bytes()) {
                    Ok(Json::Object(members)) => self.whole(object, members, slots),
                    _ => self.note(Code::BadEmbeddedJson),
                }
            }
            _ if read.is_lenient() => {}
            _ => self.note(Code::WrongType),
        }
    }

    /// A list of scalars.
    fn list(&mut self, value: Json, input: Input) -> Value {
        match value {
            Json::List(elements) => {
                Value::List(elements.into_iter().map(|element| self.scalar(element, input)).collect())
            }
            Json::Null => Value::Null,
            _ if input.is_lenient => Value::Null,
            _ => {
                self.note(Code::WrongType);
                Value::Null
            }
        }
    }

    fn whole(&mut self, object: &Object, members: Vec<(String, Json)>, slots: &mut [Value]) {
        if let Some(slot) = object.json {
            slots[slot] = object_text(&members);
        }
        if let Some(slot) = object.presence {
            slots[slot] = Value::Struct(Vec::new());
        }
        self.object(&object.node, members, slots);
    }

    fn scalar(&mut self, value: Json, input: Input) -> Value {
        let read = match (input.kind, value) {
            (_, Json::Null) => Ok(Value::Null),
            (InputKind::Text, Json::Text(text)) => Ok(Value::Text(text)),
            (InputKind::Text, Json::Bool(value)) if input.accept_bool => Ok(Value::Text(value.to_string())),
            (InputKind::Text, Json::Whole(number)) if input.accept_number => Ok(Value::Text(number.to_string())),
            (InputKind::Text, Json::Number(text)) if input.accept_number => Ok(Value::Text(text)),
            (InputKind::Text, Json::Double(_)) if input.accept_number => {
                self.inexact = true;
                Ok(Value::Null)
            }
            (InputKind::Bool, Json::Bool(value)) => Ok(Value::Bool(value)),
            (InputKind::Bool, Json::Text(text)) if input.accept_text => match text.as_str() {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err(Code::WrongType),
            },
            (InputKind::Int | InputKind::Float, Json::Text(text)) if input.accept_text => {
                strict::number(&text).ok_or(Code::WrongType).and_then(|number| self.number(&number, input))
            }
            (InputKind::Decimal(_), Json::Text(text)) => {
                strict::number(&text).ok_or(Code::WrongType).and_then(|number| self.number(&number, input))
            }
            (
                InputKind::Int | InputKind::Float | InputKind::Decimal(_),
                number @ (Json::Whole(_) | Json::Double(_) | Json::Number(_)),
            ) => self.number(&number, input),
            _ => Err(Code::WrongType),
        };
        read.unwrap_or_else(|code| {
            if !input.is_lenient {
                self.note(code);
            }
            Value::Null
        })
    }

    fn number(&mut self, number: &Json, input: Input) -> Result<Value, Code> {
        match (input.kind, number) {
            (InputKind::Int, Json::Whole(number)) => Ok(Value::Int(*number)),
            (InputKind::Int, Json::Number(text)) => whole(text, 0).map(Value::Int),
            (InputKind::Decimal(digits), Json::Whole(number)) => decimal(&number.to_string(), digits, input.round),
            (InputKind::Decimal(digits), Json::Number(text)) => decimal(text, digits, input.round),
            (InputKind::Int | InputKind::Decimal(_), Json::Double(_)) => {
                self.inexact = true;
                Ok(Value::Null)
            }
            #[expect(clippy::cast_precision_loss, reason = "the nearest double is what is asked for")]
            (InputKind::Float, Json::Whole(number)) => Ok(Value::Float(*number as f64)),
            (InputKind::Float, Json::Double(number)) => Ok(Value::Float(*number)),
            (InputKind::Float, Json::Number(text)) => {
                let number = text.parse().unwrap_or(f64::NAN);
                if f64::is_finite(number) { Ok(Value::Float(number)) } else { Err(Code::NotFinite) }
            }
            _ => Err(Code::WrongType),
        }
    }
}

/// Whether a key occurs twice.
fn repeats<T>(members: &[(String, T)]) -> bool {
    let mut keys: Vec<&str> = members.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}

fn object_text(members: &[(String, Json)]) -> Value {
    let mut text = String::new();
    write_object(members, &mut text);
    Value::Text(text)
}

/// The exact value of a JSON number, in units of its last digit.
fn decimal(text: &str, digits: Digits, round: bool) -> Result<Value, Code> {
    let units = match whole(text, digits.scale.into()) {
        Err(Code::WrongType) if round => rounded(text, digits.scale.into())?,
        units => units?,
    };
    if units.to_string().trim_start_matches('-').len() > usize::from(digits.precision) && units != 0 {
        return Err(Code::OutOfRange);
    }
    Ok(Value::Int(units))
}

/// The value of a JSON number times 10^`places`, rounded to the nearest whole number, from the middle away from zero.
fn rounded(text: &str, places: i64) -> Result<i64, Code> {
    let (sign, magnitude) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (mantissa, exponent) = magnitude.split_once(['e', 'E']).unwrap_or((magnitude, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [integer, fraction].concat();
    // The point of the result is after this many digits.
    let exponent = exponent.parse().unwrap_or(if exponent.starts_with('-') { -1_000_000 } else { 1_000_000 });
    let point = i64::try_from(integer.len()).unwrap_or(i64::MAX) + places + exponent;
    let Ok(point) = usize::try_from(point) else { return Ok(0) };
    let padded: String = digits.chars().chain(std::iter::repeat('0')).take(point + 1).collect();
    let (before, after) = padded.split_at(point);
    let before: i64 = if before.is_empty() { 0 } else { before.parse().map_err(|_| Code::OutOfRange)? };
    Ok(sign * before.saturating_add(i64::from(after >= "5")))
}

/// The exact value of a JSON number times 10^`places`, if it is whole.
fn whole(text: &str, places: i64) -> Result<i64, Code> {
    let (sign, magnitude) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (mantissa, exponent) = magnitude.split_once(['e', 'E']).unwrap_or((magnitude, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [integer, fraction].concat();
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Ok(0);
    }
    // An exponent with more digits than i64 has works like the largest or the least i64.
    let exponent = exponent.parse().unwrap_or(if exponent.starts_with('-') { i64::MIN } else { i64::MAX });
    let trailing_zeros = digits.len() - digits.trim_end_matches('0').len();
    let shift = i64::try_from(trailing_zeros).unwrap_or(i64::MAX) - i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    let shift = shift.saturating_add(places);
    let zeros = u32::try_from(exponent.saturating_add(shift).min(100)).map_err(|_| Code::WrongType)?;
    let value = significant.parse::<i128>().ok().zip(10_i128.checked_pow(zeros));
    let value = value.and_then(|(digits, power)| digits.checked_mul(power)).ok_or(Code::OutOfRange)?;
    i64::try_from(sign * value).map_err(|_| Code::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        let digits = Digits { precision: 18, scale: 2 };
        for (text, expected) in [
            ("90071992547409.93", Ok(Value::Int(9_007_199_254_740_993))),
            ("-9999999999999999.99", Ok(Value::Int(-999_999_999_999_999_999))),
            ("10000000000000000", Err(Code::OutOfRange)),
            ("0.001", Err(Code::WrongType)),
            ("1e-2", Ok(Value::Int(1))),
        ] {
            assert_eq!(decimal(text, digits, false), expected, "{text}");
        }
    }

    #[test]
    fn decimals_are_rounded_where_the_definition_says_so() {
        for (text, expected) in
            [("0.125", 13), ("-0.125", -13), ("0.1249999", 12), ("4e-3", 0), ("5e-3", 1), ("9e-99", 0)]
        {
            assert_eq!(decimal(text, Digits { precision: 18, scale: 2 }, true), Ok(Value::Int(expected)), "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_exact_in_every_spelling() {
        for (text, expected) in [
            ("-0", Ok(0)),
            ("0.000e99999999999999999999", Ok(0)),
            ("12.0", Ok(12)),
            ("1e2", Ok(100)),
            ("1200e-2", Ok(12)),
            ("9223372036854775807.0", Ok(i64::MAX)),
            ("-922337203685477580.8e1", Ok(i64::MIN)),
            ("9223372036854775808", Err(Code::OutOfRange)),
            ("1e19", Err(Code::OutOfRange)),
            ("1e99999999999999999999", Err(Code::OutOfRange)),
            ("12.5", Err(Code::WrongType)),
            ("9007199254740992.5", Err(Code::WrongType)),
            ("1e-99999999999999999999", Err(Code::WrongType)),
        ] {
            assert_eq!(whole(text, 0), expected, "{text}");
        }
    }
}
