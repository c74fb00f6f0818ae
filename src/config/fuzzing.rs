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
    Some(match super::resolve::resolve(file, &overrides, &mut problems) {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems),
    })
}

/// Whether a configuration can be written down and read back as the same, with every value within the bounds of its key.
///
/// # Errors
/// What is wrong.
pub fn reads_back(config: &Config) -> Result<(), String> {
    let text = config.effective();
    let file = ConfigFile::parse("effective", &text).map_err(|problems| format!("{problems}\n{text}"))?;
    match resolve(file) {
        Some(Ok(again)) if again.effective() == text => Ok(()),
        Some(Ok(again)) => Err(format!("{text}\nreads back as\n{}", again.effective())),
        Some(Err(problems)) => Err(format!("{problems}\n{text}")),
        None => Err("it names definitions".to_owned()),
    }
}
