//! Which rows the lease table has.
//!
//! Owns: which shards need a row and in which order rows are created, removing the rows of shards that their stream has
//! forgotten, and finding parents that a scan did not show. Does not own: who holds the leases (`manager`).
//!
//! A listed shard without a row gets one, unless it was read before. KCL removes the row of a shard that it has read to its
//! end as soon as the children are being read, although the stream still lists the shard. If the row were created again,
//! every record of the shard would be read a second time. A shard is read only after its parents were read to their ends, so
//! all ancestors of a shard that was read from are done.
//!
//! For that to follow from the rows alone, parents get their rows first. Each generation is created once the one before it
//! is in the table. So a crash leaves shards without their children, and never children without a parent that must still be
//! read.
//!
//! Two things must not be mistaken for new shards:
//!
//! - The shards of another stream of the same name. Before rows are created or removed, the source confirms that the list is of the
//!   stream that was opened. The worker that holds the first lease of a stream also asks with every list, so that one worker of
//!   a fleet does, and a replaced stream is noticed although nothing is read of it.
//! - Shards whose rows are gone: somebody deleted them, or the table, while workers run. Rows of listed shards are never removed. So
//!   a listed shard whose row was seen before, and is gone, ends the worker.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use checkpoints::{Lease, LeaseOwner, LeaseStore, NewLease, Position, ShardId, ShardKey, StoreError, StreamName};
use mutations::mutated;
use tokio::time::Instant;

use crate::retry::RetryPolicy;
use crate::source::{ShardSource, SourceShard};
use crate::trouble::{Attempts, Trouble};

/// The waits between two lists of a stream that cannot be listed. It is tried for as long as the worker runs.
const WAITS: RetryPolicy =
    RetryPolicy { within: Duration::ZERO, first: Duration::from_millis(250), longest: Duration::from_secs(1) };

/// Rows that are created together.
const CREATED_AT_ONCE: usize = 50;

/// What is remembered between scans.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    /// When the shards of each stream were listed last.
    listed_at: HashMap<StreamName, Instant>,
    /// The streams that could not be listed the last time.
    failing: HashMap<StreamName, FailingList>,
    /// Shards that are done, and that their stream did not list the last time.
    unlisted: HashSet<ShardKey>,
    /// Shards whose rows were seen.
    seen: HashSet<ShardKey>,
    /// Parents that have no row. They were asked for by key after a child's row had been seen.
    absent_parents: HashSet<ShardKey>,
}

/// A stream that cannot be listed for now.
#[derive(Debug)]
struct FailingList {
    attempts: Attempts,
    failures: usize,
    not_before: Instant,
}

impl Discovery {
    /// Creates rows for shards that need one, and removes those of shards that are done and that their streams have
    /// forgotten. Returns true if rows were created. Listing all streams takes `timeout` at most, and so does each other question.
    ///
    /// # Errors
    /// The store fails; or rows are gone ([`StoreError::Unusable`]).
    pub(super) async fn sync(
        &mut self,
        store: &dyn LeaseStore,
        sources: &[Arc<dyn ShardSource>],
        me: &LeaseOwner,
        timeout: Duration,
        leases: &[Lease],
    ) -> Result<bool, StoreError> {
        let due: Vec<&Arc<dyn ShardSource>> = sources.iter().filter(|source| self.is_due(&***source)).collect();
        // While this waits, nothing is renewed, and the other workers would take this one for dead. So one time is for all.
        let lists = due.iter().map(|source| tokio::time::timeout(timeout, source.shards()));
        let lists = futures::future::join_all(lists).await;
        let mut has_created = false;
        for (source, listed) in due.into_iter().zip(lists) {
            let stream = source.stream();
            let shards = match listed {
                Ok(Ok(shards)) => shards,
                Ok(Err(error)) => {
                    self.on_failure(stream, &error);
                    continue;
                }
                Err(_) => {
                    self.on_failure(stream, &format_args!("no response for {} ms", timeout.as_millis()));
                    continue;
                }
            };
            if let Some(mut failing) = self.failing.remove(stream) {
                failing.attempts.succeeded();
            }
            let listed: HashSet<ShardKey> =
                shards.iter().map(|shard| ShardKey::new(stream.clone(), shard.id.clone())).collect();
            let generations = missing(stream, shards, leases);
            let removed = self.forgotten(leases, stream, &listed);
            let is_first = first_of(leases, stream).is_some_and(|lease| lease.holder.is(me));
            if (is_first || !generations.is_empty() || !removed.is_empty()) && !is_same(&**source, timeout).await {
                continue;
            }
            self.listed_at.insert(stream.clone(), Instant::now());
            self.check_seen(store, stream, &generations).await?;
            for generation in generations {
                let (created, is_complete) = create(store, me, &generation).await?;
                has_created |= created > 0;
                if !is_complete {
                    // The next scan shows what the others have created.
                    self.listed_at.remove(stream);
                    break;
                }
            }
            for key in removed {
                if store.remove(&key).await? {
                    tracing::info!(stream = %key.stream, shard = %key.shard, "removed the lease of a shard that the stream has forgotten");
                }
                self.seen.remove(&key);
            }
            self.seen.extend(leases.iter().filter(|lease| lease.key.stream == *stream).map(|lease| lease.key.clone()));
        }
        Ok(has_created)
    }

    fn is_due(&self, source: &dyn ShardSource) -> bool {
        let stream = source.stream();
        self.listed_at.get(stream).is_none_or(|at| at.elapsed() >= source.lists_every())
            && self.failing.get(stream).is_none_or(|failing| Instant::now() >= failing.not_before)
    }

    /// A stream could not be listed. It is listed again ever less often.
    fn on_failure(&mut self, stream: &StreamName, problem: &dyn std::fmt::Display) {
        let failing = self.failing.entry(stream.clone()).or_insert_with(|| FailingList {
            attempts: Trouble::new(format!("listing the shards of stream {stream}")).attempts(),
            failures: 0,
            not_before: Instant::now(),
        });
        failing.failures += 1;
        failing.not_before = Instant::now() + WAITS.wait_after(failing.failures);
        failing.attempts.failed(problem);
    }

    /// Fails if rows that were seen before are gone. If they were created again, all records of their shards would be read again.
    async fn check_seen(
        &self,
        store: &dyn LeaseStore,
        stream: &StreamName,
        generations: &[Vec<NewLease>],
    ) -> Result<(), StoreError> {
        let new = generations.iter().flatten().map(|new| &new.key);
        let gone: Vec<ShardKey> = new.filter(|key| self.seen.contains(*key)).cloned().collect();
        if gone.is_empty() || mutated!(IgnoreLostRows) {
            return Ok(());
        }
        let rows = store.get(&gone).await?;
        let gone = gone.into_iter().zip(rows).filter(|(_, row)| row.is_none()).map(|(key, _)| key.shard.to_string());
        let gone: Vec<String> = gone.collect();
        if gone.is_empty() {
            return Ok(());
        }
        Err(StoreError::Unusable {
            store: "the lease table".to_owned(),
            problem: format!(
                "rows of stream {stream} are gone that were there before: {}. Restore the table, or stop all workers and make the rows \
                 again: shardlake leases rebuild",
                gone.join(", ")
            ),
        })
    }

    /// Lists the shards of a stream at the next scan: where a shard has ended, others begin.
    pub(super) fn list_next(&mut self, stream: &StreamName) {
        self.listed_at.remove(stream);
    }

    /// The rows to remove: those of shards that were read to their ends, that their stream did not list twice in a row, and whose
    /// children are being read. If the stream still had such a shard, its row would be created again and the shard read twice.
    fn forgotten(&mut self, leases: &[Lease], stream: &StreamName, listed: &HashSet<ShardKey>) -> Vec<ShardKey> {
        let of_stream = |lease: &&Lease| lease.key.stream == *stream;
        let (mut unlisted, mut removed) = (Vec::new(), Vec::new());
        for lease in leases.iter().filter(of_stream) {
            let is_gone = lease.is_done() && !listed.contains(&lease.key);
            let mut children = leases.iter().filter(of_stream).filter(|child| child.parents.contains(&lease.key.shard));
            let is_read = |child: &Lease| child.last_manifest.is_some() || child.is_done();
            if !is_gone || lease.children.is_empty() || !children.all(is_read) {
                continue;
            }
            let is_second_time = self.unlisted.contains(&lease.key);
            if is_second_time { &mut removed } else { &mut unlisted }.push(lease.key.clone());
        }
        self.unlisted.retain(|key| key.stream != *stream);
        self.unlisted.extend(unlisted);
        removed
    }

    /// Adds the rows of parents, and of their parents, that the scan did not show and whose children nobody has read yet.
    ///
    /// A scan of a large table takes several requests and shows rows as they are at several times: it may show a child's row
    /// and not its parent's, although the parent's was created first. A parent's row is removed only once its children are
    /// read. So a parent that has no row now, after the child's row was seen, is done.
    pub(super) async fn add_parents_not_shown(
        &mut self,
        store: &dyn LeaseStore,
        leases: &mut Vec<Lease>,
    ) -> Result<(), StoreError> {
        while !mutated!(TrustScans) {
            let shown: HashSet<&ShardKey> = leases.iter().map(|lease| &lease.key).collect();
            let unread = leases.iter().filter(|lease| lease.checkpoint.is_start());
            let parents = unread.flat_map(Lease::parent_keys);
            let not_shown: BTreeSet<ShardKey> = parents.filter(|parent| !shown.contains(parent)).collect();
            self.absent_parents.retain(|parent| not_shown.contains(parent));
            let unknown: Vec<ShardKey> =
                not_shown.into_iter().filter(|parent| !self.absent_parents.contains(parent)).collect();
            if unknown.is_empty() {
                break;
            }
            let rows = store.get(&unknown).await?;
            let absent = unknown.into_iter().zip(&rows).filter(|(_, row)| row.is_none()).map(|(parent, _)| parent);
            self.absent_parents.extend(absent);
            leases.extend(rows.into_iter().flatten());
        }
        Ok(())
    }
}

/// All leases of these sources' streams.
pub(super) async fn list_leases(
    store: &dyn LeaseStore,
    sources: &[Arc<dyn ShardSource>],
) -> Result<Vec<Lease>, StoreError> {
    let streams: HashSet<_> = sources.iter().map(|source| source.stream()).collect();
    let mut leases = store.list().await?;
    leases.retain(|lease| streams.contains(&lease.key.stream));
    Ok(leases)
}

/// Creates the rows of a generation. Returns how many this worker has created, and whether all of them exist now.
///
/// If a hundred workers of a stream of a thousand shards start at once, each of them finds that all rows are missing, and a table cannot take
/// a hundred thousand writes. So each begins somewhere else, and stops where another one has been.
async fn create(store: &dyn LeaseStore, me: &LeaseOwner, generation: &[NewLease]) -> Result<(usize, bool), StoreError> {
    let batches: Vec<&[NewLease]> = generation.chunks(CREATED_AT_ONCE).collect();
    let mut hasher = DefaultHasher::new();
    me.as_str().hash(&mut hasher);
    let begin = hasher.finish() % (batches.len() as u64).max(1);
    let (before, after) = batches.split_at(usize::try_from(begin).unwrap_or(0));
    let mut count = 0;
    for batch in after.iter().chain(before) {
        let created = store.create(batch).await?.len();
        count += created;
        if created < batch.len() && batches.len() > 1 {
            return Ok((count, false));
        }
    }
    Ok((count, true))
}

/// The first lease of a stream whose shard is not done.
fn first_of<'l>(leases: &'l [Lease], stream: &StreamName) -> Option<&'l Lease> {
    leases.iter().filter(|lease| lease.key.stream == *stream && !lease.is_done()).min_by_key(|lease| &lease.key)
}

/// Whether a source confirms that its stream is the one that was opened.
async fn is_same(source: &dyn ShardSource, timeout: Duration) -> bool {
    let stream = source.stream();
    match tokio::time::timeout(timeout, source.is_same()).await {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => tracing::warn!(%stream, %error, "failed to confirm the identity of the stream; retrying"),
        Err(_) => tracing::warn!(%stream, "timed out confirming the identity of the stream; retrying"),
    }
    false
}

/// The rows that must be created, generation by generation. `leases` is the whole table, `shards` all that the stream lists.
pub(crate) fn missing(stream: &StreamName, shards: Vec<SourceShard>, leases: &[Lease]) -> Vec<Vec<NewLease>> {
    let of_stream: Vec<&Lease> = leases.iter().filter(|lease| lease.key.stream == *stream).collect();
    let done = ancestors_of_read(&shards, &of_stream);
    let known: HashSet<&ShardId> = of_stream.iter().map(|lease| &lease.key.shard).collect();
    let mut left: Vec<SourceShard> =
        shards.into_iter().filter(|shard| !known.contains(&shard.id) && !done.contains(&shard.id)).collect();
    let mut generations = Vec::new();
    while !left.is_empty() {
        let waiting: HashSet<ShardId> = left.iter().map(|shard| shard.id.clone()).collect();
        let (mut first, mut rest): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|shard| !shard.parents.iter().any(|parent| waiting.contains(parent)));
        if first.is_empty() {
            // Shards that are each other's parents. No stream has them, and a row for each does no harm.
            first = std::mem::take(&mut rest);
        }
        generations.push(first.into_iter().map(|shard| new_lease(stream, shard)).collect());
        left = rest;
    }
    generations
}

fn new_lease(stream: &StreamName, shard: SourceShard) -> NewLease {
    let SourceShard { id, parents, first, hash_range } = shard;
    let first = if mutated!(ChildFromItsTip) && !parents.is_empty() { Position::Latest } else { first };
    let key = ShardKey::new(stream.clone(), id);
    NewLease { parents: parents.into_iter().collect(), hash_range, ..NewLease::new(key, first) }
}

/// The ancestors of all shards that were read from.
fn ancestors_of_read(shards: &[SourceShard], leases: &[&Lease]) -> HashSet<ShardId> {
    let mut parents: HashMap<&ShardId, Vec<&ShardId>> = HashMap::new();
    for shard in shards {
        parents.entry(&shard.id).or_default().extend(&shard.parents);
    }
    for lease in leases {
        parents.entry(&lease.key.shard).or_default().extend(&lease.parents);
    }
    let was_read = |lease: &&&Lease| matches!(lease.checkpoint, Position::At { .. } | Position::End);
    let mut from: Vec<&ShardId> = leases.iter().filter(was_read).map(|lease| &lease.key.shard).collect();
    let mut ancestors = HashSet::new();
    while let Some(shard) = from.pop() {
        for parent in parents.get(shard).into_iter().flatten() {
            if ancestors.insert((*parent).clone()) {
                from.push(parent);
            }
        }
    }
    ancestors
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use checkpoints::MemoryStore;

    use crate::source::{Behind, ShardReader, SourceError};

    fn id(id: &str) -> ShardId {
        ShardId::new(id).unwrap()
    }

    /// A chain of four generations, `a` to `d`, and `x` without parents or children.
    fn listed() -> Vec<SourceShard> {
        let with = |own: &str, parents: &[&str]| SourceShard {
            parents: parents.iter().map(|parent| id(parent)).collect(),
            ..SourceShard::alone(id(own))
        };
        vec![with("d", &["c"]), with("b", &["a"]), with("a", &[]), with("c", &["b"]), with("x", &[])]
    }

    fn stream() -> StreamName {
        StreamName::new("s").unwrap()
    }

    fn row(shard: &str, checkpoint: Position) -> Lease {
        Lease::new(NewLease::new(ShardKey::new(stream(), id(shard)), checkpoint))
    }

    fn ids(leases: &[Lease]) -> Vec<Vec<String>> {
        let ids = |generation: Vec<NewLease>| generation.iter().map(|new| new.key.shard.to_string()).collect();
        missing(&stream(), listed(), leases).into_iter().map(ids).collect()
    }

    #[derive(Debug, Default)]
    struct ListedStream {
        is_replaced: AtomicBool,
        asked: AtomicUsize,
    }

    #[async_trait::async_trait]
    impl ShardSource for ListedStream {
        fn stream(&self) -> &StreamName {
            static NAME: std::sync::LazyLock<StreamName> = std::sync::LazyLock::new(stream);
            &NAME
        }

        fn lists_every(&self) -> Duration {
            Duration::ZERO
        }

        async fn shards(&self) -> Result<Vec<SourceShard>, SourceError> {
            Ok(listed())
        }

        async fn open(&self, _: &ShardId, _: &Position) -> Result<Box<dyn ShardReader>, SourceError> {
            unreachable!("nothing is read")
        }

        async fn behind(&self, _: &ShardId, _: &Position) -> Result<Behind, SourceError> {
            Ok(Behind::Nothing)
        }

        async fn is_same(&self) -> Result<(), SourceError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let other = SourceError::Unreadable { place: "s".to_owned(), problem: "another stream".to_owned() };
            if self.is_replaced.load(Ordering::Relaxed) { Err(other) } else { Ok(()) }
        }
    }

    async fn synced(
        discovery: &mut Discovery,
        store: &MemoryStore,
        source: &Arc<ListedStream>,
    ) -> Result<bool, StoreError> {
        let (me, leases) = (LeaseOwner::new("me").unwrap(), store.list().await?);
        let sources = [Arc::clone(source) as Arc<dyn ShardSource>];
        discovery.sync(store, &sources, &me, Duration::from_secs(1), &leases).await
    }

    #[tokio::test]
    async fn shards_of_another_stream_get_no_rows() {
        let (mut discovery, store, source) =
            (Discovery::default(), MemoryStore::new(), Arc::new(ListedStream::default()));
        source.is_replaced.store(true, Ordering::Relaxed);
        assert_eq!(synced(&mut discovery, &store, &source).await, Ok(false));
        assert_eq!(store.rows(), []);
        source.is_replaced.store(false, Ordering::Relaxed);
        assert_eq!(synced(&mut discovery, &store, &source).await, Ok(true));
        assert_eq!((store.rows().len(), source.asked.load(Ordering::Relaxed)), (5, 2));
        // Nothing is created. Only the holder of the first lease asks.
        synced(&mut discovery, &store, &source).await.unwrap();
        assert_eq!(source.asked.load(Ordering::Relaxed), 2);
        let first = ShardKey::new(stream(), id("a"));
        store.take(&LeaseOwner::new("me").unwrap(), &first, 0).await.unwrap().unwrap();
        synced(&mut discovery, &store, &source).await.unwrap();
        assert_eq!(source.asked.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn workers_that_start_at_once_do_not_all_create_all_rows() {
        let (store, stream) = (MemoryStore::new(), stream());
        let row = |number: usize| {
            NewLease::new(ShardKey::new(stream.clone(), id(&format!("{number:04}"))), Position::Beginning)
        };
        let generation: Vec<NewLease> = (0..1_000).map(row).collect();
        let (mut created, mut stopped) = (0, 0);
        for worker in 0..50 {
            let me = LeaseOwner::new(format!("w{worker}")).unwrap();
            let (count, is_complete) = create(&store, &me, &generation).await.unwrap();
            created += count;
            stopped += usize::from(!is_complete);
        }
        assert_eq!((created, store.rows().len()), (1_000, 1_000));
        assert_eq!(stopped, 49, "all but the first find rows of another worker, and stop there");
        let few = &generation[..50];
        assert_eq!(create(&store, &LeaseOwner::new("w").unwrap(), few).await.unwrap(), (0, true));
    }

    #[tokio::test]
    async fn rows_that_are_gone_are_not_created_again_while_a_worker_runs() {
        let (mut discovery, store, source) =
            (Discovery::default(), MemoryStore::new(), Arc::new(ListedStream::default()));
        synced(&mut discovery, &store, &source).await.unwrap();
        synced(&mut discovery, &store, &source).await.unwrap();
        let emptied = MemoryStore::new();
        let error = synced(&mut discovery, &emptied, &source).await.unwrap_err();
        assert!(error.to_string().contains("rows of stream s are gone"), "{error}");
        assert_eq!(emptied.rows(), []);
        // A scan that does not show a row says nothing.
        store.hide(&ShardKey::new(stream(), id("x")), true);
        assert_eq!(synced(&mut discovery, &store, &source).await, Ok(false));
    }

    #[test]
    fn parents_get_their_rows_first() {
        assert_eq!(ids(&[]), [vec!["a", "x"], vec!["b"], vec!["c"], vec!["d"]]);
        assert_eq!(ids(&[row("b", Position::Beginning)]), [vec!["a", "c", "x"], vec!["d"]]);
    }

    #[test]
    fn a_shard_whose_row_kcl_removed_is_not_read_again() {
        let read = Position::at(7_u64.into());
        assert_eq!(ids(&[row("c", read.clone())]), [vec!["d", "x"]], "parent and grandparent are done");
        assert_eq!(ids(&[row("b", Position::End)]), [vec!["c", "x"], vec!["d"]]);
        let other = StreamName::new("other").unwrap();
        let of_another = Lease::new(NewLease::new(ShardKey::new(other, id("c")), read));
        assert_eq!(ids(&[of_another]).len(), 4, "a shard of another stream says nothing");
    }

    #[test]
    fn a_child_that_was_not_read_from_says_nothing_about_its_parents() {
        for start in [Position::Beginning, Position::Latest, Position::Since { ms: 5 }] {
            assert_eq!(ids(&[row("c", start)]), [vec!["d", "a", "x"], vec!["b"]]);
        }
    }

    #[test]
    fn shards_that_are_each_others_parents_get_rows_too() {
        let ring = |own: &str, parent: &str| SourceShard { parents: vec![id(parent)], ..SourceShard::alone(id(own)) };
        let made = missing(&stream(), vec![ring("a", "b"), ring("b", "a")], &[]);
        assert_eq!(made.iter().map(Vec::len).collect::<Vec<_>>(), [2]);
    }
}
