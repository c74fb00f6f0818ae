//! One lane of the pipeline: chunks go in; rows by partition, raw lines and dead letters come out.
//!
//! A worker has as many lanes as it has processor cores for them. A lane is pure and single-threaded: no I/O, no clock,
//! no locks. It owns the rows that it holds and tells how much memory they take; when they are encoded is its owner's
//! decision ([`Lane::take_rows`]).
//!
//! Invariant: every record of every chunk that was pushed is either in exactly one row or in exactly one dead letter of
//! what the lane gives out, and, with raw landing, in exactly one raw line.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use crate::anonymize::PseudonymKey;
use crate::chunk::{Chunk, Damage, Frame, Framing, Source};
use crate::columns::table::{BATCH_RECORDS, Record, Sequence, Table};
use crate::dataset::Datasets;
use crate::dead_letter::DeadLetter;
use crate::dead_letter::code::Code;
use crate::decode::scan::{Fault, Spot};
use crate::decode::{Decoder, lines};
use crate::encode::Rows;
use crate::graph::{Counts, Graph};
use crate::layout::Folder;
use crate::line_objects::{LineCodec, LineMember, Lines};
use crate::time::{DAY_MS, Day, day_of};

/// What a lane needs to know, shared by all lanes of a worker.
#[derive(Debug)]
pub struct LaneConfig {
    /// The datasets.
    pub datasets: Datasets,
    /// The graph whose edges are counted.
    pub graph: Graph,
    /// The secret key of pseudonyms.
    pub key: Option<PseudonymKey>,
    /// For each source of the graph, the dataset that all its records are of, if its configuration says so.
    pub assigned: Vec<Option<usize>>,
    /// Raw landing, and how it is compressed.
    pub raw: Option<LineCodec>,
    /// How dead letters are compressed.
    pub letters: LineCodec,
    /// Bytes that a record may have.
    pub record_bytes_max: usize,
    /// Seed of the dictionaries' hashes; never shows in the output.
    pub hash_seed: u64,
}

/// What became of a pushed chunk.
#[derive(Debug)]
pub struct Pushed {
    /// Records in it.
    pub records: u64,
    /// What passed along the graph's edges.
    pub counts: Counts,
    /// Dead letters, by code.
    pub dead_letters: Vec<(Code, u64)>,
    /// Keys of free-form objects that were not on an allow-list, by dataset.
    pub denied_keys: Vec<u64>,
    /// Line members that are complete.
    pub members: Vec<LineMember>,
    /// Hashes of the partitions, over all datasets, that the lane's rows had none of before: as many objects more, unless other
    /// lanes have them too.
    pub new_partitions: Vec<u64>,
    /// The chunk's buffer, empty, to be filled again.
    pub buffer: Vec<u8>,
}

/// A record of the chunk in hand.
#[derive(Debug, Clone)]
struct Seen {
    bytes: Range<usize>,
    dataset: Option<usize>,
    arrival_ms: i64,
    fault: Option<Fault>,
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
    seen: Vec<Seen>,
    raw: Option<Lines>,
    letters: Lines,
    faults: Vec<Option<Fault>>,
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
            letters: Lines::new(config.letters),
            faults: Vec::new(),
            config,
        }
    }

    /// Takes a chunk of the source number `source`.
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
        self.tell(source_number, &source, &framing, &buffer, &mut pushed);
        buffer.clear();
        pushed.buffer = buffer;
        pushed
    }

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
        let mut seen = Seen { bytes, dataset: assigned, arrival_ms, fault: None, damage: damage.or(too_large) };
        if seen.damage.is_none() {
            let decoded = self.decoder.record(&self.config.datasets, assigned, buffer, seen.bytes.clone());
            seen.dataset = decoded.dataset;
            seen.fault = decoded.fault;
        }
        record.number = u32::try_from(self.seen.len()).expect("a chunk is under 2 GiB, and so are its records");
        let good = seen.fault.is_none() && seen.damage.is_none();
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
        self.faults.clear();
        self.faults.resize(records.len(), None);
        let table = &mut self.tables[dataset];
        table.add(slots, records, source, buffer, self.config.key.as_ref(), &mut self.faults);
        for ((record, fault), arrival_ms) in records.iter().zip(&self.faults).zip(table.arrivals()) {
            let seen = &mut self.seen[record.number as usize];
            seen.fault = *fault;
            seen.arrival_ms = *arrival_ms;
        }
        pushed.denied_keys[dataset] += slots.denied_keys;
        slots.clear();
        records.clear();
    }

    /// Counts the chunk's records, writes its dead letters and its raw lines.
    fn tell(&mut self, source_number: usize, source: &Source, framing: &Framing, buffer: &[u8], pushed: &mut Pushed) {
        let config = Arc::clone(&self.config);
        let graph = &config.graph;
        let mut by_code: Vec<u64> = vec![0; Code::ALL.len()];
        for (number, seen) in self.seen.iter().enumerate() {
            let bytes = seen.bytes.len() as u64;
            pushed.records += 1;
            pushed.counts.add(graph.source_edge(source_number), 1, bytes);
            let code = seen.damage.or(seen.fault.map(|fault| fault.code));
            count_record(graph, seen.dataset, code, bytes, &mut pushed.counts);
            if let Some(code) = code {
                let place = Code::ALL.iter().position(|known| *known == code).unwrap_or(0);
                by_code[place] += 1;
                letter(&config, &mut self.letters, seen, code, source, framing, number, buffer);
            }
        }
        pushed.dead_letters = Code::ALL.into_iter().zip(by_code).filter(|(_, count)| *count > 0).collect();
        if let (Some(raw), Some([into, ..])) = (&mut self.raw, graph.raw_edges()) {
            let whole_lines = matches!(framing, Framing::Lines { .. });
            land_raw(&config, raw, &self.seen, buffer, whole_lines);
            let bytes = self.seen.iter().map(|seen| seen.bytes.len() as u64).sum();
            pushed.counts.add(into, self.seen.len() as u64, bytes);
            pushed.members.extend(raw.take_members());
        }
        pushed.members.extend(self.letters.take_members());
    }

    /// Bytes of memory that the lane holds for rows. Lines that wait are bounded by themselves.
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
        members.extend(self.letters.flush());
        members
    }

    /// Forgets everything that the lane holds: the epoch never happened.
    pub fn forget(&mut self) {
        *self = Lane::new(Arc::clone(&self.config));
    }
}

/// Counts one record along its way.
fn count_record(graph: &Graph, dataset: Option<usize>, code: Option<Code>, bytes: u64, counts: &mut Counts) {
    use crate::dead_letter::code::Stage;
    let refused_at = code.map(Code::stage);
    if let Some(stage) = refused_at {
        counts.add(graph.refused_edge(dataset, stage), 1, bytes);
        let [to_commit, _] = graph.letter_edges();
        counts.add(to_commit, 1, 0);
    }
    let Some(dataset) = dataset else { return };
    let edges = &graph.datasets[dataset];
    if refused_at == Some(Stage::Decode) {
        return;
    }
    counts.add(edges.decoded, 1, bytes);
    if refused_at == Some(Stage::Validate) {
        return;
    }
    counts.add(edges.validated, 1, bytes);
    if refused_at == Some(Stage::Enrich) {
        return;
    }
    counts.add(edges.enriched, 1, bytes);
    counts.add(edges.anonymized, 1, bytes);
    if refused_at.is_none() {
        counts.add(edges.batched, 1, bytes);
    }
}

fn letter(
    config: &LaneConfig,
    letters: &mut Lines,
    seen: &Seen,
    code: Code,
    source: &Source,
    framing: &Framing,
    number: usize,
    buffer: &[u8],
) {
    let numbered;
    let frame: Option<&Frame> = match framing {
        Framing::Records(frames) => frames.get(number),
        Framing::Lines { .. } => None,
    };
    let sequence = match (framing, frame) {
        (_, Some(frame)) => &*frame.sequence,
        (Framing::Lines { base }, None) => {
            numbered = (base + seen.bytes.start as u64).to_string();
            &numbered
        }
        (Framing::Records(_), None) => "",
    };
    let field =
        seen.dataset.zip(seen.fault).and_then(|(dataset, fault)| config.datasets.plan(dataset).spot(fault.spot));
    // A partition key often is somebody's id or address: its pseudonym finds the same records, and tells nothing.
    let partition_key = frame.and_then(|frame| frame.partition_key.as_deref()).zip(config.key.as_ref());
    let partition_key = partition_key.map(|(partition_key, key)| key.pseudonym(partition_key.as_bytes()));
    let letter = DeadLetter {
        code,
        dataset: seen.dataset.map(|dataset| &*config.datasets.plan(dataset).name),
        field: field.as_deref(),
        stream: &source.stream,
        shard: &source.shard,
        sequence,
        sub_sequence: frame.map_or(0, |frame| frame.sub_sequence),
        partition_key: partition_key.as_ref().and_then(|pseudonym| std::str::from_utf8(pseudonym).ok()),
        arrival_ms: seen.arrival_ms,
        raw: &buffer[seen.bytes.clone()],
    };
    letters.add(&Folder::Error { code, day: day_of_ms(seen.arrival_ms) }, |out| {
        letter.write(out);
        1
    });
}

/// Writes every record of the chunk as one raw line; neighbours that go to the same object are copied in one piece.
fn land_raw(config: &LaneConfig, raw: &mut Lines, seen: &[Seen], buffer: &[u8], whole_lines: bool) {
    let target = |seen: &Seen| (seen.dataset, seen.arrival_ms.div_euclid(DAY_MS));
    let joins = |left: &Seen, right: &Seen| {
        let adjacent = whole_lines && left.bytes.end + 1 == right.bytes.start && buffer[left.bytes.end] == b'\n';
        adjacent && target(left) == target(right)
    };
    for group in seen.chunk_by(joins) {
        let (first, last) = (&group[0], &group[group.len() - 1]);
        let dataset = first.dataset.map(|dataset| Arc::clone(&config.datasets.plan(dataset).name));
        raw.add(&Folder::Raw { dataset, day: day_of_ms(first.arrival_ms) }, |out| {
            let bytes = &buffer[first.bytes.start..last.bytes.end];
            let begin = out.len();
            out.extend_from_slice(bytes);
            if !whole_lines {
                // A line end between a document's tokens is white space; a record is one line.
                out[begin..].iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
            }
            out.push(b'\n');
            group.len() as u64
        });
    }
}

fn day_of_ms(ms: i64) -> Day {
    day_of(ms.div_euclid(DAY_MS))
}

impl crate::dataset::plan::Plan {
    /// The field that a fault is at, as a JSON Pointer.
    fn spot(&self, spot: Spot) -> Option<String> {
        match spot {
            Spot::Record => None,
            Spot::Input(input) => Some(self.inputs[input].pointer.clone()),
            Spot::Field(node, field) => Some(self.nodes[node].fields[field].pointer.clone()),
            Spot::Node(node) => Some(self.nodes[node].pointer.clone()).filter(|pointer| !pointer.is_empty()),
            Spot::Shape(shape) => Some(self.shapes[shape].pointer.clone()),
            Spot::Leaf(leaf) => Some(match self.leaves[leaf].source {
                crate::dataset::plan::LeafSource::Input(input) => self.inputs[input].pointer.clone(),
                _ => self.leaves[leaf].name.clone(),
            }),
        }
    }
}
