//! A whole lake, searched for marks.
//!
//! Owns: how each part of a lake is searched, and where a mark may be:
//!
//! - in `raw/`, and in the `rawData` of a dead letter;
//! - in a column in which it lands unchanged, by its definition;
//! - in the keys of objects, and in the partition values of a manifest, if that is a partition column;
//! - in the bounds of a column in a manifest, if no rule changes the column, it has one value a row, and its values may repeat.
//!
//! Nowhere else: not in another column, in statistics or footers, in any other field of a dead letter, in the rest of intents and
//! commit records, in the lease table, or another key. Does not own: the search itself (`search`), the rules (`rules`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;

use crate::security::rules::Dataset;
use crate::security::search::{Found, MarkId, Marks, Planted};

/// Objects by key, and the other files of the lake's folder.
pub(crate) type Objects = BTreeMap<String, Vec<u8>>;

/// A search: the marks, the rules, and the results.
pub(crate) struct Search<'a> {
    marks: &'a Marks,
    datasets: &'a [Dataset],
    /// Marks where they must not be: a description of each.
    pub(crate) leaks: BTreeSet<String>,
    /// Marks where they may be, by area. They prove that there was something to find.
    pub(crate) landed: BTreeMap<&'static str, BTreeSet<MarkId>>,
}

/// Every file below a folder, by its relative path.
pub(crate) fn files_below(root: &Path) -> Objects {
    let mut objects = Objects::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                objects.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    objects
}

/// Lines of a compressed object.
pub(crate) fn lines(name: &str, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut text = Vec::new();
    if name.ends_with(".zst") {
        zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut text).unwrap();
    } else {
        MultiGzDecoder::new(bytes).read_to_end(&mut text).unwrap();
    }
    text.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

impl<'a> Search<'a> {
    pub(crate) fn new(marks: &'a Marks, datasets: &'a [Dataset]) -> Self {
        Search { marks, datasets, leaks: BTreeSet::new(), landed: BTreeMap::new() }
    }

    fn dataset(&self, name: &str) -> Option<&'a Dataset> {
        self.datasets.iter().find(|dataset| dataset.name == name)
    }

    /// Searches bytes that may contain no mark at all.
    pub(crate) fn nothing_in(&mut self, what: &str, bytes: &[u8]) {
        self.search(what, bytes, |_, _| false);
    }

    /// Searches for marks that must not be there; `may` says which may be.
    fn search(&mut self, what: &str, bytes: &[u8], may: impl Fn(&Self, &Planted) -> bool) {
        for Found { ids: [first, last], form } in self.marks.find(bytes) {
            // A value that may be there unchanged may not be there as a digest.
            let is_digest = form.starts_with("a digest");
            if is_digest || !(first..=last).any(|id| may(self, self.marks.planted(id))) {
                let planted = self.marks.planted(first);
                self.leaks.insert(format!("{what}: {planted:?} {form}"));
            }
        }
    }

    /// Whether a value may be in the key of an object: it is of a partition column.
    fn may_be_in_a_key(&self, planted: &Planted) -> bool {
        self.dataset(&planted.dataset).is_some_and(|dataset| dataset.in_keys(planted))
    }

    /// Whether a value is the time of an event or of an arrival.
    fn is_time(&self, planted: &Planted) -> bool {
        self.dataset(&planted.dataset).is_some_and(|dataset| dataset.is_time(planted))
    }

    /// Searches what a command printed. A dead letter shows when its record arrived.
    pub(crate) fn output(&mut self, command: &str, printed: &[u8]) {
        let shows_dead_letters = command.starts_with("deadletters show");
        self.search(&format!("the output of '{command}'"), printed, |search, planted| {
            shows_dead_letters && search.is_time(planted)
        });
    }

    /// Searches a whole lake.
    pub(crate) fn lake(&mut self, objects: &Objects) {
        for (name, bytes) in objects {
            match name.split('/').next().unwrap() {
                "raw" => {
                    self.nothing_in(&format!("the key {name}"), name.as_bytes());
                    let all = lines(name, bytes).join(&b'\n');
                    self.land("raw/", &all);
                }
                "error" => {
                    self.nothing_in(&format!("the key {name}"), name.as_bytes());
                    self.dead_letters(name, bytes);
                }
                "processed" => {
                    self.search(&format!("the key {name}"), name.as_bytes(), Self::may_be_in_a_key);
                    self.rows(name, bytes);
                }
                // Commit records, intents and entries of the lake log contain keys and bounds; nothing else here contains anything of a
                // record.
                first => {
                    if matches!(first, "_commits" | "_intents" | "_log") {
                        self.manifest(name, bytes, objects);
                    } else {
                        self.nothing_in(name, bytes);
                    }
                    self.nothing_in(&format!("the key {name}"), name.as_bytes());
                }
            }
        }
    }

    /// Searches an intent, a commit record or an entry of the lake log. The bounds of each column are searched on their own.
    fn manifest(&mut self, name: &str, bytes: &[u8], objects: &Objects) {
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        let (line, after) = bytes.split_at(end);
        let mut manifest: Value = serde_json::from_slice(line).unwrap();
        let objects_of = if manifest["added"].is_array() { "added" } else { "objects" };
        for object in manifest[objects_of].as_array_mut().unwrap() {
            let Some(name_of_dataset) = object["dataset"].as_str() else { continue };
            let dataset = self.dataset(name_of_dataset).unwrap();
            let schema = format!("_schemas/{name_of_dataset}/");
            let (_, schema) = objects.range(schema.clone()..).rfind(|(key, _)| key.starts_with(&schema)).unwrap();
            let schema: Value = serde_json::from_slice(schema).unwrap();
            let fields = schema["fields"].as_array().unwrap();
            for entry in object["columns"].take().as_array().unwrap() {
                let [id, _, _, _, bounds @ ..] = entry.as_array().unwrap().as_slice() else { panic!("{entry}") };
                let field = &fields[usize::try_from(id.as_u64().unwrap()).unwrap() - 1];
                let column = field["name"].as_str().unwrap();
                let may = |_: &Self, planted: &Planted| {
                    let is_flat = field.get("parent").is_none();
                    planted.dataset == dataset.name
                        && is_flat
                        && dataset.shows_bounds(column)
                        && dataset.columns_of(planted).contains(column)
                };
                let bounds = Value::from(bounds).to_string();
                self.search(&format!("{name}, bounds of {column}"), bounds.as_bytes(), may);
                self.land("bounds", bounds.as_bytes());
            }
        }
        self.search(name, manifest.to_string().as_bytes(), Self::may_be_in_a_key);
        self.search(name, after, |_, _| false);
    }

    fn land(&mut self, area: &'static str, bytes: &[u8]) {
        let found = self.marks.find_plain(bytes).into_iter().map(|found| found.ids[0]);
        self.landed.entry(area).or_default().extend(found);
    }

    fn dead_letters(&mut self, name: &str, bytes: &[u8]) {
        for line in lines(name, bytes) {
            let mut dead: Value = serde_json::from_slice(&line).unwrap();
            let raw = dead["rawData"].take();
            let raw = base64_simd::STANDARD.decode_to_vec(raw.as_str().unwrap()).unwrap();
            self.land("rawData", &raw);
            let arrival = dead["arrivalTimestamp"].take();
            self.search(&format!("{name}, arrivalTimestamp"), arrival.to_string().as_bytes(), Self::is_time);
            self.nothing_in(name, dead.to_string().as_bytes());
        }
    }

    fn rows(&mut self, name: &str, bytes: &[u8]) {
        let dataset = self.dataset(name.split('/').nth(1).unwrap()).unwrap();
        // Footers and indexes are not compressed. They may hold values of the file's columns only.
        self.search(&format!("{name}, its bytes"), bytes, |_, planted| {
            planted.dataset == dataset.name && !dataset.columns_of(planted).is_empty()
        });
        let reader = SerializedFileReader::new(Bytes::copy_from_slice(bytes)).unwrap();
        let file = reader.metadata().file_metadata();
        for pair in file.key_value_metadata().into_iter().flatten().filter(|pair| pair.key != "ARROW:schema") {
            self.nothing_in(&format!("{name}, {}", pair.key), pair.value.clone().unwrap_or_default().as_bytes());
        }
        let mut columns: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for group in reader.metadata().row_groups() {
            for chunk in group.columns() {
                let column = columns.entry(chunk.column_path().parts()[0].clone()).or_default();
                let statistics = chunk.statistics();
                let bounds = [statistics.and_then(|s| s.min_bytes_opt()), statistics.and_then(|s| s.max_bytes_opt())];
                for bound in bounds.into_iter().flatten() {
                    column.extend_from_slice(bound);
                    column.push(b'\n');
                }
            }
        }
        for row in reader.get_row_iter(None).unwrap() {
            for (column, field) in row.unwrap().into_columns() {
                columns.entry(column).or_default().extend_from_slice(format!("{field}\n").as_bytes());
            }
        }
        for (column, values) in columns {
            let may = |_: &Self, planted: &Planted| {
                planted.dataset == dataset.name && dataset.columns_of(planted).contains(&column)
            };
            self.search(&format!("{name}, column {column}"), &values, may);
            self.land("processed/", &values);
        }
    }

    /// Fails if a mark is where it must not be.
    pub(crate) fn finds_no_leak(&self) {
        let shown: Vec<&String> = self.leaks.iter().take(40).collect();
        assert!(self.leaks.is_empty(), "{} leaks, among them:\n{shown:#?}", self.leaks.len());
    }
}
