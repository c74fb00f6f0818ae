//! Finding files: which exist, and what their names say about them.
//!
//! Owns: which files are read. Only regular files inside the source are read. A symlink is followed only to such a file. Pipes,
//! devices, links that leave the source and names that are not valid shard ids are skipped with a warning: whoever may put files
//! into a source must not make others read files through it. A path is checked again when its file is opened, since a link may
//! change. Does not own: logging what was skipped (`mod`). Hard links cannot be distinguished from files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use checkpoints::ShardId;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Plain,
    Gzip,
    Zstd,
}

/// The content of a file, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// One record on each line.
    Lines,
    /// One JSON document, or one record on each line: its first bytes decide.
    Json,
}

/// The path of a shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ShardPath {
    /// A file of lines.
    Lines(PathBuf),
    /// A folder, for its `.json` files.
    Folder(PathBuf),
}

impl ShardPath {
    pub(super) fn path(&self) -> &Path {
        match self {
            ShardPath::Lines(path) | ShardPath::Folder(path) => path,
        }
    }

    /// The shard id of a path at or below the root.
    pub(super) fn shard_id(&self, root: &Path) -> Result<ShardId, String> {
        let below = |path: &Path| {
            let base = if root.is_file() { root.parent().unwrap_or(root) } else { root };
            path.strip_prefix(base)
                .ok()
                .and_then(Path::to_str)
                .map(str::to_owned)
                .ok_or("its path is not UTF-8".to_owned())
        };
        let id = match self {
            ShardPath::Lines(path) => below(path)?,
            ShardPath::Folder(path) => match below(path)?.as_str() {
                "" => "./".to_owned(),
                folder => format!("{folder}/"),
            },
        };
        ShardId::new(id).map_err(|error| error.to_string())
    }

    /// The path of a shard id; `None` if it leaves the root.
    pub(super) fn of_shard(root: &Path, id: &str) -> Option<ShardPath> {
        let climbs = Path::new(id)
            .components()
            .any(|part| !matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
        if climbs {
            return None;
        }
        if root.is_file() {
            let own = root.file_name()?.to_str()?;
            return (own == id).then(|| ShardPath::Lines(root.to_owned()));
        }
        Some(match id.strip_suffix('/') {
            Some(".") => ShardPath::Folder(root.to_owned()),
            Some(folder) => ShardPath::Folder(root.join(folder)),
            None => ShardPath::Lines(root.join(id)),
        })
    }
}

/// What a file's name says: `None` if it is not for us.
pub(super) fn kind_of(name: &str) -> Option<(Content, Codec)> {
    if name.starts_with(['.', '_']) {
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
        // Files of delivery streams often have only the ending of their compression.
        _ if codec != Codec::Plain => Some((Content::Lines, codec)),
        _ => None,
    }
}

/// The files at or below a root.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The paths of all shards, in order.
    pub(super) shards: Vec<ShardPath>,
    /// Files and folders that were skipped, and why.
    pub(super) skipped: Vec<(PathBuf, &'static str)>,
}

/// Lists a root. A root that is a file is a file of lines, whatever its name.
pub(super) fn list(root: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    if root.is_file() {
        listing.shards.push(ShardPath::Lines(root.to_owned()));
        return Ok(listing);
    }
    walk(root, root, &mut listing)?;
    listing.shards.sort();
    Ok(listing)
}

fn walk(root: &Path, folder: &Path, listing: &mut Listing) -> io::Result<()> {
    let mut has_json = false;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, shown) = (entry.path(), entry.file_name());
        let shown = shown.to_string_lossy();
        // Links to folders are not followed: they could form a cycle.
        let is_folder = entry.file_type()?.is_dir();
        let kind = kind_of(&shown);
        if shown.starts_with(['.', '_']) || (!is_folder && kind.is_none()) {
            continue;
        }
        if let Some(problem) = problem_of(root, &entry)? {
            listing.skipped.push((path, problem));
        } else if is_folder {
            walk(root, &path, listing)?;
        } else if let Some((Content::Lines, _)) = kind {
            listing.shards.push(ShardPath::Lines(path));
        } else {
            has_json = true;
        }
    }
    if has_json {
        listing.shards.push(ShardPath::Folder(folder.to_owned()));
    }
    Ok(())
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
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if matches!(kind_of(name), Some((Content::Json, _))) && wanted(name) && problem_of(root, &entry)?.is_none() {
            let metadata = fs::metadata(entry.path())?;
            if metadata.is_file() {
                files.push(JsonFile {
                    name: name.to_owned(),
                    bytes: metadata.len(),
                    modified_ms: modified_ms(&metadata),
                });
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
    pub(super) bytes: u64,
    pub(super) modified_ms: i64,
}

/// The time of a file's last change, in milliseconds since 1970.
pub(super) fn modified_ms(metadata: &fs::Metadata) -> i64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}
