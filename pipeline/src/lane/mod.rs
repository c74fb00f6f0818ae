//! One lane of the pipeline: chunks go in; rows by partition, raw lines and dead letters come out.
//!
//! Owns: the rows and lines of one processor core, and the order in which a chunk's records are decoded, become columns and
//! are counted. A worker has as many lanes as it has cores for them. Does not own: the stages (`decode`, `columns`), when
//! rows are encoded, which its owner decides ([`Lane::take_rows`]).
//!
//! A lane is pure and single-threaded: no I/O, no clock, no locks. It reports how much memory its rows take.
//!
//! Invariant: every record of every pushed chunk is in exactly one row or exactly one dead letter of what the lane gives
//! out. With raw landing, it is also in exactly one raw line.

mod config;

mod land;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use crate::chunk::{Chunk, Damage, Framing, Source};
use crate::columns::micro_batch::{BATCH_RECORDS, MicroBatch, Record, Sequence};
use crate::columns::table::Table;
use crate::dead_letter::code::Code;
use crate::decode::Decoder;
use crate::decode::framing::lines;
use crate::decode::scan::Rejection;
use crate::encode::Rows;
use crate::lane::land::Landing;
use crate::line_objects::{LineMember, Lines};
use crate::time::{DAY_MS, Day, MS_US, day_of};

pub use config::{LaneConfig, Pushed};

/// A record of the chunk in hand.
#[derive(Debug, Clone)]
struct Seen {
    bytes: Range<usize>,
    dataset: Option<usize>,
    arrival_ms: i64,
    rejection: Option<Rejection>,
    damage: Option<Code>,
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
    rejections: Vec<Option<Rejection>>,
}

impl Lane {
    /// An empty lane.
    pub fn new(config: Arc<LaneConfig>) -> Self {
        let plans = config.datasets.plans();
        Lane {
            decoder: Decoder::new(&config.datasets),
            tables: plans.iter().map(|plan| Table::new(Arc::clone(plan), config.hash_seed)).collect(),
            waiting: plans.iter().map(|_| Vec::new()).collect(),
            seen: Vec::new(),
            raw: config.raw.map(Lines::new),
            dead_letters: Lines::new(config.dead_letters),
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
            denied_keys: vec![0; self.tables.len()],
            members: Vec::new(),
            new_partitions: Vec::new(),
            buffer: Vec::new(),
        };
        self.seen.clear();
        let assigned = self.config.assigned.get(source_number).copied().flatten();
        match &framing {
            Framing::Lines { base } => {
                let length = buffer.len() - crate::decode::text::PADDING;
                let places: Vec<Range<usize>> = lines(&buffer[..length]).collect();
                for bytes in places {
                    let sequence = Sequence::Number(base + bytes.start as u64);
                    let record = Record { number: 0, sequence, sub_sequence: 0, arrival_ms: None };
                    self.record(record, bytes, None, assigned, &source, &mut buffer, &mut pushed);
                }
            }
            Framing::Records(frames) => {
                for frame in frames {
                    let bytes = frame.bytes.start as usize..frame.bytes.end as usize;
                    let record = Record {
                        number: 0,
                        sequence: Sequence::Text(frame.sequence.clone()),
                        sub_sequence: frame.sub_sequence,
                        arrival_ms: frame.arrival_ms,
                    };
                    let damage = frame.damage.map(|damage| match damage {
                        Damage::TooLarge => Code::TooLarge,
                        Damage::DamagedFile => Code::DamagedFile,
                        Damage::BrokenAggregate => Code::BrokenAggregate,
                    });
                    self.record(record, bytes, damage, assigned, &source, &mut buffer, &mut pushed);
                }
            }
        }
        for dataset in 0..self.tables.len() {
            self.columns(dataset, &source, &buffer, &mut pushed);
            let partitions = &mut self.tables[dataset].partitions;
            for partition in partitions.take_fresh() {
                let mut hasher = DefaultHasher::new();
                (self.config.hash_seed, dataset, partitions.path_of(partition)).hash(&mut hasher);
                pushed.new_partitions.push(hasher.finish());
            }
        }
        self.report(source_number, &source, &framing, &buffer, &mut pushed);
        buffer.clear();
        pushed.buffer = buffer;
        pushed
    }

    /// Decodes one record; its slots wait until there are enough of them for a micro-batch.
    fn record(
        &mut self,
        mut record: Record,
        bytes: Range<usize>,
        damage: Option<Code>,
        assigned: Option<usize>,
        source: &Source,
        buffer: &mut Vec<u8>,
        pushed: &mut Pushed,
    ) {
        let too_large = (bytes.len() > self.config.record_bytes_max).then_some(Code::TooLarge);
        let arrival_ms = record.arrival_ms.unwrap_or(source.arrival_ms);
        let mut seen = Seen { bytes, dataset: assigned, arrival_ms, rejection: None, damage: damage.or(too_large) };
        if seen.damage.is_none() {
            let decoded = self.decoder.record(&self.config.datasets, assigned, buffer, seen.bytes.clone());
            seen.dataset = decoded.dataset;
            seen.rejection = decoded.rejection;
        }
        record.number = u32::try_from(self.seen.len()).expect("a chunk is under 2 GiB, and so are its records");
        let good = seen.rejection.is_none() && seen.damage.is_none();
        let dataset = seen.dataset;
        self.seen.push(seen);
        if let (true, Some(dataset)) = (good, dataset) {
            self.waiting[dataset].push(record);
            if self.waiting[dataset].len() >= BATCH_RECORDS {
                self.columns(dataset, source, buffer, pushed);
            }
        }
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
        pushed.denied_keys[dataset] += slots.denied_keys;
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
        let mut by_code: Vec<u64> = vec![0; Code::ALL.len()];
        for (number, seen) in self.seen.iter().enumerate() {
            let code = seen.damage.or(seen.rejection.map(|rejection| rejection.code));
            let bytes = seen.bytes.len() as u64;
            graph.count_record(source_number, seen.dataset, code.map(Code::stage), bytes, &mut pushed.counts);
            pushed.records += 1;
            if let Some(code) = code {
                by_code[code as usize] += 1;
                landing.dead_letter(seen, number, code, &mut self.dead_letters);
            }
        }
        pushed.dead_letters = Code::ALL.into_iter().zip(by_code).filter(|(_, count)| *count > 0).collect();
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
