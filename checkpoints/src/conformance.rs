//! The suite that every lease store must pass: each condition and each effect of `store.rs` is one test, named after it.
//!
//! A store's test defines a [`Factory`] and calls [`lease_store_conformance!`](crate::lease_store_conformance); then every
//! function of the suite is one test. Every test gets a fresh store. Some get several handles to the same data, as several
//! processes have. A store with a limit on the shards of a decision is tested at that limit.
//!
//! The functions panic if a store is wrong: they are tests, and are compiled with the feature `conformance` only.
//!
//! It does not test what only one store has: files and processes (SQLite), KCL's tables and the faults of a service
//! (DynamoDB).
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]
#![expect(missing_docs, reason = "each function of the suite says in its name what it proves")]

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::decision::{Decision, Refusal, RefusalReason, Verdict};
use crate::error::StoreError;
use crate::lease::{Lease, LeaseOwner, ManifestName, NewLease, ThroughputKbps};
use crate::position::{Position, ShardRange};
use crate::shard::{ShardId, ShardKey, StreamName};
use crate::store::{Advance, LeaseStore, Renewal};

pub mod commit;
pub mod concurrent;
pub mod hand_off;
pub mod leases;
pub mod lost_replies;
pub mod model;
pub mod rows;

/// Creates stores for the suite.
#[async_trait]
pub trait Factory: Send + Sync {
    /// A new, empty store, as `handles` handles to the same data that share as little as possible.
    async fn fresh(&self, handles: usize) -> Fixture;
}

/// A fresh store and what must live as long as the store does, such as its folder.
pub struct Fixture {
    stores: Vec<Arc<dyn LeaseStore>>,
    _keep: Box<dyn Any + Send + Sync>,
}

impl Fixture {
    /// A store with its handles.
    pub fn new(stores: Vec<Arc<dyn LeaseStore>>, keep: impl Any + Send + Sync) -> Self {
        Self { stores, _keep: Box::new(keep) }
    }

    /// The first handle.
    fn store(&self) -> &dyn LeaseStore {
        self.handle(0)
    }

    fn handle(&self, index: usize) -> &dyn LeaseStore {
        &*self.stores[index]
    }

    fn shared(&self, index: usize) -> Arc<dyn LeaseStore> {
        Arc::clone(&self.stores[index % self.stores.len()])
    }
}

/// Defines one test for each function of the suite: `lease_store_conformance!(factory)`, in a module of its own.
///
/// With `, needs the local AWS stack` after the factory, the tests are ignored unless they are requested.
///
/// The caller's crate needs `tokio` with its macros and its multi-threaded runtime.
#[macro_export]
macro_rules! lease_store_conformance {
    ($factory:expr, needs the local AWS stack) => {
        fn factory() -> impl $crate::conformance::Factory {
            $factory
        }

        $crate::conformance_suite!($crate::conformance_test_on_aws);
    };
    ($factory:expr) => {
        fn factory() -> impl $crate::conformance::Factory {
            $factory
        }

        $crate::conformance_suite!($crate::conformance_test);
    };
}

/// The list of the suite: calls `$each!` with every public function of the suite's modules.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_suite {
    ($($each:tt)+) => {
        $($each)+! {
            commit {
                a_decision_makes_the_manifest_pending_on_every_shard_and_changes_nothing_else,
                a_zombie_cannot_decide,
                a_zombie_that_took_the_lease_back_cannot_decide_what_others_have_committed,
                a_decision_is_all_or_nothing_and_names_every_shard_that_prevents_it,
                a_decision_that_is_in_effect_is_refused_with_its_own_manifest,
                a_range_starts_at_the_checkpoint_to_the_sub_record,
                a_decision_takes_as_many_shards_as_the_store_states_and_no_more,
                an_advance_moves_the_checkpoint_and_clears_the_pending_manifest,
                anyone_may_finish_a_decided_epoch,
                an_advance_may_be_repeated_and_done_in_parts,
                an_advance_does_nothing_where_its_manifest_is_not_pending,
                an_advance_to_another_position_than_the_decided_one_is_an_error,
                a_shard_that_ends_gets_its_children,
                a_rollback_leaves_the_checkpoints_and_lets_others_decide,
                a_rollback_is_refused_once_one_shard_has_advanced,
                a_rollback_is_refused_where_its_manifest_is_not_pending,
                an_advance_after_a_rollback_does_nothing,
                consecutive_epochs_leave_no_gap,
            }
            concurrent {
                of_eight_workers_that_take_a_lease_at_once_one_gets_it,
                of_eight_workers_that_ask_for_a_lease_at_once_one_is_next,
                of_a_decision_and_a_take_at_once_either_may_come_first,
                an_advance_and_a_rollback_exclude_each_other,
                many_concurrent_advances_of_one_epoch_do_no_harm,
                many_overlapping_decisions_have_the_effect_of_some_sequential_order,
            }
            hand_off {
                asking_names_the_next_holder_and_leaves_the_counter,
                asking_needs_the_current_holder_and_no_earlier_request,
                the_holder_learns_of_the_request_when_it_renews_and_stays_alive,
                the_asker_does_not_hold_the_lease_until_it_is_handed_over,
                during_a_hand_off_the_holder_may_decide_and_the_asker_may_not,
                a_lease_that_is_handed_over_belongs_to_the_asker,
                a_lease_that_nobody_asked_for_is_not_handed_over,
                releasing_a_lease_that_was_asked_for_hands_it_over,
                an_overdue_hand_off_is_ended_by_taking,
                a_pending_manifest_survives_a_hand_off,
                counters_and_checkpoints_only_grow,
            }
            leases {
                a_free_lease_is_taken,
                taking_needs_the_current_counter,
                taking_a_lease_from_another_worker_counts_a_switch,
                taking_a_lease_that_one_already_holds_counts_no_switch,
                taking_leaves_the_checkpoint_and_the_pending_manifest,
                a_renewal_moves_the_counter_and_stores_the_measurement,
                a_renewal_after_another_worker_took_the_lease_is_lost,
                a_renewal_of_a_free_or_missing_lease_is_lost,
                a_renewal_with_another_counter_changes_nothing_and_returns_the_counter,
                one_lost_lease_does_not_prevent_the_renewal_of_the_others,
                renewing_leaves_a_commit_in_progress_alone,
                a_released_lease_is_free_and_only_its_holder_releases_it,
                a_registered_worker_never_counts_as_gone,
            }
            lost_replies {
                a_decision_without_faults_takes_one_request,
                a_decision_whose_reply_was_lost_is_known_in_the_same_call,
                a_decision_whose_request_was_lost_is_unknown_until_it_is_repeated,
                a_decision_whose_reply_and_read_were_lost_is_known_when_it_is_repeated,
                a_decision_that_another_worker_rolled_forward_is_known_as_decided,
                one_shard_that_still_shows_the_manifest_is_proof_enough,
                a_decision_that_every_shard_has_passed_is_superseded,
                a_decision_whose_rows_are_gone_is_superseded,
                a_decision_that_never_arrived_is_refused_once_a_lease_is_lost,
                a_decision_that_never_arrived_is_refused_although_another_worker_committed_some_of_its_records,
                a_decision_that_another_worker_rolled_back_is_refused,
                an_invalid_decision_is_refused_at_once,
                a_commit_is_finished_once_whichever_of_its_requests_is_lost,
                an_advance_shows_whether_the_epoch_was_finished_by_another_worker,
                a_renewal_whose_reply_was_lost_is_recognized,
                every_change_of_the_holder_is_recognized_although_its_reply_was_lost,
                a_rollback_whose_reply_was_lost_is_recognized,
                the_script_records_every_call_and_every_loss,
            }
            model {
                every_sequence_of_calls_gets_the_memory_stores_answers,
            }
            rows {
                a_new_row_is_free_and_has_nothing_pending,
                every_part_of_a_row_is_read_back,
                creating_an_existing_row_changes_nothing,
                rows_are_listed_in_the_order_of_their_keys,
                rows_are_read_in_the_requested_order_with_gaps_for_missing_ones,
                one_shard_id_in_two_streams_is_two_rows,
                another_handle_sees_what_was_written,
                only_a_shard_that_is_done_is_removed,
            }
        }
    };
}

/// One test for each function of the suite.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_test {
    ($($group:ident { $($name:ident,)* })*) => { $(
        mod $group {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    $crate::conformance::$group::$name(&super::factory()).await;
                }
            )*
        }
    )* };
}

/// The same, for a store that needs a server.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_test_on_aws {
    ($($group:ident { $($name:ident,)* })*) => { $(
        mod $group {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs the local AWS stack: localstack/run"]
                async fn $name() {
                    $crate::conformance::$group::$name(&super::factory()).await;
                }
            )*
        }
    )* };
}

// The vocabulary of the tests.

pub fn key(number: usize) -> ShardKey {
    ShardKey::new(StreamName::new("orders").unwrap(), ShardId::new(format!("shardId-{number:012}")).unwrap())
}

fn owner(name: &str) -> LeaseOwner {
    LeaseOwner::new(name).unwrap()
}

pub fn manifest(name: &str) -> ManifestName {
    ManifestName::new(format!("_intents/{name}.json")).unwrap()
}

/// After record `number`.
pub fn at(number: u64) -> Position {
    Position::at(number.into())
}

/// The first range of a shard, through record `number`.
fn first(number: u64) -> ShardRange {
    ShardRange::new(Position::Beginning, at(number)).unwrap()
}

fn range(after: u64, through: u64) -> ShardRange {
    ShardRange::new(at(after), at(through)).unwrap()
}

pub fn decision(me: &LeaseOwner, name: &ManifestName, shards: Vec<(ShardKey, ShardRange)>) -> Decision {
    Decision::new(me.clone(), name.clone(), shards).unwrap()
}

fn renewal(lease: &Lease) -> Renewal {
    Renewal { key: lease.key.clone(), counter: lease.counter, throughput: ThroughputKbps::default() }
}

fn refused<const N: usize>(shards: [(ShardKey, RefusalReason); N]) -> Verdict {
    Verdict::Refused(shards.map(|(key, reason)| Refusal { key, reason }).into())
}

/// The row of a shard, which must exist.
async fn row(store: &dyn LeaseStore, key: &ShardKey) -> Lease {
    store.get(std::slice::from_ref(key)).await.unwrap().remove(0).expect("the row is there")
}

/// Calls until the store is available. A store may be unavailable because two calls collided; then the failed one has had
/// no effect.
async fn insist<T, F: Future<Output = Result<T, StoreError>>>(call: impl Fn() -> F) -> T {
    for _ in 0..500 {
        match call().await {
            Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(2)).await,
            outcome => return outcome.unwrap(),
        }
    }
    panic!("the store was not available in 500 attempts");
}

/// Creates the rows of `count` shards, to be read from their beginning.
pub async fn create(store: &dyn LeaseStore, count: usize) -> Vec<ShardKey> {
    let keys: Vec<ShardKey> = (0..count).map(key).collect();
    let new: Vec<NewLease> = keys.iter().map(|key| NewLease::new(key.clone(), Position::Beginning)).collect();
    assert_eq!(store.create(&new).await.unwrap(), keys);
    keys
}

/// Takes a lease, whoever has it.
pub async fn take(store: &dyn LeaseStore, me: &LeaseOwner, key: &ShardKey) -> Lease {
    let seen = row(store, key).await.counter;
    store.take(me, key, seen).await.unwrap().expect("the counter has not moved since")
}

/// Creates the rows of `count` shards, all held by `me`.
async fn held(store: &dyn LeaseStore, me: &LeaseOwner, count: usize) -> Vec<ShardKey> {
    let keys = create(store, count).await;
    for key in &keys {
        take(store, me, key).await;
    }
    keys
}

/// Decides, which must succeed.
async fn decide(store: &dyn LeaseStore, decision: &Decision) {
    assert_eq!(store.decide(decision).await.unwrap(), Verdict::Decided);
}

/// Each shard's advance to the end of its range.
pub fn advances(decision: &Decision) -> Vec<Advance> {
    decision.shards().iter().map(|(key, range)| Advance::new(key.clone(), range.through().clone())).collect()
}

/// Decides and advances, which must succeed.
async fn commit(store: &dyn LeaseStore, decision: &Decision) {
    use crate::store::AdvanceOutcome;

    decide(store, decision).await;
    let outcomes = store.advance(decision.manifest(), &advances(decision)).await.unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == AdvanceOutcome::Advanced));
}

#[cfg(test)]
mod tests {
    /// The names in the macro's list.
    macro_rules! names {
        ($($group:ident { $($name:ident,)* })*) => { vec![$($(concat!(stringify!($group), "::", stringify!($name)),)*)*] };
    }

    #[test]
    fn every_function_of_the_suite_is_in_the_list_of_tests() {
        let listed: Vec<&str> = crate::conformance_suite!(names);
        let sources = [
            ("commit", include_str!("conformance/commit.rs")),
            ("concurrent", include_str!("conformance/concurrent.rs")),
            ("hand_off", include_str!("conformance/hand_off.rs")),
            ("leases", include_str!("conformance/leases.rs")),
            ("lost_replies", include_str!("conformance/lost_replies.rs")),
            ("model", include_str!("conformance/model.rs")),
            ("rows", include_str!("conformance/rows.rs")),
        ];
        let written: Vec<String> = sources
            .iter()
            .flat_map(|(group, source)| source.lines().map(move |line| (group, line)))
            .filter_map(|(group, line)| {
                Some(format!("{group}::{}", line.strip_prefix("pub async fn ")?.split('(').next()?))
            })
            .collect();
        assert_eq!(listed, written);
    }
}
