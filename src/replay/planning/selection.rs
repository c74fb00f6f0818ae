//! Which epochs a replay replaces: a pure function of what the log says.
//!
//! Owns: which epochs have records of the range, and which others must be replaced with them. Does not own: reading the log (`epochs`),
//! where the records can be read (`reach`).
//!
//! An epoch is replaced as a whole, because its objects have records of all its shards. The objects of an earlier operation have records
//! of several epochs, and these are replaced together for the same reason.
//!
//! Times are those of arrival where the stream knows them. Elsewhere they are when the epoch began and when it was written, by its
//! worker's clock. An epoch that may have records of the range is replaced.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use checkpoints::{Position, ShardKey, StreamName};

use crate::commit::lake_log::LogVersion;
use crate::commit::{EpochId, NamedCheckpoint};
use crate::replay::plan::WidenedBecause;
use crate::replay::planning::epochs::{Outline, ReadOnce};

/// Where a range begins or ends.
#[derive(Debug, Clone)]
pub enum Bound {
    /// At the beginning of the lake, or at its end.
    Open,
    /// At a time of arrival: milliseconds since 1970.
    Time(i64),
    /// At the positions of a named checkpoint.
    Checkpoint(Box<NamedCheckpoint>),
}

/// A bound, prepared for many questions.
enum Edge<'b> {
    Open,
    Time(i64),
    Positions { at: HashMap<&'b ShardKey, &'b Position>, version: Option<LogVersion>, saved_at_ms: i64 },
}

impl<'b> Edge<'b> {
    fn of(bound: &'b Bound) -> Self {
        match bound {
            Bound::Open => Edge::Open,
            Bound::Time(ms) => Edge::Time(*ms),
            Bound::Checkpoint(checkpoint) => Edge::Positions {
                at: checkpoint.shards.iter().map(|shard| (&shard.key, &shard.checkpoint)).collect(),
                version: checkpoint.log_version,
                saved_at_ms: checkpoint.saved_at_ms,
            },
        }
    }

    /// Whether records of a range come after the edge: some of them, and all of them.
    fn has_after(&self, seen: &Seen<'_>) -> (bool, bool) {
        match self {
            Edge::Open => (true, true),
            Edge::Time(ms) => (seen.ends_ms() >= *ms, seen.begins_ms() >= *ms),
            Edge::Positions { at, .. } => match at.get(&seen.range.key) {
                Some(at) => (seen.range.through > **at, seen.range.after >= **at),
                None => (!self.is_before(seen.outline), !self.is_before(seen.outline)),
            },
        }
    }

    /// Whether records of a range come before the edge: some of them, and all of them.
    fn has_before(&self, seen: &Seen<'_>) -> (bool, bool) {
        match self {
            Edge::Open => (true, true),
            Edge::Time(ms) => (seen.begins_ms() < *ms, seen.ends_ms() < *ms),
            Edge::Positions { at, .. } => match at.get(&seen.range.key) {
                Some(at) => (seen.range.after < **at, seen.range.through <= **at),
                None => (self.is_before(seen.outline), self.is_before(seen.outline)),
            },
        }
    }

    /// Of an epoch of a shard that the checkpoint does not have: whether it was committed before the checkpoint. The shard was then
    /// read to its end, and its row was removed. Otherwise the shard is a later one.
    fn is_before(&self, outline: &Outline) -> bool {
        let Edge::Positions { version, saved_at_ms, .. } = self else { return false };
        match version {
            Some(version) => outline.version <= *version,
            None => outline.written_ms <= *saved_at_ms,
        }
    }
}

/// A range of an epoch, with what is known of its times.
struct Seen<'o> {
    outline: &'o Outline,
    range: &'o ReadOnce,
    /// What the range before it says of its end: all records of this range arrived at this time or later.
    arrived_after: Option<i64>,
}

impl Seen<'_> {
    fn begins_ms(&self) -> i64 {
        self.arrived_after.or_else(|| self.outline.epoch.begun_ms()).unwrap_or(i64::MIN)
    }

    fn ends_ms(&self) -> i64 {
        self.range.arrived_through.unwrap_or(self.outline.written_ms)
    }
}

/// Of each range, by epoch and number in it: when the records before it had arrived, if that is known.
pub(super) fn arrivals_before(outlines: &[Outline]) -> HashMap<(usize, usize), i64> {
    let mut by_shard: HashMap<&ShardKey, Vec<(&Position, usize, usize)>> = HashMap::new();
    for (epoch, outline) in outlines.iter().enumerate() {
        for (number, range) in outline.ranges.iter().enumerate() {
            by_shard.entry(&range.key).or_default().push((&range.after, epoch, number));
        }
    }
    let mut arrivals = HashMap::new();
    for mut ranges in by_shard.into_values() {
        ranges.sort();
        for pair in ranges.windows(2) {
            let [(_, epoch, number), (_, next_epoch, next_number)] = pair else { continue };
            if let Some(ms) = outlines[*epoch].ranges[*number].arrived_through {
                arrivals.insert((*next_epoch, *next_number), ms);
            }
        }
    }
    arrivals
}

/// What is replaced.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selected {
    /// The epochs, by their numbers in the outlines, and why one is replaced beyond the range.
    pub(super) epochs: BTreeMap<usize, Option<WidenedBecause>>,
    /// The operations, by their numbers in the outlines.
    pub(super) operations: BTreeSet<usize>,
    /// Epochs that operations name and the log does not have.
    pub(super) unknown: BTreeSet<EpochId>,
}

/// Selects epochs and operations. `dataset`: only epochs that may have rows of it. `live`: the operations whose objects are live, by their numbers.
pub(super) fn select(
    outlines: &[Outline],
    streams: &BTreeSet<StreamName>,
    (from, to): (&Bound, &Bound),
    dataset: Option<&str>,
    live: &BTreeSet<usize>,
) -> Selected {
    let (from, to) = (Edge::of(from), Edge::of(to));
    let arrivals = arrivals_before(outlines);
    let mut selected = Selected::default();
    for (epoch, outline) in outlines.iter().enumerate().filter(|(_, outline)| !outline.is_operation) {
        let (mut is_selected, mut widened) = (false, None);
        for (number, range) in outline.ranges.iter().enumerate() {
            let seen = Seen { outline, range, arrived_after: arrivals.get(&(epoch, number)).copied() };
            let ((some_after, all_after), (some_before, all_before)) = (from.has_after(&seen), to.has_before(&seen));
            let because = if !streams.contains(&range.key.stream) || !some_after || !some_before {
                Some(WidenedBecause::OtherShards)
            } else {
                is_selected = true;
                match (all_after, all_before) {
                    (false, _) => Some(WidenedBecause::BeginsBefore),
                    (_, false) => Some(WidenedBecause::EndsAfter),
                    _ => None,
                }
            };
            // The reason that says most about the range comes first.
            widened = match (widened, because) {
                (Some(one), Some(other)) => Some(std::cmp::min(one, other)),
                (one, other) => one.or(other),
            };
        }
        if is_selected && dataset.is_none_or(|dataset| outline.may_have(dataset)) {
            selected.epochs.insert(epoch, widened);
        }
    }
    add_operations(outlines, live, &mut selected);
    selected
}

/// Adds the operations that have records of the epochs, and the other epochs that they have records of, until nothing is added.
fn add_operations(outlines: &[Outline], live: &BTreeSet<usize>, selected: &mut Selected) {
    let numbers: HashMap<&EpochId, usize> =
        outlines.iter().enumerate().map(|(number, outline)| (&outline.epoch, number)).collect();
    loop {
        let meets = |operation: &&usize| {
            !selected.operations.contains(*operation)
                && outlines[**operation]
                    .sources
                    .iter()
                    .any(|source| numbers.get(source).is_some_and(|number| selected.epochs.contains_key(number)))
        };
        let Some(operation) = live.iter().find(meets).copied() else { return };
        selected.operations.insert(operation);
        for source in &outlines[operation].sources {
            match numbers.get(source) {
                Some(number) => drop(selected.epochs.entry(*number).or_insert(Some(WidenedBecause::SharesObjects))),
                None => drop(selected.unknown.insert(source.clone())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use checkpoints::ShardId;

    use super::*;
    use crate::commit::{CheckpointName, SavedBy, SavedShard};

    fn stream(name: &str) -> StreamName {
        StreamName::new(name).unwrap()
    }

    fn key(name: &str, shard: &str) -> ShardKey {
        ShardKey::new(stream(name), ShardId::new(shard).unwrap())
    }

    fn at(sequence: u64) -> Position {
        if sequence == 0 { Position::Beginning } else { Position::at(sequence.into()) }
    }

    /// An epoch that was written at the n-th minute, of ranges (stream, shard, after, through, arrived through).
    fn epoch(number: u32, ranges: &[(&str, &str, u64, u64, Option<i64>)]) -> Outline {
        let range = |(name, shard, after, through, arrived_through): &(&str, &str, u64, u64, Option<i64>)| ReadOnce {
            key: key(name, shard),
            after: at(*after),
            through: at(*through),
            records: through - after,
            bytes: 10,
            arrived_through: *arrived_through,
        };
        Outline {
            epoch: EpochId::try_from(format!("20250113T10{number:02}00Z-aaaaaaaaaaaaaaaa-000001")).unwrap(),
            version: LogVersion(u64::from(number)),
            is_operation: false,
            written_ms: minute(number) + 30_000,
            ranges: ranges.iter().map(range).collect(),
            records: 0,
            raw_lines: None,
            definitions: BTreeMap::new(),
            datasets: BTreeSet::new(),
            has_dead_letters: false,
            sources: Vec::new(),
        }
    }

    fn operation(number: u32, outlines: &[Outline], sources: &[usize]) -> Outline {
        let sources = sources.iter().map(|source| outlines[*source].epoch.clone()).collect();
        Outline { is_operation: true, sources, ..epoch(number, &[]) }
    }

    fn minute(number: u32) -> i64 {
        1_736_762_400_000 + i64::from(number) * 60_000
    }

    #[test]
    fn one_dataset_selects_the_epochs_that_may_have_rows_of_it() {
        let of = |number: u32, datasets: &[&str], has_dead_letters: bool| Outline {
            datasets: datasets.iter().map(|name| (*name).to_owned()).collect(),
            has_dead_letters,
            ..epoch(number, &[("s", "a", u64::from(number), u64::from(number) + 1, None)])
        };
        let outlines = [of(0, &["users"], false), of(1, &["orders", "users"], false), of(2, &["users"], true)];
        let range = (&Bound::Open, &Bound::Open);
        let selected = select(&outlines, &BTreeSet::from([stream("s")]), range, Some("orders"), &BTreeSet::new());
        assert_eq!(selected.epochs.into_keys().collect::<Vec<_>>(), [1, 2]);
    }

    fn epochs_of(outlines: &[Outline], from: &Bound, to: &Bound) -> Vec<(usize, Option<WidenedBecause>)> {
        let live = outlines.iter().enumerate().filter(|(_, one)| one.is_operation).map(|(number, _)| number).collect();
        let selected = select(outlines, &BTreeSet::from([stream("s")]), (from, to), None, &live);
        selected.epochs.into_iter().collect()
    }

    fn checkpoint(shards: &[(&str, u64)], version: u64) -> Bound {
        let shard = |(shard, position): &(&str, u64)| SavedShard {
            key: key("s", shard),
            checkpoint: at(*position),
            parents: BTreeSet::new(),
            children: BTreeSet::new(),
            last_manifest: None,
        };
        Bound::Checkpoint(Box::new(NamedCheckpoint {
            name: CheckpointName::new("c").unwrap(),
            saved_at_ms: 0,
            saved_by: SavedBy::Command,
            log_version: Some(LogVersion(version)),
            behind_ms: BTreeMap::new(),
            definitions: BTreeMap::new(),
            shards: shards.iter().map(shard).collect(),
        }))
    }

    #[test]
    fn an_epoch_is_selected_if_it_has_records_after_a_checkpoint_and_widened_if_it_begins_before() {
        let outlines = [
            epoch(1, &[("s", "a", 0, 10, None)]),
            epoch(2, &[("s", "a", 10, 20, None)]),
            epoch(3, &[("s", "a", 20, 30, None), ("t", "x", 0, 5, None)]),
            // A shard that the checkpoint does not have: it began later.
            epoch(4, &[("s", "b", 0, 5, None)]),
        ];
        let selected = epochs_of(&outlines, &checkpoint(&[("a", 15)], 1), &Bound::Open);
        let begins = Some(WidenedBecause::BeginsBefore);
        assert_eq!(selected, [(1, begins), (2, Some(WidenedBecause::OtherShards)), (3, None)]);
        let exact = epochs_of(&outlines, &checkpoint(&[("a", 20)], 2), &Bound::Open);
        assert_eq!(exact, [(2, Some(WidenedBecause::OtherShards)), (3, None)]);
        // A shard whose row was removed before the checkpoint was saved.
        let later = epochs_of(&outlines, &checkpoint(&[("b", 5)], 3), &Bound::Open);
        assert_eq!(later, []);
        let between = epochs_of(&outlines, &checkpoint(&[("a", 10)], 1), &checkpoint(&[("a", 20)], 2));
        assert_eq!(between, [(1, None)]);
    }

    #[test]
    fn times_are_of_arrival_where_the_stream_knows_them() {
        let outlines = [
            epoch(1, &[("s", "a", 0, 10, Some(minute(1)))]),
            epoch(5, &[("s", "a", 10, 20, Some(minute(2)))]),
            epoch(6, &[("s", "a", 20, 30, Some(minute(6)))]),
        ];
        // The second epoch was written at minute 5, and its records arrived before minute 2.
        let selected = epochs_of(&outlines, &Bound::Time(minute(3)), &Bound::Open);
        assert_eq!(selected, [(2, Some(WidenedBecause::BeginsBefore))]);
        // A record of the second epoch may have arrived at that very time.
        let selected = epochs_of(&outlines, &Bound::Time(minute(1)), &Bound::Time(minute(2)));
        assert_eq!(selected, [(0, None), (1, Some(WidenedBecause::EndsAfter))]);
        assert_eq!(epochs_of(&outlines, &Bound::Time(minute(7)), &Bound::Open), []);
        // Without times of arrival, those of the epochs count.
        let outlines = [epoch(1, &[("s", "a", 0, 10, None)]), epoch(5, &[("s", "a", 10, 20, None)])];
        assert_eq!(epochs_of(&outlines, &Bound::Time(minute(3)), &Bound::Open), [(1, None)]);
    }

    #[test]
    fn an_operation_brings_all_epochs_whose_records_it_has() {
        let mut outlines = vec![
            epoch(1, &[("s", "a", 0, 10, None)]),
            epoch(2, &[("s", "a", 10, 20, None)]),
            epoch(3, &[("s", "a", 20, 30, None)]),
            epoch(4, &[("s", "a", 30, 40, None)]),
        ];
        let operations = [operation(5, &outlines, &[1, 2]), operation(6, &outlines, &[0, 1])];
        outlines.extend(operations);
        let shares = Some(WidenedBecause::SharesObjects);
        let selected = epochs_of(&outlines, &checkpoint(&[("a", 20)], 2), &Bound::Open);
        assert_eq!(
            selected,
            [(0, shares), (1, shares), (2, None), (3, None)],
            "and those of operations that these meet"
        );
        let none_live = select(
            &outlines,
            &BTreeSet::from([stream("s")]),
            (&checkpoint(&[("a", 20)], 2), &Bound::Open),
            None,
            &BTreeSet::new(),
        );
        assert_eq!(none_live.epochs.into_keys().collect::<Vec<_>>(), [2, 3], "what is not live shares nothing");
        assert_eq!(epochs_of(&outlines, &checkpoint(&[("a", 30)], 3), &Bound::Open), [(3, None)]);
    }

    #[test]
    fn only_epochs_of_the_chosen_streams_are_selected() {
        let outlines = [epoch(1, &[("t", "x", 0, 10, None)]), epoch(2, &[("s", "a", 0, 10, None)])];
        assert_eq!(epochs_of(&outlines, &Bound::Open, &Bound::Open), [(1, None)]);
    }
}
