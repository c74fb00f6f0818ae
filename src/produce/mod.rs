//! Realistic sample records, from a seed: what `shardlake produce` sends and what tests and benches read.
//!
//! A [`Generator`] appends JSON records as bytes, one record a line without the line break. It owns what records look
//! like, good and bad; it does not own where they go (the command), how they are read (the pipeline crate) or what a
//! reader must answer to a bad one (each dataset's definition): it only says which records are good.
//!
//! Invariants:
//! - The same [`Options`] give the same bytes on every platform. Nothing reads a clock, the system's randomness or a
//!   float (but for turning [`Options::bad_ratio`] into an integer, once).
//! - Record `n` depends on the options and on `n` alone: [`Generator::seek`] goes anywhere at no cost, so several
//!   generators can share the work. With another bad ratio the records that are good in both runs are the same.
//! - A good record has every field that its dataset needs, parses under RFC 8259 without duplicate keys and has no raw
//!   line break in it. A bad record is never good by accident; see [`BadKind`]. Neither is ever blank.
//! - People are the same in all kinds of records and under every seed, and obviously fictional (`personas.rs`).
//!
//! Limits: 1,000,000 users, event times of 2010 to 2098. A record is 0.2 to 4 KB, mean 1.4 (events), 1.0 (assessments)
//! and 0.4 KB (users), unless [`Options::too_large_bytes`] asks for larger bad ones. Changing any text or draw in here
//! changes the bytes and so the hashes pinned in the tests: a release note, not an accident.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "everything here is small by construction: sizes of records, draws below a bound, times of one century"
)]

// What everything is made of: draws and spellings, people and texts.
mod random;
mod write;

mod personas;
mod texts;

// A good record, by kind.
mod draft;

mod assessments;
mod events;
mod users;

// What may then be done to it.
mod corrupt;
mod reformat;

#[cfg(test)]
mod tests;

use std::fmt;

use draft::{Draft, Good, Member, RecordContext};
use personas::{PEOPLE_MAX, Person};
use random::Rng;
use reformat::Style;
use write::DAY_MS;

pub use corrupt::BadKind;

/// 2010-01-01, epoch milliseconds: no good record is older.
const START_MS_MIN: i64 = 1_262_304_000_000;
/// 2099-01-01, epoch milliseconds: no good record is so young.
const END_MS_MAX: i64 = 4_070_908_800_000;

/// The dataset that a record is of.
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

/// How often each kind of record comes: weights, of which only the ratio matters.
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
    /// The seed of everything but the people.
    pub seed: u64,
    /// Which records, how often.
    pub kinds: Kinds,
    /// The share of bad records, 0.0 to 1.0; the kinds that apply are equally frequent among them.
    pub bad_ratio: f64,
    /// Event times begin here, epoch milliseconds.
    pub start_ms: i64,
    /// Event times are of this many days, in random order and with the most around noon UTC.
    pub days: u32,
    /// How many different users there are, by a power law: of 50,000, one has 0.4 % of the records.
    pub users: u32,
    /// When given, [`BadKind::TooLarge`] is among the bad kinds, and such a record has more bytes than this.
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

/// Options that no records can be made from.
#[derive(Debug, Clone, PartialEq)]
pub enum OptionsError {
    /// The weights add up to 0 or to more than `u32::MAX`.
    Kinds(Kinds),
    /// The bad ratio is not from 0.0 to 1.0.
    BadRatio(f64),
    /// The event times are not all of 2010 to 2098, or of no day at all.
    EventTimes {
        /// The first event time, epoch milliseconds.
        start_ms: i64,
        /// The days from there.
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
                "weights of record kinds must add up to 1 or more and fit 32 bits, got events {events}, assessments \
                 {assessments}, users {users}"
            ),
            OptionsError::BadRatio(ratio) => write!(f, "bad ratio must be from 0 to 1, got {ratio}"),
            OptionsError::EventTimes { start_ms, days } => write!(
                f,
                "event times must be of 2010 to 2098 and cover a day or more, got {days} days from epoch millisecond \
                 {start_ms}"
            ),
            OptionsError::Users(users) => write!(f, "users must be from 1 to {PEOPLE_MAX}, got {users}"),
        }
    }
}

impl std::error::Error for OptionsError {}

/// What a record is, so that a test knows what must come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced {
    /// The dataset that the record is of; for a bad one, that of the record it was made from.
    pub kind: RecordKind,
    /// `None` for a good record.
    pub bad: Option<BadKind>,
    /// The event time of a good record, epoch milliseconds; for a bad one, that of the record it was made from.
    pub event_ms: i64,
}

/// Makes records, one after the other.
#[derive(Debug, Clone)]
pub struct Generator {
    options: Options,
    /// The number of the next record.
    next: u64,
    /// Of 2^53 draws, so many make a bad record.
    bad_parts: u64,
    kinds_total: u32,
    /// The bad kinds that apply, by `RecordKind as usize`.
    bad_kinds: [Vec<BadKind>; 3],
    /// Rooms that are used again for every record: its members, a document inside it, its plain form.
    members: Vec<Member>,
    scratch: Vec<u8>,
    plain: Vec<u8>,
}

impl Generator {
    /// A generator at record 0.
    ///
    /// # Errors
    /// [`OptionsError`] when the options make no sense.
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
            let asked = |bad: &BadKind| *bad != BadKind::TooLarge || options.too_large_bytes.is_some();
            BadKind::ALL.into_iter().filter(|bad| bad.applies_to(kind)).filter(asked).collect()
        });
        Ok(Generator {
            // Exact: a double has 53 bits, and a product with a power of two rounds nothing away.
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

    /// The number of the record that comes next.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Goes to any record; the next one is number `n`.
    pub fn seek(&mut self, n: u64) {
        self.next = n;
    }

    /// Appends the next record to `out`, without a line break, and says what it is.
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
        // What the record is changed by has a stream of its own, for the record's own ends with the record.
        let mut changes = Rng::of(rng.bits(), 1);
        let rng = if style.is_some_and(Style::escapes) { rng.with_spice(4_000) } else { rng };
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        let event_ms = self.write_good(kind, rng, &mut plain);
        let good = Good { text: &plain, members: &self.members };
        let bad = if is_bad {
            let bad = changes.pick(&self.bad_kinds[kind as usize]);
            corrupt::spoil(&good, kind, bad, self.options.too_large_bytes.unwrap_or(0), &mut changes, out);
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
        let place = rng.below(self.kinds_total);
        if place < events {
            RecordKind::Events
        } else if place - events < assessments {
            RecordKind::Assessments
        } else {
            RecordKind::Users
        }
    }

    /// Appends a plain good record; the answer is its event time.
    fn write_good(&mut self, kind: RecordKind, mut rng: Rng, out: &mut Vec<u8>) -> i64 {
        let Options { start_ms, days, users, .. } = self.options;
        // Everybody has a profile, but not everybody is equally active.
        let number = if kind == RecordKind::Users { rng.below(users) } else { rng.skewed(users) };
        // The mean of two times of day: most is going on around noon.
        let day_ms = (rng.below(DAY_MS as u32) + rng.below(DAY_MS as u32)) / 2;
        let at_ms = start_ms + i64::from(rng.below(days)) * DAY_MS + i64::from(day_ms);
        let mut scene = RecordContext { rng, person: Person::of(number), at_ms, scratch: &mut self.scratch };
        let mut draft = Draft::new(out, &mut self.members);
        let event_ms = match kind {
            RecordKind::Events => events::write(&mut draft, &mut scene),
            RecordKind::Assessments => assessments::write(&mut draft, &mut scene),
            RecordKind::Users => users::write(&mut draft, &mut scene),
        };
        draft.finish();
        event_ms
    }
}
