//! The configuration with every default, as a file that says the same.
//!
//! Owns: the text that `config check` prints. The pseudonym key is never in it, only where the key is.

use std::fmt::Write as _;

use crate::config::keys::{SECTIONS, SOURCE, Section};
use crate::config::{Config, Settings, SourceConfig, SourceSettings};

impl Config {
    /// The effective configuration as TOML.
    pub fn effective(&self) -> String {
        let mut text = String::new();
        for source in &self.sources {
            let SourceConfig { url, name, dataset, documents, options } = source.clone();
            let mut source = SourceSettings { url: Some(url), name, dataset, documents, options };
            write_section(&mut text, "[[source]]", &SOURCE, &mut source);
        }
        let mut settings = Settings {
            lake: Some(self.lake.clone()),
            lake_options: self.lake_options.clone(),
            checkpoints: self.checkpoints.clone(),
            checkpoints_options: self.checkpoints_options.clone(),
            key: Some(self.key.clone()),
            undo_within: self.undo_within,
            listen: self.listen,
            worker: self.worker.clone(),
        };
        for section in SECTIONS.iter() {
            write_section(&mut text, &format!("[{}]", section.name), section, &mut settings);
        }
        let _ = writeln!(text, "# datasets: {}", self.datasets.names().collect::<Vec<_>>().join(", "));
        text
    }
}

/// Writes a section, unless it would have no keys.
fn write_section<S>(text: &mut String, header: &str, section: &Section<S>, values: &mut S) {
    let shown: Vec<String> = section
        .keys
        .iter()
        .filter_map(|key| key.show(values).map(|value| format!("{} = {value}\n", key.name())))
        .collect();
    if !shown.is_empty() {
        let _ = writeln!(text, "{header}\n{}", shown.concat());
    }
}
