//! One record, scanned once along its dataset's decode tree into slots.
//!
//! Owns: the walk's state and its two ends, which fault a broken record has, and the second scan of a record whose embedded
//! document must be unescaped first. Does not own: constraints and columns (`columns`), framing and the choice of dataset
//! (`decode`).
//!
//! The way of a record: `object` (keys) → `value` (scalars) → `nested` (what holds further values, and so objects again).
//! All of them take their steps from `inner`, which knows how a document looks inside a string.
//!
//! How it is fast: producers write keys in the same order again and again, so the bytes at the cursor are compared with
//! the key that followed last time (`"key":`, one or two 16-byte compares) and looked up only on a miss. The order is a
//! guess, never a condition. Nothing is copied: slots hold places in the chunk.
//!
//! A fault of syntax ends the scan; a fault of meaning (wrong type, duplicate key) is noted, the first one counts, and the
//! scan goes on, because only the whole record tells which dataset it is of.

mod object;

mod value;

mod nested;

mod inner;

use crate::dataset::plan::{Plan, Spot};
use crate::dead_letter::code::Code;
use crate::decode::skip::{self, white_space};
use crate::decode::slots::{Place, Slots};
use crate::decode::text::TextFault;

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: Code,
    pub(crate) spot: Spot,
}

/// How a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Marks that were seen, for recognizing the dataset.
    pub(crate) marks: u64,
    /// The first fault.
    pub(crate) fault: Option<Fault>,
    /// Whether the fault is one of syntax, so that the rest of the record was not seen.
    pub(crate) broken: bool,
}

/// Scans records along one plan.
#[derive(Debug)]
pub(crate) struct Scanner {
    /// For each node, the field that is expected first, and after each field.
    expected: Vec<Vec<u16>>,
}

impl Scanner {
    pub(crate) fn new(plan: &Plan) -> Self {
        let in_order = |fields: usize| (0..=fields).map(next_in_order).collect();
        Scanner { expected: plan.nodes.iter().map(|node| in_order(node.fields.len())).collect() }
    }

    /// Scans the record at `begin..end` of `buffer`, whose byte at `end` is 0. Its slots belong to the present record.
    pub(crate) fn scan(&mut self, plan: &Plan, slots: &mut Slots, buffer: &[u8], begin: usize, end: usize) -> Scanned {
        slots.begin();
        let scanned = self.scan_as::<true>(plan, slots, buffer, begin, end);
        match scanned {
            Ok(scanned) => scanned,
            Err(Unescape) => {
                // An embedded document has escapes of its own: once more, unescaping it first.
                slots.take_back();
                self.scan_as::<false>(plan, slots, buffer, begin, end).unwrap_or(Scanned {
                    marks: 0,
                    fault: Some(Fault { code: Code::NotJson, spot: Spot::Record }),
                    broken: true,
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
            place: Place::Chunk,
            marks: 0,
            high: 0,
            fault: None,
            in_place: IN_PLACE,
        };
        let walked = walk.record(buffer, begin, end);
        let broken = match walked {
            Ok(()) => walk.high != 0 && std::str::from_utf8(&buffer[begin..end]).is_err(),
            Err(Stop::Unescape) => return Err(Unescape),
            Err(Stop::Broken(..)) => true,
        };
        if broken {
            let code = match walked {
                _ if std::str::from_utf8(&buffer[begin..end]).is_err() => Code::NotUtf8,
                Err(Stop::Broken(Code::NotJson, at)) if at >= end && begin < end => Code::Truncated,
                Err(Stop::Broken(code, _)) => code,
                _ => Code::NotJson,
            };
            walk.fault = Some(Fault { code, spot: Spot::Record });
        }
        Ok(Scanned { marks: walk.marks, fault: walk.fault, broken })
    }
}

/// What an object's fields are expected to be in, until records show another order: the definition's.
fn next_in_order(field: usize) -> u16 {
    u16::try_from(field).unwrap_or(u16::MAX)
}

/// An embedded document must be unescaped before it can be scanned.
struct Unescape;

/// Why a walk ends early.
enum Stop {
    Broken(Code, usize),
    Unescape,
}

impl From<TextFault> for Stop {
    #[inline]
    fn from((code, at): TextFault) -> Self {
        Stop::Broken(code, at)
    }
}

struct Walk<'w> {
    plan: &'w Plan,
    expected: &'w mut Vec<Vec<u16>>,
    slots: &'w mut Slots,
    place: Place,
    marks: u64,
    high: u32,
    fault: Option<Fault>,
    /// Whether embedded documents are scanned where they are, in their escaped form.
    in_place: bool,
}

impl<'w> Walk<'w> {
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
            // A line of a log or of CSV may begin like a number.
            _ => Code::NotJson,
        };
        Err(Stop::Broken(code, after))
    }

    #[cold]
    fn note(&mut self, code: Code, spot: Spot) {
        self.fault.get_or_insert(Fault { code, spot });
    }
}
