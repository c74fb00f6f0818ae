//! One record is scanned along its dataset's decode tree into slots, in one pass.
//!
//! Owns: the state of a scan, its beginning and end, the code of a malformed record, and the second scan of a record whose
//! embedded document must be unescaped first. Does not own: constraints and columns (`columns`), framing and the choice of
//! the dataset (`decode`).
//!
//! The path of a record: `object` (keys) → `value` (scalars) → `nested` (arrays, objects and embedded documents, so `object`
//! again). All of them use the steps of `inner`, which knows how a document is written inside a string.
//!
//! Why it is fast:
//!
//! - Producers write keys in the same order again and again. So the bytes at the cursor are compared with the key that
//!   followed last time (`"key":`, one or two 16-byte compares), and looked up only on a miss. The order is a guess, never a
//!   condition.
//! - Nothing is copied: slots hold positions in the chunk.
//!
//! A syntax error ends the scan. After another error (wrong type, duplicate key) the scan continues, because only the whole
//! record shows which dataset it belongs to. The first error counts.

mod object;

mod value;

mod nested;

mod inner;

use crate::dataset::plan::{InputId, Plan, Spot};
use crate::dead_letter::code::{Code, Reason};
use crate::decode::skip::{self, white_space};
use crate::decode::slots::{Buffer, Slots};
use crate::decode::text::TextError;

/// Why a record is rejected, and because of which part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) code: Code,
    pub(crate) spot: Spot,
    /// What exactly is wrong, where the code has several reasons.
    pub(crate) reason: Option<Reason>,
}

impl Rejection {
    /// A rejection for which the code says everything.
    pub(crate) fn new(code: Code, spot: Spot) -> Self {
        Rejection { code, spot, reason: None }
    }
}

/// How a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Marks that were found, for recognizing the dataset.
    pub(crate) marks: u64,
    /// The first error.
    pub(crate) rejection: Option<Rejection>,
    /// Where a syntax error ended the scan, so that the rest of the record is unknown.
    pub(crate) broken: Option<usize>,
}

/// Scans records along one plan.
#[derive(Debug)]
pub(crate) struct Scanner {
    /// For each node, the field that is expected first, and the one that is expected after each field.
    expected: Vec<Vec<u16>>,
}

impl Scanner {
    pub(crate) fn new(plan: &Plan) -> Self {
        let in_order = |fields: usize| (0..=fields).map(next_in_order).collect();
        Scanner { expected: plan.nodes.iter().map(|node| in_order(node.fields.len())).collect() }
    }

    /// Scans the record at `begin..end` of `buffer`, whose byte at `end` is 0. Its slots belong to the current record.
    pub(crate) fn scan(&mut self, plan: &Plan, slots: &mut Slots, buffer: &[u8], begin: usize, end: usize) -> Scanned {
        slots.begin();
        let scanned = self.scan_as::<true>(plan, slots, buffer, begin, end);
        match scanned {
            Ok(scanned) => scanned,
            Err(Unescape) => {
                // An embedded document has escapes of its own: scan once more, and unescape it first.
                slots.undo();
                self.scan_as::<false>(plan, slots, buffer, begin, end).unwrap_or(Scanned {
                    marks: 0,
                    rejection: Some(Rejection::new(Code::NotJson, Spot::Record)),
                    broken: Some(begin),
                })
            }
        }
    }

    fn scan_as<const IN_PLACE: bool>(
        &mut self,
        plan: &Plan,
        slots: &mut Slots,
        buffer: &[u8],
        begin: usize,
        end: usize,
    ) -> Result<Scanned, Unescape> {
        let mut walk = Walk {
            plan,
            expected: &mut self.expected,
            slots,
            text_buffer: Buffer::Chunk,
            marks: 0,
            high: 0,
            rejection: None,
            in_place: IN_PLACE,
        };
        let walked = walk.record(buffer, begin, end);
        let not_utf8 = || std::str::from_utf8(&buffer[begin..end]).err().map(|error| begin + error.valid_up_to());
        let (code, at) = match walked {
            Ok(()) if walk.high == 0 => return Ok(walk.ended(None)),
            Ok(()) => match not_utf8() {
                None => return Ok(walk.ended(None)),
                Some(at) => (Code::NotUtf8, at),
            },
            Err(Stop::Unescape) => return Err(Unescape),
            Err(Stop::Broken(code, at)) => match not_utf8() {
                Some(at) => (Code::NotUtf8, at),
                None if code == Code::NotJson && at >= end && begin < end => (Code::Truncated, end),
                None => (code, at),
            },
        };
        walk.rejection = Some(Rejection::new(code, Spot::Record));
        Ok(walk.ended(Some(at)))
    }
}

/// The field that is expected next until records show another order: the next one of the definition.
fn next_in_order(field: usize) -> u16 {
    u16::try_from(field).unwrap_or(u16::MAX)
}

/// An embedded document must be unescaped before it can be scanned.
struct Unescape;

/// Why a scan ends early.
enum Stop {
    Broken(Code, usize),
    Unescape,
}

impl From<TextError> for Stop {
    #[inline]
    fn from((code, at): TextError) -> Self {
        Stop::Broken(code, at)
    }
}

struct Walk<'w> {
    plan: &'w Plan,
    expected: &'w mut Vec<Vec<u16>>,
    slots: &'w mut Slots,
    text_buffer: Buffer,
    marks: u64,
    high: u32,
    rejection: Option<Rejection>,
    /// Whether embedded documents are scanned in place, in their escaped form.
    in_place: bool,
}

impl<'w> Walk<'w> {
    fn ended(&self, broken: Option<usize>) -> Scanned {
        Scanned { marks: self.marks, rejection: self.rejection, broken }
    }

    fn record(&mut self, buffer: &[u8], begin: usize, end: usize) -> Result<(), Stop> {
        let at = white_space(buffer, begin);
        let first = buffer.get(at).copied().unwrap_or(0);
        let after = if first == b'{' {
            self.object::<false>(buffer, at, 0, self.slots.records, 1)?
        } else {
            let after = skip::value(buffer, at, 0, &mut self.high)?;
            self.note(Code::NotAnObject, Spot::Record);
            after
        };
        let after = white_space(buffer, after);
        if after == end {
            return Ok(());
        }
        let code = match (first, buffer.get(after)) {
            (b'{' | b'[', Some(b'{' | b'[')) => Code::MultipleDocuments,
            (b'{' | b'[', _) => Code::TrailingBytes,
            // A line of a log or of CSV may begin with a number.
            _ => Code::NotJson,
        };
        Err(Stop::Broken(code, after))
    }

    #[cold]
    fn note(&mut self, code: Code, spot: Spot) {
        self.rejection.get_or_insert(Rejection::new(code, spot));
    }

    /// Notes a value that does not fit its input: it rejects the record, or is null if the definition says so.
    #[cold]
    fn note_value(&mut self, code: Code, input: InputId) {
        self.note_or_null(code, Spot::Input(input), self.plan.inputs[input].reading.is_lenient);
    }

    #[cold]
    fn note_or_null(&mut self, code: Code, spot: Spot, is_lenient: bool) {
        if is_lenient {
            self.slots.note_null(spot, self.slots.records);
        } else {
            self.note(code, spot);
        }
    }
}
