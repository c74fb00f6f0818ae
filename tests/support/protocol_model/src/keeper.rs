//! What a worker does about leases and readers: the keeper's calls, what the coordinator hears of them, what it reads.
//!
//! Owns: taking, finding, losing, asking for and letting go of leases, as `src/worker/leases.rs` and `src/worker/shards.rs`
//! have them; the open epoch. Does not own: the end of an epoch (`worker`).
//!
//! Who counts as dead is not modelled: any worker may take any lease at any time. That is more than any clock allows, and
//! so no promise rests on one.

use crate::mutation::Mutation;
use crate::properties::Broken;
use crate::state::{Epoch, Keep, Mail, Phase, Range, Request, SHARDS, Snapshot, State, bits};
use crate::world::at;
use crate::{Grain, Protocol};

impl Protocol {
    /// Whether the worker may take the lease: it does not think it has it, does not have it, and may read the shard.
    pub(crate) fn may_take(&self, state: &State, name: u8, shard: usize) -> bool {
        let (worker, row) = (&state.workers[at(name)], &state.rows[shard]);
        worker.keep[shard] == Keep::Not
            && !row.holder.is(name)
            && self.hears_now(state, name)
            && self.is_ready(state, shard)
    }

    /// Whether the worker finds a lease to be its own: handed over, or taken in a request whose answer was lost.
    pub(crate) fn may_find(&self, state: &State, name: u8, shard: usize) -> bool {
        let (worker, row) = (&state.workers[at(name)], &state.rows[shard]);
        worker.keep[shard] == Keep::Not
            && row.holder.is(name)
            && self.hears_now(state, name)
            && self.is_ready(state, shard)
    }

    /// Whether an asker takes itself for the holder.
    pub(crate) fn may_presume(&self, state: &State, name: u8, shard: usize) -> bool {
        let asked = matches!(state.rows[shard].holder, crate::state::Holder::HandingOver(_, to) if to == name);
        self.is(Mutation::AskerDecides)
            && asked
            && state.workers[at(name)].keep[shard] == Keep::Not
            && self.hears_now(state, name)
    }

    /// Whether the worker sees that a lease is not its own any more.
    pub(crate) fn may_lose(&self, state: &State, name: u8, shard: usize) -> bool {
        let (worker, row) = (&state.workers[at(name)], &state.rows[shard]);
        matches!(worker.keep[shard], Keep::Held | Keep::Asked) && !row.holder.is(name) && self.hears_now(state, name)
    }

    /// In the coarse grain the keeper does nothing while the coordinator is at work.
    fn hears_now(&self, state: &State, name: u8) -> bool {
        let phase = state.workers[at(name)].phase;
        match self.grain {
            Grain::Fine => !matches!(phase, Phase::End { .. } | Phase::AbortRefused { fails: true, .. }),
            Grain::Coarse => phase == Phase::Idle,
        }
    }

    /// `shares::is_ready`.
    fn is_ready(&self, state: &State, shard: usize) -> bool {
        let row = &state.rows[shard];
        let is_done = self.is_at_end(shard, row.checkpoint) && row.pending.is_none();
        !is_done && (self.parent_is_done(state, shard) || self.is(Mutation::ChildBeforeParent))
    }

    /// The keeper has a lease, and tells.
    pub(crate) fn gain(&self, state: &mut State, name: u8, shard: usize) {
        let row = state.rows[shard];
        let snapshot = Snapshot { checkpoint: row.checkpoint, is_pending: row.pending.is_some() };
        let worker = &mut state.workers[at(name)];
        worker.keep[shard] = Keep::Held;
        worker.mail[shard] = match worker.mail[shard] {
            Mail::None | Mail::Gained(_) => Mail::Gained(snapshot),
            Mail::Lost | Mail::LostThenGained(_) => Mail::LostThenGained(snapshot),
        };
        if self.grain == Grain::Coarse {
            self.hear(state, name, shard);
        }
    }

    /// The keeper has lost a lease, and tells.
    pub(crate) fn lose_lease(&self, state: &mut State, name: u8, shard: usize) {
        let worker = &mut state.workers[at(name)];
        (worker.keep[shard], worker.mail[shard]) = (Keep::Not, Mail::Lost);
        if self.grain == Grain::Coarse {
            self.hear(state, name, shard);
        }
    }

    /// `shards::not_ours`: the coordinator read a row that is another's, and tells the keeper, who may not know.
    pub(crate) fn not_ours(&self, state: &mut State, name: u8, shard: u8) {
        if self.is(Mutation::KeeperIsNotTold) {
            return;
        }
        state.workers[at(name)].not_ours |= 1 << shard;
        if self.grain == Grain::Coarse {
            self.hear_not_ours(state, name, shard);
        }
    }

    /// The keeper hears of it: should the lease be its own by now, it was gained.
    pub(crate) fn hear_not_ours(&self, state: &mut State, name: u8, shard: u8) {
        let worker = &mut state.workers[at(name)];
        worker.not_ours &= !(1 << shard);
        let keep = &mut worker.keep[at(shard)];
        if matches!(*keep, Keep::Held | Keep::Asked) {
            *keep = Keep::Not;
        }
    }

    /// `shards::hear`.
    pub(crate) fn hear(&self, state: &mut State, name: u8, shard: usize) {
        let worker = &mut state.workers[at(name)];
        let mail = std::mem::take(&mut worker.mail[shard]);
        let has = worker.ledger[shard].is_there();
        match mail {
            Mail::None => {}
            Mail::Lost => self.lost(state, name, shard),
            Mail::LostThenGained(snapshot) => {
                worker.mail[shard] = Mail::Gained(snapshot);
                self.lost(state, name, shard);
            }
            Mail::Gained(_) if has && !self.is(Mutation::GainedKeepsBooks) => self.lost(state, name, shard),
            Mail::Gained(snapshot) if snapshot.is_pending => {
                worker.phase = Phase::Gained { shard: shard as u8, left: 0 };
            }
            Mail::Gained(snapshot) => self.start_reading(state, name, shard, snapshot.checkpoint),
        }
    }

    /// `shards::lost`.
    fn lost(&self, state: &mut State, name: u8, shard: usize) {
        self.stop_reading(state, name, shard);
        let worker = &mut state.workers[at(name)];
        if worker.ledger[shard].is_there() {
            let open = worker.open();
            worker.ledger = [Range::default(); SHARDS];
            let next = self.read_again(state, name, open);
            state.workers[at(name)].phase = next;
        }
    }

    /// `gained`, once nothing is pending.
    pub(crate) fn start_reading(&self, state: &mut State, name: u8, shard: usize, checkpoint: u8) {
        if self.is_at_end(shard, checkpoint) {
            state.workers[at(name)].keep[shard] = Keep::LettingGo;
            return;
        }
        self.stop_reading(state, name, shard);
        state.workers[at(name)].reading[shard] = Some(checkpoint);
    }

    pub(crate) fn stop_reading(&self, state: &mut State, name: u8, shard: usize) {
        let worker = &mut state.workers[at(name)];
        let was_at = worker.reading[shard].take().filter(|position| *position < self.records);
        if self.is(Mutation::ReadersLiveOn) && was_at.is_some() {
            worker.stale[shard] = was_at;
        }
    }

    /// A chunk, of one record, comes from the shard's reader, or from one that was replaced.
    pub(crate) fn read(&self, state: &mut State, name: u8, shard: usize, record_after: u8) {
        let worker = &mut state.workers[at(name)];
        let Some(from) = worker.reading[shard] else { return };
        let ledger = &mut worker.ledger[shard];
        if !ledger.is_there() {
            *ledger = Range { after: from, through: from, records: 0 };
        }
        let fits = ledger.through == from;
        (ledger.through, ledger.records) = (record_after + 1, ledger.records | 1 << record_after);
        worker.reading[shard] = Some(record_after + 1);
        state.check(fits, Broken::NoGapInBooks);
    }

    /// The open epoch is to be committed.
    pub(crate) fn seal(&self, state: &mut State, name: u8) {
        let free = state.epochs.iter().position(|epoch| !epoch.is_used);
        let free = free.expect("there is room for every epoch that the bounds allow");
        let worker = &mut state.workers[at(name)];
        let ranges = std::mem::take(&mut worker.ledger);
        state.epochs[free] = Epoch { is_used: true, owner: name, ranges, ..Epoch::default() };
        worker.phase = Phase::Stage { epoch: free as u8, object: 0 };
    }

    /// Which shards the worker could read a chunk of: a mask.
    pub(crate) fn readable(&self, state: &State, name: u8) -> u8 {
        crate::state::mask(|shard| state.workers[at(name)].reading[shard].is_some_and(|at| at < self.records))
    }

    /// Hands over, or releases, a lease that was asked for and that nothing is open for.
    pub(crate) fn hand_over(&self, state: &mut State, name: u8, shard: usize) {
        self.stop_reading(state, name, shard);
        state.workers[at(name)].keep[shard] = Keep::LettingGo;
    }

    /// The keeper lets go of a lease; again, if it still has it.
    pub(crate) fn let_go(&self, state: &mut State, name: u8, shard: u8, is_lost: bool) {
        let request = Request::Release(name, shard);
        if is_lost {
            state.give_up(request);
            return;
        }
        self.arrive(state, request, false);
        state.workers[at(name)].keep[at(shard)] = Keep::Not;
    }

    /// Forgets what nobody can see any more: epochs that nothing refers to, and requests that can have no effect. It makes
    /// states equal that differ only in what has passed.
    pub(crate) fn forget(&self, state: &mut State) {
        for place in 0..state.late.len() {
            if state.late[place].is_some_and(|request| self.is_void(state, request)) {
                state.late[place] = None;
            }
        }
        state.late.sort_unstable_by_key(|late| (late.is_none(), *late));
        for number in 0..state.epochs.len() as u8 {
            let is_late = state.late.iter().flatten().any(|request| request.epoch() == Some(number));
            let is_at_work = state.workers.iter().any(|worker| worker.phase.epoch() == Some(number));
            if is_late || is_at_work || !state.epochs[at(number)].is_used {
                continue;
            }
            for row in &mut state.rows {
                row.last = row.last.filter(|last| *last != number);
            }
            let is_pending = state.rows.iter().any(|row| row.pending == Some(number));
            let epoch = &mut state.epochs[at(number)];
            epoch.owner = 0;
            let stays = epoch.has(crate::state::Object::Visible) || epoch.has(crate::state::Object::Completing);
            if !is_pending && !stays {
                *epoch = Epoch::default();
            } else if !is_pending {
                epoch.intent = false;
            }
        }
        self.file_away(state);
    }

    /// Epochs that are done are kept as one: which of them a record came with makes no difference any more. Those that
    /// share a record stay apart, to be seen.
    fn file_away(&self, state: &mut State) {
        if self.mutation.is_some() || !self.forgets {
            return;
        }
        let mut archive: Option<usize> = None;
        for number in 0..state.epochs.len() {
            let epoch = state.epochs[number];
            let is_referred_to = |other: Option<u8>| other.map(at) == Some(number);
            let is_done = epoch.record && epoch.owner == 0 && !epoch.intent && epoch.advanced == epoch.shards();
            let is_at_work = state.workers.iter().any(|worker| is_referred_to(worker.phase.epoch()))
                || state.late.iter().flatten().any(|late| is_referred_to(late.epoch()))
                || state.rows.iter().any(|row| is_referred_to(row.pending) || is_referred_to(row.last));
            if !epoch.is_used || !is_done || is_at_work {
                continue;
            }
            let Some(place) = archive else {
                archive = Some(number);
                continue;
            };
            let mut both = state.epochs[place];
            let is_apart = (0..SHARDS).all(|shard| both.ranges[shard].records & epoch.ranges[shard].records == 0);
            if !is_apart || both.objects != epoch.objects || both.standing != epoch.standing {
                continue;
            }
            for (range, other) in both.ranges.iter_mut().zip(epoch.ranges) {
                let records = range.records | other.records;
                let through = 8 - records.leading_zeros() as u8;
                *range = if records == 0 { Range::default() } else { Range { after: 0, through, records } };
            }
            both.advanced |= epoch.advanced;
            (state.epochs[place], state.epochs[number]) = (both, Epoch::default());
        }
    }

    /// Whether a late request can never have an effect. In doubt it stays.
    fn is_void(&self, state: &State, request: Request) -> bool {
        use crate::state::Object::{Completing, None, Staged, Visible};
        let object = |epoch: u8, object: u8| state.epochs[at(epoch)].objects[at(object)];
        match request {
            _ if self.mutation.is_some() || !self.forgets => false,
            Request::Complete(epoch, number) | Request::Abort(epoch, number) => {
                !matches!(object(epoch, number), None | Staged)
            }
            Request::Delete(epoch, number) => !matches!(object(epoch, number), None | Staged | Completing | Visible),
            Request::PutRecord(epoch) => state.epochs[at(epoch)].record,
            Request::PutIntent(epoch) => {
                let is_at_work = state.workers.iter().any(|worker| worker.phase.epoch() == Some(epoch));
                state.epochs[at(epoch)].record && !is_at_work
            }
            Request::Decide(epoch) => {
                let ranges = &state.epochs[at(epoch)].ranges;
                bits(state.epochs[at(epoch)].shards())
                    .any(|shard| state.rows[at(shard)].checkpoint > ranges[at(shard)].after)
            }
            Request::Advance(epoch, shard, _) => state.epochs[at(epoch)].advanced >> shard & 1 == 1,
            Request::RollBack(epoch) => state.epochs[at(epoch)].advanced != 0,
            Request::DecideOne(..) | Request::RemoveIntent(_) | Request::Take(..) | Request::Ask(..) => false,
            Request::Release(worker, shard) => {
                let is_dead = state.workers[at(worker)].life == crate::state::Life::Dead;
                let mentions = |late: &Request| matches!(late, Request::Take(who, of) | Request::Ask(who, of, _) if (*who, *of) == (worker, shard));
                let row = state.rows[at(shard)];
                let is_asker = matches!(row.holder, crate::state::Holder::HandingOver(_, to) if to == worker);
                is_dead && !row.holder.is(worker) && !is_asker && !state.late.iter().flatten().any(mentions)
            }
        }
    }
}
