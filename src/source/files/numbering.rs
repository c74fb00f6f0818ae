//! Which `.json` files of a folder get a number now.
//!
//! Owns: comparing a folder with its registry: files that are new, replaced, grown, renamed, or not complete yet. Does not own: the
//! numbers (`registry`), reading the files (`folder`). Everything here blocks.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use pipeline::documents::{Documents, unfinished};

use crate::source::files::folder::Folder;
use crate::source::files::identity::{HEAD_BYTES, Stat, read_range};
use crate::source::files::list::{Codec, JsonFile, inside, json_files, kind_of};
use crate::source::files::matching::Now;
use crate::source::files::registry::{Known, Mark, NameHash, NewFile, SeenFile, name_hash};
use crate::source::text::complete::is_document;
use crate::source::text::decompress::{codec_by_content, decoder};
use crate::source::text::{is_closed, is_complete};

/// Bytes of the end of a file that its mark covers.
const TAIL_BYTES: u64 = 1 << 10;

/// What is to be recorded of a folder.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    pub(super) new: Vec<NewFile>,
    pub(super) seen: Vec<SeenFile>,
    /// Files that were compared and have only another time.
    pub(super) touched: Vec<(String, Stat)>,
    /// Files that are not complete, and why.
    pub(super) incomplete: Vec<(String, &'static str)>,
}

/// What decides whether a file is complete.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) now: Now,
    /// How long a file that ends unexpectedly must not have changed.
    pub(super) patience_ms: i64,
    pub(super) record_bytes_max: usize,
    pub(super) documents: Documents,
}

fn hash_of(bytes: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes)
}

fn inode_of(stat: &Stat) -> u64 {
    hash_of(&[stat.device.to_be_bytes(), stat.inode.to_be_bytes()].concat())
}

fn modified_of(stat: &Stat) -> u64 {
    hash_of(&[stat.modified.0.to_be_bytes(), stat.modified.1.to_be_bytes()].concat())
}

/// A hash of what a file was when it had this many bytes.
fn content_of(file: &File, bytes: u64) -> io::Result<u64> {
    let length = |bytes: u64| usize::try_from(bytes).unwrap_or(HEAD_BYTES);
    let mut content = read_range(file, 0, length(bytes.min(HEAD_BYTES as u64)))?;
    let tail = bytes.saturating_sub(TAIL_BYTES).max(content.len() as u64);
    content.extend(read_range(file, tail, length(bytes - tail.min(bytes)))?);
    Ok(hash_of(&content))
}

impl Mark {
    fn new(file: &File, stat: &Stat) -> io::Result<Self> {
        let content = content_of(file, stat.bytes)?;
        Ok(Mark { bytes: stat.bytes, inode: inode_of(stat), modified: modified_of(stat), content })
    }

    /// Whether nothing shows that the file has changed.
    pub(super) fn fits(&self, stat: &Stat) -> bool {
        (self.bytes, self.inode, self.modified) == (stat.bytes, inode_of(stat), modified_of(stat))
    }

    /// Whether the file begins with everything that it had when it was marked.
    pub(super) fn is_of(&self, file: &File, stat: &Stat) -> io::Result<bool> {
        Ok(self.fits(stat) || (stat.bytes >= self.bytes && content_of(file, self.bytes)? == self.content))
    }
}

/// Compares a folder with what is known of it. `touched`: files whose content was compared before.
pub(super) fn compare(
    folder: &Folder,
    known: &Known,
    touched: &HashMap<String, Stat>,
    checks_known: bool,
    patience: Patience,
) -> io::Result<Numbering> {
    let mut numbering = Numbering::default();
    let files = json_files(&folder.root, &folder.path, |name| checks_known || !known.contains(name))?;
    let mut new = Vec::new();
    for JsonFile { name, stat } in files {
        let age = patience.now.ms.saturating_sub(stat.modified_ms);
        let mark = known.mark(&name);
        if mark.flatten().is_some_and(|mark| mark.fits(&stat)) || touched.get(&name) == Some(&stat) {
            continue;
        }
        if !patience.now.complete && (0..patience.now.settle_ms).contains(&age) {
            numbering.incomplete.push((name, "it is still being written"));
            continue;
        }
        let Some((file, stat)) = open(folder, &name)? else { continue };
        let from = match mark {
            Some(None) => {
                // An older version has numbered it as it was.
                numbering.seen.push(SeenFile { mark: Mark::new(&file, &stat)?, name, was: None });
                continue;
            }
            Some(Some(mark)) if mark.is_of(&file, &stat)? => {
                if mark.bytes == stat.bytes {
                    numbering.touched.push((name, stat));
                    continue;
                }
                mark.bytes
            }
            None | Some(Some(_)) => 0,
        };
        if stat.bytes == from {
            continue;
        }
        if let Some(why) = why_incomplete(&file, &name, from, &stat, age, patience)? {
            numbering.incomplete.push((name, why));
            continue;
        }
        let mark_now = Mark::new(&file, &stat)?;
        new.push((mark.is_none(), NewFile { name, from, mark: mark_now }));
    }
    find_renamed(folder, known, new, &mut numbering)?;
    Ok(numbering)
}

/// Opens a file to compare it. Its reader checks once more that it is inside the source.
fn open(folder: &Folder, name: &str) -> io::Result<Option<(File, Stat)>> {
    let path = folder.path.join(name);
    let mut options = File::options();
    let opened = match options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path) {
        // It is a link.
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => inside(&folder.root, &path).and_then(File::open),
        opened => opened,
    };
    match opened {
        Ok(file) => {
            let metadata = file.metadata()?;
            Ok(metadata.is_file().then(|| (file, Stat::of(&metadata))))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sorts out the new names of files that have numbers.
fn find_renamed(
    folder: &Folder,
    known: &Known,
    new: Vec<(bool, NewFile)>,
    numbering: &mut Numbering,
) -> io::Result<()> {
    let inodes: HashSet<u64> = new.iter().filter(|(is_new, _)| *is_new).map(|(_, file)| file.mark.inode).collect();
    let before = if inodes.is_empty() { HashMap::new() } else { known.of_inodes(&inodes) };
    let mut present: Option<HashSet<NameHash>> = None;
    for (is_new, file) in new {
        let is_same = |mark: &Mark| (mark.bytes, mark.content) == (file.mark.bytes, file.mark.content);
        let same = before.get(&file.mark.inode).filter(|_| is_new).into_iter().flatten();
        let same: Vec<NameHash> = same.filter(|(_, mark)| is_same(mark)).map(|(name, _)| *name).collect();
        if !same.is_empty() && present.is_none() {
            let all = json_files(&folder.root, &folder.path, |_| true)?;
            present = Some(all.iter().map(|file| name_hash(&file.name)).collect());
        }
        let gone = same.into_iter().find(|name| present.as_ref().is_some_and(|present| !present.contains(name)));
        match gone {
            Some(was) => numbering.seen.push(SeenFile { name: file.name, mark: file.mark, was: Some(was) }),
            None => numbering.new.push(file),
        }
    }
    Ok(())
}

/// Why a file is not complete yet, if it is not.
fn why_incomplete(
    file: &File,
    name: &str,
    from: u64,
    stat: &Stat,
    age: i64,
    patience: Patience,
) -> io::Result<Option<&'static str>> {
    let is_recent = (0..patience.patience_ms).contains(&age);
    let named = kind_of(name).map_or(Codec::Plain, |(_, codec)| codec);
    let codec = codec_by_content(named, &read_range(file, 0, 64)?);
    if codec != Codec::Plain {
        // A damaged file that does not change any more is reported by its reader.
        let within = if patience.now.complete { patience.now.settle_ms } else { patience.patience_ms };
        if !(0..within).contains(&age) {
            return Ok(None);
        }
        let mut content = file.try_clone()?;
        io::Seek::seek(&mut content, io::SeekFrom::Start(from))?;
        let damaged = io::copy(&mut decoder(content.take(stat.bytes - from), codec)?, &mut io::sink()).is_err();
        return Ok(damaged.then_some("it is compressed, ends unexpectedly, and was changed just now"));
    }
    if !patience.now.complete && !is_recent {
        return Ok(None);
    }
    let end = read_range(file, stat.bytes.saturating_sub(64).max(from), 64)?;
    let looks_whole = matches!(end.trim_ascii_end().last(), Some(b'}' | b']'));
    if looks_whole && !is_recent {
        return Ok(None);
    }
    let bytes = stat.bytes - from;
    let is_large = bytes > patience.record_bytes_max as u64;
    let begin = if is_large { stat.bytes - patience.record_bytes_max as u64 } else { from };
    let text = read_range(file, begin, usize::try_from(stat.bytes - begin).unwrap_or(0))?;
    let is_whole = if patience.documents.many {
        unfinished(&text, !is_large, patience.documents).is_none_or(|begin| is_complete(&text[begin..]))
    } else if is_large || !is_document(&text) {
        match memchr::memrchr(b'\n', &text).map(|end| &text[end + 1..]) {
            Some(last) => last.trim_ascii().is_empty() || is_complete(last),
            // A line that is larger than a record may be is rejected, whatever follows.
            None => is_large || is_complete(&text),
        }
    } else {
        let trimmed = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&text).trim_ascii();
        !matches!(trimmed.first(), Some(b'{' | b'[')) || is_closed(trimmed)
    };
    Ok((!is_whole).then_some("it ends inside a JSON document"))
}

/// How much of a folder is not numbered, in bytes.
pub(super) fn unnumbered(folder: &Folder, known: &Known, unread: &HashMap<String, u64>) -> io::Result<u64> {
    let mut left = 0;
    for JsonFile { name, stat } in json_files(&folder.root, &folder.path, |_| true)? {
        let bytes = match (unread.get(&name), known.mark(&name)) {
            (Some(from), _) => stat.bytes.saturating_sub(*from),
            (None, None) => stat.bytes,
            (None, Some(None)) => 0,
            (None, Some(Some(mark))) if mark.fits(&stat) => 0,
            (None, Some(Some(mark))) => match open(folder, &name)? {
                Some((file, stat)) if mark.is_of(&file, &stat)? => stat.bytes - mark.bytes,
                Some(_) => stat.bytes,
                None => 0,
            },
        };
        left += bytes;
    }
    Ok(left)
}
