//! How often the pipeline allocates memory: allocations and reallocations for each record, counted by a wrapper around the
//! system's allocator.
//!
//! - `cold`: a lane's first chunk of 2 MiB, with which it fills its dictionaries and makes its buffers;
//! - `warm`: the mean of the chunks after it;
//! - `encode`: all row groups of all chunks, by row.
//!
//! Counts are exact and the same in every run, so they can be compared between versions. `peak` is the maximum of bytes in use,
//! minus those in use before.

#[expect(dead_code, reason = "each bench is a program of its own, and uses a part of it")]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pipeline::encode::{Encoder, EncoderConfig};
use pipeline::lane::Lane;
use samples::RecordKind;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static REALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counted.
struct Counting;

impl Counting {
    fn count(counter: &AtomicU64, requested: usize, freed: usize) {
        counter.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(requested as u64, Ordering::Relaxed);
        // During a reallocation, the old and the new block are both in use.
        PEAK.fetch_max(HELD.fetch_add(requested, Ordering::Relaxed) + requested, Ordering::Relaxed);
        HELD.fetch_sub(freed, Ordering::Relaxed);
    }
}

#[expect(unsafe_code, reason = "an allocator is unsafe to write; this one forwards every call unchanged")]
// SAFETY: every method passes its arguments to the system's allocator unchanged, and counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counting::count(&ALLOCATIONS, layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Counting::count(&ALLOCATIONS, layout.size(), 0);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Counting::count(&REALLOCATIONS, size, layout.size());
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What was counted while something ran.
struct Counted {
    allocations: u64,
    reallocations: u64,
    bytes: u64,
    peak: usize,
}

fn counted<T>(work: impl FnOnce() -> T) -> (T, Counted) {
    let read = || [&ALLOCATIONS, &REALLOCATIONS, &BYTES].map(|counter| counter.load(Ordering::Relaxed));
    let held = HELD.load(Ordering::Relaxed);
    PEAK.store(held, Ordering::Relaxed);
    let before = read();
    let result = work();
    let after = read();
    let [allocations, reallocations, bytes] = [0, 1, 2].map(|index| after[index] - before[index]);
    (result, Counted { allocations, reallocations, bytes, peak: PEAK.load(Ordering::Relaxed) - held })
}

#[expect(clippy::cast_precision_loss, reason = "a table for people")]
fn row(name: &str, what: &str, records: u64, counted: &Counted) {
    let each = |count: u64| count as f64 / records.max(1) as f64;
    println!(
        "{name:<12} {what:<7} {records:>8} {:>12.4} {:>14.4} {:>12.1} {:>10.1}",
        each(counted.allocations),
        each(counted.reallocations),
        each(counted.bytes),
        counted.peak as f64 / 1e6
    );
}

fn main() {
    println!(
        "dataset      step     records  allocations  reallocations        bytes    peak MB   (the first three: a record)"
    );
    for kind in RecordKind::ALL {
        let config = common::lane_config(None);
        let mut chunks = common::chunks(&common::sample(kind, 40_000)).into_iter();
        let mut lane = Lane::new(config.clone());
        let name = kind.dataset();
        let first = chunks.next().expect("there are records");
        let (pushed, cold) = counted(|| lane.push(0, first));
        row(name, "cold", pushed.records, &cold);
        let (records, warm) = counted(|| chunks.map(|chunk| lane.push(0, chunk).records).sum::<u64>());
        row(name, "warm", records, &warm);
        let mut encoder = Encoder::new(&config.datasets, &EncoderConfig::default()).expect("zstd has a level 1");
        let (rows, encode) = counted(|| {
            let mut count = 0;
            for rows in lane.take_rows() {
                for partition in 0..rows.partitions().len() {
                    count += encoder.row_group(&rows, partition).expect("these rows can be encoded").rows;
                }
            }
            count
        });
        row(name, "encode", rows, &encode);
    }
}
