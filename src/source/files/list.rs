//! Finding files: which exist, and what their names say about them.
//!
//! Owns: which files are read. Only regular files inside the source are read. A symlink is followed only to such a file. Pipes,
//! devices, links that leave the source and names that are not valid shard ids are skipped with a warning: whoever may put files
//! into a source must not make others read files through it. A path is checked again when its file is opened, since a link may
//! change. Does not own: logging what was skipped (`mod`). Hard links cannot be distinguished from files.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

use checkpoints::ShardId;

use crate::source::files::identity::Stat;
pub(super) use crate::source::text::decompress::Codec;

/// The content of a file, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source) enum Content {
    /// One record on each line.
    Lines,
    /// One JSON document, or one record on each line: its first bytes decide.
    Json,
}

/// What a file's name says: `None` if files of such names are not read.
pub(in crate::source) fn kind_of(name: &str) -> Option<(Content, Codec)> {
    if is_hidden(name) {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    let (inner, codec) = match lower.rsplit_once('.') {
        Some((inner, "gz")) => (inner, Codec::Gzip),
        Some((inner, "zst")) => (inner, Codec::Zstd),
        _ => (lower.as_str(), Codec::Plain),
    };
    match inner.rsplit_once('.').map(|(_, ending)| ending) {
        Some("ndjson" | "jsonl") => Some((Content::Lines, codec)),
        Some("json") => Some((Content::Json, codec)),
        // Files of delivery streams often have only the ending of their compression, or none.
        _ if codec != Codec::Plain => Some((Content::Lines, codec)),
        None if !lower.ends_with('~') => Some((Content::Lines, codec)),
        Some(ending) if is_delivery(ending) => Some((Content::Lines, codec)),
        _ => None,
    }
}

/// Whether files of this name are ignored without a word.
pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

/// Whether what follows the last dot of a name is the end of a delivery stream's name and a time, as Firehose writes it
/// (`STREAM-1-2025-07-08-18-40-00-…`), and not an ending.
fn is_delivery(ending: &str) -> bool {
    let known = ["json", "ndjson", "jsonl", "log", "txt", "csv", "out", "err"];
    let mut parts = ending.split('-');
    let is_rotated = parts.next().is_none_or(|first| known.contains(&first));
    let digits: Vec<usize> =
        parts.map(|part| if part.bytes().all(|byte| byte.is_ascii_digit()) { part.len() } else { 0 }).collect();
    !is_rotated && digits.windows(4).any(|window| window == [4, 2, 2, 2])
}

/// The ending of a name that is not read, for the summary.
pub(in crate::source) fn ending_of(name: &str) -> String {
    if name.ends_with('~') {
        return "~".to_owned();
    }
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    // A long or odd ending is a part of the name, which may be anything.
    let is_plain = ending.len() <= 12 && ending.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_plain { format!(".{ending}") } else { "others".to_owned() }
}

/// The name that a log had before it was rotated, if this is the name of a rotated log: `app.ndjson` for `app.ndjson.1` and
/// `app.ndjson-20250708`.
pub(super) fn rotated_from(name: &str) -> Option<&str> {
    let end = name.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '-').len();
    let (base, suffix) = match name[..end].strip_suffix('.') {
        Some(base) => (base, &name[end..]),
        None => name.split_at(end),
    };
    let is_numbered = suffix.len() <= 20 && suffix.bytes().any(|byte| byte.is_ascii_digit());
    let file = base.rsplit('/').next()?;
    (is_numbered && kind_of(file) == Some((Content::Lines, Codec::Plain))).then_some(base)
}

/// A file whose name is read as lines.
#[derive(Debug, Clone)]
pub(super) struct Present {
    pub(super) path: PathBuf,
    /// Its path below the base, with `/`.
    pub(super) name: String,
    /// It is a link to a file of the source.
    pub(super) is_link: bool,
    /// How it is compressed, by its name.
    pub(super) codec: Codec,
    pub(super) stat: Stat,
}

/// The files at or below a root.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Files of lines, in the order of their paths; links last.
    pub(super) files: Vec<Present>,
    /// Folders that have `.json` files, in order.
    pub(super) folders: Vec<PathBuf>,
    /// Regular files of all other names, and their inodes: a file that was renamed may be one of them.
    pub(super) others: Vec<(PathBuf, u64)>,
    /// Files and folders that were skipped, and why.
    pub(super) skipped: Vec<(PathBuf, &'static str)>,
}

/// The root of a source.
#[derive(Debug, Clone)]
pub(super) struct Root {
    /// Its path without links.
    pub(super) path: PathBuf,
    /// It is one file, and not a folder.
    pub(super) is_file: bool,
}

impl Listing {
    /// The number of files whose names are not read, by ending. `read`: those that are read in spite of their names.
    pub(super) fn not_read(&self, root: &Root, read: &HashSet<PathBuf>) -> BTreeMap<String, u64> {
        let mut endings = BTreeMap::new();
        for (path, _) in self.others.iter().filter(|(path, _)| !root.is_file && !read.contains(path)) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !is_hidden(&name) {
                *endings.entry(ending_of(&name)).or_default() += 1;
            }
        }
        endings
    }
}

impl Root {
    pub(super) fn new(path: PathBuf) -> Self {
        let is_file = path.is_file();
        Root { path, is_file }
    }

    /// The folder that names of shards are below.
    pub(super) fn base(&self) -> &Path {
        if self.is_file { self.path.parent().unwrap_or(&self.path) } else { &self.path }
    }

    /// The name of a path at or below the base; `None` if it is not UTF-8 or elsewhere.
    pub(super) fn name_of(&self, path: &Path) -> Option<String> {
        path.strip_prefix(self.base()).ok()?.to_str().map(str::to_owned)
    }

    /// The path of a name; `None` if it leaves the base.
    pub(super) fn path_of(&self, name: &str) -> Option<PathBuf> {
        let stays = |part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir);
        Path::new(name).components().all(stays).then(|| self.base().join(name))
    }

    /// The real path of a file, as [`inside`]. Of a source that is one file, a link is never followed.
    pub(super) fn inside(&self, path: &Path) -> io::Result<PathBuf> {
        let real = inside(self.base(), path)?;
        if self.is_file && real != path {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it has become a link"));
        }
        Ok(real)
    }

    /// The shard of a folder's `.json` files.
    pub(super) fn folder_shard(&self, folder: &Path) -> Result<ShardId, String> {
        let name = self.name_of(folder).ok_or("its path is not UTF-8")?;
        let id = if name.is_empty() { "./".to_owned() } else { format!("{name}/") };
        ShardId::new(id).map_err(|error| error.to_string())
    }

    /// The folder of a shard of `.json` files; `None` if the shard is a file of lines, or leaves the base.
    pub(super) fn folder_of(&self, shard: &str) -> Option<PathBuf> {
        if self.is_file {
            return None;
        }
        let folder = shard.strip_suffix('/').filter(|folder| !folder.is_empty())?;
        self.path_of(folder)
    }

    /// Lists all files. A root that is a file is a file of lines, whatever its name.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        if self.is_file {
            let own = self.path.file_name();
            for entry in fs::read_dir(self.base())? {
                let entry = entry?;
                if own != Some(&entry.file_name()) && entry.file_type()?.is_file() {
                    listing.others.push((entry.path(), entry.ino()));
                }
            }
            match fs::metadata(&self.path) {
                Ok(metadata) if metadata.is_file() => {
                    let name = own.and_then(|name| name.to_str()).unwrap_or_default().to_owned();
                    let codec = kind_of(&name).map_or(Codec::Plain, |(_, codec)| codec);
                    let (path, stat) = (self.path.clone(), Stat::of(&metadata));
                    listing.files.push(Present { path, name, is_link: false, codec, stat });
                }
                Ok(_) => listing.skipped.push((self.path.clone(), "it is not a regular file")),
                // Between renaming a log and creating the next one.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            return Ok(listing);
        }
        self.walk(&self.path, &mut listing)?;
        listing.files.sort_by(|left, right| (left.is_link, &left.path).cmp(&(right.is_link, &right.path)));
        listing.folders.sort();
        Ok(listing)
    }

    fn walk(&self, folder: &Path, listing: &mut Listing) -> io::Result<()> {
        let mut has_json = false;
        let entries = match fs::read_dir(folder) {
            // It was removed in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder != self.path => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let (path, shown) = (entry.path(), entry.file_name());
            let shown = shown.to_string_lossy();
            // Links to folders are not followed: they could form a cycle.
            let file_type = entry.file_type()?;
            let kind = kind_of(&shown);
            if is_hidden(&shown) || (!file_type.is_dir() && kind.is_none()) {
                if file_type.is_file() {
                    listing.others.push((path, entry.ino()));
                }
                continue;
            }
            if let Some(problem) = problem_of(&self.path, &entry)? {
                listing.skipped.push((path, problem));
            } else if file_type.is_dir() {
                self.walk(&path, listing)?;
            } else if let Some((Content::Lines, codec)) = kind {
                let Some(name) = self.name_of(&path) else { continue };
                // A file that was removed in the meantime is not there.
                let Ok(metadata) = fs::metadata(&path) else { continue };
                let (is_link, stat) = (file_type.is_symlink(), Stat::of(&metadata));
                listing.files.push(Present { path, name, is_link, codec, stat });
            } else {
                has_json = true;
            }
        }
        if has_json {
            listing.folders.push(folder.to_owned());
        }
        Ok(())
    }
}

/// Why a file or folder is skipped.
fn problem_of(root: &Path, entry: &fs::DirEntry) -> io::Result<Option<&'static str>> {
    let name = entry.file_name();
    let Some(name) = name.to_str() else { return Ok(Some("its name is not UTF-8")) };
    if name.chars().any(char::is_control) {
        return Ok(Some("its name has a control character"));
    }
    let kind = entry.file_type()?;
    if kind.is_file() || kind.is_dir() {
        return Ok(None);
    }
    if !kind.is_symlink() {
        return Ok(Some("it is not a regular file"));
    }
    match inside(root, &entry.path()) {
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Ok(Some("it is a link to something that is not a regular file inside the source"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some("it is a link to nothing")),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied || error.raw_os_error() == Some(libc::ELOOP) => {
            Ok(Some("it is a link that cannot be followed"))
        }
        Err(error) => Err(error),
    }
}

/// The real path of a file, which must be a regular file at or below the root.
///
/// # Errors
/// It does not exist, or (`InvalidData`) it is something else.
pub(super) fn inside(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let real = fs::canonicalize(path)?;
    if real.starts_with(root) && fs::metadata(&real)?.is_file() {
        return Ok(real);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "it is not a regular file inside the source, or a link that leaves it",
    ))
}

/// The `.json` files of one folder whose names are `wanted`, in the order of their names.
pub(super) fn json_files(root: &Path, folder: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<JsonFile>> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(folder) {
        // A folder that was removed has no files.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if matches!(kind_of(name), Some((Content::Json, _))) && wanted(name) && problem_of(root, &entry)?.is_none() {
            // A file that was removed in the meantime is not there.
            let Ok(metadata) = fs::metadata(entry.path()) else { continue };
            if metadata.is_file() {
                files.push(JsonFile { name: name.to_owned(), stat: Stat::of(&metadata) });
            }
        }
    }
    files.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(files)
}

/// A `.json` file of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JsonFile {
    pub(super) name: String,
    pub(super) stat: Stat,
}

/// The time of a file's last change, in milliseconds since 1970.
pub(super) fn modified_ms(metadata: &fs::Metadata) -> i64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}
