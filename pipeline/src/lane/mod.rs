//! One lane of the pipeline: chunks go in; rows by partition, raw lines and dead letters come out.
//!
//! Owns: the rows and lines of one processor core, and the order in which a chunk's records are decoded, become columns and
//! are counted. A worker has as many lanes as it has cores for them. Does not own: the stages (`decode`, `columns`), the
//! records of a chunk and their identities (`hand`), when rows are encoded, which its owner decides ([`Lane::take_rows`]).
//!
//! A lane is pure and single-threaded: no I/O, no clock, no locks. It reports how much memory its rows take.
//!
//! Invariant: every record of every pushed chunk is in exactly one row or exactly one dead letter of what the lane gives
//! out. With raw landing, it is also in exactly one raw line.

mod config;

mod hand;

mod land;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use crate::chunk::{Chunk, Framing, Source};
use crate::columns::micro_batch::{MicroBatch, Record};
use crate::columns::table::Table;
use crate::dead_letter::code::Code;
use crate::dead_letter::syntax::SyntaxError;
use crate::decode::Decoder;
use crate::decode::scan::Rejection;
use crate::decode::slots::Nulled;
use crate::encode::Rows;
use crate::lane::hand::InHand;
use crate::lane::land::Landing;
use crate::line_objects::identities::Line;
use crate::line_objects::{LineMember, Lines};
use crate::time::{DAY_MS, Day, MS_US, day_of};

pub use config::{DeniedNames, LaneConfig, Pushed};

/// A record of the chunk in hand.
#[derive(Debug, Clone, Default)]
struct Seen {
    bytes: Range<usize>,
    /// Number of its frame in the chunk, if the chunk has frames.
    frame: u32,
    /// Its sequence number, if the chunk has no frames.
    sequence: u64,
    sub_sequence: u64,
    /// Whether its bytes may have line ends.
    spans_lines: bool,
    dataset: Option<usize>,
    arrival_ms: i64,
    /// When it arrived according to its source.
    source_ms: i64,
    /// What its raw line is.
    line: Line,
    rejection: Option<Rejection>,
    damage: Option<Code>,
    syntax: Option<SyntaxError>,
}

/// One lane.
#[derive(Debug)]
pub struct Lane {
    config: Arc<LaneConfig>,
    decoder: Decoder,
    tables: Vec<Table>,
    /// For each dataset, the records whose slots wait to become columns.
    waiting: Vec<Vec<Record>>,
    /// The records of the chunk in hand.
    seen: Vec<Seen>,
    raw: Option<Lines>,
    dead_letters: Lines,
    /// Dead letters of the chunk in hand, by code.
    by_code: Vec<u64>,
    rejections: Vec<Option<Rejection>>,
}

impl Lane {
    /// An empty lane.
    pub fn new(config: Arc<LaneConfig>) -> Self {
        let plans = config.datasets.plans();
        Lane {
            decoder: Decoder::new(&config.datasets, config.denied_names),
            tables: plans.iter().map(|plan| Table::new(Arc::clone(plan), config.hash_seed)).collect(),
            waiting: plans.iter().map(|_| Vec::new()).collect(),
            seen: Vec::new(),
            raw: config.raw.map(Lines::new),
            dead_letters: Lines::new(config.dead_letters),
            by_code: vec![0; Code::ALL.len()],
            rejections: Vec::new(),
            config,
        }
    }

    /// Takes a chunk of the source with this number.
    pub fn push(&mut self, source_number: usize, chunk: Chunk) -> Pushed {
        let (source, framing, mut buffer) = chunk.into_parts();
        let mut pushed = Pushed {
            records: 0,
            counts: self.config.graph.counts(),
            dead_letters: Vec::new(),
            nulled_values: BTreeMap::new(),
            denied_keys: vec![0; self.tables.len()],
            denied_names: DeniedNames::default(),
            members: Vec::new(),
            new_partitions: Vec::new(),
            buffer: Vec::new(),
        };
        self.seen.clear();
        self.by_code.fill(0);
        let assigned = self.config.assigned.get(source_number).copied().flatten();
        let bytes = buffer.len();
        let mut hand = InHand { source: &source, source_number, assigned, framing: &framing, bytes, buffer, pushed };
        self.decode(&mut hand);
        self.settle(&mut hand);
        InHand { buffer, pushed, .. } = hand;
        for dataset in 0..self.tables.len() {
            let partitions = &mut self.tables[dataset].partitions;
            for partition in partitions.take_fresh() {
                let mut hasher = DefaultHasher::new();
                (self.config.hash_seed, dataset, partitions.path_of(partition)).hash(&mut hasher);
                pushed.new_partitions.push(hasher.finish());
            }
        }
        let by_code = Code::ALL.into_iter().zip(self.by_code.iter().copied());
        pushed.dead_letters = by_code.filter(|(_, count)| *count > 0).collect();
        buffer.clear();
        pushed.buffer = buffer;
        pushed
    }

    /// Finishes the records that were decoded so far: their columns, their counts and their lines.
    fn settle(&mut self, hand: &mut InHand<'_>) {
        for dataset in 0..self.tables.len() {
            self.columns(dataset, hand.source, &hand.buffer, &mut hand.pushed);
        }
        self.report(hand.source_number, hand.source, hand.framing, &hand.buffer, &mut hand.pushed);
        self.seen.clear();
    }

    /// Turns the waiting slots of a dataset into columns.
    fn columns(&mut self, dataset: usize, source: &Source, buffer: &[u8], pushed: &mut Pushed) {
        let records = &mut self.waiting[dataset];
        if records.is_empty() {
            return;
        }
        let slots = &mut self.decoder.slots[dataset];
        self.rejections.clear();
        self.rejections.resize(records.len(), None);
        let table = &mut self.tables[dataset];
        let mut batch = MicroBatch { records, slots, source, chunk: buffer, rejections: &mut self.rejections };
        table.add(&mut batch, self.config.key.as_ref());
        for ((record, rejection), arrival_us) in records.iter().zip(&self.rejections).zip(table.arrivals()) {
            let seen = &mut self.seen[record.number as usize];
            seen.rejection = *rejection;
            seen.arrival_ms = arrival_us.div_euclid(MS_US);
        }
        let plan = &table.plan;
        for Nulled { spot, record, count } in slots.nulled.drain(..) {
            if self.rejections[record as usize].is_none() {
                let field = plan.pointer_of(spot).unwrap_or_default();
                *pushed.nulled_values.entry((dataset, field)).or_default() += u64::from(count);
            }
        }
        pushed.denied_keys[dataset] += slots.denied_keys;
        for (node, key) in slots.denied_names.iter().flatten() {
            pushed.denied_names.add(dataset, &plan.nodes[*node].pointer, key);
        }
        slots.clear();
        records.clear();
    }

    /// If a record of the chunk shows that its file is older than its content, the others that have the file's time have arrived when
    /// they were read, too. Those that became columns have been corrected already.
    fn correct_arrivals(&mut self, source: &Source) {
        let Some(read_ms) = source.read_ms.filter(|read_ms| *read_ms > source.arrival_ms) else { return };
        let is_failed = |seen: &Seen| seen.damage.is_some() || seen.rejection.is_some();
        if self.seen.iter().any(|seen| seen.arrival_ms == read_ms) {
            let failed = self.seen.iter_mut().filter(|seen| is_failed(seen) && seen.arrival_ms == source.arrival_ms);
            failed.for_each(|seen| seen.arrival_ms = read_ms);
        }
    }

    /// Counts the chunk's records, and writes its dead letters and its raw lines.
    fn report(&mut self, source_number: usize, source: &Source, framing: &Framing, buffer: &[u8], pushed: &mut Pushed) {
        let config = Arc::clone(&self.config);
        let graph = &config.graph;
        self.correct_arrivals(source);
        let landing = Landing { config: &config, source, framing, buffer };
        for seen in &self.seen {
            let code = seen.damage.or(seen.rejection.map(|rejection| rejection.code));
            let bytes = seen.bytes.len() as u64;
            graph.count_record(source_number, seen.dataset, code.map(Code::stage), bytes, &mut pushed.counts);
            pushed.records += 1;
            if let Some(code) = code {
                self.by_code[code as usize] += 1;
                landing.dead_letter(seen, code, &mut self.dead_letters);
            }
        }
        if let (Some(raw), Some([into, ..])) = (&mut self.raw, graph.raw_edges()) {
            landing.raw(&self.seen, raw);
            let bytes = self.seen.iter().map(|seen| seen.bytes.len() as u64).sum();
            pushed.counts.add(into, self.seen.len() as u64, bytes);
            pushed.members.extend(raw.take_members());
        }
        pushed.members.extend(self.dead_letters.take_members());
    }

    /// Bytes of memory that the lane holds for rows. The lines that wait are bounded on their own.
    pub fn memory(&self) -> usize {
        self.tables.iter().map(Table::memory).sum()
    }

    /// Gives up all rows, to be encoded.
    pub fn take_rows(&mut self) -> Vec<Rows> {
        let mut taken = Vec::new();
        for (dataset, table) in self.tables.iter_mut().enumerate() {
            if table.rows > 0 {
                let fresh = table.successor();
                taken.push(Rows::new(dataset, std::mem::replace(table, fresh)));
            }
        }
        taken
    }

    /// Gives up all lines, compressed.
    pub fn take_lines(&mut self) -> Vec<LineMember> {
        let mut members = self.raw.as_mut().map(Lines::flush).unwrap_or_default();
        members.extend(self.dead_letters.flush());
        members
    }

    /// Discards everything that the lane holds, as if the epoch had not begun.
    pub fn forget(&mut self) {
        *self = Lane::new(Arc::clone(&self.config));
    }
}

fn day_of_ms(ms: i64) -> Day {
    day_of(ms.div_euclid(DAY_MS))
}
