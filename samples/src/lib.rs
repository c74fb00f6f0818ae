//! Realistic sample records from a seed: what `shardlake produce` sends, and what tests and benches read.
//!
//! A [`Generator`] appends JSON records as bytes, one record a line without the line break. It owns what records look like, good
//! and bad. It does not own where they go (the command), how they are read (the pipeline crate), or how a bad record is
//! reported (each dataset's definition): it only says which records are good.
//!
//! Invariants:
//! - The same [`Options`] give the same bytes on every platform. Nothing reads a clock, the system's randomness or a
//!   float (except that [`Options::bad_ratio`] is turned into an integer, once).
//! - Record `n` depends only on the options and on `n`. [`Generator::seek`] goes anywhere at no cost, so several
//!   generators can share the work. A record that is good with two bad ratios is the same with both.
//! - A good record has every required field of its dataset, is valid under RFC 8259, and has no duplicate key and no raw line
//!   break. A bad record is never good by accident; see [`BadKind`]. No record is blank.
//! - People are the same in all kinds of records and with every seed, and obviously fictional (`personas.rs`).
//!
//! Limits: 1,000,000 users, event times from 2010 to 2098. A record has 0.2 to 4 KB. The mean is 1.4 KB for events, 1.0 KB for
//! assessments and 0.4 KB for users. [`Options::too_large_bytes`] adds larger bad records. A change of any text or draw changes
//! the bytes, and so the hashes that are pinned in the tests: such a change belongs into the release notes.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "all numbers are small: sizes of records, draws below a bound, times of one century"
)]

// The parts of records: draws, JSON, people and texts.
mod random;
mod write;

mod personas;
mod texts;

// A good record of each kind.
mod draft;

mod assessments;
mod events;
mod users;

// Records of other services, as they are published.
pub mod messaging;

// Changes to it: other spellings, and faults.
mod corrupt;
mod reformat;

#[cfg(test)]
mod tests;

use std::fmt;

use pipeline::time::DAY_MS;

use draft::{Draft, Good, Member, RecordContext};
use personas::{PEOPLE_MAX, Person};
use random::Rng;
use reformat::Style;

pub use corrupt::BadKind;

/// 2010-01-01, epoch milliseconds: no good record is older.
const START_MS_MIN: i64 = 1_262_304_000_000;
/// 2099-01-01, epoch milliseconds: every good record is older.
const END_MS_MAX: i64 = 4_070_908_800_000;

/// The dataset of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordKind {
    /// An Amazon Pinpoint event, of any family.
    Events,
    /// A finished assessment.
    Assessments,
    /// A user's profile.
    Users,
}

impl RecordKind {
    /// Every kind.
    pub const ALL: [RecordKind; 3] = [RecordKind::Events, RecordKind::Assessments, RecordKind::Users];

    /// The dataset's name.
    pub fn dataset(self) -> &'static str {
        match self {
            RecordKind::Events => "events",
            RecordKind::Assessments => "assessments",
            RecordKind::Users => "users",
        }
    }
}

/// The weights of the kinds of records. Only their ratio matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds {
    /// Weight of [`RecordKind::Events`].
    pub events: u32,
    /// Weight of [`RecordKind::Assessments`].
    pub assessments: u32,
    /// Weight of [`RecordKind::Users`].
    pub users: u32,
}

impl Kinds {
    /// Six events and three assessments for one user.
    pub const MIXED: Kinds = Kinds { events: 6, assessments: 3, users: 1 };

    /// Records of one kind only.
    pub const fn only(kind: RecordKind) -> Kinds {
        match kind {
            RecordKind::Events => Kinds { events: 1, assessments: 0, users: 0 },
            RecordKind::Assessments => Kinds { events: 0, assessments: 1, users: 0 },
            RecordKind::Users => Kinds { events: 0, assessments: 0, users: 1 },
        }
    }

    /// The sum of the weights, at most `u32::MAX`.
    fn total(self) -> Option<u32> {
        self.events.checked_add(self.assessments)?.checked_add(self.users).filter(|total| *total > 0)
    }
}

/// What to produce. [`Options::default`] is a mix of good records over three days of January 2025.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The seed of everything except the people.
    pub seed: u64,
    /// The kinds of records, and how frequent each is.
    pub kinds: Kinds,
    /// The share of bad records, 0.0 to 1.0. All bad kinds that apply are equally frequent.
    pub bad_ratio: f64,
    /// The first event time, epoch milliseconds.
    pub start_ms: i64,
    /// The days that event times cover, in random order; most are around noon UTC.
    pub days: u32,
    /// The number of users. Their activity follows a power law: of 50,000, one has 0.4 % of the records.
    pub users: u32,
    /// If set, [`BadKind::TooLarge`] is among the bad kinds, and such a record has more bytes than this.
    pub too_large_bytes: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            seed: 0,
            kinds: Kinds::MIXED,
            bad_ratio: 0.0,
            start_ms: 1_736_726_400_000, // 2025-01-13
            days: 3,
            users: 50_000,
            too_large_bytes: None,
        }
    }
}

/// Invalid options.
#[derive(Debug, Clone, PartialEq)]
pub enum OptionsError {
    /// The weights add up to 0 or to more than `u32::MAX`.
    Kinds(Kinds),
    /// The bad ratio is not from 0.0 to 1.0.
    BadRatio(f64),
    /// The event times are not all from 2010 to 2098, or cover no day.
    EventTimes {
        /// The first event time, epoch milliseconds.
        start_ms: i64,
        /// The days that event times cover.
        days: u32,
    },
    /// The number of users is not from 1 to 1,000,000.
    Users(u32),
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionsError::Kinds(Kinds { events, assessments, users }) => write!(
                f,
                "the weights of record kinds must add up to 1 or more and fit into 32 bits, got events {events}, \
                 assessments {assessments}, users {users}"
            ),
            OptionsError::BadRatio(ratio) => write!(f, "the bad ratio must be from 0 to 1, got {ratio}"),
            OptionsError::EventTimes { start_ms, days } => write!(
                f,
                "event times must be from 2010 to 2098 and cover a day or more, got {days} days from epoch \
                 millisecond {start_ms}"
            ),
            OptionsError::Users(users) => write!(f, "the number of users must be from 1 to {PEOPLE_MAX}, got {users}"),
        }
    }
}

impl std::error::Error for OptionsError {}

/// What a record is, so that a test knows the expected result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced {
    /// The dataset of the record; for a bad one, that of the record from which it was made.
    pub kind: RecordKind,
    /// `None` for a good record.
    pub bad: Option<BadKind>,
    /// The event time of a good record, epoch milliseconds; for a bad one, that of the record from which it was made.
    pub event_ms: i64,
}

/// Makes records one after the other.
#[derive(Debug, Clone)]
pub struct Generator {
    options: Options,
    /// The number of the next record.
    next: u64,
    /// The share of bad records, in parts of 2^53.
    bad_parts: u64,
    kinds_total: u32,
    /// The bad kinds that apply, by `RecordKind as usize`.
    bad_kinds: [Vec<BadKind>; 3],
    /// Buffers that every record uses: for its members, a document inside it, its plain form.
    members: Vec<Member>,
    scratch: Vec<u8>,
    plain: Vec<u8>,
}

impl Generator {
    /// A generator at record 0.
    ///
    /// # Errors
    /// [`OptionsError`] if the options are invalid.
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        let kinds_total = options.kinds.total().ok_or(OptionsError::Kinds(options.kinds))?;
        if !(0.0..=1.0).contains(&options.bad_ratio) {
            return Err(OptionsError::BadRatio(options.bad_ratio));
        }
        let end_ms = options.start_ms.saturating_add(i64::from(options.days) * DAY_MS);
        if options.days == 0 || options.start_ms < START_MS_MIN || end_ms > END_MS_MAX {
            return Err(OptionsError::EventTimes { start_ms: options.start_ms, days: options.days });
        }
        if !(1..=PEOPLE_MAX).contains(&options.users) {
            return Err(OptionsError::Users(options.users));
        }
        let bad_kinds = RecordKind::ALL.map(|kind| {
            let is_wanted = |bad: &BadKind| *bad != BadKind::TooLarge || options.too_large_bytes.is_some();
            BadKind::ALL.into_iter().filter(|bad| bad.applies_to(kind)).filter(is_wanted).collect()
        });
        Ok(Generator {
            // Exact: a double has 53 bits, and a product with a power of two is not rounded.
            bad_parts: (options.bad_ratio * (1_u64 << 53) as f64) as u64,
            kinds_total,
            bad_kinds,
            options,
            next: 0,
            members: Vec::with_capacity(24),
            scratch: Vec::with_capacity(2048),
            plain: Vec::with_capacity(4096),
        })
    }

    /// The number of the next record.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Makes `n` the number of the next record.
    pub fn seek(&mut self, n: u64) {
        self.next = n;
    }

    /// Appends the next record to `out`, without a line break, and returns what it is.
    pub fn next_into(&mut self, out: &mut Vec<u8>) -> Produced {
        let mut rng = Rng::of(self.options.seed, self.next);
        self.next = self.next.wrapping_add(1);
        let is_bad = rng.bits() >> 11 < self.bad_parts;
        let kind = self.choose_kind(&mut rng);
        let style = Style::draw(&mut rng, kind);

        if !is_bad && style.is_none() {
            let event_ms = self.write_good(kind, rng, out);
            return Produced { kind, bad: None, event_ms };
        }
        // Changes have a random stream of their own, because the stream of the record ends with the record.
        let mut changes = Rng::of(rng.bits(), 1);
        let rng = if style.is_some_and(Style::escapes) { rng.with_unusual_ratio(4_000) } else { rng };
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        let event_ms = self.write_good(kind, rng, &mut plain);
        let good = Good { text: &plain, members: &self.members };
        let bad = if is_bad {
            let bad = changes.pick(&self.bad_kinds[kind as usize]);
            corrupt::corrupt(&good, kind, bad, self.options.too_large_bytes.unwrap_or(0), &mut changes, out);
            Some(bad)
        } else {
            if let Some(style) = style {
                style.put(&good, &mut changes, out);
            }
            None
        };
        self.plain = plain;
        Produced { kind, bad, event_ms }
    }

    fn choose_kind(&self, rng: &mut Rng) -> RecordKind {
        let Kinds { events, assessments, .. } = self.options.kinds;
        let drawn = rng.below(self.kinds_total);
        if drawn < events {
            RecordKind::Events
        } else if drawn - events < assessments {
            RecordKind::Assessments
        } else {
            RecordKind::Users
        }
    }

    /// Appends a plain good record, and returns its event time.
    fn write_good(&mut self, kind: RecordKind, mut rng: Rng, out: &mut Vec<u8>) -> i64 {
        let Options { start_ms, days, users, .. } = self.options;
        // Every user has a profile, but some are more active than others.
        let number = if kind == RecordKind::Users { rng.below(users) } else { rng.skewed(users) };
        // The mean of two times of day: most events are around noon.
        let day_ms = (rng.below(DAY_MS as u32) + rng.below(DAY_MS as u32)) / 2;
        let at_ms = start_ms + i64::from(rng.below(days)) * DAY_MS + i64::from(day_ms);
        let mut context = RecordContext { rng, person: Person::of(number), at_ms, scratch: &mut self.scratch };
        let mut draft = Draft::new(out, &mut self.members);
        let event_ms = match kind {
            RecordKind::Events => events::write(&mut draft, &mut context),
            RecordKind::Assessments => assessments::write(&mut draft, &mut context),
            RecordKind::Users => users::write(&mut draft, &mut context),
        };
        draft.finish();
        event_ms
    }
}
