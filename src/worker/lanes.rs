//! The lanes: where chunks become rows, dead letters and raw lines, on the processor's cores.
//!
//! Owns: the lanes of every group, which of them are idle, and the work that is running. Does not own: what a lane does
//! (`pipeline::lane`), where its work runs (`compute`), the epoch that the results go to (`epoch`).
//!
//! A group has as many lanes as the worker has threads, but all groups together run only that many at once. So a group whose
//! shard has a chunk always has an idle lane for it while [`Lanes::has_room`] holds.

use std::sync::Arc;

use checkpoints::ShardKey;
use mutations::mutated;
use pipeline::encode::EncodeError;
use pipeline::lane::{DeniedNames, Pushed};
use tokio::task::JoinSet;

use crate::worker::WorkerError;
use crate::worker::compute::joined;
use crate::worker::epoch::encode::{EncodedSpill, Encoding, LaneSlot};
use crate::worker::epoch::open::OpenEpochs;
use crate::worker::memory_plan::MemoryPlan;
use crate::worker::progress::Progress;
use crate::worker::reader::{BufferPool, ReadChunk};

/// What a lane returns.
pub(super) struct LaneResult {
    group: usize,
    slot: LaneSlot,
    /// What became of the chunk, if this was one.
    pushed: Option<(ShardKey, Pushed)>,
    /// Row groups of rows that the lane had to give up, if it was full.
    encoded: Result<EncodedSpill, EncodeError>,
}

/// The lanes of one group.
#[derive(Default)]
struct GroupLanes {
    idle: Vec<LaneSlot>,
    busy: usize,
}

/// All lanes of a worker.
pub(super) struct Lanes {
    encoding: Encoding,
    threads: usize,
    memory: MemoryPlan,
    buffers: BufferPool,
    progress: Arc<Progress>,
    groups: Vec<GroupLanes>,
    running: JoinSet<LaneResult>,
}

impl Lanes {
    pub(super) fn new(
        encoding: Encoding,
        threads: usize,
        memory: MemoryPlan,
        buffers: BufferPool,
        progress: Arc<Progress>,
    ) -> Self {
        let threads = threads.max(1);
        Lanes { encoding, threads, memory, buffers, progress, groups: Vec::new(), running: JoinSet::new() }
    }

    /// Whether one more chunk can be taken.
    pub(super) fn has_room(&self) -> bool {
        self.running.len() < self.threads
    }

    /// Whether no lane is at work.
    pub(super) fn are_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// How many groups there are: the memory is divided among them.
    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Waits for the next lane that has finished; `None` if none is at work. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Option<LaneResult> {
        self.running.join_next().await.map(joined)
    }

    /// Makes the lanes of a group, and of those before it, if they are not there yet.
    pub(super) fn ensure_group(&mut self, group: usize) -> Result<(), EncodeError> {
        while self.groups.len() <= group {
            let idle = (0..self.threads).map(|_| LaneSlot::new(&self.encoding)).collect::<Result<_, _>>()?;
            self.groups.push(GroupLanes { idle, busy: 0 });
        }
        Ok(())
    }

    /// Gives a chunk to an idle lane of the group.
    ///
    /// # Panics
    /// If no lane is idle. The chunk is in the epoch's ledger, so it must not be dropped.
    pub(super) fn push(&mut self, group: usize, key: ShardKey, source: usize, read: ReadChunk) {
        let slot = self.groups[group].idle.pop();
        let mut slot = slot.expect("there is room, so fewer lanes are at work than this group has");
        let lane_bytes = self.memory.lane_bytes(self.groups.len());
        self.start(group, move || {
            let ReadChunk { chunk, memory, .. } = read;
            let pushed = Some((key, slot.lane.push(source, chunk)));
            // From here on the chunk's memory is the lane's.
            drop(memory);
            let encoded = if slot.lane.memory() > lane_bytes {
                let spill = slot.spill();
                slot.encode_some(spill)
            } else {
                Ok((Vec::new(), None))
            };
            LaneResult { group, slot, pushed, encoded }
        });
    }

    fn start(&mut self, group: usize, work: impl FnOnce() -> LaneResult + Send + 'static) {
        self.groups[group].busy += 1;
        let compute = self.encoding.compute.clone();
        self.running.spawn(async move { compute.run(work).await });
    }

    /// Adds a lane's result to the open epoch of its group. The lane is idle again, or encodes more of what it gave up.
    pub(super) async fn on_lane_done(&mut self, done: LaneResult, epochs: &mut OpenEpochs) -> Result<(), WorkerError> {
        let LaneResult { group, mut slot, pushed, encoded } = done;
        self.groups[group].busy -= 1;
        let Some(epoch) = epochs.get_mut(group) else {
            // A lane works only while an epoch is open. What was read for an abandoned one must not enter the next.
            if !mutated!(KeepRowsOfAbortedEpoch) {
                slot.lane.forget();
            }
            self.groups[group].idle.push(slot);
            return Ok(());
        };
        if let Some((key, mut pushed)) = pushed {
            self.buffers.put_back(std::mem::take(&mut pushed.buffer));
            self.progress.on_processed(&key, &pushed);
            let names = std::mem::take(&mut pushed.denied_names);
            if names != DeniedNames::default() {
                self.progress.note(|committed| committed.denied_names.merge(names));
            }
            epoch.add_pushed(&key, pushed).await?;
        }
        let (row_groups, rest) = encoded?;
        epoch.add_row_groups(&slot.encoder, row_groups).await?;
        match rest {
            None => self.groups[group].idle.push(slot),
            Some(spill) => self.start(group, move || {
                let encoded = slot.encode_some(spill);
                LaneResult { group, slot, pushed: None, encoded }
            }),
        }
        Ok(())
    }

    /// Waits until all lanes of a group are idle. Results of other groups that come meanwhile go to their epochs.
    pub(super) async fn drain(&mut self, group: usize, epochs: &mut OpenEpochs) -> Result<(), WorkerError> {
        while self.groups.get(group).is_some_and(|lanes| lanes.busy > 0) {
            let Some(done) = self.next().await else { break };
            self.on_lane_done(done, epochs).await?;
        }
        Ok(())
    }

    /// The idle lanes of a group: all of them once it is drained.
    pub(super) fn idle(&mut self, group: usize) -> &mut [LaneSlot] {
        self.groups.get_mut(group).map(|lanes| lanes.idle.as_mut_slice()).unwrap_or_default()
    }

    /// Drops the rows that idle lanes of a group hold.
    pub(super) fn forget_rows(&mut self, group: usize) {
        for slot in self.idle(group).iter_mut().filter(|_| !mutated!(KeepRowsOfAbortedEpoch)) {
            slot.lane.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Stores;
    use crate::lake::MemoryStore;
    use crate::retry::RetryPolicy;
    use crate::worker::readers::{ReadRange, ReadWhat};
    use crate::worker::testing::{encoding, open_epochs, read};
    use checkpoints::MemoryStore as MemoryLeases;

    use std::sync::atomic::Ordering;

    struct Parts {
        lanes: Lanes,
        epochs: OpenEpochs,
        lake: MemoryStore,
        progress: Arc<Progress>,
    }

    fn parts(threads: usize, memory: usize) -> Parts {
        let (lake, progress) = (MemoryStore::new(), Arc::new(Progress::default()));
        let stores = Stores::new(Arc::new(lake.clone()), Arc::new(MemoryLeases::new()), RetryPolicy::default());
        let memory = MemoryPlan::new(memory, threads);
        let lanes = Lanes::new(encoding(), threads, memory, BufferPool::default(), Arc::clone(&progress));
        Parts { lanes, epochs: open_epochs(stores, memory), lake, progress }
    }

    impl Parts {
        async fn push(&mut self, range: ReadRange) {
            self.lanes.ensure_group(range.group).unwrap();
            self.epochs.get_or_open(range.group, self.lanes.groups()).add_range(&range).await.unwrap();
            let ReadWhat::Chunk(chunk) = range.what else { panic!() };
            self.lanes.push(range.group, range.key, range.source, chunk);
        }

        async fn rows_staged(&mut self, group: usize) -> u64 {
            let epoch = self.epochs.take(group).unwrap();
            let manifest = self.epochs.stage(epoch, self.lanes.idle(group)).await.unwrap();
            manifest.totals.rows.values().sum()
        }
    }

    #[tokio::test]
    async fn all_groups_together_run_as_many_lanes_as_there_are_threads() {
        let mut parts = parts(2, 64 << 20);
        assert!(parts.lanes.has_room() && parts.lanes.are_idle());
        parts.push(read("a", 1).await).await;
        parts.push(ReadRange { group: 1, ..read("b", 1).await }).await;
        assert!(!parts.lanes.has_room());
        assert_eq!((parts.lanes.groups(), parts.lanes.idle(0).len()), (2, 1), "each group has lanes of its own");
        parts.lanes.drain(0, &mut parts.epochs).await.unwrap();
        assert!(parts.lanes.has_room());
        parts.lanes.drain(1, &mut parts.epochs).await.unwrap();
        assert!(parts.lanes.are_idle() && parts.lanes.next().await.is_none());
        assert_eq!(parts.progress.records.load(Ordering::Relaxed), 2);
        assert_eq!((parts.rows_staged(0).await, parts.rows_staged(1).await), (1, 1));
    }

    #[tokio::test]
    async fn rows_of_an_abandoned_epoch_do_not_enter_the_next() {
        let mut parts = parts(2, 64 << 20);
        parts.push(read("a", 1).await).await;
        parts.lanes.drain(0, &mut parts.epochs).await.unwrap();
        parts.push(read("a", 2).await).await;
        // One lane holds rows, the other one is at work.
        parts.epochs.take(0).unwrap().abandon().await;
        parts.lanes.drain(0, &mut parts.epochs).await.unwrap();
        parts.lanes.forget_rows(0);
        parts.push(read("a", 1).await).await;
        parts.lanes.drain(0, &mut parts.epochs).await.unwrap();
        assert_eq!(parts.rows_staged(0).await, 1);
    }

    #[tokio::test]
    async fn a_full_lane_encodes_its_rows_before_the_epoch_ends() {
        let mut parts = parts(1, 1);
        parts.push(read("a", 1).await).await;
        parts.lanes.drain(0, &mut parts.epochs).await.unwrap();
        assert!(parts.lake.calls().is_empty(), "the file is open, and its first part is not full");
        assert_eq!(parts.lanes.idle(0)[0].lane.take_rows().len(), 0);
        assert_eq!(parts.rows_staged(0).await, 1);
    }
}
