//! Objects from a report of S3 Inventory.
//!
//! Owns: reading CSV reports (plain or gzip), and finding the files of a report that was copied with its `manifest.json`. Does not
//! own: what the objects cost (`review`).
//!
//! A report's CSV has no header. Its columns are in `fileSchema` of `manifest.json`: `Bucket, Key, Size, StorageClass, …`, in an
//! order that depends on which fields were chosen. Keys are percent-encoded. So a CSV file alone needs the list of its columns, or
//! a first line with their names. The columns `Key`, `Size` and `StorageClass` are required.
//!
//! Limit: a line has 64 KiB at most.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::review::{StoredObject, Tier, Version};
use crate::lake::StorageClass;

/// The longest line. A key has 1,024 bytes at most, and three times as many when it is encoded.
const LINE_BYTES_MAX: usize = 64 << 10;
/// How a gzip file begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A report that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// A file cannot be read.
    #[error("could not read {path}: {error}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// A file is not what a report of S3 Inventory is.
    #[error("{path}: {problem}")]
    Malformed {
        /// The file, and the line if it is known.
        path: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}

impl InventoryError {
    fn malformed(path: impl Into<String>, problem: impl Into<String>) -> Self {
        InventoryError::Malformed { path: path.into(), problem: problem.into() }
    }

    fn unreadable(path: &Path, error: io::Error) -> Self {
        InventoryError::Unreadable { path: path.display().to_string(), error }
    }
}

/// Where each field is in a line.
#[derive(Debug, Default, PartialEq)]
struct Columns {
    key: usize,
    size: usize,
    class: usize,
    tier: Option<usize>,
    is_latest: Option<usize>,
    is_delete_marker: Option<usize>,
}

impl Columns {
    /// The columns of a list of names, as `fileSchema` has it.
    fn of(names: &[&str]) -> Result<Self, String> {
        let place = |name: &str| names.iter().position(|found| found.trim().eq_ignore_ascii_case(name));
        let required = |name: &str| {
            place(name).ok_or_else(|| format!("the inventory has no column {name}: add the field to its configuration"))
        };
        Ok(Columns {
            key: required("Key")?,
            size: required("Size")?,
            class: required("StorageClass")?,
            tier: place("IntelligentTieringAccessTier"),
            is_latest: place("IsLatest"),
            is_delete_marker: place("IsDeleteMarker"),
        })
    }
}

/// The part of a report's `manifest.json` that is needed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReportManifest {
    file_format: String,
    file_schema: String,
    files: Vec<ReportFile>,
}

#[derive(Deserialize)]
struct ReportFile {
    key: String,
}

/// Reads a report: its `manifest.json`, whose data files are in the folder `data` beside or above it, or one CSV file. `schema` has
/// the names of a CSV file's columns, separated by commas, if its first line does not. `on_object` gets every object and version.
///
/// # Errors
/// A file cannot be read, or is not a CSV report.
pub fn read_inventory(
    path: &Path,
    schema: Option<&str>,
    on_object: &mut dyn FnMut(StoredObject),
) -> Result<(), InventoryError> {
    if path.extension().is_none_or(|extension| extension != "json") {
        return read_file(path, schema, on_object);
    }
    let text = std::fs::read(path).map_err(|error| InventoryError::unreadable(path, error))?;
    let name = path.display().to_string();
    let manifest: ReportManifest = serde_json::from_slice(&text)
        .map_err(|error| InventoryError::malformed(&name, format!("not a manifest of S3 Inventory: {error}")))?;
    if manifest.file_format != "CSV" {
        let problem = format!("the report is {}; set the format of the inventory to CSV", manifest.file_format);
        return Err(InventoryError::malformed(name, problem));
    }
    for ReportFile { key } in &manifest.files {
        let file = find_file(path, key).ok_or_else(|| {
            let problem =
                format!("its data file {key} is neither beside it nor in a folder data: copy it from the bucket");
            InventoryError::malformed(&name, problem)
        })?;
        read_file(&file, Some(&manifest.file_schema), on_object)?;
    }
    Ok(())
}

/// A data file of a report that was copied: the last part of its key, in the usual places.
fn find_file(manifest: &Path, key: &str) -> Option<PathBuf> {
    let name = Path::new(key).file_name()?;
    let folder = manifest.parent()?;
    let places = [folder.join("data"), folder.join("../data"), folder.to_owned()];
    places.into_iter().map(|place| place.join(name)).find(|file| file.is_file())
}

fn read_file(path: &Path, schema: Option<&str>, on_object: &mut dyn FnMut(StoredObject)) -> Result<(), InventoryError> {
    let unreadable = |error| InventoryError::unreadable(path, error);
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    let is_gzip = file.fill_buf().map_err(unreadable)?.starts_with(&GZIP);
    let name = path.display().to_string();
    if is_gzip {
        read_lines(&name, BufReader::new(MultiGzDecoder::new(file)), schema, on_object)
    } else {
        read_lines(&name, file, schema, on_object)
    }
}

fn read_lines(
    name: &str,
    mut text: impl BufRead,
    schema: Option<&str>,
    on_object: &mut dyn FnMut(StoredObject),
) -> Result<(), InventoryError> {
    let malformed = |line: u64, problem: String| InventoryError::malformed(format!("{name}:{line}"), problem);
    let mut columns = schema
        .map(|names| Columns::of(&names.split(',').collect::<Vec<_>>()))
        .transpose()
        .map_err(|problem| malformed(0, problem))?;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = text.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line);
        let bytes = read.map_err(|error| InventoryError::unreadable(Path::new(name), error))?;
        if bytes == 0 {
            break;
        }
        if bytes > LINE_BYTES_MAX {
            return Err(malformed(number, format!("the line has more than {LINE_BYTES_MAX} bytes")));
        }
        let Ok(line) = std::str::from_utf8(&line) else {
            return Err(malformed(number, "the line is not UTF-8".to_owned()));
        };
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            continue;
        }
        let fields = fields(line).ok_or_else(|| malformed(number, "not a line of CSV".to_owned()))?;
        let Some(columns) = &columns else {
            if !fields.iter().any(|field| field.eq_ignore_ascii_case("Key")) {
                let problem = "a report of S3 Inventory has no names of columns: name its manifest.json instead, or copy \
                               fileSchema from there to --inventory-schema";
                return Err(malformed(number, problem.to_owned()));
            }
            let found = Columns::of(&fields.iter().map(String::as_str).collect::<Vec<_>>());
            columns = Some(found.map_err(|problem| malformed(number, problem))?);
            continue;
        };
        on_object(object(columns, &fields).map_err(|problem| malformed(number, problem))?);
    }
    Ok(())
}

/// The fields of a line. A field may be in quotes, and a quote in it is doubled. `None` if a quote is not closed.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut()?;
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    (!is_quoted).then_some(fields)
}

fn object(columns: &Columns, fields: &[String]) -> Result<StoredObject, String> {
    let field = |place: usize| fields.get(place).map(String::as_str);
    let flag = |place: Option<usize>| place.and_then(field).map(|value| value.eq_ignore_ascii_case("true"));
    let (Some(key), Some(size), Some(class)) = (field(columns.key), field(columns.size), field(columns.class)) else {
        return Err(format!("the line has {} fields only", fields.len()));
    };
    let version = match (flag(columns.is_delete_marker), flag(columns.is_latest)) {
        (Some(true), _) => Version::DeleteMarker,
        (_, Some(false)) => Version::Noncurrent,
        _ => Version::Current,
    };
    // A delete marker has no size.
    let bytes = match size {
        "" if version == Version::DeleteMarker => 0,
        size => size.parse().map_err(|_| format!("'{size}' is not a size"))?,
    };
    let tier = columns.tier.and_then(field).and_then(Tier::of);
    let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
    Ok(StoredObject { key, bytes, class: StorageClass::of(class), tier, version })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const SCHEMA: &str =
        "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, StorageClass, IntelligentTieringAccessTier";
    const LINES: &str = "\"b\",\"raw/events/year%3D2025/a%2Bb.json.gz\",\"v1\",\"true\",\"false\",\"1000\",\"STANDARD_IA\",\"\"\n\
                         \"b\",\"x,\"\"y\"\"\",\"v1\",\"false\",\"false\",\"7\",\"INTELLIGENT_TIERING\",\"ARCHIVE_ACCESS\"\r\n\
                         \"b\",\"z\",\"v2\",\"true\",\"true\",\"\",\"\",\"\"\n";

    fn read(path: &Path, schema: Option<&str>) -> Result<Vec<StoredObject>, String> {
        let mut objects = Vec::new();
        read_inventory(path, schema, &mut |object| objects.push(object)).map_err(|error| error.to_string())?;
        Ok(objects)
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn expected() -> Vec<StoredObject> {
        let object =
            |key: &str, bytes, class, tier, version| StoredObject { key: key.to_owned(), bytes, class, tier, version };
        vec![
            object("raw/events/year=2025/a+b.json.gz", 1000, StorageClass::StandardIa, None, Version::Current),
            object("x,\"y\"", 7, StorageClass::IntelligentTiering, Some(Tier::Archive), Version::Noncurrent),
            object("z", 0, StorageClass::Standard, None, Version::DeleteMarker),
        ]
    }

    #[test]
    fn a_report_is_read_by_its_manifest_with_the_data_where_a_copy_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = format!(
            "{{\"fileFormat\":\"CSV\",\"fileSchema\":\"{SCHEMA}\",\"files\":[{{\"key\":\"inv/b/all/data/1.csv.gz\",\"size\":9}}]}}"
        );
        for (at, data) in [("2026-11-01T00-00Z/manifest.json", "data/1.csv.gz"), ("manifest.json", "1.csv.gz")] {
            let root = folder.path().join(at.len().to_string());
            for (name, bytes) in [(at, manifest.as_bytes()), (data, &gzip(LINES)[..])] {
                std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
                std::fs::write(root.join(name), bytes).unwrap();
            }
            assert_eq!(read(&root.join(at), None), Ok(expected()), "{at}");
        }
    }

    #[test]
    fn a_csv_file_needs_the_names_of_its_columns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, LINES).unwrap();
        assert_eq!(read(&path, Some(SCHEMA)), Ok(expected()));
        assert!(read(&path, None).unwrap_err().contains("--inventory-schema"));
        assert!(read(&path, Some("Bucket, Key, Size")).unwrap_err().contains("no column StorageClass"));
        std::fs::write(&path, format!("{}\n{LINES}", SCHEMA.replace(", ", ","))).unwrap();
        assert_eq!(read(&path, None), Ok(expected()));
    }

    #[test]
    fn what_is_not_a_report_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let problem = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            read(&path, Some("Key, Size, StorageClass")).unwrap_err()
        };
        for (text, expected) in [
            (&b"a,1,STANDARD\nb,one,STANDARD\n"[..], "a.csv:2: 'one' is not a size"),
            (b"a,1\n", "a.csv:1: the line has 2 fields only"),
            (b"\"a,1,STANDARD\n", "a.csv:1: not a line of CSV"),
            (b"\xff,1,STANDARD\n", "a.csv:1: the line is not UTF-8"),
            (&[b'a'; LINE_BYTES_MAX + 9], "has more than 65536 bytes"),
        ] {
            let problem = problem(text);
            assert!(problem.contains(expected), "{problem}");
        }
        let missing = read(&folder.path().join("none.csv"), None).unwrap_err();
        assert!(missing.contains("could not read"), "{missing}");
        std::fs::write(
            folder.path().join("manifest.json"),
            "{\"fileFormat\":\"Parquet\",\"fileSchema\":\"\",\"files\":[]}",
        )
        .unwrap();
        assert!(
            read(&folder.path().join("manifest.json"), None)
                .unwrap_err()
                .contains("set the format of the inventory to CSV")
        );
    }
}
