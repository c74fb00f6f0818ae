//! The times of a record: when it happened and when it arrived.
//!
//! Owns: both times of every record, their bounds, and the time in a slot. Does not own: parsing a text as a time (`time`),
//! columns that hold times (`validate`, `enrich`).

use crate::columns::micro_batch::{Buffers, MicroBatch, Record, reject_because};
use crate::dataset::plan::{Plan, Spot};
use crate::dataset::time_format::{TimeForm, TimeFormat};
use crate::dead_letter::code::{Code, Reason};
use crate::decode::slots::{Slot, Slots};
use crate::decode::text;
use crate::time::written::{self, WrittenTime};
use crate::time::{self, DAY_US, MS_US, is_in_bounds};

/// Why a value is not a time that a column can hold.
pub(super) type InvalidTime = (Code, Option<Reason>);

/// A time outside of the years that readers have.
const OUT_OF_CALENDAR: InvalidTime = (Code::OutOfRange, Some(Reason::TimeOutOfCalendar));

/// Arrival and event time of every record.
pub(super) fn times(plan: &Plan, batch: &mut MicroBatch<'_>, buffers: &mut Buffers) {
    let MicroBatch { records, slots, source, chunk, rejections } = batch;
    let Buffers { event_us, arrival_us, .. } = buffers;
    let us = |ms: i64| ms.saturating_mul(MS_US);
    arrival_us.clear();
    arrival_us.extend(records.iter().map(|record| us(record.arrival_ms.unwrap_or(source.arrival_ms))));
    // A stream knows when its records arrived. A file's time is a guess: a record that has an arrival time knows better.
    let is_known = |record: &Record| record.arrival_ms.is_some() && source.read_ms.is_none();
    if let Some((input, format)) = &plan.arrival_time {
        for slot in &slots.inputs[*input] {
            let record = slot.index as usize;
            if is_known(&records[record]) {
                continue;
            }
            match time_of(*slot, format, chunk, &slots.scratch) {
                Ok(us) => arrival_us[record] = us,
                Err((code, reason)) => reject_because(&mut rejections[record], code, Spot::Input(*input), reason),
            }
        }
    }
    let time = &plan.event_time;
    event_us.clear();
    event_us.resize(records.len(), i64::MIN);
    for slot in &slots.inputs[time.input] {
        let record = slot.index as usize;
        match time_of(*slot, &time.format, chunk, &slots.scratch) {
            Ok(us) => event_us[record] = us,
            Err((code, reason)) => reject_because(&mut rejections[record], code, Spot::Input(time.input), reason),
        }
    }
    if let Some(read_us) = source.read_ms.map(us) {
        // A file that is older than what happened in it is not when its records arrived. An arrival time in a record stays.
        for ((arrival, event), record) in arrival_us.iter_mut().zip(event_us.iter()).zip(records.iter()) {
            let is_of_file = *arrival == us(record.arrival_ms.unwrap_or(source.arrival_ms));
            *arrival = if event > arrival && is_of_file { read_us.max(*arrival) } else { *arrival };
        }
    }
    for (record, us) in event_us.iter().enumerate() {
        // The bounds are milliseconds.
        let (event_ms, arrival_ms) = (us.div_euclid(MS_US), arrival_us[record].div_euclid(MS_US));
        let last_ms = arrival_ms.saturating_add(time.ahead_max_ms).min(time.not_after_ms);
        if *us == i64::MIN {
            reject_because(&mut rejections[record], Code::MissingField, Spot::Input(time.input), None);
        } else if event_ms < time.not_before_ms || event_ms > last_ms {
            let number = (!is_known(&records[record])).then_some(record);
            let (spot, reason) = out_of_bounds(plan, slots, number, (event_ms, arrival_ms));
            reject_because(&mut rejections[record], Code::EventTimeOutOfBounds, spot, Some(reason));
        }
    }
}

/// Which field of a record is at fault if its event time is out of bounds, and why. `number`: of the record in its batch, if its
/// arrival time may be in a field.
#[cold]
fn out_of_bounds(
    plan: &Plan,
    slots: &Slots,
    number: Option<usize>,
    (event_ms, arrival_ms): (i64, i64),
) -> (Spot, Reason) {
    let time = &plan.event_time;
    let has_arrival = |input: &usize| slots.inputs[*input].iter().any(|slot| Some(slot.index as usize) == number);
    let arrival = plan.arrival_time.as_ref().map(|(input, _)| *input);
    let arrival = arrival.filter(has_arrival);
    match arrival {
        _ if event_ms < time.not_before_ms => (Spot::Input(time.input), Reason::EventTooEarly),
        _ if event_ms > time.not_after_ms => (Spot::Input(time.input), Reason::EventTooLate),
        Some(input) if arrival_ms < time.not_before_ms => (Spot::Input(input), Reason::ArrivalTooEarly),
        Some(_) => (Spot::Input(time.input), Reason::EventTooFarAheadOfField),
        None => (Spot::Input(time.input), Reason::EventTooFarAhead),
    }
}

/// The time of a slot, in microseconds.
#[inline]
pub(super) fn time_of(slot: Slot, format: &TimeFormat, chunk: &[u8], scratch: &[u8]) -> Result<i64, InvalidTime> {
    // A factor of more than 1000 would not be needed to leave the calendar.
    let scaled = |value: i64, factor: i64| value.checked_mul(factor).filter(|us| is_in_bounds(*us));
    match format.form {
        TimeForm::EpochMs => scaled(slot.value.cast_signed(), MS_US).ok_or(OUT_OF_CALENDAR),
        TimeForm::EpochUs => scaled(slot.value.cast_signed(), 1).ok_or(OUT_OF_CALENDAR),
        TimeForm::EpochNs => Ok(slot.value.cast_signed().div_euclid(1_000)),
        TimeForm::EpochS => {
            // A double has whole microseconds until the year 2242.
            let us = (f64::from_bits(slot.value) * 1e6).round();
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "bounded just before")]
            if us >= time::FIRST_US as f64 && us < time::END_US as f64 { Ok(us as i64) } else { Err(OUT_OF_CALENDAR) }
        }
        TimeForm::Rfc3339 | TimeForm::Date | TimeForm::Pattern(_) => {
            let us = written(slot, format, chunk, scratch)?.us;
            if is_in_bounds(us) { Ok(us) } else { Err(OUT_OF_CALENDAR) }
        }
    }
}

/// The day of a slot, in days since 1970-01-01: of the time in UTC, or as it is written.
pub(super) fn day_of(slot: Slot, format: &TimeFormat, chunk: &[u8], scratch: &[u8]) -> Result<i64, InvalidTime> {
    let us = if format.day_as_written {
        let us = written(slot, format, chunk, scratch)?.local_us();
        if is_in_bounds(us) { us } else { return Err(OUT_OF_CALENDAR) }
    } else {
        time_of(slot, format, chunk, scratch)?
    };
    Ok(us.div_euclid(DAY_US))
}

/// The time of a slot that is a text. It may be out of bounds.
#[inline]
fn written(slot: Slot, format: &TimeFormat, chunk: &[u8], scratch: &[u8]) -> Result<WrittenTime, InvalidTime> {
    let mut bytes = slot.bytes(chunk, scratch);
    let mut unescaped = Vec::new();
    if slot.is_escaped() {
        text::unescape(bytes, &mut unescaped);
        bytes = &unescaped;
    }
    let zone = format.zone;
    let time = match &format.form {
        TimeForm::Date => time::date(bytes).map(|days| WrittenTime::new(days * DAY_US, zone.unwrap_or(0))),
        TimeForm::Pattern(pattern) => pattern.read(bytes, zone.unwrap_or(0)),
        _ => time::rfc3339(bytes).or_else(|| written::parse(bytes, zone)),
    };
    time.ok_or((Code::BadTimestamp, None))
}
