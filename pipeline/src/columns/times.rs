//! The times of a record: when it happened and when it arrived.
//!
//! Owns: both times of every record, their bounds, and the time in a slot. Does not own: parsing a text as a time (`time`),
//! columns that hold times (`validate`, `enrich`).

use crate::columns::micro_batch::{Buffers, MicroBatch, reject};
use crate::dataset::plan::{Plan, Spot};
use crate::dataset::time_format::TimeFormat;
use crate::dead_letter::code::Code;
use crate::decode::slots::Slot;
use crate::decode::text;
use crate::time::{DAY_US, MS_US, parse_date, parse_rfc3339_us};

/// Arrival and event time of every record.
pub(super) fn times(plan: &Plan, batch: &mut MicroBatch<'_>, buffers: &mut Buffers) {
    let MicroBatch { records, slots, source, chunk, rejections } = batch;
    let Buffers { event_us, arrival_us, .. } = buffers;
    let us = |ms: i64| ms.saturating_mul(MS_US);
    arrival_us.clear();
    arrival_us.extend(records.iter().map(|record| us(record.arrival_ms.unwrap_or(source.arrival_ms))));
    if let Some((input, format)) = plan.arrival_time {
        for slot in &slots.inputs[input] {
            let record = slot.index as usize;
            if records[record].arrival_ms.is_some() && source.read_ms.is_none() {
                continue;
            }
            match time_of(*slot, format, chunk, &slots.scratch) {
                Ok(us) => arrival_us[record] = us,
                Err(code) => reject(&mut rejections[record], code, Spot::Input(input)),
            }
        }
    }
    let time = &plan.event_time;
    event_us.clear();
    event_us.resize(records.len(), i64::MIN);
    for slot in &slots.inputs[time.input] {
        let record = slot.index as usize;
        match time_of(*slot, time.format, chunk, &slots.scratch) {
            Ok(us) => event_us[record] = us,
            Err(code) => reject(&mut rejections[record], code, Spot::Input(time.input)),
        }
    }
    if let Some(read_us) = source.read_ms.map(us) {
        // A file that is older than what happened in it is not when its records arrived.
        for (arrival, event) in arrival_us.iter_mut().zip(event_us.iter()) {
            *arrival = if event > arrival { read_us.max(*arrival) } else { *arrival };
        }
    }
    for (record, us) in event_us.iter().enumerate() {
        // The bounds are milliseconds.
        let (event_ms, arrival_ms) = (us.div_euclid(MS_US), arrival_us[record].div_euclid(MS_US));
        if *us == i64::MIN {
            reject(&mut rejections[record], Code::MissingField, Spot::Input(time.input));
        } else if event_ms < time.not_before_ms || event_ms > arrival_ms.saturating_add(time.ahead_max_ms) {
            reject(&mut rejections[record], Code::EventTimeOutOfBounds, Spot::Input(time.input));
        }
    }
}

/// The time of a slot, in microseconds.
#[inline]
pub(super) fn time_of(slot: Slot, format: TimeFormat, chunk: &[u8], scratch: &[u8]) -> Result<i64, Code> {
    /// The end of year 9999, the last one that RFC 3339 has.
    const END_US: i64 = 253_402_300_800_000_000;
    match format {
        TimeFormat::EpochMs => {
            let ms = slot.value.cast_signed();
            if (-62_135_596_800_000..END_US / MS_US).contains(&ms) { Ok(ms * MS_US) } else { Err(Code::OutOfRange) }
        }
        TimeFormat::EpochS => {
            // A double has whole microseconds until the year 2242.
            let us = (f64::from_bits(slot.value) * 1e6).round();
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "bounded just before")]
            if us.abs() < END_US as f64 { Ok(us as i64) } else { Err(Code::OutOfRange) }
        }
        TimeFormat::Rfc3339 | TimeFormat::Date => {
            let mut bytes = slot.bytes(chunk, scratch);
            let mut unescaped = Vec::new();
            if slot.is_escaped() {
                text::unescape(bytes, &mut unescaped);
                bytes = &unescaped;
            }
            let us = if format == TimeFormat::Rfc3339 {
                parse_rfc3339_us(bytes)
            } else {
                parse_date(bytes).map(|days| days * DAY_US)
            };
            us.ok_or(Code::BadTimestamp)
        }
    }
}
