//! Named checkpoints.

use super::{Factory, at, commit, decision, first, held, key, manifest, owner};
use crate::named::{CheckpointName, NamedCheckpoint, NamedCheckpointSummary};
use crate::position::Position;

fn name(name: &str) -> CheckpointName {
    CheckpointName::new(name).unwrap()
}

fn checkpoint(of: &str, at_ms: u64, shards: usize) -> NamedCheckpoint {
    let positions = (0..shards).map(|number| (key(number), at(number as u64))).collect();
    NamedCheckpoint { name: name(of), at_ms, positions }
}

pub async fn a_saved_checkpoint_is_read_back(factory: &dyn Factory) {
    let fixture = factory.fresh(2).await;
    let sub_record = Position::At { sequence: 5_u64.into(), sub: 3 };
    let positions = vec![(key(2), Position::End), (key(0), Position::Beginning), (key(1), sub_record)];
    let saved = NamedCheckpoint { name: name("before-the-fix"), at_ms: 1_760_000_000_123, positions };
    assert!(fixture.handle(0).save_checkpoint(&saved).await.unwrap());
    assert_eq!(fixture.handle(1).get_checkpoint(&saved.name).await.unwrap(), Some(saved));
    assert_eq!(fixture.handle(1).get_checkpoint(&name("another")).await.unwrap(), None);
}

pub async fn a_name_is_used_once_until_it_is_deleted(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let (first, second) = (checkpoint("same", 1, 1), checkpoint("same", 2, 2));
    assert!(store.save_checkpoint(&first).await.unwrap());
    assert!(!store.save_checkpoint(&second).await.unwrap());
    assert_eq!(store.get_checkpoint(&name("same")).await.unwrap(), Some(first));
    assert!(store.delete_checkpoint(&name("same")).await.unwrap());
    assert!(!store.delete_checkpoint(&name("same")).await.unwrap());
    assert_eq!(store.get_checkpoint(&name("same")).await.unwrap(), None);
    assert!(store.save_checkpoint(&second).await.unwrap());
}

pub async fn checkpoints_are_listed_by_name_with_their_size(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    assert_eq!(store.list_checkpoints().await.unwrap(), []);
    for (of, at_ms, shards) in [("b", 2, 0), ("a", 3, 250), ("c", 1, 1)] {
        assert!(store.save_checkpoint(&checkpoint(of, at_ms, shards)).await.unwrap());
    }
    let summary = |of, at_ms, shards| NamedCheckpointSummary { name: name(of), at_ms, shards };
    assert_eq!(store.list_checkpoints().await.unwrap(), [summary("a", 3, 250), summary("b", 2, 0), summary("c", 1, 1)]);
}

pub async fn a_checkpoint_and_the_leases_know_nothing_of_each_other(factory: &dyn Factory) {
    let fixture = factory.fresh(1).await;
    let store = fixture.store();
    let me = owner("me");
    held(store, &me, 1).await;
    let before = store.list().await.unwrap();
    let saved = checkpoint("kept", 1, 1);
    assert!(store.save_checkpoint(&saved).await.unwrap());
    assert_eq!(store.list().await.unwrap(), before);
    commit(store, &decision(&me, &manifest("one"), vec![(key(0), first(9))])).await;
    assert_eq!(store.get_checkpoint(&saved.name).await.unwrap(), Some(saved));
}

pub async fn of_eight_who_save_under_one_name_one_succeeds(factory: &dyn Factory) {
    let fixture = factory.fresh(4).await;
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let store = fixture.shared(number);
            tokio::spawn(
                async move { store.save_checkpoint(&checkpoint("same", number as u64, number)).await.unwrap() },
            )
        })
        .collect();
    let mut winners = Vec::new();
    for (number, task) in tasks.into_iter().enumerate() {
        if task.await.unwrap() {
            winners.push(number);
        }
    }
    assert_eq!(winners.len(), 1);
    let expected = checkpoint("same", winners[0] as u64, winners[0]);
    assert_eq!(fixture.store().get_checkpoint(&name("same")).await.unwrap(), Some(expected));
}
