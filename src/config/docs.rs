//! The keys of `shardlake.toml` for people: `config keys`, and the tables in `docs/configuration.md`.

use crate::config::keys::{DATASET, SECTIONS, SOURCE, Section};
use crate::settings::KeyDoc;

/// A section and its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionDoc {
    /// As it is written in the file.
    pub header: String,
    /// What it is about.
    pub doc: &'static str,
    /// Its keys.
    pub keys: Vec<KeyDoc>,
}

fn section_doc<S>(section: &Section<S>, header: String) -> SectionDoc {
    SectionDoc { header, doc: section.doc, keys: section.keys.iter().map(|key| key.document()).collect() }
}

/// Every section of `shardlake.toml` with its keys.
pub fn documentation() -> Vec<SectionDoc> {
    let many = |name: &str| format!("[[{name}]]");
    let mut all = vec![section_doc(&SOURCE, many(SOURCE.name)), section_doc(&DATASET, many(DATASET.name))];
    all.extend(SECTIONS.iter().map(|section| section_doc(section, format!("[{}]", section.name))));
    all
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;

    const BEGIN: &str = "<!-- keys: generated from src/config/keys.rs -->\n";
    const END: &str = "<!-- end of keys -->\n";

    fn tables() -> String {
        let mut text = String::new();
        for SectionDoc { header, doc, keys } in documentation() {
            let _ = writeln!(text, "\n### `{header}`\n\n{doc}\n");
            text.push_str("| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
            for KeyDoc { name, value, default, meaning } in keys {
                let _ = writeln!(text, "| `{name}` | {value} | {default} | {meaning} |");
            }
        }
        text.push('\n');
        text
    }

    #[test]
    fn the_documentation_has_the_table_of_keys() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect("docs/configuration.md has the mark where the tables begin");
        let (found, after) = rest.split_once(END).expect("docs/configuration.md has the mark where the tables end");
        let expected = tables();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, [before, BEGIN, &expected, END, after].concat()).unwrap();
            return;
        }
        assert!(
            found == expected,
            "the tables in docs/configuration.md are stale; regenerate them with\n    \
             UPDATE_DOCS=1 cargo test -p shardlake --lib the_documentation_has_the_table_of_keys"
        );
    }
}
