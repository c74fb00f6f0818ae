//! What a worker does about leases and readers: the lease manager's calls, what the coordinator learns of them, what it reads.
//!
//! Owns: taking, finding, losing, asking for and releasing leases, as `src/worker/leases/` has them; the readers and the open
//! epoch. Does not own: the end of an epoch (`worker`).
//!
//! Who counts as dead is not modelled: any worker may take any lease at any time. That is more than any clock allows, so no
//! promise depends on a clock.

use crate::mutation::Mutation;
use crate::properties::Broken;
use crate::state::{Epoch, LeaseEvent, LeaseView, Phase, Range, Request, SHARDS, Snapshot, State, at, bits};
use crate::{Grain, Protocol};

impl Protocol {
    /// Whether the worker may take the lease: it neither holds it nor believes that it does, and the shard may be read.
    pub(crate) fn may_take(&self, state: &State, name: u8, shard: usize) -> bool {
        let (worker, row) = (&state.workers[at(name)], &state.rows[shard]);
        worker.views[shard] == LeaseView::NotHeld
            && !row.holder.is(name)
            && self.acts_now(state, name)
            && self.is_ready(state, shard)
    }

    /// Whether the worker finds that it holds a lease: it was handed over, or taken by a request whose reply was lost.
    pub(crate) fn may_find(&self, state: &State, name: u8, shard: usize) -> bool {
        let (worker, row) = (&state.workers[at(name)], &state.rows[shard]);
        worker.views[shard] == LeaseView::NotHeld
            && row.holder.is(name)
            && self.acts_now(state, name)
            && self.is_ready(state, shard)
    }

    /// Whether a worker that asked for a lease takes itself for its holder.
    pub(crate) fn may_presume(&self, state: &State, name: u8, shard: usize) -> bool {
        let asked = matches!(state.rows[shard].holder, crate::state::Holder::HandingOver(_, to) if to == name);
        self.is(Mutation::AskerDecides)
            && asked
            && state.workers[at(name)].views[shard] == LeaseView::NotHeld
            && self.acts_now(state, name)
    }

    /// Whether the worker finds that it no longer holds a lease.
    pub(crate) fn may_lose(&self, state: &State, name: u8, shard: usize) -> bool {
        let (worker, row) = (&state.workers[at(name)], &state.rows[shard]);
        matches!(worker.views[shard], LeaseView::Held | LeaseView::Asked)
            && !row.holder.is(name)
            && self.acts_now(state, name)
    }

    /// With the coarse grain, the lease manager does nothing while the coordinator is busy.
    fn acts_now(&self, state: &State, name: u8) -> bool {
        let phase = state.workers[at(name)].phase;
        match self.grain {
            Grain::Fine => !matches!(phase, Phase::End { .. } | Phase::AbortRefused { fails: true, .. }),
            Grain::Coarse => phase == Phase::Idle,
        }
    }

    /// `balance::is_ready`.
    fn is_ready(&self, state: &State, shard: usize) -> bool {
        let row = &state.rows[shard];
        let is_done = self.is_at_end(shard, row.checkpoint) && row.pending.is_none();
        !is_done && (self.parent_is_done(state, shard) || self.is(Mutation::ChildBeforeParent))
    }

    /// The worker has a lease, and the lease manager reports it.
    pub(crate) fn gain(&self, state: &mut State, name: u8, shard: usize) {
        let row = state.rows[shard];
        let snapshot = Snapshot { checkpoint: row.checkpoint, is_pending: row.pending.is_some() };
        let worker = &mut state.workers[at(name)];
        worker.views[shard] = LeaseView::Held;
        worker.events[shard] = match worker.events[shard] {
            LeaseEvent::None | LeaseEvent::Gained(_) => LeaseEvent::Gained(snapshot),
            LeaseEvent::Lost | LeaseEvent::LostThenGained(_) => LeaseEvent::LostThenGained(snapshot),
        };
        if self.grain == Grain::Coarse {
            self.on_lease_event(state, name, shard);
        }
    }

    /// The worker has lost a lease, and the lease manager reports it.
    pub(crate) fn lose_lease(&self, state: &mut State, name: u8, shard: usize) {
        let worker = &mut state.workers[at(name)];
        (worker.views[shard], worker.events[shard]) = (LeaseView::NotHeld, LeaseEvent::Lost);
        if self.grain == Grain::Coarse {
            self.on_lease_event(state, name, shard);
        }
    }

    /// The coordinator found a row in another worker's name. It tells the lease manager, which may not know.
    pub(crate) fn disown(&self, state: &mut State, name: u8, shard: u8) {
        if self.is(Mutation::HideDisownedLeases) {
            return;
        }
        state.workers[at(name)].disowned |= 1 << shard;
        if self.grain == Grain::Coarse {
            self.on_disowned(state, name, shard);
        }
    }

    /// The lease manager learns of it. If the worker holds the lease by now, that is a gain.
    pub(crate) fn on_disowned(&self, state: &mut State, name: u8, shard: u8) {
        let worker = &mut state.workers[at(name)];
        worker.disowned &= !(1 << shard);
        let view = &mut worker.views[at(shard)];
        if matches!(*view, LeaseView::Held | LeaseView::Asked) {
            *view = LeaseView::NotHeld;
        }
    }

    /// The coordinator handles what the lease manager reported.
    pub(crate) fn on_lease_event(&self, state: &mut State, name: u8, shard: usize) {
        let worker = &mut state.workers[at(name)];
        let event = std::mem::take(&mut worker.events[shard]);
        let has = worker.ledger[shard].is_included();
        match event {
            LeaseEvent::None => {}
            LeaseEvent::Lost => self.lost(state, name, shard),
            LeaseEvent::LostThenGained(snapshot) => {
                worker.events[shard] = LeaseEvent::Gained(snapshot);
                self.lost(state, name, shard);
            }
            LeaseEvent::Gained(_) if has && !self.is(Mutation::GainedKeepsLedger) => self.lost(state, name, shard),
            LeaseEvent::Gained(snapshot) if snapshot.is_pending => {
                worker.phase = Phase::Gained { shard: shard as u8, left: 0 };
            }
            LeaseEvent::Gained(snapshot) => self.start_reading(state, name, shard, snapshot.checkpoint),
        }
    }

    /// The coordinator handles the loss of a lease.
    fn lost(&self, state: &mut State, name: u8, shard: usize) {
        self.stop_reading(state, name, shard);
        let worker = &mut state.workers[at(name)];
        if worker.ledger[shard].is_included() {
            let open = worker.open();
            worker.ledger = [Range::default(); SHARDS];
            let next = self.read_again(state, name, open);
            state.workers[at(name)].phase = next;
        }
    }

    /// The coordinator handles the gain of a lease on which nothing is pending.
    pub(crate) fn start_reading(&self, state: &mut State, name: u8, shard: usize, checkpoint: u8) {
        if self.is_at_end(shard, checkpoint) {
            state.workers[at(name)].views[shard] = LeaseView::Releasing;
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

    /// A chunk of one record arrives from the shard's reader, or from a replaced one.
    pub(crate) fn read(&self, state: &mut State, name: u8, shard: usize, record_after: u8) {
        let worker = &mut state.workers[at(name)];
        let Some(from) = worker.reading[shard] else { return };
        let ledger = &mut worker.ledger[shard];
        if !ledger.is_included() {
            *ledger = Range { after: from, through: from, records: 0 };
        }
        let fits = ledger.through == from;
        (ledger.through, ledger.records) = (record_after + 1, ledger.records | 1 << record_after);
        worker.reading[shard] = Some(record_after + 1);
        state.check(fits, Broken::NoGapInLedger);
    }

    /// The open epoch ends and its commit begins.
    pub(crate) fn seal(&self, state: &mut State, name: u8) {
        let free = state.epochs.iter().position(|epoch| !epoch.is_used);
        let free = free.expect("there is room for every epoch that the bounds allow");
        let worker = &mut state.workers[at(name)];
        let ranges = std::mem::take(&mut worker.ledger);
        state.epochs[free] = Epoch { is_used: true, owner: name, ranges, ..Epoch::default() };
        worker.phase = Phase::Stage { epoch: free as u8, object: 0 };
    }

    /// Mask of the shards of which the worker can read a chunk.
    pub(crate) fn readable(&self, state: &State, name: u8) -> u8 {
        crate::state::mask(|shard| state.workers[at(name)].reading[shard].is_some_and(|at| at < self.records))
    }

    /// Stops reading a shard whose lease is requested and for which the epoch has nothing.
    pub(crate) fn hand_over(&self, state: &mut State, name: u8, shard: usize) {
        self.stop_reading(state, name, shard);
        state.workers[at(name)].views[shard] = LeaseView::Releasing;
    }

    /// The lease manager releases a lease; again, if the worker still holds it.
    pub(crate) fn release(&self, state: &mut State, name: u8, shard: u8, is_lost: bool) {
        let request = Request::Release(name, shard);
        if is_lost {
            state.give_up(request);
            return;
        }
        self.arrive(state, request, false);
        state.workers[at(name)].views[at(shard)] = LeaseView::NotHeld;
    }

    /// Forgets what can no longer be seen: epochs that nothing refers to, and requests that can no longer have an effect. So
    /// states that differ only in their past become equal.
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
        self.archive_done(state);
    }

    /// Merges finished epochs: it no longer matters to which of them a record belongs. Epochs that share a record stay
    /// apart, so that the properties see it.
    fn archive_done(&self, state: &mut State) {
        if self.mutation.is_some() || !self.forgets {
            return;
        }
        let mut archive: Option<usize> = None;
        for number in 0..state.epochs.len() {
            let epoch = state.epochs[number];
            let is_referred_to = |other: Option<u8>| other.map(at) == Some(number);
            let is_done =
                epoch.record && epoch.entered && epoch.owner == 0 && !epoch.intent && epoch.advanced == epoch.shards();
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
            if !is_apart || both.objects != epoch.objects || both.status != epoch.status {
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

    /// Whether a late request can never have an effect. If in doubt, it stays.
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
            Request::Enter(epoch) => state.epochs[at(epoch)].entered,
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
