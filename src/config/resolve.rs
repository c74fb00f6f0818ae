//! From what the user wrote to what the program runs on: overrides, defaults that depend on others, rules between keys, and the
//! definitions of datasets.
//!
//! Owns: that every problem is reported, with its file and line if it has one. Does not own: rules of a single key (`keys`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline::dataset::{Datasets, DefinitionText, LookupTable, shipped};
use pipeline::toml_reader::{Problem, Problems};

use crate::config::keys::find;
use crate::config::{Config, ConfigFile, DEMO, KeySource, Overrides, Settings, SourceConfig};
use crate::lake::backends::LakeUrl;
use crate::lease_stores::CheckpointsUrl;
use crate::raw::{RECORD_BYTES_MAX, RawTo};
use crate::source::backends::SourceUrl;

/// The place of problems with flags.
const COMMAND_LINE: &str = "command line";

fn report(problems: &mut Problems, place: &str, message: impl Into<String>) {
    problems.push(Problem { file: place.to_owned(), line: 0, message: message.into() });
}

/// Reads the configuration file, if there is one.
pub(super) fn read_file(overrides: &Overrides, problems: &mut Problems) -> Option<ConfigFile> {
    let default = Path::new("shardlake.toml");
    let path = match &overrides.config {
        Some(path) => path.as_path(),
        None if default.is_file() => default,
        None => return None,
    };
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => match ConfigFile::parse(&name, &text) {
            Ok(mut file) => {
                file.folder = path.parent().map(Path::to_owned).unwrap_or_default();
                Some(file)
            }
            Err(found) => {
                problems.extend(found);
                None
            }
        },
        Err(error) => {
            report(problems, &name, format!("failed to read the file: {error}"));
            None
        }
    }
}

/// Puts everything together; `None` if a part is missing.
pub(super) fn resolve(file: ConfigFile, overrides: &Overrides, problems: &mut Problems) -> Option<Config> {
    let ConfigFile { folder, sources, datasets, mut settings } = file;
    override_settings(&mut settings, overrides, problems);
    let (sources, demo) = resolve_sources(sources, overrides, problems);
    let (lake, checkpoints, key) = resolve_stores(&settings, demo, overrides, problems);
    check_together(&settings, &lake, checkpoints.as_ref(), problems);
    check_sources(&sources, problems);
    let datasets = compile(&datasets, &folder, &overrides.definitions, problems)?;
    for source in &sources {
        if let Some(name) = source.dataset.as_deref().filter(|name| datasets.find(name).is_none()) {
            let known: Vec<&str> = datasets.names().collect();
            report(problems, "[[source]]", format!("there is no dataset '{name}'; known: {}", known.join(", ")));
        }
    }
    if overrides.run && key == KeySource::Missing && datasets.need_key() {
        let kind = lake.backend().name();
        let message = format!(
            "a lake on {kind} needs the pseudonym key: key = \"env:NAME\", \"file:PATH\" or \"secretsmanager:ARN\""
        );
        report(problems, "[anonymize]", message);
    }
    let Settings { lake_options, checkpoints_options, undo_within, listen, worker, .. } = settings;
    let mut config = Config {
        sources,
        demo,
        lake,
        lake_options,
        checkpoints,
        checkpoints_options,
        datasets,
        key,
        undo_within,
        listen,
        worker,
    };
    let application = config.application();
    for source in &mut config.sources {
        source.url.backend().fill(&mut source.options, &application);
    }
    Some(config)
}

fn override_settings(settings: &mut Settings, overrides: &Overrides, problems: &mut Problems) {
    let raw = match overrides.raw.as_deref() {
        Some("off") => Some(("enabled", "false")),
        Some("on") => Some(("codec", "gzip")),
        Some(codec @ ("gzip" | "zstd")) => Some(("codec", codec)),
        Some(other) => {
            report(problems, COMMAND_LINE, format!("--raw must be off, gzip or zstd, not '{other}'"));
            None
        }
        None => None,
    };
    let threads = overrides.threads.map(|threads| threads.to_string());
    let flags = [
        ("lake", "url", overrides.lake.as_deref()),
        ("checkpoints", "url", overrides.checkpoints.as_deref()),
        ("limits", "memory", overrides.memory.as_deref()),
        ("limits", "threads", threads.as_deref()),
        ("commit", "interval", overrides.commit_interval.as_deref()),
        ("server", "listen", overrides.listen.as_deref()),
    ];
    let flags = flags.into_iter().filter_map(|(section, name, value)| Some((section, name, value?)));
    for (section, name, value) in flags.chain(raw.map(|(name, value)| ("raw", name, value))) {
        if let Err(message) = find(section, name).set(settings, value) {
            report(problems, COMMAND_LINE, message);
        }
    }
}

/// The sources, and whether they are the demonstration's.
fn resolve_sources(
    sources: Vec<SourceConfig>,
    overrides: &Overrides,
    problems: &mut Problems,
) -> (Vec<SourceConfig>, bool) {
    if !overrides.sources.is_empty() {
        let mut named = Vec::new();
        for url in &overrides.sources {
            match SourceUrl::parse(url) {
                Ok(url) => named.push(SourceConfig::plain(url)),
                Err(message) => report(problems, COMMAND_LINE, message),
            }
        }
        return (named, false);
    }
    if !sources.is_empty() {
        return (sources, false);
    }
    (vec![SourceConfig::plain(SourceUrl::files(Config::demo_records()))], true)
}

/// Lake, checkpoints and key, with the defaults that the lake gives.
fn resolve_stores(
    settings: &Settings,
    demo: bool,
    overrides: &Overrides,
    problems: &mut Problems,
) -> (LakeUrl, Option<CheckpointsUrl>, KeySource) {
    let demo_lake = demo && (overrides.run || !Path::new("lake").is_dir());
    let default = || if demo_lake { Path::new(DEMO).join("lake") } else { PathBuf::from("lake") };
    let lake = settings.lake.clone().unwrap_or_else(|| LakeUrl::local(default()));
    let folder = lake.backend().folder();
    let checkpoints = settings.checkpoints.clone().or_else(|| folder.map(CheckpointsUrl::in_lake));
    if checkpoints.is_none() && !overrides.without_leases && problems.is_empty() {
        let kind = lake.backend().name();
        let message =
            format!("a lake on {kind} needs a lease store: --checkpoints dynamodb://TABLE, or [checkpoints] url");
        report(problems, "[checkpoints]", message);
    }
    let own_key = folder.map(|folder| KeySource::MadeFile(beside(folder, ".pseudonym.key")));
    let key = settings.key.clone().or(own_key).unwrap_or(KeySource::Missing);
    (lake, checkpoints, key)
}

/// A path beside a folder, with an ending: `lake` and `.key` are `lake.key`.
fn beside(folder: &Path, ending: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    folder.with_file_name(name)
}

/// The longest time for which requests may be repeated: well below the age of what a sweep removes.
const RETRY_WITHIN_MAX: Duration = Duration::from_secs(12 * 3600);

/// Rules between keys.
fn check_together(settings: &Settings, lake: &LakeUrl, checkpoints: Option<&CheckpointsUrl>, problems: &mut Problems) {
    let limits = &settings.worker.limits;
    if limits.record_bytes > limits.memory / 8 {
        let message = "record_bytes must be at most an eighth of memory: raise memory, or lower record_bytes";
        report(problems, "[limits]", message);
    }
    if settings.worker.retry.within > RETRY_WITHIN_MAX {
        let message = "within must be at most 12h: a sweep removes what is older than a day, and no request may take effect after that";
        report(problems, "[retry]", message);
    }
    let output = &settings.worker.output;
    if output.raw_to != RawTo::Lake && output.raw.is_some() && limits.record_bytes >= RECORD_BYTES_MAX {
        let message = "to = \"firehose:…\" needs [limits] record_bytes below 1,000 KiB, the most that Firehose accepts: a \
                       larger record would be in processed/ and nowhere else";
        report(problems, "[raw]", message);
    }
    if let Err(message) = lake.backend().check_options(&settings.lake_options) {
        report(problems, "[lake]", message);
    }
    if let Some(Err(message)) = checkpoints.map(|store| store.backend().check_options(&settings.checkpoints_options)) {
        report(problems, "[checkpoints]", message);
    }
}

/// Rules of each source, and between them.
fn check_sources(sources: &[SourceConfig], problems: &mut Problems) {
    for (place, source) in sources.iter().enumerate() {
        if let Err(message) = source.url.backend().check_options(&source.options) {
            report(problems, "[[source]]", message);
        }
        let name = source.stream_name();
        let same = sources[..place].iter().find(|other| name.is_some() && other.stream_name() == name);
        if let (Some(other), Some(name)) = (same, name) {
            let (other, url) = (&other.url, &source.url);
            let message = format!(
                "{other} and {url} both have the name {name} in the lake: give one of them another `name`, which must then stay"
            );
            report(problems, "[[source]]", message);
        }
    }
}

/// Compiles the shipped definitions and the user's. A user's definition replaces a shipped one of the same name; the user's come
/// first.
fn compile(files: &[PathBuf], folder: &Path, overriding: &[PathBuf], problems: &mut Problems) -> Option<Datasets> {
    let mut folders = Vec::new();
    let mut read = |path: PathBuf| match std::fs::read_to_string(&path) {
        Ok(text) => {
            folders.push(path.parent().map(Path::to_owned).unwrap_or_default());
            Some(DefinitionText { file: path.display().to_string(), text })
        }
        Err(error) => {
            report(problems, &path.display().to_string(), format!("failed to read the file: {error}"));
            None
        }
    };
    let overriding: Vec<DefinitionText> = overriding.iter().filter_map(|path| read(path.clone())).collect();
    let mut texts: Vec<DefinitionText> = files.iter().filter_map(|path| read(folder.join(path))).collect();
    let name_of = |text: &DefinitionText| Datasets::name_of(&text.file, &text.text);
    for text in overriding.into_iter().rev() {
        let name = name_of(&text);
        // One that replaces another keeps its place, since the first that recognizes a record gets it.
        match texts.iter().position(|other| name.is_some() && name_of(other) == name) {
            Some(place) => texts[place] = text,
            None => texts.insert(0, text),
        }
    }
    let own: Vec<String> = texts.iter().filter_map(|text| Datasets::name_of(&text.file, &text.text)).collect();
    texts.extend(
        shipped()
            .into_iter()
            .filter(|text| Datasets::name_of(&text.file, &text.text).is_none_or(|name| !own.contains(&name))),
    );
    let tables = |file: &str, key: &str| {
        let candidates = folders.iter().map(|folder| folder.join(file)).chain([PathBuf::from(file)]);
        let found = candidates.into_iter().find(|path| path.is_file());
        let path = found.ok_or_else(|| "there is no such file beside the definition".to_owned())?;
        let bytes = std::fs::read(&path).map_err(|error| format!("failed to read the file: {error}"))?;
        LookupTable::read(&bytes, key)
    };
    match Datasets::compile(&texts, &tables) {
        Ok(datasets) => Some(datasets),
        Err(found) => {
            problems.extend(found);
            None
        }
    }
}
