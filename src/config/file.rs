//! `shardlake.toml` as it is read: the values of all keys, before rules between them and definitions of datasets.

use std::path::PathBuf;
use std::time::Duration;

use pipeline::documents::Documents;
use pipeline::toml_reader::{Document, Problems, Section};

use crate::config::keys::{DATASET, SECTIONS, SOURCE};
use crate::config::{KeySource, SourceConfig, WorkerSettings};
use crate::lake::backends::{LakeOptions, LakeUrl};
use crate::lease_stores::{CheckpointsUrl, LeaseStoreOptions};
use crate::server::Listen;
use crate::settings::Setting;
use crate::source::backends::{SourceOptions, SourceUrl};

/// A configuration file. A key that it does not have has its default.
#[derive(Debug, Clone, Default)]
pub struct ConfigFile {
    /// The folder of the file: paths of definitions are relative to it.
    pub folder: PathBuf,
    pub(crate) sources: Vec<SourceConfig>,
    pub(crate) datasets: Vec<PathBuf>,
    pub(crate) settings: Settings,
}

/// The values of the sections that a file may have once.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) lake: Option<LakeUrl>,
    pub(crate) lake_options: LakeOptions,
    pub(crate) checkpoints: Option<CheckpointsUrl>,
    pub(crate) checkpoints_options: LeaseStoreOptions,
    pub(crate) key: Option<KeySource>,
    pub(crate) undo_within: Duration,
    pub(crate) listen: Listen,
    pub(crate) worker: WorkerSettings,
}

/// The values of one `[[source]]`.
#[derive(Debug, Clone)]
pub(crate) struct SourceSettings {
    pub(crate) url: Option<SourceUrl>,
    pub(crate) name: Option<String>,
    pub(crate) dataset: Option<String>,
    pub(crate) documents: Documents,
    pub(crate) options: SourceOptions,
}

impl Default for SourceSettings {
    fn default() -> Self {
        let (documents, options) = (Documents::MANY, SourceOptions::default());
        SourceSettings { url: None, name: None, dataset: None, documents, options }
    }
}

impl Default for Settings {
    /// The defaults of the table of keys.
    fn default() -> Self {
        let mut settings = Settings {
            lake: None,
            lake_options: LakeOptions::default(),
            checkpoints: None,
            checkpoints_options: LeaseStoreOptions::default(),
            key: None,
            undo_within: Duration::ZERO,
            listen: Listen::Default,
            worker: WorkerSettings::default(),
        };
        SECTIONS.iter().flat_map(|section| &section.keys).for_each(|key| key.set_default(&mut settings));
        settings
    }
}

impl ConfigFile {
    /// Reads a file's text; `name` is for messages.
    ///
    /// # Errors
    /// Every problem, with its line.
    pub fn parse(name: &str, text: &str) -> Result<ConfigFile, Problems> {
        let document = Document::new(name, text);
        let Some(table) = document.parse() else { return Err(document.into_problems()) };
        let mut file = ConfigFile::default();
        {
            let root = document.root(&table);
            file.read(&root);
            root.finish();
        }
        drop(table);
        let problems = document.into_problems();
        if problems.is_empty() { Ok(file) } else { Err(problems) }
    }

    fn read(&mut self, root: &Section<'_>) {
        self.sources = root.sections(SOURCE.name).into_iter().filter_map(read_source).collect();
        for section in root.sections(DATASET.name) {
            let mut file = None;
            DATASET.keys.iter().for_each(|key| key.read(&section, &mut file));
            self.datasets.extend(file);
            section.finish();
        }
        for known in SECTIONS.iter() {
            if let Some(section) = root.section(known.name) {
                known.keys.iter().for_each(|key| key.read(&section, &mut self.settings));
                for key in known.keys.iter().filter(|key| section.has("url") && section.has(key.name())) {
                    if let Some(backend) = key.misplaced(&self.settings) {
                        let message = format!("{} in [{}] is only for {backend}", key.name(), known.name);
                        section.report(section.line(), message);
                    }
                }
                section.finish();
            }
        }
    }
}

fn read_source(section: Section<'_>) -> Option<SourceConfig> {
    let mut source = SourceSettings::default();
    // Several kinds of sources may have keys of one name.
    let is_for_another = |key: &dyn Setting<SourceSettings>, source: &SourceSettings| {
        let mut others = SOURCE.keys.iter().filter(|other| other.name() == key.name());
        key.misplaced(source).is_some() && others.any(|other| other.misplaced(source).is_none())
    };
    for key in &SOURCE.keys {
        if !is_for_another(&**key, &source) {
            key.read(&section, &mut source);
        }
    }
    for key in SOURCE.keys.iter().filter(|key| source.url.is_some() && section.has(key.name())) {
        if let Some(backend) = key.misplaced(&source).filter(|_| !is_for_another(&**key, &source)) {
            section.report(section.line(), format!("{} is only for {backend} sources", key.name()));
        }
    }
    if source.documents.arrays && !source.documents.many {
        section.report(section.line(), "arrays = true needs documents = \"many\"".to_owned());
    }
    section.finish();
    let SourceSettings { url, name, dataset, documents, options } = source;
    Some(SourceConfig { url: url?, name, dataset, documents, options })
}
