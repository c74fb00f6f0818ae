//! The calls of the lease store on a DynamoDB table: which requests each call sends, and what their answers mean.
//!
//! Owns: turning a failed condition into the answer that `store.rs` promises, from the item that DynamoDB returns with the
//! refusal, which is of the same moment. Does not own: the conditions and effects (`change.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use async_trait::async_trait;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{CancellationReason, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update};

use super::change::{Change, Take, count};
use super::item::{self, LEASE_KEY, MANIFEST_PREFIX, text};
use super::keys::{Keys, RowKey};
use super::{BATCH_KEYS_MAX, DynamoStore, Item, Repeat, Written, all, one_attempt};
use crate::decision::{Decision, Refusal, Verdict, refusal};
use crate::error::StoreError;
use crate::lease::{Holder, Lease, LeaseOwner, ManifestName, NewLease};
use crate::shard::ShardKey;
use crate::store::{Advance, AdvanceOutcome, LeaseStore, Renewal, RenewalOutcome};

/// The most rows in one transaction.
const TRANSACTION_ROWS_MAX: usize = 100;
/// How often `take` tries again because the lease changed between a worker that takes it and the one that already holds it.
const TAKE_ROUNDS_MAX: usize = 4;

/// The outcome of creating a row.
enum Created {
    Made,
    /// The shard had its row before.
    Existed,
    /// A row of this shard has the key.
    TakenBy(ShardKey),
}

/// The outcome of a transaction.
enum Transacted {
    Done,
    /// The rows that did not meet their condition: each one's index, and its item if the service returns it.
    Refused(Vec<(usize, Option<Item>)>),
}

impl DynamoStore {
    /// Creates the rows of these shards, each once, and returns the keys of those that it created. A bare key may be taken by a
    /// stream whose rows came into the table after it was scanned. Then the keys are learned again, and used.
    async fn create_rows(&self, leases: &[&NewLease]) -> Result<Vec<ShardKey>, StoreError> {
        let mut made = Vec::new();
        let mut left: Vec<&NewLease> = leases.to_vec();
        for is_again in [false, true] {
            let row_keys = self.row_keys(&left.iter().map(|new| &new.key).collect::<Vec<_>>()).await?;
            let new = left.iter().zip(&row_keys);
            let encoded = new.map(|(new, row_key)| Ok((row_key, item::encode(&Lease::new((*new).clone()), row_key)?)));
            let encoded: Vec<(&RowKey, Item)> = encoded.collect::<Result<_, StoreError>>()?;
            let requests =
                left.iter().zip(encoded).map(|(new, (row_key, item))| self.create_one(&new.key, row_key, item));
            let created = all(requests.collect()).await?;
            let mut taken = Vec::new();
            for (new, created) in left.iter().zip(created) {
                match created {
                    Created::Made => made.push(new.key.clone()),
                    Created::Existed => {}
                    Created::TakenBy(other) if is_again => {
                        return Err(StoreError::malformed_lease(&new.key, format!("its key is taken by {other}")));
                    }
                    Created::TakenBy(_) => taken.push(*new),
                }
            }
            if taken.is_empty() {
                return Ok(made);
            }
            self.learn_keys().await?;
            let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
            for new in &taken {
                if keys.is_bare(&new.key.stream) {
                    keys.except(&new.key);
                }
            }
            drop(keys);
            left = taken;
        }
        Ok(made)
    }

    async fn create_one(&self, key: &ShardKey, row_key: &RowKey, item: Item) -> Result<Created, StoreError> {
        let put = self
            .client
            .put_item()
            .table_name(&*self.table)
            .set_item(Some(item))
            .condition_expression(format!("attribute_not_exists({LEASE_KEY})"))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let Err(error) = put.send().await else { return Ok(Created::Made) };
        let item = match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(refusal)) => refusal.item.clone(),
            _ => return Err(self.request(&format!("create the lease of {key}"), "dynamodb:PutItem").explain(&error)),
        };
        let item = match item.filter(|item| !item.is_empty()) {
            Some(item) => Some(item),
            None => self.batch(std::slice::from_ref(&row_key.lease_key)).await?.remove(&row_key.lease_key),
        };
        let attributes = item.as_ref().map_or(Ok(None), item::key_attributes)?;
        let Some(attributes) = attributes else { return Ok(Created::Existed) };
        // Whoever reads the row reports what is wrong with it.
        let owner = self.keys().shard(&attributes);
        Ok(match owner {
            Ok(Some(owner)) if owner != *key => Created::TakenBy(owner),
            _ => Created::Existed,
        })
    }

    async fn renew_one(
        &self,
        me: &LeaseOwner,
        renewal: &Renewal,
        row_key: &RowKey,
    ) -> Result<RenewalOutcome, StoreError> {
        let Renewal { key, counter, throughput } = renewal;
        let change = Change::renew(me, count(key, "counter", *counter)?, *throughput);
        let lease = match self.update(&format!("renew {key}"), row_key, &change, Repeat::Sdk).await? {
            Written::Done(item) => self.decode(key, &item)?.map(|lease| lease.holder),
            Written::Refused(item) => {
                let row = self.refused_row(key, row_key, item).await?.filter(|lease| lease.holder.is(me));
                return Ok(
                    row.map_or(RenewalOutcome::Lost, |Lease { counter, .. }| RenewalOutcome::CounterAt { counter })
                );
            }
        };
        let counter = counter + 1;
        Ok(match lease {
            Some(Holder::HandingOver { to, .. }) => RenewalOutcome::HandOffAsked { counter, to },
            Some(Holder::Held(_) | Holder::Nobody) | None => RenewalOutcome::Renewed { counter },
        })
    }

    async fn advance_one(
        &self,
        manifest: &ManifestName,
        advance: &Advance,
        row_key: &RowKey,
        change: &Change,
    ) -> Result<AdvanceOutcome, StoreError> {
        let key = advance.key();
        let operation = format!("advance manifest {manifest} on {key}");
        let item = match self.update(&operation, row_key, change, Repeat::Sdk).await? {
            Written::Done(_) => return Ok(AdvanceOutcome::Advanced),
            Written::Refused(item) => item,
        };
        let row = self.refused_row(key, row_key, item).await?;
        match row {
            Some(lease) if lease.is_pending(manifest) => {
                let through = lease.pending.map(|pending| pending.through.to_string()).unwrap_or_default();
                let wanted = advance.through();
                let problem =
                    format!("manifest {manifest} is pending through {through}, but the advance is to {wanted}");
                Err(StoreError::malformed_lease(key, problem))
            }
            Some(lease) if lease.was_advanced_by(manifest) => Ok(AdvanceOutcome::WasAdvanced),
            Some(_) | None => Ok(AdvanceOutcome::NotPending),
        }
    }

    /// One change of one row. Returns whether the condition held.
    async fn change_one(&self, operation: &str, key: &ShardKey, change: &Change) -> Result<bool, StoreError> {
        let row_key = self.row_key(key).await?;
        let written = self.update(operation, &row_key, change, Repeat::Caller).await?;
        Ok(matches!(written, Written::Done(_)))
    }

    /// All changes or none.
    async fn transact(&self, operation: &str, changes: Vec<(RowKey, Change)>) -> Result<Transacted, StoreError> {
        let update = |(row_key, change): (RowKey, Change)| {
            let update = Update::builder()
                .table_name(&*self.table)
                .key(LEASE_KEY, text(row_key.lease_key))
                .update_expression(change.update_expression())
                .condition_expression(change.condition_expression())
                .set_expression_attribute_values(Some(change.values().clone()))
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                .build()
                .expect("the table, the key and the update, all required parts, are set");
            TransactWriteItem::builder().update(update).build()
        };
        let items: Vec<TransactWriteItem> = changes.into_iter().map(update).collect();
        let Err(error) = self.client.transact_write_items().set_transact_items(Some(items)).send().await else {
            return Ok(Transacted::Done);
        };
        let request = self.request(operation, "dynamodb:UpdateItem");
        let reasons = match error.as_service_error() {
            Some(refused) if refused.is_transaction_canceled_exception() => cancellation_reasons(refused),
            _ => return Err(request.explain(&error)),
        };
        let failed = |reason: &CancellationReason| reason.code() == Some("ConditionalCheckFailed");
        let refused: Vec<(usize, Option<Item>)> = reasons
            .iter()
            .enumerate()
            .filter(|(_, reason)| failed(reason))
            .map(|(place, reason)| (place, reason.item().cloned()))
            .collect();
        if refused.is_empty() { Err(request.explain_cancelled(reasons)) } else { Ok(Transacted::Refused(refused)) }
    }
}

#[async_trait]
impl LeaseStore for DynamoStore {
    fn is_metered(&self) -> bool {
        true
    }

    fn decision_shards_max(&self) -> usize {
        TRANSACTION_ROWS_MAX
    }

    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        let items = self.scan("list the leases", None).await?;
        let mut keys = self.keys().clone();
        if !items.iter().all(|item| is_expected(item, &keys)) {
            // Rows of a stream that was not in the table, or of one whose keys have another form than was expected.
            let rows = items.iter().filter_map(|item| item::key_attributes(item).transpose());
            keys.learn(&rows.collect::<Result<Vec<_>, _>>()?)?;
            self.keys.write().unwrap_or_else(PoisonError::into_inner).clone_from(&keys);
        }
        let mut leases: BTreeMap<ShardKey, Lease> = BTreeMap::new();
        for item in &items {
            let Some(lease) = item::decode(item, &keys)? else { continue };
            if leases.contains_key(&lease.key) {
                let problem = "it has two rows, one under the bare shard id and one with the stream's id";
                return Err(StoreError::malformed_lease(&lease.key, problem));
            }
            leases.insert(lease.key.clone(), lease);
        }
        Ok(leases.into_values().collect())
    }

    async fn get(&self, keys: &[ShardKey]) -> Result<Vec<Option<Lease>>, StoreError> {
        let row_keys = self.row_keys(&keys.iter().collect::<Vec<_>>()).await?;
        let asked: BTreeSet<&String> = row_keys.iter().map(|row_key| &row_key.lease_key).collect();
        let asked: Vec<String> = asked.into_iter().cloned().collect();
        let batches = asked.chunks(BATCH_KEYS_MAX).map(|batch| self.batch(batch)).collect();
        let found: BTreeMap<String, Item> = all(batches).await?.into_iter().flatten().collect();
        let row = |(key, row_key): (&ShardKey, &RowKey)| {
            found.get(&row_key.lease_key).map_or(Ok(None), |item| self.decode(key, item))
        };
        keys.iter().zip(&row_keys).map(row).collect()
    }

    async fn create(&self, leases: &[NewLease]) -> Result<Vec<ShardKey>, StoreError> {
        let mut seen = BTreeSet::new();
        // If a shard is in the list twice, its first entry counts.
        let new: Vec<&NewLease> = leases.iter().filter(|new| seen.insert(&new.key)).collect();
        // The first row with a bare key shows whether bare keys are this stream's: another one may have begun at the same time.
        let is_bare = |new: &&NewLease| self.keys().is_bare(&new.key.stream);
        let first = new.iter().copied().filter(is_bare).min_by_key(|new| &new.key);
        let (first, rest): (Vec<&NewLease>, Vec<&NewLease>) =
            new.into_iter().partition(|new| first.is_some_and(|first| first.key == new.key));
        let mut made = self.create_rows(&first).await?;
        made.extend(self.create_rows(&rest).await?);
        made.sort_by_key(|key| leases.iter().position(|new| new.key == *key));
        Ok(made)
    }

    async fn renew(&self, me: &LeaseOwner, renewals: &[Renewal]) -> Result<Vec<RenewalOutcome>, StoreError> {
        let row_keys = self.row_keys(&renewals.iter().map(|renewal| &renewal.key).collect::<Vec<_>>()).await?;
        let requests = renewals.iter().zip(&row_keys).map(|(renewal, row_key)| self.renew_one(me, renewal, row_key));
        all(requests.collect()).await
    }

    async fn take(&self, me: &LeaseOwner, key: &ShardKey, seen_counter: u64) -> Result<Option<Lease>, StoreError> {
        let operation = format!("take {key}");
        let row_key = self.row_key(key).await?;
        let seen = count(key, "counter", seen_counter)?;
        let mut how = Take::FromAnother;
        for _ in 0..TAKE_ROUNDS_MAX {
            let change = Change::take(me, key, seen, how);
            let item = match self.update(&operation, &row_key, &change, Repeat::Caller).await? {
                Written::Done(item) => return self.decode(key, &item),
                Written::Refused(item) => item,
            };
            match self.refused_row(key, &row_key, item).await? {
                // The counter has not moved, so the holder has not changed; only `ask` changes a row without it.
                Some(lease) if lease.counter == seen_counter && lease.holder.is_only(me) => how = Take::Again,
                Some(lease) if lease.counter == seen_counter => how = Take::FromAnother,
                Some(_) | None => return Ok(None),
            }
        }
        Err(self.request(&operation, "dynamodb:UpdateItem").unavailable("other workers kept changing its holder"))
    }

    async fn ask(&self, me: &LeaseOwner, key: &ShardKey, from: &LeaseOwner) -> Result<bool, StoreError> {
        if me == from {
            return Ok(false);
        }
        self.change_one(&format!("ask for {key}"), key, &Change::ask(me, from)).await
    }

    async fn hand_over(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError> {
        self.change_one(&format!("hand over {key}"), key, &Change::hand_over(me)).await
    }

    async fn release(&self, me: &LeaseOwner, key: &ShardKey) -> Result<bool, StoreError> {
        let operation = format!("release {key}");
        // Another worker may ask in between, but no worker withdraws its request: so not in the other order.
        Ok(self.change_one(&operation, key, &Change::release(me)).await?
            || self.change_one(&operation, key, &Change::hand_over(me)).await?)
    }

    async fn remove(&self, key: &ShardKey) -> Result<bool, StoreError> {
        let row_key = self.row_key(key).await?;
        let removal = Change::removal();
        let delete = self
            .client
            .delete_item()
            .table_name(&*self.table)
            .key(LEASE_KEY, text(row_key.lease_key))
            .condition_expression(removal.condition_expression())
            .set_expression_attribute_values(Some(removal.values().clone()));
        match delete.customize().config_override(one_attempt()).send().await {
            Ok(_) => Ok(true),
            Err(error)
                if error.as_service_error().is_some_and(DeleteItemError::is_conditional_check_failed_exception) =>
            {
                Ok(false)
            }
            Err(error) => Err(self.request(&format!("remove {key}"), "dynamodb:DeleteItem").explain(&error)),
        }
    }

    async fn decide(&self, decision: &Decision) -> Result<Verdict, StoreError> {
        let manifest = decision.manifest();
        let operation = format!("decide manifest {manifest}");
        check_rows(&operation, decision.shards().len())?;
        if !manifest.as_str().starts_with(MANIFEST_PREFIX) {
            // We would take it for a pending checkpoint of KCL's own.
            let problem = format!("its name does not begin with {MANIFEST_PREFIX}");
            return Err(StoreError::Invalid { operation, problem });
        }
        let row_keys = self.row_keys(&decision.shards().iter().map(|(key, _)| key).collect::<Vec<_>>()).await?;
        let change = |(key, range)| Change::decide(decision.owner(), manifest, key, range);
        let changes = decision.shards().iter().map(|(key, range)| change((key, range)));
        let changes: Vec<Change> = changes.collect::<Result<_, _>>()?;
        match self.transact(&operation, row_keys.iter().cloned().zip(changes).collect()).await? {
            Transacted::Done => Ok(Verdict::Decided),
            Transacted::Refused(rows) => {
                let mut refusals = Vec::new();
                for (place, item) in rows {
                    let Some(((key, range), row_key)) = decision.shards().get(place).zip(row_keys.get(place)) else {
                        continue;
                    };
                    let row = self.refused_row(key, row_key, item).await?;
                    let reason = refusal(decision.owner(), range, row.as_ref());
                    refusals.extend(reason.map(|reason| Refusal { key: key.clone(), reason }));
                }
                if refusals.is_empty() {
                    let request = self.request(&operation, "dynamodb:UpdateItem");
                    return Err(request.unavailable("it was refused for a reason that no longer applies"));
                }
                Ok(Verdict::Refused(refusals))
            }
        }
    }

    async fn advance(&self, manifest: &ManifestName, advances: &[Advance]) -> Result<Vec<AdvanceOutcome>, StoreError> {
        let row_keys = self.row_keys(&advances.iter().map(Advance::key).collect::<Vec<_>>()).await?;
        let changes = advances.iter().map(|advance| Change::advance(manifest, advance));
        let changes: Vec<Change> = changes.collect::<Result<_, _>>()?;
        let rows = advances.iter().zip(&row_keys).zip(&changes);
        all(rows.map(|((advance, row_key), change)| self.advance_one(manifest, advance, row_key, change)).collect())
            .await
    }

    async fn roll_back(&self, manifest: &ManifestName, keys: &[ShardKey]) -> Result<bool, StoreError> {
        let operation = format!("roll back manifest {manifest}");
        check_rows(&operation, keys.len())?;
        if keys.is_empty() {
            return Ok(true);
        }
        let row_keys = self.row_keys(&keys.iter().collect::<Vec<_>>()).await?;
        let changes = row_keys.into_iter().map(|row_key| (row_key, Change::roll_back(manifest))).collect();
        Ok(matches!(self.transact(&operation, changes).await?, Transacted::Done))
    }
}

/// Whether an item is where its row is searched for. Items that are not leases, or are malformed, are not searched for.
fn is_expected(item: &Item, keys: &Keys) -> bool {
    let Ok(Some(attributes)) = item::key_attributes(item) else { return true };
    match keys.shard(&attributes) {
        Ok(Some(key)) => keys.expect(&key, &attributes.lease_key),
        Ok(None) | Err(_) => true,
    }
}

/// Checks that DynamoDB takes a transaction over this many rows.
fn check_rows(operation: &str, rows: usize) -> Result<(), StoreError> {
    if rows > TRANSACTION_ROWS_MAX {
        return Err(StoreError::Invalid {
            operation: operation.to_owned(),
            problem: format!("it has {rows} shards, at most {TRANSACTION_ROWS_MAX} are allowed"),
        });
    }
    Ok(())
}

fn cancellation_reasons(error: &TransactWriteItemsError) -> &[CancellationReason] {
    match error {
        TransactWriteItemsError::TransactionCanceledException(cancelled) => cancelled.cancellation_reasons(),
        _ => &[],
    }
}
