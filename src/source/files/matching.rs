//! Which of the files that exist now is which shard.
//!
//! Owns: comparing a listing with the catalog: files that are the same, renamed, copied elsewhere, replaced, grown or new. Does not
//! own: listing (`list`), what identifies a file (`identity`), keeping the result (`catalog`). Everything here blocks.
//!
//! | the file | is |
//! | --- | --- |
//! | has a known inode and the same beginning | that file, whatever its name is now, also one that is not read |
//! | has a known inode and another beginning | a new file: the old one was overwritten or cut, or its inode was used again |
//! | has a known name, another inode and the same beginning, and the old inode is gone | that file, moved to another disk or restored |
//! | has the name of a rotated log, which is not read, and was written after a log of the name before was first seen | a new file |
//! | is called like a lost file (`app.ndjson`, `app.ndjson.1.gz`), and its text begins like that file's | that file: a rotated copy |
//! | is compressed, complete, and longer than before with the same content | that file and a new part of it |
//! | anything else | a new file |

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use checkpoints::ShardId;

use crate::source::files::catalog::{FileRecord, Known, Place, State};
use crate::source::files::identity::{HEAD_BYTES, Head, Likeness, Stat, read_head, read_range, tail_hash};
use crate::source::files::list::{Codec, Listing, Present, Root, rotated_from};
use crate::source::text::decompress::{codec_by_content, codec_of, decoder};

/// What decides whether a file has settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// The time of day, in milliseconds since 1970.
    pub(super) ms: i64,
    /// How long a file must not have changed.
    pub(super) settle_ms: i64,
    /// Files are complete as they are.
    pub(super) complete: bool,
}

/// What a scan found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The shards whose files exist.
    pub(super) shards: Vec<ShardId>,
    /// Records to be added to the catalog.
    pub(super) records: Vec<FileRecord>,
    /// Where the files of these records are.
    pub(super) places: Vec<(ShardId, Place)>,
    /// There are more new files.
    pub(super) has_more: bool,
    /// Files that are read, although files of their names are not.
    pub(super) renamed: HashSet<PathBuf>,
    /// Names of files that have not settled.
    pub(super) waiting: Vec<String>,
    /// Shards whose damaged file has grown.
    pub(super) grown: Vec<ShardId>,
    /// Files that cannot be shards, and why.
    pub(super) invalid: Vec<(PathBuf, String)>,
}

/// The most files that one scan gives shards to. The next one continues.
const NEW_MAX: usize = 1_000;

/// What reading a file's beginning shows.
struct Opened {
    path: PathBuf,
    stat: Stat,
    first: Vec<u8>,
    codec: Codec,
}

impl Opened {
    fn new(root: &Root, path: &Path, named: Codec) -> io::Result<Self> {
        let path = root.inside(path)?;
        let file = File::open(&path)?;
        let stat = Stat::of(&file.metadata()?);
        let first = read_head(&file)?;
        let codec = codec_by_content(named, &first);
        Ok(Opened { path, stat, first, codec })
    }

    fn place(&self, path: &Path) -> Place {
        Place { path: path.to_owned(), stat: self.stat }
    }

    fn tail(&self, end: u64) -> io::Result<u64> {
        tail_hash(&File::open(&self.path)?, end)
    }

    /// Whether the text has this many bytes, and not more.
    fn text_has(&self, bytes: u64) -> io::Result<bool> {
        if self.codec == Codec::Plain {
            return Ok(self.stat.bytes == bytes);
        }
        let mut text = decoder(File::open(&self.path)?.take(self.stat.bytes), self.codec)?.take(bytes + 1);
        Ok(io::copy(&mut text, &mut io::sink()).is_ok_and(|copied| copied == bytes))
    }

    /// The beginning of its text.
    fn text(&self) -> io::Result<Vec<u8>> {
        if self.codec == Codec::Plain {
            return Ok(self.first.clone());
        }
        let mut text = Vec::new();
        // Damage ends the text.
        let file = File::open(&self.path)?.take(self.stat.bytes);
        let _ = decoder(file, self.codec)?.take(HEAD_BYTES as u64).read_to_end(&mut text);
        Ok(text)
    }
}

/// How a file compares with the record of its inode.
enum Match {
    Same,
    /// It has grown after it was complete. `at_end`: the new content begins a compressed stream of its own.
    Grown {
        at_end: bool,
    },
    Changed,
}

fn compare(record: &FileRecord, opened: &Opened) -> io::Result<Match> {
    let likeness = record.head.compare(&opened.first);
    if record.state == State::Cut {
        // It stays unclear, whatever is added.
        return Ok(Match::Same);
    }
    if record.state == State::Closed || likeness == Likeness::Differs {
        return Ok(Match::Changed);
    }
    let now = opened.stat.bytes;
    if record.codec == Codec::Plain {
        let has_ended = record.state == State::Ended && now > record.bytes;
        return Ok(if has_ended { Match::Grown { at_end: true } } else { Match::Same });
    }
    if now < record.bytes || opened.tail(record.bytes)? != record.tail {
        return Ok(Match::Changed);
    }
    if now == record.bytes {
        return Ok(Match::Same);
    }
    let at_end = codec_of(&read_range(&File::open(&opened.path)?, record.bytes, 4)?) == record.codec;
    Ok(Match::Grown { at_end })
}

/// Whether a file has not changed for long enough.
fn is_settled(known: &mut Known, path: &Path, stat: &Stat, now: Now) -> bool {
    let age = now.ms.saturating_sub(stat.modified_ms);
    if now.complete || age >= now.settle_ms {
        return true;
    }
    if age >= 0 {
        return false;
    }
    // A time in the future says nothing: the file is observed instead.
    let (seen, since) = known.odd_times.entry(path.to_owned()).or_insert((*stat, now.ms));
    if seen != stat {
        (*seen, *since) = (*stat, now.ms);
    }
    now.ms.saturating_sub(*since) >= now.settle_ms
}

/// Compares a listing with the catalog.
pub(super) fn scan(root: &Root, listing: &Listing, known: &mut Known, now: Now) -> io::Result<Found> {
    let mut found = Found::default();
    let before = std::mem::take(&mut known.places);
    let mut candidates = Vec::new();
    for present in &listing.files {
        let stat = present.stat;
        let record =
            if present.is_link { known.of_path(&present.name) } else { known.of_inode(stat.device, stat.inode) };
        let record = record.filter(|record| record.link == present.is_link).cloned();
        let Some(record) = record else {
            candidates.push(present);
            continue;
        };
        if known.places.contains_key(&record.shard) {
            // A second name of the same file, or a link to it.
            continue;
        }
        if is_unchanged(&record, before.get(&record.shard), present) {
            claim(known, &record, &Place { path: present.path.clone(), stat }, &mut found);
            continue;
        }
        let opened = match Opened::new(root, &present.path, present.codec) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // The reader fails in the same way, and reports it.
            Err(_) => {
                claim(known, &record, &Place { path: present.path.clone(), stat }, &mut found);
                continue;
            }
        };
        let place = opened.place(&present.path);
        match compare(&record, &opened)? {
            Match::Changed => candidates.push(present),
            Match::Same => claim(known, &record, &place, &mut found),
            Match::Grown { at_end } => {
                claim(known, &record, &place, &mut found);
                if !at_end && record.state == State::Damaged {
                    found.grown.push(record.shard.clone());
                } else if at_end && is_settled(known, &present.path, &opened.stat, now) {
                    add_part(known, &record, &opened, &present.name, &mut found)?;
                } else if at_end {
                    found.waiting.push(present.name.clone());
                }
            }
        }
    }
    find_renamed(root, listing, known, &mut found);
    let unseen = find_unseen(root, listing, known, now, &found);
    candidates.extend(&unseen);
    resolve(root, known, candidates, now, &mut found)?;
    Ok(found)
}

/// Whether a file is as the last scan found it, or as it was recorded, so that its content need not be compared.
fn is_unchanged(record: &FileRecord, before: Option<&Place>, present: &Present) -> bool {
    let Present { path, stat, .. } = present;
    let as_before = before.is_some_and(|place| (&place.path, &place.stat) == (path, stat));
    let as_recorded = (record.bytes, record.modified) == (stat.bytes, stat.modified)
        && (record.device, record.inode) == (stat.device, stat.inode);
    match record.state {
        State::Closed => false,
        // What it has beyond its end is a part of its own.
        State::Ended => as_before && stat.bytes <= record.bytes,
        State::Open => as_before || as_recorded,
        State::Cut | State::Damaged => as_before,
    }
}

/// Notes where a file is, and with it the parts before it.
fn claim(known: &mut Known, record: &Arc<FileRecord>, place: &Place, found: &mut Found) {
    let mut next = Some(Arc::clone(record));
    while let Some(record) = next {
        known.found(&record.shard, place.clone());
        found.shards.push(record.shard.clone());
        next = record.after.as_ref().and_then(|shard| known.record(shard)).cloned();
    }
}

/// A compressed file has a new part.
fn add_part(known: &Known, record: &FileRecord, opened: &Opened, name: &str, found: &mut Found) -> io::Result<()> {
    let taken: HashSet<&ShardId> = found.records.iter().map(|record| &record.shard).collect();
    let Ok(shard) = known.new_shard(name, |shard| taken.contains(shard)) else { return Ok(()) };
    let bytes = opened.stat.bytes;
    let tail = if opened.codec == Codec::Plain { 0 } else { opened.tail(bytes)? };
    let modified = opened.stat.modified;
    let (from, after) = (record.bytes, Some(record.shard.clone()));
    let path = name.to_owned();
    let part = FileRecord { shard, path, from, after, bytes, modified, tail, state: State::Open, ..record.clone() };
    found.records.push(part);
    Ok(())
}

/// Finds files that have a name now that is not read.
fn find_renamed(root: &Root, listing: &Listing, known: &mut Known, found: &mut Found) {
    let lost: HashSet<u64> =
        known.records().filter(|record| !known.places.contains_key(&record.shard)).map(|record| record.inode).collect();
    for (path, _) in listing.others.iter().filter(|(_, inode)| lost.contains(inode)) {
        let Ok(opened) = Opened::new(root, path, Codec::Plain) else { continue };
        let record = known.of_inode(opened.stat.device, opened.stat.inode).cloned();
        if let Some(record) = record.filter(|record| !known.places.contains_key(&record.shard))
            && matches!(compare(&record, &opened), Ok(Match::Same | Match::Grown { .. }))
        {
            claim(known, &record, &opened.place(path), found);
            found.renamed.insert(path.clone());
        }
    }
    // The copy that `copytruncate` made.
    let copied: Vec<Arc<FileRecord>> = known
        .records()
        .filter(|record| !known.places.contains_key(&record.shard) && record.codec == Codec::Plain)
        .filter(|record| record.from == 0 && matches!(record.state, State::Open | State::Cut))
        .cloned()
        .collect();
    let by_stem = Stems::new(copied.into_iter());
    if by_stem.is_empty() {
        return;
    }
    for (path, _) in listing.others.iter().filter(|(_, inode)| !lost.contains(inode)) {
        let Some(name) = root.name_of(path) else { continue };
        let mut opened = None;
        for record in by_stem.of(&name) {
            if opened.is_none() {
                opened = Opened::new(root, path, Codec::Plain).ok();
            }
            let Some(opened) = &opened else { break };
            let is_same = opened.codec == Codec::Plain && record.head.compare(&opened.first) == Likeness::Same;
            if is_same && !known.places.contains_key(&record.shard) && opened.stat.bytes >= record.bytes {
                claim(known, record, &opened.place(path), found);
                found.renamed.insert(path.clone());
                break;
            }
        }
    }
}

/// Finds logs that were created and rotated while nobody watched. Their names are not read, but a log of the name that they had is, and
/// they were written after that one was first seen.
fn find_unseen(root: &Root, listing: &Listing, known: &mut Known, now: Now, found: &Found) -> Vec<Present> {
    let mut unseen = Vec::new();
    let mut stems = None;
    for (path, _) in listing.others.iter().filter(|(path, _)| !found.renamed.contains(path)) {
        let Some(name) = root.name_of(path) else { continue };
        let Some(base) = first_of(known, &name) else { continue };
        let Ok(opened) = Opened::new(root, path, Codec::Plain) else { continue };
        let stat = opened.stat;
        let is_known =
            known.of_inode(stat.device, stat.inode).is_some_and(|record| known.places.contains_key(&record.shard));
        let is_later = stat.modified_ms > base.recorded_ms && base.recorded_ms > 0;
        if is_known || !is_later || opened.codec != Codec::Plain || !is_settled(known, path, &stat, now) {
            continue;
        }
        // A copy of a file that is known is not a file of its own.
        let stems = stems.get_or_insert_with(|| Stems::new(known.records().cloned()));
        let is_copy = stems.of(&name).any(|record| record.head.compare(&opened.first) != Likeness::Differs);
        if !is_copy {
            unseen.push(Present { path: path.clone(), name, is_link: false, codec: Codec::Plain, stat });
        }
    }
    unseen
}

/// The record of the first log of the name that a rotated log had.
fn first_of(known: &Known, name: &str) -> Option<Arc<FileRecord>> {
    let first = ShardId::new(rotated_from(name)?).ok()?;
    known.record(&first).cloned()
}

/// Decides what the other files are.
fn resolve(root: &Root, known: &mut Known, candidates: Vec<&Present>, now: Now, found: &mut Found) -> io::Result<()> {
    if candidates.is_empty() {
        return Ok(());
    }
    let plain = known.records().filter(|record| record.codec == Codec::Plain && record.from == 0);
    let stems = Stems::new(plain.filter(|record| record.state != State::Closed).cloned());
    let mut taken: HashSet<ShardId> = found.records.iter().map(|record| record.shard.clone()).collect();
    let mut inodes: HashSet<(u64, u64)> = HashSet::new();
    for present in candidates {
        if found.records.len() >= NEW_MAX {
            found.has_more = true;
            break;
        }
        let name = &present.name;
        // A file without content is not a file yet: nothing identifies it.
        let is_second = !present.is_link && !inodes.insert((present.stat.device, present.stat.inode));
        if present.stat.bytes == 0 || is_second {
            continue;
        }
        let opened = match Opened::new(root, &present.path, present.codec) {
            Ok(opened) if opened.stat.bytes > 0 => opened,
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => {
                // The reader fails in the same way, and reports it.
                found.shards.extend(ShardId::new(name.as_str()).ok());
                continue;
            }
        };
        let stat = opened.stat;
        let is_settled = is_settled(known, &present.path, &stat, now);
        if opened.codec != Codec::Plain && !is_settled {
            found.waiting.push(name.clone());
            continue;
        }
        let copy = match moved(known, present, &opened)? {
            Some(copy) => Some(copy),
            None => rotated(known, &stems, present, &opened, is_settled, &taken)?,
        };
        let shard = match copy {
            Some(Copy::Waiting) => {
                found.waiting.push(name.clone());
                continue;
            }
            Some(Copy::Of(shard)) => shard,
            None => match known.new_shard(name, |shard| taken.contains(shard)) {
                Ok(shard) => shard,
                Err(problem) => {
                    found.invalid.push((present.path.clone(), problem));
                    continue;
                }
            },
        };
        taken.insert(shard.clone());
        let Stat { device, inode, bytes, modified, .. } = stat;
        // A shard that has ended stays so. What its file has beyond that is a part of its own.
        let ended = known.record(&shard).filter(|record| record.state == State::Ended);
        let state = ended.map_or(State::Open, |record| record.state);
        let bytes = ended.filter(|_| opened.codec == Codec::Plain).map_or(bytes, |record| record.bytes);
        found.places.push((shard.clone(), opened.place(&present.path)));
        let recorded_ms = known.record(&shard).map_or(now.ms, |record| record.recorded_ms);
        found.records.push(FileRecord {
            shard,
            path: name.clone(),
            link: present.is_link,
            device,
            inode,
            codec: opened.codec,
            from: 0,
            after: None,
            bytes,
            modified,
            recorded_ms,
            head: Head::of(&opened.first),
            tail: if opened.codec == Codec::Plain { 0 } else { opened.tail(bytes)? },
            state,
        });
    }
    Ok(())
}

/// What a file is a copy of.
enum Copy {
    Of(ShardId),
    /// It may be a copy that is being made.
    Waiting,
}

/// The file of the same name that was moved to another disk or restored, and is now this one.
fn moved(known: &Known, present: &Present, opened: &Opened) -> io::Result<Option<Copy>> {
    let Some(record) = known.of_path(&present.name) else { return Ok(None) };
    let is_lost = !known.places.contains_key(&record.shard) && record.link == present.is_link;
    let is_other_inode = present.is_link || (record.device, record.inode) != (opened.stat.device, opened.stat.inode);
    let is_same = is_lost
        && is_other_inode
        && record.codec == opened.codec
        && record.from == 0
        && !matches!(compare(record, opened)?, Match::Changed | Match::Grown { at_end: false })
        && record.head.compare(&opened.first) == Likeness::Same;
    Ok(is_same.then(|| Copy::Of(record.shard.clone())))
}

/// The file of which this one is a rotated copy: it has a name like that file's, and its text begins as that file did.
fn rotated(
    known: &Known,
    stems: &Stems,
    present: &Present,
    opened: &Opened,
    is_settled: bool,
    taken: &HashSet<ShardId>,
) -> io::Result<Option<Copy>> {
    let mut text = None;
    for record in stems.of(&present.name) {
        if taken.contains(&record.shard) || record.path == present.name {
            continue;
        }
        if text.is_none() {
            text = Some(opened.text()?);
        }
        if record.head.compare(text.as_deref().unwrap_or_default()) != Likeness::Same {
            continue;
        }
        let is_lost = !known.places.contains_key(&record.shard);
        if is_lost && (record.state != State::Ended || opened.text_has(record.bytes)?) {
            return Ok(Some(Copy::Of(record.shard.clone())));
        }
        if !is_lost && !is_settled {
            return Ok(Some(Copy::Waiting));
        }
    }
    Ok(None)
}

/// Files by the beginnings of their names, for finding those that a rotated file may be.
struct Stems(HashMap<String, Vec<Arc<FileRecord>>>);

impl Stems {
    fn new(records: impl Iterator<Item = Arc<FileRecord>>) -> Self {
        let mut stems: HashMap<String, Vec<Arc<FileRecord>>> = HashMap::new();
        for record in records {
            let name = record.shard.as_str().split("//").next().unwrap_or_default();
            let file = name.rfind('/').map_or(0, |slash| slash + 1);
            let end = name[file..].find('.').map_or(name.len(), |dot| file + dot);
            stems.entry(name[..end].to_owned()).or_default().push(record);
        }
        // The newest file of a name first.
        let number = |record: &Arc<FileRecord>| {
            record.shard.as_str().rsplit_once("//").and_then(|(_, number)| number.parse::<u64>().ok()).unwrap_or(1)
        };
        stems.values_mut().for_each(|records| records.sort_by_key(|record| std::cmp::Reverse(number(record))));
        Stems(stems)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The files whose names, without their endings, this name begins with.
    fn of<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Arc<FileRecord>> {
        let file = name.rfind('/').map_or(0, |slash| slash + 1);
        let ends = name[file..].char_indices().filter(|(_, letter)| !letter.is_alphanumeric()).map(|(at, _)| at);
        let ends = ends.chain([name.len() - file]).filter(|end| *end > 0);
        ends.filter_map(move |end| self.0.get(&name[..file + end])).flatten()
    }
}
