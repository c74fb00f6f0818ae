//! Which storage classes the data is in, from the lifecycle rules.
//!
//! Owns: the rules of the architecture as arithmetic, and how large records become in the lake. Does not own: the rules as the bucket
//! has them (the templates), what is really stored (`review`).
//!
//! The rules: `raw/` moves to `STANDARD_IA` after 30 days and to `INTELLIGENT_TIERING` after 90, where objects that nobody reads
//! move on to the archive tiers after 90 and 180 days more. `processed/` moves to `GLACIER` after 365 days. By default S3 moves
//! no object smaller than 128 KB. A month of data counts as one slice of 30 days, and the figures are those at the end of a month.

use std::collections::BTreeMap;

use super::GB;
use super::prices::Item;

/// Bytes in `processed/`, `raw/` and `error/` for each byte of records. Measured on 100,000 mixed sample records: 115 MB became
/// 11.4 MB of Parquet and 32.5 MB of gzip, and 0.5 % dead letters took 334 KB.
pub(super) const PROCESSED_RATIO: f64 = 11.4 / 115.0;
pub(super) const RAW_RATIO: f64 = 32.5 / 115.0;
pub(super) const ERROR_RATIO: f64 = 0.334 / 115.0 / 0.005 * super::requests::DEAD_LETTERS;

/// S3 moves no smaller object.
pub(super) const MOVED_BYTES_MIN: f64 = 131_072.0;
/// Bytes that an archived object takes beside its own: in the archive, and in `STANDARD`.
pub(super) const ARCHIVE_OVERHEAD: f64 = 32_768.0;
pub(super) const ARCHIVE_INDEX: f64 = 8192.0;

/// Slices of 30 days until `raw/` moves to `STANDARD_IA` and to `INTELLIGENT_TIERING`, and `processed/` to `GLACIER`.
const TO_STANDARD_IA: u32 = 1;
const TO_INTELLIGENT: u32 = 3;
const TO_GLACIER: u32 = 12;

/// What arrives in the bucket in one month.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Landed {
    /// Bytes and objects of `raw/`.
    pub raw: (f64, f64),
    /// Bytes and objects of `processed/`.
    pub processed: (f64, f64),
    /// Bytes that no rule moves: dead letters and commit records.
    pub other: f64,
}

/// What is stored in a month.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredMonth {
    /// GB by price.
    pub gb: BTreeMap<Item, f64>,
    /// Objects that the rules move in this month, by the price of a transition.
    pub moved: BTreeMap<Item, f64>,
    /// Objects that Intelligent-Tiering monitors.
    pub monitored: f64,
    /// GB if everything were in `STANDARD`.
    pub all_gb: f64,
    /// Areas whose objects are too small to be moved.
    pub too_small: Vec<&'static str>,
}

/// What is stored at the end of a month, from 1, if the same arrives each month.
pub fn stored_in_month(landed: &Landed, month: u32) -> StoredMonth {
    let mut stored = StoredMonth::default();
    let mut add = |item: Item, bytes: f64| *stored.gb.entry(item).or_default() += bytes / GB;
    let (raw_bytes, raw_objects) = landed.raw;
    let (processed_bytes, processed_objects) = landed.processed;
    let is_moved = |(bytes, objects): (f64, f64)| objects > 0.0 && bytes / objects >= MOVED_BYTES_MIN;
    let (raw_is_moved, processed_is_moved) = (is_moved(landed.raw), is_moved(landed.processed));
    for slice in 0..month {
        add(if raw_is_moved { class_of_raw(slice) } else { Item::S3Standard }, raw_bytes);
        if processed_is_moved && slice >= TO_GLACIER {
            add(Item::S3Glacier, processed_bytes + ARCHIVE_OVERHEAD * processed_objects);
            add(Item::S3Standard, ARCHIVE_INDEX * processed_objects);
        } else {
            add(Item::S3Standard, processed_bytes);
        }
        add(Item::S3Standard, landed.other);
    }
    let mut moves = |item: Item, objects: f64, is_moved: bool, after: u32| {
        if is_moved && month > after {
            stored.moved.insert(item, objects);
        }
    };
    moves(Item::ToStandardIa, raw_objects, raw_is_moved, TO_STANDARD_IA);
    moves(Item::ToIntelligent, raw_objects, raw_is_moved, TO_INTELLIGENT);
    moves(Item::ToGlacier, processed_objects, processed_is_moved, TO_GLACIER);
    if raw_is_moved {
        stored.monitored = raw_objects * f64::from(month.saturating_sub(TO_INTELLIGENT));
    }
    stored.all_gb = f64::from(month) * (raw_bytes + processed_bytes + landed.other) / GB;
    for (area, of_area, moved) in
        [("raw/", landed.raw, raw_is_moved), ("processed/", landed.processed, processed_is_moved)]
    {
        if of_area.1 > 0.0 && !moved {
            stored.too_small.push(area);
        }
    }
    stored
}

/// The class, or the tier of Intelligent-Tiering, of raw objects by their age in slices of 30 days.
fn class_of_raw(slice: u32) -> Item {
    match slice {
        0..TO_STANDARD_IA => Item::S3Standard,
        TO_STANDARD_IA..TO_INTELLIGENT => Item::S3StandardIa,
        _ => match slice - TO_INTELLIGENT {
            0 => Item::S3Frequent,
            1..3 => Item::S3Infrequent,
            3..6 => Item::S3Archive,
            _ => Item::S3DeepArchiveTier,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONTHLY: Landed = Landed { raw: (10.0 * GB, 1000.0), processed: (2.0 * GB, 500.0), other: 0.5 * GB };

    #[test]
    fn raw_data_moves_through_the_classes_and_tiers() {
        let first = stored_in_month(&MONTHLY, 1);
        assert_eq!(first.gb, BTreeMap::from([(Item::S3Standard, 12.5)]));
        assert!(first.moved.is_empty() && first.monitored == 0.0);

        let year = stored_in_month(&MONTHLY, 12);
        let expected = BTreeMap::from([
            // One month of raw, twelve of processed and of the rest.
            (Item::S3Standard, 10.0 + 24.0 + 6.0),
            (Item::S3StandardIa, 20.0),
            (Item::S3Frequent, 10.0),
            (Item::S3Infrequent, 20.0),
            (Item::S3Archive, 30.0),
            (Item::S3DeepArchiveTier, 30.0),
        ]);
        assert_eq!(year.gb, expected);
        assert_eq!(year.moved, BTreeMap::from([(Item::ToStandardIa, 1000.0), (Item::ToIntelligent, 1000.0)]));
        assert_eq!((year.monitored, year.all_gb), (9000.0, 150.0));
    }

    #[test]
    fn processed_data_moves_to_glacier_after_a_year_with_its_overhead() {
        let later = stored_in_month(&MONTHLY, 14);
        let overhead = 500.0 * 32.0 * 1024.0 / GB;
        assert!((later.gb[&Item::S3Glacier] - 2.0 * (2.0 + overhead)).abs() < 1e-9);
        assert_eq!(later.moved[&Item::ToGlacier], 500.0);
    }

    #[test]
    fn small_objects_stay_in_standard() {
        let small = Landed { raw: (10.0 * GB, 1e6), processed: (2.0 * GB, 1e6), other: 0.0 };
        let year = stored_in_month(&small, 24);
        assert_eq!(year.gb, BTreeMap::from([(Item::S3Standard, 288.0)]));
        assert_eq!(year.too_small, ["raw/", "processed/"]);
        assert!(year.moved.is_empty() && year.monitored == 0.0);
    }
}
