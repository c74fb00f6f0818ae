//! The conditions and effects of `store.rs` on rows in memory: what the memory store and the SQLite store run inside their
//! lock or transaction.
//!
//! A store lends its rows as [`Rows`] for one call. It makes sure that nobody else sees or changes them during the call, and
//! that nothing remains of a call that ends with an error. A store adds nothing else, so both stores have the same meaning:
//! they run the same code. (DynamoDB states the same conditions in its own language; the conformance suite compares it.)
//!
//! Every function checks all its rows before it changes the first.

use mutations::mutated;

use crate::decision::{Decision, Refusal, Verdict, refusal};
use crate::error::StoreError;
use crate::lease::{Holder, Lease, LeaseOwner, ManifestName, NewLease, Pending};
use crate::shard::ShardKey;
use crate::store::{Advance, AdvanceOutcome, Renewal, RenewalOutcome};

/// The rows of a store, for one call.
pub(crate) trait Rows {
    /// Why reading or writing a row failed.
    type Error: From<StoreError>;

    /// The row of `key`.
    fn get(&self, key: &ShardKey) -> Result<Option<Lease>, Self::Error>;

    /// Writes a row, whether one of its key exists or not.
    fn put(&mut self, lease: Lease) -> Result<(), Self::Error>;

    /// Removes the row of `key`.
    fn delete(&mut self, key: &ShardKey) -> Result<(), Self::Error>;
}

pub(crate) fn create<R: Rows>(rows: &mut R, leases: &[NewLease]) -> Result<Vec<ShardKey>, R::Error> {
    let mut made = Vec::new();
    for new in leases {
        if rows.get(&new.key)?.is_none() {
            rows.put(Lease::new(new.clone()))?;
            made.push(new.key.clone());
        }
    }
    Ok(made)
}

pub(crate) fn renew<R: Rows>(
    rows: &mut R,
    me: &LeaseOwner,
    renewals: &[Renewal],
) -> Result<Vec<RenewalOutcome>, R::Error> {
    let mut outcomes = Vec::with_capacity(renewals.len());
    for renewal in renewals {
        let outcome = match rows.get(&renewal.key)? {
            Some(lease) if !lease.holder.is(me) => RenewalOutcome::Lost,
            None => RenewalOutcome::Lost,
            Some(lease) if lease.counter != renewal.counter => RenewalOutcome::CounterAt { counter: lease.counter },
            Some(lease) => {
                let counter = lease.counter + 1;
                let outcome = match &lease.holder {
                    Holder::HandingOver { to, .. } => RenewalOutcome::HandOffAsked { counter, to: to.clone() },
                    Holder::Held(_) | Holder::Nobody => RenewalOutcome::Renewed { counter },
                };
                rows.put(Lease { counter, throughput: renewal.throughput, ..lease })?;
                outcome
            }
        };
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

pub(crate) fn take<R: Rows>(
    rows: &mut R,
    me: &LeaseOwner,
    key: &ShardKey,
    seen_counter: u64,
) -> Result<Option<Lease>, R::Error> {
    let Some(lease) = rows.get(key)?.filter(|lease| lease.counter == seen_counter) else { return Ok(None) };
    let taken = if lease.holder.is_only(me) {
        Lease { counter: lease.counter + 1, ..lease }
    } else {
        given_to(lease, Holder::Held(me.clone()))
    };
    rows.put(taken.clone())?;
    Ok(Some(taken))
}

pub(crate) fn ask<R: Rows>(rows: &mut R, me: &LeaseOwner, key: &ShardKey, from: &LeaseOwner) -> Result<bool, R::Error> {
    let Some(lease) = rows.get(key)?.filter(|lease| lease.holder.is_only(from) && me != from) else { return Ok(false) };
    rows.put(Lease { holder: Holder::HandingOver { from: from.clone(), to: me.clone() }, ..lease })?;
    Ok(true)
}

pub(crate) fn hand_over<R: Rows>(rows: &mut R, me: &LeaseOwner, key: &ShardKey) -> Result<bool, R::Error> {
    let Some(lease) = rows.get(key)? else { return Ok(false) };
    let to = match &lease.holder {
        Holder::HandingOver { from, to } if from == me => to.clone(),
        Holder::HandingOver { .. } | Holder::Held(_) | Holder::Nobody => return Ok(false),
    };
    rows.put(given_to(lease, Holder::Held(to)))?;
    Ok(true)
}

pub(crate) fn release<R: Rows>(rows: &mut R, me: &LeaseOwner, key: &ShardKey) -> Result<bool, R::Error> {
    if hand_over(rows, me, key)? {
        return Ok(true);
    }
    let Some(lease) = rows.get(key)?.filter(|lease| lease.holder.is_only(me)) else { return Ok(false) };
    rows.put(Lease { holder: Holder::Nobody, counter: lease.counter + 1, ..lease })?;
    Ok(true)
}

pub(crate) fn remove<R: Rows>(rows: &mut R, key: &ShardKey) -> Result<bool, R::Error> {
    if !rows.get(key)?.is_some_and(|lease| lease.is_done()) {
        return Ok(false);
    }
    rows.delete(key)?;
    Ok(true)
}

pub(crate) fn decide<R: Rows>(rows: &mut R, decision: &Decision, shards_max: usize) -> Result<Verdict, R::Error> {
    let manifest = decision.manifest();
    if decision.shards().len() > shards_max {
        return Err(R::Error::from(StoreError::Invalid {
            operation: format!("decide manifest {manifest}"),
            problem: format!("it has {} shards, at most {shards_max} are allowed", decision.shards().len()),
        }));
    }
    let mut met = Vec::with_capacity(decision.shards().len());
    let mut refusals = Vec::new();
    for (key, range) in decision.shards() {
        let row = rows.get(key)?;
        match (refusal(decision.owner(), range, row.as_ref()), row) {
            (Some(reason), _) => refusals.push(Refusal { key: key.clone(), reason }),
            (None, lease) => met.extend(lease.map(|lease| (lease, range))),
        }
    }
    if !refusals.is_empty() && !mutated!(DecideInPart) {
        return Ok(Verdict::Refused(refusals));
    }
    for (lease, range) in met {
        let pending = Pending { through: range.through().clone(), manifest: manifest.clone() };
        rows.put(Lease { pending: Some(pending), ..lease })?;
    }
    Ok(Verdict::Decided)
}

pub(crate) fn advance<R: Rows>(
    rows: &mut R,
    manifest: &ManifestName,
    advances: &[Advance],
) -> Result<Vec<AdvanceOutcome>, R::Error> {
    let mut outcomes = Vec::with_capacity(advances.len());
    let mut met = Vec::with_capacity(advances.len());
    for advance in advances {
        let row = rows.get(advance.key())?;
        outcomes.push(match row {
            Some(lease) if lease.is_pending(manifest) || mutated!(AdvanceWhatIsNotPending) => {
                check_through(&lease, advance)?;
                met.push((lease, advance));
                AdvanceOutcome::Advanced
            }
            Some(lease) if lease.was_advanced_by(manifest) => AdvanceOutcome::WasAdvanced,
            Some(_) | None => AdvanceOutcome::NotPending,
        });
    }
    for (lease, advance) in met {
        rows.put(Lease {
            checkpoint: advance.through().clone(),
            pending: None,
            last_manifest: Some(manifest.clone()),
            owner_switches_since_checkpoint: 0,
            children: if advance.children().is_empty() { lease.children } else { advance.children().clone() },
            ..lease
        })?;
    }
    Ok(outcomes)
}

pub(crate) fn roll_back<R: Rows>(rows: &mut R, manifest: &ManifestName, keys: &[ShardKey]) -> Result<bool, R::Error> {
    let mut met = Vec::with_capacity(keys.len());
    for key in keys {
        match rows.get(key)? {
            Some(lease) if lease.is_pending(manifest) => met.push(lease),
            Some(_) | None => return Ok(false),
        }
    }
    for lease in met {
        rows.put(Lease { pending: None, ..lease })?;
    }
    Ok(true)
}

/// A lease with a new holder: the counter moves, and the change is counted.
fn given_to(lease: Lease, holder: Holder) -> Lease {
    Lease {
        holder,
        counter: lease.counter + 1,
        owner_switches_since_checkpoint: lease.owner_switches_since_checkpoint + 1,
        ..lease
    }
}

/// Checks that a manifest moves a shard to the position at which the row has it pending.
fn check_through(lease: &Lease, advance: &Advance) -> Result<(), StoreError> {
    match &lease.pending {
        _ if mutated!(AdvanceWhatIsNotPending) => Ok(()),
        Some(Pending { through, manifest }) if through != advance.through() => Err(StoreError::malformed_lease(
            &lease.key,
            format!("manifest {manifest} is pending through {through}, but the advance is to {}", advance.through()),
        )),
        Some(_) | None => Ok(()),
    }
}
