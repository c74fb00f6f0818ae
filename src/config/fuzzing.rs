//! The fuzz targets' view of the configuration: a file's text becomes what the program runs on, and nothing is opened.

use pipeline::toml_reader::Problems;

use crate::config::{Config, ConfigFile, Overrides};

/// What a worker would run on; `None` if the file names definitions, which would have to be read.
pub fn resolve(file: ConfigFile) -> Option<Result<Config, Problems>> {
    if !file.datasets.is_empty() {
        return None;
    }
    let mut problems = Problems::default();
    let overrides = Overrides { run: true, ..Overrides::default() };
    Some(match super::resolve(file, &overrides, &mut problems) {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems),
    })
}
