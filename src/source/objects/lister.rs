//! Finding objects: listing a place again and again, and giving numbers to what is new.
//!
//! Owns: what was listed before, the entries that are written, and objects that were overwritten. Does not own: the entries' format
//! (`catalog`), when a list is due (`Shared::list_while_needed`).
//!
//! In memory it has 16 bytes for each object (and the table's spare room): a hash of its key, and one of its content. So a million objects
//! take some 40 MB, of the one worker that lists. Neither keys nor entries are kept.
//!
//! An object that was overwritten after it got its number is not read again in silence: it is recorded as a loss about which somebody
//! must decide. `--then start` reads the new content as another object; `--then position` never reads it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use checkpoints::{ShardId, ShardKey};
use futures::{StreamExt, TryStreamExt};
use pipeline::time::format_rfc3339;

use crate::lake::Written;
use crate::source::SourceError;
use crate::source::losses::{self, Loss, LossKind, Then};
use crate::source::objects::Shared;
use crate::source::objects::catalog::{Count, ENTRY_OBJECTS_MAX, Entry, KeyHash, hash_of};
use crate::source::objects::keys::{is_hidden, is_read, name_of};
use crate::source::objects::store::Object;
use crate::source::text::complete::TEXTS_MAX;

/// Entries that are loaded at the same time.
const LOADS: usize = 8;
/// Objects that were overwritten and are reported at the same time. More are reported once somebody has decided about these.
const OVERWRITTEN_MAX: usize = 100;

/// What was listed before, and what it came to.
pub(super) struct Lister {
    shared: Arc<Shared>,
    /// The content of each key that has a number, by hashes.
    known: HashMap<KeyHash, u32>,
    /// The entries that are in `known`.
    entries: u64,
    totals: Vec<Count>,
}

/// What one list found beside new objects.
#[derive(Debug, Default)]
struct Findings {
    readable: u64,
    /// Names that are not read, by ending.
    names: BTreeMap<String, u64>,
    overwritten: Vec<Object>,
    overwritten_count: u64,
}

/// A hash of the content that a key had.
fn content_of(object: &Object) -> u32 {
    let text = format!("{}/{}", object.etag, object.bytes);
    let hash = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, text.as_bytes());
    u32::try_from(hash >> 32).unwrap_or_default()
}

/// The id of a content of a key, as losses have it.
pub(super) fn id_of(object: &Object) -> ShardId {
    let id = ShardId::new(format!("{}//{}", object.key, object.etag));
    id.unwrap_or_else(|_| {
        // Too long, or with control characters.
        let hash: String = hash_of(&object.key).iter().map(|byte| format!("{byte:02x}")).collect();
        ShardId::new(format!("object-{hash}")).expect("letters and digits are a valid id")
    })
}

impl Lister {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let totals = vec![Count::default(); shared.shards()];
        Lister { shared, known: HashMap::new(), entries: 0, totals }
    }

    /// Notes the objects of the next entry.
    fn absorb(&mut self, entry: &Entry) -> Result<(), SourceError> {
        if entry.before != self.totals {
            let problem = format!("entry {} of its objects does not continue the one before it", self.entries + 1);
            return Err(self.shared.unreadable(problem));
        }
        for object in entry.objects.iter().chain(&entry.seen) {
            self.known.insert(hash_of(&object.key), content_of(object));
        }
        self.totals = entry.after();
        self.entries += 1;
        self.shared.found_entries(self.entries);
        Ok(())
    }

    /// Reads the entries that were added since the last call.
    async fn load(&mut self) -> Result<(), SourceError> {
        // The first time there may be many.
        let first = self.entries == 0;
        let latest = if first { self.shared.catalog.latest().await? } else { self.entries };
        let shared = Arc::clone(&self.shared);
        let mut loads = futures::stream::iter(self.entries + 1..=latest)
            .map(|number| {
                let shared = Arc::clone(&shared);
                async move { shared.catalog.load(number).await }
            })
            .buffered(LOADS);
        while let Some(entry) = loads.try_next().await? {
            match entry {
                Some(entry) => self.absorb(&entry)?,
                None => {
                    let problem = format!("entry {} of its objects is not in the lake", self.entries + 1);
                    return Err(self.shared.unreadable(problem));
                }
            }
        }
        while let Some(entry) = shared.catalog.load(self.entries + 1).await? {
            self.absorb(&entry)?;
        }
        Ok(())
    }

    /// Lists all objects once, and gives numbers to those that are new.
    pub(super) async fn pass(&mut self) -> Result<(), SourceError> {
        self.load().await?;
        let mut findings = Findings::default();
        let mut new = Vec::new();
        let mut pages = self.shared.place.list();
        while let Some(page) = pages.next().await? {
            for object in page {
                self.sort(object, &mut findings, &mut new);
            }
            if new.len() >= ENTRY_OBJECTS_MAX {
                self.record(std::mem::take(&mut new), Vec::new()).await?;
            }
        }
        self.record(new, Vec::new()).await?;
        let undecided = self.decide(&findings).await?;
        let had_objects = self.totals.iter().any(|count| count.objects > 0);
        self.shared.report.passed(findings.names, undecided, findings.readable > 0 || had_objects);
        Ok(())
    }

    fn sort(&self, object: Object, findings: &mut Findings, new: &mut Vec<Object>) {
        if is_hidden(&object.key) {
            return;
        }
        if !is_read(&object.key) {
            *findings.names.entry(crate::source::files::ending_of(name_of(&object.key))).or_default() += 1;
            return;
        }
        findings.readable += 1;
        match self.known.get(&hash_of(&object.key)) {
            Some(content) if *content == content_of(&object) => {}
            Some(_) => {
                findings.overwritten_count += 1;
                if findings.overwritten.len() < OVERWRITTEN_MAX {
                    findings.overwritten.push(object);
                }
            }
            None if object.bytes == 0 => {}
            None => new.push(object),
        }
    }

    /// Gives numbers to objects, in this order, and notes what is not to be read. Whoever was first has decided: what others wrote
    /// meanwhile is loaded, and the objects that it is about are left out.
    async fn record(&mut self, mut new: Vec<Object>, mut seen: Vec<Object>) -> Result<(), SourceError> {
        while !new.is_empty() || !seen.is_empty() {
            if let Some(full) =
                self.totals.iter().position(|count| count.objects + ENTRY_OBJECTS_MAX as u64 > TEXTS_MAX)
            {
                let problem = format!(
                    "shard {full} has {TEXTS_MAX} objects, which are as many as it may have: read a narrower prefix, or give the source \
                     another `name` and more `shards`"
                );
                return Err(self.shared.unreadable(problem));
            }
            let some = new.iter().take(ENTRY_OBJECTS_MAX).cloned().collect();
            let ignored = seen.iter().take(ENTRY_OBJECTS_MAX).cloned().collect();
            let entry = Entry::new(self.shared.stream.clone(), self.totals.clone(), some, ignored);
            match self.shared.catalog.add(self.entries + 1, &entry).await? {
                Written::New => self.absorb(&entry)?,
                // Another worker was first, or this one in a request whose response was lost.
                Written::KeyTaken => self.load().await?,
            }
            let is_new = |object: &Object| self.known.get(&hash_of(&object.key)) != Some(&content_of(object));
            new.retain(is_new);
            seen.retain(is_new);
        }
        Ok(())
    }

    /// Does what was decided about objects that were overwritten, and reports those about which nobody has decided. Returns how many.
    async fn decide(&mut self, findings: &Findings) -> Result<u64, SourceError> {
        let (mut start, mut ignore) = (Vec::new(), Vec::new());
        for object in &findings.overwritten {
            let key = ShardKey::new(self.shared.stream.clone(), id_of(object));
            let known = losses::find(&*self.shared.lake, &key, LossKind::Unclear).await;
            match known.map_err(|error| self.shared.lake_error(&error))? {
                Some((_, Some(Then::Start))) => start.push(object.clone()),
                Some((_, Some(Then::Position))) => ignore.push(object.clone()),
                Some((_, None)) => {}
                None => self.report_overwritten(key).await?,
            }
        }
        let decided = (start.len() + ignore.len()) as u64;
        self.record(start, ignore).await?;
        Ok(findings.overwritten_count - decided)
    }

    async fn report_overwritten(&self, ShardKey { stream, shard }: ShardKey) -> Result<(), SourceError> {
        let problem = format!(
            "an object was overwritten after it was listed; its new content is not read. To read it as another object, run `shardlake \
             losses accept '{shard}' --then start`; to leave it, use `--then position`"
        );
        let found_at = format_rfc3339(self.shared.clock.now_ms());
        let loss = Loss { stream, shard, kind: LossKind::Unclear, problem, found_at };
        losses::report(&*self.shared.lake, &loss).await.map_err(|error| self.shared.lake_error(&error))
    }
}
