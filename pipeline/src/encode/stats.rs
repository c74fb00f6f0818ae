//! The least and greatest values of pages and column chunks, for statistics and page indexes.
//!
//! Owns: computing, widening and shortening bounds. Does not own: which columns have bounds outside of the file
//! (`column_stats`).
//!
//! Source: `Statistics` and `ColumnOrder` in `parquet.thrift`. Texts are compared as unsigned bytes. Bounds of texts have
//! at most 64 bytes: a longer lower bound is cut, a longer upper bound is cut and its last character increased. A lower
//! bound of zero is -0.0 and an upper bound is +0.0, as the source demands.

use parquet::data_type::ByteArray;
use parquet::file::statistics::{Statistics, ValueStatistics};

use crate::dataset::types::Physical;

/// The most bytes in a bound of texts.
const TEXT_BOUND_BYTES: usize = 64;

/// The least and the greatest of a set of values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Bounds {
    Bools(bool, bool),
    Numbers(i64, i64),
    Doubles(f64, f64),
    /// At most [`TEXT_BOUND_BYTES`] long. There is no upper bound if no short text is great enough. The flags are true if
    /// the bound is a value of the column.
    Texts {
        min: Vec<u8>,
        max: Option<Vec<u8>>,
        min_exact: bool,
        max_exact: bool,
    },
}

impl Bounds {
    /// Bounds of booleans, given as 0 and 1.
    pub(crate) fn of_bools(values: &[i64]) -> Option<Bounds> {
        let all = |value: i64| values.iter().all(|other| *other == value);
        (!values.is_empty()).then(|| Bounds::Bools(all(1), !all(0)))
    }

    pub(crate) fn of_numbers(values: &[i64]) -> Option<Bounds> {
        let first = *values.first()?;
        let (min, max) = values.iter().fold((first, first), |(min, max), value| (min.min(*value), max.max(*value)));
        Some(Bounds::Numbers(min, max))
    }

    /// Bounds of doubles, given as their bits. None of them is NaN, because JSON has no NaN.
    pub(crate) fn of_doubles(bits: &[i64]) -> Option<Bounds> {
        let doubles = bits.iter().map(|bits| f64::from_bits(bits.cast_unsigned()));
        let (min, max) = doubles.fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), value| {
            (if value < min { value } else { min }, if value > max { value } else { max })
        });
        (min <= max).then_some(Bounds::Doubles(min, max))
    }

    /// Bounds of the values of a dictionary: whole numbers, or the bits of doubles.
    pub(crate) fn of_values(values: &[i64], physical: Physical) -> Option<Bounds> {
        match physical {
            Physical::Double => Self::of_doubles(values),
            Physical::Int32 | Physical::Int64 => Self::of_numbers(values),
            Physical::Bool | Physical::Text => None,
        }
    }

    pub(crate) fn of_texts<'t>(texts: impl Iterator<Item = &'t [u8]>) -> Option<Bounds> {
        let mut range: Option<(&[u8], &[u8])> = None;
        for text in texts {
            let (min, max) = range.get_or_insert((text, text));
            if text < *min {
                *min = text;
            } else if text > *max {
                *max = text;
            }
        }
        let (min, max) = range?;
        let min_exact = min.len() <= TEXT_BOUND_BYTES;
        let max_exact = max.len() <= TEXT_BOUND_BYTES;
        Some(Bounds::Texts { min: cut(min).to_vec(), max: cut_up(max), min_exact, max_exact })
    }

    pub(crate) fn of_concatenated(lengths: &[u32], bytes: &[u8]) -> Option<Bounds> {
        let mut at = 0;
        Self::of_texts(lengths.iter().map(|length| {
            let text = &bytes[at..at + *length as usize];
            at += *length as usize;
            text
        }))
    }

    /// The bounds in the statistics of a column chunk.
    pub(crate) fn of_statistics(statistics: &Statistics) -> Option<Bounds> {
        Some(match statistics {
            Statistics::Boolean(of) => Bounds::Bools(*of.min_opt()?, *of.max_opt()?),
            Statistics::Int32(of) => Bounds::Numbers((*of.min_opt()?).into(), (*of.max_opt()?).into()),
            Statistics::Int64(of) => Bounds::Numbers(*of.min_opt()?, *of.max_opt()?),
            Statistics::Double(of) => Bounds::Doubles(*of.min_opt()?, *of.max_opt()?),
            Statistics::ByteArray(of) => Bounds::Texts {
                min: of.min_opt()?.data().to_vec(),
                max: of.max_opt().map(|max| max.data().to_vec()),
                min_exact: of.min_is_exact(),
                max_exact: of.max_is_exact(),
            },
            _ => return None,
        })
    }

    /// Extends the bounds to those of other values.
    pub(crate) fn widen(&mut self, other: &Bounds) {
        match (self, other) {
            (Bounds::Bools(min, max), Bounds::Bools(low, high)) => {
                *min &= low;
                *max |= high;
            }
            (Bounds::Numbers(min, max), Bounds::Numbers(low, high)) => {
                *min = (*min).min(*low);
                *max = (*max).max(*high);
            }
            (Bounds::Doubles(min, max), Bounds::Doubles(low, high)) => {
                *min = min.min(*low);
                *max = max.max(*high);
            }
            (
                Bounds::Texts { min, max, min_exact, max_exact },
                Bounds::Texts { min: low, max: high, min_exact: low_exact, max_exact: high_exact },
            ) => {
                if low < min {
                    min.clone_from(low);
                    *min_exact = *low_exact;
                }
                // No upper bound means that it is above every bound.
                if max.is_some() && (high.is_none() || *high > *max) {
                    max.clone_from(high);
                    *max_exact = *high_exact;
                }
            }
            _ => {}
        }
    }

    /// Both bounds in the form of a page index. Where texts have no short upper bound, it is the greatest bytes of the most
    /// length.
    pub(crate) fn to_bytes(&self, physical: Physical) -> (Vec<u8>, Vec<u8>) {
        match self {
            Bounds::Bools(min, max) => (vec![u8::from(*min)], vec![u8::from(*max)]),
            Bounds::Numbers(min, max) => (number(*min, physical), number(*max, physical)),
            Bounds::Doubles(min, max) => {
                (negative_zero(*min).to_le_bytes().to_vec(), positive_zero(*max).to_le_bytes().to_vec())
            }
            Bounds::Texts { min, max, .. } => {
                (min.clone(), max.clone().unwrap_or_else(|| vec![0xFF; TEXT_BOUND_BYTES]))
            }
        }
    }
}

fn number(value: i64, physical: Physical) -> Vec<u8> {
    match physical {
        #[expect(clippy::cast_possible_truncation, reason = "the column's values are 32 bits wide")]
        Physical::Int32 => (value as i32).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    }
}

fn negative_zero(value: f64) -> f64 {
    if value == 0.0 { -0.0 } else { value }
}

fn positive_zero(value: f64) -> f64 {
    if value == 0.0 { 0.0 } else { value }
}

/// A text, cut between characters to the length of a bound.
fn cut(text: &[u8]) -> &[u8] {
    if text.len() <= TEXT_BOUND_BYTES {
        return text;
    }
    let mut end = TEXT_BOUND_BYTES;
    while end > 0 && text[end].cast_signed() < -64 {
        end -= 1;
    }
    &text[..end]
}

/// A short text that is not less than this one; `None` if there is none.
fn cut_up(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() <= TEXT_BOUND_BYTES {
        return Some(text.to_vec());
    }
    let mut kept = std::str::from_utf8(cut(text)).ok()?.to_owned();
    while let Some(last) = kept.pop() {
        // The next valid character keeps the bound valid UTF-8. It may have one byte more than the last one.
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next.filter(|next| kept.len() + next.len_utf8() <= TEXT_BOUND_BYTES) {
            kept.push(next);
            return Some(kept.into_bytes());
        }
    }
    None
}

/// The statistics of a column chunk.
pub(crate) fn statistics(bounds: Option<&Bounds>, physical: Physical, nulls: u64) -> Statistics {
    let nulls = Some(nulls);
    match (physical, bounds) {
        (Physical::Bool, Some(Bounds::Bools(min, max))) => {
            Statistics::boolean(Some(*min), Some(*max), None, nulls, false)
        }
        (Physical::Bool, _) => Statistics::boolean(None, None, None, nulls, false),
        #[expect(clippy::cast_possible_truncation, reason = "the column's values are 32 bits wide")]
        (Physical::Int32, Some(Bounds::Numbers(min, max))) => {
            Statistics::int32(Some(*min as i32), Some(*max as i32), None, nulls, false)
        }
        (Physical::Int32, _) => Statistics::int32(None, None, None, nulls, false),
        (Physical::Int64, Some(Bounds::Numbers(min, max))) => {
            Statistics::int64(Some(*min), Some(*max), None, nulls, false)
        }
        (Physical::Int64, _) => Statistics::int64(None, None, None, nulls, false),
        (Physical::Double, Some(Bounds::Doubles(min, max))) => {
            let (min, max) = (Some(negative_zero(*min)), Some(positive_zero(*max)));
            Statistics::Double(ValueStatistics::new(min, max, None, nulls, false).with_nan_count(Some(0)))
        }
        (Physical::Double, _) => {
            Statistics::Double(ValueStatistics::new(None, None, None, nulls, false).with_nan_count(Some(0)))
        }
        (Physical::Text, Some(Bounds::Texts { min, max, min_exact, max_exact })) => {
            let (min, max) = (Some(ByteArray::from(min.clone())), max.clone().map(ByteArray::from));
            let statistics = ValueStatistics::new(min, max, None, nulls, false);
            Statistics::ByteArray(statistics.with_min_is_exact(*min_exact).with_max_is_exact(*max_exact))
        }
        (Physical::Text, _) => Statistics::ByteArray(ValueStatistics::new(None::<ByteArray>, None, None, nulls, false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bounds_of_texts_hold(texts in prop::collection::vec("[a\u{7f}\u{7ff}\u{ffff}\u{10ffff}]{0,80}", 1..6)) {
            let bounds = Bounds::of_texts(texts.iter().map(String::as_bytes)).unwrap();
            let (min, max) = bounds.to_bytes(Physical::Text);
            for text in &texts {
                prop_assert!(min.as_slice() <= text.as_bytes() && text.as_bytes() <= max.as_slice());
            }
            prop_assert!(std::str::from_utf8(&min).is_ok());
            prop_assert!(min.len() <= TEXT_BOUND_BYTES && max.len() <= TEXT_BOUND_BYTES);
            let Bounds::Texts { min_exact, max_exact, .. } = bounds else { panic!("texts") };
            let least = texts.iter().min().unwrap();
            prop_assert_eq!(min_exact, min == least.as_bytes());
            if max_exact {
                prop_assert_eq!(max.as_slice(), texts.iter().max().unwrap().as_bytes());
            }
        }
    }

    #[test]
    fn bounds_widen() {
        let mut bounds = Bounds::of_numbers(&[3, 5]).unwrap();
        bounds.widen(&Bounds::Numbers(-1, 4));
        assert_eq!(bounds, Bounds::Numbers(-1, 5));
        let mut bounds = Bounds::of_doubles(&[0.0_f64.to_bits().cast_signed()]).unwrap();
        bounds.widen(&Bounds::Doubles(-2.5, -1.0));
        assert_eq!(bounds, Bounds::Doubles(-2.5, 0.0));
        assert_eq!(Bounds::of_doubles(&[]), None);
    }
}
